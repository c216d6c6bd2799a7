//! Syslog over TCP (RFC 6587): a connection's bytes become frames, frames become records.

use super::handover::Handover;
use super::listen::Service;
use super::system::Handle;
use super::turn::Shard;
use crate::engine::time::Time;
use crate::wire::syslog::{Framer, Step, frame_buffer_bytes};
use monoio::buf::SliceMut;
use monoio::io::AsyncReadRent;
use monoio::net::TcpStream;
use std::time::Duration;

/// How much is read at once: some 400 usual lines, handled in a fifth of a millisecond.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes read after the shard was told to drain: more than a receive buffer of the kernel holds (net.ipv4.tcp_rmem). What
/// comes later was not there when it was told.
const DRAINED_BYTES_MAX: usize = 16 << 20;

/// A sender may be quiet for days; this finds out whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Reads until the sender ends, or the shard drains.
pub async fn run(shard: Shard, handover: Handover, message_bytes_max: usize) {
    let peer = handover.peer;
    let _ = rustix::net::sockopt::set_socket_keepalive(&handover.socket, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(&handover.socket, KEEPALIVE);
    let Ok(mut stream) = TcpStream::from_std(std::net::TcpStream::from(handover.socket)) else {
        shard.turn(|core| core.spread.release(Service::Syslog, core.index));
        return;
    };
    let id = shard.turn(|core| core.open(Handle::of(&stream), Service::Syslog, peer, Time::MAX));
    read(&shard, &mut stream, message_bytes_max).await;
    shard.turn(|core| core.close(id, Service::Syslog));
}

async fn read(shard: &Shard, stream: &mut TcpStream, message_bytes_max: usize) {
    let mut framer = Framer::new(message_bytes_max);
    let mut buffer = Vec::with_capacity(BUFFER_BYTES.max(2 * frame_buffer_bytes(message_bytes_max)));
    let mut drained = 0;
    loop {
        let (begin, end) = (buffer.len(), buffer.capacity());
        let (result, slice) = stream.read(SliceMut::new(buffer, begin, end)).await;
        buffer = slice.into_inner();
        let read = result.unwrap_or(0);
        shard.until_uncongested().await;
        let draining = take_frames(shard, &mut framer, &mut buffer, read == 0);
        drained += if draining { read } else { 0 };
        if read == 0 || drained >= DRAINED_BYTES_MAX {
            return;
        }
        shard.give_way().await;
    }
}

/// Takes all complete frames from the front of the buffer. At the end of the stream, what remains is looked at too. True if
/// the shard drains.
fn take_frames(shard: &Shard, framer: &mut Framer, buffer: &mut Vec<u8>, ended: bool) -> bool {
    let mut done = 0;
    let draining = shard.turn(|core| {
        while let Some(rest) = buffer.get(done..) {
            let step = match framer.next(rest) {
                Step::Incomplete if ended && !rest.is_empty() => framer.finish(rest),
                step => step,
            };
            match step {
                Step::Frame { frame, consumed } => {
                    core.counters.frames += 1;
                    core.record(frame);
                    done += consumed;
                }
                Step::Skipped { consumed, why } => {
                    core.counters.frame_fault(why);
                    done += consumed;
                }
                Step::Discard { consumed } => done += consumed,
                Step::Incomplete => break,
            }
        }
        core.send_out();
        core.draining
    });
    buffer.drain(..done.min(buffer.len()));
    draining
}

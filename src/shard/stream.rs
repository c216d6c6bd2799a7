//! Syslog over TCP (RFC 6587): a connection's bytes become frames, frames become records.

use super::handover::Handover;
use super::listen::Service;
use super::readiness::give_way;
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

/// A sender may be quiet for days; this finds out whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Reads until the sender ends, or the shard drains.
pub async fn run(shard: Shard, handover: Handover, message_bytes_max: usize) {
    let _ = rustix::net::sockopt::set_socket_keepalive(&handover.socket, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(&handover.socket, KEEPALIVE);
    let Ok(mut stream) = TcpStream::from_std(std::net::TcpStream::from(handover.socket)) else {
        shard.turn(|core| core.spread.release(Service::Syslog, core.index));
        return;
    };
    let id = shard.turn(|core| core.open(Handle::of(&stream), Service::Syslog, Time::MAX));
    read(&shard, &mut stream, message_bytes_max).await;
    shard.turn(|core| core.close(id, Service::Syslog));
}

async fn read(shard: &Shard, stream: &mut TcpStream, message_bytes_max: usize) {
    let mut framer = Framer::new(message_bytes_max);
    let mut buffer = Vec::with_capacity(BUFFER_BYTES.max(2 * frame_buffer_bytes(message_bytes_max)));
    loop {
        let (begin, end) = (buffer.len(), buffer.capacity());
        let (result, slice) = stream.read(SliceMut::new(buffer, begin, end)).await;
        buffer = slice.into_inner();
        let ended = !matches!(result, Ok(1..));
        shard.until_uncongested().await;
        take_frames(shard, &mut framer, &mut buffer, ended);
        if ended {
            return;
        }
        give_way().await;
    }
}

/// Takes all complete frames from the front of the buffer. At the end of the stream, what remains is looked at too.
fn take_frames(shard: &Shard, framer: &mut Framer, buffer: &mut Vec<u8>, ended: bool) {
    let mut done = 0;
    shard.turn(|core| {
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
    });
    buffer.drain(..done.min(buffer.len()));
}

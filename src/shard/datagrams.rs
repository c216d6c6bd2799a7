//! Syslog over UDP (RFC 5426): many datagrams per system call, straight from the kernel's buffers.

use super::readiness::Readiness;
use super::system::{BATCH, Batch, Handle};
use super::turn::Shard;
use std::os::fd::AsFd;

/// Batches before other work gets its turn: about half a millisecond of lines.
const BATCHES_PER_WAKE: usize = 16;

/// Datagrams received after the shard was told to drain: more than a full buffer of the kernel holds (each takes 768 bytes
/// of 16 MiB at least). What comes later was not there when it was told.
const DRAINED_MAX: usize = 32 << 10;

/// Receives until the shard drains, and then what was there.
pub async fn run(shard: Shard, readiness: Readiness, message_bytes_max: usize) {
    shard.turn(|core| core.add_datagrams(Handle::of(&readiness)));
    let mut drained = 0;
    let mut batch = Batch::new(message_bytes_max);
    loop {
        readiness.readable().await;
        let (mut empty, mut is_draining) = (false, false);
        for _ in 0..BATCHES_PER_WAKE {
            shard.until_uncongested().await;
            let (received, draining) = shard.turn(|core| {
                // An error other than "nothing there" is one of an earlier send, and we never send: it is cleared by
                // being told, and the next call goes on.
                let received = batch.receive(readiness.as_fd(), core.wants_senders()).unwrap_or(0);
                for datagram in batch.iter() {
                    core.datagram(&datagram);
                }
                core.send_out();
                (received, core.draining)
            });
            is_draining = draining;
            drained += if draining { received } else { 0 };
            if received < BATCH {
                empty = true;
                break;
            }
        }
        if is_draining && (empty || drained >= DRAINED_MAX) {
            break;
        }
        shard.give_way().await;
    }
    shard.turn(|core| core.end_datagrams(Handle::of(&readiness)));
}

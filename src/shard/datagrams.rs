//! Syslog over UDP (RFC 5426): many datagrams per system call, straight from the kernel's buffers.

use super::readiness::{Readiness, give_way};
use super::system::{BATCH, Batch, Handle, datagrams_dropped};
use super::turn::Shard;
use std::os::fd::{AsFd, OwnedFd};

/// Batches before other work gets its turn: about half a millisecond of lines.
const BATCHES_PER_WAKE: usize = 16;

/// Receives until the shard drains, and then what is still there.
pub async fn run(shard: Shard, socket: OwnedFd, message_bytes_max: usize) {
    let Ok(readiness) = Readiness::new(socket) else {
        shard.turn(|core| core.listening -= 1);
        return;
    };
    shard.turn(|core| core.add_datagrams(Handle::of(&readiness)));
    let mut batch = Batch::new(message_bytes_max);
    loop {
        readiness.readable().await;
        let mut empty = false;
        for _ in 0..BATCHES_PER_WAKE {
            shard.until_uncongested().await;
            // An error other than "nothing there" is one of an earlier send, and we never send: it is cleared by being
            // told, and the next call goes on.
            let received = batch.receive(readiness.as_fd()).unwrap_or(0);
            shard.turn(|core| {
                for datagram in batch.iter() {
                    core.datagram(&datagram);
                }
            });
            if received < BATCH {
                empty = true;
                break;
            }
        }
        let draining = shard.turn(|core| {
            core.counters.datagrams_dropped = datagrams_dropped(readiness.as_fd());
            core.draining
        });
        if draining && empty {
            break;
        }
        give_way().await;
    }
    shard.turn(|core| core.listening -= 1);
}

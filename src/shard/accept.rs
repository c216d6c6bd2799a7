//! Accepting connections.
//!
//! Not with monoio's `accept`: dropping that future can leak a connection, and a socket it accepted belongs to this
//! shard's driver, while ours may be handed to another. So a task waits until the listener is ready and takes what
//! is there. A failed accept costs nothing but itself; when descriptors run out, it waits a little for some to come
//! free.

use super::listen::{Service, accept, is_passing};
use super::readiness::Readiness;
use super::turn::Shard;
use std::os::fd::AsFd;

/// Connections accepted before other work gets its turn.
const ACCEPTS_PER_WAKE: usize = 64;

/// Accepts connections for `service` until the shard drains.
pub async fn run(shard: Shard, readiness: Readiness, service: Service) {
    loop {
        readiness.readable().await;
        let mut exhausted = false;
        let draining = shard.turn(|core| {
            for _ in 0..ACCEPTS_PER_WAKE {
                if core.draining {
                    break;
                }
                match accept(readiness.as_fd()) {
                    None => break,
                    Some(Ok((socket, peer))) => core.place(socket, service, peer),
                    Some(Err(fault)) => {
                        core.counters.accept_faults[service as usize] += 1;
                        if !is_passing(&fault) {
                            exhausted = true;
                            break;
                        }
                    }
                }
            }
            core.draining
        });
        if draining {
            break;
        }
        if exhausted {
            shard.pause().await;
        }
        shard.give_way().await;
    }
    shard.turn(|core| core.listening -= 1);
}

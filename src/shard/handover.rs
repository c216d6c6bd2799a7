//! Spreading long-lived connections evenly over the shards.
//!
//! The kernel's choice among SO_REUSEPORT listeners is a hash: of 16 connections on 4 listeners, one gets 6 and
//! another 2, and it stays so for as long as they live. So whoever accepts a connection looks who has the fewest of
//! its kind, and hands it over if that is somebody else. Counts are read and written when a connection comes or goes,
//! never for a line or a question.

use super::listen::Service;
use crate::engine::address::Address;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An accepted connection on its way to the shard that will serve it.
#[derive(Debug)]
pub struct Handover {
    pub socket: OwnedFd,
    pub service: Service,
    /// `None` on a unix socket, or if the kernel did not say.
    pub peer: Option<Address>,
}

/// How many connections each shard has, by service. Each shard's counts have a cache line of their own.
#[derive(Clone, Debug)]
pub struct Spread(Arc<[Counts]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts([AtomicUsize; Service::COUNT]);

impl Spread {
    pub fn new(shards: usize) -> Spread {
        Spread((0..shards).map(|_| Counts::default()).collect())
    }

    /// Claims a place for one more connection: at `own` unless another shard has fewer. `None` if there are `max`
    /// already. The place must be given back with [`Spread::release`].
    pub fn claim(&self, service: Service, own: usize, max: usize) -> Option<usize> {
        let count = |counts: &Counts| counts.0[service as usize].load(Ordering::Relaxed);
        let all: usize = self.0.iter().map(count).sum();
        if all >= max {
            return None;
        }
        let fewest = self.0.iter().map(count).min()?;
        let to = match self.0.get(own) {
            Some(counts) if count(counts) <= fewest => own,
            _ => self.0.iter().position(|counts| count(counts) <= fewest).unwrap_or(own),
        };
        self.0.get(to)?.0[service as usize].fetch_add(1, Ordering::Relaxed);
        Some(to)
    }

    /// Claims a place at `shard`, however many it has.
    pub fn claim_at(&self, service: Service, shard: usize) {
        if let Some(counts) = self.0.get(shard) {
            counts.0[service as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection of `shard` is gone.
    pub fn release(&self, service: Service, shard: usize) {
        if let Some(counts) = self.0.get(shard) {
            counts.0[service as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Connections of one shard.
    pub fn count(&self, service: Service, shard: usize) -> usize {
        self.0.get(shard).map_or(0, |counts| counts.0[service as usize].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_there_are_fewest() {
        let spread = Spread::new(4);
        for _ in 0..16 {
            spread.claim(Service::Syslog, 2, 100).unwrap();
        }
        let counts: Vec<_> = (0..4).map(|shard| spread.count(Service::Syslog, shard)).collect();
        assert_eq!(counts, [4, 4, 4, 4], "whoever accepted them");
        spread.release(Service::Syslog, 1);
        assert_eq!(spread.claim(Service::Syslog, 3, 100), Some(1));
        assert_eq!(spread.claim(Service::Syslog, 3, 100), Some(3), "its own place, as nobody has fewer");
        assert_eq!(spread.claim(Service::Syslog, 3, 17), None);
        assert_eq!(spread.claim(Service::Nginx, 3, 17), Some(3), "each service by itself");
    }
}

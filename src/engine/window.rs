//! The sliding window: how often has a client failed lately?
//!
//! Exact, not approximate: each failure is kept with its time until it is older than the window. That is cheap
//! because nobody needs more than `threshold − 1` of them (one more is an offence and clears the window). Bounded,
//! because the number of clients is, and because failures kept beyond the four that fit beside a client share a
//! budget. When either runs out, the client that has been quiet longest is forgotten, and counted.

use super::address::Network;
use super::recency::Recency;
use super::table::HashKey;
use super::time::Time;
use smallvec::SmallVec;
use std::time::Duration;

/// Failures that are stored beside the client itself; the default threshold of 5 needs no more.
const STAMPS_BESIDE: usize = 4;

/// How many failures per client the shared budget holds on average, beyond those stored beside it.
const STAMPS_SHARED_PER_CLIENT: usize = 4;

/// How many clients are forgotten at once to make room. What one failure needs is far less; only when the bound was made
/// smaller there may be more.
const FORGOTTEN_PER_FAILURE_MAX: usize = 1 << 10;

/// When one or several failures happened: the time in the upper 48 bits, how many in the lower 16.
#[derive(Clone, Copy, Debug)]
struct Stamp(u64);

impl Stamp {
    fn new(at: Time, count: u32) -> Stamp {
        Stamp(at.millis() << 16 | u64::from(count.min(u32::from(u16::MAX))))
    }

    fn at(self) -> Time {
        Time::from_millis(self.0 >> 16)
    }

    fn count(self) -> u32 {
        (self.0 & 0xffff) as u32
    }
}

/// The failures of one client, oldest first.
type Stamps = SmallVec<[Stamp; STAMPS_BESIDE]>;

/// What a recorded failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// That many failures in the window now, fewer than the threshold.
    Below(u32),
    /// The threshold is reached, with that many. The client starts again from nothing.
    Reached(u32),
}

/// The windows of all clients that one shard owns.
#[derive(Debug)]
pub struct Windows {
    clients: Recency<Stamps>,
    /// Failures stored away from their client, in the shared budget.
    shared: usize,
    /// Clients forgotten for want of room, since the start.
    evicted: u64,
}

impl Windows {
    /// Windows for at most `max` clients.
    pub fn new(max: usize, hash: HashKey) -> Windows {
        Windows { clients: Recency::new(max, hash), shared: 0, evicted: 0 }
    }

    /// Changes how many clients are tracked at most. A smaller bound is reached step by step: now, with each failure
    /// recorded, and by [`Windows::shrink`].
    pub fn set_max(&mut self, max: usize) {
        self.clients.set_max(max);
        self.shrink(FORGOTTEN_PER_FAILURE_MAX);
    }

    /// Clients with at least one failure remembered.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Records `count` failures of `client` at `now`, which must not be earlier than the last one recorded.
    ///
    /// Failures count while they are younger than `window`. With `threshold` of them, the answer is
    /// [`Count::Reached`] and the client's window is empty again.
    pub fn record(&mut self, client: Network, count: u32, now: Time, window: Duration, threshold: u32) -> Count {
        let touched = self.clients.touch(client);
        let stamps = touched.value;
        let shared_before = shared_of(stamps);
        stamps.retain(|stamp| stamp.at().plus(window) > now);
        let before: u32 = stamps.iter().map(|stamp| stamp.count()).sum();
        let total = before.saturating_add(count);
        if total < threshold {
            match stamps.last_mut() {
                Some(last) if last.at() == now => *last = Stamp::new(now, last.count() + count),
                _ => stamps.push(Stamp::new(now, count)),
            }
        } else {
            *stamps = Stamps::new();
        }
        self.shared = self.shared + shared_of(stamps) - shared_before;
        if let Some((_, stamps)) = touched.evicted {
            self.shared -= shared_of(&stamps);
            self.evicted += 1;
        }
        if total < threshold {
            self.shrink(FORGOTTEN_PER_FAILURE_MAX);
            Count::Below(total)
        } else {
            self.clients.remove(client);
            Count::Reached(total)
        }
    }

    /// How many failures of `client` count at `now`.
    pub fn count(&self, client: Network, now: Time, window: Duration) -> u32 {
        let stamps = self.clients.get(client).map(|stamps| stamps.iter()).into_iter().flatten();
        stamps.filter(|stamp| stamp.at().plus(window) > now).map(|stamp| stamp.count()).sum()
    }

    /// Forgets what happened to `client`.
    pub fn forget(&mut self, client: Network) {
        if let Some(stamps) = self.clients.remove(client) {
            self.shared -= shared_of(&stamps);
        }
    }

    /// Forgets clients whose last failure is older than `window`, at most `max` of them. True if there are no more such.
    pub fn expire(&mut self, now: Time, window: Duration, max: usize) -> bool {
        for _ in 0..max {
            match self.clients.oldest() {
                Some((client, stamps)) if stamps.last().is_none_or(|last| last.at().plus(window) <= now) => {
                    self.forget(client);
                }
                _ => return true,
            }
        }
        false
    }

    /// Forgets the quietest clients until the shared budget and the bound hold, at most `max` of them.
    pub fn shrink(&mut self, max: usize) {
        let budget = self.clients.max().saturating_mul(STAMPS_SHARED_PER_CLIENT);
        for _ in 0..max {
            let is_full = self.shared > budget || self.clients.len() > self.clients.max();
            if !is_full || self.clients.len() <= 1 {
                break;
            }
            let Some((_, stamps)) = self.clients.pop_oldest() else { break };
            self.shared -= shared_of(&stamps);
            self.evicted += 1;
        }
    }
}

/// How much of the shared budget these failures take: what was allocated for them.
fn shared_of(stamps: &Stamps) -> usize {
    if stamps.spilled() { stamps.capacity() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::hash_key;
    use proptest::prelude::*;

    fn client(n: u8) -> Network {
        Network::parse(&format!("198.51.100.{n}")).unwrap()
    }

    proptest! {
        /// Against every failure ever seen, counted anew each time.
        #[test]
        fn counts_what_a_full_history_would(
            window in 1..50u64,
            threshold in 1..12u32,
            failures in prop::collection::vec((0..4u8, 1..4u32, 0..30u64), 0..300),
        ) {
            let window = Duration::from_millis(window);
            let mut windows = Windows::new(100, hash_key(3));
            let mut history: Vec<(u8, u64, u32)> = Vec::new();
            let mut now = 0;
            for (who, count, later) in failures {
                now += later;
                history.push((who, now, count));
                let young = |at: u64| now - at < window.as_millis() as u64;
                let total: u32 = history.iter().filter(|(w, at, _)| *w == who && young(*at)).map(|(_, _, c)| c).sum();
                let want = if total >= threshold {
                    history.retain(|(w, _, _)| *w != who);
                    Count::Reached(total)
                } else {
                    Count::Below(total)
                };
                prop_assert_eq!(windows.record(client(who), count, Time::from_millis(now), window, threshold), want);
                if later == 0 {
                    windows.expire(Time::from_millis(now), window, 10);
                }
            }
            windows.expire(Time::from_millis(now).plus(window), window, 1000);
            prop_assert_eq!(windows.len(), 0);
            prop_assert_eq!(windows.shared, 0);
        }

        #[test]
        fn stays_within_its_bounds(
            max in 1..20usize,
            failures in prop::collection::vec((0..60u8, 1..3u32), 0..500),
        ) {
            let mut windows = Windows::new(max, hash_key(4));
            for (at, (who, count)) in failures.into_iter().enumerate() {
                windows.record(client(who), count, Time::from_millis(at as u64), Duration::from_secs(3600), 1000);
                prop_assert!(windows.len() <= max);
                prop_assert!(windows.shared <= (max * STAMPS_SHARED_PER_CLIENT).max(1024) );
                let real: usize = windows.clients.iter().map(|(_, stamps)| shared_of(stamps)).sum();
                prop_assert_eq!(windows.shared, real);
            }
        }
    }

    #[test]
    fn a_failure_exactly_as_old_as_the_window_no_longer_counts() {
        let window = Duration::from_secs(10);
        let mut windows = Windows::new(10, hash_key(5));
        let at = Time::from_millis;
        assert_eq!(windows.record(client(1), 1, at(0), window, 2), Count::Below(1));
        assert_eq!(windows.record(client(1), 1, at(10_000), window, 2), Count::Below(1));
        assert_eq!(windows.record(client(1), 1, at(19_999), window, 2), Count::Reached(2));
    }

    #[test]
    fn one_line_may_tell_of_more_failures_than_the_threshold() {
        let mut windows = Windows::new(10, hash_key(6));
        let reached = windows.record(client(1), u32::MAX, Time::default(), Duration::from_secs(1), 5);
        assert_eq!(reached, Count::Reached(u32::MAX));
        assert_eq!(windows.len(), 0);
    }
}

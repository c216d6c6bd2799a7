//! Time as the engine sees it: an argument.
//!
//! Nothing in this room reads a clock. A shard reads its monotonic clock once a turn and passes the result in, so a
//! test can make days pass in a loop. Wall-clock time has no place in counting or banning: senders' clocks and zones
//! are wrong, and our own may jump.

use std::time::Duration;

/// A point on the process's monotonic clock, in whole milliseconds since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The largest time that every structure of the engine can store: 2^42 ms are 139 years of uptime.
    pub const MAX: Time = Time((1 << 42) - 1);

    /// `millis` milliseconds after the start of the process, at most [`Time::MAX`].
    pub fn from_millis(millis: u64) -> Time {
        Time(millis.min(Time::MAX.0))
    }

    pub fn millis(self) -> u64 {
        self.0
    }

    /// `duration` later, in whole milliseconds, at most [`Time::MAX`].
    pub fn plus(self, duration: Duration) -> Time {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Time::from_millis(self.0.saturating_add(millis))
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

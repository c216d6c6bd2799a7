//! Time as the engine sees it: an argument.
//!
//! Nothing in this room reads a clock. A shard reads its monotonic clock once a turn and passes the result in, so a
//! test can make days pass in a loop. Wall-clock time has no place in counting or banning: senders' clocks and zones
//! are wrong, and our own may jump.

use std::time::Duration;

/// A point on the process's monotonic clock, in whole milliseconds. The process starts at [`Time::START`], so that what
/// happened before has a time too: an offence that was remembered over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    pub const EARLIEST: Time = Time(0);

    /// When the process starts: ten years and some days, which is longer than any ban lasts or is remembered.
    pub const START: Time = Time(3_660 * 24 * 3_600_000);

    /// The largest time that every structure of the engine can store: 2^42 ms are 139 years, of which 129 are uptime.
    pub const MAX: Time = Time((1 << 42) - 1);

    /// The time `millis` milliseconds after the earliest, at most [`Time::MAX`].
    pub fn from_millis(millis: u64) -> Time {
        Time(millis.min(Time::MAX.0))
    }

    pub const fn millis(self) -> u64 {
        self.0
    }

    /// `duration` later, in whole milliseconds, at most [`Time::MAX`].
    pub fn plus(self, duration: Duration) -> Time {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Time::from_millis(self.0.saturating_add(millis))
    }

    /// `duration` earlier, in whole milliseconds; what lies before the earliest time becomes that.
    pub fn minus(self, duration: Duration) -> Time {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Time(self.0.saturating_sub(millis))
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_ends_at_both_ends() {
        let day = Duration::from_secs(86_400);
        assert_eq!(Time::START.minus(3 * day).plus(3 * day), Time::START);
        assert_eq!(Time::START.since(Time::START.minus(day)), day);
        assert_eq!(Time::START.minus(Duration::MAX), Time::default());
        assert_eq!(Time::START.plus(Duration::MAX), Time::MAX);
        assert!(Time::MAX.since(Time::START) > 128 * 365 * day);
    }
}

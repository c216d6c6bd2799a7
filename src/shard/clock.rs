//! The only clock of a shard: monotonic, read once a turn.

use crate::engine::time::Time;
use std::time::{Duration, Instant};

/// Counts from one instant of the process, the same for all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock at [`Time::START`].
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub fn now(&self) -> Time {
        Time::START.plus(self.uptime())
    }

    /// How long this process has been running.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    /// Milliseconds since the machine was started, the time that it was suspended included. Nobody can set this clock.
    pub fn since_boot_millis() -> i64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }

    /// Nanoseconds since the start: for measuring, not for deciding.
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

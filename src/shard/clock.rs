//! The only clock of a shard: monotonic, read once a turn.

use crate::engine::time::Time;
use std::time::{Duration, Instant};

/// Counts from one instant of the process, the same for all shards.
#[derive(Clone, Copy, Debug)]
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

    /// Nanoseconds since the start: for measuring, not for deciding.
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

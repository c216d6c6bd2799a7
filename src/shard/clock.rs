//! The only clock of a shard: monotonic, read once a turn.

use crate::engine::time::Time;
use std::time::Instant;

/// Counts from one instant of the process, the same for all shards.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub fn now(&self) -> Time {
        Time::from_millis(self.nanos() / 1_000_000)
    }

    /// Nanoseconds since the start: for measuring, not for deciding.
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

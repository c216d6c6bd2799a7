//! An open loop: when each thing should happen, whether or not what came before it has been answered. So a server that
//! hangs for a second has all that was due in it counted as late, and not only the one that waited for it.

use std::time::{Duration, Instant};

/// A steady rate from a beginning on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Instant,
    per_second: f64,
    begun: u64,
}

impl Pace {
    pub fn new(start: Instant, per_second: f64) -> Pace {
        Pace { start, per_second, begun: 0 }
    }

    /// How many should have happened by `now` and did not.
    pub fn due(&self, now: Instant) -> u64 {
        let total = (now.saturating_duration_since(self.start).as_secs_f64() * self.per_second) as u64;
        total.saturating_sub(self.begun)
    }

    /// When the next one should happen, or should have.
    pub fn next(&self) -> Instant {
        self.start + Duration::from_secs_f64((self.begun + 1) as f64 / self.per_second)
    }

    /// It happened.
    pub fn begin(&mut self) -> Instant {
        let intended = self.next();
        self.begun += 1;
        intended
    }

    pub fn begin_many(&mut self, count: u64) {
        self.begun += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_due_at_its_own_time() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1000.0);
        assert_eq!(pace.due(start), 0);
        assert_eq!(pace.due(start + Duration::from_millis(10)), 10);
        for at in 1..=10 {
            assert_eq!(pace.begin(), start + Duration::from_millis(at));
        }
        assert_eq!(pace.due(start + Duration::from_millis(10)), 0);
        pace.begin_many(990);
        assert_eq!(pace.due(start + Duration::from_micros(1_001_500)), 1);
    }
}

//! Wall time, which is for storage only.
//!
//! A running process counts on its monotonic clock. What is stored must be read by another process, maybe after a
//! reboot, so it has times of day. The two are tied by one offset, and every second it is looked whether it still holds:
//! when the clock of the machine was set, at once or in small steps, the offset follows, and whoever stored times of day
//! moves them by as much. So a ban that has ten minutes to go has ten minutes to go, whatever the clock on the wall says.

use crate::engine::time::Time;
use crate::shard::Clock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By how much the machine's clock may differ from the one that is stored by before what is stored is moved.
const JUMP_MILLIS: i64 = 1_500;

/// Milliseconds since 1970, as the machine's clock says.
#[expect(clippy::disallowed_methods, reason = "this is where wall time is read, for storage")]
pub fn wall_millis() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// Which boot of the machine this is; empty where the kernel does not say.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// A time of day as people and programs read it (RFC 3339), in UTC.
pub fn print_wall(millis: i64) -> String {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// Translates between the process's clock and times of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    clock: Clock,
    /// Time of day less time of the process, in milliseconds.
    offset: i64,
}

impl Wall {
    pub fn new(clock: Clock) -> Wall {
        Wall { clock, offset: wall_millis() - millis(clock.now()) }
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// The time of day at a time of the process.
    pub fn at(&self, time: Time) -> i64 {
        millis(time).saturating_add(self.offset)
    }

    /// The time of the process at a time of day.
    pub fn time(&self, wall: i64) -> Time {
        Time::from_millis(u64::try_from(wall.saturating_sub(self.offset)).unwrap_or(0))
    }

    /// Looks at the machine's clock again. By how many milliseconds it was set since the last look, if it was.
    pub fn check(&mut self) -> Option<i64> {
        let offset = wall_millis() - millis(self.clock.now());
        let moved = offset - self.offset;
        (moved.abs() >= JUMP_MILLIS).then(|| {
            self.offset = offset;
            moved
        })
    }

    /// By how much the clock was set since another process wrote `stored`; `None` if it was not, or nobody can know.
    ///
    /// In the same boot, the clock that counts since the boot tells how much time really passed. After a reboot nothing
    /// does, except that time does not go back: `newest` is the latest time of day that was stored.
    pub fn moved_since(&self, stored: Option<&Tie>, here: &Tie, newest: Option<i64>) -> Option<i64> {
        let moved = match stored {
            Some(stored) if stored.boot == here.boot && !here.boot.is_empty() => here.offset - stored.offset,
            _ => newest.map_or(0, |newest| (self.at(self.now()) - newest).min(0)),
        };
        (moved.abs() >= JUMP_MILLIS).then_some(moved)
    }

    /// How the time of day and the time since the boot are tied now.
    pub fn tie(&self, boot: &str) -> Tie {
        Tie { boot: boot.to_owned(), offset: self.at(self.now()) - Clock::since_boot_millis() }
    }
}

/// What a time of day meant when it was stored: which boot, and the time of day less the time since the boot, in
/// milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    pub boot: String,
    pub offset: i64,
}

impl Tie {
    /// Reads what [`Tie::print`] wrote.
    pub fn parse(text: &str) -> Option<Tie> {
        let (boot, offset) = text.split_once(' ')?;
        Some(Tie { boot: boot.to_owned(), offset: offset.parse().ok()? })
    }

    pub fn print(&self) -> String {
        format!("{} {}", self.boot, self.offset)
    }
}

fn millis(time: Time) -> i64 {
    i64::try_from(time.millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        let wall = Wall::new(Clock::start());
        let now = wall.now();
        assert!((wall.at(now) - wall_millis()).abs() < 1_000);
        let later = now.plus(Duration::from_secs(3600));
        assert_eq!(wall.time(wall.at(later)), later);
        let three_days_ago = wall.at(now) - 3 * 86_400_000;
        assert_eq!(now.since(wall.time(three_days_ago)), Duration::from_secs(3 * 86_400));
        assert_eq!(wall.time(i64::MIN), Time::from_millis(0));
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let mut wall = Wall::new(Clock::start());
        assert_eq!(wall.check(), None);
        wall.offset -= 3_600_000;
        let moved = wall.check().unwrap();
        assert!((moved - 3_600_000).abs() < 1_000, "{moved}");
        assert_eq!(wall.check(), None);
        // Small steps add up.
        let before = wall.offset;
        wall.offset -= 800;
        assert_eq!((wall.check(), wall.offset), (None, before - 800));
        wall.offset -= 800;
        assert!(wall.check().is_some());
    }

    #[test]
    fn within_a_boot_the_boot_clock_counts_and_after_it_time_does_not_go_back() {
        let wall = Wall::new(Clock::start());
        let here = wall.tie("b1");
        let now = wall.at(wall.now());
        let stored = Tie { offset: here.offset - 7_200_000, ..here.clone() };
        assert_eq!(wall.moved_since(Some(&stored), &here, Some(now)), Some(7_200_000));
        assert_eq!(wall.moved_since(Some(&here), &here, Some(now + 99_000_000)), None);
        let other = Tie { boot: "b0".to_owned(), offset: 5 };
        assert_eq!(wall.moved_since(Some(&other), &here, Some(now - 60_000)), None);
        let moved = wall.moved_since(Some(&other), &here, Some(now + 60_000)).unwrap();
        assert!((-61_000..=-59_000).contains(&moved), "{moved}");
        assert_eq!(wall.moved_since(None, &here, None), None);
        assert_eq!(Tie::parse(&here.print()), Some(here));
        assert_eq!(Tie::parse("nonsense"), None);
    }

    #[test]
    fn times_of_day_are_printed_as_rfc_3339() {
        assert_eq!(print_wall(1_763_800_000_123), "2025-11-22T08:26:40.123Z");
        assert_eq!(print_wall(-5), "1970-01-01T00:00:00.000Z");
    }
}

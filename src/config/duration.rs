//! Durations as people write them: `5m`, `1h30m`, `250ms`, `7d`.

use std::fmt;
use std::time::Duration;

/// The units, largest first, which is also the order in which they are written. `m` is minutes; nothing here is ever
/// as long as a month.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// From here on [`print_duration`] uses days: `24h` and `72h` are what operators write, `168h` is not.
const DAYS_FROM_MS: u64 = 7 * 86_400_000;

/// Why a text is not a duration. `Display` says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationFault {
    /// Not a series of numbers, each with a unit.
    NotADuration,
    /// A number alone: it could be seconds, minutes or milliseconds, and a guess would be wrong for somebody.
    NoUnit { number: u64 },
    /// A number followed by something that is no unit.
    UnknownUnit(String),
    /// A unit twice, or after a smaller one.
    Order,
    /// More milliseconds than 64 bits hold: more than 584 million years.
    TooLong,
}

impl fmt::Display for DurationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurationFault::NotADuration => f.write_str("write it like 90s, 5m, 1h30m or 7d"),
            DurationFault::NoUnit { number } => {
                write!(f, "write {number}s")?;
                let better = print_duration(Duration::from_secs(*number));
                if better == format!("{number}s") { Ok(()) } else { write!(f, " or {better}") }
            }
            DurationFault::UnknownUnit(unit) => {
                write!(f, "{} is not a unit; there are d, h, m, s and ms", super::fault::quoted(unit))
            }
            DurationFault::Order => f.write_str("each unit can come once, the largest first, as in 1d12h30m"),
            DurationFault::TooLong => f.write_str("that is too long to count"),
        }
    }
}

/// Parses a series of whole numbers with units: `d`, `h`, `m`, `s`, `ms`, each at most once, the largest first.
/// Numbers may exceed the next unit (`90m`). No blanks, signs or fractions.
///
/// ```
/// use mailfail2ban::config::parse_duration;
/// use std::time::Duration;
/// assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
/// assert_eq!(parse_duration("600").unwrap_err().to_string(), "write 600s or 10m");
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, DurationFault> {
    if text.is_empty() {
        return Err(DurationFault::NotADuration);
    }
    let mut total_ms: u64 = 0;
    let mut units_left: &[(&str, u64)] = &UNITS;
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, after) = split_while(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(DurationFault::NotADuration);
        }
        // Only digits, so the one way to fail is a number beyond 64 bits.
        let number: u64 = digits.parse().map_err(|_| DurationFault::TooLong)?;
        let (unit, after) = split_while(after, |c| !c.is_ascii_digit());
        if unit.is_empty() {
            // `1h30` is no bare number: which unit the 30 has is as unclear, but "write 30s" would mislead.
            let bare = digits.len() == text.len();
            return Err(if bare { DurationFault::NoUnit { number } } else { DurationFault::NotADuration });
        }
        if matches!(unit.as_bytes(), [b'.' | b',', ..]) || unit.contains(char::is_whitespace) {
            return Err(DurationFault::NotADuration);
        }
        let Some(&(_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(DurationFault::UnknownUnit(unit.to_owned()));
        };
        let Some((at, _)) = units_left.iter().enumerate().find(|(_, (name, _))| *name == unit) else {
            return Err(DurationFault::Order);
        };
        units_left = units_left.get(at + 1..).unwrap_or_default();
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or(DurationFault::TooLong)?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Prints a duration so that [`parse_duration`] reads the same one: `5m`, `1h30m`, `24h`, `7d`, `250ms`, `0s`.
/// What is finer than a millisecond is cut off. Hours are the largest unit for less than a week.
pub fn print_duration(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest_ms == 0 {
        return "0s".to_owned();
    }
    let days = rest_ms >= DAYS_FROM_MS;
    let mut text = String::new();
    for (unit, unit_ms) in UNITS {
        let count = rest_ms / unit_ms;
        if count > 0 && (unit != "d" || days) {
            text.push_str(&count.to_string());
            text.push_str(unit);
            rest_ms %= unit_ms;
        }
    }
    text
}

/// The longest start of `text` that `holds` for, and what follows it.
fn split_while(text: &str, holds: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !holds(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> Result<u128, DurationFault> {
        parse_duration(text).map(|duration| duration.as_millis())
    }

    #[test]
    fn durations_are_read() {
        for (text, want) in [
            ("250ms", 250),
            ("0s", 0),
            ("0ms", 0),
            ("90s", 90_000),
            ("5m", 300_000),
            ("005m", 300_000),
            ("90m", 5_400_000),
            ("1h30m", 5_400_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("1h1ms", 3_600_001),
            ("18446744073709551615ms", u128::from(u64::MAX)),
        ] {
            assert_eq!(ms(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_what_to_write() {
        let fault = |text| parse_duration(text).unwrap_err().to_string();
        assert_eq!(fault("600"), "write 600s or 10m");
        assert_eq!(fault("45"), "write 45s");
        assert_eq!(fault("0"), "write 0s");
        assert_eq!(fault("86400"), "write 86400s or 24h");
        assert_eq!(fault("5min"), "\"min\" is not a unit; there are d, h, m, s and ms");
        assert_eq!(fault("5M"), "\"M\" is not a unit; there are d, h, m, s and ms");
        assert_eq!(fault("1w"), "\"w\" is not a unit; there are d, h, m, s and ms");
        assert_eq!(fault("30m1h"), "each unit can come once, the largest first, as in 1d12h30m");
        assert_eq!(fault("5m5m"), "each unit can come once, the largest first, as in 1d12h30m");
        assert_eq!(fault("18446744073709551616ms"), "that is too long to count");
        assert_eq!(fault("18446744073709551615s"), "that is too long to count");
        assert_eq!(fault("18446744073709551615ms1s"), "each unit can come once, the largest first, as in 1d12h30m");
        assert_eq!(fault("213503982334d14h25m51s616ms"), "that is too long to count");
        assert_eq!(fault("99999999999999999999"), "that is too long to count");
        for text in
            ["", "m", "s5", "-5m", "+5m", " 5m", "5 m", "5m ", "1h 30m", "1.5h", "1,5h", "1h30", "five", "\u{665}m"]
        {
            assert_eq!(fault(text), "write it like 90s, 5m, 1h30m or 7d", "{text}");
        }
    }

    #[test]
    fn durations_are_printed_as_they_are_written() {
        for text in ["0s", "250ms", "2s", "90ms", "5m", "1h30m", "24h", "72h", "25m30s", "7d", "10d5h", "30d", "3650d"]
        {
            assert_eq!(parse_duration(text).map(print_duration).as_deref(), Ok(text));
        }
        assert_eq!(print_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(print_duration(Duration::from_micros(1999)), "1ms");
        assert_eq!(print_duration(Duration::MAX), print_duration(Duration::from_millis(u64::MAX)));
    }

    proptest! {
        #[test]
        fn printed_durations_read_back(total_ms in prop_oneof![any::<u64>(), 0..10_000_000_u64, (0..1000_u64).prop_map(|h| h * 3_600_000)]) {
            let duration = Duration::from_millis(total_ms);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9dhms .\u{e9}-]{0,24}") {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert_eq!(parse_duration(&print_duration(duration)), Ok(duration));
            }
        }
    }
}

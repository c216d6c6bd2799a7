//! How long a ban lasts: longer each time.

use std::time::Duration;

/// The rules of counting and banning, as an operator sets them.
#[derive(Clone, Debug, PartialEq)]
pub struct BanRules {
    /// How long the first ban lasts.
    pub initial: Duration,
    /// No ban lasts longer.
    pub max: Duration,
    /// Each offence multiplies the duration by this; at least 1.
    pub factor: f64,
    /// Failures within [`BanRules::window`] that make an offence; at least 1.
    pub threshold: u32,
    pub window: Duration,
    /// Offences are forgotten this long after the last one.
    pub memory: Duration,
    /// How often clients and offenders are looked through for those that can be forgotten.
    pub cleanup: Duration,
    /// Failures are counted, and clients banned, by networks of this many bits.
    pub ipv4_prefix: u8,
    pub ipv6_prefix: u8,
    /// Clients counted, and offenders remembered, at most: per shard.
    pub tracked_max: usize,
}

impl BanRules {
    /// The duration of the ban for the `offences`-th offence (from 1): `initial × factor^(offences − 1)`, at most
    /// `max`, in whole milliseconds and never less than one.
    pub fn duration(&self, offences: u32) -> Duration {
        let exponent = i32::try_from(offences.saturating_sub(1)).unwrap_or(i32::MAX);
        let millis = self.initial.as_millis() as f64 * self.factor.powi(exponent);
        let max = self.max.as_millis() as f64;
        // A product beyond every bound is infinite, which `min` handles; it cannot be NaN, as nothing here is zero
        // times infinity: `initial` is at least a millisecond.
        Duration::from_millis(millis.min(max).round().max(1.0) as u64)
    }
}

#[cfg(test)]
pub(crate) fn rules() -> BanRules {
    BanRules {
        initial: Duration::from_secs(300),
        max: Duration::from_secs(24 * 3600),
        factor: 2.0,
        threshold: 5,
        window: Duration::from_secs(600),
        memory: Duration::from_secs(72 * 3600),
        cleanup: Duration::ZERO,
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        tracked_max: 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_minutes_to_a_day() {
        let minutes: Vec<u64> = (1..=11).map(|n| rules().duration(n).as_secs() / 60).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]);
        assert_eq!(rules().duration(u32::MAX), rules().max);
    }

    proptest! {
        /// Against multiplying step by step.
        #[test]
        fn escalates_like_repeated_multiplication(
            initial in 1..10_000_000u64, more in 0..100_000_000u64, factor in 1.0..10.0f64, offences in 1..60u32,
        ) {
            let max = initial + more;
            let rules = BanRules {
                initial: Duration::from_millis(initial), max: Duration::from_millis(max), factor, ..rules()
            };
            let mut want = initial as f64;
            for _ in 1..offences {
                want = (want * factor).min(max as f64);
            }
            let got = rules.duration(offences).as_millis() as f64;
            prop_assert!((got - want).abs() <= 1.0 + want * 1e-9, "{} {}", got, want);
            prop_assert!(rules.duration(offences) <= rules.duration(offences + 1));
            prop_assert!(rules.duration(offences) <= rules.max);
        }
    }
}

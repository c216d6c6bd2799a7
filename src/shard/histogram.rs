//! How long something took, counted by a shard: plain numbers in buckets, with their exact sum.

/// Upper bounds of the buckets, in nanoseconds; one more holds the rest. From what a question costs when it is alone on a
/// fast machine, to what no proxy waits for.
pub const BOUNDS_NANOS: [u64; 18] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// Durations of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By [`BOUNDS_NANOS`], each bound in its own bucket; not cumulative.
    pub buckets: [u64; BOUNDS_NANOS.len() + 1],
    pub sum_nanos: u64,
    pub max_nanos: u64,
}

impl Histogram {
    /// Something took that long, so many times.
    pub fn record(&mut self, nanos: u64, times: u64) {
        if times == 0 {
            return;
        }
        let bucket = BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += times;
        }
        self.sum_nanos = self.sum_nanos.saturating_add(nanos.saturating_mul(times));
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(count, more)| *count += more);
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_in_its_own_bucket() {
        assert!(BOUNDS_NANOS.is_sorted());
        for (at, bound) in BOUNDS_NANOS.into_iter().enumerate() {
            let mut histogram = Histogram::default();
            histogram.record(bound, 1);
            histogram.record(bound + 1, 2);
            assert_eq!(histogram.buckets[at..at + 2], [1, 2], "{bound}");
        }
    }

    #[test]
    fn sums_are_exact_and_nothing_recorded_is_nothing() {
        let mut histogram = Histogram::default();
        histogram.record(7, 0);
        assert_eq!(histogram, Histogram::default());
        histogram.record(1_234_567, 3);
        histogram.record(1, 1);
        assert_eq!((histogram.sum_nanos, histogram.max_nanos), (3_703_702, 1_234_567));
        let mut both = histogram.clone();
        both.add(&histogram);
        assert_eq!((both.sum_nanos, both.max_nanos), (7_407_404, 1_234_567));
        assert_eq!(both.buckets.iter().sum::<u64>(), 8);
        both.record(u64::MAX, u64::MAX);
        assert_eq!(both.sum_nanos, u64::MAX);
    }
}

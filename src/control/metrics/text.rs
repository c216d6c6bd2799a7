//! Histograms in Prometheus' text format. The exporter takes single values only and sums them up itself; shards count in
//! buckets, and know the sum to the nanosecond.

use super::help;
use crate::shard::{BOUNDS_NANOS, Histogram};
use std::fmt::{self, Write as _};

/// Appends one metric with its series, each with the label that tells it from the others, if there is one.
///
/// Names, labels and values are ours: nothing in them needs an escape.
pub fn push_histogram(out: &mut String, name: &'static str, series: &[(Option<Label>, &Histogram)]) {
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} histogram", help::of(name));
    for (label, histogram) in series {
        let (braced, first) = match label {
            Some((label, value)) => (format!("{{{label}=\"{value}\"}}"), format!("{label}=\"{value}\",")),
            None => (String::new(), String::new()),
        };
        let mut count = 0;
        let bounds = BOUNDS_NANOS.into_iter().map(|bound| Bound(Some(bound))).chain([Bound(None)]);
        for (bound, more) in bounds.zip(histogram.buckets) {
            count += more;
            let _ = writeln!(out, "{name}_bucket{{{first}le=\"{bound}\"}} {count}");
        }
        let (seconds, nanos) = (histogram.sum_nanos / 1_000_000_000, histogram.sum_nanos % 1_000_000_000);
        let _ = writeln!(out, "{name}_sum{braced} {seconds}.{nanos:09}\n{name}_count{braced} {count}");
    }
    out.push('\n');
}

/// Name and value.
pub type Label = (&'static str, &'static str);

/// The upper bound of a bucket, in nanoseconds; the last has none.
struct Bound(Option<u64>);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nanos) => (nanos as f64 / 1e9).fmt(f),
            None => f.write_str("+Inf"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_the_sum_is_exact() {
        let (mut quick, mut slow) = (Histogram::default(), Histogram::default());
        quick.record(1_000, 2);
        quick.record(1_001, 1);
        slow.record(2_000_000_001, 5);
        let mut out = "before\n".to_owned();
        push_histogram(
            &mut out,
            help::REQUEST_DURATION,
            &[(Some(("service", "spoa")), &quick), (Some(("service", "envoy")), &slow)],
        );
        let name = help::REQUEST_DURATION;
        assert!(out.starts_with(&format!("before\n# HELP {name} From ")), "{out}");
        for line in [
            "_bucket{service=\"spoa\",le=\"0.000001\"} 2",
            "_bucket{service=\"spoa\",le=\"0.000002\"} 3",
            "_bucket{service=\"spoa\",le=\"1\"} 3",
            "_bucket{service=\"spoa\",le=\"+Inf\"} 3",
            "_sum{service=\"spoa\"} 0.000003001",
            "_count{service=\"spoa\"} 3",
            "_bucket{service=\"envoy\",le=\"1\"} 0",
            "_bucket{service=\"envoy\",le=\"+Inf\"} 5",
            "_sum{service=\"envoy\"} 10.000000005",
        ] {
            assert!(out.contains(&format!("\n{name}{line}\n")), "{line} is not in\n{out}");
        }
        out.clear();
        push_histogram(&mut out, help::REPLICA_LAG, &[(None, &quick)]);
        assert!(out.contains("\nfail2ban_replica_lag_seconds_sum 0.000003001\n"), "{out}");
        assert!(out.contains("\nfail2ban_replica_lag_seconds_bucket{le=\"0.00001\"} 3\n"), "{out}");
    }
}

//! What was measured: counts, latencies, CPU time, how it went second by second. Printed for people, and as JSON.

use crate::process::Process;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Nothing takes longer than this; what does is counted as this.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Three digits, in nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3).expect("constants that are in order")
}

/// When a measurement is measured.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Work begins.
    pub start: Instant,
    /// Counting begins.
    pub from: Instant,
    /// Counting ends; without it, when a count is reached.
    pub until: Option<Instant>,
}

impl Span {
    pub fn new(warm_up: Duration, length: Option<Duration>) -> Span {
        let start = Instant::now();
        let from = start + warm_up;
        Span { start, from, until: length.map(|length| from + length) }
    }

    pub fn has(&self, time: Instant) -> bool {
        time >= self.from && self.until.is_none_or(|until| time < until)
    }
}

/// What one thread has counted.
pub struct Tally {
    span: Span,
    pub done: u64,
    pub allowed: u64,
    pub denied: u64,
    /// Answers that were not what they should be.
    pub wrong: u64,
    pub errors: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    seconds: Vec<Second>,
}

struct Second {
    done: u64,
    latency: Histogram<u64>,
}

impl Tally {
    pub fn new(span: Span) -> Tally {
        Tally {
            span,
            done: 0,
            allowed: 0,
            denied: 0,
            wrong: 0,
            errors: BTreeMap::new(),
            latency: histogram(),
            seconds: Vec::new(),
        }
    }

    /// `count` things were done at `now`.
    pub fn done(&mut self, now: Instant, count: u64) {
        if self.span.has(now) {
            self.done += count;
            self.second(now).done += count;
        }
    }

    /// Something that should have begun at `intended` has ended.
    pub fn took(&mut self, intended: Instant, now: Instant) {
        if self.span.has(intended) {
            let nanoseconds = now.saturating_duration_since(intended).as_nanos() as u64;
            self.latency.saturating_record(nanoseconds);
            self.second(now).latency.saturating_record(nanoseconds);
        }
    }

    pub fn error(&mut self, what: impl Into<String>, count: u64) {
        if count > 0 {
            *self.errors.entry(what.into()).or_default() += count;
        }
    }

    pub fn add(&mut self, other: Tally) {
        self.done += other.done;
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.wrong += other.wrong;
        for (what, count) in other.errors {
            self.error(what, count);
        }
        self.latency += other.latency;
        for (at, second) in other.seconds.into_iter().enumerate() {
            match self.seconds.get_mut(at) {
                Some(own) => {
                    own.done += second.done;
                    own.latency += second.latency;
                }
                None => self.seconds.push(second),
            }
        }
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        let at = now.saturating_duration_since(self.span.from).as_secs() as usize;
        while self.seconds.len() <= at {
            self.seconds.push(Second { done: 0, latency: histogram() });
        }
        &mut self.seconds[at]
    }
}

/// CPU time of processes, from one moment to another.
#[derive(Debug)]
pub struct Meter<'a> {
    processes: &'a [Process],
    before: Vec<f64>,
    begun: Instant,
}

impl<'a> Meter<'a> {
    pub fn start(processes: &'a [Process]) -> anyhow::Result<Meter<'a>> {
        let before = processes.iter().map(Process::cpu_seconds).collect::<anyhow::Result<_>>()?;
        Ok(Meter { processes, before, begun: Instant::now() })
    }

    /// Seconds that passed, and CPU seconds by process.
    pub fn stop(&self) -> anyhow::Result<Used> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut cpu = BTreeMap::new();
        for (process, before) in self.processes.iter().zip(&self.before) {
            cpu.insert(process.name.clone(), process.cpu_seconds()? - before);
        }
        Ok(Used { seconds, cpu })
    }
}

/// What a [`Meter`] has measured.
#[derive(Debug)]
pub struct Used {
    pub seconds: f64,
    pub cpu: BTreeMap<String, f64>,
}

/// A result, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Report {
    tool: &'static str,
    version: &'static str,
    pub command: String,
    pub options: Value,
    /// Measured, without warm-up.
    seconds: f64,
    /// Answers, lines, or bans.
    pub done: u64,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<Questions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Lines>,
    pub errors: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<Latency>,
    cpu: BTreeMap<String, Cpu>,
    timeline: Vec<Moment>,
}

/// What answers said.
#[derive(Debug, Serialize)]
pub struct Questions {
    pub allowed: u64,
    pub denied: u64,
    pub wrong: u64,
}

/// What became of log lines, by the server's own count.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lines {
    pub sent: u64,
    /// Of those, failed logins.
    pub failing: u64,
    #[serde(flatten)]
    pub counted: Option<Counted>,
}

/// As its metrics say.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Counted {
    pub received: u64,
    pub matched: u64,
    pub lost: u64,
}

#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
    mean: f64,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Cpu {
    seconds: f64,
    us_each: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Moment {
    /// Seconds since counting began, at the end of it.
    at: u64,
    done: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
}

impl Report {
    pub fn new(command: &str, options: Value, tally: &Tally, used: &Used) -> Report {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let quantile = |of: &Histogram<u64>, q| (!of.is_empty()).then(|| us(of.value_at_quantile(q)));
        let latency = &tally.latency;
        let latency_us = (!latency.is_empty()).then(|| Latency {
            min: us(latency.min()),
            p50: us(latency.value_at_quantile(0.5)),
            p90: us(latency.value_at_quantile(0.9)),
            p99: us(latency.value_at_quantile(0.99)),
            p99_9: us(latency.value_at_quantile(0.999)),
            max: us(latency.max()),
            mean: latency.mean() / 1e3,
            count: latency.len(),
        });
        let each = |seconds: f64| (tally.done > 0).then(|| seconds * 1e6 / tally.done as f64);
        Report {
            tool: "mailfail2ban-load",
            version: env!("CARGO_PKG_VERSION"),
            command: command.to_owned(),
            options,
            seconds: used.seconds,
            done: tally.done,
            per_second: tally.done as f64 / used.seconds,
            questions: None,
            lines: None,
            errors: tally.errors.clone(),
            latency_us,
            cpu: used
                .cpu
                .iter()
                .map(|(name, seconds)| (name.clone(), Cpu { seconds: *seconds, us_each: each(*seconds) }))
                .collect(),
            timeline: tally
                .seconds
                .iter()
                .enumerate()
                .map(|(at, second)| Moment {
                    at: at as u64 + 1,
                    done: second.done,
                    p50_us: quantile(&second.latency, 0.5),
                    p99_us: quantile(&second.latency, 0.99),
                })
                .collect(),
        }
    }

    pub fn with_questions(mut self, tally: &Tally) -> Report {
        self.questions = Some(Questions { allowed: tally.allowed, denied: tally.denied, wrong: tally.wrong });
        self
    }

    pub fn with_lines(mut self, lines: Lines) -> Report {
        self.lines = Some(lines);
        self
    }

    /// What was not as it must be: wrong answers, errors, lost lines.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.errors.iter().map(|(what, count)| format!("{count} × {what}")).collect();
        if let Some(questions) = self.questions.as_ref().filter(|questions| questions.wrong > 0) {
            faults.push(format!("{} answers were wrong", questions.wrong));
        }
        if let Some(Lines { failing, counted: Some(counted), .. }) = &self.lines {
            if counted.lost > 0 {
                faults.push(format!("{} lines were lost", counted.lost));
            } else if counted.matched != *failing {
                faults.push(format!("{} failed logins were sent, and {} recognised", failing, counted.matched));
            }
        }
        if self.done == 0 {
            faults.push("nothing was done".to_owned());
        }
        faults
    }

    /// For people.
    pub fn print(&self) -> String {
        let mut out =
            vec![format!("{}: {} in {:.2} s, {:.0}/s", self.command, self.done, self.seconds, self.per_second)];
        if let Some(latency) = &self.latency_us {
            out.push(format!(
                "  latency µs: p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
                latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max
            ));
        }
        for (name, cpu) in &self.cpu {
            let each = cpu.us_each.map(|us| format!(", {us:.3} µs each")).unwrap_or_default();
            out.push(format!("  CPU of {name}: {:.2} s{each}", cpu.seconds));
        }
        if let Some(Questions { allowed, denied, wrong }) = &self.questions {
            out.push(format!("  answers: {allowed} allowed, {denied} denied, {wrong} wrong"));
        }
        if let Some(lines) = &self.lines {
            let counted = lines.counted.map(|it| {
                format!("; the server received {}, recognised {}, lost {}", it.received, it.matched, it.lost)
            });
            out.push(format!(
                "  lines: {} sent, {} of them failed logins{}",
                lines.sent,
                lines.failing,
                counted.unwrap_or_default()
            ));
        }
        for (what, count) in &self.errors {
            out.push(format!("  {count} × {what}"));
        }
        out.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_span_counts_and_what_was_late_is_late() {
        let span = Span::new(Duration::from_secs(1), Some(Duration::from_secs(2)));
        let at = |ms| span.start + Duration::from_millis(ms);
        let mut tally = Tally::new(span);
        for (intended, ended) in [(500, 999), (1500, 1501), (1500, 3500), (2999, 3000)] {
            tally.done(at(ended), 1);
            tally.took(at(intended), at(ended));
        }
        let mut other = Tally::new(span);
        other.done(at(2500), 5);
        other.error("x", 2);
        tally.add(other);
        let used = Used { seconds: 2.0, cpu: BTreeMap::from([("server".to_owned(), 0.6)]) };
        let report = Report::new("auth", Value::Null, &tally, &used).with_questions(&tally);
        assert_eq!((report.done, report.per_second), (6, 3.0));
        let latency = report.latency_us.as_ref().unwrap();
        assert_eq!(latency.count, 3);
        assert!((latency.max / 2e6 - 1.0).abs() < 0.01, "{latency:?}");
        assert_eq!(report.timeline.iter().map(|moment| moment.done).collect::<Vec<_>>(), [1, 5, 0]);
        assert!((report.cpu["server"].us_each.unwrap() - 1e5).abs() < 1.0);
        assert_eq!(report.faults(), ["2 × x"]);
        assert!(report.print().contains("6 in 2.00 s, 3/s"), "{}", report.print());
    }
}

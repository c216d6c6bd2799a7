//! How things go: the last hour in samples, the server in numbers, and happenings, all made of what shards report.

use super::desk::{Happening, Overview, PatternShown, Sample, ShardShown, Totals};
use super::store::{Status, Wall};
use crate::engine::ban::{Act, Decision, FailureKind, Origin};
use crate::engine::policy::Policy;
use crate::engine::time::Time;
use crate::shard::Report;
use std::collections::VecDeque;

/// Samples that are kept: an hour of one each five seconds.
const SAMPLES: usize = 720;

/// The last hour.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    /// Counts at the last sample, and when that was.
    last: Option<(Totals, Time)>,
}

impl History {
    /// Takes a sample from a report of each shard; none if one is missing, or the counts would seem to go back.
    pub fn take(&mut self, reports: &[Option<Box<Report>>], now: Time, at: i64) -> Option<Sample> {
        if reports.iter().any(Option::is_none) {
            return None;
        }
        let counts = totals(reports);
        let (before, then) = self.last.replace((counts, now))?;
        let sample = Sample {
            at,
            seconds: now.since(then).as_secs_f64(),
            counts: counts.since(&before),
            banned: reports.iter().flatten().map(|report| report.banned).sum(),
        };
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        Some(sample)
    }

    /// Oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }
}

impl Totals {
    fn since(&self, before: &Totals) -> Totals {
        let less = |of: fn(&Totals) -> u64| of(self).saturating_sub(of(before));
        Totals {
            allowed: less(|counts| counts.allowed),
            denied: less(|counts| counts.denied),
            lines: less(|counts| counts.lines),
            matches: less(|counts| counts.matches),
            bans: less(|counts| counts.bans),
            dropped: less(|counts| counts.dropped),
        }
    }
}

fn totals(reports: &[Option<Box<Report>>]) -> Totals {
    let mut totals = Totals::default();
    for counters in reports.iter().flatten().map(|report| &report.counters) {
        totals.allowed += counters.asked.iter().map(|asked| asked.allowed).sum::<u64>();
        totals.denied += counters.asked.iter().map(|asked| asked.denied).sum::<u64>();
        totals.lines += counters.datagrams + counters.frames;
        totals.matches += counters.matches.counts().iter().sum::<u64>();
        totals.bans += counters.bans.counts().iter().sum::<u64>();
        totals.dropped += counters.datagrams_dropped + counters.datagrams_too_long + counters.senders_refused;
    }
    totals
}

/// Fills in what shards, policy and store say.
pub fn overview(started: Overview, reports: &[Option<Box<Report>>], policy: &Policy, status: &Status) -> Overview {
    let sum = |of: fn(&Report) -> usize| reports.iter().flatten().map(|report| of(report)).sum::<usize>();
    let shard = |report: &Option<Box<Report>>| match report {
        None => ShardShown::default(),
        Some(report) => ShardShown {
            answers: true,
            policy: report.policy,
            replica: report.replica,
            connections: report.connections.iter().sum(),
            backlog: report.backlog,
            questions: report.counters.asked.iter().map(|asked| asked.allowed + asked.denied).sum(),
            records: report.counters.datagrams + report.counters.frames,
        },
    };
    let by_pattern = policy.names.iter().enumerate().map(|(at, known)| {
        let count = |of: fn(&Report) -> &[u64]| {
            reports.iter().flatten().map(|report| of(report).get(at).copied().unwrap_or(0)).sum()
        };
        PatternShown {
            name: std::sync::Arc::clone(&known.name),
            severity: known.severity.level(),
            kind: known.kind.map(FailureKind::name),
            matches: count(|report| report.counters.matches.counts()),
            bans: count(|report| report.counters.bans.counts()),
            banned: count(|report| report.banned_by.counts()),
        }
    });
    Overview {
        node: status.node.clone(),
        shards: reports.iter().map(shard).collect(),
        policy: policy.number,
        patterns: policy.matcher.len(),
        whitelist: policy.allow.len(),
        blacklist: policy.block.len(),
        banned: sum(|report| report.banned),
        counting: sum(|report| report.counting),
        remembered: sum(|report| report.remembered),
        by_pattern: by_pattern.collect(),
        totals: totals(reports),
        patterns_source: status.patterns.name(),
        ban_config_source: status.ban_config.name(),
        database_enabled: status.enabled,
        database_connected: status.connected,
        last_error: status.last_error.clone(),
        state_error: status.state_error.clone(),
        faulty_rows: status.faulty.iter().map(|(_, count)| count).sum(),
        ..started
    }
}

/// A decision, for whoever listens.
pub fn happening(decision: &Decision, policy: &Policy, wall: &Wall, by: Option<String>) -> Happening {
    let (at, client) = (wall.at(decision.at), decision.client);
    let learned = decision.origin == Origin::Learned;
    match &decision.act {
        Act::Ban(ban) => Happening::Ban {
            at,
            client,
            pattern: policy.name(ban.pattern).into(),
            severity: ban.severity.level(),
            kind: policy.kind(ban.pattern).map(FailureKind::name),
            failures: ban.failures,
            offences: ban.offences,
            expires_at: wall.at(ban.until),
            learned,
            by,
        },
        Act::Lift(why, _) => Happening::Unban { at, client, why: why.name(), learned, by },
    }
}

//! The owner: what a failure costs with few and with many clients counted, what a ban costs, and what passing time costs.
//!
//! `cargo bench --bench owner`. Quote ratios between rows of one run.
//!
//! - `failure`: one failure, below the threshold, of clients in random order; a line's cost must not grow with the number
//!   of clients but for what the processor's caches can no longer hold. `known` has every client counted already,
//!   `stranger` a full table, so that each failure pushes out the quietest client. `of a login` is the first with an account
//!   of the login beside it.
//! - `ban`: the failure that reaches the threshold, and the decision that follows, with as many offenders remembered.
//! - `sweep`: a call of `tick`: when nothing ends; when 4,096 bans run out, by ban; and with a new allowlist, by offender.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailfail2ban::engine::address::Network;
use mailfail2ban::engine::ban::{Decision, Failure, PatternId, Severity};
use mailfail2ban::engine::escalation::BanRules;
use mailfail2ban::engine::logins::Login;
use mailfail2ban::engine::owner::{Outcome, Owner};
use mailfail2ban::engine::time::Time;
use std::time::{Duration, Instant};

mod traffic;
use traffic::{Random, host, nobody, rules, tables};

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];

/// Failures of one batch.
const BATCH: usize = 1_000;

fn failure(n: u32, count: u32, login: Option<Login>) -> Failure {
    let (pattern, severity) = (PatternId::FIRST, Severity::LEAST);
    Failure { client: Network::host(host(n).into()), count, pattern, severity, login }
}

fn login(n: u32) -> Option<Login> {
    Some(Login { refused_by: 1, session: n | 1, witness: 0 })
}

/// An owner with room for so many clients that counts one failure of each.
fn counting(clients: u32, with_logins: bool, rules: &BanRules) -> Owner {
    let mut owner = Owner::new(0, rules.tracked_max, tables());
    for n in 0..clients {
        let failure = failure(n, 1, if with_logins { login(n) } else { None });
        assert_eq!(owner.fail(&failure, Time::START, rules, &mut Vec::new()), Outcome::Counted);
    }
    owner
}

fn failures(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("failure");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(20);
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in SIZES {
        // Nobody reaches the threshold.
        let rules = BanRules { threshold: 1_000, ..rules(size as usize) };
        for (name, strangers, with_logins) in
            [("known", false, false), ("of a login", false, true), ("stranger", true, false)]
        {
            let mut owner = counting(size, with_logins, &rules);
            let mut random = Random::new(3);
            let (mut now, mut next) = (Time::START, size);
            let mut said: Vec<Decision> = Vec::new();
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    // With few clients each one fails in every batch; what was before is out of the window.
                    now = now.plus(Duration::from_secs(700));
                    let mut counted = 0;
                    for _ in 0..BATCH {
                        let n = if strangers {
                            next = next.wrapping_add(1);
                            next
                        } else {
                            random.below(u64::from(size)) as u32
                        };
                        let failure = failure(n, 1, if with_logins { login(n) } else { None });
                        counted += usize::from(owner.fail(&failure, now, &rules, &mut said) == Outcome::Counted);
                    }
                    said.clear();
                    counted
                });
            });
        }
    }
    group.finish();
}

fn bans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ban");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(20);
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in SIZES {
        let rules = rules(size as usize);
        let mut owner = Owner::new(0, rules.tracked_max, tables());
        let mut said: Vec<Decision> = Vec::new();
        for n in 0..size {
            owner.fail(&failure(n, 5, None), Time::START, &rules, &mut said);
            said.clear();
        }
        // All of these bans are over long since, and said to be. Those of the bench take places of offenders forgotten.
        let (mut now, mut next) = (Time::START.plus(Duration::from_secs(3600)), size);
        while owner.banned() > 0 {
            owner.tick(now, &rules, &nobody(), &mut said);
        }
        group.bench_function(BenchmarkId::new("decided", size), |b| {
            b.iter(|| {
                now = now.plus(Duration::from_secs(400));
                owner.tick(now, &rules, &nobody(), &mut said);
                said.clear();
                for _ in 0..BATCH {
                    next = next.wrapping_add(1);
                    owner.fail(&failure(next, 5, None), now, &rules, &mut said);
                }
                said.len()
            });
        });
    }
    group.finish();
}

/// An owner that has banned so many, at one time.
fn banning(size: u32, rules: &BanRules) -> Owner {
    let mut owner = Owner::new(0, rules.tracked_max, tables());
    for n in 0..size {
        owner.fail(&failure(n, 5, None), Time::START, rules, &mut Vec::new());
    }
    owner
}

fn sweeps(criterion: &mut Criterion) {
    /// What one step ends, and what is compared with a new allowlist at once and in the step after it.
    const ENDED: u64 = 1 << 12;
    const SWEPT: u64 = (1 << 13) + (1 << 15);
    let mut group = criterion.benchmark_group("sweep");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(10);
    for size in [100_000, 1_000_000] {
        let rules = rules(size as usize);
        let mut owner = banning(size, &rules);
        let mut said: Vec<Decision> = Vec::new();
        let (soon, later) = (Time::START.plus(Duration::from_secs(1)), Time::START.plus(Duration::from_secs(300)));
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("nothing ends, by call", size), |b| {
            b.iter(|| owner.tick(soon, &rules, &nobody(), &mut said));
        });
        group.throughput(Throughput::Elements(ENDED));
        group.bench_function(BenchmarkId::new("bans run out, by ban", size), |b| {
            b.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    if owner.banned() < ENDED as usize {
                        owner = banning(size, &rules);
                    }
                    said.clear();
                    let begin = Instant::now();
                    owner.tick(later, &rules, &nobody(), &mut said);
                    took += begin.elapsed();
                }
                took
            });
        });
        let mut owner = banning(size, &rules);
        let mut allow = nobody();
        allow.insert(Network::parse("192.0.2.0/24").expect("a network"), ());
        group.throughput(Throughput::Elements(SWEPT));
        group.bench_function(BenchmarkId::new("a new allowlist, by offender", size), |b| {
            b.iter_batched_ref(
                Vec::new,
                |said| {
                    // Begins anew, and goes as far as one tick goes.
                    owner.adopt(&rules, Some(&allow), soon, said);
                    owner.tick(soon, &rules, &allow, said);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, failures, bans, sweeps);
criterion_main!(benches);

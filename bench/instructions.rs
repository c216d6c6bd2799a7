//! One workload, so many rounds, and nothing else: for a tool that counts instructions.
//!
//! `perf/instructions` builds it, runs each workload under valgrind with N and with 2 N rounds, and takes the difference,
//! so that what comes before the first round does not count. Run by itself it does the same work and says nothing.
//!
//! ```text
//! instructions list                    the workloads, and how many units (lines, questions …) a round of each has
//! instructions <workload> <rounds>     runs it
//! ```
//!
//! Nothing here is drawn at random, times are arguments, and a round changes nothing that the next one would notice.

use mailfail2ban::engine::address::Address;
use mailfail2ban::engine::ban::{Act, Failure, Lift, PatternId, Severity};
use mailfail2ban::engine::escalation::BanRules;
use mailfail2ban::engine::owner::{Outcome, Owner};
use mailfail2ban::engine::time::Time;
use mailfail2ban::shard::alone::Proxy;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

mod traffic;
use traffic::{Reader, Told, answered, ban, counted, host, policy, replica, rules, shard, tables};

/// Patterns of a site beside those that are built in.
const SITE_PATTERNS: usize = 50;

/// Bans that a question is looked up in.
const BANS: u32 = 100_000;

const LINES: usize = 1_000;
const LOOKUPS: u32 = 1_000;

/// A workload's name, how many units a round has, and what runs so many rounds.
struct Workload {
    name: &'static str,
    units: usize,
    run: fn(usize),
}

const WORKLOADS: [Workload; 17] = [
    Workload { name: "line of a program that no pattern speaks of", units: LINES, run: |n| look(Told::Stranger, n) },
    Workload { name: "line that tells of no failure", units: LINES, run: |n| look(Told::Other, n) },
    Workload { name: "line of a failure, to the matcher's answer", units: LINES, run: |n| look(Told::Failure, n) },
    Workload { name: "line of a failure, counted by its owner", units: LINES, run: count },
    Workload { name: "line of a mail log, one in ten a failure", units: LINES, run: mix },
    Workload { name: "SPOP question", units: 1, run: |n| spop(1, n) },
    Workload { name: "SPOP question, 16 in a read", units: 16, run: |n| spop(16, n) },
    Workload { name: "HTTP question", units: 1, run: |n| http(1, n) },
    Workload { name: "HTTP question, 16 in a read", units: 16, run: |n| http(16, n) },
    Workload { name: "HTTP question, denied", units: 1, run: http_denied },
    Workload { name: "ext_authz question", units: 1, run: |n| ext_authz(1, n) },
    Workload { name: "ext_authz question, 16 in a read", units: 16, run: |n| ext_authz(16, n) },
    Workload { name: "replica, hit", units: LOOKUPS as usize, run: |n| lookup(0, n) },
    Workload { name: "replica, miss", units: LOOKUPS as usize, run: |n| lookup(BANS, n) },
    Workload { name: "replica, a ban and its end", units: LOOKUPS as usize, run: apply },
    Workload { name: "owner, a failure below the threshold", units: LOOKUPS as usize, run: fail },
    Workload { name: "owner, a ban decided, applied and run out", units: LOOKUPS as usize, run: decide },
];

/// Lines up to the matcher's answer.
fn look(told: Told, rounds: usize) {
    let lines = traffic::lines(LINES, told);
    let mut reader = Reader::new(SITE_PATTERNS);
    let mut round = || lines.iter().filter(|line| reader.tells_of_failure(black_box(line.as_bytes()))).count();
    // The automata are warm after the first.
    for _ in 0..=rounds {
        let found = round();
        assert_eq!(found, if told == Told::Failure { LINES } else { 0 });
    }
}

fn mix(rounds: usize) {
    let lines = traffic::mail_log(LINES);
    let mut reader = Reader::new(SITE_PATTERNS);
    for _ in 0..=rounds {
        let found = lines.iter().filter(|line| reader.tells_of_failure(black_box(line.as_bytes()))).count();
        assert!(found > 0);
    }
}

/// Lines of known clients up to their owner. Each fails three times in a window, which is no reason to ban it.
fn count(rounds: usize) {
    let lines = traffic::lines(LINES, Told::Failure);
    let mut policy = policy(SITE_PATTERNS);
    policy.rules.threshold = 1_000;
    let mut shard = shard(policy, 0);
    let mut now = Time::START;
    for _ in 0..rounds + 4 {
        now = now.plus(Duration::from_secs(200));
        shard.set_now(now);
        for line in &lines {
            shard.record(black_box(line.as_bytes()));
        }
    }
    assert_eq!(counted(&shard), ((rounds + 4) * LINES) as u64);
}

/// What a proxy says first, and then its questions, so many in a read. Each answer begins with `start`.
fn answer(mut proxy: Proxy, hello: &[u8], question: &[u8], depth: usize, start: &[u8], rounds: usize) {
    let mut shard = shard(policy(0), BANS);
    let (input, mut output) = (question.repeat(depth), Vec::with_capacity(64 << 10));
    shard.answer(&mut proxy, hello, &mut output);
    for _ in 0..rounds {
        output.clear();
        let taken = shard.answer(&mut proxy, black_box(&input), &mut output);
        assert!(taken == input.len() && output.starts_with(start));
        black_box(&output);
    }
    assert_eq!(answered(&shard), (rounds * depth) as u64);
}

fn spop(depth: usize, rounds: usize) {
    let (hello, question) = traffic::haproxy();
    answer(Proxy::haproxy(), &hello, &question, depth, &[0], rounds);
}

fn http(depth: usize, rounds: usize) {
    answer(Proxy::nginx(), &[], &traffic::nginx("127.0.0.1"), depth, b"HTTP/1.1 200", rounds);
}

fn http_denied(rounds: usize) {
    answer(Proxy::nginx(), &[], &traffic::nginx(&host(77).to_string()), 1, b"HTTP/1.1 403", rounds);
}

/// The frames of the questions are made in the round too, which is a copy and little beside what reading them takes.
fn ext_authz(depth: usize, rounds: usize) {
    let mut shard = shard(policy(0), BANS);
    let mut proxy = Proxy::envoy();
    let (mut envoy, mut input) = traffic::Envoy::new();
    let mut output = Vec::with_capacity(64 << 10);
    for _ in 0..rounds + 64 {
        output.clear();
        envoy.ask(&mut input, depth);
        let taken = shard.answer(&mut proxy, black_box(&input), &mut output);
        assert!(taken == input.len() && !output.is_empty());
        input.clear();
        black_box(&output);
    }
    assert_eq!(answered(&shard), ((rounds + 64) * depth) as u64);
}

fn lookup(from: u32, rounds: usize) {
    let replica = replica(BANS);
    let addresses: Vec<Address> = (from..from + LOOKUPS).map(|n| Address::from(host(n))).collect();
    for _ in 0..rounds {
        let found = |address: &&Address| replica.lookup(**black_box(address), Time::START).is_some();
        let hits = addresses.iter().filter(found).count();
        assert_eq!(hits, if from == 0 { LOOKUPS as usize } else { 0 });
    }
}

fn apply(rounds: usize) {
    let mut replica = replica(BANS);
    let pairs: Vec<_> = (BANS..BANS + LOOKUPS)
        .map(|n| {
            let ban = ban(host(n));
            let Act::Ban(kept) = ban.act else { unreachable!("a ban is one") };
            (ban, mailfail2ban::engine::ban::Decision { act: Act::Lift(Lift::Expired, kept), ..ban })
        })
        .collect();
    for _ in 0..=rounds {
        for (ban, lift) in &pairs {
            replica.apply(black_box(ban));
            replica.apply(black_box(lift));
        }
    }
    assert_eq!(replica.len(), BANS as usize);
}

fn failure(n: u32, count: u32) -> Failure {
    let client = mailfail2ban::engine::address::Network::host(host(n).into());
    Failure { client, count, pattern: PatternId::FIRST, severity: Severity::LEAST, login: None }
}

/// Of clients that are known, three in a window.
fn fail(rounds: usize) {
    let rules = rules(BANS as usize);
    let mut owner = Owner::new(0, rules.tracked_max, tables());
    let failures: Vec<Failure> = (0..LOOKUPS).map(|n| failure(n, 1)).collect();
    let (mut now, mut decisions) = (Time::START, Vec::new());
    for _ in 0..rounds + 4 {
        now = now.plus(Duration::from_secs(200));
        for failure in &failures {
            assert_eq!(owner.fail(black_box(failure), now, &rules, &mut decisions), Outcome::Counted);
        }
    }
}

/// Of clients that were banned before, long enough ago that each ban is as the first.
fn decide(rounds: usize) {
    let rules = BanRules { memory: Duration::from_secs(3_600), ..rules(BANS as usize) };
    let mut owner = Owner::new(0, rules.tracked_max, tables());
    let mut replica = replica(BANS);
    let allow = traffic::nobody();
    let failures: Vec<Failure> = (0..LOOKUPS).map(|n| failure(BANS + n, 5)).collect();
    let (mut now, mut decisions) = (Time::START, Vec::new());
    for _ in 0..rounds + 2 {
        now = now.plus(Duration::from_secs(7_200));
        for failure in &failures {
            assert_eq!(owner.fail(black_box(failure), now, &rules, &mut decisions), Outcome::Banned);
        }
        owner.tick(now.plus(Duration::from_secs(300)), &rules, &allow, &mut decisions);
        assert_eq!((decisions.len(), owner.banned()), (2 * LOOKUPS as usize, 0));
        for decision in decisions.drain(..) {
            replica.apply(&decision);
        }
    }
    assert_eq!(replica.len(), BANS as usize);
}

fn main() -> ExitCode {
    // `cargo bench` adds an argument for its own harness.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workload = |name: &str| WORKLOADS.iter().find(|workload| workload.name == name);
    match arguments[..] {
        // A run of all benchmarks comes by here.
        [] => ExitCode::SUCCESS,
        ["list"] => {
            for Workload { name, units, .. } in &WORKLOADS {
                println!("{units}\t{name}");
            }
            ExitCode::SUCCESS
        }
        [name, rounds] => match (workload(name), rounds.parse()) {
            (Some(workload), Ok(rounds)) => {
                (workload.run)(rounds);
                ExitCode::SUCCESS
            }
            _ => {
                eprintln!("no workload {name:?}, or {rounds:?} is no number; `list` shows the workloads");
                ExitCode::from(2)
            }
        },
        _ => {
            eprintln!("usage: instructions list, or instructions <workload> <rounds>");
            ExitCode::from(2)
        }
    }
}

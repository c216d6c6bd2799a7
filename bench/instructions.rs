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
use mailfail2ban::engine::owner::Outcome;
use mailfail2ban::wire::{ext_authz, http1};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

mod traffic;
use traffic::{Answering, Intake, Told, ban, host, replica};

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
    let mut intake = Intake::new(traffic::matcher(SITE_PATTERNS), 1);
    let mut round = || lines.iter().filter(|line| intake.look(black_box(line.as_bytes()))).count();
    // The automata are warm after the first.
    for _ in 0..=rounds {
        let found = round();
        assert_eq!(found, if told == Told::Failure { LINES } else { 0 });
    }
}

fn mix(rounds: usize) {
    let lines = traffic::mail_log(LINES);
    let mut intake = Intake::new(traffic::matcher(SITE_PATTERNS), 1);
    for _ in 0..=rounds {
        let found = lines.iter().filter(|line| intake.look(black_box(line.as_bytes()))).count();
        assert!(found > 0);
    }
}

/// Lines of known clients up to their owner. Each fails three times in a window, which is no reason to ban it.
fn count(rounds: usize) {
    let lines = traffic::lines(LINES, Told::Failure);
    let mut intake = Intake::new(traffic::matcher(SITE_PATTERNS), 2 * LINES);
    intake.rules.threshold = 1_000;
    for _ in 0..rounds + 4 {
        intake.now = intake.now.plus(Duration::from_secs(200));
        for line in &lines {
            let outcome = intake.take(black_box(line.as_bytes()));
            assert!(matches!(outcome, Some(Outcome::Counted | Outcome::Known)), "{outcome:?}");
        }
    }
}

fn spop(depth: usize, rounds: usize) {
    let answering = Answering::new(BANS);
    let (mut session, question) = traffic::haproxy();
    let (input, mut output) = (question.repeat(depth), Vec::with_capacity(64 << 10));
    for _ in 0..rounds {
        output.clear();
        let asked = answering.spop(&mut session, black_box(&input), &mut output);
        assert!(asked == depth && !output.is_empty());
        black_box(&output);
    }
}

fn answer_http(question: &[u8], depth: usize, status: &[u8], rounds: usize) {
    let answering = Answering::new(BANS);
    let (input, mut output) = (question.repeat(depth), Vec::with_capacity(64 << 10));
    let mut session = http1::Session::new();
    for _ in 0..rounds {
        output.clear();
        let asked = answering.http(&mut session, black_box(&input), &mut output);
        assert!(asked == depth && output.starts_with(status));
        black_box(&output);
    }
}

fn http(depth: usize, rounds: usize) {
    answer_http(&traffic::nginx(), depth, b"HTTP/1.1 200", rounds);
}

fn http_denied(rounds: usize) {
    let question = String::from_utf8(traffic::nginx()).expect("a capture without bytes beyond ASCII");
    let question = question.replacen("Original-IP: 127.0.0.1", &format!("Original-IP: {}", host(77)), 1);
    answer_http(question.as_bytes(), 1, b"HTTP/1.1 403", rounds);
}

/// The frames of the questions are made in the round too, which is a copy and little beside what reading them takes.
fn ext_authz(depth: usize, rounds: usize) {
    let answering = Answering::new(BANS);
    let mut session = ext_authz::Session::new();
    let (mut envoy, mut input) = traffic::Envoy::new();
    let mut output = Vec::with_capacity(64 << 10);
    for _ in 0..rounds + 64 {
        output.clear();
        envoy.ask(&mut input, depth);
        let asked = answering.ext_authz(&mut session, black_box(&input), &mut output);
        assert!(asked == depth && !output.is_empty());
        input.clear();
        black_box(&output);
    }
}

fn lookup(from: u32, rounds: usize) {
    let answering = Answering::new(BANS);
    let addresses: Vec<Address> = (from..from + LOOKUPS).map(|n| Address::from(host(n))).collect();
    for _ in 0..rounds {
        let found = |address: &&Address| answering.replica.lookup(**black_box(address), answering.now).is_some();
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
    let mut intake = Intake::new(traffic::matcher(0), BANS as usize);
    let failures: Vec<Failure> = (0..LOOKUPS).map(|n| failure(n, 1)).collect();
    for _ in 0..rounds + 4 {
        intake.now = intake.now.plus(Duration::from_secs(200));
        for failure in &failures {
            let outcome = intake.owner.fail(black_box(failure), intake.now, &intake.rules, &mut intake.decisions);
            assert_eq!(outcome, Outcome::Counted);
        }
    }
}

/// Of clients that were banned before, long enough ago that each ban is as the first.
fn decide(rounds: usize) {
    let mut intake = Intake::new(traffic::matcher(0), BANS as usize);
    let mut replica = replica(BANS);
    let allow = traffic::nobody();
    let failures: Vec<Failure> = (0..LOOKUPS).map(|n| failure(BANS + n, 5)).collect();
    intake.rules.memory = Duration::from_secs(3_600);
    for _ in 0..rounds + 2 {
        intake.now = intake.now.plus(Duration::from_secs(7_200));
        for failure in &failures {
            let outcome = intake.owner.fail(black_box(failure), intake.now, &intake.rules, &mut intake.decisions);
            assert_eq!(outcome, Outcome::Banned);
        }
        let later = intake.now.plus(Duration::from_secs(300));
        intake.owner.tick(later, &intake.rules, &allow, &mut intake.decisions);
        assert_eq!((intake.decisions.len(), intake.owner.banned()), (2 * LOOKUPS as usize, 0));
        for decision in intake.decisions.drain(..) {
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

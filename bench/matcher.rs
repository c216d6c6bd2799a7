//! What a line costs up to the matcher's answer, with the built-in patterns and a site's own; and the matcher against the
//! ways not taken, over a log like a mail cluster's: nine in ten lines are of daemons that patterns speak of but tell of no
//! failure, or of daemons that none speaks of; one in ten is a failed login.
//!
//! `cargo bench --bench matcher`. Elements are lines, on one core. Quote ratios between rows of one run.
//!
//! `line` is what a shard does with a line, from its bytes to what was found, with all patterns that are built in and in
//! use by default, and 50 or 500 more:
//!
//! - `mix`: nine in ten lines tell of no failure, and one of these of a program that nobody watches.
//! - `failure`, `other`, `stranger`: the three kinds of lines in it, each by itself.
//! - `mix, as records`: the mix without reading the records.
//!
//! `log` compares ways of matching, with patterns of its own:
//!
//! - `matcher`: as the server does it, program first.
//! - `unbound`: the same patterns bound to no program, so every line goes through one automaton of all of them.
//! - `gated`: `unbound` behind an Aho-Corasick search for each pattern's longest literal.
//! - `in turn`: one regex after the other, until one matches.

use aho_corasick::AhoCorasick;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailfail2ban::engine::ban::{PatternId, Severity};
use mailfail2ban::engine::matcher::{Found, Matcher};
use mailfail2ban::engine::pattern::{Pattern, Source};
use mailfail2ban::wire::syslog::{Record, decode};
use regex::bytes::Regex;
use std::time::Duration;

mod traffic;
use traffic::{Reader, Told};

/// A pattern as it is written, and the literal that every line it matches must hold.
struct Written {
    program: &'static str,
    regex: String,
    literal: String,
}

const IP: &str = r"(?P<ip>[0-9a-fA-F:.]+)";

/// `count` patterns for mail daemons and their neighbours.
fn written(count: usize) -> Vec<Written> {
    let base: [(&str, String, &str); 10] = [
        ("dovecot", format!(r"^[a-z0-9-]+-login: [^<]*?auth failed.*[ ,]rip={IP}(?:,|$)"), "auth failed"),
        ("dovecot", format!(r"^auth: passwd-file\(.*,{IP},<[^>]*>\): Password mismatch"), "Password mismatch"),
        ("dovecot", format!(r"^auth: passwd-file\(.*,{IP},<[^>]*>\): unknown user"), "unknown user"),
        ("postfix", format!(r"^warning: [^\[\]\s]*\[{IP}\]: SASL \S+ authentication failed"), "authentication failed"),
        (
            "postfix",
            format!(r"^NOQUEUE: reject: RCPT from [^\[]*\[{IP}\]: 554 5\.7\.1 .*Relay access denied"),
            "Relay access denied",
        ),
        ("postfix", format!(r"^lost connection after AUTH from [^\[]*\[{IP}\]"), "lost connection after AUTH"),
        ("sogod", format!(r"^SOGoRootPage Login from '(?:[^']*, )?{IP}' for user"), "SOGoRootPage Login from"),
        ("sshd", format!(r"^Failed password for .* from {IP} port"), "Failed password for"),
        ("nginx", format!(r"user .* was not found in .*, client: {IP},"), "was not found in"),
        ("rspamd", format!(r"^.*access denied.*{IP}"), "access denied"),
    ];
    (0..count)
        .map(|n| {
            let (program, regex, literal) = &base[n % base.len()];
            match n / base.len() {
                0 => Written { program, regex: regex.clone(), literal: (*literal).to_owned() },
                // More of the same kind with other words: what a site adds over the years.
                more => Written {
                    program,
                    regex: format!(r"^site rule {more}-{n}: [^\[]*\[{IP}\] refused .* by policy {n}"),
                    literal: format!("by policy {n}"),
                },
            }
        })
        .collect()
}

fn compile(written: &[Written], bound: bool) -> Matcher {
    let patterns = (0..).zip(written).map(|(n, written)| {
        let programs = if bound { vec![written.program.to_owned()] } else { Vec::new() };
        // Unbound patterns see the program too, so theirs cannot begin the line.
        let regex = if bound { written.regex.clone() } else { written.regex.replacen('^', "", 1) };
        let severity = Severity::new(1).expect("1 is a severity");
        let source =
            Source { regex: &regex, ip_group: None, severity, weight: 1, programs: &programs, refused_by: None };
        Pattern::compile(PatternId::new(n).expect("few"), &source).expect("a pattern of this bench compiles")
    });
    Matcher::new(patterns.collect())
}

/// A log of `lines` lines, the same every time.
fn log(lines: usize) -> Vec<String> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    (0..lines)
        .map(|n| {
            let (a, b, pid) = (random(256), random(256), random(30_000));
            let ip = format!("198.51.{a}.{b}");
            let head = "<22>Nov 22 17:33:44 mail1";
            match random(20) {
                0 => format!("{head} dovecot: imap-login: Disconnected: Aborted login by logging out (auth failed, 1 attempts in 2 secs): user=<u{n}@example.test>, method=PLAIN, rip={ip}, lip=192.0.2.25, TLS, session=<si3+4OBg{n}>"),
                1 => format!("{head} postfix/submission/smtpd[{pid}]: warning: unknown[{ip}]: SASL LOGIN authentication failed: (reason unavailable), sasl_username=u{n}"),
                2..5 => format!("{head} postfix/smtpd[{pid}]: connect from mail{n}.example.net[{ip}]"),
                5..8 => format!("{head} postfix/smtpd[{pid}]: disconnect from mail{n}.example.net[{ip}] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7"),
                8..11 => format!("{head} postfix/qmgr[{pid}]: 4XyZ{n}: from=<u{n}@example.test>, size={a}{b}, nrcpt=1 (queue active)"),
                11..14 => format!("{head} dovecot: imap-login: Login: user=<u{n}@example.test>, method=PLAIN, rip={ip}, lip=192.0.2.25, mpid={pid}, TLS, session=<si3+4OBg{n}>"),
                14..17 => format!("{head} dovecot: imap(u{n}@example.test)<{pid}><si3+4OBg>: Logged out in={a} out={b} deleted=0 expunged=0 trashed=0 hdr_count=0 hdr_bytes=0"),
                17 => format!("{head} postfix/cleanup[{pid}]: 4XyZ{n}: message-id=<{n}.{pid}@mail.example.test>"),
                18 => format!("{head} rspamd[{pid}]: <ab{n}>; task; rspamd_task_write_log: id: <{n}@example.test>, ip: {ip}, (default: F (no action): [{a}/15.00] [])"),
                _ => format!("{head} CRON[{pid}]: (root) CMD (   cd / && run-parts --report /etc/cron.hourly)"),
            }
        })
        .collect()
}

fn line(criterion: &mut Criterion) {
    const LINES: usize = 10_000;
    let logs = [
        ("mix", traffic::mail_log(LINES)),
        ("failure", traffic::lines(LINES, Told::Failure)),
        ("other", traffic::lines(LINES, Told::Other)),
        ("stranger", traffic::lines(LINES, Told::Stranger)),
    ];
    let mut group = criterion.benchmark_group("line");
    group.throughput(Throughput::Elements(LINES as u64)).sample_size(20);
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    for more in [0, 50, 500] {
        let mut reader = Reader::new(more);
        let patterns = format!("built-in + {more}");
        for (name, log) in &logs {
            let failures = log.iter().filter(|line| reader.tells_of_failure(line.as_bytes())).count();
            let want = match *name {
                "mix" => 900..1_100,
                "failure" => LINES..LINES + 1,
                _ => 0..1,
            };
            assert!(want.contains(&failures), "{failures} of {LINES} lines match in {name}");
            group.bench_function(BenchmarkId::new(*name, &patterns), |b| {
                b.iter(|| log.iter().filter(|line| reader.tells_of_failure(line.as_bytes())).count());
            });
        }
        let records: Vec<Record<'_>> =
            logs[0].1.iter().map(|line| decode(line.as_bytes()).expect("a record")).collect();
        group.bench_function(BenchmarkId::new("mix, as records", &patterns), |b| {
            b.iter(|| {
                let mut find = |r: &Record<'_>| reader.matcher.find(&mut reader.scratch, r.program, r.pid, r.message);
                records.iter().filter(|record| matches!(find(record), Found::Match(_))).count()
            });
        });
        println!("{patterns}: caches take {} KiB", reader.scratch.memory_usage() >> 10);
    }
    group.finish();
}

fn ways(criterion: &mut Criterion) {
    let log = log(20_000);
    let bytes: usize = log.iter().map(String::len).sum();
    println!("{} lines, {} bytes a line", log.len(), bytes / log.len());
    let records: Vec<Record<'_>> = log.iter().map(|line| decode(line.as_bytes()).expect("a record")).collect();
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements(records.len() as u64)).sample_size(20);

    group.bench_function("decode alone", |b| {
        b.iter(|| log.iter().map(|line| decode(line.as_bytes()).map_or(0, |r| r.message.len())).sum::<usize>());
    });
    for count in [10, 50, 500] {
        let written = written(count);
        for (name, bound) in [("matcher", true), ("unbound", false)] {
            let matcher = compile(&written, bound);
            let mut scratch = matcher.scratch();
            let mut find = |record: &Record<'_>| {
                let found = matcher.find(&mut scratch, record.program, record.pid, record.message);
                usize::from(matches!(found, Found::Match(_)))
            };
            let matched: usize = records.iter().map(&mut find).sum();
            println!("{name}, {count} patterns: {matched} of {} lines match", records.len());
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| records.iter().map(&mut find).sum::<usize>());
            });
        }
        let gate = AhoCorasick::new(written.iter().map(|w| &w.literal)).expect("few literals");
        let matcher = compile(&written, false);
        let mut scratch = matcher.scratch();
        group.bench_function(BenchmarkId::new("gated", count), |b| {
            b.iter(|| {
                let passed = records.iter().filter(|record| gate.is_match(record.message));
                let found = passed.map(|r| matcher.find(&mut scratch, r.program, r.pid, r.message));
                found.filter(|found| matches!(found, Found::Match(_))).count()
            });
        });
        let regexes: Vec<Regex> = written.iter().map(|w| Regex::new(&w.regex).expect("a regex")).collect();
        group.bench_function(BenchmarkId::new("in turn", count), |b| {
            b.iter(|| {
                let captured =
                    records.iter().filter_map(|r| regexes.iter().find_map(|regex| regex.captures(r.message)));
                captured.filter(|captures| captures.name("ip").is_some()).count()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, line, ways);
criterion_main!(benches);

//! No allocation per log line and per question, once everything is warm: from the bytes that were received to the counted
//! failure, and to the bytes that are sent.
//!
//! What is driven is a shard without a thread and sockets. The allocator counts by thread, so tests that run beside these
//! do not disturb.

#[path = "../bench/traffic/mod.rs"]
mod traffic;

use allocation_counter::measure;
use mailfail2ban::engine::time::Time;
use mailfail2ban::shard::alone::{Alone, Proxy};
use mailfail2ban::wire::syslog::{Framer, Step};
use std::time::Duration;
use traffic::{Told, answered, counted, host};

const LINES: usize = 1_000;

/// As many patterns as the counts of instructions have.
const SITE_PATTERNS: usize = 50;

/// How often `work` allocates, after it was done so often before.
fn allocations(warm_up: usize, mut work: impl FnMut()) -> u64 {
    for _ in 0..warm_up {
        work();
    }
    measure(work).count_total
}

#[test]
fn the_allocator_counts() {
    assert!(allocations(1, || drop(std::hint::black_box(Vec::<u8>::with_capacity(10)))) > 0);
}

/// A shard that bans whoever fails so often.
fn shard(threshold: u32) -> Alone {
    let mut policy = traffic::policy(SITE_PATTERNS);
    policy.rules.threshold = threshold;
    traffic::shard(policy, 0)
}

#[test]
fn a_line_that_does_not_match_allocates_nothing() {
    for told in [Told::Other, Told::Stranger] {
        let lines = traffic::lines(LINES, told);
        let mut shard = shard(1);
        let allocated = allocations(2, || lines.iter().for_each(|line| shard.record(line.as_bytes())));
        let counters = shard.counters();
        assert_eq!((counters.unmatched + counters.not_watched, allocated), (3 * LINES as u64, 0), "{told:?}");
    }
}

#[test]
fn a_failure_of_a_known_client_allocates_nothing() {
    let lines = traffic::lines(LINES, Told::Failure);
    // Three failures in a window: below the threshold, and as many as are stored beside a client.
    let (mut shard, mut now) = (shard(1_000), Time::START);
    let allocated = allocations(4, || {
        now = now.plus(Duration::from_secs(200));
        shard.set_now(now);
        lines.iter().for_each(|line| shard.record(line.as_bytes()));
    });
    assert_eq!((counted(&shard), allocated), (5 * LINES as u64, 0));
}

#[test]
fn a_failure_of_a_banned_client_allocates_nothing() {
    let lines = traffic::lines(LINES, Told::Failure);
    let mut shard = shard(1);
    let allocated = allocations(2, || lines.iter().for_each(|line| shard.record(line.as_bytes())));
    assert!(shard.counters().already_banned >= 2 * LINES as u64);
    assert_eq!(allocated, 0);
}

#[test]
fn a_stream_becomes_frames_without_allocations() {
    let log = traffic::mail_log(LINES);
    let lines = log.join("\n") + "\n";
    let counted_octets: String = log.iter().map(|line| format!("{} {line}", line.len())).collect();
    for stream in [lines, counted_octets] {
        let (mut shard, mut now) = (shard(1_000), Time::START);
        let allocated = allocations(2, || {
            now = now.plus(Duration::from_secs(1_000));
            shard.set_now(now);
            let mut framer = Framer::new(8192);
            let (mut rest, mut frames) = (stream.as_bytes(), 0);
            while let Step::Frame { frame, consumed } = framer.next(rest) {
                shard.record(frame);
                (rest, frames) = (&rest[consumed..], frames + 1);
            }
            assert_eq!((rest.len(), frames), (0, LINES));
        });
        assert!(counted(&shard) > 0);
        assert_eq!(allocated, 0);
    }
}

/// How often a question allocates, so many in a read.
fn of_question(shard: &mut Alone, proxy: &mut Proxy, question: &[u8], depth: usize, start: &[u8]) -> u64 {
    let (input, mut output) = (question.repeat(depth), Vec::with_capacity(64 << 10));
    let before = answered(shard);
    let allocated = allocations(2, || {
        output.clear();
        assert_eq!(shard.answer(proxy, &input, &mut output), input.len());
        assert!(output.starts_with(start));
    });
    assert_eq!(answered(shard) - before, 3 * depth as u64);
    allocated
}

#[test]
fn an_spop_question_allocates_nothing() {
    let mut shard = traffic::shard(traffic::policy(0), 1_000);
    let (hello, question) = traffic::haproxy();
    let mut proxy = Proxy::haproxy();
    shard.answer(&mut proxy, &hello, &mut Vec::new());
    for depth in [1, 16] {
        assert_eq!(of_question(&mut shard, &mut proxy, &question, depth, &[0]), 0, "{depth} in a read");
    }
}

#[test]
fn an_http_question_allocates_nothing() {
    let mut shard = traffic::shard(traffic::policy(0), 1_000);
    for (client, start) in [("192.0.2.1", "HTTP/1.1 200"), (&host(77).to_string(), "HTTP/1.1 403")] {
        for depth in [1, 16] {
            let (question, mut proxy) = (traffic::nginx(client), Proxy::nginx());
            let allocated = of_question(&mut shard, &mut proxy, &question, depth, start.as_bytes());
            assert_eq!(allocated, 0, "{start}, {depth} in a read");
        }
    }
}

#[test]
fn an_ext_authz_question_allocates_nothing() {
    let mut shard = traffic::shard(traffic::policy(0), 1_000);
    let mut output = Vec::with_capacity(64 << 10);
    for depth in [1, 16] {
        let mut proxy = Proxy::envoy();
        let (mut envoy, mut input) = traffic::Envoy::new();
        // What a read holds is not the session's, and is made beforehand.
        envoy.ask(&mut input, depth);
        for round in 0..64 {
            output.clear();
            let before = answered(&shard);
            let allocated = measure(|| assert_eq!(shard.answer(&mut proxy, &input, &mut output), input.len()));
            assert_eq!(answered(&shard) - before, depth as u64);
            let allocated = allocated.count_total;
            assert!(round < 32 || allocated == 0, "{depth} in a read: {allocated} allocations");
            input.clear();
            envoy.ask(&mut input, depth);
        }
    }
}

//! No allocation per log line and per question, once everything is warm: from the bytes that were received to the counted
//! failure, and to the bytes that are sent.
//!
//! What is driven is the pure code, in the way of the shard (`bench/traffic`). The allocator counts by thread, so tests that
//! run beside these do not disturb.

#[path = "../bench/traffic/mod.rs"]
mod traffic;

use allocation_counter::measure;
use mailfail2ban::engine::owner::Outcome;
use mailfail2ban::wire::syslog::{Framer, Step};
use mailfail2ban::wire::{ext_authz, http1};
use std::time::Duration;
use traffic::{Answering, Intake, Told, host};

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

#[test]
fn a_line_that_does_not_match_allocates_nothing() {
    for told in [Told::Other, Told::Stranger] {
        let lines = traffic::lines(LINES, told);
        let mut intake = Intake::new(traffic::matcher(SITE_PATTERNS), LINES);
        let counted = allocations(2, || {
            for line in &lines {
                assert_eq!(intake.take(line.as_bytes()), None, "{line}");
            }
        });
        assert_eq!(counted, 0, "{told:?}");
    }
}

#[test]
fn a_failure_of_a_known_client_allocates_nothing() {
    let lines = traffic::lines(LINES, Told::Failure);
    let mut intake = Intake::new(traffic::matcher(SITE_PATTERNS), 2 * LINES);
    // Three failures in a window: below the threshold, and as many as are stored beside a client.
    intake.rules.threshold = 1_000;
    let counted = allocations(4, || {
        intake.now = intake.now.plus(Duration::from_secs(200));
        for line in &lines {
            let outcome = intake.take(line.as_bytes());
            assert!(matches!(outcome, Some(Outcome::Counted | Outcome::Known)), "{line}: {outcome:?}");
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_failure_of_a_banned_client_allocates_nothing() {
    let lines = traffic::lines(LINES, Told::Failure);
    let mut intake = Intake::new(traffic::matcher(SITE_PATTERNS), 2 * LINES);
    intake.rules.threshold = 1;
    let counted = allocations(2, || {
        for line in &lines {
            intake.take(line.as_bytes());
        }
        intake.decisions.clear();
    });
    assert_eq!(counted, 0);
}

#[test]
fn a_stream_becomes_frames_without_allocations() {
    let log = traffic::mail_log(LINES);
    let lines = log.join("\n") + "\n";
    let counted_octets: String = log.iter().map(|line| format!("{} {line}", line.len())).collect();
    for stream in [lines, counted_octets] {
        let mut intake = Intake::new(traffic::matcher(SITE_PATTERNS), 2 * LINES);
        intake.rules.threshold = 1_000;
        let counted = allocations(2, || {
            intake.now = intake.now.plus(Duration::from_secs(1_000));
            let mut framer = Framer::new(8192);
            let (mut rest, mut frames) = (stream.as_bytes(), 0);
            while let Step::Frame { frame, consumed } = framer.next(rest) {
                intake.take(frame);
                (rest, frames) = (&rest[consumed..], frames + 1);
            }
            assert_eq!((rest.len(), frames), (0, LINES));
        });
        assert_eq!(counted, 0);
    }
}

#[test]
fn an_spop_question_allocates_nothing() {
    let answering = Answering::new(1_000);
    let (mut session, question) = traffic::haproxy();
    let mut output = Vec::with_capacity(64 << 10);
    for depth in [1, 16] {
        let input = question.repeat(depth);
        let counted = allocations(2, || {
            output.clear();
            assert_eq!(answering.spop(&mut session, &input, &mut output), depth);
        });
        assert_eq!(counted, 0, "{depth} in a read");
    }
}

/// nginx's question, allowed and denied.
fn http_questions() -> [Vec<u8>; 2] {
    let allowed = String::from_utf8(traffic::nginx()).expect("a capture without bytes beyond ASCII");
    let denied = allowed.replacen("Original-IP: 127.0.0.1", &format!("Original-IP: {}", host(77)), 1);
    [allowed.into_bytes(), denied.into_bytes()]
}

#[test]
fn an_http_question_allocates_nothing() {
    let answering = Answering::new(1_000);
    let mut output = Vec::with_capacity(64 << 10);
    for (question, status) in http_questions().iter().zip(["HTTP/1.1 200", "HTTP/1.1 403"]) {
        for depth in [1, 16] {
            let (input, mut session) = (question.repeat(depth), http1::Session::new());
            let counted = allocations(2, || {
                output.clear();
                assert_eq!(answering.http(&mut session, &input, &mut output), depth);
                assert!(output.starts_with(status.as_bytes()));
            });
            assert_eq!(counted, 0, "{status}, {depth} in a read");
        }
    }
}

#[test]
fn an_ext_authz_question_allocates_nothing() {
    let answering = Answering::new(1_000);
    let mut output = Vec::with_capacity(64 << 10);
    for depth in [1, 16] {
        let mut session = ext_authz::Session::new();
        let (mut envoy, mut input) = traffic::Envoy::new();
        // What a read holds is not the session's, and is made beforehand.
        let mut ask = |input: &mut Vec<u8>| {
            envoy.ask(input, depth);
        };
        ask(&mut input);
        for round in 0..64 {
            output.clear();
            let counted = measure(|| assert_eq!(answering.ext_authz(&mut session, &input, &mut output), depth));
            assert!(round < 32 || counted.count_total == 0, "{depth} in a read: {} allocations", counted.count_total);
            input.clear();
            ask(&mut input);
        }
    }
}

//! One question of HAProxy from its frame to its answer: NOTIFY decoded, its clients read, the ACK written.
//!
//! `cargo bench --bench spop`. Without the verdict, which `bench/replica.rs` has.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailfail2ban::wire::spop::answer::{self, Answer, Denial};
use mailfail2ban::wire::spop::{Client, Session, Step};
use std::hint::black_box;
use std::time::Duration;

mod traffic;
use traffic::from_hex as capture;

/// Answers all of `unread`; gives back how many clients were asked about, so that nothing is left out.
fn answer_all(session: &mut Session, mut unread: &[u8], answer: &Answer<'_>, out: &mut Vec<u8>) -> usize {
    let mut addresses = 0;
    while let Step::Notify { notify, consumed } = session.next(unread, out) {
        addresses += notify.clients().filter(|client| matches!(black_box(client), Client::Ip(_))).count();
        answer::ack(out, notify.stream_id, notify.frame_id, answer, session.frame_bytes_max());
        unread = &unread[consumed..];
    }
    assert!(unread.is_empty());
    addresses
}

fn bench(criterion: &mut Criterion) {
    let hello = capture(include_str!("../tests/golden/spop/haproxy-2.6.12/01-hello-pipelining+async.hex"));
    let address = capture(include_str!("../tests/golden/spop/haproxy-2.6.12/05-notify-check-ip-v4-streamid1byte.hex"));
    let address_v6 =
        capture(include_str!("../tests/golden/spop/haproxy-2.6.12/15-notify-check-ip-v6-streamid1byte.hex"));
    let http = capture(include_str!("../tests/golden/spop/haproxy-2.6.12/04-notify-check-http-v4-streamid0.hex"));
    let body = capture(include_str!("../tests/golden/spop/haproxy-2.6.12/06-notify-check-http-v4-streamid1byte.hex"));

    let denied = Answer::Denied(Denial {
        reason: "5 failures (dovecot-auth)",
        pattern: Some("dovecot-auth"),
        severity: Some(4),
        expires_in: Some(Duration::from_secs(300)),
    });

    let mut group = criterion.benchmark_group("question");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(30);
    for (name, frame, answer) in [
        ("IPv4, allowed", &address, Answer::Allowed),
        ("IPv4, denied", &address, denied),
        ("IPv6, allowed", &address_v6, Answer::Allowed),
        ("ten arguments, allowed", &http, Answer::Allowed),
        ("ten arguments and a body, allowed", &body, Answer::Allowed),
    ] {
        let (mut session, mut out) = (Session::new(), Vec::new());
        session.next(&hello, &mut out);
        // As they come under `pipelining`: several in one read, answered in one write.
        let frames = frame.repeat(64);
        group.throughput(Throughput::Elements(64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                let addresses = answer_all(&mut session, black_box(&frames), &answer, &mut out);
                black_box(&out);
                addresses
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

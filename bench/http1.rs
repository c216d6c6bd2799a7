//! The auth endpoint: one and sixteen requests per read, from received bytes to bytes to send, with 100,000 bans; and what
//! it takes to read a head, by hand as the product does, and by `httparse`.
//!
//! `cargo bench --bench http1`. Elements are requests. The heads are captures of nginx's `auth_request`. Quote ratios
//! between rows of one run.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailfail2ban::shard::alone::Proxy;
use mailfail2ban::wire::http1::{Field, Session, Step};
use std::hint::black_box;
use std::time::Duration;

mod traffic;
use traffic::{about, answered, host, http_captures, policy, shard};

/// As short as a configuration that passes nothing on makes it.
const SHORT: &[u8] = b"GET /auth HTTP/1.1\r\nHost: auth\r\nX-Original-IP: 127.0.0.1\r\n\r\n";

fn bench(criterion: &mut Criterion) {
    let mut shard = shard(policy(0), 100_000);
    let mut group = criterion.benchmark_group("session");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(30);
    let banned = host(77).to_string();
    let keep_alive = http_captures::NGINX_KEEP_ALIVE;
    for (name, question) in [
        ("a browser's fields, allowed", about(keep_alive, "192.0.2.1")),
        ("a browser's fields, denied", about(keep_alive, &banned)),
        ("two fields, allowed", about(SHORT, "192.0.2.1")),
    ] {
        for count in [1, 16] {
            let input = question.repeat(count);
            let (mut nginx, mut output) = (Proxy::nginx(), Vec::new());
            let before = answered(&shard);
            shard.answer(&mut nginx, &input, &mut output);
            assert_eq!(answered(&shard) - before, count as u64);
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    output.clear();
                    let taken = shard.answer(&mut nginx, black_box(&input), &mut output);
                    assert_eq!(taken, input.len());
                    output.len()
                });
            });
        }
    }
    group.finish();

    let mut group = criterion.benchmark_group("head");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(30);
    group.throughput(Throughput::Elements(1));
    for (name, head) in [("a browser's fields", keep_alive), ("two fields", SHORT)] {
        group.bench_function(BenchmarkId::new("by hand", name), |b| {
            b.iter(|| match Session::new().next(black_box(head)) {
                Step::Request { request, .. } => match request.original_ip {
                    Field::One(client) => client.len(),
                    Field::Absent | Field::Conflicting => 0,
                },
                _ => 0,
            });
        });
        group.bench_function(BenchmarkId::new("httparse", name), |b| {
            b.iter(|| {
                let mut fields = [httparse::EMPTY_HEADER; 32];
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(black_box(head)).expect("a capture is a request");
                assert!(parsed.is_complete());
                let client = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("x-original-ip"));
                client.map_or(0, |field| field.value.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

//! Envoy's questions, from received bytes to bytes to send: one and sixteen calls per read, allowed and denied; and what
//! it takes to read a question, by hand as the product does, by the generated types, and by types of only what is needed.
//!
//! `cargo bench --bench ext_authz`. Elements are calls. Quote ratios between rows of one run.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailfail2ban::wire::ext_authz::proto::envoy::service::auth::v3::CheckRequest;
use mailfail2ban::wire::ext_authz::{Answer, Denial, Question, Session, Step};
use prost::Message;
use std::hint::black_box;
use std::time::Duration;

/// As the HTTP filter asks, with eight header fields.
const MESSAGE: &[u8] = include_bytes!("../tests/golden/ext_authz/http.bin");

/// The way to the source, for a decoder that skips all else.
mod source_only {
    use mailfail2ban::wire::ext_authz::proto::envoy::config::core::v3::Address;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CheckRequest {
        #[prost(message, optional, tag = "1")]
        pub attributes: Option<Attributes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Attributes {
        #[prost(message, optional, tag = "1")]
        pub source: Option<Peer>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Peer {
        #[prost(message, optional, tag = "1")]
        pub address: Option<Address>,
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// A header block as Envoy writes it: the first time every field goes into the table (RFC 7541 §6.2.1), later each is one
/// byte (§6.1).
fn head(is_first: bool) -> Vec<u8> {
    let fields = [
        (":path", "/envoy.service.auth.v3.Authorization/Check"),
        (":authority", "fail2ban"),
        ("te", "trailers"),
        ("grpc-timeout", "200m"),
        ("content-type", "application/grpc"),
        ("x-envoy-internal", "true"),
        ("x-forwarded-for", "192.0.2.44"),
    ];
    let mut out = vec![0x83, 0x86];
    for (at, (name, value)) in fields.iter().enumerate() {
        if is_first {
            out.push(0x40);
            for text in [name, value] {
                out.push(text.len() as u8);
                out.extend(text.as_bytes());
            }
        } else {
            out.push(0x80 | (62 + fields.len() - 1 - at) as u8);
        }
    }
    out
}

fn calls(out: &mut Vec<u8>, next_stream: &mut u32, count: u32, message: &[u8]) {
    for _ in 0..count {
        frame(out, 1, 4, *next_stream, &head(*next_stream == 1));
        frame(out, 0, 1, *next_stream, message);
        *next_stream += 2;
    }
}

/// A connection whose windows are as wide as they can be.
struct Connection {
    session: Session,
    next_stream: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    message: Vec<u8>,
}

impl Connection {
    fn new() -> Connection {
        let mut input = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut input, 4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        frame(&mut input, 8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
        let message = [&[0][..], &(MESSAGE.len() as u32).to_be_bytes(), MESSAGE].concat();
        let output = Vec::with_capacity(64 << 10);
        let mut connection = Connection { session: Session::new(), next_stream: 1, input, output, message };
        connection.turn(1, &Answer::Allowed);
        connection
    }

    /// One read with so many calls, and the write that answers it.
    fn turn(&mut self, count: u32, answer: &Answer<'_>) -> usize {
        calls(&mut self.input, &mut self.next_stream, count, &self.message);
        self.session.receive(&self.input);
        self.input.clear();
        let mut answered = 0;
        loop {
            match self.session.next() {
                Step::Check { call, question } => {
                    assert!(question.source().is_some());
                    self.session.answer(call, answer);
                    answered += 1;
                }
                Step::Idle => break,
                other => panic!("{other:?}"),
            }
        }
        self.output.clear();
        self.session.take_output(&mut self.output);
        assert_eq!(answered, count);
        // Streams have 31 bits, and the windows of answers end some time.
        if self.next_stream > 10_000_000 {
            *self = Connection::new();
        }
        self.output.len()
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    let client = [198, 51, 100, 7].into();
    let denial = Denial { client, reason: "dovecot", retry_after: Some(Duration::from_secs(300)) };
    for (name, answer) in [("allowed", Answer::Allowed), ("denied", Answer::Denied(denial))] {
        for count in [1, 16] {
            let mut connection = Connection::new();
            group.throughput(Throughput::Elements(u64::from(count)));
            group.bench_function(BenchmarkId::new(name, count), |b| b.iter(|| connection.turn(count, &answer)));
        }
    }
    group.finish();

    let mut group = criterion.benchmark_group("question");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    group.throughput(Throughput::Elements(1));
    let message = Bytes::from_static(MESSAGE);
    group.bench_function("source by hand", |b| {
        b.iter(|| Question::decode(black_box(&message).clone()).unwrap().source().unwrap().len());
    });
    group.bench_function("source by types of it alone", |b| {
        b.iter(|| source_only::CheckRequest::decode(black_box(MESSAGE)).unwrap());
    });
    group.bench_function("the whole by generated types", |b| {
        b.iter(|| CheckRequest::decode(black_box(MESSAGE)).unwrap());
    });
    let question = Question::decode(message).unwrap();
    group.bench_function("hops by hand, on demand", |b| {
        b.iter(|| black_box(&question).forwarded_for().from_right().count());
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

//! Envoy's questions, from received bytes to bytes to send: one and sixteen calls per read, allowed and denied, by the
//! product's own HTTP/2 and, the way not taken, by `h2` over memory; and what it takes to read a question, by hand as the
//! product does, by the generated types, and by types of only what is needed.
//!
//! `cargo bench --bench ext_authz`. Elements are calls. Quote ratios between rows of one run.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailfail2ban::wire::ext_authz::proto::envoy::service::auth::v3::CheckRequest;
use mailfail2ban::wire::ext_authz::{Answer, Denial, Question, Session, Step};
use prost::Message;
use std::hint::black_box;
use std::time::Duration;

#[path = "../tests/harness/memory.rs"]
mod memory;
mod traffic;
use traffic::Envoy;

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

/// The least that `h2` needs to answer the same: it is polled by hand, and reads and writes memory, not a socket.
mod way_not_taken {
    use super::MESSAGE;
    use super::memory::Memory;
    use bytes::Bytes;
    use h2::server::{Builder, Connection};
    use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
    use mailfail2ban::wire::ext_authz::Question;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    pub struct Server {
        memory: Memory,
        connection: Connection<Memory, Bytes>,
        ok: HeaderMap,
        answer: Bytes,
    }

    impl Server {
        /// `greeting` is the preface and what comes with it.
        pub fn new(greeting: &[u8]) -> Server {
            let memory = Memory::default();
            memory.send(greeting);
            let mut builder = Builder::new();
            builder.max_concurrent_streams(1024).initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
            let polled = pin!(builder.handshake(memory.clone())).poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Ok(connection)) = polled else { panic!("no greeting") };
            Server {
                memory,
                connection,
                ok: HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]),
                answer: Bytes::from_static(b"\0\0\0\0\x04\x0a\0\x1a\0"),
            }
        }

        /// Allows everything in one read; how many calls that were.
        pub fn answer_all(&mut self, input: &[u8], output: &mut Vec<u8>) -> usize {
            self.memory.send(input);
            let cx = &mut Context::from_waker(Waker::noop());
            let mut answered = 0;
            while let Poll::Ready(Some(accepted)) = self.connection.poll_accept(cx) {
                let (request, mut respond) = accepted.unwrap();
                let mut body = request.into_body();
                while let Poll::Ready(Some(data)) = body.poll_data(cx) {
                    let data = data.unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                    assert_eq!(data.len(), 5 + MESSAGE.len());
                    assert!(Question::decode(&data[5..]).unwrap().source().is_some());
                }
                let mut response = Response::new(());
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                let mut stream = respond.send_response(response, false).unwrap();
                stream.send_data(self.answer.clone(), false).unwrap();
                stream.send_trailers(self.ok.clone()).unwrap();
                answered += 1;
            }
            self.memory.receive(output);
            answered
        }
    }
}

/// The product's own; how many calls were in the read.
fn answer_all(session: &mut Session, input: &[u8], output: &mut Vec<u8>, answer: &Answer<'_>) -> usize {
    session.receive(input);
    let mut answered = 0;
    loop {
        match session.next() {
            Step::Check { call, question } => {
                assert!(question.source().is_some());
                session.answer(call, answer);
                answered += 1;
            }
            Step::Idle => break,
            other => panic!("{other:?}"),
        }
    }
    session.take_output(output);
    answered
}

/// Streams of one connection have 31 bits, and the windows of answers end some time: after so many calls it is a new one.
const CALLS_MAX: usize = 5_000_000;

/// Reads with so many calls each, on connections that `open` makes from what opens them; and what each is answered.
fn session<S>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    open: impl Fn(&[u8]) -> S,
    answer_all: impl Fn(&mut S, &[u8], &mut Vec<u8>) -> usize,
) {
    for count in [1, 16] {
        let connect = || {
            let (envoy, opening) = Envoy::new();
            (open(&opening), envoy, 0)
        };
        let (mut server, mut envoy, mut calls) = connect();
        let (mut input, mut output) = (Vec::new(), Vec::with_capacity(64 << 10));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new(name, count), |b| {
            b.iter(|| {
                if calls > CALLS_MAX {
                    (server, envoy, calls) = connect();
                }
                input.clear();
                output.clear();
                envoy.ask(&mut input, count);
                assert_eq!(answer_all(&mut server, &input, &mut output), count);
                calls += count;
                output.len()
            });
        });
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    let client = [198, 51, 100, 7].into();
    let denial = Denial { client, reason: "dovecot", retry_after: Some(Duration::from_secs(300)) };
    for (name, answer) in [("allowed", Answer::Allowed), ("denied", Answer::Denied(denial))] {
        let open = |opening: &[u8]| {
            let mut session = Session::new();
            answer_all(&mut session, opening, &mut Vec::new(), &answer);
            session
        };
        session(&mut group, name, open, |session, input, output| answer_all(session, input, output, &answer));
    }
    let answer_all = way_not_taken::Server::answer_all;
    session(&mut group, "allowed by h2, the way not taken", way_not_taken::Server::new, answer_all);
    group.finish();

    let mut group = criterion.benchmark_group("question");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    group.throughput(Throughput::Elements(1));
    group.bench_function("source by hand", |b| {
        b.iter(|| Question::decode(black_box(MESSAGE)).unwrap().source().unwrap().len());
    });
    group.bench_function("source by types of it alone", |b| {
        b.iter(|| source_only::CheckRequest::decode(black_box(MESSAGE)).unwrap());
    });
    group.bench_function("the whole by generated types", |b| {
        b.iter(|| CheckRequest::decode(black_box(MESSAGE)).unwrap());
    });
    let question = Question::decode(MESSAGE).unwrap();
    group.bench_function("hops by hand, on demand", |b| {
        b.iter(|| black_box(&question).forwarded_for().from_right().count());
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

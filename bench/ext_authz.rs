//! Envoy's questions, from received bytes to bytes to send: one and sixteen calls per read, allowed and denied, by the
//! product's own HTTP/2 and, the way not taken, by `h2` over memory; and what it takes to read a question, by hand as the
//! product does, by the generated types, and by types of only what is needed.
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

/// The least that `h2` needs to answer the same: it is polled by hand, and reads and writes memory, not a socket.
mod way_not_taken {
    use super::MESSAGE;
    use bytes::Bytes;
    use h2::server::{Builder, Connection};
    use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
    use mailfail2ban::wire::ext_authz::Question;
    use std::cell::RefCell;
    use std::io;
    use std::pin::{Pin, pin};
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    #[derive(Clone, Default)]
    struct Memory(Rc<RefCell<Buffers>>);

    #[derive(Default)]
    struct Buffers {
        input: Vec<u8>,
        taken: usize,
        output: Vec<u8>,
    }

    impl AsyncRead for Memory {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let buffers = &mut *self.0.borrow_mut();
            let unread = &buffers.input[buffers.taken..];
            let count = unread.len().min(into.remaining());
            into.put_slice(&unread[..count]);
            buffers.taken += count;
            if count == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }
    }

    impl AsyncWrite for Memory {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.borrow_mut().output.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    pub struct Server {
        memory: Memory,
        connection: Connection<Memory, Bytes>,
        ok: HeaderMap,
    }

    impl Server {
        /// `greeting` is the preface and what comes with it.
        pub fn new(greeting: &[u8]) -> Server {
            let memory = Memory::default();
            memory.0.borrow_mut().input.extend_from_slice(greeting);
            let mut builder = Builder::new();
            builder.max_concurrent_streams(1024).initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
            let polled = pin!(builder.handshake(memory.clone())).poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Ok(connection)) = polled else { panic!("no greeting") };
            Server {
                memory,
                connection,
                ok: HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]),
            }
        }

        /// One read, and what is written then; how many calls were answered.
        pub fn turn(&mut self, input: &[u8], output: &mut Vec<u8>, answer: &Bytes) -> u32 {
            {
                let buffers = &mut *self.memory.0.borrow_mut();
                let taken = std::mem::take(&mut buffers.taken);
                buffers.input.drain(..taken);
                buffers.input.extend_from_slice(input);
            }
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
                stream.send_data(answer.clone(), false).unwrap();
                stream.send_trailers(self.ok.clone()).unwrap();
                answered += 1;
            }
            output.append(&mut self.memory.0.borrow_mut().output);
            answered
        }
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

/// Who answers.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Server {
    Ours(Session),
    Theirs(way_not_taken::Server),
}

/// A connection whose windows are as wide as they can be.
struct Connection {
    server: Server,
    next_stream: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    message: Vec<u8>,
}

impl Connection {
    fn new(is_ours: bool) -> Connection {
        let mut input = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut input, 4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        frame(&mut input, 8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
        let message = [&[0][..], &(MESSAGE.len() as u32).to_be_bytes(), MESSAGE].concat();
        let server = if is_ours {
            let mut session = Session::new();
            session.receive(&input);
            Server::Ours(session)
        } else {
            Server::Theirs(way_not_taken::Server::new(&input))
        };
        input.clear();
        let mut connection =
            Connection { server, next_stream: 1, input, output: Vec::with_capacity(64 << 10), message };
        connection.turn(1, &Answer::Allowed, &Bytes::new());
        connection
    }

    /// One read with so many calls, and the write that answers it. The way not taken answers with `encoded`.
    fn turn(&mut self, count: u32, answer: &Answer<'_>, encoded: &Bytes) -> usize {
        calls(&mut self.input, &mut self.next_stream, count, &self.message);
        self.output.clear();
        let answered = match &mut self.server {
            Server::Ours(session) => answer_all(session, &self.input, &mut self.output, answer),
            Server::Theirs(server) => server.turn(&self.input, &mut self.output, encoded),
        };
        self.input.clear();
        assert_eq!(answered, count);
        // Streams have 31 bits, and the windows of answers end some time.
        if self.next_stream > 10_000_000 {
            *self = Connection::new(matches!(self.server, Server::Ours(_)));
        }
        self.output.len()
    }
}

fn answer_all(session: &mut Session, input: &[u8], output: &mut Vec<u8>, answer: &Answer<'_>) -> u32 {
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

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    let client = [198, 51, 100, 7].into();
    let denial = Denial { client, reason: "dovecot", retry_after: Some(Duration::from_secs(300)) };
    let allowed = Bytes::from_static(b"\0\0\0\0\x04\x0a\0\x1a\0");
    for (name, is_ours, answer) in [
        ("allowed", true, Answer::Allowed),
        ("denied", true, Answer::Denied(denial)),
        ("allowed by h2, the way not taken", false, Answer::Allowed),
    ] {
        for count in [1, 16] {
            let mut connection = Connection::new(is_ours);
            group.throughput(Throughput::Elements(u64::from(count)));
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| connection.turn(count, &answer, &allowed))
            });
        }
    }
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

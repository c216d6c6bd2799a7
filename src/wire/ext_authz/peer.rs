//! Peers to test with: frames written by hand, and the client of `h2` over memory.

#![cfg(test)]

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response};

use super::memory::Memory;
use super::{Answer, CallId, Handled, Session, Step, Why};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

pub const HTTP: &[u8] = include_bytes!("../../../tests/golden/ext_authz/http.bin");

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// RFC 9113 §4.1
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// RFC 7541 §6.2.2, without Huffman codes: a field that leaves no trace in the table.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, text: &str| {
        match text.len() {
            short @ ..127 => out.push(short as u8),
            mut long => {
                out.push(127);
                long -= 127;
                while long >= 128 {
                    out.push(long as u8 | 128);
                    long >>= 7;
                }
                out.push(long as u8);
            }
        }
        out.extend(text.as_bytes());
    };
    let mut out = vec![0];
    text(&mut out, name);
    text(&mut out, value);
    out
}

pub fn head(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "fail2ban"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

pub fn prefixed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// HEADERS and DATA of one check.
pub fn check(stream: u32, message: &[u8]) -> Vec<u8> {
    let mut out = frame(HEADERS, END_HEADERS, stream, &head(CHECK));
    out.extend(frame(DATA, END_STREAM, stream, &prefixed(message)));
    out
}

/// What begins a connection, with `frames` behind it.
pub fn opening(frames: &[u8]) -> Vec<u8> {
    [PREFACE, SETTINGS, frames].concat()
}

/// The frames of `bytes`: kind, flags, stream, payload.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut found = Vec::new();
    while let [a, b, c, kind, flags, s @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (stream, rest) = s.split_first_chunk::<4>().unwrap();
        found.push((*kind, *flags, u32::from_be_bytes(*stream), rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    found
}

/// What a caller learns, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Check(Option<String>),
    Handled(Handled),
    Closed(Why),
}

/// A caller that answers each check at once, and reads only when it is to.
pub struct Caller {
    pub session: Session,
    pub seen: Vec<Seen>,
    pub out: Vec<u8>,
}

impl Caller {
    pub fn new() -> Caller {
        Caller { session: Session::new(), seen: Vec::new(), out: Vec::new() }
    }

    /// Steps until there is nothing more to do, without sending.
    pub fn step(&mut self, mut answer: impl FnMut(&mut Session, CallId)) {
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 100_000, "no end");
            match self.session.next() {
                Step::Check { call, question } => {
                    self.seen.push(Seen::Check(question.source().map(|s| String::from_utf8_lossy(s).into_owned())));
                    answer(&mut self.session, call);
                }
                Step::Handled(handled) => self.seen.push(Seen::Handled(handled)),
                Step::Closed(why) => self.seen.push(Seen::Closed(why)),
                Step::Idle => return,
            }
        }
    }

    /// Steps and sends until there is nothing more to do.
    pub fn settle(&mut self) {
        loop {
            self.step(|session, call| session.answer(call, &Answer::Allowed));
            let before = self.out.len();
            self.session.take_output(&mut self.out);
            if self.out.len() == before {
                return;
            }
        }
    }

    /// Receives `bytes` in pieces of at most `piece` bytes, and settles after each.
    pub fn read(&mut self, bytes: &[u8], piece: usize) {
        self.settle();
        for bytes in bytes.chunks(piece) {
            if !self.session.wants_input() {
                break;
            }
            self.session.receive(bytes);
            self.settle();
        }
    }

    /// All there is of a connection on which `bytes` come.
    pub fn all(bytes: &[u8], piece: usize) -> Caller {
        let mut caller = Caller::new();
        caller.read(bytes, piece);
        caller.session.receive_end();
        caller.settle();
        caller
    }
}

/// A connection of the client of `h2` to a session.
pub struct Client {
    pub caller: Caller,
    memory: Memory,
    connection: Connection<Memory, Bytes>,
    pub requests: SendRequest<Bytes>,
    /// Whether the connection has ended on the client's side.
    pub has_ended: bool,
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl Client {
    pub fn new() -> Client {
        Client::with(&Builder::new())
    }

    pub fn with(builder: &Builder) -> Client {
        let memory = Memory::default();
        let mut handshake = Box::pin(builder.handshake(memory.clone()));
        let Poll::Ready(Ok((requests, connection))) = poll(&mut handshake) else { panic!("it only writes") };
        let mut client = Client { caller: Caller::new(), memory, connection, requests, has_ended: false };
        client.settle();
        client
    }

    /// Bytes go to and fro until nobody has any.
    pub fn settle(&mut self) {
        loop {
            self.has_ended |= poll(&mut self.connection).is_ready();
            let mut to_server = Vec::new();
            self.memory.receive(&mut to_server);
            self.caller.read(&to_server, usize::MAX);
            self.caller.settle();
            let to_client = std::mem::take(&mut self.caller.out);
            let is_quiet = to_server.is_empty() && to_client.is_empty();
            if is_quiet && (self.has_ended || !self.memory.is_unread()) {
                return;
            }
            self.memory.send(&to_client);
        }
    }

    /// Begins a call; `bytes` are all of its data.
    pub fn begin(&mut self, path: &str, bytes: &[u8]) -> ResponseFuture {
        let request = Request::post(format!("http://fail2ban{path}")).header("content-type", "application/grpc");
        self.send(request.body(()).unwrap(), bytes)
    }

    pub fn send(&mut self, request: Request<()>, bytes: &[u8]) -> ResponseFuture {
        let (response, mut stream) = self.requests.send_request(request, false).unwrap();
        stream.send_data(Bytes::copy_from_slice(bytes), true).unwrap();
        response
    }

    /// A whole call: the head of its answer, its data, its trailers.
    pub fn call(&mut self, path: &str, bytes: &[u8]) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
        let response = self.begin(path, bytes);
        self.finish(response)
    }

    pub fn finish(&mut self, mut response: ResponseFuture) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
        self.settle();
        let Poll::Ready(Ok(response)) = poll(&mut response) else { panic!("no answer") };
        let (head, mut body) = response.into_parts();
        let data = read_data(&mut body);
        let trailers = match body.poll_trailers(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(trailers) => trailers.unwrap(),
            Poll::Pending => panic!("no end"),
        };
        (Response::from_parts(head, ()), data, trailers)
    }

    /// The status of a whole call.
    pub fn status(&mut self, path: &str, bytes: &[u8]) -> String {
        let (head, _, trailers) = self.call(path, bytes);
        let status = trailers.as_ref().unwrap_or(head.headers()).get("grpc-status").unwrap().clone();
        status.to_str().unwrap().to_owned()
    }
}

/// What has come of an answer.
pub fn read_data(body: &mut RecvStream) -> Vec<u8> {
    let mut data = Vec::new();
    while let Poll::Ready(Some(Ok(bytes))) = body.poll_data(&mut Context::from_waker(Waker::noop())) {
        body.flow_control().release_capacity(bytes.len()).unwrap();
        data.extend(bytes);
    }
    data
}

/// The head of an answer that has come.
pub fn head_of(response: &mut ResponseFuture) -> Option<Response<RecvStream>> {
    match poll(response) {
        Poll::Ready(response) => response.ok(),
        Poll::Pending => None,
    }
}

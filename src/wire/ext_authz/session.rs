//! One connection: what it asks, and what it is told.

use std::ops::Range;

use super::super::http2::{Connection, End, Event, Limits, Reason, Request};
use super::answer::Answer;
use super::call::{Call, Head, Incomplete, Method, Wrong};
use super::health::{self, Watcher};
use super::message::{self, Message};
use super::question::{Place, Question};
use super::refusal::Refusal;
use super::reply;
use super::{
    CALL_WINDOW, CALLS_MAX, CONNECTION_WINDOW, FAULTS_MAX, HEADER_LIST_BYTES_MAX, INPUT_BYTES_PER_ROUND,
    OUTPUT_BYTES_MAX,
};

const LIMITS: Limits = Limits {
    streams_max: CALLS_MAX,
    header_list_bytes_max: HEADER_LIST_BYTES_MAX,
    stream_window: CALL_WINDOW,
    connection_window: CONNECTION_WINDOW,
    output_bytes_max: OUTPUT_BYTES_MAX,
    faults_max: FAULTS_MAX,
    kept_bytes: INPUT_BYTES_PER_ROUND,
};

/// The server's side of one connection.
pub struct Session {
    connection: Connection<Head, Call>,
    /// Calls whose message is not whole yet, and what is kept of these.
    incomplete: usize,
    unfinished_bytes: usize,
    /// Checks that were handed out and not answered yet: one, if the caller answers each at once.
    unanswered: usize,
    /// The message that became whole last, if it came in pieces; and a buffer for another one.
    message: Vec<u8>,
    spare: Vec<u8>,
    watchers: Vec<u32>,
    /// How things stand has changed since they were told.
    has_news: bool,
    is_serving: bool,
    is_shutting_down: bool,
    input_has_ended: bool,
}

/// Which check an answer belongs to; good until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(u32);

/// What is to be done next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Judge, and call [`Session::answer`].
    Check { call: CallId, question: Question<'a> },
    /// Something was dealt with, and is only to be counted.
    Handled(Handled),
    /// Nothing: take the output, then receive more.
    Idle,
    /// The connection has ended; said once. There may be output left.
    Closed(Why),
}

/// The same, but for a question: where it is.
enum Done {
    Check { stream: u32, message: Whole, source: Place },
    Handled(Handled),
    Idle,
    Closed(Why),
}

/// A message that is whole, with its prefix.
struct Whole {
    /// Where it is in the input; `None` if it was taken together from pieces.
    in_input: Option<Range<usize>>,
    /// How many bytes have come.
    count: usize,
    is_encoded: bool,
}

/// What was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handled {
    /// `grpc.health.v1.Health/Check`
    HealthCheck,
    /// The same of a service that is not here.
    HealthUnknown,
    /// `grpc.health.v1.Health/Watch`
    HealthWatch,
    /// The call was answered with a fault.
    Refused(Refusal),
    /// The peer gave up a call before its message was whole, or broke HTTP/2 within it.
    Abandoned,
}

impl Handled {
    /// The gRPC status that was answered; `None` if nothing was. A watch is under way, which is OK so far.
    pub fn grpc_status(self) -> Option<u8> {
        match self {
            Handled::HealthCheck | Handled::HealthWatch => Some(0),
            Handled::HealthUnknown => Some(5),
            Handled::Refused(refusal) => Some(refusal.grpc_status()),
            Handled::Abandoned => None,
        }
    }
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The peer went, or said that it would (GOAWAY), or a shutdown is complete.
    Ended,
    /// What came first was not the preface of HTTP/2 (RFC 9113 §3.4): TLS, HTTP/1.1, anything else.
    NotHttp2,
    /// The peer broke HTTP/2.
    Breach,
    /// The peer did what is allowed, but more of it than is good for us (ENHANCE_YOUR_CALM, RFC 9113 §10.5).
    Flood,
}

impl Why {
    /// Every fault of a peer that ends its connection.
    pub const FAULTS: [Why; 3] = [Why::NotHttp2, Why::Breach, Why::Flood];

    /// As a metric's label says it.
    pub fn name(self) -> &'static str {
        match self {
            Why::Ended => "ended",
            Why::NotHttp2 => "not_http2",
            Why::Breach => "http2_breach",
            Why::Flood => "flood",
        }
    }
}

impl Default for Session {
    fn default() -> Session {
        Session::new()
    }
}

impl Session {
    /// A new connection; it serves until it is told otherwise.
    pub fn new() -> Session {
        Session {
            connection: Connection::new(LIMITS),
            incomplete: 0,
            unfinished_bytes: 0,
            unanswered: 0,
            message: Vec::new(),
            spare: Vec::new(),
            watchers: Vec::new(),
            has_news: false,
            is_serving: true,
            is_shutting_down: false,
            input_has_ended: false,
        }
    }

    /// Whether more should be received: not while what was received waits, because the peer does not read what it caused.
    pub fn wants_input(&self) -> bool {
        !self.is_closed() && !self.input_has_ended && self.connection.needs_input()
    }

    /// Takes in bytes that the peer sent. They are copied; nothing bounds them but the caller, who asks
    /// [`Session::wants_input`] first.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.connection.receive(bytes);
    }

    /// The peer has ended its side. What it asked before is still answered.
    pub fn receive_end(&mut self) {
        self.input_has_ended = true;
    }

    /// Says what is to be done next. Call it until [`Step::Idle`]; and again after output was taken, as more of it may
    /// have waited for room.
    #[expect(clippy::should_implement_trait, reason = "it is idle again and again, and no iterator is")]
    pub fn next(&mut self) -> Step<'_> {
        match self.advance() {
            Done::Check { stream, message, source } => match self.message(&message) {
                Ok(message) => Step::Check { call: CallId(stream), question: Question::located(message, source) },
                // It was looked at before.
                Err(refusal) => Step::Handled(Handled::Refused(refusal)),
            },
            Done::Handled(handled) => Step::Handled(handled),
            Done::Idle => Step::Idle,
            Done::Closed(why) => Step::Closed(why),
        }
    }

    /// Answers a check. Nothing happens if it was answered before or its connection has ended; if only the peer gave
    /// the call up, nobody reads the answer.
    pub fn answer(&mut self, call: CallId, answer: &Answer<'_>) {
        let Some(state @ Call::Unanswered) = self.connection.get_mut(call.0) else { return };
        *state = Call::Answered;
        self.unanswered = self.unanswered.saturating_sub(1);
        self.connection.respond(call.0, reply::HEAD, |out| answer.encode(out), reply::OK);
    }

    /// Moves what is to be sent (settings, acknowledgements, answers) to the end of `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        self.connection.take_output(out);
    }

    /// Calls whose message is not complete yet.
    #[cfg(test)]
    pub fn incomplete_calls(&self) -> usize {
        self.incomplete
    }

    /// Whether something is half said: the preface, a frame, a header block, a call's message. The caller gives it a
    /// deadline.
    pub fn is_in_the_middle(&self) -> bool {
        self.connection.is_in_the_middle() || self.incomplete > 0
    }

    /// Says whether this server can answer: health checks are told so, and watchers hear of a change.
    pub fn set_serving(&mut self, is_serving: bool) {
        let is_serving = is_serving && !self.is_shutting_down;
        self.has_news |= is_serving != self.is_serving;
        self.is_serving = is_serving;
    }

    /// No new calls: watchers are told NOT_SERVING and dismissed, then GOAWAY is sent (RFC 9113 §6.8). Calls that the
    /// peer made before it knew are still answered; when it has confirmed and all are, the connection ends. A peer that does
    /// not answer PING does not confirm: the caller has a deadline for that.
    pub fn shut_down(&mut self) {
        self.is_shutting_down = true;
        self.is_serving = false;
        for stream in std::mem::take(&mut self.watchers) {
            self.dismiss(stream);
        }
        self.connection.shut_down();
    }

    /// Nothing more will come: write what [`Session::take_output`] has, and close.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Goes on until something is to be told, or all that was received and may be looked at was dealt with.
    fn advance(&mut self) -> Done {
        self.tell_watchers();
        loop {
            let done = match self.connection.advance() {
                Event::Idle => return self.rest(),
                Event::Request(request) => self.begin(&request),
                Event::Data { stream, bytes, ends } => self.go_on(stream, bytes, ends),
                Event::Ends { stream } => self.complete(stream, 0..0),
                Event::Gone(call) => self.forget(call),
                Event::Writable { stream } => {
                    self.tell(stream);
                    None
                }
                Event::Closed(end) => return self.close(end),
            };
            if let Some(done) = done {
                return done;
            }
        }
    }

    /// Nothing is left to look at: after the end of the input that is the end, once all was answered.
    fn rest(&mut self) -> Done {
        let is_over = self.input_has_ended && self.connection.needs_input() && self.unanswered == 0;
        if is_over && !self.is_closed() {
            match self.connection.close(End::Agreed) {
                Event::Closed(end) => return self.close(end),
                _ => return Done::Idle,
            }
        }
        // A long message must not keep its memory for as long as the connection lives.
        self.message.clear();
        self.message.shrink_to(INPUT_BYTES_PER_ROUND);
        self.spare.shrink_to(INPUT_BYTES_PER_ROUND);
        Done::Idle
    }

    fn close(&mut self, end: End) -> Done {
        (self.incomplete, self.unfinished_bytes, self.unanswered) = (0, 0, 0);
        (self.message, self.spare, self.watchers) = (Vec::new(), Vec::new(), Vec::new());
        Done::Closed(match end {
            End::Agreed => Why::Ended,
            End::NotHttp2 => Why::NotHttp2,
            End::Fault(Reason::EnhanceYourCalm) => Why::Flood,
            End::Fault(_) => Why::Breach,
        })
    }

    fn begin(&mut self, request: &Request<Head>) -> Option<Done> {
        *self.connection.get_mut(request.stream)? = Call::Incomplete(Incomplete::begin(request));
        self.incomplete += 1;
        if request.ends { self.complete(request.stream, 0..0) } else { None }
    }

    fn go_on(&mut self, stream: u32, bytes: Range<usize>, ends: bool) -> Option<Done> {
        if ends {
            return self.complete(stream, bytes);
        }
        if let (Call::Incomplete(call), data) = self.connection.parts(stream, bytes)? {
            call.keep(data, &mut self.unfinished_bytes, &mut self.spare);
        }
        None
    }

    /// The peer gave a call up, or broke HTTP/2 within it.
    fn forget(&mut self, call: Call) -> Option<Done> {
        match call {
            Call::Incomplete(call) => {
                self.incomplete = self.incomplete.saturating_sub(1);
                self.unfinished_bytes = self.unfinished_bytes.saturating_sub(call.front.len());
                Some(Done::Handled(Handled::Abandoned))
            }
            Call::Unanswered => {
                self.unanswered = self.unanswered.saturating_sub(1);
                None
            }
            Call::Watched(watcher) => {
                self.watchers.retain(|stream| *stream != watcher.stream);
                None
            }
            Call::Answered => None,
        }
    }

    /// The input of a call has ended; `last` is the last piece of its message.
    fn complete(&mut self, stream: u32, last: Range<usize>) -> Option<Done> {
        let (call, data) = self.connection.parts(stream, last.clone())?;
        let Call::Incomplete(Incomplete { method, is_encoded, mut front, count, wrong }) = std::mem::take(call) else {
            return None;
        };
        self.incomplete = self.incomplete.saturating_sub(1);
        self.unfinished_bytes = self.unfinished_bytes.saturating_sub(front.len());
        match wrong {
            Some(Wrong::Refused(refusal)) => return Some(self.refuse(stream, refusal)),
            Some(Wrong::HeaderList) => {
                self.connection.respond_briefly(stream, reply::put_header_list_too_long);
                return None;
            }
            None => {}
        }
        let whole =
            Whole { in_input: (count == 0).then_some(last), count: count.saturating_add(data.len()), is_encoded };
        if count > 0 {
            // The last piece adds no more than a frame, and only for a moment.
            if front.len() == count {
                front.extend_from_slice(data);
            }
            self.spare = std::mem::replace(&mut self.message, front);
            self.spare.clear();
        }
        let message = match self.message(&whole) {
            Ok(message) => message,
            Err(refusal) => return Some(self.refuse(stream, refusal)),
        };
        Some(match method {
            Method::Check => match Question::find_source(message) {
                Ok(source) => {
                    *self.connection.get_mut(stream)? = Call::Unanswered;
                    self.unanswered += 1;
                    Done::Check { stream, message: whole, source }
                }
                Err(_) => self.refuse(stream, Refusal::Malformed),
            },
            Method::HealthCheck => match health::is_known(message) {
                Some(true) => {
                    let answer = health::answer(self.is_serving);
                    self.connection.respond(stream, reply::HEAD, |out| out.extend_from_slice(&answer), reply::OK);
                    Done::Handled(Handled::HealthCheck)
                }
                Some(false) => {
                    self.connection.respond_briefly(stream, reply::put_not_found);
                    Done::Handled(Handled::HealthUnknown)
                }
                None => self.refuse(stream, Refusal::Malformed),
            },
            Method::HealthWatch => match health::is_known(message) {
                Some(is_known) => {
                    self.watch(stream, is_known);
                    Done::Handled(Handled::HealthWatch)
                }
                None => self.refuse(stream, Refusal::Malformed),
            },
        })
    }

    fn message(&self, whole: &Whole) -> Result<Message<'_>, Refusal> {
        let front = match &whole.in_input {
            Some(place) => self.connection.bytes(place.clone()),
            None => &self.message,
        };
        message::finish(front, whole.count, whole.is_encoded)
    }

    fn refuse(&mut self, stream: u32, refusal: Refusal) -> Done {
        self.connection.respond_briefly(stream, |out| reply::put_refusal(out, refusal));
        Done::Handled(Handled::Refused(refusal))
    }

    fn watch(&mut self, stream: u32, is_known: bool) {
        let Some(call) = self.connection.get_mut(stream) else { return };
        *call = Call::Watched(Watcher::new(stream, is_known));
        self.connection.begin(stream, reply::HEAD);
        if self.is_shutting_down {
            self.dismiss(stream);
        } else {
            self.watchers.push(stream);
            self.tell(stream);
        }
    }

    /// Tells those who watch, if how it stands is news. As with all else, not while too much waits to be sent.
    fn tell_watchers(&mut self) {
        if self.has_news && self.connection.has_room_for_output() {
            self.has_news = false;
            for at in 0..self.watchers.len() {
                if let Some(stream) = self.watchers.get(at) {
                    self.tell(*stream);
                }
            }
        }
    }

    /// Tells one who watches how it stands, if that is news and its window is open: what it does not take is not kept, and it
    /// is told how it stands then.
    fn tell(&mut self, stream: u32) {
        let is_serving = self.is_serving;
        let Some(Call::Watched(watcher)) = self.connection.get_mut(stream) else { return };
        let Some(news) = watcher.news(is_serving) else { return };
        if self.connection.push(stream, &news)
            && let Some(Call::Watched(watcher)) = self.connection.get_mut(stream)
        {
            watcher.heard(is_serving);
        }
    }

    /// Tells one who watches that it is over. Queued, whether or not the window is open: it is the last.
    fn dismiss(&mut self, stream: u32) {
        let Some(call) = self.connection.get_mut(stream) else { return };
        let Call::Watched(watcher) = std::mem::take(call) else { return };
        let last = watcher.news(false);
        self.connection.finish(stream, |out| out.extend(last.into_iter().flatten()), reply::UNAVAILABLE);
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::{
        self, CHECK, CONTINUATION, Caller, Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, HTTP, RST_STREAM,
        Seen, WINDOW_UPDATE, check, frame, frames, opening, prefixed,
    };
    use super::super::proto::envoy::service::auth::v3::CheckResponse;
    use super::super::proto::envoy::service::auth::v3::check_response::HttpResponse;
    use super::super::{
        Denial, FRONT_BYTES_MAX, FRONT_BYTES_MIN, MESSAGE_BYTES_MAX, OUTPUT_BYTES_MAX, UNFINISHED_BYTES_MAX,
    };
    use super::*;
    use bytes::Bytes;
    use http::header::{CONTENT_TYPE, HeaderMap};
    use http::{HeaderValue, Request, StatusCode};
    use prost::Message as _;
    use std::task::{Context, Poll, Waker};

    const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
    const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
    const NOT_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x02";
    const SERVICE_UNKNOWN: &[u8] = b"\0\0\0\0\x02\x08\x03";

    fn named(service: &str) -> Vec<u8> {
        prefixed(&[&[0x0a, service.len() as u8], service.as_bytes()].concat())
    }

    fn source() -> Seen {
        Seen::Check(Some("198.51.100.7".to_owned()))
    }

    fn refused(refusal: Refusal) -> Seen {
        Seen::Handled(Handled::Refused(refusal))
    }

    /// The reason of the last GOAWAY in `out`.
    fn goaway(out: &[u8]) -> Option<u8> {
        let last = frames(out).into_iter().rfind(|(kind, ..)| *kind == GOAWAY)?;
        last.3.get(7).copied()
    }

    #[test]
    fn a_check_is_answered_as_grpc_wants_it() {
        let mut client = Client::new();
        for _ in 0..3 {
            let (head, data, trailers) = client.call(CHECK, &prefixed(HTTP));
            assert_eq!((head.status(), head.headers().len()), (StatusCode::OK, 1));
            assert_eq!(head.headers().get(CONTENT_TYPE), Some(&HeaderValue::from_static("application/grpc")));
            assert_eq!(data, b"\0\0\0\0\x04\x0a\0\x1a\0");
            let ok = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
            assert_eq!(trailers, Some(ok));
        }
        assert_eq!(client.caller.seen, [source(), source(), source()]);
    }

    #[test]
    fn a_denial_reaches_its_call_and_later_answers_nobody() {
        let mut caller = Caller::new();
        let [first, second] = [1, 3].map(|stream| check(stream, HTTP));
        caller.session.receive(&opening(&[first, second].concat()));
        let mut calls = Vec::new();
        caller.step(|_, call| calls.push(call));
        let client = [192, 0, 2, 7].into();
        let denial = Answer::Denied(Denial { client, reason: "postfix", retry_after: None });
        caller.session.answer(calls[1], &denial);
        caller.session.answer(calls[1], &Answer::Allowed);
        caller.session.answer(calls[0], &Answer::Allowed);
        caller.settle();
        let data: Vec<_> = frames(&caller.out).into_iter().filter(|(kind, ..)| *kind == DATA).collect();
        assert_eq!(data.iter().map(|(_, _, stream, _)| *stream).collect::<Vec<_>>(), [3, 1]);
        let denied = CheckResponse::decode(&data[0].3[5..]).unwrap();
        assert_eq!(denied.status.unwrap().code, 7);
        assert!(matches!(denied.http_response, Some(HttpResponse::DeniedResponse(_))));
        assert_eq!(data[1].3, b"\0\0\0\0\x04\x0a\0\x1a\0");
    }

    #[test]
    fn refusals_have_their_status() {
        let mut client = Client::new();
        let check = prefixed(HTTP);
        for (path, bytes, want) in [
            (CHECK, &b""[..], Refusal::MessageCount),
            (CHECK, &check[..check.len() - 1], Refusal::Truncated),
            (CHECK, &check[..3], Refusal::Truncated),
            (CHECK, &[&check[..], &check].concat(), Refusal::MessageCount),
            (CHECK, b"\0\0\0\0\x01\x0a", Refusal::Malformed),
            (CHECK, b"\x01\0\0\0\0", Refusal::Prefix),
            (CHECK, b"\0\0\x40\0\x01", Refusal::TooLong),
            ("/envoy.service.auth.v3.Authorization/Other", &check, Refusal::UnknownMethod),
            ("/envoy.service.auth.v2.Authorization/Check", &check, Refusal::UnknownMethod),
            ("/", &check, Refusal::UnknownMethod),
            (HEALTH_CHECK, b"\0\0\0\0\x01\x0a", Refusal::Malformed),
            (HEALTH_WATCH, b"\0\0\0\0\x01\x0a", Refusal::Malformed),
        ] {
            assert_eq!(client.status(path, bytes), want.grpc_status().to_string(), "{want:?}");
            assert_eq!(client.caller.seen.pop(), Some(refused(want)));
        }
        // The connection goes on.
        assert_eq!(client.status(CHECK, &check), "0");
        for refusal in Refusal::ALL {
            assert!(refusal.message().bytes().all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'%'));
        }
    }

    #[test]
    fn what_is_no_grpc_is_told_so() {
        let mut client = Client::new();
        let request = |method: &str, content_type: &str| {
            let request = Request::builder().method(method).uri(format!("http://fail2ban{CHECK}"));
            request.header("content-type", content_type).header("grpc-encoding", "gzip").body(()).unwrap()
        };
        for (method, content_type, want) in [
            ("GET", "application/grpc", 405),
            ("POST", "application/json", 415),
            ("POST", "application/grpc+json", 415),
            ("POST", "application/grpc-web", 415),
            ("POST", "application/grpc", 200),
            ("POST", "Application/gRPC+proto", 200),
            ("POST", "application/grpc; charset=utf-8", 200),
        ] {
            let response = client.send(request(method, content_type), &prefixed(HTTP));
            let (head, _, trailers) = client.finish(response);
            assert_eq!((head.status().as_u16(), trailers.is_some()), (want, want == 200), "{method} {content_type}");
        }
        let response = client.send(request("POST", "application/grpc"), b"\x01\0\0\0\0");
        let (head, _, trailers) = client.finish(response);
        assert!(trailers.is_none());
        assert_eq!(head.headers()["grpc-status"], "12");
        assert_eq!(head.headers()["grpc-accept-encoding"], "identity");
    }

    #[test]
    fn a_long_message_comes_through_and_a_longer_one_does_not() {
        let mut client = Client::new();
        for (bytes, want) in [(60_000, "0"), (MESSAGE_BYTES_MAX, "0"), (MESSAGE_BYTES_MAX + 1, "8")] {
            // attributes.request, behind the source.
            let rest = bytes - HTTP.len();
            let mut filler = vec![0x12];
            let length = rest
                - 1
                - if rest < 1 << 14 {
                    2
                } else if rest < 1 << 21 {
                    3
                } else {
                    4
                };
            prost::encoding::encode_varint(length as u64, &mut filler);
            filler.resize(rest, b'x');
            let message = [HTTP, &filler].concat();
            assert_eq!(message.len(), bytes);
            assert_eq!(client.status(CHECK, &prefixed(&message)), want);
        }
        assert_eq!(client.caller.seen, [source(), source(), refused(Refusal::TooLong)]);
        assert_eq!(client.caller.session.unfinished_bytes, 0);
    }

    #[test]
    fn unfinished_messages_are_bounded_together() {
        let mut caller = Caller::new();
        caller.read(&opening(b""), usize::MAX);
        let part = [&prefixed(&vec![0; FRONT_BYTES_MAX])[..5], &[0; 16_379]].concat();
        let mut sent = 0;
        for stream in (1..).step_by(2).take(9) {
            caller.read(&frame(HEADERS, END_HEADERS, stream, &peer::head(CHECK)), usize::MAX);
            for _ in 0..63 {
                if caller.seen.is_empty() {
                    caller.read(&frame(DATA, 0, stream, &part), usize::MAX);
                    sent += part.len();
                    assert!(caller.session.unfinished_bytes <= UNFINISHED_BYTES_MAX + FRONT_BYTES_MIN);
                }
            }
        }
        // Of the ninth only the front is kept, and nothing is refused.
        assert_eq!((caller.seen.len(), caller.session.incomplete_calls()), (0, 9));
        assert!(sent > UNFINISHED_BYTES_MAX);
        assert!(caller.session.unfinished_bytes <= UNFINISHED_BYTES_MAX + FRONT_BYTES_MIN);
        caller.read(&check(19, HTTP), usize::MAX);
        assert_eq!(caller.seen.last(), Some(&source()));
    }

    #[test]
    fn incomplete_calls_are_counted_until_they_end() {
        let mut caller = Caller::new();
        let mut begun = frame(HEADERS, END_HEADERS, 1, &peer::head(CHECK));
        begun.extend(frame(HEADERS, END_HEADERS, 3, &peer::head(CHECK)));
        begun.extend(frame(DATA, 0, 3, &prefixed(HTTP)[..100]));
        caller.read(&opening(&begun), usize::MAX);
        assert_eq!((caller.session.incomplete_calls(), caller.session.unfinished_bytes), (2, 100));
        caller.read(&frame(DATA, END_STREAM, 3, &prefixed(HTTP)[100..]), usize::MAX);
        assert_eq!((caller.session.incomplete_calls(), caller.session.unfinished_bytes), (1, 0));
        caller.read(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), usize::MAX);
        assert_eq!(caller.session.incomplete_calls(), 0);
        assert_eq!(caller.seen, [source(), Seen::Handled(Handled::Abandoned)]);
    }

    #[test]
    fn health_is_told_and_watched() {
        let mut client = Client::new();
        for (service, want) in [("", "0"), ("envoy.service.auth.v3.Authorization", "0"), ("other", "5")] {
            assert_eq!(client.status(HEALTH_CHECK, &named(service)), want);
        }
        assert_eq!(client.status(HEALTH_CHECK, b"\0\0\0\0\0"), "0");
        assert_eq!(client.call(HEALTH_CHECK, &named("")).1, SERVING);
        let mut watches = ["", "other"].map(|service| client.begin(HEALTH_WATCH, &named(service)));
        client.settle();
        let mut bodies = watches.each_mut().map(|watch| peer::head_of(watch).unwrap().into_body());
        let [ours, other] = &mut bodies;
        assert_eq!((peer::read_data(ours), peer::read_data(other)), (SERVING.to_vec(), SERVICE_UNKNOWN.to_vec()));
        for (is_serving, want) in [(false, NOT_SERVING), (false, b""), (true, SERVING), (true, b"")] {
            client.caller.session.set_serving(is_serving);
            client.settle();
            assert_eq!((peer::read_data(ours), peer::read_data(other)), (want.to_vec(), vec![]));
        }
        client.caller.session.set_serving(false);
        assert_eq!(client.call(HEALTH_CHECK, &named("")).1, NOT_SERVING);
        assert_eq!(client.caller.session.watchers.len(), 2);
        drop((bodies, watches));
        client.settle();
        assert_eq!(client.caller.session.watchers.len(), 0, "they are not told who went");
    }

    /// What a watcher does not read is not kept for it; it is told how things stand once it does.
    #[test]
    fn a_watcher_that_does_not_read_costs_nothing() {
        let mut client = Client::with(h2::client::Builder::new().initial_window_size(7));
        let mut watch = client.begin(HEALTH_WATCH, &named(""));
        client.settle();
        for at in 0..1001 {
            client.caller.session.set_serving(at % 2 == 1);
            client.settle();
        }
        let mut body = peer::head_of(&mut watch).unwrap().into_body();
        assert_eq!(peer::read_data(&mut body), SERVING);
        client.settle();
        assert_eq!(peer::read_data(&mut body), NOT_SERVING);
        client.settle();
        assert_eq!(peer::read_data(&mut body), b"");
    }

    #[test]
    fn a_shutdown_ends_watches_and_answers_what_was_asked() {
        let mut client = Client::new();
        let mut watch = client.begin(HEALTH_WATCH, &named(""));
        let (unfinished, mut stream) = {
            let request = Request::post(format!("http://fail2ban{CHECK}")).header("content-type", "application/grpc");
            client.requests.send_request(request.body(()).unwrap(), false).unwrap()
        };
        client.settle();
        let mut body = peer::head_of(&mut watch).unwrap().into_body();
        assert_eq!(peer::read_data(&mut body), SERVING);
        client.caller.session.shut_down();
        client.caller.session.shut_down();
        client.settle();
        assert_eq!(peer::read_data(&mut body), NOT_SERVING);
        assert!(
            body.is_end_stream()
                || matches!(
                    body.poll_trailers(&mut Context::from_waker(Waker::noop())),
                    Poll::Ready(Ok(Some(trailers))) if trailers["grpc-status"] == "14"
                )
        );
        assert!(!client.caller.session.is_closed());
        stream.send_data(Bytes::from(prefixed(HTTP)), true).unwrap();
        let (_, data, _) = client.finish(unfinished);
        assert_eq!(data, b"\0\0\0\0\x04\x0a\0\x1a\0");
        drop((body, watch));
        client.settle();
        assert!(client.caller.session.is_closed() && client.has_ended);
        assert_eq!(client.caller.seen.last(), Some(&Seen::Closed(Why::Ended)));
    }

    #[test]
    fn a_shutdown_before_the_greeting_still_greets() {
        let mut client_bytes = Caller::new();
        client_bytes.session.shut_down();
        client_bytes.read(&opening(&check(1, HTTP)), usize::MAX);
        assert_eq!(goaway(&client_bytes.out), Some(0));
        assert_eq!(client_bytes.seen, [source()], "asked before it knew");
    }

    #[test]
    fn what_was_asked_before_the_end_is_answered() {
        let mut caller = Caller::new();
        caller.session.receive(&opening(&check(1, HTTP)));
        caller.session.receive_end();
        assert!(!caller.session.wants_input());
        let mut late = None;
        caller.step(|_, call| late = Some(call));
        assert!(!caller.session.is_closed(), "the answer is waited for");
        caller.session.answer(late.unwrap(), &Answer::Allowed);
        caller.settle();
        assert!(frames(&caller.out).iter().any(|(kind, ..)| *kind == DATA));
        assert_eq!(caller.seen, [source(), Seen::Closed(Why::Ended)]);
        assert!(!caller.session.wants_input());
        caller.session.receive(b"more");
        caller.settle();
        assert_eq!(caller.seen.len(), 2);
    }

    #[test]
    fn other_protocols_are_told_apart() {
        for bytes in [
            &b"GET /auth HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS hello",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r ",
            b"\0",
        ] {
            let caller = Caller::all(bytes, usize::MAX);
            assert_eq!(caller.seen, [Seen::Closed(Why::NotHttp2)], "{}", bytes.escape_ascii());
        }
        assert_eq!(Caller::all(b"", 1).seen, [Seen::Closed(Why::Ended)]);
        assert_eq!(Caller::all(b"PRI * HT", 1).seen, [Seen::Closed(Why::Ended)]);
        // The preface is right, and what follows is not SETTINGS (RFC 9113 §3.4), or longer than a frame may be.
        assert_eq!(
            Caller::all(&[peer::PREFACE, b"\xff\xff\xff\x04\0\0\0\0\0"].concat(), 99).seen,
            [Seen::Closed(Why::Breach)]
        );
    }

    #[test]
    fn the_limits_are_announced() {
        let caller = Caller::all(&opening(b""), usize::MAX);
        let (_, _, _, settings) = frames(&caller.out).into_iter().find(|(kind, ..)| *kind == 4).unwrap();
        let settings: Vec<(u16, u32)> = settings
            .chunks(6)
            .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes(pair[2..].try_into().unwrap())))
            .collect();
        for limit in [(3, CALLS_MAX), (4, CALL_WINDOW), (6, HEADER_LIST_BYTES_MAX)] {
            assert!(settings.contains(&limit), "{limit:?} in {settings:?}");
        }
    }

    #[test]
    fn more_calls_than_announced_are_refused() {
        let mut caller = Caller::new();
        let begin = |stream: u32| frame(HEADERS, END_HEADERS, stream, &peer::head(CHECK));
        let begun: Vec<u8> = (1..).step_by(2).take(CALLS_MAX as usize + 1).flat_map(begin).collect();
        caller.read(&opening(&begun), 50_000);
        assert_eq!(caller.session.incomplete_calls(), CALLS_MAX as usize);
        let resets: Vec<_> = frames(&caller.out).into_iter().filter(|(kind, ..)| *kind == RST_STREAM).collect();
        assert_eq!(resets, [(RST_STREAM, 0, 2 * CALLS_MAX + 1, vec![0, 0, 0, 7])]);
        // Those who insist are sent away.
        let more: Vec<u8> = (2 * CALLS_MAX + 3..).step_by(2).take(2000).flat_map(begin).collect();
        caller.read(&more, 50_000);
        assert_eq!(caller.seen, [Seen::Closed(Why::Flood)]);
        assert_eq!(goaway(&caller.out), Some(11));
    }

    /// Headers that a client of Envoy inflates as far as Envoy lets it do not make the question fail.
    #[test]
    fn long_header_lists_come_through_and_longer_ones_get_431() {
        let mut client = Client::new();
        for (bytes, want) in [(60 << 10, 200), (120 << 10, 200), (140 << 10, 431)] {
            let request = Request::post(format!("http://fail2ban{CHECK}")).header("content-type", "application/grpc");
            let request = request.header("tracestate", "x".repeat(bytes)).body(()).unwrap();
            let response = client.send(request, &prefixed(HTTP));
            client.settle();
            let mut response = response;
            assert_eq!(peer::head_of(&mut response).unwrap().status().as_u16(), want);
        }
    }

    #[test]
    fn floods_end_the_connection() {
        let open = frame(HEADERS, END_HEADERS, 1, &peer::head(CHECK));
        let continuation = frame(CONTINUATION, 0, 1, &peer::field("a", "b"));
        let floods: [(&str, Vec<u8>); 4] = [
            // VU#421644
            ("CONTINUATION", [frame(HEADERS, 0, 1, &peer::head(CHECK)), continuation.repeat(10_000)].concat()),
            ("empty CONTINUATION", [frame(HEADERS, 0, 1, b""), frame(CONTINUATION, 0, 1, b"").repeat(10_000)].concat()),
            ("empty DATA", [open.clone(), frame(DATA, 0, 1, b"").repeat(10_000)].concat()),
            ("padded DATA", [open, frame(DATA, 8, 1, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]).repeat(10_000)].concat()),
        ];
        for (name, flood) in floods {
            for piece in [4096, usize::MAX] {
                let mut caller = Caller::new();
                caller.read(&opening(&flood), piece);
                assert_eq!(caller.seen.last(), Some(&Seen::Closed(Why::Flood)), "{name}");
                assert_eq!((caller.session.incomplete_calls(), caller.session.unfinished_bytes), (0, 0));
            }
        }
    }

    /// CVE-2023-44487. Clients of Envoy that come and go have it reset calls by the thousand: that must not end the
    /// connection on which others are asked about.
    #[test]
    fn calls_may_be_given_up_at_any_rate() {
        let reset = |stream: u32| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        // As short as a call can be: after the first, each field is one byte, the number of an entry in HPACK's table
        // (RFC 7541 §6.1).
        let short = |stream: u32| [frame(HEADERS, END_HEADERS, stream, &[0x83, 0x86, 0x84]), reset(stream)].concat();
        let usual = |stream: u32| [check(stream, HTTP), reset(stream)].concat();
        let begun = |stream: u32| [frame(HEADERS, END_HEADERS, stream, &peer::head(CHECK)), reset(stream)].concat();
        for kind in [&short as &dyn Fn(u32) -> Vec<u8>, &usual, &begun] {
            for piece in [4096, usize::MAX] {
                let resets: Vec<u8> = (1..).step_by(2).take(20_000).flat_map(kind).collect();
                let mut caller = Caller::new();
                caller.read(&opening(&resets), piece);
                assert_eq!((caller.session.incomplete_calls(), caller.session.unfinished_bytes), (0, 0));
                assert_eq!(goaway(&caller.out), None);
                caller.seen.clear();
                caller.read(&check(40_001, HTTP), usize::MAX);
                assert_eq!(caller.seen, [source()]);
            }
        }
    }

    /// A peer that asks for answers and does not read them stops itself.
    #[test]
    fn what_is_not_read_stops_what_is_taken_in() {
        let ping = frame(6, 0, 0, &[7; 8]);
        for (name, flood) in [("PING", ping.repeat(1000)), ("SETTINGS", peer::SETTINGS.repeat(1000))] {
            let mut caller = Caller::new();
            caller.session.receive(&opening(b""));
            caller.step(|_, _| {});
            let mut received = 0;
            while caller.session.wants_input() {
                caller.session.receive(&flood);
                received += flood.len();
                caller.step(|_, _| {});
                assert!(received < 1 << 20, "{name} has no end");
            }
            let mut out = Vec::new();
            caller.session.take_output(&mut out);
            assert!((OUTPUT_BYTES_MAX - 9..=OUTPUT_BYTES_MAX).contains(&out.len()), "{name}: {}", out.len());
            // Once it reads, it goes on: everything is answered.
            caller.out.extend(out);
            caller.settle();
            assert!(caller.session.wants_input());
            let answers =
                frames(&caller.out).iter().filter(|(kind, flags, ..)| matches!(kind, 4 | 6) && flags & 1 == 1).count();
            let asked = received / if name == "PING" { ping.len() } else { 9 } + 1;
            assert_eq!(answers, asked, "{name}");
        }
    }

    #[test]
    fn keep_alive_is_answered() {
        let mut caller = Caller::new();
        caller.read(&opening(&frame(6, 0, 0, b"12345678")), usize::MAX);
        assert!(frames(&caller.out).contains(&(6, 1, 0, b"12345678".to_vec())));
    }

    /// A peer that never opens its window: answers wait, as many as there may be calls, and then it is refused.
    #[test]
    fn answers_that_cannot_be_sent_are_bounded() {
        let mut caller = Caller::new();
        let closed = [peer::PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
        caller.read(&closed, usize::MAX);
        for stream in (1..).step_by(2).take(CALLS_MAX as usize + 10) {
            caller.read(&check(stream, HTTP), usize::MAX);
        }
        assert_eq!(caller.seen.len(), CALLS_MAX as usize);
        let all = frames(&caller.out);
        let refused = all.iter().filter(|(kind, _, _, reason)| *kind == RST_STREAM && *reason == [0, 0, 0, 7]).count();
        assert_eq!(refused, 10);
        // Byte by byte is a way too.
        let out = caller.out.len();
        caller.read(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).repeat(9), usize::MAX);
        let opened = frames(&caller.out[out..]);
        let data: Vec<u8> =
            opened.iter().filter(|(kind, ..)| *kind == DATA).flat_map(|(.., data)| data.clone()).collect();
        assert_eq!(data, b"\0\0\0\0\x04\x0a\0\x1a\0");
        // More window than there can be (RFC 9113 §6.9.1) ends the connection.
        caller.read(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), usize::MAX);
        assert_eq!(caller.seen.last(), Some(&Seen::Closed(Why::Breach)));
    }

    #[test]
    fn breaches_end_the_connection() {
        for (name, bytes) in [
            ("an even stream", check(2, HTTP)),
            ("DATA on no stream", frame(DATA, 0, 1, b"x")),
            ("a WINDOW_UPDATE of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
            ("a PING of seven bytes", frame(6, 0, 0, &[0; 7])),
            ("a header block that is none", frame(HEADERS, END_HEADERS, 1, &[0xff; 20])),
            ("a CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, b"")),
        ] {
            let caller = Caller::all(&opening(&bytes), usize::MAX);
            assert_eq!(caller.seen, [Seen::Closed(Why::Breach)], "{name}");
            assert!(goaway(&caller.out).is_some_and(|reason| reason != 0), "{name}");
        }
    }
}

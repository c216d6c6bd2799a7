//! One call: what is asked of which method, until its message is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::request;

use super::message::{self, Message};
use super::refusal::Refusal;
use super::{FRONT_BYTES_MAX, FRONT_BYTES_MIN, UNFINISHED_BYTES_MAX};

/// What a call's path can be: `/package.Service/Method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Check,
    HealthCheck,
    HealthWatch,
}

impl Method {
    fn of(path: &str) -> Option<Method> {
        match path {
            "/envoy.service.auth.v3.Authorization/Check" => Some(Method::Check),
            "/grpc.health.v1.Health/Check" => Some(Method::HealthCheck),
            "/grpc.health.v1.Health/Watch" => Some(Method::HealthWatch),
            _ => None,
        }
    }
}

pub struct Call {
    pub method: Method,
    pub respond: SendResponse<Bytes>,
    body: RecvStream,
    is_encoded: bool,
    /// The front of what has come of the message, unless it came whole.
    front: Vec<u8>,
    /// How many bytes of it count as unfinished.
    kept: usize,
    /// How many bytes have come.
    count: usize,
    /// Why it is refused, once its input has ended: an early answer would have the rest come too late.
    refusal: Option<Refusal>,
    bell: Bell,
}

/// Why there will be no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Refused(Refusal),
    /// The peer gave up, or broke HTTP/2 within this call.
    Abandoned,
}

impl Call {
    /// Looks at the head of a call: method, path and content type.
    pub fn begin(head: &request::Parts, body: RecvStream, respond: SendResponse<Bytes>) -> Call {
        let method = match Method::of(head.uri.path()) {
            _ if head.method != http::Method::POST => Err(Refusal::NotPost),
            _ if !is_grpc(&head.headers) => Err(Refusal::ContentType),
            None => Err(Refusal::UnknownMethod),
            Some(method) => Ok(method),
        };
        let is_encoded = head.headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity");
        Call {
            // Of a call that is refused it does not matter.
            method: method.unwrap_or(Method::Check),
            respond,
            body,
            is_encoded,
            front: Vec::new(),
            kept: 0,
            count: 0,
            refusal: method.err(),
            bell: Bell::default(),
        }
    }

    /// Takes in what has come of the message; `Ready` when it is whole and the peer has ended its side of the call, or
    /// when there will be none. Once it was `Pending`, [`Call::has_news`] says when it is worth to ask again.
    ///
    /// `unfinished_bytes` counts what all calls of the connection keep.
    pub fn poll(&mut self, unfinished_bytes: &mut usize) -> Poll<Result<Message, Failure>> {
        // Nearly always all of it is there when the call is first looked at, and no bell has to be made.
        let bell = self.bell.clone();
        let mut polled = self.receive(bell.waker(), unfinished_bytes);
        if polled.is_pending() && self.bell.hang() {
            let bell = self.bell.clone();
            polled = self.receive(bell.waker(), unfinished_bytes);
        }
        if polled.is_ready() {
            self.let_go(unfinished_bytes);
        }
        polled
    }

    /// Whether something of this call has come since it was asked for.
    pub fn has_news(&self) -> bool {
        self.bell.take()
    }

    fn let_go(&mut self, unfinished_bytes: &mut usize) {
        *unfinished_bytes = unfinished_bytes.saturating_sub(std::mem::take(&mut self.kept));
        self.front = Vec::new();
    }

    fn receive(&mut self, waker: &Waker, unfinished_bytes: &mut usize) -> Poll<Result<Message, Failure>> {
        loop {
            let data = match ready!(self.body.poll_data(&mut Context::from_waker(waker))) {
                Some(Ok(data)) => data,
                Some(Err(_)) => return Poll::Ready(Err(Failure::Abandoned)),
                None => return Poll::Ready(self.finish(Bytes::new())),
            };
            // What is kept from here on counts as unfinished. It cannot fail: no more is released than was received.
            let _ = self.body.flow_control().release_capacity(data.len());
            if self.body.is_end_stream() {
                return Poll::Ready(self.finish(data));
            }
            self.keep(&data, unfinished_bytes);
        }
    }

    /// Takes in a piece that is not the last: its front, if there is room for it.
    fn keep(&mut self, data: &[u8], unfinished_bytes: &mut usize) {
        self.count = self.count.saturating_add(data.len());
        if self.refusal.is_some() {
            return;
        }
        // Once something was left out, nothing behind it is kept.
        if self.front.len() + data.len() == self.count {
            let room = UNFINISHED_BYTES_MAX.saturating_sub(*unfinished_bytes);
            let room = room.min(FRONT_BYTES_MAX.saturating_sub(self.front.len()));
            let room = room.max(FRONT_BYTES_MIN.saturating_sub(self.front.len()));
            let kept = data.get(..room).unwrap_or(data);
            // Copied, as a small piece would keep all of what was read with it.
            self.front.extend_from_slice(kept);
            self.kept += kept.len();
            *unfinished_bytes += kept.len();
        }
        if let Err(refusal) = message::is_complete(&self.front, self.count, self.is_encoded) {
            self.refusal = Some(refusal);
            self.let_go(unfinished_bytes);
        }
    }

    fn finish(&mut self, last: Bytes) -> Result<Message, Failure> {
        if let Some(refusal) = self.refusal {
            return Err(Failure::Refused(refusal));
        }
        // The last piece adds no more than a frame, and only for a moment.
        let front = match (self.count, self.front.len() == self.count) {
            (0, _) => last.clone(),
            (_, true) => Bytes::from([self.front.as_slice(), &last].concat()),
            (_, false) => Bytes::from(std::mem::take(&mut self.front)),
        };
        message::finish(front, self.count.saturating_add(last.len()), self.is_encoded).map_err(Failure::Refused)
    }
}

/// `application/grpc`, alone or with `+proto` or parameters behind it (PROTOCOL-HTTP2.md, Content-Type). Messages in other
/// formats, as `+json`, could not be read.
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let media_type = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(b"application/grpc") || media_type.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// Notes that `h2` has news of one call: with a thousand of them open, not all are asked whenever some bytes arrive.
#[derive(Clone, Default)]
pub struct Bell(Option<(Waker, Arc<Rung>)>);

struct Rung(AtomicBool);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Bell {
    /// Makes the bell if there was none; true if so.
    pub fn hang(&mut self) -> bool {
        if self.0.is_some() {
            return false;
        }
        let rung = Arc::new(Rung(AtomicBool::new(false)));
        self.0 = Some((Waker::from(Arc::clone(&rung)), rung));
        true
    }

    /// What is to be rung; nothing happens at all where no bell was made.
    pub fn waker(&self) -> &Waker {
        self.0.as_ref().map_or(Waker::noop(), |(waker, _)| waker)
    }

    /// Whether it was rung since the last time.
    pub fn take(&self) -> bool {
        self.0.as_ref().is_some_and(|(_, rung)| rung.0.load(Ordering::Relaxed) && rung.0.swap(false, Ordering::Relaxed))
    }
}

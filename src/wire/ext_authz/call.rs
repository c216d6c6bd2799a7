//! One call: what is asked of which method, until its message is whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::request;

use super::UNFINISHED_BYTES_MAX;
use super::message;
use super::refusal::Refusal;

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
    /// What has come of the message, unless it came whole.
    received: Vec<u8>,
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
    ///
    /// # Errors
    ///
    /// Gives back what a refusal is to be sent with.
    pub fn begin(
        head: &request::Parts,
        body: RecvStream,
        respond: SendResponse<Bytes>,
    ) -> Result<Call, (Refusal, SendResponse<Bytes>)> {
        let method = match Method::of(head.uri.path()) {
            _ if head.method != http::Method::POST => Err(Refusal::NotPost),
            _ if !is_grpc(&head.headers) => Err(Refusal::ContentType),
            None => Err(Refusal::UnknownMethod),
            Some(method) => Ok(method),
        };
        match method {
            Ok(method) => {
                let is_encoded = head.headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity");
                Ok(Call { method, respond, body, is_encoded, received: Vec::new(), bell: Bell::default() })
            }
            Err(refusal) => Err((refusal, respond)),
        }
    }

    /// Takes in what has come of the message; `Ready` when it is whole and the peer has ended its side of the call, or
    /// when there will be none. Once it was `Pending`, [`Call::has_news`] says when it is worth to ask again.
    ///
    /// `unfinished_bytes` counts what all calls of the connection hold.
    pub fn poll(&mut self, unfinished_bytes: &mut usize) -> Poll<Result<Bytes, Failure>> {
        // Nearly always all of it is there when the call is first looked at, and no bell has to be made.
        let bell = self.bell.clone();
        let mut polled = self.receive(bell.waker(), unfinished_bytes);
        if polled.is_pending() && self.bell.hang() {
            let bell = self.bell.clone();
            polled = self.receive(bell.waker(), unfinished_bytes);
        }
        if polled.is_ready() {
            *unfinished_bytes = unfinished_bytes.saturating_sub(self.received.len());
            self.received = Vec::new();
        }
        polled
    }

    /// Whether something of this call has come since it was asked for.
    pub fn has_news(&self) -> bool {
        self.bell.take()
    }

    fn receive(&mut self, waker: &Waker, unfinished_bytes: &mut usize) -> Poll<Result<Bytes, Failure>> {
        loop {
            let data = match ready!(self.body.poll_data(&mut Context::from_waker(waker))) {
                Some(Ok(data)) => data,
                Some(Err(_)) => return Poll::Ready(Err(Failure::Abandoned)),
                None => return Poll::Ready(self.finish(Bytes::new())),
            };
            // What is held from here on counts as unfinished. It cannot fail: no more is released than was received.
            let _ = self.body.flow_control().release_capacity(data.len());
            if self.body.is_end_stream() {
                return Poll::Ready(self.finish(data));
            }
            // Copied, as a small piece would keep all of what was read with it.
            if data.len() > UNFINISHED_BYTES_MAX.saturating_sub(*unfinished_bytes) {
                return Poll::Ready(Err(Failure::Refused(Refusal::Crowded)));
            }
            *unfinished_bytes += data.len();
            self.received.extend_from_slice(&data);
            if let Err(refusal) = message::is_complete(&self.received, self.is_encoded) {
                return Poll::Ready(Err(Failure::Refused(refusal)));
            }
        }
    }

    fn finish(&self, last: Bytes) -> Result<Bytes, Failure> {
        // The last piece adds no more than a frame, and only for a moment.
        let received = match self.received.is_empty() {
            true => last,
            false => Bytes::from([self.received.as_slice(), &last].concat()),
        };
        message::finish(received, self.is_encoded).map_err(Failure::Refused)
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

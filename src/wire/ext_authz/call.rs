//! One call: what is asked of which method, until its message is whole; and what is kept of it then.

use super::super::http2;
use super::health::Watcher;
use super::message;
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
    /// Whatever follows a `?` is not the path's.
    fn of(path: &[u8]) -> Option<Method> {
        match path.split(|&byte| byte == b'?').next().unwrap_or_default() {
            b"/envoy.service.auth.v3.Authorization/Check" => Some(Method::Check),
            b"/grpc.health.v1.Health/Check" => Some(Method::HealthCheck),
            b"/grpc.health.v1.Health/Watch" => Some(Method::HealthWatch),
            _ => None,
        }
    }
}

/// What matters of a call's head. Of fields that come several times the first counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    is_post: bool,
    method: Option<Method>,
    is_grpc: Option<bool>,
    /// Whether it names a compression (`grpc-encoding`) other than none.
    is_encoded: Option<bool>,
}

impl http2::Head for Head {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":method" => self.is_post = value == b"POST",
            b":path" => self.method = Method::of(value),
            b"content-type" if self.is_grpc.is_none() => self.is_grpc = Some(is_grpc(value)),
            b"grpc-encoding" if self.is_encoded.is_none() => self.is_encoded = Some(value != b"identity"),
            _ => {}
        }
    }
}

/// `application/grpc`, alone or with `+proto` or parameters behind it (PROTOCOL-HTTP2.md, Content-Type). Messages in other
/// formats, as `+json`, could not be read.
fn is_grpc(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(b"application/grpc") || media_type.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// What is kept for a call.
#[derive(Debug, Default)]
pub enum Call {
    /// Its message is not whole yet.
    Incomplete(Incomplete),
    /// A check that was handed out.
    Unanswered,
    Watched(Watcher),
    /// All is said, but perhaps not sent.
    #[default]
    Answered,
}

/// A call whose message is not whole yet.
#[derive(Debug)]
pub struct Incomplete {
    pub method: Method,
    pub is_encoded: bool,
    /// The front of what has come of the message, unless it came whole. All of it counts as unfinished.
    pub front: Vec<u8>,
    /// How many bytes have come.
    pub count: usize,
    /// Why it will be turned down, once its input has ended: an early answer would have the rest come too late.
    pub wrong: Option<Wrong>,
}

/// Why a call gets no answer to what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A list of header fields that is longer than announced: HTTP status 431.
    HeaderList,
    Refused(Refusal),
}

impl Incomplete {
    /// Looks at the head of a call: method, path and content type.
    pub fn begin(request: &http2::Request<Head>) -> Incomplete {
        let head = request.head;
        let wrong = match head.method {
            _ if request.is_too_long => Some(Wrong::HeaderList),
            _ if !head.is_post => Some(Wrong::Refused(Refusal::NotPost)),
            _ if head.is_grpc != Some(true) => Some(Wrong::Refused(Refusal::ContentType)),
            None => Some(Wrong::Refused(Refusal::UnknownMethod)),
            Some(_) => None,
        };
        Incomplete {
            // Of a call that is refused it does not matter.
            method: head.method.unwrap_or(Method::Check),
            is_encoded: head.is_encoded == Some(true),
            front: Vec::new(),
            count: 0,
            wrong,
        }
    }

    /// Takes in a piece that is not the last: its front, if there is room for it. `unfinished_bytes` counts what all calls of
    /// the connection keep; `spare` is a buffer for whoever has none yet.
    pub fn keep(&mut self, data: &[u8], unfinished_bytes: &mut usize, spare: &mut Vec<u8>) {
        self.count = self.count.saturating_add(data.len());
        if self.wrong.is_some() {
            return;
        }
        if self.front.capacity() == 0 {
            self.front = std::mem::take(spare);
        }
        // Once something was left out, nothing behind it is kept.
        if self.front.len() + data.len() == self.count {
            let room = UNFINISHED_BYTES_MAX.saturating_sub(*unfinished_bytes);
            let room = room.min(FRONT_BYTES_MAX.saturating_sub(self.front.len()));
            let room = room.max(FRONT_BYTES_MIN.saturating_sub(self.front.len()));
            let kept = data.get(..room).unwrap_or(data);
            self.front.extend_from_slice(kept);
            *unfinished_bytes += kept.len();
        }
        if let Err(refusal) = message::is_complete(&self.front, self.count, self.is_encoded) {
            self.wrong = Some(Wrong::Refused(refusal));
            *unfinished_bytes = unfinished_bytes.saturating_sub(self.front.len());
            self.front = Vec::new();
        }
    }
}

//! gRPC's health service (grpc `doc/health-checking.md`): is it serving, now (Check) and from now on (Watch).

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use super::call::Bell;
use super::message::{self, Message};
use super::proto::grpc::health::v1::health_check_response::ServingStatus;
use super::proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};

/// The services whose health is known: the server as a whole, and the one it is there for.
const SERVICES: [&str; 2] = ["", "envoy.service.auth.v3.Authorization"];

/// The bytes of an answer: each has one field, of one byte.
const ANSWER_BYTES: usize = 7;

/// Whether the asked service is known here. `None` if the message is none.
pub fn is_known(request: &Message) -> Option<bool> {
    if request.is_cut {
        return None;
    }
    let request: HealthCheckRequest = prost::Message::decode(&*request.bytes).ok()?;
    Some(SERVICES.contains(&request.service.as_str()))
}

/// An answer behind its prefix.
pub fn answer(is_serving: bool) -> Bytes {
    encode(status(is_serving, true))
}

fn status(is_serving: bool, is_known: bool) -> ServingStatus {
    match (is_known, is_serving) {
        (false, _) => ServingStatus::ServiceUnknown,
        (true, true) => ServingStatus::Serving,
        (true, false) => ServingStatus::NotServing,
    }
}

fn encode(status: ServingStatus) -> Bytes {
    message::encode(&HealthCheckResponse { status: status.into() })
}

/// Somebody who wants to be told of every change.
pub struct Watcher {
    stream: SendStream<Bytes>,
    is_known: bool,
    told: Option<ServingStatus>,
    bell: Bell,
}

impl Watcher {
    pub fn new(stream: SendStream<Bytes>, is_known: bool) -> Watcher {
        let mut bell = Bell::default();
        bell.hang();
        Watcher { stream, is_known, told: None, bell }
    }

    /// Whether the peer has opened its window, or has gone.
    pub fn has_news(&self) -> bool {
        self.bell.take()
    }

    /// Tells how it stands, if that is news and the peer's window is open: what it does not take is not kept, and it
    /// is told how it stands then. False if the watcher has gone.
    pub fn tell(&mut self, is_serving: bool) -> bool {
        let status = status(is_serving, self.is_known);
        let cx = &mut Context::from_waker(self.bell.waker());
        if self.stream.poll_reset(cx).is_ready() {
            return false;
        }
        if self.told == Some(status) {
            return true;
        }
        self.stream.reserve_capacity(ANSWER_BYTES);
        while self.stream.capacity() < ANSWER_BYTES {
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return false,
                Poll::Pending => return true,
            }
        }
        self.told = Some(status);
        self.stream.send_data(encode(status), false).is_ok()
    }

    /// Tells that it is over, and ends the stream with `trailers`.
    pub fn dismiss(mut self, trailers: HeaderMap) {
        let last = status(false, self.is_known);
        if self.told != Some(last) {
            // Queued, whether or not the window is open: it is the last.
            let _ = self.stream.send_data(encode(last), false);
        }
        let _ = self.stream.send_trailers(trailers);
    }
}

//! gRPC's health service (grpc `doc/health-checking.md`): is it serving, now (Check) and from now on (Watch).

use super::message::Message;
use super::proto::grpc::health::v1::HealthCheckRequest;
use super::proto::grpc::health::v1::health_check_response::ServingStatus;

/// The services whose health is known: the server as a whole, and the one it is there for.
const SERVICES: [&str; 2] = ["", "envoy.service.auth.v3.Authorization"];

/// Whether the asked service is known here. `None` if the message is none.
pub fn is_known(request: Message<'_>) -> Option<bool> {
    if request.is_cut {
        return None;
    }
    let request: HealthCheckRequest = prost::Message::decode(request.bytes).ok()?;
    Some(SERVICES.contains(&request.service.as_str()))
}

/// An answer behind its prefix.
pub fn answer(is_serving: bool) -> [u8; 7] {
    encode(status(is_serving, true))
}

fn status(is_serving: bool, is_known: bool) -> ServingStatus {
    match (is_known, is_serving) {
        (false, _) => ServingStatus::ServiceUnknown,
        (true, true) => ServingStatus::Serving,
        (true, false) => ServingStatus::NotServing,
    }
}

/// A `HealthCheckResponse`: field 1, a number.
fn encode(status: ServingStatus) -> [u8; 7] {
    [0, 0, 0, 0, 2, 0x08, status as u8]
}

/// Somebody who wants to be told of every change.
#[derive(Debug)]
pub struct Watcher {
    pub stream: u32,
    is_known: bool,
    told: Option<ServingStatus>,
}

impl Watcher {
    pub fn new(stream: u32, is_known: bool) -> Watcher {
        Watcher { stream, is_known, told: None }
    }

    /// What to tell, if how it stands is news.
    pub fn news(&self, is_serving: bool) -> Option<[u8; 7]> {
        let status = status(is_serving, self.is_known);
        (self.told != Some(status)).then(|| encode(status))
    }

    /// It was told.
    pub fn heard(&mut self, is_serving: bool) {
        self.told = Some(status(is_serving, self.is_known));
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::grpc::health::v1::HealthCheckResponse;
    use super::*;

    #[test]
    fn answers_are_what_upstream_encodes() {
        for status in [ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::ServiceUnknown] {
            let message = prost::Message::encode_to_vec(&HealthCheckResponse { status: status.into() });
            assert_eq!(encode(status), *[&[0, 0, 0, 0, 2][..], &message].concat());
        }
    }

    #[test]
    fn news_are_told_once() {
        let mut watcher = Watcher::new(1, true);
        assert!(watcher.news(true).is_some());
        watcher.heard(true);
        assert_eq!(watcher.news(true), None);
        assert_eq!(watcher.news(false), Some(answer(false)));
        let mut stranger = Watcher::new(3, false);
        stranger.heard(true);
        assert_eq!(stranger.news(false), None);
    }
}

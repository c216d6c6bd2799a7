//! Answers to a check, as gRPC messages.

use bytes::Bytes;

use super::super::denial::{Denial, push_ip, push_number};
use super::message;
use super::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use super::proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use super::proto::envoy::service::auth::v3::check_response::HttpResponse;
use super::proto::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse};
use super::proto::envoy::r#type::v3::{HttpStatus, StatusCode};
use super::proto::google::rpc;

/// PERMISSION_DENIED among gRPC's status codes.
const PERMISSION_DENIED: u8 = 7;

/// What is answered to a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The client may come in.
    Allowed,
    /// Status PERMISSION_DENIED, with a 403 for the HTTP filter to send; the network filter closes its connection.
    Denied(Denial<'a>),
}

impl Answer<'_> {
    /// The gRPC status of the verdict. That of the call is OK with either.
    pub fn grpc_status(&self) -> u8 {
        match self {
            Answer::Allowed => 0,
            Answer::Denied(_) => PERMISSION_DENIED,
        }
    }

    /// A `CheckResponse` behind its prefix.
    pub(super) fn encode(&self) -> Bytes {
        match self {
            // `status {}`, whose code is 0 if it is absent, and `ok_response {}`.
            Answer::Allowed => Bytes::from_static(b"\0\0\0\0\x04\x0a\0\x1a\0"),
            Answer::Denied(denial) => message::encode(&denied(denial)),
        }
    }
}

fn denied(denial: &Denial<'_>) -> CheckResponse {
    let mut headers = Vec::with_capacity(5);
    headers.push(header("content-type", "application/json".to_owned()));
    headers.push(header("x-fail2ban-status", "denied".to_owned()));
    headers.push(header("x-fail2ban-ip", text(|out| push_ip(out, denial.client))));
    if !denial.short_reason().is_empty() {
        headers.push(header("x-fail2ban-reason", text(|out| denial.push_visible_reason(out))));
    }
    if let Some(seconds) = denial.retry_after_seconds() {
        headers.push(header("retry-after", text(|out| push_number(out, seconds))));
    }
    CheckResponse {
        status: Some(rpc::Status { code: PERMISSION_DENIED.into(), message: "denied".to_owned() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: StatusCode::Forbidden.into() }),
            headers,
            body: text(|out| denial.push_json(out)),
        })),
    }
}

/// A header field of the 403. It replaces one of the same name: Envoy has set a content type of its own before.
fn header(name: &'static str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value, raw_value: Bytes::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

/// What the functions of a denial write is ASCII, or text that was text before.
fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::with_capacity(128);
    write(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::proto::envoy::service::auth::v3::OkHttpResponse;
    use super::*;
    use prost::Message as _;
    use std::time::Duration;

    fn encoded(answer: Answer<'_>) -> Vec<u8> {
        let encoded = answer.encode();
        let (prefix, message) = encoded.split_at(5);
        assert_eq!(prefix, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
        message.to_vec()
    }

    fn denial<'a>(client: &str, reason: &'a str, retry_after: Option<Duration>) -> Answer<'a> {
        Answer::Denied(Denial { client: client.parse().unwrap(), reason, retry_after })
    }

    #[test]
    fn answers_are_what_upstream_encodes() {
        let allowed = CheckResponse {
            status: Some(rpc::Status::default()),
            http_response: Some(HttpResponse::OkResponse(OkHttpResponse {})),
        };
        assert_eq!(encoded(Answer::Allowed), allowed.encode_to_vec());
        assert_eq!(encoded(Answer::Allowed), include_bytes!("../../../tests/golden/ext_authz/answer-allowed.bin"));
        assert_eq!(
            encoded(denial("198.51.100.7", "dovecot", Some(Duration::from_millis(299_001)))),
            include_bytes!("../../../tests/golden/ext_authz/answer-denied.bin")
        );
        assert_eq!(
            encoded(denial("2001:db8::17", "blacklist", None)),
            include_bytes!("../../../tests/golden/ext_authz/answer-denied-for-good.bin")
        );
    }

    #[test]
    fn a_reason_cannot_leave_its_place() {
        let response = CheckResponse::decode(&encoded(denial("::1", " a\r\nb: \"\u{20ac}\" ", None))[..]).unwrap();
        let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else { panic!("it is denied") };
        let reason = denied
            .headers
            .iter()
            .filter_map(|option| option.header.as_ref())
            .find(|header| header.key == "x-fail2ban-reason");
        assert_eq!(reason.unwrap().value, "a??b: \"?\"");
        assert_eq!(
            denied.body,
            "{\"status\":\"denied\",\"ip\":\"::1\",\"reason\":\"a\\u000d\\u000ab: \\\"\u{20ac}\\\"\",\"retry_after\":null}"
        );
        let nothing = CheckResponse::decode(&encoded(denial("::1", " ", None))[..]).unwrap();
        let Some(HttpResponse::DeniedResponse(denied)) = nothing.http_response else { panic!("it is denied") };
        assert_eq!(denied.headers.len(), 3);
    }

    /// So that answers which cannot be sent are bounded by the number of calls.
    #[test]
    fn the_longest_answer_is_short() {
        let reason = "\u{1}".repeat(300).replacen('\u{1}', "x", 1) + "x";
        let answer = encoded(denial("2001:db8:1:1:1:1:1:1", &reason, Some(Duration::MAX)));
        assert!(answer.len() < 2500, "{}", answer.len());
    }
}

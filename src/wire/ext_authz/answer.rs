//! Answers to a check, as gRPC messages.

use super::super::denial::{Denial, push_ip, push_number};
use super::message;
use super::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use super::proto::envoy::r#type::v3::StatusCode;

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

    /// Appends a `CheckResponse` behind its prefix. Written by hand, field by field as they are numbered: the generated types
    /// would have each text allocated first.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            // `status {}`, whose code is 0 if it is absent, and `ok_response {}`.
            Answer::Allowed => out.extend_from_slice(b"\0\0\0\0\x04\x0a\0\x1a\0"),
            Answer::Denied(denial) => message::encode(out, |out| push_denied(out, denial)),
        }
    }
}

fn push_denied(out: &mut Vec<u8>, denial: &Denial<'_>) {
    // status: code, message
    push_part(out, 1, |out| {
        push_small_number(out, 1, PERMISSION_DENIED);
        push_part(out, 2, |out| out.extend_from_slice(b"denied"));
    });
    // denied_response: status, headers, body
    push_part(out, 2, |out| {
        push_part(out, 1, |out| push_enum(out, 1, StatusCode::Forbidden as u16));
        push_field(out, "content-type", |out| out.extend_from_slice(b"application/json"));
        push_field(out, "x-fail2ban-status", |out| out.extend_from_slice(b"denied"));
        push_field(out, "x-fail2ban-ip", |out| push_ip(out, denial.client));
        if !denial.short_reason().is_empty() {
            push_field(out, "x-fail2ban-reason", |out| denial.push_visible_reason(out));
        }
        if let Some(seconds) = denial.retry_after_seconds() {
            push_field(out, "retry-after", |out| push_number(out, seconds));
        }
        push_part(out, 3, |out| denial.push_json(out));
    });
}

/// A `HeaderValueOption` (header: key, value; append_action) of the 403. It replaces one of the same name: Envoy has set a
/// content type of its own before.
fn push_field(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    push_part(out, 2, |out| {
        push_part(out, 1, |out| {
            push_part(out, 1, |out| out.extend_from_slice(name.as_bytes()));
            push_part(out, 2, value);
        });
        push_small_number(out, 3, HeaderAppendAction::OverwriteIfExistsOrAdd as u8);
    });
}

/// A field that is text or a message (<https://protobuf.dev/programming-guides/encoding/>), whose length is known when it has
/// been written: then it moves to make room. Parts here are below 2.5 KiB, and so are all of them together.
fn push_part(out: &mut Vec<u8>, number: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(number << 3 | 2);
    let begun = out.len();
    out.push(0);
    write(out);
    let length = out.len().saturating_sub(begun + 1);
    let (low, high) = (length as u8 & 0x7f, (length >> 7) as u8);
    if high > 0 {
        out.insert(begun + 1, high);
    }
    if let Some(place) = out.get_mut(begun) {
        *place = if high > 0 { low | 0x80 } else { low };
    }
}

/// A number below 128.
fn push_small_number(out: &mut Vec<u8>, number: u8, value: u8) {
    out.extend_from_slice(&[number << 3, value]);
}

/// A number below 16,384 that is above that.
fn push_enum(out: &mut Vec<u8>, number: u8, value: u16) {
    out.extend_from_slice(&[number << 3, value as u8 | 0x80, (value >> 7) as u8]);
}

#[cfg(test)]
mod tests {
    use super::super::proto::envoy::service::auth::v3::check_response::HttpResponse;
    use super::super::proto::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};
    use super::super::proto::google::rpc;
    use super::*;
    use prost::Message as _;
    use std::time::Duration;

    fn encoded(answer: Answer<'_>) -> Vec<u8> {
        let mut encoded = Vec::new();
        answer.encode(&mut encoded);
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

//! The header blocks of answers (grpc `doc/PROTOCOL-HTTP2.md`, Responses). Those of nearly all are constants.

use super::super::http2::{STATUS_200, put_field, put_status};
use super::refusal::Refusal;

/// In front of a message: `:status: 200`, which is a number (RFC 7541 §6.1), and `content-type`, whose name is one, without
/// a trace in the peer's table (§6.2.2).
pub const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";

/// Behind it, `grpc-status`: OK, or of watches that this side ends UNAVAILABLE (14).
pub const OK: &[u8] = b"\0\x0bgrpc-status\x010";
pub const UNAVAILABLE: &[u8] = b"\0\x0bgrpc-status\x0214";

const CONTENT_TYPE: (&str, &str) = ("content-type", "application/grpc");

/// All there is of an answer without a message (Trailers-Only): NOT_FOUND.
pub fn put_not_found(out: &mut Vec<u8>) {
    out.push(STATUS_200);
    put_field(out, CONTENT_TYPE.0, CONTENT_TYPE.1);
    put_field(out, "grpc-status", "5");
}

/// The same of a call that is refused.
pub fn put_refusal(out: &mut Vec<u8>, refusal: Refusal) {
    match refusal.http_status() {
        200 => out.push(STATUS_200),
        status => put_status(out, &status.to_string()),
    }
    put_field(out, CONTENT_TYPE.0, CONTENT_TYPE.1);
    put_field(out, "grpc-status", &refusal.grpc_status().to_string());
    put_field(out, "grpc-message", refusal.message());
    match refusal {
        // RFC 9110 §15.5.6
        Refusal::NotPost => put_field(out, "allow", "POST"),
        Refusal::Compressed => put_field(out, "grpc-accept-encoding", "identity"),
        _ => {}
    }
}

/// RFC 6585 §5
pub fn put_header_list_too_long(out: &mut Vec<u8>) {
    put_status(out, "431");
}

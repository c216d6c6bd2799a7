//! Why a call is not answered but refused. The connection and its other calls go on.

/// Why a call was refused, and with which status: of gRPC where it gets as far as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not POST: HTTP status 405.
    NotPost,
    /// The content type is not gRPC's with protobuf messages: HTTP status 415.
    ContentType,
    /// No such service, or no such method of it: UNIMPLEMENTED.
    UnknownMethod,
    /// The message is compressed, and compression was not offered: UNIMPLEMENTED, with what is accepted.
    Compressed,
    /// The message's prefix says that it is compressed, but nothing says how; or it says something else: INTERNAL.
    Prefix,
    /// Not exactly one message, as all methods here want: UNIMPLEMENTED.
    MessageCount,
    /// The call's input ended in the middle of a message: INTERNAL.
    Truncated,
    /// The message is not what the method wants: INTERNAL.
    Malformed,
    /// The message is longer than [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX): RESOURCE_EXHAUSTED.
    TooLong,
}

impl Refusal {
    /// Every refusal, for counters and tests.
    pub const ALL: [Refusal; 9] = [
        Refusal::NotPost,
        Refusal::ContentType,
        Refusal::UnknownMethod,
        Refusal::Compressed,
        Refusal::Prefix,
        Refusal::MessageCount,
        Refusal::Truncated,
        Refusal::Malformed,
        Refusal::TooLong,
    ];

    /// As a metric's label says it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NotPost => "not_post",
            Refusal::ContentType => "content_type",
            Refusal::UnknownMethod => "unknown_method",
            Refusal::Compressed => "compressed",
            Refusal::Prefix => "prefix",
            Refusal::MessageCount => "message_count",
            Refusal::Truncated => "truncated",
            Refusal::Malformed => "malformed",
            Refusal::TooLong => "too_long",
        }
    }

    /// The HTTP status of the answer; 200 if it is a gRPC answer.
    pub fn http_status(self) -> u16 {
        match self {
            Refusal::NotPost => 405,
            Refusal::ContentType => 415,
            _ => 200,
        }
    }

    /// The gRPC status, as gRPC's own table of generated codes has it (grpc `doc/statuscodes.md`). With an HTTP status
    /// other than 200 it is what a client makes of that (`doc/http-grpc-status-mapping.md`).
    pub fn grpc_status(self) -> u8 {
        match self {
            Refusal::NotPost | Refusal::ContentType => 2,
            Refusal::UnknownMethod | Refusal::Compressed | Refusal::MessageCount => 12,
            Refusal::Prefix | Refusal::Truncated | Refusal::Malformed => 13,
            Refusal::TooLong => 8,
        }
    }

    /// What was wrong, for whoever reads the answer or the log. Plain ASCII without `%`, which gRPC uses for escapes.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::NotPost => "calls are made with POST",
            Refusal::ContentType => "only application/grpc is spoken here",
            Refusal::UnknownMethod => "no such service or method",
            Refusal::Compressed => "compressed messages are not read",
            Refusal::Prefix => "the prefix of the message is wrong",
            Refusal::MessageCount => "exactly one message is wanted",
            Refusal::Truncated => "the message is incomplete",
            Refusal::Malformed => "the message cannot be decoded",
            Refusal::TooLong => "the message is too long",
        }
    }
}

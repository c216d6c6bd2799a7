//! Why a request is not answered but refused, and its connection closed.

/// Why a request was refused. The connection closes after the answer: where the next request begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The request line is not `method SP target SP version` (RFC 9112 §3). TLS and the PROXY protocol end here.
    RequestLine,
    /// A CR or LF by itself, or a NUL, somewhere in the head (RFC 9112 §2.2, RFC 9110 §5.5).
    LineEnd,
    /// More than [`EMPTY_LINES_MAX`](super::EMPTY_LINES_MAX) empty lines before a request line.
    EmptyLines,
    /// A header line is not `name: value`: no colon, a blank before it (RFC 9112 §5.1), a folded line (§5.2).
    Header,
    /// `Host` more than once (RFC 9112 §3.2).
    Host,
    /// `Content-Length` is not a number, or not the same everywhere (RFC 9112 §6.3).
    ContentLength,
    /// `Transfer-Encoding` beside `Content-Length`, in HTTP/1.0, or not ending in one `chunked` (RFC 9112 §6.1, §6.3).
    TransferEncoding,
    /// A transfer coding other than `chunked` (RFC 9112 §6.1).
    TransferCoding,
    /// The request line alone is longer than [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX) (RFC 9112 §3).
    TargetTooLong,
    /// The head is longer than [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX) (RFC 6585 §5).
    HeadTooLong,
    /// A major version other than 1; HTTP/2 with prior knowledge ends here.
    Version,
    /// For the caller, who has the clock: the rest of a head did not arrive in time (RFC 9110 §15.5.9). A connection
    /// on which no byte of a request is waiting is closed without an answer.
    Timeout,
}

impl Refusal {
    /// Every refusal, for counters and tests.
    pub const ALL: [Refusal; 12] = [
        Refusal::RequestLine,
        Refusal::LineEnd,
        Refusal::EmptyLines,
        Refusal::Header,
        Refusal::Host,
        Refusal::ContentLength,
        Refusal::TransferEncoding,
        Refusal::TransferCoding,
        Refusal::TargetTooLong,
        Refusal::HeadTooLong,
        Refusal::Version,
        Refusal::Timeout,
    ];

    /// The status code of the answer.
    pub fn status(self) -> u16 {
        match self {
            Refusal::RequestLine
            | Refusal::LineEnd
            | Refusal::EmptyLines
            | Refusal::Header
            | Refusal::Host
            | Refusal::ContentLength
            | Refusal::TransferEncoding => 400,
            Refusal::Timeout => 408,
            Refusal::TargetTooLong => 414,
            Refusal::HeadTooLong => 431,
            Refusal::TransferCoding => 501,
            Refusal::Version => 505,
        }
    }

    /// What was wrong, for whoever reads the answer or the log. Plain ASCII without quotes.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::RequestLine => "the request line is malformed",
            Refusal::LineEnd => "lines must end in CR LF and hold no CR, LF or NUL",
            Refusal::EmptyLines => "too many empty lines before the request",
            Refusal::Header => "a header line is malformed",
            Refusal::Host => "more than one Host",
            Refusal::ContentLength => "Content-Length is not one number",
            Refusal::TransferEncoding => "Transfer-Encoding is ambiguous",
            Refusal::TransferCoding => "transfer coding not known",
            Refusal::TargetTooLong => "the request target is too long",
            Refusal::HeadTooLong => "the request head is too long",
            Refusal::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Refusal::Timeout => "the request did not arrive in time",
        }
    }
}

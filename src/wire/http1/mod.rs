//! HTTP/1.x for the question port: nginx asks `/auth`, health checkers ask `/health` and `/ready`.
//!
//! Pure: bytes in, values and bytes out. A connection has one [`Session`]; the caller reads into a buffer, calls
//! [`Session::next`] until it wants more bytes, and appends answers with the functions of [`answer`]:
//!
//! ```
//! use mailfail2ban::wire::http1::{Session, Step, Target, answer};
//!
//! let mut session = Session::new();
//! let mut unread: &[u8] = b"GET /auth HTTP/1.1\r\nHost: auth\r\nX-Real-IP: 192.0.2.7\r\n\r\n";
//! let mut out = Vec::new();
//! loop {
//!     match session.next(unread) {
//!         Step::Incomplete => break, // read more; or close, if the last answer said so
//!         Step::Skip { consumed } => unread = &unread[consumed..],
//!         Step::Request { request, consumed } => {
//!             match request.target {
//!                 Target::Auth => answer::allowed(&mut out, "192.0.2.7".parse().unwrap(), request.delivery()),
//!                 _ => answer::not_found(&mut out, request.delivery()),
//!             }
//!             unread = &unread[consumed..];
//!         }
//!         Step::Refuse { refusal, delivery, consumed } => {
//!             answer::refusal(&mut out, refusal, delivery);
//!             unread = &unread[consumed..];
//!         }
//!     }
//! }
//! assert_eq!(
//!     out,
//!     b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Fail2ban-Status: allowed\r\nX-Fail2ban-IP: 192.0.2.7\r\n\r\n"
//! );
//! ```
//!
//! # What is refused, and why so little
//!
//! nginx passes all of its client's header fields along with the question, and many operators let the client in when
//! the question fails. So whatever a client can make us refuse *through nginx* is a way around its own ban. Hence:
//!
//! - What makes the framing ambiguous is refused (RFC 9112 §6.3, §11.2): a proxy never sends it, whatever its client
//!   sent. So are bytes that RFC 9110 §5.5 calls dangerous in a field (CR, LF, NUL): nginx refuses them itself.
//! - Other control bytes in a field value are let through (§5.5 allows it): nginx passes them along.
//! - The number of fields is not limited by itself, and [`HEAD_BYTES_MAX`] is more than nginx passes along.
//! - A missing `Host` is tolerated, although RFC 9112 §3.2 wants 400: nothing here depends on it, and hand-written
//!   health checks leave it out. Two of them are refused.
//! - A line ends in CRLF. RFC 9112 §2.2 lets a recipient take a bare LF too; reading line ends differently from the
//!   proxy in front is how requests are smuggled, and no proxy sends it.
//!
//! # Bodies
//!
//! A question needs none. A declared body (`Content-Length`) is skipped up to [`BODY_BYTES_MAX`], so that the
//! connection can stay. The answer is still given, but the connection closes after it, when
//!
//! - the body is longer, or chunked: closing costs a connection, a chunk parser costs attack surface;
//! - the client waits for `100 Continue` (RFC 9110 §10.1.1): after a final answer it may send the body or not, and
//!   there is no telling which;
//! - the method is GET or HEAD, where a body means nothing (RFC 9110 §9.3.1). nginx asks with GET and, unless told
//!   otherwise, with its client's `Content-Length`, but *without* the body. Waiting for it would swallow the start of
//!   the next client's question.
//!
//! Nothing that follows a request that closes is looked at: the session skips it, so a caller may go on reading for a
//! moment after its answer, and a TCP reset does not overtake the answer (RFC 9112 §9.6).

pub mod answer;
mod refusal;
mod request;
mod session;

#[cfg(test)]
mod captures;
#[cfg(test)]
mod properties;

pub use answer::Delivery;
pub use refusal::Refusal;
pub use request::{Field, ForwardedFor, FromRight, Method, Request, Target};
pub use session::{Session, Step};

/// Longest request head in bytes, from the request line to the empty line. Longer: [`Refusal::HeadTooLong`].
///
/// With nginx's defaults a client's head has at most 33 KiB (`client_header_buffer_size` 1k and
/// `large_client_header_buffers` 4 8k). nginx writes it out again, which makes the shortest line (`a:` and LF) grow
/// from three bytes to five: 55 KiB at worst, and some room for the fields that the operator adds.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Longest declared body in bytes that is skipped to keep the connection; at one that is longer, it closes.
pub const BODY_BYTES_MAX: u64 = 1024 * 1024;

/// Empty lines tolerated before a request line. RFC 9112 §2.2 asks for one at least: old clients end a body with it.
pub const EMPTY_LINES_MAX: u8 = 4;

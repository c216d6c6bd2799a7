//! Envoy's external authorization: gRPC (`envoy.service.auth.v3.Authorization/Check`) over cleartext HTTP/2 with prior
//! knowledge, and the health service (`grpc.health.v1`) beside it.
//!
//! Pure: bytes in, values and bytes out. A connection has one [`Session`]. Its caller goes round in a circle: steps
//! until [`Step::Idle`], then output, and more input only once there was no output left and [`Session::wants_input`]:
//!
//! ```
//! use mailfail2ban::wire::ext_authz::{Answer, Session, Step};
//!
//! // What the peer would send.
//! let mut reads = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"\0\0\0\x04\0\0\0\0\0"].into_iter();
//! let mut session = Session::new();
//! let mut out = Vec::new();
//! loop {
//!     loop {
//!         match session.next() {
//!             // Judge `question.source()`, or whom `question.forwarded_for()` names.
//!             Step::Check { call, question: _ } => session.answer(call, &Answer::Allowed),
//!             Step::Handled(_) | Step::Closed(_) => {} // to be counted
//!             Step::Idle => break,
//!         }
//!     }
//!     let before = out.len();
//!     session.take_output(&mut out);
//!     if out.len() > before {
//!         continue; // write it, then go on
//!     }
//!     if session.is_closed() {
//!         break;
//!     }
//!     match reads.next() {
//!         Some(bytes) if session.wants_input() => session.receive(bytes),
//!         _ => session.receive_end(),
//!     }
//! }
//! // SETTINGS of ours, and the acknowledgement of the peer's (RFC 9113 §6.5).
//! assert!(out.ends_with(b"\0\0\0\x04\x01\0\0\0\0"));
//! ```
//!
//! # What is refused, and why so little
//!
//! Envoy puts its client's header fields into the question, and many operators let the client in when the question fails.
//! So whatever a client can make us refuse *through Envoy* is a way around its own ban. Hence:
//!
//! - The limits of messages and header lists are well above what Envoy passes along by default, and of a long message the
//!   front is enough.
//! - A call is refused when its input has ended, not before: what comes after an early answer is a fault in HTTP/2's eyes,
//!   and enough of those would cost the connection.
//! - Of a message only the way to the source's address is read; the header fields in it may hold what they want. A general
//!   decoder refuses text that is not UTF-8, but C++ writes such text, and older Envoys did.
//! - What breaks HTTP/2 (RFC 9113) costs the connection, what breaks gRPC costs the call: Envoy does neither.
//!
//! # HTTP/2
//!
//! It is spoken by `wire::http2`, which knows nothing of gRPC. Nothing here or there depends on time, and a call allocates
//! nothing once buffers are as large as they get: its head is read once and known again, its message is read where it
//! arrived, and its answer is written straight to the output, between header blocks that are constants.
//!
//! # Floods
//!
//! The peer should be a proxy of ours, but anybody who reaches the port can connect. The bounds below hold for one
//! connection; what they do not bound by number they bound by order: no frame is taken in while what others caused is still to
//! be sent ([`OUTPUT_BYTES_MAX`]), and what one causes is dealt with before the next is looked at.
//!
//! Calls that are reset before they are looked at ("rapid reset", CVE-2023-44487) are no fault, at any rate. Envoy resets a
//! call whenever its own client leaves early, so clients that come and go by the hundred would have Envoy's connection
//! closed, all that is under way on it fail, and the banned among them be let in. What makes resets an attack elsewhere is
//! memory and work that outlive the call. Here a call that was reset has left neither, and cost no more than one that is
//! answered.

mod answer;
mod call;
mod health;
mod message;
pub mod proto;
mod question;
mod refusal;
mod reply;
mod session;

#[cfg(test)]
#[path = "../../../tests/harness/memory.rs"]
mod memory;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod properties;

use super::http2::PAYLOAD_BYTES_MAX;

pub use super::denial::Denial;
pub use answer::Answer;
pub use question::{ForwardedFor, Malformed, Question};
pub use refusal::Refusal;
pub use session::{CallId, Handled, Session, Step, Why};

/// Longest message in bytes, which is also gRPC's usual limit. A longer one is answered with RESOURCE_EXHAUSTED (8), when
/// all of it has come.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes at the front of a message that are kept; the rest is counted and let go. Envoy writes whom it asks about first,
/// then the header fields, of which its clients have 60 KiB by default (`max_request_headers_kb`), and a body last
/// (`with_request_body`). So a client cannot make its question fail by a long body.
pub const FRONT_BYTES_MAX: usize = 1 << 20;

/// Most bytes of unfinished messages that are kept on one connection. When there are so many, of each further message only
/// [`FRONT_BYTES_MIN`] is kept: whom it asks about, but perhaps not all header fields.
///
/// Envoy sends messages one after the other, as fast as its window lets it: few are ever under way, and most are whole when
/// they are first seen. Buffers grow by doubling, so that twice as much may be allocated.
pub const UNFINISHED_BYTES_MAX: usize = 8 << 20;

/// Bytes at the front of every message that are kept, however many there are.
pub const FRONT_BYTES_MIN: usize = 4 << 10;

/// Most calls under way on one connection, announced (RFC 9113 §5.1.2). Those beyond are refused with REFUSED_STREAM.
///
/// Answers that cannot be sent, because the peer opens no window, count too: each is below 2.5 KiB.
pub const CALLS_MAX: u32 = 1024;

/// Longest list of HTTP/2 header fields of a call, announced (RFC 9113 §6.5.2: 32 bytes are added to each field). A
/// call with a longer one gets status 431.
///
/// Envoy sends few fields of its own, but tracing passes its client's `tracestate` or `baggage` along, and a client may
/// send 60 KiB of those. More CONTINUATION frames than twice as long a list would fill close the connection as a flood.
pub const HEADER_LIST_BYTES_MAX: u32 = 128 << 10;

/// Bytes that wait to be sent. While there are that many, nothing more is taken in: a peer that asks without reading
/// (PING, SETTINGS) stops itself. Only answers to checks that were handed out before go beyond.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Bytes of input that are taken in at a time at most: a frame (RFC 9113 §4.2), when all of it is there. What it brings is
/// dealt with before the next, so what a frame of nine bytes costs in memory is bounded, whatever the caller reads at a time.
/// For as many bytes, buffers keep their memory when a burst is over.
pub const INPUT_BYTES_PER_ROUND: usize = 16 << 10;

/// How many bytes of one call's message may come without being asked for (RFC 9113 §6.9): nearly always a whole one.
const CALL_WINDOW: u32 = FRONT_BYTES_MAX as u32;

/// How many bytes of all calls may come without being asked for: they are in the kernel, or counted as unfinished.
const CONNECTION_WINDOW: u32 = UNFINISHED_BYTES_MAX as u32;

/// Frames that broke HTTP/2 within a call, and calls beyond [`CALLS_MAX`], during a connection's life. More: it is closed
/// with ENHANCE_YOUR_CALM. Envoy makes none: it keeps to what is announced, and a call is only answered when its input has
/// ended, so that nothing of it can come too late.
const FAULTS_MAX: usize = 1024;

const _: () = assert!(FRONT_BYTES_MAX < MESSAGE_BYTES_MAX && FRONT_BYTES_MAX < UNFINISHED_BYTES_MAX);
const _: () = assert!(FRONT_BYTES_MIN * (CALLS_MAX as usize) <= UNFINISHED_BYTES_MAX);
const _: () = assert!(INPUT_BYTES_PER_ROUND == PAYLOAD_BYTES_MAX && INPUT_BYTES_PER_ROUND <= OUTPUT_BYTES_MAX);

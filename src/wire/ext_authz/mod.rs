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
//! - The limits of messages and header lists are well above what Envoy passes along by default.
//! - Of a message only the way to the source's address is read; the header fields in it may hold what they want. A general
//!   decoder refuses text that is not UTF-8, but C++ writes such text, and older Envoys did.
//! - What breaks HTTP/2 (RFC 9113) costs the connection, what breaks gRPC costs the call: Envoy does neither.
//!
//! # HTTP/2
//!
//! The `h2` crate speaks it, over memory: this room polls it by hand, and it never sees a socket or a runtime. It keeps
//! resets in mind for a second by a clock of its own; nothing else here depends on time.
//!
//! # Floods
//!
//! The peer should be a proxy of ours, but anybody who reaches the port can connect. The bounds below hold for one
//! connection; what they do not bound by number they bound by order: nothing is taken in while what it caused is still to be
//! sent ([`OUTPUT_BYTES_MAX`]), and what was taken in is dealt with before the next few KiB are
//! ([`INPUT_BYTES_PER_ROUND`]).

mod answer;
mod call;
mod health;
mod message;
mod pipe;
pub mod proto;
mod question;
mod refusal;
mod session;

#[cfg(test)]
mod peer;
#[cfg(test)]
mod properties;

pub use super::denial::Denial;
pub use answer::Answer;
pub use question::{ForwardedFor, Malformed, Question};
pub use refusal::Refusal;
pub use session::{CallId, Handled, Session, Step, Why};

/// Longest message in bytes. A call that announces a longer one is answered with RESOURCE_EXHAUSTED (8) at once.
///
/// Envoy's clients have 60 KiB of header fields by default (`max_request_headers_kb`), which the message may hold twice (as
/// `headers` and in `path`); operators who raise that, or pass bodies along (`with_request_body`), stay below 1 MiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Most bytes of unfinished messages on one connection. The call that wants more is answered with RESOURCE_EXHAUSTED (8).
///
/// Envoy sends messages one after the other, as fast as its window lets it: few are ever under way, and most are whole when
/// they are first seen. Buffers grow by doubling, so that twice as much may be allocated.
pub const UNFINISHED_BYTES_MAX: usize = 8 << 20;

/// Most calls under way on one connection, announced (RFC 9113 §5.1.2). Those beyond are refused with REFUSED_STREAM.
///
/// Answers that cannot be sent, because the peer opens no window, count too: each is below 2.5 KiB.
pub const CALLS_MAX: u32 = 1024;

/// Longest list of HTTP/2 header fields of a call, announced (RFC 9113 §6.5.2: 32 bytes are added to each field). A
/// call with a longer one gets status 431.
///
/// Envoy sends few fields of its own, but tracing passes its client's `tracestate` or `baggage` along, and a client may
/// send 60 KiB of those. `h2` derives from this how many CONTINUATION frames may follow each other, and closes at more.
pub const HEADER_LIST_BYTES_MAX: u32 = 128 << 10;

/// Bytes that wait to be sent. While there are that many, nothing more is taken in: a peer that asks without reading
/// (PING, SETTINGS) stops itself. `h2` holds about 16 KiB more before it notices.
pub const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Bytes given to HTTP/2 at a time; what they bring is dealt with before there are more. So what a frame of nine
/// bytes costs in memory is bounded, whatever the caller reads at a time.
pub const INPUT_BYTES_PER_ROUND: usize = 16 << 10;

/// How many bytes of one call's message may come without being asked for (RFC 9113 §6.9): a whole one.
const CALL_WINDOW: u32 = MESSAGE_BYTES_MAX as u32;

/// How many bytes of all calls may come without being asked for: they are in the kernel, or counted as unfinished.
const CONNECTION_WINDOW: u32 = UNFINISHED_BYTES_MAX as u32;

/// Calls that were reset before they were looked at ("rapid reset", CVE-2023-44487), within one round: as many as one can
/// hold, a head of HEADERS and a whole RST_STREAM each. So `h2` never closes a connection for them.
///
/// It must not: Envoy resets a call whenever its own client leaves early, so clients that come and go by the hundred would
/// have Envoy's connection closed, all that is under way on it fail, and the banned among them be let in. What
/// makes resets an attack elsewhere is memory and work that outlive the call. Here all that a round brought is dealt with
/// before the next, and a reset call costs no more than one that is answered.
const RESETS_PER_ROUND_MAX: usize = INPUT_BYTES_PER_ROUND / (9 + 13);

/// Calls that were reset for faults of the peer, or refused, during a connection's life. More: it is closed with
/// ENHANCE_YOUR_CALM. Envoy keeps to what is announced.
const FAULTY_CALLS_MAX: usize = 1024;

const _: () = assert!(MESSAGE_BYTES_MAX < UNFINISHED_BYTES_MAX);
const _: () = assert!(INPUT_BYTES_PER_ROUND <= OUTPUT_BYTES_MAX);

//! Syslog: from bytes that a sender wrote to one [`Record`], and from a TCP stream to its frames.
//!
//! ```text
//! UDP datagram ───────────────────────────┐
//! TCP bytes ──► Framer ──► Step::Frame ───┴──► decode ─────────┐
//! log file  ──► a line ──────────────────────► decode_logged ──┴──► Record { host, program, pid, message }
//! ```
//!
//! Two standards and much custom: RFC 5424 (the syslog protocol) is decoded as it is written; RFC 3164 only describes
//! what was seen on the wire, so what is decoded there is what senders really write (see [`decode`]). Framing is
//! RFC 6587, both methods.
//!
//! # What must stay true
//!
//! - Everything after the first header is message. A header inside a message, or inside structured data, is text:
//!   users choose it, and a record that they forge could ban somebody else.
//! - The time in a record is data. It is recognised strictly, to know where the header ends, and then ignored.
//! - Nothing is copied, nothing is allocated, no input panics, and every pass over the bytes is linear.

mod frame;
mod record;

pub use frame::{FRAME_OVERHEAD_BYTES_MAX, FrameFault, Framer, OCTET_COUNT_MAX, Step, frame_buffer_bytes};
pub use record::{HOST_BYTES_MAX, Malformed, PID_BYTES_MAX, PROGRAM_BYTES_MAX, Record, decode, decode_logged};

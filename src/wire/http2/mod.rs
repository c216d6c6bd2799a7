//! HTTP/2 (RFC 9113) as a server of short calls speaks it, over cleartext with prior knowledge: frames, header blocks,
//! windows, and the [`Connection`] that they make. What a call asks and how it is answered is for its user, `ext_authz`.
//!
//! Pure: bytes in, events and bytes out, no clock. A connection takes frame after frame; what one causes is dealt with before
//! the next is looked at. Answers go straight into the output, as long as the peer's windows are open; what does not fit waits
//! with its stream.
//!
//! # What it does not do
//!
//! - It begins no streams, and pushes nothing.
//! - It leaves no trace in the peer's HPACK table: its header blocks are constants.
//! - `content-length` is not looked at. gRPC does not send it, and says for each message how long it is.
//! - Priorities are ignored, as RFC 9113 §5.3.2 has it.
//! - Values of fields may be any bytes. Some of them are written by clients of the peer, and a call that fails for what a
//!   client wrote is what such a client would like to have.
//!
//! # What costs what
//!
//! A breach that concerns all streams (§5.4.1) ends the connection: GOAWAY with its reason. One that concerns a stream
//! (§5.4.2) costs that stream, and counts: enough of them end the connection too (ENHANCE_YOUR_CALM). So the streams that were
//! reset from this side can all be kept in mind, and what was under way to them is ignored, however late it comes (§5.1).

mod connection;
mod flow;
mod frame;
mod hpack;
mod huffman;
mod name;
mod settings;
mod streams;
mod table;

pub use connection::{Connection, End, Event, Head, Limits, Request};
pub use frame::{PAYLOAD_BYTES_MAX, Reason};
pub use hpack::{STATUS_200, put as put_field, put_status};

//! SPOP 2.0, the agent's side: HAProxy asks about its clients with the frames that its documentation describes
//! (`doc/SPOE.txt` section 3; sections named here are of that text).
//!
//! Pure: bytes in, values and bytes out. A connection has one [`Session`]; the caller reads into a buffer, calls
//! [`Session::next`] until it wants more bytes, and answers each question with [`answer::ack`]:
//!
//! ```
//! use mailfail2ban::wire::spop::{Client, Closing, Session, Step, answer::{self, Answer, Denial}};
//!
//! let mut session = Session::new();
//! // HAPROXY-HELLO; NOTIFY of stream 7, event 1: a message `check` with the argument `src`; HAPROXY-DISCONNECT.
//! let mut unread: &[u8] = b"\0\0\0\x4b\x01\0\0\0\x01\0\0\x12supported-versions\x08\x032.0\
//!     \x0emax-frame-size\x03\xfc\xf0\x06\x0ccapabilities\x08\x0apipelining\
//!     \0\0\0\x17\x03\0\0\0\x01\x07\x01\x05check\x01\x03src\x06\xc0\0\x02\x07\
//!     \0\0\0\x25\x02\0\0\0\x01\0\0\x0bstatus-code\x03\0\x07message\x08\x06normal";
//! let mut out = Vec::new();
//! loop {
//!     match session.next(unread, &mut out) {
//!         Step::Incomplete => break, // write `out`, read more
//!         Step::Handled { consumed, .. } => unread = &unread[consumed..],
//!         Step::Notify { notify, consumed } => {
//!             assert!(notify.clients().eq([Client::Ip("192.0.2.7".parse().unwrap())]));
//!             let answer = Answer::Denied(Denial { reason: "5 failures", ..Denial::default() });
//!             answer::ack(&mut out, notify.stream_id, notify.frame_id, &answer, session.frame_bytes_max());
//!             unread = &unread[consumed..];
//!         }
//!         Step::Close { why, .. } => {
//!             assert_eq!(why, Closing::Peer { status: 0 });
//!             break; // write `out`, close
//!         }
//!     }
//! }
//! let banned = b"\x01\x03\x01\x06banned\x02\x01\x01\x03\x02\x06banned\x02\x01";
//! assert!(out.windows(banned.len()).any(|written| written == banned));
//! ```
//!
//! Each frame is to be written with one send: HAProxy 3.2 resets a connection whose AGENT-HELLO comes in two pieces.
//!
//! # Who is asked about
//!
//! HAProxy's administrator chooses messages, arguments and their names. [`Notify::clients`] takes everybody who is named
//! like a client, in every message, and the caller denies if any of them is kept out. So an argument whose value the
//! client wrote itself, such as a header, can only add to what is asked: it may bring its sender a denial, but never
//! hides the address that stands beside it. Where no argument of such a name says who it is, [`Notify::clients`] says what
//! is taken instead; an administrator who sends more than one address does well to name the right one `src`.
//!
//! # What costs a connection, and what does not
//!
//! Clients are let in while an agent is away, unless the administrator arranged otherwise, so nothing that *a client* can
//! put into a frame must cost the connection: strings and binaries hold any bytes, numbers any number, types may be
//! null, messages may be empty or unknown. All that is left are frames that HAProxy does not send ([`Fault`]). Those
//! end it, with the status that section 3.5 has for it: after a payload that is not what it says, an answer would be a
//! guess, and so would be the start of the next frame.
//!
//! Fragments are among them. Nobody sends any to an agent that does not offer the capability, and HAProxy 3.1 removed it.

pub mod answer;
mod data;
mod disconnect;
mod frame;
mod hello;
mod notify;
mod session;

#[cfg(test)]
mod captures;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod properties;

pub use data::Value;
pub use disconnect::{Fault, Status};
pub use frame::kind as frame_kind;
pub use notify::{Argument, Arguments, Client, Clients, Message, Messages, Notify};
pub use session::{Closing, Handled, Session, Step};

/// Longest frame in bytes that is taken, the four of its length not counted. Longer: [`Fault::FrameTooLong`].
///
/// HAProxy announces `tune.bufsize` less 4, 16,380 by default, and in the hello the smaller of the two limits is agreed
/// on. An agent must not be the one that lowers it below what messages need: HAProxy 2.6 to 3.0 answer a message that has
/// become too long by connecting anew as fast as they can, while the client waits. A message about a client has some 60
/// bytes, so this is a thousand times what is needed; and little enough that one frame of hundred thousands of
/// messages does not hold up everybody else on the shard.
pub const FRAME_BYTES_MAX: u32 = 64 << 10;

/// Smallest `max-frame-size` in bytes that a peer may announce (section 3.2).
pub const FRAME_BYTES_MIN: u32 = 256;

/// Longest frame in bytes before the hello was answered. HAProxy's hello has about 150: nobody shall fill a buffer who has
/// not even said what they speak.
pub const HELLO_BYTES_MAX: u32 = 4 << 10;

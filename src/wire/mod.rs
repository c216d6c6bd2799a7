//! What stands on the wire: codecs and session state machines. Pure: bytes in, values and bytes out.
//!
//! No socket, clock or async lives here, and nothing of the project is imported. Whatever arrives is hostile until it was
//! parsed: no input panics, allocates beyond a stated limit, or costs more than time in proportion to its length.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod denial;
pub mod ext_authz;
pub mod http1;
mod http2;
mod list;
pub mod spop;
pub mod syslog;

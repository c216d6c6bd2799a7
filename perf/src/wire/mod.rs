//! What proxies say to the server, from their side: bytes in, answers out. Written from the protocols' specifications and
//! not with the server's own code, so that a mistake in that is not made twice.

mod grpc;
mod http;
mod spop;

pub use grpc::Grpc;
pub use http::{Http, HttpOptions};
pub use spop::Spop;

use std::net::Ipv4Addr;

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Denied,
    /// Something that was not to be read.
    Unread,
    /// Neither: a status, or a code.
    Other(&'static str, u32),
}

/// One connection, as the peer that asks.
pub trait Session {
    /// What opens the conversation.
    fn greet(&mut self, out: &mut Vec<u8>);

    /// Whether a question may be asked now.
    fn may_ask(&self) -> bool;

    /// Writes a question; the answer will have the number that is returned.
    fn ask(&mut self, client: Ipv4Addr, out: &mut Vec<u8>) -> u64;

    /// Reads what has come: puts answers with their questions' numbers into `answers`, and into `out` what the protocol
    /// wants said. Returns how many bytes were used.
    ///
    /// # Errors
    ///
    /// What the peer broke; the connection is of no more use.
    fn read(&mut self, input: &[u8], out: &mut Vec<u8>, answers: &mut Vec<(u64, Verdict)>) -> anyhow::Result<usize>;
}

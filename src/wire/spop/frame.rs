//! Frames: SPOE.txt section 3.2.
//!
//! ```text
//!  4 bytes   length of what follows, big-endian
//!  1 byte    type
//!  4 bytes   flags, big-endian: bit 0 FIN, bit 1 ABORT, the others reserved
//!  1 .. 10   stream-id, varint
//!  1 .. 10   frame-id, varint
//!  …         payload
//! ```

use super::FRAME_BYTES_MAX;
use super::data::{Decoder, VARINT_BYTES_MAX, push_varint};

/// Length of a frame without a payload, and so of the shortest: type, flags and two identifiers of a byte each.
pub(super) const HEAD_BYTES_MIN: u32 = 1 + 4 + 1 + 1;

/// The longest head of a frame: identifiers may have ten bytes.
pub(super) const HEAD_BYTES_MAX: usize = 1 + 4 + 2 * VARINT_BYTES_MAX;

/// Bytes of the length that stands before a frame and does not count itself.
pub(super) const LENGTH_BYTES: usize = 4;

const FLAG_FIN: u32 = 1;

/// Frame types (section 3.2.2).
pub mod kind {
    /// A later piece of a fragmented payload, until HAProxy 3.0.
    pub const UNSET: u8 = 0;
    pub const HAPROXY_HELLO: u8 = 1;
    pub const HAPROXY_DISCONNECT: u8 = 2;
    pub const NOTIFY: u8 = 3;
    pub const AGENT_HELLO: u8 = 101;
    pub const AGENT_DISCONNECT: u8 = 102;
    pub const ACK: u8 = 103;
}

/// One whole frame, its payload not yet looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// One of [`kind`], or any other.
    pub kind: u8,
    flags: u32,
    pub stream_id: u64,
    pub frame_id: u64,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// `bytes` is what stands behind the length. `None`: an identifier is cut off by the frame's end, or too big.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Frame<'a>> {
        let mut decoder = Decoder::new(bytes);
        Some(Frame {
            kind: decoder.byte()?,
            flags: u32::from_be_bytes(decoder.array()?),
            stream_id: decoder.varint()?,
            frame_id: decoder.varint()?,
            payload: decoder.rest(),
        })
    }

    /// Whether this is a piece of a fragmented payload: not the last one, or a later one. Then its payload alone means
    /// nothing.
    pub(super) fn is_fragment(&self) -> bool {
        self.flags & FLAG_FIN == 0 || self.kind == kind::UNSET
    }

    /// Whether it is about the connection, not about a stream. Stream-id 0 alone does not tell: it is a real stream too.
    pub(super) fn is_about_connection(&self) -> bool {
        self.stream_id == 0 && self.frame_id == 0
    }
}

/// Appends one frame, whose payload `write` appends.
pub(super) fn push(out: &mut Vec<u8>, kind: u8, stream_id: u64, frame_id: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind, 0, 0, 0, FLAG_FIN as u8]);
    push_varint(out, stream_id);
    push_varint(out, frame_id);
    write(out);
    // Known only now. What we write is never near 4 GiB: every payload has a bound of its own.
    let frame_bytes = out.len() - start - LENGTH_BYTES;
    debug_assert!(frame_bytes <= FRAME_BYTES_MAX as usize, "a frame of {frame_bytes} bytes");
    if let Some(length) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *length = (frame_bytes as u32).to_be_bytes();
    }
}

//! Frames (RFC 9113 §4.1, §6) and the codes of errors (§7).
//!
//! ```text
//! frame     length: 24 bits, type: 8 bits, flags: 8 bits, stream: 32 bits of which the first is ignored, payload
//! ```

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;

/// Longest payload that is taken and sent: what everybody has to take (RFC 9113 §4.2), and enough.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 10;

/// Types (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags. The first has two meanings: of DATA and HEADERS, of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 32;

/// The highest number of a stream, the widest window.
pub const MAX_31: u32 = 0x7fff_ffff;

/// Why a stream or a connection is ended (RFC 9113 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Reason {
    NoError = 0,
    ProtocolError = 1,
    FlowControlError = 3,
    StreamClosed = 5,
    FrameSizeError = 6,
    RefusedStream = 7,
    CompressionError = 9,
    EnhanceYourCalm = 11,
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Head {
    /// The head at the front of `bytes`, `None` if it is not whole yet.
    pub fn decode(bytes: &[u8]) -> Option<Head> {
        let &[long, middle, short, kind, flags, a, b, c, d] = bytes.first_chunk::<HEAD_BYTES>()?;
        let length = u32::from_be_bytes([0, long, middle, short]) as usize;
        Some(Head { length, kind, flags, stream: u32::from_be_bytes([a, b, c, d]) & MAX_31 })
    }

    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without padding (RFC 9113 §6.1). `Err` if there is more padding than payload, or not
    /// even its length.
    pub fn unpadded(self, payload: &[u8]) -> Result<&[u8], Reason> {
        if !self.has(PADDED) {
            return Ok(payload);
        }
        let (padding, rest) = payload.split_first().ok_or(Reason::FrameSizeError)?;
        let end = rest.len().checked_sub(usize::from(*padding)).ok_or(Reason::ProtocolError)?;
        Ok(rest.get(..end).unwrap_or_default())
    }
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let begun = begin(out, kind, flags, stream);
    out.extend_from_slice(payload);
    finish(out, begun);
}

/// Appends the head of a frame whose payload is appended next, and says where that begins.
pub fn begin(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32) -> usize {
    let [a, b, c, d] = stream.to_be_bytes();
    out.extend_from_slice(&[0, 0, 0, kind, flags, a, b, c, d]);
    out.len()
}

/// Writes the length into the head of the frame whose payload begins at `begun` and has been appended.
pub fn finish(out: &mut [u8], begun: usize) {
    let [.., long, middle, short] = out.len().saturating_sub(begun).to_be_bytes();
    if let Some(length) = begun.checked_sub(HEAD_BYTES).and_then(|at| out.get_mut(at..at + 3)) {
        length.copy_from_slice(&[long, middle, short]);
    }
}

/// RFC 9113 §6.4
pub fn put_reset(out: &mut Vec<u8>, stream: u32, reason: Reason) {
    put(out, RST_STREAM, 0, stream, &(reason as u32).to_be_bytes());
}

/// RFC 9113 §6.8
pub fn put_goaway(out: &mut Vec<u8>, last_stream: u32, reason: Reason) {
    let begun = begin(out, GOAWAY, 0, 0);
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&(reason as u32).to_be_bytes());
    finish(out, begun);
}

/// RFC 9113 §6.9
pub fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(out, WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_there_and_back() {
        let mut out = b"before".to_vec();
        put(&mut out, HEADERS, END_HEADERS, 7, &[9; 300]);
        assert_eq!(out.len(), 6 + HEAD_BYTES + 300);
        let head = Head { length: 300, kind: HEADERS, flags: END_HEADERS, stream: 7 };
        assert_eq!(Head::decode(&out[6..]), Some(head));
        assert!(head.has(END_HEADERS) && !head.has(END_STREAM));
        for cut in 0..HEAD_BYTES {
            assert_eq!(Head::decode(&out[6..6 + cut]), None);
        }
        // The first bit of the stream's number is ignored (§4.1).
        assert_eq!(Head::decode(b"\0\0\0\x06\x01\xff\xff\xff\xff").unwrap().stream, MAX_31);
    }

    #[test]
    fn padding_is_taken_off() {
        let padded = Head { length: 0, kind: DATA, flags: PADDED, stream: 1 };
        let plain = Head { flags: 0, ..padded };
        assert_eq!(plain.unpadded(b"\x02ab"), Ok(&b"\x02ab"[..]));
        for (payload, want) in [
            (&b"\x02abcd"[..], Ok(&b"ab"[..])),
            (b"\0ab", Ok(b"ab")),
            (b"\x02ab", Ok(b"")),
            (b"\0", Ok(b"")),
            (b"\x03ab", Err(Reason::ProtocolError)),
            (b"\x01", Err(Reason::ProtocolError)),
            (b"", Err(Reason::FrameSizeError)),
        ] {
            assert_eq!(padded.unpadded(payload), want);
        }
    }
}

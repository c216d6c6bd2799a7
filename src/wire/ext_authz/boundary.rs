//! Where frames begin and end in what a peer sends (RFC 9113 §4.1), without reading them: whether something is half said.
//! `h2` does not tell, and a connection on which something is half said may not rest.
//!
//! ```text
//! frame     length: 24 bits, type: 8 bits, flags: 8 bits, stream: 32 bits, payload
//! ```

/// RFC 9113 §3.4
const PREFACE_BYTES: usize = 24;

const HEAD_BYTES: usize = 9;

/// Types and flags that matter here (RFC 9113 §6.2, §6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// How far the peer has come.
#[derive(Debug)]
pub struct Boundary {
    /// Bytes that end what is being said: of the preface at first, then of a payload.
    left: usize,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    /// A header block has begun and not ended.
    in_headers: bool,
}

impl Default for Boundary {
    fn default() -> Boundary {
        Boundary { left: PREFACE_BYTES, head: [0; HEAD_BYTES], head_bytes: 0, in_headers: false }
    }
}

impl Boundary {
    /// Looks at what the peer has sent.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.head_bytes) {
                *place = *byte;
            }
            self.head_bytes += 1;
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                let [long, middle, short, kind, flags, ..] = self.head;
                self.left = u32::from_be_bytes([0, long, middle, short]) as usize;
                if matches!(kind, HEADERS | CONTINUATION) {
                    self.in_headers = flags & END_HEADERS == 0;
                }
            }
        }
    }

    /// Whether nothing is half said.
    pub fn is_reached(&self) -> bool {
        self.left == 0 && self.head_bytes == 0 && !self.in_headers
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::{self, CHECK, DATA, END_HEADERS, HEADERS, HTTP, PREFACE, SETTINGS, check, frame};
    use super::*;

    /// Where boundaries are, counted in bytes, when the bytes come one by one.
    fn boundaries(bytes: &[u8]) -> Vec<usize> {
        let mut boundary = Boundary::default();
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            boundary.pass(std::slice::from_ref(byte));
            if boundary.is_reached() {
                found.push(at + 1);
            }
        }
        found
    }

    #[test]
    fn boundaries_are_where_frames_end_and_header_blocks_do() {
        let headers = peer::head(CHECK);
        let (first, second) = headers.split_at(20);
        let pieces: [(Vec<u8>, bool); 7] = [
            (PREFACE.to_vec(), true),
            (SETTINGS.to_vec(), true),
            (frame(HEADERS, END_HEADERS, 1, &headers), true),
            (frame(DATA, 0, 1, &[0; 300]), true),
            (frame(HEADERS, 0, 3, first), false),
            (frame(CONTINUATION, 0, 3, b""), false),
            (frame(CONTINUATION, END_HEADERS, 3, second), true),
        ];
        let mut want = Vec::new();
        let mut at = 0;
        for (piece, is_boundary) in &pieces {
            at += piece.len();
            want.extend(is_boundary.then_some(at));
        }
        let all: Vec<u8> = pieces.into_iter().flat_map(|(piece, _)| piece).collect();
        assert_eq!(boundaries(&all), want);
        // However they are cut.
        for cut in 0..all.len() {
            let mut boundary = Boundary::default();
            boundary.pass(&all[..cut]);
            assert_eq!(boundary.is_reached(), want.contains(&cut), "{cut}");
            boundary.pass(&all[cut..]);
            assert!(boundary.is_reached());
        }
        let mut boundary = Boundary::default();
        boundary.pass(&[PREFACE, SETTINGS, &check(1, HTTP)].concat());
        assert!(boundary.is_reached());
    }
}

//! gRPC's framing of messages: each has a prefix of five bytes, whether it is compressed and how long it is (grpc
//! `doc/PROTOCOL-HTTP2.md`, Length-Prefixed-Message). Frames of HTTP/2 cut it anywhere.

use super::MESSAGE_BYTES_MAX;
use super::refusal::Refusal;

const PREFIX_BYTES: usize = 5;

/// Appends a message behind its prefix; `write` appends the message.
pub fn encode(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begun = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    write(out);
    // Our own messages are below 2.5 KiB.
    let length = out.len().saturating_sub(begun + PREFIX_BYTES) as u32;
    if let Some(place) = out.get_mut(begun + 1..begun + PREFIX_BYTES) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// A message that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub bytes: &'a [u8],
    /// It was longer, and these are its front.
    pub is_cut: bool,
}

/// Looks at what has come of a call: `count` bytes, of which `front` was kept. `Ok(false)` if its message is not complete
/// yet.
///
/// `is_encoded`: whether the call names a compression (`grpc-encoding`) other than none.
pub fn is_complete(front: &[u8], count: usize, is_encoded: bool) -> Result<bool, Refusal> {
    match front.first() {
        None | Some(0) => {}
        Some(1) if is_encoded => return Err(Refusal::Compressed),
        Some(_) => return Err(Refusal::Prefix),
    }
    let Some(&[_, length @ ..]) = front.first_chunk::<PREFIX_BYTES>() else {
        return Ok(false);
    };
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let count = count.saturating_sub(PREFIX_BYTES);
    if count > length {
        return Err(Refusal::MessageCount);
    }
    Ok(count == length)
}

/// The message of a call whose input has ended.
pub fn finish(front: &[u8], count: usize, is_encoded: bool) -> Result<Message<'_>, Refusal> {
    match is_complete(front, count, is_encoded)? {
        true => Ok(Message { is_cut: front.len() < count, bytes: front.get(PREFIX_BYTES..).unwrap_or_default() }),
        false if count == 0 => Err(Refusal::MessageCount),
        false => Err(Refusal::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_behind_its_prefix() {
        let mut out = b"before".to_vec();
        encode(&mut out, |out| out.extend([7; 300]));
        assert_eq!(out, [&b"before\0\0\0\x01\x2c"[..], &[7; 300]].concat());
        assert_eq!(finish(&out[6..], 305, false), Ok(Message { bytes: &[7; 300], is_cut: false }));
    }

    #[test]
    fn a_message_is_recognised_at_every_length() {
        for (received, want) in [
            (&b""[..], Err(Refusal::MessageCount)),
            (b"\0", Err(Refusal::Truncated)),
            (b"\0\0\0\0", Err(Refusal::Truncated)),
            (b"\0\0\0\0\0", Ok(&b""[..])),
            (b"\0\0\0\0\x01", Err(Refusal::Truncated)),
            (b"\0\0\0\0\x02ab", Ok(b"ab")),
            (b"\0\0\0\0\x02abc", Err(Refusal::MessageCount)),
            (b"\0\0\0\0\0\0\0\0\0\0", Err(Refusal::MessageCount)),
            (b"\0\0\x40\0\x01", Err(Refusal::TooLong)),
            (b"\0\xff\xff\xff\xff", Err(Refusal::TooLong)),
            (b"\x01", Err(Refusal::Prefix)),
            (b"\x02\0\0\0\0", Err(Refusal::Prefix)),
            (b"\xff", Err(Refusal::Prefix)),
        ] {
            let finished = finish(received, received.len(), false);
            let want = want.map(|bytes| Message { bytes, is_cut: false });
            assert_eq!(finished, want, "{}", received.escape_ascii());
            // What is refused at the end only is not refused before, and the other way round.
            let early = is_complete(received, received.len(), false);
            match want {
                Ok(_) => assert_eq!(early, Ok(true)),
                Err(Refusal::Truncated) => assert_eq!(early, Ok(false)),
                Err(Refusal::MessageCount) if received.is_empty() => assert_eq!(early, Ok(false)),
                Err(refusal) => assert_eq!(early, Err(refusal)),
            }
        }
        assert_eq!(is_complete(b"\0\0\x40\0\0", 5, false), Ok(false), "the longest is not too long");
    }

    #[test]
    fn of_a_message_that_is_cut_all_is_counted() {
        let finish = |count| finish(b"\0\0\0\0\x05ab", count, false);
        assert_eq!(finish(10), Ok(Message { bytes: b"ab", is_cut: true }));
        assert_eq!(finish(9), Err(Refusal::Truncated));
        assert_eq!(finish(11), Err(Refusal::MessageCount));
    }

    #[test]
    fn compression_is_refused_by_name_only_if_it_has_one() {
        assert_eq!(is_complete(b"\x01\0\0\0\0", 5, true), Err(Refusal::Compressed));
        assert_eq!(is_complete(b"\x01\0\0\0\0", 5, false), Err(Refusal::Prefix));
        // Each message says for itself whether it is.
        assert_eq!(is_complete(b"\0\0\0\0\0", 5, true), Ok(true));
    }
}

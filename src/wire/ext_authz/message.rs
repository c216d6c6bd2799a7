//! gRPC's framing of messages: each has a prefix of five bytes, whether it is compressed and how long it is (grpc
//! `doc/PROTOCOL-HTTP2.md`, Length-Prefixed-Message). Frames of HTTP/2 cut it anywhere.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

use super::MESSAGE_BYTES_MAX;
use super::refusal::Refusal;

const PREFIX_BYTES: usize = 5;

/// A message behind its prefix.
pub fn encode(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    // Our own messages are below 2.5 KiB.
    out.put_u32(length as u32);
    // It fits: that is the only thing that could be wrong.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// Looks at what has come of a call. `Ok(false)` if its message is not complete yet.
///
/// `is_encoded`: whether the call names a compression (`grpc-encoding`) other than none.
pub fn is_complete(received: &[u8], is_encoded: bool) -> Result<bool, Refusal> {
    match received.first() {
        None | Some(0) => {}
        Some(1) if is_encoded => return Err(Refusal::Compressed),
        Some(_) => return Err(Refusal::Prefix),
    }
    let Some((&[_, length @ ..], message)) = received.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(false);
    };
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    if message.len() > length {
        return Err(Refusal::MessageCount);
    }
    Ok(message.len() == length)
}

/// The message of a call whose input has ended.
pub fn finish(mut received: Bytes, is_encoded: bool) -> Result<Bytes, Refusal> {
    match is_complete(&received, is_encoded)? {
        true => Ok(received.split_off(PREFIX_BYTES)),
        false if received.is_empty() => Err(Refusal::MessageCount),
        false => Err(Refusal::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (b"\0\0\x10\0\x01", Err(Refusal::TooLong)),
            (b"\0\xff\xff\xff\xff", Err(Refusal::TooLong)),
            (b"\x01", Err(Refusal::Prefix)),
            (b"\x02\0\0\0\0", Err(Refusal::Prefix)),
            (b"\xff", Err(Refusal::Prefix)),
        ] {
            let finished = finish(Bytes::copy_from_slice(received), false);
            assert_eq!(finished.as_deref(), want.as_ref().map(|bytes| *bytes), "{}", received.escape_ascii());
            // What is refused at the end only is not refused before, and the other way round.
            let early = is_complete(received, false);
            match want {
                Ok(_) => assert_eq!(early, Ok(true)),
                Err(Refusal::Truncated) => assert_eq!(early, Ok(false)),
                Err(Refusal::MessageCount) if received.is_empty() => assert_eq!(early, Ok(false)),
                Err(refusal) => assert_eq!(early, Err(refusal)),
            }
        }
        assert_eq!(is_complete(b"\0\0\x10\0\0", false), Ok(false), "the longest is not too long");
    }

    #[test]
    fn compression_is_refused_by_name_only_if_it_has_one() {
        assert_eq!(is_complete(b"\x01\0\0\0\0", true), Err(Refusal::Compressed));
        assert_eq!(is_complete(b"\x01\0\0\0\0", false), Err(Refusal::Prefix));
        // Each message says for itself whether it is.
        assert_eq!(is_complete(b"\0\0\0\0\0", true), Ok(true));
    }
}

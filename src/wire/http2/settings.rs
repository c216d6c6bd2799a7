//! What a peer sets (RFC 9113 §6.5), as far as it matters to whoever only answers.

use super::frame::{MAX_31, PAYLOAD_BYTES_MAX, Reason};

/// Numbers of settings.
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;

/// The initial window of a stream before anybody says otherwise (§6.9.2); that of the connection always is this.
pub const DEFAULT_WINDOW: u32 = 65_535;

/// Bytes of one setting.
const SETTING_BYTES: usize = 6;

/// What the payload of a SETTINGS frame changes: the initial window of streams, if it is in there.
///
/// Of the others only the values are checked. This side never pushes, begins no streams, sends no frame longer than all
/// have to take, and its header blocks leave no trace in the peer's table, however large it may be.
pub fn decode(payload: &[u8]) -> Result<Option<u32>, Reason> {
    let (settings, []) = payload.as_chunks::<SETTING_BYTES>() else { return Err(Reason::FrameSizeError) };
    let mut window = None;
    for &[high, low, a, b, c, d] in settings {
        let value = u32::from_be_bytes([a, b, c, d]);
        match u16::from_be_bytes([high, low]) {
            ENABLE_PUSH if value > 1 => return Err(Reason::ProtocolError),
            INITIAL_WINDOW_SIZE if value > MAX_31 => return Err(Reason::FlowControlError),
            // The last of several stands: between them nothing was sent.
            INITIAL_WINDOW_SIZE => window = Some(value),
            MAX_FRAME_SIZE if !(PAYLOAD_BYTES_MAX as u32..1 << 24).contains(&value) => {
                return Err(Reason::ProtocolError);
            }
            // What is not known is ignored (§6.5.2).
            _ => {}
        }
    }
    Ok(window)
}

/// Appends one setting to the payload of a SETTINGS frame.
pub fn put(out: &mut Vec<u8>, number: u16, value: u32) {
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
        let mut out = Vec::new();
        settings.iter().for_each(|(number, value)| put(&mut out, *number, *value));
        out
    }

    #[test]
    fn values_are_checked() {
        for (number, value, want) in [
            (1, u32::MAX, Ok(None)),
            (ENABLE_PUSH, 0, Ok(None)),
            (ENABLE_PUSH, 1, Ok(None)),
            (ENABLE_PUSH, 2, Err(Reason::ProtocolError)),
            (MAX_CONCURRENT_STREAMS, 0, Ok(None)),
            (INITIAL_WINDOW_SIZE, 0, Ok(Some(0))),
            (INITIAL_WINDOW_SIZE, MAX_31, Ok(Some(MAX_31))),
            (INITIAL_WINDOW_SIZE, MAX_31 + 1, Err(Reason::FlowControlError)),
            (MAX_FRAME_SIZE, (1 << 14) - 1, Err(Reason::ProtocolError)),
            (MAX_FRAME_SIZE, 1 << 14, Ok(None)),
            (MAX_FRAME_SIZE, (1 << 24) - 1, Ok(None)),
            (MAX_FRAME_SIZE, 1 << 24, Err(Reason::ProtocolError)),
            (MAX_HEADER_LIST_SIZE, 0, Ok(None)),
            (0x1234, u32::MAX, Ok(None)),
        ] {
            assert_eq!(decode(&settings(&[(number, value)])), want, "{number} {value}");
        }
        assert_eq!(decode(b""), Ok(None));
        assert_eq!(decode(&settings(&[(4, 1), (3, 9), (4, 7)])), Ok(Some(7)));
        assert_eq!(decode(&[0; 7]), Err(Reason::FrameSizeError));
    }
}

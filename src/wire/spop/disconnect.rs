//! How a connection ends: HAPROXY-DISCONNECT and AGENT-DISCONNECT (SPOE.txt sections 3.2.8 and 3.2.9), and why
//! (section 3.5).

use super::data::{Decoder, push_string, push_string_value, push_uint32_value};
use super::frame;

/// Status codes of a DISCONNECT (section 3.5). A peer's own may be any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// 0: no error. Also the reply to HAPROXY-DISCONNECT, and what a server that shuts down says.
    Normal,
    /// 1
    Io,
    /// 2: for the caller, who has the clock.
    Timeout,
    /// 3
    FrameTooBig,
    /// 4
    InvalidFrame,
    /// 5
    VersionMissing,
    /// 6
    MaxFrameSizeMissing,
    /// 7
    CapabilitiesMissing,
    /// 8
    UnsupportedVersion,
    /// 9
    BadMaxFrameSize,
    /// 10
    Fragmentation,
    /// 11
    Interlaced,
    /// 12
    FrameIdNotFound,
    /// 13
    Resources,
    /// 99
    Unknown,
}

impl Status {
    /// Every status that the specification names, for counters and tests.
    pub const ALL: [Status; 15] = [
        Status::Normal,
        Status::Io,
        Status::Timeout,
        Status::FrameTooBig,
        Status::InvalidFrame,
        Status::VersionMissing,
        Status::MaxFrameSizeMissing,
        Status::CapabilitiesMissing,
        Status::UnsupportedVersion,
        Status::BadMaxFrameSize,
        Status::Fragmentation,
        Status::Interlaced,
        Status::FrameIdNotFound,
        Status::Resources,
        Status::Unknown,
    ];

    /// The number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Status::Normal => 0,
            Status::Io => 1,
            Status::Timeout => 2,
            Status::FrameTooBig => 3,
            Status::InvalidFrame => 4,
            Status::VersionMissing => 5,
            Status::MaxFrameSizeMissing => 6,
            Status::CapabilitiesMissing => 7,
            Status::UnsupportedVersion => 8,
            Status::BadMaxFrameSize => 9,
            Status::Fragmentation => 10,
            Status::Interlaced => 11,
            Status::FrameIdNotFound => 12,
            Status::Resources => 13,
            Status::Unknown => 99,
        }
    }

    /// What is said beside the code when no [`Fault`] says it more closely.
    fn message(self) -> &'static str {
        match self {
            Status::Normal => "closing",
            Status::Io => "I/O error",
            Status::Timeout => "a timeout occurred",
            Status::FrameTooBig => "frame is too big",
            Status::InvalidFrame => "invalid frame received",
            Status::VersionMissing => "version value not found",
            Status::MaxFrameSizeMissing => "max-frame-size value not found",
            Status::CapabilitiesMissing => "capabilities value not found",
            Status::UnsupportedVersion => "unsupported version",
            Status::BadMaxFrameSize => "max-frame-size too big or too small",
            Status::Fragmentation => "fragmentation is not supported",
            Status::Interlaced => "invalid interlaced frames",
            Status::FrameIdNotFound => "frame-id not found",
            Status::Resources => "no resources left",
            Status::Unknown => "unknown error",
        }
    }
}

/// What a peer did wrong. It costs the connection: where the next frame begins, or what is waited for, is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A frame longer than the negotiated maximum; before the hello, than
    /// [`HELLO_BYTES_MAX`](super::HELLO_BYTES_MAX). HTTP and TLS end here: their first bytes are no length.
    FrameTooLong,
    /// A frame shorter than its head.
    FrameTooShort,
    /// A piece of a fragmented payload. HAProxy 2.6 to 3.0 fragment only for agents that offer it.
    Fragment,
    /// A frame that only an agent sends.
    AgentFrame,
    /// Something other than a hello comes first.
    NoHello,
    /// A hello after the hello.
    SecondHello,
    /// A HELLO or DISCONNECT with a stream-id or frame-id.
    Identifiers,
    /// A head or payload that is cut off, too long for its frame, or holds a type that is not defined.
    Malformed,
    /// A hello's or disconnect's value that is missing or of the wrong type, where no other fault says so.
    ValueType,
    /// No `supported-versions` in the hello.
    VersionMissing,
    /// No `max-frame-size` in the hello.
    MaxFrameSizeMissing,
    /// No `capabilities` in the hello.
    CapabilitiesMissing,
    /// None of the supported versions is a 2.x.
    UnsupportedVersion,
    /// `max-frame-size` is below [`FRAME_BYTES_MIN`](super::FRAME_BYTES_MIN).
    MaxFrameSizeTooSmall,
}

impl Fault {
    /// Every fault, for counters and tests.
    pub const ALL: [Fault; 14] = [
        Fault::FrameTooLong,
        Fault::FrameTooShort,
        Fault::Fragment,
        Fault::AgentFrame,
        Fault::NoHello,
        Fault::SecondHello,
        Fault::Identifiers,
        Fault::Malformed,
        Fault::ValueType,
        Fault::VersionMissing,
        Fault::MaxFrameSizeMissing,
        Fault::CapabilitiesMissing,
        Fault::UnsupportedVersion,
        Fault::MaxFrameSizeTooSmall,
    ];

    /// The status of the AGENT-DISCONNECT.
    pub fn status(self) -> Status {
        match self {
            Fault::FrameTooLong => Status::FrameTooBig,
            Fault::FrameTooShort
            | Fault::AgentFrame
            | Fault::NoHello
            | Fault::SecondHello
            | Fault::Identifiers
            | Fault::Malformed
            | Fault::ValueType => Status::InvalidFrame,
            Fault::Fragment => Status::Fragmentation,
            Fault::VersionMissing => Status::VersionMissing,
            Fault::MaxFrameSizeMissing => Status::MaxFrameSizeMissing,
            Fault::CapabilitiesMissing => Status::CapabilitiesMissing,
            Fault::UnsupportedVersion => Status::UnsupportedVersion,
            Fault::MaxFrameSizeTooSmall => Status::BadMaxFrameSize,
        }
    }

    /// What was wrong, for the peer and the log. Plain ASCII without quotes.
    pub fn message(self) -> &'static str {
        match self {
            Fault::FrameTooLong => "a frame is longer than max-frame-size",
            Fault::FrameTooShort => "a frame is shorter than its head",
            Fault::Fragment => "fragmentation was not negotiated",
            Fault::AgentFrame => "only an agent sends such a frame",
            Fault::NoHello => "the first frame must be a HAPROXY-HELLO",
            Fault::SecondHello => "a second HAPROXY-HELLO",
            Fault::Identifiers => "HELLO and DISCONNECT have stream-id 0 and frame-id 0",
            Fault::Malformed => "a frame is malformed",
            Fault::ValueType => "a value is missing or has the wrong type",
            Fault::VersionMissing => "HAPROXY-HELLO has no supported-versions",
            Fault::MaxFrameSizeMissing => "HAPROXY-HELLO has no max-frame-size",
            Fault::CapabilitiesMissing => "HAPROXY-HELLO has no capabilities",
            Fault::UnsupportedVersion => "only SPOP 2.0 is spoken here",
            Fault::MaxFrameSizeTooSmall => "max-frame-size is below 256",
        }
    }
}

/// The status code in the payload of a HAPROXY-DISCONNECT. Its message is not read: it is somebody else's text, and says
/// no more than the code.
pub(super) fn decode(payload: &[u8]) -> Result<u32, Fault> {
    let mut items = Decoder::new(payload);
    let mut code = Err(Fault::ValueType);
    while !items.rest().is_empty() {
        let (key, value) = items.item().ok_or(Fault::Malformed)?;
        if key == b"status-code" {
            code = Ok(value.number().ok_or(Fault::ValueType)?);
        }
    }
    code
}

/// Appends an AGENT-DISCONNECT that says what the specification's table says.
pub(super) fn push_status(out: &mut Vec<u8>, status: Status) {
    push(out, status, status.message());
}

/// Appends an AGENT-DISCONNECT that says what was wrong.
pub(super) fn push_fault(out: &mut Vec<u8>, fault: Fault) {
    push(out, fault.status(), fault.message());
}

/// HAProxy takes messages of at most 255 bytes; ours are far shorter, and fit the smallest frame.
fn push(out: &mut Vec<u8>, status: Status, message: &'static str) {
    frame::push(out, frame::kind::AGENT_DISCONNECT, 0, 0, |out| {
        push_string(out, b"status-code");
        push_uint32_value(out, status.code());
        push_string(out, b"message");
        push_string_value(out, message.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::super::FRAME_BYTES_MIN;
    use super::super::peer::{self, AgentFrame};
    use super::*;

    #[test]
    fn disconnects_carry_code_and_message_and_fit_the_smallest_frame() {
        let mut out = Vec::new();
        for status in Status::ALL {
            out.clear();
            push_status(&mut out, status);
            assert!(out.len() - 4 <= FRAME_BYTES_MIN as usize);
            let (code, message) = (status.code(), status.message().to_owned());
            assert_eq!(peer::decode(&out), [AgentFrame::Disconnect { code, message }]);
        }
        for fault in Fault::ALL {
            out.clear();
            push_fault(&mut out, fault);
            assert!(out.len() - 4 <= FRAME_BYTES_MIN as usize);
            let (code, message) = (fault.status().code(), fault.message().to_owned());
            assert!(message.bytes().all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'"'));
            assert_eq!(peer::decode(&out), [AgentFrame::Disconnect { code, message }]);
        }
    }

    #[test]
    fn the_peers_code_is_read() {
        for (payload, want) in [
            (&b"\x0bstatus-code\x03\x0a\x07message\x08\x04text"[..], Ok(10)),
            (b"\x07message\x08\x04text\x0bstatus-code\x03\x63", Ok(99)),
            (b"\x0bstatus-code\x03\x00", Ok(0)),
            // Its own codes.
            (b"\x0bstatus-code\x03\xfb\xf0\xfe\xfe\x7e", Ok(4_294_967_291)),
            (b"\x07message\x08\x04text", Err(Fault::ValueType)),
            (b"", Err(Fault::ValueType)),
            (b"\x0bstatus-code\x08\x011", Err(Fault::ValueType)),
            (b"\x0bstatus-code", Err(Fault::Malformed)),
            (b"\x0bstatus-code\x03\x00\x07mess", Err(Fault::Malformed)),
        ] {
            assert_eq!(decode(payload), want, "{}", payload.escape_ascii());
        }
    }
}

//! Answers: ACK frames with `set-var` actions, SPOE.txt sections 3.2.7 and 3.4. Nothing is allocated once the buffer is
//! warm.
//!
//! ```text
//! payload   action …
//! set-var   0x01, number of arguments: 0x03, scope: 1 byte, name: string, value: typed data
//! ```
//!
//! HAProxy puts the engine's name (or `option var-prefix`) before each: `sess.mail.banned`. What its configuration never
//! names is not set, unless `option force-set-var` says so.

use std::time::Duration;

use super::super::denial::{cut, whole_seconds};
use super::data::{push_int32_value, push_string_value};
use super::{FRAME_BYTES_MIN, frame};

/// Longest `reason` in bytes; the rest is cut off. Shorter where the negotiated frame size asks for it.
pub const REASON_BYTES_MAX: usize = 256;

/// Longest `pattern` in bytes; the rest is cut off. No pattern's name is longer; shorter where the negotiated frame size
/// asks for it.
pub const PATTERN_BYTES_MAX: usize = 128;

/// What a question comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Nobody who was asked about is kept out.
    Allowed,
    Denied(Denial<'a>),
}

/// A denial, as far as HAProxy is told. What is not known is not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denial<'a> {
    /// Human text; empty if there is none.
    pub reason: &'a str,
    /// The name of the pattern that the failures matched.
    pub pattern: Option<&'a str>,
    pub severity: Option<u8>,
    /// Time until the ban ends; `None` if it does not end by itself.
    pub expires_in: Option<Duration>,
}

/// `banned` = 0 and 1, in the session's and in the transaction's scope: documented configurations read either. Always
/// set, so that an answer is never empty, on which HAProxy 3.1 stalls, and so that the next question of a
/// session takes back what an earlier one set.
const BANNED_0: &[u8] = b"\x01\x03\x01\x06banned\x02\x00\x01\x03\x02\x06banned\x02\x00";
const BANNED_1: &[u8] = b"\x01\x03\x01\x06banned\x02\x01\x01\x03\x02\x06banned\x02\x01";

/// What begins the action that sets each of the others, in the session's scope.
const REASON: &[u8] = b"\x01\x03\x01\x06reason";
const PATTERN: &[u8] = b"\x01\x03\x01\x07pattern";
const SEVERITY: &[u8] = b"\x01\x03\x01\x08severity";
const EXPIRES_IN: &[u8] = b"\x01\x03\x01\x0aexpires_in";

/// Longest answer in bytes, not counting the texts themselves: the head, the five variables, a type with each, and the
/// longest numbers. A text's length has two bytes at most, a severity has two, seconds have five.
const ACK_BYTES_MAX_WITHOUT_TEXTS: usize = frame::HEAD_BYTES_MAX
    + BANNED_1.len()
    + (REASON.len() + 1 + 2)
    + (PATTERN.len() + 1 + 2)
    + (SEVERITY.len() + 1 + 2)
    + (EXPIRES_IN.len() + 1 + 5);

/// Room for the texts in the smallest frame that can be negotiated: enough to say something.
const TEXTS_BYTES_MIN: usize = FRAME_BYTES_MIN as usize - ACK_BYTES_MAX_WITHOUT_TEXTS;
const _: () = assert!(TEXTS_BYTES_MIN >= 128);
// Two bytes of length are enough.
const _: () = assert!(REASON_BYTES_MAX < 2288 && PATTERN_BYTES_MAX < 2288);

/// Appends one ACK: the answer to the NOTIFY with these identifiers. It is never longer than `frame_bytes_max`
/// ([`Session::frame_bytes_max`](super::Session::frame_bytes_max)), nor than it has to be.
pub fn ack(out: &mut Vec<u8>, stream_id: u64, frame_id: u64, answer: &Answer<'_>, frame_bytes_max: u32) {
    frame::push(out, frame::kind::ACK, stream_id, frame_id, |out| match answer {
        Answer::Allowed => out.extend_from_slice(BANNED_0),
        Answer::Denied(denial) => push_denial(out, denial, frame_bytes_max),
    });
}

fn push_denial(out: &mut Vec<u8>, denial: &Denial<'_>, frame_bytes_max: u32) {
    out.extend_from_slice(BANNED_1);
    let texts_bytes = (frame_bytes_max as usize).saturating_sub(ACK_BYTES_MAX_WITHOUT_TEXTS).max(TEXTS_BYTES_MIN);
    // The pattern's name is short as a rule, and half of the room is enough; the reason has what is left.
    let pattern = cut(denial.pattern.unwrap_or_default(), PATTERN_BYTES_MAX.min(texts_bytes / 2));
    let reason = cut(denial.reason, REASON_BYTES_MAX.min(texts_bytes - pattern.len()));
    if !reason.is_empty() {
        out.extend_from_slice(REASON);
        push_text(out, reason);
    }
    if !pattern.is_empty() {
        out.extend_from_slice(PATTERN);
        push_text(out, pattern);
    }
    if let Some(severity) = denial.severity {
        out.extend_from_slice(SEVERITY);
        push_int32_value(out, u32::from(severity));
    }
    if let Some(expires_in) = denial.expires_in {
        out.extend_from_slice(EXPIRES_IN);
        // An int32 holds 68 years.
        push_int32_value(out, whole_seconds(expires_in).min(i32::MAX as u64) as u32);
    }
}

/// Configurations put these variables into header fields and logs, where a line end would begin something new: control
/// characters become `?`.
fn push_text(out: &mut Vec<u8>, text: &str) {
    push_string_value(out, text.as_bytes());
    let start = out.len() - text.len();
    for byte in out.get_mut(start..).unwrap_or_default() {
        if byte.is_ascii_control() {
            *byte = b'?';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FRAME_BYTES_MAX;
    use super::super::peer::{self, AgentFrame};
    use super::*;

    fn written(answer: &Answer<'_>, frame_bytes_max: u32) -> Vec<u8> {
        // Answers are appended: what is there already stays.
        let mut out = b"before".to_vec();
        ack(&mut out, u64::MAX, u64::MAX, answer, frame_bytes_max);
        out.strip_prefix(b"before").unwrap().to_vec()
    }

    fn variables(denial: Denial<'_>, frame_bytes_max: u32) -> Vec<String> {
        let out = written(&Answer::Denied(denial), frame_bytes_max);
        assert!(out.len() - 4 <= frame_bytes_max as usize, "{} bytes", out.len() - 4);
        let [AgentFrame::Ack { variables, .. }] = &peer::decode(&out)[..] else { panic!("{out:x?}") };
        variables.clone()
    }

    #[test]
    fn answers_byte_by_byte() {
        let mut out = Vec::new();
        ack(&mut out, 0, 1, &Answer::Allowed, 16380);
        assert_eq!(
            out,
            b"\0\0\0\x1f\x67\0\0\0\x01\x00\x01\
              \x01\x03\x01\x06banned\x02\x00\x01\x03\x02\x06banned\x02\x00"
        );
        out.clear();
        let denial = Denial {
            reason: "5 failures",
            pattern: Some("dovecot"),
            severity: Some(4),
            expires_in: Some(Duration::from_secs(300)),
        };
        ack(&mut out, 469, 2, &Answer::Denied(denial), 16380);
        assert_eq!(
            out,
            b"\0\0\0\x69\x67\0\0\0\x01\xf5\x0e\x02\
              \x01\x03\x01\x06banned\x02\x01\x01\x03\x02\x06banned\x02\x01\
              \x01\x03\x01\x06reason\x08\x0a5 failures\
              \x01\x03\x01\x07pattern\x08\x07dovecot\
              \x01\x03\x01\x08severity\x02\x04\
              \x01\x03\x01\x0aexpires_in\x02\xfc\x03"
        );
    }

    #[test]
    fn what_is_not_known_is_not_set() {
        let banned = ["sess.banned=1", "txn.banned=1"];
        assert_eq!(variables(Denial::default(), 256), banned);
        assert_eq!(variables(Denial { pattern: Some(""), ..Denial::default() }, 256), banned);
        let some = Denial { severity: Some(0), expires_in: Some(Duration::ZERO), ..Denial::default() };
        assert_eq!(variables(some, 256)[2..], ["sess.severity=0", "sess.expires_in=0"]);
        let [AgentFrame::Ack { variables, stream_id, frame_id }] = &peer::decode(&written(&Answer::Allowed, 256))[..]
        else {
            panic!("not an ACK");
        };
        assert_eq!((*stream_id, *frame_id), (u64::MAX, u64::MAX));
        assert_eq!(*variables, ["sess.banned=0", "txn.banned=0"]);
    }

    #[test]
    fn the_time_left_is_rounded_up_and_fits() {
        for (time, want) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_secs(1), 1),
            (Duration::from_millis(1001), 2),
            (Duration::from_secs(i32::MAX as u64 - 1), i32::MAX - 1),
            (Duration::new(i32::MAX as u64 - 1, 1), i32::MAX),
            (Duration::from_secs(i32::MAX as u64 + 1), i32::MAX),
            (Duration::MAX, i32::MAX),
        ] {
            let denial = Denial { expires_in: Some(time), ..Denial::default() };
            assert_eq!(variables(denial, 256)[2..], [format!("sess.expires_in={want}")]);
        }
    }

    /// At the smallest frame the longest answer has not one byte to spare, so the bound is the true one.
    #[test]
    fn the_longest_answer_fits_the_smallest_frame() {
        let denial = Denial {
            reason: &"r".repeat(1000),
            pattern: Some(&"p".repeat(1000)),
            severity: Some(255),
            expires_in: Some(Duration::MAX),
        };
        let frame_bytes = |denial, max| written(&Answer::Denied(denial), max).len() - 4;
        for max in [FRAME_BYTES_MIN, 257, 300, 400, 500, 16380, FRAME_BYTES_MAX] {
            assert!(frame_bytes(denial, max) <= max as usize, "{max}");
        }
        // Texts of less than 240 bytes have a length of one byte, not two.
        assert_eq!(frame_bytes(denial, FRAME_BYTES_MIN), FRAME_BYTES_MIN as usize - 2);
        let longest = ACK_BYTES_MAX_WITHOUT_TEXTS + REASON_BYTES_MAX + PATTERN_BYTES_MAX - 1;
        assert_eq!(frame_bytes(denial, FRAME_BYTES_MAX), longest);
        // A limit that no session has is taken for the smallest.
        assert_eq!(frame_bytes(denial, 0), FRAME_BYTES_MIN as usize - 2);
    }

    #[test]
    fn texts_are_cut_between_characters_and_share_the_room() {
        let long = "\u{20ac}".repeat(1000);
        let euros = |count| "\u{20ac}".repeat(count);
        let both = Denial { reason: &long, pattern: Some(&long), ..Denial::default() };
        assert_eq!(
            variables(both, FRAME_BYTES_MAX)[2..],
            [format!("sess.reason=\"{}\"", euros(85)), format!("sess.pattern=\"{}\"", euros(42))]
        );
        let room = TEXTS_BYTES_MIN;
        let pattern = euros(room / 2 / 3);
        let reason = euros((room - pattern.len()) / 3);
        assert_eq!(
            variables(both, FRAME_BYTES_MIN)[2..],
            [format!("sess.reason=\"{reason}\""), format!("sess.pattern=\"{pattern}\"")]
        );
        // A short name leaves the rest to the reason.
        let short = Denial { pattern: Some("ssh"), ..both };
        assert_eq!(variables(short, 256)[2], format!("sess.reason=\"{}\"", euros((room - 3) / 3)));
    }

    #[test]
    fn a_text_cannot_begin_something_new() {
        let denial = Denial { reason: "a\r\nSet-Cookie: b\0\x7f\u{e9}", pattern: Some("x\ty"), ..Denial::default() };
        assert_eq!(variables(denial, 256)[2..], ["sess.reason=\"a??Set-Cookie: b??\u{e9}\"", "sess.pattern=\"x?y\""]);
    }

    #[test]
    fn a_warm_buffer_is_not_grown() {
        let mut out = Vec::with_capacity(2048);
        let place = out.as_ptr();
        let denial = Denial { reason: &"\u{1}".repeat(300), pattern: Some("p"), severity: Some(1), expires_in: None };
        ack(&mut out, 1, 1, &Answer::Denied(denial), 16380);
        ack(&mut out, 1, 2, &Answer::Allowed, 16380);
        assert_eq!((out.as_ptr(), out.capacity()), (place, 2048));
    }
}

//! HAProxy's side of SPOP 2.0 (HAProxy's `doc/SPOE.txt`, section 3).
//!
//! ```text
//! frame      length: 32 bits, type: 8 bits, flags: 32 bits, stream: varint, frame: varint, payload
//! ```

use super::{Session, Verdict};
use anyhow::{Context, bail, ensure};
use std::net::Ipv4Addr;

const FIN: u32 = 1;

// Section 3.2
const HAPROXY_HELLO: u8 = 1;
const NOTIFY: u8 = 3;
const AGENT_HELLO: u8 = 101;
const AGENT_DISCONNECT: u8 = 102;
const ACK: u8 = 103;

/// Section 3.3.2's kinds of values.
const BOOL: u8 = 1;
const UINT32: u8 = 3;
const IPV4: u8 = 6;
const STRING: u8 = 8;

/// HAProxy's own default is 16,384, of which it keeps four bytes for the length.
const FRAME_BYTES_MAX: u64 = 16_380;

#[derive(Debug)]
pub struct Spop {
    is_open: bool,
    asked: u64,
    takes_any_answer: bool,
    /// NOTIFY's payload up to the address.
    before_address: Vec<u8>,
}

impl Spop {
    /// Asks by a message with one argument, an address.
    pub fn new(message: &str, argument: &str) -> Spop {
        let mut before_address = Vec::new();
        push_string(&mut before_address, message);
        before_address.push(1);
        push_string(&mut before_address, argument);
        before_address.push(IPV4);
        Spop { is_open: false, asked: 0, takes_any_answer: false, before_address }
    }

    /// Whatever an agent sets will do: one that does not know our variables is measured.
    pub fn taking_any_answer(mut self, takes: bool) -> Spop {
        self.takes_any_answer = takes;
        self
    }
}

impl Session for Spop {
    fn greet(&mut self, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        for (name, value) in [("supported-versions", "2.0"), ("capabilities", "pipelining,async")] {
            push_string(&mut payload, name);
            payload.push(STRING);
            push_string(&mut payload, value);
        }
        push_string(&mut payload, "max-frame-size");
        payload.push(UINT32);
        push_varint(&mut payload, FRAME_BYTES_MAX);
        push_frame(out, HAPROXY_HELLO, 0, 0, &payload);
    }

    fn may_ask(&self) -> bool {
        self.is_open
    }

    fn ask(&mut self, client: Ipv4Addr, out: &mut Vec<u8>) -> u64 {
        self.asked += 1;
        let length_at = out.len();
        out.extend([0; 4]);
        out.push(NOTIFY);
        out.extend(FIN.to_be_bytes());
        push_varint(out, self.asked);
        push_varint(out, 1);
        out.extend(&self.before_address);
        out.extend(client.octets());
        let length = (out.len() - length_at - 4) as u32;
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
        self.asked
    }

    fn read(&mut self, input: &[u8], _: &mut Vec<u8>, answers: &mut Vec<(u64, Verdict)>) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some((length, rest)) = input[used..].split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            ensure!(length as u64 <= FRAME_BYTES_MAX, "a frame of {length} bytes");
            let Some(frame) = rest.get(..length) else { break };
            used += 4 + length;
            let mut frame = Reader(frame);
            let kind = frame.byte().context("an empty frame")?;
            let flags = frame.take(4).context("a frame without flags")?;
            ensure!(flags == FIN.to_be_bytes(), "a frame with flags {flags:02x?}");
            let (stream, _) = (frame.varint().context("no stream")?, frame.varint().context("no frame's number")?);
            match kind {
                AGENT_HELLO => self.is_open = true,
                ACK => {
                    let verdict = verdict(frame).context("a malformed ACK")?;
                    answers.push((stream, if self.takes_any_answer { Verdict::Unread } else { verdict }));
                }
                AGENT_DISCONNECT => bail!("DISCONNECT: {}", frame.0.escape_ascii()),
                other => bail!("a frame of type {other}"),
            }
        }
        Ok(used)
    }
}

/// What an ACK's actions set: a variable `banned` decides; an agent that sets something else has neither allowed nor
/// denied.
fn verdict(mut actions: Reader<'_>) -> Option<Verdict> {
    const SET_VAR: u8 = 1;
    let mut verdict = Verdict::Other("no variable `banned`", 0);
    while !actions.0.is_empty() {
        let (kind, arguments) = (actions.byte()?, actions.byte()?);
        if (kind, arguments) != (SET_VAR, 3) {
            return None;
        }
        let (_scope, name) = (actions.byte()?, actions.string()?);
        let head = actions.byte()?;
        let value = match head & 0xf {
            0 => None,
            BOOL => Some(u64::from(head >> 4)),
            2..=5 => Some(actions.varint()?),
            IPV4 => actions.take(4).map(|_| None)?,
            7 => actions.take(16).map(|_| None)?,
            8 | 9 => actions.string().map(|_| None)?,
            _ => return None,
        };
        if name == b"banned" {
            verdict = match value? {
                0 => Verdict::Allowed,
                _ => Verdict::Denied,
            };
        }
    }
    Some(verdict)
}

fn push_frame(out: &mut Vec<u8>, kind: u8, stream: u64, frame: u64, payload: &[u8]) {
    let mut bytes = vec![kind];
    bytes.extend(FIN.to_be_bytes());
    push_varint(&mut bytes, stream);
    push_varint(&mut bytes, frame);
    bytes.extend(payload);
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    push_varint(out, text.len() as u64);
    out.extend(text.as_bytes());
}

/// Section 3.1: what is below 240 is one byte; of the rest four bits are in the first byte and seven in each further one.
fn push_varint(out: &mut Vec<u8>, number: u64) {
    let Some(mut rest) = number.checked_sub(240) else { return out.push(number as u8) };
    out.push((rest as u8 & 0xf) | 0xf0);
    rest >>= 4;
    while let Some(more) = rest.checked_sub(128) {
        out.push((more as u8 & 0x7f) | 0x80);
        rest = more >> 7;
    }
    out.push(rest as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let first = u64::from(self.byte()?);
        if first < 240 {
            return Some(first);
        }
        let (mut number, mut shift) = (first, 4);
        loop {
            let byte = u64::from(self.byte()?);
            number = number.checked_add(byte.checked_shl(shift)?)?;
            shift += 7;
            if byte < 128 {
                return Some(number);
            }
        }
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.varint()?;
        self.take(length.try_into().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_specification_draws_them() {
        for (number, bytes) in [
            (0, &[0][..]),
            (239, &[239]),
            (240, &[240, 0]),
            (2287, &[255, 127]),
            (2288, &[240, 128, 0]),
            (264_431, &[255, 255, 127]),
            (264_432, &[240, 128, 128, 0]),
        ] {
            let mut out = Vec::new();
            push_varint(&mut out, number);
            assert_eq!(out, bytes, "{number}");
            assert_eq!(Reader(bytes).varint(), Some(number));
        }
        assert_eq!(Reader(&[255; 20]).varint(), None);
    }

    #[test]
    fn answers_are_read_whole_and_in_pieces() {
        let mut session = Spop::new("check-client-ip", "src");
        let mut input = Vec::new();
        push_frame(&mut input, AGENT_HELLO, 0, 0, b"");
        push_frame(&mut input, ACK, 1, 1, b"\x01\x03\x02\x06banned\x11\x01\x03\x01\x06reason\x08\x02xy");
        push_frame(&mut input, ACK, 2, 1, b"\x01\x03\x01\x06banned\x03\x00");
        push_frame(&mut input, ACK, 3, 1, b"\x01\x03\x01\x08ip_score\x04\x05");
        let want = [(1, Verdict::Denied), (2, Verdict::Allowed), (3, Verdict::Other("no variable `banned`", 0))];
        for piece in [1, 7, usize::MAX] {
            session.is_open = false;
            let (mut rest, mut answers) = (Vec::new(), Vec::new());
            for bytes in input.chunks(piece.min(input.len())) {
                rest.extend(bytes);
                let used = session.read(&rest, &mut Vec::new(), &mut answers).unwrap();
                rest.drain(..used);
            }
            assert!(session.may_ask() && rest.is_empty());
            assert_eq!(answers, want);
        }
        let (mut session, mut answers) = (session.taking_any_answer(true), Vec::new());
        session.read(&input, &mut Vec::new(), &mut answers).unwrap();
        assert_eq!(answers, [(1, Verdict::Unread), (2, Verdict::Unread), (3, Verdict::Unread)]);
        let mut gone = Vec::new();
        push_frame(&mut gone, AGENT_DISCONNECT, 0, 0, b"why");
        assert!(session.read(&gone, &mut Vec::new(), &mut Vec::new()).unwrap_err().to_string().contains("why"));
    }
}

//! Envoy's side of gRPC's `Authorization/Check`, over cleartext HTTP/2 with prior knowledge (RFC 9113), as Envoy speaks it:
//! the fields of a call go into the table of the server's decoder the first time (RFC 7541 §6.2.1), and are one byte each
//! from then on.
//!
//! Only what this needs: the server's SETTINGS, its windows, and of an answer the message and `grpc-status`.

use super::{Session, Verdict};
use anyhow::{Context, bail, ensure};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD_BYTES: usize = 9;

// RFC 9113 §6
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

// RFC 9113 §6.5.2
const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

const WINDOW_MAX: u32 = (1 << 31) - 1;
const WINDOW_DEFAULT: i64 = 65_535;

/// `grpc-status` as a server writes the name: as it is, or with Huffman's code (RFC 7541 §5.2).
const STATUS_PLAIN: &[u8] = b"grpc-status";
const STATUS_CODED: &[u8] = &[0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];

const FIELDS: [(&str, &str); 7] = [
    (":path", "/envoy.service.auth.v3.Authorization/Check"),
    (":authority", "fail2ban"),
    ("te", "trailers"),
    ("grpc-timeout", "200m"),
    ("content-type", "application/grpc"),
    ("x-envoy-internal", "true"),
    ("x-forwarded-for", "192.0.2.44"),
];

#[derive(Debug)]
pub struct Grpc {
    settings_seen: bool,
    /// Whether the server's table takes our fields, and whether they are in it.
    has_table: bool,
    is_in_table: bool,
    streams_max: u32,
    next_stream: u32,
    /// What may be sent on a new stream, and on the connection.
    stream_window: i64,
    window: i64,
    /// What was received of the calls that are under way.
    open: HashMap<u32, Call>,
    /// What was received since the connection's window was last opened.
    received: u32,
    in_headers: Option<(u32, u8)>,
    goes_away: bool,
    /// A message up to the client's address, and behind it.
    message: Message,
}

#[derive(Debug, Default)]
struct Call {
    body: Vec<u8>,
    fields: Vec<u8>,
}

impl Grpc {
    pub fn new() -> Grpc {
        Grpc {
            settings_seen: false,
            has_table: true,
            is_in_table: false,
            streams_max: u32::MAX,
            next_stream: 1,
            stream_window: WINDOW_DEFAULT,
            window: WINDOW_DEFAULT,
            open: HashMap::new(),
            received: 0,
            in_headers: None,
            goes_away: false,
            message: Message::new(),
        }
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let (name, value) = setting.split_at(2);
            let value = u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
            match u16::from_be_bytes([name[0], name[1]]) {
                HEADER_TABLE_SIZE => self.has_table = value >= 4096,
                MAX_CONCURRENT_STREAMS => self.streams_max = value,
                INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
                _ => {}
            }
        }
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        // POST, http
        out.extend([0x83, 0x86]);
        for (at, (name, value)) in FIELDS.iter().enumerate() {
            if self.is_in_table {
                // Static fields are 1 to 61, and the newest of the others is 62.
                out.push(0x80 | (62 + FIELDS.len() - 1 - at) as u8);
                continue;
            }
            out.push(if self.has_table { 0x40 } else { 0 });
            for text in [name, value] {
                out.push(text.len() as u8);
                out.extend(text.as_bytes());
            }
        }
        self.is_in_table = self.has_table;
    }

    fn end(&mut self, stream: u32, answers: &mut Vec<(u64, Verdict)>) -> anyhow::Result<()> {
        let Some(call) = self.open.remove(&stream) else {
            bail!("an answer on stream {stream}, where nothing is asked")
        };
        let verdict = match status(&call.fields) {
            Some(0) => verdict(&call.body).context("a malformed CheckResponse")?,
            Some(status) => Verdict::Other("grpc-status", status),
            None => Verdict::Other("no grpc-status", 0),
        };
        answers.push((u64::from(stream), verdict));
        Ok(())
    }
}

impl Session for Grpc {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend(PREFACE);
        let settings = [(HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW_MAX)];
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        push_frame(out, SETTINGS, 0, 0, &payload);
        push_frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - WINDOW_DEFAULT as u32).to_be_bytes());
    }

    fn may_ask(&self) -> bool {
        let bytes = self.message.bytes_max() as i64;
        self.settings_seen
            && !self.goes_away
            && (self.open.len() as u64) < u64::from(self.streams_max)
            && self.stream_window >= bytes
            && self.window >= bytes
            && self.next_stream < WINDOW_MAX - 2
    }

    fn ask(&mut self, client: Ipv4Addr, out: &mut Vec<u8>) -> u64 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let at = out.len();
        push_head(out, 0, HEADERS, END_HEADERS, stream);
        self.head(out);
        set_length(out, at);
        let at = out.len();
        push_head(out, 0, DATA, END_STREAM, stream);
        self.message.push(client, out);
        set_length(out, at);
        self.window -= (out.len() - at - HEAD_BYTES) as i64;
        self.open.insert(stream, Call::default());
        u64::from(stream)
    }

    fn read(&mut self, input: &[u8], out: &mut Vec<u8>, answers: &mut Vec<(u64, Verdict)>) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some((head, rest)) = input[used..].split_first_chunk::<HEAD_BYTES>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            ensure!(length <= 16_384, "a frame of {length} bytes");
            let Some(payload) = rest.get(..length) else { break };
            used += HEAD_BYTES + length;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    self.settings(payload);
                    self.settings_seen = true;
                    push_frame(out, SETTINGS, ACK, 0, &[]);
                }
                PING if flags & ACK == 0 => push_frame(out, PING, ACK, 0, payload),
                WINDOW_UPDATE if stream == 0 => {
                    let increment = payload.try_into().map(u32::from_be_bytes).context("a malformed WINDOW_UPDATE")?;
                    self.window += i64::from(increment);
                }
                HEADERS | CONTINUATION => {
                    let flags_of_headers = match (kind, self.in_headers) {
                        (HEADERS, None) => flags,
                        (CONTINUATION, Some((of, flags_of_headers))) if of == stream => flags_of_headers,
                        _ => bail!("a header block within another"),
                    };
                    ensure!(flags & PADDED == 0 || kind == CONTINUATION, "padding, which no server needs");
                    let call = self.open.get_mut(&stream).with_context(|| format!("HEADERS on stream {stream}"))?;
                    call.fields.extend(payload);
                    self.in_headers = (flags & END_HEADERS == 0).then_some((stream, flags_of_headers));
                    if self.in_headers.is_none() && flags_of_headers & END_STREAM != 0 {
                        self.end(stream, answers)?;
                    }
                }
                DATA => {
                    ensure!(flags & PADDED == 0, "padding, which no server needs");
                    let call = self.open.get_mut(&stream).with_context(|| format!("DATA on stream {stream}"))?;
                    call.body.extend(payload);
                    self.received += length as u32;
                    if flags & END_STREAM != 0 {
                        self.end(stream, answers)?;
                    }
                }
                RST_STREAM => {
                    self.open.remove(&stream);
                    let code = payload.try_into().map(u32::from_be_bytes).context("a malformed RST_STREAM")?;
                    answers.push((u64::from(stream), Verdict::Other("RST_STREAM", code)));
                }
                GOAWAY => self.goes_away = true,
                _ => {}
            }
        }
        if self.received > 1 << 20 {
            push_frame(out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        Ok(used)
    }
}

fn push_head(out: &mut Vec<u8>, length: u32, kind: u8, flags: u8, stream: u32) {
    out.extend(&length.to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
}

fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    push_head(out, payload.len() as u32, kind, flags, stream);
    out.extend(payload);
}

/// Of the frame that began at `at` and ends here.
fn set_length(out: &mut [u8], at: usize) {
    let length = ((out.len() - at - HEAD_BYTES) as u32).to_be_bytes();
    out[at..at + 3].copy_from_slice(&length[1..]);
}

/// The value of `grpc-status` in header blocks. As we have announced a table of no bytes, it stands there in full.
fn status(fields: &[u8]) -> Option<u32> {
    let after = [STATUS_PLAIN, STATUS_CODED].iter().find_map(|name| {
        let at = fields.windows(name.len()).rposition(|bytes| bytes == *name)?;
        fields.get(at + name.len()..)
    })?;
    let (head, value) = after.split_first()?;
    let value = value.get(..usize::from(head & 0x7f))?;
    if head & 0x80 == 0 {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    // Digits have five bits for 0 to 2 and six for the others (RFC 7541, Appendix B); a status has one or two of them.
    let bits =
        value.iter().take(2).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (4 - value.len().min(2)));
    let digit = |bits: u32| match bits >> 27 {
        short @ 0..=2 => (Some(short), 5),
        _ => ((0x19..=0x1f).contains(&(bits >> 26)).then(|| (bits >> 26) - 0x19 + 3), 6),
    };
    let (first, width) = digit(bits);
    let first = first?;
    match digit(bits << width) {
        (Some(second), more) if width + more <= 8 * value.len() as u32 => Some(first * 10 + second),
        _ => Some(first),
    }
}

/// What a message of gRPC holds: `CheckResponse.status.code`.
fn verdict(body: &[u8]) -> Option<Verdict> {
    let (head, message) = body.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || message.len() != length {
        return None;
    }
    let status = fields(message)?.remove(&1).unwrap_or_default();
    let Value::Bytes(status) = status else { return None };
    match fields(status)?.get(&1) {
        None | Some(Value::Number(0)) => Some(Verdict::Allowed),
        // PERMISSION_DENIED
        Some(Value::Number(7)) => Some(Verdict::Denied),
        Some(Value::Number(code)) => Some(Verdict::Other("status", u32::try_from(*code).ok()?)),
        Some(Value::Bytes(_)) => None,
    }
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Default for Value<'_> {
    fn default() -> Self {
        Value::Bytes(&[])
    }
}

/// The fields of a message of protobuf, the last of each number.
fn fields(mut message: &[u8]) -> Option<BTreeMap<u64, Value<'_>>> {
    let mut fields = BTreeMap::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut message)?),
            2 => {
                let length = varint(&mut message)?;
                let (bytes, rest) = message.split_at_checked(length.try_into().ok()?)?;
                message = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        fields.insert(tag >> 3, value);
    }
    Some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A `CheckRequest` as Envoy's HTTP filter fills one for a browser's request, but for the client's address.
#[derive(Debug)]
struct Message {
    /// The fields behind `attributes.source`.
    after: Vec<u8>,
}

impl Message {
    fn new() -> Message {
        let mut headers = Vec::new();
        for (name, value) in [
            (":authority", "mail.example.com"),
            (":method", "GET"),
            (":path", "/webmail/?folder=INBOX"),
            (":scheme", "https"),
            ("accept", "*/*"),
            ("user-agent", "curl/8.14.1"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "0f4a13de-3c1e-4a8e-9d8a-2f6b7f1f9f00"),
        ] {
            let entry = [bytes(1, name.as_bytes()), bytes(2, value.as_bytes())].concat();
            headers.extend(bytes(3, &entry));
        }
        let http = [
            bytes(1, b"1234567890123456789"),
            bytes(2, b"GET"),
            headers,
            bytes(4, b"/webmail/?folder=INBOX"),
            bytes(5, b"mail.example.com"),
            bytes(10, b"HTTP/1.1"),
        ]
        .concat();
        let destination = bytes(1, &socket_address(Ipv4Addr::new(203, 0, 113, 80), 443));
        let after = [bytes(2, &destination), bytes(4, &bytes(2, &http))].concat();
        Message { after }
    }

    fn bytes_max(&self) -> usize {
        self.after.len() + 64
    }

    /// With gRPC's prefix.
    fn push(&self, client: Ipv4Addr, out: &mut Vec<u8>) {
        let source = bytes(1, &bytes(1, &socket_address(client, 51_234)));
        let length = source.len() + self.after.len();
        let mut attributes = vec![1 << 3 | 2];
        push_varint(&mut attributes, length as u64);
        out.push(0);
        out.extend(((attributes.len() + length) as u32).to_be_bytes());
        out.extend(attributes);
        out.extend(source);
        out.extend(&self.after);
    }
}

fn socket_address(address: Ipv4Addr, port: u64) -> Vec<u8> {
    let mut inner = bytes(2, address.to_string().as_bytes());
    inner.push(3 << 3);
    push_varint(&mut inner, port);
    bytes(1, &inner)
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    push_varint(&mut out, value.len() as u64);
    out.extend(value);
    out
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_both_codes() {
        let block = |name: &[u8], coded: bool, value: &[u8], value_coded: bool| {
            let length = |bytes: &[u8], coded: bool| bytes.len() as u8 | if coded { 0x80 } else { 0 };
            [&[0, length(name, coded)], name, &[length(value, value_coded)], value].concat()
        };
        for (value, coded, want) in [
            (&b"0"[..], false, 0),
            (b"14", false, 14),
            // 0: 00000; 7: 011101; 14: 00001 011010; padding is ones.
            (&[0b0000_0111], true, 0),
            (&[0b0111_0111], true, 7),
            (&[0b0000_1011, 0b0101_1111], true, 14),
        ] {
            assert_eq!(status(&block(STATUS_PLAIN, false, value, coded)), Some(want));
            assert_eq!(status(&block(STATUS_CODED, true, value, coded)), Some(want));
        }
        assert_eq!(status(b"\x88"), None);
    }

    #[test]
    fn answers_are_read_whole_and_in_pieces() {
        let mut input = Vec::new();
        push_frame(&mut input, SETTINGS, 0, 0, &[]);
        push_frame(&mut input, PING, 0, 0, b"12345678");
        for (stream, message) in [(1, &b"\0\0\0\0\x04\x0a\0\x1a\0"[..]), (3, b"\0\0\0\0\x04\x0a\x02\x08\x07")] {
            push_frame(&mut input, HEADERS, END_HEADERS, stream, b"\x88");
            push_frame(&mut input, DATA, 0, stream, message);
            push_frame(&mut input, HEADERS, END_STREAM, stream, b"\0\x0bgrpc-");
            push_frame(&mut input, CONTINUATION, END_HEADERS, stream, b"status\x010");
        }
        push_frame(&mut input, RST_STREAM, 0, 5, &[0, 0, 0, 11]);
        let want = [(1, Verdict::Allowed), (3, Verdict::Denied), (5, Verdict::Other("RST_STREAM", 11))];
        for piece in [1, 10, input.len()] {
            let mut session = Grpc::new();
            let mut out = Vec::new();
            let tokens = [1, 2, 3].map(|last| session.ask(Ipv4Addr::new(192, 0, 2, last), &mut out));
            assert_eq!(tokens, [1, 3, 5]);
            out.clear();
            let (mut rest, mut answers) = (Vec::new(), Vec::new());
            for bytes in input.chunks(piece) {
                rest.extend(bytes);
                let used = session.read(&rest, &mut out, &mut answers).unwrap();
                rest.drain(..used);
            }
            assert_eq!(answers, want);
            assert!(session.may_ask() && rest.is_empty());
            assert_eq!(out, b"\0\0\0\x04\x01\0\0\0\0\0\0\x08\x06\x01\0\0\0\x0012345678");
        }
    }

    #[test]
    fn the_question_names_the_client() {
        let mut out = Vec::new();
        Message::new().push(Ipv4Addr::new(198, 18, 0, 1), &mut out);
        let message = &out[5..];
        assert_eq!(out[..5], [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
        let mut at = message;
        for number in [1, 1, 1, 1] {
            let Some(Value::Bytes(inner)) = fields(at).unwrap().remove(&number) else { panic!() };
            at = inner;
        }
        let Some(Value::Bytes(address)) = fields(at).unwrap().remove(&2) else { panic!() };
        assert_eq!(address, b"198.18.0.1");
    }
}

//! HAProxy's side of SPOP, as far as a test needs it (HAProxy's doc/SPOE.txt, section 3).

use super::DEADLINE;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

const FIN: u32 = 1;

/// A value of an argument or a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Int(u64),
    Ip(IpAddr),
    Text(String),
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Hello(BTreeMap<String, Value>),
    Disconnect { status: u64, message: String },
    Ack { stream: u64, frame: u64, variables: BTreeMap<String, Value> },
}

impl Said {
    /// Whether an answer says that the client is banned; it must say so in both scopes.
    #[track_caller]
    pub fn banned(&self) -> bool {
        let Said::Ack { variables, .. } = self else { panic!("not an answer: {self:?}") };
        assert_eq!(variables["sess.banned"], variables["txn.banned"], "{self:?}");
        match variables["sess.banned"] {
            Value::Int(0) => false,
            Value::Int(1) => true,
            _ => panic!("{self:?}"),
        }
    }
}

/// One connection to the agent.
pub struct Engine {
    stream: TcpStream,
    rest: Vec<u8>,
    asked: u64,
}

impl Engine {
    /// Connects without a word.
    pub fn connect(to: SocketAddr) -> io::Result<Engine> {
        let stream = TcpStream::connect_timeout(&to, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Engine { stream, rest: Vec::new(), asked: 0 })
    }

    /// Connects and greets.
    pub fn open(to: SocketAddr) -> io::Result<Engine> {
        let mut engine = Engine::connect(to)?;
        engine.send(&hello(false))?;
        match engine.read()? {
            Some(Said::Hello(_)) => Ok(engine),
            other => Err(io::Error::other(format!("no hello: {other:?}"))),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Asks about one client and reads the answer.
    #[track_caller]
    pub fn ask(&mut self, arguments: &[(&str, Value)]) -> Said {
        self.asked += 1;
        let (stream, frame) = (self.asked, 1);
        self.send(&notify(stream, frame, &[("check-client-ip", arguments)])).expect("to ask");
        let said = self.read().expect("an answer").expect("an answer before the end");
        assert!(matches!(said, Said::Ack { stream: s, frame: f, .. } if (s, f) == (stream, frame)), "{said:?}");
        said
    }

    /// Whether a client is banned.
    #[track_caller]
    pub fn banned(&mut self, client: &str) -> bool {
        self.ask(&[("src", Value::Ip(client.parse().expect("an address")))]).banned()
    }

    /// The next frame; `None` if the agent has closed.
    pub fn read(&mut self) -> io::Result<Option<Said>> {
        loop {
            if let Some((length, rest)) = self.rest.split_first_chunk() {
                let length = u32::from_be_bytes(*length) as usize;
                if let Some(frame) = rest.get(..length) {
                    let said = decode(frame).ok_or_else(|| io::Error::other(format!("malformed: {frame:02x?}")))?;
                    self.rest.drain(..4 + length);
                    return Ok(Some(said));
                }
            }
            let mut buffer = [0; 64 << 10];
            match self.stream.read(&mut buffer)? {
                0 if self.rest.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.rest.extend_from_slice(&buffer[..n]),
            }
        }
    }

    pub fn set_read_timeout(&self, time: Duration) {
        self.stream.set_read_timeout(Some(time)).expect("an option of every socket");
    }
}

/// HAPROXY-HELLO as HAProxy 2.6 sends it, or that of a health check.
pub fn hello(healthcheck: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    push_item(&mut payload, "supported-versions", &Value::Text("2.0".to_owned()));
    push_string(&mut payload, b"max-frame-size");
    payload.extend([3]);
    push_varint(&mut payload, 16_380);
    push_item(&mut payload, "capabilities", &Value::Text("pipelining,async".to_owned()));
    if healthcheck {
        push_string(&mut payload, b"healthcheck");
        payload.push(0x11);
    }
    frame(1, 0, 0, &payload)
}

/// NOTIFY with some messages.
pub fn notify(stream: u64, frame_id: u64, messages: &[(&str, &[(&str, Value)])]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (name, arguments) in messages {
        push_string(&mut payload, name.as_bytes());
        payload.push(arguments.len() as u8);
        for (name, value) in *arguments {
            push_item(&mut payload, name, value);
        }
    }
    frame(3, stream, frame_id, &payload)
}

pub fn frame(kind: u8, stream: u64, frame_id: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(FIN.to_be_bytes());
    push_varint(&mut bytes, stream);
    push_varint(&mut bytes, frame_id);
    bytes.extend(payload);
    [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()
}

fn push_item(out: &mut Vec<u8>, name: &str, value: &Value) {
    push_string(out, name.as_bytes());
    match value {
        Value::Null => out.push(0),
        Value::Int(number) => {
            out.push(5);
            push_varint(out, *number);
        }
        Value::Ip(IpAddr::V4(ip)) => {
            out.push(6);
            out.extend(ip.octets());
        }
        Value::Ip(IpAddr::V6(ip)) => {
            out.push(7);
            out.extend(ip.octets());
        }
        Value::Text(text) => {
            out.push(8);
            push_string(out, text.as_bytes());
        }
    }
}

fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    push_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Section 3.1's table: the first byte holds what is below 240, or the lowest four bits above it.
fn push_varint(out: &mut Vec<u8>, number: u64) {
    if number < 240 {
        return out.push(number as u8);
    }
    out.push(number as u8 | 0xf0);
    let mut rest = (number - 240) >> 4;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest = (rest - 128) >> 7;
    }
    out.push(rest as u8);
}

struct Decoder<'a>(&'a [u8]);

impl Decoder<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let mut number = u64::from(first);
        if first < 240 {
            return Some(number);
        }
        let mut shift = 4;
        loop {
            let byte = self.byte()?;
            number += u64::from(byte) << shift;
            shift += 7;
            if byte < 128 {
                return Some(number);
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        let length = self.varint()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn value(&mut self) -> Option<Value> {
        match self.byte()? {
            0 => Some(Value::Null),
            2..=5 => self.varint().map(Value::Int),
            8 => self.text().map(Value::Text),
            _ => None,
        }
    }
}

fn decode(frame: &[u8]) -> Option<Said> {
    let (kind, rest) = frame.split_first()?;
    let (flags, rest) = rest.split_first_chunk()?;
    let mut decoder = Decoder(rest);
    let (stream, frame) = (decoder.varint()?, decoder.varint()?);
    if u32::from_be_bytes(*flags) != FIN {
        return None;
    }
    if *kind == 103 {
        let mut variables = BTreeMap::new();
        while !decoder.0.is_empty() {
            if (decoder.byte()?, decoder.byte()?) != (1, 3) {
                return None;
            }
            let scope = ["proc", "sess", "txn", "req", "res"].get(usize::from(decoder.byte()?))?;
            let name = decoder.text()?;
            variables.insert(format!("{scope}.{name}"), decoder.value()?);
        }
        return Some(Said::Ack { stream, frame, variables });
    }
    let mut items = BTreeMap::new();
    while !decoder.0.is_empty() {
        items.insert(decoder.text()?, decoder.value()?);
    }
    match (kind, items.get("status-code"), items.get("message")) {
        (101, ..) => Some(Said::Hello(items)),
        (102, Some(Value::Int(status)), Some(Value::Text(message))) => {
            Some(Said::Disconnect { status: *status, message: message.clone() })
        }
        _ => None,
    }
}

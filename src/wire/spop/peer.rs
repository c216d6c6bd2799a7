//! HAProxy's side, for the tests: writes what it sends, reads what it is sent. Written from the specification's text by
//! itself, so that a misunderstanding has to be made twice to go unseen.

use super::data::Value;

pub const FIN: u32 = 1;
pub const ABORT: u32 = 2;

/// A frame from an agent, as strictly as HAProxy reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentFrame {
    Hello { version: String, max_frame_size: u64, capabilities: String },
    Disconnect { code: u32, message: String },
    Ack { stream_id: u64, frame_id: u64, variables: Vec<Variable> },
}

/// `scope.name=value`, numbers bare, strings in quotes.
pub type Variable = String;

pub fn varint(number: u64) -> Vec<u8> {
    if number < 240 {
        return vec![number as u8];
    }
    let mut bytes = vec![(number % 16) as u8 + 240];
    let mut rest = (number - 240) / 16;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 + 128);
        rest = rest / 128 - 1;
    }
    bytes.push(rest as u8);
    bytes
}

pub fn string(text: &[u8]) -> Vec<u8> {
    [varint(text.len() as u64), text.to_vec()].concat()
}

pub fn value(value: &Value<'_>) -> Vec<u8> {
    match *value {
        Value::Null => vec![0],
        Value::Bool(is_so) => vec![if is_so { 0x11 } else { 0x01 }],
        Value::Int32(number) => [vec![2], varint(i64::from(number) as u64)].concat(),
        Value::Uint32(number) => [vec![3], varint(u64::from(number))].concat(),
        Value::Int64(number) => [vec![4], varint(number as u64)].concat(),
        Value::Uint64(number) => [vec![5], varint(number)].concat(),
        Value::Ipv4(ip) => [&[6][..], &ip.octets()].concat(),
        Value::Ipv6(ip) => [&[7][..], &ip.octets()].concat(),
        Value::String(text) => [vec![8], string(text)].concat(),
        Value::Binary(bytes) => [vec![9], string(bytes)].concat(),
    }
}

pub fn push_items(out: &mut Vec<u8>, items: &[(&[u8], Value<'_>)]) {
    for (key, item) in items {
        out.extend(string(key));
        out.extend(value(item));
    }
}

/// One message of a NOTIFY.
pub fn message(name: &[u8], arguments: &[(&[u8], Value<'_>)]) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.push(u8::try_from(arguments.len()).unwrap());
    push_items(&mut bytes, arguments);
    bytes
}

pub fn frame(kind: u8, flags: u32, stream_id: u64, frame_id: u64, payload: &[u8]) -> Vec<u8> {
    let head = [&[kind][..], &flags.to_be_bytes(), &varint(stream_id), &varint(frame_id)].concat();
    let length = u32::try_from(head.len() + payload.len()).unwrap();
    [&length.to_be_bytes()[..], &head, payload].concat()
}

pub fn notify(stream_id: u64, frame_id: u64, messages: &[Vec<u8>]) -> Vec<u8> {
    frame(3, FIN, stream_id, frame_id, &messages.concat())
}

pub fn hello(max_frame_size: u32, capabilities: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    push_items(
        &mut payload,
        &[
            (b"supported-versions", Value::String(b"2.0")),
            (b"max-frame-size", Value::Uint32(max_frame_size)),
            (b"capabilities", Value::String(capabilities.as_bytes())),
        ],
    );
    frame(1, FIN, 0, 0, &payload)
}

pub fn disconnect(code: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    push_items(&mut payload, &[(b"status-code", Value::Uint32(code)), (b"message", Value::String(b"as it may be"))]);
    frame(2, FIN, 0, 0, &payload)
}

/// Whole frames of an agent; anything else is a mistake of ours.
pub fn decode(mut bytes: &[u8]) -> Vec<AgentFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        frames.push(decode_frame(&bytes[4..4 + length]));
        bytes = &bytes[4 + length..];
    }
    frames
}

fn decode_frame(frame: &[u8]) -> AgentFrame {
    let mut at = 5;
    assert_eq!(frame[1..5], [0, 0, 0, 1], "FIN and nothing else");
    let stream_id = take_varint(frame, &mut at);
    let frame_id = take_varint(frame, &mut at);
    if frame[0] == 103 {
        let mut variables = Vec::new();
        while at < frame.len() {
            assert_eq!(frame[at..at + 2], [1, 3], "set-var with three arguments");
            let scope = ["proc", "sess", "txn", "req", "res"][usize::from(frame[at + 2])];
            at += 3;
            let name = take_string(frame, &mut at);
            variables.push(format!("{scope}.{name}={}", take_value(frame, &mut at)));
        }
        return AgentFrame::Ack { stream_id, frame_id, variables };
    }
    assert_eq!((stream_id, frame_id), (0, 0));
    let mut items = std::collections::BTreeMap::new();
    while at < frame.len() {
        let key = take_string(frame, &mut at);
        assert!(items.insert(key, take_value(frame, &mut at)).is_none(), "a key twice");
    }
    let mut item = |key: &str| items.remove(key).unwrap();
    let text = |quoted: String| quoted.strip_prefix('"').unwrap().strip_suffix('"').unwrap().to_owned();
    let decoded = match frame[0] {
        101 => AgentFrame::Hello {
            version: text(item("version")),
            max_frame_size: item("max-frame-size").parse().unwrap(),
            capabilities: text(item("capabilities")),
        },
        102 => AgentFrame::Disconnect { code: item("status-code").parse().unwrap(), message: text(item("message")) },
        kind => panic!("no agent sends frames of type {kind}"),
    };
    assert!(items.is_empty(), "{items:?}");
    decoded
}

fn take_varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut number = u128::from(bytes[*at]);
    *at += 1;
    let mut factor = 16;
    while factor > 16 || number >= 240 {
        let byte = u128::from(bytes[*at]);
        *at += 1;
        number += byte * factor;
        factor *= 128;
        if byte < 128 {
            break;
        }
    }
    number.try_into().unwrap()
}

fn take_string(bytes: &[u8], at: &mut usize) -> String {
    let length = usize::try_from(take_varint(bytes, at)).unwrap();
    let text = &bytes[*at..*at + length];
    *at += length;
    String::from_utf8(text.to_vec()).unwrap()
}

/// The types that an agent of ours uses: int32, uint32, string.
fn take_value(bytes: &[u8], at: &mut usize) -> String {
    let kind = bytes[*at];
    *at += 1;
    match kind {
        2 => i32::try_from(take_varint(bytes, at)).unwrap().to_string(),
        3 => u32::try_from(take_varint(bytes, at)).unwrap().to_string(),
        8 => format!("\"{}\"", take_string(bytes, at)),
        kind => panic!("an unexpected value of type {kind:#x}"),
    }
}

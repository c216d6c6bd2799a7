//! Properties of the whole session: what is sent is seen, how a stream is cut does not matter, nothing panics, and
//! whatever is said can be read by HAProxy.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::answer::{self, Answer, Denial};
use super::peer::{self, AgentFrame, FIN};
use super::{
    Argument, Client, Closing, FRAME_BYTES_MAX, FRAME_BYTES_MIN, Fault, Handled, Notify, Session, Step, Value,
};

/// Everything that a caller learns from a step, owned, with what the agent said in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Hello(AgentFrame),
    Notify { stream_id: u64, frame_id: u64, messages: Vec<String>, clients: Vec<String> },
    UnknownFrame,
    Close(Closing, AgentFrame),
}

/// What driving a connection comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driven {
    pub seen: Vec<Seen>,
    /// Bytes at the end that were not consumed.
    pub unread: usize,
}

/// A connection on which the pieces of `stream` between `cuts` arrive one after the other. Answers every question, as a
/// caller would, and reads all that was said as HAProxy would.
pub fn drive(stream: &[u8], cuts: &[usize]) -> Driven {
    let mut session = Session::new();
    let mut seen = Vec::new();
    let mut out = Vec::new();
    let mut start = 0;
    let mut steps = 0;
    for &end in cuts.iter().chain([&stream.len()]) {
        loop {
            let unread = &stream[start..end];
            steps += 1;
            assert!(steps <= stream.len() + cuts.len() + 2, "no progress");
            out.clear();
            let was_closing = session.is_closing();
            let (consumed, step) = match session.next(unread, &mut out) {
                Step::Incomplete => break,
                Step::Handled { consumed, what: Handled::Hello } => {
                    (consumed, Some(Seen::Hello(said(&out, session.frame_bytes_max()))))
                }
                Step::Handled { consumed, what: Handled::UnknownFrame } => {
                    assert!(out.is_empty());
                    (consumed, Some(Seen::UnknownFrame))
                }
                Step::Handled { consumed, what: Handled::AfterClose } => {
                    assert!(was_closing && out.is_empty() && consumed == unread.len());
                    (consumed, None)
                }
                Step::Notify { notify, consumed } => {
                    let (stream_id, frame_id) = (notify.stream_id, notify.frame_id);
                    assert!(out.is_empty());
                    answer::ack(&mut out, stream_id, frame_id, &Answer::Allowed, session.frame_bytes_max());
                    let variables = vec!["sess.banned=0".to_owned(), "txn.banned=0".to_owned()];
                    let want = AgentFrame::Ack { stream_id, frame_id, variables };
                    assert_eq!(said(&out, session.frame_bytes_max()), want);
                    let messages = notify.messages().map(|message| {
                        let arguments: Vec<String> = message
                            .arguments()
                            .map(|argument| format!("{}={}", argument.name.escape_ascii(), shown(argument.value)))
                            .collect();
                        format!("{}({})", message.name.escape_ascii(), arguments.join(", "))
                    });
                    assert_eq!(notify.clients().collect::<Vec<_>>(), simple_clients(&notify));
                    let clients = notify.clients().map(|client| match client {
                        Client::Ip(ip) => ip.to_string(),
                        Client::Text(text) => shown(Value::String(text)),
                    });
                    let (messages, clients) = (messages.collect(), clients.collect());
                    (consumed, Some(Seen::Notify { stream_id, frame_id, messages, clients }))
                }
                Step::Close { consumed, why } => {
                    assert!(session.is_closing());
                    assert_eq!(consumed, unread.len());
                    (consumed, Some(Seen::Close(why, said(&out, FRAME_BYTES_MIN))))
                }
            };
            assert!(!was_closing || step.is_none(), "something after the end");
            assert!(consumed >= 1 && consumed <= unread.len());
            seen.extend(step);
            start += consumed;
        }
    }
    Driven { seen, unread: stream.len() - start }
}

/// [`Notify::clients`], told simply.
fn simple_clients<'a>(notify: &Notify<'a>) -> Vec<Client<'a>> {
    let mut clients = Vec::new();
    for message in notify.messages() {
        let address = |value| match value {
            Value::Ipv4(ip) => Some(Client::Ip(ip.into())),
            Value::Ipv6(ip) => Some(Client::Ip(ip.into())),
            _ => None,
        };
        let (named, others): (Vec<Argument<'_>>, Vec<Argument<'_>>) = message.arguments().partition(|argument| {
            let name = argument.name.to_ascii_lowercase();
            ["src", "ip", "src_ip", "client_ip"].iter().any(|client_name| client_name.as_bytes() == name)
        });
        let read = |value| match value {
            Value::String(text) => std::str::from_utf8(text).ok()?.parse().ok().map(Client::Ip),
            _ => None,
        };
        clients.extend(named.iter().filter_map(|argument| match argument.value {
            Value::String(text) => Some(Client::Text(text)),
            value => address(value),
        }));
        if !named.iter().any(|argument| address(argument.value).or_else(|| read(argument.value)).is_some()) {
            clients.extend(others.iter().find_map(|argument| address(argument.value)));
            clients.extend(others.iter().find_map(|argument| read(argument.value)));
        }
    }
    clients
}

/// The one frame that was said, no longer than is allowed.
fn said(out: &[u8], frame_bytes_max: u32) -> AgentFrame {
    assert!(out.len() <= frame_bytes_max as usize + 4);
    let [frame] = &peer::decode(out)[..] else { panic!("not one frame: {out:x?}") };
    frame.clone()
}

/// As `tests/golden/spop/expected.txt` writes it.
fn shown(value: Value<'_>) -> String {
    let quoted = |bytes: &[u8]| match bytes {
        [start @ .., _] if start.len() >= 64 => format!("\"{}\"…{}", bytes[..16].escape_ascii(), bytes.len()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    };
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(is_so) => is_so.to_string(),
        Value::Int32(number) => format!("int32:{number}"),
        Value::Uint32(number) => format!("uint32:{number}"),
        Value::Int64(number) => format!("int64:{number}"),
        Value::Uint64(number) => format!("uint64:{number}"),
        Value::Ipv4(ip) => ip.to_string(),
        Value::Ipv6(ip) => ip.to_string(),
        Value::String(text) => quoted(text),
        Value::Binary(bytes) => format!("b{}", quoted(bytes)),
    }
}

/// A line for each, as `tests/golden/spop/expected.txt` has them.
pub fn words(seen: &[Seen]) -> Vec<String> {
    let word = |seen: &Seen| match seen {
        Seen::Hello(frame) => format!("hello, {}", agent_word(frame)),
        Seen::Notify { stream_id, frame_id, messages, clients } => {
            format!("notify {stream_id} {frame_id} {} asks {}", messages.join(" "), clients.join(" "))
        }
        Seen::UnknownFrame => "unknown frame".to_owned(),
        Seen::Close(why, frame) => format!("close: {why:?}, {}", agent_word(frame)),
    };
    seen.iter().map(word).collect()
}

fn agent_word(frame: &AgentFrame) -> String {
    let mut word = "said ".to_owned();
    let _ = match frame {
        AgentFrame::Hello { version, max_frame_size, capabilities } => {
            write!(word, "{version} {max_frame_size} {capabilities:?}")
        }
        AgentFrame::Disconnect { code, .. } => write!(word, "{code}"),
        AgentFrame::Ack { .. } => panic!("the session does not answer questions"),
    };
    word
}

/// A value that owns its bytes.
#[derive(Clone, Debug)]
enum Owned {
    Plain(Value<'static>),
    String(Vec<u8>),
    Binary(Vec<u8>),
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Owned::Plain(value) => *value,
            Owned::String(text) => Value::String(text),
            Owned::Binary(bytes) => Value::Binary(bytes),
        }
    }
}

fn value() -> impl Strategy<Value = Owned> {
    prop_oneof![
        Just(Owned::Plain(Value::Null)),
        any::<bool>().prop_map(|is_so| Owned::Plain(Value::Bool(is_so))),
        any::<i32>().prop_map(|number| Owned::Plain(Value::Int32(number))),
        any::<u32>().prop_map(|number| Owned::Plain(Value::Uint32(number))),
        any::<i64>().prop_map(|number| Owned::Plain(Value::Int64(number))),
        (any::<u64>(), 0..64_u32).prop_map(|(number, bits)| Owned::Plain(Value::Uint64(number >> bits))),
        any::<u32>().prop_map(|bits| Owned::Plain(Value::Ipv4(Ipv4Addr::from_bits(bits)))),
        any::<u128>().prop_map(|bits| Owned::Plain(Value::Ipv6(Ipv6Addr::from_bits(bits)))),
        vec(any::<u8>(), 0..70).prop_map(Owned::String),
        "[0-9a-f:.]{0,12}".prop_map(|text| Owned::String(text.into_bytes())),
        any::<std::net::IpAddr>().prop_map(|ip| Owned::String(ip.to_string().into_bytes())),
        vec(any::<u8>(), 0..300).prop_map(Owned::Binary),
    ]
}

/// A message, and the same as it is to be seen.
fn message() -> impl Strategy<Value = (Vec<u8>, String)> {
    let name = prop_oneof!["check-ip", "", "[ -~]{1,9}"];
    let argument_name = prop_oneof![
        select(vec!["src", "ip", "SRC_IP", "client_ip", ""]).prop_map(str::to_owned),
        "[a-z]{1,6}".prop_map(|name| name),
    ];
    (name, vec((argument_name, value()), 0..6)).prop_map(|(name, arguments)| {
        let items: Vec<(&[u8], Value<'_>)> =
            arguments.iter().map(|(name, value)| (name.as_bytes(), value.value())).collect();
        let shown: Vec<String> =
            items.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), shown(*value))).collect();
        let text = format!("{}({})", name.as_bytes().escape_ascii(), shown.join(", "));
        (peer::message(name.as_bytes(), &items), text)
    })
}

/// An identifier of any length.
fn identifier() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, bits)| number >> bits)
}

/// A frame that comes after the hello, and what is to be seen of it, but for the clients.
fn frame() -> impl Strategy<Value = (Vec<u8>, Seen)> {
    let notify = (identifier(), identifier(), vec(message(), 0..4)).prop_map(|(stream_id, frame_id, messages)| {
        let (bytes, messages): (Vec<Vec<u8>>, Vec<String>) = messages.into_iter().unzip();
        let seen = Seen::Notify { stream_id, frame_id, messages, clients: vec![] };
        (peer::notify(stream_id, frame_id, &bytes), seen)
    });
    let unknown = (4..101_u8, any::<u32>(), identifier(), vec(any::<u8>(), 0..30)).prop_map(
        |(kind, flags, stream_id, payload)| {
            (peer::frame(kind, flags | FIN, stream_id, 1, &payload), Seen::UnknownFrame)
        },
    );
    prop_oneof![5 => notify, 1 => unknown]
}

fn without_clients(mut seen: Vec<Seen>) -> Vec<Seen> {
    for seen in &mut seen {
        if let Seen::Notify { clients, .. } = seen {
            clients.clear();
        }
    }
    seen
}

/// Bytes that look like SPOP more often than not.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        3 => Just(peer::hello(16380, "pipelining")),
        1 => Just(peer::hello(256, "")),
        1 => Just(peer::disconnect(0)),
        4 => message().prop_map(|(bytes, _)| peer::notify(1, 1, &[bytes])),
        // Any type, flags and payload, in a frame of the right length.
        4 => (0..110_u8, 0..4_u32, vec(any::<u8>(), 0..60))
            .prop_map(|(kind, flags, payload)| peer::frame(kind, flags, 0, 0, &payload)),
        1 => vec(any::<u8>(), 0..12),
        1 => Just(vec![0, 0, 0, 7]),
        1 => Just(vec![0, 0, 0]),
    ];
    prop_oneof![vec(any::<u8>(), 0..200), vec(pieces, 0..12).prop_map(|pieces| pieces.concat())]
}

fn cuts(stream: &[u8], places: &[Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = places.iter().map(|place| place.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn frames_are_seen_as_sent_however_they_are_cut(
        frames in vec(frame(), 0..6),
        places in vec(any::<Index>(), 0..12),
    ) {
        let (bytes, sent): (Vec<Vec<u8>>, Vec<Seen>) = frames.into_iter().unzip();
        let stream = [peer::hello(16380, "pipelining"), bytes.concat()].concat();
        let whole = drive(&stream, &[]);
        prop_assert_eq!(whole.unread, 0);
        prop_assert!(matches!(whole.seen[0], Seen::Hello(_)));
        prop_assert_eq!(without_clients(whole.seen[1..].to_vec()), sent);
        prop_assert_eq!(&drive(&stream, &cuts(&stream, &places)), &whole);
        let every_byte: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(&drive(&stream, &every_byte), &whole);
    }

    /// Not even hostile bytes are understood differently because of where they are cut.
    #[test]
    fn hostile_streams_are_seen_the_same_however_they_are_cut(
        stream in hostile(),
        places in vec(any::<Index>(), 0..12),
    ) {
        let whole = drive(&stream, &[]);
        prop_assert_eq!(&drive(&stream, &cuts(&stream, &places)).seen, &whole.seen);
        let every_byte: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(&drive(&stream, &every_byte).seen, &whole.seen);
        prop_assert!(whole.seen.iter().position(|seen| matches!(seen, Seen::Close(..)))
            .is_none_or(|at| at + 1 == whole.seen.len()));
    }

    #[test]
    fn damaged_streams_do_no_damage(
        frames in vec(frame(), 1..4),
        place in any::<Index>(),
        byte in any::<u8>(),
        cut in any::<Index>(),
    ) {
        let mut stream = peer::hello(16380, "pipelining");
        stream.extend(frames.into_iter().flat_map(|(bytes, _)| bytes));
        let at = place.index(stream.len());
        stream[at] = byte;
        let whole = drive(&stream, &[]);
        prop_assert_eq!(drive(&stream, &[cut.index(stream.len())]).seen, whole.seen);
    }

    /// A payload that ends too early is never taken for one that is whole.
    #[test]
    fn a_message_that_is_cut_is_malformed(message in message(), place in any::<Index>()) {
        let payload = &message.0[..1 + place.index(message.0.len() - 1)];
        prop_assume!(!payload.is_empty() && payload.len() < message.0.len());
        let stream = [peer::hello(16380, ""), peer::frame(3, FIN, 1, 1, payload)].concat();
        prop_assert!(matches!(drive(&stream, &[]).seen[1], Seen::Close(Closing::Fault(Fault::Malformed), _)));
    }

    #[test]
    fn answers_are_read_back_and_never_too_long(
        (stream_id, frame_id) in (identifier(), identifier()),
        reason in "\\PC{0,90}|[ -~\\n\\r]{0,400}",
        pattern in prop::option::of("[a-z\u{e9}-]{0,160}"),
        severity in any::<Option<u8>>(),
        expires_in in prop::option::of((any::<u64>(), 0..64_u32, 0..1_000_000_000_u32)),
        frame_bytes_max in prop_oneof![Just(FRAME_BYTES_MIN), FRAME_BYTES_MIN..800, Just(FRAME_BYTES_MAX)],
    ) {
        let expires_in = expires_in.map(|(seconds, bits, nanos)| Duration::new(seconds >> bits, nanos));
        let denial = Denial { reason: &reason, pattern: pattern.as_deref(), severity, expires_in };
        let mut out = b"before".to_vec();
        answer::ack(&mut out, stream_id, frame_id, &Answer::Denied(denial), frame_bytes_max);
        prop_assert_eq!(&out[..6], b"before");
        let AgentFrame::Ack { stream_id: stream, frame_id: frame, variables } = said(&out[6..], frame_bytes_max) else {
            panic!("not an ACK");
        };
        prop_assert_eq!((stream, frame), (stream_id, frame_id));
        let mut names = vec!["sess.banned=1", "txn.banned=1"];
        names.extend((!reason.is_empty()).then_some("sess.reason="));
        names.extend(denial.pattern.is_some_and(|pattern| !pattern.is_empty()).then_some("sess.pattern="));
        names.extend(severity.map(|_| "sess.severity="));
        names.extend(expires_in.map(|_| "sess.expires_in="));
        prop_assert_eq!(variables.len(), names.len(), "{:?}", variables);
        for (variable, name) in variables.iter().zip(names) {
            prop_assert!(variable.starts_with(name), "{variable}");
            prop_assert!(!variable.contains(|c: char| c.is_ascii_control()), "{variable:?}");
        }
    }
}

/// Were its frame read again with each byte, this would take minutes.
#[test]
fn a_long_frame_may_come_byte_by_byte() {
    let messages = vec![peer::message(b"check", &[]); 9000];
    let stream = [peer::hello(FRAME_BYTES_MAX, "pipelining"), peer::notify(1, 1, &messages)].concat();
    assert!(stream.len() > 60_000 && stream.len() < FRAME_BYTES_MAX as usize);
    let every_byte: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(drive(&stream, &every_byte), drive(&stream, &[]));
}

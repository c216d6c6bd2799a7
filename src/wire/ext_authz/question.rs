//! A `CheckRequest`, as far as it matters: whose connection it is about, and which hops came before.
//!
//! Read by hand, not decoded into the generated type: a usual request is 350 bytes in 30 fields, of which one is
//! needed. Tests hold the reading against the generated type.

use std::ops::Range;

use smallvec::SmallVec;

use super::super::list::elements;
use super::message::Message;

/// Who is asked about. It is read where it stands, in the session's input.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    message: Message<'a>,
    source: Option<&'a [u8]>,
}

/// Not a protobuf message, or known fields in it are of the wrong wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Where the source is in a message that was looked at.
pub type Place = Option<Range<usize>>;

impl<'a> Question<'a> {
    /// Looks for the source in an encoded `CheckRequest`. Only what is on the way to it is checked.
    pub fn decode(message: &'a [u8]) -> Result<Question<'a>, Malformed> {
        let message = Message { bytes: message, is_cut: false };
        Ok(Question { message, source: source_address(Part::of(message))? })
    }

    /// The same for a message that may be the front of one, but only says where the source is.
    pub(super) fn find_source(message: Message<'_>) -> Result<Place, Malformed> {
        let found = source_address(Part::of(message))?;
        Ok(found.map(|found| {
            let begin = found.as_ptr().addr().saturating_sub(message.bytes.as_ptr().addr());
            begin..begin + found.len()
        }))
    }

    /// A question whose source was found.
    pub(super) fn located(message: Message<'a>, source: Place) -> Question<'a> {
        Question { message, source: source.and_then(|place| message.bytes.get(place)) }
    }

    /// `attributes.source.address.socket_address.address`: text, not yet an address. `None` if there is none, as
    /// where Envoy listens on a pipe. It is Envoy's TCP peer, or whom the PROXY protocol named, also where Envoy itself honours
    /// `X-Forwarded-For`.
    pub fn source(&self) -> Option<&'a [u8]> {
        self.source
    }

    /// The header fields `X-Forwarded-For` of the client's request: none where the network filter asks. They are looked
    /// for now, so ask only where the source is trusted.
    pub fn forwarded_for(&self) -> ForwardedFor<'a> {
        let mut values = SmallVec::new();
        // What follows a fault in the header fields is lost: Envoy makes none.
        let _ = forwarded_for(Part::of(self.message), &mut values);
        ForwardedFor { values }
    }
}

/// All `X-Forwarded-For` fields of a request, in order; they are one list (RFC 9110 §5.3).
#[derive(Clone, Debug)]
pub struct ForwardedFor<'a> {
    values: SmallVec<[&'a [u8]; 4]>,
}

impl<'a> ForwardedFor<'a> {
    pub fn is_absent(&self) -> bool {
        self.values.is_empty()
    }

    /// The list's elements from the right, which is the order of trust: the last was added by the nearest proxy. Each
    /// without blanks around it, empty ones left out (RFC 9110 §5.6.1). They are what somebody wrote, not yet addresses.
    pub fn from_right(&self) -> impl Iterator<Item = &'a [u8]> {
        self.values.iter().rev().flat_map(|value| elements(value).rev())
    }
}

/// A message that comes in several parts is one (the last part of a scalar stands), and `Address` is a oneof, of which the
/// last stands too.
fn source_address(request: Part<'_>) -> Result<Option<&[u8]>, Malformed> {
    let mut found = None;
    for attributes in request.parts(1) {
        for source in attributes?.parts(1) {
            for address in source?.parts(1) {
                for field in address?.fields() {
                    match field? {
                        (1, Value::Bytes(socket_address)) => {
                            for text in socket_address.parts(2) {
                                found = Some(text?.bytes);
                            }
                        }
                        (2 | 3, Value::Bytes(_)) => found = None,
                        (1..=3, Value::Number) => return Err(Malformed),
                        _ => {}
                    }
                }
            }
        }
    }
    // An empty text is how proto3 says that there is none.
    Ok(found.filter(|text| !text.is_empty()))
}

/// From `attributes.request.http`: the map `headers`, and `header_map`, which is filled instead where the filter is told
/// to `encode_raw_headers`.
fn forwarded_for<'a>(request: Part<'a>, values: &mut SmallVec<[&'a [u8]; 4]>) -> Result<(), Malformed> {
    for attributes in request.parts(1) {
        for request in attributes?.parts(4) {
            for http in request?.parts(2) {
                for field in http?.fields() {
                    match field? {
                        (3, Value::Bytes(entry)) => values.extend(header_value(entry)?),
                        (13, Value::Bytes(map)) => {
                            for header in map.parts(1) {
                                values.extend(header_value(header?)?);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(())
}

/// The value of an entry of `headers` (1: key, 2: value) or of a `HeaderValue` (which may hold it as 3: raw_value
/// instead), if its key is the one looked for.
fn header_value(header: Part<'_>) -> Result<Option<&[u8]>, Malformed> {
    let (mut key, mut text): (&[u8], &[u8]) = (&[], &[]);
    for field in header.fields() {
        match field? {
            (1, Value::Bytes(part)) => key = part.bytes,
            (2, Value::Bytes(part)) => text = part.bytes,
            (3, Value::Bytes(part)) if !part.bytes.is_empty() => text = part.bytes,
            _ => {}
        }
    }
    Ok(key.eq_ignore_ascii_case(b"x-forwarded-for").then_some(text))
}

/// A message within the message, or a text.
#[derive(Clone, Copy)]
struct Part<'a> {
    bytes: &'a [u8],
    /// The whole was cut, so this may end in the middle of a field.
    may_be_cut: bool,
}

impl<'a> Part<'a> {
    fn of(message: Message<'a>) -> Part<'a> {
        Part { bytes: message.bytes, may_be_cut: message.is_cut }
    }

    fn fields(self) -> Fields<'a> {
        Fields { rest: self.bytes, may_be_cut: self.may_be_cut }
    }

    /// The occurrences of one field that is text or a message.
    fn parts(self, number: u32) -> impl Iterator<Item = Result<Part<'a>, Malformed>> {
        self.fields().filter_map(move |field| match field {
            Ok((found, Value::Bytes(part))) if found == number => Some(Ok(part)),
            Ok((found, Value::Number)) if found == number => Some(Err(Malformed)),
            Ok(_) => None,
            Err(fault) => Some(Err(fault)),
        })
    }
}

/// The fields of a message (<https://protobuf.dev/programming-guides/encoding/>) and their numbers. Ends after a fault, or
/// where the message was cut.
struct Fields<'a> {
    rest: &'a [u8],
    may_be_cut: bool,
}

enum Value<'a> {
    /// Wire types 0, 1 and 5, whose values nobody needs here.
    Number,
    /// Wire type 2: text, bytes, a message.
    Bytes(Part<'a>),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        match field {
            None if self.may_be_cut => None,
            field => Some(field.ok_or(Malformed)),
        }
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = u32::try_from(self.varint()?).ok()?;
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        let value = match key & 7 {
            0 => {
                self.varint()?;
                Value::Number
            }
            1 => {
                self.take(8)?;
                Value::Number
            }
            2 => {
                let bytes = usize::try_from(self.varint()?).ok()?;
                let bytes = if self.may_be_cut { bytes.min(self.rest.len()) } else { bytes };
                Value::Bytes(Part { bytes: self.take(bytes)?, may_be_cut: self.may_be_cut })
            }
            5 => {
                self.take(4)?;
                Value::Number
            }
            // Groups (3, 4) are not in proto3, and 6 and 7 are nothing.
            _ => return None,
        };
        Some((number, value))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// Seven bits a byte, the lowest first; at most 64 bits.
    fn varint(&mut self) -> Option<u64> {
        // Nearly all keys and lengths are one byte.
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Some(u64::from(*byte));
        }
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            if shift == 63 && byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::envoy::config::core::v3::address::Address as Kind;
    use super::super::proto::envoy::service::auth::v3::CheckRequest;
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    const GOLDEN: [(&str, &[u8]); 9] = [
        ("http", include_bytes!("../../../tests/golden/ext_authz/http.bin")),
        ("http-all-fields", include_bytes!("../../../tests/golden/ext_authz/http-all-fields.bin")),
        ("network", include_bytes!("../../../tests/golden/ext_authz/network.bin")),
        ("header-map-raw-values", include_bytes!("../../../tests/golden/ext_authz/header-map-raw-values.bin")),
        ("header-map-values", include_bytes!("../../../tests/golden/ext_authz/header-map-values.bin")),
        ("source-pipe", include_bytes!("../../../tests/golden/ext_authz/source-pipe.bin")),
        ("source-internal", include_bytes!("../../../tests/golden/ext_authz/source-internal.bin")),
        ("source-named-port", include_bytes!("../../../tests/golden/ext_authz/source-named-port.bin")),
        ("empty", include_bytes!("../../../tests/golden/ext_authz/empty.bin")),
    ];

    type Read = (Option<String>, Vec<String>);

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn read(message: &[u8]) -> Result<Read, Malformed> {
        let question = Question::decode(message)?;
        let forwarded = question.forwarded_for();
        assert!(!forwarded.is_absent() || forwarded.from_right().next().is_none());
        Ok((question.source().map(text), forwarded.from_right().map(text).collect()))
    }

    /// The same by the generated types.
    fn read_generated(message: &[u8]) -> Option<Read> {
        let attributes = CheckRequest::decode(message).ok()?.attributes.unwrap_or_default();
        let address = attributes.source.and_then(|source| source.address?.address);
        let source = match address {
            Some(Kind::SocketAddress(socket)) if !socket.address.is_empty() => Some(socket.address),
            _ => None,
        };
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        let is_it = |key: &str| key.eq_ignore_ascii_case("x-forwarded-for");
        let of_map = http.headers.iter().filter(|(key, _)| is_it(key)).map(|(_, value)| value.clone().into_bytes());
        let raw = http.header_map.unwrap_or_default().headers;
        let raw = raw.into_iter().filter(|header| is_it(&header.key)).map(|header| match header.raw_value.is_empty() {
            true => header.value.into_bytes(),
            false => header.raw_value.to_vec(),
        });
        let values: Vec<Vec<u8>> = of_map.chain(raw).collect();
        let joined = values.join(&b',');
        let elements =
            joined.split(|&byte| byte == b',').map(|element| text(element).trim_matches([' ', '\t']).to_owned());
        Some((source, elements.filter(|element| !element.is_empty()).rev().collect()))
    }

    #[test]
    fn what_upstream_encodes_is_read() {
        for (name, message) in GOLDEN {
            let (source, hops): (Option<&str>, &[&str]) = match name {
                "http" => (Some("198.51.100.7"), &[]),
                "http-all-fields" => (Some("198.51.100.7"), &["10.0.0.2", "192.0.2.44", "203.0.113.9"]),
                "network" => (Some("2001:db8::17"), &[]),
                "header-map-raw-values" => {
                    (Some("198.51.100.7"), &["10.0.0.1", "10.0.0.2", "192.0.2.44", "203.0.113.9"])
                }
                "header-map-values" => (Some("198.51.100.7"), &["192.0.2.44", "203.0.113.9"]),
                "source-named-port" => (Some("192.0.2.1"), &[]),
                _ => (None, &[]),
            };
            let want = (source.map(str::to_owned), hops.iter().map(|hop| (*hop).to_owned()).collect());
            assert_eq!(read(message), Ok(want), "{name}");
            assert_eq!(read_generated(message), read(message).ok(), "{name}");
        }
    }

    /// C++ writes strings that are not UTF-8, and a client chooses what is in its header fields.
    #[test]
    fn what_a_client_writes_does_not_hide_it() {
        let mut message = GOLDEN[0].1.to_vec();
        let agent = message.windows(4).position(|bytes| bytes == b"curl").unwrap();
        message[agent] = 0xff;
        assert_eq!(read_generated(&message), None);
        assert_eq!(read(&message), Ok((Some("198.51.100.7".to_owned()), vec![])));
    }

    #[test]
    fn the_last_of_several_stands() {
        // attributes { source { address { … } } } around an Address.
        let around = |address: &[u8]| {
            [0x0a, 0x0a, 0x0a]
                .iter()
                .fold(address.to_vec(), |inner, tag| [&[*tag, inner.len() as u8], &inner[..]].concat())
        };
        let socket = |text: &str| [&[0x0a, text.len() as u8 + 2, 0x12, text.len() as u8], text.as_bytes()].concat();
        let pipe = b"\x12\0".to_vec();
        for (parts, want) in [
            (vec![around(&socket("192.0.2.1"))], Some("192.0.2.1")),
            (vec![around(&socket("192.0.2.1")), around(&socket("192.0.2.2"))], Some("192.0.2.2")),
            (vec![around(&socket("192.0.2.1")), around(&socket(""))], None),
            (vec![around(&socket("192.0.2.1")), around(&pipe)], None),
            (vec![around(&pipe), around(&socket("192.0.2.2"))], Some("192.0.2.2")),
            (vec![around(&[socket("192.0.2.1"), b"\x0a\0".to_vec()].concat())], Some("192.0.2.1")),
            (vec![around(b"")], None),
        ] {
            let message = parts.concat();
            assert_eq!(read(&message).unwrap().0.as_deref(), want);
            assert_eq!(read_generated(&message).unwrap().0.as_deref(), want);
        }
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        for message in [
            &b"\x0a"[..],
            b"\x0a\x05abc",
            b"\x08\x01",
            b"\x0a\x02\x0a\x05",
            b"\x02\0",
            b"\x0b\x0c",
            b"\x0f",
            b"\x80",
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
            b"\x82\x80\x80\x80\x80\x01\0",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a\x06\x0a\x04\x0a\x02\x08\x01",
        ] {
            assert_eq!(read(message), Err(Malformed), "{}", message.escape_ascii());
        }
        assert_eq!(read(b"\x50\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok((None, vec![])));
    }

    proptest! {
        /// Cut, damaged, doubled: whatever the generated types take, is read the same.
        #[test]
        fn the_generated_types_read_the_same(
            name in 0..GOLDEN.len(),
            other in 0..GOLDEN.len(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut message = [GOLDEN[name].1, GOLDEN[other].1].concat();
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = byte;
                for message in [&message[..], &message[..cut.index(message.len() + 1)]] {
                    let ours = read(message);
                    if let Some(theirs) = read_generated(message) {
                        // Groups are skipped there and refused here; entries of a map that were sent twice are one there.
                        if let Ok(ours) = ours {
                            prop_assert_eq!(&ours.0, &theirs.0);
                            prop_assert!(theirs.1.iter().all(|hop| ours.1.contains(hop)));
                        }
                    }
                }
            }
        }

        #[test]
        fn any_bytes_do_no_harm(message in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&message);
        }
    }
}

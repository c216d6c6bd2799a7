//! Questions: NOTIFY frames, SPOE.txt section 3.2.6, and who is asked about.
//!
//! ```text
//! payload    message …
//! message    name: string, number of arguments: 1 byte, argument …
//! argument   name: string, value: typed data
//! ```

use std::net::IpAddr;

use super::data::{Decoder, Value};
use super::disconnect::Fault;

/// Longest text of an address in bytes: `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
const ADDRESS_BYTES_MAX: usize = 45;

/// One question: what HAProxy tells about one event of one stream. Its identifiers go into the answer.
///
/// Whole and well-formed: all of it was read once before it was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// 0 is a stream like any other.
    pub stream_id: u64,
    /// Counts the events of the stream.
    pub frame_id: u64,
    messages: &'a [u8],
}

impl<'a> Notify<'a> {
    pub(super) fn decode(stream_id: u64, frame_id: u64, payload: &'a [u8]) -> Result<Notify<'a>, Fault> {
        let mut messages = Messages { unread: Decoder::new(payload) };
        while !messages.unread.rest().is_empty() {
            messages.decode().ok_or(Fault::Malformed)?;
        }
        Ok(Notify { stream_id, frame_id, messages: payload })
    }

    /// The messages in their order. Their names are the administrator's choice; there may be none at all.
    pub fn messages(&self) -> Messages<'a> {
        Messages { unread: Decoder::new(self.messages) }
    }

    /// Everybody who is asked about. The client is to be kept out if any of them is.
    ///
    /// In each message these are all arguments named `src`, `ip`, `src_ip` or `client_ip`, in any case, if their value is
    /// an address or a string; of the other types, null above all (there was no such header), nobody is named.
    ///
    /// A message in which none of these gives an address, because there is none or its header was left out, is searched: for
    /// the first argument that is an address, and for the first string that reads as one. For both, because a string may be the client's own words: one who sends an
    /// address as its user agent must not be asked about as that address *instead of* its own. And only for the first
    /// of each, because a later one may well be ours (`dst`).
    pub fn clients(&self) -> Clients<'a> {
        let unread = Decoder::new(self.messages);
        Clients {
            unread,
            arguments: unread,
            arguments_count: 0,
            arguments_left: 0,
            is_searching: false,
            address: None,
            text: None,
        }
    }
}

/// One SPOE message: a `spoe-message` section of HAProxy's configuration with its arguments filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub name: &'a [u8],
    arguments: &'a [u8],
}

/// One argument of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument<'a> {
    /// Empty when the administrator gave it no name.
    pub name: &'a [u8],
    pub value: Value<'a>,
}

/// Somebody who is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client<'a> {
    /// As it was sent: an IPv4 address mapped into IPv6 stays IPv6, for the caller to fold.
    Ip(IpAddr),
    /// The text of an argument that is named like a client. It may be anything, and is often a header's value.
    Text(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The arguments in the order of the configuration.
    pub fn arguments(&self) -> Arguments<'a> {
        Arguments { unread: Decoder::new(self.arguments) }
    }
}

/// See [`Notify::messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    unread: Decoder<'a>,
}

impl<'a> Messages<'a> {
    /// The next message; `None` too where the rest is not one.
    fn decode(&mut self) -> Option<Message<'a>> {
        let name = self.unread.string()?;
        let count = self.unread.byte()?;
        let arguments = self.unread.rest();
        for _ in 0..count {
            self.unread.item()?;
        }
        let arguments_bytes = arguments.len() - self.unread.rest().len();
        Some(Message { name, arguments: arguments.get(..arguments_bytes)? })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        self.decode()
    }
}

/// See [`Message::arguments`].
#[derive(Clone, Debug)]
pub struct Arguments<'a> {
    unread: Decoder<'a>,
}

impl<'a> Iterator for Arguments<'a> {
    type Item = Argument<'a>;

    fn next(&mut self) -> Option<Argument<'a>> {
        let (name, value) = self.unread.item()?;
        Some(Argument { name, value })
    }
}

/// See [`Notify::clients`]. Goes through the messages once, as this is run for every question.
#[derive(Clone, Debug)]
pub struct Clients<'a> {
    unread: Decoder<'a>,
    /// All arguments of the message that is being read, and what follows them.
    arguments: Decoder<'a>,
    arguments_count: u8,
    /// How many of them were not read yet.
    arguments_left: u8,
    /// Whether none of those that were read is named like a client and says who that is.
    is_searching: bool,
    /// What the search has found.
    address: Option<IpAddr>,
    text: Option<IpAddr>,
}

impl<'a> Iterator for Clients<'a> {
    type Item = Client<'a>;

    #[inline]
    fn next(&mut self) -> Option<Client<'a>> {
        loop {
            while self.arguments_left > 0 {
                let name = self.unread.string()?;
                self.arguments_left -= 1;
                if is_client_name(name) {
                    let client = match self.unread.value()? {
                        Value::Ipv4(ip) => Client::Ip(ip.into()),
                        Value::Ipv6(ip) => Client::Ip(ip.into()),
                        Value::String(text) => Client::Text(text),
                        _ => continue,
                    };
                    self.is_searching &= matches!(client, Client::Text(text) if parse_address(text).is_none());
                    return Some(client);
                } else if self.is_searching && self.address.is_none() {
                    self.address = match self.unread.value()? {
                        Value::Ipv4(ip) => Some(ip.into()),
                        Value::Ipv6(ip) => Some(ip.into()),
                        _ => None,
                    };
                } else {
                    // Nothing is made of it, which costs a third of what making a value costs.
                    self.unread.value()?;
                }
            }
            if std::mem::take(&mut self.is_searching) {
                // Strings only now: in most messages a name makes reading them a waste.
                self.text = self.first_text();
                if let Some(ip) = self.address.take() {
                    return Some(Client::Ip(ip));
                }
            }
            if let Some(ip) = self.text.take() {
                return Some(Client::Ip(ip));
            }
            self.unread.string()?;
            self.arguments_left = self.unread.byte()?;
            self.arguments = self.unread;
            self.arguments_count = self.arguments_left;
            (self.is_searching, self.address) = (true, None);
        }
    }
}

impl Clients<'_> {
    fn first_text(&self) -> Option<IpAddr> {
        let mut arguments = self.arguments;
        (0..self.arguments_count).find_map(|_| match arguments.item()? {
            (_, Value::String(text)) => parse_address(text),
            _ => None,
        })
    }
}

/// Whether an argument of this name says who the client is.
fn is_client_name(name: &[u8]) -> bool {
    match name {
        // The usual two without a call.
        [b'i' | b'I', b'p' | b'P'] | [b's' | b'S', b'r' | b'R', b'c' | b'C'] => true,
        [_, _, _, _, _, _] => name.eq_ignore_ascii_case(b"src_ip"),
        [_, _, _, _, _, _, _, _, _] => name.eq_ignore_ascii_case(b"client_ip"),
        _ => false,
    }
}

/// Text in the standard library's sense, without a port, brackets or blanks.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    // A body of 16 KiB need not be checked for UTF-8 first.
    if text.len() > ADDRESS_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::peer;
    use super::*;

    const V4: Value<'_> = Value::Ipv4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const OTHER: Value<'_> = Value::Ipv4(std::net::Ipv4Addr::new(198, 51, 100, 1));
    const V6: Value<'_> = Value::Ipv6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    fn text(text: &str) -> Value<'_> {
        Value::String(text.as_bytes())
    }

    /// Addresses bare, texts in quotes.
    fn asked(messages: &[&[(&[u8], Value<'_>)]]) -> String {
        let payload: Vec<u8> = messages.iter().flat_map(|arguments| peer::message(b"check", arguments)).collect();
        let notify = Notify::decode(1, 1, &payload).unwrap();
        assert_eq!(notify.messages().count(), messages.len());
        let client = |client| match client {
            Client::Ip(ip) => ip.to_string(),
            Client::Text(text) => format!("\"{}\"", text.escape_ascii()),
        };
        notify.clients().map(client).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn arguments_named_like_a_client_are_asked_about() {
        for name in ["src", "ip", "src_ip", "client_ip", "SRC", "Client_IP"] {
            assert_eq!(asked(&[&[(b"dst", OTHER), (name.as_bytes(), V4)]]), "192.0.2.7", "{name}");
        }
        for name in ["", "sr", "srcs", "src_ip ", "x-src", "dst", "clientip", "_ip"] {
            assert_eq!(asked(&[&[(b"dst", OTHER), (name.as_bytes(), V4)]]), "198.51.100.1", "{name}");
        }
        assert_eq!(asked(&[&[(b"src", V6)]]), "2001:db8::1");
        let mapped = Value::Ipv6(std::net::Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped());
        assert_eq!(asked(&[&[(b"src", mapped)]]), "::ffff:192.0.2.7");
    }

    #[test]
    fn all_of_them_in_all_messages() {
        assert_eq!(asked(&[&[(b"ip", V4), (b"src", V6), (b"src", OTHER)]]), "192.0.2.7 2001:db8::1 198.51.100.1");
        assert_eq!(asked(&[&[(b"ip", V4)], &[], &[(b"x", OTHER)], &[(b"ip", V4)]]), "192.0.2.7 198.51.100.1 192.0.2.7");
        // A header beside the address only adds.
        assert_eq!(asked(&[&[(b"client_ip", text("203.0.113.9")), (b"src", V4)]]), "\"203.0.113.9\" 192.0.2.7");
    }

    #[test]
    fn text_is_handed_on_as_it_is() {
        assert_eq!(asked(&[&[(b"ip", text("192.0.2.7"))]]), "\"192.0.2.7\"");
        assert_eq!(asked(&[&[(b"ip", text("no address"))]]), "\"no address\"");
        assert_eq!(asked(&[&[(b"ip", Value::String(b"\xff")), (b"src", text(""))]]), "\"\\xff\" \"\"");
    }

    /// And then the message is not searched: it did say who is meant, and nobody was.
    #[test]
    fn other_values_name_nobody() {
        for value in [
            Value::Null,
            Value::Bool(true),
            Value::Int32(1),
            Value::Uint32(1),
            Value::Int64(1),
            Value::Uint64(1),
            Value::Binary(b"\xc0\0\x02\x07"),
        ] {
            assert_eq!(asked(&[&[(b"src", value)]]), "", "{value:?}");
            assert_eq!(asked(&[&[(b"src", value), (b"ip", V4), (b"dst", OTHER)]]), "192.0.2.7", "{value:?}");
            // A header that was left out does not hide the address beside it.
            assert_eq!(asked(&[&[(b"src", value), (b"addr", V4)]]), "192.0.2.7", "{value:?}");
        }
    }

    #[test]
    fn without_a_name_the_first_address_and_the_first_text_of_one() {
        assert_eq!(asked(&[&[]]), "");
        assert_eq!(asked(&[&[(b"", Value::Int64(1)), (b"", V4), (b"", OTHER)]]), "192.0.2.7");
        assert_eq!(asked(&[&[(b"", text("mail")), (b"", text("192.0.2.7")), (b"", text("::1"))]]), "192.0.2.7");
        assert_eq!(asked(&[&[(b"", text("2001:DB8::1"))]]), "2001:db8::1");
        // An agent that looks like an address is not asked about instead of the address.
        assert_eq!(asked(&[&[(b"agent", text("203.0.113.9")), (b"addr", V4)]]), "192.0.2.7 203.0.113.9");
        for none in ["", "mail", "192.0.2", "192.0.2.7:25", "[::1]", " ::1", "::1%eth0", "192.0.2.007", &"1".repeat(99)]
        {
            assert_eq!(asked(&[&[(b"", text(none)), (b"", Value::Null)]]), "", "{none}");
        }
        let longest = "0000:0000:0000:0000:0000:ffff:192.168.100.200";
        assert_eq!(longest.len(), ADDRESS_BYTES_MAX);
        assert_eq!(asked(&[&[(b"", text(longest))]]), "::ffff:192.168.100.200");
        assert_eq!(asked(&[&[(b"", Value::Binary(b"192.0.2.7"))]]), "");
    }

    #[test]
    fn messages_and_arguments_are_read_in_order() {
        let payload = [
            peer::message(b"one", &[(b"a", Value::Int64(-5)), (b"", Value::Null), (b"c", text("x"))]),
            peer::message(b"", &[]),
            peer::message(b"three", &[(&b"a"[..], Value::Bool(true)); 255]),
        ]
        .concat();
        let notify = Notify::decode(0, 3, &payload).unwrap();
        assert_eq!((notify.stream_id, notify.frame_id), (0, 3));
        let names: Vec<&[u8]> = notify.messages().map(|message| message.name).collect();
        assert_eq!(names, [&b"one"[..], b"", b"three"]);
        let counts: Vec<usize> = notify.messages().map(|message| message.arguments().count()).collect();
        assert_eq!(counts, [3, 0, 255]);
        let first: Vec<Argument<'_>> = notify.messages().next().unwrap().arguments().collect();
        let argument = |name, value| Argument { name, value };
        assert_eq!(first, [argument(b"a", Value::Int64(-5)), argument(b"", Value::Null), argument(b"c", text("x"))]);
    }
}

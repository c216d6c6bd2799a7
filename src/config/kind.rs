//! How the value of each kind of setting is read, and what is said when it cannot be.
//!
//! Every message has the same shape, "expected …, found …", and where a slip is a common one, what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::credentials::read_password;
use super::duration::{DurationFault, parse_duration, print_duration};
use super::fault::{Fault, printable, quoted};
use super::settings::{PatternSettings, TokenSettings, UserSettings};
use super::suggest;
use super::table::{ChoicePlace, Place};
use super::yaml::{Content, Node};
use crate::engine::address::Network;
use crate::engine::ban::FailureKind;

/// What a setting can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Bool,
    Integer {
        min: u64,
        max: u64,
    },
    Decimal {
        min: f64,
        max: f64,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    Choice(&'static [&'static str]),
    /// `127.0.0.1:5514`, `[::1]:5514`; never a host name, which could mean another address tomorrow.
    SocketAddress,
    IpAddress,
    IpAddressOrNothing,
    Port,
    Text(TextRule),
    /// A list of texts; a single one stands for a list of one.
    Texts(TextRule),
    /// A list of addresses and networks in CIDR notation; a single one stands for a list of one.
    Networks,
    /// Entries with keys of their own, read by `parse.rs`.
    Patterns,
    /// Names with passwords, read by `credentials.rs`, as are the next.
    Users,
    /// Entries with keys of their own.
    Tokens,
}

/// What a text must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextRule {
    Any,
    NotEmpty,
    /// A pattern's name. It becomes a metric's label, a variable of HAProxy and part of log lines and pages, so it
    /// has no quotes, brackets, commas or control characters.
    Name,
    /// A program as syslog names it (APP-NAME of RFC 5424 §6.2.5, TAG of RFC 3164 §4.1.3): no blanks, and nothing of
    /// the `[pid]:` that follows it. No commas either, which separate several where only a text can be given.
    Program,
    /// What failures are: `auth`, `abuse` or `probe`.
    FailureKind,
    UrlPath,
    /// Where a unix socket is; empty for none.
    SocketPath,
    /// A folder, absolute or not; empty for none.
    Folder,
    /// What a node is called; empty for what its host is called. It becomes a column of a shared table.
    Node,
    /// The name of a user: no colon, which ends it where it is sent (RFC 7617 §2). Empty for none.
    User,
    /// A password or its hash, which no message shows. Empty for none.
    Password,
}

/// A name longer than this is no name.
const NAME_BYTES_MAX: usize = 128;

/// As long as a host's own name can be (HOST_NAME_MAX of Linux, gethostname(2)).
const NODE_BYTES_MAX: usize = 64;

/// Longest path of a folder. PATH_MAX of Linux is 4096, and names of files are still to come behind it.
const FOLDER_BYTES_MAX: usize = 3072;

/// Longest path of a unix socket: sun_path has 108 bytes, and the last is NUL (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A value that is right for its kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Integer(u64),
    Decimal(f64),
    Duration(Duration),
    Choice(&'static str),
    Socket(SocketAddr),
    Ip(IpAddr),
    MaybeIp(Option<IpAddr>),
    Text(String),
    Texts(Vec<String>),
    Networks(Vec<Network>),
    Patterns(Vec<PatternSettings>),
    Users(Vec<UserSettings>),
    Tokens(Vec<TokenSettings>),
}

/// Which value of which source is being read, for the faults in it.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub key: String,
    /// `None` in the environment.
    pub line: Option<usize>,
}

impl Spot {
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { key: self.key.clone(), line: self.line, message: message.into() }
    }
}

/// The spots of a list's items.
#[derive(Clone, Copy)]
enum Spots<'a> {
    OfList(&'a Spot),
    /// The one item stands where the list would.
    Only(&'a Spot),
}

impl Spots<'_> {
    fn item(self, index: usize, node: &Node) -> Spot {
        match self {
            Spots::OfList(Spot { key, line: Some(line) }) => {
                Spot { key: format!("{key}[{index}]"), line: Some(node.line.unwrap_or(*line)) }
            }
            // A variable is one line of text: its items have no place of their own.
            Spots::OfList(spot) | Spots::Only(spot) => spot.clone(),
        }
    }
}

impl Kind {
    /// Reads a value, or says in `faults` all that is wrong with it. Not for kinds that other rooms read.
    pub(super) fn read(self, node: &Node, spot: &Spot, faults: &mut Vec<Fault>) -> Option<Value> {
        match self {
            Kind::Networks => {
                let (items, spots) = self.items(node, spot, faults)?;
                read_items(items, spots, faults, |node| match &node.content {
                    Content::Text(text) => Network::parse(text)
                        .map_err(|fault| format!("{} is not an address or network: {fault}", quoted(text))),
                    other => Err(format!("expected an address or network, found {}", found(other))),
                })
                .map(Value::Networks)
            }
            Kind::Texts(rule) => {
                let (items, spots) = self.items(node, spot, faults)?;
                read_items(items, spots, faults, |node| read_text(rule, &node.content)).map(Value::Texts)
            }
            _ => match self.read_one(&node.content) {
                Ok(value) => Some(value),
                Err(message) => {
                    faults.push(spot.fault(message));
                    None
                }
            },
        }
    }

    /// The items of what should be a list, and how to point at one of them.
    fn items<'a>(self, node: &'a Node, spot: &'a Spot, faults: &mut Vec<Fault>) -> Option<(&'a [Node], Spots<'a>)> {
        match &node.content {
            Content::List(nodes) => Some((nodes, Spots::OfList(spot))),
            // One thing where a list could be is a list of one.
            Content::Text(_) => Some((std::slice::from_ref(node), Spots::Only(spot))),
            // `whitelist:` above items that are all commented out.
            Content::Nothing => Some((&[], Spots::Only(spot))),
            other => {
                faults.push(spot.fault(format!("expected {}, found {}", self.expected(), found(other))));
                None
            }
        }
    }

    /// Reads a value that is no list.
    fn read_one(self, content: &Content) -> Result<Value, String> {
        let wrong = |hint: &str| format!("expected {}, found {}{hint}", self.expected(), found(content));
        match (self, content) {
            (_, Content::Nothing) => Err(wrong("; leave the key out for the default")),

            (Kind::Bool, Content::Bool(value)) => Ok(Value::Bool(*value)),

            (Kind::Integer { min, max }, Content::Integer(number)) => in_range(*number, min, max).ok_or(wrong("")),
            (Kind::Port, Content::Integer(number)) => in_range(*number, 1, u64::from(u16::MAX)).ok_or(wrong("")),

            // Numbers up to 2^53 come through the conversion unharmed, and no range reaches that far.
            (Kind::Decimal { min, max }, Content::Integer(number)) => {
                Some(*number as f64).filter(|n| (min..=max).contains(n)).map(Value::Decimal).ok_or(wrong(""))
            }
            (Kind::Decimal { min, max }, Content::Decimal(number)) => {
                Some(*number).filter(|n| (min..=max).contains(n)).map(Value::Decimal).ok_or(wrong(""))
            }

            (Kind::Duration { min, max }, Content::Text(text)) => match parse_duration(text) {
                Ok(duration) if (min..=max).contains(&duration) => Ok(Value::Duration(duration)),
                Ok(_) => Err(wrong("")),
                Err(fault @ DurationFault::NotADuration) => {
                    Err(format!("expected a duration, found {}; {fault}", found(content)))
                }
                Err(fault) => Err(format!("expected a duration, found {}: {fault}", found(content))),
            },
            (Kind::Duration { .. }, Content::Integer(number)) => Err(match u64::try_from(*number) {
                Ok(number) => wrong(&format!(" without a unit: {}", DurationFault::NoUnit { number })),
                Err(_) => wrong(""),
            }),
            (Kind::Duration { .. }, Content::Decimal(_)) => Err(wrong("; write whole numbers with units, like 1m30s")),

            (Kind::Choice(names), Content::Text(text)) => {
                names.iter().find(|name| *name == text).map(|name| Value::Choice(name)).ok_or_else(|| {
                    let near = suggest::meant(text, names).or_else(|| suggest::nearest(text, names.iter().copied()));
                    wrong(&near.map_or_else(String::new, |name| format!("; did you mean {name}?")))
                })
            }

            (Kind::SocketAddress, Content::Text(text)) => read_socket_address(text).map_err(|hint| wrong(&hint)),
            (Kind::IpAddress, Content::Text(text)) => read_ip_address(text).map(Value::Ip).map_err(wrong),
            (Kind::IpAddressOrNothing, Content::Text(text)) => match text.as_str() {
                "" => Ok(Value::MaybeIp(None)),
                text => read_ip_address(text).map(|ip| Value::MaybeIp(Some(ip))).map_err(wrong),
            },

            (Kind::Text(rule), content) => read_text(rule, content).map(Value::Text),

            (Kind::Bool, Content::Text(text)) if matches!(text.as_str(), "true" | "false") => {
                Err(wrong("; leave the quotes out"))
            }
            (Kind::Integer { .. } | Kind::Port, Content::Text(text)) if text.parse::<u64>().is_ok() => {
                Err(wrong("; leave the quotes out"))
            }
            (Kind::Decimal { .. }, Content::Text(text)) if text.parse::<f64>().is_ok_and(f64::is_finite) => {
                Err(wrong("; leave the quotes out"))
            }
            _ => Err(wrong("")),
        }
    }

    /// What is right, as the end of the sentence "expected …".
    pub(super) fn expected(self) -> String {
        match self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Decimal { min, max } => format!("a number from {min} to {max}"),
            Kind::Duration { min, max } => {
                format!("a duration from {} to {}", print_duration(min), print_duration(max))
            }
            Kind::Choice(names) => one_of(names),
            Kind::SocketAddress => "an address with a port, like 127.0.0.1:5514 or [::1]:5514".to_owned(),
            Kind::IpAddress => "an address, like 127.0.0.1, 0.0.0.0 or ::1".to_owned(),
            Kind::IpAddressOrNothing => "an address, like 127.0.0.1, 0.0.0.0 or ::1, or nothing".to_owned(),
            Kind::Port => format!("a port from 1 to {}", u16::MAX),
            Kind::Text(TextRule::UrlPath) => "a path, like /metrics".to_owned(),
            Kind::Text(TextRule::SocketPath) => format!(
                "an absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes, like /run/mailfail2ban/nginx.sock, or nothing"
            ),
            Kind::Text(TextRule::Folder) => "the path of a folder, like /var/lib/mailfail2ban, or nothing".to_owned(),
            Kind::Text(TextRule::Node) => {
                format!("a name of at most {NODE_BYTES_MAX} letters, digits, `.`, `_` and `-`, or nothing")
            }
            Kind::Text(TextRule::User) => {
                format!("a name of at most {NAME_BYTES_MAX} bytes without colons, or nothing")
            }
            Kind::Text(_) => "a text".to_owned(),
            Kind::Texts(_) => "a text or a list of texts".to_owned(),
            Kind::Networks => "a list of addresses and networks, like [192.0.2.1, 10.0.0.0/8]".to_owned(),
            Kind::Patterns => "a list of patterns".to_owned(),
            Kind::Users => "users with their passwords, like {alice: '…'}".to_owned(),
            Kind::Tokens => "a list of tokens, like [{name: backup, token: '…'}]".to_owned(),
        }
    }

    /// Whether an environment variable without text is a value: no items, no socket, no folder.
    pub(super) fn may_be_empty(self) -> bool {
        matches!(
            self,
            Kind::Networks
                | Kind::Texts(_)
                | Kind::IpAddressOrNothing
                | Kind::Patterns
                | Kind::Users
                | Kind::Tokens
                | Kind::Text(
                    TextRule::SocketPath | TextRule::Folder | TextRule::Node | TextRule::User | TextRule::Password
                )
        )
    }

    /// What an environment variable says, as if it stood in the file. Whether it is right is for [`Kind::read`].
    pub(super) fn node_of_variable(self, text: &str) -> Node {
        let text = text.trim();
        let plain = Content::Text(text.to_owned());
        let content = match self {
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => Content::Bool(true),
                "false" | "0" => Content::Bool(false),
                _ => plain,
            },
            Kind::Integer { .. } | Kind::Port | Kind::Decimal { .. } => {
                let integer = text.parse().ok().map(Content::Integer);
                integer.or_else(|| text.parse().ok().map(Content::Decimal)).unwrap_or(plain)
            }
            Kind::Networks | Kind::Texts(_) => Content::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Node { line: None, content: Content::Text(item.to_owned()) })
                    .collect(),
            ),
            _ => plain,
        };
        Node { line: None, content }
    }
}

impl Value {
    /// Puts the value where its setting is kept.
    pub(super) fn store(self, place: Place<'_>) {
        match (place, self) {
            (Place::Bool(place), Value::Bool(value)) => *place = value,
            // No range exceeds its field, which a test of the table holds; nothing is ever cut off here.
            (Place::U8(place), Value::Integer(n)) => *place = u8::try_from(n).unwrap_or(u8::MAX),
            (Place::U16(place), Value::Integer(n)) => *place = u16::try_from(n).unwrap_or(u16::MAX),
            (Place::U32(place), Value::Integer(n)) => *place = u32::try_from(n).unwrap_or(u32::MAX),
            (Place::MaybeU32(place), Value::Integer(n)) => *place = Some(u32::try_from(n).unwrap_or(u32::MAX)),
            (Place::Usize(place), Value::Integer(n)) => *place = usize::try_from(n).unwrap_or(usize::MAX),
            (Place::F64(place), Value::Decimal(value)) => *place = value,
            (Place::Duration(place), Value::Duration(value)) => *place = value,
            (Place::Text(place), Value::Text(value)) => *place = value,
            (Place::Texts(place), Value::Texts(value)) => *place = value,
            (Place::Ip(place), Value::Ip(value)) => *place = value,
            (Place::MaybeIp(place), Value::MaybeIp(value)) => *place = value,
            (Place::Socket(place), Value::Socket(value)) => *place = value,
            (Place::Networks(place), Value::Networks(value)) => *place = value,
            (Place::Patterns(place), Value::Patterns(value)) => *place = value,
            (Place::Users(place), Value::Users(value)) => *place = value,
            (Place::Tokens(place), Value::Tokens(value)) => *place = value,
            (Place::Choice(ChoicePlace(place)), Value::Choice(name)) => {
                let known = place.choose(name);
                assert!(known, "the row names the choices of another type than its field's: {name}");
            }
            (_, value) => unreachable!("the row's kind does not fit its field: {value:?}"),
        }
    }
}

/// Reads each item; `None` if any was wrong.
fn read_items<T>(
    nodes: &[Node],
    spots: Spots<'_>,
    faults: &mut Vec<Fault>,
    read: impl Fn(&Node) -> Result<T, String>,
) -> Option<Vec<T>> {
    let mut values = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        match read(node) {
            Ok(value) => values.push(value),
            Err(message) => faults.push(spots.item(index, node).fault(message)),
        }
    }
    (values.len() == nodes.len()).then_some(values)
}

fn in_range(number: i128, min: u64, max: u64) -> Option<Value> {
    u64::try_from(number).ok().filter(|n| (min..=max).contains(n)).map(Value::Integer)
}

/// The error is what is added to the message.
fn read_socket_address(text: &str) -> Result<Value, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 {
            Err("; a port is from 1 to 65535".to_owned())
        } else {
            Ok(Value::Socket(address))
        };
    }
    let ip = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = ip.parse::<IpAddr>() {
        return Err(format!("; add the port: {}", SocketAddr::new(ip, 5514)));
    }
    Err(match text.rsplit_once(':') {
        Some(("", port)) => format!("; for every IPv4 address write 0.0.0.0:{}", port.escape_debug()),
        Some(_) => "; host names are not looked up".to_owned(),
        None => String::new(),
    })
}

/// The error is what is added to the message.
fn read_ip_address(text: &str) -> Result<IpAddr, &'static str> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ip);
    }
    Err(if text.parse::<SocketAddr>().is_ok() {
        "; the port is a setting of its own"
    } else if text.bytes().any(|b| b.is_ascii_alphabetic()) && !text.contains(':') {
        "; host names are not looked up"
    } else {
        ""
    })
}

pub(super) fn read_text(rule: TextRule, content: &Content) -> Result<String, String> {
    if rule == TextRule::Password {
        return read_password(content);
    }
    let expected = Kind::Text(rule).expected();
    let text = match content {
        Content::Text(text) => text,
        Content::Bool(_) | Content::Integer(_) | Content::Decimal(_) => {
            return Err(format!("expected {expected}, found {}; put it in quotes", found(content)));
        }
        Content::Nothing | Content::List(_) | Content::Mapping(_) | Content::Tagged(_) => {
            return Err(format!("expected {expected}, found {}", found(content)));
        }
    };
    let found = found(content);
    match rule {
        TextRule::Any | TextRule::Password => {}
        TextRule::User => {
            if text.len() > NAME_BYTES_MAX || text.chars().any(|c| c == ':' || c.is_control()) {
                return Err(format!("expected {expected}, found {found}"));
            }
        }
        TextRule::NotEmpty | TextRule::Name | TextRule::Program if text.is_empty() => {
            return Err("must not be empty".to_owned());
        }
        TextRule::NotEmpty => {}
        TextRule::Name => {
            if text.len() > NAME_BYTES_MAX {
                return Err(format!("expected a name of at most {NAME_BYTES_MAX} bytes, found one of {}", text.len()));
            }
            let allowed = |c: char| c.is_alphanumeric() || " ._-/:+@()#".contains(c);
            if !text.chars().all(allowed) || text.trim() != text {
                return Err(format!(
                    "expected a name of letters, digits, `-`, `_`, `.`, `/`, `:` and blanks between them, found {found}"
                ));
            }
        }
        TextRule::Program => {
            if text.len() > NAME_BYTES_MAX
                || text.chars().any(|c| c.is_whitespace() || c.is_control() || "[]:,".contains(c))
            {
                return Err(format!("expected the name of a program, without [pid], commas and blanks, found {found}"));
            }
        }
        TextRule::FailureKind => {
            if FailureKind::from_name(text).is_none() {
                return Err(format!("expected {}, found {found}", one_of(&FailureKind::NAMES)));
            }
        }
        TextRule::UrlPath => {
            let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b));
            if !text.starts_with('/') || !plain || text.len() > 256 {
                return Err(format!("expected {expected}, found {found}"));
            }
        }
        TextRule::SocketPath => {
            let is_path = text.starts_with('/') && !text.ends_with('/') && !text.contains('\0');
            if !text.is_empty() && (!is_path || text.len() > SOCKET_PATH_BYTES_MAX) {
                return Err(format!("expected {expected}, found {found}"));
            }
        }
        TextRule::Folder => {
            if text.chars().any(char::is_control) || text.len() > FOLDER_BYTES_MAX {
                return Err(format!("expected {expected}, found {found}"));
            }
        }
        TextRule::Node => {
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if !plain || text.len() > NODE_BYTES_MAX {
                return Err(format!("expected {expected}, found {found}"));
            }
        }
    }
    Ok(text.clone())
}

/// What stands there instead, as the end of the sentence "found …".
pub(super) fn found(content: &Content) -> String {
    match content {
        Content::Nothing => "nothing".to_owned(),
        Content::Bool(value) => value.to_string(),
        Content::Integer(number) => format!("the number {number}"),
        Content::Decimal(number) => format!("the number {number:?}"),
        Content::Text(text) => format!("the text {}", quoted(text)),
        Content::List(_) => "a list".to_owned(),
        Content::Mapping(_) => "a group of keys".to_owned(),
        Content::Tagged(tag) => format!("a value with the tag {}", printable(&format!("!{tag}"))),
    }
}

/// `udp, tcp or both`.
fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

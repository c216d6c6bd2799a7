//! One pattern: a regular expression in RE2 syntax, and what a match of it means.
//!
//! Compiling one says whether it can be used at all. Many of them become a [`Matcher`](super::matcher::Matcher).

use super::address::Address;
use super::ban::{PatternId, Severity};
use super::capture::{self, Capturer};
use super::logins::{Login, short_hash};
use super::{placeholder, re2};
use regex_automata::meta::{self, Regex};
use regex_automata::util::primitives::NonMaxUsize;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;
use std::fmt;

/// Longest text of a pattern: the longest in use elsewhere are below 4 KiB.
pub const REGEX_BYTES_MAX: usize = 16 << 10;

/// Largest NFA of one pattern. Common ones take 2 to 20 KiB; `(a{100}){100}` would take 40 times this.
pub(super) const NFA_BYTES_MAX: usize = 2 << 20;

/// Deepest nesting of groups in a pattern.
const NEST_MAX: u32 = 100;

/// Lazy DFA states kept per pattern and shard for finding the bounds of a match, before captures are taken.
const CACHE_BYTES: usize = 256 << 10;

/// The group that is the address where no number is given and none is called `ip`.
const IP_GROUP_DEFAULT: usize = 1;

/// The name of the group that says how many failures a line tells of.
const ATTEMPTS_GROUP: &str = "attempts";

/// What the names of groups have in them that are the client's, whatever is caught.
const CLIENTS_FIELDS: [&str; 13] = [
    "user",
    "name",
    "login",
    "pass",
    "helo",
    "ehlo",
    "agent",
    "sender",
    "recipient",
    "mail",
    "account",
    "authid",
    "realm",
];

/// The names of the groups that say which session a line is about, and which module tells.
const SESSION_GROUP: &str = "session";
const WITNESS_GROUP: &str = "witness";

/// A pattern as somebody wrote it.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    pub regex: &'a str,
    /// Which group is the address; `None`: the one called `ip`, else the first.
    pub ip_group: Option<u32>,
    pub severity: Severity,
    /// How many failures one counts for; 0 where others tell of the same.
    pub weight: u32,
    /// Programs whose records it sees: the name, and everything below it (`postfix` includes `postfix/smtpd`).
    /// Empty: all programs.
    pub programs: &'a [String],
    /// Who refused the logins. Lines of patterns that say the same may tell of the same logins.
    pub refused_by: Option<&'a str>,
}

/// Why a pattern cannot be used. `Display` says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternFault {
    Syntax(String),
    TooLong {
        bytes: usize,
    },
    TooLarge,
    NoGroup,
    TwoAddresses,
    MatchesEmpty,
    NoSuchGroup {
        asked: u32,
        groups: usize,
    },
    /// The group is one for what a client writes.
    ClientsGroup {
        name: String,
    },
    MatchesNothing,
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternFault::Syntax(why) => write!(f, "the regex does not compile: {why}"),
            PatternFault::TooLong { bytes } => {
                write!(f, "the regex is {bytes} bytes long, more than the {REGEX_BYTES_MAX} allowed")
            }
            PatternFault::TooLarge => {
                write!(
                    f,
                    "the regex needs more than {} KiB when compiled; use smaller repetitions",
                    NFA_BYTES_MAX >> 10
                )
            }
            PatternFault::NoGroup => f.write_str(
                "the regex has no group for the address; write <IP> for it, or put parentheses around it, as in \
                 from ([0-9a-fA-F:.]+)",
            ),
            PatternFault::TwoAddresses => f.write_str(
                "the regex has <IP> or <HOST> twice; write [0-9a-fA-F:.]+ for the address that is not the client's",
            ),
            PatternFault::MatchesEmpty => {
                f.write_str("the regex matches an empty line, so it matches every line; say what must be in it")
            }
            PatternFault::NoSuchGroup { asked, groups } => {
                write!(
                    f,
                    "ip_group is {asked}, but the regex has {groups} {}",
                    if *groups == 1 { "group" } else { "groups" }
                )
            }
            PatternFault::ClientsGroup { name } => {
                write!(
                    f,
                    "the address would be what the group `{name}` captures, which the client writes; give ip_group"
                )
            }
            PatternFault::MatchesNothing => f.write_str("the regex cannot match any text"),
        }
    }
}

/// A pattern that can be used.
#[derive(Debug)]
pub struct Pattern {
    pub(super) id: PatternId,
    pub(super) severity: Severity,
    pub(super) programs: Vec<String>,
    /// What the automata of many patterns are built from.
    pub(super) hir: Hir,
    weight: u32,
    /// Finds the groups; where it cannot, the regex does.
    capturer: Option<Capturer>,
    regex: Regex,
    ip_group: usize,
    attempts_group: Option<usize>,
    session_group: Option<usize>,
    witness_group: Option<usize>,
    /// The hash of who refused the logins; 0 if the pattern does not say.
    refused_by: u32,
}

/// What searching one pattern needs to change: one per shard and pattern, made when it is needed.
#[derive(Debug, Default)]
pub(super) struct Cache {
    capture: Option<capture::Cache>,
    regex: Option<meta::Cache>,
}

impl Cache {
    pub(super) fn memory_usage(&self) -> usize {
        self.capture.as_ref().map_or(0, capture::Cache::memory_usage)
            + self.regex.as_ref().map_or(0, meta::Cache::memory_usage)
    }
}

/// What a pattern makes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extract {
    /// It does not match.
    Nothing,
    /// It matches, but what the group caught is no address.
    NoAddress,
    Caught(Caught),
}

/// What a line says that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caught {
    pub(super) address: Address,
    /// 0 only if the pattern's weight is.
    pub(super) failures: u32,
    pub(super) login: Option<Login>,
}

impl Extract {
    pub(super) fn caught(self) -> Option<Caught> {
        match self {
            Extract::Caught(caught) => Some(caught),
            Extract::Nothing | Extract::NoAddress => None,
        }
    }
}

impl Pattern {
    /// Compiles one pattern.
    ///
    /// # Errors
    ///
    /// A [`PatternFault`] if it is not RE2 syntax, too large, or has no group for the address.
    pub fn compile(id: PatternId, source: &Source<'_>) -> Result<Pattern, PatternFault> {
        if source.regex.len() > REGEX_BYTES_MAX {
            return Err(PatternFault::TooLong { bytes: source.regex.len() });
        }
        let written = placeholder::expand(source.regex).map_err(|_| PatternFault::TwoAddresses)?;
        let hir = parse(&re2::translate(&written)).map_err(PatternFault::Syntax)?;
        if hir.properties().minimum_len().is_none() {
            return Err(PatternFault::MatchesNothing);
        }
        let config = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(Some(NFA_BYTES_MAX))
            .hybrid_cache_capacity(CACHE_BYTES);
        let regex = meta::Builder::new().configure(config).build_from_hir(&hir).map_err(|fault| {
            if fault.size_limit().is_some() { PatternFault::TooLarge } else { PatternFault::Syntax(fault.to_string()) }
        })?;
        if regex.is_match("") {
            return Err(PatternFault::MatchesEmpty);
        }
        let groups = regex.captures_len() - 1;
        if groups == 0 {
            return Err(PatternFault::NoGroup);
        }
        let named = |name: &str| regex.group_info().to_index(regex_automata::PatternID::ZERO, name);
        let ip_group = match source.ip_group {
            Some(asked) if asked == 0 || asked as usize > groups => {
                return Err(PatternFault::NoSuchGroup { asked, groups });
            }
            Some(asked) => asked as usize,
            None => named("ip").unwrap_or(IP_GROUP_DEFAULT),
        };
        let name = regex.group_info().to_name(regex_automata::PatternID::ZERO, ip_group);
        if let Some(name) = name.filter(|name| is_clients(name)) {
            return Err(PatternFault::ClientsGroup { name: name.to_owned() });
        }
        let attempts_group = named(ATTEMPTS_GROUP).filter(|group| *group != ip_group);
        let (session_group, witness_group) = (named(SESSION_GROUP), named(WITNESS_GROUP));
        let wanted = [Some(ip_group), attempts_group, session_group, witness_group];
        Ok(Pattern {
            id,
            severity: source.severity,
            programs: source.programs.to_vec(),
            capturer: Capturer::new(&hir, |group| wanted.contains(&Some(group))),
            hir,
            weight: source.weight,
            attempts_group,
            session_group,
            witness_group,
            refused_by: source.refused_by.map_or(0, |who| short_hash(who.as_bytes())),
            ip_group,
            regex,
        })
    }

    /// Whether the pattern sees only the records of certain programs, and then the message alone.
    pub(super) fn is_bound(&self) -> bool {
        !self.programs.is_empty()
    }

    /// Whether records of a program concern it.
    pub(super) fn sees(&self, program: &[u8]) -> bool {
        !self.is_bound() || self.programs.iter().any(|bound| is_below(program, bound.as_bytes()))
    }

    pub(super) fn slots(&self) -> usize {
        2 * self.regex.captures_len()
    }

    /// Which group is the address.
    pub(super) fn ip_group(&self) -> usize {
        self.ip_group
    }

    /// Takes the address and the number of failures from a text that matches.
    pub(super) fn extract(&self, cache: &mut Cache, slots: &mut [Option<NonMaxUsize>], text: &[u8]) -> Extract {
        if !self.search(cache, slots, text) {
            return Extract::Nothing;
        }
        let caught = |group: usize| {
            let (from, to) = ((*slots.get(2 * group)?)?, (*slots.get(2 * group + 1)?)?);
            text.get(from.get()..to.get())
        };
        let Some(address) = caught(self.ip_group).and_then(address_in) else { return Extract::NoAddress };
        // A line may say 0 or a number beyond all reason; it still tells of one failure, and adding up saturates.
        let attempts = match self.attempts_group.and_then(caught) {
            Some(digits) => std::str::from_utf8(digits).ok().map_or(1, |text| text.parse().unwrap_or(u32::MAX)),
            None => 1,
        };
        let hash = |group: Option<usize>| group.and_then(caught).filter(|text| !text.is_empty()).map_or(0, short_hash);
        let login = (self.refused_by != 0).then(|| Login {
            refused_by: self.refused_by,
            session: hash(self.session_group),
            witness: hash(self.witness_group),
        });
        Extract::Caught(Caught { address, failures: attempts.max(1).saturating_mul(self.weight), login })
    }

    /// Finds where the groups begin and end.
    fn search(&self, cache: &mut Cache, slots: &mut [Option<NonMaxUsize>], text: &[u8]) -> bool {
        if let Some(capturer) = &self.capturer {
            let cache = cache.capture.get_or_insert_with(capture::Cache::default);
            if let Ok(matches) = capturer.find(cache, text, slots) {
                return matches;
            }
        }
        let cache = cache.regex.get_or_insert_with(|| self.regex.create_cache());
        self.regex.search_slots_with(cache, &regex_automata::Input::new(text), slots).is_some()
    }

    /// What each group caught, for people: its name, or its number, and the text. `None` if the text does not match.
    pub(super) fn groups(&self, text: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
        let mut captures = self.regex.create_captures();
        self.regex.captures(text, &mut captures);
        if !captures.is_match() {
            return None;
        }
        let names = self.regex.group_info().pattern_names(regex_automata::PatternID::ZERO);
        let named = names.enumerate().skip(1).filter_map(|(group, name)| {
            let caught = text.get(captures.get_group(group)?.range())?;
            Some((name.map_or_else(|| group.to_string(), str::to_owned), caught.to_vec()))
        });
        Some(named.collect())
    }
}

/// Whether a record of `program` is one of `bound`, or of something below it: `postfix/smtpd`, and `postfix-out/smtpd` of
/// another instance, are below `postfix`.
pub(super) fn is_below(program: &[u8], bound: &[u8]) -> bool {
    let below = |rest: &[u8]| rest.is_empty() || rest.starts_with(b"/");
    program.strip_prefix(bound).is_some_and(below) || instance_of(program) == Some(bound)
}

/// The program of whose second instance this is a part: `postfix` for `postfix-out/smtpd`.
pub(super) fn instance_of(program: &[u8]) -> Option<&[u8]> {
    let name = program.get(..memchr::memchr(b'/', program)?)?;
    name.get(..memchr::memchr(b'-', name)?)
}

/// Whether a group's name is one for what a client writes.
pub(super) fn is_clients(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    CLIENTS_FIELDS.iter().any(|field| name.contains(field))
}

/// The address in what a group caught. Groups such as `([0-9.]+)` or `(\S+)` catch the punctuation behind it too.
pub(super) fn address_in(caught: &[u8]) -> Option<Address> {
    Address::parse_with_port(caught).or_else(|| {
        let trimmed = caught.trim_ascii();
        let end = trimmed.iter().rposition(|b| !b".,;:".contains(b))? + 1;
        Address::parse_with_port(trimmed.get(..end)?)
    })
}

/// Parses translated syntax over bytes: ASCII classes as in RE2, and `.` for any byte but a newline, because log lines
/// need not be UTF-8. Only what cannot be said without Unicode (`\p{Greek}`, `[é]`) is read with it.
fn parse(regex: &str) -> Result<Hir, String> {
    let parse = |unicode: bool| {
        let mut parser = ParserBuilder::new();
        parser.utf8(false).unicode(unicode).nest_limit(NEST_MAX);
        parser.build().parse(regex).map_err(|fault| match fault {
            regex_syntax::Error::Parse(fault) => {
                format!("{}, at character {}", fault.kind(), fault.span().start.offset + 1)
            }
            regex_syntax::Error::Translate(fault) => {
                format!("{}, at character {}", fault.kind(), fault.span().start.offset + 1)
            }
            other => other.to_string(),
        })
    };
    parse(false).or_else(|_| parse(true))
}

/// A pattern for tests of this room: unbound, severity 1.
#[cfg(test)]
pub(super) fn pattern(number: u32, regex: &str, programs: &[&str], severity: u8) -> Pattern {
    let programs: Vec<String> = programs.iter().map(|p| p.to_string()).collect();
    let severity = Severity::new(severity).unwrap();
    let source = Source { regex, ip_group: None, severity, weight: 1, programs: &programs, refused_by: None };
    Pattern::compile(PatternId::new(number).unwrap(), &source).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(regex: &str, ip_group: Option<u32>) -> Result<Pattern, PatternFault> {
        let severity = Severity::new(1).unwrap();
        let source = Source { regex, ip_group, severity, weight: 1, programs: &[], refused_by: None };
        Pattern::compile(PatternId::new(0).unwrap(), &source)
    }

    fn extract(regex: &str, ip_group: Option<u32>, text: &[u8]) -> Option<(String, u32)> {
        let pattern = compile(regex, ip_group).unwrap();
        let mut slots = vec![None; pattern.slots()];
        pattern.extract(&mut Cache::default(), &mut slots, text).caught().map(|c| (c.address.to_string(), c.failures))
    }

    #[test]
    fn the_address_comes_from_the_right_group() {
        let one = |a: &str| Some((a.to_owned(), 1));
        assert_eq!(extract(r"(\w+) from ([0-9.]+)", Some(2), b"fail from 192.0.2.1"), one("192.0.2.1"));
        assert_eq!(extract(r"from ([0-9.]+)", None, b"fail from 192.0.2.1. Bye"), one("192.0.2.1"));
        assert_eq!(extract(r"(\w+) from (?P<ip>\S+)", None, b"fail from [2001:db8::1]:25,"), one("2001:db8::1"));
        assert_eq!(extract(r"from (?<ip>\S+)", None, b"fail from ::ffff:192.0.2.1"), one("192.0.2.1"));
        assert_eq!(extract(r"from ([0-9.]+)", None, b"fail from 999.0.2.1"), None);
        assert_eq!(extract(r"from(?: ([0-9.]+))?", None, b"fail from nowhere"), None);
        assert_eq!(extract(r"from .* \[(.+)\]", None, b"from \xff\xfe\0 [2001:db8::2]"), one("2001:db8::2"));
    }

    #[test]
    fn a_line_may_tell_of_many_failures() {
        let regex = r"failed, (?P<attempts>\d+) attempts.* rip=(?P<ip>\S+)";
        assert_eq!(extract(regex, None, b"failed, 12 attempts rip=192.0.2.1"), Some(("192.0.2.1".to_owned(), 12)));
        assert_eq!(extract(regex, None, b"failed, 0 attempts rip=192.0.2.1"), Some(("192.0.2.1".to_owned(), 1)));
        let absurd = b"failed, 99999999999999999999 attempts rip=192.0.2.1";
        assert_eq!(extract(regex, None, absurd), Some(("192.0.2.1".to_owned(), u32::MAX)));
    }

    #[test]
    fn faults_say_what_would_be_right() {
        let fault = |regex: &str, group| compile(regex, group).unwrap_err().to_string();
        assert_eq!(fault("(", None), "the regex does not compile: unclosed group, at character 1");
        assert!(fault("no group", None).contains("put parentheses around it"));
        assert_eq!(fault("(a)", Some(2)), "ip_group is 2, but the regex has 1 group");
        assert_eq!(fault("(a)(b)", Some(0)), "ip_group is 0, but the regex has 2 groups");
        assert!(fault("((a{100}){100}){100}", None).contains("smaller repetitions"));
        assert!(fault(&format!("({})", "a".repeat(REGEX_BYTES_MAX)), None).contains("bytes long"));
        assert!(fault(r"(\1)", None).contains("backreference"));
        assert!(fault(r"(?=(a))", None).contains("look-around"));
        assert!(fault(r"(x)?", None).contains("matches an empty line"));
        assert!(fault("from <IP> to <IP>", None).contains("twice"));
        assert!(fault("of <USER> from <IP>", Some(1)).contains("which the client writes"));
        assert!(fault(r"of (?P<alt_user>\S+) from x", None).contains("which the client writes"));
        assert_eq!(compile(r"([a&&b])", None).err(), None);
        assert!(compile(r"(\p{Greek}[é])", None).is_ok());
    }
}

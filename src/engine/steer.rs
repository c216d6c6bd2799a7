//! Can a client move the address that a pattern finds?
//!
//! Parts of a log line are chosen by whoever tries to log in: the name of the user, HELO, the agent. A pattern that takes an
//! address out of such a part has whoever the attacker names banned. So each pattern is tried before it goes live: a line is
//! written as the pattern wants it, with one address where the address belongs; another one is put into every part that
//! could be the client's, with all that could make the pattern take it for the right one (the pattern's own text around the
//! address, above all); and then the pattern itself says which of the two it finds. What it finds wrongly is a counter-example
//! that anybody can try.
//!
//! The client's parts are those in which anything of any length may stand: repetitions without a bound (`.*`, `\S+`), what
//! stands before the match and behind it where the pattern is not anchored, and groups named like a field of the client's
//! (`user`, `helo`, `agent` …).

use super::address::Address;
use super::pattern::Pattern;
use regex_automata::meta::{self, Regex};
use regex_syntax::hir::{Capture, Class, Hir, HirKind, Look, Repetition};
use std::collections::BTreeSet;

/// Groups with these names are the client's, whatever is in them.
const CLIENTS_FIELDS: [&str; 8] = ["user", "username", "login", "helo", "ehlo", "agent", "useragent", "name"];

/// The address that belongs there, and the one that an attacker names, by turns, until the group takes both.
const ADDRESSES: [(&str, &str); 3] =
    [("192.0.2.1", "198.51.100.77"), ("2001:db8::1", "2001:db8:5:77::9"), ("::ffff:192.0.2.1", "::ffff:198.51.100.77")];

/// How much of the pattern's own text an attacker writes before and behind his address, in bytes; all of it besides.
const BEFORE: [usize; 12] = [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 21, 34];
const BEHIND: [usize; 8] = [0, 1, 2, 3, 4, 8, 16, 32];

/// What he writes around that.
const EDGES: [(&str, &str); 5] = [("", ""), ("x", "x"), (" ", " "), (", ", ", "), ("x ", " x")];

/// Repetitions of one part in the written line: beyond that it is not written.
const REPEATED_MAX: u32 = 64;

/// Longest line that is written, in bytes.
const LINE_BYTES_MAX: usize = 8 << 10;

/// A line that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterExample {
    pub line: String,
    /// What the client wrote of it.
    pub written: String,
    /// Whose line it is, and who is found instead; `None`: nobody.
    pub of: Option<Address>,
    pub found: Option<Address>,
}

/// Looks for a line in which a client is found that is not the one whose line it is. `None` if there is none among those
/// that are tried.
pub fn steer(pattern: &Pattern) -> Option<CounterExample> {
    let hir = &pattern.hir;
    let group = find_capture(hir, pattern.ip_group())?;
    let language = Language::of(group)?;
    let (ours, theirs) = ADDRESSES.into_iter().find(|(ours, theirs)| language.has(ours) && language.has(theirs))?;
    let of = Address::parse(ours.as_bytes())?;
    let mut sites = Vec::new();
    collect_sites(hir, group, &mut sites);
    let (cache, slots) = (pattern.cache(), vec![None; pattern.slots()]);
    let mut trial = Trial { pattern, cache, slots, of: Some(of), ours, theirs, group };
    let sites: Vec<Site<'_>> = sites.into_iter().map(Site::Inside).chain(outer_sites(hir)).collect();
    if let Some(found) = sites.iter().find_map(|site| trial.at(hir, *site)) {
        return Some(found);
    }
    // Where the address need not be there, a line without one is the client's to write it into.
    trial.of = None;
    sites.iter().find_map(|site| trial.at(hir, *site))
}

/// Where a client may write.
#[derive(Clone, Copy, Debug)]
enum Site<'a> {
    Inside(&'a Hir),
    Before,
    Behind,
}

/// A line in the making: where the address stands, and where the client writes.
#[derive(Debug, Default)]
struct Line {
    text: Vec<u8>,
    address: Option<(usize, usize)>,
    site: Option<usize>,
}

/// What is written, and where.
struct Writer<'a> {
    group: &'a Hir,
    address: &'a str,
    site: Option<&'a Hir>,
    /// Whether the address is in the line even where the pattern can do without.
    with_address: bool,
    line: Line,
}

fn is(one: &Hir, other: &Hir) -> bool {
    std::ptr::eq(one, other)
}

/// Whether a part lies inside of another, or is it.
fn holds(hir: &Hir, part: &Hir) -> bool {
    is(hir, part) || parts(hir).any(|inner| holds(inner, part))
}

fn parts(hir: &Hir) -> impl Iterator<Item = &Hir> {
    hir.kind().subs().iter()
}

fn find_capture(hir: &Hir, group: usize) -> Option<&Hir> {
    match hir.kind() {
        HirKind::Capture(Capture { index, .. }) if *index as usize == group => Some(hir),
        _ => parts(hir).find_map(|part| find_capture(part, group)),
    }
}

/// All parts that are a client's, but for those inside of the address.
fn collect_sites<'a>(hir: &'a Hir, group: &Hir, sites: &mut Vec<&'a Hir>) {
    if is(hir, group) {
        return;
    }
    let is_clients = match hir.kind() {
        HirKind::Repetition(Repetition { max: None, .. }) => !holds(hir, group),
        HirKind::Capture(Capture { name: Some(name), .. }) => {
            CLIENTS_FIELDS.contains(&name.to_ascii_lowercase().as_str()) && !holds(hir, group)
        }
        _ => false,
    };
    if is_clients {
        return sites.push(hir);
    }
    parts(hir).for_each(|part| collect_sites(part, group, sites));
}

/// What stands before and behind the match, unless the pattern says that nothing does.
fn outer_sites(hir: &Hir) -> Vec<Site<'_>> {
    let properties = hir.properties();
    let before = !properties.look_set_prefix().contains(Look::Start);
    let behind = !properties.look_set_suffix().contains(Look::End);
    [(before, Site::Before), (behind, Site::Behind)]
        .into_iter()
        .filter(|(open, _)| *open)
        .map(|(_, site)| site)
        .collect()
}

impl Writer<'_> {
    /// Writes the shortest text that a part takes. False if it cannot.
    fn write(&mut self, hir: &Hir) -> bool {
        if self.line.text.len() > LINE_BYTES_MAX {
            return false;
        }
        if self.site.is_some_and(|site| is(site, hir)) {
            self.line.site = Some(self.line.text.len());
            // An empty field is seldom what a daemon writes; what is needed at least is put in by whoever tries texts.
            return true;
        }
        if is(hir, self.group) {
            let from = self.line.text.len();
            self.line.text.extend_from_slice(self.address.as_bytes());
            self.line.address = Some((from, self.line.text.len()));
            return true;
        }
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => true,
            HirKind::Literal(literal) => {
                self.line.text.extend_from_slice(&literal.0);
                true
            }
            HirKind::Class(class) => write_one_of(class, &mut self.line.text),
            HirKind::Repetition(Repetition { min, sub, .. }) => {
                let needed = u32::from(self.needs(sub)).max(*min);
                needed <= REPEATED_MAX && (0..needed).all(|_| self.write(sub))
            }
            HirKind::Capture(Capture { sub, .. }) => self.write(sub),
            HirKind::Concat(parts) => parts.iter().all(|part| self.write(part)),
            HirKind::Alternation(ways) => {
                let way = ways.iter().find(|way| self.needs(way)).or(ways.first());
                way.is_some_and(|way| self.write(way))
            }
        }
    }

    /// Whether a part must be in the line, because the address or the client's text is in it.
    fn needs(&self, hir: &Hir) -> bool {
        self.with_address && holds(hir, self.group) || self.site.is_some_and(|site| holds(hir, site))
    }
}

/// Writes one character of a class: a letter, if it has one.
fn write_one_of(class: &Class, text: &mut Vec<u8>) -> bool {
    let wanted = [b'x', b'a', b'A', b'0', b' '];
    match class {
        Class::Bytes(class) => {
            let has = |byte: u8| class.iter().any(|range| (range.start()..=range.end()).contains(&byte));
            let byte = wanted.into_iter().find(|byte| has(*byte)).or(class.iter().next().map(|range| range.start()));
            text.extend(byte);
            byte.is_some()
        }
        Class::Unicode(class) => {
            let has = |c: char| class.iter().any(|range| (range.start()..=range.end()).contains(&c));
            let c =
                wanted.into_iter().map(char::from).find(|c| has(*c)).or(class.iter().next().map(|range| range.start()));
            if let Some(c) = c {
                text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            c.is_some()
        }
    }
}

/// All texts that a part takes.
struct Language(Regex);

impl Language {
    fn of(part: &Hir) -> Option<Language> {
        let whole = Hir::concat(vec![Hir::look(Look::Start), part.clone(), Hir::look(Look::End)]);
        let config = meta::Config::new().utf8_empty(false);
        meta::Builder::new().configure(config).build_from_hir(&whole).ok().map(Language)
    }

    fn has(&self, text: impl AsRef<[u8]>) -> bool {
        self.0.is_match(text.as_ref())
    }
}

/// The trying of one pattern.
struct Trial<'a> {
    pattern: &'a Pattern,
    cache: meta::Cache,
    slots: Vec<Option<regex_automata::util::primitives::NonMaxUsize>>,
    of: Option<Address>,
    ours: &'a str,
    theirs: &'a str,
    group: &'a Hir,
}

impl Trial<'_> {
    fn found(&mut self, line: &[u8]) -> Option<Address> {
        self.pattern.extract(&mut self.cache, &mut self.slots, line).map(|(address, _)| address)
    }

    /// Tries all texts at one place.
    fn at(&mut self, hir: &Hir, site: Site<'_>) -> Option<CounterExample> {
        let inside = match site {
            Site::Inside(part) => Some(part),
            Site::Before | Site::Behind => None,
        };
        let mut writer = Writer {
            group: self.group,
            address: self.ours,
            site: inside,
            with_address: self.of.is_some(),
            line: Line::default(),
        };
        if !writer.write(hir) {
            return None;
        }
        let Line { text, address, site: at } = writer.line;
        if address.is_some() != self.of.is_some() {
            return None;
        }
        // Without an address, the pattern's own words around one are those of a line that has it.
        let own = match address {
            Some((from, to)) => (text.get(..from)?.to_vec(), text.get(to..)?.to_vec()),
            None => around(hir, self.group, self.ours)?,
        };
        let at = match site {
            // The two may be in different ways of one alternation.
            Site::Inside(_) => at?,
            Site::Before => 0,
            Site::Behind => text.len(),
        };
        let language = match inside {
            Some(part) => Some(Language::of(part)?),
            None => None,
        };
        let takes = |written: &[u8]| language.as_ref().is_none_or(|language| language.has(written));
        // With something harmless in it, it is the line of whose it is; else it is not understood here.
        let harmless = ["", "x", "x x", "xx@example.org", "0", " "].into_iter().find(|harmless| {
            takes(harmless.as_bytes()) && self.found(&insert(&text, at, harmless.as_bytes())) == self.of
        })?;
        let (before, behind) = (own.0.as_slice(), own.1.as_slice());
        let mut tried = BTreeSet::new();
        for written in attacks(before, behind, self.theirs, harmless) {
            if !takes(&written) || !tried.insert(written.clone()) {
                continue;
            }
            let line = insert(&text, at, &written);
            let found = self.found(&line);
            // A line in which nobody is found any more is a way round the pattern, which is another question.
            if found != self.of && found.is_some() {
                let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
                return Some(CounterExample { line: shown(&line), written: shown(&written), of: self.of, found });
            }
        }
        None
    }
}

/// What a pattern has before and behind the address, in a line that has one.
fn around(hir: &Hir, group: &Hir, address: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut writer = Writer { group, address, site: None, with_address: true, line: Line::default() };
    if !writer.write(hir) {
        return None;
    }
    let Line { text, address, .. } = writer.line;
    let (from, to) = address?;
    Some((text.get(..from)?.to_vec(), text.get(to..)?.to_vec()))
}

fn insert(text: &[u8], at: usize, written: &[u8]) -> Vec<u8> {
    let mut line = text.to_vec();
    line.splice(at..at, written.iter().copied());
    line
}

/// What an attacker writes: his address, in the pattern's own words.
fn attacks<'a>(
    before: &'a [u8],
    behind: &'a [u8],
    theirs: &'a str,
    harmless: &'a str,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let befores = BEFORE.into_iter().filter(|len| *len < before.len()).chain([before.len()]);
    befores.flat_map(move |most| {
        let behinds = BEHIND.into_iter().filter(|len| *len < behind.len()).chain([behind.len()]);
        behinds.flat_map(move |least| {
            EDGES.into_iter().flat_map(move |(left, right)| {
                [("", ""), (harmless, ""), ("", harmless)].into_iter().map(move |(first, last)| {
                    let near = before.get(before.len() - most..).unwrap_or_default();
                    let next = behind.get(..least).unwrap_or_default();
                    let parts: [&[u8]; 7] = [
                        first.as_bytes(),
                        left.as_bytes(),
                        near,
                        theirs.as_bytes(),
                        next,
                        right.as_bytes(),
                        last.as_bytes(),
                    ];
                    parts.concat()
                })
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::ban::{PatternId, Severity};
    use super::super::pattern::Source;
    use super::*;

    fn pattern(regex: &str) -> Pattern {
        let severity = Severity::new(3).unwrap();
        let source = Source { regex, ip_group: None, severity, weight: 1, programs: &["x".to_owned()] };
        Pattern::compile(PatternId::new(0).unwrap(), &source).unwrap()
    }

    #[test]
    fn patterns_that_a_client_can_move_are_shown_to_be() {
        for regex in [
            // Of the documentation, and of sets that are in use.
            "nginx.*404.*client: ([0-9.]+)",
            r"auth failed.*rip=([0-9.]+)",
            r"SASL \w+ authentication failed.*\[([0-9.]+)\]",
            r"warning: .*\[([0-9.]+)\].*: SASL \w+ authentication failed",
            r"Login failed for user '.*' from ([0-9.]+)",
            r"user=<(?P<user>[^>]*)>, .*rip=(?P<ip>\S+)",
            r"^login of (?P<user>.*?) from (?P<ip>[0-9a-f.:]+) failed",
            r"^(?:from ([0-9.]+) )?.*failed",
        ] {
            let shown = steer(&pattern(regex));
            let shown = shown.unwrap_or_else(|| panic!("{regex} is said to be right"));
            let one = pattern(regex);
            let found = one.extract(&mut one.cache(), &mut vec![None; one.slots()], shown.line.as_bytes());
            assert_eq!(found.map(|(address, _)| address), shown.found, "{regex}: {shown:?}");
            assert!(shown.found.is_some() && shown.found != shown.of, "{regex}: {shown:?}");
            assert!(shown.line.contains(&shown.written), "{regex}: {shown:?}");
        }
    }

    #[test]
    fn patterns_that_nobody_can_move_are_not() {
        for regex in [
            r"^warning: [^\[\]\s]*\[(?P<ip>[0-9a-fA-F:.]+)\]: SASL [A-Z0-9-]+ authentication failed",
            r"^Login failed for user '.*' from (?P<ip>[0-9a-fA-F:.]+)$",
            r"^user=<.*>, rip=(?P<ip>[0-9a-fA-F:.]+), lip=[0-9a-fA-F:.]+$",
            r"^from (?P<ip>[0-9.]+) (?:user .*)?failed$",
        ] {
            assert_eq!(steer(&pattern(regex)), None, "{regex}");
        }
    }
}

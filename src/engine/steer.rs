//! Can a client move the address that a pattern finds?
//!
//! Parts of a log line are chosen by whoever tries to log in: the name of the user, HELO, the agent. With a pattern that
//! takes an address out of such a part, whoever the attacker names is banned. So each pattern is looked at before it goes
//! live.
//!
//! **What is decided.** A pattern says what the daemon writes: its own words, the address, and parts in which anything of a
//! kind may stand, which are taken for the client's (`.*`, `[^>]*`, and what is before and behind a match that is not
//! anchored). A line is the daemon's for the address A if there is *some* way to read it by the pattern in which the
//! group is A. If the same line can also be read so that the group is B, then one of the two is what the daemon wrote,
//! and the other one is what a client wrote into one of its parts; the matcher takes one of them and cannot know which.
//! So the question is whether two languages have a line in common: that of the pattern with A in the place of its
//! group, and that of the pattern with B there. A group that need not be there adds a third: lines that name nobody.
//! And of a line that is A's alone, the matcher must find A, not a part of it.
//!
//! **How.** Both become an NFA, and pairs of their states are walked through, breadth first, from the two starts. There
//! are at most as many pairs as the product of the states, whatever the pattern; the first pair that accepts spells the
//! shortest line. The matcher itself then says whom it finds in it, so a counter-example is one that anybody can try.
//!
//! Groups that are named like a field of the client's (`user`, `helo`, `agent` …, `<USER>`) may hold anything in the
//! daemon's line, whatever the pattern lets them hold: a client that writes more than that must not be read as another
//! one.
//!
//! What is not decided: whether a part that a pattern leaves open is in truth the daemon's own and never holds an address.
//! Then the pattern should say what stands there. And two addresses stand for all.

use super::address::Address;
use super::pattern::{self, Pattern, address_in, is_clients};
use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
use regex_automata::nfa::thompson::{self, NFA, State, WhichCaptures};
use regex_automata::util::look::Look as NfaLook;
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::{Capture, Class, ClassBytes, ClassBytesRange, Hir, HirKind, Look, Repetition};

/// The address that belongs there, and another one, in both families. No part of one is the other.
const ADDRESSES: [(&str, &str); 2] = [("192.0.2.1", "198.51.100.77"), ("2001:db8::1", "2001:db8:5:77::9")];

/// As groups take addresses that do not take these: the first that a group takes stands for all.
const OTHER_ADDRESSES: [(&str, &str); 11] = [
    ("::ffff:192.0.2.1", "::ffff:198.51.100.77"),
    ("192.0.2.1:4711", "198.51.100.77:815"),
    ("[192.0.2.1]", "[198.51.100.77]"),
    ("[2001:db8::1]", "[2001:db8:5:77::9]"),
    ("[192.0.2.1]:4711", "[198.51.100.77]:815"),
    ("192.168.122.211", "203.110.113.199"),
    ("192.168.22.11", "203.10.113.99"),
    ("10.20.30.41", "10.77.66.55"),
    ("192.168.20.41", "192.168.66.155"),
    (" 192.0.2.1", " 198.51.100.77"),
    ("192.0.2.1,", "198.51.100.77,"),
];

/// Pairs of states that are walked through at most. Patterns in use have some thousands.
const PAIRS_MAX: usize = 1 << 18;

/// Steps of all walks for one pattern. Patterns in use need up to a million; this is some tenths of a second.
const STEPS_MAX: u64 = 1 << 24;

/// Lines in which the matcher finds neither address before no more are tried.
const LINES_MAX: usize = 64;

/// A line that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterExample {
    /// As a log has it: `program: message`.
    pub line: String,
    /// Whose line it can be, and who is found instead; `None`: nobody's.
    pub of: Option<Address>,
    pub found: Address,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The address is always the daemon's.
    Fixed,
    Steerable(CounterExample),
    /// The pattern is too large, or its group takes none of the addresses that are tried.
    Undecided,
}

/// Decides whether a client can move the address.
pub fn steer(pattern: &Pattern) -> Verdict {
    let group = pattern.ip_group();
    let mut verdict = Verdict::Fixed;
    let nobody = replace(&pattern.hir, group, &Replacement::Absent).and_then(|hir| automaton(&widen(&hir)));
    let Some(anything) = automaton(&Hir::empty()) else { return Verdict::Undecided };
    let takes = |(ours, theirs): &(&str, &str)| {
        let takes = |text| replace(&pattern.hir, group, &Replacement::Address { text, alone: false }).is_some();
        takes(ours) && takes(theirs)
    };
    let mut addresses: Vec<(&str, &str)> = ADDRESSES.into_iter().filter(takes).collect();
    if addresses.is_empty() {
        addresses.extend(OTHER_ADDRESSES.into_iter().find(takes));
    }
    if addresses.is_empty() {
        return Verdict::Undecided;
    }
    let mut steps = STEPS_MAX;
    // First with addresses that stand by themselves, as they do where one writes them; such lines are the likelier ones.
    let ways = [true, false].into_iter().flat_map(|alone| addresses.iter().map(move |pair| (alone, *pair)));
    for (alone, (ours, theirs)) in ways {
        let of = |text| replace(&pattern.hir, group, &Replacement::Address { text, alone });
        let (Some(ours_hir), Some(theirs_hir)) = (of(ours), of(theirs)) else { continue };
        let automata = (automaton(&widen(&ours_hir)), automaton(&theirs_hir));
        let (Some(ours_nfa), Some(theirs_nfa)) = automata else { return Verdict::Undecided };
        let address = |text: &str| address_in(text.as_bytes());
        let (Some(ours), Some(theirs)) = (address(ours), address(theirs)) else { continue };
        // A line of one alone, one that can be read as either's, and one that can be read as nobody's.
        let walks = [
            Some((&ours_nfa, &anything, Whose::One(ours))),
            Some((&ours_nfa, &theirs_nfa, Whose::Either(ours, theirs))),
            nobody.as_ref().map(|nobody| (nobody, &theirs_nfa, Whose::Nobody)),
        ];
        for (first, second, whose) in walks.into_iter().flatten() {
            match Walk::new(first, second, &mut steps).lines(|line| counter_example(pattern, line, whose)) {
                Walked::Found(shown) => return Verdict::Steerable(shown),
                Walked::All => {}
                // Its own lines are without number.
                Walked::TooManyLines if matches!(whose, Whose::One(_)) => {}
                Walked::TooManyLines => verdict = Verdict::Undecided,
                Walked::TooMuch => return Verdict::Undecided,
            }
        }
    }
    verdict
}

/// Whose a line is, by the pattern alone.
#[derive(Clone, Copy, Debug)]
enum Whose {
    One(Address),
    Either(Address, Address),
    Nobody,
}

/// What the matcher makes of a line, if that is wrong.
fn counter_example(pattern: &Pattern, line: &[u8], whose: Whose) -> Option<CounterExample> {
    let mut log_line = match pattern.programs.first() {
        Some(program) => format!("{program}: ").into_bytes(),
        // Where anything may stand in front, the name of a program does.
        None if !pattern.hir.properties().look_set_prefix().contains(Look::Start) => b"x: ".to_vec(),
        None => Vec::new(),
    };
    let shown_from = if pattern.is_bound() { log_line.len() } else { 0 };
    log_line.extend_from_slice(line);
    let seen = log_line.get(shown_from..)?;
    let mut slots = vec![None; pattern.slots()];
    let found = pattern.extract(&mut pattern::Cache::default(), &mut slots, seen).caught()?.address;
    let of = match whose {
        Whose::One(one) if found == one => return None,
        // Whom the matcher finds need not be who wrote it.
        Whose::Either(one, other) if found == one => Some(other),
        Whose::One(one) | Whose::Either(one, _) => Some(one),
        Whose::Nobody => None,
    };
    Some(CounterExample { line: String::from_utf8_lossy(&log_line).into_owned(), of, found })
}

/// What stands in the place of the address.
enum Replacement<'a> {
    /// This one, and `alone`: with no letter or digit beside it.
    Address { text: &'a str, alone: bool },
    /// Nothing: the line is read without the group.
    Absent,
}

fn holds(hir: &Hir, group: usize) -> bool {
    matches!(hir.kind(), HirKind::Capture(Capture { index, .. }) if *index as usize == group)
        || hir.kind().subs().iter().any(|part| holds(part, group))
}

/// The pattern with something else for its group, and without other groups. `None` if there is no such line.
fn replace(hir: &Hir, group: usize, by: &Replacement<'_>) -> Option<Hir> {
    if !holds(hir, group) {
        return Some(hir.clone());
    }
    match (hir.kind(), by) {
        (HirKind::Capture(Capture { index, sub, .. }), _) if *index as usize == group => match by {
            Replacement::Address { text, alone } => is_whole(sub, text).then(|| {
                let text = Hir::literal(text.as_bytes());
                let edge = || Hir::look(Look::WordAscii);
                if *alone { Hir::concat(vec![edge(), text, edge()]) } else { text }
            }),
            Replacement::Absent => None,
        },
        (HirKind::Capture(Capture { sub, .. }), _) => replace(sub, group, by),
        (HirKind::Concat(parts), _) => {
            let replaced: Option<Vec<Hir>> = parts.iter().map(|part| replace(part, group, by)).collect();
            replaced.map(Hir::concat)
        }
        (HirKind::Alternation(ways), _) => {
            let is_way = |way: &&Hir| matches!(by, Replacement::Absent) || holds(way, group);
            let ways: Vec<Hir> = ways.iter().filter(is_way).filter_map(|way| replace(way, group, by)).collect();
            (!ways.is_empty()).then(|| Hir::alternation(ways))
        }
        (HirKind::Repetition(repetition), Replacement::Absent) => match replace(&repetition.sub, group, by) {
            Some(sub) => Some(Hir::repetition(Repetition { sub: Box::new(sub), ..repetition.clone() })),
            None => (repetition.min == 0).then(Hir::empty),
        },
        (HirKind::Repetition(repetition), Replacement::Address { .. }) => {
            // The last one counts; the ones before may be any.
            let max = repetition.max.map(|max| max.checked_sub(1));
            let last = replace(&repetition.sub, group, by)?;
            let before = Repetition {
                min: repetition.min.saturating_sub(1),
                max: match max {
                    Some(None) => return None,
                    Some(max) => max,
                    None => None,
                },
                ..repetition.clone()
            };
            // What comes after it without the group leaves it as it is.
            let after = replace(&repetition.sub, group, &Replacement::Absent).map_or_else(Hir::empty, |sub| {
                Hir::repetition(Repetition { min: 0, sub: Box::new(sub), ..before.clone() })
            });
            Some(Hir::concat(vec![Hir::repetition(before), last, after]))
        }
        _ => Some(hir.clone()),
    }
}

/// The pattern with anything in the client's fields.
fn widen(hir: &Hir) -> Hir {
    let all = |parts: &[Hir]| parts.iter().map(widen).collect();
    match hir.kind() {
        HirKind::Capture(Capture { name: Some(name), .. }) if is_clients(name) => anything(),
        HirKind::Capture(Capture { sub, .. }) => widen(sub),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(ways) => Hir::alternation(all(ways)),
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(widen(&repetition.sub)), ..repetition.clone() })
        }
        _ => hir.clone(),
    }
}

/// Any text.
fn anything() -> Hir {
    let any = Hir::class(Class::Bytes(ClassBytes::new([ClassBytesRange::new(0, 255)])));
    Hir::repetition(Repetition { min: 0, max: None, greedy: true, sub: Box::new(any) })
}

/// Whether a part takes exactly this text.
fn is_whole(part: &Hir, text: &str) -> bool {
    let whole = Hir::concat(vec![Hir::look(Look::Start), part.clone(), Hir::look(Look::End)]);
    let config = regex_automata::meta::Config::new().utf8_empty(false);
    let regex = regex_automata::meta::Builder::new().configure(config).build_from_hir(&whole);
    regex.is_ok_and(|regex| regex.is_match(text))
}

/// All lines in which a pattern is found, as an automaton. `None` if it is too large.
fn automaton(hir: &Hir) -> Option<NFA> {
    let line = Hir::concat(vec![anything(), hir.clone(), anything()]);
    let config = thompson::Config::new()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(super::pattern::NFA_BYTES_MAX));
    thompson::Compiler::new().configure(config).build_from_hir(&line).ok()
}

/// What kind of byte stands beside a place, as far as assertions ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Beside {
    /// The line's beginning or end.
    Edge,
    Newline,
    Word,
    Other,
}

impl Beside {
    const BYTES: [Beside; 3] = [Beside::Newline, Beside::Word, Beside::Other];

    fn of(byte: u8) -> Beside {
        match byte {
            b'\n' => Beside::Newline,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => Beside::Word,
            _ => Beside::Other,
        }
    }

    /// Whether an assertion holds between two bytes. A carriage return is taken for any other byte.
    fn holds(look: NfaLook, before: Beside, behind: Beside) -> bool {
        let (word_before, word_behind) = (before == Beside::Word, behind == Beside::Word);
        let (line_before, line_behind) =
            (matches!(before, Beside::Edge | Beside::Newline), matches!(behind, Beside::Edge | Beside::Newline));
        match look {
            NfaLook::Start => before == Beside::Edge,
            NfaLook::End => behind == Beside::Edge,
            NfaLook::StartLF | NfaLook::StartCRLF => line_before,
            NfaLook::EndLF | NfaLook::EndCRLF => line_behind,
            NfaLook::WordAscii | NfaLook::WordUnicode => word_before != word_behind,
            NfaLook::WordAsciiNegate | NfaLook::WordUnicodeNegate => word_before == word_behind,
            NfaLook::WordStartAscii | NfaLook::WordStartUnicode => !word_before && word_behind,
            NfaLook::WordEndAscii | NfaLook::WordEndUnicode => word_before && !word_behind,
            NfaLook::WordStartHalfAscii | NfaLook::WordStartHalfUnicode => !word_before,
            NfaLook::WordEndHalfAscii | NfaLook::WordEndHalfUnicode => !word_behind,
        }
    }
}

/// Where one automaton can go on from a state, before a certain kind of byte.
#[derive(Debug, Default)]
struct Ahead {
    /// From and to which byte, and the state behind it.
    ways: Vec<(u8, u8, StateID)>,
    accepts: bool,
}

/// One automaton, and what is known of its states.
struct Side<'a> {
    nfa: &'a NFA,
    ahead: HashMap<(StateID, Beside, Beside), Ahead>,
}

impl Side<'_> {
    /// Finds out where a state leads, if that is not known yet.
    fn look(&mut self, from: StateID, before: Beside, behind: Beside, steps: &mut u64) {
        let Entry::Vacant(entry) = self.ahead.entry((from, before, behind)) else { return };
        let mut ahead = Ahead::default();
        let mut seen: HashSet<StateID> = HashSet::from([from]);
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            *steps = steps.saturating_sub(1);
            let mut go = |to: StateID| {
                if seen.insert(to) {
                    open.push(to);
                }
            };
            match self.nfa.state(at) {
                State::ByteRange { trans } => ahead.ways.push((trans.start, trans.end, trans.next)),
                State::Sparse(sparse) => {
                    ahead.ways.extend(sparse.transitions.iter().map(|trans| (trans.start, trans.end, trans.next)));
                }
                State::Dense(dense) => {
                    let ways = (0..=255u8).zip(dense.transitions.iter());
                    ahead.ways.extend(ways.filter(|(_, to)| **to != StateID::ZERO).map(|(byte, to)| (byte, byte, *to)));
                }
                State::Look { look, next } if Beside::holds(*look, before, behind) => go(*next),
                State::Look { .. } | State::Fail => {}
                State::Union { alternates } => alternates.iter().for_each(|to| go(*to)),
                State::BinaryUnion { alt1, alt2 } => {
                    go(*alt1);
                    go(*alt2);
                }
                State::Capture { next, .. } => go(*next),
                State::Match { .. } => ahead.accepts = true,
            }
        }
        entry.insert(ahead);
    }

    fn ahead(&self, from: StateID, before: Beside, behind: Beside) -> Option<&Ahead> {
        self.ahead.get(&(from, before, behind))
    }
}

type Pair = (StateID, StateID, Beside);

/// The walk through pairs of states.
struct Walk<'a> {
    first: Side<'a>,
    second: Side<'a>,
    /// Where each pair was come to from, and by which byte.
    pairs: Vec<(Pair, usize, u8)>,
    seen: HashSet<Pair>,
    /// Whether assertions ask what kind of byte stands beside them.
    asks: bool,
    /// Steps that may still be made.
    steps: &'a mut u64,
}

/// How a walk ended.
enum Walked<T> {
    Found(T),
    All,
    TooManyLines,
    TooMuch,
}

impl<'a> Walk<'a> {
    fn new(first: &'a NFA, second: &'a NFA, steps: &'a mut u64) -> Walk<'a> {
        let side = |nfa| Side { nfa, ahead: HashMap::new() };
        let start = (first.start_anchored(), second.start_anchored(), Beside::Edge);
        let asks = [first, second].into_iter().any(|nfa| {
            let looks = nfa.look_set_any();
            looks.iter().any(|look| !matches!(look, NfaLook::Start | NfaLook::End))
        });
        Walk {
            first: side(first),
            second: side(second),
            pairs: vec![(start, 0, 0)],
            seen: HashSet::from([start]),
            asks,
            steps,
        }
    }

    /// Shows lines that are in both languages, the shortest first, until something is made of one.
    fn lines<T>(mut self, mut of: impl FnMut(&[u8]) -> Option<T>) -> Walked<T> {
        let mut at = 0;
        let mut lines = 0;
        while let Some(&((a, b, before), ..)) = self.pairs.get(at) {
            self.first.look(a, before, Beside::Edge, self.steps);
            self.second.look(b, before, Beside::Edge, self.steps);
            let accepts =
                |side: &Side<'_>, state| side.ahead(state, before, Beside::Edge).is_some_and(|ahead| ahead.accepts);
            if accepts(&self.first, a) && accepts(&self.second, b) {
                lines += 1;
                match of(&self.spell(at)) {
                    Some(found) => return Walked::Found(found),
                    None if lines == LINES_MAX => return Walked::TooManyLines,
                    None => {}
                }
            }
            let kinds = if self.asks { &Beside::BYTES[..] } else { &[Beside::Other] };
            for kind in kinds {
                self.first.look(a, before, *kind, self.steps);
                self.second.look(b, before, *kind, self.steps);
                let ahead = (self.first.ahead(a, before, *kind), self.second.ahead(b, before, *kind));
                let (Some(first), Some(second)) = ahead else { continue };
                *self.steps = self.steps.saturating_sub(2 * first.ways.len() as u64 * second.ways.len() as u64);
                // What people can read is gone through first.
                for bytes in [READABLE, (0, 255)] {
                    for (from, to, next) in &first.ways {
                        for (other_from, other_to, other_next) in &second.ways {
                            let from = *from.max(other_from).max(&bytes.0);
                            let to = *to.min(other_to).min(&bytes.1);
                            let Some(byte) = byte_between((from, to), self.asks.then_some(*kind)) else { continue };
                            let pair = (*next, *other_next, *kind);
                            if self.seen.insert(pair) {
                                self.pairs.push((pair, at, byte));
                            }
                        }
                    }
                }
            }
            if self.pairs.len() > PAIRS_MAX || *self.steps == 0 {
                return Walked::TooMuch;
            }
            at += 1;
        }
        Walked::All
    }

    /// The line that leads to a pair.
    fn spell(&self, mut at: usize) -> Vec<u8> {
        let mut line = Vec::new();
        while let Some((_, from, byte)) = self.pairs.get(at).filter(|_| at > 0) {
            line.push(*byte);
            at = *from;
        }
        line.reverse();
        line
    }
}

/// Bytes that people can read.
const READABLE: (u8, u8) = (b' ', b'~');

/// A byte within bounds, of a kind if one is asked for: an inconspicuous one, if there is one.
fn byte_between((from, to): (u8, u8), kind: Option<Beside>) -> Option<u8> {
    let fits = |byte: &u8| (from..=to).contains(byte) && kind.is_none_or(|kind| Beside::of(*byte) == kind);
    let plain = b"x a0A-".iter().copied().find(fits);
    plain.or_else(|| (from..=to).find(fits))
}

#[cfg(test)]
mod tests {
    use super::super::pattern::pattern;
    use super::*;

    /// Of these, the matcher finds in the line shown the one that it is said to find.
    fn assert_steerable(regex: &str) {
        let one = pattern(0, regex, &["x"], 3);
        let Verdict::Steerable(shown) = steer(&one) else { panic!("{regex} is said to be right") };
        let message = shown.line.strip_prefix("x: ").unwrap();
        let found = one
            .extract(&mut pattern::Cache::default(), &mut vec![None; one.slots()], message.as_bytes())
            .caught()
            .unwrap();
        assert_eq!(found.address, shown.found, "{regex}: {shown:?}");
        assert_ne!(shown.of, Some(shown.found), "{regex}: {shown:?}");
    }

    #[test]
    fn patterns_that_a_client_can_move_are_shown_to_be() {
        for regex in [
            "nginx.*404.*client: ([0-9.]+)",
            r"auth failed.*rip=([0-9.]+)",
            r"rip=([0-9a-f.:]+)",
            r"SASL \w+ authentication failed.*\[([0-9.]+)\]",
            r"warning: .*\[([0-9.]+)\].*: SASL \w+ authentication failed",
            r"warning: \S+\[([0-9.]+)\]: SASL (?:PLAIN|LOGIN) authentication failed",
            r"Login failed for user '.*' from ([0-9.]+)",
            r"user=<(?P<user>[^>]*)>, .*rip=(?P<ip>\S+)",
            r"^login of (?P<user>.*?) from (?P<ip>[0-9a-f.:]+) failed",
            r"^login of (?P<user>.*) from (?P<ip>[0-9a-f.:]+)\b.*$",
            r"^(?:from ([0-9.]+) )?.*failed",
            r"<USER> from <IP> port",
            r"failed.*\[(?P<ip>::ffff:[0-9.]+)\]",
            r"^x .* from (?P<ip>(?:[0-9]{2,3}\.){3}[0-9]{2,3}) ",
            r"at (\d+\.\d+\.\d+\.\d+:\d+)",
            r"at (10\.[0-9.]+)",
            r"^(?:from ([0-9.]+) |user .* )+$",
            r"^login of (?P<alt_user>[^ ]*) from (?P<ip>[0-9.]+)(?: .*)?$",
            // Of one address they take a part.
            r"^bad .*<IP>",
            r"^bad .*([0-9.]{7,})$",
            r"from (\S+)",
            r"(?m)^from (?P<ip>[0-9.]+)$",
            // There is one way only to read a line by this, and a client that writes blanks into its name is read wrongly.
            r"^login of (?P<user>[^ ]*) from (?P<ip>[0-9.]+)(?: .*)?$",
        ] {
            assert_steerable(regex);
        }
    }

    #[test]
    fn patterns_that_nobody_can_move_are_not() {
        for regex in [
            r"^warning: [^\[\]\s]*\[(?P<ip>[0-9a-fA-F:.]+)\]: SASL [A-Z0-9-]+ authentication failed",
            r"^Login failed for user '.*' from (?P<ip>[0-9a-fA-F:.]+)$",
            r"^user=<.*>, rip=(?P<ip>[0-9a-fA-F:.]+), lip=[0-9a-fA-F:.]+$",
            r"^from (?P<ip>[0-9.]+) (?:user .*)?failed$",
            r"^from <IP>: user <USER>$",
            r"^(?:a from ([0-9.]+)|b .*)$",
            // The last one counts, always.
            r"^(?:from ([0-9.]+) ?)+$",
            r"^login of (?P<user>[^ ]*) from (?P<ip>[0-9.]+)$",
        ] {
            assert_eq!(steer(&pattern(0, regex, &["x"], 3)), Verdict::Fixed, "{regex}");
        }
    }

    #[test]
    fn the_line_shown_is_one_of_a_log() {
        let shown = |regex: &str, programs: &[&str]| match steer(&pattern(0, regex, programs, 3)) {
            Verdict::Steerable(shown) => (shown.line, shown.of.map(|of| of.to_string()), shown.found.to_string()),
            other => panic!("{other:?}"),
        };
        let (line, of, found) = shown(r"nginx.*404.*client: ([0-9.]+)", &[]);
        assert_eq!(line, "x: nginx404client: 192.0.2.1 client: 198.51.100.77");
        assert_eq!((of.as_deref(), found.as_str()), (Some("192.0.2.1"), "198.51.100.77"));
        let (line, of, found) = shown(r"^(?:from ([0-9.]+) )?.*failed", &["x/y"]);
        assert_eq!(line, "x/y: from 198.51.100.77 failed");
        assert_eq!((of, found.as_str()), (None, "198.51.100.77"));
    }

    #[test]
    fn what_cannot_be_decided_is_said_to_be() {
        // Too many steps; and a group that takes no whole address of those that are tried.
        for regex in [r"^(?:(?:a?){100}){100}from <IP>$", r"^from ([0-9]+\.[0-9]+)\.1\.1$"] {
            assert_eq!(steer(&pattern(0, regex, &["x"], 3)), Verdict::Undecided, "{regex}");
        }
    }
}

//! Which patterns of a set a line matches, for patterns that all begin with `^`: one walk from the line's beginning.
//!
//! It is a lazy DFA over all of them together. Most lines need a few bytes of it: then none can match any more. Where only
//! one is left that still can, the walk may end too: that pattern's own automaton goes over the line anyway to find the groups
//! ([`capture`](super::capture)), and sees whether it matches. Whoever asks says which patterns are to be believed that far.
//!
//! A byte costs no more than following all patterns at once would, and no more memory than the cache may have: when it is
//! full, it is cleared, and the walk goes on. regex-automata's lazy DFA does the same but for the end, gives up where that
//! happens often, and takes some 20 instructions a byte where this takes 17.

use hashbrown::HashMap;
use regex_automata::nfa::thompson::{NFA, State, WhichCaptures};
use regex_automata::util::alphabet::ByteClasses;
use regex_automata::util::look::Look;
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::{self, Hir};
use smallvec::SmallVec;

/// Every so many bytes of a line it is looked whether one pattern is left alone: until then, most lines find out that they
/// do not match.
const STAGE_BYTES: usize = 24;

/// Index of a pattern in the set.
type Member = u32;

/// Where a state has its row in [`Cache::rows`]. The first row is nobody's.
type Row = u32;

/// A row that was not asked for yet.
const UNKNOWN: Row = 0;

/// Marks rows of states at which patterns match, whatever follows.
const NOTABLE: Row = 1 << 31;

/// Where nothing can match any more.
const DEAD: Row = NOTABLE;

/// The patterns' NFA. Immutable and shared; what a walk changes is in [`Cache`].
#[derive(Debug)]
pub(super) struct Scanner {
    nfa: NFA,
    classes: ByteClasses,
    /// A row has two to the power of this places.
    row_bits: u32,
    /// By state of the NFA: whose it is.
    member_of: Vec<Member>,
    cache_bytes_max: usize,
}

/// The DFA as far as lines have needed it since it was cleared.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// A row for each state: by class of bytes, the row of the state behind such a byte, perhaps [`NOTABLE`].
    rows: Vec<Row>,
    abouts: Vec<About>,
    states: HashMap<Box<[StateID]>, Row, foldhash::fast::FixedState>,
    /// Of all states together.
    set_bytes: usize,
    start: Row,
    /// How often it was cleared.
    cleared: u64,
    /// Of building one state.
    set: Vec<StateID>,
    stack: Vec<StateID>,
    seen: Vec<bool>,
}

/// What is known at a state.
#[derive(Debug)]
struct About {
    /// States of the NFA that read a byte, wait for the end of the text, or match.
    set: Box<[StateID]>,
    /// Patterns that match here, whatever follows; none of their states goes on.
    matched: SmallVec<[Member; 2]>,
    /// Patterns that match if the text ends here.
    at_end: SmallVec<[Member; 2]>,
    left: Left,
}

/// Patterns that may still match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    None,
    One(Member),
    Several,
}

/// Whether a pattern can be in a set: all that it looks at beside bytes is the beginning of the text, first of all, and its end.
/// One that matches an empty text is not found in it where both ends must be at once.
pub(super) fn can_scan(hir: &Hir) -> bool {
    let looks = hir.properties().look_set();
    let known = looks.iter().all(|look| matches!(look, hir::Look::Start | hir::Look::End));
    known && hir.properties().look_set_prefix().contains(hir::Look::Start)
}

impl Scanner {
    /// For patterns each of which [`can_scan`]; `cache_bytes_max` bounds each cache. `None` if their NFA would exceed
    /// `nfa_bytes_max`.
    pub(super) fn new(hirs: &[&Hir], cache_bytes_max: usize, nfa_bytes_max: Option<usize>) -> Option<Scanner> {
        let config = NFA::config().utf8(false).which_captures(WhichCaptures::None).nfa_size_limit(nfa_bytes_max);
        let nfa = NFA::compiler().configure(config).build_many_from_hir(hirs).ok()?;
        let mut member_of = vec![Member::MAX; nfa.states().len()];
        for (member, pattern) in (0..).zip(nfa.patterns()) {
            let mut stack = vec![nfa.start_pattern(pattern)?];
            while let Some(state) = stack.pop() {
                if std::mem::replace(&mut member_of[state.as_usize()], member) != member {
                    push_nexts(nfa.state(state), &mut stack);
                }
            }
        }
        let classes = *nfa.byte_classes();
        let row_bits = classes.alphabet_len().next_power_of_two().trailing_zeros();
        // Then rows are counted far below the mark.
        let cache_bytes_max = cache_bytes_max.min(NOTABLE as usize / 2);
        Some(Scanner { nfa, classes, row_bits, member_of, cache_bytes_max })
    }

    /// Appends the patterns that match. If only one may still match, and `believes` it, the walk ends there: it is given back,
    /// and may match or not.
    pub(super) fn scan(
        &self,
        cache: &mut Cache,
        text: &[u8],
        believes: impl Fn(Member) -> bool,
        matched: &mut Vec<Member>,
    ) -> Option<Member> {
        if cache.start == UNKNOWN {
            cache.start = self.build(cache, None);
        }
        let mut row = cache.start & !NOTABLE;
        matched.extend(&self.about(cache, row).matched);
        let mut left = text;
        while !left.is_empty() {
            let (stage, rest) = left.split_at(left.len().min(STAGE_BYTES));
            left = rest;
            for byte in stage {
                let place = row as usize + usize::from(self.classes.get(*byte));
                let mut next = cache.rows[place];
                // Neither unknown nor notable.
                if next.wrapping_sub(1) < NOTABLE - 1 {
                    row = next;
                    continue;
                }
                if next == UNKNOWN {
                    let cleared = cache.cleared;
                    next = self.build(cache, Some((row, *byte)));
                    if cache.cleared == cleared {
                        cache.rows[place] = next;
                    }
                }
                if next == DEAD {
                    return None;
                }
                row = next & !NOTABLE;
                if next & NOTABLE != 0 {
                    matched.extend(&self.about(cache, row).matched);
                }
            }
            // At the end of the text it is known of all.
            if !left.is_empty()
                && let Left::One(member) = self.about(cache, row).left
                && believes(member)
            {
                return Some(member);
            }
        }
        matched.extend(&self.about(cache, row).at_end);
        None
    }

    fn about<'a>(&self, cache: &'a Cache, row: Row) -> &'a About {
        &cache.abouts[(row >> self.row_bits) as usize]
    }

    /// The state behind a byte, or at the beginning of a text.
    #[cold]
    fn build(&self, cache: &mut Cache, before: Option<(Row, u8)>) -> Row {
        self.prepare(cache);
        let (mut set, mut stack) = (std::mem::take(&mut cache.set), std::mem::take(&mut cache.stack));
        match before {
            None => stack.extend(self.nfa.patterns().filter_map(|pattern| self.nfa.start_pattern(pattern))),
            Some((row, byte)) => {
                stack.extend(self.about(cache, row).set.iter().filter_map(|state| match self.nfa.state(*state) {
                    State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
                    State::Sparse(sparse) => sparse.matches_byte(byte),
                    State::Dense(dense) => dense.matches_byte(byte),
                    _ => None,
                }));
            }
        }
        self.close(&mut cache.seen, &mut set, &mut stack, |look| look == Look::Start && before.is_none());
        let matched = self.matching(&set);
        // Of one that has matched, nothing more is to be found out.
        set.retain(|state| self.is_match(*state) || !matched.contains(&self.member_of[state.as_usize()]));
        let row = match cache.states.get(&set[..]) {
            Some(row) => *row,
            None => self.add(cache, &set, matched, &mut stack),
        };
        set.clear();
        (cache.set, cache.stack) = (set, stack);
        row
    }

    /// Makes the row that is nobody's, if there is none.
    fn prepare(&self, cache: &mut Cache) {
        if cache.rows.is_empty() {
            cache.rows.resize(1 << self.row_bits, UNKNOWN);
            cache.abouts.push(About::default());
            cache.seen.resize(self.nfa.states().len(), false);
        }
    }

    /// A new state; if the cache is full, the first of a new one.
    fn add(&self, cache: &mut Cache, set: &[StateID], matched: SmallVec<[Member; 2]>, stack: &mut Vec<StateID>) -> Row {
        if set.is_empty() {
            return DEAD;
        }
        if cache.state_bytes() > self.cache_bytes_max {
            let seen = std::mem::take(&mut cache.seen);
            *cache = Cache { cleared: cache.cleared + 1, seen, ..Cache::default() };
            self.prepare(cache);
        }
        let mut behind = Vec::new();
        stack.extend(set.iter().filter(|state| matches!(self.nfa.state(**state), State::Look { .. })));
        self.close(&mut cache.seen, &mut behind, stack, |look| look == Look::End);
        let going_on = set.iter().filter(|state| !self.is_match(**state));
        let mut members = going_on.map(|state| self.member_of[state.as_usize()]);
        let left = match members.next() {
            None => Left::None,
            Some(first) if members.all(|member| member == first) => Left::One(first),
            Some(_) => Left::Several,
        };
        let row = cache.rows.len() as Row;
        cache.rows.resize(cache.rows.len() + (1 << self.row_bits), UNKNOWN);
        let row = if matched.is_empty() { row } else { row | NOTABLE };
        cache.states.insert(set.into(), row);
        cache.set_bytes += 2 * size_of_val(set);
        cache.abouts.push(About { set: set.into(), matched, at_end: self.matching(&behind), left });
        row
    }

    /// Adds to `set` what can be reached from `stack` without reading: states that read, wait for the end, or match.
    fn close(&self, seen: &mut [bool], set: &mut Vec<StateID>, stack: &mut Vec<StateID>, holds: impl Fn(Look) -> bool) {
        let mut passed: SmallVec<[StateID; 32]> = SmallVec::new();
        while let Some(state) = stack.pop() {
            if std::mem::replace(&mut seen[state.as_usize()], true) {
                continue;
            }
            passed.push(state);
            match self.nfa.state(state) {
                State::Look { look, next } if holds(*look) => stack.push(*next),
                State::Look { look: Look::End, .. } | State::Match { .. } => set.push(state),
                State::Look { .. } | State::Fail => {}
                State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) => set.push(state),
                state @ (State::Union { .. } | State::BinaryUnion { .. } | State::Capture { .. }) => {
                    push_nexts(state, stack);
                }
            }
        }
        passed.iter().for_each(|state| seen[state.as_usize()] = false);
        set.sort_unstable();
    }

    /// The patterns that match at some state of a set.
    fn matching(&self, set: &[StateID]) -> SmallVec<[Member; 2]> {
        let matches = set.iter().filter(|state| self.is_match(**state));
        matches.map(|state| self.member_of[state.as_usize()]).collect()
    }

    fn is_match(&self, state: StateID) -> bool {
        matches!(self.nfa.state(state), State::Match { .. })
    }
}

/// Where a state of the NFA leads.
fn push_nexts(state: &State, stack: &mut Vec<StateID>) {
    match state {
        State::ByteRange { trans } => stack.push(trans.next),
        State::Sparse(sparse) => stack.extend(sparse.transitions.iter().map(|trans| trans.next)),
        State::Dense(dense) => stack.extend(dense.transitions.iter().filter(|next| **next != StateID::ZERO)),
        State::Look { next, .. } | State::Capture { next, .. } => stack.push(*next),
        State::Union { alternates } => stack.extend(alternates.iter()),
        State::BinaryUnion { alt1, alt2 } => stack.extend([*alt1, *alt2]),
        State::Fail | State::Match { .. } => {}
    }
}

impl Default for About {
    fn default() -> About {
        About { set: Box::default(), matched: SmallVec::new(), at_end: SmallVec::new(), left: Left::None }
    }
}

impl Cache {
    pub(super) fn memory_usage(&self) -> usize {
        self.state_bytes() + self.seen.capacity() + (self.set.capacity() + self.stack.capacity()) * size_of::<StateID>()
    }

    /// What grows with the number of states.
    fn state_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.abouts.capacity() * size_of::<About>()
            + self.states.capacity() * size_of::<(Box<[StateID]>, Row)>()
            + self.set_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex_automata::meta;
    use regex_syntax::ParserBuilder;

    fn hir(regex: &str) -> Hir {
        ParserBuilder::new().utf8(false).unicode(false).build().parse(regex).unwrap()
    }

    fn scanner(regexes: &[&str]) -> Scanner {
        let hirs: Vec<Hir> = regexes.iter().map(|regex| hir(regex)).collect();
        assert!(hirs.iter().all(can_scan), "{regexes:?}");
        Scanner::new(&hirs.iter().collect::<Vec<_>>(), 1 << 20, None).unwrap()
    }

    /// All that match, and one that may.
    fn scan(scanner: &Scanner, cache: &mut Cache, text: &[u8], believes: bool) -> (Vec<Member>, Option<Member>) {
        let mut matched = Vec::new();
        let unsure = scanner.scan(cache, text, |_| believes, &mut matched);
        matched.sort_unstable();
        (matched, unsure)
    }

    #[test]
    fn patterns_that_look_at_more_than_the_ends_are_not_for_this() {
        for regex in ["a", "^a|b", r"^a\b", "(?m)^a", "a^"] {
            assert!(!can_scan(&hir(regex)), "{regex}");
        }
        for regex in ["^a", "^(?:a$|b)", "(?:^a|^b)", "^^a", "^a^b"] {
            assert!(can_scan(&hir(regex)), "{regex}");
        }
    }

    #[test]
    fn a_walk_ends_where_one_pattern_is_left_that_is_believed() {
        let scanner = scanner(&["^a[^,]*,b$", "^a[^,]*,c", "^d.*e"]);
        let mut cache = Cache::default();
        let text = format!("a{},bxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "x".repeat(100));
        assert_eq!(scan(&scanner, &mut cache, text.as_bytes(), false), (vec![], None));
        let text = format!("d{}", "x".repeat(100));
        assert_eq!(scan(&scanner, &mut cache, text.as_bytes(), false), (vec![], None));
        assert_eq!(scan(&scanner, &mut cache, text.as_bytes(), true), (vec![], Some(2)));
        // In a short line it is seen at its end.
        assert_eq!(scan(&scanner, &mut cache, b"dxe", true), (vec![2], None));
        assert_eq!(scan(&scanner, &mut cache, b"dx", true), (vec![], None));
        assert_eq!(scan(&scanner, &mut cache, b"", true), (vec![], None));
    }

    #[test]
    fn what_has_matched_is_said_once() {
        let scanner = scanner(&["^a", "^a+", "^aa$", "^(?:b|)"]);
        assert_eq!(scan(&scanner, &mut Cache::default(), b"aa", false), (vec![0, 1, 2, 3], None));
        assert_eq!(scan(&scanner, &mut Cache::default(), b"aaa", false), (vec![0, 1, 3], None));
        assert_eq!(scan(&scanner, &mut Cache::default(), b"", false), (vec![3], None));
    }

    /// A set whose DFA doubles with each byte, and lines that ask for all of it.
    #[test]
    fn hostile_lines_cost_a_bounded_number_of_bytes_and_are_read_all_the_same() {
        let hirs = [hir("^[xy]*x[xy]{16}z"), hir("^[xy]*y[xy]{15}w")];
        let scanner = Scanner::new(&[&hirs[0], &hirs[1]], 64 << 10, None).unwrap();
        let (mut cache, mut seed) = (Cache::default(), 1u64);
        for round in 0..100 {
            let letter = |_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if seed >> 40 & 1 == 0 { b'x' } else { b'y' }
            };
            let mut text: Vec<u8> = (0..1000).map(letter).collect();
            text[983] = b'x';
            text.push(if round % 2 == 0 { b'z' } else { b'u' });
            let want = if round % 2 == 0 { vec![0] } else { vec![] };
            assert_eq!(scan(&scanner, &mut cache, &text, false), (want, None));
            assert_eq!(scan(&scanner, &mut cache, b"yxxxyyyxxxyyyxxxw", false), (vec![1], None));
            // Vectors grow by doubling.
            assert!(cache.memory_usage() <= 128 << 10, "{}", cache.memory_usage());
        }
        assert!(cache.cleared > 50, "{}", cache.cleared);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against each pattern by itself.
        #[test]
        fn finds_what_each_pattern_alone_would(
            regexes in prop::collection::vec(prop::sample::select(vec![
                "^a", "^a*b$", "^[ab]*c[ab]{2}", "^(?:a|ab)(?:c|bcd)*$", "^.*b", "^a.*$", "^(?:b$|ab)", "^[^c]*c[^c]*c$", "^c{3,}",
                "^(?:aa|$)", "^a(?:^b|c)", "^abcabc", "^abcabd|^abcaaa",
            ]), 1..7),
            texts in prop::collection::vec("[abc]{0,9}|[abcd\n]{20,60}|a{20,30}[abc]{0,30}", 1..8),
            believes in any::<bool>(),
        ) {
            let scanner = scanner(&regexes);
            let mut cache = Cache::default();
            for text in &texts {
                let alone = |regex: &&str| {
                    meta::Builder::new().build_from_hir(&hir(regex)).unwrap().is_match(text.as_bytes())
                };
                let want: Vec<Member> = (0..).zip(&regexes).filter(|(_, regex)| alone(regex)).map(|(n, _)| n).collect();
                let (mut found, unsure) = scan(&scanner, &mut cache, text.as_bytes(), believes);
                prop_assert!(believes || unsure.is_none());
                found.extend(unsure.filter(|member| want.contains(member)));
                found.sort_unstable();
                prop_assert_eq!(found, want, "{:?}", text);
            }
        }
    }
}

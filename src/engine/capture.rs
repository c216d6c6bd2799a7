//! Where the groups of a match begin and end, in two passes over a line and no more.
//!
//! A general engine finds groups by trying: it follows one alternative, and comes back when that leads nowhere. Here nothing
//! is tried. The first pass goes from the end of the line to its beginning and notes at each byte from which states of the
//! pattern's NFA a match can still be reached; it is a lazy DFA, so it costs a lookup a byte. The second pass goes forward
//! along the one path that the pattern prefers: at each choice it takes the first alternative from which a match can be
//! reached, and so never has to come back. (A. Frisch and L. Cardelli, Greedy regular expression matching, ICALP 2004; in
//! automata theory, a bimachine.) It stops behind the last group that anybody asks for.
//!
//! What is preferred is the same as for all engines of regex-automata, leftmost first, so they can take its place: for the
//! patterns that this cannot do ([`Capturer::new`]), and for lines that make it build too much ([`Cache`]).

use hashbrown::HashMap;
use regex_automata::nfa::thompson::{NFA, State, WhichCaptures};
use regex_automata::util::alphabet::ByteClasses;
use regex_automata::util::look::Look;
use regex_automata::util::primitives::{NonMaxUsize, StateID};
use regex_syntax::hir::Hir;

/// Patterns with more states than this are left to another engine. Built-in ones have up to 2,000.
const NODES_MAX: usize = 8192;

/// Memory of one cache; when it is full, it is cleared. Built-in patterns take a few dozen KiB in use.
const CACHE_BYTES_MAX: usize = 512 << 10;

/// What building states may cost: one more is allowed for each so many bytes of lines, and a new cache begins with some. A
/// state costs as much as some hundred bytes of a line, and clients choose parts of lines.
const BYTES_PER_STATE: u32 = 64;
const STATES_AT_FIRST: u32 = 4096;

/// Index of a node, or of a state of the backward DFA.
type Id = u32;

/// A transition that was not asked for yet.
const UNKNOWN: Id = 0;

/// One state of the NFA.
#[derive(Clone, Copy, Debug)]
enum Node {
    /// Reads one byte from a range.
    Range {
        from: u8,
        to: u8,
        next: Id,
    },
    /// Reads one byte; a range of [`Capturer::ranges`].
    Ranges {
        first: u32,
        last: u32,
    },
    /// Goes on to the first of two from which a match can be reached.
    Either {
        first: Id,
        second: Id,
    },
    /// The same, of several: a range of [`Capturer::alternatives`].
    Any {
        first: u32,
        last: u32,
    },
    /// A group begins or ends.
    Slot {
        slot: u32,
        next: Id,
    },
    /// Only at the beginning of the text, or at its end.
    Start {
        next: Id,
    },
    End {
        next: Id,
    },
    Match,
    Fail,
}

/// A pattern's NFA, made for this. Immutable and shared; what a search changes is in [`Cache`].
#[derive(Debug)]
pub(super) struct Capturer {
    nodes: Vec<Node>,
    ranges: Vec<(u8, u8, Id)>,
    alternatives: Vec<Id>,
    /// By node: whose next it is without reading anything.
    parents: Vec<Vec<Id>>,
    /// By node: no group that is asked for begins or ends on any way from here.
    is_settled: Vec<bool>,
    start: Id,
    classes: ByteClasses,
    slots: usize,
}

/// The backward DFA as far as lines have needed it.
///
/// It is bounded: past [`CACHE_BYTES_MAX`] it is cleared, and no more than one state is built for [`BYTES_PER_STATE`] bytes
/// of lines. A line that needs more is one for another engine.
#[derive(Debug)]
pub(super) struct Cache {
    /// By state and class of bytes: the state before that byte; and again the same at the beginning of the text.
    transitions: Vec<Id>,
    /// By state: the nodes from which a match can be reached, a bit for each.
    sets: Vec<u64>,
    ids: HashMap<Box<[u64]>, Id, foldhash::fast::FixedState>,
    /// The state at the end of a text.
    end: Id,
    credit: u32,
    /// Of one search: the state behind each byte.
    trail: Vec<Id>,
    /// Of building one state.
    set: Vec<u64>,
    stack: Vec<Id>,
}

/// It would take too much memory or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GaveUp;

impl Capturer {
    /// `None` for patterns that another engine must do: those with word boundaries or lines within the text, those with
    /// repetitions of what may be empty, where "can be reached" does not say by going round how often, and huge ones.
    ///
    /// `is_wanted` says which groups somebody will ask for.
    pub(super) fn new(hir: &Hir, is_wanted: impl Fn(usize) -> bool) -> Option<Capturer> {
        let config = NFA::config().utf8(false).which_captures(WhichCaptures::All);
        let nfa = NFA::compiler().configure(config).build_from_hir(hir).ok()?;
        if nfa.states().len() > NODES_MAX {
            return None;
        }
        let id = |state: StateID| state.as_u32();
        let mut capturer = Capturer {
            nodes: Vec::with_capacity(nfa.states().len()),
            ranges: Vec::new(),
            alternatives: Vec::new(),
            parents: vec![Vec::new(); nfa.states().len()],
            is_settled: Vec::new(),
            start: id(nfa.start_unanchored()),
            classes: nfa.byte_classes().clone(),
            slots: nfa.group_info().slot_len(),
        };
        for state in nfa.states() {
            let node = match state {
                State::ByteRange { trans } => Node::Range { from: trans.start, to: trans.end, next: id(trans.next) },
                State::Sparse(sparse) => {
                    let first = capturer.ranges.len() as u32;
                    capturer.ranges.extend(sparse.transitions.iter().map(|it| (it.start, it.end, id(it.next))));
                    Node::Ranges { first, last: capturer.ranges.len() as u32 }
                }
                State::Dense(dense) => {
                    let first = capturer.ranges.len() as u32;
                    let reads = (0..=u8::MAX).zip(dense.transitions.iter()).filter(|(_, next)| **next != StateID::ZERO);
                    capturer.ranges.extend(reads.map(|(byte, next)| (byte, byte, id(*next))));
                    Node::Ranges { first, last: capturer.ranges.len() as u32 }
                }
                State::BinaryUnion { alt1, alt2 } => Node::Either { first: id(*alt1), second: id(*alt2) },
                State::Union { alternates } => {
                    let first = capturer.alternatives.len() as u32;
                    capturer.alternatives.extend(alternates.iter().map(|it| id(*it)));
                    Node::Any { first, last: capturer.alternatives.len() as u32 }
                }
                State::Capture { next, slot, .. } => Node::Slot { slot: slot.as_u32(), next: id(*next) },
                State::Look { look: Look::Start, next } => Node::Start { next: id(*next) },
                State::Look { look: Look::End, next } => Node::End { next: id(*next) },
                State::Look { .. } => return None,
                State::Match { .. } => Node::Match,
                State::Fail => Node::Fail,
            };
            capturer.nodes.push(node);
        }
        for (at, node) in (0..).zip(capturer.nodes.clone()) {
            for next in capturer.nexts(node) {
                capturer.parents.get_mut(next as usize)?.push(at);
            }
        }
        if capturer.goes_round() {
            return None;
        }
        capturer.settle(is_wanted);
        Some(capturer)
    }

    pub(super) fn cache(&self) -> Cache {
        Cache {
            transitions: Vec::new(),
            sets: Vec::new(),
            ids: HashMap::with_hasher(foldhash::fast::FixedState::default()),
            end: UNKNOWN,
            credit: STATES_AT_FIRST,
            trail: Vec::new(),
            set: Vec::new(),
            stack: Vec::new(),
        }
    }

    /// Finds where the groups of the match in `text` begin and end, as [`regex_automata::meta::Regex::search_slots`] does:
    /// `slots` has two places for each group. Of groups that nobody wants, the places may be empty. False if the text
    /// does not match.
    ///
    /// # Errors
    ///
    /// [`GaveUp`] where it would take too much.
    pub(super) fn find(
        &self,
        cache: &mut Cache,
        text: &[u8],
        slots: &mut [Option<NonMaxUsize>],
    ) -> Result<bool, GaveUp> {
        slots.fill(None);
        self.look_back(cache, text)?;
        let reaches = |at: usize, node: Id| {
            let state = cache.trail.get(at).copied().unwrap_or(UNKNOWN);
            self.has(cache, state, node)
        };
        if !reaches(0, self.start) {
            return Ok(false);
        }
        let (mut at, mut node) = (0, self.start);
        // Without reading, no node is passed twice.
        loop {
            if self.is_settled.get(node as usize) != Some(&false) {
                return Ok(true);
            }
            node = match self.nodes[node as usize] {
                Node::Range { next, .. } => {
                    at += 1;
                    next
                }
                Node::Ranges { first, last } => {
                    let byte = *text.get(at).ok_or(GaveUp)?;
                    at += 1;
                    self.read(first, last, byte).ok_or(GaveUp)?
                }
                Node::Either { first, second } => {
                    if reaches(at, first) {
                        first
                    } else {
                        second
                    }
                }
                Node::Any { first, last } => {
                    let alternatives = &self.alternatives[first as usize..last as usize];
                    *alternatives.iter().find(|next| reaches(at, **next)).ok_or(GaveUp)?
                }
                Node::Slot { slot, next } => {
                    if let Some(place) = slots.get_mut(slot as usize) {
                        *place = NonMaxUsize::new(at);
                    }
                    next
                }
                Node::Start { next } | Node::End { next } => next,
                Node::Match => return Ok(true),
                Node::Fail => return Err(GaveUp),
            };
        }
    }

    /// Fills the trail: for each place in the text, the state that says from where a match can be reached.
    fn look_back(&self, cache: &mut Cache, text: &[u8]) -> Result<(), GaveUp> {
        cache.credit = cache.credit.saturating_add(text.len() as u32 / BYTES_PER_STATE).min(STATES_AT_FIRST);
        if self.is_full(cache) {
            cache.clear();
        }
        let stride = 2 * self.classes.alphabet_len();
        cache.trail.clear();
        cache.trail.resize(text.len() + 1, UNKNOWN);
        if text.is_empty() {
            // Looks at both ends at once are for another engine, as are matches of nothing.
            return Err(GaveUp);
        }
        let mut state = match cache.end {
            UNKNOWN => {
                let end = self.build(cache, None, false)?;
                cache.end = end;
                end
            }
            end => end,
        };
        cache.trail[text.len()] = state;
        for (at, byte) in text.iter().enumerate().rev() {
            let class = usize::from(self.classes.get(*byte)) + if at == 0 { stride / 2 } else { 0 };
            let place = (state - 1) as usize * stride + class;
            state = match cache.transitions[place] {
                UNKNOWN => {
                    let before = self.build(cache, Some((state, *byte)), at == 0)?;
                    cache.transitions[place] = before;
                    before
                }
                before => before,
            };
            cache.trail[at] = state;
        }
        Ok(())
    }

    /// The state before a byte, or at the end of a text.
    #[cold]
    fn build(&self, cache: &mut Cache, behind: Option<(Id, u8)>, is_start: bool) -> Result<Id, GaveUp> {
        cache.credit = cache.credit.checked_sub(1).ok_or(GaveUp)?;
        let mut set = std::mem::take(&mut cache.set);
        let mut stack = std::mem::take(&mut cache.stack);
        set.clear();
        set.resize(self.words(), 0);
        for (at, node) in (0..).zip(&self.nodes) {
            let is_in = match (*node, behind) {
                (Node::Match, _) => true,
                (Node::Range { from, to, next }, Some((state, byte))) => {
                    (from..=to).contains(&byte) && self.has(cache, state, next)
                }
                (Node::Ranges { first, last }, Some((state, byte))) => {
                    self.read(first, last, byte).is_some_and(|next| self.has(cache, state, next))
                }
                _ => false,
            };
            if is_in {
                stack.push(at);
            }
        }
        while let Some(node) = stack.pop() {
            let (word, bit) = (node as usize / 64, 1 << (node % 64));
            if set[word] & bit != 0 {
                continue;
            }
            set[word] |= bit;
            stack.extend(self.parents[node as usize].iter().filter(|parent| match self.nodes[**parent as usize] {
                Node::Start { .. } => is_start,
                Node::End { .. } => behind.is_none(),
                _ => true,
            }));
        }
        let id = match cache.ids.get(&set[..]) {
            Some(id) => *id,
            None => {
                let id = cache.ids.len() as Id + 1;
                cache.ids.insert(set.as_slice().into(), id);
                cache.sets.extend(&set);
                let transitions = cache.transitions.len() + 2 * self.classes.alphabet_len();
                cache.transitions.resize(transitions, UNKNOWN);
                id
            }
        };
        (cache.set, cache.stack) = (set, stack);
        Ok(id)
    }

    /// Whether a match can be reached from a node.
    fn has(&self, cache: &Cache, state: Id, node: Id) -> bool {
        let word = (state as usize).wrapping_sub(1).wrapping_mul(self.words()).wrapping_add(node as usize / 64);
        cache.sets.get(word).is_some_and(|word| word >> (node % 64) & 1 != 0)
    }

    fn words(&self) -> usize {
        self.nodes.len().div_ceil(64)
    }

    fn is_full(&self, cache: &Cache) -> bool {
        cache.memory_usage() > CACHE_BYTES_MAX
    }

    /// Where one of some ranges leads by a byte.
    fn read(&self, first: u32, last: u32, byte: u8) -> Option<Id> {
        let ranges = &self.ranges[first as usize..last as usize];
        ranges.iter().find(|(from, to, _)| (*from..=*to).contains(&byte)).map(|(.., next)| *next)
    }

    /// What follows a node without reading anything.
    fn nexts(&self, node: Node) -> Vec<Id> {
        match node {
            Node::Either { first, second } => vec![first, second],
            Node::Any { first, last } => self.alternatives[first as usize..last as usize].to_vec(),
            Node::Slot { next, .. } | Node::Start { next } | Node::End { next } => vec![next],
            Node::Range { .. } | Node::Ranges { .. } | Node::Match | Node::Fail => vec![],
        }
    }

    /// Whether there is a way from a node to itself on which nothing is read.
    fn goes_round(&self) -> bool {
        // Nodes are taken away whose nexts are all gone; of a circle none ever is.
        let mut left: Vec<usize> = self.nodes.iter().map(|node| self.nexts(*node).len()).collect();
        let mut gone: Vec<Id> = (0..).zip(&left).filter(|(_, left)| **left == 0).map(|(at, _)| at).collect();
        let mut count = 0;
        while let Some(node) = gone.pop() {
            count += 1;
            for parent in &self.parents[node as usize] {
                left[*parent as usize] -= 1;
                if left[*parent as usize] == 0 {
                    gone.push(*parent);
                }
            }
        }
        count < self.nodes.len()
    }

    /// Notes from which nodes no wanted group begins or ends any more.
    fn settle(&mut self, is_wanted: impl Fn(usize) -> bool) {
        let mut before: Vec<Vec<Id>> = self.parents.clone();
        for (at, node) in (0..).zip(&self.nodes) {
            match *node {
                Node::Range { next, .. } => before[next as usize].push(at),
                Node::Ranges { first, last } => {
                    self.ranges[first as usize..last as usize]
                        .iter()
                        .for_each(|(.., next)| before[*next as usize].push(at));
                }
                _ => {}
            }
        }
        let mut is_settled = vec![true; self.nodes.len()];
        let wanted = |node: &Node| matches!(node, Node::Slot { slot, .. } if is_wanted(*slot as usize / 2));
        let mut open: Vec<Id> = (0..).zip(&self.nodes).filter(|(_, node)| wanted(node)).map(|(at, _)| at).collect();
        while let Some(node) = open.pop() {
            if std::mem::replace(&mut is_settled[node as usize], false) {
                open.extend(&before[node as usize]);
            }
        }
        self.is_settled = is_settled;
    }

    /// Two for each group.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }
}

impl Cache {
    pub(super) fn memory_usage(&self) -> usize {
        let set = self.sets.len().checked_div(self.ids.len()).unwrap_or(0) * size_of::<u64>();
        let interned = self.ids.len() * (set + size_of::<(Box<[u64]>, Id)>());
        self.transitions.len() * size_of::<Id>()
            + self.sets.len() * size_of::<u64>()
            + interned
            + self.trail.capacity() * size_of::<Id>()
    }

    fn clear(&mut self) {
        self.transitions.clear();
        self.sets.clear();
        self.ids.clear();
        self.end = UNKNOWN;
        self.trail = Vec::new();
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

    /// What another engine says.
    fn other(hir: &Hir, text: &[u8]) -> Option<Vec<Option<NonMaxUsize>>> {
        let config = meta::Config::new().utf8_empty(false);
        let regex = meta::Builder::new().configure(config).build_from_hir(hir).unwrap();
        let mut slots = vec![None; 2 * regex.captures_len()];
        regex.search_slots(&regex_automata::Input::new(text), &mut slots)?;
        Some(slots)
    }

    fn ours(capturer: &Capturer, cache: &mut Cache, text: &[u8]) -> Option<Vec<Option<NonMaxUsize>>> {
        let mut slots = vec![None; capturer.slots()];
        capturer.find(cache, text, &mut slots).unwrap().then_some(slots)
    }

    fn caught(regex: &str, text: &str) -> Option<Vec<Option<String>>> {
        let capturer = Capturer::new(&hir(regex), |_| true).unwrap();
        let slots = ours(&capturer, &mut capturer.cache(), text.as_bytes())?;
        let group = |pair: &[Option<NonMaxUsize>]| Some(text[pair[0]?.get()..pair[1]?.get()].to_owned());
        Some(slots.chunks(2).skip(1).map(group).collect())
    }

    #[test]
    fn the_first_alternative_that_leads_to_a_match_is_taken() {
        let one = |text: &str| Some(text.to_owned());
        assert_eq!(caught("(a*)(ab)?(b*)$", "aabb"), Some(vec![one("aa"), None, one("bb")]));
        assert_eq!(caught("(a*?)(ab)?(b*)$", "aabb"), Some(vec![one("a"), one("ab"), one("b")]));
        assert_eq!(caught("from ([^ ]+)", "from from b"), Some(vec![one("from")]));
        assert_eq!(caught("^x: (.*), rip=(.+)$", "x: a, rip=1, rip=2"), Some(vec![one("a, rip=1"), one("2")]));
        assert_eq!(caught("(?:(a)|(b))+c", "abbac"), Some(vec![one("a"), one("b")]));
        assert_eq!(caught("^(a)$", "ab"), None);
        assert_eq!(caught("(a)|^(b)", "b"), Some(vec![None, one("b")]));
    }

    #[test]
    fn what_it_cannot_do_it_says() {
        for regex in [r"\ba(b)", "(?m)^a(b)", "(?:a*)*(b)", "(?:a{999}){9}(b)"] {
            assert!(Capturer::new(&hir(regex), |_| true).is_none(), "{regex}");
        }
        let capturer = Capturer::new(&hir("(a)$"), |_| true).unwrap();
        assert_eq!(capturer.find(&mut capturer.cache(), b"", &mut [None; 4]), Err(GaveUp));
    }

    #[test]
    fn it_stops_behind_the_last_group_that_is_wanted() {
        let capturer = Capturer::new(&hir("^a(b)c(d)"), |group| group == 1).unwrap();
        let slots = ours(&capturer, &mut capturer.cache(), b"abcd").unwrap();
        let place = |at: usize| NonMaxUsize::new(at);
        assert_eq!(slots, [place(0), None, place(1), place(2), None, None]);
        assert_eq!(ours(&capturer, &mut capturer.cache(), b"abce"), None);
    }

    /// A pattern whose backward DFA doubles with each byte, and lines that ask for all of it.
    #[test]
    fn hostile_lines_cost_a_bounded_number_of_states() {
        let capturer = Capturer::new(&hir("^(?:[xy]{16}x[xy]*|z*)(a?)$"), |_| true).unwrap();
        let mut cache = capturer.cache();
        let mut random = 1_u64;
        let (mut gave_up, mut bytes) = (0, 0);
        for _ in 0..10_000 {
            let text: Vec<u8> = (0..200)
                .map(|_| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    if random >> 63 == 0 { b'x' } else { b'y' }
                })
                .collect();
            bytes += text.len();
            gave_up += usize::from(capturer.find(&mut cache, &text, &mut [None; 4]).is_err());
            assert!(cache.memory_usage() <= 2 * CACHE_BYTES_MAX, "{}", cache.memory_usage());
        }
        assert!(gave_up > 0, "of {bytes} bytes none needed a state");
        // It recovers.
        for _ in 0..100 {
            let _ = capturer.find(&mut cache, &[b'z'; 1000], &mut [None; 4]);
        }
        assert_eq!(capturer.find(&mut cache, b"zza", &mut [None; 4]), Ok(true));
    }

    /// Regular expressions of all shapes over three letters.
    fn regex() -> impl Strategy<Value = String> {
        let leaf = proptest::sample::select(vec!["a", "b", "c", "[ab]", "[^a]", ".", "ab", "^", "$", ""]);
        leaf.prop_map(str::to_owned).prop_recursive(5, 24, 4, |inner| {
            prop_oneof![
                3 => proptest::collection::vec(inner.clone(), 2..4).prop_map(|parts| parts.concat()),
                2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(?:{a}|{b})")),
                3 => inner.clone().prop_map(|a| format!("({a})")),
                2 => (inner, proptest::sample::select(vec!["*", "+", "?", "*?", "+?", "??", "{0,2}", "{2}"]))
                    .prop_map(|(a, times)| format!("(?:{a}){times}")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_finds_what_other_engines_find(regex in regex(), texts in proptest::collection::vec("[abcd]{1,12}", 1..8)) {
            let hir = hir(&regex);
            if let Some(capturer) = Capturer::new(&hir, |_| true) {
                let mut cache = capturer.cache();
                for text in texts {
                    let text = text.as_bytes();
                    prop_assert_eq!(ours(&capturer, &mut cache, text), other(&hir, text), "{} {:?}", regex, text);
                }
            }
        }
    }
}

//! Where the groups of a match begin and end, in two passes over a line and no more.
//!
//! A general engine finds groups by trying: it follows one alternative, and comes back when that leads nowhere. Here nothing
//! is tried. The first pass goes from the end of the line to its beginning and notes at each byte from which states of the
//! pattern's NFA a match can still be reached; it is a lazy DFA, so it costs a lookup a byte. The second pass goes forward
//! along the one path that the pattern prefers: at each choice it takes the first alternative from which a match can be
//! reached, and so never has to come back. Which that is depends on nothing but the state of the first pass, so it is looked
//! up, too. (A. Frisch and L. Cardelli, Greedy regular expression matching, ICALP 2004; in automata theory, a bimachine.)
//! It stops behind the last group that anybody asks for.
//!
//! What is preferred is the same as for all engines of regex-automata, leftmost first, so they can take its place: for the
//! patterns that this cannot do ([`Capturer::new`]), and for lines that make it build too much ([`Cache`]).

use hashbrown::HashMap;
use regex_automata::nfa::thompson::{NFA, State, WhichCaptures};
use regex_automata::util::alphabet::ByteClasses;
use regex_automata::util::look::Look;
use regex_automata::util::primitives::{NonMaxUsize, StateID};
use regex_syntax::hir::Hir;
use smallvec::SmallVec;

/// Patterns with more states than this are left to another engine.
const NODES_MAX: usize = 8192;

const _: () = assert!(NODES_MAX <= 1 << Step::BYTES);

/// Memory of one cache; when it is full, it is cleared.
const CACHE_BYTES_MAX: usize = 512 << 10;

/// Steps that are remembered of each state; those beyond take the place of others. A power of two.
const STEPS: u32 = 8;

/// How many states may be built: one more for each so many bytes of lines, and a new cache begins with some. A state costs as
/// much as some hundred bytes of a line, and clients choose parts of lines.
const BYTES_PER_STATE: usize = 64;
const CREDIT_BYTES_MAX: usize = 4096 * BYTES_PER_STATE;

/// Index of a node.
type Id = u32;

/// Where a state of the backward DFA has its row in [`Cache::rows`]. The first row is nobody's.
type Row = u32;

/// A row that was not asked for yet.
const UNKNOWN: Row = 0;

/// One state of the NFA.
#[derive(Clone, Copy, Debug)]
enum Node {
    /// Reads one byte from a range.
    Range {
        from: u8,
        to: u8,
        next: Id,
    },
    /// Reads one byte: a range of [`Capturer::ranges`], and where its line of [`Capturer::reads`] begins. All may lead to
    /// the same, as `[^,]` does.
    Ranges {
        first: u32,
        last: u32,
        line: u32,
        only: Option<Id>,
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

/// What is done at a place, by where one arrived and what the first pass noted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Reads so many bytes and arrives there, whatever they are: a word of the pattern at once.
    Arrive { at: u32, bytes: u32 },
    /// Reads a byte: a line of [`Capturer::reads`] says where that arrives.
    Read(u32),
    /// No group that is wanted comes behind.
    Done,
    /// Passes ends of groups first: one of [`Cache::marks`].
    Marked(u32),
}

impl Step {
    const KIND: u32 = 30;
    const ABOUT: u32 = (1 << Step::KIND) - 1;
    /// Below the kind: a number of bytes, and the arrival, of which there are not more than nodes.
    const BYTES: u32 = 16;
    const BYTES_MAX: u32 = (1 << (Step::KIND - Step::BYTES)) - 1;

    fn to_bits(self) -> u32 {
        match self {
            Step::Arrive { at, bytes } => bytes << Step::BYTES | at,
            Step::Read(line) => 1 << Step::KIND | line,
            Step::Done => 2 << Step::KIND,
            Step::Marked(mark) => 3 << Step::KIND | mark,
        }
    }

    fn from_bits(bits: u32) -> Step {
        match bits >> Step::KIND {
            0 => Step::Arrive { at: bits & ((1 << Step::BYTES) - 1), bytes: bits >> Step::BYTES },
            1 => Step::Read(bits & Step::ABOUT),
            2 => Step::Done,
            _ => Step::Marked(bits & Step::ABOUT),
        }
    }
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
    /// Nodes at which one arrives by reading a byte; first of all, where everything begins.
    arrivals: Vec<Id>,
    /// By node: its place among the arrivals.
    arrival_of: Vec<u32>,
    /// For each node with several ranges, by class of bytes: where it arrives.
    reads: Vec<u32>,
    classes: ByteClasses,
    #[cfg(test)]
    slots: usize,
}

/// The backward DFA as far as lines have needed it.
///
/// It is bounded: past [`CACHE_BYTES_MAX`] it is cleared, and no more than one state is built for [`BYTES_PER_STATE`]
/// bytes of lines. A line that needs more is one for another engine.
#[derive(Debug)]
pub(super) struct Cache {
    /// A row for each state: by class of bytes, the row of the state before such a byte; and behind these [`STEPS`] pairs of
    /// an arrival, counted from 1, and what is done there.
    rows: Vec<u32>,
    /// What passes the ends of groups: their slots, and what is done then.
    marks: Vec<(SmallVec<[u32; 4]>, Step)>,
    /// The same at the beginning of the text.
    first_rows: Vec<Row>,
    /// By state: the nodes from which a match can be reached, a bit for each.
    sets: Vec<u64>,
    states: HashMap<Box<[u64]>, Row, foldhash::fast::FixedState>,
    /// The state at the end of a text.
    end: Row,
    /// Bytes of lines that were not spent on states.
    credit: usize,
    /// Of one search: the state at each place of the text.
    trail: Vec<Row>,
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
        let count = nfa.states().len();
        if count > NODES_MAX {
            return None;
        }
        let id = |state: StateID| state.as_u32();
        let mut capturer = Capturer {
            nodes: Vec::with_capacity(count),
            ranges: Vec::new(),
            alternatives: Vec::new(),
            parents: vec![Vec::new(); count],
            is_settled: Vec::new(),
            arrivals: Vec::new(),
            arrival_of: vec![u32::MAX; count],
            reads: Vec::new(),
            classes: *nfa.byte_classes(),
            #[cfg(test)]
            slots: nfa.group_info().slot_len(),
        };
        let mut lines = (0..).step_by(nfa.byte_classes().alphabet_len());
        for state in nfa.states() {
            let node = match state {
                State::ByteRange { trans } => Node::Range { from: trans.start, to: trans.end, next: id(trans.next) },
                State::Sparse(sparse) => {
                    let first = capturer.ranges.len() as u32;
                    capturer.ranges.extend(sparse.transitions.iter().map(|it| (it.start, it.end, id(it.next))));
                    capturer.node_of_ranges(first, lines.next()?)
                }
                State::Dense(dense) => {
                    let first = capturer.ranges.len() as u32;
                    let reads = (0..=u8::MAX).zip(dense.transitions.iter()).filter(|(_, next)| **next != StateID::ZERO);
                    capturer.ranges.extend(reads.map(|(byte, next)| (byte, byte, id(*next))));
                    capturer.node_of_ranges(first, lines.next()?)
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
        capturer.find_arrivals(id(nfa.start_unanchored()));
        Some(capturer)
    }

    /// The node that reads what the ranges from `first` on say.
    fn node_of_ranges(&self, first: u32, line: u32) -> Node {
        let last = self.ranges.len() as u32;
        let nexts = || self.ranges[first as usize..].iter().map(|(.., next)| *next);
        let only = nexts().next().filter(|first| nexts().all(|next| next == *first));
        Node::Ranges { first, last, line, only }
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
        let start = *self.arrivals.first().ok_or(GaveUp)?;
        let Cache { rows, marks, sets, trail, .. } = cache;
        if !self.has(sets, *trail.first().ok_or(GaveUp)?, start) {
            return Ok(false);
        }
        let (mut at, mut arrival) = (0, 0);
        while let Some(&row) = trail.get(at) {
            let place = self.place_of(row, arrival);
            let mut step = match rows.get(place..place + 4) {
                Some([of, bits, ..]) if *of == arrival + 1 => Step::from_bits(*bits),
                Some([.., of, bits]) if *of == arrival + 1 => Step::from_bits(*bits),
                _ => {
                    let step = self.walk(marks, sets, row, arrival)?;
                    let pairs = rows.get_mut(place..place + 4).ok_or(GaveUp)?;
                    pairs.copy_within(..2, 2);
                    pairs[..2].copy_from_slice(&[arrival + 1, step.to_bits()]);
                    step
                }
            };
            if step == (Step::Arrive { at: arrival, bytes: 1 }) {
                // So it goes on for as long as the first pass noted the same.
                at += 1;
                while trail.get(at) == Some(&row) {
                    at += 1;
                }
                continue;
            }
            if let Step::Marked(mark) = step {
                let (passed, then) = marks.get(mark as usize).ok_or(GaveUp)?;
                for slot in passed {
                    *slots.get_mut(*slot as usize).ok_or(GaveUp)? = NonMaxUsize::new(at);
                }
                step = *then;
            }
            match step {
                Step::Arrive { at: next, bytes } => {
                    arrival = next;
                    at += bytes as usize;
                }
                Step::Read(line) => {
                    let byte = *text.get(at).ok_or(GaveUp)?;
                    let place = line as usize + usize::from(self.classes.get(byte));
                    arrival = *self.reads.get(place).ok_or(GaveUp)?;
                    at += 1;
                }
                Step::Done => return Ok(true),
                Step::Marked(_) => return Err(GaveUp),
            }
        }
        // At the end nothing is read any more.
        Err(GaveUp)
    }

    /// Goes from where one arrived to the next node that reads, by the first alternatives from which a match can be reached.
    #[cold]
    fn walk(
        &self,
        marks: &mut Vec<(SmallVec<[u32; 4]>, Step)>,
        sets: &[u64],
        row: Row,
        arrival: u32,
    ) -> Result<Step, GaveUp> {
        let mut node = *self.arrivals.get(arrival as usize).ok_or(GaveUp)?;
        let mut passed = SmallVec::new();
        // No node is passed twice.
        let step = loop {
            if self.is_settled.get(node as usize) != Some(&false) {
                break Step::Done;
            }
            node = match self.nodes[node as usize] {
                Node::Range { .. } | Node::Ranges { only: Some(_), .. } => break self.spell(node),
                Node::Ranges { line, only: None, .. } => break Step::Read(line),
                Node::Either { first, second } => {
                    if self.has(sets, row, first) {
                        first
                    } else {
                        second
                    }
                }
                Node::Any { first, last } => {
                    let alternatives = &self.alternatives[first as usize..last as usize];
                    *alternatives.iter().find(|next| self.has(sets, row, **next)).ok_or(GaveUp)?
                }
                Node::Slot { slot, next } => {
                    passed.push(slot);
                    next
                }
                Node::Start { next } | Node::End { next } => next,
                Node::Match => break Step::Done,
                Node::Fail => return Err(GaveUp),
            };
        };
        if passed.is_empty() {
            return Ok(step);
        }
        let mark = marks.iter().position(|mark| *mark == (passed.clone(), step)).unwrap_or(marks.len());
        if mark == marks.len() {
            marks.push((passed, step));
        }
        Ok(Step::Marked(u32::try_from(mark).ok().filter(|mark| *mark <= Step::ABOUT).ok_or(GaveUp)?))
    }

    /// Reads on from a node for as long as there is one way.
    fn spell(&self, mut node: Id) -> Step {
        let mut bytes = 0;
        while let Node::Range { next, .. } | Node::Ranges { only: Some(next), .. } = self.nodes[node as usize]
            && bytes < Step::BYTES_MAX
        {
            // A loop without a choice has no end, and nothing is reached through it.
            (node, bytes) = (next, bytes + 1);
        }
        Step::Arrive { at: self.arrival_of[node as usize], bytes }
    }

    /// Fills the trail: for each place in the text, the state that says from where a match can be reached.
    fn look_back(&self, cache: &mut Cache, text: &[u8]) -> Result<(), GaveUp> {
        // Both ends at once are for another engine.
        if text.is_empty() {
            return Err(GaveUp);
        }
        cache.credit = cache.credit.saturating_add(text.len()).min(CREDIT_BYTES_MAX);
        if cache.memory_usage() > CACHE_BYTES_MAX {
            cache.clear();
        }
        if cache.rows.is_empty() {
            cache.rows.resize(self.stride(), UNKNOWN);
            cache.first_rows.resize(self.stride(), UNKNOWN);
            cache.sets.resize(self.words(), 0);
        }
        let mut trail = std::mem::take(&mut cache.trail);
        trail.clear();
        trail.resize(text.len() + 1, UNKNOWN);
        let result = self.fill(cache, text, &mut trail);
        cache.trail = trail;
        result
    }

    fn fill(&self, cache: &mut Cache, text: &[u8], trail: &mut [Row]) -> Result<(), GaveUp> {
        if cache.end == UNKNOWN {
            cache.end = self.build(cache, None, false)?;
        }
        let mut row = cache.end;
        let (Some((byte, bytes)), [first, rest @ .., last]) = (text.split_first(), trail) else { return Err(GaveUp) };
        *last = row;
        let mut rows = &cache.rows[..];
        for (byte, noted) in bytes.iter().zip(rest).rev() {
            let place = row as usize + usize::from(self.classes.get(*byte));
            row = match *rows.get(place).ok_or(GaveUp)? {
                UNKNOWN => {
                    let before = self.build(cache, Some((row, *byte)), false)?;
                    cache.rows[place] = before;
                    rows = &cache.rows[..];
                    before
                }
                before => before,
            };
            *noted = row;
        }
        // The first byte is looked up apart, as what stands at the beginning of the text.
        let place = row as usize + usize::from(self.classes.get(*byte));
        *first = match *cache.first_rows.get(place).ok_or(GaveUp)? {
            UNKNOWN => {
                let before = self.build(cache, Some((row, *byte)), true)?;
                cache.first_rows[place] = before;
                before
            }
            before => before,
        };
        Ok(())
    }

    /// The state before a byte, or at the end of a text.
    #[cold]
    fn build(&self, cache: &mut Cache, behind: Option<(Row, u8)>, is_start: bool) -> Result<Row, GaveUp> {
        cache.credit = cache.credit.checked_sub(BYTES_PER_STATE).ok_or(GaveUp)?;
        let mut set = std::mem::take(&mut cache.set);
        let mut stack = std::mem::take(&mut cache.stack);
        set.clear();
        set.resize(self.words(), 0);
        for (at, node) in (0..).zip(&self.nodes) {
            let is_in = match (*node, behind) {
                (Node::Match, _) => true,
                (Node::Range { from, to, next }, Some((row, byte))) => {
                    (from..=to).contains(&byte) && self.has(&cache.sets, row, next)
                }
                (Node::Ranges { first, last, .. }, Some((row, byte))) => {
                    self.read(first, last, byte).is_some_and(|next| self.has(&cache.sets, row, next))
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
        let row = match cache.states.get(&set[..]) {
            Some(row) => *row,
            None => {
                if cache.memory_usage() > 2 * CACHE_BYTES_MAX {
                    return Err(GaveUp);
                }
                let row = Row::try_from(cache.rows.len()).map_err(|_| GaveUp)?;
                cache.states.insert(set.as_slice().into(), row);
                cache.sets.extend(&set);
                cache.rows.resize(cache.rows.len() + self.stride(), UNKNOWN);
                cache.first_rows.resize(cache.rows.len(), UNKNOWN);
                row
            }
        };
        (cache.set, cache.stack) = (set, stack);
        Ok(row)
    }

    /// Whether a match can be reached from a node.
    fn has(&self, sets: &[u64], row: Row, node: Id) -> bool {
        let word = row as usize / self.stride() * self.words() + node as usize / 64;
        sets.get(word).is_some_and(|word| word >> (node % 64) & 1 != 0)
    }

    fn words(&self) -> usize {
        self.nodes.len().div_ceil(64)
    }

    fn stride(&self) -> usize {
        self.classes.alphabet_len() + 2 * STEPS as usize
    }

    /// Where in its row a step is remembered: in one of two pairs.
    fn place_of(&self, row: Row, arrival: u32) -> usize {
        row as usize + self.classes.alphabet_len() + 4 * (arrival % (STEPS / 2)) as usize
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

    /// Where a node leads by reading.
    fn reached(&self, node: Node) -> Vec<Id> {
        match node {
            Node::Range { next, .. } => vec![next],
            Node::Ranges { first, last, .. } => {
                self.ranges[first as usize..last as usize].iter().map(|(.., next)| *next).collect()
            }
            _ => vec![],
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
            self.reached(*node).into_iter().for_each(|next| before[next as usize].push(at));
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

    /// Numbers the nodes at which one can arrive, and notes where which bytes lead.
    fn find_arrivals(&mut self, start: Id) {
        let reached: Vec<Id> = self.nodes.iter().flat_map(|node| self.reached(*node)).collect();
        for node in std::iter::once(start).chain(reached) {
            if self.arrival_of[node as usize] == u32::MAX {
                self.arrival_of[node as usize] = self.arrivals.len() as u32;
                self.arrivals.push(node);
            }
        }
        for node in &self.nodes {
            let Node::Ranges { first, last, .. } = *node else { continue };
            let mut line = vec![u32::MAX; self.classes.alphabet_len()];
            for byte in 0..=u8::MAX {
                if let Some(next) = self.read(first, last, byte) {
                    line[usize::from(self.classes.get(byte))] = self.arrival_of[next as usize];
                }
            }
            self.reads.extend(line);
        }
    }

    /// Two for each group.
    #[cfg(test)]
    fn slots(&self) -> usize {
        self.slots
    }
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            rows: Vec::new(),
            marks: Vec::new(),
            first_rows: Vec::new(),
            sets: Vec::new(),
            states: HashMap::with_hasher(foldhash::fast::FixedState::default()),
            end: UNKNOWN,
            credit: CREDIT_BYTES_MAX,
            trail: Vec::new(),
            set: Vec::new(),
            stack: Vec::new(),
        }
    }
}

impl Cache {
    pub(super) fn memory_usage(&self) -> usize {
        let set = size_of::<(Box<[u64]>, Row)>();
        (self.rows.len() + self.first_rows.len() + self.trail.capacity()) * size_of::<u32>()
            + self.marks.len() * size_of::<(SmallVec<[u32; 4]>, Step)>()
            + 2 * self.sets.len() * size_of::<u64>()
            + self.states.len() * set
    }

    fn clear(&mut self) {
        *self = Cache { credit: self.credit, ..Cache::default() };
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
        let slots = ours(&capturer, &mut Cache::default(), text.as_bytes())?;
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
        assert_eq!(capturer.find(&mut Cache::default(), b"", &mut [None; 4]), Err(GaveUp));
    }

    #[test]
    fn it_stops_behind_the_last_group_that_is_wanted() {
        let capturer = Capturer::new(&hir("^a(b)c(d)"), |group| group == 1).unwrap();
        let slots = ours(&capturer, &mut Cache::default(), b"abcd").unwrap();
        let place = |at: usize| NonMaxUsize::new(at);
        assert_eq!(slots, [place(0), None, place(1), place(2), None, None]);
        assert_eq!(ours(&capturer, &mut Cache::default(), b"abce"), None);
    }

    /// A pattern whose backward DFA doubles with each byte, and lines that ask for all of it.
    #[test]
    fn hostile_lines_cost_a_bounded_number_of_states() {
        let capturer = Capturer::new(&hir("^(?:[xy]{16}x[xy]*|z*)(a?)$"), |_| true).unwrap();
        let mut cache = Cache::default();
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
                let mut cache = Cache::default();
                for text in texts {
                    let text = text.as_bytes();
                    prop_assert_eq!(ours(&capturer, &mut cache, text), other(&hir, text), "{} {:?}", regex, text);
                }
            }
        }
    }
}

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

/// Patterns with more states than this are left to another engine. Built-in ones have up to 2,000.
const NODES_MAX: usize = 8192;

/// Memory of one cache; when it is full, it is cleared. Built-in patterns take up to 200 KiB in use.
const CACHE_BYTES_MAX: usize = 1 << 20;

/// What building states may cost: one more is allowed for each so many bytes of lines, and a new cache begins with some. A
/// state costs as much as some hundred bytes of a line, and clients choose parts of lines.
const BYTES_PER_STATE: u32 = 64;
const STATES_AT_FIRST: u32 = 4096;

/// Index of a node.
type Id = u32;

/// Where a state of the backward DFA has its row in [`Cache::rows`]. The first row is nobody's.
type Row = u32;

/// What was not asked for yet.
const UNKNOWN: u32 = 0;

/// One state of the NFA.
#[derive(Clone, Copy, Debug)]
enum Node {
    /// Reads one byte from a range.
    Range { from: u8, to: u8, next: Id },
    /// Reads one byte: a range of [`Capturer::ranges`], and where its line of [`Capturer::reads`] begins.
    Ranges { first: u32, last: u32, line: u32 },
    /// Goes on to the first of two from which a match can be reached.
    Either { first: Id, second: Id },
    /// The same, of several: a range of [`Capturer::alternatives`].
    Any { first: u32, last: u32 },
    /// A group begins or ends.
    Slot { slot: u32, next: Id },
    /// Only at the beginning of the text, or at its end.
    Start { next: Id },
    End { next: Id },
    Match,
    Fail,
}

// What is done at a place is said in 32 bits: 0 is unknown, else the upper two say what kind it is. It depends on where one
// arrived and on what the first pass noted there.

/// Where the kind is; below it, more about it.
const KIND: u32 = 30;
const ABOUT: u32 = (1 << KIND) - 1;

/// Reads a byte, of which a line of [`Capturer::reads`] says where that arrives. (0: reads a byte and arrives there, as a
/// place in a row.)
const READS: u32 = 1;

/// Passes the ends of groups before it reads: it is walked again each time.
const WALK: u32 = 2;

/// No group that is wanted comes behind.
const DONE: u32 = 3;

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
    /// By node: its place among the arrivals, as a place in a row.
    arrival_of: Vec<u32>,
    /// For each node with several ranges, by class of bytes: where it arrives, as a place in a row.
    reads: Vec<u32>,
    classes: ByteClasses,
    #[cfg(test)]
    slots: usize,
}

/// The backward DFA as far as lines have needed it.
///
/// It is bounded: past [`CACHE_BYTES_MAX`] it is cleared, and no more than one state is built for [`BYTES_PER_STATE`] bytes
/// of lines. A line that needs more is one for another engine.
#[derive(Debug)]
pub(super) struct Cache {
    /// A row for each state. By class of bytes, the row of the state before such a byte; the same again at the beginning of
    /// the text; and by arrival, what is done there.
    rows: Vec<u32>,
    /// By state: the nodes from which a match can be reached, a bit for each.
    sets: Vec<u64>,
    states: HashMap<Box<[u64]>, Row, foldhash::fast::FixedState>,
    /// The state at the end of a text.
    end: Row,
    credit: u32,
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
            classes: nfa.byte_classes().clone(),
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
                    Node::Ranges { first, last: capturer.ranges.len() as u32, line: lines.next()? }
                }
                State::Dense(dense) => {
                    let first = capturer.ranges.len() as u32;
                    let reads = (0..=u8::MAX).zip(dense.transitions.iter()).filter(|(_, next)| **next != StateID::ZERO);
                    capturer.ranges.extend(reads.map(|(byte, next)| (byte, byte, id(*next))));
                    Node::Ranges { first, last: capturer.ranges.len() as u32, line: lines.next()? }
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
        let Cache { rows, sets, trail, .. } = cache;
        if !self.has(sets, *trail.first().ok_or(GaveUp)?, start) {
            return Ok(false);
        }
        let mut arrival = self.first_step();
        for (at, (row, byte)) in trail.iter().zip(text).enumerate() {
            let place = (row + arrival) as usize;
            let step = *rows.get(place).ok_or(GaveUp)?;
            arrival = match step >> KIND {
                0 if step != UNKNOWN => step,
                READS => self.arrival(step, *byte)?,
                DONE => return Ok(true),
                _ => {
                    let Some(step) = self.take(rows, sets, place, (*row, arrival, at), slots)? else { return Ok(true) };
                    if step >> KIND == READS { self.arrival(step, *byte)? } else { step }
                }
            };
        }
        // At the end nothing is read any more.
        let row = *trail.last().ok_or(GaveUp)?;
        match self.take(rows, sets, (row + arrival) as usize, (row, arrival, text.len()), slots)? {
            None => Ok(true),
            Some(_) => Err(GaveUp),
        }
    }

    /// Where reading a byte arrives.
    fn arrival(&self, step: u32, byte: u8) -> Result<u32, GaveUp> {
        let place = (step & ABOUT) as usize + usize::from(self.classes.get(byte));
        self.reads.get(place).copied().ok_or(GaveUp)
    }

    /// Finds out what is done where one arrived, and notes it. `None` if that is the end.
    #[cold]
    fn take(
        &self,
        rows: &mut [u32],
        sets: &[u64],
        place: usize,
        (row, arrival, at): (Row, u32, usize),
        slots: &mut [Option<NonMaxUsize>],
    ) -> Result<Option<u32>, GaveUp> {
        let node = *self.arrivals.get((arrival - self.first_step()) as usize).ok_or(GaveUp)?;
        let (rest, has_slots) = self.walk(sets, row, node, at, slots)?;
        let step = match rest.map(|node| self.nodes[node as usize]) {
            None => DONE << KIND,
            Some(Node::Range { next, .. }) => self.arrival_of[next as usize],
            Some(node @ Node::Ranges { line, .. }) => match self.only_arrival(node) {
                Some(arrival) => arrival,
                None => READS << KIND | line,
            },
            Some(_) => return Err(GaveUp),
        };
        rows[place] = if has_slots { WALK << KIND } else { step };
        Ok(rest.map(|_| step))
    }

    /// Goes from a node to the next one that reads, by the first alternatives from which a match can be reached. Says which
    /// that is, or `None` at the end, and whether groups began or ended on the way.
    fn walk(
        &self,
        sets: &[u64],
        row: Row,
        mut node: Id,
        at: usize,
        slots: &mut [Option<NonMaxUsize>],
    ) -> Result<(Option<Id>, bool), GaveUp> {
        let mut has_slots = false;
        // No node is passed twice.
        loop {
            if self.is_settled.get(node as usize) != Some(&false) {
                return Ok((None, has_slots));
            }
            node = match self.nodes[node as usize] {
                Node::Range { .. } | Node::Ranges { .. } => return Ok((Some(node), has_slots)),
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
                    if let Some(place) = slots.get_mut(slot as usize) {
                        *place = NonMaxUsize::new(at);
                    }
                    has_slots = true;
                    next
                }
                Node::Start { next } | Node::End { next } => next,
                Node::Match => return Ok((None, has_slots)),
                Node::Fail => return Err(GaveUp),
            };
        }
    }

    /// Fills the trail: for each place in the text, the state that says from where a match can be reached.
    fn look_back(&self, cache: &mut Cache, text: &[u8]) -> Result<(), GaveUp> {
        // Both ends at once are for another engine.
        if text.is_empty() {
            return Err(GaveUp);
        }
        cache.credit = cache.credit.saturating_add(text.len() as u32 / BYTES_PER_STATE).min(STATES_AT_FIRST);
        if cache.memory_usage() > CACHE_BYTES_MAX {
            cache.clear();
        }
        if cache.rows.is_empty() {
            cache.rows.resize(self.stride(), UNKNOWN);
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
                    let before = self.extend(cache, place, row, *byte, false)?;
                    rows = &cache.rows[..];
                    before
                }
                before => before,
            };
            *noted = row;
        }
        // The first byte is looked up apart, as what stands at the beginning of the text.
        let place = row as usize + self.classes.alphabet_len() + usize::from(self.classes.get(*byte));
        *first = match *rows.get(place).ok_or(GaveUp)? {
            UNKNOWN => self.extend(cache, place, row, *byte, true)?,
            before => before,
        };
        Ok(())
    }

    #[cold]
    fn extend(&self, cache: &mut Cache, place: usize, row: Row, byte: u8, is_start: bool) -> Result<Row, GaveUp> {
        let before = self.build(cache, Some((row, byte)), is_start)?;
        cache.rows[place] = before;
        Ok(before)
    }

    /// The state before a byte, or at the end of a text.
    fn build(&self, cache: &mut Cache, behind: Option<(Row, u8)>, is_start: bool) -> Result<Row, GaveUp> {
        cache.credit = cache.credit.checked_sub(1).ok_or(GaveUp)?;
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
        self.first_step() as usize + self.arrivals.len()
    }

    /// Where in a row the steps begin. Not 0, so that no arrival is taken for what is unknown.
    fn first_step(&self) -> u32 {
        2 * self.classes.alphabet_len() as u32
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

    /// Where a node arrives whatever it reads, as one does that reads `[^,]`.
    fn only_arrival(&self, node: Node) -> Option<u32> {
        let reached = self.reached(node);
        let first = *reached.first()?;
        reached.iter().all(|next| *next == first).then(|| self.arrival_of[first as usize])
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
                self.arrival_of[node as usize] = self.first_step() + self.arrivals.len() as u32;
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
            sets: Vec::new(),
            states: HashMap::with_hasher(foldhash::fast::FixedState::default()),
            end: UNKNOWN,
            credit: STATES_AT_FIRST,
            trail: Vec::new(),
            set: Vec::new(),
            stack: Vec::new(),
        }
    }
}

impl Cache {
    pub(super) fn memory_usage(&self) -> usize {
        let set = size_of::<(Box<[u64]>, Row)>();
        (self.rows.len() + self.trail.capacity()) * size_of::<u32>()
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

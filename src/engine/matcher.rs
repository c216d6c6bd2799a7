//! The matcher: which pattern, if any, does a log line match, and whose address is in it?
//!
//! Most lines belong to programs that no pattern speaks of, and end at one hash lookup. For the others, all patterns
//! of a program are one automaton, whose cost does not grow with their number; most lines end there. Only for a line
//! that does match is it asked which patterns those are, and only for the gravest of them where the address is.
//!
//! **What a pattern sees.** One that is bound to programs sees the message alone, so `^` is where the daemon begins
//! to speak. One that is not sees `program[pid]: message`, because that is what people write patterns for who
//! look at a log file. Neither sees the time, the host or structured data.
//!
//! **Memory.** The automata are lazy DFAs, of our own for patterns that begin with `^` ([`scan`](super::scan)): states are
//! made as lines need them, within [`CACHE_BYTES_MAX`] per shard, shared out among the automata. When a cache is full it is
//! cleared; where regex-automata finds that this happens too often, the search goes on without a DFA, in fixed memory. A set
//! of patterns whose NFA would exceed [`AUTOMATON_BYTES_MAX`] is split into several automata, tried one after the other.
//! Dense DFAs are not built: ten patterns with `.*` already pass 512 MiB. Captures are never taken on a whole set: they cost
//! hundreds of MiB. Where the groups of the gravest are, a second automaton of its own says
//! ([`capture`](super::capture)), within [`CAPTURE_BYTES_MAX`].

use super::address::Address;
use super::ban::{PatternId, Severity};
use super::logins::Login;
use super::pattern::{self, Caught, Extract, Pattern, instance_of, is_below};
use super::scan::{self, Scanner, can_scan};
use hashbrown::HashMap;
use regex_automata::meta::{self, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Input, MatchKind, PatternSet};
use regex_syntax::hir::Hir;
use std::cmp::Reverse;

/// Lazy DFA states of all automata together, per shard. The default of 2 MiB for each is too small for 200 patterns:
/// the cache is cleared all the time and matching takes 11 times as long.
pub const CACHE_BYTES_MAX: usize = 32 << 20;

/// Least and most of that for one automaton.
const CACHE_BYTES_EACH: (usize, usize) = (1 << 20, 16 << 20);

/// What finding the groups of single patterns takes, of all of them together, per shard. Past it, all of that is made anew.
pub const CAPTURE_BYTES_MAX: usize = 16 << 20;

/// Largest NFA of one automaton; 1,000 ordinary patterns take a quarter of it.
pub const AUTOMATON_BYTES_MAX: usize = 32 << 20;

/// How many `/` of a program's name are looked behind: `postfix/submission/smtpd` has two.
const PROGRAM_PARTS_MAX: usize = 4;

/// A pattern that was believed to match by the front of a line, and did not, must match so many lines in full before it is
/// believed again.
const DOUBTS: u8 = 8;

/// One automaton over several patterns.
#[derive(Debug)]
struct Automaton {
    engine: Engine,
    /// Indices into [`Matcher::patterns`], in the order of the automaton's own.
    members: Vec<u32>,
}

/// What finds which of an automaton's patterns match.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are few, nearly all of them the large one, and lines go through it"
)]
enum Engine {
    /// For patterns that all begin with the beginning of the text.
    Scanner(Scanner),
    /// For any, in two steps.
    Regex(Regex),
}

/// Which automata look at a text: a range of [`Matcher::automata`].
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    from: u32,
    to: u32,
}

/// The group of a program that was asked for lately: a cluster's log is by few programs.
#[derive(Clone, Copy, Debug)]
struct Recent {
    name: [u8; Recent::NAME_BYTES_MAX],
    len: usize,
    group: Option<Group>,
}

impl Recent {
    const NAME_BYTES_MAX: usize = 32;

    /// How many are kept, each at the one place that its name has. A power of two.
    const COUNT: usize = 64;

    /// Of an empty name, which no pattern is bound to.
    const NONE: Recent = Recent { name: [0; Recent::NAME_BYTES_MAX], len: 0, group: None };

    /// `postfix/smtpd` and `postfix/qmgr` differ at the end, `imap` and `pop3` at the beginning.
    fn place(program: &[u8]) -> usize {
        let [first, .., last] = program else { return 0 };
        (usize::from(*first) ^ usize::from(*last) << 2 ^ program.len() << 3) % Recent::COUNT
    }
}

/// All patterns of a policy. Immutable and shared; what searching changes is in [`Scratch`].
#[derive(Debug)]
pub struct Matcher {
    patterns: Vec<Pattern>,
    automata: Vec<Automaton>,
    /// Automata of the patterns bound to a program, or to one above it.
    programs: HashMap<Box<[u8]>, Group>,
    /// Automata of the patterns that see every record.
    unbound: Group,
}

/// What searching needs to change: one per shard and policy. Nothing is allocated per line once it is warm.
#[derive(Debug)]
pub struct Scratch {
    automata: Vec<EngineCache>,
    patterns: Vec<pattern::Cache>,
    /// Bytes of memory that those of the patterns take.
    pattern_bytes: usize,
    matched: PatternSet,
    /// By pattern: see [`DOUBTS`].
    doubts: Vec<u8>,
    /// Candidates of one line: indices into [`Matcher::patterns`].
    candidates: Vec<u32>,
    slots: Vec<Option<NonMaxUsize>>,
    recent: [Recent; Recent::COUNT],
    /// `program[pid]: message`, for patterns that are bound to no program.
    line: Vec<u8>,
}

/// What searching with one automaton needs to change.
#[derive(Debug)]
enum EngineCache {
    Scanner(scan::Cache),
    /// Made when it is needed.
    Regex(Option<Box<meta::Cache>>),
}

impl EngineCache {
    fn memory_usage(&self) -> usize {
        match self {
            EngineCache::Scanner(cache) => cache.memory_usage(),
            EngineCache::Regex(cache) => cache.as_ref().map_or(0, |cache| cache.memory_usage()),
        }
    }
}

/// What was found in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No pattern speaks of its program.
    NotWatched,
    /// Nothing that matches.
    Nothing,
    /// A pattern matches, but where it has the address is none.
    NoAddress(PatternId),
    Match(Match),
}

/// A line that tells of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub pattern: PatternId,
    pub severity: Severity,
    pub address: Address,
    /// How many failures count; 0 only if the pattern's weight is.
    pub failures: u32,
    /// Which login it tells of, where other lines may tell of the same.
    pub login: Option<Login>,
}

impl Matcher {
    /// Builds the automata for patterns that compiled one by one. Their order is their rank among equals in severity.
    pub fn new(patterns: Vec<Pattern>) -> Matcher {
        Matcher::with_automaton_limit(patterns, AUTOMATON_BYTES_MAX)
    }

    fn with_automaton_limit(patterns: Vec<Pattern>, automaton_bytes_max: usize) -> Matcher {
        // Which patterns does a record of each named program concern? Its own, and those of the programs above.
        let mut sets: HashMap<Box<[u8]>, Vec<u32>> = HashMap::new();
        for program in patterns.iter().flat_map(|pattern| &pattern.programs) {
            sets.entry(program.as_bytes().into()).or_default();
        }
        for (program, set) in &mut sets {
            // Where a program is named that is another's instance, what is for the other's parts concerns its own.
            let part = [program, &b"/"[..]].concat();
            for (at, pattern) in (0..).zip(&patterns) {
                let concerns =
                    |bound: &String| is_below(program, bound.as_bytes()) || is_below(&part, bound.as_bytes());
                if pattern.programs.iter().any(concerns) {
                    set.push(at);
                }
            }
        }
        let unbound: Vec<u32> = (0..).zip(&patterns).filter(|(_, p)| !p.is_bound()).map(|(at, _)| at).collect();
        let distinct: std::collections::HashSet<&Vec<u32>> = sets.values().chain([&unbound]).collect();
        let parts = |set: &&Vec<u32>| {
            let scannable = set.iter().filter(|at| can_scan(&patterns[**at as usize].hir)).count();
            usize::from(scannable > 0) + usize::from(scannable < set.len())
        };
        let parts = distinct.iter().map(parts).sum::<usize>().max(1);
        let cache_bytes = (CACHE_BYTES_MAX / parts).clamp(CACHE_BYTES_EACH.0, CACHE_BYTES_EACH.1);

        let mut automata = Vec::new();
        let mut built: HashMap<Vec<u32>, Group> = HashMap::new();
        let mut group_of = |set: Vec<u32>| {
            *built.entry(set).or_insert_with_key(|set| {
                let from = automata.len() as u32;
                build(&patterns, set, cache_bytes, automaton_bytes_max, &mut automata);
                Group { from, to: automata.len() as u32 }
            })
        };
        let unbound = group_of(unbound);
        let programs = sets.into_iter().map(|(program, set)| (program, group_of(set))).collect();
        Matcher { patterns, automata, programs, unbound }
    }

    pub(super) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The pattern again of a matcher that has one.
    ///
    /// # Panics
    ///
    /// If it has none, or several.
    pub fn into_pattern(self) -> Pattern {
        let [pattern] = <[Pattern; 1]>::try_from(self.patterns).expect("a matcher of one pattern");
        pattern
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// How many automata the patterns became.
    pub fn automata(&self) -> usize {
        self.automata.len()
    }

    /// The scratch space for this matcher, and no other.
    pub fn scratch(&self) -> Scratch {
        let largest = self.automata.iter().map(|automaton| automaton.members.len()).max().unwrap_or(0);
        let slots = self.patterns.iter().map(Pattern::slots).max().unwrap_or(0);
        Scratch {
            automata: self.automata.iter().map(|automaton| automaton.engine.cache()).collect(),
            patterns: self.patterns.iter().map(|_| pattern::Cache::default()).collect(),
            pattern_bytes: 0,
            matched: PatternSet::new(largest),
            doubts: vec![0; self.patterns.len()],
            candidates: Vec::new(),
            slots: vec![None; slots],
            recent: [Recent::NONE; Recent::COUNT],
            line: Vec::new(),
        }
    }

    /// Looks at one record. Of several patterns that match, the one of the highest severity counts (the first of those),
    /// unless it caught no address.
    pub fn find(&self, scratch: &mut Scratch, program: &[u8], pid: &[u8], message: &[u8]) -> Found {
        let bound = self.recent_group(&mut scratch.recent, program);
        let watched = bound.is_some() || self.unbound.from < self.unbound.to;
        if !watched {
            return Found::NotWatched;
        }
        scratch.candidates.clear();
        if let Some(group) = bound {
            self.search(group, scratch, message);
        }
        if self.unbound.from < self.unbound.to {
            let mut line = std::mem::take(&mut scratch.line);
            compose(&mut line, program, pid, message);
            self.search(self.unbound, scratch, &line);
            scratch.line = line;
        }
        if scratch.candidates.is_empty() { Found::Nothing } else { self.gravest(scratch, message) }
    }

    /// The same as [`Matcher::group`], which was perhaps asked before.
    fn recent_group(&self, recent: &mut [Recent; Recent::COUNT], program: &[u8]) -> Option<Group> {
        let recent = &mut recent[Recent::place(program)];
        if recent.name.get(..recent.len) == Some(program) {
            return recent.group;
        }
        let group = self.group(program);
        if let Some(name) = recent.name.get_mut(..program.len()) {
            name.copy_from_slice(program);
            (recent.len, recent.group) = (program.len(), group);
        }
        group
    }

    /// The automata for a program: of its own name, or of the nearest one above it that has any.
    fn group(&self, program: &[u8]) -> Option<Group> {
        if self.programs.is_empty() {
            return None;
        }
        let mut name = program;
        for _ in 0..=PROGRAM_PARTS_MAX {
            if let Some(group) = self.programs.get(name) {
                return Some(*group);
            }
            match memchr::memrchr(b'/', name) {
                Some(end) => name = name.get(..end)?,
                None => break,
            }
        }
        instance_of(program).and_then(|name| self.programs.get(name)).copied()
    }

    /// Adds to the candidates all patterns of a group that match `text`, and of each automaton perhaps one of which that is
    /// not known.
    fn search(&self, group: Group, scratch: &mut Scratch, text: &[u8]) {
        let range = group.from as usize..group.to as usize;
        let automata = self.automata.get(range.clone()).unwrap_or_default();
        let caches = scratch.automata.get_mut(range).unwrap_or_default();
        for (automaton, cache) in automata.iter().zip(caches) {
            automaton.search(cache, text, &mut scratch.doubts, &mut scratch.matched, &mut scratch.candidates);
        }
    }

    fn gravest(&self, scratch: &mut Scratch, message: &[u8]) -> Found {
        let pattern = |at: u32| &self.patterns[at as usize];
        scratch.candidates.sort_unstable_by_key(|&at| (Reverse(pattern(at).severity), at));
        let mut found = Found::Nothing;
        for &at in &scratch.candidates {
            let pattern = pattern(at);
            let text = if pattern.is_bound() { message } else { &scratch.line };
            let cache = &mut scratch.patterns[at as usize];
            let slots = &mut scratch.slots[..pattern.slots()];
            let bytes_before = cache.memory_usage();
            let extract = pattern.extract(cache, slots, text);
            scratch.pattern_bytes = (scratch.pattern_bytes + cache.memory_usage()).saturating_sub(bytes_before);
            if scratch.pattern_bytes > CAPTURE_BYTES_MAX {
                scratch.patterns.iter_mut().for_each(|cache| *cache = pattern::Cache::default());
                scratch.pattern_bytes = 0;
            }
            match extract {
                Extract::Nothing => scratch.doubts[at as usize] = DOUBTS,
                Extract::NoAddress if found == Found::Nothing => found = Found::NoAddress(pattern.id),
                Extract::NoAddress => {}
                Extract::Caught(Caught { address, failures, login }) => {
                    let Pattern { id: pattern, severity, .. } = *pattern;
                    let found_now = Found::Match(Match { pattern, severity, address, failures, login });
                    if failures > 0 {
                        return found_now;
                    }
                    // One that does not count names the line only if no other does.
                    if !matches!(found, Found::Match(_)) {
                        found = found_now;
                    }
                }
            }
        }
        found
    }
}

impl Engine {
    /// `None` if the patterns' NFA would exceed `nfa_bytes_max`.
    fn new(hirs: &[&Hir], cache_bytes: usize, nfa_bytes_max: Option<usize>) -> Option<Engine> {
        if hirs.iter().all(|hir| can_scan(hir)) {
            return Scanner::new(hirs, cache_bytes, nfa_bytes_max).map(Engine::Scanner);
        }
        let config = meta::Config::new()
            .match_kind(MatchKind::All)
            .utf8_empty(false)
            .which_captures(WhichCaptures::Implicit)
            .nfa_size_limit(nfa_bytes_max)
            .hybrid_cache_capacity(cache_bytes)
            .onepass(false);
        meta::Builder::new().configure(config).build_many_from_hir(hirs).ok().map(Engine::Regex)
    }

    fn cache(&self) -> EngineCache {
        match self {
            Engine::Scanner(_) => EngineCache::Scanner(scan::Cache::default()),
            Engine::Regex(_) => EngineCache::Regex(None),
        }
    }
}

impl Automaton {
    /// Adds to the candidates those of its patterns that match, and perhaps one that may.
    fn search(
        &self,
        cache: &mut EngineCache,
        text: &[u8],
        doubts: &mut [u8],
        matched: &mut PatternSet,
        candidates: &mut Vec<u32>,
    ) {
        let pattern = |member: u32| self.members[member as usize];
        match (&self.engine, cache) {
            (Engine::Scanner(scanner), EngineCache::Scanner(cache)) => {
                let before = candidates.len();
                let believes = |member| doubts[pattern(member) as usize] == 0;
                let unsure = scanner.scan(cache, text, believes, candidates);
                for candidate in candidates.iter_mut().skip(before) {
                    *candidate = pattern(*candidate);
                    let doubts = &mut doubts[*candidate as usize];
                    *doubts = doubts.saturating_sub(1);
                }
                candidates.extend(unsure.map(pattern));
            }
            (Engine::Regex(regex), EngineCache::Regex(cache)) => {
                let cache = cache.get_or_insert_with(|| Box::new(regex.create_cache()));
                if regex.search_half_with(cache, &Input::new(text).earliest(true)).is_some() {
                    matched.clear();
                    regex.which_overlapping_matches_with(cache, &Input::new(text), matched);
                    candidates.extend(matched.iter().map(|id| pattern(id.as_u32())));
                }
            }
            _ => unreachable!("the scratch space is another matcher's"),
        }
    }
}

impl Scratch {
    /// Bytes of memory that the automata's caches take now.
    pub fn memory_usage(&self) -> usize {
        let automata = self.automata.iter().map(EngineCache::memory_usage);
        automata.chain(self.patterns.iter().map(pattern::Cache::memory_usage)).sum()
    }
}

/// Writes what a pattern sees that is bound to no program. A record without a program is its message.
pub(super) fn compose(line: &mut Vec<u8>, program: &[u8], pid: &[u8], message: &[u8]) {
    line.clear();
    if !program.is_empty() {
        line.extend_from_slice(program);
        if !pid.is_empty() {
            line.push(b'[');
            line.extend_from_slice(pid);
            line.push(b']');
        }
        line.extend_from_slice(b": ");
    }
    line.extend_from_slice(message);
}

/// Appends automata for a set of patterns: one for those that begin with the beginning of the text, one for the others.
fn build(patterns: &[Pattern], set: &[u32], cache_bytes: usize, bytes_max: usize, automata: &mut Vec<Automaton>) {
    let (scannable, others): (Vec<u32>, Vec<u32>) = set.iter().partition(|at| can_scan(&patterns[**at as usize].hir));
    build_each(patterns, &scannable, cache_bytes, bytes_max, automata);
    build_each(patterns, &others, cache_bytes, bytes_max, automata);
}

/// Appends one automaton, or several where one would be too large.
fn build_each(patterns: &[Pattern], set: &[u32], cache_bytes: usize, bytes_max: usize, automata: &mut Vec<Automaton>) {
    if set.is_empty() {
        return;
    }
    let hirs: Vec<_> = set.iter().map(|&at| &patterns[at as usize].hir).collect();
    let limit = if set.len() == 1 { None } else { Some(bytes_max) };
    match Engine::new(&hirs, cache_bytes, limit) {
        Some(engine) => automata.push(Automaton { engine, members: set.to_vec() }),
        // One has no limit, and compiled by itself before.
        None => {
            assert!(set.len() > 1, "a pattern that compiled alone has no automaton");
            let (first, second) = set.split_at(set.len() / 2);
            build_each(patterns, first, cache_bytes, bytes_max, automata);
            build_each(patterns, second, cache_bytes, bytes_max, automata);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::pattern;
    use super::*;
    use proptest::prelude::*;

    const IP: &str = "(?P<ip>[0-9a-fA-F:.]+)";

    fn find(matcher: &Matcher, program: &str, message: &str) -> Found {
        matcher.find(&mut matcher.scratch(), program.as_bytes(), b"12", message.as_bytes())
    }

    fn name(found: Found) -> Option<(u32, String, u32)> {
        match found {
            Found::Match(m) => Some((m.pattern.number(), m.address.to_string(), m.failures)),
            _ => None,
        }
    }

    #[test]
    fn the_program_decides_first() {
        let matcher = Matcher::new(vec![
            pattern(0, &format!("^failed {IP}"), &["dovecot"], 1),
            pattern(1, &format!("^failed {IP}"), &["postfix"], 1),
            pattern(2, &format!("^failed {IP}"), &["postfix/smtpd"], 2),
        ]);
        let of = |program| name(find(&matcher, program, "failed 192.0.2.1")).map(|(n, _, _)| n);
        assert_eq!(of("dovecot"), Some(0));
        assert_eq!(of("postfix"), Some(1));
        assert_eq!(of("postfix/smtpd"), Some(2));
        assert_eq!(of("postfix/smtpd/x"), Some(2));
        assert_eq!(of("postfix/submission/smtpd"), Some(1));
        assert_eq!(of("postfix-out/smtpd"), Some(1));
        assert_eq!(of("postfix-out"), None);
        // A pattern for an instance does not hide those for the program.
        let both = Matcher::new(vec![
            pattern(1, &format!("^failed {IP}"), &["postfix"], 2),
            pattern(2, "^other ([0-9.]+)", &["postfix-out"], 1),
        ]);
        assert_eq!(name(find(&both, "postfix-out/smtpd", "failed 192.0.2.1")).map(|n| n.0), Some(1));
        assert_eq!(name(find(&both, "postfix-out/smtpd", "other 192.0.2.1")).map(|n| n.0), Some(2));
        assert_eq!(of("postfixx"), None);
        assert_eq!(find(&matcher, "sshd", "failed 192.0.2.1"), Found::NotWatched);
        assert_eq!(find(&matcher, "", "failed 192.0.2.1"), Found::NotWatched);
        assert_eq!(find(&matcher, "dovecot", "fine"), Found::Nothing);
        assert_eq!(find(&matcher, &"/".repeat(1000), "failed 192.0.2.1"), Found::NotWatched);
    }

    #[test]
    fn unbound_patterns_see_the_program_too() {
        let matcher = Matcher::new(vec![pattern(7, "nginx.*404.*client: ([0-9.]+)", &[], 1)]);
        let line = "2026/11/22 [error] 404 x, client: 192.0.2.9, server: y";
        assert_eq!(name(find(&matcher, "nginx", line)), Some((7, "192.0.2.9".to_owned(), 1)));
        assert_eq!(name(find(&matcher, "apache", line)), None);
        let anchored = Matcher::new(vec![pattern(7, r"^nginx\[12\]: hi ([0-9.]+)$", &[], 1)]);
        assert_eq!(name(find(&anchored, "nginx", "hi 192.0.2.9")), Some((7, "192.0.2.9".to_owned(), 1)));
    }

    #[test]
    fn the_gravest_pattern_with_an_address_names_the_line() {
        let matcher = Matcher::new(vec![
            pattern(0, "login from ([0-9.]+)", &[], 2),
            pattern(1, "from ([0-9.]+) failed", &["x"], 5),
            pattern(2, "from ([0-9.]+)", &["x"], 5),
            pattern(3, "login (from)", &["x"], 6),
        ]);
        assert_eq!(name(find(&matcher, "x", "login from 192.0.2.1 failed")).map(|n| n.0), Some(1));
        assert_eq!(name(find(&matcher, "x", "login from 192.0.2.1")).map(|n| n.0), Some(2));
        assert_eq!(name(find(&matcher, "y", "login from 192.0.2.1")).map(|n| n.0), Some(0));
        assert_eq!(find(&matcher, "x", "login from afar"), Found::NoAddress(PatternId::new(3).unwrap()));
    }

    #[test]
    fn programs_that_were_seen_before_are_still_told_apart() {
        let bound = ["a", "a/b", "longer-than-what-is-remembered-of-a-name", "c"];
        let patterns = (0..).zip(bound).map(|(n, program)| pattern(n, &format!("^failed {IP}"), &[program], 1));
        let matcher = Matcher::new(patterns.collect());
        let long = "longer-than-what-is-remembered-of-a-name";
        let mut programs: Vec<String> =
            ["", "a", "a/b", "a/b/c", "a/c", "c", "cc", "ac", "d", long, &long[1..]].map(String::from).into();
        // More than are remembered, and some at one place.
        programs.extend((0..300).map(|n| format!("a{n}x")));
        programs.extend((0..300).map(|n| format!("a/{n}x")));
        let mut scratch = matcher.scratch();
        for program in programs.iter().chain(programs.iter().rev()).chain(&programs) {
            for _ in 0..2 {
                let found = matcher.find(&mut scratch, program.as_bytes(), b"12", b"failed 192.0.2.1");
                assert_eq!(found, find(&matcher, program, "failed 192.0.2.1"), "{program}");
            }
        }
    }

    #[test]
    fn a_set_too_large_for_one_automaton_is_split_and_still_found() {
        for begin in ["", "^"] {
            let patterns = || -> Vec<Pattern> {
                (0..40).map(|n| pattern(n, &format!("{begin}service{n} failed from {IP}"), &["x"], 1)).collect()
            };
            let one = Matcher::new(patterns());
            let many = Matcher::with_automaton_limit(patterns(), 8 << 10);
            assert_eq!(one.automata(), 1);
            assert!(many.automata() > 2, "{}", many.automata());
            for n in 0..40 {
                let line = format!("service{n} failed from 192.0.2.1");
                assert_eq!(find(&many, "x", &line), find(&one, "x", &line));
                assert!(matches!(find(&many, "x", &line), Found::Match(m) if m.pattern.number() == n));
            }
        }
    }

    #[test]
    fn caches_stay_within_their_limit_whatever_comes() {
        let patterns = (0..60).map(|n| pattern(n, &format!("a.*b.*{n}.*[c-f]{{1,9}}.*from {IP}"), &["x"], 1)).collect();
        let matcher = Matcher::new(patterns);
        let mut scratch = matcher.scratch();
        let mut seed = 1u64;
        for _ in 0..3000 {
            let line: Vec<u8> = (0..200)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    b"ab0123456789cdef from"[(seed >> 33) as usize % 21]
                })
                .collect();
            matcher.find(&mut scratch, b"x", b"", &line);
        }
        assert!(scratch.memory_usage() < 2 * CACHE_BYTES_MAX, "{}", scratch.memory_usage());
    }

    #[test]
    fn captures_of_all_patterns_stay_within_their_limit_whatever_comes() {
        const PATTERNS: u32 = 60;
        // Read from the end, it must be known of each of the last letters whether it was an `a`.
        let patterns = (0..PATTERNS).map(|n| pattern(n, &format!("^{n}: [ab]{{12}}a[ab]* from {IP}$"), &["x"], 1));
        let matcher = Matcher::new(patterns.collect());
        let mut scratch = matcher.scratch();
        let (mut seed, mut most, mut cleared) = (1u64, 0, 0);
        for n in (0..PATTERNS).cycle().take(10 * PATTERNS as usize) {
            let mut letter = || {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if seed >> 40 & 1 == 0 { 'a' } else { 'b' }
            };
            let (front, back): (String, String) =
                ((0..12).map(|_| letter()).collect(), (0..800).map(|_| letter()).collect());
            let before = scratch.pattern_bytes;
            let line = format!("{n}: {front}a{back} from 192.0.2.1");
            let found = matcher.find(&mut scratch, b"x", b"", line.as_bytes());
            assert!(matches!(found, Found::Match(m) if m.pattern.number() == n), "{found:?}");
            let used: usize = scratch.patterns.iter().map(pattern::Cache::memory_usage).sum();
            assert_eq!(used, scratch.pattern_bytes);
            assert!(used <= CAPTURE_BYTES_MAX, "{used}");
            most = most.max(used);
            cleared += usize::from(used < before / 2);
        }
        assert!(most > CAPTURE_BYTES_MAX / 2 && cleared > 0, "{most}, cleared {cleared} times");
    }

    proptest! {
        /// Against each pattern by itself, one after the other.
        #[test]
        fn finds_what_each_pattern_alone_would(
            programs in prop::collection::vec(prop::sample::select(vec!["", "a", "a/b", "c"]), 1..6),
            regexes in prop::collection::vec(prop::sample::select(vec![
                "x.*from ([0-9.]+)", "^x from ([0-9.]+)$", "from ([0-9.]+) y", "(z)", r"\[12\]: .*([0-9.]+)", "([a-f.]+)",
            ]), 6),
            severities in prop::collection::vec(1..4u8, 6),
            program in prop::sample::select(vec!["a", "a/b", "a/b/c", "c", "d", ""]),
            message in prop::sample::select(vec![
                "x from 192.0.2.1", "xx from 192.0.2.1 y", "z", "z from 192.0.2.7 y", "nothing", "", "x\nfrom 192.0.2.3",
            ]),
        ) {
            let make = |n: usize| {
                let bound = if programs[n].is_empty() { vec![] } else { vec![programs[n]] };
                pattern(n as u32, regexes[n], &bound, severities[n])
            };
            let all = Matcher::new((0..programs.len()).map(make).collect());
            let mut want: Vec<_> = (0..programs.len()).filter_map(|n| {
                match find(&Matcher::new(vec![make(n)]), program, message) {
                    found @ (Found::Match(_) | Found::NoAddress(_)) => {
                        let no_address = matches!(found, Found::NoAddress(_));
                        Some(((no_address, Reverse(severities[n]), n), found))
                    }
                    _ => None,
                }
            }).collect();
            want.sort_by_key(|(rank, _)| *rank);
            let found = find(&all, program, message);
            match want.first() {
                Some((_, want)) => prop_assert_eq!(found, *want),
                None => prop_assert!(matches!(found, Found::Nothing | Found::NotWatched)),
            }
        }
    }
}

//! Evidence: the last lines that counted against each client, so that an operator can be told why.
//!
//! A shard keeps what it matched itself, in a table of a fixed size that is made once: sets of four places, a set chosen
//! by the client's hash, and the place in it that was written longest ago is taken by whoever comes new. Nothing is
//! allocated when a line is kept, and a botnet of millions costs others' evidence, never memory. Who is where stands apart
//! from the lines, so that a set is looked through in a few cache lines.

use super::address::Network;
use super::ban::PatternId;
use super::table::HashKey;
use super::time::Time;
use std::hash::BuildHasher as _;

/// Lines kept of each client.
pub const LINES: usize = 3;

/// What is kept of a line, in bytes; the end is cut off.
pub const LINE_BYTES: usize = 240;

/// What is kept of a program's name, in bytes.
const PROGRAM_BYTES: usize = 16;

/// Places in a set.
const WAYS: usize = 4;

/// One line.
#[derive(Clone, Copy)]
struct Line {
    at: Time,
    pattern: u32,
    program_len: u8,
    len: u8,
    program: [u8; PROGRAM_BYTES],
    bytes: [u8; LINE_BYTES],
}

impl Line {
    const NONE: Line = Line {
        at: Time::EARLIEST,
        pattern: 0,
        program_len: 0,
        len: 0,
        program: [0; PROGRAM_BYTES],
        bytes: [0; LINE_BYTES],
    };
}

/// Whose place it is.
#[derive(Clone, Copy)]
struct Way {
    client: Option<Network>,
    /// Which of its lines is written next.
    next: u8,
    /// When one was written last.
    last: Time,
}

/// One shard's table.
pub struct Evidence {
    /// None before the first line.
    ways: Box<[Way]>,
    /// The lines of each.
    lines: Box<[[Line; LINES]]>,
    sets: usize,
    hash: HashKey,
}

/// A kept line, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub at: Time,
    pub pattern: PatternId,
    pub program: String,
    pub line: String,
}

impl Evidence {
    /// A table of about so many bytes, which are taken when the first line is kept.
    pub fn new(bytes: usize, hash: HashKey) -> Evidence {
        let place = size_of::<Way>() + size_of::<[Line; LINES]>();
        Evidence { ways: Box::default(), lines: Box::default(), sets: (bytes / (WAYS * place)).max(1), hash }
    }

    /// How many clients there is room for.
    pub fn clients_max(&self) -> usize {
        self.sets * WAYS
    }

    fn set_of(&self, client: Network) -> usize {
        ((u128::from(self.hash.hash_one(client)) * self.sets as u128) >> 64) as usize * WAYS
    }

    /// Keeps a line of a client.
    pub fn keep(&mut self, client: Network, pattern: PatternId, program: &[u8], line: &[u8], now: Time) {
        if self.ways.is_empty() {
            self.ways = vec![Way { client: None, next: 0, last: Time::EARLIEST }; self.clients_max()].into();
            self.lines = vec![[Line::NONE; LINES]; self.clients_max()].into();
        }
        let from = self.set_of(client);
        let set = &mut self.ways[from..from + WAYS];
        let at = set.iter().position(|way| way.client == Some(client)).unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|at| set[*at].last).unwrap_or(0);
            set[oldest].client = Some(client);
            self.lines[from + oldest].iter_mut().for_each(|line| line.len = 0);
            oldest
        });
        let way = &mut set[at];
        let place = usize::from(way.next) % LINES;
        way.next = ((place + 1) % LINES) as u8;
        way.last = now;
        let kept = &mut self.lines[from + at][place];
        (kept.at, kept.pattern) = (now, pattern.number());
        kept.program_len = copy(program, &mut kept.program);
        kept.len = copy(line, &mut kept.bytes);
    }

    /// What is kept of a client, newest first, with nothing in it that a terminal or a page would obey.
    pub fn of(&self, client: Network) -> Vec<Kept> {
        let from = self.set_of(client);
        let set = self.ways.get(from..from + WAYS).unwrap_or_default();
        let Some(at) = set.iter().position(|way| way.client == Some(client)) else { return Vec::new() };
        let newest = usize::from(set[at].next) + LINES;
        let lines = &self.lines[from + at];
        let lines = (1..=LINES).map(|back| &lines[(newest - back) % LINES]).filter(|line| line.len > 0);
        lines
            .filter_map(|line| {
                Some(Kept {
                    at: line.at,
                    pattern: PatternId::new(line.pattern)?,
                    program: printable(&line.program[..usize::from(line.program_len)]),
                    line: printable(&line.bytes[..usize::from(line.len)]),
                })
            })
            .collect()
    }
}

/// Copies as much as there is room for, and says how much that is.
fn copy(from: &[u8], to: &mut [u8]) -> u8 {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    // Both of the places are shorter than 256 bytes.
    len as u8
}

/// Log text without anything that is obeyed rather than shown: control characters, and those that turn the direction of
/// text round (Unicode Standard Annex 9).
fn printable(bytes: &[u8]) -> String {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    String::from_utf8_lossy(bytes).chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evidence").field("clients_max", &self.clients_max()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::hash_key;
    use super::*;
    use std::time::Duration;

    fn client(n: u32) -> Network {
        Network::host(std::net::Ipv4Addr::from_bits(0x0a00_0000 | n).into())
    }

    fn at(seconds: u64) -> Time {
        Time::START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn the_last_lines_of_a_client_are_kept_newest_first() {
        let mut evidence = Evidence::new(1 << 16, hash_key(1));
        let pattern = PatternId::new(7).unwrap();
        for n in 0..5 {
            evidence.keep(client(1), pattern, b"dovecot", format!("line {n}").as_bytes(), at(n));
        }
        evidence.keep(client(2), pattern, b"a-program-with-a-long-name", &[b'x'; 1000], at(9));
        let lines: Vec<_> = evidence.of(client(1)).into_iter().map(|kept| (kept.line, kept.at)).collect();
        assert_eq!(lines, [("line 4".to_owned(), at(4)), ("line 3".to_owned(), at(3)), ("line 2".to_owned(), at(2))]);
        let long = evidence.of(client(2));
        assert_eq!((long[0].line.len(), long[0].program.as_str()), (LINE_BYTES, "a-program-with-a"));
        assert_eq!(evidence.of(client(3)), []);
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        let mut evidence = Evidence::new(1, hash_key(1));
        evidence.keep(client(1), PatternId::new(0).unwrap(), b"sogod", "a\x1b[2J\r\n\u{202e}b\u{ff}".as_bytes(), at(1));
        assert_eq!(evidence.of(client(1))[0].line, "a\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}b\u{ff}");
        evidence.keep(client(1), PatternId::new(0).unwrap(), b"sogod", b"\xff\xfe<script>", at(2));
        assert_eq!(evidence.of(client(1))[0].line, "\u{fffd}\u{fffd}<script>");
    }

    #[test]
    fn whoever_comes_new_takes_the_place_that_was_quiet_for_longest() {
        // One set.
        let mut evidence = Evidence::new(1, hash_key(1));
        assert_eq!(evidence.clients_max(), WAYS);
        let pattern = PatternId::new(0).unwrap();
        for n in 0..4 {
            evidence.keep(client(n), pattern, b"p", b"x", at(u64::from(n)));
        }
        evidence.keep(client(0), pattern, b"p", b"again", at(10));
        evidence.keep(client(9), pattern, b"p", b"new", at(11));
        let left: Vec<usize> = [0, 1, 2, 3, 9].map(|n| evidence.of(client(n)).len()).into();
        assert_eq!(left, [2, 0, 1, 1, 1]);
    }
}

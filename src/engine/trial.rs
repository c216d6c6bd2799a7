//! Why a line is matched, or why it is not: what each pattern that sees it makes of it, for whoever writes patterns.
//!
//! Slow and thorough, and nothing on a shard uses it.

use super::ban::PatternId;
use super::matcher::{Matcher, compose};
use super::pattern::{self, Pattern};
use regex_syntax::hir::{Hir, HirKind, Repetition};

/// Literal texts that are shown of one pattern.
const LITERALS_MAX: usize = 16;

/// What one pattern makes of one record.
#[derive(Clone, Debug)]
pub struct Trial {
    pub pattern: PatternId,
    /// What it sees: the message alone, or `program[pid]: message`.
    pub text: Vec<u8>,
    /// Texts that every line which it matches has, and whether this line has them.
    pub literals: Vec<(Vec<u8>, bool)>,
    /// What its groups caught, by their names or numbers; `None` if it does not match.
    pub caught: Option<Vec<(String, Vec<u8>)>>,
    /// Whether what caught the address is one.
    pub has_address: bool,
}

/// Tries each pattern that sees records of this program, in their order.
pub fn try_all(matcher: &Matcher, program: &[u8], pid: &[u8], message: &[u8]) -> Vec<Trial> {
    let mut line = Vec::new();
    compose(&mut line, program, pid, message);
    let seen = matcher.patterns().iter().filter(|pattern| pattern.sees(program));
    seen.map(|pattern| try_one(pattern, if pattern.is_bound() { message } else { &line })).collect()
}

fn try_one(pattern: &Pattern, text: &[u8]) -> Trial {
    let mut literals = Vec::new();
    required(&pattern.hir, &mut literals);
    literals.sort_by_key(|literal| std::cmp::Reverse(literal.len()));
    literals.truncate(LITERALS_MAX);
    let has = |literal: &[u8]| memchr::memmem::find(text, literal).is_some();
    let literals = literals.into_iter().map(|literal| (literal.to_vec(), has(literal))).collect();
    let mut slots = vec![None; pattern.slots()];
    let extracted = pattern.extract(&mut pattern::Cache::default(), &mut slots, text);
    let caught = pattern.groups(text);
    Trial { pattern: pattern.id, text: text.to_vec(), literals, caught, has_address: extracted.caught().is_some() }
}

/// Texts that stand in every line which a part matches.
fn required<'a>(hir: &'a Hir, literals: &mut Vec<&'a [u8]>) {
    match hir.kind() {
        HirKind::Literal(literal) => literals.push(&literal.0),
        HirKind::Concat(parts) => parts.iter().for_each(|part| required(part, literals)),
        HirKind::Capture(capture) => required(&capture.sub, literals),
        HirKind::Repetition(Repetition { min, sub, .. }) if *min > 0 => required(sub, literals),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::pattern;
    use super::*;

    #[test]
    fn each_pattern_that_sees_a_record_says_what_it_makes_of_it() {
        let matcher = Matcher::new(vec![
            pattern(0, "^login of (?P<user>.*) from (?P<ip>[0-9.]+)(?: failed)?$", &["x"], 1),
            pattern(1, "x: logout of (.*)", &[], 1),
            pattern(2, "(y)", &["y"], 1),
        ]);
        let trials = try_all(&matcher, b"x", b"", b"login of bob from 192.0.2.1");
        assert_eq!(trials.len(), 2);
        let (first, second) = (&trials[0], &trials[1]);
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let literals: Vec<_> = first.literals.iter().map(|(literal, has)| (text(literal), *has)).collect();
        assert_eq!(literals, [("login of ".to_owned(), true), (" from ".to_owned(), true)]);
        let caught: Vec<_> =
            first.caught.iter().flatten().map(|(name, caught)| format!("{name}={}", text(caught))).collect();
        assert_eq!(caught, ["user=bob", "ip=192.0.2.1"]);
        assert!(first.has_address && second.caught.is_none());
        assert_eq!(text(&second.text), "x: login of bob from 192.0.2.1");
        assert_eq!(second.literals, [(b"x: logout of ".to_vec(), false)]);
    }
}

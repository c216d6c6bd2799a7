//! An example of a pattern: a line of a log, and what the pattern finds in it.

use crate::engine::address::Address;

/// What must be found in an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever address it is.
    Match,
    /// This client, and so many failures if they are said.
    Of(Address, Option<u32>),
    Nothing,
}

/// A line, as `program[pid]: message`, and what is expected of it. In one text, the expectation stands at the end, behind
/// ` => `: an address, an address and `x3`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example<'a> {
    pub line: &'a str,
    pub expected: Expected,
}

impl Example<'_> {
    /// Reads an example. What stands behind the last ` => ` and is no expectation belongs to the line.
    pub fn parse(text: &str) -> Example<'_> {
        let said = text.rsplit_once(" => ").and_then(|(line, said)| Some(Example { line, expected: expected(said)? }));
        said.unwrap_or(Example { line: text, expected: Expected::Match })
    }
}

fn expected(text: &str) -> Option<Expected> {
    if text == "none" {
        return Some(Expected::Nothing);
    }
    match text.split_once(" x") {
        Some((address, failures)) => {
            Some(Expected::Of(Address::parse(address.as_bytes())?, Some(failures.parse().ok()?)))
        }
        None => Some(Expected::Of(Address::parse(text.as_bytes())?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expectation_stands_at_the_end() {
        let address = |text: &str| Address::parse(text.as_bytes()).unwrap();
        for (text, line, expected) in [
            ("x: failed", "x: failed", Expected::Match),
            ("x: failed => none", "x: failed", Expected::Nothing),
            ("x: a => b => 192.0.2.1", "x: a => b", Expected::Of(address("192.0.2.1"), None)),
            ("x: => 2001:db8::1 x12", "x:", Expected::Of(address("2001:db8::1"), Some(12))),
            ("x: id => bob <bob@example.org>", "x: id => bob <bob@example.org>", Expected::Match),
            ("x: => 192.0.2.1 x", "x: => 192.0.2.1 x", Expected::Match),
        ] {
            assert_eq!(Example::parse(text), Example { line, expected });
        }
    }
}

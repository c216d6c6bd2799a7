//! RE2 syntax, as Go users type it, in the words of `regex-syntax`.
//!
//! The two agree on almost everything. This rewrites the few places where the same text means something else, or is
//! refused by one of them (<https://github.com/google/re2/wiki/Syntax>):
//!
//! | RE2 | would be read as | becomes |
//! | --- | --- | --- |
//! | `\<` `\>` (any escaped punctuation is itself) | word boundaries | `<` `>` |
//! | `[^[]`, `[a&&b]`, `[a~~b]`, `[+--]` | nested classes and set operations | the same class, escaped |
//! | `a{`, `{,5}`, `x{y}` (not a repetition: literal) | an error | `a\{` … |
//! | `\Q…\E` | an error | the text, escaped |
//! | `\101`, `\0` (octal) | an error | `\x{41}` … |
//! | `\C` (any byte) | an error | `(?s-u:.)` |

use std::iter::Peekable;
use std::str::Chars;

/// Rewrites a pattern. What neither syntax knows is left as it is, for the parser to refuse by name.
pub fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out),
            '[' => class(&mut rest, &mut out),
            '{' => match repetition(&rest) {
                Some(text) => {
                    out.push('{');
                    out.push_str(&text);
                    rest.nth(text.chars().count() - 1);
                }
                None => out.push_str("\\{"),
            },
            _ => out.push(c),
        }
    }
    out
}

/// What stands between `{` and `}`, the latter included, if that is a repetition: `2}`, `2,}`, `2,5}`.
fn repetition(rest: &Peekable<Chars<'_>>) -> Option<String> {
    let text: String = rest.clone().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
    let closed = rest.clone().nth(text.chars().count()) == Some('}');
    let (min, max) = text.split_once(',').unwrap_or((&text, ""));
    let numbers = !min.is_empty() && !max.contains(',');
    (closed && numbers).then(|| text + "}")
}

/// What follows a backslash outside a class.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match rest.peek() {
        Some('Q') => {
            rest.next();
            let mut literal = String::new();
            while let Some(c) = rest.next() {
                if c == '\\' && rest.peek() == Some(&'E') {
                    rest.next();
                    break;
                }
                literal.push(c);
            }
            out.push_str(&regex_syntax::escape(&literal));
        }
        Some('C') => {
            rest.next();
            out.push_str("(?s-u:.)");
        }
        _ => escaped_character(rest, out),
    }
}

/// What follows a backslash, in a class or outside, where it is one character or a class of its own.
fn escaped_character(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    let Some(c) = rest.next() else {
        out.push('\\');
        return;
    };
    match c {
        '0'..='7' => {
            let mut digits = String::from(c);
            while digits.len() < 3
                && let Some(digit) = rest.next_if(|d| ('0'..='7').contains(d))
            {
                digits.push(digit);
            }
            match u32::from_str_radix(&digits, 8) {
                // A single digit other than 0 is a back reference, which neither knows.
                Ok(code) if digits.len() > 1 || c == '0' => out.push_str(&format!("\\x{{{code:x}}}")),
                _ => {
                    out.push('\\');
                    out.push_str(&digits);
                }
            }
        }
        'p' | 'P' | 'x' => {
            out.push('\\');
            out.push(c);
            // The braces of `\p{Greek}` and `\x{41}` are part of the escape.
            if rest.peek() == Some(&'{') {
                for c in rest.by_ref() {
                    out.push(c);
                    if c == '}' {
                        break;
                    }
                }
            }
        }
        _ if c.is_ascii_punctuation() || c == ' ' => literal(c, out),
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
}

/// One character that stands for itself, in a class or outside.
fn literal(c: char, out: &mut String) {
    if regex_syntax::is_meta_character(c) {
        out.push('\\');
    }
    out.push(c);
}

/// A bracketed class, from behind its `[` to its `]`.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = rest.next() {
        if c == ']' && !first {
            out.push(']');
            return;
        }
        first = false;
        member(c, rest, out);
        // A `-` is a range only between two members; before the `]` it is itself.
        let mut ahead = rest.clone();
        if ahead.next() == Some('-') && !matches!(ahead.peek(), Some(']') | None) {
            rest.next();
            out.push('-');
            if let Some(end) = rest.next() {
                member(end, rest, out);
            }
        }
    }
}

/// One member of a class: a character, an escape, or a named class such as `[:alpha:]`.
fn member(c: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    match c {
        '\\' => escaped_character(rest, out),
        '[' => {
            let ahead: String = rest.clone().take(16).collect();
            match ahead.strip_prefix(':').and_then(|inner| inner.find(":]")) {
                Some(name) => {
                    let whole = name + 3;
                    out.push('[');
                    out.push_str(&ahead[..whole]);
                    for _ in 0..whole {
                        rest.next();
                    }
                }
                None => out.push_str("\\["),
            }
        }
        _ => literal(c, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex_automata::meta::{BuildError, Regex};
    use regex_automata::util::syntax;

    fn compile(pattern: &str) -> Result<Regex, Box<BuildError>> {
        let bytes = syntax::Config::new().utf8(false);
        let small = Regex::config().nfa_size_limit(Some(1 << 20)).utf8_empty(false);
        Regex::builder().syntax(bytes).configure(small).build(&translate(pattern)).map_err(Box::new)
    }

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap_or_else(|e| panic!("{pattern} became {}: {e}", translate(pattern))).is_match(text)
    }

    #[test]
    fn what_differs_means_what_re2_says() {
        for (pattern, yes, no) in [
            (r"user=\<([^>]+)\>", "user=<bob>", "user=bob"),
            (r"\[([^[]+)\]", "[1.2.3.4]", "[]"),
            (r"^[a&&b]$", "&", "c"),
            (r"^[a~~b]$", "~", "c"),
            (r"^[+--]$", ",", "."),
            (r"^[--/]$", ".", "0"),
            (r"^[a-]$", "-", "b"),
            (r"^[]a]$", "]", "b"),
            (r"^[^]a]$", "b", "]"),
            (r"^a{$", "a{", "a"),
            (r"^a{,2}$", "a{,2}", "aa"),
            (r"^a{2}$", "aa", "a{2}"),
            (r"^a{2,}$", "aaa", "a"),
            (r"^a{2,3}$", "aaa", "aaaa"),
            (r"^{x}$", "{x}", "x"),
            (r"^\Qa.b*c\E+$", "a.b*cc", "aXb*c"),
            (r"^\Q[x", "[x", "x"),
            (r"^\101\x42\x{43}$", "ABC", "abc"),
            (r"^[\101-\x43]$", "B", "D"),
            (r"^[[:alpha:]_[]+$", "a_[", "1"),
            (r"^[[:^digit:]]$", "a", "1"),
            (r"^\pL\p{Greek}\PN$", "aαb", "aab"),
            (r"^\_\-\/\=\'\ \:\@$", "_-/=' :@", "x"),
            (r"^[\]\[\-\^]+$", "]-[^", "a"),
            (r"^\C\C$", "ab", "a"),
            (r"(?i)^FAIL(?P<x>ed)$", "failED", "fail"),
            (r"(?U)a+b", "aab", "b"),
            (r"^\d+\.\d+\z", "1.2", "1x2"),
            (r"nginx.*404.*client: ([0-9.]+)", "nginx[1]: 404 x, client: 192.0.2.1", "nginx client"),
        ] {
            assert!(matches(pattern, yes), "{pattern} must match {yes}");
            assert!(!matches(pattern, no), "{pattern} must not match {no}");
        }
    }

    #[test]
    fn what_neither_knows_is_left_for_the_parser_to_refuse() {
        for pattern in [r"\1", r"(", r"[a", r"a\", r"(?=x)", r"\y", r"*a", r"[z-a]", r"\p{Nope}", r"\x{"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_settles(pattern in r"[\\\[\]{}()<>,a-c0-9&~^:QECpx-]{0,24}") {
            let _ = compile(&pattern);
        }

        /// A quoted text matches exactly itself.
        #[test]
        fn quoted_texts_are_themselves(text in r"[ -~]{1,20}") {
            prop_assume!(!text.contains("\\E"));
            prop_assume!(!text.ends_with('\\'));
            let pattern = format!(r"^\Q{text}\E$");
            prop_assert!(matches(&pattern, &text), "{}", pattern);
        }
    }
}

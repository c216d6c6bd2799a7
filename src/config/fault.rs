//! What is wrong with a configuration, all of it at once, each with its place and what would be right.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// What the name of every environment variable begins with.
pub const ENVIRONMENT_PREFIX: &str = "FAIL2BAN_";

/// More than this of a wrong value is not repeated in a message.
const QUOTED_CHARS_MAX: usize = 60;

/// One thing that keeps a configuration from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting (`ban.max_attempts`, `ban.whitelist[3]`), the environment variable, or empty for the whole file.
    pub key: String,
    /// Line in the file, from 1; `None` for environment variables and for a file that could not be read.
    pub line: Option<usize>,
    /// What was found, what was expected, or what to write instead. One line of text, no full stop.
    pub message: String,
}

/// Something that is accepted, but that the operator should hear of. The fields are those of a [`Fault`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub key: String,
    pub line: Option<usize>,
    pub message: String,
}

/// All faults of one configuration, those of the file first and in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    source: String,
    faults: Vec<Fault>,
}

impl Faults {
    /// `source` is the name of the file as it is shown to the operator; it may be empty.
    pub fn new(source: impl Into<String>, mut faults: Vec<Fault>) -> Faults {
        // Stable: faults of one line keep the order in which they were found.
        faults.sort_by_key(|fault| fault.line.unwrap_or(usize::MAX));
        Faults { source: source.into(), faults }
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn as_slice(&self) -> &[Fault] {
        &self.faults
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.faults.iter()
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One fault a line: `config.yaml:12: ban.max_attempts: expected …`.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.at(&self.source).fmt(f)?;
        }
        Ok(())
    }
}

impl Error for Faults {}

impl Fault {
    /// The fault with the name of its file: `config.yaml:12: ban.max_attempts: expected …`.
    pub fn at<'a>(&'a self, source: &'a str) -> impl fmt::Display + 'a {
        Placed { source, key: &self.key, line: self.line, message: &self.message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at("").fmt(f)
    }
}

impl Warning {
    /// The warning with the name of its file: `config.yaml:30: section …`.
    pub fn at<'a>(&'a self, source: &'a str) -> impl fmt::Display + 'a {
        Placed { source, key: &self.key, line: self.line, message: &self.message }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at("").fmt(f)
    }
}

/// `source:line: key: message`, without the parts that there are not.
struct Placed<'a> {
    source: &'a str,
    key: &'a str,
    line: Option<usize>,
    message: &'a str,
}

impl fmt::Display for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from_environment = self.line.is_none() && self.key.starts_with(ENVIRONMENT_PREFIX);
        match (self.source, self.line) {
            _ if from_environment => f.write_str("environment: ")?,
            ("", None) => {}
            ("", Some(line)) => write!(f, "line {line}: ")?,
            (source, None) => write!(f, "{source}: ")?,
            (source, Some(line)) => write!(f, "{source}:{line}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(self.message)
    }
}

/// A text from outside in quotes: on one line, without control characters and passwords, cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text))
}

/// The same without the quotes.
pub(super) fn printable(text: &str) -> String {
    let text = without_password(text);
    let mut shown: String = text.chars().take(QUOTED_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The text with `…` for what could be a password. A DSN can be wrong by where it stands (`driver: mysql://…`), and then
/// it is told like any other wrong value.
fn without_password(text: &str) -> Cow<'_, str> {
    const WORD: &str = "password";
    // In bytes of the same places: only ASCII changes.
    let small = text.to_ascii_lowercase();
    let named = small.match_indices(WORD).map(|(at, _)| at + WORD.len()).find_map(|end| {
        let rest = small.get(end..)?;
        rest.trim_start().starts_with('=').then(|| text.get(..end)).flatten()
    });
    if let Some(before) = named {
        return Cow::Owned(format!("{before}=…"));
    }
    let Some((user, host)) = text.rsplit_once('@') else { return Cow::Borrowed(text) };
    let (scheme, user) = user.split_once("://").map_or(("", user), |(scheme, user)| (scheme, user));
    let Some((user, _)) = user.split_once(':') else { return Cow::Borrowed(text) };
    let separator = if scheme.is_empty() { "" } else { "://" };
    Cow::Owned(format!("{scheme}{separator}{user}:…@{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_shows_no_password() {
        for (text, want) in [
            ("mysql://u:s3cret@h/db", "\"mysql://u:…@h/db\""),
            ("u:s3@c/r:et@tcp(h:3306)/db", "\"u:…@tcp(h:3306)/db\""),
            ("u@tcp(h:3306)/db", "\"u@tcp(h:3306)/db\""),
            ("://u:s3cret@h", "\"u:…@h\""),
            ("host=h Password = 's3cret' user=u", "\"host=h Password=…\""),
            ("a password, or two", "\"a password, or two\""),
            ("2001:db8::1", "\"2001:db8::1\""),
        ] {
            assert_eq!(quoted(text), want);
        }
    }

    fn fault(key: &str, line: Option<usize>) -> Fault {
        Fault { key: key.to_owned(), line, message: "wrong".to_owned() }
    }

    #[test]
    fn a_report_has_one_line_per_fault_in_line_order() {
        let faults = Faults::new(
            "config.yaml",
            vec![
                fault("FAIL2BAN_BAN_MAX_ATTEMPTS", None),
                fault("ban.max_attempts", Some(12)),
                fault("", None),
                fault("", Some(3)),
            ],
        );
        assert_eq!(
            faults.to_string(),
            "config.yaml:3: wrong\n\
             config.yaml:12: ban.max_attempts: wrong\n\
             environment: FAIL2BAN_BAN_MAX_ATTEMPTS: wrong\n\
             config.yaml: wrong"
        );
    }

    #[test]
    fn a_fault_alone_says_its_line() {
        assert_eq!(fault("ban.max_attempts", Some(12)).to_string(), "line 12: ban.max_attempts: wrong");
        assert_eq!(fault("", None).to_string(), "wrong");
    }
}

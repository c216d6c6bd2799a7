//! Patterns and ban settings as rows of a database, by the same rules as in the file.
//!
//! A row is its columns' names and texts; who asked the database has had every value turned into text. Nothing here
//! knows of SQL. A column that is NULL says as little as a key that is left out; columns of other names are not ours.

use std::fmt;
use std::time::Duration;

use super::fault::Fault;
use super::kind::{Kind, Spot, Value};
use super::parse::{ban_times_fault, fill, read_value};
use super::settings::{BanSettings, PatternSettings, Settings};
use super::table::{Absent, PATTERN_KEYS, Place, SETTINGS, Setting, blank};
use super::yaml::{Content, Node};

/// What is wrong with one column of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFault {
    pub column: String,
    /// What was found, what was expected, or what to write instead. One line of text, no full stop.
    pub message: String,
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.column, self.message)
    }
}

/// The columns of `ban_config`, and the settings that they stand for. Durations are whole seconds.
const BAN_COLUMNS: &[(&str, &str)] = &[
    ("initial_ban_time_seconds", "ban.initial_ban_time"),
    ("max_ban_time_seconds", "ban.max_ban_time"),
    ("escalation_factor", "ban.escalation_factor"),
    ("max_attempts", "ban.max_attempts"),
    ("time_window_seconds", "ban.time_window"),
    ("cleanup_interval_seconds", "ban.cleanup_interval"),
    ("max_memory_ttl_seconds", "ban.max_memory_ttl"),
];

/// Reads a row of `patterns`, whose columns are called like the keys of a pattern in the file. Several programs are
/// separated by commas, several examples by line breaks.
///
/// # Errors
///
/// All that is wrong with it, but for what only compiling the regex can tell.
pub fn pattern_of_row(columns: &[(&str, Option<&str>)]) -> Result<PatternSettings, Vec<RowFault>> {
    let mut pattern = PatternSettings::default();
    fill(PATTERN_KEYS, &mut pattern);
    let mut faults = Vec::new();
    for row in PATTERN_KEYS {
        match text_of(columns, row.key) {
            Some(text) => {
                let value = read_column(row.kind, row.key, text, &mut faults);
                value.into_iter().for_each(|value| value.store((row.place)(&mut pattern)));
            }
            None if row.absent == Absent::Required => {
                faults.push(Fault { key: row.key.to_owned(), line: None, message: "is missing".to_owned() });
            }
            None => {}
        }
    }
    if faults.is_empty() { Ok(pattern) } else { Err(faults.into_iter().map(RowFault::from).collect()) }
}

/// Reads a row of `ban_config`. What it does not say is as in `base`.
///
/// # Errors
///
/// All that is wrong with it, also between its columns.
pub fn ban_of_row(base: &BanSettings, columns: &[(&str, Option<&str>)]) -> Result<BanSettings, Vec<RowFault>> {
    let mut settings = Settings { ban: base.clone(), ..blank() };
    let mut faults = Vec::new();
    for (column, row) in ban_rows() {
        if let Some(value) = text_of(columns, column).and_then(|text| read_column(row.kind, column, text, &mut faults))
        {
            value.store((row.place)(&mut settings));
        }
    }
    let times = ["max_ban_time_seconds", "initial_ban_time_seconds"];
    let right = times.iter().all(|column| faults.iter().all(|fault| fault.key != *column));
    if let Some(message) = ban_times_fault(&settings.ban, times).filter(|_| right) {
        faults.push(Fault { key: times[0].to_owned(), line: None, message });
    }
    if faults.is_empty() { Ok(settings.ban) } else { Err(faults.into_iter().map(RowFault::from).collect()) }
}

/// The row of `patterns` that [`pattern_of_row`] reads as this pattern: each column's name and text, `None` for NULL.
/// Truth is `1` or `0`, which every database takes.
///
/// An example with a line break in it is left out: it cannot be told from two, and it decides nothing.
pub fn row_of_pattern(pattern: &PatternSettings) -> Vec<(&'static str, Option<String>)> {
    let mut pattern = pattern.clone();
    pattern.examples.retain(|example| !example.contains(['\n', '\r']));
    PATTERN_KEYS.iter().map(|row| (row.key, column_of((row.place)(&mut pattern), separator(row.key)))).collect()
}

/// The row of `ban_config` that [`ban_of_row`] reads as these settings. Durations are rounded up to whole seconds, since
/// there are no finer ones in the table and no ban may be one of nothing.
pub fn row_of_ban(ban: &BanSettings) -> Vec<(&'static str, Option<String>)> {
    let mut settings = Settings { ban: ban.clone(), ..blank() };
    ban_rows().map(|(column, row)| (column, column_of((row.place)(&mut settings), ""))).collect()
}

fn ban_rows() -> impl Iterator<Item = (&'static str, &'static Setting<Settings>)> {
    BAN_COLUMNS.iter().filter_map(|(column, key)| Some((*column, SETTINGS.iter().find(|row| row.key == *key)?)))
}

fn text_of<'a>(columns: &[(&str, Option<&'a str>)], name: &str) -> Option<&'a str> {
    columns.iter().find(|(column, _)| *column == name).and_then(|(_, text)| *text)
}

/// What stands between the items of a list in a column.
fn separator(column: &str) -> &'static str {
    if column == "examples" { "\n" } else { "," }
}

/// Reads a column as the setting of that kind would be read from the file.
fn read_column(kind: Kind, column: &str, text: &str, faults: &mut Vec<Fault>) -> Option<Value> {
    let spot = Spot { key: column.to_owned(), line: None };
    let node = |content| Node { line: None, content };
    match kind {
        Kind::Duration { min, max } => {
            let seconds = Kind::Integer { min: whole_seconds(min), max: max.as_secs() };
            match read_column(seconds, column, text, faults)? {
                Value::Integer(seconds) => Some(Value::Duration(Duration::from_secs(seconds))),
                _ => None,
            }
        }
        Kind::Integer { .. } => {
            let mut number = kind.node_of_variable(text);
            // A column of another type than documented: 600 is 600.0 then.
            if let Content::Decimal(decimal) = number.content
                && decimal.fract() == 0.0
                && decimal.abs() < 1e15
            {
                number.content = Content::Integer(decimal as i128);
            }
            read_value(kind, &number, &spot, faults)
        }
        Kind::Bool => match text {
            "t" | "T" => Some(Value::Bool(true)),
            "f" | "F" => Some(Value::Bool(false)),
            _ => read_value(kind, &kind.node_of_variable(text), &spot, faults),
        },
        Kind::Texts(_) if separator(column) == "\n" => {
            // Not trimmed: what a regex is tried on is taken as it stands.
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let list = lines.map(|line| node(Content::Text(line.to_owned()))).collect();
            read_value(kind, &node(Content::List(list)), &spot, faults)
        }
        // Nothing is cut off a text, and a word in a choice of words is one.
        Kind::Text(_) => read_value(kind, &node(Content::Text(text.to_owned())), &spot, faults),
        _ => read_value(kind, &kind.node_of_variable(text), &spot, faults),
    }
}

/// A value as the text of its column.
fn column_of(place: Place<'_>, separator: &str) -> Option<String> {
    Some(match place {
        Place::Bool(value) => u8::from(*value).to_string(),
        Place::U8(number) => number.to_string(),
        Place::U32(number) => number.to_string(),
        Place::MaybeU32(number) => return number.map(|number| number.to_string()),
        Place::F64(number) => number.to_string(),
        Place::Duration(duration) => whole_seconds(*duration).to_string(),
        Place::Text(text) => text.clone(),
        Place::Texts(texts) if texts.is_empty() => return None,
        Place::Texts(texts) => texts.join(separator),
        Place::Choice(choice) => choice.0.chosen().to_owned(),
        Place::U16(_)
        | Place::Usize(_)
        | Place::Ip(_)
        | Place::Socket(_)
        | Place::Networks(_)
        | Place::MaybeIp(_)
        | Place::Users(_)
        | Place::Tokens(_)
        | Place::Patterns(_) => unreachable!("no column holds a setting of this type"),
    })
}

/// The duration in whole seconds, rounded up, and at least one.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)).max(1)
}

impl From<Fault> for RowFault {
    fn from(fault: Fault) -> RowFault {
        RowFault { column: fault.key, message: fault.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = Vec<(&'static str, Option<String>)>;

    fn borrowed(row: &Row) -> Vec<(&str, Option<&str>)> {
        row.iter().map(|(column, text)| (*column, text.as_deref())).collect()
    }

    /// Each fault on a line, or nothing.
    fn faults<T>(read: Result<T, Vec<RowFault>>) -> String {
        let faults = read.err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn pattern(more: &[(&str, Option<&str>)]) -> Result<PatternSettings, Vec<RowFault>> {
        pattern_of_row(&[more, &[("id", Some("7")), ("name", Some("n")), ("regex", Some("r"))]].concat())
    }

    fn ban(columns: &[(&str, Option<&str>)]) -> Result<BanSettings, Vec<RowFault>> {
        ban_of_row(&Settings::default().ban, columns)
    }

    #[test]
    fn every_column_has_its_setting() {
        assert_eq!(ban_rows().count(), BAN_COLUMNS.len());
    }

    #[test]
    fn there_and_back_changes_nothing() {
        let defaults = Settings::default();
        for pattern in &defaults.syslog.patterns {
            assert_eq!(pattern_of_row(&borrowed(&row_of_pattern(pattern))).as_ref(), Ok(pattern));
        }
        assert_eq!(ban_of_row(&defaults.ban, &borrowed(&row_of_ban(&defaults.ban))).as_ref(), Ok(&defaults.ban));
        let other = BanSettings {
            initial_ban_time: Duration::from_secs(1),
            max_ban_time: Duration::from_secs(86_400 * 3650),
            escalation_factor: 1.1,
            max_attempts: 10_000,
            ..defaults.ban.clone()
        };
        assert_eq!(ban_of_row(&defaults.ban, &borrowed(&row_of_ban(&other))), Ok(other));
    }

    #[test]
    fn a_pattern_is_written_as_a_row() {
        let pattern = PatternSettings {
            name: "n".to_owned(),
            regex: " r ".to_owned(),
            ip_group: Some(2),
            severity: 3,
            program: vec!["a".to_owned(), "b/c".to_owned()],
            weight: 4,
            examples: vec!["one ".to_owned(), "in\ntwo".to_owned(), "three".to_owned()],
            ..PatternSettings::default()
        };
        let row = row_of_pattern(&pattern);
        assert_eq!(
            borrowed(&row),
            [
                ("name", Some("n")),
                ("regex", Some(" r ")),
                ("ip_group", Some("2")),
                ("severity", Some("3")),
                ("description", Some("")),
                ("kind", Some("auth")),
                ("versions", Some("")),
                ("program", Some("a,b/c")),
                ("enabled", Some("0")),
                ("weight", Some("4")),
                ("refused_by", Some("")),
                ("examples", Some("one \nthree")),
            ]
        );
        let read = pattern_of_row(&borrowed(&row)).unwrap();
        assert_eq!(read.examples, ["one ", "three"]);
        assert_eq!(
            PatternSettings { examples: Vec::new(), ..read },
            PatternSettings { examples: Vec::new(), ..pattern }
        );
    }

    #[test]
    fn a_finer_duration_is_rounded_up() {
        let mut settings = Settings::default().ban;
        settings.cleanup_interval = Duration::from_millis(100);
        settings.time_window = Duration::from_millis(1500);
        let row = row_of_ban(&settings);
        let text = |name| text_of(&borrowed(&row), name).map(str::to_owned);
        assert_eq!(
            (text("cleanup_interval_seconds"), text("time_window_seconds")),
            (Some("1".into()), Some("2".into()))
        );
    }

    #[test]
    fn what_a_pattern_does_not_say_is_as_in_the_file() {
        let read = pattern(&[("ip_group", None), ("severity", None), ("program", Some("")), ("examples", Some(" \n"))]);
        let read = read.unwrap();
        assert_eq!((read.name.as_str(), read.regex.as_str(), read.line), ("n", "r", None));
        assert_eq!((read.ip_group, read.severity, read.weight, read.enabled), (None, 1, 1, true));
        assert!(read.program.is_empty() && read.examples.is_empty() && read.description.is_empty());
    }

    #[test]
    fn databases_have_several_words_for_one_value() {
        for (text, want) in
            [("true", true), ("TRUE", true), ("t", true), ("1", true), ("false", false), ("f", false), ("0", false)]
        {
            assert_eq!(pattern(&[("enabled", Some(text))]).map(|p| p.enabled), Ok(want), "{text}");
        }
        let read = pattern(&[
            ("severity", Some("3.0")),
            ("ip_group", Some("2")),
            ("program", Some("a, b,")),
            ("examples", Some("x: 1\r\n\r\ny: 2\r\n")),
        ]);
        let read = read.unwrap();
        assert_eq!((read.severity, read.ip_group), (3, Some(2)));
        assert_eq!((read.program, read.examples), (vec!["a".into(), "b".into()], vec!["x: 1".into(), "y: 2".into()]));
        let read = ban(&[("max_attempts", Some("3")), ("initial_ban_time_seconds", Some("600.0"))]).unwrap();
        assert_eq!((read.max_attempts, read.initial_ban_time), (3, Duration::from_secs(600)));
        let factor = |text| ban(&[("escalation_factor", Some(text))]).map(|ban| ban.escalation_factor.to_bits());
        assert_eq!((factor("2.50"), factor("3")), (Ok(2.5_f64.to_bits()), Ok(3.0_f64.to_bits())));
    }

    #[test]
    fn wrong_patterns_say_what_is_wrong() {
        for (column, text, want) in [
            ("severity", "7", "expected a whole number from 1 to 6, found the number 7"),
            ("severity", "2.5", "expected a whole number from 1 to 6, found the number 2.5"),
            ("severity", "high", "expected a whole number from 1 to 6, found the text \"high\""),
            ("ip_group", "0", "expected a whole number from 1 to 99, found the number 0"),
            ("weight", "1e300", "expected a whole number from 0 to 10000, found the number 1e300"),
            ("enabled", "yes", "expected true or false, found the text \"yes\""),
            (
                "program",
                "a b",
                "expected the name of a program, without [pid], commas and blanks, found the text \"a b\"",
            ),
            (
                "program",
                "\u{1b}[31m",
                "expected the name of a program, without [pid], commas and blanks, found the text \"\\u{1b}[31m\"",
            ),
        ] {
            assert_eq!(faults(pattern(&[(column, Some(text))])), format!("{column}: {want}"));
        }
        assert_eq!(
            faults(pattern_of_row(&[("name", Some("a\nb")), ("regex", None), ("severity", Some("\u{202e}"))])),
            "name: expected a name of letters, digits, `-`, `_`, `.`, `/`, `:` and blanks between them, found the text \"a\\nb\"\n\
             regex: is missing\n\
             severity: expected a whole number from 1 to 6, found the text \"\\u{202e}\""
        );
        assert_eq!(faults(pattern_of_row(&[])), "name: is missing\nregex: is missing");
        assert_eq!(faults(pattern(&[("name", Some(""))])), "name: must not be empty");
    }

    #[test]
    fn wrong_ban_settings_say_what_is_wrong() {
        for (columns, want) in [
            (&[("max_attempts", "0")][..], "max_attempts: expected a whole number from 1 to 10000, found the number 0"),
            (
                &[("time_window_seconds", "10m")],
                "time_window_seconds: expected a whole number from 1 to 2592000, found the text \"10m\"",
            ),
            (
                &[("cleanup_interval_seconds", "0")],
                "cleanup_interval_seconds: expected a whole number from 1 to 86400, found the number 0",
            ),
            (
                &[("escalation_factor", "NaN")],
                "escalation_factor: expected a number from 1 to 100, found the number NaN",
            ),
            (
                &[("initial_ban_time_seconds", "7200"), ("max_ban_time_seconds", "3600")],
                "max_ban_time_seconds: `max_ban_time_seconds` (1h) must not be shorter than `initial_ban_time_seconds` (2h)",
            ),
            // A value that is wrong by itself is not compared.
            (
                &[("initial_ban_time_seconds", "172800"), ("max_ban_time_seconds", "x")],
                "max_ban_time_seconds: expected a whole number from 1 to 315360000, found the text \"x\"",
            ),
        ] {
            let columns: Vec<(&str, Option<&str>)> = columns.iter().map(|(name, text)| (*name, Some(*text))).collect();
            assert_eq!(faults(ban(&columns)), want);
        }
    }

    #[test]
    fn what_ban_settings_do_not_say_is_as_in_the_file() {
        let mut base = Settings::default().ban;
        base.ipv6_prefix = 56;
        base.max_attempts = 9;
        let read = ban_of_row(&base, &[("time_window_seconds", Some("60")), ("max_attempts", None), ("id", Some("1"))]);
        assert_eq!(read, Ok(BanSettings { time_window: Duration::from_secs(60), ..base }));
    }
}

//! The table as a file for people: every setting with its reason, range and default.

use std::fmt::Write;

use super::kind::Kind;
use super::table::{Absent, PATTERN_KEYS, Reload, SECTIONS, SETTINGS, Setting};

/// Columns that the document keeps to, so that it can be read beside something else. Long values may exceed it.
const COLUMNS: usize = 100;

const HEADER: &str = "\
Settings of mailfail2ban. Everything is here with its default; what you do not change can be left out.

A setting is also taken from the environment, which beats this file: FAIL2BAN_ and the key in capitals, with _ for \
the dot, so FAIL2BAN_BAN_MAX_ATTEMPTS=3 is `max_attempts` below `ban`. Lists are separated by commas; \
FAIL2BAN_SYSLOG_PATTERNS alone is a list in YAML.

Durations are numbers with units, d, h, m, s or ms: 90s, 5m, 1h30m, 7d. Networks are written 10.0.0.0/8 or \
2001:db8::/32; an address alone is a network of one. Between [ and ] put one that begins with a colon, '::1', in \
quotes.

After a change, send the process SIGHUP. A file with faults is refused as a whole, with every fault and its line in \
the log, and the settings in force stay. Settings marked \"needs a restart\" are compared and named, and wait for one.

This file is what `mailfail2ban config` prints.";

/// The whole `config.yaml`: it reads as the defaults, without a fault or a warning.
///
/// The file of that name in the root of the source is this text; a test holds the two equal.
pub fn document() -> String {
    let mut text = String::new();
    comment(&mut text, 0, HEADER);
    for (section, doc) in SECTIONS {
        let indent = 2 * section.matches('.').count();
        text.push('\n');
        comment(&mut text, indent, doc);
        push_line(&mut text, indent, &format!("{}:", section.rsplit('.').next().unwrap_or(section)));
        for (index, row) in SETTINGS.iter().filter(|row| row.section() == *section).enumerate() {
            if index > 0 {
                text.push('\n');
            }
            setting(&mut text, row, indent + 2);
        }
    }
    text
}

fn setting<T>(text: &mut String, row: &Setting<T>, indent: usize) {
    comment(text, indent, row.doc);
    if row.kind == Kind::Patterns {
        pattern_keys(text);
    }
    let facts = facts(row);
    let reload = match row.reload {
        Reload::Live => "Changes on reload.",
        Reload::Restart => "Needs a restart.",
    };
    comment(text, indent, format!("{facts} {reload}").trim());
    match (row.kind, row.absent) {
        // Too long to stand among the settings, and not in the file while they are the built-in ones.
        (Kind::Patterns, _) => push_line(text, indent, &format!("# {}:", row.name())),
        (_, Absent::Default(value)) => push_line(text, indent, &format!("{}: {value}", row.name())),
        // Not in the file while nobody gives a value.
        (_, Absent::Required | Absent::Nothing(_)) => push_line(text, indent, &format!("# {}:", row.name())),
    }
}

/// The keys of a pattern, as part of the comment above the list.
fn pattern_keys(text: &mut String) {
    push_line(text, 2, "#");
    for row in PATTERN_KEYS {
        let facts = facts(row);
        let hanging = format!("{}: {} {facts}", row.name(), row.doc);
        for (index, line) in wrapped(hanging.trim(), COLUMNS - 8).iter().enumerate() {
            push_line(text, 2, &format!("#   {}{line}", if index == 0 { "" } else { "  " }));
        }
    }
    push_line(text, 2, "#");
}

/// What can be written, and what holds if nothing is: "1 to 10000 failures. Default: 5."
fn facts<T>(row: &Setting<T>) -> String {
    let mut facts = match row.kind {
        Kind::Integer { min, max } if row.unit.is_empty() => format!("From {min} to {max}."),
        Kind::Integer { min, max } => format!("From {min} to {max} {}.", row.unit),
        Kind::Choice(names) => format!("One of {}.", names.join(", ")),
        Kind::Bool | Kind::Decimal { .. } | Kind::Duration { .. } | Kind::Port => {
            let expected = row.kind.expected();
            let mut letters = expected.chars();
            letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
        }
        // The doc says it, or the value shows it.
        Kind::SocketAddress
        | Kind::IpAddress
        | Kind::IpAddressOrNothing
        | Kind::Text(_)
        | Kind::Texts(_)
        | Kind::Networks
        | Kind::Patterns
        | Kind::Users
        | Kind::Tokens => String::new(),
    };
    match row.absent {
        Absent::Default(_) if row.kind == Kind::Patterns => {}
        Absent::Default("[]" | "{}" | "\"\"") => facts.push_str(" Default: empty."),
        Absent::Default(value) => {
            // Writing to a String cannot fail.
            let _ = write!(facts, " Default: {value}.");
        }
        Absent::Required => facts.push_str(" Required."),
        Absent::Nothing(meaning) => {
            let _ = write!(facts, " Default: {meaning}.");
        }
    }
    facts.trim().to_owned()
}

/// Adds `prose` as comment lines; a blank line in it stays one.
fn comment(text: &mut String, indent: usize, prose: &str) {
    for paragraph in prose.split('\n') {
        if paragraph.is_empty() {
            push_line(text, indent, "#");
        }
        for line in wrapped(paragraph, COLUMNS - indent - 2) {
            push_line(text, indent, &format!("# {line}"));
        }
    }
}

fn push_line(text: &mut String, indent: usize, line: &str) {
    if !line.is_empty() {
        text.extend(std::iter::repeat_n(' ', indent));
        text.push_str(line);
    }
    text.push('\n');
}

/// Breaks prose between words so that no line is longer than `columns` characters, unless a word is.
fn wrapped(prose: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in prose.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

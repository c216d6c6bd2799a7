//! `patterns`: the patterns that are built in.

use super::table::Table;
use crate::config::{BUILT_IN_YAML, PatternSettings, Settings};
use serde_json::json;
use std::fmt::Write as _;

/// Prints them: as a table, or, with `yaml`, as they would stand in a configuration. With names, only those.
///
/// # Errors
///
/// The names that no pattern has.
pub fn run(names: &[String], yaml: bool) -> Result<(), String> {
    let patterns = Settings::default().syslog.patterns;
    let unknown: Vec<&str> =
        names.iter().filter(|name| patterns.iter().all(|one| one.name != **name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(format!("no pattern is called {}; without a name, all are listed", unknown.join(", ")));
    }
    let is_wanted = |pattern: &&PatternSettings| names.is_empty() || names.contains(&pattern.name);
    let text = match (yaml, names.is_empty()) {
        (true, true) => format!("syslog:\n  patterns:\n{}", super::indented(BUILT_IN_YAML)),
        (true, false) => format!("syslog:\n  patterns:\n{}", super::indented(&entries(names))),
        (false, true) => listed(patterns.iter()),
        (false, false) => patterns.iter().filter(is_wanted).map(described).collect(),
    };
    super::print(&text);
    Ok(())
}

fn listed<'a>(patterns: impl Iterator<Item = &'a PatternSettings>) -> String {
    let mut table = Table::new(&["name", "kind", "severity", "program", "what"]);
    for pattern in patterns {
        let what = if pattern.enabled { pattern.description.clone() } else { format!("(off) {}", pattern.description) };
        table.row_of(&json!({
            "name": pattern.name,
            "kind": pattern.kind.name(),
            "severity": pattern.severity,
            "program": pattern.program.first(),
            "what": what,
        }));
    }
    table.print()
}

/// One pattern, for people.
fn described(pattern: &PatternSettings) -> String {
    let mut text = format!("{}\n", pattern.name);
    let severity = pattern.severity.to_string();
    let programs = pattern.program.join(", ");
    let facts = [
        ("what", pattern.description.as_str()),
        ("written by", &pattern.versions),
        ("programs", &programs),
        ("kind", pattern.kind.name()),
        ("severity", &severity),
        ("refused by", &pattern.refused_by),
        ("regex", &pattern.regex),
    ];
    // Writing to a String cannot fail.
    for (name, value) in facts.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "  {name:<10} {value}");
    }
    for example in &pattern.examples {
        let _ = writeln!(text, "  {:<10} {example}", "example");
    }
    text.push('\n');
    text
}

/// The entries of some names, with the comments before them, as they stand in the file.
fn entries(names: &[String]) -> String {
    let wanted = |entry: &&str| {
        let name = entry.lines().find_map(|line| line.strip_prefix("- name: "));
        name.is_some_and(|name| names.iter().any(|wanted| wanted == name))
    };
    // An empty line stands before each entry's comment, and nowhere else.
    BUILT_IN_YAML.split("\n\n").filter(wanted).collect::<Vec<_>>().join("\n\n") + "\n"
}

//! `match --explain N`: what becomes of one line of a log, and why.

use super::matching::{open_log, read_line};
use crate::control::RunFault;
use crate::control::publish::Publisher;
use crate::engine::matcher::Found;
use crate::engine::policy::Policy;
use crate::engine::table::hash_key;
use crate::engine::trial::{Trial, try_all};
use crate::wire::syslog::decode_logged;
use std::fmt::Write as _;
use std::path::Path;

/// Patterns that do not match are told with all that is known of them if there are no more than this; else those that
/// have the most of the line in common.
const TOLD_MAX: usize = 10;

/// Explains the line of that number, from 1.
///
/// # Errors
///
/// If the configuration is faulty, the log cannot be read, or it has no such line.
pub fn run(config: &Path, file: &Path, number: u64) -> Result<(), RunFault> {
    // The key of the hash is of no use here: nobody else sees these tables.
    let (_, policy) = Publisher::new(1, hash_key(0)).load(config)?;
    let mut log = open_log(file)?.reader;
    let mut line = Vec::new();
    for at in 1..=number {
        let more = read_line(&mut log, &mut line)
            .map_err(|why| RunFault::Machine(vec![format!("cannot read {}: {why}", file.display())]))?;
        if !more {
            let lines = at - 1;
            return Err(RunFault::Machine(vec![format!("{} has {lines} lines, so no line {number}", file.display())]));
        }
    }
    super::print(&explain(&policy, number, &line));
    Ok(())
}

/// Text of a log as it can be shown.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}

fn explain(policy: &Policy, number: u64, line: &[u8]) -> String {
    let mut text = format!("line {number}: {}\n", shown(line));
    // Writing to a String cannot fail.
    let record = match decode_logged(line) {
        Ok(record) => record,
        Err(why) => {
            let _ = writeln!(text, "it cannot be read as a log record: {}", why.name().replace('_', " "));
            return text;
        }
    };
    for (name, value) in
        [("host", record.host), ("program", record.program), ("pid", record.pid), ("message", record.message)]
    {
        let _ = writeln!(text, "  {name:<8} {}", if value.is_empty() { "-".to_owned() } else { shown(value) });
    }
    let trials = try_all(&policy.matcher, record.program, record.pid, record.message);
    let (matching, mut others): (Vec<Trial>, Vec<Trial>) = trials.into_iter().partition(|trial| trial.caught.is_some());
    let _ = writeln!(
        text,
        "\n{} of {} patterns see records of this program; {} match",
        matching.len() + others.len(),
        policy.matcher.len(),
        matching.len()
    );
    for trial in &matching {
        let _ = writeln!(text, "\n{} matches", policy.name(trial.pattern));
        seen(&mut text, trial, record.message);
        for (group, caught) in trial.caught.iter().flatten() {
            let _ = writeln!(text, "  {group:<8} {}", shown(caught));
        }
        if !trial.has_address {
            text.push_str("  what it caught for the address is none\n");
        }
    }
    // The nearest first: those of whose words the line lacks the least.
    others
        .sort_by_key(|trial| trial.literals.iter().filter(|(_, has)| !has).map(|(word, _)| word.len()).sum::<usize>());
    for trial in others.iter().take(TOLD_MAX) {
        let _ = writeln!(text, "\n{} does not match", policy.name(trial.pattern));
        seen(&mut text, trial, record.message);
        let words = |wanted: bool| {
            let words = trial.literals.iter().filter(|(_, has)| *has == wanted);
            words.map(|(word, _)| format!("{:?}", String::from_utf8_lossy(word))).collect::<Vec<_>>().join(", ")
        };
        for (what, words) in [("has", words(true)), ("lacks", words(false))] {
            if !words.is_empty() {
                let _ = writeln!(text, "  {what:<8} {words}");
            }
        }
    }
    if let Some(more) = others.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
        let _ = writeln!(text, "\n{more} others do not match and are further from it");
    }
    let found = policy.matcher.find(&mut policy.matcher.scratch(), record.program, record.pid, record.message);
    let so = match found {
        Found::NotWatched => "no pattern is for this program, so nothing counts".to_owned(),
        Found::Nothing => "nothing counts".to_owned(),
        Found::NoAddress(pattern) => {
            format!("nothing counts: {} has no address where it should be", policy.name(pattern))
        }
        Found::Match(found) => {
            let noun = if found.failures == 1 { "failure" } else { "failures" };
            let name = policy.name(found.pattern);
            format!("it counts as {} {noun} of {} by {name}", found.failures, found.address)
                + if found.login.is_some() { ", unless other lines told of the same" } else { "" }
        }
    };
    let _ = writeln!(text, "\nso {so}");
    text
}

/// What the pattern saw, if that is not the message.
fn seen(text: &mut String, trial: &Trial, message: &[u8]) {
    if trial.text != message {
        let _ = writeln!(text, "  {:<8} {}", "sees", shown(&trial.text));
    }
}

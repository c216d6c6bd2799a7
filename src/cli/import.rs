//! `import-fail2ban`: patterns from a filter of fail2ban.

use crate::config::{Translation, pattern_entry, translate_filter};
use crate::control::RunFault;
use crate::control::candidate::Judge;
use crate::engine::ban::PatternId;
use std::fs;
use std::path::Path;

/// Longest file that a filter includes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Prints what a filter says as patterns, and on standard error what it says that they cannot.
///
/// # Errors
///
/// If the file cannot be read, or nothing of it could be translated.
pub fn run(file: &Path) -> Result<(), RunFault> {
    let text = fs::read_to_string(file)
        .map_err(|why| RunFault::Machine(vec![format!("cannot read {}: {why}", file.display())]))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let name = file.file_stem().map_or_else(|| "fail2ban".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let Translation { patterns, left_out } = translate_filter(&name, &text, |included| {
        // Where an administrator's own settings for a filter would be.
        let path = folder.join(included);
        let is_small = fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES_MAX);
        is_small.then(|| fs::read_to_string(path).ok()).flatten()
    });
    for what in &left_out {
        eprintln!("mailfail2ban: left out: {what}");
    }
    let mut judge = Judge::default();
    let mut printed = 0;
    for (number, pattern) in (0..).zip(&patterns) {
        let Some(id) = PatternId::new(number) else { break };
        match judge.judge(id, pattern, false) {
            Ok(judged) => {
                if printed == 0 {
                    super::print("syslog:\n  patterns:\n");
                }
                for warning in judged.warnings {
                    eprintln!("mailfail2ban: warning: {}: {}", pattern.name, warning.message);
                    super::print(&format!("    # {}.\n", warning.message));
                }
                super::print(&(super::indented(&pattern_entry(pattern)) + "\n"));
                printed += 1;
            }
            Err(faults) => {
                for fault in faults {
                    eprintln!("mailfail2ban: left out: {}: {}", pattern.regex, fault.message);
                }
            }
        }
    }
    let all = patterns.len() + left_out.len();
    eprintln!("mailfail2ban: {printed} patterns from {}, {} left out", file.display(), all - printed);
    if printed == 0 {
        return Err(RunFault::Machine(vec![format!("nothing in {} could be translated", file.display())]));
    }
    Ok(())
}

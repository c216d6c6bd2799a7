//! A pattern that wants to go live: does it compile, do its examples hold, and can a client steer it?

use crate::config::{Example, Expected, PatternSettings};
use crate::engine::ban::{PatternId, Severity};
use crate::engine::matcher::{Found, Matcher};
use crate::engine::pattern::{Pattern, Source};
use crate::engine::steer::{CounterExample, Verdict, steer};
use crate::wire::syslog;
use std::collections::HashMap;

/// What was decided about this many patterns is kept, so that a reload decides only about what is new.
const VERDICTS_MAX: usize = 20_000;

/// Something about one key of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub key: &'static str,
    /// One line, no full stop.
    pub message: String,
}

/// What became of a pattern that can be used.
#[derive(Debug)]
pub struct Judged {
    pub pattern: Pattern,
    /// What its author should hear.
    pub warnings: Vec<Remark>,
    /// A line with which it can be steered.
    pub counter_example: Option<CounterExample>,
}

/// What is known of patterns that were looked at.
#[derive(Debug, Default)]
pub struct Judge {
    verdicts: HashMap<(String, Option<u32>, Option<String>), Verdict>,
}

impl Judge {
    /// Looks at a pattern.
    ///
    /// # Errors
    ///
    /// All that is wrong with it; with `strict`, also that it can be steered.
    pub fn judge(&mut self, id: PatternId, settings: &PatternSettings, strict: bool) -> Result<Judged, Vec<Remark>> {
        // Those that are built in are known to be right: tests examine each of them.
        if settings.is_built_in() {
            return Ok(Judged { pattern: compile(id, settings)?, warnings: Vec::new(), counter_example: None });
        }
        self.examine(id, settings, strict)
    }

    /// The same, also for one that is built in.
    ///
    /// # Errors
    ///
    /// As [`Judge::judge`].
    pub fn examine(&mut self, id: PatternId, settings: &PatternSettings, strict: bool) -> Result<Judged, Vec<Remark>> {
        let pattern = compile(id, settings)?;
        let verdict = self.verdict(settings, &pattern);
        let (pattern, mut faults) = try_examples(pattern, settings);
        let mut warnings = Vec::new();
        let steerable = remark_of(&verdict);
        if strict {
            faults.extend(steerable)
        } else {
            warnings.extend(steerable)
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let counter_example = match verdict {
            Verdict::Steerable(shown) => Some(shown),
            Verdict::Fixed | Verdict::Undecided => None,
        };
        Ok(Judged { pattern, warnings, counter_example })
    }

    fn verdict(&mut self, settings: &PatternSettings, pattern: &Pattern) -> Verdict {
        if self.verdicts.len() >= VERDICTS_MAX {
            self.verdicts.clear();
        }
        let key = (settings.regex.clone(), settings.ip_group, settings.program.first().cloned());
        self.verdicts.entry(key).or_insert_with(|| steer(pattern)).clone()
    }
}

fn compile(id: PatternId, settings: &PatternSettings) -> Result<Pattern, Vec<Remark>> {
    let remark = |key, message| vec![Remark { key, message }];
    let severity = Severity::new(settings.severity)
        .ok_or_else(|| remark("severity", format!("expected 1 to {}", Severity::MAX)))?;
    let source = Source {
        regex: &settings.regex,
        ip_group: settings.ip_group,
        severity,
        weight: settings.weight,
        programs: &settings.program,
        refused_by: Some(settings.refused_by.as_str()).filter(|who| !who.is_empty()),
    };
    Pattern::compile(id, &source).map_err(|why| remark("regex", why.to_string()))
}

/// What a pattern makes of its examples that it should not.
fn try_examples(pattern: Pattern, settings: &PatternSettings) -> (Pattern, Vec<Remark>) {
    if settings.examples.is_empty() {
        return (pattern, Vec::new());
    }
    let alone = Matcher::new(vec![pattern]);
    let mut scratch = alone.scratch();
    let mut faults = Vec::new();
    for text in &settings.examples {
        let Example { line, expected } = Example::parse(text);
        let found = syslog::decode_logged(line.as_bytes())
            .map(|record| alone.find(&mut scratch, record.program, record.pid, record.message));
        let why = match (found, expected) {
            (Ok(Found::Match(_)), Expected::Match) => continue,
            (Ok(Found::Match(found)), Expected::Of(address, failures)) => {
                if found.address != address {
                    format!("is taken for one of {}", found.address)
                } else if failures.is_some_and(|failures| failures != found.failures) {
                    format!("counts {}", found.failures)
                } else {
                    continue;
                }
            }
            (Ok(Found::Match(found)), Expected::Nothing) => format!("is matched, as one of {}", found.address),
            (_, Expected::Nothing) => continue,
            (Ok(Found::NoAddress(_)), _) => "matches, but what the address group caught is no address".to_owned(),
            (Ok(Found::NotWatched), _) => "is of another program than the pattern's".to_owned(),
            (Ok(Found::Nothing) | Err(_), _) => "is not matched".to_owned(),
        };
        faults.push(Remark { key: "examples", message: format!("the example {line:?} {why}") });
    }
    (alone.into_pattern(), faults)
}

fn remark_of(verdict: &Verdict) -> Option<Remark> {
    let message = match verdict {
        Verdict::Fixed => return None,
        Verdict::Steerable(CounterExample { line, of, found }) => {
            let whose = of.map_or_else(|| "a client that writes it".to_owned(), |of| of.to_string());
            format!(
                "a client can have another one banned: the line {line:?} can be {whose}'s, but {found} is found in it; \
                 anchor the regex with ^ and $, and say what stands between"
            )
        }
        Verdict::Undecided => {
            "it cannot be told whether a client can have another one banned: the regex is too large, or its group takes \
             none of the usual addresses; use smaller repetitions, and <IP>"
                .to_owned()
        }
    };
    Some(Remark { key: "regex", message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(regex: &str, examples: &[&str], strict: bool) -> Result<Judged, Vec<Remark>> {
        let settings = PatternSettings {
            name: "x".to_owned(),
            regex: regex.to_owned(),
            severity: 1,
            weight: 1,
            examples: examples.iter().map(|text| (*text).to_owned()).collect(),
            ..PatternSettings::default()
        };
        Judge::default().judge(PatternId::new(0).unwrap(), &settings, strict)
    }

    fn said(remarks: &[Remark]) -> String {
        remarks.iter().map(|remark| format!("{}: {}\n", remark.key, remark.message)).collect()
    }

    #[test]
    fn examples_hold_or_say_how_they_do_not() {
        let regex = r"^x: (?P<attempts>\d+) from ([0-9.]+)$";
        let right = ["x: 1 from 192.0.2.1", "x: 3 from 192.0.2.1 => 192.0.2.1 x3", "x: from => none"];
        let settings = |examples| judge(r"^x: (?P<attempts>\d+) from (?P<ip>[0-9.]+)$", examples, true);
        assert!(settings(&right).is_ok(), "{regex}");
        let wrong = [
            "x: 1 from here",
            "x: 1 from 999.0.2.1",
            "x: 2 from 192.0.2.1 => 192.0.2.2",
            "x: 2 from 192.0.2.1 => 192.0.2.1 x3",
            "x: 2 from 192.0.2.1 => none",
        ];
        assert_eq!(
            said(&settings(&wrong).unwrap_err()),
            "examples: the example \"x: 1 from here\" is not matched\n\
             examples: the example \"x: 1 from 999.0.2.1\" matches, but what the address group caught is no address\n\
             examples: the example \"x: 2 from 192.0.2.1\" is taken for one of 192.0.2.1\n\
             examples: the example \"x: 2 from 192.0.2.1\" counts 2\n\
             examples: the example \"x: 2 from 192.0.2.1\" is matched, as one of 192.0.2.1\n"
        );
    }

    #[test]
    fn a_pattern_that_can_be_steered_is_a_warning_or_a_fault_with_a_line_that_shows_it() {
        let regex = "nginx.*404.*client: ([0-9.]+)";
        let judged = judge(regex, &[], false).unwrap();
        let warning = said(&judged.warnings);
        assert!(
            warning.starts_with("regex: a client can have another one banned: the line \"x: nginx404"),
            "{warning}"
        );
        assert_eq!(said(&judge(regex, &[], true).unwrap_err()), warning);

        // The line works: whom it is said to ban, the whole matcher finds.
        let shown = judged.counter_example.unwrap();
        let matcher = Matcher::new(vec![judged.pattern]);
        let record = syslog::decode_logged(shown.line.as_bytes()).unwrap();
        match matcher.find(&mut matcher.scratch(), record.program, record.pid, record.message) {
            Found::Match(found) => assert_eq!(found.address, shown.found),
            other => panic!("{other:?}"),
        }
    }
}

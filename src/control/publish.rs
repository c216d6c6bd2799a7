//! From settings to a policy: compiled here, on the control thread, and refused whole if anything in it is wrong.

use crate::config::{Fault, Faults, OnUnknown, PatternSettings, Settings};
use crate::engine::address::Network;
use crate::engine::ban::{PatternId, Severity};
use crate::engine::escalation::BanRules;
use crate::engine::matcher::{Found, Matcher};
use crate::engine::pattern::{Pattern, Source};
use crate::engine::policy::{PatternName, Policy, QuestionRules};
use crate::engine::table::{HashKey, NetworkTable};
use crate::wire::syslog;
use std::collections::HashMap;
use std::sync::Arc;

/// Compiles policies and numbers them, and gives every pattern name a number for the life of the process.
#[derive(Debug)]
pub struct Publisher {
    shards: usize,
    hash: HashKey,
    policies: u64,
    names: Vec<PatternName>,
    ids: HashMap<Arc<str>, PatternId>,
}

impl Publisher {
    /// For so many shards, whose tables of networks are hashed with `hash`.
    pub fn new(shards: usize, hash: HashKey) -> Publisher {
        Publisher { shards: shards.max(1), hash, policies: 0, names: Vec::new(), ids: HashMap::new() }
    }

    /// Compiles the next policy.
    ///
    /// # Errors
    ///
    /// All faults of all patterns; then no number is used up.
    pub fn compile(&mut self, source: &str, settings: &Settings) -> Result<Policy, Faults> {
        let matcher = self.compile_matcher(source, settings)?;
        self.policies += 1;
        let ban = &settings.ban;
        let rules = BanRules {
            initial: ban.initial_ban_time,
            max: ban.max_ban_time,
            factor: ban.escalation_factor,
            threshold: ban.max_attempts,
            window: ban.time_window,
            memory: ban.max_memory_ttl,
            cleanup: ban.cleanup_interval,
            ipv4_prefix: ban.ipv4_prefix,
            ipv6_prefix: ban.ipv6_prefix,
            tracked_max: ban.max_tracked.div_ceil(self.shards),
        };
        Ok(Policy {
            number: self.policies,
            rules,
            matcher,
            allow: self.table(&ban.whitelist),
            block: self.table(&ban.blacklist),
            senders: self.table(&settings.syslog.allowed_senders),
            names: self.names.clone().into(),
            questions: QuestionRules {
                trusted_proxies: self.table(&settings.nginx.trusted_proxies),
                deny_unknown: settings.nginx.on_unknown == OnUnknown::Deny,
                json: settings.nginx.return_json,
            },
        })
    }

    fn compile_matcher(&mut self, source: &str, settings: &Settings) -> Result<Matcher, Faults> {
        let mut patterns = Vec::new();
        let mut faults = Vec::new();
        for (index, settings) in settings.syslog.patterns.iter().enumerate() {
            match self.compile_pattern(index, settings) {
                // One that is switched off must compile too: it will be switched on at three in the morning.
                Ok(pattern) => patterns.extend(settings.enabled.then_some(pattern)),
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() { Ok(Matcher::new(patterns)) } else { Err(Faults::new(source, faults)) }
    }

    fn compile_pattern(&mut self, index: usize, settings: &PatternSettings) -> Result<Pattern, Vec<Fault>> {
        let fault = |key: &str, message: String| Fault {
            key: PatternSettings::key(index, key),
            line: settings.line_of(key),
            message,
        };
        let severity = Severity::new(settings.severity)
            .ok_or_else(|| vec![fault("severity", format!("expected 1 to {}", Severity::MAX))])?;
        let id = self.id(&settings.name, severity).ok_or_else(|| {
            vec![fault(
                "name",
                format!("there have been more than {} names of patterns; restart the program", PatternId::MAX),
            )]
        })?;
        let source = Source {
            regex: &settings.regex,
            ip_group: settings.ip_group,
            severity,
            weight: settings.weight,
            programs: &settings.program,
        };
        let compile = || Pattern::compile(id, &source).map_err(|why| vec![fault("regex", why.to_string())]);
        if settings.examples.is_empty() {
            return compile();
        }
        let alone = Matcher::new(vec![compile()?]);
        let mut scratch = alone.scratch();
        let mut faults = Vec::new();
        for example in &settings.examples {
            let found = syslog::decode_logged(example.as_bytes())
                .map(|record| alone.find(&mut scratch, record.program, record.pid, record.message));
            let why = match found {
                Ok(Found::Match(_)) => continue,
                Ok(Found::NoAddress(_)) => "matches, but what the address group caught is no address",
                Ok(Found::NotWatched) => "is of another program than the pattern's",
                Ok(Found::Nothing) | Err(_) => "is not matched",
            };
            faults.push(fault("examples", format!("the example {example:?} {why}")));
        }
        if faults.is_empty() { compile() } else { Err(faults) }
    }

    fn id(&mut self, name: &str, severity: Severity) -> Option<PatternId> {
        if let Some(id) = self.ids.get(name) {
            if let Some(known) = self.names.get_mut(id.number() as usize) {
                known.severity = severity;
            }
            return Some(*id);
        }
        let id = PatternId::new(u32::try_from(self.names.len()).ok()?)?;
        let name: Arc<str> = name.into();
        self.names.push(PatternName { name: Arc::clone(&name), severity });
        self.ids.insert(name, id);
        Some(id)
    }

    fn table(&self, networks: &[Network]) -> NetworkTable<()> {
        let mut table = NetworkTable::new(self.hash.clone());
        for network in networks {
            table.insert(*network, ());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::hash_key;

    fn publish(yaml: &str) -> Result<Policy, Faults> {
        let settings = crate::config::parse("test.yaml", yaml, std::iter::empty())?;
        Publisher::new(2, hash_key(1)).compile("test.yaml", &settings)
    }

    #[test]
    fn every_faulty_pattern_is_named_with_its_line() {
        let faults = publish(
            "syslog:\n  patterns:\n  - name: a\n    regex: '('\n  - name: b\n    regex: 'from (\\S+)'\n    examples: ['x: hello', \
             'x: from here']\n  - name: c\n    enabled: false\n    regex: none\n",
        )
        .unwrap_err();
        let said = faults.to_string();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 4, "{said}");
        assert!(
            lines[0].starts_with("test.yaml:4: syslog.patterns[0].regex: the regex does not compile: unclosed group")
        );
        assert!(
            lines[1].starts_with("test.yaml:7: syslog.patterns[1].examples: the example \"x: hello\" is not matched")
        );
        assert!(lines[2].ends_with("is no address"));
        assert!(lines[3].starts_with("test.yaml:10: syslog.patterns[2].regex: the regex has no group"));
    }

    #[test]
    fn the_defaults_compile_and_numbers_stay_with_names() {
        let settings = crate::config::parse("", "", std::iter::empty()).unwrap();
        let mut publisher = Publisher::new(2, hash_key(1));
        let first = publisher.compile("", &settings).unwrap();
        let mut fewer = settings.clone();
        fewer.syslog.patterns.remove(0);
        let second = publisher.compile("", &fewer).unwrap();
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(first.names, second.names);
        assert_eq!(second.matcher.len() + 1, first.matcher.len());
        assert_eq!(first.rules.tracked_max, 500_000);
    }
}

//! From settings to a policy: compiled here, on the control thread, and refused whole if anything in it is wrong.

use crate::config::{self, Draft, Fault, Faults, OnUnknown, PatternSettings, Settings};
use crate::engine::address::Network;
use crate::engine::ban::{PatternId, Severity};
use crate::engine::escalation::BanRules;
use crate::engine::matcher::{Found, Matcher};
use crate::engine::pattern::{Pattern, Source};
use crate::engine::policy::{PatternName, Policy, QuestionRules};
use crate::engine::table::{HashKey, NetworkTable};
use crate::wire::syslog;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Compiles policies and numbers them, and gives every pattern name a number for the life of the process.
#[derive(Debug)]
pub struct Publisher {
    /// How many shards there are, if the settings do not say.
    cores: usize,
    /// How many there are for good, once there is a policy.
    shards: Option<usize>,
    hash: HashKey,
    policies: u64,
    names: Vec<PatternName>,
    ids: HashMap<Arc<str>, PatternId>,
    /// The patterns that were compiled last, and what became of them.
    matcher: Option<(Vec<PatternSettings>, Arc<Matcher>)>,
    /// The lists of the last policy.
    allow: Arc<NetworkTable<()>>,
    block: Arc<NetworkTable<()>>,
    senders: Arc<NetworkTable<()>>,
}

impl Publisher {
    /// For a machine with so many cores. Tables of networks are hashed with `hash`.
    pub fn new(cores: usize, hash: HashKey) -> Publisher {
        let nobody = Arc::new(NetworkTable::new(hash.clone()));
        Publisher {
            cores: cores.max(1),
            shards: None,
            hash,
            policies: 0,
            names: Vec::new(),
            ids: HashMap::new(),
            matcher: None,
            allow: Arc::clone(&nobody),
            block: Arc::clone(&nobody),
            senders: nobody,
        }
    }

    /// How many shards the policies are for.
    pub fn shards(&self) -> usize {
        self.shards.unwrap_or(self.cores)
    }

    /// Reads the settings from a file and the environment, and compiles the next policy from them. What has not changed since
    /// the one before is shared with it.
    ///
    /// # Errors
    ///
    /// All faults of the settings and of all patterns; then no number is used up.
    pub fn load(&mut self, path: &Path) -> Result<(Settings, Policy), Faults> {
        self.compile(config::draft(path)?)
    }

    fn compile(&mut self, draft: Draft) -> Result<(Settings, Policy), Faults> {
        match self.compile_matcher(draft.settings()) {
            Ok(matcher) => draft.finish().map(|settings| {
                let policy = self.policy(&settings, matcher);
                (settings, policy)
            }),
            Err(more) => Err(draft.refuse(more)),
        }
    }

    fn policy(&mut self, settings: &Settings, matcher: Arc<Matcher>) -> Policy {
        let wanted = if settings.runtime.shards == 0 { self.cores } else { settings.runtime.shards };
        let shards = *self.shards.get_or_insert(wanted);
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
            tracked_max: ban.max_tracked.div_ceil(shards),
        };
        self.allow = self.table(&ban.whitelist, &self.allow);
        self.block = self.table(&ban.blacklist, &self.block);
        self.senders = self.table(&settings.syslog.allowed_senders, &self.senders);
        Policy {
            number: self.policies,
            rules,
            matcher,
            allow: Arc::clone(&self.allow),
            block: Arc::clone(&self.block),
            senders: Arc::clone(&self.senders),
            names: self.names.clone().into(),
            questions: QuestionRules {
                nginx_trusted_proxies: network_table(&settings.nginx.trusted_proxies, &self.hash),
                envoy_trusted_proxies: network_table(&settings.envoy.trusted_proxies, &self.hash),
                deny_unknown: settings.nginx.on_unknown == OnUnknown::Deny,
                json: settings.nginx.return_json,
            },
        }
    }

    fn compile_matcher(&mut self, settings: &Settings) -> Result<Arc<Matcher>, Vec<Fault>> {
        // Compiling may change what the names stand for, even if it fails: then the last ones must be compiled again.
        let last = self.matcher.take().filter(|(patterns, _)| *patterns == settings.syslog.patterns);
        let matcher = match last {
            Some((_, matcher)) => matcher,
            None => Arc::new(self.compile_patterns(settings)?),
        };
        self.matcher = Some((settings.syslog.patterns.clone(), Arc::clone(&matcher)));
        Ok(matcher)
    }

    fn compile_patterns(&mut self, settings: &Settings) -> Result<Matcher, Vec<Fault>> {
        let mut patterns = Vec::new();
        let mut faults = Vec::new();
        for (index, settings) in settings.syslog.patterns.iter().enumerate() {
            if settings.name.is_empty() || settings.regex.is_empty() {
                // That there is none was said already.
                continue;
            }
            match self.compile_pattern(index, settings) {
                // One that is switched off must compile too: it will be switched on at three in the morning.
                Ok(pattern) => patterns.extend(settings.enabled.then_some(pattern)),
                Err(more) => faults.extend(more),
            }
        }
        if faults.is_empty() { Ok(Matcher::new(patterns)) } else { Err(faults) }
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

    /// The table of these networks: the last one if it holds the same.
    fn table(&self, networks: &[Network], last: &Arc<NetworkTable<()>>) -> Arc<NetworkTable<()>> {
        let table = network_table(networks, &self.hash);
        let is_same = table.len() == last.len() && table.iter().all(|(network, ())| last.get(network).is_some());
        if is_same { Arc::clone(last) } else { Arc::new(table) }
    }
}

fn network_table(networks: &[Network], hash: &HashKey) -> NetworkTable<()> {
    let mut table = NetworkTable::new(hash.clone());
    for network in networks {
        table.insert(*network, ());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::hash_key;

    fn draft(yaml: &str) -> Draft {
        Draft::parse("test.yaml", yaml, std::iter::empty())
    }

    #[test]
    fn every_faulty_pattern_is_named_with_its_line() {
        let yaml = "syslog:\n  patterns:\n  - name: a\n    regex: '('\n  - name: b\n    regex: 'from (\\S+)'\n    examples: ['x: hello', \
             'x: from here']\n  - name: c\n    enabled: false\n    regex: none\nban:\n  max_attempts: x\n";
        let faults = Publisher::new(2, hash_key(1)).compile(draft(yaml)).unwrap_err();
        let said = faults.to_string();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 5, "{said}");
        assert!(
            lines[0].starts_with("test.yaml:4: syslog.patterns[0].regex: the regex does not compile: unclosed group")
        );
        assert!(
            lines[1].starts_with("test.yaml:7: syslog.patterns[1].examples: the example \"x: hello\" is not matched")
        );
        assert!(lines[2].ends_with("is no address"));
        assert!(lines[3].starts_with("test.yaml:10: syslog.patterns[2].regex: the regex has no group"));
        assert!(lines[4].starts_with("test.yaml:12: ban.max_attempts: "));
    }

    #[test]
    fn the_defaults_compile_and_numbers_stay_with_names() {
        let mut publisher = Publisher::new(2, hash_key(1));
        let (settings, first) = publisher.compile(draft("")).unwrap();
        assert!(publisher.compile(draft("ban: {max_attempts: x}")).is_err(), "which uses up no number");
        let one =
            draft("runtime: {shards: 8}\nsyslog: {patterns: [{name: sogo-login, severity: 3, regex: 'from (.*)'}]}");
        let (_, second) = publisher.compile(one).unwrap();
        assert_eq!(publisher.shards(), 2, "a restart away");
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(first.names, second.names);
        assert_eq!((second.matcher.len(), first.matcher.len()), (1, settings.syslog.patterns.len()));
        assert_eq!((first.rules.tracked_max, second.rules.tracked_max), (500_000, 500_000));
    }
    #[test]
    fn what_has_not_changed_is_shared() {
        let mut publisher = Publisher::new(2, hash_key(1));
        let mut policy = |yaml: &str| publisher.compile(draft(yaml)).map(|(_, policy)| policy);
        let first = policy("ban: {whitelist: [10.0.0.0/8, 192.0.2.1], blacklist: [198.51.100.0/24]}").unwrap();
        let second = policy("# moved\nban: {max_attempts: 7, whitelist: [192.0.2.1, 10.0.0.0/8]}").unwrap();
        let shared = |one: &Policy, other: &Policy| {
            let lists = [(&one.allow, &other.allow), (&one.block, &other.block), (&one.senders, &other.senders)];
            (Arc::ptr_eq(&one.matcher, &other.matcher), lists.map(|(one, other)| Arc::ptr_eq(one, other)))
        };
        assert_eq!(shared(&first, &second), (true, [true, false, true]));

        // What a pattern's name stands for is said anew, also after a file that was refused for another fault.
        let pattern = |severity: u8, more: &str| {
            format!("syslog: {{patterns: [{{name: a, severity: {severity}, regex: 'from (.*)'}}]}}\n{more}")
        };
        let first = policy(&pattern(3, "")).unwrap();
        assert!(policy(&pattern(5, "ban: {max_attempts: x}")).is_err());
        let second = policy(&pattern(3, "")).unwrap();
        assert_eq!(first.names, second.names);
        assert_eq!(shared(&first, &second), (false, [true, true, true]));
        assert_eq!(shared(&second, &policy(&pattern(3, "ban: {max_attempts: 7}")).unwrap()), (true, [true; 3]));
    }
}

//! From settings to a policy. A file with anything wrong in it is refused whole; of a database, the rows that are wrong are
//! left out.

use super::candidate::{Judge, Judged, Remark};
use super::store::contents::{Contents, ListName, Row, RowFault, TableName, difference, printable};
use super::store::{Lists, sorted};
use crate::config::{
    self, BanSettings, Draft, Fault, Faults, OnUnknown, PatternSettings, Settings, SyslogSettings, Warning,
};
use crate::engine::address::Network;
use crate::engine::ban::{FailureKind, PatternId, Severity};
use crate::engine::escalation::BanRules;
use crate::engine::matcher::Matcher;
use crate::engine::policy::{PatternName, Policy, QuestionRules};
use crate::engine::table::{HashKey, NetworkTable};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Compiles policies and numbers them, and gives every pattern name a number for the life of the process.
///
/// What did not change since the last policy is taken from it: a new pattern does not build a million networks anew.
#[derive(Debug)]
pub struct Publisher {
    /// How many shards there are, if the settings do not say.
    cores: usize,
    /// How many there are for good, once there is a policy.
    shards: Option<usize>,
    /// Whether operators are served on nginx's port, for good once there is a policy.
    serves_operators: Option<bool>,
    hash: HashKey,
    policies: u64,
    names: Vec<PatternName>,
    ids: HashMap<Arc<str>, PatternId>,
    judge: Judge,
    /// The matcher of the file's patterns.
    of_file: Arc<Matcher>,
    /// What was made of the database's patterns.
    of_rows: Option<OfRows>,
    /// The newest row of `ban_config` that was right.
    good_ban: Option<Row>,
    allow: BuiltList,
    block: BuiltList,
    senders: BuiltList,
}

/// The matcher of the database's patterns, the rows and the settings that it was made of, those rows that were left out,
/// and what is to be said of others.
#[derive(Debug)]
struct OfRows {
    rows: Vec<Row>,
    kinds: Vec<String>,
    strict: bool,
    matcher: Arc<Matcher>,
    faults: Vec<RowFault>,
    warnings: Vec<RowFault>,
}

/// A policy, and what had to be left out of it.
#[derive(Debug)]
pub struct Compiled {
    pub policy: Policy,
    /// Rows of the database that cannot be used, as far as they are named.
    pub faults: Vec<RowFault>,
    /// Patterns of the database that are used, and that a client can steer.
    pub warnings: Vec<RowFault>,
    /// How many by table, where there are any.
    pub faulty: Vec<(TableName, usize)>,
    /// Whether the rules of banning are the database's.
    pub ban_from_database: bool,
}

/// A table of networks, and the lists that it was built from, each sorted and without repetitions.
#[derive(Debug)]
struct BuiltList {
    of: [Arc<Vec<Network>>; 3],
    table: Arc<NetworkTable<()>>,
}

/// A table is built anew when more than one in so many networks changed, for copying it costs about a tenth of that.
const FEW: usize = 16;

impl BuiltList {
    fn new(hash: &HashKey) -> BuiltList {
        BuiltList { of: Default::default(), table: Arc::new(NetworkTable::new(hash.clone())) }
    }

    /// The table of all these lists: the same one as before if they are.
    fn of(&mut self, of: [&Arc<Vec<Network>>; 3], hash: &HashKey) -> Arc<NetworkTable<()>> {
        let of = of.map(Arc::clone);
        // Lists of another length, or the same one: then nothing is compared.
        if self.of != of {
            self.table = Arc::new(self.changed(&of).unwrap_or_else(|| table(of.iter().flat_map(|l| l.iter()), hash)));
            self.of = of;
        }
        Arc::clone(&self.table)
    }

    /// A copy of the table with what is different in these lists, if that is little.
    fn changed(&self, of: &[Arc<Vec<Network>>; 3]) -> Option<NetworkTable<()>> {
        let changes: Vec<_> = self.of.iter().zip(of).map(|(old, new)| difference(old, new)).collect();
        let changed: usize = changes.iter().map(|(added, removed)| added.len() + removed.len()).sum();
        if changed > self.table.len() / FEW {
            return None;
        }
        let mut table = NetworkTable::clone(&self.table);
        for network in changes.iter().flat_map(|(_, removed)| removed) {
            // Another list may still have it.
            if of.iter().all(|list| list.binary_search(network).is_err()) {
                table.remove(*network);
            }
        }
        for network in changes.iter().flat_map(|(added, _)| added) {
            table.insert(*network, ());
        }
        Some(table)
    }
}

fn table<'a>(networks: impl Iterator<Item = &'a Network>, hash: &HashKey) -> NetworkTable<()> {
    let mut table = NetworkTable::new(hash.clone());
    for network in networks {
        table.insert(*network, ());
    }
    table
}

impl Publisher {
    /// For a machine with so many cores. Tables of networks are hashed with `hash`.
    pub fn new(cores: usize, hash: HashKey) -> Publisher {
        Publisher {
            cores: cores.max(1),
            shards: None,
            serves_operators: None,
            policies: 0,
            names: Vec::new(),
            ids: HashMap::new(),
            judge: Judge::default(),
            of_file: Arc::new(Matcher::new(Vec::new())),
            of_rows: None,
            good_ban: None,
            allow: BuiltList::new(&hash),
            block: BuiltList::new(&hash),
            senders: BuiltList::new(&hash),
            hash,
        }
    }

    /// How many shards the policies are for.
    pub fn shards(&self) -> usize {
        self.shards.unwrap_or(self.cores)
    }

    /// Reads the settings from a file and the environment, and compiles the patterns in them.
    ///
    /// # Errors
    ///
    /// All faults of the settings and of all patterns; then everything stays as it was.
    pub fn read(&mut self, path: &Path) -> Result<Settings, Faults> {
        self.take(config::draft(path)?)
    }

    /// The settings and the policy of the file alone, for who has nothing else.
    ///
    /// # Errors
    ///
    /// As [`Publisher::read`].
    pub fn load(&mut self, path: &Path) -> Result<(Settings, Policy), Faults> {
        let settings = self.read(path)?;
        let policy = self.policy(&settings, None, &Lists::default()).policy;
        Ok((settings, policy))
    }

    /// Takes settings that were read, and compiles the patterns in them.
    ///
    /// # Errors
    ///
    /// All faults of the settings and of all patterns; then everything stays as it was.
    pub fn take(&mut self, draft: Draft) -> Result<Settings, Faults> {
        match self.compile_patterns(draft.settings()) {
            Ok((matcher, warnings)) => draft.finish().map(|mut settings| {
                settings.warnings.extend(warnings);
                self.of_file = Arc::new(matcher);
                let wanted = if settings.runtime.shards == 0 { self.cores } else { settings.runtime.shards };
                self.shards.get_or_insert(wanted);
                settings
            }),
            Err(more) => Err(draft.refuse(more)),
        }
    }

    /// The next policy: of the settings that were read last, of the database's contents where there are any, and of the
    /// lists in the local state.
    pub fn policy(&mut self, settings: &Settings, contents: Option<&Contents>, local: &Lists) -> Compiled {
        let mut faults = Vec::new();
        let mut warnings = Vec::new();
        let (ban, ban_from_database) = self.ban(settings, contents, &mut faults);
        let matcher = match contents {
            None => Arc::clone(&self.of_file),
            Some(contents) => {
                let of_rows = self.matcher_of_rows(&contents.patterns, &settings.syslog);
                faults.extend(of_rows.faults.iter().cloned());
                warnings.extend(of_rows.warnings.iter().cloned());
                let matcher = Arc::clone(&of_rows.matcher);
                if contents.patterns_more > 0 {
                    let (read, more) = (contents.patterns.len(), contents.patterns_more);
                    faults.push(RowFault {
                        table: TableName::Patterns,
                        row: String::new(),
                        column: String::new(),
                        message: format!("only the first {read} rows are read; {more} more are left out"),
                    });
                }
                matcher
            }
        };
        let (file, none) = (Lists::of_file(settings), Arc::default());
        let lists = |list: ListName| {
            let of_database = contents.map_or(&none, |contents| &contents.list(list).networks);
            [file.of(list), of_database, local.of(list)]
        };
        let allow = self.allow.of(lists(ListName::Whitelist), &self.hash);
        let block = self.block.of(lists(ListName::Blacklist), &self.hash);
        let mut faulty: Vec<(TableName, usize)> = Vec::new();
        for table in [TableName::Patterns, TableName::BanConfig] {
            faulty.push((table, faults.iter().filter(|fault| fault.table == table).count()));
        }
        for (table, list) in
            contents.iter().flat_map(|c| [(TableName::Whitelist, &c.whitelist), (TableName::Blacklist, &c.blacklist)])
        {
            faults.extend(list.faults.iter().cloned());
            faulty.push((table, list.faulty));
        }
        self.policies += 1;
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
            tracked_max: ban.max_tracked.div_ceil(self.shards()),
        };
        let senders = Arc::new(sorted(&settings.syslog.allowed_senders));
        let senders = self.senders.of([&senders, &none, &none], &self.hash);
        let networks = |list: &[Network]| table(list.iter(), &self.hash);
        let on_nginx = *self.serves_operators.get_or_insert(settings.api.address.is_none());
        let policy = Policy {
            number: self.policies,
            rules,
            matcher,
            allow,
            block,
            senders,
            names: self.names.clone().into(),
            questions: QuestionRules {
                nginx_trusted_proxies: networks(&settings.nginx.trusted_proxies),
                envoy_trusted_proxies: networks(&settings.envoy.trusted_proxies),
                deny_unknown: settings.nginx.on_unknown == OnUnknown::Deny,
                json: settings.nginx.return_json,
                operators: settings.api.enabled && on_nginx,
            },
        };
        faulty.retain(|(_, count)| *count > 0);
        Compiled { policy, faults, warnings, faulty, ban_from_database }
    }

    /// The rules of banning: the database's, as they are or as they last were right; else the file's.
    fn ban(
        &mut self,
        settings: &Settings,
        contents: Option<&Contents>,
        faults: &mut Vec<RowFault>,
    ) -> (BanSettings, bool) {
        let Some(row) = contents.and_then(|contents| contents.ban.as_ref()) else {
            return (settings.ban.clone(), false);
        };
        match config::ban_of_row(&settings.ban, &columns(row)) {
            Ok(ban) => {
                self.good_ban = Some(row.clone());
                (ban, true)
            }
            Err(more) => {
                faults.extend(more.into_iter().map(|fault| row_fault(TableName::BanConfig, "default", fault)));
                let good = self.good_ban.as_ref().and_then(|row| config::ban_of_row(&settings.ban, &columns(row)).ok());
                match good {
                    Some(ban) => (ban, true),
                    None => (settings.ban.clone(), false),
                }
            }
        }
    }

    /// The row of `ban_config` that an earlier run found right.
    pub fn know_ban(&mut self, row: Option<Row>) {
        self.good_ban = row;
    }

    /// The newest row of `ban_config` that was right.
    pub fn good_ban(&self) -> Option<Row> {
        self.good_ban.clone()
    }

    /// What was made of the database's patterns: what there is already, if they and what decides about them are the same.
    fn matcher_of_rows(&mut self, rows: &[Row], settings: &SyslogSettings) -> &OfRows {
        let SyslogSettings { kinds, strict, .. } = settings;
        let is_same = |of: &OfRows| of.rows == rows && of.kinds == *kinds && of.strict == *strict;
        let made = match self.of_rows.take().filter(is_same) {
            Some(known) => known,
            None => self.compile_rows(rows, settings),
        };
        self.of_rows.insert(made)
    }

    fn compile_rows(&mut self, rows: &[Row], settings: &SyslogSettings) -> OfRows {
        let SyslogSettings { kinds, strict, .. } = settings;
        let mut patterns = Vec::new();
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        let mut taken: HashSet<String> = HashSet::new();
        for row in rows {
            let columns = columns(row);
            let value = |name: &str| columns.iter().find(|(column, _)| *column == name).and_then(|(_, value)| *value);
            let name = printable(value("name").unwrap_or_default());
            let settings = match config::pattern_of_row(&columns) {
                // Switched off, it may be as wrong as it likes.
                _ if is_off(value("enabled")) => continue,
                Ok(settings) => with_named_group(settings),
                Err(more) => {
                    faults.extend(more.into_iter().map(|fault| row_fault(TableName::Patterns, &name, fault)));
                    continue;
                }
            };
            let fault = |Remark { key, message }| RowFault {
                table: TableName::Patterns,
                row: name.clone(),
                column: key.to_owned(),
                message,
            };
            if !taken.insert(settings.name.clone()) {
                faults.push(fault(Remark { key: "name", message: "is the name of an earlier row too".to_owned() }));
                continue;
            }
            match self.compile_pattern(&settings, *strict) {
                Ok(judged) if is_used(&settings, kinds) => {
                    warnings.extend(judged.warnings.into_iter().map(fault));
                    patterns.push(judged.pattern);
                }
                Ok(_) => {}
                Err(more) => faults.extend(more.into_iter().map(fault)),
            }
        }
        let matcher = Arc::new(Matcher::new(patterns));
        OfRows { rows: rows.to_vec(), kinds: kinds.clone(), strict: *strict, matcher, faults, warnings }
    }

    /// The matcher of the file's patterns, and what is to be said of those that can be used.
    fn compile_patterns(&mut self, settings: &Settings) -> Result<(Matcher, Vec<Warning>), Vec<Fault>> {
        let SyslogSettings { patterns: listed, kinds, strict, .. } = &settings.syslog;
        let mut patterns = Vec::new();
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        for (index, settings) in listed.iter().enumerate() {
            if settings.name.is_empty() || settings.regex.is_empty() {
                // That there is none was said already.
                continue;
            }
            let place = |key| (PatternSettings::key(index, key), settings.line_of(key));
            match self.compile_pattern(settings, *strict) {
                Ok(judged) => {
                    let said = judged.warnings.into_iter().filter(|_| settings.enabled);
                    warnings.extend(said.map(|Remark { key, message }| {
                        let (key, line) = place(key);
                        Warning { key, line, message }
                    }));
                    // One that is switched off must compile too: it will be switched on at three in the morning.
                    patterns.extend(is_used(settings, kinds).then_some(judged.pattern));
                }
                Err(more) => faults.extend(more.into_iter().map(|Remark { key, message }| {
                    let (key, line) = place(key);
                    Fault { key, line, message }
                })),
            }
        }
        if faults.is_empty() { Ok((Matcher::new(patterns), warnings)) } else { Err(faults) }
    }

    /// Compiles one pattern, or says what is wrong with which of its keys.
    fn compile_pattern(&mut self, settings: &PatternSettings, strict: bool) -> Result<Judged, Vec<Remark>> {
        // That it is one was seen when it was read.
        let severity = Severity::new(settings.severity).unwrap_or(Severity::LEAST);
        let id = self.id(&settings.name, severity, Some(settings.kind)).ok_or_else(|| {
            let most = PatternId::MAX;
            let message = format!("there have been more than {most} names of patterns; restart the program");
            vec![Remark { key: "name", message }]
        })?;
        self.judge.judge(id, settings, strict)
    }

    /// How many names there are.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// The number of a name that a stored ban has. When there have been too many names, the last one stands for all others.
    pub fn know(&mut self, name: &str, severity: Severity) -> PatternId {
        let known = self.ids.get(name).copied();
        let last = || PatternId::new(PatternId::MAX).expect("the highest number is one");
        known.or_else(|| self.id(name, severity, None)).unwrap_or_else(last)
    }

    fn id(&mut self, name: &str, severity: Severity, kind: Option<FailureKind>) -> Option<PatternId> {
        if let Some(id) = self.ids.get(name) {
            if let Some(known) = self.names.get_mut(id.number() as usize) {
                known.severity = severity;
                known.kind = kind;
            }
            return Some(*id);
        }
        let id = PatternId::new(u32::try_from(self.names.len()).ok()?)?;
        let name: Arc<str> = name.into();
        self.names.push(PatternName { name: Arc::clone(&name), severity, kind });
        self.ids.insert(name, id);
        Some(id)
    }
}

fn columns(row: &Row) -> Vec<(&str, Option<&str>)> {
    row.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect()
}

fn row_fault(table: TableName, row: &str, fault: config::RowFault) -> RowFault {
    RowFault { table, row: row.to_owned(), column: fault.column, message: fault.message }
}

/// A row says `ip_group` 1 when it says nothing. Where there is a group of that name, that one is meant.
fn with_named_group(settings: PatternSettings) -> PatternSettings {
    let named = ["(?P<ip>", "(?<ip>", "<IP>", "<HOST>"].iter().any(|group| settings.regex.contains(group));
    match settings.ip_group {
        Some(1) if named => PatternSettings { ip_group: None, ..settings },
        _ => settings,
    }
}

/// Whether a pattern is used: it is switched on, and so is its kind.
fn is_used(pattern: &PatternSettings, kinds: &[String]) -> bool {
    pattern.enabled && kinds.iter().any(|kind| kind == pattern.kind.name())
}

/// Whether a row says that it is switched off.
fn is_off(enabled: Option<&str>) -> bool {
    enabled.is_some_and(|text| matches!(text.trim(), "0" | "f" | "false"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::contents::ListName;
    use crate::engine::table::hash_key;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn draft(yaml: &str) -> Draft {
        Draft::parse("test.yaml", yaml, std::iter::empty())
    }

    #[test]
    fn every_faulty_pattern_is_named_with_its_line() {
        let yaml = "syslog:\n  patterns:\n  - name: a\n    regex: '('\n  - name: b\n    regex: 'from (\\S+)'\n    examples: ['x: hello', \
             'x: from here']\n  - name: c\n    enabled: false\n    regex: none\nban:\n  max_attempts: x\n";
        let faults = Publisher::new(2, hash_key(1)).take(draft(yaml)).unwrap_err();
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
        let settings = publisher.take(draft("")).unwrap();
        let first = publisher.policy(&settings, None, &Lists::default()).policy;
        assert!(publisher.take(draft("ban: {max_attempts: x}")).is_err(), "which changes nothing");
        let one =
            draft("runtime: {shards: 8}\nsyslog: {patterns: [{name: sogo-login, severity: 3, regex: 'from (.*)'}]}");
        let settings_of_one = publisher.take(one).unwrap();
        let second = publisher.policy(&settings_of_one, None, &Lists::default()).policy;
        assert_eq!(publisher.shards(), 2, "a restart away");
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(first.names, second.names);
        let used = settings.syslog.patterns.iter().filter(|p| p.enabled && p.kind != FailureKind::Probe).count();
        assert_eq!((second.matcher.len(), first.matcher.len()), (1, used));
        assert_eq!(first.kind(PatternId::FIRST), Some(FailureKind::Auth));
        assert_eq!((first.rules.tracked_max, second.rules.tracked_max), (500_000, 500_000));
    }

    #[test]
    fn kinds_and_strictness_decide_what_is_used() {
        let mut publisher = Publisher::new(2, hash_key(1));
        let listed = "patterns: [{name: a, regex: '^from <IP>$', kind: probe}, {name: b, regex: 'from <IP>'}]";
        let mut used = |more: &str| {
            let settings = publisher.take(draft(&format!("syslog: {{{listed}{more}}}")))?;
            let warned = settings.warnings.iter().filter(|warning| warning.key == "syslog.patterns[1].regex").count();
            let policy = publisher.policy(&settings, None, &Lists::default()).policy;
            Ok::<_, Faults>((policy.matcher.len(), warned))
        };
        assert_eq!(used("").unwrap(), (1, 1));
        assert_eq!(used(", kinds: [auth, probe]").unwrap(), (2, 1));
        let faults = used(", strict: true").unwrap_err().to_string();
        assert!(
            faults.starts_with("test.yaml:1: syslog.patterns[1].regex: a client can have another one banned"),
            "{faults}"
        );
        let built_in = Settings::default().syslog.patterns.len();
        let with_more = publisher.take(draft(&format!("syslog: {{{listed}, with_default_patterns: true}}"))).unwrap();
        assert_eq!(with_more.syslog.patterns.len(), built_in + 2);
    }

    #[test]
    fn a_row_that_can_be_steered_is_warned_of_or_left_out() {
        let mut publisher = Publisher::new(2, hash_key(1));
        let contents = Contents { patterns: vec![pattern("open", "from (\\S+)", "true")], ..Contents::default() };
        let mut settings = publisher.take(draft("")).unwrap();
        let compiled = publisher.policy(&settings, Some(&contents), &Lists::default());
        assert_eq!((compiled.policy.matcher.len(), compiled.faults.len(), compiled.warnings.len()), (1, 0, 1));
        settings.syslog.strict = true;
        let compiled = publisher.policy(&settings, Some(&contents), &Lists::default());
        assert_eq!((compiled.policy.matcher.len(), compiled.faults.len(), compiled.warnings.len()), (0, 1, 0));
    }

    fn row(columns: &[(&str, &str)]) -> Row {
        columns.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect()
    }

    fn pattern(name: &str, regex: &str, enabled: &str) -> Row {
        let plain = [("name", name), ("regex", regex), ("ip_group", "1"), ("severity", "3"), ("enabled", enabled)];
        row(&plain)
    }

    #[test]
    fn faulty_rows_are_left_out_and_named() {
        let mut publisher = Publisher::new(2, hash_key(1));
        let settings = publisher.take(draft("")).unwrap();
        let mut contents = Contents {
            patterns: vec![
                pattern("good", "from (\\S+)", "true"),
                pattern("broken", "(", "true"),
                pattern("off", "(", "false"),
                pattern("good", "at (\\S+)", "true"),
            ],
            ban: Some(row(&[("max_attempts", "3"), ("initial_ban_time_seconds", "600")])),
            ..Contents::default()
        };
        let Compiled { policy, faults, faulty, ban_from_database, .. } =
            publisher.policy(&settings, Some(&contents), &Lists::default());
        assert_eq!(policy.matcher.len(), 1);
        let rows: Vec<_> = faults.iter().map(|fault| (fault.row.as_str(), fault.column.as_str())).collect();
        assert_eq!(rows, [("broken", "regex"), ("good", "name")]);
        assert_eq!(faulty, [(TableName::Patterns, 2)]);
        assert!(ban_from_database);
        assert_eq!((policy.rules.threshold, policy.rules.initial.as_secs()), (3, 600));

        // Rules that are wrong: those before stay, and the patterns are not compiled again.
        contents.ban = Some(row(&[("max_attempts", "none")]));
        let again = publisher.policy(&settings, Some(&contents), &Lists::default());
        assert_eq!((again.policy.rules.threshold, again.ban_from_database), (3, true));
        assert_eq!(again.faulty, [(TableName::Patterns, 2), (TableName::BanConfig, 1)]);
        assert!(Arc::ptr_eq(&again.policy.matcher, &policy.matcher));
        // Without a row, the file's count.
        contents.ban = None;
        assert_eq!(
            publisher.policy(&settings, Some(&contents), &Lists::default()).policy.rules.threshold,
            settings.ban.max_attempts
        );
    }

    #[test]
    fn lists_of_the_file_the_database_and_the_local_state_are_one() {
        let mut publisher = Publisher::new(2, hash_key(1));
        let settings = publisher.take(draft("ban: {whitelist: [10.0.0.0/8], blacklist: [192.0.2.0/24]}")).unwrap();
        let mut contents = Contents::default();
        contents.set_list(ListName::Blacklist, vec![Network::parse("198.51.100.7").unwrap()]);
        let mut local = Lists::default();
        local.insert(ListName::Blacklist, Network::parse("203.0.113.0/24").unwrap());
        let first = publisher.policy(&settings, Some(&contents), &local).policy;
        assert_eq!((first.allow.len(), first.block.len()), (1, 3));
        let second = publisher.policy(&settings, Some(&contents), &local).policy;
        assert!(Arc::ptr_eq(&first.block, &second.block) && Arc::ptr_eq(&first.allow, &second.allow));
        assert_eq!(publisher.policy(&settings, None, &local).policy.block.len(), 2);
    }

    proptest! {
        /// However they change, and whether the table is copied or built anew.
        #[test]
        fn the_table_is_what_its_lists_are_together(
            steps in prop::collection::vec(prop::array::uniform3(prop::collection::btree_set(0..200u8, 0..120)), 1..6),
            small in prop::collection::vec((0..3usize, 0..200u8), 0..20),
        ) {
            let mut built = BuiltList::new(&hash_key(1));
            let mut sets = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
            let changes = steps.into_iter().map(Ok).chain(small.into_iter().map(Err));
            for change in changes {
                match change {
                    Ok(new) => sets = new,
                    Err((list, n)) if !sets[list].remove(&n) => drop(sets[list].insert(n)),
                    Err(_) => {}
                }
                let network = |n: &u8| Network::parse(&format!("10.0.{n}.0/{}", 20 + n % 13)).unwrap();
                let lists = sets.each_ref().map(|set| Arc::new(sorted(&set.iter().map(network).collect::<Vec<_>>())));
                let table = built.of(lists.each_ref(), &hash_key(1));
                let have: BTreeSet<Network> = table.iter().map(|(network, ())| network).collect();
                let want: BTreeSet<Network> = sets.iter().flatten().map(network).collect();
                prop_assert_eq!(have, want);
            }
        }
    }
}

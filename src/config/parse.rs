//! From a text and an environment to [`Settings`], or to everything that is wrong with them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::LazyLock;

use super::credentials::{read_tokens, read_users};
use super::duration::print_duration;
use super::fault::{ENVIRONMENT_PREFIX, Fault, Faults, Warning, printable, quoted};
use super::kind::{Kind, Spot, Value, found};
use super::settings::{BanSettings, PatternSettings, Settings};
use super::suggest;
use super::table::{Absent, PATTERN_KEYS, Reload, SECTIONS, SETTINGS, Setting, blank};
use super::yaml::{self, Content, Entry, Node};
use crate::engine::address::{Address, Network};

/// Reads the settings from the text of a file and from environment variables, of which those that do not begin with
/// `FAIL2BAN_` are passed over. A variable beats the file, the file beats the default. Pure: neither is fetched here.
///
/// `source_name` is what the file is called in the faults.
///
/// # Errors
///
/// All faults of both, in the order of the lines.
///
/// ```
/// use mailfail2ban::config::parse;
/// let settings = parse("config.yaml", "ban:\n  max_attempts: 3\n", std::iter::empty()).unwrap();
/// assert_eq!(settings.ban.max_attempts, 3);
///
/// let faults = parse("config.yaml", "ban:\n  max_attempt: 3\n", std::iter::empty()).unwrap_err();
/// assert_eq!(
///     faults.to_string(),
///     "config.yaml:2: ban.max_attempt: there is no such setting; did you mean `ban.max_attempts`?"
/// );
/// ```
pub fn parse(
    source_name: &str,
    yaml: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Settings, Faults> {
    Draft::parse(source_name, yaml, environment).finish()
}

/// Settings that were read, with the faults found so far. Who can find more than this room knows of (patterns are compiled
/// elsewhere) looks at the draft before it is finished, so that all faults are in one report.
#[derive(Debug)]
pub struct Draft {
    source: String,
    settings: Settings,
    faults: Vec<Fault>,
}

impl Draft {
    /// Reads as [`parse`] does.
    pub fn parse(source_name: &str, yaml: &str, environment: impl Iterator<Item = (String, String)>) -> Draft {
        let Reading { settings, faults, .. } = read(yaml, environment);
        Draft { source: source_name.to_owned(), settings, faults }
    }

    /// What could be read; where something was wrong, it has its default or what was right of it. Not for use.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings, for use.
    ///
    /// # Errors
    ///
    /// If there were faults.
    pub fn finish(self) -> Result<Settings, Faults> {
        if self.faults.is_empty() { Ok(self.settings) } else { Err(self.refuse(Vec::new())) }
    }

    /// The faults, and more that were found.
    pub fn refuse(self, more: Vec<Fault>) -> Faults {
        Faults::new(self.source, self.faults.into_iter().chain(more).collect())
    }
}

fn read(yaml: &str, environment: impl Iterator<Item = (String, String)>) -> Reading {
    let mut reading = Reading { settings: Settings::default(), given: BTreeMap::new(), faults: Vec::new() };
    match yaml::read(yaml) {
        Ok(root) => reading.read_file(&root),
        Err(fault) => reading.faults.push(fault),
    }
    // Sorted, so that the same mistakes give the same report; of a name that comes twice the later one counts.
    let environment: BTreeMap<String, String> =
        environment.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)).collect();
    for (name, text) in &environment {
        reading.read_variable(name, text);
    }
    reading.relate();
    reading
}

/// The keys whose values differ and that a running server cannot take over: they need a restart.
pub fn restart_needed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    // A place is where a value can be written, so both are looked at in copies.
    let (mut old, mut new) = (old.clone(), new.clone());
    SETTINGS
        .iter()
        .filter(|row| row.reload == Reload::Restart && (row.place)(&mut old) != (row.place)(&mut new))
        .map(|row| row.key)
        .collect()
}

/// The defaults of the table: what an empty file and an empty environment mean.
impl Default for Settings {
    fn default() -> Settings {
        let mut settings = blank();
        fill(SETTINGS, &mut settings);
        // Their lines are of a file that the operator does not have.
        for pattern in &mut settings.syslog.patterns {
            pattern.line = None;
            pattern.key_lines.clear();
        }
        settings
    }
}

/// The patterns that apply when the file gives none.
static BUILT_IN: LazyLock<Vec<PatternSettings>> = LazyLock::new(|| Settings::default().syslog.patterns);

impl PatternSettings {
    /// Whether it says what one of the built-in patterns says.
    pub fn is_built_in(&self) -> bool {
        BUILT_IN.contains(self)
    }
}

/// Writes the defaults of the rows into `target`.
pub(super) fn fill<T>(rows: &[Setting<T>], target: &mut T) {
    for row in rows {
        let Absent::Default(text) = row.absent else { continue };
        let mut faults = Vec::new();
        let spot = Spot { key: row.key.to_owned(), line: Some(1) };
        let value = match yaml::read(text) {
            Ok(node) => read_value(row.kind, &node, &spot, &mut faults),
            Err(fault) => {
                faults.push(fault);
                None
            }
        };
        let Some(value) = value else { unreachable!("the table's own default is wrong: {faults:?}") };
        value.store((row.place)(target));
    }
}

pub(super) fn read_value(kind: Kind, node: &Node, spot: &Spot, faults: &mut Vec<Fault>) -> Option<Value> {
    match kind {
        Kind::Patterns => read_patterns(node, spot, faults).map(Value::Patterns),
        Kind::Users => read_users(node, spot, faults).map(Value::Users),
        Kind::Tokens => read_tokens(node, spot, faults).map(Value::Tokens),
        _ => kind.read(node, spot, faults),
    }
}

/// Where a setting was given, by the file or by a variable that overrides it.
struct Given {
    spot: Spot,
    /// Whether the value was right. Nothing further is said about one that was not.
    right: bool,
}

struct Reading {
    settings: Settings,
    given: BTreeMap<&'static str, Given>,
    faults: Vec<Fault>,
}

impl Reading {
    fn read_file(&mut self, root: &Node) {
        let entries = match &root.content {
            Content::Nothing => return,
            Content::Mapping(entries) => entries,
            other => {
                self.faults.push(Fault {
                    key: String::new(),
                    line: Some(root.line.unwrap_or(1)),
                    message: format!("expected sections like `ban:`, found {}", found(other)),
                });
                return;
            }
        };
        for entry in once_each(entries, "", true, &mut self.faults) {
            let spot = Spot { key: printable(&entry.key), line: Some(entry.line) };
            if sections().any(|name| name == entry.key) {
                self.read_section(&entry.key, entry, &spot);
            } else {
                self.faults.push(spot.fault(unknown_section(&entry.key)));
            }
        }
    }

    /// Reads a section or a group of keys within one, which is called `name`.
    fn read_section(&mut self, name: &str, section: &Entry, spot: &Spot) {
        let entries = match &section.value.content {
            // `ban:` above settings that are all commented out.
            Content::Nothing => return,
            Content::Mapping(entries) => entries,
            other => {
                let message = format!("expected settings below it, found {}", found(other));
                self.faults.push(spot.fault(message));
                return;
            }
        };
        let prefix = format!("{name}.");
        for entry in once_each(entries, &prefix, true, &mut self.faults) {
            let key = format!("{prefix}{}", entry.key);
            let spot = Spot { key: format!("{prefix}{}", printable(&entry.key)), line: Some(entry.line) };
            if let Some(row) = SETTINGS.iter().find(|row| row.key == key) {
                self.read_setting(row, &entry.value, spot);
            } else if groups(name).any(|group| group == entry.key) {
                self.read_section(&key, entry, &spot);
            } else {
                self.faults.push(spot.fault(unknown_setting(name, &entry.key)));
            }
        }
    }

    fn read_setting(&mut self, row: &Setting<Settings>, node: &Node, spot: Spot) {
        let value = read_value(row.kind, node, &spot, &mut self.faults);
        self.given.insert(row.key, Given { spot, right: value.is_some() });
        if let Some(value) = value {
            value.store((row.place)(&mut self.settings));
        }
    }

    fn read_variable(&mut self, name: &str, text: &str) {
        let Some(row) = SETTINGS.iter().find(|row| row.environment_name() == name) else {
            self.settings.warnings.push(Warning { key: printable(name), line: None, message: unknown_variable(name) });
            return;
        };
        let spot = Spot { key: name.to_owned(), line: None };
        if text.trim().is_empty() && !row.kind.may_be_empty() {
            let message = format!("is empty: expected {}, or unset it for the default", row.kind.expected());
            self.faults.push(spot.fault(message));
            self.given.insert(row.key, Given { spot, right: false });
            return;
        }
        if row.kind == Kind::Port && is_service_link(text) {
            self.settings.warnings.push(Warning {
                key: spot.key,
                line: None,
                message: "this is what Kubernetes sets for a service of that name, not a port; it is ignored \
                          (enableServiceLinks: false keeps it away)"
                    .to_owned(),
            });
            return;
        }
        let node = match row.kind {
            // These are more than commas can separate: the variable holds them as the file would.
            Kind::Patterns | Kind::Tokens if text.trim().is_empty() => {
                Node { line: None, content: Content::List(Vec::new()) }
            }
            Kind::Patterns | Kind::Users | Kind::Tokens => match yaml::read(text) {
                Ok(node) => node,
                Err(fault) => {
                    self.faults.push(spot.fault(fault.message));
                    self.given.insert(row.key, Given { spot, right: false });
                    return;
                }
            },
            kind => kind.node_of_variable(text),
        };
        self.read_setting(row, &node, spot);
    }

    /// What must hold between settings, checked where each of them is right by itself.
    fn relate(&mut self) {
        if self.settings.syslog.with_default_patterns {
            let listed = &self.settings.syslog.patterns;
            let is_listed = |other: &PatternSettings| listed.iter().any(|pattern| pattern.name == other.name);
            let more: Vec<_> = BUILT_IN.iter().filter(|other| !is_listed(other)).cloned().collect();
            self.settings.syslog.patterns.extend(more);
        }
        let Settings { syslog, spoa, envoy, nginx, ban, database, prometheus, api, .. } = &self.settings;

        let times = ["ban.max_ban_time", "ban.initial_ban_time"];
        if let Some(message) = ban_times_fault(ban, times).filter(|_| self.all_right(&times)) {
            self.faults.push(self.blamed(&times).fault(message));
        }

        let place = ["database.dsn", "database.driver", "database.enabled"];
        if database.enabled
            && self.all_right(&place)
            && let Err(fault) = database.target()
        {
            let message = match self.given.contains_key("database.dsn") {
                true => fault.to_string(),
                false => format!("needs `database.dsn` as well: {}", database.driver.dsn_example()),
            };
            self.faults.push(self.blamed(&place).fault(message));
        }

        let listeners: [(Option<SocketAddr>, &[&'static str]); 6] = [
            (syslog.listen_tcp(), &["syslog.address", "syslog.protocol"]),
            (spoa.listen_tcp(), &["spoa.port", "spoa.address", "spoa.enabled"]),
            (envoy.listen_tcp(), &["envoy.port", "envoy.address", "envoy.enabled"]),
            (nginx.listen_tcp(), &["nginx.port", "nginx.address", "nginx.enabled"]),
            (prometheus.listen_tcp(), &["prometheus.port", "prometheus.address", "prometheus.enabled"]),
            (api.listen_tcp(), &["api.port", "api.address", "api.enabled"]),
        ];
        let mut clashes = Vec::new();
        for (index, (later, later_keys)) in listeners.iter().enumerate() {
            for (earlier, earlier_keys) in listeners.iter().take(index) {
                let (Some(earlier), Some(later)) = (*earlier, *later) else { continue };
                let keys = [*later_keys, *earlier_keys].concat();
                if overlap(earlier, later) && self.all_right(&keys) {
                    let name = |keys: &[&'static str]| keys.first().and_then(|key| key.split('.').next()).unwrap_or("");
                    let message = format!(
                        "`{}` would listen on {later} and `{}` on {earlier}: give one of them another port",
                        name(later_keys),
                        name(earlier_keys)
                    );
                    clashes.push(self.blamed(&keys).fault(message));
                }
            }
        }

        let sockets: [(Option<&str>, &'static str); 3] = [
            (spoa.listen_unix(), "spoa.socket"),
            (envoy.listen_unix(), "envoy.socket"),
            (nginx.listen_unix(), "nginx.socket"),
        ];
        for (index, (later, later_key)) in sockets.iter().enumerate() {
            for (earlier, earlier_key) in sockets.iter().take(index) {
                if later.is_some() && later == earlier {
                    let message =
                        format!("`{later_key}` and `{earlier_key}` are the same path: give one of them another");
                    clashes.push(self.blamed(&[later_key, earlier_key]).fault(message));
                }
            }
        }

        let (api_faults, api_warnings) = self.relate_api();
        clashes.extend(api_faults);

        let mut warnings = api_warnings;
        if !syslog.address.ip().to_canonical().is_loopback()
            && syslog.allowed_senders.is_empty()
            && self.all_right(&["syslog.address", "syslog.allowed_senders"])
        {
            let spot = self.blamed(&["syslog.allowed_senders", "syslog.address"]);
            warnings.push(Warning {
                key: "syslog.allowed_senders".to_owned(),
                line: spot.line,
                message: format!(
                    "is empty, so whoever reaches {} can have anybody banned: name the senders",
                    syslog.address
                ),
            });
        }
        if !syslog.patterns.iter().any(|pattern| pattern.enabled) && self.all_right(&["syslog.patterns"]) {
            let spot = self.blamed(&["syslog.patterns"]);
            warnings.push(Warning {
                key: spot.key,
                line: spot.line,
                message: "no pattern is enabled, so no failed login will be recognised".to_owned(),
            });
        }
        self.faults.extend(clashes);
        self.settings.warnings.extend(warnings);
    }

    /// What must hold between the settings of the API, and what is likely not meant.
    fn relate_api(&self) -> (Vec<Fault>, Vec<Warning>) {
        let api = &self.settings.api;
        let basic = &api.basic_auth;
        let keys = [
            "api.basic_auth.users",
            "api.basic_auth.username",
            "api.basic_auth.password",
            "api.basic_auth.enabled",
            "api.tokens",
            "api.allowed_ips",
            "api.enabled",
        ];
        if !api.enabled || !self.all_right(&keys) {
            return (Vec::new(), Vec::new());
        }
        let of_first = ["api.basic_auth.username", "api.basic_auth.password"];
        let (no_name, no_password) = (basic.username.is_empty(), basic.password.reveal().is_empty());
        let fault = if !basic.enabled {
            None
        } else if no_name && no_password && basic.users.is_empty() {
            let message = "needs a user: set `api.basic_auth.username` and `api.basic_auth.password`, or \
                           `api.basic_auth.users`";
            Some(self.blamed(&["api.basic_auth.enabled"]).fault(message))
        } else if no_name != no_password {
            let [name, password] = of_first;
            let (given, missing) = if no_name { (password, name) } else { (name, password) };
            Some(self.blamed(&[given]).fault(format!("needs `{missing}` as well")))
        } else if basic.users.iter().any(|user| user.name == basic.username) {
            let message = format!("{} has two passwords, here and in `api.basic_auth.users`", quoted(&basic.username));
            Some(self.blamed(&of_first).fault(message))
        } else {
            None
        };

        let mut warnings = Vec::new();
        let mut warn = |key: &'static str, message: &str| {
            let spot = self.blamed(&[key]);
            warnings.push(Warning { key: spot.key, line: spot.line, message: message.to_owned() });
        };
        let given = !no_name || !no_password || !basic.users.is_empty();
        if given && !basic.enabled {
            warn("api.basic_auth.enabled", "is false, so nobody is asked for a password, though there are users");
        }
        let is_local = |network: &Network| {
            let base = Address::from(network.base());
            network.len() >= 8 && base.ip().is_loopback()
        };
        if !api.allowed_ips.iter().all(is_local) && !basic.enabled && api.tokens.is_empty() {
            let message = "is wider than this machine, and there is neither a password nor a token: whoever comes from \
                           there can ban anybody";
            warn("api.allowed_ips", message);
        }
        (fault.into_iter().collect(), warnings)
    }

    fn all_right(&self, keys: &[&'static str]) -> bool {
        keys.iter().all(|key| self.given.get(key).is_none_or(|given| given.right))
    }

    /// The place to point at for a fault between settings: the first of `keys` that the operator gave. Defaults agree
    /// with each other, so there is one.
    fn blamed(&self, keys: &[&'static str]) -> Spot {
        keys.iter().find_map(|key| self.given.get(key)).map_or_else(
            || Spot { key: keys.first().copied().unwrap_or_default().to_owned(), line: None },
            |given| given.spot.clone(),
        )
    }
}

/// What is wrong between the lengths of the longest and of the first ban, which are called by `names`.
pub(super) fn ban_times_fault(ban: &BanSettings, [max, initial]: [&str; 2]) -> Option<String> {
    (ban.max_ban_time < ban.initial_ban_time).then(|| {
        let (max_time, initial_time) = (print_duration(ban.max_ban_time), print_duration(ban.initial_ban_time));
        format!("`{max}` ({max_time}) must not be shorter than `{initial}` ({initial_time})")
    })
}

/// The entries, without those whose key has come before, which are faults. What YAML readers make of a key that comes
/// twice differs (YAML 1.2.2 §3.2.1.3 forbids it), so it is never what everybody expects.
///
/// `in_file` is whether the entries' lines are those of the file.
pub(super) fn once_each<'a>(
    entries: &'a [Entry],
    prefix: &str,
    in_file: bool,
    faults: &mut Vec<Fault>,
) -> Vec<&'a Entry> {
    let mut first_lines: HashMap<&str, usize> = HashMap::new();
    let mut once = Vec::with_capacity(entries.len());
    for entry in entries {
        match first_lines.get(entry.key.as_str()) {
            None => {
                first_lines.insert(&entry.key, entry.line);
                once.push(entry);
            }
            Some(line) => faults.push(Fault {
                key: format!("{prefix}{}", printable(&entry.key)),
                line: in_file.then_some(entry.line),
                message: format!(
                    "is given twice{}",
                    if in_file { format!("; the first is on line {line}") } else { String::new() }
                ),
            }),
        }
    }
    once
}

/// Reads the list of patterns, or says all that is wrong with it. A single pattern stands for a list of one.
fn read_patterns(node: &Node, spot: &Spot, faults: &mut Vec<Fault>) -> Option<Vec<PatternSettings>> {
    let nodes = match &node.content {
        Content::List(nodes) => nodes,
        Content::Nothing => {
            faults.push(spot.fault(
                "expected a list of patterns, found nothing; leave the key out for the built-in ones, or write [] for \
                 none",
            ));
            return None;
        }
        Content::Mapping(_) => {
            faults.push(spot.fault("expected a list of patterns, found a group of keys; begin each pattern with `-`"));
            return None;
        }
        other => {
            faults.push(spot.fault(format!("expected a list of patterns, found {}", found(other))));
            return None;
        }
    };
    let mut patterns = Vec::with_capacity(nodes.len());
    let mut first_of_name: HashMap<String, String> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let entry =
            Spot { key: format!("{}[{index}]", spot.key), line: spot.line.map(|line| node.line.unwrap_or(line)) };
        let pattern = read_pattern(node, &entry, faults);
        if !pattern.name.is_empty() {
            let line = pattern.line_of("name");
            let place = line.map_or_else(|| entry.key.clone(), |line| format!("line {line}"));
            if let Some(first) = first_of_name.get(&pattern.name) {
                let message = format!("the name \"{}\" is taken by the pattern on {first}", pattern.name);
                faults.push(Spot { key: format!("{}.name", entry.key), line }.fault(message));
            } else {
                first_of_name.insert(pattern.name.clone(), place);
            }
        }
        patterns.push(pattern);
    }
    // Those with faults too, for whoever compiles the regexes that could be read.
    Some(patterns)
}

/// Reads one pattern; what was wrong with it is in `faults`, and has its default.
fn read_pattern(node: &Node, spot: &Spot, faults: &mut Vec<Fault>) -> PatternSettings {
    let mut pattern = PatternSettings::default();
    fill(PATTERN_KEYS, &mut pattern);
    pattern.line = spot.line;
    let Content::Mapping(entries) = &node.content else {
        let message = format!("expected a pattern with `name` and `regex`, found {}", found(&node.content));
        faults.push(spot.fault(message));
        return pattern;
    };
    let prefix = format!("{}.", spot.key);
    let mut given = Vec::with_capacity(entries.len());
    for entry in once_each(entries, &prefix, spot.line.is_some(), faults) {
        let entry_spot =
            Spot { key: format!("{prefix}{}", printable(&entry.key)), line: spot.line.map(|_| entry.line) };
        let Some(row) = PATTERN_KEYS.iter().find(|row| row.key == entry.key) else {
            let names = || PATTERN_KEYS.iter().map(|row| row.key);
            let hint = suggest::nearest(&entry.key, names()).map_or_else(
                || format!("a pattern has {}", names().collect::<Vec<_>>().join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            faults.push(entry_spot.fault(format!("there is no such key; {hint}")));
            continue;
        };
        given.push(row.key);
        if let Some(line) = entry_spot.line {
            pattern.key_lines.insert(row.key, line);
        }
        if let Some(value) = read_value(row.kind, &entry.value, &entry_spot, faults) {
            value.store((row.place)(&mut pattern));
        }
    }
    for row in PATTERN_KEYS {
        if row.absent == Absent::Required && !given.contains(&row.key) {
            let missing = Spot { key: format!("{prefix}{}", row.key), line: spot.line };
            faults.push(missing.fault("is missing; every pattern needs a `name` and a `regex`"));
        }
    }
    pattern
}

/// The names of the sections.
fn sections() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|(name, _)| *name).filter(|name| !name.contains('.'))
}

/// The names of the groups of keys within a section.
fn groups(section: &str) -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().filter_map(move |(name, _)| name.strip_prefix(section)?.strip_prefix('.'))
}

fn unknown_section(name: &str) -> String {
    // `ban.max_attempts: 5`, as the setting is called everywhere but in the file.
    if let Some(row) = SETTINGS.iter().find(|row| row.key == name) {
        return format!("write `{}` below `{}:`", row.name(), row.section());
    }
    if let Some(near) = suggest::nearest(name, sections()) {
        return format!("there is no such section; did you mean `{near}`?");
    }
    if let Some(key) = elsewhere(name) {
        return format!("there is no such section; did you mean `{key}`?");
    }
    format!("there is no such section; there are {}", sections().collect::<Vec<_>>().join(", "))
}

fn unknown_setting(section: &str, name: &str) -> String {
    let here = || SETTINGS.iter().filter(|row| row.section() == section).map(|row| row.name()).chain(groups(section));
    if let Some(near) = suggest::nearest(name, here()) {
        return format!("there is no such setting; did you mean `{section}.{near}`?");
    }
    if let Some(key) = elsewhere(name) {
        return format!("there is no such setting; did you mean `{key}`?");
    }
    format!("there is no such setting; `{section}` has {}", here().collect::<Vec<_>>().join(", "))
}

/// The setting of that very name in whatever section, if there is only one.
fn elsewhere(name: &str) -> Option<&'static str> {
    let mut rows = SETTINGS.iter().filter(|row| row.name() == name);
    let first = rows.next()?;
    rows.next().is_none().then_some(first.key)
}

fn unknown_variable(name: &str) -> String {
    let names: Vec<String> = SETTINGS.iter().map(Setting::environment_name).collect();
    let bare = |name: &str| name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(name).to_owned();
    let bare_names: Vec<String> = names.iter().map(|name| bare(name)).collect();
    match suggest::nearest(&bare(name), bare_names.iter().map(String::as_str)) {
        Some(near) => {
            format!("there is no such setting and the variable is ignored; did you mean {ENVIRONMENT_PREFIX}{near}?")
        }
        None => "there is no such setting and the variable is ignored".to_owned(),
    }
}

/// Whether this is `tcp://10.0.0.1:8888`: Kubernetes sets `FAIL2BAN_NGINX_PORT` to that in every container beside a
/// service called `fail2ban-nginx`, and nobody ever meant it as a port.
fn is_service_link(text: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Whether two listeners cannot both have their address. A wildcard takes the port on every address of its family,
/// and `::` on Linux on IPv4 as well (ipv6(7), IPV6_V6ONLY).
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes = |one: IpAddr, other: IpAddr| {
        one == other
            || one == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            || (one.is_unspecified() && one.is_ipv4() == other.to_canonical().is_ipv4())
    };
    a.port() == b.port() && (takes(a.ip(), b.ip()) || takes(b.ip(), a.ip()))
}

//! The settings as an operator meets them: a file and an environment in, settings or a report out.

use std::time::{Duration, Instant};

use mailfail2ban::config::table::{PATTERN_KEYS, SETTINGS};
use mailfail2ban::config::{
    DatabaseDriver, Driver, Dsn, Fault, LogFormat, LogLevel, OnUnknown, PatternSettings, Protocol, Role, Secret,
    Settings, Token, document, parse, restart_needed,
};
use proptest::prelude::*;

/// Each fault as `line key: message`, with `-` for no line.
fn report(yaml: &str, environment: &[(&str, &str)]) -> Vec<String> {
    match read(yaml, environment) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(shown).collect(),
    }
}

fn shown(fault: &Fault) -> String {
    let line = fault.line.map_or("-".to_owned(), |line| line.to_string());
    format!("{line} {}: {}", fault.key, fault.message)
}

fn read(yaml: &str, environment: &[(&str, &str)]) -> Result<Settings, mailfail2ban::config::Faults> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse("config.yaml", yaml, environment)
}

fn good(yaml: &str) -> Settings {
    read(yaml, &[]).unwrap_or_else(|faults| panic!("{yaml}\n{faults}"))
}

fn with(name: &str, value: &str) -> Settings {
    read("", &[(name, value)]).unwrap_or_else(|faults| panic!("{name}={value}: {faults}"))
}

fn warnings(settings: &Settings) -> Vec<String> {
    settings.warnings.iter().map(ToString::to_string).collect()
}

fn networks(list: &[mailfail2ban::engine::address::Network]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_the_documented_ones() {
    let s = good("");
    assert_eq!(s, Settings::default());
    assert_eq!(s.warnings, []);

    assert_eq!(s.syslog.address.to_string(), "127.0.0.1:5514");
    assert_eq!(s.syslog.protocol, Protocol::Both);
    assert_eq!((s.syslog.max_message_bytes, s.syslog.max_connections), (8192, 1024));
    assert!(s.syslog.allowed_senders.is_empty());

    assert_eq!((s.nginx.address.to_string().as_str(), s.nginx.port, s.nginx.enabled), ("0.0.0.0", 8888, true));
    assert_eq!((s.nginx.read_timeout, s.nginx.write_timeout), (Duration::from_secs(10), Duration::from_secs(10)));
    assert_eq!((s.nginx.return_json, s.nginx.on_unknown), (false, OnUnknown::Allow));
    assert_eq!((s.nginx.trusted_proxies.len(), s.nginx.max_connections), (0, 65536));

    assert_eq!((s.spoa.address.to_string().as_str(), s.spoa.port, s.spoa.enabled), ("0.0.0.0", 12345, true));
    assert_eq!((s.spoa.max_clients, s.spoa.read_timeout), (4096, Duration::from_secs(30)));
    assert_eq!((s.envoy.address.to_string().as_str(), s.envoy.port, s.envoy.enabled), ("0.0.0.0", 9001, true));
    assert_eq!((s.envoy.max_connections, s.envoy.read_timeout), (1024, Duration::from_secs(10)));
    assert_eq!(s.envoy.trusted_proxies, []);
    assert_eq!([s.spoa.listen_unix(), s.envoy.listen_unix(), s.nginx.listen_unix()], [None; 3]);

    assert_eq!(s.ban.initial_ban_time, Duration::from_secs(300));
    assert_eq!(s.ban.max_ban_time, Duration::from_secs(86_400));
    assert_eq!(s.ban.escalation_factor.to_bits(), 2.0_f64.to_bits());
    assert_eq!(s.ban.max_attempts, 5);
    assert_eq!(s.ban.time_window, Duration::from_secs(600));
    assert_eq!(s.ban.cleanup_interval, Duration::from_secs(60));
    assert_eq!(s.ban.max_memory_ttl, Duration::from_secs(72 * 3600));
    assert_eq!((s.ban.ipv4_prefix, s.ban.ipv6_prefix, s.ban.max_tracked), (32, 64, 1_000_000));
    assert_eq!((s.ban.whitelist.len(), s.ban.blacklist.len()), (0, 0));

    let d = &s.database;
    assert_eq!(
        (d.enabled, d.driver, d.dsn.reveal(), d.share_bans),
        (false, DatabaseDriver::Sqlite3, "./fail2ban.db", true)
    );
    assert_eq!(
        (d.refresh_interval, d.max_retries, d.retry_delay),
        (Duration::from_secs(300), 3, Duration::from_secs(5))
    );
    assert_eq!(d.target(), Ok(Dsn::Sqlite { path: "./fail2ban.db".into() }));

    let p = &s.prometheus;
    assert_eq!(
        (p.enabled, p.address.to_string().as_str(), p.port, p.path.as_str()),
        (true, "127.0.0.1", 2112, "/metrics")
    );
    let r = &s.runtime;
    assert_eq!((r.shards, r.pin, r.driver, r.shutdown_deadline), (0, true, Driver::Auto, Duration::from_secs(10)));
    assert_eq!((r.state_dir.as_str(), r.node.as_str()), ("./state", ""));
    assert_eq!((s.log.level, s.log.format), (LogLevel::Info, LogFormat::Auto));

    let api = &s.api;
    assert_eq!((api.enabled, api.address, api.port, api.max_connections), (true, None, 8889, 256));
    assert_eq!(networks(&api.allowed_ips), ["127.0.0.0/8", "::1"]);
    assert_eq!((api.basic_auth.enabled, api.users(), api.tokens.len()), (false, Vec::new(), 0));
    assert_eq!((api.rate_limiting.enabled, api.rate_limiting.requests_per_minute), (true, 60));

    let names: Vec<&str> = s.syslog.patterns.iter().map(|p| p.name.as_str()).collect();
    assert!(["dovecot-login", "postfix-sasl", "sogo-login", "sshd-login"].iter().all(|name| names.contains(name)));
    let off: Vec<&str> = s.syslog.patterns.iter().filter(|p| !p.enabled).map(|p| p.name.as_str()).collect();
    assert_eq!(off, ["roundcube-login-old"]);
    assert_eq!((s.syslog.kinds.as_slice(), s.syslog.strict), (&["auth".to_owned(), "abuse".to_owned()][..], false));
    for pattern in &s.syslog.patterns {
        assert!(!pattern.program.is_empty() && !pattern.versions.is_empty(), "{}", pattern.name);
        assert!(pattern.examples.iter().any(|example| !example.ends_with(" => none")), "{}", pattern.name);
        assert!(pattern.regex.starts_with('^') && pattern.regex.contains("(?P<ip>"), "{}", pattern.name);
        assert_eq!((pattern.ip_group, pattern.weight <= 1, pattern.line), (None, true, None));
        assert!(!pattern.description.is_empty() && !pattern.description.contains('\n'));
    }
}

#[test]
fn the_committed_file_is_the_document_and_means_the_defaults() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.yaml")).unwrap();
    assert_eq!(committed, document(), "write it again with: cargo run -- config > config.yaml");
    let settings = good(&document());
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.warnings, []);
    // The built-in patterns stand nowhere, those of the file have their lines.
    assert_eq!(settings.syslog.patterns[0].line, None);
    let listed = good("syslog:\n  patterns:\n    - name: a\n      regex: '(b)'\n");
    assert_eq!(listed.syslog.patterns[0].line, Some(3));
}

#[test]
fn the_document_has_every_setting_and_fits_a_page() {
    let document = document();
    for row in SETTINGS {
        let indent = "  ".repeat(row.key.matches('.').count());
        // The built-in patterns have a file of their own.
        let hash = if row.key == "syslog.patterns" { "# " } else { "" };
        let begins = format!("{indent}{hash}{}:", row.name());
        assert!(document.lines().any(|line| line.starts_with(&begins)), "{}", row.key);
    }
    for row in PATTERN_KEYS {
        assert!(document.contains(&format!("  #   {}: ", row.key)), "{}", row.key);
    }
    for line in document.lines().filter(|line| line.trim_start().starts_with('#')) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert!(document.lines().all(|line| line.trim_end() == line));
}

#[test]
fn nothing_said_means_the_defaults() {
    for yaml in [
        "",
        "\n",
        "# only a comment\n",
        "---\n",
        "~\n",
        "{}\n",
        "ban:\n",
        "ban: {}\nlog:\n  # level: debug\n",
        "\u{feff}",
    ] {
        assert_eq!(good(yaml), Settings::default(), "{yaml:?}");
    }
}

#[test]
fn a_file_is_read() {
    let s = good(
        "
syslog:
  address: '[::1]:514'
  protocol: tcp
  allowed_senders: [10.0.0.0/8, 2001:db8::/32]
  max_message_bytes: 65507
nginx: { enabled: false, address: '::', port: 80, read_timeout: 1m30s, on_unknown: deny }
ban:
  max_attempts: 3
  escalation_factor: 3
  max_ban_time: 7d
  whitelist: 192.0.2.1
  blacklist:
    - 198.51.100.77/24
    - ::ffff:203.0.113.9
database: {enabled: true, driver: mysql, dsn: 'u:p@tcp(db)/f', max_retries: 0, retry_delay: 1h, share_bans: false}
prometheus: {path: /m}
runtime: {shards: 4, pin: false, driver: io_uring, shutdown_deadline: 0s, state_dir: '', node: mx-1.example_net}
log: {level: debug, format: json}
",
    );
    assert_eq!(s.syslog.address.to_string(), "[::1]:514");
    assert_eq!((s.syslog.listen_tcp().is_some(), s.syslog.listen_udp().is_some()), (true, false));
    assert_eq!(networks(&s.syslog.allowed_senders), ["10.0.0.0/8", "2001:db8::/32"]);
    assert_eq!((s.nginx.enabled, s.nginx.listen_tcp(), s.nginx.port), (false, None, 80));
    assert_eq!((s.nginx.read_timeout, s.nginx.on_unknown), (Duration::from_secs(90), OnUnknown::Deny));
    assert_eq!((s.ban.max_attempts, s.ban.escalation_factor.to_bits()), (3, 3.0_f64.to_bits()));
    assert_eq!(s.ban.max_ban_time, Duration::from_secs(7 * 86_400));
    assert_eq!(networks(&s.ban.whitelist), ["192.0.2.1"]);
    assert_eq!(networks(&s.ban.blacklist), ["198.51.100.0/24", "203.0.113.9"]);
    let Ok(Dsn::Server(server)) = s.database.target() else { panic!("{:?}", s.database) };
    assert_eq!((server.driver, server.to_string().as_str()), (DatabaseDriver::Mysql, "mysql://u@db:3306/f"));
    assert_eq!((s.database.max_retries, s.database.share_bans), (0, false));
    assert_eq!((s.runtime.shards, s.runtime.pin, s.runtime.driver), (4, false, Driver::IoUring));
    assert_eq!((s.runtime.state_dir.as_str(), s.runtime.node.as_str()), ("", "mx-1.example_net"));
    assert_eq!(s.runtime.shutdown_deadline, Duration::ZERO);
    assert_eq!((s.log.level, s.log.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!(s.warnings, []);
}

#[test]
fn wrong_values_say_what_was_found_and_what_is_right() {
    for (yaml, want) in [
        (
            "ban:\n  max_attempts: five\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found the text \"five\"",
        ),
        (
            "ban:\n  max_attempts: 0\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found the number 0",
        ),
        (
            "ban:\n  max_attempts: -1\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found the number -1",
        ),
        (
            "ban:\n  max_attempts: 10001\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found the number 10001",
        ),
        (
            "ban:\n  max_attempts: 5.5\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found the number 5.5",
        ),
        (
            "ban:\n  max_attempts: \"5\"\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found the text \"5\"; leave the quotes out",
        ),
        (
            "ban:\n  max_attempts:\n  max_ban_time: 1d\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found nothing; leave the key out for the default",
        ),
        ("ban:\n  max_attempts: [5]\n", "2 ban.max_attempts: expected a whole number from 1 to 10000, found a list"),
        (
            "ban:\n  max_attempts: {a: 5}\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found a group of keys",
        ),
        ("ban:\n  max_attempts: true\n", "2 ban.max_attempts: expected a whole number from 1 to 10000, found true"),
        (
            "ban:\n  max_attempts: !secret x\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found a value with the tag !secret",
        ),
        (
            "ban:\n  max_attempts: 340282366920938463463374607431768211456\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found the number 3.402823669209385e38",
        ),
        (
            "ban:\n  max_attempts:\n    five\n",
            "2 ban.max_attempts: expected a whole number from 1 to 10000, found the text \"five\"",
        ),
        (
            "ban:\n  escalation_factor: 0.5\n",
            "2 ban.escalation_factor: expected a number from 1 to 100, found the number 0.5",
        ),
        (
            "ban:\n  escalation_factor: .nan\n",
            "2 ban.escalation_factor: expected a number from 1 to 100, found the number NaN",
        ),
        (
            "ban:\n  escalation_factor: .inf\n",
            "2 ban.escalation_factor: expected a number from 1 to 100, found the number inf",
        ),
        (
            "ban:\n  escalation_factor: '2'\n",
            "2 ban.escalation_factor: expected a number from 1 to 100, found the text \"2\"; leave the quotes out",
        ),
        (
            "ban:\n  time_window: 600\n",
            "2 ban.time_window: expected a duration from 1s to 30d, found the number 600 without a unit: write 600s or 10m",
        ),
        (
            "ban:\n  time_window: '600'\n",
            "2 ban.time_window: expected a duration, found the text \"600\": write 600s or 10m",
        ),
        (
            "ban:\n  time_window: 1.5\n",
            "2 ban.time_window: expected a duration from 1s to 30d, found the number 1.5; write whole numbers with units, like 1m30s",
        ),
        (
            "ban:\n  time_window: ten minutes\n",
            "2 ban.time_window: expected a duration, found the text \"ten minutes\"; write it like 90s, 5m, 1h30m or 7d",
        ),
        (
            "ban:\n  time_window: 10min\n",
            "2 ban.time_window: expected a duration, found the text \"10min\": \"min\" is not a unit; there are d, h, m, s and ms",
        ),
        (
            "ban:\n  time_window: 99999999999999999999d\n",
            "2 ban.time_window: expected a duration, found the text \"99999999999999999999d\": that is too long to count",
        ),
        ("ban:\n  time_window: 0s\n", "2 ban.time_window: expected a duration from 1s to 30d, found the text \"0s\""),
        (
            "ban:\n  time_window: -5m\n",
            "2 ban.time_window: expected a duration, found the text \"-5m\"; write it like 90s, 5m, 1h30m or 7d",
        ),
        ("ban:\n  ipv4_prefix: 33\n", "2 ban.ipv4_prefix: expected a whole number from 8 to 32, found the number 33"),
        ("ban:\n  ipv6_prefix: 8\n", "2 ban.ipv6_prefix: expected a whole number from 16 to 128, found the number 8"),
        (
            "ban:\n  max_tracked: 999\n",
            "2 ban.max_tracked: expected a whole number from 1000 to 100000000, found the number 999",
        ),
        (
            "ban:\n  whitelist: [10.0.0.0/8,\n    10.0.0.0/33,\n    host.example, 7]\n",
            "3 ban.whitelist[1]: \"10.0.0.0/33\" is not an address or network: the number of bits after the / can be at most 32\n\
             4 ban.whitelist[2]: \"host.example\" is not an address or network: write it like 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32\n\
             4 ban.whitelist[3]: expected an address or network, found the number 7",
        ),
        (
            "ban:\n  whitelist:\n    - 10.0.0.0/8\n    -\n    - [x]\n    - {a: b}\n    - []\n",
            "2 ban.whitelist[4]: expected an address or network, found a list\n\
             4 ban.whitelist[1]: expected an address or network, found nothing\n\
             5 ban.whitelist[2]: expected an address or network, found a list\n\
             6 ban.whitelist[3]: expected an address or network, found a group of keys",
        ),
        (
            "ban:\n  whitelist: 7\n",
            "2 ban.whitelist: expected a list of addresses and networks, like [192.0.2.1, 10.0.0.0/8], found the number 7",
        ),
        (
            "ban:\n  whitelist: {a: b}\n",
            "2 ban.whitelist: expected a list of addresses and networks, like [192.0.2.1, 10.0.0.0/8], found a group of keys",
        ),
        (
            "syslog:\n  address: 127.0.0.1\n",
            "2 syslog.address: expected an address with a port, like 127.0.0.1:5514 or [::1]:5514, found the text \"127.0.0.1\"; add the port: 127.0.0.1:5514",
        ),
        (
            "syslog:\n  address: '::1'\n",
            "2 syslog.address: expected an address with a port, like 127.0.0.1:5514 or [::1]:5514, found the text \"::1\"; add the port: [::1]:5514",
        ),
        (
            "syslog:\n  address: ':514'\n",
            "2 syslog.address: expected an address with a port, like 127.0.0.1:5514 or [::1]:5514, found the text \":514\"; for every IPv4 address write 0.0.0.0:514",
        ),
        (
            "syslog:\n  address: localhost:514\n",
            "2 syslog.address: expected an address with a port, like 127.0.0.1:5514 or [::1]:5514, found the text \"localhost:514\"; host names are not looked up",
        ),
        (
            "syslog:\n  address: 127.0.0.1:0\n",
            "2 syslog.address: expected an address with a port, like 127.0.0.1:5514 or [::1]:5514, found the text \"127.0.0.1:0\"; a port is from 1 to 65535",
        ),
        (
            "syslog:\n  address: 514\n",
            "2 syslog.address: expected an address with a port, like 127.0.0.1:5514 or [::1]:5514, found the number 514",
        ),
        (
            "syslog:\n  protocol: UDP\n",
            "2 syslog.protocol: expected udp, tcp or both, found the text \"UDP\"; did you mean udp?",
        ),
        ("syslog:\n  protocol: sctp\n", "2 syslog.protocol: expected udp, tcp or both, found the text \"sctp\""),
        ("syslog:\n  protocol: [udp, tcp]\n", "2 syslog.protocol: expected udp, tcp or both, found a list"),
        (
            "syslog:\n  max_message_bytes: 65508\n",
            "2 syslog.max_message_bytes: expected a whole number from 480 to 65507, found the number 65508",
        ),
        (
            "nginx:\n  address: 0.0.0.0:8888\n",
            "2 nginx.address: expected an address, like 127.0.0.1, 0.0.0.0 or ::1, found the text \"0.0.0.0:8888\"; the port is a setting of its own",
        ),
        (
            "nginx:\n  address: localhost\n",
            "2 nginx.address: expected an address, like 127.0.0.1, 0.0.0.0 or ::1, found the text \"localhost\"; host names are not looked up",
        ),
        ("nginx:\n  port: 0\n", "2 nginx.port: expected a port from 1 to 65535, found the number 0"),
        ("nginx:\n  port: 65536\n", "2 nginx.port: expected a port from 1 to 65535, found the number 65536"),
        ("nginx:\n  enabled: yes\n", "2 nginx.enabled: expected true or false, found the text \"yes\""),
        (
            "nginx:\n  enabled: 'true'\n",
            "2 nginx.enabled: expected true or false, found the text \"true\"; leave the quotes out",
        ),
        (
            "nginx:\n  socket: nginx.sock\n",
            "2 nginx.socket: expected an absolute path of at most 107 bytes, like /run/mailfail2ban/nginx.sock, or nothing, found the text \"nginx.sock\"",
        ),
        ("nginx:\n  enabled: 1\n", "2 nginx.enabled: expected true or false, found the number 1"),
        (
            "prometheus:\n  path: metrics\n",
            "2 prometheus.path: expected a path, like /metrics, found the text \"metrics\"",
        ),
        ("prometheus:\n  path: /a b\n", "2 prometheus.path: expected a path, like /metrics, found the text \"/a b\""),
        ("prometheus:\n  path: ''\n", "2 prometheus.path: expected a path, like /metrics, found the text \"\""),
        (
            "prometheus:\n  path: 5\n",
            "2 prometheus.path: expected a path, like /metrics, found the number 5; put it in quotes",
        ),
        (
            "runtime:\n  shards: 1025\n",
            "2 runtime.shards: expected a whole number from 0 to 1024, found the number 1025",
        ),
        (
            "database:\n  driver: sqlite\n",
            "2 database.driver: expected sqlite3, postgres or mysql, found the text \"sqlite\"; did you mean sqlite3?",
        ),
        (
            "database:\n  driver: postgresql\n",
            "2 database.driver: expected sqlite3, postgres or mysql, found the text \"postgresql\"; did you mean postgres?",
        ),
        (
            "database:\n  driver: MariaDB\n",
            "2 database.driver: expected sqlite3, postgres or mysql, found the text \"MariaDB\"; did you mean mysql?",
        ),
        (
            "database:\n  refresh_interval: 500ms\n",
            "2 database.refresh_interval: expected a duration from 1s to 24h, found the text \"500ms\"",
        ),
        ("database:\n  dsn: ''\n", "2 database.dsn: must not be empty"),
        (
            "runtime:\n  state_dir: \"a\\nb\"\n",
            "2 runtime.state_dir: expected the path of a folder, like /var/lib/mailfail2ban, or nothing, found the text \"a\\nb\"",
        ),
        (
            "runtime:\n  node: mail 1\n",
            "2 runtime.node: expected a name of at most 64 letters, digits, `.`, `_` and `-`, or nothing, found the text \"mail 1\"",
        ),
        (
            "runtime:\n  node: 1\n",
            "2 runtime.node: expected a name of at most 64 letters, digits, `.`, `_` and `-`, or nothing, found the number 1; put it in quotes",
        ),
        ("log:\n  level: warning\n", "2 log.level: expected error, warn, info or debug, found the text \"warning\""),
        (
            "log:\n  level: \"a\\nb\\e\"\n",
            "2 log.level: expected error, warn, info or debug, found the text \"a\\nb\\u{1b}\"",
        ),
        ("ban: 5\n", "1 ban: expected settings below it, found the number 5"),
        ("ban:\n  - max_attempts: 5\n", "1 ban: expected settings below it, found a list"),
        ("- ban\n", "1 : expected sections like `ban:`, found a list"),
        ("\n\nban\n", "3 : expected sections like `ban:`, found the text \"ban\""),
    ] {
        assert_eq!(report(yaml, &[]).join("\n"), want, "{yaml}");
    }
}

#[test]
fn unknown_keys_are_faults_with_a_suggestion() {
    for (yaml, want) in [
        ("ban:\n  max_attempt: 5\n", "2 ban.max_attempt: there is no such setting; did you mean `ban.max_attempts`?"),
        ("ban:\n  maxAttempts: 5\n", "2 ban.maxAttempts: there is no such setting; did you mean `ban.max_attempts`?"),
        ("ban:\n  timewindow: 5\n", "2 ban.timewindow: there is no such setting; did you mean `ban.time_window`?"),
        (
            "nginx:\n\n  max_attempts: 5\n",
            "3 nginx.max_attempts: there is no such setting; did you mean `ban.max_attempts`?",
        ),
        ("log:\n  colour: 5\n", "2 log.colour: there is no such setting; `log` has level, format"),
        ("bans:\n  max_attempts: 5\n", "1 bans: there is no such section; did you mean `ban`?"),
        ("databse: {}\n", "1 databse: there is no such section; did you mean `database`?"),
        ("patterns: []\n", "1 patterns: there is no such section; did you mean `syslog.patterns`?"),
        ("ban.max_attempts: 5\n", "1 ban.max_attempts: write `max_attempts` below `ban:`"),
        (
            "x: 5\n",
            "1 x: there is no such section; there are syslog, spoa, envoy, nginx, ban, database, prometheus, api, runtime, log",
        ),
        (
            "ban: {<<: {max_attempts: 3}}\n",
            "1 ban.<<: there is no such setting; `ban` has max_attempts, time_window, initial_ban_time, max_ban_time, escalation_factor, max_memory_ttl, cleanup_interval, ipv4_prefix, ipv6_prefix, max_tracked, whitelist, blacklist",
        ),
    ] {
        assert_eq!(report(yaml, &[]).join("\n"), want, "{yaml}");
    }
    assert_eq!(report("\"a\\nb\": 1\n", &[])[0].split(": ").next(), Some("1 a\\nb"));
}

#[test]
fn keys_given_twice_are_faults() {
    for (yaml, want) in [
        (
            "ban:\n  max_attempts: 5\n  time_window: 1m\n  max_attempts: 6\n",
            "4 ban.max_attempts: is given twice; the first is on line 2",
        ),
        ("ban:\nlog:\nban:\n", "3 ban: is given twice; the first is on line 1"),
        ("api:\napi:\n", "2 api: is given twice; the first is on line 1"),
        (
            "syslog:\n  patterns:\n    - name: a\n      regex: a\n      name: b\n",
            "5 syslog.patterns[0].name: is given twice; the first is on line 3",
        ),
    ] {
        assert_eq!(report(yaml, &[]).join("\n"), want, "{yaml}");
    }
}

#[test]
fn broken_syntax_is_one_fault_with_its_line() {
    for (yaml, line) in [
        ("ban:\n  max_attempts: 5\n bad\n", 3),
        ("ban:\n\tmax_attempts: 5\n", 2),
        ("ban: [1, 2\nlog:\n", 2),
        ("ban:\n  whitelist: *none\n", 2),
        ("ban:\n  max_attempts: {{ attempts }}\n", 2),
        ("log:\n---\nban:\n", 3),
        ("ban:\n  max_attempts: 1\n  \u{1}\n", 3),
    ] {
        let faults = read(yaml, &[]).expect_err(yaml);
        assert_eq!(faults.as_slice().len(), 1, "{faults}");
        assert_eq!((faults.as_slice()[0].key.as_str(), faults.as_slice()[0].line), ("", Some(line)), "{faults}");
    }
}

#[test]
fn all_faults_come_together_in_the_order_of_lines() {
    let yaml = "\
log:
  level: loud
syslog:
  adress: x
  patterns:
    - name: a
      severity: 9
    - regex: x
      name: a
ban:
  max_attempts: no
  time_window: 10
colour: red
";
    let faults = read(yaml, &[("FAIL2BAN_BAN_MAX_ATTEMPTS", "many")]).unwrap_err();
    assert_eq!(
        faults.to_string(),
        "\
config.yaml:2: log.level: expected error, warn, info or debug, found the text \"loud\"
config.yaml:4: syslog.adress: there is no such setting; did you mean `syslog.address`?
config.yaml:6: syslog.patterns[0].regex: is missing; every pattern needs a `name` and a `regex`
config.yaml:7: syslog.patterns[0].severity: expected a whole number from 1 to 6, found the number 9
config.yaml:9: syslog.patterns[1].name: the name \"a\" is taken by the pattern on line 6
config.yaml:11: ban.max_attempts: expected a whole number from 1 to 10000, found the text \"no\"
config.yaml:12: ban.time_window: expected a duration from 1s to 30d, found the number 10 without a unit: write 10s
config.yaml:13: colour: there is no such section; there are syslog, spoa, envoy, nginx, ban, database, prometheus, api, runtime, log
environment: FAIL2BAN_BAN_MAX_ATTEMPTS: expected a whole number from 1 to 10000, found the text \"many\""
    );
}

#[test]
fn patterns_are_read_with_their_lines() {
    let s = good(
        "\
syslog:
  patterns:
    # the quick start's
    - name: nginx-404
      regex: 'nginx.*404.*client: ([0-9.]+)'
    - regex: >-
        ^x
      ip_group: 2
      severity: 6
      description: Six
      program: [a, b/c]
      enabled: false
      weight: 3
      examples: one line
      name: two words
    - { name: flow,
        program: p, regex: z }
",
    );
    let [first, second, third] = s.syslog.patterns.as_slice() else { panic!("{:?}", s.syslog.patterns) };
    assert_eq!((first.name.as_str(), first.regex.as_str()), ("nginx-404", "nginx.*404.*client: ([0-9.]+)"));
    assert_eq!((first.ip_group, first.severity, first.weight, first.enabled), (None, 1, 1, true));
    assert!(first.program.is_empty() && first.examples.is_empty() && first.description.is_empty());
    assert_eq!((first.line, first.line_of("regex"), first.line_of("examples")), (Some(4), Some(5), Some(4)));
    assert_eq!((second.ip_group, second.severity, second.weight, second.enabled), (Some(2), 6, 3, false));
    assert_eq!(second.program, ["a", "b/c"]);
    assert_eq!(second.examples, ["one line"]);
    assert_eq!((second.line, second.line_of("regex"), second.line_of("examples")), (Some(6), Some(6), Some(14)));
    assert_eq!(
        (third.line, third.line_of("regex"), third.program.as_slice()),
        (Some(16), Some(17), ["p".to_owned()].as_slice())
    );
    assert_eq!(PatternSettings::key(2, "regex"), "syslog.patterns[2].regex");
    assert_eq!(s.warnings, []);
}

/// Patterns that are built in.
const BUILT_IN: usize = 51;

#[test]
fn patterns_in_the_file_replace_the_built_in_ones() {
    let s = good("syslog:\n  patterns: []\n");
    assert!(s.syslog.patterns.is_empty());
    assert_eq!(warnings(&s), ["line 2: syslog.patterns: no pattern is enabled, so no failed login will be recognised"]);
    assert_eq!(good("syslog:\n  protocol: udp\n").syslog.patterns.len(), BUILT_IN);
    let with = good(
        "syslog:\n  with_default_patterns: true\n  patterns: [{name: sogo-login, regex: '(x)'}, {name: a, regex: '(x)'}]\n",
    );
    let named = |name: &str| with.syslog.patterns.iter().filter(|pattern| pattern.name == name).count();
    assert_eq!((with.syslog.patterns.len(), named("sogo-login"), named("a")), (BUILT_IN + 1, 1, 1));
    assert_eq!(with.syslog.patterns[0].regex, "(x)");
}

#[test]
fn wrong_patterns_are_faults() {
    let one = |entry: &str| {
        report(&format!("syslog:\n  patterns:\n    - {{ name: n, regex: r, {entry} }}\n"), &[]).join("\n")
    };
    for (entry, want) in [
        ("ip_group: 0", "3 syslog.patterns[0].ip_group: expected a whole number from 1 to 99, found the number 0"),
        ("ip_group: 100", "3 syslog.patterns[0].ip_group: expected a whole number from 1 to 99, found the number 100"),
        ("severity: 0", "3 syslog.patterns[0].severity: expected a whole number from 1 to 6, found the number 0"),
        (
            "severity: high",
            "3 syslog.patterns[0].severity: expected a whole number from 1 to 6, found the text \"high\"",
        ),
        ("weight: -1", "3 syslog.patterns[0].weight: expected a whole number from 0 to 10000, found the number -1"),
        ("enabled: 1", "3 syslog.patterns[0].enabled: expected true or false, found the number 1"),
        ("description: 5", "3 syslog.patterns[0].description: expected a text, found the number 5; put it in quotes"),
        ("program: 5", "3 syslog.patterns[0].program: expected a text or a list of texts, found the number 5"),
        ("program: [a, '']", "3 syslog.patterns[0].program[1]: must not be empty"),
        (
            "program: 'sshd[1]'",
            "3 syslog.patterns[0].program: expected the name of a program, without [pid], commas and blanks, found the text \"sshd[1]\"",
        ),
        ("examples: [x, 5]", "3 syslog.patterns[0].examples[1]: expected a text, found the number 5; put it in quotes"),
        ("ip-group: 1", "3 syslog.patterns[0].ip-group: there is no such key; did you mean `ip_group`?"),
        (
            "x: 1",
            "3 syslog.patterns[0].x: there is no such key; a pattern has name, regex, ip_group, severity, description, kind, versions, program, enabled, weight, refused_by, examples",
        ),
    ] {
        assert_eq!(one(entry), want, "{entry}");
    }
    let long = "n".repeat(129);
    for (yaml, want) in [
        ("patterns:\n", "2 syslog.patterns: expected a list of patterns, found nothing; leave the key out for the built-in ones, or write [] for none".to_owned()),
        ("patterns: {name: n, regex: r}\n", "2 syslog.patterns: expected a list of patterns, found a group of keys; begin each pattern with `-`".to_owned()),
        ("patterns: all\n", "2 syslog.patterns: expected a list of patterns, found the text \"all\"".to_owned()),
        ("patterns:\n    - {name: a, regex: r}\n    - regex\n", "4 syslog.patterns[1]: expected a pattern with `name` and `regex`, found the text \"regex\"".to_owned()),
        ("patterns:\n    - {name: '', regex: ''}\n", "3 syslog.patterns[0].name: must not be empty\n3 syslog.patterns[0].regex: must not be empty".to_owned()),
        ("patterns:\n    - {name: ' a', regex: r}\n", "3 syslog.patterns[0].name: expected a name of letters, digits, `-`, `_`, `.`, `/`, `:` and blanks between them, found the text \" a\"".to_owned()),
        ("patterns:\n    - {name: \"a\\nb\", regex: r}\n", "3 syslog.patterns[0].name: expected a name of letters, digits, `-`, `_`, `.`, `/`, `:` and blanks between them, found the text \"a\\nb\"".to_owned()),
        (&format!("patterns:\n    - name: {long}\n      regex: r\n"), "3 syslog.patterns[0].name: expected a name of at most 128 bytes, found one of 129".to_owned()),
        ("patterns:\n    - name: a\n      regex: r\n    - name: b\n      regex: r\n    - severity: 2\n      name: a\n      regex: r\n", "8 syslog.patterns[2].name: the name \"a\" is taken by the pattern on line 3".to_owned()),
    ] {
        assert_eq!(report(&format!("syslog:\n  {yaml}"), &[]).join("\n"), want, "{yaml}");
    }
}

#[test]
fn settings_must_agree_with_each_other() {
    for (yaml, want) in [
        (
            "ban:\n  initial_ban_time: 2h\n  max_ban_time: 1h\n",
            "3 ban.max_ban_time: `ban.max_ban_time` (1h) must not be shorter than `ban.initial_ban_time` (2h)",
        ),
        (
            "ban:\n  max_ban_time: 1h\n  initial_ban_time: 2h\n",
            "2 ban.max_ban_time: `ban.max_ban_time` (1h) must not be shorter than `ban.initial_ban_time` (2h)",
        ),
        (
            "ban:\n  initial_ban_time: 48h\n",
            "2 ban.initial_ban_time: `ban.max_ban_time` (24h) must not be shorter than `ban.initial_ban_time` (48h)",
        ),
        ("ban:\n  initial_ban_time: 1h\n  max_ban_time: 1h\n", ""),
        // A value that is wrong by itself is not compared.
        (
            "ban:\n  initial_ban_time: 48h\n  max_ban_time: 1\n",
            "3 ban.max_ban_time: expected a duration from 1s to 3650d, found the number 1 without a unit: write 1s",
        ),
        (
            "prometheus:\n  port: 8888\n",
            "2 prometheus.port: `prometheus` would listen on 127.0.0.1:8888 and `nginx` on 0.0.0.0:8888: give one of them another port",
        ),
        (
            "nginx:\n  port: 2112\n",
            "2 nginx.port: `prometheus` would listen on 127.0.0.1:2112 and `nginx` on 0.0.0.0:2112: give one of them another port",
        ),
        (
            "nginx:\n  port: 5514\n  address: 127.0.0.1\n",
            "2 nginx.port: `nginx` would listen on 127.0.0.1:5514 and `syslog` on 127.0.0.1:5514: give one of them another port",
        ),
        (
            "nginx:\n  port: 2112\n  address: '::'\n",
            "2 nginx.port: `prometheus` would listen on 127.0.0.1:2112 and `nginx` on [::]:2112: give one of them another port",
        ),
        ("nginx:\n  port: 2112\n  address: 127.0.0.2\n", ""),
        ("nginx:\n  port: 2112\n  address: '::1'\n", ""),
        ("nginx:\n  port: 2112\n  enabled: false\n", ""),
        ("nginx:\n  port: 2112\nprometheus:\n  enabled: false\n", ""),
        ("nginx:\n  port: 5514\nsyslog:\n  protocol: udp\n", ""),
        (
            "spoa: {port: 9001}\n",
            "1 spoa.port: `envoy` would listen on 0.0.0.0:9001 and `spoa` on 0.0.0.0:9001: give one of them another port",
        ),
        ("spoa: {port: 9001}\nenvoy: {enabled: false}\n", ""),
        (
            "envoy: {socket: /run/m.sock}\nnginx: {socket: /run/m.sock}\n",
            "2 nginx.socket: `nginx.socket` and `envoy.socket` are the same path: give one of them another",
        ),
        (
            "database:\n  enabled: true\n  dsn: postgres://u:hidden@h/db\n",
            "3 database.dsn: expected the path of a file, like ./fail2ban.db, found one of postgres; if it is that, write `driver: postgres`",
        ),
        (
            "database:\n  enabled: true\n  driver: mysql\n  dsn: mysql://u:hidden/x@h/db\n",
            "4 database.dsn: an @ stands behind the host: in names, passwords and parameters write @ / ? as %40 %2F %3F",
        ),
        (
            "database: {enabled: true,\n  driver: mysql}\n",
            "2 database.driver: needs `database.dsn` as well: a DSN like user:password@tcp(localhost:3306)/fail2ban",
        ),
        ("database: {driver: mysql, dsn: x}\n", ""),
        ("database: {enabled: true, driver: mysql, dsn: 'u:p@tcp(h)/db'}\n", ""),
        ("database: {enabled: true}\n", ""),
        ("envoy: {socket: /run/m.sock, enabled: false}\nnginx: {socket: /run/m.sock}\nspoa: {socket: ''}\n", ""),
    ] {
        assert_eq!(report(yaml, &[]).join("\n"), want, "{yaml}");
    }
    assert_eq!(
        report("ban:\n  initial_ban_time: 2h\n", &[("FAIL2BAN_BAN_MAX_BAN_TIME", "1h")]).join("\n"),
        "- FAIL2BAN_BAN_MAX_BAN_TIME: `ban.max_ban_time` (1h) must not be shorter than `ban.initial_ban_time` (2h)"
    );
}

#[test]
fn the_api_is_set_up_in_the_file_or_the_environment() {
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG";
    let s = good(&format!(
        "api:
  address: '::1'
  port: 8080
  allowed_ips: [10.0.0.0/8]
  tokens:
    - {{name: backup, token: 0123456789abcdef, role: read}}
    - {{name: deploy, hash: 9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08}}
  basic_auth:
    enabled: true
    username: alice
    password: '{hash}'
    users: {{bob: s3cret, 'eve@example.org': {{password: other, role: read}}}}
  rate_limiting: {{enabled: false, requests_per_minute: 7}}
"
    ));
    let api = &s.api;
    assert_eq!(api.listen_tcp().unwrap().to_string(), "[::1]:8080");
    assert_eq!(networks(&api.allowed_ips), ["10.0.0.0/8"]);
    assert_eq!((api.rate_limiting.enabled, api.rate_limiting.requests_per_minute), (false, 7));
    let users: Vec<_> = api.users().into_iter().map(|u| (u.name, u.password.reveal().to_owned(), u.role)).collect();
    let want = [("alice", hash, Role::Admin), ("bob", "s3cret", Role::Admin), ("eve@example.org", "other", Role::Read)];
    assert!(users.iter().map(|(name, password, role)| (name.as_str(), password.as_str(), *role)).eq(want), "{users:?}");
    assert_eq!(api.tokens[0].token, Token::Clear(Secret::new("0123456789abcdef")));
    let Token::Hash(sha256) = &api.tokens[1].token else { panic!("{:?}", api.tokens) };
    assert_eq!((sha256[0], sha256[31]), (0x9f, 0x08));
    assert_eq!((api.tokens[0].role, api.tokens[1].role), (Role::Read, Role::Admin));
    assert_eq!(s.warnings, []);
    // Nothing that is printed shows a secret.
    let shown = format!("{s:?}");
    assert!(
        !["argon2id", "s3cret", "\"other\"", "0123456789abcdef"].iter().any(|secret| shown.contains(secret)),
        "{shown}"
    );

    let s = read(
        "",
        &[
            ("FAIL2BAN_API_BASIC_AUTH_ENABLED", "true"),
            ("FAIL2BAN_API_BASIC_AUTH_USERNAME", "alice"),
            ("FAIL2BAN_API_BASIC_AUTH_PASSWORD", "secret"),
            ("FAIL2BAN_API_BASIC_AUTH_USERS", "{bob: other}"),
            ("FAIL2BAN_API_TOKENS", "[{name: ci, token: 0123456789abcdef}]"),
            ("FAIL2BAN_API_ALLOWED_IPS", "10.0.0.0/8, ::1"),
            ("FAIL2BAN_API_ADDRESS", ""),
            ("FAIL2BAN_API_RATE_LIMITING_REQUESTS_PER_MINUTE", "9"),
        ],
    );
    let api = s.unwrap().api;
    assert_eq!((api.users().len(), api.tokens.len(), api.allowed_ips.len()), (2, 1, 2));
    assert_eq!((api.listen_tcp(), api.rate_limiting.requests_per_minute), (None, 9));
    assert_eq!(good("api: {basic_auth: {users: {bob: x}}}").api.users(), [], "not enabled");
}

#[test]
fn faults_of_the_api_are_named_without_secrets() {
    for (yaml, want) in [
        (
            "api:\n  basic_auth:\n    enabled: true\n",
            "3 api.basic_auth.enabled: needs a user: set `api.basic_auth.username` and `api.basic_auth.password`, or \
             `api.basic_auth.users`",
        ),
        (
            "api:\n  basic_auth:\n    enabled: true\n    username: alice\n",
            "4 api.basic_auth.username: needs `api.basic_auth.password` as well",
        ),
        (
            "api:\n  basic_auth:\n    enabled: true\n    password: hunter2\n",
            "4 api.basic_auth.password: needs `api.basic_auth.username` as well",
        ),
        (
            "api:\n  basic_auth: {enabled: true, username: al, password: hunter2, users: {al: hunter2}}\n",
            "2 api.basic_auth.username: \"al\" has two passwords, here and in `api.basic_auth.users`",
        ),
        (
            "api:\n  basic_auth:\n    user: x\n",
            "3 api.basic_auth.user: there is no such setting; did you mean `api.basic_auth.users`?",
        ),
        ("api:\n  basic_auth: hunter2\n", "2 api.basic_auth: expected settings below it, found the text \"hunter2\""),
        ("api:\n  basic_aut:\n", "2 api.basic_aut: there is no such setting; did you mean `api.basic_auth`?"),
        (
            "api:\n  basic_auth:\n    enabled: false\n    enabled: true\n",
            "4 api.basic_auth.enabled: is given twice; the first is on line 3",
        ),
        (
            "api:\n  basic_auth:\n    password: 123456\n",
            "3 api.basic_auth.password: expected a password, found a number; put it in quotes",
        ),
        (
            "api:\n  basic_auth:\n    password: '$argon2id$hunter2'\n",
            "3 api.basic_auth.password: is not an argon2id hash: salt too short (minimum 8 bytes)",
        ),
        (
            "api:\n  basic_auth:\n    password: '$2y$10$hunter2'\n",
            "3 api.basic_auth.password: looks like a hash of a kind that is not known; those that are begin with \
             $argon2id$",
        ),
        (
            "api:\n  basic_auth:\n    password: '$argon2id$v=19$m=4000000,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG'\n",
            "3 api.basic_auth.password: takes too much to check: m is at most 262144, t at most 64; \
             m=19456,t=2,p=1 will do",
        ),
        (
            "api:\n  basic_auth:\n    users: [hunter2]\n",
            "3 api.basic_auth.users: expected users with their passwords, like {alice: '…'}, found a list",
        ),
        (
            "api:\n  basic_auth:\n    users:\n      al: 7\n      'a:b': hunter2\n      bob: ''\n      cy: {password: hunter2, \
             rôle: read}\n      di: {role: root, password: hunter2}\n      ed: {}\n      al: hunter2\n",
            "4 api.basic_auth.users.al: expected a password, found a number; put it in quotes\n\
             5 api.basic_auth.users.a:b: expected a name of at most 128 bytes without colons, or nothing, found the \
             text \"a:b\"\n\
             6 api.basic_auth.users.bob: must not be empty: every user has a password\n\
             7 api.basic_auth.users.cy.rôle: there is no such key; did you mean `role`?\n\
             8 api.basic_auth.users.di.role: expected admin or read, found the text \"root\"\n\
             9 api.basic_auth.users.ed: needs a `password`\n\
             10 api.basic_auth.users.al: is given twice; the first is on line 4",
        ),
        (
            "api:\n  tokens:\n    - hunter2\n    - {name: a}\n    - {token: 0123456789abcdef}\n    - {name: b, token: \
             hunter2}\n    - {name: c, token: 'hunter2 hunter2 hunter2'}\n    - {name: d, hash: 123}\n    - {name: e, \
             hash: hunter2}\n    - {name: f, tokens: x}\n",
            "3 api.tokens[0]: expected a token with `name` and `token` or `hash`, found a text\n\
             4 api.tokens[1]: needs a `token` or its `hash`\n\
             5 api.tokens[2]: needs a `name`\n\
             6 api.tokens[3].token: expected a token of at least 16 characters, found a shorter one\n\
             7 api.tokens[4].token: expected a token of letters, digits and - . _ ~ + / =, found another character in \
             it\n\
             8 api.tokens[5].hash: expected the SHA-256 of a token, found a number; put it in quotes\n\
             9 api.tokens[6].hash: expected the SHA-256 of a token, 64 hexadecimal digits (printf %s TOKEN | sha256sum)\n\
             10 api.tokens[7].tokens: there is no such key; did you mean `token`?",
        ),
        (
            "api:\n  tokens:\n    - {name: a, token: 0123456789abcdef, hash: \
             9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}\n    - {name: b, token: \
             0123456789abcdef}\n    - {name: b, token: 0123456789abcdeg}\n",
            "3 api.tokens[0]: has a `token` and a `hash`: one of them is enough\n\
             5 api.tokens[2]: the name \"b\" is taken by another token",
        ),
        (
            "api:\n  address: localhost\n",
            "2 api.address: expected an address, like 127.0.0.1, 0.0.0.0 or ::1, or nothing, found the text \
             \"localhost\"; host names are not looked up",
        ),
        (
            "api:\n  address: 127.0.0.1\n  port: 8888\n",
            "3 api.port: `api` would listen on 127.0.0.1:8888 and `nginx` on 0.0.0.0:8888: give one of them another port",
        ),
    ] {
        let found = report(yaml, &[]).join("\n");
        assert_eq!(found, want, "{yaml}");
        assert!(!found.contains("hunter2") || yaml.contains("basic_auth: hunter2"), "{found}");
    }
    assert_eq!(
        report("", &[("FAIL2BAN_API_BASIC_AUTH_USERS", "hunter2")]).join("\n"),
        "- FAIL2BAN_API_BASIC_AUTH_USERS: expected users with their passwords, like {alice: '…'}, found a text"
    );
    let warned =
        warnings(&good("api:\n  allowed_ips: [127.0.0.1, '::1', 10.0.0.0/8]\n  basic_auth:\n    username: a\n"));
    assert_eq!(
        warned,
        [
            "api.basic_auth.enabled: is false, so nobody is asked for a password, though there are users",
            "line 2: api.allowed_ips: is wider than this machine, and there is neither a password nor a token: whoever \
             comes from there can ban anybody",
        ]
    );
    assert_eq!(good("api: {enabled: false, allowed_ips: 0.0.0.0/0, basic_auth: {enabled: true}}").warnings, []);
}

#[test]
fn what_may_change_of_the_api_changes_on_reload() {
    let old = Settings::default();
    let new = good(
        "api: {address: '::1', port: 1, max_connections: 9, allowed_ips: [], tokens: [{name: a, token: \
         0123456789abcdef}], basic_auth: {users: {al: x}}, rate_limiting: {requests_per_minute: 1}}",
    );
    assert_eq!(restart_needed(&old, &new), ["api.address", "api.port", "api.max_connections"]);
}

#[test]
fn an_open_syslog_port_is_warned_of() {
    let open = good("syslog:\n  address: 0.0.0.0:514\n");
    assert_eq!(
        warnings(&open),
        [
            "line 2: syslog.allowed_senders: is empty, so whoever reaches 0.0.0.0:514 can have anybody banned: name the senders"
        ]
    );
    assert_eq!(good("syslog:\n  address: 0.0.0.0:514\n  allowed_senders: 10.0.0.0/8\n").warnings, []);
    assert_eq!(good("syslog:\n  address: '[::1]:514'\n").warnings, []);
}

#[test]
fn the_environment_beats_the_file() {
    let s = read("ban:\n  max_attempts: 3\n", &[("FAIL2BAN_BAN_MAX_ATTEMPTS", "7"), ("PATH", "/bin"), ("HOME", "")])
        .unwrap();
    assert_eq!((s.ban.max_attempts, s.warnings.len()), (7, 0));
    assert_eq!(with("FAIL2BAN_BAN_TIME_WINDOW", " 1h30m\n").ban.time_window, Duration::from_secs(5400));
    assert_eq!(with("FAIL2BAN_BAN_ESCALATION_FACTOR", "1.5").ban.escalation_factor.to_bits(), 1.5_f64.to_bits());
    assert_eq!(with("FAIL2BAN_BAN_ESCALATION_FACTOR", "3").ban.escalation_factor.to_bits(), 3.0_f64.to_bits());
    assert_eq!(networks(&with("FAIL2BAN_BAN_WHITELIST", "10.0.0.0/8, ::1,").ban.whitelist), ["10.0.0.0/8", "::1"]);
    assert_eq!(read("ban:\n  whitelist: 10.0.0.0/8\n", &[("FAIL2BAN_BAN_WHITELIST", "")]).unwrap().ban.whitelist, []);
    assert_eq!(with("FAIL2BAN_SYSLOG_PROTOCOL", "udp").syslog.protocol, Protocol::Udp);
    assert_eq!(with("FAIL2BAN_SYSLOG_ADDRESS", "[::1]:5514").syslog.address.to_string(), "[::1]:5514");
    assert_eq!(with("FAIL2BAN_NGINX_ADDRESS", "::").nginx.address.to_string(), "::");
    assert_eq!(with("FAIL2BAN_PROMETHEUS_PATH", "/m").prometheus.path, "/m");
    assert_eq!(with("FAIL2BAN_SPOA_SOCKET", "/run/s").spoa.listen_unix(), Some("/run/s"));
    assert_eq!(read("spoa: {socket: /s}\n", &[("FAIL2BAN_SPOA_SOCKET", "")]).unwrap().spoa.listen_unix(), None);
    for (text, want) in [("true", true), ("False", false), ("1", true), ("0", false)] {
        assert_eq!(with("FAIL2BAN_NGINX_ENABLED", text).nginx.enabled, want);
    }
}

#[test]
fn every_setting_can_be_overridden() {
    for row in SETTINGS {
        let mailfail2ban::config::table::Absent::Default(default) = row.absent else { continue };
        let text = match default {
            "[]" | "\"\"" => "",
            "[127.0.0.0/8, '::1']" => "127.0.0.0/8, ::1",
            "[auth, abuse]" => "auth,abuse",
            other => other,
        };
        let settings = read("", &[(&row.environment_name(), text)]).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(settings, Settings::default(), "{}", row.key);
    }
}

#[test]
fn wrong_variables_are_faults_without_a_line() {
    for (name, value, want) in [
        ("FAIL2BAN_BAN_MAX_ATTEMPTS", "five", "expected a whole number from 1 to 10000, found the text \"five\""),
        ("FAIL2BAN_BAN_MAX_ATTEMPTS", "5.5", "expected a whole number from 1 to 10000, found the number 5.5"),
        (
            "FAIL2BAN_BAN_MAX_ATTEMPTS",
            "",
            "is empty: expected a whole number from 1 to 10000, or unset it for the default",
        ),
        ("FAIL2BAN_BAN_TIME_WINDOW", "600", "expected a duration, found the text \"600\": write 600s or 10m"),
        ("FAIL2BAN_NGINX_ENABLED", "on", "expected true or false, found the text \"on\""),
        (
            "FAIL2BAN_BAN_WHITELIST",
            "10.0.0.0/8,x",
            "\"x\" is not an address or network: write it like 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32",
        ),
        ("FAIL2BAN_BAN_ESCALATION_FACTOR", "nan", "expected a number from 1 to 100, found the number NaN"),
        ("FAIL2BAN_PROMETHEUS_PATH", "/\u{fffd}", "expected a path, like /metrics, found the text \"/\u{fffd}\""),
        ("FAIL2BAN_PROMETHEUS_PATH", " ", "is empty: expected a path, like /metrics, or unset it for the default"),
    ] {
        assert_eq!(report("", &[(name, value)]), [format!("- {name}: {want}")]);
    }
    // The file's own fault is told even where a variable overrides it.
    assert_eq!(report("ban:\n  max_attempts: x\n", &[("FAIL2BAN_BAN_MAX_ATTEMPTS", "3")]).len(), 1);
}

#[test]
fn unknown_variables_are_only_warned_of() {
    let s = read(
        "",
        &[
            ("FAIL2BAN_SERVICE_HOST", "10.0.0.1"),
            ("FAIL2BAN_PORT", "tcp://10.0.0.1:8888"),
            ("FAIL2BAN_NGINX_PORT", "tcp://10.0.0.1:8888"),
            ("FAIL2BAN_BAN_MAX_ATTEMPT", "3"),
            ("FAIL2BAN_DATABASE_DNS", "user:secret@tcp(db)/x"),
            ("FAIL2BAN_API_BASIC_AUTH_PASSWD", "secret"),
            ("fail2ban_ban_max_attempts", "3"),
        ],
    )
    .unwrap();
    assert_eq!(Settings { warnings: Vec::new(), ..s.clone() }, Settings::default());
    let warnings = warnings(&s);
    assert_eq!(warnings.len(), 6, "{warnings:#?}");
    assert!(warnings.iter().all(|w| w.starts_with("environment: FAIL2BAN_") && !w.contains("secret")), "{warnings:#?}");
    assert!(warnings[0].ends_with("did you mean FAIL2BAN_API_BASIC_AUTH_PASSWORD?"), "{warnings:#?}");
    assert!(warnings[1].ends_with("did you mean FAIL2BAN_BAN_MAX_ATTEMPTS?"), "{warnings:#?}");
    assert!(warnings[2].ends_with("did you mean FAIL2BAN_DATABASE_DSN?"), "{warnings:#?}");
    assert!(warnings[3].contains("Kubernetes"), "{warnings:#?}");
}

#[test]
fn a_password_is_shown_nowhere() {
    // Right, wrong, and where it does not belong.
    let lines = [
        "driver: mysql\n  dsn: user:hidden@tcp(localhost:3306)/fail2ban",
        "driver: postgres\n  dsn: postgres://user:hid%64en@localhost/fail2ban",
        "driver: postgres\n  dsn: host=localhost user=user password='hidden'",
        "driver: postgres\n  dsn: postgres://user:hidden/x@localhost/fail2ban",
        "driver: mysql\n  dsn: user:hidden@tcp(localhost:x)/fail2ban",
        "dsn: user:hidden@tcp(localhost:3306)/fail2ban",
        "driver: user:hidden@tcp(localhost:3306)/fail2ban",
        "driver: host=localhost user=user password='hidden'",
        "max_retries: mysql://user:hidden@localhost/fail2ban",
        "mysql://user:hidden@localhost/fail2ban:",
        "dsn: [user:hidden@tcp(localhost:3306)/fail2ban]",
        "dsn: {user:hidden@localhost: 1}",
    ];
    let files = lines.map(|line| format!("database:\n  enabled: true\n  {line}\n"));
    let bare = [
        "database: user:hidden@tcp(localhost)/f\n",
        "mysql://user:hidden@localhost/f: 1\n",
        "postgres://user:hidden@localhost/f\n",
    ];
    for yaml in files.iter().map(String::as_str).chain(bare) {
        let shown = match read(yaml, &[]) {
            Ok(settings) => {
                let dsn = settings.database.target().unwrap();
                assert!(matches!(&dsn, Dsn::Server(server) if server.password.as_ref().unwrap().reveal() == "hidden"));
                format!("{settings:?} {dsn:?} {dsn} {}", dsn.identity())
            }
            Err(faults) => format!("{faults} {faults:?}"),
        };
        assert!(!shown.contains("hidden"), "{yaml}\n{shown}");
    }
    let variables = [("FAIL2BAN_DATABASE_ENABLED", "1"), ("FAIL2BAN_DATABASE_DRIVER", "mysql")];
    let variable = |dsn| read("", &[variables[0], variables[1], ("FAIL2BAN_DATABASE_DSN", dsn)]);
    let server = variable("user:hidden@tcp(db)/x\n").unwrap().database.target().unwrap();
    assert!(matches!(server, Dsn::Server(server) if server.password.as_ref().unwrap().reveal() == "hidden"));
    assert_eq!(
        variable("postgres://user:hidden@db/x").unwrap_err().to_string(),
        "environment: FAIL2BAN_DATABASE_DSN: expected a DSN like user:password@tcp(localhost:3306)/fail2ban, found one of \
         postgres; if it is that, write `driver: postgres`"
    );
}

#[test]
fn patterns_can_come_from_the_environment() {
    let name = "FAIL2BAN_SYSLOG_PATTERNS";
    let s = with(name, "[{name: a, regex: '^x{1,2}$'}]");
    assert_eq!((s.syslog.patterns.len(), s.syslog.patterns[0].regex.as_str()), (1, "^x{1,2}$"));
    assert_eq!((s.syslog.patterns[0].line, s.syslog.patterns[0].line_of("regex")), (None, None));
    assert_eq!(with(name, "").syslog.patterns, []);
    assert_eq!(
        report("", &[(name, "[{name: a, regex: b, severity: 7, name: c}]")]),
        [
            "- FAIL2BAN_SYSLOG_PATTERNS[0].name: is given twice",
            "- FAIL2BAN_SYSLOG_PATTERNS[0].severity: expected a whole number from 1 to 6, found the number 7"
        ]
    );
    assert_eq!(report("", &[(name, "[")]).len(), 1);
    assert_eq!(
        report("", &[(name, "a,b")]),
        ["- FAIL2BAN_SYSLOG_PATTERNS: expected a list of patterns, found the text \"a,b\""]
    );
}

#[test]
fn changes_that_need_a_restart_are_named() {
    let old = Settings::default();
    assert_eq!(restart_needed(&old, &old), Vec::<&str>::new());
    let new = good(
        "ban: {max_attempts: 3, whitelist: 10.0.0.0/8, ipv6_prefix: 56}\nsyslog: {protocol: tcp, patterns: []}\n\
         nginx: {port: 81, address: 127.0.0.1}\nlog: {level: debug}\nruntime: {driver: epoll}\n",
    );
    assert_eq!(restart_needed(&old, &new), ["syslog.protocol", "nginx.address", "nginx.port", "runtime.driver"]);
    let new = good("database: {dsn: ./other.db, max_retries: 4}\n");
    assert_eq!(restart_needed(&old, &new), ["database.dsn", "database.max_retries"]);
}

#[test]
fn many_patterns_and_many_faults_are_read_in_little_time() {
    let mut yaml = "syslog:\n  patterns:\n".to_owned();
    for i in 0..2000 {
        yaml.push_str(&format!("    - name: p{i}\n      regex: '^x{i} (?P<ip>[0-9.]+)$'\n      severity: {}\n", i % 8));
    }
    let started = Instant::now();
    let faults = read(&yaml, &[]).unwrap_err();
    assert_eq!(faults.as_slice().len(), 500);
    assert_eq!(faults.as_slice()[499].line, Some(2 + 1999 * 3 + 3));
    // Milliseconds in truth; the bound only notices work that grows with the square.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

proptest! {
    #[test]
    fn no_file_and_no_variable_makes_it_panic(
        yaml in "(ban|log|x|\\p{L})?[:{}\\[\\]&*!|>'\"#%@,\\-? \\n\\t0-9a-z~.]{0,60}",
        value in "\\PC{0,20}",
        row in 0..SETTINGS.len(),
    ) {
        let _ = parse("x", &yaml, [(SETTINGS[row].environment_name(), value.clone())].into_iter());
        let parts: Vec<&str> = SETTINGS[row].key.split('.').collect();
        let lines = parts.iter().enumerate().map(|(depth, part)| format!("{}{part}:", "  ".repeat(depth)));
        let yaml = format!("{} {value}\n", lines.collect::<Vec<_>>().join("\n"));
        if let Err(faults) = parse("x", &yaml, std::iter::empty()) {
            prop_assert!(!faults.as_slice().is_empty());
            prop_assert_eq!(faults.to_string().lines().count(), faults.as_slice().len(), "{}", faults);
        }
    }
}

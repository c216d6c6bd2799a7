//! The one table of settings, and the one of a pattern's keys. Everything else is derived from them.

use crate::engine::ban::FailureKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::fault::ENVIRONMENT_PREFIX;
use super::kind::{Kind, TextRule};
use super::settings::{
    ApiSettings, BanSettings, BasicAuthSettings, Choice, DatabaseDriver, DatabaseSettings, Driver, EnvoySettings,
    LogFormat, LogLevel, LogSettings, NginxSettings, OnUnknown, PatternSettings, PrometheusSettings, Protocol,
    RateLimitSettings, RuntimeSettings, Secret, Settings, SpoaSettings, SyslogSettings, TokenSettings, UserSettings,
};
use crate::engine::address::Network;
use crate::engine::time::Time;

/// The patterns that apply when the file gives none, as they would stand in it.
pub const BUILT_IN_YAML: &str = include_str!("patterns.yaml");

/// One setting of `T`: [`Settings`] for those of the file, [`PatternSettings`] for the keys of a pattern.
pub struct Setting<T: 'static> {
    /// `ban.max_attempts`; a pattern's keys have no section.
    pub key: &'static str,
    pub kind: Kind,
    pub absent: Absent,
    /// What a number counts; empty where the kind says it.
    pub unit: &'static str,
    pub doc: &'static str,
    pub reload: Reload,
    /// Where the value is kept. Its type must fit the kind, which a test holds.
    pub(super) place: for<'a> fn(&'a mut T) -> Place<'a>,
}

/// What holds when the key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// This value, as it would be written in the file.
    Default(&'static str),
    /// It is a fault.
    Required,
    /// No value; the text says what that means.
    Nothing(&'static str),
}

/// Whether a changed value is taken over when the running server reads its settings again (SIGHUP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Yes: it is part of the policy that is swapped on every shard.
    Live,
    /// No: sockets, threads and tables are made from it once.
    Restart,
}

/// The field that a setting is kept in.
#[derive(PartialEq)]
pub(super) enum Place<'a> {
    Bool(&'a mut bool),
    U8(&'a mut u8),
    U16(&'a mut u16),
    U32(&'a mut u32),
    MaybeU32(&'a mut Option<u32>),
    Usize(&'a mut usize),
    F64(&'a mut f64),
    Duration(&'a mut Duration),
    Text(&'a mut String),
    Texts(&'a mut Vec<String>),
    Ip(&'a mut IpAddr),
    MaybeIp(&'a mut Option<IpAddr>),
    Socket(&'a mut SocketAddr),
    Networks(&'a mut Vec<Network>),
    Choice(ChoicePlace<'a>),
    Patterns(&'a mut Vec<PatternSettings>),
    Users(&'a mut Vec<UserSettings>),
    Tokens(&'a mut Vec<TokenSettings>),
}

/// A place for a [`Choice`], comparable by the word that is chosen.
pub(super) struct ChoicePlace<'a>(pub &'a mut dyn Choice);

impl PartialEq for ChoicePlace<'_> {
    fn eq(&self, other: &ChoicePlace<'_>) -> bool {
        self.0.chosen() == other.0.chosen()
    }
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

/// Ten years: who is to be kept out for longer belongs on the blacklist.
const BAN_TIME_MAX: Duration = days(3650);

// What was decided that long before the start must have a time.
const _: () = assert!(BAN_TIME_MAX.as_millis() < Time::START.millis() as u128);

/// The sections in the order of `config.yaml`, and what each is about. One with a dot is a group of keys within another,
/// behind that one's own keys.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("syslog", "Where log lines come in, and which of them are failed logins."),
    ("spoa", "The agent that HAProxy asks (SPOE): it sets the variable `banned`."),
    ("envoy", "The gRPC server that Envoy asks (ext_authz)."),
    ("nginx", "The HTTP server that answers nginx's auth_request: 200 lets the client in, 403 does not."),
    ("ban", "When a client is banned, and for how long."),
    ("database", "What several nodes have in common: patterns, ban settings, lists and bans, from SQL."),
    ("prometheus", "Metrics for Prometheus."),
    ("api", "The REST API and the page for operators: who is banned and why, bans and lists."),
    ("api.basic_auth", "Users and passwords (RFC 7617)."),
    ("api.rate_limiting", "How often one client may ask."),
    ("runtime", "How the program uses the machine."),
    ("log", "What the program says about itself, on standard error."),
];

/// Every setting, grouped by section, in the order of `config.yaml`.
pub static SETTINGS: &[Setting<Settings>] = &[
    Setting {
        key: "syslog.address",
        kind: Kind::SocketAddress,
        absent: Absent::Default("127.0.0.1:5514"),
        unit: "",
        doc: "Address and port on which log lines are received. The standard port, 514, needs a privilege, so it is \
              not the default. Whoever can send here can have anybody banned: keep it on a loopback or private \
              address, or name the senders in `allowed_senders`.",
        reload: Reload::Restart,
        place: |s| Place::Socket(&mut s.syslog.address),
    },
    Setting {
        key: "syslog.protocol",
        kind: Kind::Choice(Protocol::NAMES),
        absent: Absent::Default("both"),
        unit: "",
        doc: "Transports to listen on. UDP loses lines when a network or a queue is full; TCP makes the sender wait.",
        reload: Reload::Restart,
        place: |s| Place::Choice(ChoicePlace(&mut s.syslog.protocol)),
    },
    Setting {
        key: "syslog.allowed_senders",
        kind: Kind::Networks,
        absent: Absent::Default("[]"),
        unit: "",
        doc: "Who may send log lines; lines from elsewhere are dropped and counted. Empty means anybody, which is \
              safe only as long as `address` cannot be reached from outside. Sender addresses of UDP can be forged.",
        reload: Reload::Live,
        place: |s| Place::Networks(&mut s.syslog.allowed_senders),
    },
    Setting {
        key: "syslog.max_message_bytes",
        // RFC 5424 §6.1 and RFC 5426 §3.2: every receiver takes 480 bytes; a UDP datagram over IPv4 holds 65507.
        kind: Kind::Integer { min: 480, max: 65_507 },
        absent: Absent::Default("8192"),
        unit: "bytes",
        doc: "Longest record that is read; a longer one is dropped whole and counted, because what it says at its \
              end, where addresses often stand, would be missing. Mail daemons stay below 2048.",
        reload: Reload::Restart,
        place: |s| Place::Usize(&mut s.syslog.max_message_bytes),
    },
    Setting {
        key: "syslog.max_connections",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        absent: Absent::Default("1024"),
        unit: "connections",
        doc: "TCP connections held at once, over all shards; further ones are closed and counted. A relay needs one, \
              a mail server that sends by itself one each.",
        reload: Reload::Restart,
        place: |s| Place::Usize(&mut s.syslog.max_connections),
    },
    Setting {
        key: "syslog.patterns",
        kind: Kind::Patterns,
        absent: Absent::Default(BUILT_IN_YAML),
        unit: "",
        doc: "What a failed login looks like. A line counts once, however many patterns match it; the one with the \
              highest severity names the failure. Without this key the built-in patterns apply, which `mailfail2ban \
              patterns --yaml` prints as they would stand here; with it, exactly the ones listed.",
        reload: Reload::Live,
        place: |s| Place::Patterns(&mut s.syslog.patterns),
    },
    Setting {
        key: "syslog.with_default_patterns",
        kind: Kind::Bool,
        absent: Absent::Default("false"),
        unit: "",
        doc: "Whether the built-in patterns are used besides those listed under `patterns`. One that is listed takes the \
              place of the built-in one of the same name.",
        reload: Reload::Live,
        place: |s| Place::Bool(&mut s.syslog.with_default_patterns),
    },
    Setting {
        key: "syslog.kinds",
        kind: Kind::Texts(TextRule::FailureKind),
        absent: Absent::Default("[auth, abuse]"),
        unit: "",
        doc: "The kinds of patterns that are used. `auth`: a password was refused. `abuse`: what no honest client does, \
              such as HTTP spoken to a mail server. `probe`: looking around, which honest clients do too: health checks \
              connect and leave, and mail servers have lists with old addresses.",
        reload: Reload::Live,
        place: |s| Place::Texts(&mut s.syslog.kinds),
    },
    Setting {
        key: "syslog.strict",
        kind: Kind::Bool,
        absent: Absent::Default("false"),
        unit: "",
        doc: "Whether a pattern is refused with which a client can have another one banned, by what it writes into a user \
              name or the like. Otherwise there is a warning, with a line that shows it.",
        reload: Reload::Live,
        place: |s| Place::Bool(&mut s.syslog.strict),
    },
    Setting {
        key: "spoa.enabled",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether the agent runs.",
        reload: Reload::Restart,
        place: |s| Place::Bool(&mut s.spoa.enabled),
    },
    Setting {
        key: "spoa.address",
        kind: Kind::IpAddress,
        absent: Absent::Default("0.0.0.0"),
        unit: "",
        doc: "Address to listen on, without the port. Its answers tell who is banned, so keep it off the internet.",
        reload: Reload::Restart,
        place: |s| Place::Ip(&mut s.spoa.address),
    },
    Setting {
        key: "spoa.port",
        kind: Kind::Port,
        absent: Absent::Default("12345"),
        unit: "",
        doc: "Port to listen on.",
        reload: Reload::Restart,
        place: |s| Place::U16(&mut s.spoa.port),
    },
    Setting {
        key: "spoa.socket",
        kind: Kind::Text(TextRule::SocketPath),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "Path of a unix socket to listen on too, for a HAProxy on the same machine: cheaper than TCP. Whoever may \
              enter its folder may ask.",
        reload: Reload::Restart,
        place: |s| Place::Text(&mut s.spoa.socket),
    },
    Setting {
        key: "spoa.max_clients",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        absent: Absent::Default("4096"),
        unit: "connections",
        doc: "Connections held at once, over all shards; further ones are closed and counted. Each thread of each \
              HAProxy holds at least one, and several in a burst; HAProxy 3.1 and newer open one for each question at \
              a time.",
        reload: Reload::Restart,
        place: |s| Place::Usize(&mut s.spoa.max_clients),
    },
    Setting {
        key: "spoa.read_timeout",
        kind: Kind::Duration { min: ms(100), max: hours(24) },
        absent: Absent::Default("30s"),
        unit: "",
        doc: "How long a connection may be without a complete frame before it is closed; keep it above HAProxy's own \
              `timeout idle`, so that HAProxy is the one that closes.",
        reload: Reload::Restart,
        place: |s| Place::Duration(&mut s.spoa.read_timeout),
    },
    Setting {
        key: "envoy.enabled",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether the server runs.",
        reload: Reload::Restart,
        place: |s| Place::Bool(&mut s.envoy.enabled),
    },
    Setting {
        key: "envoy.address",
        kind: Kind::IpAddress,
        absent: Absent::Default("0.0.0.0"),
        unit: "",
        doc: "Address to listen on, without the port. Its answers tell who is banned, so keep it off the internet.",
        reload: Reload::Restart,
        place: |s| Place::Ip(&mut s.envoy.address),
    },
    Setting {
        key: "envoy.port",
        kind: Kind::Port,
        absent: Absent::Default("9001"),
        unit: "",
        doc: "Port to listen on.",
        reload: Reload::Restart,
        place: |s| Place::U16(&mut s.envoy.port),
    },
    Setting {
        key: "envoy.socket",
        kind: Kind::Text(TextRule::SocketPath),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "Path of a unix socket to listen on too, for an Envoy on the same machine: cheaper than TCP. Whoever may \
              enter its folder may ask.",
        reload: Reload::Restart,
        place: |s| Place::Text(&mut s.envoy.socket),
    },
    Setting {
        key: "envoy.read_timeout",
        kind: Kind::Duration { min: ms(100), max: hours(24) },
        absent: Absent::Default("10s"),
        unit: "",
        doc: "How long a first question, and the message of any, may take to arrive, and a peer to take what is written \
              to it, before the connection is closed. A connection that has asked may rest.",
        reload: Reload::Restart,
        place: |s| Place::Duration(&mut s.envoy.read_timeout),
    },
    Setting {
        key: "envoy.trusted_proxies",
        kind: Kind::Networks,
        absent: Absent::Default("[]"),
        unit: "",
        doc: "Proxies in front of Envoy whose X-Forwarded-For is believed. It is read from the right, past trusted \
              proxies, because its left end is whatever the client wrote. Empty means it is never read.",
        reload: Reload::Live,
        place: |s| Place::Networks(&mut s.envoy.trusted_proxies),
    },
    Setting {
        key: "envoy.max_connections",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        absent: Absent::Default("1024"),
        unit: "connections",
        doc: "Connections held at once, over all shards; further ones are closed and counted. Each worker thread of \
              each Envoy holds one, and a health check one more.",
        reload: Reload::Restart,
        place: |s| Place::Usize(&mut s.envoy.max_connections),
    },
    Setting {
        key: "nginx.enabled",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether the server runs.",
        reload: Reload::Restart,
        place: |s| Place::Bool(&mut s.nginx.enabled),
    },
    Setting {
        key: "nginx.address",
        kind: Kind::IpAddress,
        absent: Absent::Default("0.0.0.0"),
        unit: "",
        doc: "Address to listen on, without the port. 0.0.0.0 is every IPv4 address, because the proxies usually are \
              other machines; its answers tell who is banned, so keep it off the internet.",
        reload: Reload::Restart,
        place: |s| Place::Ip(&mut s.nginx.address),
    },
    Setting {
        key: "nginx.port",
        kind: Kind::Port,
        absent: Absent::Default("8888"),
        unit: "",
        doc: "Port to listen on.",
        reload: Reload::Restart,
        place: |s| Place::U16(&mut s.nginx.port),
    },
    Setting {
        key: "nginx.socket",
        kind: Kind::Text(TextRule::SocketPath),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "Path of a unix socket to listen on too, for an nginx on the same machine: a quarter cheaper than TCP. \
              Whoever may enter its folder may ask. Peers on it have no address: without a header that names the \
              client, the client is unknown.",
        reload: Reload::Restart,
        place: |s| Place::Text(&mut s.nginx.socket),
    },
    Setting {
        key: "nginx.read_timeout",
        kind: Kind::Duration { min: ms(100), max: hours(24) },
        absent: Absent::Default("10s"),
        unit: "",
        doc: "How long a request may take to arrive, and a kept-alive connection may be idle, before it is closed.",
        reload: Reload::Restart,
        place: |s| Place::Duration(&mut s.nginx.read_timeout),
    },
    Setting {
        key: "nginx.write_timeout",
        kind: Kind::Duration { min: ms(100), max: hours(24) },
        absent: Absent::Default("10s"),
        unit: "",
        doc: "How long a peer may take to accept an answer before its connection is closed.",
        reload: Reload::Restart,
        place: |s| Place::Duration(&mut s.nginx.write_timeout),
    },
    Setting {
        key: "nginx.return_json",
        kind: Kind::Bool,
        absent: Absent::Default("false"),
        unit: "",
        doc: "Whether a refusal has a JSON body that says why. nginx's auth_request throws the body away.",
        reload: Reload::Live,
        place: |s| Place::Bool(&mut s.nginx.return_json),
    },
    Setting {
        key: "nginx.trusted_proxies",
        kind: Kind::Networks,
        absent: Absent::Default("[]"),
        unit: "",
        doc: "Proxies whose X-Forwarded-For is believed. It is read from the right, past trusted proxies, because its \
              left end is whatever the client wrote. Empty means it is never read.",
        reload: Reload::Live,
        place: |s| Place::Networks(&mut s.nginx.trusted_proxies),
    },
    Setting {
        key: "nginx.on_unknown",
        kind: Kind::Choice(OnUnknown::NAMES),
        absent: Absent::Default("allow"),
        unit: "",
        doc: "The answer where the client's address is malformed. `allow` keeps a misconfigured proxy from locking \
              everybody out; either way it is counted.",
        reload: Reload::Live,
        place: |s| Place::Choice(ChoicePlace(&mut s.nginx.on_unknown)),
    },
    Setting {
        key: "nginx.max_connections",
        kind: Kind::Integer { min: 1, max: 10_000_000 },
        absent: Absent::Default("65536"),
        unit: "connections",
        doc: "Connections held at once, over all shards; further ones are closed and counted. Each needs a file \
              descriptor (LimitNOFILE= in a systemd unit).",
        reload: Reload::Restart,
        place: |s| Place::Usize(&mut s.nginx.max_connections),
    },
    Setting {
        key: "ban.max_attempts",
        kind: Kind::Integer { min: 1, max: 10_000 },
        absent: Absent::Default("5"),
        unit: "failures",
        doc: "Failures within `time_window` at which a client is banned: the 5th failure bans. Enough for a person \
              who tries the passwords that he knows, too few for guessing.",
        reload: Reload::Live,
        place: |s| Place::U32(&mut s.ban.max_attempts),
    },
    Setting {
        key: "ban.time_window",
        kind: Kind::Duration { min: seconds(1), max: days(30) },
        absent: Absent::Default("10m"),
        unit: "",
        doc: "How long a failure counts. Times are those of arrival; the times in the lines are the senders'.",
        reload: Reload::Live,
        place: |s| Place::Duration(&mut s.ban.time_window),
    },
    Setting {
        key: "ban.initial_ban_time",
        kind: Kind::Duration { min: seconds(1), max: BAN_TIME_MAX },
        absent: Absent::Default("5m"),
        unit: "",
        doc: "Length of the first ban: short, since behind the address may be somebody with an old password on his \
              phone.",
        reload: Reload::Live,
        place: |s| Place::Duration(&mut s.ban.initial_ban_time),
    },
    Setting {
        key: "ban.max_ban_time",
        kind: Kind::Duration { min: seconds(1), max: BAN_TIME_MAX },
        absent: Absent::Default("24h"),
        unit: "",
        doc: "Length that bans grow to; at least `initial_ban_time`. Addresses change hands, so no ban lasts for ever \
              by itself: that is what `blacklist` is for.",
        reload: Reload::Live,
        place: |s| Place::Duration(&mut s.ban.max_ban_time),
    },
    Setting {
        key: "ban.escalation_factor",
        kind: Kind::Decimal { min: 1.0, max: 100.0 },
        absent: Absent::Default("2.0"),
        unit: "",
        doc: "How much longer each further ban of the same client is: 5m, 10m, 20m, … up to `max_ban_time`. 1.0 \
              makes all bans equally long.",
        reload: Reload::Live,
        place: |s| Place::F64(&mut s.ban.escalation_factor),
    },
    Setting {
        key: "ban.max_memory_ttl",
        kind: Kind::Duration { min: seconds(1), max: BAN_TIME_MAX },
        absent: Absent::Default("72h"),
        unit: "",
        doc: "How long after its last offence a client is remembered as an offender. After that its next ban is a \
              first one again; make it longer than `max_ban_time`.",
        reload: Reload::Live,
        place: |s| Place::Duration(&mut s.ban.max_memory_ttl),
    },
    Setting {
        key: "ban.cleanup_interval",
        kind: Kind::Duration { min: ms(100), max: hours(24) },
        absent: Absent::Default("1m"),
        unit: "",
        doc: "How often what has run out is cleared from memory. It never prolongs a ban: one that has run out is not \
              enforced, cleared or not.",
        reload: Reload::Live,
        place: |s| Place::Duration(&mut s.ban.cleanup_interval),
    },
    Setting {
        key: "ban.ipv4_prefix",
        kind: Kind::Integer { min: 8, max: 32 },
        absent: Absent::Default("32"),
        unit: "bits",
        doc: "How much of an IPv4 address makes a client: 32 judges each address by itself, 24 makes 256 neighbours \
              one client that is counted and banned together.",
        reload: Reload::Live,
        place: |s| Place::U8(&mut s.ban.ipv4_prefix),
    },
    Setting {
        key: "ban.ipv6_prefix",
        kind: Kind::Integer { min: 16, max: 128 },
        absent: Absent::Default("64"),
        unit: "bits",
        doc: "The same for IPv6. One subscriber usually has a whole /64 and can use a new address for every attempt, \
              so 128 would count nothing.",
        reload: Reload::Live,
        place: |s| Place::U8(&mut s.ban.ipv6_prefix),
    },
    Setting {
        key: "ban.max_tracked",
        kind: Kind::Integer { min: 1_000, max: 100_000_000 },
        absent: Absent::Default("1000000"),
        unit: "clients",
        doc: "How many clients are counted, and how many offenders remembered, at most, over all shards. It bounds \
              memory; when it is reached, the client heard of least recently is forgotten first, and that is counted.",
        reload: Reload::Live,
        place: |s| Place::Usize(&mut s.ban.max_tracked),
    },
    Setting {
        key: "ban.whitelist",
        kind: Kind::Networks,
        absent: Absent::Default("[]"),
        unit: "",
        doc: "Who is never counted and never denied; it beats `blacklist` and every ban. Name your own webmail and \
              proxies here: many people log in from their addresses.",
        reload: Reload::Live,
        place: |s| Place::Networks(&mut s.ban.whitelist),
    },
    Setting {
        key: "ban.blacklist",
        kind: Kind::Networks,
        absent: Absent::Default("[]"),
        unit: "",
        doc: "Who is always denied, unless on `whitelist`.",
        reload: Reload::Live,
        place: |s| Place::Networks(&mut s.ban.blacklist),
    },
    Setting {
        key: "database.enabled",
        kind: Kind::Bool,
        absent: Absent::Default("false"),
        unit: "",
        doc: "Whether patterns, ban settings, blacklist and whitelist come from a database. An empty one is filled from \
              the patterns and ban settings of this file; from then on the database counts, not the file. The file's own \
              `whitelist` and `blacklist` stay in force, in addition to the tables of these names.",
        reload: Reload::Restart,
        place: |s| Place::Bool(&mut s.database.enabled),
    },
    Setting {
        key: "database.driver",
        kind: Kind::Choice(DatabaseDriver::NAMES),
        absent: Absent::Default("sqlite3"),
        unit: "",
        doc: "What the database is. For MariaDB write mysql.",
        reload: Reload::Restart,
        place: |s| Place::Choice(ChoicePlace(&mut s.database.driver)),
    },
    Setting {
        key: "database.dsn",
        kind: Kind::Text(TextRule::NotEmpty),
        absent: Absent::Default("./fail2ban.db"),
        unit: "",
        doc: "Where the database is, in one of these forms:\n\
              sqlite3: ./fail2ban.db, file:/var/lib/mailfail2ban/fail2ban.db\n\
              mysql: user:password@tcp(localhost:3306)/fail2ban, user@unix(/run/mysqld/mysqld.sock)/fail2ban,\n\
              mysql://user:password@localhost:3306/fail2ban\n\
              postgres: postgres://user:password@localhost:5432/fail2ban,\n\
              postgres://user@/fail2ban?host=/run/postgresql,\n\
              host=localhost user=user password='p w' dbname=fail2ban\n\
              Behind a scheme like postgres:// write % @ / : ? # & of names and passwords as %25 %40 %2F %3A %3F %23 \
              %26. The password is never shown, and FAIL2BAN_DATABASE_DSN keeps it out of this file. Connections are \
              encrypted where the server can. To insist on that and on the right server, add ?sslmode=verify-full \
              (postgres), ?tls=true or ?ssl-mode=VERIFY_IDENTITY (mysql); sslrootcert= or ssl-ca= names the file of an \
              authority of your own.",
        reload: Reload::Restart,
        place: |s| Place::Text(&mut s.database.dsn.0),
    },
    Setting {
        key: "database.refresh_interval",
        kind: Kind::Duration { min: seconds(1), max: hours(24) },
        absent: Absent::Default("5m"),
        unit: "",
        doc: "Everything is read again at least this often. It does not delay changes, which normally are in force \
              within about a second.",
        reload: Reload::Restart,
        place: |s| Place::Duration(&mut s.database.refresh_interval),
    },
    Setting {
        key: "database.max_retries",
        kind: Kind::Integer { min: 0, max: 1_000 },
        absent: Absent::Default("3"),
        unit: "failures",
        doc: "How many failures in a row are taken for hiccups. What failed is tried again after a quarter of a second, \
              then after twice as long each time, up to `retry_delay`. After this many it is an outage, which is logged \
              as an error, and tries go on every `retry_delay`. Meanwhile the last good copy is in force.",
        reload: Reload::Restart,
        place: |s| Place::U32(&mut s.database.max_retries),
    },
    Setting {
        key: "database.retry_delay",
        kind: Kind::Duration { min: ms(100), max: hours(1) },
        absent: Absent::Default("5s"),
        unit: "",
        doc: "The longest wait before what failed is tried again.",
        reload: Reload::Restart,
        place: |s| Place::Duration(&mut s.database.retry_delay),
    },
    Setting {
        key: "database.share_bans",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether the bans of this node are written to the table `bans`, and those that other nodes wrote there are \
              enforced here.",
        reload: Reload::Restart,
        place: |s| Place::Bool(&mut s.database.share_bans),
    },
    Setting {
        key: "prometheus.enabled",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether metrics are served.",
        reload: Reload::Restart,
        place: |s| Place::Bool(&mut s.prometheus.enabled),
    },
    Setting {
        key: "prometheus.address",
        kind: Kind::IpAddress,
        absent: Absent::Default("127.0.0.1"),
        unit: "",
        doc: "Address to listen on, without the port. Loopback, because metrics have no password.",
        reload: Reload::Restart,
        place: |s| Place::Ip(&mut s.prometheus.address),
    },
    Setting {
        key: "prometheus.port",
        kind: Kind::Port,
        absent: Absent::Default("2112"),
        unit: "",
        doc: "Port to listen on.",
        reload: Reload::Restart,
        place: |s| Place::U16(&mut s.prometheus.port),
    },
    Setting {
        key: "prometheus.path",
        kind: Kind::Text(TextRule::UrlPath),
        absent: Absent::Default("/metrics"),
        unit: "",
        doc: "Path under which the metrics are found, as in `metrics_path` of Prometheus.",
        reload: Reload::Restart,
        place: |s| Place::Text(&mut s.prometheus.path),
    },
    Setting {
        key: "api.enabled",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether the API and the page are served. The command line's own socket in `runtime.state_dir` is there \
              either way.",
        reload: Reload::Live,
        place: |s| Place::Bool(&mut s.api.enabled),
    },
    Setting {
        key: "api.address",
        kind: Kind::IpAddressOrNothing,
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "Address to listen on, without the port. Empty means that the API is served on the port of `nginx`, below \
              /api; with an address it is served there and nowhere else.",
        reload: Reload::Restart,
        place: |s| Place::MaybeIp(&mut s.api.address),
    },
    Setting {
        key: "api.port",
        kind: Kind::Port,
        absent: Absent::Default("8889"),
        unit: "",
        doc: "Port to listen on, if there is an `address`.",
        reload: Reload::Restart,
        place: |s| Place::U16(&mut s.api.port),
    },
    Setting {
        key: "api.allowed_ips",
        kind: Kind::Networks,
        absent: Absent::Default("[127.0.0.0/8, '::1']"),
        unit: "",
        doc: "Who may ask at all. It goes by the peer's own address; X-Forwarded-For is believed only from \
              `nginx.trusted_proxies`. Before you name others than this machine, have a password or a token, and \
              something that encrypts in front. Empty means nobody.",
        reload: Reload::Live,
        place: |s| Place::Networks(&mut s.api.allowed_ips),
    },
    Setting {
        key: "api.max_connections",
        kind: Kind::Integer { min: 1, max: 100_000 },
        absent: Absent::Default("256"),
        unit: "connections",
        doc: "Connections held at once; further ones are told so and closed. Each open page holds one.",
        reload: Reload::Restart,
        place: |s| Place::Usize(&mut s.api.max_connections),
    },
    Setting {
        key: "api.tokens",
        kind: Kind::Tokens,
        absent: Absent::Default("[]"),
        unit: "",
        doc: "Secrets for programs, sent as `Authorization: Bearer …`. Each has a `name`, under which its changes are \
              noted, a `token` of at least 16 characters, or as `hash` its SHA-256 in hexadecimal (printf %s TOKEN | \
              sha256sum), and a `role`: admin, which is the default, or read, which changes nothing.",
        reload: Reload::Live,
        place: |s| Place::Tokens(&mut s.api.tokens),
    },
    Setting {
        key: "api.basic_auth.enabled",
        kind: Kind::Bool,
        absent: Absent::Default("false"),
        unit: "",
        doc: "Whether users have to say who they are. There is no default password.",
        reload: Reload::Live,
        place: |s| Place::Bool(&mut s.api.basic_auth.enabled),
    },
    Setting {
        key: "api.basic_auth.username",
        kind: Kind::Text(TextRule::User),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "The name of an administrator.",
        reload: Reload::Live,
        place: |s| Place::Text(&mut s.api.basic_auth.username),
    },
    Setting {
        key: "api.basic_auth.password",
        kind: Kind::Text(TextRule::Password),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "His password, or its argon2id hash in single quotes: '$argon2id$v=19$m=19456,t=2,p=1$…'. It is never \
              shown, and FAIL2BAN_API_BASIC_AUTH_PASSWORD keeps it out of this file.",
        reload: Reload::Live,
        place: |s| Place::Text(&mut s.api.basic_auth.password.0),
    },
    Setting {
        key: "api.basic_auth.users",
        kind: Kind::Users,
        absent: Absent::Default("{}"),
        unit: "",
        doc: "Further users, as name: password, or name: {password: …, role: read} for one who changes nothing.",
        reload: Reload::Live,
        place: |s| Place::Users(&mut s.api.basic_auth.users),
    },
    Setting {
        key: "api.rate_limiting.enabled",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether there is a limit. It also is what slows down who guesses passwords.",
        reload: Reload::Live,
        place: |s| Place::Bool(&mut s.api.rate_limiting.enabled),
    },
    Setting {
        key: "api.rate_limiting.requests_per_minute",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        absent: Absent::Default("60"),
        unit: "requests",
        doc: "What one client may ask a minute, all at once or spread. An IPv6 client is its /64.",
        reload: Reload::Live,
        place: |s| Place::U32(&mut s.api.rate_limiting.requests_per_minute),
    },
    Setting {
        key: "runtime.shards",
        kind: Kind::Integer { min: 0, max: 1024 },
        absent: Absent::Default("0"),
        unit: "threads",
        doc: "Threads that receive lines and answer proxies; they share nothing, so more than cores only costs. 0 is \
              one for each core that the process may use.",
        reload: Reload::Restart,
        place: |s| Place::Usize(&mut s.runtime.shards),
    },
    Setting {
        key: "runtime.pin",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether each shard stays on one core, where its memory is near. Switch it off where other busy programs \
              share the cores.",
        reload: Reload::Restart,
        place: |s| Place::Bool(&mut s.runtime.pin),
    },
    Setting {
        key: "runtime.driver",
        kind: Kind::Choice(Driver::NAMES),
        absent: Absent::Default("auto"),
        unit: "",
        doc: "How shards wait for the kernel. `auto` takes io_uring where it is allowed, which in many containers it \
              is not, else epoll; a driver that is named here and cannot be had is an error at start.",
        reload: Reload::Restart,
        place: |s| Place::Choice(ChoicePlace(&mut s.runtime.driver)),
    },
    Setting {
        key: "runtime.shutdown_deadline",
        kind: Kind::Duration { min: Duration::ZERO, max: minutes(10) },
        absent: Absent::Default("10s"),
        unit: "",
        doc: "How long work that has begun may take after SIGTERM before everything is closed. 0s closes at once; \
              stay below the patience of the supervisor (90s for systemd, 10s for Docker).",
        reload: Reload::Restart,
        place: |s| Place::Duration(&mut s.runtime.shutdown_deadline),
    },
    Setting {
        key: "runtime.state_dir",
        kind: Kind::Text(TextRule::Folder),
        absent: Absent::Default("./state"),
        unit: "",
        doc: "Folder for what must survive a restart: bans, who was banned before and how often, and the last good copy \
              of the database. One for each running instance; relative to the working directory, and \
              /var/lib/mailfail2ban in the packaged set-up. '' means that nothing is kept.",
        reload: Reload::Restart,
        place: |s| Place::Text(&mut s.runtime.state_dir),
    },
    Setting {
        key: "runtime.node",
        kind: Kind::Text(TextRule::Node),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "What this node is called among those that share a database: letters, digits, `.`, `_` and `-`, at most 64. \
              Empty means the host's name; two instances on one host need names.",
        reload: Reload::Restart,
        place: |s| Place::Text(&mut s.runtime.node),
    },
    Setting {
        key: "log.level",
        kind: Kind::Choice(LogLevel::NAMES),
        absent: Absent::Default("info"),
        unit: "",
        doc: "The least important message that is still written. `info` tells every ban; `debug` is for looking into \
              something and too much for a busy server.",
        reload: Reload::Live,
        place: |s| Place::Choice(ChoicePlace(&mut s.log.level)),
    },
    Setting {
        key: "log.format",
        kind: Kind::Choice(LogFormat::NAMES),
        absent: Absent::Default("auto"),
        unit: "",
        doc: "`human` to read, `json` for log collectors; `auto` is human on a terminal and json elsewhere.",
        reload: Reload::Restart,
        place: |s| Place::Choice(ChoicePlace(&mut s.log.format)),
    },
];

/// The keys of one entry of `syslog.patterns`.
pub static PATTERN_KEYS: &[Setting<PatternSettings>] = &[
    Setting {
        key: "name",
        kind: Kind::Text(TextRule::Name),
        absent: Absent::Required,
        unit: "",
        doc: "What the pattern is called in logs, metrics and answers; no two may have the same.",
        reload: Reload::Live,
        place: |p| Place::Text(&mut p.name),
    },
    Setting {
        key: "regex",
        kind: Kind::Text(TextRule::NotEmpty),
        absent: Absent::Required,
        unit: "",
        doc: "Regular expression in RE2's syntax, as in Go (no look-around, no back-references). The address is what \
              `<IP>` or the group `ip` captures, and `<USER>` is any text; a group `attempts`, if there is one, is the \
              number of failures that the line reports. Write it in single quotes, and anchor it: users choose parts of \
              these lines.",
        reload: Reload::Live,
        place: |p| Place::Text(&mut p.regex),
    },
    Setting {
        key: "ip_group",
        kind: Kind::Integer { min: 1, max: 99 },
        absent: Absent::Nothing("the group named `ip`, else group 1"),
        unit: "",
        doc: "Number of the group that captures the address.",
        reload: Reload::Live,
        place: |p| Place::MaybeU32(&mut p.ip_group),
    },
    Setting {
        key: "severity",
        kind: Kind::Integer { min: 1, max: 6 },
        absent: Absent::Default("1"),
        unit: "",
        doc: "How bad a match is, 6 being the worst; shown with the ban.",
        reload: Reload::Live,
        place: |p| Place::U8(&mut p.severity),
    },
    Setting {
        key: "description",
        kind: Kind::Text(TextRule::Any),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "A sentence for people.",
        reload: Reload::Live,
        place: |p| Place::Text(&mut p.description),
    },
    Setting {
        key: "kind",
        kind: Kind::Choice(&FailureKind::NAMES),
        absent: Absent::Default("auth"),
        unit: "",
        doc: "What its failures are; `syslog.kinds` says which kinds count.",
        reload: Reload::Live,
        place: |p| Place::Choice(ChoicePlace(&mut p.kind)),
    },
    Setting {
        key: "versions",
        kind: Kind::Text(TextRule::Any),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "Which versions of the program write such lines, for people.",
        reload: Reload::Live,
        place: |p| Place::Text(&mut p.versions),
    },
    Setting {
        key: "program",
        kind: Kind::Texts(TextRule::Program),
        absent: Absent::Default("[]"),
        unit: "",
        doc: "Program or list of programs that the pattern is for; `postfix` includes postfix/smtpd and the like. It \
              then sees the message alone, and no other program can write a line that matches. Without it the pattern \
              sees the lines of all programs, as `program[pid]: message`.",
        reload: Reload::Live,
        place: |p| Place::Texts(&mut p.program),
    },
    Setting {
        key: "enabled",
        kind: Kind::Bool,
        absent: Absent::Default("true"),
        unit: "",
        doc: "Whether the pattern is used.",
        reload: Reload::Live,
        place: |p| Place::Bool(&mut p.enabled),
    },
    Setting {
        key: "weight",
        kind: Kind::Integer { min: 0, max: 10_000 },
        absent: Absent::Default("1"),
        unit: "failures",
        doc: "What one matching line counts for, where the line gives no number itself. With 0 it is recognised and shown, \
              but does not count, since another line tells of the same.",
        reload: Reload::Live,
        place: |p| Place::U32(&mut p.weight),
    },
    Setting {
        key: "refused_by",
        kind: Kind::Text(TextRule::Any),
        absent: Absent::Default("\"\""),
        unit: "",
        doc: "Who refused the logins. Where several programs tell of one failed login, give their patterns the same word \
              here, and it counts once: by the session that a group `session` captures, else by client. A group \
              `witness` tells modules apart that each tell of it, such as a chain of password databases.",
        reload: Reload::Live,
        place: |p| Place::Text(&mut p.refused_by),
    },
    Setting {
        key: "examples",
        kind: Kind::Texts(TextRule::NotEmpty),
        absent: Absent::Default("[]"),
        unit: "",
        doc: "Lines, as `program[pid]: message`, on which it is tried whenever it is read. One that ends in ` => \
              192.0.2.1` must be of that client, in ` => 192.0.2.1 x3` with three failures, one in ` => none` must not \
              match, and others must match. What is otherwise is a fault.",
        reload: Reload::Live,
        place: |p| Place::Texts(&mut p.examples),
    },
];

impl<T> Setting<T> {
    /// The key within its section: `max_attempts`.
    pub fn name(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, name)| name)
    }

    /// The section: `ban`, `api.basic_auth`; empty for a pattern's keys.
    pub fn section(&self) -> &'static str {
        self.key.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The environment variable that overrides the file: `FAIL2BAN_BAN_MAX_ATTEMPTS`.
    pub fn environment_name(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.key.replace('.', "_").to_ascii_uppercase())
    }
}

/// Settings with a meaningless value in every field, for the rows' defaults to be written over.
pub(super) fn blank() -> Settings {
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Settings {
        syslog: SyslogSettings {
            address: SocketAddr::new(nowhere, 0),
            protocol: Protocol::Udp,
            patterns: Vec::new(),
            with_default_patterns: false,
            kinds: Vec::new(),
            strict: false,
            allowed_senders: Vec::new(),
            max_message_bytes: 0,
            max_connections: 0,
        },
        spoa: SpoaSettings {
            address: nowhere,
            port: 0,
            socket: String::new(),
            enabled: false,
            max_clients: 0,
            read_timeout: Duration::ZERO,
        },
        envoy: EnvoySettings {
            address: nowhere,
            port: 0,
            socket: String::new(),
            enabled: false,
            read_timeout: Duration::ZERO,
            trusted_proxies: Vec::new(),
            max_connections: 0,
        },
        nginx: NginxSettings {
            address: nowhere,
            port: 0,
            socket: String::new(),
            enabled: false,
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            return_json: false,
            trusted_proxies: Vec::new(),
            on_unknown: OnUnknown::Allow,
            max_connections: 0,
        },
        ban: BanSettings {
            initial_ban_time: Duration::ZERO,
            max_ban_time: Duration::ZERO,
            escalation_factor: 0.0,
            max_attempts: 0,
            time_window: Duration::ZERO,
            cleanup_interval: Duration::ZERO,
            max_memory_ttl: Duration::ZERO,
            ipv4_prefix: 0,
            ipv6_prefix: 0,
            max_tracked: 0,
            whitelist: Vec::new(),
            blacklist: Vec::new(),
        },
        database: DatabaseSettings {
            enabled: false,
            driver: DatabaseDriver::Sqlite3,
            dsn: Secret::default(),
            refresh_interval: Duration::ZERO,
            max_retries: 0,
            retry_delay: Duration::ZERO,
            share_bans: false,
        },
        prometheus: PrometheusSettings { enabled: false, address: nowhere, port: 0, path: String::new() },
        api: ApiSettings {
            enabled: false,
            address: None,
            port: 0,
            allowed_ips: Vec::new(),
            max_connections: 0,
            tokens: Vec::new(),
            basic_auth: BasicAuthSettings {
                enabled: false,
                username: String::new(),
                password: Secret::default(),
                users: Vec::new(),
            },
            rate_limiting: RateLimitSettings { enabled: false, requests_per_minute: 0 },
        },
        runtime: RuntimeSettings {
            shards: 0,
            pin: false,
            driver: Driver::Auto,
            shutdown_deadline: Duration::ZERO,
            state_dir: String::new(),
            node: String::new(),
        },
        log: LogSettings { level: LogLevel::Error, format: LogFormat::Auto },
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of all fields, `section.field` and `section.group.field`, as `Debug` gives them.
    fn fields() -> BTreeSet<String> {
        let mut path: Vec<String> = Vec::new();
        let mut fields = BTreeSet::new();
        for line in format!("{:#?}", blank()).lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            path.truncate((name.len() - name.trim_start().len()) / 4 - 1);
            path.push(name.trim().to_owned());
            if path.len() > 1 && !value.ends_with('{') {
                fields.insert(path.join("."));
            }
        }
        fields
    }

    #[test]
    fn every_field_has_one_row_and_every_row_a_field() {
        let rows: BTreeSet<String> = SETTINGS.iter().map(|row| row.key.to_owned()).collect();
        assert_eq!(rows.len(), SETTINGS.len(), "a key has two rows");
        assert_eq!(rows, fields());
        // Two rows must not be kept in one place.
        let mut blank = blank();
        let places: BTreeSet<usize> = SETTINGS
            .iter()
            .map(|row| match (row.place)(&mut blank) {
                Place::Bool(p) => std::ptr::from_mut(p) as usize,
                Place::U8(p) => std::ptr::from_mut(p) as usize,
                Place::U16(p) => std::ptr::from_mut(p) as usize,
                Place::U32(p) => std::ptr::from_mut(p) as usize,
                Place::MaybeU32(p) => std::ptr::from_mut(p) as usize,
                Place::Usize(p) => std::ptr::from_mut(p) as usize,
                Place::F64(p) => std::ptr::from_mut(p) as usize,
                Place::Duration(p) => std::ptr::from_mut(p) as usize,
                Place::Text(p) => std::ptr::from_mut(p) as usize,
                Place::Texts(p) => std::ptr::from_mut(p) as usize,
                Place::Ip(p) => std::ptr::from_mut(p) as usize,
                Place::MaybeIp(p) => std::ptr::from_mut(p) as usize,
                Place::Socket(p) => std::ptr::from_mut(p) as usize,
                Place::Networks(p) => std::ptr::from_mut(p) as usize,
                Place::Choice(p) => std::ptr::from_mut(p.0).cast::<u8>() as usize,
                Place::Patterns(p) => std::ptr::from_mut(p) as usize,
                Place::Users(p) => std::ptr::from_mut(p) as usize,
                Place::Tokens(p) => std::ptr::from_mut(p) as usize,
            })
            .collect();
        assert_eq!(places.len(), SETTINGS.len());
    }

    #[test]
    fn rows_stand_in_the_order_of_the_sections() {
        let mut sections: Vec<&str> = SETTINGS.iter().map(Setting::section).collect();
        sections.dedup();
        let wanted: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(sections, wanted);
    }

    #[test]
    fn variables_are_told_apart() {
        let names: BTreeSet<String> = SETTINGS.iter().map(Setting::environment_name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        assert!(names.contains("FAIL2BAN_BAN_MAX_ATTEMPTS"));
    }

    #[test]
    fn every_range_fits_its_field() {
        fn check<T>(row: &Setting<T>, target: &mut T) {
            let Kind::Integer { min, max } = row.kind else { return };
            let room = match (row.place)(target) {
                Place::U8(_) => u64::from(u8::MAX),
                Place::U32(_) | Place::MaybeU32(_) | Place::Usize(_) => u64::from(u32::MAX),
                _ => 0,
            };
            assert!(min <= max && max <= room, "{}", row.key);
        }
        SETTINGS.iter().for_each(|row| check(row, &mut blank()));
        PATTERN_KEYS.iter().for_each(|row| check(row, &mut PatternSettings::default()));
    }

    #[test]
    fn every_row_is_explained() {
        for (key, doc) in SETTINGS.iter().map(|r| (r.key, r.doc)).chain(PATTERN_KEYS.iter().map(|r| (r.key, r.doc))) {
            assert!(doc.ends_with('.') && !doc.contains("  "), "{key}");
        }
    }
}

//! The settings as the rest of the program sees them: typed, in range, complete.
//!
//! What each field means, its range and its reason stand in [`super::table`], once.

use crate::engine::ban::FailureKind;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::dsn::{Dsn, DsnFault};
use super::fault::Warning;
use crate::engine::address::Network;

/// Everything an operator can set. Made by [`super::parse`] or [`Settings::default`], so every value is in its range
/// and the values agree with each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub syslog: SyslogSettings,
    pub spoa: SpoaSettings,
    pub envoy: EnvoySettings,
    pub nginx: NginxSettings,
    pub ban: BanSettings,
    pub database: DatabaseSettings,
    pub prometheus: PrometheusSettings,
    pub api: ApiSettings,
    pub runtime: RuntimeSettings,
    pub log: LogSettings,
    /// What was accepted but is likely not what the operator meant; to be logged once at start and at each reload.
    pub warnings: Vec<Warning>,
}

/// Where log lines come in, and which of them are failed logins.
#[derive(Clone, Debug, PartialEq)]
pub struct SyslogSettings {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub patterns: Vec<PatternSettings>,
    pub with_default_patterns: bool,
    /// Kinds of failures that count; patterns of others are not used.
    pub kinds: Vec<String>,
    /// Whether a pattern that a client can steer is a fault.
    pub strict: bool,
    pub allowed_senders: Vec<Network>,
    pub max_message_bytes: usize,
    pub max_connections: usize,
}

/// One kind of log line that means a failed login. The regex is text here: compiling it belongs to a later stage.
#[derive(Clone, Debug, Default)]
pub struct PatternSettings {
    pub name: String,
    pub regex: String,
    /// Capture group that holds the address; `None` is the group named `ip`, else group 1.
    pub ip_group: Option<u32>,
    /// 1 (a nuisance) to 6 (an emergency).
    pub severity: u8,
    pub description: String,
    /// What its failures are.
    pub kind: FailureKind,
    /// Which versions of the daemon write such lines.
    pub versions: String,
    /// Programs whose messages this pattern sees; empty means every program.
    pub program: Vec<String>,
    pub enabled: bool,
    /// Failures that one matching line counts for, where the line itself gives no number. With 0 it never counts.
    pub weight: u32,
    /// Who refused the logins: patterns that say the same may tell of the same logins. Empty: nobody else does.
    pub refused_by: String,
    /// Lines, as `program[pid]: message`, and what is found in them; see [`Example`](super::Example).
    pub examples: Vec<String>,
    /// Line of the entry in the file, from 1; `None` for built-in patterns and those from the environment.
    pub line: Option<usize>,
    /// Lines of the entry's own keys. Use [`PatternSettings::line_of`].
    pub key_lines: BTreeMap<&'static str, usize>,
}

/// What the agent for HAProxy's SPOE does.
#[derive(Clone, Debug, PartialEq)]
pub struct SpoaSettings {
    pub address: IpAddr,
    pub port: u16,
    /// Empty for none.
    pub socket: String,
    pub enabled: bool,
    pub max_clients: usize,
    pub read_timeout: Duration,
}

/// What the gRPC server for Envoy's `ext_authz` does.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvoySettings {
    pub address: IpAddr,
    pub port: u16,
    /// Empty for none.
    pub socket: String,
    pub enabled: bool,
    pub read_timeout: Duration,
    pub trusted_proxies: Vec<Network>,
    pub max_connections: usize,
}

/// What the HTTP server for nginx's `auth_request` does.
#[derive(Clone, Debug, PartialEq)]
pub struct NginxSettings {
    pub address: IpAddr,
    pub port: u16,
    /// Empty for none.
    pub socket: String,
    pub enabled: bool,
    pub read_timeout: Duration,
    pub write_timeout: Duration,
    pub return_json: bool,
    pub trusted_proxies: Vec<Network>,
    pub on_unknown: OnUnknown,
    pub max_connections: usize,
}

/// When a client is banned, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct BanSettings {
    pub initial_ban_time: Duration,
    /// Never shorter than `initial_ban_time`.
    pub max_ban_time: Duration,
    pub escalation_factor: f64,
    pub max_attempts: u32,
    pub time_window: Duration,
    pub cleanup_interval: Duration,
    pub max_memory_ttl: Duration,
    pub ipv4_prefix: u8,
    pub ipv6_prefix: u8,
    pub max_tracked: usize,
    pub whitelist: Vec<Network>,
    pub blacklist: Vec<Network>,
}

/// Whether patterns, ban settings and lists come from a database, and from which.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseSettings {
    pub enabled: bool,
    pub driver: DatabaseDriver,
    /// Right for the driver if `enabled`; [`DatabaseSettings::target`] takes it apart.
    pub dsn: Secret,
    /// Everything is read again at least this often.
    pub refresh_interval: Duration,
    /// Failures in a row after which it is an outage.
    pub max_retries: u32,
    /// The longest wait before the next try.
    pub retry_delay: Duration,
    pub share_bans: bool,
}

/// Where Prometheus finds the metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct PrometheusSettings {
    pub enabled: bool,
    pub address: IpAddr,
    pub port: u16,
    pub path: String,
}

/// Who may use the API, from where and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiSettings {
    pub enabled: bool,
    /// `None`: on the port of nginx.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub allowed_ips: Vec<Network>,
    pub max_connections: usize,
    pub tokens: Vec<TokenSettings>,
    pub basic_auth: BasicAuthSettings,
    pub rate_limiting: RateLimitSettings,
}

/// Who has a password. [`ApiSettings::users`] has all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct BasicAuthSettings {
    pub enabled: bool,
    /// Empty for none.
    pub username: String,
    pub password: Secret,
    pub users: Vec<UserSettings>,
}

/// A user of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSettings {
    /// Without a colon (RFC 7617 §2).
    pub name: String,
    /// In the clear, or an argon2id hash that can be computed: then it begins with `$argon2id$`.
    pub password: Secret,
    pub role: Role,
}

/// A secret of a program that uses the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    pub name: String,
    pub token: Token,
    pub role: Role,
}

/// A token as it is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Clear(Secret),
    /// Its SHA-256.
    Hash([u8; 32]),
}

/// How often one client may ask.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitSettings {
    pub enabled: bool,
    pub requests_per_minute: u32,
}

/// How the program uses the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeSettings {
    /// 0 means one per available core.
    pub shards: usize,
    pub pin: bool,
    pub driver: Driver,
    pub shutdown_deadline: Duration,
    /// Empty means that nothing is kept over a restart.
    pub state_dir: String,
    /// Empty means the host's name.
    pub node: String,
}

/// What the program says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    pub level: LogLevel,
    pub format: LogFormat,
}

impl SyslogSettings {
    /// The address of the TCP listener, if there is one.
    pub fn listen_tcp(&self) -> Option<SocketAddr> {
        self.protocol.tcp().then_some(self.address)
    }

    /// The address of the UDP sockets, if there are any.
    pub fn listen_udp(&self) -> Option<SocketAddr> {
        self.protocol.udp().then_some(self.address)
    }
}

impl ApiSettings {
    /// The address of the API's own listener, if it is enabled and has one.
    pub fn listen_tcp(&self) -> Option<SocketAddr> {
        self.address.filter(|_| self.enabled).map(|address| SocketAddr::new(address, self.port))
    }

    /// All users; none if `basic_auth` is not enabled.
    pub fn users(&self) -> Vec<UserSettings> {
        let BasicAuthSettings { enabled, username, password, users } = &self.basic_auth;
        let first = || UserSettings { name: username.clone(), password: password.clone(), role: Role::Admin };
        let first = (!username.is_empty()).then(first);
        if *enabled { first.into_iter().chain(users.iter().cloned()).collect() } else { Vec::new() }
    }
}

impl DatabaseSettings {
    /// Where the database is, and how to get in.
    ///
    /// # Errors
    ///
    /// If the DSN is not one of the driver. It is checked with the rest of the settings only if `enabled`.
    pub fn target(&self) -> Result<Dsn, DsnFault> {
        Dsn::parse(self.driver, self.dsn.reveal())
    }
}

/// A text that must not be read by whoever reads logs, reports and panics: it is shown by none of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A server that can be switched off, on an address and a port of its own.
macro_rules! listens_on_tcp {
    ($($type:ident)+) => {$(
        impl $type {
            /// The address of the listener, if it is enabled.
            pub fn listen_tcp(&self) -> Option<SocketAddr> {
                self.enabled.then_some(SocketAddr::new(self.address, self.port))
            }
        }
    )+};
}

/// A server that may also listen on a unix socket.
macro_rules! listens_on_unix {
    ($($type:ident)+) => {$(
        impl $type {
            /// The path of the unix socket, if there is one and the server is enabled.
            pub fn listen_unix(&self) -> Option<&str> {
                (self.enabled && !self.socket.is_empty()).then_some(self.socket.as_str())
            }
        }
    )+};
}

listens_on_tcp! { SpoaSettings EnvoySettings NginxSettings PrometheusSettings }
listens_on_unix! { SpoaSettings EnvoySettings NginxSettings }

impl PatternSettings {
    /// The line of one of the entry's keys (`regex`, `examples`, …) for a fault found later; the line of the entry
    /// where the key is not written out.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        self.key_lines.get(key).copied().or(self.line)
    }

    /// The name under which faults speak of a pattern's key: `syslog.patterns[2].regex`, counted from 0.
    pub fn key(index: usize, key: &str) -> String {
        format!("syslog.patterns[{index}].{key}")
    }
}

/// Equal when they say the same; where they were written does not matter.
impl PartialEq for PatternSettings {
    fn eq(&self, other: &PatternSettings) -> bool {
        // Taken apart without `..`, so that a new field cannot be forgotten here.
        let PatternSettings {
            name,
            regex,
            ip_group,
            severity,
            description,
            kind,
            versions,
            program,
            enabled,
            weight,
            refused_by,
            examples,
            line: _,
            key_lines: _,
        } = self;
        *name == other.name
            && *regex == other.regex
            && *ip_group == other.ip_group
            && *severity == other.severity
            && *description == other.description
            && *kind == other.kind
            && *versions == other.versions
            && *program == other.program
            && *enabled == other.enabled
            && *weight == other.weight
            && *refused_by == other.refused_by
            && *examples == other.examples
    }
}

/// A setting that is one of a few words. Lets the table store any of them without knowing which.
pub(super) trait Choice {
    /// Takes the value called `name`; false, and nothing changed, if there is none.
    fn choose(&mut self, name: &str) -> bool;
    fn chosen(&self) -> &'static str;
}

impl Choice for FailureKind {
    fn choose(&mut self, name: &str) -> bool {
        let Some(kind) = FailureKind::from_name(name) else { return false };
        *self = kind;
        true
    }

    fn chosen(&self) -> &'static str {
        self.name()
    }
}

/// An enum whose variants have names in the file, with everything that follows from the names.
macro_rules! choices {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$variant_doc])* $variant,)+ }

        impl $type {
            /// The words that stand for the variants in the file, in the order of declaration.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The word for this value.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)+ }
            }
        }

        impl Choice for $type {
            fn choose(&mut self, name: &str) -> bool {
                *self = match name { $($name => $type::$variant,)+ _ => return false };
                true
            }

            fn chosen(&self) -> &'static str {
                self.name()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

choices! {
    /// Transports on which syslog is received.
    Protocol {
        Udp = "udp",
        Tcp = "tcp",
        Both = "both",
    }
}

impl Protocol {
    pub fn udp(self) -> bool {
        matches!(self, Protocol::Udp | Protocol::Both)
    }

    pub fn tcp(self) -> bool {
        matches!(self, Protocol::Tcp | Protocol::Both)
    }
}

choices! {
    /// What nginx is told about a request from which no client address can be read.
    OnUnknown {
        Allow = "allow",
        Deny = "deny",
    }
}

choices! {
    /// What somebody who uses the API may do.
    Role {
        Admin = "admin",
        /// Ask, but change nothing.
        Read = "read",
    }
}

choices! {
    /// What the database is.
    DatabaseDriver {
        Sqlite3 = "sqlite3",
        Postgres = "postgres",
        /// MariaDB as well.
        Mysql = "mysql",
    }
}

choices! {
    /// How the shards wait for the kernel.
    Driver {
        /// io_uring where the kernel allows it, else epoll.
        Auto = "auto",
        IoUring = "io_uring",
        Epoll = "epoll",
    }
}

choices! {
    /// The least important message that is still logged.
    LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
    }
}

choices! {
    /// The shape of the program's own log lines.
    LogFormat {
        /// Human on a terminal, JSON elsewhere.
        Auto = "auto",
        Human = "human",
        Json = "json",
    }
}

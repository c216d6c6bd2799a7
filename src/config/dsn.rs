//! Where a database is: one type for what people write in the forms of three worlds.
//!
//! ```text
//! sqlite3   ./fail2ban.db   file:fail2ban.db?cache=shared   sqlite:///var/lib/fail2ban.db
//! mysql     user:password@tcp(localhost:3306)/fail2ban?tls=skip-verify     (go-sql-driver/mysql, README, "DSN")
//!           mysql://user:p%40ss@localhost:3306/fail2ban?ssl-mode=REQUIRED
//! postgres  postgres://user:p%40ss@localhost/fail2ban?sslmode=disable      (libpq, §"Connection Strings")
//!           host=localhost user=user password='p w' dbname=fail2ban
//! ```
//!
//! The form is recognised first, whatever the driver is, so that a DSN of another database is never taken for a file
//! with a password in its name.
//!
//! No password leaves this file but in a [`Secret`]. A fault repeats nothing of the text, save the name of a parameter
//! where that cannot be a piece of a password.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::fault::printable;
use super::settings::{DatabaseDriver, Secret};

/// Where a database is, and how to get in.
///
/// `Display` shows it without the password: `postgres://user@localhost:5432/fail2ban`.
///
/// ```
/// use mailfail2ban::config::{DatabaseDriver, Dsn};
/// let dsn = Dsn::parse(DatabaseDriver::Mysql, "user:p@ss@tcp(localhost)/fail2ban").unwrap();
/// assert_eq!(dsn.to_string(), "mysql://user@localhost:3306/fail2ban");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dsn {
    /// A file, relative to the working directory or absolute. Never a database in memory.
    Sqlite {
        path: PathBuf,
    },
    Server(ServerDsn),
}

/// A database that is asked over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerDsn {
    /// Postgres or Mysql.
    pub driver: DatabaseDriver,
    /// Never empty.
    pub user: String,
    pub password: Option<Secret>,
    pub host: Host,
    /// Never empty.
    pub database: String,
    pub tls: Tls,
    /// Certificates of the authorities that are believed; without it those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address; one of IPv6 without brackets.
    Tcp { host: String, port: u16 },
    /// For MySQL the path of the unix socket, and the port means nothing. For PostgreSQL the folder in which the socket
    /// has the port in its name: `.s.PGSQL.5432`.
    Socket { path: PathBuf, port: u16 },
}

/// Whether a connection is encrypted, and what is asked of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Off,
    /// If the server can.
    Prefer,
    /// Always, with whatever certificate.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// The same, and it must be for this host.
    VerifyFull,
}

/// Why a text is no DSN. `Display` says what to write instead, and nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DsnFault {
    /// Not in a form of this driver; `found` says what it is instead.
    Form {
        driver: DatabaseDriver,
        found: &'static str,
    },
    /// A DSN of another driver.
    OtherDriver {
        driver: DatabaseDriver,
        found: DatabaseDriver,
    },
    ControlCharacter,
    /// A `%` that is not followed by two hexadecimal digits, or what they say is not UTF-8.
    PercentEncoding,
    /// A `/` or `?` in the user or password of a URL, or an `@` behind the host.
    NotEncoded,
    InMemory,
    ReadOnly,
    /// Of SQLite: nothing, or a folder.
    NoFile,
    NoUser,
    NoDatabase,
    Host,
    Port,
    /// Of MySQL: neither `tcp(…)` nor `unix(…)`.
    Address,
    /// `mysql://user@tcp(…)/…`: two forms in one.
    MixedForms,
    /// Of PostgreSQL: not `name=value name='value'`.
    Keywords,
    /// Not known here, by name if that can be shown.
    UnknownParameter(Option<String>),
    TwiceGiven(&'static str),
    ParameterValue {
        name: &'static str,
        expected: &'static str,
    },
}

impl Dsn {
    /// Takes a DSN apart; the module's documentation has the forms.
    ///
    /// # Errors
    ///
    /// If it has none of the forms of the driver, or says what cannot be had.
    pub fn parse(driver: DatabaseDriver, text: &str) -> Result<Dsn, DsnFault> {
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err(DsnFault::ControlCharacter);
        }
        let form = Form::of(text);
        match (driver, form) {
            (DatabaseDriver::Sqlite3, Form::File { path, encoded }) => parse_file(path, encoded),
            (DatabaseDriver::Mysql, Form::MysqlUrl(rest)) => parse_url(driver, rest).map(Dsn::Server),
            (DatabaseDriver::Mysql, Form::Go(text)) => parse_go(text).map(Dsn::Server),
            (DatabaseDriver::Postgres, Form::PostgresUrl(rest)) => parse_url(driver, rest).map(Dsn::Server),
            (DatabaseDriver::Postgres, Form::Keywords(text)) => parse_keywords(text).map(Dsn::Server),
            (_, Form::MysqlUrl(_) | Form::Go(_)) => Err(DsnFault::OtherDriver { driver, found: DatabaseDriver::Mysql }),
            (_, Form::PostgresUrl(_) | Form::Keywords(_)) => {
                Err(DsnFault::OtherDriver { driver, found: DatabaseDriver::Postgres })
            }
            (_, Form::File { path: "", .. }) => Err(DsnFault::Form { driver, found: "nothing" }),
            (_, Form::File { .. }) => Err(DsnFault::Form { driver, found: "the path of a file" }),
            (_, Form::Unknown) => Err(DsnFault::Form { driver, found: "a scheme that is not known" }),
        }
    }

    /// Which database this is: what `Display` shows. Equal for two DSNs that differ in their passwords only, so a stored
    /// copy stays of use when the password changes.
    pub fn identity(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dsn::Sqlite { path } => path.display().fmt(f),
            Dsn::Server(server) => server.fmt(f),
        }
    }
}

impl fmt::Display for ServerDsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerDsn { driver, user, host, database, .. } = self;
        write!(f, "{driver}://{}@", encoded(user))?;
        match host {
            Host::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}")?,
            Host::Tcp { host, port } => write!(f, "{host}:{port}")?,
            Host::Socket { path, port } if *driver == DatabaseDriver::Postgres => {
                write!(f, "unix({}/.s.PGSQL.{port})", path.display())?;
            }
            Host::Socket { path, .. } => write!(f, "unix({})", path.display())?,
        }
        write!(f, "/{}", encoded(database))
    }
}

impl DatabaseDriver {
    /// What a DSN of this driver looks like.
    pub(super) fn dsn_example(self) -> &'static str {
        match self {
            DatabaseDriver::Sqlite3 => "the path of a file, like ./fail2ban.db",
            DatabaseDriver::Postgres => "a DSN like postgres://user:password@localhost:5432/fail2ban",
            DatabaseDriver::Mysql => "a DSN like user:password@tcp(localhost:3306)/fail2ban",
        }
    }

    fn default_port(self) -> u16 {
        if self == DatabaseDriver::Postgres { 5432 } else { 3306 }
    }
}

impl fmt::Display for DsnFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DsnFault::Form { driver, found } => write!(f, "expected {}, found {found}", driver.dsn_example()),
            DsnFault::OtherDriver { driver, found } => write!(
                f,
                "expected {}, found one of {found}; if it is that, write `driver: {found}`",
                driver.dsn_example()
            ),
            DsnFault::ControlCharacter => f.write_str("expected no line breaks and other control characters in it"),
            DsnFault::PercentEncoding => f.write_str("expected two hexadecimal digits of UTF-8 behind each %; for the sign itself write %25"),
            DsnFault::NotEncoded => f.write_str(
                "an @ stands behind the host: in names, passwords and parameters write @ / ? as %40 %2F %3F",
            ),
            DsnFault::InMemory => {
                f.write_str("expected the path of a file, found a database in memory, which is gone at every restart")
            }
            DsnFault::ReadOnly => f.write_str("must not be read-only: the database is filled and written to"),
            DsnFault::NoFile => f.write_str("expected the path of a file, like ./fail2ban.db, found none"),
            DsnFault::NoUser => f.write_str("expected a user before the host, as in user:password@…, found none"),
            DsnFault::NoDatabase => f.write_str("expected the name of a database behind the host, as in …/fail2ban"),
            DsnFault::Host => f.write_str(
                "expected one host, as a name, an address (one of IPv6 in brackets) or the absolute path of a socket",
            ),
            DsnFault::Port => f.write_str("expected a port from 1 to 65535 behind the host"),
            DsnFault::Address => f.write_str(
                "expected tcp(localhost:3306) or unix(/run/mysqld/mysqld.sock) between user:password@ and the last /",
            ),
            DsnFault::MixedForms => {
                f.write_str("where the address is in tcp(…) or unix(…), leave out what stands before the user")
            }
            DsnFault::Keywords => f.write_str(
                "expected name=value and blanks between; a value with blanks in single quotes, and \\ before a ' in it",
            ),
            DsnFault::UnknownParameter(Some(name)) => write!(f, "there is no parameter `{name}` here"),
            DsnFault::UnknownParameter(None) => f.write_str(
                "one of its parameters is not known; if it is a piece of the password, that has to be quoted or encoded",
            ),
            DsnFault::TwiceGiven(name) => write!(f, "the parameter `{name}` is given twice"),
            DsnFault::ParameterValue { name, expected } => write!(f, "the parameter `{name}` can be {expected}"),
        }
    }
}

impl std::error::Error for DsnFault {}

/// What a text looks like, and what is left to read of it.
enum Form<'a> {
    File {
        path: &'a str,
        /// It had a scheme, so %20 is a blank.
        encoded: bool,
    },
    PostgresUrl(&'a str),
    Keywords(&'a str),
    MysqlUrl(&'a str),
    Go(&'a str),
    Unknown,
}

impl<'a> Form<'a> {
    fn of(text: &'a str) -> Form<'a> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        match scheme.to_ascii_lowercase().as_str() {
            "postgres" | "postgresql" => return Form::PostgresUrl(rest),
            "mysql" | "mariadb" => return Form::MysqlUrl(rest),
            _ => {}
        }
        // A password may look like anything, so what only Go's form has comes before what a user's name may be.
        if go_address(text).is_some() {
            return Form::Go(text);
        }
        if keyword(text) {
            return Form::Keywords(text);
        }
        if let Some((scheme, rest)) = text.split_once(':')
            && ["file", "sqlite", "sqlite3"].contains(&scheme.to_ascii_lowercase().as_str())
        {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            // The one host that a file can be on (SQLite, "URI Filenames", §3.1).
            let path = path.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(path);
            return Form::File { path, encoded: true };
        }
        if text.contains('@') && !text.starts_with(['/', '.']) {
            return Form::Go(text);
        }
        if text.contains("://") && !text.starts_with(['/', '.']) {
            return Form::Unknown;
        }
        Form::File { path: text, encoded: false }
    }
}

/// Where `tcp(` or `unix(` begins, in front of which only a user and a password can be.
fn go_address(text: &str) -> Option<usize> {
    let nets = ["tcp(", "unix("];
    let behind_user = nets.iter().filter_map(|net| text.rfind(&format!("@{net}"))).map(|at| at + 1).max();
    behind_user.or_else(|| nets.iter().any(|net| text.starts_with(net)).then_some(0))
}

/// Whether it begins with `name =`, as libpq's keywords do, and those of .NET, where it is `User Id=`.
fn keyword(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic() || b"_ ".contains(&b))
    })
}

fn parse_file(text: &str, encoded: bool) -> Result<Dsn, DsnFault> {
    /// What Go's two drivers and sqlx know beside `mode`. How the file is opened is our own affair, so they are passed
    /// over; not so `vfs` and the like, without which it would be another file.
    const HARMLESS: &[&str] = &[
        "_auto_vacuum",
        "_busy_timeout",
        "_cache_size",
        "_case_sensitive_like",
        "_cslike",
        "_defer_fk",
        "_defer_foreign_keys",
        "_fk",
        "_foreign_keys",
        "_ignore_check_constraints",
        "_journal",
        "_journal_mode",
        "_loc",
        "_locking",
        "_locking_mode",
        "_mutex",
        "_pragma",
        "_recursive_triggers",
        "_rt",
        "_secure_delete",
        "_sync",
        "_synchronous",
        "_time_format",
        "_timeout",
        "_txlock",
        "_vacuum",
        "cache",
        "psow",
    ];
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let path = if encoded { decoded(path)? } else { path.to_owned() };
    if path.contains(":memory:") {
        return Err(DsnFault::InMemory);
    }
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        match (name, value.as_str()) {
            ("mode", "rw" | "rwc") | ("immutable", "0" | "false" | "no" | "off") => {}
            ("mode", "memory") => return Err(DsnFault::InMemory),
            ("mode", "ro") | ("immutable", _) => return Err(DsnFault::ReadOnly),
            ("mode", _) => return Err(DsnFault::ParameterValue { name: "mode", expected: "rwc or rw" }),
            (name, _) if HARMLESS.contains(&name) => {}
            (name, _) => return Err(unknown(name, false)),
        }
    }
    if path.is_empty() || path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..") {
        return Err(DsnFault::NoFile);
    }
    if path.chars().any(char::is_control) {
        return Err(DsnFault::ControlCharacter);
    }
    Ok(Dsn::Sqlite { path: PathBuf::from(path) })
}

/// `user:password@host:port/database?name=value`, everything percent-encoded.
fn parse_url(driver: DatabaseDriver, rest: &str) -> Result<ServerDsn, DsnFault> {
    // Before anything else, so that nothing behind it can be a piece of a password.
    let (authority, behind) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if go_address(authority).is_some() || go_address(rest).is_some() {
        return Err(DsnFault::MixedForms);
    }
    if behind.contains('@') {
        return Err(DsnFault::NotEncoded);
    }
    let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));

    let mut parts = Parts::new(driver);
    parts.user = decoded(user)?;
    parts.password = decoded(password)?;
    let (host, port) = host_and_port(host)?;
    parts.host = decoded(host)?;
    parts.port = port;
    let database = path.strip_prefix('/').unwrap_or(path);
    if database.contains('/') {
        return Err(DsnFault::NoDatabase);
    }
    parts.database = decoded(database)?;
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        parts.set(name, value)?;
    }
    parts.finish()
}

/// `[user[:password]@][net[(address)]]/database[?name=value]`, where nothing before the last `/` is encoded.
fn parse_go(text: &str) -> Result<ServerDsn, DsnFault> {
    // The last @ and the last / count. Behind an address in brackets the first / does, which is the same one wherever
    // Go reads it, and lets a path stand among the parameters.
    let end = match go_address(text) {
        Some(address) => text.get(address..).and_then(|rest| rest.find(")/")).map(|at| address + at + 1),
        None => text.rfind('/'),
    };
    let Some((left, right)) = end.and_then(|end| Some((text.get(..end)?, text.get(end + 1..)?))) else {
        return Err(DsnFault::NoDatabase);
    };
    // That was a / in the password, and there is none behind it.
    if right.contains('@') {
        return Err(DsnFault::NoDatabase);
    }
    let (user, address) = left.rsplit_once('@').ok_or(DsnFault::NoUser)?;
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (database, query) = right.split_once('?').unwrap_or((right, ""));

    let mut parts = Parts::new(DatabaseDriver::Mysql);
    parts.user = user.to_owned();
    parts.password = password.to_owned();
    // The defaults are Go's.
    let (net, inner) = match address.strip_suffix(')').and_then(|address| address.split_once('(')) {
        Some((net, inner)) => (net, inner),
        None => (address, ""),
    };
    match (net, inner) {
        ("" | "tcp", "") => parts.host = "127.0.0.1".to_owned(),
        ("tcp", inner) => {
            let (host, port) = host_and_port(inner)?;
            // That would be a path.
            if host.starts_with('/') {
                return Err(DsnFault::Host);
            }
            parts.host = host.to_owned();
            parts.port = port;
        }
        ("unix", "") => parts.host = "/tmp/mysql.sock".to_owned(),
        ("unix", path) if path.starts_with('/') => parts.host = path.to_owned(),
        _ => return Err(DsnFault::Address),
    }
    parts.database = decoded(database)?;
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        parts.set(name, value)?;
    }
    parts.finish()
}

/// `name = value name='value with blanks'`, with `\` before what is not to be taken for something else.
fn parse_keywords(text: &str) -> Result<ServerDsn, DsnFault> {
    let mut parts = Parts::new(DatabaseDriver::Postgres);
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(DsnFault::Keywords)?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(DsnFault::Keywords);
        }
        let (value, after) = keyword_value(after.trim_start())?;
        parts.set(name, value)?;
        rest = after.trim_start();
    }
    parts.finish()
}

/// A value, and what follows it.
fn keyword_value(text: &str) -> Result<(String, &str), DsnFault> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.push(letters.next().ok_or(DsnFault::Keywords)?.1),
            '\'' if quoted => {
                let after = text.get(at + 1..).unwrap_or_default();
                // 'it''s': not how a quote is written here.
                let apart = after.is_empty() || after.starts_with(char::is_whitespace);
                return if apart { Ok((value, after)) } else { Err(DsnFault::Keywords) };
            }
            letter if letter.is_whitespace() && !quoted => return Ok((value, text.get(at..).unwrap_or_default())),
            letter => value.push(letter),
        }
    }
    if quoted { Err(DsnFault::Keywords) } else { Ok((value, "")) }
}

/// What a DSN of a server has said so far.
struct Parts {
    driver: DatabaseDriver,
    user: String,
    password: String,
    /// A path is that of a socket.
    host: String,
    port: Option<u16>,
    database: String,
    tls: Option<Tls>,
    ca_file: Option<PathBuf>,
    /// `sslrootcert=system`, which insists on the whole check.
    system_ca: bool,
    /// The meaningful parameters so far.
    given: Vec<&'static str>,
}

/// What drivers know about, and what changes nothing here: how times and texts travel (as we say), how long is waited
/// (the settings say), what a connection is called.
const HARMLESS_FOR_MYSQL: &[&str] = &[
    "allowAllFiles",
    "allowCleartextPasswords",
    "allowFallbackToPlaintext",
    "allowNativePasswords",
    "allowOldPasswords",
    "charset",
    "checkConnLiveness",
    "clientFoundRows",
    "collation",
    "columnsWithAlias",
    "compress",
    "connectTimeout",
    "connect_timeout",
    "connectionAttributes",
    "interpolateParams",
    "loc",
    "maxAllowedPacket",
    "multiStatements",
    "parseTime",
    "readTimeout",
    "rejectReadOnly",
    "statement-cache-capacity",
    "timeTruncate",
    "time_zone",
    "timeout",
    "timezone",
    "transaction_isolation",
    "tx_isolation",
    "writeTimeout",
];

const HARMLESS_FOR_POSTGRES: &[&str] = &[
    "TimeZone",
    "application_name",
    "binary_parameters",
    "client_encoding",
    "connect_timeout",
    "datestyle",
    "default_query_exec_mode",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conns",
    "pool_min_conns",
    "sslcompression",
    "sslsni",
    "statement-cache-capacity",
    "statement_cache_capacity",
    "target_session_attrs",
    "tcp_user_timeout",
    "timezone",
];

impl Parts {
    fn new(driver: DatabaseDriver) -> Parts {
        Parts {
            driver,
            user: String::new(),
            password: String::new(),
            host: String::new(),
            port: None,
            database: String::new(),
            tls: None,
            ca_file: None,
            system_ca: false,
            given: Vec::new(),
        }
    }

    /// Takes a parameter, or a pair of keyword and value. It beats what stood before the parameters, as in libpq.
    fn set(&mut self, name: &str, value: String) -> Result<(), DsnFault> {
        let known: &'static str = match (self.driver, name) {
            (DatabaseDriver::Postgres, "user") => "user",
            (DatabaseDriver::Postgres, "password") => "password",
            (DatabaseDriver::Postgres, "host") => "host",
            (DatabaseDriver::Postgres, "port") => "port",
            (DatabaseDriver::Postgres, "dbname") => "dbname",
            (DatabaseDriver::Postgres, "sslmode") => "sslmode",
            (DatabaseDriver::Postgres, "sslrootcert") => "sslrootcert",
            (DatabaseDriver::Postgres, name) if HARMLESS_FOR_POSTGRES.contains(&name) => return Ok(()),
            (DatabaseDriver::Mysql, "tls") => "tls",
            (DatabaseDriver::Mysql, "ssl-mode" | "ssl_mode" | "sslmode") => "ssl-mode",
            (DatabaseDriver::Mysql, "ssl-ca" | "ssl_ca" | "sslca") => "ssl-ca",
            (DatabaseDriver::Mysql, "socket") => "socket",
            (DatabaseDriver::Mysql, name) if HARMLESS_FOR_MYSQL.contains(&name) => return Ok(()),
            _ => return Err(unknown(name, self.given.contains(&"password"))),
        };
        if self.given.contains(&known) {
            return Err(DsnFault::TwiceGiven(known));
        }
        self.given.push(known);
        match known {
            "user" => self.user = value,
            "password" => self.password = value,
            "host" | "socket" => self.host = value,
            "port" => self.port = Some(port(&value)?),
            "dbname" => self.database = value,
            "sslrootcert" if value == "system" => self.system_ca = true,
            "sslrootcert" | "ssl-ca" => self.ca_file = Some(value).filter(|path| !path.is_empty()).map(PathBuf::from),
            mode => self.tls = Some(tls_of(mode, &value)?),
        }
        Ok(())
    }

    fn finish(self) -> Result<ServerDsn, DsnFault> {
        let Parts { driver, user, password, host, port, database, tls, ca_file, system_ca, given: _ } = self;
        if user.is_empty() {
            return Err(DsnFault::NoUser);
        }
        let database = if database.is_empty() && driver == DatabaseDriver::Postgres { user.clone() } else { database };
        if database.is_empty() {
            return Err(DsnFault::NoDatabase);
        }
        // A NUL ends a text in both protocols, and the rest would be read as something else.
        if [&user, &database, &host].iter().any(|text| text.chars().any(char::is_control)) || password.contains('\0') {
            return Err(DsnFault::ControlCharacter);
        }
        let port = port.unwrap_or(driver.default_port());
        let host = match host.as_str() {
            "" => Host::Tcp { host: "localhost".to_owned(), port },
            path if path.starts_with('/') => Host::Socket { path: PathBuf::from(path), port },
            name if is_host(name) => Host::Tcp { host, port },
            _ => return Err(DsnFault::Host),
        };
        let on_socket = matches!(host, Host::Socket { .. });
        let tls = match (tls, &ca_file) {
            // libpq does not encrypt what no network sees, whatever `sslmode` says.
            _ if on_socket && driver == DatabaseDriver::Postgres => Tls::Off,
            (None | Some(Tls::VerifyFull), _) if system_ca => Tls::VerifyFull,
            _ if system_ca => {
                return Err(DsnFault::ParameterValue {
                    name: "sslmode",
                    expected: "verify-full with sslrootcert=system",
                });
            }
            // Who names an authority wants it to be asked. As in libpq, for compatibility with itself.
            (None | Some(Tls::Require), Some(_)) => Tls::VerifyCa,
            (Some(tls), _) => tls,
            (None, None) if on_socket => Tls::Off,
            (None, None) => Tls::Prefer,
        };
        let password = Some(password).filter(|password| !password.is_empty()).map(Secret::new);
        Ok(ServerDsn { driver, user, password, host, database, tls, ca_file })
    }
}

/// What `value` means as `tls` (go-sql-driver/mysql), `ssl-mode` (MySQL) or `sslmode` (libpq).
fn tls_of(name: &str, value: &str) -> Result<Tls, DsnFault> {
    let value = value.to_ascii_lowercase();
    match (name, value.as_str()) {
        ("tls", "false" | "0") => Ok(Tls::Off),
        ("tls", "preferred") => Ok(Tls::Prefer),
        ("tls", "skip-verify") => Ok(Tls::Require),
        ("tls", "true" | "1") => Ok(Tls::VerifyFull),
        // Other words name what a Go program has registered.
        ("tls", _) => Err(DsnFault::ParameterValue { name: "tls", expected: "false, preferred, skip-verify or true" }),

        ("ssl-mode", "disabled") => Ok(Tls::Off),
        ("ssl-mode", "preferred") => Ok(Tls::Prefer),
        ("ssl-mode", "required") => Ok(Tls::Require),
        ("ssl-mode", "verify_ca") => Ok(Tls::VerifyCa),
        ("ssl-mode", "verify_identity") => Ok(Tls::VerifyFull),
        ("ssl-mode", _) => Err(DsnFault::ParameterValue {
            name: "ssl-mode",
            expected: "DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY",
        }),

        (_, "disable") => Ok(Tls::Off),
        (_, "allow" | "prefer") => Ok(Tls::Prefer),
        (_, "require") => Ok(Tls::Require),
        (_, "verify-ca") => Ok(Tls::VerifyCa),
        (_, "verify-full") => Ok(Tls::VerifyFull),
        _ => Err(DsnFault::ParameterValue {
            name: "sslmode",
            expected: "disable, allow, prefer, require, verify-ca or verify-full",
        }),
    }
}

/// The parameters of `name=value&name=value`, values decoded.
fn parameters(query: &str) -> impl Iterator<Item = Result<(&str, String), DsnFault>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((name, decoded(value)?))
    })
}

/// A fault that names the parameter, unless that may be the rest of a password that broke off at a blank or `&`.
fn unknown(name: &str, after_password: bool) -> DsnFault {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    DsnFault::UnknownParameter((plain && !after_password && !name.is_empty()).then(|| printable(name)))
}

/// `host`, `host:5432` or `[::1]:5432`.
fn host_and_port(text: &str) -> Result<(&str, Option<u16>), DsnFault> {
    let (host, after) = match text.strip_prefix('[') {
        Some(inner) => {
            inner.split_once(']').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok()).ok_or(DsnFault::Host)?
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match after.strip_prefix(':') {
        None if after.is_empty() => Ok((host, None)),
        None => Err(DsnFault::Host),
        Some("") => Ok((host, None)),
        Some(digits) => Ok((host, Some(port(digits)?))),
    }
}

fn port(text: &str) -> Result<u16, DsnFault> {
    text.parse().ok().filter(|port| *port > 0).ok_or(DsnFault::Port)
}

/// Whether this can be looked up: one name or address, not a list of them.
fn is_host(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok() || text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The text without its percent-encoding (RFC 3986 §2.1).
fn decoded(text: &str) -> Result<String, DsnFault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (high, low) = digit().zip(digit()).ok_or(DsnFault::PercentEncoding)?;
                high * 16 + low
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| DsnFault::PercentEncoding)
}

/// The reverse: everything but unreserved characters (RFC 3986 §2.3) encoded.
fn encoded(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            shown.push(char::from(byte));
        } else {
            shown.push_str(&format!("%{byte:02X}"));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use DatabaseDriver::{Mysql, Postgres, Sqlite3};
    use proptest::prelude::*;

    use super::*;

    const DRIVERS: [DatabaseDriver; 3] = [Sqlite3, Postgres, Mysql];

    /// What a DSN says, in one line: with its password, which `Display` leaves out.
    fn told(driver: DatabaseDriver, text: &str) -> String {
        match Dsn::parse(driver, text) {
            Ok(dsn @ Dsn::Sqlite { .. }) => dsn.to_string(),
            Ok(Dsn::Server(server)) => {
                assert_eq!(server.driver, driver);
                let password = server.password.as_ref().map_or("-", Secret::reveal);
                let ca_file = server.ca_file.as_ref().map_or(String::new(), |path| format!(" {}", path.display()));
                format!("{server} {password} {:?}{ca_file}", server.tls)
            }
            Err(fault) => format!("! {fault}"),
        }
    }

    #[test]
    fn files() {
        for (text, want) in [
            ("./fail2ban.db", "./fail2ban.db"),
            ("fail2ban.db", "fail2ban.db"),
            (" /var/x.db ", "/var/x.db"),
            ("/var/a:b@c/x%20.db", "/var/a:b@c/x%20.db"),
            ("file:x.db?cache=shared", "x.db"),
            ("file:x.db?cache=shared&mode=rwc&_journal=WAL&_pragma=a(1)&_pragma=b", "x.db"),
            ("./x.db?_busy_timeout=5000", "./x.db"),
            ("file:///var/x.db", "/var/x.db"),
            ("file://localhost/var/x.db", "/var/x.db"),
            ("file:/var/my%20x.db", "/var/my x.db"),
            ("sqlite:x.db", "x.db"),
            ("sqlite://x.db?mode=rwc", "x.db"),
            ("sqlite3:///var/x.db", "/var/x.db"),
            ("SQLITE:///var/x.db", "/var/x.db"),
        ] {
            assert_eq!(told(Sqlite3, text), want, "{text}");
        }
        for (text, want) in [
            ("", DsnFault::NoFile),
            ("file:", DsnFault::NoFile),
            ("./", DsnFault::NoFile),
            (":memory:", DsnFault::InMemory),
            ("file::memory:?cache=shared", DsnFault::InMemory),
            ("sqlite::memory:", DsnFault::InMemory),
            ("sqlite://:memory:", DsnFault::InMemory),
            ("file:x.db?mode=memory", DsnFault::InMemory),
            ("file:x.db?mode=ro", DsnFault::ReadOnly),
            ("file:x.db?immutable=1", DsnFault::ReadOnly),
            ("file:x.db?mode=x", DsnFault::ParameterValue { name: "mode", expected: "rwc or rw" }),
            ("file:x.db?vfs=memdb", DsnFault::UnknownParameter(Some("vfs".to_owned()))),
            ("file:x%2.db", DsnFault::PercentEncoding),
            ("file:x%00.db", DsnFault::ControlCharacter),
            ("x\n.db", DsnFault::ControlCharacter),
            ("oracle://x", DsnFault::Form { driver: Sqlite3, found: "a scheme that is not known" }),
        ] {
            assert_eq!(Dsn::parse(Sqlite3, text), Err(want), "{text}");
        }
    }

    #[test]
    fn mysql_as_in_go() {
        for (text, want) in [
            ("user:password@tcp(localhost:3306)/fail2ban", "mysql://user@localhost:3306/fail2ban password Prefer"),
            ("user:password@tcp(db)/f?parseTime=true&tls=skip-verify", "mysql://user@db:3306/f password Require"),
            ("u:p@ss/w:o?r=d@tcp([::1]:3307)/f", "mysql://u@[::1]:3307/f p@ss/w:o?r=d Prefer"),
            ("u:p%40@tcp([2001:db8::1])/f", "mysql://u@[2001:db8::1]:3306/f p%40 Prefer"),
            ("u@unix(/run/mysqld/mysqld.sock)/f", "mysql://u@unix(/run/mysqld/mysqld.sock)/f - Off"),
            ("u:a@tcp(b)/c@unix(/s)/f", "mysql://u@unix(/s)/f a@tcp(b)/c Off"),
            ("u:@/f", "mysql://u@127.0.0.1:3306/f - Prefer"),
            ("u@tcp/f", "mysql://u@127.0.0.1:3306/f - Prefer"),
            ("u@tcp()/f", "mysql://u@127.0.0.1:3306/f - Prefer"),
            ("u@unix/f", "mysql://u@unix(/tmp/mysql.sock)/f - Off"),
            ("sqlite:p@tcp(h)/f", "mysql://sqlite@h:3306/f p Prefer"),
            ("u://p@tcp(h)/f", "mysql://u@h:3306/f //p Prefer"),
            ("u=v:p@tcp(h)/f", "mysql://u%3Dv@h:3306/f p Prefer"),
            ("u:p@tcp(h)/f%2Fg", "mysql://u@h:3306/f%2Fg p Prefer"),
            ("u:p@tcp(h)/f?tls=true", "mysql://u@h:3306/f p VerifyFull"),
            ("u:p@tcp(h)/f?tls=false", "mysql://u@h:3306/f p Off"),
            ("u:p@tcp(h)/f?tls=preferred&loc=Europe/Berlin", "mysql://u@h:3306/f p Prefer"),
            ("u:p@tcp(h)/f?ssl-ca=/etc/ca.pem", "mysql://u@h:3306/f p VerifyCa /etc/ca.pem"),
            ("u:p@tcp(h)/f?tls=true&ssl-ca=%2Fetc%2Fca.pem", "mysql://u@h:3306/f p VerifyFull /etc/ca.pem"),
        ] {
            assert_eq!(told(Mysql, text), want, "{text}");
        }
        for (text, want) in [
            ("u:p@tcp(h:3306)", DsnFault::NoDatabase),
            ("u:p@tcp(h:3306)/", DsnFault::NoDatabase),
            ("u:p/w@tcp(h:3306)", DsnFault::NoDatabase),
            ("u:p/w@h", DsnFault::NoDatabase),
            ("tcp(h:3306)/f", DsnFault::NoUser),
            (":p@tcp(h:3306)/f", DsnFault::NoUser),
            ("u:p@localhost/f", DsnFault::Address),
            ("u:p@localhost:3306/f", DsnFault::Address),
            ("u:p@unix(mysql.sock)/f", DsnFault::Address),
            ("u:p@udp(h)/f", DsnFault::Address),
            ("u:p@tcp(h:0)/f", DsnFault::Port),
            ("u:p@tcp(h:mysql)/f", DsnFault::Port),
            ("u:p@tcp(::1)/f", DsnFault::Port),
            ("u:p@tcp([::g])/f", DsnFault::Host),
            ("u:p@tcp(a,b)/f", DsnFault::Host),
            ("u:p@tcp(/run/x)/f", DsnFault::Host),
            (
                "u:p@tcp(h)/f?tls=custom",
                DsnFault::ParameterValue { name: "tls", expected: "false, preferred, skip-verify or true" },
            ),
            ("u:p@tcp(h)/f?tls=true&tls=false", DsnFault::TwiceGiven("tls")),
            ("u:p@tcp(h)/f?sql_mode=x", DsnFault::UnknownParameter(Some("sql_mode".to_owned()))),
            ("./fail2ban.db", DsnFault::Form { driver: Mysql, found: "the path of a file" }),
            ("", DsnFault::Form { driver: Mysql, found: "nothing" }),
            ("postgres://u:p@h/f", DsnFault::OtherDriver { driver: Mysql, found: Postgres }),
        ] {
            assert_eq!(Dsn::parse(Mysql, text), Err(want), "{text}");
        }
    }

    #[test]
    fn urls() {
        for (driver, text, want) in [
            (Mysql, "mysql://user:p%40ss@host:3306/db?ssl-mode=REQUIRED", "mysql://user@host:3306/db p@ss Require"),
            (Mysql, "mariadb://u:a@b@h/db", "mysql://u@h:3306/db a@b Prefer"),
            (Mysql, "mysql://u:p#w@[::1]/db", "mysql://u@[::1]:3306/db p#w Prefer"),
            (Mysql, "mysql://u@h:/db?ssl_mode=verify_identity", "mysql://u@h:3306/db - VerifyFull"),
            (Mysql, "mysql://u@localhost/db?socket=/run/m.sock", "mysql://u@unix(/run/m.sock)/db - Off"),
            (Mysql, "mysql://u@%2Frun%2Fm.sock/db?sslmode=required", "mysql://u@unix(/run/m.sock)/db - Require"),
            (
                Postgres,
                "postgres://user:password@localhost/fail2ban?sslmode=disable",
                "postgres://user@localhost:5432/fail2ban password Off",
            ),
            (
                Postgres,
                "postgresql://u:%C3%BC%25@10.0.0.1:5433/my%20db",
                "postgres://u@10.0.0.1:5433/my%20db ü% Prefer",
            ),
            (Postgres, "POSTGRES://u@h", "postgres://u@h:5432/u - Prefer"),
            (Postgres, "postgres://u@h?sslmode=verify-full", "postgres://u@h:5432/u - VerifyFull"),
            (
                Postgres,
                "postgres://u:p@/db?host=/var/run/postgresql",
                "postgres://u@unix(/var/run/postgresql/.s.PGSQL.5432)/db p Off",
            ),
            (
                Postgres,
                "postgres://u@%2Frun%2Fpg:5433/db?sslmode=require",
                "postgres://u@unix(/run/pg/.s.PGSQL.5433)/db - Off",
            ),
            (Postgres, "postgres:///db?user=u&password=p&port=1", "postgres://u@localhost:1/db p Prefer"),
            (Postgres, "postgres://u@h/db?sslmode=require&sslrootcert=/ca", "postgres://u@h:5432/db - VerifyCa /ca"),
            (Postgres, "postgres://u@h/db?sslrootcert=/ca", "postgres://u@h:5432/db - VerifyCa /ca"),
            (Postgres, "postgres://u@h/db?sslrootcert=system", "postgres://u@h:5432/db - VerifyFull"),
            (
                Postgres,
                "postgres://u@h/db?sslmode=allow&connect_timeout=10&application_name=x",
                "postgres://u@h:5432/db - Prefer",
            ),
            (Postgres, "postgres://a%40b:p@h/db", "postgres://a%40b@h:5432/db p Prefer"),
        ] {
            assert_eq!(told(driver, text), want, "{text}");
        }
        for (driver, text, want) in [
            (Mysql, "mysql://u:p@tcp(h:3306)/db", DsnFault::MixedForms),
            (Mysql, "mysql://u:p@h", DsnFault::NoDatabase),
            (Mysql, "mysql://u:p@h/db/", DsnFault::NoDatabase),
            (Mysql, "mysql://h/db", DsnFault::NoUser),
            (
                Mysql,
                "mysql://u@h/db?tls=x",
                DsnFault::ParameterValue { name: "tls", expected: "false, preferred, skip-verify or true" },
            ),
            (Postgres, "postgres://u:p/w@h/db", DsnFault::NotEncoded),
            (Postgres, "postgres://u:p?w=1@h/db", DsnFault::NotEncoded),
            (Postgres, "postgres://u:p%w@h/db", DsnFault::PercentEncoding),
            (Postgres, "postgres://u:p%ff@h/db", DsnFault::PercentEncoding),
            (Postgres, "postgres://u:p%00@h/db", DsnFault::ControlCharacter),
            (Postgres, "postgres://u%0a@h/db", DsnFault::ControlCharacter),
            (Postgres, "postgres://u:p@h:99999/db", DsnFault::Port),
            (Postgres, "postgres://u:p@a,b/db", DsnFault::Host),
            (Postgres, "postgres://u:p@a:1,b:2/db", DsnFault::Port),
            (Postgres, "postgres://h/db", DsnFault::NoUser),
            (Postgres, "postgres://u@h/db?options=x", DsnFault::UnknownParameter(Some("options".to_owned()))),
            (Postgres, "postgres://u@h/db?password=a&b=c", DsnFault::UnknownParameter(None)),
            (
                Postgres,
                "postgres://u@h/db?sslmode=on",
                DsnFault::ParameterValue {
                    name: "sslmode",
                    expected: "disable, allow, prefer, require, verify-ca or verify-full",
                },
            ),
            (
                Postgres,
                "postgres://u@h/db?sslmode=require&sslrootcert=system",
                DsnFault::ParameterValue { name: "sslmode", expected: "verify-full with sslrootcert=system" },
            ),
            (Postgres, "user:password@tcp(localhost:3306)/x", DsnFault::OtherDriver { driver: Postgres, found: Mysql }),
            (Sqlite3, "mysql://u:p@h/db", DsnFault::OtherDriver { driver: Sqlite3, found: Mysql }),
            (Sqlite3, "u:p@h/db", DsnFault::OtherDriver { driver: Sqlite3, found: Mysql }),
            (Sqlite3, "password=p", DsnFault::OtherDriver { driver: Sqlite3, found: Postgres }),
            (Sqlite3, "User Id=u;Password=p", DsnFault::OtherDriver { driver: Sqlite3, found: Postgres }),
            (
                Sqlite3,
                "jdbc:postgresql://h/f?password=p",
                DsnFault::Form { driver: Sqlite3, found: "a scheme that is not known" },
            ),
        ] {
            assert_eq!(Dsn::parse(driver, text), Err(want), "{text}");
        }
    }

    #[test]
    fn postgres_in_keywords() {
        for (text, want) in [
            (
                "host=localhost port=5432 user=u password='p w' dbname=fail2ban sslmode=disable",
                "postgres://u@localhost:5432/fail2ban p w Off",
            ),
            (r"user = u password = 'it\'s \\' host = ::1", r"postgres://u@[::1]:5432/u it's \ Prefer"),
            (r"user=u password=a\ b=c@d", "postgres://u@localhost:5432/u a b=c@d Prefer"),
            ("user=u password='' dbname=''", "postgres://u@localhost:5432/u - Prefer"),
            ("user=u host=/run/postgresql port=5433", "postgres://u@unix(/run/postgresql/.s.PGSQL.5433)/u - Off"),
            ("user=u connect_timeout=10 application_name='a b'", "postgres://u@localhost:5432/u - Prefer"),
        ] {
            assert_eq!(told(Postgres, text), want, "{text}");
        }
        for (text, want) in [
            ("user=u password=a b", DsnFault::Keywords),
            ("user=u password=a b host=h", DsnFault::Keywords),
            ("user=u password=a b=c", DsnFault::UnknownParameter(None)),
            ("user=u password='a", DsnFault::Keywords),
            ("user=u password='a'b", DsnFault::Keywords),
            ("user=u password=a\\", DsnFault::Keywords),
            ("user=u colour=red", DsnFault::UnknownParameter(Some("colour".to_owned()))),
            ("user=u user=v", DsnFault::TwiceGiven("user")),
            ("dbname=f", DsnFault::NoUser),
            ("user=u host=a,b", DsnFault::Host),
            ("user=u port=x", DsnFault::Port),
        ] {
            assert_eq!(Dsn::parse(Postgres, text), Err(want), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        let fault = |driver, text| Dsn::parse(driver, text).unwrap_err().to_string();
        assert_eq!(
            fault(Sqlite3, "postgres://user:hidden@h/db"),
            "expected the path of a file, like ./fail2ban.db, found one of postgres; if it is that, write `driver: postgres`"
        );
        assert_eq!(
            fault(Mysql, "./fail2ban.db"),
            "expected a DSN like user:password@tcp(localhost:3306)/fail2ban, found the path of a file"
        );
        assert_eq!(fault(Postgres, "user=u colour=red"), "there is no parameter `colour` here");
    }

    /// Everything that can be said about a DSN of `text`.
    fn said(text: &str) -> String {
        let mut said = String::new();
        for driver in DRIVERS {
            match Dsn::parse(driver, text) {
                Ok(dsn) => {
                    assert_eq!(dsn.identity(), dsn.to_string());
                    said.push_str(&format!("{dsn} {dsn:?} {dsn:#?}\n"));
                }
                Err(fault) => said.push_str(&format!("{fault} {fault:?}\n")),
            }
        }
        said
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            start in "(file:|sqlite://|mysql://|postgres://|u:p@|u@tcp\\(|unix\\(|user=|password=')?",
            text in "[a-z0-9@/:?&%=#\\[\\]()' \\\\.,ü\\n-]{0,40}",
            any in "\\PC{0,20}",
        ) {
            said(&format!("{start}{text}"));
            said(&format!("{start}{any}"));
        }

        #[test]
        fn a_password_comes_through_and_is_never_shown(
            (before, after) in ("[a-zA-Z0-9@/:?&%=#()' \\\\.,ü-]{0,8}", "[a-zA-Z0-9@/:?&%=#()' \\\\.,ü-]{0,8}"),
            parameter in "(|\\?colour=red|\\?sslmode=x|\\?tls=true)",
        ) {
            let password = format!("{before}S3CR3T{after}");
            let escaped = password.replace('\\', "\\\\").replace('\'', "\\'");
            let percent = encoded(&password);
            for (driver, text) in [
                (Mysql, format!("user:{password}@tcp(h:3306)/db")),
                (Mysql, format!("mysql://user:{percent}@h/db")),
                (Postgres, format!("postgres://user:{percent}@h/db")),
                (Postgres, format!("postgres:///db?password={percent}&user=user")),
                (Postgres, format!("user=user password='{escaped}'")),
            ] {
                let dsn = Dsn::parse(driver, &text);
                let Ok(Dsn::Server(server)) = dsn else { panic!("{text}: {dsn:?}") };
                prop_assert_eq!(server.password.as_ref().map(Secret::reveal), Some(password.as_str()));
                prop_assert_eq!(server.user.as_str(), "user");
                prop_assert!(!said(&text).contains("S3CR3T"), "{}", said(&text));
            }
            // Nor is it by a DSN that somebody forgot to encode or to quote.
            for text in [
                format!("user:{password}@tcp(h:3306)/db{parameter}"),
                format!("user:{password}@tcp(h:3306)"),
                format!("user:{password}@h/db{parameter}"),
                format!("mysql://user:{password}@tcp(h)/db{parameter}"),
                format!("mysql://user:{password}@h:3306/db{parameter}"),
                format!("mysql://user:{password}@h{parameter}"),
                format!("postgres://user:{password}@h/db{parameter}"),
                format!("postgresql://user:{password}@h:x/db{parameter}"),
                format!("postgres://user@h/db?password={password}&colour=red"),
                format!("host=h user=user password={password} dbname=db"),
                format!("password={password}"),
                format!("host=h user=user password='{password}' colour=red"),
            ] {
                prop_assert!(!said(&text).contains("S3CR3T"), "{}: {}", text, said(&text));
            }
        }
    }
}

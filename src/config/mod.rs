//! Settings: what the operator says, checked once and trusted from then on.
//!
//! [`table`] holds one row per setting, and everything else is derived from it: reading and checking the file, the
//! defaults, the `FAIL2BAN_…` variables, the committed `config.yaml` ([`document`]), and which changes need a restart
//! ([`restart_needed`]). To add a setting, add a field to its struct in `settings.rs` and a row to the table; tests
//! tell if one of the two was forgotten.
//!
//! ```text
//! load.rs       finds and reads the file and the environment; the only I/O here
//!   parse.rs    text in, Settings or all Faults out; what must hold between settings
//!     yaml.rs   YAML as a tree that knows its lines
//!     table.rs  the rows: key, kind, default, unit, reason, reload
//!     kind.rs   how a value of each kind is read, and what is said when it is wrong
//! credentials.rs users, passwords and tokens, which no message shows
//! dsn.rs        where a database is: one type for what each kind of database calls a DSN
//! row.rs        patterns and ban settings in a database, by the same rules as in the file
//! example.rs    what a pattern is tried on
//! fail2ban.rs   filters of fail2ban as patterns
//! document.rs   the rows as a commented config.yaml
//! patterns.yaml the patterns that apply when the file gives none
//! ```
//!
//! Not here: compiling regexes, binding sockets, anything that needs to know the machine.

mod credentials;
mod document;
mod dsn;
pub mod duration;
mod example;
mod fail2ban;
mod fault;
mod kind;
mod load;
mod parse;
mod row;
mod settings;
mod suggest;
pub mod table;
mod yaml;

pub use document::document;
pub use dsn::{Dsn, DsnFault, Host, ServerDsn, Tls};
pub use duration::{parse_duration, print_duration};
pub use example::{Example, Expected};
pub use fail2ban::{Translation, entry as pattern_entry, translate_filter};
pub use fault::{Fault, Faults, Warning};
pub use kind::{Kind, TextRule};
pub use load::{draft, load, locate};
pub use parse::{Draft, parse, restart_needed};
pub use row::{RowFault, ban_of_row, pattern_of_row, row_of_ban, row_of_pattern};
pub use settings::{
    ApiSettings, BanSettings, BasicAuthSettings, DatabaseDriver, DatabaseSettings, Driver, EnvoySettings, LogFormat,
    LogLevel, LogSettings, NginxSettings, OnUnknown, PatternSettings, PrometheusSettings, Protocol, RateLimitSettings,
    Role, RuntimeSettings, Secret, Settings, SpoaSettings, SyslogSettings, Token, TokenSettings, UserSettings,
};
pub use table::BUILT_IN_YAML;

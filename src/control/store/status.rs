//! How the store is doing: for the two pages about it, for metrics, and for the log.

use super::contents::{RowFault, TableName};
use super::wall::print_wall;
use crate::shard::Documents;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where settings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    File,
    Database,
    /// The last good copy of the database, which is away.
    Cached,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Source::File => "file",
            Source::Database => "database",
            Source::Cached => "database_cached",
        }
    }
}

/// What is done with databases, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Connect,
    Poll,
    Load,
    /// Bans written to the shared database.
    Tell,
    /// Bans of other nodes read from it.
    Learn,
    Prune,
    /// Decisions written to the local state.
    Keep,
    /// The last good copy written to it.
    Copy,
}

impl Operation {
    pub const ALL: [Operation; 8] = [
        Operation::Connect,
        Operation::Poll,
        Operation::Load,
        Operation::Tell,
        Operation::Learn,
        Operation::Prune,
        Operation::Keep,
        Operation::Copy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Operation::Connect => "connect",
            Operation::Poll => "poll",
            Operation::Load => "load",
            Operation::Tell => "tell",
            Operation::Learn => "learn",
            Operation::Prune => "prune",
            Operation::Keep => "keep",
            Operation::Copy => "copy",
        }
    }
}

/// Counts of the store's thread, read by the one that answers for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// By operation: those that went well and those that failed.
    operations: [[AtomicU64; 2]; Operation::ALL.len()],
    /// Settings from the database that were published, and loads that failed.
    pub reloads: [AtomicU64; 2],
    /// Connections that are open: the one that asks, and the one that listens.
    pub connections: AtomicU64,
    pub listening: AtomicU64,
    /// Bans stored in the local state, told to other nodes, and rows of other nodes that could not be used.
    pub kept: AtomicU64,
    pub told: AtomicU64,
    pub unusable: AtomicU64,
    /// Bans that other nodes have still to be told of.
    pub untold: AtomicU64,
}

impl Counts {
    pub fn operation(&self, operation: Operation, success: bool) {
        self.operations[operation as usize][usize::from(!success)].fetch_add(1, Ordering::Relaxed);
    }

    /// Successes and failures of an operation.
    pub fn operations(&self, operation: Operation) -> [u64; 2] {
        self.operations[operation as usize].each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    pub fn reload(&self, success: bool) {
        self.reloads[usize::from(!success)].fetch_add(1, Ordering::Relaxed);
    }
}

pub fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

/// The whole state of affairs. A new one is published when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub enabled: bool,
    /// The driver's name in the settings; empty if there is no database.
    pub driver: &'static str,
    /// The database without its password.
    pub database: String,
    /// This node's name.
    pub node: String,
    pub connected: bool,
    pub patterns: Source,
    pub ban_config: Source,
    /// Failures since the database last answered.
    pub failures: u64,
    /// When the settings were last read from it without fault, in milliseconds since 1970.
    pub last_load: Option<i64>,
    pub has_copy: bool,
    pub last_error: Option<String>,
    /// What is wrong with the local state, if anything is.
    pub state_error: Option<String>,
    pub faults: Vec<RowFault>,
    /// Faulty rows by table, also those that are too many to be named.
    pub faulty: Vec<(TableName, usize)>,
}

/// Longest error that is shown, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// An error for a page and a metric: one line, not too long.
pub fn printable_error(error: &str) -> String {
    error.chars().take(ERROR_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Serialize)]
struct ConfigSource {
    patterns_source: &'static str,
    ban_config_source: &'static str,
    database_enabled: bool,
    database_connected: bool,
}

#[derive(Serialize)]
struct DatabaseStatus<'a> {
    enabled: bool,
    connected: bool,
    driver: &'a str,
    failure_count: u64,
    last_successful_load: Option<String>,
    has_cached_config: bool,
    last_error: Option<&'a str>,
    database: &'a str,
    node: &'a str,
    state_error: Option<&'a str>,
    faulty_rows: usize,
    faults: Vec<ShownFault<'a>>,
}

#[derive(Serialize)]
struct ShownFault<'a> {
    table: &'static str,
    row: &'a str,
    column: &'a str,
    message: &'a str,
}

impl Status {
    /// The pages `/config/source` and `/database/status`.
    pub fn documents(&self) -> Documents {
        let source = ConfigSource {
            patterns_source: self.patterns.name(),
            ban_config_source: self.ban_config.name(),
            database_enabled: self.enabled,
            database_connected: self.connected,
        };
        let faults = self.faults.iter().map(|fault| ShownFault {
            table: fault.table.name(),
            row: &fault.row,
            column: &fault.column,
            message: &fault.message,
        });
        let status = DatabaseStatus {
            enabled: self.enabled,
            connected: self.connected,
            driver: self.driver,
            failure_count: self.failures,
            last_successful_load: self.last_load.map(print_wall),
            has_cached_config: self.has_copy,
            last_error: self.last_error.as_deref(),
            database: &self.database,
            node: &self.node,
            state_error: self.state_error.as_deref(),
            faulty_rows: self.faulty.iter().map(|(_, count)| count).sum(),
            faults: faults.collect(),
        };
        Documents { config_source: json(&source), database_status: json(&status) }
    }
}

fn json(document: &impl Serialize) -> Box<[u8]> {
    serde_json::to_vec(document).expect("texts and numbers have a JSON form").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_have_the_documented_keys() {
        let fault = RowFault {
            table: TableName::Patterns,
            row: "broken".to_owned(),
            column: "regex".to_owned(),
            message: "unclosed \"group\"".to_owned(),
        };
        let status = Status {
            enabled: true,
            driver: "postgres",
            database: "postgres://u@h:5432/d".to_owned(),
            node: "mail1-00000001".to_owned(),
            connected: false,
            patterns: Source::Cached,
            ban_config: Source::File,
            failures: 3,
            last_load: Some(1_763_800_000_123),
            has_copy: true,
            last_error: Some(printable_error("no\nanswer")),
            state_error: None,
            faults: vec![fault],
            faulty: vec![(TableName::Patterns, 1)],
        };
        let Documents { config_source, database_status } = status.documents();
        assert_eq!(
            String::from_utf8(config_source.into()).unwrap(),
            r#"{"patterns_source":"database_cached","ban_config_source":"file","database_enabled":true,"database_connected":false}"#
        );
        let status: serde_json::Value = serde_json::from_slice(&database_status).unwrap();
        assert_eq!(status["failure_count"], 3);
        assert_eq!(status["last_error"], "no answer");
        assert_eq!(status["last_successful_load"], "2025-11-22T08:26:40.123Z");
        assert_eq!(status["faults"][0]["row"], "broken");
    }
}

//! Every metric that is exported, and what it says: for `# HELP` and `# TYPE`, and for the table in `docs/monitoring.md`.

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the program is restarted.
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

pub const BAN_DURATION: &str = "fail2ban_ban_duration_seconds";
pub const REPLICA_LAG: &str = "fail2ban_replica_lag_seconds";
pub const REQUEST_DURATION: &str = "fail2ban_service_request_duration_seconds";

/// Name, kind and meaning, without quotes, backslashes or line ends, which would need escapes.
pub const HELP: &[(&str, Kind, &str)] = &[
    // Questions
    ("fail2ban_requests_total", Counter, "What proxies asked, by the verdict or what stood in its place"),
    (
        "fail2ban_service_requests_total",
        Counter,
        "What proxies and operators were answered, by the status of their protocol",
    ),
    (REQUEST_DURATION, Histogram, "From having read a question to having handed the answer to the kernel"),
    ("fail2ban_connections_total", Counter, "Connections, by what became of them"),
    ("fail2ban_spoa_disconnects_total", Counter, "DISCONNECT frames, by who sent them and their status"),
    ("fail2ban_envoy_refused_total", Counter, "Calls and connections of Envoy that were refused, by reason"),
    // Log lines
    ("fail2ban_syslog_received_total", Counter, "Log lines received, whatever became of them"),
    ("fail2ban_syslog_records_total", Counter, "Log lines that could be read, by what patterns found in them"),
    ("fail2ban_syslog_malformed_total", Counter, "Log lines that could not be read, by reason"),
    (
        "fail2ban_syslog_dropped_total",
        Counter,
        "Datagrams dropped unread, and connections of senders that are not allowed",
    ),
    (
        "fail2ban_ingest_pauses_total",
        Counter,
        "Times that a connection was not read because another shard did not keep up",
    ),
    ("fail2ban_kind_matches_total", Counter, "Log lines that patterns matched, by what their failures are"),
    ("fail2ban_pattern_matches_total", Counter, "Log lines that a pattern matched and named"),
    // Bans
    ("fail2ban_failures_total", Counter, "Matched lines, by what became of them"),
    ("fail2ban_bans_total", Counter, "Bans decided by this node"),
    ("fail2ban_current_bans", Gauge, "Bans in force, those learned from other nodes and earlier runs too"),
    (BAN_DURATION, Histogram, "How long bans of this node are to last, in seconds"),
    ("fail2ban_tracked", Gauge, "Clients with failures in their window, and offenders that are remembered"),
    ("fail2ban_evicted_total", Counter, "Clients and offenders forgotten early because ban.max_tracked was reached"),
    ("fail2ban_bans_learned_total", Counter, "Bans of other nodes and earlier runs that were put in force"),
    ("fail2ban_bans_stored_total", Counter, "Bans written to the local state"),
    ("fail2ban_bans_told_total", Counter, "Bans written to the shared database"),
    ("fail2ban_bans_untold", Gauge, "Bans that are still to be written to the shared database"),
    ("fail2ban_bans_unusable_total", Counter, "Rows of other nodes' bans that could not be used"),
    // Settings and the database
    (
        "fail2ban_config_reloads_total",
        Counter,
        "Settings read again, by where from; error: refused, nothing has changed",
    ),
    ("fail2ban_config_patterns_loaded", Gauge, "Patterns in force"),
    ("fail2ban_config_faulty_rows", Gauge, "Rows of the database that are left out because they are faulty"),
    ("fail2ban_config_pattern_faulty", Gauge, "1 while this pattern of the database is left out, 0 once it is mended"),
    ("fail2ban_policy_number", Gauge, "Number of the newest settings and lists; grows with each change"),
    ("fail2ban_database_enabled", Gauge, "1 if there is a shared database in the settings"),
    ("fail2ban_database_connected", Gauge, "1 while the shared database answers"),
    ("fail2ban_database_connections_active", Gauge, "Open connections to the shared database"),
    ("fail2ban_database_operations_total", Counter, "What was done with the shared database and the local state"),
    (
        "fail2ban_state_writable",
        Gauge,
        "0 while bans cannot be written to runtime.state_dir, and a restart would forget them",
    ),
    // Shards
    ("fail2ban_shards", Gauge, "Shards that run: one a core, if not set otherwise"),
    ("fail2ban_shards_answering", Gauge, "Shards that answered this scrape within a second"),
    ("fail2ban_shard_questions_total", Counter, "Verdicts given by a shard"),
    ("fail2ban_shard_records_total", Counter, "Log lines received by a shard"),
    ("fail2ban_shard_connections", Gauge, "Open connections of a shard"),
    (
        "fail2ban_shard_backlog",
        Gauge,
        "Failures of a shard that wait for room on the way to the shard that counts them",
    ),
    ("fail2ban_shard_policy_number", Gauge, "Number of the settings and lists that a shard works by"),
    ("fail2ban_shard_replica_bans", Gauge, "Bans that a shard holds, of all shards"),
    ("fail2ban_shard_matcher_cache_bytes", Gauge, "Memory of a shard for matching patterns"),
    (REPLICA_LAG, Histogram, "From a decision on one shard to its being in force on another"),
    ("fail2ban_replica_lag_max_seconds", Gauge, "The longest of those since the start, by the shard that was late"),
    ("fail2ban_replica_fell_behind_total", Counter, "Times that a shard fell behind with the decisions of another"),
    (
        "fail2ban_replica_snapshots_total",
        Counter,
        "Times that a shard was sent all bans of another because it had fallen behind",
    ),
    (
        "fail2ban_events_dropped_total",
        Counter,
        "Announcements of decisions that were dropped; each costs a log line, no ban",
    ),
    // The process
    ("fail2ban_uptime_seconds", Gauge, "Time since the start"),
    ("fail2ban_build_info", Gauge, "1, with version and commit of the program"),
    ("fail2ban_driver_info", Gauge, "1, with what drives the shards: io_uring or epoll"),
    ("fail2ban_log_lines_dropped_total", Counter, "Lines of our own log that were lost because nobody read it"),
];

/// What a metric means; it is a mistake of ours if it has no meaning.
pub fn of(name: &str) -> &'static str {
    HELP.iter().find(|(known, ..)| *known == name).map_or("", |(.., meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_has_a_meaning_of_its_own_that_needs_no_escape() {
        let names: BTreeSet<_> = HELP.iter().map(|(name, ..)| name).collect();
        let meanings: BTreeSet<_> = HELP.iter().map(|(.., meaning)| meaning).collect();
        assert_eq!((names.len(), meanings.len()), (HELP.len(), HELP.len()));
        for (name, kind, meaning) in HELP {
            assert!(!meaning.is_empty() && !meaning.contains(['"', '\\', '\n']), "{name}");
            assert_eq!(*kind == Counter, name.ends_with("_total"), "{name}");
        }
        assert!([BAN_DURATION, REPLICA_LAG, REQUEST_DURATION].iter().all(|name| !of(name).is_empty()));
    }
}

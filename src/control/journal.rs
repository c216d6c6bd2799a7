//! Notable happenings: one method each, and one line in the log.
//!
//! Shards never log. What is said here reached the control thread as an event, so an attacker who causes bans fills
//! this thread's queue at most, and what does not fit into it is counted.

use super::store::AuditEntry;
use super::store::contents::RowFault;
use crate::config::{Faults, Settings, print_duration};
use crate::engine::ban::{Act, Decision, FailureKind, Origin};
use crate::engine::policy::Policy;
use std::fmt::Display;
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// The target of the lines that an attacker can cause by the thousand; see [`super::log`].
pub const DECISIONS: &str = "decisions";

/// An operator's order, and what came of it.
pub fn ordered(entry: &AuditEntry) {
    let AuditEntry { who, channel, peer, action, target, detail, outcome } = entry;
    let peer = peer.as_deref().unwrap_or_default();
    info!(who, channel, peer, action, target, detail, outcome, "order");
}

/// A ban or its end.
pub fn decided(shard: usize, decision: &Decision, policy: &Policy) {
    let client = decision.client;
    match &decision.act {
        // As many as other nodes make, and after a restart all at once: for those who look for something.
        Act::Ban(ban) if decision.origin == Origin::Learned => debug!(
            target: DECISIONS,
            client = %client,
            pattern = policy.name(ban.pattern),
            offences = ban.offences,
            remaining = %print_duration(ban.until.since(decision.at)),
            shard,
            "learned ban"
        ),
        Act::Lift(why, ban) if decision.origin == Origin::Learned => debug!(
            target: DECISIONS,
            client = %client,
            reason = why.name(),
            pattern = policy.name(ban.pattern),
            offences = ban.offences,
            shard,
            "learned unban"
        ),
        Act::Ban(ban) => info!(
            target: DECISIONS,
            client = %client,
            pattern = policy.name(ban.pattern),
            severity = ban.severity.level(),
            kind = policy.kind(ban.pattern).map(FailureKind::name),
            failures = ban.failures,
            offences = ban.offences,
            duration = %print_duration(ban.until.since(decision.at)),
            shard,
            "ban"
        ),
        Act::Lift(why, ban) => info!(
            target: DECISIONS,
            client = %client,
            reason = why.name(),
            pattern = policy.name(ban.pattern),
            offences = ban.offences,
            shard,
            "unban"
        ),
    }
}

pub fn started(version: &str, shards: usize, driver: &str, config: &str, policy: &Policy) {
    info!(version, shards, driver, config, patterns = policy.matcher.len(), policy = policy.number, "started");
}

pub fn listening(service: &str, protocol: &str, address: impl Display) {
    info!(service, protocol, address = %address, "listening");
}

/// Something that works, but perhaps not as meant.
pub fn remark(remark: impl Display) {
    warn!("{remark}");
}

pub fn policy_in_force(policy: &Policy) {
    info!(
        policy = policy.number,
        patterns = policy.matcher.len(),
        whitelist = policy.allow.len(),
        blacklist = policy.block.len(),
        "policy in force on every shard"
    );
}

pub fn reload_refused(faults: &Faults) {
    for fault in faults {
        error!("{}", fault.at(faults.source()));
    }
    error!(faults = faults.as_slice().len(), "the new configuration is refused; the policy in force stays");
}

pub fn restart_needed(keys: &[&str]) {
    if !keys.is_empty() {
        warn!(settings = %keys.join(", "), "changed, but only take effect after a restart");
    }
}

pub fn settings_warnings(source: &str, settings: &Settings) {
    for warning in &settings.warnings {
        warn!("{}", warning.at(source));
    }
}

pub fn more_rows_faulty(more: usize) {
    warn!(more, "and more rows of the database are left out; /database/status names them");
}

pub fn row_faulty(fault: &RowFault) {
    warn!(
        table = fault.table.name(),
        row = fault.row,
        column = fault.column,
        "a row of the database is left out: {}",
        fault.message
    );
}

pub fn pattern_steerable(warning: &RowFault) {
    warn!(table = warning.table.name(), row = warning.row, column = warning.column, "{}", warning.message);
}

pub fn database_back(database: &str) {
    info!(database, "the database answers; its settings count");
}

pub fn database_away(why: &str, has_copy: bool) {
    let instead = if has_copy { "the last good copy of it counts" } else { "the settings of the file count" };
    warn!("the database is away: {why}; {instead} meanwhile, and it is tried again");
}

pub fn database_outage(why: &str, failures: u64) {
    error!(failures, "the database stays away: {why}; it is tried again every database.retry_delay");
}

pub fn database_refuses(why: &str) {
    error!("the database answers, but {why}");
}

pub fn state_failed(why: impl Display) {
    error!("the local state has a fault: {why}; bans go on, and what is decided is written when it can be");
}

/// The command line cannot reach this server.
pub fn no_control_socket(state_dir: &str, why: impl Display) {
    warn!(state_dir, "there is no control socket, so commands such as status and ban cannot reach this server: {why}");
}

/// It was switched on by a reload.
pub fn api_closed(why: impl Display) {
    error!("the API stays closed: {why}");
}

/// A shard did not do its part.
pub fn errand_given_up(ticket: u64) {
    error!(ticket, "what an operator asked was not answered by every shard in time, and is given up");
}

/// The end does not wait for slow peers.
pub fn answers_cut() {
    warn!("some who asked the API were not answered in full before the end");
}

/// What an operator did is at least here.
pub fn audit_lost(entry: &AuditEntry, why: impl Display) {
    let AuditEntry { who, channel, peer, action, target, detail, outcome } = entry;
    let peer = peer.as_deref().unwrap_or_default();
    error!(who, channel, peer, action, target, detail, outcome, "this is missing from the audit: {why}");
}

pub fn copy_failed(why: impl Display) {
    error!("the last good copy of the database cannot be written to the local state: {why}; it is tried again");
}

pub fn state_works_again() {
    info!("the local state works again; what was decided meanwhile is written");
}

pub fn state_broken(directory: &str) {
    error!(directory, "the local state was broken and is put aside; this start remembers no bans of before");
}

pub fn clock_set(millis: i64) {
    warn!(millis, "the machine's clock was set; bans last as long as they would have");
}

pub fn remembered(bans: usize, time: Duration) {
    info!(bans, seconds = time.as_secs_f64(), "what was decided before is remembered");
}

pub fn shard_deaf() {
    error!("a shard does not take commands any more; it is stuck, and the program should be restarted");
}

pub fn shard_died() {
    error!("a shard has ended by itself; the program cannot go on");
}

pub fn store_died() {
    error!("the store has ended by itself; the program cannot go on");
}

pub fn store_slow() {
    warn!("the last decisions may not have reached the local state or the database: they did not take them in time");
}

pub fn stopping(signal: &str) {
    info!(signal, "stopping: no longer listening, finishing what was received");
}

pub fn deadline_missed(deadline: Duration) {
    warn!(deadline = %print_duration(deadline), "not everything was finished within runtime.shutdown_deadline");
}

pub fn stopped() {
    info!("stopped");
}

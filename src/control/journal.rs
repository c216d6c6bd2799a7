//! Notable happenings: one method each, and one line in the log.
//!
//! Shards never log. What is said here reached the control thread as an event, so an attacker who causes bans fills
//! this thread's queue at most, and what does not fit into it is counted.

use crate::config::{Faults, Settings, print_duration};
use crate::engine::ban::{Act, Decision, Origin};
use crate::engine::policy::Policy;
use std::fmt::Display;
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// The target of the lines that an attacker can cause by the thousand; see [`super::log`].
pub const DECISIONS: &str = "decisions";

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

pub fn shard_deaf() {
    error!("a shard does not take commands any more; it is stuck, and the program should be restarted");
}

pub fn shard_died() {
    error!("a shard has ended by itself; the program cannot go on");
}

pub fn metrics_failed(why: impl Display) {
    error!("the metrics listener has ended: {why}");
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

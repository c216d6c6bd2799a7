//! A policy: everything that may change while the server runs, as one immutable, numbered snapshot.
//!
//! The control thread validates and compiles it; shards swap it whole between two units of work. Nothing in here
//! changes after it was published, so all shards may read the same one.

use super::address::Address;
use super::ban::{FailureKind, PatternId, Severity};
use super::escalation::BanRules;
use super::matcher::Matcher;
use super::table::NetworkTable;
use std::sync::Arc;

/// What a shard works by. The large parts are shared with the policies before and after that have the same.
#[derive(Debug)]
pub struct Policy {
    /// Counts up with each one published, from 1.
    pub number: u64,
    pub rules: BanRules,
    pub matcher: Arc<Matcher>,
    /// Never counted, never denied.
    pub allow: Arc<NetworkTable<()>>,
    /// Always denied, unless allowed.
    pub block: Arc<NetworkTable<()>>,
    /// Who may send log records; empty: anybody.
    pub senders: Arc<NetworkTable<()>>,
    /// The names of all patterns that any policy of this process had: bans outlive the pattern that made them.
    pub names: Arc<[PatternName]>,
    pub questions: QuestionRules,
}

/// What a pattern's number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternName {
    pub name: Arc<str>,
    /// As the newest policy that has the pattern says.
    pub severity: Severity,
    /// The same; `None` if no policy had it: an operator's ban, or one that was learned.
    pub kind: Option<FailureKind>,
}

/// How questions are read and answered.
#[derive(Debug)]
pub struct QuestionRules {
    /// Proxies whose `X-Forwarded-For` is believed, where nginx asks and where Envoy asks.
    pub nginx_trusted_proxies: NetworkTable<()>,
    pub envoy_trusted_proxies: NetworkTable<()>,
    /// Over HTTP: whether a question whose address cannot be read is denied.
    pub deny_unknown: bool,
    /// Over HTTP: whether a denial has a JSON body.
    pub json: bool,
    /// Whether operators are served where nginx asks.
    pub operators: bool,
}

impl Policy {
    /// A pattern's name; empty for a number that was never given out.
    pub fn name(&self, pattern: PatternId) -> &str {
        self.names.get(pattern.number() as usize).map_or("", |pattern| &pattern.name)
    }

    /// What a pattern's failures are; `None` where that is not known.
    pub fn kind(&self, pattern: PatternId) -> Option<FailureKind> {
        self.names.get(pattern.number() as usize).and_then(|pattern| pattern.kind)
    }

    /// Whether records from this sender are read.
    pub fn accepts_sender(&self, sender: Address) -> bool {
        self.senders.is_empty() || self.senders.contains(sender)
    }
}

/// The client at the end of a chain of proxies, from their list of hops (`X-Forwarded-For`), read from the right: each
/// trusted proxy added the one before it, and the first that is not trusted is the client. What stands left of it
/// is whatever the client wrote. `None` if a hop on the way is not an address.
pub fn forwarded_client<'a>(from_right: impl Iterator<Item = &'a [u8]>, trusted: &NetworkTable<()>) -> Option<Address> {
    let mut nearest = None;
    for hop in from_right {
        let hop = Address::parse_with_port(hop)?;
        nearest = Some(hop);
        if !trusted.contains(hop) {
            break;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::super::address::Network;
    use super::super::table::hash_key;
    use super::*;

    #[test]
    fn the_client_is_the_first_hop_from_the_right_that_is_not_trusted() {
        let mut trusted = NetworkTable::new(hash_key(1));
        trusted.insert(Network::parse("10.0.0.0/8").unwrap(), ());
        let client = |hops: &[&str]| {
            forwarded_client(hops.iter().rev().map(|hop| hop.as_bytes()), &trusted).map(|a| a.to_string())
        };
        assert_eq!(client(&["127.0.0.1", "192.0.2.1", "10.0.0.2", "10.0.0.1"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(client(&["spoofed", "192.0.2.1"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(client(&["10.0.0.3", "10.0.0.2"]).as_deref(), Some("10.0.0.3"));
        assert_eq!(client(&["192.0.2.1", "unknown", "10.0.0.1"]), None);
        assert_eq!(client(&["[2001:db8::1]:443", "10.0.0.1:80"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(client(&[]), None);
    }
}

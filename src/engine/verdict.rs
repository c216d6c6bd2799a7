//! The verdict: what a proxy is told about a client.

use super::address::Address;
use super::ban::Severity;
use super::policy::Policy;
use super::replica::{InForce, Replica};
use super::time::Time;
use std::time::Duration;

/// Allow or deny, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    Allow,
    /// It is on the allowlist, whatever else is known.
    Allowed,
    /// It is on the blocklist: for good.
    Blocked,
    /// It is banned until a time.
    Banned(InForce),
}

/// What can be said about a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    /// One word for logs and headers: the pattern's name, or `blacklist`.
    pub reason: &'a str,
    /// Which pattern's failures led to it; `None` for the blacklist.
    pub ban: Option<(&'a str, Severity)>,
    /// `None` if it does not end by itself.
    pub ends_in: Option<Duration>,
}

impl Verdict {
    pub fn is_denial(self) -> bool {
        matches!(self, Verdict::Blocked | Verdict::Banned(_))
    }

    /// Why it is a denial; `None` if it is none.
    pub fn denial(self, policy: &Policy, now: Time) -> Option<Denial<'_>> {
        match self {
            Verdict::Allow | Verdict::Allowed => None,
            Verdict::Blocked => Some(Denial { reason: "blacklist", ban: None, ends_in: None }),
            Verdict::Banned(ban) => {
                let pattern = policy.name(ban.pattern);
                let ban_of = Some((pattern, ban.severity));
                Some(Denial { reason: pattern, ban: ban_of, ends_in: Some(ban.until.since(now)) })
            }
        }
    }
}

/// Judges by the shard's own policy and replica, and nothing else: the allowlist beats the blocklist, which beats
/// temporary bans.
#[inline]
pub fn judge(policy: &Policy, replica: &Replica, address: Address, now: Time) -> Verdict {
    if policy.allow.contains(address) {
        Verdict::Allowed
    } else if policy.block.contains(address) {
        Verdict::Blocked
    } else {
        replica.lookup(address, now).map_or(Verdict::Allow, Verdict::Banned)
    }
}

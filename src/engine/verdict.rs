//! The verdict: what a proxy is told about a client.

use super::address::Address;
use super::policy::Policy;
use super::replica::{InForce, Replica};
use super::time::Time;

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

impl Verdict {
    pub fn is_denial(self) -> bool {
        matches!(self, Verdict::Blocked | Verdict::Banned(_))
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

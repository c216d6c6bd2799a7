//! A ban as it is stored, in the local state and in the shared database.

use super::entry::{NAME_BYTES_MAX, REASON_BYTES_MAX, cut};
use super::wall::Wall;
use crate::engine::address::Network;
use crate::engine::ban::{Ban, Decision, Learned, Lift, PatternId, Severity};
use std::sync::Arc;

/// What an operator said of a ban, or of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub reason: Option<String>,
    pub created_by: String,
}

impl Said {
    /// A reason beyond 1,024 bytes is cut, and a name beyond 128.
    pub fn new(reason: Option<&str>, created_by: &str) -> Said {
        let reason = reason.map(|reason| cut(reason, REASON_BYTES_MAX)).filter(|reason| !reason.is_empty());
        Said { reason, created_by: cut(created_by, NAME_BYTES_MAX) }
    }
}

/// A decision on its way to the store, and what an operator said of it, if it is one's.
#[derive(Clone, Debug)]
pub struct Decided {
    pub decision: Decision,
    pub said: Option<Arc<Said>>,
}

/// Who decided a ban, so that nobody takes it for another one: unique in all databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanKey {
    /// The node that decided it.
    pub node: String,
    /// Which start of that node.
    pub run: i64,
    /// The decision's serial in that run.
    pub serial: i64,
}

/// One ban with everything that is remembered of it. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBan {
    pub key: BanKey,
    pub client: Network,
    /// The name of the pattern that led to it.
    pub pattern: String,
    pub severity: Severity,
    pub failures: u32,
    /// Which offence of the client it was, from 1.
    pub offences: u32,
    /// What an operator gave as the reason, and who it was.
    pub reason: Option<String>,
    pub created_by: Option<String>,
    pub banned_at: i64,
    pub expires_at: i64,
    /// When it was ended early, and why.
    pub lifted: Option<(i64, Lift)>,
    /// Which operator ended it.
    pub lifted_by: Option<String>,
}

impl StoredBan {
    /// For the shard that counts for this client. `id` is the number of the pattern's name in this process.
    pub fn learned(&self, wall: &Wall, id: PatternId) -> Learned {
        let ban = Ban {
            until: wall.time(self.expires_at),
            offences: self.offences,
            failures: self.failures,
            pattern: id,
            severity: self.severity,
        };
        Learned {
            client: self.client,
            at: wall.time(self.banned_at).min(wall.now()),
            ban,
            lifted: self.lifted.map(|(at, why)| (wall.time(at), why)),
        }
    }
}

/// What a row says, before it is believed.
#[derive(Debug, Default)]
pub struct RawBan {
    pub node: String,
    pub run: i64,
    pub serial: i64,
    pub ip_address: String,
    pub pattern: String,
    pub severity: i64,
    pub failures: i64,
    pub offences: i64,
    pub reason: Option<String>,
    pub created_by: Option<String>,
    pub banned_at: i64,
    pub expires_at: i64,
    pub lifted_at: Option<i64>,
    pub lifted_reason: Option<String>,
    pub lifted_by: Option<String>,
}

/// No ban lasts longer, whatever a row says: ten years.
const BAN_MILLIS_MAX: i64 = 3650 * 86_400_000;

impl RawBan {
    /// The ban, if the row can be one.
    pub fn check(self) -> Option<StoredBan> {
        let client = Network::parse(&self.ip_address).ok()?;
        let severity = Severity::new(u8::try_from(self.severity).ok()?)?;
        let named = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
        // As the name of no pattern can be, and a label of no metric should.
        let strange = self.pattern.contains(['\\', '"']);
        if !named(&self.node) || !named(&self.pattern) || strange {
            return None;
        }
        let lasts = self.expires_at.checked_sub(self.banned_at)?;
        if !(0..=BAN_MILLIS_MAX).contains(&lasts) {
            return None;
        }
        let lifted = self.lifted_at.map(|at| {
            let why = self.lifted_reason.as_deref().and_then(Lift::from_name);
            (at, why.unwrap_or(Lift::Unbanned))
        });
        Some(StoredBan {
            key: BanKey { node: self.node, run: self.run, serial: self.serial },
            client,
            pattern: self.pattern,
            severity,
            failures: u32::try_from(self.failures).ok()?,
            offences: u32::try_from(self.offences).ok()?,
            reason: self.reason.filter(|reason| reason.len() <= REASON_BYTES_MAX),
            created_by: self.created_by.filter(|name| name.len() <= NAME_BYTES_MAX),
            banned_at: self.banned_at,
            expires_at: self.expires_at,
            lifted,
            lifted_by: self.lifted_by.filter(|name| name.len() <= NAME_BYTES_MAX),
        })
    }
}

#[cfg(test)]
pub(super) fn ban(address: &str, node: &str, serial: i64) -> StoredBan {
    StoredBan {
        key: BanKey { node: node.to_owned(), run: 1, serial },
        client: Network::parse(address).unwrap(),
        pattern: "dovecot-login".to_owned(),
        severity: Severity::new(3).unwrap(),
        failures: 5,
        offences: 1,
        reason: None,
        created_by: None,
        banned_at: 1_763_800_000_000,
        expires_at: 1_763_800_300_000,
        lifted: None,
        lifted_by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawBan {
        RawBan {
            node: "a".to_owned(),
            run: 1,
            serial: 7,
            ip_address: "192.0.2.1".to_owned(),
            pattern: "p".to_owned(),
            severity: 3,
            failures: 5,
            offences: 1,
            banned_at: 1_000,
            expires_at: 2_000,
            ..RawBan::default()
        }
    }

    #[test]
    fn a_row_is_believed_only_if_it_can_be_a_ban() {
        assert_eq!(raw().check().unwrap().key, BanKey { node: "a".to_owned(), run: 1, serial: 7 });
        for wrong in [
            RawBan { ip_address: "mail.example.org".to_owned(), ..raw() },
            RawBan { severity: 0, ..raw() },
            RawBan { severity: 259, ..raw() },
            RawBan { failures: -1, ..raw() },
            RawBan { offences: i64::MAX, ..raw() },
            RawBan { expires_at: 999, ..raw() },
            RawBan { expires_at: i64::MAX, banned_at: i64::MIN, ..raw() },
            RawBan { expires_at: i64::MAX, ..raw() },
            RawBan { pattern: "p\n".to_owned(), ..raw() },
            RawBan { node: "n".repeat(129), ..raw() },
        ] {
            let said = format!("{wrong:?}");
            assert!(wrong.check().is_none(), "{said}");
        }
        let lifted = RawBan { lifted_at: Some(1_500), lifted_reason: Some("whatever".to_owned()), ..raw() };
        assert_eq!(lifted.check().unwrap().lifted, Some((1_500, Lift::Unbanned)));
    }
}

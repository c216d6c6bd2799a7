//! The record of what operators did: who changed what, through which door, and what came of it.

use super::entry::{NAME_BYTES_MAX, cut};
use serde::Serialize;

/// Entries that the local state keeps; the oldest go.
pub const KEPT_MAX: i64 = 100_000;

/// Entries that the shared database keeps.
pub const SHARED_MAX: i64 = 1_000_000;

/// Longest target, outcome and detail, in bytes.
const TARGET_BYTES_MAX: usize = 256;
const DETAIL_BYTES_MAX: usize = 4096;

/// Something that an operator did or tried. The store adds when and on which node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The name that the operator gave or has.
    pub who: String,
    /// Through which door: `api`, `socket`.
    pub channel: &'static str,
    /// From which address, where there is one.
    pub peer: Option<String>,
    /// What: `ban`, `unban`, `purge`, `whitelist_add` …
    pub action: &'static str,
    /// To whom or what.
    pub target: String,
    pub detail: String,
    /// What came of it.
    pub outcome: String,
}

impl AuditEntry {
    /// The same, with nothing that is too long or cannot be stored.
    pub fn cut(self) -> AuditEntry {
        AuditEntry {
            who: cut(&self.who, NAME_BYTES_MAX),
            peer: self.peer.map(|peer| cut(&peer, NAME_BYTES_MAX)),
            target: cut(&self.target, TARGET_BYTES_MAX),
            detail: cut(&self.detail, DETAIL_BYTES_MAX),
            outcome: cut(&self.outcome, TARGET_BYTES_MAX),
            ..self
        }
    }
}

/// An entry as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audited {
    pub id: i64,
    pub node: String,
    /// RFC 3339, in UTC.
    pub at: String,
    pub who: String,
    pub channel: String,
    pub peer: Option<String>,
    pub action: String,
    pub target: String,
    pub detail: String,
    pub outcome: String,
}

/// Which entries are asked for. The newest come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// At most [`super::PAGE_MAX`].
    pub limit: usize,
    /// [`AuditPage::next`] of the page before.
    pub before: Option<i64>,
    /// Only entries with this text in any of their columns, in upper or lower case.
    pub search: Option<String>,
}

/// Whose entries these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditSource {
    /// Those of all nodes.
    Database,
    /// Those of this node, because there is no database or it does not answer.
    Local,
}

/// Some of the entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditPage {
    pub entries: Vec<Audited>,
    /// Where the next page begins; `None` if this is the last. It belongs to this source.
    pub next: Option<i64>,
    pub source: AuditSource,
}

/// An entry as it is stored. `at` is milliseconds since 1970; the key says which one it is, in all databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAudit {
    pub id: i64,
    pub node: String,
    pub run: i64,
    pub serial: i64,
    pub at: i64,
    pub who: String,
    pub channel: String,
    pub peer: Option<String>,
    pub action: String,
    pub target: String,
    pub detail: String,
    pub outcome: String,
}

impl StoredAudit {
    pub fn shown(self) -> Audited {
        Audited {
            id: self.id,
            node: self.node,
            at: super::wall::print_wall(self.at),
            who: self.who,
            channel: self.channel,
            peer: self.peer,
            action: self.action,
            target: self.target,
            detail: self.detail,
            outcome: self.outcome,
        }
    }
}

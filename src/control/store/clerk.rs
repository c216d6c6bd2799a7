//! The clerk: what whoever serves operators asks the store for, from any task and without the server.
//!
//! A question comes to the keeper, and from there to the task that can answer it: the keeper itself for the lists of the
//! local state, the link for those of the shared database, the archive for everything that is only read here. Nobody waits
//! for long: what finds no room is refused at once, and what nobody waits for any more is not done.

use super::audit::{AuditEntry, AuditPage, AuditQuery};
use super::contents::ListName;
use super::entry::{
    EditFault, Enlisted, Entry, EntryPage, EntryQuery, NAME_BYTES_MAX, NewEntry, REASON_BYTES_MAX, cut,
};
use crate::control::journal;
use crate::engine::address::{Address, Network};
use serde::Serialize;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long an answer is waited for: a little longer than the database has.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// Clients whose history is asked for at once.
pub const CLIENTS_MAX: usize = 256;

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<Result<T, EditFault>>;

/// A question or an edit.
#[derive(Debug)]
pub enum Ask {
    Enlist(ListName, NewEntry, Answer<Enlisted>),
    Delist(ListName, Network, Answer<bool>),
    Entries(ListName, EntryQuery, Answer<EntryPage>),
    Covering(ListName, Address, Answer<Vec<Entry>>),
    History(Vec<Network>, usize, Answer<Vec<PastBan>>),
    Note(Box<AuditEntry>, oneshot::Sender<()>),
    Audit(AuditQuery, Answer<AuditPage>),
}

impl Ask {
    /// Answers that it cannot be done.
    pub fn refuse(self, fault: EditFault) {
        match self {
            Ask::Enlist(_, _, answer) => drop(answer.send(Err(fault))),
            Ask::Delist(_, _, answer) => drop(answer.send(Err(fault))),
            Ask::Entries(_, _, answer) => drop(answer.send(Err(fault))),
            Ask::Covering(_, _, answer) => drop(answer.send(Err(fault))),
            Ask::History(_, _, answer) => drop(answer.send(Err(fault))),
            Ask::Audit(_, answer) => drop(answer.send(Err(fault))),
            Ask::Note(entry, _) => journal::audit_lost(&entry, fault),
        }
    }

    /// Whether nobody waits for it any more.
    pub fn is_given_up(&self) -> bool {
        match self {
            Ask::Enlist(_, _, answer) => answer.is_closed(),
            Ask::Delist(_, _, answer) => answer.is_closed(),
            Ask::Entries(_, _, answer) => answer.is_closed(),
            Ask::Covering(_, _, answer) => answer.is_closed(),
            Ask::History(_, _, answer) => answer.is_closed(),
            Ask::Audit(_, answer) => answer.is_closed(),
            // It is for the record, whoever waits.
            Ask::Note(..) => false,
        }
    }
}

/// A ban of before or of now, as it is shown. Times are RFC 3339, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastBan {
    pub node: String,
    pub client: String,
    pub pattern: String,
    pub severity: u8,
    pub failures: u32,
    pub offences: u32,
    /// What an operator gave as the reason, and who it was.
    pub reason: Option<String>,
    pub created_by: Option<String>,
    pub banned_at: String,
    pub expires_at: String,
    pub lifted_at: Option<String>,
    pub lifted_reason: Option<&'static str>,
    pub lifted_by: Option<String>,
}

/// Asks the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clerk {
    asks: mpsc::Sender<Ask>,
}

impl Clerk {
    pub(super) fn new(asks: mpsc::Sender<Ask>) -> Clerk {
        Clerk { asks }
    }

    /// Puts a network on a list: of the shared database where there is one, else of the local state.
    ///
    /// # Errors
    ///
    /// If it cannot be written now.
    pub async fn enlist(&self, list: ListName, entry: NewEntry) -> Result<Enlisted, EditFault> {
        let NewEntry { network, reason, created_by } = entry;
        let reason = reason.map(|reason| cut(&reason, REASON_BYTES_MAX)).filter(|reason| !reason.is_empty());
        let entry = NewEntry { network, reason, created_by: cut(&created_by, NAME_BYTES_MAX) };
        self.ask(|answer| Ask::Enlist(list, entry, answer)).await
    }

    /// Takes exactly this network from a list, wherever it is and however it is written there. False if it was not there.
    ///
    /// # Errors
    ///
    /// If it stands in the file, or cannot be removed now.
    pub async fn delist(&self, list: ListName, network: Network) -> Result<bool, EditFault> {
        self.ask(|answer| Ask::Delist(list, network, answer)).await
    }

    /// A page of a list's entries.
    ///
    /// # Errors
    ///
    /// If they cannot be read now.
    pub async fn entries(&self, list: ListName, query: EntryQuery) -> Result<EntryPage, EditFault> {
        self.ask(|answer| Ask::Entries(list, query, answer)).await
    }

    /// The entries in force that hold an address: those of the longest networks first.
    ///
    /// # Errors
    ///
    /// If they cannot be read now.
    pub async fn covering(&self, list: ListName, address: Address) -> Result<Vec<Entry>, EditFault> {
        self.ask(|answer| Ask::Covering(list, address, answer)).await
    }

    /// The bans of some clients that are remembered, newest first: exactly these networks, [`CLIENTS_MAX`] of them.
    ///
    /// # Errors
    ///
    /// If the local state cannot be read now.
    pub async fn history(&self, clients: Vec<Network>, limit: usize) -> Result<Vec<PastBan>, EditFault> {
        self.ask(|answer| Ask::History(clients, limit, answer)).await
    }

    /// Has it written down who did what. Returns when it is on disk, or cannot be; which is said in the log and on the
    /// status page, and to nobody else.
    pub async fn note(&self, entry: AuditEntry) {
        let entry = Box::new(entry.cut());
        let (written, waits) = oneshot::channel();
        match self.asks.send_timeout(Ask::Note(entry, written), ANSWER_DEADLINE).await {
            // Whoever has it says himself what went wrong.
            Ok(()) => drop(tokio::time::timeout(ANSWER_DEADLINE, waits).await),
            Err(mpsc::error::SendTimeoutError::Timeout(ask)) => ask.refuse(EditFault::Busy),
            Err(mpsc::error::SendTimeoutError::Closed(ask)) => ask.refuse(EditFault::Ending),
        }
    }

    /// A page of what was written down.
    ///
    /// # Errors
    ///
    /// If it can neither be read in the shared database nor here.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage, EditFault> {
        self.ask(|answer| Ask::Audit(query, answer)).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, EditFault> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(ask(answer)).map_err(|why| match why {
            mpsc::error::TrySendError::Full(_) => EditFault::Busy,
            mpsc::error::TrySendError::Closed(_) => EditFault::Ending,
        })?;
        match tokio::time::timeout(ANSWER_DEADLINE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(EditFault::Ending),
            Err(_) => Err(EditFault::Busy),
        }
    }
}

//! The archive: answers operators from the local state, one after the other, and writes down what they did.

use super::Shared;
use super::audit::{AuditPage, AuditQuery, AuditSource, StoredAudit};
use super::ban::StoredBan;
use super::clerk::{Ask, CLIENTS_MAX, PastBan};
use super::contents::ListName;
use super::database::LIST_ROWS_MAX;
use super::entry::{EditFault, Enlisted, Entry, EntryPage, EntryQuery, Filter, NewEntry, PAGE_MAX};
use super::page::{Filling, Here, covering, covering_in_file};
use super::status::{Operation, printable_error};
use super::wall::print_wall;
use crate::control::journal;
use crate::engine::address::{Address, Network};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// Works until nobody can ask any more.
pub async fn run(mut asked: mpsc::Receiver<Ask>, shared: Rc<Shared>, wake: Rc<Notify>) {
    while let Some(ask) = asked.recv().await {
        if ask.is_given_up() {
            continue;
        }
        match ask {
            Ask::Entries(list, query, answer) => drop(answer.send(entries(&shared, list, &query).await)),
            Ask::Covering(list, address, answer) => {
                drop(answer.send(covering_here(&shared, list, address).await));
            }
            Ask::History(clients, limit, answer) => drop(answer.send(history(&shared, &clients, limit).await)),
            Ask::Audit(query, answer) => drop(answer.send(audit(&shared, &query).await)),
            Ask::Note(entry, written) => {
                let wall = shared.wall.get();
                let noted = shared.state.lock().await.note(&entry, wall.at(wall.now())).await;
                shared.counts.operation(Operation::Keep, noted.is_ok());
                if let Err(why) = &noted {
                    journal::audit_lost(&entry, why);
                }
                shared.locally(noted);
                wake.notify_one();
                let _ = written.send(());
            }
            // A policy follows from these, which is the keeper's.
            edit @ (Ask::Enlist(..) | Ask::Delist(..)) => edit.refuse(EditFault::Busy),
        }
    }
}

/// What cannot be read or written in the local state.
fn unwritable(why: &sqlx::Error) -> EditFault {
    EditFault::Unwritable(printable_error(&why.to_string()))
}

/// An entry in memory alone might be gone after the next start, and an operator thinks that it is for good.
fn homeless(shared: &Shared) -> EditFault {
    let why = shared.state_fault.borrow().clone();
    EditFault::Unwritable(why.unwrap_or_else(|| "the file cannot be written now".to_owned()))
}

/// Puts an entry on this node's own list. The policy is for the keeper.
pub async fn enlist(shared: &Shared, list: ListName, entry: &NewEntry) -> Result<Enlisted, EditFault> {
    if shared.local.borrow().holds(list, entry.network) {
        return Ok(Enlisted::Already);
    }
    if shared.local.borrow().of(list).len() >= LIST_ROWS_MAX {
        return Err(EditFault::TooMany(list));
    }
    let wall = shared.wall.get();
    let mut state = shared.state.lock().await;
    if !state.is_at_home() {
        return Err(homeless(shared));
    }
    let enlisted = state.enlist(list, entry, wall.at(wall.now())).await;
    shared.counts.operation(Operation::Keep, enlisted.is_ok());
    let new = enlisted.map_err(|why| unwritable(&why))?;
    shared.local.borrow_mut().insert(list, entry.network);
    Ok(if new { Enlisted::New } else { Enlisted::Already })
}

/// Takes an entry from this node's own list. The policy is for the keeper.
pub async fn delist(shared: &Shared, list: ListName, network: Network) -> Result<bool, EditFault> {
    if !shared.local.borrow().holds(list, network) {
        return Ok(false);
    }
    let mut state = shared.state.lock().await;
    if !state.is_at_home() {
        return Err(homeless(shared));
    }
    let delisted = state.delist(list, network).await;
    shared.counts.operation(Operation::Keep, delisted.is_ok());
    delisted.map_err(|why| unwritable(&why))?;
    shared.local.borrow_mut().remove(list, network);
    Ok(true)
}

async fn entries(shared: &Shared, list: ListName, query: &EntryQuery) -> Result<EntryPage, EditFault> {
    let of_file = Arc::clone(shared.file.borrow().of(list));
    let mut page = Filling::begin(list, query, &of_file);
    page.without_database();
    page.add(&mut Here(shared)).await.map_err(|why| unwritable(&why))?;
    Ok(page.finish())
}

/// The entries of the file and of this node's own list that hold an address.
pub async fn covering_here(shared: &Shared, list: ListName, address: Address) -> Result<Vec<Entry>, EditFault> {
    let (of_file, local) = (Arc::clone(shared.file.borrow().of(list)), Arc::clone(shared.local.borrow().of(list)));
    let mut found = covering_in_file(&of_file, address);
    found.extend(covering(&mut Here(shared), list, address, &local).await.map_err(|why| unwritable(&why))?);
    Ok(found)
}

async fn history(shared: &Shared, clients: &[Network], limit: usize) -> Result<Vec<PastBan>, EditFault> {
    let clients = clients.get(..CLIENTS_MAX).unwrap_or(clients);
    let bans = shared.state.lock().await.bans_of(clients, limit.min(PAGE_MAX)).await;
    Ok(bans.map_err(|why| unwritable(&why))?.into_iter().map(past).collect())
}

fn past(ban: StoredBan) -> PastBan {
    PastBan {
        node: ban.key.node,
        client: ban.client.to_string(),
        pattern: ban.pattern,
        severity: ban.severity.level(),
        failures: ban.failures,
        offences: ban.offences,
        reason: ban.reason,
        created_by: ban.created_by,
        banned_at: print_wall(ban.banned_at),
        expires_at: print_wall(ban.expires_at),
        lifted_at: ban.lifted.map(|(at, _)| print_wall(at)),
        lifted_reason: ban.lifted.map(|(_, why)| why.name()),
        lifted_by: ban.lifted_by,
    }
}

/// What operators did on this node.
pub async fn audit(shared: &Shared, query: &AuditQuery) -> Result<AuditPage, EditFault> {
    let Bounds { before, limit, search } = Bounds::of(query);
    let rows = shared.state.lock().await.audit_page(before, search.as_deref(), limit + 1).await;
    Ok(audit_page(rows.map_err(|why| unwritable(&why))?, limit, AuditSource::Local))
}

/// What a question about the audit asks for, within bounds.
#[derive(Debug)]
pub struct Bounds {
    pub before: i64,
    pub limit: usize,
    pub search: Option<String>,
}

impl Bounds {
    pub fn of(query: &AuditQuery) -> Bounds {
        let search = EntryQuery { search: query.search.clone(), ..EntryQuery::default() };
        Bounds {
            before: query.before.unwrap_or(i64::MAX),
            limit: query.limit.clamp(1, PAGE_MAX),
            search: Filter::of(&search).search,
        }
    }
}

/// A page of rows, which may be one more than fit on it.
pub fn audit_page(mut rows: Vec<StoredAudit>, limit: usize, source: AuditSource) -> AuditPage {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().map(|row| row.id).filter(|_| more);
    AuditPage { entries: rows.into_iter().map(StoredAudit::shown).collect(), next, source }
}

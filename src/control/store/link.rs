//! The link to the shared database: connects, sees what changed, tells and learns bans, and comes back after an outage.
//!
//! It runs beside everything else and nobody waits for it. What it finds it says as [`News`]. A call that fails ends the
//! session, and the next begins after a pause that doubles up to `database.retry_delay`; what the database merely refuses
//! (it is read-only, its disk is full, another node has it locked) leaves the session standing, for reading goes on. What
//! the local state does not do is no fault of the database: it is said, and goes on in memory.
//!
//! Between its rounds it does what operators want of the lists, at once. An edit that nobody else's came before is known
//! without reading the list again, see [`super::database`]; so a list of a million entries follows in milliseconds.

use super::Shared;
use super::archive;
use super::audit::{AuditPage, AuditQuery, AuditSource};
use super::ban::StoredBan;
use super::clerk::Ask;
use super::contents::{Contents, ListName, TableName};
use super::database::{self, Database, DatabaseFault, Edited, LIST_ROWS_MAX, Portion, Seed, There, Versions, Which};
use super::entry::{self, EditFault, Enlisted, Entry, EntryPage, EntryQuery, NewEntry};
use super::page::{Filling, Here, covering, rows_of};
use super::status::{Counts, Operation, add, printable_error};
use crate::config::{DatabaseDriver, DatabaseSettings, Dsn};
use crate::engine::address::{Address, Network};
use sqlx::postgres::PgListener;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// How often it is asked whether something changed, which costs each of them about a tenth of a millisecond. PostgreSQL says
/// so by itself, and is asked in case that was lost.
fn poll(dsn: &Dsn) -> Duration {
    let postgres = matches!(dsn, Dsn::Server(server) if server.driver == DatabaseDriver::Postgres);
    Duration::from_millis(if postgres { 500 } else { 250 })
}

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Bans told in one transaction.
const TOLD_AT_ONCE: i64 = 5_000;

/// Entries of the audit told in one statement: each has eleven values.
const AUDIT_TOLD_AT_ONCE: i64 = 500;

/// Times that an entry is removed which somebody wrote in several ways.
const REMOVED_AT_MOST: usize = 3;

/// How often old bans are cleared away in the shared database.
const PRUNE: Duration = Duration::from_secs(3600);

/// What the link found.
#[derive(Debug)]
pub enum News {
    /// The settings were read. `changed` says whether they differ from those before.
    Loaded { contents: Contents, changed: bool },
    /// An entry was taken from this node's own list, as well as from the database's.
    Delisted,
    /// A whole round went well, after a failure or at first.
    Up,
    /// Other nodes banned, or ended bans.
    Learned(Vec<StoredBan>),
    /// A call failed, so many in a row.
    Failed { why: String, failures: u64 },
    /// The database does not do something, but answers.
    Refused(String),
    /// It does again what it had refused.
    Willing,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    Fault(DatabaseFault),
    /// The program ends.
    NobodyListens,
}

impl From<DatabaseFault> for End {
    fn from(fault: DatabaseFault) -> End {
        End::Fault(fault)
    }
}

/// One link, for the life of the process.
#[derive(Debug)]
pub struct Link {
    dsn: Dsn,
    settings: DatabaseSettings,
    seed: Seed,
    shared: Rc<Shared>,
    news: mpsc::Sender<News>,
    /// Rung when there is something to tell or to look at.
    wake: Rc<Notify>,
    /// The open session's database.
    database: Option<Database>,
    /// What was read last, of which database, and the versions of it.
    read: Option<(String, Contents, Versions)>,
    /// Whether an SQLite file that is not there may be made.
    may_create: bool,
    failures: u64,
    /// The highest number of a ban that was seen in the database or told to it.
    seen: i64,
    /// Not told before this, because the database refused.
    tell_at: Option<Instant>,
    audit_at: Option<Instant>,
    /// Operators' questions and edits.
    asked: mpsc::Receiver<Ask>,
    /// Why the database is away, as it was said last.
    why: String,
    prune_at: Instant,
    refresh_at: Instant,
}

impl Link {
    pub fn new(
        dsn: Dsn,
        settings: DatabaseSettings,
        seed: Seed,
        shared: Rc<Shared>,
        news: mpsc::Sender<News>,
        wake: Rc<Notify>,
        may_create: bool,
    ) -> Link {
        let now = Instant::now();
        Link {
            dsn,
            settings,
            seed,
            shared,
            news,
            wake,
            database: None,
            read: None,
            may_create,
            failures: 0,
            seen: 0,
            tell_at: None,
            audit_at: None,
            // Of nobody, until there is somebody.
            asked: mpsc::channel(1).1,
            why: "it has not answered yet".to_owned(),
            prune_at: now,
            refresh_at: now,
        }
    }

    /// From where questions and edits come.
    pub fn asked_by(&mut self, asked: mpsc::Receiver<Ask>) {
        self.asked = asked;
    }

    /// Tries once, before the server answers anybody: the settings, and the bans of other nodes into the local state.
    /// No longer than `patience`.
    pub async fn first(&mut self, patience: Duration) -> Result<Contents, String> {
        let why = match tokio::time::timeout(patience, self.try_first()).await {
            Ok(Ok(contents)) => return Ok(contents),
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => DatabaseFault::TimedOut("starting").to_string(),
        };
        self.drop_database();
        self.failures += 1;
        self.why = printable_error(&why);
        Err(why)
    }

    async fn try_first(&mut self) -> database::Result<Contents> {
        let mut database = self.open().await?;
        let (contents, versions) = self.load(&mut database, &TableName::ALL).await?;
        if self.settings.share_bans {
            // Nothing is said yet, so nobody can be missing who listens.
            match self.learn(&mut database, versions, false).await {
                Err(End::Fault(fault)) => return Err(fault),
                Err(End::NobodyListens) | Ok(()) => {}
            }
        }
        self.read = Some((database.id().to_owned(), contents.clone(), versions));
        self.database = Some(database);
        Ok(contents)
    }

    /// Keeps the link up until the process ends, and listens where there is something to hear.
    pub async fn run(self) {
        let url = database::listening_url(&self.dsn);
        let (wake, pause) = (Rc::clone(&self.wake), self.settings.retry_delay);
        let counts = Arc::clone(&self.shared.counts);
        let listening = async move {
            match url {
                Some(url) => listen(url, wake, pause, &counts).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.work() => {}
            () = listening => {}
        }
    }

    async fn work(mut self) {
        loop {
            let fault = match self.session().await {
                Err(End::Fault(fault)) => fault,
                Err(End::NobodyListens) => return,
                Ok(never) => match never {},
            };
            self.drop_database();
            self.failures += 1;
            self.why = printable_error(&fault.to_string());
            if self.say(News::Failed { why: fault.to_string(), failures: self.failures }).await.is_err() {
                return;
            }
            let pause = tokio::time::sleep(self.pause());
            turn_away(&self.shared, &self.why, &mut self.asked, pause).await;
        }
    }

    /// How long to wait after so many failures in a row.
    fn pause(&self) -> Duration {
        let doublings = u32::try_from(self.failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
        (FIRST_PAUSE * 2u32.pow(doublings)).min(self.settings.retry_delay)
    }

    async fn open(&mut self) -> database::Result<Database> {
        let opened = Database::open(&self.dsn, self.may_create, &self.seed, super::draw()).await;
        self.shared.counts.operation(Operation::Connect, opened.is_ok());
        if opened.is_ok() {
            self.shared.counts.connections.store(1, Ordering::Relaxed);
            // A file that was there and is gone is an outage, not an empty database.
            self.may_create = false;
        }
        opened
    }

    fn drop_database(&mut self) {
        self.database = None;
        self.shared.counts.connections.store(0, Ordering::Relaxed);
    }

    /// Goes on, round after round, until a call fails.
    async fn session(&mut self) -> Result<Infallible, End> {
        let fresh = self.database.is_none();
        let mut database = match self.database.take() {
            Some(database) => database,
            None => {
                // Nobody waits for a connection that may never come.
                let (_, nobody) = mpsc::channel(1);
                let mut asked = std::mem::replace(&mut self.asked, nobody);
                let (shared, why) = (Rc::clone(&self.shared), self.why.clone());
                let opened = turn_away(&shared, &why, &mut asked, self.open()).await;
                self.asked = asked;
                opened?
            }
        };
        let mut proven = !fresh;
        loop {
            let refresh = Instant::now() >= self.refresh_at;
            let asked = if refresh || !proven { Ok(true) } else { database.may_have_changed().await };
            self.shared.counts.operation(Operation::Poll, asked.is_ok());
            if asked? {
                self.look(&mut database, refresh).await?;
            }
            self.tell(&mut database).await?;
            self.tell_audit(&mut database).await?;
            self.prune(&mut database).await?;
            // Not before a whole round went well: what always fails at the same place must wait longer each time.
            if !std::mem::replace(&mut proven, true) {
                self.failures = 0;
                self.say(News::Up).await?;
            }
            tokio::select! {
                () = tokio::time::sleep(poll(&self.dsn)) => {}
                () = self.wake.notified() => {}
                Some(ask) = self.asked.recv() => self.serve(&mut database, ask).await?,
            }
        }
    }

    /// Answers an operator, or does what one wants. A call that fails ends the session, as any does.
    async fn serve(&mut self, database: &mut Database, ask: Ask) -> Result<(), End> {
        if ask.is_given_up() {
            return Ok(());
        }
        match ask {
            Ask::Enlist(list, entry, answer) => {
                let (answered, end) = part(self.enlist(database, list, &entry).await);
                let _ = answer.send(answered);
                end
            }
            Ask::Delist(list, network, answer) => {
                let (answered, end) = part(self.delist(database, list, network).await);
                let _ = answer.send(answered);
                end
            }
            Ask::Entries(list, query, answer) => {
                let (answered, end) = part(self.entries(database, list, &query).await);
                let _ = answer.send(answered);
                end
            }
            Ask::Covering(list, address, answer) => {
                let (answered, end) = part(self.covering(database, list, address).await);
                let _ = answer.send(answered);
                end
            }
            Ask::Audit(query, answer) => match self.audit(database, &query).await {
                Ok(page) => {
                    let _ = answer.send(Ok(page));
                    Ok(())
                }
                Err(fault) => {
                    let _ = answer.send(archive::audit(&self.shared, &query).await);
                    if fault.leaves_connection() { Ok(()) } else { Err(fault.into()) }
                }
            },
            // The archive's.
            other @ (Ask::History(..) | Ask::Note(..)) => {
                other.refuse(EditFault::Busy);
                Ok(())
            }
        }
    }

    async fn enlist(&mut self, database: &mut Database, list: ListName, entry: &NewEntry) -> Result<Enlisted, Stop> {
        let known = self.read.as_ref().map(|(_, contents, _)| contents.list(list));
        if known.is_some_and(|known| known.rows >= LIST_ROWS_MAX as u64) {
            return Err(EditFault::TooMany(list).into());
        }
        let holds = known.is_some_and(|known| known.networks.binary_search(&entry.network).is_ok());
        let (enlisted, edited) = database.enlist(list, entry, holds).await?;
        if enlisted == Enlisted::New {
            self.follow(database, list, edited, |known| {
                known.repeated += usize::from(!entry::insert(&mut known.networks, entry.network));
            })
            .await?;
        }
        Ok(enlisted)
    }

    async fn delist(&mut self, database: &mut Database, list: ListName, network: Network) -> Result<bool, Stop> {
        let mut which = Which::Spelled(network);
        let mut removed = false;
        for _ in 0..REMOVED_AT_MOST {
            let (rows, edited) = database.delist(list, &which).await?;
            removed |= rows.rows > 0;
            if rows.rows > 0 {
                let is_known = self.read.as_ref().is_some_and(|(_, contents, _)| contents.list(list).repeated == 0);
                // Of several rows one may be left, and then the list is read again.
                let edited = if is_known && rows.enabled < 2 { edited } else { Edited { before: -1, ..edited } };
                self.follow(database, list, edited, |known| {
                    if rows.enabled > 0 {
                        entry::remove(&mut known.networks, network);
                    }
                })
                .await?;
            }
            let known = self.read.as_ref().map(|(_, contents, _)| Arc::clone(&contents.list(list).networks));
            if known.is_none_or(|known| known.binary_search(&network).is_err()) {
                break;
            }
            // It is there, but written as nobody usually does.
            let ids = rows_of(&mut There { database, rows: None }, list, &[network]).await?;
            if ids.is_empty() {
                break;
            }
            which = Which::Ids(ids);
        }
        // It may have been put there before there was a database.
        if archive::delist(&self.shared, list, network).await? {
            removed = true;
            self.say(News::Delisted).await?;
        }
        Ok(removed)
    }

    /// Has what is known of a list follow an edit of it, and says so. Where somebody else's came between, it is read again.
    async fn follow(
        &mut self,
        database: &mut Database,
        list: ListName,
        edited: Edited,
        change: impl FnOnce(&mut super::contents::List),
    ) -> Result<(), End> {
        let known = self.read.as_mut().filter(|(of, _, _)| of == database.id());
        if let Some((_, contents, versions)) = known
            && versions.of(list.table()) == edited.before
        {
            let list_known = contents.list_mut(list);
            list_known.rows = list_known.rows.saturating_add_signed(edited.rows);
            change(list_known);
            *versions = versions.with_version(list.table(), edited.after);
            let contents = contents.clone();
            return self.say(News::Loaded { contents, changed: true }).await;
        }
        self.look(database, false).await
    }

    async fn entries(
        &mut self,
        database: &mut Database,
        list: ListName,
        query: &EntryQuery,
    ) -> Result<EntryPage, Stop> {
        let rows = self.known_rows(database, list).await?;
        let of_file = Arc::clone(self.shared.file.borrow().of(list));
        let mut page = Filling::begin(list, query, &of_file);
        page.add(&mut There { database, rows }).await?;
        page.add(&mut Here(&self.shared)).await.map_err(unreadable)?;
        Ok(page.finish())
    }

    /// How many rows a list has, if nothing changed since it was read: counting a million takes its time.
    async fn known_rows(&self, database: &mut Database, list: ListName) -> Result<Option<u64>, DatabaseFault> {
        let versions = database.versions().await?;
        let known = self
            .read
            .as_ref()
            .filter(|(of, _, read)| of == database.id() && versions.of(list.table()) == read.of(list.table()));
        Ok(known.map(|(_, contents, _)| contents.list(list).rows))
    }

    async fn covering(
        &mut self,
        database: &mut Database,
        list: ListName,
        address: Address,
    ) -> Result<Vec<Entry>, Stop> {
        let networks = self.read.as_ref().map(|(_, contents, _)| Arc::clone(&contents.list(list).networks));
        let networks = networks.unwrap_or_default();
        let mut found = covering(&mut There { database, rows: None }, list, address, &networks).await?;
        found.extend(archive::covering_here(&self.shared, list, address).await?);
        Ok(found)
    }

    async fn audit(&self, database: &mut Database, query: &AuditQuery) -> Result<AuditPage, DatabaseFault> {
        let archive::Bounds { before, limit, search } = archive::Bounds::of(query);
        let rows = database.audit_page(before, search.as_deref(), limit + 1, &self.shared.wall.get()).await?;
        Ok(archive::audit_page(rows, limit, AuditSource::Database))
    }

    /// Tells everybody what operators did here.
    async fn tell_audit(&mut self, database: &mut Database) -> Result<(), End> {
        if self.audit_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let id = database.id().to_owned();
        let next = self.shared.state.lock().await.audit_to_tell(&id, AUDIT_TOLD_AT_ONCE).await;
        let Some(entries) = self.shared.locally(next) else { return Ok(()) };
        let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(()) };
        let told = database.tell_audit(&entries, &self.shared.wall.get()).await;
        self.shared.counts.operation(Operation::Tell, told.is_ok());
        match told {
            Ok(()) => {
                let kept = self.shared.state.lock().await.audit_told(&id, last).await;
                self.shared.locally(kept);
                if self.audit_at.take().is_some() {
                    self.say(News::Willing).await?;
                }
                // There may be more.
                self.wake.notify_one();
                Ok(())
            }
            Err(fault) if fault.leaves_connection() => {
                self.audit_at = Some(Instant::now() + self.settings.retry_delay);
                self.say(News::Refused(format!("the audit cannot be written: {fault}"))).await
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Reads what changed, or everything.
    async fn look(&mut self, database: &mut Database, everything: bool) -> Result<(), End> {
        let versions = database.versions().await?;
        let known = self.read.as_ref().filter(|(of, _, _)| of == database.id()).map(|(_, _, versions)| *versions);
        let tables = match known {
            Some(known) if !everything => versions.changed(&known),
            _ => TableName::ALL.to_vec(),
        };
        if tables.iter().any(|table| *table != TableName::Bans) {
            let (contents, versions) = self.load(database, &tables).await?;
            let changed = self.read.as_ref().is_none_or(|(_, before, _)| !before.says_the_same(&contents));
            // What changed meanwhile in a table that was not read is still to be read.
            let known = known.unwrap_or_default().with(&versions, &tables);
            self.read = Some((database.id().to_owned(), contents.clone(), known));
            self.say(News::Loaded { contents, changed }).await?;
        }
        let newest = versions.of(TableName::Bans);
        let again = {
            let state = self.shared.state.lock().await;
            newest < self.seen
                || state.cursor(database.id()).is_none()
                || state.is_behind() && self.shared.state_works()
        };
        if self.settings.share_bans && (again || tables.contains(&TableName::Bans)) {
            self.learn(database, versions, true).await?;
            if let Some((_, _, known)) = &mut self.read {
                *known = known.with(&versions, &[TableName::Bans]);
            }
        }
        Ok(())
    }

    async fn load(&mut self, database: &mut Database, tables: &[TableName]) -> database::Result<(Contents, Versions)> {
        let before = self.read.as_ref().map(|(_, contents, _)| contents.clone()).unwrap_or_default();
        let loaded = database.load(&before, tables).await;
        self.shared.counts.operation(Operation::Load, loaded.is_ok());
        self.shared.counts.reload(loaded.is_ok());
        if tables.len() == TableName::ALL.len() {
            self.refresh_at = Instant::now() + self.settings.refresh_interval;
        }
        loaded
    }

    /// Learns the bans of other nodes, into the local state and, if wanted, on to the shards.
    async fn learn(&mut self, database: &mut Database, versions: Versions, say: bool) -> Result<(), End> {
        let learned = self.try_learn(database, versions, say).await;
        self.shared.counts.operation(Operation::Learn, learned.is_ok());
        learned
    }

    async fn try_learn(&mut self, database: &mut Database, versions: Versions, say: bool) -> Result<(), End> {
        let newest = versions.of(TableName::Bans);
        let known = self.shared.state.lock().await.cursor(database.id());
        // As after an older dump was read back. When others look, it may have grown beyond what they saw of it.
        let taken_back = newest < self.seen || known.is_some_and(|cursor| cursor > newest);
        if taken_back {
            match database.rename(super::draw()).await {
                Err(fault) if !fault.leaves_connection() => return Err(fault.into()),
                _ => {}
            }
        }
        let mut cursor = match known {
            Some(cursor) if !taken_back => cursor,
            // Another database, or this one as it was before: it may lack what it was told. All is told and read again,
            // which changes nothing that is known.
            _ => {
                let begun = self.shared.state.lock().await.begin_anew(database.id()).await;
                self.shared.locally(begun);
                0
            }
        };
        self.seen = newest;
        loop {
            let wall = self.shared.wall.get();
            let Portion { bans, unusable, cursor: next, more } = database.bans_after(cursor, &wall).await?;
            if self.shared.wall.get() != wall {
                // The machine's clock was set meanwhile.
                continue;
            }
            add(&self.shared.counts.unusable, unusable);
            let new = if next == cursor {
                Vec::new()
            } else {
                let kept = self.shared.state.lock().await.learn(&bans, database.id(), next).await;
                // If they cannot be kept, they are enforced all the same.
                self.shared.locally(kept).unwrap_or(bans)
            };
            cursor = next;
            if say && !new.is_empty() {
                self.say(News::Learned(new)).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Tells the other nodes what was decided here: some of it, for others want to be heard too.
    async fn tell(&mut self, database: &mut Database) -> Result<(), End> {
        if !self.settings.share_bans || self.tell_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let next = self.shared.state.lock().await.next_to_tell(TOLD_AT_ONCE).await;
        let Some(Some((bans, change))) = self.shared.locally(next) else { return Ok(()) };
        let told = database.tell(&bans, &self.shared.wall.get()).await;
        self.shared.counts.operation(Operation::Tell, told.is_ok());
        match told {
            Ok(newest) => {
                self.seen = self.seen.max(newest);
                add(&self.shared.counts.told, bans.len());
                let kept = self.shared.state.lock().await.told(change, bans.len()).await;
                self.shared.locally(kept);
                self.shared.count_untold().await;
                if self.tell_at.take().is_some() {
                    self.say(News::Willing).await?;
                }
                // There may be more.
                self.wake.notify_one();
                Ok(())
            }
            Err(fault) if fault.leaves_connection() => {
                self.tell_at = Some(Instant::now() + self.settings.retry_delay);
                self.say(News::Refused(format!("bans cannot be written: {fault}"))).await
            }
            Err(fault) => Err(fault.into()),
        }
    }

    async fn prune(&mut self, database: &mut Database) -> Result<(), End> {
        if Instant::now() < self.prune_at {
            return Ok(());
        }
        self.prune_at = Instant::now() + PRUNE;
        let pruned = match database.prune(self.shared.memory.get()).await {
            Ok(more) => database.prune_audit().await.map(|more_audit| more || more_audit),
            Err(fault) => Err(fault),
        };
        self.shared.counts.operation(Operation::Prune, pruned.is_ok());
        match pruned {
            Ok(true) => self.prune_at = Instant::now(),
            // A database that may not be written keeps what is old.
            Err(fault) if !fault.leaves_connection() => return Err(fault.into()),
            _ => {}
        }
        Ok(())
    }

    async fn say(&self, news: News) -> Result<(), End> {
        self.news.send(news).await.map_err(|_| End::NobodyListens)
    }
}

/// Why an operator is not served as wished.
#[derive(Debug)]
enum Stop {
    /// What is wanted cannot be done.
    Edit(EditFault),
    Database(DatabaseFault),
    /// The session ends.
    End(End),
}

impl From<EditFault> for Stop {
    fn from(fault: EditFault) -> Stop {
        Stop::Edit(fault)
    }
}

impl From<DatabaseFault> for Stop {
    fn from(fault: DatabaseFault) -> Stop {
        Stop::Database(fault)
    }
}

impl From<End> for Stop {
    fn from(end: End) -> Stop {
        Stop::End(end)
    }
}

fn unreadable(why: sqlx::Error) -> Stop {
    Stop::Edit(EditFault::Unwritable(printable_error(&why.to_string())))
}

/// What an operator hears, and what follows for the session.
fn part<T>(done: Result<T, Stop>) -> (Result<T, EditFault>, Result<(), End>) {
    match done {
        Ok(done) => (Ok(done), Ok(())),
        Err(Stop::Edit(fault)) => (Err(fault), Ok(())),
        Err(Stop::Database(fault)) if fault.leaves_connection() => {
            (Err(EditFault::Refused(printable_error(&fault.to_string()))), Ok(()))
        }
        Err(Stop::Database(fault)) => {
            (Err(EditFault::Away(printable_error(&fault.to_string()))), Err(End::Fault(fault)))
        }
        Err(Stop::End(end)) => {
            let fault = match &end {
                End::Fault(fault) => EditFault::Away(printable_error(&fault.to_string())),
                End::NobodyListens => EditFault::Ending,
            };
            (Err(fault), Err(end))
        }
    }
}

/// Tells operators that the database is away, as long as something else takes.
async fn turn_away<T>(
    shared: &Shared,
    why: &str,
    asked: &mut mpsc::Receiver<Ask>,
    meanwhile: impl Future<Output = T>,
) -> T {
    let mut meanwhile = std::pin::pin!(meanwhile);
    loop {
        tokio::select! {
            done = &mut meanwhile => return done,
            Some(ask) = asked.recv() => match ask {
                // What was done here is known here.
                Ask::Audit(query, answer) => drop(answer.send(archive::audit(shared, &query).await)),
                ask => ask.refuse(EditFault::Away(why.to_owned())),
            }
        }
    }
}

/// Rings whenever PostgreSQL notifies, for the life of the process.
async fn listen(url: String, wake: Rc<Notify>, pause: Duration, counts: &Counts) {
    loop {
        if let Ok(mut listener) = PgListener::connect(&url).await
            && listener.listen(database::CHANNEL).await.is_ok()
        {
            counts.listening.store(1, Ordering::Relaxed);
            listener.eager_reconnect(false);
            // Something may have been said before it listened.
            wake.notify_one();
            while let Ok(Some(_)) = listener.try_recv().await {
                wake.notify_one();
            }
            counts.listening.store(0, Ordering::Relaxed);
        }
        tokio::time::sleep(pause).await;
    }
}

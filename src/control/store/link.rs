//! The link to the shared database: connects, sees what changed, tells and learns bans, and comes back after an outage.
//!
//! It runs beside everything else and nobody waits for it. What it finds it says as [`News`]. A call that fails ends the
//! session, and the next begins after a pause that doubles up to `database.retry_delay`; what the database merely refuses
//! (it is read-only, its disk is full) leaves the session standing, for reading goes on.

use super::Shared;
use super::ban::StoredBan;
use super::contents::{Contents, TableName};
use super::database::{self, Database, Portion, Seed, Versions};
use super::status::{Operation, add};
use crate::config::{DatabaseDriver, DatabaseSettings, Dsn};
use sqlx::postgres::PgListener;
use std::rc::Rc;
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

/// How often old bans are cleared away in the shared database.
const PRUNE: Duration = Duration::from_secs(3600);

/// What the link found.
#[derive(Debug)]
pub enum News {
    /// The settings were read. `changed` says whether they differ from those before.
    Loaded { contents: Contents, changed: bool },
    /// Other nodes banned, or ended bans.
    Learned(Vec<StoredBan>),
    /// A call failed, so many in a row.
    Failed { why: String, failures: u64 },
    /// The database does not do something, but answers.
    Refused(String),
    /// It does again what it had refused.
    Willing,
    /// The local state does not take decisions, and why; `None`: it does again.
    StateFailed(Option<String>),
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
    /// What was read last, and the versions of it.
    contents: Option<(Contents, Versions)>,
    /// Whether an SQLite file that is not there may be made.
    may_create: bool,
    failures: u64,
    /// The highest number of a ban that was seen in the database or told to it.
    seen: i64,
    /// Not told before this, because the database refused.
    tell_at: Option<Instant>,
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
        let now = now();
        Link {
            dsn,
            settings,
            seed,
            shared,
            news,
            wake,
            database: None,
            contents: None,
            may_create,
            failures: 0,
            seen: 0,
            tell_at: None,
            prune_at: now,
            refresh_at: now,
        }
    }

    /// Tries once, before the server answers anybody: the settings, and the bans of other nodes into the local state.
    pub async fn first(&mut self) -> Result<Contents, String> {
        match self.try_first().await {
            Ok(contents) => Ok(contents),
            Err(fault) => {
                self.drop_database();
                self.failures += 1;
                Err(fault.to_string())
            }
        }
    }

    async fn try_first(&mut self) -> database::Result<Contents> {
        let mut database = self.open().await?;
        let (contents, versions) = self.load(&mut database, &TableName::ALL).await?;
        if self.settings.share_bans {
            self.learn(&mut database, versions, false).await?;
        }
        self.contents = Some((contents.clone(), versions));
        self.database = Some(database);
        Ok(contents)
    }

    /// Keeps the link up until the process ends, and listens where there is something to hear.
    pub async fn run(self) {
        let url = database::listening_url(&self.dsn);
        let (wake, pause) = (Rc::clone(&self.wake), self.settings.retry_delay);
        let listening = async move {
            match url {
                Some(url) => listen(url, wake, pause).await,
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
                Ok(()) => break,
                Err(fault) => fault,
            };
            self.drop_database();
            self.failures += 1;
            if self.say(News::Failed { why: fault.to_string(), failures: self.failures }).await.is_err() {
                break;
            }
            tokio::time::sleep(self.pause()).await;
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

    /// Goes on until a call fails; well if nobody listens to the news any more.
    async fn session(&mut self) -> database::Result<()> {
        let mut look = self.database.is_none();
        let mut database = match self.database.take() {
            Some(database) => database,
            None => self.open().await?,
        };
        loop {
            let now = now();
            let refresh = look || now >= self.refresh_at;
            let asked = if refresh { Ok(true) } else { database.may_have_changed().await };
            self.shared.counts.operation(Operation::Poll, asked.is_ok());
            if asked? {
                let versions = database.versions().await?;
                if self.look(&mut database, versions, refresh).await?.is_err() {
                    return Ok(());
                }
            }
            look = false;
            self.tell(&mut database).await?;
            if now >= self.prune_at {
                self.prune(&mut database).await?;
            }
            tokio::select! {
                () = tokio::time::sleep(poll(&self.dsn)) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Reads what changed. The inner error says that nobody listens any more.
    async fn look(
        &mut self,
        database: &mut Database,
        versions: Versions,
        everything: bool,
    ) -> database::Result<Result<(), ()>> {
        let known = self.contents.as_ref().map(|(_, versions)| *versions);
        let tables = match known {
            Some(known) if !everything => versions.changed(&known),
            _ => TableName::ALL.to_vec(),
        };
        if tables.iter().any(|table| *table != TableName::Bans) {
            let (contents, versions) = self.load(database, &tables).await?;
            let changed = self.contents.as_ref().is_none_or(|(before, _)| !before.says_the_same(&contents));
            // What changed meanwhile in a table that was not read is still to be read.
            let known = known.unwrap_or_default().with(&versions, &tables);
            self.contents = Some((contents.clone(), known));
            self.failures = 0;
            if self.say(News::Loaded { contents, changed }).await.is_err() {
                return Ok(Err(()));
            }
        }
        let taken_back = versions.of(TableName::Bans) < self.seen;
        if self.settings.share_bans && (taken_back || tables.contains(&TableName::Bans)) {
            self.learn(database, versions, true).await?;
            if let Some((_, known)) = &mut self.contents {
                *known = known.with(&versions, &[TableName::Bans]);
            }
        }
        Ok(Ok(()))
    }

    async fn load(&mut self, database: &mut Database, tables: &[TableName]) -> database::Result<(Contents, Versions)> {
        let before = self.contents.as_ref().map(|(contents, _)| contents.clone()).unwrap_or_default();
        let loaded = database.load(&before, tables).await;
        self.shared.counts.operation(Operation::Load, loaded.is_ok());
        if tables.len() == TableName::ALL.len() {
            self.refresh_at = now() + self.settings.refresh_interval;
        }
        loaded
    }

    /// Learns the bans of other nodes, into the local state and, if wanted, on to the shards.
    async fn learn(&mut self, database: &mut Database, versions: Versions, say: bool) -> database::Result<()> {
        let learned = self.try_learn(database, versions, say).await;
        self.shared.counts.operation(Operation::Learn, learned.is_ok());
        learned
    }

    async fn try_learn(&mut self, database: &mut Database, versions: Versions, say: bool) -> database::Result<()> {
        let newest = versions.of(TableName::Bans);
        let (stored, node) = {
            let mut state = self.shared.state.lock().await;
            (state.cursor(database.id()).await?, state.node().to_owned())
        };
        let taken_back = newest < self.seen || stored.is_some_and(|cursor| cursor > newest);
        if taken_back || stored.is_none() {
            // Another database, or this one as it was before: it may lack what it was told. All is told and read again,
            // which changes nothing that is known.
            self.shared.state.lock().await.learn_from(database.id()).await?;
        }
        self.seen = newest;
        let mut cursor = stored.filter(|_| !taken_back).unwrap_or(0);
        loop {
            let wall = self.shared.wall.get();
            let Portion { bans, unusable, cursor: next, more } = database.bans_after(cursor, &node, &wall).await?;
            add(&self.shared.counts.unusable, unusable);
            if next != cursor {
                self.shared.state.lock().await.learn(&bans, database.id(), next).await?;
            }
            cursor = next;
            if say && !bans.is_empty() && self.say(News::Learned(bans)).await.is_err() {
                return Ok(());
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Tells the other nodes what was decided here.
    async fn tell(&mut self, database: &mut Database) -> database::Result<()> {
        if !self.settings.share_bans || self.tell_at.is_some_and(|at| now() < at) {
            return Ok(());
        }
        loop {
            let Some((bans, change)) = self.shared.state.lock().await.next_to_tell(TOLD_AT_ONCE).await? else {
                return Ok(());
            };
            let wall = self.shared.wall.get();
            let told = database.tell(&bans, &wall).await;
            self.shared.counts.operation(Operation::Tell, told.is_ok());
            match told {
                Ok(newest) => {
                    self.seen = self.seen.max(newest);
                    let mut state = self.shared.state.lock().await;
                    state.told(change).await?;
                    add(&self.shared.counts.told, bans.len());
                    self.shared.counts.untold.store(state.untold(), Ordering::Relaxed);
                    drop(state);
                    if self.tell_at.take().is_some() {
                        let _ = self.say(News::Willing).await;
                    }
                }
                Err(fault) if fault.leaves_connection() => {
                    self.tell_at = Some(now() + self.settings.retry_delay);
                    let _ = self.say(News::Refused(format!("bans cannot be written: {fault}"))).await;
                    return Ok(());
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn prune(&mut self, database: &mut Database) -> database::Result<()> {
        let pruned = database.prune(self.shared.memory.get()).await;
        self.shared.counts.operation(Operation::Prune, pruned.is_ok());
        let more = match pruned {
            // A database that may not be written keeps what is old.
            Err(fault) if fault.leaves_connection() => false,
            pruned => pruned?,
        };
        self.prune_at = now() + if more { Duration::ZERO } else { PRUNE };
        Ok(())
    }

    async fn say(&self, news: News) -> Result<(), ()> {
        self.news.send(news).await.map_err(drop)
    }
}

/// Rings whenever PostgreSQL notifies, for the life of the process.
async fn listen(url: String, wake: Rc<Notify>, pause: Duration) {
    loop {
        if let Ok(mut listener) = PgListener::connect(&url).await
            && listener.listen(database::CHANNEL).await.is_ok()
        {
            // Something may have been said before it listened.
            wake.notify_one();
            while let Ok(Some(_)) = listener.try_recv().await {
                wake.notify_one();
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// The clock of pauses and intervals; nothing is decided by it.
fn now() -> Instant {
    Instant::now()
}

//! The keeper: from the file and the database to the policy that is in force, and the account of where it came from.
//!
//! Order of trust: the database, the last good copy of it, the file. Rows that are faulty are left out and named; the
//! others apply. A policy is only made when something changed, on a thread of its own, and published whole.

use super::contents::{Contents, ListName, RowFault, difference};
use super::database::Seed;
use super::link::News;
use super::state::Found;
use super::status::{Operation, Source, Status, printable_error};
use super::{Notice, Order, Shared};
use crate::config::{self, Dsn, Settings};
use crate::control::journal;
use crate::control::publish::{Compiled, Publisher};
use crate::engine::ban::Learned;
use crate::engine::policy::Policy;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Networks of a list that go into the copy at a time, so that decisions do not wait long.
const COPIED_AT_ONCE: usize = 5_000;

/// The task.
pub struct Keeper {
    path: PathBuf,
    settings: Settings,
    /// Away while it compiles.
    publisher: Option<Publisher>,
    shared: Rc<Shared>,
    notices: mpsc::Sender<Notice>,
    orders: mpsc::Receiver<Order>,
    news: mpsc::Receiver<News>,
    /// What the database says, or said.
    contents: Option<Contents>,
    /// What of it is in the local state, unless that is being written now.
    copied: Option<Contents>,
    copying: Option<JoinHandle<sqlx::Result<Contents>>>,
    /// Not written before this, because it failed.
    copy_at: tokio::time::Instant,
    status: Status,
    /// Whether the rules of banning in force are the database's.
    ban_from_database: bool,
    /// As it was told last.
    told: Option<Status>,
    /// Faults that were logged.
    logged: Vec<RowFault>,
}

/// Its ends of the channels.
pub struct Ends {
    pub notices: mpsc::Sender<Notice>,
    pub orders: mpsc::Receiver<Order>,
    pub news: mpsc::Receiver<News>,
}

/// What an empty database is filled with.
pub fn seed(settings: &Settings) -> Seed {
    let owned = |row: Vec<(&'static str, Option<String>)>| {
        row.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let patterns = settings.syslog.patterns.iter().map(|pattern| owned(config::row_of_pattern(pattern)));
    Seed { patterns: patterns.collect(), ban: owned(config::row_of_ban(&settings.ban)) }
}

impl Keeper {
    pub fn new(
        path: PathBuf,
        settings: Settings,
        dsn: Option<&Dsn>,
        publisher: Publisher,
        shared: Rc<Shared>,
        ends: Ends,
    ) -> Keeper {
        let Ends { notices, orders, news } = ends;
        let database = &settings.database;
        let status = Status {
            enabled: database.enabled,
            driver: if database.enabled { database.driver.name() } else { "" },
            database: dsn.map(ToString::to_string).unwrap_or_default(),
            node: String::new(),
            connected: false,
            patterns: Source::File,
            ban_config: Source::File,
            failures: 0,
            last_load: None,
            has_copy: false,
            last_error: None,
            state_error: None,
            faults: Vec::new(),
            faulty: Vec::new(),
        };
        Keeper {
            path,
            settings,
            publisher: Some(publisher),
            shared,
            notices,
            orders,
            news,
            contents: None,
            copied: None,
            copying: None,
            copy_at: tokio::time::Instant::now(),
            status,
            ban_from_database: false,
            told: None,
            logged: Vec::new(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    pub fn shards(&self) -> usize {
        self.publisher.as_ref().map_or(1, Publisher::shards)
    }

    /// Makes the first policy from what could be had.
    pub async fn begin(
        &mut self,
        first: Option<Result<Contents, String>>,
        copy: Option<Contents>,
        found: Found,
    ) -> Arc<Policy> {
        self.status.node = self.shared.state.lock().await.node().to_owned();
        self.status.has_copy = copy.is_some();
        self.copied = copy.clone();
        match found {
            Found::Kept => {}
            Found::Broken => journal::state_broken(&self.settings.runtime.state_dir),
            Found::Memory if self.settings.runtime.state_dir.is_empty() => {}
            Found::Memory => {
                let why = "the disk does not take the state; bans will not survive a restart".to_owned();
                journal::state_failed(&why);
                self.status.state_error = Some(why);
            }
        }
        match first {
            None => {}
            Some(Ok(contents)) => self.loaded(contents),
            Some(Err(why)) => {
                self.status.failures = 1;
                self.status.last_error = Some(printable_error(&why));
                self.contents = copy;
                journal::database_away(&why, self.contents.is_some());
            }
        }
        let policy = self.compile().await;
        self.log_faults();
        policy
    }

    /// Every ban that the local state remembers, for the shards; and the policy, with the names of their patterns.
    pub async fn remember(&mut self, policy: Arc<Policy>) -> (Vec<Learned>, Arc<Policy>) {
        let remembered = self.remembered().await;
        let known = self.publisher.as_ref().map_or(0, Publisher::names);
        let policy = if known > policy.names.len() { self.compile().await } else { policy };
        self.told = Some(self.status.clone());
        (remembered, policy)
    }

    async fn remembered(&mut self) -> Vec<Learned> {
        let wall = self.shared.wall.get();
        let now = wall.at(wall.now());
        let memory = i64::try_from(self.shared.memory.get().as_millis()).unwrap_or(i64::MAX);
        let mut learned = Vec::new();
        let mut read = Ok(());
        if let Some(publisher) = &mut self.publisher {
            let mut state = self.shared.state.lock().await;
            read = state
                .remembered(now.saturating_sub(memory), now, |ban| {
                    learned.push(ban.learned(&wall, publisher.know(&ban.pattern, ban.severity)));
                })
                .await;
        }
        if let Err(why) = read {
            journal::state_failed(&why);
            self.status.state_error = Some(printable_error(&why.to_string()));
        }
        learned
    }

    /// Works until the control thread lets go.
    pub async fn run(mut self) {
        loop {
            self.update_copy();
            self.tell_status().await;
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Reload) => self.reload().await,
                    None => return,
                },
                Some(news) = self.news.recv() => self.hear(news).await,
                copied = finished(&mut self.copying) => self.copied(copied),
            }
        }
    }

    /// Reads the file again; one that is faulty changes nothing.
    async fn reload(&mut self) {
        let path = self.path.clone();
        match self.publishing(move |publisher| publisher.read(&path)).await {
            Err(faults) => drop(self.notices.send(Notice::Refused(faults)).await),
            Ok(settings) => {
                // Another database needs a restart, which is said elsewhere; until then, this one counts.
                let database = self.settings.database.clone();
                self.settings = Settings { database, ..settings.clone() };
                let policy = self.compile().await;
                self.log_faults();
                let settings = Some(Box::new(settings));
                let _ = self.notices.send(Notice::Policy { policy, settings }).await;
            }
        }
    }

    /// Has the publisher work on a thread of its own: a thousand patterns take their time, and decisions do not wait.
    async fn publishing<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Publisher) -> T + Send + 'static) -> T {
        let Some(mut publisher) = self.publisher.take() else {
            unreachable!("one task publishes, one after the other")
        };
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&mut publisher);
            (publisher, done)
        });
        match worked.await {
            Ok((publisher, done)) => {
                self.publisher = Some(publisher);
                done
            }
            // It panicked, which in a release ends the process before this.
            Err(why) => std::panic::resume_unwind(why.into_panic()),
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Loaded { contents, changed } => {
                let first = !self.status.connected;
                let changed = changed || self.contents.as_ref().is_none_or(|known| !known.says_the_same(&contents));
                self.loaded(contents);
                if first {
                    journal::database_back(&self.status.database);
                }
                if changed {
                    let policy = self.compile().await;
                    self.log_faults();
                    self.shared.counts.reload(true);
                    let _ = self.notices.send(Notice::Policy { policy, settings: None }).await;
                }
            }
            News::Learned(bans) => {
                let wall = self.shared.wall.get();
                let Some(publisher) = &mut self.publisher else { return };
                let known = publisher.names();
                let learned: Vec<Learned> =
                    bans.iter().map(|ban| ban.learned(&wall, publisher.know(&ban.pattern, ban.severity))).collect();
                if publisher.names() > known {
                    // A shard must have a name for what it says.
                    let policy = self.compile().await;
                    let _ = self.notices.send(Notice::Policy { policy, settings: None }).await;
                }
                let _ = self.notices.send(Notice::Learned(learned)).await;
            }
            News::Failed { why, failures } => {
                if self.status.connected {
                    journal::database_away(&why, self.contents.is_some());
                } else if failures == u64::from(self.settings.database.max_retries) + 1 {
                    journal::database_outage(&why, failures);
                }
                self.status.connected = false;
                self.status.failures = failures;
                self.status.last_error = Some(printable_error(&why));
                self.name_sources();
                self.shared.counts.reload(false);
            }
            // Both are said again and again, and logged once.
            News::Refused(why) => {
                let why = printable_error(&why);
                if self.status.last_error.as_ref() != Some(&why) {
                    journal::database_refuses(&why);
                }
                self.status.last_error = Some(why);
            }
            News::Willing => self.status.last_error = None,
            News::StateFailed(why) => {
                match &why {
                    Some(why) if self.status.state_error.is_none() => journal::state_failed(why),
                    Some(_) => {}
                    None => journal::state_works_again(),
                }
                self.status.state_error = why.map(|why| printable_error(&why));
            }
        }
    }

    /// The database answered.
    fn loaded(&mut self, contents: Contents) {
        let wall = self.shared.wall.get();
        self.contents = Some(contents);
        self.status.connected = true;
        self.status.failures = 0;
        self.status.last_error = None;
        self.status.last_load = Some(wall.at(wall.now()));
        self.name_sources();
    }

    fn name_sources(&mut self) {
        let from = match (&self.contents, self.status.connected) {
            (None, _) => Source::File,
            (Some(_), true) => Source::Database,
            (Some(_), false) => Source::Cached,
        };
        self.status.patterns = from;
        self.status.ban_config = if self.ban_from_database { from } else { Source::File };
    }

    /// The policy of the settings and the contents as they are now.
    async fn compile(&mut self) -> Arc<Policy> {
        let (settings, contents) = (self.settings.clone(), self.contents.clone());
        let compiled = self.publishing(move |publisher| publisher.policy(&settings, contents.as_ref())).await;
        let Compiled { policy, faults, faulty, ban_from_database } = compiled;
        self.ban_from_database = ban_from_database;
        self.name_sources();
        self.status.faults = faults;
        self.status.faulty = faulty;
        *self.shared.names.borrow_mut() = Arc::clone(&policy.names);
        self.shared.memory.set(policy.rules.memory);
        Arc::new(policy)
    }

    /// Says in the log what became faulty.
    fn log_faults(&mut self) {
        for fault in &self.status.faults {
            if !self.logged.contains(fault) {
                journal::row_faulty(fault);
            }
        }
        self.logged.clone_from(&self.status.faults);
    }

    async fn tell_status(&mut self) {
        if self.told.as_ref() != Some(&self.status) {
            self.told = Some(self.status.clone());
            let _ = self.notices.send(Notice::Status(Box::new(self.status.clone()))).await;
        }
    }

    /// Begins to bring the last good copy up to date, unless it is or is being done.
    fn update_copy(&mut self) {
        let (Some(contents), true, None) = (&self.contents, self.status.connected, &self.copying) else { return };
        let mut contents = contents.clone();
        // The rules of banning that are in force, not those that were refused.
        contents.ban = self.publisher.as_ref().and_then(Publisher::good_ban);
        if self.copied.as_ref().is_some_and(|copied| copied.says_the_same(&contents)) {
            return;
        }
        if tokio::time::Instant::now() < self.copy_at {
            return;
        }
        let before = self.copied.take();
        let (shared, database) = (Rc::clone(&self.shared), self.status.database.clone());
        self.copying = Some(tokio::task::spawn_local(async move {
            write_copy(&shared, before, &contents, &database).await.map(|()| contents)
        }));
    }

    fn copied(&mut self, copied: sqlx::Result<Contents>) {
        self.shared.counts.operation(Operation::Copy, copied.is_ok());
        match copied {
            Ok(contents) => {
                self.copied = Some(contents);
                self.status.has_copy = true;
            }
            Err(why) => {
                journal::copy_failed(&why);
                self.status.has_copy = false;
                self.copy_at = tokio::time::Instant::now() + self.settings.database.retry_delay;
            }
        }
    }
}

/// Waits for the task, if there is one, and takes it away.
async fn finished<T>(task: &mut Option<JoinHandle<sqlx::Result<T>>>) -> sqlx::Result<T> {
    let Some(running) = task else { return std::future::pending().await };
    let result = running.await;
    *task = None;
    result.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// Writes the differences, a piece at a time. If it is not known what is there, everything is written.
async fn write_copy(
    shared: &Shared,
    before: Option<Contents>,
    contents: &Contents,
    database: &str,
) -> sqlx::Result<()> {
    let before = match before {
        Some(before) => before,
        None => {
            shared.state.lock().await.forget_copy().await?;
            Contents::default()
        }
    };
    for list in ListName::ALL {
        let (added, removed) = difference(&before.list(list).networks, &contents.list(list).networks);
        for (networks, present) in [(added, true), (removed, false)] {
            for piece in networks.chunks(COPIED_AT_ONCE) {
                shared.state.lock().await.copy_list(list, piece, present).await?;
            }
        }
    }
    // Last: it makes the copy one of this database.
    shared.state.lock().await.copy_rows(database, contents).await
}

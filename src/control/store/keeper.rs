//! The keeper: from the file and the database to the policy that is in force, and the account of where it came from.
//!
//! Order of trust: the database, the last good copy of it, the file. Rows that are faulty are left out and named; the
//! others apply. A policy is only made when something changed, on a thread of its own, and published whole.

use super::archive;
use super::clerk::{Answer, Ask};
use super::contents::{Contents, ListName, RowFault, difference};
use super::database::Seed;
use super::entry::{EditFault, Enlisted, Lists};
use super::link::News;
use super::state::Found;
use super::status::{Operation, Source, Status, printable_error};
use super::{Notice, Order, Shared};
use crate::config::{self, Dsn, Settings};
use crate::control::journal;
use crate::control::publish::{Compiled, Publisher};
use crate::engine::ban::Learned;
use crate::engine::policy::Policy;
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Networks of a list that go into the copy at a time, so that decisions do not wait long.
const COPIED_AT_ONCE: usize = 5_000;

/// Faulty rows that are logged when they are found.
const LOGGED_AT_ONCE: usize = 100;

/// Edits of this node's lists that go into one policy.
const EDITS_AT_ONCE: usize = 1_000;

/// What is said of a state that is not where it belongs.
const IN_MEMORY: &str = "the file cannot be written now; what is decided is only in memory until it can";
const UNREADABLE: &str = "the file can neither be read nor written now; what was decided before is not known until the \
                          next start";

/// The task.
pub struct Keeper {
    path: PathBuf,
    settings: Settings,
    /// Away while it compiles.
    publisher: Option<Publisher>,
    shared: Rc<Shared>,
    notices: mpsc::Sender<Notice>,
    orders: mpsc::Receiver<Order>,
    asked: mpsc::Receiver<Ask>,
    news: mpsc::Receiver<News>,
    /// Where questions go that are not the keeper's: to the archive, and where there is a database, to the link.
    archive: mpsc::Sender<Ask>,
    edits: Option<mpsc::Sender<Ask>>,
    /// What the database says, or said.
    contents: Option<Contents>,
    /// What of it is in the local state, unless that is being written now.
    copied: Option<Contents>,
    copying: Option<JoinHandle<sqlx::Result<Contents>>>,
    /// Not written before this, because it failed.
    copy_at: Instant,
    status: Status,
    /// Whether the rules of banning in force are the database's.
    ban_from_database: bool,
    /// Why the database is away, and what it refuses though it is there.
    fault: Option<String>,
    refusal: Option<String>,
    /// As it was told last.
    told: Option<Status>,
    /// Faults that were logged.
    logged: Vec<RowFault>,
    /// Warnings that were.
    warned: Vec<RowFault>,
}

/// Its ends of the channels.
pub struct Ends {
    pub notices: mpsc::Sender<Notice>,
    pub orders: mpsc::Receiver<Order>,
    pub asked: mpsc::Receiver<Ask>,
    pub news: mpsc::Receiver<News>,
    pub archive: mpsc::Sender<Ask>,
    pub edits: Option<mpsc::Sender<Ask>>,
}

/// What was done to this node's lists, and who is told once it is in a policy.
enum Done {
    Enlisted(Answer<Enlisted>, Enlisted),
    Delisted(Answer<bool>, bool),
}

impl Done {
    fn changed(&self) -> bool {
        matches!(self, Done::Enlisted(_, Enlisted::New) | Done::Delisted(_, true))
    }

    fn say(self) {
        match self {
            Done::Enlisted(answer, enlisted) => drop(answer.send(Ok(enlisted))),
            Done::Delisted(answer, delisted) => drop(answer.send(Ok(delisted))),
        }
    }
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
        let Ends { notices, orders, asked, news, archive, edits } = ends;
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
            asked,
            news,
            archive,
            edits,
            contents: None,
            copied: None,
            copying: None,
            copy_at: Instant::now(),
            status,
            ban_from_database: false,
            fault: None,
            refusal: None,
            told: None,
            logged: Vec::new(),
            warned: Vec::new(),
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

    /// The publisher, when it does not work on another thread.
    fn publisher(&mut self) -> &mut Publisher {
        self.publisher.as_mut().expect("one task publishes, one after the other")
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
            Found::Kept | Found::Nowhere => {}
            Found::Broken => journal::state_broken(&self.settings.runtime.state_dir),
            Found::InMemory => self.shared.set_state_fault(Some(IN_MEMORY.to_owned())),
            Found::Unreadable => self.shared.set_state_fault(Some(UNREADABLE.to_owned())),
        }
        let local = self.shared.state.lock().await.local_lists().await;
        if let Some(local) = self.shared.locally(local) {
            *self.shared.local.borrow_mut() = local;
        }
        self.look_at_state();
        if let (Some(publisher), Some(copy)) = (&mut self.publisher, &copy) {
            // The copy has no row that was refused.
            publisher.know_ban(copy.ban.clone());
        }
        match first {
            None => {}
            Some(Ok(contents)) => {
                self.loaded(contents);
                self.up();
            }
            Some(Err(why)) => {
                self.status.failures = 1;
                self.fault = Some(printable_error(&why));
                self.name_error();
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
        let known = self.publisher().names();
        let policy = if known > policy.names.len() { self.compile().await } else { policy };
        self.told = Some(self.status.clone());
        (remembered, policy)
    }

    async fn remembered(&mut self) -> Vec<Learned> {
        let shared = Rc::clone(&self.shared);
        let wall = shared.wall.get();
        let now = wall.at(wall.now());
        let memory = i64::try_from(shared.memory.get().as_millis()).unwrap_or(i64::MAX);
        let publisher = self.publisher();
        let mut learned = Vec::new();
        let mut state = shared.state.lock().await;
        let read = state.remembered(now.saturating_sub(memory), now, shared.bans_max.get(), |ban| {
            learned.push(ban.learned(&wall, publisher.know(&ban.pattern, ban.severity)));
        });
        let read = read.await;
        drop(state);
        shared.locally(read);
        self.look_at_state();
        learned.reverse();
        learned
    }

    /// Works until the control thread has let go and the link has ended, and what was begun is done.
    pub async fn run(mut self) {
        // Whether anybody orders or asks anything, and whether the link says anything.
        let (mut ordered, mut asking, mut linked) = (true, true, true);
        loop {
            self.update_copy();
            self.look_at_state();
            self.tell_status().await;
            if !ordered && !asking && !linked && self.copying.is_none() {
                return;
            }
            let copy_at = self.copy_at;
            tokio::select! {
                order = self.orders.recv(), if ordered => match order {
                    Some(Order::Reload(number)) => self.reload(number).await,
                    // The program ends. The link has still things to say, until it is ended too.
                    // Clerks may be about for longer, but what they asked before is still done.
                    None => {
                        ordered = false;
                        self.asked.close();
                    }
                },
                ask = self.asked.recv(), if asking => match ask {
                    Some(ask) => self.serve(ask).await,
                    None => asking = false,
                },
                news = self.news.recv(), if linked => match news {
                    Some(news) => self.hear(news).await,
                    None => linked = false,
                },
                copied = finished(&mut self.copying) => self.copied(copied),
                () = self.shared.state_bell.notified() => {}
                () = tokio::time::sleep_until(copy_at), if copy_at > Instant::now() => {}
            }
        }
    }

    /// Does what an operator wants, and what others want right after it: one policy is made for all of it.
    async fn serve(&mut self, ask: Ask) {
        let mut done = Vec::from_iter(self.answer(ask).await);
        for _ in 1..EDITS_AT_ONCE {
            let Ok(ask) = self.asked.try_recv() else { break };
            done.extend(self.answer(ask).await);
        }
        if done.iter().any(Done::changed) {
            let policy = self.compile().await;
            let _ = self.notices.send(Notice::Policy { policy, read: None }).await;
        }
        done.into_iter().for_each(Done::say);
    }

    /// Edits this node's lists, or hands the question to whom it is for.
    async fn answer(&mut self, ask: Ask) -> Option<Done> {
        let to = match (&self.edits, &ask) {
            (_, Ask::History(..) | Ask::Note(..)) => &self.archive,
            (_, Ask::Delist(list, network, _)) if self.shared.file.borrow().holds(*list, *network) => {
                let fault = EditFault::InFile(*list);
                ask.refuse(fault);
                return None;
            }
            (Some(edits), _) => edits,
            (None, Ask::Enlist(..) | Ask::Delist(..)) => return self.edit(ask).await,
            (None, _) => &self.archive,
        };
        match to.try_send(ask) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(ask)) => ask.refuse(EditFault::Busy),
            Err(mpsc::error::TrySendError::Closed(ask)) => ask.refuse(EditFault::Ending),
        }
        None
    }

    async fn edit(&mut self, ask: Ask) -> Option<Done> {
        if ask.is_given_up() {
            return None;
        }
        match ask {
            Ask::Enlist(list, entry, answer) => match archive::enlist(&self.shared, list, &entry).await {
                Ok(enlisted) => Some(Done::Enlisted(answer, enlisted)),
                Err(fault) => {
                    let _ = answer.send(Err(fault));
                    None
                }
            },
            Ask::Delist(list, network, answer) => match archive::delist(&self.shared, list, network).await {
                Ok(delisted) => Some(Done::Delisted(answer, delisted)),
                Err(fault) => {
                    let _ = answer.send(Err(fault));
                    None
                }
            },
            other => {
                other.refuse(EditFault::Busy);
                None
            }
        }
    }

    /// Reads the file again; one that is faulty changes nothing.
    async fn reload(&mut self, number: u64) {
        let path = self.path.clone();
        match self.publishing(move |publisher| publisher.read(&path)).await {
            Err(faults) => drop(self.notices.send(Notice::Refused(number, faults)).await),
            Ok(settings) => {
                // Another database needs a restart, which is said elsewhere; until then, this one counts.
                let database = self.settings.database.clone();
                self.settings = Settings { database, ..settings.clone() };
                let policy = self.compile().await;
                self.log_faults();
                let read = Some((number, Box::new(settings)));
                let _ = self.notices.send(Notice::Policy { policy, read }).await;
            }
        }
    }

    /// Has the publisher work on a thread of its own: a thousand patterns take their time, and decisions do not wait.
    async fn publishing<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Publisher) -> T + Send + 'static) -> T {
        let mut publisher = self.publisher.take().expect("one task publishes, one after the other");
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
                let changed = changed || self.contents.as_ref().is_none_or(|known| !known.says_the_same(&contents));
                self.loaded(contents);
                if changed {
                    let policy = self.compile().await;
                    self.log_faults();
                    let _ = self.notices.send(Notice::Policy { policy, read: None }).await;
                }
            }
            News::Delisted => {
                let policy = self.compile().await;
                let _ = self.notices.send(Notice::Policy { policy, read: None }).await;
            }
            News::Up => {
                if !self.status.connected {
                    journal::database_back(&self.status.database);
                }
                self.up();
            }
            News::Learned(bans) => {
                let wall = self.shared.wall.get();
                let publisher = self.publisher();
                let known = publisher.names();
                let learned: Vec<Learned> =
                    bans.iter().map(|ban| ban.learned(&wall, publisher.know(&ban.pattern, ban.severity))).collect();
                if publisher.names() > known {
                    // A shard must have a name for what it says.
                    let policy = self.compile().await;
                    let _ = self.notices.send(Notice::Policy { policy, read: None }).await;
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
                self.fault = Some(printable_error(&why));
                self.name_error();
                self.name_sources();
            }
            // Said again and again, and logged once.
            News::Refused(why) => {
                let why = printable_error(&why);
                if self.refusal.as_ref() != Some(&why) {
                    journal::database_refuses(&why);
                }
                self.refusal = Some(why);
                self.name_error();
            }
            News::Willing => {
                self.refusal = None;
                self.name_error();
            }
        }
    }

    /// Says in the log when the local state stops working, and when it works again.
    fn look_at_state(&mut self) {
        let fault = self.shared.state_fault.borrow().clone();
        match (&self.status.state_error, &fault) {
            (None, Some(why)) => journal::state_failed(why),
            (Some(_), None) => journal::state_works_again(),
            _ => {}
        }
        self.status.state_error = fault;
    }

    /// The settings were read.
    fn loaded(&mut self, contents: Contents) {
        let wall = self.shared.wall.get();
        self.contents = Some(contents);
        self.status.last_load = Some(wall.at(wall.now()));
    }

    /// The database does what it is asked.
    fn up(&mut self) {
        self.status.connected = true;
        self.status.failures = 0;
        self.fault = None;
        self.name_error();
        self.name_sources();
    }

    fn name_error(&mut self) {
        self.status.last_error = self.fault.clone().or_else(|| self.refusal.clone());
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
        let local = self.shared.local.borrow().clone();
        *self.shared.file.borrow_mut() = Lists::of_file(&settings);
        let compiled = self.publishing(move |publisher| publisher.policy(&settings, contents.as_ref(), &local)).await;
        let Compiled { policy, faults, warnings, faulty, ban_from_database } = compiled;
        self.ban_from_database = ban_from_database;
        self.name_sources();
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)).take(LOGGED_AT_ONCE) {
            journal::pattern_steerable(warning);
        }
        self.warned = warnings;
        self.status.faults = faults;
        self.status.faulty = faulty;
        *self.shared.names.borrow_mut() = Arc::clone(&policy.names);
        self.shared.memory.set(policy.rules.memory);
        self.shared.bans_max.set(self.settings.ban.max_tracked.saturating_mul(2));
        Arc::new(policy)
    }

    /// Says in the log what became faulty.
    fn log_faults(&mut self) {
        let logged: HashSet<&RowFault> = self.logged.iter().collect();
        let new: Vec<&RowFault> = self.status.faults.iter().filter(|fault| !logged.contains(fault)).collect();
        new.iter().take(LOGGED_AT_ONCE).for_each(|fault| journal::row_faulty(fault));
        if let Some(more) = new.len().checked_sub(LOGGED_AT_ONCE).filter(|more| *more > 0) {
            journal::more_rows_faulty(more);
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
        contents.ban = contents.ban.and_then(|_| self.publisher().good_ban());
        if self.copied.as_ref().is_some_and(|copied| copied.says_the_same(&contents)) {
            return;
        }
        if Instant::now() < self.copy_at {
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
                self.copy_at = Instant::now() + self.settings.database.retry_delay;
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
            let mut state = shared.state.lock().await;
            match state.copy(database).await? {
                Some(there) => there,
                None => {
                    state.forget_copy().await?;
                    Contents::default()
                }
            }
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

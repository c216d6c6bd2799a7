//! The store: what the settings are, where bans are kept, and how nodes hear of each other's. A thread of its own beside
//! the control thread, with a tokio loop of its own, so that neither a slow database nor the compiling of patterns
//! delays signals and metrics, let alone shards.
//!
//! Four tasks share it: the [`keeper`] makes policies from the file and the database and publishes them, the
//! [`recorder`] writes decisions to the local [`state`], the [`link`] speaks with the shared [`database`], the [`archive`]
//! answers operators. They are told what to do by [`Order`]s and decisions, and answer with [`Notice`]s; what operators
//! want is brought by a [`Clerk`].
//!
//! ```text
//!  decisions ──► recorder ──► local state ──► link ──► shared database ──► other nodes' links
//!                               ▲  ▲            │ ▲
//!  notices  ◄── keeper ◄── news ┼──┴────────────┘ │
//!                 │             │                 │
//!  clerks ────────┴──► archive ─┘     edits ──────┘
//! ```

mod archive;
mod audit;
mod ban;
mod clerk;
pub mod contents;
mod database;
mod dialect;
mod entry;
mod keeper;
mod link;
mod page;
mod recorder;
mod state;
mod status;
mod wall;

pub use audit::{AuditEntry, AuditPage, AuditQuery, AuditSource, Audited};
pub use ban::{Decided, Said};
pub use clerk::{Ask, Clerk, PastBan};
pub use entry::{EditFault, Enlisted, Entry, EntryPage, EntryQuery, EntrySource, Lists, NewEntry, PAGE_MAX, sorted};
pub use status::{Counts, Operation, Status};
pub use wall::{Wall, print_wall};

use super::publish::Publisher;
use crate::config::{Faults, Settings};
use crate::engine::ban::Learned;
use crate::engine::policy::{PatternName, Policy};
use crate::shard::Clock;
use keeper::{Ends, Keeper};
use link::Link;
use state::{Found, State, StateFault};
use status::printable_error;
use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

/// Batches of decisions, orders, operators' questions and notices on their way.
const WAITING: usize = 64;

/// Operators' questions on their way to the archive, above all what they did, which should be written down.
const NOTES_WAITING: usize = 1024;

/// How long a start waits for the database before it goes on with the last good copy.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the last decisions have to reach the shared database, and a copy to be finished, when the program ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the store is told.
#[derive(Debug)]
pub enum Order {
    /// Read the file again. Orders are numbered, and what comes of each is told with its number.
    Reload(u64),
}

/// What the store tells.
#[derive(Debug)]
pub enum Notice {
    /// Work by this. `read` is there if the file was read again: by the order of that number.
    Policy { policy: Arc<Policy>, read: Option<(u64, Box<Settings>)> },
    /// The file is faulty; nothing changes. It was read by the order of that number.
    Refused(u64, Faults),
    /// Other nodes banned, or ended bans.
    Learned(Vec<Learned>),
    /// Something is not as it was.
    Status(Box<Status>),
}

/// Why the store cannot start, as a sentence that says what to do.
#[derive(Debug)]
pub struct StoreFault(String);

impl std::fmt::Display for StoreFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a start begins with.
#[derive(Debug)]
pub struct Opened {
    pub settings: Settings,
    pub shards: usize,
    pub policy: Arc<Policy>,
    /// Everything that is remembered, oldest first.
    pub remembered: Vec<Learned>,
    pub status: Status,
    pub store: Store,
    pub notices: mpsc::Receiver<Notice>,
}

/// The running store, as the control thread holds it.
#[derive(Debug)]
pub struct Store {
    decisions: mpsc::Sender<Vec<Decided>>,
    orders: mpsc::Sender<Order>,
    asks: mpsc::Sender<Ask>,
    farewell: oneshot::Sender<Duration>,
    pub counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

impl Store {
    /// Opens the local state and the database, and compiles the first policy of `settings`, which were read from `path` by
    /// `publisher`. On the store's own thread, which goes on from there.
    ///
    /// # Errors
    ///
    /// If the state's directory cannot be used. A database that is away is no error.
    pub fn open(path: &Path, settings: Settings, publisher: Publisher, clock: Clock) -> Result<Opened, StoreFault> {
        let (said, says) = std::sync::mpsc::channel();
        let (decisions, decided) = mpsc::channel(WAITING);
        let (orders, ordered) = mpsc::channel(WAITING);
        let (asks, asked) = mpsc::channel(WAITING);
        let (notices, noticed) = mpsc::channel(WAITING);
        let (farewell, ends) = oneshot::channel();
        let counts = Arc::new(Counts::default());
        let path = path.to_owned();
        let parts = Parts {
            path,
            settings,
            publisher,
            clock,
            counts: Arc::clone(&counts),
            decided,
            ordered,
            asked,
            ends,
            notices,
        };
        let machine = |why: std::io::Error| StoreFault(format!("cannot start a thread: {why}"));
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                crate::shard::step_back();
                run(parts, &said);
            })
            .map_err(machine)?;
        let ended = || StoreFault("the store ended before it began".to_owned());
        let Beginning { settings, shards, policy, remembered, status } = says.recv().map_err(|_| ended())??;
        let store = Store { decisions, orders, asks, farewell, counts, thread };
        Ok(Opened { settings, shards, policy, remembered, status, store, notices: noticed })
    }

    /// Hands decisions over, to be kept; gives them back if there is no room now.
    pub fn keep(&self, decisions: Vec<Decided>) -> Result<(), Vec<Decided>> {
        self.decisions.try_send(decisions).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Hands the last decisions over, however long it takes to find room.
    pub async fn keep_last(&self, decisions: Vec<Decided>) {
        let _ = self.decisions.send(decisions).await;
    }

    /// Has the file read again, by an order of this number. False if there is no room for it; then those that wait will
    /// read the same file.
    pub fn reload(&self, number: u64) -> bool {
        self.orders.try_send(Order::Reload(number)).is_ok()
    }

    /// For those who serve operators.
    pub fn clerk(&self) -> Clerk {
        Clerk::new(self.asks.clone())
    }

    /// Whether the store's thread has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets go of the store: it keeps what it was given, tells the other nodes for at most `farewell`, and ends.
    pub fn close(self, farewell: Duration) -> JoinHandle<()> {
        // The other ends of the channels go here, which is how its tasks know.
        let Store { thread, farewell: say, .. } = self;
        let _ = say.send(farewell.min(FAREWELL));
        thread
    }
}

/// What the thread is made of.
struct Parts {
    path: PathBuf,
    settings: Settings,
    publisher: Publisher,
    clock: Clock,
    counts: Arc<Counts>,
    decided: mpsc::Receiver<Vec<Decided>>,
    ordered: mpsc::Receiver<Order>,
    asked: mpsc::Receiver<Ask>,
    ends: oneshot::Receiver<Duration>,
    notices: mpsc::Sender<Notice>,
}

/// The first thing the thread says.
struct Beginning {
    settings: Settings,
    shards: usize,
    policy: Arc<Policy>,
    remembered: Vec<Learned>,
    status: Status,
}

/// What the tasks of the thread share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wall: Cell<Wall>,
    counts: Arc<Counts>,
    /// Names of patterns by number, as of the newest policy.
    names: RefCell<Arc<[PatternName]>>,
    /// How long offences are remembered.
    memory: Cell<Duration>,
    /// How many bans are kept at most: twice what the shards remember, for a client may have been banned before.
    bans_max: Cell<usize>,
    /// Whether other nodes are told of bans.
    shares: bool,
    /// Why the local state does not do its work, if it does not; and a bell for whoever should know.
    state_fault: RefCell<Option<String>>,
    state_bell: Notify,
    /// The lists of the file and of the local state, as the newest policy has them or the next one will.
    file: RefCell<Lists>,
    local: RefCell<Lists>,
}

impl Shared {
    fn state_works(&self) -> bool {
        self.state_fault.borrow().is_none()
    }

    /// Says how it is with the local state.
    fn set_state_fault(&self, fault: Option<String>) {
        if *self.state_fault.borrow() != fault {
            *self.state_fault.borrow_mut() = fault;
            self.state_bell.notify_one();
        }
    }

    /// What the local state did; if it could not, that is said, and nothing else comes of it.
    fn locally<T>(&self, done: sqlx::Result<T>) -> Option<T> {
        done.map_err(|why| self.set_state_fault(Some(printable_error(&why.to_string())))).ok()
    }

    async fn count_untold(&self) {
        if self.shares {
            self.counts.untold.store(self.state.lock().await.untold(), Ordering::Relaxed);
        }
    }
}

fn run(parts: Parts, said: &std::sync::mpsc::Sender<Result<Beginning, StoreFault>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return drop(said.send(Err(StoreFault(why.to_string())))),
    };
    // What is left of the tasks at the end may want the runtime when it goes, as connections do.
    let within = runtime.enter();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        match begin(parts).await {
            Ok((beginning, tasks)) => {
                drop(said.send(Ok(beginning)));
                tasks.run().await;
            }
            Err(fault) => drop(said.send(Err(fault))),
        }
    });
    drop(local);
    drop(within);
    // A question to a database that hangs is not waited for.
    runtime.shutdown_background();
}

/// The tasks, before they run.
struct Tasks {
    keeper: Keeper,
    link: Option<Link>,
    shared: Rc<Shared>,
    decided: mpsc::Receiver<Vec<Decided>>,
    for_archive: mpsc::Receiver<Ask>,
    farewell: oneshot::Receiver<Duration>,
    wake: Rc<Notify>,
}

async fn begin(parts: Parts) -> Result<(Beginning, Tasks), StoreFault> {
    let Parts { path, settings, publisher, clock, counts, decided, ordered, asked, ends: farewell, notices } = parts;
    let wall = Wall::new(clock);
    let directory = settings.runtime.state_dir.as_str();
    let directory = (!directory.is_empty()).then(|| Path::new(directory));
    let name = node_name(&settings.runtime.node);
    let (mut state, found) = State::open(directory, &name, &wall, draw() as u32).await.map_err(|fault| {
        StoreFault(match fault {
            StateFault::Sql(why) => format!("the state in {} cannot be used: {why}", settings.runtime.state_dir),
            fault => fault.to_string(),
        })
    })?;

    // Settings that were accepted have one that can be taken apart, if it is needed.
    let dsn = settings.database.enabled.then(|| settings.database.target().ok()).flatten();
    let copy = match &dsn {
        Some(dsn) => state.copy(&dsn.to_string()).await.ok().flatten(),
        None => None,
    };
    let shared = Rc::new(Shared {
        state: Mutex::new(state),
        wall: Cell::new(wall),
        counts,
        names: RefCell::new(Arc::from([])),
        memory: Cell::new(settings.ban.max_memory_ttl),
        bans_max: Cell::new(settings.ban.max_tracked.saturating_mul(2)),
        shares: dsn.is_some() && settings.database.share_bans,
        state_fault: RefCell::new(None),
        state_bell: Notify::new(),
        file: RefCell::new(Lists::of_file(&settings)),
        local: RefCell::default(),
    });
    shared.count_untold().await;
    let (say, news) = mpsc::channel(WAITING);
    let wake = Rc::new(Notify::new());
    let mut link = dsn.as_ref().map(|dsn| {
        let seed = keeper::seed(&settings);
        // What was there before is not made anew; and what cannot be read may tell that something was.
        let may_create = copy.is_none() && found != Found::Unreadable;
        let shared = Rc::clone(&shared);
        Link::new(dsn.clone(), settings.database.clone(), seed, shared, say, Rc::clone(&wake), may_create)
    });
    let first = match &mut link {
        Some(link) => Some(link.first(PATIENCE).await),
        None => None,
    };
    let (archive, for_archive) = mpsc::channel(NOTES_WAITING);
    let (edits, edited) = mpsc::channel(WAITING);
    if let Some(link) = &mut link {
        link.asked_by(edited);
    }
    let edits = link.is_some().then_some(edits);
    let ends = Ends { notices, orders: ordered, asked, news, archive, edits };
    let mut keeper = Keeper::new(path, settings, dsn.as_ref(), publisher, Rc::clone(&shared), ends);
    let policy = keeper.begin(first, copy, found).await;
    let (remembered, policy) = keeper.remember(policy).await;
    let (settings, shards) = (keeper.settings().clone(), keeper.shards());
    let beginning = Beginning { settings, shards, policy, remembered, status: keeper.status().clone() };
    Ok((beginning, Tasks { keeper, link, shared, decided, for_archive, farewell, wake }))
}

impl Tasks {
    /// Runs until the control thread lets go.
    async fn run(self) {
        let Tasks { keeper, link, shared, decided, for_archive, farewell, wake } = self;
        let keeper = tokio::task::spawn_local(keeper.run());
        let link = link.map(|link| tokio::task::spawn_local(link.run()));
        let archive = tokio::task::spawn_local(archive::run(for_archive, Rc::clone(&shared), Rc::clone(&wake)));
        // Ends when the control thread has let go of its end and everything is written.
        recorder::run(decided, Rc::clone(&shared), Rc::clone(&wake)).await;
        let last_words = async {
            if let Some(link) = link {
                while shared.counts.untold.load(Ordering::Relaxed) > 0 && !link.is_finished() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                link.abort();
            }
            // It ends when it has copied what it was at, and the archive when it has written down what it was told.
            let _ = keeper.await;
            let _ = archive.await;
        };
        let farewell = farewell.await.unwrap_or(FAREWELL);
        let _ = tokio::time::timeout(farewell, last_words).await;
        shared.state.lock().await.leave().await;
    }
}

/// What this node is called: what the settings say, else the host's name.
fn node_name(setting: &str) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = if setting.is_empty() { host().trim().to_owned() } else { setting.to_owned() };
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(64).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// A number that nobody else draws, from the randomness that the standard library seeds its tables with.
fn draw() -> u64 {
    RandomState::new().hash_one(0u8)
}

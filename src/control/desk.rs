//! The desk: where operators ask and order, whoever carries their words there.
//!
//! The REST API and the command line's socket come here, and nowhere else. What is asked is passed on to the control
//! thread's loop, which alone speaks with the shards, and is answered when it is true everywhere: a ban is enforced
//! by every shard, and a list is in every shard's policy, before anybody hears of it.

use super::store::contents::ListName;
use crate::engine::address::{Address, Network};
use crate::engine::survey::Question;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Questions and orders that wait.
const WAITING: usize = 256;

/// Happenings that somebody who listens may lag behind.
const HAPPENINGS: usize = 4_096;

/// How long a new list has to be in force everywhere.
const IN_FORCE: Duration = Duration::from_secs(10);

/// The name of the pattern under which operators' bans are counted.
pub const MANUAL: &str = "manual";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The user's or the token's name; who is not asked for one is called as the request says.
    pub name: String,
    /// By which way: `api`, `socket`.
    pub channel: &'static str,
    /// From where; `None` on a unix socket.
    pub peer: Option<Address>,
}

/// Why something is not done. `Display` is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client is on the whitelist, by this entry.
    Allowed(Network),
    /// It is so already, or contradicts something.
    Conflict(String),
    /// It cannot be done now.
    Unavailable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Allowed(entry) => {
                write!(
                    f,
                    "is on the whitelist (entry {entry}), and nobody on it is ever denied; remove that entry first"
                )
            }
            Refusal::Conflict(why) | Refusal::Unavailable(why) => f.write_str(why),
        }
    }
}

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The client that an address belongs to, as the settings count it.
    ClientOf(Address),
    Exactly(Network),
}

/// An operator's ban.
#[derive(Clone, Debug)]
pub struct BanOrder {
    pub whom: Whom,
    /// `None`: as long as the settings say for the client's next offence.
    pub duration: Option<Duration>,
    pub reason: Option<String>,
    /// Who is to be named as its author; `None`: the operator.
    pub created_by: Option<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Banned {
    pub client: Network,
    /// When it ends, in milliseconds since 1970, and in how long.
    pub expires_at: i64,
    pub remaining: Duration,
    pub offences: u32,
    /// It was banned already for as long or longer, and stays so.
    pub already: bool,
}

/// A page of the bans in force.
#[derive(Clone, Debug)]
pub struct BanPage {
    /// On all pages.
    pub total: usize,
    pub bans: Vec<BanShown>,
    /// For the question after the next page.
    pub next: Option<String>,
}

/// A ban in force. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct BanShown {
    pub client: Network,
    pub pattern: Arc<str>,
    pub severity: u8,
    /// What the pattern's failures are, if it has any: `auth`, `abuse`, `probe`.
    pub kind: Option<&'static str>,
    pub failures: u32,
    pub offences: u32,
    pub banned_at: i64,
    pub expires_at: i64,
    pub remaining: Duration,
    /// Made by another node, or in an earlier run.
    pub learned: bool,
}

/// Why an address is denied, or why not.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub address: Address,
    /// The network by which its failures are counted.
    pub client: Network,
    /// `allowed`, `whitelisted`, `blacklisted`, `banned`.
    pub verdict: &'static str,
    /// The entries of the lists that hold it, longest first.
    pub whitelist: Vec<Network>,
    pub blacklist: Vec<Network>,
    /// The bans in force that hold it, longest network first.
    pub bans: Vec<BanShown>,
    /// Failures that count at the moment, and the threshold.
    pub failures: u32,
    pub threshold: u32,
    /// Offences that are remembered of the client, and when the last was.
    pub offences: u32,
    pub last_offence: Option<i64>,
    /// The last lines that counted against it, newest first.
    pub evidence: Vec<Evidence>,
    /// Which node says so.
    pub node: String,
    /// The policy's number.
    pub policy: u64,
}

/// A line that counted against a client, as far as it was kept.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// When it arrived, in milliseconds since 1970.
    pub at: i64,
    pub pattern: Arc<str>,
    pub program: String,
    /// What the log line says; made printable, cut if long. Anybody may have chosen parts of it.
    pub line: String,
}

/// The server in numbers.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    pub version: &'static str,
    pub commit: &'static str,
    pub node: String,
    pub driver: &'static str,
    pub uptime: Duration,
    pub shards: Vec<ShardShown>,
    pub policy: u64,
    pub patterns: usize,
    pub whitelist: usize,
    pub blacklist: usize,
    pub banned: usize,
    pub counting: usize,
    pub remembered: usize,
    /// Bans in force by pattern, and lines that matched since the start.
    pub by_pattern: Vec<PatternShown>,
    pub totals: Totals,
    pub patterns_source: &'static str,
    pub ban_config_source: &'static str,
    pub database_enabled: bool,
    pub database_connected: bool,
    pub last_error: Option<String>,
    pub state_error: Option<String>,
    pub faulty_rows: usize,
    /// What is wrong with the file as it is now, if it was refused since.
    pub refused: Vec<String>,
}

/// A shard in numbers. One that did not answer in time has `answers` false and zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardShown {
    pub answers: bool,
    pub policy: u64,
    pub replica: usize,
    pub connections: usize,
    pub backlog: usize,
    pub questions: u64,
    pub records: u64,
}

/// A pattern in numbers.
#[derive(Clone, Debug)]
pub struct PatternShown {
    pub name: Arc<str>,
    pub severity: u8,
    pub kind: Option<&'static str>,
    pub matches: u64,
    pub bans: u64,
    pub banned: u64,
}

/// Counts since the start, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub allowed: u64,
    pub denied: u64,
    pub lines: u64,
    pub matches: u64,
    pub bans: u64,
    pub dropped: u64,
}

/// One point of the history: what happened in the seconds before it.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub at: i64,
    pub seconds: f64,
    /// In those seconds.
    pub counts: Totals,
    /// At that moment.
    pub banned: usize,
}

/// Something that happened, for whoever listens. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub enum Happening {
    Ban {
        at: i64,
        client: Network,
        pattern: Arc<str>,
        severity: u8,
        kind: Option<&'static str>,
        failures: u32,
        offences: u32,
        expires_at: i64,
        learned: bool,
        by: Option<String>,
    },
    Unban {
        at: i64,
        client: Network,
        why: &'static str,
        learned: bool,
        by: Option<String>,
    },
    /// A policy is in force on every shard.
    Policy {
        at: i64,
        number: u64,
        patterns: usize,
        whitelist: usize,
        blacklist: usize,
    },
    /// A file was refused.
    Refused {
        at: i64,
        faults: Vec<String>,
    },
    /// An operator changed a list.
    List {
        at: i64,
        list: ListName,
        entry: Network,
        added: bool,
        by: String,
    },
    Database {
        at: i64,
        connected: bool,
    },
    Sample(Sample),
}

/// Answered when every shard's policy has the entry in the list, or has not.
#[derive(Debug)]
pub(super) struct Await {
    pub list: ListName,
    pub entry: Network,
    pub present: bool,
    /// Who changed it; `None` if it was so before.
    pub by: Option<String>,
    pub answer: oneshot::Sender<()>,
}

/// What all who listen hear. Whoever is the first to print it does it for all.
#[derive(Debug)]
pub struct Heard {
    pub happening: Happening,
    printed: OnceLock<Box<str>>,
}

impl Heard {
    /// As `print` says it, now or before.
    pub fn printed(&self, print: impl FnOnce(&Happening) -> String) -> &str {
        self.printed.get_or_init(|| print(&self.happening).into())
    }
}

/// What the control thread's loop is asked.
#[derive(Debug)]
pub(super) enum Ask {
    Ban {
        order: BanOrder,
        by: String,
        answer: oneshot::Sender<Result<Banned, Refusal>>,
    },
    /// Ends exactly these bans. How many were in force.
    Lift {
        clients: Vec<Network>,
        by: String,
        answer: oneshot::Sender<u64>,
    },
    /// Ends all bans inside of a network, or all. How many were in force.
    LiftWithin {
        within: Option<Network>,
        by: String,
        answer: oneshot::Sender<u64>,
    },
    Bans {
        question: Question,
        pattern: Option<String>,
        answer: oneshot::Sender<BanPage>,
    },
    Inspect {
        address: Address,
        answer: oneshot::Sender<Inspection>,
    },
    Overview {
        answer: oneshot::Sender<Overview>,
    },
    History {
        answer: oneshot::Sender<Vec<Sample>>,
    },
    Await(Await),
    Reload {
        answer: oneshot::Sender<Result<u64, Vec<String>>>,
    },
}

/// Where to ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    asks: mpsc::Sender<Ask>,
    happenings: broadcast::Sender<Arc<Heard>>,
}

impl Desk {
    /// A desk, and where it is heard what is asked.
    pub(super) fn new() -> (Desk, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(WAITING);
        (Desk { asks, happenings: broadcast::channel(HAPPENINGS).0 }, asked)
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let ends = || Refusal::Unavailable("the program is ending".to_owned());
        self.asks.send(ask(answer)).await.map_err(|_| ends())?;
        // Nobody answers if the program ends meanwhile, or if a shard did not do its part in time.
        answered
            .await
            .map_err(|_| Refusal::Unavailable("the shards did not answer; whether it was done is not known".to_owned()))
    }

    /// Bans a client. Answered when every shard enforces it.
    pub async fn ban(&self, order: BanOrder, by: String) -> Result<Banned, Refusal> {
        self.ask(|answer| Ask::Ban { order, by, answer }).await?
    }

    /// Ends exactly these bans, and says how many were in force. Answered when no shard enforces them.
    pub async fn lift(&self, clients: Vec<Network>, by: String) -> Result<u64, Refusal> {
        self.ask(|answer| Ask::Lift { clients, by, answer }).await
    }

    /// Ends every ban inside of a network, or every ban, and says how many were in force.
    pub async fn lift_within(&self, within: Option<Network>, by: String) -> Result<u64, Refusal> {
        self.ask(|answer| Ask::LiftWithin { within, by, answer }).await
    }

    /// A page of the bans in force; of one pattern, if it is named.
    pub async fn bans(&self, question: Question, pattern: Option<String>) -> Result<BanPage, Refusal> {
        self.ask(|answer| Ask::Bans { question, pattern, answer }).await
    }

    /// Why an address is denied, or why not.
    pub async fn inspect(&self, address: Address) -> Result<Inspection, Refusal> {
        self.ask(|answer| Ask::Inspect { address, answer }).await
    }

    pub async fn overview(&self) -> Result<Overview, Refusal> {
        self.ask(|answer| Ask::Overview { answer }).await
    }

    /// What happened lately, oldest first.
    pub async fn history(&self) -> Result<Vec<Sample>, Refusal> {
        self.ask(|answer| Ask::History { answer }).await
    }

    /// Waits until every shard's policy has the entry in the list, or has it not. Then everybody who listens is told that
    /// `by` has changed it.
    pub async fn until_in_force(
        &self,
        list: ListName,
        entry: Network,
        present: bool,
        by: Option<String>,
    ) -> Result<(), Refusal> {
        let asked = self.ask(|answer| Ask::Await(Await { list, entry, present, by, answer }));
        match tokio::time::timeout(IN_FORCE, asked).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Refusal::Unavailable("it is written, but not in force on every shard yet".to_owned())),
        }
    }

    /// Reads the file again. The number of the policy that it makes, or what is wrong with it.
    pub async fn reload(&self) -> Result<Result<u64, Vec<String>>, Refusal> {
        self.ask(|answer| Ask::Reload { answer }).await
    }

    /// Says that something happened.
    pub fn say(&self, happening: Happening) {
        // Nobody may listen.
        drop(self.happenings.send(Arc::new(Heard { happening, printed: OnceLock::new() })));
    }

    /// Whether anybody listens to what happens.
    pub fn is_listened_to(&self) -> bool {
        self.happenings.receiver_count() > 0
    }

    /// What happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Heard>> {
        self.happenings.subscribe()
    }
}

//! Shards: one thread per core, each with its own event loop, sockets, replica and clients.
//!
//! A shard shares nothing that changes, save three things it touches only when it sleeps, wakes or accepts: the rings
//! and bells of [`exchange`], and the counts of connections in [`handover`]. It takes no lock, reads no file, makes no
//! blocking call, and logs nothing: what an operator should know goes to the control thread as an [`Event`].
//!
//! [`start`] makes all of them or none. [`core`] is what a shard does, [`turn`] when. Log lines come in through
//! [`datagrams`] and [`stream`]; questions through a [`conversation`] with HAProxy ([`spoa`]), Envoy ([`envoy`]) or nginx
//! ([`nginx`]).

mod accept;
#[doc(hidden)]
pub mod alone;
mod clock;
mod connections;
mod conversation;
mod core;
mod counters;
mod datagrams;
mod driver;
mod envoy;
mod exchange;
mod handover;
mod histogram;
mod listen;
mod nginx;
mod readiness;
mod signal;
mod socket_file;
mod spoa;
mod stream;
mod system;
mod turn;

pub use self::clock::Clock;
pub use self::core::{Command, Documents, Event, Knowledge, Report, Visitor};
pub use counters::{Asked, ByStatus, Counters, Disconnects, Told};
pub use driver::{Driver, NoRing, Wish, raise_limits};
pub use exchange::Bell;
pub use histogram::{BOUNDS_NANOS, Histogram};
pub use listen::{Addresses, Endpoint, ListenFault, Opened, Service, Sockets, open};
pub use socket_file::SocketFile;

use self::core::{Core, Parts};
use crate::engine::address::Network;
use crate::engine::ban::{Learned, OwnerHash};
use crate::engine::owner::Owner;
use crate::engine::policy::Policy;
use crate::engine::replica::Replica;
use crate::engine::table::HashKey;
use exchange::Exchange;
use handover::{Handover, Spread};
use readiness::Readiness;
use rtrb::{Consumer, Producer, RingBuffer};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use turn::Shard;

/// Commands on their way to one shard: a few a second at most.
const COMMANDS: usize = 256;

/// Announcements on their way to the control thread: a quarter of a second of the worst ban storm yet imagined (50,000
/// decisions a second on one shard).
const EVENTS: usize = 16 << 10;

/// Learned bans that go to a shard with one command, or less: what follows from them must fit into half of a ring between
/// shards, or replicas would fall behind.
const LEARNED_MAX: usize = 4096;

/// The control thread's niceness: a third of a shard's share of a core that both want.
const CONTROL_NICE: i32 = 5;

/// What does not change while the shards run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shards: usize,
    pub pin: bool,
    pub wish: Wish,
    pub message_bytes_max: usize,
    /// Most connections by service, over all shards.
    pub connections_max: [usize; Service::COUNT],
    /// A question must be complete within this after its connection was opened or the last one answered; by service.
    pub read_timeout: [Duration; Service::COUNT],
    /// An answer must be taken within this; by service.
    pub write_timeout: [Duration; Service::COUNT],
    /// What `/health` says of this program.
    pub version: &'static str,
    /// The clock of the process.
    pub clock: Clock,
}

/// Keys of the hashes, drawn at random by whoever starts the shards.
#[derive(Clone, Debug)]
pub struct Keys {
    pub tables: HashKey,
    pub owners: HashKey,
}

/// Why the shards could not be started. `Display` is a sentence that says what to do.
#[derive(Debug)]
pub enum StartFault {
    NoRing(NoRing),
    /// No event loop at all.
    NoLoop(io::Error),
    NoBell(io::Error),
    NoThread(io::Error),
}

impl fmt::Display for StartFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartFault::NoRing(why) => why.fmt(f),
            StartFault::NoLoop(why) => write!(f, "cannot make an event loop: {why}. Are there too many open files?"),
            StartFault::NoBell(why) => write!(f, "cannot make an eventfd: {why}. Are there too many open files?"),
            StartFault::NoThread(why) => write!(f, "cannot start a thread: {why}. Is there a limit on tasks?"),
        }
    }
}

/// All running shards, as the control thread holds them.
#[derive(Debug)]
pub struct Shards {
    /// What drives them.
    pub driver: Driver,
    /// Why not io_uring, where it was wished for.
    pub no_ring: Option<NoRing>,
    /// The clock that all of them share.
    pub clock: Clock,
    /// Rung when a shard has announced something.
    pub bell: Arc<Bell>,
    owner_hash: OwnerHash,
    links: Vec<Link>,
    /// Whose events are looked at next.
    turn: usize,
}

#[derive(Debug)]
struct Link {
    commands: Producer<Command>,
    events: Consumer<Event>,
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
    /// What the shard has still to learn, and how much of it was sent and not acknowledged.
    to_learn: VecDeque<Learned>,
    being_learned: usize,
}

impl Link {
    /// Sends the next part of what the shard has to learn, at most `max`, unless it is at one.
    fn teach(&mut self, max: usize) {
        if self.being_learned > 0 || self.to_learn.is_empty() || self.commands.is_full() {
            return;
        }
        let part: Box<[Learned]> = self.to_learn.drain(..max.min(self.to_learn.len())).collect();
        self.being_learned = part.len();
        // The ring has room, and this is its only writer.
        drop(self.commands.push(Command::Learn(part)));
        self.bell.ring();
    }
}

impl Shards {
    pub fn len(&self) -> usize {
        self.links.len()
    }

    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Tells every shard. False if one has stopped taking commands: its ring is full.
    pub fn tell(&mut self, command: impl Fn() -> Command) -> bool {
        let (mut all, max) = (true, learned_max(self.len()));
        for link in &mut self.links {
            all &= link.commands.push(command()).is_ok();
            link.bell.ring();
            // What found the ring full before.
            link.teach(max);
        }
        all
    }

    /// Tells one. False if it has stopped taking commands.
    pub fn tell_one(&mut self, shard: usize, command: Command) -> bool {
        let Some(link) = self.links.get_mut(shard) else { return false };
        let told = link.commands.push(command).is_ok();
        link.bell.ring();
        told
    }

    /// Tells the owner of a client. False if it has stopped taking commands.
    pub fn tell_owner(&mut self, client: Network, command: Command) -> bool {
        let owner = self.owner_hash.owner(client, self.len());
        let Some(link) = self.links.get_mut(owner) else { return false };
        let told = link.commands.push(command).is_ok();
        link.bell.ring();
        told
    }

    /// Has the owners learn what other nodes decided, in this order for each client. It is sent part by part, the next one
    /// when [`Shards::learned_by`] says so; what waits meanwhile is kept here, however much it is.
    pub fn learn(&mut self, learned: Vec<Learned>) {
        let (shards, max) = (self.len(), learned_max(self.len()));
        for learned in learned {
            if let Some(link) = self.links.get_mut(self.owner_hash.owner(learned.client, shards)) {
                link.to_learn.push_back(learned);
            }
        }
        for link in &mut self.links {
            link.teach(max);
        }
    }

    /// A shard has said [`Event::Learned`]: sends it the next part.
    pub fn learned_by(&mut self, shard: usize) {
        let max = learned_max(self.len());
        if let Some(link) = self.links.get_mut(shard) {
            link.being_learned = 0;
            link.teach(max);
        }
    }

    /// How many of those given to [`Shards::learn`] are not known to be in force yet.
    pub fn learning(&self) -> usize {
        self.links.iter().map(|link| link.to_learn.len() + link.being_learned).sum()
    }

    /// What the shards have announced, with the index of each; `None` if nothing.
    ///
    /// They take turns: were it always the first that is looked at first, a busy one would keep the others from being heard.
    pub fn next_event(&mut self) -> Option<(usize, Event)> {
        let count = self.links.len();
        for step in 0..count {
            let shard = (self.turn + step) % count;
            if let Some(event) = self.links.get_mut(shard).and_then(|link| link.events.pop().ok()) {
                self.turn = (shard + 1) % count;
                return Some((shard, event));
            }
        }
        None
    }

    /// Whether a shard's thread has ended.
    pub fn any_ended(&self) -> bool {
        self.links.iter().any(|link| link.thread.is_finished())
    }

    /// Whether all have.
    pub fn all_ended(&self) -> bool {
        self.links.iter().all(|link| link.thread.is_finished())
    }
}

/// How many learned bans one of so many shards is sent at once.
fn learned_max(shards: usize) -> usize {
    LEARNED_MAX.min(exchange::notes(shards) / 2)
}

/// Cores that this process may run on, in their order.
fn allowed_cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

/// How many cores this process has the use of: a container's quota may be less than the cores it may run on, and more
/// shards than it pays for would only wait for each other.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Has the calling thread, and those it starts from now on, step back behind the shards where there are not cores enough for
/// all: when a storm of bans is to be logged, questions come first.
pub fn step_back() {
    // Per thread on Linux, whatever the name says (setpriority(2), "C library/kernel differences"). Lowering is always
    // allowed.
    let _ = rustix::process::setpriority_process(None, CONTROL_NICE);
}

/// Starts all shards on sockets that are already open. They serve from when this returns, as soon as they have learned what
/// is `remembered` of earlier runs and other nodes: of one client the latest last. It is not announced.
///
/// # Errors
///
/// If io_uring was asked for and cannot be had, or the system gives no threads or descriptors. Then none runs.
pub fn start(
    plan: &Plan,
    keys: &Keys,
    policy: &Arc<Policy>,
    remembered: Arc<[Learned]>,
    documents: &Arc<Documents>,
    sockets: Vec<Sockets>,
) -> Result<Shards, StartFault> {
    let clock = plan.clock;
    let bell = || Bell::new().map(Arc::new).map_err(StartFault::NoBell);
    let bells = (0..plan.shards).map(|_| bell()).collect::<Result<Vec<_>, _>>()?;
    let control_bell = bell()?;
    let spread = Spread::new(plan.shards);
    let cores = allowed_cores();
    // With a quota of fewer cores than it may run on, a process that picks some would pick those that its neighbours
    // picked too.
    let pin = plan.pin && available_cores() >= cores.len();
    let (driver, no_ring) = match plan.wish {
        Wish::Epoll => (Driver::Epoll, None),
        Wish::Auto | Wish::IoUring => match driver::probe() {
            Ok(driver) => (driver, None),
            Err(why) if plan.wish == Wish::IoUring => return Err(StartFault::NoRing(why)),
            Err(why) => (Driver::Epoll, Some(why)),
        },
    };

    let mut starters = Vec::new();
    let mut links = Vec::new();
    let parts = Exchange::all(&bells).into_iter().zip(&bells).zip(sockets).enumerate();
    for (index, ((exchange, bell), sockets)) in parts {
        let (commands, command_ring) = RingBuffer::new(COMMANDS);
        let (event_ring, events) = RingBuffer::new(EVENTS);
        let tracked_max = policy.rules.tracked_max;
        let make = {
            let (plan, keys, policy) = (plan.clone(), keys.clone(), Arc::clone(policy));
            let (remembered, documents) = (Arc::clone(&remembered), Arc::clone(documents));
            let (spread, bell, control_bell) = (spread.clone(), Arc::clone(bell), Arc::clone(&control_bell));
            move || {
                Core::new(Parts {
                    index,
                    shards: plan.shards,
                    clock,
                    policy,
                    documents,
                    remembered,
                    spread,
                    connections_max: plan.connections_max,
                    replica: Replica::new(keys.tables.clone()),
                    owner: Owner::new(index as u16, tracked_max, keys.tables.clone()),
                    tables: keys.tables,
                    owner_hash: OwnerHash::new(keys.owners),
                    exchange,
                    commands: command_ring,
                    events: event_ring,
                    bell,
                    control_bell,
                })
            }
        };
        let core = pin.then(|| cores.get(index % cores.len().max(1)).copied()).flatten();
        let (said, says) = mpsc::channel();
        let (told, tells) = mpsc::channel();
        let (plan, bell_of_shard) = (plan.clone(), Arc::clone(bell));
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || {
                if let Some(core) = core {
                    let mut only = CpuSet::new();
                    only.set(core);
                    let _ = sched_setaffinity(None, &only);
                }
                prepare(driver, &said, &tells, |runtime| {
                    serve(runtime, make, &plan, &bell_of_shard, sockets);
                });
            })
            .map_err(StartFault::NoThread)?;
        starters.push(Starter { says, told });
        links.push(Link {
            commands,
            events,
            bell: Arc::clone(bell),
            thread,
            to_learn: VecDeque::new(),
            being_learned: 0,
        });
    }
    let (driver, no_ring) = agree(plan, driver, no_ring, &starters)?;
    let owner_hash = OwnerHash::new(keys.owners.clone());
    Ok(Shards { driver, no_ring, clock, bell: control_bell, owner_hash, links, turn: 0 })
}

/// The starting thread's ends towards one shard that is being prepared.
struct Starter {
    says: mpsc::Receiver<io::Result<()>>,
    told: mpsc::Sender<Go>,
}

/// What a prepared shard is told.
enum Go {
    /// Serve with the loop you have.
    Serve,
    /// Another shard could not have its ring: make an epoll loop instead.
    Rebuild,
}

/// Has all shards run the same driver: if one cannot have its ring, none keeps it.
fn agree(
    plan: &Plan,
    driver: Driver,
    no_ring: Option<NoRing>,
    starters: &[Starter],
) -> Result<(Driver, Option<NoRing>), StartFault> {
    let all_built = || -> Option<io::Error> {
        let said =
            starters.iter().map(|starter| starter.says.recv().unwrap_or_else(|_| Err(io::Error::other("it ended"))));
        said.fold(None, |fault, built| fault.or(built.err()))
    };
    let tell = |go: fn() -> Go| starters.iter().for_each(|starter| drop(starter.told.send(go())));
    match (all_built(), driver) {
        (None, _) => {
            tell(|| Go::Serve);
            Ok((driver, no_ring))
        }
        (Some(fault), Driver::Epoll) => Err(StartFault::NoLoop(fault)),
        (Some(fault), Driver::IoUring { .. }) => {
            let why = NoRing::new(fault, plan.shards);
            if plan.wish == Wish::IoUring {
                return Err(StartFault::NoRing(why));
            }
            tell(|| Go::Rebuild);
            if let Some(fault) = all_built() {
                return Err(StartFault::NoLoop(fault));
            }
            tell(|| Go::Serve);
            Ok((Driver::Epoll, Some(why)))
        }
    }
}

/// On the shard's own thread: builds its loop, says how that went, and serves when told to.
fn prepare(
    driver: Driver,
    said: &mpsc::Sender<io::Result<()>>,
    tells: &mpsc::Receiver<Go>,
    serve: impl FnOnce(driver::Runtime),
) {
    let mut runtime = None;
    let mut say = |built: io::Result<driver::Runtime>| {
        let result = built.map(|built| runtime = Some(built));
        drop(said.send(result));
        runtime.take()
    };
    let mut built = say(driver.build());
    // A closed channel means that starting was given up.
    while let Ok(go) = tells.recv() {
        match go {
            Go::Rebuild => {
                drop(built.take());
                built = say(Driver::Epoll.build());
            }
            Go::Serve => {
                if let Some(runtime) = built.take() {
                    serve(runtime);
                }
                return;
            }
        }
    }
}

/// Runs a shard until it is told to stop.
fn serve(mut runtime: driver::Runtime, make: impl FnOnce() -> Core, plan: &Plan, bell: &Arc<Bell>, sockets: Sockets) {
    runtime.block_on(async {
        let shard = Shard::new(make(), Arc::clone(bell));
        let plan = Rc::new(plan.clone());
        let message_bytes_max = plan.message_bytes_max;
        // Without one of these the shard would be deaf. If the system has no more descriptors for them, the thread ends,
        // the control thread sees it, and says so.
        let Ok(ready) = Ready::new(bell, sockets) else { return };
        if let Some(socket) = ready.datagrams {
            monoio::spawn(datagrams::run(shard.clone(), socket, message_bytes_max));
        }
        for (service, listener, readiness) in ready.listeners {
            shard.turn(|core| core.add_listener(service, listener));
            monoio::spawn(accept::run(shard.clone(), readiness, service));
        }
        monoio::spawn(shard.clone().settle(move |shard: &Shard, arrival: Handover| {
            let (shard, plan) = (shard.clone(), Rc::clone(&plan));
            match arrival.service {
                Service::Syslog => drop(monoio::spawn(stream::run(shard, arrival, message_bytes_max))),
                Service::Spoa => {
                    drop(monoio::spawn(conversation::run(shard, arrival, plan, spoa::Spoa::default())));
                }
                Service::Envoy => {
                    drop(monoio::spawn(conversation::run(shard, arrival, plan, envoy::Envoy::new())));
                }
                Service::Nginx => {
                    let protocol = nginx::Nginx::new(plan.version);
                    drop(monoio::spawn(conversation::run(shard, arrival, plan, protocol)));
                }
            }
        }));
        monoio::spawn(shard.clone().retry());
        monoio::spawn(shard.clone().tick());
        monoio::spawn(shard.clone().wake(ready.bell));
        // The first turn announces the policy.
        shard.turn(|_| {});
        shard.stopped().await;
    });
    // Operations may be in flight, and the process is about to end: the kernel cleans up after both.
    std::mem::forget(runtime);
}

/// A shard's descriptors, ready to be waited for on its own thread.
struct Ready {
    bell: Readiness,
    datagrams: Option<Readiness>,
    /// Each listener has a second name: a task waits on one, and draining takes from the other what still waits in it.
    listeners: Vec<(Service, OwnedFd, Readiness)>,
}

impl Ready {
    fn new(bell: &Bell, sockets: Sockets) -> io::Result<Ready> {
        let mut listeners = Vec::new();
        for (service, socket) in sockets.listeners {
            listeners.push((service, socket.try_clone()?, Readiness::new(socket)?));
        }
        let bell = bell.as_fd().try_clone_to_owned().and_then(Readiness::new)?;
        Ok(Ready { bell, datagrams: sockets.syslog_udp.map(Readiness::new).transpose()?, listeners })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ban::{Ban, PatternId, Severity};
    use crate::engine::table::hash_key;
    use crate::engine::time::Time;
    use std::collections::BTreeSet;

    /// Shards that do nothing, and their ends of the command rings.
    fn idle(count: usize) -> (Shards, Vec<Consumer<Command>>) {
        let bell = || Arc::new(Bell::new().unwrap());
        let (links, rings): (Vec<Link>, Vec<Consumer<Command>>) = (0..count)
            .map(|_| {
                let (commands, ring) = RingBuffer::new(2);
                let (_, events) = RingBuffer::new(1);
                let thread = std::thread::spawn(|| {});
                let to_learn = VecDeque::new();
                (Link { commands, events, bell: bell(), thread, to_learn, being_learned: 0 }, ring)
            })
            .unzip();
        let owner_hash = OwnerHash::new(hash_key(1));
        let (driver, clock) = (Driver::Epoll, Clock::start());
        (Shards { driver, no_ring: None, clock, bell: bell(), owner_hash, links, turn: 0 }, rings)
    }

    fn learned(n: u32) -> Learned {
        let (at, pattern) = (Time::START, PatternId::new(0).unwrap());
        let ban = Ban { until: Time::MAX, offences: 1, failures: 5, pattern, severity: Severity::new(1).unwrap() };
        Learned { client: Network::host(std::net::Ipv4Addr::from_bits(n).into()), at, ban, lifted: None }
    }

    #[test]
    fn each_owner_learns_its_own_part_by_part() {
        let (mut shards, mut rings) = idle(2);
        shards.learn((0..10_000).map(learned).collect());
        shards.learn((10_000..20_000).map(learned).collect());
        assert_eq!(shards.learning(), 20_000);
        let mut seen = BTreeSet::new();
        let mut parts = 0;
        while shards.learning() > 0 {
            for (index, ring) in rings.iter_mut().enumerate() {
                let Ok(Command::Learn(part)) = ring.pop() else { continue };
                assert!((1..=LEARNED_MAX).contains(&part.len()) && ring.is_empty());
                assert!(part.iter().all(|learned| shards.owner_hash.owner(learned.client, 2) == index));
                assert!(part.is_sorted_by_key(|learned| learned.client));
                seen.extend(part.iter().map(|learned| learned.client));
                parts += 1;
                let left = shards.learning();
                shards.learned_by(index);
                assert_eq!(shards.learning(), left - part.len());
            }
        }
        assert_eq!((seen.len(), parts), (20_000, 6));
        assert!(rings.iter().all(Consumer::is_empty));
    }

    #[test]
    fn what_is_to_be_learned_waits_while_a_shard_takes_no_commands() {
        let (mut shards, mut rings) = idle(1);
        assert!(shards.tell(|| Command::Ready) && shards.tell(|| Command::Ready));
        shards.learn(vec![learned(1)]);
        assert_eq!(shards.learning(), 1);
        while rings[0].pop().is_ok() {}
        shards.tell(|| Command::Ready);
        assert!(matches!(rings[0].pop(), Ok(Command::Ready)) && matches!(rings[0].pop(), Ok(Command::Learn(_))));
    }

    #[test]
    fn with_many_shards_a_part_is_smaller() {
        assert_eq!([1, 2, 8, 16, 64, 1000].map(learned_max), [4096, 4096, 4096, 2048, 512, 256]);
    }
}

//! The server as a whole: start everything or nothing, keep it steered, end it in order.

use super::api::{Api, ControlSocket};
use super::desk::{Ask, Await, BanOrder, Desk, Happening, MANUAL, Overview, Refusal, Whom};
use super::errand::{self, ERRANDS_MAX, Errand, Errands, Next, holding};
use super::history::{History, happening, overview};
use super::journal;
use super::log::Log;
use super::metrics::{self, Metrics, Scrape};
use super::outbox::Outbox;
use super::publish::Publisher;
use super::store::contents::ListName;
use super::store::{self, Notice, Said, Status, Store, StoreFault, Wall};
use crate::config::{self, ApiSettings, Driver, Faults, LogSettings, Settings};
use crate::engine::address::{Address, Network};
use crate::engine::ban::{Decision, Order, Origin, PatternId, Severity, client_of};
use crate::engine::policy::Policy;
use crate::engine::survey::{Listed, Survey};
use crate::engine::table::{HashKey, hash_key};
use crate::shard::{
    Addresses, Bell, Clock, Command, Endpoint, Event, Keys, Opened, Plan, Report, Service, Shards, SocketFile, Visitor,
    Wish, available_cores, open, raise_limits, start, step_back,
};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How long the shards have to answer a scrape.
const REPORT_DEADLINE: Duration = Duration::from_secs(1);

/// How often it is checked whether all shards still run.
const CHECK: Duration = Duration::from_secs(1);

/// How often it is written down how things go.
const SAMPLE: Duration = Duration::from_secs(5);

/// How long the shards have to end, and their last events to be heard.
const LAST_EVENTS: Duration = Duration::from_millis(200);

/// How long operators who are being answered have after that.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How long the store has at least to keep the last decisions: what is decided is not lost for a deadline.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Events handled before signals and scrapes get their turn.
const EVENTS_PER_TURN: usize = 1024;

/// Why the server could not run. `Display` is for the operator, one fault a line.
#[derive(Debug)]
pub enum RunFault {
    /// The configuration is wrong: exit status 2.
    Configuration(Faults),
    /// The machine does not give what is needed: exit status 1.
    Machine(Vec<String>),
}

impl fmt::Display for RunFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunFault::Configuration(faults) => faults.fmt(f),
            RunFault::Machine(faults) => f.write_str(&faults.join("\n")),
        }
    }
}

impl From<Faults> for RunFault {
    fn from(faults: Faults) -> RunFault {
        RunFault::Configuration(faults)
    }
}

fn machine(fault: impl fmt::Display) -> RunFault {
    RunFault::Machine(vec![fault.to_string()])
}

/// What this program says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    pub version: &'static str,
    pub commit: &'static str,
}

/// Runs the server by the configuration at `path` until it is told to end.
///
/// # Errors
///
/// If it cannot start; then nothing of it was started. Or if it cannot go on.
pub fn run(path: &Path, about: About) -> Result<(), RunFault> {
    let keys = Keys { tables: random_key(), owners: random_key() };
    let mut publisher = Publisher::new(available_cores(), keys.tables.clone());
    let gravest = Severity::new(Severity::MAX).expect("the highest is one");
    publisher.know(MANUAL, gravest);
    let settings = publisher.read(path)?;
    let log = start_log(&settings.log)?;
    let clock = Clock::start();
    let opened = Store::open(path, settings, publisher, clock)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(machine)?;
    runtime.block_on(async move {
        // Before anything can be interrupted by them.
        let signals = Signals::new().map_err(machine)?;
        let (server, hears) = Server::start(path, about, log, opened, &keys, clock)?;
        server.steer(signals, hears).await
    })
}

/// Starts the log, whose writers step back behind the shards, as the thread that starts them has not done yet.
fn start_log(settings: &LogSettings) -> Result<Log, RunFault> {
    let start = || {
        step_back();
        Log::start(settings)
    };
    std::thread::scope(|scope| scope.spawn(start).join()).map_err(|_| machine("the log cannot be started"))
}

impl From<StoreFault> for RunFault {
    fn from(fault: StoreFault) -> RunFault {
        machine(fault)
    }
}

/// A key that nobody outside can know, from the randomness that the standard library seeds its tables with.
fn random_key() -> HashKey {
    hash_key(RandomState::new().hash_one(0u8))
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Hears the bell that shards ring.
struct Ear(pipe::Receiver);

impl Ear {
    fn new(bell: &Bell) -> std::io::Result<Ear> {
        // tokio has no type for an eventfd. Its pipe is one in all but name: it waits for a descriptor and reads it.
        bell.as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd_unchecked).map(Ear)
    }

    /// Waits until the bell was rung, and silences it.
    async fn rung(&self) {
        if self.0.readable().await.is_ok() {
            // The second read finds nothing, and has tokio wait for the next time.
            while self.0.try_read(&mut [0; 8]).is_ok() {}
        }
    }
}

struct Server {
    path: PathBuf,
    /// What the server was started with: what needs a restart is compared with this.
    settings: Settings,
    log: Log,
    store: Store,
    /// Decisions on their way to it.
    outbox: Outbox,
    /// How it is doing.
    status: Box<Status>,
    /// The newest policy; shards may still work by the one before.
    policy: Arc<Policy>,
    /// Those before it that a shard may still work by. They are kept here so that none is freed on a shard.
    retired: Vec<Arc<Policy>>,
    shards: Shards,
    /// The names of the unix sockets, which go with the server.
    _socket_files: Vec<SocketFile>,
    metrics: Metrics,
    /// The policy that each shard works by.
    adopted: Vec<u64>,
    drained: usize,
    collection: Option<Collection>,
    /// Which shards were asked for a report and have not given it yet.
    owing: Vec<bool>,
    about: About,
    wall: Wall,
    desk: Desk,
    errands: Errands,
    /// Who waits for an entry of a list to be in force, or not to be.
    awaiting: Vec<Await>,
    /// Orders to read the file that were given.
    orders: u64,
    /// Who waits for the file to be read, by an order of that number, and for the policy of that number to be in force.
    reloads: Vec<(u64, Reload)>,
    reloaded: Vec<(u64, Reload)>,
    history: History,
    /// What is wrong with the file, if it was refused since it was last taken.
    refused: Vec<String>,
    api: Api,
    /// Where it has a listener of its own.
    api_listens: Option<SocketAddr>,
    /// The control socket's name, which goes with the server.
    _control: Option<SocketFile>,
}

/// Who waits for a reload.
type Reload = oneshot::Sender<Result<u64, Vec<String>>>;

/// What the server hears, beside shards and signals.
struct Hears {
    scrapes: mpsc::Receiver<Scrape>,
    notices: mpsc::Receiver<Notice>,
    asks: mpsc::Receiver<Ask>,
}

/// Who waits for the shards' reports.
enum Reader {
    Metrics(Scrape),
    Overview(oneshot::Sender<Overview>),
    History,
}

/// Reports that are being collected for somebody.
struct Collection {
    readers: Vec<Reader>,
    reports: Vec<Option<Box<Report>>>,
    deadline: Instant,
}

impl Server {
    fn start(
        path: &Path,
        about: About,
        log: Log,
        opened: store::Opened,
        keys: &Keys,
        clock: Clock,
    ) -> Result<(Server, Hears), RunFault> {
        let store::Opened { settings, shards, policy, remembered, status, store, notices } = opened;
        let open_files = raise_limits(shards);
        let addresses = addresses(&settings);
        // All listeners are opened before the first thread starts, and all that cannot be are reported together.
        let mut faults = Vec::new();
        let opened = open(&addresses, shards).map_err(|more| faults.extend(more.iter().map(ToString::to_string)));
        let listener = settings.prometheus.listen_tcp().map(|address| {
            listen_for_operators(address).map_err(|why| faults.push(format!("{why}. Change prometheus.port")))
        });
        let own = settings
            .api
            .listen_tcp()
            .map(|address| listen_for_operators(address).map_err(|why| faults.push(format!("{why}. Change api.port"))));
        let control = match settings.runtime.state_dir.as_str() {
            "" => None,
            state_dir => match ControlSocket::open(Path::new(state_dir)) {
                Ok(control) => Some(control.into_parts()),
                // Nobody's mail should wait for it.
                Err(why) => {
                    journal::no_control_socket(state_dir, why);
                    None
                }
            },
        };
        let (Ok(Opened { sockets, files, remarks }), true) = (opened, faults.is_empty()) else {
            return Err(RunFault::Machine(faults));
        };
        let plan = Plan {
            shards,
            pin: settings.runtime.pin,
            wish: match settings.runtime.driver {
                Driver::Auto => Wish::Auto,
                Driver::IoUring => Wish::IoUring,
                Driver::Epoll => Wish::Epoll,
            },
            message_bytes_max: settings.syslog.max_message_bytes,
            connections_max: connections_max(&settings),
            read_timeout: Service::ALL.map(|service| match service {
                // Log senders may be silent for days.
                Service::Syslog => Duration::MAX,
                Service::Spoa => settings.spoa.read_timeout,
                Service::Envoy => settings.envoy.read_timeout,
                Service::Nginx => settings.nginx.read_timeout,
            }),
            write_timeout: Service::ALL.map(|service| match service {
                Service::Syslog => Duration::MAX,
                Service::Spoa => settings.spoa.read_timeout,
                Service::Envoy => settings.envoy.read_timeout,
                Service::Nginx => settings.nginx.write_timeout,
            }),
            version: about.version,
            clock,
        };
        let documents = Arc::new(status.documents());
        if !remembered.is_empty() {
            journal::remembered(remembered.len(), clock.uptime());
        }
        let running = start(&plan, keys, &policy, remembered.into(), &documents, sockets).map_err(machine)?;
        step_back();
        let source = path.display().to_string();
        journal::settings_warnings(&source, &settings);

        let (scrape, scrapes) = mpsc::channel(16);
        if let Some(Ok(listener)) = listener {
            let listener = TcpListener::from_std(listener).map_err(machine)?;
            let path = settings.prometheus.path.clone();
            tokio::spawn(async move {
                metrics::serve(listener, &path, scrape).await;
            });
        }
        let (desk, asks) = Desk::new();
        let api = Api::new(desk.clone(), store.clerk(), &settings);
        if let Some(Ok(listener)) = own {
            api.listen(listener).map_err(machine)?;
        }
        let control = match control {
            Some((listener, file)) => {
                api.listen_locally(listener).map_err(machine)?;
                Some(file)
            }
            None => None,
        };
        let metrics = Metrics::new();
        metrics.started(about.version, about.commit, running.driver.name(), shards);
        for remark in remarks {
            journal::remark(remark);
        }
        if let Some(why) = &running.no_ring {
            journal::remark(format_args!("running on epoll. {why}"));
        }
        remarks_on(&settings, open_files);
        journal::started(about.version, shards, running.driver.name(), &source, &policy);
        if let Some(address) = addresses.syslog_udp {
            journal::listening(Service::Syslog.name(), "udp", address);
        }
        for (service, endpoint) in &addresses.streams {
            journal::listening(service.name(), endpoint.protocol(), endpoint);
        }
        if let Some(address) = settings.prometheus.listen_tcp() {
            journal::listening("prometheus", "tcp", address);
        }
        let api_listens = settings.api.listen_tcp();
        if let Some(address) = api_listens {
            journal::listening("api", "tcp", address);
        }
        let server = Server {
            path: path.to_owned(),
            settings,
            log,
            store,
            outbox: Outbox::default(),
            status: Box::new(status),
            policy,
            retired: Vec::new(),
            shards: running,
            _socket_files: files,
            metrics,
            adopted: vec![0; shards],
            drained: 0,
            collection: None,
            owing: vec![false; shards],
            about,
            wall: Wall::new(clock),
            desk,
            errands: Errands::default(),
            awaiting: Vec::new(),
            orders: 0,
            reloads: Vec::new(),
            reloaded: Vec::new(),
            history: History::default(),
            refused: Vec::new(),
            api,
            api_listens,
            _control: control,
        };
        Ok((server, Hears { scrapes, notices, asks }))
    }

    /// Steers the running server until it is told to end.
    async fn steer(mut self, mut signals: Signals, hears: Hears) -> Result<(), RunFault> {
        let Hears { mut scrapes, mut notices, mut asks } = hears;
        let bell = Arc::clone(&self.shards.bell);
        let ear = Ear::new(&bell).map_err(machine)?;
        let mut check = tokio::time::interval(CHECK);
        let mut sample = tokio::time::interval(SAMPLE);
        loop {
            self.take_events();
            self.hand_over();
            bell.sleep(|| !self.take_events());
            self.hand_over();
            let deadline = self.collection.as_ref().map(|collection| collection.deadline);
            tokio::select! {
                () = ear.rung() => bell.wake(),
                _ = signals.hangup.recv() => drop(self.reload()),
                _ = signals.terminate.recv() => {
                    drop((notices, asks));
                    return self.end("SIGTERM", &ear).await;
                }
                _ = signals.interrupt.recv() => {
                    drop((notices, asks));
                    return self.end("SIGINT", &ear).await;
                }
                Some(notice) = notices.recv() => self.hear(notice),
                Some(scrape) = scrapes.recv() => self.collect(Reader::Metrics(scrape)),
                Some(ask) = asks.recv(), if self.errands.len() < ERRANDS_MAX => self.serve(ask),
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.answer_readers();
                }
                _ = sample.tick() => self.collect(Reader::History),
                _ = check.tick() => {
                    for overdue in self.errands.overdue() {
                        journal::errand_given_up(overdue);
                    }
                    self.metrics.upkeep();
                    self.wall.check();
                    if self.shards.any_ended() {
                        journal::shard_died();
                        return Err(machine("a shard has ended by itself"));
                    }
                    if self.store.has_ended() {
                        journal::store_died();
                        return Err(machine("the store has ended by itself"));
                    }
                }
            }
        }
    }

    /// Does what follows from what the store says.
    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Policy { policy, read } => {
                if let Some((number, settings)) = read {
                    self.refused.clear();
                    self.api.adopt(&settings);
                    self.open_api(settings.api.enabled);
                    journal::settings_warnings(&self.path.display().to_string(), &settings);
                    journal::restart_needed(&config::restart_needed(&self.settings, &settings));
                    self.log.set_level(&settings.log);
                    self.metrics.reloaded(true);
                    let answered = self.reloads.extract_if(.., |(order, _)| *order <= number);
                    self.reloaded.extend(answered.map(|(_, answer)| (policy.number, answer)));
                }
                self.retired.push(std::mem::replace(&mut self.policy, Arc::clone(&policy)));
                self.tell(|| Command::Adopt(Arc::clone(&policy)));
            }
            Notice::Refused(number, faults) => {
                self.metrics.reloaded(false);
                journal::reload_refused(&faults);
                let said: Vec<String> = faults.to_string().lines().map(str::to_owned).collect();
                for (_, answer) in self.reloads.extract_if(.., |(order, _)| *order <= number) {
                    drop(answer.send(Err(said.clone())));
                }
                self.refused.clone_from(&said);
                self.desk.say(Happening::Refused { at: self.wall.at(self.wall.now()), faults: said });
            }
            Notice::Learned(learned) => self.shards.learn(learned),
            Notice::Status(status) => {
                if status.connected != self.status.connected {
                    let at = self.wall.at(self.wall.now());
                    self.desk.say(Happening::Database { at, connected: status.connected });
                }
                self.status = status;
                let documents = Arc::new(self.status.documents());
                self.tell(|| Command::Documents(Arc::clone(&documents)));
            }
        }
    }

    /// Opens the API's own listener if it was off so far. One that is open stays: while the API is off, it says so.
    /// Where it is does not change without a restart.
    fn open_api(&mut self, enabled: bool) {
        let ApiSettings { address, port, .. } = self.settings.api;
        let address = address.map(|address| SocketAddr::new(address, port));
        let Some(address) = address.filter(|_| enabled && self.api_listens.is_none()) else { return };
        let opened = listen_for_operators(address);
        match opened.and_then(|listener| self.api.listen(listener).map_err(|why| why.to_string())) {
            Ok(()) => {
                self.api_listens = Some(address);
                journal::listening("api", "tcp", address);
            }
            Err(why) => journal::api_closed(why),
        }
    }

    /// Has the file read again. The number of the order that does it.
    fn reload(&mut self) -> u64 {
        if self.store.reload(self.orders + 1) {
            self.orders += 1;
        }
        self.orders
    }

    /// Hands decisions over to the store. Has the shards tell again what was lost when it did not keep up.
    fn hand_over(&mut self) {
        if let Some(since) = self.outbox.flush(&self.store) {
            self.tell(|| Command::Retell(since));
        }
    }

    fn tell(&mut self, command: impl Fn() -> Command) {
        if !self.shards.tell(command) {
            journal::shard_deaf();
        }
    }

    /// Handles what the shards have announced, up to a bound. True if there was anything.
    fn take_events(&mut self) -> bool {
        for handled in 0..EVENTS_PER_TURN {
            let Some((shard, event)) = self.shards.next_event() else { return handled > 0 };
            match event {
                Event::Decided(decision) => {
                    let said = self.errands.ordered(&decision);
                    self.decided(shard, &decision, said);
                }
                Event::Obeyed { ticket, decision, ban } => self.obeyed(shard, ticket, decision, ban),
                Event::Lifted { ticket, lifted: more } => {
                    if let Some(Errand::Lift { lifted, .. }) = self.errands.get_mut(ticket) {
                        *lifted += more;
                    }
                    self.count_down(ticket);
                }
                Event::Surveyed { ticket, survey: found } => {
                    match self.errands.get_mut(ticket) {
                        Some(Errand::Survey { survey: Some(survey), .. }) => survey.merge(*found),
                        Some(Errand::Survey { survey, .. }) => *survey = Some(found),
                        _ => {}
                    }
                    self.count_down(ticket);
                }
                Event::Inspected { ticket, knowledge: known } => {
                    if let Some(Errand::Inspect { knowledge, .. }) = self.errands.get_mut(ticket) {
                        knowledge.push(*known);
                    }
                    self.count_down(ticket);
                }
                Event::Settled { ticket } => self.count_down(ticket),
                Event::Visitor(visitor) => {
                    let Visitor { socket, peer, bytes } = *visitor;
                    self.api.serve_handed_over(socket, bytes, peer);
                }
                Event::Learned => self.shards.learned_by(shard),
                Event::Retold(decisions) => self.outbox.put_again(&decisions),
                Event::Adopted(number) => self.adopted_by(shard, number),
                Event::Report(report) => self.reported_by(shard, report),
                Event::Drained => self.drained += 1,
            }
        }
        true
    }

    fn adopted_by(&mut self, shard: usize, number: u64) {
        if let Some(adopted) = self.adopted.get_mut(shard) {
            *adopted = number;
        }
        let oldest = self.adopted.iter().min().copied().unwrap_or_default();
        self.retired.retain(|policy| policy.number >= oldest);
        if self.adopted.iter().all(|adopted| *adopted == self.policy.number) {
            journal::policy_in_force(&self.policy);
            self.tell(|| Command::Ready);
            self.answer_waiting();
            self.desk.say(Happening::Policy {
                at: self.wall.at(self.wall.now()),
                number: self.policy.number,
                patterns: self.policy.matcher.len(),
                whitelist: self.policy.allow.len(),
                blacklist: self.policy.block.len(),
            });
        }
    }

    fn collect(&mut self, reader: Reader) {
        if let Some(collection) = &mut self.collection {
            collection.readers.push(reader);
            return;
        }
        let reports = (0..self.shards.len()).map(|_| None).collect();
        self.collection =
            Some(Collection { readers: vec![reader], reports, deadline: Instant::now() + REPORT_DEADLINE });
        // One that hangs is not asked again and again, or its ring would be full when it comes back.
        for shard in 0..self.shards.len() {
            if !self.owing[shard] {
                self.owing[shard] = self.shards.tell_one(shard, Command::Report);
            }
        }
    }

    fn reported_by(&mut self, shard: usize, report: Box<Report>) {
        if let Some(owes) = self.owing.get_mut(shard) {
            *owes = false;
        }
        let Some(collection) = &mut self.collection else { return };
        if let Some(place) = collection.reports.get_mut(shard) {
            *place = Some(report);
        }
        if collection.reports.iter().all(Option::is_some) {
            self.answer_readers();
        }
    }

    fn answer_readers(&mut self) {
        let Some(Collection { readers, reports, .. }) = self.collection.take() else { return };
        let mut rendered: Option<String> = None;
        for reader in readers {
            // Whoever asked may have gone.
            match reader {
                Reader::Metrics(scrape) => {
                    let text = rendered.take().unwrap_or_else(|| self.render(&reports));
                    drop(scrape.send(text.clone()));
                    rendered = Some(text);
                }
                Reader::Overview(answer) => drop(answer.send(self.overview(&reports))),
                Reader::History => {
                    let at = self.wall.at(self.wall.now());
                    if let Some(sample) = self.history.take(&reports, self.shards.clock.now(), at) {
                        self.desk.say(Happening::Sample(sample));
                    }
                }
            }
        }
    }

    fn render(&mut self, reports: &[Option<Box<Report>>]) -> String {
        let uptime = self.shards.clock.uptime();
        let store = (&*self.store.counts, &*self.status);
        self.metrics.render(reports, &self.policy, uptime, self.log.lost(), store, self.api.answered())
    }

    fn overview(&self, reports: &[Option<Box<Report>>]) -> Overview {
        let started = Overview {
            version: self.about.version,
            commit: self.about.commit,
            driver: self.shards.driver.name(),
            uptime: self.shards.clock.uptime(),
            refused: self.refused.clone(),
            ..Overview::default()
        };
        overview(started, reports, &self.policy, &self.status)
    }

    /// Does what an operator asks, or has the shards do it.
    fn serve(&mut self, ask: Ask) {
        let shards = self.shards.len();
        match ask {
            Ask::Ban { order, by, answer } => {
                let BanOrder { whom, duration, reason, created_by } = order;
                let (client, meant) = match whom {
                    Whom::ClientOf(address) => (client_of(address, &self.policy.rules), Network::host(address)),
                    Whom::Exactly(network) => (network, network),
                };
                if self.policy.allow.covers(meant) {
                    let base = Address::from(meant.base());
                    let entry = holding(&self.policy.allow, base).into_iter().find(|entry| entry.covers(meant));
                    return drop(answer.send(Err(Refusal::Allowed(entry.unwrap_or(meant)))));
                }
                let Some((pattern, severity)) = self.manual() else {
                    let why = "the program has no name for operators' bans yet".to_owned();
                    return drop(answer.send(Err(Refusal::Unavailable(why))));
                };
                let said = Said { reason, created_by: created_by.unwrap_or(by) };
                let errand = Errand::Ban { client, ban: None, already: true, answer };
                let ticket = self.errands.begin(errand, Some(said), 1);
                let order = Order::Ban(pattern, severity, duration);
                self.tell_owner(client, Command::Order { ticket, client, order });
            }
            Ask::Lift { clients, by, answer } => {
                let ticket = self.errands.begin(
                    Errand::Lift { lifted: 0, within: None, answer },
                    Some(Said { reason: None, created_by: by }),
                    clients.len().max(1),
                );
                if clients.is_empty() {
                    return self.count_down(ticket);
                }
                for client in clients {
                    self.tell_owner(client, Command::Order { ticket, client, order: Order::Lift });
                }
            }
            Ask::LiftWithin { within, by, answer } => {
                let ticket = self.errands.begin(
                    Errand::Lift { lifted: 0, within: Some(within), answer },
                    Some(Said { reason: None, created_by: by }),
                    shards,
                );
                self.tell(|| Command::LiftWithin { ticket, within });
            }
            Ask::Bans { mut question, pattern, answer } => {
                if let Some(pattern) = pattern {
                    let named = self.policy.names.iter().enumerate().filter(|(_, known)| *known.name == *pattern);
                    question.patterns = Some(named.filter_map(|(at, _)| u32::try_from(at).ok()).collect());
                }
                let ticket = self.errands.begin(Errand::Survey { survey: None, answer }, None, shards);
                self.tell(|| Command::Survey { ticket, survey: Box::new(Survey::new(question.clone())) });
            }
            Ask::Inspect { address, answer } => {
                let errand = Errand::Inspect { address, knowledge: Vec::new(), answer };
                let ticket = self.errands.begin(errand, None, shards);
                self.tell(|| Command::Inspect { ticket, address });
            }
            Ask::Overview { answer } => self.collect(Reader::Overview(answer)),
            Ask::History { answer } => drop(answer.send(self.history.samples())),
            Ask::Await(wish) => {
                self.awaiting.push(wish);
                self.answer_waiting();
            }
            Ask::Reload { answer } => {
                let order = self.reload();
                self.reloads.push((order, answer));
            }
        }
    }

    /// The pattern of operators' bans.
    fn manual(&self) -> Option<(PatternId, Severity)> {
        let at = self.policy.names.iter().position(|known| &*known.name == MANUAL)?;
        Some((PatternId::new(u32::try_from(at).ok()?)?, self.policy.names.get(at)?.severity))
    }

    fn tell_owner(&mut self, client: Network, command: Command) {
        if !self.shards.tell_owner(client, command) {
            journal::shard_deaf();
        }
    }

    /// One of the answers to an errand is there.
    fn count_down(&mut self, ticket: u64) {
        match self.errands.count_down(ticket, self.shards.len()) {
            Next::Wait => {}
            Next::Settle => self.tell(|| Command::Settle { ticket }),
            Next::Finished => {
                if let Some(errand) = self.errands.take(ticket) {
                    errand::answer(errand, &self.policy, &self.wall, &self.status.node);
                }
            }
        }
    }

    fn obeyed(&mut self, shard: usize, ticket: u64, decision: Option<Decision>, now: Option<Listed>) {
        let said = self.errands.said(ticket);
        match self.errands.get_mut(ticket) {
            Some(Errand::Ban { ban, already, .. }) => (*ban, *already) = (now, decision.is_none()),
            Some(Errand::Lift { lifted, .. }) => *lifted += u64::from(decision.is_some()),
            _ => {}
        }
        if let Some(decision) = decision {
            self.decided(shard, &decision, said);
        }
        self.count_down(ticket);
    }

    /// Says everywhere what was decided, and what the operator said who ordered it.
    fn decided(&mut self, shard: usize, decision: &Decision, said: Option<Arc<Said>>) {
        journal::decided(shard, decision, &self.policy);
        let by = said.as_ref().map(|said| said.created_by.clone());
        self.outbox.put(decision, said);
        if decision.origin == Origin::Decided {
            self.metrics.decided(decision, &self.policy);
        }
        if self.desk.is_listened_to() {
            self.desk.say(happening(decision, &self.policy, &self.wall, by));
        }
    }

    /// Answers those who waited for a policy.
    fn answer_waiting(&mut self) {
        if !self.adopted.iter().all(|adopted| *adopted == self.policy.number) {
            return;
        }
        let policy = Arc::clone(&self.policy);
        let is_so = |wish: &mut Await| {
            let table = match wish.list {
                ListName::Whitelist => &policy.allow,
                ListName::Blacklist => &policy.block,
            };
            table.get(wish.entry).is_some() == wish.present
        };
        for Await { list, entry, present: added, by, answer } in self.awaiting.extract_if(.., is_so) {
            if let Some(by) = by {
                let at = self.wall.at(self.wall.now());
                self.desk.say(Happening::List { at, list, entry, added, by });
            }
            // Whoever waited may have gone.
            let _ = answer.send(());
        }
        self.awaiting.retain(|wish| !wish.answer.is_closed());
        for (number, answer) in self.reloaded.extract_if(.., |(number, _)| *number <= policy.number) {
            drop(answer.send(Ok(number)));
        }
    }

    /// Ends in order: stop listening, finish what was received, say what was decided, stop.
    async fn end(mut self, signal: &str, ear: &Ear) -> Result<(), RunFault> {
        journal::stopping(signal);
        // No policy will be adopted any more: nobody waits for one.
        self.awaiting.clear();
        self.reloads.clear();
        self.reloaded.clear();
        let allowed = self.settings.runtime.shutdown_deadline;
        let deadline = Instant::now() + allowed;
        // Who is being answered, and waits for nothing that the shards do, is answered meanwhile.
        let api = self.api.clone();
        let closing = tokio::spawn(async move { api.close(deadline).await });
        // Twice: a connection may have been handed to a shard that had just said that it was done.
        let in_time = self.drain(deadline, ear).await && self.drain(deadline, ear).await;
        if !in_time {
            journal::deadline_missed(allowed);
        }
        self.tell(|| Command::Stop);
        // A failure that one shard received as the last may have been counted by another after both had drained.
        let last = Instant::now() + LAST_EVENTS;
        while !self.shards.all_ended() && Instant::now() < last {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while self.take_events() && Instant::now() < last {}
        self.errands = Errands::default();
        // What operators ordered is written down by the store, which ends after this.
        let answered = tokio::time::timeout_at(deadline.min(Instant::now() + LAST_ANSWERS), closing).await;
        if !matches!(answered, Ok(Ok(true))) {
            journal::answers_cut();
        }
        // What was decided is kept before the process ends; other nodes are told of it as long as the deadline allows.
        let Server { outbox, store, .. } = self;
        let kept = async move {
            outbox.close(&store).await;
            let thread = store.close(deadline.saturating_duration_since(Instant::now()));
            while !thread.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout_at(deadline.max(Instant::now() + LAST_WORDS), kept).await.is_err() {
            journal::store_slow();
        }
        journal::stopped();
        Ok(())
    }

    /// Has the shards take in nothing new and finish what they received. False if they do not in time.
    async fn drain(&mut self, deadline: Instant, ear: &Ear) -> bool {
        self.drained = 0;
        self.tell(|| Command::Drain);
        let bell = Arc::clone(&self.shards.bell);
        loop {
            let busy = self.take_events();
            self.hand_over();
            if self.drained == self.shards.len() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            if busy {
                continue;
            }
            bell.sleep(|| !self.take_events());
            // At the deadline, the next round says so.
            let _ = tokio::time::timeout_at(deadline, ear.rung()).await;
            bell.wake();
        }
    }
}

/// A listener for tokio.
fn listen_for_operators(address: SocketAddr) -> Result<std::net::TcpListener, String> {
    std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|why| format!("cannot listen on tcp {address}: {why}"))
}

/// Where the settings say to listen.
fn addresses(settings: &Settings) -> Addresses {
    let Settings { syslog, spoa, envoy, nginx, .. } = settings;
    let tcp = [
        (Service::Syslog, syslog.listen_tcp()),
        (Service::Spoa, spoa.listen_tcp()),
        (Service::Envoy, envoy.listen_tcp()),
        (Service::Nginx, nginx.listen_tcp()),
    ];
    let unix = [
        (Service::Spoa, spoa.listen_unix()),
        (Service::Envoy, envoy.listen_unix()),
        (Service::Nginx, nginx.listen_unix()),
    ];
    let tcp = tcp.into_iter().filter_map(|(service, at)| Some((service, Endpoint::Tcp(at?))));
    let unix = unix.into_iter().filter_map(|(service, at)| Some((service, Endpoint::Unix(at?.into()))));
    Addresses { syslog_udp: syslog.listen_udp(), streams: tcp.chain(unix).collect() }
}

/// Most connections by service; none where it does not run.
fn connections_max(settings: &Settings) -> [usize; Service::COUNT] {
    let Settings { syslog, spoa, envoy, nginx, .. } = settings;
    Service::ALL.map(|service| match service {
        Service::Syslog => syslog.max_connections,
        Service::Spoa if spoa.enabled => spoa.max_clients,
        Service::Envoy if envoy.enabled => envoy.max_connections,
        Service::Nginx if nginx.enabled => nginx.max_connections,
        Service::Spoa | Service::Envoy | Service::Nginx => 0,
    })
}

/// What an operator should think about again.
fn remarks_on(settings: &Settings, open_files: Option<u64>) {
    let connections = connections_max(settings).iter().sum::<usize>() as u64;
    if let Some(open_files) = open_files.filter(|files| *files < connections + OTHER_FILES) {
        journal::remark(format_args!(
            "only {open_files} files can be open, fewer than syslog.max_connections, spoa.max_clients, \
             envoy.max_connections and nginx.max_connections may need together ({connections}); raise it with `ulimit \
             -n` or LimitNOFILE="
        ));
    }
}

/// Open files beside connections: listeners, bells, rings, standard streams.
const OTHER_FILES: u64 = 512;

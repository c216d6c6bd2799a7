//! What a shard knows and does between two waits: plain calls on plain state, nothing asynchronous.
//!
//! A turn begins when something happens on a shard that was idle, and ends when nothing is left to do: the clock is
//! read once, what other shards and the control thread sent is taken in, the sockets' work is done, and at the end
//! everything that arose for others goes out at once.

use super::clock::Clock;
use super::connections::{ConnectionId, Connections};
use super::counters::Counters;
use super::exchange::{Bell, Exchange, Note, Snapshot};
use super::handover::{Handover, Spread};
use super::listen::{Service, accept, is_passing};
use super::system::{self, Handle};
use crate::engine::address::{Address, Network};
use crate::engine::ban::{Act, ByPattern, Decision, Failure, Learned, Lift, Order, Origin, OwnerHash, client_of};
use crate::engine::evidence::{Evidence, Kept};
use crate::engine::matcher::{Found, Match, Scratch};
use crate::engine::owner::{Known, Outcome, Owner};
use crate::engine::policy::Policy;
use crate::engine::replica::Replica;
use crate::engine::survey::{Listed, Survey};
use crate::engine::table::HashKey;
use crate::engine::time::Time;
use crate::engine::verdict::{Verdict, judge};
use crate::wire::syslog;
use rtrb::{Consumer, Producer};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Notes taken in at the start and the end of a turn: all that the rings can hold, so that none is left over.
const NOTES_PER_DRAIN_MAX: usize = 64 << 10;

/// How often time passes for bans, windows and deadlines.
pub const TICK: Duration = Duration::from_millis(250);

/// Slots of the ring to the control thread that decisions leave to answers: more than there can be commands on the way.
const EVENTS_RESERVE: usize = 3 * super::COMMANDS;

/// And of those the ones that visitors leave to answers: in a storm of bans operators come in all the same.
const ANSWERS_RESERVE: usize = 2 * super::COMMANDS;

/// Connections taken from a listener when the shard stops listening: as many as can wait there.
const WAITING_MAX: i32 = super::listen::BACKLOG;

/// Clients looked at in one turn for an operator: a tenth of a millisecond's worth, since questions of proxies wait for it.
const SURVEYED_PER_TURN: usize = 1 << 11;
const LIFTED_PER_TURN: usize = 1 << 11;

/// What all shards together keep of log lines, and each at least.
const EVIDENCE_BYTES: usize = 16 << 20;
const EVIDENCE_BYTES_MIN: usize = 1 << 20;

/// Room for decisions that is kept from one call to the next.
const DECISIONS_KEPT: usize = 4096;

/// What the control thread tells a shard.
#[derive(Debug)]
pub enum Command {
    /// Work by this from now on.
    Adopt(Arc<Policy>),
    /// Every shard has a policy.
    Ready,
    /// These are bans of your clients that others decided. At most as many as [`Shards::learn`](super::Shards::learn)
    /// sends at once.
    Learn(Box<[Learned]>),
    /// Say again what you decided from that time on.
    Retell(Time),
    /// Show these to whoever asks.
    Documents(Arc<Documents>),
    /// Do what an operator orders about a client of yours.
    Order { ticket: u64, client: Network, order: Order },
    /// End the bans of your clients inside of this network; `None`: of all.
    LiftWithin { ticket: u64, within: Option<Network> },
    /// Show your bans to this survey.
    Survey { ticket: u64, survey: Box<Survey> },
    /// Say what you know of this address.
    Inspect { ticket: u64, address: Address },
    /// Say when everything has gone out that you decided before this, and everything is in force that had reached you.
    Settle { ticket: u64 },
    /// Say what you have counted.
    Report,
    /// Take in nothing new, finish what was received, and say when. Said again, it is answered again.
    Drain,
    /// End.
    Stop,
}

/// What a shard tells the control thread.
#[derive(Debug)]
pub enum Event {
    Decided(Decision),
    /// The bans that came with one [`Command::Learn`] are in force.
    Learned,
    /// What was decided while not all of it could be announced, and perhaps more: see
    /// [`Owner::since`](crate::engine::owner::Owner::since).
    Retold(Box<[Decision]>),
    /// An order was carried out: what was decided, if it changed something, which is not announced besides; and the ban that
    /// is in force now.
    Obeyed {
        ticket: u64,
        decision: Option<Decision>,
        ban: Option<Listed>,
    },
    /// So many bans were ended.
    Lifted {
        ticket: u64,
        lifted: u64,
    },
    /// All bans were looked at.
    Surveyed {
        ticket: u64,
        survey: Box<Survey>,
    },
    Inspected {
        ticket: u64,
        knowledge: Box<Knowledge>,
    },
    Settled {
        ticket: u64,
    },
    /// Somebody who is not answered by a shard.
    Visitor(Box<Visitor>),
    /// The policy of that number is in force here.
    Adopted(u64),
    Report(Box<Report>),
    /// Everything that was received is dealt with.
    Drained,
}

/// What a shard knows of an address.
#[derive(Clone, Debug)]
pub struct Knowledge {
    pub verdict: Verdict,
    /// What its owner knows of its client; nothing on other shards.
    pub client: Option<Known>,
    /// The bans in force that hold the address, of clients that this shard owns.
    pub bans: Vec<Listed>,
    /// The last lines that this shard saw.
    pub evidence: Vec<Kept>,
}

/// A connection that wants what only the control thread has.
#[derive(Debug)]
pub struct Visitor {
    pub socket: OwnedFd,
    /// `None` on a unix socket.
    pub peer: Option<Address>,
    /// What was read from it already.
    pub bytes: Vec<u8>,
}

/// Something that takes more than one turn.
#[derive(Debug)]
enum Errand {
    Survey { ticket: u64, survey: Box<Survey>, from: usize },
    Lift { ticket: u64, within: Option<Network>, from: usize, lifted: u64 },
}

/// What the control thread says of itself, in JSON, to be shown over HTTP by every shard.
#[derive(Debug)]
pub struct Documents {
    /// `/config/source`
    pub config_source: Box<[u8]>,
    /// `/database/status`
    pub database_status: Box<[u8]>,
}

/// What a shard has counted, and how full it is.
#[derive(Clone, Debug)]
pub struct Report {
    pub counters: Counters,
    /// Clients with failures in their window, and offenders remembered, of those that the shard owns.
    pub counting: usize,
    pub remembered: usize,
    /// Bans in force that the shard decided, and bans its replica holds.
    pub banned: usize,
    pub replica: usize,
    /// The former by pattern number.
    pub banned_by: ByPattern,
    /// Clients and offenders forgotten for want of room.
    pub evicted: (u64, u64),
    /// Failures waiting for room in another shard's ring.
    pub backlog: usize,
    pub connections: [usize; Service::COUNT],
    pub matcher_cache_bytes: usize,
    pub policy: u64,
}

/// Everything a shard owns.
#[derive(Debug)]
pub struct Core {
    pub index: usize,
    pub shards: usize,
    pub clock: Clock,
    /// When this turn began.
    pub now: Time,
    pub policy: Arc<Policy>,
    pub documents: Arc<Documents>,
    pub counters: Counters,
    pub connections: Connections,
    pub spread: Spread,
    /// Connections to be served here from the end of this turn.
    pub arrivals: Vec<Handover>,
    /// No longer taking in anything new.
    pub draining: bool,
    pub stopped: bool,
    /// Every shard has a policy.
    ready: bool,
    /// Listeners that still take in something.
    pub listening: usize,
    /// Most connections by service, over all shards.
    pub connections_max: [usize; Service::COUNT],
    /// Time has passed in this turn.
    pub ticked: bool,
    tick_at: Time,
    in_turn: bool,
    drained: bool,
    scratch: Scratch,
    replica: Replica,
    owner: Owner,
    owner_hash: OwnerHash,
    exchange: Exchange,
    /// The earliest of the decisions made here that found the ring to the control thread full, or that it asked for again.
    missed_since: Option<Time>,
    /// Room for the decisions of one call, and for the failures of one drain, kept to spare allocations.
    decisions: Vec<Decision>,
    failures: Vec<Failure>,
    evidence: Evidence,
    errands: VecDeque<Errand>,
    /// Who is to be told when everything has gone out.
    settling: Vec<u64>,
    commands: Consumer<Command>,
    events: Producer<Event>,
    bell: Arc<Bell>,
    control_bell: Arc<Bell>,
    announced: bool,
    listeners: Vec<(Service, OwnedFd)>,
    datagrams: Option<Handle>,
}

/// What a shard is made of.
pub struct Parts {
    pub index: usize,
    pub shards: usize,
    pub clock: Clock,
    pub policy: Arc<Policy>,
    pub documents: Arc<Documents>,
    /// What is known of earlier runs and other nodes, about the clients of all shards.
    pub remembered: Arc<[Learned]>,
    pub spread: Spread,
    pub connections_max: [usize; Service::COUNT],
    pub replica: Replica,
    pub owner: Owner,
    pub owner_hash: OwnerHash,
    pub tables: HashKey,
    pub exchange: Exchange,
    pub commands: Consumer<Command>,
    pub events: Producer<Event>,
    pub bell: Arc<Bell>,
    pub control_bell: Arc<Bell>,
}

impl Core {
    pub fn new(parts: Parts) -> Core {
        let mut core = Core {
            index: parts.index,
            shards: parts.shards,
            clock: parts.clock,
            now: parts.clock.now(),
            counters: Counters::default(),
            connections: Connections::default(),
            spread: parts.spread,
            arrivals: Vec::new(),
            draining: false,
            stopped: false,
            ready: false,
            listening: 0,
            connections_max: parts.connections_max,
            ticked: false,
            tick_at: Time::default(),
            in_turn: false,
            drained: false,
            scratch: parts.policy.matcher.scratch(),
            policy: parts.policy,
            documents: parts.documents,
            missed_since: None,
            replica: parts.replica,
            owner: parts.owner,
            owner_hash: parts.owner_hash,
            exchange: parts.exchange,
            decisions: Vec::new(),
            failures: Vec::new(),
            evidence: Evidence::new((EVIDENCE_BYTES / parts.shards).max(EVIDENCE_BYTES_MIN), parts.tables),
            errands: VecDeque::new(),
            settling: Vec::new(),
            commands: parts.commands,
            events: parts.events,
            bell: parts.bell,
            control_bell: parts.control_bell,
            announced: false,
            listeners: Vec::new(),
            datagrams: None,
        };
        core.replica.prepare_lengths(core.policy.rules.ipv4_prefix, core.policy.rules.ipv6_prefix);
        core.remember(&parts.remembered);
        core.announce(Event::Adopted(core.policy.number));
        core
    }

    /// Learns what was known before the start: the owner what concerns its clients, the replica everything. All shards do
    /// the same with the same list and at the same time, so that nothing of it needs to be sent, but for the bans that
    /// this owner has no room for: their ends go out with the first turn.
    fn remember(&mut self, remembered: &[Learned]) {
        let (policy, start) = (&self.policy, Time::START);
        let mut said = Vec::new();
        for learned in remembered {
            if policy.allow.covers(learned.client) {
                continue;
            }
            self.replica.learn(learned, start);
            if self.owner_hash.owner(learned.client, self.shards) == self.index {
                self.owner.learn(learned, start, &policy.rules, &policy.allow, &mut said);
                self.counters.learned += said.iter().filter(|decision| is_learned_ban(decision)).count() as u64;
                self.decisions.extend(said.drain(..).filter(|decision| decision.origin == Origin::Decided));
            }
        }
        // Whoever was forgotten may have come again.
        let owner = &self.owner;
        self.decisions.retain(|decision| !owner.has_banned(decision.client, start));
    }

    /// Begins a turn unless one is under way. True if it began.
    pub fn begin_turn(&mut self) -> bool {
        if self.in_turn {
            return false;
        }
        self.in_turn = true;
        self.bell.wake();
        self.now = self.clock.now();
        self.take_in();
        if self.now >= self.tick_at {
            self.tick_at = self.now.plus(TICK);
            self.ticked = true;
            self.tick();
        }
        true
    }

    /// Ends the turn: takes in what came meanwhile, and sends out what arose. True if something waits for room, and the
    /// turn should be repeated soon even if nothing happens.
    pub fn end_turn(&mut self) -> bool {
        self.take_in();
        self.go_on();
        let waiting = self.send_out();
        if !waiting {
            for ticket in std::mem::take(&mut self.settling) {
                self.announce(Event::Settled { ticket });
            }
        }
        self.retell();
        let idle = self.listening == 0 && self.connections.is_empty() && self.arrivals.is_empty() && !waiting;
        if self.draining && !self.drained && idle {
            self.drained = true;
            self.announce(Event::Drained);
        }
        if std::mem::take(&mut self.announced) {
            self.control_bell.ring();
        }
        self.in_turn = false;
        let (exchange, commands, errands) = (&self.exchange, &self.commands, &self.errands);
        self.bell.sleep(|| exchange.is_idle() && commands.is_empty() && (errands.is_empty() || waiting));
        waiting
    }

    /// Does the next step of what takes several turns, unless others are still busy with what arose from the last.
    fn go_on(&mut self) {
        if self.exchange.is_waiting() {
            return;
        }
        let next = match self.errands.pop_front() {
            None => return,
            Some(Errand::Survey { ticket, mut survey, from }) => {
                match self.owner.survey(&mut survey, from, SURVEYED_PER_TURN, self.now) {
                    Some(from) => Errand::Survey { ticket, survey, from },
                    None => return self.announce(Event::Surveyed { ticket, survey }),
                }
            }
            Some(Errand::Lift { ticket, within, from, lifted }) => {
                let places = (from, LIFTED_PER_TURN);
                let from = self.owner.lift_within(within, places, self.now, &mut self.decisions);
                let lifted = lifted + self.decisions.len() as u64;
                self.publish_decisions();
                match from {
                    Some(from) => Errand::Lift { ticket, within, from, lifted },
                    None => return self.announce(Event::Lifted { ticket, lifted }),
                }
            }
        };
        self.errands.push_back(next);
    }

    /// Sends out what arose for other shards, and wakes those that sleep. At the end of a turn, and before it after each
    /// batch of lines: a ban does not wait for the rest of a burst. True if something waits for room.
    pub fn send_out(&mut self) -> bool {
        let (owner, index, now, clock) = (&self.owner, self.index, self.now, &self.clock);
        let (snapshots, waiting) =
            self.exchange.flush(|| Box::new(Snapshot { owner: index, bans: owner.snapshot(now), made: clock.nanos() }));
        self.counters.snapshots += snapshots as u64;
        waiting
    }

    /// Says again what the control thread missed, once half of the ring to it is free: else it would soon miss more.
    fn retell(&mut self) {
        if self.events.slots() >= self.events.buffer().capacity() / 2
            && let Some(since) = self.missed_since.take()
        {
            self.announce(Event::Retold(self.owner.since(since).into()));
        }
    }

    fn take_in(&mut self) {
        while let Ok(command) = self.commands.pop() {
            self.obey(command);
        }
        if self.exchange.is_idle() {
            return;
        }
        // Counting a failure may push notes, so failures are dealt with once all notes are out of the rings.
        let mut failures = std::mem::take(&mut self.failures);
        let (replica, counters, clock, arrivals) =
            (&mut self.replica, &mut self.counters, &self.clock, &mut self.arrivals);
        let (owner_hash, shards) = (&self.owner_hash, self.shards);
        self.exchange.receive(NOTES_PER_DRAIN_MAX, |_, note| match note {
            Note::Failure(failure) => failures.push(failure),
            Note::Decision { decision, made } => {
                replica.apply(&decision);
                counters.applied += 1;
                counters.lag.record(clock.nanos().saturating_sub(made), 1);
            }
            Note::Snapshot(snapshot) => {
                replica.replace(|client| owner_hash.owner(client, shards) == snapshot.owner, &snapshot.bans);
                counters.applied += snapshot.bans.len() as u64;
                counters.lag.record(clock.nanos().saturating_sub(snapshot.made), 1);
            }
            Note::Handover(handover) => arrivals.push(*handover),
        });
        for failure in failures.drain(..) {
            // It may have been on its way while the allowlist changed.
            if self.policy.allow.covers(failure.client) {
                self.counters.allowed_matches += 1;
            } else {
                self.count(&failure);
            }
        }
        self.failures = failures;
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Adopt(policy) => {
                if !Arc::ptr_eq(&policy.matcher, &self.policy.matcher) {
                    self.scratch = policy.matcher.scratch();
                }
                self.replica.prepare_lengths(policy.rules.ipv4_prefix, policy.rules.ipv6_prefix);
                let allow = (!Arc::ptr_eq(&policy.allow, &self.policy.allow)).then_some(&*policy.allow);
                self.owner.adopt(&policy.rules, allow, self.now, &mut self.decisions);
                self.policy = policy;
                self.publish_decisions();
                let dismissed = self.connections.dismiss(Service::Syslog, |peer| self.policy.accepts_sender(peer));
                self.counters.senders_refused += dismissed;
                self.announce(Event::Adopted(self.policy.number));
            }
            Command::Ready => self.ready = true,
            Command::Learn(learned) => {
                let policy = &self.policy;
                for learned in &learned {
                    self.owner.learn(learned, self.now, &policy.rules, &policy.allow, &mut self.decisions);
                }
                self.publish_decisions();
                self.announce(Event::Learned);
            }
            Command::Order { ticket, client, order } => {
                let decision = self.carry_out(client, order);
                let ban = self.owner.known(client, self.now, &self.policy.rules).ban;
                self.announce(Event::Obeyed { ticket, decision, ban });
            }
            Command::LiftWithin { ticket, within } => {
                self.errands.push_back(Errand::Lift { ticket, within, from: 0, lifted: 0 });
            }
            Command::Survey { ticket, survey } => {
                self.errands.push_back(Errand::Survey { ticket, survey, from: 0 });
            }
            Command::Inspect { ticket, address } => {
                let knowledge = Box::new(self.inspect(address));
                self.announce(Event::Inspected { ticket, knowledge });
            }
            Command::Settle { ticket } => self.settling.push(ticket),
            Command::Retell(since) => self.missed(since),
            Command::Documents(documents) => self.documents = documents,
            Command::Report => {
                let report = Box::new(self.report());
                self.announce(Event::Report(report));
            }
            Command::Drain => self.drain(),
            Command::Stop => self.stopped = true,
        }
    }

    /// Does what an operator orders. What was decided about the client itself; what else came of it is announced.
    fn carry_out(&mut self, client: Network, order: Order) -> Option<Decision> {
        let (now, rules) = (self.now, &self.policy.rules);
        match order {
            Order::Ban(pattern, severity, length) => {
                self.owner.impose(client, (pattern, severity), length, now, rules, &mut self.decisions);
            }
            Order::Lift => drop(self.owner.lift(client, Lift::Unbanned, now, &mut self.decisions)),
        }
        let wanted = |decision: &Decision| {
            decision.client == client && !matches!(decision.act, Act::Lift(Lift::Expired | Lift::Evicted, _))
        };
        let at = self.decisions.iter().position(wanted);
        let decision = at.map(|at| self.decisions.remove(at));
        // A ban that ran out ends before the one that takes its place.
        self.publish_decisions();
        if let Some(decision) = decision {
            let made = self.clock.nanos();
            self.publish(&decision, made);
        }
        decision
    }

    fn inspect(&self, address: Address) -> Knowledge {
        let client = client_of(address, &self.policy.rules);
        let owns = |client: Network| self.owner_hash.owner(client, self.shards) == self.index;
        let known = |client: Network| self.owner.known(client, self.now, &self.policy.rules);
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let holding = (0..=longest).rev().filter_map(|len| Network::new(address, len));
        // What has bits beyond its length is cut to it.
        Knowledge {
            verdict: self.judge(address),
            client: owns(client).then(|| known(client)),
            bans: holding.filter(|network| owns(*network)).filter_map(|network| known(network).ban).collect(),
            evidence: self.evidence.of(client),
        }
    }

    /// Gives the control thread a connection, with what was read from it. If it is busy, the connection just closes.
    pub fn hand_over_to_control(&mut self, socket: Handle, peer: Option<Address>, bytes: Vec<u8>) {
        if self.events.slots() > ANSWERS_RESERVE
            && let Ok(socket) = socket.duplicate()
        {
            self.announce(Event::Visitor(Box::new(Visitor { socket, peer, bytes })));
        }
    }

    /// A listener for connections, so that those waiting in it can be taken when the shard stops listening.
    pub fn add_listener(&mut self, service: Service, listener: OwnedFd) {
        self.listening += 1;
        self.listeners.push((service, listener));
        if self.draining {
            self.stop_listening();
        }
    }

    /// The socket for datagrams, to be woken when the shard stops listening.
    pub fn add_datagrams(&mut self, socket: Handle) {
        self.listening += 1;
        self.datagrams = Some(socket);
        if self.draining {
            self.stop_listening();
        }
    }

    /// That socket has nothing more, and is about to be closed.
    pub fn end_datagrams(&mut self, socket: Handle) {
        self.counters.datagrams_dropped = socket.datagrams_dropped();
        self.datagrams = None;
        self.listening -= 1;
    }

    fn drain(&mut self) {
        self.draining = true;
        self.drained = false;
        self.stop_listening();
        self.connections.finish(self.now);
    }

    /// Takes the connections that wait to be accepted, which are served here, and then no more.
    fn stop_listening(&mut self) {
        for (service, listener) in std::mem::take(&mut self.listeners) {
            for _ in 0..WAITING_MAX {
                match accept(listener.as_fd()) {
                    Some(Ok((socket, peer))) if self.admits(service, peer) => {
                        self.spread.claim_at(service, self.index);
                        self.arrivals.push(Handover { socket, service, peer });
                    }
                    Some(Ok(_)) => {}
                    Some(Err(fault)) if is_passing(&fault) => {}
                    Some(Err(_)) | None => break,
                }
            }
            Handle::of(&listener).shutdown(rustix::net::Shutdown::Both);
        }
        if let Some(socket) = self.datagrams {
            socket.shutdown(rustix::net::Shutdown::Read);
        }
    }

    /// Whether this peer may use the service.
    fn admits(&mut self, service: Service, peer: Option<Address>) -> bool {
        let admitted = match service {
            Service::Syslog => peer.is_some_and(|peer| self.policy.accepts_sender(peer)),
            Service::Spoa | Service::Envoy | Service::Nginx => true,
        };
        self.counters.senders_refused += u64::from(!admitted);
        admitted
    }

    /// Gives an accepted connection to the shard with the fewest.
    pub fn place(&mut self, socket: OwnedFd, service: Service, peer: Option<Address>) {
        let at = service as usize;
        if !self.admits(service, peer) {
            return;
        }
        let Some(to) = self.spread.claim(service, self.index, self.connections_max[at]) else {
            self.counters.refused[at] += 1;
            return;
        };
        self.counters.accepted[at] += 1;
        let handover = Handover { socket, service, peer };
        if to == self.index {
            self.arrivals.push(handover);
            return;
        }
        match self.exchange.hand_over(to, Box::new(handover)) {
            Ok(()) => self.counters.handed_over[at] += 1,
            Err(handover) => {
                self.spread.release(service, to);
                self.spread.claim_at(service, self.index);
                self.arrivals.push(*handover);
            }
        }
    }

    /// Enters a connection into the books. One that comes while the shard drains is only finished.
    pub fn open(&mut self, handle: Handle, service: Service, peer: Option<Address>, deadline: Time) -> ConnectionId {
        if self.draining {
            handle.shutdown(rustix::net::Shutdown::Read);
        }
        self.connections.add(handle, service, peer, deadline)
    }

    /// Takes a connection off the books, before its socket is closed.
    pub fn close(&mut self, id: ConnectionId, service: Service) {
        self.connections.remove(id);
        self.spread.release(service, self.index);
    }

    /// Whether questions should come here.
    pub fn is_ready(&self) -> bool {
        self.ready && !self.draining
    }

    /// Whether failures wait for their owners, and no more lines should be taken in.
    pub fn is_congested(&self) -> bool {
        self.exchange.is_congested()
    }

    /// Whether it matters who sends log lines over UDP.
    pub fn wants_senders(&self) -> bool {
        !self.policy.senders.is_empty()
    }

    /// One datagram.
    pub fn datagram(&mut self, datagram: &system::Datagram<'_>) {
        self.counters.datagrams += 1;
        if !self.policy.senders.is_empty() && !datagram.sender.is_some_and(|sender| self.policy.accepts_sender(sender))
        {
            self.counters.senders_refused += 1;
        } else if datagram.cut {
            self.counters.datagrams_too_long += 1;
        } else {
            self.record(datagram.bytes);
        }
    }

    /// One syslog record, as it was framed.
    pub fn record(&mut self, bytes: &[u8]) {
        let record = match syslog::decode(bytes) {
            Ok(record) => record,
            Err(why) => return self.counters.malformed(why),
        };
        match self.policy.matcher.find(&mut self.scratch, record.program, record.pid, record.message) {
            Found::NotWatched => self.counters.not_watched += 1,
            Found::Nothing => self.counters.unmatched += 1,
            Found::NoAddress(_) => self.counters.no_address += 1,
            Found::Match(found) => {
                self.counters.matches.add(found.pattern);
                if self.policy.allow.contains(found.address) {
                    self.counters.allowed_matches += 1;
                    return;
                }
                let Match { pattern, severity, address, failures: count, login } = found;
                let client = client_of(address, &self.policy.rules);
                let failure = Failure { client, count, pattern, severity, login };
                let was_banned = match self.owner_hash.owner(client, self.shards) {
                    owner if owner == self.index => self.count(&failure) == Outcome::AlreadyBanned,
                    owner => {
                        self.exchange.fail(owner, failure);
                        self.replica.has_banned(client, self.now)
                    }
                };
                // Of one that is banned, the lines stay that led to it.
                if !was_banned {
                    self.evidence.keep(client, pattern, record.program, record.message, self.now);
                }
            }
        }
    }

    /// Counts a failure of a client that this shard owns.
    fn count(&mut self, failure: &Failure) -> Outcome {
        let outcome = self.owner.fail(failure, self.now, &self.policy.rules, &mut self.decisions);
        self.counters.outcome(outcome);
        if !self.decisions.is_empty() {
            self.publish_decisions();
        }
        outcome
    }

    /// Lets time pass for the owner and the connections.
    fn tick(&mut self) {
        self.owner.tick(self.now, &self.policy.rules, &self.policy.allow, &mut self.decisions);
        self.publish_decisions();
        for (total, missed) in self.counters.timed_out.iter_mut().zip(self.connections.sweep(self.now)) {
            *total += missed;
        }
    }

    /// Says what was decided: to this replica, to all others, and to the control thread.
    fn publish_decisions(&mut self) {
        let mut decisions = std::mem::take(&mut self.decisions);
        let made = self.clock.nanos();
        for decision in decisions.drain(..) {
            self.publish(&decision, made);
            self.announce(Event::Decided(decision));
        }
        // After a storm, its memory is given back.
        self.decisions = if decisions.capacity() > DECISIONS_KEPT { Vec::new() } else { decisions };
    }

    /// Says one decision to this replica and to all others.
    fn publish(&mut self, decision: &Decision, made: u64) {
        self.replica.apply(decision);
        match (decision.act, decision.origin) {
            (Act::Ban(ban), Origin::Decided) => self.counters.bans.add(ban.pattern),
            (Act::Ban(_), Origin::Learned) => self.counters.learned += 1,
            (Act::Lift(..), _) => {}
        }
        self.counters.fell_behind += self.exchange.decide(*decision, made) as u64;
    }

    fn announce(&mut self, event: Event) {
        self.announced = true;
        let decision = match event {
            Event::Decided(decision) => Some(decision),
            _ => None,
        };
        let has_room = decision.is_none() || self.events.slots() > EVENTS_RESERVE;
        if !has_room || self.events.push(event).is_err() {
            self.counters.events_dropped += 1;
            if let Some(decision) = decision.filter(|decision| decision.origin == Origin::Decided) {
                self.missed(decision.at);
            }
        }
    }

    fn missed(&mut self, since: Time) {
        self.missed_since = Some(self.missed_since.map_or(since, |earlier| earlier.min(since)));
    }

    /// The verdict about an address.
    #[inline]
    pub fn judge(&self, address: Address) -> Verdict {
        judge(&self.policy, &self.replica, address, self.now)
    }

    fn report(&self) -> Report {
        let mut counters = self.counters.clone();
        // Asking the kernel for it with every batch would cost as much as a datagram.
        if let Some(socket) = self.datagrams {
            counters.datagrams_dropped = socket.datagrams_dropped();
        }
        Report {
            counters,
            counting: self.owner.counting(),
            remembered: self.owner.remembered(),
            banned: self.owner.banned(),
            replica: self.replica.len(),
            banned_by: self.owner.banned_by().clone(),
            evicted: self.owner.evicted(),
            backlog: self.exchange.backlog(),
            connections: Service::ALL.map(|service| self.spread.count(service, self.index)),
            matcher_cache_bytes: self.scratch.memory_usage(),
            policy: self.policy.number,
        }
    }
}

fn is_learned_ban(decision: &Decision) -> bool {
    matches!(decision, Decision { act: Act::Ban(_), origin: Origin::Learned, .. })
}

#[cfg(test)]
mod tests {
    use super::super::Keys;
    use super::super::alone::Alone;
    use super::*;
    use crate::engine::address::Network;
    use crate::engine::ban::{Ban, Lift, PatternId, Severity};
    use crate::engine::escalation::rules;
    use crate::engine::matcher::Matcher;
    use crate::engine::policy::QuestionRules;
    use crate::engine::table::{NetworkTable, hash_key};

    fn is_banned(shard: &Alone, n: u32) -> bool {
        shard.is_banned(Address::from(std::net::Ipv4Addr::from_bits(n)))
    }

    fn policy(number: u64, tracked_max: usize, allow: &[u32]) -> Arc<Policy> {
        let nobody = || NetworkTable::new(hash_key(1));
        let mut allowed = nobody();
        for n in allow {
            allowed.insert(client(*n), ());
        }
        Arc::new(Policy {
            number,
            rules: crate::engine::escalation::BanRules { tracked_max, ..rules() },
            matcher: Arc::new(Matcher::new(Vec::new())),
            allow: Arc::new(allowed),
            block: Arc::new(nobody()),
            senders: Arc::new(nobody()),
            names: [].into(),
            questions: QuestionRules {
                operators: true,
                nginx_trusted_proxies: nobody(),
                envoy_trusted_proxies: nobody(),
                deny_unknown: false,
                json: false,
            },
        })
    }

    fn shards(count: usize, events: usize, policy: &Arc<Policy>, remembered: &[Learned]) -> Vec<Alone> {
        let keys = Keys { tables: hash_key(1), owners: hash_key(2) };
        Alone::all(count, events, &keys, policy, &remembered.into()).unwrap()
    }

    fn client(n: u32) -> Network {
        Network::host(std::net::Ipv4Addr::from_bits(n).into())
    }

    fn learned(n: u32, lifted: Option<Lift>) -> Learned {
        let (at, pattern) = (Time::START.minus(Duration::from_secs(60)), PatternId::new(0).unwrap());
        let until = at.plus(Duration::from_secs(3600));
        let ban = Ban { until, offences: 1, failures: 5, pattern, severity: Severity::new(1).unwrap() };
        Learned { client: client(n), at, ban, lifted: lifted.map(|why| (Time::START, why)) }
    }

    fn fails(n: u32) -> Failure {
        let Ban { pattern, severity, .. } = learned(n, None).ban;
        Failure { client: client(n), count: 5, pattern, severity, login: None }
    }

    #[test]
    fn what_is_remembered_is_in_force_on_every_shard_before_its_first_turn() {
        let mut remembered: Vec<Learned> = (0..1000).map(|n| learned(n, None)).collect();
        remembered.extend([learned(1, Some(Lift::Unbanned)), learned(2, Some(Lift::Unbanned)), learned(2, None)]);
        let over = Learned { ban: Ban { until: Time::START, ..remembered[0].ban }, ..learned(2000, None) };
        remembered.push(over);
        let mut shards = shards(2, 4096, &policy(1, 1000, &[3]), &remembered);
        let in_force = |shard: &Alone| -> Vec<u32> { (0..2001).filter(|n| is_banned(shard, *n)).collect() };
        let want: Vec<u32> = (0..1000).filter(|n| *n != 1 && *n != 3).collect();
        for shard in &mut shards {
            assert_eq!(in_force(shard), want);
            let events = shard.turn();
            assert!(matches!(events[..], [Event::Adopted(1)]), "{events:?}");
        }
        let reports: Vec<Report> = shards.iter().map(|shard| shard.core.report()).collect();
        let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
        // One was banned twice, one is history.
        assert_eq!((sum(|r| r.banned as u64), sum(|r| r.remembered as u64)), (998, 1000));
        assert_eq!((sum(|r| r.counters.learned), sum(|r| r.counters.bans.counts().iter().sum())), (1000, 0));
        assert_eq!(sum(|r| r.replica as u64), 2 * 998);
    }

    #[test]
    fn what_there_is_no_room_for_is_lifted_everywhere_with_the_first_turn() {
        let mut remembered: Vec<Learned> = (0..1000).map(|n| learned(n, None)).collect();
        // The first to be forgotten come again.
        remembered.extend((0..10).map(|n| learned(n, None)));
        let mut shards = shards(2, 4096, &policy(1, 100, &[]), &remembered);
        let mut said = 0;
        for shard in &mut shards {
            for event in shard.turn() {
                let Event::Decided(decision) = event else { continue };
                assert!(matches!(decision.act, Act::Lift(Lift::Evicted, _)), "{decision:?}");
                said += 1;
            }
        }
        assert!(said >= 800);
        for shard in &mut shards {
            shard.turn();
        }
        let banned = |shard: &Alone| -> Vec<u32> { (0..1000).filter(|n| is_banned(shard, *n)).collect() };
        assert_eq!(banned(&shards[0]), banned(&shards[1]));
        assert_eq!(banned(&shards[0]).len(), 200);
        assert!((0..10).all(|n| is_banned(&shards[0], n)));
    }

    #[test]
    fn learned_bans_reach_every_shard_and_are_acknowledged_after_they_did() {
        let mut shards = shards(2, 4096, &policy(1, 1000, &[]), &[]);
        shards.iter_mut().for_each(|shard| drop(shard.turn()));
        let hash = OwnerHash::new(hash_key(2));
        let part: Box<[Learned]> =
            (0..100).filter(|n| hash.owner(client(*n), 2) == 0).map(|n| learned(n, None)).collect();
        let count = part.len();
        assert!(shards[0].tell(Command::Learn(part)));
        let events = shards[0].turn();
        assert_eq!(events.len(), count + 1);
        assert!(matches!(events.last(), Some(Event::Learned)));
        let all = events[..count]
            .iter()
            .all(|event| matches!(event, Event::Decided(decision) if decision.origin == Origin::Learned));
        assert!(all, "{events:?}");
        shards[1].turn();
        let banned = |shard: &Alone| (0..100).filter(|n| is_banned(shard, *n)).count();
        assert_eq!((banned(&shards[0]), banned(&shards[1])), (count, count));
        let counters = &shards[0].core.counters;
        assert_eq!((counters.learned, counters.bans.counts().len()), (count as u64, 0));
    }

    /// Gives every shard its turns until nothing is announced any more.
    fn turns(shards: &mut [Alone]) -> Vec<Event> {
        let mut said = Vec::new();
        let mut quiet = 0;
        while quiet < 3 {
            let before = said.len();
            shards.iter_mut().for_each(|shard| said.extend(shard.turn()));
            quiet = if said.len() == before && shards.iter().all(|shard| shard.core.errands.is_empty()) {
                quiet + 1
            } else {
                0
            };
        }
        said
    }

    #[test]
    fn an_order_is_in_force_everywhere_when_all_have_settled_twice() {
        let mut shards = shards(3, 4096, &policy(1, 1000, &[]), &[]);
        turns(&mut shards);
        let (pattern, severity) = (PatternId::new(0).unwrap(), Severity::new(6).unwrap());
        let length = Some(Duration::from_secs(60));
        for n in 0..50 {
            for (order, banned) in [(Order::Ban(pattern, severity, length), true), (Order::Lift, false)] {
                let owner = shards[0].core.owner_hash.owner(client(n), 3);
                let order = Command::Order { ticket: 7, client: client(n), order };
                assert!(shards[owner].tell(order));
                let said = shards[owner].turn();
                assert!(
                    matches!(said[..], [Event::Obeyed { ticket: 7, decision: Some(_), ban }] if ban.is_some() == banned)
                );
                for round in 0..2 {
                    for shard in &mut shards {
                        assert!(shard.tell(Command::Settle { ticket: round }));
                        let said = shard.turn();
                        assert!(matches!(said[..], [Event::Settled { .. }]), "{said:?}");
                    }
                }
                assert!(shards.iter().all(|shard| is_banned(shard, n) == banned));
            }
        }
    }

    #[test]
    fn all_bans_are_surveyed_inspected_and_lifted() {
        let mut shards = shards(2, 64 << 10, &policy(1, 100_000, &[]), &[]);
        turns(&mut shards);
        for n in 0..20_000u32 {
            let owner = shards[0].core.owner_hash.owner(client(n), 2);
            assert_eq!(shards[owner].core.count(&fails(n)), Outcome::Banned);
            if n % 500 == 0 {
                turns(&mut shards);
            }
        }
        turns(&mut shards);
        let question = crate::engine::survey::Question { limit: 10, ..Default::default() };
        for shard in &mut shards {
            let survey = Box::new(Survey::new(question.clone()));
            assert!(shard.tell(Command::Survey { ticket: 1, survey }));
            let address = Address::from(std::net::Ipv4Addr::from_bits(5));
            assert!(shard.tell(Command::Inspect { ticket: 2, address }));
        }
        let (mut total, mut owners, mut bans) = (0, 0, 0);
        for event in turns(&mut shards) {
            match event {
                Event::Surveyed { ticket: 1, survey } => total += survey.finish().total,
                Event::Inspected { ticket: 2, knowledge } => {
                    assert!(knowledge.verdict.is_denial());
                    owners += usize::from(knowledge.client.is_some());
                    bans += knowledge.bans.len();
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((total, owners, bans), (20_000, 1, 1));
        for shard in &mut shards {
            assert!(shard.tell(Command::LiftWithin { ticket: 3, within: None }));
        }
        let mut lifted = 0;
        for event in turns(&mut shards) {
            match event {
                Event::Lifted { ticket: 3, lifted: more } => lifted += more,
                Event::Decided(Decision { act: Act::Lift(Lift::Unbanned, _), .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(lifted, 20_000);
        assert!((0..20_000).all(|n| shards.iter().all(|shard| !is_banned(shard, n))));
    }

    #[test]
    fn decisions_that_found_the_ring_full_are_said_again_once_there_is_room() {
        let mut shard = shards(1, 4 * EVENTS_RESERVE, &policy(1, 10_000, &[]), &[]).remove(0);
        shard.turn();
        let told = |events: &[Event]| -> Vec<Network> {
            let decided = events.iter().filter_map(|event| match event {
                Event::Decided(decision) => Some(decision.client),
                _ => None,
            });
            decided.collect()
        };
        let retold = |events: Vec<Event>| {
            events.into_iter().find_map(|event| match event {
                Event::Retold(decisions) => Some(decisions),
                _ => None,
            })
        };
        shard.core.begin_turn();
        (0..3000).for_each(|n| assert_eq!(shard.core.count(&fails(n)), Outcome::Banned));
        shard.core.end_turn();
        // Nobody takes what was announced: no room yet.
        shard.core.begin_turn();
        shard.core.end_turn();
        let events = shard.events();
        assert_eq!(told(&events).len(), 3 * EVENTS_RESERVE);
        assert!(retold(events).is_none());
        let again = retold(shard.turn()).expect("what was missed");
        assert!((0..3000).all(|n| again.iter().any(|decision| decision.client == client(n))));
        assert!(again.iter().all(|decision| decision.origin == Origin::Decided));
        assert_eq!(shard.core.counters.events_dropped, 3000 - 3 * EVENTS_RESERVE as u64);
        assert!(shard.turn().is_empty(), "once is enough");

        assert!(shard.tell(Command::Retell(Time::START)));
        assert_eq!(retold(shard.turn()).expect("what was asked for").len(), 3000);
    }
}

//! A shard without a thread, an event loop or sockets: for tests, and for programs that count allocations and instructions
//! of the very code that a shard runs.
//!
//! Nobody wakes it and nothing comes by itself: whoever has it gives it turns, hands it records and proxies' bytes, and takes
//! what it announces.

use super::clock::Clock;
use super::conversation::{Protocol, Taken};
use super::core::{Command, Core, Documents, Event, Parts};
use super::counters::Counters;
use super::envoy::Envoy;
use super::exchange::{Bell, Exchange};
use super::handover::Spread;
use super::listen::Service;
use super::nginx::Nginx;
use super::spoa::Spoa;
use super::{EVENTS, Keys};
use crate::engine::address::Address;
use crate::engine::ban::{Learned, OwnerHash};
use crate::engine::owner::Owner;
use crate::engine::policy::Policy;
use crate::engine::replica::Replica;
use crate::engine::time::Time;
use rtrb::{Consumer, Producer, RingBuffer};
use std::io;
use std::sync::Arc;

/// Commands that may wait for a turn.
const COMMANDS: usize = 8;

/// One shard, and the control thread's ends of its rings.
#[derive(Debug)]
pub struct Alone {
    pub(super) core: Core,
    commands: Producer<Command>,
    events: Consumer<Event>,
}

impl Alone {
    /// The only shard of a process, which has learned what is `remembered`.
    ///
    /// # Errors
    ///
    /// If the system gives no descriptors.
    pub fn new(keys: &Keys, policy: &Arc<Policy>, remembered: &Arc<[Learned]>) -> io::Result<Alone> {
        let mut shards = Alone::all(1, EVENTS, keys, policy, remembered)?;
        shards.pop().ok_or_else(|| io::Error::other("no shard"))
    }

    /// All shards of a process, each with room for so many announcements.
    pub(super) fn all(
        count: usize,
        events: usize,
        keys: &Keys,
        policy: &Arc<Policy>,
        remembered: &Arc<[Learned]>,
    ) -> io::Result<Vec<Alone>> {
        let bell = || Bell::new().map(Arc::new);
        let bells = (0..count).map(|_| bell()).collect::<io::Result<Vec<_>>>()?;
        let control_bell = bell()?;
        let documents = Documents { config_source: b"{}".as_slice().into(), database_status: b"{}".as_slice().into() };
        let (clock, spread, documents) = (Clock::start(), Spread::new(count), Arc::new(documents));
        let parts = Exchange::all(&bells).into_iter().zip(&bells).enumerate();
        let shards = parts.map(|(index, (exchange, bell))| {
            let (commands, command_ring) = RingBuffer::new(COMMANDS);
            let (event_ring, events) = RingBuffer::new(events);
            let core = Core::new(Parts {
                index,
                shards: count,
                clock,
                policy: Arc::clone(policy),
                documents: Arc::clone(&documents),
                remembered: Arc::clone(remembered),
                spread: spread.clone(),
                connections_max: [0; Service::COUNT],
                replica: Replica::new(keys.tables.clone()),
                owner: Owner::new(index as u16, policy.rules.tracked_max, keys.tables.clone()),
                owner_hash: OwnerHash::new(keys.owners.clone()),
                tables: keys.tables.clone(),
                exchange,
                commands: command_ring,
                events: event_ring,
                bell: Arc::clone(bell),
                control_bell: Arc::clone(&control_bell),
            });
            Alone { core, commands, events }
        });
        Ok(shards.collect())
    }

    /// What the control thread would tell it, from its next turn on. False if too much waits for that.
    pub fn tell(&mut self, command: Command) -> bool {
        self.commands.push(command).is_ok()
    }

    /// A turn in which nothing else happens, and what was announced in it and before.
    pub fn turn(&mut self) -> Vec<Event> {
        self.core.begin_turn();
        self.core.end_turn();
        self.events()
    }

    /// What was announced.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.pop().ok()).collect()
    }

    /// From now until the next turn it is that late.
    pub fn set_now(&mut self, now: Time) {
        self.core.now = now;
    }

    /// One syslog record.
    pub fn record(&mut self, bytes: &[u8]) {
        self.core.record(bytes);
    }

    /// What a proxy sent and has not been taken yet: takes what is complete, and appends the answers to `output`. How many
    /// bytes were taken.
    pub fn answer(&mut self, proxy: &mut Proxy, input: &[u8], output: &mut Vec<u8>) -> usize {
        let core = &mut self.core;
        let Taken { consumed, .. } = match &mut proxy.0 {
            Speaker::Haproxy(spoa) => spoa.take(core, None, input, output),
            Speaker::Envoy(envoy) => envoy.take(core, None, input, output),
            Speaker::Nginx(nginx) => nginx.take(core, None, input, output),
        };
        consumed
    }

    pub fn is_banned(&self, address: Address) -> bool {
        self.core.judge(address).is_denial()
    }

    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }
}

/// A proxy's connection, without a socket.
pub struct Proxy(Speaker);

enum Speaker {
    Haproxy(Spoa),
    Envoy(Box<Envoy>),
    Nginx(Nginx),
}

impl Proxy {
    pub fn haproxy() -> Proxy {
        Proxy(Speaker::Haproxy(Spoa::default()))
    }

    pub fn envoy() -> Proxy {
        Proxy(Speaker::Envoy(Box::new(Envoy::new())))
    }

    pub fn nginx() -> Proxy {
        Proxy(Speaker::Nginx(Nginx::new(env!("CARGO_PKG_VERSION"))))
    }
}

//! The connections of one shard, and until when each must have come to the point.
//!
//! A timer for every read would cost more than most reads. Instead each connection has a deadline in a table, which
//! its own code moves, and a sweep a few times a second shuts down those that missed theirs: their pending read or
//! write ends as if the peer had gone. A deadline moves when a request is complete, not with every byte, so a peer
//! that dribbles gains nothing. Where a protocol has last words, only the reading side is shut down at first, and a
//! moment is left to say them. Where it ends by agreement, the connection's task is woken to ask for it.

use super::listen::Service;
use super::system::Handle;
use crate::engine::address::Address;
use crate::engine::time::Time;
use rustix::net::Shutdown;
use std::task::Waker;
use std::time::Duration;

/// How long last words may take, and an agreement to part.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId(usize);

#[derive(Debug)]
struct Connection {
    handle: Handle,
    service: Service,
    peer: Option<Address>,
    deadline: Time,
    /// It has its last deadline: it missed one, or everything ends.
    is_ending: bool,
    /// Wakes its task when it is to end by agreement.
    waker: Option<Waker>,
}

/// Whether the protocol has a way to say that the connection ends: DISCONNECT, GOAWAY.
fn has_last_words(service: Service) -> bool {
    match service {
        Service::Spoa | Service::Envoy => true,
        Service::Syslog | Service::Nginx => false,
    }
}

/// All connections of one shard.
#[derive(Debug, Default)]
pub struct Connections {
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Connections {
    /// Adds a connection. It must be removed before its socket is closed.
    pub fn add(&mut self, handle: Handle, service: Service, peer: Option<Address>, deadline: Time) -> ConnectionId {
        let connection = Some(Connection { handle, service, peer, deadline, is_ending: false, waker: None });
        match self.free.pop() {
            Some(at) => {
                self.places[at] = connection;
                ConnectionId(at)
            }
            None => {
                self.places.push(connection);
                ConnectionId(self.places.len() - 1)
            }
        }
    }

    pub fn remove(&mut self, id: ConnectionId) {
        if let Some(place) = self.places.get_mut(id.0)
            && place.take().is_some()
        {
            self.free.push(id.0);
        }
    }

    /// From now on the connection has until `deadline`, unless it has its last one.
    pub fn set_deadline(&mut self, id: ConnectionId, deadline: Time) {
        if let Some(Some(connection)) = self.places.get_mut(id.0)
            && !connection.is_ending
        {
            connection.deadline = deadline;
        }
    }

    /// When everything is to be finished, the connection's task is woken, and has a moment to part by agreement.
    pub fn set_waker(&mut self, id: ConnectionId, waker: Waker) {
        if let Some(Some(connection)) = self.places.get_mut(id.0) {
            connection.waker = Some(waker);
        }
    }

    /// Whether the connection has its last deadline: it missed one, or everything ends.
    pub fn is_ending(&self, id: ConnectionId) -> bool {
        matches!(self.places.get(id.0), Some(Some(connection)) if connection.is_ending)
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shuts down all whose deadline has passed. Returns how many, by service.
    pub fn sweep(&mut self, now: Time) -> [u64; Service::COUNT] {
        let mut missed = [0; Service::COUNT];
        for connection in self.places.iter_mut().flatten().filter(|connection| connection.deadline <= now) {
            let first = !std::mem::replace(&mut connection.is_ending, true);
            missed[connection.service as usize] += u64::from(first);
            if first && has_last_words(connection.service) {
                connection.handle.shutdown(Shutdown::Read);
                connection.deadline = now.plus(LAST_WORDS);
            } else {
                connection.handle.shutdown(Shutdown::Both);
                connection.deadline = Time::MAX;
            }
        }
        missed
    }

    /// Shuts down the connections of a service whose peers are not welcome any more. Returns how many.
    pub fn dismiss(&self, service: Service, welcome: impl Fn(Address) -> bool) -> u64 {
        let of_service = self.places.iter().flatten().filter(|connection| connection.service == service);
        let unwelcome = of_service.filter(|connection| !connection.peer.is_some_and(&welcome));
        unwelcome.map(|connection| connection.handle.shutdown(Shutdown::Both)).count() as u64
    }

    /// Ends all. Of most the reading side is shut down: each still handles what it has received, and then finds the end.
    /// What comes later is received all the same, so those that would go on answering it have a moment only.
    pub fn finish(&mut self, now: Time) {
        for connection in self.places.iter_mut().flatten() {
            if has_last_words(connection.service) {
                connection.is_ending = true;
                connection.deadline = connection.deadline.min(now.plus(LAST_WORDS));
            }
            match connection.waker.take() {
                None => connection.handle.shutdown(Shutdown::Read),
                Some(waker) => waker.wake(),
            }
        }
    }
}

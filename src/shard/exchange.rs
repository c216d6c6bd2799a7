//! How shards talk: a bounded ring from each to each, and a bell for those that sleep.
//!
//! Every pair has its own ring with one writer and one reader (`rtrb`), so nothing is locked and nobody waits. A shard
//! drains its rings at every turn; one that sleeps is woken by its bell (an eventfd), once, by whoever finds it
//! asleep. Notes of one turn are pushed first and the bell rung after: a batch costs one wake-up.
//!
//! **A full ring.** Failures stay in the sender's backlog, and the sender stops taking in log lines until it is empty
//! again: TCP senders are held back, UDP waits in the kernel's buffer. A quarter of each ring is kept for decisions,
//! so that a flood of failures does not delay bans. If even that is full, the reader's replica is behind: it gets no
//! more single decisions, but one snapshot of all the writer's bans as soon as there is room.

use super::handover::Handover;
use crate::engine::ban::{Decision, Failure};
use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Notes that all rings towards one shard hold together. About 5 MiB a shard, however many shards there are.
const INBOX_NOTES: usize = 64 << 10;

/// Fewest and most notes in one ring.
const RING_NOTES: (usize, usize) = (512, 8 << 10);

/// Notes in a ring between two of so many shards.
pub fn notes(shards: usize) -> usize {
    (INBOX_NOTES / shards.max(1)).clamp(RING_NOTES.0, RING_NOTES.1)
}

/// What one shard tells another.
#[derive(Debug)]
pub enum Note {
    /// Count this: you own the client.
    Failure(Failure),
    /// Apply this to your replica. `made` is when it was decided, in the clock's nanoseconds.
    Decision { decision: Decision, made: u64 },
    /// Your replica missed decisions of mine: these are all my bans.
    Snapshot(Box<Snapshot>),
    /// Serve this connection: you have the fewest.
    Handover(Box<Handover>),
}

#[derive(Debug)]
pub struct Snapshot {
    /// The shard whose bans these are.
    pub owner: usize,
    pub bans: Vec<Decision>,
    pub made: u64,
}

/// Wakes a shard, or the control thread, if it sleeps.
#[derive(Debug)]
pub struct Bell {
    /// On its own cache line: it is written at every sleep and read by all others.
    asleep: Aligned<AtomicBool>,
    eventfd: OwnedFd,
}

#[derive(Debug)]
#[repr(align(128))]
struct Aligned<T>(T);

impl Bell {
    /// # Errors
    ///
    /// If no eventfd can be made: too many open files.
    pub fn new() -> io::Result<Bell> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { asleep: Aligned(AtomicBool::new(false)), eventfd })
    }

    /// Wakes the owner if it sleeps. Called after something was pushed to it.
    pub fn ring(&self) {
        // Pairs with the fence in `sleep`: either the owner sees what was pushed, or we see that it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.0.load(Ordering::Relaxed) && self.asleep.0.swap(false, Ordering::AcqRel) {
            self.strike();
        }
    }

    /// Wakes the owner at its next wait, asleep or not.
    pub fn strike(&self) {
        // It can only fail when the counter is full, and then the owner is woken already.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// The owner is about to sleep if `is_idle` still holds; if it does not, the bell is struck, so that the coming wait
    /// ends at once.
    pub fn sleep(&self, is_idle: impl FnOnce() -> bool) {
        self.asleep.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !is_idle() {
            self.wake();
            self.strike();
        }
    }

    /// The owner is awake: ringing would be a waste.
    pub fn wake(&self) {
        self.asleep.0.store(false, Ordering::Relaxed);
    }

    /// Silences the bell after it woke its owner.
    pub fn silence(&self) {
        let _ = rustix::io::read(&self.eventfd, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

/// The way to one other shard.
#[derive(Debug)]
struct Outgoing {
    ring: Producer<Note>,
    bell: Arc<Bell>,
    /// Failures that found the ring full, oldest first.
    backlog: VecDeque<Failure>,
    /// It missed decisions; a snapshot must follow.
    lagging: bool,
    /// Something was pushed in this turn.
    pushed: bool,
    /// Slots that failures leave to decisions.
    reserve: usize,
}

/// One shard's ends of all rings.
#[derive(Debug)]
pub struct Exchange {
    /// By shard; nothing at its own place.
    outgoing: Vec<Option<Outgoing>>,
    incoming: Vec<Option<Consumer<Note>>>,
}

impl Exchange {
    /// The exchanges of shards with these bells, in their order.
    pub fn all(bells: &[Arc<Bell>]) -> Vec<Exchange> {
        Exchange::with_capacity(bells, notes(bells.len()))
    }

    fn with_capacity(bells: &[Arc<Bell>], notes: usize) -> Vec<Exchange> {
        let shards = bells.len();
        let blank = || Exchange {
            outgoing: (0..shards).map(|_| None).collect(),
            incoming: (0..shards).map(|_| None).collect(),
        };
        let mut all: Vec<Exchange> = (0..shards).map(|_| blank()).collect();
        for from in 0..shards {
            for to in (0..shards).filter(|to| *to != from) {
                let (ring, consumer) = RingBuffer::new(notes);
                all[from].outgoing[to] = Some(Outgoing {
                    ring,
                    bell: Arc::clone(&bells[to]),
                    backlog: VecDeque::new(),
                    lagging: false,
                    pushed: false,
                    reserve: notes / 4,
                });
                all[to].incoming[from] = Some(consumer);
            }
        }
        all
    }

    /// Sends a failure to its owner, another shard than this one.
    pub fn fail(&mut self, owner: usize, failure: Failure) {
        let Some(Some(peer)) = self.outgoing.get_mut(owner) else { return };
        if peer.backlog.is_empty() && peer.ring.slots() > peer.reserve {
            peer.pushed = true;
            if peer.ring.push(Note::Failure(failure)).is_ok() {
                return;
            }
        }
        peer.backlog.push_back(failure);
    }

    /// Sends a decision to every other shard. Returns how many fell behind by it.
    pub fn decide(&mut self, decision: Decision, made: u64) -> usize {
        let mut fell_behind = 0;
        for peer in self.outgoing.iter_mut().flatten().filter(|peer| !peer.lagging) {
            peer.pushed = true;
            if peer.ring.push(Note::Decision { decision, made }).is_err() {
                peer.lagging = true;
                fell_behind += 1;
            }
        }
        fell_behind
    }

    /// Hands a connection to another shard; gives it back if its ring is full.
    pub fn hand_over(&mut self, to: usize, handover: Box<Handover>) -> Result<(), Box<Handover>> {
        let Some(Some(peer)) = self.outgoing.get_mut(to) else { return Err(handover) };
        if peer.ring.slots() <= peer.reserve {
            return Err(handover);
        }
        peer.pushed = true;
        peer.ring.push(Note::Handover(handover)).map_err(|rtrb::PushError::Full(note)| match note {
            Note::Handover(handover) => handover,
            _ => unreachable!("a ring gives back what was pushed"),
        })
    }

    /// Whether failures wait for room: time to stop taking in lines.
    pub fn is_congested(&self) -> bool {
        self.outgoing.iter().flatten().any(|peer| !peer.backlog.is_empty())
    }

    /// Whether anything waits for room: failures, or a replica that is behind.
    pub fn is_waiting(&self) -> bool {
        self.outgoing.iter().flatten().any(|peer| peer.lagging || !peer.backlog.is_empty())
    }

    /// Failures that wait for room.
    pub fn backlog(&self) -> usize {
        self.outgoing.iter().flatten().map(|peer| peer.backlog.len()).sum()
    }

    /// Moves what waits, and wakes those who got something. `snapshot` makes this shard's
    /// snapshot for a replica that fell behind. Returns how many snapshots were sent, and whether something still waits.
    pub fn flush(&mut self, mut snapshot: impl FnMut() -> Box<Snapshot>) -> (usize, bool) {
        let mut snapshots = 0;
        let mut waiting = false;
        for peer in self.outgoing.iter_mut().flatten() {
            while !peer.backlog.is_empty() && peer.ring.slots() > peer.reserve {
                let Some(failure) = peer.backlog.pop_front() else { break };
                peer.pushed = true;
                if peer.ring.push(Note::Failure(failure)).is_err() {
                    peer.backlog.push_front(failure);
                    break;
                }
            }
            // Half the ring free, or the next burst would need the next snapshot at once.
            if peer.lagging && peer.ring.slots() > 2 * peer.reserve {
                peer.pushed = true;
                if peer.ring.push(Note::Snapshot(snapshot())).is_ok() {
                    peer.lagging = false;
                    snapshots += 1;
                }
            }
            if std::mem::take(&mut peer.pushed) {
                peer.bell.ring();
            }
            waiting |= peer.lagging || !peer.backlog.is_empty();
        }
        (snapshots, waiting)
    }

    /// Takes what has arrived, ring by ring, at most `max` notes. Returns how many.
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(usize, Note)) -> usize {
        let mut taken = 0;
        for (from, ring) in self.incoming.iter_mut().enumerate() {
            let Some(ring) = ring else { continue };
            let ready = ring.slots().min(max - taken);
            let Ok(chunk) = ring.read_chunk(ready) else { continue };
            for note in chunk {
                take(from, note);
            }
            taken += ready;
        }
        taken
    }

    /// Whether nothing has arrived.
    pub fn is_idle(&self) -> bool {
        self.incoming.iter().flatten().all(|ring| ring.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::address::Network;
    use crate::engine::ban::{Act, Ban, Lift, Origin, PatternId, Severity};
    use crate::engine::time::Time;

    fn pair(notes: usize) -> (Exchange, Exchange) {
        let bells: Vec<_> = (0..2).map(|_| Arc::new(Bell::new().unwrap())).collect();
        let mut all = Exchange::with_capacity(&bells, notes);
        let second = all.pop().unwrap();
        (all.pop().unwrap(), second)
    }

    fn failure(n: u32) -> Failure {
        let client = Network::parse("192.0.2.1").unwrap();
        let (pattern, severity) = (PatternId::new(0).unwrap(), Severity::new(1).unwrap());
        Failure { client, count: n, pattern, severity, login: None }
    }

    fn decision(serial: u64) -> Decision {
        let Failure { client, pattern, severity, .. } = failure(1);
        let ban = Ban { until: Time::default(), offences: 1, failures: 5, pattern, severity };
        Decision { serial, at: Time::default(), client, act: Act::Lift(Lift::Expired, ban), origin: Origin::Decided }
    }

    fn snapshot() -> Box<Snapshot> {
        Box::new(Snapshot { owner: 0, bans: vec![decision(99)], made: 0 })
    }

    fn received(exchange: &mut Exchange) -> Vec<String> {
        let mut got = Vec::new();
        exchange.receive(usize::MAX, |_, note| {
            got.push(match note {
                Note::Failure(failure) => format!("failure {}", failure.count),
                Note::Decision { decision, .. } => format!("decision {}", decision.serial),
                Note::Snapshot(snapshot) => format!("snapshot of {}", snapshot.owner),
                Note::Handover(_) => "handover".to_owned(),
            });
        });
        got
    }

    #[test]
    fn failures_wait_for_room_and_arrive_in_order() {
        let (mut a, mut b) = pair(8);
        for n in 1..=20 {
            a.fail(1, failure(n));
        }
        assert!(a.is_congested());
        let mut got = Vec::new();
        for _ in 0..10 {
            a.flush(snapshot);
            got.extend(received(&mut b));
        }
        assert!(!a.is_congested() && b.is_idle());
        assert_eq!(got, (1..=20).map(|n| format!("failure {n}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_flood_of_failures_leaves_room_for_decisions() {
        let (mut a, mut b) = pair(8);
        for n in 1..=20 {
            a.fail(1, failure(n));
        }
        assert_eq!(a.decide(decision(1), 0), 0);
        assert!(received(&mut b).contains(&"decision 1".to_owned()));
    }

    #[test]
    fn a_replica_that_fell_behind_gets_one_snapshot_and_then_decisions_again() {
        let (mut a, mut b) = pair(8);
        let behind: usize = (0..20).map(|serial| a.decide(decision(serial), 0)).sum();
        assert_eq!(behind, 1, "it falls behind once");
        assert_eq!(a.flush(snapshot), (0, true), "no room for a snapshot yet");
        assert_eq!(received(&mut b).len(), 8);
        assert_eq!(a.flush(snapshot), (1, false));
        a.decide(decision(50), 0);
        assert_eq!(received(&mut b), ["snapshot of 0", "decision 50"]);
    }

    #[test]
    fn only_a_sleeper_is_woken_and_nobody_sleeps_on_a_full_inbox() {
        let bell = Bell::new().unwrap();
        let struck = |bell: &Bell| rustix::io::read(&bell.eventfd, &mut [0u8; 8]).is_ok();
        bell.ring();
        assert!(!struck(&bell), "it is awake");
        bell.sleep(|| true);
        bell.ring();
        bell.ring();
        assert!(struck(&bell) && !struck(&bell));
        bell.sleep(|| false);
        assert!(struck(&bell), "something came while it went to sleep");
        bell.ring();
        assert!(!struck(&bell), "and so it is awake");
    }
}

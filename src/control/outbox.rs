//! Decisions on their way from the shards to the store.
//!
//! When the store does not keep up, because a disk is slow or full, they wait here up to a bound. What comes beyond it is
//! dropped, but not lost: the shards remember every offence, and are asked to tell again what was decided since, as soon
//! as there is room.

use super::store::{Decided, Said, Store};
use crate::engine::ban::{Act, Decision, Lift, Origin};
use crate::engine::time::Time;
use std::sync::Arc;

/// Decisions that wait: five seconds of the worst storm yet imagined, 22 MiB.
const WAITING_MAX: usize = 256 << 10;

#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Vec<Decided>,
    /// When the first of those was decided that were dropped.
    lost_since: Option<Time>,
}

impl Outbox {
    /// Takes a decision, if it is one to be kept: what another node or an earlier run decided is kept already, and that
    /// a ban ran out is written in its end. `said` is what an operator said of it.
    pub fn put(&mut self, decision: &Decision, said: Option<Arc<Said>>) {
        let passing = matches!(decision.act, Act::Lift(Lift::Expired | Lift::Evicted, _));
        if decision.origin == Origin::Learned || passing {
            return;
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(Decided { decision: *decision, said });
        } else {
            self.lost_since = Some(self.lost_since.map_or(decision.at, |since| since.min(decision.at)));
        }
    }

    /// Takes what a shard told again. All of it: it is no more than shards remember. What operators said is not among it.
    pub fn put_again(&mut self, decisions: &[Decision]) {
        self.waiting.extend(decisions.iter().map(|decision| Decided { decision: *decision, said: None }));
    }

    /// Hands over what waits, if there is room. Since when the shards are to tell again, if something was dropped before.
    pub fn flush(&mut self, store: &Store) -> Option<Time> {
        if self.waiting.is_empty() {
            return None;
        }
        match store.keep(std::mem::take(&mut self.waiting)) {
            Ok(()) => self.lost_since.take(),
            Err(back) => {
                self.waiting = back;
                None
            }
        }
    }

    /// Hands over the last of it.
    pub async fn close(self, store: &Store) {
        if !self.waiting.is_empty() {
            store.keep_last(self.waiting).await;
        }
    }
}

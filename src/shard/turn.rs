//! The turn: how the tasks of a shard share its state, and when others hear of what they did.
//!
//! monoio has no hook at the end of a turn of its loop. The first task that does something begins the turn and wakes
//! the settling task, which therefore runs after all tasks that were ready, just before the shard sleeps: what arose
//! for others goes out once per turn, however many tasks took part in it.

use super::core::Core;
use super::handover::Handover;
use super::signal::Signal;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// How often time passes for bans, windows and deadlines.
const TICK: Duration = Duration::from_millis(250);

/// How long to wait for room in another shard's ring.
const RETRY: Duration = Duration::from_millis(1);

/// A shard, as its tasks know it.
#[derive(Clone)]
pub struct Shard(Rc<Inner>);

struct Inner {
    core: RefCell<Core>,
    settle: Signal,
    retry: Signal,
    stop: Signal,
}

impl Shard {
    pub fn new(core: Core) -> Shard {
        let (settle, retry, stop) = (Signal::default(), Signal::default(), Signal::default());
        Shard(Rc::new(Inner { core: RefCell::new(core), settle, retry, stop }))
    }

    /// Does a piece of work. It must not be long: nothing else runs on the shard meanwhile.
    pub fn turn<R>(&self, work: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.0.core.borrow_mut();
        if core.begin_turn() {
            self.0.settle.set();
        }
        work(&mut core)
    }

    /// Ends turns, for as long as the shard lives. `serve` starts serving a connection.
    pub async fn settle(self, serve: impl Fn(&Shard, Handover)) {
        loop {
            self.0.settle.wait().await;
            let (arrivals, waiting, stopped) = {
                let mut core = self.0.core.borrow_mut();
                let waiting = core.end_turn();
                (std::mem::take(&mut core.arrivals), waiting, core.stopped)
            };
            for arrival in arrivals {
                serve(&self, arrival);
            }
            if waiting {
                self.0.retry.set();
            }
            if stopped {
                self.0.stop.set();
            }
        }
    }

    /// Begins a turn soon when something waits for room elsewhere.
    pub async fn retry(self) {
        loop {
            self.0.retry.wait().await;
            monoio::time::sleep(RETRY).await;
            self.turn(|_| {});
        }
    }

    /// Lets time pass.
    pub async fn tick(self) {
        loop {
            monoio::time::sleep(TICK).await;
            self.turn(Core::tick);
        }
    }

    /// Waits until no failure waits for its owner: before more lines are taken in.
    pub async fn until_uncongested(&self) {
        let mut paused = false;
        while self.turn(|core| core.is_congested()) {
            if !std::mem::replace(&mut paused, true) {
                self.turn(|core| core.counters.pauses += 1);
            }
            monoio::time::sleep(RETRY).await;
        }
    }

    /// Waits until the shard is told to stop.
    pub async fn stopped(&self) {
        self.0.stop.wait().await;
    }
}

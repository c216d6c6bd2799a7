//! The turn: how the tasks of a shard share its state, and when others hear of what they did.
//!
//! monoio has no hook at the end of a turn of its loop. The first task that does something begins the turn and wakes
//! the settling task, which therefore runs after all tasks that were ready, just before the shard sleeps: what arose
//! for others has gone out by then, however many tasks took part in it.

use super::core::{Core, TICK};
use super::exchange::Bell;
use super::handover::Handover;
use super::readiness::Readiness;
use super::signal::{Signal, Waiters};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for room in another shard's ring.
const RETRY: Duration = Duration::from_millis(1);

/// A shard, as its tasks know it.
#[derive(Clone)]
pub struct Shard(Rc<Inner>);

struct Inner {
    core: RefCell<Core>,
    bell: Arc<Bell>,
    settle: Signal,
    retry: Signal,
    stop: Signal,
    /// Tasks that gave way to others.
    resting: Waiters,
    /// Tasks that wait for room in the rings, and for time to pass.
    crowded: Waiters,
    patient: Waiters,
}

impl Shard {
    pub fn new(core: Core, bell: Arc<Bell>) -> Shard {
        Shard(Rc::new(Inner {
            core: RefCell::new(core),
            bell,
            settle: Signal::default(),
            retry: Signal::default(),
            stop: Signal::default(),
            resting: Waiters::default(),
            crowded: Waiters::default(),
            patient: Waiters::default(),
        }))
    }

    /// Does a piece of work. It must not be long: nothing else runs on the shard meanwhile.
    pub fn turn<R>(&self, work: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.0.core.borrow_mut();
        if core.begin_turn() {
            self.0.settle.set();
        }
        work(&mut core)
    }

    /// Whether nothing new is taken in any more. To be asked between turns, at no cost.
    pub fn is_draining(&self) -> bool {
        self.0.core.borrow().draining
    }

    /// Ends turns, for as long as the shard lives. `serve` starts serving a connection.
    pub async fn settle(self, serve: impl Fn(&Shard, Handover)) {
        loop {
            self.0.settle.wait().await;
            let (arrivals, waiting, congested, ticked, stopped) = {
                let mut core = self.0.core.borrow_mut();
                let waiting = core.end_turn();
                let ticked = std::mem::take(&mut core.ticked);
                (std::mem::take(&mut core.arrivals), waiting, core.is_congested(), ticked, core.stopped)
            };
            if !congested {
                self.0.crowded.wake();
            }
            if ticked {
                self.0.patient.wake();
            }
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

    /// Sees to it that time passes on an idle shard too: a turn that begins late enough lets it pass. monoio's timers alone
    /// would not do, for on epoll they stand still while tasks are ready.
    pub async fn tick(self) {
        loop {
            monoio::time::sleep(TICK).await;
            self.turn(|_| {});
        }
    }

    /// Begins a turn whenever another thread has rung, and lets those go on who gave way.
    pub async fn wake(self, readiness: Readiness) {
        loop {
            readiness.readable().await;
            self.0.bell.silence();
            self.turn(|_| {});
            self.0.resting.wake();
        }
    }

    /// Lets the other tasks run, and the driver look for what happened meanwhile, on the epoll driver: there a socket that is
    /// always ready would never give way, since its operations complete at once. A task that just wakes itself would
    /// not help, because monoio puts it first in its queue; so it waits for the shard's own bell, like any event.
    ///
    /// On io_uring every operation goes through the loop anyway.
    pub async fn give_way(&self) {
        if monoio::utils::is_legacy() {
            self.0.resting.wait(|| self.0.bell.strike()).await;
        }
    }

    /// Waits a little, a few times a second.
    pub async fn pause(&self) {
        self.0.patient.wait(|| {}).await;
    }

    /// Waits until no failure waits for its owner: before more lines are taken in.
    pub async fn until_uncongested(&self) {
        let mut paused = false;
        while self.turn(|core| core.is_congested()) {
            if !std::mem::replace(&mut paused, true) {
                self.turn(|core| core.counters.pauses += 1);
            }
            self.0.crowded.wait(|| {}).await;
        }
    }

    /// Waits until the shard is told to stop.
    pub async fn stopped(&self) {
        self.0.stop.wait().await;
    }
}

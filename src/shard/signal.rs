//! Waking tasks of the same shard.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Tasks that wait for the same thing.
#[derive(Debug, Default)]
pub struct Waiters(RefCell<Vec<Waker>>);

impl Waiters {
    /// Waits until the next [`Waiters::wake`]. May come back early; whoever waits looks again. `first` is called if nobody waited
    /// before.
    pub async fn wait(&self, first: impl FnOnce()) {
        let mut first = Some(first);
        poll_fn(|context| {
            let Some(first) = first.take() else { return Poll::Ready(()) };
            let mut waiters = self.0.borrow_mut();
            if waiters.is_empty() {
                first();
            }
            waiters.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes all that wait now.
    pub fn wake(&self) {
        for waker in self.0.take() {
            waker.wake();
        }
    }
}

/// Set by anybody on the shard, waited for by one task. Setting it twice before the task looks counts once.
#[derive(Debug, Default)]
pub struct Signal {
    set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    pub fn set(&self) {
        if !self.set.replace(true)
            && let Some(waker) = self.waiter.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Waits until it is set, and clears it.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.set.take() {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

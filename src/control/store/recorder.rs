//! The recorder: writes decisions to the local state, behind them but at once.
//!
//! Whatever has come while one transaction was written goes into the next, so a storm makes few large ones and a quiet
//! hour small ones. What is lost when the process is killed is what was decided in the milliseconds that one takes.
//! When the disk does not take it, the same batch is tried again each second; decisions that find no room meanwhile are
//! dropped by the control thread, which asks the shards to tell them again.

use super::Shared;
use super::link::News;
use super::state::Kept;
use super::status::{Operation, add};
use crate::engine::ban::{Act, Decision};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Decisions in one transaction.
const KEPT_AT_ONCE: usize = 20_000;

/// How often the machine's clock is looked at, and old bans are cleared away.
const TICK: Duration = Duration::from_secs(1);

/// Ticks between looks for old bans.
const TICKS_PER_PRUNE: u32 = 60;

/// Writes until the control thread lets go.
pub async fn run(
    mut decided: mpsc::Receiver<Vec<Decision>>,
    shared: Rc<Shared>,
    complaints: mpsc::Sender<News>,
    wake: Rc<Notify>,
) {
    let mut tick = tokio::time::interval(TICK);
    let mut until_prune = 1;
    loop {
        tokio::select! {
            batch = decided.recv() => match batch {
                Some(mut batch) => {
                    while batch.len() < KEPT_AT_ONCE
                        && let Ok(more) = decided.try_recv()
                    {
                        batch.extend(more);
                    }
                    keep(&batch, &shared, &complaints, &wake).await;
                }
                None => return,
            },
            _ = tick.tick() => {
                follow_clock(&shared).await;
                until_prune -= 1;
                if until_prune == 0 {
                    until_prune = if prune(&shared).await { 1 } else { TICKS_PER_PRUNE };
                }
            }
        }
    }
}

async fn keep(batch: &[Decision], shared: &Shared, complaints: &mpsc::Sender<News>, wake: &Notify) {
    let kept: Vec<Kept> = {
        let names = shared.names.borrow();
        let known = |decision: &Decision| {
            let (Act::Ban(ban) | Act::Lift(_, ban)) = decision.act;
            let pattern = names.get(ban.pattern.number() as usize)?;
            Some(Kept { decision: *decision, pattern: std::sync::Arc::clone(&pattern.name) })
        };
        batch.iter().filter_map(known).collect()
    };
    let mut complained = false;
    for chunk in kept.chunks(KEPT_AT_ONCE) {
        loop {
            let wall = shared.wall.get();
            let written = {
                let mut state = shared.state.lock().await;
                let written = state.keep(chunk, &wall).await;
                shared.counts.untold.store(state.untold(), Ordering::Relaxed);
                written
            };
            shared.counts.operation(Operation::Keep, written.is_ok());
            match written {
                Ok(()) => break,
                Err(why) => {
                    complained = true;
                    let _ = complaints.try_send(News::StateFailed(Some(why.to_string())));
                    tokio::time::sleep(TICK).await;
                }
            }
        }
        add(&shared.counts.kept, chunk.len());
        wake.notify_one();
    }
    if complained {
        let _ = complaints.try_send(News::StateFailed(None));
    }
}

async fn follow_clock(shared: &Shared) {
    let mut wall = shared.wall.get();
    let moved = wall.check();
    shared.wall.set(wall);
    if let Some(moved) = moved {
        super::super::journal::clock_set(moved);
        // If it cannot be written, the next start finds out by itself.
        let shifted = shared.state.lock().await.shift(moved, &wall).await;
        shared.counts.operation(Operation::Keep, shifted.is_ok());
    }
}

/// Clears old bans away. True if more are left.
async fn prune(shared: &Shared) -> bool {
    let wall = shared.wall.get();
    let memory = i64::try_from(shared.memory.get().as_millis()).unwrap_or(i64::MAX);
    let pruned = shared.state.lock().await.prune(wall.at(wall.now()).saturating_sub(memory)).await;
    shared.counts.operation(Operation::Prune, pruned.is_ok());
    pruned.unwrap_or(false)
}

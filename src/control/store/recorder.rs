//! The recorder: writes decisions to the local state, behind them but at once.
//!
//! Whatever has come while one transaction was written goes into the next, so a storm makes few large ones and a quiet
//! hour small ones. What is lost when the process is killed is what was decided in the milliseconds that one takes.
//! When the disk does not take it, the same batch is tried again each second; decisions that find no room meanwhile are
//! dropped by the control thread, which asks the shards to tell them again. A state that could not be opened at the start
//! lives in memory until it can.

use super::Shared;
use super::ban::Decided;
use super::state::Kept;
use super::status::{Operation, printable_error};
use crate::control::journal;
use crate::engine::ban::Act;
use std::rc::Rc;
use std::sync::Arc;
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
pub async fn run(mut decided: mpsc::Receiver<Vec<Decided>>, shared: Rc<Shared>, wake: Rc<Notify>) {
    let mut tick = tokio::time::interval(TICK);
    let mut until_prune = 1;
    let mut unmoved = 0;
    loop {
        tokio::select! {
            batch = decided.recv() => match batch {
                Some(mut batch) => {
                    while batch.len() < KEPT_AT_ONCE
                        && let Ok(more) = decided.try_recv()
                    {
                        batch.extend(more);
                    }
                    keep(&batch, &shared, &wake, &mut unmoved).await;
                }
                None => return,
            },
            _ = tick.tick() => {
                follow_clock(&shared, &mut unmoved).await;
                if !shared.state.lock().await.is_in_place() {
                    shared.set_state_fault(Some("the file was deleted, or another is in its place".to_owned()));
                }
                if !shared.state_works() {
                    recover(&shared).await;
                }
                until_prune -= 1;
                if until_prune == 0 {
                    until_prune = if prune(&shared).await { 1 } else { TICKS_PER_PRUNE };
                }
            }
        }
    }
}

async fn keep(batch: &[Decided], shared: &Shared, wake: &Notify, unmoved: &mut i64) {
    let kept: Vec<Kept> = {
        let names = shared.names.borrow();
        let known = |Decided { decision, said }: &Decided| {
            let (Act::Ban(ban) | Act::Lift(_, ban)) = decision.act;
            let pattern = names.get(ban.pattern.number() as usize)?;
            Some(Kept { decision: *decision, pattern: Arc::clone(&pattern.name), said: said.clone() })
        };
        batch.iter().filter_map(known).collect()
    };
    for chunk in kept.chunks(KEPT_AT_ONCE) {
        loop {
            // What is there is moved first, or what is new would be moved with it.
            follow_clock(shared, unmoved).await;
            if *unmoved == 0 {
                let wall = shared.wall.get();
                let written = shared.state.lock().await.keep(chunk, &wall).await;
                shared.counts.operation(Operation::Keep, written.is_ok());
                if let Some(new) = shared.locally(written) {
                    shared.counts.kept.fetch_add(new, Ordering::Relaxed);
                    break;
                }
            }
            tokio::time::sleep(TICK).await;
            recover(shared).await;
        }
        shared.count_untold().await;
        wake.notify_one();
    }
}

/// Looks whether the state works again, or can go where it belongs.
async fn recover(shared: &Shared) {
    let wall = shared.wall.get();
    let recovered = shared.state.lock().await.recover(&wall).await;
    match recovered {
        Ok(()) => shared.set_state_fault(None),
        Err(why) => shared.set_state_fault(Some(printable_error(&why.to_string()))),
    }
}

/// Moves what is stored if the machine's clock was set; by `unmoved` as well, if that could not be done before.
async fn follow_clock(shared: &Shared, unmoved: &mut i64) {
    let mut wall = shared.wall.get();
    if let Some(moved) = wall.check() {
        journal::clock_set(moved);
        *unmoved += moved;
        shared.wall.set(wall);
    }
    if *unmoved != 0 {
        let shifted = shared.state.lock().await.shift(*unmoved, &wall).await;
        shared.counts.operation(Operation::Keep, shifted.is_ok());
        if shared.locally(shifted).is_some() {
            *unmoved = 0;
        }
    }
}

/// Clears old bans away. True if more are left.
async fn prune(shared: &Shared) -> bool {
    let wall = shared.wall.get();
    let memory = i64::try_from(shared.memory.get().as_millis()).unwrap_or(i64::MAX);
    let pruned =
        shared.state.lock().await.prune(wall.at(wall.now()).saturating_sub(memory), shared.bans_max.get()).await;
    shared.counts.operation(Operation::Prune, pruned.is_ok());
    let audit = shared.state.lock().await.prune_audit().await;
    pruned.unwrap_or(false) || audit.unwrap_or(false)
}

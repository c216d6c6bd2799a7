//! Errands: what operators wait for while the shards do it.
//!
//! Each has a ticket, by which the shards' answers are told apart. A ban or its end is not answered when its owner has
//! decided it, but when it is in force everywhere, which takes two rounds over all shards: after the first, everything
//! that was decided is on its way to every shard, and after the second, it has arrived.

use super::desk::{BanPage, BanShown, Banned, Evidence, Inspection, Refusal};
use super::store::{Said, Wall};
use crate::engine::address::{Address, Network};
use crate::engine::ban::{Act, Decision, FailureKind, Lift, Origin, client_of};
use crate::engine::evidence::LINES;
use crate::engine::policy::Policy;
use crate::engine::survey::{Listed, Survey};
use crate::engine::table::NetworkTable;
use crate::engine::verdict::Verdict;
use crate::shard::Knowledge;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long one may take. Ending ten million bans takes a minute or two.
const DEADLINE: Duration = Duration::from_secs(300);

/// Errands at a time; who comes then waits. Each is a few commands for a shard, whose ring holds 256.
pub const ERRANDS_MAX: usize = 32;

/// What is waited for, and by whom.
#[derive(Debug)]
pub enum Errand {
    Ban {
        client: Network,
        ban: Option<Listed>,
        already: bool,
        answer: oneshot::Sender<Result<Banned, Refusal>>,
    },
    /// Of some clients, or of all bans inside of `within`, or of all.
    Lift {
        lifted: u64,
        within: Option<Option<Network>>,
        answer: oneshot::Sender<u64>,
    },
    Survey {
        survey: Option<Box<Survey>>,
        answer: oneshot::Sender<BanPage>,
    },
    Inspect {
        address: Address,
        knowledge: Vec<Knowledge>,
        answer: oneshot::Sender<Inspection>,
    },
}

#[derive(Debug)]
struct Open {
    errand: Errand,
    deadline: Instant,
    /// What the operator said who ordered it.
    said: Option<Arc<Said>>,
    /// Answers that are still to come in this round.
    left: usize,
    round: Round,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Work,
    /// Until everything has gone out, and until everything has arrived.
    Out,
    In,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Wait,
    /// All shards are to say that they have settled.
    Settle,
    Finished,
}

/// All that are under way.
#[derive(Debug, Default)]
pub struct Errands {
    tickets: u64,
    open: HashMap<u64, Open>,
}

impl Errands {
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Opens one that so many answers belong to. Its ticket.
    pub fn begin(&mut self, errand: Errand, said: Option<Said>, answers: usize) -> u64 {
        self.tickets += 1;
        let open = Open {
            errand,
            deadline: Instant::now() + DEADLINE,
            said: said.map(Arc::new),
            left: answers,
            round: Round::Work,
        };
        self.open.insert(self.tickets, open);
        self.tickets
    }

    /// What the operator said who has all bans ended among which this decision ends one.
    pub fn ordered(&self, decision: &Decision) -> Option<Arc<Said>> {
        if !matches!(decision.act, Act::Lift(Lift::Unbanned, _)) || decision.origin != Origin::Decided {
            return None;
        }
        let orders = self.open.values().find(|open| match open.errand {
            Errand::Lift { within: Some(within), .. } => within.is_none_or(|within| within.covers(decision.client)),
            _ => false,
        });
        orders.and_then(|open| open.said.clone())
    }

    /// Gives up what should have been done long ago, so that it keeps nobody else waiting. The tickets.
    pub fn overdue(&mut self) -> Vec<u64> {
        let now = Instant::now();
        self.open.extract_if(|_, open| open.deadline <= now).map(|(ticket, _)| ticket).collect()
    }

    /// What the operator said who ordered it.
    pub fn said(&self, ticket: u64) -> Option<Arc<Said>> {
        self.open.get(&ticket).and_then(|open| open.said.clone())
    }

    /// The errand of a ticket, to take in an answer.
    pub fn get_mut(&mut self, ticket: u64) -> Option<&mut Errand> {
        self.open.get_mut(&ticket).map(|open| &mut open.errand)
    }

    /// One answer less is to come. `shards` is how many there are to settle.
    pub fn count_down(&mut self, ticket: u64, shards: usize) -> Next {
        let Some(open) = self.open.get_mut(&ticket) else { return Next::Wait };
        open.left = open.left.saturating_sub(1);
        if open.left > 0 {
            return Next::Wait;
        }
        let changes = matches!(open.errand, Errand::Ban { .. } | Errand::Lift { .. });
        open.round = match open.round {
            Round::Work if changes => Round::Out,
            Round::Out => Round::In,
            Round::Work | Round::In => return Next::Finished,
        };
        open.left = shards;
        Next::Settle
    }

    pub fn take(&mut self, ticket: u64) -> Option<Errand> {
        self.open.remove(&ticket).map(|open| open.errand)
    }
}

/// Says how an errand went to who waits for it; they may have gone.
pub fn answer(errand: Errand, policy: &Policy, wall: &Wall, node: &str) {
    match errand {
        Errand::Ban { client, ban, already, answer } => {
            let banned = match ban {
                Some(listed) => Ok(Banned {
                    client,
                    expires_at: wall.at(listed.ban.until),
                    remaining: listed.ban.until.since(wall.now()),
                    offences: listed.ban.offences,
                    already,
                }),
                None => Err(Refusal::Conflict("the ban was over before it began".to_owned())),
            };
            drop(answer.send(banned));
        }
        Errand::Lift { lifted, answer, .. } => drop(answer.send(lifted)),
        Errand::Survey { survey, answer } => {
            let Some(survey) = survey else { return };
            let page = survey.finish();
            drop(answer.send(BanPage {
                total: page.total,
                bans: page.bans.iter().map(|listed| shown(listed, policy, wall)).collect(),
                next: page.next.map(|place| place.print()),
            }));
        }
        Errand::Inspect { address, knowledge, answer } => {
            drop(answer.send(inspection(address, &knowledge, policy, wall, node)));
        }
    }
}

/// A ban as operators are shown it.
pub fn shown(listed: &Listed, policy: &Policy, wall: &Wall) -> BanShown {
    BanShown {
        client: listed.client,
        pattern: policy.name(listed.ban.pattern).into(),
        severity: listed.ban.severity.level(),
        kind: policy.kind(listed.ban.pattern).map(FailureKind::name),
        failures: listed.ban.failures,
        offences: listed.ban.offences,
        banned_at: wall.at(listed.since),
        expires_at: wall.at(listed.ban.until),
        remaining: listed.ban.until.since(wall.now()),
        learned: listed.learned,
    }
}

fn inspection(address: Address, knowledge: &[Knowledge], policy: &Policy, wall: &Wall, node: &str) -> Inspection {
    let client = knowledge.iter().find_map(|of| of.client).unwrap_or_default();
    let mut bans: Vec<&Listed> = knowledge.iter().flat_map(|of| &of.bans).collect();
    bans.sort_by_key(|listed| std::cmp::Reverse(listed.client.len()));
    let mut evidence: Vec<_> = knowledge.iter().flat_map(|of| &of.evidence).collect();
    evidence.sort_by_key(|kept| std::cmp::Reverse(kept.at));
    // Each shard keeps as many of what it received itself.
    evidence.truncate(LINES);
    Inspection {
        address,
        client: client_of(address, &policy.rules),
        verdict: match knowledge.first().map(|of| of.verdict) {
            Some(Verdict::Allowed) => "whitelisted",
            Some(Verdict::Blocked) => "blacklisted",
            Some(Verdict::Banned(_)) => "banned",
            Some(Verdict::Allow) | None => "allowed",
        },
        whitelist: holding(&policy.allow, address),
        blacklist: holding(&policy.block, address),
        bans: bans.into_iter().map(|listed| shown(listed, policy, wall)).collect(),
        failures: client.failures,
        threshold: policy.rules.threshold,
        offences: client.offences,
        last_offence: client.last_offence.map(|at| wall.at(at)),
        evidence: evidence
            .into_iter()
            .map(|kept| Evidence {
                at: wall.at(kept.at),
                pattern: policy.name(kept.pattern).into(),
                program: kept.program.clone(),
                line: kept.line.clone(),
            })
            .collect(),
        node: node.to_owned(),
        policy: policy.number,
    }
}

/// The networks of a list that hold an address, longest first.
pub fn holding(list: &NetworkTable<()>, address: Address) -> Vec<Network> {
    address.networks().filter(|network| list.get(*network).is_some()).collect()
}

//! What a shard counts: plain numbers of its own, copied out when the control thread asks.

use super::listen::Service;
use crate::engine::ban::ByPattern;
use crate::engine::owner::Outcome;
use crate::engine::verdict::Verdict;
use crate::wire::ext_authz::{Refusal, Why};
use crate::wire::spop::Status;
use crate::wire::syslog::{FrameFault, Malformed};

/// Upper bounds of the buckets of [`Lag`], in microseconds; one more holds the rest.
pub const LAG_BOUNDS_MICROS: [u64; 15] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// How long decisions took from the owner to this replica.
#[derive(Clone, Debug, Default)]
pub struct Lag {
    pub buckets: [u64; LAG_BOUNDS_MICROS.len() + 1],
    pub max_nanos: u64,
}

impl Lag {
    pub fn record(&mut self, nanos: u64) {
        let bucket = LAG_BOUNDS_MICROS.partition_point(|bound| bound * 1000 < nanos);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.max_nanos = self.max_nanos.max(nanos);
    }
}

/// What one kind of proxy asked, by how it was answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub allowed: u64,
    pub denied: u64,
    /// Questions that name no client that could be looked up.
    pub unknown: u64,
    /// What was no question: health, readiness, greetings, not found.
    pub other: u64,
    /// Refused as malformed, too large, or not spoken here.
    pub refused: u64,
}

impl Asked {
    pub fn answered(&mut self, verdict: Verdict) {
        if verdict.is_denial() {
            self.denied += 1;
        } else {
            self.allowed += 1;
        }
    }
}

/// How connections with HAProxy ended, by who said so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disconnects {
    pub by_haproxy: ByStatus,
    pub by_agent: ByStatus,
}

/// One count per status of SPOP, and one for numbers that are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByStatus([u64; Status::ALL.len() + 1]);

impl ByStatus {
    pub fn add(&mut self, code: u32) {
        let at = Status::ALL.iter().position(|status| status.code() == code).unwrap_or(Status::ALL.len());
        self.0[at] += 1;
    }

    /// Each count with what it counts; `None` is the rest.
    pub fn counts(&self) -> impl Iterator<Item = (Option<Status>, u64)> {
        Status::ALL.into_iter().map(Some).chain([None]).zip(self.0)
    }
}

/// Everything that happened on one shard since it started.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Datagrams received, whatever became of them.
    pub datagrams: u64,
    /// Frames taken from syslog connections.
    pub frames: u64,
    /// Datagrams that the kernel dropped because the shard did not keep up.
    pub datagrams_dropped: u64,
    /// Datagrams longer than the limit.
    pub datagrams_too_long: u64,
    /// Datagrams and connections of senders that are not allowed.
    pub senders_refused: u64,
    /// Records that could not be read, by [`Malformed::ALL`].
    pub malformed: [u64; Malformed::ALL.len()],
    /// Frames that were lost, by [`FrameFault::ALL`].
    pub frame_faults: [u64; FrameFault::ALL.len()],
    /// Records of programs that no pattern speaks of.
    pub not_watched: u64,
    /// Records that no pattern matches.
    pub unmatched: u64,
    /// Records that a pattern matches, but with no address where it should be.
    pub no_address: u64,
    /// Matches whose client is on the allowlist.
    pub allowed_matches: u64,
    pub matches: ByPattern,
    /// Bans decided here.
    pub bans: ByPattern,
    /// Bans of other nodes and earlier runs that were put in force here, as their clients' owner.
    pub learned: u64,
    /// Failures counted, those of clients already banned, and those that led to a ban.
    pub counted: u64,
    pub already_banned: u64,
    pub banned: u64,
    /// Times that taking in lines paused because an owner did not keep up.
    pub pauses: u64,
    /// Replicas that fell behind, and snapshots sent to them.
    pub fell_behind: u64,
    pub snapshots: u64,
    /// Decisions of others that were applied here.
    pub applied: u64,
    pub lag: Lag,
    /// Announcements to the control thread that found its ring full.
    pub events_dropped: u64,
    /// What was asked, by service.
    pub asked: [Asked; Service::COUNT],
    pub spoa_disconnects: Disconnects,
    /// Calls of Envoy that were refused, by [`Refusal::ALL`], and its connections that were, by [`Why::FAULTS`].
    pub envoy_refused: [u64; Refusal::ALL.len()],
    pub envoy_broken: [u64; Why::FAULTS.len()],
    /// Connections by service: accepted here, handed to another shard, refused for want of room, accepting failed, cut for
    /// missing their deadline.
    pub accepted: [u64; Service::COUNT],
    pub handed_over: [u64; Service::COUNT],
    pub refused: [u64; Service::COUNT],
    pub accept_faults: [u64; Service::COUNT],
    pub timed_out: [u64; Service::COUNT],
}

impl Counters {
    /// One method per happening that has a reason; plain ones are counted where they happen.
    pub fn malformed(&mut self, why: Malformed) {
        if let Some(at) = Malformed::ALL.iter().position(|known| *known == why) {
            self.malformed[at] += 1;
        }
    }

    pub fn frame_fault(&mut self, why: FrameFault) {
        if let Some(at) = FrameFault::ALL.iter().position(|known| *known == why) {
            self.frame_faults[at] += 1;
        }
    }

    pub fn envoy_refused(&mut self, refusal: Refusal) {
        if let Some(at) = Refusal::ALL.iter().position(|known| *known == refusal) {
            self.envoy_refused[at] += 1;
        }
    }

    pub fn envoy_broken(&mut self, why: Why) {
        if let Some(at) = Why::FAULTS.iter().position(|known| *known == why) {
            self.envoy_broken[at] += 1;
        }
    }

    pub fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Counted => self.counted += 1,
            Outcome::AlreadyBanned => self.already_banned += 1,
            Outcome::Banned => self.banned += 1,
        }
    }
}

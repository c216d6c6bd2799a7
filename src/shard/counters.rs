//! What a shard counts: plain numbers of its own, copied out when the control thread asks.

use super::histogram::Histogram;
use super::listen::Service;
use crate::engine::ban::ByPattern;
use crate::engine::owner::Outcome;
use crate::engine::verdict::Verdict;
use crate::wire::ext_authz::{Refusal, Why};
use crate::wire::spop::{Status, frame_kind};
use crate::wire::syslog::{FrameFault, Malformed};

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

/// What peers of one service were told in answer, by its status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// By [`Told::statuses`].
    counts: [u64; Told::STATUSES_MAX],
    /// All of them.
    pub total: u64,
}

impl Told {
    const STATUSES_MAX: usize = 10;

    /// What can be told: the protocol's own number for it, and how metrics call it. The commonest come first.
    ///
    /// HAProxy is told frames. Envoy is told statuses of gRPC: of the verdict where the call is a check (the call's own is OK
    /// then, whatever the verdict), else of the call. nginx, and whoever else speaks HTTP, is told statuses of that.
    pub fn statuses(service: Service) -> &'static [(u16, &'static str)] {
        match service {
            Service::Syslog => &[],
            Service::Spoa => &[
                (frame_kind::ACK as u16, "ack"),
                (frame_kind::AGENT_HELLO as u16, "hello"),
                (frame_kind::AGENT_DISCONNECT as u16, "disconnect"),
            ],
            Service::Envoy => &[
                (0, "OK"),
                (7, "PERMISSION_DENIED"),
                (2, "UNKNOWN"),
                (5, "NOT_FOUND"),
                (8, "RESOURCE_EXHAUSTED"),
                (12, "UNIMPLEMENTED"),
                (13, "INTERNAL"),
            ],
            Service::Nginx => &[
                (200, "200"),
                (403, "403"),
                (400, "400"),
                (404, "404"),
                (405, "405"),
                (414, "414"),
                (431, "431"),
                (501, "501"),
                (503, "503"),
                (505, "505"),
            ],
        }
    }

    /// Each count with the status that it counts.
    pub fn counts(&self, service: Service) -> impl Iterator<Item = (&'static str, u64)> {
        Told::statuses(service).iter().map(|(_, name)| *name).zip(self.counts)
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
    /// Datagrams that the kernel dropped because the shard did not keep up. A shard asks for it with each report, and once
    /// more before it closes the socket.
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
    /// Matched lines about failures that other lines had told of.
    pub known: u64,
    pub banned: u64,
    /// Times that taking in lines paused because an owner did not keep up.
    pub pauses: u64,
    /// Replicas that fell behind, and snapshots sent to them.
    pub fell_behind: u64,
    pub snapshots: u64,
    /// Decisions of others that were applied here.
    pub applied: u64,
    /// How long those took from the owner to this replica.
    pub lag: Histogram,
    /// Announcements to the control thread that found its ring full.
    pub events_dropped: u64,
    /// What was asked, by service.
    pub asked: [Asked; Service::COUNT],
    /// What was answered, by service, and how long that took: from when the bytes were there until the answer was with the
    /// kernel.
    pub told: [Told; Service::COUNT],
    pub durations: [Histogram; Service::COUNT],
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

    /// A peer was told something in answer, which has this number in its protocol.
    pub fn told(&mut self, service: Service, status: u16) {
        let told = &mut self.told[service as usize];
        told.total += 1;
        let known = Told::statuses(service).iter().position(|(known, _)| *known == status);
        if let Some(count) = known.and_then(|at| told.counts.get_mut(at)) {
            *count += 1;
        }
    }

    pub fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Counted => self.counted += 1,
            Outcome::Known => self.known += 1,
            Outcome::AlreadyBanned => self.already_banned += 1,
            Outcome::Banned => self.banned += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http1;

    /// What a service answers beside its refusals, and those.
    fn answers(service: Service) -> Vec<u16> {
        match service {
            Service::Syslog => vec![],
            Service::Spoa => vec![101, 102, 103],
            Service::Envoy => {
                [0, 5, 7].into_iter().chain(Refusal::ALL.map(|refusal| refusal.grpc_status().into())).collect()
            }
            Service::Nginx => {
                // A refusal of time would be for this room to make, which closes without a word.
                let refusals = http1::Refusal::ALL.into_iter().filter(|refusal| *refusal != http1::Refusal::Timeout);
                [200, 403, 404, 405, 503].into_iter().chain(refusals.map(http1::Refusal::status)).collect()
            }
        }
    }

    #[test]
    fn whatever_is_told_has_a_count_of_its_own() {
        let mut counters = Counters::default();
        for service in Service::ALL {
            let answers = answers(service);
            for status in &answers {
                counters.told(service, *status);
            }
            let told = counters.told[service as usize];
            assert_eq!(told.total, answers.len() as u64);
            assert_eq!(told.counts(service).map(|(_, count)| count).sum::<u64>(), told.total, "{service:?}");
            assert!(told.counts(service).all(|(_, count)| count > 0), "{service:?} never answers so");
            assert!(Told::statuses(service).len() <= Told::STATUSES_MAX);
        }
    }
}

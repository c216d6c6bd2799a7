//! Prometheus metrics: collected from the shards' own counters when somebody asks for them.

mod help;
mod text;

use super::api::Answered;
use super::http::{self, Patient};
use super::store::contents::TableName;
use super::store::{self, Counts, Operation};
use crate::engine::ban::{Act, Decision};
use crate::engine::policy::Policy;
use crate::shard::{Asked, ByStatus, Histogram, Report, Service, Told};
use crate::wire::ext_authz::{Refusal, Why};
use crate::wire::spop::Status;
use crate::wire::syslog::{FrameFault, Malformed};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use help::{HELP, Kind};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Buckets of the durations of bans, in seconds: five minutes to three days.
const BAN_SECONDS: [f64; 10] =
    [300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0, 259_200.0];

/// Faulty patterns that have a metric of their own; `fail2ban_config_faulty_rows` counts all of them.
const FAULTY_NAMED_MAX: usize = 1_000;

/// Patterns that have labels of their own: as many as a database may have. The names of what other nodes banned by come on
/// top of those, and nobody here bounds them.
const LABELLED_MAX: usize = 10_000;

/// The label of all others together.
const OTHERS: &str = "other";

/// Connections of whoever collects metrics.
const CONNECTIONS: usize = 16;

/// How long nothing is accepted after that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who waits for the metrics.
pub type Scrape = oneshot::Sender<String>;

/// Everything that is exported.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// What all shards have counted together, when they last all answered.
    durations: [Histogram; Service::COUNT],
    lag: Histogram,
    /// Patterns that were faulty once in this process.
    named: BTreeSet<String>,
    /// What each shard has said last.
    last: Vec<Option<Box<Report>>>,
    /// Matches by pattern that are accounted for.
    matched: Vec<u64>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(help::BAN_DURATION.to_owned()), &BAN_SECONDS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        with_local_recorder(&recorder, || {
            for (name, kind, meaning) in HELP.iter().copied() {
                match kind {
                    Kind::Counter => describe_counter!(name, meaning),
                    Kind::Gauge => describe_gauge!(name, meaning),
                    Kind::Histogram => describe_histogram!(name, meaning),
                }
            }
            // There from the start, so that the first one that is refused is seen to be one more.
            for status in ["success", "error"] {
                counter!("fail2ban_config_reloads_total", "source" => "file", "status" => status).absolute(0);
            }
        });
        let handle = recorder.handle();
        let (durations, lag) = Default::default();
        Metrics { recorder, handle, durations, lag, named: BTreeSet::new(), last: Vec::new(), matched: Vec::new() }
    }

    /// What is known when the program has started.
    pub fn started(&self, version: &'static str, commit: &'static str, driver: &'static str, shards: usize) {
        with_local_recorder(&self.recorder, || {
            gauge!("fail2ban_build_info", "version" => version, "commit" => commit).set(1.0);
            gauge!("fail2ban_driver_info", "driver" => driver).set(1.0);
            gauge!("fail2ban_shards").set(shards as f64);
        });
    }

    pub fn reloaded(&self, success: bool) {
        let status = if success { "success" } else { "error" };
        with_local_recorder(&self.recorder, || {
            counter!("fail2ban_config_reloads_total", "source" => "file", "status" => status).increment(1);
        });
    }

    pub fn decided(&self, decision: &Decision, policy: &Policy) {
        if let Act::Ban(ban) = &decision.act {
            let seconds = ban.until.since(decision.at).as_secs_f64();
            let at = usize::try_from(ban.pattern.number()).unwrap_or(usize::MAX);
            let pattern = label(at, policy.name(ban.pattern));
            with_local_recorder(&self.recorder, || {
                histogram!(help::BAN_DURATION, "pattern" => pattern).record(seconds);
            });
        }
    }

    /// Merges what histograms have been told, which would take memory until somebody asks for it.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// A gauge for each faulty pattern: one while it is, zero when it is not any more.
    fn name_faulty_patterns(&mut self, status: &store::Status) {
        let faulty = status.faults.iter().filter(|fault| fault.table == TableName::Patterns);
        let faulty: BTreeSet<&str> = faulty.map(|fault| fault.row.as_str()).collect();
        for name in &faulty {
            if self.named.len() < FAULTY_NAMED_MAX && !self.named.contains(*name) {
                self.named.insert((*name).to_owned());
            }
        }
        with_local_recorder(&self.recorder, || {
            for name in &self.named {
                let value = f64::from(u8::from(faulty.contains(name.as_str())));
                gauge!("fail2ban_config_pattern_faulty", "pattern" => plain(name)).set(value);
            }
        });
    }

    /// Renders everything, from one report of each shard that answered.
    pub fn render(
        &mut self,
        reports: &[Option<Box<Report>>],
        policy: &Policy,
        uptime: Duration,
        log_lost: u64,
        (counts, status): (&Counts, &store::Status),
        api: &Answered,
    ) -> String {
        self.name_faulty_patterns(status);
        let answering = reports.iter().flatten().count();
        self.last.resize_with(reports.len(), || None);
        for (last, report) in self.last.iter_mut().zip(reports) {
            if let Some(report) = report {
                *last = Some(report.clone());
            }
        }
        let last = std::mem::take(&mut self.last);
        let mut matched = std::mem::take(&mut self.matched);
        // A shard that does not answer stays in the sums with what it said last, so that they never go back.
        let known: Vec<&Report> = last.iter().flatten().map(AsRef::as_ref).collect();
        let complete = known.len() == reports.len();
        with_local_recorder(&self.recorder, || {
            counter!("fail2ban_log_lines_dropped_total").absolute(log_lost);
            gauge!("fail2ban_uptime_seconds").set(uptime.as_secs_f64());
            gauge!("fail2ban_config_patterns_loaded").set(policy.matcher.len() as f64);
            gauge!("fail2ban_policy_number").set(policy.number as f64);
            of_store(counts, status);
            for (status, count) in api.counts() {
                counter!("fail2ban_service_requests_total", "service" => "api", "status" => status).absolute(count);
            }
            gauge!("fail2ban_shards_answering").set(answering as f64);
            if complete {
                totals(&known);
                patterns(&mut matched, &known, policy);
            }
            for (shard, report) in reports.iter().enumerate() {
                if let Some(report) = report {
                    of_shard(shard, report);
                }
            }
        });
        if complete {
            self.add_up(&known);
        }
        drop(known);
        (self.last, self.matched) = (last, matched);
        let mut text = self.handle.render();
        let durations = Service::ASKED.map(|service| {
            let label = ("service", service.name());
            (Some(label), &self.durations[service as usize])
        });
        text::push_histogram(&mut text, help::REQUEST_DURATION, &durations);
        text::push_histogram(&mut text, help::REPLICA_LAG, &[(None, &self.lag)]);
        text
    }

    /// What [`totals`] does for histograms.
    fn add_up(&mut self, reports: &[&Report]) {
        (self.durations, self.lag) = Default::default();
        for report in reports {
            self.durations.iter_mut().zip(&report.counters.durations).for_each(|(sum, more)| sum.add(more));
            self.lag.add(&report.counters.lag);
        }
    }
}

/// How the store is doing.
fn of_store(counts: &Counts, status: &store::Status) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    for operation in Operation::ALL {
        for (status, count) in ["success", "error"].into_iter().zip(counts.operations(operation)) {
            counter!("fail2ban_database_operations_total", "operation" => operation.name(), "status" => status)
                .absolute(count);
        }
    }
    gauge!("fail2ban_database_connections_active").set((read(&counts.connections) + read(&counts.listening)) as f64);
    gauge!("fail2ban_database_enabled").set(f64::from(u8::from(status.enabled)));
    gauge!("fail2ban_database_connected").set(f64::from(u8::from(status.connected)));
    gauge!("fail2ban_state_writable").set(f64::from(u8::from(status.state_error.is_none())));
    if status.enabled {
        for (result, count) in ["success", "error"].into_iter().zip(&counts.reloads) {
            counter!("fail2ban_config_reloads_total", "source" => "database", "status" => result).absolute(read(count));
        }
    }
    for table in TableName::SETTINGS {
        let faulty = status.faulty.iter().find(|(of, _)| *of == table).map_or(0, |(_, count)| *count);
        gauge!("fail2ban_config_faulty_rows", "table" => table.name()).set(faulty as f64);
    }
    counter!("fail2ban_bans_stored_total").absolute(read(&counts.kept));
    counter!("fail2ban_bans_told_total").absolute(read(&counts.told));
    counter!("fail2ban_bans_unusable_total").absolute(read(&counts.unusable));
    gauge!("fail2ban_bans_untold").set(read(&counts.untold) as f64);
}

/// What is counted by pattern. Those that are too many for labels of their own are one together.
fn patterns(matched: &mut Vec<u64>, reports: &[&Report], policy: &Policy) {
    matched.resize(matched.len().max(policy.names.len()), 0);
    let (mut bans_of_others, mut current_of_others) = (0, 0);
    for ((at, known), matched) in policy.names.iter().enumerate().zip(matched) {
        let sum = |of: fn(&Report) -> &[u64]| -> u64 {
            reports.iter().map(|report| of(report).get(at).copied().unwrap_or(0)).sum()
        };
        let pattern = label(at, &known.name);
        let matches = sum(|report| report.counters.matches.counts());
        let severity = known.severity.level().to_string();
        // What is new counts for the severity and kind of now; what came under another stays there.
        let new = matches.saturating_sub(*matched);
        counter!("fail2ban_pattern_matches_total", "pattern" => pattern.clone(), "severity" => severity).increment(new);
        if let Some(kind) = known.kind {
            counter!("fail2ban_kind_matches_total", "kind" => kind.name()).increment(new);
        }
        *matched = matches.max(*matched);
        let bans = sum(|report| report.counters.bans.counts());
        let current = sum(|report| report.banned_by.counts());
        if at >= LABELLED_MAX {
            (bans_of_others, current_of_others) = (bans_of_others + bans, current_of_others + current);
            continue;
        }
        counter!("fail2ban_bans_total", "pattern" => pattern.clone()).absolute(bans);
        gauge!("fail2ban_current_bans", "pattern" => pattern).set(current as f64);
    }
    if policy.names.len() > LABELLED_MAX {
        counter!("fail2ban_bans_total", "pattern" => OTHERS).absolute(bans_of_others);
        gauge!("fail2ban_current_bans", "pattern" => OTHERS).set(current_of_others as f64);
    }
}

/// A pattern's label, by its number and name.
fn label(at: usize, name: &str) -> String {
    if at < LABELLED_MAX { plain(name) } else { OTHERS.to_owned() }
}

/// A name without what the exporter takes for an escape, so that two names stay two labels.
fn plain(name: &str) -> String {
    name.replace(['\\', '"'], "_")
}

/// Sums over all shards, of what each has said last. Only made when all have once: a sum without one of them would seem to
/// go back.
fn totals(reports: &[&Report]) {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(|report| of(report)).sum::<u64>();
    let size = |of: fn(&Report) -> usize| reports.iter().map(|report| of(report)).sum::<usize>() as f64;
    let set = |name: &'static str, label: (&'static str, &'static str), of: fn(&Report) -> u64| {
        counter!(name, label.0 => label.1).absolute(sum(of));
    };

    set("fail2ban_syslog_received_total", ("transport", "udp"), |r| r.counters.datagrams);
    set("fail2ban_syslog_received_total", ("transport", "tcp"), |r| r.counters.frames);
    set("fail2ban_syslog_records_total", ("result", "not_watched"), |r| r.counters.not_watched);
    set("fail2ban_syslog_records_total", ("result", "unmatched"), |r| r.counters.unmatched);
    set("fail2ban_syslog_records_total", ("result", "no_address"), |r| r.counters.no_address);
    set("fail2ban_syslog_records_total", ("result", "matched"), |r| r.counters.matches.counts().iter().sum());
    set("fail2ban_syslog_dropped_total", ("reason", "kernel_buffer_full"), |r| r.counters.datagrams_dropped);
    set("fail2ban_syslog_dropped_total", ("reason", "datagram_too_long"), |r| r.counters.datagrams_too_long);
    set("fail2ban_syslog_dropped_total", ("reason", "sender_not_allowed"), |r| r.counters.senders_refused);
    for (at, why) in Malformed::ALL.iter().enumerate() {
        let count = reports.iter().map(|report| report.counters.malformed[at]).sum();
        counter!("fail2ban_syslog_malformed_total", "reason" => why.name()).absolute(count);
    }
    for (at, why) in FrameFault::ALL.iter().enumerate() {
        let count = reports.iter().map(|report| report.counters.frame_faults[at]).sum();
        counter!("fail2ban_syslog_malformed_total", "reason" => format!("frame_{}", why.name())).absolute(count);
    }

    set("fail2ban_failures_total", ("result", "counted"), |r| r.counters.counted);
    set("fail2ban_failures_total", ("result", "already_banned"), |r| r.counters.already_banned);
    set("fail2ban_failures_total", ("result", "known"), |r| r.counters.known);
    set("fail2ban_failures_total", ("result", "banned"), |r| r.counters.banned);
    set("fail2ban_failures_total", ("result", "whitelisted"), |r| r.counters.allowed_matches);
    for service in Service::ASKED {
        let asked = |result: &'static str, of: fn(&Asked) -> u64| {
            let count = reports.iter().map(|report| of(&report.counters.asked[service as usize])).sum();
            counter!("fail2ban_requests_total", "service" => service.name(), "result" => result).absolute(count);
        };
        asked("allowed", |asked| asked.allowed);
        asked("denied", |asked| asked.denied);
        asked("unknown", |asked| asked.unknown);
        asked("other", |asked| asked.other);
        asked("refused", |asked| asked.refused);
        for (at, (status, _)) in Told::default().counts(service).enumerate() {
            let count = |report: &&Report| report.counters.told[service as usize].counts(service).nth(at);
            let count = reports.iter().filter_map(count).map(|(_, count)| count).sum();
            counter!("fail2ban_service_requests_total", "service" => service.name(), "status" => status)
                .absolute(count);
        }
    }
    let disconnects = |by: &'static str, of: fn(&Report) -> ByStatus| {
        let mut sums = [0; Status::ALL.len() + 1];
        for report in reports {
            sums.iter_mut().zip(of(report).counts()).for_each(|(sum, (_, count))| *sum += count);
        }
        for ((status, _), sum) in ByStatus::default().counts().zip(sums) {
            let status = status.map_or("other".to_owned(), |status| status.code().to_string());
            counter!("fail2ban_spoa_disconnects_total", "by" => by, "status" => status).absolute(sum);
        }
    };
    for (at, refusal) in Refusal::ALL.iter().enumerate() {
        let count = reports.iter().map(|report| report.counters.envoy_refused[at]).sum();
        counter!("fail2ban_envoy_refused_total", "reason" => refusal.name()).absolute(count);
    }
    for (at, why) in Why::FAULTS.iter().enumerate() {
        let count = reports.iter().map(|report| report.counters.envoy_broken[at]).sum();
        counter!("fail2ban_envoy_refused_total", "reason" => why.name()).absolute(count);
    }
    disconnects("haproxy", |r| r.counters.spoa_disconnects.by_haproxy);
    disconnects("agent", |r| r.counters.spoa_disconnects.by_agent);
    for service in Service::ALL {
        let at = service as usize;
        let count = |event: &'static str, value: u64| {
            counter!("fail2ban_connections_total", "service" => service.name(), "event" => event).absolute(value);
        };
        count("accepted", reports.iter().map(|r| r.counters.accepted[at]).sum());
        count("handed_over", reports.iter().map(|r| r.counters.handed_over[at]).sum());
        count("refused", reports.iter().map(|r| r.counters.refused[at]).sum());
        count("accept_failed", reports.iter().map(|r| r.counters.accept_faults[at]).sum());
        count("timed_out", reports.iter().map(|r| r.counters.timed_out[at]).sum());
    }

    gauge!("fail2ban_tracked", "what" => "counting").set(size(|r| r.counting));
    gauge!("fail2ban_tracked", "what" => "offenders").set(size(|r| r.remembered));
    counter!("fail2ban_evicted_total", "what" => "counting").absolute(sum(|r| r.evicted.0));
    counter!("fail2ban_evicted_total", "what" => "offenders").absolute(sum(|r| r.evicted.1));
    counter!("fail2ban_bans_learned_total").absolute(sum(|r| r.counters.learned));
    counter!("fail2ban_ingest_pauses_total").absolute(sum(|r| r.counters.pauses));
    counter!("fail2ban_replica_fell_behind_total").absolute(sum(|r| r.counters.fell_behind));
    counter!("fail2ban_replica_snapshots_total").absolute(sum(|r| r.counters.snapshots));
    counter!("fail2ban_events_dropped_total").absolute(sum(|r| r.counters.events_dropped));
}

/// What is only meaningful for one shard.
fn of_shard(shard: usize, report: &Report) {
    let shard = shard.to_string();
    gauge!("fail2ban_shard_replica_bans", "shard" => shard.clone()).set(report.replica as f64);
    gauge!("fail2ban_shard_policy_number", "shard" => shard.clone()).set(report.policy as f64);
    gauge!("fail2ban_shard_backlog", "shard" => shard.clone()).set(report.backlog as f64);
    gauge!("fail2ban_shard_matcher_cache_bytes", "shard" => shard.clone()).set(report.matcher_cache_bytes as f64);
    gauge!("fail2ban_replica_lag_max_seconds", "shard" => shard.clone())
        .set(report.counters.lag.max_nanos as f64 / 1e9);
    let questions = report.counters.asked.iter().map(|asked| asked.allowed + asked.denied).sum();
    counter!("fail2ban_shard_questions_total", "shard" => shard.clone()).absolute(questions);
    let records = report.counters.datagrams + report.counters.frames;
    counter!("fail2ban_shard_records_total", "shard" => shard.clone()).absolute(records);
    for service in Service::ALL {
        let connections = report.connections[service as usize] as f64;
        gauge!("fail2ban_shard_connections", "shard" => shard.clone(), "service" => service.name()).set(connections);
    }
}

/// Serves the metrics: each request is passed on to whoever asks the shards.
pub async fn serve(listener: TcpListener, path: &str, scrapes: mpsc::Sender<Scrape>) {
    // What looks like a parameter of axum 0.7 is a path like any other.
    let router = Router::new().without_v07_checks().route(path, get(answer)).with_state(scrapes);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Whoever finds no place waits in the kernel, and holds no file of ours.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let router = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _place = place;
            // What went wrong with a connection is its peer's business.
            let _ = http::builder().serve_connection(TokioIo::new(Patient::new(stream)), router).await;
        });
    }
}

async fn answer(State(scrapes): State<mpsc::Sender<Scrape>>) -> Response {
    let (scrape, rendered) = oneshot::channel();
    if scrapes.send(scrape).await.is_ok()
        && let Ok(text) = rendered.await
    {
        return ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response();
    }
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

//! Load for mailfail2ban and for what it is compared with: log lines, and the questions of HAProxy, Envoy and nginx.
//!
//! Written apart from the server: no code of it is used, so that what it says is judged by somebody else.

mod ask;
mod clients;
mod log;
mod metrics;
mod pace;
mod plot;
mod process;
mod reaction;
mod report;
mod send;
mod sink;
mod wire;

use anyhow::{Context, bail, ensure};
use ask::{Endpoint, Progress};
use clap::{Args, Parser, Subcommand};
use clients::Draw;
use indicatif::{ProgressBar, ProgressStyle};
use log::{Format, Log, Mix};
use metrics::Scrape;
use process::Process;
use report::{Counted, Lines, Meter, Report, Span, Tally, Used};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use wire::{Grpc, Http, HttpOptions, Session, Spop};

/// Puts load on mailfail2ban, or on what it is compared with, and says how it did.
///
/// With a rate, everything has a time at which it is due, and latency counts from there: a server that hangs for a second
/// is late for all that was due in it. Without a rate it is asked as fast as it answers.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 120,
    after_help = "\
Addresses: offender N is 198.18.0.0 + N (from 131072 on, 10.0.0.0 + N - 131072), innocent N is 100.64.0.0 + N. `offend` has \
offenders banned, and all other commands ask about the same ones.

Exit status: 0 all well, 1 something was wrong, lost or not answered, 2 the command line is wrong.

  mailfail2ban-load offend --to 127.0.0.1:5514 --offenders 10000
  mailfail2ban-load auth --to 127.0.0.1:8888 --offenders 10000 --for 10s --verify
  mailfail2ban-load syslog --to 127.0.0.1:5514 --udp --rate 100000 --metrics http://127.0.0.1:9300/metrics --verify"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// Measure the CPU time of this process; can be given several times
    #[arg(long, value_name = "NAME=PID", global = true)]
    pid: Vec<Process>,
    /// Where the server's metrics are, to see what became of log lines
    #[arg(long, value_name = "URL", global = true)]
    metrics: Option<String>,
    /// Fail unless every answer was right and every line arrived
    #[arg(long, global = true)]
    verify: bool,
    /// Write the result to this file, or to standard output with -
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// Say nothing but the result
    #[arg(long, global = true)]
    quiet: bool,
    /// Stay on this core
    #[arg(long, value_name = "CORE", global = true)]
    cpu: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends a mail log, a tenth of it failed logins
    Syslog(SyslogArgs),
    /// Fails to log in so often that clients are banned
    Offend(OffendArgs),
    /// Asks a SPOE agent, as HAProxy does
    Spoa(SpoaArgs),
    /// Asks a gRPC service, as Envoy's ext_authz filter does
    Authz(AuthzArgs),
    /// Asks an HTTP server, as nginx's auth_request does; also for anything behind a proxy
    Auth(AuthArgs),
    /// Sends log lines and asks questions at once
    Mixed(MixedArgs),
    /// Measures how long it takes from a failed login to a ban on every shard
    Reaction(ReactionArgs),
    /// Receives datagrams and does nothing with them: a yardstick
    Sink(SinkArgs),
    /// Draws results
    Plot(PlotArgs),
}

#[derive(Clone, Debug, Args)]
struct SyslogArgs {
    /// Where to send them
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "file")]
    to: Option<SocketAddr>,
    /// Over UDP, a line to a datagram (the default)
    #[arg(long, conflicts_with_all = ["tcp", "file"])]
    udp: bool,
    /// Over TCP, lines ended by newlines
    #[arg(long, conflicts_with = "file")]
    tcp: bool,
    /// Into a file instead; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    file: Option<PathBuf>,
    /// Lines to send
    #[arg(long, required_unless_present = "time")]
    count: Option<u64>,
    /// How long to send
    #[arg(long = "for", id = "time", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Lines a second; without it as many as are taken
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Sleep so long whenever no line is due, beside others on the same core; else it waits awake, and keeps a core busy
    #[arg(long, value_name = "TIME", requires = "rate", value_parser = humantime::parse_duration)]
    nap: Option<Duration>,
    /// TCP connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Have the kernel cut trains of lines into datagrams (UDP_SEGMENT); all lines are of one length then
    #[arg(long, requires = "udp")]
    gso: bool,
    #[command(flatten)]
    mix: MixArgs,
}

#[derive(Clone, Debug, Args)]
struct MixArgs {
    /// The share of failed logins
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    failing: f64,
    /// So many clients fail, one after the other
    #[arg(long, default_value_t = 100_000)]
    clients: u32,
    /// The number of the first one
    #[arg(long, default_value_t = 0)]
    first: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How lines are written; by default as rsyslog does
    #[arg(long)]
    format: Option<Format>,
}

impl MixArgs {
    fn log(&self, format: Format, length: Option<usize>) -> Log {
        let MixArgs { failing, clients, first, seed, .. } = *self;
        Log::new(Mix { seed, failing, clients, first, format: self.format.unwrap_or(format), length })
    }
}

#[derive(Clone, Debug, Args)]
struct OffendArgs {
    /// The server's syslog address; it is sent over TCP
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    #[arg(long, default_value_t = 100_000)]
    offenders: u32,
    /// The number of the first one
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Failed logins of each
    #[arg(long, default_value_t = 5)]
    failures: u32,
}

#[derive(Clone, Debug, Args)]
struct AskArgs {
    /// ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    to: Endpoint,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Questions under way on one connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Questions a second; without it as many as are answered
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// How long to ask
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Answers that are enough, instead of a time
    #[arg(long)]
    count: Option<u64>,
    /// Before counting begins
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Threads that ask
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    #[command(flatten)]
    whom: WhomArgs,
}

#[derive(Clone, Debug, Args)]
struct WhomArgs {
    /// The share of questions that are about offenders
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    denied: f64,
    /// So many offenders are asked about
    #[arg(long, default_value_t = 100_000)]
    offenders: u32,
    /// And so many others
    #[arg(long, default_value_t = 100_000)]
    innocents: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Debug, Args)]
struct SpoaArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// The message's name
    #[arg(long, default_value = "check-client-ip")]
    message: String,
    /// The name of its argument, the client's address
    #[arg(long, default_value = "src")]
    argument: String,
    /// Take any answer for one, of an agent that does not set `banned`; not with --verify
    #[arg(long)]
    any_answer: bool,
}

#[derive(Clone, Debug, Args)]
struct AuthzArgs {
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Clone, Debug, Args)]
struct AuthArgs {
    #[command(flatten)]
    ask: AskArgs,
    #[arg(long, default_value = "/auth")]
    path: String,
    /// The field that names the client
    #[arg(long, default_value = "X-Real-IP")]
    header: String,
    #[arg(long, default_value = "fail2ban")]
    host: String,
}

#[derive(Clone, Debug, Args)]
struct MixedArgs {
    /// Log lines over UDP to this address
    #[arg(long, value_name = "ADDRESS:PORT", requires = "syslog_rate")]
    syslog: Option<SocketAddr>,
    #[arg(long, value_parser = rate)]
    syslog_rate: Option<f64>,
    #[arg(long, value_name = "ADDRESS")]
    spoa: Option<Endpoint>,
    #[arg(long, value_parser = rate, default_value = "20000")]
    spoa_rate: f64,
    #[arg(long, value_name = "ADDRESS")]
    authz: Option<Endpoint>,
    #[arg(long, value_parser = rate, default_value = "20000")]
    authz_rate: f64,
    #[arg(long, value_name = "ADDRESS")]
    auth: Option<Endpoint>,
    #[arg(long, value_parser = rate, default_value = "20000")]
    auth_rate: f64,
    /// Connections of each kind of proxy
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    time: Duration,
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    #[command(flatten)]
    whom: WhomArgs,
    /// The share of log lines that are failed logins; they are those of the offenders asked about
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    failing: f64,
}

#[derive(Clone, Debug, Args)]
struct ReactionArgs {
    /// The server's syslog address; lines are sent over UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    syslog: SocketAddr,
    /// Where it is asked, over HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    auth: SocketAddr,
    /// Clients to have banned
    #[arg(long, default_value_t = 200)]
    count: u32,
    /// Failed logins that make a ban
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    failures: u32,
    /// The number of the first offender: nobody who has failed before
    #[arg(long, default_value_t = 120_000)]
    first: u32,
    /// Rest before each ban
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = humantime::parse_duration)]
    pause: Duration,
}

#[derive(Clone, Debug, Args)]
struct SinkArgs {
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Ends when nothing came for so long
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    silence: Duration,
}

#[derive(Clone, Debug, Args)]
struct PlotArgs {
    /// Results, as --json writes them
    #[arg(required = true)]
    results: Vec<PathBuf>,
    #[arg(long, value_name = "FILE.svg")]
    out: PathBuf,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is from 0 to 1".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "a rate is a number above 0, of things a second".to_owned())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mailfail2ban-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether all was well.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    let common = &cli.common;
    if let Some(core) = common.cpu {
        process::pin(core)?;
    }
    let report = match &cli.command {
        Command::Syslog(args) => syslog(args, common)?,
        Command::Offend(args) => offend(args, common)?,
        Command::Spoa(args) => {
            let SpoaArgs { ask: asked, message, argument, any_answer } = args;
            ensure!(!(*any_answer && common.verify), "--any-answer leaves nothing to --verify");
            let session = || Box::new(Spop::new(message, argument).taking_any_answer(*any_answer)) as Box<dyn Session>;
            ask("spoa", asked, common, &session)?
        }
        Command::Authz(args) => ask("authz", &args.ask, common, &|| Box::new(Grpc::new()))?,
        Command::Auth(args) => {
            let AuthArgs { ask: asked, path, header, host } = args.clone();
            let options = HttpOptions { path, host, header };
            ask("auth", &asked, common, &|| Box::new(Http::new(&options)))?
        }
        Command::Mixed(args) => return mixed(args, common),
        Command::Reaction(args) => reaction(args, common)?,
        Command::Sink(args) => {
            let received = sink::run(args.listen, args.silence, |address| eprintln!("listening on {address}"))?;
            write_json(common, &serde_json::to_value(received)?)?;
            println!(
                "received {} datagrams, {} bytes, {} system calls",
                received.received, received.bytes, received.system_calls
            );
            return Ok(true);
        }
        Command::Plot(args) => {
            plot::draw(&args.results, &args.out)?;
            return Ok(true);
        }
    };
    write_json(common, &serde_json::to_value(&report)?)?;
    Ok(tell(common, &report))
}

/// Prints a result, and says whether all was well.
fn tell(common: &Common, report: &Report) -> bool {
    if common.json.as_ref().is_none_or(|path| path.as_os_str() != "-") {
        println!("{}", report.print());
    }
    let faults = report.faults();
    let all_well = faults.is_empty() || !common.verify;
    if !all_well {
        eprintln!("mailfail2ban-load: not as it should be: {}", faults.join(", "));
    }
    all_well
}

fn write_json(common: &Common, result: &Value) -> anyhow::Result<()> {
    let Some(path) = &common.json else { return Ok(()) };
    let text = serde_json::to_string_pretty(result)? + "\n";
    if path.as_os_str() == "-" {
        print!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// A line on a terminal that says how far it is.
struct Telling(ProgressBar);

impl Telling {
    fn new(common: &Common) -> Telling {
        let bar = if common.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        Telling(bar)
    }

    fn tell(&self, done: u64, per_second: f64) {
        self.0.set_message(format!("{done} done, {per_second:.0}/s"));
        self.0.tick();
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Asks from some threads while this one keeps the time.
fn ask(
    command: &str,
    args: &AskArgs,
    common: &Common,
    session: &(dyn Fn() -> Box<dyn Session> + Sync),
) -> anyhow::Result<Report> {
    let threads = args.threads.min(args.connections);
    let share = |at: u32, of: u64| of / u64::from(threads) + u64::from(u64::from(at) < of % u64::from(threads));
    let plan = |at: u32| ask::Plan {
        to: args.to.clone(),
        session,
        connections: share(at, u64::from(args.connections)) as usize,
        depth: args.depth as usize,
        rate: args.rate.map(|rate| rate / f64::from(threads)),
        count: args.count.map(|count| share(at, count)),
        draw: Draw::new(args.whom.seed + u64::from(at), args.whom.denied, args.whom.offenders, args.whom.innocents),
    };
    let span = Span::new(args.warm_up, args.count.is_none().then_some(args.time));
    let progress = Progress::default();
    let (tally, used) = thread::scope(|scope| -> anyhow::Result<(Tally, Used)> {
        let askers: Vec<_> = (0..threads)
            .map(|at| {
                let progress = &progress;
                let plan = plan(at);
                scope.spawn(move || ask::run(&plan, span, progress))
            })
            .collect();
        let used = keep_time(common, span, &progress, || askers.iter().any(thread::ScopedJoinHandle::is_finished));
        progress.ends.store(true, Ordering::Relaxed);
        let mut all = Tally::new(span);
        for asker in askers {
            all.add(asker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok((all, used?))
    })?;
    let options = json!({
        "to": args.to.to_string(), "connections": args.connections, "depth": args.depth, "rate": args.rate,
        "threads": threads, "denied": args.whom.denied, "offenders": args.whom.offenders,
        "innocents": args.whom.innocents, "seed": args.whom.seed, "verify": common.verify,
    });
    Ok(Report::new(command, options, &tally, &used).with_questions(&tally))
}

/// Measures CPU from the span's beginning to its end, or until `is_over`, and tells how it goes.
fn keep_time(common: &Common, span: Span, progress: &Progress, is_over: impl Fn() -> bool) -> anyhow::Result<Used> {
    let telling = Telling::new(common);
    let until_next = |until: Option<Instant>| {
        let second = Duration::from_millis(if until.is_some() { 500 } else { 20 });
        until.map_or(second, |until| until.saturating_duration_since(Instant::now()).min(second))
    };
    while Instant::now() < span.from && !is_over() {
        thread::sleep(until_next(Some(span.from)));
    }
    let meter = Meter::start(&common.pid)?;
    let before = progress.done.load(Ordering::Relaxed);
    let begun = Instant::now();
    while span.until.is_none_or(|until| Instant::now() < until) && !is_over() {
        thread::sleep(until_next(span.until));
        let done = progress.done.load(Ordering::Relaxed) - before;
        telling.tell(done, done as f64 / begun.elapsed().as_secs_f64());
    }
    meter.stop()
}

fn syslog(args: &SyslogArgs, common: &Common) -> anyhow::Result<Report> {
    let segments = args.gso.then_some(256);
    let sink = match (&args.file, args.to) {
        (Some(path), _) => send::Sink::File(path.clone()),
        (None, Some(to)) if args.tcp => send::Sink::Tcp { to, connections: usize::from(args.connections) },
        (None, Some(to)) => send::Sink::Udp { to, segments },
        (None, None) => bail!("--to or --file is missing"),
    };
    let mut log = args.mix.log(send::usual_format(&sink), segments);
    let plan = send::Plan { sink, rate: args.rate, count: args.count, nap: args.nap };
    let before = common.metrics.as_deref().map(Scrape::get).transpose()?;
    let telling = Telling::new(common);
    let meter = Meter::start(&common.pid)?;
    let span = Span::new(Duration::ZERO, args.time);
    let mut told = span.start;
    let (sent, tally) = send::run(&plan, &mut log, span, |lines| {
        let now = Instant::now();
        if now > told + Duration::from_millis(500) {
            told = now;
            telling.tell(lines, lines as f64 / span.start.elapsed().as_secs_f64());
        }
    })?;
    let sending = span.start.elapsed().as_secs_f64();
    let counted = match (&common.metrics, &before) {
        (Some(url), Some(before)) => Some(counted(url, before, sent.lines)?),
        _ => {
            // What was sent last is still being worked on.
            thread::sleep(Duration::from_millis(200));
            None
        }
    };
    let used = Used { seconds: sending, ..meter.stop()? };
    let options = json!({
        "to": args.to, "file": args.file, "transport": if args.tcp { "tcp" } else { "udp" }, "rate": args.rate,
        "connections": args.connections, "gso": args.gso, "failing": args.mix.failing, "clients": args.mix.clients,
        "nap": args.nap.map(|nap| nap.as_secs_f64()), "first": args.mix.first, "seed": args.mix.seed, "verify": common.verify,
    });
    let lines = Lines { sent: sent.lines, failing: sent.failing, counted };
    Ok(Report::new("syslog", options, &tally, &used).with_lines(lines))
}

/// What became of `lines` lines that were sent.
fn counted(url: &str, before: &Scrape, lines: u64) -> anyhow::Result<Counted> {
    let after = metrics::after(url, before, lines)?;
    let received = (after.lines_received() - before.lines_received()) as u64;
    let matched = (after.lines_matched() - before.lines_matched()) as u64;
    Ok(Counted { received, matched, lost: lines.saturating_sub(received) })
}

fn offend(args: &OffendArgs, common: &Common) -> anyhow::Result<Report> {
    let mix = MixArgs { failing: 1.0, clients: 1, first: 0, seed: 1, format: None };
    let mut log = mix.log(Format::Rfc3164, None);
    let telling = Telling::new(common);
    let before = common.metrics.as_deref().map(Scrape::get).transpose()?;
    let meter = Meter::start(&common.pid)?;
    let span = Span::new(Duration::ZERO, None);
    let mut made = 0;
    let lines = (0..args.offenders).flat_map(|number| (0..args.failures).map(move |_| number)).map(|number| {
        let mut line = Vec::new();
        log.push_failure_of(clients::offender(args.first + number), &mut line);
        made += 1;
        if made % 100_000 == 0 {
            telling.tell(made, made as f64 / span.start.elapsed().as_secs_f64());
        }
        line
    });
    let sent = send::send_lines(args.to, lines)?;
    let sending = span.start.elapsed().as_secs_f64();
    let counted = match (&common.metrics, &before) {
        (Some(url), Some(before)) => Some(counted(url, before, sent)?),
        _ => None,
    };
    let mut tally = Tally::new(span);
    tally.done(Instant::now(), sent);
    let used = Used { seconds: sending, ..meter.stop()? };
    let options = json!({
        "to": args.to, "offenders": args.offenders, "first": args.first, "failures": args.failures,
    });
    Ok(Report::new("offend", options, &tally, &used).with_lines(Lines { sent, failing: sent, counted }))
}

fn reaction(args: &ReactionArgs, common: &Common) -> anyhow::Result<Report> {
    let metrics = common.metrics.clone().context("`reaction` needs --metrics, to find a connection to each shard")?;
    let mix = MixArgs { failing: 1.0, clients: 1, first: 0, seed: 1, format: None };
    let mut log = mix.log(Format::Rfc3164, None);
    let ReactionArgs { syslog, auth, count, failures, first, pause } = *args;
    let plan = reaction::Plan { syslog, auth, metrics, count, failures, first, pause };
    let telling = Telling::new(common);
    let meter = Meter::start(&common.pid)?;
    let span = Span::new(Duration::ZERO, None);
    let tally = reaction::run(&plan, &mut log, span, |done| {
        telling.tell(done, done as f64 / span.start.elapsed().as_secs_f64());
    })?;
    let options = json!({ "count": count, "failures": failures, "first": first });
    Ok(Report::new("reaction", options, &tally, &meter.stop()?))
}

/// Everything at once, each in a thread of its own.
fn mixed(args: &MixedArgs, common: &Common) -> anyhow::Result<bool> {
    let whom = &args.whom;
    let plan = |to: &Endpoint, rate, session| ask::Plan {
        to: to.clone(),
        session,
        connections: args.connections as usize,
        depth: args.depth as usize,
        rate: Some(rate),
        count: None,
        draw: Draw::new(whom.seed, whom.denied, whom.offenders, whom.innocents),
    };
    let options = HttpOptions { path: "/auth".into(), host: "fail2ban".into(), header: "X-Real-IP".into() };
    let spop = || Box::new(Spop::new("check-client-ip", "src")) as Box<dyn Session>;
    let grpc = || Box::new(Grpc::new()) as Box<dyn Session>;
    let http = move || Box::new(Http::new(&options)) as Box<dyn Session>;
    let asked: Vec<(&str, ask::Plan<'_>)> = [
        args.spoa.as_ref().map(|to| ("spoa", plan(to, args.spoa_rate, &spop))),
        args.authz.as_ref().map(|to| ("authz", plan(to, args.authz_rate, &grpc))),
        // One question at a time is what nginx asks on a connection.
        args.auth.as_ref().map(|to| ("auth", ask::Plan { depth: 1, ..plan(to, args.auth_rate, &http) })),
    ]
    .into_iter()
    .flatten()
    .collect();
    if asked.is_empty() && args.syslog.is_none() {
        bail!("nothing to do: name one or more of --syslog, --spoa, --authz, --auth");
    }
    let before = common.metrics.as_deref().map(Scrape::get).transpose()?;
    let span = Span::new(args.warm_up, Some(args.time));
    let progress = Progress::default();
    let (parts, sent, used) = thread::scope(|scope| -> anyhow::Result<_> {
        let askers: Vec<_> =
            asked.iter().map(|(name, plan)| (*name, scope.spawn(|| ask::run(plan, span, &progress)))).collect();
        let sender = args.syslog.map(|to| {
            let mix = Mix {
                seed: whom.seed,
                failing: args.failing,
                clients: whom.offenders,
                first: 0,
                format: Format::Rfc3164,
                length: None,
            };
            let sink = send::Sink::Udp { to, segments: None };
            // Those who ask are perhaps on the same core.
            let nap = Some(Duration::from_millis(1));
            let plan = send::Plan { sink, rate: args.syslog_rate, count: None, nap };
            scope.spawn(move || send::run(&plan, &mut Log::new(mix), span, |_| ()))
        });
        let used = keep_time(common, span, &progress, || askers.iter().any(|(_, asker)| asker.is_finished()))?;
        let mut parts = Vec::new();
        for (name, asker) in askers {
            parts.push((name, asker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?));
        }
        let sent = sender.map(|sender| sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Ok((parts, sent.transpose()?, used))
    })?;
    let no_cpu = Used { seconds: used.seconds, cpu: Default::default() };
    let mut reports: Vec<Report> = parts
        .iter()
        .map(|(name, tally)| Report::new(name, Value::Null, tally, &no_cpu).with_questions(tally))
        .collect();
    if let Some((sent, tally)) = &sent {
        let counted = match (&common.metrics, &before) {
            (Some(url), Some(before)) => Some(counted(url, before, sent.lines)?),
            _ => None,
        };
        let lines = Lines { sent: sent.lines, failing: sent.failing, counted };
        reports.push(Report::new("syslog", Value::Null, tally, &no_cpu).with_lines(lines));
    }
    let result = json!({
        "tool": "mailfail2ban-load", "version": env!("CARGO_PKG_VERSION"), "command": "mixed", "seconds": used.seconds,
        "cpu": used.cpu.iter().map(|(name, seconds)| (name.clone(), json!({ "seconds": seconds }))).collect::<serde_json::Map<_, _>>(),
        "parts": reports,
    });
    write_json(common, &result)?;
    for (name, seconds) in &used.cpu {
        println!("CPU of {name}: {seconds:.2} s of {:.2} s", used.seconds);
    }
    let unwell = reports.iter().filter(|report| !tell(common, report)).count();
    Ok(unwell == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let parse = |text: &str| Cli::try_parse_from(text.split(' '));
        assert!(parse("load auth --to 127.0.0.1:1 --rate 5 --for 2s --verify --pid a=1").is_ok());
        assert!(parse("load auth --to unix:/x --count 5").is_ok());
        for wrong in [
            "load auth",
            "load auth --to x",
            "load auth --to 127.0.0.1:1 --rate 0",
            "load auth --to 127.0.0.1:1 --denied 2",
            "load syslog --to 127.0.0.1:1",
            "load syslog --to 127.0.0.1:1 --count 1 --udp --tcp",
            "load syslog --to 127.0.0.1:1 --count 1 --nap 1ms",
            "load mixed --syslog 127.0.0.1:1",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

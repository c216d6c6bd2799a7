//! How long it takes from the log line that makes it too many to the first refusal, on every shard.
//!
//! Each shard has a connection of its own, found by the server's metrics. Once the last line is sent, each is asked about
//! the client until it refuses. What is measured is when that refusal was heard: one question and its answer are in it.

use crate::clients::offender;
use crate::log::Log;
use crate::metrics::Scrape;
use crate::report::{Span, Tally};
use crate::wire::{Http, HttpOptions, Session, Verdict};
use anyhow::{Context, bail, ensure};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How often to try to get a connection to each shard.
const TRIES: usize = 256;

/// A ban that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be measured.
pub struct Plan {
    pub syslog: SocketAddr,
    pub auth: SocketAddr,
    pub metrics: String,
    pub count: u32,
    /// Failed logins that make a ban.
    pub failures: u32,
    /// The first client's number: nobody who has failed before.
    pub first: u32,
    /// Between two clients.
    pub pause: Duration,
}

/// Bans `count` clients, one after the other. The tally's latencies are from the line to the last shard's refusal.
///
/// # Errors
///
/// No server, or one that does not ban.
pub fn run(plan: &Plan, log: &mut Log, span: Span, mut progress: impl FnMut(u64)) -> anyhow::Result<Tally> {
    let mut shards = connect(plan)?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(plan.syslog)?;
    let mut tally = Tally::new(span);
    for number in 0..plan.count {
        let client = offender(plan.first + number);
        for _ in 1..plan.failures {
            fail(&socket, log, client)?;
        }
        std::thread::sleep(plan.pause);
        for shard in &mut shards {
            ensure!(shard.ask(client)? == Verdict::Allowed, "{client} is banned before it has failed often enough");
        }
        let begun = Instant::now();
        fail(&socket, log, client)?;
        for shard in &mut shards {
            while shard.ask(client)? != Verdict::Denied {
                ensure!(begun.elapsed() < PATIENCE, "{client} is not banned after {PATIENCE:?}");
            }
        }
        let now = Instant::now();
        tally.done(now, 1);
        tally.took(begun, now);
        tally.denied += 1;
        progress(u64::from(number) + 1);
    }
    Ok(tally)
}

fn fail(socket: &UdpSocket, log: &mut Log, client: Ipv4Addr) -> anyhow::Result<()> {
    let mut line = Vec::new();
    log.push_failure_of(client, &mut line);
    socket.send(&line).context("nobody receives log lines")?;
    Ok(())
}

/// A connection to each shard.
fn connect(plan: &Plan) -> anyhow::Result<Vec<Asker>> {
    const QUESTIONS: &str = "fail2ban_shard_questions_total";
    let count = Scrape::get(&plan.metrics)?.by_shard(QUESTIONS).len();
    let mut by_shard: BTreeMap<String, Asker> = BTreeMap::new();
    for _ in 0..TRIES {
        if by_shard.len() == count {
            return Ok(by_shard.into_values().collect());
        }
        let mut asker = Asker::connect(plan.auth)?;
        let before = Scrape::get(&plan.metrics)?.by_shard(QUESTIONS);
        asker.ask(crate::clients::innocent(0))?;
        let after = Scrape::get(&plan.metrics)?.by_shard(QUESTIONS);
        let asked: Vec<&String> =
            after.iter().filter(|(shard, now)| before.get(*shard) != Some(now)).map(|(shard, _)| shard).collect();
        match asked[..] {
            [shard] => drop(by_shard.insert(shard.clone(), asker)),
            [] => bail!("the metrics at {} do not count questions asked at {}", plan.metrics, plan.auth),
            _ => {} // somebody else asks, too
        }
    }
    bail!("{} of {count} shards were reached by {TRIES} connections", by_shard.len())
}

struct Asker {
    stream: TcpStream,
    session: Http,
}

impl Asker {
    fn connect(to: SocketAddr) -> anyhow::Result<Asker> {
        let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let options = HttpOptions { path: "/auth".into(), host: "fail2ban".into(), header: "X-Real-IP".into() };
        Ok(Asker { stream, session: Http::new(&options) })
    }

    fn ask(&mut self, client: Ipv4Addr) -> anyhow::Result<Verdict> {
        let (mut out, mut answers, mut input) = (Vec::new(), Vec::new(), Vec::new());
        self.session.ask(client, &mut out);
        self.stream.write_all(&out)?;
        let mut buffer = [0; 4096];
        loop {
            let count = self.stream.read(&mut buffer)?;
            ensure!(count > 0, "connection closed");
            input.extend(&buffer[..count]);
            let used = self.session.read(&input, &mut out, &mut answers)?;
            input.drain(..used);
            if let Some((_, verdict)) = answers.pop() {
                return Ok(verdict);
            }
        }
    }
}

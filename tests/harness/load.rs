//! What makes it hard for a proxy: many clients at once, and a program that hangs.

use super::peers::{http_from, http_status, wait_for_steady};
use super::{DEADLINE, Server, record, run_command, tool};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients that ask for `/` one time after the other, on connections that they keep, until they are told to leave.
pub struct Visitors {
    leave: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    visitors: Vec<JoinHandle<Seen>>,
}

/// What visitors have seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How often which status, and which error.
    pub outcomes: BTreeMap<String, u64>,
    /// The longest that one had to wait for an answer.
    pub longest: Duration,
}

impl Visitors {
    /// `count` of them, all from the address `client`.
    pub fn come(count: usize, client: IpAddr, to: SocketAddr) -> Visitors {
        let leave = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let visitor = || {
            let (leave, served) = (Arc::clone(&leave), Arc::clone(&served));
            std::thread::spawn(move || visit(client, to, &leave, &served))
        };
        let visitors = (0..count).map(|_| visitor()).collect();
        Visitors { leave, served, visitors }
    }

    /// How many answers they have got so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }

    /// Waits until they have got `count` more answers.
    #[track_caller]
    pub fn wait_for(&self, count: u64) {
        let until = self.served() + count;
        super::wait_for("visitors to be answered", || (self.served() >= until).then_some(()));
    }

    /// Sends them away.
    pub fn leave(self) -> Seen {
        self.leave.store(true, Ordering::SeqCst);
        let mut all = Seen::default();
        for visitor in self.visitors {
            let seen = visitor.join().expect("a visitor");
            for (outcome, count) in seen.outcomes {
                *all.outcomes.entry(outcome).or_default() += count;
            }
            all.longest = all.longest.max(seen.longest);
        }
        all
    }
}

fn visit(client: IpAddr, to: SocketAddr, leave: &AtomicBool, served: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut kept = None;
    while !leave.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let outcome = (|| -> io::Result<u16> {
            let mut http = match kept.take() {
                Some(http) => http,
                None => http_from(client, to)?,
            };
            let answer = http.get("/", &[])?;
            // A proxy ends a connection after so many requests.
            if !answer.field("Connection").is_some_and(|field| field.eq_ignore_ascii_case("close")) {
                kept = Some(http);
            }
            Ok(answer.status)
        })();
        let outcome = outcome.map_or_else(|why| why.to_string(), |status| status.to_string());
        *seen.outcomes.entry(outcome).or_default() += 1;
        seen.longest = seen.longest.max(begun.elapsed());
        served.fetch_add(1, Ordering::SeqCst);
    }
    seen
}

/// Has the program hang, until it is sent SIGCONT. When this returns, none of its threads answers any more.
#[track_caller]
pub fn freeze(server: &Server) {
    server.signal(libc::SIGSTOP);
    let tasks = format!("/proc/{}/task", server.pid());
    super::wait_for("every thread to stop", || {
        let mut tasks = fs::read_dir(&tasks).expect("the threads of the program");
        let stopped = tasks.all(|task| {
            let status = task.and_then(|task| fs::read_to_string(task.path().join("status")));
            status.is_ok_and(|status| status.contains("State:\tT"))
        });
        stopped.then_some(())
    });
}

/// Has `count` clients ask for `url` at full speed with wrk, and records what it says. It is a failure if one of them
/// gets another answer than 2xx, or none.
#[track_caller]
pub fn wrk(what: &str, count: usize, seconds: u32, url: &str) {
    let begun = Instant::now();
    let text = loop {
        let mut command = tool("wrk");
        // A slow machine is no error: an answer may take long.
        command.args(["--threads", "1", "--latency", "--timeout", "30s", "--connections", &count.to_string()]);
        command.args(["--duration", &format!("{seconds}s"), url]);
        let output = run_command(command, b"");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        // On a machine that is busy with something else they may not even have connected in that time.
        if !text.contains("\n  0 requests in ") || begun.elapsed() > DEADLINE {
            break text;
        }
    };
    for fault in ["Socket errors", "Non-2xx"] {
        assert!(!text.contains(fault), "{text}");
    }
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("wrk does not say {name}:\n{text}")).trim().to_owned()
    };
    let (rate, median, slowest) = (figure("Requests/sec:"), figure("50%"), figure("99%"));
    assert_ne!(rate, "0.00", "{text}");
    record(&format!("{what}: {count} clients, {rate} requests/s, half within {median}, 99% within {slowest}"));
}

/// Has `count` clients ask for `url` `requests` times in all over HTTP/2, and records what h2load says. It is a failure
/// if one of them gets another answer than 2xx, or none.
#[track_caller]
pub fn h2load(what: &str, count: usize, requests: usize, url: &str) {
    let mut command = tool("h2load");
    command.args(["--threads", "1", "--clients", &count.to_string(), "--requests", &requests.to_string(), url]);
    let output = run_command(command, b"");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = |begin: &str| {
        let line = text.lines().find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("h2load does not say {begin}\n{text}"))
    };
    assert!(line("requests:").contains(&format!(" {requests} succeeded, 0 failed, 0 errored, 0 timeout")), "{text}");
    assert!(line("status codes:").starts_with(&format!("status codes: {requests} 2xx, ")), "{text}");
    record(&format!("{what}, HTTP/2: {count} clients, {}; {}", line("finished in"), line("time for request:")));
}

/// What a load balancer (127.0.0.3) and a client (127.0.0.2) say in X-Forwarded-For, and the status that is answered where
/// the former is trusted and 198.51.100.7 banned.
pub const FORWARDED: [(IpAddr, &str, u16); 5] = [
    (BALANCER, "198.51.100.7", 403),
    (BALANCER, "192.0.2.1, 198.51.100.7", 403),
    (BALANCER, "198.51.100.7, 192.0.2.1", 200),
    (BALANCER, "::ffff:198.51.100.7", 403),
    (CLIENT, "198.51.100.7", 200),
];

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// Restarts the program under visitors to the proxy at `web`, as a supervisor does it and without a farewell. All of them
/// must get their answers; that some were let in unasked must be seen in `failed`, what the proxy counts. `banned` is on the
/// program's blacklist.
#[track_caller]
pub fn restart_under_load(server: Server, web: SocketAddr, banned: IpAddr, failed: impl Fn() -> u64) -> Server {
    let visitors = Visitors::come(8, BALANCER, web);
    visitors.wait_for(200);
    assert_eq!(failed(), 0);
    let refuses = || wait_for_steady("refusals", 10, || http_status(banned, web).is_ok_and(|status| status == 403));
    let starts = |config| Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));

    let config = server.config.clone();
    let begun = Instant::now();
    server.stop();
    visitors.wait_for(200);
    let server = starts(config);
    let taken = refuses();
    record(&format!("restarted in {:?}, refuses again {taken:?} after that", begun.elapsed()));
    visitors.wait_for(200);

    let config = server.config.clone();
    server.signal(libc::SIGKILL);
    server.wait_for_end();
    visitors.wait_for(200);
    let server = starts(config);
    refuses();
    visitors.wait_for(200);
    let failed = failed();
    let seen = visitors.leave();
    assert_eq!(seen.outcomes.keys().collect::<Vec<_>>(), ["200"], "{seen:?}");
    assert!(failed > 0, "it was away");
    record(&format!("{:?}, {failed} of them without an answer, the longest took {:?}", seen.outcomes, seen.longest));
    server
}

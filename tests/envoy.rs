//! Envoy asks, with the file of `scripts/examples/envoy`: its web listener with the HTTP filter, its mail listeners with
//! the network filter.

#![allow(clippy::disallowed_methods, reason = "tests measure how long a client waits")]

mod harness;

use harness::load::{FORWARDED, freeze, h2load, restart_under_load, wrk};
use harness::peers::{
    Heard, IMAP_GREETING, ORIGIN_BODY, Origin, Peer, Program, SMTP_GREETING, Talk, connect_from, http_from, replace,
    shipped, wait_for_steady,
};
use harness::{Answer, Config, Directory, Http, Server, free_port, has_ipv6, need, record, run_command, wait_for};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BANNED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

const EXAMPLE: &str = "scripts/examples/envoy/envoy.yaml";

/// Names of counters of Envoy.
const HTTP_FAILED_OPEN: &str = "http.web.ext_authz.mailfail2ban.failure_mode_allowed";
const TCP_FAILED_OPEN: &str = "ext_authz.mailfail2ban.failure_mode_allowed";

/// A change to the example: what stands in there, and what shall.
type Change<'a> = (&'a str, &'a str);

/// Takes the time limits out of it.
const PATIENT: [Change<'static>; 4] = [
    ("connect_timeout: 0.09s", "connect_timeout: 30s"),
    ("timeout: 0.09s", "timeout: 30s"),
    ("          timeout: 0.5s", "          timeout: 30s"),
    ("interval: 5s, timeout: 1s", "interval: 5s, timeout: 30s"),
];

/// These changes, and no time limits.
fn patient<'a>(changes: &[Change<'a>]) -> Vec<Change<'a>> {
    PATIENT.iter().chain(changes).copied().collect()
}

fn program() -> Option<Program> {
    Program::unpacked("envoy/_bin/envoy", None)
}

/// Envoy with the example file, and servers behind it.
struct Envoy {
    peer: Peer,
    _directory: Directory,
    web: SocketAddr,
    imap: SocketAddr,
    submission: SocketAddr,
    admin: SocketAddr,
    origins: Origins,
}

struct Origins {
    web: Origin,
    imap: Origin,
    smtp: Origin,
}

impl Envoy {
    /// Starts it in front of `server`. If it is not there, the calling test is skipped. It waits for answers as long as a
    /// test does: on a machine that is busy with other tests, the limits of the example may be reached.
    #[track_caller]
    fn start(server: &Server) -> Option<Envoy> {
        Envoy::start_changed(server, &PATIENT)
    }

    /// Starts it with these changes only.
    #[track_caller]
    fn start_changed(server: &Server, changes: &[Change<'_>]) -> Option<Envoy> {
        let program = program()?;
        let directory = Directory::new();
        let origins = Origins { web: Origin::http(), imap: Origin::imap(), smtp: Origin::smtp() };
        let [web, imap, submission, admin] = [(); 4].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let listen = |port: SocketAddr| match has_ipv6() {
            true => format!("{{ address: \"::\", port_value: {}, ipv4_compat: true }}", port.port()),
            false => format!("{{ address: 127.0.0.1, port_value: {} }}", port.port()),
        };
        let listens = [(80, web), (143, imap), (587, submission)]
            .map(|(from, to)| (format!("{{ address: \"::\", port_value: {from}, ipv4_compat: true }}"), listen(to)));
        let to = |address: SocketAddr| format!("{{ address: {}, port_value: {} }}", address.ip(), address.port());
        let local = |port: u16| to((Ipv4Addr::LOCALHOST, port).into());
        let addresses = [
            (local(9901), to(admin)),
            (local(9001), to(server.config.envoy)),
            (local(20000), to(origins.web.address)),
            (local(10143), to(origins.imap.address)),
            (local(10587), to(origins.smtp.address)),
        ];
        // The changes first: they are written in terms of the file as it is.
        let text = replace(&shipped(EXAMPLE), changes);
        let text = listens.iter().chain(&addresses).fold(text, |text, (from, to)| match text.contains(from) {
            true => replace(&text, &[(from, to)]),
            // Only a change may have taken it out.
            false if changes.iter().any(|(changed, _)| changed.contains(from.as_str())) => text,
            false => panic!("there is no {from} in the example"),
        });
        let file = directory.file("envoy.yaml", text);
        let mut command = program.command();
        command.arg("-c").arg(file);
        // Four threads that ask, each on its own connection: with two, the health check's connection can be the only one
        // on a shard. Its log is written often, for the tests that wait for it.
        command.args(["--disable-hot-restart", "--concurrency", "4", "--file-flush-interval-msec", "50"]);
        command.args(["--log-level", "warning"]);
        let mut peer = Peer::start(command);
        for port in [admin, web, imap, submission] {
            peer.wait_for_port(port);
        }
        Some(Envoy { peer, _directory: directory, web, imap, submission, admin, origins })
    }

    /// Its answer to `GET /` from `client`.
    #[track_caller]
    fn get(&self, client: IpAddr, fields: &[(&str, &str)]) -> Answer {
        let answer = http_from(client, at(self.web, client)).and_then(|mut http| http.get("/", fields));
        answer.unwrap_or_else(|why| panic!("no answer to {client}: {why}\n{}", self.peer.text()))
    }

    /// The status of that answer.
    #[track_caller]
    fn status(&self, client: IpAddr) -> u16 {
        self.get(client, &[]).status
    }

    /// What its administration says.
    #[track_caller]
    fn administration(&self, path: &str) -> String {
        let mut http = Http::connect(self.admin).expect("its administration");
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        http.send(request.as_bytes()).expect("to ask it");
        String::from_utf8_lossy(&http.read_to_end()).into_owned()
    }

    /// A counter, 0 if there is none yet.
    #[track_caller]
    fn stat(&self, name: &str) -> u64 {
        let text = self.administration(&format!("/stats?filter=^{name}$"));
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map_or(0, |value| value.trim().parse().expect("a number"))
    }

    /// How long questions took, in its eyes.
    fn times(&self) -> String {
        let name = "cluster.mailfail2ban.upstream_rq_time: ";
        let text = self.administration("/stats?filter=^cluster.mailfail2ban.upstream_rq_time$");
        text.lines().find(|line| line.starts_with(name)).unwrap_or("no question has ended").to_owned()
    }

    /// Whether it takes the program for healthy.
    fn health(&self) -> String {
        let text = self.administration("/clusters");
        let flags = text.lines().find(|line| line.starts_with("mailfail2ban::") && line.contains("::health_flags::"));
        flags.and_then(|line| line.rsplit("::").next()).unwrap_or_default().trim().to_owned()
    }

    #[track_caller]
    fn wait_for_health(&self, healthy: bool) {
        wait_for(&format!("healthy to be {healthy}"), || ((self.health() == "healthy") == healthy).then_some(()));
    }

    /// Waits for a line of its log that holds all of `parts`.
    #[track_caller]
    fn wait_for_line(&mut self, parts: &[&str]) -> String {
        self.peer.wait_for_line(&format!("{parts:?}"), |line| parts.iter().all(|part| line.contains(part)))
    }

    fn stop(self) {
        self.peer.stop();
    }
}

/// The same port, in the client's family.
fn at(to: SocketAddr, client: IpAddr) -> SocketAddr {
    if client.is_ipv6() { SocketAddr::new(IPV6, to.port()) } else { to }
}

/// A server that refuses 127.0.0.2.
fn refusing(config: Config) -> Server {
    Server::start(config.set("ban.blacklist", format!("[{BANNED}]")))
}

/// What a client of a mail port hears: the greeting, and what follows after the header of the PROXY protocol, which the
/// origin takes for a command, and a command.
#[track_caller]
fn converse(client: IpAddr, port: SocketAddr) -> [Heard; 2] {
    let mut talk = Talk::from(client, at(port, client)).expect("a connection");
    let hello = talk.hear();
    let header = talk.hear();
    assert!(matches!(&header, Heard::Line(line) if line == "PROXY OK done" || line == "250 ok"), "{header:?}");
    talk.say("a1 NOOP");
    [hello, talk.hear()]
}

fn line(text: &str) -> Heard {
    Heard::Line(text.to_owned())
}

#[test]
fn the_example_is_valid_as_it_is() {
    let Some(program) = program() else { return };
    let directory = Directory::new();
    let mut command = program.command();
    command.args(["--mode", "validate", "-c"]).arg(directory.file("envoy.yaml", shipped(EXAMPLE)));
    let output = run_command(command, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let warnings: Vec<&str> =
        said.lines().filter(|line| line.contains("[warning]") || line.contains("deprecated")).collect();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_client_that_fails_five_times_is_refused_until_its_ban_ends() {
    let server = Server::start(Config::new().set("ban.initial_ban_time", "2s"));
    let Some(mut envoy) = Envoy::start(&server) else { return };
    assert_eq!(envoy.status(BANNED), 200);
    server.fail(&BANNED.to_string(), 4);
    server.wait_for_failures(4);
    assert_eq!(envoy.status(BANNED), 200, "four failures do not ban");
    server.fail(&BANNED.to_string(), 1);
    let refusal = wait_for("a refusal", || {
        let answer = envoy.get(BANNED, &[]);
        // On a machine that stands still for seconds the ban may be over before anybody has looked.
        if answer.status == 200 && server.banned().len() as u64 == server.metrics().get("fail2ban_bans_total", &[]) {
            server.fail(&BANNED.to_string(), 5);
        }
        (answer.status == 403).then_some(answer)
    });
    assert_eq!(refusal.field("x-fail2ban-status"), Some("denied"));
    assert_eq!(refusal.field("x-fail2ban-ip"), Some("127.0.0.2"));
    assert_eq!(refusal.field("x-fail2ban-reason"), Some("dovecot-login"));
    let seconds: u64 = refusal.field("retry-after").expect("how long").parse().expect("a number");
    assert!((1..=16).contains(&seconds), "{seconds}");
    let body: serde_json::Value = serde_json::from_str(&refusal.body).expect("a body in JSON");
    assert_eq!((&body["status"], &body["ip"]), (&"denied".into(), &"127.0.0.2".into()));
    for client in if has_ipv6() { vec![OTHER, IPV6] } else { vec![OTHER] } {
        let answer = envoy.get(client, &[]);
        assert_eq!((answer.status, answer.body.as_str()), (200, ORIGIN_BODY));
    }
    wait_for("the end of the ban", || (envoy.status(BANNED) == 200).then_some(()));
    envoy.wait_for_line(&["] 127.0.0.2 \"GET /\" 403 ", "details=ext_authz_denied", "reason=dovecot-login"]);
    envoy.wait_for_line(&["] 127.0.0.3 \"GET /\" 200 ", "failed_open=-"]);
    assert_eq!(envoy.stat(HTTP_FAILED_OPEN), 0);
    let metrics = server.metrics();
    assert!(metrics.get("fail2ban_requests_total", &[("service", "envoy"), ("result", "denied")]) > 0);
    assert!(metrics.get("fail2ban_requests_total", &[("service", "envoy"), ("result", "allowed")]) > 0);
    envoy.stop();
    server.stop();
}

#[test]
fn mail_ports_greet_everybody_and_cut_who_is_banned_when_it_speaks() {
    let server = Server::start(Config::new());
    let Some(mut envoy) = Envoy::start(&server) else { return };
    let ports = [(envoy.imap, IMAP_GREETING, "a1 OK done"), (envoy.submission, SMTP_GREETING, "250 ok")];
    for (port, hello, done) in ports {
        assert_eq!(converse(BANNED, port), [line(hello), line(done)]);
    }
    server.fail(&BANNED.to_string(), 5);
    server.wait_for_ban(&BANNED.to_string(), 1);
    for (port, hello, done) in ports {
        wait_for_steady("refusals", 10, || converse(BANNED, port) == [line(hello), Heard::Closed]);
        assert_eq!(converse(OTHER, port), [line(hello), line(done)]);
        if has_ipv6() {
            assert_eq!(converse(IPV6, port), [line(hello), line(done)]);
        }
    }
    let commands = envoy.origins.imap.requests();
    assert_eq!(converse(BANNED, envoy.imap)[1], Heard::Closed);
    wait_for("the header, and no command", || (envoy.origins.imap.requests() == commands + 1).then_some(()));
    envoy.wait_for_line(&["] 127.0.0.2 imap ", "flags=UAEX"]);
    envoy.wait_for_line(&["] 127.0.0.3 submission ", "flags=-"]);
    assert_eq!(envoy.stat(TCP_FAILED_OPEN), 0);
    envoy.stop();
    server.stop();
}

#[test]
fn clients_by_the_proxy_protocol_in_every_form() {
    let server = Server::start(Config::new().set("ban.blacklist", "[198.51.100.7, '2001:db8:7::/64']"));
    let commented = "      # listener_filters:\n      #   - name: envoy.filters.listener.proxy_protocol\n      \
                     #     typed_config:\n      #       \"@type\"";
    let without = "      listener_filters:\n        - name: envoy.filters.listener.proxy_protocol\n          \
                   typed_config:\n            \"@type\"";
    let Some(envoy) = Envoy::start_changed(&server, &patient(&[(commented, without)])) else { return };
    for (client, status) in [
        ("TCP4 198.51.100.7 192.0.2.25", 403),
        ("TCP4 198.51.100.8 192.0.2.25", 200),
        ("TCP6 ::ffff:198.51.100.7 ::1", 403),
        ("TCP6 ::ffff:198.51.100.8 ::1", 200),
        ("TCP6 2001:db8:7::1 ::1", 403),
        ("TCP6 2001:db8:7:0:ffff::1 ::1", 403),
        ("TCP6 2001:db8:7:1::1 ::1", 200),
        ("TCP6 ::1 ::1", 200),
    ] {
        let mut http = http_from(OTHER, envoy.web).expect("a connection");
        http.send(format!("PROXY {client} 4711 80\r\n").as_bytes()).expect("to send");
        assert_eq!(http.get("/", &[]).expect("an answer").status, status, "{client}");
    }
    envoy.stop();
    server.stop();
}

#[test]
fn forwarded_addresses_count_from_trusted_proxies_only() {
    let config = Config::new().set("ban.blacklist", "[198.51.100.7]");
    let server = Server::start(config.clone());
    let Some(envoy) = Envoy::start(&server) else { return };
    for forwarded in ["198.51.100.7", "198.51.100.7, 192.0.2.1", "192.0.2.1, 198.51.100.7"] {
        for field in ["X-Forwarded-For", "X-Real-IP", "X-Original-IP", "X-Envoy-External-Address"] {
            assert_eq!(envoy.get(OTHER, &[(field, forwarded)]).status, 200, "nobody is trusted: {field}");
        }
    }
    let trusting = config.on_ports_of(&server.config).set("envoy.trusted_proxies", "[127.0.0.3]");
    server.reload(&trusting);
    for (client, forwarded, status) in FORWARDED {
        let answer = envoy.get(client, &[("X-Forwarded-For", forwarded)]);
        assert_eq!(answer.status, status, "{client} forwards {forwarded}");
    }
    envoy.stop();
    server.stop();
}

#[test]
fn over_a_unix_socket() {
    let folder = Directory::new();
    let socket = folder.0.join("envoy.sock").display().to_string();
    let server = refusing(Config::new().set("envoy.socket", &socket));
    // The line over TCP out, the commented one in.
    let (over_tcp, pipe) =
        ("socket_address: { address: 127.0.0.1, port_value: 9001 }", format!("pipe: {{ path: {socket} }}"));
    let commented = "# pipe: { path: /run/mailfail2ban/envoy.sock }";
    let changes = [(over_tcp, ""), (commented, pipe.as_str())];
    let Some(envoy) = Envoy::start_changed(&server, &patient(&changes)) else { return };
    assert_eq!((envoy.status(OTHER), envoy.status(BANNED)), (200, 403));
    assert_eq!(converse(BANNED, envoy.imap), [line(IMAP_GREETING), Heard::Closed]);
    assert_eq!(converse(OTHER, envoy.imap), [line(IMAP_GREETING), line("a1 OK done")]);
    assert_eq!(envoy.health(), "healthy");
    let config = server.config.clone();
    server.stop();
    assert_eq!(envoy.status(BANNED), 200, "the socket is gone");
    envoy.wait_for_health(false);
    let server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    wait_for_steady("refusals", 10, || envoy.status(BANNED) == 403);
    envoy.stop();
    server.stop();
}

#[test]
fn a_program_that_is_gone_lets_in_and_envoy_says_so() {
    let server = refusing(Config::new());
    let Some(mut envoy) = Envoy::start(&server) else { return };
    envoy.wait_for_health(true);
    assert_eq!(envoy.status(BANNED), 403);
    assert_eq!(converse(BANNED, envoy.imap)[1], Heard::Closed);
    // A client cannot make it look as if it had been let in like this.
    assert_eq!(envoy.get(OTHER, &[("x-envoy-auth-failure-mode-allowed", "true")]).status, 200);
    envoy.wait_for_line(&["] 127.0.0.3 \"GET /\" 200 ", "failed_open=-"]);
    let config = server.config.clone();
    server.stop();
    let begun = Instant::now();
    assert_eq!(envoy.status(BANNED), 200);
    record(&format!("gone: a client waited {:?}", begun.elapsed()));
    assert_eq!(converse(BANNED, envoy.imap), [line(IMAP_GREETING), line("a1 OK done")]);
    envoy.wait_for_line(&["] 127.0.0.2 \"GET /\" 200 ", "failed_open=true"]);
    wait_for("its counters", || (envoy.stat(HTTP_FAILED_OPEN) > 0 && envoy.stat(TCP_FAILED_OPEN) > 0).then_some(()));
    envoy.wait_for_health(false);
    let server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    let taken = wait_for_steady("refusals", 10, || envoy.status(BANNED) == 403);
    record(&format!("refuses again {taken:?} after the program is back"));
    assert_eq!(envoy.health(), "healthy");
    envoy.stop();
    server.stop();
}

#[test]
fn a_program_that_hangs_lets_in_and_is_not_asked_any_more() {
    let server = refusing(Config::new());
    let Some(envoy) = Envoy::start_changed(&server, &[]) else { return };
    wait_for_steady("refusals", 3, || envoy.status(BANNED) == 403);
    freeze(&server);
    let begun = Instant::now();
    assert_eq!(envoy.status(BANNED), 200);
    record(&format!("hangs: a client waited {:?}", begun.elapsed()));
    envoy.wait_for_health(false);
    record(&format!("taken for unhealthy after {:?}", begun.elapsed()));
    let begun = Instant::now();
    assert_eq!(envoy.status(BANNED), 200);
    record(&format!("unhealthy: a client waited {:?}", begun.elapsed()));
    assert_eq!(converse(BANNED, envoy.submission), [line(SMTP_GREETING), line("250 ok")]);
    server.signal(libc::SIGCONT);
    let taken = wait_for_steady("refusals", 10, || envoy.status(BANNED) == 403);
    record(&format!("refuses again {taken:?} after the program goes on"));
    envoy.stop();
    server.stop();
}

#[test]
fn fail_closed_is_one_word() {
    let server = refusing(Config::new());
    let closed = [("failure_mode_allow: true", "failure_mode_allow: false")];
    let Some(mut envoy) = Envoy::start_changed(&server, &patient(&closed)) else { return };
    assert_eq!((envoy.status(OTHER), envoy.status(BANNED)), (200, 403));
    assert_eq!(converse(OTHER, envoy.imap)[1], line("a1 OK done"));
    server.stop();
    assert_eq!(envoy.status(OTHER), 503);
    assert_eq!(converse(OTHER, envoy.imap)[1], Heard::Closed);
    envoy.wait_for_line(&["] 127.0.0.3 \"GET /\" 503 ", "details=ext_authz_error"]);
    envoy.stop();
}

#[test]
fn a_restart_under_load_costs_no_client_its_answer() {
    let server = refusing(Config::new());
    let Some(envoy) = Envoy::start(&server) else { return };
    let server = restart_under_load(server, envoy.web, BANNED, || envoy.stat(HTTP_FAILED_OPEN));
    envoy.stop();
    server.stop();
}

#[test]
fn every_shard_answers_what_another_has_counted() {
    let server = Server::start(Config::new());
    let Some(envoy) = Envoy::start(&server) else { return };
    let clients: Vec<IpAddr> = (10..30).map(|n| Ipv4Addr::new(127, 0, 0, n).into()).collect();
    for client in &clients {
        server.fail(&client.to_string(), 5);
    }
    server.wait_for_bans_everywhere(20);
    let connected = || server.metrics().by_shard("fail2ban_shard_connections", &[("service", "envoy")]);
    // Envoy has a connection for each of its threads, and one for the health checks; a thread makes its own when it
    // has something to ask.
    wait_for("both shards to be asked", || {
        for client in &clients {
            assert_eq!(envoy.status(*client), 403, "{client}");
            assert_eq!(envoy.status(OTHER), 200);
        }
        let answered = server.metrics().by_shard("fail2ban_shard_questions_total", &[]);
        answered.iter().all(|answered| *answered > 0).then_some(())
    });
    record(&format!("connections by shard: {:?}", connected()));
    envoy.stop();
    server.stop();
}

/// Envoy gives up the question about a client that leaves. Hundreds who leave at once must not have the connection closed
/// on which the others are asked about.
#[test]
fn clients_that_leave_early_let_nobody_else_in() {
    let server = refusing(Config::new());
    let Some(envoy) = Envoy::start(&server) else { return };
    let web = envoy.web;
    let leave = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&leave);
    let crowd = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            let clients: Vec<_> = (0..300).filter_map(|_| connect_from(OTHER, web).ok()).collect();
            for mut client in &clients {
                drop(client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
            }
            for client in &clients {
                // Closing resets it.
                drop(socket2::SockRef::from(client).set_linger(Some(Duration::ZERO)));
            }
        }
    });
    let (begun, mut refused) = (Instant::now(), 0);
    let given_up = || envoy.stat("cluster.mailfail2ban.upstream_rq_tx_reset");
    // On a machine that is short of cores, Envoy itself gives a connection up on which too much waits to be sent.
    let envoys_own = || envoy.stat("cluster.mailfail2ban.http2.outbound_flood");
    let mut excused = 0;
    wait_for("hundreds of questions to be given up", || {
        let before = envoys_own();
        let status = envoy.status(BANNED);
        if status == 200 && envoys_own() > before {
            excused += 1;
            return None;
        }
        assert_eq!(
            status,
            403,
            "after {refused} refusals\n{}\n{}",
            server.metrics().show("fail2ban_envoy_refused_total"),
            envoy.administration("/stats?usedonly&filter=(ext_authz|cluster.mailfail2ban)"),
        );
        refused += 1;
        (refused >= 5 && begun.elapsed() > Duration::from_secs(4) && given_up() >= 300).then_some(())
    });
    leave.store(true, Ordering::Relaxed);
    crowd.join().expect("a crowd");
    let given_up = server.metrics().get("fail2ban_requests_total", &[("service", "envoy"), ("result", "other")]);
    record(&format!("{refused} of {refused} refused; calls given up and health checks: {given_up}"));
    if envoys_own() == 0 {
        assert_eq!((envoy.stat(HTTP_FAILED_OPEN), excused), (0, 0));
    }
    assert_eq!(server.metrics().get("fail2ban_envoy_refused_total", &[("reason", "flood")]), 0);
    envoy.stop();
    server.stop();
}

#[test]
fn a_thousand_clients_at_full_speed() {
    if !need("wrk") || !need("h2load") {
        return;
    }
    let server = refusing(Config::new());
    // Once with the time limits of the example, and once with none, when no question may fail for want of time.
    for (what, changes) in [("90 ms for an answer", &[][..]), ("any time", &PATIENT)] {
        let Some(envoy) = Envoy::start_changed(&server, changes) else { return };
        let url = format!("http://{}/", envoy.web);
        wrk(what, 1000, 4, &url);
        h2load(what, 1000, 20_000, &url);
        let (ok, failed) = (envoy.stat("http.web.ext_authz.mailfail2ban.ok"), envoy.stat(HTTP_FAILED_OPEN));
        record(&format!("{what}: {ok} answered, {failed} not in time"));
        record(&format!("{what}: {}", envoy.times()));
        for stat in ["upstream_cx_overflow", "upstream_rq_pending_overflow", "upstream_cx_connect_fail"] {
            assert_eq!(envoy.stat(&format!("cluster.mailfail2ban.{stat}")), 0, "{stat}");
        }
        if !changes.is_empty() {
            assert_eq!(failed, 0);
            assert_eq!(envoy.status(BANNED), 403);
        }
        envoy.stop();
    }
    server.stop();
}

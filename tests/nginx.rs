//! nginx asks, with the files of `scripts/examples/nginx`: its web servers with auth_request, its mail ports with
//! JavaScript.

#![allow(clippy::disallowed_methods, reason = "tests measure how long a client waits")]

mod harness;

use harness::load::{FORWARDED, freeze, restart_under_load, wrk};
use harness::peers::{
    Heard, IMAP_GREETING, ORIGIN_BODY, Origin, Peer, Program, SMTP_GREETING, Talk, greeting, http_from, replace,
    shipped, wait_for_steady,
};
use harness::{Answer, Config, Directory, Server, free_port, has_ipv6, need, record, skip, wait_for};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

const BANNED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Where Debian puts nginx's modules.
const MODULES: &str = "/usr/lib/nginx/modules";

/// nginx with the example files, and servers behind it.
struct Nginx {
    peer: Peer,
    directory: Directory,
    web: SocketAddr,
    imap: SocketAddr,
    submission: SocketAddr,
    origins: Origins,
}

struct Origins {
    web: Origin,
    imap: Origin,
    smtp: Origin,
}

/// A change to one of the example files.
type Change<'a> = (&'a str, &'a str, &'a str);

/// Takes the time limits out of the examples.
const PATIENT: [Change<'static>; 3] = [
    ("mailfail2ban-server.conf", "proxy_connect_timeout 90ms;", "proxy_connect_timeout 30s;"),
    ("mailfail2ban-server.conf", "proxy_read_timeout 90ms;", "proxy_read_timeout 30s;"),
    ("stream.conf", "js_fetch_timeout 90ms;", "js_fetch_timeout 30s;"),
];

/// These changes, and no time limits.
fn patient<'a>(changes: &[Change<'a>]) -> Vec<Change<'a>> {
    PATIENT.iter().chain(changes).copied().collect()
}

impl Nginx {
    /// Starts it in front of `server`. If it is not installed, the calling test is skipped. It waits for answers as long
    /// as a test does: on a machine that is busy with other tests, the limits of the example may be reached.
    #[track_caller]
    fn start(server: &Server) -> Option<Nginx> {
        Nginx::start_changed(server, &PATIENT)
    }

    /// Starts it with these `changes` only: a file, what stands in there, and what shall.
    #[track_caller]
    fn start_changed(server: &Server, changes: &[Change<'_>]) -> Option<Nginx> {
        let program = Program::installed("nginx")?;
        for module in ["ngx_stream_module.so", "ngx_stream_js_module.so"] {
            if !Path::new(MODULES).join(module).is_file() {
                skip(&format!("there is no {MODULES}/{module}"));
                return None;
            }
        }
        let directory = Directory::new();
        let origins = Origins { web: Origin::http(), imap: Origin::imap(), smtp: Origin::smtp() };
        let [web, imap, submission] = [(); 3].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        let logs = directory.0.display().to_string();
        let question = server.config.nginx.to_string();
        // Without IPv6 the listeners on it would keep nginx from starting.
        let ipv6 = |port: u16| if has_ipv6() { format!("listen [::]:{port};") } else { String::new() };
        let files = open_files().to_string();
        for (file, replacements) in [
            ("mailfail2ban.conf", vec![("server 127.0.0.1:8888;", format!("server {question};"))]),
            ("mailfail2ban-server.conf", vec![]),
            ("mailfail2ban.js", vec![("127.0.0.1:8888", question.clone())]),
            (
                "stream.conf",
                vec![
                    ("/var/log/nginx", logs.clone()),
                    ("listen 143;", format!("listen {};", imap.port())),
                    ("listen [::]:143;", ipv6(imap.port())),
                    ("listen 587;", format!("listen {};", submission.port())),
                    ("listen [::]:587;", ipv6(submission.port())),
                    ("127.0.0.1:10143", origins.imap.address.to_string()),
                    ("127.0.0.1:10587", origins.smtp.address.to_string()),
                ],
            ),
            (
                "nginx.conf",
                vec![
                    ("/var/log/nginx", logs.clone()),
                    ("/run/nginx.pid", format!("{logs}/nginx.pid")),
                    ("worker_rlimit_nofile 65536;", format!("worker_rlimit_nofile {files};")),
                    ("listen 80;", format!("listen {};", web.port())),
                    ("listen [::]:80;", ipv6(web.port())),
                    ("127.0.0.1:20000", origins.web.address.to_string()),
                ],
            ),
        ] {
            // The changes first: they are written in terms of the file as it is.
            let changes = changes.iter().filter(|(of, ..)| *of == file).map(|(_, from, to)| (*from, *to));
            let replacements: Vec<(&str, &str)> =
                changes.chain(replacements.iter().map(|(from, to)| (*from, to.as_str()))).collect();
            directory.file(file, replace(&shipped(&format!("scripts/examples/nginx/{file}")), &replacements));
        }
        let mut command = program.command();
        // As root its workers would be somebody else, who may not look into a directory of ours.
        command.args(["-g", "daemon off; user root;", "-e"]).arg(directory.0.join("error.log"));
        command.arg("-c").arg(directory.0.join("nginx.conf"));
        let mut peer = Peer::start(command);
        // It listens everywhere or nowhere, and a connection to a mail port would be asked about.
        peer.wait_for_port(web);
        Some(Nginx { peer, directory, web, imap, submission, origins })
    }

    /// Its answer to `GET /` from `client`.
    #[track_caller]
    fn get(&self, client: IpAddr, fields: &[(&str, &str)]) -> Answer {
        let answer = http_from(client, at(self.web, client)).and_then(|mut http| http.get("/", fields));
        answer.unwrap_or_else(|why| panic!("no answer to {client}: {why}\n{}", self.error_log()))
    }

    /// The status of that answer.
    #[track_caller]
    fn status(&self, client: IpAddr) -> u16 {
        self.get(client, &[]).status
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read(self.directory.0.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    fn error_log(&self) -> String {
        self.lines("error.log").join("\n")
    }

    /// Waits for a line of a log that holds all of `parts`: nginx writes it after its client has the answer.
    #[track_caller]
    fn wait_for_line(&self, file: &str, parts: &[&str]) -> String {
        let has = |line: &String| parts.iter().all(|part| line.contains(part));
        wait_for(&format!("{parts:?} in {file}"), || self.lines(file).into_iter().find(has))
    }

    /// How many requests ended like this: `allowed`, `denied`, `failed`.
    fn came_to(&self, end: &str) -> usize {
        let end = format!(" mailfail2ban={end} ");
        self.lines("access.log").iter().filter(|line| line.contains(&end)).count()
    }

    fn stop(self) {
        self.peer.stop();
    }
}

/// The same port, in the client's family.
fn at(to: SocketAddr, client: IpAddr) -> SocketAddr {
    if client.is_ipv6() { SocketAddr::new(IPV6, to.port()) } else { to }
}

/// How many files a process of this test may open at most.
fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(65536).min(65536)
}

/// A server that refuses 127.0.0.2.
fn refusing(config: Config) -> Server {
    Server::start(config.set("ban.blacklist", format!("[{BANNED}]")))
}

#[test]
fn a_client_that_fails_five_times_is_refused_until_its_ban_ends() {
    let server = Server::start(Config::new().set("ban.initial_ban_time", "2s"));
    let Some(nginx) = Nginx::start(&server) else { return };
    assert_eq!(nginx.status(BANNED), 200);
    server.fail(&BANNED.to_string(), 4);
    server.wait_for_failures(4);
    assert_eq!(nginx.status(BANNED), 200, "four failures do not ban");
    server.fail(&BANNED.to_string(), 1);
    let refusal = wait_for("a refusal", || {
        let answer = nginx.get(BANNED, &[]);
        // On a machine that stands still for seconds the ban may be over before anybody has looked.
        if answer.status == 200 && server.banned().len() as u64 == server.metrics().get("fail2ban_bans_total", &[]) {
            server.fail(&BANNED.to_string(), 5);
        }
        (answer.status == 403).then_some(answer)
    });
    let seconds: u64 = refusal.field("Retry-After").expect("how long").parse().expect("a number");
    assert!((1..=16).contains(&seconds), "{seconds}");
    assert!(refusal.body.starts_with("Too many failed logins"), "{}", refusal.body);
    let before = nginx.origins.web.requests();
    assert_eq!(nginx.status(OTHER), 200);
    if has_ipv6() {
        assert_eq!(nginx.status(IPV6), 200);
    }
    assert!(nginx.origins.web.requests() > before);
    wait_for("the end of the ban", || (nginx.status(BANNED) == 200).then_some(()));

    let denied = format!("{BANNED} - - [");
    let line = nginx.wait_for_line("access.log", &[&denied, "\" 403 ", "mailfail2ban=denied"]);
    assert!(line.contains(" mailfail2ban=denied reason=\"dovecot-login\" time=0."), "{line}");
    nginx.wait_for_line("access.log", &[&format!("{OTHER} - - ["), "\" 200 ", " mailfail2ban=allowed reason=\"\" "]);
    assert_eq!(nginx.came_to("failed"), 0, "{}", nginx.error_log());
    nginx.stop();
    server.stop();
}

#[test]
fn a_client_cannot_say_who_it_is() {
    let server = refusing(Config::new().set("nginx.trusted_proxies", "[127.0.0.0/8]"));
    let Some(nginx) = Nginx::start(&server) else { return };
    for field in ["X-Original-IP", "X-Real-IP", "X-Client-IP", "X-Forwarded-For", "Forwarded", "x-original-ip"] {
        assert_eq!(nginx.get(BANNED, &[(field, "127.0.0.3")]).status, 403, "{field}");
        assert_eq!(nginx.get(OTHER, &[(field, "127.0.0.2")]).status, 200, "{field}");
        assert_eq!(nginx.get(BANNED, &[(field, "nobody")]).status, 403, "{field}");
    }
    // Nor can it make the question one that is refused, and be let in for that.
    let long = "x".repeat(8000);
    let many = [("X-A", long.as_str()), ("X-B", &long), ("X-C", &long), ("X-Original-IP", "127.0.0.3")];
    assert_eq!(nginx.get(BANNED, &many).status, 403);
    assert_eq!(nginx.get(BANNED, &[("Expect", "100-continue"), ("Connection", "close, X-Real-IP")]).status, 403);
    assert_eq!(nginx.origins.web.requests(), 6, "{}", nginx.error_log());
    assert_eq!(server.metrics().get("fail2ban_requests_total", &[("result", "refused")]), 0);
    nginx.stop();
    server.stop();
}

#[test]
fn bodies_kept_connections_and_pipelines() {
    let server = refusing(Config::new());
    let Some(nginx) = Nginx::start(&server) else { return };
    let mut http = http_from(OTHER, nginx.web).expect("a connection");
    for _ in 0..50 {
        let answer = http.get("/", &[]).expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, ORIGIN_BODY));
    }
    let post = "POST /login HTTP/1.1\r\nHost: mail\r\nContent-Length: 9\r\n\r\nuser=mail";
    http.send(post.as_bytes()).expect("to send");
    assert_eq!(http.answer().expect("an answer").status, 200);
    let get = "GET / HTTP/1.1\r\nHost: mail\r\n\r\n";
    http.send(format!("{get}{post}{get}{get}").as_bytes()).expect("to send");
    for _ in 0..4 {
        assert_eq!(http.answer().expect("an answer").status, 200);
    }
    let mut http = http_from(BANNED, nginx.web).expect("a connection");
    http.send(format!("{get}{post}{get}").as_bytes()).expect("to send");
    for _ in 0..3 {
        assert_eq!(http.answer().expect("an answer").status, 403);
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_requests_total", &[("service", "nginx"), ("result", "allowed")]), 55);
    assert_eq!(metrics.get("fail2ban_requests_total", &[("service", "nginx"), ("result", "denied")]), 3);
    assert_eq!(metrics.get("fail2ban_requests_total", &[("service", "nginx"), ("result", "refused")]), 0);
    // At most one for each of nginx's workers, however many there are, and those that the test itself made.
    let held: u64 = metrics.by_shard("fail2ban_shard_connections", &[("service", "nginx")]).iter().sum();
    assert!((1..=2).contains(&held), "two workers had one client each: {held} connections");
    nginx.stop();
    server.stop();
}

#[test]
fn nginx_as_it_asks_without_being_told_how() {
    // HTTP/1.0, a connection for each question, and all that the client sent.
    let server = refusing(Config::new());
    let changes = [
        ("mailfail2ban-server.conf", "    proxy_http_version 1.1;\n    proxy_set_header Connection \"\";\n", ""),
        (
            "mailfail2ban-server.conf",
            "    proxy_pass_request_headers off;\n    proxy_set_header Content-Length \"\";\n",
            "",
        ),
        ("mailfail2ban.conf", "    keepalive 256;\n    keepalive_requests 1000000;\n", ""),
        ("mailfail2ban.conf", "    keepalive_timeout 8s;\n", ""),
    ];
    let Some(nginx) = Nginx::start_changed(&server, &patient(&changes)) else { return };
    for _ in 0..10 {
        assert_eq!(nginx.status(OTHER), 200);
        assert_eq!(nginx.status(BANNED), 403);
    }
    for (client, status) in [(OTHER, 200), (BANNED, 403)] {
        let mut http = http_from(client, nginx.web).expect("a connection");
        http.send(b"POST / HTTP/1.1\r\nHost: mail\r\nContent-Length: 9\r\nCookie: a=b\r\n\r\nuser=mail")
            .expect("to send");
        assert_eq!(http.answer().expect("an answer").status, status);
    }
    assert_eq!(nginx.came_to("failed"), 0, "{}", nginx.error_log());
    nginx.stop();
    server.stop();
}

#[test]
fn a_server_that_does_not_ask_logs_that_too() {
    // As it is between the two steps of an installation.
    let server = refusing(Config::new());
    let changes = [("nginx.conf", "        include mailfail2ban-server.conf;\n", "")];
    let Some(nginx) = Nginx::start_changed(&server, &changes) else { return };
    assert_eq!(nginx.status(BANNED), 200);
    nginx.wait_for_line("access.log", &[" mailfail2ban=- reason=\"\" time=-"]);
    nginx.stop();
    server.stop();
}

#[test]
fn over_a_unix_socket() {
    let folder = Directory::new();
    let socket = folder.0.join("nginx.sock").display().to_string();
    let server = refusing(Config::new().set("nginx.socket", &socket));
    // The line over TCP out, the commented one in.
    let question = "    server 127.0.0.1:8888;";
    let commented = "    # server unix:/run/mailfail2ban/nginx.sock;";
    let (out, unix) = (format!("    # {}", question.trim()), format!("    server unix:{socket};"));
    let changes = [("mailfail2ban.conf", question, out.as_str()), ("mailfail2ban.conf", commented, unix.as_str())];
    let Some(nginx) = Nginx::start_changed(&server, &patient(&changes)) else { return };
    assert_eq!(nginx.status(BANNED), 403);
    assert_eq!(nginx.get(BANNED, &[("X-Original-IP", "127.0.0.3")]).status, 403);
    let mut http = http_from(OTHER, nginx.web).expect("a connection");
    for _ in 0..20 {
        assert_eq!(http.get("/", &[]).expect("an answer").status, 200);
    }
    let config = server.config.clone();
    server.stop();
    assert_eq!(nginx.status(BANNED), 200, "the socket is gone");
    nginx.wait_for_line("access.log", &[" mailfail2ban=failed "]);
    let server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    wait_for_steady("refusals", 10, || nginx.status(BANNED) == 403);
    nginx.stop();
    server.stop();
}

#[test]
fn the_json_of_a_refusal_stays_between_nginx_and_the_program() {
    let server = refusing(Config::new().set("nginx.return_json", "true"));
    assert!(server.auth(&BANNED.to_string()).body.contains("denied"));
    let Some(nginx) = Nginx::start(&server) else { return };
    let mut http = http_from(BANNED, nginx.web).expect("a connection");
    for _ in 0..5 {
        let answer = http.get("/", &[]).expect("an answer");
        assert_eq!(answer.status, 403);
        assert!(answer.body.starts_with("Too many failed logins"), "{}", answer.body);
        assert_eq!(answer.field("Retry-After"), None, "the blacklist does not end");
    }
    assert_eq!(nginx.status(OTHER), 200);
    nginx.stop();
    server.stop();
}

#[test]
fn forwarded_addresses_count_from_trusted_proxies_only() {
    let server = Server::start(
        Config::new().set("ban.blacklist", "[198.51.100.7]").set("nginx.trusted_proxies", "[127.0.0.1, 127.0.0.3]"),
    );
    // 127.0.0.1 is nginx here, and 127.0.0.3 a load balancer in front of it.
    let change = (
        "mailfail2ban-server.conf",
        "proxy_set_header X-Real-IP $remote_addr;",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    );
    let Some(nginx) = Nginx::start_changed(&server, &patient(&[change])) else { return };
    for (client, forwarded, status) in FORWARDED {
        let answer = nginx.get(client, &[("X-Forwarded-For", forwarded)]);
        assert_eq!(answer.status, status, "{client} forwards {forwarded}");
    }
    nginx.stop();
    server.stop();
}

#[test]
fn mail_ports_refuse_before_the_greeting() {
    let server = Server::start(Config::new());
    let Some(nginx) = Nginx::start(&server) else { return };
    let ports = [(nginx.imap, IMAP_GREETING, "PROXY OK done"), (nginx.submission, SMTP_GREETING, "250 ok")];
    for (port, hello, _) in ports {
        assert_eq!(greeting(BANNED, port), Heard::Line(hello.to_owned()), "{}", nginx.error_log());
    }
    server.fail(&BANNED.to_string(), 5);
    server.wait_for_ban(&BANNED.to_string(), 1);
    for (port, hello, header) in ports {
        wait_for_steady("refusals", 10, || greeting(BANNED, port) == Heard::Closed);
        // Nor does it get in by speaking first.
        let mut early = Talk::from(BANNED, port).expect("a connection");
        early.say("a1 NOOP");
        assert_eq!(early.hear(), Heard::Closed);
        let clients: &[IpAddr] = if has_ipv6() { &[OTHER, IPV6] } else { &[OTHER] };
        for client in clients {
            let mut talk = Talk::from(*client, at(port, *client)).expect("a connection");
            assert_eq!(talk.hear(), Heard::Line(hello.to_owned()));
            // This origin takes the header of the PROXY protocol for a command, which shows that it was sent.
            assert_eq!(talk.hear(), Heard::Line(header.to_owned()));
            talk.say("a1 NOOP");
            assert!(matches!(talk.hear(), Heard::Line(line) if line == "a1 OK done" || line == "250 ok"));
        }
    }
    nginx.wait_for_line("mail.log", &[&format!("{BANNED}:"), " 403 0 ", " mailfail2ban=denied"]);
    nginx.wait_for_line("mail.log", &[&format!("{OTHER}:"), " mailfail2ban=allowed"]);
    assert!(!nginx.lines("mail.log").iter().any(|line| line.ends_with("failed")), "{}", nginx.error_log());
    nginx.stop();
    server.stop();
}

#[test]
fn mail_ports_let_in_when_there_is_no_answer() {
    let server = refusing(Config::new());
    let Some(nginx) = Nginx::start_changed(&server, &[]) else { return };
    let ports = [(nginx.imap, IMAP_GREETING), (nginx.submission, SMTP_GREETING)];
    let let_in = |what: &str, why: &str| {
        for (port, hello) in ports {
            let begun = Instant::now();
            assert_eq!(greeting(BANNED, port), Heard::Line(hello.to_owned()));
            record(&format!("{what}: greeted after {:?}", begun.elapsed()));
        }
        nginx.wait_for_line("mail.log", &[&format!("{BANNED}:"), " mailfail2ban=failed"]);
        nginx.wait_for_line("error.log", &[&format!("mailfail2ban: no answer, {BANNED} is let in: {why}")]);
    };
    freeze(&server);
    let_in("stopped", "read timed out");
    // Clients that leave while their question waits.
    for _ in 0..50 {
        drop(Talk::from(OTHER, nginx.imap).expect("a connection"));
    }
    server.signal(libc::SIGCONT);
    wait_for_steady("refusals", 5, || greeting(BANNED, nginx.imap) == Heard::Closed);
    let config = server.config.clone();
    server.stop();
    let_in("gone", "connect failed");
    let server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    wait_for_steady("refusals", 5, || greeting(BANNED, nginx.submission) == Heard::Closed);
    nginx.stop();
    server.stop();
}

#[test]
fn a_program_that_hangs_or_is_gone_lets_in_and_the_log_says_so() {
    let server = refusing(Config::new());
    let Some(nginx) = Nginx::start_changed(&server, &[]) else { return };
    let let_in = |what: &str, upstream: &str| {
        let before = nginx.came_to("failed");
        let begun = Instant::now();
        assert_eq!(nginx.status(BANNED), 200);
        record(&format!("{what}: a client waited {:?}", begun.elapsed()));
        wait_for("a line about it", || (nginx.came_to("failed") > before).then_some(()));
        nginx.wait_for_line("error.log", &[upstream, "subrequest: \"/_mailfail2ban\""]);
    };
    wait_for_steady("refusals", 3, || nginx.status(BANNED) == 403);
    freeze(&server);
    let_in("stopped", "upstream timed out");
    server.signal(libc::SIGCONT);
    wait_for_steady("refusals", 10, || nginx.status(BANNED) == 403);
    server.signal(libc::SIGKILL);
    let config = server.config.clone();
    server.wait_for_end();
    let_in("killed", "Connection refused");
    let server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    let taken = wait_for_steady("refusals", 10, || nginx.status(BANNED) == 403);
    record(&format!("refuses again {taken:?} after the program is back"));
    nginx.stop();
    server.stop();
}

#[test]
fn fail_closed_is_one_word() {
    let server = refusing(Config::new());
    let changes = [
        ("mailfail2ban-server.conf", "return 204;", "return 503;"),
        ("mailfail2ban.js", "// Fail open. To fail closed: if", "if"),
    ];
    let Some(nginx) = Nginx::start_changed(&server, &patient(&changes)) else { return };
    assert_eq!((nginx.status(OTHER), nginx.status(BANNED)), (200, 403));
    assert_eq!(greeting(OTHER, nginx.imap), Heard::Line(IMAP_GREETING.to_owned()));
    server.stop();
    assert_eq!(nginx.status(OTHER), 500);
    assert_eq!(greeting(OTHER, nginx.imap), Heard::Closed);
    nginx.wait_for_line("access.log", &["\" 500 ", " mailfail2ban=failed "]);
    nginx.wait_for_line("mail.log", &[" 403 0 ", " mailfail2ban=failed"]);
    nginx.stop();
}

#[test]
fn a_restart_under_load_costs_no_client_its_answer() {
    let server = refusing(Config::new());
    let Some(nginx) = Nginx::start(&server) else { return };
    let server = restart_under_load(server, nginx.web, BANNED, || nginx.came_to("failed") as u64);
    nginx.stop();
    server.stop();
}

#[test]
fn a_thousand_clients_at_full_speed() {
    if !need("wrk") {
        return;
    }
    let server = refusing(Config::new());
    // Once with the time limits of the example, and once with none, when no question may fail for want of time.
    for (what, changes) in [("90 ms for an answer", &[][..]), ("any time", &PATIENT)] {
        let Some(nginx) = Nginx::start_changed(&server, changes) else { return };
        wrk(what, 1000, 5, &format!("http://{}/", nginx.web));
        let (allowed, failed) = (nginx.came_to("allowed"), nginx.came_to("failed"));
        record(&format!("{what}: {allowed} answered, {failed} not in time; {}", times(&nginx)));
        if !changes.is_empty() {
            assert_eq!(failed, 0, "{}", nginx.error_log());
            assert_eq!(nginx.status(BANNED), 403);
        }
        nginx.stop();
    }
    server.stop();
}

/// How long questions took, in nginx's eyes.
fn times(nginx: &Nginx) -> String {
    let lines = nginx.lines("access.log");
    let time = |line: &String| line.rsplit_once(" time=")?.1.parse::<f64>().ok();
    let mut times: Vec<f64> = lines.iter().filter_map(time).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    format!("half of the questions within {} s, 99% within {} s, 99.9% within {} s", at(0.5), at(0.99), at(0.999))
}

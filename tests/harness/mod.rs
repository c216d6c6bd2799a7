//! Runs the built program as an operator would: a configuration in a directory of its own, real sockets, signals.
//!
//! Nothing here sleeps for luck: [`wait_for`] and its relatives look again and again until what they wait for is
//! there, and fail with the program's log when it is not there in time.

#![allow(dead_code, reason = "each test uses its own part of this")]
#![allow(clippy::disallowed_methods, reason = "to wait, with a deadline, is what this is for")]

pub mod browser;
pub mod databases;
pub mod grpc;
pub mod limits;
pub mod load;
pub mod operator;
pub mod peers;
pub mod spop;

use limits::Limit;
use mailfail2ban::config::{PatternSettings, Settings};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// How long anything may take on a slow machine that is busy with something else. Nothing waits that long when all is
/// well.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(5);

/// The built program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mailfail2ban");

/// Who was refused how often in the captured scenario, as the client that played it counted.
pub const TRUTH: [(&str, usize); 9] = [
    ("127.0.0.2", 10),
    ("127.0.0.3", 7),
    ("127.0.0.4", 9),
    ("127.0.0.6", 5),
    ("127.0.0.9", 18),
    ("198.51.100.7", 2),
    ("198.51.100.9", 1),
    ("2001:db8::7", 2),
    ("::1", 3),
];

/// How many of the built-in patterns are in use as they come.
pub fn patterns_in_use() -> usize {
    let syslog = Settings::default().syslog;
    let is_used =
        |pattern: &&PatternSettings| pattern.enabled && syslog.kinds.iter().any(|kind| kind == pattern.kind.name());
    syslog.patterns.iter().filter(is_used).count()
}

/// What a mail log says of one failed login from `address`: priority and header of RFC 3164, no line end.
pub fn failed_login(address: &str) -> String {
    format!("<22>Nov 22 17:33:44 mail1 {}", failed_login_after_host(address))
}

/// The same from the program's name on.
pub fn failed_login_after_host(address: &str) -> String {
    format!("dovecot: {}", failed_login_message(address, 1))
}

/// The message alone, with a number of attempts.
pub fn failed_login_message(address: &str, attempts: u32) -> String {
    format!(
        "imap-login: Disconnected: Aborted login by logging out (auth failed, {attempts} attempts in 2 secs): \
         user=<bob>, method=PLAIN, rip={address}, lip=192.0.2.25, session=<adcc4eBgPc9/AAAD>"
    )
}

/// Waits until `look` finds something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain for {what}");
        sleep(PAUSE);
    }
}

/// Whether `name` can be run here. If not, says that the calling test is skipped, and puts it on the list of those in
/// the file that `MAILFAIL2BAN_SKIPPED` names.
pub fn need(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .any(|folder| folder.join(name).is_file());
    if !found {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Says that the calling test is skipped, and why.
pub fn skip(why: &str) {
    let line = format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test"));
    // Not with eprintln!, which the test runner keeps to itself when a test passes.
    drop(writeln!(io::stderr(), "{line}"));
    if let Some(list) = std::env::var_os("MAILFAIL2BAN_SKIPPED")
        && let Ok(mut list) = fs::OpenOptions::new().create(true).append(true).open(list)
    {
        drop(writeln!(list, "{line}"));
    }
}

/// Says something that is worth knowing even of a test that passes: a measured figure.
pub fn record(figure: &str) {
    drop(writeln!(io::stderr(), "RECORDED {}: {figure}", std::thread::current().name().unwrap_or("a test")));
}

/// A program that can be run, wherever Debian puts it.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/bin"));
    command
}

/// A directory of its own for one test, removed at its end.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mailfail2ban-test-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for temporary files");
        Directory(path)
    }

    /// Writes a file into it.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a temporary file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port on which nobody listens, neither on TCP nor on UDP, below those that the kernel gives to clients.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    // Tests that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + start.wrapping_add(tried) % COUNT) as u16;
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        if TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A configuration: settings by their dotted key, as YAML.
#[derive(Clone)]
pub struct Config {
    settings: BTreeMap<String, String>,
    pub syslog: SocketAddr,
    pub spoa: SocketAddr,
    pub envoy: SocketAddr,
    pub nginx: SocketAddr,
    pub metrics: SocketAddr,
}

impl Config {
    /// Two shards, on free ports of loopback; all else is the default.
    pub fn new() -> Config {
        Config::on(Ipv4Addr::LOCALHOST.into())
    }

    /// The same, with log lines and questions received on another address.
    pub fn on(address: IpAddr) -> Config {
        let mut config = Config {
            settings: BTreeMap::new(),
            syslog: (address, 0).into(),
            spoa: (address, 0).into(),
            envoy: (address, 0).into(),
            nginx: (address, 0).into(),
            metrics: (Ipv4Addr::LOCALHOST, 0).into(),
        };
        config.draw_ports();
        config.set("runtime.shards", "2")
    }

    fn draw_ports(&mut self) {
        self.syslog.set_port(free_port());
        self.spoa.set_port(free_port());
        self.envoy.set_port(free_port());
        self.nginx.set_port(free_port());
        self.metrics.set_port(free_port());
        self.set_addresses();
    }

    fn set_addresses(&mut self) {
        for (key, value) in [
            ("syslog.address", format!("'{}'", self.syslog)),
            ("spoa.address", format!("'{}'", self.spoa.ip())),
            ("spoa.port", self.spoa.port().to_string()),
            ("envoy.address", format!("'{}'", self.envoy.ip())),
            ("envoy.port", self.envoy.port().to_string()),
            ("nginx.address", format!("'{}'", self.nginx.ip())),
            ("nginx.port", self.nginx.port().to_string()),
            ("prometheus.port", self.metrics.port().to_string()),
        ] {
            self.settings.insert(key.to_owned(), value);
        }
    }

    /// With one setting changed.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Config {
        self.settings.insert(key.to_owned(), value.to_string());
        self
    }

    /// On the ports of another one, as a reload needs it.
    #[must_use]
    pub fn on_ports_of(mut self, other: &Config) -> Config {
        let Config { settings: _, syslog, spoa, envoy, nginx, metrics } = *other;
        (self.syslog, self.spoa, self.envoy, self.nginx, self.metrics) = (syslog, spoa, envoy, nginx, metrics);
        self.set_addresses();
        self
    }

    /// As a file, one setting a line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for (key, value) in &self.settings {
            let (of, name) = key.split_once('.').expect("a section and a name");
            if of != section {
                section = of;
                let _ = writeln!(text, "{section}:");
            }
            let _ = writeln!(text, "  {name}: {value}");
        }
        text
    }

    /// Line of a setting in [`Config::text`].
    pub fn line_of(&self, key: &str) -> usize {
        let (_, name) = key.split_once('.').expect("a section and a name");
        let begins = format!("  {name}: ");
        1 + self.text().lines().position(|line| line.starts_with(&begins)).expect("a setting of this configuration")
    }
}

/// The program, running.
pub struct Server {
    pub config: Config,
    pub directory: Directory,
    child: Child,
    said: Receiver<String>,
    lines: RefCell<Vec<String>>,
    listener: Option<JoinHandle<()>>,
}

/// The program when it has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub lines: Vec<String>,
}

impl Ended {
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Its log, without what is not a log line.
    pub fn log(&self) -> Vec<Value> {
        log_of(&self.lines)
    }
}

fn log_of(lines: &[String]) -> Vec<Value> {
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Whether a log line has this text as its message.
pub fn says(line: &Value, message: &str) -> bool {
    line["message"] == message
}

impl Server {
    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(config: Config) -> Server {
        Server::start_limited(config, &[])
    }

    /// Starts it with less than this test itself may, and waits until it is ready.
    #[track_caller]
    pub fn start_limited(mut config: Config, limits: &[Limit]) -> Server {
        for _ in 0..5 {
            match Server::try_start(config.clone(), limits) {
                Ok(server) => return server,
                // Somebody was quicker to take a port that was free a moment ago.
                Err(ended) if ended.text().contains("something else uses this address") => config.draw_ports(),
                Err(ended) => panic!("it did not start: {}\n{}", ended.status, ended.text()),
            }
        }
        panic!("every port that was free was taken");
    }

    /// Starts it, and waits until it is ready or has ended.
    #[track_caller]
    pub fn try_start(config: Config, limits: &[Limit]) -> Result<Server, Ended> {
        let mut server = Server::spawn(config, limits);
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = server.child.try_wait().expect("a child of this process") {
                return Err(server.ended(status));
            }
            let ready = Http::connect(server.config.nginx).and_then(|mut http| http.get("/ready", &[]));
            if ready.is_ok_and(|answer| answer.status == 200) {
                return Ok(server);
            }
            assert!(Instant::now() < deadline, "not ready within {DEADLINE:?}:\n{}", server.text());
            sleep(PAUSE);
        }
    }

    /// Starts it, without waiting.
    pub fn spawn(config: Config, limits: &[Limit]) -> Server {
        let directory = Directory::new();
        directory.file("config.yaml", config.text());
        let mut command = Command::new(PROGRAM);
        command.args(["--config", "config.yaml"]).current_dir(&directory.0);
        // Settings of whoever runs the tests are not meant for it.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FAIL2BAN_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        limits::apply(&mut command, limits);
        let mut child = command.spawn().expect("the built program");
        let (say, said) = channel();
        let stderr = child.stderr.take().expect("its standard error");
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        Server { config, directory, child, said, lines: RefCell::default(), listener: Some(listener) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Everything it has written to standard error so far.
    pub fn text(&self) -> String {
        let mut lines = self.lines.borrow_mut();
        lines.extend(self.said.try_iter());
        lines.join("\n")
    }

    /// Its log so far.
    pub fn log(&self) -> Vec<Value> {
        let mut lines = self.lines.borrow_mut();
        lines.extend(self.said.try_iter());
        log_of(&lines)
    }

    /// Waits for a log line of which `is` is true.
    #[track_caller]
    pub fn wait_for_log(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(line) = self.log().into_iter().find(|line| is(line)) {
                return line;
            }
            assert!(Instant::now() < deadline, "waited in vain for a log line: {what}\n{}", self.text());
            sleep(PAUSE);
        }
    }

    /// Waits until it has banned `client` for the `offence`th time, and returns that log line.
    #[track_caller]
    pub fn wait_for_ban(&self, client: &str, offence: u32) -> Value {
        self.wait_for_log(&format!("ban {offence} of {client}"), |line| {
            says(line, "ban") && line["client"] == client && line["offences"] == offence
        })
    }

    /// The clients that its log has said to be banned so far, in the order of their names.
    pub fn banned(&self) -> Vec<String> {
        let bans = self.log().into_iter().filter(|line| says(line, "ban"));
        let mut clients: Vec<String> = bans.filter_map(|line| Some(line["client"].as_str()?.to_owned())).collect();
        clients.sort_unstable();
        clients
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        limits::kill(self.pid(), signal);
    }

    /// Writes another configuration where it reads it from. The ports are those it already has.
    pub fn write_config(&self, text: &str) {
        // Whole at once, as an editor does: it may be read at any moment.
        let new = self.directory.file("config.yaml.new", text);
        fs::rename(new, self.directory.0.join("config.yaml")).expect("a place for the configuration");
    }

    /// Gives it another configuration and waits until that is in force on every shard. Returns its number.
    #[track_caller]
    pub fn reload(&self, config: &Config) -> u64 {
        let before = self.metrics().get("fail2ban_policy_number", &[]);
        self.write_config(&config.text());
        self.signal(libc::SIGHUP);
        wait_for("the new policy on every shard", || {
            let metrics = self.metrics();
            let newest = metrics.get("fail2ban_policy_number", &[]);
            let adopted = metrics.by_shard("fail2ban_shard_policy_number", &[]);
            (newest > before && adopted.iter().all(|adopted| *adopted == newest)).then_some(newest)
        })
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait_for_end(mut self) -> Ended {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of this process") {
                return self.ended(status);
            }
            assert!(Instant::now() < deadline, "still running after {DEADLINE:?}:\n{}", self.text());
            sleep(PAUSE);
        }
    }

    fn ended(&mut self, status: ExitStatus) -> Ended {
        if let Some(listener) = self.listener.take() {
            listener.join().expect("a thread that only reads");
        }
        self.text();
        Ended { status, lines: self.lines.take() }
    }

    /// Ends it as a supervisor does, and checks that it ended well.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(libc::SIGTERM);
        let ended = self.wait_for_end();
        assert!(ended.status.success(), "{}\n{}", ended.status, ended.text());
        ended
    }

    /// Asks about `client` on a connection of its own.
    #[track_caller]
    pub fn auth(&self, client: &str) -> Answer {
        Http::connect(self.config.nginx)
            .and_then(|mut http| http.auth(client))
            .unwrap_or_else(|why| panic!("no answer about {client}: {why}\n{}", self.text()))
    }

    /// The status of the answer about `client`.
    #[track_caller]
    pub fn status(&self, client: &str) -> u16 {
        self.auth(client).status
    }

    /// Waits until the answer about `client` is `status`.
    #[track_caller]
    pub fn wait_for_status(&self, client: &str, status: u16) {
        let deadline = Instant::now() + DEADLINE;
        while self.status(client) != status {
            assert!(Instant::now() < deadline, "the answer about {client} did not become {status}\n{}", self.text());
            sleep(PAUSE);
        }
    }

    /// What it has counted, of all shards.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.scrape())
    }

    /// The same as Prometheus gets it.
    #[track_caller]
    pub fn scrape(&self) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = Http::connect(self.config.metrics).and_then(|mut http| http.get("/metrics", &[]));
            match answer {
                Ok(answer) if answer.status == 200 => {
                    let metrics = Metrics::parse(&answer.body);
                    // A shard that is busy may have missed the scrape.
                    if metrics.get("fail2ban_shards_answering", &[]) == metrics.get("fail2ban_shards", &[]) {
                        return answer.body;
                    }
                }
                answer => assert!(Instant::now() < deadline, "no metrics: {answer:?}\n{}", self.text()),
            }
            assert!(Instant::now() < deadline, "some shard never answers\n{}", self.text());
            sleep(PAUSE);
        }
    }

    /// Waits until a metric, summed over all of `labels`, is `value`. It is a mistake of the test if it goes beyond.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: u64) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = self.metrics().get(name, labels);
            if now == value {
                return;
            }
            assert!(Instant::now() < deadline, "{name} {labels:?} is {now}, not {value}\n{}", self.text());
            sleep(PAUSE);
        }
    }

    /// Waits until `count` log lines were matched and their failures counted by their owners.
    #[track_caller]
    pub fn wait_for_failures(&self, count: u64) {
        self.wait_for_metric("fail2ban_failures_total", &[], count);
    }

    /// Sends datagrams from one socket, in portions that any receive buffer holds.
    #[track_caller]
    pub fn send_udp<L: AsRef<[u8]>>(&self, lines: impl IntoIterator<Item = L>) {
        let any: IpAddr = if self.config.syslog.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).expect("a socket");
        self.send_udp_from(&socket, lines);
    }

    #[track_caller]
    pub fn send_udp_from<L: AsRef<[u8]>>(&self, socket: &UdpSocket, lines: impl IntoIterator<Item = L>) {
        const PORTION: u64 = 64;
        let received =
            |server: &Server| server.metrics().get("fail2ban_syslog_received_total", &[("transport", "udp")]);
        let (before, mut sent) = (received(self), 0);
        for line in lines {
            socket.send_to(line.as_ref(), self.config.syslog).expect("to send to loopback");
            sent += 1;
            if sent % PORTION == 0 {
                wait_for("datagrams to arrive", || (received(self) >= before + sent).then_some(()));
            }
        }
        wait_for("datagrams to arrive", || (received(self) >= before + sent).then_some(()));
    }

    /// A connection for log lines.
    #[track_caller]
    pub fn connect_syslog(&self) -> TcpStream {
        let stream = TcpStream::connect(self.config.syslog).expect("a connection for log lines");
        stream.set_nodelay(true).expect("an option of TCP");
        stream
    }

    /// Sends lines over one TCP connection and ends it.
    #[track_caller]
    pub fn send_tcp<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) {
        let text: String = lines.into_iter().map(|line| format!("{}\n", line.as_ref())).collect();
        self.connect_syslog().write_all(text.as_bytes()).expect("to send log lines");
    }

    /// Waits until every shard holds `count` bans.
    #[track_caller]
    pub fn wait_for_bans_everywhere(&self, count: u64) {
        wait_for("every ban on every shard", || {
            let held = self.metrics().by_shard("fail2ban_shard_replica_bans", &[]);
            held.iter().all(|held| *held == count).then_some(())
        });
    }

    /// Has `client` fail `times` times.
    #[track_caller]
    pub fn fail(&self, client: &str, times: usize) {
        self.send_tcp(std::iter::repeat_n(failed_login(client), times));
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the state of the program");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = self.text();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("log of the program, its end:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Runs the program to its end with a command, in `directory`.
pub fn run(directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(directory).env_clear();
    run_command(command, input)
}

/// Runs a command to its end with `input` on its standard input.
pub fn run_command(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let mut stdin = child.stdin.take().expect("its standard input");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("its output");
    feeder.join().expect("a thread that only writes");
    output
}

/// One connection for questions, kept alive from question to question.
pub struct Http {
    stream: TcpStream,
    /// What was read beyond the last answer.
    rest: Vec<u8>,
}

/// An answer to a question.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl Http {
    pub fn connect(to: SocketAddr) -> io::Result<Http> {
        let stream = TcpStream::connect_timeout(&to, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Http { stream, rest: Vec::new() })
    }

    /// Asks whether `client` may come in.
    pub fn auth(&mut self, client: &str) -> io::Result<Answer> {
        self.get("/auth", &[("X-Real-IP", client)])
    }

    pub fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> io::Result<Answer> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in fields {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        request.push_str("\r\n");
        self.send(request.as_bytes())?;
        self.answer()
    }

    /// How long [`Http::send`] waits for the other side.
    pub fn set_write_timeout(&self, time: Duration) {
        self.stream.set_write_timeout(Some(time)).expect("an option of every socket");
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not an answer in HTTP");
        let head_bytes = loop {
            match self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read_more()?,
            }
        };
        let head: Vec<u8> = self.rest.drain(..head_bytes).collect();
        let head = String::from_utf8(head).map_err(|_| malformed())?;
        let status =
            head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(malformed)?;
        let mut answer = Answer { status, head, body: String::new() };
        let body_bytes: usize =
            answer.field("Content-Length").and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
        while self.rest.len() < body_bytes {
            self.read_more()?;
        }
        let body: Vec<u8> = self.rest.drain(..body_bytes).collect();
        answer.body = String::from_utf8(body).map_err(|_| malformed())?;
        Ok(answer)
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.rest.extend_from_slice(&buffer[..n]);
                Ok(())
            }
        }
    }

    /// Waits until the other side has closed the connection; what it still sends is returned. A reset is an end too.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        loop {
            match self.read_more() {
                Ok(()) => {}
                Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection was not closed within {DEADLINE:?}")
                }
                Err(_) => return std::mem::take(&mut self.rest),
            }
        }
    }
}

/// What the program has counted, as Prometheus reads it.
#[derive(Debug)]
pub struct Metrics(pub Vec<Sample>);

/// One series, and where it stands.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Metrics {
    /// Reads the text format: `name{label="value",…} number`.
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}')?.split_terminator("\",").map(|label| {
                let (label, value) = label.split_once("=\"").expect("a label and its value");
                (label.to_owned(), value.trim_end_matches('"').to_owned())
            });
            Some(Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().ok()? })
        };
        let read = |line| sample(line).unwrap_or_else(|| panic!("not a metric: {line}"));
        Metrics(lines.map(read).collect())
    }

    /// The sum of all series of this name that have these labels.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample| {
            labels.iter().all(|(label, value)| sample.labels.iter().any(|(l, v)| l == label && v == value))
        };
        assert!(self.0.iter().any(|sample| sample.name == name), "there is no metric {name}");
        self.0.iter().filter(|sample| sample.name == name && has(sample)).map(|sample| sample.value).sum()
    }

    /// The same of a metric that counts something.
    #[track_caller]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.value(name, labels) as u64
    }

    /// A metric of each shard, in the order of the shards.
    #[track_caller]
    pub fn by_shard(&self, name: &str, labels: &[(&str, &str)]) -> Vec<u64> {
        let shards = self.get("fail2ban_shards", &[]);
        let of = |shard: u64| {
            let shard = shard.to_string();
            let labels: Vec<_> = labels.iter().copied().chain([("shard", shard.as_str())]).collect();
            self.get(name, &labels)
        };
        (0..shards).map(of).collect()
    }

    /// All series of this name, one a line.
    pub fn show(&self, name: &str) -> String {
        let shown = self.0.iter().filter(|sample| sample.name == name).map(|sample| {
            let labels: Vec<_> = sample.labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
            format!("{} {}", labels.join(","), sample.value)
        });
        shown.collect::<Vec<_>>().join("\n")
    }
}

/// `logger`, as a user types it, sending one message to the server per call.
pub fn logger(to: SocketAddr, options: &[&str], message: &str) {
    let mut command = tool("logger");
    command.args(["--server", &to.ip().to_string(), "--port", &to.port().to_string()]);
    command.args(["--tag", "dovecot", "--priority", "mail.info"]).args(options).arg("--").arg(message);
    let output = run_command(command, b"");
    assert!(output.status.success(), "logger {options:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether loopback has an IPv6 address.
pub fn has_ipv6() -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        skip("loopback has no IPv6 address");
    }
    has
}

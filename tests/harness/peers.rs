//! What tests with real proxies share: the proxies as child processes, origin servers behind them, and clients in
//! front of them that come from an address of their own.

use super::{DEADLINE, Http, PAUSE, limits, skip};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream as Stream};

/// A proxy that can be run here.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// The shared libraries that come with it, if any do.
    libraries: Option<PathBuf>,
}

impl Program {
    /// As the system has it. If it does not, the calling test is skipped.
    pub fn installed(name: &str) -> Option<Program> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from));
        let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
        if found.is_none() {
            skip(&format!("{name} is not installed"));
        }
        Some(Program { path: found?, libraries: None })
    }

    /// Out of the Python wheels that `scripts/test` unpacks into `target/peers`, or that are in the folder
    /// `MAILFAIL2BAN_PEERS`; `file` and `libraries` are paths in there. If it is not there, the calling test is
    /// skipped.
    pub fn unpacked(file: &str, libraries: Option<&str>) -> Option<Program> {
        let folder = env::var_os("MAILFAIL2BAN_PEERS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers"), PathBuf::from);
        let path = folder.join(file);
        if !path.is_file() {
            skip(&format!("there is no {}; scripts/test fetches it", path.display()));
            return None;
        }
        Some(Program { path, libraries: libraries.map(|libraries| folder.join(libraries)) })
    }

    /// A module of Python that `scripts/test` installs into `target/peers/python`, with all that it needs.
    pub fn module(file: &str) -> Option<Program> {
        let found = Program::unpacked(&format!("python/{file}"), Some("python"))?;
        Some(Program { path: Program::installed("python3")?.path, ..found })
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries).env("PYTHONPATH", libraries);
        }
        command
    }
}

/// A process beside the tested program, and everything it says. It ends, with its own children, when this is dropped.
pub struct Peer {
    child: Child,
    said: Receiver<String>,
    lines: RefCell<Vec<String>>,
    listeners: Vec<JoinHandle<()>>,
}

impl Peer {
    /// Starts it. It must stay in the foreground. Both of its outputs are read, line by line.
    #[track_caller]
    pub fn start(mut command: Command) -> Peer {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that its children end with it.
        command.process_group(0);
        limits::apply(&mut command, &[]);
        let mut child = command.spawn().unwrap_or_else(|why| panic!("{command:?}: {why}"));
        let (say, said) = channel();
        let stdout = child.stdout.take().expect("its standard output");
        let stderr = child.stderr.take().expect("its standard error");
        let listeners = vec![listen(stdout, say.clone()), listen(stderr, say)];
        Peer { child, said, lines: RefCell::default(), listeners }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Sends it, and not its children, a signal.
    pub fn signal(&self, signal: libc::c_int) {
        limits::kill(self.pid(), signal);
    }

    /// Every line it has written so far.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.borrow_mut();
        lines.extend(self.said.try_iter());
        lines.clone()
    }

    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits until `look` finds something. It is a failure if the process ends meanwhile.
    #[track_caller]
    pub fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut(&Peer) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(self.is_running(), "it ended before there was {what}:\n{}", self.text());
            assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain for {what}:\n{}", self.text());
            sleep(PAUSE);
        }
    }

    /// Waits for a line of which `is` is true.
    #[track_caller]
    pub fn wait_for_line(&mut self, what: &str, is: impl Fn(&str) -> bool) -> String {
        self.wait_for(what, |peer| peer.lines().into_iter().find(|line| is(line)))
    }

    /// Waits until it accepts connections on `address`.
    #[track_caller]
    pub fn wait_for_port(&mut self, address: SocketAddr) {
        self.wait_for(&format!("a listener on {address}"), |_| TcpStream::connect(address).ok());
    }

    /// Ends it as a supervisor does. Returns its status and everything it wrote.
    #[track_caller]
    pub fn stop(mut self) -> (ExitStatus, Vec<String>) {
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of this process") {
                break status;
            }
            assert!(Instant::now() < deadline, "still running after {DEADLINE:?}:\n{}", self.text());
            sleep(PAUSE);
        };
        (status, self.last_words())
    }

    /// Everything it wrote, when it has ended.
    pub fn last_words(mut self) -> Vec<String> {
        self.kill();
        for listener in self.listeners.drain(..) {
            listener.join().expect("a thread that only reads");
        }
        self.lines()
    }

    fn kill(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() && !self.listeners.is_empty() {
            let lines = self.lines();
            eprintln!("what the peer said, its end:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

fn listen(output: impl Read + Send + 'static, say: Sender<String>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        // Not lines(): what a proxy logs of its clients need not be UTF-8.
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if say.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    })
}

/// A text with `replacements` made in it: for a file that is shipped, with the addresses of a test. Each must be there
/// at least once, so that a test cannot leave out a line by mistake.
#[track_caller]
pub fn replace(text: &str, replacements: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "there is no {from:?} in the file to be replaced:\n{text}");
        text = text.replace(from, to);
    }
    text
}

/// A file of the project.
#[track_caller]
pub fn shipped(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// A server behind a proxy, on a port of loopback. Runs on one thread, however many connections it has.
pub struct Origin {
    pub address: SocketAddr,
    counts: Arc<Counts>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

#[derive(Clone, Copy)]
enum Speech {
    Http,
    Imap,
    Smtp,
}

/// What an HTTP origin answers.
pub const ORIGIN_BODY: &str = "hello from the origin\n";
/// What an IMAP origin says first, and an SMTP origin.
pub const IMAP_GREETING: &str = "* OK IMAP4rev1 ready";
pub const SMTP_GREETING: &str = "220 mail.example.org ESMTP ready";

impl Origin {
    /// Answers each request with 200 and [`ORIGIN_BODY`], and keeps connections.
    pub fn http() -> Origin {
        Origin::start(Speech::Http)
    }

    /// Says [`IMAP_GREETING`], and `OK` to each command.
    pub fn imap() -> Origin {
        Origin::start(Speech::Imap)
    }

    /// Says [`SMTP_GREETING`], and 250 to each command.
    pub fn smtp() -> Origin {
        Origin::start(Speech::Smtp)
    }

    fn start(speech: Speech) -> Origin {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let listener = {
            let _inside = runtime.enter();
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
            // As many as come at once: who finds no place tries again after a second.
            socket.listen(4096).expect("a listener");
            socket.set_nonblocking(true).expect("an option of every socket");
            TcpListener::from_std(socket.into()).expect("a listener")
        };
        let address = listener.local_addr().expect("its address");
        let counts = Arc::new(Counts::default());
        let (end, ended) = tokio::sync::oneshot::channel();
        let count = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, speech, count) => {}
                    _ = ended => {}
                }
            });
        });
        Origin { address, counts, end: Some(end), thread: Some(thread) }
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// How many requests or commands it has answered.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, speech: Speech, counts: Arc<Counts>) {
    // An accept that fails costs that connection only.
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            counts.connections.fetch_add(1, Ordering::SeqCst);
            let counts = Arc::clone(&counts);
            tokio::spawn(async move { drop(speak(stream, speech, &counts).await) });
        }
    }
}

async fn speak(stream: Stream, speech: Speech, counts: &Counts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match speech {
        Speech::Http => {}
        Speech::Imap => send(&stream, format!("{IMAP_GREETING}\r\n").as_bytes()).await?,
        Speech::Smtp => send(&stream, format!("{SMTP_GREETING}\r\n").as_bytes()).await?,
    }
    let end: &[u8] = if matches!(speech, Speech::Http) { b"\r\n\r\n" } else { b"\r\n" };
    let mut rest = Vec::new();
    let mut buffer = [0; 4 << 10];
    loop {
        while let Some(at) = rest.windows(end.len()).position(|window| window == end) {
            let request: Vec<u8> = rest.drain(..at + end.len()).collect();
            let request = String::from_utf8_lossy(&request);
            counts.requests.fetch_add(1, Ordering::SeqCst);
            let answer = match speech {
                Speech::Http => {
                    let length = ORIGIN_BODY.len();
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{ORIGIN_BODY}"
                    )
                }
                Speech::Imap => format!("{} OK done\r\n", request.split_whitespace().next().unwrap_or("*")),
                Speech::Smtp => "250 ok\r\n".to_owned(),
            };
            send(&stream, answer.as_bytes()).await?;
        }
        stream.readable().await?;
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => rest.extend_from_slice(&buffer[..read]),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
    }
}

async fn send(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

/// A connection to `to` from `client`, which must be an address of this machine: all of 127.0.0.0/8 is.
pub fn connect_from(client: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(client, 0).into())?;
    socket.connect_timeout(&to.into(), DEADLINE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// A connection for requests in HTTP, from `client`.
pub fn http_from(client: IpAddr, to: SocketAddr) -> io::Result<Http> {
    Ok(Http { stream: connect_from(client, to)?, rest: Vec::new() })
}

/// A connection to a server that speaks first.
pub struct Talk(BufReader<TcpStream>);

/// What a client of such a server hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its end.
    Line(String),
    /// The end of the connection, by a close or a reset.
    Closed,
}

impl Talk {
    pub fn from(client: IpAddr, to: SocketAddr) -> io::Result<Talk> {
        Ok(Talk(BufReader::new(connect_from(client, to)?)))
    }

    /// Says a line. That the other side does not listen any more shows in what is heard next.
    pub fn say(&mut self, line: &str) {
        let _ = self.0.get_mut().write_all(format!("{line}\r\n").as_bytes());
    }

    /// Waits for the next line.
    #[track_caller]
    pub fn hear(&mut self) -> Heard {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => Heard::Closed,
            Ok(_) => Heard::Line(line.trim_end().to_owned()),
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("neither a line nor the end of the connection within {DEADLINE:?}")
            }
            Err(_) => Heard::Closed,
        }
    }
}

/// What `client` hears first on a new connection to `to`.
#[track_caller]
pub fn greeting(client: IpAddr, to: SocketAddr) -> Heard {
    // Whoever is refused may be so before the connection is established for both sides.
    Talk::from(client, to).map_or(Heard::Closed, |mut talk| talk.hear())
}

/// The status of the answer to `GET /` from `client` on a new connection to `to`.
pub fn http_status(client: IpAddr, to: SocketAddr) -> io::Result<u16> {
    Ok(http_from(client, to)?.get("/", &[])?.status)
}

/// Waits until `look` is true several times in a row: a proxy has one connection to the program for each of its
/// threads, and they do not come back at the same moment.
#[track_caller]
pub fn wait_for_steady(what: &str, times: u32, mut look: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < times {
        in_a_row = if look() { in_a_row + 1 } else { 0 };
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {times} times in a row: {what}");
        if in_a_row == 0 {
            sleep(PAUSE);
        }
    }
    started.elapsed()
}

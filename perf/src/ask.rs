//! Asking: connections that each have some questions under way, in one loop on one thread.
//!
//! With a rate, questions are due at their times, and one that finds no free connection waits; its latency counts from when
//! it was due. Without, there are always as many under way as connections and depth allow.

use crate::clients::{Client, Draw};
use crate::pace::Pace;
use crate::report::{Span, Tally};
use crate::wire::{Session, Verdict};
use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long to wait for answers after the last question.
const PATIENCE: Duration = Duration::from_secs(2);

/// When less than this is left, waiting in the kernel is too coarse.
const SPIN: Duration = Duration::from_millis(1);

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Endpoint::Unix(path.into()));
        }
        let malformed = || format!("{text:?} is neither ADDRESS:PORT nor unix:PATH");
        text.parse().map(Endpoint::Tcp).map_err(|_| malformed())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(to: &Endpoint) -> io::Result<Stream> {
        match to {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Tcp(stream))
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Stream::Unix(stream))
            }
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            Stream::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What is to be asked, by one thread.
pub struct Plan<'a> {
    pub to: Endpoint,
    pub session: &'a (dyn Fn() -> Box<dyn Session> + Sync),
    pub connections: usize,
    /// Questions under way on one connection.
    pub depth: usize,
    /// A second; none means as fast as answers come.
    pub rate: Option<f64>,
    /// So many answers are enough.
    pub count: Option<u64>,
    pub draw: Draw,
}

/// What the threads share: how far they are, and whether they shall end.
#[derive(Debug, Default)]
pub struct Progress {
    pub done: AtomicU64,
    pub ends: AtomicBool,
}

/// A question under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    intended: Instant,
    client: Client,
}

struct Connection {
    stream: Stream,
    session: Box<dyn Session>,
    asked: VecDeque<Asked>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that the kernel has taken.
    written: usize,
    waits_to_write: bool,
}

impl Connection {
    fn open(to: &Endpoint, session: Box<dyn Session>) -> io::Result<Connection> {
        let stream = Stream::connect(to)?;
        let mut connection = Connection {
            stream,
            session,
            asked: VecDeque::new(),
            input: Vec::with_capacity(64 << 10),
            output: Vec::with_capacity(64 << 10),
            written: 0,
            waits_to_write: false,
        };
        connection.session.greet(&mut connection.output);
        connection.flush()?;
        Ok(connection)
    }

    fn is_free(&self, depth: usize) -> bool {
        self.asked.len() < depth && self.session.may_ask()
    }

    fn ask(&mut self, client: Client, intended: Instant) {
        let number = self.session.ask(client.address, &mut self.output);
        self.asked.push_back(Asked { number, intended, client });
    }

    /// Writes what the kernel takes.
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what is there, once.
    fn receive(&mut self, buffer: &mut [u8], answers: &mut Vec<(u64, Verdict)>) -> anyhow::Result<()> {
        let count = match self.stream.read(buffer) {
            Ok(0) => anyhow::bail!("connection closed"),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let read = &buffer[..count];
        if self.input.is_empty() {
            let used = self.session.read(read, &mut self.output, answers)?;
            self.input.extend(&read[used..]);
        } else {
            self.input.extend(read);
            let used = self.session.read(&self.input, &mut self.output, answers)?;
            self.input.drain(..used);
        }
        Ok(())
    }
}

/// Asks until the span ends or the count is reached.
///
/// # Errors
///
/// There is nobody to ask, from the beginning. What happens later is counted.
pub fn run(plan: &Plan<'_>, span: Span, progress: &Progress) -> anyhow::Result<Tally> {
    let mut asker = Asker::new(plan, span)?;
    asker.run(plan, progress)?;
    Ok(asker.tally)
}

struct Asker {
    epoll: Epoll,
    connections: Vec<Connection>,
    /// Where the search for a free connection begins.
    turn: usize,
    draw: Draw,
    pace: Option<Pace>,
    tally: Tally,
    span: Span,
}

impl Asker {
    fn new(plan: &Plan<'_>, span: Span) -> anyhow::Result<Asker> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::new();
        for at in 0..plan.connections {
            let connection = Connection::open(&plan.to, (plan.session)())
                .with_context(|| format!("cannot connect to {}", plan.to))?;
            epoll.add(&connection.stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
            connections.push(connection);
        }
        let pace = plan.rate.map(|rate| Pace::new(span.start, rate));
        Ok(Asker { epoll, connections, turn: 0, draw: plan.draw.clone(), pace, tally: Tally::new(span), span })
    }

    fn run(&mut self, plan: &Plan<'_>, progress: &Progress) -> anyhow::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        let mut answers = Vec::new();
        let mut events = vec![EpollEvent::empty(); 1024];
        loop {
            let now = Instant::now();
            let is_over = self.span.until.is_some_and(|until| now >= until)
                || plan.count.is_some_and(|count| self.tally.done >= count)
                || progress.ends.load(Ordering::Relaxed);
            if is_over {
                break;
            }
            self.ask_what_is_due(plan, now)?;
            self.wait(plan, &mut events, &mut buffer, &mut answers, progress, self.timeout(now))?;
        }
        // What is still under way is late, and counts as such; what never comes is an error.
        let end = Instant::now() + PATIENCE;
        while self.connections.iter().any(|connection| !connection.asked.is_empty()) && Instant::now() < end {
            self.wait(plan, &mut events, &mut buffer, &mut answers, progress, Some(Duration::from_millis(100)))?;
        }
        let unanswered: usize = self.connections.iter().map(|connection| connection.asked.len()).sum();
        self.tally.error("not answered", unanswered as u64);
        Ok(())
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let free = |pace: &Pace| pace.next().saturating_duration_since(now);
        match &self.pace {
            Some(pace) => Some(free(pace)),
            None => Some(Duration::from_millis(100)),
        }
    }

    fn ask_what_is_due(&mut self, plan: &Plan<'_>, now: Instant) -> anyhow::Result<()> {
        let count = self.connections.len();
        match self.pace {
            None => {
                for at in 0..count {
                    while self.connections[at].is_free(plan.depth) {
                        let client = self.draw.next();
                        self.connections[at].ask(client, now);
                    }
                    self.flush(plan, at)?;
                }
            }
            Some(mut pace) => {
                let mut due = pace.due(now);
                for _ in 0..count {
                    if due == 0 {
                        break;
                    }
                    let at = self.turn % count;
                    // One for each connection before a second one for any, where all are free.
                    let share = due.div_ceil(count as u64);
                    let mut asked = 0;
                    while asked < share && due > 0 && self.connections[at].is_free(plan.depth) {
                        let client = self.draw.next();
                        self.connections[at].ask(client, pace.begin());
                        (asked, due) = (asked + 1, due - 1);
                    }
                    self.flush(plan, at)?;
                    self.turn += 1;
                }
                self.pace = Some(pace);
            }
        }
        Ok(())
    }

    fn wait(
        &mut self,
        plan: &Plan<'_>,
        events: &mut [EpollEvent],
        buffer: &mut [u8],
        answers: &mut Vec<(u64, Verdict)>,
        progress: &Progress,
        timeout: Option<Duration>,
    ) -> anyhow::Result<()> {
        let timeout = match timeout {
            Some(left) if left < SPIN => EpollTimeout::ZERO,
            Some(left) => EpollTimeout::try_from(left.min(Duration::from_millis(100))).unwrap_or(EpollTimeout::ZERO),
            None => EpollTimeout::NONE,
        };
        let count = match self.epoll.wait(events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            let at = event.data() as usize;
            answers.clear();
            let result = self.connections[at].receive(buffer, answers);
            let now = Instant::now();
            progress.done.fetch_add(answers.len() as u64, Ordering::Relaxed);
            for (number, verdict) in answers.drain(..) {
                self.settle(at, number, verdict, now);
            }
            match result {
                Ok(()) => self.flush(plan, at)?,
                Err(error) => self.reopen(plan, at, &error)?,
            }
        }
        Ok(())
    }

    fn settle(&mut self, at: usize, number: u64, verdict: Verdict, now: Instant) {
        let asked = &mut self.connections[at].asked;
        // They nearly always come in order.
        let Some(place) = asked.iter().position(|asked| asked.number == number) else {
            return self.tally.error("an answer that nobody asked for", 1);
        };
        let Some(asked) = asked.remove(place) else { return };
        self.tally.done(now, 1);
        self.tally.took(asked.intended, now);
        let is_right = match verdict {
            Verdict::Allowed => {
                self.tally.allowed += 1;
                !asked.client.is_banned
            }
            Verdict::Denied => {
                self.tally.denied += 1;
                asked.client.is_banned
            }
            Verdict::Unread => true,
            Verdict::Other(what, code) => {
                self.tally.error(format!("answered with {what} {code}"), 1);
                false
            }
        };
        self.tally.wrong += u64::from(!is_right);
    }

    fn flush(&mut self, plan: &Plan<'_>, at: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[at];
        if connection.output.is_empty() {
            return Ok(());
        }
        if let Err(error) = connection.flush() {
            return self.reopen(plan, at, &error.into());
        }
        let waits = !connection.output.is_empty();
        if waits != connection.waits_to_write {
            connection.waits_to_write = waits;
            let interest = if waits { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            self.epoll.modify(&connection.stream, &mut EpollEvent::new(interest, at as u64))?;
        }
        Ok(())
    }

    /// A connection has ended. One that ends with nothing under way has done nothing wrong.
    fn reopen(&mut self, plan: &Plan<'_>, at: usize, why: &anyhow::Error) -> anyhow::Result<()> {
        let lost = self.connections[at].asked.len() as u64;
        self.tally.error(format!("{why:#}"), lost);
        self.epoll.delete(&self.connections[at].stream)?;
        let connection = Connection::open(&plan.to, (plan.session)())
            .with_context(|| format!("cannot connect to {} again, after: {why:#}", plan.to))?;
        self.epoll.add(&connection.stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        self.connections[at] = connection;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Http, HttpOptions};
    use std::net::TcpListener;

    /// Answers 403 to offenders and 200 to others, and every `hangs_after`th after a pause.
    fn server(pause: Duration, hangs_after: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
                    let mut answered = 0;
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        seen.extend(&buffer[..count]);
                        while let Some(end) = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                            let head = String::from_utf8(seen.drain(..end + 4).collect()).unwrap();
                            answered += 1;
                            if answered % hangs_after == 0 {
                                std::thread::sleep(pause);
                            }
                            let status = if head.contains(": 198.") { "403 No" } else { "200 OK" };
                            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
                        }
                    }
                });
            }
        });
        address
    }

    fn measure(to: SocketAddr, rate: Option<f64>, length: Option<Duration>, count: Option<u64>) -> Tally {
        let options = HttpOptions { path: "/".into(), host: "h".into(), header: "X-Real-IP".into() };
        let plan = Plan {
            to: Endpoint::Tcp(to),
            session: &move || Box::new(Http::new(&options)),
            connections: 2,
            depth: 1,
            rate,
            count,
            draw: Draw::new(1, 0.5, 10, 10),
        };
        run(&plan, Span::new(Duration::ZERO, length), &Progress::default()).unwrap()
    }

    #[test]
    fn answers_are_counted_and_judged() {
        let tally = measure(server(Duration::ZERO, usize::MAX), None, None, Some(100));
        assert!(tally.done >= 100 && tally.denied > 20 && tally.allowed > 20, "{}, {}", tally.denied, tally.allowed);
        assert_eq!((tally.wrong, tally.errors.len()), (0, 0));
    }

    /// Half a second in which nobody answers is in the latency of all that was due in it, not only of the two that waited.
    #[test]
    fn a_pause_is_felt_by_all_that_was_due_in_it() {
        let pause = Duration::from_millis(500);
        let tally = measure(server(pause, 100), Some(1000.0), Some(Duration::from_millis(1000)), None);
        let report = crate::report::Report::new(
            "auth",
            serde_json::Value::Null,
            &tally,
            &crate::report::Used { seconds: 1.0, cpu: Default::default() },
        );
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["latency_us"]["p50"].as_f64().unwrap() > 50_000.0, "{}", report.print());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let options = HttpOptions { path: "/".into(), host: "h".into(), header: "X".into() };
        let plan = Plan {
            to: Endpoint::Tcp(closed),
            session: &move || Box::new(Http::new(&options)),
            connections: 1,
            depth: 1,
            rate: None,
            count: Some(1),
            draw: Draw::new(1, 0.5, 10, 10),
        };
        let error = run(&plan, Span::new(Duration::ZERO, None), &Progress::default()).err().unwrap();
        assert!(error.to_string().contains("cannot connect to 127.0.0.1"), "{error:#}");
    }
}

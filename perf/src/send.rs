//! Sending log lines: by UDP many to a system call, by TCP as fast as they are taken, or into a file.

use crate::log::{Format, Log};
use crate::pace::Pace;
use crate::report::{Span, Tally};
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg, setsockopt, sockopt};
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IoSlice, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Datagrams to a system call.
const BATCH: usize = 64;

/// What a train of segments may hold together: the longest datagram there is.
const TRAIN_BYTES_MAX: usize = 65_000;

/// Bytes given to a TCP connection at a time.
const CHUNK: usize = 64 << 10;

/// Where lines go.
#[derive(Clone, Debug)]
pub enum Sink {
    Udp {
        to: SocketAddr,
        /// All lines are so long, and the kernel cuts trains of them into datagrams (UDP_SEGMENT).
        segments: Option<usize>,
    },
    Tcp {
        to: SocketAddr,
        connections: usize,
    },
    /// `-` is standard output.
    File(PathBuf),
}

/// What is to be sent.
pub struct Plan {
    pub sink: Sink,
    pub rate: Option<f64>,
    pub count: Option<u64>,
    /// With a rate: how long to sleep when nothing is due. None means to wait awake.
    pub nap: Option<Duration>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub lines: u64,
    /// Of those, failed logins.
    pub failing: u64,
}

/// Sends until the span ends or the count is reached.
///
/// # Errors
///
/// Nobody takes the lines.
pub fn run(plan: &Plan, log: &mut Log, span: Span, progress: impl FnMut(u64)) -> anyhow::Result<(Sent, Tally)> {
    let mut outlet = Outlet::open(&plan.sink)?;
    let mut sender = Sender { log, sent: Sent::default(), tally: Tally::new(span), pace: None, progress };
    sender.pace = plan.rate.map(|rate| Pace::new(span.start, rate));
    sender.run(plan, &mut outlet, span)?;
    outlet.finish()?;
    Ok((sender.sent, sender.tally))
}

/// Sends what is given, whole, over one TCP connection.
///
/// # Errors
///
/// Nobody takes it.
pub fn send_lines(to: SocketAddr, lines: impl Iterator<Item = Vec<u8>>) -> anyhow::Result<u64> {
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    let mut out = BufWriter::with_capacity(CHUNK, stream);
    let mut count = 0;
    for line in lines {
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        count += 1;
    }
    finish_stream(&out.into_inner()?)?;
    Ok(count)
}

struct Sender<'a, P> {
    log: &'a mut Log,
    sent: Sent,
    tally: Tally,
    pace: Option<Pace>,
    progress: P,
}

impl<P: FnMut(u64)> Sender<'_, P> {
    fn run(&mut self, plan: &Plan, outlet: &mut Outlet, span: Span) -> anyhow::Result<()> {
        let (mut bytes, mut ends) = (Vec::with_capacity(CHUNK * 2), Vec::with_capacity(BATCH * 8));
        loop {
            let now = Instant::now();
            if span.until.is_some_and(|until| now >= until) {
                return Ok(());
            }
            let left = plan.count.map_or(u64::MAX, |count| count.saturating_sub(self.sent.lines));
            if left == 0 {
                return Ok(());
            }
            let due = match &self.pace {
                Some(pace) => pace.due(now),
                None => u64::MAX,
            };
            let wanted = due.min(left).min(outlet.batch() as u64);
            if wanted == 0 {
                match plan.nap {
                    Some(nap) => std::thread::sleep(nap),
                    // With a core of one's own, waiting is best done awake: the kernel would wake us too late.
                    None => std::hint::spin_loop(),
                }
                continue;
            }
            bytes.clear();
            ends.clear();
            for _ in 0..wanted {
                self.sent.failing += u64::from(self.log.push(&mut bytes));
                outlet.end_line(&mut bytes);
                ends.push(bytes.len());
            }
            outlet.send(&bytes, &ends)?;
            if let Some(pace) = &mut self.pace {
                pace.begin_many(wanted);
            }
            self.sent.lines += wanted;
            self.tally.done(Instant::now(), wanted);
            (self.progress)(self.sent.lines);
        }
    }
}

enum Outlet {
    Udp { socket: UdpSocket, segments: Option<usize> },
    Tcp { streams: Vec<TcpStream>, turn: usize },
    File(BufWriter<Box<dyn Write>>),
}

impl Outlet {
    fn open(sink: &Sink) -> anyhow::Result<Outlet> {
        Ok(match sink {
            Sink::Udp { to, segments } => {
                let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                if let Some(length) = segments {
                    setsockopt(&socket, sockopt::UdpGsoSegment, &(*length as i32))
                        .context("this kernel does not segment datagrams")?;
                }
                Outlet::Udp { socket, segments: *segments }
            }
            Sink::Tcp { to, connections } => {
                let connect = |_| TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"));
                Outlet::Tcp { streams: (0..*connections).map(connect).collect::<anyhow::Result<_>>()?, turn: 0 }
            }
            Sink::File(path) if path.as_os_str() == "-" => {
                Outlet::File(BufWriter::with_capacity(CHUNK, Box::new(io::stdout().lock())))
            }
            Sink::File(path) => {
                let file = File::create(path).with_context(|| path.display().to_string())?;
                Outlet::File(BufWriter::with_capacity(CHUNK, Box::new(file)))
            }
        })
    }

    /// Lines to give it at a time.
    fn batch(&self) -> usize {
        match self {
            Outlet::Udp { segments: Some(length), .. } => BATCH.min(TRAIN_BYTES_MAX / length).max(1) * 8,
            Outlet::Udp { segments: None, .. } => BATCH,
            Outlet::Tcp { .. } | Outlet::File(_) => BATCH * 6,
        }
    }

    fn end_line(&self, bytes: &mut Vec<u8>) {
        if !matches!(self, Outlet::Udp { .. }) {
            bytes.push(b'\n');
        }
    }

    fn send(&mut self, bytes: &[u8], ends: &[usize]) -> anyhow::Result<()> {
        match self {
            Outlet::Udp { socket, segments: None } => {
                let mut begin = 0;
                let lines: Vec<&[u8]> =
                    ends.iter().map(|end| &bytes[std::mem::replace(&mut begin, *end)..*end]).collect();
                send_datagrams(socket, &lines)
            }
            Outlet::Udp { socket, segments: Some(length) } => {
                let train = BATCH.min(TRAIN_BYTES_MAX / *length).max(1) * *length;
                send_datagrams(socket, &bytes.chunks(train).collect::<Vec<_>>())
            }
            Outlet::Tcp { streams, turn } => {
                *turn = (*turn + 1) % streams.len();
                streams[*turn].write_all(bytes).context("the server has closed the connection")
            }
            Outlet::File(file) => Ok(file.write_all(bytes)?),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Outlet::Udp { .. } => Ok(()),
            Outlet::Tcp { streams, .. } => streams.iter().try_for_each(finish_stream),
            Outlet::File(mut file) => Ok(file.flush()?),
        }
    }
}

/// All was taken once the server closes too.
fn finish_stream(mut stream: &TcpStream) -> anyhow::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    match io::copy(&mut stream, &mut io::sink()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => bail!("the server does not take the end of the log: {error}"),
    }
}

fn send_datagrams(socket: &UdpSocket, lines: &[&[u8]]) -> anyhow::Result<()> {
    let mut left = lines;
    while !left.is_empty() {
        let batch = &left[..left.len().min(BATCH)];
        let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|line| [IoSlice::new(line)]).collect();
        let addresses: Vec<Option<()>> = vec![None; batch.len()];
        let mut headers = MultiHeaders::<()>::preallocate(batch.len(), None);
        let result = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, addresses, [], MsgFlags::empty());
        match result {
            Ok(sent) => left = &left[sent.count()..],
            Err(Errno::EINTR) => {}
            // ICMP said that nobody listens: an error of the datagram before, told once.
            Err(Errno::ECONNREFUSED) => bail!("nobody receives datagrams there"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The format that suits a place best.
pub fn usual_format(sink: &Sink) -> Format {
    match sink {
        Sink::File(_) => Format::File,
        _ => Format::Rfc3164,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Mix;
    use std::io::Read;
    use std::net::TcpListener;

    fn log(length: Option<usize>) -> Log {
        Log::new(Mix { seed: 1, failing: 0.5, clients: 10, first: 0, format: Format::Rfc3164, length })
    }

    fn send(sink: Sink, rate: Option<f64>, nap: Option<Duration>, count: u64, length: Option<usize>) -> Sent {
        let plan = Plan { sink, rate, count: Some(count), nap };
        run(&plan, &mut log(length), Span::new(Duration::ZERO, None), |_| ()).unwrap().0
    }

    #[test]
    fn every_line_is_a_datagram() {
        for (segments, length) in [(None, None), (Some(200), Some(200))] {
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let sink = Sink::Udp { to: receiver.local_addr().unwrap(), segments };
            let sent = send(sink, None, None, 100, length);
            let mut failing = 0;
            for _ in 0..100 {
                let mut buffer = [0; 2048];
                let count = receiver.recv(&mut buffer).unwrap();
                assert!(buffer[..count].starts_with(b"<"));
                assert!(length.is_none_or(|length| length == count));
                failing += u64::from(buffer[..count].windows(7).any(|bytes| bytes == b"198.18."));
            }
            assert_eq!(sent, Sent { lines: 100, failing });
        }
    }

    #[test]
    fn a_stream_has_all_lines_and_a_pace_is_kept() {
        for nap in [None, Some(Duration::from_millis(2))] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let reader = std::thread::spawn(move || {
                let mut text = String::new();
                for _ in 0..2 {
                    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
                }
                text
            });
            let begun = Instant::now();
            let sent = send(Sink::Tcp { to, connections: 2 }, Some(5000.0), nap, 1000, None);
            assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
            let text = reader.join().unwrap();
            assert_eq!((sent.lines, text.lines().count()), (1000, 1000));
            assert!(text.lines().all(|line| line.starts_with('<')));
        }
    }
}

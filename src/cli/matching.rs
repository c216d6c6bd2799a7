//! `match`: what would the configured patterns have found in this log?

use super::{Format, missed};
use crate::control::RunFault;
use crate::control::publish::Publisher;
use crate::engine::ban::{FailureKind, PatternId, client_of};
use crate::engine::logins::Logins;
use crate::engine::matcher::{Found, Match, Scratch};
use crate::engine::policy::Policy;
use crate::engine::table::hash_key;
use crate::engine::time::Time;
use crate::wire::syslog::{Record, decode_logged};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, IsTerminal as _, Read, Write};
use std::path::Path;
use std::time::Instant;

/// Lines longer than this are looked at up to here: no daemon writes such, and memory stays bounded.
const LINE_BYTES_MAX: usize = 1 << 20;

/// How much is read from the file at once.
const READ_BYTES: usize = 1 << 18;

/// Failed logins of which it is known how often they were told, for a log of any length.
const LOGINS_MAX: usize = 1 << 20;

/// What is to be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Matches,
    /// Lines that look like failures and that nothing matched.
    Missed,
}

/// How often the progress bar is looked after, in lines.
const LINES_PER_PROGRESS: u64 = 4096;

/// One matched line, as it is printed.
#[derive(Serialize)]
struct Hit<'a> {
    line: u64,
    pattern: &'a str,
    ip: String,
    severity: u8,
    kind: &'a str,
    program: &'a str,
    /// How many failures count.
    failures: u32,
    /// How many the line tells of: more, if other lines told of them before.
    told: u32,
}

/// One line that nothing matched, though it looks like a failure, as it is printed.
#[derive(Serialize)]
struct Missed<'a> {
    line: u64,
    program: &'a str,
    message: &'a str,
}

/// What was found, for the summary.
#[derive(Default)]
struct Summary {
    lines: u64,
    matched: u64,
    failures: u64,
    /// Failures that other lines had told of.
    known: u64,
    missed: u64,
    malformed: u64,
    no_address: u64,
    /// Lines and failures by pattern.
    by_pattern: BTreeMap<PatternId, (u64, u64)>,
}

/// Runs the configured patterns over a log file, or standard input for `-`.
///
/// # Errors
///
/// If the configuration is faulty, or the log cannot be read.
pub fn run(config: &Path, file: &Path, format: Format, wanted: Wanted) -> Result<(), RunFault> {
    // The key of the hash is of no use here: nobody else sees these tables.
    let (_, policy) = Publisher::new(1, hash_key(0)).load(config)?;
    let unreadable = |why: io::Error| RunFault::Machine(vec![format!("cannot read {}: {why}", file.display())]);
    let Log { reader, bytes } = open_log(file)?;
    let progress = progress_bar(bytes);
    let log = BufReader::with_capacity(READ_BYTES, progress.wrap_read(reader));
    let started = started();
    let out = BufWriter::with_capacity(READ_BYTES, io::stdout().lock());
    let mut search = Search::new(out, &policy, format, wanted);
    let searched = search.run(log, &progress);
    progress.finish_and_clear();
    searched.map_err(unreadable)?;
    let summary = search.summary;
    eprint!("{}", summary.print(&policy, started.elapsed().as_secs_f64()));
    Ok(())
}

/// A log that is open.
pub struct Log {
    pub reader: BufReader<Box<dyn Read>>,
    /// How long it is, if it has an end.
    bytes: Option<u64>,
}

/// Opens a log, or standard input for `-`.
pub fn open_log(file: &Path) -> Result<Log, RunFault> {
    let unreadable = |why: io::Error| RunFault::Machine(vec![format!("cannot read {}: {why}", file.display())]);
    let (log, bytes): (Box<dyn Read>, Option<u64>) = if file.as_os_str() == "-" {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(file).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(unreadable(ErrorKind::IsADirectory.into()));
        }
        (Box::new(file), metadata.is_file().then_some(metadata.len()))
    };
    Ok(Log { reader: BufReader::with_capacity(READ_BYTES, log), bytes })
}

#[expect(
    clippy::disallowed_methods,
    reason = "lines per second are told to the person who waits; nothing is decided by it"
)]
fn started() -> Instant {
    Instant::now()
}

fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}

/// What is looked for in a log.
struct Search<'a, W> {
    out: W,
    policy: &'a Policy,
    scratch: Scratch,
    format: Format,
    wanted: Wanted,
    logins: Logins,
    summary: Summary,
}

impl<'a, W: Write> Search<'a, W> {
    fn new(out: W, policy: &'a Policy, format: Format, wanted: Wanted) -> Search<'a, W> {
        Search {
            out,
            policy,
            scratch: policy.matcher.scratch(),
            format,
            wanted,
            logins: Logins::new(LOGINS_MAX, hash_key(0)),
            summary: Summary::default(),
        }
    }

    fn run(&mut self, mut log: impl BufRead, progress: &ProgressBar) -> io::Result<()> {
        let mut line = Vec::new();
        while read_line(&mut log, &mut line)? {
            self.summary.lines += 1;
            if self.summary.lines.is_multiple_of(LINES_PER_PROGRESS) {
                progress.tick();
            }
            match self.look(&line) {
                // Whoever reads has had enough.
                Err(why) if why.kind() == ErrorKind::BrokenPipe => return Ok(()),
                looked => looked?,
            }
        }
        match self.out.flush() {
            Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }

    fn look(&mut self, line: &[u8]) -> io::Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        let Ok(record) = decode_logged(line) else {
            self.summary.malformed += 1;
            return Ok(());
        };
        let found = self.policy.matcher.find(&mut self.scratch, record.program, record.pid, record.message);
        match found {
            Found::NotWatched | Found::Nothing => {
                if self.wanted == Wanted::Missed && missed::looks_like_a_failure(record.program, record.message) {
                    self.summary.missed += 1;
                    self.print_missed(&record)?;
                }
                Ok(())
            }
            Found::NoAddress(_) => {
                self.summary.no_address += 1;
                Ok(())
            }
            Found::Match(found) => {
                let client = client_of(found.address, &self.policy.rules);
                let failures = match &found.login {
                    // All of the log is of one time: what it tells twice it tells twice, however long it is.
                    Some(login) => {
                        self.logins.tell(client, login, found.failures, Time::START, self.policy.rules.window)
                    }
                    None => found.failures,
                };
                self.summary.matched(&found, failures);
                if self.wanted == Wanted::Matches { self.print(&record, &found, failures) } else { Ok(()) }
            }
        }
    }

    fn print(&mut self, record: &Record<'_>, found: &Match, failures: u32) -> io::Result<()> {
        let program = String::from_utf8_lossy(record.program);
        let hit = Hit {
            line: self.summary.lines,
            pattern: self.policy.name(found.pattern),
            ip: found.address.to_string(),
            severity: found.severity.level(),
            kind: self.policy.kind(found.pattern).map_or("", FailureKind::name),
            program: &program,
            failures,
            told: found.failures.max(1),
        };
        match self.format {
            Format::Json => self.print_json(&hit),
            Format::Text => {
                let program = program.escape_debug();
                let again = match found.failures {
                    0 => ", does not count",
                    told if failures < told => ", known from other lines",
                    _ => "",
                };
                writeln!(
                    self.out,
                    "{:>8}  {:<39}  {:>3} × {} ({}, severity {}, {program}{again})",
                    hit.line, hit.ip, hit.failures, hit.pattern, hit.kind, hit.severity
                )
            }
        }
    }

    fn print_missed(&mut self, record: &Record<'_>) -> io::Result<()> {
        let text = String::from_utf8_lossy;
        let (program, message) = (text(record.program), text(record.message));
        let missed = Missed { line: self.summary.lines, program: &program, message: &message };
        match self.format {
            Format::Json => self.print_json(&missed),
            Format::Text => {
                let (program, message) = (program.escape_debug(), message.escape_debug());
                writeln!(self.out, "{:>8}  {program}: {message}", missed.line)
            }
        }
    }

    fn print_json(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}

/// Reads the next line without its end; false at the end of the log. The rest of a line that is too long is skipped.
pub fn read_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = match log.fill_buf() {
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = memchr::memchr(b'\n', buffer);
        let part = end.and_then(|end| buffer.get(..end)).unwrap_or(buffer);
        let room = LINE_BYTES_MAX - line.len();
        line.extend_from_slice(part.get(..room).unwrap_or(part));
        let consumed = part.len() + usize::from(end.is_some());
        log.consume(consumed);
        if end.is_some() {
            return Ok(true);
        }
    }
}

impl Summary {
    fn matched(&mut self, found: &Match, counted: u32) {
        self.matched += 1;
        self.failures += u64::from(counted);
        self.known += u64::from(found.failures - counted);
        let (lines, failures) = self.by_pattern.entry(found.pattern).or_default();
        *lines += 1;
        *failures += u64::from(counted);
    }

    fn print(&self, policy: &Policy, seconds: f64) -> String {
        let rate = if seconds > 0.0 { self.lines as f64 / seconds } else { 0.0 };
        let mut text = format!(
            "{} lines, {} matched with {} failures, {rate:.0} lines/s\n",
            self.lines, self.matched, self.failures
        );
        for (what, count) in [
            ("failures more that other lines had told of already", self.known),
            ("look like failures, and nothing matched", self.missed),
            ("matched, but with no address where it should be", self.no_address),
            ("could not be read as log records", self.malformed),
        ] {
            if count > 0 {
                text += &format!("{count:>10} {what}\n");
            }
        }
        for (pattern, (lines, failures)) in &self.by_pattern {
            text += &format!("{lines:>10} lines, {failures:>10} failures  {}\n", policy.name(*pattern));
        }
        text
    }
}

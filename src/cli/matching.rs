//! `match`: what would the configured patterns have found in this log?

use super::Format;
use crate::control::RunFault;
use crate::control::publish::Publisher;
use crate::engine::ban::PatternId;
use crate::engine::matcher::{Found, Match};
use crate::engine::policy::Policy;
use crate::engine::table::hash_key;
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

/// How often the progress bar is looked after, in lines.
const LINES_PER_PROGRESS: u64 = 4096;

/// One matched line, as it is printed.
#[derive(Serialize)]
struct Hit<'a> {
    line: u64,
    pattern: &'a str,
    ip: String,
    severity: u8,
    program: &'a str,
    failures: u32,
}

/// What was found, for the summary.
#[derive(Default)]
struct Summary {
    lines: u64,
    matched: u64,
    failures: u64,
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
pub fn run(config: &Path, file: &Path, format: Format) -> Result<(), RunFault> {
    // The key of the hash is of no use here: nobody else sees these tables.
    let (_, policy) = Publisher::new(1, hash_key(0)).load(config)?;
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
    let progress = progress_bar(bytes);
    let log = BufReader::with_capacity(READ_BYTES, progress.wrap_read(log));
    let started = started();
    let out = BufWriter::with_capacity(READ_BYTES, io::stdout().lock());
    let searched = search(log, out, &policy, format, &progress);
    progress.finish_and_clear();
    let summary = searched.map_err(unreadable)?;
    eprint!("{}", summary.print(&policy, started.elapsed().as_secs_f64()));
    Ok(())
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

fn search(
    mut log: impl BufRead,
    mut out: impl Write,
    policy: &Policy,
    format: Format,
    progress: &ProgressBar,
) -> io::Result<Summary> {
    let mut scratch = policy.matcher.scratch();
    let mut summary = Summary::default();
    let mut line = Vec::new();
    while read_line(&mut log, &mut line)? {
        summary.lines += 1;
        if summary.lines.is_multiple_of(LINES_PER_PROGRESS) {
            progress.tick();
        }
        if line.is_empty() {
            continue;
        }
        let Ok(record) = decode_logged(&line) else {
            summary.malformed += 1;
            continue;
        };
        match policy.matcher.find(&mut scratch, record.program, record.pid, record.message) {
            Found::NotWatched | Found::Nothing => {}
            Found::NoAddress(_) => summary.no_address += 1,
            Found::Match(found) => {
                summary.matched(&found);
                match print(&mut out, summary.lines, policy, &record, &found, format) {
                    // Whoever reads has had enough.
                    Err(why) if why.kind() == ErrorKind::BrokenPipe => return Ok(summary),
                    printed => printed?,
                }
            }
        }
    }
    match out.flush() {
        Err(why) if why.kind() == ErrorKind::BrokenPipe => {}
        flushed => flushed?,
    }
    Ok(summary)
}

/// Reads the next line without its end; false at the end of the log. The rest of a line that is too long is skipped.
fn read_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
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

fn print(
    out: &mut impl Write,
    line: u64,
    policy: &Policy,
    record: &Record<'_>,
    found: &Match,
    format: Format,
) -> io::Result<()> {
    let program = String::from_utf8_lossy(record.program);
    let hit = Hit {
        line,
        pattern: policy.name(found.pattern),
        ip: found.address.to_string(),
        severity: found.severity.level(),
        program: &program,
        failures: found.failures,
    };
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *out, &hit)?;
            out.write_all(b"\n")
        }
        Format::Text => {
            let program = program.escape_debug();
            writeln!(
                out,
                "{:>8}  {:<39}  {:>3} × {} (severity {}, {program})",
                hit.line, hit.ip, hit.failures, hit.pattern, hit.severity
            )
        }
    }
}

impl Summary {
    fn matched(&mut self, found: &Match) {
        self.matched += 1;
        self.failures += u64::from(found.failures);
        let (lines, failures) = self.by_pattern.entry(found.pattern).or_default();
        *lines += 1;
        *failures += u64::from(found.failures);
    }

    fn print(&self, policy: &Policy, seconds: f64) -> String {
        let rate = if seconds > 0.0 { self.lines as f64 / seconds } else { 0.0 };
        let mut text = format!(
            "{} lines, {} matched with {} failures, {rate:.0} lines/s\n",
            self.lines, self.matched, self.failures
        );
        for (what, count) in [
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

//! What the program says to its operator: human on a terminal, JSON elsewhere or when asked.
//!
//! Threads of its own write it. When standard error is not taken, as by a pager or a logging daemon that is stuck, lines
//! are lost and counted, and the control thread goes on. Lines about bans have a queue of their own, so that a storm of
//! them does not push out what else there is to say.

use super::journal::DECISIONS;
use crate::config::{LogFormat, LogLevel, LogSettings};
use std::io::IsTerminal as _;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// Lines that wait in each queue: ten seconds of an attack by a thousand clients a second.
const LINES_WAITING_MAX: usize = 10_000;

/// The running log. Dropping it writes what waits, for a second at most.
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    lost: [ErrorCounter; 2],
    _writers: [WorkerGuard; 2],
}

impl Log {
    /// Starts logging to standard error. Called once, before anything is logged.
    pub fn start(settings: &LogSettings) -> Log {
        let terminal = std::io::stderr().is_terminal();
        let human = match settings.format {
            LogFormat::Auto => terminal,
            LogFormat::Human => true,
            LogFormat::Json => false,
        };
        let (decisions, decisions_guard) = writer("log-decisions");
        let (others, others_guard) = writer("log");
        let lost = [decisions.error_counter(), others.error_counter()];
        let writer = decisions.with_filter(|line| line.target() == DECISIONS).or_else(others);
        let (layer, filter) = reload::Layer::new(filter(settings));
        let registry = Registry::default().with(layer);
        let layer = fmt::layer().with_writer(writer).with_target(false);
        if human {
            registry.with(layer.with_ansi(terminal)).init();
        } else {
            registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).init();
        }
        Log { filter, lost, _writers: [decisions_guard, others_guard] }
    }

    /// From now on, says what is at least as important as these settings want.
    pub fn set_level(&self, settings: &LogSettings) {
        // It can only fail if the log is gone, which it is not before the process.
        let _ = self.filter.reload(filter(settings));
    }

    /// Lines that nobody took in time.
    pub fn lost(&self) -> u64 {
        self.lost.iter().map(|queue| queue.dropped_lines() as u64).sum()
    }
}

fn writer(name: &str) -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX);
    builder.thread_name(name).finish(std::io::stderr())
}

/// What is said: this program's lines from the wanted level on, and warnings of the libraries that it uses. But for `sqlx`,
/// whose failures are told here in our own words.
fn filter(settings: &LogSettings) -> Targets {
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let own = [env!("CARGO_PKG_NAME"), DECISIONS].map(|target| (target, level));
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(own).with_target("sqlx", LevelFilter::OFF)
}

//! What the program says to its operator: human on a terminal, JSON elsewhere or when asked.

use crate::config::{LogFormat, LogLevel, LogSettings};
use std::io::IsTerminal as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// The running log.
pub struct Log {
    level: reload::Handle<LevelFilter, Registry>,
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
        let (filter, level) = reload::Layer::new(level(settings));
        let registry = Registry::default().with(filter);
        let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
        if human {
            registry.with(layer.with_ansi(terminal)).init();
        } else {
            registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).init();
        }
        Log { level }
    }

    /// From now on, says what is at least as important as these settings want.
    pub fn set_level(&self, settings: &LogSettings) {
        // It can only fail if the log is gone, which it is not before the process.
        let _ = self.level.reload(level(settings));
    }
}

fn level(settings: &LogSettings) -> LevelFilter {
    match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

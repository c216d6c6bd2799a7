//! What people type.

mod check;
mod import;
mod line;
mod matching;
mod missed;
mod operate;
mod patterns;
mod remote;
mod table;

use crate::config::{self, Faults};
use crate::control::{self, About, RunFault};
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use operate::Operate;
use remote::RemoteFault;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

/// The configuration is wrong, or the command line.
const EXIT_CONFIGURATION: u8 = 2;

/// Something went wrong at run time.
const EXIT_RUN_TIME: u8 = 1;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const COMMIT: &str = env!("MAILFAIL2BAN_COMMIT");
const VERSION_LINE: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("MAILFAIL2BAN_COMMIT"), ")");

#[derive(Parser)]
#[command(
    name = "mailfail2ban",
    version = VERSION_LINE,
    about = "Bans the clients that fail to log in to your mail servers",
    long_about = "Receives the logs of mail daemons by syslog, recognises failed logins, counts them per client, and \
                  bans who fails too often. Proxies in front of the daemons ask it whether a client may come in.\n\n\
                  Without a command it runs the server.",
    after_help = "Settings come from --config FILE, else ./config.yaml, else /etc/mailfail2ban/config.yaml. Each can be \
                  overridden by an environment variable: ban.max_attempts by FAIL2BAN_BAN_MAX_ATTEMPTS.\n\n\
                  Exit status: 0 all well, 1 something went wrong while running or was refused, 2 the configuration or \
                  the command line is wrong, 3 the client that `explain` was asked about is denied."
)]
struct Arguments {
    /// The configuration file
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server (the default)
    ///
    /// It runs until it gets SIGTERM or SIGINT, and reads its configuration again when it gets SIGHUP.
    Run,
    /// Say whether the configuration is right, and nothing else
    ///
    /// Everything that is wrong is reported at once, with its line. Patterns are compiled and their examples tried.
    Check,
    /// Try the configured patterns on a log file
    ///
    /// For every line that tells of failed logins, one JSON object goes to standard output; a summary of all lines
    /// goes to standard error. A failure that several lines tell of counts once.
    Match {
        /// How to print what matched
        #[arg(long, value_enum, default_value_t = Format::Json)]
        format: Format,
        /// Print lines of known mail programs that look like failures and that nothing matched, instead
        #[arg(long, conflicts_with = "explain")]
        missed: bool,
        /// Say what becomes of this line, counted from 1, and why, instead
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        explain: Option<u64>,
        /// The log file; - is standard input
        file: PathBuf,
    },
    /// List the patterns that are built in
    ///
    /// With names, everything about these.
    Patterns {
        /// Print them as they would stand in a configuration
        #[arg(long)]
        yaml: bool,
        /// Only the patterns of these names
        names: Vec<String>,
    },
    /// Translate a filter of fail2ban into patterns
    ///
    /// The patterns go to standard output, as they would stand in a configuration; what cannot be said in RE2's syntax, or is
    /// of no use here, goes to standard error.
    #[command(name = "import-fail2ban")]
    ImportFail2ban {
        /// The filter, such as /etc/fail2ban/filter.d/postfix.conf; files that it includes are looked for beside it
        file: PathBuf,
    },
    /// Print a configuration with every setting, its default and its reason
    Config,
    #[command(flatten)]
    Operate(Operate),
    /// Print what a shell needs to complete commands and options
    Completions { shell: clap_complete::Shell },
}

/// How matches are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line
    Json,
    /// A table for people
    Text,
}

/// Does what the command line says. Returns the exit status.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let located = |explicit: Option<PathBuf>| config::locate(explicit.as_deref());
    let result = match arguments.command {
        None | Some(Command::Run) => {
            let about = About { version: VERSION, commit: COMMIT };
            located(arguments.config).map_err(RunFault::from).and_then(|path| control::run(&path, about))
        }
        Some(Command::Check) => located(arguments.config).and_then(|path| check::run(&path)).map_err(RunFault::from),
        Some(Command::Match { format, missed, explain, file }) => {
            located(arguments.config).map_err(RunFault::from).and_then(|path| match explain {
                Some(number) => line::run(&path, &file, number),
                None => {
                    let wanted = if missed { matching::Wanted::Missed } else { matching::Wanted::Matches };
                    matching::run(&path, &file, format, wanted)
                }
            })
        }
        Some(Command::Patterns { yaml, names }) => match patterns::run(&names, yaml) {
            Ok(()) => Ok(()),
            Err(fault) => return complain(&fault, EXIT_CONFIGURATION),
        },
        Some(Command::ImportFail2ban { file }) => import::run(&file),
        Some(Command::Config) => {
            print(&config::document());
            Ok(())
        }
        Some(Command::Operate(operate)) => {
            return match operate.run(arguments.config.as_deref()) {
                Ok(status) => ExitCode::from(status),
                Err(RemoteFault::Configuration(faults)) => complain(&configuration(&faults), EXIT_CONFIGURATION),
                Err(fault) => complain(&fault, EXIT_RUN_TIME),
            };
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "mailfail2ban", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunFault::Configuration(faults)) => complain(&configuration(&faults), EXIT_CONFIGURATION),
        Err(fault @ RunFault::Machine(_)) => complain(&fault, EXIT_RUN_TIME),
    }
}

fn complain(fault: &impl Display, status: u8) -> ExitCode {
    for line in fault.to_string().lines() {
        eprintln!("mailfail2ban: {line}");
    }
    ExitCode::from(status)
}

fn configuration(faults: &Faults) -> String {
    let count = faults.as_slice().len();
    let noun = if count == 1 { "fault" } else { "faults" };
    format!("{faults}\n{count} {noun} in the configuration")
}

/// Entries of a list as they stand in a configuration, two groups deep.
fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect()
}

/// Prints to standard output. Whoever reads may have had enough (`| head`); that is no fault. What cannot be written for
/// another reason ends the program, since the exit status says that all was well.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("mailfail2ban: cannot write to standard output: {why}");
            std::process::exit(EXIT_RUN_TIME.into());
        }
        _ => {}
    }
}

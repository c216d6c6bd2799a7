//! The `mailfail2ban` program. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailfail2ban::cli::main()
}

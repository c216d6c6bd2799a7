//! Tells the program which commit it was built from, and makes types of the messages in `proto/`.

use std::process::Command;

/// What `proto/` is entered by; imports are found from there.
const PROTO: [&str; 2] = ["envoy/service/auth/v3/external_auth.proto", "grpc/health/v1/health.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    say_commit();
    println!("cargo::rerun-if-changed=proto");
    // A compiler written in Rust: no protoc has to be installed where this is built.
    prost_build::Config::new().bytes(["."]).compile_fds(protox::compile(PROTO, ["proto"])?)?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this runs before there is a program")]
fn say_commit() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs");
    println!("cargo::rerun-if-env-changed=MAILFAIL2BAN_COMMIT");
    let given = std::env::var("MAILFAIL2BAN_COMMIT").ok();
    // Built from an archive, or without git: the version has to do.
    let asked = || {
        let git = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
        git.status.success().then(|| String::from_utf8_lossy(&git.stdout).trim().to_owned())
    };
    let commit = given.or_else(asked).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=MAILFAIL2BAN_COMMIT={commit}");
}

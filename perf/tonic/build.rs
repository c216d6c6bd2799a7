//! Makes a tonic service of the same messages that mailfail2ban answers, without protoc.

const PROTO: &str = "../../proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let messages = protox::compile(["envoy/service/auth/v3/external_auth.proto"], [PROTO])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .include_file("messages.rs")
        .compile_fds(messages)?;
    Ok(())
}

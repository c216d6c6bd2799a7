//! The load tool against the real server: what is right passes, and what is wrong is found.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TOOL: &str = env!("CARGO_BIN_EXE_mailfail2ban-load");

/// A server with settings of its own, which ends with the test.
struct Server {
    process: Child,
    folder: PathBuf,
    ports: [SocketAddr; 5],
}

impl Server {
    /// `None` where it is not built: this package does not build it.
    fn start(name: &str) -> Option<Server> {
        let program = PathBuf::from(TOOL).with_file_name("mailfail2ban");
        if !program.exists() {
            skip("the load tool against the server", "mailfail2ban is not built beside it: cargo build");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("mailfail2ban-perf-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // Ports that were free a moment ago, all at once.
        let held = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = held.each_ref().map(|listener| listener.local_addr().unwrap());
        drop(held);
        let [syslog, spoa, envoy, nginx, metrics] = ports.map(|port| port.port());
        let config = folder.join("config.yaml");
        let text = format!(
            "syslog: {{address: '127.0.0.1:{syslog}'}}\nspoa: {{address: 127.0.0.1, port: {spoa}}}\n\
             envoy: {{address: 127.0.0.1, port: {envoy}}}\nnginx: {{address: 127.0.0.1, port: {nginx}}}\n\
             prometheus: {{address: 127.0.0.1, port: {metrics}}}\napi: {{enabled: false}}\n\
             ban: {{initial_ban_time: 1h}}\nruntime: {{shards: 2, state_dir: '{}'}}\n",
            folder.join("state").display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let process = Command::new(program).arg("--config").arg(&config).stdout(Stdio::null()).stderr(log).spawn();
        let server = Server { process: process.unwrap(), folder, ports };
        let begun = Instant::now();
        while TcpStream::connect(ports[4]).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Runs the tool: `{syslog}`, `{metrics}` and so on stand for addresses.
    fn run(&self, arguments: &str) -> Output {
        let names = ["{syslog}", "{spoa}", "{envoy}", "{nginx}", "{metrics}"];
        let mut text = arguments.to_owned();
        for (name, port) in names.iter().zip(self.ports) {
            text = text.replace(name, &port.to_string());
        }
        text = text.replace("{folder}", &self.folder.display().to_string());
        Command::new(TOOL).args(text.split_whitespace()).output().unwrap()
    }

    #[track_caller]
    fn passes(&self, arguments: &str) -> serde_json::Value {
        let output = self.run(&format!("{arguments} --quiet --verify --json -"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {errors}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, arguments: &str) -> String {
        let output = self.run(&format!("{arguments} --quiet --verify"));
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// `scripts/test` counts what is written there.
fn skip(what: &str, why: &str) {
    eprintln!("SKIPPED {what}: {why}");
    if let Some(path) = std::env::var_os("MAILFAIL2BAN_SKIPPED") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{what}: {why}").unwrap();
    }
}

#[test]
fn right_answers_pass_and_wrong_ones_are_found() {
    let Some(server) = Server::start("answers") else { return };
    let asked = "--offenders 200 --innocents 200 --denied 0.5 --connections 4 --depth 4 --warm-up 0s --count 2000";
    // Nobody is banned yet.
    assert!(server.fails(&format!("auth --to {{nginx}} {asked}")).contains("answers were wrong"));
    let made = server.passes("offend --to {syslog} --offenders 200 --metrics http://{metrics}/metrics");
    assert_eq!(made["lines"]["matched"], 1000);
    for question in ["auth --to {nginx}", "spoa --to {spoa}", "authz --to {envoy}"] {
        let result = server.passes(&format!("{question} {asked} --pid server={}", server.process.id()));
        let count = |key: &str| result["questions"][key].as_u64().unwrap();
        assert!(result["done"].as_u64() >= Some(2000), "{result}");
        assert!(count("allowed") > 500 && count("denied") > 500 && count("wrong") == 0, "{result}");
        assert!(result["cpu"]["server"]["us_each"].as_f64() > Some(0.0), "{result}");
        assert!(result["latency_us"]["p99"].as_f64() > Some(0.0), "{result}");
    }
    // At a rate, and by a time.
    let result = server.passes("auth --to {nginx} --offenders 200 --rate 500 --for 2s --warm-up 0s");
    assert!((800..=1000).contains(&result["done"].as_u64().unwrap()), "{result}");
    // An address that was not among those that offended.
    assert!(
        server
            .fails(&format!("spoa --to {{spoa}} {}", asked.replace("--offenders 200", "--offenders 400")))
            .contains("answers were wrong")
    );
    assert!(server.fails("auth --to 127.0.0.1:1 --count 1").contains("cannot connect to 127.0.0.1:1"));
}

#[test]
fn every_line_is_counted_and_recognised() {
    let Some(server) = Server::start("lines") else { return };
    let metrics = "--metrics http://{metrics}/metrics";
    for transport in
        ["--udp --rate 20000", "--udp --gso --rate 20000", "--tcp", "--tcp --connections 3 --format rfc5424"]
    {
        let result = server.passes(&format!("syslog --to {{syslog}} {transport} --count 20000 {metrics}"));
        let lines = &result["lines"];
        assert_eq!((&lines["sent"], &lines["received"], &lines["lost"]), (&20_000.into(), &20_000.into(), &0.into()));
        assert!(lines["failing"].as_u64() > Some(1500) && lines["failing"] == lines["matched"], "{transport}: {lines}");
    }
    let result = server.passes(&format!("reaction --syslog {{syslog}} --auth {{nginx}} --count 5 {metrics}"));
    assert_eq!((&result["done"], &result["latency_us"]["count"]), (&5.into(), &5.into()));
    let mixed = format!(
        "mixed --syslog {{syslog}} --syslog-rate 2000 --spoa {{spoa}} --spoa-rate 500 --authz {{envoy}} --authz-rate 500 \
         --auth {{nginx}} --auth-rate 500 --denied 0 --for 2s --warm-up 0s --json {{folder}}/mixed.json {metrics}"
    );
    let output = server.run(&mixed);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(server.run("plot {folder}/mixed.json --out {folder}/mixed.svg").status.success());
    let picture = fs::read_to_string(server.folder.join("mixed.svg")).unwrap();
    assert!(picture.contains("mixed: spoa") && picture.contains("mixed: syslog"));
}

#[test]
fn a_log_can_be_written_to_a_file_and_wrong_options_are_named() {
    let output =
        Command::new(TOOL).args(["syslog", "--file", "-", "--count", "50", "--json", "/dev/null"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains(" mail1 ")).count(), 50, "{text}");
    let output = Command::new(TOOL).args(["auth", "--to", "nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("neither ADDRESS:PORT nor unix:PATH"));
}

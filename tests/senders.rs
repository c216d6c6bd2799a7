//! Real senders: rsyslog and logger in each of their ways of sending, each of which must end in a ban.

mod harness;

use harness::{Config, Directory, Server, failed_login_message, has_ipv6, limits, logger, need, tool};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// rsyslogd with a configuration and a working directory of its own, which reads one file and forwards it.
struct Rsyslog {
    child: Child,
    directory: Directory,
    mail_log: PathBuf,
}

impl Rsyslog {
    /// `forward` is what it does with each line, as an action of its configuration.
    fn start(forward: &str) -> Rsyslog {
        let directory = Directory::new();
        let work = directory.0.display();
        let mail_log = directory.file("mail.log", "");
        // It reads the file as a log file is written, so the lines have a host and a tag, and no priority.
        let configuration = format!(
            "global(workDirectory=\"{work}\" maxMessageSize=\"8k\")\n\
             module(load=\"imfile\" mode=\"inotify\")\n\
             module(load=\"builtin:omfwd\")\n\
             ruleset(name=\"forward\") {{ {forward} }}\n\
             input(type=\"imfile\" file=\"{work}/mail.log\" tag=\"dovecot:\" severity=\"info\" facility=\"mail\" \
             ruleset=\"forward\" freshStartTail=\"off\")\n"
        );
        let configuration = directory.file("rsyslog.conf", configuration);
        let mut command = tool("rsyslogd");
        command.args(["-n", "-f"]).arg(configuration).arg("-i").arg(directory.0.join("rsyslogd.pid"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(directory.0.join("stderr")).expect("a file for what it says"));
        limits::apply(&mut command, &[]);
        let child = command.spawn().expect("rsyslogd");
        Rsyslog { child, directory, mail_log }
    }

    /// Writes a message into the file that it reads.
    fn log(&self, message: &str) {
        let mut log = OpenOptions::new().append(true).open(&self.mail_log).expect("the file that it reads");
        writeln!(log, "{message}").expect("to write");
    }

    fn said(&self) -> String {
        fs::read_to_string(self.directory.0.join("stderr")).unwrap_or_default()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("rsyslogd said:\n{}", self.said());
        }
    }
}

/// Has rsyslog forward four failures, which do not ban, and a fifth, which does.
fn rsyslog_bans(name: &str, forward: impl FnOnce(SocketAddr) -> String) {
    if !need("rsyslogd") {
        return;
    }
    let server = Server::start(Config::new());
    let rsyslog = Rsyslog::start(&forward(server.config.syslog));
    for client in ["192.0.2.1", "2001:db8::7"] {
        for _ in 0..4 {
            rsyslog.log(&failed_login_message(client, 1));
        }
    }
    server.wait_for_failures(8);
    for client in ["192.0.2.1", "2001:db8::7"] {
        assert_eq!(server.status(client), 200, "{name}: four do not ban");
        rsyslog.log(&failed_login_message(client, 1));
        server.wait_for_status(client, 403);
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_syslog_malformed_total", &[]), 0, "{name}");
    assert_eq!(metrics.get("fail2ban_failures_total", &[]), 10, "{name}");
    server.stop();
}

/// The action that forwards to `to`.
fn omfwd(to: SocketAddr, options: &str) -> String {
    format!("action(type=\"omfwd\" target=\"{}\" port=\"{}\" {options})", to.ip(), to.port())
}

#[test]
fn rsyslog_over_udp() {
    rsyslog_bans("RFC 3164", |to| omfwd(to, "protocol=\"udp\" template=\"RSYSLOG_TraditionalForwardFormat\""));
}

#[test]
fn rsyslog_over_udp_in_its_own_format() {
    rsyslog_bans("ISO timestamps", |to| omfwd(to, "protocol=\"udp\" template=\"RSYSLOG_ForwardFormat\""));
}

#[test]
fn rsyslog_over_tcp_with_lines() {
    rsyslog_bans("lines", |to| omfwd(to, "protocol=\"tcp\" template=\"RSYSLOG_TraditionalForwardFormat\""));
}

#[test]
fn rsyslog_over_tcp_with_counted_octets() {
    rsyslog_bans("RFC 5424, counted", |to| {
        omfwd(to, "protocol=\"tcp\" tcp_framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\"")
    });
}

#[test]
fn rsyslog_over_tcp_with_a_queue_on_disk() {
    // As one forwards to something that may be restarted.
    rsyslog_bans("a queue", |to| {
        omfwd(
            to,
            "protocol=\"tcp\" queue.type=\"LinkedList\" queue.filename=\"forward\" action.resumeRetryCount=\"-1\" \
             action.resumeInterval=\"1\"",
        )
    });
}

#[test]
fn rsyslog_comes_back_to_a_restarted_server() {
    if !need("rsyslogd") {
        return;
    }
    let server = Server::start(Config::new());
    let rsyslog = Rsyslog::start(&omfwd(
        server.config.syslog,
        "protocol=\"tcp\" queue.type=\"LinkedList\" action.resumeRetryCount=\"-1\" action.resumeInterval=\"1\"",
    ));
    rsyslog.log(&failed_login_message("192.0.2.1", 5));
    server.wait_for_status("192.0.2.1", 403);
    let config = server.config.clone();
    server.stop();
    let server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    // What is sent into a connection that has just gone is lost with it, in whatever way it is sent: so go on.
    harness::wait_for("a line after the restart", || {
        rsyslog.log(&failed_login_message("192.0.2.2", 5));
        (server.status("192.0.2.2") == 403).then_some(())
    });
    server.stop();
}

/// Sends five failures with `logger` and these options, of which the fifth bans.
fn logger_bans(server: &Server, client: &str, options: &[&str]) {
    let before = server.metrics().get("fail2ban_failures_total", &[]);
    for _ in 0..4 {
        logger(server.config.syslog, options, &failed_login_message(client, 1));
    }
    server.wait_for_failures(before + 4);
    assert_eq!(server.status(client), 200, "{options:?}: four do not ban");
    logger(server.config.syslog, options, &failed_login_message(client, 1));
    server.wait_for_status(client, 403);
}

const LOGGER_OPTIONS: [&[&str]; 14] = [
    &["--udp"],
    &["--tcp"],
    &["--udp", "--rfc3164"],
    &["--tcp", "--rfc3164"],
    &["--udp", "--rfc5424"],
    &["--tcp", "--rfc5424"],
    &["--tcp", "--octet-count"],
    &["--tcp", "--octet-count", "--rfc3164"],
    &["--tcp", "--octet-count", "--rfc5424"],
    &["--udp", "-i"],
    &["--udp", "--rfc3164", "--id=4711"],
    &["--tcp", "--octet-count", "--id=4711", "--msgid", "LOGIN", "--rfc5424=notq"],
    &["--udp", "--msgid", "LOGIN", "--sd-id", "zoo@32473", "--sd-param", "tiger=\"rip=203.0.113.9\""],
    &["--udp", "--rfc5424=notime,notq,nohost"],
];

#[test]
fn logger_in_each_of_its_ways() {
    if !need("logger") {
        return;
    }
    let server = Server::start(Config::new());
    for (n, options) in LOGGER_OPTIONS.iter().enumerate() {
        logger_bans(&server, &format!("198.51.100.{n}"), options);
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_syslog_malformed_total", &[]), 0);
    assert_eq!(metrics.get("fail2ban_syslog_records_total", &[("result", "matched")]), 5 * LOGGER_OPTIONS.len() as u64);
    assert_eq!(server.status("203.0.113.9"), 200, "an address in structured data is nobody's");
    server.stop();
}

#[test]
fn logger_reading_a_file() {
    if !need("logger") {
        return;
    }
    let server = Server::start(Config::new());
    let directory = Directory::new();
    let path = directory.file("mail", format!("{}\n", failed_login_message("192.0.2.1", 1)).repeat(5));
    let mut command = tool("logger");
    command.args(["--tcp", "--octet-count", "--server", "127.0.0.1", "--port"]);
    command.arg(server.config.syslog.port().to_string()).args(["--tag", "dovecot", "--file"]).arg(&path);
    let output = harness::run_command(command, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.wait_for_status("192.0.2.1", 403);
    server.stop();
}

#[test]
fn logger_over_ipv6() {
    if !need("logger") || !has_ipv6() {
        return;
    }
    let server = Server::start(Config::on(Ipv6Addr::LOCALHOST.into()));
    logger_bans(&server, "192.0.2.1", &["--udp"]);
    logger_bans(&server, "2001:db8::1", &["--tcp", "--octet-count"]);
    logger_bans(&server, "192.0.2.2", &["--tcp", "--rfc3164"]);
    server.stop();
}

#[test]
fn both_families_reach_a_server_on_the_unspecified_address() {
    if !need("logger") || !has_ipv6() {
        return;
    }
    let server =
        Server::start(Config::on(Ipv6Addr::UNSPECIFIED.into()).set("syslog.allowed_senders", "['::1', 127.0.0.1]"));
    for address in ["127.0.0.1", "::1"] {
        let to = SocketAddr::new(address.parse().expect("an address"), server.config.syslog.port());
        let client = if to.is_ipv4() { "192.0.2.4" } else { "192.0.2.6" };
        for transport in ["--udp", "--tcp", "--udp", "--tcp", "--udp"] {
            logger(to, &[transport], &failed_login_message(client, 1));
        }
        server.wait_for_status(client, 403);
    }
    assert_eq!(server.metrics().get("fail2ban_syslog_dropped_total", &[("reason", "sender_not_allowed")]), 0);
    server.stop();
}

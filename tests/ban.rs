//! From log lines to refusals, through the real program: who is banned, where, and for how long.

#![allow(clippy::disallowed_methods, reason = "tests measure how long a ban lasts")]

mod harness;

use harness::{
    Config, Http, Server, TRUTH, failed_login, failed_login_message, logger, need, record, says, tool, wait_for,
};
use mailfail2ban::wire::syslog::{Framer, Step};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// `logger` reading its standard input: one socket for all its messages.
struct Logger(Child);

impl Logger {
    fn start(server: &Server) -> Logger {
        let mut command = tool("logger");
        command.args(["--udp", "--server", &server.config.syslog.ip().to_string()]);
        command.args(["--port", &server.config.syslog.port().to_string()]);
        command.args(["--tag", "dovecot", "--priority", "mail.info"]);
        Logger(command.stdin(Stdio::piped()).spawn().expect("logger"))
    }

    fn say(&mut self, message: &str) {
        writeln!(self.0.stdin.as_mut().expect("its standard input"), "{message}").expect("to write to logger");
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn five_lines_from_two_sockets_and_over_tcp_ban_on_every_shard_and_four_do_not() {
    if !need("logger") {
        return;
    }
    let server = Server::start(Config::new());
    let message = failed_login_message("192.0.2.1", 1);
    let mut senders = [Logger::start(&server), Logger::start(&server)];
    for turn in 0..4 {
        senders[turn % 2].say(&message);
        server.wait_for_failures(turn as u64 + 1);
    }
    assert_eq!(server.status("192.0.2.1"), 200, "four failures do not ban");
    logger(server.config.syslog, &["--tcp", "--octet-count"], &message);
    let ban = server.wait_for_ban("192.0.2.1", 1);
    assert_eq!(ban["pattern"], "dovecot-login");
    assert_eq!((&ban["failures"], &ban["severity"]), (&5.into(), &3.into()));
    assert_eq!(ban["duration"], "5m");

    // One shard decided; now every one of them has to know.
    wait_for("the ban on every shard", || {
        let held = server.metrics().by_shard("fail2ban_shard_replica_bans", &[]);
        (held == [1, 1]).then_some(())
    });
    let before = server.metrics().by_shard("fail2ban_shard_questions_total", &[]);
    for _ in 0..50 {
        let answer = server.auth("192.0.2.1");
        assert_eq!(answer.status, 403);
        assert_eq!(answer.field("X-Fail2ban-Status"), Some("denied"));
        assert_eq!(answer.field("X-Fail2ban-IP"), Some("192.0.2.1"));
        assert_eq!(answer.field("X-Fail2ban-Reason"), Some("dovecot-login"));
        let seconds: u64 = answer.field("Retry-After").expect("how long").parse().expect("a number");
        assert!((1..=300).contains(&seconds), "{seconds}");
    }
    let after = server.metrics().by_shard("fail2ban_shard_questions_total", &[]);
    let answered: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert_eq!(answered.iter().sum::<u64>(), 50);
    assert!(answered.iter().all(|answered| *answered > 0), "every shard has answered some: {answered:?}");

    for other in ["192.0.2.2", "192.0.2.0", "198.51.100.1", "2001:db8::1"] {
        let answer = server.auth(other);
        assert_eq!((answer.status, answer.field("X-Fail2ban-Status")), (200, Some("allowed")), "{other}");
    }
    assert_eq!(server.metrics().get("fail2ban_bans_total", &[]), 1);
    server.stop();
}

#[test]
fn a_ban_ends_by_itself_and_the_second_lasts_twice_as_long() {
    let server = Server::start(Config::new().set("ban.initial_ban_time", "2s"));
    // A turn of a shard has one time, that of its beginning, which lies a little before what happens in it.
    let turn = Duration::from_millis(250);
    for (offence, seconds) in [(1, 2), (2, 4)] {
        let begun = Instant::now();
        server.fail("192.0.2.1", 5);
        let ban = server.wait_for_ban("192.0.2.1", offence);
        assert_eq!(ban["duration"], format!("{seconds}s"));
        // On a machine that stood still for seconds, the ban may already be over.
        let answer = wait_for("the ban on every shard", || {
            let answer = server.auth("192.0.2.1");
            (answer.status == 403 || begun.elapsed() > Duration::from_secs(seconds)).then_some(answer)
        });
        if let Some(left) = answer.field("Retry-After") {
            let left: u64 = left.parse().expect("a number");
            assert!((1..=seconds).contains(&left), "{left} s of {seconds} s are left");
        }
        server.wait_for_status("192.0.2.1", 200);
        let lasted = begun.elapsed();
        assert!(lasted >= Duration::from_secs(seconds) - turn, "over after {lasted:?}");
        record(&format!("a ban of {seconds} s: answered with 200 after {lasted:?}"));
        let unban = server.wait_for_log("the end of the ban", |line| {
            says(line, "unban") && line["client"] == "192.0.2.1" && line["offences"] == offence
        });
        assert_eq!(unban["reason"], "expired");
    }
    wait_for("both replicas to forget it", || {
        let held = server.metrics().by_shard("fail2ban_shard_replica_bans", &[]);
        (held == [0, 0]).then_some(())
    });
    assert_eq!(server.metrics().get("fail2ban_current_bans", &[]), 0);
    assert_eq!(server.metrics().get("fail2ban_bans_total", &[("pattern", "dovecot-login")]), 2);
    server.stop();
}

#[test]
fn failures_of_one_ipv6_network_count_together() {
    let server = Server::start(Config::new());
    server.fail("2001:db8:0:1::1", 2);
    server.fail("2001:db8:0:1:8000::2", 2);
    server.wait_for_failures(4);
    assert_eq!(server.status("2001:db8:0:1::1"), 200);
    server.fail("2001:DB8:0:1:0:ffff:0:3", 1);
    server.wait_for_ban("2001:db8:0:1::/64", 1);
    for inside in ["2001:db8:0:1::1", "2001:db8:0:1:8000::2", "2001:db8:0:1:dead:beef:0:1", "2001:DB8:0:1::"] {
        server.wait_for_status(inside, 403);
    }
    for outside in ["2001:db8::1", "2001:db8:0:2::1", "2001:db8:1:1::1"] {
        assert_eq!(server.status(outside), 200, "{outside}");
    }
    server.stop();
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_the_ipv4_address() {
    let server = Server::start(Config::new());
    server.fail("::ffff:192.0.2.1", 3);
    server.fail("192.0.2.1", 1);
    server.wait_for_failures(4);
    assert_eq!(server.status("192.0.2.1"), 200);
    server.fail("::ffff:c000:201", 1);
    server.wait_for_ban("192.0.2.1", 1);
    for form in ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201", "::FFFF:C000:0201", "0:0:0:0:0:ffff:192.0.2.1"] {
        server.wait_for_status(form, 403);
    }
    for other in ["192.0.2.2", "::ffff:192.0.2.2", "::192.0.2.1", "::1"] {
        assert_eq!(server.status(other), 200, "{other}");
    }
    server.stop();
}

#[test]
fn the_whitelist_beats_the_blacklist_beats_counting() {
    let config = Config::new()
        .set("ban.whitelist", "[198.51.100.0/24, '2001:db8:a::/48']")
        .set("ban.blacklist", "[203.0.113.0/24, 198.51.100.7, 192.0.2.200]");
    let server = Server::start(config);
    server.fail("198.51.100.9", 20);
    server.fail("2001:db8:a:1::1", 20);
    server.wait_for_metric("fail2ban_failures_total", &[("result", "whitelisted")], 40);
    for allowed in ["198.51.100.9", "198.51.100.7", "2001:db8:a:1::1", "2001:db8:a:ffff::2", "203.0.112.255"] {
        assert_eq!(server.status(allowed), 200, "{allowed}");
    }
    for denied in ["203.0.113.0", "203.0.113.255", "192.0.2.200", "::ffff:203.0.113.5"] {
        let answer = server.auth(denied);
        assert_eq!((answer.status, answer.field("X-Fail2ban-Reason")), (403, Some("blacklist")), "{denied}");
        assert_eq!(answer.field("Retry-After"), None, "that does not end by itself");
    }
    assert_eq!(server.metrics().get("fail2ban_bans_total", &[]), 0);
    server.stop();
}

#[test]
fn a_hundred_bans_are_held_by_every_shard() {
    let server = Server::start(Config::new());
    let clients: Vec<String> = (1..=100).map(|n| format!("198.51.100.{n}")).collect();
    for client in &clients {
        server.fail(client, 5);
    }
    wait_for("a hundred bans on both shards", || {
        let held = server.metrics().by_shard("fail2ban_shard_replica_bans", &[]);
        (held == [100, 100]).then_some(())
    });
    for client in &clients {
        assert_eq!(server.status(client), 403, "{client}");
    }
    assert_eq!(server.status("198.51.100.101"), 200);
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_bans_total", &[]), 100);
    assert_eq!(metrics.get("fail2ban_replica_lag_seconds_count", &[]), 100, "each travelled to one other shard");
    record(&format!(
        "seconds from the decision to the other shard\n{}",
        metrics.show("fail2ban_replica_lag_seconds_bucket")
    ));
    record(&format!("longest, by shard\n{}", metrics.show("fail2ban_replica_lag_max_seconds")));
    server.stop();
}

#[test]
fn any_number_of_shards_answers_alike() {
    for shards in [1, 2, 4] {
        let server = Server::start(Config::new().set("runtime.shards", shards));
        assert_eq!(server.metrics().get("fail2ban_shards", &[]), shards);
        server.fail("192.0.2.1", 4);
        server.wait_for_failures(4);
        assert_eq!(server.status("192.0.2.1"), 200);
        server.send_udp([failed_login("192.0.2.1")]);
        server.wait_for_ban("192.0.2.1", 1);
        wait_for("the ban on every shard", || {
            let held = server.metrics().by_shard("fail2ban_shard_replica_bans", &[]);
            held.iter().all(|held| *held == 1).then_some(())
        });
        // Which shard gets a connection is the kernel's choice, so this goes on until all have had one.
        wait_for("every shard to answer", || {
            for _ in 0..20 {
                assert_eq!(server.status("192.0.2.1"), 403);
                assert_eq!(server.status("192.0.2.2"), 200);
            }
            let answered = server.metrics().by_shard("fail2ban_shard_questions_total", &[]);
            answered.iter().all(|answered| *answered > 0).then_some(())
        });
        server.stop();
    }
}

#[test]
fn the_datagrams_of_one_sender_are_spread_over_the_shards() {
    let server = Server::start(Config::new());
    server.send_udp((0..1000).map(|n| failed_login(&format!("198.18.{}.{}", n / 250, n % 250))));
    let spread = server.metrics().by_shard("fail2ban_shard_records_total", &[]);
    assert_eq!(spread.iter().sum::<u64>(), 1000);
    // Each datagram is a throw of a coin: six standard deviations are 95.
    assert!(spread.iter().all(|records| (400..=600).contains(records)), "{spread:?}");
    server.stop();
}

#[test]
fn long_lived_connections_are_spread_evenly() {
    let server = Server::start(Config::new());
    let mut senders = Vec::new();
    let mut askers = Vec::new();
    let connected = |service| server.metrics().by_shard("fail2ban_shard_connections", &[("service", service)]);
    for count in 1..=16 {
        senders.push(server.connect_syslog());
        wait_for("the connection to be taken", || (connected("syslog").iter().sum::<u64>() == count).then_some(()));
        let mut asker = Http::connect(server.config.nginx).expect("a connection");
        assert_eq!(asker.auth("192.0.2.1").expect("an answer").status, 200);
        askers.push(asker);
    }
    assert_eq!(connected("syslog"), [8, 8]);
    assert_eq!(connected("nginx"), [8, 8]);
    // Each of them works, wherever it is served.
    for (at, (sender, asker)) in senders.iter_mut().zip(&mut askers).enumerate() {
        let line = failed_login(&format!("192.0.2.{at}"));
        sender.write_all(format!("{line}\n{line}\n{line}\n{line}\n{line}\n").as_bytes()).expect("to send");
        let client = format!("192.0.2.{at}");
        wait_for("the ban, asked over a kept connection", || {
            (asker.auth(&client).expect("an answer").status == 403).then_some(())
        });
    }
    drop((senders, askers));
    wait_for("all to be gone", || (connected("syslog") == [0, 0] && connected("nginx") == [0, 0]).then_some(()));
    server.stop();
}

#[test]
fn a_line_that_reports_many_attempts_counts_them_all() {
    let server = Server::start(Config::new().set("ban.max_attempts", 12));
    let line =
        |client, attempts| format!("<22>Nov 22 17:33:44 mail1 dovecot: {}", failed_login_message(client, attempts));
    server.send_tcp([line("192.0.2.11", 11), line("192.0.2.12", 12), line("192.0.2.99", 4_000_000_000)]);
    server.wait_for_failures(3);
    assert_eq!(server.wait_for_ban("192.0.2.12", 1)["failures"], 12);
    server.wait_for_ban("192.0.2.99", 1);
    server.wait_for_status("192.0.2.12", 403);
    assert_eq!(server.status("192.0.2.11"), 200);
    server.fail("192.0.2.11", 1);
    assert_eq!(server.wait_for_ban("192.0.2.11", 1)["failures"], 12);
    server.stop();
}

#[test]
fn the_documented_pattern_of_the_quick_start_works_as_typed() {
    let patterns = "[{name: nginx-404, regex: 'nginx.*404.*client: ([0-9.]+)', severity: 2}]";
    let server = Server::start(Config::new().set("syslog.patterns", patterns));
    let line = "<190>Nov 22 17:33:44 web1 nginx: 2026/11/22 17:33:44 [error] 404 Not Found, client: 192.0.2.44, \
                server: mail.example.test, request: \"GET /wp-login.php HTTP/1.1\"";
    server.send_tcp([line; 4]);
    server.wait_for_failures(4);
    assert_eq!(server.status("192.0.2.44"), 200);
    server.send_udp([line]);
    let ban = server.wait_for_ban("192.0.2.44", 1);
    assert_eq!((&ban["pattern"], &ban["severity"]), (&"nginx-404".into(), &2.into()));
    server.wait_for_status("192.0.2.44", 403);
    // Only the patterns listed apply: the built-in ones were replaced.
    server.fail("192.0.2.45", 5);
    server.wait_for_metric("fail2ban_syslog_received_total", &[("transport", "tcp")], 9);
    assert_eq!(server.metrics().get("fail2ban_failures_total", &[]), 5);
    assert_eq!(server.status("192.0.2.45"), 200);
    server.stop();
}

/// Log lines of the scenario that tell of refused passwords: Dovecot's auth process tells of most that its login processes or
/// Postfix tell of.
const TRUTH_LINES: u64 = 111;

/// How a client of the scenario is called in the log.
fn as_client(address: &str) -> &str {
    match address {
        "2001:db8::7" => "2001:db8::/64",
        "::1" => "::/64",
        ipv4 => ipv4,
    }
}

/// The captures of the scenario, each as the datagrams or streams to send.
fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/syslog").join(name)).expect("a golden file")
}

/// Sends one capture to a server that bans nobody of it, and finds out how many failures each client has by how many
/// are missing to a ban.
fn count_failures(capture: &str, send: impl FnOnce(&Server)) {
    assert_eq!(TRUTH.iter().map(|(_, failures)| failures).sum::<usize>(), 57);
    let threshold = 20;
    let server = Server::start(Config::new().set("ban.max_attempts", threshold).set("syslog.kinds", "[auth]"));
    send(&server);
    server.wait_for_failures(TRUTH_LINES);
    assert_eq!(server.metrics().get("fail2ban_syslog_malformed_total", &[]), 0, "{capture}");
    assert_eq!(server.metrics().get("fail2ban_syslog_records_total", &[("result", "no_address")]), 0, "{capture}");
    let mut more = TRUTH_LINES;
    for (client, failures) in TRUTH {
        server.fail(client, threshold - 1 - failures);
        more += (threshold - 1 - failures) as u64;
    }
    server.wait_for_failures(more);
    assert_eq!(server.metrics().get("fail2ban_bans_total", &[]), 0, "{capture}: {:?} too early", server.banned());
    for (client, _) in TRUTH {
        server.fail(client, 1);
        let ban = server.wait_for_ban(as_client(client), 1);
        assert_eq!(ban["failures"], threshold, "{capture}: {client}");
        server.wait_for_status(client, 403);
    }
    // Those who only ever did right, and addresses that users wrote into their names.
    for innocent in ["127.0.0.1", "127.0.0.5", "127.0.0.7", "127.0.0.8", "203.0.113.5", "203.0.113.9", "203.0.113.77"] {
        assert_eq!(server.status(innocent), 200, "{capture}: {innocent}");
    }
    server.stop();
}

#[test]
fn a_captured_scenario_counts_right_over_tcp() {
    let captures = [
        "rsyslog.lf-3164.stream",
        "rsyslog.counted-3164.stream",
        "rsyslog.counted-5424.stream",
        "syslog-ng.counted-5424.stream",
    ];
    for capture in captures {
        count_failures(capture, |server| {
            server.connect_syslog().write_all(&golden(capture)).expect("to send");
        });
    }
}

/// Every record of a captured stream by itself, as it would be one datagram.
fn records(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut framer = Framer::new(8192);
    let (mut records, mut done) = (Vec::new(), 0);
    while let Step::Frame { frame, consumed } = framer.next(&stream[done..]) {
        records.push(frame.to_vec());
        done += consumed;
    }
    assert_eq!(done, stream.len());
    records
}

#[test]
fn a_captured_scenario_counts_right_over_udp() {
    for capture in ["rsyslog.counted-3164.stream", "syslog-ng.counted-5424.stream"] {
        count_failures(capture, |server| server.send_udp(records(&golden(capture))));
    }
    // Log files as a script would send them: a priority before each line, whatever its timestamp looks like.
    for capture in ["rsyslog.traditional.lines", "rsyslog.iso.lines", "syslog-ng.traditional.lines"] {
        let text = String::from_utf8(golden(capture)).expect("UTF-8");
        count_failures(capture, |server| server.send_udp(text.lines().map(|line| format!("<22>{line}"))));
    }
}

#[test]
fn a_captured_scenario_bans_everybody_who_failed_and_nobody_else() {
    let server = Server::start(Config::new().set("ban.max_attempts", 1).set("syslog.kinds", "[auth]"));
    server.connect_syslog().write_all(&golden("rsyslog.counted-3164.stream")).expect("to send");
    server.wait_for_failures(TRUTH_LINES);
    for (client, _) in TRUTH {
        server.wait_for_ban(as_client(client), 1);
        server.wait_for_status(client, 403);
    }
    let mut clients: Vec<&str> = TRUTH.iter().map(|(client, _)| as_client(client)).collect();
    clients.sort_unstable();
    assert_eq!(server.banned(), clients);
    let metrics = server.metrics();
    let results: BTreeMap<&str, u64> = ["counted", "banned", "already_banned", "whitelisted"]
        .map(|result| (result, metrics.get("fail2ban_failures_total", &[("result", result)])))
        .into();
    assert_eq!(results, BTreeMap::from([("counted", 0), ("banned", 9), ("already_banned", 102), ("whitelisted", 0)]));
    server.stop();
}

//! Several nodes with one database: what one bans, all refuse.

mod harness;

use harness::databases::{Database, on_every_database, using};
use harness::{Config, Http, Server, failed_login, record, says, wait_for};
use std::io::Write as _;
use std::time::{Duration, Instant};

on_every_database!(
    a_ban_on_one_node_is_refused_on_the_other,
    what_happened_before_a_node_came_is_known_to_it,
    a_node_that_shares_nothing_hears_nothing,
    a_database_that_was_taken_back_is_told_again,
    rows_that_are_no_bans_are_passed_over,
    however_many_bans_there_are_a_new_node_knows_them,
);

fn with(database: &dyn Database) -> Config {
    using(database).set("ban.max_attempts", 1).set("ban.initial_ban_time", "10m")
}

fn learned(server: &Server) -> u64 {
    server.metrics().get("fail2ban_bans_learned_total", &[])
}

fn node(server: &Server) -> String {
    let answer = Http::connect(server.config.nginx).and_then(|mut http| http.get("/database/status", &[])).unwrap();
    let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    status["node"].as_str().unwrap().to_owned()
}

fn a_ban_on_one_node_is_refused_on_the_other(database: &dyn Database) {
    let (one, two) = (Server::start(with(database)), Server::start(with(database)));
    assert_ne!(node(&one), node(&two), "two nodes of one host");
    let mut times = Vec::new();
    let mut syslog = one.connect_syslog();
    let mut http = Http::connect(two.config.nginx).unwrap();
    for n in 1..=20 {
        let client = format!("203.0.113.{n}");
        let begun = Instant::now();
        syslog.write_all(format!("{}\n", failed_login(&client)).as_bytes()).unwrap();
        wait_for("the other node to refuse", || (http.auth(&client).unwrap().status == 403).then_some(()));
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    record(&format!(
        "{}: from the line to the other node's refusal: median {:?}, longest {:?}",
        database.driver(),
        times[10],
        times[19]
    ));
    let answer = two.auth("203.0.113.1");
    assert_eq!(answer.field("X-Fail2ban-Reason"), Some("dovecot-login"));
    let seconds: u64 = answer.field("Retry-After").unwrap().parse().unwrap();
    assert!((500..=600).contains(&seconds), "{seconds}");
    one.wait_for_bans_everywhere(20);
    two.wait_for_bans_everywhere(20);
    // One row each, of the node that decided; nothing came back.
    assert_eq!(database.sql("SELECT COUNT(*) FROM bans;"), "20");
    assert_eq!(database.sql("SELECT DISTINCT node FROM bans;"), node(&one));
    assert_eq!((learned(&one), learned(&two)), (0, 20));
    assert_eq!(two.metrics().get("fail2ban_bans_total", &[]), 0, "they are no bans of its own");

    // And the other way, at the same client, whose offences count wherever they were.
    two.fail("203.0.113.200", 1);
    one.wait_for_status("203.0.113.200", 403);

    // A whitelist lifts it on both.
    database.sql("INSERT INTO whitelist (ip_address) VALUES ('203.0.113.0/24');");
    for server in [&one, &two] {
        server.wait_for_status("203.0.113.7", 200);
        server.wait_for_bans_everywhere(0);
    }
    wait_for("every row to be lifted", || {
        (database.sql("SELECT COUNT(*) FROM bans WHERE lifted_reason = 'allowed';") == "21").then_some(())
    });
}

fn what_happened_before_a_node_came_is_known_to_it(database: &dyn Database) {
    let one = Server::start(with(database).set("ban.initial_ban_time", "1s"));
    database.sql("UPDATE ban_config SET initial_ban_time_seconds = 2 WHERE name = 'default';");
    wait_for("the rules", || (one.metrics().get("fail2ban_policy_number", &[]) == 2).then_some(()));
    one.fail("192.0.2.1", 1);
    one.wait_for_ban("192.0.2.1", 1);
    one.wait_for_status("192.0.2.1", 200);
    one.fail("192.0.2.1", 1);
    one.wait_for_ban("192.0.2.1", 2);
    wait_for("both to be told", || (database.sql("SELECT COUNT(*) FROM bans;") == "2").then_some(()));
    // It comes later: the ban is in force, and the next one is the third.
    let two = Server::start(with(database));
    two.wait_for_status("192.0.2.1", 200);
    two.fail("192.0.2.1", 1);
    assert_eq!(two.wait_for_ban("192.0.2.1", 3)["duration"], "8s");
    one.wait_for_status("192.0.2.1", 403);
    // A crash forgets none of it, and reads none of it twice.
    let before = two.metrics().get("fail2ban_shard_replica_bans", &[]);
    assert!(before > 0);
}

fn a_node_that_shares_nothing_hears_nothing(database: &dyn Database) {
    let one = Server::start(with(database));
    let two = Server::start(with(database).set("database.share_bans", false));
    two.fail("192.0.2.2", 1);
    two.wait_for_status("192.0.2.2", 403);
    one.fail("192.0.2.1", 1);
    wait_for("the row", || (database.sql("SELECT COUNT(*) FROM bans;") == "1").then_some(()));
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!((one.status("192.0.2.2"), two.status("192.0.2.1")), (200, 200));
    assert!(!two.log().iter().any(|line| says(line, "ban") && line["client"] == "192.0.2.1"));
}

/// As after an older dump was read back.
fn a_database_that_was_taken_back_is_told_again(database: &dyn Database) {
    let (one, two) = (Server::start(with(database)), Server::start(with(database)));
    for n in 1..=3 {
        one.fail(&format!("192.0.2.{n}"), 1);
    }
    two.wait_for_bans_everywhere(3);
    std::thread::sleep(Duration::from_millis(1_200));
    database.sql("DELETE FROM bans; UPDATE mailfail2ban_versions SET version = 0 WHERE name = 'bans';");
    wait_for("the rows to be there again", || (database.sql("SELECT COUNT(*) FROM bans;") == "3").then_some(()));
    one.fail("192.0.2.4", 1);
    two.wait_for_status("192.0.2.4", 403);
    one.wait_for_bans_everywhere(4);
    two.wait_for_bans_everywhere(4);
}

/// More than are read at a time.
fn however_many_bans_there_are_a_new_node_knows_them(database: &dyn Database) {
    const COUNT: u64 = 12_000;
    Server::start(with(database)).stop();
    let (now, later) = now_and_later(database);
    let row = |n: u64| format!("({n}, 'another', 1, {n}, '10.0.{}.{}', 'p', 3, 5, 1, {now}, {later})", n >> 8, n & 255);
    let rows: Vec<String> = (1..=COUNT).map(row).collect();
    database.sql(&format!(
        "INSERT INTO bans (seq, node, run, serial, ip_address, pattern, severity, failures, offences, banned_at, expires_at)
         VALUES {}; UPDATE mailfail2ban_versions SET version = {COUNT} WHERE name = 'bans';",
        rows.join(",\n")
    ));
    Server::start(with(database)).wait_for_bans_everywhere(COUNT);
}

fn now_and_later(database: &dyn Database) -> (&'static str, &'static str) {
    match database.driver() {
        "sqlite3" => ("datetime('now')", "datetime('now', '+1 hour')"),
        "postgres" => ("now()", "now() + INTERVAL '1 hour'"),
        _ => ("UTC_TIMESTAMP(3)", "DATE_ADD(UTC_TIMESTAMP(3), INTERVAL 1 HOUR)"),
    }
}

fn rows_that_are_no_bans_are_passed_over(database: &dyn Database) {
    let server = Server::start(with(database));
    let (now, later) = now_and_later(database);
    let row = |serial: u32, address: &str, pattern: &str, severity: i32| {
        format!(
            "INSERT INTO bans (seq, node, run, serial, ip_address, pattern, severity, failures, offences, banned_at, expires_at)
             VALUES ({serial}, 'another', 1, {serial}, '{address}', '{pattern}', {severity}, 5, 1, {now}, {later});"
        )
    };
    let rows = [
        row(1, "mail.example.org", "p", 3),
        row(2, "192.0.2.1", "p", 99),
        row(3, "192.0.2.2", "", 3),
        row(4, "192.0.2.3", "never-heard-of", 6),
        row(5, "2001:db8::/48", "p", 1),
    ];
    database.sql(&format!("{} UPDATE mailfail2ban_versions SET version = 5 WHERE name = 'bans';", rows.join("\n")));
    server.wait_for_status("192.0.2.3", 403);
    assert_eq!(server.auth("192.0.2.3").field("X-Fail2ban-Reason"), Some("never-heard-of"));
    assert_eq!(server.status("2001:db8:0:9::1"), 403);
    assert_eq!((server.status("192.0.2.1"), server.status("192.0.2.2")), (200, 200));
    server.wait_for_metric("fail2ban_bans_unusable_total", &[], 3);
}

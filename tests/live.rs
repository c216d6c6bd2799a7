//! Settings that live in a database: changed with the clients that people use, in force without a restart.

mod harness;

use harness::databases::{Database, on_every_database, using};
use harness::{Http, Server, failed_login, record, wait_for};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

on_every_database!(
    the_documented_statements_change_what_is_done,
    a_faulty_row_is_named_and_the_others_work,
    lists_are_enforced_and_lift_bans,
    a_database_is_filled_once_and_counts_from_then_on,
    questions_and_lines_do_not_notice,
    a_long_list_is_in_force_on_every_shard,
);

fn page(server: &Server, path: &str) -> Value {
    let answer = Http::connect(server.config.nginx).and_then(|mut http| http.get(path, &[])).unwrap();
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.body).unwrap()
}

/// Waits until the policy in force on every shard is another one than `before`.
fn wait_for_policy_after(server: &Server, before: u64) -> u64 {
    wait_for("the new policy on every shard", || {
        let metrics = server.metrics();
        let newest = metrics.get("fail2ban_policy_number", &[]);
        let adopted = metrics.by_shard("fail2ban_shard_policy_number", &[]);
        (newest > before && adopted.iter().all(|adopted| *adopted == newest)).then_some(newest)
    })
}

fn policy(server: &Server) -> u64 {
    server.metrics().get("fail2ban_policy_number", &[])
}

const PATTERN: &str = "INSERT INTO patterns (name, regex, ip_group, severity, description) VALUES \
                       ('nginx-404', 'nginx.*404.*client: ([0-9.]+)', 1, 2, 'scanners');";

fn not_found(client: &str) -> String {
    format!("<22>Nov 22 17:33:44 web nginx: 2026/11/22 [error] open() failed, 404, client: {client}, server: x")
}

fn the_documented_statements_change_what_is_done(database: &dyn Database) {
    let server = Server::start(using(database));
    let source = page(&server, "/config/source");
    assert_eq!(source["patterns_source"], "database");
    assert_eq!(source["ban_config_source"], "database");
    assert_eq!((&source["database_enabled"], &source["database_connected"]), (&Value::Bool(true), &Value::Bool(true)));

    let mut number = policy(&server);
    let begun = Instant::now();
    database.sql(PATTERN);
    number = wait_for_policy_after(&server, number);
    record(&format!("{}: a pattern in force {:?} after the statement began", database.driver(), begun.elapsed()));
    database.sql("UPDATE ban_config SET max_attempts=3, initial_ban_time_seconds=600 WHERE name='default';");
    number = wait_for_policy_after(&server, number);

    server.send_tcp([not_found("203.0.113.1"), not_found("203.0.113.1")]);
    server.wait_for_failures(2);
    assert_eq!(server.status("203.0.113.1"), 200);
    server.send_tcp([not_found("203.0.113.1")]);
    let ban = server.wait_for_ban("203.0.113.1", 1);
    assert_eq!((ban["duration"].as_str(), ban["severity"].as_u64()), (Some("10m"), Some(2)));
    server.wait_for_status("203.0.113.1", 403);

    database.sql("UPDATE patterns SET enabled = FALSE WHERE name = 'nginx-404';");
    number = wait_for_policy_after(&server, number);
    server.send_tcp((0..3).map(|_| not_found("203.0.113.2")));
    server.wait_for_metric("fail2ban_syslog_received_total", &[("transport", "tcp")], 6);
    assert_eq!(server.status("203.0.113.2"), 200);
    database.sql("DELETE FROM patterns WHERE name = 'nginx-404';");
    // It was off, so nothing that is done changes, but the rows do.
    wait_for_policy_after(&server, number);
    // The ban outlives its pattern.
    assert_eq!(server.auth("203.0.113.1").field("X-Fail2ban-Reason"), Some("nginx-404"));
}

fn a_faulty_row_is_named_and_the_others_work(database: &dyn Database) {
    let server = Server::start(using(database));
    let mut number = policy(&server);
    database.sql("INSERT INTO patterns (name, regex) VALUES ('broken', '(');");
    number = wait_for_policy_after(&server, number);
    let line = server.wait_for_log("the row", |line| line["row"] == "broken");
    assert_eq!((line["table"].as_str(), line["column"].as_str()), (Some("patterns"), Some("regex")));
    let faults = wait_for("the page to say so", || {
        page(&server, "/database/status")["faults"].as_array().filter(|faults| !faults.is_empty()).cloned()
    });
    assert_eq!((faults.len(), &faults[0]["row"]), (1, &Value::from("broken")));
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_config_pattern_faulty", &[("pattern", "broken")]), 1);
    assert_eq!(metrics.get("fail2ban_config_faulty_rows", &[("table", "patterns")]), 1);
    server.fail("192.0.2.1", 5);
    server.wait_for_status("192.0.2.1", 403);

    // Rules that cannot be: those before stay.
    database.sql("UPDATE ban_config SET max_attempts = 2 WHERE name = 'default';");
    number = wait_for_policy_after(&server, number);
    database.sql("UPDATE ban_config SET max_attempts = 0, escalation_factor = 0.5 WHERE name = 'default';");
    number = wait_for_policy_after(&server, number);
    server.wait_for_metric("fail2ban_config_faulty_rows", &[("table", "ban_config")], 2);
    server.fail("192.0.2.2", 2);
    server.wait_for_status("192.0.2.2", 403);
    // An address that is none.
    database.sql("INSERT INTO blacklist (ip_address) VALUES ('mail.example.org'), ('198.51.100.0/24');");
    number = wait_for_policy_after(&server, number);
    assert_eq!(server.status("198.51.100.7"), 403);
    assert_eq!(server.metrics().get("fail2ban_config_faulty_rows", &[("table", "blacklist")]), 1);

    database.sql(
        "DELETE FROM patterns WHERE name = 'broken'; DELETE FROM blacklist WHERE ip_address = 'mail.example.org';
         UPDATE ban_config SET max_attempts = 5, escalation_factor = 2 WHERE name = 'default';",
    );
    wait_for_policy_after(&server, number);
    wait_for("no faults", || (page(&server, "/database/status")["faulty_rows"] == 0).then_some(()));
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_config_pattern_faulty", &[("pattern", "broken")]), 0);
    assert_eq!(metrics.get("fail2ban_config_faulty_rows", &[]), 0);
}

fn lists_are_enforced_and_lift_bans(database: &dyn Database) {
    let server = Server::start(using(database).set("ban.whitelist", "[192.0.2.99]").set("ban.max_attempts", 1));
    server.fail("203.0.113.5", 5);
    server.wait_for_status("203.0.113.5", 403);
    let mut number = policy(&server);
    database.sql("INSERT INTO whitelist (ip_address, reason, created_by) VALUES ('203.0.113.0/24', 'office', 'me');");
    number = wait_for_policy_after(&server, number);
    assert_eq!(server.status("203.0.113.5"), 200);
    server.wait_for_log("that the ban is lifted", |line| line["message"] == "unban" && line["reason"] == "allowed");
    server.wait_for_bans_everywhere(0);

    database.sql(
        "INSERT INTO blacklist (ip_address, reason, created_by) VALUES ('198.51.100.7', 'x', 'me'), ('2001:db8::/48', 'y', 'me'), ('203.0.113.0/24', 'z', 'me');",
    );
    number = wait_for_policy_after(&server, number);
    let reason = |client: &str| server.auth(client).field("X-Fail2ban-Reason").map(str::to_owned);
    assert_eq!(reason("198.51.100.7").as_deref(), Some("blacklist"));
    assert_eq!(reason("2001:db8:0:5::1").as_deref(), Some("blacklist"));
    assert_eq!(server.status("198.51.100.8"), 200);
    assert_eq!(server.status("203.0.113.5"), 200, "the whitelist beats the blacklist");
    database.sql("UPDATE blacklist SET enabled = FALSE WHERE ip_address = '198.51.100.7';");
    number = wait_for_policy_after(&server, number);
    assert_eq!(server.status("198.51.100.7"), 200);
    database.sql("DELETE FROM whitelist WHERE ip_address = '203.0.113.0/24';");
    wait_for_policy_after(&server, number);
    assert_eq!(server.status("203.0.113.5"), 403);
    // What the file says stays in force beside it.
    server.fail("192.0.2.99", 5);
    assert_eq!(server.status("192.0.2.99"), 200);
}

fn a_database_is_filled_once_and_counts_from_then_on(database: &dyn Database) {
    let config = using(database).set("ban.max_attempts", 4);
    Server::start(config.clone()).stop();
    let names = database.sql("SELECT name FROM patterns ORDER BY id;");
    assert!(names.lines().any(|name| name == "dovecot-login"), "{names}");
    assert_eq!(
        database.sql("SELECT max_attempts, initial_ban_time_seconds FROM ban_config WHERE name = 'default';"),
        "4|300"
    );
    database.sql("DELETE FROM patterns;");
    // Not filled again, and the file's rules do not count.
    let server = Server::start(config.set("ban.max_attempts", 1));
    assert_eq!(database.sql("SELECT COUNT(*) FROM patterns;"), "0");
    assert_eq!(server.metrics().get("fail2ban_config_patterns_loaded", &[]), 0);
    let number = policy(&server);
    database.sql("INSERT INTO patterns (name, regex) VALUES ('mine', 'rip=([0-9.]+)');");
    wait_for_policy_after(&server, number);
    server.fail("192.0.2.1", 1);
    server.wait_for_failures(1);
    assert_eq!(server.status("192.0.2.1"), 200);
}

/// Asks again and again until it is told to end: some thousand questions a second, for other tests run beside it.
struct Load {
    ends: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(server: &Server) -> Load {
        let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let one = |n: u8| {
            let (ends, asked, nginx) = (Arc::clone(&ends), Arc::clone(&asked), server.config.nginx);
            std::thread::spawn(move || {
                let mut wrong = Vec::new();
                let mut http = Http::connect(nginx).unwrap();
                while !ends.load(Ordering::SeqCst) {
                    match http.auth(&format!("192.0.2.{n}")) {
                        Ok(answer) if answer.status == 200 => {}
                        other => wrong.push(format!("{other:?}")),
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                }
                wrong
            })
        };
        let threads = (1..=4).map(one).collect();
        Load { ends, asked, threads }
    }

    fn end(self) -> u64 {
        self.ends.store(true, Ordering::SeqCst);
        for thread in self.threads {
            let wrong = thread.join().unwrap();
            assert!(wrong.is_empty(), "{} wrong answers, the first: {}", wrong.len(), wrong[0]);
        }
        self.asked.load(Ordering::SeqCst)
    }
}

fn questions_and_lines_do_not_notice(database: &dyn Database) {
    let server = Server::start(using(database));
    let load = Load::start(&server);
    let begun = Instant::now();
    let mut sent = 0;
    let mut changes = 0;
    let mut number = policy(&server);
    while begun.elapsed() < Duration::from_secs(4) {
        database.sql(&format!(
            "INSERT INTO patterns (name, regex) VALUES ('p{changes}', 'x{changes} ([0-9.]+)');
             UPDATE ban_config SET max_attempts = {} WHERE name = 'default';
             INSERT INTO blacklist (ip_address) VALUES ('10.0.0.{changes}');",
            5 + changes % 3
        ));
        changes += 1;
        server.send_udp((0..500).map(|n| failed_login(&format!("203.0.{}.{}", n % 250, sent % 250))));
        sent += 500;
        number = wait_for_policy_after(&server, number);
    }
    let asked = load.end();
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_syslog_received_total", &[("transport", "udp")]), sent);
    assert_eq!(metrics.get("fail2ban_syslog_dropped_total", &[]), 0);
    record(&format!("{}: {changes} changes, {asked} questions, {sent} datagrams, nothing lost", database.driver()));
    assert!(changes >= 2 && asked > 1_000);
}

fn a_long_list_is_in_force_on_every_shard(database: &dyn Database) {
    const COUNT: usize = 50_000;
    let server = Server::start(using(database));
    let number = policy(&server);
    let mut statement = String::new();
    for chunk in 0..COUNT / 1000 {
        let rows: Vec<String> = (0..1000).map(|n| format!("('10.{}.{}.{}')", chunk, n >> 8, n & 255)).collect();
        statement.push_str(&format!("INSERT INTO blacklist (ip_address) VALUES {};\n", rows.join(", ")));
    }
    let load = Load::start(&server);
    database.sql(&format!("BEGIN; {statement} COMMIT;"));
    let begun = Instant::now();
    let number = wait_for_policy_after(&server, number);
    record(&format!("{}: {COUNT} rows in force {:?} after the commit", database.driver(), begun.elapsed()));
    for _ in 0..20 {
        assert_eq!(server.status("10.49.3.231"), 403);
        assert_eq!(server.status("10.50.0.1"), 200);
    }
    database.sql("DELETE FROM blacklist WHERE ip_address = '10.49.3.231';");
    wait_for_policy_after(&server, number);
    assert_eq!(server.status("10.49.3.231"), 200);
    load.end();
}

//! Databases that go away: what is in force stays, decisions go on, and what was decided arrives later.

mod harness;

use harness::databases::{Database, DatabaseServer, Sqlite, on_every_database, on_every_database_server, using};
use harness::{Config, Directory, Http, Server, failed_login, patterns_in_use, record, run_command, tool, wait_for};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

on_every_database_server!(
    an_outage_under_load_loses_nothing,
    a_start_without_the_database_has_the_last_good_copy,
    a_database_that_hangs_holds_up_nobody,
    a_lock_that_somebody_holds_keeps_nobody_from_reading,
);

on_every_database!(
    a_schema_that_is_newer_is_not_used,
    the_password_is_never_said,
    rules_that_were_right_outlive_a_restart,
);

fn with(database: &(impl Database + ?Sized), state: &Directory) -> Config {
    using(database).set("database.retry_delay", "1s").set("runtime.state_dir", state.0.join("state").display())
}

fn page(server: &Server, path: &str) -> Value {
    let answer = Http::connect(server.config.nginx).and_then(|mut http| http.get(path, &[])).unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

#[track_caller]
fn wait_for_connected(server: &Server, connected: bool) {
    wait_for("the database's state to be seen", || {
        (page(server, "/database/status")["connected"] == connected).then_some(())
    });
}

/// How long the database is away; 30 s with MAILFAIL2BAN_LOAD_SECONDS=30.
fn away() -> Duration {
    let seconds = std::env::var("MAILFAIL2BAN_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

fn an_outage_under_load_loses_nothing(database: &mut dyn DatabaseServer) {
    let state = Directory::new();
    let server = Server::start(with(database, &state).set("ban.max_attempts", 5));
    database.sql("UPDATE ban_config SET max_attempts = 1 WHERE name = 'default';");
    wait_for("the rules", || (server.metrics().get("fail2ban_policy_number", &[]) == 2).then_some(()));
    let mut syslog = server.connect_syslog();
    let mut http = Http::connect(server.config.nginx).unwrap();
    let address = |n: usize| format!("10.0.{}.{}", n >> 8, n & 255);
    let mut banned = 0;
    let mut slowest = Duration::ZERO;
    let mut ban_and_ask = |for_how_long: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < for_how_long {
            syslog.write_all(format!("{}\n", failed_login(&address(banned))).as_bytes()).unwrap();
            wait_for("the ban", || {
                let asked = Instant::now();
                let status = http.auth(&address(banned)).unwrap().status;
                slowest = slowest.max(asked.elapsed());
                (status == 403).then_some(())
            });
            banned += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        banned
    };
    ban_and_ask(Duration::from_millis(500));
    database.stop();
    let before = Instant::now();
    let during = ban_and_ask(away());
    wait_for_connected(&server, false);
    let source = page(&server, "/config/source");
    assert_eq!(source["patterns_source"], "database_cached");
    let status = page(&server, "/database/status");
    assert!(status["failure_count"].as_u64().unwrap() >= 1 && status["has_cached_config"] == true, "{status}");
    assert!(!status["last_error"].is_null() && !status["last_successful_load"].is_null(), "{status}");
    assert!(server.metrics().get("fail2ban_bans_untold", &[]) > 0);
    server.wait_for_metric("fail2ban_database_connections_active", &[], 0);
    database.start_again();
    let outage = before.elapsed();
    wait_for_connected(&server, true);
    let all = ban_and_ask(Duration::from_millis(300));
    let back = Instant::now();
    wait_for("all bans in the table", || {
        (database.sql("SELECT COUNT(DISTINCT ip_address) FROM bans;") == all.to_string()).then_some(())
    });
    assert_eq!(database.sql("SELECT COUNT(*) FROM bans;"), all.to_string(), "none of them twice");
    assert_eq!(page(&server, "/config/source")["patterns_source"], "database");
    record(&format!(
        "{}: away for {outage:?}, {all} bans, {during} of them until it came back, all in the table {:?} after; slowest \
         answer {slowest:?}",
        database.driver(),
        back.elapsed()
    ));
    // What was changed when it was back is seen as before.
    database.sql("INSERT INTO blacklist (ip_address) VALUES ('198.51.100.7');");
    server.wait_for_status("198.51.100.7", 403);
}

fn a_start_without_the_database_has_the_last_good_copy(database: &mut dyn DatabaseServer) {
    let state = Directory::new();
    let config = with(database, &state);
    let server = Server::start(config.clone());
    database.sql(
        "INSERT INTO patterns (name, regex, severity) VALUES ('mine', 'mine ([0-9.]+)', 6);
         UPDATE ban_config SET max_attempts = 2 WHERE name = 'default';
         INSERT INTO blacklist (ip_address) VALUES ('198.51.100.0/24');
         INSERT INTO whitelist (ip_address) VALUES ('198.51.100.7');",
    );
    server.wait_for_status("198.51.100.9", 403);
    wait_for("all of it in the copy", || {
        let metrics = server.metrics();
        let copied = metrics.get("fail2ban_database_operations_total", &[("operation", "copy"), ("status", "success")]);
        (copied >= 1 && metrics.get("fail2ban_config_patterns_loaded", &[]) == patterns_in_use() as u64 + 1)
            .then_some(())
    });
    server.wait_for_status("198.51.100.7", 200);
    server.stop();
    database.stop();

    let server = Server::start(config.clone());
    let source = page(&server, "/config/source");
    assert_eq!(
        (&source["patterns_source"], &source["ban_config_source"]),
        (&"database_cached".into(), &"database_cached".into())
    );
    assert_eq!((&source["database_enabled"], &source["database_connected"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!((server.status("198.51.100.9"), server.status("198.51.100.7")), (403, 200));
    server.send_tcp(["<22>Nov 22 17:33:44 mail1 app: mine 192.0.2.1", "<22>Nov 22 17:33:44 mail1 app: mine 192.0.2.1"]);
    server.wait_for_ban("192.0.2.1", 1);
    // It comes back, and counts.
    database.start_again();
    wait_for_connected(&server, true);
    wait_for("the ban in the table", || (database.sql("SELECT COUNT(*) FROM bans;") == "1").then_some(()));
    database.sql("DELETE FROM blacklist;");
    server.wait_for_status("198.51.100.9", 200);

    // A copy of another database is none of this one.
    server.stop();
    let other = Server::start(config.set("database.driver", "sqlite3").set("database.dsn", "./other.db"));
    assert_eq!(page(&other, "/config/source")["patterns_source"], "database");
    assert_eq!(other.metrics().get("fail2ban_config_patterns_loaded", &[]), patterns_in_use() as u64);
}

fn a_database_that_hangs_holds_up_nobody(database: &mut dyn DatabaseServer) {
    let state = Directory::new();
    let config = with(database, &state).set("ban.max_attempts", 1);
    let server = Server::start(config.clone());
    database.freeze();
    let mut slowest = Duration::ZERO;
    let mut http = Http::connect(server.config.nginx).unwrap();
    for n in 1..=100 {
        let client = format!("192.0.2.{n}");
        server.fail(&client, 1);
        wait_for("the ban", || {
            let asked = Instant::now();
            let status = http.auth(&client).unwrap().status;
            slowest = slowest.max(asked.elapsed());
            (status == 403).then_some(())
        });
    }
    wait_for("them to be kept here", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 100).then_some(()));
    wait_for_connected(&server, false);
    // Nor does an end or a start wait for it for long.
    let begun = Instant::now();
    server.stop();
    let stopped = begun.elapsed();
    let server = Server::start(config);
    let started = begun.elapsed() - stopped;
    assert_eq!(server.status("192.0.2.77"), 403);
    assert_eq!(page(&server, "/config/source")["patterns_source"], "database_cached");
    database.thaw();
    wait_for_connected(&server, true);
    wait_for("all in the table", || {
        (database.sql("SELECT COUNT(DISTINCT ip_address) FROM bans;") == "100").then_some(())
    });
    record(&format!("{}: slowest answer {slowest:?}, end {stopped:?}, start {started:?}", database.driver()));
}

/// As a node that lost its power between two statements.
fn a_lock_that_somebody_holds_keeps_nobody_from_reading(database: &mut dyn DatabaseServer) {
    let state = Directory::new();
    let server = Server::start(with(database, &state).set("ban.max_attempts", 1));
    let mut command = database.client();
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut holder = command.spawn().unwrap();
    let input = holder.stdin.as_mut().unwrap();
    let locked =
        "BEGIN; UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'bans'; SELECT 'locked';\n";
    input.write_all(locked.as_bytes()).unwrap();
    input.flush().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    server.fail("192.0.2.1", 1);
    server.wait_for_status("192.0.2.1", 403);
    let begun = Instant::now();
    database.sql("INSERT INTO blacklist (ip_address) VALUES ('198.51.100.7');");
    server.wait_for_status("198.51.100.7", 403);
    record(&format!(
        "{}: a list is followed {:?} after it changed, with bans locked",
        database.driver(),
        begun.elapsed()
    ));
    wait_for("the refusal to be said", || page(&server, "/database/status")["last_error"].is_string().then_some(()));
    assert_eq!(page(&server, "/database/status")["connected"], true);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    wait_for("the ban in the table", || (database.sql("SELECT COUNT(*) FROM bans;") == "1").then_some(()));
}

fn rules_that_were_right_outlive_a_restart(database: &dyn Database) {
    let state = Directory::new();
    let config = with(database, &state);
    let server = Server::start(config.clone());
    database.sql("UPDATE ban_config SET max_attempts = 2 WHERE name = 'default';");
    let copied = [("operation", "copy"), ("status", "success")];
    wait_for("the copy", || (server.metrics().get("fail2ban_database_operations_total", &copied) >= 2).then_some(()));
    database.sql("UPDATE ban_config SET max_attempts = 0 WHERE name = 'default';");
    server.wait_for_metric("fail2ban_config_faulty_rows", &[("table", "ban_config")], 1);
    server.stop();
    let server = Server::start(config);
    server.fail("192.0.2.1", 2);
    server.wait_for_status("192.0.2.1", 403);
    assert_eq!(page(&server, "/config/source")["ban_config_source"], "database");
}

fn a_schema_that_is_newer_is_not_used(database: &dyn Database) {
    let state = Directory::new();
    let config = with(database, &state);
    Server::start(config.clone()).stop();
    let insert = match database.driver() {
        "postgres" => "INSERT INTO _sqlx_migrations VALUES (99, 'later', now(), TRUE, '', 0);",
        _ => {
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', TRUE, x'00', 0);"
        }
    };
    database.sql(insert);
    database.sql("DELETE FROM patterns;");
    let server = Server::start(config);
    let said = page(&server, "/database/status")["last_error"].as_str().unwrap().to_owned();
    assert!(said.contains("(version 99) is newer than this program knows"), "{said}");
    assert_eq!(page(&server, "/config/source")["patterns_source"], "database_cached");
    assert_eq!(server.metrics().get("fail2ban_config_patterns_loaded", &[]), patterns_in_use() as u64);
}

fn the_password_is_never_said(database: &dyn Database) {
    let state = Directory::new();
    if !database.dsn().contains("secret") {
        return;
    }
    let wrong = database.dsn().replace("secret", "wrong-secret-word");
    let config = with(database, &state).set("database.dsn", format!("'{wrong}'")).set("log.level", "debug");
    let server = Server::start(config);
    let status = wait_for("a failure", || {
        let status = page(&server, "/database/status");
        status["last_error"].is_string().then_some(status)
    });
    assert_eq!(page(&server, "/config/source")["patterns_source"], "file");
    let text = format!("{status} {}", server.text());
    assert!(!text.contains("secret-word"), "{text}");
    // It works all the same, by the file.
    server.fail("192.0.2.1", 5);
    server.wait_for_status("192.0.2.1", 403);
}

/// The file of an SQLite database that is moved away, locked, read-only, broken.
#[test]
fn a_file_that_is_not_what_it_was() {
    let Some(database) = Sqlite::start() else { return };
    let state = Directory::new();
    let config = with(&database, &state);
    let server = Server::start(config.clone());
    database.sql("INSERT INTO blacklist (ip_address) VALUES ('198.51.100.7');");
    server.wait_for_status("198.51.100.7", 403);
    wait_for("the copy", || {
        let copied = [("operation", "copy"), ("status", "success")];
        (server.metrics().get("fail2ban_database_operations_total", &copied) >= 2).then_some(())
    });
    // Away: it is not made anew, neither now nor at a start.
    let away = database.path.with_extension("away");
    std::fs::rename(&database.path, &away).unwrap();
    wait_for_connected(&server, false);
    let error = page(&server, "/database/status")["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("is not there any more"), "{error}");
    assert_eq!(server.status("198.51.100.7"), 403);
    server.stop();
    let server = Server::start(config.clone());
    assert_eq!(server.status("198.51.100.7"), 403);
    assert!(!database.path.exists());
    // Another file in its place: it is opened, filled, and counts.
    std::fs::write(&database.path, "").unwrap();
    server.wait_for_status("198.51.100.7", 200);
    wait_for_connected(&server, true);
    server.stop();

    // No database at all.
    for ending in ["-wal", "-shm", ""] {
        let _ = std::fs::remove_file(format!("{}{ending}", database.path.display()));
    }
    std::fs::write(&database.path, "not a database ".repeat(1000)).unwrap();
    let server = Server::start(config);
    let error = page(&server, "/database/status")["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("not a database"), "{error}");
    assert_eq!(page(&server, "/config/source")["patterns_source"], "database_cached");
}

/// Somebody holds the database locked for writing: reading goes on, and bans are told when they can be.
#[test]
fn a_database_that_is_locked_for_writing_is_still_read() {
    let Some(database) = Sqlite::start() else { return };
    let state = Directory::new();
    let server = Server::start(with(&database, &state));
    let mut command = tool("sqlite3");
    command.arg(&database.path).stdin(std::process::Stdio::piped());
    let mut locker = command.spawn().unwrap();
    let mut input = locker.stdin.take().unwrap();
    input
        .write_all(b".timeout 20000\nBEGIN IMMEDIATE;\nINSERT INTO blacklist (ip_address) VALUES ('198.51.100.7');\n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    server.fail("192.0.2.1", 5);
    server.wait_for_status("192.0.2.1", 403);
    wait_for("the refusal to be said", || {
        let error = page(&server, "/database/status")["last_error"].as_str()?.to_owned();
        error.contains("locked").then_some(())
    });
    assert_eq!(page(&server, "/database/status")["connected"], true);
    input.write_all(b"COMMIT;\n").unwrap();
    drop(input);
    locker.wait().unwrap();
    server.wait_for_status("198.51.100.7", 403);
    wait_for("the ban in the table", || (database.sql("SELECT COUNT(*) FROM bans;") == "1").then_some(()));
    wait_for("the refusal to be over", || page(&server, "/database/status")["last_error"].is_null().then_some(()));
}

/// A database that may only be read: its settings count, bans stay here.
#[test]
fn a_database_that_may_only_be_read() {
    let Some(database) = harness::databases::Postgres::start() else { return };
    let state = Directory::new();
    let config = with(&database, &state);
    Server::start(config.clone()).stop();
    database.sql("INSERT INTO blacklist (ip_address) VALUES ('198.51.100.7'); ALTER DATABASE fail2ban SET default_transaction_read_only = on;");
    let server = Server::start(config);
    assert_eq!(server.status("198.51.100.7"), 403);
    server.fail("192.0.2.1", 5);
    server.wait_for_status("192.0.2.1", 403);
    wait_for("the refusal to be said", || {
        let error = page(&server, "/database/status")["last_error"].as_str()?.to_owned();
        error.contains("read-only").then_some(())
    });
    assert_eq!(page(&server, "/database/status")["connected"], true);
    let mut client = database.client();
    client.env("PGOPTIONS", "-c default_transaction_read_only=off");
    let output = run_command(client, b"ALTER DATABASE fail2ban SET default_transaction_read_only = off;");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // For connections that begin now.
    let output = run_command(
        database.client(),
        b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mailfail2ban';",
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_for("the ban in the table", || (database.sql("SELECT COUNT(*) FROM bans;") == "1").then_some(()));
}

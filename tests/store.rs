//! What was decided is not lost: the local state, through crashes, restarts, clocks that are set and files that break.

mod harness;

use harness::databases::{Database, Sqlite};
use harness::limits::{self, Limit};
use harness::{Config, DEADLINE, Directory, Ended, Http, Server, failed_login, record, run_command, tool, wait_for};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

fn keeping(state: &Directory) -> Config {
    Config::new().set("runtime.state_dir", state.0.join("state").display()).set("ban.max_attempts", 1)
}

/// Statements for the state of a server that is not running, through the real client.
fn state_sql(state: &Directory, sql: &str) -> String {
    let mut command = tool("sqlite3");
    command.arg(state.0.join("state/state.db"));
    let output = run_command(command, sql.as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Somebody who has the state locked for writing, as a backup may.
struct Lock(std::process::Child);

impl Lock {
    fn take(state: &Directory) -> Lock {
        let mut command = tool("sqlite3");
        command.arg(state.0.join("state/state.db"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let input = holder.stdin.as_mut().unwrap();
        input.write_all(b".timeout 10000\nBEGIN IMMEDIATE;\nSELECT 'locked';\n").unwrap();
        input.flush().unwrap();
        let mut said = [0; 7];
        holder.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        Lock(holder)
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn bans_and_escalation_survive_a_restart_and_a_crash() {
    let state = Directory::new();
    let config = keeping(&state).set("ban.initial_ban_time", "10m");
    let server = Server::start(config.clone());
    server.fail("192.0.2.1", 1);
    server.fail("2001:db8::1", 1);
    server.wait_for_bans_everywhere(2);
    server.stop();

    // The first answer of all is the right one.
    let server = Server::spawn(config.clone(), &[]);
    let answer = wait_for("the first answer", || {
        Http::connect(server.config.nginx).and_then(|mut http| http.auth("192.0.2.1")).ok()
    });
    assert_eq!(answer.status, 403, "{}", server.text());
    let seconds: u64 = answer.field("Retry-After").unwrap().parse().unwrap();
    assert!((500..=600).contains(&seconds), "{seconds}");
    server.wait_for_status("2001:db8::ffff", 403);
    server.wait_for_bans_everywhere(2);
    server.fail("198.51.100.7", 1);
    server.wait_for_ban("198.51.100.7", 1);
    wait_for("the ban to be kept", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 1).then_some(()));
    server.signal(libc::SIGKILL);
    server.wait_for_end();

    let server = Server::start(config);
    server.wait_for_bans_everywhere(3);
    for banned in ["192.0.2.1", "2001:db8::2", "198.51.100.7"] {
        assert_eq!(server.status(banned), 403, "{banned}");
    }
    assert_eq!(server.status("192.0.2.2"), 200);
    assert_eq!(server.metrics().get("fail2ban_bans_total", &[]), 0, "they are no new bans");
}

#[test]
fn the_second_ban_is_longer_even_if_the_first_was_in_another_life() {
    let state = Directory::new();
    let config = keeping(&state).set("ban.initial_ban_time", "1s");
    let server = Server::start(config.clone());
    server.fail("192.0.2.1", 1);
    server.wait_for_ban("192.0.2.1", 1);
    server.wait_for_status("192.0.2.1", 200);
    server.stop();
    let server = Server::start(config);
    server.fail("192.0.2.1", 1);
    assert_eq!(server.wait_for_ban("192.0.2.1", 2)["duration"], "2s");
}

#[test]
fn a_ban_keeps_its_reason_when_the_pattern_is_gone() {
    let state = Directory::new();
    let server = Server::start(keeping(&state));
    server.fail("192.0.2.1", 1);
    server.wait_for_bans_everywhere(1);
    server.stop();
    let server = Server::start(keeping(&state).set("syslog.patterns", "[{name: other, regex: 'from (.*)'}]"));
    let answer = server.auth("192.0.2.1");
    assert_eq!((answer.status, answer.field("X-Fail2ban-Reason")), (403, Some("dovecot-login")));
}

/// Clients that fail once each, at a steady pace; when each of them failed is known.
#[test]
fn a_crash_in_a_storm_loses_what_was_decided_in_the_last_second_at_most() {
    const PACE: usize = 100;
    let state = Directory::new();
    let config = keeping(&state).set("ban.max_tracked", 1_000_000).set("log.level", "warn");
    let server = Server::start(config.clone());
    let address = |n: usize| format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255);
    let mut stream = server.connect_syslog();
    let mut sent: Vec<Instant> = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let lines: String = (0..PACE).map(|n| format!("{}\n", failed_login(&address(sent.len() * PACE + n)))).collect();
        stream.write_all(lines.as_bytes()).unwrap();
        sent.push(Instant::now());
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = Instant::now();
    server.signal(libc::SIGKILL);
    server.wait_for_end();

    let server = Server::start(config);
    let mut http = Http::connect(server.config.nginx).unwrap();
    let mut missing = 0;
    let mut oldest = Duration::ZERO;
    for (batch, at) in sent.iter().enumerate() {
        for n in 0..PACE {
            if http.auth(&address(batch * PACE + n)).unwrap().status != 403 {
                missing += 1;
                oldest = oldest.max(killed.duration_since(*at));
            }
        }
    }
    record(&format!("{missing} of {} bans missing, the oldest of them {oldest:?} old", sent.len() * PACE));
    assert!(sent.len() > 100 && oldest < Duration::from_secs(1), "{missing} are missing, the oldest {oldest:?} old");
}

#[test]
fn a_clock_that_was_set_frees_nobody_and_holds_nobody() {
    if Sqlite::start().is_none() {
        return;
    }
    let state = Directory::new();
    let config = keeping(&state).set("ban.initial_ban_time", "10m");
    let server = Server::start(config.clone());
    server.fail("192.0.2.1", 1);
    server.wait_for_bans_everywhere(1);
    server.stop();
    // As if it had been written when the clock was a day behind, and a day ahead: what is left is what was left.
    for moved in [-86_400_000i64, 86_400_000] {
        state_sql(
            &state,
            &format!(
                "UPDATE bans SET banned_at = banned_at + {moved}, expires_at = expires_at + {moved};
                 UPDATE meta SET value = substr(value, 1, instr(value, ' ')) ||
                     (CAST(substr(value, instr(value, ' ') + 1) AS INTEGER) + {moved}) WHERE name = 'clock';"
            ),
        );
        let server = Server::start(config.clone());
        let answer = server.auth("192.0.2.1");
        assert_eq!(answer.status, 403);
        let seconds: u64 = answer.field("Retry-After").unwrap().parse().unwrap();
        assert!((500..=600).contains(&seconds), "{seconds}");
        server.stop();
    }
    // After a reboot only the clock tells, but time does not go back.
    state_sql(
        &state,
        "UPDATE meta SET value = 'another-boot 0' WHERE name = 'clock';
         UPDATE bans SET banned_at = banned_at + 3600000, expires_at = expires_at + 3600000;",
    );
    let server = Server::start(config);
    let answer = server.auth("192.0.2.1");
    let seconds: u64 = answer.field("Retry-After").unwrap().parse().unwrap();
    assert!(answer.status == 403 && seconds <= 600, "{seconds}");
}

#[test]
fn a_state_that_is_broken_is_put_aside() {
    let state = Directory::new();
    let config = keeping(&state);
    std::fs::create_dir_all(state.0.join("state")).unwrap();
    std::fs::write(state.0.join("state/state.db"), "this is no database, whatever its name says ".repeat(200)).unwrap();
    let server = Server::start(config.clone());
    server.wait_for_log("that it was broken", |line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("the local state was broken and is put aside"))
    });
    server.fail("192.0.2.1", 1);
    server.wait_for_bans_everywhere(1);
    server.stop();
    let names: BTreeSet<String> = std::fs::read_dir(state.0.join("state"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("state.db.broken-")), "{names:?}");
    Server::start(config).wait_for_status("192.0.2.1", 403);
}

fn refused(config: Config) -> Ended {
    let ended = Server::spawn(config, &[]).wait_for_end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.text());
    ended
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_with_what_to_do() {
    let state = Directory::new();
    let server = Server::start(keeping(&state));
    let other = refused(keeping(&state));
    assert!(other.text().contains("is in use by another running mailfail2ban"), "{}", other.text());
    server.stop();
    let file = state.file("file", "");
    let ended = refused(Config::new().set("runtime.state_dir", file.display()));
    assert!(ended.text().contains("Set runtime.state_dir to a directory"), "{}", ended.text());
}

#[test]
fn a_state_of_a_newer_version_is_refused() {
    if Sqlite::start().is_none() {
        return;
    }
    let state = Directory::new();
    Server::start(keeping(&state)).stop();
    state_sql(
        &state,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 0);",
    );
    let ended = refused(keeping(&state));
    assert!(ended.text().contains("was written by a newer version of this program"), "{}", ended.text());
}

#[test]
fn without_a_directory_nothing_is_kept() {
    let config = Config::new().set("runtime.state_dir", "''").set("ban.max_attempts", 1);
    let server = Server::start(config);
    server.fail("192.0.2.1", 1);
    server.wait_for_bans_everywhere(1);
    assert!(!server.directory.0.join("state").exists());
}

/// Somebody has the file locked for longer than a statement waits.
#[test]
fn what_cannot_be_written_now_is_written_later() {
    if Sqlite::start().is_none() {
        return;
    }
    let state = Directory::new();
    let config = keeping(&state);
    let server = Server::start(config.clone());
    server.fail("192.0.2.1", 1);
    wait_for("the first to be kept", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 1).then_some(()));

    let lock = Lock::take(&state);
    let clients: Vec<String> = (2..50).map(|n| format!("192.0.2.{n}")).collect();
    server.send_tcp(clients.iter().map(|client| failed_login(client)));
    server.wait_for_bans_everywhere(49);
    server.wait_for_log("that it cannot be written", |line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("the local state has a fault"))
    });
    assert_eq!(server.metrics().get("fail2ban_state_writable", &[]), 0);
    // Questions and lines go on.
    assert_eq!(server.status("192.0.2.49"), 403);
    lock.release();
    server.wait_for_log("that it can again", |line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("the local state works again"))
    });
    wait_for("all to be kept", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 49).then_some(()));
    server.signal(libc::SIGKILL);
    server.wait_for_end();
    Server::start(config).wait_for_bans_everywhere(49);
}

fn writable(server: &Server, writable: u64) {
    wait_for("the state to be seen", || {
        (server.metrics().get("fail2ban_state_writable", &[]) == writable).then_some(())
    });
}

/// The disk is full for a while: nothing is lost, and it is not said to be written before it is.
#[test]
fn a_full_disk_loses_nothing_as_long_as_the_program_runs() {
    const COUNT: usize = 8_000;
    let state = Directory::new();
    let config = keeping(&state).set("log.level", "warn");
    let server = Server::start_limited(config.clone(), &[Limit::FileBytes(400_000)]);
    server.fail("192.0.2.1", 1);
    wait_for("the first to be kept", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 1).then_some(()));
    let address = |n: usize| format!("10.0.{}.{}", n >> 8, n & 255);
    for part in (0..COUNT).collect::<Vec<_>>().chunks(2_000) {
        server.send_tcp(part.iter().map(|n| failed_login(&address(*n))));
    }
    server.wait_for_bans_everywhere(COUNT as u64 + 1);
    writable(&server, 0);
    // More than one try fails.
    std::thread::sleep(Duration::from_millis(2_500));
    writable(&server, 0);
    assert!(server.metrics().get("fail2ban_bans_stored_total", &[]) < COUNT as u64);
    limits::give_room(server.pid());
    writable(&server, 1);
    wait_for("all to be kept", || {
        (server.metrics().get("fail2ban_bans_stored_total", &[]) == COUNT as u64 + 1).then_some(())
    });
    server.signal(libc::SIGKILL);
    server.wait_for_end();
    Server::start(config).wait_for_bans_everywhere(COUNT as u64 + 1);
}

/// The disk is full when it starts: what is there is in force, and it is written to when there is room.
#[test]
fn a_start_on_a_full_disk_remembers() {
    let state = Directory::new();
    let config = keeping(&state);
    let server = Server::start(config.clone());
    server.send_tcp((1..=50).map(|n| failed_login(&format!("192.0.2.{n}"))));
    server.wait_for_bans_everywhere(50);
    server.stop();
    let server = Server::start_limited(config.clone(), &[Limit::FileBytes(1_000)]);
    server.wait_for_bans_everywhere(50);
    assert_eq!((server.status("192.0.2.50"), server.status("192.0.2.51")), (403, 200));
    writable(&server, 0);
    server.fail("192.0.2.51", 1);
    server.wait_for_bans_everywhere(51);
    limits::give_room(server.pid());
    writable(&server, 1);
    wait_for("it to be kept", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 1).then_some(()));
    server.signal(libc::SIGKILL);
    server.wait_for_end();
    Server::start(config).wait_for_bans_everywhere(51);
}

/// Somebody tidies up.
#[test]
fn a_state_that_is_deleted_is_written_again() {
    let state = Directory::new();
    let config = keeping(&state);
    let server = Server::start(config.clone());
    server.fail("192.0.2.1", 1);
    wait_for("the first to be kept", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 1).then_some(()));
    std::fs::remove_dir_all(state.0.join("state")).unwrap();
    server.wait_for_log("that it is gone", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("the file was deleted"))
    });
    server.fail("192.0.2.2", 1);
    wait_for("the second to be kept", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 2).then_some(()));
    writable(&server, 1);
    server.signal(libc::SIGKILL);
    server.wait_for_end();
    Server::start(config).wait_for_bans_everywhere(2);
}

/// It is read all the same, and what is decided meanwhile is written when it can be.
#[test]
fn a_state_that_is_locked_at_the_start_is_in_force_and_goes_on_later() {
    if Sqlite::start().is_none() {
        return;
    }
    let state = Directory::new();
    let config = keeping(&state);
    let server = Server::start(config.clone());
    server.fail("192.0.2.1", 1);
    server.wait_for_bans_everywhere(1);
    server.stop();
    let node = state_sql(&state, "SELECT value FROM meta WHERE name = 'node';");

    let lock = Lock::take(&state);
    let server = Server::start(config.clone());
    assert_eq!(server.status("192.0.2.1"), 403);
    assert_eq!(server.metrics().get("fail2ban_state_writable", &[]), 0);
    server.fail("192.0.2.2", 1);
    server.wait_for_bans_everywhere(2);
    lock.release();
    wait_for("it to be written", || (server.metrics().get("fail2ban_state_writable", &[]) == 1).then_some(()));
    server.fail("192.0.2.3", 1);
    wait_for("all to be kept", || (server.metrics().get("fail2ban_bans_stored_total", &[]) == 2).then_some(()));
    server.signal(libc::SIGKILL);
    server.wait_for_end();
    Server::start(config).wait_for_bans_everywhere(3);
    assert_eq!(state_sql(&state, "SELECT value FROM meta WHERE name = 'node';"), node);
    assert_eq!(state_sql(&state, "SELECT COUNT(*) FROM bans;"), "3");
}

/// A million bans come back before the first question is answered.
#[test]
fn many_bans_are_back_soon() {
    let Some(sqlite) = Sqlite::start() else { return };
    const COUNT: u64 = 200_000;
    let state = Directory::new();
    let config = keeping(&state).set("ban.max_tracked", 1_000_000).set("log.level", "warn");
    Server::start(config.clone()).stop();
    let _ = sqlite.driver();
    state_sql(
        &state,
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {COUNT})
             INSERT INTO bans (node, run, serial, ip_address, pattern, severity, failures, offences, banned_at, expires_at)
             SELECT 1, 0, i, '10.' || (i >> 16) || '.' || (i >> 8 & 255) || '.' || (i & 255), 'dovecot-login', 3, 5, 2,
                 unixepoch() * 1000 - i % 1000, unixepoch() * 1000 + 3600000 FROM n;"
        ),
    );
    let begun = Instant::now();
    let server = Server::start(config);
    let took = begun.elapsed();
    assert_eq!(server.status("10.0.0.1"), 403);
    record(&format!("{COUNT} bans are back {took:?} after the start"));
    server.wait_for_bans_everywhere(COUNT);
    assert!(took < DEADLINE);
}

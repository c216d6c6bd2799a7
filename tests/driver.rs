//! Which event loop the program runs on: io_uring where it can be had, epoll where not, and the same service on both.

mod harness;

use harness::limits::{Limit, has_io_uring};
use harness::{Config, Http, Server, failed_login, skip, wait_for};
use std::io::{ErrorKind, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the kernel's default was for decades: far too little for a ring for each shard.
const LOW_MEMORY: Limit = Limit::LockedMemory(64 << 10);

/// Checks that the server runs on `driver`, and says so in the log and in a metric.
#[track_caller]
fn assert_driver(server: &Server, driver: &str) {
    let started = server.wait_for_log("the start", |line| harness::says(line, "started"));
    assert_eq!(started["driver"], driver, "{}", server.text());
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_driver_info", &[]), 1);
    assert_eq!(metrics.get("fail2ban_driver_info", &[("driver", driver)]), 1);
}

/// Lines in the log that tell of epoll instead of io_uring, and why.
fn remarks(server: &Server) -> Vec<String> {
    let log = server.log();
    let messages = log.iter().filter(|line| line["level"] == "WARN").filter_map(|line| line["message"].as_str());
    messages.filter(|message| message.contains("running on epoll")).map(str::to_owned).collect()
}

/// From lines over UDP and TCP to a refusal on every shard, and the end of the ban.
#[track_caller]
fn assert_bans(server: &Server) {
    server.send_udp([failed_login("192.0.2.1"), failed_login("192.0.2.1")]);
    server.fail("192.0.2.1", 2);
    server.wait_for_failures(4);
    assert_eq!(server.status("192.0.2.1"), 200);
    server.send_tcp([failed_login("192.0.2.1")]);
    server.wait_for_ban("192.0.2.1", 1);
    wait_for("the ban on every shard", || {
        let held = server.metrics().by_shard("fail2ban_shard_replica_bans", &[]);
        held.iter().all(|held| *held == 1).then_some(())
    });
    wait_for("every shard to answer", || {
        assert_eq!(server.status("192.0.2.1"), 403);
        assert_eq!(server.status("192.0.2.2"), 200);
        let answered = server.metrics().by_shard("fail2ban_shard_questions_total", &[]);
        answered.iter().all(|answered| *answered > 0).then_some(())
    });
    // Reloading and ending go through the same loops.
    server.reload(&server.config.clone().set("ban.whitelist", "[192.0.2.1]"));
    server.wait_for_status("192.0.2.1", 200);
}

/// One connection sends lines and another asks questions as fast as they are taken; others must not notice.
#[track_caller]
fn assert_nobody_starves(server: &Server) {
    let stop = Arc::new(AtomicBool::new(false));
    // Bytes are offered, and what does not fit now is offered again; whoever floods never waits for long.
    let flood = |to: std::net::SocketAddr, bytes: Vec<u8>, reads: bool| {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(to).expect("a connection");
            stream.set_write_timeout(Some(Duration::from_millis(100))).expect("an option of every socket");
            let reader = reads.then(|| {
                let mut stream = stream.try_clone().expect("a second handle");
                std::thread::spawn(move || drop(std::io::copy(&mut stream, &mut std::io::sink())))
            });
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                match stream.write(&bytes[sent % bytes.len()..]) {
                    Ok(more) => sent += more,
                    Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(why) => panic!("the flood was cut off after {sent} bytes: {why}"),
                }
            }
            drop(stream.shutdown(std::net::Shutdown::Both));
            if let Some(reader) = reader {
                reader.join().expect("a thread that only reads");
            }
            sent
        })
    };
    let line = format!("{}\n", failed_login("198.51.100.1"));
    let question = "GET /auth HTTP/1.1\r\nX-Real-IP: 198.51.100.1\r\n\r\n";
    let floods = [
        flood(server.config.syslog, line.repeat(500).into_bytes(), false),
        flood(server.config.nginx, question.repeat(500).into_bytes(), true),
    ];
    wait_for("the flood", || {
        let metrics = server.metrics();
        let questions = metrics.get("fail2ban_requests_total", &[("result", "denied")]);
        let frames = metrics.get("fail2ban_syslog_received_total", &[("transport", "tcp")]);
        (questions > 10_000 && frames > 10_000).then_some(())
    });
    // As many on each shard, so some share one with the floods.
    let mut kept: Vec<Http> = (0..6).map(|_| Http::connect(server.config.nginx).expect("a connection")).collect();
    for round in 0..20 {
        for http in &mut kept {
            assert_eq!(http.auth("192.0.2.9").expect("an answer during the flood").status, 200);
        }
        let client = format!("203.0.113.{round}");
        server.fail(&client, 3);
        server.send_udp([failed_login(&client), failed_login(&client)]);
        server.wait_for_status(&client, 403);
    }
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        assert!(flood.join().expect("a thread that only writes") > 0);
    }
}

/// Connections are kept, however long a slow machine takes between two questions.
fn patient() -> Config {
    Config::new().set("nginx.read_timeout", "10m")
}

#[test]
fn where_io_uring_is_forbidden_it_runs_on_epoll_and_says_so_once() {
    let server = Server::start_limited(Config::new(), &[Limit::IoUring]);
    assert_driver(&server, "epoll");
    let remarks = remarks(&server);
    assert_eq!(remarks.len(), 1, "{}", server.text());
    assert!(remarks[0].contains("Operation not permitted"), "{}", remarks[0]);
    assert!(remarks[0].contains("It is forbidden here"), "{}", remarks[0]);
    assert_bans(&server);
    server.stop();
}

#[test]
fn on_epoll_a_flood_starves_nobody() {
    let server = Server::start_limited(patient(), &[Limit::IoUring]);
    assert_driver(&server, "epoll");
    assert_nobody_starves(&server);
    server.stop();
}

#[test]
fn on_io_uring_a_flood_starves_nobody() {
    if !has_io_uring() {
        return skip("there is no io_uring here");
    }
    let server = Server::start(patient().set("runtime.driver", "io_uring"));
    assert_driver(&server, "io_uring");
    assert_nobody_starves(&server);
    server.stop();
}

#[test]
fn io_uring_by_name_where_it_is_forbidden_is_refused() {
    let config = Config::new().set("runtime.driver", "io_uring");
    let ended = Server::spawn(config, &[Limit::IoUring]).wait_for_end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.text());
    let said = ended.lines.iter().find(|line| line.starts_with("mailfail2ban: ")).expect("a sentence");
    assert!(said.contains("io_uring cannot be used: Operation not permitted"), "{said}");
    assert!(said.contains("or set runtime.driver: epoll"), "{said}");
    assert!(!ended.text().contains("listening"), "{}", ended.text());
}

#[test]
fn with_little_locked_memory_it_runs_on_epoll() {
    if !has_io_uring() {
        return skip("there is no io_uring here");
    }
    let server = Server::start_limited(Config::new().set("runtime.shards", 4), &[LOW_MEMORY]);
    assert_driver(&server, "epoll");
    let remarks = remarks(&server);
    assert_eq!(remarks.len(), 1, "{}", server.text());
    assert!(remarks[0].contains("ulimit -l ") && remarks[0].contains("LimitMEMLOCK="), "{}", remarks[0]);
    assert_bans(&server);
    server.stop();
}

#[test]
fn io_uring_by_name_with_little_locked_memory_is_refused() {
    if !has_io_uring() {
        return skip("there is no io_uring here");
    }
    let config = Config::new().set("runtime.driver", "io_uring").set("runtime.shards", 4);
    let ended = Server::spawn(config, &[LOW_MEMORY]).wait_for_end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.text());
    let said = ended.lines.iter().find(|line| line.starts_with("mailfail2ban: ")).expect("a sentence");
    assert!(said.contains("The limit on locked memory is too low for 4 rings"), "{said}");
    assert!(said.contains("ulimit -l ") && said.contains("LimitMEMLOCK="), "{said}");
    assert!(!ended.text().contains("listening"), "{}", ended.text());
}

#[test]
fn a_named_driver_is_taken_without_a_remark() {
    let server = Server::start(Config::new().set("runtime.driver", "epoll"));
    assert_driver(&server, "epoll");
    assert_eq!(remarks(&server), Vec::<String>::new());
    assert_bans(&server);
    server.stop();

    if !has_io_uring() {
        return skip("there is no io_uring here");
    }
    let server = Server::start(Config::new().set("runtime.driver", "io_uring"));
    assert_driver(&server, "io_uring");
    assert_bans(&server);
    server.stop();
}

#[test]
fn where_it_can_be_had_io_uring_is_chosen() {
    if !has_io_uring() {
        return skip("there is no io_uring here");
    }
    let server = Server::start(Config::new());
    assert_driver(&server, "io_uring");
    assert_eq!(remarks(&server), Vec::<String>::new());
    server.stop();
}

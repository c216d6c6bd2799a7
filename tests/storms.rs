//! Under attack, and when something around it is stuck: it can still be steered and ended.

#![allow(clippy::disallowed_methods, reason = "tests measure how long ending takes")]

mod harness;

use harness::limits::Limit;
use harness::{Config, Directory, Http, PROGRAM, Server, failed_login, record, says, wait_for};
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A sender of failures of ever new clients, each of whom is banned at once, for as long as it lives; over UDP or TCP.
struct Storm {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<u64>>,
}

impl Storm {
    fn begin(server: &Server, udp: bool) -> Storm {
        let stop = Arc::new(AtomicBool::new(false));
        let (to, stopped) = (server.config.syslog, Arc::clone(&stop));
        let sender = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let mut stream = (!udp).then(|| std::net::TcpStream::connect(to).expect("a connection"));
            let mut sent = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                let lines: Vec<String> = (0..64)
                    .map(|n| sent + n)
                    .map(|n| {
                        failed_login(&format!("{}.{}.{}.{}", 20 + (n >> 24), (n >> 16) & 255, (n >> 8) & 255, n & 255))
                    })
                    .collect();
                let result = match &mut stream {
                    Some(stream) => stream.write_all((lines.join("\n") + "\n").as_bytes()),
                    None => lines.iter().try_for_each(|line| socket.send_to(line.as_bytes(), to).map(drop)),
                };
                if result.is_err() {
                    break;
                }
                sent += 64;
            }
            sent
        });
        Storm { stop, sender: Some(sender) }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.take().map_or(0, |sender| sender.join().expect("a sender that only sends"))
    }
}

fn stormy() -> Config {
    Config::new().set("ban.max_attempts", 1).set("runtime.shutdown_deadline", "2s")
}

#[test]
fn a_storm_does_not_put_off_the_end() {
    for udp in [true, false] {
        let server = Server::start(stormy());
        let storm = Storm::begin(&server, udp);
        wait_for("many bans", || (server.log().iter().filter(|line| says(line, "ban")).count() > 1000).then_some(()));
        let told = Instant::now();
        server.signal(libc::SIGTERM);
        let ended = server.wait_for_end();
        let took = told.elapsed();
        let sent = storm.end();
        assert!(ended.status.success(), "{}\n{}", ended.status, ended.text());
        record(&format!("ended {took:?} after SIGTERM, udp {udp}, {sent} failures sent"));
        assert!(took < Duration::from_secs(10), "with a deadline of 2 s it took {took:?}");
    }
}

#[test]
fn it_can_be_steered_in_a_storm() {
    for driver in ["auto", "epoll"] {
        let config = stormy().set("runtime.driver", driver);
        let server = Server::start(config.clone());
        let storms = [Storm::begin(&server, true), Storm::begin(&server, false), Storm::begin(&server, false)];
        let number = server.reload(&config.clone().set("ban.whitelist", "[192.0.2.0/24]"));
        assert_eq!(number, 2);
        let answering = || server.metrics().value("fail2ban_shards_answering", &[]);
        wait_for("a scrape that both shards answer", || (answering() == 2.0).then_some(()));
        // Lines about bans may be lost in a storm, but no others.
        server.wait_for_log("the new policy", |line| {
            says(line, "policy in force on every shard") && line["policy"] == number
        });
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let asked = Instant::now();
            assert_eq!(server.status("192.0.2.1"), 200);
            slowest = slowest.max(asked.elapsed());
        }
        record(&format!("{driver}: slowest answer in a storm {slowest:?}"));
        let sent: u64 = storms.into_iter().map(Storm::end).sum();
        assert!(sent > 0);
        server.stop();
    }
}

#[test]
fn a_slow_request_is_cut_in_time_though_others_keep_the_shard_busy() {
    for driver in ["auto", "epoll"] {
        let config = Config::new().set("runtime.driver", driver).set("runtime.shards", 1);
        let server = Server::start(config.set("nginx.read_timeout", "1s"));
        let storms = [Storm::begin(&server, false), Storm::begin(&server, false), Storm::begin(&server, false)];
        let begun = Instant::now();
        let mut slow = Http::connect(server.config.nginx).expect("a connection");
        slow.send(b"GET /auth HTTP/1.1\r\n").expect("to send");
        assert_eq!(slow.read_to_end(), b"", "it gets no answer");
        let cut = begun.elapsed();
        record(&format!("{driver}: cut after {cut:?}"));
        // Its time began with the turn in which it was accepted, which may have begun a little earlier.
        assert!(cut >= Duration::from_millis(900) && cut < Duration::from_secs(8), "cut after {cut:?}");
        assert!(storms.into_iter().map(Storm::end).sum::<u64>() > 0);
        server.stop();
    }
}

#[test]
fn it_can_be_ended_as_soon_as_it_listens() {
    for shards in [1, 2, 8] {
        for _ in 0..4 {
            let server = Server::spawn(Config::new().set("runtime.shards", shards), &[]);
            server.wait_for_log("that it listens", |line| says(line, "listening"));
            let told = Instant::now();
            let ended = server.stop();
            let took = told.elapsed();
            assert!(took < Duration::from_secs(8), "the deadline is 10 s, and it took {took:?}\n{}", ended.text());
        }
    }
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nothing() {
    let directory = Directory::new();
    let config = stormy();
    directory.file("config.yaml", config.text());
    let mut command = Command::new(PROGRAM);
    command.args(["--config", "config.yaml"]).current_dir(&directory.0);
    harness::limits::apply(&mut command, &[]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the built program");
    // Held open, and not read until the program has ended.
    let mut stderr = child.stderr.take().expect("its standard error");
    let ready = || Http::connect(config.nginx).and_then(|mut http| http.get("/ready", &[]));
    wait_for("the program", || ready().is_ok_and(|answer| answer.status == 200).then_some(()));

    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    // A line of the log is some 200 bytes, and a pipe holds 64 KiB.
    let clients: Vec<String> = (0..1000).map(|n| format!("20.0.{}.{}", n >> 8, n & 255)).collect();
    let denied = |client: &String| {
        let answer = Http::connect(config.nginx).and_then(|mut http| http.auth(client)).expect("an answer");
        answer.status == 403
    };
    wait_for("bans that fill the pipe", || {
        for client in &clients {
            socket.send_to(failed_login(client).as_bytes(), config.syslog).expect("to send");
        }
        clients.iter().skip(900).all(denied).then_some(())
    });
    let mut scrape = Http::connect(config.metrics).expect("a connection");
    let metrics = scrape.get("/metrics", &[]).expect("the metrics");
    assert_eq!(metrics.status, 200);

    harness::limits::kill(child.id(), libc::SIGTERM);
    let status = wait_for("its end", || child.try_wait().expect("a child of this process"));
    assert!(status.success(), "{status}");
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("what it had written");
    assert!(text.contains("started"), "{text}");
}

#[test]
fn a_sender_that_is_no_longer_allowed_is_dismissed() {
    let config = Config::new();
    let server = Server::start(config.clone());
    let mut sender = server.connect_syslog();
    let connections = || server.metrics().value("fail2ban_shard_connections", &[("service", "syslog")]);
    wait_for("the connection", || (connections() == 1.0).then_some(()));
    server.reload(&config.on_ports_of(&server.config).set("syslog.allowed_senders", "[203.0.113.0/24]"));
    let mut rest = Vec::new();
    sender
        .read_to_end(&mut rest)
        .or_else(|fault| {
            // A reset is an end too.
            (fault.kind() == std::io::ErrorKind::ConnectionReset).then_some(0).ok_or(fault)
        })
        .expect("the connection to be closed");
    wait_for("the connection to be gone", || (connections() == 0.0).then_some(()));
    server.stop();
}

#[test]
fn after_a_crash_it_starts_again_at_once() {
    for limits in [&[][..], &[Limit::IoUring]] {
        let mut config = Config::new();
        for _ in 0..5 {
            let server = Server::start_limited(config.clone(), limits);
            config = server.config.clone();
            server.signal(libc::SIGKILL);
            assert!(!server.wait_for_end().status.success());
            // Its supervisor is quick, and it takes the same ports again.
            let again = Server::try_start(config.clone(), limits);
            match again {
                Ok(server) => drop(server.stop()),
                Err(ended) => panic!("{}\n{}", ended.status, ended.text()),
            }
        }
    }
}

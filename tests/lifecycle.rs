//! Starting, reloading and ending: all or nothing, not one failed answer, nothing lost.

#![allow(clippy::disallowed_methods, reason = "tests measure how long ending takes")]

mod harness;

use harness::limits::{CAP_NET_BIND_SERVICE, Limit, is_root, unconfirmed_bytes};
use harness::{
    Answer, Config, Http, Server, failed_login, failed_login_message, free_port, record, says, skip, wait_for,
};
use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a thread that asks all the time has seen.
#[derive(Default)]
struct Asked {
    questions: u64,
    wrong: Vec<String>,
}

/// Asks in turn about somebody who is denied and somebody who is allowed, until told to stop.
fn keep_asking(nginx: SocketAddr, stop: &AtomicBool, fresh: bool) -> Asked {
    let mut asked = Asked::default();
    let mut kept = Http::connect(nginx).expect("a connection");
    while !stop.load(Ordering::Relaxed) && asked.wrong.len() < 10 {
        let (client, status) = if asked.questions % 2 == 0 { ("203.0.113.1", 403) } else { ("192.0.2.1", 200) };
        let answer = if fresh { ask_once(nginx, client) } else { kept.auth(client) };
        asked.questions += 1;
        match answer {
            Ok(answer) if answer.status == status => {}
            other => asked.wrong.push(format!("question {} about {client}: {other:?}", asked.questions)),
        }
    }
    asked
}

/// Asks on a connection that the server closes after the answer.
fn ask_once(nginx: SocketAddr, client: &str) -> io::Result<Answer> {
    let mut http = Http::connect(nginx)?;
    let answer = http.get("/auth", &[("X-Real-IP", client), ("Connection", "close")])?;
    http.read_to_end();
    Ok(answer)
}

#[test]
fn reloading_under_load_fails_no_answer() {
    let good = [
        Config::new().set("ban.blacklist", "[203.0.113.0/24]"),
        Config::new().set("ban.blacklist", "[203.0.113.1, 198.51.100.0/24]").set("ban.max_attempts", 7),
    ];
    let server = Server::start(good[0].clone());
    let (nginx, running) = (server.config.nginx, server.config.clone());
    // What is reloaded has the ports that the server has.
    let good = good.map(|config| config.on_ports_of(&running));
    let bad = good[0].clone().set("ban.max_attempts", "zero");
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || keep_asking(nginx, &stop, n % 2 == 0))
        })
        .collect();

    let refused = |server: &Server| {
        server.log().iter().filter(|line| line["message"].as_str().is_some_and(|m| m.contains("is refused"))).count()
    };
    let begun = Instant::now();
    let (mut policies, mut rounds) = (vec![1], 0);
    while rounds < 8 || begun.elapsed() < Duration::from_secs(2) {
        for config in &good {
            policies.push(server.reload(config));
            let before = refused(&server);
            server.write_config(&bad.text());
            server.signal(libc::SIGHUP);
            wait_for("the bad configuration to be refused", || (refused(&server) == before + 1).then_some(()));
        }
        rounds += 1;
    }
    // And as fast as they can be sent; the kernel may make one of several.
    for n in 0..40 {
        server.write_config(&[&good[0], &bad, &good[1]][n % 3].text());
        server.signal(libc::SIGHUP);
    }
    policies.push(server.reload(&good[0]));
    stop.store(true, Ordering::Relaxed);

    assert!(policies.is_sorted_by(|one, next| one < next), "{policies:?}");
    let mut questions = 0;
    for thread in threads {
        let asked = thread.join().expect("a thread that asks");
        assert_eq!(asked.wrong, Vec::<String>::new());
        assert!(asked.questions > 0);
        questions += asked.questions;
    }
    // One of the burst may have been read after the last of them was written.
    wait_for("the last policy on every shard", || {
        let metrics = server.metrics();
        let last = metrics.get("fail2ban_policy_number", &[]);
        assert!(last >= *policies.last().expect("some"));
        (metrics.by_shard("fail2ban_shard_policy_number", &[]) == [last, last]).then_some(())
    });
    let metrics = server.metrics();
    let reloads = |status| metrics.get("fail2ban_config_reloads_total", &[("status", status)]);
    assert!(reloads("success") >= 2 * rounds && reloads("error") >= 2 * rounds);
    record(&format!(
        "{questions} questions answered rightly during {} reloads and {} refused ones",
        reloads("success"),
        reloads("error")
    ));
    server.stop();
}

#[test]
fn a_bad_file_is_named_with_key_and_line_and_changes_nothing() {
    let server = Server::start(Config::new().set("ban.whitelist", "[198.51.100.0/24]"));
    server.fail("192.0.2.1", 5);
    server.wait_for_ban("192.0.2.1", 1);
    let bad = server
        .config
        .clone()
        .set("ban.max_attempts", "zero")
        .set("ban.whitelist", "[10.0.0.0/8]")
        .set("ban.wait", "5m")
        .set("nginx.read_timeout", "10");
    server.write_config(&bad.text());
    server.signal(libc::SIGHUP);
    let refused = server.wait_for_log("the refusal", |line| {
        line["level"] == "ERROR" && line["message"].as_str().is_some_and(|message| message.contains("is refused"))
    });
    assert_eq!(refused["faults"], 3);
    for key in ["ban.max_attempts", "ban.wait", "nginx.read_timeout"] {
        let begins = format!("config.yaml:{}: {key}: ", bad.line_of(key));
        let named = |message: &str| message.starts_with(&begins);
        assert!(
            server.log().iter().any(|line| line["level"] == "ERROR" && line["message"].as_str().is_some_and(named)),
            "nothing begins with {begins}\n{}",
            server.text()
        );
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_config_reloads_total", &[("status", "error")]), 1);
    assert_eq!(metrics.get("fail2ban_policy_number", &[]), 1);
    assert_eq!(server.status("192.0.2.1"), 403);
    server.fail("198.51.100.1", 5);
    server.wait_for_metric("fail2ban_failures_total", &[("result", "whitelisted")], 5);

    // A file that is gone, or is no text, is refused too.
    for count in [2, 3] {
        match count {
            2 => fs::remove_file(server.directory.0.join("config.yaml")).expect("the configuration"),
            _ => drop(server.directory.file("config.yaml", b"ban:\n  max_attempts: \xff\n")),
        }
        server.signal(libc::SIGHUP);
        server.wait_for_metric("fail2ban_config_reloads_total", &[("status", "error")], count);
    }
    assert_eq!(server.status("192.0.2.1"), 403);
    assert_eq!(server.reload(&server.config), 2);
    server.stop();
}

#[test]
fn thresholds_lists_and_patterns_take_effect() {
    let server = Server::start(Config::new());
    let config = server.config.clone();
    server.fail("192.0.2.1", 2);
    server.wait_for_failures(2);
    server.reload(&config.clone().set("ban.max_attempts", 3));
    assert_eq!(server.status("192.0.2.1"), 200);
    server.fail("192.0.2.1", 1);
    assert_eq!(server.wait_for_ban("192.0.2.1", 1)["failures"], 3, "failures from before count");
    server.wait_for_status("192.0.2.1", 403);

    // On the whitelist a ban ends, and it does not come back when the whitelist goes.
    server.reload(&config.clone().set("ban.whitelist", "[192.0.2.0/24]").set("ban.blacklist", "[203.0.113.9]"));
    let unban = server.wait_for_log("the end of the ban", |line| says(line, "unban") && line["client"] == "192.0.2.1");
    assert_eq!(unban["reason"], "allowed");
    server.wait_for_status("192.0.2.1", 200);
    assert_eq!(server.status("203.0.113.9"), 403);
    server.fail("192.0.2.1", 9);
    server.wait_for_metric("fail2ban_failures_total", &[("result", "whitelisted")], 9);
    let patterns = "[{name: sshd, program: sshd, regex: '^Failed password for .* from ([0-9.]+)'}]";
    server.reload(&config.clone().set("syslog.patterns", patterns).set("ban.max_attempts", 2));
    assert_eq!(server.status("192.0.2.1"), 200);
    assert_eq!(server.status("203.0.113.9"), 200);

    // The new pattern instead of the old ones.
    let received = server.metrics().get("fail2ban_syslog_received_total", &[("transport", "tcp")]);
    server.fail("192.0.2.2", 5);
    server.wait_for_metric("fail2ban_syslog_received_total", &[("transport", "tcp")], received + 5);
    server.send_tcp(["<38>Nov 22 17:33:44 mail1 sshd[7]: Failed password for root from 192.0.2.3 port 22 ssh2"; 2]);
    assert_eq!(server.wait_for_ban("192.0.2.3", 1)["pattern"], "sshd");
    assert_eq!(server.status("192.0.2.2"), 200);
    assert_eq!(server.metrics().get("fail2ban_config_patterns_loaded", &[]), 1);

    // And the old ones again; the ban of the new one stays, by its name.
    server.reload(&config);
    server.fail("192.0.2.2", 5);
    server.wait_for_ban("192.0.2.2", 1);
    assert_eq!(server.auth("192.0.2.3").field("X-Fail2ban-Reason"), Some("sshd"));
    server.stop();
}

#[test]
fn what_needs_a_restart_is_named_and_waits_for_one() {
    let server = Server::start(Config::new());
    let other = free_port();
    server.reload(&server.config.clone().set("nginx.port", other).set("runtime.shards", 1).set("ban.max_attempts", 2));
    let warning = server.wait_for_log("the warning", |line| line["settings"].is_string());
    assert_eq!((&warning["level"], &warning["settings"]), (&"WARN".into(), &"nginx.port, runtime.shards".into()));
    assert!(Http::connect((server.config.nginx.ip(), other).into()).is_err());
    server.fail("192.0.2.1", 2);
    server.wait_for_status("192.0.2.1", 403);
    assert_eq!(server.metrics().get("fail2ban_shards", &[]), 2);
    server.stop();
}

#[test]
fn what_was_received_is_dealt_with_before_the_end() {
    // Few enough that all of it fits into the receive buffers of the kernel's defaults, whoever runs this.
    const CLIENTS: usize = 50;
    for round in 0..5 {
        let server = Server::start(Config::new());
        let lines = |network: &str| -> Vec<String> {
            (0..5).flat_map(|_| (1..=CLIENTS).map(|n| failed_login(&format!("{network}.{n}")))).collect()
        };
        let datagrams = lines("198.18.1");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut kept = server.connect_syslog();
        kept.write_all(format!("{}\n", lines("198.18.2").join("\n")).as_bytes()).expect("to send");
        for datagram in &datagrams {
            udp.send_to(datagram.as_bytes(), server.config.syslog).expect("to send");
        }
        // A connection that the program has likely not even accepted when the signal comes; and the last line has no end.
        let mut new = server.connect_syslog();
        new.write_all(lines("198.18.3").join("\n").as_bytes()).expect("to send");
        for sender in [&kept, &new] {
            wait_for("the lines to be received", || (unconfirmed_bytes(sender) == 0).then_some(()));
        }
        drop(new);
        server.signal(libc::SIGTERM);
        let ended = server.wait_for_end();
        assert!(ended.status.success(), "round {round}: {}\n{}", ended.status, ended.text());
        let bans = ended.log().into_iter().filter(|line| says(line, "ban"));
        let mut banned: Vec<String> = bans.filter_map(|line| Some(line["client"].as_str()?.to_owned())).collect();
        banned.sort_unstable();
        banned.dedup();
        let of = |network: &str| banned.iter().filter(|client| client.starts_with(network)).count();
        assert_eq!(
            (of("198.18.1."), of("198.18.2."), of("198.18.3.")),
            (CLIENTS, CLIENTS, CLIENTS),
            "round {round}: bans of senders by UDP, by a kept connection, by a new one\n{}",
            ended.text()
        );
        assert!(ended.log().iter().any(|line| says(line, "stopped")));
        drop(kept);
    }
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let server = Server::start(Config::new().set("runtime.shutdown_deadline", "20s"));
        let mut open = Vec::new();
        let mut senders = Vec::new();
        for n in 0..8 {
            let mut http = Http::connect(server.config.nginx).expect("a connection");
            match n % 3 {
                0 => {}
                1 => assert_eq!(http.auth("192.0.2.1").expect("an answer").status, 200),
                _ => http.send(b"GET /auth HTTP/1.1\r\nHost: never-").expect("to send"),
            }
            open.push(http);
            let mut sender = server.connect_syslog();
            if n % 2 == 0 {
                sender.write_all(b"<22>Nov 22 17:33:44 mail1 dovecot: half a li").expect("to send");
            }
            senders.push(sender);
        }
        wait_for("all connections to be taken", || {
            let metrics = server.metrics();
            (metrics.get("fail2ban_shard_connections", &[]) == 16).then_some(())
        });
        let begun = Instant::now();
        server.signal(signal);
        let ended = server.wait_for_end();
        assert!(ended.status.success(), "{}\n{}", ended.status, ended.text());
        assert!(begun.elapsed() < Duration::from_secs(20), "it waited for them");
        assert!(!ended.text().contains("shutdown_deadline"), "{}", ended.text());
        for mut http in open {
            http.read_to_end();
        }
    }
}

#[test]
fn a_peer_that_takes_no_answers_is_left_at_the_deadline() {
    let config = Config::new().set("runtime.shutdown_deadline", "500ms").set("nginx.write_timeout", "1h");
    let server = Server::start(config);
    let mut http = Http::connect(server.config.nginx).expect("a connection");
    // More answers than fit into the buffers of both sides: whoever does not read them stops the server's writing.
    let request = "GET /auth HTTP/1.1\r\nX-Real-IP: 192.0.2.1\r\n\r\n".repeat(1000);
    http.set_write_timeout(Duration::from_millis(200));
    let answered = || server.metrics().get("fail2ban_requests_total", &[("result", "allowed")]);
    wait_for("the server to stop reading what is not taken", || {
        let before = answered();
        let sent = http.send(request.as_bytes());
        (sent.is_err() && answered() == before && answered() == before).then_some(())
    });
    assert_eq!(server.status("192.0.2.1"), 200, "others are answered");
    server.signal(libc::SIGTERM);
    let ended = server.wait_for_end();
    assert!(ended.status.success(), "{}\n{}", ended.status, ended.text());
    assert!(ended.text().contains("not everything was finished within runtime.shutdown_deadline"), "{}", ended.text());
}

/// Checks that a start has failed for want of something that the machine does not give.
fn assert_refused(ended: &harness::Ended, sentences: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.text());
    for sentence in sentences {
        assert!(ended.lines.iter().any(|line| line.contains(sentence)), "no {sentence:?} in\n{}", ended.text());
    }
    let complaints = ended.lines.iter().filter(|line| line.starts_with("mailfail2ban: ")).count();
    assert_eq!(complaints, sentences.len(), "{}", ended.text());
    assert!(!ended.text().contains("listening"), "{}", ended.text());
}

/// Starts a server that cannot start.
fn refused(config: &Config, limits: &[Limit]) -> harness::Ended {
    Server::spawn(config.clone(), limits).wait_for_end()
}

#[test]
fn a_port_that_is_taken_is_said_and_nothing_is_started() {
    let config = Config::new();
    let tcp = TcpListener::bind(config.syslog).expect("a free port");
    let advice = format!("`ss -lnp | grep :{}` shows what. Stop it, or change syslog.address", config.syslog.port());
    let ended = refused(&config, &[]);
    let begin = format!("cannot listen on tcp {}: Address already in use", config.syslog);
    assert_refused(&ended, &[&begin]);
    assert!(ended.text().contains(&advice), "{}", ended.text());
    drop(tcp);

    let udp = UdpSocket::bind(config.syslog).expect("a free port");
    assert_refused(&refused(&config, &[]), &[&format!("cannot listen on udp {}: Address", config.syslog)]);

    // All of them together.
    let nginx = TcpListener::bind(config.nginx).expect("a free port");
    let metrics = TcpListener::bind(config.metrics).expect("a free port");
    let faults = [
        format!("cannot listen on udp {}: Address already in use", config.syslog),
        format!("cannot listen on tcp {}: Address already in use", config.nginx),
        format!("cannot listen on tcp {}: Address already in use", config.metrics),
    ];
    assert_refused(&refused(&config, &[]), &faults.each_ref().map(String::as_str));

    // And with all of them free it starts on the very same.
    drop((udp, nginx, metrics));
    Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text())).stop();
}

#[test]
fn a_second_instance_takes_nothing_from_the_first() {
    let server = Server::start(Config::new());
    let Config { syslog, spoa, envoy, nginx, metrics, .. } = server.config;
    let taken = [("udp", syslog), ("tcp", syslog), ("tcp", spoa), ("tcp", envoy), ("tcp", nginx), ("tcp", metrics)];
    let faults =
        taken.map(|(protocol, address)| format!("cannot listen on {protocol} {address}: Address already in use"));
    assert_refused(&refused(&server.config, &[]), &faults.each_ref().map(String::as_str));
    // Every line and every question still comes to the first.
    server.send_udp((0..200).map(|n| failed_login(&format!("192.0.2.{}", n % 40))));
    server.wait_for_metric("fail2ban_bans_total", &[], 40);
    for n in 0..40 {
        server.wait_for_status(&format!("192.0.2.{n}"), 403);
    }
    server.stop();
}

#[test]
fn an_address_of_another_machine_is_said() {
    let config = Config::new().set("syslog.address", "'192.0.2.1:5514'").set("syslog.protocol", "tcp");
    assert_refused(&refused(&config, &[]), &["this machine does not have that address; `ip address` shows"]);
}

#[test]
fn a_port_below_1024_without_privilege_is_said() {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let first: u16 = first.trim().parse().unwrap_or(1024);
    if first < 1024 {
        return skip(&format!("here ports from {first} on need no privilege"));
    }
    let config = Config::new().set("syslog.address", "'127.0.0.1:1021'").set("syslog.protocol", "tcp");
    let ended = refused(&config, &[Limit::Capability(CAP_NET_BIND_SERVICE)]);
    assert_refused(&ended, &["ports below 1024 need a privilege; give the program CAP_NET_BIND_SERVICE, or change"]);
    if is_root() {
        // The test would show nothing if it were refused anyway.
        Server::start(config).stop();
    }
}

#[test]
fn a_configuration_with_faults_starts_nothing() {
    let config = Config::new().set("ban.max_attempts", 0).set("ban.wait", "5m");
    let ended = refused(&config, &[]);
    assert_eq!(ended.status.code(), Some(2));
    for key in ["ban.max_attempts", "ban.wait"] {
        let begins = format!("mailfail2ban: config.yaml:{}: {key}: ", config.line_of(key));
        assert!(ended.lines.iter().any(|line| line.starts_with(&begins)), "{}", ended.text());
    }
    assert!(ended.text().contains("2 faults in the configuration"), "{}", ended.text());
    assert!(TcpListener::bind(config.nginx).is_ok());
}

#[test]
fn it_starts_again_at_once_on_ports_that_had_connections() {
    let mut server = Server::start(Config::new());
    for _ in 0..3 {
        let mut kept = Http::connect(server.config.nginx).expect("a connection");
        let message = failed_login_message("192.0.2.1", 5);
        server.send_tcp([format!("<22>dovecot: {message}")]);
        wait_for("the ban", || (kept.auth("192.0.2.1").expect("an answer").status == 403).then_some(()));
        let config = server.config.clone();
        server.stop();
        server = Server::try_start(config, &[]).unwrap_or_else(|ended| panic!("{}", ended.text()));
    }
    server.stop();
}

/// What is told of where settings come from, on the port of nginx.
#[test]
fn the_source_of_the_settings_and_the_state_of_the_database_are_told() {
    let server = Server::start(Config::new());
    let mut http = Http::connect(server.config.nginx).expect("a connection");
    for (path, key, value) in [
        ("/config/source", "patterns_source", serde_json::json!("file")),
        ("/database/status", "enabled", serde_json::json!(false)),
    ] {
        let answer = http.get(path, &[]).expect("an answer");
        assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("application/json")), "{answer:?}");
        let document: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(document[key], value, "{document}");

        http.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes())
            .expect("a request");
        let refused = http.answer().expect("an answer");
        assert_eq!((refused.status, refused.field("Allow")), (405, Some("GET, HEAD")), "{refused:?}");

        let mut head = Http::connect(server.config.nginx).expect("a connection");
        head.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
            .expect("a request");
        let text = String::from_utf8(head.read_to_end()).expect("text");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(text.contains(&format!("\r\nContent-Length: {}\r\n", answer.body.len())), "{text}");
    }
    server.stop();
}

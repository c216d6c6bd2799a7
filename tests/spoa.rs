//! HAProxy's questions, frame by frame. That the real HAProxy gets on with the answers is shown in `haproxy.rs`.

mod harness;

use harness::spop::{Engine, Said, Value, frame, hello, notify};
use harness::{Config, Server, failed_login, wait_for};
use std::net::IpAddr;
use std::time::Duration;

fn ip(text: &str) -> Value {
    Value::Ip(text.parse::<IpAddr>().expect("an address"))
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn disconnects(server: &Server, by: &str, status: &str) -> u64 {
    server.metrics().get("fail2ban_spoa_disconnects_total", &[("by", by), ("status", status)])
}

fn asked(server: &Server, result: &str) -> u64 {
    server.metrics().get("fail2ban_requests_total", &[("service", "spoa"), ("result", result)])
}

#[test]
fn an_answer_says_who_is_banned_why_and_for_how_long() {
    let lists = Config::new().set("ban.blacklist", "[203.0.113.0/24]").set("ban.whitelist", "[198.51.100.1]");
    let server = Server::start(lists);
    for client in ["192.0.2.7", "2001:db8:1:2::7", "198.51.100.1"] {
        server.fail(client, 5);
    }
    server.wait_for_ban("192.0.2.7", 1);
    server.wait_for_ban("2001:db8:1:2::/64", 1);
    server.wait_for_status("192.0.2.7", 403);
    let mut engine = Engine::open(server.config.spoa).expect("an agent");

    let said = engine.ask(&[("src", ip("192.0.2.7"))]);
    assert!(said.banned());
    let Said::Ack { variables, .. } = said else { unreachable!() };
    assert_eq!(
        (&variables["sess.reason"], &variables["sess.pattern"]),
        (&text("dovecot-login"), &text("dovecot-login"))
    );
    assert_eq!(variables["sess.severity"], Value::Int(3));
    assert!(matches!(variables["sess.expires_in"], Value::Int(240..=300)), "{variables:?}");
    assert_eq!(variables.len(), 6, "{variables:?}");

    let Said::Ack { variables, .. } = engine.ask(&[("src", ip("203.0.113.9"))]) else { unreachable!() };
    assert_eq!((&variables["txn.banned"], &variables["sess.reason"]), (&Value::Int(1), &text("blacklist")));
    assert_eq!(variables.len(), 3, "for good, and for no pattern: {variables:?}");

    let Said::Ack { variables, .. } = engine.ask(&[("src", ip("192.0.2.8"))]) else { unreachable!() };
    assert_eq!(variables.len(), 2, "{variables:?}");

    for (arguments, banned) in [
        (&[("ip", ip("192.0.2.7"))][..], true),
        (&[("SRC_IP", ip("::ffff:192.0.2.7"))], true),
        (&[("client_ip", text("192.0.2.7"))], true),
        (&[("client_ip", text("[2001:db8:1:2::8]:4711"))], true),
        (&[("src", ip("2001:db8:1:3::7"))], false),
        (&[("src", ip("198.51.100.1"))], false),
        // Whoever is named is asked about, and one is enough.
        (&[("src", ip("192.0.2.8")), ("client_ip", text("192.0.2.7"))], true),
        (&[("src", ip("192.0.2.7")), ("client_ip", text("192.0.2.8"))], true),
        (&[("src", Value::Null), ("ip", ip("192.0.2.7"))], true),
        // An argument of another name only where none has one of those.
        (&[("whoever", Value::Int(7)), ("x", ip("192.0.2.7"))], true),
        (&[("x", ip("192.0.2.7")), ("src", ip("192.0.2.8"))], false),
    ] {
        assert_eq!(engine.ask(arguments).banned(), banned, "{arguments:?}");
    }
    let unknown = asked(&server, "unknown");
    for arguments in [&[][..], &[("src", Value::Null)], &[("src", text("nobody"))], &[("x", Value::Int(1))]] {
        assert!(!engine.ask(arguments).banned(), "who is not known is let in");
    }
    assert_eq!(asked(&server, "unknown") - unknown, 4);

    // Several messages in one frame, and none at all: one answer each.
    let both = [("a", &[("src", ip("192.0.2.8"))][..]), ("b", &[("src", ip("192.0.2.7"))][..])];
    engine.send(&notify(0, 1, &both)).expect("to ask");
    engine.send(&notify(470, 2, &[])).expect("to ask");
    let said = engine.read().expect("an answer").expect("an answer");
    assert!(matches!(said, Said::Ack { stream: 0, frame: 1, .. }) && said.banned());
    let said = engine.read().expect("an answer").expect("an answer");
    assert!(matches!(said, Said::Ack { stream: 470, frame: 2, .. }) && !said.banned());
}

#[test]
fn thousands_of_questions_in_flight_are_each_answered_on_either_driver() {
    for driver in ["auto", "epoll"] {
        let server = Server::start(Config::new().set("runtime.driver", driver));
        // Over UDP, so that both shards receive them; counted by the owners, answered by everybody.
        let banned = (0..100).map(|n| format!("192.0.2.{n}"));
        server.send_udp(banned.flat_map(|client| std::iter::repeat_n(failed_login(&client), 5)));
        server.wait_for_bans_everywhere(100);
        let mut engines: Vec<Engine> = (0..2).map(|_| Engine::open(server.config.spoa).expect("an agent")).collect();
        assert_eq!(server.metrics().by_shard("fail2ban_shard_connections", &[("service", "spoa")]), [1, 1]);
        for engine in &mut engines {
            let question = |n: u64| notify(n, 1, &[("check", &[("src", ip(&format!("192.0.2.{}", n % 200)))])]);
            let burst: Vec<u8> = (0..5000).flat_map(question).collect();
            engine.send(&burst).expect("to ask");
            for n in 0..5000 {
                let said = engine.read().expect("an answer").expect("an answer");
                assert!(matches!(said, Said::Ack { stream, frame: 1, .. } if stream == n), "{n}: {said:?}");
                assert_eq!(said.banned(), n % 200 < 100, "{n}");
            }
        }
        assert_eq!((asked(&server, "denied"), asked(&server, "allowed")), (5000, 5000));
        assert_eq!(server.metrics().by_shard("fail2ban_shard_questions_total", &[]), [5000, 5000]);
    }
}

#[test]
fn a_health_check_is_answered_and_closed() {
    let server = Server::start(Config::new());
    let mut engine = Engine::connect(server.config.spoa).expect("an agent");
    engine.send(&hello(true)).expect("to greet");
    let Some(Said::Hello(items)) = engine.read().expect("an answer") else { panic!("no hello") };
    assert_eq!(items["version"], text("2.0"));
    assert_eq!((&items["max-frame-size"], &items["capabilities"]), (&Value::Int(16_380), &text("pipelining")));
    assert_eq!(engine.read().expect("the end"), None);
}

#[test]
fn who_says_nothing_is_told_that_time_is_up() {
    let server = Server::start(Config::new().set("spoa.read_timeout", "500ms"));
    // One that never greets, one that greets, one that dribbles.
    let mut silent = Engine::connect(server.config.spoa).expect("an agent");
    let mut idle = Engine::open(server.config.spoa).expect("an agent");
    let mut slow = Engine::open(server.config.spoa).expect("an agent");
    let question = notify(1, 1, &[("check", &[("src", ip("192.0.2.7"))])]);
    let mut dribbled = question.iter().cycle().take(question.len() - 1);
    slow.set_read_timeout(Duration::from_millis(50));
    let said = wait_for("the dribbled question to be cut", || {
        if let Some(byte) = dribbled.next() {
            // It may have been closed already.
            drop(slow.send(&[*byte]));
        }
        slow.read().ok().flatten()
    });
    assert!(matches!(said, Said::Disconnect { status: 2, .. }), "{said:?}");
    for engine in [&mut silent, &mut idle] {
        let said = engine.read().expect("last words").expect("last words");
        assert!(matches!(said, Said::Disconnect { status: 2, .. }), "{said:?}");
        assert_eq!(engine.read().expect("the end"), None);
    }
    server.wait_for_metric("fail2ban_connections_total", &[("service", "spoa"), ("event", "timed_out")], 3);
    assert_eq!(disconnects(&server, "agent", "2"), 3);
    wait_for("everybody to be gone", || {
        (server.metrics().by_shard("fail2ban_shard_connections", &[("service", "spoa")]) == [0, 0]).then_some(())
    });
}

#[test]
fn a_peer_that_keeps_asking_is_not_cut() {
    let server = Server::start(Config::new().set("spoa.read_timeout", "600ms"));
    let mut engine = Engine::open(server.config.spoa).expect("an agent");
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        assert!(!engine.banned("192.0.2.7"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_server_that_ends_says_so() {
    let server = Server::start(Config::new());
    let mut engine = Engine::open(server.config.spoa).expect("an agent");
    // Asked just before, and answered.
    engine.send(&notify(7, 1, &[("check", &[("src", ip("192.0.2.7"))])])).expect("to ask");
    assert!(!engine.read().expect("an answer").expect("an answer").banned());
    server.stop();
    let said = engine.read().expect("last words").expect("last words");
    assert!(matches!(said, Said::Disconnect { status: 0, .. }), "{said:?}");
    assert_eq!(engine.read().expect("the end"), None);
}

/// Linux delivers what comes after the reading side was shut down: who never stops asking is cut all the same.
#[test]
fn a_peer_that_never_stops_does_not_hold_up_the_end() {
    for driver in ["auto", "epoll"] {
        let server = Server::start(Config::new().set("runtime.driver", driver));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut engine = Engine::open(server.config.spoa).expect("an agent");
                let burst: Vec<u8> =
                    (0..500).flat_map(|n| notify(n, 1, &[("check", &[("src", ip("192.0.2.7"))])])).collect();
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) && engine.send(&burst).is_ok() {
                        for _ in 0..500 {
                            match engine.read() {
                                Ok(Some(Said::Ack { .. })) => {}
                                _ => return,
                            }
                        }
                    }
                });
            }
            wait_for("many questions", || (asked(&server, "allowed") > 20_000).then_some(()));
            let ended = server.stop();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(!ended.text().contains("not everything was finished"), "{}", ended.text());
        });
    }
}

#[test]
fn what_is_no_frame_is_refused_with_its_code_and_costs_only_itself() {
    let server = Server::start(Config::new());
    let mut good = Engine::open(server.config.spoa).expect("an agent");
    let refusals: [(&[u8], u64); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", 3),
        (&frame(3, 1, 1, b""), 4),
        (&frame(1, 0, 0, b""), 5),
        (&[0, 0, 0, 1, 3], 4),
        (&[0xff; 64], 3),
    ];
    for (bytes, code) in refusals {
        let mut bad = Engine::connect(server.config.spoa).expect("an agent");
        bad.send(bytes).expect("to send");
        let said = bad.read().expect("a refusal").expect("a refusal");
        assert!(matches!(said, Said::Disconnect { status, .. } if status == code), "{bytes:02x?}: {said:?}");
        assert!(!matches!(bad.read(), Ok(Some(_))), "nothing more");
        assert!(!good.banned("192.0.2.7"));
    }
    assert_eq!(asked(&server, "refused"), 5);
    assert_eq!((disconnects(&server, "agent", "3"), disconnects(&server, "agent", "4")), (2, 2));

    // HAProxy's goodbye, with its reason.
    let mut goodbye = Vec::new();
    goodbye.extend(b"\x0bstatus-code\x03\x02\x07message\x08\x12a timeout occurred");
    good.send(&frame(2, 0, 0, &goodbye)).expect("to say goodbye");
    assert!(matches!(good.read().expect("its answer"), Some(Said::Disconnect { status: 0, .. })));
    assert_eq!(good.read().expect("the end"), None);
    assert_eq!(disconnects(&server, "haproxy", "2"), 1);
}

#[test]
fn connections_beyond_max_clients_are_closed_and_counted() {
    let server = Server::start(Config::new().set("spoa.max_clients", 2));
    let mut first: Vec<Engine> = (0..2).map(|_| Engine::open(server.config.spoa).expect("an agent")).collect();
    for _ in 0..3 {
        assert!(Engine::open(server.config.spoa).is_err());
    }
    server.wait_for_metric("fail2ban_connections_total", &[("service", "spoa"), ("event", "refused")], 3);
    assert!(first.iter_mut().all(|engine| !engine.banned("192.0.2.7")));
    drop(first);
    wait_for("room", || Engine::open(server.config.spoa).ok());
}

#[test]
fn it_can_be_switched_off() {
    let server = Server::start(Config::new().set("spoa.enabled", "false"));
    assert!(Engine::connect(server.config.spoa).is_err());
    assert_eq!(server.status("192.0.2.7"), 200);
}

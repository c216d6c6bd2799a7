//! Envoy's questions, call by call, asked with a client of HTTP/2. That the real Envoy gets on with the answers is shown
//! in `envoy.rs`.

mod harness;

use bytes::Bytes;
use harness::grpc::{CHECK, Caller, HEALTH_CHECK, HEALTH_WATCH, field, question, run};
use harness::{Config, DEADLINE, Server, failed_login, wait_for};
use http::{Request, StatusCode};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn asked(server: &Server, result: &str) -> u64 {
    server.metrics().get("fail2ban_requests_total", &[("service", "envoy"), ("result", result)])
}

#[test]
fn an_answer_says_who_is_banned_why_and_for_how_long() {
    let lists = Config::new()
        .set("ban.blacklist", "[203.0.113.0/24]")
        .set("ban.whitelist", "[198.51.100.1]")
        .set("envoy.trusted_proxies", "[10.0.0.0/8]");
    let server = Server::start(lists);
    for client in ["192.0.2.7", "2001:db8:1:2::7", "198.51.100.1"] {
        server.fail(client, 5);
    }
    server.wait_for_ban("192.0.2.7", 1);
    server.wait_for_ban("2001:db8:1:2::/64", 1);
    server.wait_for_status("192.0.2.7", 403);
    server.wait_for_status("2001:db8:1:2::1", 403);
    run(async {
        let caller = Caller::connect(server.config.envoy).await;
        let denied = caller.call(CHECK, &question("192.0.2.7", &[])).await.expect("an answer");
        assert!(!denied.allows());
        for text in
            ["x-fail2ban-status", "x-fail2ban-ip", "192.0.2.7", "x-fail2ban-reason", "dovecot-login", "retry-after"]
        {
            assert!(denied.says(text), "{text}: {denied:?}");
        }
        assert!(denied.says(r#"{"status":"denied","ip":"192.0.2.7","reason":"dovecot-login","retry_after":"#));

        let blocked = caller.call(CHECK, &question("203.0.113.9", &[])).await.expect("an answer");
        assert!(!blocked.allows() && blocked.says(r#""reason":"blacklist","retry_after":null}"#), "{blocked:?}");
        assert!(!blocked.says("retry-after"));

        for (client, allowed) in [
            ("192.0.2.8", true),
            ("::ffff:192.0.2.7", false),
            ("2001:db8:1:2:ffff::1", false),
            ("2001:db8:1:3::1", true),
            ("198.51.100.1", true),
        ] {
            assert_eq!(caller.allows(client).await, allowed, "{client}");
        }
        // Only from a trusted proxy, and from the right.
        for (source, forwarded, allowed) in [
            ("192.0.2.8", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("10.0.0.1", "192.0.2.7", false),
            ("10.0.0.1", "192.0.2.7, 192.0.2.8", true),
            ("10.0.0.1", "192.0.2.8, 192.0.2.7,10.9.9.9", false),
        ] {
            let message = question(source, &[("x-forwarded-for", forwarded), ("cookie", "a=b")]);
            let answer = caller.call(CHECK, &message).await.expect("an answer");
            assert_eq!(answer.allows(), allowed, "{source} {forwarded}");
        }
    });
    let unknown = asked(&server, "unknown");
    run(async {
        let caller = Caller::connect(server.config.envoy).await;
        for nobody in [&b""[..], &question("", &[]), &question("a.example", &[])] {
            assert!(caller.call(CHECK, nobody).await.expect("an answer").allows(), "who is not known is let in");
        }
        let message = question("10.0.0.1", &[("x-forwarded-for", "unknown")]);
        assert!(caller.call(CHECK, &message).await.expect("an answer").allows());
    });
    assert_eq!(asked(&server, "unknown") - unknown, 4);
}

#[test]
fn many_calls_at_once_are_each_answered_on_either_driver() {
    for driver in ["auto", "epoll"] {
        let server = Server::start(Config::new().set("runtime.driver", driver));
        let banned = (0..100).map(|n| format!("192.0.2.{n}"));
        server.send_udp(banned.flat_map(|client| std::iter::repeat_n(failed_login(&client), 5)));
        server.wait_for_bans_everywhere(100);
        run(async {
            let callers = [Caller::connect(server.config.envoy).await, Caller::connect(server.config.envoy).await];
            let mut calls = tokio::task::JoinSet::new();
            for caller in &callers {
                for n in 0..1000 {
                    let caller = caller.clone();
                    calls.spawn(async move {
                        assert_eq!(caller.allows(&format!("192.0.2.{}", n % 200)).await, n % 200 >= 100, "{n}");
                    });
                }
            }
            while let Some(call) = calls.join_next().await {
                call.expect("a right answer");
            }
        });
        assert_eq!((asked(&server, "denied"), asked(&server, "allowed")), (1000, 1000));
        assert_eq!(server.metrics().by_shard("fail2ban_shard_questions_total", &[]), [1000, 1000]);
    }
}

#[test]
fn health_is_told_and_what_is_not_spoken_is_refused() {
    let server = Server::start(Config::new());
    run(async {
        let caller = Caller::connect(server.config.envoy).await;
        let serving = [8, 1];
        for service in [&b""[..], b"envoy.service.auth.v3.Authorization"] {
            let answer = caller.call(HEALTH_CHECK, &field(1, service)).await.expect("an answer");
            assert_eq!((answer.grpc_status(), &answer.message[..]), ("0", &serving[..]));
        }
        let unknown = caller.call(HEALTH_CHECK, &field(1, b"other")).await.expect("an answer");
        assert_eq!(unknown.grpc_status(), "5");
        let unimplemented = caller.call("/envoy.service.auth.v2.Authorization/Check", b"").await.expect("an answer");
        assert_eq!((unimplemented.status, unimplemented.grpc_status()), (StatusCode::OK, "12"));
        let other = caller.send(CHECK, "text/plain", b"hello".to_vec()).await.expect("an answer");
        assert_eq!(other.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let malformed = caller.call(CHECK, b"\xff\xff\xff").await.expect("an answer");
        assert_eq!(malformed.grpc_status(), "13");
        let long = caller.send(CHECK, "application/grpc", [&[0, 0, 80, 0, 0][..], &[0; 16]].concat()).await;
        assert_eq!(long.expect("an answer").grpc_status(), "8");
        assert!(caller.allows("192.0.2.7").await, "and the connection goes on");
    });
    assert_eq!((asked(&server, "other"), asked(&server, "refused")), (3, 4));
    let refused = |reason| server.metrics().get("fail2ban_envoy_refused_total", &[("reason", reason)]);
    assert_eq!(["unknown_method", "content_type", "malformed", "too_long"].map(refused), [1; 4]);
}

/// A client of Envoy can make its question long, by headers and, where they are passed on, by bodies. That must not have
/// it let in, nor those who are asked about on the same connection.
#[test]
fn long_questions_are_answered_by_their_front() {
    let server = Server::start(Config::new().set("ban.blacklist", "[192.0.2.7]"));
    run(async {
        let caller = Caller::connect(server.config.envoy).await;
        // attributes, to which the body belongs (request.http.raw_body), behind who is asked about.
        let long = |bytes: usize| {
            let body = vec![b'x'; bytes];
            [
                question("192.0.2.7", &[]),
                field(1, &field(4, &field(2, &[vec![0x62], field(0, &body)[1..].to_vec()].concat()))),
            ]
            .concat()
        };
        for bytes in [60_000, 900_000, 3_000_000] {
            let answer = caller.call(CHECK, &long(bytes)).await.expect("an answer");
            assert!(!answer.allows(), "{bytes}");
        }
        // Many at once, of which together more than is kept, and too long ones.
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..40 {
            let (caller, message) = (caller.clone(), long(if n % 4 == 0 { 5_000_000 } else { 1_500_000 }));
            calls.spawn(async move { caller.call(CHECK, &message).await.expect("an answer").grpc_status().to_owned() });
        }
        for _ in 0..100 {
            assert!(!caller.allows("192.0.2.7").await, "meanwhile");
        }
        let mut statuses = Vec::new();
        while let Some(status) = calls.join_next().await {
            statuses.push(status.expect("an answer"));
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [vec!["0"; 30], vec!["8"; 10]].concat());
    });
    let metrics = server.metrics();
    assert_eq!(
        metrics.get("fail2ban_envoy_refused_total", &[]),
        10,
        "{}",
        metrics.show("fail2ban_envoy_refused_total")
    );
}

/// Who comes while the program starts is not told for good that it does not serve.
#[test]
fn a_watcher_hears_that_it_serves_from_the_start() {
    let mut server = Server::spawn(Config::new(), &[]);
    run(async {
        let stream = loop {
            match tokio::net::TcpStream::connect(server.config.envoy).await {
                Ok(stream) => break stream,
                Err(_) => assert!(server.is_running(), "{}", server.text()),
            }
        };
        let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = Request::post(format!("http://authz{HEALTH_WATCH}")).header("content-type", "application/grpc");
        let mut send = send.ready().await.expect("room");
        let (response, mut stream) = send.send_request(request.body(()).expect("a request"), false).expect("to ask");
        stream.send_data(Bytes::from_static(&[0; 5]), true).expect("to ask");
        let mut told = response.await.expect("an answer").into_body();
        assert_eq!(told.data().await.expect("a status").expect("a status")[..], [0, 0, 0, 0, 2, 8, 1]);
    });
    server.stop();
}

#[test]
fn what_is_no_http2_is_closed_and_counted() {
    let server = Server::start(Config::new());
    for bytes in
        [&b"GET /auth HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03zzzzzzzzzzzz"]
    {
        let mut stream = TcpStream::connect(server.config.envoy).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option of every socket");
        stream.write_all(bytes).expect("to send");
        // A reset is an end too.
        drop(stream.read_to_end(&mut Vec::new()));
    }
    server.wait_for_metric("fail2ban_envoy_refused_total", &[("reason", "not_http2")], 2);
}

#[test]
fn a_connection_may_rest_but_not_dawdle() {
    let server = Server::start(Config::new().set("envoy.read_timeout", "500ms"));
    run(async {
        let caller = Caller::connect(server.config.envoy).await;
        assert!(caller.allows("192.0.2.7").await);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(caller.allows("192.0.2.7").await, "it has rested for three times the limit");
        // A message that never ends.
        let request = Request::post(format!("http://authz{CHECK}")).header("content-type", "application/grpc");
        let mut send = caller.0.clone().ready().await.expect("room");
        let (response, mut stream) = send.send_request(request.body(()).expect("a request"), false).expect("to ask");
        stream.send_data(Bytes::from_static(&[0, 0, 0, 1, 0, 1, 2, 3]), false).expect("to begin");
        assert!(response.await.is_err(), "and the connection ends");
    });
    // One that never begins, one that greets and then asks nothing, and some that ask and then stop in the middle: of a
    // frame's head, of a header block.
    let open = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_bytes();
    // Not a call that is served, but one that is answered: HPACK's numbers of POST, http, /.
    let asked = [open, b"\0\0\x03\x01\x05\0\0\0\x01\x83\x86\x84"].concat();
    let half_head = [&asked[..], b"\0\0\x03\x01"].concat();
    let half_block = [&asked[..], b"\0\0\x03\x01\0\0\0\0\x03\x83\x86\x84"].concat();
    for greeting in [&b""[..], open, &half_head, &half_block] {
        let mut silent = TcpStream::connect(server.config.envoy).expect("a connection");
        silent.set_read_timeout(Some(DEADLINE)).expect("an option of every socket");
        silent.write_all(greeting).expect("to greet");
        drop(silent.read_to_end(&mut Vec::new()));
    }
    server.wait_for_metric("fail2ban_connections_total", &[("service", "envoy"), ("event", "timed_out")], 5);
    wait_for("everybody to be gone", || {
        (server.metrics().by_shard("fail2ban_shard_connections", &[("service", "envoy")]) == [0, 0]).then_some(())
    });
}

#[test]
fn a_server_that_ends_says_so_and_answers_what_is_under_way() {
    for driver in ["auto", "epoll"] {
        let server = Server::start(Config::new().set("runtime.driver", driver));
        let envoy = server.config.envoy;
        run(async move {
            let (caller, connection) = Caller::connect_watched(envoy).await;
            let watch = Request::post(format!("http://authz{HEALTH_WATCH}")).header("content-type", "application/grpc");
            let mut send = caller.0.clone().ready().await.expect("room");
            let (response, mut stream) = send.send_request(watch.body(()).expect("a request"), false).expect("to ask");
            stream.send_data(Bytes::from_static(&[0; 5]), true).expect("to ask");
            let mut told = response.await.expect("an answer").into_body();
            assert_eq!(told.data().await.expect("a status").expect("a status")[..], [0, 0, 0, 0, 2, 8, 1]);

            // Half of a question, and the server is told to end.
            let message = question("192.0.2.7", &[]);
            let message = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
            let (first, second) = message.split_at(20);
            let request = Request::post(format!("http://authz{CHECK}")).header("content-type", "application/grpc");
            let mut send = caller.0.clone().ready().await.expect("room");
            let (response, mut stream) =
                send.send_request(request.body(()).expect("a request"), false).expect("to ask");
            stream.send_data(Bytes::copy_from_slice(first), false).expect("to begin");
            assert!(caller.allows("192.0.2.8").await, "so that it has arrived");
            server.signal(libc::SIGTERM);
            assert_eq!(
                told.data().await.expect("a status").expect("a status")[..],
                [0, 0, 0, 0, 2, 8, 2],
                "NOT_SERVING"
            );
            stream.send_data(Bytes::copy_from_slice(second), true).expect("to go on");
            assert_eq!(response.await.expect("an answer").status(), StatusCode::OK, "what was under way is answered");
            // GOAWAY without a fault: no new calls, and the connection is at its end.
            let end = connection.await.expect("a task that does not panic");
            assert!(end.is_ok(), "{end:?}");
            let ended = tokio::task::spawn_blocking(move || server.wait_for_end()).await.expect("an end");
            assert!(ended.status.success(), "{}", ended.text());
            assert!(!ended.text().contains("not everything was finished"), "{}", ended.text());
        });
    }
}

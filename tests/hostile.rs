//! What hostile or broken peers send: it costs them their own record or connection, is counted, and nothing else.

#![allow(clippy::disallowed_methods, reason = "tests measure when a slow peer is cut off")]

mod harness;

use harness::limits::{Limit, reset_on_drop};
use harness::{Config, DEADLINE, Http, Server, failed_login, wait_for};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Checks that somebody else's lines still count and questions are still answered.
#[track_caller]
fn assert_serves(server: &mut Server, client: &str) {
    assert!(server.is_running(), "{}", server.text());
    server.fail(client, 3);
    server.send_udp([failed_login(client), failed_login(client)]);
    server.wait_for_status(client, 403);
    assert_eq!(server.status("192.0.2.250"), 200);
}

/// Bytes that look like nothing, the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // xorshift64, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn datagrams_that_are_no_records_are_counted_by_reason() {
    let mut server = Server::start(Config::new().set("syslog.max_message_bytes", 2048));
    let line = failed_login("192.0.2.1");
    let datagrams: [(&str, &[u8]); 17] = [
        ("empty", b""),
        ("empty", b"\n"),
        ("empty", b"<22>"),
        ("empty", b"<22> \r\n\0"),
        ("empty", b"<22>Nov 22 17:32:41"),
        ("priority", b"<192>dovecot: x"),
        ("priority", b"<999>dovecot: x"),
        ("priority", b"<>dovecot: x"),
        ("priority", b"<22"),
        ("priority", b"<-1>dovecot: x"),
        ("header", b"<22>1 2026-11-22T17:32:41Z mail1 dovecot"),
        ("header", b"<22>1 2026-11-22T17:32:41Z mail1 dove\0cot - - - x"),
        ("structured_data", b"<22>1 - mail1 app - - [http ua=\"dovecot: rip=192.0.2.1, lip="),
        ("structured_data", b"<22>1 - mail1 app - - [http ua=\"dovecot: rip=192.0.2.1\" lip] forged"),
        ("", &[0; 100]),
        ("", &[0xff; 2048]),
        ("", b"\xef\xbb\xbf<22>dovecot: x"),
    ];
    server.send_udp(datagrams.iter().map(|(_, bytes)| bytes));
    // Longer than allowed by one byte, and as long as a datagram can be.
    let too_long = |bytes| format!("{line}{}", "x".repeat(bytes - line.len()));
    server.send_udp([too_long(2049), too_long(65_507)]);
    let metrics = server.metrics();
    for reason in ["priority", "header", "structured_data"] {
        let count = datagrams.iter().filter(|(why, _)| *why == reason).count() as u64;
        assert_eq!(metrics.get("fail2ban_syslog_malformed_total", &[("reason", reason)]), count, "{reason}");
    }
    let empty = metrics.get("fail2ban_syslog_malformed_total", &[("reason", "empty")]);
    assert!(empty >= 5, "{empty}");
    assert_eq!(metrics.get("fail2ban_syslog_dropped_total", &[("reason", "datagram_too_long")]), 2);
    // Every datagram came to exactly one end.
    let ends = metrics.get("fail2ban_syslog_malformed_total", &[])
        + metrics.get("fail2ban_syslog_records_total", &[])
        + metrics.get("fail2ban_syslog_dropped_total", &[]);
    assert_eq!(ends, datagrams.len() as u64 + 2);
    assert_eq!(metrics.get("fail2ban_failures_total", &[]), 0);
    // One that has just the allowed length is read.
    server.send_udp([too_long(2048)]);
    server.wait_for_failures(1);
    assert_serves(&mut server, "192.0.2.2");
    server.stop();
}

#[test]
fn noise_is_survived() {
    let mut server = Server::start(Config::new());
    let mut noise = Noise(0x1234_5678_9abc_def1);
    let datagrams: Vec<Vec<u8>> = (0..4000)
        .map(|n| {
            let length = (noise.next() % 600) as usize;
            let mut bytes = noise.bytes(length);
            // Half of them begin as records do.
            if n % 2 == 0 {
                bytes.splice(..0, b"<22>1 - - dovecot - - ".iter().copied());
            }
            bytes
        })
        .collect();
    server.send_udp(&datagrams);
    for _ in 0..8 {
        let mut sender = server.connect_syslog();
        sender.write_all(&noise.bytes(512 << 10)).expect("noise is taken");
    }
    for _ in 0..50 {
        let mut http = Http::connect(server.config.nginx).expect("a connection");
        // It may be refused before all of it is sent.
        let _ = http.send(&noise.bytes(4096));
        http.read_to_end();
    }
    let metrics = server.metrics();
    let ends = metrics.get("fail2ban_syslog_malformed_total", &[]) + metrics.get("fail2ban_syslog_records_total", &[]);
    assert!(ends >= datagrams.len() as u64);
    assert_serves(&mut server, "192.0.2.2");
    server.wait_for_ban("192.0.2.2", 1);
    assert_eq!(server.metrics().get("fail2ban_bans_total", &[]), 1);
    server.stop();
}

#[test]
fn broken_streams_cost_their_own_records() {
    let mut server = Server::start(Config::new());
    let line = failed_login("192.0.2.1");
    let faults = |why| server.metrics().get("fail2ban_syslog_malformed_total", &[("reason", why)]);
    let matched = || server.metrics().get("fail2ban_failures_total", &[]);

    // A count that nobody means; the line after it is read.
    server.send_tcp(["999999999 <22>nonsense".to_owned(), line.clone()]);
    wait_for("the line after an absurd count", || (matched() == 1).then_some(()));
    assert_eq!(faults("frame_bad_count"), 1);

    // A counted frame over the limit, which is skipped to its end.
    let frame = format!("100000 <22>{}{} {line}", "x".repeat(100_000 - 4), line.len());
    server.connect_syslog().write_all(frame.as_bytes()).expect("to send");
    wait_for("the frame after a long one", || (matched() == 2).then_some(()));
    assert_eq!(faults("frame_too_long"), 1);

    // A line without end, then the end: counted once, and what follows is read.
    let mut sender = server.connect_syslog();
    sender.write_all(&vec![b'x'; 4 << 20]).expect("to send");
    sender.write_all(format!("\n{line}\n").as_bytes()).expect("to send");
    wait_for("the line after an endless one", || (matched() == 3).then_some(()));
    drop(sender);
    assert_eq!(faults("frame_too_long"), 2);

    // The stream ends within a counted frame.
    server.connect_syslog().write_all(format!("500 {line}").as_bytes()).expect("to send");
    wait_for("half a frame", || (faults("frame_truncated") == 1).then_some(()));

    // NUL as the end of a line, and many that end nothing.
    let nuls = format!("{}{line}\0\0\0\n\0", "\0".repeat(100_000));
    server.connect_syslog().write_all(nuls.as_bytes()).expect("to send");
    wait_for("the line between the NULs", || (matched() == 4).then_some(()));

    // A reset in the middle of a frame.
    for _ in 0..20 {
        let mut sender = server.connect_syslog();
        sender.write_all(format!("{} {}", line.len(), &line[..line.len() / 2]).as_bytes()).expect("to send");
        reset_on_drop(&sender);
    }
    // One byte at a time, each in a packet of its own.
    let mut sender = server.connect_syslog();
    for byte in format!("{} {line}", line.len()).bytes() {
        sender.write_all(&[byte]).expect("to send");
    }
    wait_for("the line that dribbled", || (matched() == 5).then_some(()));
    server.wait_for_status("192.0.2.1", 403);
    drop(sender);
    let connections = || server.metrics().get("fail2ban_shard_connections", &[("service", "syslog")]);
    wait_for("all connections to be gone", || (connections() == 0).then_some(()));
    assert_serves(&mut server, "192.0.2.2");
    server.stop();
}

#[test]
fn senders_that_say_nothing_keep_nobody_waiting() {
    let mut server = Server::start(Config::new());
    let mut silent = Vec::new();
    for n in 0..100 {
        let mut sender = server.connect_syslog();
        match n % 4 {
            0 => {}
            1 => sender.write_all(b"8000 <22>and then nothing").expect("to send"),
            2 => sender.write_all(&[b'x'; 8000]).expect("to send"),
            _ => sender.write_all(b"1").expect("to send"),
        }
        silent.push(sender);
    }
    assert_serves(&mut server, "192.0.2.2");
    assert_eq!(server.metrics().get("fail2ban_shard_connections", &[("service", "syslog")]), 100);
    server.stop();
}

/// Sends a request and returns the answers until the server closes the connection.
fn converse(server: &Server, request: &[u8]) -> String {
    let mut http = Http::connect(server.config.nginx).expect("a connection");
    // The server may have refused and closed before all of it was sent.
    let _ = http.send(request);
    String::from_utf8_lossy(&http.read_to_end()).into_owned()
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_refused() {
    let mut server = Server::start(Config::new());
    let smuggled = "GET /auth HTTP/1.1\r\nHost: a\r\nX-Real-IP: 192.0.2.9\r\n\r\n";
    let requests: [(&str, u16); 16] = [
        ("POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 55\r\n\r\n", 400),
        ("POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", 400),
        ("POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", 400),
        ("POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST /auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("POST /auth HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET /auth HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /auth HTTP/1.1\r\nHost: a\r\nX-Real-IP : 192.0.2.1\r\n\r\n", 400),
        ("GET /auth HTTP/1.1\r\nHost: a\r\n X-Real-IP: 192.0.2.1\r\n\r\n", 400),
        ("GET /auth HTTP/1.1\nHost: a\n\n", 400),
        ("GET /auth HTTP/1.1\r\nHost: a\r\nno colon here\r\n\r\n", 400),
        ("GET /auth HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400),
        ("\r\n\r\n\r\n\r\n\r\n\r\nGET /auth HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ];
    for (request, status) in requests {
        let answers = converse(&server, format!("{request}{smuggled}").as_bytes());
        assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answers}");
        assert_eq!(
            answers.matches("Content-Length: ").count(),
            1,
            "what follows is not answered: {request}\n{answers}"
        );
        assert!(answers.contains("\r\nConnection: close\r\n"), "{answers}");
    }
    let metrics = server.metrics();
    assert_eq!(metrics.get("fail2ban_requests_total", &[("result", "refused")]), requests.len() as u64);
    assert_serves(&mut server, "192.0.2.2");
    server.stop();
}

#[test]
fn heads_without_end_are_refused() {
    let mut server = Server::start(Config::new());
    let field = format!("GET /auth HTTP/1.1\r\nHost: a\r\nX-Real-IP: 192.0.2.1\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let fields = format!("GET /auth HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(20_000));
    let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    for (request, status) in [(&field, 431), (&fields, 431), (&target, 414)] {
        let answers = converse(&server, request.as_bytes());
        // A reset, because not all was read, may overtake the answer.
        assert!(answers.is_empty() || answers.starts_with(&format!("HTTP/1.1 {status} ")), "{answers}");
    }
    server.wait_for_metric("fail2ban_requests_total", &[("result", "refused")], 3);
    // One that just fits is answered.
    let mut http = Http::connect(server.config.nginx).expect("a connection");
    let answer = http.get("/auth", &[("X-Real-IP", "192.0.2.1"), ("X", &"x".repeat(60_000))]).expect("an answer");
    assert_eq!((answer.status, answer.field("X-Fail2ban-IP")), (200, Some("192.0.2.1")));
    assert_serves(&mut server, "192.0.2.2");
    server.stop();
}

#[test]
fn addresses_that_are_none_are_unknown() {
    for (on_unknown, status) in [("allow", 200), ("deny", 403)] {
        let server = Server::start(Config::new().set("nginx.on_unknown", on_unknown));
        let mut http = Http::connect(server.config.nginx).expect("a connection");
        let long = "1".repeat(5000);
        let odd = ["192.0.2.300", "192.0.2.1, 10.0.0.1", "mail.example.net", "2001:db8::1::2", "0x7f.1", "-", &long];
        for text in odd {
            let answer = http.auth(text).expect("an answer");
            assert_eq!((answer.status, answer.field("X-Fail2ban-Status")), (status, Some("unknown")), "{text}");
        }
        // An empty field says nothing, as nginx means it: then the peer itself is asked about.
        assert_eq!(http.auth("").expect("an answer").field("X-Fail2ban-IP"), Some("127.0.0.1"));
        let count = server.metrics().get("fail2ban_requests_total", &[("result", "unknown")]);
        assert_eq!(count, odd.len() as u64);
        server.stop();
    }
}

#[test]
fn a_thousand_questions_at_once_are_answered_in_order() {
    let server = Server::start(Config::new().set("ban.blacklist", "[203.0.113.0/24]"));
    let client = |n: usize| match n % 3 {
        0 => format!("203.0.113.{}", n % 250),
        _ => format!("192.0.2.{}", n % 250),
    };
    let questions: String = (0..1000)
        .map(|n| match n % 5 {
            // Bodies are skipped, however they look.
            4 => format!("POST /auth HTTP/1.1\r\nHost: a\r\nX-Real-IP: {}\r\nContent-Length: 26\r\n\r\nGET /auth HTTP/1.1\r\nA: b\r\n\r\n", client(n)),
            _ => format!("GET /auth HTTP/1.1\r\nHost: a\r\nX-Real-IP: {}\r\n\r\n", client(n)),
        })
        .collect();
    let mut http = Http::connect(server.config.nginx).expect("a connection");
    http.send(questions.as_bytes()).expect("to send");
    for n in 0..1000 {
        let answer = http.answer().expect("an answer");
        let status = if n % 3 == 0 { 403 } else { 200 };
        assert_eq!((answer.status, answer.field("X-Fail2ban-IP")), (status, Some(client(n).as_str())), "question {n}");
    }
    assert_eq!(http.auth("192.0.2.1").expect("the connection goes on").status, 200);
    server.stop();
}

#[test]
fn slow_and_idle_askers_are_cut_off() {
    let timeout = Duration::from_millis(500);
    let mut server = Server::start(Config::new().set("nginx.read_timeout", "500ms"));
    // What a shard's clock may lie behind.
    let slack = Duration::from_millis(100);
    let begun = Instant::now();
    let mut idle = Http::connect(server.config.nginx).expect("a connection");
    let mut slow = TcpStream::connect(server.config.nginx).expect("a connection");
    slow.set_read_timeout(Some(Duration::from_millis(20))).expect("an option of every socket");
    slow.write_all(b"GET /auth HTTP/1.1\r\nX-Real-IP: 192.0.2.1\r\nX: ").expect("to send");
    // A byte now and then does not buy more time.
    loop {
        match slow.read(&mut [0; 100]) {
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        assert!(begun.elapsed() < DEADLINE, "whoever dribbles is never cut off");
        if slow.write_all(b"x").is_err() {
            break;
        }
    }
    assert!(begun.elapsed() >= timeout - slack, "cut off after {:?}", begun.elapsed());
    idle.read_to_end();
    assert!(begun.elapsed() >= timeout - slack);
    server.wait_for_metric("fail2ban_connections_total", &[("event", "timed_out"), ("service", "nginx")], 2);

    // Whoever asks in time may go on for longer than that.
    let mut busy = Http::connect(server.config.nginx).expect("a connection");
    let begun = Instant::now();
    let mut last = begun;
    while begun.elapsed() < 2 * timeout {
        let answered = busy.auth("192.0.2.1");
        // Only a pause of the machine between two questions excuses a cut.
        assert!(answered.is_ok() || last.elapsed() > timeout - slack, "{answered:?}");
        if answered.is_err() {
            break;
        }
        last = Instant::now();
    }
    assert_serves(&mut server, "192.0.2.2");
    server.stop();
}

/// A TCP connection from an address of one's choice.
fn connect_from(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((from, 0)))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Whether the other side closes the connection without saying anything.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Err(why) => matches!(why.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        Ok(_) => false,
    }
}

#[test]
fn only_allowed_senders_are_heard() {
    const FRIEND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
    const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    let server = Server::start(Config::new().set("syslog.allowed_senders", "[127.0.0.1]"));
    let line = failed_login("192.0.2.1");
    let refused = || server.metrics().get("fail2ban_syslog_dropped_total", &[("reason", "sender_not_allowed")]);

    let stranger = UdpSocket::bind((STRANGER, 0)).expect("an address of loopback");
    server.send_udp_from(&stranger, [&line; 10]);
    assert_eq!(refused(), 10);
    for count in 11..=15 {
        let mut stream = connect_from(STRANGER, server.config.syslog).expect("a connection");
        // It may be closed before this is sent.
        let _ = stream.write_all(format!("{line}\n").as_bytes());
        assert!(is_closed(&mut stream));
        wait_for("the connection to be counted", || (refused() == count).then_some(()));
    }
    assert_eq!(server.metrics().get("fail2ban_failures_total", &[]), 0);
    assert_eq!(server.status("192.0.2.1"), 200);

    let friend = UdpSocket::bind((FRIEND, 0)).expect("loopback");
    server.send_udp_from(&friend, [&line; 3]);
    let mut stream = connect_from(FRIEND, server.config.syslog).expect("a connection");
    stream.write_all(format!("{line}\n{line}\n").as_bytes()).expect("to send");
    server.wait_for_status("192.0.2.1", 403);
    assert_eq!(refused(), 15);

    // The list can be changed while it runs, for both.
    server.reload(&server.config.clone().set("syslog.allowed_senders", "[127.0.0.2]"));
    let line = failed_login("192.0.2.2");
    wait_for("the friend's connection to be closed", || (refused() == 16).then_some(()));
    assert!(is_closed(&mut stream));
    server.send_udp_from(&friend, [&line; 9]);
    assert_eq!(refused(), 25);
    server.send_udp_from(&stranger, [&line; 3]);
    let mut stream = connect_from(STRANGER, server.config.syslog).expect("a connection");
    stream.write_all(format!("{line}\n{line}\n").as_bytes()).expect("to send");
    server.wait_for_status("192.0.2.2", 403);
    server.stop();
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let mut server = Server::start(Config::new().set("syslog.max_connections", 4).set("nginx.max_connections", 4));
    let connected =
        |server: &Server, service| server.metrics().get("fail2ban_shard_connections", &[("service", service)]);
    let refused = |server: &Server, service| {
        server.metrics().get("fail2ban_connections_total", &[("event", "refused"), ("service", service)])
    };
    for service in ["syslog", "nginx"] {
        let to = if service == "syslog" { server.config.syslog } else { server.config.nginx };
        wait_for("earlier connections to be gone", || (connected(&server, service) == 0).then_some(()));
        let mut held = Vec::new();
        for count in 1..=4 {
            held.push(connect_from(Ipv4Addr::LOCALHOST, to).expect("a connection"));
            wait_for("the connection to be taken", || (connected(&server, service) == count).then_some(()));
        }
        let before = refused(&server, service);
        for count in 1..=4 {
            let mut more = connect_from(Ipv4Addr::LOCALHOST, to).expect("a connection");
            assert!(is_closed(&mut more), "{service}");
            assert_eq!(refused(&server, service), before + count);
        }
        assert_eq!(connected(&server, service), 4);
        // Those that were there work, and when one goes, another may come.
        drop(held.pop());
        wait_for("a place", || (connected(&server, service) == 3).then_some(()));
        held.push(connect_from(Ipv4Addr::LOCALHOST, to).expect("a connection"));
        wait_for("the connection to be taken", || (connected(&server, service) == 4).then_some(()));
        for stream in &mut held {
            if service == "syslog" {
                stream.write_all(format!("{}\n", failed_login("192.0.2.1")).as_bytes()).expect("to send");
            } else {
                stream.write_all(b"GET /auth HTTP/1.1\r\nX-Real-IP: 192.0.2.9\r\n\r\n").expect("to send");
                let mut answer = [0; 15];
                stream.read_exact(&mut answer).expect("an answer");
                assert_eq!(&answer, b"HTTP/1.1 200 OK");
            }
        }
    }
    wait_for("everybody to be gone", || (connected(&server, "nginx") == 0).then_some(()));
    server.wait_for_failures(4);
    server.send_udp([failed_login("192.0.2.1")]);
    server.wait_for_status("192.0.2.1", 403);
    assert!(server.is_running());
    server.stop();
}

#[test]
fn running_out_of_descriptors_is_survived() {
    for driver in ["auto", "epoll"] {
        const FILES: u64 = 96;
        let config = Config::new().set("runtime.driver", driver).set("nginx.read_timeout", "10m");
        let mut server = Server::start_limited(config, &[Limit::OpenFiles(FILES)]);
        let mut kept = Http::connect(server.config.nginx).expect("a connection");
        assert_eq!(kept.auth("192.0.2.1").expect("an answer").status, 200);
        let mut sender = server.connect_syslog();
        sender.write_all(format!("{}\n", failed_login("192.0.2.1")).as_bytes()).expect("to send");
        server.wait_for_failures(1);

        // The kernel completes these connections, but the program has no descriptors for all of them.
        let many: Vec<_> = (0..2 * FILES)
            .map(|n| {
                let to = if n % 2 == 0 { server.config.nginx } else { server.config.syslog };
                TcpStream::connect(to).expect("a connection")
            })
            .collect();
        let open = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).map_or(0, Iterator::count);
        wait_for("all descriptors to be in use", || (open() as u64 >= FILES).then_some(()));
        // Connections that it has go on, and so do datagrams.
        for _ in 0..3 {
            sender.write_all(format!("{}\n", failed_login("192.0.2.1")).as_bytes()).expect("to send");
        }
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        udp.send_to(failed_login("192.0.2.1").as_bytes(), server.config.syslog).expect("to send");
        wait_for("the ban", || (kept.auth("192.0.2.1").expect("an answer").status == 403).then_some(()));

        drop(many);
        assert_serves(&mut server, "192.0.2.2");
        let metrics = server.metrics();
        let faults = metrics.get("fail2ban_connections_total", &[("event", "accept_failed")]);
        assert!(faults > 0, "{driver}");
        // Those that still waited to be accepted come and go; only the first sender stays.
        server.wait_for_metric("fail2ban_shard_connections", &[("service", "syslog")], 1);
        server.stop();
    }
}

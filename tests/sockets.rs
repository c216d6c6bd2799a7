//! Unix sockets beside TCP: the same answers, and a file that comes and goes with the program.

mod harness;

use harness::{Config, DEADLINE, Directory, Server, run, wait_for};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Asks on a unix socket, on a connection of its own, and returns the whole answer.
fn ask(path: &Path, fields: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("an option of every socket");
    let request = format!("GET /auth HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).expect("to ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and an end");
    answer
}

#[test]
fn a_question_over_a_unix_socket_is_answered_by_every_shard() {
    for driver in ["auto", "epoll"] {
        let folder = Directory::new();
        let path = folder.0.join("nginx.sock");
        let config = Config::new().set("nginx.socket", path.display()).set("runtime.driver", driver);
        let server = Server::start(config);
        server.fail("192.0.2.7", 5);
        server.wait_for_status("192.0.2.7", 403);

        // Who listens first takes the connection, and who has fewest gets it: held open, they are on both shards. Two
        // that take one each at the same moment may not see each other's.
        let held: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(&path).expect("a connection")).collect();
        let connected = wait_for("all to be served", || {
            let connected = server.metrics().by_shard("fail2ban_shard_connections", &[("service", "nginx")]);
            (connected.iter().sum::<u64>() == 8).then_some(connected)
        });
        assert!(connected.iter().all(|count| *count >= 2), "{connected:?}");
        drop(held);
        for _ in 0..20 {
            let denied = ask(&path, "X-Real-IP: 192.0.2.7\r\n");
            assert!(
                denied.starts_with("HTTP/1.1 403 ") && denied.contains("X-Fail2ban-Reason: dovecot-login"),
                "{denied}"
            );
            assert!(ask(&path, "X-Original-IP: 192.0.2.8\r\n").starts_with("HTTP/1.1 200 "));
        }
        // The peer has no address, so nobody is named.
        let unknown = ask(&path, "X-Forwarded-For: 192.0.2.7\r\n");
        assert!(unknown.starts_with("HTTP/1.1 200 ") && unknown.contains("X-Fail2ban-Status: unknown"), "{unknown}");
        server.stop();
        assert!(!path.exists(), "the file goes with the program");
    }
}

#[test]
fn a_socket_left_by_a_crash_is_taken_over_and_one_in_use_is_not() {
    let folder = Directory::new();
    let path = folder.0.join("nginx.sock");
    let config = || Config::new().set("nginx.socket", path.display());
    let server = Server::start(config());
    let second = config();
    folder.file("second.yaml", second.text());
    let output = run(&folder.0, &["run", "--config", "second.yaml"], b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on unix {}: ", path.display())), "{said}");
    assert!(said.contains("something else listens there") && said.contains("change nginx.socket"), "{said}");
    assert!(ask(&path, "X-Real-IP: 192.0.2.8\r\n").starts_with("HTTP/1.1 200 "), "the first is not harmed");

    server.signal(libc::SIGKILL);
    server.wait_for_end();
    assert!(path.exists(), "a crash removes nothing");
    let server = Server::start(config());
    assert!(ask(&path, "X-Real-IP: 192.0.2.8\r\n").starts_with("HTTP/1.1 200 "));
    // Somebody has put another socket in its place: that one is not removed.
    fs::remove_file(&path).expect("its file");
    let _other = UnixListener::bind(&path).expect("another socket");
    server.stop();
    assert!(path.exists());

    fs::remove_file(&path).expect("the other's file");
    fs::write(&path, "precious").expect("a file");
    let output = run(&folder.0, &["run", "--config", "second.yaml"], b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("there is a file that is no socket"), "{said}");
    assert_eq!(fs::read(&path).expect("the file"), b"precious");
}

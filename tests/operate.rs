//! The command line of operators, against the real running program.

#![allow(clippy::disallowed_methods, reason = "tests wait for other processes")]

mod harness;

use harness::{Config, PROGRAM, Server, wait_for};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

const CLIENT: &str = "192.0.2.7";

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

impl Server {
    /// Runs a command that must go well, and gives what it prints.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.operate(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        out(&output)
    }

    /// Runs a command that must fail with this exit status, and gives what it complains.
    #[track_caller]
    fn refused(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.operate(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        err(&output)
    }
}

#[test]
fn bans_are_made_listed_explained_and_ended() {
    let server = Server::start(Config::new());
    let said = server.done(&["ban", CLIENT, "2001:db8:1:2::5", "--for", "1h", "--reason", "called at night"]);
    assert_eq!(said, format!("{CLIENT} is banned for 1h\n2001:db8:1:2::/64 is banned for 1h\n"));
    assert_eq!((server.status(CLIENT), server.status("2001:db8:1:2::77")), (403, 403));

    let table = server.done(&["list", "--sort", "ip_address", "--order", "asc"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("IP ADDRESS"), "{table}");
    assert!(lines[1].starts_with(CLIENT) && lines[1].contains("manual") && lines[1].contains("59m"), "{table}");
    let json = server.done(&["list", "--format", "json", "--all"]);
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2, "{json}");
    let one = server.operate(&["list", "--limit", "1"]);
    assert_eq!((out(&one).lines().count(), err(&one).contains("1 of 2")), (2, true), "{one:?}");

    // A script can tell by the exit status.
    let denied = server.operate(&["explain", CLIENT]);
    assert_eq!(denied.status.code(), Some(3), "{denied:?}");
    assert!(out(&denied).starts_with(&format!("{CLIENT} is DENIED: it is banned\n")), "{denied:?}");
    wait_for("the reason to be kept", || {
        out(&server.operate(&["explain", CLIENT])).contains("called at night").then_some(())
    });
    assert!(server.done(&["explain", "192.0.2.99"]).starts_with("192.0.2.99 is let in\n"));

    assert_eq!(server.done(&["unban", CLIENT]), format!("{CLIENT}: ended 1 ban\n"));
    assert_eq!(server.status(CLIENT), 200);
    let said = server.refused(1, &["unban", CLIENT]);
    assert_eq!(said, format!("mailfail2ban: {CLIENT}: is neither banned nor on the blacklist\n"));
    // Of several, the others are done all the same.
    let output = server.operate(&["ban", "mail.example.org", CLIENT]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("mail.example.org") && out(&output).contains(CLIENT), "{output:?}");

    assert!(server.refused(2, &["purge"]).contains("--yes"));
    assert_eq!(server.done(&["purge", "--yes"]), "ended 2 bans\n");
    assert_eq!(server.status(CLIENT), 200);

    let newest = |server: &Server| -> Value {
        let audit = server.done(&["audit", "--format", "json", "--limit", "1"]);
        serde_json::from_str(audit.trim_end()).unwrap()
    };
    let last = newest(&server);
    assert_eq!(
        (&last["action"], &last["channel"], &last["who"]),
        (&"purge".into(), &"socket".into(), &"socket".into())
    );
    // Who types is named, where the environment says who that is.
    let mut command = Command::new(PROGRAM);
    command
        .args(["ban", CLIENT])
        .current_dir(&server.directory.0)
        .env_clear()
        .env("USER", "root")
        .env("SUDO_USER", "ada");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    assert_eq!(newest(&server)["who"], "ada");
    assert!(server.done(&["audit", "--all", "--search", "ada"]).lines().count() == 2);
    let mut full = Command::new("sh");
    full.args(["-c", &format!("exec {PROGRAM} list > /dev/full")]).current_dir(&server.directory.0);
    let full = full.output().unwrap();
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    server.stop();
}

#[test]
fn lists_are_changed_and_the_file_is_read_again() {
    let server = Server::start(Config::new().set("ban.blacklist", "[203.0.113.0/24]"));
    server.fail(CLIENT, 5);
    server.wait_for_status(CLIENT, 403);
    assert_eq!(
        server.done(&["whitelist", "add", "192.0.2.0/24", "--reason", "the office"]),
        "192.0.2.0/24 is on the whitelist\n"
    );
    assert_eq!(server.status(CLIENT), 200);
    let table = server.done(&["whitelist", "list"]);
    assert!(table.contains("192.0.2.0/24") && table.contains("the office") && table.contains("local"), "{table}");
    let said = server.refused(1, &["ban", CLIENT]);
    assert!(said.contains("is on the whitelist (entry 192.0.2.0/24)"), "{said}");
    assert_eq!(
        server.done(&["whitelist", "remove", "192.0.2.0/24"]),
        "192.0.2.0/24 is not on the whitelist any more\n"
    );
    let said = server.refused(1, &["whitelist", "remove", "192.0.2.0/24"]);
    assert!(said.contains("is not on the whitelist"), "{said}");
    assert_eq!(server.done(&["ban", "--permanent", CLIENT]), format!("{CLIENT} is on the blacklist\n"));
    assert_eq!(server.status(CLIENT), 403);
    let table = server.done(&["blacklist", "list"]);
    assert!(table.contains("203.0.113.0/24") && table.contains(CLIENT), "{table}");
    let said = server.refused(1, &["blacklist", "remove", "203.0.113.0/24"]);
    assert!(said.contains("ban.blacklist"), "{said}");
    assert_eq!(server.done(&["unban", CLIENT]), format!("{CLIENT}: it is off the blacklist\n"));

    let file = server.directory.0.join("config.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[203.0.113.0/24]", "[198.51.100.0/24]")).unwrap();
    let said = server.done(&["reload"]);
    assert!(said.contains("in force on every shard"), "{said}");
    assert_eq!((server.status("203.0.113.1"), server.status("198.51.100.1")), (200, 403));
    std::fs::write(&file, text.replace("[203.0.113.0/24]", "[nobody, 198.51.100.999]")).unwrap();
    // Though it is faulty, that file says where the socket is.
    let said = server.refused(1, &["reload"]);
    assert!(said.contains("nobody"), "{said}");
    let socket = wait_for("the control socket", || {
        let state = std::fs::read_dir(&server.directory.0).unwrap().flatten().map(|entry| entry.path());
        state.map(|path| path.join("control.sock")).find(|path| path.exists())
    });
    let said = server.refused(1, &["reload", "--socket", socket.to_str().unwrap()]);
    assert!(said.contains("refused") && said.contains("2 faults"), "{said}");
    assert!(said.contains("nobody") && said.contains("198.51.100.999"), "{said}");
    assert_eq!(server.status("198.51.100.1"), 403, "what was in force stays");
    server.stop();
}

#[test]
fn how_it_is_doing_and_what_happens() {
    let server = Server::start(Config::new());
    let status = server.done(&["status"]);
    for word in ["version", "node", "bans", "policy", "database", "SHARD", "dovecot-login"] {
        assert!(status.contains(word), "{word}: {status}");
    }
    let status: Value = serde_json::from_str(&server.done(&["status", "--format", "json"])).unwrap();
    assert_eq!((&status["policy"], &status["shards"][0]["answers"]), (&1.into(), &true.into()));

    let mut events = Command::new(PROGRAM)
        .args(["events", "--format", "json"])
        .current_dir(&server.directory.0)
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let mut hear = |name: &str| loop {
        let line = lines.next().expect("it goes on").unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == name {
            return event["data"].clone();
        }
    };
    hear("sample");
    server.fail(CLIENT, 5);
    let ban = hear("ban");
    assert_eq!((&ban["ip_address"], &ban["pattern"]), (&CLIENT.into(), &"dovecot-login".into()), "{ban}");
    server.done(&["unban", CLIENT]);
    let unban = hear("unban");
    assert_eq!((&unban["ip_address"], &unban["created_by"]), (&CLIENT.into(), &"socket".into()), "{unban}");
    // It ends with the server, and a script can tell.
    server.stop();
    assert_eq!(events.wait().unwrap().code(), Some(1));
}

#[test]
fn what_an_attacker_writes_does_nothing_to_the_terminal() {
    let server = Server::start(Config::new());
    let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}x";
    let line = harness::failed_login(CLIENT).replace("<bob>", &format!("<{hostile}>"));
    server.send_tcp(std::iter::repeat_n(line, 5));
    server.wait_for_status(CLIENT, 403);
    let output = server.operate(&["explain", CLIENT]);
    let text = out(&output);
    assert!(text.contains("Last lines that counted") && text.contains("owned"), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains('\u{202e}'), "{text:?}");
    server.stop();
}

#[test]
fn without_a_server_it_says_so() {
    let server = Server::start(Config::new());
    server.done(&["status"]);
    let path = server.directory.0.clone();
    let run =
        |arguments: &[&str]| Command::new(PROGRAM).args(arguments).current_dir(&path).env_clear().output().unwrap();
    let bash = out(&run(&["completions", "bash"]));
    assert!(bash.contains("explain") && bash.contains("whitelist"), "no completions");
    let away = run(&["status", "--socket", "/nonexistent/control.sock"]);
    assert_eq!(away.status.code(), Some(1));
    assert!(err(&away).contains("cannot reach the server at /nonexistent/control.sock"), "{away:?}");
    let help = out(&run(&["ban", "--help"]));
    assert!(help.contains("--for") && help.contains("--permanent"), "{help}");
    server.stop();
}

//! The REST API of the real program: what operators type, what they get, and who is refused.

#![allow(clippy::disallowed_methods, reason = "tests measure how long an answer takes")]

mod harness;

use harness::databases::{DatabaseServer as _, Postgres, using};
use harness::operator::call;
use harness::{Config, Directory, Http, Server, failed_login_message, need, record, run_command, tool, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Of a client that is not the peer.
const CLIENT: &str = "192.0.2.7";

#[test]
fn the_quick_start_works_as_typed() {
    if !need("curl") {
        return;
    }
    let server = Server::start(Config::new());
    let base = format!("http://{}", server.config.nginx);
    let curl = |arguments: &[&str]| -> Value {
        let mut command = tool("curl");
        command.args(["-s", "--noproxy", "*"]).args(arguments);
        let output = run_command(command, b"");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {output:?}"))
    };
    let ban = r#"{"ip_address":"192.0.2.7","duration":"1h","reason":"test","created_by":"me"}"#;
    let banned = curl(&["-X", "POST", &format!("{base}/api/ban"), "-H", "Content-Type: application/json", "-d", ban]);
    assert_eq!((&banned["success"], &banned["ip_address"]), (&true.into(), &CLIENT.into()), "{banned}");
    assert_eq!(server.status(CLIENT), 403);
    let listed = curl(&[&format!("{base}/api/temp-bans")]);
    assert_eq!(listed["count"], 1, "{listed}");
    let one = &listed["temp_bans"][0];
    assert_eq!(one["ip_address"], CLIENT);
    let left = one["duration_remaining_seconds"].as_u64().unwrap();
    assert!((3_590..=3_600).contains(&left), "{one}");
    assert!(one["duration_remaining"].as_str().unwrap().starts_with("59m"), "{one}");
    // As curl sends it when nobody says what it is.
    let unban = curl(&["-d", r#"{"ip_address":"192.0.2.7","reason":"done"}"#, &format!("{base}/api/unban")]);
    assert_eq!(unban["success"], true, "{unban}");
    assert_eq!(server.status(CLIENT), 200);
    server.stop();
}

#[test]
fn a_change_is_enforced_on_every_shard_before_its_answer() {
    let server = Server::start(Config::new().set("api.rate_limiting", "{enabled: false}"));
    // Some connections, so that both shards are asked.
    let mut asked: Vec<Http> = (0..8).map(|_| Http::connect(server.config.nginx).unwrap()).collect();
    let mut all_say = |client: &str, status: u16, why: &str| {
        for http in &mut asked {
            assert_eq!(http.auth(client).unwrap().status, status, "{client} {why}");
        }
    };
    for n in 0..30 {
        let client = format!("198.51.100.{n}");
        let body = format!(r#"{{"ip_address":"{client}"}}"#);
        server.ok("POST", "/api/ban", &format!(r#"{{"ip_address":"{client}","duration":60}}"#));
        all_say(&client, 403, "banned");
        server.ok("POST", "/api/unban", &body);
        all_say(&client, 200, "unbanned");
        server.ok("POST", "/api/blacklist", &body);
        all_say(&client, 403, "blacklisted");
        server.ok("POST", "/api/whitelist", &body);
        all_say(&client, 200, "whitelisted");
        server.ok("DELETE", "/api/whitelist", &body);
        all_say(&client, 403, "not whitelisted any more");
        server.ok("POST", "/api/unban", &body);
        all_say(&client, 200, "off the blacklist");
    }
    let reports = server.metrics().by_shard("fail2ban_shard_questions_total", &[]);
    assert!(reports.iter().all(|asked| *asked > 0), "{reports:?}");
    server.stop();
}

#[test]
fn networks_are_banned_listed_and_unbanned() {
    let server = Server::start(Config::new());
    server.ok("POST", "/api/ban", r#"{"ip_address":"203.0.113.0/24","duration":"2h"}"#);
    assert_eq!((server.status("203.0.113.200"), server.status("203.0.114.1")), (403, 200));
    server.ok("POST", "/api/ban", r#"{"ip_address":"2001:db8:1:2::5","duration":"2h"}"#);
    assert_eq!((server.status("2001:db8:1:2::77"), server.status("2001:db8:1:3::77")), (403, 200));
    for n in 1..=5 {
        server.fail(&format!("198.51.100.{n}"), 5);
        server.wait_for_ban(&format!("198.51.100.{n}"), 1);
    }
    let networks = |query: &str| -> BTreeSet<String> {
        let listed = server.ok("GET", &format!("/api/temp-bans{query}"), "");
        listed["temp_bans"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["ip_address"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(networks("").len(), 7);
    assert_eq!(networks("?ip=198.51.100.0/24").len(), 5);
    assert_eq!(networks("?ip=203.0.113.9"), BTreeSet::from(["203.0.113.0/24".to_owned()]));
    assert_eq!(networks("?pattern=manual").len(), 2);
    assert_eq!(networks("?search=100.3"), BTreeSet::from(["198.51.100.3".to_owned()]));
    let in_order = |order: &str| -> Vec<String> {
        let listed = server.ok("GET", &format!("/api/temp-bans?sort=ip_address&order={order}"), "");
        listed["temp_bans"].as_array().unwrap().iter().map(|one| one["ip_address"].to_string()).collect()
    };
    let mut descending = in_order("desc");
    descending.reverse();
    assert_eq!(descending, in_order("asc"));
    // Page by page, each ban once.
    let (mut seen, mut cursor) = (BTreeSet::new(), String::new());
    for pages in 1.. {
        let page = server.ok("GET", &format!("/api/temp-bans?limit=3&sort=ip_address&order=asc{cursor}"), "");
        assert_eq!(page["count"], 7);
        for one in page["temp_bans"].as_array().unwrap() {
            assert!(seen.insert(one["ip_address"].to_string()));
        }
        let Some(next) = page["next_cursor"].as_str() else {
            assert_eq!((pages, seen.len()), (3, 7));
            break;
        };
        cursor = format!("&cursor={}", next.replace('~', "%7E").replace('/', "%2F").replace(':', "%3A"));
    }
    // An address inside of a banned network is still denied, and that is said.
    let (status, said) = server.call("POST", "/api/unban", r#"{"ip_address":"203.0.113.9"}"#);
    assert!(said["message"].as_str().unwrap().contains("203.0.113.0/24"), "{status} {said}");
    assert_eq!(server.status("203.0.113.9"), 403);
    server.ok("POST", "/api/unban", r#"{"ip_address":"198.51.100.0/24"}"#);
    assert_eq!(networks("").len(), 2);
    let purged = server.ok("POST", "/api/purge-bans", "");
    assert_eq!(purged["purged_count"], 2, "{purged}");
    assert_eq!(networks("").len(), 0);
    assert_eq!(server.status("203.0.113.9"), 200);
    let stats = server.ok("GET", "/api/radix-stats", "");
    assert_eq!(stats["stats"]["currently_banned"], 0, "{stats}");
    server.stop();
}

#[test]
fn wrong_input_is_named() {
    let server =
        Server::start(Config::new().set("api.rate_limiting", "{enabled: false}").set("ban.whitelist", "[10.0.0.0/8]"));
    let long = format!(r#"{{"ip_address":"192.0.2.7","reason":"{}"}}"#, "x".repeat(200_000));
    for (method, path, body, status, says) in [
        ("POST", "/api/ban", "{", 400, ""),
        ("POST", "/api/ban", "[]", 400, ""),
        ("POST", "/api/ban", r#"["192.0.2.7","1h",null,null,null,null]"#, 400, "array"),
        ("POST", "/api/ban?duration=1h", r#"{"ip_address":"192.0.2.7"}"#, 400, "query"),
        ("POST", "/api/ban", "", 400, ""),
        ("POST", "/api/ban", r#"{"ip_address":"mail.example.org"}"#, 400, "ip_address"),
        ("POST", "/api/ban", r#"{"duration":"1h"}"#, 400, "ip_address"),
        ("POST", "/api/ban", r#"{"ip_address":"192.0.2.7","duration":"soon"}"#, 400, "duration"),
        ("POST", "/api/ban", r#"{"ip_address":"192.0.2.7","duration":-5}"#, 400, "duration"),
        ("POST", "/api/ban", r#"{"ip_address":"192.0.2.7","duration":0}"#, 400, "duration"),
        ("POST", "/api/ban", r#"{"ip_address":"192.0.2.7","durations":"1h"}"#, 400, "durations"),
        ("POST", "/api/ban", r#"{"ip_address":"0.0.0.0/0","duration":"1h"}"#, 400, "force"),
        ("POST", "/api/ban", r#"{"ip_address":"10.1.2.3","duration":"1h"}"#, 409, "whitelist"),
        ("POST", "/api/ban", long.as_str(), 413, ""),
        ("POST", "/api/unban", r#"{"ip_address":"192.0.2.250"}"#, 404, ""),
        ("DELETE", "/api/whitelist", r#"{"ip_address":"192.0.2.250"}"#, 404, ""),
        ("DELETE", "/api/whitelist", r#"{"ip_address":"10.0.0.0/8"}"#, 409, ""),
        ("GET", "/api/temp-bans?limit=x", "", 400, "limit"),
        ("GET", "/api/temp-bans?sort=size", "", 400, "sort"),
        ("GET", "/api/temp-bans?cursor=x", "", 400, "cursor"),
        ("GET", "/api/temp-bans?colour=red", "", 400, "colour"),
        ("GET", "/api/explain", "", 400, "ip"),
        ("GET", "/api/explain?ip=x", "", 400, "ip"),
        ("GET", "/api/nothing", "", 404, ""),
        ("GET", "/api/", "", 404, ""),
        ("GET", "/api/ban", "", 405, ""),
        ("PUT", "/api/whitelist", "", 405, ""),
        ("DELETE", "/api/temp-bans", "", 405, ""),
    ] {
        let (answer, said) = call(server.config.nginx, method, path, &[], body);
        let shown = &body[..body.len().min(80)];
        assert_eq!(answer.status, status, "{method} {path} {shown}: {}", answer.body);
        assert_eq!(said["success"], false, "{method} {path} {shown}: {}", answer.body);
        let message = said["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && message.contains(says), "{method} {path} {shown}: {message}");
        assert_eq!(answer.field("Allow").is_some(), status == 405, "{method} {path}");
    }
    assert_eq!(server.ok("GET", "/api/temp-bans", "")["count"], 0);
    server.stop();
}

#[test]
fn why_an_address_is_denied_is_one_call() {
    let server = Server::start(Config::new());
    let hostile = "<script>alert(1)</script>\u{1b}[2J";
    let line = format!("<38>Nov 24 12:00:00 mail dovecot: {}", failed_login_message(CLIENT, 1).replace("bob", hostile));
    server.send_udp(vec![line; 4]);
    server.wait_for_failures(4);
    let explained = server.ok("GET", &format!("/api/explain?ip={CLIENT}"), "");
    assert_eq!(
        (&explained["verdict"], &explained["failures"], &explained["threshold"]),
        (&"allowed".into(), &4.into(), &5.into())
    );
    server.fail(CLIENT, 1);
    server.wait_for_ban(CLIENT, 1);
    let explained = wait_for("the ban to be in the state", || {
        let explained = server.ok("GET", &format!("/api/explain?ip={CLIENT}"), "");
        (explained["history"].as_array().is_some_and(|history| history.len() == 1)).then_some(explained)
    });
    assert_eq!((&explained["verdict"], &explained["offences"]), (&"banned".into(), &1.into()), "{explained}");
    assert_eq!(explained["bans"][0]["pattern"], explained["history"][0]["pattern"], "{explained}");
    let evidence = explained["evidence"].as_array().unwrap();
    assert_eq!(evidence.len(), 3, "{explained}");
    assert!(evidence.iter().all(|line| !line["line"].as_str().unwrap().contains('\u{1b}')), "{explained}");
    assert!(explained["node"].as_str().is_some_and(|node| !node.is_empty()));
    // What an operator says is kept and shown.
    server.ok("POST", "/api/unban", &format!(r#"{{"ip_address":"{CLIENT}"}}"#));
    server.ok(
        "POST",
        "/api/ban",
        &format!(r#"{{"ip_address":"{CLIENT}","duration":"1h","reason":"spam wave","created_by":"ada"}}"#),
    );
    let newest = wait_for("the second ban to be in the state", || {
        let explained = server.ok("GET", &format!("/api/explain?ip={CLIENT}"), "");
        explained["history"].as_array().filter(|history| history.len() == 2).map(|history| history[0].clone())
    });
    assert_eq!((&newest["reason"], &newest["created_by"]), (&"spam wave".into(), &"ada".into()), "{newest}");
    server.ok("POST", "/api/blacklist", r#"{"ip_address":"192.0.2.0/24","reason":"all of them"}"#);
    let explained = server.ok("GET", &format!("/api/explain?ip={CLIENT}"), "");
    assert_eq!(
        (&explained["verdict"], &explained["blacklist"][0]["ip_address"]),
        (&"blacklisted".into(), &"192.0.2.0/24".into())
    );
    assert_eq!(explained["blacklist"][0]["reason"], "all of them", "{explained}");
    let audit = server.ok("GET", "/api/audit", "");
    let actions: Vec<&str> =
        audit["audit"].as_array().unwrap().iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["blacklist_add", "ban", "unban"], "{audit}");
    server.stop();
}

#[test]
fn a_pattern_is_tried_before_it_goes_live() {
    let server = Server::start(Config::new());
    let check = |body: Value| server.ok("POST", "/api/patterns/check", &body.to_string());
    let open = check(json!({"regex": "auth failed.*rip=([0-9.]+)", "lines": ["x: auth failed rip=192.0.2.1", "y"]}));
    assert_eq!((&open["usable"], &open["faults"]), (&true.into(), &json!([])), "{open}");
    assert_eq!(
        open["lines"],
        json!([
            {"matches": true, "ip_address": "192.0.2.1", "failures": 1},
            {"matches": false, "ip_address": null, "failures": 0},
        ])
    );
    assert!(open["warnings"][0]["message"].as_str().unwrap().starts_with("a client can have another one banned"));
    // The line that shows it works.
    let shown = &open["counter_example"];
    let again = check(json!({"regex": "auth failed.*rip=([0-9.]+)", "lines": [shown["line"]]}));
    assert_eq!(again["lines"][0]["ip_address"], shown["found"], "{shown}");
    assert_ne!(shown["found"], shown["of"]);

    let right = check(json!({
        "regex": "^login of <USER> from <IP> failed$", "program": ["widget"],
        "examples": ["widget: login of x from 203.0.113.9 from 192.0.2.1 failed => 192.0.2.1", "widget: login => none"],
    }));
    assert_eq!((&right["usable"], &right["warnings"]), (&true.into(), &json!([])), "{right}");
    assert_eq!(right["counter_example"], Value::Null);
    for (body, key, says) in [
        (json!({"regex": "("}), "regex", "does not compile"),
        (json!({"regex": "(x)?"}), "regex", "matches an empty line"),
        (json!({"regex": "x"}), "regex", "has no group"),
        (json!({"regex": "((a{100}){100}){100}"}), "regex", "smaller repetitions"),
        (json!({"regex": "^<IP>$", "program": ["a b"]}), "program", "name of a program"),
        (json!({"regex": "^<IP>$", "kind": "rude"}), "kind", "auth"),
        (json!({"regex": "^<IP>$", "ip_group": 0}), "ip_group", "from 1 to 99"),
        (json!({"regex": "^of <USER> from <IP>$", "ip_group": 1}), "regex", "which the client writes"),
        (json!({"regex": "^<IP>$", "examples": ["x: 192.0.2.1 => 192.0.2.2"]}), "examples", "is not matched"),
    ] {
        let said = check(body);
        let fault = &said["faults"][0];
        assert_eq!((&said["usable"], &fault["key"]), (&false.into(), &key.into()), "{said}");
        assert!(fault["message"].as_str().unwrap().contains(says), "{said}");
    }
    let (status, _) = server.call("POST", "/api/patterns/check", r#"{"regexx": "x"}"#);
    assert_eq!(status, 400);
    // Nothing of it is in force.
    server.fail("192.0.2.1", 4);
    assert_eq!(server.status("192.0.2.1"), 200);
    server.stop();
}

#[test]
fn who_may_not_ask_is_refused_whatever_headers_say() {
    let server = Server::start(Config::new().set("api.allowed_ips", "[192.0.2.1]"));
    for fields in
        [&[][..], &[("X-Forwarded-For", "127.0.0.1")], &[("X-Forwarded-For", "192.0.2.1"), ("X-Real-IP", "192.0.2.1")]]
    {
        for (method, path) in [("GET", "/api/temp-bans"), ("POST", "/api/ban"), ("GET", "/"), ("GET", "/api/docs")] {
            let (answer, _) = call(server.config.nginx, method, path, fields, "");
            assert_eq!(answer.status, 403, "{method} {path} {fields:?}: {}", answer.body);
        }
    }
    server.stop();
    // A proxy that is trusted says who is in front of it; its own address does not count then.
    let server = Server::start(Config::new().set("nginx.trusted_proxies", "[127.0.0.0/8]"));
    let status = |forwarded: &str| {
        call(server.config.nginx, "GET", "/api/temp-bans", &[("X-Forwarded-For", forwarded)], "").0.status
    };
    assert_eq!((status("127.0.0.1"), status("192.0.2.1"), status("127.0.0.1, 192.0.2.1")), (200, 403, 403));
    server.stop();
}

#[test]
fn browsers_of_others_do_nothing() {
    let server = Server::start(Config::new());
    let ban = r#"{"ip_address":"192.0.2.7","duration":"1h"}"#;
    for fields in [&[("Origin", "http://evil.example")][..], &[("Sec-Fetch-Site", "cross-site")], &[("Origin", "null")]]
    {
        let (answer, _) = call(server.config.nginx, "POST", "/api/ban", fields, ban);
        assert_eq!(answer.status, 403, "{fields:?}: {}", answer.body);
    }
    let rebound = "POST /api/ban HTTP/1.1\r\nHost: evil.example:8888\r\nContent-Length: 45\r\n\r\n";
    let mut http = Http::connect(server.config.nginx).unwrap();
    http.send(format!("{rebound}{ban}").as_bytes()).unwrap();
    assert_eq!(http.answer().unwrap().status, 403);
    assert_eq!(server.status(CLIENT), 200);
    server.stop();
}

#[test]
fn passwords_tokens_and_roles() {
    let users = "{enabled: true, username: ada, password: secret, users: {bob: {password: builder, role: read}}}";
    let server = Server::start(
        Config::new()
            .set("api.basic_auth", users)
            .set("api.tokens", "[{name: script, token: 0123456789abcdef0123456789abcdef, role: admin}]")
            .set("api.rate_limiting", "{enabled: false}"),
    );
    let basic = |text: &str| match text {
        "ada:secret" => "Basic YWRhOnNlY3JldA==",
        "bob:builder" => "Basic Ym9iOmJ1aWxkZXI=",
        _ => "Basic YWRhOndyb25n",
    };
    let ban = r#"{"ip_address":"192.0.2.7","duration":"1h"}"#;
    let status = |method: &str, path: &str, authorization: &str, body: &str| {
        let (answer, _) = call(server.config.nginx, method, path, &[("Authorization", authorization)], body);
        assert_eq!(answer.field("WWW-Authenticate").is_some(), answer.status == 401);
        answer.status
    };
    assert_eq!(server.call("GET", "/api/temp-bans", "").0, 401);
    assert_eq!(status("GET", "/api/temp-bans", basic("wrong"), ""), 401);
    assert_eq!(status("GET", "/api/temp-bans", "Bearer wrong", ""), 401);
    assert_eq!(status("GET", "/api/temp-bans", "Nonsense", ""), 401);
    assert_eq!(status("GET", "/api/temp-bans", basic("bob:builder"), ""), 200);
    assert_eq!(status("POST", "/api/ban", basic("bob:builder"), ban), 403);
    assert_eq!(server.status(CLIENT), 200);
    assert!(status("POST", "/api/ban", basic("ada:secret"), ban) < 300);
    assert_eq!(server.status(CLIENT), 403);
    assert!(
        status("POST", "/api/unban", "Bearer 0123456789abcdef0123456789abcdef", ban) >= 400,
        "a duration is no part of it"
    );
    assert!(
        status("POST", "/api/unban", "Bearer 0123456789abcdef0123456789abcdef", r#"{"ip_address":"192.0.2.7"}"#) < 300
    );
    let (_, audit) = call(server.config.nginx, "GET", "/api/audit", &[("Authorization", basic("bob:builder"))], "");
    let who: Vec<&str> = audit["audit"].as_array().unwrap().iter().map(|one| one["who"].as_str().unwrap()).collect();
    assert_eq!(who, ["script", "ada"], "{audit}");
    // Nothing of it is in the log.
    let log = server.text();
    assert!(!log.contains("secret") && !log.contains("builder") && !log.contains("0123456789abcdef"), "{log}");
    server.stop();
}

#[test]
fn a_thousand_wrong_passwords_are_limited() {
    let server = Server::start(Config::new().set("api.basic_auth", "{enabled: true, username: ada, password: secret}"));
    let mut limited = 0;
    for _ in 0..1000 {
        let (answer, said) =
            call(server.config.nginx, "GET", "/api/temp-bans", &[("Authorization", "Basic YWRhOndyb25n")], "");
        match answer.status {
            401 => {}
            429 => {
                limited += 1;
                assert!(answer.field("Retry-After").is_some_and(|after| after.parse::<u64>().is_ok()), "{said}");
            }
            other => panic!("{other} {said}"),
        }
    }
    assert!(limited >= 900, "{limited}");
    // Also who knows it now: whoever guesses must not learn it.
    let (answer, _) =
        call(server.config.nginx, "GET", "/api/temp-bans", &[("Authorization", "Basic YWRhOnNlY3JldA==")], "");
    assert_eq!(answer.status, 429);
    // Questions of proxies are not limited.
    assert_eq!(server.status(CLIENT), 200);
    server.stop();
}

#[test]
fn it_can_be_closed_and_moved() {
    let server = Server::start(Config::new().set("api.enabled", "false"));
    for path in ["/api/temp-bans", "/api/docs", "/"] {
        assert_eq!(server.call("GET", path, "").0, 404, "{path}");
    }
    assert_eq!(server.status(CLIENT), 200);
    // It can be opened without a restart, but not where it was not.
    let file = server.directory.0.join("config.yaml");
    let closed = std::fs::read_to_string(&file).unwrap();
    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let reloaded = server.operate(&["reload"]);
        assert_eq!(reloaded.status.code(), Some(0), "{reloaded:?}");
    };
    let opened = closed.replace("api:\n  enabled: false", "api:\n  enabled: true");
    assert_ne!(closed, opened, "{closed}");
    reload(&opened);
    assert_eq!(server.call("GET", "/api/temp-bans", "").0, 200);
    reload(&closed);
    assert_eq!(server.call("GET", "/api/temp-bans", "").0, 404);
    server.stop();
    let port = harness::free_port();
    let server = Server::start(Config::new().set("api.address", "127.0.0.1").set("api.port", port));
    assert_eq!(server.call("GET", "/api/temp-bans", "").0, 404);
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(call(to, "GET", "/api/temp-bans", &[], "").0.status, 200);
    let file = server.directory.0.join("config.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("api:\n  address: 127.0.0.1\n", "api:\n  address: ''\n")).unwrap();
    assert_eq!(server.operate(&["reload"]).status.code(), Some(0));
    assert_eq!(server.call("GET", "/api/temp-bans", "").0, 404, "moved without a restart");
    let mut kept = Http::connect(to).unwrap();
    for _ in 0..3 {
        assert_eq!(kept.get("/api/radix-stats", &[]).unwrap().status, 200);
    }
    server.stop();
}

#[test]
fn a_request_that_comes_in_pieces_and_after_others_is_answered() {
    let server = Server::start(Config::new());
    let body = r#"{"ip_address":"192.0.2.7","duration":"1h"}"#;
    let mut http = Http::connect(server.config.nginx).unwrap();
    let auth = "GET /auth HTTP/1.1\r\nHost: a\r\nX-Real-IP: 192.0.2.7\r\n\r\n";
    let head = format!("POST /api/ban HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    http.send(format!("{auth}{auth}{head}").as_bytes()).unwrap();
    assert_eq!((http.answer().unwrap().status, http.answer().unwrap().status), (200, 200));
    for byte in body.as_bytes() {
        http.send(&[*byte]).unwrap();
    }
    let answer = http.answer().unwrap();
    assert!(answer.status < 300, "{}", answer.body);
    assert_eq!(http.read_to_end(), b"");
    assert_eq!(server.status(CLIENT), 403);
    // Whoever leaves in the middle, and many who do.
    for cut in [1, 20, head.len(), head.len() + 5] {
        for _ in 0..20 {
            let mut http = Http::connect(server.config.nginx).unwrap();
            http.send(&format!("{head}{body}").as_bytes()[..cut]).unwrap();
        }
    }
    wait_for("all of them to be gone", || {
        let of = server.metrics().by_shard("fail2ban_shard_connections", &[("service", "nginx")]);
        of.iter().all(|count| *count == 0).then_some(())
    });
    server.ok("GET", "/api/temp-bans", "");
    server.stop();
}

/// Listens to events, and has heard that it does.
fn listen(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(harness::DEADLINE)).unwrap();
    stream.write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = [0; 12];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"HTTP/1.1 200");
    stream
}

#[test]
fn connections_have_a_bound_and_their_places_come_free() {
    let server = Server::start(Config::new().set("api.max_connections", 3));
    for _ in 0..2 {
        let listeners: Vec<TcpStream> = (0..3).map(|_| listen(server.config.nginx)).collect();
        let (status, said) = server.call("GET", "/api/status", "");
        assert_eq!(status, 503, "{said}");
        assert!(said["message"].as_str().unwrap().contains("api.max_connections"), "{said}");
        // The command line has places of its own, and so have proxies.
        assert_eq!(server.operate(&["status"]).status.code(), Some(0));
        assert_eq!(server.status(CLIENT), 200);
        drop(listeners);
        // That somebody has gone shows when he is told something.
        wait_for("a place", || (server.call("GET", "/api/status", "").0 == 200).then_some(()));
    }
    server.stop();
}

#[test]
fn edits_of_one_entry_at_once_are_all_answered() {
    let server = Server::start(Config::new().set("api.rate_limiting", "{enabled: false}"));
    let to = server.config.nginx;
    std::thread::scope(|scope| {
        for n in 0..4 {
            scope.spawn(move || {
                for _ in 0..10 {
                    let method = if n % 2 == 0 { "POST" } else { "DELETE" };
                    let begun = Instant::now();
                    let (answer, said) = call(to, method, "/api/blacklist", &[], r#"{"ip_address":"192.0.2.7"}"#);
                    let status = answer.status;
                    assert!(status == 200 || status == 404 && method == "DELETE", "{method}: {status} {said}");
                    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
                }
            });
        }
    });
    server.stop();
}

#[test]
fn an_order_at_the_end_is_written_down_if_it_was_carried_out() {
    let state = Directory::new();
    let config = || {
        let state = state.0.join("state");
        Config::new().set("runtime.state_dir", state.display()).set("api.rate_limiting", "{enabled: false}")
    };
    for round in 0..6_u64 {
        let server = Server::start(config());
        let (to, entry) = (server.config.nginx, format!("192.0.2.{round}"));
        let body = format!(r#"{{"ip_address":"{entry}"}}"#);
        let length = body.len();
        let mut http = Http::connect(to).unwrap();
        let head = "POST /api/blacklist HTTP/1.1\r\nHost: localhost\r\nContent-Length:";
        http.send(format!("{head} {length}\r\n\r\n{body}").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_micros(500 * round));
        server.stop();
        let answered = http.answer().map(|answer| answer.status);
        let server = Server::start(config());
        let (_, listed) = server.call("GET", &format!("/api/blacklist?search={entry}"), "");
        let (_, audit) = server.call("GET", &format!("/api/audit?search={entry}"), "");
        let (listed, noted) = (listed["count"].as_u64().unwrap(), audit["audit"].as_array().unwrap().len());
        assert_eq!(listed, noted as u64, "round {round}, answered {answered:?}: {audit}");
        server.stop();
    }
}

#[test]
fn every_order_is_in_the_record_however_many_come_at_once() {
    let server = Server::start(Config::new().set("api.rate_limiting", "{enabled: false}"));
    let to = server.config.nginx;
    std::thread::scope(|scope| {
        for part in 0..8 {
            scope.spawn(move || {
                for n in 0..150 {
                    let body = format!(r#"{{"ip_address":"10.9.{part}.{n}","duration":"1h"}}"#);
                    assert_eq!(call(to, "POST", "/api/ban", &[], &body).0.status, 200);
                }
            });
        }
    });
    let (mut noted, mut before) = (0, String::new());
    loop {
        let page = server.ok("GET", &format!("/api/audit?limit=1000{before}"), "");
        noted += page["audit"].as_array().unwrap().len();
        let Some(next) = page["next_before"].as_i64() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(noted, 1_200);
    // Whoever orders the same twice means it once.
    for _ in 0..3 {
        let again = server.ok("POST", "/api/ban", r#"{"ip_address":"10.9.0.1"}"#);
        assert_eq!((&again["already"], &again["offences"]), (&true.into(), &1.into()), "{again}");
    }
    server.stop();
}

#[test]
fn operators_are_answered_in_a_storm_of_bans() {
    let server = Server::start(Config::new().set("ban.max_attempts", 1).set("api.rate_limiting", "{enabled: false}"));
    let storm =
        (0..60_000_u32).map(|n| harness::failed_login(&std::net::Ipv4Addr::from_bits(0x0a00_0000 | n).to_string()));
    let storm: Vec<String> = storm.collect();
    let (ended, to) = (std::sync::atomic::AtomicBool::new(false), server.config.nginx);
    let slowest = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                let begun = Instant::now();
                let (answer, said) = call(to, "GET", "/api/status", &[], "");
                slowest = slowest.max(begun.elapsed());
                assert_eq!(answer.status, 200);
                let shards = said["shards"].as_array().unwrap();
                assert!(shards.iter().all(|shard| shard["answers"] == true), "{said}");
            }
            slowest
        });
        for part in storm.chunks(2_000) {
            server.send_tcp(part);
        }
        server.wait_for_bans_everywhere(60_000);
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap()
    });
    record(&format!("the slowest status in a storm of bans: {slowest:?}"));
    server.stop();
}

#[test]
fn whoever_says_no_more_is_answered_all_the_same() {
    let server = Server::start(Config::new());
    let mut stream = TcpStream::connect(server.config.nginx).unwrap();
    stream.set_read_timeout(Some(harness::DEADLINE)).unwrap();
    stream.write_all(b"GET /api/status HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with('}'), "{answer}");
    server.stop();
}

#[test]
fn behind_a_proxy_that_is_not_named_nobody_is_an_administrator() {
    let server = Server::start(Config::new());
    let forwarded = [("X-Forwarded-For", "203.0.113.9")];
    let ban = r#"{"ip_address":"192.0.2.7","duration":"1h"}"#;
    let (answer, said) = call(server.config.nginx, "POST", "/api/ban", &forwarded, ban);
    assert_eq!(answer.status, 403, "{said}");
    assert!(said["message"].as_str().unwrap().contains("nginx.trusted_proxies"), "{said}");
    assert_eq!(server.status(CLIENT), 200);
    // Otherwise the field says nothing at all.
    assert_eq!(call(server.config.nginx, "GET", "/api/temp-bans", &forwarded, "").0.status, 200);
    server.stop();
}

#[test]
fn bans_end_while_the_database_is_away() {
    let Some(mut database) = Postgres::start() else { return };
    let server = Server::start(using(&database).set("api.rate_limiting", "{enabled: false}"));
    server.ok("POST", "/api/ban", r#"{"ip_address":"192.0.2.7","duration":"1h"}"#);
    server.ok("POST", "/api/blacklist", r#"{"ip_address":"192.0.2.8"}"#);
    server.ok("POST", "/api/ban", r#"{"ip_address":"192.0.2.8","duration":"1h"}"#);
    database.stop();
    let unbanned = server.ok("POST", "/api/unban", r#"{"ip_address":"192.0.2.7"}"#);
    assert_eq!((server.status(CLIENT), &unbanned["bans"]), (200, &1.into()), "{unbanned}");
    let unbanned = server.ok("POST", "/api/unban", r#"{"ip_address":"192.0.2.8"}"#);
    assert_eq!(unbanned["still_denied_by"], "192.0.2.8", "{unbanned}");
    assert!(unbanned["message"].as_str().unwrap().contains("database is away"), "{unbanned}");
    server.stop();
}

#[test]
fn who_ended_many_bans_at_once_is_written_down() {
    let server = Server::start(Config::new());
    server.ok("POST", "/api/ban", r#"{"ip_address":"192.0.2.7","duration":"1h"}"#);
    server.ok("POST", "/api/purge-bans", r#"{"created_by":"ada"}"#);
    let history = wait_for("its end to be in the state", || {
        let explained = server.ok("GET", &format!("/api/explain?ip={CLIENT}"), "");
        let last = explained["history"][0].clone();
        (last["lifted_reason"] == "unbanned").then_some(last)
    });
    assert_eq!(history["lifted_by"], "ada", "{history}");
    server.stop();
}

#[test]
fn events_are_told_as_they_happen() {
    let server = Server::start(Config::new());
    let mut stream = TcpStream::connect(server.config.nginx).unwrap();
    stream.set_read_timeout(Some(harness::DEADLINE)).unwrap();
    stream.write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = String::new();
    let mut hear = |what: &str| {
        let begun = Instant::now();
        while !heard.contains(what) {
            assert!(begun.elapsed() < harness::DEADLINE, "{what} is not among {heard}");
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "it ended: {heard}");
            heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    };
    hear("text/event-stream");
    // The first sample says that it listens.
    hear("event: sample");
    server.fail(CLIENT, 5);
    hear("event: ban");
    hear(CLIENT);
    server.ok("POST", "/api/unban", &format!(r#"{{"ip_address":"{CLIENT}"}}"#));
    hear("event: unban");
    server.ok("POST", "/api/whitelist", r#"{"ip_address":"198.51.100.0/24"}"#);
    hear("event: list");
    hear("event: policy");
    // A stream does not hold up the end.
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_million_bans_are_listed_by_the_page() {
    let count = if std::env::var_os("MAILFAIL2BAN_LOAD_SECONDS").is_some() { 1_000_000 } else { 100_000 };
    let server = Server::start(
        Config::new()
            .set("ban.max_attempts", 1)
            .set("ban.max_tracked", 2_000_000)
            .set("api.rate_limiting", "{enabled: false}"),
    );
    let before = server.resident_bytes();
    let address = |n: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 | n).to_string();
    let lines: Vec<String> = (0..count).map(|n| harness::failed_login(&address(n))).collect();
    for part in lines.chunks(20_000) {
        server.send_tcp(part);
    }
    server.wait_for_bans_everywhere(u64::from(count));
    let resident = server.resident_bytes();
    let mut http = Http::connect(server.config.nginx).unwrap();
    // The same question over and over, as long as something goes on: how long the answers took, in order.
    let mut ask_while = |goes_on: &mut dyn FnMut() -> bool| {
        let mut took = Vec::new();
        while goes_on() {
            let begun = Instant::now();
            assert_eq!(http.auth("192.0.2.1").unwrap().status, 200);
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        took
    };
    let begun = Instant::now();
    let alone = ask_while(&mut || begun.elapsed() < Duration::from_millis(500));
    let (mut times, mut meanwhile) = (Vec::new(), Vec::new());
    for query in
        ["", "?sort=expires_at", "?sort=ip_address&order=asc", "?search=0.77", "?ip=10.1.0.0/16", "?limit=1000"]
    {
        let path = format!("/api/temp-bans{query}");
        let to = server.config.nginx;
        let begun = Instant::now();
        let asking = std::thread::spawn(move || (call(to, "GET", &path, &[], ""), begun.elapsed()));
        meanwhile.extend(ask_while(&mut || !asking.is_finished()));
        let ((answer, said), time) = asking.join().unwrap();
        assert_eq!(answer.status, 200);
        if query.is_empty() {
            assert_eq!(said["count"], count);
        }
        times.push(format!("{query:?} {time:?}"));
    }
    meanwhile.sort_unstable();
    record(&format!("{count} bans: first page {}", times.join(", ")));
    for (took, when) in [(alone, "without"), (meanwhile, "while lists are asked for")] {
        let at = |share: usize| took.get(took.len() * share / 100).or(took.last()).copied().unwrap_or_default();
        record(&format!("a verdict {when}: median {:?}, 99 % {:?}, slowest {:?}", at(50), at(99), at(100)));
    }
    record(&format!(
        "memory: {} MiB with the bans, {} MiB more after the lists",
        (resident - before) >> 20,
        server.resident_bytes().saturating_sub(resident) >> 20
    ));
    let begun = Instant::now();
    assert_eq!(server.ok("POST", "/api/purge-bans", "")["purged_count"], count);
    record(&format!("purged in {:?}", begun.elapsed()));
    assert_eq!(server.status(&address(7)), 200);
    server.stop();
}

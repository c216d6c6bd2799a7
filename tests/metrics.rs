//! Metrics as Prometheus gets them: complete, well-formed, explained, and what the examples and the documentation say.

mod harness;

use harness::databases::{Database, Sqlite, using};
use harness::grpc::{CHECK, Caller, HEALTH_CHECK, HEALTH_WATCH, field, question, run};
use harness::peers::{Peer, replace, shipped};
use harness::spop::{self, Engine, Said};
use harness::{Config, Directory, Http, Metrics, Server, failed_login, free_port, need, run_command, tool, wait_for};
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Instant;

/// What was promised before there was anything: names without their prefix, and labels.
const CONTRACT: [(&str, &[&str]); 13] = [
    ("requests_total", &["service", "result"]),
    ("bans_total", &["pattern"]),
    ("current_bans", &["pattern"]),
    ("ban_duration_seconds", &["pattern"]),
    ("pattern_matches_total", &["pattern", "severity"]),
    ("service_requests_total", &["service", "status"]),
    ("service_request_duration_seconds", &["service"]),
    ("database_operations_total", &["operation", "status"]),
    ("database_connections_active", &[]),
    ("config_reloads_total", &["source", "status"]),
    ("config_patterns_loaded", &[]),
    ("uptime_seconds", &[]),
    ("build_info", &["version", "commit"]),
];

const ALERTS: &str = "scripts/examples/prometheus/alerts.yml";
const PROMETHEUS: &str = "scripts/examples/prometheus/prometheus.yml";
const DASHBOARD: &str = "scripts/examples/grafana/mailfail2ban.json";

/// One metric as it is served.
#[derive(Debug, Default)]
struct Served {
    kind: String,
    help: String,
    /// Labels of its series, with their values.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// All metrics of a scrape. It is a failure if a series belongs to none that was announced.
#[track_caller]
fn served(text: &str) -> BTreeMap<String, Served> {
    let mut all: BTreeMap<String, Served> = BTreeMap::new();
    for line in text.lines() {
        let Some((what, rest)) = line.strip_prefix("# ").and_then(|line| line.split_once(' ')) else { continue };
        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let metric = all.entry(name.to_owned()).or_default();
        let place = if what == "HELP" { &mut metric.help } else { &mut metric.kind };
        assert!(place.is_empty(), "announced twice: {line}");
        *place = value.to_owned();
    }
    for sample in Metrics::parse(text).0 {
        let name = base_name(&sample.name, |name| all.get(name).is_some_and(|metric| metric.kind == "histogram"));
        let metric = all.get_mut(name).unwrap_or_else(|| panic!("{} was not announced", sample.name));
        for (label, value) in sample.labels {
            metric.labels.entry(label).or_default().insert(value);
        }
    }
    all
}

/// The name of the metric that a series belongs to.
fn base_name(series: &str, is_histogram: impl Fn(&str) -> bool) -> &str {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
    base.filter(|base| is_histogram(base)).unwrap_or(series)
}

/// A server with everything that has a metric: bans, questions of every kind, a database, and a pattern in it that is
/// faulty. `None` if it cannot be had here.
fn scene() -> Option<(Server, Sqlite)> {
    let database = Sqlite::start()?;
    let server = Server::start(using(&database).set("ban.blacklist", "[203.0.113.1]"));
    database.sql("INSERT INTO patterns (name, regex) VALUES ('broken', '(');");
    server.wait_for_metric("fail2ban_config_faulty_rows", &[], 1);
    server.fail("192.0.2.1", 5);
    server.fail("2001:db8::1", 5);
    server.send_udp([failed_login("198.51.100.1"), "not a line".to_owned()]);
    server.wait_for_status("192.0.2.1", 403);
    server.wait_for_status("2001:db8::1", 403);
    ask_over_spop(&server);
    ask_over_grpc(&server);
    Some((server, database))
}

/// Two greetings, three answers, two farewells: one connection ends as it should, and another breaks a rule.
fn ask_over_spop(server: &Server) {
    let mut engine = Engine::open(server.config.spoa).expect("a greeting");
    assert!(!engine.banned("192.0.2.99"));
    assert!(engine.banned("203.0.113.1"));
    engine.ask(&[]);
    // HAPROXY-DISCONNECT.
    let farewell = b"\x0bstatus-code\x03\0\x07message\x08\x06normal";
    engine.send(&spop::frame(2, 0, 0, farewell)).expect("to say goodbye");
    assert!(matches!(engine.read(), Ok(Some(Said::Disconnect { status: 0, .. }))));
    let mut engine = Engine::open(server.config.spoa).expect("a greeting");
    engine.send(&spop::hello(false)).expect("to greet again");
    assert!(matches!(engine.read(), Ok(Some(Said::Disconnect { status: 4, .. }))));
}

/// Four that are OK, one verdict that is not, one health check of nobody, and two refusals.
fn ask_over_grpc(server: &Server) {
    run(async {
        let caller = Caller::connect(server.config.envoy).await;
        assert!(caller.allows("192.0.2.99").await);
        assert!(!caller.allows("203.0.113.1").await);
        for (path, message, status) in [
            // Nobody is named: let in.
            (CHECK, vec![], "0"),
            (HEALTH_CHECK, vec![], "0"),
            (HEALTH_CHECK, field(1, b"nobody"), "5"),
            ("/nothing/There", question("192.0.2.99", &[]), "12"),
            (CHECK, b"\xff".to_vec(), "13"),
        ] {
            assert_eq!(caller.call(path, &message).await.expect("an answer").grpc_status(), status, "{path}");
        }
        // It never ends, but has begun.
        let watching = caller.clone();
        let watch = tokio::spawn(async move { watching.call(HEALTH_WATCH, &[]).await });
        assert!(caller.allows("192.0.2.99").await);
        watch.abort();
    });
}

/// Asks for `/auth` of two clients, and some other pages; the last answer is a refusal, after which the connection closes.
fn ask_over_http(server: &Server) {
    let mut http = Http::connect(server.config.nginx).expect("a connection");
    let client = |client: &str| format!("GET /auth HTTP/1.1\r\nX-Real-IP: {client}\r\n\r\n");
    // The first three at once: one batch.
    let batch = [client("192.0.2.99"), client("203.0.113.1"), client("nobody")].concat();
    http.send(batch.as_bytes()).expect("to ask");
    for status in [200, 403, 200] {
        assert_eq!(http.answer().expect("an answer").status, status);
    }
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\n\r\n", 404),
        ("POST /health HTTP/1.1\r\n\r\n", 405),
        ("GET /health HTTP/1.1\r\n\r\n", 200),
        ("GET /auth HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ] {
        http.send(request.as_bytes()).expect("to ask");
        assert_eq!(http.answer().expect("an answer").status, status, "{request}");
    }
}

#[test]
fn every_answer_is_counted_by_its_status_and_timed_on_either_driver() {
    for driver in ["auto", "epoll"] {
        let begun = Instant::now();
        let server = Server::start(Config::new().set("ban.blacklist", "[203.0.113.1]").set("runtime.driver", driver));
        let status = |metrics: &Metrics, service: &str| -> BTreeMap<String, u64> {
            let of = |name: &str, series: &harness::Sample| {
                series.name == name && series.labels[0] == ("service".to_owned(), service.to_owned())
            };
            let series = metrics.0.iter().filter(|series| of("fail2ban_service_requests_total", series));
            series.map(|series| (series.labels[1].1.clone(), series.value as u64)).filter(|(_, n)| *n > 0).collect()
        };
        // Whoever waited for the start has asked, too.
        let before = status(&server.metrics(), "nginx");
        ask_over_http(&server);
        ask_over_spop(&server);
        ask_over_grpc(&server);

        const TOOK: &str = "fail2ban_service_request_duration_seconds";
        let timed = |metrics: &Metrics, service: &str| metrics.get(&format!("{TOOK}_count"), &[("service", service)]);
        // Clients hear of an answer a moment before it is counted as written.
        let metrics = wait_for("all answers to be counted", || {
            let metrics = server.metrics();
            let all = |service| timed(&metrics, service) == status(&metrics, service).values().sum::<u64>();
            ["spoa", "envoy", "nginx"].into_iter().all(all).then_some(metrics)
        });
        let is = |service: &str, expected: &[(&str, u64)]| {
            let expected = expected.iter().map(|(status, count)| ((*status).to_owned(), *count)).collect();
            assert_eq!(status(&metrics, service), expected, "{service}, {driver}");
        };
        is("spoa", &[("ack", 3), ("hello", 2), ("disconnect", 2)]);
        is("envoy", &[("OK", 5), ("PERMISSION_DENIED", 1), ("NOT_FOUND", 1), ("UNIMPLEMENTED", 1), ("INTERNAL", 1)]);
        let http = [("200", 3), ("403", 1), ("404", 1), ("405", 1), ("400", 1)];
        let more = before.iter().map(|(status, count)| (status.as_str(), *count));
        let mut expected: BTreeMap<&str, u64> = more.collect();
        http.into_iter().for_each(|(status, count)| *expected.entry(status).or_default() += count);
        is("nginx", &expected.into_iter().collect::<Vec<_>>());

        for service in ["spoa", "envoy", "nginx"] {
            let count = timed(&metrics, service);
            let sum = metrics.value(&format!("{TOOK}_sum"), &[("service", service)]);
            assert!(sum > 0.0 && sum < begun.elapsed().as_secs_f64() * count as f64, "{service}: {sum} s");
            let is_bucket =
                |series: &&harness::Sample| series.name == format!("{TOOK}_bucket") && series.labels[0].1 == service;
            let buckets: Vec<u64> = metrics.0.iter().filter(is_bucket).map(|series| series.value as u64).collect();
            assert_eq!(buckets.len(), 19, "{service}");
            assert!(buckets.is_sorted(), "{service}: {buckets:?}");
            assert_eq!(buckets[18], count, "{service}");
        }
        server.stop();
    }
}

#[test]
fn what_is_served_is_well_formed_promised_and_documented() {
    let Some((server, _database)) = scene() else { return };
    let text = server.scrape();
    let metrics = served(&text);
    for (name, metric) in &metrics {
        assert!(!metric.help.is_empty(), "{name} has no HELP");
        assert!(["counter", "gauge", "histogram"].contains(&metric.kind.as_str()), "{name}: {metric:?}");
        for value in metric.labels.values().flatten() {
            // Also as a network, and with a port.
            let address = value.split('/').next().unwrap_or_default();
            assert!(address.parse::<IpAddr>().is_err() && value.parse::<SocketAddr>().is_err(), "{name}: {value}");
        }
    }

    for (name, labels) in CONTRACT {
        let metric = metrics.get(&format!("fail2ban_{name}")).unwrap_or_else(|| panic!("{name} is not there"));
        let own = metric.labels.keys().filter(|label| *label != "le").map(String::as_str).collect::<BTreeSet<_>>();
        assert_eq!(own, labels.iter().copied().collect(), "{name}");
    }
    let bounds: BTreeSet<&str> =
        metrics["fail2ban_ban_duration_seconds"].labels["le"].iter().map(String::as_str).collect();
    assert!(["300", "259200", "+Inf"].iter().all(|bound| bounds.contains(bound)), "five minutes to 72 h: {bounds:?}");

    documented(&metrics);

    if need("promtool") {
        let mut promtool = tool("promtool");
        promtool.args(["check", "metrics"]);
        let output = run_command(promtool, text.as_bytes());
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    }
    server.stop();
}

/// Checks that the table in the documentation has the metrics that are served: name, labels, their values where it
/// names them, and meaning.
#[track_caller]
fn documented(metrics: &BTreeMap<String, Served>) {
    let page = shipped("docs/monitoring.md");
    let code = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let mut documented = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| `fail2ban_")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [name, labels, help] = cells[..] else { panic!("three cells: {row}") };
        let metric = metrics.get(&code(name)).unwrap_or_else(|| panic!("is not served: {row}"));
        assert_eq!(help.trim(), metric.help, "{name}");
        let mut served = metric.labels.clone();
        served.remove("le");
        for label in labels.split(';').map(str::trim).filter(|label| !label.is_empty()) {
            let (label, values) = label.split_once(": ").unwrap_or((label, ""));
            let found = served.remove(&code(label)).unwrap_or_else(|| panic!("has no {label}: {row}"));
            let values: BTreeSet<String> = values.split(", ").map(str::to_owned).collect();
            assert!(values.contains("") || values == found, "{row}\n{found:?}");
        }
        assert!(served.is_empty(), "{row} lacks {served:?}");
        assert!(documented.insert(code(name)), "twice: {row}");
    }
    let missing: Vec<_> = metrics.keys().filter(|name| !documented.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/monitoring.md lacks {missing:?}");
}

#[test]
fn operators_requests_are_counted_and_any_path_will_do() {
    let users = "{enabled: true, username: ada, password: secret}";
    let server = Server::start(Config::new().set("api.basic_auth", users).set("prometheus.path", "/:m"));
    for _ in 0..3 {
        assert_eq!(server.call("GET", "/api/status", "").0, 401);
    }
    assert_eq!(server.operate(&["status"]).status.code(), Some(0));
    let text = harness::Http::connect(server.config.metrics).unwrap().get("/:m", &[]).unwrap().body;
    let metrics = harness::Metrics::parse(&text);
    let counted = |status| metrics.get("fail2ban_service_requests_total", &[("service", "api"), ("status", status)]);
    assert_eq!((counted("401"), counted("200"), counted("429")), (3, 1, 0));
    server.stop();
}

#[test]
fn promtool_finds_the_examples_right() {
    if !need("promtool") {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/examples/prometheus");
    let directory = Directory::new();
    directory.file("dashboard.yml", dashboard_as_rules());
    for (command, file) in [
        (&["check", "rules"][..], folder.join("alerts.yml")),
        (&["test", "rules"], folder.join("alerts_test.yml")),
        (&["check", "config"], folder.join("prometheus.yml")),
        // Where each panel's query becomes a rule of its own.
        (&["check", "rules"], directory.0.join("dashboard.yml")),
    ] {
        let mut promtool = tool("promtool");
        promtool.args(command).arg(&file);
        let output = run_command(promtool, b"");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {command:?} {}: {said}", file.display());
    }
}

/// The queries of the dashboard, as Prometheus gets them.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&shipped(DASHBOARD)).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries = targets.map(|target| target["expr"].as_str().expect("a query"));
    let filled: Vec<String> =
        queries.map(|query| query.replace("$__rate_interval", "1m").replace("$instance", ".*")).collect();
    assert!(filled.len() > 10 && filled.iter().all(|query| !query.contains('$')), "{filled:?}");
    filled
}

fn dashboard_as_rules() -> String {
    let rules = dashboard_queries().into_iter().enumerate();
    let rules: Vec<Value> =
        rules.map(|(at, query)| serde_json::json!({"record": format!("panel:{at}"), "expr": query})).collect();
    serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()
}

#[test]
fn prometheus_runs_by_the_examples() {
    if !need("prometheus") {
        return;
    }
    let Some((server, _database)) = scene() else { return };
    ask_over_http(&server);
    let metrics = served(&server.scrape());
    let queries = dashboard_queries();
    let named = Regex::new("fail2ban_[a-z0-9_]+").expect("a pattern");
    for text in queries.iter().chain([&shipped(ALERTS)]) {
        for name in named.find_iter(text) {
            let is_histogram = |name: &str| metrics.get(name).is_some_and(|metric| metric.kind == "histogram");
            let name = base_name(name.as_str(), is_histogram);
            assert!(metrics.contains_key(name), "{name} is not served: {text}");
        }
    }

    let directory = Directory::new();
    directory.file("alerts.yml", shipped(ALERTS));
    let ours = server.config.metrics.to_string();
    let config = replace(&shipped(PROMETHEUS), &[("127.0.0.1:2112", &ours), ("interval: 15s", "interval: 1s")]);
    directory.file("prometheus.yml", config);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = tool("prometheus");
    command.current_dir(&directory.0).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
    command.arg(format!("--web.listen-address={address}"));
    let mut prometheus = Peer::start(command);
    prometheus.wait_for_port(address);

    let up = "up{job=\"mailfail2ban\"} == 1 and scrape_samples_scraped > 100";
    prometheus.wait_for("a scrape", |_| (!query(address, up).is_empty()).then_some(()));
    // Rates take two.
    prometheus.wait_for("a second scrape", |_| {
        (!query(address, "rate(fail2ban_uptime_seconds[1m])").is_empty()).then_some(())
    });
    for text in &queries {
        assert!(!query(address, text).is_empty(), "a panel without anything on it: {text}");
    }
    let is_active = |rule: &Value| rule["state"] != "inactive";
    let rules = prometheus.wait_for("an alert about the pattern that is broken", |_| {
        let rules = api(address, "/api/v1/rules")?["groups"][0]["rules"].as_array()?.clone();
        rules.iter().any(|rule| rule["name"] == "Mailfail2banRowsFaulty" && is_active(rule)).then_some(rules)
    });
    assert!(rules.len() > 10);
    for rule in &rules {
        // The others have no reason, but that a machine may be slow.
        let expected =
            ["RowsFaulty", "Slow", "ReplicaLag", "ShardNotAnswering"].map(|name| format!("Mailfail2ban{name}"));
        assert_eq!(rule["health"], "ok", "{rule}");
        assert!(!is_active(rule) || expected.iter().any(|name| rule["name"] == **name), "{rule}");
    }
    prometheus.stop();
    server.stop();
}

/// What Prometheus answers, if it answers.
fn api(address: SocketAddr, path: &str) -> Option<Value> {
    let mut http = Http::connect(address).ok()?;
    // HTTP/1.0: the answer ends with the connection.
    http.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let answer = String::from_utf8(http.read_to_end()).ok()?;
    let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    (answer["status"] == "success").then(|| answer["data"].clone())
}

/// The series that a query finds now.
#[track_caller]
fn query(address: SocketAddr, text: &str) -> Vec<Value> {
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let found = wait_for("an answer of Prometheus", || api(address, &format!("/api/v1/query?query={encoded}")));
    found["result"].as_array().expect("a list").clone()
}

#[test]
fn datagrams_that_find_the_kernels_buffers_full_are_counted() {
    /// More than the buffers of both shards hold.
    const SENT: u64 = 200_000;

    let server = Server::start(Config::new());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    server.signal(libc::SIGSTOP);
    for _ in 0..SENT {
        socket.send_to(b"<22>x: y", server.config.syslog).expect("to send to loopback");
    }
    server.signal(libc::SIGCONT);
    wait_for("every datagram to be received or dropped", || {
        let metrics = server.metrics();
        let received = metrics.get("fail2ban_syslog_received_total", &[("transport", "udp")]);
        let dropped = metrics.get("fail2ban_syslog_dropped_total", &[("reason", "kernel_buffer_full")]);
        (received > 0 && dropped > 0 && received + dropped == SENT).then_some(())
    });
    server.stop();
}

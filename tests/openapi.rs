//! The API's description: the committed copy is the program's own, its page works, and the running server answers as it
//! says.

#![allow(clippy::disallowed_methods, reason = "tests wait for other processes")]

mod harness;

use harness::operator::call;
use harness::peers::Program;
use harness::{Config, Server, run_command};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json")
}

#[test]
fn the_committed_description_is_the_programs() {
    let server = Server::start(Config::new().set("api.rate_limiting", "{enabled: false}"));
    let (answer, described) = call(server.config.nginx, "GET", "/api/openapi.json", &[], "");
    assert_eq!((answer.status, answer.field("Content-Type")), (200, Some("application/json")));
    if std::env::var_os("MAILFAIL2BAN_WRITE_OPENAPI").is_some() {
        std::fs::write(committed(), &answer.body).unwrap();
    }
    let kept = std::fs::read_to_string(committed()).unwrap();
    assert!(
        kept == answer.body,
        "docs/openapi.json is not what the program says; MAILFAIL2BAN_WRITE_OPENAPI=1 scripts/test openapi writes it"
    );
    // Nothing is there that is not described, and the other way round.
    let paths = described["paths"].as_object().unwrap();
    for (path, item) in paths {
        for method in ["get", "post", "put", "delete", "patch"] {
            if path == "/api/events" || method == "post" && path == "/api/reload" {
                continue;
            }
            let (answer, said) = call(server.config.nginx, &method.to_uppercase(), path, &[], "[]");
            match item.get(method) {
                Some(operation) => {
                    let responses = operation["responses"].as_object().unwrap();
                    assert!(responses.contains_key(&answer.status.to_string()), "{method} {path}: {}", answer.status);
                }
                None => assert_eq!((answer.status, &said["success"]), (405, &Value::Bool(false)), "{method} {path}"),
            }
        }
    }
    server.stop();
}

#[test]
fn the_interactive_description_is_served_whole() {
    let server = Server::start(Config::new().set("api.rate_limiting", "{enabled: false}"));
    let get = |path: &str| call(server.config.nginx, "GET", path, &[], "").0;
    let moved = get("/api/docs");
    assert_eq!((moved.status, moved.field("Location")), (308, Some("docs/")));
    let page = get("/api/docs/");
    assert_eq!(page.status, 200);
    // All that it loads is there, and nothing comes from elsewhere.
    let mut loaded = 0;
    for part in page.body.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css")) {
        let file = get(&format!("/api/docs/{}", part.trim_start_matches("./")));
        assert_eq!((file.status, part.contains("//")), (200, false), "{part}");
        loaded += 1;
    }
    assert!(loaded >= 3, "{}", page.body);
    assert!(get("/api/docs/swagger-initializer.js").body.contains("../openapi.json"));
    assert_eq!(get("/api/docs/nothing.js").status, 404);
    server.stop();
}

/// What schemathesis is told beyond the document, which cannot say it: large networks need `force`, a ban has a shortest
/// and a longest duration, and the client of a DELETE stands in the query or in the body, but not in both.
const BEYOND: &str = r#"
[cache]
enabled = false
[warnings]
fail-on = ["unresolvable_reference"]
[[operations]]
include-method = ["POST", "DELETE"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 409]
"#;

#[test]
fn the_description_is_one() {
    let Some(python) = Program::module("openapi_spec_validator/__main__.py") else { return };
    let mut command = python.command();
    command.args(["-m", "openapi_spec_validator"]).arg(committed());
    let output = run_command(command, b"");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_server_answers_as_the_description_says() {
    let Some(python) = Program::module("schemathesis/cli/__main__.py") else { return };
    let server = Server::start(Config::new().set("api.rate_limiting", "{enabled: false}"));
    let directory = server.directory.0.join("schemathesis");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("beyond.toml"), BEYOND).unwrap();
    let mut command = python.command();
    command
        .args(["-m", "schemathesis.cli", "--config-file", "beyond.toml", "run"])
        .arg(format!("http://{}/api/openapi.json", server.config.nginx))
        // The stream of events has no end; the others need what this document has not: owners and links.
        .args(["--exclude-path", "/api/events", "--checks", "all"])
        .args(["--exclude-checks", "object_level_authorization,use_after_free,ensure_resource_availability"])
        .args(["--max-examples", "40", "--seed", "1", "--generation-database", "none", "--continue-on-failure"])
        .args(["--output-sanitize", "false", "--request-timeout", "10", "--no-color"])
        .current_dir(&directory)
        .env("HYPOTHESIS_STORAGE_DIRECTORY", directory.join("hypothesis"))
        .env("NO_PROXY", "*");
    let output = run_command(command, b"");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("passed"), "{said}");
    assert_eq!(server.call("GET", "/health", "").0, 200);
    server.stop();
}

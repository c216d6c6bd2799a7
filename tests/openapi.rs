//! The API's description: the committed copy is the program's own, its page works, and the running server answers as it
//! says.

#![allow(clippy::disallowed_methods, reason = "tests wait for other processes")]

mod harness;

use harness::operator::call;
use harness::{Config, Server};
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

//! An operator, over HTTP: asks the API of a running server, and reads its answers.

use super::{Answer, Http, PROGRAM, Server, run_command};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Command, Output};

/// Asks once, on a connection of its own. The answer, and its body as JSON (null if it is none).
#[track_caller]
pub fn call(to: SocketAddr, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> (Answer, Value) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request.push_str(&format!("\r\n{body}"));
    let answer = Http::connect(to).and_then(|mut http| http.send(request.as_bytes()).and_then(|()| http.answer()));
    let answer = answer.unwrap_or_else(|why| panic!("{method} {path}: {why}"));
    let value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
    (answer, value)
}

impl Server {
    /// Asks the API on nginx's port.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (answer, value) = call(self.config.nginx, method, path, &[], body);
        (answer.status, value)
    }

    /// The same, and it must go well.
    #[track_caller]
    pub fn ok(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, value) = self.call(method, path, body);
        assert!(status < 300 && value["success"] == true, "{method} {path} {body}: {status} {value}\n{}", self.text());
        value
    }

    /// Runs a command for the running server, in its directory.
    pub fn operate(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(&self.directory.0).env_clear();
        run_command(command, b"")
    }
}

//! Speaks with a running server, over the control socket in its state directory, in the words of its API.
//!
//! One request a connection, as HTTP/1.0: the answer ends where the connection does, also that of a stream of events.

use super::table::plain;
use crate::config;
use crate::control::CONTROL_SOCKET;
use serde_json::Value;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take: ending a million bans takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest head of an answer, and most fields in it.
const HEAD_BYTES_MAX: u64 = 64 << 10;
const FIELDS_MAX: usize = 64;

/// Longest answer: a page of a thousand entries is a few hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Why there is no answer. `Display` is a sentence.
#[derive(Debug)]
pub enum RemoteFault {
    /// Nobody answers there.
    NotThere(PathBuf, io::Error),
    /// There is no state directory, and so no socket.
    Nowhere,
    /// The configuration that says where the socket is cannot be read.
    Configuration(config::Faults),
    /// The answer ended early, or is none.
    Broken(String),
    /// A stream of events has ended.
    Ended,
    /// The server says no, in its words.
    Refused(String),
}

impl fmt::Display for RemoteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteFault::NotThere(path, why) => write!(
                f,
                "cannot reach the server at {}: {why}. Is it running, with this configuration, and may this user open \
                 the socket?",
                path.display()
            ),
            RemoteFault::Nowhere => f.write_str(
                "runtime.state_dir is empty, so the server has no control socket. Set it, or use the API over HTTP",
            ),
            RemoteFault::Configuration(faults) => faults.fmt(f),
            RemoteFault::Broken(what) => write!(f, "the server's answer cannot be read: {what}"),
            RemoteFault::Ended => {
                f.write_str("the server has ended the stream, because it ends or its settings changed")
            }
            RemoteFault::Refused(message) => f.write_str(message),
        }
    }
}

/// Where a server is reached.
#[derive(Clone, Debug)]
pub struct Remote(PathBuf);

impl Remote {
    /// At this socket, else at that of the server with the configuration at `config`.
    ///
    /// # Errors
    ///
    /// If the configuration cannot be read, or says that there is no state.
    pub fn new(socket: Option<PathBuf>, config: Option<&Path>) -> Result<Remote, RemoteFault> {
        if let Some(socket) = socket {
            return Ok(Remote(socket));
        }
        let path = config::locate(config).map_err(RemoteFault::Configuration)?;
        // A file that is faulty now was not when the server took it, and this is when somebody needs to ask what goes on.
        let draft = config::draft(&path).map_err(RemoteFault::Configuration)?;
        match draft.settings().runtime.state_dir.as_str() {
            "" => Err(RemoteFault::Nowhere),
            directory => Ok(Remote(Path::new(directory).join(CONTROL_SOCKET))),
        }
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    ///
    /// If there is no answer, or it is a refusal.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, RemoteFault> {
        let (status, answer) = self.send(method, path, body, Some(PATIENCE))?;
        let mut text = Vec::new();
        answer.take(ANSWER_BYTES_MAX).read_to_end(&mut text).map_err(broken)?;
        let value: Value = serde_json::from_slice(&text).map_err(|why| RemoteFault::Broken(why.to_string()))?;
        if status < 400 {
            return Ok(value);
        }
        let message =
            value.get("message").and_then(Value::as_str).unwrap_or("the server refuses, and does not say why");
        let about = value.get("ip_address").and_then(Value::as_str).filter(|about| !message.contains(*about));
        // Part of it may be what somebody else wrote.
        let mut said = plain(&Value::String(match about {
            Some(about) => format!("{about}: {message}"),
            None => message.to_owned(),
        }));
        let faults = value.get("faults").and_then(Value::as_array).into_iter().flatten();
        for fault in faults.filter(|fault| !fault.as_str().is_some_and(|fault| message.contains(fault))) {
            said.push('\n');
            said.push_str(&plain(fault));
        }
        Err(RemoteFault::Refused(said))
    }

    /// Listens to events, and gives each to `hear` with its name, until that says no or the server ends.
    ///
    /// # Errors
    ///
    /// If there is no answer, or it is a refusal.
    pub fn listen(&self, mut hear: impl FnMut(&str, &str) -> bool) -> Result<(), RemoteFault> {
        let (status, answer) = self.send("GET", "/api/events", None, None)?;
        if status >= 400 {
            return Err(RemoteFault::Refused(format!("the server refuses with status {status}")));
        }
        let mut name = String::new();
        for line in answer.lines() {
            let line = line.map_err(broken)?;
            if let Some(event) = line.strip_prefix("event:") {
                event.trim().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data:")
                && !hear(&name, data.trim())
            {
                return Ok(());
            }
        }
        Err(RemoteFault::Ended)
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        patience: Option<Duration>,
    ) -> Result<(u16, BufReader<UnixStream>), RemoteFault> {
        let mut stream = UnixStream::connect(&self.0).map_err(|why| RemoteFault::NotThere(self.0.clone(), why))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.set_read_timeout(patience).and_then(|()| stream.write_all(request.as_bytes())).map_err(broken)?;
        let mut answer = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if (&mut answer).take(HEAD_BYTES_MAX).read_until(b'\n', &mut head).map_err(broken)? == 0 {
                return Err(RemoteFault::Broken("it ended in its head".to_owned()));
            }
            if head.len() as u64 > HEAD_BYTES_MAX {
                return Err(RemoteFault::Broken("its head is too long".to_owned()));
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        response.parse(&head).map_err(|why| RemoteFault::Broken(why.to_string()))?;
        Ok((response.code.unwrap_or(0), answer))
    }
}

fn broken(why: io::Error) -> RemoteFault {
    RemoteFault::Broken(why.to_string())
}

/// Who types, for the record: whoever became root to do so, else the user. It is believed, as everything is that comes over
/// the control socket.
#[expect(clippy::disallowed_methods, reason = "who types is no setting")]
pub fn who_types() -> Option<String> {
    let named = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    named("SUDO_USER").or_else(|| named("USER"))
}

/// A path with a query of these keys and values, those that are there.
pub fn with_query(path: &str, query: &[(&str, Option<String>)]) -> String {
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    for (key, value) in query {
        if let Some(value) = value {
            text.append_pair(key, value);
        }
    }
    match text.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_what_is_there_and_is_escaped() {
        let query = [("ip", Some("2001:db8::/32".to_owned())), ("cursor", None), ("search", Some("a b&c".to_owned()))];
        assert_eq!(with_query("/api/x", &query), "/api/x?ip=2001%3Adb8%3A%3A%2F32&search=a+b%26c");
        assert_eq!(with_query("/api/x", &[("cursor", None)]), "/api/x");
    }

    #[test]
    fn where_nobody_listens_it_says_so() {
        let remote = Remote::new(Some("/nonexistent/control.sock".into()), None).unwrap();
        let said = remote.ask("GET", "/api/status", None).unwrap_err().to_string();
        assert!(said.starts_with("cannot reach the server at /nonexistent/control.sock: "), "{said}");
    }
}

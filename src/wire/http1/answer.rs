//! Answers, appended to a buffer that the caller writes out. Nothing is allocated once that buffer is warm.
//!
//! `Date` is left out: this code has no clock, its readers (proxies, health checkers) throw the field away, and it
//! would be a third of the bytes of the commonest answer. RFC 9110 §6.6.1 wants it from servers that have a clock.

use std::net::IpAddr;

use super::super::denial::{push_ip, push_number};
use super::refusal::Refusal;

pub use super::super::denial::Denial;

/// How an answer is sent: with its content or (to HEAD) the fields only, and what happens to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    connection: Connection,
    content: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    /// Stays open, as is the rule in HTTP/1.1: nothing is said.
    Stays,
    /// Stays open, and an HTTP/1.0 client that asked for it is told so.
    KeepAlive,
    Close,
}

impl Delivery {
    pub(super) const KEEP_ALIVE: Delivery = Delivery { connection: Connection::Stays, content: true };
    pub(super) const KEEP_ALIVE_HTTP10: Delivery = Delivery { connection: Connection::KeepAlive, content: true };
    /// The connection closes after the answer. By itself for answers to no request, as [`Refusal::Timeout`].
    pub const CLOSE: Delivery = Delivery { connection: Connection::Close, content: true };

    /// The same, but the connection closes after it: a server that shuts down says so.
    #[must_use]
    pub fn closing(self) -> Delivery {
        Delivery { connection: Connection::Close, ..self }
    }

    /// Whether the caller has to close the connection after this answer.
    pub fn closes(self) -> bool {
        self.connection == Connection::Close
    }

    pub(super) fn without_content(self) -> Delivery {
        Delivery { content: false, ..self }
    }

    /// What ends the fields, the last field's line end first.
    fn fields_end(self) -> &'static [u8] {
        match self.connection {
            Connection::Stays => b"\r\n\r\n",
            Connection::KeepAlive => b"\r\nConnection: keep-alive\r\n\r\n",
            Connection::Close => b"\r\nConnection: close\r\n\r\n",
        }
    }
}

/// What a 403 contains (`nginx.return_json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenialContent {
    Empty,
    Json,
}

/// 200: `client` may come in.
pub fn allowed(out: &mut Vec<u8>, client: IpAddr, delivery: Delivery) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Fail2ban-Status: allowed\r\nX-Fail2ban-IP: ");
    push_ip(out, client);
    out.extend_from_slice(delivery.fields_end());
}

/// 200: the question named no client that could be looked up, and those are let in.
pub fn unknown_allowed(out: &mut Vec<u8>, delivery: Delivery) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Fail2ban-Status: unknown");
    out.extend_from_slice(delivery.fields_end());
}

/// 403: the question named no client that could be looked up, and those are kept out.
pub fn unknown_denied(out: &mut Vec<u8>, content: DenialContent, delivery: Delivery) {
    out.extend_from_slice(b"HTTP/1.1 403 Forbidden\r\nX-Fail2ban-Status: unknown\r\n");
    match content {
        DenialContent::Empty => push_no_content(out, delivery),
        DenialContent::Json => push_content(out, delivery, |out| out.extend_from_slice(br#"{"status":"unknown"}"#)),
    }
}

/// 403: `denial.client` is kept out.
pub fn denied(out: &mut Vec<u8>, denial: &Denial<'_>, content: DenialContent, delivery: Delivery) {
    out.extend_from_slice(b"HTTP/1.1 403 Forbidden\r\nX-Fail2ban-Status: denied\r\nX-Fail2ban-IP: ");
    push_ip(out, denial.client);
    out.extend_from_slice(b"\r\n");
    if !denial.short_reason().is_empty() {
        out.extend_from_slice(b"X-Fail2ban-Reason: ");
        denial.push_visible_reason(out);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(seconds) = denial.retry_after_seconds() {
        out.extend_from_slice(b"Retry-After: ");
        push_number(out, seconds);
        out.extend_from_slice(b"\r\n");
    }
    match content {
        DenialContent::Empty => push_no_content(out, delivery),
        DenialContent::Json => push_content(out, delivery, |out| denial.push_json(out)),
    }
}

/// 200 with a JSON document that the caller has made: `/health` and other reports.
pub fn json(out: &mut Vec<u8>, document: &[u8], delivery: Delivery) {
    // A report is out of date at once.
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n");
    push_content(out, delivery, |out| out.extend_from_slice(document));
}

/// 200 if the server can answer questions, else 503.
pub fn ready(out: &mut Vec<u8>, is_ready: bool, delivery: Delivery) {
    let (status_line, document): (&[u8], &[u8]) = if is_ready {
        (b"HTTP/1.1 200 OK\r\n", br#"{"status":"ready"}"#)
    } else {
        (b"HTTP/1.1 503 Service Unavailable\r\n", br#"{"status":"not ready"}"#)
    };
    out.extend_from_slice(status_line);
    out.extend_from_slice(b"Cache-Control: no-store\r\n");
    push_content(out, delivery, |out| out.extend_from_slice(document));
}

/// 503 for what would have been answered a moment ago.
pub fn ending(out: &mut Vec<u8>, delivery: Delivery) {
    out.extend_from_slice(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n");
    push_fault(out, "the program is ending", delivery);
}

/// 404: nothing is at this path.
pub fn not_found(out: &mut Vec<u8>, delivery: Delivery) {
    out.extend_from_slice(b"HTTP/1.1 404 Not Found\r\n");
    push_fault(out, "nothing is here; questions go to /auth", delivery);
}

/// 405: a path that only reports (`/health` and the like) was asked with a method other than GET and HEAD.
pub fn method_not_allowed(out: &mut Vec<u8>, delivery: Delivery) {
    out.extend_from_slice(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\n");
    push_fault(out, "only GET and HEAD are possible here", delivery);
}

/// The answer to a refused request. The connection closes after it, whatever `delivery` says.
pub fn refusal(out: &mut Vec<u8>, refusal: Refusal, delivery: Delivery) {
    let status_line: &[u8] = match refusal.status() {
        408 => b"HTTP/1.1 408 Request Timeout\r\n",
        414 => b"HTTP/1.1 414 URI Too Long\r\n",
        431 => b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
        501 => b"HTTP/1.1 501 Not Implemented\r\n",
        505 => b"HTTP/1.1 505 HTTP Version Not Supported\r\n",
        _ => b"HTTP/1.1 400 Bad Request\r\n",
    };
    out.extend_from_slice(status_line);
    push_fault(out, refusal.message(), delivery.closing());
}

/// The status code at the start of an answer; `None` if there is none.
pub fn status(answer: &[u8]) -> Option<u16> {
    let code: &[u8; 3] = answer.strip_prefix(b"HTTP/1.1 ")?.first_chunk()?;
    code.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| 10 * number + u16::from(byte - b'0')))
}

/// `message` is ours: nothing in it needs an escape.
fn push_fault(out: &mut Vec<u8>, message: &'static str, delivery: Delivery) {
    push_content(out, delivery, |out| {
        out.extend_from_slice(br#"{"success":false,"message":""#);
        out.extend_from_slice(message.as_bytes());
        out.extend_from_slice(br#""}"#);
    });
}

fn push_no_content(out: &mut Vec<u8>, delivery: Delivery) {
    out.extend_from_slice(b"Content-Length: 0");
    out.extend_from_slice(delivery.fields_end());
}

/// The last fields, and the JSON that `write` appends, unless it is only to be counted.
fn push_content(out: &mut Vec<u8>, delivery: Delivery, write: impl FnOnce(&mut Vec<u8>)) {
    // The length stands before the content and is known after it: write the content first, then turn the two round.
    let start = out.len();
    write(out);
    let content_bytes = out.len() - start;
    out.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: ");
    push_number(out, content_bytes as u64);
    out.extend_from_slice(delivery.fields_end());
    if let Some(written) = out.get_mut(start..) {
        written.rotate_left(content_bytes);
    }
    if !delivery.content {
        out.truncate(out.len() - content_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HEAD_ONLY: Delivery = Delivery { connection: Connection::Stays, content: false };

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        // Answers are appended: what is there already stays.
        let mut out = b"before".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Checks what every answer has to have, by another's parser, and gives back its content.
    fn content(answer: &str, delivery: Delivery) -> &str {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let head_bytes = response.parse(answer.as_bytes()).unwrap().unwrap();
        let (head, content) = answer.split_at(head_bytes);
        let field = |name: &str| {
            let mut found = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            let value = found.next().map(|header| std::str::from_utf8(header.value).unwrap());
            assert!(found.next().is_none(), "{name} twice in {head}");
            value
        };
        let length: usize = field("Content-Length").unwrap().parse().unwrap();
        assert_eq!(content.len(), if delivery.content { length } else { 0 }, "{answer}");
        assert_eq!(field("Content-Type").is_some(), length > 0, "{answer}");
        let connection = match delivery.connection {
            Connection::Stays => None,
            Connection::KeepAlive => Some("keep-alive"),
            Connection::Close => Some("close"),
        };
        assert_eq!(field("Connection"), connection, "{answer}");
        content
    }

    #[test]
    fn allowed_says_who() {
        assert_eq!(
            written(|out| allowed(out, ip("192.0.2.7"), Delivery::KEEP_ALIVE)),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Fail2ban-Status: allowed\r\nX-Fail2ban-IP: 192.0.2.7\r\n\r\n"
        );
        assert_eq!(
            written(|out| allowed(out, ip("2001:db8::7"), Delivery::KEEP_ALIVE_HTTP10)),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Fail2ban-Status: allowed\r\nX-Fail2ban-IP: 2001:db8::7\r\n\
             Connection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            written(|out| unknown_allowed(out, Delivery::CLOSE)),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Fail2ban-Status: unknown\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn denied_says_why_and_how_long() {
        let denial = Denial {
            client: ip("192.0.2.7"),
            reason: "5 failures (dovecot)",
            retry_after: Some(Duration::from_millis(299_001)),
        };
        assert_eq!(
            written(|out| denied(out, &denial, DenialContent::Empty, Delivery::KEEP_ALIVE)),
            "HTTP/1.1 403 Forbidden\r\nX-Fail2ban-Status: denied\r\nX-Fail2ban-IP: 192.0.2.7\r\n\
             X-Fail2ban-Reason: 5 failures (dovecot)\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(
            written(|out| denied(out, &denial, DenialContent::Json, Delivery::CLOSE)),
            "HTTP/1.1 403 Forbidden\r\nX-Fail2ban-Status: denied\r\nX-Fail2ban-IP: 192.0.2.7\r\n\
             X-Fail2ban-Reason: 5 failures (dovecot)\r\nRetry-After: 300\r\nContent-Type: application/json\r\n\
             Content-Length: 86\r\nConnection: close\r\n\r\n\
             {\"status\":\"denied\",\"ip\":\"192.0.2.7\",\"reason\":\"5 failures (dovecot)\",\"retry_after\":300}"
        );
        let permanent = Denial { reason: "", retry_after: None, ..denial };
        assert_eq!(
            written(|out| denied(out, &permanent, DenialContent::Empty, Delivery::KEEP_ALIVE)),
            "HTTP/1.1 403 Forbidden\r\nX-Fail2ban-Status: denied\r\nX-Fail2ban-IP: 192.0.2.7\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let answer = written(|out| denied(out, &permanent, DenialContent::Json, Delivery::KEEP_ALIVE));
        assert_eq!(
            content(&answer, Delivery::KEEP_ALIVE),
            r#"{"status":"denied","ip":"192.0.2.7","reason":"","retry_after":null}"#
        );
        let answer = written(|out| unknown_denied(out, DenialContent::Json, Delivery::KEEP_ALIVE));
        assert_eq!(content(&answer, Delivery::KEEP_ALIVE), r#"{"status":"unknown"}"#);
        assert!(answer.contains("X-Fail2ban-Status: unknown\r\n"));
    }

    #[test]
    fn a_reason_cannot_leave_its_place() {
        let long = "\u{20ac}".repeat(1000);
        for (reason, header, json) in [
            ("a\r\nSet-Cookie: b", "a??Set-Cookie: b", r#""a\u000d\u000aSet-Cookie: b""#),
            ("  \"quoted\" \\ <b>\t\n", "\"quoted\" \\ <b>", r#""\"quoted\" \\ <b>""#),
            ("na\u{ef}ve \u{1f40d}\0\u{7f}\u{85}!", "na?ve ????!", "\"na\u{ef}ve \u{1f40d}\\u0000\\u007f\u{85}!\""),
            // 256 bytes hold 85 characters of three bytes, and a third of one.
            (&long, &"?".repeat(85), &format!("\"{}\"", "\u{20ac}".repeat(85))),
        ] {
            let denial = Denial { client: ip("::1"), reason, retry_after: None };
            let answer = written(|out| denied(out, &denial, DenialContent::Json, Delivery::KEEP_ALIVE));
            assert!(answer.contains(&format!("\r\nX-Fail2ban-Reason: {header}\r\n")), "{answer}");
            let content = content(&answer, Delivery::KEEP_ALIVE);
            assert!(content.contains(&format!("\"reason\":{json},")), "{content}");
        }
        let blank = Denial { client: ip("::1"), reason: " \r\n", retry_after: None };
        assert!(!written(|out| denied(out, &blank, DenialContent::Empty, Delivery::CLOSE)).contains("Reason"));
    }

    #[test]
    fn reports_and_faults_are_json() {
        let report = |write: fn(&mut Vec<u8>, Delivery)| {
            let answer = written(|out| write(out, Delivery::KEEP_ALIVE));
            let status: u16 = answer.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
            (status, content(&answer, Delivery::KEEP_ALIVE).to_owned())
        };
        assert_eq!(
            report(|out, delivery| json(out, br#"{"status":"healthy"}"#, delivery)),
            (200, r#"{"status":"healthy"}"#.to_owned())
        );
        assert_eq!(report(|out, delivery| ready(out, true, delivery)), (200, r#"{"status":"ready"}"#.to_owned()));
        assert_eq!(report(|out, delivery| ready(out, false, delivery)), (503, r#"{"status":"not ready"}"#.to_owned()));
        assert_eq!(
            report(not_found),
            (404, r#"{"success":false,"message":"nothing is here; questions go to /auth"}"#.to_owned())
        );
        assert_eq!(report(method_not_allowed).0, 405);
        assert!(written(|out| method_not_allowed(out, Delivery::CLOSE)).contains("\r\nAllow: GET, HEAD\r\n"));
    }

    #[test]
    fn refusals_close_and_name_their_status() {
        for fault in Refusal::ALL {
            let answer = written(|out| refusal(out, fault, Delivery::KEEP_ALIVE));
            assert!(answer.starts_with(&format!("HTTP/1.1 {} ", fault.status())), "{answer}");
            assert_eq!(status(answer.as_bytes()), Some(fault.status()));
            assert!(content(&answer, Delivery::CLOSE).contains(fault.message()));
            assert!(fault.message().bytes().all(|byte| (byte == b' ' || byte.is_ascii_graphic()) && byte != b'"'));
        }
    }

    #[test]
    fn what_is_no_answer_has_no_status() {
        for bytes in ["", "HTTP/1.1 20", "HTTP/1.1 2x0 OK", "HTTP/1.0 200 OK"] {
            assert_eq!(status(bytes.as_bytes()), None, "{bytes}");
        }
    }

    /// RFC 9110 §9.3.2: the same fields as to GET, and nothing behind them.
    #[test]
    fn head_gets_the_fields_of_get() {
        let denial = Denial { client: ip("::1"), reason: "x", retry_after: None };
        type Answer<'a> = &'a dyn Fn(&mut Vec<u8>, Delivery);
        let answers: [Answer<'_>; 7] = [
            &|out, delivery| denied(out, &denial, DenialContent::Json, delivery),
            &|out, delivery| unknown_denied(out, DenialContent::Json, delivery),
            &|out, delivery| allowed(out, denial.client, delivery),
            &|out, delivery| json(out, b"{}", delivery),
            &|out, delivery| ready(out, true, delivery),
            &|out, delivery| not_found(out, delivery),
            &|out, delivery| method_not_allowed(out, delivery),
        ];
        for answer in answers {
            let to_get = written(|out| answer(out, Delivery::KEEP_ALIVE));
            let to_head = written(|out| answer(out, HEAD_ONLY));
            content(&to_head, HEAD_ONLY);
            assert_eq!(to_get.strip_suffix(content(&to_get, Delivery::KEEP_ALIVE)).unwrap(), to_head);
        }
    }

    #[test]
    fn a_warm_buffer_is_not_grown() {
        let denial =
            Denial { client: ip("2001:db8::1"), reason: &"\u{1}".repeat(300), retry_after: Some(Duration::MAX) };
        let mut out = Vec::with_capacity(4096);
        let place = out.as_ptr();
        denied(&mut out, &denial, DenialContent::Json, Delivery::CLOSE);
        allowed(&mut out, denial.client, Delivery::CLOSE);
        assert_eq!((out.as_ptr(), out.capacity()), (place, 4096));
    }
}

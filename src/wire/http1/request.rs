//! One request head: its line and the few header fields that matter to a question.
//!
//! Written here rather than taken from a general parser for one reason above all: field values may hold control
//! bytes (see the module's page), which general parsers refuse.

use std::fmt;

use memchr::{memchr, memchr2, memrchr};

use super::super::list::{elements, trim_blanks};
use super::BODY_BYTES_MAX;
use super::answer::Delivery;
use super::refusal::Refusal;

/// Borrowed view of one request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: Method,
    pub target: Target,
    /// Path of the request target as it was sent, without scheme, authority and query; nothing is decoded.
    /// `*` and CONNECT's `host:port` stand here as they are.
    pub path: &'a [u8],
    /// What follows the `?` of the request target; empty if there is none.
    pub query: &'a [u8],
    /// `X-Original-IP`
    pub original_ip: Field<'a>,
    /// `X-Real-IP`
    pub real_ip: Field<'a>,
    /// `X-Client-IP`
    pub client_ip: Field<'a>,
    /// All `X-Forwarded-For` fields.
    pub forwarded_for: ForwardedFor<'a>,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
    /// Whether the peer speaks HTTP/1.0, and must be told that the connection stays open.
    pub(super) is_http10: bool,
    pub(super) body: Body,
}

impl Request<'_> {
    /// How the answer to this request has to be sent.
    pub fn delivery(&self) -> Delivery {
        let delivery = match (self.keep_alive, self.is_http10) {
            (true, false) => Delivery::KEEP_ALIVE,
            (true, true) => Delivery::KEEP_ALIVE_HTTP10,
            (false, _) => Delivery::CLOSE,
        };
        if self.method == Method::Head { delivery.without_content() } else { delivery }
    }
}

/// Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    /// Any other token.
    Other,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/auth`, and `/auth/…`, which Envoy's HTTP flavour makes of `/…`.
    Auth,
    /// `/health`
    Health,
    /// `/ready`
    Ready,
    /// `/config/source`
    ConfigSource,
    /// `/database/status`
    DatabaseStatus,
    /// What operators ask for: `/`, `/api`, `/api/…`, `/ui/…`
    Operators,
    /// Anything else; see [`Request::path`].
    Other,
}

/// A header field that should be there at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// Not sent, or sent without a value, which names nobody.
    Absent,
    /// The value, without blanks around it. Repetitions of the same value are one.
    One(&'a [u8]),
    /// Sent several times with different values.
    Conflicting,
}

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a [u8]) {
        if value.is_empty() {
            return;
        }
        *self = match *self {
            Field::Absent => Field::One(value),
            Field::One(earlier) if earlier == value => Field::One(earlier),
            Field::One(_) | Field::Conflicting => Field::Conflicting,
        };
    }
}

/// All `X-Forwarded-For` fields of a request, in order; they are one list (RFC 9110 §5.3).
///
/// Any number of them costs nothing until it is read: this is the part of the head from the first of them to the end
/// of the last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ForwardedFor<'a> {
    lines: &'a [u8],
}

impl<'a> ForwardedFor<'a> {
    pub fn is_absent(&self) -> bool {
        self.lines.is_empty()
    }

    /// The list's elements from the right, which is the order of trust: the last was added by the nearest proxy. Each
    /// without blanks around it, empty ones left out (RFC 9110 §5.6.1). They are what somebody wrote, not yet addresses.
    pub fn from_right(&self) -> FromRight<'a> {
        FromRight { lines: self.lines, list: None }
    }
}

impl fmt::Debug for ForwardedFor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.from_right().map(String::from_utf8_lossy)).finish()
    }
}

/// See [`ForwardedFor::from_right`].
#[derive(Clone, Debug)]
pub struct FromRight<'a> {
    /// Lines not yet looked at, each with its line end.
    lines: &'a [u8],
    /// What is left of the list in the line that was looked at last.
    list: Option<&'a [u8]>,
}

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if let Some(list) = self.list {
                let element = match split_last(b',', list) {
                    Some((left, element)) => {
                        self.list = Some(left);
                        element
                    }
                    None => {
                        self.list = None;
                        list
                    }
                };
                let element = trim_blanks(element);
                if !element.is_empty() {
                    return Some(element);
                }
            } else {
                let without_end = self.lines.strip_suffix(b"\r\n")?;
                let line_start = memrchr(b'\n', without_end).map_or(0, |at| at + 1);
                let (earlier, line) = without_end.split_at_checked(line_start)?;
                self.lines = earlier;
                self.list = split_first(b':', line)
                    .filter(|(name, _)| name.eq_ignore_ascii_case(b"x-forwarded-for"))
                    .map(|(_, value)| value);
            }
        }
    }
}

/// What follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Bytes(u64),
    Chunked,
}

/// Parses one complete head. `head` begins with the request line and ends with the empty line; every line of it ends
/// in CRLF, and it holds no other CR or LF and no NUL (the session has seen to that).
pub(super) fn parse(head: &[u8]) -> Result<Request<'_>, Refusal> {
    let (line, mut lines) = split_line(head).ok_or(Refusal::RequestLine)?;
    let RequestLine { method, target, path, query, is_http10 } = parse_request_line(line)?;

    let mut request = Request {
        method,
        target,
        path,
        query,
        original_ip: Field::Absent,
        real_ip: Field::Absent,
        client_ip: Field::Absent,
        forwarded_for: ForwardedFor { lines: &[] },
        keep_alive: false,
        is_http10,
        body: Body::Bytes(0),
    };
    let mut framing = Framing::default();
    // The header section from the first X-Forwarded-For on, and its length up to the end of the last.
    let mut forwarded: (&[u8], usize) = (&[], 0);

    while let Some((line, rest)) = split_line(lines) {
        if line.is_empty() {
            break;
        }
        let (name, value) = parse_header(line)?;
        // By length first: nearly all fields of a browser end here.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => framing.add_host()?,
            6 if name.eq_ignore_ascii_case(b"expect") => framing.add_expect(value),
            9 if name.eq_ignore_ascii_case(b"x-real-ip") => request.real_ip.add(value),
            10 if name.eq_ignore_ascii_case(b"connection") => framing.add_connection(value),
            11 if name.eq_ignore_ascii_case(b"x-client-ip") => request.client_ip.add(value),
            13 if name.eq_ignore_ascii_case(b"x-original-ip") => request.original_ip.add(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => framing.add_content_length(value)?,
            15 if name.eq_ignore_ascii_case(b"x-forwarded-for") => {
                if forwarded.0.is_empty() {
                    forwarded.0 = lines;
                }
                forwarded.1 = forwarded.0.len() - rest.len();
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => framing.add_transfer_encoding(value)?,
            _ => {}
        }
        lines = rest;
    }

    request.forwarded_for.lines = forwarded.0.get(..forwarded.1).unwrap_or_default();
    request.body = framing.body(is_http10)?;
    request.keep_alive = framing.keep_alive(method, is_http10, request.body);
    Ok(request)
}

struct RequestLine<'a> {
    method: Method,
    target: Target,
    path: &'a [u8],
    query: &'a [u8],
    is_http10: bool,
}

/// `method SP request-target SP HTTP-version` (RFC 9112 §3), with single spaces.
fn parse_request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    let (method, rest) = split_first(b' ', line).ok_or(Refusal::RequestLine)?;
    let (uri, version) = split_last(b' ', rest).ok_or(Refusal::RequestLine)?;
    if method.is_empty() || !method.iter().all(|&byte| is_token_byte(byte)) {
        return Err(Refusal::RequestLine);
    }
    let is_http10 = match version.strip_prefix(b"HTTP/") {
        Some(b"1.0") => true,
        // A higher minor version is treated as the highest one known (RFC 9110 §6.2).
        Some([b'1', b'.', b'1'..=b'9']) => false,
        Some([b'0' | b'2'..=b'9'] | [b'0' | b'2'..=b'9', b'.', b'0'..=b'9']) => return Err(Refusal::Version),
        _ => return Err(Refusal::RequestLine),
    };
    // Blanks and control bytes end here; bytes beyond ASCII are no URI either, but clients send them.
    if uri.is_empty() || uri.iter().any(|&byte| byte <= b' ' || byte == 0x7f) {
        return Err(Refusal::RequestLine);
    }
    let is_connect = method == b"CONNECT";
    let (path, query) = split_uri(uri, method).ok_or(Refusal::RequestLine)?;
    let target = match path {
        // Only to CONNECT a 200 would mean a tunnel (RFC 9110 §9.3.6), so it is no question, whatever its target.
        _ if is_connect => Target::Other,
        b"/auth" | [b'/', b'a', b'u', b't', b'h', b'/', ..] => Target::Auth,
        b"/health" => Target::Health,
        b"/ready" => Target::Ready,
        b"/config/source" => Target::ConfigSource,
        b"/database/status" => Target::DatabaseStatus,
        b"/" | b"/api" => Target::Operators,
        path if path.starts_with(b"/api/") || path.starts_with(b"/ui/") => Target::Operators,
        _ => Target::Other,
    };
    let method = match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        _ => Method::Other,
    };
    Ok(RequestLine { method, target, path, query, is_http10 })
}

/// Path and query of a request target (RFC 9112 §3.2). A fragment does not belong there; it is dropped.
fn split_uri<'a>(uri: &'a [u8], method: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let origin = match uri {
        [b'/', ..] => uri,
        b"*" if method == b"OPTIONS" => return Some((uri, b"")),
        _ if method == b"CONNECT" => return Some((uri, b"")),
        _ => {
            let (scheme, rest) = split_first(b':', uri)?;
            let rest = rest.strip_prefix(b"//")?;
            if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
                return None;
            }
            let authority_end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
            let (authority, origin) = rest.split_at_checked(authority_end)?;
            if authority.is_empty() {
                return None; // RFC 9110 §4.2.1: an http URI without a host is invalid.
            }
            origin
        }
    };
    let path_end = memchr2(b'?', b'#', origin).unwrap_or(origin.len());
    let (path, rest) = origin.split_at_checked(path_end)?;
    let query = match rest.strip_prefix(b"?") {
        Some(rest) => split_first(b'#', rest).map_or(rest, |(query, _fragment)| query),
        None => b"",
    };
    // RFC 9112 §3.2.1: an empty path is sent as "/".
    Some((if path.is_empty() { b"/" } else { path }, query))
}

/// `field-name ":" OWS field-value OWS` (RFC 9112 §5). A name is a token: that excludes a blank before the colon and
/// at the start of the line, which would be a folded one.
fn parse_header(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let name_end = line.iter().position(|&byte| !is_token_byte(byte)).ok_or(Refusal::Header)?;
    match line.split_at_checked(name_end) {
        Some((name, [b':', value @ ..])) if !name.is_empty() => Ok((name, trim_blanks(value))),
        _ => Err(Refusal::Header),
    }
}

/// What the fields say about where this request ends and whether another one follows.
#[derive(Default)]
struct Framing {
    has_host: bool,
    content_length: Option<u64>,
    has_transfer_encoding: bool,
    /// The last transfer coding is `chunked`.
    ends_chunked: bool,
    has_unknown_coding: bool,
    says_close: bool,
    says_keep_alive: bool,
    expects_continue: bool,
}

impl Framing {
    fn add_host(&mut self) -> Result<(), Refusal> {
        if self.has_host {
            return Err(Refusal::Host);
        }
        self.has_host = true;
        Ok(())
    }

    /// RFC 9112 §6.3: a list or a repetition of one and the same number counts as that number.
    fn add_content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for element in value.split(|&byte| byte == b',') {
            let length = parse_number(trim_blanks(element)).ok_or(Refusal::ContentLength)?;
            if self.content_length.is_some_and(|earlier| earlier != length) {
                return Err(Refusal::ContentLength);
            }
            self.content_length = Some(length);
        }
        Ok(())
    }

    fn add_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.has_transfer_encoding = true;
        for coding in elements(value) {
            // RFC 9112 §6.1: chunked comes last and once.
            if self.ends_chunked {
                return Err(Refusal::TransferEncoding);
            }
            self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.has_unknown_coding |= !self.ends_chunked;
        }
        Ok(())
    }

    fn add_connection(&mut self, value: &[u8]) {
        for option in elements(value) {
            self.says_close |= option.eq_ignore_ascii_case(b"close");
            self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn add_expect(&mut self, value: &[u8]) {
        self.expects_continue |= elements(value).any(|expectation| expectation.eq_ignore_ascii_case(b"100-continue"));
    }

    fn body(&self, is_http10: bool) -> Result<Body, Refusal> {
        if !self.has_transfer_encoding {
            return Ok(Body::Bytes(self.content_length.unwrap_or(0)));
        }
        if self.content_length.is_some() || is_http10 || !self.ends_chunked {
            return Err(Refusal::TransferEncoding);
        }
        if self.has_unknown_coding {
            return Err(Refusal::TransferCoding);
        }
        Ok(Body::Chunked)
    }

    /// RFC 9112 §9.3, and what the module's page says about bodies.
    fn keep_alive(&self, method: Method, is_http10: bool, body: Body) -> bool {
        let body_can_be_skipped = match body {
            Body::Bytes(0) => true,
            Body::Bytes(bytes) => {
                // HTTP/1.0 has no expectations (RFC 9110 §10.1.1).
                let may_not_come =
                    matches!(method, Method::Get | Method::Head) || (self.expects_continue && !is_http10);
                bytes <= BODY_BYTES_MAX && !may_not_come
            }
            Body::Chunked => false,
        };
        body_can_be_skipped && !self.says_close && (self.says_keep_alive || !is_http10)
    }
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2): a method, a field name.
pub(super) fn is_token_byte(byte: u8) -> bool {
    // A table, because every byte of every name is looked at. Its index is a byte: the compiler drops the check.
    TOKEN_BYTES.get(usize::from(byte)).is_some_and(|&is_token| is_token)
}

#[expect(clippy::indexing_slicing, reason = "by a byte, and at compile time")]
static TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest: &[u8] = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    while let [byte, others @ ..] = rest {
        table[*byte as usize] = true;
        rest = others;
    }
    table
};

/// `1*DIGIT`; `None` also for a number that is too large to be a length.
fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The first line without its CRLF, and what follows.
fn split_line(lines: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = split_first(b'\r', lines)?;
    Some((line, rest.strip_prefix(b"\n")?))
}

fn split_first(separator: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (left, right) = bytes.split_at_checked(memchr(separator, bytes)?)?;
    Some((left, right.get(1..)?))
}

fn split_last(separator: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (left, right) = bytes.split_at_checked(memrchr(separator, bytes)?)?;
    Some((left, right.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &[u8]) -> Request<'_> {
        parse(head).unwrap_or_else(|refusal| panic!("{refusal:?}: {}", head.escape_ascii()))
    }

    #[test]
    fn targets_are_told_by_their_path() {
        for (line, target, path, query) in [
            ("GET /auth", Target::Auth, "/auth", ""),
            ("DELETE /auth", Target::Auth, "/auth", ""),
            ("GET /auth?", Target::Auth, "/auth", ""),
            ("GET /auth?a=/health?b", Target::Auth, "/auth", "a=/health?b"),
            ("GET /auth/", Target::Auth, "/auth/", ""),
            ("GET /auth/mail/index.html?x=1#y", Target::Auth, "/auth/mail/index.html", "x=1"),
            ("GET /auth/../health", Target::Auth, "/auth/../health", ""),
            ("GET /auth#x?y", Target::Auth, "/auth", ""),
            ("GET /auth/\u{e9}", Target::Auth, "/auth/\u{e9}", ""),
            ("GET http://auth.example/auth?q", Target::Auth, "/auth", "q"),
            ("GET HTTPS://[::1]:8888/auth/x", Target::Auth, "/auth/x", ""),
            ("GET http://auth.example", Target::Operators, "/", ""),
            ("GET http://auth.example?q", Target::Operators, "/", "q"),
            ("GET http://user@h/health", Target::Health, "/health", ""),
            ("HEAD /health", Target::Health, "/health", ""),
            ("GET /ready?verbose", Target::Ready, "/ready", "verbose"),
            ("GET /config/source?a", Target::ConfigSource, "/config/source", "a"),
            ("POST /database/status", Target::DatabaseStatus, "/database/status", ""),
            ("GET /", Target::Operators, "/", ""),
            ("GET //auth", Target::Other, "//auth", ""),
            ("GET /authx", Target::Other, "/authx", ""),
            ("GET /AUTH", Target::Other, "/AUTH", ""),
            ("GET /%61uth", Target::Other, "/%61uth", ""),
            ("GET /health/", Target::Other, "/health/", ""),
            ("GET /config", Target::Other, "/config", ""),
            ("GET /api/bans", Target::Operators, "/api/bans", ""),
            ("GET /api", Target::Operators, "/api", ""),
            ("DELETE /api/", Target::Operators, "/api/", ""),
            ("GET /ui/app.js", Target::Operators, "/ui/app.js", ""),
            ("GET /apis", Target::Other, "/apis", ""),
            ("GET /ui", Target::Other, "/ui", ""),
            ("OPTIONS *", Target::Other, "*", ""),
            ("CONNECT mail.example:443", Target::Other, "mail.example:443", ""),
            ("CONNECT /auth", Target::Other, "/auth", ""),
        ] {
            let head = format!("{line} HTTP/1.1\r\n\r\n");
            let request = request(head.as_bytes());
            assert_eq!(request.target, target, "{line}");
            assert_eq!(request.path, path.as_bytes(), "{line}");
            assert_eq!(request.query, query.as_bytes(), "{line}");
        }
        for line in
            ["GET *", "GET auth", "GET ?auth", "GET http:/auth", "GET http:///auth", "GET ftp://h/auth", "GET h:1"]
        {
            let head = format!("{line} HTTP/1.1\r\n\r\n");
            assert_eq!(parse(head.as_bytes()), Err(Refusal::RequestLine), "{line}");
        }
    }

    #[test]
    fn methods_are_case_sensitive() {
        for (method, want) in [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("POST", Method::Post),
            ("get", Method::Other),
            ("PROPFIND", Method::Other),
            ("M-SEARCH", Method::Other),
        ] {
            assert_eq!(request(format!("{method} /auth HTTP/1.1\r\n\r\n").as_bytes()).method, want);
        }
    }

    #[test]
    fn address_fields_are_one_value_or_a_conflict() {
        for (fields, want) in [
            ("", Field::Absent),
            ("X-Real-IP: 192.0.2.1\r\n", Field::One(&b"192.0.2.1"[..])),
            ("x-rEAL-ip:\t 192.0.2.1 \t\r\n", Field::One(b"192.0.2.1")),
            ("X-Real-IP:192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n", Field::One(b"192.0.2.1")),
            ("X-Real-IP: 192.0.2.1\r\nX-Real-IP: 192.0.2.2\r\n", Field::Conflicting),
            ("X-Real-IP: 1\r\nX-Real-IP: 2\r\nX-Real-IP: 1\r\n", Field::Conflicting),
            ("X-Real-IP: 192.0.2.1, 192.0.2.2\r\n", Field::One(b"192.0.2.1, 192.0.2.2")),
            ("X-Real-IP:\r\nX-Real-IP: \t \r\n", Field::Absent),
            ("X-Real-IP:\r\nX-Real-IP: 192.0.2.1\r\nX-Real-IP:\r\n", Field::One(b"192.0.2.1")),
            ("X-Real-IP: \x0b192.0.2.1\x0c\r\n", Field::One(b"\x0b192.0.2.1\x0c")),
            ("X-Real_IP: 192.0.2.1\r\nX-Real-IPs: 192.0.2.1\r\n", Field::Absent),
        ] {
            let head = format!("GET /auth HTTP/1.1\r\n{fields}\r\n");
            let request = request(head.as_bytes());
            assert_eq!(request.real_ip, want, "{fields:?}");
            assert_eq!((request.original_ip, request.client_ip), (Field::Absent, Field::Absent));
        }
        let all = request(b"GET / HTTP/1.1\r\nX-Client-IP: c\r\nX-Original-IP: o\r\nX-Real-IP: r\r\n\r\n");
        assert_eq!(
            (all.original_ip, all.real_ip, all.client_ip),
            (Field::One(b"o"), Field::One(b"r"), Field::One(b"c"))
        );
    }

    #[test]
    fn forwarded_for_is_read_from_the_right() {
        for (fields, want) in [
            ("", ""),
            ("X-Forwarded-For:\r\n", ""),
            ("X-Forwarded-For: , ,\t,\r\n", ""),
            ("X-Forwarded-For: a\r\n", "a"),
            ("X-Forwarded-For: a, b ,c\r\n", "c b a"),
            ("X-Forwarded-For: a,, b,\r\nX-Forwarded-For: c\r\n", "c b a"),
            ("A: 0\r\nX-Forwarded-For: a, b\r\nB: x,y\r\nX-FORWARDED-FOR:c,d\r\nC: 0\r\nX-Forwarded: e\r\n", "d c b a"),
            ("X-Forwarded-For: a\r\nX-Forwarded-For:\r\nX-Forwarded-For: b\r\n", "b a"),
            ("X-Forwarded-For: a\r\nY: X-Forwarded-For: b\r\nX-Forwarded-For: [::1]:80\r\n", "[::1]:80 a"),
        ] {
            let head = format!("GET /auth HTTP/1.1\r\n{fields}\r\n");
            let forwarded_for = request(head.as_bytes()).forwarded_for;
            let got: Vec<_> = forwarded_for.from_right().map(|element| std::str::from_utf8(element).unwrap()).collect();
            assert_eq!(got.join(" "), want, "{fields:?}");
            assert_eq!(forwarded_for.is_absent(), fields.is_empty(), "{fields:?}");
        }
        // As many as there are, and the last one first.
        let many: String = (0..1000).map(|n| format!("X-Forwarded-For: {n}\r\n")).collect();
        let head = format!("GET /auth HTTP/1.1\r\n{many}\r\n");
        let forwarded_for = request(head.as_bytes()).forwarded_for;
        assert_eq!(forwarded_for.from_right().next(), Some(&b"999"[..]));
        assert_eq!(forwarded_for.from_right().count(), 1000);
    }

    #[test]
    fn delivery_follows_version_and_method() {
        for (head, want) in [
            (&b"GET /auth HTTP/1.1\r\n\r\n"[..], Delivery::KEEP_ALIVE),
            (b"HEAD /auth HTTP/1.1\r\n\r\n", Delivery::KEEP_ALIVE.without_content()),
            (b"GET /auth HTTP/1.0\r\n\r\n", Delivery::CLOSE),
            (b"GET /auth HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Delivery::KEEP_ALIVE_HTTP10),
            (b"HEAD /auth HTTP/1.1\r\nConnection: close\r\n\r\n", Delivery::CLOSE.without_content()),
        ] {
            assert_eq!(request(head).delivery(), want, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_head_is_refused_without_panic() {
        for head in [&b""[..], b"\r\n", b"GET", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r", b"\n\n"] {
            assert_eq!(parse(head), Err(Refusal::RequestLine), "{}", head.escape_ascii());
        }
    }
}

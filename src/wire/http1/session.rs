//! One connection: where requests begin and end in a stream of bytes.

use memchr::memchr3;

use super::answer::Delivery;
use super::refusal::Refusal;
use super::request::{self, Body, Request};
use super::{EMPTY_LINES_MAX, HEAD_BYTES_MAX};

/// The server's side of one connection: 32 bytes of state, no buffer of its own.
#[derive(Debug, Default)]
pub struct Session {
    /// Bytes of a declared body that are still to be skipped; at most [`BODY_BYTES_MAX`](super::BODY_BYTES_MAX).
    body_left: u64,
    /// Bytes of the unfinished head that have been searched for its end. Never searched again, so that a head that
    /// arrives byte by byte costs no more than one that arrives whole.
    searched: usize,
    /// Where the unfinished line of that head begins. At most `searched`.
    line_start: usize,
    /// Empty lines seen since the last request.
    empty_lines: u8,
    /// Set by a refusal or by a request after which the connection closes: what follows is nobody's.
    closing: bool,
}

/// What the bytes at the start of the buffer are.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing yet: read more and ask again, with what is there now still in the buffer.
    Incomplete,
    /// The first `consumed` bytes (at least one) are to be dropped: an ignored body, an empty line, or anything at all
    /// after a request that closes the connection.
    Skip { consumed: usize },
    /// A request whose head is the first `consumed` bytes. Its body, if it has one, comes as [`Step::Skip`] later.
    ///
    /// Whoever rather hands the whole connection over (the API does) gives away the buffer from this head on,
    /// and forgets the session.
    Request { request: Request<'a>, consumed: usize },
    /// Write the refusal's answer, then close. All of the buffer is consumed.
    Refuse { refusal: Refusal, delivery: Delivery, consumed: usize },
}

impl Session {
    pub fn new() -> Session {
        Session::default()
    }

    /// Says what comes next. `buffer` holds everything that was received and not yet consumed, and must be able to
    /// grow to [`HEAD_BYTES_MAX`] bytes: a request head is only looked at when it is complete.
    ///
    /// Call it again after every step but [`Step::Incomplete`]; each of them consumes at least one byte.
    pub fn next<'a>(&mut self, buffer: &'a [u8]) -> Step<'a> {
        if buffer.is_empty() {
            return Step::Incomplete;
        }
        if self.closing {
            return Step::Skip { consumed: buffer.len() };
        }
        if self.body_left > 0 {
            let consumed = usize::try_from(self.body_left).map_or(buffer.len(), |left| left.min(buffer.len()));
            self.body_left -= consumed as u64;
            return Step::Skip { consumed };
        }
        match buffer {
            [b'\r'] => return Step::Incomplete,
            [b'\r', b'\n', ..] if self.empty_lines < EMPTY_LINES_MAX => {
                self.empty_lines += 1;
                return Step::Skip { consumed: 2 };
            }
            [b'\r', b'\n', ..] => return self.refuse(Refusal::EmptyLines, buffer),
            [b'\r' | b'\n' | b'\0', ..] => return self.refuse(Refusal::LineEnd, buffer),
            // Whoever speaks another protocol (0x16 begins TLS) waits for an answer and will not complete a head.
            [first, ..] if !request::is_token_byte(*first) => return self.refuse(Refusal::RequestLine, buffer),
            _ => {}
        }
        let head_bytes = match self.find_head_end(buffer) {
            Ok(Some(head_bytes)) => head_bytes,
            Ok(None) => return Step::Incomplete,
            Err(refusal) => return self.refuse(refusal, buffer),
        };
        let parsed = match buffer.get(..head_bytes) {
            Some(head) => request::parse(head),
            None => return Step::Incomplete,
        };
        match parsed {
            Ok(request) => {
                // Where the connection closes, `closing` skips all that comes, without counting.
                let body_left = match request.body {
                    Body::Bytes(bytes) if request.keep_alive => bytes,
                    _ => 0,
                };
                *self = Session { body_left, closing: !request.keep_alive, ..Session::default() };
                Step::Request { request, consumed: head_bytes }
            }
            Err(refusal) => self.refuse(refusal, buffer),
        }
    }

    /// Whether nothing more will be answered on this connection.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    fn refuse<'a>(&mut self, refusal: Refusal, buffer: &'a [u8]) -> Step<'a> {
        self.closing = true;
        // RFC 9110 §9.3.2: HEAD is never answered with content, not even when the rest of the request is wrong.
        let delivery = if buffer.starts_with(b"HEAD ") { Delivery::CLOSE.without_content() } else { Delivery::CLOSE };
        Step::Refuse { refusal, delivery, consumed: buffer.len() }
    }

    /// The length of the head at the start of `buffer`, its empty line included, once that line is there. On the way
    /// every line is seen to end in CRLF and to hold no other CR or LF, and no NUL.
    fn find_head_end(&mut self, buffer: &[u8]) -> Result<Option<usize>, Refusal> {
        let window = buffer.get(..HEAD_BYTES_MAX).unwrap_or(buffer);
        while let Some(unsearched) = window.get(self.searched..) {
            let Some(found) = memchr3(b'\r', b'\n', b'\0', unsearched) else {
                self.searched = window.len();
                break;
            };
            let at = self.searched + found;
            match unsearched.get(found..) {
                Some([b'\r', b'\n', ..]) => {
                    let line_is_empty = at == self.line_start;
                    self.searched = at + 2;
                    self.line_start = self.searched;
                    if line_is_empty {
                        return Ok(Some(self.searched));
                    }
                }
                Some([b'\r']) => {
                    self.searched = at;
                    break;
                }
                _ => return Err(Refusal::LineEnd),
            }
        }
        match (window.len() < HEAD_BYTES_MAX, self.line_start) {
            (true, _) => Ok(None),
            (false, 0) => Err(Refusal::TargetTooLong),
            (false, _) => Err(Refusal::HeadTooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::captures;
    use super::super::request::{Field, Method, Target};
    use super::super::{BODY_BYTES_MAX, answer};
    use super::*;

    /// What a stream of bytes comes to, one word per step that matters: `auth` or another target, with `!` if the
    /// connection closes after it; a refusal's status; `…` if bytes are left that are no complete request.
    fn read(stream: &[u8]) -> String {
        let mut session = Session::new();
        let mut unread = stream;
        let mut words = Vec::new();
        loop {
            match session.next(unread) {
                Step::Incomplete => {
                    if !unread.is_empty() {
                        words.push("…".to_owned());
                    }
                    return words.join(" ");
                }
                Step::Skip { consumed } => {
                    assert!((1..=unread.len()).contains(&consumed));
                    unread = &unread[consumed..];
                }
                Step::Request { request, consumed } => {
                    assert!((1..=unread.len()).contains(&consumed));
                    assert_eq!(request.keep_alive, !request.delivery().closes());
                    assert_eq!(request.keep_alive, !session.is_closing());
                    let target = match request.target {
                        Target::Auth => "auth",
                        Target::Health => "health",
                        Target::Ready => "ready",
                        Target::ConfigSource => "source",
                        Target::DatabaseStatus => "status",
                        Target::Operators => "operators",
                        Target::Other => "other",
                    };
                    words.push(format!("{target}{}", if request.keep_alive { "" } else { "!" }));
                    unread = &unread[consumed..];
                }
                Step::Refuse { refusal, delivery, consumed } => {
                    assert_eq!(consumed, unread.len());
                    assert!(delivery.closes() && session.is_closing());
                    words.push(refusal.status().to_string());
                    unread = &unread[consumed..];
                }
            }
        }
    }

    #[test]
    fn a_session_is_small() {
        assert_eq!(size_of::<Session>(), 32);
    }

    #[test]
    fn requests_follow_each_other() {
        for (stream, want) in [
            (&b""[..], ""),
            (b"GET /auth HTTP/1.1\r\n\r\n", "auth"),
            (b"GET /auth HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\n\r\nGET /ready HTTP/1.1\r\n\r\n", "auth health ready"),
            (b"GET /auth HTTP/1.1\r\n\r\nGET /aut", "auth …"),
            (b"GET /auth HTTP/1.1\r\n\r", "…"),
            // RFC 9112 §9.3: who stays.
            (b"GET /auth HTTP/1.0\r\n\r\nGET /auth HTTP/1.0\r\n\r\n", "auth!"),
            (b"GET /auth HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /auth HTTP/1.0\r\n\r\n", "auth auth!"),
            (b"GET /auth HTTP/1.1\r\nConnection: close\r\n\r\nGET /auth HTTP/1.1\r\n\r\n", "auth!"),
            (b"GET /auth HTTP/1.1\r\nConnection: foo ,\tCLOSE\r\n\r\nGET /", "auth!"),
            (b"GET /auth HTTP/1.1\r\nConnection: foo\r\nConnection: close\r\n\r\n", "auth!"),
            (b"GET /auth HTTP/1.1\r\nConnection: keep-alive, close\r\n\r\n", "auth!"),
            (b"GET /auth HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "auth!"),
            (b"GET /auth HTTP/1.1\r\nConnection: closed\r\n\r\n", "auth"),
            (b"GET /auth HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", "auth"),
            (b"GET /auth HTTP/1.9\r\n\r\n", "auth"),
            // RFC 9112 §2.2: empty lines before a request line.
            (b"\r\n\r\nGET /auth HTTP/1.1\r\n\r\n\r\nGET /auth HTTP/1.1\r\n\r\n", "auth auth"),
            (b"\r\n\r\n\r\n\r\nGET /auth HTTP/1.1\r\n\r\n\r\n\r\n\r\n\r\n", "auth"),
            (b"\r\n\r\n\r\n\r\n\r\nGET /auth HTTP/1.1\r\n\r\n", "400"),
            (b"\r", "…"),
            (b"\r\r\n", "400"),
            (b"\nGET /auth HTTP/1.1\r\n\r\n", "400"),
        ] {
            assert_eq!(read(stream), want, "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn bodies_are_skipped_or_end_the_connection() {
        for (stream, want) in [
            (&b"POST /auth HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /auth HTTP/1.1\r\n\r\n"[..], "auth auth"),
            (b"POST /auth HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET /auth HTTP/1.1\r\n\r\n", "auth auth"),
            (
                b"POST /auth HTTP/1.1\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\nGET /ready HTTP/1.1\r\n\r\n",
                "auth ready",
            ),
            (b"GET /auth HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET /auth HTTP/1.1\r\n\r\n", "auth auth"),
            (b"POST /auth HTTP/1.1\r\nContent-Length: 1048576\r\n\r\nx", "auth"),
            (b"POST /auth HTTP/1.1\r\nContent-Length: 1048577\r\n\r\nx", "auth!"),
            (b"POST /auth HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\nx", "auth!"),
            (b"POST /auth HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /auth HTTP/1.1\r\n\r\n", "auth!"),
            // A body that may never come: RFC 9110 §9.3.1, §10.1.1.
            (b"GET /auth HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /auth HTTP/1.1\r\n\r\n", "auth!"),
            (b"HEAD /auth HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "auth!"),
            (b"POST /auth HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\nhello", "auth!"),
            (b"POST /auth HTTP/1.1\r\nExpect: 100-continue\r\n\r\nGET /auth HTTP/1.1\r\n\r\n", "auth auth"),
            (
                b"PUT /auth HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
                "auth",
            ),
            (b"POST /auth HTTP/1.1\r\nExpect: something\r\nContent-Length: 1\r\n\r\nx", "auth"),
        ] {
            assert_eq!(read(stream), want, "{}", stream.escape_ascii());
        }
        let longest = [&b"POST /auth HTTP/1.1\r\nContent-Length: 1048576\r\n\r\n"[..], &vec![b'x'; 1 << 20]].concat();
        assert_eq!(BODY_BYTES_MAX, 1 << 20);
        assert_eq!(read(&[&longest[..], b"GET /ready HTTP/1.1\r\n\r\n"].concat()), "auth ready");
    }

    /// Request smuggling and its relatives: whatever two readers could understand differently is refused, and nothing
    /// behind it is answered.
    #[test]
    fn ambiguous_requests_are_refused() {
        for (section, fields, want) in [
            // Where the body ends.
            ("RFC 9112 §6.3", &b"Content-Length: 5\r\nContent-Length: 6"[..], "400"),
            ("RFC 9112 §6.3", b"Content-Length: 5, 6", "400"),
            ("RFC 9112 §6.3", b"Content-Length: 0\r\nX: y\r\ncontent-length: 44", "400"),
            ("RFC 9110 §8.6", b"Content-Length: +5", "400"),
            ("RFC 9110 §8.6", b"Content-Length: -5", "400"),
            ("RFC 9110 §8.6", b"Content-Length: 5x", "400"),
            ("RFC 9110 §8.6", b"Content-Length: 0x5", "400"),
            ("RFC 9110 §8.6", b"Content-Length: 5 5", "400"),
            ("RFC 9110 §8.6", b"Content-Length: 5.0", "400"),
            ("RFC 9110 §8.6", b"Content-Length: 5,", "400"),
            ("RFC 9110 §8.6", b"Content-Length: ,", "400"),
            ("RFC 9110 §8.6", b"Content-Length:", "400"),
            ("RFC 9110 §8.6", b"Content-Length: \x0b5", "400"),
            ("RFC 9110 §8.6", b"Content-Length: \xd9\xa5", "400"),
            ("RFC 9110 §8.6", b"Content-Length: 18446744073709551616", "400"),
            ("RFC 9110 §8.6", b"Content-Length: 18446744073709551621", "400"),
            ("RFC 9112 §6.1", b"Transfer-Encoding: chunked\r\nContent-Length: 5", "400"),
            ("RFC 9112 §6.1", b"Content-Length: 0\r\nTransfer-Encoding: chunked", "400"),
            ("RFC 9112 §6.1", b"Content-Length: 5\r\nTransfer-Encoding: identity", "400"),
            ("RFC 9112 §6.1", b"Transfer-Encoding: chunked, chunked", "400"),
            ("RFC 9112 §6.1", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "400"),
            ("RFC 9112 §6.3", b"Transfer-Encoding: chunked, gzip", "400"),
            ("RFC 9112 §6.3", b"Transfer-Encoding: gzip", "400"),
            ("RFC 9112 §6.3", b"Transfer-Encoding: identity", "400"),
            ("RFC 9112 §6.3", b"Transfer-Encoding: xchunked", "400"),
            ("RFC 9112 §6.3", b"Transfer-Encoding: \"chunked\"", "400"),
            ("RFC 9112 §6.3", b"Transfer-Encoding: \x0bchunked", "400"),
            ("RFC 9112 §6.3", b"Transfer-Encoding: chunked;q=1", "400"),
            ("RFC 9112 §6.3", b"Transfer-Encoding:", "400"),
            ("RFC 9112 §6.1", b"Transfer-Encoding: gzip, chunked", "501"),
            ("RFC 9112 §6.1", b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "501"),
            // What a field is.
            ("RFC 9112 §5.1", b"Content-Length : 5", "400"),
            ("RFC 9112 §5.1", b"Transfer-Encoding\t: chunked", "400"),
            ("RFC 9112 §5.2", b"X: y\r\n folded", "400"),
            ("RFC 9112 §5.2", b"Transfer-Encoding:\r\n chunked", "400"),
            ("RFC 9112 §5.2", b"X: y\r\n\tContent-Length: 5", "400"),
            ("RFC 9112 §2.2", b" X: y", "400"),
            ("RFC 9112 §5", b": y", "400"),
            ("RFC 9112 §5", b"no colon", "400"),
            ("RFC 9112 §5", b"nocolon", "400"),
            ("RFC 9110 §5.1", b"Content-Length\x00: 5", "400"),
            ("RFC 9110 §5.1", b"Content-Length\xa0: 5", "400"),
            ("RFC 9110 §5.1", b"(comment): 5", "400"),
            // Where a line ends.
            ("RFC 9112 §2.2", b"X: y\rContent-Length: 5", "400"),
            ("RFC 9112 §2.2", b"X: y\nContent-Length: 5", "400"),
            ("RFC 9112 §2.2", b"X: y\r\r\nContent-Length: 5", "400"),
            ("RFC 9112 §2.2", b"X: y\n\nGET /ready HTTP/1.1", "400"),
            ("RFC 9110 §5.5", b"X: y\0z", "400"),
            ("RFC 9112 §3.2", b"Host: a\r\nHost: b", "400"),
            ("RFC 9112 §3.2", b"Host: a\r\nhost: a", "400"),
            // Not ambiguous, however odd. (Five bytes of the next request pass for the body.)
            ("RFC 9112 §6.3", b"Content-Length: 5\r\nContent-Length: 5", "auth 400"),
            ("RFC 9112 §6.3", b"Content-Length: 5, 05 ,5", "auth 400"),
            ("RFC 9110 §5.6.3", b"Content-Length:\t5 \t", "auth 400"),
            ("RFC 9112 §7", b"Transfer-Encoding: CHUNKED", "auth!"),
            ("RFC 9110 §5.6.1", b"Transfer-Encoding: , chunked ,", "auth!"),
            ("RFC 9110 §5.5", b"X: a\x01b\x7fc\x80", "auth operators"),
            ("RFC 9110 §5.1", b"Content-Length_: 5\r\nX-Content-Length: 6", "auth operators"),
        ] {
            let stream = [b"POST /auth HTTP/1.1\r\n", fields, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(read(&stream), want, "{section}: {}", fields.escape_ascii());
        }
        // RFC 9112 §6.1: HTTP/1.0 has no transfer codings.
        assert_eq!(read(b"POST /auth HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400");
    }

    #[test]
    fn other_protocols_are_refused_as_early_as_can_be() {
        for (stream, want) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "400"), // TLS ClientHello
            (b"\r\n\r\n\0\r\nQUIT\n", "400"),                              // PROXY protocol, version 2
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /auth HTTP/1.1\r\n\r\n", "400"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
            (b"GET /auth\r\n\r\n", "400"), // HTTP/0.9
            (b"GET /auth HTTP/2\r\n\r\n", "505"),
            (b"GET /auth HTTP/0.9\r\n\r\n", "505"),
            (b"GET /auth HTTP/3.0\r\n\r\n", "505"),
            (b"GET /auth HTTP/11\r\n\r\n", "400"),
            (b"GET /auth HTTP/1.10\r\n\r\n", "400"),
            (b"GET /auth HTTP/1\r\n\r\n", "400"),
            (b"GET /auth http/1.1\r\n\r\n", "400"),
            (b"GET /auth HTTP/1.1 \r\n\r\n", "400"),
            (b"GET /auth\tHTTP/1.1\r\n\r\n", "400"),
            (b"GET  /auth HTTP/1.1\r\n\r\n", "400"),
            (b"GET /auth  HTTP/1.1\r\n\r\n", "400"),
            (b"GET /a b HTTP/1.1\r\n\r\n", "400"),
            (b"GET /a\x7f HTTP/1.1\r\n\r\n", "400"),
            (b"GET HTTP/1.1\r\n\r\n", "400"),
            (b"GET  HTTP/1.1\r\n\r\n", "400"),
            (b" GET /auth HTTP/1.1\r\n\r\n", "400"),
            (b"G(T /auth HTTP/1.1\r\n\r\n", "400"),
            (b"GET /auth HTTP/1.1\n\n", "400"),
            (b"EHLO mail.example\r\n", "…"),
            (b"\0", "400"),
            (b"{", "400"),
        ] {
            assert_eq!(read(stream), want, "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn heads_are_limited_in_bytes_and_in_nothing_else() {
        let head = |bytes: usize| {
            let (start, end) = (b"GET /auth HTTP/1.1\r\nCookie: ", b"\r\n\r\n");
            [&start[..], &vec![b'x'; bytes - start.len() - end.len()], end].concat()
        };
        assert_eq!(read(&head(HEAD_BYTES_MAX)), "auth");
        assert_eq!(read(&[head(HEAD_BYTES_MAX), head(100)].concat()), "auth auth");
        assert_eq!(read(&head(HEAD_BYTES_MAX + 1)), "431");
        assert_eq!(read(&head(HEAD_BYTES_MAX + 1)[..HEAD_BYTES_MAX]), "431");
        assert_eq!(read(&head(HEAD_BYTES_MAX + 1)[..HEAD_BYTES_MAX - 1]), "…");
        assert_eq!(read(&head(10 * HEAD_BYTES_MAX)), "431");
        assert_eq!(read(&[b'G'; HEAD_BYTES_MAX]), "414");
        assert_eq!(read(&[b'G'; HEAD_BYTES_MAX - 1]), "…");
        // As many fields as nginx passes on, and more: its client must not get around its ban by them.
        let many = [b"GET /auth HTTP/1.1\r\n", &b"a: \r\n".repeat(13_000)[..], b"\r\n"].concat();
        assert_eq!(read(&many), "auth");
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_searched_once() {
        // Quadratic work over 64 KiB would be two thousand million bytes; this takes milliseconds, unoptimised too.
        let head = [b"GET /auth HTTP/1.1\r\nCookie: ", &vec![b'x'; HEAD_BYTES_MAX - 32][..], b"\r\n\r\n"].concat();
        let mut session = Session::new();
        for end in 1..head.len() {
            assert_eq!(session.next(&head[..end]), Step::Incomplete);
            assert!(end - session.searched <= 1, "at {end}");
        }
        assert!(matches!(session.next(&head), Step::Request { consumed, .. } if consumed == head.len()));
    }

    #[test]
    fn a_caller_that_loses_bytes_meets_no_panic() {
        let mut session = Session::new();
        assert_eq!(session.next(b"GET /auth HTTP/1.1\r\nX: y"), Step::Incomplete);
        assert_eq!(session.next(b"GET"), Step::Incomplete);
        assert_eq!(session.next(b""), Step::Incomplete);
    }

    #[test]
    fn head_requests_are_refused_without_content() {
        for (stream, has_content) in
            [(&b"HEAD /auth HTTP/1.1\r\nx\r\n\r\n"[..], false), (b"GET /auth HTTP/2\r\n\r\n", true)]
        {
            let Step::Refuse { refusal, delivery, .. } = Session::new().next(stream) else { panic!("not refused") };
            let mut out = Vec::new();
            answer::refusal(&mut out, refusal, delivery);
            assert_eq!(!out.ends_with(b"\r\n\r\n"), has_content);
        }
    }

    #[test]
    fn nginx_is_understood() {
        let one = |bytes: &'static [u8]| match Session::new().next(bytes) {
            Step::Request { request, consumed } => {
                assert_eq!(consumed, bytes.len());
                assert_eq!((request.method, request.target), (Method::Get, Target::Auth));
                request
            }
            other => panic!("{other:?}"),
        };
        let request = one(captures::NGINX_HTTP10);
        assert_eq!((request.real_ip, request.original_ip), (Field::One(b"127.0.0.1"), Field::Absent));
        assert!(request.forwarded_for.from_right().eq([&b"127.0.0.1"[..], b"203.0.113.9"]));
        assert!(!request.keep_alive);

        let request = one(captures::NGINX_KEEP_ALIVE);
        assert_eq!((request.real_ip, request.original_ip), (Field::Absent, Field::One(b"127.0.0.1")));
        assert!(request.forwarded_for.from_right().eq([&b"203.0.113.9"[..]]));
        assert!(request.keep_alive);
        assert_eq!(read(&captures::NGINX_KEEP_ALIVE.repeat(3)), "auth auth auth");

        // The banned client that sends a control byte is judged like any other.
        assert_eq!(one(captures::NGINX_CONTROL_BYTES).real_ip, Field::One(b"127.0.0.1"));
    }

    /// nginx declares a body that it never sends. To wait for it would swallow the next client's question; closing
    /// makes nginx ask that one on a new connection.
    #[test]
    fn a_body_that_nginx_only_declares_swallows_nothing() {
        assert_eq!(read(captures::NGINX_KEEP_ALIVE_WITHOUT_ITS_BODY), "auth!");
        let together = [captures::NGINX_KEEP_ALIVE_WITHOUT_ITS_BODY, captures::NGINX_NEXT_QUESTION].concat();
        assert_eq!(read(&together), "auth!");
        assert_eq!(read(captures::NGINX_NEXT_QUESTION), "auth");
    }
}

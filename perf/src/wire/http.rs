//! HTTP/1.1 with connections that are kept (RFC 9112), one question after the other.

use super::{Session, Verdict};
use anyhow::{Context, bail};
use std::net::Ipv4Addr;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    pub path: String,
    pub host: String,
    /// The field that names the client.
    pub header: String,
}

#[derive(Debug)]
pub struct Http {
    before_address: Vec<u8>,
    asked: u64,
    answered: u64,
    /// The server said that it closes: no more questions here.
    closes: bool,
}

impl Http {
    pub fn new(options: &HttpOptions) -> Http {
        let HttpOptions { path, host, header } = options;
        let before_address =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mailfail2ban-load\r\n{header}: ");
        Http { before_address: before_address.into_bytes(), asked: 0, answered: 0, closes: false }
    }
}

impl Session for Http {
    fn greet(&mut self, _: &mut Vec<u8>) {}

    fn may_ask(&self) -> bool {
        !self.closes
    }

    fn ask(&mut self, client: Ipv4Addr, out: &mut Vec<u8>) -> u64 {
        use std::io::Write;
        self.asked += 1;
        out.extend(&self.before_address);
        write!(out, "{client}\r\n\r\n").expect("memory takes all");
        self.asked
    }

    fn read(&mut self, input: &[u8], _: &mut Vec<u8>, answers: &mut Vec<(u64, Verdict)>) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some((status, closes, length)) = response(&input[used..])? {
            used += length;
            if status >= 200 {
                self.answered += 1;
                self.closes |= closes;
                let verdict = match status {
                    200..300 => Verdict::Allowed,
                    403 => Verdict::Denied,
                    _ => Verdict::Other("status", u32::from(status)),
                };
                answers.push((self.answered, verdict));
            }
        }
        Ok(used)
    }
}

/// The first response, if it is whole: its status, whether the connection ends with it, and its length.
fn response(input: &[u8]) -> anyhow::Result<Option<(u16, bool, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_length) = head.parse(input).context("a malformed head")? else {
        return Ok(None);
    };
    let status = head.code.context("no status")?;
    let field = |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|it| it.value);
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    let body = &input[head_length..];
    let length = if status < 200 || status == 204 || status == 304 {
        Some(0)
    } else if field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
        chunked(body)?
    } else if let Some(length) = field("content-length") {
        let length: usize = std::str::from_utf8(length)?.trim().parse().context("a malformed Content-Length")?;
        (body.len() >= length).then_some(length)
    } else {
        bail!("a response without a length");
    };
    Ok(length.map(|length| (status, closes, head_length + length)))
}

/// The length of a chunked body, if it is whole (RFC 9112 §7.1).
fn chunked(body: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut at = 0;
    loop {
        match httparse::parse_chunk_size(&body[at..]) {
            Ok(httparse::Status::Complete((head, length))) => {
                at += head;
                let end = at.saturating_add(usize::try_from(length)?).saturating_add(2);
                if body.len() < end {
                    return Ok(None);
                }
                at = end;
                if length == 0 {
                    return Ok(Some(at));
                }
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => bail!("a malformed chunk"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_told_apart_however_they_come() {
        let input = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
            HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nConnection: close\r\n\r\n";
        let want = [(1, Verdict::Allowed), (2, Verdict::Denied), (3, Verdict::Other("status", 503))];
        for piece in [1, 9, input.len()] {
            let options = HttpOptions { path: "/".into(), host: "h".into(), header: "X-Real-IP".into() };
            let mut session = Http::new(&options);
            let (mut rest, mut answers) = (Vec::new(), Vec::new());
            for bytes in input.chunks(piece) {
                rest.extend(bytes);
                let used = session.read(&rest, &mut Vec::new(), &mut answers).unwrap();
                rest.drain(..used);
            }
            assert_eq!(answers, want);
            assert!(rest.is_empty() && !session.may_ask());
        }
        let session = response(b"HTTP/1.1 200 OK\r\n\r\n");
        assert!(session.unwrap_err().to_string().contains("length"));
    }
}

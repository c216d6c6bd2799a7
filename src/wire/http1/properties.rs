//! Properties of the whole session: how a stream is cut does not matter, nothing panics, and a general parser of HTTP
//! sees the same fields.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Field, HEAD_BYTES_MAX, Method, Session, Step, Target, answer, captures};

/// Everything that a caller learns from a step, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Request {
        method: Method,
        target: Target,
        path: Vec<u8>,
        query: Vec<u8>,
        original_ip: Option<Vec<u8>>,
        real_ip: Option<Vec<u8>>,
        client_ip: Option<Vec<u8>>,
        forwarded_for: Vec<Vec<u8>>,
        keep_alive: bool,
    },
    Refused(u16),
}

/// `Conflicting` is told by a value that no field can have.
fn owned(field: Field<'_>) -> Option<Vec<u8>> {
    match field {
        Field::Absent => None,
        Field::One(value) => Some(value.to_vec()),
        Field::Conflicting => Some(b"\n".to_vec()),
    }
}

/// A connection on which the pieces of `stream` between `cuts` arrive one after the other. Answers every request, as
/// a caller would. Gives back what was seen, and how many bytes were not consumed.
fn drive(stream: &[u8], cuts: &[usize]) -> (Vec<Seen>, usize) {
    let mut session = Session::new();
    let mut seen = Vec::new();
    let mut out = Vec::new();
    let mut start = 0;
    let mut steps = 0;
    for &end in cuts.iter().chain([&stream.len()]) {
        loop {
            let unread = &stream[start..end];
            steps += 1;
            assert!(steps <= 2 * stream.len() + 2 * cuts.len() + 2, "no progress");
            let consumed = match session.next(unread) {
                Step::Incomplete => break,
                Step::Skip { consumed } => consumed,
                Step::Request { request, consumed } => {
                    seen.push(Seen::Request {
                        method: request.method,
                        target: request.target,
                        path: request.path.to_vec(),
                        query: request.query.to_vec(),
                        original_ip: owned(request.original_ip),
                        real_ip: owned(request.real_ip),
                        client_ip: owned(request.client_ip),
                        forwarded_for: request.forwarded_for.from_right().map(<[u8]>::to_vec).collect(),
                        keep_alive: request.keep_alive,
                    });
                    answer::not_found(&mut out, request.delivery());
                    consumed
                }
                Step::Refuse { refusal, delivery, consumed } => {
                    seen.push(Seen::Refused(refusal.status()));
                    answer::refusal(&mut out, refusal, delivery);
                    consumed
                }
            };
            assert!(consumed >= 1 && consumed <= unread.len());
            start += consumed;
        }
    }
    (seen, stream.len() - start)
}

/// One valid request's bytes, and what is to be seen of it.
fn request() -> impl Strategy<Value = (Vec<u8>, Seen)> {
    let method =
        select(vec![("GET", Method::Get), ("HEAD", Method::Head), ("POST", Method::Post), ("PUT", Method::Other)]);
    let path = prop_oneof![
        Just(("/auth".to_owned(), Target::Auth)),
        "/auth/[!-\"$->@-~]{0,20}".prop_map(|path| (path, Target::Auth)),
        Just(("/health".to_owned(), Target::Health)),
        Just(("/ready".to_owned(), Target::Ready)),
        Just(("/config/source".to_owned(), Target::ConfigSource)),
        Just(("/database/status".to_owned(), Target::DatabaseStatus)),
        Just(("/".to_owned(), Target::Operators)),
        "/api/[!-\"$->@-~]{0,20}".prop_map(|path| (path, Target::Operators)),
        "/x[a-z/%.]{0,20}".prop_map(|path| (path, Target::Other)),
    ];
    let query = prop_oneof![Just(None), "[!-\"$-~]{0,20}".prop_map(Some)];
    let origin = select(vec!["", "http://auth.example:8888", "HTTP://[::1]"]);
    let address = || prop_oneof![2 => Just(None), 1 => "[0-9a-f:.]{1,20}".prop_map(Some)];
    let forwarded_for = vec(vec("[0-9a-f:.]{1,10}", 0..4), 0..4);
    let noise = vec(("Z-[A-Za-z0-9_!#~]{1,10}", "[!-~]([ -~\t\u{1}\u{e9}]{0,30}[!-~])?"), 0..6);
    let blanks = "[ \t]{0,2}";
    (
        method,
        path,
        query,
        origin,
        (address(), address(), address()),
        forwarded_for,
        noise,
        blanks,
        vec(any::<u8>(), 0..40),
    )
        .prop_flat_map(|parts| (Just(parts), any::<[Index; 3]>(), 0..2_u8))
        .prop_map(
            |((method, path, query, origin, addresses, forwarded_for, noise, blanks, body), places, empty_lines)| {
                let mut fields: Vec<String> = noise.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                let named =
                    [("X-Original-IP", &addresses.0), ("x-real-ip", &addresses.1), ("X-CLIENT-IP", &addresses.2)];
                for ((name, address), place) in named.into_iter().zip(places) {
                    if let Some(address) = address {
                        fields.insert(place.index(fields.len() + 1), format!("{name}:{blanks}{address}{blanks}"));
                    }
                }
                for list in &forwarded_for {
                    fields.push(format!("X-Forwarded-For:{blanks}{}", list.join(&format!("{blanks},{blanks}"))));
                }
                // GET and HEAD with a body close, which is tested elsewhere.
                let body = if matches!(method.1, Method::Get | Method::Head) { vec![] } else { body };
                if !body.is_empty() {
                    fields.insert(places[0].index(fields.len() + 1), format!("Content-Length:{blanks}{}", body.len()));
                }
                let question_mark = query.as_ref().map_or(String::new(), |query| format!("?{query}"));
                let mut bytes = "\r\n".repeat(usize::from(empty_lines)).into_bytes();
                bytes.extend(format!("{} {origin}{}{question_mark} HTTP/1.1\r\n", method.0, path.0).into_bytes());
                for field in fields {
                    bytes.extend(field.into_bytes());
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"\r\n");
                bytes.extend(body);
                let seen = Seen::Request {
                    method: method.1,
                    target: path.1,
                    path: path.0.into_bytes(),
                    query: query.unwrap_or_default().into_bytes(),
                    original_ip: addresses.0.map(String::into_bytes),
                    real_ip: addresses.1.map(String::into_bytes),
                    client_ip: addresses.2.map(String::into_bytes),
                    forwarded_for: forwarded_for.into_iter().flatten().rev().map(String::into_bytes).collect(),
                    keep_alive: true,
                };
                (bytes, seen)
            },
        )
}

/// Bytes that look like HTTP more often than not.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let words = select(vec![
        &b"GET "[..],
        b"HEAD ",
        b"POST ",
        b"/auth",
        b" ",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b" HTTP/2.0\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\0",
        b":",
        b": ",
        b",",
        b"\t",
        b"Host: a\r\n",
        b"Content-Length: ",
        b"5",
        b"18446744073709551616",
        b"Transfer-Encoding: ",
        b"chunked",
        b"Connection: ",
        b"close",
        b"keep-alive",
        b"X-Real-IP: ",
        b"X-Forwarded-For: ",
        b"192.0.2.1",
        b"Expect: 100-continue\r\n",
        b"http://",
        b"?",
        b"#",
        b"*",
        b"GET /auth HTTP/1.1\r\nHost: auth\r\n\r\n",
        b"POST /auth HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    ]);
    prop_oneof![vec(any::<u8>(), 0..200), vec(words, 0..30).prop_map(|words| words.concat()),]
}

fn cuts(stream: &[u8], places: &[Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = places.iter().map(|place| place.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    cuts
}

/// The fields as a general parser sees them; `None` where it refuses, or where we are stricter or more tolerant.
fn by_general_parser(head: &[u8]) -> Option<Seen> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(bytes)) if bytes == head.len()) {
        return None;
    }
    let values = |name: &str| -> Vec<Vec<u8>> {
        let named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value.to_vec()).collect()
    };
    let one = |name: &str| {
        let mut values = values(name);
        values.retain(|value| !value.is_empty());
        values.dedup();
        if values.len() > 1 { Some(b"\n".to_vec()) } else { values.pop() }
    };
    let lists = values("X-Forwarded-For").join(&b","[..]);
    let elements = lists.split(|&byte| byte == b',').map(|element| String::from_utf8_lossy(element).into_owned());
    let elements = elements.map(|element| element.trim_matches([' ', '\t']).as_bytes().to_vec());
    let connection = String::from_utf8_lossy(&values("Connection").join(&b","[..])).to_ascii_lowercase();
    let has_option = |option: &str| connection.split(',').any(|word| word.trim_matches([' ', '\t']) == option);
    Some(Seen::Request {
        method: match request.method? {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            _ => Method::Other,
        },
        target: Target::Auth,
        path: b"/auth".to_vec(),
        query: vec![],
        original_ip: one("X-Original-IP"),
        real_ip: one("X-Real-IP"),
        client_ip: one("X-Client-IP"),
        forwarded_for: elements.filter(|element| !element.is_empty()).rev().collect(),
        keep_alive: !has_option("close") && (request.version? == 1 || has_option("keep-alive")),
    })
}

proptest! {
    #[test]
    fn valid_streams_are_seen_as_sent_however_they_are_cut(
        requests in vec(request(), 0..5),
        places in vec(any::<Index>(), 0..12),
    ) {
        let stream: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let sent: Vec<Seen> = requests.into_iter().map(|(_, seen)| seen).collect();
        prop_assert_eq!(&drive(&stream, &[]), &(sent.clone(), 0));
        prop_assert_eq!(&drive(&stream, &cuts(&stream, &places)), &(sent.clone(), 0));
        let every_byte: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(&drive(&stream, &every_byte), &(sent, 0));
    }

    #[test]
    fn one_cut_anywhere_changes_nothing(first in request(), second in request()) {
        let stream = [first.0, second.0].concat();
        let sent = vec![first.1, second.1];
        for cut in 0..=stream.len() {
            prop_assert_eq!(&drive(&stream, &[cut]).0, &sent);
        }
    }

    /// Not even hostile bytes are understood differently because of where they are cut.
    #[test]
    fn hostile_streams_are_seen_the_same_however_they_are_cut(
        stream in hostile(),
        places in vec(any::<Index>(), 0..12),
    ) {
        let whole = drive(&stream, &[]);
        prop_assert_eq!(&drive(&stream, &cuts(&stream, &places)), &whole);
        let every_byte: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(&drive(&stream, &every_byte), &whole);
        // Nothing is answered after a connection closes.
        let closes = |seen: &Seen| !matches!(seen, Seen::Request { keep_alive: true, .. });
        prop_assert!(whole.0.iter().position(closes).is_none_or(|at| at + 1 == whole.0.len()));
    }

    #[test]
    fn damaged_requests_do_no_damage(
        requests in vec(request(), 1..3),
        place in any::<Index>(),
        byte in any::<u8>(),
        cut in any::<Index>(),
    ) {
        let mut stream: Vec<u8> = requests.into_iter().flat_map(|(bytes, _)| bytes).collect();
        let at = place.index(stream.len());
        stream[at] = byte;
        let whole = drive(&stream, &[]);
        prop_assert_eq!(drive(&stream, &[cut.index(stream.len())]), whole);
    }

    /// Where both parsers take a head, they find the same in it; what the general one refuses, we refuse or it holds a
    /// control byte in a value.
    #[test]
    fn a_general_parser_sees_the_same(
        fields in vec(
            (
                select(vec!["X-Real-IP", "X-Original-IP", "x-client-ip", "X-Forwarded-For", "Connection", "Z", "O t"]),
                select(vec![":", ": ", ":\t", " :", ""]),
                prop_oneof!["[ -~]{0,9}", "(close|keep-alive|,| |[0-9]{1,3}){0,4}", "[ -~\r\n\0\u{1}\u{7f}\u{e9}]{0,5}"],
            ),
            0..6,
        ),
        line in select(vec!["GET /auth HTTP/1.1", "HEAD /auth HTTP/1.0", "POST /auth HTTP/1.0", "GET /auth HTTP/1.3"]),
    ) {
        let fields: String = fields.iter().map(|(name, colon, value)| format!("{name}{colon}{value}\r\n")).collect();
        let head = format!("{line}\r\n{fields}\r\n").into_bytes();
        if let Step::Request { consumed, .. } = Session::new().next(&head) {
            let head = &head[..consumed];
            // What the general parser does not take: later minor versions, control bytes.
            let tamed: Vec<u8> = head.iter().map(|&byte| match byte {
                b'\r' | b'\n' | b'\t' => byte,
                0..0x20 | 0x7f => b'?',
                _ => byte,
            }).collect();
            let tamed = String::from_utf8_lossy(&tamed).replace("HTTP/1.3\r\n", "HTTP/1.1\r\n").into_bytes();
            let (seen, _) = drive(&tamed, &[]);
            prop_assert_eq!(seen.into_iter().next(), by_general_parser(&tamed));
        } else if by_general_parser(&head).is_some() {
            // Stricter only in how lines end.
            let text = String::from_utf8_lossy(&head).replace("\r\n", "");
            prop_assert!(text.contains(['\r', '\n']), "{}", head.escape_ascii());
        }
    }
}

#[test]
fn captures_survive_every_cut_and_every_damage() {
    for capture in captures::ALL {
        let stream = [capture, captures::NGINX_KEEP_ALIVE].concat();
        let whole = drive(&stream, &[]);
        for at in 0..stream.len() {
            assert_eq!(drive(&stream, &[at]), whole);
        }
        for at in 0..capture.len() {
            for byte in 0..=255 {
                let mut damaged = capture.to_vec();
                damaged[at] = byte;
                drive(&damaged, &[]);
            }
        }
    }
}

#[test]
fn a_flood_without_end_is_refused_within_the_limit() {
    for byte in 0..=255_u8 {
        let (seen, unread) = drive(&vec![byte; HEAD_BYTES_MAX], &[1, 2, 3, 1000]);
        assert_eq!((seen.len(), unread), (1, 0), "{byte:#04x}");
        assert!(matches!(seen[0], Seen::Refused(400 | 414)), "{byte:#04x}: {seen:?}");
    }
}

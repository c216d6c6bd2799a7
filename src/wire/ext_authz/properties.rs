//! Properties of the whole session: how a connection's bytes are cut does not matter, and no bytes do harm.

#![cfg(test)]

use std::task::{Context, Poll, Waker};

use h2::client::ResponseFuture;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::peer::{
    self, CONTINUATION, Caller, Client, DATA, END_HEADERS, END_STREAM, HEADERS, HTTP, Seen, check, frame,
};
use super::{Handled, OUTPUT_BYTES_MAX, Refusal, Why};

/// What Envoy sent on one connection, and how many checks are in it.
const CAPTURES: [(&[u8], usize); 2] = [
    (include_bytes!("../../../tests/golden/ext_authz/envoy.http.stream"), 2),
    (include_bytes!("../../../tests/golden/ext_authz/envoy.network.stream"), 3),
];

/// What can be in a message: a source, or nothing readable.
fn message() -> impl Strategy<Value = (Vec<u8>, Seen)> {
    let source = "[0-9a-f.:]{1,30}".prop_map(|text| {
        let address = [&[0x12, text.len() as u8], text.as_bytes()].concat();
        let message = [0x0a; 4].iter().fold(address, |inner, tag| [&[*tag, inner.len() as u8], &inner[..]].concat());
        (message, Seen::Check(Some(text)))
    });
    prop_oneof![
        4 => source,
        1 => Just((vec![], Seen::Check(None))),
        1 => Just((vec![0x0a], Seen::Handled(Handled::Refused(Refusal::Malformed)))),
    ]
}

/// One call: where its head and its data are cut into frames, its message, and what is to be seen of it.
type Call = (Vec<Index>, Vec<Index>, (Vec<u8>, Seen));

fn call() -> impl Strategy<Value = Call> {
    (vec(any::<Index>(), 0..2), vec(any::<Index>(), 0..4), message())
}

fn pieces<'a>(bytes: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

fn frames_of(stream: u32, (head_cuts, data_cuts, (message, _)): &Call) -> Vec<u8> {
    let (head, data) = (peer::head(peer::CHECK), peer::prefixed(message));
    let (head, data) = (pieces(&head, head_cuts), pieces(&data, data_cuts));
    let mut out = Vec::new();
    for (at, piece) in head.iter().enumerate() {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let flags = if at + 1 == head.len() { END_HEADERS } else { 0 };
        out.extend(frame(kind, flags, stream, piece));
    }
    for (at, piece) in data.iter().enumerate() {
        let flags = if at + 1 == data.len() { END_STREAM } else { 0 };
        out.extend(frame(DATA, flags, stream, piece));
    }
    out
}

/// Bytes that look like HTTP/2 more often than not.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let any_frame = (0..12_u8, any::<u8>(), 0..8_u32, vec(any::<u8>(), 0..20));
    let piece = prop_oneof![
        any_frame.prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
        (0..8_u32).prop_map(|stream| check(stream, HTTP)),
        (0..8_u32, select(vec![0, END_STREAM])).prop_map(|(stream, flags)| frame(DATA, flags, stream, b"\0\0\0\0\0")),
        (0..8_u32).prop_map(|stream| frame(HEADERS, END_HEADERS, stream, &peer::head(peer::CHECK))),
        vec(any::<u8>(), 0..30),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// The frames of answers, without those that only keep house. How fields are written depends on which answer came first, so
/// that is left out.
fn answers(out: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = peer::frames(out);
    frames.retain(|(kind, ..)| matches!(*kind, DATA | HEADERS));
    frames.iter_mut().filter(|(kind, ..)| *kind == HEADERS).for_each(|(.., fields)| fields.clear());
    // Which of several calls in one piece is complete first may differ; within one, the order is what it is.
    frames.sort_by_key(|(_, _, stream, _)| *stream);
    frames
}

fn sorted(mut seen: Vec<Seen>) -> Vec<Seen> {
    seen.sort_by_key(|seen| format!("{seen:?}"));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn calls_are_seen_as_sent_however_they_are_cut(calls in vec(call(), 0..5), piece in 1..600_usize) {
        let frames: Vec<u8> = (1..).step_by(2).zip(&calls).flat_map(|(stream, call)| frames_of(stream, call)).collect();
        let bytes = peer::opening(&frames);
        let whole = Caller::all(&bytes, usize::MAX);
        let sent = calls.into_iter().map(|(_, _, (_, seen))| seen).chain([Seen::Closed(Why::Ended)]).collect();
        let sent = sorted(sent);
        prop_assert_eq!(&sorted(whole.seen), &sent);
        for piece in [1, piece] {
            let cut = Caller::all(&bytes, piece);
            prop_assert_eq!(&sorted(cut.seen), &sent);
            prop_assert_eq!(answers(&cut.out), answers(&whole.out));
        }
    }

    #[test]
    fn hostile_bytes_do_no_harm(bytes in hostile(), piece in 1..100_usize, opens in any::<bool>()) {
        let bytes = if opens { peer::opening(&bytes) } else { bytes };
        for piece in [piece, usize::MAX] {
            let caller = Caller::all(&bytes, piece);
            prop_assert!(caller.session.is_closed());
            prop_assert!(matches!(caller.seen.last(), Some(Seen::Closed(_))));
            prop_assert!(caller.out.len() < OUTPUT_BYTES_MAX);
        }
    }
}

/// One call of the client of `h2`: what it asks, how long its message is, what else is in its head, whether it gives up,
/// and whether it waits for all before it to be answered.
type Asked = (usize, usize, (u8, String), bool, bool);

fn asked() -> impl Strategy<Value = Asked> {
    let length = prop_oneof![3 => 0..2000_usize, 1 => 0..200_000_usize];
    (0..4_usize, length, (0..5_u8, "[ -~]{0,60}"), prop::bool::weighted(0.2), any::<bool>())
}

/// Begins it, and says what its status has to be.
fn ask(client: &mut Client, (what, length, (field, value), ..): &Asked) -> (ResponseFuture, &'static str) {
    let mut message = HTTP.to_vec();
    // A field behind the source, which nobody reads.
    message.push(0x12);
    prost::encoding::encode_varint(*length as u64, &mut message);
    message.resize(message.len() + length, b'x');
    let message = peer::prefixed(&message);
    let (path, message, want) = match what {
        0 => (peer::CHECK, &message[..], "0"),
        1 => ("/grpc.health.v1.Health/Check", &b"\0\0\0\0\0"[..], "0"),
        2 => ("/grpc.health.v1.Health/Other", &message[..], "12"),
        _ => (peer::CHECK, &message[..message.len() - 1], "13"),
    };
    let request = http::Request::post(format!("http://fail2ban{path}")).header("content-type", "application/grpc");
    let request = request.header(format!("x-field-{field}"), value).body(()).unwrap();
    (client.send(request, message), want)
}

/// Its whole answer, through whatever windows.
fn heard(client: &mut Client, response: &mut ResponseFuture) -> (Vec<u8>, String) {
    client.settle();
    let (head, mut body) = peer::head_of(response).expect("an answer").into_parts();
    let mut data = Vec::new();
    for _ in 0..1000 {
        data.extend(peer::read_data(&mut body));
        if let Poll::Ready(trailers) = body.poll_trailers(&mut Context::from_waker(Waker::noop())) {
            let trailers = trailers.unwrap().unwrap_or(head.headers);
            return (data, trailers["grpc-status"].to_str().unwrap().to_owned());
        }
        client.settle();
    }
    panic!("no end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Another implementation's client, whatever it sets and however its calls come, gets the answers that it should.
    #[test]
    fn a_client_of_another_make_is_served(
        window in 1..300_u32,
        table in 0..5000_u32,
        frame in 16_384..60_000_u32,
        calls in vec(asked(), 1..25),
    ) {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).header_table_size(table).max_frame_size(frame);
        let mut client = Client::with(&builder);
        let mut waiting = Vec::new();
        for call in &calls {
            let (.., gives_up, waits) = call;
            let (mut response, want) = ask(&mut client, call);
            if *gives_up {
                drop(response);
            } else if *waits {
                prop_assert_eq!(heard(&mut client, &mut response).1, want);
            } else {
                waiting.push((response, want, call.0));
            }
        }
        for (mut response, want, what) in waiting {
            let (data, status) = heard(&mut client, &mut response);
            prop_assert_eq!(status, want);
            let answer = [&b"\0\0\0\0\x04\x0a\0\x1a\0"[..], b"\0\0\0\0\x02\x08\x01", b"", b""][what];
            prop_assert_eq!(data, answer);
        }
        client.settle();
        prop_assert_eq!(client.caller.session.incomplete_calls(), 0);
        prop_assert!(!client.caller.session.is_closed() && !client.has_ended);
        client.caller.session.shut_down();
        client.settle();
        prop_assert!(client.caller.session.is_closed() && client.has_ended);
        prop_assert_eq!(client.caller.seen.last(), Some(&Seen::Closed(Why::Ended)));
    }
}

#[test]
fn captures_are_answered_wherever_they_are_cut() {
    for (capture, checks) in CAPTURES {
        let whole = Caller::all(capture, usize::MAX);
        let mut want = vec![Seen::Check(Some("127.0.0.1".to_owned())); checks];
        want.push(Seen::Closed(Why::Ended));
        assert_eq!(whole.seen, want);
        for cut in 0..=capture.len() {
            let mut caller = Caller::new();
            caller.read(&capture[..cut], usize::MAX);
            // Every prefix is waited with, not refused.
            assert!(!caller.session.is_closed() && caller.session.wants_input());
            caller.read(&capture[cut..], usize::MAX);
            caller.session.receive_end();
            caller.settle();
            assert_eq!(caller.seen, whole.seen, "cut at {cut}");
            assert_eq!(answers(&caller.out), answers(&whole.out), "cut at {cut}");
        }
    }
}

#[test]
fn captures_survive_every_prefix_and_every_damage() {
    for (capture, _) in CAPTURES {
        for end in 0..=capture.len() {
            let caller = Caller::all(&capture[..end], usize::MAX);
            assert!(caller.session.is_closed());
        }
        for at in 0..capture.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, capture[at] ^ 1, capture[at] ^ 0x20, capture[at].wrapping_add(1)] {
                let mut damaged = capture.to_vec();
                damaged[at] = byte;
                let caller = Caller::all(&damaged, usize::MAX);
                assert!(caller.session.is_closed());
                assert!(caller.out.len() < OUTPUT_BYTES_MAX);
            }
        }
    }
}

//! One connection: where frames begin and end, the handshake before them and the farewell behind them.

use super::disconnect::{self, Fault, Status};
use super::frame::{self, Frame, HEAD_BYTES_MIN, kind};
use super::hello::Hello;
use super::notify::Notify;
use super::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};

/// The agent's side of one connection: 8 bytes of state, no buffer of its own.
#[derive(Debug)]
pub struct Session {
    state: State,
    frame_bytes_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The hello has not come yet.
    Greeting,
    /// It was answered.
    Open,
    /// The last word was said: what follows is nobody's.
    Closing,
}

/// What the bytes at the start of the buffer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Nothing yet: read more and ask again, with what is there now still in the buffer.
    Incomplete,
    /// The first `consumed` bytes (at least one) are done with. Go on.
    Handled { consumed: usize, what: Handled },
    /// A question: the first `consumed` bytes. It must get exactly one answer ([`answer::ack`](super::answer::ack)); in
    /// which order several are answered is free (section 3.2.1).
    Notify { notify: Notify<'a>, consumed: usize },
    /// Write what was answered so far, then close. All of the buffer is consumed.
    Close { consumed: usize, why: Closing },
}

/// What needed nothing from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The peer's hello; ours was appended.
    Hello,
    /// A frame of a type that is not known. Section 3.2.2 lets us skip it.
    UnknownFrame,
    /// Anything at all after the connection's end.
    AfterClose,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// A health check was answered: it is over (section 3.2.3).
    HealthCheck,
    /// The peer said goodbye, and so did we. `status` is its reason; [`Status`] names the usual ones.
    Peer { status: u32 },
    /// The peer broke the rules, and was told so.
    Fault(Fault),
}

impl Default for Session {
    fn default() -> Session {
        Session::new()
    }
}

impl Session {
    pub fn new() -> Session {
        Session { state: State::Greeting, frame_bytes_max: FRAME_BYTES_MAX }
    }

    /// Says what comes next. `buffer` holds everything that was received and not yet consumed, and must be able to
    /// grow to [`FRAME_BYTES_MAX`] and four bytes: of a frame that is not complete only its length is looked at.
    ///
    /// What the protocol itself has to say (AGENT-HELLO, AGENT-DISCONNECT) is appended to `out`. Call it again after
    /// [`Step::Handled`] and [`Step::Notify`]; each of them consumes at least one byte.
    pub fn next<'a>(&mut self, buffer: &'a [u8], out: &mut Vec<u8>) -> Step<'a> {
        if self.is_closing() && !buffer.is_empty() {
            return Step::Handled { consumed: buffer.len(), what: Handled::AfterClose };
        }
        let Some((length, rest)) = buffer.split_first_chunk() else {
            return Step::Incomplete;
        };
        let length = u32::from_be_bytes(*length);
        // Neither is worth waiting for. HTTP and TLS begin with what would be a length of a gigabyte.
        let length_max = if self.is_greeting() { HELLO_BYTES_MAX } else { self.frame_bytes_max };
        if length > length_max {
            return self.refuse(Fault::FrameTooLong, buffer, out);
        }
        if length < HEAD_BYTES_MIN {
            return self.refuse(Fault::FrameTooShort, buffer, out);
        }
        let Some(bytes) = rest.get(..length as usize) else {
            return Step::Incomplete;
        };
        let consumed = frame::LENGTH_BYTES + bytes.len();
        match self.handle(bytes, out) {
            Ok(Event::Notify(notify)) => Step::Notify { notify, consumed },
            Ok(Event::Handled(what)) => Step::Handled { consumed, what },
            Ok(Event::Close(why)) => {
                self.state = State::Closing;
                Step::Close { consumed: buffer.len(), why }
            }
            Err(fault) => self.refuse(fault, buffer, out),
        }
    }

    /// The agent ends the connection: appends an AGENT-DISCONNECT, unless the last word was said already. Write `out`,
    /// then close. Questions that are not answered yet stay so, and HAProxy goes by its `timeout processing`.
    ///
    /// Before the handshake too: section 3.2.3 has a DISCONNECT in the hello's place where the agent cannot go on.
    pub fn disconnect(&mut self, status: Status, out: &mut Vec<u8>) {
        if !self.is_closing() {
            self.state = State::Closing;
            disconnect::push_status(out, status);
        }
    }

    /// Whether nothing more will be answered on this connection.
    pub fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    /// Whether the handshake is still to come: a connection on which nobody greets is to be cut some day.
    pub fn is_greeting(&self) -> bool {
        self.state == State::Greeting
    }

    /// The longest frame in bytes, the four of its length not counted: as negotiated, before the hello ours. Answers
    /// keep to it.
    pub fn frame_bytes_max(&self) -> u32 {
        self.frame_bytes_max
    }

    fn handle<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> Result<Event<'a>, Fault> {
        let frame = Frame::decode(bytes).ok_or(Fault::Malformed)?;
        if frame.is_fragment() {
            return Err(Fault::Fragment);
        }
        // ABORT is not looked at. It was made for fragments, and could be ignored on a whole payload (SPOE.txt of 2.6).
        // Whoever set it on a question and still waits is answered; an answer that nobody waits for is ignored.
        match (frame.kind, self.state) {
            (kind::NOTIFY, State::Open) => {
                Notify::decode(frame.stream_id, frame.frame_id, frame.payload).map(Event::Notify)
            }
            (kind::HAPROXY_HELLO | kind::HAPROXY_DISCONNECT, _) if !frame.is_about_connection() => {
                Err(Fault::Identifiers)
            }
            (kind::HAPROXY_DISCONNECT, _) => {
                let status = disconnect::decode(frame.payload)?;
                disconnect::push_status(out, Status::Normal);
                Ok(Event::Close(Closing::Peer { status }))
            }
            (kind::HAPROXY_HELLO, State::Greeting) => {
                let hello = Hello::decode(frame.payload)?;
                hello.push_answer(out);
                self.frame_bytes_max = hello.frame_bytes_max;
                if hello.healthcheck {
                    return Ok(Event::Close(Closing::HealthCheck));
                }
                self.state = State::Open;
                Ok(Event::Handled(Handled::Hello))
            }
            (kind::HAPROXY_HELLO, _) => Err(Fault::SecondHello),
            (kind::AGENT_HELLO | kind::AGENT_DISCONNECT | kind::ACK, _) => Err(Fault::AgentFrame),
            (_, State::Greeting) => Err(Fault::NoHello),
            _ => Ok(Event::Handled(Handled::UnknownFrame)),
        }
    }

    fn refuse<'a>(&mut self, fault: Fault, buffer: &'a [u8], out: &mut Vec<u8>) -> Step<'a> {
        self.state = State::Closing;
        disconnect::push_fault(out, fault);
        Step::Close { consumed: buffer.len(), why: Closing::Fault(fault) }
    }
}

/// What one frame comes to.
enum Event<'a> {
    Notify(Notify<'a>),
    Handled(Handled),
    Close(Closing),
}

#[cfg(test)]
mod tests {
    use super::super::FRAME_BYTES_MIN;
    use super::super::data::Value;
    use super::super::peer::{self, ABORT, AgentFrame, FIN};
    use super::super::properties::{drive, words};
    use super::*;

    fn hello() -> Vec<u8> {
        peer::hello(16380, "pipelining,async")
    }

    fn question() -> Vec<u8> {
        peer::notify(7, 1, &[peer::message(b"check", &[(b"src", Value::Ipv4([192, 0, 2, 7].into()))])])
    }

    const HELLO: &str = "hello, said 2.0 16380 \"pipelining\"";
    const QUESTION: &str = "notify 7 1 check(src=192.0.2.7) asks 192.0.2.7";

    #[track_caller]
    fn check(frames: &[&[u8]], want: &[&str]) {
        assert_eq!(words(&drive(&frames.concat(), &[]).seen), want);
    }

    #[test]
    fn a_session_is_small() {
        assert_eq!(size_of::<Session>(), 8);
    }

    #[test]
    fn frames_follow_each_other() {
        let goodbye = peer::disconnect(2);
        check(&[], &[]);
        check(&[&hello()], &[HELLO]);
        check(&[&hello(), &question(), &question()], &[HELLO, QUESTION, QUESTION]);
        let end = "close: Peer { status: 2 }, said 0";
        check(&[&hello(), &question(), &goodbye], &[HELLO, QUESTION, end]);
        // Whatever comes after the end is nobody's.
        check(&[&hello(), &goodbye, &question(), &hello()], &[HELLO, end]);
        check(&[&goodbye, &hello()], &[end]);
        // No question is a question too, and so is one about nobody.
        check(&[&hello(), &peer::notify(0, 0, &[])], &[HELLO, "notify 0 0  asks "]);
        check(&[&hello(), &peer::notify(0, 1, &[peer::message(b"", &[])])], &[HELLO, "notify 0 1 () asks "]);
    }

    #[test]
    fn flags_mean_what_they_say() {
        let with = |flags| peer::frame(3, flags, 7, 1, &question()[11..]);
        assert_eq!(with(FIN), question());
        for flags in [FIN | ABORT, FIN | 0xffff_fffc, u32::MAX] {
            check(&[&hello(), &with(flags)], &[HELLO, QUESTION]);
        }
        for flags in [0, ABORT, 0xffff_fffe] {
            check(&[&hello(), &with(flags), &question()], &[HELLO, "close: Fault(Fragment), said 10"]);
        }
        // A later piece, and a hello that is one.
        check(&[&hello(), &peer::frame(0, FIN, 7, 1, b"")], &[HELLO, "close: Fault(Fragment), said 10"]);
        check(&[&peer::frame(1, 0, 0, 0, b"")], &["close: Fault(Fragment), said 10"]);
    }

    #[test]
    fn each_frame_has_its_place() {
        check(&[&question()], &["close: Fault(NoHello), said 4"]);
        check(&[&peer::frame(42, FIN, 0, 0, b""), &hello()], &["close: Fault(NoHello), said 4"]);
        check(&[&hello(), &hello()], &[HELLO, "close: Fault(SecondHello), said 4"]);
        for kind in [101, 102, 103] {
            let frame = peer::frame(kind, FIN, 0, 0, b"");
            check(&[&frame], &["close: Fault(AgentFrame), said 4"]);
            check(&[&hello(), &frame, &question()], &[HELLO, "close: Fault(AgentFrame), said 4"]);
        }
        for kind in [4, 42, 100, 104, 255] {
            let frame = peer::frame(kind, FIN, 9, 9, b"\xff\xff");
            check(&[&hello(), &frame, &question()], &[HELLO, "unknown frame", QUESTION]);
        }
        for (kind, stream_id, frame_id) in [(1, 1, 0), (1, 0, 1), (2, 1, 0), (2, 0, 300)] {
            let frame = peer::frame(kind, FIN, stream_id, frame_id, &hello()[11..]);
            check(&[&frame], &["close: Fault(Identifiers), said 4"]);
        }
    }

    #[test]
    fn health_checks_are_answered_and_over() {
        let mut payload = hello()[11..].to_vec();
        peer::push_items(&mut payload, &[(b"healthcheck", Value::Bool(true))]);
        let check_hello = peer::frame(1, FIN, 0, 0, &payload);
        let end = "close: HealthCheck, said 2.0 16380 \"pipelining\"";
        check(&[&check_hello, &question()], &[end]);
        // Nothing more is said, not even goodbye.
        let (mut session, mut out) = (Session::new(), Vec::new());
        session.next(&check_hello, &mut out);
        let said = out.len();
        session.disconnect(Status::Normal, &mut out);
        assert!(session.is_closing() && out.len() == said);
    }

    #[test]
    fn lengths_out_of_bounds_are_not_waited_for() {
        let (mut session, mut out) = (Session::new(), Vec::new());
        assert_eq!(session.next(&HELLO_BYTES_MAX.to_be_bytes(), &mut out), Step::Incomplete);
        assert!(out.is_empty());
        check(&[&(HELLO_BYTES_MAX + 1).to_be_bytes()], &["close: Fault(FrameTooLong), said 3"]);
        for stream in [b"GET / HTTP/1.1\r\n", &b"\x16\x03\x01\x02"[..], b"PROXY", b"EHLO"] {
            check(&[stream], &["close: Fault(FrameTooLong), said 3"]);
        }
        for length in 0..HEAD_BYTES_MIN {
            check(&[&length.to_be_bytes()], &["close: Fault(FrameTooShort), said 4"]);
        }
        // From the hello on, what was agreed on.
        check(&[&hello(), &16381_u32.to_be_bytes()], &[HELLO, "close: Fault(FrameTooLong), said 3"]);
        assert_eq!(drive(&[hello(), 16380_u32.to_be_bytes().to_vec()].concat(), &[]).unread, 4);
        let greatest = peer::hello(u32::MAX, "");
        let answer = format!("hello, said 2.0 {FRAME_BYTES_MAX} \"\"");
        check(&[&greatest], &[&answer]);
    }

    #[test]
    fn heads_that_do_not_fit_are_malformed() {
        for bytes in [
            // Identifiers that are cut off, and one beyond 64 bits.
            &b"\x03\0\0\0\x01\x01\xff"[..],
            b"\x03\0\0\0\x01\xff\x80\x80",
            b"\x03\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            let frame = [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
            check(&[&hello(), &frame], &[HELLO, "close: Fault(Malformed), said 4"]);
        }
    }

    #[test]
    fn payloads_that_are_not_what_they_say_are_malformed() {
        for payload in [
            &b"\x05chec"[..],
            b"\x05check",
            b"\x05check\x01",
            b"\x05check\x01\x03src",
            b"\x05check\x01\x03src\x06\xc0\0\x02",
            b"\x05check\x02\x03src\x06\xc0\0\x02\x07",
            // Reserved types, and a second message that is none.
            b"\x05check\x01\x03src\x0a",
            b"\x05check\x01\x03src\x0f\0",
            b"\x05check\x00\x01",
            b"\x05check\x01\x03src\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let frame = peer::frame(3, FIN, 7, 1, payload);
            check(&[&hello(), &frame, &question()], &[HELLO, "close: Fault(Malformed), said 4"]);
        }
        check(&[&peer::frame(1, FIN, 0, 0, b"\x05chec")], &["close: Fault(Malformed), said 4"]);
        check(&[&peer::frame(2, FIN, 0, 0, b"")], &["close: Fault(ValueType), said 4"]);
    }

    /// Section 3.5's codes for what a hello can lack. `hello.rs` has all of them.
    #[test]
    fn hellos_are_refused_with_their_code() {
        check(&[&peer::frame(1, FIN, 0, 0, b"")], &["close: Fault(VersionMissing), said 5"]);
        check(&[&peer::hello(255, "")], &["close: Fault(MaxFrameSizeTooSmall), said 9"]);
        assert_eq!(drive(&peer::hello(FRAME_BYTES_MIN, ""), &[]).seen.len(), 1);
    }

    #[test]
    fn the_agent_says_goodbye_once() {
        for greeting in [vec![], hello()] {
            let (mut session, mut out) = (Session::new(), Vec::new());
            session.next(&greeting, &mut out);
            assert_eq!(session.is_greeting(), greeting.is_empty());
            out.clear();
            session.disconnect(Status::Timeout, &mut out);
            session.disconnect(Status::Normal, &mut out);
            assert!(session.is_closing() && !session.is_greeting());
            let [AgentFrame::Disconnect { code: 2, .. }] = peer::decode(&out)[..] else { panic!("{out:x?}") };
            let frame = question();
            let after = Step::Handled { consumed: frame.len(), what: Handled::AfterClose };
            assert_eq!(session.next(&frame, &mut out), after);
            assert_eq!(session.next(b"", &mut out), Step::Incomplete);
        }
    }
}

//! One connection: frames in, what they mean out.

use std::collections::VecDeque;
use std::ops::Range;

use super::flow::{Inflow, Outflow};
use super::frame::{self, MAX_31, PAYLOAD_BYTES_MAX, Reason};
use super::hpack::Decoder;
use super::name::Shape;
use super::settings::{self, DEFAULT_WINDOW};
use super::streams::Streams;

/// What a client sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most CONTINUATION frames of one header block, which bounds its bytes too. The longest list that is read takes eight, if
/// they are filled.
const CONTINUATIONS_MAX: usize = 16;

/// Most DATA frames that bring nothing (none of a message's bytes, nor its end), until some call's input ends.
const EMPTY_FRAMES_MAX: usize = 1000;

/// Longest header block that is kept, so that the same one need not be read again.
const KEPT_BLOCK_BYTES: usize = 256;

/// What the PING says that asks whether the peer knows that this is the end.
const FAREWELL: [u8; 8] = *b"farewell";

/// What is announced, and what a peer may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams under way (§5.1.2). One more is refused, and counts as a fault.
    pub streams_max: u32,
    /// The longest header list (§6.5.2). Of one that is longer, [`Request::is_too_long`] says so.
    pub header_list_bytes_max: u32,
    /// How many bytes of one stream, and of all, may come without being asked for (§6.9).
    pub stream_window: u32,
    pub connection_window: u32,
    /// Bytes that wait to be sent, at which no frame is taken in any more.
    pub output_bytes_max: usize,
    /// Faults that concern one stream. At more, the connection ends.
    pub faults_max: usize,
    /// Bytes of buffers that are kept when nothing is in them.
    pub kept_bytes: usize,
}

/// What a user wants to know of a request's head: it is shown field by field, pseudo-header fields first.
pub trait Head: Copy + Default {
    fn field(&mut self, name: &[u8], value: &[u8]);
}

/// What has come about.
#[derive(Debug)]
pub enum Event<H, S> {
    /// Nothing: take the output, then receive more.
    Idle,
    /// A stream has begun.
    Request(Request<H>),
    /// Something of its message: where it is in [`Connection::parts`], until the next event.
    Data { stream: u32, bytes: Range<usize>, ends: bool },
    /// Its input has ended, with trailers.
    Ends { stream: u32 },
    /// The peer gave it up, or broke HTTP/2 within it.
    Gone(S),
    /// There is room for what [`Connection::push`] could not send.
    Writable { stream: u32 },
    /// The connection has ended; said once.
    Closed(End),
}

/// How a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<H> {
    pub stream: u32,
    pub head: H,
    /// The header list was longer than announced, and `head` has not seen all of it.
    pub is_too_long: bool,
    /// Nothing follows.
    pub ends: bool,
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By agreement.
    Agreed,
    /// What came first was not the preface.
    NotHttp2,
    /// By a fault of the peer.
    Fault(Reason),
}

/// The server's side of a connection. `H` is what its user wants to know of heads, `S` what it keeps for a stream.
#[derive(Debug)]
pub struct Connection<H, S> {
    limits: Limits,
    stage: Stage,
    /// What was received; the first `taken` bytes of it were dealt with.
    input: Vec<u8>,
    taken: usize,
    /// There is no whole frame in it.
    needs_input: bool,
    output: Vec<u8>,
    decoder: Decoder,
    /// The header block that is under way, and what has come of it.
    block: Option<Block>,
    fragments: Vec<u8>,
    last_read: LastRead<H>,
    streams: Streams<Stream<S>>,
    /// The highest that the peer has begun.
    last_stream: u32,
    /// Streams that were reset from this side, as many as there are faults.
    resets: Vec<u32>,
    faults: usize,
    empty_frames: usize,
    inflow: Inflow,
    outflow: Outflow,
    /// The window that a new stream has.
    first_outflow: u32,
    /// Streams that could send if the connection's window, and the output, had room. Each is in it once.
    queue: VecDeque<u32>,
    farewell: Farewell,
    /// The peer has said that it goes.
    peer_goes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preface,
    /// The first frame has to be SETTINGS.
    FirstFrame,
    Open,
    Closed,
}

/// How far this side is with ending the connection (§6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    No,
    /// As soon as the peer has greeted.
    Wanted,
    /// The peer was told, and asked whether it knows.
    Said,
    /// It knows. Streams above this one are ignored.
    Last(u32),
}

#[derive(Clone, Copy, Debug)]
struct Block {
    stream: u32,
    ends: bool,
    continuations: usize,
}

/// What a header block was read as.
#[derive(Clone, Copy, Debug, Default)]
struct Read<H> {
    head: H,
    shape: Shape,
    is_too_long: bool,
}

/// The last block that changed nothing: the same bytes mean the same, as long as nothing else changes the table. Proxies ask
/// with one head again and again, each field of which is a number in the table.
#[derive(Debug, Default)]
struct LastRead<H> {
    block: Vec<u8>,
    changes: u64,
    read: Read<H>,
}

#[derive(Debug)]
struct Stream<S> {
    /// Its input has ended.
    has_ended: bool,
    inflow: Inflow,
    outflow: Outflow,
    waiting: Waiting,
    is_queued: bool,
    own: S,
}

/// What a stream waits with.
#[derive(Debug)]
enum Waiting {
    Nothing,
    /// For room for so many bytes.
    Room(usize),
    /// With what is left of its last message, and what follows.
    Bytes {
        rest: Vec<u8>,
        sent: usize,
        trailers: &'static [u8],
    },
}

enum Fault {
    Connection(Reason),
    Stream(u32, Reason),
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Fault {
        Fault::Connection(reason)
    }
}

impl<H: Head, S: Default> Connection<H, S> {
    pub fn new(limits: Limits) -> Connection<H, S> {
        Connection {
            limits,
            stage: Stage::Preface,
            input: Vec::new(),
            taken: 0,
            needs_input: true,
            output: Vec::new(),
            decoder: Decoder::default(),
            block: None,
            fragments: Vec::new(),
            last_read: LastRead::default(),
            streams: Streams::default(),
            last_stream: 0,
            resets: Vec::new(),
            faults: 0,
            empty_frames: 0,
            inflow: Inflow::new(limits.connection_window),
            outflow: Outflow::new(DEFAULT_WINDOW),
            first_outflow: DEFAULT_WINDOW,
            queue: VecDeque::new(),
            farewell: Farewell::No,
            peer_goes: false,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Whether all frames that were received have been dealt with.
    pub fn needs_input(&self) -> bool {
        self.needs_input
    }

    /// Whether something is half said: the preface, a frame, a header block.
    pub fn is_in_the_middle(&self) -> bool {
        self.stage == Stage::Preface || self.taken < self.input.len() || self.block.is_some()
    }

    /// Takes in bytes that the peer sent.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.stage != Stage::Closed {
            self.input.drain(..self.taken);
            self.taken = 0;
            self.input.extend_from_slice(bytes);
            self.needs_input = false;
        }
    }

    /// Moves what is to be sent to the end of `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() && out.capacity() < self.output.len() {
            std::mem::swap(out, &mut self.output);
        } else {
            out.append(&mut self.output);
        }
        self.output.shrink_to(self.limits.kept_bytes);
    }

    pub fn has_room_for_output(&self) -> bool {
        self.output.len() < self.limits.output_bytes_max
    }

    /// Goes on until something has come about.
    pub fn advance(&mut self) -> Event<H, S> {
        // Lent to what reads it, and put back.
        let input = std::mem::take(&mut self.input);
        let event = self.work(&input);
        if self.stage == Stage::Closed {
            return event;
        }
        self.input = input;
        if self.taken == self.input.len() && matches!(event, Event::Idle) {
            self.input.clear();
            self.taken = 0;
            // A burst must not keep its memory for as long as the connection lives.
            if self.input.capacity() > 4 * self.limits.kept_bytes {
                self.input.shrink_to(self.limits.kept_bytes);
            }
        }
        event
    }

    /// What the user keeps for a stream, and the bytes of [`Event::Data`].
    pub fn parts(&mut self, stream: u32, bytes: Range<usize>) -> Option<(&mut S, &[u8])> {
        let stream = self.streams.get_mut(stream)?;
        Some((&mut stream.own, self.input.get(bytes)?))
    }

    /// What the user keeps for a stream.
    pub fn get_mut(&mut self, stream: u32) -> Option<&mut S> {
        Some(&mut self.streams.get_mut(stream)?.own)
    }

    /// The bytes of [`Event::Data`], until the next event.
    pub fn bytes(&self, bytes: Range<usize>) -> &[u8] {
        self.input.get(bytes).unwrap_or_default()
    }

    /// Answers a stream whose input has ended with all that there is to say: HEADERS, one message, HEADERS again. Whatever
    /// the peer has no room for waits.
    pub fn respond(&mut self, stream: u32, head: &[u8], message: impl FnOnce(&mut Vec<u8>), trailers: &'static [u8]) {
        self.begin(stream, head);
        self.finish(stream, message, trailers);
    }

    /// Answers a stream whose input has ended with HEADERS alone; `fields` appends its header block.
    pub fn respond_briefly(&mut self, stream: u32, fields: impl FnOnce(&mut Vec<u8>)) {
        if self.remove(stream).is_some() {
            let begun = frame::begin(&mut self.output, frame::HEADERS, frame::END_HEADERS | frame::END_STREAM, stream);
            fields(&mut self.output);
            frame::finish(&mut self.output, begun);
        }
    }

    /// Begins an answer of several messages.
    pub fn begin(&mut self, stream: u32, head: &[u8]) {
        if self.streams.get_mut(stream).is_some() {
            frame::put(&mut self.output, frame::HEADERS, frame::END_HEADERS, stream, head);
        }
    }

    /// Sends one of its messages, if the peer has room for all of it. If not, it is not kept, and
    /// [`Event::Writable`] says when there is.
    pub fn push(&mut self, stream: u32, message: &[u8]) -> bool {
        let Some(found) = self.streams.get_mut(stream) else { return false };
        let fits = message.len() <= self.outflow.room().min(found.outflow.room());
        if fits {
            found.outflow.spend(message.len());
            self.outflow.spend(message.len());
            frame::put(&mut self.output, frame::DATA, 0, stream, message);
        } else {
            found.waiting = Waiting::Room(message.len());
            queue_up(&mut self.queue, stream, found);
        }
        fits
    }

    /// Sends its last message, and how it ends. Whatever the peer has no room for waits.
    pub fn finish(&mut self, stream: u32, message: impl FnOnce(&mut Vec<u8>), trailers: &'static [u8]) {
        let Some(found) = self.streams.get_mut(stream) else { return };
        let begun = frame::begin(&mut self.output, frame::DATA, 0, stream);
        message(&mut self.output);
        let bytes = self.output.len().saturating_sub(begun);
        if bytes <= self.outflow.room().min(found.outflow.room()).min(PAYLOAD_BYTES_MAX) {
            if bytes == 0 {
                self.output.truncate(begun.saturating_sub(frame::HEAD_BYTES));
            } else {
                self.outflow.spend(bytes);
                frame::finish(&mut self.output, begun);
            }
            put_trailers(&mut self.output, stream, trailers);
            self.remove(stream);
        } else {
            let rest = self.output.split_off(begun);
            self.output.truncate(begun.saturating_sub(frame::HEAD_BYTES));
            found.waiting = Waiting::Bytes { rest, sent: 0, trailers };
            queue_up(&mut self.queue, stream, found);
        }
    }

    /// No new streams: GOAWAY, which says that all may still come, and once the peer knows of it another one, which says
    /// which streams still came. When these are done the connection ends.
    pub fn shut_down(&mut self) {
        match (self.farewell, self.stage) {
            (Farewell::No, Stage::Preface) => self.farewell = Farewell::Wanted,
            (Farewell::No | Farewell::Wanted, Stage::FirstFrame | Stage::Open) => {
                frame::put_goaway(&mut self.output, MAX_31, Reason::NoError);
                frame::put(&mut self.output, frame::PING, 0, 0, &FAREWELL);
                self.farewell = Farewell::Said;
            }
            _ => {}
        }
    }

    /// The connection has ended, whatever is under way.
    pub fn close(&mut self, end: End) -> Event<H, S> {
        if let End::Fault(reason) = end {
            frame::put_goaway(&mut self.output, self.last_stream, reason);
        }
        self.stage = Stage::Closed;
        self.streams.clear();
        self.queue = VecDeque::new();
        (self.input, self.taken, self.fragments, self.block) = (Vec::new(), 0, Vec::new(), None);
        Event::Closed(end)
    }

    fn work(&mut self, input: &[u8]) -> Event<H, S> {
        loop {
            if let Some(stream) = self.send_what_waits() {
                return Event::Writable { stream };
            }
            if self.is_over() {
                return self.end();
            }
            let rest = input.get(self.taken..).unwrap_or_default();
            match self.stage {
                Stage::Closed => return Event::Idle,
                Stage::Preface => match rest.get(..PREFACE.len()) {
                    Some(preface) if preface == PREFACE => self.greet(),
                    None if PREFACE.starts_with(rest) => return self.pause(),
                    _ => return self.close(End::NotHttp2),
                },
                Stage::FirstFrame | Stage::Open => {
                    let Some(head) = frame::Head::decode(rest) else { return self.pause() };
                    if head.length > PAYLOAD_BYTES_MAX {
                        return self.close(End::Fault(Reason::FrameSizeError));
                    }
                    let begin = frame::HEAD_BYTES;
                    let Some(payload) = rest.get(begin..begin + head.length) else { return self.pause() };
                    if self.output.len() + answer_bytes(head.kind) > self.limits.output_bytes_max {
                        return Event::Idle;
                    }
                    let at = self.taken + begin;
                    self.taken = at + head.length;
                    let event = match self.take(head, payload, at) {
                        Ok(event) => event,
                        Err(Fault::Connection(reason)) => Some(self.close(End::Fault(reason))),
                        Err(Fault::Stream(stream, reason)) => self.reset(stream, reason),
                    };
                    if let Some(event) = event {
                        return event;
                    }
                }
            }
        }
    }

    /// There is no whole frame.
    fn pause(&mut self) -> Event<H, S> {
        self.needs_input = true;
        Event::Idle
    }

    /// Whether one side has said that it goes, and nothing is under way any more. What the peer sends behind its GOAWAY, when
    /// all it asked has been answered, is not looked at: it has no right to expect an answer to that (§6.8).
    fn is_over(&self) -> bool {
        let ends = self.peer_goes || matches!(self.farewell, Farewell::Last(_));
        ends && self.stage == Stage::Open && self.block.is_none() && self.streams.is_empty()
    }

    /// The end by agreement. Whoever was told which streams still came needs not be told again.
    fn end(&mut self) -> Event<H, S> {
        if !matches!(self.farewell, Farewell::Last(_)) {
            frame::put_goaway(&mut self.output, self.last_stream, Reason::NoError);
        }
        self.close(End::Agreed)
    }

    /// The preface has come: this side's is SETTINGS (§3.4).
    fn greet(&mut self) {
        self.taken += PREFACE.len();
        self.stage = Stage::FirstFrame;
        let begun = frame::begin(&mut self.output, frame::SETTINGS, 0, 0);
        for (number, value) in [
            (settings::MAX_CONCURRENT_STREAMS, self.limits.streams_max),
            (settings::INITIAL_WINDOW_SIZE, self.limits.stream_window),
            (settings::MAX_HEADER_LIST_SIZE, self.limits.header_list_bytes_max),
        ] {
            settings::put(&mut self.output, number, value);
        }
        frame::finish(&mut self.output, begun);
        // The connection's window has no setting (§6.9.2).
        let more = self.limits.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            frame::put_window_update(&mut self.output, 0, more);
        }
        if self.farewell == Farewell::Wanted {
            self.shut_down();
        }
    }

    /// Takes in a frame, whose payload begins at `at` in the input.
    fn take(&mut self, head: frame::Head, payload: &[u8], at: usize) -> Result<Option<Event<H, S>>, Fault> {
        if self.stage == Stage::FirstFrame {
            if head.kind != frame::SETTINGS || head.has(frame::ACK) {
                return Err(Reason::ProtocolError.into());
            }
            self.stage = Stage::Open;
        }
        // Nothing may come between the parts of a header block (§6.10).
        if self.block.is_some() && head.kind != frame::CONTINUATION {
            return Err(Reason::ProtocolError.into());
        }
        match head.kind {
            frame::DATA => self.take_data(head, payload, at),
            frame::HEADERS => self.take_headers(head, payload),
            frame::CONTINUATION => self.take_continuation(head, payload),
            frame::RST_STREAM => self.take_reset(head, payload),
            frame::WINDOW_UPDATE => self.take_window_update(head, payload),
            frame::SETTINGS => self.take_settings(head, payload),
            frame::PING => self.take_ping(head, payload),
            frame::GOAWAY => self.take_goaway(head, payload),
            // §6.3 wants a stream to pay for its wrong length. It may be one that has not begun.
            frame::PRIORITY if payload.len() != 5 => Err(Reason::FrameSizeError.into()),
            frame::PRIORITY if head.stream == 0 => Err(Reason::ProtocolError.into()),
            // Only servers push (§8.4).
            frame::PUSH_PROMISE => Err(Reason::ProtocolError.into()),
            // What is not known is ignored (§5.5).
            _ => Ok(None),
        }
    }

    /// §6.1
    fn take_data(&mut self, head: frame::Head, payload: &[u8], at: usize) -> Result<Option<Event<H, S>>, Fault> {
        if self.is_idle(head.stream) {
            return Err(Reason::ProtocolError.into());
        }
        // Padding counts, and so does what is for nobody.
        let count = payload.len() as u32;
        self.inflow.take(count).map_err(|_| Reason::FlowControlError)?;
        if let Some(increment) = self.inflow.due() {
            frame::put_window_update(&mut self.output, 0, increment);
        }
        let data = head.unpadded(payload)?;
        let (stream, ends) = (head.stream, head.has(frame::END_STREAM));
        let Some(found) = self.streams.get_mut(stream) else { return self.take_late(stream) };
        if found.has_ended {
            return Err(Fault::Stream(stream, Reason::StreamClosed));
        }
        found.inflow.take(count).map_err(|_| Fault::Stream(stream, Reason::FlowControlError))?;
        if ends {
            found.has_ended = true;
            self.empty_frames = 0;
        } else {
            if let Some(increment) = found.inflow.due() {
                frame::put_window_update(&mut self.output, stream, increment);
            }
            if data.is_empty() {
                self.empty_frames += 1;
                let is_flood = self.empty_frames > EMPTY_FRAMES_MAX;
                return if is_flood { Err(Reason::EnhanceYourCalm.into()) } else { Ok(None) };
            }
        }
        let begin = at + usize::from(head.has(frame::PADDED));
        Ok(Some(Event::Data { stream, bytes: begin..begin + data.len(), ends }))
    }

    /// §6.2
    fn take_headers(&mut self, head: frame::Head, payload: &[u8]) -> Result<Option<Event<H, S>>, Fault> {
        if head.stream.is_multiple_of(2) {
            return Err(Reason::ProtocolError.into());
        }
        let mut fragment = head.unpadded(payload)?;
        if head.has(frame::WITH_PRIORITY) {
            fragment = fragment.get(5..).ok_or(Reason::FrameSizeError)?;
        }
        let ends = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.take_block(head.stream, ends, fragment);
        }
        self.fragments.clear();
        self.fragments.extend_from_slice(fragment);
        self.block = Some(Block { stream: head.stream, ends, continuations: 0 });
        Ok(None)
    }

    /// §6.10
    fn take_continuation(&mut self, head: frame::Head, payload: &[u8]) -> Result<Option<Event<H, S>>, Fault> {
        let block = self.block.as_mut().filter(|block| block.stream == head.stream).ok_or(Reason::ProtocolError)?;
        block.continuations += 1;
        if block.continuations > CONTINUATIONS_MAX {
            return Err(Reason::EnhanceYourCalm.into());
        }
        self.fragments.extend_from_slice(payload);
        if !head.has(frame::END_HEADERS) {
            return Ok(None);
        }
        let Block { stream, ends, .. } = *block;
        self.block = None;
        let mut fragments = std::mem::take(&mut self.fragments);
        let taken = self.take_block(stream, ends, &fragments);
        fragments.clear();
        fragments.shrink_to(self.limits.kept_bytes);
        self.fragments = fragments;
        taken
    }

    /// A whole header block: a request's, or trailers.
    fn take_block(&mut self, stream: u32, ends: bool, block: &[u8]) -> Result<Option<Event<H, S>>, Fault> {
        // Also if nobody wants to know: what follows is written in terms of it.
        let Read { head, shape, is_too_long } = self.read(block)?;
        if ends {
            self.empty_frames = 0;
        }
        if stream <= self.last_stream {
            let Some(found) = self.streams.get_mut(stream) else { return self.take_late(stream) };
            if found.has_ended {
                return Err(Fault::Stream(stream, Reason::StreamClosed));
            }
            if !ends || !shape.is_trailers() {
                return Err(Fault::Stream(stream, Reason::ProtocolError));
            }
            found.has_ended = true;
            return Ok(Some(Event::Ends { stream }));
        }
        self.last_stream = stream;
        if matches!(self.farewell, Farewell::Last(_)) {
            return Ok(None);
        }
        if !is_too_long && !shape.is_request() {
            return Err(Fault::Stream(stream, Reason::ProtocolError));
        }
        if self.streams.len() >= self.limits.streams_max as usize {
            return Err(Fault::Stream(stream, Reason::RefusedStream));
        }
        let began = Stream {
            has_ended: ends,
            inflow: Inflow::new(self.limits.stream_window),
            outflow: Outflow::new(self.first_outflow),
            waiting: Waiting::Nothing,
            is_queued: false,
            own: S::default(),
        };
        self.streams.begin(stream, began);
        Ok(Some(Event::Request(Request { stream, head, is_too_long, ends })))
    }

    /// Reads a header block (§4.3).
    fn read(&mut self, block: &[u8]) -> Result<Read<H>, Reason> {
        let last = &mut self.last_read;
        if last.changes == self.decoder.changes() && last.block == block && !block.is_empty() {
            return Ok(last.read);
        }
        let (mut read, mut size) = (Read::<H>::default(), 0_usize);
        let size_max = self.limits.header_list_bytes_max as usize;
        let changes = self.decoder.changes();
        let decoded = self.decoder.decode(block, |field| {
            size = size.saturating_add(field.size());
            if size <= size_max {
                read.shape.field(field.kind, field.value);
                read.head.field(field.name, field.value);
            }
        });
        decoded.map_err(|_| Reason::CompressionError)?;
        read.is_too_long = size > size_max;
        if changes == self.decoder.changes() && block.len() <= KEPT_BLOCK_BYTES {
            last.block.clear();
            last.block.extend_from_slice(block);
            (last.changes, last.read) = (changes, read);
        }
        Ok(read)
    }

    /// Something for a stream that is closed. What this side has reset may still be written to by a peer that does not know
    /// it yet; nothing is to come for others (§5.1).
    fn take_late(&self, stream: u32) -> Result<Option<Event<H, S>>, Fault> {
        let is_ignored = matches!(self.farewell, Farewell::Last(last) if stream > last);
        match is_ignored || self.resets.contains(&stream) {
            true => Ok(None),
            false => Err(Fault::Stream(stream, Reason::StreamClosed)),
        }
    }

    /// §6.4. That a stream is closed already is no fault: the answer crossed it.
    fn take_reset(&mut self, head: frame::Head, payload: &[u8]) -> Result<Option<Event<H, S>>, Fault> {
        if payload.len() != 4 {
            return Err(Reason::FrameSizeError.into());
        }
        if self.is_idle(head.stream) {
            return Err(Reason::ProtocolError.into());
        }
        Ok(self.remove(head.stream).map(Event::Gone))
    }

    /// §6.9
    fn take_window_update(&mut self, head: frame::Head, payload: &[u8]) -> Result<Option<Event<H, S>>, Fault> {
        let increment = *payload.as_array().ok_or(Reason::FrameSizeError)?;
        let increment = i64::from(u32::from_be_bytes(increment) & MAX_31);
        if head.stream == 0 {
            if increment == 0 {
                return Err(Reason::ProtocolError.into());
            }
            self.outflow.change(increment).map_err(|_| Reason::FlowControlError)?;
            return Ok(None);
        }
        if self.is_idle(head.stream) {
            return Err(Reason::ProtocolError.into());
        }
        // Of one that is closed: it crossed the answer.
        let Some(found) = self.streams.get_mut(head.stream) else { return Ok(None) };
        if increment == 0 {
            return Err(Fault::Stream(head.stream, Reason::ProtocolError));
        }
        found.outflow.change(increment).map_err(|_| Fault::Stream(head.stream, Reason::FlowControlError))?;
        queue_up(&mut self.queue, head.stream, found);
        Ok(None)
    }

    /// §6.5
    fn take_settings(&mut self, head: frame::Head, payload: &[u8]) -> Result<Option<Event<H, S>>, Fault> {
        if head.stream != 0 {
            return Err(Reason::ProtocolError.into());
        }
        if head.has(frame::ACK) {
            // Nothing here depends on whether the peer keeps to our settings yet: before that it keeps to less.
            return if payload.is_empty() { Ok(None) } else { Err(Reason::FrameSizeError.into()) };
        }
        if let Some(window) = settings::decode(payload)? {
            let by = i64::from(window) - i64::from(self.first_outflow);
            self.first_outflow = window;
            if by != 0 {
                // §6.9.2: that of the connection stays as it is.
                for (id, stream) in self.streams.iter_mut() {
                    stream.outflow.change(by).map_err(|_| Reason::FlowControlError)?;
                    queue_up(&mut self.queue, id, stream);
                }
            }
        }
        frame::put(&mut self.output, frame::SETTINGS, frame::ACK, 0, b"");
        Ok(None)
    }

    /// §6.7
    fn take_ping(&mut self, head: frame::Head, payload: &[u8]) -> Result<Option<Event<H, S>>, Fault> {
        if head.stream != 0 {
            return Err(Reason::ProtocolError.into());
        }
        if payload.len() != FAREWELL.len() {
            return Err(Reason::FrameSizeError.into());
        }
        if !head.has(frame::ACK) {
            frame::put(&mut self.output, frame::PING, frame::ACK, 0, payload);
        } else if self.farewell == Farewell::Said && payload == FAREWELL {
            // What the peer sent before it knew has come.
            self.farewell = Farewell::Last(self.last_stream);
            frame::put_goaway(&mut self.output, self.last_stream, Reason::NoError);
        }
        Ok(None)
    }

    /// §6.8
    fn take_goaway(&mut self, head: frame::Head, payload: &[u8]) -> Result<Option<Event<H, S>>, Fault> {
        if head.stream != 0 {
            return Err(Reason::ProtocolError.into());
        }
        if payload.len() < 8 {
            return Err(Reason::FrameSizeError.into());
        }
        self.peer_goes = true;
        Ok(None)
    }

    /// Whether the peer has not begun this one (§5.1.1); it cannot begin those of even numbers, and 0 is none.
    fn is_idle(&self, stream: u32) -> bool {
        stream > self.last_stream || stream.is_multiple_of(2)
    }

    /// A fault that a stream pays for (§5.4.2).
    fn reset(&mut self, stream: u32, reason: Reason) -> Option<Event<H, S>> {
        self.faults += 1;
        if self.faults > self.limits.faults_max {
            return Some(self.close(End::Fault(Reason::EnhanceYourCalm)));
        }
        self.resets.push(stream);
        frame::put_reset(&mut self.output, stream, reason);
        self.remove(stream).map(Event::Gone)
    }

    fn remove(&mut self, stream: u32) -> Option<S> {
        let removed = self.streams.remove(stream)?;
        if removed.is_queued {
            self.queue.retain(|queued| *queued != stream);
        }
        Some(removed.own)
    }

    /// Sends what waits and has room now, one stream after the other. Returns one that has something to send only now.
    fn send_what_waits(&mut self) -> Option<u32> {
        while let Some(&id) = self.queue.front() {
            if !self.has_room_for_output() {
                return None;
            }
            let connection_room = self.outflow.room();
            let Some(stream) = self.streams.get_mut(id) else {
                self.queue.pop_front();
                continue;
            };
            let room = stream.outflow.room();
            match &mut stream.waiting {
                Waiting::Nothing => {}
                Waiting::Room(wanted) if room < *wanted => {}
                Waiting::Room(wanted) if connection_room < *wanted => return None,
                Waiting::Room(_) => {
                    stream.waiting = Waiting::Nothing;
                    stream.is_queued = false;
                    self.queue.pop_front();
                    return Some(id);
                }
                Waiting::Bytes { rest, sent, trailers } => {
                    let unsent = rest.get(*sent..).unwrap_or_default();
                    let count = unsent.len().min(room).min(connection_room).min(PAYLOAD_BYTES_MAX);
                    if count > 0 {
                        frame::put(&mut self.output, frame::DATA, 0, id, unsent.get(..count).unwrap_or_default());
                        *sent += count;
                        stream.outflow.spend(count);
                        self.outflow.spend(count);
                    }
                    if *sent == rest.len() {
                        put_trailers(&mut self.output, id, trailers);
                        self.queue.pop_front();
                        self.streams.remove(id);
                        continue;
                    }
                    if stream.outflow.room() > 0 {
                        if self.outflow.room() > 0 {
                            continue;
                        }
                        return None;
                    }
                }
            }
            stream.is_queued = false;
            self.queue.pop_front();
        }
        None
    }
}

/// Queues a stream that waits and has room of its own.
fn queue_up<S>(queue: &mut VecDeque<u32>, id: u32, stream: &mut Stream<S>) {
    let wanted = match stream.waiting {
        Waiting::Nothing => return,
        Waiting::Room(wanted) => wanted,
        Waiting::Bytes { .. } => 1,
    };
    if !stream.is_queued && stream.outflow.room() >= wanted {
        stream.is_queued = true;
        queue.push_back(id);
    }
}

fn put_trailers(out: &mut Vec<u8>, stream: u32, trailers: &[u8]) {
    frame::put(out, frame::HEADERS, frame::END_HEADERS | frame::END_STREAM, stream, trailers);
}

/// What a frame is answered with at once, at most, in bytes: with as much again for PING, an empty frame for SETTINGS, and
/// two of WINDOW_UPDATE or RST_STREAM for others.
fn answer_bytes(kind: u8) -> usize {
    match kind {
        frame::PING => frame::HEAD_BYTES + FAREWELL.len(),
        frame::SETTINGS => frame::HEAD_BYTES,
        _ => 2 * (frame::HEAD_BYTES + 4),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH_PROMISE,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY,
    };
    use super::super::hpack;
    use super::*;
    use proptest::prelude::*;

    /// How many fields a head has had, and the bytes of their values.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Seen {
        fields: usize,
        bytes: usize,
    }

    impl Head for Seen {
        fn field(&mut self, _: &[u8], value: &[u8]) {
            self.fields += 1;
            self.bytes += value.len();
        }
    }

    /// What a user would keep for a stream: the length of its message.
    type Tested = Connection<Seen, usize>;

    const LIMITS: Limits = Limits {
        streams_max: 10,
        header_list_bytes_max: 1000,
        stream_window: 70_000,
        connection_window: 100_000,
        output_bytes_max: 10_000,
        faults_max: 20,
        kept_bytes: 1024,
    };

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::put(&mut out, kind, flags, stream, payload);
        out
    }

    /// A request's header block: POST, http, /.
    const REQUEST: &[u8] = &[0x83, 0x86, 0x84];

    fn opening() -> Vec<u8> {
        [&PREFACE[..], &frame(SETTINGS, 0, 0, b"")].concat()
    }

    /// A connection that has greeted and is done with that.
    fn open() -> Tested {
        let mut connection = Tested::new(LIMITS);
        assert_eq!(take(&mut connection, &opening()), [""; 0]);
        let out = frames(&output(&mut connection));
        assert_eq!(
            out.iter().map(|(kind, flags, ..)| (*kind, *flags)).collect::<Vec<_>>(),
            [(SETTINGS, 0), (WINDOW_UPDATE, 0), (SETTINGS, ACK)]
        );
        connection
    }

    /// What comes about by `bytes`, as texts; answers nothing.
    fn take(connection: &mut Tested, bytes: &[u8]) -> Vec<String> {
        take_with(connection, bytes, |_, _| {})
    }

    /// The same; `answer` is told of each stream whose input has ended.
    fn take_with(connection: &mut Tested, bytes: &[u8], answer: impl Fn(&mut Tested, u32)) -> Vec<String> {
        connection.receive(bytes);
        let mut events = Vec::new();
        loop {
            let (text, ended) = match connection.advance() {
                Event::Idle => return events,
                Event::Request(Request { stream, ends, .. }) => (format!("request {stream}"), ends.then_some(stream)),
                Event::Data { stream, bytes, ends } => {
                    let (count, data) = connection.parts(stream, bytes).expect("a stream");
                    *count += data.len();
                    (format!("data {stream} {} {ends}", data.len()), ends.then_some(stream))
                }
                Event::Ends { stream } => (format!("ends {stream}"), Some(stream)),
                Event::Gone(count) => (format!("gone {count}"), None),
                Event::Writable { stream } => (format!("writable {stream}"), None),
                Event::Closed(end) => (format!("closed {end:?}"), None),
            };
            events.push(text);
            if let Some(stream) = ended {
                answer(connection, stream);
            }
        }
    }

    fn output(connection: &mut Tested) -> Vec<u8> {
        let mut out = Vec::new();
        connection.take_output(&mut out);
        out
    }

    fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some(head) = frame::Head::decode(bytes) {
            let end = frame::HEAD_BYTES + head.length;
            found.push((head.kind, head.flags, head.stream, bytes[frame::HEAD_BYTES..end].to_vec()));
            bytes = &bytes[end..];
        }
        assert!(bytes.is_empty());
        found
    }

    fn code(payload: &[u8]) -> u32 {
        u32::from_be_bytes(*payload.last_chunk().expect("a code"))
    }

    fn begun(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, REQUEST)
    }

    fn asked(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST)
    }

    #[test]
    fn breaches_of_the_connection_have_their_code() {
        use Reason::{CompressionError, EnhanceYourCalm, FlowControlError, FrameSizeError, ProtocolError};
        let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
        let setting = |number: u16, value: u32| {
            frame(SETTINGS, 0, 0, &[&number.to_be_bytes()[..], &value.to_be_bytes()].concat())
        };
        let block = |fragment: &[u8]| frame(HEADERS, 0, 1, fragment);
        let mut long = frame(DATA, 0, 1, b"");
        long[..3].copy_from_slice(&[0, 0x40, 1]);
        for (what, bytes, reason) in [
            ("§4.1: a length above the limit", long, FrameSizeError),
            ("§4.3: a block that is none", frame(HEADERS, END_HEADERS, 1, &[0x80]), CompressionError),
            (
                "§4.3: on a closed stream too",
                [asked(5), frame(HEADERS, END_HEADERS, 3, &[0x80])].concat(),
                CompressionError,
            ),
            ("§5.1: DATA on an idle stream", frame(DATA, 0, 1, b"x"), ProtocolError),
            ("§5.1: RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), ProtocolError),
            ("§5.1: WINDOW_UPDATE on an idle stream", update(1, 1), ProtocolError),
            ("§5.1.1: an even stream", begun(2), ProtocolError),
            ("§6.1: DATA on no stream", frame(DATA, 0, 0, b"x"), ProtocolError),
            ("§6.1: more padding than DATA", [begun(1), frame(DATA, PADDED, 1, &[2, 0])].concat(), ProtocolError),
            (
                "§6.1: no room for the padding's length",
                [begun(1), frame(DATA, PADDED, 1, b"")].concat(),
                FrameSizeError,
            ),
            ("§6.2: HEADERS on no stream", begun(0), ProtocolError),
            ("§6.2: more padding than HEADERS", frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0x83]), ProtocolError),
            ("§6.2: no room for a priority", frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, &[0; 4]), FrameSizeError),
            ("§6.3: PRIORITY on no stream", frame(PRIORITY, 0, 0, &[0; 5]), ProtocolError),
            ("§6.3: PRIORITY of four bytes", frame(PRIORITY, 0, 1, &[0; 4]), FrameSizeError),
            ("§6.4: RST_STREAM on no stream", frame(RST_STREAM, 0, 0, &[0; 4]), ProtocolError),
            ("§6.4: RST_STREAM of three bytes", [begun(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), FrameSizeError),
            ("§6.5: SETTINGS on a stream", frame(SETTINGS, 0, 1, b""), ProtocolError),
            ("§6.5: half a setting", frame(SETTINGS, 0, 0, &[0; 5]), FrameSizeError),
            ("§6.5: an acknowledgement with settings", frame(SETTINGS, ACK, 0, &[0; 6]), FrameSizeError),
            ("§6.5.2: ENABLE_PUSH 2", setting(2, 2), ProtocolError),
            ("§6.5.2: INITIAL_WINDOW_SIZE 2^31", setting(4, 1 << 31), FlowControlError),
            ("§6.5.2: MAX_FRAME_SIZE 16383", setting(5, 16_383), ProtocolError),
            ("§6.5.2: MAX_FRAME_SIZE 2^24", setting(5, 1 << 24), ProtocolError),
            ("§6.6: PUSH_PROMISE", [begun(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 8])].concat(), ProtocolError),
            ("§6.7: PING on a stream", frame(PING, 0, 1, &[0; 8]), ProtocolError),
            ("§6.7: PING of nine bytes", frame(PING, 0, 0, &[0; 9]), FrameSizeError),
            ("§6.8: GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), ProtocolError),
            ("§6.8: GOAWAY of seven bytes", frame(GOAWAY, 0, 0, &[0; 7]), FrameSizeError),
            ("§6.9: WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), FrameSizeError),
            ("§6.9: WINDOW_UPDATE of nothing", update(0, 0), ProtocolError),
            ("§6.9.1: a window above the limit", update(0, MAX_31 - DEFAULT_WINDOW + 1), FlowControlError),
            ("§6.9.1: more than the window", [begun(1), frame(DATA, PADDED, 1, &[0; 1001])].concat(), FlowControlError),
            (
                "§6.9.2: by a setting",
                [begun(1), update(1, MAX_31 - DEFAULT_WINDOW), setting(4, DEFAULT_WINDOW + 1)].concat(),
                FlowControlError,
            ),
            ("§6.10: CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, b""), ProtocolError),
            (
                "§6.10: of another stream",
                [block(REQUEST), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
                ProtocolError,
            ),
            ("§6.10: something between", [block(REQUEST), frame(PING, 0, 0, &[0; 8])].concat(), ProtocolError),
            ("§6.10: an unknown frame between", [block(REQUEST), frame(99, 0, 0, b"")].concat(), ProtocolError),
            (
                "§10.5.1: CONTINUATION without end",
                [block(b""), frame(CONTINUATION, 0, 1, b"").repeat(17)].concat(),
                EnhanceYourCalm,
            ),
            (
                "§10.5: DATA of nothing without end",
                [begun(1), frame(DATA, 0, 1, b"").repeat(1001)].concat(),
                EnhanceYourCalm,
            ),
        ] {
            let mut connection = open();
            if what.starts_with("§6.9.1: more") {
                connection.inflow = Inflow::new(1000);
            }
            let events = take(&mut connection, &bytes);
            assert_eq!(events.last(), Some(&format!("closed {:?}", End::Fault(reason))), "{what}");
            let (kind, _, stream, payload) = frames(&output(&mut connection)).pop().expect("a last word");
            assert_eq!((kind, stream, code(&payload)), (GOAWAY, 0, reason as u32), "{what}");
            assert!(connection.is_closed());
            assert_eq!((take(&mut connection, &begun(9)), output(&mut connection)), (vec![], vec![]), "{what}");
        }
    }

    #[test]
    fn the_first_frame_is_settings() {
        for first in [begun(1), frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, b""), frame(99, 0, 0, b"")] {
            let mut connection = Tested::new(LIMITS);
            let events = take(&mut connection, &[&PREFACE[..], &first].concat());
            assert_eq!(events, [format!("closed {:?}", End::Fault(Reason::ProtocolError))]);
        }
    }

    #[test]
    fn breaches_of_a_stream_cost_it_alone() {
        use Reason::{FlowControlError, ProtocolError, RefusedStream, StreamClosed};
        let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
        let fields = |fields: &[(&str, &str)]| {
            let mut block = REQUEST.to_vec();
            fields.iter().for_each(|(name, value)| hpack::put(&mut block, name, value));
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
        };
        for (what, bytes, reason) in [
            ("§5.1: DATA behind the end", [asked(1), frame(DATA, 0, 1, b"x")].concat(), StreamClosed),
            ("§5.1: HEADERS behind the end", [asked(1), asked(1)].concat(), StreamClosed),
            ("§5.1: DATA on a closed stream", [asked(3), frame(DATA, 0, 1, b"x")].concat(), StreamClosed),
            ("§5.1.1: a lower number", [asked(3), asked(1)].concat(), StreamClosed),
            (
                "§5.1.2: one too many",
                (1..).step_by(2).take(10).map(|id| asked(100 + id)).chain([asked(1001)]).collect::<Vec<_>>().concat(),
                RefusedStream,
            ),
            ("§6.9: WINDOW_UPDATE of nothing", [begun(1), update(1, 0)].concat(), ProtocolError),
            ("§6.9.1: a window above the limit", [begun(1), update(1, MAX_31)].concat(), FlowControlError),
            ("§8.1: trailers without end", [begun(1), begun(1)].concat(), ProtocolError),
            ("§8.1: trailers like a head", [begun(1), asked(1)].concat(), ProtocolError),
            ("§8.2.1: upper case", fields(&[("Te", "trailers")]), ProtocolError),
            ("§8.2.2: a field of HTTP/1.x", fields(&[("connection", "close")]), ProtocolError),
            ("§8.3: a pseudo-header field behind others", fields(&[("a", "b"), (":authority", "c")]), ProtocolError),
            ("§8.3.1: no path", frame(HEADERS, END_HEADERS, 1, &REQUEST[..2]), ProtocolError),
            ("§8.3.1: nothing", frame(HEADERS, END_HEADERS, 1, b""), ProtocolError),
        ] {
            let mut connection = open();
            take(&mut connection, &bytes);
            let (kind, _, stream, payload) = frames(&output(&mut connection)).pop().expect("a last word");
            let is_right = stream == 1 || what.starts_with("§5.1.2");
            assert!(is_right && (kind, code(&payload)) == (RST_STREAM, reason as u32), "{what}: {kind} {payload:?}");
            // What was under way to it is no fault any more.
            let late =
                [frame(DATA, END_STREAM, stream, b"late"), frame(HEADERS, END_HEADERS, stream, REQUEST)].concat();
            let late = [late, update(stream, 1), update(stream, 0), frame(RST_STREAM, 0, stream, &[0; 4])].concat();
            assert_eq!(take(&mut connection, &late), [""; 0], "{what}");
            assert_eq!((connection.faults, output(&mut connection).len()), (1, 0), "{what}");
            assert!(!connection.is_closed());
        }
    }

    #[test]
    fn enough_faults_end_the_connection() {
        let mut connection = open();
        let lower: Vec<u8> = (1..).step_by(2).take(20).flat_map(asked).collect();
        take(&mut connection, &[asked(1001), lower].concat());
        assert!(!connection.is_closed());
        let events = take(&mut connection, &asked(501));
        assert_eq!(events, [format!("closed {:?}", End::Fault(Reason::EnhanceYourCalm))]);
    }

    #[test]
    fn what_is_no_breach_is_taken() {
        let mut connection = open();
        let padded = frame(DATA, PADDED, 1, b"\x02ab\0\0");
        let with_all = [&[1, 0, 0, 0, 0, 0][..], REQUEST, &[0]].concat();
        let mut trailers = Vec::new();
        hpack::put(&mut trailers, "a", "b");
        let bytes = [
            frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1, &with_all),
            frame(PRIORITY, 0, 9, &[0; 5]),
            frame(99, 0xff, 77, b"whatever"),
            frame(SETTINGS, ACK, 0, b""),
            frame(PING, ACK, 0, b"whatever"),
            padded,
            frame(HEADERS, 0, 3, &REQUEST[..1]),
            frame(CONTINUATION, 0, 3, b""),
            frame(CONTINUATION, END_HEADERS, 3, &REQUEST[1..]),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
            frame(DATA, END_STREAM, 3, b""),
            frame(RST_STREAM, 0, 1, &[0; 4]),
            // Of streams that are gone, or never were.
            frame(RST_STREAM, 0, 1, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 1, &[0; 4]),
        ];
        let events = ["request 1", "data 1 2 false", "request 3", "ends 1", "data 3 0 true", "gone 2"];
        assert_eq!(take(&mut connection, &bytes.concat()), events);
        assert_eq!((connection.faults, output(&mut connection).len()), (0, 0));
    }

    #[test]
    fn a_long_header_list_leaves_the_table_in_step() {
        let mut connection = open();
        let mut block = REQUEST.to_vec();
        block.push(0x40);
        block.extend(b"\x01a\x01b");
        hpack::put(&mut block, "long", &"x".repeat(1000));
        block.push(0x40);
        block.extend(b"\x01c\x01d");
        connection.receive(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
        let Event::Request(request) = connection.advance() else { panic!("a request") };
        assert!(request.is_too_long);
        assert_eq!(request.head, Seen { fields: 4, bytes: 4 + 4 + 1 + 1 });
        // Both entries are there.
        connection.receive(&frame(HEADERS, END_HEADERS, 3, &[REQUEST, &[0xbe, 0xbf]].concat()));
        let Event::Request(request) = connection.advance() else { panic!("a request") };
        assert_eq!((request.is_too_long, request.head.fields), (false, 5));
    }

    /// The same block means something else when the table has changed.
    #[test]
    fn a_block_is_read_again_when_it_may_mean_something_else() {
        let mut connection = open();
        let named = |value: &str| [REQUEST, &[0x40, 1, b'a', value.len() as u8], value.as_bytes()].concat();
        let numbered = [REQUEST, &[0xbe]].concat();
        let mut bytes = Vec::new();
        for (at, block) in [&named("1"), &numbered, &numbered, &named("333"), &numbered, &numbered].iter().enumerate() {
            bytes.extend(frame(HEADERS, END_HEADERS, 2 * at as u32 + 1, block));
        }
        connection.receive(&bytes);
        let mut seen = Vec::new();
        while let Event::Request(request) = connection.advance() {
            seen.push(request.head.bytes - 9);
        }
        assert_eq!(seen, [1, 1, 1, 3, 3, 3]);
    }

    #[test]
    fn windows_are_kept_open_also_by_what_is_for_nobody() {
        let mut connection = open();
        let data = |stream| frame(DATA, 0, stream, &[0; 10_000]);
        take(&mut connection, &[begun(1), begun(3)].concat());
        let mut asked_for = [0_u32; 2];
        for round in 0..100 {
            take(&mut connection, &data(1));
            if round == 10 {
                take(&mut connection, &frame(WINDOW_UPDATE, 0, 3, &[0; 4]));
            }
            // The third was reset from this side, and the peer does not know.
            take(&mut connection, &data(3));
            for (kind, _, stream, payload) in frames(&output(&mut connection)) {
                if kind == WINDOW_UPDATE && stream != 3 {
                    asked_for[stream as usize] += u32::from_be_bytes(payload[..].try_into().unwrap());
                }
            }
            assert!(!connection.is_closed(), "{round}");
        }
        assert!(asked_for[0] > 2_000_000 - 50_000 && asked_for[1] > 1_000_000 - 35_000, "{asked_for:?}");
    }

    #[test]
    fn a_stream_that_is_sent_too_much_is_reset() {
        let mut connection = open();
        take(&mut connection, &begun(1));
        connection.streams.get_mut(1).unwrap().inflow = Inflow::new(5);
        let events = take(&mut connection, &frame(DATA, 0, 1, &[0; 6]));
        assert_eq!(events, ["gone 0"]);
        let out = frames(&output(&mut connection));
        assert_eq!(out, [(RST_STREAM, 0, 1, vec![0, 0, 0, 3])]);
    }

    /// Answers through windows of every width: of the connection, of streams, changed while answers wait.
    #[test]
    fn answers_wait_for_room_and_go_on() {
        const TRAILERS: &[u8] = b"trailers";
        let message: Vec<u8> = (0..100).collect();
        for window in 0..120_u32 {
            for step in [1_u32, 7, 200] {
                let mut connection = open();
                let setting = |window: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
                take(&mut connection, &[setting(window), asked(1), asked(3)].concat());
                connection.outflow = Outflow::new(150);
                output(&mut connection);
                for stream in [1, 3] {
                    connection.respond(stream, b"head", |out| out.extend_from_slice(&message), TRAILERS);
                }
                let mut out = Vec::new();
                let mut rooms = [150, window as usize, window as usize];
                for round in 0.. {
                    assert!(round < 400, "no end");
                    take(&mut connection, b"");
                    out.extend(output(&mut connection));
                    let sent = |id: u32| -> usize {
                        let frames = frames(&out);
                        let data = frames.iter().filter(|(kind, _, stream, _)| *kind == DATA && *stream == id);
                        data.map(|(.., data)| data.len()).sum()
                    };
                    assert!(sent(1) <= rooms[1] && sent(3) <= rooms[2] && sent(1) + sent(3) <= rooms[0]);
                    if connection.streams.is_empty() {
                        break;
                    }
                    let which = round % 3;
                    rooms[which] += step as usize;
                    if which == 0 || sent([0, 1, 3][which]) < 100 {
                        take(&mut connection, &frame(WINDOW_UPDATE, 0, [0, 1, 3][which], &step.to_be_bytes()));
                    }
                }
                for stream in [1, 3] {
                    let mine: Vec<_> = frames(&out).into_iter().filter(|(_, _, id, _)| *id == stream).collect();
                    assert_eq!(mine[0], (HEADERS, END_HEADERS, stream, b"head".to_vec()));
                    let last = (HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS.to_vec());
                    assert_eq!(mine.last(), Some(&last));
                    let data = mine[1..mine.len() - 1].iter().flat_map(|(.., data)| data.clone());
                    assert_eq!(data.collect::<Vec<_>>(), message);
                }
                assert!(connection.queue.is_empty());
            }
        }
    }

    /// §6.9.2: a smaller initial window can leave less than nothing.
    #[test]
    fn a_window_that_was_taken_back_is_earned_again() {
        let mut connection = open();
        let setting = |window: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        take(&mut connection, &[setting(60), asked(1)].concat());
        connection.respond(1, b"head", |out| out.extend_from_slice(&[7; 100]), b"");
        take(&mut connection, b"");
        output(&mut connection);
        // 60 were sent; 50 less than that may be, so the next 50 open nothing.
        take(&mut connection, &[setting(10), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 50])].concat());
        assert_eq!(frames(&output(&mut connection)).len(), 1);
        take(&mut connection, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 3]));
        assert_eq!(frames(&output(&mut connection)), [(DATA, 0, 1, vec![7; 3])]);
        take(&mut connection, &setting(47));
        let out = frames(&output(&mut connection));
        assert_eq!(out.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), [SETTINGS, DATA, HEADERS]);
    }

    #[test]
    fn an_answer_of_more_than_a_frame_is_cut() {
        let mut connection = open();
        connection.limits.output_bytes_max = 100_000;
        take(&mut connection, &asked(1));
        connection.respond(1, b"head", |out| out.resize(out.len() + 40_000, 7), b"trailers");
        take(&mut connection, b"");
        let lengths: Vec<_> = frames(&output(&mut connection)).iter().map(|(.., payload)| payload.len()).collect();
        assert_eq!(lengths, [4, 16_384, 16_384, 40_000 - 2 * 16_384, 8]);
    }

    /// A peer that resets what waits leaves nothing behind.
    #[test]
    fn what_waits_for_nobody_is_let_go() {
        let mut connection = open();
        connection.outflow = Outflow::new(0);
        for stream in (1..2001).step_by(2) {
            take(&mut connection, &asked(stream));
            connection.respond(stream, b"head", |out| out.extend_from_slice(b"message"), b"");
            take(&mut connection, &frame(RST_STREAM, 0, stream, &[0; 4]));
            output(&mut connection);
            assert_eq!((connection.queue.len(), connection.streams.len()), (0, 0));
        }
        assert!(!connection.is_closed());
    }

    #[test]
    fn a_shutdown_waits_for_what_the_peer_did_not_know() {
        let mut connection = open();
        take(&mut connection, &asked(1));
        connection.shut_down();
        connection.shut_down();
        let out = frames(&output(&mut connection));
        assert_eq!(out[0], (GOAWAY, 0, 0, [MAX_31.to_be_bytes(), [0; 4]].concat()));
        let (PING, 0, 0, ping) = &out[1] else { panic!("{out:?}") };
        assert_eq!(out.len(), 2);
        // Another one crossed it; this PING is not the answer.
        assert_eq!(take(&mut connection, &[asked(3), frame(PING, ACK, 0, &[0; 8])].concat()), ["request 3"]);
        assert_eq!(take(&mut connection, &frame(PING, ACK, 0, ping)), [""; 0]);
        assert_eq!(frames(&output(&mut connection)), [(GOAWAY, 0, 0, [3_u32.to_be_bytes(), [0; 4]].concat())]);
        // What comes now comes too late, and is ignored.
        let late = [asked(5), begun(7), frame(DATA, 0, 7, b"x"), frame(RST_STREAM, 0, 7, &[0; 4])].concat();
        assert_eq!(take(&mut connection, &late), [""; 0]);
        connection.respond_briefly(1, |_| ());
        assert_eq!(take(&mut connection, b""), [""; 0]);
        connection.respond_briefly(3, |_| ());
        assert_eq!(take(&mut connection, b""), ["closed Agreed"]);
        assert_eq!(frames(&output(&mut connection)).len(), 2);
    }

    #[test]
    fn a_peer_that_goes_gets_its_answers() {
        let mut connection = open();
        let goaway = frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0and why");
        assert_eq!(take(&mut connection, &[asked(1), goaway].concat()), ["request 1"]);
        connection.respond_briefly(1, |_| ());
        assert_eq!(take(&mut connection, b""), ["closed Agreed"]);
        let out = frames(&output(&mut connection));
        assert_eq!(out.last(), Some(&(GOAWAY, 0, 0, vec![0, 0, 0, 1, 0, 0, 0, 0])));
    }

    /// Whether something is half said, and whether more is wanted, byte by byte.
    #[test]
    fn the_middle_is_where_something_is_half_said() {
        let pieces: [(Vec<u8>, bool); 7] = [
            (PREFACE.to_vec(), true),
            (frame(SETTINGS, 0, 0, b""), true),
            (begun(1), true),
            (frame(DATA, 0, 1, &[0; 30]), true),
            (frame(HEADERS, 0, 3, &REQUEST[..2]), false),
            (frame(CONTINUATION, 0, 3, b""), false),
            (frame(CONTINUATION, END_HEADERS, 3, &REQUEST[2..]), true),
        ];
        let mut connection = Tested::new(LIMITS);
        assert!(connection.is_in_the_middle() && connection.needs_input());
        for (piece, is_boundary) in &pieces {
            for (at, byte) in piece.iter().enumerate() {
                take(&mut connection, std::slice::from_ref(byte));
                let is_end = at + 1 == piece.len();
                assert_eq!(connection.is_in_the_middle(), !(is_end && *is_boundary));
                assert!(connection.needs_input());
            }
        }
    }

    /// Memory after each of many things that a peer can do for as long as it likes.
    #[test]
    fn floods_cost_no_memory() {
        let update = |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]);
        let mut waiting = [asked(1), asked(3)].concat();
        waiting.extend(begun(5));
        for flood in [
            frame(PRIORITY, 0, 77, &[0; 5]),
            frame(99, 0, 0, &[0; 100]),
            update(0),
            update(1),
            frame(PING, 0, 0, &[0; 8]),
            frame(PING, ACK, 0, &[0; 8]),
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0, 0, 4, 0, 0, 0, 9]),
            [frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9])].concat(),
            frame(SETTINGS, ACK, 0, b""),
            frame(DATA, 0, 5, b"x"),
            frame(DATA, PADDED, 5, &[200; 202]),
        ] {
            let mut connection = open();
            take(&mut connection, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
            take(&mut connection, &waiting);
            connection.respond(1, b"head", |out| out.extend_from_slice(&[7; 5000]), b"");
            for _ in 0..500 {
                take(&mut connection, &flood.repeat(5));
                assert!(connection.output.len() <= LIMITS.output_bytes_max);
                output(&mut connection);
                assert!(!connection.is_closed());
                let kept = connection.input.capacity() + connection.output.capacity() + connection.fragments.capacity();
                assert!(kept < 30_000 && connection.queue.len() <= 3, "{kept}");
            }
        }
    }

    /// However it comes: nothing behind a GOAWAY is looked at once all is answered.
    #[test]
    fn a_peer_that_goes_is_done_when_all_is_answered() {
        let goes = frame(GOAWAY, 0, 0, &[0; 8]);
        let breach = frame(DATA, 0, 0, b"");
        for piece in [1, 20, usize::MAX] {
            let mut connection = open();
            let all = [goes.clone(), breach.clone()].concat();
            let events: Vec<String> =
                all.chunks(piece.min(all.len())).flat_map(|bytes| take(&mut connection, bytes)).collect();
            assert_eq!(events, ["closed Agreed"], "{piece}");
        }
    }

    /// A peer that has two entries named in a byte each cannot have more looked at than a header list may have.
    #[test]
    fn small_blocks_that_mean_much_are_not_looked_at_for_long() {
        let mut connection = open();
        let long = "x".repeat(500);
        let mut block = REQUEST.to_vec();
        block.extend([0x40, 1, b'a', 0x7f, 0xf5, 2]);
        block.extend(long.bytes());
        connection.receive(&frame(HEADERS, END_HEADERS, 1, &block));
        assert!(matches!(connection.advance(), Event::Request(request) if !request.is_too_long));
        connection.receive(&frame(HEADERS, END_HEADERS, 3, &[REQUEST, &[0xbe; 16_000]].concat()));
        let Event::Request(request) = connection.advance() else { panic!("a request") };
        assert!(request.is_too_long && request.head.bytes < 1000);
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            Just(REQUEST.to_vec()),
            any::<[u8; 4]>().prop_map(Vec::from),
            (0..3_u8, 0..20_u8).prop_map(|(high, low)| vec![0, 4, 0, 0, high, low]),
            (0..9_usize).prop_map(|count| vec![0; count]),
        ];
        (0..11_u8, any::<u8>(), 0..12_u32, payload)
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
    }

    proptest! {
        /// Whatever comes, and in whatever pieces: no harm, no more memory than there may be, and the same of it.
        #[test]
        fn any_frames_do_no_harm(
            all in prop::collection::vec(any_frame(), 0..60),
            piece in 1..50_usize,
            answers in any::<u8>(),
        ) {
            let answer = |connection: &mut Tested, stream: u32| match (u32::from(answers) + stream) % 3 {
                0 => connection.respond_briefly(stream, |out| out.push(STATUS)),
                1 => connection.respond(stream, &[STATUS], |out| out.extend([7; 300]), &[STATUS]),
                _ => {}
            };
            let run = |piece: usize| {
                let mut connection = open();
                let (mut events, mut out) = (Vec::new(), Vec::new());
                for bytes in all.concat().chunks(piece) {
                    events.extend(take_with(&mut connection, bytes, answer));
                    out.extend(output(&mut connection));
                    assert!(connection.streams.len() <= LIMITS.streams_max as usize);
                    assert!(connection.resets.len() <= LIMITS.faults_max);
                    assert!(connection.queue.len() <= connection.streams.len());
                }
                (events, out)
            };
            let (events, out) = run(1);
            let (same, as_well) = run(piece);
            prop_assert_eq!(events, same);
            prop_assert_eq!(frames(&out), frames(&as_well));
        }
    }

    const STATUS: u8 = hpack::STATUS_200;
}

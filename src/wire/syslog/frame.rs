//! Frames of syslog over TCP (RFC 6587), both methods on one port, told apart frame by frame.
//!
//! ```text
//! 83 <22>1 2026-11-22T17:32:41Z mail1 dovecot - - - ...    §3.4.1  octet counting: MSG-LEN SP SYSLOG-MSG
//! <22>Nov 22 17:32:41 mail1 dovecot: ...\n                 §3.4.2  non-transparent framing: a line, ended by LF …
//! <22>dovecot: ...\0                                               … or by NUL (Python's handler writes nothing else)
//! ```
//!
//! A count is one to nine digits, not beginning with 0, then a blank, then `<`. A line can begin with digits too
//! (`2026-11-22T…`, no blank), so the `<` is part of the test until a connection has shown one counted frame; from
//! then on digits and a blank are a count. Everything else is a line.
//!
//! A line ends with LF. It ends with NUL too if the connection's first line did: a user name with a NUL, passed on by a
//! relay that ends its lines with LF, must not let its owner begin a record of his own.
//!
//! Over-long records are dropped to their end and counted once; the records after them are read as if they had not
//! been there.

use memchr::{memchr, memchr2};

/// Most digits of a count that is believed (999 999 999 bytes).
const COUNT_DIGITS_MAX: usize = 9;

/// Most digits looked at to find out whether they are an absurd count or the beginning of a line: those of a 64-bit
/// number.
const DIGITS_MAX: usize = 20;

/// Highest count whose bytes are skipped when it is over the connection's limit. No sender writes records of 16 MiB;
/// who says so has lost step, and skipping that much would hide the records in between.
pub const OCTET_COUNT_MAX: usize = 16 * 1024 * 1024;

/// Most bytes that a frame needs in the buffer beside its message: the digits, a blank, and `<`. (For a line it is
/// less: CR and LF.)
pub const FRAME_OVERHEAD_BYTES_MAX: usize = DIGITS_MAX + 2;

/// Size of the buffer with which a connection never gets stuck: with so many unconsumed bytes, [`Framer::next`] does
/// not return [`Step::Incomplete`].
pub const fn frame_buffer_bytes(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_add(FRAME_OVERHEAD_BYTES_MAX)
}

/// What the front of a connection's buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// One record, without its count or line end, never empty. Drop `consumed` bytes from the front of the buffer
    /// when it has been processed.
    Frame { frame: &'a [u8], consumed: usize },
    /// A record is lost, said once for each. Drop `consumed` bytes and ask again.
    Skipped { consumed: usize, why: FrameFault },
    /// Bytes of no record: line ends between frames, or more of a record that was [`Skipped`](Step::Skipped). Drop
    /// them and ask again.
    Discard { consumed: usize },
    /// More bytes are needed; at the end of the stream, nothing is left.
    Incomplete,
}

/// Why a record was lost to framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameFault {
    /// Longer than the connection's limit.
    TooLong,
    /// A count over [`OCTET_COUNT_MAX`]. What follows is dropped up to the next line end, for want of a better place.
    /// A sender that counts writes none, so closing such a connection is the quicker cure.
    BadCount,
    /// The stream ended inside a counted frame.
    Truncated,
}

impl FrameFault {
    /// Every fault, for whoever registers a counter for each.
    pub const ALL: &'static [FrameFault] = &[FrameFault::TooLong, FrameFault::BadCount, FrameFault::Truncated];

    /// The fault as a metric label.
    pub fn name(self) -> &'static str {
        match self {
            FrameFault::TooLong => "too_long",
            FrameFault::BadCount => "bad_count",
            FrameFault::Truncated => "truncated",
        }
    }
}

/// The framing state of one connection. It keeps no bytes: the unconsumed ones stay in the caller's buffer.
///
/// The steps do not depend on how the stream was cut into reads, and searching is linear in its length.
///
/// # Example
///
/// ```
/// use mailfail2ban::wire::syslog::{Framer, Step};
///
/// let mut framer = Framer::new(8192);
/// let buffer = b"7 <22>one<22>two\n<22>thr";
/// assert_eq!(framer.next(buffer), Step::Frame { frame: b"<22>one", consumed: 9 });
/// assert_eq!(framer.next(&buffer[9..]), Step::Frame { frame: b"<22>two", consumed: 8 });
/// assert_eq!(framer.next(&buffer[17..]), Step::Incomplete);
/// assert_eq!(framer.finish(&buffer[17..]), Step::Frame { frame: b"<22>thr", consumed: 7 });
/// ```
#[derive(Clone, Debug)]
pub struct Framer {
    message_bytes_max: usize,
    /// A counted frame was seen on this connection: digits and a blank are a count from now on.
    counts: bool,
    /// Whether NUL ends a line too; known from the first line on.
    nul_ends: Option<bool>,
    /// Length of the front of the buffer that is known to hold no line end.
    searched: usize,
    /// What is left of a record that was skipped.
    skipping: Skipping,
}

#[derive(Clone, Copy, Debug)]
enum Skipping {
    Nothing,
    Octets(usize),
    Line,
}

/// What the digits at the front of the buffer are.
enum Count {
    /// None: a line begins here.
    Line,
    /// Not to be told yet.
    Undecided,
    Octets {
        prefix: usize,
        octets: usize,
    },
    Absurd {
        prefix: usize,
    },
}

impl Framer {
    /// A new connection, on which records of more than `message_bytes_max` bytes (without count or line end) are lost.
    pub fn new(message_bytes_max: usize) -> Framer {
        Framer { message_bytes_max, counts: false, nul_ends: None, searched: 0, skipping: Skipping::Nothing }
    }

    /// Takes the unconsumed bytes of the connection's buffer and tells what their front is.
    ///
    /// Between two calls the caller drops what was consumed from the front, and may add to the end.
    pub fn next<'a>(&mut self, buffer: &'a [u8]) -> Step<'a> {
        match self.skipping {
            _ if buffer.is_empty() => Step::Incomplete,
            Skipping::Octets(left) => Step::Discard { consumed: self.skip_octets(left, buffer.len()) },
            Skipping::Line => self.skip_line(buffer),
            Skipping::Nothing => match self.count(buffer) {
                Count::Undecided => Step::Incomplete,
                Count::Octets { prefix, octets } => self.counted(buffer, prefix, octets),
                Count::Absurd { prefix } => {
                    self.skipping = Skipping::Line;
                    Step::Skipped { consumed: prefix, why: FrameFault::BadCount }
                }
                Count::Line => self.line(buffer),
            },
        }
    }

    /// At the end of the stream, tells what the unconsumed bytes are worth: to be called, like [`next`](Self::next),
    /// until it returns [`Step::Incomplete`].
    ///
    /// A last line without its end is a record (RFC 6587 §3.4.2: closing the connection ends it); a counted frame
    /// that is not all there is none.
    pub fn finish<'a>(&mut self, rest: &'a [u8]) -> Step<'a> {
        match self.next(rest) {
            Step::Incomplete if rest.is_empty() => Step::Incomplete,
            Step::Incomplete => {
                self.searched = 0;
                let consumed = rest.len();
                match self.count(rest) {
                    Count::Octets { .. } => Step::Skipped { consumed, why: FrameFault::Truncated },
                    Count::Undecided if self.counts => Step::Skipped { consumed, why: FrameFault::Truncated },
                    _ => self.line_of(rest, consumed),
                }
            }
            step => step,
        }
    }

    fn counted<'a>(&mut self, buffer: &'a [u8], prefix: usize, octets: usize) -> Step<'a> {
        self.counts = true;
        if octets > self.message_bytes_max {
            let consumed = prefix + self.skip_octets(octets, buffer.len().saturating_sub(prefix));
            return Step::Skipped { consumed, why: FrameFault::TooLong };
        }
        match buffer.get(prefix..prefix + octets) {
            Some(frame) => Step::Frame { frame, consumed: prefix + octets },
            None => Step::Incomplete,
        }
    }

    fn line<'a>(&mut self, buffer: &'a [u8]) -> Step<'a> {
        let unsearched = buffer.get(self.searched..).unwrap_or_default();
        if let Some(at) = self.find_line_end(unsearched) {
            let end = self.searched + at;
            self.searched = 0;
            return self.line_of(buffer.get(..end).unwrap_or_default(), end + 1);
        }
        // One byte over the limit may be the CR that belongs to the line end.
        if buffer.len() > self.message_bytes_max.saturating_add(1) {
            self.searched = 0;
            self.skipping = Skipping::Line;
            return Step::Skipped { consumed: buffer.len(), why: FrameFault::TooLong };
        }
        self.searched = buffer.len();
        Step::Incomplete
    }

    fn find_line_end(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.nul_ends == Some(false) {
            return memchr(b'\n', bytes);
        }
        let at = memchr2(b'\n', 0, bytes)?;
        if self.nul_ends.is_none() {
            self.nul_ends = Some(bytes.get(at) == Some(&0));
        }
        Some(at)
    }

    /// Judges one whole line, which may have a CR at its end. An empty one is no record and no fault: it is what is
    /// left of CRLF after NUL, or of a line end that a sender writes after a counted frame.
    fn line_of<'a>(&self, line: &'a [u8], consumed: usize) -> Step<'a> {
        match line.strip_suffix(b"\r").unwrap_or(line) {
            [] => Step::Discard { consumed },
            frame if frame.len() > self.message_bytes_max => Step::Skipped { consumed, why: FrameFault::TooLong },
            frame => Step::Frame { frame, consumed },
        }
    }

    /// Skips `octets` of a counted frame, of which `there` can be skipped now; returns how many those are.
    fn skip_octets(&mut self, octets: usize, there: usize) -> usize {
        let now = octets.min(there);
        self.skipping = if now < octets { Skipping::Octets(octets - now) } else { Skipping::Nothing };
        now
    }

    fn skip_line<'a>(&mut self, buffer: &'a [u8]) -> Step<'a> {
        match self.find_line_end(buffer) {
            Some(at) => {
                self.skipping = Skipping::Nothing;
                Step::Discard { consumed: at + 1 }
            }
            None => Step::Discard { consumed: buffer.len() },
        }
    }

    /// Reads the count at the front of the buffer.
    fn count(&self, buffer: &[u8]) -> Count {
        if !matches!(buffer, [b'1'..=b'9', ..]) {
            return Count::Line;
        }
        let digits = buffer.iter().take(DIGITS_MAX + 1).take_while(|b| b.is_ascii_digit()).count();
        match buffer.get(digits..) {
            _ if digits > DIGITS_MAX => return Count::Line,
            None | Some([]) => return Count::Undecided,
            Some([b' ', ..]) if self.counts => {}
            Some([b' ', b'<', ..]) => {}
            Some([b' ']) => return Count::Undecided,
            Some(_) => return Count::Line,
        }
        let prefix = digits + 1;
        if digits > COUNT_DIGITS_MAX {
            return Count::Absurd { prefix };
        }
        let octets = buffer.iter().take(digits).fold(0, |octets, digit| octets * 10 + usize::from(digit - b'0'));
        // A limit above the constant is the operator's word that such records exist.
        if octets > OCTET_COUNT_MAX.max(self.message_bytes_max) {
            return Count::Absurd { prefix };
        }
        Count::Octets { prefix, octets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is left of a stream when the steps that depend on its reads are taken out.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Outcome {
        Frame(Vec<u8>),
        Lost(FrameFault),
    }

    fn frame(bytes: &[u8]) -> Outcome {
        Outcome::Frame(bytes.to_vec())
    }

    /// Runs the framer over a stream that arrives in `reads`, through a buffer of the promised size, and holds the
    /// promises that every step makes.
    fn run<'a>(message_bytes_max: usize, reads: impl IntoIterator<Item = &'a [u8]>) -> Vec<Outcome> {
        let mut framer = Framer::new(message_bytes_max);
        let mut outcomes = Vec::new();
        let mut buffer: Vec<u8> = Vec::new();
        let mut take = |step: Step<'_>, buffer: &[u8]| {
            let consumed = match step {
                Step::Frame { frame, consumed } => {
                    assert!(!frame.is_empty() && frame.len() <= message_bytes_max && frame.len() <= consumed);
                    let within = buffer[..consumed].as_ptr_range();
                    let frame_range = frame.as_ptr_range();
                    assert!(
                        within.start <= frame_range.start && frame_range.end <= within.end,
                        "a frame from elsewhere"
                    );
                    outcomes.push(Outcome::Frame(frame.to_vec()));
                    consumed
                }
                Step::Skipped { consumed, why } => {
                    outcomes.push(Outcome::Lost(why));
                    consumed
                }
                Step::Discard { consumed } => consumed,
                Step::Incomplete => return 0,
            };
            assert!((1..=buffer.len()).contains(&consumed), "a step that does not move");
            consumed
        };
        for read in reads {
            let mut read = read;
            loop {
                let room = frame_buffer_bytes(message_bytes_max) - buffer.len();
                let (now, later) = read.split_at(room.min(read.len()));
                buffer.extend_from_slice(now);
                read = later;
                let consumed = take(framer.next(&buffer), &buffer);
                if consumed == 0 {
                    assert!(buffer.len() < frame_buffer_bytes(message_bytes_max), "stuck with a full buffer");
                    if read.is_empty() {
                        break;
                    }
                }
                buffer.drain(..consumed);
            }
        }
        loop {
            let consumed = take(framer.finish(&buffer), &buffer);
            if consumed == 0 {
                assert!(buffer.is_empty(), "bytes that nobody accounts for");
                return outcomes;
            }
            buffer.drain(..consumed);
        }
    }

    fn whole(message_bytes_max: usize, stream: &[u8]) -> Vec<Outcome> {
        run(message_bytes_max, [stream])
    }

    /// The same rules over the whole stream at once, written to be checked by eye.
    fn reference(message_bytes_max: usize, stream: &[u8]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut counts = false;
        let mut nul_ends = None;
        let mut at = 0;
        while at < stream.len() {
            let rest = &stream[at..];
            let digits = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
            let after = &rest[digits..];
            let opens = rest[0] != b'0' && (1..=DIGITS_MAX).contains(&digits);
            let is_count =
                opens && (after.starts_with(b" <") || counts && (after.is_empty() || after.starts_with(b" ")));
            let find = |nul: bool| rest.iter().position(|&b| b == b'\n' || nul && b == 0);
            let line_end = find(nul_ends != Some(false)).unwrap_or(rest.len());
            let mut line_ended = || nul_ends = nul_ends.or(rest.get(line_end).map(|&b| b == 0));
            if !is_count {
                line_ended();
                let line = &rest[..line_end];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if line.len() > message_bytes_max {
                    outcomes.push(Outcome::Lost(FrameFault::TooLong));
                } else if !line.is_empty() {
                    outcomes.push(frame(line));
                }
                at += line_end + 1;
                continue;
            }
            if after.is_empty() {
                outcomes.push(Outcome::Lost(FrameFault::Truncated));
                break;
            }
            let octets: u128 = std::str::from_utf8(&rest[..digits]).unwrap().parse().unwrap();
            if digits > 9 || octets > OCTET_COUNT_MAX.max(message_bytes_max) as u128 {
                line_ended();
                outcomes.push(Outcome::Lost(FrameFault::BadCount));
                at += line_end + 1;
                continue;
            }
            counts = true;
            let end = digits + 1 + octets as usize;
            if octets as usize > message_bytes_max {
                outcomes.push(Outcome::Lost(FrameFault::TooLong));
            } else if end > rest.len() {
                outcomes.push(Outcome::Lost(FrameFault::Truncated));
            } else {
                outcomes.push(frame(&rest[digits + 1..end]));
            }
            at += end;
        }
        outcomes
    }

    #[test]
    fn both_methods_on_one_connection() {
        let stream = b"<1>a b\0<2>c\r\n7 <3>d\ne5<4>f\0\0\r\n\n6 <5>g\n\n<6>h";
        let frames = [&b"<1>a b"[..], b"<2>c", b"<3>d\ne5", b"<4>f", b"<5>g\n\n", b"<6>h"];
        assert_eq!(whole(64, stream), frames.map(frame));
    }

    #[test]
    fn nul_ends_a_line_only_where_the_first_line_ended_so() {
        assert_eq!(whole(64, b"<1>a\0<2>b\0<3>c\n"), [&b"<1>a"[..], b"<2>b", b"<3>c"].map(frame));
        let forged = b"<1>a\n<2>user=\0<22>dovecot: forged\n<3>c\n";
        assert_eq!(whole(64, forged), [&b"<1>a"[..], b"<2>user=\0<22>dovecot: forged", b"<3>c"].map(frame));
    }

    #[test]
    fn digits_are_a_count_only_before_a_blank_and_a_bracket() {
        for line in [
            &b"2026-11-22T17:32:41Z mail1 dovecot: x"[..],
            b"2026 Nov 22 17:32:41 mail1 dovecot: x",
            b"123: Mar  1 00:00:00: %SYS-5-CONFIG_I: x",
            b"7",
            b"7 ",
            b"7<22>x",
            b"07 <22>x",
            b"0 <22>x",
            b"-7 <22>x",
            b" 7 <22>x",
            b"7  <22>x",
            b"123456789012345678901 <22>x",
        ] {
            assert_eq!(whole(64, line), [frame(line)], "{}", line.escape_ascii());
            let ended = [line, b"\n"].concat();
            assert_eq!(whole(64, &ended), [frame(line)], "{}", line.escape_ascii());
        }
    }

    #[test]
    fn one_counted_frame_makes_every_later_count_believed() {
        assert_eq!(whole(64, b"4 <1>a3 b c"), [frame(b"<1>a"), frame(b"b c")]);
        assert_eq!(whole(64, b"3 b c\n4 <1>a"), [frame(b"3 b c"), frame(b"<1>a")]);
        assert_eq!(whole(64, b"4 <1>a\n<2>b\n3 b c"), [frame(b"<1>a"), frame(b"<2>b"), frame(b"b c")]);
    }

    #[test]
    fn the_limit_is_of_the_message_alone() {
        let lost = || Outcome::Lost(FrameFault::TooLong);
        assert_eq!(whole(4, b"<1>a\r\n4 <1>b<1>c\n<1>d"), [b"<1>a", b"<1>b", b"<1>c", b"<1>d"].map(|f| frame(f)));
        assert_eq!(whole(4, b"<1>ab\n<1>a\n<1>ab\r\n<1>ab"), [lost(), frame(b"<1>a"), lost(), lost()]);
        assert_eq!(whole(4, b"5 <1>ab4 <1>a"), [lost(), frame(b"<1>a")]);
    }

    #[test]
    fn over_long_records_are_one_fault_however_many_reads_they_take() {
        let long = [b'x'; 1000];
        let line = [&b"<1>"[..], &long, b"\n<1>a\n"].concat();
        let counted = [&b"1003 <1>"[..], &long, b"4 <1>a"].concat();
        for stream in [&line, &counted] {
            let outcomes = [Outcome::Lost(FrameFault::TooLong), frame(b"<1>a")];
            assert_eq!(whole(16, stream), outcomes);
            assert_eq!(run(16, stream.chunks(1)), outcomes);
        }
        // What is left of it at the end of the stream was counted already.
        assert_eq!(whole(16, b"100 <1>abc"), [Outcome::Lost(FrameFault::TooLong)]);
    }

    #[test]
    fn absurd_counts_are_dropped_to_the_line_end() {
        for count in [&b"16777217"[..], b"999999999", b"1000000000", b"18446744073709551616"] {
            let stream = [count, b" <1>abc\n<1>a\n"].concat();
            assert_eq!(whole(64, &stream), [Outcome::Lost(FrameFault::BadCount), frame(b"<1>a")]);
        }
        assert_eq!(whole(64, b"16777216 <1>abc\n<1>a\n"), [Outcome::Lost(FrameFault::TooLong)]);
    }

    #[test]
    fn what_the_end_of_the_stream_leaves() {
        assert_eq!(whole(64, b""), []);
        assert_eq!(whole(64, b"\r"), []);
        assert_eq!(whole(64, b"<1>a"), [frame(b"<1>a")]);
        assert_eq!(whole(64, b"<1>a\r"), [frame(b"<1>a")]);
        assert_eq!(whole(64, b"5 <1>a"), [Outcome::Lost(FrameFault::Truncated)]);
        assert_eq!(whole(64, b"4 <1>a5"), [frame(b"<1>a"), Outcome::Lost(FrameFault::Truncated)]);
        assert_eq!(whole(64, b"4 <1>a5 "), [frame(b"<1>a"), Outcome::Lost(FrameFault::Truncated)]);
    }

    #[test]
    fn a_long_line_is_searched_once() {
        let mut framer = Framer::new(1 << 20);
        let line = vec![b'x'; 1 << 20];
        for end in 1..=line.len() {
            assert_eq!(framer.next(&line[..end]), Step::Incomplete);
            assert_eq!(framer.searched, end);
        }
    }

    #[test]
    fn a_buffer_that_shrank_is_no_panic() {
        let mut framer = Framer::new(64);
        assert_eq!(framer.next(b"<1>abcdef"), Step::Incomplete);
        assert_eq!(framer.next(b"<1"), Step::Incomplete);
        assert_eq!(framer.next(b""), Step::Incomplete);
        assert_eq!(Framer::new(usize::MAX).next(b"999999999 <"), Step::Incomplete);
    }

    #[test]
    fn names_are_distinct_labels() {
        let names: std::collections::BTreeSet<_> = FrameFault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), FrameFault::ALL.len());
    }

    /// Pieces of which streams are made that come close to every rule.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => proptest::collection::vec(proptest::sample::select(&b"0123456789 <>\r\n\0ax"[..]), 0..12),
            4 => "<22>[a-z \r]{0,40}".prop_map(|text| {
                [text.len().to_string().into_bytes(), b" ".to_vec(), text.into_bytes()].concat()
            }),
            3 => "<22>[a-z0-9 ]{0,40}(\n|\r\n|\0|)".prop_map(String::into_bytes),
            1 => "[1-9][0-9]{0,24} <?".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..8),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn reads_do_not_matter(
            stream in stream(),
            message_bytes_max in prop_oneof![0_usize..50, Just(8192), Just(20_000_000)],
            cuts in proptest::collection::vec(1_usize..20, 1..20),
        ) {
            let outcomes = reference(message_bytes_max, &stream);
            prop_assert_eq!(&whole(message_bytes_max, &stream), &outcomes);
            prop_assert_eq!(&run(message_bytes_max, stream.chunks(1)), &outcomes);
            for cut in 0..=stream.len() {
                let (first, second) = stream.split_at(cut);
                prop_assert_eq!(&run(message_bytes_max, [first, second]), &outcomes);
            }
            let mut rest = &stream[..];
            let reads = cuts.iter().cycle().map_while(|&cut| {
                let (read, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                (!read.is_empty()).then_some(read)
            });
            prop_assert_eq!(&run(message_bytes_max, reads), &outcomes);
        }

        #[test]
        fn a_full_buffer_is_never_incomplete(
            bytes in proptest::collection::vec(proptest::sample::select(&b"0123456789 <a\r"[..]), 0..80),
            message_bytes_max in 0_usize..40,
            counts: bool,
        ) {
            let mut framer = Framer::new(message_bytes_max);
            framer.counts = counts;
            if bytes.len() >= frame_buffer_bytes(message_bytes_max) {
                prop_assert_ne!(framer.next(&bytes), Step::Incomplete);
            }
        }
    }
}

//! Bytes as real HAProxys sent them: `tests/golden/spop`, whose README says where they come from.

use super::properties::{drive, words};

/// One capture: its path without the ending, and its bytes.
pub struct Capture {
    pub name: &'static str,
    hex: &'static str,
}

macro_rules! captures {
    ($($version:literal { $($name:literal)+ })+) => {
        pub const ALL: &[Capture] = &[$($(
            Capture {
                name: concat!($version, "/", $name),
                hex: include_str!(concat!("../../../tests/golden/spop/", $version, "/", $name, ".hex")),
            },
        )+)+];
    };
}

captures! {
    "haproxy-2.6.12" {
        "01-hello-pipelining+async"
        "02-notify-check-ip-v4-streamid0"
        "03-disconnect-10-fragmentation-not-supported"
        "04-notify-check-http-v4-streamid0"
        "05-notify-check-ip-v4-streamid1byte"
        "06-notify-check-http-v4-streamid1byte"
        "07-disconnect-0-normal"
        "08-hello-pipelining+async-frame256"
        "09-fragment-first"
        "10-fragment-last"
        "11-fragment-middle"
        "12-disconnect-2-a-timeout-occurred"
        "13-hello-nocaps"
        "14-hello-healthcheck"
        "15-notify-check-ip-v6-streamid1byte"
        "16-disconnect-1-I-O-error"
        "17-notify-check-ip-msg-v4-streamid1byte"
        "18-notify-check-ip-v6-streamid1byte-mapped"
        "19-disconnect-4-invalid-frame-received"
        "20-read-with-2-frames"
        "21-read-with-3-frames"
        "22-read-with-7-frames"
        "stream-frag-1"
        "stream-frag-2"
    }
    "haproxy-3.5-dev5" {
        "01-hello-pipelining"
        "02-notify-check-ip-v4-streamid1byte"
        "03-notify-check-http-v4-streamid1byte"
        "04-hello-pipelining-frame256"
        "05-hello-nocaps"
        "06-hello-healthcheck"
        "07-notify-check-ip-v6-streamid1byte"
        "08-notify-check-ip-msg-v4-streamid1byte"
        "09-notify-check-ip-v6-streamid1byte-mapped"
        "10-read-with-3-frames"
        "11-read-with-2-frames"
        "12-read-with-4-frames"
        "stream-frag-1"
        "stream-frag-2"
    }
}

const EXPECTED: &str = include_str!("../../../tests/golden/spop/expected.txt");

impl Capture {
    pub fn bytes(&self) -> Vec<u8> {
        let digits = self.hex.trim().as_bytes();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    /// Whether it is one frame; else several that came in one read, or a connection from its start.
    pub fn is_one_frame(&self) -> bool {
        let bytes = self.bytes();
        u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize == bytes.len() - 4
    }

    /// Whether it begins a connection.
    fn greets(&self) -> bool {
        self.bytes()[4] == 1
    }

    /// The bytes of a connection that has this in it: what came before is replaced by a hello of the same HAProxy. And
    /// how many bytes that hello has.
    pub fn connection(&self) -> (Vec<u8>, usize) {
        if self.greets() {
            return (self.bytes(), 0);
        }
        let (version, _) = self.name.split_once('/').unwrap();
        let hello = ALL.iter().find(|capture| capture.name.starts_with(version)).unwrap();
        assert!(hello.greets());
        ([hello.bytes(), self.bytes()].concat(), hello.bytes().len())
    }

    fn expected(&self) -> Vec<&'static str> {
        let lines = EXPECTED.lines().skip_while(|line| *line != self.name).skip(1);
        lines.map_while(|line| line.strip_prefix("=> ")).collect()
    }
}

#[test]
fn captures_are_seen_as_expected() {
    assert_eq!(EXPECTED.lines().filter(|line| !line.starts_with("=> ")).count(), ALL.len());
    for capture in ALL {
        let (connection, hello_bytes) = capture.connection();
        let seen = words(&drive(&connection, &[]).seen);
        let seen = if hello_bytes > 0 { &seen[1..] } else { &seen[..] };
        assert_eq!(seen, capture.expected(), "{}", capture.name);
    }
}

#[test]
fn the_start_of_a_frame_is_never_a_fault() {
    for capture in ALL.iter().filter(|capture| capture.is_one_frame()) {
        let (connection, hello_bytes) = capture.connection();
        for end in hello_bytes..connection.len() {
            let driven = drive(&connection[..end], &[]);
            assert_eq!(driven.seen.len(), usize::from(hello_bytes > 0), "{} cut at {end}", capture.name);
            assert_eq!(driven.unread, end - hello_bytes);
        }
    }
}

#[test]
fn captures_are_seen_the_same_wherever_they_are_cut() {
    for capture in ALL {
        let (connection, _) = capture.connection();
        let whole = drive(&connection, &[]);
        for at in 0..connection.len() {
            assert_eq!(drive(&connection, &[at]).seen, whole.seen, "{} cut at {at}", capture.name);
        }
        let every_byte: Vec<usize> = (0..connection.len()).collect();
        assert_eq!(drive(&connection, &every_byte).seen, whole.seen, "{}", capture.name);
    }
}

/// Every byte of every frame becomes every other; another frame follows. In connections, which are long, one byte in a
/// few. That nothing panics, hangs or says what HAProxy could not read is seen to by `drive`.
#[test]
fn damaged_captures_do_no_damage() {
    let next = ALL[1].bytes();
    for capture in ALL {
        let (mut connection, hello_bytes) = capture.connection();
        connection.extend(&next);
        let (step, values) = if capture.is_one_frame() { (1, 1) } else { (37, 31) };
        for at in (hello_bytes..connection.len() - next.len()).step_by(step) {
            let original = connection[at];
            for value in (0..=255_u8).step_by(values) {
                connection[at] = value;
                drive(&connection, &[]);
            }
            connection[at] = original;
        }
    }
}

//! Golden syslog: what real senders wrote, and what it must be read as. The cases are data, in `tests/golden/syslog/`,
//! where the README says how they are written and where the bytes come from.

use std::fs;
use std::path::{Path, PathBuf};

use mailfail2ban::wire::syslog::{Framer, Malformed, Record, Step, decode, decode_logged};

const MESSAGE_BYTES_MAX: usize = 8192;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/syslog").join(name)
}

fn read(name: &str) -> Vec<u8> {
    fs::read(golden(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Undoes the escapes of a case.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("not an escape: \\x{digits} in {text}"))
                }
                other => panic!("not an escape: \\{:?} in {text}", other.map(char::from)),
            },
            byte => byte,
        });
    }
    bytes
}

/// What one `=>` line says.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Record([Vec<u8>; 4]),
    Malformed(String),
    Lost(String),
}

impl Outcome {
    fn parse(text: &str) -> Outcome {
        if let Some(reason) = text.strip_prefix("malformed: ") {
            return Outcome::Malformed(reason.to_owned());
        }
        if let Some(fault) = text.strip_prefix("lost: ") {
            return Outcome::Lost(fault.to_owned());
        }
        let fields: Vec<_> =
            text.splitn(4, " | ").map(|field| if field == "-" { vec![] } else { unescape(field) }).collect();
        Outcome::Record(fields.try_into().unwrap_or_else(|_| panic!("not four fields: {text}")))
    }

    fn of(decoded: Result<Record<'_>, Malformed>) -> Outcome {
        match decoded {
            Ok(Record { host, program, pid, message }) => {
                Outcome::Record([host, program, pid, message].map(<[u8]>::to_vec))
            }
            Err(reason) => Outcome::Malformed(reason.name().to_owned()),
        }
    }
}

/// Reads a connection's bytes as they arrive, `read_bytes` at a time.
fn outcomes_of_stream(stream: &[u8], read_bytes: usize) -> Vec<Outcome> {
    let mut framer = Framer::new(MESSAGE_BYTES_MAX);
    let mut outcomes = Vec::new();
    let (mut front, mut arrived) = (0, 0);
    loop {
        let at_end = arrived == stream.len();
        let buffer = &stream[front..arrived];
        front += match if at_end { framer.finish(buffer) } else { framer.next(buffer) } {
            Step::Frame { frame, consumed } => {
                outcomes.push(Outcome::of(decode(frame)));
                consumed
            }
            Step::Skipped { consumed, why } => {
                outcomes.push(Outcome::Lost(why.name().to_owned()));
                consumed
            }
            Step::Discard { consumed } => consumed,
            Step::Incomplete if at_end => return outcomes,
            Step::Incomplete => {
                arrived = (arrived + read_bytes).min(stream.len());
                0
            }
        };
    }
}

/// Runs one file of cases; returns how many there were, and complains of all that fail.
fn run_cases(path: &Path, complaints: &mut Vec<String>) -> usize {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines().enumerate().peekable();
    let mut cases = 0;
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (how, input) =
            line.split_once(' ').unwrap_or_else(|| panic!("{}:{}: no input", path.display(), number + 1));
        let input = unescape(input);
        let mut expected = Vec::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("=> ")) {
            expected.push(Outcome::parse(line.trim_start_matches("=> ")));
        }
        let readings = match how {
            "udp" => vec![vec![Outcome::of(decode(&input))]],
            "log" => vec![vec![Outcome::of(decode_logged(&input))]],
            "tcp" => vec![outcomes_of_stream(&input, usize::MAX / 2), outcomes_of_stream(&input, 1)],
            _ => panic!("{}:{}: {how} is neither udp, log nor tcp", path.display(), number + 1),
        };
        for outcomes in readings {
            if outcomes != expected {
                let show = |outcomes: &[Outcome]| outcomes.iter().map(show).collect::<Vec<_>>().join("\n            ");
                complaints.push(format!(
                    "{}:{}: {}\n  expected: {}\n  read as:  {}",
                    path.display(),
                    number + 1,
                    input.escape_ascii(),
                    show(&expected),
                    show(&outcomes)
                ));
            }
        }
        cases += 1;
    }
    cases
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Record(fields) => fields.each_ref().map(|field| field.escape_ascii().to_string()).join(" | "),
        Outcome::Malformed(reason) => format!("malformed: {reason}"),
        Outcome::Lost(fault) => format!("lost: {fault}"),
    }
}

#[test]
fn every_case_is_read_as_written() {
    let mut complaints = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(golden("")).expect("the folder of golden files") {
        let path = entry.expect("an entry of it").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let found = run_cases(&path, &mut complaints);
            assert!(found > 0, "{}: no cases", path.display());
            cases += found;
        }
    }
    assert!(complaints.is_empty(), "{} of {cases} cases:\n{}", complaints.len(), complaints.join("\n"));
}

/// The records of a captured log file, by the plainest reading that fits its known format: a timestamp of known length,
/// a word, a word up to a colon and a blank.
fn plainly_read(lines: &[u8], timestamp_bytes: usize) -> Vec<Outcome> {
    let text = std::str::from_utf8(lines).expect("UTF-8");
    text.lines()
        .map(|line| {
            let (host, rest) = line[timestamp_bytes..].trim_start().split_once(' ').expect("a host");
            let (tag, message) = rest.split_once(": ").expect("a tag");
            let (program, pid) = tag.trim_end_matches(']').split_once('[').unwrap_or((tag, ""));
            Outcome::Record([host, program, pid, message.trim_start()].map(|field| field.as_bytes().to_vec()))
        })
        .collect()
}

fn logged(lines: &[u8]) -> Vec<Outcome> {
    lines.split_inclusive(|&b| b == b'\n').map(|line| Outcome::of(decode_logged(line))).collect()
}

/// rsyslog cuts APP-NAME at the first slash when it makes RFC 5424 of a traditional TAG.
fn with_program_up_to_slash(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Record([host, mut program, pid, message]) => {
                program.truncate(program.iter().position(|&b| b == b'/').unwrap_or(program.len()));
                Outcome::Record([host, program, pid, message])
            }
            other => other,
        })
        .collect()
}

#[test]
fn one_scenario_is_the_same_in_every_format_of_rsyslog() {
    let lines = read("rsyslog.traditional.lines");
    let expected = plainly_read(&lines, "Nov 22 17:33:41".len());
    assert_eq!(expected.len(), 299);
    assert_eq!(logged(&lines), expected);

    let lines = read("rsyslog.iso.lines");
    assert_eq!(plainly_read(&lines, "2026-11-22T17:33:41.598475+00:00".len()), expected);
    assert_eq!(logged(&lines), expected);

    for read_bytes in [usize::MAX / 2, 1, 7, 1460] {
        assert_eq!(outcomes_of_stream(&read("rsyslog.lf-3164.stream"), read_bytes), expected);
        assert_eq!(outcomes_of_stream(&read("rsyslog.counted-3164.stream"), read_bytes), expected);
    }
    let stream = read("rsyslog.counted-5424.stream");
    assert_eq!(outcomes_of_stream(&stream, 1460), with_program_up_to_slash(expected));
}

#[test]
fn one_scenario_is_the_same_in_every_format_of_syslog_ng() {
    let lines = read("syslog-ng.traditional.lines");
    let expected = plainly_read(&lines, "Nov 22 17:35:05".len());
    assert_eq!(expected.len(), 302);
    assert_eq!(logged(&lines), expected);
    for read_bytes in [usize::MAX / 2, 1, 7, 1460] {
        assert_eq!(outcomes_of_stream(&read("syslog-ng.counted-5424.stream"), read_bytes), expected);
    }
}

//! The syslog record parser by kind of record, and framing of a stream, over a buffer as large as a shard's.
//!
//! `cargo bench --bench record`. Elements are records, bytes what they take with their frames. Quote ratios between rows of
//! one run.
//!
//! - `record`: one frame to one record; captures of rsyslog and syslog-ng, and what is malformed.
//! - `framing`: where records begin and end, by line ends and by counted octets; `newlines alone` is a search for line ends
//!   by `memchr` and nothing else, below which framing cannot come.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailfail2ban::wire::syslog::{Framer, Step, decode, decode_logged};
use std::hint::black_box;
use std::time::Duration;

const LINES_3164: &[u8] = include_bytes!("../tests/golden/syslog/rsyslog.lf-3164.stream");
const COUNTED_3164: &[u8] = include_bytes!("../tests/golden/syslog/rsyslog.counted-3164.stream");
const COUNTED_5424: &[u8] = include_bytes!("../tests/golden/syslog/rsyslog.counted-5424.stream");
const SYSLOG_NG_5424: &[u8] = include_bytes!("../tests/golden/syslog/syslog-ng.counted-5424.stream");
const SYSLOG_NG_3164: &[u8] = include_bytes!("../tests/golden/syslog/syslog-ng.traditional.lines");
const ISO: &[u8] = include_bytes!("../tests/golden/syslog/rsyslog.iso.lines");

/// What a shard reads at once from a connection.
const BUFFER_BYTES: usize = 64 << 10;

const MESSAGE_BYTES_MAX: usize = 8192;

/// What is refused, each for another reason, at the point that is farthest into it.
const MALFORMED: [&[u8]; 4] = [
    b"<192>Nov 22 17:32:41 mail1 postfix/smtpd[7210]: lost connection",
    b"<22>1 2026-11-22T17:32:41.057905+00:00 mail1 dovecot 7210",
    b"<22>1 2026-11-22T17:32:41.057905+00:00 mail1 dovecot 7210 LOGIN [meta sequenceId=\"5\" text=\"never closed",
    b"<22>Nov 22 17:32:41 ",
];

/// The frames of a stream.
fn frames(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut framer = Framer::new(MESSAGE_BYTES_MAX);
    let (mut rest, mut frames) = (stream, Vec::new());
    while let Step::Frame { frame, consumed } = framer.next(rest) {
        frames.push(frame.to_vec());
        rest = &rest[consumed..];
    }
    frames
}

/// So much of a stream, over and over, as fits into a buffer.
fn buffer(stream: &[u8]) -> Vec<u8> {
    stream.iter().copied().cycle().take(BUFFER_BYTES).collect()
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(500)).sample_size(30);
    let pri = |lines: &[u8]| -> Vec<Vec<u8>> {
        frames(lines).into_iter().map(|line| [b"<22>", &line[..]].concat()).collect()
    };
    let rows: [(&str, Vec<Vec<u8>>); 6] = [
        ("RFC 5424, rsyslog", frames(COUNTED_5424)),
        ("RFC 5424, syslog-ng, structured data", frames(SYSLOG_NG_5424)),
        ("RFC 3164, rsyslog", frames(LINES_3164)),
        ("RFC 3164, syslog-ng", pri(SYSLOG_NG_3164)),
        ("RFC 3164 with an ISO time", pri(ISO)),
        ("malformed", MALFORMED.map(<[u8]>::to_vec).to_vec()),
    ];
    for (name, records) in &rows {
        let right = records.iter().filter(|record| decode(record).is_ok()).count();
        assert_eq!(right, if *name == "malformed" { 0 } else { records.len() }, "{name}");
        let bytes: usize = records.iter().map(Vec::len).sum();
        let both = Throughput::ElementsAndBytes { elements: records.len() as u64, bytes: bytes as u64 };
        group.throughput(both);
        group.bench_function(*name, |b| {
            b.iter(|| {
                records
                    .iter()
                    .filter_map(|record| decode(black_box(record)).ok())
                    .map(|r| r.message.len())
                    .sum::<usize>()
            });
        });
    }
    let logged = frames(ISO);
    let bytes: usize = logged.iter().map(Vec::len).sum();
    group.throughput(Throughput::ElementsAndBytes { elements: logged.len() as u64, bytes: bytes as u64 });
    group.bench_function("a log file's lines", |b| {
        b.iter(|| {
            logged.iter().filter_map(|line| decode_logged(black_box(line)).ok()).map(|r| r.message.len()).sum::<usize>()
        });
    });
    group.finish();
}

/// Everything that is complete in a buffer; the number of frames.
fn frame_all(buffer: &[u8]) -> usize {
    let mut framer = Framer::new(MESSAGE_BYTES_MAX);
    let (mut done, mut count) = (0, 0);
    while let Some(rest) = buffer.get(done..) {
        match framer.next(rest) {
            Step::Frame { frame, consumed } => {
                black_box(frame);
                (done, count) = (done + consumed, count + 1);
            }
            Step::Skipped { consumed, .. } | Step::Discard { consumed } => done += consumed,
            Step::Incomplete => break,
        }
    }
    count
}

fn framing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(500)).sample_size(30);
    for (name, stream) in
        [("lines", LINES_3164), ("counted octets", COUNTED_3164), ("counted octets, RFC 5424", COUNTED_5424)]
    {
        let buffer = buffer(stream);
        let elements = frame_all(&buffer) as u64;
        group.throughput(Throughput::ElementsAndBytes { elements, bytes: BUFFER_BYTES as u64 });
        group.bench_function(BenchmarkId::new(name, BUFFER_BYTES), |b| b.iter(|| frame_all(black_box(&buffer))));
    }
    let buffer = buffer(LINES_3164);
    group.bench_function(BenchmarkId::new("newlines alone", BUFFER_BYTES), |b| {
        b.iter(|| memchr::memchr_iter(b'\n', black_box(&buffer)).count());
    });
    group.finish();
}

criterion_group!(benches, record, framing);
criterion_main!(benches);

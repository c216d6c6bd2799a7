//! Ten million clients that fail do not make the program larger than its bound, and it goes on answering.

#![allow(clippy::disallowed_methods, reason = "tests measure how long answers take")]

mod harness;

use harness::{Config, Http, Server, failed_login, record, wait_for};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Clients that fail once, half of them by IPv4 address and half by IPv6 network.
const CLIENTS: u32 = 10_000_000;

/// Of how many of them the program may know at a time.
const TRACKED_MAX: u64 = 100_000;

/// After so many clients every table has been full and emptied several times over.
const WARM: u32 = 1_000_000;

/// What the program may grow by from then on. Its tables are full and never grow; what moves is the allocator's slack
/// and the buffers of connections, of which one is 64 KiB.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

/// What it may have in all: two shards with 50,000 clients each, of some hundred bytes, their rings, matchers and
/// buffers, and the program itself; 26 MiB were measured. At 100 bytes each, all ten million would be a gigabyte.
const RESIDENT_BYTES_MAX: u64 = 64 << 20;

/// Log lines of made-up clients, made by writing an address into the place of another.
struct Lines {
    v4: Vec<u8>,
    v6: Vec<u8>,
    v4_at: usize,
    v6_at: usize,
    buffer: Vec<u8>,
}

/// Addresses of constant width, to be written over: twelve hexadecimal digits of the network, or a dotted quad.
const V4: &str = "100.000.000.000";
const V6: &str = "2001:0000:0000:0000::1";

impl Lines {
    fn new() -> Lines {
        // Octets have no leading zeros in a log, so each line is made for octets of three digits.
        let v4 = format!("{}\n", failed_login(V4)).into_bytes();
        let v6 = format!("{}\n", failed_login(V6)).into_bytes();
        let at = |line: &[u8], address: &str| {
            line.windows(address.len()).position(|window| window == address.as_bytes()).expect("the address")
        };
        let (v4_at, v6_at) = (at(&v4, V4), at(&v6, V6));
        Lines { v4, v6, v4_at, v6_at, buffer: Vec::with_capacity(64 << 10) }
    }

    /// Adds the line of client `n`. Each has an address that no other has.
    fn push(&mut self, n: u32) {
        if n.is_multiple_of(2) {
            // Octets from 100 to 255 are 156 digits of a number.
            let mut left = n / 2;
            let start = self.buffer.len() + self.v4_at;
            self.buffer.extend_from_slice(&self.v4);
            for octet in 0..4 {
                let digits = 100 + left % 156;
                left /= 156;
                let at = start + 4 * octet;
                self.buffer[at] = b'0' + (digits / 100) as u8;
                self.buffer[at + 1] = b'0' + (digits / 10 % 10) as u8;
                self.buffer[at + 2] = b'0' + (digits % 10) as u8;
            }
        } else {
            let start = self.buffer.len() + self.v6_at + "2001:".len();
            self.buffer.extend_from_slice(&self.v6);
            for (place, at) in [0, 1, 2, 3, 5, 6, 7, 8].iter().enumerate() {
                self.buffer[start + at] = b"0123456789abcdef"[(n >> (28 - 4 * place) & 15) as usize];
            }
        }
    }
}

#[test]
fn made_up_lines_are_what_a_daemon_writes() {
    let mut lines = Lines::new();
    for n in [0, 1, 2 * 155, 0x0102_0305, CLIENTS - 1, CLIENTS - 2] {
        lines.push(n);
    }
    let text = String::from_utf8(lines.buffer).expect("UTF-8");
    let expected = [
        "100.100.100.100",
        "2001:0000:0001:0000::1",
        "255.100.100.100",
        "2001:0102:0305:0000::1",
        "2001:0098:967f:0000::1",
        "143.171.149.101",
    ];
    assert_eq!(text, expected.map(|address| failed_login(address) + "\n").concat());
}

#[test]
fn ten_million_clients_are_bounded() {
    let config = Config::new().set("ban.max_tracked", TRACKED_MAX).set("ban.blacklist", "[203.0.113.1]");
    let server = Server::start(config);
    let at_start = server.resident_bytes();

    // Somebody asks all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let (nginx, told) = (server.config.nginx, Arc::clone(&stop));
    let asker = std::thread::spawn(move || {
        let mut http = Http::connect(nginx).expect("a connection");
        let (mut questions, mut longest) = (0_u64, std::time::Duration::ZERO);
        while !told.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let (client, status) = if questions % 2 == 0 { ("203.0.113.1", 403) } else { ("192.0.2.1", 200) };
            assert_eq!(http.auth(client).expect("an answer, however many lines come in").status, status);
            longest = longest.max(begun.elapsed());
            questions += 1;
        }
        (questions, longest)
    });

    let begun = Instant::now();
    let mut senders = [server.connect_syslog(), server.connect_syslog()];
    let mut lines = Lines::new();
    let (mut warm, mut largest) = (0, 0);
    for n in 0..CLIENTS {
        lines.push(n);
        let sent = n + 1;
        if lines.buffer.len() > (64 << 10) - 256 || sent == WARM || sent == CLIENTS {
            // In turn, so both shards receive.
            senders[(n / 256 % 2) as usize].write_all(&lines.buffer).expect("lines are taken");
            lines.buffer.clear();
        }
        if sent == WARM {
            server.wait_for_failures(u64::from(WARM));
            warm = server.resident_bytes();
        } else if sent > WARM && sent % 200_000 == 0 {
            largest = largest.max(server.resident_bytes());
        }
    }
    server.wait_for_failures(u64::from(CLIENTS));
    let took = begun.elapsed();
    largest = largest.max(server.resident_bytes());
    stop.store(true, Ordering::Relaxed);
    let (questions, longest) = asker.join().expect("every question was answered");

    let metrics = server.metrics();
    let counting = metrics.get("fail2ban_tracked", &[("what", "counting")]);
    let evicted = metrics.get("fail2ban_evicted_total", &[("what", "counting")]);
    record(&format!(
        "{CLIENTS} clients in {took:.1?} ({:.0} lines/s); {} MiB at the start, {} MiB after {WARM}, at most {} MiB after; \
         {counting} counted, {evicted} evicted; {questions} questions meanwhile, the longest took {longest:.1?}",
        f64::from(CLIENTS) / took.as_secs_f64(),
        at_start >> 20,
        warm >> 20,
        largest >> 20
    ));
    assert!(largest <= warm + GROWTH_BYTES_MAX, "it grew from {warm} to {largest} bytes");
    assert!(largest <= RESIDENT_BYTES_MAX, "{largest} bytes");
    // Clients are divided over the shards by a hash, so a shard may be full a little before all are.
    assert!(counting <= TRACKED_MAX && counting > TRACKED_MAX / 2, "{counting}");
    assert_eq!(counting + evicted, u64::from(CLIENTS), "each was counted, and is still or was evicted");
    assert_eq!(metrics.get("fail2ban_bans_total", &[]), 0);
    assert!(questions > 0);

    // It still bans.
    server.fail("192.0.2.77", 5);
    server.wait_for_status("192.0.2.77", 403);
    wait_for("the ban on every shard", || {
        (server.metrics().by_shard("fail2ban_shard_replica_bans", &[]) == [1, 1]).then_some(())
    });
    server.stop();
}

#[test]
fn offenders_are_bounded_too() {
    // Every client is banned at once, so what is bounded here are the bans and their replicas.
    const OFFENDERS: u32 = 50_000;
    let config = Config::new().set("ban.max_tracked", 2000).set("ban.max_attempts", 1).set("log.level", "warn");
    let server = Server::start(config);
    let mut lines = Lines::new();
    let mut sender = server.connect_syslog();
    for n in 0..OFFENDERS {
        lines.push(n);
        if lines.buffer.len() > 32 << 10 || n + 1 == OFFENDERS {
            sender.write_all(&lines.buffer).expect("lines are taken");
            lines.buffer.clear();
        }
    }
    server.wait_for_failures(u64::from(OFFENDERS));
    // The oldest had to go, and their bans with them, on every shard.
    let metrics = wait_for("replicas that hold what the owners do", || {
        let metrics = server.metrics();
        let held = metrics.by_shard("fail2ban_shard_replica_bans", &[]);
        let banned = metrics.get("fail2ban_current_bans", &[]);
        held.iter().all(|held| *held == banned).then_some(metrics)
    });
    let banned = metrics.get("fail2ban_current_bans", &[]);
    assert!((1000..=2000).contains(&banned), "{banned}");
    assert_eq!(metrics.get("fail2ban_tracked", &[("what", "offenders")]), banned);
    assert_eq!(metrics.get("fail2ban_evicted_total", &[("what", "offenders")]), u64::from(OFFENDERS) - banned);
    assert_eq!(metrics.get("fail2ban_bans_total", &[]), u64::from(OFFENDERS));
    assert_eq!(server.status("100.100.100.100"), 200, "the first is forgotten");
    assert_eq!(server.status("2001:0:c34f::1"), 403, "the last is not");
    server.stop();
}

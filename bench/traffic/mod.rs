//! What benchmarks, the counts of instructions and the tests of allocations have in common: the lines and questions that
//! go through the program, and the policy that it works by. All of it is the same every time, hashes too.

#![allow(dead_code, reason = "each of those who share this uses a part of it")]

#[path = "../../src/wire/http1/captures.rs"]
pub mod http_captures;

use mailfail2ban::config::Draft;
use mailfail2ban::control::publish::Publisher;
use mailfail2ban::control::store::Lists;
use mailfail2ban::engine::address::Network;
use mailfail2ban::engine::ban::{Act, Ban, Decision, Learned, Origin, PatternId, Severity};
use mailfail2ban::engine::escalation::BanRules;
use mailfail2ban::engine::matcher::{Found, Matcher, Scratch};
use mailfail2ban::engine::policy::Policy;
use mailfail2ban::engine::replica::Replica;
use mailfail2ban::engine::table::{HashKey, NetworkTable, hash_key};
use mailfail2ban::engine::time::Time;
use mailfail2ban::shard::Keys;
use mailfail2ban::shard::alone::Alone;
use mailfail2ban::wire::syslog;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Random numbers, the same every time (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The key of every table here.
pub fn tables() -> HashKey {
    hash_key(1)
}

pub fn nobody() -> NetworkTable<()> {
    NetworkTable::new(tables())
}

/// The policy of a server with one shard when nothing is set, with so many patterns of a site's own.
pub fn policy(site_patterns: usize) -> Policy {
    let mut publisher = Publisher::new(1, tables());
    let draft = Draft::parse("config.yaml", &configuration(site_patterns), std::iter::empty());
    let settings = publisher.take(draft).expect("the configuration of this file is right");
    publisher.policy(&settings, None, &Lists::default()).policy
}

/// As they are by default, but for a bound that is given.
pub fn rules(tracked_max: usize) -> BanRules {
    BanRules { tracked_max, ..policy(0).rules }
}

/// Programs that a site writes patterns of its own for.
const PROGRAMS: [&str; 6] = ["dovecot", "postfix", "sogod", "sshd", "nginx", "rspamd"];

/// What a site adds over the years: so many patterns, and those that are built in.
fn configuration(site_patterns: usize) -> String {
    let pattern = |n: usize| {
        let program = PROGRAMS[n % PROGRAMS.len()];
        let regex = format!(r"^site rule {n}: [^\[]*\[<IP>\] refused .* by policy {n}");
        format!("{{name: rule-{n}, program: {program}, severity: 1, regex: '{regex}'}}")
    };
    let patterns: Vec<String> = (0..site_patterns).map(pattern).collect();
    format!("syslog: {{with_default_patterns: true, patterns: [{}]}}", patterns.join(", "))
}

/// What a line of [`mail_log`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A password that was refused.
    Failure,
    /// Something else, by a program that patterns speak of.
    Other,
    /// By a program that none speaks of.
    Stranger,
}

/// One record, RFC 3164 as rsyslog writes it.
fn line(random: &mut Random, n: usize, told: Told) -> String {
    let (a, b, pid) = (random.below(256), random.below(256), random.below(30_000));
    let ip = format!("198.51.{a}.{b}");
    let head = "<22>Nov 22 17:33:44 mail1";
    match (told, random.below(6)) {
        (Told::Failure, 0..3) => format!(
            "{head} dovecot: imap-login: Disconnected: Aborted login by logging out (auth failed, 1 attempts in 2 secs): user=<u{n}@example.test>, method=PLAIN, rip={ip}, lip=192.0.2.25, TLS, session=<si3+4OBg{n}>"
        ),
        (Told::Failure, _) => format!(
            "{head} postfix/submission/smtpd[{pid}]: warning: unknown[{ip}]: SASL LOGIN authentication failed: (reason unavailable), sasl_username=u{n}"
        ),
        (Told::Other, 0) => format!("{head} postfix/smtpd[{pid}]: connect from mail{n}.example.net[{ip}]"),
        (Told::Other, 1) => format!(
            "{head} postfix/smtpd[{pid}]: disconnect from mail{n}.example.net[{ip}] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7"
        ),
        (Told::Other, 2) => format!(
            "{head} postfix/qmgr[{pid}]: 4XyZ{n}: from=<u{n}@example.test>, size={a}{b}, nrcpt=1 (queue active)"
        ),
        (Told::Other, 3) => format!(
            "{head} dovecot: imap-login: Login: user=<u{n}@example.test>, method=PLAIN, rip={ip}, lip=192.0.2.25, mpid={pid}, TLS, session=<si3+4OBg{n}>"
        ),
        (Told::Other, 4) => format!(
            "{head} dovecot: imap(u{n}@example.test)<{pid}><si3+4OBg>: Logged out in={a} out={b} deleted=0 expunged=0 trashed=0 hdr_count=0 hdr_bytes=0"
        ),
        (Told::Other, _) => {
            format!("{head} postfix/cleanup[{pid}]: 4XyZ{n}: message-id=<{n}.{pid}@mail.example.test>")
        }
        (Told::Stranger, 0..3) => {
            format!("{head} CRON[{pid}]: (root) CMD (   cd / && run-parts --report /etc/cron.hourly)")
        }
        (Told::Stranger, _) => format!("{head} systemd[1]: session-{n}.scope: Deactivated successfully."),
    }
}

/// So many lines of one kind.
pub fn lines(count: usize, told: Told) -> Vec<String> {
    let mut random = Random::new(1);
    (0..count).map(|n| line(&mut random, n, told)).collect()
}

/// A log as a mail cluster's: one line in ten is a failed login, one in ten of a program that nobody watches.
pub fn mail_log(count: usize) -> Vec<String> {
    let mut random = Random::new(2);
    let one = |n| {
        let told = match random.below(10) {
            0 => Told::Failure,
            1 => Told::Stranger,
            _ => Told::Other,
        };
        line(&mut random, n, told)
    };
    (0..count).map(one).collect()
}

/// A matcher at work on records.
pub struct Reader {
    pub matcher: Arc<Matcher>,
    pub scratch: Scratch,
}

impl Reader {
    pub fn new(site_patterns: usize) -> Reader {
        let matcher = policy(site_patterns).matcher;
        Reader { scratch: matcher.scratch(), matcher }
    }

    /// Whether a record tells of a failure.
    pub fn tells_of_failure(&mut self, bytes: &[u8]) -> bool {
        let Ok(record) = syslog::decode(bytes) else { return false };
        let found = self.matcher.find(&mut self.scratch, record.program, record.pid, record.message);
        matches!(found, Found::Match(_))
    }
}

/// A shard that works by this policy and has so many bans in force, of `host(0)` and those that follow.
pub fn shard(policy: Policy, bans: u32) -> Alone {
    let keys = Keys { tables: tables(), owners: hash_key(2) };
    let learned = (0..bans).map(|n| {
        let Decision { at, client, act, .. } = ban(host(n));
        let Act::Ban(ban) = act else { unreachable!("a ban is one") };
        Learned { client, at, ban, lifted: None }
    });
    Alone::new(&keys, &Arc::new(policy), &learned.collect()).expect("descriptors for bells")
}

/// How many questions a shard has given a verdict on.
pub fn answered(shard: &Alone) -> u64 {
    shard.counters().asked.iter().map(|asked| asked.allowed + asked.denied).sum()
}

/// How many lines a shard has counted as failures, each of which it may have known already.
pub fn counted(shard: &Alone) -> u64 {
    shard.counters().counted + shard.counters().known
}

/// A ban of one host for a day.
pub fn ban(host: Ipv4Addr) -> Decision {
    let (pattern, severity) = (PatternId::FIRST, Severity::LEAST);
    let until = Time::START.plus(Duration::from_secs(24 * 3600));
    let ban = Ban { until, offences: 1, failures: 5, pattern, severity };
    let client = Network::host(host.into());
    Decision { serial: 0, at: Time::START, client, act: Act::Ban(ban), origin: Origin::Decided }
}

/// A replica that holds so many bans of hosts, in no order; `host(n)` is the n-th of them.
pub fn replica(bans: u32) -> Replica {
    let mut replica = Replica::new(tables());
    replica.prepare_lengths(32, 64);
    for n in 0..bans {
        replica.apply(&ban(host(n)));
    }
    replica
}

/// The n-th of 2^31 different hosts, below 128.0.0.0: an odd factor permutes.
pub fn host(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1) & 0x7fff_ffff)
}

/// Bytes that a file of `tests/golden/spop` has in hexadecimal.
pub fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.trim().as_bytes().chunks(2).map(|two| two.iter().fold(0, |byte, half| byte << 4 | digit(half))).collect()
}

/// HAProxy 2.6's hello, and one question about an IPv4 address as it asks it.
pub fn haproxy() -> (Vec<u8>, Vec<u8>) {
    let hello = include_str!("../../tests/golden/spop/haproxy-2.6.12/01-hello-pipelining+async.hex");
    let notify = include_str!("../../tests/golden/spop/haproxy-2.6.12/05-notify-check-ip-v4-streamid1byte.hex");
    (from_hex(hello), from_hex(notify))
}

/// A question of nginx's about this client, over a connection that it keeps.
pub fn nginx(client: &str) -> Vec<u8> {
    about(http_captures::NGINX_KEEP_ALIVE, client)
}

/// The same question about another client.
pub fn about(head: &[u8], client: &str) -> Vec<u8> {
    let text = std::str::from_utf8(head).expect("a capture without bytes beyond ASCII");
    text.replacen("Original-IP: 127.0.0.1", &format!("Original-IP: {client}"), 1).into_bytes()
}

/// Envoy's side of a connection: HTTP/2 frames (RFC 9113), and header blocks (RFC 7541) as Envoy writes them.
pub struct Envoy {
    next_stream: u32,
    message: Vec<u8>,
}

impl Envoy {
    /// And the bytes that open the connection, with windows as wide as they can be.
    pub fn new() -> (Envoy, Vec<u8>) {
        let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut opening, 4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        frame(&mut opening, 8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
        let question = include_bytes!("../../tests/golden/ext_authz/http.bin");
        let message = [&[0][..], &(question.len() as u32).to_be_bytes(), question].concat();
        (Envoy { next_stream: 1, message }, opening)
    }

    /// Appends so many questions.
    pub fn ask(&mut self, out: &mut Vec<u8>, count: usize) {
        for _ in 0..count {
            let stream = self.next_stream;
            let head_at = out.len();
            frame(out, 1, 4, stream, &[]);
            push_head(out, stream == 1);
            let head_bytes = (out.len() - head_at - 9) as u32;
            out[head_at..head_at + 3].copy_from_slice(&head_bytes.to_be_bytes()[1..]);
            frame(out, 0, 1, stream, &self.message);
            self.next_stream += 2;
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// The first time every field goes into the table (RFC 7541 §6.2.1), later each is one byte (§6.1).
fn push_head(out: &mut Vec<u8>, is_first: bool) {
    let fields = [
        (":path", "/envoy.service.auth.v3.Authorization/Check"),
        (":authority", "fail2ban"),
        ("te", "trailers"),
        ("grpc-timeout", "200m"),
        ("content-type", "application/grpc"),
        ("x-envoy-internal", "true"),
        ("x-forwarded-for", "192.0.2.44"),
    ];
    out.extend([0x83, 0x86]);
    for (at, (name, value)) in fields.iter().enumerate() {
        if is_first {
            out.push(0x40);
            for text in [name, value] {
                out.push(text.len() as u8);
                out.extend(text.as_bytes());
            }
        } else {
            out.push(0x80 | (62 + fields.len() - 1 - at) as u8);
        }
    }
}

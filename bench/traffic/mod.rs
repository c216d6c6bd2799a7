//! What benchmarks, the counts of instructions and the tests of allocations have in common: the lines and questions that
//! go through the program, and the way that they go, which is that of `shard/core.rs` and its front ends without sockets,
//! rings and counters. All of it is the same every time, hashes too.

#![allow(dead_code, reason = "each of those who share this uses a part of it")]

#[path = "../../src/wire/http1/captures.rs"]
pub mod http_captures;

use mailfail2ban::config::Settings;
use mailfail2ban::engine::address::{Address, Network};
use mailfail2ban::engine::ban::{
    Act, Ban, Decision, Failure, FailureKind, Origin, OwnerHash, PatternId, Severity, client_of,
};
use mailfail2ban::engine::escalation::BanRules;
use mailfail2ban::engine::evidence::Evidence;
use mailfail2ban::engine::matcher::{Found, Match, Matcher, Scratch};
use mailfail2ban::engine::owner::{Outcome, Owner};
use mailfail2ban::engine::pattern::{Pattern, Source};
use mailfail2ban::engine::policy::{PatternName, Policy, QuestionRules};
use mailfail2ban::engine::replica::Replica;
use mailfail2ban::engine::table::{HashKey, NetworkTable, hash_key};
use mailfail2ban::engine::time::Time;
use mailfail2ban::engine::verdict::{Denial, judge};
use mailfail2ban::wire::{ext_authz, http1, spop, syslog};
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

/// As they are by default, but for a bound that is given.
pub fn rules(tracked_max: usize) -> BanRules {
    BanRules {
        initial: Duration::from_secs(300),
        max: Duration::from_secs(24 * 3600),
        factor: 2.0,
        threshold: 5,
        window: Duration::from_secs(600),
        memory: Duration::from_secs(72 * 3600),
        cleanup: Duration::from_secs(60),
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        tracked_max,
    }
}

/// The patterns that are in use when nothing is set.
pub fn built_in() -> Vec<Pattern> {
    let settings = Settings::default().syslog;
    let is_used = |kind: FailureKind| settings.kinds.iter().any(|used| used == kind.name());
    let used = settings.patterns.iter().filter(|pattern| pattern.enabled && is_used(pattern.kind));
    let patterns = (0..).zip(used).map(|(n, settings)| {
        let source = Source {
            regex: &settings.regex,
            ip_group: settings.ip_group,
            severity: Severity::new(settings.severity).expect("a built-in pattern has a severity"),
            weight: settings.weight,
            programs: &settings.program,
            refused_by: Some(settings.refused_by.as_str()).filter(|who| !who.is_empty()),
        };
        Pattern::compile(PatternId::new(n).expect("few"), &source).expect("a built-in pattern compiles")
    });
    patterns.collect()
}

/// Programs that a site writes patterns of its own for.
const PROGRAMS: [&str; 6] = ["dovecot", "postfix", "sogod", "sshd", "nginx", "rspamd"];

/// What a site adds over the years: so many patterns, behind those that there are.
pub fn site(patterns: &mut Vec<Pattern>, count: usize) {
    for n in 0..count {
        let number = PatternId::new(patterns.len() as u32).expect("few");
        let programs = [PROGRAMS[n % PROGRAMS.len()].to_owned()];
        let regex = format!(r"^site rule {n}: [^\[]*\[(?P<ip>[0-9a-fA-F:.]+)\] refused .* by policy {n}");
        let severity = Severity::new(1).expect("1 is a severity");
        let source =
            Source { regex: &regex, ip_group: None, severity, weight: 1, programs: &programs, refused_by: None };
        patterns.push(Pattern::compile(number, &source).expect("a pattern of this file compiles"));
    }
}

/// The built-in patterns and so many of a site's own.
pub fn matcher(count: usize) -> Matcher {
    let mut patterns = built_in();
    site(&mut patterns, count);
    Matcher::new(patterns)
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

/// The way of a line: `Core::record` and `Core::count`, without counters, and all clients are this shard's.
pub struct Intake {
    pub matcher: Matcher,
    pub scratch: Scratch,
    pub owner: Owner,
    pub rules: BanRules,
    pub decisions: Vec<Decision>,
    pub now: Time,
    allow: NetworkTable<()>,
    owner_hash: OwnerHash,
    evidence: Evidence,
}

impl Intake {
    pub fn new(matcher: Matcher, tracked_max: usize) -> Intake {
        Intake {
            scratch: matcher.scratch(),
            matcher,
            owner: Owner::new(0, tracked_max, tables()),
            rules: rules(tracked_max),
            decisions: Vec::new(),
            now: Time::START,
            allow: nobody(),
            owner_hash: OwnerHash::new(hash_key(2)),
            evidence: Evidence::new(16 << 20, tables()),
        }
    }

    /// As far as the matcher. Whether it is a failure.
    pub fn look(&mut self, bytes: &[u8]) -> bool {
        let Ok(record) = syslog::decode(bytes) else { return false };
        let found = self.matcher.find(&mut self.scratch, record.program, record.pid, record.message);
        matches!(found, Found::Match(_))
    }

    /// The whole way. What became of the failure, if it tells of one.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Outcome> {
        let record = syslog::decode(bytes).ok()?;
        let found = self.matcher.find(&mut self.scratch, record.program, record.pid, record.message);
        let Found::Match(Match { pattern, severity, address, failures: count, login }) = found else { return None };
        if self.allow.contains(address) {
            return None;
        }
        let client = client_of(address, &self.rules);
        self.evidence.keep(client, pattern, record.program, record.message, self.now);
        let failure = Failure { client, count, pattern, severity, login };
        match self.owner_hash.owner(client, 1) {
            0 => Some(self.owner.fail(&failure, self.now, &self.rules, &mut self.decisions)),
            _ => None,
        }
    }
}

/// A ban of one host for a day.
pub fn ban(host: Ipv4Addr) -> Decision {
    let (pattern, severity) = (PatternId::FIRST, Severity::new(3).expect("3 is a severity"));
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

/// The way of a question: a front end of the shard, without its counters.
pub struct Answering {
    pub policy: Policy,
    pub replica: Replica,
    pub now: Time,
}

impl Answering {
    pub fn new(bans: u32) -> Answering {
        let names = [PatternName { name: "dovecot-login".into(), severity: Severity::LEAST, kind: None }];
        let policy = Policy {
            number: 1,
            rules: rules(1),
            matcher: Arc::new(Matcher::new(Vec::new())),
            allow: Arc::new(nobody()),
            block: Arc::new(nobody()),
            senders: Arc::new(nobody()),
            names: names.into(),
            questions: QuestionRules {
                nginx_trusted_proxies: nobody(),
                envoy_trusted_proxies: nobody(),
                deny_unknown: false,
                json: false,
                operators: true,
            },
        };
        Answering { policy, replica: replica(bans), now: Time::START }
    }

    fn denial(&self, address: Address) -> Option<Denial<'_>> {
        judge(&self.policy, &self.replica, address, self.now).denial(&self.policy, self.now)
    }

    /// Everything in one read of HAProxy's, as `Spoa::take`. How many questions there were.
    pub fn spop(&self, session: &mut spop::Session, input: &[u8], output: &mut Vec<u8>) -> usize {
        use spop::answer::{self, Answer};
        let (mut done, mut asked) = (0, 0);
        while let Some(rest) = input.get(done..) {
            match session.next(rest, output) {
                spop::Step::Incomplete | spop::Step::Close { .. } => break,
                spop::Step::Handled { consumed, .. } => done += consumed,
                spop::Step::Notify { notify, consumed } => {
                    let addresses = notify.clients().filter_map(|client| match client {
                        spop::Client::Ip(ip) => Some(Address::from(ip)),
                        spop::Client::Text(text) => Address::parse_with_port(text),
                    });
                    let verdicts = addresses.map(|address| judge(&self.policy, &self.replica, address, self.now));
                    let worse = |earlier: mailfail2ban::engine::verdict::Verdict, later| {
                        if earlier.is_denial() { earlier } else { later }
                    };
                    let verdict = verdicts.reduce(worse);
                    let answer = match verdict.and_then(|verdict| verdict.denial(&self.policy, self.now)) {
                        None => Answer::Allowed,
                        Some(denial) => Answer::Denied(answer::Denial {
                            reason: denial.reason,
                            pattern: denial.ban.map(|(pattern, _)| pattern),
                            severity: denial.ban.map(|(_, severity)| severity.level()),
                            expires_in: denial.ends_in,
                        }),
                    };
                    answer::ack(output, notify.stream_id, notify.frame_id, &answer, session.frame_bytes_max());
                    done += consumed;
                    asked += 1;
                }
            }
        }
        asked
    }

    /// Everything in one read of nginx's, as `Nginx::take`. How many questions there were.
    pub fn http(&self, session: &mut http1::Session, input: &[u8], output: &mut Vec<u8>) -> usize {
        use http1::answer::{self, DenialContent};
        let (mut done, mut asked) = (0, 0);
        while let Some(rest) = input.get(done..) {
            match session.next(rest) {
                http1::Step::Incomplete | http1::Step::Refuse { .. } => break,
                http1::Step::Skip { consumed } => done += consumed,
                http1::Step::Request { request, consumed } => {
                    let delivery = request.delivery();
                    let fields = [request.original_ip, request.real_ip, request.client_ip];
                    let client = fields.into_iter().find_map(|field| match field {
                        http1::Field::One(text) => Address::parse_with_port(text),
                        http1::Field::Absent | http1::Field::Conflicting => None,
                    });
                    match client.map(|client| (client.ip(), self.denial(client))) {
                        None => answer::unknown_allowed(output, delivery),
                        Some((client, None)) => answer::allowed(output, client, delivery),
                        Some((client, Some(Denial { reason, ends_in, .. }))) => {
                            let denial = answer::Denial { client, reason, retry_after: ends_in };
                            answer::denied(output, &denial, DenialContent::Empty, delivery);
                        }
                    }
                    done += consumed;
                    asked += 1;
                }
            }
        }
        asked
    }

    /// Everything in one read of Envoy's, as `Envoy::take`. How many questions there were.
    pub fn ext_authz(&self, session: &mut ext_authz::Session, input: &[u8], output: &mut Vec<u8>) -> usize {
        let mut asked = 0;
        session.receive(input);
        loop {
            match session.next() {
                ext_authz::Step::Check { call, question } => {
                    let client = question.source().and_then(Address::parse_with_port);
                    let denial = client.and_then(|client| Some((client.ip(), self.denial(client)?)));
                    let answer = match denial {
                        None => ext_authz::Answer::Allowed,
                        Some((client, Denial { reason, ends_in, .. })) => {
                            ext_authz::Answer::Denied(ext_authz::Denial { client, reason, retry_after: ends_in })
                        }
                    };
                    session.answer(call, &answer);
                    asked += 1;
                }
                ext_authz::Step::Handled(_) => {}
                ext_authz::Step::Idle | ext_authz::Step::Closed(_) => break,
            }
        }
        session.take_output(output);
        asked
    }
}

/// Bytes that a file of `tests/golden/spop` has in hexadecimal.
pub fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.trim().as_bytes().chunks(2).map(|two| two.iter().fold(0, |byte, half| byte << 4 | digit(half))).collect()
}

/// A connection of HAProxy 2.6's after the hello, and one question about an IPv4 address as it asks it.
pub fn haproxy() -> (spop::Session, Vec<u8>) {
    let hello = include_str!("../../tests/golden/spop/haproxy-2.6.12/01-hello-pipelining+async.hex");
    let notify = include_str!("../../tests/golden/spop/haproxy-2.6.12/05-notify-check-ip-v4-streamid1byte.hex");
    let mut session = spop::Session::new();
    session.next(&from_hex(hello), &mut Vec::new());
    (session, from_hex(notify))
}

/// A question of nginx's over a connection that it keeps.
pub fn nginx() -> Vec<u8> {
    http_captures::NGINX_KEEP_ALIVE.to_vec()
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

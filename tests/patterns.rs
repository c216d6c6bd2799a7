//! The built-in patterns: each holds its examples, none can be steered, and nothing that a client writes moves an address.

mod harness;

use harness::{Directory, PROGRAM, TRUTH};
use mailfail2ban::config::{Example, Expected, PatternSettings, Settings};
use mailfail2ban::control::candidate::{Judge, Judged};
use mailfail2ban::engine::address::Address;
use mailfail2ban::engine::ban::PatternId;
use mailfail2ban::engine::matcher::{Found, Matcher};
use mailfail2ban::wire::syslog::decode_logged;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

static PATTERNS: LazyLock<Vec<PatternSettings>> = LazyLock::new(|| Settings::default().syslog.patterns);

/// What an attacker wants to have banned.
const VICTIMS: [&str; 4] = ["203.0.113.9", "[203.0.113.9]", "2001:db8:bad::9", "203.0.113.9:25"];

/// Words in the examples that are a client's to choose: names, passwords, HELO, mail addresses, requests.
const CLIENTS_WORDS: [&str; 31] = [
    "user=<>",
    "GET / [203.0.113.9]: HTTP/1.1",
    "GET /SOGo/dav/ HTTP/1.1",
    "diffie-hellman-group1-sha1",
    "test",
    "EHLO x",
    "carol@example.org",
    "alice@example.org",
    "bob@example.org",
    "ghost@example.org",
    "x@example.com",
    "a@example.net",
    "zz@example.org",
    "alice",
    "bob",
    "bob2",
    "ghost",
    "admin",
    "root",
    "o'brien",
    "ADMIN",
    "User",
    "helo=<h>",
    "helo=<x>",
    "(x)",
    "(mail.example.net)",
    "GET / HTTP/1.1",
    "hunter2",
    "s3:c)ret",
    "RkFLRQ==",
    "x@@example.org",
];

fn compile(index: usize) -> Judged {
    let id = PatternId::new(index as u32).expect("few");
    Judge::default().examine(id, &PATTERNS[index], true).unwrap_or_else(|faults| {
        panic!("{}: {faults:#?}", PATTERNS[index].name);
    })
}

/// All of them, also those of kinds that are not in use by default.
static ALL: LazyLock<Matcher> =
    LazyLock::new(|| Matcher::new((0..PATTERNS.len()).map(|at| compile(at).pattern).collect()));

static EACH: LazyLock<Vec<Matcher>> =
    LazyLock::new(|| (0..PATTERNS.len()).map(|at| Matcher::new(vec![compile(at).pattern])).collect());

fn found(matcher: &Matcher, line: &[u8]) -> Option<Address> {
    let record = decode_logged(line).ok()?;
    match matcher.find(&mut matcher.scratch(), record.program, record.pid, record.message) {
        Found::Match(found) => Some(found.address),
        _ => None,
    }
}

/// All examples that a pattern matches: the pattern, the line, and whose it is.
static EXAMPLES: LazyLock<Vec<(usize, &'static str, Address)>> = LazyLock::new(|| {
    let of = |(at, pattern): (usize, &'static PatternSettings)| {
        pattern.examples.iter().filter_map(move |text| match Example::parse(text) {
            Example { line, expected: Expected::Of(address, _) } => Some((at, line, address)),
            _ => None,
        })
    };
    PATTERNS.iter().enumerate().flat_map(of).collect()
});

/// A place in an example that a client fills.
#[derive(Clone, Copy)]
struct Place {
    pattern: usize,
    header: &'static str,
    message: &'static str,
    from: usize,
    word: &'static str,
    address: Address,
}

static PLACES: LazyLock<Vec<Place>> = LazyLock::new(|| {
    let of = |&(pattern, line, address): &(usize, &'static str, Address)| {
        let (header, message) = line.split_once(": ").expect("a program");
        let words = CLIENTS_WORDS.iter().flat_map(move |word| message.match_indices(word));
        words.map(move |(from, word)| Place { pattern, header, message, from, word, address })
    };
    EXAMPLES.iter().flat_map(of).collect()
});

fn victims() -> Vec<Address> {
    ["203.0.113.9", "2001:db8:bad::9"].map(|text| Address::parse(text.as_bytes()).expect("an address")).to_vec()
}

#[test]
fn each_holds_its_examples_and_cannot_be_steered() {
    for index in 0..PATTERNS.len() {
        compile(index);
    }
}

#[test]
fn together_they_find_what_each_finds_alone_and_nobody_else() {
    for (_, line, address) in EXAMPLES.iter() {
        assert_eq!(found(&ALL, line.as_bytes()), Some(*address), "{line}");
    }
    for pattern in PATTERNS.iter() {
        for text in &pattern.examples {
            if let Example { line, expected: Expected::Nothing } = Example::parse(text) {
                let found = found(&ALL, line.as_bytes());
                assert!(found.is_none_or(|found| !victims().contains(&found)), "{line}");
            }
        }
    }
}

#[test]
fn no_two_have_a_name_and_every_regex_is_anchored() {
    let mut names: Vec<&str> = PATTERNS.iter().map(|pattern| pattern.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PATTERNS.len());
    for pattern in PATTERNS.iter() {
        assert!(pattern.regex.starts_with('^') && pattern.regex.ends_with('$'), "{}", pattern.name);
    }
}

#[test]
fn documented_lines_are_recognised() {
    for line in [
        "dovecot: auth failed, method=PLAIN, rip=192.0.2.1",
        "postfix/smtpd: warning: SASL authentication failed: authentication failure [192.0.2.1]",
        "sogod: Login failed for user 'test' from 192.0.2.1",
    ] {
        assert_eq!(found(&ALL, line.as_bytes()).map(|found| found.to_string()).as_deref(), Some("192.0.2.1"), "{line}");
    }
}

/// Patterns in whose lines no client writes anything.
const NOTHING_OF_CLIENTS: [&str; 8] = [
    "postfix-sasl-bare",
    "postfix-lost-auth",
    "postfix-rate-limit",
    "postfix-postscreen-dnsbl",
    "exim-rate-limit",
    "sendmail-rate-limit",
    "sendmail-probe",
    "rspamd-controller",
];

#[test]
fn of_each_pattern_a_client_s_part_is_known() {
    let unknown: Vec<&str> = (0..PATTERNS.len())
        .filter(|at| PLACES.iter().all(|place| place.pattern != *at))
        .map(|at| PATTERNS[at].name.as_str())
        .collect();
    assert_eq!(unknown, NOTHING_OF_CLIENTS);
}

/// What normal traffic writes; nothing of it is of any kind.
#[test]
fn normal_traffic_is_not_matched() {
    for line in [
        "dovecot: imap-login: Login: user=<bob>, method=PLAIN, rip=192.0.2.1, lip=192.0.2.25, mpid=1, TLS, session=<a>",
        "dovecot: imap-login: Logged in: user=<bob>, method=PLAIN, rip=192.0.2.1, lip=192.0.2.25, mpid=1, session=<a>",
        "dovecot: imap(bob)<13882><4cNK4eBgm61/AAAF>: Disconnected: Logged out in=24 out=775 deleted=0",
        "dovecot: lmtp(bob)<1><a>: sieve: msgid=<auth failed, rip=203.0.113.9>: stored mail into mailbox 'INBOX'",
        "postfix/smtpd[1]: connect from unknown[192.0.2.1]",
        "postfix/smtpd[1]: disconnect from unknown[192.0.2.1] ehlo=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=6",
        "postfix/smtpd[1]: A6E6D554843: client=unknown[192.0.2.1], sasl_method=PLAIN, sasl_username=bob",
        "postfix/smtp[1]: A6E6D554843: to=<x@example.com>, relay=mx.example.com[198.51.100.5]:25, status=bounced (host \
         mx.example.com[198.51.100.5] said: 550 5.7.1 Relay access denied (in reply to RCPT TO command))",
        "postfix/cleanup[1]: A6E6D554843: warning: header Subject: warning: x[203.0.113.9]: SASL LOGIN authentication failed",
        "sshd[1]: Accepted publickey for bob from 192.0.2.1 port 40122 ssh2: ED25519 SHA256:abc",
        "sogod[1]: 192.0.2.1 \"POST /SOGo/connect HTTP/1.1\" 200 27/64 0.013 - - 1M - 12",
        "nginx: 192.0.2.1 - bob [29/Nov/2026:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5 \"-\" \"-\"",
        "haproxy[1]: 192.0.2.1:40100 [29/Nov/2026:10:00:00.123] web sogo/s1 0/0/0/1/1 200 212 - - ---- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\"",
    ] {
        assert_eq!(found(&ALL, line.as_bytes()), None, "{line}");
    }
}

/// The lines of the captured scenario (`tests/golden/syslog/README.md`) as `match` counts them, by client.
fn counted(lines: &[&str]) -> BTreeMap<String, usize> {
    let directory = Directory::new();
    directory.file("config.yaml", "log: {level: info}\n");
    let mut command = Command::new(PROGRAM);
    command.args(["match", "-"]).current_dir(&directory.0).env_clear();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program");
    let text = lines.join("\n");
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("to write");
    let output = child.wait_with_output().expect("its end");
    let mut counted = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let hit: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if hit["kind"] == "auth" {
            *counted.entry(hit["ip"].as_str().expect("text").to_owned()).or_default() +=
                hit["failures"].as_u64().expect("a number") as usize;
        }
    }
    counted.retain(|_, failures| *failures > 0);
    counted
}

#[test]
fn each_refused_password_of_the_captured_scenario_counts_once_however_its_lines_arrive() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/syslog/rsyslog.iso.lines");
    let log = std::fs::read_to_string(path).expect("a golden file");
    let mut lines: Vec<&str> = log.lines().collect();
    let truth: BTreeMap<String, usize> = TRUTH.iter().map(|(client, n)| ((*client).to_owned(), *n)).collect();
    assert_eq!(counted(&lines), truth);
    lines.reverse();
    assert_eq!(counted(&lines), truth, "the last line first");
    lines.sort_by_key(|line| {
        line.bytes().map(u64::from).fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte))
    });
    assert_eq!(counted(&lines), truth, "in no order");
    // Without auth_verbose, the auth process says nothing.
    lines.retain(|line| !line.contains("dovecot: auth: "));
    assert_eq!(counted(&lines), truth, "from the login processes and Postfix alone");
}

/// A piece of what an attacker writes: an address, a mark, a piece of the very lines that daemons write with the
/// attacker's address in it, or a whole forged record.
fn piece() -> impl Strategy<Value = String> {
    let marks = [
        " ",
        ",",
        ", ",
        ":",
        ": ",
        ";",
        "'",
        "\"",
        "<",
        ">",
        "(",
        ")",
        "[",
        "]",
        "=",
        "-",
        "?",
        "/",
        "\t",
        "\n",
        "\\n",
        "#012",
        " from ",
        "rip=",
        "lip=192.0.2.25",
        "user=<",
        "user=",
        ", session=<a>",
        "): ",
        ">, ",
        "' from ",
        " port 22 ssh2",
        "é",
        "\u{202e}",
    ];
    let victim = select(VICTIMS.to_vec()).prop_map(str::to_owned);
    let slice = (any::<Index>(), any::<Index>(), any::<Index>(), any::<bool>()).prop_map(|(line, from, to, whole)| {
        let (_, line, address) = EXAMPLES[line.index(EXAMPLES.len())];
        let forged = line.replace(&address.to_string(), "203.0.113.9");
        let message: Vec<char> = match forged.split_once(": ") {
            Some((_, message)) => message.chars().collect(),
            None => Vec::new(),
        };
        if whole || message.is_empty() {
            return if from.index(2) == 0 { forged } else { format!("<22>Nov 29 10:00:00 mail1 {forged}") };
        }
        let (a, b) = (from.index(message.len()), to.index(message.len()));
        message[a.min(b)..=a.max(b)].iter().collect()
    });
    prop_oneof![3 => select(marks.to_vec()).prop_map(str::to_owned), 2 => victim, 3 => slice]
}

/// What a daemon does with a name before it writes it, where that is what keeps an address in its place.
fn as_written(pattern: &str, text: &str) -> String {
    match pattern {
        // A user of HTTP's Basic scheme ends at the first colon (RFC 7617 §2).
        "nginx-auth-basic" => text.replace(':', ""),
        // Tags are stripped from names.
        "roundcube-login" => text.replace(['<', '>'], ""),
        _ => text.to_owned(),
    }
}

proptest! {
    // No seeds are kept: places are numbered anew with each new pattern.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    /// Whatever a client writes into any of its fields, of all patterns: nobody is found but itself.
    #[test]
    fn nothing_that_a_client_writes_moves_the_address(
        place in any::<Index>(),
        pieces in prop::collection::vec(piece(), 1..6),
    ) {
        let Place { pattern: at, header, message, from, word, address } = PLACES[place.index(PLACES.len())];
        let written = as_written(&PATTERNS[at].name, &pieces.concat());
        // The marks around it are the daemon's.
        let written = match word.find(['(', '<']).filter(|_| word.ends_with([')', '>'])) {
            Some(open) => format!("{}{written}{}", &word[..=open], &word[word.len() - 1..]),
            None => written,
        };
        let attacked = format!("{header}: {}{written}{}", &message[..from], &message[from + word.len()..]);
        for matcher in [&ALL, &EACH[at]] {
            let found = found(matcher, attacked.as_bytes());
            prop_assert!(found.is_none_or(|found| found == address), "{found:?} in {attacked:?}");
        }
    }

    /// A whole record that a client makes up, sent on by a daemon that writes it behind words of its own.
    #[test]
    fn a_forged_record_inside_of_another_is_none(pieces in prop::collection::vec(piece(), 1..6), program in select(vec![
        "dovecot: imap(bob)<1><a>: Error: ", "postfix/cleanup[1]: 4BC1F2A0D3: message-id=<", "postfix/smtpd[1]: 4BC1F2A0D3: client=unknown[192.0.2.1], sasl_username=",
        "sshd[1]: Accepted password for ", "exim[1]: 1abc-0000-00 <= ", "cron[1]: ",
    ])) {
        let line = format!("{program}{}", pieces.concat());
        let found = found(&ALL, line.as_bytes());
        prop_assert!(found.is_none_or(|found| !victims().contains(&found)), "{found:?} in {line:?}");
    }
}

//! A log as a mail cluster writes it: mostly logins that worked, mail that was delivered, web requests; and some failed
//! logins, each a session of its own. The same for the same seed, but for the time in it.

use crate::clients::{innocent, offender};
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::SystemTime;

/// What does not fail, as the daemons wrote it: priority, program (with `[]` if it gives its process's id), and message.
/// In braces is what changes from line to line.
const ORDINARY: [(u8, &str, &str); 26] = [
    (
        22,
        "dovecot",
        "imap-login: Login: user=<{user}>, method=PLAIN, rip={ip}, lip=192.0.2.25, mpid={pid}, TLS, session=<{session}>",
    ),
    (
        22,
        "dovecot",
        "imap-login: Login: user=<{user}>, method=PLAIN, rip={ip}, lip=192.0.2.25, mpid={pid}, TLS, session=<{session}>",
    ),
    (
        22,
        "dovecot",
        "imap({user})<{pid}><{session}>: Disconnected: Logged out in={number} out={number} deleted=0 expunged=0 trashed=0 hdr_count=0 hdr_bytes=0 body_count=0 body_bytes=0",
    ),
    (
        22,
        "dovecot",
        "imap({user})<{pid}><{session}>: Disconnected: Logged out in={number} out={number} deleted=0 expunged=0 trashed=0 hdr_count=1 hdr_bytes={number} body_count=0 body_bytes=0",
    ),
    (
        22,
        "dovecot",
        "imap({user})<{pid}><{session}>: Connection closed (IDLE running for 0.001 + waiting input for 0.001 secs, 2 B in + 10 B out, state=wait-input) in={number} out={number}",
    ),
    (
        22,
        "dovecot",
        "pop3-login: Login: user=<{user}>, method=PLAIN, rip={ip}, lip=192.0.2.25, mpid={pid}, TLS, session=<{session}>",
    ),
    (
        22,
        "dovecot",
        "pop3({user})<{pid}><{session}>: Disconnected: Logged out top=0/0, retr=1/{number}, del=0/12, size={number}",
    ),
    (22, "dovecot", "lmtp({user})<{pid}><{session}>: msgid=<{queue}@example.org>: saved mail to INBOX"),
    (
        22,
        "dovecot",
        "imap-login: Disconnected: Logged out (no auth attempts in 0 secs): user=<>, rip={ip}, lip=192.0.2.25, TLS, session=<{session}>",
    ),
    (22, "postfix/smtpd[]", "connect from mail-{number}.example.net[{ip}]"),
    (
        22,
        "postfix/smtpd[]",
        "disconnect from mail-{number}.example.net[{ip}] ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7",
    ),
    (
        22,
        "postfix/smtpd[]",
        "Anonymous TLS connection established from mail-{number}.example.net[{ip}]: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)",
    ),
    (22, "postfix/smtpd[]", "{queue}: client=mail-{number}.example.net[{ip}]"),
    (22, "postfix/submission/smtpd[]", "{queue}: client=unknown[{ip}], sasl_method=PLAIN, sasl_username={user}"),
    (22, "postfix/cleanup[]", "{queue}: message-id=<{number}.{queue}@example.net>"),
    (22, "postfix/qmgr[]", "{queue}: from=<{user}>, size={number}, nrcpt=1 (queue active)"),
    (
        22,
        "postfix/smtp[]",
        "{queue}: to=<{user}>, relay=mx.example.com[203.0.113.25]:25, delay=1.2, delays=0.1/0/0.5/0.6, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as {queue})",
    ),
    (
        22,
        "postfix/lmtp[]",
        "{queue}: to=<{user}>, relay=mail1[private/dovecot-lmtp], delay=0.3, delays=0.2/0/0/0.1, dsn=2.0.0, status=sent (250 2.0.0 <{user}> {session} Saved)",
    ),
    (22, "postfix/qmgr[]", "{queue}: removed"),
    (22, "postfix/anvil[]", "statistics: max connection rate 3/60s for (smtp:{ip}) at Nov 22 17:33:41"),
    (134, "sogod[]", "{ip} \"GET /SOGo/so/{user}/Mail/0/folderINBOX/unseenCount HTTP/1.1\" 200 18/0 0.0{number} - - 0"),
    (
        30,
        "rspamd[]",
        "<{queue}>; task; rspamd_task_write_log: id: <{queue}@example.net>, qid: <{queue}>, ip: {ip}, from: <{user}>, (default: F (no action): [-0.20/15.00] [R_DKIM_ALLOW(-0.20){{example.net:s=mail;}}]), len: {number}, time: 84.1ms",
    ),
    (22, "opendkim[]", "{queue}: DKIM-Signature field added (s=mail, d=example.org)"),
    (78, "CRON[]", "(root) CMD (   cd / && run-parts --report /etc/cron.hourly)"),
    (38, "sshd[]", "Accepted publickey for root from {ip} port {number} ssh2: ED25519 SHA256:{session}"),
    (30, "systemd[]", "session-{number}.scope: Deactivated successfully."),
];

/// Refused passwords: Dovecot's, Postfix's, SOGo's and OpenSSH's.
const FAILING: [(u8, &str, &str); 10] = [
    (
        22,
        "dovecot",
        "imap-login: Disconnected: Connection closed (auth failed, 1 attempts in 2 secs): user=<{user}>, method=PLAIN, rip={ip}, lip=192.0.2.25, TLS, session=<{session}>",
    ),
    (
        22,
        "dovecot",
        "imap-login: Disconnected: Aborted login by logging out (auth failed, 1 attempts in 6 secs): user=<{user}>, method=PLAIN, rip={ip}, lip=192.0.2.25, session=<{session}>",
    ),
    (
        22,
        "dovecot",
        "pop3-login: Disconnected: Connection closed (auth failed, 1 attempts in 2 secs): user=<{user}>, method=PLAIN, rip={ip}, lip=192.0.2.25, TLS, session=<{session}>",
    ),
    (
        22,
        "dovecot",
        "imap-login: Disconnected: Connection closed (auth failed, 1 attempts in 2 secs): user=<{user}>, method=LOGIN, rip={ip}, lip=192.0.2.25, TLS, session=<{session}>",
    ),
    (
        20,
        "postfix/submission/smtpd[]",
        "warning: unknown[{ip}]: SASL LOGIN authentication failed: authentication failure, sasl_username={user}",
    ),
    (
        20,
        "postfix/smtps/smtpd[]",
        "warning: unknown[{ip}]: SASL PLAIN authentication failed: authentication failure, sasl_username={user}",
    ),
    (
        20,
        "postfix/smtpd[]",
        "warning: host-{number}.example.com[{ip}]: SASL LOGIN authentication failed: UGFzc3dvcmQ6, sasl_username={user}",
    ),
    (
        20,
        "postfix/submission/smtpd[]",
        "warning: unknown[{ip}]: SASL LOGIN authentication failed: authentication failure, sasl_username={user}",
    ),
    (
        134,
        "sogod[]",
        "SOGoRootPage Login from '{ip}' for user '{user}' might not have worked - password policy: 65535  grace: -1  expire: -1  bound: 0",
    ),
    (86, "sshd[]", "Failed password for invalid user {name} from {ip} port {number} ssh2"),
];

/// So many different ordinary lines are made before they repeat.
const POOL: usize = 8192;

const NAMES: [&str; 8] = ["anna", "bob", "carol.smith", "info", "postmaster", "sales", "j.doe", "newsletter"];

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// As rsyslog and syslog-ng send it by default.
    Rfc3164,
    Rfc5424,
    /// As rsyslog writes it to a file: no priority.
    File,
}

/// What the log is like.
#[derive(Clone, Debug)]
pub struct Mix {
    pub seed: u64,
    /// Share of lines that are failed logins, from 0 to 1.
    pub failing: f64,
    /// So many clients fail, in turn, beginning with this offender.
    pub clients: u32,
    pub first: u32,
    pub format: Format,
    /// Every line is made as long as this, by longer user names; for senders that segment.
    pub length: Option<usize>,
}

/// Lines without an end.
#[derive(Debug)]
pub struct Log {
    mix: Mix,
    random: fastrand::Rng,
    stamp: String,
    ordinary: Vec<Vec<u8>>,
    failures: u64,
}

impl Log {
    pub fn new(mix: Mix) -> Log {
        let stamp = stamp(mix.format, SystemTime::now());
        let mut log = Log { random: fastrand::Rng::with_seed(mix.seed), stamp, ordinary: Vec::new(), failures: 0, mix };
        log.ordinary = (0..POOL)
            .map(|at| {
                let client = innocent(log.random.u32(..1 << 16));
                log.line(ORDINARY[at % ORDINARY.len()], client)
            })
            .collect();
        log
    }

    /// Appends a line, without an end of line, and says whether it is a failed login.
    pub fn push(&mut self, out: &mut Vec<u8>) -> bool {
        let is_failing = self.random.f64() < self.mix.failing;
        if is_failing {
            self.push_failure(out);
        } else {
            let at = self.random.usize(..POOL);
            out.extend(&self.ordinary[at]);
        }
        is_failing
    }

    /// A failed login of the next client.
    fn push_failure(&mut self, out: &mut Vec<u8>) {
        let client = self.failures % u64::from(self.mix.clients.max(1));
        let client = offender(self.mix.first.wrapping_add(client as u32));
        self.failures += 1;
        let template = FAILING[self.random.usize(..FAILING.len())];
        self.write(out, template, client);
    }

    /// A failed login of this client, as Dovecot tells of it.
    pub fn push_failure_of(&mut self, client: Ipv4Addr, out: &mut Vec<u8>) {
        self.write(out, FAILING[0], client);
    }

    fn line(&mut self, template: (u8, &str, &str), client: Ipv4Addr) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, template, client);
        out
    }

    fn write(&mut self, out: &mut Vec<u8>, (priority, program, message): (u8, &str, &str), client: Ipv4Addr) {
        let begin = out.len();
        let padding_at = self.write_once(out, priority, program, message, client);
        if let (Some(length), Some(at)) = (self.mix.length, padding_at) {
            let missing = (begin + length).saturating_sub(out.len());
            out.splice(at..at, std::iter::repeat_n(b'x', missing));
        }
        if let Some(length) = self.mix.length {
            out.resize(begin + length, b' ');
        }
    }

    /// Returns where the line can be made longer without another meaning.
    fn write_once(
        &mut self,
        out: &mut Vec<u8>,
        priority: u8,
        program: &str,
        message: &str,
        client: Ipv4Addr,
    ) -> Option<usize> {
        let pid = self.random.u32(1000..32_768);
        let (name, has_pid) = program.strip_suffix("[]").map_or((program, false), |name| (name, true));
        let stamp = &self.stamp;
        let result = match (self.mix.format, has_pid) {
            (Format::Rfc3164, true) => write!(out, "<{priority}>{stamp} mail1 {name}[{pid}]: "),
            (Format::Rfc3164, false) => write!(out, "<{priority}>{stamp} mail1 {name}: "),
            (Format::Rfc5424, true) => write!(out, "<{priority}>1 {stamp} mail1 {name} {pid} - - "),
            (Format::Rfc5424, false) => write!(out, "<{priority}>1 {stamp} mail1 {name} - - - "),
            (Format::File, true) => write!(out, "{stamp} mail1 {name}[{pid}]: "),
            (Format::File, false) => write!(out, "{stamp} mail1 {name}: "),
        };
        result.expect("memory takes all");
        let mut padding_at = None;
        let mut rest = message;
        while let Some((before, after)) = rest.split_once('{') {
            out.extend(before.as_bytes());
            let Some((key, after)) = after.split_once('}') else { break };
            let random = self.random.u64(..);
            let result = match key {
                "ip" => write!(out, "{client}"),
                "user" | "name" => {
                    let name = NAMES[random as usize % NAMES.len()];
                    padding_at.get_or_insert(out.len());
                    match key {
                        "user" => write!(out, "{name}{}@example.org", random % 1000),
                        _ => write!(out, "{name}{}", random % 1000),
                    }
                }
                "pid" => write!(out, "{pid}"),
                "number" => write!(out, "{}", random % 60_000),
                "queue" => write!(out, "{:X}", random >> 20 | 1 << 43),
                "session" => write!(out, "{}", session(random)),
                // `{{` stands for one brace.
                other => write!(out, "{}}}", other),
            };
            result.expect("memory takes all");
            rest = after;
        }
        out.extend(rest.as_bytes());
        padding_at
    }
}

/// As Dovecot names sessions: 16 letters of base64.
fn session(number: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |at: u32| char::from(LETTERS[(number >> (at * 6)) as usize & 63]);
    (0..11).map(letter).chain("/AAAD".chars()).collect()
}

fn stamp(format: Format, now: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // 2026-11-22T17:33:41.598475Z
    let text = humantime::format_rfc3339_micros(now).to_string();
    match format {
        Format::Rfc5424 | Format::File => text.replace('Z', "+00:00"),
        Format::Rfc3164 => {
            let month = text[5..7].parse().map_or("Jan", |month: usize| MONTHS[(month - 1) % 12]);
            let day = text[8..10].trim_start_matches('0');
            format!("{month} {day:>2} {}", &text[11..19])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn mix(format: Format) -> Mix {
        Mix { seed: 3, failing: 0.1, clients: 50, first: 0, format, length: None }
    }

    fn lines(mix: Mix, count: usize) -> Vec<(bool, String)> {
        let mut log = Log::new(mix);
        let line = |_| {
            let mut out = Vec::new();
            let is_failing = log.push(&mut out);
            (is_failing, String::from_utf8(out).unwrap())
        };
        (0..count).map(line).collect()
    }

    #[test]
    fn a_seed_gives_the_same_lines_of_a_usual_length() {
        let strip = |lines: Vec<(bool, String)>| lines.into_iter().map(|(_, line)| line[20..].to_owned()).collect();
        let [first, second]: [Vec<String>; 2] = [0, 1].map(|_| strip(lines(mix(Format::Rfc3164), 5000)));
        assert_eq!(first, second);
        let mean = first.iter().map(|line| line.len() + 20).sum::<usize>() / first.len();
        assert!((130..170).contains(&mean), "{mean}");
        assert!(first.iter().all(|line| !line.contains(['{', '\n']) || line.contains("R_DKIM")), "{first:?}");
    }

    #[test]
    fn failures_are_a_tenth_of_many_clients_and_sessions() {
        let lines = lines(mix(Format::Rfc5424), 10_000);
        let failing: Vec<&String> = lines.iter().filter(|(failing, _)| *failing).map(|(_, line)| line).collect();
        assert!((900..1100).contains(&failing.len()), "{}", failing.len());
        let word = |line: &str| {
            line.split(['=', '[', ']', ',', ' ', '\'']).find(|word| word.starts_with("198.18.")).map(str::to_owned)
        };
        let clients: HashSet<_> = failing.iter().map(|line| word(line).unwrap()).collect();
        assert_eq!(clients.len(), 50);
        let sessions: Vec<_> = failing.iter().filter_map(|line| line.split_once("session=<")).collect();
        assert_eq!(sessions.iter().map(|(_, session)| session).collect::<HashSet<_>>().len(), sessions.len());
        assert!(lines.iter().all(|(failing, line)| *failing == line.contains(" 198.18.") || line.contains("198.18.")));
    }

    #[test]
    fn stamps_are_as_the_formats_want_them() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_793_900_021);
        assert_eq!(stamp(Format::Rfc3164, time), "Nov  5 17:33:41");
        assert_eq!(stamp(Format::File, time), "2026-11-05T17:33:41.000000+00:00");
    }

    #[test]
    fn lines_can_be_of_one_length() {
        let lines = lines(Mix { length: Some(300), ..mix(Format::Rfc3164) }, 1000);
        assert!(lines.iter().all(|(_, line)| line.len() == 300));
        assert!(lines.iter().any(|(failing, line)| *failing && line.contains("user=<xxx")));
    }
}

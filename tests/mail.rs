//! Real Dovecot and Postfix, wrong passwords in every way, and their log through rsyslog: each refused password counts once,
//! for the client whose it was, and nothing else counts.
//!
//! Daemons write to `/dev/log`, of which a machine has one. So each test has a mount namespace of its own, in which
//! `/dev/log` is its rsyslog's.

mod harness;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use harness::{Config, DEADLINE, Directory, Server, free_port, limits, need, skip, tool, wait_for};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

/// A mail server: Dovecot, Postfix which asks it, and rsyslog which forwards what both log.
struct MailServer {
    rsyslog: Child,
    daemons: Child,
    directory: Directory,
    ports: Ports,
}

#[derive(Clone, Copy)]
struct Ports {
    imap: u16,
    pop3: u16,
    sieve: u16,
    submission: u16,
    smtp: u16,
}

/// Runs a command with `/dev/log` of this test's own: its device files are the machine's but for that one.
const IN_NAMESPACE: &str = r#"
set -e
mount --make-rprivate /
mkdir -p "$WORK/dev"
mount --bind /dev "$WORK/dev"
mount -t tmpfs -o mode=755 none /dev
for node in null zero full random urandom tty; do
    touch "/dev/$node"
    mount --bind "$WORK/dev/$node" "/dev/$node"
done
ln -s /proc/self/fd /dev/fd
ln -s "$WORK/log.sock" /dev/log
"#;

impl MailServer {
    /// `None` if the machine cannot run one, which is said.
    fn start(server: &Server, auth_verbose: bool) -> Option<MailServer> {
        if !["rsyslogd", "dovecot", "postfix"].into_iter().all(need) {
            return None;
        }
        if !limits::is_root() {
            skip("Dovecot and Postfix are started as root");
            return None;
        }
        let directory = Directory::new();
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).expect("to open the directory");
        let [imap, pop3, sieve, submission, smtp] = [(); 5].map(|()| free_port());
        let ports = Ports { imap, pop3, sieve, submission, smtp };
        let rsyslog = start_rsyslog(&directory, server.config.syslog);
        write_dovecot(&directory, ports, auth_verbose);
        write_postfix(&directory, ports);
        let work = directory.0.display();
        let script = format!(
            "{IN_NAMESPACE}\n\
             postfix -c {work}/postfix check\n\
             dovecot -F -c {work}/dovecot.conf & dovecot=$!\n\
             /usr/lib/postfix/sbin/master -c {work}/postfix -d & postfix=$!\n\
             trap 'kill $dovecot $postfix; wait' TERM\n\
             echo ready\n\
             wait\n"
        );
        let mut command = tool("unshare");
        command.args(["--mount", "bash", "-c", &script]).env("WORK", &directory.0).env("MAIL_CONFIG", "");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(directory.0.join("daemons.err")).expect("a file"));
        let daemons = command.spawn().expect("unshare");
        let mail = MailServer { rsyslog, daemons, directory, ports };
        for port in [imap, pop3, sieve, submission, smtp] {
            wait_for("the mail server to listen", || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().or_else(|| {
                    assert!(!mail.said().contains("atal"), "{}", mail.said());
                    None
                })
            });
        }
        Some(mail)
    }

    /// What the daemons complained of, and what they logged.
    fn said(&self) -> String {
        let text = |name: &str| fs::read_to_string(self.directory.0.join(name)).unwrap_or_default();
        text("daemons.err") + &text("mail.log")
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        limits::kill(self.daemons.id(), libc::SIGTERM);
        let _ = self.daemons.wait();
        let _ = self.rsyslog.kill();
        let _ = self.rsyslog.wait();
        if std::thread::panicking() {
            eprintln!("the mail server said:\n{}", self.said());
        }
    }
}

fn start_rsyslog(directory: &Directory, to: SocketAddr) -> Child {
    let work = directory.0.display();
    let configuration = format!(
        "global(workDirectory=\"{work}\" maxMessageSize=\"8k\")\n\
         module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{work}/log.sock\" CreatePath=\"on\" RateLimit.Interval=\"0\")\n\
         action(type=\"omfile\" file=\"{work}/mail.log\" template=\"RSYSLOG_TraditionalFileFormat\")\n\
         action(type=\"omfwd\" target=\"{}\" port=\"{}\" protocol=\"tcp\" tcp_framing=\"octet-counted\" \
         template=\"RSYSLOG_SyslogProtocol23Format\")\n",
        to.ip(),
        to.port()
    );
    let configuration = directory.file("rsyslog.conf", configuration);
    let mut command = tool("rsyslogd");
    command.args(["-n", "-f"]).arg(configuration).arg("-i").arg(directory.0.join("rsyslogd.pid"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("rsyslogd");
    let socket = directory.0.join("log.sock");
    wait_for("rsyslog's socket", || socket.exists().then_some(()));
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).expect("to open the socket");
    child
}

fn write_dovecot(directory: &Directory, ports: Ports, auth_verbose: bool) {
    let work = directory.0.display();
    let Ports { imap, pop3, sieve, submission, .. } = ports;
    let verbose = if auth_verbose { "yes" } else { "no" };
    directory.file("users", "alice@example.org:{PLAIN}right::::::\nbob:{PLAIN}right::::::\n");
    let login = |service: &str, listener: &str, port: u16| {
        let others: String = ["imap", "imaps", "pop3", "pop3s", "sieve", "submission"]
            .iter()
            .filter(|other| **other != listener && other.trim_end_matches('s') == listener.trim_end_matches('s'))
            .map(|other| format!("inet_listener {other} {{ port = 0 }}\n"))
            .collect();
        format!("service {service} {{ inet_listener {listener} {{ port = {port} }}\n{others} }}\n")
    };
    let services = [
        login("imap-login", "imap", imap),
        login("pop3-login", "pop3", pop3),
        login("managesieve-login", "sieve", sieve),
        login("submission-login", "submission", submission),
    ]
    .concat();
    let settings = format!(
        "base_dir = {work}/dovecot\nstate_dir = {work}/dovecot-state\nlisten = 127.0.0.1, ::1\n\
             protocols = imap pop3 sieve submission\nssl = no\ndisable_plaintext_auth = no\n\
             auth_mechanisms = plain login cram-md5\nauth_verbose = {verbose}\nauth_failure_delay = 0\n\
             auth_username_chars =\nhostname = mail.example.org\nsubmission_relay_host = 127.0.0.1\n\
             submission_relay_port = {}\nmail_location = maildir:{work}/mail/%u\nmail_uid = nobody\nmail_gid = nogroup\n\
             first_valid_uid = 1\nfirst_valid_gid = 1\n\
             passdb {{\n driver = passwd-file\n args = {work}/users\n}}\n\
             userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={work}/mail/%u\n}}\n\
             service anvil {{ unix_listener anvil-auth-penalty {{ mode = 0 }} }}\n\
             service auth {{ unix_listener {work}/auth-client {{ mode = 0666 }} }}\n\
             service stats {{ unix_listener stats-writer {{ mode = 0666 }} }}\n{services}",
        ports.smtp
    );
    // A brace ends a line there.
    directory.file("dovecot.conf", settings.replace("{ ", "{\n").replace(" }", "\n}"));
    let mail = directory.0.join("mail");
    fs::create_dir_all(&mail).expect("a directory for mail");
    fs::set_permissions(&mail, fs::Permissions::from_mode(0o777)).expect("to open it");
}

fn write_postfix(directory: &Directory, ports: Ports) {
    let work = directory.0.display();
    for folder in ["postfix", "queue", "data"] {
        fs::create_dir_all(directory.0.join(folder)).expect("a directory");
    }
    let chown = tool("chown").args(["postfix:", &format!("{work}/data")]).status().expect("chown");
    assert!(chown.success());
    let port = ports.smtp;
    directory.file(
        "postfix/main.cf",
        format!(
            "compatibility_level = 3.6\nqueue_directory = {work}/queue\ndata_directory = {work}/data\n\
             command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\n\
             setgid_group = postdrop\nmyhostname = mail.example.org\nmydestination = example.org\nmynetworks = 192.0.2.25/32\n\
             inet_interfaces = 127.0.0.1, ::1\ninet_protocols = all\nalias_maps =\nalias_database =\n\
             local_recipient_maps = inline:{{alice=x}}\nlocal_transport = discard\ndefault_transport = discard\n\
             smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {work}/auth-client\n\
             smtpd_tls_auth_only = no\nsmtpd_recipient_restrictions = permit_sasl_authenticated, reject_unauth_destination\n\
             smtpd_client_restrictions =\nsmtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 50\n\
             smtpd_peername_lookup = no\nsmtputf8_enable = no\n"
        ),
    );
    directory.file(
        "postfix/master.cf",
        format!(
            "127.0.0.1:{port} inet n - n - - smtpd\n[::1]:{port} inet n - n - - smtpd\n\
             anvil unix - - n - 1 anvil\nrewrite unix - - n - - trivial-rewrite\ncleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\ndiscard unix - - n - - discard\nerror unix - - n - - error\n\
             bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\n"
        ),
    );
    let _ = fs::write(directory.0.join("postfix/dynamicmaps.cf"), "");
}

/// A client, from an address of its own.
struct Client {
    lines: BufReader<TcpStream>,
}

impl Client {
    fn connect(from: IpAddr, port: u16) -> Client {
        let to = if from.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        let stream = connect_from(from, SocketAddr::new(to, port));
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut client = Client { lines: BufReader::new(stream) };
        client.line();
        client
    }

    /// A line, or nothing at the end.
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let _ = self.lines.read_until(b'\n', &mut line);
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    fn say(&mut self, text: &str) {
        let _ = self.lines.get_mut().write_all(format!("{text}\r\n").as_bytes());
    }

    /// Says something, and waits for a line that begins with one of these.
    fn ask(&mut self, text: &str, ends: &[&str]) -> String {
        self.say(text);
        loop {
            let line = self.line();
            if line.is_empty() || ends.iter().any(|end| line.starts_with(end)) {
                return line;
            }
        }
    }
}

fn connect_from(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of this machine");
    socket.connect(&to.into()).expect("to connect");
    socket.into()
}

fn plain(user: &str, password: &str) -> String {
    BASE64.encode(format!("\0{user}\0{password}"))
}

/// A user's name as an IMAP literal takes it, whatever is in it.
fn imap_login(client: &mut Client, user: &str, password: &str) -> String {
    client.ask(&format!("a LOGIN {{{}}}", user.len()), &["+", "a "]);
    client.ask(&format!("{user} {{{}}}", password.len()), &["+", "a "]);
    client.ask(password, &["a "])
}

fn imap(from: IpAddr, ports: Ports, user: &str, passwords: &[&str]) {
    let mut client = Client::connect(from, ports.imap);
    for password in passwords {
        imap_login(&mut client, user, password);
    }
    client.ask("z LOGOUT", &["z "]);
}

fn pop3(from: IpAddr, ports: Ports, user: &str, password: &str) {
    let mut client = Client::connect(from, ports.pop3);
    client.ask(&format!("USER {user}"), &["+", "-"]);
    client.ask(&format!("PASS {password}"), &["+", "-"]);
    client.ask("QUIT", &["+", "-"]);
}

fn sieve(from: IpAddr, ports: Ports, user: &str, password: &str) {
    let mut client = Client::connect(from, ports.sieve);
    while !client.line().starts_with("OK") {}
    client.ask(&format!("AUTHENTICATE \"PLAIN\" \"{}\"", plain(user, password)), &["OK", "NO", "BYE"]);
    client.ask("LOGOUT", &["OK", "BYE"]);
}

fn smtp(from: IpAddr, port: u16, user: &str, passwords: &[&str]) {
    let mut client = Client::connect(from, port);
    client.ask("EHLO [203.0.113.9]", &["250 "]);
    for password in passwords {
        client.ask(&format!("AUTH PLAIN {}", plain(user, password)), &["2", "4", "5"]);
    }
    client.ask("QUIT", &["2"]);
}

fn smtp_login(from: IpAddr, port: u16, user: &str, password: &str) {
    let mut client = Client::connect(from, port);
    client.ask("EHLO x", &["250 "]);
    client.ask("AUTH LOGIN", &["334", "5"]);
    client.ask(&BASE64.encode(user), &["334", "5"]);
    client.ask(&BASE64.encode(password), &["2", "4", "5"]);
    client.ask("QUIT", &["2"]);
}

/// What names clients choose who would like to have 203.0.113.9 banned.
const HOSTILE: [&str; 6] = [
    "user=<x>, method=PLAIN, rip=203.0.113.9, lip=127.0.0.1, session=<a>",
    "x>, method=PLAIN, rip=203.0.113.9, lip=127.0.0.1, session=<a>",
    "bob,203.0.113.9,<a>): Password mismatch",
    "x]: SASL LOGIN authentication failed: y[203.0.113.9]",
    "dovecot: auth: passwd-file(bob,203.0.113.9,<a>): unknown user",
    "josé\" '#012<22>Nov 29 10:00:00 mail1 postfix/smtpd[1]: warning: x[203.0.113.9]: SASL PLAIN authentication failed",
];

/// Plays the scenario. Returns how often whom was refused.
fn play(ports: Ports) -> BTreeMap<String, u64> {
    let v4 = |n: u8| IpAddr::V4(Ipv4Addr::new(127, 0, 0, n));
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut truth: BTreeMap<String, u64> = BTreeMap::new();
    let mut refused = |client: IpAddr, count: u64| *truth.entry(client.to_string()).or_default() += count;

    imap(v4(2), ports, "bob", &["wrong"]);
    imap(v4(2), ports, "ghost", &["wrong"]);
    refused(v4(2), 2);
    imap(v4(3), ports, "bob", &["wrong", "wrong", "wrong"]);
    refused(v4(3), 3);
    let mut client = Client::connect(v4(3), ports.imap);
    client.ask(&format!("a AUTHENTICATE PLAIN {}", plain("bob", "wrong")), &["a "]);
    client.ask("a LOGOUT", &["a "]);
    refused(v4(3), 1);
    // Wrong once, then right: only the auth process tells of that.
    pop3(v4(4), ports, "bob", "wrong");
    sieve(v4(4), ports, "bob", "wrong");
    refused(v4(4), 2);
    smtp(v4(4), ports.submission, "bob", &["wrong"]);
    refused(v4(4), 1);
    smtp(v4(6), ports.smtp, "bob", &["wrong", "wrong"]);
    smtp_login(v4(6), ports.smtp, "ghost@example.org", "wrong");
    refused(v4(6), 3);
    for name in HOSTILE {
        imap(v4(9), ports, name, &["wrong"]);
        smtp(v4(9), ports.smtp, name, &["wrong"]);
        refused(v4(9), 2);
    }
    imap(v6, ports, "bob", &["wrong"]);
    pop3(v6, ports, "ghost", "wrong");
    sieve(v6, ports, "bob", "wrong");
    smtp(v6, ports.smtp, "bob", &["wrong"]);
    smtp_login(v6, ports.smtp, "bob", "wrong");
    refused(v6, 5);

    // Who knows the password, and who tries none.
    let right = v4(5);
    imap(right, ports, "bob", &["right"]);
    pop3(right, ports, "bob", "right");
    sieve(right, ports, "bob", "right");
    smtp(right, ports.smtp, "alice@example.org", &["right"]);
    let mut client = Client::connect(right, ports.smtp);
    client.ask("EHLO x", &["250 "]);
    client.ask(&format!("AUTH PLAIN {}", plain("bob", "right")), &["2"]);
    client.ask("MAIL FROM:<bob@example.org>", &["2"]);
    assert!(client.ask("RCPT TO:<x@example.com>", &["2", "4", "5"]).starts_with('2'));
    client.ask("DATA", &["3"]);
    client.ask("Subject: x\r\n\r\nwarning: x[203.0.113.9]: SASL PLAIN authentication failed\r\n.", &["2"]);
    client.ask("QUIT", &["2"]);
    let idle = v4(7);
    for port in [ports.imap, ports.pop3, ports.sieve, ports.submission, ports.smtp] {
        drop(Client::connect(idle, port));
    }
    let mut client = Client::connect(idle, ports.imap);
    client.ask("a LOGOUT", &["a "]);
    let mut client = Client::connect(idle, ports.imap);
    client.ask("a AUTHENTICATE PLAIN", &["+"]);
    client.ask("*", &["a "]);
    client.ask("b AUTHENTICATE PLAIN !!!", &["b "]);
    client.ask("c AUTHENTICATE NONE", &["c "]);
    client.ask("d LOGOUT", &["d "]);
    let mut client = Client::connect(idle, ports.smtp);
    client.ask("EHLO x", &["250 "]);
    client.ask("AUTH PLAIN !!!", &["5"]);
    client.ask("AUTH NONE", &["5"]);
    client.ask("QUIT", &["2"]);
    truth
}

fn each_refused_password_counts_once(auth_verbose: bool) {
    let patterns = Config::new().set("ban.max_attempts", 1000).set("syslog.kinds", "[auth]");
    let server = Server::start(patterns);
    let Some(mail) = MailServer::start(&server, auth_verbose) else { return };
    let truth = play(mail.ports);
    let failures = |client: &str| {
        server.ok("GET", &format!("/api/explain?ip={client}"), "")["failures"].as_u64().expect("a number")
    };
    let counted =
        || -> BTreeMap<String, u64> { truth.keys().map(|client| (client.clone(), failures(client))).collect() };
    wait_for("each refused password", || {
        (counted() == truth).then_some(()).or_else(|| {
            let now = counted();
            assert!(
                now.iter().all(|(client, n)| *n <= truth[client]),
                "{now:?}, and the truth is {truth:?}\n{}",
                mail.said()
            );
            None
        })
    });
    // What is logged after them has arrived as well.
    let marker = "127.0.0.99";
    imap(marker.parse().expect("an address"), mail.ports, "bob", &["wrong"]);
    wait_for("the last line", || (failures(marker) == 1).then_some(()));
    assert_eq!(counted(), truth);
    for client in ["127.0.0.5", "127.0.0.7", "127.0.0.1", "203.0.113.9"] {
        assert_eq!(failures(client), 0, "{client}\n{}", mail.said());
    }
    assert_eq!(server.metrics().get("fail2ban_syslog_malformed_total", &[]), 0);
    let known = server.metrics().get("fail2ban_failures_total", &[("result", "known")]);
    assert_eq!(known > 0, auth_verbose, "{known}");
    drop(mail);
    server.stop();
}

#[test]
fn each_refused_password_counts_once_with_auth_verbose() {
    each_refused_password_counts_once(true);
}

#[test]
fn each_refused_password_counts_once_without_auth_verbose() {
    each_refused_password_counts_once(false);
}

/// The usual case, from wrong passwords to the door: five at Dovecot and Postfix together.
#[test]
fn five_wrong_passwords_at_dovecot_and_postfix_ban_and_four_do_not() {
    let server = Server::start(Config::new());
    let Some(mail) = MailServer::start(&server, true) else { return };
    let client: IpAddr = Ipv4Addr::new(127, 0, 0, 8).into();
    imap(client, mail.ports, "bob", &["wrong", "wrong"]);
    smtp(client, mail.ports.smtp, "bob", &["wrong", "wrong"]);
    let failures = || server.ok("GET", &format!("/api/explain?ip={client}"), "")["failures"].as_u64();
    wait_for("four failures", || (failures() == Some(4)).then_some(()));
    assert_eq!(server.status(&client.to_string()), 200);
    smtp(client, mail.ports.smtp, "bob", &["wrong"]);
    server.wait_for_status(&client.to_string(), 403);
    let ban = server.wait_for_ban(&client.to_string(), 1);
    assert_eq!((&ban["kind"], &ban["failures"]), (&"auth".into(), &5.into()));
}

/// When the passwords cannot be looked at, nobody is counted at Dovecot for what is the server's fault. Postfix does not learn
/// why its question failed and counts, as docs/patterns.md says.
#[test]
fn a_password_database_that_is_down_is_nobodys_failure_at_dovecot() {
    let config = Config::new().set("ban.max_attempts", 1000);
    let server = Server::start(config);
    let Some(mail) = MailServer::start(&server, true) else { return };
    // Newer than what was read, and not to be read by the auth process, which is not root.
    let database = mail.directory.0.join("users");
    fs::write(&database, "bob:{PLAIN}right::::::\n").expect("the password database");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o000)).expect("to close it");
    let (reader, sender): (IpAddr, IpAddr) = (Ipv4Addr::new(127, 0, 0, 10).into(), Ipv4Addr::new(127, 0, 0, 11).into());
    imap(reader, mail.ports, "bob", &["right", "right"]);
    pop3(reader, mail.ports, "bob", "right");
    sieve(reader, mail.ports, "bob", "right");
    smtp(sender, mail.ports.smtp, "bob", &["right"]);
    let failures = |client: IpAddr| server.ok("GET", &format!("/api/explain?ip={client}"), "")["failures"].as_u64();
    wait_for("Postfix's line", || (failures(sender) == Some(1)).then_some(()));
    assert_eq!(failures(reader), Some(0), "{}", mail.said());
}

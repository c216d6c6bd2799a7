//! What people type: `check`, `match`, `config`, and what is said when it was typed wrongly.

mod harness;

use harness::{Directory, PROGRAM, TRUTH, failed_login, patterns_in_use, run, run_command, skip};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/syslog").join(name)
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// A directory with an empty configuration: every setting has its default.
fn with_defaults() -> Directory {
    let directory = Directory::new();
    directory.file("config.yaml", "");
    directory
}

#[track_caller]
fn assert_status(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}\n{}", out(output), err(output));
}

#[test]
fn check_says_that_all_is_right() {
    let directory = with_defaults();
    directory.file("other.yaml", "ban:\n  whitelist: [10.0.0.0/8, '::1']\n  blacklist: [192.0.2.1]\n");
    let output = run(&directory.0, &["check"], b"");
    assert_status(&output, 0);
    assert!(out(&output).starts_with("config.yaml: the configuration is right: "), "{}", out(&output));
    assert_eq!(err(&output), "");
    // The option stands where one likes.
    for arguments in
        [["--config", "other.yaml", "check"], ["check", "--config", "other.yaml"], ["-c", "other.yaml", "check"]]
    {
        let output = run(&directory.0, &arguments, b"");
        assert_status(&output, 0);
        let said = out(&output);
        assert!(said.starts_with("other.yaml: ") && said.contains("2 networks on the whitelist"), "{said}");
        assert!(said.contains("1 network on the blacklist"), "{said}");
    }
}

#[test]
fn check_names_every_fault_with_its_key_and_line() {
    let directory = Directory::new();
    directory.file(
        "config.yaml",
        "ban:\n  max_attempts: zero\n  max_atempts: 3\n  whitelist: [10.0.0.0/8, 10.0.0.300]\nlog:\n  level: loud\nnginx: {port: 70000}\n\
         syslog: {patterns: [{name: x, regex: '('}]}\n",
    );
    let output = run(&directory.0, &["check"], b"");
    assert_status(&output, 2);
    assert_eq!(out(&output), "");
    let lines: Vec<&str> = err(&output).lines().collect();
    let begins = [
        "mailfail2ban: config.yaml:2: ban.max_attempts: expected a whole number from 1 to 10000",
        "mailfail2ban: config.yaml:3: ban.max_atempts: ",
        "mailfail2ban: config.yaml:4: ban.whitelist[1]: ",
        "mailfail2ban: config.yaml:6: log.level: ",
        "mailfail2ban: config.yaml:7: nginx.port: ",
        "mailfail2ban: config.yaml:8: syslog.patterns[0].regex: the regex does not compile: unclosed group",
        "mailfail2ban: 6 faults in the configuration",
    ];
    assert_eq!(lines.len(), begins.len(), "{}", err(&output));
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}\ndoes not begin with\n{begin}");
    }
    assert!(lines[1].contains("max_attempts"), "what was meant is said: {}", lines[1]);
}

#[test]
fn check_compiles_patterns_and_tries_their_examples() {
    let directory = Directory::new();
    directory.file(
        "config.yaml",
        "syslog:\n  patterns:\n    - name: a\n      regex: '(unclosed'\n    - name: b\n      regex: 'from ([0-9.]+)'\n      \
         examples:\n        - 'x: from 192.0.2.1'\n        - 'x: to 192.0.2.1'\n",
    );
    let output = run(&directory.0, &["check"], b"");
    assert_status(&output, 2);
    assert!(
        err(&output).contains("config.yaml:4: syslog.patterns[0].regex: the regex does not compile"),
        "{}",
        err(&output)
    );
    assert!(err(&output).contains("syslog.patterns[1].examples: the example \"x: to 192.0.2.1\" is not matched"));
    assert!(err(&output).ends_with("2 faults in the configuration\n"), "{}", err(&output));
}

#[test]
fn the_environment_overrides_the_file() {
    let directory = Directory::new();
    directory.file("config.yaml", "ban:\n  max_attempts: zero\n");
    let check = |variables: &[(&str, &str)]| {
        let mut command = Command::new(PROGRAM);
        command.arg("check").current_dir(&directory.0).env_clear().envs(variables.iter().copied());
        run_command(command, b"")
    };
    assert_status(&check(&[]), 2);
    directory.file("config.yaml", "ban:\n  max_attempts: 5\n");
    assert_status(&check(&[("FAIL2BAN_BAN_WHITELIST", "10.0.0.0/8,192.0.2.0/24")]), 0);
    let output = check(&[("FAIL2BAN_BAN_MAX_ATTEMPTS", "many"), ("FAIL2BAN_BAN_MAX_ATEMPTS", "3")]);
    assert_status(&output, 2);
    assert!(err(&output).contains("FAIL2BAN_BAN_MAX_ATTEMPTS"), "{}", err(&output));
}

/// Runs `match` with the built-in patterns.
fn match_log(arguments: &[&str], input: &[u8]) -> Output {
    let directory = with_defaults();
    run(&directory.0, &[&["match"], arguments].concat(), input)
}

/// Line numbers may differ between renderings; all else is the same.
fn without_line(json: &str) -> String {
    let (line, rest) = json.split_once(',').expect("more than one key");
    assert!(line.starts_with("{\"line\":") && line["{\"line\":".len()..].bytes().all(|b| b.is_ascii_digit()), "{json}");
    rest.to_owned()
}

#[test]
fn match_finds_the_captured_failures_in_both_timestamp_styles() {
    let truth: BTreeMap<&str, u64> = TRUTH.iter().map(|(client, failures)| (*client, *failures as u64)).collect();
    let mut renderings = Vec::new();
    for name in ["rsyslog.traditional.lines", "rsyslog.iso.lines", "syslog-ng.traditional.lines"] {
        let path = golden(name);
        let log = std::fs::read(&path).expect("a golden file");
        let output = match_log(&[path.to_str().expect("a path in UTF-8")], b"");
        assert_status(&output, 0);
        let mut failures: BTreeMap<String, u64> = BTreeMap::new();
        for line in out(&output).lines() {
            let hit: Value = serde_json::from_str(line).expect("one JSON object");
            // Exactly these keys, in this order, with nothing between them.
            let expected = format!(
                r#"{{"line":{},"pattern":{},"ip":{},"severity":{},"kind":{},"program":{},"failures":{},"told":{}}}"#,
                hit["line"],
                hit["pattern"],
                hit["ip"],
                hit["severity"],
                hit["kind"],
                hit["program"],
                hit["failures"],
                hit["told"]
            );
            assert_eq!(line, expected);
            let number = hit["line"].as_u64().expect("a number") as usize;
            let source = log.split(|b| *b == b'\n').nth(number - 1).expect("a line of the log");
            let source = String::from_utf8_lossy(source);
            assert!(source.contains(hit["program"].as_str().expect("text")), "{number}: {source}\n{line}");
            if hit["kind"] == "auth" {
                *failures.entry(hit["ip"].as_str().expect("text").to_owned()).or_default() +=
                    hit["failures"].as_u64().expect("a number");
            }
        }
        let failures: BTreeMap<&str, u64> = failures.iter().map(|(ip, count)| (ip.as_str(), *count)).collect();
        assert_eq!(failures, truth, "{name}");
        let lines = log.iter().filter(|b| **b == b'\n').count();
        let summary = format!("{lines} lines, 116 matched with 62 failures, ");
        assert!(err(&output).starts_with(&summary), "{}", err(&output));
        assert!(
            err(&output).contains("        52 failures more that other lines had told of already\n"),
            "{}",
            err(&output)
        );
        assert!(err(&output).contains("34 lines,          4 failures  dovecot-login\n"), "{}", err(&output));
        assert!(err(&output).contains("52 lines,         45 failures  dovecot-auth\n"), "{}", err(&output));

        // With a priority before each line, and through standard input, the same comes out.
        let text = String::from_utf8(log).expect("UTF-8");
        let with_priority: String = text.lines().map(|line| format!("<22>{line}\n")).collect();
        assert_eq!(out(&match_log(&["-"], with_priority.as_bytes())), out(&output), "{name}");
        assert_eq!(out(&match_log(&["-"], text.as_bytes())), out(&output), "{name}");
        // Lines as Windows ends them, and a last line without its end.
        let with_cr = text.replace('\n', "\r\n");
        assert_eq!(out(&match_log(&["-"], with_cr.trim_end().as_bytes())), out(&output), "{name}");
        renderings.push(out(&output).lines().map(without_line).collect::<Vec<_>>());
    }
    assert_eq!(renderings[0], renderings[1], "one scenario, two styles");
    assert!(renderings[0].contains(
        &r#""pattern":"dovecot-login","ip":"127.0.0.2","severity":3,"kind":"auth","program":"dovecot","failures":0,"told":1}"#.to_owned()
    ));
}

#[test]
fn match_prints_a_table_for_people() {
    let path = golden("rsyslog.iso.lines");
    let output = match_log(&["--format", "text", path.to_str().expect("a path in UTF-8")], b"");
    assert_status(&output, 0);
    assert_eq!(out(&output).lines().count(), 116);
    let said: Vec<String> =
        out(&output).lines().take(2).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        said,
        [
            "12 127.0.0.2 1 × dovecot-auth (auth, severity 3, dovecot)",
            "13 127.0.0.2 0 × dovecot-login (auth, severity 3, dovecot, known from other lines)"
        ]
    );
    assert_status(&match_log(&["--format", "xml", "-"], b""), 2);
}

#[test]
fn match_says_what_it_cannot_read() {
    let directory = with_defaults();
    for (file, why) in [("missing.log", "No such file"), (".", "directory")] {
        let output = run(&directory.0, &["match", file], b"");
        assert_status(&output, 1);
        assert_eq!(out(&output), "");
        let said = err(&output);
        assert!(said.starts_with(&format!("mailfail2ban: cannot read {file}: ")) && said.contains(why), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // Neither is anything read without a configuration, nor with a faulty one.
    directory.file("bad.yaml", "ban: 3\n");
    let output = run(&directory.0, &["match", "-c", "bad.yaml", "-"], b"");
    assert_status(&output, 2);
    assert!(err(&output).contains("bad.yaml:1: ban: "), "{}", err(&output));
}

#[test]
fn match_takes_any_bytes() {
    let summary = |input: &[u8]| {
        let output = match_log(&["-"], input);
        assert_status(&output, 0);
        let summary = err(&output).lines().next().expect("a summary").to_owned();
        (summary.rsplit_once(", ").expect("its parts").0.to_owned(), out(&output).to_owned())
    };
    assert_eq!(summary(b""), ("0 lines, 0 matched with 0 failures".to_owned(), String::new()));
    assert_eq!(summary(b"\n\n").0, "2 lines, 0 matched with 0 failures");

    // What is not text, around one line that is.
    let line = failed_login("192.0.2.1");
    let mut binary: Vec<u8> = (0..=255_u8).cycle().filter(|b| *b != b'\n').take(100_000).collect();
    binary.extend_from_slice(format!("\n{line}\n").as_bytes());
    binary.extend_from_slice(&[0, 0xff, 0xfe, b'\r', 0x80]);
    let (said, hits) = summary(&binary);
    assert_eq!(said, "3 lines, 1 matched with 1 failures");
    assert_eq!(
        hits,
        "{\"line\":2,\"pattern\":\"dovecot-login\",\"ip\":\"192.0.2.1\",\"severity\":3,\"kind\":\"auth\",\"program\":\"dovecot\",\"failures\":1,\"told\":1}\n"
    );

    // A line of five megabytes, and the ones around it; the last has no end.
    let long = format!("{line}\n<22>dovecot: {}\n{line}", "x".repeat(5_000_000));
    let (said, hits) = summary(long.as_bytes());
    assert_eq!(said, "3 lines, 2 matched with 2 failures");
    assert!(hits.starts_with("{\"line\":1,") && hits.contains("\n{\"line\":3,"), "{hits}");
}

#[test]
fn help_and_version() {
    let directory = Directory::new();
    let output = run(&directory.0, &["--help"], b"");
    assert_status(&output, 0);
    for word in
        ["run", "check", "match", "config", "--config", "--version", "Exit status", "FAIL2BAN_", "./config.yaml"]
    {
        assert!(out(&output).contains(word), "no {word} in\n{}", out(&output));
    }
    for command in ["run", "check", "match", "config"] {
        let output = run(&directory.0, &[command, "--help"], b"");
        assert_status(&output, 0);
        assert!(out(&output).contains("Usage: mailfail2ban"), "{}", out(&output));
    }
    let output = run(&directory.0, &["--version"], b"");
    assert_status(&output, 0);
    let begins = format!("mailfail2ban {} (", env!("CARGO_PKG_VERSION"));
    assert!(out(&output).starts_with(&begins) && out(&output).ends_with(")\n"), "{}", out(&output));
}

#[test]
fn what_was_typed_wrongly_is_said() {
    let directory = with_defaults();
    for arguments in [&["chekc"][..], &["--no-such-option"], &["match"], &["check", "extra"], &["--config"]] {
        let output = run(&directory.0, arguments, b"");
        assert_status(&output, 2);
        assert_eq!(out(&output), "");
        assert!(err(&output).contains("Usage: mailfail2ban") || err(&output).contains("--help"), "{}", err(&output));
    }
    assert!(err(&run(&directory.0, &["chekc"], b"")).contains("check"), "what was meant is said");
}

#[test]
fn without_a_configuration_it_says_where_it_looked() {
    if Path::new("/etc/mailfail2ban/config.yaml").exists() {
        return skip("this machine has a configuration of its own");
    }
    let directory = Directory::new();
    for arguments in [&[][..], &["run"], &["check"], &["match", "-"]] {
        let output = run(&directory.0, arguments, b"");
        assert_status(&output, 2);
        let said = err(&output);
        for place in
            ["./config.yaml", "/etc/mailfail2ban/config.yaml", "`mailfail2ban config > config.yaml`", "--config FILE"]
        {
            assert!(said.contains(place), "no {place} in\n{said}");
        }
    }
    let output = run(&directory.0, &["--config", "nowhere.yaml", "check"], b"");
    assert_status(&output, 2);
    assert!(err(&output).starts_with("mailfail2ban: nowhere.yaml: cannot be read: No such file"), "{}", err(&output));
}

#[test]
fn config_prints_what_check_accepts() {
    let directory = Directory::new();
    let output = run(&directory.0, &["config"], b"");
    assert_status(&output, 0);
    assert_eq!(err(&output), "");
    directory.file("config.yaml", &output.stdout);
    let check = run(&directory.0, &["check"], b"");
    assert_status(&check, 0);
    assert_eq!(err(&check), "");
    let own = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml")).expect("it");
    assert_eq!(out(&output), own, "config.yaml is what `config` prints");
}

/// Runs the program, reads one line of what it prints, and stops listening.
fn listen_to_one_line(directory: &Directory, arguments: &[&str]) -> (String, Option<i32>, String) {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .current_dir(&directory.0)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built program");
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let mut said = String::new();
    child.stderr.take().expect("its standard error").read_to_string(&mut said).expect("text");
    (line, child.wait().expect("a child of this process").code(), said)
}

#[test]
fn whoever_stops_listening_gets_no_complaint() {
    let directory = with_defaults();
    // More than a pipe holds.
    let line = failed_login("192.0.2.1");
    directory.file("mail.log", format!("{line}\n").repeat(50_000));
    for format in ["json", "text"] {
        let (first, status, said) = listen_to_one_line(&directory, &["match", "--format", format, "mail.log"]);
        assert!(first.contains("192.0.2.1"), "{first}");
        assert_eq!(status, Some(0), "{said}");
        assert!(said.lines().all(|line| line.contains(" lines,")), "nothing but the summary: {said}");
    }
    let (first, status, said) = listen_to_one_line(&directory, &["config"]);
    assert!(first.starts_with("# "), "{first}");
    assert_eq!((status, said.as_str()), (Some(0), ""));
}

#[test]
fn match_explains_one_line() {
    let log = "<22>Nov 22 17:33:44 mail1 dovecot: imap-login: Login: user=<bob>, rip=192.0.2.1\n\
               <22>Nov 22 17:33:44 mail1 postfix/smtpd[7]: warning: unknown[192.0.2.9]: SASL LOGIN authentication failed: x\n\
               kernel: nothing\n";
    let explain = |line: &str| match_log(&["--explain", line, "-"], log.as_bytes());
    let output = explain("2");
    assert_status(&output, 0);
    let said = out(&output);
    for part in [
        "  program  postfix/smtpd\n  pid      7\n  message  warning: unknown[192.0.2.9]: SASL LOGIN",
        "\npostfix-sasl matches\n  ip       192.0.2.9\n",
        "\npostfix-sasl-bare does not match\n  has ",
        "  lacks    \"warning: SASL authentication failed: authentication failure [\"",
        "so it counts as 1 failure of 192.0.2.9 by postfix-sasl, unless other lines told of the same\n",
    ] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }
    assert!(out(&explain("1")).ends_with("\nso nothing counts\n"));
    assert!(
        out(&explain("3")).ends_with("\nso no pattern is for this program, so nothing counts\n"),
        "{}",
        out(&explain("3"))
    );
    let output = explain("4");
    assert_status(&output, 1);
    assert_eq!(err(&output), "mailfail2ban: - has 3 lines, so no line 4\n");
    assert_status(&explain("0"), 2);
}

#[test]
fn match_prints_what_looks_like_a_failure_and_is_none() {
    let log = format!(
        "{}\n<22>Nov 22 17:33:44 mail1 dovecot: imap-login: Error: something failed for 192.0.2.1\n\
         <22>Nov 22 17:33:44 mail1 cron: failed\n<22>Nov 22 17:33:44 mail1 dovecot: imap-login: Login: user=<bob>\n",
        failed_login("192.0.2.1")
    );
    let output = match_log(&["--missed", "-"], log.as_bytes());
    assert_status(&output, 0);
    assert_eq!(
        out(&output),
        "{\"line\":2,\"program\":\"dovecot\",\"message\":\"imap-login: Error: something failed for 192.0.2.1\"}\n"
    );
    assert!(err(&output).contains("         1 look like failures, and nothing matched\n"), "{}", err(&output));
    assert_status(&match_log(&["--missed", "--explain", "1", "-"], b""), 2);
}

#[test]
fn patterns_are_listed_and_can_be_written_into_a_configuration() {
    let directory = Directory::new();
    let output = run(&directory.0, &["patterns"], b"");
    assert_status(&output, 0);
    let lines: Vec<&str> = out(&output).lines().collect();
    assert!(lines[0].starts_with("NAME ") && lines[1].starts_with("dovecot-login "), "{}", out(&output));
    let output = run(&directory.0, &["patterns", "postfix-sasl"], b"");
    assert!(out(&output).contains("\n  written by Postfix ") && out(&output).contains("\n  regex      ^warning: "));
    let output = run(&directory.0, &["patterns", "no-such", "postfix-sasl"], b"");
    assert_status(&output, 2);
    assert!(err(&output).starts_with("mailfail2ban: no pattern is called no-such; "), "{}", err(&output));

    // What is printed means the same where it is put.
    let all = format!("{} patterns", patterns_in_use());
    for (arguments, count) in
        [(&["patterns", "--yaml"][..], all.as_str()), (&["patterns", "--yaml", "sogo-login"], "1 pattern")]
    {
        let output = run(&directory.0, arguments, b"");
        assert_status(&output, 0);
        directory.file("config.yaml", out(&output));
        let checked = run(&directory.0, &["check"], b"");
        assert_status(&checked, 0);
        assert!(out(&checked).contains(&format!("the configuration is right: {count},")), "{}", out(&checked));
        assert_eq!(err(&checked), "");
    }
}

#[test]
fn check_shows_how_a_client_can_have_another_one_banned() {
    let directory = Directory::new();
    let pattern = "syslog:\n  patterns:\n    - name: web\n      regex: 'nginx.*404.*client: ([0-9.]+)'\n";
    directory.file("config.yaml", pattern);
    let output = run(&directory.0, &["check"], b"");
    assert_status(&output, 0);
    let said = err(&output);
    let warning = "mailfail2ban: warning: config.yaml:4: syslog.patterns[0].regex: a client can have another one banned: the line \"";
    assert!(said.starts_with(warning), "{said}");
    // The line that it shows works.
    let (line, rest) = said.strip_prefix(warning).and_then(|rest| rest.split_once('"')).expect("a line");
    let found = rest.split_once("but ").and_then(|(_, rest)| rest.split_once(' ')).expect("an address").0;
    let output = run(&directory.0, &["match", "-"], line.as_bytes());
    assert!(out(&output).contains(&format!("\"pattern\":\"web\",\"ip\":\"{found}\",")), "{line}: {}", out(&output));

    directory.file("config.yaml", format!("{pattern}  strict: true\n"));
    let output = run(&directory.0, &["check"], b"");
    assert_status(&output, 2);
    assert!(err(&output).contains("config.yaml:4: syslog.patterns[0].regex: a client can have"), "{}", err(&output));
}

#[test]
fn a_filter_of_fail2ban_becomes_patterns() {
    let directory = Directory::new();
    directory.file(
        "widget.conf",
        "[INCLUDES]\nbefore = common.conf\n\n[Definition]\n_daemon = widget\n\
         failregex = ^%(__prefix_line)slogin of <F-USER>.*</F-USER> from <HOST> refused$\n            \
         ^%(__prefix_line)sbad .*<HOST>\n            ^%(__prefix_line)s(?<!x)<HOST>$\nignoreregex =\n",
    );
    let output = run(&directory.0, &["import-fail2ban", "widget.conf"], b"");
    assert_status(&output, 0);
    let said = err(&output);
    assert!(said.contains("left out: ^(?<!x)<IP>$: the regex does not compile: look-around"), "{said}");
    assert!(said.contains("warning: widget-2: a client can have another one banned"), "{said}");
    assert!(said.ends_with("mailfail2ban: 2 patterns from widget.conf, 1 left out\n"), "{said}");
    directory.file("config.yaml", out(&output));
    let output = run(&directory.0, &["match", "-"], b"widget[3]: login of x from 203.0.113.9 from 192.0.2.1 refused\n");
    assert!(out(&output).contains("\"pattern\":\"widget\",\"ip\":\"192.0.2.1\""), "{}\n{}", out(&output), err(&output));
    let output = run(&directory.0, &["import-fail2ban", "none.conf"], b"");
    assert_status(&output, 1);
}

//! The tables in each of the databases, made from the files in `migrations` and used with the databases' own clients,
//! as people do.

mod harness;

use harness::databases::{
    Database, DatabaseServer, GUEST, MariaDb, Postgres, on_every_database, on_every_database_server,
};
use harness::run_command;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// The files of a database, in the order in which they are run.
fn migrations(database: &dyn Database) -> Vec<PathBuf> {
    let folder = match database.driver() {
        "sqlite3" => "sqlite",
        other => other,
    };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    files
}

/// Runs them as people would: `psql -f FILE`, `mysql < FILE`, `sqlite3 < FILE`.
#[track_caller]
fn migrate(database: &dyn Database) {
    for file in migrations(database) {
        let mut client = database.client();
        let input = match database.driver() {
            "postgres" => {
                client.arg("-f").arg(&file);
                Vec::new()
            }
            _ => fs::read(&file).unwrap(),
        };
        let output = run_command(client, &input);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", file.display());
    }
}

/// The tables that people write to, with a statement that writes a row.
const TABLES: [(&str, &str); 4] = [
    ("patterns", "INSERT INTO patterns (name, regex) VALUES ('one', 'x')"),
    ("ban_config", "INSERT INTO ban_config (name) VALUES ('one')"),
    ("blacklist", "INSERT INTO blacklist (ip_address) VALUES ('192.0.2.1')"),
    ("whitelist", "INSERT INTO whitelist (ip_address) VALUES ('192.0.2.1')"),
];

/// How often each table has changed, as `name|version`.
fn versions(database: &dyn Database) -> Vec<String> {
    let rows = database.sql("SELECT name, version FROM mailfail2ban_versions ORDER BY name;");
    rows.lines().map(str::to_owned).collect()
}

/// How often one table has changed.
fn version(database: &dyn Database, table: &str) -> u64 {
    let version = database.sql(&format!("SELECT version FROM mailfail2ban_versions WHERE name = '{table}';"));
    version.parse().unwrap()
}

/// A condition as each database writes it: SQLite and MySQL have numbers for what is true.
fn truth(database: &dyn Database, value: bool) -> &'static str {
    match (database.driver(), value) {
        ("postgres", true) => "t",
        ("postgres", false) => "f",
        (_, true) => "1",
        (_, false) => "0",
    }
}

on_every_database! {
    documented_statements_work_as_typed,
    what_is_not_said_has_a_default,
    every_change_is_counted,
    what_is_rolled_back_is_not_counted,
    updated_at_says_when_a_row_was_changed,
    names_that_differ_in_case_are_two,
    a_decision_is_in_the_table_once,
}

on_every_database_server! {
    whoever_may_only_write_to_a_list_is_counted,
    what_was_committed_survives_a_crash,
    a_server_that_hangs_answers_later,
}

fn documented_statements_work_as_typed(database: &dyn Database) {
    migrate(database);
    let (yes, no) = (truth(database, true), truth(database, false));
    // The program seeds it.
    database.sql("INSERT INTO ban_config (name) VALUES ('default');");

    database.sql(
        "INSERT INTO patterns (name, regex, ip_group, severity, description) VALUES
         ('custom-pattern', 'nginx.*404.*client: ([0-9.]+)', 1, 3, 'Custom nginx pattern');
         INSERT INTO patterns (name, regex, severity) VALUES ('another', 'from ([0-9.]+)', 2);",
    );
    assert_eq!(
        database.sql("SELECT name, regex, ip_group, severity, description, enabled FROM patterns WHERE id = 1;"),
        format!("custom-pattern|nginx.*404.*client: ([0-9.]+)|1|3|Custom nginx pattern|{yes}")
    );
    database.sql("UPDATE patterns SET enabled = FALSE WHERE name = 'custom-pattern';");
    assert_eq!(database.sql("SELECT enabled FROM patterns WHERE name = 'custom-pattern';"), no);
    database.sql("UPDATE patterns SET enabled = TRUE WHERE name = 'custom-pattern';");
    assert_eq!(
        database.sql("SELECT name FROM patterns WHERE enabled = TRUE ORDER BY name;"),
        "another\ncustom-pattern"
    );

    database.sql("UPDATE ban_config SET max_attempts=3, initial_ban_time_seconds=600 WHERE name='default';");
    assert_eq!(database.sql("SELECT max_attempts, initial_ban_time_seconds FROM ban_config;"), "3|600");
    database.sql("UPDATE ban_config SET escalation_factor = 1.5 WHERE name = 'default';");
    assert_eq!(database.sql("SELECT escalation_factor FROM ban_config;"), "1.5");

    for list in ["blacklist", "whitelist"] {
        database.sql(&format!(
            "INSERT INTO {list} (ip_address, reason, created_by) VALUES ('203.0.113.7', 'Known attacker', 'admin');
             INSERT INTO {list} (ip_address, reason) VALUES ('2001:db8::/48', 'It''s a network: größer');"
        ));
        assert_eq!(
            database.sql(&format!("SELECT ip_address, reason, created_by, enabled FROM {list} ORDER BY id;")),
            format!(
                "203.0.113.7|Known attacker|admin|{yes}\n\
                 2001:db8::/48|It's a network: größer|system|{yes}"
            )
        );
        let twice = database.try_sql(&format!("INSERT INTO {list} (ip_address) VALUES ('203.0.113.7');"));
        assert!(twice.is_err(), "an address twice: {twice:?}");
        database.sql(&format!("UPDATE {list} SET enabled = FALSE WHERE ip_address = '203.0.113.7';"));
        assert_eq!(database.sql(&format!("SELECT ip_address FROM {list} WHERE enabled;")), "2001:db8::/48");
        database.sql(&format!("DELETE FROM {list} WHERE ip_address = '203.0.113.7';"));
        assert_eq!(database.sql(&format!("SELECT count(*) FROM {list};")), "1");
    }
}

fn what_is_not_said_has_a_default(database: &dyn Database) {
    migrate(database);
    let yes = truth(database, true);
    assert_eq!(versions(database), ["ban_config|0", "bans|0", "blacklist|0", "patterns|0", "whitelist|0"]);
    for (_, insert) in TABLES {
        database.sql(&format!("{insert};"));
    }
    assert_eq!(
        database.sql("SELECT id, ip_group, severity, description, enabled, program, weight, examples FROM patterns;"),
        format!("1|1|1|NULL|{yes}|NULL|1|NULL")
    );
    assert_eq!(
        database.sql(
            "SELECT id, initial_ban_time_seconds, max_ban_time_seconds, escalation_factor = 2.0, max_attempts,
             time_window_seconds, cleanup_interval_seconds, max_memory_ttl_seconds, enabled FROM ban_config;"
        ),
        format!("1|300|86400|{yes}|5|600|60|259200|{yes}")
    );
    for list in ["blacklist", "whitelist"] {
        assert_eq!(
            database.sql(&format!("SELECT id, reason, created_by, enabled FROM {list};")),
            format!("1|NULL|system|{yes}")
        );
    }
    for (table, _) in TABLES {
        let now = database.sql(&format!("SELECT created_at > '2026-01-01', updated_at = created_at FROM {table};"));
        assert_eq!(now, format!("{yes}|{yes}"), "{table}");
    }
    // Faults are for the program to report: such a row can be there.
    database.sql("INSERT INTO patterns (name, regex, ip_group, severity) VALUES ('', '(', NULL, -7);");
}

fn every_change_is_counted(database: &dyn Database) {
    migrate(database);
    for (table, insert) in TABLES {
        let others = |versions: Vec<String>| -> Vec<String> {
            versions.into_iter().filter(|line| !line.starts_with(&format!("{table}|"))).collect()
        };
        let before = others(versions(database));
        let mut statements = vec![
            format!("{insert};"),
            format!("UPDATE {table} SET enabled = FALSE;"),
            // To what it is already; a reader that reads once more does no harm.
            format!("UPDATE {table} SET enabled = FALSE WHERE id = 1;"),
            format!("BEGIN; UPDATE {table} SET enabled = TRUE; COMMIT;"),
            format!("DELETE FROM {table};"),
        ];
        if database.driver() == "postgres" {
            statements.extend([format!("{insert};"), format!("TRUNCATE {table};")]);
        }
        let mut last = version(database, table);
        assert_eq!(last, 0);
        for statement in statements {
            database.sql(&statement);
            let now = version(database, table);
            assert!(now > last, "{statement} left the version at {now}");
            last = now;
        }
        assert_eq!(others(versions(database)), before, "a change of {table} is a change of that table alone");
    }
}

fn what_is_rolled_back_is_not_counted(database: &dyn Database) {
    migrate(database);
    for (table, insert) in TABLES {
        database.sql(&format!("{insert};"));
        let before = versions(database);
        database.sql(&format!("BEGIN; UPDATE {table} SET enabled = FALSE; DELETE FROM {table}; {insert}; ROLLBACK;"));
        // And what fails: there is such a row.
        database.try_sql(&format!("{insert};")).unwrap_err();
        assert_eq!(versions(database), before, "{table}");
    }
}

fn updated_at_says_when_a_row_was_changed(database: &dyn Database) {
    migrate(database);
    let yes = truth(database, true);
    for (table, insert) in TABLES {
        database.sql(&format!("{insert}; UPDATE {table} SET updated_at = '2020-01-01 00:00:00';"));
        let year = |condition: &str| database.sql(&format!("SELECT {condition} FROM {table};"));
        assert_eq!(year("updated_at < '2021-01-01'"), yes, "what somebody says is believed: {table}");
        // Also twice within a second, and with triggers that fire themselves.
        let recursive = if database.driver() == "sqlite3" { "PRAGMA recursive_triggers = ON;" } else { "" };
        database.sql(&format!(
            "{recursive} UPDATE {table} SET enabled = FALSE; UPDATE {table} SET enabled = TRUE;
             UPDATE {table} SET enabled = FALSE;"
        ));
        assert_eq!(year("updated_at > '2026-01-01'"), yes, "{table}");
    }
}

fn names_that_differ_in_case_are_two(database: &dyn Database) {
    migrate(database);
    database.sql(
        "INSERT INTO patterns (name, regex) VALUES ('dovecot', 'x'), ('Dovecot', 'x'), ('dövecot', 'x');
         INSERT INTO blacklist (ip_address) VALUES ('2001:db8::a'), ('2001:DB8::A');",
    );
    assert_eq!(database.sql("SELECT id FROM patterns WHERE name = 'Dovecot';"), "2");
    database.sql("UPDATE patterns SET severity = 6 WHERE name = 'dovecot';");
    assert_eq!(database.sql("SELECT severity FROM patterns ORDER BY id;"), "6\n1\n1");
    assert_eq!(database.sql("SELECT count(*) FROM blacklist WHERE ip_address = '2001:db8::a';"), "1");
}

fn a_decision_is_in_the_table_once(database: &dyn Database) {
    migrate(database);
    let insert = |node: &str, run: i64, serial: i64| {
        database.try_sql(&format!(
            "INSERT INTO bans (seq, node, run, serial, ip_address, pattern, severity, failures, offences, banned_at,
             expires_at) VALUES ({serial}, '{node}', {run}, {serial}, '2001:db8:aaaa:bbbb::/64', 'dovecot', 6, {serial},
             {serial}, '2026-11-25 01:02:03.004', '2026-11-25 01:07:03.999');"
        ))
    };
    insert("mail1", 1, 1).unwrap();
    insert("mail1", 1, 1).unwrap_err();
    insert("mail1", 1, 2).unwrap();
    insert("mail1", 2, 1).unwrap();
    insert("MAIL1", 1, 1).unwrap();
    insert(&"m".repeat(128), i64::MAX, i64::MAX).unwrap();
    assert_eq!(
        database.sql("SELECT run, serial, seq, failures, offences FROM bans ORDER BY id DESC LIMIT 1;"),
        [i64::MAX; 5].map(|most| most.to_string()).join("|")
    );
    let times = "banned_at, expires_at, lifted_at, lifted_reason, reason";
    assert_eq!(
        database.sql(&match database.driver() {
            "postgres" => format!("SET TIME ZONE 'UTC'; SELECT {times} FROM bans LIMIT 1;"),
            _ => format!("SELECT {times} FROM bans LIMIT 1;"),
        }),
        match database.driver() {
            "postgres" => "2026-11-25 01:02:03.004+00|2026-11-25 01:07:03.999+00|NULL|NULL|NULL",
            _ => "2026-11-25 01:02:03.004|2026-11-25 01:07:03.999|NULL|NULL|NULL",
        }
    );
    database.sql("UPDATE bans SET lifted_at = '2026-11-25 01:03:00.250', lifted_reason = 'api', reason = 'a line';");
    assert_eq!(version(database, "bans"), 0, "the program counts these itself");
    database.sql("INSERT INTO mailfail2ban_meta (name, value) VALUES ('cluster', 'x');");
    database.try_sql("INSERT INTO mailfail2ban_meta (name, value) VALUES ('cluster', 'y');").unwrap_err();
}

fn whoever_may_only_write_to_a_list_is_counted(server: &mut dyn DatabaseServer) {
    migrate(server);
    // MySQL reads the rows that it is to change.
    server.sql(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON blacklist TO {GUEST};"));
    let as_guest = |text: &str| run_command(server.client_as(GUEST), text.as_bytes());
    for statement in [
        "INSERT INTO blacklist (ip_address) VALUES ('192.0.2.1');",
        "UPDATE blacklist SET enabled = FALSE;",
        "DELETE FROM blacklist;",
    ] {
        let before = version(server, "blacklist");
        let output = as_guest(statement);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(version(server, "blacklist") > before, "{statement}");
    }
    for statement in [
        "UPDATE mailfail2ban_versions SET version = 7;",
        "INSERT INTO whitelist (ip_address) VALUES ('192.0.2.1');",
        "SELECT * FROM bans;",
    ] {
        assert!(!as_guest(statement).status.success(), "{statement}");
    }
}

/// What a client that is running answers next.
fn next_line(client: &mut Child) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    let stdout = client.stdout.as_mut().unwrap();
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

/// Proves that the harness's outages are outages of the kind that they say.
fn what_was_committed_survives_a_crash(server: &mut dyn DatabaseServer) {
    migrate(server);
    server.sql("INSERT INTO blacklist (ip_address) VALUES ('192.0.2.1');");
    // Not committed when it crashes: the client waits for more to do.
    let mut client = server.client();
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"BEGIN; INSERT INTO blacklist (ip_address) VALUES ('192.0.2.2');\nSELECT 'inserted';\n").unwrap();
    assert_eq!(next_line(&mut client), "inserted");
    server.stop();
    server.try_sql("SELECT 1;").unwrap_err();
    server.start_again();
    drop(stdin);
    client.wait().unwrap();
    assert_eq!(server.sql("SELECT ip_address FROM blacklist;"), "192.0.2.1");
    assert_eq!(version(server, "blacklist"), 1);
}

/// The same of a server that hangs.
fn a_server_that_hangs_answers_later(server: &mut dyn DatabaseServer) {
    let asks = |options: &[&str]| {
        let mut client = server.client();
        client.args(options).args(if server.driver() == "postgres" { ["-c"] } else { ["-e"] }).arg("SELECT 42");
        client.env("PGCONNECT_TIMEOUT", if options.is_empty() { "0" } else { "2" });
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let impatient: &[&str] = if server.driver() == "postgres" { &["-q"] } else { &["--connect-timeout=1"] };
    server.freeze();
    let output = asks(impatient).wait_with_output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let patient = asks(&[]);
    server.thaw();
    let output = patient.wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.trim_ascii() == b"42", "{output:?}");
    // And it can be ended while it hangs.
    server.freeze();
    server.stop();
    server.start_again();
    server.sql("SELECT 1;");
}

#[test]
fn postgres_tells_those_who_listen() {
    let Some(database) = Postgres::start() else { return };
    migrate(&database);
    let mut listener = database.client();
    let mut listener = listener.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = listener.stdin.take().unwrap();
    stdin.write_all(b"LISTEN mailfail2ban;\nSELECT 'listening';\n").unwrap();
    assert_eq!(next_line(&mut listener), "listening");
    database.sql(
        "BEGIN; INSERT INTO whitelist (ip_address) VALUES ('192.0.2.9'); ROLLBACK;
         BEGIN; INSERT INTO patterns (name, regex) VALUES ('a', 'x'); UPDATE patterns SET severity = 2; COMMIT;
         TRUNCATE blacklist;
         UPDATE mailfail2ban_versions SET version = version + 1 WHERE name = 'bans';",
    );
    // psql shows what it was told meanwhile after its next statement.
    stdin.write_all(b"SELECT 'done';\n").unwrap();
    drop(stdin);
    let output = listener.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let payload = |line: &str| Some(line.split_once("with payload \"")?.1.split_once('"')?.0.to_owned());
    let told: Vec<String> = said.lines().filter_map(payload).collect();
    assert_eq!(told, ["patterns", "blacklist"], "once for each transaction: {said}");
}

/// The function that counts has its owner's rights: nobody may lend them.
#[test]
fn postgres_lends_nobody_the_rights_of_the_owner() {
    let Some(database) = Postgres::start() else { return };
    migrate(&database);
    database.sql(&format!("GRANT INSERT ON blacklist TO {GUEST};"));
    let as_guest = |text: &str| {
        let output = run_command(database.client_as(GUEST), text.as_bytes());
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    };
    let (attached, why) = as_guest(
        "CREATE TEMP TABLE patterns (id int);
         CREATE TRIGGER mine AFTER INSERT ON patterns FOR EACH STATEMENT
         EXECUTE FUNCTION public.mailfail2ban_count_change();",
    );
    assert!(!attached && why.contains("permission denied"), "{why}");
    // Temporary tables come first where a name has no schema.
    let (inserted, why) = as_guest(
        "CREATE TEMP TABLE mailfail2ban_versions (name text, version bigint);
         INSERT INTO mailfail2ban_versions VALUES ('blacklist', 100);
         INSERT INTO blacklist (ip_address) VALUES ('192.0.2.1');
         SELECT version FROM mailfail2ban_versions;",
    );
    assert!(inserted && why.trim() == "100", "{why}");
    assert_eq!(version(&database, "blacklist"), 1);
}

/// A connection that is cut leaves part of a migration behind: its tables are not made in a transaction.
#[test]
fn mysql_migrations_can_be_run_again_from_anywhere() {
    // A hundred statements that change tables, none of which must survive a power failure.
    let Some(database) = MariaDb::start_with(&["--innodb-flush-log-at-trx-commit=0"]) else { return };
    let text: String = migrations(&database).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let statements: Vec<&str> = text.split_inclusive(";\n").filter(|statement| !statement.trim().is_empty()).collect();
    assert!(statements.len() > 30, "{statements:?}");
    for done in 0..=statements.len() {
        database.sql("DROP DATABASE fail2ban; CREATE DATABASE fail2ban;");
        database.sql(&statements[..done].concat());
        migrate(&database);
        database.sql(&TABLES.map(|(_, insert)| format!("{insert};\n")).concat());
        let counted = ["ban_config|1", "bans|0", "blacklist|1", "patterns|1", "whitelist|1"];
        assert_eq!(versions(&database), counted, "run again after {done} statements");
    }
    // What was there stays, and is counted once.
    database.sql("UPDATE blacklist SET reason = 'kept'");
    migrate(&database);
    assert_eq!(database.sql("SELECT reason FROM blacklist;"), "kept");
    assert_eq!(version(&database, "blacklist"), 2);
    database.sql("DELETE FROM blacklist;");
    assert_eq!(version(&database, "blacklist"), 3);
}

/// A server that writes a binary log does not let everybody make triggers: the tables are there without them.
#[test]
fn mysql_has_the_tables_where_triggers_are_not_allowed() {
    let Some(database) = MariaDb::start_with(&["--log-bin=binary"]) else { return };
    let [schema, triggers, _] = <[PathBuf; 3]>::try_from(migrations(&database)).unwrap();
    database.sql(&fs::read_to_string(schema).unwrap());
    let why = database.try_sql(&fs::read_to_string(triggers).unwrap()).unwrap_err();
    assert!(why.contains("ERROR 1419"), "{why}");
    database.sql(TABLES[0].1);
    assert_eq!(version(&database, "patterns"), 0);
}

//! What operators ask the store for and have it do, on each database and without one.

mod harness;

use harness::databases::{Database, DatabaseServer, MariaDb, Postgres, Sqlite, on_every_database};
use harness::{Directory, record};
use mailfail2ban::control::publish::Publisher;
use mailfail2ban::control::store::contents::ListName;
use mailfail2ban::control::store::{
    AuditEntry, AuditQuery, AuditSource, Clerk, Decided, EditFault, Enlisted, Entry, EntryPage, EntryQuery,
    EntrySource, NewEntry, Notice, Opened, PastBan, Said, Store,
};
use mailfail2ban::engine::address::{Address, Network};
use mailfail2ban::engine::ban::{Act, Ban, Decision, Lift, Origin, PatternId, Severity};
use mailfail2ban::engine::policy::Policy;
use mailfail2ban::engine::table::hash_key;
use mailfail2ban::shard::Clock;
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running store, without a server.
struct Running {
    runtime: Runtime,
    store: Store,
    clerk: Clerk,
    clock: Clock,
    /// Those that were published since the one that is looked at.
    policies: Receiver<Arc<Policy>>,
    policy: Arc<Policy>,
}

impl Running {
    fn start(directory: &Directory, settings: &str) -> Running {
        let state = directory.0.join("state");
        let file = directory.file("config.yaml", format!("runtime: {{state_dir: '{}'}}\n{settings}", state.display()));
        let mut publisher = Publisher::new(1, hash_key(1));
        let settings = publisher.read(&file).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = Clock::start();
        let opened = Store::open(&file, settings, publisher, clock).unwrap();
        let Opened { policy, store, mut notices, .. } = opened;
        // The store is always listened to, as it is by the server.
        let (published, policies) = mpsc::channel();
        std::thread::spawn(move || {
            while let Some(notice) = notices.blocking_recv() {
                if let Notice::Policy { policy, .. } = notice {
                    let _ = published.send(policy);
                }
            }
        });
        Running { runtime, clerk: store.clerk(), clock, store, policies, policy }
    }

    fn using(directory: &Directory, database: &dyn Database) -> Running {
        let (driver, dsn) = (database.driver(), database.dsn());
        Running::start(directory, &format!("database: {{enabled: true, driver: {driver}, dsn: '{dsn}'}}\n"))
    }

    #[track_caller]
    fn ask<T>(&self, asked: impl Future<Output = Result<T, EditFault>>) -> T {
        self.runtime.block_on(asked).unwrap()
    }

    #[track_caller]
    fn enlist(&self, list: ListName, address: &str) -> Enlisted {
        self.ask(self.clerk.enlist(list, entry(address)))
    }

    #[track_caller]
    fn delist(&self, list: ListName, address: &str) -> bool {
        self.ask(self.clerk.delist(list, network(address)))
    }

    #[track_caller]
    fn page(&self, query: EntryQuery) -> EntryPage {
        self.ask(self.clerk.entries(ListName::Blacklist, query))
    }

    /// Waits for a policy that is as wanted.
    #[track_caller]
    fn wait_for_policy(&mut self, what: &str, wanted: impl Fn(&Policy) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&self.policy) {
            match self.policies.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(policy) => self.policy = policy,
                Err(_) => panic!("{what}: {:?}", self.policy.block),
            }
        }
    }

    #[track_caller]
    fn wait_until_blocked(&mut self, address: &str, blocked: bool) {
        let at = Address::parse(address.as_bytes()).unwrap();
        self.wait_for_policy(address, |policy| policy.block.contains(at) == blocked);
    }

    fn stop(self) {
        // The clerk is still there, as it is with who serves operators.
        let Running { store, clerk, .. } = self;
        let begun = Instant::now();
        store.close(Duration::from_secs(5)).join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "it waited for clerks");
        drop(clerk);
    }
}

fn network(text: &str) -> Network {
    Network::parse(text).unwrap()
}

fn entry(address: &str) -> NewEntry {
    NewEntry { network: network(address), reason: Some(format!("because of {address}")), created_by: "ann".to_owned() }
}

fn all(limit: usize) -> EntryQuery {
    EntryQuery { limit, ..EntryQuery::default() }
}

fn shown(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.address.as_str()).collect()
}

#[test]
fn without_a_database_lists_are_this_nodes_own_and_survive() {
    let directory = Directory::new();
    let settings = "ban: {blacklist: [198.51.100.0/24, 203.0.113.9]}\n";
    let mut running = Running::start(&directory, settings);
    for n in 1..=5 {
        assert_eq!(running.enlist(ListName::Blacklist, &format!("192.0.2.{n}")), Enlisted::New);
    }
    assert_eq!(running.enlist(ListName::Blacklist, "::ffff:192.0.2.5"), Enlisted::Already);
    running.wait_until_blocked("192.0.2.5", true);
    assert!(running.delist(ListName::Blacklist, "192.0.2.1/32"));
    assert!(!running.delist(ListName::Blacklist, "192.0.2.1"));
    assert!(!running.delist(ListName::Whitelist, "192.0.2.2"));
    running.wait_until_blocked("192.0.2.1", false);
    let in_file = running.runtime.block_on(running.clerk.delist(ListName::Blacklist, network("203.0.113.9")));
    assert_eq!(in_file, Err(EditFault::InFile(ListName::Blacklist)));

    // Pages: those of the file, then the newest first.
    let (mut seen, mut next) = (Vec::new(), None);
    loop {
        let page = running.page(EntryQuery { after: next, ..all(2) });
        assert_eq!(page.total, 6);
        seen.extend(page.entries);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(shown(&seen), ["198.51.100.0/24", "203.0.113.9", "192.0.2.5", "192.0.2.4", "192.0.2.3", "192.0.2.2"]);
    assert_eq!((seen[1].source, seen[2].source), (EntrySource::File, EntrySource::Local));
    assert_eq!(seen[2].reason.as_deref(), Some("because of 192.0.2.5"));
    assert_eq!(seen[2].created_by.as_deref(), Some("ann"));
    let page = running.page(EntryQuery { within: Some(network("192.0.2.4/31")), ..all(10) });
    assert_eq!((shown(&page.entries), page.total, page.next), (vec!["192.0.2.5", "192.0.2.4"], 2, None));
    let page = running.page(EntryQuery { search: Some("OF 192.0.2.3".to_owned()), ..all(10) });
    assert_eq!((shown(&page.entries), page.total), (vec!["192.0.2.3"], 1));
    let page = running.page(EntryQuery { search: Some("_9%".to_owned()), ..all(10) });
    assert_eq!(page.total, 0);

    assert_eq!(running.enlist(ListName::Blacklist, "192.0.2.0/24"), Enlisted::New);
    let covering = running.ask(running.clerk.covering(ListName::Blacklist, Address::parse(b"192.0.2.5").unwrap()));
    assert_eq!(shown(&covering), ["192.0.2.5", "192.0.2.0/24"]);
    running.stop();

    let mut running = Running::start(&directory, settings);
    running.wait_until_blocked("192.0.2.77", true);
    assert_eq!(running.page(all(100)).total, 7);
    running.stop();
}

#[test]
fn what_operators_did_is_written_down_and_found() {
    let directory = Directory::new();
    let running = Running::start(&directory, "");
    let note = |n: usize| AuditEntry {
        who: format!("ann\n{n}"),
        channel: "api",
        peer: Some("127.0.0.1".to_owned()),
        action: "unban",
        target: format!("192.0.2.{n}"),
        detail: "x".repeat(10_000),
        outcome: "done".to_owned(),
    };
    running.runtime.block_on(async {
        for n in 1..=7 {
            running.clerk.note(note(n)).await;
        }
    });
    let first = running.ask(running.clerk.audit(AuditQuery { limit: 5, ..AuditQuery::default() }));
    assert_eq!((first.source, first.entries.len()), (AuditSource::Local, 5));
    assert_eq!((first.entries[0].who.as_str(), first.entries[0].detail.len()), ("ann 7", 4096));
    let rest = running.ask(running.clerk.audit(AuditQuery { limit: 5, before: first.next, ..AuditQuery::default() }));
    assert_eq!((rest.entries.len(), rest.next), (2, None));
    let search = Some("ANN 3".to_owned());
    let found = running.ask(running.clerk.audit(AuditQuery { limit: 5, search, ..AuditQuery::default() }));
    assert_eq!(found.entries.len(), 1);
    running.stop();
    // What was noted last is there after the end.
    let running = Running::start(&directory, "");
    let there = running.ask(running.clerk.audit(AuditQuery { limit: 100, ..AuditQuery::default() }));
    assert_eq!(there.entries.len(), 7);
    running.stop();
}

on_every_database! {
    edits_are_in_the_tables_and_followed_at_once,
    however_an_address_is_written_it_is_found,
    pages_go_over_the_file_the_database_and_the_local_state,
    the_audit_of_all_nodes_is_in_one_table,
    what_an_operator_says_of_a_ban_is_known_to_all_nodes,
}

fn edits_are_in_the_tables_and_followed_at_once(database: &dyn Database) {
    let directory = Directory::new();
    let mut running = Running::using(&directory, database);
    assert_eq!(running.enlist(ListName::Blacklist, "192.0.2.7"), Enlisted::New);
    running.wait_until_blocked("192.0.2.7", true);
    assert_eq!(running.enlist(ListName::Blacklist, "192.0.2.7"), Enlisted::Already);
    let row = "SELECT ip_address, reason, created_by FROM blacklist;";
    assert_eq!(database.sql(row), "192.0.2.7|because of 192.0.2.7|ann");
    // Switched off by hand, and on again.
    database.sql("UPDATE blacklist SET enabled = FALSE;");
    running.wait_until_blocked("192.0.2.7", false);
    assert!(!running.page(all(10)).entries[0].enabled);
    let again = NewEntry { reason: None, created_by: "bob".to_owned(), ..entry("192.0.2.7") };
    assert_eq!(running.ask(running.clerk.enlist(ListName::Blacklist, again)), Enlisted::New);
    running.wait_until_blocked("192.0.2.7", true);
    assert_eq!(database.sql(row), "192.0.2.7|because of 192.0.2.7|bob");
    // Somebody else's change that was not seen yet is not lost.
    database.sql("INSERT INTO blacklist (ip_address) VALUES ('192.0.2.8');");
    assert_eq!(running.enlist(ListName::Blacklist, "192.0.2.9"), Enlisted::New);
    running.wait_for_policy("all of them", |policy| policy.block.len() == 3);
    assert_eq!(running.page(all(10)).total, 3);
    assert!(running.delist(ListName::Blacklist, "192.0.2.7"));
    running.wait_until_blocked("192.0.2.7", false);
    assert_eq!(database.sql("SELECT COUNT(*) FROM blacklist;"), "2");
    assert!(!running.delist(ListName::Blacklist, "192.0.2.7"));

    let mut longest = Duration::ZERO;
    for n in 10..40 {
        let begun = Instant::now();
        running.enlist(ListName::Blacklist, &format!("192.0.2.{n}"));
        running.wait_until_blocked(&format!("192.0.2.{n}"), true);
        longest = longest.max(begun.elapsed());
    }
    record(&format!("{}: from an edit to its policy {longest:?} at most, of 30", database.driver()));
    running.stop();
}

fn however_an_address_is_written_it_is_found(database: &dyn Database) {
    let directory = Directory::new();
    let mut running = Running::using(&directory, database);
    database.sql(
        "INSERT INTO blacklist (ip_address, reason) VALUES ('10.0.0.1/32', 'a'), ('::ffff:10.0.0.2', 'b'),
         ('2001:DB8::1', 'c'), ('2001:0db8:0::2', 'd'), ('10.9.8.7/8', 'e'), ('10.0.0.3', 'f'), ('::FFFF:10.0.0.3', 'g'),
         ('2001:0db8::3', 'h'), ('nonsense', 'i');",
    );
    running.wait_for_policy("all of them", |policy| policy.block.len() == 7);
    let covering = |running: &Running, address: &str| -> Vec<String> {
        let address = Address::parse(address.as_bytes()).unwrap();
        let found = running.ask(running.clerk.covering(ListName::Blacklist, address));
        found.into_iter().filter_map(|entry| entry.reason).collect()
    };
    assert_eq!(covering(&running, "10.0.0.1"), ["a", "e"]);
    assert_eq!(covering(&running, "2001:db8::2"), ["d"]);
    assert_eq!(running.page(all(100)).total, 9);
    let within = EntryQuery { within: Some(network("2001:db8::/64")), ..all(100) };
    assert_eq!(running.page(within).total, 3);
    for address in ["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2", "10.0.0.0/8", "10.0.0.3", "2001:db8::3"] {
        assert!(running.delist(ListName::Blacklist, address), "{address}");
        assert!(!running.delist(ListName::Blacklist, address), "{address}");
    }
    running.wait_for_policy("none of them", |policy| policy.block.is_empty());
    assert_eq!(database.sql("SELECT ip_address FROM blacklist;"), "nonsense");
    running.stop();
}

fn pages_go_over_the_file_the_database_and_the_local_state(database: &dyn Database) {
    let directory = Directory::new();
    let running = Running::start(&directory, "");
    for n in 0..3 {
        running.enlist(ListName::Blacklist, &format!("198.51.100.{n}"));
    }
    running.stop();
    let (driver, dsn) = (database.driver(), database.dsn());
    let settings =
        format!("ban: {{blacklist: [203.0.113.0/24]}}\ndatabase: {{enabled: true, driver: {driver}, dsn: '{dsn}'}}\n");
    let mut running = Running::start(&directory, &settings);
    // Ids of one digit and of two, which are numbers.
    for n in 0..12 {
        running.enlist(ListName::Blacklist, &format!("192.0.2.{n}"));
    }
    for n in 5..12 {
        running.delist(ListName::Blacklist, &format!("192.0.2.{}", n - 5));
        running.enlist(ListName::Blacklist, &format!("192.0.2.{}", n - 5));
        running.delist(ListName::Blacklist, &format!("192.0.2.{n}"));
    }
    for n in 5..7 {
        running.delist(ListName::Blacklist, &format!("192.0.2.{n}"));
    }
    running.wait_for_policy("all of them", |policy| policy.block.len() == 9);
    for limit in 1..=10 {
        for within in [None, Some(network("0.0.0.0/0"))] {
            let (mut seen, mut next) = (Vec::new(), None);
            loop {
                let page = running.page(EntryQuery { after: next, within, ..all(limit) });
                assert!(page.total == 9 && page.entries.len() <= limit, "{page:?}");
                seen.extend(page.entries);
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
            let want = ["203.0.113.0/24", "192.0.2.4", "192.0.2.3", "192.0.2.2", "192.0.2.1", "192.0.2.0"];
            assert_eq!(shown(&seen)[..6], want);
            assert_eq!(shown(&seen)[6..], ["198.51.100.2", "198.51.100.1", "198.51.100.0"]);
            let at = seen[1].created_at.as_deref().unwrap();
            let now = humantime::parse_rfc3339(at).unwrap().elapsed().unwrap_or_default();
            assert!(now < Duration::from_secs(120), "{at}");
        }
    }
    // Taken off, wherever it is.
    assert!(running.delist(ListName::Blacklist, "198.51.100.1"));
    running.wait_until_blocked("198.51.100.1", false);
    running.stop();
}

fn the_audit_of_all_nodes_is_in_one_table(database: &dyn Database) {
    let directories = [Directory::new(), Directory::new()];
    let nodes = directories.each_ref().map(|directory| Running::using(directory, database));
    let note = |who: &str| AuditEntry {
        who: who.to_owned(),
        channel: "socket",
        peer: None,
        action: "whitelist_add",
        target: "192.0.2.1".to_owned(),
        detail: "größer".to_owned(),
        outcome: "new".to_owned(),
    };
    for (node, who) in nodes.iter().zip(["ann", "bob"]) {
        node.runtime.block_on(node.clerk.note(note(who)));
    }
    let begun = Instant::now();
    let page = loop {
        let page = nodes[0].ask(nodes[0].clerk.audit(AuditQuery { limit: 10, ..AuditQuery::default() }));
        if page.entries.len() == 2 {
            break page;
        }
        assert!(begun.elapsed() < PATIENCE, "{page:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(page.source, AuditSource::Database);
    let mut who: Vec<&str> = page.entries.iter().map(|entry| entry.who.as_str()).collect();
    who.sort_unstable();
    assert_eq!(who, ["ann", "bob"]);
    assert!(page.entries.iter().all(|entry| entry.detail == "größer" && entry.peer.is_none()));
    let at = humantime::parse_rfc3339(&page.entries[0].at).unwrap().elapsed().unwrap_or_default();
    assert!(at < Duration::from_secs(120));
    let query = AuditQuery { limit: 1, search: Some("BOB".to_owned()), before: None };
    assert_eq!(nodes[1].ask(nodes[1].clerk.audit(query)).entries.len(), 1);
    nodes.into_iter().for_each(Running::stop);
    // Another run tells nothing twice.
    let node = Running::using(&directories[0], database);
    node.runtime.block_on(node.clerk.note(note("cid")));
    let begun = Instant::now();
    while database.sql("SELECT COUNT(*) FROM audit;") != "3" {
        assert!(begun.elapsed() < PATIENCE, "{}", database.sql("SELECT who, run, serial FROM audit;"));
        std::thread::sleep(Duration::from_millis(20));
    }
    node.stop();
}

fn what_an_operator_says_of_a_ban_is_known_to_all_nodes(database: &dyn Database) {
    let directories = [Directory::new(), Directory::new()];
    let [one, two] = directories.each_ref().map(|directory| Running::using(directory, database));
    let at = one.clock.now();
    let (pattern, severity) = (PatternId::new(0).unwrap(), Severity::new(6).unwrap());
    let until = at.plus(Duration::from_secs(600));
    let ban = Ban { until, offences: 1, failures: 1, pattern, severity };
    let decided = |serial: u64, act: Act, said: Said| Decided {
        decision: Decision { serial, at, client: network("2001:db8::/64"), act, origin: Origin::Decided },
        said: Some(Arc::new(said)),
    };
    let history = |node: &Running, wanted: fn(&PastBan) -> bool| {
        let begun = Instant::now();
        loop {
            let bans = node.ask(node.clerk.history(vec![network("192.0.2.1"), network("2001:db8::/64")], 10));
            if let [ban] = &bans[..]
                && wanted(ban)
            {
                return ban.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "{bans:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    one.store.keep(vec![decided(1, Act::Ban(ban), Said::new(Some("größer"), "ann"))]).unwrap();
    let seen = history(&two, |_| true);
    assert_eq!((seen.reason.as_deref(), seen.created_by.as_deref()), (Some("größer"), Some("ann")));
    assert_eq!((seen.lifted_by, seen.offences), (None, 1));
    one.store.keep(vec![decided(2, Act::Lift(Lift::Unbanned, ban), Said::new(Some("sorry"), "bob"))]).unwrap();
    let seen = history(&two, |ban| ban.lifted_at.is_some());
    assert_eq!((seen.lifted_reason, seen.lifted_by.as_deref()), (Some("unbanned"), Some("bob")));
    assert_eq!(seen.reason.as_deref(), Some("größer"));
    one.stop();
    two.stop();
}

#[test]
fn a_database_that_is_away_is_said_to_be() {
    let Some(mut server) = Postgres::start() else { return };
    let directory = Directory::new();
    let mut running = Running::using(&directory, &server);
    assert_eq!(running.enlist(ListName::Blacklist, "192.0.2.1"), Enlisted::New);
    running.wait_until_blocked("192.0.2.1", true);
    server.stop();
    let refused = running.runtime.block_on(running.clerk.enlist(ListName::Blacklist, entry("192.0.2.2")));
    assert!(matches!(refused, Err(EditFault::Away(_))), "{refused:?}");
    let note = AuditEntry {
        who: "ann".to_owned(),
        channel: "api",
        peer: None,
        action: "blacklist_add",
        target: "192.0.2.2".to_owned(),
        detail: String::new(),
        outcome: "away".to_owned(),
    };
    running.runtime.block_on(running.clerk.note(note));
    let begun = Instant::now();
    let page = running.ask(running.clerk.audit(AuditQuery { limit: 10, ..AuditQuery::default() }));
    assert_eq!((page.source, page.entries.len()), (AuditSource::Local, 1));
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.start_again();
    let begun = Instant::now();
    while server.sql("SELECT COUNT(*) FROM audit;") != "1" {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(running.enlist(ListName::Blacklist, "192.0.2.2"), Enlisted::New);
    running.stop();
}

/// A long list is edited, listed and searched; with `MAILFAIL2BAN_LOAD_SECONDS`, one of a million entries.
#[test]
fn a_long_list() {
    let count: u32 = if std::env::var_os("MAILFAIL2BAN_LOAD_SECONDS").is_some() { 1_000_000 } else { 300_000 };
    let directory = Directory::new();
    Running::start(&directory, "").stop();
    let mut command = harness::tool("sqlite3");
    command.arg(directory.0.join("state/state.db"));
    let many = |into: &str, rest: &str| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})
             INSERT INTO {into} SELECT {rest} '10.' || (i >> 16) || '.' || (i >> 8 & 255) || '.' || (i & 255),
             'a reason', 'ann' FROM n;"
        )
    };
    let sql = many("lists (created_at, name, ip_address, reason, created_by)", "1763800000000, 'blacklist',");
    assert!(harness::run_command(command, sql.as_bytes()).status.success());
    let begun = Instant::now();
    let running = Running::start(&directory, "log: {level: warn}\n");
    record(&format!("local: started in {:?}", begun.elapsed()));
    measure(running, "local", count);

    let database = Sqlite::start().unwrap();
    let directory = Directory::new();
    Running::using(&directory, &database).stop();
    database.sql(&many("blacklist (ip_address, reason, created_by)", ""));
    measure(Running::using(&directory, &database), "sqlite3", count);
    let as_numbers = "INSERT INTO blacklist (ip_address, reason, created_by)";
    if let Some(database) = Postgres::start() {
        let directory = Directory::new();
        Running::using(&directory, &database).stop();
        database.sql(&format!(
            "{as_numbers} SELECT '10.' || (i >> 16) || '.' || (i >> 8 & 255) || '.' || (i & 255), 'a reason', 'ann'
             FROM generate_series(0, {count} - 1) AS i;"
        ));
        measure(Running::using(&directory, &database), "postgres", count);
    }
    if let Some(database) = MariaDb::start() {
        let directory = Directory::new();
        Running::using(&directory, &database).stop();
        database.sql(&format!(
            "{as_numbers} SELECT CONCAT('10.', seq >> 16, '.', seq >> 8 & 255, '.', seq & 255), 'a reason', 'ann'
             FROM seq_0_to_{};",
            count - 1
        ));
        measure(Running::using(&directory, &database), "mysql", count);
    }
}

fn measure(mut running: Running, what: &str, count: u32) {
    running.wait_for_policy("all of them", |policy| policy.block.len() >= count as usize);
    let timed = |name: &str, begun: Instant| record(&format!("{what}: {name} {:?}", begun.elapsed()));
    for n in 0..5 {
        let address = format!("192.0.2.{n}");
        let begun = Instant::now();
        running.enlist(ListName::Blacklist, &address);
        timed("enlisted", begun);
        running.wait_until_blocked(&address, true);
        timed("enlisted and in a policy", begun);
    }
    for round in 0..3 {
        let begun = Instant::now();
        let page = running.page(all(100));
        timed(&format!("first page of {} ({round})", page.total), begun);
    }
    let begun = Instant::now();
    assert_eq!(running.page(EntryQuery { after: Some(7), ..all(5) }).entries[0].address, "192.0.2.4");
    timed("another page", begun);
    let begun = Instant::now();
    assert_eq!(running.page(EntryQuery { search: Some("10.3.200.".to_owned()), ..all(100) }).total, 256);
    timed("searched", begun);
    let begun = Instant::now();
    assert_eq!(running.page(EntryQuery { within: Some(network("10.3.200.0/24")), ..all(100) }).total, 256);
    timed("within a network", begun);
    let begun = Instant::now();
    let covering = running.ask(running.clerk.covering(ListName::Blacklist, Address::parse(b"10.3.200.1").unwrap()));
    assert_eq!(covering.len(), 1);
    timed("covering", begun);
    let begun = Instant::now();
    running.delist(ListName::Blacklist, "10.3.200.1");
    running.wait_until_blocked("10.3.200.1", false);
    timed("delisted and in a policy", begun);
    running.stop();
}

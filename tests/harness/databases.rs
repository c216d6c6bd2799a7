//! Real databases, each of a test's own: a server with its data in the test's directory, on a port of its own, and the
//! clients that people type into.

use super::peers::Peer;
use super::{Config, DEADLINE, Directory, PAUSE, free_port, limits, run_command, skip};
use rustix::process::{Pid, Signal, kill_process};
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::Instant;

/// Whose the database `fail2ban` of every server is. It has no other rights.
pub const USER: &str = "fail2ban";
/// Somebody else whom a server lets in, without any right.
pub const GUEST: &str = "guest";
const PASSWORD: &str = "secret";

/// A database, empty at first.
pub trait Database {
    /// The value of `database.driver`.
    fn driver(&self) -> &'static str;

    /// The value of `database.dsn`, as documented for this driver.
    fn dsn(&self) -> String;

    /// The client that comes with the database, connected. It takes statements from its standard input, answers each
    /// when it has read it, and ends at the first that fails.
    fn client(&self) -> Command;

    /// What the client answers to some statements: one row a line, `|` between columns, `NULL` where there is nothing.
    /// Each statement is a transaction of its own, unless they say otherwise. An error is the client's own words.
    fn try_sql(&self, text: &str) -> Result<String, String> {
        run_client(self.client(), text)
    }

    /// The same of statements that must not fail.
    #[track_caller]
    fn sql(&self, text: &str) -> String {
        self.try_sql(text).unwrap_or_else(|why| panic!("{}: {text}\n{why}", self.driver()))
    }
}

/// A configuration by which the program uses this database.
pub fn using<D: Database + ?Sized>(database: &D) -> Config {
    Config::new()
        .set("database.enabled", true)
        .set("database.driver", database.driver())
        .set("database.dsn", format!("'{}'", database.dsn()))
}

/// A database that can be away.
pub trait DatabaseServer: Database {
    /// The client, connected as [`USER`] or [`GUEST`].
    fn client_as(&self, user: &str) -> Command;

    /// Ends it at once, as a crash does: what was committed is there when it starts again.
    fn stop(&mut self);

    /// Starts it where it was.
    fn start_again(&mut self);

    /// Has it hang: the kernel still accepts connections for it. When this returns, none of its processes does anything
    /// any more.
    fn freeze(&self);

    /// Has it go on.
    fn thaw(&self);
}

/// Makes a test for SQLite, one for PostgreSQL, and one for MariaDB of each function that takes a `&dyn Database`. Each
/// is skipped where that database is not installed.
#[allow(unused_macros, reason = "not every test is about databases")]
macro_rules! on_every_database {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $test() {
                if let Some(database) = crate::harness::databases::Sqlite::start() { super::$test(&database) }
            })+
        }
        mod postgres {
            $(#[test] fn $test() {
                if let Some(database) = crate::harness::databases::Postgres::start() { super::$test(&database) }
            })+
        }
        mod mariadb {
            $(#[test] fn $test() {
                if let Some(database) = crate::harness::databases::MariaDb::start() { super::$test(&database) }
            })+
        }
    };
}

/// The same for PostgreSQL and MariaDB alone, of functions that take a `&mut dyn DatabaseServer`.
#[allow(unused_macros, reason = "not every test is about databases")]
macro_rules! on_every_database_server {
    ($($test:ident),+ $(,)?) => {
        mod postgres_server {
            $(#[test] fn $test() {
                if let Some(mut server) = crate::harness::databases::Postgres::start() { super::$test(&mut server) }
            })+
        }
        mod mariadb_server {
            $(#[test] fn $test() {
                if let Some(mut server) = crate::harness::databases::MariaDb::start() { super::$test(&mut server) }
            })+
        }
    };
}

#[allow(unused_imports, reason = "not every test is about databases")]
pub(crate) use {on_every_database, on_every_database_server};

/// A file of SQLite's, and `sqlite3`. The file is not there before something writes to it.
pub struct Sqlite {
    pub path: PathBuf,
    client: PathBuf,
    _directory: Directory,
}

impl Sqlite {
    /// If it is not installed, the calling test is skipped.
    pub fn start() -> Option<Sqlite> {
        let client = installed("sqlite3")?;
        let directory = Directory::new();
        Some(Sqlite { path: directory.0.join("fail2ban.db"), client, _directory: directory })
    }
}

impl Database for Sqlite {
    fn driver(&self) -> &'static str {
        "sqlite3"
    }

    fn dsn(&self) -> String {
        self.path.display().to_string()
    }

    fn client(&self) -> Command {
        let mut command = Command::new(&self.client);
        // Not the settings of whoever runs the tests. The program may be writing just now.
        command.args(["-batch", "-bail", "-init", "/dev/null", "-nullvalue", "NULL", "-cmd"]);
        command.arg(format!(".timeout {}", DEADLINE.as_millis())).arg(&self.path);
        command
    }
}

/// PostgreSQL, and `psql`.
pub struct Postgres {
    daemon: Daemon,
    programs: PathBuf,
}

impl Postgres {
    /// Starts it with its defaults, and waits until it answers. If it is not installed, the calling test is skipped.
    #[track_caller]
    pub fn start() -> Option<Postgres> {
        static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
        let programs = Postgres::programs()?;
        let template = TEMPLATE.get_or_init(|| {
            template("postgres", |data, account| {
                let mut initdb = account.command(&programs.join("initdb"));
                initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth-host=scram-sha-256"]);
                initdb.args(["--auth-local=trust", "--wal-segsize=1", "--pgdata"]).arg(data);
                must(initdb, "");
                let mut alone = account.command(&programs.join("postgres"));
                // Without waiting for the disk: it does not crash.
                alone.args(["--single", "-F", "-D"]).arg(data).arg("postgres");
                must(
                    alone,
                    &format!(
                        "CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}';\n\
                         CREATE ROLE {GUEST} LOGIN PASSWORD '{PASSWORD}';\n\
                         CREATE DATABASE fail2ban OWNER {USER};\n"
                    ),
                );
            })
        });
        let mut postgres = Postgres { daemon: Daemon::new(template, "postgres"), programs };
        postgres.daemon.start_anywhere(Postgres::ready, |daemon| Postgres::command(&postgres.programs, daemon));
        Some(postgres)
    }

    /// Where its programs are: Debian keeps most of them out of everybody's way, one folder for each version.
    fn programs() -> Option<PathBuf> {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let versions = versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
        let mut versions: Vec<(u32, PathBuf)> = versions.collect();
        versions.sort_unstable();
        let newest = versions.into_iter().rev().map(|(_, path)| path.join("bin"));
        let all_there =
            |folder: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file());
        let found = newest.chain(folders()).find(all_there);
        if found.is_none() {
            skip("PostgreSQL is not installed");
        }
        found
    }

    fn command(programs: &Path, daemon: &Daemon) -> Command {
        let mut command = daemon.account.command(&programs.join("postgres"));
        command.arg("-D").arg(daemon.data()).args(["-p", &daemon.port.to_string()]);
        // Nothing of it outside of its data, where others with its port would have theirs.
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "dynamic_shared_memory_type=mmap"] {
            command.args(["-c", setting]);
        }
        command
    }

    fn ready(line: &str) -> bool {
        line.ends_with("database system is ready to accept connections")
    }

    fn url(&self, user: &str) -> String {
        format!("postgres://{user}:{PASSWORD}@127.0.0.1:{}/fail2ban?sslmode=disable", self.daemon.port)
    }
}

impl Database for Postgres {
    fn driver(&self) -> &'static str {
        "postgres"
    }

    fn dsn(&self) -> String {
        self.url(USER)
    }

    fn client(&self) -> Command {
        self.client_as(USER)
    }
}

impl DatabaseServer for Postgres {
    fn client_as(&self, user: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        without_settings(&mut command, "PG");
        command.args(["-X", "-q", "-A", "-t", "-P", "null=NULL", "-v", "ON_ERROR_STOP=1", "-d", &self.url(user)]);
        command
    }

    fn stop(&mut self) {
        // Not SIGKILL, which its other processes would survive for a moment.
        self.daemon.stop(Signal::QUIT);
    }

    #[track_caller]
    fn start_again(&mut self) {
        let Postgres { daemon, programs } = self;
        daemon
            .start(Postgres::ready, |daemon| Postgres::command(programs, daemon))
            .unwrap_or_else(|why| panic!("{why}"));
    }

    fn freeze(&self) {
        self.daemon.freeze();
    }

    fn thaw(&self) {
        self.daemon.thaw();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// MariaDB, and `mysql`.
pub struct MariaDb {
    daemon: Daemon,
    program: PathBuf,
    client: PathBuf,
}

impl MariaDb {
    /// Starts it with its defaults, and waits until it answers. If it is not installed, the calling test is skipped.
    #[track_caller]
    pub fn start() -> Option<MariaDb> {
        MariaDb::start_with(&[])
    }

    /// The same with some more options for the server.
    #[track_caller]
    pub fn start_with(options: &[&str]) -> Option<MariaDb> {
        static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
        let (program, install) = (installed("mariadbd")?, installed("mariadb-install-db")?);
        // The name that people type is a package of its own in newer releases.
        let client = found("mysql").or_else(|| installed("mariadb"))?;
        let template = TEMPLATE.get_or_init(|| {
            template("mysql", |data, account| {
                let data = format!("--datadir={}", data.display());
                let mut install = account.command(&install);
                install.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
                install.args([&data, SMALL_LOG]);
                must(install, "");
                let mut alone = account.command(&program);
                alone.args(["--no-defaults", "--bootstrap", &data, SMALL_LOG]);
                must(
                    alone,
                    &format!(
                        "FLUSH PRIVILEGES;\n\
                         CREATE DATABASE fail2ban;\n\
                         CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n\
                         CREATE USER '{GUEST}'@'%' IDENTIFIED BY '{PASSWORD}';\n\
                         GRANT ALL PRIVILEGES ON fail2ban.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
                    ),
                );
            })
        });
        let mut daemon = Daemon::new(template, "mysql");
        daemon.options = options.iter().map(ToString::to_string).collect();
        daemon.start_anywhere(MariaDb::ready, |daemon| MariaDb::command(&program, daemon));
        Some(MariaDb { daemon, program, client })
    }

    fn command(program: &Path, daemon: &Daemon) -> Command {
        let mut command = daemon.account.command(program);
        command.arg("--no-defaults").arg(format!("--datadir={}", daemon.data().display()));
        command.args(["--bind-address=127.0.0.1", &format!("--port={}", daemon.port)]);
        // Names in its data: short, and its own.
        command.args(["--socket=mariadb.sock", "--pid-file=mariadb.pid"]);
        // Clients are who they say, not who the resolver says.
        command.args(["--skip-name-resolve", "--innodb-buffer-pool-size=64M", SMALL_LOG]).args(&daemon.options);
        command
    }

    fn ready(line: &str) -> bool {
        line.ends_with("ready for connections.")
    }
}

/// What is copied for each server and read at each start, instead of 96 MiB.
const SMALL_LOG: &str = "--innodb-log-file-size=8M";

impl Database for MariaDb {
    fn driver(&self) -> &'static str {
        "mysql"
    }

    fn dsn(&self) -> String {
        format!("{USER}:{PASSWORD}@tcp(127.0.0.1:{})/fail2ban", self.daemon.port)
    }

    fn client(&self) -> Command {
        self.client_as(USER)
    }

    fn try_sql(&self, text: &str) -> Result<String, String> {
        // It writes a tab in a value as a backslash and a t.
        Ok(run_client(self.client(), text)?.replace('\t', "|"))
    }
}

impl DatabaseServer for MariaDb {
    fn client_as(&self, user: &str) -> Command {
        let mut command = Command::new(&self.client);
        without_settings(&mut command, "MYSQL");
        command.env("MYSQL_PWD", PASSWORD);
        command.args([
            "--no-defaults",
            "--batch",
            "--unbuffered",
            "--skip-column-names",
            "--protocol=tcp",
            "--host=127.0.0.1",
        ]);
        command.args([&format!("--port={}", self.daemon.port), &format!("--user={user}"), "fail2ban"]);
        command
    }

    fn stop(&mut self) {
        self.daemon.stop(Signal::KILL);
    }

    #[track_caller]
    fn start_again(&mut self) {
        let MariaDb { daemon, program, .. } = self;
        daemon.start(MariaDb::ready, |daemon| MariaDb::command(program, daemon)).unwrap_or_else(|why| panic!("{why}"));
    }

    fn freeze(&self) {
        self.daemon.freeze();
    }

    fn thaw(&self) {
        self.daemon.thaw();
    }
}

/// The process of a server and its data.
struct Daemon {
    // Before the directory: it ends before its data goes.
    peer: Option<Peer>,
    port: u16,
    options: Vec<String>,
    account: Account,
    directory: Directory,
}

impl Daemon {
    /// With a copy of a template's data.
    fn new(template: &Path, account: &str) -> Daemon {
        let (directory, account) = (open_directory(), Account::of(account));
        let daemon = Daemon { peer: None, port: free_port(), options: Vec::new(), account, directory };
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(template).arg(daemon.data());
        must(copy, "");
        daemon
    }

    fn data(&self) -> PathBuf {
        self.directory.0.join("data")
    }

    /// Starts it, on another port if somebody was quicker to take that one.
    #[track_caller]
    fn start_anywhere(&mut self, ready: fn(&str) -> bool, command: impl Fn(&Daemon) -> Command) {
        for _ in 0..5 {
            match self.start(ready, &command) {
                Ok(()) => return,
                Err(why) if why.contains("Address already in use") => self.port = free_port(),
                Err(why) => panic!("{why}"),
            }
        }
        panic!("every port that was free was taken");
    }

    /// Starts it, and waits until it says that it is ready. If it ends instead, returns what it said.
    #[track_caller]
    fn start(&mut self, ready: fn(&str) -> bool, command: impl Fn(&Daemon) -> Command) -> Result<(), String> {
        assert!(self.peer.is_none(), "it is running");
        let mut peer = Peer::start(command(self));
        let deadline = Instant::now() + DEADLINE;
        while !peer.lines().iter().any(|line| ready(line)) {
            if !peer.is_running() {
                return Err(peer.last_words().join("\n"));
            }
            assert!(Instant::now() < deadline, "not ready within {DEADLINE:?}:\n{}", peer.text());
            sleep(PAUSE);
        }
        self.peer = Some(peer);
        Ok(())
    }

    /// Ends it with a signal, if it is running.
    fn stop(&mut self, signal: Signal) {
        self.thaw();
        if let Some(mut peer) = self.peer.take() {
            send(peer.pid(), signal);
            let deadline = Instant::now() + DEADLINE;
            // Whoever takes longer is killed.
            while peer.is_running() && Instant::now() < deadline {
                sleep(PAUSE);
            }
        }
    }

    fn freeze(&self) {
        let peer = self.peer.as_ref().expect("a server that is running");
        // Itself first, so that it has no new children.
        suspend(peer.pid());
        children(peer.pid()).into_iter().for_each(suspend);
    }

    fn thaw(&self) {
        if let Some(peer) = &self.peer {
            children(peer.pid()).into_iter().chain([peer.pid()]).for_each(|pid| send(pid, Signal::CONT));
        }
    }
}

/// Who runs a server: its packages' user if the test is root's, whom servers refuse to run for.
struct Account(Option<(u32, u32)>);

impl Account {
    fn of(name: &str) -> Account {
        if !limits::is_root() {
            return Account(None);
        }
        let users = fs::read_to_string("/etc/passwd").expect("a list of users");
        let ids = |name: &str| {
            let line = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let mut fields = line.split(':').skip(1).map(|id| id.parse().ok());
            Some((fields.next()??, fields.next()??))
        };
        Account(Some(ids(name).or_else(|| ids("nobody")).expect("a user who is not root")))
    }

    /// Has it run a program, which has the number of the process that is started here.
    fn command(&self, program: &Path) -> Command {
        let Some((user, group)) = self.0 else { return Command::new(program) };
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
        // What Peer asks for is forgotten with the change of users.
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }
}

/// A folder `data` with the data of a server, made once for all servers of this process, which start with copies of it.
/// It is removed when the process ends.
fn template(account: &str, make: impl FnOnce(&Path, &Account)) -> PathBuf {
    static TEMPLATES: Mutex<Vec<Directory>> = Mutex::new(Vec::new());
    extern "C" fn remove() {
        if let Ok(mut templates) = TEMPLATES.lock() {
            templates.clear();
        }
    }
    let (directory, account) = (open_directory(), Account::of(account));
    let data = directory.0.join("data");
    fs::create_dir(&data).expect("a directory for data");
    fs::set_permissions(&data, Permissions::from_mode(0o700)).expect("a directory of ours");
    if let Some((user, group)) = account.0 {
        chown(&data, Some(user), Some(group)).expect("to give away a directory");
    }
    make(&data, &account);
    let mut templates = TEMPLATES.lock().expect("threads that do not panic here");
    if templates.is_empty() {
        limits::at_exit(remove);
    }
    templates.push(directory);
    data
}

/// A directory that other users may pass through.
fn open_directory() -> Directory {
    let directory = Directory::new();
    fs::set_permissions(&directory.0, Permissions::from_mode(0o711)).expect("a directory of ours");
    directory
}

fn folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from)).collect()
}

fn found(name: &str) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// If it is not, the calling test is skipped.
fn installed(name: &str) -> Option<PathBuf> {
    let found = found(name);
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Settings of whoever runs the tests are not meant for a client.
fn without_settings(command: &mut Command, prefix: &str) {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(prefix)) {
        command.env_remove(name);
    }
}

fn run_client(command: Command, text: &str) -> Result<String, String> {
    let output = run_command(command, text.as_bytes());
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() { Ok(said.trim_end().to_owned()) } else { Err(format!("{said}{complained}")) }
}

/// Runs a command that must do what it is for.
#[track_caller]
fn must(command: Command, input: &str) {
    let what = format!("{command:?}");
    if let Err(why) = run_client(command, input) {
        panic!("{what}: {why}");
    }
}

/// Processes may be gone at any time.
fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
}

/// Stops a process, and waits until all its threads have stopped.
#[track_caller]
fn suspend(pid: u32) {
    send(pid, Signal::STOP);
    super::wait_for("every thread to stop", || {
        let Ok(mut tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Some(()) };
        let stopped = tasks.all(|task| {
            let status = task.and_then(|task| fs::read_to_string(task.path().join("status")));
            status.is_ok_and(|status| ["State:\tT", "State:\tZ"].iter().any(|state| status.contains(state)))
        });
        stopped.then_some(())
    });
}

/// The children of a process.
fn children(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("the list of processes").flatten();
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in parentheses, may be anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent == Some(of)
    };
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

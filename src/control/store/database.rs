//! The shared database, on SQLite, PostgreSQL or MySQL: one connection, and everything that is asked over it.
//!
//! A call that fails leaves the connection in a state that nobody knows, so whoever calls drops it and makes another,
//! unless [`DatabaseFault::leaves_connection`] says that the database merely refused. Every call has a deadline. A load
//! reads one snapshot, and counts what it read: a result that was cut short is no result.

mod audit;
mod lists;

pub use lists::{Edited, There, Which};

use super::ban::{RawBan, StoredBan};
use super::contents::{Contents, ListName, ListReader, Row, TableName};
use super::dialect::Dialect;
use super::wall::Wall;
use crate::config::{DatabaseDriver, Dsn, Host, ServerDsn, Tls};
use sqlx::any::{AnyArguments, AnyConnectOptions, AnyRow};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, Row as _, SqlSafeStr as _};
use std::fmt;
use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// How long connecting and a small question may take: a database that is slower is as good as gone.
const QUESTION_DEADLINE: Duration = Duration::from_secs(10);

/// How long writing or reading a batch of bans may take.
const BATCH_DEADLINE: Duration = Duration::from_secs(30);

/// How long reading everything, and changing the schema, may take.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);

/// Rows of `patterns` that are read: what compiles in a reasonable time and memory.
pub const PATTERNS_MAX: usize = 10_000;

/// Rows of a list that are read: ten times what was asked for, 80 MiB in memory.
pub const LIST_ROWS_MAX: usize = 10_000_000;

/// Rows of a list in one piece: half a megabyte, so that no limit of any of the databases is met.
const LIST_PIECE: i64 = 10_000;

/// No id is lower that a database gives.
const BEFORE_ALL: i64 = i64::MIN + 1;

/// Bans in one statement: each has seventeen values, and SQLite takes 32,766 in each.
const BANS_PER_STATEMENT: usize = 500;

/// Bans read at a time.
const BANS_PER_READ: i64 = 5_000;

/// Bans deleted at a time when old ones are cleared away.
const PRUNED_AT_ONCE: i64 = 10_000;

/// What listeners on PostgreSQL wait for; the migration's triggers say the same.
pub const CHANNEL: &str = "mailfail2ban";

/// Why the database cannot be used. `Display` is a sentence, without the password.
#[derive(Debug)]
pub enum DatabaseFault {
    Sql(sqlx::Error),
    /// It did not answer in time.
    TimedOut(&'static str),
    /// Its schema is newer than this program knows.
    Newer(i64),
    /// The SQLite file that was there is not there any more.
    Gone(PathBuf),
    /// Another file took the SQLite file's place.
    Replaced(PathBuf),
    /// Fewer or more rows arrived than there are.
    Short {
        table: TableName,
        counted: usize,
        read: usize,
    },
    /// More rows than are read.
    TooMany {
        table: TableName,
        max: usize,
    },
    /// Something that every answer has was not there.
    Missing(&'static str),
    /// This user may not make triggers, without which nobody could tell what changed.
    NoTriggers(sqlx::Error),
}

impl fmt::Display for DatabaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseFault::Sql(why) => write!(f, "{why}"),
            DatabaseFault::TimedOut(what) => write!(f, "the database did not answer in time ({what})"),
            DatabaseFault::Newer(version) => write!(
                f,
                "the database's schema (version {version}) is newer than this program knows; it is not used. Run the \
                 newer version of the program"
            ),
            DatabaseFault::Gone(path) => write!(
                f,
                "{} is not there any more. Put it back; to begin with an empty database, create an empty file",
                path.display()
            ),
            DatabaseFault::Replaced(path) => write!(f, "{} is another file now", path.display()),
            DatabaseFault::Short { table, counted, read } => {
                write!(f, "table {} has {counted} rows, but {read} arrived", table.name())
            }
            DatabaseFault::TooMany { table, max } => {
                write!(f, "table {} has more than {max} rows, which is more than is read", table.name())
            }
            DatabaseFault::NoTriggers(why) => write!(
                f,
                "this user may not create triggers, which tell what has changed ({why}). Where a binary log is written, set \
                 log_bin_trust_function_creators = 1, or start once with the DSN of an administrator; else grant TRIGGER"
            ),
            DatabaseFault::Missing(what) => write!(f, "the database's answer has no {what}"),
        }
    }
}

impl From<sqlx::Error> for DatabaseFault {
    fn from(why: sqlx::Error) -> DatabaseFault {
        DatabaseFault::Sql(why)
    }
}

impl DatabaseFault {
    /// Whether the connection can be used further: the database answered, and said no.
    pub fn leaves_connection(&self) -> bool {
        matches!(self, DatabaseFault::Sql(sqlx::Error::Database(_)))
    }
}

pub type Result<T> = std::result::Result<T, DatabaseFault>;

/// The schema, a step at a time; only ever forward.
fn migrations(dialect: Dialect) -> Vec<Migration> {
    let files: &[(i64, &'static str, &'static str)] = match dialect {
        Dialect::Sqlite => &[
            (1, "schema", include_str!("../../../migrations/sqlite/0001_schema.sql")),
            (2, "kinds", include_str!("../../../migrations/sqlite/0002_kinds.sql")),
        ],
        Dialect::Postgres => &[
            (1, "schema", include_str!("../../../migrations/postgres/0001_schema.sql")),
            (2, "kinds", include_str!("../../../migrations/postgres/0002_kinds.sql")),
        ],
        Dialect::MySql => &[
            (1, "schema", include_str!("../../../migrations/mysql/0001_schema.sql")),
            (2, "triggers", include_str!("../../../migrations/mysql/0002_triggers.sql")),
            (3, "kinds", include_str!("../../../migrations/mysql/0003_kinds.sql")),
        ],
    };
    let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    files.iter().map(migration).collect()
}

/// One value of a statement.
enum Bind {
    Number(i64),
    Text(Option<String>),
}

impl From<&str> for Bind {
    fn from(text: &str) -> Bind {
        Bind::Text(Some(text.to_owned()))
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Bind {
        Bind::Number(number)
    }
}

/// What the tables of an empty database begin with: columns' names and texts.
#[derive(Clone, Debug, Default)]
pub struct Seed {
    pub patterns: Vec<Row>,
    pub ban: Row,
}

/// Some of the bans of other nodes.
#[derive(Debug)]
pub struct Portion {
    pub bans: Vec<StoredBan>,
    /// Rows that are no bans.
    pub unusable: usize,
    /// Where the next portion begins.
    pub cursor: i64,
    /// Whether there is one already.
    pub more: bool,
}

/// How often each table was changed; tables that are not there are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions([i64; TableName::ALL.len()]);

impl Versions {
    pub fn of(&self, table: TableName) -> i64 {
        self.0[table as usize]
    }

    /// The same, but with this version of one table.
    pub fn with_version(mut self, table: TableName, version: i64) -> Versions {
        self.0[table as usize] = version;
        self
    }

    /// The same, but as `newer` has it for `tables`.
    pub fn with(mut self, newer: &Versions, tables: &[TableName]) -> Versions {
        for table in tables {
            self.0[*table as usize] = newer.of(*table);
        }
        self
    }

    /// The tables in which they differ.
    pub fn changed(&self, since: &Versions) -> Vec<TableName> {
        TableName::ALL.into_iter().filter(|table| self.of(*table) != since.of(*table)).collect()
    }
}

/// Waits for an answer, but not for ever.
async fn within<T>(deadline: Duration, what: &'static str, answer: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(DatabaseFault::TimedOut(what)),
    }
}

/// The open connection.
#[derive(Debug)]
pub struct Database {
    connection: AnyConnection,
    dialect: Dialect,
    /// Of the database itself, whatever it is called: drawn when its tables were made.
    id: String,
    /// The SQLite file as it was opened: its path, device and inode.
    file: Option<(PathBuf, u64, u64)>,
    /// SQLite's own counter of others' changes, as it was last seen.
    data_version: i64,
}

impl Database {
    /// Connects, brings the schema up to date and fills an empty database. `may_create` says whether an SQLite file that
    /// is not there is made.
    pub async fn open(dsn: &Dsn, may_create: bool, seed: &Seed, draw: u64) -> Result<Database> {
        let mut database = within(QUESTION_DEADLINE, "connecting", Database::connect(dsn, may_create)).await?;
        within(LOAD_DEADLINE, "bringing the schema up to date", database.migrate()).await?;
        within(QUESTION_DEADLINE, "filling an empty database", database.seed(seed, draw)).await?;
        Ok(database)
    }

    async fn connect(dsn: &Dsn, may_create: bool) -> Result<Database> {
        sqlx::any::install_default_drivers();
        let mut file = None;
        let dialect = match dsn {
            Dsn::Sqlite { path } => {
                if !may_create && !path.exists() {
                    return Err(DatabaseFault::Gone(path.clone()));
                }
                file = Some(path.clone());
                Dialect::Sqlite
            }
            Dsn::Server(server) => server.driver.into(),
        };
        let options: AnyConnectOptions = AnyConnectOptions::from_url(&url(dsn)?)?;
        let mut connection = options.disable_statement_logging().connect().await?;
        for statement in dialect.session() {
            match sqlx::raw_sql(*statement).execute(&mut connection).await {
                // An older server does not know it.
                Ok(_) | Err(sqlx::Error::Database(_)) => {}
                Err(why) => return Err(why.into()),
            }
        }
        let file = file.and_then(|path| inode(&path).map(|(device, inode)| (path, device, inode)));
        Ok(Database { connection, dialect, id: String::new(), file, data_version: 0 })
    }

    async fn migrate(&mut self) -> Result<()> {
        let sql = format!("SELECT {} FROM _sqlx_migrations WHERE success", self.dialect.text("MAX(version)"));
        let newest = match self.rows(sql, Vec::new()).await {
            Ok(rows) => rows.into_iter().next().and_then(|row| number(&row, 0)),
            // Not there yet, or not to be read, which the migrator will say.
            Err(fault) if fault.leaves_connection() => None,
            Err(fault) => return Err(fault),
        };
        let migrations = migrations(self.dialect);
        let known = migrations.last().map_or(0, |migration| migration.version);
        match newest {
            Some(version) if version > known => return Err(DatabaseFault::Newer(version)),
            // Without writing anything: the database may be read-only.
            Some(version) if version == known => return Ok(()),
            _ => {}
        }
        let mut migrator = Migrator::with_migrations(migrations);
        if self.dialect == Dialect::MySql {
            // The migrator's own lock waits for ever, which MariaDB takes for a mistake and does not lock at all. This one
            // is let go with the connection.
            let locked = self.rows(format!("SELECT {}", self.dialect.text("GET_LOCK('mailfail2ban', 60)")), Vec::new());
            if locked.await?.first().and_then(|row| number(row, 0)) != Some(1) {
                return Err(DatabaseFault::TimedOut("waiting for another node that brings the schema up to date"));
            }
            migrator.set_locking(false);
            // MySQL has no transactions for schemas. What was begun and cut is done again, which these statements bear.
            match self.run("DELETE FROM _sqlx_migrations WHERE success = 0").await {
                Err(fault) if !fault.leaves_connection() => return Err(fault),
                _ => {}
            }
        }
        let migrated = match migrator.run(&mut self.connection).await {
            Ok(()) => Ok(()),
            // SQLite has no lock for it. Another node that began at the same moment has done it, or is about to.
            Err(_) if self.dialect == Dialect::Sqlite && self.is_migrated_soon(known).await => Ok(()),
            Err(MigrateError::VersionMissing(version)) => Err(DatabaseFault::Newer(version)),
            Err(MigrateError::Execute(why) | MigrateError::ExecuteMigration(why, _)) if may_not_trigger(&why) => {
                Err(DatabaseFault::NoTriggers(why))
            }
            Err(MigrateError::Execute(why) | MigrateError::ExecuteMigration(why, _)) => Err(why.into()),
            Err(other) => Err(sqlx::Error::Migrate(Box::new(other)).into()),
        };
        if self.dialect == Dialect::MySql && migrated.is_ok() {
            self.rows("SELECT CAST(RELEASE_LOCK('mailfail2ban') AS CHAR)".to_owned(), Vec::new()).await?;
        }
        migrated
    }

    async fn is_migrated_soon(&mut self, version: i64) -> bool {
        let sql = format!("SELECT {} FROM _sqlx_migrations WHERE success", self.dialect.text("MAX(version)"));
        for _ in 0..20 {
            let rows = self.rows(sql.clone(), Vec::new()).await.unwrap_or_default();
            if rows.first().and_then(|row| number(row, 0)) == Some(version) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// Fills an empty database, once in its life, whichever of several nodes comes first.
    async fn seed(&mut self, seed: &Seed, draw: u64) -> Result<()> {
        let counted = self.count("SELECT COUNT(*) FROM mailfail2ban_versions").await?;
        if counted < TableName::ALL.len() {
            // Somebody deleted some. Where it may not be written, what they would tell is only seen at each refresh.
            for table in TableName::ALL {
                let sql = "INSERT INTO mailfail2ban_versions (name, version) VALUES (?, 0)";
                match self.execute(sql, vec![table.name().into()]).await {
                    Err(fault) if !fault.leaves_connection() => return Err(fault),
                    _ => {}
                }
            }
        }
        if let Some(id) = self.meta("database").await? {
            self.id = id;
            return Ok(());
        }
        self.run(self.dialect.begin_write()).await?;
        // The second of two nodes waits here until the first has done it.
        self.execute("UPDATE mailfail2ban_versions SET version = version WHERE name = 'patterns'", Vec::new()).await?;
        if let Some(id) = self.meta("database").await? {
            self.run("ROLLBACK").await?;
            self.id = id;
            return Ok(());
        }
        if self.count("SELECT COUNT(*) FROM patterns").await? == 0 {
            for row in &seed.patterns {
                self.insert("patterns", row).await?;
            }
        }
        if self.count("SELECT COUNT(*) FROM ban_config WHERE name = 'default'").await? == 0 {
            let mut row = vec![("name".to_owned(), Some("default".to_owned()))];
            row.extend(seed.ban.iter().cloned());
            self.insert("ban_config", &row).await?;
        }
        let id = format!("{draw:016x}");
        self.execute("INSERT INTO mailfail2ban_meta (name, value) VALUES ('database', ?)", vec![id.as_str().into()])
            .await?;
        self.run("COMMIT").await?;
        self.id = id;
        Ok(())
    }

    async fn insert(&mut self, table: &str, row: &Row) -> Result<()> {
        let names: Vec<&str> = row.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<&str> = names.iter().map(|name| self.dialect.value_of(name)).collect();
        let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "));
        let binds = row.iter().map(|(_, value)| Bind::Text(value.clone())).collect();
        self.execute(&sql, binds).await.map(drop)
    }

    /// Calls the database anew, because it is not what it was: so every node hears of it, whenever it looks. Another node
    /// may have done so already.
    pub async fn rename(&mut self, draw: u64) -> Result<()> {
        let binds = vec![format!("{draw:016x}").as_str().into(), self.id.as_str().into()];
        let sql = "UPDATE mailfail2ban_meta SET value = ? WHERE name = 'database' AND value = ?";
        within(QUESTION_DEADLINE, "naming the database anew", self.execute(sql, binds)).await?;
        self.versions().await.map(drop)
    }

    /// Of the database itself, whatever it is called.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether anything may have changed since the last call; cheaper than [`Database::versions`], where there is a way.
    pub async fn may_have_changed(&mut self) -> Result<bool> {
        if let Some((path, device, inode_then)) = &self.file {
            match inode(path) {
                None => return Err(DatabaseFault::Gone(path.clone())),
                Some(now) if now != (*device, *inode_then) => return Err(DatabaseFault::Replaced(path.clone())),
                Some(_) => {}
            }
        }
        if self.dialect != Dialect::Sqlite {
            return Ok(true);
        }
        // Counts what others commit, not what this connection does.
        let asked = async {
            let row: AnyRow = sqlx::query("PRAGMA data_version").fetch_one(&mut self.connection).await?;
            Ok(row.try_get::<i64, _>(0).or_else(|_| row.try_get::<i32, _>(0).map(i64::from))?)
        };
        let version = within(QUESTION_DEADLINE, "asking for changes", asked).await?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    /// How often each table was changed.
    pub async fn versions(&mut self) -> Result<Versions> {
        within(QUESTION_DEADLINE, "asking for changes", self.read_versions()).await
    }

    async fn read_versions(&mut self) -> Result<Versions> {
        let [name, version, value] = ["name", "version", "value"].map(|column| self.dialect.text(column));
        let sql = format!(
            "SELECT {name}, {version} FROM mailfail2ban_versions UNION ALL SELECT {name}, {value} FROM mailfail2ban_meta \
             WHERE name = 'database'"
        );
        let mut versions = Versions::default();
        for mut row in self.rows(sql, Vec::new()).await? {
            let Some(Some(name)) = row.first() else { continue };
            match TableName::from_name(name) {
                Some(table) => versions.0[table as usize] = number(&row, 1).unwrap_or_default(),
                None => {
                    if let Some(id) = row.get_mut(1).and_then(Option::take) {
                        self.id = id;
                    }
                }
            }
        }
        Ok(versions)
    }

    /// Reads `tables` in one snapshot, the others are as in `before`; and the versions of that snapshot.
    pub async fn load(&mut self, before: &Contents, tables: &[TableName]) -> Result<(Contents, Versions)> {
        within(LOAD_DEADLINE, "reading the tables", self.read_tables(before, tables)).await
    }

    async fn read_tables(&mut self, before: &Contents, tables: &[TableName]) -> Result<(Contents, Versions)> {
        let mut contents = before.clone();
        for statement in self.dialect.begin_snapshot() {
            self.run(statement).await?;
        }
        let versions = self.read_versions().await?;
        for table in tables {
            match table {
                TableName::Patterns => (contents.patterns, contents.patterns_more) = self.read_patterns().await?,
                TableName::BanConfig => contents.ban = self.read_ban_config().await?,
                TableName::Whitelist => contents.whitelist = self.read_list(ListName::Whitelist).await?,
                TableName::Blacklist => contents.blacklist = self.read_list(ListName::Blacklist).await?,
                TableName::Bans => {}
            }
        }
        self.run("COMMIT").await?;
        Ok((contents, versions))
    }

    async fn read_patterns(&mut self) -> Result<(Vec<Row>, usize)> {
        const COLUMNS: [&str; 12] = [
            "name",
            "regex",
            "ip_group",
            "severity",
            "description",
            "enabled",
            "program",
            "weight",
            "examples",
            "kind",
            "versions",
            "refused_by",
        ];
        let all = self.count("SELECT COUNT(*) FROM patterns").await?;
        let counted = all.min(PATTERNS_MAX);
        let columns = COLUMNS.map(|column| self.dialect.text(column)).join(", ");
        let sql = format!("SELECT {columns} FROM patterns ORDER BY id LIMIT {PATTERNS_MAX}");
        let rows = self.rows(sql, Vec::new()).await?;
        if rows.len() != counted {
            return Err(DatabaseFault::Short { table: TableName::Patterns, counted, read: rows.len() });
        }
        Ok((rows.into_iter().map(|row| named(&COLUMNS, row)).collect(), all - counted))
    }

    async fn read_ban_config(&mut self) -> Result<Option<Row>> {
        const COLUMNS: [&str; 7] = [
            "initial_ban_time_seconds",
            "max_ban_time_seconds",
            "escalation_factor",
            "max_attempts",
            "time_window_seconds",
            "cleanup_interval_seconds",
            "max_memory_ttl_seconds",
        ];
        let columns = COLUMNS.map(|column| self.dialect.text(column)).join(", ");
        let enabled = self.dialect.is_enabled();
        let sql = format!("SELECT {columns} FROM ban_config WHERE name = 'default' AND {enabled}");
        let rows = self.rows(sql, Vec::new()).await?;
        Ok(rows.into_iter().next().map(|row| named(&COLUMNS, row)))
    }

    /// A list of a million rows comes in a hundred pieces, each gathered to one text by the database itself.
    async fn read_list(&mut self, list: ListName) -> Result<super::contents::List> {
        let table = list.table();
        let enabled = self.dialect.is_enabled();
        let sql = format!("SELECT COUNT(*) FROM {} WHERE {enabled} AND id > {BEFORE_ALL}", table.name());
        let counted = self.count(&sql).await?;
        if counted > LIST_ROWS_MAX {
            return Err(DatabaseFault::TooMany { table, max: LIST_ROWS_MAX });
        }
        let sql = self.dialect.list_piece(table.name());
        let mut reader = ListReader::new(list);
        let (mut after, mut read) = (BEFORE_ALL, 0usize);
        loop {
            let row = self.raw_rows(sql.clone(), vec![after.into(), LIST_PIECE.into()]).await?;
            let Some(row) = row.into_iter().next() else { return Err(DatabaseFault::Missing("count of rows")) };
            let (Some(in_piece), last) = (number(&row, 0), number(&row, 1)) else {
                return Err(DatabaseFault::Missing("count of rows"));
            };
            let (Some(last), true) = (last, in_piece > 0) else { break };
            let text = row.get(2).and_then(Option::as_deref).unwrap_or_default();
            for address in text.split('\n') {
                read += 1;
                reader.take(address);
            }
            after = last;
        }
        if read != counted {
            return Err(DatabaseFault::Short { table, counted, read });
        }
        Ok(super::contents::List { rows: self.count_rows(list).await?, ..reader.finish() })
    }

    /// Writes bans for the other nodes to see, in one transaction. Returns the number of the last.
    pub async fn tell(&mut self, bans: &[StoredBan], wall: &Wall) -> Result<i64> {
        let told = within(BATCH_DEADLINE, "writing bans", self.write_bans(bans, wall)).await;
        self.take_back_if_refused(told).await
    }

    async fn write_bans(&mut self, bans: &[StoredBan], wall: &Wall) -> Result<i64> {
        self.run(self.dialect.begin_write()).await?;
        // The lock on this row is kept until the end, so the order of the numbers is the order of the commits, and who
        // reads up to a number misses none.
        let count = i64::try_from(bans.len()).unwrap_or(i64::MAX);
        self.execute("UPDATE mailfail2ban_versions SET version = version + ? WHERE name = 'bans'", vec![count.into()])
            .await?;
        let last = self.count("SELECT version FROM mailfail2ban_versions WHERE name = 'bans'").await?;
        let mut seq = i64::try_from(last).unwrap_or(i64::MAX) - count;
        let now = wall.at(wall.now());
        let after = self.dialect.after_now();
        let one = match self.dialect {
            Dialect::Postgres => format!(
                "(?, ?, ?, ?, ?, ?, CAST(? AS INTEGER), ?, ?, ?, ?, {after}, {after}, CASE WHEN CAST(? AS BIGINT) = 1 \
                 THEN {after} END, ?, ?)"
            ),
            _ => format!("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {after}, {after}, CASE WHEN ? = 1 THEN {after} END, ?, ?)"),
        };
        for chunk in bans.chunks(BANS_PER_STATEMENT) {
            let rows = vec![one.as_str(); chunk.len()].join(", ");
            let sql = format!(
                "INSERT INTO bans (seq, node, run, serial, ip_address, pattern, severity, failures, offences, reason, \
                 created_by, banned_at, expires_at, lifted_at, lifted_reason, lifted_by) VALUES {rows}{}",
                self.dialect.or_lift()
            );
            let mut binds = Vec::with_capacity(chunk.len() * 17);
            for ban in chunk {
                seq += 1;
                binds.push(seq.into());
                binds.push(ban.key.node.as_str().into());
                binds.push(ban.key.run.into());
                binds.push(ban.key.serial.into());
                binds.push(ban.client.to_string().as_str().into());
                binds.push(ban.pattern.as_str().into());
                binds.push(i64::from(ban.severity.level()).into());
                binds.push(i64::from(ban.failures).into());
                binds.push(i64::from(ban.offences).into());
                binds.push(Bind::Text(ban.reason.clone()));
                binds.push(Bind::Text(ban.created_by.clone()));
                // Clocks of nodes differ; how long ago and how long from now does not.
                binds.push((ban.banned_at - now).into());
                binds.push((ban.expires_at - now).into());
                binds.push(i64::from(ban.lifted.is_some()).into());
                binds.push(ban.lifted.map_or(0, |(at, _)| at - now).into());
                binds.push(Bind::Text(ban.lifted.map(|(_, why)| why.name().to_owned())));
                binds.push(Bind::Text(ban.lifted_by.clone()));
            }
            self.execute(&sql, binds).await?;
        }
        if self.dialect == Dialect::Postgres {
            self.run("NOTIFY mailfail2ban, 'bans'").await?;
        }
        self.run("COMMIT").await?;
        Ok(seq)
    }

    /// The next bans after `cursor`; also those of this node, which may have lost them.
    pub async fn bans_after(&mut self, cursor: i64, wall: &Wall) -> Result<Portion> {
        within(BATCH_DEADLINE, "reading bans", self.read_bans(cursor, wall)).await
    }

    async fn read_bans(&mut self, cursor: i64, wall: &Wall) -> Result<Portion> {
        let dialect = self.dialect;
        let plain = ["seq", "node", "run", "serial", "ip_address", "pattern", "severity", "failures", "offences"];
        let mut columns: Vec<String> = plain.iter().map(|column| dialect.text(column)).collect();
        columns.push(dialect.text("reason"));
        columns.extend(["banned_at", "expires_at", "lifted_at"].map(|column| dialect.millis_from_now(column)));
        columns.extend(["lifted_reason", "created_by", "lifted_by"].map(|column| dialect.text(column)));
        // By the table's column: PostgreSQL calls its text by the same name, and would order by that.
        let sql = format!("SELECT {} FROM bans WHERE seq > ? ORDER BY bans.seq LIMIT ?", columns.join(", "));
        // Read before the rows: whatever is committed later has a higher number.
        let newest = self.read_versions().await?.of(TableName::Bans);
        let rows = self.rows(sql, vec![cursor.into(), BANS_PER_READ.into()]).await?;
        let now = wall.at(wall.now());
        let mut bans = Vec::with_capacity(rows.len());
        let count = rows.len();
        let more = i64::try_from(count).is_ok_and(|count| count == BANS_PER_READ);
        let last = rows.last().filter(|_| more).and_then(|row| number(row, 0));
        let cursor = last.unwrap_or(cursor.max(newest));
        for mut row in rows {
            let text = |row: &mut Vec<Option<String>>, at: usize| row.get_mut(at).and_then(Option::take);
            let time = |row: &[Option<String>], at| number(row, at).map(|millis| now.saturating_add(millis));
            let (Some(banned_at), Some(expires_at)) = (time(&row, 10), time(&row, 11)) else { continue };
            let raw = RawBan {
                run: number(&row, 2).unwrap_or_default(),
                serial: number(&row, 3).unwrap_or_default(),
                severity: number(&row, 6).unwrap_or_default(),
                failures: number(&row, 7).unwrap_or(-1),
                offences: number(&row, 8).unwrap_or(-1),
                banned_at,
                expires_at,
                lifted_at: time(&row, 12),
                node: text(&mut row, 1).unwrap_or_default(),
                ip_address: text(&mut row, 4).unwrap_or_default(),
                pattern: text(&mut row, 5).unwrap_or_default(),
                reason: text(&mut row, 9),
                lifted_reason: text(&mut row, 13),
                created_by: text(&mut row, 14),
                lifted_by: text(&mut row, 15),
            };
            bans.extend(raw.check());
        }
        let unusable = count - bans.len();
        Ok(Portion { bans, unusable, cursor, more })
    }

    /// Clears away bans that ended, and whose offence happened, longer ago than `memory`. True if more may be left.
    pub async fn prune(&mut self, memory: Duration) -> Result<bool> {
        let millis = i64::try_from(memory.as_millis()).unwrap_or(i64::MAX / 1000);
        let binds = vec![millis.into(), millis.into(), PRUNED_AT_ONCE.into()];
        let sql = self.dialect.prune();
        let pruned = async { self.execute_as_is(sql, binds).await };
        Ok(within(BATCH_DEADLINE, "clearing old bans away", pruned).await? == PRUNED_AT_ONCE.unsigned_abs())
    }

    async fn meta(&mut self, name: &str) -> Result<Option<String>> {
        let sql = format!("SELECT {} FROM mailfail2ban_meta WHERE name = ?", self.dialect.text("value"));
        Ok(self.rows(sql, vec![name.into()]).await?.into_iter().next().and_then(|row| row.into_iter().next()?))
    }

    async fn count(&mut self, sql: &str) -> Result<usize> {
        let row = self.raw_rows(sql.to_owned(), Vec::new()).await?;
        let count = row.first().and_then(|row| number(row, 0)).and_then(|count| usize::try_from(count).ok());
        count.ok_or(DatabaseFault::Missing("count of rows"))
    }

    /// A statement without values.
    async fn run(&mut self, sql: &'static str) -> Result<()> {
        sqlx::raw_sql(sql).execute(&mut self.connection).await?;
        Ok(())
    }

    /// A statement that changes something, written with `?`. How many rows it changed.
    async fn execute(&mut self, sql: &str, binds: Vec<Bind>) -> Result<u64> {
        self.execute_as_is(self.dialect.statement(sql), binds).await
    }

    async fn execute_as_is(&mut self, sql: String, binds: Vec<Bind>) -> Result<u64> {
        let query = bound(sql, binds);
        Ok(query.execute(&mut self.connection).await?.rows_affected())
    }

    /// The rows of a question written with `?`.
    async fn rows(&mut self, sql: String, binds: Vec<Bind>) -> Result<Vec<Vec<Option<String>>>> {
        self.raw_rows(self.dialect.statement(&sql), binds).await
    }

    async fn raw_rows(&mut self, sql: String, binds: Vec<Bind>) -> Result<Vec<Vec<Option<String>>>> {
        let rows = bound(sql, binds).fetch_all(&mut self.connection).await?;
        let texts = |row: AnyRow| (0..row.len()).map(|at| text_of(&row, at)).collect();
        Ok(rows.into_iter().map(texts).collect())
    }
}

/// Whether MySQL refuses a trigger: 1419 while it writes a binary log, 1142 for want of a privilege (Server Error Message
/// Reference).
fn may_not_trigger(fault: &sqlx::Error) -> bool {
    let fault = fault.as_database_error();
    let number = fault.and_then(|fault| fault.try_downcast_ref::<MySqlDatabaseError>()).map(MySqlDatabaseError::number);
    matches!(number, Some(1419 | 1142))
}

fn bound(sql: String, binds: Vec<Bind>) -> sqlx::query::Query<'static, sqlx::Any, AnyArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for bind in binds {
        query = match bind {
            Bind::Number(number) => query.bind(number),
            Bind::Text(text) => query.bind(text),
        };
    }
    query
}

/// A value as text. One of another type than text is printed; what cannot be read at all is a replacement character, which
/// no rule accepts.
fn text_of(row: &AnyRow, at: usize) -> Option<String> {
    if let Ok(text) = row.try_get::<Option<String>, _>(at) {
        return text;
    }
    if let Ok(bytes) = row.try_get::<Vec<u8>, _>(at) {
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    let number = row.try_get::<i64, _>(at).map(|number| number.to_string());
    number.or_else(|_| row.try_get::<f64, _>(at).map(|number| number.to_string())).ok().or(Some("\u{fffd}".to_owned()))
}

fn number(row: &[Option<String>], at: usize) -> Option<i64> {
    row.get(at)?.as_deref()?.parse().ok()
}

fn named(columns: &[&str], row: Vec<Option<String>>) -> Row {
    columns.iter().map(|column| (*column).to_owned()).zip(row).collect()
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// The URL by which sqlx knows the database.
fn url(dsn: &Dsn) -> Result<Url> {
    let broken = |_| DatabaseFault::Missing("address that makes a URL");
    match dsn {
        Dsn::Sqlite { path } => {
            let path = path.display().to_string();
            let path = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
            Url::parse(&format!("sqlite:{path}?mode=rwc")).map_err(broken)
        }
        Dsn::Server(ServerDsn { driver, user, password, host, database, tls, ca_file }) => {
            let postgres = *driver == DatabaseDriver::Postgres;
            let scheme = if postgres { "postgres" } else { "mysql" };
            let mut url = Url::parse(&format!("{scheme}://localhost/")).map_err(broken)?;
            let unfit = |()| DatabaseFault::Missing("address that makes a URL");
            url.set_username(user).map_err(unfit)?;
            url.set_password(password.as_ref().map(|password| password.reveal())).map_err(unfit)?;
            url.path_segments_mut().map_err(unfit)?.clear().push(database);
            let mut parameters: Vec<(&str, String)> = Vec::new();
            match host {
                Host::Tcp { host, port } => {
                    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                    url.set_host(Some(&host)).map_err(broken)?;
                    url.set_port(Some(*port)).map_err(unfit)?;
                }
                Host::Socket { path, port } => {
                    if postgres {
                        url.set_port(Some(*port)).map_err(unfit)?;
                    }
                    parameters.push((if postgres { "host" } else { "socket" }, path.display().to_string()));
                }
            }
            let mode = match (postgres, tls) {
                (true, Tls::Off) => "disable",
                (true, Tls::Prefer) => "prefer",
                (true, Tls::Require) => "require",
                (true, Tls::VerifyCa) => "verify-ca",
                (true, Tls::VerifyFull) => "verify-full",
                (false, Tls::Off) => "DISABLED",
                (false, Tls::Prefer) => "PREFERRED",
                (false, Tls::Require) => "REQUIRED",
                (false, Tls::VerifyCa) => "VERIFY_CA",
                (false, Tls::VerifyFull) => "VERIFY_IDENTITY",
            };
            parameters.push((if postgres { "sslmode" } else { "ssl-mode" }, mode.to_owned()));
            if let Some(file) = ca_file {
                parameters.push((if postgres { "sslrootcert" } else { "ssl-ca" }, file.display().to_string()));
            }
            if postgres {
                parameters.push(("application_name", "mailfail2ban".to_owned()));
            }
            url.query_pairs_mut().extend_pairs(parameters);
            Ok(url)
        }
    }
}

/// The address for a second connection that waits for notifications; `None` where there are none.
pub fn listening_url(dsn: &Dsn) -> Option<String> {
    match dsn {
        Dsn::Server(ServerDsn { driver: DatabaseDriver::Postgres, .. }) => url(dsn).ok().map(String::from),
        _ => None,
    }
}

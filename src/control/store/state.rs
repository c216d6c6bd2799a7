//! The local state: an SQLite file of this node's own, for what must survive a restart, a crash and an outage.
//!
//! It holds every ban that this node decided or learned, as long as offences are remembered; the last good copy of the
//! shared database; and how far the other nodes were told. It is written behind the decisions, as they come, in one
//! transaction for all that wait: SQLite's write-ahead log without a sync for each, so what was committed survives the
//! end of the process at once, and a loss of power up to the system's last write-back.

mod audit;
mod lists;

use super::ban::{BanKey, RawBan, Said, StoredBan};
use super::contents::{Contents, ListName, Row, TableName};
use super::wall::{Tie, Wall, boot_id};
use crate::engine::address::Network;
use crate::engine::ban::{Act, Ban, Decision, Lift};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteRow, SqliteSynchronous};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, QueryBuilder, Row as _, SqlSafeStr as _, Sqlite,
    SqliteConnection,
};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Rows in one statement: SQLite takes 32,766 values in each, and a ban has sixteen.
const ROWS_PER_STATEMENT: usize = 1_000;

/// How long a statement waits for another process that has the file locked, as somebody with `sqlite3` may. What cannot be
/// written then is tried again.
const BUSY: Duration = Duration::from_secs(1);

/// Rows deleted at a time when old ones are cleared away, so that decisions do not wait long.
const PRUNED_AT_ONCE: i64 = 10_000;

/// The name of the file in the directory.
const FILE_NAME: &str = "state.db";

/// Why the state cannot be used.
#[derive(Debug)]
pub enum StateFault {
    /// The directory is not to be had: a mistake in the configuration.
    Directory(PathBuf, io::Error),
    /// Another process uses it.
    InUse(PathBuf),
    /// It was written by a newer version of the program.
    Newer(PathBuf),
    /// What SQLite or the disk says: it may pass.
    Sql(sqlx::Error),
}

impl fmt::Display for StateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateFault::Directory(path, why) => write!(
                f,
                "cannot use {} for the state: {why}. Set runtime.state_dir to a directory that this user may write",
                path.display()
            ),
            StateFault::InUse(path) => write!(
                f,
                "{} is in use by another running mailfail2ban. Set runtime.state_dir to a directory of its own for \
                 each",
                path.display()
            ),
            StateFault::Newer(path) => write!(
                f,
                "{} was written by a newer version of this program. Run that version, or set runtime.state_dir to \
                 another directory",
                path.display()
            ),
            StateFault::Sql(why) => write!(f, "the state cannot be used: {why}"),
        }
    }
}

impl From<sqlx::Error> for StateFault {
    fn from(why: sqlx::Error) -> StateFault {
        StateFault::Sql(why)
    }
}

/// Where the state was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// On disk, as it was left or new.
    Kept,
    /// What was there is broken. It was put aside, and this is a new one.
    Broken,
    /// The disk does not take it now: it lives in memory until it does. What was on disk could be read.
    InMemory,
    /// The same, but what was there could not be read either.
    Unreadable,
    /// There is no directory for it: it ends with the process.
    Nowhere,
}

/// What was decided, with the pattern's name: to be stored.
#[derive(Clone, Debug)]
pub struct Kept {
    pub decision: Decision,
    pub pattern: Arc<str>,
    /// What an operator said of it.
    pub said: Option<Arc<Said>>,
}

impl Kept {
    fn stored(&self, ban: &Ban, run: i64, wall: &Wall) -> StoredBan {
        let Kept { decision, pattern, said } = self;
        StoredBan {
            // The node's name is in a table of its own.
            key: BanKey { node: String::new(), run, serial: decision.serial.cast_signed() },
            client: decision.client,
            pattern: pattern.to_string(),
            severity: ban.severity,
            failures: ban.failures,
            offences: ban.offences,
            reason: said.as_ref().and_then(|said| said.reason.clone()),
            created_by: said.as_ref().map(|said| said.created_by.clone()),
            banned_at: wall.at(decision.at),
            expires_at: wall.at(ban.until),
            lifted: None,
            lifted_by: None,
        }
    }
}

/// The open state.
#[derive(Debug)]
pub struct State {
    connection: SqliteConnection,
    /// This node's name, and its number in the file.
    node: String,
    node_id: i64,
    run: i64,
    /// The newest change, counted up with each that the others must be told.
    change: i64,
    /// The newest that they were told, and how many bans they must still be told of, more or less.
    told: i64,
    untold: u64,
    /// Which database was read last, and how far.
    cursor: Option<(String, i64)>,
    /// Where in it those begin that were learned and could not be stored.
    behind: Option<(String, i64)>,
    /// The newest entry of the audit, how many this run made, and which database was told up to which.
    audit_newest: i64,
    audit_serial: i64,
    audit_told: Option<(String, i64)>,
    /// The file where it belongs, while it lives in memory or in a file that was deleted.
    home: Option<PathBuf>,
    /// What is there could not be read, so nothing of it may be taken for removed.
    is_blind: bool,
    /// The file it is in, with its device and inode.
    file: Option<(PathBuf, u64, u64)>,
    /// A transaction was begun and not ended: whoever began it was given up.
    open: bool,
    nodes: HashMap<String, i64>,
    /// Held as long as the process lives.
    lock: Option<File>,
}

impl State {
    /// Opens the state in `directory`, made if it is not there; in memory if there is none. `name` is what the node is
    /// called; a few digits of its own are added when the state is made, so that two of that name are two.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used by mistake. What may pass (a full disk) leaves the state in memory.
    pub async fn open(
        directory: Option<&Path>,
        name: &str,
        wall: &Wall,
        draw: u32,
    ) -> Result<(State, Found), StateFault> {
        let Some(directory) = directory else {
            return Ok((State::prepare(memory(draw).await?, name, wall, draw, None).await?, Found::Nowhere));
        };
        let path = directory.join(FILE_NAME);
        let lock = match lock(directory) {
            Ok(lock) => lock,
            Err(StateFault::Directory(_, why)) if is_passing(&why) => {
                return State::in_memory(&path, name, wall, draw, None).await;
            }
            Err(fault) => return Err(fault),
        };
        let opened = match connect(&path).await {
            Ok(connection) => State::prepare(connection, name, wall, draw, Some(&lock)).await,
            Err(why) => Err(why.into()),
        };
        match opened {
            Ok(state) => Ok((state.at(&path), Found::Kept)),
            Err(StateFault::Newer(_)) => Err(StateFault::Newer(path)),
            Err(StateFault::Sql(why)) if is_broken(&why) => {
                let aside = format!("{FILE_NAME}.broken-{}", wall.at(wall.now()) / 1000);
                // Its journal belongs to it, and would be played into the new one.
                for ending in ["-wal", "-shm", ""] {
                    let (from, to) = (format!("{FILE_NAME}{ending}"), format!("{aside}{ending}"));
                    match std::fs::rename(directory.join(from), directory.join(to)) {
                        Err(why) if why.kind() != io::ErrorKind::NotFound => {
                            return Err(StateFault::Directory(path, why));
                        }
                        _ => {}
                    }
                }
                let connection = connect(&path).await?;
                Ok((State::prepare(connection, name, wall, draw, Some(&lock)).await?.at(&path), Found::Broken))
            }
            Err(StateFault::Sql(_)) => State::in_memory(&path, name, wall, draw, Some(&lock)).await,
            Err(fault) => Err(fault),
        }
    }

    fn at(mut self, path: &Path) -> State {
        self.file = inode_of(path).map(|(device, inode)| (path.to_owned(), device, inode));
        self
    }

    /// A state in memory, with what can be read of the one on disk, until the disk takes it.
    async fn in_memory(
        path: &Path,
        name: &str,
        wall: &Wall,
        draw: u32,
        lock: Option<&File>,
    ) -> Result<(State, Found), StateFault> {
        let mut connection = memory(draw).await?;
        migrate(&mut connection).await?;
        let read = path.exists() && read_from(path, &memory_name(draw)).await;
        let found = if read || !path.exists() { Found::InMemory } else { Found::Unreadable };
        let mut state = State::prepare(connection, name, wall, draw, lock).await?;
        state.home = Some(path.to_owned());
        state.is_blind = found == Found::Unreadable;
        Ok((state, found))
    }

    async fn prepare(
        mut connection: SqliteConnection,
        name: &str,
        wall: &Wall,
        draw: u32,
        lock: Option<&File>,
    ) -> Result<State, StateFault> {
        migrate(&mut connection).await?;
        let lock = lock.map(File::try_clone).transpose();
        let lock = lock.map_err(|why| StateFault::Directory(PathBuf::from(FILE_NAME), why))?;
        let mut state = State {
            connection,
            node: String::new(),
            node_id: 0,
            run: 0,
            change: 0,
            told: 0,
            untold: 0,
            cursor: None,
            behind: None,
            audit_newest: 0,
            audit_serial: 0,
            audit_told: None,
            home: None,
            is_blind: false,
            file: None,
            open: false,
            nodes: HashMap::new(),
            lock,
        };
        state.node = match state.meta("node").await? {
            // A name that was set later is taken over, the digits stay.
            Some(node) if node.strip_prefix(name).is_some_and(|rest| rest.len() == 9 && rest.starts_with('-')) => node,
            Some(node) => match node.rsplit_once('-') {
                Some((_, digits)) => format!("{name}-{digits}"),
                None => node,
            },
            None => format!("{name}-{draw:08x}"),
        };
        // Never one that was used before, even if this is a copy of an earlier state.
        let runs = state.number("run").await?.unwrap_or(0);
        state.run = runs.saturating_add(1).max(wall.at(wall.now()));
        let node = state.node.clone();
        state.set_meta("node", &node).await?;
        state.set_meta("run", &state.run.to_string()).await?;
        state.node_id = state.id_of_node(&node).await?;
        state.told = state.number("told").await?.unwrap_or(0);
        state.cursor = match state.meta("cursor").await? {
            Some(text) => text.split_once(' ').and_then(|(id, cursor)| Some((id.to_owned(), cursor.parse().ok()?))),
            None => None,
        };
        state.count().await?;
        state.open_audit().await?;
        state.follow_clock(wall).await?;
        Ok(state)
    }

    /// Counts what others must still be told of.
    async fn count(&mut self) -> sqlx::Result<()> {
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(change) FROM bans").fetch_one(&mut self.connection).await?;
        self.change = newest.unwrap_or(0).max(self.told).max(self.change);
        let untold: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM bans WHERE change > ?")
            .bind(self.told)
            .fetch_one(&mut self.connection)
            .await?;
        self.untold = u64::try_from(untold).unwrap_or(0);
        Ok(())
    }

    /// Moves what is stored if the machine's clock was set since it was written.
    async fn follow_clock(&mut self, wall: &Wall) -> sqlx::Result<()> {
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(banned_at) FROM bans").fetch_one(&mut self.connection).await?;
        let here = wall.tie(&boot_id());
        let stored = self.meta("clock").await?.and_then(|text| Tie::parse(&text));
        match wall.moved_since(stored.as_ref(), &here, newest) {
            Some(moved) => self.shift(moved, wall).await,
            None => self.set_meta("clock", &here.print()).await,
        }
    }

    /// Moves all times by so many milliseconds, because the machine's clock was set by as many.
    pub async fn shift(&mut self, moved: i64, wall: &Wall) -> sqlx::Result<()> {
        self.begin().await?;
        let shifted = self.try_shift(moved, wall).await;
        self.end(shifted).await
    }

    async fn try_shift(&mut self, moved: i64, wall: &Wall) -> sqlx::Result<()> {
        sqlx::query(
            "UPDATE bans SET banned_at = banned_at + ?1, expires_at = expires_at + ?1, lifted_at = lifted_at + ?1",
        )
        .bind(moved)
        .execute(&mut self.connection)
        .await?;
        self.set_meta("clock", &wall.tie(&boot_id()).print()).await
    }

    /// What this node is called among those that share a database.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Stores decisions: all of them or none. How many were new.
    pub async fn keep(&mut self, kept: &[Kept], wall: &Wall) -> sqlx::Result<u64> {
        self.begin().await?;
        let stored = self.try_keep(kept, wall).await;
        let (change, new) = self.end(stored).await?;
        self.change = change;
        self.untold += new;
        Ok(new)
    }

    async fn try_keep(&mut self, kept: &[Kept], wall: &Wall) -> sqlx::Result<(i64, u64)> {
        let (node, run) = (self.node_id, self.run);
        let (mut change, mut new) = (self.change, 0);
        let mut bans: Vec<(StoredBan, i64)> = Vec::new();
        for one in kept {
            change += 1;
            match one.decision.act {
                Act::Ban(ban) => bans.push((one.stored(&ban, run, wall), change)),
                Act::Lift(why, ban) => {
                    new += insert_bans(&mut self.connection, &std::mem::take(&mut bans), node).await?;
                    if why == Lift::Expired || why == Lift::Evicted {
                        continue;
                    }
                    // Of that client, the ban that the decision ended and those that it replaced.
                    let lifted = sqlx::query(
                        "UPDATE bans SET lifted_at = ?, lifted_reason = ?, lifted_by = ?, change = ? WHERE ip_address = ? AND \
                         lifted_at IS NULL AND expires_at > ? AND expires_at <= ?",
                    )
                    .bind(wall.at(one.decision.at))
                    .bind(why.name())
                    .bind(one.said.as_ref().map(|said| said.created_by.as_str()))
                    .bind(change)
                    .bind(one.decision.client.to_string())
                    .bind(wall.at(one.decision.at))
                    .bind(wall.at(ban.until).saturating_add(1_000))
                    .execute(&mut self.connection)
                    .await?;
                    new += lifted.rows_affected();
                }
            }
        }
        new += insert_bans(&mut self.connection, &bans, node).await?;
        Ok((change, new))
    }

    /// Every ban that is remembered, newest first, but for what operators said of them: those in force, and those whose
    /// offence is not older than `since` (milliseconds since 1970); at most `max`.
    ///
    /// SQLite gathers thousands of rows to one text: a row of its own costs ten times as much on its way here.
    pub async fn remembered(
        &mut self,
        since: i64,
        now: i64,
        max: usize,
        mut take: impl FnMut(StoredBan),
    ) -> sqlx::Result<()> {
        let (mut before, mut left) = ((i64::MAX, i64::MAX), max);
        while left > 0 {
            let gathered: Option<Vec<u8>> = sqlx::query_scalar(GATHER_BANS)
                .bind(since)
                .bind(now)
                .bind(before.0)
                .bind(before.1)
                .bind(i64::try_from(left.min(GATHERED_AT_ONCE)).unwrap_or(i64::MAX))
                .fetch_one(&mut self.connection)
                .await?;
            let Some(gathered) = gathered else { break };
            for row in String::from_utf8_lossy(&gathered).split('\u{1e}') {
                left = left.saturating_sub(1);
                let columns: Vec<&str> = row.split('\u{1f}').collect();
                let Some((place, ban)) = read_gathered(&columns) else { continue };
                before = before.min(place);
                if let Some(ban) = ban.check() {
                    take(ban);
                }
            }
        }
        Ok(())
    }

    /// How many bans others must still be told of, more or less: a ban that is told again counts twice.
    pub fn untold(&self) -> u64 {
        self.untold
    }

    /// The next bans that others must be told of, at most `max`, and the change to tell [`State::told`] of.
    pub async fn next_to_tell(&mut self, max: i64) -> sqlx::Result<Option<(Vec<StoredBan>, i64)>> {
        let sql = format!("{SELECT_BANS} WHERE change > ? ORDER BY change LIMIT ?");
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(self.told).bind(max).fetch_all(&mut self.connection).await?;
        let Some(last) = rows.last() else {
            // What was changed last concerned nobody, or is cleared away.
            self.told = self.change;
            self.untold = 0;
            return Ok(None);
        };
        let change = last.try_get("change")?;
        let mut bans = Vec::with_capacity(rows.len());
        for row in &rows {
            bans.extend(read_ban(row)?.check());
        }
        Ok(Some((bans, change)))
    }

    /// The others were told up to this change, of so many bans. That holds even if it cannot be stored.
    pub async fn told(&mut self, change: i64, bans: usize) -> sqlx::Result<()> {
        self.told = change;
        self.untold = self.untold.saturating_sub(bans as u64);
        self.set_meta("told", &change.to_string()).await
    }

    /// How far the bans of database `id` were read; `None` if another one was read last.
    pub fn cursor(&self, id: &str) -> Option<i64> {
        // First what could not be stored when it was read.
        let place = self.behind.as_ref().or(self.cursor.as_ref());
        place.filter(|(of, _)| of == id).map(|(_, cursor)| *cursor)
    }

    /// Whether something that was learned could not be stored, and should be read again.
    pub fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Begins anew with database `id`: reads it from its beginning, and tells it everything that is remembered.
    pub async fn begin_anew(&mut self, id: &str) -> sqlx::Result<()> {
        self.behind = None;
        self.cursor = Some((id.to_owned(), 0));
        self.told = 0;
        self.set_meta("told", "0").await?;
        self.set_meta("cursor", &format!("{id} 0")).await?;
        self.count().await
    }

    /// Stores what other nodes wrote, and how far database `id` was read. Returns those that were not known, or had not
    /// been known to be lifted. How far was read holds even if it cannot be stored.
    pub async fn learn(&mut self, bans: &[StoredBan], id: &str, cursor: i64) -> sqlx::Result<Vec<StoredBan>> {
        let before = self.cursor(id).unwrap_or(0);
        let learned = match self.begin().await {
            Ok(()) => {
                let learned = self.try_learn(bans, id, cursor).await;
                self.end(learned).await
            }
            Err(why) => Err(why),
        };
        if learned.is_ok() {
            self.behind = None;
        } else if self.behind.is_none() {
            self.behind = Some((id.to_owned(), before));
        }
        self.cursor = Some((id.to_owned(), cursor));
        learned
    }

    async fn try_learn(&mut self, bans: &[StoredBan], id: &str, cursor: i64) -> sqlx::Result<Vec<StoredBan>> {
        for ban in bans {
            self.id_of_node(&ban.key.node).await?;
        }
        let id_of = |nodes: &HashMap<String, i64>, ban: &StoredBan| nodes.get(&ban.key.node).copied().unwrap_or(0);
        let mut new: HashSet<(i64, i64, i64)> = HashSet::new();
        for chunk in bans.chunks(ROWS_PER_STATEMENT) {
            let mut insert = QueryBuilder::<Sqlite>::new(
                "INSERT INTO bans (node, run, serial, ip_address, pattern, severity, failures, offences, reason, \
                 created_by, banned_at, expires_at, lifted_at, lifted_reason, lifted_by) ",
            );
            insert.push_values(chunk, |mut row, ban| {
                row.push_bind(id_of(&self.nodes, ban));
                push_ban(&mut row, ban);
            });
            insert.push(
                " ON CONFLICT (node, run, serial) DO UPDATE SET lifted_at = excluded.lifted_at, lifted_reason = \
                 excluded.lifted_reason, lifted_by = excluded.lifted_by WHERE bans.lifted_at IS NULL AND excluded.lifted_at IS NOT NULL RETURNING node, \
                 run, serial",
            );
            let persistent = chunk.len() == ROWS_PER_STATEMENT;
            for row in insert.build().persistent(persistent).fetch_all(&mut self.connection).await? {
                new.insert((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            }
        }
        self.set_meta("cursor", &format!("{id} {cursor}")).await?;
        let is_new = |ban: &&StoredBan| new.contains(&(id_of(&self.nodes, ban), ban.key.run, ban.key.serial));
        Ok(bans.iter().filter(is_new).cloned().collect())
    }

    /// Clears away bans that ended and whose offence is older than `before`, and the oldest of those that are more than
    /// `max`. True if more may be left.
    pub async fn prune(&mut self, before: i64, max: usize) -> sqlx::Result<bool> {
        let old = sqlx::query(
            "DELETE FROM bans WHERE id IN (SELECT id FROM bans WHERE banned_at < ?1 AND expires_at < ?1 LIMIT ?2)",
        )
        .bind(before)
        .bind(PRUNED_AT_ONCE)
        .execute(&mut self.connection)
        .await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM bans").fetch_one(&mut self.connection).await?;
        let surplus = count.saturating_sub(i64::try_from(max).unwrap_or(i64::MAX)).clamp(0, PRUNED_AT_ONCE);
        if surplus > 0 {
            sqlx::query("DELETE FROM bans WHERE id IN (SELECT id FROM bans ORDER BY banned_at LIMIT ?)")
                .bind(surplus)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(old.rows_affected() == PRUNED_AT_ONCE.unsigned_abs() || surplus == PRUNED_AT_ONCE)
    }

    /// The bans of some clients, newest first.
    pub async fn bans_of(&mut self, clients: &[Network], max: usize) -> sqlx::Result<Vec<StoredBan>> {
        let mut query = QueryBuilder::<Sqlite>::new(SELECT_BANS);
        query.push(" WHERE ip_address IN (");
        let mut texts = query.separated(", ");
        for client in clients {
            texts.push_bind(client.to_string());
        }
        query.push(") ORDER BY banned_at DESC, bans.id DESC LIMIT ").push_bind(i64::try_from(max).unwrap_or(i64::MAX));
        let rows = query.build().persistent(false).fetch_all(&mut self.connection).await?;
        let mut bans = Vec::with_capacity(rows.len());
        for row in &rows {
            bans.extend(read_ban(row)?.check());
        }
        Ok(bans)
    }

    /// Whether it is where it belongs, and does not wait in memory for its disk.
    pub fn is_at_home(&self) -> bool {
        self.home.is_none()
    }

    /// Whether the file that it is in is still there, and the same.
    pub fn is_in_place(&self) -> bool {
        self.file.as_ref().is_none_or(|(path, device, inode)| inode_of(path) == Some((*device, *inode)))
    }

    /// Leaves the file as somebody would like to find it: whole, without a journal beside it.
    pub async fn leave(&mut self) {
        self.take_back().await;
        let _ = sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await;
    }

    /// Looks whether it works again: writes something, or moves from memory, or from a file that was deleted, to where it
    /// belongs.
    pub async fn recover(&mut self, wall: &Wall) -> sqlx::Result<()> {
        self.take_back().await;
        if !self.is_in_place() {
            self.home = self.file.take().map(|(path, _, _)| path);
            // The directory may be another one too, and somebody else's.
            self.lock = None;
        }
        if let Some(path) = self.home.clone() {
            self.move_home(&path).await?;
        }
        if self.file.is_none() {
            return Ok(());
        }
        // As much as a batch may need, or it would seem to work again as long as there is room for a word.
        self.set_meta("probe", &"x".repeat(PROBE_BYTES)).await?;
        self.set_meta("probe", "").await?;
        self.set_meta("clock", &wall.tie(&boot_id()).print()).await
    }

    /// Writes what is here into the file, beside what may be there, and goes on with the file.
    async fn move_home(&mut self, path: &Path) -> sqlx::Result<()> {
        if self.lock.is_none() {
            let lock = lock(path.parent().unwrap_or(Path::new("."))).map_err(into_sql)?;
            self.lock = Some(lock);
        }
        let mut connection = connect(path).await?;
        migrate(&mut connection).await.map_err(into_sql)?;
        connection.close().await?;
        sqlx::query("ATTACH ? AS home").bind(uri(path, "mode=rw")).execute(&mut self.connection).await?;
        let begun = self.begin().await;
        let moved = match begun {
            Ok(()) => {
                let sql = format!("{}{WRITE_HOME}", if self.is_blind { "" } else { CLEAR_HOME });
                let written = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await.map(drop);
                self.end(written).await
            }
            Err(why) => Err(why),
        };
        // Nothing is lost if this fails: the connection goes.
        let _ = sqlx::query("DETACH home").execute(&mut self.connection).await;
        moved?;
        self.connection = connect(path).await?;
        self.file = inode_of(path).map(|(device, inode)| (path.to_owned(), device, inode));
        self.home = None;
        self.is_blind = false;
        self.nodes.clear();
        let node = self.node.clone();
        self.node_id = self.id_of_node(&node).await?;
        self.told = 0;
        self.set_meta("told", "0").await?;
        self.retell_audit().await?;
        self.count().await
    }

    /// The last good copy of the database called `identity`, if there is one.
    pub async fn copy(&mut self, identity: &str) -> sqlx::Result<Option<Contents>> {
        if self.meta("copy").await?.as_deref() != Some(identity) {
            return Ok(None);
        }
        let mut contents = Contents::default();
        let rows = sqlx::query("SELECT name, columns FROM copy_rows ORDER BY name, position")
            .fetch_all(&mut self.connection)
            .await?;
        for row in rows {
            let (name, columns): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let Ok(columns) = serde_json::from_str::<Row>(&columns) else { continue };
            match TableName::from_name(&name) {
                Some(TableName::Patterns) => contents.patterns.push(columns),
                Some(TableName::BanConfig) => contents.ban = Some(columns),
                _ => {}
            }
        }
        for list in ListName::ALL {
            let rows = sqlx::query_scalar::<_, String>("SELECT ip_address FROM copy_lists WHERE name = ?")
                .bind(list.name())
                .fetch_all(&mut self.connection)
                .await?;
            let networks = rows.iter().filter_map(|text| Network::parse(text).ok());
            contents.set_list(list, networks.collect());
        }
        Ok(Some(contents))
    }

    /// Replaces the small tables of the copy, at once, and says that all of it is of the database called `identity`: its
    /// lists must be right by then.
    pub async fn copy_rows(&mut self, identity: &str, contents: &Contents) -> sqlx::Result<()> {
        self.begin().await?;
        let copied = self.try_copy_rows(identity, contents).await;
        self.end(copied).await
    }

    async fn try_copy_rows(&mut self, identity: &str, contents: &Contents) -> sqlx::Result<()> {
        sqlx::query("DELETE FROM copy_rows").execute(&mut self.connection).await?;
        let patterns = contents.patterns.iter().map(|row| (TableName::Patterns, row));
        let ban = contents.ban.iter().map(|row| (TableName::BanConfig, row));
        for (position, (table, row)) in patterns.chain(ban).enumerate() {
            let columns = serde_json::to_string(row).unwrap_or_default();
            sqlx::query("INSERT INTO copy_rows (name, position, columns) VALUES (?, ?, ?)")
                .bind(table.name())
                .bind(i64::try_from(position).unwrap_or(i64::MAX))
                .bind(columns)
                .execute(&mut self.connection)
                .await?;
        }
        self.set_meta("copy", identity).await
    }

    /// Changes a list of the copy: a piece at a time, for decisions must not wait for a million rows.
    pub async fn copy_list(&mut self, list: ListName, networks: &[Network], present: bool) -> sqlx::Result<()> {
        self.begin().await?;
        let copied = self.try_copy_list(list, networks, present).await;
        self.end(copied).await
    }

    async fn try_copy_list(&mut self, list: ListName, networks: &[Network], present: bool) -> sqlx::Result<()> {
        for chunk in networks.chunks(ROWS_PER_STATEMENT) {
            let mut query = if present {
                let mut insert = QueryBuilder::<Sqlite>::new("INSERT OR IGNORE INTO copy_lists (name, ip_address) ");
                insert.push_values(chunk, |mut row, network| {
                    row.push_bind(list.name()).push_bind(network.to_string());
                });
                insert
            } else {
                let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM copy_lists WHERE name = ");
                delete.push_bind(list.name()).push(" AND ip_address IN (");
                let mut texts = delete.separated(", ");
                for network in chunk {
                    texts.push_bind(network.to_string());
                }
                texts.push_unseparated(")");
                delete
            };
            query.build().persistent(false).execute(&mut self.connection).await?;
        }
        Ok(())
    }

    /// Forgets the copy, because what is there is of another database.
    pub async fn forget_copy(&mut self) -> sqlx::Result<()> {
        self.begin().await?;
        let sql = "DELETE FROM copy_rows; DELETE FROM copy_lists; DELETE FROM meta WHERE name = 'copy'";
        let forgotten = sqlx::raw_sql(sql).execute(&mut self.connection).await.map(drop);
        self.end(forgotten).await
    }

    /// Begins a transaction. Not by sqlx's means: where SQLite itself has taken one back, because the disk is full, sqlx
    /// goes on inside of it, and nothing is ever committed again.
    async fn begin(&mut self) -> sqlx::Result<()> {
        self.take_back().await;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        self.open = true;
        Ok(())
    }

    /// Commits if all went well, else takes back.
    async fn end<T>(&mut self, done: sqlx::Result<T>) -> sqlx::Result<T> {
        let done = match done {
            Ok(done) => sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map(|_| done),
            Err(why) => Err(why),
        };
        match done {
            Ok(_) => self.open = false,
            Err(_) => self.take_back().await,
        }
        done
    }

    async fn take_back(&mut self) {
        if self.open {
            // It may have been taken back already.
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await;
            self.open = false;
        }
    }

    async fn meta(&mut self, name: &str) -> sqlx::Result<Option<String>> {
        sqlx::query_scalar("SELECT value FROM meta WHERE name = ?")
            .bind(name)
            .fetch_optional(&mut self.connection)
            .await
    }

    async fn number(&mut self, name: &str) -> sqlx::Result<Option<i64>> {
        Ok(self.meta(name).await?.and_then(|text| text.parse().ok()))
    }

    async fn set_meta(&mut self, name: &str, value: &str) -> sqlx::Result<()> {
        sqlx::query("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)")
            .bind(name)
            .bind(value)
            .execute(&mut self.connection)
            .await
            .map(drop)
    }

    async fn id_of_node(&mut self, name: &str) -> sqlx::Result<i64> {
        if let Some(id) = self.nodes.get(name) {
            return Ok(*id);
        }
        sqlx::query("INSERT OR IGNORE INTO nodes (name) VALUES (?)").bind(name).execute(&mut self.connection).await?;
        let id = sqlx::query_scalar("SELECT id FROM nodes WHERE name = ?")
            .bind(name)
            .fetch_one(&mut self.connection)
            .await?;
        self.nodes.insert(name.to_owned(), id);
        Ok(id)
    }
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), StateFault> {
    let sql = include_str!("../../../migrations/state/0001_state.sql").into_sql_str();
    let migration = Migration::new(1, "state".into(), MigrationType::Simple, sql, false);
    Migrator::with_migrations(vec![migration]).run(connection).await.map_err(|why| match why {
        MigrateError::VersionMissing(_) => StateFault::Newer(PathBuf::from(FILE_NAME)),
        MigrateError::Execute(why) | MigrateError::ExecuteMigration(why, _) => StateFault::Sql(why),
        other => StateFault::Sql(sqlx::Error::Migrate(Box::new(other))),
    })
}

fn into_sql(fault: StateFault) -> sqlx::Error {
    match fault {
        StateFault::Sql(why) => why,
        other => sqlx::Error::Io(io::Error::other(other.to_string())),
    }
}

async fn connect(path: &Path) -> sqlx::Result<SqliteConnection> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY)
        .disable_statement_logging()
        .connect()
        .await
}

/// Takes over, into the state in memory of that name, what one on disk holds that cannot be written now. Whether that could
/// be read.
async fn read_from(path: &Path, memory: &str) -> bool {
    let file = || SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).disable_statement_logging();
    // Somebody may have it locked, which does not keep readers out; or there may be no room for the file by which readers
    // and writers share the journal, which one who has it all to himself does not need (sqlite.org/wal.html, "Use of WAL
    // Without Shared-Memory"); or it may only be looked at without its journal.
    let ways = [
        file().read_only(true),
        file().locking_mode(SqliteLockingMode::Exclusive),
        file().immutable(true).read_only(true),
    ];
    for way in ways {
        let read = async {
            let mut disk = way.connect().await?;
            sqlx::query("ATTACH ? AS memory").bind(memory).execute(&mut disk).await?;
            for table in ["nodes", "bans", "copy_rows", "copy_lists", "lists", "audit", "meta"] {
                let sql = format!("INSERT OR REPLACE INTO memory.{table} SELECT * FROM main.{table}");
                sqlx::query(AssertSqlSafe(sql)).execute(&mut disk).await?;
            }
            // What it would write back as the last to leave is not wanted, or fails.
            disk.close().await
        };
        let read: sqlx::Result<()> = read.await;
        if read.is_ok() {
            return true;
        }
    }
    false
}

/// A file for ATTACH, which opens it in memory too if that is where the connection is, unless it is told otherwise
/// (sqlite.org/uri.html).
fn uri(path: &Path, parameters: &str) -> String {
    let path = path.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{path}?{parameters}")
}

/// What a state in memory is called, by which another connection of this process finds it.
fn memory_name(draw: u32) -> String {
    format!("file:state-{draw:08x}?mode=memory&cache=shared")
}

/// A state that ends with the process.
async fn memory(draw: u32) -> sqlx::Result<SqliteConnection> {
    SqliteConnectOptions::new().filename(memory_name(draw)).disable_statement_logging().connect().await
}

/// Makes the directory, and takes it for this process.
fn lock(directory: &Path) -> Result<File, StateFault> {
    let fault = |why| StateFault::Directory(directory.to_owned(), why);
    std::fs::create_dir_all(directory).map_err(fault)?;
    let lock = File::options().create(true).truncate(false).write(true).open(directory.join("lock")).map_err(fault)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(StateFault::InUse(directory.to_owned())),
        Err(std::fs::TryLockError::Error(why)) => Err(fault(why)),
    }
}

/// Whether it is the machine's state and not the operator's mistake: the server should run all the same.
fn is_passing(fault: &io::Error) -> bool {
    matches!(
        fault.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
    ) || fault.raw_os_error() == Some(EIO)
}

/// Input/output error (errno(3)): the disk is dying, the bans need not.
const EIO: i32 = 5;

/// Whether the file is no database, or a broken one: SQLITE_CORRUPT and SQLITE_NOTADB of sqlite.org/rescode.html.
fn is_broken(fault: &sqlx::Error) -> bool {
    let code = fault.as_database_error().and_then(|fault| fault.code()).and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// Bans gathered to one text: half a megabyte.
const GATHERED_AT_ONCE: usize = 5_000;

/// Gathers the next bans to one text, in the order of time, newest first: a record separator between rows, a unit separator
/// between columns. Takes since when offences are remembered, the time, after which ban to go on, and how many.
const GATHER_BANS: &str = "
    SELECT CAST(group_concat(row, char(30)) AS BLOB) FROM (
        SELECT bans.id || char(31) || banned_at || char(31) || expires_at || char(31) || nodes.name || char(31) || run
            || char(31) || serial || char(31) || ip_address || char(31) || pattern || char(31) || severity || char(31)
            || failures || char(31) || offences || char(31) || COALESCE(lifted_at, '') || char(31)
            || COALESCE(lifted_reason, '') AS row
        FROM bans JOIN nodes ON nodes.id = bans.node
        WHERE (banned_at > ?1 OR expires_at > ?2) AND (banned_at, bans.id) < (?3, ?4)
        ORDER BY banned_at DESC, bans.id DESC LIMIT ?5
    )";

/// A row of [`GATHER_BANS`]: its place in the order, and what it says. `None` if it is none.
fn read_gathered(columns: &[&str]) -> Option<((i64, i64), RawBan)> {
    let number = |at: usize| columns.get(at)?.parse::<i64>().ok();
    let text = |at: usize| columns.get(at).map(|text| (*text).to_owned());
    let ban = RawBan {
        banned_at: number(1)?,
        expires_at: number(2)?,
        node: text(3)?,
        run: number(4)?,
        serial: number(5)?,
        ip_address: text(6)?,
        pattern: text(7)?,
        severity: number(8)?,
        failures: number(9)?,
        offences: number(10)?,
        lifted_at: number(11),
        lifted_reason: text(12),
        reason: None,
        created_by: None,
        lifted_by: None,
    };
    Some(((ban.banned_at, number(0)?), ban))
}

/// Removes where it belongs what was removed meanwhile.
const CLEAR_HOME: &str = "
    DELETE FROM home.lists WHERE (name, ip_address) NOT IN (SELECT name, ip_address FROM main.lists);";

/// Takes everything over to where it belongs. Nodes may have other numbers there.
const WRITE_HOME: &str = "
    INSERT OR IGNORE INTO home.nodes (name) SELECT name FROM main.nodes;
    INSERT INTO home.bans (node, run, serial, ip_address, pattern, severity, failures, offences, reason, created_by,
        banned_at, expires_at, lifted_at, lifted_reason, lifted_by, change)
    SELECT there.id, run, serial, ip_address, pattern, severity, failures, offences, reason, created_by, banned_at,
        expires_at, lifted_at, lifted_reason, lifted_by, change
    FROM main.bans JOIN main.nodes AS here ON here.id = bans.node JOIN home.nodes AS there ON there.name = here.name
    WHERE TRUE
    ON CONFLICT (node, run, serial) DO UPDATE SET lifted_at = COALESCE(lifted_at, excluded.lifted_at),
        lifted_reason = COALESCE(lifted_reason, excluded.lifted_reason),
        lifted_by = COALESCE(lifted_by, excluded.lifted_by), change = excluded.change;
    DELETE FROM home.copy_rows WHERE EXISTS (SELECT 1 FROM main.meta WHERE name = 'copy');
    DELETE FROM home.copy_lists WHERE EXISTS (SELECT 1 FROM main.meta WHERE name = 'copy');
    INSERT OR IGNORE INTO home.copy_rows SELECT * FROM main.copy_rows;
    INSERT OR IGNORE INTO home.copy_lists SELECT * FROM main.copy_lists;
    INSERT OR IGNORE INTO home.lists (name, ip_address, reason, created_by, created_at)
    SELECT name, ip_address, reason, created_by, created_at FROM main.lists ORDER BY id;
    INSERT OR IGNORE INTO home.audit (node, run, serial, at, who, channel, peer, action, target, detail, outcome)
    SELECT node, run, serial, at, who, channel, peer, action, target, detail, outcome FROM main.audit ORDER BY id;
    INSERT OR REPLACE INTO home.meta SELECT * FROM main.meta";

/// What is written to see whether there is room, in bytes.
const PROBE_BYTES: usize = 256 << 10;

/// Device and inode of a file.
fn inode_of(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

const SELECT_BANS: &str = "SELECT nodes.name AS node, run, serial, ip_address, pattern, severity, failures, offences, \
                           reason, created_by, banned_at, expires_at, lifted_at, lifted_reason, lifted_by, change FROM \
                           bans JOIN nodes ON nodes.id = bans.node";

fn read_ban(row: &SqliteRow) -> sqlx::Result<RawBan> {
    Ok(RawBan {
        node: row.try_get(0)?,
        run: row.try_get(1)?,
        serial: row.try_get(2)?,
        ip_address: row.try_get(3)?,
        pattern: row.try_get(4)?,
        severity: row.try_get(5)?,
        failures: row.try_get(6)?,
        offences: row.try_get(7)?,
        reason: row.try_get(8)?,
        created_by: row.try_get(9)?,
        banned_at: row.try_get(10)?,
        expires_at: row.try_get(11)?,
        lifted_at: row.try_get(12)?,
        lifted_reason: row.try_get(13)?,
        lifted_by: row.try_get(14)?,
    })
}

fn push_ban(row: &mut sqlx::query_builder::Separated<'_, Sqlite, &'static str>, ban: &StoredBan) {
    row.push_bind(ban.key.run)
        .push_bind(ban.key.serial)
        .push_bind(ban.client.to_string())
        .push_bind(ban.pattern.clone())
        .push_bind(i64::from(ban.severity.level()))
        .push_bind(i64::from(ban.failures))
        .push_bind(i64::from(ban.offences))
        .push_bind(ban.reason.clone())
        .push_bind(ban.created_by.clone())
        .push_bind(ban.banned_at)
        .push_bind(ban.expires_at)
        .push_bind(ban.lifted.map(|(at, _)| at))
        .push_bind(ban.lifted.map(|(_, why)| why.name()))
        .push_bind(ban.lifted_by.clone());
}

/// Inserts bans that this node decided, each with its change. One that is there already stays as it is: a shard that
/// tells again what it may have told before is not believed twice.
async fn insert_bans(connection: &mut SqliteConnection, bans: &[(StoredBan, i64)], node: i64) -> sqlx::Result<u64> {
    let mut new = 0;
    for chunk in bans.chunks(ROWS_PER_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new(
            "INSERT INTO bans (node, change, run, serial, ip_address, pattern, severity, failures, offences, reason, \
             created_by, banned_at, expires_at, lifted_at, lifted_reason, lifted_by) ",
        );
        insert.push_values(chunk, |mut row, (ban, change)| {
            row.push_bind(node).push_bind(*change);
            push_ban(&mut row, ban);
        });
        insert.push(" ON CONFLICT (node, run, serial) DO NOTHING");
        let inserted = insert.build().persistent(chunk.len() == ROWS_PER_STATEMENT).execute(&mut *connection).await?;
        new += inserted.rows_affected();
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::super::ban::ban;
    use super::*;
    use crate::engine::ban::{Origin, PatternId, Severity};
    use crate::engine::time::Time;
    use crate::shard::Clock;
    use std::future::Future;

    pub fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    pub async fn open(wall: &Wall) -> State {
        // Each test has one of its own.
        static DRAWN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(7);
        let draw = DRAWN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        State::open(None, "mail1", wall, draw).await.unwrap().0
    }

    fn decided(address: &str, serial: u64, at: Time, lasts: u64) -> Kept {
        let ban = Ban {
            until: at.plus(Duration::from_secs(lasts)),
            offences: 1,
            failures: 5,
            pattern: PatternId::new(0).unwrap(),
            severity: Severity::new(3).unwrap(),
        };
        let client = Network::parse(address).unwrap();
        let decision = Decision { serial, at, client, act: Act::Ban(ban), origin: Origin::Decided };
        Kept { decision, pattern: Arc::from("dovecot-login"), said: None }
    }

    fn lifted(of: &Kept, why: Lift, at: Time) -> Kept {
        let Act::Ban(ban) = of.decision.act else { panic!() };
        let decision = Decision { at, act: Act::Lift(why, ban), ..of.decision };
        Kept { decision, ..of.clone() }
    }

    async fn all(state: &mut State, since: i64, now: i64) -> Vec<StoredBan> {
        let mut bans = Vec::new();
        state.remembered(since, now, 100, |ban| bans.push(ban)).await.unwrap();
        bans.reverse();
        bans
    }

    #[test]
    fn what_is_kept_is_remembered_and_told_once() {
        run(async {
            let wall = Wall::new(Clock::start());
            let mut state = open(&wall).await;
            assert!(state.node().starts_with("mail1-000000") && state.untold() == 0, "{}", state.node());
            let now = wall.now();
            let first = decided("192.0.2.1", 1, now, 600);
            let second = decided("2001:db8::/64", 2, now, 600);
            state.keep(&[first.clone(), second.clone()], &wall).await.unwrap();
            // Told again by a shard, it is the same one.
            state.keep(&[second.clone(), lifted(&first, Lift::Allowed, now)], &wall).await.unwrap();
            let bans = all(&mut state, 0, 0).await;
            assert_eq!(bans.len(), 2);
            assert_eq!(bans[0].lifted.map(|(_, why)| why), Some(Lift::Allowed));
            assert_eq!((bans[1].lifted, bans[1].client, bans[1].failures), (None, second.decision.client, 5));
            assert_eq!(bans[1].expires_at - bans[1].banned_at, 600_000);

            let (told, change) = state.next_to_tell(10).await.unwrap().unwrap();
            assert_eq!(told.len(), 2);
            assert!(told.iter().all(|ban| ban.key.node == state.node() && ban.key.run == state.run));
            state.told(change, 2).await.unwrap();
            assert!(state.next_to_tell(10).await.unwrap().is_none());
            assert_eq!(state.untold(), 0);
            state.begin_anew("db").await.unwrap();
            assert_eq!(state.next_to_tell(10).await.unwrap(), Some((told, change)));
            state.told(change, 2).await.unwrap();
            state.keep(&[lifted(&second, Lift::Unbanned, now)], &wall).await.unwrap();
            assert_eq!(state.next_to_tell(10).await.unwrap().unwrap().0.len(), 1);
        });
    }

    #[test]
    fn a_lift_ends_the_ban_it_was_meant_for_and_no_longer_one() {
        run(async {
            let wall = Wall::new(Clock::start());
            let mut state = open(&wall).await;
            let now = wall.now();
            let short = decided("192.0.2.1", 1, now, 60);
            state.keep(&[short.clone(), decided("192.0.2.1", 2, now, 600)], &wall).await.unwrap();
            state.keep(&[lifted(&short, Lift::Allowed, now)], &wall).await.unwrap();
            let still: Vec<bool> = all(&mut state, 0, 0).await.iter().map(|ban| ban.lifted.is_none()).collect();
            assert_eq!(still, [false, true]);
            // One that ran out is not written: its end says so.
            state.keep(&[lifted(&decided("192.0.2.1", 2, now, 600), Lift::Expired, now)], &wall).await.unwrap();
            assert_eq!(all(&mut state, 0, 0).await.iter().filter(|ban| ban.lifted.is_none()).count(), 1);
        });
    }

    #[test]
    fn what_an_operator_says_is_kept_and_told() {
        run(async {
            let wall = Wall::new(Clock::start());
            let mut state = open(&wall).await;
            let now = wall.now();
            let ann = Some(Arc::new(Said::new(Some("spam\nof all kinds"), "ann")));
            let bob = Some(Arc::new(Said::new(None, &"b".repeat(200))));
            let banned = Kept { said: ann, ..decided("192.0.2.1", 1, now, 600) };
            let ended = Kept { said: bob, ..lifted(&banned, Lift::Unbanned, now) };
            state.keep(&[banned.clone(), ended, decided("192.0.2.2", 2, now, 600)], &wall).await.unwrap();
            let (told, _) = state.next_to_tell(10).await.unwrap().unwrap();
            let ban = told.iter().find(|ban| ban.client == banned.decision.client).unwrap();
            assert_eq!((ban.reason.as_deref(), ban.created_by.as_deref()), (Some("spam of all kinds"), Some("ann")));
            assert_eq!(ban.lifted_by.as_ref().map(String::len), Some(128));
            let history = state.bans_of(&[banned.decision.client], 10).await.unwrap();
            assert_eq!(history, std::slice::from_ref(ban));
            // Another node hears all of it.
            let mut other = open(&wall).await;
            other.learn(&told, "db", 1).await.unwrap();
            assert_eq!(other.bans_of(&[banned.decision.client], 10).await.unwrap(), history);
        });
    }

    #[test]
    fn what_others_tell_is_remembered_but_not_told_on() {
        run(async {
            let wall = Wall::new(Clock::start());
            let mut state = open(&wall).await;
            let other = ban("203.0.113.9", "mail2-1", 5);
            let new = state.learn(std::slice::from_ref(&other), "db", 17).await.unwrap();
            assert_eq!(new, std::slice::from_ref(&other));
            assert_eq!(state.learn(std::slice::from_ref(&other), "db", 17).await.unwrap(), [], "known");
            assert_eq!((state.cursor("db"), state.cursor("another")), (Some(17), None));
            assert_eq!(all(&mut state, 0, 0).await, std::slice::from_ref(&other));
            assert!(state.next_to_tell(10).await.unwrap().is_none());
            let ended = StoredBan { lifted: Some((other.banned_at + 5, Lift::Unbanned)), ..other };
            assert_eq!(state.learn(std::slice::from_ref(&ended), "db", 18).await.unwrap().len(), 1);
            assert_eq!(state.learn(std::slice::from_ref(&ended), "db", 18).await.unwrap(), []);
            assert_eq!(all(&mut state, 0, 0).await, [ended]);
        });
    }

    #[test]
    fn times_move_with_the_clock_and_old_bans_go() {
        run(async {
            let wall = Wall::new(Clock::start());
            let mut state = open(&wall).await;
            let (old, new) = (ban("192.0.2.1", "b", 1), ban("192.0.2.2", "b", 2));
            let new = StoredBan { banned_at: new.banned_at + 500_000, expires_at: new.expires_at + 500_000, ..new };
            state.learn(&[old.clone(), new.clone()], "db", 1).await.unwrap();
            state.shift(1_000, &wall).await.unwrap();
            let moved = all(&mut state, 0, 0).await;
            assert_eq!((moved[0].banned_at, moved[0].expires_at), (old.banned_at + 1_000, old.expires_at + 1_000));
            assert!(!state.prune(old.expires_at + 1_001, 10).await.unwrap());
            assert_eq!(all(&mut state, 0, 0).await.len(), 1);
            assert_eq!(all(&mut state, new.banned_at + 2_000, new.expires_at + 2_000).await.len(), 0);
        });
    }

    #[test]
    fn the_copy_is_of_one_database() {
        run(async {
            let wall = Wall::new(Clock::start());
            let mut state = open(&wall).await;
            assert!(state.copy("db").await.unwrap().is_none());
            let mut contents = Contents {
                patterns: vec![vec![("name".to_owned(), Some("a".to_owned())), ("regex".to_owned(), None)]],
                ban: Some(vec![("max_attempts".to_owned(), Some("3".to_owned()))]),
                ..Contents::default()
            };
            let networks: Vec<Network> =
                (0..2_500).map(|n| Network::parse(&format!("10.0.{}.{}", n / 256, n % 256)).unwrap()).collect();
            contents.set_list(ListName::Blacklist, networks.clone());
            state.copy_list(ListName::Blacklist, &networks, true).await.unwrap();
            state.copy_list(ListName::Whitelist, &networks[..2], true).await.unwrap();
            state.copy_list(ListName::Whitelist, &networks[..2], false).await.unwrap();
            assert!(state.copy("db").await.unwrap().is_none(), "not before it is whole");
            state.copy_rows("db", &contents).await.unwrap();
            assert!(state.copy("db").await.unwrap().unwrap().says_the_same(&contents));
            assert!(state.copy("another").await.unwrap().is_none());
            state.forget_copy().await.unwrap();
            assert!(state.copy("db").await.unwrap().is_none());
        });
    }
}

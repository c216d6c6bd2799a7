//! The lists of the shared database, as operators edit them one entry at a time.
//!
//! An edit is a transaction that begins with the lock on the list's row of versions. So it is known which version the
//! list had before and has after it, and who has read the one before knows the one after without reading it again.

use super::{Bind, Database, DatabaseFault, QUESTION_DEADLINE, Result, number, within};
use crate::control::store::contents::ListName;
use crate::control::store::dialect::Dialect;
use crate::control::store::entry::{Enlisted, EntrySource, Filter, NewEntry, like, spellings};
use crate::control::store::page::{PIECE, Piece, Row, Table};
use crate::engine::address::Network;

/// The version that a list had before an edit, the one that it has after it, and how many rows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edited {
    pub before: i64,
    pub after: i64,
    pub rows: i64,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub rows: u64,
    /// Those of them that were in force.
    pub enabled: u64,
}

/// How rows that are to be removed are found.
#[derive(Clone, Debug)]
pub enum Which {
    /// By their address, in its usual spellings.
    Spelled(Network),
    Ids(Vec<i64>),
}

/// The rows of lists, for pages.
pub struct There<'a> {
    pub database: &'a mut Database,
    /// How many rows the list has that is asked for, if that is known.
    pub rows: Option<u64>,
}

impl Database {
    /// Puts an entry on a list, or switches it on again. `holds` says that some row in force is this network.
    pub async fn enlist(&mut self, list: ListName, entry: &NewEntry, holds: bool) -> Result<(Enlisted, Edited)> {
        let edited = within(QUESTION_DEADLINE, "writing an entry", self.try_enlist(list, entry, holds)).await;
        self.take_back_if_refused(edited).await
    }

    async fn try_enlist(&mut self, list: ListName, entry: &NewEntry, holds: bool) -> Result<(Enlisted, Edited)> {
        let table = list.name();
        let before = self.begin_edit(list).await?;
        let found = self.spelled(list, entry.network).await?;
        let on = found.iter().any(|(_, enabled)| *enabled);
        let mut rows = 0;
        let enlisted = if on || holds && found.is_empty() {
            Enlisted::Already
        } else if let Some((id, _)) = found.first() {
            let enabled = self.dialect.value_of("enabled");
            let sql = format!(
                "UPDATE {table} SET enabled = {enabled}, reason = COALESCE(?, reason), created_by = ? WHERE id = ?"
            );
            let binds =
                vec!["true".into(), Bind::Text(entry.reason.clone()), entry.created_by.as_str().into(), (*id).into()];
            self.execute(&sql, binds).await?;
            Enlisted::New
        } else {
            let sql = format!("INSERT INTO {table} (ip_address, reason, created_by) VALUES (?, ?, ?)");
            let address = entry.network.to_string();
            let binds =
                vec![address.as_str().into(), Bind::Text(entry.reason.clone()), entry.created_by.as_str().into()];
            self.execute(&sql, binds).await?;
            rows = 1;
            Enlisted::New
        };
        Ok((enlisted, self.end_edit(list, before, rows).await?))
    }

    /// Takes rows from a list, also those that are switched off.
    pub async fn delist(&mut self, list: ListName, which: &Which) -> Result<(Removed, Edited)> {
        let edited = within(QUESTION_DEADLINE, "removing an entry", self.try_delist(list, which)).await;
        self.take_back_if_refused(edited).await
    }

    async fn try_delist(&mut self, list: ListName, which: &Which) -> Result<(Removed, Edited)> {
        let before = self.begin_edit(list).await?;
        let found = match which {
            Which::Spelled(network) => self.spelled(list, *network).await?,
            Which::Ids(ids) => self.rows_are_on(list, "id", ids.iter().map(|id| (*id).into()).collect()).await?,
        };
        let mut removed = Removed::default();
        for (id, enabled) in found {
            let sql = format!("DELETE FROM {} WHERE id = ?", list.name());
            removed.rows += self.execute(&sql, vec![id.into()]).await?;
            removed.enabled += u64::from(enabled);
        }
        let rows = -i64::try_from(removed.rows).unwrap_or(i64::MAX);
        Ok((removed, self.end_edit(list, before, rows).await?))
    }

    /// Begins an edit. The version that the list has.
    async fn begin_edit(&mut self, list: ListName) -> Result<i64> {
        self.run(self.dialect.begin_write()).await?;
        // Whoever changes the list waits from here on, and what others changed is seen.
        let sql = "UPDATE mailfail2ban_versions SET version = version WHERE name = ?";
        self.execute(sql, vec![list.name().into()]).await?;
        self.version_of(list).await
    }

    async fn end_edit(&mut self, list: ListName, before: i64, rows: i64) -> Result<Edited> {
        let after = self.version_of(list).await?;
        self.run("COMMIT").await?;
        Ok(Edited { before, after, rows })
    }

    async fn version_of(&mut self, list: ListName) -> Result<i64> {
        let sql = format!("SELECT {} FROM mailfail2ban_versions WHERE name = ?", self.dialect.text("version"));
        let rows = self.rows(sql, vec![list.name().into()]).await?;
        rows.first().and_then(|row| number(row, 0)).ok_or(DatabaseFault::Missing("version"))
    }

    /// The rows with a network's usual spellings: their ids, and whether they are in force.
    async fn spelled(&mut self, list: ListName, network: Network) -> Result<Vec<(i64, bool)>> {
        let texts = spellings(network).into_iter().map(|text| Bind::Text(Some(text))).collect();
        self.rows_are_on(list, "ip_address", texts).await
    }

    async fn rows_are_on(&mut self, list: ListName, column: &str, values: Vec<Bind>) -> Result<Vec<(i64, bool)>> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let places = vec!["?"; values.len()].join(", ");
        let (id, on) = (self.dialect.text("id"), self.is_on());
        let sql = format!("SELECT {id}, {on} FROM {} WHERE {column} IN ({places})", list.name());
        let rows = self.rows(sql, values).await?;
        Ok(rows.iter().filter_map(|row| Some((number(row, 0)?, number(row, 1) == Some(1)))).collect())
    }

    fn is_on(&self) -> String {
        let enabled = self.dialect.is_enabled();
        self.dialect.text(&format!("CASE WHEN {enabled} THEN 1 ELSE 0 END"))
    }

    /// A transaction that the database refused is taken back, and the connection is good.
    pub(super) async fn take_back_if_refused<T>(&mut self, done: Result<T>) -> Result<T> {
        if done.as_ref().is_err_and(DatabaseFault::leaves_connection) {
            // If it was the beginning that was refused, there is nothing to take back.
            match within(QUESTION_DEADLINE, "taking back", self.run("ROLLBACK")).await {
                Err(fault) if !fault.leaves_connection() => return Err(fault),
                _ => {}
            }
        }
        done
    }

    /// How many rows a list has, whether they are in force or not.
    pub async fn count_rows(&mut self, list: ListName) -> Result<u64> {
        let sql = format!("SELECT COUNT(*) FROM {} WHERE id > 0", list.name());
        Ok(within(QUESTION_DEADLINE, "counting rows", self.count(&sql)).await? as u64)
    }

    /// Rows of a list by a condition, the newest first: `count` of them at most.
    async fn list_rows(&mut self, list: ListName, which: &str, count: usize, mut binds: Vec<Bind>) -> Result<Vec<Row>> {
        binds.push(i64::try_from(count).unwrap_or(i64::MAX).into());
        let table = list.name();
        let plain = ["id", "ip_address", "reason", "created_by"].map(|column| self.dialect.text(column)).join(", ");
        let created_at = self.dialect.millis_of("created_at");
        // By the table's column: PostgreSQL calls its text by the same name, and would order by that.
        let sql = format!(
            "SELECT {plain}, {created_at}, {} FROM {table} WHERE {which} ORDER BY {table}.id DESC LIMIT ?",
            self.is_on()
        );
        let rows = within(QUESTION_DEADLINE, "reading entries", self.rows(sql, binds)).await?;
        let row = |mut row: Vec<Option<String>>| {
            let mut text = |at: usize| row.get_mut(at).and_then(Option::take);
            let (address, reason, created_by) = (text(1).unwrap_or_default(), text(2), text(3));
            // Lower ones have no place on a page.
            let (id, created_at) = (number(&row, 0).filter(|id| *id > 0)?, number(&row, 4));
            Some(Row { id, address, reason, created_by, created_at, enabled: number(&row, 5) == Some(1) })
        };
        Ok(rows.into_iter().filter_map(row).collect())
    }
}

impl Table for There<'_> {
    type Fault = DatabaseFault;

    fn source(&self) -> EntrySource {
        EntrySource::Database
    }

    async fn count(&mut self, list: ListName) -> Result<u64> {
        match self.rows {
            Some(rows) => Ok(rows),
            None => self.database.count_rows(list).await,
        }
    }

    async fn newest(&mut self, list: ListName, before: i64, count: usize) -> Result<Vec<Row>> {
        self.database.list_rows(list, "id < ?", count, vec![before.into()]).await
    }

    async fn piece(&mut self, list: ListName, filter: &Filter, before: i64) -> Result<Piece> {
        let dialect = self.database.dialect;
        let mut binds = Vec::new();
        if let Some(search) = &filter.search {
            // SQLite knows capitals of ASCII alone.
            let search = if dialect == Dialect::Sqlite { search.to_ascii_lowercase() } else { search.to_lowercase() };
            binds.extend((0..3).map(|_| Bind::from(like(&search).as_str())));
        }
        binds.extend([Bind::from(before), PIECE.into()]);
        let sql = dialect.look_through(list.name(), filter.search.is_some());
        let row = within(QUESTION_DEADLINE, "looking through entries", self.database.raw_rows(sql, binds)).await?;
        let row = row.into_iter().next().ok_or(DatabaseFault::Missing("count of rows"))?;
        Ok(Piece::read(number(&row, 0), row.get(1).and_then(Option::as_deref).unwrap_or_default()))
    }

    async fn of_ids(&mut self, list: ListName, ids: &[i64]) -> Result<Vec<Row>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let which = format!("id IN ({})", vec!["?"; ids.len()].join(", "));
        self.database.list_rows(list, &which, ids.len(), ids.iter().map(|id| (*id).into()).collect()).await
    }

    async fn named(&mut self, list: ListName, texts: &[String]) -> Result<Vec<Row>> {
        let places = vec!["?"; texts.len()].join(", ");
        let which = format!("ip_address IN ({places}) AND {}", self.database.dialect.is_enabled());
        let texts: Vec<Bind> = texts.iter().map(|text| text.as_str().into()).collect();
        self.database.list_rows(list, &which, texts.len(), texts).await
    }
}

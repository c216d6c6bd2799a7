//! What operators did on this node, in the local state; and how far the shared database was told.

use super::{PRUNED_AT_ONCE, State};
use crate::control::store::audit::{AuditEntry, KEPT_MAX, StoredAudit};
use crate::control::store::entry::like;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

const SELECT_AUDIT: &str =
    "SELECT id, node, run, serial, at, who, channel, peer, action, target, detail, outcome FROM audit";

impl State {
    /// Looks what is there, and how far which database was told.
    pub(super) async fn open_audit(&mut self) -> sqlx::Result<()> {
        let newest: Option<i64> =
            sqlx::query_scalar("SELECT MAX(id) FROM audit").fetch_one(&mut self.connection).await?;
        self.audit_newest = newest.unwrap_or(0);
        let told = self.meta("audit_told").await?;
        self.audit_told = told.and_then(|text| {
            let (database, told) = text.split_once(' ')?;
            Some((database.to_owned(), told.parse().ok()?))
        });
        Ok(())
    }

    /// Writes down what an operator did.
    pub async fn note(&mut self, entry: &AuditEntry, at: i64) -> sqlx::Result<()> {
        // One that failed takes its number with it, so no two have the same.
        self.audit_serial += 1;
        let noted = sqlx::query(
            "INSERT INTO audit (node, run, serial, at, who, channel, peer, action, target, detail, outcome) VALUES (?, ?, \
             ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&self.node)
        .bind(self.run)
        .bind(self.audit_serial)
        .bind(at)
        .bind(&entry.who)
        .bind(entry.channel)
        .bind(entry.peer.as_deref())
        .bind(entry.action)
        .bind(&entry.target)
        .bind(&entry.detail)
        .bind(&entry.outcome)
        .execute(&mut self.connection)
        .await?;
        self.audit_newest = noted.last_insert_rowid();
        Ok(())
    }

    /// The next entries that database `id` must be told of, at most `max`.
    pub async fn audit_to_tell(&mut self, id: &str, max: i64) -> sqlx::Result<Vec<StoredAudit>> {
        let told = self.audit_told.as_ref().filter(|(of, _)| of == id).map_or(0, |(_, told)| *told);
        if told >= self.audit_newest {
            return Ok(Vec::new());
        }
        let sql = format!("{SELECT_AUDIT} WHERE id > ? ORDER BY id LIMIT ?");
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(told).bind(max).fetch_all(&mut self.connection).await?;
        rows.iter().map(read_audit).collect()
    }

    /// Database `id` was told up to this entry. That holds even if it cannot be stored.
    pub async fn audit_told(&mut self, id: &str, told: i64) -> sqlx::Result<()> {
        self.audit_told = Some((id.to_owned(), told));
        self.set_meta("audit_told", &format!("{id} {told}")).await
    }

    /// Everything is to be told again, because entries have other ids now.
    pub(super) async fn retell_audit(&mut self) -> sqlx::Result<()> {
        self.set_meta("audit_told", "").await?;
        self.open_audit().await
    }

    /// The newest entries below `before` with a text.
    pub async fn audit_page(
        &mut self,
        before: i64,
        search: Option<&str>,
        count: usize,
    ) -> sqlx::Result<Vec<StoredAudit>> {
        let columns = ["node", "who", "channel", "peer", "action", "target", "detail", "outcome"];
        let found = columns.map(|column| format!("lower({column}) LIKE ?2 ESCAPE '!'")).join(" OR ");
        let sql = format!("{SELECT_AUDIT} WHERE id < ?1 AND (?2 IS NULL OR {found}) ORDER BY id DESC LIMIT ?3");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(before)
            .bind(search.map(|search| like(&search.to_ascii_lowercase())))
            .bind(i64::try_from(count).unwrap_or(i64::MAX))
            .fetch_all(&mut self.connection)
            .await?;
        rows.iter().map(read_audit).collect()
    }

    /// Clears the oldest entries away that are more than are kept. True if more may be left.
    pub async fn prune_audit(&mut self) -> sqlx::Result<bool> {
        let sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id <= ? ORDER BY id LIMIT ?)";
        let surplus = self.audit_newest - KEPT_MAX;
        let pruned = sqlx::query(sql).bind(surplus).bind(PRUNED_AT_ONCE).execute(&mut self.connection).await?;
        Ok(pruned.rows_affected() == PRUNED_AT_ONCE.unsigned_abs())
    }
}

fn read_audit(row: &SqliteRow) -> sqlx::Result<StoredAudit> {
    Ok(StoredAudit {
        id: row.try_get(0)?,
        node: row.try_get(1)?,
        run: row.try_get(2)?,
        serial: row.try_get(3)?,
        at: row.try_get(4)?,
        who: row.try_get(5)?,
        channel: row.try_get(6)?,
        peer: row.try_get(7)?,
        action: row.try_get(8)?,
        target: row.try_get(9)?,
        detail: row.try_get(10)?,
        outcome: row.try_get(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{open, run};
    use super::*;
    use crate::control::store::wall::Wall;
    use crate::shard::Clock;

    fn entry(who: &str) -> AuditEntry {
        AuditEntry {
            who: who.to_owned(),
            channel: "api",
            peer: None,
            action: "ban",
            target: "192.0.2.1".to_owned(),
            detail: String::new(),
            outcome: "done".to_owned(),
        }
    }

    #[test]
    fn entries_are_told_to_each_database_once() {
        run(async {
            let mut state = open(&Wall::new(Clock::start())).await;
            assert!(state.audit_to_tell("db", 10).await.unwrap().is_empty());
            for who in ["ann", "bob", "cid"] {
                state.note(&entry(who), 5).await.unwrap();
            }
            let two = state.audit_to_tell("db", 2).await.unwrap();
            assert_eq!((two.len(), two[0].who.as_str(), two[0].serial, two[1].serial), (2, "ann", 1, 2));
            assert!(two.iter().all(|entry| entry.node == state.node && entry.run == state.run));
            state.audit_told("db", two[1].id).await.unwrap();
            let rest = state.audit_to_tell("db", 2).await.unwrap();
            assert_eq!((rest.len(), rest[0].who.as_str()), (1, "cid"));
            state.audit_told("db", rest[0].id).await.unwrap();
            assert!(state.audit_to_tell("db", 2).await.unwrap().is_empty());
            assert_eq!(state.audit_to_tell("another", 10).await.unwrap().len(), 3);
            state.retell_audit().await.unwrap();
            assert_eq!(state.audit_to_tell("db", 10).await.unwrap().len(), 3);
        });
    }

    #[test]
    fn the_newest_are_kept() {
        run(async {
            let mut state = open(&Wall::new(Clock::start())).await;
            state.note(&entry("ann"), 5).await.unwrap();
            sqlx::query(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO audit (node, run, \
                 serial, at, who, channel, action, target, detail, outcome) SELECT 'x', 0, i, 0, 'bob', '', '', '', '', '' \
                 FROM n",
            )
            .bind(KEPT_MAX)
            .execute(&mut state.connection)
            .await
            .unwrap();
            state.note(&entry("cid"), 5).await.unwrap();
            assert!(!state.prune_audit().await.unwrap());
            let count: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM audit").fetch_one(&mut state.connection).await.unwrap();
            assert_eq!(count, KEPT_MAX);
            assert!(state.audit_page(i64::MAX, Some("ANN"), 10).await.unwrap().is_empty());
            let newest = state.audit_page(i64::MAX, None, 2).await.unwrap();
            assert_eq!([&newest[0].who, &newest[1].who], ["cid", "bob"]);
        });
    }
}

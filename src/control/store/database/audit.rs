//! What operators did, on all nodes, in the shared database.

use super::{BATCH_DEADLINE, Bind, Database, PRUNED_AT_ONCE, QUESTION_DEADLINE, Result, number, within};
use crate::control::store::audit::{SHARED_MAX, StoredAudit};
use crate::control::store::dialect::Dialect;
use crate::control::store::entry::like;
use crate::control::store::wall::Wall;

const COLUMNS: [&str; 11] =
    ["id", "node", "run", "serial", "who", "channel", "peer", "action", "target", "detail", "outcome"];

impl Database {
    /// Writes entries for everybody to see. Those that are there already stay as they are.
    pub async fn tell_audit(&mut self, entries: &[StoredAudit], wall: &Wall) -> Result<()> {
        let columns = "node, run, serial, who, channel, peer, action, target, detail, outcome, at";
        let one = format!("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {})", self.dialect.after_now());
        let rows = vec![one.as_str(); entries.len()].join(", ");
        let sql = match self.dialect {
            Dialect::MySql => {
                format!("INSERT INTO audit ({columns}) VALUES {rows} ON DUPLICATE KEY UPDATE serial = audit.serial")
            }
            _ => format!("INSERT INTO audit ({columns}) VALUES {rows} ON CONFLICT (node, run, serial) DO NOTHING"),
        };
        let now = wall.at(wall.now());
        let mut binds: Vec<Bind> = Vec::with_capacity(entries.len() * COLUMNS.len());
        for entry in entries {
            binds.extend([entry.node.as_str().into(), entry.run.into(), entry.serial.into()]);
            binds.extend([entry.who.as_str().into(), entry.channel.as_str().into(), Bind::Text(entry.peer.clone())]);
            binds
                .extend([&entry.action, &entry.target, &entry.detail, &entry.outcome].map(|text| text.as_str().into()));
            // Clocks of nodes differ; how long ago does not.
            binds.push((entry.at - now).into());
        }
        within(BATCH_DEADLINE, "writing the audit", self.execute(&sql, binds)).await.map(drop)
    }

    /// The newest entries of all nodes below `before` with a text.
    pub async fn audit_page(
        &mut self,
        before: i64,
        search: Option<&str>,
        count: usize,
        wall: &Wall,
    ) -> Result<Vec<StoredAudit>> {
        let dialect = self.dialect;
        let mut columns = COLUMNS.map(|column| dialect.text(column)).to_vec();
        columns.push(dialect.millis_from_now("at"));
        let mut binds = vec![before.into()];
        let found = match search {
            None => String::new(),
            Some(search) => {
                let search =
                    if dialect == Dialect::Sqlite { search.to_ascii_lowercase() } else { search.to_lowercase() };
                let searched = ["node", "who", "channel", "peer", "action", "target", "detail", "outcome"];
                binds.extend(searched.map(|_| Bind::from(like(&search).as_str())));
                let found = searched.map(|column| format!("lower({column}) LIKE ? ESCAPE '!'")).join(" OR ");
                format!("AND ({found})")
            }
        };
        binds.push(i64::try_from(count).unwrap_or(i64::MAX).into());
        let sql =
            format!("SELECT {} FROM audit WHERE id < ? {found} ORDER BY audit.id DESC LIMIT ?", columns.join(", "));
        let rows = within(QUESTION_DEADLINE, "reading the audit", self.rows(sql, binds)).await?;
        let now = wall.at(wall.now());
        let entry = |mut row: Vec<Option<String>>| {
            let numbers = [0, 2, 3, 11].map(|at| number(&row, at).unwrap_or_default());
            let mut text = |at: usize| row.get_mut(at).and_then(Option::take);
            let peer = text(6);
            let mut sure = |at: usize| text(at).unwrap_or_default();
            StoredAudit {
                id: numbers[0],
                node: sure(1),
                run: numbers[1],
                serial: numbers[2],
                at: now.saturating_add(numbers[3]),
                who: sure(4),
                channel: sure(5),
                peer,
                action: sure(7),
                target: sure(8),
                detail: sure(9),
                outcome: sure(10),
            }
        };
        Ok(rows.into_iter().map(entry).collect())
    }

    /// Clears the oldest entries away that are more than are kept. True if more may be left.
    pub async fn prune_audit(&mut self) -> Result<bool> {
        let ends = format!("SELECT {}, {} FROM audit", self.dialect.text("MIN(id)"), self.dialect.text("MAX(id)"));
        let ends = within(QUESTION_DEADLINE, "counting the audit", self.rows(ends, Vec::new())).await?;
        let end = |at| ends.first().and_then(|row| number(row, at));
        let (Some(oldest), Some(newest)) = (end(0), end(1)) else { return Ok(false) };
        let surplus = newest.saturating_sub(SHARED_MAX);
        let until = surplus.min(oldest.saturating_add(PRUNED_AT_ONCE));
        if surplus < oldest {
            return Ok(false);
        }
        let delete = self.execute("DELETE FROM audit WHERE id <= ?", vec![until.into()]);
        within(BATCH_DEADLINE, "clearing old audit away", delete).await?;
        Ok(until < surplus)
    }
}

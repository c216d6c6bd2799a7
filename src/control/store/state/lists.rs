//! The lists of this node alone, in the local state.

use super::State;
use crate::control::store::contents::ListName;
use crate::control::store::entry::{Filter, Lists, NewEntry, like, spellings};
use crate::control::store::page::{Piece, Row};
use crate::engine::address::Network;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

/// Entries read at a time at the start: each piece is gathered to one text.
const READ_AT_ONCE: i64 = 20_000;

impl State {
    /// All of them, sorted.
    pub async fn local_lists(&mut self) -> sqlx::Result<Lists> {
        let mut lists = Lists::default();
        for list in ListName::ALL {
            let (mut networks, mut before) = (Vec::new(), i64::MAX);
            loop {
                let piece = self.list_piece(list, &Filter::default(), before, READ_AT_ONCE).await?;
                networks.extend(piece.found.iter().filter_map(|(_, text)| Network::parse(text).ok()));
                match piece.last {
                    Some(last) => before = last,
                    None => break,
                }
            }
            networks.sort_unstable();
            networks.dedup();
            lists.set(list, networks);
        }
        Ok(lists)
    }

    /// Puts one on a list. False if it was there.
    pub async fn enlist(&mut self, list: ListName, entry: &NewEntry, at: i64) -> sqlx::Result<bool> {
        let enlisted = sqlx::query(
            "INSERT OR IGNORE INTO lists (name, ip_address, reason, created_by, created_at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(list.name())
        .bind(entry.network.to_string())
        .bind(entry.reason.as_deref())
        .bind(&entry.created_by)
        .bind(at)
        .execute(&mut self.connection)
        .await?;
        Ok(enlisted.rows_affected() > 0)
    }

    /// Takes one from a list. False if it was not there.
    pub async fn delist(&mut self, list: ListName, network: Network) -> sqlx::Result<bool> {
        // This program writes it in one way, but people have editors.
        let mut query = QueryBuilder::<Sqlite>::new("DELETE FROM lists WHERE name = ");
        query.push_bind(list.name());
        push_texts(&mut query, &spellings(network));
        Ok(query.build().persistent(false).execute(&mut self.connection).await?.rows_affected() > 0)
    }

    /// The newest entries below `before`.
    pub async fn newest_entries(&mut self, list: ListName, before: i64, count: usize) -> sqlx::Result<Vec<Row>> {
        let mut query = select(list);
        query.push(" AND id < ").push_bind(before);
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::try_from(count).unwrap_or(i64::MAX));
        self.entries(query).await
    }

    /// The entries with these ids, newest first.
    pub async fn entries_of(&mut self, list: ListName, ids: &[i64]) -> sqlx::Result<Vec<Row>> {
        let mut query = select(list);
        query.push(" AND id IN (");
        let mut separated = query.separated(", ");
        for id in ids {
            separated.push_bind(*id);
        }
        query.push(") ORDER BY id DESC");
        self.entries(query).await
    }

    /// The entries with one of these addresses.
    pub async fn entries_named(&mut self, list: ListName, texts: &[String]) -> sqlx::Result<Vec<Row>> {
        let mut query = select(list);
        push_texts(&mut query, texts);
        self.entries(query).await
    }

    async fn entries(&mut self, mut query: QueryBuilder<Sqlite>) -> sqlx::Result<Vec<Row>> {
        let rows = query.build().persistent(false).fetch_all(&mut self.connection).await?;
        rows.iter().map(read_entry).collect()
    }

    /// Looks through the next entries below `before`, `count` of them, for those with a text.
    pub async fn list_piece(
        &mut self,
        list: ListName,
        filter: &Filter,
        before: i64,
        count: i64,
    ) -> sqlx::Result<Piece> {
        let wanted = filter.search.as_deref().map(|search| like(&search.to_ascii_lowercase()));
        let row = sqlx::query(LOOK_THROUGH)
            .bind(list.name())
            .bind(before)
            .bind(count)
            .bind(wanted)
            .fetch_one(&mut self.connection)
            .await?;
        let gathered: Option<Vec<u8>> = row.try_get(1)?;
        Ok(Piece::read(row.try_get(0)?, &String::from_utf8_lossy(&gathered.unwrap_or_default())))
    }
}

/// A row of its own for each entry costs ten times as much as one text of all of them.
const LOOK_THROUGH: &str = "
    SELECT MIN(id), CAST(group_concat(line, char(10)) AS BLOB) FROM (
        SELECT id, CASE WHEN ?4 IS NULL OR lower(ip_address) LIKE ?4 ESCAPE '!' OR lower(reason) LIKE ?4 ESCAPE '!'
            OR lower(created_by) LIKE ?4 ESCAPE '!' THEN id || ' ' || replace(ip_address, char(10), ' ') END AS line
        FROM lists WHERE name = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3
    )";

fn select(list: ListName) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT id, ip_address, reason, created_by, created_at FROM lists WHERE name = ");
    query.push_bind(list.name());
    query
}

fn push_texts(query: &mut QueryBuilder<Sqlite>, texts: &[String]) {
    query.push(" AND ip_address IN (");
    let mut separated = query.separated(", ");
    for text in texts {
        separated.push_bind(text.clone());
    }
    query.push(")");
}

fn read_entry(row: &SqliteRow) -> sqlx::Result<Row> {
    Ok(Row {
        id: row.try_get(0)?,
        address: row.try_get(1)?,
        reason: row.try_get(2)?,
        created_by: row.try_get(3)?,
        created_at: row.try_get(4)?,
        enabled: true,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{open, run};
    use super::*;
    use crate::control::store::state::{Found, State};
    use crate::control::store::wall::Wall;
    use crate::shard::Clock;

    fn entry(address: &str) -> NewEntry {
        NewEntry { network: Network::parse(address).unwrap(), reason: None, created_by: "ann".to_owned() }
    }

    #[test]
    fn entries_are_there_once_and_found_by_their_text() {
        run(async {
            let mut state = open(&Wall::new(Clock::start())).await;
            assert!(state.enlist(ListName::Blacklist, &entry("2001:db8::/32"), 5).await.unwrap());
            assert!(!state.enlist(ListName::Blacklist, &entry("2001:DB8::1/32"), 6).await.unwrap());
            assert!(state.enlist(ListName::Whitelist, &entry("2001:db8::/32"), 7).await.unwrap());
            for n in 0..10 {
                state.enlist(ListName::Blacklist, &entry(&format!("192.0.2.{n}")), 8).await.unwrap();
            }
            let lists = state.local_lists().await.unwrap();
            assert_eq!((lists.of(ListName::Blacklist).len(), lists.of(ListName::Whitelist).len()), (11, 1));
            let filter = Filter { search: Some("2.9".to_owned()), within: None };
            let piece = state.list_piece(ListName::Blacklist, &filter, i64::MAX, 5).await.unwrap();
            assert_eq!(piece.found.len(), 1);
            let (id, text) = &piece.found[0];
            assert_eq!(text, "192.0.2.9");
            // The whitelist's entry is not among the five that were looked at.
            assert_eq!(piece.last, Some(id - 4));
            assert!(state.delist(ListName::Blacklist, Network::parse("2001:db8::/32").unwrap()).await.unwrap());
            assert!(!state.delist(ListName::Blacklist, Network::parse("2001:db8::/32").unwrap()).await.unwrap());
            assert_eq!(state.local_lists().await.unwrap().of(ListName::Whitelist).len(), 1);
        });
    }

    /// Somebody deletes the file: what is known is written again, and what was removed meanwhile stays removed.
    #[test]
    fn entries_go_along_when_the_state_goes_home() {
        run(async {
            let wall = Wall::new(Clock::start());
            let directory = std::env::temp_dir().join(format!("mailfail2ban-lists-{}", std::process::id()));
            let (mut state, found) = State::open(Some(&directory), "n", &wall, 1).await.unwrap();
            assert_eq!(found, Found::Kept);
            for address in ["192.0.2.1", "192.0.2.2"] {
                state.enlist(ListName::Blacklist, &entry(address), 5).await.unwrap();
            }
            sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut state.connection).await.unwrap();
            let there = std::fs::read(directory.join("state.db")).unwrap();
            std::fs::remove_dir_all(&directory).unwrap();
            state.delist(ListName::Blacklist, Network::parse("192.0.2.1").unwrap()).await.unwrap();
            state.enlist(ListName::Blacklist, &entry("192.0.2.3"), 6).await.unwrap();
            // An older one is put back.
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("state.db"), there).unwrap();
            state.recover(&wall).await.unwrap();
            let lists = state.local_lists().await.unwrap();
            let texts: Vec<String> = lists.of(ListName::Blacklist).iter().map(ToString::to_string).collect();
            assert_eq!(texts, ["192.0.2.2", "192.0.2.3"]);
            assert!(state.is_at_home());
            std::fs::remove_dir_all(&directory).unwrap();
        });
    }
}

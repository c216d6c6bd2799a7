//! Pages of lists, out of the file, the shared database and the local state.
//!
//! Without a filter a page is a range of ids, and its total is known. With one everything is looked through, a piece at a
//! time, for what is within a network is nothing that the three databases could be asked in the same way: half a second
//! for a million entries, in which decisions and other nodes wait for no more than a piece.

use super::Shared;
use super::contents::{ListName, printable};
use super::entry::{Entry, EntryPage, EntryQuery, EntrySource, Filter, PAGE_MAX, Place, spellings};
use super::wall::print_wall;
use crate::engine::address::{Address, Network};

/// Entries that are looked through at a time: a megabyte, so that no limit of any of the databases is met.
pub const PIECE: i64 = 20_000;

/// One row of a list. `created_at` is milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: i64,
    pub address: String,
    pub reason: Option<String>,
    pub created_by: Option<String>,
    pub created_at: Option<i64>,
    pub enabled: bool,
}

impl Row {
    fn shown(self, source: EntrySource) -> Entry {
        Entry {
            address: printable(&self.address),
            reason: self.reason,
            created_by: self.created_by,
            created_at: self.created_at.map(print_wall),
            enabled: self.enabled,
            source,
        }
    }
}

/// What was found among the next rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The lowest id that was looked at; `None` if there are no more rows.
    pub last: Option<i64>,
    /// Ids and addresses.
    pub found: Vec<(i64, String)>,
}

impl Piece {
    /// Of a text with a row on each line. Rows with an id below 1, which somebody wrote by hand, have no place on a page.
    pub fn read(last: Option<i64>, gathered: &str) -> Piece {
        let row = |line: &str| {
            let (id, address) = line.split_once(' ')?;
            let id = id.parse().ok().filter(|id| *id > 0)?;
            Some((id, address.to_owned()))
        };
        let last = last.filter(|last| *last > 0);
        Piece { last, found: gathered.lines().filter_map(row).collect() }
    }
}

/// A table of entries.
pub trait Table {
    type Fault;

    fn source(&self) -> EntrySource;

    /// How many rows there are.
    async fn count(&mut self, list: ListName) -> Result<u64, Self::Fault>;

    /// The newest rows below an id.
    async fn newest(&mut self, list: ListName, before: i64, count: usize) -> Result<Vec<Row>, Self::Fault>;

    /// Looks through the next rows below an id for those with a text.
    async fn piece(&mut self, list: ListName, filter: &Filter, before: i64) -> Result<Piece, Self::Fault>;

    /// The rows with these ids, newest first.
    async fn of_ids(&mut self, list: ListName, ids: &[i64]) -> Result<Vec<Row>, Self::Fault>;

    /// The rows in force that have one of these addresses.
    async fn named(&mut self, list: ListName, texts: &[String]) -> Result<Vec<Row>, Self::Fault>;
}

/// The local state, which is let go between two questions.
pub struct Here<'a>(pub &'a Shared);

impl Table for Here<'_> {
    type Fault = sqlx::Error;

    fn source(&self) -> EntrySource {
        EntrySource::Local
    }

    async fn count(&mut self, list: ListName) -> sqlx::Result<u64> {
        Ok(self.0.local.borrow().of(list).len() as u64)
    }

    async fn newest(&mut self, list: ListName, before: i64, count: usize) -> sqlx::Result<Vec<Row>> {
        if self.0.local.borrow().of(list).is_empty() {
            // As it is where there is a database: then nobody waits for what is being written here.
            return Ok(Vec::new());
        }
        self.0.state.lock().await.newest_entries(list, before, count).await
    }

    async fn piece(&mut self, list: ListName, filter: &Filter, before: i64) -> sqlx::Result<Piece> {
        if self.0.local.borrow().of(list).is_empty() {
            return Ok(Piece::default());
        }
        self.0.state.lock().await.list_piece(list, filter, before, PIECE).await
    }

    async fn of_ids(&mut self, list: ListName, ids: &[i64]) -> sqlx::Result<Vec<Row>> {
        self.0.state.lock().await.entries_of(list, ids).await
    }

    async fn named(&mut self, list: ListName, texts: &[String]) -> sqlx::Result<Vec<Row>> {
        self.0.state.lock().await.entries_named(list, texts).await
    }
}

/// A page that is being filled.
#[derive(Debug)]
pub struct Filling {
    list: ListName,
    filter: Filter,
    limit: usize,
    /// Where the next entry is to come from.
    place: Option<Place>,
    page: EntryPage,
}

impl Filling {
    /// Begins with what the file has.
    pub fn begin(list: ListName, query: &EntryQuery, of_file: &[Network]) -> Filling {
        let filter = Filter::of(query);
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut page = EntryPage::default();
        let mut place = Some(Place::from_number(query.after));
        let mut matching = 0;
        for (at, network) in of_file.iter().enumerate().filter(|(_, network)| filter.takes(**network)) {
            matching += 1;
            match place {
                Some(Place::File(from)) if at >= from && page.entries.len() == limit => {
                    place = None;
                    page.next = Some(Place::File(at).number());
                }
                Some(Place::File(from)) if at >= from => page.entries.push(of_config(*network)),
                _ => {}
            }
        }
        page.total = matching;
        if let Some(Place::File(_)) = place {
            place = Some(Place::DATABASE);
        }
        Filling { list, filter, limit, place, page }
    }

    /// Goes on with a table, which is the one that `begins` is the beginning of.
    pub async fn add<T: Table>(&mut self, table: &mut T) -> Result<(), T::Fault> {
        let is_of_database = table.source() == EntrySource::Database;
        let before = match self.place {
            Some(Place::Database(before)) if is_of_database => Some(before),
            Some(Place::Local(before)) if !is_of_database => Some(before),
            _ => None,
        };
        let room = before.map_or(0, |_| self.limit - self.page.entries.len());
        // One more than there is room for says whether there is more.
        let (mut rows, total) = self.rows(table, before.unwrap_or(0), room + 1).await?;
        self.page.total += total;
        let Some(before) = before else { return Ok(()) };
        let full = rows.len() > room;
        rows.truncate(room);
        let last = rows.last().map_or(before, |row| row.id);
        self.page.entries.extend(rows.into_iter().map(|row| row.shown(table.source())));
        self.place = match full {
            false => Some(Place::LOCAL),
            true => {
                let place = if is_of_database { Place::Database(last) } else { Place::Local(last) };
                self.page.next = Some(place.number());
                None
            }
        };
        Ok(())
    }

    /// Passes over the database, because there is none.
    pub fn without_database(&mut self) {
        if let Some(Place::Database(_)) = self.place {
            self.place = Some(Place::LOCAL);
        }
    }

    pub fn finish(self) -> EntryPage {
        self.page
    }

    async fn rows<T: Table>(&self, table: &mut T, before: i64, count: usize) -> Result<(Vec<Row>, u64), T::Fault> {
        if self.filter.is_none() {
            return Ok((table.newest(self.list, before, count).await?, table.count(self.list).await?));
        }
        let (mut ids, mut total, mut next) = (Vec::new(), 0, i64::MAX);
        loop {
            let piece = table.piece(self.list, &self.filter, next).await?;
            let within = piece.found.iter().filter(|(_, text)| self.filter.lies_within_text(text));
            let mut matching: Vec<i64> = within.map(|(id, _)| *id).collect();
            total += matching.len() as u64;
            // Not every database keeps the order of what it gathers.
            matching.sort_unstable_by(|a, b| b.cmp(a));
            let room = count - ids.len();
            ids.extend(matching.into_iter().filter(|id| *id < before).take(room));
            match piece.last {
                Some(last) => next = last,
                None => break,
            }
        }
        let rows = if ids.is_empty() { Vec::new() } else { table.of_ids(self.list, &ids).await? };
        Ok((rows, total))
    }
}

/// The entries of a table that hold an address, the longest networks first. `networks` is what of it is in force, sorted.
///
/// These are looked up as people usually write them. What is in force and was not found so is looked for among all rows.
pub async fn covering<T: Table>(
    table: &mut T,
    list: ListName,
    address: Address,
    networks: &[Network],
) -> Result<Vec<Entry>, T::Fault> {
    let holding: Vec<Network> = address.networks().filter(|network| networks.binary_search(network).is_ok()).collect();
    let mut found: Vec<(Network, Row)> = Vec::new();
    for network in &holding {
        let rows = table.named(list, &spellings(*network)).await?;
        found.extend(rows.into_iter().map(|row| (*network, row)));
    }
    if holding.iter().any(|network| found.iter().all(|(of, _)| of != network)) {
        let missing = holding.iter().filter(|network| found.iter().all(|(of, _)| of != *network));
        let missing: Vec<Network> = missing.copied().collect();
        let ids = rows_of(table, list, &missing).await?;
        for row in table.of_ids(list, &ids).await?.into_iter().filter(|row| row.enabled) {
            found.extend(Network::parse(row.address.trim()).ok().map(|network| (network, row)));
        }
    }
    found.sort_by_key(|(network, _)| std::cmp::Reverse(network.len()));
    Ok(found.into_iter().map(|(_, row)| row.shown(table.source())).collect())
}

/// The ids of all rows that are one of some networks, however they are written: [`PAGE_MAX`] of them.
pub async fn rows_of<T: Table>(table: &mut T, list: ListName, of: &[Network]) -> Result<Vec<i64>, T::Fault> {
    let (mut ids, mut next) = (Vec::new(), i64::MAX);
    loop {
        let piece = table.piece(list, &Filter::default(), next).await?;
        let is_one = |text: &str| Network::parse(text.trim()).is_ok_and(|network| of.contains(&network));
        ids.extend(piece.found.iter().filter(|(_, text)| is_one(text)).map(|(id, _)| *id));
        match piece.last {
            Some(last) if ids.len() < PAGE_MAX => next = last,
            _ => break,
        }
    }
    ids.truncate(PAGE_MAX);
    Ok(ids)
}

/// The file's entries that hold an address, the longest networks first.
pub fn covering_in_file(of_file: &[Network], address: Address) -> Vec<Entry> {
    address.networks().filter(|network| of_file.binary_search(network).is_ok()).map(of_config).collect()
}

fn of_config(network: Network) -> Entry {
    Entry {
        address: network.to_string(),
        reason: None,
        created_by: None,
        created_at: None,
        enabled: true,
        source: EntrySource::File,
    }
}

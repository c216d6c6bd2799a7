//! What the shared database says, as it was read: rows as text, lists as networks, and what is wrong with them.

use crate::engine::address::Network;
use std::fmt;
use std::sync::Arc;

/// A row: its columns' names and texts; `None` is NULL. What it means, and whether it may, is for `config`.
pub type Row = Vec<(String, Option<String>)>;

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $($variant,)+ }

        impl $type {
            pub const ALL: [$type; [$($name),+].len()] = [$($type::$variant),+];

            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)+ }
            }

            pub fn from_name(name: &str) -> Option<$type> {
                $type::ALL.into_iter().find(|known| known.name() == name)
            }
        }
    };
}

named! {
    /// The tables that are read and whose versions count changes.
    TableName {
        Patterns = "patterns",
        BanConfig = "ban_config",
        Blacklist = "blacklist",
        Whitelist = "whitelist",
        Bans = "bans",
    }
}

named! {
    /// The tables that hold networks.
    ListName {
        Whitelist = "whitelist",
        Blacklist = "blacklist",
    }
}

impl TableName {
    /// Those that settings are made of.
    pub const SETTINGS: [TableName; 4] =
        [TableName::Patterns, TableName::BanConfig, TableName::Blacklist, TableName::Whitelist];
}

impl ListName {
    pub fn table(self) -> TableName {
        match self {
            ListName::Whitelist => TableName::Whitelist,
            ListName::Blacklist => TableName::Blacklist,
        }
    }
}

/// A row that cannot be used. The others are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowFault {
    pub table: TableName,
    /// What the row is called: a pattern's name, an address; made printable.
    pub row: String,
    /// Empty if it is the row as a whole.
    pub column: String,
    pub message: String,
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}, {:?}", self.table.name(), self.row)?;
        if !self.column.is_empty() {
            write!(f, ", column {}", self.column)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// One list, sorted and without repetitions.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub networks: Arc<Vec<Network>>,
    /// Rows that are no networks: the first of them, and how many there are.
    pub faults: Vec<RowFault>,
    pub faulty: usize,
    /// Rows that are the network of another row, in another spelling.
    pub repeated: usize,
    /// Rows of the table, also those that are switched off; where it was read there.
    pub rows: u64,
}

/// Everything that settings are made of.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Rows of `patterns`, in the order of their ids, and how many more there are than are read.
    pub patterns: Vec<Row>,
    pub patterns_more: usize,
    /// The row `default` of `ban_config`, if it is there and enabled.
    pub ban: Option<Row>,
    pub whitelist: List,
    pub blacklist: List,
}

impl Contents {
    pub fn list(&self, name: ListName) -> &List {
        match name {
            ListName::Whitelist => &self.whitelist,
            ListName::Blacklist => &self.blacklist,
        }
    }

    pub fn list_mut(&mut self, name: ListName) -> &mut List {
        match name {
            ListName::Whitelist => &mut self.whitelist,
            ListName::Blacklist => &mut self.blacklist,
        }
    }

    pub fn set_list(&mut self, name: ListName, mut networks: Vec<Network>) {
        networks.sort_unstable();
        networks.dedup();
        *self.list_mut(name) = List { networks: Arc::new(networks), ..List::default() };
    }

    /// Whether settings made of both would be the same.
    pub fn says_the_same(&self, other: &Contents) -> bool {
        let lists = ListName::ALL.into_iter().all(|name| {
            let (one, two) = (self.list(name), other.list(name));
            one.faulty == two.faulty && one.faults == two.faults && one.networks == two.networks
        });
        lists && self.patterns == other.patterns && self.patterns_more == other.patterns_more && self.ban == other.ban
    }
}

/// Faulty rows of a list that are kept to be shown.
const FAULTS_SHOWN_MAX: usize = 100;

/// Collects a list from texts.
#[derive(Debug)]
pub struct ListReader {
    table: TableName,
    networks: Vec<Network>,
    faults: Vec<RowFault>,
    faulty: usize,
}

impl ListReader {
    pub fn new(list: ListName) -> ListReader {
        ListReader { table: list.table(), networks: Vec::new(), faults: Vec::new(), faulty: 0 }
    }

    pub fn take(&mut self, text: &str) {
        match Network::parse(text.trim()) {
            Ok(network) => self.networks.push(network),
            Err(why) => {
                self.faulty += 1;
                if self.faults.len() < FAULTS_SHOWN_MAX {
                    let row = printable(text);
                    let message = format!("is not an address or network: {why}");
                    self.faults.push(RowFault { table: self.table, row, column: "ip_address".to_owned(), message });
                }
            }
        }
    }

    pub fn finish(mut self) -> List {
        let read = self.networks.len();
        self.networks.sort_unstable();
        self.networks.dedup();
        let repeated = read - self.networks.len();
        List { networks: Arc::new(self.networks), faults: self.faults, faulty: self.faulty, repeated, rows: 0 }
    }
}

/// Longest text of a row that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 100;

/// A text from a database, for a log or a page: no control characters, not too long.
pub fn printable(text: &str) -> String {
    let mut shown: String =
        text.chars().take(SHOWN_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// What was added to a sorted list, and what removed.
pub fn difference(old: &[Network], new: &[Network]) -> (Vec<Network>, Vec<Network>) {
    // Of a million, mostly one is another.
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[same..], &new[same..]);
    let same = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - same], &new[..new.len() - same]);
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
            }
            (Some(a), Some(b)) if a > b => added.extend(new.next().copied()),
            (Some(_), _) => removed.extend(old.next().copied()),
            (None, Some(_)) => added.extend(new.next().copied()),
            (None, None) => return (added, removed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn network(n: u8) -> Network {
        Network::parse(&format!("192.0.2.{n}")).unwrap()
    }

    proptest! {
        #[test]
        fn the_difference_makes_the_new_from_the_old(
            old in prop::collection::btree_set(0..30u8, 0..20), new in prop::collection::btree_set(0..30u8, 0..20),
        ) {
            let sorted = |set: &BTreeSet<u8>| {
                let mut list: Vec<Network> = set.iter().map(|n| network(*n)).collect();
                list.sort_unstable();
                list
            };
            let (added, removed) = difference(&sorted(&old), &sorted(&new));
            prop_assert_eq!(added, sorted(&(&new - &old)));
            prop_assert_eq!(removed, sorted(&(&old - &new)));
        }
    }

    #[test]
    fn what_is_no_network_is_named_and_the_rest_is_taken() {
        let mut reader = ListReader::new(ListName::Blacklist);
        for text in ["192.0.2.7", " 10.0.0.0/8 ", "mail\nhost", "192.0.2.7", ""] {
            reader.take(text);
        }
        let list = reader.finish();
        assert_eq!((list.networks.len(), list.faulty, list.repeated), (2, 2, 1));
        let said = list.faults[0].to_string();
        assert!(said.starts_with("table blacklist, \"mail\u{fffd}host\", column ip_address: is not"), "{said}");
        assert_eq!(printable(&"x".repeat(200)).chars().count(), 101);
    }
}

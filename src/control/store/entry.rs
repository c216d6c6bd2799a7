//! Entries of the lists that operators edit: where they may be, how they are looked for, and why an edit may fail.

use super::contents::ListName;
use super::database::LIST_ROWS_MAX;
use crate::config::Settings;
use crate::engine::address::Network;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// Longest reason that is kept, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

/// Longest name of whoever did something, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Longest text that is searched for, in bytes.
const SEARCH_BYTES_MAX: usize = 256;

/// Entries on a page at most.
pub const PAGE_MAX: usize = 1_000;

/// What an operator puts on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    pub network: Network,
    /// Beyond [`REASON_BYTES_MAX`] it is cut.
    pub reason: Option<String>,
    /// Beyond [`NAME_BYTES_MAX`] it is cut.
    pub created_by: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enlisted {
    New,
    /// It was on the list; nothing changes.
    Already,
}

/// Where an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntrySource {
    /// In `ban.whitelist` or `ban.blacklist`: it is changed there.
    File,
    /// In this node's local state: it counts on this node.
    Local,
    /// In the shared database: it counts on every node.
    Database,
}

/// One entry, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// As it is stored, which need not be how it is usually written, or even an address.
    pub address: String,
    pub reason: Option<String>,
    /// `None` where nobody wrote it down.
    pub created_by: Option<String>,
    /// RFC 3339, in UTC.
    pub created_at: Option<String>,
    /// A row that is switched off is not in force.
    pub enabled: bool,
    pub source: EntrySource,
}

/// Which entries are asked for. The newest come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryQuery {
    /// Only entries that lie wholly in this network.
    pub within: Option<Network>,
    /// Only entries with this text in their address, reason or author, in upper or lower case.
    pub search: Option<String>,
    /// At most [`PAGE_MAX`].
    pub limit: usize,
    /// [`EntryPage::next`] of the page before.
    pub after: Option<i64>,
}

/// Some of the entries: those of the file, then those of the database, then those of the local state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EntryPage {
    pub entries: Vec<Entry>,
    /// How many there are on all pages.
    pub total: u64,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<i64>,
}

/// Why a list cannot be edited or read now. `Display` is a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditFault {
    /// The entry stands in the configuration file.
    InFile(ListName),
    /// The shared database does not answer, and why.
    Away(String),
    /// The shared database answers, and refuses.
    Refused(String),
    /// The local state cannot be written or read.
    Unwritable(String),
    /// There is no room for more entries.
    TooMany(ListName),
    /// Too many others ask.
    Busy,
    /// The program ends.
    Ending,
}

impl fmt::Display for EditFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditFault::InFile(list) => {
                let list = list.name();
                write!(f, "it stands in ban.{list} of the configuration file; take it out there and reload")
            }
            EditFault::Away(why) => write!(f, "the database is away: {why}"),
            EditFault::Refused(why) => write!(f, "the database answers, but refuses: {why}"),
            EditFault::Unwritable(why) => write!(f, "the local state has a fault: {why}"),
            EditFault::TooMany(list) => {
                write!(f, "the {} has {LIST_ROWS_MAX} entries, which is as many as there can be", list.name())
            }
            EditFault::Busy => f.write_str("too much is asked at once; try again in a moment"),
            EditFault::Ending => f.write_str("the program is ending"),
        }
    }
}

/// The lists of one place, each sorted and without repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists([Arc<Vec<Network>>; 2]);

impl Lists {
    pub fn of(&self, list: ListName) -> &Arc<Vec<Network>> {
        &self.0[list as usize]
    }

    pub fn set(&mut self, list: ListName, networks: Vec<Network>) {
        self.0[list as usize] = Arc::new(networks);
    }

    pub fn holds(&self, list: ListName, network: Network) -> bool {
        self.of(list).binary_search(&network).is_ok()
    }

    /// Puts one in its place. False if it was there.
    pub fn insert(&mut self, list: ListName, network: Network) -> bool {
        insert(&mut self.0[list as usize], network)
    }

    /// Takes one out. False if it was not there.
    pub fn remove(&mut self, list: ListName, network: Network) -> bool {
        remove(&mut self.0[list as usize], network)
    }

    /// Those of the configuration file.
    pub fn of_file(settings: &Settings) -> Lists {
        let mut lists = Lists::default();
        lists.set(ListName::Whitelist, sorted(&settings.ban.whitelist));
        lists.set(ListName::Blacklist, sorted(&settings.ban.blacklist));
        lists
    }
}

/// Networks as lists keep them.
pub fn sorted(networks: &[Network]) -> Vec<Network> {
    let mut networks = networks.to_vec();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// Puts a network in its place in a sorted list. False if it was there.
pub fn insert(networks: &mut Arc<Vec<Network>>, network: Network) -> bool {
    match networks.binary_search(&network) {
        Ok(_) => false,
        Err(place) => {
            Arc::make_mut(networks).insert(place, network);
            true
        }
    }
}

/// Takes a network out of a sorted list. False if it was not there.
pub fn remove(networks: &mut Arc<Vec<Network>>, network: Network) -> bool {
    match networks.binary_search(&network) {
        Ok(place) => {
            Arc::make_mut(networks).remove(place);
            true
        }
        Err(_) => false,
    }
}

/// How people usually write a network: as this program does, with its length though it is one host, in capitals, and as
/// IPv6 what is IPv4. These are looked up by index; there are more, as with zeros before or bits beyond its length.
pub fn spellings(network: Network) -> Vec<String> {
    let (base, len) = (network.base(), network.len());
    let mut texts = vec![network.to_string(), format!("{base}/{len}")];
    if network.is_ipv4() {
        texts.push(format!("::ffff:{base}/{}", len + 96));
        if len == 32 {
            texts.push(format!("::ffff:{base}"));
        }
    }
    let capitals: Vec<String> = texts.iter().map(|text| text.to_ascii_uppercase()).collect();
    texts.extend(capitals);
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// Where a page begins, in the order in which entries are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// With this one of the file.
    File(usize),
    /// After (with a lower id than) a row of the database.
    Database(i64),
    /// After a row of the local state.
    Local(i64),
}

/// What of a place as a number says where, and how much is left for the id.
const PLACE_SHIFT: u32 = 60;
const PLACE_MASK: i64 = (1 << PLACE_SHIFT) - 1;

impl Place {
    pub const DATABASE: Place = Place::Database(PLACE_MASK);
    pub const LOCAL: Place = Place::Local(PLACE_MASK);

    /// As the one who asks for the next page says it. Any number is a place.
    pub fn from_number(number: Option<i64>) -> Place {
        let Some(number) = number else { return Place::File(0) };
        let id = number & PLACE_MASK;
        match number >> PLACE_SHIFT {
            1 => Place::Database(id),
            2 => Place::Local(id),
            _ => Place::File(usize::try_from(id).unwrap_or(usize::MAX)),
        }
    }

    pub fn number(self) -> i64 {
        let (place, id) = match self {
            Place::File(at) => (0, i64::try_from(at).unwrap_or(PLACE_MASK)),
            Place::Database(id) => (1, id),
            Place::Local(id) => (2, id),
        };
        place << PLACE_SHIFT | id & PLACE_MASK
    }
}

/// What entries must have to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub within: Option<Network>,
    pub search: Option<String>,
}

impl Filter {
    pub fn of(query: &EntryQuery) -> Filter {
        let search = query.search.as_deref().map(|text| cut(text.trim(), SEARCH_BYTES_MAX));
        Filter { within: query.within, search: search.filter(|text| !text.is_empty()) }
    }

    pub fn is_none(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether an entry that has nothing but an address is one.
    pub fn takes(&self, network: Network) -> bool {
        let found = |text: &String| network.to_string().contains(&text.to_ascii_lowercase());
        self.lies_within(network) && self.search.as_ref().is_none_or(found)
    }

    fn lies_within(&self, network: Network) -> bool {
        self.within.is_none_or(|within| within.covers(network))
    }

    /// The same of a text that should be an address.
    pub fn lies_within_text(&self, text: &str) -> bool {
        self.within.is_none() || Network::parse(text.trim()).is_ok_and(|network| self.lies_within(network))
    }
}

/// A text to search for, for `LIKE … ESCAPE '!'`.
pub fn like(search: &str) -> String {
    let mut pattern = String::with_capacity(search.len() + 2);
    pattern.push('%');
    for c in search.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// A text that can be stored everywhere: no control characters, and not more bytes than these.
pub fn cut(text: &str, bytes_max: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::address::Address;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    proptest! {
        #[test]
        fn a_list_is_a_sorted_set(steps in prop::collection::vec((0..40u8, any::<bool>()), 0..60)) {
            let (mut lists, mut model) = (Lists::default(), BTreeSet::new());
            for (n, add) in steps {
                let network = network(&format!("192.0.2.{n}"));
                match add {
                    true => prop_assert_eq!(lists.insert(ListName::Blacklist, network), model.insert(network)),
                    false => prop_assert_eq!(lists.remove(ListName::Blacklist, network), model.remove(&network)),
                }
                let sorted: Vec<Network> = model.iter().copied().collect();
                prop_assert_eq!(&**lists.of(ListName::Blacklist), &sorted);
                prop_assert_eq!(lists.holds(ListName::Blacklist, network), add);
            }
            prop_assert!(lists.of(ListName::Whitelist).is_empty());
        }

        #[test]
        fn a_place_has_a_number_and_a_number_a_place(number in any::<i64>()) {
            let place = Place::from_number(Some(number));
            prop_assert_eq!(Place::from_number(Some(place.number())), place);
        }

        #[test]
        fn every_spelling_is_the_network(bits in any::<u32>(), len in 0..=32u8, v6 in any::<u128>(), len6 in 0..=128u8) {
            let v4 = Network::new(Address::from(std::net::Ipv4Addr::from_bits(bits)), len).unwrap();
            let v6 = Network::new(Address::from(std::net::Ipv6Addr::from_bits(v6)), len6);
            for network in [Some(v4), v6].into_iter().flatten() {
                for text in spellings(network) {
                    prop_assert_eq!(Network::parse(&text), Ok(network), "{}", text);
                }
            }
        }
    }

    #[test]
    fn what_holds_an_address_is_named_from_the_longest() {
        let texts = |text: &str| -> Vec<String> {
            Address::parse(text.as_bytes()).unwrap().networks().map(|network| network.to_string()).collect()
        };
        let v4 = texts("192.0.2.1");
        assert_eq!(
            (v4.len(), v4[0].as_str(), v4[8].as_str(), v4[32].as_str()),
            (33, "192.0.2.1", "192.0.2.0/24", "0.0.0.0/0")
        );
        assert_eq!(texts("2001:db8::1").len(), 129);
    }

    #[test]
    fn texts_are_cut_between_characters_and_searched_as_they_are() {
        assert_eq!(cut("größer\0\n", 4), "grö");
        assert_eq!(cut("a\0b", 100), "a b");
        assert_eq!(like("50%_!"), "%50!%!_!!%");
    }
}

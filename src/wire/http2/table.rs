//! HPACK's tables (RFC 7541 §2.3): the one that everybody has, and the one that a peer fills.

use std::collections::VecDeque;

use super::name::Kind;

/// What an entry counts beyond its bytes (§4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Largest size of a peer's table: what it is before anybody says otherwise (RFC 9113 §6.5.2), and we do not.
pub const SIZE_MAX: usize = 4096;

/// A field of a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// What the name is to HTTP/2. Of a name in the table it is found once, when it gets there.
    pub kind: Kind,
}

impl Field<'_> {
    /// As the table and the header list count it (RFC 7541 §4.1, RFC 9113 §6.5.2).
    pub fn size(&self) -> usize {
        self.name.len().saturating_add(self.value.len()).saturating_add(ENTRY_OVERHEAD)
    }
}

/// What a peer has told to remember. The first entry to go is in front.
#[derive(Debug)]
pub struct Table {
    entries: VecDeque<Entry>,
    /// The names and values of the entries one behind the other, behind some that are gone.
    bytes: Vec<u8>,
    size: usize,
    size_max: usize,
    /// How often it was changed.
    changes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    begin: usize,
    name_bytes: usize,
    value_bytes: usize,
    kind: Kind,
}

impl Default for Table {
    fn default() -> Table {
        Table { entries: VecDeque::new(), bytes: Vec::new(), size: 0, size_max: SIZE_MAX, changes: 0 }
    }
}

impl Table {
    /// The entry of that number (§2.3.3): from 1 on the static ones, then the others, the last that came first.
    pub fn get(&self, index: usize) -> Option<Field<'_>> {
        let at = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(at) {
            let name = name.as_bytes();
            return Some(Field { name, value: value.as_bytes(), kind: Kind::of(name) });
        }
        let age = at.checked_sub(STATIC.len())?;
        let entry = self.entries.get(self.entries.len().checked_sub(age)?.checked_sub(1)?)?;
        let (name, rest) = self.bytes.get(entry.begin..)?.split_at_checked(entry.name_bytes)?;
        Some(Field { name, value: rest.get(..entry.value_bytes)?, kind: entry.kind })
    }

    /// Adds an entry, for which others have to go. One that is larger than the table leaves it empty, and is no fault
    /// (§4.4).
    pub fn insert(&mut self, field: Field<'_>) {
        self.changes += 1;
        self.evict(self.size_max.saturating_sub(field.size()));
        if field.size() > self.size_max {
            self.evict(0);
            return;
        }
        if self.bytes.len() >= 2 * SIZE_MAX {
            self.compact();
        }
        let entry = Entry {
            begin: self.bytes.len(),
            name_bytes: field.name.len(),
            value_bytes: field.value.len(),
            kind: field.kind,
        };
        self.bytes.extend_from_slice(field.name);
        self.bytes.extend_from_slice(field.value);
        self.size += field.size();
        self.entries.push_back(entry);
    }

    /// Sets how large it may be (§4.3). False if that is larger than was agreed on.
    #[must_use]
    pub fn resize(&mut self, size_max: usize) -> bool {
        self.changes += 1;
        self.size_max = size_max.min(SIZE_MAX);
        self.evict(self.size_max);
        size_max <= SIZE_MAX
    }

    /// A number that is another one after every change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Lets entries go until all are no larger than `size_max`.
    fn evict(&mut self, size_max: usize) {
        while self.size > size_max {
            let Some(entry) = self.entries.pop_front() else { break };
            self.size -= entry.name_bytes + entry.value_bytes + ENTRY_OVERHEAD;
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }

    /// Takes the bytes together: at most the table's size of them moves, after twice that has come.
    fn compact(&mut self) {
        let gone = self.entries.front().map_or(self.bytes.len(), |first| first.begin);
        self.bytes.drain(..gone);
        self.entries.iter_mut().for_each(|entry| entry.begin -= gone);
    }
}

/// RFC 7541, Appendix A
pub const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field<'a>(name: &'a str, value: &'a str) -> Field<'a> {
        Field { name: name.as_bytes(), value: value.as_bytes(), kind: Kind::of(name.as_bytes()) }
    }

    #[test]
    fn numbers_begin_with_the_static_ones() {
        let mut table = Table::default();
        assert_eq!(table.get(0), None);
        assert_eq!(table.get(1), Some(field(":authority", "")));
        assert_eq!(table.get(8), Some(field(":status", "200")));
        assert_eq!(table.get(31), Some(field("content-type", "")));
        assert_eq!(table.get(61), Some(field("www-authenticate", "")));
        assert_eq!(table.get(62), None);
        table.insert(field("a", "1"));
        table.insert(field("b", "2"));
        assert_eq!((table.get(62), table.get(63)), (Some(field("b", "2")), Some(field("a", "1"))));
        assert_eq!((table.get(64), table.get(usize::MAX)), (None, None));
    }

    #[test]
    fn what_is_too_large_empties_it() {
        let mut table = Table::default();
        table.insert(field("a", "1"));
        let changes = table.changes();
        table.insert(field("b", &"x".repeat(SIZE_MAX - 32)));
        assert_eq!((table.get(62), table.size), (None, 0));
        assert_ne!(table.changes(), changes);
        table.insert(field("b", &"x".repeat(SIZE_MAX - 33)));
        assert_eq!(table.size, SIZE_MAX);
        assert!(table.resize(SIZE_MAX) && table.get(62).is_some());
        assert!(table.resize(SIZE_MAX - 1) && table.get(62).is_none());
        assert!(!table.resize(SIZE_MAX + 1));
    }

    proptest! {
        /// Against a list of owned texts.
        #[test]
        fn it_holds_what_a_plain_list_holds(
            steps in prop::collection::vec((0..20_usize, 0..1500_usize, prop::option::of(0..=SIZE_MAX)), 0..100),
        ) {
            let (mut table, mut plain, mut size_max) = (Table::default(), VecDeque::new(), SIZE_MAX);
            let size = |plain: &VecDeque<(String, String)>| {
                plain.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>()
            };
            for (at, (name, value, resize)) in steps.into_iter().enumerate() {
                let (name, value) = ("n".repeat(name) + &at.to_string(), "v".repeat(value));
                table.insert(field(&name, &value));
                plain.push_front((name, value));
                if let Some(resized) = resize {
                    while size(&plain) > size_max {
                        plain.pop_back();
                    }
                    size_max = resized;
                    prop_assert!(table.resize(resized));
                }
                while size(&plain) > size_max {
                    plain.pop_back();
                }
                prop_assert_eq!(table.size, size(&plain));
                for (at, (name, value)) in plain.iter().enumerate() {
                    prop_assert_eq!(table.get(62 + at), Some(field(name, value)));
                }
                prop_assert_eq!(table.get(62 + plain.len()), None);
                prop_assert!(table.bytes.len() <= 3 * SIZE_MAX);
            }
        }
    }
}

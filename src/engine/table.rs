//! A table of networks: exact insert and remove, longest match on lookup.
//!
//! Most entries are single hosts (or the /64 of an IPv6 client), and most questions are misses. A seeded hash table
//! answers both in a few nanoseconds where a trie walks a dozen cache lines; networks of any other length are few
//! and live in a trie (`treebitmap`). `bench/replica.rs` compares the two.
//!
//! The trie panics on a prefix with host bits set. [`Network`] cannot have any, which is why this is the only file
//! that touches it.

use super::address::{Address, Network, mask_v4, mask_v6};
use hashbrown::HashMap;
use ip_network_table_deps_treebitmap::IpLookupTable;
use ip_network_table_deps_treebitmap::address::Address as TrieAddress;
use std::cmp::Reverse;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The keyed hash of every table: the key is drawn at start, so that nobody can choose addresses that collide.
pub type HashKey = foldhash::fast::SeedableRandomState;

/// The hash for a given key. The caller draws the key; a test may fix it.
pub fn hash_key(seed: u64) -> HashKey {
    HashKey::with_seed(seed, foldhash::SharedSeed::global_fixed())
}

/// How many entries are prepared in a table made for many, so that it never pauses to rehash below that.
const PREPARED: usize = 1 << 20;

/// One address family: how an address becomes a key of a hash table and back.
trait Family {
    type Ip: TrieAddress + Copy + Into<IpAddr>;
    type Key: Copy + Eq + Hash;

    /// The key of the network of `len` bits around `ip`; `len` is at most what the family has.
    fn key(ip: Self::Ip, len: u8) -> Self::Key;
    fn ip(key: Self::Key) -> Self::Ip;
    /// The first 16 bits.
    fn head(ip: Self::Ip) -> u16;
}

struct V4;

impl Family for V4 {
    type Ip = Ipv4Addr;
    type Key = u32;

    #[inline]
    fn key(ip: Ipv4Addr, len: u8) -> u32 {
        ip.to_bits() & mask_v4(len)
    }

    fn ip(key: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(key)
    }

    #[inline]
    fn head(ip: Ipv4Addr) -> u16 {
        (ip.to_bits() >> 16) as u16
    }
}

struct V6;

/// An IPv6 key in words: the alignment of `u128` would waste a third of each entry.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KeyV6([u32; 4]);

impl Hash for KeyV6 {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d] = self.0;
        state.write_u64(u64::from(a) << 32 | u64::from(b));
        state.write_u64(u64::from(c) << 32 | u64::from(d));
    }
}

impl Family for V6 {
    type Ip = Ipv6Addr;
    type Key = KeyV6;

    #[inline]
    fn key(ip: Ipv6Addr, len: u8) -> KeyV6 {
        let bits = ip.to_bits() & mask_v6(len);
        KeyV6([(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32])
    }

    fn ip(key: KeyV6) -> Ipv6Addr {
        Ipv6Addr::from_bits(key.0.iter().fold(0, |bits, &word| bits << 32 | u128::from(word)))
    }

    #[inline]
    fn head(ip: Ipv6Addr) -> u16 {
        (ip.to_bits() >> 112) as u16
    }
}

/// Networks of one length.
type Hashed<K, V> = (u8, HashMap<K, V, HashKey>);

/// The networks of one family.
struct Half<F: Family, V> {
    /// One hash table per length that is kept hashed, longest first.
    hashed: Vec<Hashed<F::Key, V>>,
    trie: IpLookupTable<F::Ip, V>,
    /// What the trie holds, roughly, so that most questions need not walk it.
    outline: Outline,
    hash: HashKey,
}

/// What is certainly not in a trie. It only grows, until the trie is empty again.
#[derive(Clone)]
struct Outline {
    /// No network in the trie is longer.
    longest: u8,
    /// A bit for each value of the first 16 bits of an address: whether a network in the trie may begin so. 8 KiB,
    /// which stay in the nearest cache.
    heads: Box<[u64; 1024]>,
}

impl Outline {
    fn new() -> Outline {
        Outline { longest: 0, heads: Box::new([0; 1024]) }
    }

    fn add(&mut self, head: u16, len: u8) {
        self.longest = self.longest.max(len);
        // A network of fewer bits than a head has begins all the heads in it.
        let heads = 1u32 << 16u8.saturating_sub(len);
        for head in u32::from(head)..u32::from(head) + heads {
            if let Some(word) = self.heads.get_mut(head as usize / 64) {
                *word |= 1 << (head % 64);
            }
        }
    }

    #[inline]
    fn may_hold(&self, head: u16) -> bool {
        self.heads.get(usize::from(head) / 64).is_some_and(|word| word >> (head % 64) & 1 == 1)
    }
}

impl<F: Family, V: Copy> Half<F, V> {
    fn new(hash: HashKey) -> Half<F, V> {
        Half { hashed: Vec::new(), trie: IpLookupTable::new(), outline: Outline::new(), hash }
    }

    fn hash_length(&mut self, length: u8, prepare: bool) {
        if !self.hashed.iter().any(|(len, _)| *len == length) {
            let in_trie = self.trie.iter().filter(|(_, len, _)| *len == u32::from(length));
            let moved: Vec<(F::Ip, V)> = in_trie.map(|(ip, _, value)| (ip, *value)).collect();
            let mut map = HashMap::with_hasher(self.hash.clone());
            for (ip, value) in moved {
                self.trie.remove(ip, u32::from(length));
                map.insert(F::key(ip, length), value);
            }
            self.hashed.push((length, map));
            self.hashed.sort_by_key(|(len, _)| Reverse(*len));
        }
        if prepare && let Some((_, map)) = self.hashed.iter_mut().find(|(len, _)| *len == length) {
            map.reserve(PREPARED.saturating_sub(map.len()));
        }
    }

    fn insert(&mut self, ip: F::Ip, len: u8, value: V) -> Option<V> {
        match self.hashed.iter_mut().find(|(hashed, _)| *hashed == len) {
            Some((_, map)) => map.insert(F::key(ip, len), value),
            None => {
                self.outline.add(F::head(ip), len);
                self.trie.insert(ip, u32::from(len), value)
            }
        }
    }

    fn get(&self, ip: F::Ip, len: u8) -> Option<V> {
        match self.hashed.iter().find(|(hashed, _)| *hashed == len) {
            Some((_, map)) => map.get(&F::key(ip, len)).copied(),
            None => self.trie.exact_match(ip, u32::from(len)).copied(),
        }
    }

    fn remove(&mut self, ip: F::Ip, len: u8) -> Option<V> {
        match self.hashed.iter_mut().find(|(hashed, _)| *hashed == len) {
            Some((_, map)) => map.remove(&F::key(ip, len)),
            None => {
                let old = self.trie.remove(ip, u32::from(len));
                if self.trie.is_empty() {
                    self.outline = Outline::new();
                }
                old
            }
        }
    }

    #[inline]
    fn lookup(&self, ip: F::Ip, wanted: impl Fn(V) -> bool) -> Option<(u8, V)> {
        let hashed = self.hashed.iter().filter(|(_, map)| !map.is_empty()).find_map(|(len, map)| {
            map.get(&F::key(ip, *len)).filter(|value| wanted(**value)).map(|value| (*len, *value))
        });
        let longer_possible = hashed.is_none_or(|(len, _)| len < self.outline.longest);
        let in_trie = match longer_possible && self.outline.may_hold(F::head(ip)) {
            true => self.lookup_in_trie(ip, &wanted),
            false => None,
        };
        match (hashed, in_trie) {
            (Some((a, _)), Some((b, value))) if b > a => Some((b, value)),
            (Some(found), _) => Some(found),
            (None, found) => found,
        }
    }

    fn lookup_in_trie(&self, ip: F::Ip, wanted: &impl Fn(V) -> bool) -> Option<(u8, V)> {
        let (_, len, value) = self.trie.longest_match(ip)?;
        if wanted(*value) {
            return Some((len as u8, *value));
        }
        let around = self.trie.matches(ip).filter(|(_, _, value)| wanted(**value));
        around.map(|(_, len, value)| (len as u8, *value)).max_by_key(|(len, _)| *len)
    }

    fn covers(&self, ip: F::Ip, len: u8) -> bool {
        let mut hashed = self.hashed.iter().filter(|(hashed, map)| *hashed <= len && !map.is_empty());
        hashed.any(|(len, map)| map.contains_key(&F::key(ip, *len)))
            || self.outline.may_hold(F::head(ip))
                && self.trie.matches(ip).any(|(_, around, _)| around <= u32::from(len))
    }

    fn iter(&self) -> impl Iterator<Item = (Network, V)> {
        let network = |ip: F::Ip, len: u8| {
            // Not folded by accident: a network of IPv6 with all of ::ffff:0:0/96's bits set was IPv4 when it came in.
            Network::new(Address::from(ip.into()), len).expect("a stored network has a length of its family")
        };
        let hashed = self
            .hashed
            .iter()
            .flat_map(move |(len, map)| map.iter().map(move |(key, value)| (network(F::ip(*key), *len), *value)));
        let in_trie = self.trie.iter().map(move |(ip, len, value)| (network(ip, len as u8), *value));
        hashed.chain(in_trie)
    }
}

impl<F: Family, V: Copy> Clone for Half<F, V> {
    /// A copy of what is hashed is little more than a copy of memory; the trie is built anew.
    fn clone(&self) -> Half<F, V> {
        let mut trie = IpLookupTable::new();
        for (ip, len, value) in self.trie.iter() {
            trie.insert(ip, len, *value);
        }
        Half { hashed: self.hashed.clone(), trie, outline: self.outline.clone(), hash: self.hash.clone() }
    }
}

/// Networks with a value each.
#[derive(Clone)]
pub struct NetworkTable<V: Copy> {
    v4: Half<V4, V>,
    v6: Half<V6, V>,
    len: usize,
}

impl<V: Copy> NetworkTable<V> {
    /// An empty table that hashes single hosts and IPv6 networks of 64 bits.
    pub fn new(hash: HashKey) -> NetworkTable<V> {
        let mut table = NetworkTable { v4: Half::new(hash.clone()), v6: Half::new(hash), len: 0 };
        table.v4.hash_length(32, false);
        table.v6.hash_length(128, false);
        table.v6.hash_length(64, false);
        table
    }

    /// From now on, networks of these lengths are hashed too: those at which clients are banned. Room for a million
    /// of each is prepared at once (address space; memory is touched as it fills).
    pub fn prepare_lengths(&mut self, ipv4: u8, ipv6: u8) {
        self.v4.hash_length(ipv4.min(32), true);
        self.v6.hash_length(ipv6.min(128), true);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets the value of exactly this network; returns the one it had.
    pub fn insert(&mut self, network: Network, value: V) -> Option<V> {
        let old = match network.base() {
            IpAddr::V4(ip) => self.v4.insert(ip, network.len(), value),
            IpAddr::V6(ip) => self.v6.insert(ip, network.len(), value),
        };
        self.len += usize::from(old.is_none());
        old
    }

    /// The value of exactly this network.
    pub fn get(&self, network: Network) -> Option<V> {
        match network.base() {
            IpAddr::V4(ip) => self.v4.get(ip, network.len()),
            IpAddr::V6(ip) => self.v6.get(ip, network.len()),
        }
    }

    /// Removes exactly this network; returns its value.
    pub fn remove(&mut self, network: Network) -> Option<V> {
        let old = match network.base() {
            IpAddr::V4(ip) => self.v4.remove(ip, network.len()),
            IpAddr::V6(ip) => self.v6.remove(ip, network.len()),
        };
        self.len -= usize::from(old.is_some());
        old
    }

    /// The longest network that holds `address` and whose value is `wanted`: its length and value.
    #[inline]
    pub fn lookup(&self, address: Address, wanted: impl Fn(V) -> bool) -> Option<(u8, V)> {
        match address.ip() {
            IpAddr::V4(ip) => self.v4.lookup(ip, wanted),
            IpAddr::V6(ip) => self.v6.lookup(ip, wanted),
        }
    }

    /// Whether some network holds `address`.
    #[inline]
    pub fn contains(&self, address: Address) -> bool {
        self.len != 0 && self.lookup(address, |_| true).is_some()
    }

    /// Whether some network holds all of `network`.
    pub fn covers(&self, network: Network) -> bool {
        match network.base() {
            _ if self.len == 0 => false,
            IpAddr::V4(ip) => self.v4.covers(ip, network.len()),
            IpAddr::V6(ip) => self.v6.covers(ip, network.len()),
        }
    }

    /// Keeps the networks for which `keep` says so. Takes time in proportion to the whole table.
    pub fn retain(&mut self, mut keep: impl FnMut(Network, V) -> bool) {
        let mut dropped = Vec::new();
        for (network, value) in self.iter() {
            if !keep(network, value) {
                dropped.push(network);
            }
        }
        for network in dropped {
            self.remove(network);
        }
    }

    /// All networks, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Network, V)> {
        self.v4.iter().chain(self.v6.iter())
    }
}

impl<V: Copy> std::fmt::Debug for NetworkTable<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkTable").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Few distinct bits, so that networks nest and collide.
    fn network() -> impl Strategy<Value = Network> {
        let v4 = (0..4u32, 0..4u32, prop::sample::select(vec![0u8, 1, 8, 9, 16, 24, 30, 31, 32]))
            .prop_map(|(a, b, len)| Network::new(Address::from(Ipv4Addr::from_bits(a << 22 | b)), len).unwrap());
        let v6 = (0..4u128, 0..4u128, prop::sample::select(vec![0u8, 1, 15, 48, 56, 63, 64, 65, 96, 127, 128]))
            .prop_map(|(a, b, len)| {
                Network::new(Address::from(Ipv6Addr::from_bits(0x2001 << 112 | a << 62 | b)), len).unwrap()
            });
        prop_oneof![v4, v6]
    }

    fn address() -> impl Strategy<Value = Address> {
        prop_oneof![
            (0..4u32, 0..4u32).prop_map(|(a, b)| Address::from(Ipv4Addr::from_bits(a << 22 | b))),
            (0..4u128, 0..4u128).prop_map(|(a, b)| Address::from(Ipv6Addr::from_bits(0x2001 << 112 | a << 62 | b))),
        ]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Network, u32),
        Remove(Network),
        Lookup(Address, u32),
        Prepare(u8, u8),
        Retain(u32),
        Covers(Network),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (network(), 0..8u32).prop_map(|(n, v)| Step::Insert(n, v)),
            4 => network().prop_map(Step::Remove),
            8 => (address(), 0..8u32).prop_map(|(a, v)| Step::Lookup(a, v)),
            1 => (prop::sample::select(vec![24u8, 30, 32]), prop::sample::select(vec![48u8, 56, 64]))
                .prop_map(|(a, b)| Step::Prepare(a, b)),
            1 => (0..8u32).prop_map(Step::Retain),
            2 => network().prop_map(Step::Covers),
        ]
    }

    proptest! {
        /// Against a plain map that is searched from end to end.
        #[test]
        fn behaves_like_a_list_of_networks(steps in prop::collection::vec(step(), 0..80)) {
            let mut table = NetworkTable::new(hash_key(1));
            let mut model: BTreeMap<Network, u32> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(n, v) => prop_assert_eq!(table.insert(n, v), model.insert(n, v)),
                    Step::Remove(n) => prop_assert_eq!(table.remove(n), model.remove(&n)),
                    Step::Lookup(a, below) => {
                        let want = model.iter().filter(|(n, v)| n.contains(a) && **v < below).max_by_key(|(n, _)| n.len());
                        prop_assert_eq!(table.lookup(a, |v| v < below), want.map(|(n, v)| (n.len(), *v)));
                        prop_assert_eq!(table.contains(a), model.keys().any(|n| n.contains(a)));
                    }
                    Step::Prepare(a, b) => {
                        table.v4.hash_length(a, false);
                        table.v6.hash_length(b, false);
                    }
                    Step::Retain(v) => { table.retain(|_, value| value != v); model.retain(|_, value| *value != v); }
                    Step::Covers(n) => prop_assert_eq!(table.covers(n), model.keys().any(|around| around.covers(n))),
                }
                prop_assert_eq!(table.len(), model.len());
                let all: BTreeMap<Network, u32> = table.iter().collect();
                prop_assert_eq!(&all, &model);
                // A copy is as good, and goes on.
                table = table.clone();
            }
        }
    }
}

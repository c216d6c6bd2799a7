//! A bounded map from keys (clients, most often) to values, ordered by when each was last touched.
//!
//! Counting and remembering offenders both need the same thing: find a client in constant time, know which one has
//! been quiet longest, and never hold more than a fixed number. So forgetting is a walk from the quiet end that
//! stops at the first one still fresh (no scan over everything), and a full table drops the quietest.
//!
//! Nodes live in one slab and are linked by index; a hash table of indices finds them. Nothing is allocated per
//! client once the slab has grown, and 10 million strangers cost what `max` clients cost.

use super::address::Network;
use super::table::HashKey;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash};

/// Marks the end of the list, and of the free list. Not a valid index: `max` is below it.
const NONE: u32 = u32::MAX;

/// What a free node has for the one touched earlier. Not a valid index either.
const FREE: u32 = NONE - 1;

/// More clients no table holds.
const MAX: usize = FREE as usize - 1;

/// How many entries are prepared at once, so that a table within its usual size never pauses to rehash.
const PREPARED_MAX: usize = 1 << 20;

#[derive(Debug)]
struct Node<V, K> {
    client: K,
    /// The next one touched later; in a free node, the next free one.
    newer: u32,
    /// The next one touched earlier; in a free node, [`FREE`].
    older: u32,
    value: V,
}

/// At most `max` clients with a value each, in order of last touch.
#[derive(Debug)]
pub struct Recency<V, K = Network> {
    nodes: Vec<Node<V, K>>,
    index: HashTable<u32>,
    hash: HashKey,
    max: usize,
    newest: u32,
    oldest: u32,
    free: u32,
}

/// What [`Recency::touch`] found or made.
#[derive(Debug)]
pub struct Touched<'a, V, K = Network> {
    pub value: &'a mut V,
    /// The quietest client, dropped to make room.
    pub evicted: Option<(K, V)>,
}

impl<V: Default, K: Copy + Eq + Hash> Recency<V, K> {
    /// An empty table for at most `max` clients (at least one).
    pub fn new(max: usize, hash: HashKey) -> Recency<V, K> {
        let max = max.clamp(1, MAX);
        let prepared = max.min(PREPARED_MAX);
        Recency {
            nodes: Vec::with_capacity(prepared),
            index: HashTable::with_capacity(prepared),
            hash,
            max,
            newest: NONE,
            oldest: NONE,
            free: NONE,
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn max(&self) -> usize {
        self.max
    }

    /// Changes the bound. A smaller one takes effect as entries are forgotten or pushed out by [`Recency::touch`].
    pub fn set_max(&mut self, max: usize) {
        self.max = max.clamp(1, MAX);
    }

    pub fn get(&self, client: K) -> Option<&V> {
        self.find(client).map(|at| &self.nodes[at as usize].value)
    }

    /// The value of `client` without touching it.
    pub fn get_mut(&mut self, client: K) -> Option<&mut V> {
        self.find(client).map(|at| &mut self.nodes[at as usize].value)
    }

    /// The value of `client`, made with its default if it was not there; the client becomes the newest. If the table
    /// is full, the oldest one is dropped and returned.
    pub fn touch(&mut self, client: K) -> Touched<'_, V, K> {
        let mut evicted = None;
        let at = match self.find(client) {
            Some(at) => {
                self.unlink(at);
                at
            }
            None => {
                if self.len() >= self.max {
                    evicted = self.pop_oldest();
                }
                self.insert(client)
            }
        };
        self.link_newest(at);
        Touched { value: &mut self.nodes[at as usize].value, evicted }
    }

    /// The client that was quiet for longest.
    pub fn oldest(&self) -> Option<(K, &V)> {
        self.nodes.get(self.oldest as usize).map(|node| (node.client, &node.value))
    }

    /// Makes a client the newest, if it is there.
    pub fn renew(&mut self, client: K) {
        let hash = self.hash.hash_one(client);
        let nodes = &self.nodes;
        if let Some(&at) = self.index.find(hash, |&at| nodes[at as usize].client == client) {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        let client = self.nodes.get(self.oldest as usize)?.client;
        self.remove(client).map(|value| (client, value))
    }

    pub fn remove(&mut self, client: K) -> Option<V> {
        let hash = self.hash.hash_one(client);
        let nodes = &self.nodes;
        let found = self.index.find_entry(hash, |&at| nodes[at as usize].client == client).ok()?;
        let (at, _) = found.remove();
        self.unlink(at);
        let node = &mut self.nodes[at as usize];
        node.newer = self.free;
        node.older = FREE;
        self.free = at;
        Some(std::mem::take(&mut node.value))
    }

    /// All clients, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.newer;
            Some((node.client, &node.value))
        })
    }

    /// How many places there are: clients and free ones.
    pub fn places(&self) -> usize {
        self.nodes.len()
    }

    /// The client at a place, below [`Recency::places`]; `None` if it is free. A client stays at its place until it is
    /// removed, so that all of them can be looked through in several steps.
    pub fn at(&self, place: usize) -> Option<(K, &V)> {
        self.nodes.get(place).filter(|node| node.older != FREE).map(|node| (node.client, &node.value))
    }

    fn find(&self, client: K) -> Option<u32> {
        self.index.find(self.hash.hash_one(client), |&at| self.nodes[at as usize].client == client).copied()
    }

    /// A node for `client`, indexed but not yet linked.
    fn insert(&mut self, client: K) -> u32 {
        let at = if self.free == NONE {
            let at = u32::try_from(self.nodes.len()).expect("max keeps the slab below 2^32 nodes");
            self.nodes.push(Node { client, newer: NONE, older: NONE, value: V::default() });
            at
        } else {
            let at = self.free;
            let node = &mut self.nodes[at as usize];
            self.free = node.newer;
            *node = Node { client, newer: NONE, older: NONE, value: V::default() };
            at
        };
        let nodes = &self.nodes;
        let hash = &self.hash;
        self.index.insert_unique(hash.hash_one(client), at, |&at| hash.hash_one(nodes[at as usize].client));
        at
    }

    fn link_newest(&mut self, at: u32) {
        let older = self.newest;
        let node = &mut self.nodes[at as usize];
        node.older = older;
        node.newer = NONE;
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self.nodes[at as usize].newer, self.nodes[at as usize].older);
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::hash_key;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Touch(u8),
        Remove(u8),
        PopOldest,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..24u8).prop_map(Step::Touch),
            2 => (0..24u8).prop_map(Step::Remove),
            1 => Just(Step::PopOldest),
        ]
    }

    fn client(n: u8) -> Network {
        Network::parse(&format!("192.0.2.{n}")).unwrap()
    }

    proptest! {
        /// Against a list that is searched from front to back.
        #[test]
        fn behaves_like_a_list(max in 1..12usize, steps in prop::collection::vec(step(), 0..200)) {
            let mut table: Recency<u32> = Recency::new(max, hash_key(7));
            let mut list: Vec<(Network, u32)> = Vec::new();
            for step in steps {
                match step {
                    Step::Touch(n) => {
                        let c = client(n);
                        let want = match list.iter().position(|(k, _)| *k == c) {
                            Some(at) => { let entry = list.remove(at); list.push(entry); None }
                            None => {
                                let evicted = (list.len() == max).then(|| list.remove(0));
                                list.push((c, 0));
                                evicted
                            }
                        };
                        let touched = table.touch(c);
                        *touched.value += u32::from(n) + 1;
                        prop_assert_eq!(touched.evicted, want);
                        list.last_mut().unwrap().1 += u32::from(n) + 1;
                    }
                    Step::Remove(n) => {
                        let want = list.iter().position(|(k, _)| *k == client(n)).map(|at| list.remove(at).1);
                        prop_assert_eq!(table.remove(client(n)), want);
                    }
                    Step::PopOldest => {
                        let want = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(table.pop_oldest(), want);
                    }
                }
                prop_assert_eq!(table.len(), list.len());
                prop_assert!(table.nodes.len() <= max);
                prop_assert_eq!(table.oldest().map(|(c, v)| (c, *v)), list.first().copied());
                let all: Vec<_> = table.iter().map(|(c, v)| (c, *v)).collect();
                prop_assert_eq!(&all, &list);
                let mut placed: Vec<_> = (0..table.places()).filter_map(|at| table.at(at)).map(|(c, v)| (c, *v)).collect();
                placed.sort_unstable();
                let mut sorted = list.clone();
                sorted.sort_unstable();
                prop_assert_eq!(placed, sorted);
                for n in 0..24 {
                    let want = list.iter().find(|(k, _)| *k == client(n)).map(|(_, v)| v);
                    prop_assert_eq!(table.get(client(n)), want);
                }
            }
        }
    }
}

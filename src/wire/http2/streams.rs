//! The streams of a connection that are not closed. A peer's numbers only grow (RFC 9113 §5.1.1), so a list in the order in
//! which they began is sorted: there is nothing to hash, and no choice of numbers makes looking one up slow.

use std::collections::VecDeque;

/// Closed streams between others that may keep their places.
const GAPS: usize = 32;

/// Streams by number.
#[derive(Debug)]
pub struct Streams<T> {
    /// Closed ones stay as gaps until they are at an end, or are more than the others.
    list: VecDeque<(u32, Option<T>)>,
    open: usize,
}

impl<T> Default for Streams<T> {
    fn default() -> Streams<T> {
        Streams { list: VecDeque::new(), open: 0 }
    }
}

impl<T> Streams<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.open
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Adds one whose number is higher than that of any before.
    pub fn begin(&mut self, id: u32, stream: T) {
        debug_assert!(self.list.back().is_none_or(|(last, _)| *last < id));
        self.list.push_back((id, Some(stream)));
        self.open += 1;
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let at = self.find(id)?;
        self.list.get_mut(at)?.1.as_mut()
    }

    pub fn remove(&mut self, id: u32) -> Option<T> {
        let at = self.find(id)?;
        let stream = self.list.get_mut(at)?.1.take()?;
        self.open -= 1;
        self.close_gaps();
        Some(stream)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.list.iter_mut().filter_map(|(id, stream)| Some((*id, stream.as_mut()?)))
    }

    pub fn clear(&mut self) {
        *self = Streams::default();
    }

    fn find(&self, id: u32) -> Option<usize> {
        // Nearly always it is the last that began.
        match self.list.back() {
            Some((last, _)) if *last == id => Some(self.list.len() - 1),
            _ => self.list.binary_search_by_key(&id, |(id, _)| *id).ok(),
        }
    }

    fn close_gaps(&mut self) {
        while self.list.pop_back_if(|(_, stream)| stream.is_none()).is_some() {}
        while self.list.pop_front_if(|(_, stream)| stream.is_none()).is_some() {}
        // As many have been closed since the last time as are looked at now.
        if self.list.len() > 2 * self.open + GAPS {
            self.list.retain(|(_, stream)| stream.is_some());
        }
        if self.list.capacity() > 4 * (self.list.len() + GAPS) {
            self.list.shrink_to(2 * (self.list.len() + GAPS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((any::<bool>(), 1..5_u32, any::<u16>()), 0..400)) {
            let (mut streams, mut map, mut last) = (Streams::default(), BTreeMap::new(), 0);
            for (begins, ahead, which) in steps {
                if begins {
                    last += ahead;
                    streams.begin(last, last);
                    map.insert(last, last);
                } else {
                    let id = u32::from(which) % (last + 2);
                    prop_assert_eq!(streams.remove(id), map.remove(&id));
                }
                prop_assert_eq!(streams.len(), map.len());
                prop_assert_eq!(streams.is_empty(), map.is_empty());
                let all: Vec<(u32, u32)> = streams.iter_mut().map(|(id, stream)| (id, *stream)).collect();
                prop_assert_eq!(all, map.iter().map(|(id, stream)| (*id, *stream)).collect::<Vec<_>>());
                for id in 0..last + 2 {
                    prop_assert_eq!(streams.get_mut(id).copied(), map.get(&id).copied());
                }
                prop_assert!(streams.list.len() <= 2 * map.len() + GAPS);
            }
        }
    }

    #[test]
    fn a_burst_does_not_keep_its_memory() {
        let mut streams = Streams::default();
        (1..2000).for_each(|id| streams.begin(id, [0; 64]));
        (2..2000).for_each(|id| _ = streams.remove(id));
        assert_eq!((streams.len(), streams.list.len()), (1, 1));
        assert!(streams.list.capacity() < 8 * GAPS);
    }
}

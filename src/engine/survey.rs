//! A survey: one page of a list of bans, found by going through all of them once, in steps.
//!
//! A list of a million bans has no index for every order that somebody may want, and keeping some for the rare
//! operator who looks would cost every ban. So all bans are looked at, a few thousand at a time, and the page's worth
//! that comes first is kept in a heap. The next page begins after the last ban of the one before ([`Place`]), so
//! however deep one goes, a survey holds one page.

use super::address::{Address, Network};
use super::ban::Ban;
use super::time::Time;
use std::collections::{BinaryHeap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Most bans on one page.
pub const PAGE_MAX: usize = 1_000;

/// By what bans are put in order; within it by network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    BannedAt,
    ExpiresAt,
    Address,
    Offences,
    Severity,
}

/// Which bans, in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Only bans inside of this network.
    pub within: Option<Network>,
    /// Only bans of networks that hold this address.
    pub covering: Option<Address>,
    /// Only bans by these patterns' numbers; `None`: by any.
    pub patterns: Option<Vec<u32>>,
    /// Only bans whose network, as it is printed, contains this.
    pub text: String,
    pub order: Order,
    pub descending: bool,
    /// At most [`PAGE_MAX`].
    pub limit: usize,
    /// Only what comes after this.
    pub after: Option<Place>,
}

/// A ban's place in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What the order goes by, turned round if it descends.
    key: u64,
    /// The network as numbers in its own order; turned round as well, if that is what the order goes by.
    network: (u8, u128, u8),
}

impl Place {
    fn new(key: u64, client: Network) -> Place {
        let network = match client.base() {
            IpAddr::V4(base) => (4, u128::from(base.to_bits()), client.len()),
            IpAddr::V6(base) => (6, base.to_bits(), client.len()),
        };
        Place { key, network }
    }

    fn turned_key(self) -> Place {
        Place { key: !self.key, ..self }
    }

    fn turned_network(self) -> Place {
        let (family, base, len) = self.network;
        Place { network: (!family, !base, !len), ..self }
    }

    /// Reads what [`Place::print`] wrote; `None` if it is not that.
    pub fn parse(text: &str) -> Option<Place> {
        let mut parts = text.split('-');
        let mut part = || parts.next().filter(|part| !part.starts_with('+'));
        let key = u64::from_str_radix(part()?, 16).ok()?;
        let family = u8::from_str_radix(part()?, 16).ok()?;
        let base = u128::from_str_radix(part()?, 16).ok()?;
        let len = u8::from_str_radix(part()?, 16).ok()?;
        part().is_none().then_some(Place { key, network: (family, base, len) })
    }

    /// For whoever asks for the next page.
    pub fn print(&self) -> String {
        let (family, base, len) = self.network;
        format!("{:x}-{family:x}-{base:x}-{len:x}", self.key)
    }
}

/// A ban in force, as a list shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub client: Network,
    pub ban: Ban,
    /// When the client's last offence was.
    pub since: Time,
    /// Whether it was made by another node, or in an earlier run.
    pub learned: bool,
}

/// A page that is being put together.
#[derive(Clone, Debug)]
pub struct Survey {
    question: Question,
    /// How many bans match, wherever the page begins.
    total: usize,
    /// The page's bans so far, the last one on top.
    page: BinaryHeap<Candidate>,
    printed: String,
}

#[derive(Clone, Copy, Debug)]
struct Candidate(Place, Listed);

impl PartialEq for Candidate {
    fn eq(&self, other: &Candidate) -> bool {
        self.0 == other.0
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Survey {
    pub fn new(mut question: Question) -> Survey {
        question.limit = question.limit.clamp(1, PAGE_MAX);
        Survey { question, total: 0, page: BinaryHeap::new(), printed: String::new() }
    }

    /// Looks at one ban in force.
    pub fn look(&mut self, listed: &Listed) {
        if !self.matches(listed) {
            return;
        }
        self.total += 1;
        let place = self.place(listed);
        if self.question.after.is_some_and(|after| place <= after) {
            return;
        }
        if self.page.len() < self.question.limit {
            self.page.push(Candidate(place, *listed));
        } else if let Some(mut last) = self.page.peek_mut()
            && place < last.0
        {
            *last = Candidate(place, *listed);
        }
    }

    fn matches(&mut self, listed: &Listed) -> bool {
        let Question { within, covering, patterns, text, .. } = &self.question;
        let client = listed.client;
        if within.is_some_and(|within| !within.covers(client))
            || covering.is_some_and(|address| !client.contains(address))
            || patterns.as_ref().is_some_and(|patterns| !patterns.contains(&listed.ban.pattern.number()))
        {
            return false;
        }
        if text.is_empty() {
            return true;
        }
        self.printed.clear();
        write!(self.printed, "{client}").is_ok() && self.printed.contains(text.as_str())
    }

    fn place(&self, listed: &Listed) -> Place {
        let key = match self.question.order {
            Order::BannedAt => listed.since.millis(),
            Order::ExpiresAt => listed.ban.until.millis(),
            Order::Address => 0,
            Order::Offences => u64::from(listed.ban.offences),
            Order::Severity => u64::from(listed.ban.severity.level()),
        };
        let place = Place::new(key, listed.client);
        match (self.question.descending, self.question.order) {
            (false, _) => place,
            (true, Order::Address) => place.turned_network(),
            (true, _) => place.turned_key(),
        }
    }

    /// Takes in what another survey of the same question found among other bans.
    pub fn merge(&mut self, other: Survey) {
        self.total += other.total;
        for candidate in other.page {
            self.page.push(candidate);
            if self.page.len() > self.question.limit {
                self.page.pop();
            }
        }
    }

    /// The page, in its order.
    pub fn finish(self) -> Page {
        let limit = self.question.limit;
        let page = self.page.into_sorted_vec();
        let next = page.last().filter(|_| page.len() >= limit).map(|last| last.0);
        // Whoever moved while the steps went by may have been seen twice.
        let mut seen = HashSet::with_capacity(page.len());
        let bans = page.into_iter().map(|candidate| candidate.1).filter(|listed| seen.insert(listed.client)).collect();
        Page { total: self.total, bans, next }
    }
}

/// One page of a list of bans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// How many bans match on all pages.
    pub total: usize,
    pub bans: Vec<Listed>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Place>,
}

#[cfg(test)]
mod tests {
    use super::super::ban::{PatternId, Severity};
    use super::*;
    use proptest::prelude::*;

    fn listed(n: u32, since: u64, until: u64, kind: u8) -> Listed {
        let (pattern, severity) = (PatternId::new(u32::from(kind % 3)).unwrap(), Severity::new(kind % 6 + 1).unwrap());
        let ban = Ban { until: Time::from_millis(until), offences: u32::from(kind), failures: 5, pattern, severity };
        let client = Network::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 | n).into(), 24 + kind % 9).unwrap();
        Listed { client, ban, since: Time::from_millis(since), learned: kind.is_multiple_of(2) }
    }

    fn orders() -> impl Strategy<Value = Order> {
        prop::sample::select(vec![Order::BannedAt, Order::ExpiresAt, Order::Address, Order::Offences, Order::Severity])
    }

    #[test]
    fn a_place_is_printed_and_read() {
        for text in ["0-4-a000000-8", "ffffffffffffffff-6-20010db8000000000000000000000001-80"] {
            assert_eq!(Place::parse(text).unwrap().print(), text);
        }
        for text in ["", "-", "---", "x-4-1-20", "1-4-1", "1-4-1-20-", "1-4-1-200", "1-4-+1-20", "1~10.0.0.1"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    proptest! {
        /// Page after page, of two halves that are surveyed apart: the same as sorting everything.
        #[test]
        fn pages_are_what_sorting_everything_gives(
            raw in prop::collection::btree_map(0..2_000u32, (0..50u64, 0..50u64, 0..20u8), 0..200),
            order in orders(), descending in any::<bool>(), limit in 1..40usize,
            pattern in prop::option::of(0..3u32), text in prop::sample::select(vec!["", ".1", "/2"]),
            within in prop::option::of(Just(Network::parse("10.0.0.0/22").unwrap())),
        ) {
            let mut all: Vec<Listed> = raw.iter().map(|(n, (since, until, kind))| listed(*n, *since, *until, *kind)).collect();
            all.sort_by_key(|one| one.client);
            all.dedup_by_key(|one| one.client);
            let question = Question {
                within, patterns: pattern.map(|pattern| vec![pattern]), text: text.to_owned(), order, descending, limit,
                ..Question::default()
            };
            let mut want: Vec<Listed> = all.iter().filter(|one| {
                within.is_none_or(|within| within.covers(one.client))
                    && pattern.is_none_or(|pattern| one.ban.pattern.number() == pattern)
                    && one.client.to_string().contains(text)
            }).copied().collect();
            let key = |one: &Listed| match order {
                Order::BannedAt => one.since.millis(),
                Order::ExpiresAt => one.ban.until.millis(),
                Order::Address => 0,
                Order::Offences => u64::from(one.ban.offences),
                Order::Severity => u64::from(one.ban.severity.level()),
            };
            want.sort_by_key(|one| (if descending { u64::MAX - key(one) } else { key(one) }, one.client));
            if descending && order == Order::Address {
                want.reverse();
            }
            let mut got = Vec::new();
            let mut after = None;
            loop {
                let question = Question { after, ..question.clone() };
                let (mut one, mut two) = (Survey::new(question.clone()), Survey::new(question));
                for (at, listed) in all.iter().enumerate() {
                    if at % 2 == 0 { one.look(listed) } else { two.look(listed) }
                }
                one.merge(two);
                let page = one.finish();
                prop_assert_eq!(page.total, want.len());
                prop_assert!(page.bans.len() <= limit);
                got.extend(page.bans);
                match page.next {
                    Some(next) => after = Place::parse(&next.print()),
                    None => break,
                }
            }
            prop_assert_eq!(got, want);
        }
    }
}

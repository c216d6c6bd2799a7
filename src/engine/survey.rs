//! A survey: one page of a list of bans, found by going through all of them once, in steps.
//!
//! A list of a million bans has no index for every order that somebody may want, and keeping some for the rare
//! operator who looks would cost every ban. So all bans are looked at, a few thousand at a time, and the page's worth
//! that comes first is kept in a heap. The next page begins after the last ban of the one before ([`Place`]), so
//! however deep one goes, a survey holds one page.

use super::address::{Address, Network};
use super::ban::Ban;
use super::time::Time;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

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
    client: Network,
}

impl Place {
    /// Reads what [`Place::print`] wrote; `None` if it is not that.
    pub fn parse(text: &str) -> Option<Place> {
        let (key, client) = text.split_once('~')?;
        Some(Place { key: u64::from_str_radix(key, 16).ok()?, client: Network::parse(client).ok()? })
    }

    /// For whoever asks for the next page.
    pub fn print(&self) -> String {
        format!("{:x}~{}", self.key, self.client)
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
        Place { key: if self.question.descending { u64::MAX - key } else { key }, client: listed.client }
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
        let mut page = self.page.into_sorted_vec();
        // Whoever moved while the steps went by may have been seen twice.
        page.dedup_by_key(|candidate| candidate.1.client);
        let next = page.last().filter(|_| page.len() >= limit).map(|last| last.0);
        Page { total: self.total, bans: page.into_iter().map(|candidate| candidate.1).collect(), next }
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

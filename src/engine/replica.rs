//! A shard's own copy of all bans, so that it answers alone.
//!
//! It holds what every owner decided, each ban with its end, so a ban that ran out is not enforced even if nobody
//! swept it yet. An entry is 8 bytes beside its key: 12 for an IPv4 host, 24 for an IPv6 network, before the hash
//! table's slack (between 8/7 and 16/7).

use super::address::{Address, Network};
use super::ban::{Act, Ban, Decision, Learned, PatternId, Severity};
use super::table::{HashKey, NetworkTable};
use super::time::Time;

/// What a verdict needs of a ban, in 64 bits: `until` in the upper 42 (139 years of milliseconds), the severity in 3,
/// the pattern in 19. Two words, so that a 4-byte key does not cost 16.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry([u32; 2]);

impl Entry {
    fn new(ban: &Ban) -> Entry {
        let bits = ban.until.millis() << 22 | u64::from(ban.severity.level()) << 19 | u64::from(ban.pattern.number());
        Entry([(bits >> 32) as u32, bits as u32])
    }

    fn bits(self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }

    fn until(self) -> Time {
        Time::from_millis(self.bits() >> 22)
    }

    fn in_force(self) -> InForce {
        let severity = (self.bits() >> 19 & 7) as u8;
        let pattern = (self.bits() & u64::from(PatternId::MAX)) as u32;
        InForce {
            until: self.until(),
            pattern: PatternId::new(pattern).expect("19 bits hold a pattern"),
            severity: Severity::new(severity).expect("what was stored was a severity"),
        }
    }
}

/// A ban as a verdict sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    pub until: Time,
    pub pattern: PatternId,
    pub severity: Severity,
}

/// All bans, as decided by all owners.
#[derive(Debug)]
pub struct Replica {
    bans: NetworkTable<Entry>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.in_force().fmt(f)
    }
}

impl Replica {
    pub fn new(hash: HashKey) -> Replica {
        Replica { bans: NetworkTable::new(hash) }
    }

    /// Prepares for bans of networks of these lengths; see [`NetworkTable::prepare_lengths`].
    pub fn prepare_lengths(&mut self, ipv4: u8, ipv6: u8) {
        self.bans.prepare_lengths(ipv4, ipv6);
    }

    /// Entries held: bans in force and those that ran out but were not lifted yet.
    pub fn len(&self) -> usize {
        self.bans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bans.is_empty()
    }

    /// Applies one decision. Those of one owner must come in their order.
    pub fn apply(&mut self, decision: &Decision) {
        match &decision.act {
            Act::Ban(ban) => self.bans.insert(decision.client, Entry::new(ban)),
            Act::Lift(..) => self.bans.remove(decision.client),
        };
    }

    /// Applies what was learned as the client's owner does; see [`Learned::change`]. What is learned must come oldest first:
    /// an owner passes over lifts that are older than the client's last offence, which a replica does not know.
    pub fn learn(&mut self, learned: &Learned, now: Time) {
        let in_force = self.bans.get(learned.client).map(Entry::until).filter(|until| *until > now);
        match learned.change(in_force, now) {
            Some(Act::Ban(ban)) => self.bans.insert(learned.client, Entry::new(&ban)),
            Some(Act::Lift(..)) => self.bans.remove(learned.client),
            None => None,
        };
    }

    /// Replaces all that this replica knows of one owner by a snapshot of it. `owned` says whether a client is that
    /// owner's. Takes time in proportion to the whole replica.
    pub fn replace(&mut self, owned: impl Fn(Network) -> bool, snapshot: &[Decision]) {
        self.bans.retain(|client, _| !owned(client));
        for decision in snapshot {
            self.apply(decision);
        }
    }

    /// Whether a ban of exactly this client is in force.
    pub fn has_banned(&self, client: Network, now: Time) -> bool {
        self.bans.get(client).is_some_and(|entry| entry.until() > now)
    }

    /// The ban in force at `now` of the longest network that holds `address`.
    #[inline]
    pub fn lookup(&self, address: Address, now: Time) -> Option<InForce> {
        if self.bans.is_empty() {
            return None;
        }
        self.bans.lookup(address, |entry| entry.until() > now).map(|(_, entry)| entry.in_force())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ban::{Lift, Origin};
    use super::super::escalation::rules;
    use super::super::owner::Owner;
    use super::super::table::hash_key;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn networks() -> impl Strategy<Value = Network> {
        let texts = vec![
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.0/24",
            "192.0.0.0/16",
            "10.0.0.0/8",
            "2001:db8::/64",
            "2001:db8::1",
            "2001:db8:0:1::/64",
            "2001:db8::/32",
            "0.0.0.0/0",
            "::/0",
        ];
        prop::sample::select(texts).prop_map(|text| Network::parse(text).unwrap())
    }

    fn ban(until: u64, pattern: u32) -> Ban {
        Ban {
            until: Time::from_millis(until),
            offences: 1,
            failures: 5,
            pattern: PatternId::new(pattern).unwrap(),
            severity: Severity::new((pattern % 6) as u8 + 1).unwrap(),
        }
    }

    #[test]
    fn an_entry_keeps_every_bit() {
        for (until, pattern) in [(0, 0), (Time::MAX.millis(), PatternId::MAX), (1 << 41, 5), (12_345_678_901, 300_001)]
        {
            let ban = ban(until, pattern);
            let kept = Entry::new(&ban).in_force();
            assert_eq!(kept, InForce { until: ban.until, pattern: ban.pattern, severity: ban.severity });
        }
        assert_eq!(size_of::<(u32, Entry)>(), 12);
    }

    proptest! {
        /// Against a list of networks with their ends.
        #[test]
        fn behaves_like_a_list_of_bans(
            steps in prop::collection::vec((networks(), 0..100u64, 0..20u32, 0..8u8), 0..120),
            now in 0..100u64,
        ) {
            let mut replica = Replica::new(hash_key(1));
            replica.prepare_lengths(32, 64);
            let mut model: BTreeMap<Network, Ban> = BTreeMap::new();
            let (at, origin) = (Time::from_millis(0), Origin::Decided);
            for (serial, (client, until, pattern, kind)) in steps.into_iter().enumerate() {
                let serial = serial as u64;
                if kind < 6 {
                    let ban = ban(until, pattern);
                    replica.apply(&Decision { serial, at, client, act: Act::Ban(ban), origin });
                    model.insert(client, ban);
                } else if kind < 7 {
                    let act = Act::Lift(Lift::Expired, ban(until, pattern));
                    replica.apply(&Decision { serial, at, client, act, origin });
                    model.remove(&client);
                } else {
                    let ban = ban(until, pattern);
                    let ipv4 = Network::parse("203.0.113.9").unwrap();
                    let snapshot = [Decision { serial, at, client: ipv4, act: Act::Ban(ban), origin }];
                    replica.replace(|client| client.is_ipv4(), &snapshot);
                    model.retain(|client, _| !client.is_ipv4());
                    model.insert(ipv4, ban);
                }
            }
            let now = Time::from_millis(now);
            for text in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.3.1", "10.1.2.3", "203.0.113.9", "8.8.8.8",
                         "2001:db8::1", "2001:db8::2", "2001:db8:0:1::5", "2001:db8:1::", "::1"] {
                let address = Address::parse(text.as_bytes()).unwrap();
                let want = model.iter().filter(|(n, b)| n.contains(address) && b.until > now).max_by_key(|(n, _)| n.len())
                    .map(|(_, b)| InForce { until: b.until, pattern: b.pattern, severity: b.severity });
                prop_assert_eq!(replica.lookup(address, now), want, "{}", text);
            }
            prop_assert_eq!(replica.len(), model.len());
        }
    }
    proptest! {
        /// Whatever list is learned, oldest first, the replica holds what the owner has in force.
        #[test]
        fn learns_what_the_owner_learns(
            mut list in prop::collection::vec((0..6_000u64, networks(), 0..10_000u64, 0..3u8, 0..6_000u64), 0..60),
        ) {
            let (now, rules) = (Time::from_millis(6_000), rules());
            let mut replica = Replica::new(hash_key(1));
            let mut owner = Owner::new(0, 100, hash_key(2));
            list.sort_unstable();
            for (at, client, until, kind, lifted) in list {
                let lifted = (kind == 0).then_some((Time::from_millis(lifted), Lift::Unbanned));
                let learned = Learned { client, at: Time::from_millis(at), ban: ban(until, 1), lifted };
                replica.learn(&learned, now);
                owner.learn(&learned, now, &rules, &NetworkTable::new(hash_key(3)), &mut Vec::new());
            }
            let held: BTreeMap<Network, Time> = replica.bans.iter().map(|(client, entry)| (client, entry.until())).collect();
            let in_force = owner.snapshot(now).into_iter().map(|decision| match decision.act {
                Act::Ban(ban) => (decision.client, ban.until),
                Act::Lift(..) => unreachable!("a snapshot holds bans"),
            });
            prop_assert_eq!(held, in_force.collect::<BTreeMap<_, _>>());
        }
    }
}

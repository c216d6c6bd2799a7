//! Failures, bans and decisions: what shards tell each other.

use super::address::{Address, Network};
use super::escalation::BanRules;
use super::logins::Login;
use super::time::Time;
use std::hash::BuildHasher;
use std::time::Duration;

use super::table::HashKey;

/// A pattern's number, the same for its name as long as the process lives, whatever policies come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatternId(u32);

impl PatternId {
    /// The highest number: a replica's entry has 19 bits for it.
    pub const MAX: u32 = (1 << 19) - 1;

    /// The number of the first name.
    pub const FIRST: PatternId = PatternId(0);

    /// `None` above [`PatternId::MAX`].
    pub fn new(number: u32) -> Option<PatternId> {
        (number <= PatternId::MAX).then_some(PatternId(number))
    }

    pub fn number(self) -> u32 {
        self.0
    }
}

/// One count per pattern number.
#[derive(Clone, Debug, Default)]
pub struct ByPattern(Vec<u64>);

impl ByPattern {
    pub fn add(&mut self, pattern: PatternId) {
        let at = pattern.number() as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] += 1;
    }

    /// Takes back one that was added.
    pub fn remove(&mut self, pattern: PatternId) {
        self.0[pattern.number() as usize] -= 1;
    }

    /// By number; patterns above the last entry have none.
    pub fn counts(&self) -> &[u64] {
        &self.0
    }
}

/// How bad a pattern's failures are, 1 to 6; decides which of several matching patterns names a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Severity(u8);

impl Severity {
    pub const MAX: u8 = 6;

    /// The least of them.
    pub const LEAST: Severity = Severity(1);

    /// `None` outside 1 to 6.
    pub fn new(level: u8) -> Option<Severity> {
        (1..=Severity::MAX).contains(&level).then_some(Severity(level))
    }

    pub fn level(self) -> u8 {
        self.0
    }
}

/// What a pattern's failures are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// A password was refused.
    #[default]
    Auth,
    /// What no honest client does.
    Abuse,
    /// Somebody looks around; honest ones do that too.
    Probe,
}

impl FailureKind {
    pub const ALL: [FailureKind; 3] = [FailureKind::Auth, FailureKind::Abuse, FailureKind::Probe];

    /// Their names, in the same order.
    pub const NAMES: [&str; 3] = ["auth", "abuse", "probe"];

    pub fn name(self) -> &'static str {
        FailureKind::NAMES[self as usize]
    }

    /// The kind of that name; `None` if there is none.
    pub fn from_name(name: &str) -> Option<FailureKind> {
        FailureKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One matched line, on its way to the shard that counts for this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub client: Network,
    /// How many failures the line counts for.
    pub count: u32,
    pub pattern: PatternId,
    pub severity: Severity,
    /// Which login it was, where other lines may tell of the same.
    pub login: Option<Login>,
}

/// A ban that is in force until a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The first millisecond at which it is over.
    pub until: Time,
    /// Which offence of this client it is, from 1.
    pub offences: u32,
    /// How many failures made the offence.
    pub failures: u32,
    pub pattern: PatternId,
    pub severity: Severity,
}

impl Ban {
    /// Holds a place until there is one.
    pub(super) const NONE: Ban =
        Ban { until: Time::EARLIEST, offences: 0, failures: 0, pattern: PatternId(0), severity: Severity(1) };
}

/// Why a ban ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lift {
    /// It ran out.
    Expired,
    /// The client is on the allowlist now.
    Allowed,
    /// There were more offenders than may be remembered.
    Evicted,
    /// An operator ended it.
    Unbanned,
}

impl Lift {
    pub const ALL: [Lift; 4] = [Lift::Expired, Lift::Allowed, Lift::Evicted, Lift::Unbanned];

    pub fn name(self) -> &'static str {
        match self {
            Lift::Expired => "expired",
            Lift::Allowed => "allowed",
            Lift::Evicted => "evicted",
            Lift::Unbanned => "unbanned",
        }
    }

    /// The reason of that name; `None` if there is none.
    pub fn from_name(name: &str) -> Option<Lift> {
        Lift::ALL.into_iter().find(|lift| lift.name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Ban(Ban),
    /// The ban that was in force ends, and why.
    Lift(Lift, Ban),
}

/// What an operator has a client's owner do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ban it under this pattern, for that long; `None`: as long as its next offence would be.
    Ban(PatternId, Severity, Option<Duration>),
    /// End its ban.
    Lift,
}

/// Where a decision comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made here, now: to be stored and announced.
    Decided,
    /// Made by another node or in an earlier run, and stored already.
    Learned,
}

/// The record that creates or ends a ban. Only the client's owner makes them, so those about one client are in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Unique in the process: the owner's index in the upper 16 bits, its count in the lower 48.
    pub serial: u64,
    pub at: Time,
    pub client: Network,
    pub act: Act,
    pub origin: Origin,
}

/// Ends of bans that are no further apart than this are the same: where they were kept meanwhile may know seconds only,
/// and every node's clock is a little wrong.
const SAME_END: Duration = Duration::from_secs(1);

/// A ban that another node or an earlier run decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    pub client: Network,
    /// When it was decided: the client's last offence.
    pub at: Time,
    /// Its end may be past: then it is only history.
    pub ban: Ban,
    /// When it was ended early, and why; `None` if it was not.
    pub lifted: Option<(Time, Lift)>,
}

impl Learned {
    /// What this changes for its client, whose ban in force ends at `until` (`None`: it is not banned). A longer ban beats
    /// a shorter one, and a lift ends the ban it was meant for, but no newer, longer one. A newer, shorter one cannot be
    /// told from it by its end: that is for whoever knows of the client's offences, see [`Learned::is_lifted_before`].
    pub fn change(&self, until: Option<Time>, now: Time) -> Option<Act> {
        match (self.lifted, until) {
            (Some((_, why)), Some(until)) if until <= self.ban.until.plus(SAME_END) => Some(Act::Lift(why, self.ban)),
            (None, until)
                if self.ban.until > now && until.is_none_or(|until| until.plus(SAME_END) < self.ban.until) =>
            {
                Some(Act::Ban(self.ban))
            }
            _ => None,
        }
    }

    /// Whether it was ended before an offence, so that its end says nothing of the ban which that offence led to. Nobody
    /// ended it before it began, whatever the clocks say.
    pub fn is_lifted_before(&self, offence: Time) -> bool {
        self.lifted.is_some_and(|(at, _)| at.max(self.at) < offence)
    }
}

/// The network by which an address is judged.
pub fn client_of(address: Address, rules: &BanRules) -> Network {
    let len = if address.is_ipv4() { rules.ipv4_prefix } else { rules.ipv6_prefix };
    Network::new(address, len).unwrap_or_else(|| Network::host(address))
}

/// Which of `shards` shards counts for a client: a keyed hash, so that nobody can choose to burden one.
#[derive(Clone, Debug)]
pub struct OwnerHash(HashKey);

impl OwnerHash {
    /// The same key on every shard, and another one than any table's.
    pub fn new(key: HashKey) -> OwnerHash {
        OwnerHash(key)
    }

    /// The owner's index, below `shards`.
    pub fn owner(&self, client: Network, shards: usize) -> usize {
        ((u128::from(self.0.hash_one(client)) * shards as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::escalation::rules;
    use super::super::table::hash_key;
    use super::*;

    #[test]
    fn ipv6_clients_are_judged_by_their_64_bits_and_mapped_ones_as_ipv4() {
        let client = |text: &str| client_of(Address::parse(text.as_bytes()).unwrap(), &rules()).to_string();
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(client("::ffff:192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn a_lift_has_a_name_and_a_name_a_lift() {
        assert!(Lift::ALL.into_iter().all(|lift| Lift::from_name(lift.name()) == Some(lift)));
        assert_eq!(Lift::from_name(""), None);
    }

    #[test]
    fn what_is_learned_changes_a_ban_only_if_their_ends_differ_by_more_than_a_second() {
        let at = |millis| Time::START.plus(Duration::from_millis(millis));
        let pattern = PatternId::new(0).unwrap();
        let ban = Ban { until: at(9_000), offences: 1, failures: 5, pattern, severity: Severity::new(1).unwrap() };
        let learned = Learned { client: Network::parse("192.0.2.1").unwrap(), at: at(0), ban, lifted: None };
        let bans = |until: Option<u64>, now| match learned.change(until.map(at), at(now)) {
            Some(Act::Ban(changed)) => changed == ban,
            other => other.is_some(),
        };
        assert!(bans(None, 8_999) && !bans(None, 9_000));
        assert!(bans(Some(7_999), 1) && !bans(Some(8_000), 1) && !bans(Some(20_000), 1));

        let lifted = Learned { lifted: Some((at(1), Lift::Unbanned)), ..learned };
        let ends = |until: Option<u64>| lifted.change(until.map(at), at(1)).is_some();
        assert!(!ends(None) && ends(Some(10_000)) && !ends(Some(10_001)));
        assert_eq!(lifted.change(Some(at(5)), at(1)), Some(Act::Lift(Lift::Unbanned, ban)));
    }

    #[test]
    fn owners_are_spread_evenly() {
        let hash = OwnerHash::new(hash_key(9));
        let mut clients = [0usize; 7];
        for n in 0..70_000u32 {
            let address = Address::from(std::net::Ipv4Addr::from_bits(n));
            clients[hash.owner(Network::host(address), 7)] += 1;
        }
        assert!(clients.iter().all(|n| (9_000..11_000).contains(n)), "{clients:?}");
    }
}

//! The owner of clients: one per shard, and the only one who counts and decides for them.
//!
//! A failure goes through the window; at the threshold it becomes an offence, the offence a ban, longer than the one
//! before. What the owner decides it says in [`Decision`]s, for every shard's replica and for the operator. Bans
//! end by themselves: a heap of their ends is looked at when time passes, and nothing else.

use super::address::Network;
use super::ban::{Act, Ban, ByPattern, Decision, Failure, Lift, PatternId, Severity};
use super::escalation::BanRules;
use super::recency::Recency;
use super::table::{HashKey, NetworkTable};
use super::time::Time;
use super::window::{Count, Windows};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How much is forgotten in one call of [`Owner::tick`], so that no turn of a shard gets longer than a few milliseconds.
/// What remains is forgotten by the next; if more comes in than is forgotten, the tables' bounds hold all the same.
const FORGOTTEN_PER_TICK_MAX: usize = 1 << 15;

/// How many bans end in one call of [`Owner::tick`]: each goes to every replica and to the control thread. Those that
/// wait for the next call are not enforced any more.
const ENDED_PER_TICK_MAX: usize = 1 << 12;

/// A client that was banned at least once and is not forgotten yet.
#[derive(Clone, Copy, Debug, Default)]
struct Offender {
    offences: u32,
    last: Time,
    /// The ban in force, if it has not been lifted.
    ban: Option<(u64, Ban)>,
}

/// What became of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Counted,
    /// The client is banned already; its failures neither prolong the ban nor count towards the next.
    AlreadyBanned,
    Banned,
}

/// Counts, decides and remembers for the clients of one shard.
#[derive(Debug)]
pub struct Owner {
    windows: Windows,
    offenders: Recency<Offender>,
    /// When bans end, and under which serial they were decided. An entry whose ban was lifted early is stale and
    /// skipped when its time comes; [`Owner::compact`] keeps their number in bounds.
    ends: BinaryHeap<Reverse<(Time, u64, Network)>>,
    /// How many offenders have a ban in force, and how many of them by pattern number.
    banned: usize,
    banned_by: ByPattern,
    /// When the tables are next looked through for what can be forgotten.
    cleanup_at: Time,
    serial: u64,
    offenders_evicted: u64,
}

impl Owner {
    /// The owner on shard `shard`, for at most `tracked_max` clients counted and as many offenders remembered.
    pub fn new(shard: u16, tracked_max: usize, hash: HashKey) -> Owner {
        Owner {
            windows: Windows::new(tracked_max, hash.clone()),
            offenders: Recency::new(tracked_max, hash),
            ends: BinaryHeap::new(),
            banned: 0,
            banned_by: ByPattern::default(),
            cleanup_at: Time::default(),
            serial: u64::from(shard) << 48,
            offenders_evicted: 0,
        }
    }

    /// Clients with failures in their window.
    pub fn counting(&self) -> usize {
        self.windows.len()
    }

    /// Clients whose offences are remembered.
    pub fn remembered(&self) -> usize {
        self.offenders.len()
    }

    /// Bans in force.
    pub fn banned(&self) -> usize {
        self.banned
    }

    /// Bans in force by pattern.
    pub fn banned_by(&self) -> &ByPattern {
        &self.banned_by
    }

    /// Clients whose window was dropped for want of room, and offenders forgotten for it.
    pub fn evicted(&self) -> (u64, u64) {
        (self.windows.evicted(), self.offenders_evicted)
    }

    /// Counts a failure; decisions that follow are appended to `decisions`. `now` never goes back.
    pub fn fail(&mut self, failure: &Failure, now: Time, rules: &BanRules, decisions: &mut Vec<Decision>) -> Outcome {
        let client = failure.client;
        if let Some(offender) = self.offenders.get(client)
            && offender.ban.is_some_and(|(_, ban)| ban.until > now)
        {
            return Outcome::AlreadyBanned;
        }
        match self.windows.record(client, failure.count, now, rules.window, rules.threshold) {
            Count::Below(_) => Outcome::Counted,
            Count::Reached(failures) => {
                self.offend(client, failures, failure.pattern, failure.severity, now, rules, decisions);
                Outcome::Banned
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
    fn offend(
        &mut self,
        client: Network,
        failures: u32,
        pattern: PatternId,
        severity: Severity,
        now: Time,
        rules: &BanRules,
        decisions: &mut Vec<Decision>,
    ) {
        let touched = self.offenders.touch(client);
        let offender = touched.value;
        if let Some((serial, ban)) = offender.ban.take() {
            // It ran out before this failure but was not swept yet. Say so first: decisions stay in order.
            debug_assert!(ban.until <= now && serial <= self.serial, "a banned client does not offend");
            self.serial += 1;
            let act = Act::Lift(Lift::Expired, ban);
            decisions.push(Decision { serial: self.serial, at: now, client, act });
            self.banned -= 1;
            self.banned_by.remove(ban.pattern);
        }
        if offender.last.plus(rules.memory) <= now {
            offender.offences = 0;
        }
        offender.offences = offender.offences.saturating_add(1);
        offender.last = now;
        let until = now.plus(rules.duration(offender.offences));
        let ban = Ban { until, offences: offender.offences, failures, pattern, severity };
        self.serial += 1;
        offender.ban = Some((self.serial, ban));
        self.banned += 1;
        self.banned_by.add(pattern);
        self.ends.push(Reverse((until, self.serial, client)));
        decisions.push(Decision { serial: self.serial, at: now, client, act: Act::Ban(ban) });
        if let Some((evicted, offender)) = touched.evicted {
            self.forget_offender(evicted, offender, now, decisions);
        }
        self.compact();
    }

    /// Lets time pass: ends bans that ran out, forgets windows and offenders that are too old. Does a bounded amount of
    /// work; what remains is done by the next call, and is not enforced meanwhile.
    pub fn tick(&mut self, now: Time, rules: &BanRules, decisions: &mut Vec<Decision>) {
        for _ in 0..ENDED_PER_TICK_MAX {
            match self.ends.peek() {
                Some(Reverse((until, _, _))) if *until <= now => {}
                _ => break,
            }
            let Some(Reverse((_, serial, client))) = self.ends.pop() else { break };
            if let Some(offender) = self.offenders.get_mut(client)
                && let Some((_, ban)) = offender.ban.take_if(|(of, _)| *of == serial)
            {
                self.say(client, Lift::Expired, ban, now, decisions);
            }
        }
        if now >= self.cleanup_at {
            self.clean_up(now, rules);
        }
    }

    fn clean_up(&mut self, now: Time, rules: &BanRules) {
        let mut finished = self.windows.expire(now, rules.window, FORGOTTEN_PER_TICK_MAX);
        for forgotten in 0..FORGOTTEN_PER_TICK_MAX {
            match self.offenders.oldest() {
                Some((client, offender)) if offender.last.plus(rules.memory) <= now && offender.ban.is_none() => {
                    self.offenders.remove(client);
                }
                _ => break,
            }
            finished &= forgotten + 1 < FORGOTTEN_PER_TICK_MAX;
        }
        if finished {
            // All that could be forgotten was: until the next time.
            self.cleanup_at = now.plus(rules.cleanup);
        }
    }

    /// Adopts new rules and a new allowlist: bans of clients that lie wholly inside it are lifted. What was counted for a
    /// client inside it that is not banned does no harm: no more failures of it are counted.
    pub fn adopt(&mut self, rules: &BanRules, allow: &NetworkTable<()>, now: Time, decisions: &mut Vec<Decision>) {
        self.windows.set_max(rules.tracked_max);
        self.offenders.set_max(rules.tracked_max);
        while self.offenders.len() > self.offenders.max() {
            let Some((client, offender)) = self.offenders.pop_oldest() else { break };
            self.forget_offender(client, offender, now, decisions);
        }
        if allow.is_empty() {
            return;
        }
        let allowed: Vec<Network> = self
            .offenders
            .iter()
            .filter(|(client, offender)| offender.ban.is_some() && allow.covers(*client))
            .map(|(client, _)| client)
            .collect();
        for client in allowed {
            self.lift(client, Lift::Allowed, now, decisions);
        }
    }

    /// Ends the ban of exactly this client, if there is one.
    pub fn lift(&mut self, client: Network, why: Lift, now: Time, decisions: &mut Vec<Decision>) -> bool {
        self.windows.forget(client);
        let Some((_, ban)) = self.offenders.get_mut(client).and_then(|offender| offender.ban.take()) else {
            return false;
        };
        self.say(client, why, ban, now, decisions);
        true
    }

    /// The bans in force as decisions: what a replica that fell behind needs to hold of this owner.
    pub fn snapshot(&self, now: Time) -> Vec<Decision> {
        let in_force = self.offenders.iter().filter_map(|(client, offender)| {
            let (serial, ban) = offender.ban.filter(|(_, ban)| ban.until > now)?;
            Some(Decision { serial, at: offender.last, client, act: Act::Ban(ban) })
        });
        in_force.collect()
    }

    /// An offender had to go for want of room; its ban cannot outlive what is known of it.
    fn forget_offender(&mut self, client: Network, offender: Offender, now: Time, decisions: &mut Vec<Decision>) {
        self.offenders_evicted += 1;
        if let Some((_, ban)) = offender.ban {
            self.say(client, Lift::Evicted, ban, now, decisions);
        }
    }

    /// Says that a ban, which was taken from its offender, has ended.
    fn say(&mut self, client: Network, why: Lift, ban: Ban, now: Time, decisions: &mut Vec<Decision>) {
        self.banned -= 1;
        self.banned_by.remove(ban.pattern);
        self.serial += 1;
        decisions.push(Decision { serial: self.serial, at: now, client, act: Act::Lift(why, ban) });
    }

    /// Drops stale ends when they outnumber the real ones.
    fn compact(&mut self) {
        if self.ends.len() > 2 * self.banned + 1024 {
            let offenders = &self.offenders;
            self.ends.retain(|Reverse((_, serial, client))| {
                offenders.get(*client).is_some_and(|offender| offender.ban.is_some_and(|(of, _)| of == *serial))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::escalation::rules;
    use super::super::table::hash_key;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn failure(n: u8, count: u32) -> Failure {
        Failure {
            client: Network::parse(&format!("203.0.113.{n}")).unwrap(),
            count,
            pattern: PatternId::new(u32::from(n)).unwrap(),
            severity: Severity::new(3).unwrap(),
        }
    }

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn five_failures_ban_and_the_second_ban_lasts_twice_as_long() {
        let rules = BanRules { initial: Duration::from_secs(2), ..rules() };
        let mut owner = Owner::new(3, 10, hash_key(1));
        let mut said = Vec::new();
        for n in 0..4 {
            assert_eq!(owner.fail(&failure(1, 1), at(n), &rules, &mut said), Outcome::Counted);
        }
        assert!(said.is_empty());
        assert_eq!(owner.fail(&failure(1, 1), at(4), &rules, &mut said), Outcome::Banned);
        let Some(Decision { serial, act: Act::Ban(ban), .. }) = said.pop() else { panic!("{said:?}") };
        assert_eq!((serial, ban.until, ban.offences, ban.failures), (3 << 48 | 1, at(6), 1, 5));
        assert_eq!(owner.fail(&failure(1, 9), at(5), &rules, &mut said), Outcome::AlreadyBanned);

        owner.tick(at(6), &rules, &mut said);
        assert!(matches!(said.pop(), Some(Decision { act: Act::Lift(Lift::Expired, _), .. })));
        assert_eq!(owner.fail(&failure(1, 5), at(6), &rules, &mut said), Outcome::Banned);
        let Some(Decision { act: Act::Ban(ban), .. }) = said.pop() else { panic!("{said:?}") };
        assert_eq!((ban.until, ban.offences), (at(10), 2));
    }

    #[test]
    fn offences_are_forgotten_some_time_after_the_last() {
        let rules = rules();
        let mut owner = Owner::new(0, 10, hash_key(1));
        let mut said = Vec::new();
        owner.fail(&failure(1, 5), at(0), &rules, &mut said);
        owner.tick(at(300), &rules, &mut said);
        let later = at(0).plus(rules.memory);
        owner.fail(&failure(1, 5), later, &rules, &mut said);
        let Some(Decision { act: Act::Ban(ban), .. }) = said.last() else { panic!("{said:?}") };
        assert_eq!(ban.offences, 1);
        owner.tick(later.plus(rules.memory), &rules, &mut said);
        assert_eq!((owner.remembered(), owner.banned()), (0, 0));
    }

    #[test]
    fn a_new_allowlist_lifts_the_bans_inside_it() {
        let rules = rules();
        let mut owner = Owner::new(0, 10, hash_key(1));
        let mut said = Vec::new();
        owner.fail(&failure(1, 5), at(0), &rules, &mut said);
        owner.fail(&failure(200, 5), at(0), &rules, &mut said);
        said.clear();
        let mut allow = NetworkTable::new(hash_key(2));
        allow.insert(Network::parse("203.0.113.0/25").unwrap(), ());
        owner.adopt(&rules, &allow, at(1), &mut said);
        assert!(matches!(said[..], [Decision { client, act: Act::Lift(Lift::Allowed, _), .. }]
            if client == failure(1, 1).client));
        assert_eq!(owner.snapshot(at(1)).len(), 1);
    }

    #[test]
    fn a_full_table_of_offenders_lifts_the_oldest_ban() {
        let rules = rules();
        let mut owner = Owner::new(0, 3, hash_key(1));
        let mut said = Vec::new();
        for n in 0..4 {
            owner.fail(&failure(n, 5), at(u64::from(n)), &rules, &mut said);
        }
        let last = said.last().unwrap();
        assert!(last.client == failure(0, 1).client && matches!(last.act, Act::Lift(Lift::Evicted, _)));
        assert_eq!((owner.banned(), owner.remembered(), owner.evicted()), (3, 3, (0, 1)));
    }

    #[test]
    fn a_smaller_bound_forgets_the_oldest_offenders_at_once() {
        let mut rules = rules();
        let mut owner = Owner::new(0, 10, hash_key(1));
        let mut said = Vec::new();
        for n in 0..10 {
            owner.fail(&failure(n, 5), at(u64::from(n)), &rules, &mut said);
        }
        said.clear();
        rules.tracked_max = 4;
        owner.adopt(&rules, &NetworkTable::new(hash_key(2)), at(10), &mut said);
        assert_eq!((owner.banned(), owner.remembered(), said.len()), (4, 4, 6));
    }

    #[test]
    fn what_is_too_much_for_one_tick_is_forgotten_by_the_next_ones() {
        let rules = BanRules { cleanup: Duration::from_secs(60), ..rules() };
        let mut owner = Owner::new(0, 200_000, hash_key(1));
        let mut said = Vec::new();
        owner.tick(at(0), &rules, &mut said);
        for n in 0..100_000u32 {
            let client = Network::host(std::net::Ipv4Addr::from_bits(n).into());
            owner.fail(&Failure { client, ..failure(1, 1) }, at(1), &rules, &mut said);
        }
        for tick in 0..5 {
            owner.tick(Time::from_millis(700_000 + tick * 250), &rules, &mut said);
        }
        assert_eq!(owner.counting(), 0);
    }

    #[test]
    fn ends_of_bans_that_were_lifted_do_not_pile_up() {
        let rules = BanRules { threshold: 1, ..rules() };
        let mut owner = Owner::new(0, 10, hash_key(1));
        let mut said = Vec::new();
        for n in 0..100_000u64 {
            owner.fail(&failure(1, 1), Time::from_millis(n), &rules, &mut said);
            owner.lift(failure(1, 1).client, Lift::Allowed, Time::from_millis(n), &mut said);
        }
        assert!(owner.ends.len() <= 2048, "{}", owner.ends.len());
    }

    proptest! {
        /// Against a model that keeps every failure and every offence for ever and looks through all of it.
        #[test]
        fn decides_what_a_full_history_would(
            threshold in 1..5u32,
            steps in prop::collection::vec((0..3u8, 1..3u32, 0..200u64, any::<bool>()), 0..300),
        ) {
            let rules = BanRules {
                initial: Duration::from_millis(50), max: Duration::from_millis(300), factor: 2.0, threshold,
                window: Duration::from_millis(100), memory: Duration::from_millis(1000), ..rules()
            };
            let mut owner = Owner::new(0, 100, hash_key(8));
            let mut failures: Vec<(u8, u64, u32)> = Vec::new();
            let mut offences: BTreeMap<u8, (u32, u64, u64)> = BTreeMap::new(); // how many, last, banned until
            let mut in_force: BTreeMap<Network, Time> = BTreeMap::new(); // as the decisions say
            let mut now = 0;
            for (who, count, later, sweep) in steps {
                now += later;
                let time = Time::from_millis(now);
                let mut said = Vec::new();
                if sweep {
                    owner.tick(time, &rules, &mut said);
                }
                let got = owner.fail(&failure(who, count), time, &rules, &mut said);
                let entry = offences.entry(who).or_insert((0, 0, 0));
                let want = if entry.2 > now {
                    Outcome::AlreadyBanned
                } else {
                    failures.push((who, now, count));
                    let young = failures.iter().filter(|(w, at, _)| *w == who && now - at < 100);
                    if young.map(|(_, _, c)| c).sum::<u32>() >= threshold {
                        failures.retain(|(w, _, _)| *w != who);
                        let again = entry.0 > 0 && now - entry.1 < 1000;
                        let n = if again { entry.0 + 1 } else { 1 };
                        *entry = (n, now, now + (50 << (n - 1).min(10)).min(300));
                        Outcome::Banned
                    } else {
                        Outcome::Counted
                    }
                };
                prop_assert_eq!(got, want);
                let mut last_serial = 0;
                for decision in said {
                    prop_assert!(decision.serial > last_serial);
                    last_serial = decision.serial;
                    match decision.act {
                        Act::Ban(ban) => prop_assert_eq!(in_force.insert(decision.client, ban.until), None),
                        Act::Lift(..) => prop_assert!(in_force.remove(&decision.client).is_some_and(|until| until <= time)),
                    }
                }
                prop_assert_eq!(owner.banned(), in_force.len());
                prop_assert_eq!(owner.banned_by().counts().iter().sum::<u64>(), in_force.len() as u64);
                for (who, (_, _, until)) in &offences {
                    let held = in_force.get(&failure(*who, 1).client).is_some_and(|u| *u > time);
                    prop_assert_eq!(held, *until > now);
                }
                prop_assert_eq!(owner.snapshot(time).len(), offences.values().filter(|o| o.2 > now).count());
            }
        }
    }
}

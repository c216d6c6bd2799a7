//! The owner of clients: one per shard, and the only one who counts and decides for them.
//!
//! A failure goes through the window; at the threshold it becomes an offence, the offence a ban, longer than the one
//! before. What the owner decides it says in [`Decision`]s, for every shard's replica and for the operator. Bans
//! end by themselves: a heap of their ends is looked at when time passes, and nothing else.
//!
//! What other nodes or earlier runs decided is learned: their bans are in force here too, and their offences count. What
//! concerns all offenders at once, as a new allowlist does, is done in steps.

use super::address::Network;
use super::ban::{Act, Ban, ByPattern, Decision, Failure, Learned, Lift, Origin, PatternId, Severity};
use super::escalation::BanRules;
use super::logins::{self, Logins};
use super::recency::Recency;
use super::survey::{Listed, Survey};
use super::table::{HashKey, NetworkTable};
use super::time::Time;
use super::window::{Count, Windows};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// How much is forgotten in one call of [`Owner::tick`], so that no turn of a shard gets longer than a few milliseconds.
/// What remains is forgotten by the next; if more comes in than is forgotten, the tables' bounds hold all the same.
const FORGOTTEN_PER_TICK_MAX: usize = 1 << 15;

/// How many bans end in one step, for whatever reason: each goes to every replica and to the control thread, whose rings
/// hold about twice as many. Those that wait for the next step because they ran out, or because the allowlist has
/// their clients now, are not enforced any more.
const ENDED_PER_STEP_MAX: usize = 1 << 12;

/// How many offenders are compared with a new allowlist when it is adopted, and in each call of [`Owner::tick`] after that:
/// a million are done within eight seconds, 32 calls, of at most 2 ms each.
const SWEPT_AT_ONCE_MAX: usize = 1 << 13;
const SWEPT_PER_TICK_MAX: usize = 1 << 15;

/// How many logins are known at a time, of as many clients counted: only a part of them tries passwords just now.
fn logins_max(tracked_max: usize) -> usize {
    tracked_max.div_ceil(4).max(1024)
}

/// A client that was banned at least once and is not forgotten yet.
#[derive(Clone, Copy, Debug)]
struct Offender {
    /// The latest ban. Its `offences` are those remembered: another node may know of more than led to this ban.
    ban: Ban,
    serial: u64,
    /// When the last offence was.
    last: Time,
    /// When the latest ban was lifted, if it was, as [`coarse`] has it.
    lifted_at: u32,
    state: State,
    /// Where the latest ban comes from.
    origin: Origin,
}

/// What became of the latest ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In force, or it ran out and nobody has said so yet.
    InForce,
    RanOut,
    /// Why, and whether that was decided here.
    Lifted(Lift, Origin),
}

impl Default for Offender {
    fn default() -> Offender {
        Offender {
            ban: Ban::NONE,
            serial: 0,
            last: Time::EARLIEST,
            lifted_at: 0,
            state: State::RanOut,
            origin: Origin::Learned,
        }
    }
}

impl Offender {
    /// When its ban ends, if it is banned at `now`.
    fn banned_until(&self, now: Time) -> Option<Time> {
        (self.state == State::InForce && self.ban.until > now).then_some(self.ban.until)
    }

    fn listed(&self, client: Network) -> Listed {
        Listed { client, ban: self.ban, since: self.last, learned: self.origin == Origin::Learned }
    }

    /// Its latest ban as a decision.
    fn told(&self, client: Network) -> Decision {
        Decision { serial: self.serial, at: self.last, client, act: Act::Ban(self.ban), origin: self.origin }
    }

    /// The end of its latest ban as a decision made here, under the ban's serial and never before it.
    fn told_lift(&self, client: Network, why: Lift) -> Decision {
        let at = Time::from_millis(u64::from(self.lifted_at) << 10).max(self.last);
        Decision { serial: self.serial, at, client, act: Act::Lift(why, self.ban), origin: Origin::Decided }
    }

    /// Offences that count towards the next ban.
    fn offences(&self, now: Time, rules: &BanRules) -> u32 {
        if self.last.plus(rules.memory) <= now { 0 } else { self.ban.offences }
    }
}

/// What an owner knows of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Failures that count at the moment.
    pub failures: u32,
    /// Offences that count towards the next ban, and when the last was.
    pub offences: u32,
    pub last_offence: Option<Time>,
    /// The ban in force.
    pub ban: Option<Listed>,
}

/// A time in whole units of 1,024 ms, of which [`Time::MAX`] has 2^32.
fn coarse(time: Time) -> u32 {
    (time.millis() >> 10) as u32
}

/// What became of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Counted,
    /// Other lines had told of it.
    Known,
    /// The client is banned already; its failures neither prolong the ban nor count towards the next.
    AlreadyBanned,
    Banned,
}

/// The bans in force: how many there are, when they end, and saying so.
#[derive(Debug)]
struct Bans {
    /// When bans end, and under which serial they were decided. An entry whose ban was lifted or replaced is stale and
    /// skipped when its time comes; [`Owner::compact`] keeps their number in bounds.
    ends: BinaryHeap<Reverse<(Time, u64, Network)>>,
    count: usize,
    by_pattern: ByPattern,
    serial: u64,
}

impl Bans {
    /// Puts a ban in force, in the place of one that may be in force already.
    fn begin(
        &mut self,
        (client, offender): (Network, &mut Offender),
        (ban, origin): (Ban, Origin),
        now: Time,
        decisions: &mut Vec<Decision>,
    ) {
        if offender.state == State::InForce {
            self.remove(&offender.ban);
        }
        self.count += 1;
        self.by_pattern.add(ban.pattern);
        self.serial += 1;
        self.ends.push(Reverse((ban.until, self.serial, client)));
        *offender = Offender { ban, serial: self.serial, state: State::InForce, origin, ..*offender };
        decisions.push(Decision { serial: self.serial, at: now, client, act: Act::Ban(ban), origin });
    }

    /// Ends the ban in force.
    fn end(
        &mut self,
        (client, offender): (Network, &mut Offender),
        (why, origin): (Lift, Origin),
        now: Time,
        decisions: &mut Vec<Decision>,
    ) {
        debug_assert!(offender.state == State::InForce, "only a ban in force ends");
        self.remove(&offender.ban);
        self.serial += 1;
        offender.lifted_at = coarse(now);
        offender.state = if why == Lift::Expired { State::RanOut } else { State::Lifted(why, origin) };
        decisions.push(Decision { serial: self.serial, at: now, client, act: Act::Lift(why, offender.ban), origin });
    }

    /// Ends the ban if it ran out and nobody has said so yet: decisions stay in order.
    fn end_if_run_out(
        &mut self,
        (client, offender): (Network, &mut Offender),
        now: Time,
        decisions: &mut Vec<Decision>,
    ) {
        if offender.state == State::InForce && offender.ban.until <= now {
            let why = (Lift::Expired, offender.origin);
            self.end((client, offender), why, now, decisions);
        }
    }

    fn remove(&mut self, ban: &Ban) {
        self.count -= 1;
        self.by_pattern.remove(ban.pattern);
    }
}

/// Counts, decides and remembers for the clients of one shard.
#[derive(Debug)]
pub struct Owner {
    logins: Logins,
    windows: Windows,
    offenders: Recency<Offender>,
    bans: Bans,
    /// When the tables are next looked through for what can be forgotten.
    cleanup_at: Time,
    /// The place among the offenders from which on they are still to be compared with a new allowlist.
    sweep_from: Option<usize>,
    offenders_evicted: u64,
}

impl Owner {
    /// The owner on shard `shard`, for at most `tracked_max` clients counted and as many offenders remembered.
    pub fn new(shard: u16, tracked_max: usize, hash: HashKey) -> Owner {
        Owner {
            logins: Logins::new(logins_max(tracked_max), hash.clone()),
            windows: Windows::new(tracked_max, hash.clone()),
            offenders: Recency::new(tracked_max, hash),
            bans: Bans {
                ends: BinaryHeap::new(),
                count: 0,
                by_pattern: ByPattern::default(),
                serial: u64::from(shard) << 48,
            },
            cleanup_at: Time::default(),
            sweep_from: None,
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
        self.bans.count
    }

    /// Bans in force by pattern.
    pub fn banned_by(&self) -> &ByPattern {
        &self.bans.by_pattern
    }

    /// Clients whose window was dropped for want of room, and offenders forgotten for it.
    pub fn evicted(&self) -> (u64, u64) {
        (self.windows.evicted(), self.offenders_evicted)
    }

    /// Whether exactly this client is banned at `now`.
    pub fn has_banned(&self, client: Network, now: Time) -> bool {
        self.offenders.get(client).is_some_and(|offender| offender.banned_until(now).is_some())
    }

    /// Counts a failure; decisions that follow are appended to `decisions`. `now` never goes back.
    pub fn fail(&mut self, failure: &Failure, now: Time, rules: &BanRules, decisions: &mut Vec<Decision>) -> Outcome {
        let banned_until = self.offenders.get(failure.client).and_then(|offender| offender.banned_until(now));
        // What is told of a banned client is known afterwards too, unless the ban lasts for longer than that is kept. Should
        // it end early, what other lines tell of the same logins then counts anew.
        if banned_until.is_some_and(|until| until >= now.plus(logins::kept(rules.window))) {
            return Outcome::AlreadyBanned;
        }
        let count = match &failure.login {
            Some(login) => self.logins.tell(failure.client, login, failure.count, now, rules.window),
            None => failure.count,
        };
        if banned_until.is_some() {
            return Outcome::AlreadyBanned;
        }
        if count == 0 {
            return Outcome::Known;
        }
        match self.windows.record(failure.client, count, now, rules.window, rules.threshold) {
            Count::Below(_) => Outcome::Counted,
            Count::Reached(failures) => {
                let Failure { client, pattern, severity, .. } = *failure;
                self.offend(client, (failures, pattern, severity), None, now, rules, decisions);
                Outcome::Banned
            }
        }
    }

    /// Bans a client because an operator says so, as one more offence: for `length`, or as long as the rules say. A ban that
    /// ends later stays as it is: other nodes would not follow. True if it did not.
    pub fn impose(
        &mut self,
        client: Network,
        (pattern, severity): (PatternId, Severity),
        length: Option<Duration>,
        now: Time,
        rules: &BanRules,
        decisions: &mut Vec<Decision>,
    ) -> bool {
        let known = self.offenders.get(client);
        let offences = known.map_or(0, |offender| offender.offences(now, rules)).saturating_add(1);
        let until = now.plus(length.unwrap_or_else(|| rules.duration(offences)));
        // Without a length it is enough that there is a ban: whoever orders twice means once.
        let banned_until = known.and_then(|offender| offender.banned_until(now));
        if banned_until.is_some_and(|longer| length.is_none() || longer >= until) {
            return false;
        }
        self.windows.forget(client);
        self.offend(client, (0, pattern, severity), length, now, rules, decisions);
        true
    }

    fn offend(
        &mut self,
        client: Network,
        (failures, pattern, severity): (u32, PatternId, Severity),
        length: Option<Duration>,
        now: Time,
        rules: &BanRules,
        decisions: &mut Vec<Decision>,
    ) {
        let found = self.offenders.touch(client);
        let offender = found.value;
        self.bans.end_if_run_out((client, offender), now, decisions);
        let offences = offender.offences(now, rules).saturating_add(1);
        offender.last = now;
        let until = now.plus(length.unwrap_or_else(|| rules.duration(offences)));
        let ban = Ban { until, offences, failures, pattern, severity };
        self.bans.begin((client, offender), (ban, Origin::Decided), now, decisions);
        if let Some((evicted, offender)) = found.evicted {
            self.forget_offender(evicted, offender, now, decisions);
        }
        self.compact();
    }

    /// Learns what another node or an earlier run decided about a client of this owner: its ban is in force here too, or
    /// ends here too, as [`Learned::change`] says, and its offences count towards the next ban. A lift that is older than
    /// the client's last offence comes too late: it is only history, and the ban for that offence stays. Clients that
    /// `allow` covers are passed over, and so is what would be forgotten by now.
    pub fn learn(
        &mut self,
        learned: &Learned,
        now: Time,
        rules: &BanRules,
        allow: &NetworkTable<()>,
        decisions: &mut Vec<Decision>,
    ) {
        let client = learned.client;
        // Another node's clock may be ahead.
        let at = learned.at.min(now);
        let known = self.offenders.get(client);
        let is_late = known.is_some_and(|offender| learned.is_lifted_before(offender.last));
        let in_force = known.and_then(|offender| offender.banned_until(now));
        let change = if is_late { None } else { learned.change(in_force, now) };
        let forgotten = at.plus(rules.memory) <= now;
        if allow.covers(client) || (forgotten && change.is_none()) {
            return;
        }
        let found = self.offenders.touch(client);
        let offender = found.value;
        self.bans.end_if_run_out((client, offender), now, decisions);
        let known = offender.offences(now, rules);
        match change {
            Some(Act::Ban(ban)) => {
                self.windows.forget(client);
                let ban = Ban { offences: ban.offences.max(known), ..ban };
                self.bans.begin((client, offender), (ban, Origin::Learned), now, decisions);
            }
            Some(Act::Lift(why, _)) => {
                self.windows.forget(client);
                self.bans.end((client, offender), (why, Origin::Learned), now, decisions);
            }
            None if offender.state != State::InForce && at > offender.last => {
                let state = learned.lifted.map_or(State::RanOut, |(_, why)| State::Lifted(why, Origin::Learned));
                *offender = Offender { ban: learned.ban, state, origin: Origin::Learned, ..*offender };
            }
            None => {}
        }
        if !forgotten {
            offender.ban.offences = known.max(learned.ban.offences);
        }
        offender.last = offender.last.max(at);
        if let Some((evicted, offender)) = found.evicted {
            self.forget_offender(evicted, offender, now, decisions);
        }
        self.compact();
    }

    /// Lets time pass: ends bans that ran out, forgets windows and offenders that are too old or too many, and goes on
    /// looking for those that the allowlist has now. Does a bounded amount of work; what remains is done by the next
    /// call, and is not enforced meanwhile.
    pub fn tick(&mut self, now: Time, rules: &BanRules, allow: &NetworkTable<()>, decisions: &mut Vec<Decision>) {
        for _ in 0..ENDED_PER_STEP_MAX {
            match self.bans.ends.peek() {
                Some(Reverse((until, _, _))) if *until <= now => {}
                _ => break,
            }
            let Some(Reverse((_, serial, client))) = self.bans.ends.pop() else { break };
            if let Some(offender) = self.offenders.get_mut(client).filter(|offender| offender.serial == serial) {
                self.bans.end_if_run_out((client, offender), now, decisions);
            }
        }
        self.windows.shrink(FORGOTTEN_PER_TICK_MAX);
        self.shrink(now, decisions);
        self.sweep(allow, SWEPT_PER_TICK_MAX, now, decisions);
        if now >= self.cleanup_at {
            self.clean_up(now, rules);
        }
    }

    fn clean_up(&mut self, now: Time, rules: &BanRules) {
        let mut finished = self.windows.expire(now, rules.window, FORGOTTEN_PER_TICK_MAX);
        finished &= self.logins.expire(now, rules.window, FORGOTTEN_PER_TICK_MAX);
        for forgotten in 0..FORGOTTEN_PER_TICK_MAX {
            match self.offenders.oldest() {
                Some((client, offender)) if offender.last.plus(rules.memory) <= now => match offender.state {
                    // A ban longer than the memory, which only operators order. It goes to the end, or nobody behind it
                    // would ever be forgotten, and it would be the first to go when there is no room.
                    State::InForce => self.offenders.renew(client),
                    _ => drop(self.offenders.remove(client)),
                },
                _ => break,
            }
            finished &= forgotten + 1 < FORGOTTEN_PER_TICK_MAX;
        }
        if finished {
            // All that could be forgotten was: until the next time.
            self.cleanup_at = now.plus(rules.cleanup);
        }
    }

    /// Adopts new rules, and a new allowlist unless it is `None`: bans of clients that lie wholly inside it are lifted.
    /// The first few thousand at once, the others in the next calls of [`Owner::tick`], which must be given the same
    /// allowlist; from now on none of its clients may be counted or learned. What was counted for a client inside it
    /// that is not banned does no harm. A smaller bound is reached in such steps too.
    pub fn adopt(
        &mut self,
        rules: &BanRules,
        allow: Option<&NetworkTable<()>>,
        now: Time,
        decisions: &mut Vec<Decision>,
    ) {
        self.logins.set_max(logins_max(rules.tracked_max));
        self.windows.set_max(rules.tracked_max);
        self.offenders.set_max(rules.tracked_max);
        self.shrink(now, decisions);
        if let Some(allow) = allow {
            self.sweep_from = (!allow.is_empty()).then_some(0);
            self.sweep(allow, SWEPT_AT_ONCE_MAX, now, decisions);
        }
    }

    /// Forgets the quietest offenders where there are more than may be.
    fn shrink(&mut self, now: Time, decisions: &mut Vec<Decision>) {
        let surplus = self.offenders.len().saturating_sub(self.offenders.max());
        for _ in 0..surplus.min(ENDED_PER_STEP_MAX) {
            let Some((client, offender)) = self.offenders.pop_oldest() else { break };
            self.forget_offender(client, offender, now, decisions);
        }
    }

    /// Goes on comparing offenders with a new allowlist, at most `places_max`. Those that come meanwhile to a place that
    /// was looked at are not in it.
    fn sweep(&mut self, allow: &NetworkTable<()>, places_max: usize, now: Time, decisions: &mut Vec<Decision>) {
        let Some(from) = self.sweep_from else { return };
        let places = self.offenders.places();
        let mut lifted = 0;
        let mut place = from;
        while place < places.min(from + places_max) && lifted < ENDED_PER_STEP_MAX {
            if let Some((client, offender)) = self.offenders.at(place)
                && offender.state == State::InForce
                && allow.covers(client)
            {
                lifted += 1;
                self.lift(client, Lift::Allowed, now, decisions);
            }
            place += 1;
        }
        self.sweep_from = (place < places).then_some(place);
    }

    /// Ends the ban of exactly this client, if there is one.
    pub fn lift(&mut self, client: Network, why: Lift, now: Time, decisions: &mut Vec<Decision>) -> bool {
        self.windows.forget(client);
        match self.offenders.get_mut(client) {
            Some(offender) if offender.state == State::InForce => {
                self.bans.end((client, offender), (why, Origin::Decided), now, decisions);
                true
            }
            _ => false,
        }
    }

    /// Shows the bans in force to a survey, from a place on, at most `places_max` places. Where to go on; `None` at the end.
    pub fn survey(&self, survey: &mut Survey, from: usize, places_max: usize, now: Time) -> Option<usize> {
        let places = self.offenders.places();
        let to = places.min(from.saturating_add(places_max));
        for (client, offender) in (from..to).filter_map(|place| self.offenders.at(place)) {
            if offender.banned_until(now).is_some() {
                survey.look(&offender.listed(client));
            }
        }
        (to < places).then_some(to)
    }

    /// Ends the bans inside of a network, or all, from a place on, in at most `places_max` places. Where to go on; `None` at
    /// the end.
    pub fn lift_within(
        &mut self,
        within: Option<Network>,
        (from, places_max): (usize, usize),
        now: Time,
        decisions: &mut Vec<Decision>,
    ) -> Option<usize> {
        let places = self.offenders.places();
        let to = places.min(from.saturating_add(places_max));
        for place in from..to {
            if let Some((client, offender)) = self.offenders.at(place)
                && offender.banned_until(now).is_some()
                && within.is_none_or(|within| within.covers(client))
            {
                self.lift(client, Lift::Unbanned, now, decisions);
            }
        }
        (to < places).then_some(to)
    }

    /// What is known of exactly this client.
    pub fn known(&self, client: Network, now: Time, rules: &BanRules) -> Known {
        let offender = self.offenders.get(client);
        Known {
            failures: self.windows.count(client, now, rules.window),
            offences: offender.map_or(0, |offender| offender.offences(now, rules)),
            last_offence: offender.map(|offender| offender.last),
            ban: offender
                .filter(|offender| offender.banned_until(now).is_some())
                .map(|offender| offender.listed(client)),
        }
    }

    /// The bans in force as decisions: what a replica that fell behind needs to hold of this owner.
    pub fn snapshot(&self, now: Time) -> Vec<Decision> {
        let in_force = self.offenders.iter().filter(|(_, offender)| offender.banned_until(now).is_some());
        in_force.map(|(client, offender)| offender.told(client)).collect()
    }

    /// What was decided here at `since` or later, oldest ban first, for whoever missed the decisions when they were made: of
    /// each offender the latest ban, also if it is over, and its end if it was lifted; and the end alone if the ban is
    /// older or was learned, but was lifted here. A lift is told under its ban's serial, and its time is up to 1,024 ms
    /// early. What was overtaken by something newer about the same client is not told, nor are offenders that were
    /// forgotten.
    ///
    /// Looks through all offenders, in the order in which they lie in memory: lifts do not change their order of touching.
    pub fn since(&self, since: Time) -> Vec<Decision> {
        let mut told = Vec::new();
        for (client, offender) in (0..self.offenders.places()).filter_map(|place| self.offenders.at(place)) {
            let tells_ban = offender.origin == Origin::Decided && offender.last >= since;
            if tells_ban {
                told.push(offender.told(client));
            }
            if let State::Lifted(why, origin) = offender.state
                // A ban is not told without its end, wherever that was decided: it would be taken for one in force.
                && (tells_ban || (origin == Origin::Decided && offender.lifted_at >= coarse(since)))
            {
                told.push(offender.told_lift(client, why));
            }
        }
        // Keeps a ban before its lift.
        told.sort_by_key(|decision| decision.serial);
        told
    }

    /// An offender had to go for want of room; its ban cannot outlive what is known of it.
    fn forget_offender(&mut self, client: Network, mut offender: Offender, now: Time, decisions: &mut Vec<Decision>) {
        self.offenders_evicted += 1;
        if offender.state == State::InForce {
            self.bans.end((client, &mut offender), (Lift::Evicted, Origin::Decided), now, decisions);
        }
    }

    /// Drops stale ends when they outnumber the real ones.
    fn compact(&mut self) {
        if self.bans.ends.len() > 2 * self.bans.count + 1024 {
            let offenders = &self.offenders;
            self.bans.ends.retain(|Reverse((_, serial, client))| {
                let in_force = offenders.get(*client).filter(|offender| offender.state == State::InForce);
                in_force.is_some_and(|offender| offender.serial == *serial)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::escalation::rules;
    use super::super::logins::Login;
    use super::super::table::hash_key;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn failure(n: u8, count: u32) -> Failure {
        Failure {
            client: Network::parse(&format!("203.0.113.{n}")).unwrap(),
            count,
            pattern: PatternId::new(u32::from(n)).unwrap(),
            severity: Severity::new(3).unwrap(),
            login: None,
        }
    }

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    /// An empty allowlist.
    fn nobody() -> NetworkTable<()> {
        NetworkTable::new(hash_key(2))
    }

    /// Two witnesses tell of each failure of a session, the second after the ban.
    #[test]
    fn what_is_told_of_a_banned_client_is_known_after_a_short_ban_and_forgotten_after_a_long_one() {
        let told =
            |witness, count| Failure { login: Some(Login { refused_by: 1, session: 7, witness }), ..failure(1, count) };
        for (initial, then) in [(300, Outcome::Known), (3600, Outcome::Counted)] {
            let rules = BanRules { initial: Duration::from_secs(initial), ..rules() };
            let mut owner = Owner::new(0, 10, hash_key(1));
            let mut said = Vec::new();
            assert_eq!(owner.fail(&failure(1, 5), at(0), &rules, &mut said), Outcome::Banned);
            assert_eq!(owner.fail(&told(1, 2), at(1), &rules, &mut said), Outcome::AlreadyBanned);
            assert_eq!(owner.logins.count(), usize::from(then == Outcome::Known));
            owner.tick(at(initial), &rules, &nobody(), &mut said);
            assert_eq!(owner.fail(&told(2, 2), at(initial), &rules, &mut said), then);
        }
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

        owner.tick(at(6), &rules, &nobody(), &mut said);
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
        owner.tick(at(300), &rules, &nobody(), &mut said);
        let later = at(0).plus(rules.memory);
        owner.fail(&failure(1, 5), later, &rules, &mut said);
        let Some(Decision { act: Act::Ban(ban), .. }) = said.last() else { panic!("{said:?}") };
        assert_eq!(ban.offences, 1);
        owner.tick(later.plus(rules.memory), &rules, &nobody(), &mut said);
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
        owner.adopt(&rules, Some(&allow), at(1), &mut said);
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
        owner.adopt(&rules, None, at(10), &mut said);
        assert_eq!((owner.banned(), owner.remembered(), said.len()), (4, 4, 6));
    }

    #[test]
    fn an_offender_is_small() {
        assert_eq!(size_of::<Offender>(), 48);
        assert_eq!(coarse(Time::MAX), u32::MAX);
    }

    /// An owner that has banned that many clients, the first 10.0.0.0, a millisecond after the other.
    fn owner_of(bans: u32, rules: &BanRules) -> Owner {
        let mut owner = Owner::new(0, bans as usize, hash_key(1));
        let mut said = Vec::new();
        for n in 0..bans {
            let client = Network::host(std::net::Ipv4Addr::from_bits(0x0a00_0000 | n).into());
            owner.fail(&Failure { client, ..failure(1, 5) }, Time::from_millis(n.into()), rules, &mut said);
        }
        owner
    }

    #[test]
    fn a_new_allowlist_is_gone_through_step_by_step() {
        let rules = BanRules { tracked_max: 100_000, ..rules() };
        let mut owner = owner_of(100_000, &rules);
        let mut allow = nobody();
        // Every second one.
        for n in 0..50_000 {
            allow.insert(Network::host(std::net::Ipv4Addr::from_bits(0x0a00_0000 | (n * 2)).into()), ());
        }
        let mut said = Vec::new();
        owner.adopt(&rules, Some(&allow), at(200), &mut said);
        assert_eq!(said.len(), SWEPT_AT_ONCE_MAX / 2);
        // Others come and go meanwhile, and the rules change once more.
        owner.lift(Network::parse("10.0.0.1").unwrap(), Lift::Unbanned, at(200), &mut said);
        owner.fail(&failure(1, 5), at(200), &rules, &mut said);
        owner.adopt(&rules, None, at(200), &mut said);
        let mut ticks = 0;
        while owner.sweep_from.is_some() {
            let before = said.len();
            owner.tick(at(201), &rules, &allow, &mut said);
            assert!(said.len() - before <= ENDED_PER_STEP_MAX);
            ticks += 1;
        }
        assert!((92_000 / SWEPT_PER_TICK_MAX..=92_000 / ENDED_PER_STEP_MAX).contains(&ticks), "{ticks}");
        assert_eq!(owner.banned(), 50_000);
        assert!(owner.snapshot(at(201)).iter().all(|decision| !allow.covers(decision.client)));

        // An empty one covers nobody, and is not gone through.
        owner.adopt(&rules, Some(&allow), at(201), &mut said);
        owner.adopt(&rules, Some(&nobody()), at(201), &mut said);
        assert_eq!(owner.sweep_from, None);
    }

    #[test]
    fn a_much_smaller_bound_is_reached_step_by_step() {
        let mut rules = BanRules { tracked_max: 20_000, ..rules() };
        let mut owner = owner_of(20_000, &rules);
        let mut said = Vec::new();
        for n in 0..10_000 {
            let client = Network::host(std::net::Ipv4Addr::from_bits(n).into());
            owner.fail(&Failure { client, ..failure(1, 1) }, at(20), &rules, &mut said);
        }
        rules.tracked_max = 100;
        owner.adopt(&rules, None, at(20), &mut said);
        assert_eq!((said.len(), owner.remembered()), (ENDED_PER_STEP_MAX, 20_000 - ENDED_PER_STEP_MAX));
        for _ in 0..4 {
            owner.tick(at(20), &rules, &nobody(), &mut said);
        }
        assert_eq!((owner.banned(), owner.remembered(), owner.counting()), (100, 100, 100));
    }

    #[test]
    fn what_was_decided_since_a_time_is_told_again_in_order() {
        let rules = rules();
        let mut owner = Owner::new(0, 10, hash_key(1));
        let mut said = Vec::new();
        for n in 1..=4 {
            owner.fail(&failure(n, 5), at(u64::from(n) * 10), &rules, &mut said);
        }
        let bans: Vec<Decision> = said.clone();
        // One is lifted, one runs out, one is touched once more by what is learned, and others are only learned.
        owner.lift(failure(3, 1).client, Lift::Unbanned, at(41), &mut said);
        owner.tick(at(20 + 300), &rules, &nobody(), &mut said);
        let Act::Ban(ban) = bans[0].act else { panic!("{bans:?}") };
        let history = |n: u8, offences, seconds| Learned {
            client: failure(n, 1).client,
            at: at(seconds),
            ban: Ban { offences, until: at(seconds + 1), ..ban },
            lifted: None,
        };
        owner.learn(&history(2, 7, 5), at(321), &rules, &nobody(), &mut said);
        owner.learn(&history(9, 1, 320), at(321), &rules, &nobody(), &mut said);

        let told = owner.since(at(20));
        let serials: Vec<u64> = told.iter().map(|decision| decision.serial).collect();
        assert_eq!(serials, [bans[1].serial, bans[2].serial, bans[2].serial, bans[3].serial]);
        assert!(matches!(told[0].act, Act::Ban(ban) if ban.offences == 7 && ban.until == at(320)));
        assert!(matches!(told[2].act, Act::Lift(Lift::Unbanned, _)));
        assert!(told[2].at <= at(41) && told[2].at > at(39));
        assert_eq!((told[1], told[3]), (bans[2], bans[3]));
        // The ban is older, its lift is not.
        assert_eq!(owner.since(at(41)), [told[2]]);
        assert_eq!(owner.since(at(43)), []);
        assert_eq!(owner.since(at(0)).len(), 5);
    }

    #[test]
    fn lifts_that_were_decided_here_are_told_again_whoever_decided_the_ban() {
        let rules = rules();
        let mut owner = Owner::new(0, 10, hash_key(1));
        let Failure { client, pattern, severity, .. } = failure(1, 1);
        let ban = Ban { until: at(3600), offences: 1, failures: 5, pattern, severity };
        let learned = Learned { client, at: at(5), ban, lifted: None };
        let learn = |owner: &mut Owner, learned: Learned, seconds| {
            owner.learn(&learned, at(seconds), &rules, &nobody(), &mut Vec::new());
        };
        // Learned and lifted here: the lift alone, and what is heard later about the same ban does not make it newer.
        learn(&mut owner, learned, 10);
        owner.lift(client, Lift::Allowed, at(1000), &mut Vec::new());
        learn(&mut owner, Learned { lifted: Some((at(1000), Lift::Allowed)), ..learned }, 2000);
        let told = owner.since(at(1000));
        let [Decision { at: lifted_at, act, origin: Origin::Decided, .. }] = told[..] else { panic!("{told:?}") };
        assert_eq!(act, Act::Lift(Lift::Allowed, ban));
        assert!(lifted_at <= at(1000) && lifted_at > at(998), "{lifted_at:?}");
        assert_eq!(owner.since(at(5)), told);
        assert_eq!(owner.since(at(1002)), []);

        // Decided here and lifted elsewhere: the lift is known where it is stored, but the ban is never told without it.
        owner.fail(&failure(2, 5), at(2000), &rules, &mut Vec::new());
        let elsewhere =
            Learned { client: failure(2, 1).client, at: at(1900), lifted: Some((at(2010), Lift::Unbanned)), ban };
        learn(&mut owner, elsewhere, 2020);
        assert!(matches!(
            owner.since(at(2000))[..],
            [Decision { act: Act::Ban(_), .. }, Decision { act: Act::Lift(Lift::Unbanned, _), .. }]
        ));
        assert_eq!(owner.since(at(2005)), []);

        // In the millisecond of its ban, the unit began before it.
        owner.fail(&failure(3, 5), at(3000), &rules, &mut Vec::new());
        owner.lift(failure(3, 1).client, Lift::Unbanned, at(3000), &mut Vec::new());
        assert!(owner.since(at(3000)).iter().all(|decision| decision.at == at(3000)));
        assert_eq!(owner.since(at(3000)).len(), 2);

        // Neither that one ran out, nor that there was no room for it.
        owner.fail(&failure(4, 5), at(3000), &rules, &mut Vec::new());
        owner.tick(at(4000), &rules, &nobody(), &mut Vec::new());
        assert_eq!(owner.since(at(3002)), []);
    }

    #[test]
    fn what_is_learned_counts_unless_it_is_allowed_or_forgotten() {
        let rules = rules();
        let start = Time::START;
        let mut owner = Owner::new(0, 10, hash_key(1));
        let mut said = Vec::new();
        let mut learn = |n: u8, ago: Duration, lasts: Duration, offences: u32| {
            let Failure { client, pattern, severity, .. } = failure(n, 1);
            let at = start.minus(ago);
            let ban = Ban { until: at.plus(lasts), offences, failures: 5, pattern, severity };
            let mut allow = nobody();
            allow.insert(failure(7, 1).client, ());
            owner.learn(&Learned { client, at, ban, lifted: None }, start, &rules, &allow, &mut said);
        };
        let hour = Duration::from_secs(3600);
        learn(1, hour, hour, 3); // It ran out this moment.
        learn(2, hour, 2 * hour, 3);
        learn(3, rules.memory, hour, 3);
        learn(4, rules.memory, 2 * rules.memory, 3); // Forgotten, but still banned.
        learn(7, hour, 2 * hour, 3);
        let banned = |said: &[Decision]| -> Vec<String> {
            let learned = said.iter().all(|decision| decision.origin == Origin::Learned);
            assert!(learned && said.iter().all(|decision| matches!(decision.act, Act::Ban(_))));
            said.iter().map(|decision| decision.client.to_string()).collect()
        };
        assert_eq!(banned(&said), ["203.0.113.2", "203.0.113.4"]);
        assert_eq!((owner.banned(), owner.remembered()), (2, 3));
        assert_eq!(owner.fail(&failure(2, 5), start, &rules, &mut said), Outcome::AlreadyBanned);
        said.clear();
        for (n, offences) in [(1, 4), (3, 1)] {
            owner.fail(&failure(n, 5), start, &rules, &mut said);
            let Some(Decision { act: Act::Ban(ban), origin, .. }) = said.pop() else { panic!("{said:?}") };
            assert_eq!((ban.offences, origin), (offences, Origin::Decided));
        }
    }

    #[test]
    fn a_lift_that_is_heard_after_the_next_offence_does_not_end_the_newer_ban() {
        let rules = rules();
        let Failure { client, pattern, severity, .. } = failure(1, 1);
        let hour = Ban { until: at(3600), offences: 1, failures: 5, pattern, severity };
        let lifted = |seconds| Learned { client, at: at(0), ban: hour, lifted: Some((at(seconds), Lift::Unbanned)) };
        let learn = |owner: &mut Owner, learned: &Learned, seconds| {
            let mut said = Vec::new();
            owner.learn(learned, at(seconds), &rules, &nobody(), &mut said);
            said
        };
        // This node has not heard of the ban of an hour when the client offends again.
        let mut owner = Owner::new(0, 10, hash_key(1));
        let mut said = Vec::new();
        owner.fail(&failure(1, 5), at(700), &rules, &mut said);
        let before = owner.snapshot(at(701));
        assert!(matches!(said[..], [Decision { act: Act::Ban(ban), .. }] if ban.until == at(1000)));

        for seconds in [600, 699] {
            assert_eq!(learn(&mut owner, &lifted(seconds), 701), []);
            assert_eq!(owner.snapshot(at(701)), before);
        }
        // Lifted before it began, by a clock that is wrong.
        let odd = Learned { at: at(650), ..lifted(1) };
        assert_eq!(learn(&mut owner, &odd, 701), []);
        assert_eq!(owner.snapshot(at(701)), before);

        // At the same time or later it is meant for whatever ban there is.
        let said = learn(&mut owner, &lifted(700), 702);
        assert!(matches!(said[..], [Decision { act: Act::Lift(Lift::Unbanned, _), origin: Origin::Learned, .. }]));
        assert!(!owner.has_banned(client, at(702)));

        // A ban that was learned ends by its own lift, however that was written down.
        let mut owner = Owner::new(0, 10, hash_key(1));
        assert_eq!(learn(&mut owner, &Learned { at: at(5), lifted: None, ..lifted(1) }, 10).len(), 1);
        assert_eq!(learn(&mut owner, &Learned { at: at(5), ..lifted(1) }, 11).len(), 1);
        assert_eq!(owner.banned(), 0);
    }

    #[test]
    fn an_operators_ban_is_an_offence_and_ends_no_longer_one() {
        let rules = rules();
        let mut owner = Owner::new(0, 10, hash_key(1));
        let mut said = Vec::new();
        let (client, manual) = (failure(1, 1).client, (PatternId::new(9).unwrap(), Severity::new(6).unwrap()));
        let hours = |n: u64| Some(Duration::from_secs(n * 3600));
        owner.fail(&failure(1, 4), at(0), &rules, &mut said);
        assert_eq!(owner.known(client, at(1), &rules).failures, 4);
        assert!(owner.impose(client, manual, hours(2), at(1), &rules, &mut said));
        let known = owner.known(client, at(1), &rules);
        assert_eq!((known.failures, known.offences, known.last_offence), (0, 1, Some(at(1))));
        assert_eq!(known.ban.map(|listed| (listed.ban.until, listed.learned)), Some((at(7201), false)));
        // A shorter one changes nothing, a longer one takes its place.
        assert!(!owner.impose(client, manual, hours(1), at(2), &rules, &mut said));
        assert!(!owner.impose(client, manual, None, at(2), &rules, &mut said));
        assert!(owner.impose(client, manual, hours(3), at(2), &rules, &mut said));
        assert_eq!((owner.banned(), owner.known(client, at(2), &rules).offences, said.len()), (1, 2, 2));
        // Without a length it is the next step of the escalation.
        assert!(owner.lift(client, Lift::Unbanned, at(3), &mut said));
        assert!(owner.impose(client, manual, None, at(3), &rules, &mut said));
        let Some(Decision { act: Act::Ban(ban), origin: Origin::Decided, .. }) = said.last() else {
            panic!("{said:?}")
        };
        assert_eq!((ban.until, ban.offences), (at(3).plus(rules.duration(3)), 3));
    }

    #[test]
    fn a_ban_longer_than_the_memory_keeps_nobody_remembered_and_keeps_its_place() {
        let rules = BanRules { tracked_max: 4, ..rules() };
        let mut owner = Owner::new(0, 4, hash_key(1));
        let (mut said, nobody) = (Vec::new(), NetworkTable::new(hash_key(2)));
        let (long, manual) = (failure(200, 1).client, (PatternId::new(9).unwrap(), Severity::new(6).unwrap()));
        let years = Duration::from_secs(10 * 365 * 86_400);
        assert!(owner.impose(long, manual, Some(years), at(0), &rules, &mut said));
        let memory = rules.memory.as_secs();
        // Others come and go, more of them than there is room for, each after the one before is forgotten.
        for n in 1..=20 {
            let now = at(u64::from(n) * 2 * memory);
            let client = failure(n, 1).client;
            assert!(owner.impose(client, manual, Some(Duration::from_secs(1)), now, &rules, &mut said));
            let later = now.plus(rules.memory).plus(Duration::from_secs(1));
            owner.tick(now.plus(Duration::from_secs(2)), &rules, &nobody, &mut said);
            owner.tick(later, &rules, &nobody, &mut said);
            assert_eq!((owner.remembered(), owner.banned()), (1, 1), "{n}");
        }
        assert!(owner.known(long, at(3), &rules).ban.is_some());
        // Nor is it the first to go when there is no room.
        let now = at(50 * memory);
        for n in 1..=3 {
            assert!(owner.impose(failure(n, 1).client, manual, Some(years), now, &rules, &mut said));
        }
        assert_eq!((owner.remembered(), owner.banned()), (4, 4));
    }

    #[test]
    fn bans_are_surveyed_and_lifted_in_steps() {
        let rules = BanRules { tracked_max: 10_000, ..rules() };
        let mut owner = owner_of(5_000, &rules);
        let mut said = Vec::new();
        let within = Network::parse("10.0.0.0/20").unwrap();
        let count = |owner: &Owner, within: Option<Network>| {
            let mut survey = Survey::new(crate::engine::survey::Question { within, ..Default::default() });
            let mut from = Some(0);
            let mut steps = 0;
            while let Some(at) = from {
                from = owner.survey(&mut survey, at, 1_000, Time::from_millis(5_000));
                steps += 1;
            }
            assert_eq!(steps, 5);
            survey.finish().total
        };
        assert_eq!((count(&owner, None), count(&owner, Some(within))), (5_000, 4_096));
        let mut from = Some(0);
        while let Some(at) = from {
            from = owner.lift_within(Some(within), (at, 1_000), Time::from_millis(5_000), &mut said);
        }
        assert_eq!((said.len(), count(&owner, None), count(&owner, Some(within))), (4_096, 904, 0));
    }

    #[test]
    fn what_is_too_much_for_one_tick_is_forgotten_by_the_next_ones() {
        let rules = BanRules { cleanup: Duration::from_secs(60), ..rules() };
        let mut owner = Owner::new(0, 200_000, hash_key(1));
        let mut said = Vec::new();
        owner.tick(at(0), &rules, &nobody(), &mut said);
        for n in 0..100_000u32 {
            let client = Network::host(std::net::Ipv4Addr::from_bits(n).into());
            owner.fail(&Failure { client, ..failure(1, 1) }, at(1), &rules, &mut said);
        }
        for tick in 0..5 {
            owner.tick(Time::from_millis(700_000 + tick * 250), &rules, &nobody(), &mut said);
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
        assert!(owner.bans.ends.len() <= 2048, "{}", owner.bans.ends.len());
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
                    owner.tick(time, &rules, &nobody(), &mut said);
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
    /// One step of the test below.
    #[derive(Clone, Debug)]
    enum Step {
        Fail {
            count: u32,
        },
        /// `lifted`: how long after it was decided.
        Learn {
            ago: u64,
            lasts: u64,
            offences: u32,
            lifted: Option<u64>,
        },
        Lift,
        Tick,
    }

    fn step() -> impl Strategy<Value = Step> {
        let learn = (0..1500u64, 0..3000u64, 1..6u32, prop::option::weighted(0.4, 0..1500u64));
        prop_oneof![
            4 => (1..4u32).prop_map(|count| Step::Fail { count }),
            4 => learn.prop_map(|(ago, lasts, offences, lifted)| Step::Learn { ago, lasts, offences, lifted }),
            1 => Just(Step::Lift),
            2 => Just(Step::Tick),
        ]
    }

    /// What the model knows of a client: plain facts, nothing in force or swept.
    #[derive(Clone, Debug, Default)]
    struct Known {
        failures: Vec<(u64, u32)>,
        offences: u32,
        last: u64,
        banned_until: u64,
        /// When the latest ban ends, and whether it was decided here.
        latest: (u64, bool),
        /// When that was lifted, and whether that was decided here.
        lifted: Option<(u64, bool)>,
    }

    proptest! {
        /// Against a model that knows no tables, no sweeping and no order: what is in force, how often a client offended,
        /// and what has to be told again.
        #[test]
        fn failing_and_learning_come_to_what_a_model_says(
            steps in prop::collection::vec((0..3u8, step(), 0..400u64), 0..200),
        ) {
            let rules = BanRules {
                initial: Duration::from_millis(50), max: Duration::from_millis(4000), factor: 3.0, threshold: 3,
                window: Duration::from_millis(100), memory: Duration::from_millis(1000), ..rules()
            };
            let start = 10_000;
            let mut owner = Owner::new(0, 100, hash_key(8));
            let mut known: BTreeMap<u8, Known> = BTreeMap::new();
            let mut in_force: BTreeMap<Network, (Time, u32)> = BTreeMap::new(); // as the decisions say
            let mut now = start;
            for (who, step, later) in steps {
                now += later;
                let time = Time::from_millis(now);
                let mut said = Vec::new();
                let model = known.entry(who).or_default();
                let remembered = if model.last + 1000 > now { model.offences } else { 0 };
                match step {
                    Step::Fail { count } => {
                        let got = owner.fail(&failure(who, count), time, &rules, &mut said);
                        if model.banned_until > now {
                            prop_assert_eq!(got, Outcome::AlreadyBanned);
                        } else {
                            model.failures.push((now, count));
                            let young = model.failures.iter().filter(|(at, _)| now - at < 100);
                            let reached = young.map(|(_, count)| count).sum::<u32>() >= 3;
                            prop_assert_eq!(got, if reached { Outcome::Banned } else { Outcome::Counted });
                            if reached {
                                let until = now + (50 * 3u64.pow(remembered.min(6))).min(4000);
                                let offences = remembered + 1;
                                *model = Known {
                                    offences,
                                    last: now,
                                    banned_until: until,
                                    latest: (until, true),
                                    ..Known::default()
                                };
                            }
                        }
                    }
                    Step::Learn { ago, lasts, offences, lifted } => {
                        let (at, until) = (now - ago, now - ago + lasts);
                        let Failure { client, pattern, severity, .. } = failure(who, 1);
                        let ban = Ban { until: Time::from_millis(until), offences, failures: 3, pattern, severity };
                        // Nobody hears of what is still to come.
                        let lifted = lifted.map(|after| (at + after).min(now));
                        let learned = Learned {
                            client,
                            at: Time::from_millis(at),
                            ban,
                            lifted: lifted.map(|at| (Time::from_millis(at), Lift::Unbanned)),
                        };
                        owner.learn(&learned, time, &rules, &nobody(), &mut said);
                        let forgotten = ago >= 1000;
                        let is_banned = model.banned_until > now;
                        let ends = lifted.is_some_and(|lifted| lifted >= model.last)
                            && is_banned && model.banned_until <= until + 1000;
                        let begins = lifted.is_none() && until > now
                            && !(is_banned && model.banned_until + 1000 >= until);
                        if ends || begins || !forgotten {
                            if begins {
                                model.banned_until = until;
                                (model.latest, model.lifted) = ((until, false), None);
                                model.failures.clear();
                            } else if ends {
                                model.banned_until = 0;
                                model.lifted = Some((now, false));
                                model.failures.clear();
                            } else if !is_banned && at > model.last {
                                (model.latest, model.lifted) = ((until, false), None);
                            }
                            let learned = if forgotten && !begins { 0 } else { offences };
                            model.offences = match forgotten && !begins { true => model.offences, false => remembered.max(learned) };
                            model.last = model.last.max(at);
                        }
                    }
                    Step::Lift => {
                        let was = owner.lift(failure(who, 1).client, Lift::Allowed, time, &mut said);
                        // One that ran out may be lifted too, if nobody has said so yet.
                        prop_assert!(was || model.banned_until <= now);
                        if was {
                            model.lifted = Some((now, true));
                        }
                        model.banned_until = 0;
                        model.failures.clear();
                    }
                    Step::Tick => owner.tick(time, &rules, &nobody(), &mut said),
                }
                let mut last_serial = 0;
                for decision in &said {
                    prop_assert!(decision.serial > last_serial);
                    last_serial = decision.serial;
                    match decision.act {
                        Act::Ban(ban) => {
                            let before = in_force.insert(decision.client, (ban.until, ban.pattern.number()));
                            let replaces = before.is_some_and(|(until, _)| until > time);
                            prop_assert!(before.is_none() || replaces && decision.origin == Origin::Learned);
                        }
                        Act::Lift(why, _) => {
                            let (until, _) = in_force.remove(&decision.client).expect("a ban that ends was in force");
                            prop_assert!(why != Lift::Expired || until <= time);
                        }
                    }
                }
                prop_assert_eq!(owner.banned(), in_force.len());
                let mut by_pattern = ByPattern::default();
                in_force.values().for_each(|(_, pattern)| by_pattern.add(PatternId::new(*pattern).unwrap()));
                for (at, count) in owner.banned_by().counts().iter().enumerate() {
                    prop_assert_eq!(*count, by_pattern.counts().get(at).copied().unwrap_or(0));
                }
                for (who, model) in &known {
                    let client = failure(*who, 1).client;
                    let until = in_force.get(&client).map(|(until, _)| *until).filter(|until| *until > time);
                    prop_assert_eq!(until.map_or(0, Time::millis), if model.banned_until > now { model.banned_until } else { 0 });
                    prop_assert_eq!(owner.has_banned(client, time), until.is_some());
                }
                // Those whose last offence is too old may be forgotten, or not yet.
                let fresh: Vec<(Network, &Known)> = known.iter().filter(|(_, model)| model.last + 1000 > now)
                    .map(|(who, model)| (failure(*who, 1).client, model)).collect();
                for since in [now, now - 300, now - 999, now - 3000] {
                    let mut want = Vec::new();
                    for (client, Known { latest: (until, decided), last, lifted, .. }) in &fresh {
                        let tells_ban = *decided && *last >= since;
                        want.extend(tells_ban.then_some((*client, *until, false, *last)));
                        if let Some((when, here)) = lifted && (tells_ban || *here && when >> 10 >= since >> 10) {
                            want.push((*client, *until, true, (when >> 10 << 10).max(*last)));
                        }
                    }
                    let told = owner.since(Time::from_millis(since));
                    prop_assert!(told.is_sorted_by_key(|decision| decision.serial));
                    prop_assert!(told.iter().all(|decision| decision.origin == Origin::Decided));
                    let told = told.iter().filter(|decision| fresh.iter().any(|(client, _)| *client == decision.client));
                    let mut got: Vec<_> = told.map(|decision| match decision.act {
                        Act::Ban(ban) => (decision.client, ban.until.millis(), false, decision.at.millis()),
                        Act::Lift(_, ban) => (decision.client, ban.until.millis(), true, decision.at.millis()),
                    }).collect();
                    // By client, and each one's ban before its lift as they were told.
                    got.sort_by_key(|(client, ..)| *client);
                    prop_assert_eq!(got, want);
                }
            }
        }
    }
}

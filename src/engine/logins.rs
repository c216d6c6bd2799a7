//! One failed login is one failure, however many programs tell of it.
//!
//! Dovecot's auth process tells of each refused password when it refuses it, and its login process of all of them when
//! the connection ends. Postfix tells what Dovecot refused to it, and Dovecot tells it too. Each of a chain of password
//! databases tells of it. Which of these lines there are is a matter of settings, and in which order they arrive a
//! matter of luck.
//!
//! So for each login there is an account: who told how many failures of it. They count as often as whoever told of the
//! most, which needs no order: a line adds to what counts only as far as it makes the most greater. Lines are of one
//! login if they have the session in common that the daemon wrote in them; those without a session have the client in
//! common. What one witness tells adds up; a proxy is another one than the server behind it, where a pattern says so.
//!
//! An account is closed when nothing was told of it for a while, and the quietest ones are when there are too many: then
//! a line that comes later counts anew, which is what it would without any of this. One without a session never ends by
//! itself, so what was told of it is forgotten after one to two periods: else whoever told more once, because the
//! other's lines were lost, would have paid for all that the other tells later.

use super::address::Network;
use super::recency::Recency;
use super::table::{HashKey, hash_key};
use super::time::Time;
use std::hash::{BuildHasher as _, Hash};
use std::time::Duration;

/// Accounts are kept for at least this long after the last line, which is a period: a connection tells of its failures
/// at its end, and login processes give a client minutes.
const KEPT_MIN: Duration = Duration::from_secs(600);

/// How long an account is kept after the last line.
pub(super) fn kept(window: Duration) -> Duration {
    window.max(KEPT_MIN)
}

/// Witnesses of one login that are told apart; the last place is for all others. sshd and PAM have five words for one
/// refused password.
const WITNESSES: usize = 6;

/// Which login a line tells of. Hashes of what patterns and lines say: two logins of one client whose hashes agree by
/// chance are taken for one, and clients cannot reach each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who refused it, as the pattern says.
    pub refused_by: u32,
    /// The session in the line; 0 if there is none.
    pub session: u32,
    /// The module that tells; 0 where the pattern captures none.
    pub witness: u32,
}

/// A short hash, the same on every shard. Never 0.
pub(super) fn short_hash(what: impl Hash) -> u32 {
    let hash = hash_key(0).hash_one(what);
    ((hash ^ (hash >> 32)) as u32).max(1)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: Network,
    refused_by: u32,
    session: u32,
}

/// What one witness told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    witness: u32,
    /// In this period, and in the one before.
    now: u32,
    before: u32,
}

impl Told {
    fn failures(&self) -> u32 {
        self.now.saturating_add(self.before)
    }
}

/// What was told of one login.
#[derive(Clone, Copy, Debug)]
struct Account {
    told: [Told; WITNESSES],
    /// When this period began, and when something was told last.
    since: Time,
    last: Time,
}

impl Default for Account {
    fn default() -> Account {
        Account { told: [Told::default(); WITNESSES], since: Time::EARLIEST, last: Time::EARLIEST }
    }
}

impl Account {
    fn most(&self) -> u32 {
        self.told.iter().map(Told::failures).max().unwrap_or_default()
    }

    /// Begins a period.
    fn turn(&mut self, now: Time) {
        self.since = now;
        for told in &mut self.told {
            *told = Told { witness: told.witness, now: 0, before: told.now };
        }
    }

    /// Enters what a witness tells. Returns how many failures more that makes.
    fn tell(&mut self, witness: u32, failures: u32) -> u32 {
        let before = self.most();
        let known = self.told.iter().position(|told| told.witness == witness && told.failures() > 0);
        let free = || self.told.iter().position(|told| told.failures() == 0);
        let place = known.or_else(free).unwrap_or(WITNESSES - 1);
        if let Some(told) = self.told.get_mut(place) {
            told.witness = witness;
            told.now = told.now.saturating_add(failures);
        }
        self.most() - before
    }
}

/// The accounts of the clients of one owner.
#[derive(Debug)]
pub struct Logins(Recency<Account, Key>);

impl Logins {
    /// At most `max` accounts.
    pub fn new(max: usize, hash: HashKey) -> Logins {
        Logins(Recency::new(max, hash))
    }

    /// Changes how many there are at most. A smaller bound is reached by [`Logins::expire`].
    pub fn set_max(&mut self, max: usize) {
        self.0.set_max(max);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A line tells of `failures` of a login. Returns how many of them were not known. `now` never goes back.
    pub fn tell(&mut self, client: Network, login: &Login, failures: u32, now: Time, window: Duration) -> u32 {
        let Login { refused_by, session, witness } = *login;
        let account = self.0.touch(Key { client, refused_by, session }).value;
        let period = kept(window);
        if account.last.plus(period) <= now {
            *account = Account { since: now, ..Account::default() };
        }
        if session == 0 && account.since.plus(period) <= now {
            account.turn(now);
        }
        account.last = now;
        account.tell(witness, failures)
    }

    /// Closes accounts of which nothing was told for a while, and those that are too many, at most `most`. Whether
    /// that was all.
    pub fn expire(&mut self, now: Time, window: Duration, most: usize) -> bool {
        for _ in 0..most {
            match self.0.oldest() {
                Some((_, account)) if self.0.len() > self.0.max() || account.last.plus(kept(window)) <= now => {
                    self.0.pop_oldest();
                }
                _ => return true,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn client(n: u8) -> Network {
        Network::parse(&format!("192.0.2.{n}")).unwrap()
    }

    fn login(session: &str, witness: &str) -> Login {
        let hash = |text: &str| if text.is_empty() { 0 } else { short_hash(text.as_bytes()) };
        Login { refused_by: 1, session: hash(session), witness: hash(witness) }
    }

    fn at(seconds: u64) -> Time {
        Time::START.plus(Duration::from_secs(seconds))
    }

    /// What counts of lines that arrive in this order.
    fn counted(lines: &[(Login, u32)]) -> u32 {
        let mut logins = Logins::new(100, hash_key(1));
        lines.iter().map(|(login, failures)| logins.tell(client(1), login, *failures, at(1), WINDOW)).sum()
    }

    #[test]
    fn what_the_auth_process_told_is_not_counted_again_at_the_end_of_the_session() {
        let auth = login("s1", "passwd-file");
        let end = login("s1", "");
        assert_eq!(counted(&[(auth, 1), (auth, 1), (auth, 1), (end, 3)]), 3);
        assert_eq!(counted(&[(end, 3), (auth, 1), (auth, 1), (auth, 1)]), 3);
        assert_eq!(counted(&[(auth, 1), (end, 3)]), 3, "a line was lost");
        assert_eq!(counted(&[(login("s1", "proxy dest"), 3), (end, 3)]), 3, "a proxy and the server behind it");
        assert_eq!(counted(&[(end, 3), (end, 3)]), 6, "which no daemon writes, but people who try it out do");
        assert_eq!(counted(&[(end, 3), (login("s2", ""), 2)]), 5);
        // A chain of two databases, both of which refuse.
        let other = login("s1", "sql");
        assert_eq!(counted(&[(auth, 1), (other, 1), (auth, 1), (other, 1), (end, 2)]), 2);
    }

    #[test]
    fn without_a_session_the_client_is_what_they_have_in_common() {
        let (dovecot, postfix) = (login("", "passwd-file"), login("", ""));
        assert_eq!(counted(&[(dovecot, 1), (postfix, 1), (dovecot, 1), (postfix, 1)]), 2);
        assert_eq!(counted(&[(postfix, 1), (postfix, 1), (dovecot, 1), (dovecot, 1)]), 2);
        assert_eq!(counted(&[(postfix, 1), (postfix, 1)]), 2);
    }

    #[test]
    fn clients_do_not_reach_each_other_and_old_accounts_are_closed() {
        let mut logins = Logins::new(100, hash_key(1));
        let (auth, end) = (login("s1", "sql"), login("s1", ""));
        assert_eq!(logins.tell(client(1), &auth, 2, at(0), WINDOW), 2);
        assert_eq!(logins.tell(client(2), &end, 2, at(0), WINDOW), 2);
        assert_eq!(logins.tell(client(1), &end, 2, at(599), WINDOW), 0);
        assert!(logins.expire(at(700), WINDOW, 10));
        assert_eq!(logins.count(), 1, "that of client 2 is closed");
        assert_eq!(logins.tell(client(1), &end, 2, at(2000), WINDOW), 2);
        assert_eq!(logins.tell(client(1), &auth, 2, at(3000), Duration::from_secs(3600)), 0);
    }

    #[test]
    fn without_a_session_what_was_told_long_ago_pays_for_nothing() {
        let mut logins = Logins::new(100, hash_key(1));
        let (dovecot, postfix) = (login("", "passwd-file"), login("", ""));
        let mut tell = |login: &Login, seconds| logins.tell(client(1), login, 1, at(seconds), WINDOW);
        // Postfix's lines are lost for an hour, one each minute; Dovecot's count.
        assert!((0..60).all(|minute| tell(&dovecot, 60 * minute) == 1));
        // Then Dovecot's: Postfix's count again when those of an hour ago are forgotten, not after as many.
        let counted: u32 = (60..120).map(|minute| tell(&postfix, 60 * minute)).sum();
        assert!((40..60).contains(&counted), "{counted}");
        // When both tell, one counts, whenever a period begins.
        let counted: u32 = (120..180).map(|minute| tell(&dovecot, 60 * minute) + tell(&postfix, 60 * minute)).sum();
        assert!((40..=60).contains(&counted), "{counted}");
    }

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let mut logins = Logins::new(10, hash_key(1));
        for n in 0..100u32 {
            logins.tell(client(1), &login(&n.to_string(), ""), 1, at(0), WINDOW);
        }
        assert_eq!(logins.count(), 10);
        logins.set_max(4);
        assert!(!logins.expire(at(0), WINDOW, 2));
        assert!(logins.expire(at(0), WINDOW, 10));
        assert_eq!(logins.count(), 4);
    }

    proptest! {
        /// The order of the lines changes nothing, and what counts is no more than was told and no less than whoever told most.
        #[test]
        fn the_order_in_which_lines_arrive_changes_nothing(
            lines in prop::collection::vec((0..3usize, 0..4usize, 1..4u32), 1..12),
            swaps in prop::collection::vec((0..12usize, 0..12usize), 12),
        ) {
            let of = |&(session, witness, failures): &(usize, usize, u32)| {
                (login(["", "s1", "s2"][session], ["", "pam", "sql", "ldap"][witness]), failures)
            };
            let first: Vec<_> = lines.iter().map(of).collect();
            let mut second = first.clone();
            for (a, b) in swaps {
                let (a, b) = (a % second.len(), b % second.len());
                second.swap(a, b);
            }
            prop_assert_eq!(counted(&first), counted(&second));
            prop_assert!(counted(&first) <= first.iter().map(|(_, failures)| failures).sum());
            let most = first.iter().map(|(_, failures)| *failures).max().unwrap_or_default();
            prop_assert!(counted(&first) >= most);
        }
    }
}

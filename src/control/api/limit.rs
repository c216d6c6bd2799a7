//! How often one client may ask: a bucket of tokens for each, which fills by and by.

use crate::engine::address::{Address, Network};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// Clients that have a bucket of their own. Those beyond share one, so that nobody can make this grow.
const CLIENTS_MAX: usize = 10_000;

/// How often it is looked for buckets that are full again, which are as good as none.
const SWEEP: Duration = Duration::from_secs(1);

/// An IPv6 client is its network of this length: a subscriber has one, with more addresses than anybody can count.
const IPV6_LEN: u8 = 64;

/// The buckets of all clients.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    clients: HashMap<Network, Bucket>,
    /// Of all that have none of their own.
    others: Option<Bucket>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Fills it up to `now`, at `per_minute`, which is also what it holds.
    fn fill(&mut self, per_minute: u32, now: Instant) {
        let more = now.duration_since(self.at).as_secs_f64() * f64::from(per_minute) / 60.0;
        self.tokens = (self.tokens + more).min(f64::from(per_minute));
        self.at = now;
    }
}

impl Limiter {
    /// Takes a token of a client.
    ///
    /// # Errors
    ///
    /// In how long there will be one, if there is none.
    pub fn take(&mut self, client: Address, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let client = match client.is_ipv4() {
            true => Network::host(client),
            false => Network::new(client, IPV6_LEN).unwrap_or(Network::host(client)),
        };
        let full = Bucket { tokens: f64::from(per_minute), at: now };
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&client) {
            self.sweep(per_minute, now);
        }
        let has_room = self.clients.len() < CLIENTS_MAX || self.clients.contains_key(&client);
        let bucket = match has_room {
            true => self.clients.entry(client).or_insert(full),
            false => self.others.get_or_insert(full),
        };
        bucket.fill(per_minute, now);
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) * 60.0 / f64::from(per_minute.max(1))));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// How many clients asked lately.
    pub fn active(&mut self, per_minute: u32, now: Instant) -> usize {
        self.sweep(per_minute, now);
        self.clients.len()
    }

    fn sweep(&mut self, per_minute: u32, now: Instant) {
        if self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.clients.retain(|_, bucket| {
            bucket.fill(per_minute, now);
            bucket.tokens < f64::from(per_minute)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_client_may_ask_so_often_a_minute() {
        let mut limiter = Limiter::default();
        let one = address("192.0.2.1");
        let now = Instant::now();
        for _ in 0..6 {
            assert_eq!(limiter.take(one, 6, now), Ok(()));
        }
        let wait = limiter.take(one, 6, now).unwrap_err();
        assert!((9.9..=10.0).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(limiter.take(address("192.0.2.2"), 6, now).is_ok(), "another client");
        assert_eq!(limiter.take(one, 6, now + Duration::from_secs(11)), Ok(()));
        assert!(limiter.take(one, 6, now + Duration::from_secs(11)).is_err());
        assert_eq!(limiter.active(6, now + Duration::from_secs(11)), 1);
        assert_eq!(limiter.active(6, now + Duration::from_secs(1_000)), 0);
        // All of a subscriber's addresses are one client.
        let six = |n: u16| address(&format!("2001:db8::{n:x}"));
        assert_eq!((0..20).filter(|n| limiter.take(six(*n), 6, now).is_ok()).count(), 6);
    }

    #[test]
    fn clients_beyond_the_bound_share_what_is_left() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        let client = |n: u32| Address::from(std::net::Ipv4Addr::from_bits(n));
        for n in 0..20_000 {
            let _ = limiter.take(client(n), 5, now);
        }
        assert_eq!(limiter.clients.len(), CLIENTS_MAX);
        assert!(limiter.take(client(30_000), 5, now).is_err());
        assert!(limiter.take(client(1), 5, now).is_ok());
        // Who has a bucket does not lose it.
        let later = now + Duration::from_secs(60);
        assert!(limiter.take(client(30_000), 5, later).is_ok());
        assert!(limiter.clients.len() < 10);
    }
}

//! Whom lines and questions are about. All commands use the same addresses, so that what one has had banned, another can
//! ask about.

use std::net::Ipv4Addr;

/// RFC 2544's block for measurements of networks; where that ends, private addresses follow.
const OFFENDERS: (u32, u32) = (u32::from_be_bytes([198, 18, 0, 0]), 1 << 17);
const FURTHER_OFFENDERS: (u32, u32) = (u32::from_be_bytes([10, 0, 0, 0]), 1 << 24);

/// RFC 6598's block, which nobody is banned from.
const INNOCENTS: (u32, u32) = (u32::from_be_bytes([100, 64, 0, 0]), 1 << 22);

/// So many there are at most.
pub const OFFENDERS_MAX: u32 = OFFENDERS.1 + FURTHER_OFFENDERS.1;
pub const INNOCENTS_MAX: u32 = INNOCENTS.1;

/// A client that fails to log in, by its number.
pub fn offender(number: u32) -> Ipv4Addr {
    let number = number % OFFENDERS_MAX;
    let bits = match number.checked_sub(OFFENDERS.1) {
        None => OFFENDERS.0 + number,
        Some(further) => FURTHER_OFFENDERS.0 + further,
    };
    Ipv4Addr::from_bits(bits)
}

/// A client that never failed.
pub fn innocent(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(INNOCENTS.0 + number % INNOCENTS.1)
}

/// One to ask about, and what must be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: Ipv4Addr,
    pub is_banned: bool,
}

/// Clients drawn at random, the same ones for the same seed.
#[derive(Clone, Debug)]
pub struct Draw {
    random: fastrand::Rng,
    /// The share of offenders.
    denied: f64,
    offenders: u32,
    innocents: u32,
}

impl Draw {
    /// `denied` is from 0 to 1; the pools hold at least one client each.
    pub fn new(seed: u64, denied: f64, offenders: u32, innocents: u32) -> Draw {
        Draw {
            random: fastrand::Rng::with_seed(seed),
            denied,
            offenders: offenders.clamp(1, OFFENDERS_MAX),
            innocents: innocents.clamp(1, INNOCENTS_MAX),
        }
    }

    pub fn next(&mut self) -> Client {
        let is_banned = self.random.f64() < self.denied;
        let address = match is_banned {
            true => offender(self.random.u32(..self.offenders)),
            false => innocent(self.random.u32(..self.innocents)),
        };
        Client { address, is_banned }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_number_is_a_client_of_its_own() {
        assert_eq!(offender(0), Ipv4Addr::new(198, 18, 0, 0));
        assert_eq!(offender((1 << 17) - 1), Ipv4Addr::new(198, 19, 255, 255));
        assert_eq!(offender(1 << 17), Ipv4Addr::new(10, 0, 0, 0));
        assert_eq!(innocent(1), Ipv4Addr::new(100, 64, 0, 1));
        let offenders: HashSet<_> = (0..200_000).map(offender).collect();
        assert_eq!(offenders.len(), 200_000);
        assert!((0..INNOCENTS_MAX).step_by(997).all(|number| !offenders.contains(&innocent(number))));
    }

    #[test]
    fn a_seed_draws_the_same_clients_in_the_wanted_share() {
        let draw = |seed| {
            let mut draw = Draw::new(seed, 0.1, 1000, 1000);
            (0..10_000).map(|_| draw.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let banned = draw(7).iter().filter(|client| client.is_banned).count();
        assert!((800..1200).contains(&banned), "{banned}");
        assert!(Draw::new(1, 0.0, 1, 1).next().address == innocent(0));
    }
}

//! Addresses and networks: who is judged, and what lists are made of.
//!
//! Everything that comes from outside as an address passes through here once, and is canonical from then on:
//! an IPv4-mapped IPv6 address *is* the IPv4 address, and a network has no bits set beyond its length. Tables
//! and comparisons elsewhere rely on that and never look at an [`IpAddr`] of their own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest text that can be an address: a full IPv6 address with an embedded IPv4 one (45 bytes), brackets, a zone
/// of 16 bytes and a port. Anything longer is refused before it is looked at.
const ADDRESS_TEXT_BYTES_MAX: usize = 72;

/// One host, IPv4 or IPv6, with IPv4-mapped IPv6 (`::ffff:192.0.2.1`, RFC 4291 §2.5.5.2) folded to IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(IpAddr);

impl Address {
    /// This machine, to itself.
    pub const LOCALHOST: Address = Address(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// The address as the standard library knows it; never an IPv4-mapped IPv6 address.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    pub fn is_ipv4(self) -> bool {
        self.0.is_ipv4()
    }

    /// The networks that hold it, the longest first: itself, down to everything.
    pub fn networks(self) -> impl Iterator<Item = Network> {
        (0..=Network::host(self).len()).rev().filter_map(move |len| Network::new(self, len))
    }

    /// Parses the text of one address, as daemons and proxies write it.
    ///
    /// Accepted: `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`, `::ffff:192.0.2.1`, a zone (`fe80::1%eth0`, dropped).
    /// Not accepted: a port, a host name, a network, surrounding blanks, leading zeros in IPv4 (RFC 6943 §3.1.1
    /// says why they are ambiguous).
    pub fn parse(text: &[u8]) -> Option<Address> {
        if let Some(v4) = plain_ipv4(text) {
            return Some(Address::from(v4));
        }
        if text.is_empty() || text.len() > ADDRESS_TEXT_BYTES_MAX {
            return None;
        }
        let bare = match text {
            [b'[', inner @ .., b']'] => {
                // Brackets belong to IPv6 (RFC 3986 §3.2.2), but Postfix writes both families in them.
                inner
            }
            _ => text,
        };
        let bare = match bare.iter().position(|&b| b == b'%') {
            Some(at) if at > 0 && bare.len() - at > 1 => {
                let (address, _zone) = bare.split_at(at);
                if !address.contains(&b':') {
                    return None;
                }
                address
            }
            Some(_) => return None,
            None => bare,
        };
        IpAddr::from_str(std::str::from_utf8(bare).ok()?).ok().map(Address::from)
    }

    /// Parses an address that may carry a port: `192.0.2.1:443`, `[2001:db8::1]:443`, or none at all.
    ///
    /// `2001:db8::1:443` is an address without a port; there is no telling otherwise.
    pub fn parse_with_port(text: &[u8]) -> Option<Address> {
        if let Some(address) = Address::parse(text) {
            return Some(address);
        }
        let colon = memchr::memrchr(b':', text)?;
        let (host, port) = (&text[..colon], &text[colon + 1..]);
        let is_port = (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
        let unambiguous = !host.contains(&b':') || (host.first() == Some(&b'[') && host.last() == Some(&b']'));
        if is_port && unambiguous { Address::parse(host) } else { None }
    }
}

/// Four numbers with points between, as most addresses are written. Says the same of them as the general way, at a fifth of
/// its cost.
fn plain_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let (mut at, mut value, mut digits) = (0, 0_u16, 0);
    for b in text {
        match b {
            // No leading zeros.
            b'0'..=b'9' if digits == 0 || value > 0 => {
                value = value * 10 + u16::from(b - b'0');
                digits += 1;
                if value > 255 {
                    return None;
                }
            }
            b'.' if digits > 0 => {
                *octets.get_mut(at)? = value as u8;
                (at, value, digits) = (at + 1, 0, 0);
            }
            _ => return None,
        }
    }
    let [.., last] = &mut octets;
    *last = value as u8;
    (at == 3 && digits > 0).then(|| Ipv4Addr::from(octets))
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        Address(ip.to_canonical())
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Address {
        Address(IpAddr::V4(ip))
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Address {
        Address::from(IpAddr::V6(ip))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network in CIDR notation, host bits cleared. A single host is a network of full length (`/32`, `/128`), which
/// is also how it prints: without the length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    base: IpAddr,
    len: u8,
}

/// Why a text is not a network. `Display` finishes the sentence "… is not an address or network: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    NotAnAddress,
    LengthNotANumber,
    LengthTooLarge { max: u8 },
}

impl fmt::Display for NetworkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkFault::NotAnAddress => f.write_str("write it like 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32"),
            NetworkFault::LengthNotANumber => f.write_str("what stands after the / must be a number of bits"),
            NetworkFault::LengthTooLarge { max } => write!(f, "the number of bits after the / can be at most {max}"),
        }
    }
}

impl Network {
    /// The network of `len` bits around `address`; `None` if `len` is longer than the family has bits.
    pub fn new(address: Address, len: u8) -> Option<Network> {
        let base = match address.ip() {
            IpAddr::V4(ip) if len <= 32 => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask_v4(len))),
            IpAddr::V6(ip) if len <= 128 => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask_v6(len))),
            _ => return None,
        };
        Some(Network { base, len })
    }

    /// The network of one host.
    pub fn host(address: Address) -> Network {
        let len = if address.is_ipv4() { 32 } else { 128 };
        Network { base: address.ip(), len }
    }

    /// Parses `10.0.0.0/8`, `2001:db8::/48` or a single address. Host bits are cleared: `10.1.2.3/8` is `10.0.0.0/8`.
    /// A network inside `::ffff:0:0/96` is the IPv4 network.
    pub fn parse(text: &str) -> Result<Network, NetworkFault> {
        let Some((address, len)) = text.split_once('/') else {
            return Address::parse(text.as_bytes()).map(Network::host).ok_or(NetworkFault::NotAnAddress);
        };
        let ip = IpAddr::from_str(address).map_err(|_| NetworkFault::NotAnAddress)?;
        if len.is_empty() || len.len() > 3 || !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NetworkFault::LengthNotANumber);
        }
        let len: u16 = len.parse().map_err(|_| NetworkFault::LengthNotANumber)?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let len = u8::try_from(len).ok().filter(|&len| len <= max).ok_or(NetworkFault::LengthTooLarge { max })?;
        let folded = Address::from(ip);
        let len = match (ip, folded.ip()) {
            (IpAddr::V6(_), IpAddr::V4(_)) if len >= 96 => len - 96,
            // `::ffff:1.2.3.4/64` reaches beyond the mapped range: it is an IPv6 network.
            (IpAddr::V6(v6), IpAddr::V4(_)) => {
                return Ok(Network { base: IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask_v6(len))), len });
            }
            _ => len,
        };
        Network::new(folded, len).ok_or(NetworkFault::LengthTooLarge { max })
    }

    /// Number of leading bits that count: 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[expect(clippy::len_without_is_empty, reason = "a network of length 0 holds every address; none is empty")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// The lowest address of the network.
    pub fn base(self) -> IpAddr {
        self.base
    }

    pub fn is_ipv4(self) -> bool {
        self.base.is_ipv4()
    }

    /// Whether `address` lies in this network; always false across families.
    pub fn contains(self, address: Address) -> bool {
        match (self.base, address.ip()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => ip.to_bits() & mask_v4(self.len) == base.to_bits(),
            (IpAddr::V6(base), IpAddr::V6(ip)) => ip.to_bits() & mask_v6(self.len) == base.to_bits(),
            _ => false,
        }
    }

    /// Whether `other` lies wholly in this network.
    pub fn covers(self, other: Network) -> bool {
        self.len <= other.len && self.contains(Address(other.base))
    }
}

/// The `len` leading bits set; `len` is at most 32.
pub(crate) fn mask_v4(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

/// The `len` leading bits set; `len` is at most 128.
pub(crate) fn mask_v6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkFault;

    fn from_str(text: &str) -> Result<Network, NetworkFault> {
        Network::parse(text)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = if self.is_ipv4() { 32 } else { 128 };
        if self.len == full { self.base.fmt(f) } else { write!(f, "{}/{}", self.base, self.len) }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<String> {
        Address::parse(text.as_bytes()).map(|a| a.to_string())
    }

    fn network(text: &str) -> Result<String, NetworkFault> {
        Network::parse(text).map(|n| n.to_string())
    }

    proptest::proptest! {
        #[test]
        fn plain_addresses_are_what_the_library_says(text in "[0-9]{0,4}(\\.[0-9]{0,3}){2,4}|([0-9]{1,3}\\.){3}[0-9]{1,3}") {
            proptest::prop_assert_eq!(plain_ipv4(text.as_bytes()), text.parse().ok());
        }
    }

    #[test]
    fn addresses_are_canonical() {
        for (text, want) in [
            ("192.0.2.1", "192.0.2.1"),
            ("[192.0.2.1]", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::FFFF:c000:0201", "192.0.2.1"),
            ("[::ffff:192.0.2.1]", "192.0.2.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(address(text).as_deref(), Some(want), "{text}");
        }
        for text in [
            "",
            " 1.2.3.4",
            "1.2.3.4 ",
            "1.2.3",
            "01.2.3.4",
            "1.2.3.256",
            "1.2.3.4%eth0",
            "[",
            "[]",
            "%",
            "::1%",
            "host.example",
            "1.2.3.4:25",
            "[::1",
            "::1]",
            "10.0.0.0/8",
            "999.1.1.1",
            "1.2.3.4,5.6.7.8",
            "\u{661}.1.1.1",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
        assert_eq!(Address::parse(&[b'1'; 100]), None);
    }

    #[test]
    fn ports_are_dropped_only_where_they_are_one() {
        let parse = |text: &str| Address::parse_with_port(text.as_bytes()).map(|a| a.to_string());
        assert_eq!(parse("192.0.2.1:2525").as_deref(), Some("192.0.2.1"));
        assert_eq!(parse("[2001:db8::1]:25").as_deref(), Some("2001:db8::1"));
        assert_eq!(parse("2001:db8::1:25").as_deref(), Some("2001:db8::1:25"));
        assert_eq!(parse("192.0.2.1:"), None);
        assert_eq!(parse("192.0.2.1:x"), None);
        assert_eq!(parse("192.0.2.1:123456"), None);
        assert_eq!(parse("2001:db8::zz:25"), None);
    }

    #[test]
    fn networks_clear_their_host_bits() {
        assert_eq!(network("10.1.2.3/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(network("2001:db8::1/64").as_deref(), Ok("2001:db8::/64"));
        assert_eq!(network("192.0.2.1").as_deref(), Ok("192.0.2.1"));
        assert_eq!(network("192.0.2.1/32").as_deref(), Ok("192.0.2.1"));
        assert_eq!(network("::ffff:10.9.9.9/104").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(network("0.0.0.0/0").as_deref(), Ok("0.0.0.0/0"));
        assert_eq!(network("::/0").as_deref(), Ok("::/0"));
        assert_eq!(network("::ffff:1.2.3.4/64").as_deref(), Ok("::/64"));
        assert_eq!(network("1.2.3.4/33"), Err(NetworkFault::LengthTooLarge { max: 32 }));
        assert_eq!(network("::/129"), Err(NetworkFault::LengthTooLarge { max: 128 }));
        assert_eq!(network("::/999"), Err(NetworkFault::LengthTooLarge { max: 128 }));
        assert_eq!(network("1.2.3.4/"), Err(NetworkFault::LengthNotANumber));
        assert_eq!(network("1.2.3.4/+8"), Err(NetworkFault::LengthNotANumber));
        assert_eq!(network("x/8"), Err(NetworkFault::NotAnAddress));
    }

    #[test]
    fn families_do_not_mix() {
        let all_v6 = Network::parse("::/0").unwrap();
        let all_v4 = Network::parse("0.0.0.0/0").unwrap();
        let v4 = Address::parse(b"::ffff:192.0.2.1").unwrap();
        assert!(all_v4.contains(v4));
        assert!(!all_v6.contains(v4));
        assert!(Network::parse("10.0.0.0/8").unwrap().covers(Network::parse("10.1.0.0/16").unwrap()));
        assert!(!Network::parse("10.1.0.0/16").unwrap().covers(Network::parse("10.0.0.0/8").unwrap()));
    }
}

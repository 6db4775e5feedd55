//! Address pools: the lowest address that nobody has. Refuses the addresses that a network
//! keeps for itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address with a prefix length, `10.8.0.2/24`; without one it is a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix length, such as 10.8.0.0/24 or fd00:8::/64")]
pub struct CidrError(String);

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        Self::parse(&text).ok_or(CidrError(text))
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Cidr {
    /// A single address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix: bits(address) }
    }

    /// The address alone, without its network: what an interface's address takes.
    #[must_use]
    pub(super) fn address(&self) -> Self {
        Self::host(self.address)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let prefix = match prefix {
            // No sign, no leading zeros: one spelling of each.
            Some(p) if p == "0" || !p.starts_with(['0', '+']) => p.parse().ok()?,
            Some(_) => return None,
            None => bits(address),
        };
        (prefix <= bits(address)).then_some(Self { address, prefix })
    }

    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// The first and the last address as numbers.
    fn range(&self) -> (u128, u128) {
        let host_bits = u32::from(bits(self.address) - self.prefix);
        let mask = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        let number = match self.address {
            IpAddr::V4(a) => u128::from(u32::from(a)),
            IpAddr::V6(a) => u128::from(a),
        };
        (number & !mask, number | mask)
    }

    fn covers(&self, other: &Self) -> bool {
        let ((a, b), (c, d)) = (self.range(), other.range());
        self.is_v6() == other.is_v6() && a <= c && d <= b
    }
}

/// The lowest address of `pool` that is in none of `taken`. Of an IPv4 network the first
/// and last address are never given (RFC 919), of an IPv6 one the first (RFC 4291 §2.6.1).
/// A network in `taken` that covers the whole pool is a route through some peer and takes
/// no address: WireGuard prefers the longer prefix.
#[must_use]
pub(super) fn lowest_free(pool: &Cidr, taken: &[Cidr]) -> Option<IpAddr> {
    let (mut next, mut last) = pool.range();
    let host_bits = bits(pool.address) - pool.prefix;
    if host_bits > 1 {
        next += 1;
        last -= u128::from(!pool.is_v6());
    }
    let mut taken: Vec<_> = taken
        .iter()
        .filter(|t| t.is_v6() == pool.is_v6())
        .filter(|t| t.prefix == bits(t.address) || !t.covers(pool))
        .map(Cidr::range)
        .collect();
    taken.sort_unstable();
    for (first, end) in taken {
        if first > next {
            break;
        }
        if end >= next {
            next = end.checked_add(1)?;
        }
    }
    if next > last {
        return None;
    }
    Some(if pool.is_v6() {
        IpAddr::V6(Ipv6Addr::from(next))
    } else {
        IpAddr::V4(Ipv4Addr::from(u32::try_from(next).ok()?))
    })
}

/// The host address of `pool` that is the server's by custom: the first.
#[must_use]
pub(super) fn first_host(pool: &Cidr) -> Option<IpAddr> {
    lowest_free(pool, &[])
}

/// Whether `address` lies in `pool`.
#[must_use]
pub(super) fn contains(pool: &Cidr, address: &Cidr) -> bool {
    pool.covers(&address.address())
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    fn free(pool: &str, taken: &[&str]) -> Option<String> {
        let taken: Vec<_> = taken.iter().map(|t| cidr(t)).collect();
        lowest_free(&cidr(pool), &taken).map(|a| a.to_string())
    }

    #[test]
    fn gives_the_lowest_and_skips_what_is_kept() {
        assert_eq!(free("10.8.0.0/24", &["10.8.0.1/24", "10.8.0.1/32"]).as_deref(), Some("10.8.0.2"));
        assert_eq!(free("10.8.0.0/24", &["10.8.0.1", "10.8.0.3/32"]).as_deref(), Some("10.8.0.2"));
        assert_eq!(free("10.8.0.0/24", &["10.8.0.0/25", "0.0.0.0/0"]).as_deref(), Some("10.8.0.128"));
        assert_eq!(free("fd00:8::/64", &["fd00:8::1", "10.8.0.1"]).as_deref(), Some("fd00:8::2"));
        assert_eq!(free("10.8.0.0/31", &["10.8.0.0"]).as_deref(), Some("10.8.0.1"));
        assert_eq!(free("10.8.0.7/32", &["10.8.0.7/32"]), None);
        assert_eq!(free("255.255.255.252/30", &["255.255.255.253", "255.255.255.254"]), None);
        assert_eq!(free("::/0", &[]).as_deref(), Some("::1"));
    }

    #[test]
    fn runs_out() {
        let mut taken = Vec::new();
        while let Some(address) = lowest_free(&cidr("10.8.0.0/28"), &taken) {
            taken.push(Cidr::host(address));
        }
        assert_eq!(taken.len(), 14);
        assert_eq!(taken[13].to_string(), "10.8.0.14/32");
    }

    #[test]
    fn one_spelling_only() {
        for bad in
            ["10.8.0.0/33", "10.8.0.0/024", "10.8.0.0/+4", "10.8.0/24", "fd00::/129", "", "/8", "a/8", "1.1.1.1/"]
        {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_gives_what_is_taken(hosts in prop::collection::vec((0_u32..64, 27_u8..=32), 0..40)) {
            let pool = cidr("10.8.0.0/26");
            let taken: Vec<_> = hosts.iter()
                .map(|(n, p)| Cidr { address: Ipv4Addr::from(0x0a08_0000 + n).into(), prefix: *p }).collect();
            let naive = (1..63_u32).map(|n| Cidr::host(Ipv4Addr::from(0x0a08_0000 + n).into()))
                .find(|a| !taken.iter().any(|t| t.covers(a)));
            prop_assert_eq!(lowest_free(&pool, &taken).map(Cidr::host), naive);
        }
    }
}

//! The proxies that are trusted to name other peers: a list of networks (CIDR). Empty, and
//! nobody is.

use ipnet::IpNet;
use serde::de::{self, Deserialize, Deserializer};
use std::net::IpAddr;

/// More would be a mistake rather than a list of proxies.
const MAX: usize = 256;

/// Networks, each `ADDRESS/BITS` or a single address; in an environment variable, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nets(Vec<IpNet>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetsError {
    #[error("{0:?} is neither an address nor a network such as 192.0.2.0/24")]
    Malformed(String),
    #[error("{0:?} has bits beyond its prefix: {1} is meant?")]
    Bits(String, IpNet),
    #[error("more than {MAX} networks")]
    TooMany,
}

impl Nets {
    /// # Errors
    /// Names the word that is no network.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, NetsError> {
        let nets = words.into_iter().map(net).collect::<Result<Vec<_>, _>>()?;
        if nets.len() > MAX { Err(NetsError::TooMany) } else { Ok(Self(nets)) }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is one of them; an IPv4 address is the same in its IPv6 clothes.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }
}

fn net(word: &str) -> Result<IpNet, NetsError> {
    let word = word.trim();
    if let Ok(address) = word.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let net: IpNet = word.parse().map_err(|_| NetsError::Malformed(word.to_owned()))?;
    if net.trunc() == net { Ok(net) } else { Err(NetsError::Bits(word.to_owned(), net.trunc())) }
}

impl<'de> Deserialize<'de> for Nets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Form {
            List(Vec<String>),
            Text(String),
        }
        let nets = match Form::deserialize(deserializer)? {
            Form::List(words) => Self::parse(words.iter().map(String::as_str)),
            Form::Text(text) => Self::parse(text.split(',').filter(|word| !word.trim().is_empty())),
        };
        nets.map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_hold_what_they_say() {
        let nets = Nets::parse(["192.0.2.0/24", "2001:db8::/32", "203.0.113.7"]).unwrap();
        for (address, wanted) in [
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("::ffff:192.0.2.1", true),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
        ] {
            assert_eq!(nets.contains(address.parse().unwrap()), wanted, "{address}");
        }
        assert!(!Nets::default().contains("127.0.0.1".parse().unwrap()), "nobody by default");
    }

    #[test]
    fn what_is_no_network_is_named() {
        assert_eq!(Nets::parse(["proxy"]), Err(NetsError::Malformed("proxy".into())));
        assert!(matches!(Nets::parse(["192.0.2.1/24"]), Err(NetsError::Bits(..))));
        assert!(matches!(Nets::parse(["192.0.2.0/33"]), Err(NetsError::Malformed(_))));
        assert_eq!(Nets::parse(std::iter::repeat_n("192.0.2.1", MAX + 1)), Err(NetsError::TooMany));
    }

    #[test]
    fn a_list_and_a_text_are_the_same() {
        #[derive(serde::Deserialize)]
        struct Of {
            nets: Nets,
        }
        let list: Of = toml::from_str(r#"nets = ["192.0.2.0/24", "::1"]"#).unwrap();
        let text: Of = toml::from_str(r#"nets = "192.0.2.0/24, ::1""#).unwrap();
        assert_eq!(list.nets, text.nets);
    }
}

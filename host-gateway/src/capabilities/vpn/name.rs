//! A VPN user's name: what may stand in a configuration file, a certificate and a command
//! of the management socket. Refuses everything that one of these could read as more.

use serde::{Deserialize, Serialize};

/// `[a-z0-9][a-z0-9_.-]{0,31}`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name must be 1 to 32 characters of a-z, 0-9, `_`, `.` and `-`, the first a letter or digit")]
pub struct NameError;

impl TryFrom<String> for PeerName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let good = bytes.len() <= 32
            && bytes.first().is_some_and(plain)
            && bytes.iter().all(|b| plain(b) || matches!(b, b'_' | b'.' | b'-'));
        if good { Ok(Self(text)) } else { Err(NameError) }
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        name.0
    }
}

impl PeerName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for PeerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_plain_names_only() {
        for good in ["a", "0", "road-1", "a.b_c", &"x".repeat(32)] {
            assert!(PeerName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "_a", "A", "a b", "a\n", "a\nkill x", "a\"", "a=b", "ä", "a/b", &"x".repeat(33)] {
            assert!(PeerName::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<PeerName>("\"a\\nb\"").is_err(), "the journal can't smuggle one in");
    }
}

//! Identifiers: parsed once at the edge, so that inner code can't hold a malformed one.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A gateway's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, first and last alphanumeric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(String);

/// `cmd-` and 32 hex digits: 48 bits of milliseconds since 1970, 80 random ones, so
/// that ids sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId(String);

/// `inv-` and 32 hex digits, derived from the command, its targets and the agent: the
/// same on both sides, and never sent by one to be believed by the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InvocationId(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("agent id {0:?} is not 1 to 64 letters, digits, '.', '_' or '-', with a letter or digit at both ends")]
    Agent(String),
    #[error("{0:?} is not a command id (cmd- and 32 hex digits)")]
    Command(String),
    #[error("{0:?} is not an invocation id (inv- and 32 hex digits)")]
    Invocation(String),
}

impl AgentId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AgentId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
        let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        if bytes.len() <= 64 && bytes.iter().all(inner) && end(bytes.first()) && end(bytes.last()) {
            Ok(Self(text))
        } else {
            Err(IdError::Agent(text))
        }
    }
}

impl CommandId {
    /// A new id for a command accepted at `now_ms` (Unix milliseconds).
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    #[must_use]
    #[allow(clippy::expect_used, reason = "without randomness there is no safe way on")]
    pub fn new(now_ms: u64) -> Self {
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        getrandom::fill(&mut bytes[6..]).expect("the operating system gives random bytes");
        Self(format!("cmd-{}", hex::encode(bytes)))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InvocationId {
    /// The id of `command` on `agent`, given the Merkle root over the frozen targets.
    #[must_use]
    pub fn derive(command: &CommandId, root: &[u8; 32], agent: &AgentId) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"viworks-invocation-v1\0");
        hash.update(command.0.as_bytes());
        hash.update(root);
        hash.update(agent.0.as_bytes());
        Self(format!("inv-{}", hex::encode(&hash.finalize()[..16])))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn hex_id(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

impl TryFrom<String> for CommandId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        if hex_id("cmd-", &text) { Ok(Self(text)) } else { Err(IdError::Command(text)) }
    }
}

impl TryFrom<String> for InvocationId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        if hex_id("inv-", &text) { Ok(Self(text)) } else { Err(IdError::Invocation(text)) }
    }
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }
    )*};
}
text!(AgentId, CommandId, InvocationId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ids_are_flat_names() {
        for good in ["a", "web-01.example.com", "A_b"] {
            assert!(good.parse::<AgentId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "a/b", "ü", "a\0b", &"x".repeat(65)] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn command_ids_sort_by_time() {
        assert!(CommandId::new(1_000) < CommandId::new(1_001));
        assert!(CommandId::new(5).as_str().parse::<CommandId>().is_ok());
    }
}

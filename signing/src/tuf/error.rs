//! Why metadata was refused. Codes are stable; the text is for people.

use std::time::SystemTime;

use crate::{keys, strict_json};

/// The check that refused.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
    #[error("{name} is larger than the {max} bytes that are read of it")]
    Size { name: String, max: u64 },
    #[error("{name} is malformed")]
    Json { name: String, source: strict_json::Error },
    #[error("{what}")]
    Format { what: String },
    #[error("{name} is of type {found:?}, wanted {wanted:?}")]
    Type { name: String, found: String, wanted: &'static str },
    #[error("name {name:?} is not short, flat, lower-case ASCII")]
    Name { name: String },
    #[error("key {id} can't be used")]
    Key { id: String, source: keys::Error },
    #[error("key {id} holds both {one} and {other}; a key holds one role")]
    KeyRoles { id: String, one: String, other: String },
    #[error("{count} signatures on {role}, at most {} are read", super::role::MAX_SIGNATURES)]
    Signatures { role: String, count: usize },
    #[error("{role} is signed by {found} of the {wanted} keys that it needs")]
    Threshold { role: String, found: usize, wanted: u32 },
    #[error("root {wanted} is wanted, this is {found}")]
    RootVersion { wanted: u64, found: u64 },
    #[error("root {version} is not signed by {by}")]
    RootChain { version: u64, by: &'static str, source: Box<TufError> },
    #[error("more than {} root versions in one update", super::MAX_ROTATIONS)]
    Rotations,
    #[error("{role} goes back from {known} to {found}")]
    Rollback { role: String, known: u64, found: u64 },
    #[error("the snapshot has lost {role}")]
    Dropped { role: String },
    #[error("{name} is not what {by} says it is: {what}")]
    Mixed { name: String, by: &'static str, what: &'static str },
    #[error("{role} expired at {}", humantime::format_rfc3339_seconds(*at))]
    Expired { role: String, at: SystemTime },
    #[error("{name} is not in the repository")]
    Missing { name: String },
    #[error("target {name} had other bytes before")]
    Replaced { name: String },
    #[error("delegation {role}: {what}")]
    Delegation { role: String, what: &'static str },
    #[error("the list of revocations {what}")]
    Revocations { what: &'static str },
    #[error("target {name} is not in the repository's metadata")]
    NoTarget { name: String },
    #[error("the stored state can't be read")]
    State(#[source] strict_json::Error),
    #[error("the stored state can't be written")]
    Encode(#[source] serde_json::Error),
    #[error("the update is not at a point where it takes a file")]
    Order,
}

impl TufError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } => "E_TUF_SIZE",
            Self::Json { .. } | Self::Format { .. } | Self::Type { .. } => "E_TUF_FORMAT",
            Self::Name { .. } => "E_TUF_NAME",
            Self::Key { .. } => "E_TUF_KEY",
            Self::KeyRoles { .. } => "E_TUF_KEY_ROLES",
            Self::Signatures { .. } => "E_TUF_SIGNATURES",
            Self::Threshold { .. } => "E_TUF_THRESHOLD",
            Self::RootVersion { .. } | Self::RootChain { .. } | Self::Rotations => "E_TUF_ROOT",
            Self::Rollback { .. } | Self::Dropped { .. } => "E_TUF_ROLLBACK",
            Self::Mixed { .. } => "E_TUF_MIXED",
            Self::Expired { .. } => "E_TUF_EXPIRED",
            Self::Missing { .. } => "E_TUF_MISSING",
            Self::Replaced { .. } => "E_TUF_REPLACED",
            Self::Delegation { .. } => "E_TUF_DELEGATION",
            Self::Revocations { .. } => "E_TUF_REVOCATIONS",
            Self::NoTarget { .. } => "E_TUF_TARGET",
            Self::State(_) | Self::Encode(_) => "E_TUF_STATE",
            Self::Order => "E_TUF_ORDER",
        }
    }
}

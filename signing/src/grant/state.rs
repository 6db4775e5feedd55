//! The scope of `state`.

use serde::{Deserialize, Serialize};

/// How much a plugin may keep on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateScope {
    pub max_keys: u32,
    /// All keys and values together.
    pub max_kib: u32,
}

impl Default for StateScope {
    fn default() -> Self {
        Self { max_keys: 64, max_kib: 64 }
    }
}

//! The scope of `scripts`.

use super::Patterns;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which scripts may run. A script runs only if the policy pins its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScriptsScope {
    pub names: Patterns,
    /// By name: lowercase hex SHA-256 of the file. Only a policy sets it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, String>,
}

impl Default for ScriptsScope {
    fn default() -> Self {
        Self { names: Patterns::any(), pins: BTreeMap::new() }
    }
}

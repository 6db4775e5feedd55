//! The scope of `containers`.

use super::Patterns;
use serde::{Deserialize, Serialize};

/// Which containers exist for a plugin, and what may be done to them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainersScope {
    pub names: Patterns,
    /// Every one must be on the container: `key` or `key=value`.
    pub labels: Vec<String>,
    /// Only containers in these states may be removed.
    pub remove_states: Vec<String>,
    /// Seconds since it stopped (or was created, if it never ran) before it may be removed.
    pub min_age_secs: u32,
    /// Whether running containers may be stopped.
    pub stop: bool,
    /// Removal can't be taken back, so it must be allowed by name.
    pub allow_irreversible: bool,
}

impl Default for ContainersScope {
    fn default() -> Self {
        Self {
            names: Patterns::any(),
            labels: Vec::new(),
            remove_states: vec!["created".into(), "exited".into(), "dead".into()],
            min_age_secs: 0,
            stop: false,
            allow_irreversible: false,
        }
    }
}

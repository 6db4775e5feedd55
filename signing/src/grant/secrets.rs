//! The scope of `secrets`.

use super::Patterns;
use serde::{Deserialize, Serialize};

/// Which secrets may be passed on, and to what. None by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsScope {
    pub names: Patterns,
    /// Capabilities whose functions may resolve them, for example `scripts`.
    pub uses: Vec<String>,
}

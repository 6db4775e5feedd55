//! The scope of `system`.

use super::Patterns;
use serde::{Deserialize, Serialize};

/// Reads need no scope but the services whose state may be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemScope {
    pub services: Patterns,
}

impl Default for SystemScope {
    fn default() -> Self {
        Self { services: Patterns::any() }
    }
}

//! The `system` capability.

use serde::Deserialize;

/// `[providers.system]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

#[derive(Debug)]
pub struct Provider {}

impl Provider {
    #[must_use]
    pub fn new(_config: &Config) -> Self {
        Self {}
    }
}

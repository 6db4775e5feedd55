//! The `containers` capability.

use serde::{Deserialize, Serialize};

use crate::effects::Applied;
use crate::failure::Failure;

/// `[providers.containers]`.
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

    pub(crate) async fn apply(&self, change: &Change) -> Result<Applied, Failure> {
        Err(Failure::Unavailable(change.summary()))
    }
}

/// What can change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {}

impl Change {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match *self {}
    }

    #[must_use]
    pub fn summary(&self) -> String {
        match *self {}
    }
}

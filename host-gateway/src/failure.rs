//! How a capability's function fails: the Rust face of the WIT `failure`.

use serde::{Deserialize, Serialize};

use crate::capabilities::wit::viworks::gateway::types as wit;
use viworks_protocol::outcome;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    #[error("denied by {rule}: {message}")]
    Denied { capability: String, rule: String, message: String },
    #[error("conflict: {0}")]
    Conflict(String),
    #[error("not found: {0}")]
    NotFound(String),
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("failed: {0}")]
    Failed(String),
}

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::InvalidArgument(text) => Self::InvalidArgument(text),
            Failure::Denied { capability, rule, message } => Self::Denied(wit::Denial { capability, rule, message }),
            Failure::Conflict(text) => Self::Conflict(text),
            Failure::NotFound(text) => Self::NotFound(text),
            Failure::Unavailable(text) => Self::Unavailable(text),
            Failure::Failed(text) => Self::Failed(text),
        }
    }
}

impl From<Failure> for outcome::Failure {
    fn from(failure: Failure) -> Self {
        let (code, message, rule) = match failure {
            Failure::InvalidArgument(text) => ("invalid-argument", text, None),
            Failure::Denied { message, rule, .. } => ("denied", message, Some(rule)),
            Failure::Conflict(text) => ("conflict", text, None),
            Failure::NotFound(text) => ("not-found", text, None),
            Failure::Unavailable(text) => ("unavailable", text, None),
            Failure::Failed(text) => ("failed", text, None),
        };
        Self { code: code.to_owned(), message, rule }
    }
}

/// An error with everything below it, for people.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        text += &format!(": {below}");
        source = below.source();
    }
    text
}

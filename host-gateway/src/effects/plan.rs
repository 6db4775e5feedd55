//! A plan's digest, and what a plan is a plan of. The digest is taken over what operators
//! read, so that it binds exactly what they saw and anybody can compute it again.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use viworks_protocol::id::CommandId;
use viworks_protocol::outcome::EffectReport;

/// What was asked: applying may be bound to a plan of the same only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSubject {
    pub plugin: String,
    pub verb: String,
    pub args_sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<CommandId>,
}

/// Lowercase hex SHA-256 over the canonical JSON (RFC 8785) of a plan's effects, all of
/// them `planned`, as the report lists them.
#[must_use]
pub fn digest(effects: &[EffectReport]) -> String {
    // Strings, flags and words: these always become JSON.
    let text = serde_json_canonicalizer::to_string(&effects).unwrap_or_default();
    hex::encode(Sha256::digest(text.as_bytes()))
}

impl PlanSubject {
    /// One text for each subject, as the journal keeps it.
    #[must_use]
    pub fn key(&self) -> String {
        let text = serde_json_canonicalizer::to_string(self).unwrap_or_default();
        hex::encode(Sha256::digest(text.as_bytes()))
    }
}

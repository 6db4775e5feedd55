//! The release statement: what a signer says about the bytes of one component.
//! An in-toto Statement v1 whose predicate binds plugin, version, verbs, schemas,
//! imports, requested scopes and limits to the component's SHA-256.

use semver::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::grant::Scopes;

pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
pub const PREDICATE_TYPE: &str = "https://viworks.dev/attestation/plugin-release/v1";

/// An in-toto Statement v1 with the release predicate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    #[serde(rename = "_type")]
    pub kind: String,
    /// Exactly one: the component.
    pub subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    pub predicate: Release,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// `<plugin>.wasm`
    pub name: String,
    pub digest: Digest,
}

/// Lowercase hex SHA-256 of the whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    pub sha256: String,
}

/// What the release pipeline says about one component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// The plugin's id: `^[a-z0-9]+(-[a-z0-9]+)*$`, at most 64 characters.
    pub plugin: String,
    /// Without build metadata: `1.4.2+a` and `1.4.2+b` would be one version.
    pub version: Version,
    /// Raised to recover from a key compromise; `(epoch, sequence)` only grows.
    pub epoch: u32,
    pub sequence: u32,
    pub artifact: Artifact,
    /// The component's own world, for example `viworks:accounts/plugin@1.0.0`.
    pub world: String,
    /// The component's exact imports, sorted.
    pub imports: Vec<String>,
    /// By outside name (snake_case).
    pub verbs: BTreeMap<String, Verb>,
    /// The scopes that the plugin asks for.
    pub capabilities: Scopes,
    pub limits: Limits,
    /// The lowest `viworks:gateway` version that it runs on, for example `1.0`.
    pub host_api: String,
    /// RFC 3339, UTC.
    pub not_before: String,
    #[serde(default)]
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Always `component`.
    pub kind: String,
    /// Bytes.
    pub size: u32,
}

/// One verb as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verb {
    /// The exported function, in kebab-case.
    pub function: String,
    /// The doc comment of its WIT function.
    #[serde(default)]
    pub docs: String,
    /// JSON Schema 2020-12 of the arguments: always an object, nothing additional.
    pub args: serde_json::Value,
    /// JSON Schema 2020-12 of the result.
    pub result: serde_json::Value,
    pub effect: EffectClass,
    /// Default wall-clock limit in seconds.
    pub timeout_secs: u32,
}

/// The most that a verb does to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EffectClass {
    Read,
    Change,
    Irreversible,
}

/// What one invocation may use. The gateway's own ceilings apply as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// All linear memories and tables together.
    pub memory_mib: u32,
    /// Time in guest code.
    pub cpu_ms: u32,
    pub host_calls: u32,
    /// The result as JSON.
    pub output_kib: u32,
    /// Log lines, stdout and stderr together.
    pub log_kib: u32,
    /// Core instances in the component.
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_mib: 16, cpu_ms: 1_000, host_calls: 10_000, output_kib: 1_024, log_kib: 64, instances: 20 }
    }
}

impl Limits {
    /// The lesser of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            memory_mib: self.memory_mib.min(other.memory_mib),
            cpu_ms: self.cpu_ms.min(other.cpu_ms),
            host_calls: self.host_calls.min(other.host_calls),
            output_kib: self.output_kib.min(other.output_kib),
            log_kib: self.log_kib.min(other.log_kib),
            instances: self.instances.min(other.instances),
        }
    }
}

//! SLSA provenance v1 (slsa.dev/provenance/v1): how a component was built, as a statement
//! beside its release. It says nothing about what a plugin may do, and never stands in for
//! a release. Refuses what lacks a builder or a build type.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::release::STATEMENT_TYPE;

pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// The build type of provenance that is made here: a cargo build for wasm32-wasip2, packed
/// with the doc comments of its WIT.
pub const BUILD_TYPE: &str = "https://viworks.dev/build/plugin/v1";

/// An in-toto Statement v1 with the provenance predicate. As in-toto wants it, unknown
/// fields are left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    pub kind: String,
    /// At least one is the component; a build may have made more.
    pub subject: Vec<Resource>,
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    pub predicate: Provenance,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    pub build_definition: BuildDefinition,
    pub run_details: RunDetails,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// A URI that says what the parameters mean.
    pub build_type: String,
    /// What whoever started the build asked for.
    pub external_parameters: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub internal_parameters: Map<String, Value>,
    /// The source and everything else that was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolved_dependencies: Vec<Resource>,
}

/// An in-toto ResourceDescriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// By algorithm: lowercase hex.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetails {
    pub builder: Builder,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Builder {
    /// A URI: the platform that is trusted to have built faithfully.
    pub id: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_on: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_on: Option<String>,
}

/// What a pipeline knows of its own build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// A URI.
    pub builder: String,
    /// Where the source came from, with its commit.
    pub source: Option<Resource>,
    /// What else was read.
    pub materials: Vec<Resource>,
    pub invocation: Option<String>,
    /// RFC 3339.
    pub finished: Option<String>,
}

impl Facts {
    #[must_use]
    pub fn provenance(self) -> Provenance {
        let source = self.source.as_ref().map_or(Value::Null, |source| json!(source.uri));
        let mut parameters = Map::new();
        parameters.insert("target".into(), json!("wasm32-wasip2"));
        parameters.insert("source".into(), source);
        Provenance {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.to_owned(),
                external_parameters: parameters,
                internal_parameters: Map::new(),
                resolved_dependencies: self.source.into_iter().chain(self.materials).collect(),
            },
            run_details: RunDetails {
                builder: Builder { id: self.builder, version: BTreeMap::new() },
                metadata: Some(Metadata {
                    invocation_id: self.invocation,
                    started_on: None,
                    finished_on: self.finished,
                }),
            },
        }
    }
}

impl Resource {
    /// `URI@COMMIT`, a git commit of 40 or 64 hex digits.
    #[must_use]
    pub fn source(text: &str) -> Option<Self> {
        let (uri, commit) = text.rsplit_once('@')?;
        let hex = matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let digest = BTreeMap::from([("gitCommit".to_owned(), commit.to_owned())]);
        (is_uri(uri) && hex).then(|| Self { name: String::new(), uri: uri.to_owned(), digest })
    }
}

impl Provenance {
    /// What SLSA requires is there.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            _ if !is_uri(&self.build_definition.build_type) => Err("buildType"),
            _ if !is_uri(&self.run_details.builder.id) => Err("builder.id"),
            _ if self
                .build_definition
                .resolved_dependencies
                .iter()
                .any(|r| r.uri.is_empty() && r.digest.is_empty()) =>
            {
                Err("resolvedDependencies")
            }
            _ => Ok(()),
        }
    }
}

/// The statement about one component.
#[must_use]
pub fn statement(component: &str, digest: &str, predicate: Provenance) -> Statement {
    let digest = BTreeMap::from([("sha256".to_owned(), digest.to_owned())]);
    Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![Resource { name: component.to_owned(), uri: String::new(), digest }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate,
    }
}

/// A scheme, a colon and something after it (RFC 3986).
#[must_use]
pub fn is_uri(text: &str) -> bool {
    let scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    text.split_once(':').is_some_and(|(before, after)| scheme(before) && !after.is_empty())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_become_the_predicate_that_slsa_describes() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let facts = Facts {
            builder: "https://ci.example.com/runner".into(),
            source: Resource::source(&format!("git+https://git.example.com/plugins@{commit}")),
            invocation: Some("run-7".into()),
            finished: Some("2030-01-01T00:00:00Z".into()),
            ..Facts::default()
        };
        let predicate = facts.provenance();
        assert_eq!(predicate.check(), Ok(()));
        let wanted = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "target": "wasm32-wasip2", "source": "git+https://git.example.com/plugins" },
                "resolvedDependencies": [
                    { "uri": "git+https://git.example.com/plugins", "digest": { "gitCommit": commit } },
                ],
            },
            "runDetails": {
                "builder": { "id": "https://ci.example.com/runner" },
                "metadata": { "invocationId": "run-7", "finishedOn": "2030-01-01T00:00:00Z" },
            },
        });
        assert_eq!(serde_json::to_value(&predicate).unwrap(), wanted);
    }

    #[test]
    fn what_slsa_requires_is_asked_for() {
        let mut predicate = Facts { builder: "ci".into(), ..Facts::default() }.provenance();
        assert_eq!(predicate.check(), Err("builder.id"));
        predicate.run_details.builder.id = "https://ci.example.com".into();
        predicate.build_definition.resolved_dependencies.push(Resource::default());
        assert_eq!(predicate.check(), Err("resolvedDependencies"));
        predicate.build_definition.build_type.clear();
        assert_eq!(predicate.check(), Err("buildType"));
        for bad in ["git@0123", "https://git.example.com/p", "https://git.example.com/p@XYZ"] {
            assert_eq!(Resource::source(bad), None, "{bad}");
        }
    }
}

//! Security reviews: what a reviewer says about one release, and the most that it allows.
//! A review is bound to the release statement's very bytes, so that it can't be shown for
//! another release, not even of the same component. Refuses a review that allows a verb
//! which the release does not have.

use semver::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::fault::Faults;
use crate::grant::{self, Scopes};
use crate::manifest;
use crate::release::{Digest, EffectClass, Limits, Release, STATEMENT_TYPE, Subject};
use crate::table::Table;

pub const PREDICATE_TYPE: &str = "https://viworks.dev/attestation/security-review/v1";

/// An in-toto Statement v1 with the review predicate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    #[serde(rename = "_type")]
    pub kind: String,
    /// Exactly one: the component, as in the release statement.
    pub subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    pub predicate: Review,
}

/// What a reviewer says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Review {
    /// SHA-256 of the release statement: the envelope's payload, decoded.
    pub release: Digest,
    pub plugin: String,
    pub version: Version,
    /// RFC 3339, UTC.
    pub reviewed_at: String,
    /// The verbs that may run.
    pub verbs: BTreeSet<String>,
    /// The most that each capability may do. An absent one may do nothing.
    pub capabilities: Scopes,
    pub limits: Limits,
    #[serde(default)]
    pub notes: String,
}

/// What a reviewer allows, before it is bound to a release.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowance {
    pub verbs: BTreeSet<String>,
    pub capabilities: Scopes,
    pub limits: Limits,
}

impl Allowance {
    /// All that the release asks for.
    #[must_use]
    pub fn all(release: &Release) -> Self {
        Self {
            verbs: release.verbs.keys().cloned().collect(),
            capabilities: release.capabilities.clone(),
            limits: release.limits,
        }
    }

    /// Read a reviewer's TOML: `verbs`, `[capabilities.*]` and `[limits]` as in a policy.
    /// Absent verbs are the release's that don't change the host for good; absent limits
    /// are the release's.
    ///
    /// # Errors
    /// The TOML parser's error, or every fault.
    pub fn parse(text: &str, release: &Release) -> Result<Self, manifest::Error> {
        let table: toml::Table = text.parse().map_err(manifest::Error::Syntax)?;
        let mut faults = Faults::default();
        let mut top = Table::new("", &table, &mut faults);
        top.known(&["verbs", "capabilities", "limits"]);
        let known = crate::fault::choices(release.verbs.keys());
        let verbs = if top.has("verbs") {
            top.texts("verbs", &known, |verb| release.verbs.contains_key(verb)).into_iter().collect()
        } else {
            let harmless = release.verbs.iter().filter(|(_, verb)| verb.effect != EffectClass::Irreversible);
            harmless.map(|(name, _)| name.clone()).collect()
        };
        let capabilities = grant::read_scopes(&mut top);
        let limits = top
            .optional("limits")
            .table("limits", |limits| grant::read_limits(limits, release.limits, release.limits))
            .unwrap_or(release.limits);
        Ok(faults.or(Self { verbs, capabilities, limits })?)
    }
}

/// The statement that allows so much of a release. `payload_digest`: what
/// [`crate::verify::VerifiedRelease::payload_digest`] gives.
#[must_use]
pub fn statement(
    release: &Release,
    component_digest: &str,
    payload_digest: &str,
    allowance: Allowance,
    reviewed_at: &str,
    notes: &str,
) -> Statement {
    Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject {
            name: format!("{}.wasm", release.plugin),
            digest: Digest { sha256: component_digest.to_owned() },
        }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Review {
            release: Digest { sha256: payload_digest.to_owned() },
            plugin: release.plugin.clone(),
            version: release.version.clone(),
            reviewed_at: reviewed_at.to_owned(),
            verbs: allowance.verbs,
            capabilities: allowance.capabilities,
            limits: allowance.limits,
            notes: notes.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::sample_manifest;
    use crate::publish::build_release;

    fn release() -> Release {
        build_release(&crate::fixture::sample(), &sample_manifest()).unwrap().predicate
    }

    #[test]
    fn an_allowance_is_the_releases_own_or_what_the_reviewer_wrote() {
        let release = release();
        let all = Allowance::all(&release);
        assert_eq!((all.verbs.len(), &all.capabilities), (3, &release.capabilities));
        let text = "verbs = [\"touch\"]\n[capabilities.accounts]\ngroups = [\"dev-*\"]\n[limits]\ncpu_ms = 10";
        let some = Allowance::parse(text, &release).unwrap();
        assert_eq!(some.verbs.into_iter().collect::<Vec<_>>(), ["touch"]);
        assert_eq!((some.limits.cpu_ms, some.limits.memory_mib), (10, release.limits.memory_mib));
        let none = Allowance::parse("", &release).unwrap();
        assert_eq!(none.verbs.into_iter().collect::<Vec<_>>(), ["add_user", "touch"], "put_thing is irreversible");
        assert!(none.capabilities.names().is_empty());
    }

    #[test]
    fn every_fault_of_an_allowance_is_told() {
        let text = "verb = 1\nverbs = [\"tuch\"]\n[capabilities.teapots]\n[limits]\nmemory_mib = 4096";
        let Err(manifest::Error::Faults(faults)) = Allowance::parse(text, &release()) else { panic!("faults") };
        let found: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        for fault in [
            "verb: found an unknown key; wanted verbs,",
            "verbs[0]: found \"tuch\"; wanted add_user, put_thing or touch",
            "capabilities.teapots: found an unknown capability",
            "limits.memory_mib: found 4096; wanted a whole number from 1 to 8",
        ] {
            assert!(found.iter().any(|line| line.starts_with(fault)), "{fault} in {found:?}");
        }
        assert_eq!(found.len(), 4);
    }
}

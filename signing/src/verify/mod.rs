//! Admission's first half: bytes and statements in, a [`VerifiedRelease`] out. Verifies
//! before it parses, parses strictly, and refuses whatever the one release statement does
//! not say word for word of these bytes.
//!
//! Who may release at all is the caller's list of keys. Whether this release is the
//! current one (freshness, rollback, revocation) is the repository metadata's answer, and
//! what a security review leaves of its requests is another statement's: both narrow a
//! `VerifiedRelease` and neither can stand in for it.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::time::SystemTime;

use crate::component;
use crate::dsse::{self, Envelope};
use crate::keys::PublicKey;
use crate::manifest::is_host_api;
use crate::names;
use crate::release::{PAYLOAD_TYPE, PREDICATE_TYPE, Release, STATEMENT_TYPE, Statement, Verb};
use crate::strict_json::{self, Floats};

mod refusal;

pub use crate::component::MAX_COMPONENT;
pub use refusal::Refusal;

/// Bytes of all lines together.
pub const MAX_STATEMENTS: usize = 256 * 1024;
pub const MAX_LINES: usize = 64;

/// A release whose signature, statement and bytes all agree. Only [`verify`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedRelease {
    release: Release,
    digest: String,
    signers: Vec<String>,
}

impl VerifiedRelease {
    #[must_use]
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// Lowercase hex SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Key ids of the trusted keys that signed, sorted, each once.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        &self.signers
    }
}

/// Verify the bytes that will be compiled (that very buffer, not a file that is read
/// again) against `statements`, JSON lines of DSSE envelopes. `now` is the time that the
/// caller trusts.
///
/// Lines that no trusted key signed, and statements about something else than a release
/// (provenance, for example), are stepped over and never suffice.
///
/// # Errors
/// The first check that refuses; [`Refusal::code`] is stable.
pub fn verify(
    component: &[u8],
    statements: &str,
    trusted: &[PublicKey],
    expect_plugin: Option<&str>,
    now: SystemTime,
) -> Result<VerifiedRelease, Refusal> {
    if component.len() > MAX_COMPONENT {
        return Err(Refusal::Size { what: "component", bytes: component.len(), max: MAX_COMPONENT });
    }
    let (statement, signers) = release_statement(statements, trusted)?;
    let digest = check_subject(component, &statement)?;
    let release = statement.predicate;
    check_release(&release, expect_plugin)?;
    let start = humantime::parse_rfc3339(&release.not_before)
        .map_err(|_| Refusal::Statement { what: "notBefore", found: release.not_before.clone() })?;
    if now < start {
        return Err(Refusal::NotYet { not_before: release.not_before });
    }
    // The bytes are the signer's own from here on, and only now are they parsed.
    let real = component::outline(component).map_err(Refusal::Component)?.imports;
    if real != release.imports {
        let first = |a: &[String], b: &[String]| a.iter().find(|name| !b.contains(name)).cloned();
        let (undeclared, missing) = (first(&real, &release.imports), first(&release.imports, &real));
        return Err(Refusal::Imports { undeclared, missing });
    }
    Ok(VerifiedRelease { release, digest, signers })
}

/// The one release statement among the lines, and who signed it.
fn release_statement(statements: &str, trusted: &[PublicKey]) -> Result<(Statement, Vec<String>), Refusal> {
    if statements.len() > MAX_STATEMENTS {
        return Err(Refusal::Size { what: "statements", bytes: statements.len(), max: MAX_STATEMENTS });
    }
    if statements.lines().nth(MAX_LINES).is_some() {
        return Err(Refusal::Lines);
    }
    let (mut found, mut passed) = (None, None);
    for (line, text) in statements.lines().enumerate() {
        let line = line + 1;
        let format = |source| Refusal::Format { line, source };
        let envelope: Envelope =
            strict_json::from_slice(text.as_bytes(), MAX_STATEMENTS, Floats::Refused).map_err(format)?;
        let verified = match envelope.verify(PAYLOAD_TYPE, trusted) {
            Ok(verified) => verified,
            Err(dsse::Error::PayloadType { found, .. }) => {
                passed.get_or_insert(Refusal::PayloadType { found });
                continue;
            }
            // Of all that was stepped over, this is what an operator has to know.
            Err(source @ dsse::Error::NoTrustedSignature) => {
                passed = Some(Refusal::Signature { line, source });
                continue;
            }
            Err(source) => return Err(Refusal::Signature { line, source }),
        };
        strict_json::check(verified.payload(), MAX_STATEMENTS, Floats::Allowed).map_err(format)?;
        let head: Head =
            serde_json::from_slice(verified.payload()).map_err(|error| format(strict_json::Error::Shape(error)))?;
        if head.kind != STATEMENT_TYPE {
            return Err(Refusal::Statement { what: "_type", found: head.kind });
        }
        if head.predicate_type != PREDICATE_TYPE {
            passed.get_or_insert(Refusal::NoRelease);
            continue;
        }
        let statement = strict_json::from_slice(verified.payload(), MAX_STATEMENTS, Floats::Refused).map_err(format)?;
        let signed = |key: &&PublicKey| verified.signers().contains(&key.bytes());
        let mut signers: Vec<String> = trusted.iter().filter(signed).map(PublicKey::id).collect();
        signers.sort_unstable();
        signers.dedup();
        if found.replace((statement, signers)).is_some() {
            return Err(Refusal::Ambiguous);
        }
    }
    found.ok_or_else(|| passed.unwrap_or(Refusal::NoRelease))
}

/// What is read of a statement to tell its kind. The rest is read once that is known.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

/// One subject, and it is this file.
fn check_subject(component: &[u8], statement: &Statement) -> Result<String, Refusal> {
    let [subject] = statement.subject.as_slice() else {
        return Err(Refusal::Subjects { count: statement.subject.len() });
    };
    let plugin = &statement.predicate.plugin;
    if subject.name.strip_suffix(".wasm") != Some(plugin.as_str()) {
        return Err(Refusal::Statement { what: "subject name", found: subject.name.clone() });
    }
    let digest = hex::encode(Sha256::digest(component));
    let size = statement.predicate.artifact.size;
    if subject.digest.sha256 != digest || usize::try_from(size) != Ok(component.len()) {
        return Err(Refusal::Digest { stated: subject.digest.sha256.clone(), real: digest });
    }
    Ok(digest)
}

/// What the statement says is well-formed and is about the wanted plugin.
fn check_release(release: &Release, expect: Option<&str>) -> Result<(), Refusal> {
    let statement = |what, found: &str| Err(Refusal::Statement { what, found: found.to_owned() });
    if !names::is_plugin_id(&release.plugin) || expect.is_some_and(|expect| expect != release.plugin) {
        return Err(Refusal::Plugin { found: release.plugin.clone(), wanted: expect.map(str::to_owned) });
    }
    if !release.version.build.is_empty() {
        return statement("version", &release.version.to_string());
    }
    if release.artifact.kind != "component" {
        return statement("artifact kind", &release.artifact.kind);
    }
    if !is_host_api(&release.host_api) {
        return statement("hostApi", &release.host_api);
    }
    if !release.imports.is_sorted_by(|a, b| a < b) {
        return statement("imports", "not sorted, or one twice");
    }
    if release.verbs.is_empty() {
        return Err(Refusal::Verbs { verb: None });
    }
    match release.verbs.iter().find(|(name, verb)| !is_well_formed(name, verb)) {
        Some((name, _)) => Err(Refusal::Verbs { verb: Some(name.clone()) }),
        None => Ok(()),
    }
}

fn is_well_formed(name: &str, verb: &Verb) -> bool {
    names::is_verb(name)
        && verb.function == names::kebab(name)
        && verb.args["type"] == "object"
        && verb.args["additionalProperties"] == false
        && verb.result.is_object()
        && verb.timeout_secs > 0
}

#[cfg(test)]
mod tests;

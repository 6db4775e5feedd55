//! Whether statements are about these bytes, about this release, and well-formed. Refuses
//! names that look like others, versions that are two, and reviews of another release.

use sha2::{Digest as _, Sha256};

use super::Refusal;
use crate::component;
use crate::manifest::is_host_api;
use crate::names;
use crate::provenance;
use crate::release::{Release, STATEMENT_TYPE, Statement, Verb};
use crate::review;

/// One subject, and it is this file. Its digest.
pub(super) fn subject(component: &[u8], statement: &Statement) -> Result<String, Refusal> {
    let [subject] = statement.subject.as_slice() else {
        return Err(Refusal::Subjects { count: statement.subject.len() });
    };
    let plugin = &statement.predicate.plugin;
    if subject.name.strip_suffix(".wasm") != Some(plugin.as_str()) {
        return Err(Refusal::Statement { what: "subject name", found: subject.name.clone() });
    }
    let digest = hex::encode(Sha256::digest(component));
    let size = statement.predicate.artifact.size;
    if subject.digest.sha256 == digest && usize::try_from(size) == Ok(component.len()) {
        return Ok(digest);
    }
    // Other bytes are refused whatever they are; what they are is told where eight of them
    // tell it.
    match component::preamble(component) {
        Err(what @ (component::Error::CoreModule | component::Error::Precompiled)) => Err(Refusal::Component(what)),
        _ => Err(Refusal::Digest { stated: subject.digest.sha256.clone(), real: digest }),
    }
}

/// What the statement says is well-formed and is about the wanted plugin.
pub(super) fn release(release: &Release, expect: Option<&str>) -> Result<(), Refusal> {
    let statement = |what, found: &str| Err(Refusal::Statement { what, found: found.to_owned() });
    if !names::is_plugin_id(&release.plugin) {
        return Err(Refusal::Name { found: release.plugin.clone() });
    }
    if expect.is_some_and(|expect| expect != release.plugin) {
        return Err(Refusal::Plugin { found: release.plugin.clone(), wanted: expect.map(str::to_owned) });
    }
    if !release.version.build.is_empty() {
        return Err(Refusal::Version { found: release.version.to_string() });
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

/// The review is of this release: its statement, its component and its verbs.
pub(super) fn review(
    statement: &review::Statement,
    release: &Release,
    digest: &str,
    payload_digest: &str,
) -> Result<(), Refusal> {
    let review = &statement.predicate;
    if review.release.sha256 != payload_digest {
        let reviewed = format!("{} {} ({})", review.plugin, review.version, review.release.sha256);
        return Err(Refusal::OtherReview { reviewed, real: payload_digest.to_owned() });
    }
    let malformed = |what| Err(Refusal::Review { what });
    match statement.subject.as_slice() {
        [subject] if subject.digest.sha256 == digest => {}
        _ => return malformed("its subject is not the component"),
    }
    if review.plugin != release.plugin || review.version != release.version {
        return malformed("it names another plugin or version");
    }
    if !review.verbs.iter().all(|verb| release.verbs.contains_key(verb)) {
        return malformed("it allows a verb that the release does not have");
    }
    if humantime::parse_rfc3339(&review.reviewed_at).is_err() {
        return malformed("its reviewedAt is no RFC 3339 time");
    }
    Ok(())
}

/// The provenance is of these bytes, and says what SLSA requires.
pub(super) fn provenance(statement: &provenance::Statement, digest: &str) -> Result<(), Refusal> {
    debug_assert_eq!(statement.kind, STATEMENT_TYPE, "told by its head");
    let about = |subject: &provenance::Resource| subject.digest.get("sha256").is_some_and(|found| found == digest);
    if !statement.subject.iter().any(about) {
        return Err(Refusal::Provenance { what: "subject" });
    }
    statement.predicate.check().map_err(|what| Refusal::Provenance { what })
}

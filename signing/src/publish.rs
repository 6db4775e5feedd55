//! The maker's side: from a component and its `plugin.toml` to a signed statement.
//! Refuses a manifest that does not fit the component, and any statement that a strict
//! reader would refuse.

use semver::Version;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

use crate::component;
use crate::constraints;
use crate::describe::{self, Description, describe};
use crate::dsse::{Envelope, MAX_SIGNATURES};
use crate::fault::{Faults, choices};
use crate::grant::CAPABILITIES;
use crate::manifest::Manifest;
use crate::release::{
    Artifact, Digest, PAYLOAD_TYPE, PREDICATE_TYPE, Release, STATEMENT_TYPE, Statement, Subject, Verb,
};
use crate::signer::{self, Signer};
use crate::strict_json::{self, Floats};
use crate::verify::MAX_STATEMENTS;
use crate::{provenance, review};

/// No bound: a release without `not_before` is valid from here on.
const ALWAYS: &str = "1970-01-01T00:00:00Z";
const GATEWAY: &str = "viworks:gateway/";
/// Interfaces that every plugin may use, without a scope.
const SHARED: [&str; 4] = ["types", "invocation", "log", "progress"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Component(#[from] component::Error),
    #[error(transparent)]
    Describe(#[from] describe::Error),
    #[error("plugin.toml does not fit the component")]
    Manifest(#[source] Faults),
    #[error("the statement can't be written as JSON")]
    Encode(#[source] serde_json::Error),
    #[error("no gateway would read the statement")]
    Unreadable(#[source] strict_json::Error),
    #[error("{count} keys; 1 to {MAX_SIGNATURES} can sign")]
    Keys { count: usize },
    #[error(transparent)]
    Signer(#[from] signer::Error),
}

/// The statement about `component`, which must be packed already if it is to have docs.
///
/// # Errors
/// Every fault of the manifest at once.
pub fn build_release(component: &[u8], manifest: &Manifest) -> Result<Statement, Error> {
    let description = describe(component)?;
    let mut faults = Faults::default();
    check_imports(&description.imports, manifest, &mut faults);
    let verbs = verbs(&description, manifest, &mut faults);
    let verbs = faults.or(verbs).map_err(Error::Manifest)?;
    let size = u32::try_from(component.len()).map_err(|_| component::Error::TooLarge { bytes: component.len() })?;
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject {
            name: format!("{}.wasm", manifest.id),
            digest: Digest { sha256: hex::encode(Sha256::digest(component)) },
        }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Release {
            plugin: manifest.id.clone(),
            version: manifest.version.clone(),
            epoch: manifest.epoch,
            sequence: manifest.sequence,
            artifact: Artifact { kind: "component".to_owned(), size },
            world: description.world,
            imports: description.imports,
            verbs,
            capabilities: manifest.capabilities.clone(),
            limits: manifest.limits,
            host_api: manifest.host_api.clone(),
            not_before: manifest.not_before.clone().unwrap_or_else(|| ALWAYS.to_owned()),
            description: manifest.description.clone(),
        },
    };
    encode(&statement)?;
    Ok(statement)
}

/// One line of JSON: the envelope around `statement`, signed by each of `keys`. The same
/// statement and keys give the same bytes.
///
/// # Errors
/// When it could not be read back, or there are no or too many keys.
pub fn sign_release(statement: &Statement, keys: &[&dyn Signer]) -> Result<String, Error> {
    sign(&encode(statement)?, keys)
}

/// As [`sign_release`], for a security review.
///
/// # Errors
/// As [`sign_release`].
pub fn sign_review(statement: &review::Statement, keys: &[&dyn Signer]) -> Result<String, Error> {
    sign(&encode(statement)?, keys)
}

/// As [`sign_release`], for provenance, which release keys sign.
///
/// # Errors
/// As [`sign_release`].
pub fn sign_provenance(statement: &provenance::Statement, keys: &[&dyn Signer]) -> Result<String, Error> {
    let payload = serde_json::to_vec(statement).map_err(Error::Encode)?;
    strict_json::check(&payload, MAX_STATEMENTS, Floats::Allowed).map_err(Error::Unreadable)?;
    sign(&payload, keys)
}

fn sign(payload: &[u8], keys: &[&dyn Signer]) -> Result<String, Error> {
    if keys.is_empty() || keys.len() > MAX_SIGNATURES {
        return Err(Error::Keys { count: keys.len() });
    }
    let envelope = Envelope::sign_with(PAYLOAD_TYPE, payload, keys)?;
    let mut line = serde_json::to_string(&envelope).map_err(Error::Encode)?;
    line.push('\n');
    strict_json::check(line.as_bytes(), MAX_STATEMENTS, Floats::Refused).map_err(Error::Unreadable)?;
    Ok(line)
}

fn encode(statement: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    let payload = serde_json::to_vec(statement).map_err(Error::Encode)?;
    strict_json::check(&payload, MAX_STATEMENTS, Floats::Refused).map_err(Error::Unreadable)?;
    Ok(payload)
}

/// A capability is asked for exactly if it is imported.
fn check_imports(imports: &[String], manifest: &Manifest, faults: &mut Faults) {
    let asked = manifest.capabilities.names();
    let mut used = Vec::new();
    for import in imports {
        if import.starts_with("wasi:") {
            continue;
        }
        let (name, version) = import.strip_prefix(GATEWAY).and_then(|rest| rest.split_once('@')).unzip();
        check_host_api(import, version, manifest, faults);
        match name {
            Some(name) if SHARED.contains(&name) => {}
            Some(name) if CAPABILITIES.contains(&name) => {
                used.push(name);
                if !asked.contains(&name) {
                    let wanted = format!("[capabilities.{name}], because the component imports {import}");
                    faults.add(format!("capabilities.{name}"), "nothing", wanted);
                }
            }
            _ => {
                let known = choices(SHARED.iter().chain(&CAPABILITIES));
                faults.add(
                    format!("import {import}"),
                    "no interface of a gateway",
                    format!("wasi:… or {GATEWAY}{known}"),
                );
            }
        }
    }
    for name in asked.into_iter().filter(|name| !used.contains(name)) {
        faults.add(format!("capabilities.{name}"), "a scope", "no scope, because the component does not import it");
    }
}

/// The lowest host API has every interface that is imported.
fn check_host_api(import: &str, version: Option<&str>, manifest: &Manifest, faults: &mut Faults) {
    let imported = version.and_then(|version| version.parse::<Version>().ok());
    let lowest = format!("{}.0", manifest.host_api).parse::<Version>().ok();
    if let (Some(imported), Some(lowest)) = (imported, lowest)
        && (imported.major != lowest.major || imported.minor > lowest.minor)
        && faults.0.iter().all(|fault| fault.key != "host_api")
    {
        let wanted = format!("\"{}.{}\", because the component imports {import}", imported.major, imported.minor);
        faults.add("host_api", format!("{:?}", manifest.host_api), wanted);
    }
}

fn verbs(description: &Description, manifest: &Manifest, faults: &mut Faults) -> BTreeMap<String, Verb> {
    let exported = || choices(description.verbs.keys());
    for unknown in manifest.verbs.keys().filter(|name| !description.verbs.contains_key(*name)) {
        faults.add(format!("verbs.{unknown}"), "a verb that the component does not export", exported());
    }
    let mut verbs = BTreeMap::new();
    for (name, types) in &description.verbs {
        let Some(written) = manifest.verbs.get(name) else {
            faults.add(
                format!("verbs.{name}"),
                "nothing",
                "a table with the verb's effect, since the component exports it",
            );
            continue;
        };
        let mut args = types.args.clone();
        constraints::merge(&format!("verbs.{name}.args"), &mut args, &written.args, faults);
        let verb = Verb {
            function: types.function.clone(),
            docs: types.docs.clone(),
            args,
            result: types.result.clone(),
            effect: written.effect,
            timeout_secs: written.timeout_secs,
        };
        verbs.insert(name.clone(), verb);
    }
    verbs
}

#[cfg(test)]
mod tests;

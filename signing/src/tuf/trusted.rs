//! What a complete update vouches for. Made by the client alone; says nothing of a target
//! that no role speaks for.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::metadata::{Kind as _, Signed, Snapshot, Target, Targets, Timestamp};
use super::names::matches;
use super::{Revocations, TufError};

/// Targets, revocations and versions of one consistent snapshot.
#[derive(Debug, Clone)]
pub struct Trusted {
    pub(super) versions: Versions,
    pub(super) targets: BTreeMap<String, TargetInfo>,
    pub(super) revocations: Revocations,
    /// Which role expires first, and when.
    pub(super) expires: (String, SystemTime),
}

/// What the bytes of a target are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetInfo {
    pub length: u64,
    /// Lowercase hex.
    pub sha256: String,
    /// The role that speaks for it.
    pub role: String,
    pub custom: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    pub root: u64,
    pub timestamp: u64,
    pub snapshot: u64,
    /// `targets` and the delegated roles.
    pub roles: BTreeMap<String, u64>,
}

impl Trusted {
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&TargetInfo> {
        self.targets.get(name)
    }

    /// All of them, by name.
    #[must_use]
    pub fn targets(&self) -> &BTreeMap<String, TargetInfo> {
        &self.targets
    }

    /// Whether `bytes` are the current target `name`.
    ///
    /// # Errors
    /// [`TufError::NoTarget`] or [`TufError::Mixed`].
    pub fn check(&self, name: &str, bytes: &[u8]) -> Result<(), TufError> {
        self.check_digest(name, bytes.len() as u64, &hex::encode(Sha256::digest(bytes)))
    }

    /// As [`Self::check`], for bytes that are hashed already (lowercase hex).
    ///
    /// # Errors
    /// [`TufError::NoTarget`] or [`TufError::Mixed`].
    pub fn check_digest(&self, name: &str, length: u64, sha256: &str) -> Result<(), TufError> {
        let target = self.target(name).ok_or_else(|| TufError::NoTarget { name: name.to_owned() })?;
        let mixed = |what| Err(TufError::Mixed { name: name.to_owned(), by: "the repository", what });
        if target.length != length {
            return mixed("another length");
        }
        if target.sha256 != sha256 {
            return mixed("other bytes");
        }
        Ok(())
    }

    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    #[must_use]
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The role that expires first, and when.
    #[must_use]
    pub fn expires(&self) -> (&str, SystemTime) {
        (&self.expires.0, self.expires.1)
    }

    /// Nothing has expired at `now`. Expiry blocks new admissions, never what is admitted.
    ///
    /// # Errors
    /// [`TufError::Expired`].
    pub fn fresh(&self, now: SystemTime) -> Result<(), TufError> {
        let (role, at) = &self.expires;
        if now < *at { Ok(()) } else { Err(TufError::Expired { role: role.clone(), at: *at }) }
    }
}

/// The target `name`, by whoever speaks for it: the top-level role itself, else the first
/// delegation that its name matches and no other.
pub(super) fn find<'a>(
    name: &str,
    top: &'a Targets,
    delegated: &'a BTreeMap<String, Signed<Targets>>,
) -> Option<(&'a str, &'a Target)> {
    if let Some(target) = top.targets.get(name) {
        return Some(("targets", target));
    }
    let roles = top.delegations.as_ref().map(|delegations| delegations.roles.as_slice()).unwrap_or_default();
    let role = roles.iter().find(|role| role.paths.iter().any(|path| matches(path, name)))?;
    let target = delegated.get(&role.name)?.body().targets.get(name)?;
    Some((role.name.as_str(), target))
}

/// Every target that somebody speaks for.
pub(super) fn all(top: &Targets, delegated: &BTreeMap<String, Signed<Targets>>) -> BTreeMap<String, TargetInfo> {
    let names = top.targets.keys().chain(delegated.values().flat_map(|role| role.body().targets.keys()));
    let info = |(role, target): (&str, &Target)| TargetInfo {
        length: target.length,
        sha256: target.hashes.sha256.clone(),
        role: role.to_owned(),
        custom: target.custom.clone(),
    };
    names.filter_map(|name| Some((name.clone(), info(find(name, top, delegated)?)))).collect()
}

pub(super) fn versions(
    root: u64,
    timestamp: &Signed<Timestamp>,
    snapshot: &Signed<Snapshot>,
    roles: &BTreeMap<String, Signed<Targets>>,
) -> Versions {
    Versions {
        root,
        timestamp: timestamp.version(),
        snapshot: snapshot.version(),
        roles: roles.iter().map(|(name, role)| (name.clone(), role.body().header().version)).collect(),
    }
}

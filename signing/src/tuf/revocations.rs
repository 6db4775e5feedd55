//! What was taken back: keys, digests, and releases up to a sequence. Refuses a list that
//! says less than one that was seen before; between two that disagree the stricter wins.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::names::is_sha256;
use super::{MAX_REVOCATIONS, REVOCATIONS, TufError};
use crate::names::is_plugin_id;
use crate::strict_json::{self, Floats};

/// What a gateway does with a running plugin whose digest was revoked. The later is the
/// stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Say so; nothing is refused.
    Alert,
    /// No new invocations and no new admission; what runs may end.
    Drain,
    /// End what runs.
    Stop,
}

/// The list, as a set in memory and as `revocations.json` outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Listed", try_from = "Listed")]
pub struct Revocations {
    keys: BTreeSet<String>,
    digests: BTreeMap<String, (Action, String)>,
    floors: BTreeMap<String, (u32, u32)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    keys: Vec<String>,
    digests: Vec<RevokedDigest>,
    floors: Vec<Floor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedDigest {
    /// Lowercase hex SHA-256 of the component.
    pub sha256: String,
    pub action: Action,
    pub reason: String,
}

/// Releases of `plugin` up to and with `(epoch, max_sequence)` are revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Floor {
    pub plugin: String,
    pub epoch: u32,
    pub max_sequence: u32,
}

/// Why a release may not be admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Revoked {
    #[error("digest {sha256} is revoked: {reason}")]
    Digest { sha256: String, action: Action, reason: String },
    #[error("releases of {plugin} up to {epoch}.{max_sequence} are revoked")]
    Floor { plugin: String, epoch: u32, max_sequence: u32 },
    #[error("key {id} is revoked")]
    Key { id: String },
}

impl Revoked {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Digest { .. } => "E_REVOKED_DIGEST",
            Self::Floor { .. } => "E_REVOKED_SEQUENCE",
            Self::Key { .. } => "E_REVOKED_KEY",
        }
    }
}

impl Revocations {
    /// Read `revocations.json`.
    ///
    /// # Errors
    /// [`TufError::Size`] or [`TufError::Json`].
    pub fn read(bytes: &[u8]) -> Result<Self, TufError> {
        let max = usize::try_from(MAX_REVOCATIONS).unwrap_or(usize::MAX);
        if bytes.len() > max {
            return Err(TufError::Size { name: REVOCATIONS.to_owned(), max: MAX_REVOCATIONS });
        }
        strict_json::from_slice(bytes, max, Floats::Refused)
            .map_err(|source| TufError::Json { name: REVOCATIONS.to_owned(), source })
    }

    /// `revocations.json`. The same list gives the same bytes.
    ///
    /// # Errors
    /// [`TufError::Encode`].
    pub fn write(&self) -> Result<Vec<u8>, TufError> {
        serde_json::to_vec(self).map_err(TufError::Encode)
    }

    pub fn revoke_key(&mut self, id: String) {
        self.keys.insert(id);
    }

    /// An action that was stricter before stays.
    pub fn revoke_digest(&mut self, sha256: String, action: Action, reason: String) {
        match self.digests.get(&sha256) {
            Some((known, _)) if *known >= action => {}
            _ => drop(self.digests.insert(sha256, (action, reason))),
        }
    }

    /// A floor that was higher before stays.
    pub fn raise_floor(&mut self, plugin: String, epoch: u32, max_sequence: u32) {
        let floor = self.floors.entry(plugin).or_insert((epoch, max_sequence));
        *floor = (*floor).max((epoch, max_sequence));
    }

    /// Both together: the stricter of each.
    pub fn merge(&mut self, other: &Self) {
        self.keys.extend(other.keys.iter().cloned());
        for (sha256, (action, reason)) in &other.digests {
            self.revoke_digest(sha256.clone(), *action, reason.clone());
        }
        for (plugin, (epoch, sequence)) in &other.floors {
            self.raise_floor(plugin.clone(), *epoch, *sequence);
        }
    }

    /// Whether everything that `earlier` revokes is revoked here as strictly.
    #[must_use]
    pub fn covers(&self, earlier: &Self) -> bool {
        let digest = |(sha256, (action, _)): (&String, &(Action, String))| {
            self.digests.get(sha256).is_some_and(|(now, _)| now >= action)
        };
        let floor = |(plugin, was): (&String, &(u32, u32))| self.floors.get(plugin).is_some_and(|now| now >= was);
        earlier.keys.is_subset(&self.keys) && earlier.digests.iter().all(digest) && earlier.floors.iter().all(floor)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.digests.is_empty() && self.floors.is_empty()
    }

    /// `id`: as [`crate::keys::PublicKey::id`] gives it. A revoked key's signature counts
    /// for nothing, so what else is signed by enough others stays valid.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<Revoked> {
        self.keys.contains(id).then(|| Revoked::Key { id: id.to_owned() })
    }

    /// What is said of the bytes with this digest.
    #[must_use]
    pub fn digest(&self, sha256: &str) -> Option<RevokedDigest> {
        let (action, reason) = self.digests.get(sha256)?;
        Some(RevokedDigest { sha256: sha256.to_owned(), action: *action, reason: reason.clone() })
    }

    /// Whether this release may not be admitted. A digest whose action is `alert` may.
    #[must_use]
    pub fn refuses(&self, plugin: &str, epoch: u32, sequence: u32, sha256: &str) -> Option<Revoked> {
        match self.digest(sha256) {
            Some(RevokedDigest { action, sha256, reason }) if action != Action::Alert => {
                return Some(Revoked::Digest { sha256, action, reason });
            }
            _ => {}
        }
        let &(floor, max_sequence) = self.floors.get(plugin)?;
        ((epoch, sequence) <= (floor, max_sequence)).then(|| Revoked::Floor {
            plugin: plugin.to_owned(),
            epoch: floor,
            max_sequence,
        })
    }

    /// All three lists, for people.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(String::as_str)
    }

    pub fn digests(&self) -> impl Iterator<Item = RevokedDigest> {
        self.digests.keys().filter_map(|sha256| self.digest(sha256))
    }

    pub fn floors(&self) -> impl Iterator<Item = Floor> {
        self.floors.iter().map(|(plugin, &(epoch, max_sequence))| Floor { plugin: plugin.clone(), epoch, max_sequence })
    }
}

impl From<Revocations> for Listed {
    fn from(revocations: Revocations) -> Self {
        Self {
            digests: revocations.digests().collect(),
            floors: revocations.floors().collect(),
            keys: revocations.keys.into_iter().collect(),
        }
    }
}

impl TryFrom<Listed> for Revocations {
    type Error = String;

    fn try_from(listed: Listed) -> Result<Self, String> {
        let mut revocations = Self::default();
        for id in listed.keys {
            if !is_sha256(&id) {
                return Err(format!("{id:?} is no key id"));
            }
            revocations.revoke_key(id);
        }
        for digest in listed.digests {
            if !is_sha256(&digest.sha256) {
                return Err(format!("{:?} is no SHA-256", digest.sha256));
            }
            revocations.revoke_digest(digest.sha256, digest.action, digest.reason);
        }
        for floor in listed.floors {
            if !is_plugin_id(&floor.plugin) {
                return Err(format!("{:?} is no plugin", floor.plugin));
            }
            revocations.raise_floor(floor.plugin, floor.epoch, floor.max_sequence);
        }
        Ok(revocations)
    }
}

//! What a client has verified so far, as one value. Its keeper writes it durably, whole and
//! at once, before anything that follows from it is used. Refuses nothing itself: a client
//! verifies all of it again when it starts.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::TufError;
use super::client::Client;
use super::revocations::Revocations;
use super::role::Role;
use super::trusted::Trusted;
use crate::strict_json::{self, Floats};

/// A stored state is never larger.
pub const MAX_STATE: usize = 32 * 1024 * 1024;

/// Roots after the trusted one, the current files, all revocations that were ever seen, and
/// a time that is certainly past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// In order, without a gap.
    pub(super) roots: Vec<String>,
    pub(super) known: Known,
    pub(super) timestamp: Option<String>,
    /// `snapshot`, `targets`, the delegated roles and `revocations.json` of one complete
    /// update, by name.
    pub(super) files: BTreeMap<String, String>,
    pub(super) revocations: Revocations,
    /// Seconds since 1970.
    pub(super) floor: u64,
}

/// The highest versions that were seen, which no later ones may go below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    pub root: u64,
    /// With the version of its snapshot.
    pub timestamp: Option<(Seen, u64)>,
    /// With the versions that it gives.
    pub snapshot: Option<(Seen, BTreeMap<String, u64>)>,
    pub roles: BTreeMap<String, Seen>,
}

/// A version, and the keys that the role had then (hex): once one of them is taken away,
/// the version is no measure any more, since that key may have driven it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    pub version: u64,
    pub keys: BTreeSet<String>,
}

impl Seen {
    pub fn of(version: u64, role: &Role) -> Self {
        Self { version, keys: key_set(role) }
    }

    pub fn lost_a_key(&self, role: &Role) -> bool {
        !self.keys.is_subset(&key_set(role))
    }
}

fn key_set(role: &Role) -> BTreeSet<String> {
    role.keys().values().map(|key| hex::encode(key.bytes())).collect()
}

impl State {
    /// As one JSON document.
    ///
    /// # Errors
    /// [`TufError::Encode`].
    pub fn encode(&self) -> Result<Vec<u8>, TufError> {
        serde_json::to_vec(self).map_err(TufError::Encode)
    }

    /// What [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`TufError::State`]: the caller decides what a host does that has lost its memory.
    pub fn decode(bytes: &[u8]) -> Result<Self, TufError> {
        strict_json::from_slice(bytes, MAX_STATE, Floats::Refused).map_err(TufError::State)
    }

    /// The latest of the system's clock, the last time that a complete update proved, and
    /// `build`, when the program was made. A clock that was set back gains nothing; one that
    /// was set ahead raises the floor no further than the metadata of that time was valid.
    #[must_use]
    pub fn time(&self, system: SystemTime, build: SystemTime) -> SystemTime {
        system.max(build).max(self.floor())
    }

    #[must_use]
    pub fn floor(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.floor)).unwrap_or(UNIX_EPOCH)
    }

    /// What the last complete update vouches for, verified anew from `trusted_root` on, with
    /// nothing fetched. Expiry is the caller's to ask for: [`Trusted::fresh`].
    ///
    /// # Errors
    /// [`TufError::Missing`] before the first complete update, and after a rotation of keys
    /// that no complete update followed.
    pub fn trusted(&self, trusted_root: &[u8]) -> Result<Trusted, TufError> {
        Client::offline(trusted_root, self.clone())
    }

    /// The same without its floor, for whoever judges a copy by another copy.
    #[must_use]
    pub fn forget_time(self) -> Self {
        Self { floor: 0, ..self }
    }

    /// Everything that was ever revoked, whatever became of the rest.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    pub(super) fn raise_floor(&mut self, now: SystemTime) {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.floor = self.floor.max(seconds);
    }
}

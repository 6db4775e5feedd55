//! The highest that was ever seen: of each plugin's releases, of the repository's roots, and
//! everything that was revoked. Kept in two directories, so that losing one of them
//! brings nothing old back. It only grows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use viworks_signing::tuf::Revocations;

use crate::vault::{Vault, VaultError};

pub(crate) const FILE: &str = "floors.json";
const MAX_BYTES: u64 = 2 << 20;

/// The two directories, under the state directory.
const PLACES: [&str; 2] = ["plugins", "trust"];

/// Shared by who raises them and who asks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Floors(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    vaults: Vec<Vault>,
    known: Known,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Known {
    plugins: BTreeMap<String, Highest>,
    /// By the SHA-256 of the root file that the owner trusts.
    repositories: BTreeMap<String, Seen>,
}

/// The highest release of one plugin that was active here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Highest {
    pub epoch: u32,
    pub sequence: u32,
    pub digest: String,
}

/// What is remembered of one repository, whatever becomes of its metadata. Versions of the
/// other roles are not: they may begin anew after their keys were replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seen {
    pub root: u64,
    pub revocations: Revocations,
}

#[derive(Debug, thiserror::Error)]
pub enum FloorsError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("{FILE} is malformed in both of its places")]
    Malformed(#[source] serde_json::Error),
    #[error("{FILE} could not be written as JSON")]
    Encode(#[source] serde_json::Error),
}

impl Floors {
    /// Read both copies and take the higher of each. One that is malformed is replaced.
    ///
    /// # Errors
    /// When neither can be read, or the directories are not safe to use.
    pub fn open(state_dir: &Path) -> Result<Self, FloorsError> {
        let vaults = PLACES.map(|place| Vault::open(&state_dir.join(place)));
        let vaults = vaults.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (mut known, mut copies, mut malformed) = (Known::default(), Vec::new(), None);
        for (vault, place) in vaults.iter().zip(PLACES) {
            let Some(bytes) = vault.read(FILE, MAX_BYTES)? else { continue };
            match serde_json::from_slice::<Known>(&bytes) {
                Ok(copy) => copies.push(copy),
                Err(error) => {
                    tracing::error!(target: "audit", place, %error, "a copy of the floors is malformed");
                    malformed = Some(error);
                }
            }
        }
        if let (true, Some(error)) = (copies.is_empty(), malformed) {
            return Err(FloorsError::Malformed(error));
        }
        copies.iter().for_each(|copy| known.raise(copy));
        let floors = Inner { vaults, known };
        if copies.iter().any(|copy| *copy != floors.known) || copies.len() == 1 {
            tracing::warn!(target: "audit", "the floors' copies differed: the higher of each is kept");
            floors.write()?;
        }
        Ok(Self(Arc::new(Mutex::new(floors))))
    }

    /// The highest release of a plugin.
    #[must_use]
    pub fn plugin(&self, id: &str) -> Option<Highest> {
        self.lock().known.plugins.get(id).cloned()
    }

    /// Raise a plugin's, durably in both places.
    ///
    /// # Errors
    /// When one could not be written: then the release must not become active.
    pub fn raise_plugin(&self, id: &str, highest: Highest) -> Result<(), FloorsError> {
        let plugins = BTreeMap::from([(id.to_owned(), highest)]);
        self.raise(&Known { plugins, ..Known::default() })
    }

    /// What was seen of a repository.
    #[must_use]
    pub fn repository(&self, id: &str) -> Seen {
        self.lock().known.repositories.get(id).cloned().unwrap_or_default()
    }

    /// Raise a repository's, durably in both places.
    ///
    /// # Errors
    /// When one could not be written: then the update must not be used.
    pub fn raise_repository(&self, id: &str, seen: Seen) -> Result<(), FloorsError> {
        let repositories = BTreeMap::from([(id.to_owned(), seen)]);
        self.raise(&Known { repositories, ..Known::default() })
    }

    fn raise(&self, other: &Known) -> Result<(), FloorsError> {
        let mut inner = self.lock();
        let mut next = inner.known.clone();
        next.raise(other);
        if next == inner.known {
            return Ok(());
        }
        // Kept in memory even if the disk refuses: it was seen.
        inner.known = next;
        inner.write()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&self) -> Result<(), FloorsError> {
        let text = serde_json::to_vec(&self.known).map_err(FloorsError::Encode)?;
        self.vaults.iter().try_for_each(|vault| vault.write(FILE, &text)).map_err(FloorsError::Vault)
    }
}

impl Known {
    fn raise(&mut self, other: &Self) {
        for (id, highest) in &other.plugins {
            let higher = |known: &Highest| (known.epoch, known.sequence) < (highest.epoch, highest.sequence);
            if self.plugins.get(id).is_none_or(higher) {
                self.plugins.insert(id.clone(), highest.clone());
            }
        }
        for (id, seen) in &other.repositories {
            self.repositories.entry(id.clone()).or_default().raise(seen);
        }
    }
}

impl Seen {
    fn raise(&mut self, other: &Self) {
        self.root = self.root.max(other.root);
        self.revocations.merge(&other.revocations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    type Tested = Result<(), Box<dyn std::error::Error>>;

    fn highest(epoch: u32, sequence: u32) -> Highest {
        Highest { epoch, sequence, digest: format!("{epoch}.{sequence}") }
    }

    #[test]
    fn one_copy_lost_or_older_loses_nothing() -> Tested {
        let dir = tempfile::tempdir()?;
        let floors = Floors::open(dir.path())?;
        assert_eq!(floors.plugin("vpn"), None);
        floors.raise_plugin("vpn", highest(0, 7))?;
        let old = fs::read(dir.path().join("trust").join(FILE))?;
        floors.raise_plugin("vpn", highest(1, 2))?;
        floors.raise_plugin("vpn", highest(0, 9))?;
        assert_eq!(floors.plugin("vpn"), Some(highest(1, 2)), "a lower one changes nothing");

        for place in PLACES {
            fs::remove_file(dir.path().join(place).join(FILE))?;
            assert_eq!(Floors::open(dir.path())?.plugin("vpn"), Some(highest(1, 2)), "without {place}");
            assert!(dir.path().join(place).join(FILE).exists(), "the copy is made again");
            fs::write(dir.path().join(place).join(FILE), &old)?;
            assert_eq!(Floors::open(dir.path())?.plugin("vpn"), Some(highest(1, 2)), "with {place} as it was");
            fs::write(dir.path().join(place).join(FILE), "{")?;
            assert_eq!(Floors::open(dir.path())?.plugin("vpn"), Some(highest(1, 2)), "with {place} cut off");
        }
        for place in PLACES {
            fs::write(dir.path().join(place).join(FILE), "{")?;
        }
        assert!(matches!(Floors::open(dir.path()), Err(FloorsError::Malformed(_))), "never as if nothing was known");
        Ok(())
    }

    #[test]
    fn what_was_seen_of_a_repository_only_grows() -> Tested {
        let dir = tempfile::tempdir()?;
        let floors = Floors::open(dir.path())?;
        let mut revocations = Revocations::default();
        revocations.raise_floor("vpn".into(), 0, 3);
        floors.raise_repository("r", Seen { root: 4, revocations })?;
        floors.raise_repository("r", Seen { root: 2, ..Seen::default() })?;
        let seen = Floors::open(dir.path())?.repository("r");
        assert_eq!(seen.root, 4);
        assert!(seen.revocations.refuses("vpn", 0, 3, "").is_some());
        assert_eq!(floors.repository("other"), Seen::default(), "another root is another repository");
        Ok(())
    }
}

//! The bundles on this host's disk, and which of them is active: what survives a restart.
//! Remembers the highest release of every plugin that ever was active here, so that an
//! older one can't be brought back. Trusts nothing of it: every bundle is verified again
//! when it is loaded.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use viworks_signing::release::Release;
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS};

use super::vault::{Vault, VaultError};

const INDEX: &str = "active.json";
const MAX_INDEX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Store {
    vault: Vault,
    index: Index,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    plugins: BTreeMap<String, Entry>,
}

/// What is known of one plugin id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Of the component that is active; none once it was retired.
    pub(super) active: Option<String>,
    /// The highest that ever was active, and its digest.
    epoch: u32,
    sequence: u32,
    highest: String,
    /// Unix seconds of the last admission: no later check is made with an earlier clock.
    pub(super) admitted: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("{INDEX} is malformed")]
    Index(#[source] serde_json::Error),
}

/// A release that is not newer than one that was active.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rollback {
    #[error("release {found:?} is older than {highest:?}, which was active here")]
    Older { found: (u32, u32), highest: (u32, u32) },
    #[error("another component with the same epoch and sequence {0:?} was active here")]
    SameSequence((u32, u32)),
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let vault = Vault::open(dir)?;
        let index = match vault.read(INDEX, MAX_INDEX)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(StoreError::Index)?,
            None => Index::default(),
        };
        Ok(Self { vault, index })
    }

    pub(super) fn active(&self) -> Vec<(String, Entry)> {
        let active = self.index.plugins.iter().filter(|(_, entry)| entry.active.is_some());
        active.map(|(id, entry)| (id.clone(), entry.clone())).collect()
    }

    /// The component and its statements as they lie on disk.
    pub(super) fn bundle(&self, digest: &str) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        let component = self.vault.read(&component_name(digest), MAX_COMPONENT as u64)?;
        let statements = self.vault.read(&statements_name(digest), MAX_STATEMENTS as u64)?;
        Ok(component.zip(statements).map(|(c, s)| (c, String::from_utf8_lossy(&s).into_owned())))
    }

    /// Whether this release may become active after those that were.
    pub(super) fn check(&self, release: &Release, digest: &str) -> Result<(), Rollback> {
        let Some(entry) = self.index.plugins.get(&release.plugin) else { return Ok(()) };
        let (found, highest) = ((release.epoch, release.sequence), (entry.epoch, entry.sequence));
        match found.cmp(&highest) {
            std::cmp::Ordering::Less => Err(Rollback::Older { found, highest }),
            std::cmp::Ordering::Equal if entry.highest != digest => Err(Rollback::SameSequence(found)),
            _ => Ok(()),
        }
    }

    /// Make a bundle the active one of its plugin, durably: its files first, then the
    /// index that names them, then what it replaces goes.
    pub(super) fn activate(
        &mut self,
        release: &Release,
        digest: &str,
        component: &[u8],
        statements: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        self.vault.write(&component_name(digest), component)?;
        self.vault.write(&statements_name(digest), statements.as_bytes())?;
        let mut index = self.index.clone();
        let (epoch, sequence) = (release.epoch, release.sequence);
        let entry =
            Entry { active: Some(digest.to_owned()), epoch, sequence, highest: digest.to_owned(), admitted: now };
        index.plugins.insert(release.plugin.clone(), entry);
        self.save(index)
    }

    /// Make a plugin inactive, durably. What it was is remembered.
    pub(super) fn retire(&mut self, plugin: &str) -> Result<(), StoreError> {
        let mut index = self.index.clone();
        if let Some(entry) = index.plugins.get_mut(plugin) {
            entry.active = None;
        }
        self.save(index)
    }

    fn save(&mut self, index: Index) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(&index).map_err(StoreError::Index)?;
        self.vault.write(INDEX, &text)?;
        self.index = index;
        self.sweep();
        Ok(())
    }

    /// Remove the files that nothing names, also those of a write that was cut off.
    pub(super) fn sweep(&self) {
        let active: Vec<&str> = self.index.plugins.values().filter_map(|entry| entry.active.as_deref()).collect();
        let Ok(names) = self.vault.names() else { return };
        for name in names.iter().filter(|name| *name != INDEX) {
            if !active.iter().any(|digest| *name == component_name(digest) || *name == statements_name(digest)) {
                self.vault.remove(name);
            }
        }
    }
}

fn component_name(digest: &str) -> String {
    format!("{digest}.wasm")
}

fn statements_name(digest: &str) -> String {
    format!("{digest}.wasm.intoto.jsonl")
}

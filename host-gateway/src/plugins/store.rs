//! The bundles on this host's disk, and which of them is active: what survives a restart.
//! Remembers the highest release of every plugin that ever was active here, so that an
//! older one can't be brought back. Trusts nothing of it: every bundle is verified again
//! when it is loaded.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use viworks_signing::release::Release;
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS};

use crate::trust::{FLOORS, Floors, FloorsError, Highest, Past};
use crate::vault::{Vault, VaultError};

const INDEX: &str = "active.json";
const MAX_INDEX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Store {
    vault: Vault,
    index: Index,
    floors: Floors,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    plugins: BTreeMap<String, Entry>,
}

/// What is known of one plugin id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Of the component that is active; none once it was retired.
    pub(super) active: Option<String>,
    /// Of the component that was active before it and is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<String>,
    /// The highest that ever was active, and its digest.
    epoch: u32,
    sequence: u32,
    highest: String,
    /// Unix seconds of the last admission: no later check is made with an earlier clock.
    pub(super) admitted: u64,
    /// Which release repository (its trusted root) each of the two was found in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    repositories: BTreeMap<String, String>,
}

impl Entry {
    fn floor(&self) -> Highest {
        Highest { epoch: self.epoch, sequence: self.sequence, digest: self.highest.clone() }
    }

    /// Of what is active and what is kept.
    pub(super) fn digests(&self) -> impl Iterator<Item = &str> {
        [self.active.as_deref(), self.kept.as_deref()].into_iter().flatten()
    }

    /// Whether this component was admitted as a target of that repository.
    fn was_in(&self, digest: &str, repository: &str) -> bool {
        self.repositories.get(digest).is_some_and(|known| known == repository)
    }
}

/// A bundle to be made active, and why it may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Activation<'a> {
    pub(super) release: &'a Release,
    pub(super) digest: &'a str,
    pub(super) component: &'a [u8],
    pub(super) statements: &'a str,
    /// Unix seconds.
    pub(super) now: u64,
    /// The repository that it is a target of, if one is trusted.
    pub(super) repository: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Floors(#[from] FloorsError),
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
    pub(super) fn open(dir: &Path, floors: Floors) -> Result<Self, StoreError> {
        let vault = Vault::open(dir)?;
        let index = read(&vault)?;
        let store = Self { vault, index, floors };
        // Of a gateway that did not keep them yet.
        for (id, entry) in &store.index.plugins {
            store.floors.raise_plugin(id, entry.floor())?;
        }
        Ok(store)
    }

    pub(super) fn active(&self) -> Vec<(String, Entry)> {
        let active = self.index.plugins.iter().filter(|(_, entry)| entry.active.is_some());
        active.map(|(id, entry)| (id.clone(), entry.clone())).collect()
    }

    /// The component and its statements as they lie on disk.
    pub(super) fn bundle(&self, digest: &str) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        files(&self.vault, digest)
    }

    /// Whether this release may become active after those that were.
    pub(super) fn check(&self, release: &Release, digest: &str) -> Result<(), Rollback> {
        let Some(known) = self.floors.plugin(&release.plugin) else { return Ok(()) };
        let (found, highest) = ((release.epoch, release.sequence), (known.epoch, known.sequence));
        match found.cmp(&highest) {
            std::cmp::Ordering::Less => Err(Rollback::Older { found, highest }),
            std::cmp::Ordering::Equal if known.digest != digest => Err(Rollback::SameSequence(found)),
            _ => Ok(()),
        }
    }

    /// What is known of a component already, where `repository` is trusted.
    pub(super) fn past(&self, plugin: &str, digest: &str, repository: Option<&str>) -> Past {
        match self.index.plugins.get(plugin).filter(|entry| entry.digests().any(|known| known == digest)) {
            Some(entry) if repository.is_some_and(|repository| entry.was_in(digest, repository)) => Past::Admitted,
            Some(_) => Past::Active,
            None => Past::New,
        }
    }

    /// Make a bundle the active one of its plugin, durably: its files first, then the
    /// index that names them, then what is neither active nor kept goes.
    pub(super) fn activate(&mut self, new: Activation<'_>) -> Result<(), StoreError> {
        self.vault.write(&component_name(new.digest), new.component)?;
        self.vault.write(&statements_name(new.digest), new.statements.as_bytes())?;
        let (epoch, sequence) = (new.release.epoch, new.release.sequence);
        self.floors.raise_plugin(&new.release.plugin, Highest { epoch, sequence, digest: new.digest.to_owned() })?;
        let mut index = self.index.clone();
        let entry = index.plugins.entry(new.release.plugin.clone()).or_default();
        if entry.active.as_deref() != Some(new.digest) {
            entry.kept = entry.active.replace(new.digest.to_owned());
        }
        (entry.epoch, entry.sequence) = (new.release.epoch, new.release.sequence);
        (entry.highest, entry.admitted) = (new.digest.to_owned(), new.now);
        let (active, kept) = (entry.active.clone(), entry.kept.clone());
        entry.repositories.retain(|digest, _| Some(digest) == active.as_ref() || Some(digest) == kept.as_ref());
        match new.repository {
            Some(repository) => drop(entry.repositories.insert(new.digest.to_owned(), repository.to_owned())),
            None => drop(entry.repositories.remove(new.digest)),
        }
        self.save(index)
    }

    /// Let the active and the kept release of a plugin change places, durably.
    pub(super) fn fall_back(&mut self, plugin: &str) -> Result<(), StoreError> {
        let mut index = self.index.clone();
        if let Some(entry) = index.plugins.get_mut(plugin).filter(|entry| entry.kept.is_some()) {
            std::mem::swap(&mut entry.active, &mut entry.kept);
        }
        self.save(index)
    }

    /// Remember that a component was found in a repository since it was admitted.
    pub(super) fn found_in(&mut self, plugin: &str, digest: &str, repository: &str) -> Result<(), StoreError> {
        let mut index = self.index.clone();
        match index.plugins.get_mut(plugin) {
            Some(entry) if !entry.was_in(digest, repository) => {
                entry.repositories.insert(digest.to_owned(), repository.to_owned());
                self.save(index)
            }
            _ => Ok(()),
        }
    }

    /// Make a plugin inactive, durably. What it was is remembered.
    pub(super) fn retire(&mut self, plugin: &str) -> Result<(), StoreError> {
        let mut index = self.index.clone();
        if let Some(entry) = index.plugins.get_mut(plugin) {
            (entry.active, entry.kept) = (None, None);
            entry.repositories.clear();
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
        let active: Vec<&str> = self.index.plugins.values().flat_map(Entry::digests).collect();
        let Ok(names) = self.vault.names() else { return };
        for name in names.iter().filter(|name| *name != INDEX && *name != FLOORS) {
            if !active.iter().any(|digest| *name == component_name(digest) || *name == statements_name(digest)) {
                self.vault.remove(name);
            }
        }
    }
}

fn read(vault: &Vault) -> Result<Index, StoreError> {
    match vault.read(INDEX, MAX_INDEX)? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(StoreError::Index),
        None => Ok(Index::default()),
    }
}

fn files(vault: &Vault, digest: &str) -> Result<Option<(Vec<u8>, String)>, StoreError> {
    let component = vault.read(&component_name(digest), MAX_COMPONENT as u64)?;
    let statements = vault.read(&statements_name(digest), MAX_STATEMENTS as u64)?;
    Ok(component.zip(statements).map(|(c, s)| (c, String::from_utf8_lossy(&s).into_owned())))
}

/// The active releases under `state_dir`, plugin and digest, for who looks at them from
/// outside.
///
/// # Errors
/// When the store can't be read.
pub fn active_in(state_dir: &Path) -> Result<BTreeMap<String, String>, StoreError> {
    let dir = state_dir.join("plugins");
    if !dir.is_dir() {
        return Ok(BTreeMap::new());
    }
    let index = read(&Vault::open(&dir)?)?;
    Ok(index.plugins.into_iter().filter_map(|(id, entry)| Some((id, entry.active?))).collect())
}

/// Component and statements of a release under `state_dir`.
///
/// # Errors
/// When the store can't be read.
pub fn bundle_in(state_dir: &Path, digest: &str) -> Result<Option<(Vec<u8>, String)>, StoreError> {
    files(&Vault::open(&state_dir.join("plugins"))?, digest)
}

fn component_name(digest: &str) -> String {
    format!("{digest}.wasm")
}

fn statements_name(digest: &str) -> String {
    format!("{digest}.wasm.intoto.jsonl")
}

//! A repository's folder: `metadata/`, `pending/`, `targets/` and `repository.toml`. One
//! command at a time; every file is replaced whole and on the disk before the next one, the
//! timestamp last, so that a reader at any moment, and whoever comes after a power cut, finds
//! one consistent version. Refuses names that no client asks for.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use viworks_signing::tuf::repo::{Days, Repository, Written};
use viworks_signing::tuf::{MAX_PROGRAM, MAX_TARGETS, Place, is_target, place};

use super::super::{Error, files};
use super::Fault;

const SETTINGS: &str = "repository.toml";
const TIMESTAMP: &str = "timestamp.json";

/// A folder that is locked until this is dropped.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    _lock: File,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// For how many days each role's file is valid.
    days: Days,
}

impl Dir {
    /// The folder `path`, made if it is not there.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { verb: "make", path: path.to_owned(), source };
        for part in ["metadata", "pending", "targets"] {
            fs::create_dir_all(path.join(part)).map_err(io)?;
        }
        let lock = File::create(path.join(".lock")).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Fault::Busy { path: path.to_owned() }.into()),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there.
    pub fn open(&self) -> Result<Repository, Error> {
        let (metadata, pending) = (self.metadata("metadata")?, self.metadata("pending")?);
        if metadata.is_empty() && pending.is_empty() {
            return Err(Fault::None { path: self.path.clone() }.into());
        }
        let targets = |name: &str| self.target(name);
        Ok(Repository::open(metadata, &pending, self.days()?, targets).map_err(Fault::from)?)
    }

    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.metadata("metadata")?.is_empty() && self.metadata("pending")?.is_empty())
    }

    pub fn days(&self) -> Result<Days, Error> {
        let path = self.path.join(SETTINGS);
        if !path.exists() {
            return Ok(Days::default());
        }
        let text = files::read_text(&path, files::MAX_TEXT)?;
        let settings: Settings = toml::from_str(&text).map_err(|source| Fault::Settings { path, source })?;
        Ok(settings.days)
    }

    pub fn set_days(&self, days: &Days) -> Result<(), Error> {
        let text = toml::to_string(&Settings { days: days.clone() }).map_err(Fault::WriteSettings)?;
        self.replace("", SETTINGS, text.as_bytes())
    }

    /// Files of metadata by name.
    pub fn metadata(&self, part: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let folder = self.path.join(part);
        let io = |source| Error::Io { verb: "read", path: folder.clone(), source };
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if place(&name) == Some(Place::Metadata) {
                let max = usize::try_from(MAX_TARGETS).unwrap_or(usize::MAX);
                found.insert(name, files::read(&entry.path(), max)?);
            }
        }
        Ok(found)
    }

    /// The file `name`, as it lies in `targets/`, if it is there.
    pub fn target(&self, name: &str) -> Option<Vec<u8>> {
        let max = usize::try_from(MAX_PROGRAM).unwrap_or(usize::MAX).max(viworks_signing::verify::MAX_COMPONENT);
        is_target(name).then(|| files::read(&self.path.join("targets").join(name), max).ok()).flatten()
    }

    /// Targets, drafts, metadata, then the timestamp; drafts that were published go last.
    pub fn write(&self, written: Written) -> Result<(), Error> {
        for (name, bytes) in &written.targets {
            // A name holds its own digest: what is there is the same.
            if self.target(name).as_ref() != Some(bytes) {
                self.replace("targets", name, bytes)?;
            }
        }
        self.sync("targets")?;
        for (name, bytes) in &written.pending {
            self.replace("pending", name, bytes)?;
        }
        self.sync("pending")?;
        for (name, bytes) in &written.metadata {
            self.replace("metadata", name, bytes)?;
        }
        self.sync("metadata")?;
        if let Some(bytes) = &written.timestamp {
            self.replace("metadata", TIMESTAMP, bytes)?;
            self.sync("metadata")?;
        }
        for name in written.gone.iter().filter(|name| !written.pending.contains_key(*name)) {
            // A draft that stays although it was published is passed over when it is read.
            let _ = fs::remove_file(self.path.join("pending").join(name));
        }
        Ok(())
    }

    fn replace(&self, part: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
        files::replace(&self.path.join(part).join(name), bytes)
    }

    fn sync(&self, part: &str) -> Result<(), Error> {
        let path = self.path.join(part);
        let synced = File::open(&path).and_then(|folder| folder.sync_all());
        synced.map_err(|source| Error::Io { verb: "write", path, source })
    }
}

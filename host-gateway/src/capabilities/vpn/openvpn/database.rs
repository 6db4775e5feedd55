//! The certificates that the gateway issued: one JSON line each, in issuing order, mode
//! 0600. Refuses a damaged index: who may connect must never be guessed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::super::files::{self, Snapshot};
use super::super::name::PeerName;
use super::Serial;
use crate::failure::Failure;

/// One certificate. No key is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: PeerName,
    pub(super) serial: Serial,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) issued: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) expires: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) revoked: Option<OffsetDateTime>,
    /// Revoked, but nobody could say whether a session was ended: removing it again tries.
    pub(super) session_may_stand: bool,
}

#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    file: Snapshot,
    pub(super) entries: Vec<Entry>,
}

impl Entry {
    pub(super) fn active(&self) -> bool {
        self.revoked.is_none()
    }
}

impl Database {
    pub(super) fn open(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join("certificates.jsonl");
        let file = files::read(&path)?;
        let mut entries = Vec::new();
        for (number, line) in file.bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            entries.push(serde_json::from_slice(line).map_err(|e| {
                Failure::Unavailable(format!("{} line {} is damaged: {e}", path.display(), number + 1))
            })?);
        }
        Ok(Self { path, file, entries })
    }

    pub(super) fn save(&mut self) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        for entry in &self.entries {
            serde_json::to_writer(&mut bytes, entry).map_err(|e| Failure::Failed(e.to_string()))?;
            bytes.push(b'\n');
        }
        self.file = files::replace(&self.path, &self.file, &bytes, 0o600)?;
        Ok(())
    }

    /// The newest certificate of that name that was not revoked.
    pub(super) fn active(&self, name: &PeerName) -> Option<&Entry> {
        self.entries.iter().rev().find(|e| e.active() && e.name == *name)
    }

    /// # Errors
    /// `not-found`.
    pub(super) fn entry(&mut self, name: &PeerName, serial: &Serial) -> Result<&mut Entry, Failure> {
        let found = self.entries.iter_mut().find(|e| e.name == *name && e.serial == *serial);
        found.ok_or_else(|| Failure::NotFound(format!("no certificate {serial} of {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_entries_and_refuses_damage() {
        let dir = tempfile::tempdir().unwrap();
        let name = PeerName::try_from("a".to_owned()).unwrap();
        let mut db = Database::open(dir.path()).unwrap();
        let at = OffsetDateTime::UNIX_EPOCH;
        for revoked in [Some(at), None] {
            let serial = Serial::random().unwrap();
            let entry =
                Entry { name: name.clone(), serial, issued: at, expires: at, revoked, session_may_stand: false };
            db.entries.push(entry);
            db.save().unwrap();
        }
        let again = Database::open(dir.path()).unwrap();
        assert_eq!(again.entries, db.entries);
        assert_eq!(again.active(&name), db.entries.last());
        let path = dir.path().join("certificates.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert!(matches!(Database::open(dir.path()), Err(Failure::Unavailable(why)) if why.contains("line 2")));
    }
}

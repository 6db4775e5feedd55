//! `STATE_DIR/versions`: the choice, and a folder a program, named by its digest. The choice is
//! replaced whole and durably; a program is there under its name only when its bytes were
//! verified, and is verified again before every start.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::PROGRAM;
use super::choice::{Choice, Entry};
use crate::vault::{Vault, VaultError};

const FOLDER: &str = "versions";
const CHOICE: &str = "choice.json";
const PART: &str = "part";
const MAX_CHOICE: u64 = 256 * 1024;

/// The folder. One process at a time writes to it: the gateway that holds the state directory.
#[derive(Debug)]
pub struct Versions {
    path: PathBuf,
    vault: Vault,
}

#[derive(Debug, thiserror::Error)]
pub enum VersionsError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("the choice of versions can't be read or written")]
    Choice(#[from] serde_json::Error),
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the program in {0} is not the one that was chosen")]
    Bytes(PathBuf),
}

impl Versions {
    /// # Errors
    /// When the folder can't be made, or somebody else may write to it.
    pub fn open(state_dir: &Path) -> Result<Self, VersionsError> {
        let path = state_dir.join(FOLDER);
        Ok(Self { vault: Vault::open(&path)?, path })
    }

    /// # Errors
    /// When it can't be read. A choice that is not there is the installed program.
    pub fn choice(&self) -> Result<Choice, VersionsError> {
        let bytes = self.vault.read(CHOICE, MAX_CHOICE)?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?.unwrap_or_default())
    }

    pub(super) fn keep(&self, choice: &Choice) -> Result<(), VersionsError> {
        Ok(self.vault.write(CHOICE, &serde_json::to_vec_pretty(choice)?)?)
    }

    /// Where the program is or would be.
    pub(super) fn program(&self, digest: &str) -> PathBuf {
        self.path.join(digest).join(PROGRAM)
    }

    /// Whether the program is there, with the bytes that were chosen.
    pub(super) fn verify(&self, entry: &Entry) -> Result<(), VersionsError> {
        let folder = Vault::open(&self.path.join(&entry.digest))?;
        let path = self.program(&entry.digest);
        let Some(file) = folder.file(PROGRAM)? else { return Err(VersionsError::Bytes(path)) };
        let io = |source| VersionsError::Io { path: path.clone(), source };
        if digest(file, entry.length).map_err(io)? == entry.digest { Ok(()) } else { Err(VersionsError::Bytes(path)) }
    }

    /// What was fetched of it so far; opened to go on writing.
    pub(super) fn part(&self, entry: &Entry) -> Result<(File, u64), VersionsError> {
        let path = self.path.join(format!("{}.{PART}", entry.digest));
        let io = |source| VersionsError::Io { path: path.clone(), source };
        let file = File::options().append(true).create(true).mode(0o600).open(&path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        Ok((file, length))
    }

    /// Make the part the program, if its bytes are the right ones; else it is removed.
    pub(super) fn complete(&self, entry: &Entry) -> Result<(), VersionsError> {
        let name = format!("{}.{PART}", entry.digest);
        let (part, path) = (self.path.join(&name), self.program(&entry.digest));
        let io = |source| VersionsError::Io { path: part.clone(), source };
        let file = self.vault.file(&name)?.ok_or_else(|| VersionsError::Bytes(part.clone()))?;
        file.sync_all().map_err(io)?;
        if digest(file, entry.length).map_err(io)? != entry.digest {
            fs::remove_file(&part).map_err(io)?;
            return Err(VersionsError::Bytes(part));
        }
        drop(Vault::open(&self.path.join(&entry.digest))?);
        fs::set_permissions(&part, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(io)?;
        fs::rename(&part, &path).map_err(io)?;
        File::open(self.path.join(&entry.digest)).and_then(|folder| folder.sync_all()).map_err(io)
    }

    /// Remove every program that the choice does not name, and what was fetched of others.
    pub(super) fn sweep(&self, choice: &Choice, fetching: Option<&Entry>) {
        let wanted: Vec<&str> = [&choice.current, &choice.previous]
            .into_iter()
            .flatten()
            .chain(fetching)
            .map(|entry| entry.digest.as_str())
            .collect();
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest = name.split('.').next().unwrap_or_default();
            if digest.len() == 64 && !wanted.contains(&digest) {
                // What can't be removed now is removed the next time.
                let path = entry.path();
                let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            }
        }
    }
}

/// Lowercase hex, of at most `length` bytes and one more, so that a longer file is another.
pub(super) fn digest(file: File, length: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = file.take(length + 1);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

//! Where a repository's files come from: a directory, or an upload that holds them all.
//! Transport, not trust: what is read here is verified by whoever asked for it. Refuses
//! names that could be paths, and reads no more than was asked for.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use viworks_signing::tuf::{self, Place};

/// A repository as `viworks-sign repo` lays it out.
#[derive(Debug, Clone)]
pub enum Source {
    Directory(PathBuf),
    /// By path, `metadata/…` and `targets/…`.
    Files(BTreeMap<String, Bytes>),
}

impl Source {
    /// A metadata file, or the list of revocations, by the name that a client asks for.
    ///
    /// # Errors
    /// When it is there and can't be read. Longer ones come with one byte too many.
    pub fn metadata(&self, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        match tuf::place(name) {
            Some(Place::Metadata) => self.read("metadata", name, max),
            Some(Place::Targets) => self.read("targets", name, max),
            None => Ok(None),
        }
    }

    /// The bytes of the target `name` with this digest.
    ///
    /// # Errors
    /// As [`Source::metadata`].
    pub fn target(&self, sha256: &str, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        if tuf::is_target(name) { self.read("targets", &format!("{sha256}.{name}"), max) } else { Ok(None) }
    }

    /// What tells that there is news: the timestamp's length and time of change.
    #[must_use]
    pub fn stamp(&self) -> Option<(SystemTime, u64)> {
        let Self::Directory(dir) = self else { return None };
        let data = std::fs::metadata(dir.join("metadata/timestamp.json")).ok()?;
        Some((data.modified().ok()?, data.len()))
    }

    fn read(&self, folder: &str, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Files(files) => Ok(files.get(&format!("{folder}/{name}")).map(|bytes| bytes.to_vec())),
            Self::Directory(dir) => read_file(&dir.join(folder).join(name), max),
        }
    }
}

fn read_file(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

//! A directory of the gateway's own: 0700, owned by this user, no symlink followed, every
//! file 0600 and replaced whole. Refuses a file or directory that anybody else could have
//! written.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::process::geteuid;

/// An open directory; names are resolved in it and nowhere else.
#[derive(Debug)]
pub struct Vault {
    dir: OwnedFd,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{path}: {what}")]
    Unsafe { path: PathBuf, what: &'static str },
    #[error("{path} is larger than {max} bytes")]
    TooLarge { path: PathBuf, max: u64 },
    #[error("{path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Vault {
    /// Open the directory, making it if it is not there. Its parent must be.
    ///
    /// # Errors
    /// When it can't be made, is a symlink, or others may write to it.
    pub(crate) fn open(path: &Path) -> Result<Self, VaultError> {
        let io = |source: rustix::io::Errno| VaultError::Io { path: path.to_owned(), source: source.into() };
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(io(error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let dir = openat(CWD, path, flags, Mode::empty()).map_err(io)?;
        let stat = fstat(&dir).map_err(io)?;
        let refuse = |what| Err(VaultError::Unsafe { path: path.to_owned(), what });
        if stat.st_uid != geteuid().as_raw() {
            return refuse("owned by another user");
        }
        if stat.st_mode & 0o077 != 0 {
            return refuse("open to others; it must be 0700");
        }
        Ok(Self { dir, path: path.to_owned() })
    }

    /// A regular file of this user's own, by its name. `None` if there is none.
    ///
    /// # Errors
    /// When it is a symlink, has a second name, or others may read or write it.
    pub(crate) fn file(&self, name: &str) -> Result<Option<File>, VaultError> {
        let path = self.path.join(name);
        let io = |source: rustix::io::Errno| VaultError::Io { path: path.clone(), source: source.into() };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return Err(VaultError::Unsafe { path, what: "a symlink" }),
            Err(error) => return Err(io(error)),
        };
        let stat = fstat(&fd).map_err(io)?;
        let what = match () {
            () if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => "not a regular file",
            () if stat.st_uid != geteuid().as_raw() => "owned by another user",
            () if stat.st_mode & 0o077 != 0 => "open to others; it must be 0600",
            () if stat.st_nlink != 1 => "has a second name",
            () => return Ok(Some(File::from(fd))),
        };
        Err(VaultError::Unsafe { path, what })
    }

    /// A whole file of at most `max` bytes. `None` if there is none.
    ///
    /// # Errors
    /// As [`Vault::file`], or when it is larger or can't be read.
    pub(crate) fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, VaultError> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let path = || self.path.join(name);
        let mut bytes = Vec::new();
        file.take(max + 1).read_to_end(&mut bytes).map_err(|source| VaultError::Io { path: path(), source })?;
        if bytes.len() as u64 > max { Err(VaultError::TooLarge { path: path(), max }) } else { Ok(Some(bytes)) }
    }

    /// Replace a file, durably and at once: a reader sees the old one or the new one.
    ///
    /// # Errors
    /// When it can't be written; the old file stays.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), VaultError> {
        let temporary = format!("{name}.new");
        let written = self.write_as(&temporary, bytes).and_then(|()| {
            renameat(&self.dir, &temporary, &self.dir, name)?;
            Ok(fsync(&self.dir)?)
        });
        written.map_err(|source| {
            // What is left of a failed write only takes room.
            let _ = unlinkat(&self.dir, &temporary, AtFlags::empty());
            VaultError::Io { path: self.path.join(name), source }
        })
    }

    fn write_as(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Of an earlier write that was cut off, perhaps.
        let _ = unlinkat(&self.dir, name, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Remove a file if it is there.
    pub(crate) fn remove(&self, name: &str) {
        match unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => tracing::warn!(path = %self.path.join(name).display(), %error, "could not remove"),
        }
    }

    /// The names of all files.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub(crate) fn names(&self) -> Result<Vec<String>, VaultError> {
        let io = |source: rustix::io::Errno| VaultError::Io { path: self.path.clone(), source: source.into() };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    type Tested = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn what_others_could_have_written_is_refused() -> Tested {
        let root = tempfile::tempdir()?;
        let path = root.path().join("v");
        let vault = Vault::open(&path)?;
        vault.write("a", b"one")?;
        vault.write("a", b"two")?;
        assert_eq!(vault.read("a", 3)?.as_deref(), Some(&b"two"[..]));
        assert_eq!(vault.names()?, ["a"]);
        assert!(matches!(vault.read("a", 2), Err(VaultError::TooLarge { .. })));
        assert!(vault.read("b", 9)?.is_none());

        symlink(path.join("a"), path.join("link"))?;
        assert!(matches!(vault.file("link"), Err(VaultError::Unsafe { what: "a symlink", .. })));
        std::fs::hard_link(path.join("a"), path.join("hard"))?;
        assert!(matches!(vault.file("a"), Err(VaultError::Unsafe { what: "has a second name", .. })));
        vault.remove("hard");
        std::fs::set_permissions(path.join("a"), std::fs::Permissions::from_mode(0o640))?;
        assert!(matches!(vault.file("a"), Err(VaultError::Unsafe { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750))?;
        assert!(matches!(Vault::open(&path), Err(VaultError::Unsafe { .. })));
        symlink(&path, root.path().join("w"))?;
        assert!(Vault::open(&root.path().join("w")).is_err());
        Ok(())
    }
}

//! Small files that other programs own too: read whole, replaced in one step. Refuses
//! symbolic links, anything that is not a regular file, and a file that somebody else
//! changed between reading and replacing it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Files larger than this are refused: they are not what they are said to be.
pub(super) const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// A file as it was read; empty where there was none.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// Overwritten when dropped: most of these files hold keys.
    pub(super) bytes: Zeroizing<Vec<u8>>,
    identity: Option<Identity>,
}

/// What tells whether a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    inode: u64,
    size: i64,
    changed: (i64, i64),
    modified_secs: i64,
    mode: u32,
    owner: (u32, u32),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{} is not a regular file of its own (a symbolic link, a device or a hard link)", .0.display())]
    NotRegular(PathBuf),
    #[error("{} is larger than {MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error("{} was changed by somebody else meanwhile", .0.display())]
    Changed(PathBuf),
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    #[error("{} can't be {step}", path.display())]
    Io { path: PathBuf, step: &'static str, source: std::io::Error },
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        match &error {
            FileError::Changed(_) => Self::Conflict(error.to_string()),
            FileError::Io { source, .. } => Self::Unavailable(format!("{error}: {source}")),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl Snapshot {
    /// Permission bits, where the file exists.
    pub(super) fn mode(&self) -> Option<u32> {
        self.identity.map(|i| i.mode & 0o7777)
    }
}

/// Read a file that may be absent.
///
/// # Errors
/// [`FileError`]; never follows a link at the path's last component.
pub(super) fn read(path: &Path) -> Result<Snapshot, FileError> {
    let io = |step| move |e: Errno| FileError::Io { path: path.to_owned(), step, source: e.into() };
    // Not blocking: a FIFO in the file's place must not hold the gateway up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Snapshot { bytes: Zeroizing::default(), identity: None }),
        Err(Errno::LOOP) => return Err(FileError::NotRegular(path.to_owned())),
        Err(e) => return Err(io("opened")(e)),
    };
    let identity = identity(path, &fs::fstat(&fd).map_err(io("examined"))?)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(identity.size).unwrap_or(0) + 1));
    File::from(fd).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|source| FileError::Io {
        path: path.to_owned(),
        step: "read",
        source,
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(Snapshot { bytes, identity: Some(identity) })
}

/// Read a file that must be there.
///
/// # Errors
/// [`FileError::Missing`] besides those of [`read`].
pub(super) fn read_existing(path: &Path) -> Result<Snapshot, FileError> {
    let snapshot = read(path)?;
    if snapshot.identity.is_none() { Err(FileError::Missing(path.to_owned())) } else { Ok(snapshot) }
}

/// Replace what was read by `bytes`: written beside it, flushed, renamed over it. The owner
/// stays, the modification time grows by a second at least (OpenVPN looks at nothing finer).
///
/// # Errors
/// [`FileError`]; the old file is untouched then.
pub(super) fn replace(path: &Path, old: &Snapshot, bytes: &[u8], mode: u32) -> Result<Snapshot, FileError> {
    let io = |step| move |e: Errno| FileError::Io { path: path.to_owned(), step, source: e.into() };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| FileError::NotRegular(path.to_owned()))?;
    let dir = fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io("replaced in its directory"))?;

    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|e| FileError::Io {
        path: path.to_owned(),
        step: "named",
        source: std::io::Error::other(e),
    })?;
    let scratch = format!(".{}.{}", name.to_string_lossy(), hex::encode(random));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(&dir, scratch.as_str(), flags, Mode::RUSR | Mode::WUSR).map_err(io("written"))?;
    let scratch = Scratch { dir: &dir, name: scratch, keep: false };
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(|source| FileError::Io { path: path.to_owned(), step: "written", source })?;
    if let Some(before) = old.identity {
        let made = identity(path, &fs::fstat(&file).map_err(io("examined"))?)?;
        if made.owner != before.owner {
            let (uid, gid) = before.owner;
            fs::fchown(&file, Some(fs::Uid::from_raw(uid)), Some(fs::Gid::from_raw(gid))).map_err(io("given back"))?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs().cast_signed());
        let stamp = Timespec { tv_sec: now.max(before.modified_secs.saturating_add(1)), tv_nsec: 0 };
        fs::futimens(&file, &Timestamps { last_access: stamp, last_modification: stamp }).map_err(io("stamped"))?;
    }
    fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(io("protected"))?;
    fs::fsync(&file).map_err(io("flushed"))?;

    if current(&dir, name, path)? != old.identity {
        return Err(FileError::Changed(path.to_owned()));
    }
    scratch.rename(name).map_err(io("replaced"))?;
    fs::fsync(&dir).map_err(io("flushed in its directory"))?;
    Ok(Snapshot { bytes: Zeroizing::new(bytes.to_vec()), identity: current(&dir, name, path)? })
}

fn current(dir: &rustix::fd::OwnedFd, name: &OsStr, path: &Path) -> Result<Option<Identity>, FileError> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => identity(path, &stat).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(FileError::Io { path: path.to_owned(), step: "examined", source: e.into() }),
    }
}

fn identity(path: &Path, stat: &fs::Stat) -> Result<Identity, FileError> {
    if !fs::FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_nlink > 1 {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    Ok(Identity {
        inode: stat.st_ino,
        size: stat.st_size,
        changed: (stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
        modified_secs: stat.st_mtime,
        mode: stat.st_mode,
        owner: (stat.st_uid, stat.st_gid),
    })
}

/// A file beside the real one, gone unless it was renamed.
struct Scratch<'a> {
    dir: &'a rustix::fd::OwnedFd,
    name: String,
    keep: bool,
}

impl Scratch<'_> {
    fn rename(mut self, to: &OsStr) -> Result<(), Errno> {
        fs::renameat(self.dir, self.name.as_str(), self.dir, to)?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::unlinkat(self.dir, self.name.as_str(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn replaces_with_the_mode_and_a_later_second() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let made = replace(&path, &read(&path).unwrap(), b"one", 0o600).unwrap();
        let first = std::fs::metadata(&path).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o600);
        let again = replace(&path, &made, b"two", 0o644).unwrap();
        let second = std::fs::metadata(&path).unwrap();
        assert!(second.mtime() > first.mtime());
        assert_eq!((again.mode(), &again.bytes[..]), (Some(0o644), &b"two"[..]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn refuses_links_and_what_changed_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link, hard) = (dir.path().join("a"), dir.path().join("l"), dir.path().join("h"));
        std::fs::write(&path, "mine").unwrap();
        symlink(&path, &link).unwrap();
        assert!(matches!(read(&link), Err(FileError::NotRegular(_))));
        let absent = Snapshot { bytes: Zeroizing::default(), identity: None };
        assert!(matches!(replace(&link, &absent, b"x", 0o600), Err(FileError::NotRegular(_))));

        let old = read(&path).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert!(matches!(replace(&path, &old, b"x", 0o600), Err(FileError::Changed(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");

        std::fs::hard_link(&path, &hard).unwrap();
        assert!(matches!(read(&path), Err(FileError::NotRegular(_))));
        assert!(matches!(read_existing(&dir.path().join("none")), Err(FileError::Missing(_))));
    }
}

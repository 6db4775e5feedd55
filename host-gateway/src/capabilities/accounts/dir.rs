//! Directories held by descriptor, so that a path can't be swapped between a check and its
//! use. Refuses symbolic links at every step, and parents that others can write.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::fs::{fchmod, fchown, fstat, fsync, mkdirat, openat, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};

use crate::failure::Failure;

/// An open directory.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

#[derive(Debug, thiserror::Error)]
pub(super) enum DirError {
    #[error("{0} is a symbolic link or no directory")]
    NotADirectory(String),
    #[error("{0} is a symbolic link or no regular file")]
    NotAFile(String),
    #[error("{what} belongs to uid {owner}, not to {wanted}")]
    ForeignOwner { what: String, owner: u32, wanted: u32 },
    #[error("{0} can be written by others than root")]
    OpenToOthers(String),
    #[error("{0} exists already")]
    Exists(String),
    #[error("{0} is not there")]
    Missing(String),
    #[error("{0} is on another file system: set `quarantine` to a directory on the file system of the homes")]
    OtherFileSystem(String),
    #[error("{0} is larger than {1} bytes")]
    TooBig(String, u64),
    #[error("{0} is not UTF-8")]
    NotText(String),
    #[error("{step} {what}: {source}")]
    System { step: &'static str, what: String, source: Errno },
}

impl From<DirError> for Failure {
    fn from(error: DirError) -> Self {
        match error {
            DirError::System { .. } => Self::Failed(error.to_string()),
            DirError::Missing(_) => Self::NotFound(error.to_string()),
            _ => Self::Conflict(error.to_string()),
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn failed(step: &'static str, what: &str) -> impl FnOnce(Errno) -> DirError {
    let what = what.to_owned();
    move |source| match source {
        Errno::NOENT => DirError::Missing(what),
        Errno::EXIST | Errno::NOTEMPTY => DirError::Exists(what),
        Errno::XDEV => DirError::OtherFileSystem(what),
        source => DirError::System { step, what, source },
    }
}

impl Dir {
    /// Open the directory that everything else is reached from: the owner's configuration
    /// names it, so links in its own path are followed.
    pub(super) fn base(path: &Path) -> Result<Self, DirError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let what = path.display().to_string();
        rustix::fs::open(path, flags, Mode::empty()).map(Self).map_err(failed("open", &what))
    }

    /// Walk down an absolute path below this directory: every step is a directory of root
    /// or of this gateway that nobody else can write.
    pub(super) fn walk(&self, absolute: &str) -> Result<Self, DirError> {
        self.descend(absolute, |_, _, _| Ok(()))
    }

    /// The same, making what is missing with mode 0755.
    pub(super) fn walk_making(&self, absolute: &str) -> Result<Self, DirError> {
        self.descend(absolute, |dir, step, so_far| match mkdirat(&dir.0, step, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(failed("make", so_far)(e)),
        })
    }

    fn descend(
        &self,
        absolute: &str,
        before: impl Fn(&Self, &str, &str) -> Result<(), DirError>,
    ) -> Result<Self, DirError> {
        let mut dir = Self(self.0.try_clone().map_err(|_| failed("open", absolute)(Errno::MFILE))?);
        let mut so_far = String::new();
        for step in absolute.split('/').filter(|s| !s.is_empty()) {
            so_far = format!("{so_far}/{step}");
            before(&dir, step, &so_far)?;
            dir = dir.open(step, &so_far)?;
            let stat = dir.stat(&so_far)?;
            if stat.st_uid != 0 {
                dir.owned_by(geteuid().as_raw(), &so_far)?;
            }
            if stat.st_mode & 0o022 != 0 {
                return Err(DirError::OpenToOthers(so_far));
            }
        }
        Ok(dir)
    }

    /// Open a directory in this one, never through a link. `what` is for error texts.
    pub(super) fn open(&self, name: &str, what: &str) -> Result<Self, DirError> {
        match openat(&self.0, name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Self(fd)),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(DirError::NotADirectory(what.to_owned())),
            Err(e) => Err(failed("open", what)(e)),
        }
    }

    /// Make a directory in this one that only its maker can enter, and open it.
    pub(super) fn make(&self, name: &str, what: &str) -> Result<Self, DirError> {
        mkdirat(&self.0, name, Mode::RWXU).map_err(failed("make", what))?;
        self.open(name, what)
    }

    pub(super) fn stat(&self, what: &str) -> Result<Stat, DirError> {
        fstat(&self.0).map_err(failed("look at", what))
    }

    /// Whether anything has this name here; a link is something.
    pub(super) fn has(&self, name: &str, what: &str) -> Result<bool, DirError> {
        match statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(failed("look at", what)(e)),
        }
    }

    pub(super) fn owned_by(&self, uid: u32, what: &str) -> Result<(), DirError> {
        owned(self.stat(what)?.st_uid, uid, what)
    }

    pub(super) fn give_to(&self, (uid, gid): (u32, u32), what: &str) -> Result<(), DirError> {
        fchown(&self.0, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed("give away", what))
    }

    pub(super) fn set_mode(&self, mode: u32, what: &str) -> Result<(), DirError> {
        fchmod(&self.0, Mode::from_raw_mode(mode)).map_err(failed("set the mode of", what))
    }

    /// Read a small regular file of `uid`, never through a link. `None` if there is none.
    pub(super) fn read(&self, name: &str, uid: u32, max: u64, what: &str) -> Result<Option<String>, DirError> {
        // NONBLOCK: opening a FIFO that somebody put there must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO) => return Err(DirError::NotAFile(what.to_owned())),
            Err(e) => return Err(failed("open", what)(e)),
        };
        let stat = fstat(&fd).map_err(failed("look at", what))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(DirError::NotAFile(what.to_owned()));
        }
        owned(stat.st_uid, uid, what)?;
        let mut bytes = Vec::new();
        let read = File::from(fd).take(max + 1).read_to_end(&mut bytes);
        read.map_err(|_| failed("read", what)(Errno::IO))?;
        if bytes.len() as u64 > max {
            return Err(DirError::TooBig(what.to_owned(), max));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| DirError::NotText(what.to_owned()))
    }

    /// Put a whole file in place of whatever has that name, at once and durably: written
    /// beside it with its final mode and owner, then renamed over it.
    pub(super) fn write(
        &self,
        name: &str,
        bytes: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
        what: &str,
    ) -> Result<(), DirError> {
        let mut noise = [0_u8; 8];
        getrandom::fill(&mut noise).map_err(|_| failed("name", what)(Errno::AGAIN))?;
        let beside = format!(".{name}.{}", hex::encode(noise));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.0, &beside, flags, Mode::RUSR | Mode::WUSR).map_err(failed("make", what))?;
        let written = (|| {
            let mut file = File::from(fd);
            file.write_all(bytes).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            fchmod(&file, Mode::from_raw_mode(mode))?;
            if let Some((uid, gid)) = owner {
                fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            fsync(&file)?;
            renameat(&self.0, &beside, &self.0, name)?;
            fsync(&self.0)
        })();
        written.map_err(|e| {
            let _ = unlinkat(&self.0, &beside, AtFlags::empty());
            failed("write", what)(e)
        })
    }

    /// Remove a file; one that is not there is removed.
    pub(super) fn unlink(&self, name: &str, what: &str) -> Result<(), DirError> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) => fsync(&self.0).map_err(failed("sync", what)),
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed("remove", what)(e)),
        }
    }

    /// Move an entry into another directory of the same file system, over nothing.
    pub(super) fn move_to(&self, name: &str, to: &Self, new_name: &str, what: &str) -> Result<(), DirError> {
        renameat_with(&self.0, name, &to.0, new_name, RenameFlags::NOREPLACE).map_err(failed("move", what))?;
        fsync(&self.0).and_then(|()| fsync(&to.0)).map_err(failed("sync", what))
    }

    /// Names in this directory, at most `max`.
    pub(super) fn names(&self, max: usize, what: &str) -> Result<Vec<String>, DirError> {
        let entries = rustix::fs::Dir::read_from(&self.0).map_err(failed("list", what))?;
        let names = entries.filter_map(Result::ok).filter_map(|e| e.file_name().to_str().ok().map(str::to_owned));
        Ok(names.filter(|n| n != "." && n != "..").take(max).collect())
    }

    /// Who owns the entry of that name, a link's owner being the link's.
    pub(super) fn owner_of(&self, name: &str) -> Option<u32> {
        statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|s| s.st_uid)
    }
}

fn owned(owner: u32, wanted: u32, what: &str) -> Result<(), DirError> {
    if owner == wanted { Ok(()) } else { Err(DirError::ForeignOwner { what: what.to_owned(), owner, wanted }) }
}

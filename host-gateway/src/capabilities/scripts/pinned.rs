//! A script whose bytes are the pinned ones, and stay so. The file is opened once, never
//! through a link; its bytes are copied into a memory file, which is sealed against every
//! change and only then hashed. What runs is that memory file: whoever replaces or rewrites
//! the script meanwhile changes nothing, so there is no moment between hash and run.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fstat, memfd_create, open, openat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Bounds a script, which is held in memory while it runs.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Sealed bytes that match their pin.
#[derive(Debug)]
pub(super) struct Pinned(File);

#[derive(Debug, thiserror::Error)]
pub(super) enum PinError {
    #[error("there is no script {0}")]
    Missing(String),
    #[error("script {0} is a symbolic link or no regular file")]
    NotAFile(String),
    #[error("{0} belongs to somebody else than root and this gateway")]
    ForeignOwner(String),
    #[error("{0} can be written by its group or by others")]
    OpenToOthers(String),
    #[error("script {0} is larger than {MAX_BYTES} bytes")]
    TooBig(String),
    #[error("script {0} is not the file that the policy pins")]
    OtherBytes(String),
    #[error("script {name}: {source}")]
    System { name: String, source: std::io::Error },
}

impl Pinned {
    /// # Errors
    /// If the file, or the directory it is in, is not safe to trust, or its SHA-256 (lowercase
    /// hex) is another.
    pub(super) fn open(root: &Path, name: &str, sha256: &str) -> Result<Self, PinError> {
        let system = |e: Errno| PinError::System { name: name.to_owned(), source: e.into() };
        let dir = open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(system)?;
        trusted(&fstat(&dir).map_err(system)?, "the scripts root")?;
        // NONBLOCK: a FIFO of that name must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&dir, name, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOENT => PinError::Missing(name.to_owned()),
            Errno::LOOP | Errno::NXIO => PinError::NotAFile(name.to_owned()),
            other => system(other),
        })?;
        let stat = fstat(&file).map_err(system)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(PinError::NotAFile(name.to_owned()));
        }
        trusted(&stat, &format!("script {name}"))?;

        let io = |source| PinError::System { name: name.to_owned(), source };
        let mut sealed = memory_file(name).map_err(system)?;
        let copied = std::io::copy(&mut File::from(file).take(MAX_BYTES + 1), &mut sealed).map_err(io)?;
        if copied > MAX_BYTES {
            return Err(PinError::TooBig(name.to_owned()));
        }
        sealed.flush().map_err(io)?;
        fcntl_add_seals(&sealed, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)
            .map_err(system)?;

        sealed.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut hasher = Sha256::new();
        let mut chunk = [0_u8; 16 * 1024];
        loop {
            match sealed.read(&mut chunk).map_err(io)? {
                0 => break,
                n => hasher.update(&chunk[..n]),
            }
        }
        if hex::encode(hasher.finalize()) != sha256 {
            return Err(PinError::OtherBytes(name.to_owned()));
        }
        Ok(Self(sealed))
    }

    /// Where the kernel, and the interpreter of a `#!` line, can open it: through this
    /// process' descriptor table, so that no program inherits the descriptor. Good while
    /// `self` lives.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

/// Kernels since 6.3 want to be told that it is to be executed; older ones don't know.
fn memory_file(name: &str) -> Result<File, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(name, flags).map(File::from),
        made => made.map(File::from),
    }
}

fn trusted(stat: &rustix::fs::Stat, what: &str) -> Result<(), PinError> {
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(PinError::ForeignOwner(what.to_owned()));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(PinError::OpenToOthers(what.to_owned()));
    }
    Ok(())
}

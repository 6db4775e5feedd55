//! Files: read whole up to a cap, written whole or not at all. Refuses to overwrite keys.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

use super::Error;

/// Manifests and public keys.
pub(crate) const MAX_TEXT: usize = 256 * 1024;
/// Private keys and passwords.
const MAX_SECRET: usize = 16 * 1024;

/// The file's bytes, at most `max` of them.
pub(crate) fn read(path: &Path, max: usize) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(io_error("read", path))?;
    read_from(file, Vec::new(), path, max)
}

pub(crate) fn read_text(path: &Path, max: usize) -> Result<String, Error> {
    String::from_utf8(read(path, max)?).map_err(|_| Error::Text { path: path.to_owned() })
}

/// A secret's text. Only its owner may be able to read the file.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Error> {
    let file = File::open(path).map_err(io_error("read", path))?;
    let mode = file.metadata().map_err(io_error("read", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Readable { path: path.to_owned(), mode });
    }
    // Large enough from the start: a buffer that grows leaves copies behind.
    let bytes = read_from(file, Vec::with_capacity(MAX_SECRET + 1), path, MAX_SECRET)?;
    String::from_utf8(bytes).map(Zeroizing::new).map_err(|_| Error::Text { path: path.to_owned() })
}

fn read_from(file: File, mut bytes: Vec<u8>, path: &Path, max: usize) -> Result<Vec<u8>, Error> {
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() > max { Err(Error::TooLarge { path: path.to_owned(), max }) } else { Ok(bytes) }
}

/// A new file with `mode`, on the disk when this returns. An existing one stays as it is.
pub(crate) fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|source| {
            match source.kind() {
                io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
                _ => io_error("write", path)(source),
            }
        })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

/// Replace the file at once: whoever opens it sees the old bytes or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = create(&temporary, 0o644, bytes)
        .and_then(|()| std::fs::rename(&temporary, path).map_err(io_error("write", path)));
    if written.is_err() && !matches!(written, Err(Error::Exists { .. })) {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn io_error(verb: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { verb, path: path.to_owned(), source }
}

//! Files: read whole up to a cap, written whole or not at all. Refuses to overwrite keys.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Error;

/// Manifests and public keys.
pub(crate) const MAX_TEXT: usize = 256 * 1024;

/// The file's bytes, at most `max` of them.
pub(crate) fn read(path: &Path, max: usize) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(io_error("read", path))?;
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() > max { Err(Error::TooLarge { path: path.to_owned(), max }) } else { Ok(bytes) }
}

pub(crate) fn read_text(path: &Path, max: usize) -> Result<String, Error> {
    String::from_utf8(read(path, max)?).map_err(|_| Error::Text { path: path.to_owned() })
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

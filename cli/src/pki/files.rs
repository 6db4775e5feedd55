//! Files of the PKI: written whole or not at all, keys readable by their owner alone.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Before anything is made, so that a refusal leaves nothing half done.
pub(super) fn refuse_existing(paths: &[PathBuf], force: bool) -> Result<(), Error> {
    match paths.iter().find(|path| !force && path.symlink_metadata().is_ok()) {
        Some(path) => Err(Error::Exists(path.clone())),
        None => Ok(()),
    }
}

pub(super) fn secret(path: &Path, text: &str, force: bool) -> Result<(), Error> {
    write(path, text, 0o600, force)
}

pub(super) fn public(path: &Path, text: &str, force: bool) -> Result<(), Error> {
    write(path, text, 0o644, force)
}

/// The mode holds from the first byte on. A new file appears under its name only when it
/// is complete; `force` decides what becomes of one that is there.
fn write(path: &Path, text: &str, mode: u32, force: bool) -> Result<(), Error> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::file("make the folder", dir))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // A link refuses to replace, a rename replaces.
        if force { fs::rename(&temporary, path) } else { fs::hard_link(&temporary, path) }
    });
    // Left over by a link or a failure; gone after a rename.
    let _ = fs::remove_file(&temporary);
    written.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => Error::File { step: "write it", path: path.to_owned(), source },
    })
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::file("read it", path))
}

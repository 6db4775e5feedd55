//! The files and directories that a configuration names: read with a bound, and refused
//! when others could read a secret or write what is trusted.

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Access, access};
use zeroize::Zeroizing;

use super::fault::Faults;

/// No file of a configuration is larger.
const MAX_BYTES: u64 = 1024 * 1024;

/// Read a file that anyone may read and only its owner should write.
pub(super) fn read_shared(key: &str, path: &Path, faults: &mut Faults) -> Option<String> {
    let (bytes, mode) = read(key, path, faults)?;
    if mode & 0o002 != 0 {
        faults.add(key, path.display(), "can be written by everyone", format!("chmod o-w {}", path.display()));
    }
    String::from_utf8(bytes.to_vec())
        .inspect_err(|_| faults.add(key, path.display(), "is not UTF-8 text", "name the right file"))
        .ok()
}

/// Read a file that nobody but its owner may read.
pub(super) fn read_private(key: &str, path: &Path, faults: &mut Faults) -> Option<Zeroizing<Vec<u8>>> {
    let (bytes, mode) = read(key, path, faults)?;
    if mode & 0o077 != 0 {
        let who = if mode & 0o004 != 0 { "everyone" } else { "more than its owner" };
        let problem = format!("can be read or written by {who} (mode {:03o})", mode & 0o777);
        faults.add(key, path.display(), problem, format!("chmod 600 {}, and replace the key", path.display()));
    }
    Some(bytes)
}

fn read(key: &str, path: &Path, faults: &mut Faults) -> Option<(Zeroizing<Vec<u8>>, u32)> {
    let attempt = || {
        let file = std::fs::File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(std::io::Error::other("larger than 1 MiB"));
        }
        Ok((bytes, metadata.permissions().mode()))
    };
    attempt()
        .inspect_err(|e| {
            let mend = match e.kind() {
                std::io::ErrorKind::NotFound => "put the file there, or name the right one",
                std::io::ErrorKind::PermissionDenied => "let the gateway's user read it",
                _ => "name the right file",
            };
            faults.add(key, path.display(), format!("can't be read: {e}"), mend);
        })
        .ok()
}

/// A directory that the gateway makes if it is absent, and writes to.
pub(super) fn writable_dir(key: &str, path: &Path, faults: &mut Faults) {
    if !path.is_absolute() {
        faults.add(key, path.display(), "is not an absolute path", "begin it with /");
        return;
    }
    if path.exists() && !path.is_dir() {
        faults.add(key, path.display(), "is not a directory", "name a directory");
        return;
    }
    let Some(there) = path.ancestors().find(|p| p.exists()) else { return };
    if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let problem = format!("is not writable: {} is not", there.display());
        faults.add(key, path.display(), problem, "let the gateway's user write there, or name another directory");
    }
    if std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o1002 == 0o002) {
        faults.add(key, path.display(), "can be written by everyone", format!("chmod 700 {}", path.display()));
    }
}

/// A file that the gateway makes, in a directory that it can write.
pub(super) fn writable_parent(key: &str, path: &Path, faults: &mut Faults) {
    match path.parent() {
        Some(parent) if path.is_absolute() => writable_dir(key, parent, faults),
        _ => faults.add(key, path.display(), "is not an absolute path of a file", "begin it with /"),
    }
}

/// A unix socket's path fits the kernel's 108 bytes.
pub(super) fn socket_path(key: &str, path: &Path, faults: &mut Faults) {
    if path.as_os_str().len() > 107 {
        faults.add(key, path.display(), "is longer than a unix socket's 107 bytes", "name a shorter path");
    }
    if std::fs::symlink_metadata(path).is_ok_and(|m| !m.file_type().is_socket()) {
        faults.add(key, path.display(), "exists and is not a socket", "remove it, or name another path");
    }
}

/// The scripts root, and what must be in it.
pub(super) fn scripts(root: Option<&Path>, required: &[String], pins: &super::Policy, faults: &mut Faults) {
    use sha2::{Digest as _, Sha256};
    let Some(root) = root else {
        if !required.is_empty() {
            faults.add("scripts_root", "", "is missing, and scripts are required", "set it to their directory");
        }
        return;
    };
    match std::fs::metadata(root) {
        Ok(m) if !m.is_dir() => faults.add("scripts_root", root.display(), "is not a directory", "name a directory"),
        Ok(m) if m.permissions().mode() & 0o002 != 0 => faults.add(
            "scripts_root",
            root.display(),
            "can be written by everyone",
            format!("chmod o-w {}", root.display()),
        ),
        Ok(_) => {}
        Err(e) => {
            faults.add("scripts_root", root.display(), format!("can't be read: {e}"), "make it, or remove the key")
        }
    }
    for name in required {
        if name.contains('/') || name.starts_with('.') {
            faults.add("required_scripts", name, "is not a file's name", "name a file directly in the scripts root");
            continue;
        }
        let path = root.join(name);
        let Some((bytes, _)) = read("required_scripts", &path, faults) else { continue };
        let pinned = pins.scopes.scripts.as_ref().and_then(|scope| scope.pins.get(name));
        let digest = hex::encode(Sha256::digest(&*bytes));
        if pinned.is_some_and(|pin| *pin != digest) {
            let mend = format!("restore the file, or pin {digest} after reading it");
            faults.add("required_scripts", path.display(), "is not the file that the policy pins", mend);
        }
    }
}

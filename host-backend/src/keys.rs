//! The backend's own key, which signs warrants, and the release keys that it trusts.
//! Refuses a private key that others than its owner may read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use viworks_signing::keys::{self, PublicKey, SecretKey};

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path} can't be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} can't be written")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} may be read by others than its owner: chmod 600")]
    Open { path: PathBuf },
    #[error("{path} holds no such key")]
    Parse { path: PathBuf, source: keys::Error },
    #[error("a key can't be encoded")]
    Encode(#[source] keys::Error),
}

/// Read a private key of mode 0600 or less.
///
/// # Errors
/// Says which step failed.
pub fn secret(path: &Path) -> Result<SecretKey, KeyError> {
    let read = |source| KeyError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    if file.metadata().map_err(read)?.permissions().mode() & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned() });
    }
    let pem = io::read_to_string(file).map_err(read)?;
    SecretKey::from_pem(&pem).map_err(|source| KeyError::Parse { path: path.to_owned(), source })
}

/// The warrant key at `path`; made there, with its public half beside it, when absent.
///
/// # Errors
/// Says which step failed.
pub fn secret_or_new(path: &Path) -> Result<SecretKey, KeyError> {
    match secret(path) {
        Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let key = SecretKey::generate();
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        let write = |source| KeyError::Write { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(write)?;
    }
    let public = public_half(path);
    write_new(path, 0o600, key.to_pem().map_err(KeyError::Encode)?.as_bytes())?;
    write_new(&public, 0o644, key.public().to_pem().map_err(KeyError::Encode)?.as_bytes())?;
    Ok(key)
}

/// Where the public half of the key at `path` is kept: `x.key.pem` → `x.pub.pem`.
#[must_use]
pub fn public_half(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".key.pem").or_else(|| name.strip_suffix(".pem")).unwrap_or(&name);
    path.with_file_name(format!("{stem}.pub.pem"))
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), KeyError> {
    let write = |source| KeyError::Write { path: path.to_owned(), source };
    // A public half that outlived its key is replaced; a private key never is.
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    if mode == 0o600 {
        options.create_new(true)
    } else {
        options.create(true).truncate(true)
    };
    let mut file = options.open(path).map_err(write)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(write)
}

/// Every release key of a PEM file.
///
/// # Errors
/// Says which step failed.
pub fn release_keys(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let pem = std::fs::read_to_string(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    PublicKey::all_from_pem(&pem).map_err(|source| KeyError::Parse { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_closed() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("deep/warrant.key.pem");
        let made = secret_or_new(&path)?;
        assert_eq!(secret_or_new(&path)?.public(), made.public());
        assert_eq!(release_keys(&dir.path().join("deep/warrant.pub.pem"))?, [made.public()]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640))?;
        assert!(matches!(secret_or_new(&path), Err(KeyError::Open { .. })));
        Ok(())
    }
}

//! The key that signs this gateway's receipts: made at the first start, kept in the state
//! directory, never anywhere else. A lost key begins a new chain, which shows.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use viworks_signing::keys::{self, SecretKey};
use zeroize::Zeroizing;

/// The key's file in the state directory: PKCS#8 PEM, mode 0600.
pub const FILE: &str = "receipt.key.pem";

/// A larger file is no key.
const MAX_BYTES: u64 = 16 * 1024;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReceiptKey {
    key: Arc<SecretKey>,
    public_pem: String,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the receipt key {0} can't be read")]
    Read(PathBuf, #[source] std::io::Error),
    #[error("the receipt key {0} can't be written")]
    Write(PathBuf, #[source] std::io::Error),
    #[error("the receipt key {0} can be used by others than its owner: it needs mode 0600")]
    Shared(PathBuf),
    #[error("the receipt key {0} is no Ed25519 key")]
    Key(PathBuf, #[source] keys::Error),
}

impl ReceiptKey {
    /// The key in `state_dir`, made if there is none.
    ///
    /// # Errors
    /// When it can't be read or made, or others can read it.
    pub fn open(state_dir: &Path) -> Result<Self, KeyError> {
        let path = state_dir.join(FILE);
        match read(&path)? {
            Some(pem) => Self::of(SecretKey::from_pem(&pem).map_err(|e| KeyError::Key(path.clone(), e))?, &path),
            None => {
                let key = SecretKey::generate();
                let pem = key.to_pem().map_err(|e| KeyError::Key(path.clone(), e))?;
                write(state_dir, &path, &pem).map_err(|e| KeyError::Write(path.clone(), e))?;
                Self::of(key, &path)
            }
        }
    }

    fn of(key: SecretKey, path: &Path) -> Result<Self, KeyError> {
        let public_pem = key.public().to_pem().map_err(|e| KeyError::Key(path.to_owned(), e))?;
        Ok(Self { key: Arc::new(key), public_pem })
    }

    #[must_use]
    pub fn secret(&self) -> &SecretKey {
        &self.key
    }

    /// The public half, SPKI PEM: what `Hello` tells.
    #[must_use]
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, KeyError> {
    let failed = |e| KeyError::Read(path.to_owned(), e);
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc_nofollow()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(KeyError::Shared(path.to_owned()));
    }
    let mut pem = Zeroizing::new(String::new());
    file.take(MAX_BYTES).read_to_string(&mut pem).map_err(failed)?;
    Ok(Some(pem))
}

/// Whole or not at all, and durable before the first receipt is signed with it.
fn write(state_dir: &Path, path: &Path, pem: &str) -> std::io::Result<()> {
    let beside = state_dir.join(format!("{FILE}.new"));
    let _ = std::fs::remove_file(&beside);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    std::fs::File::open(state_dir)?.sync_all()
}

fn libc_nofollow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let made = ReceiptKey::open(dir.path()).unwrap();
        let again = ReceiptKey::open(dir.path()).unwrap();
        assert_eq!(made.public_pem(), again.public_pem());
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(ReceiptKey::open(dir.path()), Err(KeyError::Shared(_))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(ReceiptKey::open(dir.path()), Err(KeyError::Key(..))));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(ReceiptKey::open(dir.path()), Err(KeyError::Read(..))));
    }
}

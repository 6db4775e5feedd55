//! Peers that were removed and can be brought back: their own lines of the configuration,
//! preshared key included, in a file of mode 0600 beside it. Bounded in number and time.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::super::files;
use super::super::name::PeerName;
use crate::failure::Failure;

const MAX_ENTRIES: usize = 500;
const KEPT: Duration = Duration::days(30);

/// A removed peer. Holds a secret, so no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Removed {
    pub(super) name: PeerName,
    pub(super) public_key: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) at: OffsetDateTime,
    /// As it stood in the configuration.
    pub(super) block: String,
}

fn path(config_file: &Path) -> PathBuf {
    let mut name = config_file.as_os_str().to_owned();
    name.push(".removed");
    PathBuf::from(name)
}

fn entries(bytes: &[u8]) -> Vec<Removed> {
    // A damaged line only costs one undo.
    bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// Remember a peer; the oldest and the expired ones go.
///
/// # Errors
/// When the file can't be written: then the peer must not be removed.
pub(super) fn remember(config_file: &Path, entry: Removed) -> Result<(), Failure> {
    let path = path(config_file);
    let old = files::read(&path)?;
    let oldest = entry.at - KEPT;
    let mut kept = entries(&old.bytes);
    kept.retain(|e| e.at >= oldest && e.public_key != entry.public_key);
    kept.push(entry);
    let surplus = kept.len().saturating_sub(MAX_ENTRIES);
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    for entry in &kept[surplus..] {
        serde_json::to_writer(&mut *bytes, entry).map_err(|e| Failure::Failed(e.to_string()))?;
        bytes.push(b'\n');
    }
    files::replace(&path, &old, &bytes, 0o600)?;
    Ok(())
}

/// The removed peer of that name and key.
///
/// # Errors
/// `not-found` when it was never removed here or too long ago.
pub(super) fn recall(config_file: &Path, name: &PeerName, public_key: &str) -> Result<Removed, Failure> {
    let old = files::read(&path(config_file))?;
    entries(&old.bytes)
        .into_iter()
        .find(|e| e.name == *name && e.public_key == public_key)
        .ok_or_else(|| Failure::NotFound(format!("nothing is kept of the removed peer {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keeps_the_newest_for_thirty_days() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("wg0.conf");
        let name = PeerName::try_from("a".to_owned()).unwrap();
        let now = OffsetDateTime::now_utc();
        let entry =
            |n: usize, at| Removed { name: name.clone(), public_key: n.to_string(), at, block: "[Peer]\n".into() };
        remember(&conf, entry(0, now - Duration::days(31))).unwrap();
        remember(&conf, entry(1, now)).unwrap();
        assert!(recall(&conf, &name, "0").is_err());
        assert!(recall(&conf, &name, "1").is_ok_and(|e| e.block == "[Peer]\n"));
        for n in 2..=MAX_ENTRIES + 1 {
            remember(&conf, entry(n, now)).unwrap();
        }
        assert!(recall(&conf, &name, "1").is_err());
        assert!(recall(&conf, &name, "2").is_ok());
        let mode = std::fs::metadata(path(&conf)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

//! The policy file while the gateway runs: looked at every second, read once it has not
//! changed for a second, and taken whole or not at all. A broken new one is refused, told,
//! and the old one stays.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use viworks_signing::keys::PublicKey;
use viworks_signing::policy::Policy;

use super::fault::Faults;
use super::policy;

const LOOK: Duration = Duration::from_secs(1);

/// Where the policy is, what its keys may be named by, and what became of it. Cheap to
/// clone; clones share what became of it.
#[derive(Debug, Clone)]
pub struct PolicyFile {
    path: PathBuf,
    known: Vec<PublicKey>,
    health: Arc<Mutex<PolicyHealth>>,
}

/// For the status endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyHealth {
    pub path: String,
    /// How often another one was taken since the start.
    pub reloads: u64,
    /// Why the newest file was refused, while it is.
    pub fault: Option<String>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl PolicyFile {
    #[must_use]
    pub fn new(path: PathBuf, known: Vec<PublicKey>) -> Self {
        let health = PolicyHealth { path: path.display().to_string(), ..PolicyHealth::default() };
        Self { path, known, health: Arc::new(Mutex::new(health)) }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys that it may name by id, and that count where it names none.
    #[must_use]
    pub fn known(&self) -> &[PublicKey] {
        &self.known
    }

    /// Read it now; what is wrong with it becomes faults.
    #[must_use]
    pub fn load(&self, faults: &mut Faults) -> Policy {
        policy::load(&self.path, &self.known, faults)
    }

    #[must_use]
    pub fn health(&self) -> PolicyHealth {
        self.lock().clone()
    }

    /// Watch it for ever. `taken` is given each sound policy that differs from the one
    /// before, beginning with `policy`.
    pub async fn watch<F: Future<Output = ()>>(self, mut policy: Policy, mut taken: impl FnMut(Policy) -> F) {
        let mut looks = tokio::time::interval(LOOK);
        let (mut settled, mut seen) = (None, None);
        loop {
            looks.tick().await;
            let now = stamp(&self.path);
            // A file that is being written is not read: not before it stays as it is.
            if now != seen || settled == Some(now) {
                seen = now;
                continue;
            }
            settled = Some(now);
            let file = self.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut faults = Faults::default();
                let policy = file.load(&mut faults);
                if faults.is_empty() { Ok(policy) } else { Err(faults) }
            });
            match read.await {
                Ok(Ok(new)) if new == policy => self.lock().fault = None,
                Ok(Ok(new)) => {
                    tracing::info!(target: "audit", path = %self.path.display(), "policy taken");
                    policy.clone_from(&new);
                    taken(new).await;
                    let mut health = self.lock();
                    health.reloads += 1;
                    health.fault = None;
                }
                Ok(Err(faults)) => {
                    let said: Vec<String> = faults.iter().map(|f| format!("{}; {}", f.problem, f.mend)).collect();
                    let fault = said.join(" | ");
                    tracing::warn!(target: "audit", path = %self.path.display(), %fault, "policy refused; the old one stays");
                    tracing::warn!(%fault, "the new policy is refused; the old one stays");
                    self.lock().fault = Some(fault);
                }
                Err(error) => tracing::error!(%error, "reading the policy ended early"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, PolicyHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None`: there is no such file now.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_sound_change_is_taken_and_a_broken_one_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        fs::write(&path, "[capabilities.vpn]\n").unwrap();
        let file = PolicyFile::new(path.clone(), Vec::new());
        let first = file.load(&mut Faults::default());
        let (to, mut taken) = mpsc::unbounded_channel();
        let watch = tokio::spawn(file.clone().watch(first, move |policy| {
            let _ = to.send(policy);
            std::future::ready(())
        }));
        let fault = async |wanted: bool| {
            let until = async {
                while file.health().fault.is_some() != wanted {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(SOON, until).await.unwrap();
        };

        // Broken: told, and nothing is taken.
        fs::write(&path, "[capabilities.vpm]\n").unwrap();
        fault(true).await;
        assert!(file.health().fault.is_some_and(|fault| fault.contains("vpm")));
        assert!(taken.try_recv().is_err());

        // As before: the fault is over, and there is nothing to take.
        fs::write(&path, "[capabilities.vpn]\n# with a word\n").unwrap();
        fault(false).await;
        assert!(taken.try_recv().is_err());

        // Replaced by rename, as a careful editor does.
        fs::write(dir.path().join("new"), "[capabilities.system]\n").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let policy = timeout(SOON, taken.recv()).await.unwrap().unwrap();
        assert_eq!(policy.scopes.names(), ["system"]);

        // Gone: refused like any other broken one.
        fs::remove_file(&path).unwrap();
        fault(true).await;
        assert!(taken.try_recv().is_err());
        assert_eq!(file.health().reloads, 1);
        watch.abort();
    }
}

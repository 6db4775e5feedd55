//! Programs that outlive a gateway that was killed: `useradd` goes on when its parent is
//! gone, and a recovery that looked at the host too early would see half of its work. Each
//! program inherits a shared lock on one file, so that the next gateway can wait until the
//! last of them has ended. Refuses to wait for ever: a script may have left a daemon behind.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

/// In the state directory.
const FILE: &str = "programs.lock";

/// How long a start waits for programs of the gateway before it, if it has something to
/// recover.
const WITHIN: Duration = Duration::from_secs(10);

const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Held, and handed down to every program, as long as this process lives.
static MARK: OnceLock<OwnedFd> = OnceLock::new();

fn file(state_dir: &Path, flags: OFlags) -> std::io::Result<OwnedFd> {
    let path: PathBuf = state_dir.join(FILE);
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | flags;
    Ok(open(path, flags, Mode::RUSR | Mode::WUSR)?)
}

/// Mark the programs that this gateway starts from now on.
///
/// # Errors
/// When the file can't be made or locked.
pub fn mark(state_dir: &Path) -> std::io::Result<()> {
    // Without CLOEXEC: being inherited is its purpose. It gives nothing but the lock.
    let mark = file(state_dir, OFlags::empty())?;
    flock(&mark, FlockOperation::NonBlockingLockShared)?;
    let _ = MARK.set(mark);
    Ok(())
}

/// Hand the mark down to nobody any more: this process is about to become the next gateway,
/// which would wait for itself.
///
/// # Errors
/// When the system refuses.
pub fn keep_back() -> std::io::Result<()> {
    MARK.get().map_or(Ok(()), |mark| Ok(rustix::io::fcntl_setfd(mark, rustix::io::FdFlags::CLOEXEC)?))
}

/// Wait until no program of an earlier gateway runs. Whether that came in time.
///
/// # Errors
/// When the file can't be opened.
pub async fn gone(state_dir: &Path) -> std::io::Result<bool> {
    gone_within(state_dir, WITHIN).await
}

async fn gone_within(state_dir: &Path, within: Duration) -> std::io::Result<bool> {
    let asked = file(state_dir, OFlags::CLOEXEC)?;
    let wait = async {
        while flock(&asked, FlockOperation::NonBlockingLockExclusive).is_err() {
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    Ok(tokio::time::timeout(within, wait).await.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Program;

    #[tokio::test]
    async fn programs_hold_the_lock_until_the_last_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        assert!(gone_within(dir.path(), WITHIN).await.unwrap(), "nobody was there");
        let held = file(dir.path(), OFlags::CLOEXEC).unwrap();
        flock(&held, FlockOperation::NonBlockingLockShared).unwrap();
        assert!(!gone_within(dir.path(), Duration::from_millis(50)).await.unwrap());
        drop(held);
        assert!(gone_within(dir.path(), WITHIN).await.unwrap());

        mark(dir.path()).unwrap();
        let open = Program::new("/bin/ls").args(["-l", "/proc/self/fd"]).run().await.unwrap();
        let open = String::from_utf8_lossy(&open.stdout).into_owned();
        assert!(open.contains(FILE), "programs inherit it: {open}");
    }
}

//! How much room the file system of a directory has.

use std::path::Path;

/// Less than this, or than a twentieth of a small file system, is too little.
const LEAST: u64 = 64 * 1024 * 1024;

/// Bytes that an ordinary user may still write, and all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub free: u64,
    pub size: u64,
}

impl Space {
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.free >= LEAST.min(self.size / 20)
    }
}

/// Ask the file system. May hang where that does: not for an async task.
///
/// # Errors
/// When the directory can't be looked at.
pub fn space(dir: &Path) -> std::io::Result<Space> {
    let found = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space { free: bytes(found.f_bavail), size: bytes(found.f_blocks) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_disks_are_measured_by_their_own_size() {
        let mib = |free: u64, size: u64| Space { free: free << 20, size: size << 20 };
        assert!(mib(64, 1_000_000).is_enough() && !mib(63, 1_000_000).is_enough());
        assert!(mib(1, 16).is_enough() && !mib(0, 16).is_enough());
        assert!(space(Path::new("/")).is_ok_and(|s| s.size > s.free));
    }
}

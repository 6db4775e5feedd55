//! The process itself, from `/proc`: memory, file descriptors, its start.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

static STARTED: LazyLock<f64> = LazyLock::new(|| unix_seconds(SystemTime::now()));

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// When this process was first asked or told, in Unix seconds: at the start of `run`.
pub(crate) fn started() -> f64 {
    *STARTED
}

/// The system's clock as it is, in Unix seconds.
pub(crate) fn now() -> f64 {
    unix_seconds(SystemTime::now())
}

/// Resident memory in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1_024)
}

/// Open file descriptors, and how many there may be.
pub(crate) fn descriptors() -> Option<(u64, u64)> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let most = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some((u64::try_from(open).ok()?, most))
}

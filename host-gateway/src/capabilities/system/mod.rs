//! The `system` capability: the host's health, read only, from `/proc`, `statvfs` and
//! systemd. Refuses to wait: a dead network mount or a silent systemd costs a bounded
//! time and its own entry, never the answer.
//!
//! - `host`: the functions that plugins call, and their gate
//! - `cpu`: shares between two readings
//! - `disks`: real file systems, each once
//! - `network`: counters of interfaces
//! - `services`: units, through `systemctl show`
//! - `sample`: the gateway's own telemetry

mod cpu;
mod disks;
mod host;
mod network;
mod sample;
mod services;

use std::path::PathBuf;

use procfs::{Current, LoadAverage, Meminfo, Uptime};
use serde::Deserialize;

use super::wit::viworks::gateway::system as wit;
use crate::failure::Failure;

/// `[providers.system]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where file systems are not looked at, with everything below.
    pub skip_mounts: Vec<PathBuf>,
}

/// Reads of the host's health; remembers the last reading of the processors.
#[derive(Debug)]
pub struct Provider {
    cpu: cpu::Meter,
    disks: disks::Disks,
}

impl Provider {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { cpu: cpu::Meter::default(), disks: disks::Disks::new(config.skip_mounts.clone()) }
    }

    fn host(&self) -> Result<wit::HostInfo, Failure> {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Ok(wit::HostInfo {
            hostname: text(uname.nodename()),
            kernel: text(uname.release()),
            os: os_name().unwrap_or_else(|| text(uname.sysname())),
            architecture: text(uname.machine()),
            uptime_secs: uptime()?,
        })
    }

    fn memory(&self) -> Result<wit::Memory, Failure> {
        let info = Meminfo::current().map_err(|e| unreadable("/proc/meminfo", &e))?;
        // Kernels before 3.14 don't say what is available.
        let available = info.mem_available.unwrap_or(info.mem_free + info.buffers + info.cached);
        Ok(wit::Memory {
            total_mib: mib(info.mem_total),
            used_mib: mib(info.mem_total.saturating_sub(available)),
            available_mib: mib(available),
            swap_total_mib: mib(info.swap_total),
            swap_used_mib: mib(info.swap_total.saturating_sub(info.swap_free)),
        })
    }

    fn load(&self) -> Result<wit::LoadAverage, Failure> {
        let load = LoadAverage::current().map_err(|e| unreadable("/proc/loadavg", &e))?;
        let LoadAverage { one, five, fifteen, cur, max, .. } = load;
        Ok(wit::LoadAverage { one, five, fifteen, running: cur, processes: max })
    }
}

fn uptime() -> Result<u32, Failure> {
    let uptime = Uptime::current().map_err(|e| unreadable("/proc/uptime", &e))?;
    Ok(u32::try_from(uptime.uptime_duration().as_secs()).unwrap_or(u32::MAX))
}

/// `PRETTY_NAME` of os-release(5), which may stand in either place.
fn os_name() -> Option<String> {
    let text = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|p| std::fs::read_to_string(p).ok())?;
    let line = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    let name: String = line.trim().trim_matches(['"', '\'']).chars().filter(|c| !c.is_control()).take(128).collect();
    (!name.is_empty()).then_some(name)
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

/// `part` of `whole` in percent, 0 to 100.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a percentage for people")]
fn percent(part: u64, whole: u64) -> f32 {
    if whole == 0 { 0.0 } else { (part as f64 * 100.0 / whole as f64).min(100.0) as f32 }
}

fn unreadable(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Unavailable(format!("{what} can't be read: {error}"))
}

#[cfg(test)]
mod tests;

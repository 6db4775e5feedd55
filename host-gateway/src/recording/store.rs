//! The host's recordings: a directory that only the gateway enters, the newest kept, the
//! rest removed. A recording that can't be written is a warning, never a failure of what was
//! recorded.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Semaphore;
use viworks_protocol::outcome::Report;
use viworks_protocol::warrant::VerifiedWarrant;

use super::file::{End, Head, Recording, VERSION};
use super::tape::{Tape, TapeHandle};
use crate::plugins::AdmittedPlugin;

/// The directory in the state directory.
const DIR: &str = "recordings";

/// What one recording holds at most; events past it are dropped, and it says so.
const MAX_RECORDING: usize = 4 << 20;

/// Recordings that are being written at a time; more are dropped.
const WRITING: usize = 16;

/// `[recording]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub enabled: bool,
    /// MiB of all recordings together.
    pub max_mib: u32,
    /// Recordings that are kept.
    pub keep: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: false, max_mib: 64, keep: 500 }
    }
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recordings {
    dir: PathBuf,
    max_bytes: u64,
    keep: usize,
    writing: Arc<Semaphore>,
}

impl Recordings {
    /// # Errors
    /// When the directory can't be made.
    pub fn open(state_dir: &Path, config: &Config) -> std::io::Result<Self> {
        let dir = state_dir.join(DIR);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let (max_bytes, keep) = (u64::from(config.max_mib) << 20, config.keep as usize);
        Ok(Self { dir, max_bytes, keep, writing: Arc::new(Semaphore::new(WRITING)) })
    }

    /// A tape for one invocation.
    #[must_use]
    pub fn tape(&self) -> TapeHandle {
        Tape::blank(MAX_RECORDING)
    }

    /// Keep what is on the tape, in the background. Not while too many are being written.
    pub fn keep(
        &self,
        warrant: &VerifiedWarrant,
        agent: &str,
        plugin: &AdmittedPlugin,
        tape: &TapeHandle,
        report: &Report,
    ) {
        let Ok(permit) = Arc::clone(&self.writing).try_acquire_owned() else {
            tracing::warn!(invocation = %warrant.invocation(), "too many recordings at once; this one is dropped");
            return;
        };
        let recording = recording(warrant, agent, plugin, tape, report);
        let (this, name) = (self.clone(), format!("{:013}-{}.jsonl", report.started_ms, warrant.invocation()));
        tokio::task::spawn_blocking(move || {
            if let Err(error) = this.write(&name, &recording) {
                tracing::warn!(%error, name, "a recording could not be kept");
            }
            drop(permit);
        });
    }

    fn write(&self, name: &str, recording: &Recording) -> std::io::Result<()> {
        let text = recording.to_lines()?;
        let path = self.dir.join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        self.prune()
    }

    /// Remove the oldest until number and bytes are within their bounds. Names begin with
    /// the time.
    fn prune(&self) -> std::io::Result<()> {
        let entries = std::fs::read_dir(&self.dir)?.flatten();
        let mut files: Vec<(PathBuf, u64)> =
            entries.filter_map(|e| Some((e.path(), e.metadata().ok()?.len()))).collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, len)| len).sum();
        let mut count = files.len();
        for (path, len) in files {
            if count <= self.keep && bytes <= self.max_bytes {
                break;
            }
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            (count, bytes) = (count - 1, bytes - len);
        }
        Ok(())
    }
}

fn recording(
    warrant: &VerifiedWarrant,
    agent: &str,
    plugin: &AdmittedPlugin,
    tape: &TapeHandle,
    report: &Report,
) -> Recording {
    let order = warrant.warrant();
    // Before the arguments: only now are all secrets known.
    let args = match tape.redact(serde_json::Value::Object(warrant.args().clone())) {
        serde_json::Value::Object(args) => args,
        _ => serde_json::Map::new(),
    };
    let head = Head {
        recording: VERSION,
        gateway: env!("CARGO_PKG_VERSION").to_owned(),
        invocation: warrant.invocation().to_string(),
        command: order.command.to_string(),
        agent: agent.to_owned(),
        caller: order.caller.clone(),
        verb: order.verb.clone(),
        plugin: order.plugin.clone(),
        version: plugin.release().version.to_string(),
        digest: plugin.digest().to_owned(),
        mode: order.mode,
        args,
        started_ms: report.started_ms,
    };
    let end = End::of(report, tape);
    let (events, truncated) = tape.take();
    Recording { head, events, end: End { truncated, ..end } }
}

impl End {
    /// What a report says, with the tape's secrets replaced.
    pub(super) fn of(report: &Report, tape: &TapeHandle) -> Self {
        let clean = |value: serde_json::Value| tape.redact(value);
        let result = report.result.as_deref().and_then(|raw| serde_json::from_str(raw.get()).ok()).map(clean);
        let failure = serde_json::to_value(&report.failure).ok().map(clean);
        let effects = serde_json::to_value(&report.effects).ok().map(clean);
        Self {
            outcome: report.outcome,
            failure: failure.and_then(|failure| serde_json::from_value(failure).ok()).flatten(),
            result,
            effects: effects.and_then(|effects| serde_json::from_value(effects).ok()).unwrap_or_default(),
            truncated: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_by_number_and_by_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let names = |dir: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(dir.join(DIR))
                .unwrap()
                .flatten()
                .map(|e| e.file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let all = Recordings::open(dir.path(), &Config { enabled: true, max_mib: 1, keep: 3 }).unwrap();
        for n in 1..=5 {
            std::fs::write(all.dir.join(format!("{n}.jsonl")), "x").unwrap();
        }
        all.prune().unwrap();
        assert_eq!(names(dir.path()), ["3.jsonl", "4.jsonl", "5.jsonl"]);
        std::fs::write(all.dir.join("6.jsonl"), "x".repeat((1 << 20) - 1)).unwrap();
        all.prune().unwrap();
        assert_eq!(names(dir.path()), ["5.jsonl", "6.jsonl"]);
    }
}

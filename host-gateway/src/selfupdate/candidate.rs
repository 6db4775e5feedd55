//! What the repository offers to this agent: the newest program of its platform that is newer
//! than what runs, on its channel, and staged as far as this agent. Who belongs to which
//! percent follows from agent and program alone, so nobody but the signer chooses them.

use semver::Version;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use viworks_signing::tuf::{PROGRAM_TARGET, TargetInfo, program_version};

use super::choice::{Choice, Entry};
use crate::trust::View;

/// Bytes of a program, at most.
pub(super) const MAX_BYTES: u64 = viworks_signing::tuf::MAX_PROGRAM;

/// What the signer says of a program besides its bytes.
#[derive(Debug, Deserialize)]
struct Stage {
    channel: String,
    percent: u32,
}

/// The program to go to, if there is one.
pub(super) fn candidate(view: &View, agent: &str, channel: &str, running: &Version, choice: &Choice) -> Option<Entry> {
    let trusted = view.trusted()?;
    let offered = trusted.targets().iter().filter_map(|(name, target)| {
        let entry = entry(name, target)?;
        let stage: Stage = serde_json::from_value(target.custom.clone()?).ok()?;
        let lawful = entry.version > *running
            && stage.channel == channel
            && bucket(agent, &entry.digest) < stage.percent
            && choice.refused.iter().all(|refused| refused.digest != entry.digest)
            && view.digest(&entry.digest).is_none();
        lawful.then_some(entry)
    });
    offered.max_by(|a, b| a.version.cmp(&b.version))
}

/// Whether the repository still names this very program, and has not taken it back.
pub(super) fn vouched(view: &View, entry: &Entry) -> bool {
    let named = view.trusted().is_some_and(|t| t.check_digest(&entry.name, entry.length, &entry.digest).is_ok());
    named && view.digest(&entry.digest).is_none()
}

fn entry(name: &str, target: &TargetInfo) -> Option<Entry> {
    let (version, platform) = program_version(name)?;
    let fits = (1..=MAX_BYTES).contains(&target.length);
    (platform == PROGRAM_TARGET && fits).then(|| Entry {
        version,
        digest: target.sha256.clone(),
        name: name.to_owned(),
        length: target.length,
    })
}

/// From 0 to 99, another for every program.
pub(super) fn bucket(agent: &str, digest: &str) -> u32 {
    let hash = Sha256::digest(format!("{agent}\n{digest}"));
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % 100
}

//! The gateway's own program, renewed from the release repository: what the `releases` role
//! signed and nothing else, as far along as it said, while the host's owner lets it. Never
//! touches the installed program: that one is started first and last, and is what remains when
//! every other version was refused.
//!
//! - [`choice`]: which version is meant to run, how often it was tried; pure
//! - [`versions`]: the same on the disk, and the programs themselves
//! - [`candidate`]: what the repository offers to this agent; pure
//! - [`launch`]: the start: the installed program becomes the chosen one, held to connecting
//! - [`update`]: fetch, check, choose, begin anew

mod candidate;
mod choice;
mod launch;
#[cfg(test)]
mod tests;
mod update;
mod versions;

pub use launch::{hold, launch, relaunch};
pub use update::{Parts, SelfUpdate};
pub use versions::{Versions, VersionsError};

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// The name under which the repository, statuses and logs have this program.
pub const PROGRAM: &str = "viworks-gateway";

/// The table `[self_update]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub enabled: bool,
    /// Which of the repository's channels this host follows.
    pub channel: String,
    /// When a new version may be begun, UTC: `HH:MM-HH:MM`. Absent: at any time.
    pub window: Option<Window>,
    /// A new version that has no session after so long is ended; after three times it is refused.
    pub confirm_secs: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: false, channel: "stable".to_owned(), window: None, confirm_secs: 60 }
    }
}

/// A time of the day, UTC, in minutes; may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Window {
    from: u32,
    to: u32,
}

impl TryFrom<String> for Window {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let (hours, minutes) = (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let parsed = text.split_once('-').and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)));
        match parsed {
            Some((from, to)) if from != to => Ok(Self { from, to }),
            _ => Err(format!("window {text:?} is not HH:MM-HH:MM")),
        }
    }
}

impl Window {
    fn is_open(self, now: SystemTime) -> bool {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let minute = u32::try_from(since / 60 % (24 * 60)).unwrap_or(0);
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// What the launched program knows of itself: version and digest as the repository has them.
const LAUNCHED: &str = "VIWORKS_LAUNCHED";
/// The installed program, which the launched one begins anew with.
const LAUNCHER: &str = "VIWORKS_LAUNCHER";

/// This program's version: what the repository calls it where it was launched from there.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| launched().map_or_else(|| env!("CARGO_PKG_VERSION").to_owned(), |(version, _)| version))
}

/// Version and digest, where this is not the installed program.
fn launched() -> Option<(String, String)> {
    let text = std::env::var(LAUNCHED).ok()?;
    let (version, digest) = text.split_once(' ')?;
    Some((version.to_owned(), digest.to_owned()))
}

//! Which version is meant to run, and how it fared: a value, and the rules by which it changes.
//! A version that was refused never comes back; nothing older than the installed one is chosen.

use semver::Version;
use serde::{Deserialize, Serialize};

/// Starts without a session after which a version is refused.
pub(super) const ATTEMPTS: u32 = 3;
/// Refused versions that are remembered; more than a repository holds at a time.
const MAX_REFUSED: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub version: Version,
    /// Lowercase hex SHA-256 of the program.
    pub digest: String,
    /// The target's name in the repository.
    pub name: String,
    pub length: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    pub version: Version,
    pub digest: String,
    pub why: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Choice {
    /// `None`: the installed program.
    pub current: Option<Entry>,
    /// It had a session once.
    pub confirmed: bool,
    /// Starts since it was chosen, while it is not confirmed.
    pub attempts: u32,
    /// The confirmed one before it.
    pub previous: Option<Entry>,
    pub refused: Vec<Refused>,
}

impl Choice {
    /// What to start now. Counts the attempt, and goes back to what ran before where the
    /// current one had enough of them or is not `vouched` for any more.
    pub(super) fn start(&mut self, installed: &Version, vouched: impl Fn(&Entry) -> bool) -> Option<Entry> {
        loop {
            let current = self.current.clone()?;
            if current.version <= *installed {
                // A package brought what is newer, or the same.
                (self.current, self.previous, self.confirmed, self.attempts) = (None, None, false, 0);
                return None;
            }
            if !vouched(&current) {
                self.refuse("the release repository does not vouch for it any more");
            } else if self.confirmed {
                return Some(current);
            } else if self.attempts >= ATTEMPTS {
                self.refuse(&format!("no session in {ATTEMPTS} starts"));
            } else {
                self.attempts += 1;
                return Some(current);
            }
        }
    }

    /// Never the current one again; the one before it takes over.
    pub(super) fn refuse(&mut self, why: &str) {
        if let Some(Entry { version, digest, .. }) = self.current.take() {
            self.forbid(version, digest, why);
        }
        self.current = self.previous.take();
        (self.confirmed, self.attempts) = (self.current.is_some(), 0);
    }

    /// Never this one, which was not chosen yet.
    pub(super) fn forbid(&mut self, version: Version, digest: String, why: &str) {
        self.refused.retain(|refused| refused.digest != digest);
        self.refused.push(Refused { version, digest, why: why.to_owned() });
        let surplus = self.refused.len().saturating_sub(MAX_REFUSED);
        self.refused.drain(..surplus);
    }

    pub(super) fn select(&mut self, entry: Entry) {
        if self.confirmed {
            self.previous = self.current.take();
        }
        (self.current, self.confirmed, self.attempts) = (Some(entry), false, 0);
    }

    pub(super) fn confirm(&mut self) {
        (self.confirmed, self.attempts) = (self.current.is_some(), 0);
    }
}

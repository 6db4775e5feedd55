//! Which release may follow which: what a host has seen of a plugin, and whether another
//! release of it may take over. Refuses to go back, and one version or sequence for two
//! contents. Pure: whoever calls keeps what was seen, durably, before acting on it.

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::release::Release;

/// A release that was taken before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub epoch: u32,
    pub sequence: u32,
    pub version: Version,
    /// Lowercase hex SHA-256 of the component.
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("release {offered} is older than {seen}, which was seen already")]
    Rollback { offered: String, seen: String },
    #[error("sequence {sequence} was {seen} before and is other bytes now")]
    Sequence { sequence: String, seen: String },
    #[error("version {version} was {seen} before and is other bytes now")]
    Version { version: Version, seen: String },
}

impl Refusal {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rollback { .. } => "E_ROLLBACK",
            Self::Sequence { .. } => "E_SEQUENCE_REUSED",
            Self::Version { .. } => "E_VERSION_REUSED",
        }
    }
}

impl Seen {
    /// What is to be kept of a release that is taken.
    #[must_use]
    pub fn of(release: &Release, digest: &str) -> Self {
        Self {
            epoch: release.epoch,
            sequence: release.sequence,
            version: release.version.clone(),
            digest: digest.to_owned(),
        }
    }

    fn position(&self) -> String {
        format!("{}.{}", self.epoch, self.sequence)
    }
}

/// Whether a release may follow all that was `seen` of its plugin. The very release that
/// was seen last passes: it is merely announced again. The code of an older release passes
/// too, released again with a higher sequence.
///
/// # Errors
/// The first rule that it breaks.
pub fn check<'a>(seen: impl IntoIterator<Item = &'a Seen>, release: &Release, digest: &str) -> Result<(), Refusal> {
    let offered = Seen::of(release, digest);
    for seen in seen {
        if (offered.epoch, offered.sequence) < (seen.epoch, seen.sequence) {
            return Err(Refusal::Rollback { offered: offered.position(), seen: seen.position() });
        }
        if offered.digest == seen.digest {
            continue;
        }
        if (offered.epoch, offered.sequence) == (seen.epoch, seen.sequence) {
            return Err(Refusal::Sequence { sequence: offered.position(), seen: seen.digest.clone() });
        }
        if offered.version == seen.version {
            return Err(Refusal::Version { version: offered.version, seen: seen.digest.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::sample_manifest;
    use crate::publish::build_release;

    #[test]
    fn releases_go_forward_and_names_keep_their_bytes() {
        let mut release = build_release(&crate::fixture::sample(), &sample_manifest()).unwrap().predicate;
        (release.epoch, release.sequence, release.version) = (1, 5, Version::new(1, 2, 0));
        let seen = [Seen::of(&release, "aa")];
        let mut code = |epoch, sequence, version: &str, digest: &str| {
            (release.epoch, release.sequence, release.version) = (epoch, sequence, version.parse().unwrap());
            check(&seen, &release, digest).map_or_else(|refusal| refusal.code(), |()| "OK")
        };
        assert_eq!(code(1, 5, "1.2.0", "aa"), "OK", "announced again");
        assert_eq!(code(1, 6, "1.3.0", "bb"), "OK");
        assert_eq!(code(1, 6, "1.2.0", "aa"), "OK", "the same code, released again");
        assert_eq!(code(2, 1, "1.1.0", "bb"), "OK", "an epoch starts anew");
        assert_eq!(code(1, 4, "1.1.0", "bb"), "E_ROLLBACK");
        assert_eq!(code(1, 4, "1.2.0", "aa"), "E_ROLLBACK");
        assert_eq!(code(0, 9, "1.3.0", "bb"), "E_ROLLBACK");
        assert_eq!(code(1, 5, "1.3.0", "bb"), "E_SEQUENCE_REUSED");
        assert_eq!(code(1, 6, "1.2.0", "bb"), "E_VERSION_REUSED");
    }
}

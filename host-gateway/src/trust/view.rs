//! What the release repository says, as far as it was verified, and what that means for one
//! release. A value that is never changed: who asks sees all of one update or nothing of it.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use viworks_protocol::frame::PluginOffer;
use viworks_signing::release::Release;
use viworks_signing::tuf::{Action, Revocations, Revoked, RevokedDigest, Trusted, TufError, target_names};

/// When this program was made, where its build says so; else a time before it was written.
/// A clock that is earlier is wrong.
const BUILT: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => seconds(text.as_bytes()),
    // The first of January 2025.
    None => 1_735_689_600,
};

/// What is known. Without `id` no repository is trusted, and nothing is asked of it.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// SHA-256 of the root that the owner trusts, in hex.
    pub(super) id: Option<String>,
    pub(super) trusted: Option<Trusted>,
    /// All that were ever seen, also where the rest was lost.
    pub(super) revocations: Revocations,
    /// A time that is certainly past.
    pub(super) floor: Option<SystemTime>,
    /// How long after the expiry it is stale.
    pub(super) grace: Duration,
}

/// How current it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// No repository is trusted: signatures alone decide.
    Off,
    /// None of its metadata was verified yet: nothing new is admitted.
    Waiting,
    Fresh,
    /// Nothing new is admitted; what was admitted runs.
    Expired,
    /// Expired for longer than the grace: somebody has to look.
    Stale,
}

impl Standing {
    /// As it is shown and logged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::Fresh => "fresh",
            Self::Expired => "expired",
            Self::Stale => "stale",
        }
    }
}

/// What a signed bundle claims to be.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub release: &'a Release,
    /// Lowercase hex SHA-256 of the component, and its bytes.
    pub digest: &'a str,
    pub length: u64,
    pub statements: &'a str,
    /// Of each role, the key ids of those who spoke, and how many it needs.
    pub roles: [(&'a [String], u32); 2],
}

/// What is known of a release already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Nothing: the repository must name it, and be current.
    New,
    /// It was active here, though not by this repository's word: it must name it.
    Active,
    /// It was admitted by this repository's word: only what was taken back counts.
    Admitted,
}

/// Why the repository does not let a release in.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("nothing of the release repository is known yet")]
    Waiting,
    #[error("the repository does not vouch for it")]
    Repository(#[from] TufError),
    #[error("taken back")]
    Revoked(#[source] Revoked),
}

impl TrustError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Waiting => "E_REPOSITORY",
            Self::Repository(error) => error.code(),
            Self::Revoked(revoked) => revoked.code(),
        }
    }

    /// Whether it may be admitted once more of the repository is known.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Revoked(_))
    }
}

impl View {
    /// The later of the system's clock, what is certainly past, and when this was made.
    #[must_use]
    pub fn time(&self, system: SystemTime) -> SystemTime {
        system.max(self.floor.unwrap_or(UNIX_EPOCH)).max(built())
    }

    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    #[must_use]
    pub fn trusted(&self) -> Option<&Trusted> {
        self.trusted.as_ref()
    }

    #[must_use]
    pub fn standing(&self, system: SystemTime) -> Standing {
        let Some(trusted) = &self.trusted else {
            return if self.id.is_some() { Standing::Waiting } else { Standing::Off };
        };
        let (_, at) = trusted.expires();
        match self.time(system) {
            now if now < at => Standing::Fresh,
            now if now < at.checked_add(self.grace).unwrap_or(at) => Standing::Expired,
            _ => Standing::Stale,
        }
    }

    /// Whether a release may run here.
    ///
    /// # Errors
    /// Deny wins: a revocation comes first.
    pub fn admits(&self, claim: &Claim<'_>, past: Past, now: SystemTime) -> Result<(), TrustError> {
        if self.id.is_none() {
            return Ok(());
        }
        let Claim { release, digest, length, statements, roles } = *claim;
        if let Some(revoked) = self.revocations.refuses(&release.plugin, release.epoch, release.sequence, digest) {
            return Err(TrustError::Revoked(revoked));
        }
        // A revoked key's word counts for nothing; what enough others say stays valid.
        let revoked = |id: &&String| self.revocations.key(id).is_some();
        for (signers, threshold) in roles {
            let lawful: BTreeSet<&String> = signers.iter().filter(|id| !revoked(id)).collect();
            if let (true, Some(id)) = (lawful.len() < threshold as usize, signers.iter().find(revoked)) {
                return Err(TrustError::Revoked(Revoked::Key { id: id.clone() }));
            }
        }
        if past == Past::Admitted {
            return Ok(());
        }
        let trusted = self.trusted.as_ref().ok_or(TrustError::Waiting)?;
        if past == Past::New {
            trusted.fresh(now)?;
        }
        let (component, lines) = target_names(&release.plugin, &release.version)?;
        trusted.check_digest(&component, length, digest)?;
        let text = statements.as_bytes();
        Ok(trusted.check_digest(&lines, text.len() as u64, &hex::encode(Sha256::digest(text)))?)
    }

    /// Whether what is offered could be admitted at all, before any of it is fetched.
    ///
    /// # Errors
    /// As [`View::admits`], as far as an offer tells.
    pub fn expects(&self, offer: &PluginOffer, now: SystemTime) -> Result<(), TrustError> {
        if self.id.is_none() {
            return Ok(());
        }
        if let Some(RevokedDigest { sha256, action, reason }) = self.digest(&offer.digest)
            && action != Action::Alert
        {
            return Err(TrustError::Revoked(Revoked::Digest { sha256, action, reason }));
        }
        let trusted = self.trusted.as_ref().ok_or(TrustError::Waiting)?;
        trusted.fresh(self.time(now))?;
        let name = format!("{}-{}.wasm", offer.plugin, offer.version);
        Ok(trusted.check_digest(&name, offer.component_size.into(), &offer.digest)?)
    }

    /// What is said of running releases: those to be ended, and those to be told about.
    #[must_use]
    pub fn digest(&self, sha256: &str) -> Option<RevokedDigest> {
        self.revocations.digest(sha256)
    }

    /// Whether invocations of these bytes have to end.
    #[must_use]
    pub fn stops(&self, sha256: &str) -> bool {
        self.digest(sha256).is_some_and(|revoked| revoked.action == Action::Stop)
    }
}

fn built() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(BUILT)
}

/// Decimal digits; anything else ends the number.
const fn seconds(digits: &[u8]) -> u64 {
    let (mut value, mut at) = (0u64, 0);
    while at < digits.len() && digits[at].is_ascii_digit() {
        value = value.saturating_mul(10).saturating_add((digits[at] - b'0') as u64);
        at += 1;
    }
    value
}

//! Admission's first half: bytes and statements in, a [`VerifiedRelease`] out. Verifies
//! before it parses, parses strictly, and refuses whatever the one release statement does
//! not say word for word of these bytes.
//!
//! Who may speak is the caller's [`Trust`]. Reviews of the security role narrow what the
//! release asks for; provenance says how it was built and decides nothing. Whether this
//! release is the current one is the repository's answer ([`crate::tuf`]), and whether it
//! may follow what was seen before is [`crate::succession`]'s.

mod about;
mod lines;
mod refusal;

use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::component;
use crate::grant::{Grant, Scopes};
use crate::keys::PublicKey;
use crate::provenance::Provenance;
use crate::release::{Limits, Release};
use crate::review::Review;
use crate::trust::{Role, Trust};
use lines::Lines;

pub use crate::component::MAX_COMPONENT;
pub use refusal::{CODES, Refusal};

/// Bytes of all lines together.
pub const MAX_STATEMENTS: usize = 256 * 1024;
pub const MAX_LINES: usize = 64;

/// A release whose signatures, statements and bytes all agree. Only [`verify_with`] makes
/// one.
#[derive(Debug, Clone)]
pub struct VerifiedRelease {
    release: Release,
    digest: String,
    payload_digest: String,
    signers: Vec<String>,
    reviews: Vec<VerifiedReview>,
    provenance: Vec<Provenance>,
}

/// A review of this very release, by a key of the security role.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedReview {
    review: Review,
    signers: Vec<String>,
}

impl VerifiedReview {
    #[must_use]
    pub fn review(&self) -> &Review {
        &self.review
    }

    /// Key ids of the security role's keys that signed, sorted, each once.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        &self.signers
    }
}

impl VerifiedRelease {
    #[must_use]
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// Lowercase hex SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Lowercase hex SHA-256 of the release statement, which reviews are bound to.
    #[must_use]
    pub fn payload_digest(&self) -> &str {
        &self.payload_digest
    }

    /// Key ids of the release role's keys that signed, sorted, each once.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        &self.signers
    }

    /// In the order of their lines. Each narrows the release.
    #[must_use]
    pub fn reviews(&self) -> &[VerifiedReview] {
        &self.reviews
    }

    /// How the component was built, as release keys say.
    #[must_use]
    pub fn provenance(&self) -> &[Provenance] {
        &self.provenance
    }

    /// Release ∩ reviews ∩ `policy`.
    #[must_use]
    pub fn grant(&self, policy: &Scopes) -> Grant {
        let reviews = self.reviews.iter().map(|review| &review.review.capabilities);
        Grant::of(&self.release.capabilities, reviews, policy)
    }

    /// The least of the release's and the reviews'.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.reviews.iter().fold(self.release.limits, |least, review| least.min(review.review.limits))
    }

    /// Whether the release has the verb and every review lets it run.
    #[must_use]
    pub fn allows(&self, verb: &str) -> bool {
        self.release.verbs.contains_key(verb) && self.reviews.iter().all(|review| review.review.verbs.contains(verb))
    }
}

/// As [`verify_with`], where any one of `trusted` may release and nobody reviews.
///
/// # Errors
/// The first check that refuses; [`Refusal::code`] is stable.
pub fn verify(
    component: &[u8],
    statements: &str,
    trusted: &[PublicKey],
    expect_plugin: Option<&str>,
    now: SystemTime,
) -> Result<VerifiedRelease, Refusal> {
    verify_with(component, statements, &Trust::any_of(trusted), expect_plugin, now)
}

/// Verify the bytes that will be compiled (that very buffer, not a file that is read
/// again) against `statements`, JSON lines of DSSE envelopes. `now` is the time that the
/// caller trusts.
///
/// Lines that no trusted key signed, and statements of kinds that are not known, are
/// stepped over and never suffice.
///
/// # Errors
/// The first check that refuses; [`Refusal::code`] is stable.
pub fn verify_with(
    component: &[u8],
    statements: &str,
    trust: &Trust,
    expect_plugin: Option<&str>,
    now: SystemTime,
) -> Result<VerifiedRelease, Refusal> {
    if component.len() > MAX_COMPONENT {
        return Err(Refusal::Size { what: "component", bytes: component.len(), max: MAX_COMPONENT });
    }
    let Lines { release, reviews, provenance } = lines::read(statements, trust)?;
    let (statement, payload) = (release.statement, release.payload);
    let digest = about::subject(component, &statement)?;
    about::release(&statement.predicate, expect_plugin)?;
    let start = humantime::parse_rfc3339(&statement.predicate.not_before)
        .map_err(|_| Refusal::Statement { what: "notBefore", found: statement.predicate.not_before.clone() })?;
    if now < start {
        return Err(Refusal::NotYet { not_before: statement.predicate.not_before });
    }
    // The bytes are the signer's own from here on, and only now are they parsed.
    let real = component::outline(component).map_err(Refusal::Component)?.imports;
    if real != statement.predicate.imports {
        let first = |a: &[String], b: &[String]| a.iter().find(|name| !b.contains(name)).cloned();
        let declared = &statement.predicate.imports;
        return Err(Refusal::Imports { undeclared: first(&real, declared), missing: first(declared, &real) });
    }
    let payload_digest = hex::encode(Sha256::digest(&payload));
    for review in &reviews {
        about::review(&review.statement, &statement.predicate, &digest, &payload_digest)?;
    }
    reviewed(trust.security(), reviews.iter().map(|review| &review.signers))?;
    for provenance in &provenance {
        about::provenance(provenance, &digest)?;
    }
    let ids = |role: &Role, signers: &BTreeSet<[u8; 32]>| {
        let mut ids: Vec<String> =
            role.keys().iter().filter(|key| signers.contains(&key.bytes())).map(PublicKey::id).collect();
        ids.sort_unstable();
        ids
    };
    Ok(VerifiedRelease {
        signers: ids(trust.release(), &release.signers),
        release: statement.predicate,
        digest,
        payload_digest,
        reviews: reviews
            .into_iter()
            .map(|review| VerifiedReview {
                signers: ids(trust.security(), &review.signers),
                review: review.statement.predicate,
            })
            .collect(),
        provenance: provenance.into_iter().map(|statement| statement.predicate).collect(),
    })
}

/// So many of the security role's keys reviewed it, in one review or in several.
fn reviewed<'a>(role: &Role, signers: impl Iterator<Item = &'a BTreeSet<[u8; 32]>>) -> Result<(), Refusal> {
    let all: BTreeSet<[u8; 32]> = signers.flatten().copied().collect();
    match role.count(&all) {
        _ if role.is_met(&all) => Ok(()),
        0 => Err(Refusal::NoReview { wanted: role.threshold() }),
        found => Err(Refusal::Threshold { role: "security", found, wanted: role.threshold() }),
    }
}

#[cfg(test)]
mod tests;

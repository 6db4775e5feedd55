//! The lines of a bundle, sorted by what they are and by who may say it. Verifies each
//! before it is parsed. Refuses endless data unread, and lines that a trusted key signed
//! but that a strict reader can't read.

use serde::Deserialize;
use std::collections::BTreeSet;

use super::{MAX_LINES, MAX_STATEMENTS, Refusal};
use crate::dsse::{self, Envelope, Verified};
use crate::keys::PublicKey;
use crate::release::{self, PAYLOAD_TYPE, STATEMENT_TYPE};
use crate::strict_json::{self, Floats};
use crate::trust::Trust;
use crate::{provenance, review};

/// What a bundle says, each by a key of the role that may say it. Not yet held against the
/// component.
pub(super) struct Lines {
    pub(super) release: Signed<release::Statement>,
    pub(super) reviews: Vec<Signed<review::Statement>>,
    pub(super) provenance: Vec<provenance::Statement>,
}

pub(super) struct Signed<S> {
    pub(super) statement: S,
    pub(super) payload: Vec<u8>,
    pub(super) signers: BTreeSet<[u8; 32]>,
}

/// What is read of a statement to tell its kind. The rest is read once that is known.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

/// Read all lines.
///
/// # Errors
/// When no release statement is left, the reason that an operator has to know.
pub(super) fn read(statements: &str, trust: &Trust) -> Result<Lines, Refusal> {
    if statements.len() > MAX_STATEMENTS {
        return Err(Refusal::Size { what: "statements", bytes: statements.len(), max: MAX_STATEMENTS });
    }
    if statements.lines().nth(MAX_LINES).is_some() {
        return Err(Refusal::Lines);
    }
    let everybody: Vec<PublicKey> = trust.release().keys().iter().chain(trust.security().keys()).copied().collect();
    let (mut release, mut reviews, mut provenance) = (None, Vec::new(), Vec::new());
    let mut passed = Passed(None);
    for (line, text) in statements.lines().enumerate() {
        let line = line + 1;
        let format = |source| Refusal::Format { line, source };
        let envelope: Envelope =
            strict_json::from_slice(text.as_bytes(), MAX_STATEMENTS, Floats::Refused).map_err(format)?;
        let Some(verified) = passed.verify(line, &envelope, &everybody)? else { continue };
        strict_json::check(verified.payload(), MAX_STATEMENTS, Floats::Allowed).map_err(format)?;
        let head: Head =
            serde_json::from_slice(verified.payload()).map_err(|error| format(strict_json::Error::Shape(error)))?;
        if head.kind != STATEMENT_TYPE {
            return Err(Refusal::Statement { what: "_type", found: head.kind });
        }
        let releasers = trust.release().count(verified.signers());
        match head.predicate_type.as_str() {
            release::PREDICATE_TYPE if releasers == 0 => passed.note(Refusal::Role { line, wanted: "release" }),
            release::PREDICATE_TYPE if !trust.release().is_met(verified.signers()) => {
                let wanted = trust.release().threshold();
                passed.note(Refusal::Threshold { role: "release", found: releasers, wanted });
            }
            release::PREDICATE_TYPE => {
                let signed = signed(verified, Floats::Refused).map_err(format)?;
                if release.replace(signed).is_some() {
                    return Err(Refusal::Ambiguous);
                }
            }
            review::PREDICATE_TYPE if trust.security().count(verified.signers()) == 0 => {
                // Where no review is needed, a releaser's own is no harm and no use.
                if trust.security().threshold() > 0 {
                    return Err(Refusal::Role { line, wanted: "security" });
                }
            }
            review::PREDICATE_TYPE => reviews.push(signed(verified, Floats::Refused).map_err(format)?),
            provenance::PREDICATE_TYPE if releasers > 0 => {
                passed.note(Refusal::NoRelease);
                provenance.push(signed(verified, Floats::Allowed).map_err(format)?.statement);
            }
            _ => passed.note(Refusal::NoRelease),
        }
    }
    match release {
        Some(release) => Ok(Lines { release, reviews, provenance }),
        None => Err(passed.0.unwrap_or(Refusal::NoRelease)),
    }
}

fn signed<S: serde::de::DeserializeOwned>(verified: Verified, floats: Floats) -> Result<Signed<S>, strict_json::Error> {
    let statement = strict_json::from_slice(verified.payload(), MAX_STATEMENTS, floats)?;
    let signers = verified.signers().clone();
    Ok(Signed { statement, payload: verified.into_payload(), signers })
}

/// Why the lines that were stepped over did not count: the one reason that is told when
/// nothing else is left.
struct Passed(Option<Refusal>);

impl Passed {
    /// The envelope's payload, or `None` for a line that is stepped over.
    fn verify(&mut self, line: usize, envelope: &Envelope, keys: &[PublicKey]) -> Result<Option<Verified>, Refusal> {
        match envelope.verify(PAYLOAD_TYPE, keys) {
            Ok(verified) => Ok(Some(verified)),
            Err(dsse::Error::PayloadType { found, .. }) => {
                self.note(Refusal::PayloadType { found });
                Ok(None)
            }
            Err(
                source @ (dsse::Error::NoTrustedSignature | dsse::Error::NotCanonical | dsse::Error::Altered { .. }),
            ) => {
                self.note(Refusal::Signature { line, source });
                Ok(None)
            }
            Err(source) => Err(Refusal::Signature { line, source }),
        }
    }

    /// Of all reasons, the one that is nearest to a release wins.
    fn note(&mut self, refusal: Refusal) {
        let weight = |refusal: &Refusal| match refusal {
            Refusal::Threshold { .. } => 6,
            Refusal::Role { .. } => 5,
            Refusal::Signature { source: dsse::Error::Altered { .. }, .. } => 4,
            Refusal::Signature { source: dsse::Error::NotCanonical, .. } => 3,
            Refusal::Signature { .. } => 2,
            Refusal::PayloadType { .. } => 1,
            _ => 0,
        };
        if self.0.as_ref().is_none_or(|before| weight(before) < weight(&refusal)) {
            self.0 = Some(refusal);
        }
    }
}

//! The anchor: where many receipt chains ended at one time, signed by the backend's warrant
//! key and chained itself. What an anchor has seen can't be cut off a chain unnoticed.

use serde::{Deserialize, Serialize};
use viworks_signing::dsse::{self, Envelope};
use viworks_signing::keys::{PublicKey, SecretKey};

use super::{Head, hex_sha256};
use crate::id::AgentId;

pub const PAYLOAD_TYPE: &str = "application/vnd.viworks.receipt-anchor.v1+json";

pub const VERSION: u32 = 1;

/// Heads in one anchor; more agents take more anchors.
pub const MAX_HEADS: usize = 10_000;

/// Heads that moved since the anchor before. Those it does not name stand as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    pub version: u32,
    /// From 1 on, without a gap.
    pub seq: u64,
    /// Lowercase hex SHA-256 of the payload of the anchor before; [`super::GENESIS`] for
    /// the first.
    pub prev: String,
    /// Unix milliseconds by the backend's clock.
    pub at_ms: u64,
    /// At most [`MAX_HEADS`].
    pub heads: Vec<AnchoredHead>,
}

/// The end of one lasting chain. Vouches for the key, too: it is the one that the backend
/// pinned for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchoredHead {
    pub agent: AgentId,
    /// The id of the key that signs the chain ([`PublicKey::id`]).
    pub key: String,
    pub seq: u64,
    /// Lowercase hex SHA-256 of the payload of that receipt.
    pub sha256: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    #[error("the signature does not verify")]
    Signature(#[source] dsse::Error),
    #[error("the signed payload is not an anchor: {0}")]
    Payload(String),
    #[error("an anchor of version {0}, only {VERSION} is read")]
    Version(u32),
    #[error("more than {MAX_HEADS} heads")]
    TooMany,
}

/// Sign an anchor, and give the head that it makes in the chain of anchors.
///
/// # Errors
/// When it can't be written as JSON, which does not happen for real anchors.
pub fn sign(anchor: &Anchor, key: &SecretKey) -> Result<(Envelope, Head), serde_json::Error> {
    let payload = serde_json::to_vec(anchor)?;
    let head = Head { seq: anchor.seq, sha256: hex_sha256(&payload) };
    Ok((Envelope::sign(PAYLOAD_TYPE, &payload, &[key]), head))
}

/// Check one anchor, and give the head that it makes.
///
/// # Errors
/// The first check that failed; in the order of the variants.
pub fn verify(envelope: &Envelope, keys: &[PublicKey]) -> Result<(Anchor, Head), AnchorError> {
    let verified = envelope.verify(PAYLOAD_TYPE, keys).map_err(AnchorError::Signature)?;
    let anchor: Anchor = serde_json::from_slice(verified.payload()).map_err(|e| AnchorError::Payload(e.to_string()))?;
    if anchor.version != VERSION {
        return Err(AnchorError::Version(anchor.version));
    }
    if anchor.heads.len() > MAX_HEADS {
        return Err(AnchorError::TooMany);
    }
    let head = Head { seq: anchor.seq, sha256: hex_sha256(verified.payload()) };
    Ok((anchor, head))
}

//! DSSE v1 envelopes (secure-systems-lab/dsse): sign and verify bytes together with
//! their type. Refuses an envelope without a signature of a wanted key; never parses a
//! payload that is not verified.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::keys::{PublicKey, SecretKey};
use crate::signer::{self, Signer};

/// More signatures than this on one envelope are refused unread.
pub const MAX_SIGNATURES: usize = 16;

/// A signed payload. `payload` and `sig` are base64 (RFC 4648 §4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    pub payload_type: String,
    pub payload: String,
    pub signatures: Vec<Signature>,
}

/// One signature; `keyid` is a hint and never decides anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    pub keyid: String,
    pub sig: String,
}

/// A payload whose signatures were verified, and the distinct keys that signed it.
#[derive(Debug, Clone)]
pub struct Verified {
    payload: Vec<u8>,
    signers: BTreeSet<[u8; 32]>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("payload type is {found:?}, wanted {wanted:?}")]
    PayloadType { found: String, wanted: String },
    #[error("{count} signatures, at most {MAX_SIGNATURES} are read")]
    TooManySignatures { count: usize },
    #[error("payload is not canonical base64")]
    Payload,
    #[error("no signature by a trusted key")]
    NoTrustedSignature,
    #[error("a signature that is not 64 bytes in canonical base64 with S below the group's order")]
    NotCanonical,
    #[error("key {keyid} is trusted, but signed something else: another payload or another type")]
    Altered { keyid: String },
}

/// The pre-authentication encoding: what is really signed.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Envelope {
    /// Sign `payload` with each of `keys`.
    #[must_use]
    pub fn sign(payload_type: &str, payload: &[u8], keys: &[&SecretKey]) -> Self {
        let message = pae(payload_type, payload);
        let signatures = keys
            .iter()
            .map(|key| Signature { keyid: key.public().id(), sig: STANDARD.encode(key.sign(&message)) })
            .collect();
        Self { payload_type: payload_type.to_owned(), payload: STANDARD.encode(payload), signatures }
    }

    /// As [`Envelope::sign`], with keys that may fail to sign.
    ///
    /// # Errors
    /// The first key that does not sign.
    pub fn sign_with(payload_type: &str, payload: &[u8], keys: &[&dyn Signer]) -> Result<Self, signer::Error> {
        let message = pae(payload_type, payload);
        let signature =
            |key: &&dyn Signer| Ok(Signature { keyid: key.public().id(), sig: STANDARD.encode(key.sign(&message)?) });
        let signatures = keys.iter().map(signature).collect::<Result<_, _>>()?;
        Ok(Self { payload_type: payload_type.to_owned(), payload: STANDARD.encode(payload), signatures })
    }

    /// The payload, if at least one of `trusted` signed it with this payload type.
    ///
    /// # Errors
    /// Says which step failed; nothing of the payload is revealed then.
    pub fn verify(&self, payload_type: &str, trusted: &[PublicKey]) -> Result<Verified, Error> {
        if self.payload_type != payload_type {
            return Err(Error::PayloadType { found: self.payload_type.clone(), wanted: payload_type.to_owned() });
        }
        if self.signatures.len() > MAX_SIGNATURES {
            return Err(Error::TooManySignatures { count: self.signatures.len() });
        }
        let payload = STANDARD.decode(&self.payload).map_err(|_| Error::Payload)?;
        let message = pae(payload_type, &payload);
        let mut signers = BTreeSet::new();
        // Hints only tell why nothing verified; they never make anything verify.
        let (mut malformed, mut hinted) = (false, None);
        for signature in &self.signatures {
            let Some(bytes) = canonical(&signature.sig) else {
                malformed = true;
                continue;
            };
            signers.extend(trusted.iter().filter(|key| key.verify(&message, &bytes)).map(PublicKey::bytes));
            hinted = hinted.or_else(|| trusted.iter().map(PublicKey::id).find(|id| *id == signature.keyid));
        }
        if signers.is_empty() {
            return Err(match hinted {
                _ if malformed => Error::NotCanonical,
                Some(keyid) => Error::Altered { keyid },
                None => Error::NoTrustedSignature,
            });
        }
        Ok(Verified { payload, signers })
    }
}

/// The 64 bytes, unless they could be written in another way: lax verifiers take S + L for
/// S (RFC 8032 §5.1.7), so that one signature has several spellings.
fn canonical(sig: &str) -> Option<[u8; 64]> {
    /// The order of the group, little-endian.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let bytes = <[u8; 64]>::try_from(STANDARD.decode(sig).ok()?).ok()?;
    bytes[32..].iter().rev().lt(L.iter().rev()).then_some(bytes)
}

impl Verified {
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    #[must_use]
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// Distinct 32-byte public keys that signed: thresholds count these.
    #[must_use]
    pub fn signers(&self) -> &BTreeSet<[u8; 32]> {
        &self.signers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pae_is_the_specifications_example() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn verifies_only_with_the_signers_key_and_type() {
        let (key, other) = (SecretKey::generate(), SecretKey::generate());
        let envelope = Envelope::sign("t/a", b"payload", &[&key]);
        assert_eq!(envelope.verify("t/a", &[key.public()]).map(|v| v.payload().to_vec()), Ok(b"payload".to_vec()));
        assert_eq!(envelope.verify("t/a", &[other.public()]).err(), Some(Error::NoTrustedSignature));
        assert!(matches!(envelope.verify("t/b", &[key.public()]), Err(Error::PayloadType { .. })));
    }

    #[test]
    fn why_nothing_verified_is_told_apart() {
        let key = SecretKey::generate();
        let good = Envelope::sign("t/a", b"payload", &[&key]);
        let with = |change: &dyn Fn(&mut Envelope)| {
            let mut envelope = good.clone();
            change(&mut envelope);
            envelope.verify("t/a", &[key.public()]).map(|_| ())
        };
        let altered = Err(Error::Altered { keyid: key.public().id() });
        assert_eq!(with(&|e| e.payload = STANDARD.encode(b"other")), altered);
        assert_eq!(with(&|e| e.signatures[0].sig = STANDARD.encode(key.sign(b"payload"))), altered, "without the type");
        let other = Envelope::sign("t/b", b"payload", &[&key]);
        assert_eq!(with(&|e| e.signatures = other.signatures.clone()), altered, "under another type");
        for sig in ["", "!", &good.signatures[0].sig.replace("==", ""), &STANDARD.encode([0xff; 64])] {
            assert_eq!(with(&|e| e.signatures[0].sig = sig.to_owned()), Err(Error::NotCanonical), "{sig}");
        }
        assert_eq!(with(&|e| e.signatures[0].keyid = "other".into()), Ok(()), "the hint does not count");
        assert_eq!(with(&|e| e.signatures.clear()), Err(Error::NoTrustedSignature));
        assert_eq!(with(&|e| e.payload.push('=')), Err(Error::Payload));
    }

    #[test]
    fn one_key_under_two_ids_counts_once() {
        let key = SecretKey::generate();
        let mut envelope = Envelope::sign("t/a", b"p", &[&key, &key]);
        envelope.signatures[1].keyid = "another".into();
        let verified = envelope.verify("t/a", &[key.public(), key.public()]);
        assert_eq!(verified.map(|v| v.signers().len()), Ok(1));
    }
}

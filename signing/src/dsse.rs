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
        for signature in &self.signatures {
            let Some(bytes) = STANDARD.decode(&signature.sig).ok().and_then(|b| <[u8; 64]>::try_from(b).ok()) else {
                continue;
            };
            signers.extend(trusted.iter().filter(|key| key.verify(&message, &bytes)).map(PublicKey::bytes));
        }
        if signers.is_empty() {
            return Err(Error::NoTrustedSignature);
        }
        Ok(Verified { payload, signers })
    }
}

impl Verified {
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
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
    fn one_key_under_two_ids_counts_once() {
        let key = SecretKey::generate();
        let mut envelope = Envelope::sign("t/a", b"p", &[&key, &key]);
        envelope.signatures[1].keyid = "another".into();
        let verified = envelope.verify("t/a", &[key.public(), key.public()]);
        assert_eq!(verified.map(|v| v.signers().len()), Ok(1));
    }
}

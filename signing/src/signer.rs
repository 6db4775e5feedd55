//! Whatever can sign with an Ed25519 key: one that is held in memory, or one that never
//! leaves its token. Callers that sign take this and don't care which it is.

use std::fmt::Debug;

use crate::keys::{PublicKey, SecretKey};

/// One private key.
pub trait Signer: Debug {
    /// The public half, never a weak one.
    fn public(&self) -> PublicKey;

    /// The pure Ed25519 signature (RFC 8032) of `message`, which verifies with
    /// [`Signer::public`].
    ///
    /// # Errors
    /// When the token that holds the key does not sign.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Error>;
}

/// A key that did not sign.
#[derive(Debug, thiserror::Error)]
#[error("key {keyid} does not sign")]
pub struct Error {
    pub keyid: String,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Signer for SecretKey {
    fn public(&self) -> PublicKey {
        SecretKey::public(self)
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Error> {
        Ok(SecretKey::sign(self, message))
    }
}

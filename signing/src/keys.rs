//! Ed25519 keys (RFC 8032): made, read, written and used for strict verification.
//! Refuses weak public keys when they are loaded and non-canonical signatures always.

use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _, KeypairBytes, spki::der::pem::LineEnding,
};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use pkcs8::EncodePrivateKey as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// A public key that is a valid, non-weak point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A private key; its memory is cleared when dropped.
pub struct SecretKey(SigningKey);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not an Ed25519 public key in SPKI PEM")]
    Public(#[source] ed25519_dalek::pkcs8::spki::Error),
    #[error("a weak public key (small order)")]
    Weak,
    #[error("not a point on the curve")]
    Point,
    #[error("no PEM block \"PUBLIC KEY\" found")]
    NoKey,
    #[error("not an unencrypted Ed25519 private key in PKCS#8 PEM")]
    Secret(#[source] ed25519_dalek::pkcs8::Error),
    #[error("could not encode the key")]
    Encode,
}

impl Error {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Weak => "E_WEAK_KEY",
            Self::Public(_) | Self::Point | Self::NoKey | Self::Secret(_) | Self::Encode => "E_KEY",
        }
    }
}

impl PublicKey {
    /// # Errors
    /// [`Error::Point`] or [`Error::Weak`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, Error> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| Error::Point)?;
        if key.is_weak() { Err(Error::Weak) } else { Ok(Self(key)) }
    }

    /// Read one SPKI PEM block.
    ///
    /// # Errors
    /// When it is not such a key, or a weak one.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let key = VerifyingKey::from_public_key_pem(pem).map_err(Error::Public)?;
        if key.is_weak() { Err(Error::Weak) } else { Ok(Self(key)) }
    }

    /// Read every SPKI PEM block of a file; at least one.
    ///
    /// # Errors
    /// When any block is no such key, or none is there.
    pub fn all_from_pem(pem: &str) -> Result<Vec<Self>, Error> {
        const END: &str = "-----END PUBLIC KEY-----";
        let mut keys = Vec::new();
        let mut rest = pem;
        while let Some(start) = rest.find("-----BEGIN PUBLIC KEY-----") {
            let end = rest[start..].find(END).ok_or(Error::NoKey)? + start + END.len();
            keys.push(Self::from_pem(&rest[start..end])?);
            rest = &rest[end..];
        }
        if keys.is_empty() { Err(Error::NoKey) } else { Ok(keys) }
    }

    /// SPKI PEM.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_pem(&self) -> Result<String, Error> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|_| Error::Encode)
    }

    #[must_use]
    pub fn bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Lowercase hex SHA-256 of the SPKI DER.
    #[must_use]
    pub fn id(&self) -> String {
        // RFC 8410: the SPKI of an Ed25519 key is this prefix and the 32 bytes.
        const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let mut hash = Sha256::new();
        hash.update(PREFIX);
        hash.update(self.bytes());
        hex::encode(hash.finalize())
    }

    /// Strict verification: canonical S, no small-order points.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl SecretKey {
    /// A new key from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    #[must_use]
    #[allow(clippy::expect_used, reason = "without randomness there is no safe way on")]
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut()).expect("the operating system gives random bytes");
        Self(SigningKey::from_bytes(&seed))
    }

    /// Read unencrypted PKCS#8 PEM (v1 or v2).
    ///
    /// # Errors
    /// [`Error::Secret`].
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        SigningKey::from_pkcs8_pem(pem).map(Self).map_err(Error::Secret)
    }

    /// PKCS#8 v1 PEM, which OpenSSL 3.0 and pyca/cryptography read (they refuse v2).
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn to_pem(&self) -> Result<Zeroizing<String>, Error> {
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        bytes.to_pkcs8_pem(LineEnding::LF).map_err(|_| Error::Encode)
    }

    #[must_use]
    #[allow(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "a key that was generated or loaded is never weak in practice"
    )]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_round_trips() {
        let key = SecretKey::generate();
        let pem = key.to_pem().map(|p| p.to_string()).unwrap_or_default();
        let back = SecretKey::from_pem(&pem).map(|k| k.public());
        assert_eq!(back.ok(), Some(key.public()));
        let two = key.public().to_pem().unwrap_or_default().repeat(2);
        assert_eq!(PublicKey::all_from_pem(&two).map(|k| k.len()).ok(), Some(2));
    }

    #[test]
    fn weak_keys_are_refused_and_s_plus_l_too() {
        let mut identity = [0u8; 32];
        identity[0] = 1;
        assert!(matches!(PublicKey::from_bytes(&identity), Err(Error::Weak)));

        let key = SecretKey::generate();
        let mut signature = key.sign(b"m");
        assert!(key.public().verify(b"m", &signature));
        // S + L: the same signature in a form that only a lax verifier takes.
        const L: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0u16;
        for (byte, l) in signature[32..].iter_mut().zip(L) {
            carry += u16::from(*byte) + u16::from(l);
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        assert!(!key.public().verify(b"m", &signature));
    }
}

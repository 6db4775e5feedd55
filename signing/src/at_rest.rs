//! Private keys under a password: PKCS#8 with PBES2 (RFC 8018), scrypt (RFC 7914) and
//! AES-256-CBC, in the parameters that OpenSSL 3.0 reads. Refuses a wrong password.

use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use crate::keys::{self, SecretKey};

const LABEL: &str = "ENCRYPTED PRIVATE KEY";
const PLAIN_LABEL: &str = "PRIVATE KEY";
/// N = 2^14: OpenSSL's memory limit for scrypt allows no more.
const LOG_N: u8 = 14;
const R: u32 = 8;
const P: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Key(#[from] keys::Error),
    #[error("not a PKCS#8 private key in PEM")]
    Pem(#[source] pkcs8::der::Error),
    #[error("the password is wrong, or the encryption is one that is not supported")]
    Open,
    #[error("the key could not be encrypted")]
    Seal,
}

/// Whether the PEM block is of an encrypted key.
#[must_use]
pub fn is_encrypted(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// PEM of `key` under `password`.
///
/// # Errors
/// [`Error::Seal`] when the operating system has no randomness, or encoding fails.
pub fn seal(key: &SecretKey, password: &[u8]) -> Result<Zeroizing<String>, Error> {
    let (_, plain) = SecretDocument::from_pem(&key.to_pem()?).map_err(Error::Pem)?;
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    getrandom::fill(&mut salt).map_err(|_| Error::Seal)?;
    getrandom::fill(&mut iv).map_err(|_| Error::Seal)?;
    let cost = scrypt::Params::new(LOG_N, R, P).map_err(|_| Error::Seal)?;
    let params = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(|_| Error::Seal)?;
    let info = PrivateKeyInfoRef::try_from(plain.as_bytes()).map_err(|_| Error::Seal)?;
    let sealed = info.encrypt_with_params(params, password).map_err(|_| Error::Seal)?;
    sealed.to_pem(LABEL, LineEnding::LF).map_err(|_| Error::Seal)
}

/// The key of an encrypted PEM block.
///
/// # Errors
/// [`Error::Open`] for a wrong password.
pub fn open(pem: &str, password: &[u8]) -> Result<SecretKey, Error> {
    let (_, sealed) = SecretDocument::from_pem(pem).map_err(Error::Pem)?;
    let info = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|_| Error::Open)?;
    let plain = info.decrypt(password).map_err(|_| Error::Open)?;
    let plain = plain.to_pem(PLAIN_LABEL, LineEnding::LF).map_err(Error::Pem)?;
    Ok(SecretKey::from_pem(&plain)?)
}

#[cfg(test)]
mod tests;

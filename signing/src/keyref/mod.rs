//! Keys by reference: `file:PATH` (or a plain path), `env:VAR`, `pkcs11:…`. Refuses secrets
//! on a command line, key files that others can read, and a password for a key that has
//! none. With [`crate::pkcs11`] the only part of this library that touches the host.

mod secret;

use zeroize::Zeroizing;

use crate::at_rest;
use crate::keys::SecretKey;
use crate::pkcs11;
use crate::signer::Signer;

pub use secret::Source;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("key reference {reference:?}: wanted file:PATH, a path, env:VAR or pkcs11:URI")]
    Reference { reference: String },
    #[error("secret {text:?}: wanted env:VAR, file:PATH or fd:N")]
    Source { text: String },
    #[error("environment variable {variable} is not set, empty or not UTF-8")]
    Variable { variable: String },
    #[error("can't read {name}")]
    Read { name: String, source: std::io::Error },
    #[error("{name} is longer than any key or password")]
    TooLarge { name: String },
    #[error("{name} is not UTF-8 text")]
    Text { name: String },
    #[error("{name} can be read by others (mode {mode:04o}); chmod 600 it")]
    Readable { name: String, mode: u32 },
    #[error("key {name} is encrypted; give its password by a variable, a file or a descriptor")]
    NoPassword { name: String },
    #[error("a password is given, but no key is encrypted")]
    UnneededPassword,
    #[error("the password is empty")]
    EmptyPassword,
    #[error("key {name}")]
    Key { name: String, source: at_rest::Error },
    #[error("{name} and {other} are one key")]
    Twice { name: String, other: String },
    #[error(transparent)]
    Token(#[from] pkcs11::Error),
}

/// The key that `reference` names. `password` is read only for an encrypted key.
///
/// # Errors
/// When the reference is none, or its key can't be had.
pub fn signer(reference: &str, password: Option<&Source>) -> Result<Box<dyn Signer>, Error> {
    signers([reference], password)?.pop().ok_or_else(|| Error::Reference { reference: reference.to_owned() })
}

/// The keys that `references` name, in their order. All encrypted ones have one password,
/// which is read once (a descriptor gives it only once).
///
/// # Errors
/// The first key that can't be had; a key that is named twice; a password that no key
/// needed.
pub fn signers<'a>(
    references: impl IntoIterator<Item = &'a str>,
    password: Option<&Source>,
) -> Result<Vec<Box<dyn Signer>>, Error> {
    let mut once = None;
    let mut keys: Vec<(&str, Box<dyn Signer>)> = Vec::new();
    for reference in references {
        let key = one(reference, password, &mut once)?;
        if let Some((other, _)) = keys.iter().find(|(_, other)| other.public() == key.public()) {
            return Err(Error::Twice { name: shown(reference), other: shown(other) });
        }
        keys.push((reference, key));
    }
    if password.is_some() && once.is_none() {
        return Err(Error::UnneededPassword);
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// `once` keeps the password that was read.
fn one(
    reference: &str,
    password: Option<&Source>,
    once: &mut Option<Zeroizing<String>>,
) -> Result<Box<dyn Signer>, Error> {
    if reference.starts_with("pkcs11:") {
        return Ok(Box::new(pkcs11::TokenKey::open(&pkcs11::Uri::parse(reference)?)?));
    }
    let pem = match reference.split_once(':') {
        Some(("env", variable)) if !variable.is_empty() => Source::Env(variable.to_owned()).read()?,
        Some(("file", path)) if !path.is_empty() => Source::File(path.into()).read()?,
        None if !reference.is_empty() => Source::File(reference.into()).read()?,
        _ => return Err(Error::Reference { reference: reference.to_owned() }),
    };
    let key = |source| Error::Key { name: reference.to_owned(), source };
    if !at_rest::is_encrypted(&pem) {
        return Ok(Box::new(SecretKey::from_pem(&pem).map_err(|error| key(error.into()))?));
    }
    if once.is_none() {
        let source = password.ok_or_else(|| Error::NoPassword { name: reference.to_owned() })?;
        *once = Some(source.read_line()?);
    }
    let password = once.as_ref().map(|text| text.as_bytes()).unwrap_or_default();
    Ok(Box::new(at_rest::open(&pem, password).map_err(key)?))
}

/// A reference as it may be told: a token's URI without its query.
fn shown(reference: &str) -> String {
    reference.split('?').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;

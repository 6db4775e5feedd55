//! Arguments of the form `ROLE=VALUE`. Refuses roles that there are not.

use std::path::Path;
use viworks_signing::keys::PublicKey;
use viworks_signing::tuf::repo::ROLES;

use super::super::{Error, files};
use super::Fault;

/// The role and the value.
pub(super) fn split(text: &str) -> Result<(&'static str, &str), Error> {
    let parts = text.split_once('=').and_then(|(role, value)| Some((ROLES.into_iter().find(|r| *r == role)?, value)));
    Ok(parts.filter(|(_, value)| !value.is_empty()).ok_or_else(|| Fault::Role { text: text.to_owned() })?)
}

/// `ROLE=N`
pub(super) fn number(text: &str, least: u32) -> Result<(&'static str, u32), Error> {
    let (role, value) = split(text)?;
    match value.parse::<u32>() {
        Ok(number) if (least..=3650).contains(&number) => Ok((role, number)),
        _ => Err(Fault::Number { text: value.to_owned(), least }.into()),
    }
}

/// `ROLE=FILE`, and `ROLE=FILE,FILE`: the public keys in the files.
pub(super) fn keys(text: &str) -> Result<(&'static str, Vec<PublicKey>), Error> {
    let (role, value) = split(text)?;
    let mut keys = Vec::new();
    for path in value.split(',').map(Path::new) {
        let pem = files::read_text(path, files::MAX_TEXT)?;
        let read = PublicKey::all_from_pem(&pem);
        keys.extend(read.map_err(|source| Error::Public { path: path.to_owned(), source })?);
    }
    Ok((role, keys))
}

/// A key's id, or a file with the public key.
pub(super) fn key_id(text: &str) -> Result<String, Error> {
    if is_digest(text) {
        return Ok(text.to_owned());
    }
    let path = Path::new(text);
    let pem = files::read_text(path, files::MAX_TEXT)?;
    let key = PublicKey::from_pem(&pem).map_err(|source| Error::Public { path: path.to_owned(), source })?;
    Ok(key.id())
}

pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

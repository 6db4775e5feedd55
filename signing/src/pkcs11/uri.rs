//! PKCS#11 URIs (RFC 7512), as far as they name one key. Refuses attributes that would go
//! unread, and `pin-value`, which every process could see.

use cryptoki::error::Error as Cryptoki;
use std::path::PathBuf;

use super::Error;
use crate::fault::choices;
use crate::keyref::Source;

const PATH: [&str; 5] = ["token", "serial", "object", "id", "type"];
const QUERY: [&str; 2] = ["module-path", "pin-source"];

/// `pkcs11:token=…;object=…?module-path=…&pin-source=…`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// The token's label.
    pub token: String,
    pub serial: Option<String>,
    /// The key's label.
    pub object: Option<String>,
    /// The key's CKA_ID.
    pub id: Option<Vec<u8>>,
    /// The shared library; an absolute path, so that no search path decides what is loaded.
    pub module: PathBuf,
    /// Absent: the token has a keypad.
    pub pin: Option<Source>,
}

impl Uri {
    /// # Errors
    /// [`Error::Uri`], which names the attribute and what is valid.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix("pkcs11:").ok_or_else(|| fault("begins with pkcs11:"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = attributes(path, ';', &PATH)?;
        let query = attributes(query, '&', &QUERY)?;
        let value = |from: &[(&str, Vec<u8>)], name: &str| {
            let found = from.iter().find(|(key, _)| *key == name);
            found
                .map(|(_, value)| String::from_utf8(value.clone()).map_err(|_| fault(&format!("{name} is not UTF-8"))))
                .transpose()
        };
        if value(&path, "type")?.is_some_and(|kind| kind != "private") {
            return Err(fault("type, if given, is private"));
        }
        let uri = Self {
            token: value(&path, "token")?.ok_or_else(|| fault("token=LABEL is missing"))?,
            serial: value(&path, "serial")?,
            object: value(&path, "object")?,
            id: path.iter().find(|(key, _)| *key == "id").map(|(_, value)| value.clone()),
            module: value(&query, "module-path")?.ok_or_else(|| fault("module-path=FILE is missing"))?.into(),
            pin: match value(&query, "pin-source")? {
                Some(source) => Some(Source::parse(&source).map_err(|error| fault(&format!("pin-source: {error}")))?),
                None => None,
            },
        };
        if uri.object.is_none() && uri.id.is_none() {
            return Err(fault("object=LABEL or id=BYTES is missing: they name the key"));
        }
        if !uri.module.is_absolute() {
            return Err(fault("module-path is not absolute"));
        }
        Ok(uri)
    }

    /// The key's name, for people.
    pub(super) fn object_shown(&self) -> String {
        match (&self.object, &self.id) {
            (Some(label), _) => format!("{label:?}"),
            (None, Some(id)) => format!("id {}", hex::encode(id)),
            (None, None) => "any".to_owned(),
        }
    }

    pub(super) fn failed(&self, step: &'static str) -> impl Fn(Cryptoki) -> Error + use<> {
        let module = self.module.display().to_string();
        move |source| Error::Module { step, module: module.clone(), source }
    }
}

fn fault(what: &str) -> Error {
    Error::Uri { what: what.to_owned() }
}

/// `key=value` pairs, percent-decoded; each key known and given once.
fn attributes<'a>(text: &'a str, separator: char, known: &[&str]) -> Result<Vec<(&'a str, Vec<u8>)>, Error> {
    let mut found: Vec<(&str, Vec<u8>)> = Vec::new();
    for part in text.split(separator).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| fault(&format!("{part:?} has no value")))?;
        if key == "pin-value" {
            return Err(fault(
                "pin-value would show the PIN to every process; use pin-source=env:VAR, file:PATH or fd:N",
            ));
        }
        if !known.contains(&key) {
            return Err(fault(&format!("unknown attribute {key:?}; wanted {}", choices(known))));
        }
        if found.iter().any(|(other, _)| *other == key) {
            return Err(fault(&format!("{key} is given twice")));
        }
        found.push((key, decode(value).ok_or_else(|| fault(&format!("{key} is not percent-encoded")))?));
    }
    Ok(found)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.extend(hex::decode(digits).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Uri::parse(text).map_or_else(|error| error.to_string(), |uri| panic!("{uri:?}"))
    }

    #[test]
    fn a_uri_names_token_key_module_and_pin() {
        let text =
            "pkcs11:token=Release%20keys;object=release;id=%01%ff?module-path=/usr/lib/hsm.so&pin-source=env:PIN";
        let uri = Uri::parse(text).unwrap();
        assert_eq!((uri.token.as_str(), uri.object.as_deref()), ("Release keys", Some("release")));
        assert_eq!((uri.id, uri.pin), (Some(vec![1, 0xff]), Some(Source::Env("PIN".into()))));
        assert!(Uri::parse("pkcs11:token=t;id=%01;type=private?module-path=/m.so").is_ok_and(|uri| uri.pin.is_none()));
    }

    #[test]
    fn what_is_missing_unknown_or_secret_is_refused_by_name() {
        assert!(problem("pkcs11:object=o?module-path=/m").contains("token=LABEL"));
        assert!(problem("pkcs11:token=t?module-path=/m").contains("object=LABEL or id=BYTES"));
        assert!(problem("pkcs11:token=t;object=o").contains("module-path=FILE"));
        assert!(problem("pkcs11:token=t;object=o?module-path=m.so").contains("not absolute"));
        assert!(problem("pkcs11:token=t;object=o?module-path=/m&pin-value=1234").contains("use pin-source"));
        assert!(problem("pkcs11:token=t;object=o?module-path=/m&pin-source=1234").contains("env:VAR"));
        assert!(problem("pkcs11:token=t;slot=o?module-path=/m").contains("wanted token, serial, object, id or type"));
        assert!(problem("pkcs11:token=t;token=u;object=o?module-path=/m").contains("twice"));
        assert!(problem("pkcs11:token=%4;object=o?module-path=/m").contains("percent"));
        assert!(problem("pkcs11:token=t;object=o;type=public?module-path=/m").contains("private"));
    }
}

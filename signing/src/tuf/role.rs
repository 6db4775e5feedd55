//! Who may sign a role, and whether enough did. A key counts once, however many ids it is
//! given; weak keys and others than Ed25519 are refused where they are named.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

use super::TufError;
use crate::keys::PublicKey;

/// More signatures than this on one file are refused unread.
pub const MAX_SIGNATURES: usize = 32;
const ED25519: &str = "ed25519";

/// A key as metadata writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub keytype: String,
    pub scheme: String,
    pub keyval: KeyValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Hex of the 32 bytes.
    pub public: String,
}

/// The keys of a role and how many of them have to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    pub keyids: Vec<String>,
    pub threshold: u32,
}

/// One signature; `keyid` says which key to try and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    pub keyid: String,
    /// Hex of the 64 bytes.
    pub sig: String,
}

/// A role's usable keys by id, and its threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    name: String,
    keys: BTreeMap<String, PublicKey>,
    threshold: u32,
}

impl Key {
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        let keyval = KeyValue { public: hex::encode(key.bytes()) };
        Self { keytype: ED25519.to_owned(), scheme: ED25519.to_owned(), keyval }
    }

    /// The key, if it is Ed25519 and not weak.
    ///
    /// # Errors
    /// [`TufError::Key`] or [`TufError::Format`].
    pub fn public(&self, id: &str) -> Result<PublicKey, TufError> {
        let bytes = hex::decode(&self.keyval.public).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        match bytes {
            Some(bytes) if self.keytype == ED25519 && self.scheme == ED25519 => {
                PublicKey::from_bytes(&bytes).map_err(|source| TufError::Key { id: id.to_owned(), source })
            }
            _ => Err(TufError::Format { what: format!("key {id} is not Ed25519 in hex") }),
        }
    }
}

/// The id that metadata gives `key`: SHA-256 of its canonical form. Not [`PublicKey::id`].
#[must_use]
pub fn key_id(key: &PublicKey) -> String {
    // Three fields of plain text: the canonical form can be written as it is.
    let public = hex::encode(key.bytes());
    let form = format!(r#"{{"keytype":"{ED25519}","keyval":{{"public":"{public}"}},"scheme":"{ED25519}"}}"#);
    hex::encode(Sha256::digest(form))
}

impl Role {
    /// Look up the role's keys among `keys`.
    ///
    /// # Errors
    /// When a key is missing, named twice or can't be used, or the threshold can't be met.
    pub fn new(name: &str, role: &RoleKeys, keys: &BTreeMap<String, Key>) -> Result<Self, TufError> {
        let format = |what: String| TufError::Format { what: format!("role {name}: {what}") };
        let mut found = BTreeMap::new();
        for id in &role.keyids {
            let key = keys.get(id).ok_or_else(|| format(format!("key {id} is not given")))?;
            if found.insert(id.clone(), key.public(id)?).is_some() {
                return Err(format(format!("key {id} is named twice")));
            }
        }
        if role.threshold == 0 || role.threshold as usize > found.len() {
            return Err(format(format!("{} of {} keys is no threshold", role.threshold, found.len())));
        }
        Ok(Self { name: name.to_owned(), keys: found, threshold: role.threshold })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// By the id that metadata gives them.
    #[must_use]
    pub fn keys(&self) -> &BTreeMap<String, PublicKey> {
        &self.keys
    }

    /// Distinct keys of this role that signed `message`. What isn't by one of them is
    /// stepped over.
    #[must_use]
    pub fn signers(&self, message: &[u8], signatures: &[Signature]) -> BTreeSet<[u8; 32]> {
        let mut signers = BTreeSet::new();
        for signature in signatures.iter().take(MAX_SIGNATURES) {
            let Some(key) = self.keys.get(&signature.keyid) else { continue };
            // One way to write it: in upper case it would be the same signature in other bytes.
            let lower = !signature.sig.bytes().any(|byte| byte.is_ascii_uppercase());
            let bytes = hex::decode(&signature.sig).ok().filter(|_| lower);
            let bytes = bytes.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
            if bytes.is_some_and(|bytes| key.verify(message, &bytes)) {
                signers.insert(key.bytes());
            }
        }
        signers
    }

    /// Enough distinct keys of this role signed `message`.
    ///
    /// # Errors
    /// [`TufError::Threshold`].
    pub fn verify(&self, message: &[u8], signatures: &[Signature]) -> Result<(), TufError> {
        let found = self.signers(message, signatures).len();
        if found < self.threshold as usize {
            return Err(TufError::Threshold { role: self.name.clone(), found, wanted: self.threshold });
        }
        Ok(())
    }
}

/// No key is in two of `roles`.
///
/// # Errors
/// [`TufError::KeyRoles`].
pub fn disjoint<'a>(roles: impl IntoIterator<Item = &'a Role>) -> Result<(), TufError> {
    let mut seen: BTreeMap<[u8; 32], &str> = BTreeMap::new();
    for role in roles {
        for (id, key) in &role.keys {
            match seen.insert(key.bytes(), &role.name) {
                Some(one) if one != role.name => {
                    return Err(TufError::KeyRoles { id: id.clone(), one: one.to_owned(), other: role.name.clone() });
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;

    fn role(keys: &[(&str, &SecretKey)], threshold: u32) -> Result<Role, TufError> {
        let named = keys.iter().map(|(id, key)| ((*id).to_owned(), Key::of(&key.public()))).collect();
        let keyids = keys.iter().map(|(id, _)| (*id).to_owned()).collect();
        Role::new("r", &RoleKeys { keyids, threshold }, &named)
    }

    fn signature(id: &str, key: &SecretKey) -> Signature {
        Signature { keyid: id.to_owned(), sig: hex::encode(key.sign(b"m")) }
    }

    #[test]
    fn one_key_under_two_ids_counts_once() {
        let (key, other) = (SecretKey::generate(), SecretKey::generate());
        let role = role(&[("a", &key), ("b", &key), ("c", &other)], 2).unwrap();
        let stuffed = [signature("a", &key), signature("b", &key)];
        assert!(matches!(role.verify(b"m", &stuffed), Err(TufError::Threshold { found: 1, wanted: 2, .. })));
        assert!(role.verify(b"m", &[signature("a", &key), signature("c", &other)]).is_ok());
        assert!(role.verify(b"x", &[signature("a", &key), signature("c", &other)]).is_err());
        assert!(role.verify(b"m", &[signature("a", &key), signature("unknown", &other)]).is_err());
    }

    #[test]
    fn a_signature_is_written_in_one_way() {
        let key = SecretKey::generate();
        let role = role(&[("a", &key)], 1).unwrap();
        let good = signature("a", &key);
        let upper = Signature { sig: good.sig.to_uppercase(), ..good.clone() };
        assert!(role.verify(b"m", &[good]).is_ok());
        assert!(role.verify(b"m", &[upper]).is_err());
    }

    #[test]
    fn a_threshold_that_cannot_be_met_or_is_nothing_is_refused() {
        let key = SecretKey::generate();
        for threshold in [0, 2] {
            assert!(role(&[("a", &key)], threshold).is_err());
        }
    }
}

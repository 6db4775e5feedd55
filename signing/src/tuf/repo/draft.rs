//! One file of metadata while it is written: its content, and the signatures that it has so
//! far. Refuses a key that has no part in the file's role.

use serde::Serialize;
use serde_json::Value;

use super::super::metadata::{Kind, Unverified};
use super::super::role::{Role, Signature, key_id};
use super::super::{TufError, canonical};
use super::Error;
use crate::signer::Signer;

/// Content and signatures, complete or not.
#[derive(Debug, Clone, Serialize)]
pub struct Draft<T> {
    signatures: Vec<Signature>,
    pub signed: T,
}

impl<T: Kind + Clone> Draft<T> {
    #[must_use]
    pub fn new(signed: T) -> Self {
        Self { signatures: Vec::new(), signed }
    }

    /// Read a file that may lack signatures.
    ///
    /// # Errors
    /// When it is no metadata of this kind.
    pub fn read(name: &str, bytes: &[u8], max: u64) -> Result<Self, TufError> {
        let read = Unverified::<T>::read(name, bytes, max)?;
        Ok(Self { signatures: read.signatures().to_vec(), signed: read.body().clone() })
    }

    /// The bytes under the signatures.
    ///
    /// # Errors
    /// When the content has no canonical form.
    pub fn message(&self) -> Result<Vec<u8>, TufError> {
        let value: Value = serde_json::to_value(&self.signed).map_err(TufError::Encode)?;
        canonical::encode(&value)
    }

    /// The file.
    ///
    /// # Errors
    /// When it has no canonical form, or a client would not read it.
    pub fn bytes(&self, name: &str, max: u64) -> Result<Vec<u8>, TufError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(TufError::Encode)?;
        bytes.push(b'\n');
        Unverified::<T>::read(name, &bytes, max)?;
        Ok(bytes)
    }

    /// Sign with each of `keys` that is one of `role` and has not signed; how many did.
    ///
    /// # Errors
    /// When a key does not sign.
    pub fn sign(&mut self, role: &Role, keys: &[&dyn Signer]) -> Result<usize, Error> {
        let message = self.message()?;
        let signed = role.signers(&message, &self.signatures);
        let mut count = 0;
        for key in keys {
            let public = key.public();
            let Some((id, _)) = role.keys().iter().find(|(_, known)| **known == public) else { continue };
            if signed.contains(&public.bytes()) {
                continue;
            }
            let sig = hex::encode(key.sign(&message)?);
            self.signatures.retain(|signature| signature.keyid != *id);
            self.signatures.push(Signature { keyid: id.clone(), sig });
            count += 1;
        }
        Ok(count)
    }

    /// Signatures that `role` still wants, and the ids of the keys that could give them.
    ///
    /// # Errors
    /// When the content has no canonical form.
    pub fn missing(&self, role: &Role) -> Result<Missing, TufError> {
        let signers = role.signers(&self.message()?, &self.signatures);
        let open = role.keys().values().filter(|key| !signers.contains(&key.bytes()));
        Ok(Missing {
            role: role.name().to_owned(),
            count: (role.threshold() as usize).saturating_sub(signers.len()),
            keys: open.map(crate::keys::PublicKey::id).collect(),
        })
    }

    /// Take the signatures away: the content changes.
    pub fn unsign(&mut self) {
        self.signatures.clear();
    }

    /// As it is, for tests that break it.
    #[must_use]
    pub fn signatures_mut(&mut self) -> &mut Vec<Signature> {
        &mut self.signatures
    }
}

/// What a role still wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub role: String,
    /// Signatures.
    pub count: usize,
    /// Ids (of the public keys' SPKI) of which any will do.
    pub keys: Vec<String>,
}

/// The id of a public key in metadata; exported for those who read metadata by hand.
#[must_use]
pub fn id_in_metadata(key: &dyn Signer) -> String {
    key_id(&key.public())
}

//! Who may speak, in which role, and how many must agree. Thresholds count distinct
//! 32-byte keys, whatever ids they go by. Refuses a role that its keys can't fill.

use std::collections::BTreeSet;

use crate::keys::PublicKey;

/// The keys of one role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    threshold: u32,
    keys: Vec<PublicKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a threshold of {threshold} with {keys} distinct keys can't be met")]
pub struct TooFew {
    pub threshold: u32,
    pub keys: usize,
}

impl Role {
    /// A key given twice is one key.
    ///
    /// # Errors
    /// When there are fewer distinct keys than `threshold`.
    pub fn new(threshold: u32, keys: impl IntoIterator<Item = PublicKey>) -> Result<Self, TooFew> {
        let mut seen = BTreeSet::new();
        let keys: Vec<PublicKey> = keys.into_iter().filter(|key| seen.insert(key.bytes())).collect();
        match usize::try_from(threshold) {
            Ok(wanted) if wanted <= keys.len() => Ok(Self { threshold, keys }),
            _ => Err(TooFew { threshold, keys: keys.len() }),
        }
    }

    /// How many keys must agree; 0: nothing has to be said in this role.
    #[must_use]
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Each key once.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Whether so many of its keys are among `signers`.
    #[must_use]
    pub fn is_met(&self, signers: &BTreeSet<[u8; 32]>) -> bool {
        self.count(signers) >= self.threshold as usize
    }

    pub(crate) fn count(&self, signers: &BTreeSet<[u8; 32]>) -> usize {
        self.keys.iter().filter(|key| signers.contains(&key.bytes())).count()
    }
}

/// Everybody whose word counts for a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Says which bytes are which release. Its threshold is at least 1.
    release: Role,
    /// Reviews releases. Threshold 0: no review is needed, and one that is there counts.
    security: Role,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the release role needs a threshold of at least 1")]
    NoThreshold,
    #[error("key {keyid} holds both the release and the security role")]
    TwoRoles { keyid: String },
}

impl Trust {
    /// # Errors
    /// When no key is needed to release, or one key holds both roles.
    pub fn new(release: Role, security: Role) -> Result<Self, Error> {
        if release.threshold == 0 {
            return Err(Error::NoThreshold);
        }
        match release.keys.iter().find(|key| security.keys.contains(key)) {
            Some(key) => Err(Error::TwoRoles { keyid: key.id() }),
            None => Ok(Self { release, security }),
        }
    }

    /// Any one of `keys` may release, and nobody reviews. Without keys nothing verifies.
    #[must_use]
    pub fn any_of(keys: &[PublicKey]) -> Self {
        let mut seen = BTreeSet::new();
        let keys = keys.iter().copied().filter(|key| seen.insert(key.bytes())).collect();
        Self { release: Role { threshold: 1, keys }, security: Role::default() }
    }

    #[must_use]
    pub fn release(&self) -> &Role {
        &self.release
    }

    #[must_use]
    pub fn security(&self) -> &Role {
        &self.security
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretKey;

    #[test]
    fn thresholds_count_distinct_keys() {
        let (a, b) = (SecretKey::generate().public(), SecretKey::generate().public());
        assert_eq!(Role::new(2, [a, a]), Err(TooFew { threshold: 2, keys: 1 }));
        let role = Role::new(2, [a, b, a]).unwrap();
        assert_eq!(role.keys().len(), 2);
        let signers = |keys: &[PublicKey]| keys.iter().map(PublicKey::bytes).collect();
        assert!(role.is_met(&signers(&[a, b])) && !role.is_met(&signers(&[a, SecretKey::generate().public()])));
    }

    #[test]
    fn a_key_holds_one_role_and_somebody_releases() {
        let key = SecretKey::generate().public();
        let one = Role::new(1, [key]).unwrap();
        assert!(matches!(Trust::new(one.clone(), one.clone()), Err(Error::TwoRoles { .. })));
        assert_eq!(Trust::new(Role::new(0, [key]).unwrap(), Role::default()), Err(Error::NoThreshold));
        assert_eq!(Trust::new(one, Role::default()), Ok(Trust::any_of(&[key, key])));
    }
}

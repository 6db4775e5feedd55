//! What a removed account was, so that its hash never leaves the root side and nobody but
//! the broker can say what is to be restored: the password field of a record that goes to
//! the gateway is encrypted under a key of the broker's, bound to all else that the record
//! says (RFC 8439, AEAD). Refuses a record that was not sealed here, or was changed.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::capabilities::accounts::{Change, Record};
use crate::effects::{Effect, Foreseen, Inverse, Trace};
use crate::vault::{Vault, VaultError};

const FILE: &str = "seal.key";
const KEY_LEN: usize = 32;
/// What a sealed field looks like; a `!` before it says that the account is locked.
const MARK: &str = "sealed:v1:";

pub(crate) struct Seal(LessSafeKey);

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the broker's sealing key can't be read or made")]
    Vault(#[from] VaultError),
    #[error("the broker's sealing key is damaged")]
    Damaged,
    #[error("no random bytes")]
    Random(#[source] getrandom::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record of account was not sealed by this broker, or was changed since")]
pub(crate) struct Unsealed;

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// The key in this directory, made where there is none.
    ///
    /// # Errors
    /// When it can't be read or made.
    pub(crate) fn open(vault: &Vault) -> Result<Self, SealError> {
        let key = match vault.read(FILE, KEY_LEN as u64)? {
            Some(key) => Zeroizing::new(key),
            None => {
                let mut key = Zeroizing::new(vec![0_u8; KEY_LEN]);
                getrandom::fill(&mut key).map_err(SealError::Random)?;
                vault.write(FILE, &key)?;
                key
            }
        };
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|_| SealError::Damaged)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seal what goes to the gateway.
    pub(crate) fn foreseen(&self, mut foreseen: Foreseen) -> Result<Foreseen, Unsealed> {
        self.seal(&mut foreseen.effect)?;
        Ok(foreseen)
    }

    /// Seal what goes to the gateway.
    pub(crate) fn trace(&self, mut trace: Trace) -> Result<Trace, Unsealed> {
        if let Trace::Present(Inverse::Effect(effect)) = &mut trace {
            self.seal(effect)?;
        }
        Ok(trace)
    }

    fn seal(&self, effect: &mut Effect) -> Result<(), Unsealed> {
        match effect {
            Effect::Accounts(Change::Remove { record: Some(record), .. } | Change::Restore(record)) => {
                record.password = self.shut(record)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Open what comes from the gateway. A record to remove by is compared with the host, and
    /// need not be sealed; one to restore from must be.
    pub(crate) fn unseal(&self, effect: &mut Effect) -> Result<(), Unsealed> {
        match effect {
            Effect::Accounts(Change::Restore(record)) => {
                record.password = self.opened(record)?;
                Ok(())
            }
            Effect::Accounts(Change::Remove { record: Some(record), .. }) if record.password.contains(MARK) => {
                record.password = self.opened(record)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn shut(&self, record: &Record) -> Result<String, Unsealed> {
        let mut nonce = [0_u8; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| Unsealed)?;
        let mut text = record.password.clone().into_bytes();
        let sealed =
            self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound(record)?), &mut text);
        sealed.map_err(|_| Unsealed)?;
        let lock = if record.password.starts_with('!') { "!" } else { "" };
        Ok(format!("{lock}{MARK}{}", STANDARD_NO_PAD.encode([&nonce[..], &text].concat())))
    }

    fn opened(&self, record: &Record) -> Result<String, Unsealed> {
        let token = record.password.strip_prefix('!').unwrap_or(&record.password);
        let bytes = token.strip_prefix(MARK).and_then(|text| STANDARD_NO_PAD.decode(text).ok()).ok_or(Unsealed)?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(Unsealed)?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(bound(record)?), &mut text).map_err(|_| Unsealed)?;
        String::from_utf8(opened.to_vec()).map_err(|_| Unsealed)
    }
}

/// All that the field is sealed together with. What became of the home is said by the
/// quarantine itself.
fn bound(record: &Record) -> Result<Vec<u8>, Unsealed> {
    let Record { name, uid, gid, group, comment, home, shell, groups, expires, .. } = record;
    serde_json::to_vec(&(name, uid, gid, group, comment, home, shell, groups, expires)).map_err(|_| Unsealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            name: "deploy".into(),
            uid: 20_001,
            gid: 20_001,
            group: "deploy".into(),
            home: "/home/deploy".into(),
            shell: "/bin/sh".into(),
            groups: vec!["users".into()],
            password: "!$y$j9T$salt$hash".into(),
            ..Record::default()
        }
    }

    #[test]
    fn what_was_sealed_opens_and_what_was_changed_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let vault = || Vault::open(&dir.path().join("v")).unwrap();
        let seal = Seal::open(&vault()).unwrap();
        let mut sealed = Effect::Accounts(Change::Restore(Box::new(record())));
        seal.seal(&mut sealed).unwrap();
        let Effect::Accounts(Change::Restore(inside)) = &sealed else { panic!("{sealed:?}") };
        assert!(inside.password.starts_with("!sealed:v1:") && !inside.password.contains("hash"));

        // The key stays: a broker that was started again opens it.
        let mut opened = sealed.clone();
        Seal::open(&vault()).unwrap().unseal(&mut opened).unwrap();
        assert_eq!(opened, Effect::Accounts(Change::Restore(Box::new(record()))));

        let changes: [fn(&mut Record); 6] = [
            |r| r.groups = vec!["sudo".into()],
            |r| r.uid = 20_002,
            |r| r.shell = "/bin/bash".into(),
            |r| r.home = "/home/other".into(),
            |r| r.password = "$6$mine".into(),
            |r| r.password.push('A'),
        ];
        for change in changes {
            let mut other = inside.clone();
            change(&mut other);
            assert_eq!(seal.unseal(&mut Effect::Accounts(Change::Restore(other))), Err(Unsealed));
        }
        let other = Seal::open(&Vault::open(&dir.path().join("w")).unwrap()).unwrap();
        assert_eq!(other.unseal(&mut sealed.clone()), Err(Unsealed), "of another broker");
    }
}

//! Compiled components, kept so that a start need not compile. An entry is this gateway's
//! own work or it is not used: its name says which component and which engine made it, a
//! MAC with a key that never leaves this host says that it was made here, and it lies in
//! a directory that only this user can enter. Never takes compiled code from outside.

use std::hash::Hash;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

use super::hmac::Hmac;
use crate::vault::{Vault, VaultError};

const KEY_FILE: &str = "device.key";
const KEY_LENGTH: usize = 32;
/// A compiled component is several times its bytes.
pub(super) const MAX_ENTRY: u64 = 512 << 20;

/// The cache of one engine.
pub(super) struct Cache {
    vault: Vault,
    key: Zeroizing<[u8; KEY_LENGTH]>,
    engine: String,
}

impl Cache {
    /// Open the cache in `dir`. The key is made at the first start; a lost one only costs
    /// compiling again.
    ///
    /// # Errors
    /// When the directory or the key is not safe to use.
    pub(super) fn open(dir: &Path, engine: &Engine) -> Result<Self, VaultError> {
        let vault = Vault::open(dir)?;
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        let kept = vault.read(KEY_FILE, KEY_LENGTH as u64)?.map(Zeroizing::new);
        match kept.filter(|kept| kept.len() == KEY_LENGTH) {
            Some(kept) => key.copy_from_slice(&kept),
            None => {
                getrandom::fill(key.as_mut()).map_err(|error| VaultError::Io {
                    path: dir.join(KEY_FILE),
                    source: std::io::Error::other(error.to_string()),
                })?;
                vault.write(KEY_FILE, key.as_ref())?;
            }
        }
        let mut hasher = EngineHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { vault, key, engine: hex::encode(&hasher.0.finalize()[..16]) })
    }

    /// The compiled component, if this gateway made one with this engine. Whatever is not
    /// as it was written is removed and as good as absent.
    pub(super) fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        match self.try_load(engine, digest) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(target: "audit", %digest, error, "compiled code refused; compiling again");
                self.remove(digest);
                None
            }
        }
    }

    fn try_load(&self, engine: &Engine, digest: &str) -> Result<Option<Component>, String> {
        let name = self.name(digest);
        let file = self.vault.file(&name).map_err(|e| e.to_string())?;
        let mac = self.vault.read(&mac_name(&name), 32).map_err(|e| e.to_string())?;
        let (Some(mut file), Some(mac)) = (file, mac) else { return Ok(None) };
        let mut hmac = self.hmac(digest);
        let mut piece = vec![0; 128 * 1024];
        let mut read = 0;
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => {
                    read += n as u64;
                    hmac.update(&piece[..n]);
                }
                Err(error) => return Err(error.to_string()),
            }
            if read > MAX_ENTRY {
                return Err("too large".into());
            }
        }
        if !hmac.verify(&mac) {
            return Err("the MAC does not verify".into());
        }
        // The very file that was verified, whatever its name means by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        #[allow(unsafe_code, reason = "the one audited exception: loading our own AOT cache")]
        // SAFETY: `deserialize_file` wants bytes that `serialize` of a compatible engine
        // made, and that nobody changes while they are mapped. They are such bytes, since
        // their MAC under a key that only this user can read covers the component's
        // digest, the engine's compatibility hash and every byte; wasmtime checks its own
        // version and settings besides. They do not change: the file is regular, 0600, of
        // this user and without a second name, in a 0700 directory, and this program
        // replaces entries by rename and never writes to one. Whoever could write to it
        // all the same is this user, who can change this program's memory as well.
        let component = unsafe { Component::deserialize_file(engine, path) };
        component.map(Some).map_err(|e| format!("{e:#}"))
    }

    /// Keep compiled code that this process made of the component with `digest`.
    ///
    /// # Errors
    /// When it can't be written; then there is no entry.
    pub(super) fn store(&self, digest: &str, compiled: &[u8]) -> Result<(), VaultError> {
        let name = self.name(digest);
        let mut hmac = self.hmac(digest);
        hmac.update(compiled);
        self.vault.write(&name, compiled)?;
        self.vault.write(&mac_name(&name), &hmac.finish())
    }

    pub(super) fn remove(&self, digest: &str) {
        let name = self.name(digest);
        self.vault.remove(&name);
        self.vault.remove(&mac_name(&name));
    }

    /// Remove every entry but those of `digests` by this engine.
    pub(super) fn keep_only(&self, digests: &[&str]) {
        let kept: Vec<String> = digests.iter().map(|digest| self.name(digest)).collect();
        let Ok(names) = self.vault.names() else { return };
        for name in names {
            if name != KEY_FILE && !kept.iter().any(|kept| name == *kept || name == mac_name(kept)) {
                self.vault.remove(&name);
            }
        }
    }

    fn name(&self, digest: &str) -> String {
        format!("{digest}-{}.cwasm", self.engine)
    }

    fn hmac(&self, digest: &str) -> Hmac {
        let mut hmac = Hmac::new(self.key.as_ref());
        hmac.update(b"viworks-aot-v1\0");
        hmac.update(digest.as_bytes());
        hmac.update(self.engine.as_bytes());
        hmac
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("engine", &self.engine).finish_non_exhaustive()
    }
}

fn mac_name(name: &str) -> String {
    format!("{name}.mac")
}

/// The engine's compatibility hash as SHA-256: a 64-bit one could be met by chance.
struct EngineHasher(Sha256);

impl std::hash::Hasher for EngineHasher {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    type Tested = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn only_its_own_unchanged_work_is_loaded() -> Tested {
        let root = tempfile::tempdir()?;
        let (path, engine) = (root.path().join("aot"), Engine::default());
        let compiled = engine.precompile_component(b"\0asm\x0d\0\x01\0")?;
        let cache = Cache::open(&path, &engine)?;
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        assert!(cache.load(&engine, &a).is_none());
        cache.store(&a, &compiled)?;
        assert!(cache.load(&engine, &a).is_some());
        assert!(Cache::open(&path, &engine)?.load(&engine, &a).is_some(), "the key is kept");

        // Under another component's name.
        let file = |digest: &str| path.join(cache.name(digest));
        fs::copy(file(&a), file(&b))?;
        fs::copy(path.join(mac_name(&cache.name(&a))), path.join(mac_name(&cache.name(&b))))?;
        assert!(cache.load(&engine, &b).is_none());
        assert!(!file(&b).exists(), "what was refused is removed");

        // One bit flipped, at any of several places.
        for at in [0, 100, compiled.len() / 2, compiled.len() - 1] {
            let mut flipped = compiled.clone();
            flipped[at] ^= 1;
            cache.store(&a, &compiled)?;
            fs::write(file(&a), &flipped)?;
            assert!(cache.load(&engine, &a).is_none(), "byte {at}");
        }

        // A symlink to a good entry; another device's key; another engine.
        cache.store(&a, &compiled)?;
        fs::rename(file(&a), root.path().join("moved"))?;
        symlink(root.path().join("moved"), file(&a))?;
        assert!(cache.load(&engine, &a).is_none());
        cache.store(&a, &compiled)?;
        fs::write(path.join(KEY_FILE), [7; KEY_LENGTH])?;
        assert!(Cache::open(&path, &engine)?.load(&engine, &a).is_none());
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(true))?;
        cache.store(&a, &compiled)?;
        assert!(Cache::open(&path, &other)?.load(&other, &a).is_none());
        Ok(())
    }
}

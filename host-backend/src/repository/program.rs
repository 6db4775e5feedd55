//! The gateways' own programs, for those that update themselves: bytes of the repository's
//! folder, read when they are asked for and only if the metadata names them. Transport alone:
//! gateways verify them again. Holds one program, which a fleet that updates shares.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use viworks_signing::tuf::{MAX_PROGRAM, program_version};

use super::{Repository, Source};

/// The latest that was asked for, by its digest.
pub(super) type Kept = tokio::sync::Mutex<Option<(String, Bytes)>>;

impl Repository {
    /// The program with this digest; `None` where the metadata names none, or the folder does
    /// not have it.
    pub async fn program(&self, sha256: &str) -> Option<Bytes> {
        let current = self.current();
        let targets = current.trusted.as_ref()?.targets();
        let named = |(name, target): &(&String, &viworks_signing::tuf::TargetInfo)| {
            target.sha256 == sha256 && program_version(name).is_some()
        };
        let (name, target) = targets.iter().find(named)?;
        // Locked while it is read, so that a thousand wait for one read.
        let mut kept = self.inner.program.lock().await;
        if let Some((digest, bytes)) = kept.as_ref()
            && digest == sha256
        {
            return Some(bytes.clone());
        }
        let source = Source::Directory(self.inner.parts.directory.clone()?);
        let (name, length, digest) = (name.clone(), target.length, sha256.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let bytes = source.target(&digest, &name, MAX_PROGRAM)?;
            let right = |bytes: &Vec<u8>| bytes.len() as u64 == length && hex::encode(Sha256::digest(bytes)) == digest;
            Ok::<_, std::io::Error>(bytes.filter(right))
        });
        let bytes: Bytes = match read.await {
            Ok(Ok(Some(bytes))) => bytes.into(),
            Ok(Ok(None)) => {
                tracing::warn!(digest = sha256, "the repository's folder lacks a program that its metadata names");
                return None;
            }
            Ok(Err(error)) => {
                tracing::error!(digest = sha256, %error, "a gateway's program can't be read");
                return None;
            }
            Err(error) => {
                tracing::error!(digest = sha256, %error, "reading a gateway's program ended early");
                return None;
            }
        };
        *kept = Some((sha256.to_owned(), bytes.clone()));
        Some(bytes)
    }
}

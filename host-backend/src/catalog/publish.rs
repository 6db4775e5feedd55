//! Publication: bytes and statements in, an active release out, or the reason why not.
//! Gateways verify again for themselves; this check only tells the publisher early.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};
use viworks_signing::verify::{Refusal, VerifiedRelease, verify};

use super::{Catalog, CatalogError, verbs_of};
use crate::store::StoreError;
use crate::store::model::{AuditEntry, Decision, Plugin};
use crate::store::write::{NewPlugin, Publication};

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Its `code()` is stable (`E_…`).
    #[error("the release does not verify")]
    Refused(#[source] Refusal),
    #[error("the release can't be used")]
    Unusable(#[source] CatalogError),
    #[error("the verb {verb} belongs to the plugin {plugin}")]
    VerbTaken { verb: String, plugin: String },
    #[error("version {version} (epoch {epoch}, sequence {sequence}) is published already, and this is not newer")]
    NotNewer { version: String, epoch: u32, sequence: u32 },
    #[error("the release can't be stored")]
    Store(#[source] StoreError),
    #[error("verification was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl Catalog {
    /// Verify a bundle against the release keys, store it and make it the active release
    /// of its plugin. Gateways are told at once.
    ///
    /// # Errors
    /// Nothing is changed then, with one exception: after [`PublishError::Store`] it may
    /// have been stored, and publishing it again tells.
    pub async fn publish(&self, component: Bytes, statements: String, by: &str) -> Result<Plugin, PublishError> {
        let (trusted, bytes, lines) = (self.inner.trusted.clone(), component.clone(), statements.clone());
        let now = UNIX_EPOCH + Duration::from_millis(self.inner.clock.now_ms());
        // Hashing and parsing megabytes is no work for a thread that serves others.
        let verified = tokio::task::spawn_blocking(move || verify(&bytes, &lines, &trusted, None, now))
            .await
            .map_err(PublishError::Interrupted)?
            .map_err(PublishError::Refused)?;
        self.activate(&verified, component, statements.into(), by).await
    }

    async fn activate(
        &self,
        verified: &VerifiedRelease,
        component: Bytes,
        statements: Bytes,
        by: &str,
    ) -> Result<Plugin, PublishError> {
        let inner = &self.inner;
        let (release, digest) = (verified.release(), verified.digest().to_owned());
        let _one = inner.publishing.lock().await;
        verbs_of(release, &digest).map_err(PublishError::Unusable)?;
        let owners: BTreeMap<_, _> = self.verbs().iter().map(|verb| (verb.verb.clone(), verb.plugin.clone())).collect();
        for verb in release.verbs.keys() {
            if let Some(plugin) = owners.get(verb).filter(|owner| **owner != release.plugin) {
                return Err(PublishError::VerbTaken { verb: verb.clone(), plugin: plugin.clone() });
            }
        }
        let now_ms = inner.clock.now_ms();
        let version = release.version.to_string();
        let text = serde_json::to_string(release)
            .map_err(|source| CatalogError::Release { plugin: release.plugin.clone(), source })
            .map_err(PublishError::Unusable)?;
        let plugin = Plugin {
            plugin: release.plugin.clone(),
            version: version.clone(),
            digest: digest.clone(),
            epoch: release.epoch,
            sequence: release.sequence,
            release: text,
            component_size: size(&component),
            statements_size: size(&statements),
            published_ms: now_ms,
            published_by: by.to_owned(),
            active: true,
        };
        let audit = AuditEntry {
            at_ms: now_ms,
            actor: by.to_owned(),
            action: "plugin.publish".to_owned(),
            subject: format!("{}@{version}", release.plugin),
            decision: Decision::Allowed,
            detail: digest,
        };
        match inner.store.publish(NewPlugin { plugin, component, statements, audit }).await {
            Ok(Publication::Active(plugin)) => {
                self.refresh().await.map_err(PublishError::Unusable)?;
                Ok(plugin)
            }
            Ok(Publication::NotNewer { active }) => {
                Err(PublishError::NotNewer { version: active.version, epoch: active.epoch, sequence: active.sequence })
            }
            Err(error) => Err(PublishError::Store(error)),
        }
    }
}

fn size(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

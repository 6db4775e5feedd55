//! Publication: bytes and statements in, a release that stands somewhere out, or the
//! reason why not. Gateways verify again for themselves; this check only tells early.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};
use viworks_signing::keys::PublicKey;
use viworks_signing::release::Release;
use viworks_signing::tuf::{Revoked, TufError};
use viworks_signing::verify::{Refusal, VerifiedRelease, verify};

use super::{Catalog, CatalogError, diff, release_of, verbs_of};
use crate::store::StoreError;
use crate::store::model::{AuditEntry, Decision, Plugin, Standing};
use crate::store::write::{NewPlugin, Publication};

/// What a publisher wants of a release that is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Offered to every agent at once.
    Active,
    /// Kept for a rollout.
    Staged,
}

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
    #[error("version {version} was published with another digest, {digest}")]
    VersionReused { version: String, digest: String },
    #[error("the release was killed, and never comes back")]
    Killed,
    #[error("rollout {rollout} of this plugin is under way; let it end, or abort it")]
    RollingOut { rollout: String },
    #[error("the release repository does not speak for it")]
    Repository(#[source] TufError),
    #[error("the release repository took it back: {0}")]
    Revoked(Revoked),
    #[error("the release repository has not been read yet")]
    NoRepository,
    #[error("the release can't be stored")]
    Store(#[source] StoreError),
    #[error("verification was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl Catalog {
    /// Verify a bundle against the release keys and store it. One that asks for more than
    /// the active release is held; else it stands as `wanted`, and gateways are told.
    ///
    /// # Errors
    /// Nothing is changed then, with one exception: after [`PublishError::Store`] it may
    /// have been stored, and publishing it again tells.
    pub async fn publish(
        &self,
        component: Bytes,
        statements: String,
        wanted: Wanted,
        by: &str,
    ) -> Result<Plugin, PublishError> {
        let verified = self.verify(component.clone(), statements.clone(), &[]).await?;
        self.enter(&verified, component, statements.into(), wanted, by).await
    }

    /// Whether a bundle verifies by the release keys without those in `revoked`.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) async fn verify(
        &self,
        component: Bytes,
        statements: String,
        revoked: &[String],
    ) -> Result<VerifiedRelease, PublishError> {
        let usable = |key: &&PublicKey| !revoked.contains(&key.id());
        let trusted: Vec<PublicKey> = self.inner.trusted.iter().filter(usable).cloned().collect();
        let now = UNIX_EPOCH + Duration::from_millis(self.inner.clock.now_ms());
        // Hashing and parsing megabytes is no work for a thread that serves others.
        tokio::task::spawn_blocking(move || verify(&component, &statements, &trusted, None, now))
            .await
            .map_err(PublishError::Interrupted)?
            .map_err(PublishError::Refused)
    }

    /// Enter a verified release.
    ///
    /// # Errors
    /// As [`Catalog::publish`].
    pub(crate) async fn enter(
        &self,
        verified: &VerifiedRelease,
        component: Bytes,
        statements: Bytes,
        wanted: Wanted,
        by: &str,
    ) -> Result<Plugin, PublishError> {
        let inner = &self.inner;
        let (release, digest) = (verified.release(), verified.digest().to_owned());
        let _one = self.turn().await.map_err(PublishError::Unusable)?;
        let wanted = match wanted {
            Wanted::Active => Standing::Active,
            Wanted::Staged => Standing::Staged,
        };
        let standing = self.judge(release, &digest, wanted).await?;
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
            standing,
            wanted,
            activated_ms: None,
            note: String::new(),
        };
        let audit = AuditEntry {
            at_ms: now_ms,
            actor: by.to_owned(),
            action: "plugin.publish".to_owned(),
            subject: format!("{}@{version}", release.plugin),
            decision: Decision::Allowed,
            detail: format!("{digest} {standing}"),
        };
        match inner.store.publish(NewPlugin { plugin, component, statements, audit }).await {
            Ok(Publication::Stored(plugin)) => {
                self.refresh().await.map_err(PublishError::Unusable)?;
                Ok(plugin)
            }
            Ok(Publication::NotNewer { newest }) => {
                Err(PublishError::NotNewer { version: newest.version, epoch: newest.epoch, sequence: newest.sequence })
            }
            Ok(Publication::Killed) => Err(PublishError::Killed),
            Err(error) => Err(PublishError::Store(error)),
        }
    }

    /// Whether it fits beside what stands, and how it will stand.
    async fn judge(&self, release: &Release, digest: &str, wanted: Standing) -> Result<Standing, PublishError> {
        verbs_of(release, digest, &[]).map_err(PublishError::Unusable)?;
        let owners: BTreeMap<_, _> = self.verbs().iter().map(|verb| (verb.verb.clone(), verb.plugin.clone())).collect();
        for verb in release.verbs.keys() {
            if let Some(plugin) = owners.get(verb).filter(|owner| **owner != release.plugin) {
                return Err(PublishError::VerbTaken { verb: verb.clone(), plugin: plugin.clone() });
            }
        }
        let version = release.version.to_string();
        let all = self.inner.store.plugins().await.map_err(PublishError::Store)?;
        if let Some(other) =
            all.iter().find(|p| p.plugin == release.plugin && p.version == version && p.digest != digest)
        {
            // Not newer is the plainer word where both hold.
            if other.order() < (release.epoch, release.sequence) {
                return Err(PublishError::VersionReused { version, digest: other.digest.clone() });
            }
        }
        let snapshot = self.snapshot();
        let rollout = snapshot.open().iter().find(|open| open.rollout.plugin == release.plugin);
        if let (Some(open), Standing::Active) = (rollout, wanted) {
            return Err(PublishError::RollingOut { rollout: open.rollout.id.clone() });
        }
        let Some(active) = snapshot.active(&release.plugin) else { return Ok(wanted) };
        // An approval is for good: withdrawn and published again, it is not asked for anew.
        let approved = all.iter().any(|p| p.digest == digest && p.activated_ms.is_some());
        let active = release_of(active).map_err(PublishError::Unusable)?;
        let more = diff::asks_more(&diff::differences(&active, release));
        Ok(if more && !approved { Standing::Held } else { wanted })
    }
}

fn size(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

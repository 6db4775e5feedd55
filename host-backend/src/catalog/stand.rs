//! Changes of where releases stand: approved, rolled out, killed, taken out of service.
//! Each is one commit, judged by what stands then, and told to the gateways after it.
//! Refuses a change that another one has overtaken.

use super::{Catalog, CatalogError};
use crate::store::StoreError;
use crate::store::model::{AuditEntry, Decision, Plugin, Rollout, RolloutState, Standing};
use crate::store::release::{Change, Progress};

#[derive(Debug, thiserror::Error)]
pub enum StandError {
    #[error("there is no release {0}")]
    Unknown(String),
    #[error("the release is {standing}, not {wanted}")]
    Standing { standing: Standing, wanted: Standing },
    #[error("version {version} is active, and this one is not newer")]
    NotNewer { version: String },
    #[error("rollout {rollout} of this plugin is under way; let it end, or abort it")]
    RollingOut { rollout: String },
    #[error("the release can't be stored or read")]
    Catalog(#[from] CatalogError),
}

impl From<StoreError> for StandError {
    fn from(error: StoreError) -> Self {
        Self::Catalog(CatalogError::Store(error))
    }
}

/// What a kill changed.
#[derive(Debug)]
pub struct Killed {
    pub release: Plugin,
    /// What is active instead.
    pub fallback: Option<Plugin>,
}

impl Catalog {
    /// An entry of now about `subject`.
    pub(crate) fn entry(&self, by: &str, action: &str, subject: String, detail: String) -> AuditEntry {
        let (at_ms, decision) = (self.inner.clock.now_ms(), Decision::Allowed);
        AuditEntry { at_ms, actor: by.to_owned(), action: action.to_owned(), subject, decision, detail }
    }

    /// A stored release of `plugin`, by digest.
    ///
    /// # Errors
    /// [`StandError::Unknown`], or the store's.
    pub async fn release(&self, plugin: &str, digest: &str) -> Result<Plugin, StandError> {
        let found = self.inner.store.plugin(digest).await?;
        found.filter(|p| p.plugin == plugin).ok_or_else(|| StandError::Unknown(format!("{digest} of {plugin}")))
    }

    /// Let a held release go: it stands as `to`, or as its publisher wanted.
    ///
    /// # Errors
    /// When it is not held, not newer any more, or would overtake a rollout.
    pub async fn approve(
        &self,
        plugin: &str,
        digest: &str,
        to: Option<Standing>,
        by: &str,
    ) -> Result<Plugin, StandError> {
        let _one = self.turn().await?;
        let held = self.release(plugin, digest).await?;
        if held.standing != Standing::Held {
            return Err(StandError::Standing { standing: held.standing, wanted: Standing::Held });
        }
        let snapshot = self.snapshot();
        if let Some(active) = snapshot.active(plugin).filter(|active| active.order() >= held.order()) {
            return Err(StandError::NotNewer { version: active.version.clone() });
        }
        let to = to.unwrap_or(held.wanted);
        if let (Some(open), Standing::Active) = (snapshot.open().iter().find(|o| o.rollout.plugin == plugin), to) {
            return Err(StandError::RollingOut { rollout: open.rollout.id.clone() });
        }
        let audit = self.entry(by, "plugin.approve", subject(&held), format!("{digest} {to}"));
        let now_ms = audit.at_ms;
        let change = Change::Approve { digest: digest.to_owned(), to, now_ms, audit };
        let done = self.inner.store.release(change).await?;
        self.refresh().await?;
        done.ok_or(StandError::Standing { standing: held.standing, wanted: Standing::Held })
    }

    /// A release never runs again: it is offered to nobody, and its plugin falls back to
    /// the release that was active before it, if there is one and `fall_back`.
    ///
    /// # Errors
    /// When there is no such release, or the store refuses.
    pub async fn kill(&self, digest: &str, reason: &str, fall_back: bool, by: &str) -> Result<Killed, StandError> {
        let _one = self.turn().await?;
        let found = self.inner.store.plugin(digest).await?.ok_or_else(|| StandError::Unknown(digest.to_owned()))?;
        let all = self.inner.store.plugins().await?;
        let former = all
            .iter()
            .filter(|p| p.plugin == found.plugin && p.digest != digest && p.activated_ms.is_some())
            .filter(|p| p.standing == Standing::Inactive && p.order() < found.order())
            .max_by_key(|p| p.order());
        let fallback = former.filter(|_| found.is_active() && fall_back).cloned();
        let audit = self.entry(by, "plugin.kill", subject(&found), format!("{digest} {reason}"));
        let now_ms = audit.at_ms;
        let snapshot = self.snapshot();
        let concerned = |rollout: &Rollout| rollout.digest == digest || rollout.former == digest;
        let rollout = snapshot.open().iter().find(|open| concerned(&open.rollout)).map(|open| {
            let rollout = Rollout {
                state: if open.rollout.digest == digest { RolloutState::RolledBack } else { RolloutState::Aborted },
                reason: format!("{digest} was killed: {reason}"),
                changed_ms: now_ms,
                finished_ms: Some(now_ms),
                ..open.rollout.clone()
            };
            let audit = self.entry(by, "rollout.end", rollout.id.clone(), rollout.reason.clone());
            Box::new(Progress::of(rollout, audit))
        });
        let change = Change::Kill {
            digest: digest.to_owned(),
            note: reason.to_owned(),
            fallback: fallback.as_ref().map(|p| p.digest.clone()),
            rollout,
            now_ms,
            audit,
        };
        let release = self.inner.store.release(change).await?;
        self.refresh().await?;
        Ok(Killed { release: release.unwrap_or(found), fallback })
    }

    /// Take a plugin out of service: its verbs go, gateways are told, a rollout of it is
    /// aborted. Answers whether it was active.
    ///
    /// # Errors
    /// When the store refuses or what is left can't be read.
    pub async fn deactivate(&self, plugin: &str, by: &str) -> Result<bool, CatalogError> {
        let _one = self.turn().await?;
        let snapshot = self.snapshot();
        if let Some(open) = snapshot.open().iter().find(|open| open.rollout.plugin == plugin) {
            let now_ms = self.inner.clock.now_ms();
            let rollout = Rollout {
                state: RolloutState::Aborted,
                reason: "the plugin was taken out of service".to_owned(),
                changed_ms: now_ms,
                finished_ms: Some(now_ms),
                ..open.rollout.clone()
            };
            let audit = self.entry(by, "rollout.abort", rollout.id.clone(), rollout.reason.clone());
            let standing = Some(Standing::Inactive);
            let change = Change::Proceed(Box::new(Progress { standing, ..Progress::of(rollout, audit) }));
            self.inner.store.release(change).await.map_err(CatalogError::Store)?;
        }
        let audit = self.entry(by, "plugin.deactivate", plugin.to_owned(), String::new());
        let done = self.inner.store.deactivate_plugin(plugin.to_owned(), audit).await.map_err(CatalogError::Store)?;
        self.refresh().await?;
        Ok(done)
    }

    /// Commit a rollout's beginning (`begins`) or progress, unless it has ended meanwhile
    /// or changed since `since_ms`. Answers whether it was committed.
    ///
    /// # Errors
    /// When the store refuses or what is left can't be read.
    pub(crate) async fn proceed(&self, progress: Progress, since_ms: Option<u64>) -> Result<bool, StandError> {
        let _one = self.turn().await?;
        let snapshot = self.snapshot();
        let open = snapshot.open().iter().find(|open| open.rollout.plugin == progress.rollout.plugin);
        let change = match (open, since_ms) {
            (None, None) => Change::Begin(Box::new(progress)),
            (Some(open), None) => return Err(StandError::RollingOut { rollout: open.rollout.id.clone() }),
            (Some(open), Some(since)) if open.rollout.id == progress.rollout.id && open.rollout.changed_ms == since => {
                Change::Proceed(Box::new(progress))
            }
            _ => return Ok(false),
        };
        self.inner.store.release(change).await?;
        self.refresh().await?;
        Ok(true)
    }
}

pub(crate) fn subject(of: &Plugin) -> String {
    format!("{}@{}", of.plugin, of.version)
}

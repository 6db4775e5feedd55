//! One update: the client's questions answered from a source, the answer mirrored durably,
//! then what follows from it: revoked releases end, new ones are published. A refused
//! update changes nothing that is served.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use viworks_signing::tuf::{Action, Client, MAX_ROOT, MAX_ROTATIONS, State, Step, Trusted, TufError, target_names};
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS, VerifiedRelease};

use super::{Current, Repository, RepositoryError, STATE, Source};
use crate::catalog::{PublishError, Wanted};
use crate::cluster::Event;
use crate::metrics::Metrics;
use crate::store::model::{Plugin, Standing};
use crate::store::release::Change;

/// Releases that one update may bring.
const MAX_NEW: usize = 1_000;

/// What an update came to.
#[derive(Debug, Default)]
pub struct Report {
    pub published: Vec<Plugin>,
    /// By target: why it was not taken.
    pub refused: Vec<(String, PublishError)>,
    pub killed: Vec<String>,
}

/// What the client verified, and the files that it was given.
struct Outcome {
    trusted: Result<Trusted, RepositoryError>,
    state: State,
    files: BTreeMap<String, String>,
}

impl Repository {
    /// Update from `source`.
    ///
    /// # Errors
    /// The check that refused; what is served stays as it was.
    pub async fn update(&self, source: Source, by: &str) -> Result<Report, RepositoryError> {
        let mut state = self.inner.state.lock().await;
        let turn = self.inner.parts.cluster.turn("repository.update").await?;
        if self.inner.parts.cluster.is_shared() {
            self.renew(&mut state).await?;
        }
        let done = self.mirror(&mut state, &source).await;
        drop(turn);
        self.inner.parts.cluster.publish(Event::Repository {});
        if let Err(error) = done {
            let code = error.code();
            Metrics::count(&self.inner.parts.metrics.repository_updates, "refused");
            tracing::warn!(target: "audit", code, error = &error as &dyn std::error::Error, "the repository is refused");
            let now = self.current();
            let text = crate::api::problem::chain(&error);
            // Not told: gateways have nothing new to look at.
            self.inner.current.send_if_modified(|current| {
                *current = Arc::new(Current { fault: Some((code, text.clone())), ..now.copy() });
                false
            });
            return Err(error);
        }
        Metrics::count(&self.inner.parts.metrics.repository_updates, "taken");
        drop(state);
        let current = self.current();
        let Some(trusted) = &current.trusted else { return Ok(Report::default()) };
        let killed = self.revoke(trusted).await;
        let mut report = self.publish(trusted, &source, by).await?;
        report.killed = killed;
        Ok(report)
    }

    async fn mirror(&self, state: &mut State, source: &Source) -> Result<(), RepositoryError> {
        let parts = &self.inner.parts;
        let (root, before, now, from) = (parts.root.clone(), state.clone(), self.now(), source.clone());
        let Outcome { trusted, state: after, mut files } =
            tokio::task::spawn_blocking(move || verify(&root, before, now, &from))
                .await
                .map_err(RepositoryError::Interrupted)??;
        let encoded: Bytes = after.encode()?.into();
        let trusted = match trusted {
            Ok(trusted) => trusted,
            Err(error) => {
                // What was verified until then is worth keeping.
                parts.store.release(Change::Mirror(vec![(STATE.to_owned(), Some(encoded))])).await?;
                *state = after;
                return Err(error);
            }
        };
        let old = self.current();
        let mut kept: BTreeMap<String, String> = BTreeMap::new();
        for (name, bytes) in parts.store.mirrored().await?.into_iter().filter(|(name, _)| name != STATE) {
            if let Ok(text) = String::from_utf8(bytes.to_vec()) {
                kept.insert(name, text);
            }
        }
        let had = kept.clone();
        kept.append(&mut files);
        let current = Current::of(&kept, Some(trusted.clone()), None);
        // Every root for those that were away; of the rest this update's files, and those of
        // the one before for gateways that are at it.
        kept.retain(|name, _| name.ends_with(".root.json") || current.names.contains(name) || old.names.contains(name));
        let new = kept.iter().filter(|(name, text)| had.get(*name) != Some(*text));
        let mut changes: Vec<_> = new.map(|(name, text)| (name.clone(), Some(Bytes::from(text.clone())))).collect();
        changes.extend(had.keys().filter(|name| !kept.contains_key(*name)).map(|name| (name.clone(), None)));
        changes.push((STATE.to_owned(), Some(encoded)));
        parts.store.release(Change::Mirror(changes)).await?;
        *state = after;
        tracing::info!(timestamp = trusted.versions().timestamp, root = trusted.versions().root, "repository mirrored");
        self.inner.current.send_replace(Arc::new(Current::of(&kept, Some(trusted), None)));
        Ok(())
    }

    /// End what was revoked. Answers the digests.
    async fn revoke(&self, trusted: &Trusted) -> Vec<String> {
        let parts = &self.inner.parts;
        let Ok(all) = parts.store.plugins().await else { return Vec::new() };
        let mut killed = Vec::new();
        for plugin in all.iter().filter(|p| p.standing != Standing::Killed) {
            let revoked = trusted.revocations().refuses(&plugin.plugin, plugin.epoch, plugin.sequence, &plugin.digest);
            let Some(revoked) = revoked else { continue };
            let drain = trusted.revocations().digest(&plugin.digest).is_some_and(|d| d.action == Action::Drain);
            match parts.rollouts.kill(&plugin.digest, &revoked.to_string(), true, !drain, "repository").await {
                Ok(_) => killed.push(plugin.digest.clone()),
                Err(error) => tracing::error!(digest = plugin.digest, %error, "a revoked release can't be ended"),
            }
        }
        killed
    }

    /// Publish what is new: of each plugin the newest release that verifies.
    async fn publish(&self, trusted: &Trusted, source: &Source, by: &str) -> Result<Report, RepositoryError> {
        let parts = &self.inner.parts;
        let known = parts.store.plugins().await?;
        let mut report = Report::default();
        let new = trusted.targets().iter().filter(|(name, target)| {
            name.ends_with(".wasm") && known.iter().all(|plugin| plugin.digest != target.sha256)
        });
        let mut newest: BTreeMap<String, (VerifiedRelease, Bytes, String)> = BTreeMap::new();
        for name in new.map(|(name, _)| name.clone()).take(MAX_NEW) {
            let Some((component, statements)) = self.bundle(trusted, source, &name).await? else { continue };
            match self.verified(trusted, &name, &component, &statements).await {
                Ok(verified) => {
                    let order = |v: &VerifiedRelease| (v.release().epoch, v.release().sequence);
                    let plugin = verified.release().plugin.clone();
                    if newest.get(&plugin).is_none_or(|(other, ..)| order(other) < order(&verified)) {
                        newest.insert(plugin, (verified, component, statements));
                    }
                }
                Err(error) => report.refused.push((name, error)),
            }
        }
        let wanted = if parts.activates { Wanted::Active } else { Wanted::Staged };
        for (plugin, (verified, component, statements)) in newest {
            match parts.catalog.enter(&verified, component, statements.into(), wanted, by).await {
                Ok(plugin) => report.published.push(plugin),
                // Older than what is there: a repository keeps its past.
                Err(PublishError::NotNewer { .. }) => {}
                Err(error) => report.refused.push((plugin, error)),
            }
        }
        for (name, error) in &report.refused {
            tracing::warn!(target: "audit", name, error = error as &dyn std::error::Error, "a release is refused");
        }
        Ok(report)
    }

    async fn bundle(
        &self,
        trusted: &Trusted,
        source: &Source,
        name: &str,
    ) -> Result<Option<(Bytes, String)>, RepositoryError> {
        let statements = format!("{name}.intoto.jsonl");
        let (Some(first), Some(second)) = (trusted.target(name), trusted.target(&statements)) else {
            return Ok(None);
        };
        let (first, second, from, wasm) = (first.clone(), second.clone(), source.clone(), name.to_owned());
        let read = move || {
            let one = from.target(&first.sha256, &wasm, MAX_COMPONENT as u64)?;
            let two = from.target(&second.sha256, &statements, MAX_STATEMENTS as u64)?;
            Ok(one.zip(two))
        };
        let found = tokio::task::spawn_blocking(read)
            .await
            .map_err(RepositoryError::Interrupted)?
            .map_err(|source| RepositoryError::Read { name: name.to_owned(), source })?;
        Ok(found.and_then(|(one, two)| Some((one.into(), String::from_utf8(two).ok()?))))
    }

    async fn verified(
        &self,
        trusted: &Trusted,
        name: &str,
        component: &Bytes,
        statements: &str,
    ) -> Result<VerifiedRelease, PublishError> {
        let revoked: Vec<String> = trusted.revocations().keys().map(str::to_owned).collect();
        let verified = self.inner.parts.catalog.verify(component.clone(), statements.to_owned(), &revoked).await?;
        self.vouch(trusted, &verified, component.len(), statements)?;
        let stated = target_names(&verified.release().plugin, &verified.release().version);
        // The target's name is the repository's word for what the release says of itself.
        match stated {
            Ok((own, _)) if own == name => Ok(verified),
            _ => Err(PublishError::Repository(TufError::NoTarget { name: name.to_owned() })),
        }
    }

    /// Whether the repository's metadata speaks for a verified release, and has not taken it
    /// back.
    pub(super) fn vouch(
        &self,
        trusted: &Trusted,
        verified: &VerifiedRelease,
        size: usize,
        statements: &str,
    ) -> Result<(), PublishError> {
        let release = verified.release();
        trusted.fresh(self.now()).map_err(PublishError::Repository)?;
        let (component, lines) = target_names(&release.plugin, &release.version).map_err(PublishError::Repository)?;
        trusted.check_digest(&component, size as u64, verified.digest()).map_err(PublishError::Repository)?;
        trusted.check(&lines, statements.as_bytes()).map_err(PublishError::Repository)?;
        let revoked =
            trusted.revocations().refuses(&release.plugin, release.epoch, release.sequence, verified.digest());
        revoked.map_or(Ok(()), |revoked| Err(PublishError::Revoked(revoked)))
    }
}

impl RepositoryError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tuf(error) => error.code(),
            Self::Store(_) | Self::Interrupted(_) => "E_STORE",
            Self::Read { .. } => "E_READ",
        }
    }
}

impl Current {
    fn copy(&self) -> Self {
        Self {
            frames: self.frames.clone(),
            news: self.news.clone(),
            trusted: self.trusted.clone(),
            names: self.names.clone(),
            fault: None,
        }
    }
}

fn verify(root: &[u8], state: State, now: SystemTime, source: &Source) -> Result<Outcome, RepositoryError> {
    let mut client = Client::new(root, state, now)?;
    let mut files = BTreeMap::new();
    let take = |files: &mut BTreeMap<String, String>, name: &str, bytes: &Option<Vec<u8>>| {
        if let Some(text) = bytes.clone().and_then(|bytes| String::from_utf8(bytes).ok()) {
            files.insert(name.to_owned(), text);
        }
    };
    let trusted = loop {
        let Step::Fetch { name, max } = client.next() else {
            break client.trusted().cloned().ok_or(RepositoryError::Tuf(TufError::Order));
        };
        let bytes =
            source.metadata(&name, max).map_err(|source| RepositoryError::Read { name: name.clone(), source })?;
        if let Err(error) = client.supply(bytes.as_deref()) {
            break Err(error.into());
        }
        take(&mut files, &name, &bytes);
    };
    // Roots that this backend is past, for gateways that are not; they verify them.
    if let Ok(trusted) = &trusted {
        for version in (1..=trusted.versions().root).rev().take(MAX_ROTATIONS as usize) {
            let name = format!("{version}.root.json");
            if !files.contains_key(&name) {
                let bytes = source.metadata(&name, MAX_ROOT).ok().flatten();
                take(&mut files, &name, &bytes.filter(|bytes| bytes.len() as u64 <= MAX_ROOT));
            }
        }
    }
    Ok(Outcome { trusted, state: client.state().clone(), files })
}

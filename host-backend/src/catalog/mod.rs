//! The plugin catalogue: which releases are active, the verbs they bring and the schemas
//! that arguments must fit. Refuses releases that do not verify, that are not newer than
//! the active one, or whose verbs another plugin has; holds those that ask for more.
//!
//! - [`check`]: arguments against schemas
//! - [`publish`]: bytes and statements in, a release that stands somewhere out
//! - [`diff`]: what a release asks beyond another
//! - [`stand`]: approved, killed, rolled out, taken out of service
//! - [`offers`]: which agent is offered which releases
//! - [`parts`]: the bytes that gateways fetch

mod check;
pub mod diff;
mod offers;
mod parts;
mod publish;
mod stand;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use viworks_protocol::id::AgentId;
use viworks_signing::keys::PublicKey;
use viworks_signing::release::{EffectClass, Release};

use crate::clock::Clock;
use crate::cluster::leases::Turn;
use crate::cluster::{Cluster, Event};
use crate::store::model::{Plugin, Standing};
use crate::store::{Store, StoreError};

pub use check::{ArgError, CheckError, Checked};
pub use offers::{MAX_OPEN, Open};
pub use publish::{PublishError, Wanted};
pub use stand::StandError;

/// So long after a release took over, the former one may still serve commands: agents
/// fetch at their own pace.
const HANDOVER_MS: u64 = 15 * 60 * 1_000;

/// One verb of an active release.
#[derive(Debug)]
pub struct Verb {
    pub verb: String,
    pub plugin: String,
    pub version: String,
    pub digest: String,
    pub docs: String,
    /// JSON Schema 2020-12 of the arguments.
    pub args: serde_json::Value,
    pub result: serde_json::Value,
    pub effect: EffectClass,
    pub timeout_secs: u32,
    /// Other releases that may serve it, each until a time.
    also: Vec<(String, u64)>,
    validator: jsonschema::Validator,
}

impl Verb {
    /// Digests of the other releases of the plugin that may serve a command of `now_ms`:
    /// a rollout's, and the one that was just replaced.
    #[must_use]
    pub fn also(&self, now_ms: u64) -> Vec<String> {
        self.also.iter().filter(|(_, until_ms)| now_ms < *until_ms).map(|(digest, _)| digest.clone()).collect()
    }

    /// Whether no other release may serve it.
    #[must_use]
    pub fn has_one_release(&self) -> bool {
        self.also.is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the releases can't be read")]
    Store(#[source] StoreError),
    #[error("the stored release of {plugin} is malformed")]
    Release { plugin: String, source: serde_json::Error },
    #[error("the argument schema of {verb} does not compile: {message}")]
    Schema { verb: String, message: String },
}

/// What is active at a moment, and what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    verbs: BTreeMap<String, Arc<Verb>>,
    active: Vec<Plugin>,
    open: Vec<Open>,
    offers: offers::Offers,
}

/// A handle; clones share everything.
#[derive(Debug, Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    trusted: Vec<PublicKey>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    parts: parts::Parts,
    cluster: Cluster,
    /// One change at a time: each is judged by what stands then.
    changing: Mutex<()>,
}

impl Catalog {
    /// Read the active releases and open rollouts.
    ///
    /// # Errors
    /// When they can't be read, or one is malformed.
    pub async fn load(
        store: Store,
        clock: Clock,
        cluster: Cluster,
        trusted: Vec<PublicKey>,
    ) -> Result<Self, CatalogError> {
        let snapshot = Arc::new(read(&store).await?);
        let parts = parts::Parts::new(store.clone());
        let (snapshot, changing) = (watch::Sender::new(snapshot), Mutex::new(()));
        let inner = Inner { store, clock, trusted, snapshot, parts, cluster, changing };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// By name.
    #[must_use]
    pub fn verbs(&self) -> Vec<Arc<Verb>> {
        self.snapshot().verbs.values().cloned().collect()
    }

    #[must_use]
    pub fn verb(&self, name: &str) -> Option<Arc<Verb>> {
        self.snapshot().verbs.get(name).cloned()
    }

    /// The active releases, by plugin.
    #[must_use]
    pub fn active(&self) -> Vec<Plugin> {
        self.snapshot().active.clone()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.snapshot.subscribe()
    }

    /// After a change of ours.
    async fn refresh(&self) -> Result<(), CatalogError> {
        self.reread().await?;
        self.inner.cluster.publish(Event::Catalog {});
        Ok(())
    }

    /// What other instances changed counts from now on.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) async fn reread(&self) -> Result<(), CatalogError> {
        let snapshot = Arc::new(read(&self.inner.store).await?);
        self.inner.snapshot.send_replace(snapshot);
        Ok(())
    }

    /// The turn to change what stands, over all instances; what stands is known then.
    async fn turn(&self) -> Result<(MutexGuard<'_, ()>, Turn), CatalogError> {
        let here = self.inner.changing.lock().await;
        let turn = self.inner.cluster.turn("catalog").await.map_err(CatalogError::Store)?;
        if self.inner.cluster.is_shared() {
            self.reread().await?;
        }
        Ok((here, turn))
    }
}

impl Snapshot {
    /// The frame that tells this agent what it should have.
    pub(crate) fn offers(&self, agent: &AgentId) -> Utf8Bytes {
        self.offers.of(&self.open, agent)
    }

    pub(crate) fn open(&self) -> &[Open] {
        &self.open
    }

    pub(crate) fn active(&self, plugin: &str) -> Option<&Plugin> {
        self.active.iter().find(|p| p.plugin == plugin)
    }
}

async fn read(store: &Store) -> Result<Snapshot, CatalogError> {
    let all = store.plugins().await.map_err(CatalogError::Store)?;
    let mut open = Vec::new();
    for rollout in store.open_rollouts().await.map_err(CatalogError::Store)? {
        let Some(release) = all.iter().find(|p| p.digest == rollout.digest).cloned() else { continue };
        let members = store.rollout_members(&rollout.id).await.map_err(CatalogError::Store)?;
        open.push(Open { rollout, release, members: members.into_iter().collect() });
        if open.len() == MAX_OPEN {
            break;
        }
    }
    let active: Vec<Plugin> = all.iter().filter(|p| p.is_active()).cloned().collect();
    let mut verbs = BTreeMap::new();
    for plugin in &active {
        let release = release_of(plugin)?;
        let also = also(plugin, &all, &open);
        for verb in verbs_of(&release, &plugin.digest, &also)? {
            verbs.insert(verb.verb.clone(), Arc::new(verb));
        }
    }
    let offers = offers::Offers::new(&active, &open);
    Ok(Snapshot { verbs, active, open, offers })
}

/// What else may serve the commands of `plugin`'s active release, and until when.
fn also(plugin: &Plugin, all: &[Plugin], open: &[Open]) -> Vec<(String, u64)> {
    // A shadow serves nobody: no warrant names it.
    let rolled = open.iter().filter(|open| open.rollout.plugin == plugin.plugin && !open.rollout.is_shadowing());
    let rolled = rolled.map(|open| (open.rollout.digest.clone(), u64::MAX));
    let former = all
        .iter()
        .filter(|p| p.plugin == plugin.plugin && p.standing == Standing::Inactive && p.order() < plugin.order())
        .filter(|p| p.activated_ms.is_some())
        .max_by_key(|p| p.activated_ms);
    let until = plugin.activated_ms.unwrap_or(0) + HANDOVER_MS;
    rolled.chain(former.map(|former| (former.digest.clone(), until))).collect()
}

pub(crate) fn release_of(plugin: &Plugin) -> Result<Release, CatalogError> {
    serde_json::from_str(&plugin.release)
        .map_err(|source| CatalogError::Release { plugin: plugin.plugin.clone(), source })
}

/// The release's verbs with their validators: the proof that every schema compiles.
fn verbs_of(release: &Release, digest: &str, also: &[(String, u64)]) -> Result<Vec<Verb>, CatalogError> {
    let verb = |(name, verb): (&String, &viworks_signing::release::Verb)| {
        let validator =
            check::compile(&verb.args).map_err(|message| CatalogError::Schema { verb: name.clone(), message })?;
        Ok(Verb {
            verb: name.clone(),
            plugin: release.plugin.clone(),
            version: release.version.to_string(),
            digest: digest.to_owned(),
            docs: verb.docs.clone(),
            args: verb.args.clone(),
            result: verb.result.clone(),
            effect: verb.effect,
            timeout_secs: verb.timeout_secs,
            also: also.to_vec(),
            validator,
        })
    };
    release.verbs.iter().map(verb).collect()
}

//! The plugin catalogue: which releases are active, the verbs they bring and the schemas
//! that arguments must fit. Refuses releases that do not verify, that are not newer than
//! the active one, or whose verbs another plugin has.
//!
//! - [`check`]: arguments against schemas
//! - [`publish`]: bytes and statements in, an active release out
//! - [`parts`]: the bytes that gateways fetch

mod check;
mod parts;
mod publish;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use viworks_protocol::frame::{BackendFrame, PluginOffer};
use viworks_signing::keys::PublicKey;
use viworks_signing::release::{EffectClass, Release};

use crate::clock::Clock;
use crate::hub;
use crate::store::model::{AuditEntry, Decision, Plugin};
use crate::store::{Store, StoreError};

pub use check::{ArgError, CheckError, Checked};
pub use publish::PublishError;

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
    validator: jsonschema::Validator,
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

/// What is active at a moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    verbs: BTreeMap<String, Arc<Verb>>,
    active: Vec<Plugin>,
    /// The `plugins` frame that says so.
    offers: Utf8Bytes,
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
    /// One publication at a time: names are compared with what is active.
    publishing: Mutex<()>,
}

impl Catalog {
    /// Read the active releases.
    ///
    /// # Errors
    /// When they can't be read, or one is malformed.
    pub async fn load(store: Store, clock: Clock, trusted: Vec<PublicKey>) -> Result<Self, CatalogError> {
        let snapshot = Arc::new(read(&store).await?);
        let parts = parts::Parts::new(store.clone());
        let inner =
            Inner { store, clock, trusted, snapshot: watch::Sender::new(snapshot), parts, publishing: Mutex::new(()) };
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

    /// Take a plugin out of service: its verbs go, gateways are told. Answers whether it
    /// was active.
    ///
    /// # Errors
    /// When the store refuses or what is left can't be read.
    pub async fn deactivate(&self, plugin: &str, by: &str) -> Result<bool, CatalogError> {
        let _one = self.inner.publishing.lock().await;
        let audit = AuditEntry {
            at_ms: self.inner.clock.now_ms(),
            actor: by.to_owned(),
            action: "plugin.deactivate".to_owned(),
            subject: plugin.to_owned(),
            decision: Decision::Allowed,
            detail: String::new(),
        };
        let done = self.inner.store.deactivate_plugin(plugin.to_owned(), audit).await.map_err(CatalogError::Store)?;
        self.refresh().await?;
        Ok(done)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.borrow().clone()
    }

    /// The frame that tells gateways what they should have; sent again on every change.
    pub(crate) fn offers(&self) -> Utf8Bytes {
        self.snapshot().offers.clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.snapshot.subscribe()
    }

    async fn refresh(&self) -> Result<(), CatalogError> {
        let snapshot = Arc::new(read(&self.inner.store).await?);
        self.inner.snapshot.send_replace(snapshot);
        Ok(())
    }
}

impl Snapshot {
    pub(crate) fn offers(&self) -> &Utf8Bytes {
        &self.offers
    }
}

async fn read(store: &Store) -> Result<Snapshot, CatalogError> {
    let mut active = store.plugins().await.map_err(CatalogError::Store)?;
    active.retain(|plugin| plugin.active);
    let mut verbs = BTreeMap::new();
    for plugin in &active {
        let release: Release = serde_json::from_str(&plugin.release)
            .map_err(|source| CatalogError::Release { plugin: plugin.plugin.clone(), source })?;
        for verb in verbs_of(&release, &plugin.digest)? {
            verbs.insert(verb.verb.clone(), Arc::new(verb));
        }
    }
    let plugins = active
        .iter()
        .map(|p| PluginOffer {
            plugin: p.plugin.clone(),
            version: p.version.clone(),
            digest: p.digest.clone(),
            component_size: p.component_size,
            statements_size: p.statements_size,
        })
        .collect();
    let offers = hub::text(&BackendFrame::Plugins { plugins });
    Ok(Snapshot { verbs, active, offers })
}

/// The release's verbs with their validators: the proof that every schema compiles.
fn verbs_of(release: &Release, digest: &str) -> Result<Vec<Verb>, CatalogError> {
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
            validator,
        })
    };
    release.verbs.iter().map(verb).collect()
}

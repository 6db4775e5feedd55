//! The plugins of this host, from an offered digest to an active verb.
//!
//! - [`fetch`]: chunks to bytes
//! - [`admit`]: who signed them, what the repository says, and what this host leaves of
//!   their requests; [`approval`]: what operators must sign besides
//! - [`compile`]: in a process of its own
//! - [`aot`]: compiled once, kept safely
//! - [`install`]: the steps of a hot load, and of a start
//! - [`review`]: everything again, by other rules
//! - [`store`]: what is active survives a restart
//! - [`registry`]: verb to plugin, swapped while others run
//! - [`shadow`]: what is planned beside the active release, and never serves
//!
//! [`Plugins`] leads a bundle along this path, one at a time, off the async threads.

pub mod admit;
mod aot;
pub mod approval;
pub mod compile;
mod error;
pub mod fetch;
mod hmac;
mod install;
mod registry;
mod review;
pub mod shadow;
mod store;

pub use admit::{AdmitError, AdmittedPlugin, Basis, Bundle, Rules, Vouched};
pub use error::InstallError;
pub use registry::{Registry, Slot, VerbTaken};
pub use shadow::Shadow;
pub use store::{Rollback, StoreError, active_in, bundle_in};

pub use crate::vault::VaultError;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use viworks_protocol::frame::{PluginOffer, PluginState, PluginStatus};

use crate::runtime::Runtime;
use crate::trust::Repository;
use aot::Cache;
use compile::Compiler;
use store::Store;

/// More plugins than this are not fetched.
pub const MAX_PLUGINS: usize = 64;

/// All plugins of this host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Plugins(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtime: Arc<Runtime>,
    registry: Arc<Registry>,
    repository: Repository,
    rules: Mutex<Arc<Rules>>,
    cache: Cache,
    compiler: Compiler,
    /// Held for a whole hot load, so that there is one at a time.
    turn: Mutex<()>,
    /// Held for a self-test: there is room for one beside the invocations.
    trial: Mutex<()>,
    /// Held while something becomes active or inactive, never while something is compiled.
    store: Mutex<Store>,
    /// By plugin, and whether it was to be its shadow.
    refused: Mutex<BTreeMap<(String, bool), Refused>>,
    metrics: Arc<PluginMetrics>,
    /// Told after each piece of work.
    worked: Arc<Notify>,
}

/// A refusal, until it can't stand any more.
#[derive(Debug, Clone)]
struct Refused {
    status: PluginStatus,
    may_pass: bool,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct PluginMetrics {
    pub admitted: AtomicU64,
    pub refused: AtomicU64,
    pub compiled: AtomicU64,
    pub cache_hits: AtomicU64,
    /// Releases that were taken back while they were active here, and alerts.
    pub revoked: AtomicU64,
    /// Of the last one that became active, signed bytes to answering.
    pub load_us: AtomicU64,
}

impl Plugins {
    /// Open the store and the compiled code under `state_dir`, which must be there.
    ///
    /// # Errors
    /// When they can't be used safely, or the index is malformed.
    pub fn open(
        state_dir: &Path,
        rules: Rules,
        repository: Repository,
        runtime: Arc<Runtime>,
        registry: Arc<Registry>,
    ) -> Result<Self, StoreError> {
        let store = Store::open(&state_dir.join("plugins"), repository.floors().clone())?;
        let cache = Cache::open(&state_dir.join("aot"), runtime.engine())?;
        let inner = Inner {
            runtime,
            registry,
            repository,
            rules: Mutex::new(Arc::new(rules)),
            cache,
            compiler: Compiler::default(),
            turn: Mutex::default(),
            trial: Mutex::default(),
            store: Mutex::new(store),
            refused: Mutex::default(),
            metrics: Arc::default(),
            worked: Arc::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Compile in a process of `program`, which must be this program, and not in this one.
    pub fn compile_by(&self, program: impl Into<PathBuf>) {
        self.0.compiler.set(program.into());
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<PluginMetrics> {
        &self.0.metrics
    }

    /// Is told whenever plugins were loaded, reviewed or retired.
    #[must_use]
    pub fn worked(&self) -> Arc<Notify> {
        self.0.worked.clone()
    }

    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.0.repository
    }

    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        lock(&self.0.rules).clone()
    }

    /// Make active again what was when the gateway ended. What is refused now (a key that
    /// is gone, a narrower policy) stays inactive, and its status says why.
    pub async fn load(&self) -> Vec<PluginStatus> {
        self.blocking(|inner| inner.load_all()).await;
        self.statuses()
    }

    /// Go by other rules from now on: every plugin is admitted anew. What is refused now is
    /// inactive, what was refused before may come back.
    pub async fn go_by(&self, rules: Rules) -> Vec<PluginStatus> {
        *lock(&self.0.rules) = Arc::new(rules);
        self.review().await
    }

    /// Admit every plugin anew: the repository says something else than before.
    pub async fn review(&self) -> Vec<PluginStatus> {
        lock(&self.0.refused).retain(|_, refused| !refused.may_pass);
        self.blocking(|inner| inner.review_all()).await;
        self.statuses()
    }

    /// What of the offered plugins has to be fetched. What is active and not offered any
    /// more becomes inactive; what is offered and kept becomes active again. A shadow that is
    /// not offered as one any more is gone.
    pub async fn reconcile(&self, offers: &[PluginOffer]) -> Vec<PluginOffer> {
        let all = offers.to_vec();
        self.blocking(move |inner| {
            inner.retire_others(&all);
            inner.fall_back_to(&all);
            let offered = |shadow: &Shadow| all.iter().any(|o| o.shadow && o.digest == shadow.digest());
            inner.drop_shadows(|shadow| !offered(shadow), |digest| all.iter().any(|o| o.digest == digest));
        })
        .await;
        let known = |offer: &&PluginOffer| {
            let registry = &self.0.registry;
            let there = match offer.shadow {
                // What serves needs no shadow of itself.
                true => {
                    let serves = registry.slot(&offer.plugin).holds(&offer.digest);
                    serves || registry.shadow(&offer.plugin).is_some_and(|s| s.digest() == offer.digest)
                }
                false => registry.plugin(&offer.plugin).is_some_and(|p| p.digest() == offer.digest),
            };
            let refused = lock(&self.0.refused).get(&place(offer)).is_some_and(|r| r.status.digest == offer.digest);
            !there && !refused
        };
        let (view, now) = (self.0.repository.view(), SystemTime::now());
        let mut wanted = Vec::new();
        for offer in offers.iter().filter(known).take(MAX_PLUGINS) {
            match view.expects(offer, now) {
                Ok(()) => wanted.push(offer.clone()),
                // Not worth its bytes.
                Err(error) => drop(self.0.refuse(offer, &error.into())),
            }
        }
        wanted
    }

    /// Verify, compile, store and make active. The bytes that are verified are the bytes
    /// that are compiled and stored. One at a time; waits for its turn.
    pub async fn install(&self, offer: PluginOffer, component: Vec<u8>, statements: String) -> PluginStatus {
        let inner = self.0.clone();
        let offered = offer.clone();
        let installed = tokio::task::spawn_blocking(move || {
            inner.install(&offered, Bundle { component: &component, statements: &statements })
        });
        match installed.await.unwrap_or(Err(InstallError::Panicked)) {
            Ok(status) => {
                lock(&self.0.refused).remove(&place(&offer));
                status
            }
            Err(error) => self.0.refuse(&offer, &error),
        }
    }

    /// Everything that is active, and what was refused.
    #[must_use]
    pub fn statuses(&self) -> Vec<PluginStatus> {
        let mut statuses = self.0.registry.statuses();
        statuses.extend(lock(&self.0.refused).values().map(|refused| refused.status.clone()));
        statuses
    }

    async fn blocking(&self, work: impl FnOnce(&Inner) + Send + 'static) {
        let inner = self.0.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || work(&inner)).await {
            tracing::error!(%error, "work on the plugins ended early");
        }
        self.0.worked.notify_one();
    }
}

impl Inner {
    /// What releases are judged by now.
    fn basis(&self) -> Basis {
        Basis { rules: lock(&self.rules).clone(), view: self.repository.view() }
    }

    fn refuse(&self, offer: &PluginOffer, error: &InstallError) -> PluginStatus {
        self.metrics.refused.fetch_add(1, Ordering::Relaxed);
        let detail = error.detail();
        let PluginOffer { plugin, version, digest, shadow, .. } = offer;
        tracing::warn!(target: "audit", %plugin, %version, %digest, shadow, %detail, "plugin refused");
        let status = PluginStatus {
            plugin: plugin.clone(),
            version: version.clone(),
            digest: digest.clone(),
            state: PluginState::Refused,
            detail: Some(detail),
            shadow: *shadow,
        };
        let (mut refused, place) = (lock(&self.refused), place(offer));
        if refused.len() < MAX_PLUGINS || refused.contains_key(&place) {
            let may_pass = error.may_pass();
            refused.insert(place, Refused { status: status.clone(), may_pass });
        }
        status
    }

    /// An active or kept release that was refused when it was admitted anew.
    fn refuse_again(&self, plugin: &str, digest: &str, error: &InstallError) {
        let (plugin, digest) = (plugin.to_owned(), digest.to_owned());
        let version = String::new();
        let offer = PluginOffer { plugin, version, digest, component_size: 0, statements_size: 0, shadow: false };
        drop(self.refuse(&offer, error));
    }
}

fn place(offer: &PluginOffer) -> (String, bool) {
    (offer.plugin.clone(), offer.shadow)
}

impl Basis {
    /// Whether it is still what releases are judged by.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules) && Arc::ptr_eq(&self.view, &other.view)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The plugins of this host, from an offered digest to an active verb.
//!
//! - [`fetch`]: chunks to bytes
//! - [`admit`]: who signed them, and what this host leaves of their requests
//! - [`compile`]: in a process of its own
//! - [`aot`]: compiled once, kept safely
//! - [`store`]: what is active survives a restart
//! - [`registry`]: verb to plugin, swapped while others run
//!
//! [`Plugins`] leads a bundle along this path, one at a time, off the async threads.

pub mod admit;
mod aot;
pub mod compile;
pub mod fetch;
mod hmac;
mod registry;
mod store;
mod vault;

pub use admit::{AdmitError, AdmittedPlugin, HOST_API, Rules, Vouched};
pub use registry::{Registry, VerbTaken};
pub use store::{Rollback, StoreError};
pub use vault::VaultError;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use viworks_protocol::frame::{PluginOffer, PluginState, PluginStatus};
use wasmtime::component::Component;

use crate::runtime::{PrepareError, Prepared, Runtime};
use aot::Cache;
use compile::{CompileError, Compiler};
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
    rules: Rules,
    cache: Cache,
    compiler: Compiler,
    /// Locked for a whole installation, so that there is one at a time.
    store: Mutex<Store>,
    refused: Mutex<BTreeMap<String, PluginStatus>>,
    metrics: Arc<PluginMetrics>,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct PluginMetrics {
    pub admitted: AtomicU64,
    pub refused: AtomicU64,
    pub compiled: AtomicU64,
    pub cache_hits: AtomicU64,
    /// Of the last one that became active, signed bytes to answering.
    pub load_us: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Admit(#[from] AdmitError),
    #[error("the fetched release has the digest {found}")]
    NotTheOffered { found: String },
    #[error(transparent)]
    Rollback(#[from] Rollback),
    #[error("the component does not compile")]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Verb(#[from] VerbTaken),
    #[error("it could not be stored")]
    Store(#[from] StoreError),
    #[error("its files are gone")]
    Lost,
    #[error("the gateway failed while it loaded the plugin")]
    Panicked,
}

impl InstallError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Admit(error) => error.code(),
            Self::NotTheOffered { .. } => "E_DIGEST",
            Self::Rollback(_) => "E_ROLLBACK",
            Self::Compile(_) => "E_COMPILE",
            Self::Prepare(PrepareError::NotGranted { .. } | PrepareError::NoSuchImport { .. }) => "E_IMPORT",
            Self::Prepare(_) => "E_COMPONENT",
            Self::Verb(_) => "E_VERB_TAKEN",
            Self::Store(_) | Self::Lost => "E_STORE",
            Self::Panicked => "E_INTERNAL",
        }
    }
}

impl Plugins {
    /// Open the store and the compiled code under `state_dir`, which must be there.
    ///
    /// # Errors
    /// When they can't be used safely, or the index is malformed.
    pub fn open(
        state_dir: &Path,
        rules: Rules,
        runtime: Arc<Runtime>,
        registry: Arc<Registry>,
    ) -> Result<Self, StoreError> {
        let store = Store::open(&state_dir.join("plugins"))?;
        let cache = Cache::open(&state_dir.join("aot"), runtime.engine())?;
        let inner = Inner {
            runtime,
            registry,
            rules,
            cache,
            compiler: Compiler::default(),
            store: Mutex::new(store),
            refused: Mutex::default(),
            metrics: Arc::default(),
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

    /// Make active again what was when the gateway ended. What is refused now (a key that
    /// is gone, a narrower policy) stays inactive, and its status says why.
    pub async fn load(&self) -> Vec<PluginStatus> {
        let inner = self.0.clone();
        let loaded = tokio::task::spawn_blocking(move || inner.load_all()).await;
        if let Err(error) = loaded {
            tracing::error!(%error, "loading the plugins failed");
        }
        self.statuses()
    }

    /// What of the offered plugins has to be fetched. What is active and not offered any
    /// more becomes inactive.
    pub async fn reconcile(&self, offers: &[PluginOffer]) -> Vec<PluginOffer> {
        let inner = self.0.clone();
        let offered: Vec<String> = offers.iter().map(|offer| offer.plugin.clone()).collect();
        let retired = tokio::task::spawn_blocking(move || inner.retire_others(&offered)).await;
        if let Err(error) = retired {
            tracing::error!(%error, "retiring plugins failed");
        }
        let known = |offer: &&PluginOffer| {
            let active = self.0.registry.plugin(&offer.plugin).is_some_and(|p| p.digest() == offer.digest);
            let refused = lock(&self.0.refused).get(&offer.plugin).is_some_and(|s| s.digest == offer.digest);
            !active && !refused
        };
        offers.iter().filter(known).take(MAX_PLUGINS).cloned().collect()
    }

    /// Verify, compile, store and make active. The bytes that are verified are the bytes
    /// that are compiled and stored. One at a time; waits for its turn.
    pub async fn install(&self, offer: PluginOffer, component: Vec<u8>, statements: String) -> PluginStatus {
        let inner = self.0.clone();
        let offered = offer.clone();
        let installed = tokio::task::spawn_blocking(move || inner.install(&offered, &component, &statements)).await;
        match installed.unwrap_or(Err(InstallError::Panicked)) {
            Ok(status) => {
                lock(&self.0.refused).remove(&offer.plugin);
                status
            }
            Err(error) => self.0.refuse(&offer.plugin, &offer.version, &offer.digest, &error),
        }
    }

    /// Everything that is active, and what was refused where nothing is.
    #[must_use]
    pub fn statuses(&self) -> Vec<PluginStatus> {
        let mut statuses = self.0.registry.statuses();
        let refused = lock(&self.0.refused);
        statuses.extend(refused.values().filter(|r| self.0.registry.plugin(&r.plugin).is_none()).cloned());
        statuses
    }
}

impl Inner {
    fn load_all(&self) {
        let store = lock(&self.store);
        let active = store.active();
        store.sweep();
        for (id, entry) in &active {
            let Some(digest) = &entry.active else { continue };
            let since = UNIX_EPOCH + Duration::from_secs(entry.admitted);
            let loaded = store.bundle(digest).map_err(InstallError::from).and_then(|bundle| {
                let (component, statements) = bundle.ok_or(InstallError::Lost)?;
                let vouched =
                    Vouched::check(&component, &statements, &self.rules, Some(id), SystemTime::now().max(since))?;
                if vouched.digest() != digest {
                    return Err(InstallError::NotTheOffered { found: vouched.digest().to_owned() });
                }
                let plugin = self.prepare(vouched, &component)?;
                self.registry.swap(plugin)?;
                Ok(())
            });
            match loaded {
                Ok(()) => drop(self.metrics.admitted.fetch_add(1, Ordering::Relaxed)),
                Err(error) => drop(self.refuse(id, "", digest, &error)),
            }
        }
        let digests: Vec<&str> = active.iter().filter_map(|(_, entry)| entry.active.as_deref()).collect();
        self.cache.keep_only(&digests);
    }

    fn install(&self, offer: &PluginOffer, component: &[u8], statements: &str) -> Result<PluginStatus, InstallError> {
        let mut store = lock(&self.store);
        let (started, now) = (Instant::now(), SystemTime::now());
        let vouched = Vouched::check(component, statements, &self.rules, Some(&offer.plugin), now)?;
        if vouched.digest() != offer.digest {
            return Err(InstallError::NotTheOffered { found: vouched.digest().to_owned() });
        }
        store.check(vouched.release(), vouched.digest())?;
        let plugin = self.prepare(vouched, component)?;
        self.registry.would_take(&plugin)?;
        let status = registry::status(&plugin);
        let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        store.activate(plugin.release(), plugin.digest(), component, statements, unix)?;
        let signers = plugin.signers().join(",");
        let old = self.registry.swap(plugin)?;
        if let Some(old) = old.filter(|old| old.digest() != status.digest) {
            self.cache.remove(old.digest());
        }
        self.metrics.admitted.fetch_add(1, Ordering::Relaxed);
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.metrics.load_us.store(took, Ordering::Relaxed);
        tracing::info!(
            target: "audit",
            plugin = %status.plugin, version = %status.version, digest = %status.digest, signers, took_us = took,
            "plugin active"
        );
        Ok(status)
    }

    fn prepare(&self, vouched: Vouched, component: &[u8]) -> Result<AdmittedPlugin, InstallError> {
        let compiled = self.component(vouched.digest(), component)?;
        let prepared = Prepared::new(&self.runtime, &compiled, vouched.grant())?;
        Ok(vouched.admit(prepared)?)
    }

    /// From our own compiled code if there is any, else compiled now.
    fn component(&self, digest: &str, bytes: &[u8]) -> Result<Component, InstallError> {
        let engine = self.runtime.engine();
        if let Some(component) = self.cache.load(engine, digest) {
            self.metrics.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(component);
        }
        self.metrics.compiled.fetch_add(1, Ordering::Relaxed);
        let compiled = self.compiler.compile(bytes)?;
        match self.cache.store(digest, &compiled) {
            Ok(()) => drop(compiled),
            Err(error) => tracing::warn!(%digest, %error, "compiled code could not be kept"),
        }
        // Mapped from its file, its pages are shared and cold ones cost nothing.
        match self.cache.load(engine, digest) {
            Some(component) => Ok(component),
            None => Ok(Component::from_binary(engine, bytes).map_err(CompileError::Component)?),
        }
    }

    fn retire_others(&self, offered: &[String]) {
        let mut store = lock(&self.store);
        for (id, _) in store.active() {
            if offered.contains(&id) {
                continue;
            }
            if let Err(error) = store.retire(&id) {
                tracing::error!(plugin = %id, %error, "could not retire durably; it stays active");
                continue;
            }
            if let Some(old) = self.registry.retire(&id) {
                self.cache.remove(old.digest());
            }
            lock(&self.refused).remove(&id);
            tracing::info!(target: "audit", plugin = %id, "plugin retired");
        }
    }

    fn refuse(&self, plugin: &str, version: &str, digest: &str, error: &InstallError) -> PluginStatus {
        self.metrics.refused.fetch_add(1, Ordering::Relaxed);
        let detail = format!("{}: {}", error.code(), chain(error));
        tracing::warn!(target: "audit", %plugin, %version, %digest, %detail, "plugin refused");
        let status = PluginStatus {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            digest: digest.to_owned(),
            state: PluginState::Refused,
            detail: Some(detail),
        };
        let mut refused = lock(&self.refused);
        if refused.len() < MAX_PLUGINS || refused.contains_key(plugin) {
            refused.insert(plugin.to_owned(), status.clone());
        }
        status
    }
}

/// An error and its sources on one line, of a length that fits its frame.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text.truncate(text.floor_char_boundary(4 * 1024));
    text
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The steps of a hot load: admit → compile → link → self-test → swap. Each either gives
//! the next one what it needs or leaves everything as it was. Nothing that runs waits for
//! any of them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use viworks_protocol::frame::{PluginOffer, PluginStatus};
use wasmtime::component::Component;

use super::admit::{AdmittedPlugin, Basis, Bundle, Vouched};
use super::compile::CompileError;
use super::store::{Activation, Entry};
use super::{Inner, InstallError, Shadow, Slot, lock, registry};
use crate::runtime::Prepared;

/// How often rules may change under one hot load before it gives up its turn.
const CHANGES: u32 = 8;

impl Inner {
    pub(super) fn install(&self, offer: &PluginOffer, bundle: Bundle<'_>) -> Result<PluginStatus, InstallError> {
        let _turn = lock(&self.turn);
        let (started, now) = (Instant::now(), SystemTime::now());
        let mut basis = self.basis();
        let mut plugin = self.make(offer, bundle, &basis, now)?;
        for _ in 0..CHANGES {
            let mut store = lock(&self.store);
            let newer = self.basis();
            if basis.is(&newer) {
                self.registry.would_take(&plugin)?;
                if offer.shadow {
                    return Ok(self.beside(plugin, started));
                }
                let status = registry::status(&plugin);
                let dropped = self.registry.slot(&offer.plugin).kept;
                store.activate(Activation {
                    release: plugin.release(),
                    digest: plugin.digest(),
                    component: bundle.component,
                    statements: bundle.statements,
                    now: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
                    repository: basis.view.id(),
                })?;
                let signers = plugin.signers().join(",");
                self.registry.swap(plugin)?;
                self.drop_shadows(|shadow| shadow.digest() == offer.digest, |_| true);
                let slot = self.registry.slot(&offer.plugin);
                if let Some(gone) = dropped.filter(|gone| !slot.holds(gone.digest())) {
                    self.cache.remove(gone.digest());
                }
                self.metrics.admitted.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.metrics.load_us.store(took, Ordering::Relaxed);
                tracing::info!(
                    target: "audit",
                    plugin = %status.plugin, version = %status.version, digest = %status.digest, signers, took_us = took,
                    "plugin active"
                );
                return Ok(status);
            }
            // The rules changed while it was compiled: it is judged by what counts now.
            drop(store);
            basis = newer;
            plugin = self.make(offer, bundle, &basis, now)?;
        }
        Err(InstallError::Panicked)
    }

    /// A shadow takes nobody's place, and nothing of it is kept on disk but what it was
    /// compiled to: after a restart it is offered again.
    fn beside(&self, plugin: AdmittedPlugin, started: Instant) -> PluginStatus {
        let shadow = Shadow::of(plugin);
        let (status, took_ms) = (shadow.status(), started.elapsed().as_millis());
        let gone = self.registry.set_shadow(&status.plugin, Some(shadow));
        if let Some(gone) = gone.filter(|gone| gone.digest() != status.digest) {
            self.cache.remove(gone.digest());
        }
        tracing::info!(
            target: "audit",
            plugin = %status.plugin, version = %status.version, digest = %status.digest, took_ms, "shadow ready"
        );
        status
    }

    /// All steps before the swap.
    fn make(
        &self,
        offer: &PluginOffer,
        bundle: Bundle<'_>,
        basis: &Basis,
        now: SystemTime,
    ) -> Result<AdmittedPlugin, InstallError> {
        let past = lock(&self.store).past(&offer.plugin, &offer.digest, basis.view.id());
        let vouched = Vouched::check(bundle, basis, Some(&offer.plugin), past, now)?;
        if vouched.digest() != offer.digest {
            return Err(InstallError::NotTheOffered { found: vouched.digest().to_owned() });
        }
        lock(&self.store).check(vouched.release(), vouched.digest())?;
        let component = self.component(vouched.digest(), bundle.component)?;
        self.ready(vouched, &component)
    }

    /// Link, admit and try out.
    pub(super) fn ready(&self, vouched: Vouched, component: &Component) -> Result<AdmittedPlugin, InstallError> {
        let vouched = vouched.within(self.runtime.most());
        let prepared = Prepared::new(&self.runtime, component, vouched.grant())?;
        let (limits, brake) = (vouched.limits(), self.registry.brake(vouched.digest()));
        let plugin = vouched.admit(prepared, brake)?;
        let _alone = lock(&self.trial);
        tokio::runtime::Handle::current().block_on(plugin.prepared().try_out(limits))?;
        Ok(plugin)
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

    /// What was active and kept when the gateway ended.
    pub(super) fn load_all(&self) {
        let store = lock(&self.store);
        store.sweep();
        let active = store.active();
        let basis = self.basis();
        for (id, entry) in &active {
            let load = |digest: &Option<String>| {
                let digest = digest.as_deref()?;
                Some((digest.to_owned(), self.load(&store, id, entry, digest, &basis)))
            };
            self.place(id, load(&entry.active), load(&entry.kept));
        }
        let digests: Vec<&str> = active.iter().flat_map(|(_, entry)| entry.digests()).collect();
        self.cache.keep_only(&digests);
    }

    /// One release from disk, judged as it stands.
    pub(super) fn load(
        &self,
        store: &super::Store,
        id: &str,
        entry: &Entry,
        digest: &str,
        basis: &Basis,
    ) -> Result<AdmittedPlugin, InstallError> {
        let since = UNIX_EPOCH + Duration::from_secs(entry.admitted);
        let (component, statements) = store.bundle(digest)?.ok_or(InstallError::Lost)?;
        let bundle = Bundle { component: &component, statements: &statements };
        let past = store.past(id, digest, basis.view.id());
        let vouched = Vouched::check(bundle, basis, Some(id), past, SystemTime::now().max(since))?;
        if vouched.digest() != digest {
            return Err(InstallError::NotTheOffered { found: vouched.digest().to_owned() });
        }
        let known = self.registry.slot(id).by_digest(digest).map(|known| known.prepared().component().clone());
        let component = known.map_or_else(|| self.component(digest, &component), Ok)?;
        self.ready(vouched, &component)
    }

    /// Put what was loaded where it belongs; what was refused is told.
    pub(super) fn place(&self, id: &str, active: Option<Loaded>, kept: Option<Loaded>) {
        let mut slot = Slot::default();
        if let Some((digest, loaded)) = active {
            match loaded {
                Ok(plugin) => {
                    self.metrics.admitted.fetch_add(1, Ordering::Relaxed);
                    lock(&self.refused).retain(|_, refused| refused.status.digest != digest || refused.status.shadow);
                    slot.active = Some(plugin.into());
                }
                Err(error) => self.refuse_again(id, &digest, &error),
            }
        }
        if let Some((digest, loaded)) = kept {
            match loaded {
                Ok(plugin) => slot.kept = Some(plugin.into()),
                Err(error) => {
                    tracing::warn!(target: "audit", plugin = %id, %digest, detail = error.detail(), "kept release refused");
                }
            }
        }
        if let Err(taken) = self.registry.set(id, slot.clone()) {
            // Whatever was there was admitted by other rules.
            let _ = self.registry.set(id, Slot::default());
            let digest = slot.active.map(|plugin| plugin.digest().to_owned()).unwrap_or_default();
            self.refuse_again(id, &digest, &taken.into());
        }
    }
}

/// A digest, and what became of it.
type Loaded = (String, Result<AdmittedPlugin, InstallError>);

//! Which plugin answers to a verb. Readers take a snapshot; a swap replaces it whole, and
//! what runs already finishes on the plugin that it began with. The release before the
//! active one is kept, for warrants that name it. Shadows lie apart: nothing resolves to
//! one. Refuses a second plugin with the same verb.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use tokio_util::sync::CancellationToken;
use viworks_protocol::frame::{PluginState, PluginStatus};

use super::admit::AdmittedPlugin;
use super::shadow::Shadow;

#[derive(Debug, Default)]
pub struct Registry {
    table: RwLock<Arc<Table>>,
    brakes: Mutex<HashMap<String, Weak<CancellationToken>>>,
}

#[derive(Debug, Default, Clone)]
struct Table {
    plugins: BTreeMap<String, Slot>,
    verbs: HashMap<String, Arc<AdmittedPlugin>>,
    shadows: BTreeMap<String, Shadow>,
}

/// The releases of one plugin id that can serve.
#[derive(Debug, Default, Clone)]
pub struct Slot {
    pub active: Option<Arc<AdmittedPlugin>>,
    /// What was active before it: N−1.
    pub kept: Option<Arc<AdmittedPlugin>>,
}

impl Slot {
    /// The release with this digest, active or kept.
    #[must_use]
    pub fn by_digest(&self, digest: &str) -> Option<&Arc<AdmittedPlugin>> {
        self.active.iter().chain(&self.kept).find(|plugin| plugin.digest() == digest)
    }

    #[must_use]
    pub fn holds(&self, digest: &str) -> bool {
        self.by_digest(digest).is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("verb {verb} is plugin {owner}'s already")]
pub struct VerbTaken {
    pub verb: String,
    pub owner: String,
}

impl Registry {
    /// The active plugin with this verb.
    #[must_use]
    pub fn resolve(&self, verb: &str) -> Option<Arc<AdmittedPlugin>> {
        self.snapshot().verbs.get(verb).cloned()
    }

    /// The active plugin of this id.
    #[must_use]
    pub fn plugin(&self, id: &str) -> Option<Arc<AdmittedPlugin>> {
        self.slot(id).active
    }

    /// Whether this is true of any active plugin.
    #[must_use]
    pub fn any(&self, wanted: impl Fn(&AdmittedPlugin) -> bool) -> bool {
        self.snapshot().plugins.values().filter_map(|slot| slot.active.as_deref()).any(wanted)
    }

    /// The release that is planned beside the active one of this id.
    #[must_use]
    pub fn shadow(&self, id: &str) -> Option<Shadow> {
        self.snapshot().shadows.get(id).cloned()
    }

    /// Put another shadow beside the active release of its plugin, or none. Gives the one
    /// that goes.
    pub(super) fn set_shadow(&self, id: &str, shadow: Option<Shadow>) -> Option<Shadow> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Table::clone(&table);
        let gone = match shadow {
            Some(shadow) => next.shadows.insert(id.to_owned(), shadow),
            None => next.shadows.remove(id),
        };
        *table = Arc::new(next);
        gone
    }

    /// All shadows, by plugin.
    pub(super) fn shadows(&self) -> Vec<Shadow> {
        self.snapshot().shadows.values().cloned().collect()
    }

    /// The releases of this id that can serve.
    #[must_use]
    pub fn slot(&self, id: &str) -> Slot {
        self.snapshot().plugins.get(id).cloned().unwrap_or_default()
    }

    /// The release of this id that serves a warrant for any of these digests: the active
    /// one, else the kept one.
    #[must_use]
    pub fn serving(&self, id: &str, wanted: impl Fn(&str) -> bool) -> Option<Arc<AdmittedPlugin>> {
        let Slot { active, kept } = self.slot(id);
        active.into_iter().chain(kept).find(|plugin| wanted(plugin.digest()))
    }

    /// Make a plugin active in the place of the one with its id, which is kept.
    ///
    /// # Errors
    /// When another plugin has one of its verbs; nothing changed then.
    pub fn swap(&self, plugin: AdmittedPlugin) -> Result<(), VerbTaken> {
        let id = plugin.release().plugin.clone();
        let Slot { active, kept } = self.slot(&id);
        // Admitted anew, it is the same release: what was kept stays.
        let kept = match active {
            Some(old) if old.digest() != plugin.digest() => Some(old),
            _ => kept,
        };
        self.set(&id, Slot { active: Some(Arc::new(plugin)), kept })
    }

    /// Replace all that is of this id; an empty slot removes it.
    ///
    /// # Errors
    /// As [`Registry::swap`].
    pub(super) fn set(&self, id: &str, slot: Slot) -> Result<(), VerbTaken> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(active) = &slot.active {
            table.free_for(active)?;
        }
        let mut next = Table::clone(&table);
        match (&slot.active, &slot.kept) {
            (None, None) => drop(next.plugins.remove(id)),
            _ => drop(next.plugins.insert(id.to_owned(), slot)),
        }
        next.index();
        *table = Arc::new(next);
        Ok(())
    }

    /// Whether [`Registry::swap`] would take it now.
    pub(super) fn would_take(&self, plugin: &AdmittedPlugin) -> Result<(), VerbTaken> {
        self.snapshot().free_for(plugin)
    }

    /// What ends every invocation of a release at once, also of one that is not kept any
    /// more but still runs.
    pub(super) fn brake(&self, digest: &str) -> Arc<CancellationToken> {
        let mut brakes = self.brakes.lock().unwrap_or_else(PoisonError::into_inner);
        brakes.retain(|_, brake| brake.strong_count() > 0);
        if let Some(brake) = brakes.get(digest).and_then(Weak::upgrade).filter(|brake| !brake.is_cancelled()) {
            return brake;
        }
        let brake = Arc::<CancellationToken>::default();
        brakes.insert(digest.to_owned(), Arc::downgrade(&brake));
        brake
    }

    /// The digests of all releases that serve or still run.
    pub(super) fn running(&self) -> Vec<String> {
        let brakes = self.brakes.lock().unwrap_or_else(PoisonError::into_inner);
        brakes.iter().filter(|(_, brake)| brake.strong_count() > 0).map(|(digest, _)| digest.clone()).collect()
    }

    /// End all invocations of a release.
    pub(super) fn stop(&self, digest: &str) {
        let brakes = self.brakes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(brake) = brakes.get(digest).and_then(Weak::upgrade) {
            brake.cancel();
        }
    }

    /// What is active, by id; then what is there as a shadow.
    #[must_use]
    pub fn statuses(&self) -> Vec<PluginStatus> {
        let snapshot = self.snapshot();
        let active = snapshot.plugins.values().filter_map(|slot| slot.active.as_deref()).map(status);
        active.chain(snapshot.shadows.values().map(Shadow::status)).collect()
    }

    fn snapshot(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Table {
    fn free_for(&self, plugin: &AdmittedPlugin) -> Result<(), VerbTaken> {
        let id = &plugin.release().plugin;
        for verb in plugin.release().verbs.keys() {
            if let Some(owner) = self.verbs.get(verb).map(|p| &p.release().plugin).filter(|owner| *owner != id) {
                return Err(VerbTaken { verb: verb.clone(), owner: owner.clone() });
            }
        }
        Ok(())
    }

    fn index(&mut self) {
        let each =
            |p: &Arc<AdmittedPlugin>| p.release().verbs.keys().map(|v| (v.clone(), p.clone())).collect::<Vec<_>>();
        self.verbs = self.plugins.values().filter_map(|slot| slot.active.as_ref()).flat_map(each).collect();
    }
}

pub(super) fn status(plugin: &AdmittedPlugin) -> PluginStatus {
    PluginStatus {
        plugin: plugin.release().plugin.clone(),
        version: plugin.release().version.to_string(),
        digest: plugin.digest().to_owned(),
        state: PluginState::Active,
        detail: None,
        shadow: false,
    }
}

//! Which plugin answers to a verb. Readers take a snapshot; a swap replaces it whole, and
//! what runs already finishes on the plugin that it began with. Refuses a second plugin
//! with the same verb.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use viworks_protocol::frame::{PluginState, PluginStatus};

use super::admit::AdmittedPlugin;

#[derive(Debug, Default)]
pub struct Registry(RwLock<Arc<Table>>);

#[derive(Debug, Default, Clone)]
struct Table {
    plugins: BTreeMap<String, Arc<AdmittedPlugin>>,
    verbs: HashMap<String, Arc<AdmittedPlugin>>,
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
        self.snapshot().plugins.get(id).cloned()
    }

    /// Make a plugin active in the place of the one with its id, which is returned.
    ///
    /// # Errors
    /// When another plugin has one of its verbs; nothing changed then.
    pub fn swap(&self, plugin: AdmittedPlugin) -> Result<Option<Arc<AdmittedPlugin>>, VerbTaken> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.free_for(&plugin)?;
        let mut next = Table::clone(&table);
        let old = next.plugins.insert(plugin.release().plugin.clone(), Arc::new(plugin));
        next.index();
        *table = Arc::new(next);
        Ok(old)
    }

    /// Whether [`Registry::swap`] would take it now.
    pub(super) fn would_take(&self, plugin: &AdmittedPlugin) -> Result<(), VerbTaken> {
        self.snapshot().free_for(plugin)
    }

    /// Make a plugin inactive.
    pub fn retire(&self, id: &str) -> Option<Arc<AdmittedPlugin>> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Table::clone(&table);
        let old = next.plugins.remove(id)?;
        next.index();
        *table = Arc::new(next);
        Some(old)
    }

    /// What is active, by id.
    #[must_use]
    pub fn statuses(&self) -> Vec<PluginStatus> {
        self.snapshot().plugins.values().map(|plugin| status(plugin)).collect()
    }

    fn snapshot(&self) -> Arc<Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        self.verbs = self.plugins.values().flat_map(each).collect();
    }
}

pub(super) fn status(plugin: &AdmittedPlugin) -> PluginStatus {
    PluginStatus {
        plugin: plugin.release().plugin.clone(),
        version: plugin.release().version.to_string(),
        digest: plugin.digest().to_owned(),
        state: PluginState::Active,
        detail: None,
    }
}

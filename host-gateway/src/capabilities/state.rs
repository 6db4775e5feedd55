//! The `state` capability: a small durable key-value store for each plugin. Refuses more keys
//! and bytes than the grant allows, and never shows one plugin another's.

mod overlay;
mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use viworks_protocol::outcome::DiffLine;
use viworks_signing::grant::{Grant, Granted, StateScope};

use super::Call;
use super::wit::viworks::gateway::{state as wit, types};
use crate::effects::diff::line;
use crate::effects::{Effect, Foreseen, Trace};
use crate::failure::Failure;
use overlay::Overlay;
use store::{Size, Store};

const MAX_KEY: usize = 128;

/// `[providers.state]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The SQLite file; `plugin-state.db` in the gateway's `state_dir` when absent.
    pub file: Option<PathBuf>,
}

const DEFAULT_FILE: &str = "/var/lib/viworks-gateway/plugin-state.db";

#[derive(Debug)]
pub struct Provider {
    store: Arc<Store>,
}

/// What can change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// `bound` is `None` where an earlier value comes back.
    Set {
        plugin: String,
        key: String,
        value: String,
        expect: Expect,
        bound: Option<Bound>,
    },
    Delete {
        plugin: String,
        key: String,
        expect: Expect,
    },
}

/// What must be there for a change to happen: taking back a change must not take back
/// what was written after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    Anything,
    Nothing,
    Value(String),
}

/// What the grant's layers leave: the smallest of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub keys: u32,
    pub bytes: u32,
}

impl Change {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Set { .. } => "state.set",
            Self::Delete { .. } => "state.delete",
        }
    }

    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Set { key, value, .. } => format!("set state {key:?} to {} bytes", value.len()),
            Self::Delete { key, .. } => format!("delete state {key:?}"),
        }
    }

    #[must_use]
    pub fn diff(&self) -> Vec<DiffLine> {
        let (key, before, after) = match self {
            Self::Set { key, value, expect, .. } => (key, expect.value(), Some(value.clone())),
            Self::Delete { key, expect, .. } => (key, expect.value(), None),
        };
        vec![line(key, before, after)]
    }

    /// Brings back what was there, where what this put there still is.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let (plugin, key, before, expect) = match self.clone() {
            Self::Set { plugin, key, value, expect, .. } => (plugin, key, expect.value(), Expect::Value(value)),
            Self::Delete { plugin, key, expect } => (plugin, key, expect.value(), Expect::Nothing),
        };
        match before {
            Some(value) => Self::Set { plugin, key, value, expect, bound: None },
            None => Self::Delete { plugin, key, expect },
        }
    }

    fn place(&self) -> (&str, &str, &Expect) {
        match self {
            Self::Set { plugin, key, expect, .. } | Self::Delete { plugin, key, expect } => (plugin, key, expect),
        }
    }

    fn after(&self) -> Option<&str> {
        match self {
            Self::Set { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}

impl Expect {
    fn holds(&self, there: Option<&str>) -> bool {
        match self {
            Self::Anything => true,
            Self::Nothing => there.is_none(),
            Self::Value(value) => there == Some(value),
        }
    }

    fn exactly(there: Option<String>) -> Self {
        there.map_or(Self::Nothing, Self::Value)
    }

    fn value(&self) -> Option<String> {
        match self {
            Self::Value(value) => Some(value.clone()),
            Self::Anything | Self::Nothing => None,
        }
    }
}

impl Provider {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { store: Arc::new(Store::new(config.file.clone().unwrap_or_else(|| DEFAULT_FILE.into()))) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|e| Failure::Failed(format!("work on plugin state ended early: {e}")))?
    }

    /// Say what is there now, and refuse what would not fit.
    pub(crate) async fn foresee(&self, change: Change, planned: &[Effect]) -> Result<Foreseen, Failure> {
        let (plugin, key, expect) = change.place();
        let (plugin, key) = (plugin.to_owned(), key.to_owned());
        let there = self.get(&plugin, &key, planned).await?;
        if !expect.holds(there.as_deref()) {
            return Err(Failure::Conflict(format!("state {key:?}: it has changed meanwhile")));
        }
        let expect = Expect::exactly(there);
        let change = match change {
            Change::Set { value, bound, .. } => {
                let others = self.size_without(&plugin, &key, planned).await?;
                let bytes = others.bytes + (key.len() + value.len()) as u64;
                if bound.is_some_and(|b| others.keys + 1 > b.keys.into() || bytes > b.bytes.into()) {
                    return Err(Failure::Conflict(format!("state {key:?}: the plugin's state is full")));
                }
                Change::Set { plugin, key, value, expect, bound }
            }
            Change::Delete { .. } => Change::Delete { plugin, key, expect },
        };
        Ok(Foreseen { effect: Effect::State(change), answer: Ok(Value::Null) })
    }

    pub(crate) async fn trace(&self, change: &Change) -> Result<Trace, Failure> {
        let (plugin, key, expect) = change.place();
        let there = self.get(plugin, key, &[]).await?;
        Ok(if *expect == Expect::exactly(there.clone()) {
            Trace::Absent
        } else if change.after() == there.as_deref() {
            Trace::Present(Effect::State(change.clone()).inverse())
        } else {
            Trace::Unclear
        })
    }

    pub(crate) async fn apply(&self, change: &Change) -> Result<Value, Failure> {
        let change = change.clone();
        self.blocking(move |store| {
            let (plugin, key, expect) = change.place();
            let bound = match &change {
                Change::Set { bound, .. } => *bound,
                Change::Delete { .. } => None,
            };
            store.put(plugin, key, change.after(), expect, bound)
        })
        .await?;
        Ok(Value::Null)
    }

    async fn get(&self, plugin: &str, key: &str, planned: &[Effect]) -> Result<Option<String>, Failure> {
        if let Some(planned) = Overlay::of(planned, plugin).value(key) {
            return Ok(planned);
        }
        let (plugin, key) = (plugin.to_owned(), key.to_owned());
        self.blocking(move |store| store.get(&plugin, &key)).await
    }

    async fn keys(&self, plugin: &str, planned: &[Effect]) -> Result<Vec<String>, Failure> {
        let owner = plugin.to_owned();
        let there = self.blocking(move |store| store.keys(&owner)).await?;
        Ok(Overlay::of(planned, plugin).keys(there))
    }

    async fn size_without(&self, plugin: &str, key: &str, planned: &[Effect]) -> Result<Size, Failure> {
        let overlay = Overlay::of(planned, plugin);
        if overlay.is_empty() {
            let (plugin, key) = (plugin.to_owned(), key.to_owned());
            return self.blocking(move |store| store.size_without(&plugin, &key)).await;
        }
        let owner = plugin.to_owned();
        let there = self.blocking(move |store| store.sizes(&owner)).await?;
        Ok(overlay.size_without(key, there))
    }
}

impl wit::Host for Call {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, types::Failure>> {
        self.enter()?;
        Ok(self.state_get(key).await.map_err(Into::into))
    }

    async fn set(&mut self, key: String, value: String) -> wasmtime::Result<Result<(), types::Failure>> {
        self.enter()?;
        Ok(self.state_set(key, value).await.map_err(Into::into))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), types::Failure>> {
        self.enter()?;
        Ok(self.state_delete(key).await.map_err(Into::into))
    }

    async fn keys(&mut self) -> wasmtime::Result<Result<Vec<String>, types::Failure>> {
        self.enter()?;
        Ok(self.state_keys().await.map_err(Into::into))
    }
}

impl Call {
    async fn state_get(&mut self, key: String) -> Result<Option<String>, Failure> {
        granted(&self.grant)?;
        check_key(&key)?;
        self.host.state.get(&self.facts.plugin, &key, self.recorder.planned()).await
    }

    async fn state_set(&mut self, key: String, value: String) -> Result<(), Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        check_key(&key)?;
        let bytes = key.len() + value.len();
        let others = self.host.state.size_without(&self.facts.plugin, &key, self.recorder.planned()).await?;
        let after = Size { keys: others.keys + 1, bytes: others.bytes + bytes as u64 };
        self.require(scope, "state.max_keys", || format!("{} keys", after.keys), |s| after.keys <= s.max_keys.into())?;
        let fits = |s: &StateScope| after.bytes <= u64::from(s.max_kib) * 1024;
        self.require(scope, "state.max_kib", || format!("{} bytes of state", after.bytes), fits)?;
        let bound = Bound {
            keys: scope.scopes().map(|s| s.max_keys).min().unwrap_or(0),
            bytes: scope.scopes().map(|s| s.max_kib.saturating_mul(1024)).min().unwrap_or(0),
        };
        let plugin = self.facts.plugin.clone();
        let change = Change::Set { plugin, key, value, expect: Expect::Anything, bound: Some(bound) };
        self.perform(Effect::State(change)).await
    }

    async fn state_delete(&mut self, key: String) -> Result<(), Failure> {
        granted(&self.grant)?;
        check_key(&key)?;
        let change = Change::Delete { plugin: self.facts.plugin.clone(), key, expect: Expect::Anything };
        self.perform(Effect::State(change)).await
    }

    async fn state_keys(&mut self) -> Result<Vec<String>, Failure> {
        granted(&self.grant)?;
        self.host.state.keys(&self.facts.plugin, self.recorder.planned()).await
    }
}

fn granted(grant: &Grant) -> Result<&Granted<StateScope>, Failure> {
    grant.state.as_ref().ok_or_else(|| Failure::Denied {
        capability: "state".into(),
        rule: "grant: state".into(),
        message: "state is not granted".into(),
    })
}

fn check_key(key: &str) -> Result<(), Failure> {
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control) {
        return Err(Failure::InvalidArgument(format!("a key is 1 to {MAX_KEY} bytes without control characters")));
    }
    Ok(())
}

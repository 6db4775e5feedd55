//! The `state` capability: a small durable key-value store for each plugin. Refuses more keys
//! and bytes than the grant allows, and never shows one plugin another's.

mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use viworks_signing::grant::{Grant, Granted, StateScope};

use super::Call;
use super::wit::viworks::gateway::{state as wit, types};
use crate::effects::{Applied, Effect, Inverse};
use crate::failure::Failure;
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
}

impl Expect {
    fn holds(&self, there: Option<&str>) -> bool {
        match self {
            Self::Anything => true,
            Self::Nothing => there.is_none(),
            Self::Value(value) => there == Some(value),
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

    pub(crate) async fn apply(&self, change: &Change) -> Result<Applied, Failure> {
        let change = change.clone();
        let back = self
            .blocking(move |store| match change {
                Change::Set { plugin, key, value, expect, bound } => {
                    let before = store.put(&plugin, &key, Some(&value), &expect, bound)?;
                    Ok(restoring(plugin, key, before, Expect::Value(value)))
                }
                Change::Delete { plugin, key, expect } => {
                    let before = store.put(&plugin, &key, None, &expect, None)?;
                    Ok(restoring(plugin, key, before, Expect::Nothing))
                }
            })
            .await?;
        Ok(Applied { answer: serde_json::Value::Null, inverse: Inverse::Effect(Box::new(Effect::State(back))) })
    }
}

/// The change that brings `before` back where `expect` is now.
fn restoring(plugin: String, key: String, before: Option<String>, expect: Expect) -> Change {
    match before {
        Some(value) => Change::Set { plugin, key, value, expect, bound: None },
        None => Change::Delete { plugin, key, expect },
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
        let plugin = self.facts.plugin.clone();
        self.host.state.blocking(move |store| store.get(&plugin, &key)).await
    }

    async fn state_set(&mut self, key: String, value: String) -> Result<(), Failure> {
        let grant = Arc::clone(&self.grant);
        let scope = granted(&grant)?;
        check_key(&key)?;
        let (plugin, at, bytes) = (self.facts.plugin.clone(), key.clone(), key.len() + value.len());
        let others = self.host.state.blocking(move |store| store.size_without(&plugin, &at)).await?;
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
        let plugin = self.facts.plugin.clone();
        self.host.state.blocking(move |store| store.keys(&plugin)).await
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

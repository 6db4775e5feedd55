//! The `containers` capability: Docker's engine, or Podman's, over its unix socket. Refuses
//! everything outside the grant's labels and names, and to remove a container in a state
//! that the grant does not list: one that runs goes only where `running` is listed.
//!
//! - `host`: the functions that plugins call
//! - `foresee`: what a change would be, over what a plan so far has changed
//! - `judge`: asks a grant of a whole change, where nobody else did
//! - `scope`: the rules of the grant, on a container as it was just inspected
//! - `engine`: requests, each with a deadline; `transport`: their bytes, with a budget
//! - `container`: what decisions are made on

mod container;
mod engine;
mod foresee;
mod host;
mod judge;
mod scope;
mod transport;

pub(crate) use judge::granted;

use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ContainerSummary;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wit::viworks::gateway::containers as wit;
use crate::broker::wire::Request;

use self::container::Container;
use self::engine::Engine;
use crate::failure::Failure;
use crate::host::Reach;

/// `[providers.containers]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The gateway's `container_engine`.
    pub socket: Option<PathBuf>,
    /// Seconds for each request to the engine.
    pub timeout_secs: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { socket: None, timeout_secs: 10 }
    }
}

/// The engine of this host, if there is one.
#[derive(Debug)]
pub struct Provider {
    engine: Engine,
    reach: Reach,
}

/// What can change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Stop {
        id: String,
        name: String,
        grace_secs: u16,
    },
    Start {
        id: String,
        name: String,
    },
    /// Only if the container is still as it was when the grant was asked.
    Remove {
        id: String,
        name: String,
        image: String,
        state: String,
        stopped: Option<i64>,
    },
}

/// What undoing a start gives a container before it is killed: the engine's own default.
const UNDO_GRACE: u16 = 10;

impl Change {
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stop { .. } => "containers.stop",
            Self::Start { .. } => "containers.start",
            Self::Remove { .. } => "containers.remove",
        }
    }

    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Stop { name, .. } => format!("stop container {name}"),
            Self::Start { name, .. } => format!("start container {name}"),
            Self::Remove { name, image, state, .. } => format!("remove container {name} ({image}, {state})"),
        }
    }

    fn remove(container: &Container) -> Self {
        let Container { id, name, image, state, stopped, .. } = container.clone();
        Self::Remove { id, name, image, state, stopped }
    }
}

impl Provider {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::reached(config, Reach::Here)
    }

    #[must_use]
    pub fn reached(config: &Config, reach: Reach) -> Self {
        let deadline = Duration::from_secs(config.timeout_secs.max(1).into());
        Self { engine: Engine::new(config.socket.as_deref(), deadline), reach }
    }

    pub(crate) async fn version(&self) -> Result<wit::Engine, Failure> {
        match self.reach.broker() {
            Some(broker) => broker.ask(Request::Engine {}).await,
            None => self.engine.version().await,
        }
    }

    /// All of that name, or all; those that the policy covers, where a broker lists them.
    async fn listed(&self, name: Option<&str>) -> Result<Vec<Container>, Failure> {
        if let Some(broker) = self.reach.broker() {
            return broker.ask(Request::Containers { name: name.map(str::to_owned) }).await;
        }
        let named = |summary: &ContainerSummary| {
            let Some(name) = name else { return true };
            summary.names.iter().flatten().any(|n| n.trim_start_matches('/') == name)
        };
        self.engine.list(named).await
    }

    /// Whether the engine answers, for the status.
    ///
    /// # Errors
    /// Says what is wrong.
    pub async fn answers(&self) -> Result<(), String> {
        self.engine.version().await.map(drop).map_err(|failure| failure.to_string())
    }

    pub(crate) async fn apply(&self, change: &Change) -> Result<Value, Failure> {
        let before = self.engine.inspect(change.id()).await?;
        change.check(&before)?;
        let after = match change {
            Change::Stop { id, grace_secs, .. } => {
                self.engine.stop(id, *grace_secs).await?;
                self.engine.inspect(id).await?
            }
            Change::Start { id, .. } => {
                self.engine.start(id).await?;
                self.engine.inspect(id).await?
            }
            Change::Remove { id, .. } => {
                self.engine.remove(id, before.alive()).await?;
                before
            }
        };
        serde_json::to_value(after).map_err(|e| Failure::Failed(e.to_string()))
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod live;

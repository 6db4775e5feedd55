//! The `containers` capability: Docker's engine, or Podman's, over its unix socket. Refuses
//! to remove a container that runs, and everything outside the grant's labels and names.
//!
//! - `host`: the functions that plugins call
//! - `scope`: the rules of the grant, on a container as it was just inspected
//! - `engine`: requests, each with a deadline; `transport`: their bytes, with a budget
//! - `container`: what decisions are made on

mod container;
mod engine;
mod host;
mod scope;
mod transport;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::container::Container;
use self::engine::Engine;
use crate::effects::{Applied, Effect, Inverse};
use crate::failure::Failure;

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
        let deadline = Duration::from_secs(config.timeout_secs.max(1).into());
        Self { engine: Engine::new(config.socket.as_deref(), deadline) }
    }

    pub(crate) async fn apply(&self, change: &Change) -> Result<Applied, Failure> {
        match change {
            Change::Stop { id, name, grace_secs } => {
                let before = self.same(id, name).await?;
                if !before.alive() {
                    return Err(Failure::Conflict(format!("the container {name} does not run")));
                }
                self.engine.stop(id, *grace_secs).await?;
                let inverse = Change::Start { id: id.clone(), name: name.clone() };
                applied(&self.engine.inspect(id).await?, Some(inverse))
            }
            Change::Start { id, name } => {
                let before = self.same(id, name).await?;
                if before.alive() {
                    return Err(Failure::Conflict(format!("the container {name} runs already")));
                }
                self.engine.start(id).await?;
                let inverse = Change::Stop { id: id.clone(), name: name.clone(), grace_secs: UNDO_GRACE };
                applied(&self.engine.inspect(id).await?, Some(inverse))
            }
            Change::Remove { id, name, state, stopped, .. } => {
                let before = self.same(id, name).await?;
                if before.alive() {
                    return Err(Failure::Conflict(format!("the container {name} runs: stop it first")));
                }
                if before.state != *state || before.stopped != *stopped {
                    return Err(Failure::Conflict(format!("the container {name} changed meanwhile")));
                }
                self.engine.remove(id).await?;
                applied(&before, None)
            }
        }
    }

    /// The container of that id, if it still has that name.
    async fn same(&self, id: &str, name: &str) -> Result<Container, Failure> {
        let container = self.engine.inspect(id).await?;
        if container.id == id && container.name == name {
            Ok(container)
        } else {
            Err(Failure::Conflict(format!("the container {name} changed meanwhile")))
        }
    }
}

fn applied(container: &Container, inverse: Option<Change>) -> Result<Applied, Failure> {
    let answer = serde_json::to_value(container).map_err(|e| Failure::Failed(e.to_string()))?;
    let inverse = inverse.map_or(Inverse::Irreversible, |c| Inverse::Effect(Box::new(Effect::Containers(c))));
    Ok(Applied { answer, inverse })
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod live;

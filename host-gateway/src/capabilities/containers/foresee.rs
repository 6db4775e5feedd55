//! What a change of containers would be: refuses what applying would refuse. Changes
//! nothing; in a plan, the containers are as the plan so far leaves them.

use std::time::Duration;

use tokio::time::Instant;
use viworks_protocol::outcome::DiffLine;

use super::container::Container;
use super::{Change, Provider, UNDO_GRACE};
use crate::broker::wire::Request;
use crate::effects::diff::{goes, line};
use crate::effects::{Effect, Foreseen, Trace};
use crate::failure::Failure;

/// How long the engine may take for what is done in one step.
const LINGER: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// When a planned stop will have been: always just now.
const PLANNED: i64 = i64::MAX;

impl Provider {
    pub(crate) async fn foresee(&self, change: Change, planned: &[Effect]) -> Result<Foreseen, Failure> {
        let before = self.inspect(change.id(), planned).await?;
        change.check(&before)?;
        let after = change.replay(before.clone()).unwrap_or(before);
        let answer = serde_json::to_value(after).map_err(|e| Failure::Failed(e.to_string()));
        Ok(Foreseen { effect: Effect::Containers(change), answer })
    }

    /// The container as a plan so far leaves it.
    pub(super) async fn inspect(&self, id: &str, planned: &[Effect]) -> Result<Container, Failure> {
        let container = match self.reach.broker() {
            Some(broker) => broker.ask(Request::Container { id: id.to_owned() }).await?,
            None => self.engine.inspect(id).await?,
        };
        replay(container, planned).ok_or_else(|| Failure::NotFound(format!("no such container: {id}")))
    }

    /// Whether a change happened, by what the engine says. It goes on with what it was asked
    /// when its client is gone, so it is given the time that it takes.
    pub(crate) async fn trace(&self, change: &Change) -> Result<Trace, Failure> {
        let patience = match change {
            Change::Stop { grace_secs, .. } => Duration::from_secs(u64::from(*grace_secs).min(20)) + LINGER,
            Change::Start { .. } | Change::Remove { .. } => LINGER,
        };
        let until = Instant::now() + patience;
        loop {
            let there = match self.engine.inspect(change.id()).await {
                Ok(container) => Some(container),
                Err(Failure::NotFound(_)) => None,
                Err(failure) => return Err(failure),
            };
            let happened = match change {
                Change::Remove { .. } => there.is_none(),
                Change::Stop { .. } => there.as_ref().is_some_and(|c| !c.alive()),
                Change::Start { .. } => there.as_ref().is_some_and(Container::alive),
            };
            if happened {
                return Ok(Trace::Present(Effect::Containers(change.clone()).inverse()));
            }
            match there {
                None => return Ok(Trace::Unclear),
                Some(container) if Instant::now() >= until => {
                    let busy = matches!(container.state.as_str(), "removing" | "stopping");
                    return Ok(if busy { Trace::Unclear } else { Trace::Absent });
                }
                Some(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// A container after the planned changes; `None` once it would be removed.
pub(super) fn replay(container: Container, planned: &[Effect]) -> Option<Container> {
    planned.iter().try_fold(container, |container, effect| match effect {
        Effect::Containers(change) if change.id() == container.id => change.replay(container),
        _ => Some(container),
    })
}

impl Change {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Stop { id, .. } | Self::Start { id, .. } | Self::Remove { id, .. } => id,
        }
    }

    /// Whether the container is what the change was decided for.
    ///
    /// # Errors
    /// `conflict`.
    pub(super) fn check(&self, there: &Container) -> Result<(), Failure> {
        let (Self::Stop { id, name, .. } | Self::Start { id, name } | Self::Remove { id, name, .. }) = self;
        let conflict = |why: &str| Err(Failure::Conflict(format!("the container {name} {why}")));
        if there.id != *id || there.name != *name {
            return conflict("changed meanwhile");
        }
        match self {
            Self::Stop { .. } if !there.alive() => conflict("does not run"),
            Self::Start { .. } if there.alive() => conflict("runs already"),
            Self::Remove { state, stopped, .. } if there.state != *state || there.stopped != *stopped => {
                conflict("changed meanwhile")
            }
            _ => Ok(()),
        }
    }

    fn replay(&self, container: Container) -> Option<Container> {
        match self {
            Self::Stop { .. } => Some(Container { state: "exited".into(), stopped: Some(PLANNED), ..container }),
            Self::Start { .. } => Some(Container { state: "running".into(), stopped: None, ..container }),
            Self::Remove { .. } => None,
        }
    }

    #[must_use]
    pub fn diff(&self) -> Vec<DiffLine> {
        let state = |before: &str, after: &str| line("state", Some(before.to_owned()), Some(after.to_owned()));
        match self {
            Self::Stop { id, .. } => vec![state("running", "exited"), same("id", id)],
            Self::Start { id, .. } => vec![state("exited", "running"), same("id", id)],
            Self::Remove { id, name, image, state, .. } => {
                vec![goes("container", name), goes("id", id), goes("image", image), goes("state", state)]
            }
        }
    }

    /// What takes a change back, where something does.
    #[must_use]
    pub fn inverse(&self) -> Option<Self> {
        match self.clone() {
            Self::Stop { id, name, .. } => Some(Self::Start { id, name }),
            Self::Start { id, name } => Some(Self::Stop { id, name, grace_secs: UNDO_GRACE }),
            Self::Remove { .. } => None,
        }
    }
}

/// What stays as it is, and says which is meant.
fn same(field: &str, value: &str) -> DiffLine {
    line(field, Some(value.to_owned()), Some(value.to_owned()))
}

//! A whole change, asked of a grant by who did not make it, on the container as it is now.
//! Refuses what the guest's functions would refuse.

use serde_json::Value;
use viworks_signing::grant::{ContainersScope, Grant, Granted};

use super::container::{Container, now};
use super::host::MAX_GRACE_SECS;
use super::scope::{self, REMOVED, Rule, SEEN};
use super::{Change, Provider};
use crate::failure::Failure;

const MAX_TEXT: usize = 512;

impl Provider {
    /// # Errors
    /// `denied` with the rule, `invalid-argument`, or that the engine can't be asked. A
    /// container that is not there is refused by nobody: foreseeing says so.
    pub(crate) async fn judge(&self, change: &Change, grant: &Grant) -> Result<(), Failure> {
        let scope = granted(grant)?;
        let short = match change {
            Change::Stop { name, grace_secs, .. } => name.len() <= MAX_TEXT && *grace_secs <= MAX_GRACE_SECS,
            Change::Start { name, .. } => name.len() <= MAX_TEXT,
            Change::Remove { name, image, state, .. } => [name, image, state].iter().all(|text| text.len() <= MAX_TEXT),
        };
        if !short {
            return Err(Failure::InvalidArgument("a text or a grace time that is too long".into()));
        }
        let rule = match change {
            Change::Stop { .. } | Change::Start { .. } => {
                ("containers.stop", scope.require("containers.stop", |s| s.stop))
            }
            Change::Remove { .. } => (
                "containers.allow_irreversible",
                scope.require("containers.allow_irreversible", |s| s.allow_irreversible),
            ),
        };
        rule.1.map_err(|refused| denied(refused.rule, change.summary()))?;
        let container = match self.engine.inspect(change.id()).await {
            Err(Failure::NotFound(_)) => return Ok(()),
            inspected => inspected?,
        };
        require(scope, &SEEN, &container)?;
        match change {
            Change::Remove { .. } => require(scope, &REMOVED, &container),
            Change::Stop { .. } | Change::Start { .. } => Ok(()),
        }
    }

    /// The containers that a grant covers.
    ///
    /// # Errors
    /// `denied`, or that the engine can't be asked.
    pub(crate) async fn list_within(&self, name: Option<&str>, grant: &Grant) -> Result<Value, Failure> {
        let scope = granted(grant)?;
        let (mut found, now) = (self.listed(name).await?, now());
        found.retain(|container| scope::passes(scope, &SEEN, container, now));
        json(&found)
    }

    /// One container, if a grant covers it.
    ///
    /// # Errors
    /// `denied` with the rule, `not-found`, or that the engine can't be asked.
    pub(crate) async fn inspect_within(&self, id: &str, grant: &Grant) -> Result<Value, Failure> {
        let scope = granted(grant)?;
        let container = self.engine.inspect(id).await?;
        require(scope, &SEEN, &container)?;
        json(&container)
    }
}

pub(crate) fn granted(grant: &Grant) -> Result<&Granted<ContainersScope>, Failure> {
    grant.containers.as_ref().ok_or_else(|| denied("grant: containers".into(), "containers is not granted".into()))
}

fn require(scope: &Granted<ContainersScope>, rules: &[Rule], container: &Container) -> Result<(), Failure> {
    let now = now();
    for (name, rule) in rules {
        let what = || format!("container {} ({})", container.name, container.state);
        scope.require(name, |s| rule(s, container, now)).map_err(|refused| denied(refused.rule, what()))?;
    }
    Ok(())
}

fn denied(rule: String, message: String) -> Failure {
    Failure::Denied { capability: "containers".into(), rule, message }
}

fn json(answer: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|e| Failure::Failed(e.to_string()))
}

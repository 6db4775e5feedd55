//! What plugins can ask of `containers`, and its gate. A container outside the grant's
//! names and labels does not show in lists, and is refused by name.

use std::sync::Arc;

use viworks_signing::grant::{ContainersScope, Granted};

use super::super::Call;
use super::super::wit::viworks::gateway::containers as wit;
use super::super::wit::viworks::gateway::types;
use super::container::{Container, now};
use super::foresee::replay;
use super::scope::{self, REMOVED, Rule, SEEN};
use super::{Change, Provider};
use crate::effects::Effect;
use crate::failure::Failure;

type Answer<T> = wasmtime::Result<Result<T, types::Failure>>;

pub(super) const MAX_GRACE_SECS: u16 = 120;
/// Containers that one call of `prune` removes; calling again removes the next.
const MAX_PRUNED: usize = 500;

impl wit::Host for Call {
    async fn get_engine(&mut self) -> Answer<wit::Engine> {
        self.enter()?;
        let Err(refused) = granted(self) else {
            return Ok(self.host.containers.version().await.map_err(Into::into));
        };
        Ok(Err(refused.into()))
    }

    async fn list(&mut self, filter: wit::Filter) -> Answer<Vec<wit::Container>> {
        self.enter()?;
        Ok(list(self, &filter).await.map_err(Into::into))
    }

    async fn stop(&mut self, id: String, grace_secs: u32) -> Answer<wit::Container> {
        self.enter()?;
        Ok(stop(self, &id, grace_secs).await.map_err(Into::into))
    }

    async fn remove(&mut self, id: String) -> Answer<wit::Container> {
        self.enter()?;
        Ok(remove(self, &id).await.map_err(Into::into))
    }

    async fn prune(&mut self, filter: wit::Filter) -> Answer<Vec<wit::Container>> {
        self.enter()?;
        Ok(prune(self, &filter).await.map_err(Into::into))
    }
}

async fn list(call: &mut Call, filter: &wit::Filter) -> Result<Vec<wit::Container>, Failure> {
    let granted = granted(call)?;
    let now = now();
    let found = call.host.containers.matching(&granted, filter, now, call.recorder.planned()).await?;
    Ok(found.into_iter().map(|c| c.shown(now)).collect())
}

async fn stop(call: &mut Call, id: &str, grace_secs: u32) -> Result<wit::Container, Failure> {
    let granted = granted(call)?;
    let grace_secs = u16::try_from(grace_secs)
        .ok()
        .filter(|secs| *secs <= MAX_GRACE_SECS)
        .ok_or_else(|| Failure::InvalidArgument(format!("the grace time is at most {MAX_GRACE_SECS} seconds")))?;
    let container = call.host.containers.inspect(id, call.recorder.planned()).await?;
    require(call, &granted, &SEEN, &container)?;
    call.require(&granted, "containers.stop", || format!("stop container {}", container.name), |s| s.stop)?;
    let Container { id, name, .. } = container;
    perform(call, Change::Stop { id, name, grace_secs }).await
}

async fn remove(call: &mut Call, id: &str) -> Result<wit::Container, Failure> {
    let granted = granted(call)?;
    let container = call.host.containers.inspect(id, call.recorder.planned()).await?;
    require(call, &granted, &SEEN, &container)?;
    irreversible(call, &granted, || format!("remove container {}", container.name))?;
    require(call, &granted, &REMOVED, &container)?;
    perform(call, Change::remove(&container)).await
}

async fn prune(call: &mut Call, filter: &wit::Filter) -> Result<Vec<wit::Container>, Failure> {
    let granted = granted(call)?;
    irreversible(call, &granted, || "remove stopped containers".into())?;
    let now = now();
    let found = call.host.containers.matching(&granted, filter, now, call.recorder.planned()).await?;
    let doomed = found.into_iter().filter(|c| !c.alive() && scope::passes(&granted, &REMOVED, c, now));
    let mut removed = Vec::new();
    for container in doomed.take(MAX_PRUNED) {
        match perform(call, Change::remove(&container)).await {
            Ok(container) => removed.push(container),
            // Somebody else started or removed it: it is no longer what was to go.
            Err(Failure::Conflict(_) | Failure::NotFound(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(removed)
}

impl Provider {
    /// The containers within the grant that match, as they are now, by name.
    async fn matching(
        &self,
        granted: &Granted<ContainersScope>,
        filter: &wit::Filter,
        now: i64,
        planned: &[Effect],
    ) -> Result<Vec<Container>, Failure> {
        let found = self.listed(filter.name.as_deref()).await?;
        let mut found: Vec<_> = found.into_iter().filter_map(|c| replay(c, planned)).collect();
        found.retain(|c| scope::passes(granted, &SEEN, c, now) && scope::matches(filter, c, now));
        Ok(found)
    }
}

fn require(
    call: &mut Call,
    granted: &Granted<ContainersScope>,
    rules: &[Rule],
    container: &Container,
) -> Result<(), Failure> {
    let now = now();
    for (name, rule) in rules {
        let what = || format!("container {} ({})", container.name, container.state);
        call.require(granted, name, what, |s| rule(s, container, now))?;
    }
    Ok(())
}

fn irreversible(
    call: &mut Call,
    granted: &Granted<ContainersScope>,
    what: impl FnOnce() -> String,
) -> Result<(), Failure> {
    call.require(granted, "containers.allow_irreversible", what, |s| s.allow_irreversible)
}

async fn perform(call: &mut Call, change: Change) -> Result<wit::Container, Failure> {
    let container: Container = call.perform(Effect::Containers(change)).await?;
    Ok(container.shown(now()))
}

fn granted(call: &Call) -> Result<Granted<ContainersScope>, Failure> {
    let grant = Arc::clone(&call.grant);
    grant.containers.clone().ok_or_else(|| Failure::Denied {
        capability: "containers".into(),
        rule: "grant: containers".into(),
        message: "containers is not granted".into(),
    })
}

//! The kill switch: a release is offered to nobody any more, its plugin falls back, and
//! what may be running of it is told to stop.

use std::collections::{BTreeMap, BTreeSet};
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::id::AgentId;

use super::{RolloutError, Rollouts};
use crate::hub;
use crate::metrics::Metrics;
use crate::store::model::Plugin;

/// What came of a kill.
#[derive(Debug)]
pub struct Ended {
    pub release: Plugin,
    /// What is active instead.
    pub fallback: Option<Plugin>,
    /// Commands that were cancelled whole.
    pub commands: usize,
    /// Invocations of other commands that were told to stop.
    pub invocations: usize,
}

impl Rollouts {
    /// Kill a release, wherever it is. `cancel`: end what runs of it, too.
    ///
    /// # Errors
    /// When there is none, or the store refuses.
    pub async fn kill(
        &self,
        digest: &str,
        reason: &str,
        fall_back: bool,
        cancel: bool,
        by: &str,
    ) -> Result<Ended, RolloutError> {
        let parts = &self.inner.parts;
        let killed = parts.catalog.kill(digest, reason, fall_back, by).await?;
        Metrics::count(&parts.metrics.rollouts, "killed");
        tracing::warn!(target: "audit", by, digest, reason, "release killed");
        let mut ended = Ended { release: killed.release, fallback: killed.fallback, commands: 0, invocations: 0 };
        if cancel {
            self.end_running(&mut ended, by).await?;
        }
        self.inner.wake.notify_one();
        Ok(ended)
    }

    async fn end_running(&self, ended: &mut Ended, by: &str) -> Result<(), RolloutError> {
        let parts = &self.inner.parts;
        let digest = ended.release.digest.as_str();
        let holders: BTreeMap<AgentId, String> = parts
            .store
            .plugin_holders(&ended.release.plugin)
            .await?
            .into_iter()
            .map(|(agent, status)| (agent, status.digest))
            .collect();
        let mut commands = BTreeSet::new();
        for (agent, invocation, command) in parts.store.serving(digest).await? {
            match command {
                Some(command) => drop(commands.insert(command)),
                // Ordered of another release: stopped where the killed one may serve it.
                None if holders.get(&agent).is_none_or(|held| held == digest) => {
                    ended.invocations += 1;
                    // Who is away has it no more when back: the offer is gone.
                    let _ = parts.hub.send(&agent, hub::text(&BackendFrame::Cancel { invocation }));
                }
                None => {}
            }
        }
        for command in commands {
            ended.commands += usize::from(parts.engine.cancel(&command, by).await?.is_some());
        }
        Ok(())
    }
}

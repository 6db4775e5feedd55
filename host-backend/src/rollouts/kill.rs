//! The kill switch: a release is offered to nobody any more, its plugin falls back, and
//! what may be running of it is told to stop.

use std::collections::{BTreeMap, BTreeSet};
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::id::AgentId;

use super::{RolloutError, Rollouts};
use crate::cluster::Event;
use crate::hub;
use crate::metrics::Metrics;
use crate::store::model::{Plugin, Standing};

/// Holds the lease that says that what runs of a killed release is to end.
const ENDING: &str = "kill";
const ENDING_MS: u64 = 3_600_000;

fn ending(digest: &str) -> String {
    format!("kill:{digest}")
}

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
            // Said before it is told, so that whoever hears of it finds it.
            if parts.cluster.is_shared() {
                parts.store.lease(&ending(digest), ENDING, ENDING_MS).await?;
            }
            parts.cluster.publish(Event::Killed { digest: digest.to_owned() });
            self.end_running(&mut ended, by).await?;
        }
        self.inner.wake.notify_one();
        Ok(ended)
    }

    /// Another instance killed a release: what agents of this one may run of it is told to
    /// stop, if that was wanted. Its own commands were cancelled by that instance.
    pub(crate) async fn end_killed(&self, digest: &str) -> Result<(), RolloutError> {
        let parts = &self.inner.parts;
        let Some(release) = parts.store.plugin(digest).await?.filter(|p| p.standing == Standing::Killed) else {
            return Ok(());
        };
        // Held by nobody: it was let run out, or somebody only says that it was killed.
        if parts.store.lease(&ending(digest), parts.cluster.instance(), 1).await? {
            return Ok(());
        }
        let holders = self.holders(&release.plugin).await?;
        for (agent, invocation, command) in parts.store.serving(digest).await? {
            if command.is_none() && holders.get(&agent).is_none_or(|held| held == digest) {
                let _ = parts.hub.send(&agent, hub::text(&BackendFrame::Cancel { invocation }));
            }
        }
        Ok(())
    }

    async fn holders(&self, plugin: &str) -> Result<BTreeMap<AgentId, String>, RolloutError> {
        let holders = self.inner.parts.store.plugin_holders(plugin).await?;
        Ok(holders.into_iter().map(|(agent, status)| (agent, status.digest)).collect())
    }

    async fn end_running(&self, ended: &mut Ended, by: &str) -> Result<(), RolloutError> {
        let parts = &self.inner.parts;
        let digest = ended.release.digest.as_str();
        let holders = self.holders(&ended.release.plugin).await?;
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

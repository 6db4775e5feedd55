//! The task that brings rollouts on: looks every half second, commits what the machine
//! says, and writes what was counted.

use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use viworks_protocol::id::AgentId;

use super::machine::{self, Next};
use super::spec::Spec;
use super::{RolloutError, Rollouts};
use crate::catalog::Open;
use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::store::model::{Rollout, RolloutState, Standing};
use crate::store::release::{Change, Progress};

const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at what other instances saw.
const OTHERS: Duration = Duration::from_secs(2);

impl Rollouts {
    /// Bring open rollouts on until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut others = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => {}
                () = self.inner.wake.notified() => {}
            }
            if self.inner.parts.cluster.is_shared() && others.elapsed() >= OTHERS {
                others = tokio::time::Instant::now();
                self.look_at_others().await;
            }
            self.look().await;
        }
        self.write_tallies().await;
        if self.inner.parts.cluster.is_shared() {
            drop(self.join_tallies(false).await);
        }
    }

    /// Look at every open rollout once.
    pub(super) async fn look(&self) {
        self.write_tallies().await;
        let snapshot = self.inner.parts.catalog.snapshot();
        let plugins: BTreeSet<&str> = snapshot.open().iter().map(|open| open.rollout.plugin.as_str()).collect();
        self.inner.parts.observer.only(&plugins, shadowing(snapshot.open()));
        let leads = !snapshot.open().is_empty() && self.inner.parts.cluster.leads("rollouts").await;
        for open in snapshot.open() {
            let id = &open.rollout.id;
            if let Err(error) = self.watch(&open.rollout.plugin).await {
                tracing::error!(rollout = id, %error, "who has the release can't be read");
                continue;
            }
            if leads && let Err(error) = self.bring_on(open).await {
                tracing::error!(rollout = id, error = &error as &dyn std::error::Error, "the rollout stands still");
            }
        }
    }

    async fn watch(&self, plugin: &str) -> Result<(), StoreError> {
        let (observer, store) = (&self.inner.parts.observer, &self.inner.parts.store);
        if !observer.watches(plugin) {
            // Heard from now on, then read: nothing falls between.
            observer.watch(plugin, Vec::new());
            store.flush().await?;
            observer.watch(plugin, store.plugin_holders(plugin).await?);
        }
        Ok(())
    }

    async fn bring_on(&self, open: &Open) -> Result<(), RolloutError> {
        let parts = &self.inner.parts;
        let of = &open.rollout;
        let spec = Spec::stored(of)?;
        let now_ms = parts.clock.now_ms();
        let next = machine::next(of, &spec, &self.facts(of), now_ms);
        let (mut rollout, mut members, mut standing) = (of.clone(), Vec::new(), None);
        let (mut anew, mut tallies) = (false, Vec::new());
        let words = |stage: u32| spec.part(stage).map(|part| part.words(spec.stages.len())).unwrap_or_default();
        let (kind, detail) = match next {
            Next::Wait => return Ok(()),
            Next::Soak => {
                rollout.soaking_ms = Some(now_ms);
                ("soaking", words(of.stage))
            }
            Next::Advance => {
                // Who planned it is not thereby the first to have it.
                anew = of.is_shadowing();
                (members, tallies) = self.advance(&mut rollout, &spec, open).await?;
                ("advanced", format!("{}, {} more", words(rollout.stage), members.len()))
            }
            Next::Succeed => {
                rollout.state = RolloutState::Succeeded;
                standing = Some(Standing::Active);
                ("succeeded", format!("{} is active", of.digest))
            }
            Next::Halt { reason } => {
                rollout.state = RolloutState::Halted;
                rollout.reason.clone_from(&reason);
                ("halted", reason)
            }
            Next::RollBack { reason } => {
                rollout.state = RolloutState::RolledBack;
                rollout.reason.clone_from(&reason);
                standing = Some(Standing::Inactive);
                ("rolled_back", reason)
            }
        };
        let rollout = Rollout { ..self.changed(rollout) };
        tracing::info!(rollout = of.id, plugin = of.plugin, kind, detail, "rollout");
        let audit = parts.catalog.entry("backend", &format!("rollout.{kind}"), of.id.clone(), detail);
        let progress = Progress { members, anew, tallies: tallies.clone(), standing, ..Progress::of(rollout, audit) };
        // An operator was quicker: the next look sees what he did.
        if parts.catalog.proceed(progress, Some(of.changed_ms)).await? {
            Metrics::count(&parts.metrics.rollouts, kind);
            parts.observer.restore(tallies);
        }
        Ok(())
    }

    /// The next part of a rollout: its new members, and what is counted no more.
    pub(super) async fn advance(
        &self,
        rollout: &mut Rollout,
        spec: &Spec,
        open: &Open,
    ) -> Result<(Vec<AgentId>, Vec<(String, String, String)>), RolloutError> {
        let shadowed = rollout.is_shadowing();
        let before = if shadowed { Default::default() } else { open.members.clone() };
        rollout.stage += 1;
        (rollout.soaking_ms, rollout.everyone) = (None, rollout.everyone && !shadowed);
        // What waits in memory is in this as well, and need not be written first.
        let tallies = self.inner.parts.observer.stage_begins(&rollout.digest, &rollout.former);
        Ok((self.members(rollout, spec, &before).await?, tallies))
    }

    /// What other instances' agents have, and how commands there ended.
    async fn look_at_others(&self) {
        let parts = &self.inner.parts;
        let snapshot = parts.catalog.snapshot();
        if let Err(error) = self.join_tallies(!snapshot.open().is_empty()).await {
            tracing::warn!(%error, "what releases did can't be written or read; tried again");
        }
        if snapshot.open().is_empty() {
            return;
        }
        let read = async {
            let present = parts.store.present_agents().await?;
            *self.elsewhere() = present.into_iter().filter(|(_, online)| *online).map(|(agent, _)| agent).collect();
            for open in snapshot.open() {
                let plugin = &open.rollout.plugin;
                let known = parts.store.plugin_holders(plugin).await?;
                parts.observer.renew(plugin, known, |agent| parts.hub.is_connected(agent));
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = read.await {
            tracing::warn!(%error, "who has which release at other instances can't be read");
        }
    }

    /// Add what was seen here to what all have seen, one instance at a time.
    async fn join_tallies(&self, anyway: bool) -> Result<(), StoreError> {
        let parts = &self.inner.parts;
        let fresh = parts.observer.take_fresh();
        if fresh.is_empty() && !anyway {
            return Ok(());
        }
        let joined = async {
            let _turn = parts.cluster.turn("tallies").await?;
            let rows = parts.observer.join(parts.store.tallies().await?, &fresh);
            if !rows.is_empty() {
                parts.store.release(Change::Tallies(rows)).await?;
            }
            Ok(())
        };
        let done = joined.await;
        if done.is_err() {
            parts.observer.return_fresh(fresh);
        }
        done
    }

    async fn write_tallies(&self) {
        let parts = &self.inner.parts;
        if parts.cluster.is_shared() {
            return;
        }
        let changed = parts.observer.take_changed();
        if changed.is_empty() {
            return;
        }
        if let Err(error) = parts.store.release(Change::Tallies(changed.clone())).await {
            tracing::warn!(%error, "what releases did can't be written; tried again");
            parts.observer.give_back(changed);
        }
    }
}

/// The releases that are planned beside others now.
pub(super) fn shadowing(open: &[Open]) -> BTreeSet<String> {
    let shadows = open.iter().filter(|open| open.rollout.is_shadowing());
    shadows.map(|open| open.rollout.digest.clone()).collect()
}

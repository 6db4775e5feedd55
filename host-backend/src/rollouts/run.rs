//! The task that brings rollouts on: looks every half second, commits what the machine
//! says, and writes what was counted.

use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::machine::{self, Next};
use super::spec::Spec;
use super::{RolloutError, Rollouts};
use crate::catalog::Open;
use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::store::model::{Rollout, RolloutState, Standing};
use crate::store::release::{Change, Progress};

const LOOK: Duration = Duration::from_millis(500);

impl Rollouts {
    /// Bring open rollouts on until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => {}
                () = self.inner.wake.notified() => {}
            }
            self.look().await;
        }
        self.write_tallies().await;
    }

    /// Look at every open rollout once.
    pub(super) async fn look(&self) {
        self.write_tallies().await;
        let snapshot = self.inner.parts.catalog.snapshot();
        let plugins: BTreeSet<&str> = snapshot.open().iter().map(|open| open.rollout.plugin.as_str()).collect();
        self.inner.parts.observer.only(&plugins);
        for open in snapshot.open() {
            let id = &open.rollout.id;
            if let Err(error) = self.watch(&open.rollout.plugin).await {
                tracing::error!(rollout = id, %error, "who has the release can't be read");
                continue;
            }
            if let Err(error) = self.bring_on(open).await {
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
        let spec: Spec = serde_json::from_str(&of.spec)
            .map_err(|_| StoreError::Corrupt { what: "rollout", text: of.spec.clone() })?;
        let now_ms = parts.clock.now_ms();
        let next = machine::next(of, &spec, &self.facts(of), now_ms);
        let (mut rollout, mut members, mut standing) = (of.clone(), Vec::new(), None);
        let (kind, detail) = match next {
            Next::Wait => return Ok(()),
            Next::Soak => {
                rollout.soaking_ms = Some(now_ms);
                ("soaking", format!("stage {}", of.stage + 1))
            }
            Next::Advance => {
                rollout.stage += 1;
                rollout.soaking_ms = None;
                members = self.members(&mut rollout, &spec, &open.members).await?;
                ("advanced", format!("stage {} of {}, {} more", rollout.stage + 1, spec.stages.len(), members.len()))
            }
            Next::Succeed => {
                rollout.state = RolloutState::Succeeded;
                standing = Some(Standing::Active);
                ("succeeded", format!("{} is active", of.digest))
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
        let progress = Progress { rollout, members, standing, audit };
        // An operator was quicker: the next look sees what he did.
        if parts.catalog.proceed(progress, Some(of.changed_ms)).await? {
            Metrics::count(&parts.metrics.rollouts, kind);
        }
        Ok(())
    }

    async fn write_tallies(&self) {
        let parts = &self.inner.parts;
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

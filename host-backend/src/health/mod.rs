//! What works and what does not, by service: by trying, not by believing. Kept for a
//! moment, so that whoever asks often costs nothing, and within a deadline, so that nobody
//! who asks hangs with what is broken.
//!
//! - [`ready`]: whether this instance should be given work; the store's probe
//! - [`services`]: the list of what is looked at beside the contract's four

mod disk;
mod ready;
pub mod services;
#[cfg(test)]
mod tests;

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::app::AppState;
use crate::background::TaskState;

pub use disk::{Space, space};
pub use ready::{Database, Readiness};
pub use services::Service;

const KEPT: Duration = Duration::from_secs(1);
/// A probe that takes longer has failed.
const WITHIN: Duration = Duration::from_secs(3);
/// The settler is stuck when one group takes longer.
const STUCK_MS: u64 = 10_000;
/// Samples dropped so recently mean that the processor does not keep up.
const DROPPED_MS: u64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Healthy,
    Degraded,
}

impl Status {
    #[must_use]
    pub fn of(good: bool) -> Self {
        if good { Self::Healthy } else { Self::Degraded }
    }
}

#[derive(Debug, Clone)]
pub struct Health {
    pub status: Status,
    pub timestamp_ms: u64,
    /// A row was written durably and read back.
    pub database: Status,
    pub agent_registry: Status,
    pub total_agents: u64,
    pub connected_agents: u64,
    pub command_engine: Status,
    pub active_commands: u32,
    pub available_slots: u32,
    pub telemetry_processor: Status,
    pub samples_queued: u64,
    /// The services beside these four, by name.
    pub more: BTreeMap<&'static str, Service>,
}

impl Health {
    /// Every service by name, for the metrics.
    pub fn services(&self) -> impl Iterator<Item = (&'static str, Status)> {
        let four = [
            ("database", self.database),
            ("agent_registry", self.agent_registry),
            ("command_engine", self.command_engine),
            ("telemetry_processor", self.telemetry_processor),
        ];
        four.into_iter().chain(self.more.iter().map(|(name, service)| (*name, service.status)))
    }
}

/// The latest answer; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Kept(Arc<Mutex<Option<(Instant, Health)>>>);

impl AppState {
    /// How the backend fares; at most a second old.
    pub async fn health(&self) -> Health {
        // Locked while it is found out: those who ask meanwhile share the answer.
        let mut kept = self.kept_health.0.lock().await;
        if let Some((at, health)) = &*kept
            && at.elapsed() < KEPT
        {
            return health.clone();
        }
        let health = self.look().await;
        *kept = Some((Instant::now(), health.clone()));
        health
    }

    /// How it fares now.
    pub(crate) async fn look(&self) -> Health {
        // Side by side: two that are slow cost one deadline.
        let (probed, more) = tokio::join!(self.ready.look(), services::look(self));
        let (now, database) = (self.clock.now_ms(), probed.good());
        let runs = |task| self.background.state(task) == Some(TaskState::Running);
        let (engine, telemetry) = (self.engine.status(), self.telemetry.status());
        // Without its lease other instances take its sessions.
        let beating = self.cluster.is_beating();
        let registry = probed.agents.is_some() && runs("agents-port") && runs("sweeper") && beating;
        let command_engine =
            runs("settler") && runs("deliverer") && runs("expiry") && engine.settling_ms < STUCK_MS && database;
        let dropped = telemetry.dropped_ms > 0 && now.saturating_sub(telemetry.dropped_ms) < DROPPED_MS;
        let processor = runs("telemetry") && !dropped;
        let others = more.values().all(|service| service.status == Status::Healthy);
        Health {
            status: Status::of(database && registry && command_engine && processor && others),
            timestamp_ms: now,
            database: Status::of(database),
            agent_registry: Status::of(registry),
            total_agents: probed.agents.unwrap_or(0),
            connected_agents: self.hub.connected() as u64,
            command_engine: Status::of(command_engine),
            active_commands: engine.active_commands,
            available_slots: engine.available_slots,
            telemetry_processor: Status::of(processor),
            samples_queued: telemetry.queued as u64,
            more,
        }
    }
}

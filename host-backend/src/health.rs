//! What works and what does not, by service: by trying, not by believing. Kept for a
//! moment, so that whoever asks often costs nothing.

use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::app::AppState;
use crate::background::TaskState;

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
    fn of(good: bool) -> Self {
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
    /// Where it is configured.
    pub redis: Option<Status>,
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
        let now = self.clock.now_ms();
        let probe = async {
            let written = self.store.probe(now).await?;
            let read = self.store.probed().await?;
            // Another instance may have written since.
            Ok::<_, crate::store::StoreError>((read >= written, self.store.count_agents().await?))
        };
        let (database, total) = match tokio::time::timeout(WITHIN, probe).await {
            Ok(Ok((same, (total, _)))) => (same, Some(total)),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the database's probe failed");
                (false, None)
            }
            Err(_) => (false, None),
        };
        let runs = |task| self.background.state(task) == Some(TaskState::Running);
        let (engine, telemetry) = (self.engine.status(), self.telemetry.status());
        let registry = total.is_some() && runs("agents-port") && runs("sweeper");
        let command_engine =
            runs("settler") && runs("deliverer") && runs("expiry") && engine.settling_ms < STUCK_MS && database;
        let dropped = telemetry.dropped_ms > 0 && now.saturating_sub(telemetry.dropped_ms) < DROPPED_MS;
        let processor = runs("telemetry") && !dropped;
        let redis = self.cluster.redis_is_up();
        // Without its lease other instances take its sessions.
        let registry = registry && self.cluster.is_beating();
        Health {
            status: Status::of(database && registry && command_engine && processor && redis != Some(false)),
            timestamp_ms: now,
            database: Status::of(database),
            agent_registry: Status::of(registry),
            total_agents: total.unwrap_or(0),
            connected_agents: self.hub.connected() as u64,
            command_engine: Status::of(command_engine),
            active_commands: engine.active_commands,
            available_slots: engine.available_slots,
            telemetry_processor: Status::of(processor),
            samples_queued: telemetry.queued as u64,
            redis: redis.map(Status::of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::testing::{SOON, agent, sample};
    use viworks_signing::keys::SecretKey;

    async fn state(dir: &std::path::Path) -> AppState {
        let release_keys = dir.join("release.pub.pem");
        let pem = SecretKey::generate().public().to_pem().expect("PEM");
        std::fs::write(&release_keys, pem).expect("written");
        let config = Config { data_dir: dir.join("data"), release_keys, ..Config::default() };
        AppState::build(config).await.expect("built")
    }

    #[tokio::test]
    async fn what_does_not_work_is_degraded_and_the_rest_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = state(dir.path()).await;
        // No port was started, and no processor.
        let health = state.look().await;
        assert_eq!((health.database, health.command_engine), (Status::Healthy, Status::Healthy));
        assert_eq!((health.agent_registry, health.telemetry_processor), (Status::Degraded, Status::Degraded));
        assert_eq!(health.status, Status::Degraded);

        let of = state.clone();
        state
            .background
            .supervise("telemetry", move || of.telemetry.clone().run(of.store.clone(), of.background.token().clone()));
        assert_eq!(state.look().await.telemetry_processor, Status::Healthy);
        // More at once than the queue holds; nothing runs in between.
        for _ in 0..20_000 {
            state.telemetry.offer(&agent("a"), sample(1, 1.0));
        }
        assert_eq!(state.look().await.telemetry_processor, Status::Degraded, "samples are dropped");

        assert!(state.background.stop(SOON).await);
        assert_eq!(state.look().await.command_engine, Status::Degraded, "the engine has stopped");
        state.store.close().await;
        assert_eq!(state.look().await.database, Status::Degraded);
    }
}

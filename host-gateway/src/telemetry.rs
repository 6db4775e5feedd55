//! The host's health and the gateway's own, told to the backend at a fixed pace while there
//! is a session. Refuses to pile up: a sample that could not be sent is replaced.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::host::Host;
use crate::link::{Outgoing, Phase};
use crate::status::Vitals;

/// Sample every `every` from the first session on, until `stop`.
pub async fn run(
    every: Duration,
    clock: Clock,
    host: Arc<Host>,
    vitals: Vitals,
    outgoing: Outgoing,
    stop: CancellationToken,
) {
    let mut link = vitals.link().watch();
    if stop.run_until_cancelled(link.wait_for(|link| link.phase == Phase::Connected)).await.is_none() {
        return;
    }
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if vitals.link().status().phase != Phase::Connected {
            continue;
        }
        match host.system.sample(clock.now_ms(), vitals.sample()).await {
            Ok(sample) => outgoing.telemetry(sample),
            Err(error) => tracing::warn!(%error, "no health sample"),
        }
    }
}

//! What nobody answered in time: once a second, and only when the store says that
//! something is due.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use crate::background::every;
use crate::metrics::{Kind, Word};

const TICK: Duration = Duration::from_secs(1);

pub(super) async fn run(engine: Engine) {
    let stop = engine.inner.parts.background.token().clone();
    every(TICK, &stop, || async {
        if engine.inner.parts.cluster.leads("expiry").await {
            engine.expire_due().await;
        }
        engine.inner.events.tidy();
        engine.count_open().await;
    })
    .await;
}

impl Engine {
    /// Between two ticks only acceptance moves the number, so that it errs to the full side.
    async fn count_open(&self) {
        match self.store().count_open_commands().await {
            Ok(open) => self.inner.open.store(open, Ordering::Relaxed),
            Err(error) => tracing::error!(%error, "open commands can't be counted"),
        }
    }

    /// End what is past its time. A failure is tried again with the next tick.
    pub(super) async fn expire_due(&self) {
        loop {
            let now = self.now_ms();
            match self.store().next_due().await {
                Ok(Some(due)) if due <= now => {}
                Ok(_) => return,
                Err(error) => return tracing::error!(%error, "what is due can't be read"),
            }
            let expired = match self.store().expire(now, self.inner.parts.grace_ms).await {
                Ok(expired) => expired,
                Err(error) => return tracing::error!(%error, "expiry failed"),
            };
            for (kind, count) in [("expired", expired.expired), ("unknown", expired.unknown)] {
                if count > 0 {
                    let outcomes = &self.inner.parts.metrics.outcomes;
                    outcomes.get_or_create(&Kind { kind: Word(kind) }).inc_by(u64::from(count));
                }
            }
            let batched: Vec<_> = expired.commands.iter().filter(|c| c.batch.is_some()).map(|c| c.id.clone()).collect();
            self.changed(expired.commands);
            batched.iter().for_each(|command| self.refill(command));
            if !expired.more {
                return;
            }
        }
    }
}

//! Gateways' samples on their way into the store: a bounded queue that drops (and counts)
//! what does not fit, and times that can't be true replaced by the backend's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use viworks_protocol::id::AgentId;
use viworks_protocol::telemetry::Sample;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::write::Note;

const QUEUE: usize = 8_192;
const BATCH: usize = 1_024;
/// A sample is believed to be at most so old; and never from the future.
const OLDEST_MS: u64 = 60 * 60 * 1_000;

/// A handle; clones share the queue.
#[derive(Debug, Clone)]
pub struct Telemetry {
    queue: mpsc::Sender<(AgentId, Sample)>,
    drained: Arc<Mutex<mpsc::Receiver<(AgentId, Sample)>>>,
    dropped_ms: Arc<AtomicU64>,
    clock: Clock,
    metrics: Metrics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelemetryStatus {
    pub queued: usize,
    pub capacity: usize,
    /// When a sample was last dropped; 0 if none was.
    pub dropped_ms: u64,
}

impl Telemetry {
    #[must_use]
    pub fn new(clock: Clock, metrics: Metrics) -> Self {
        let (queue, drained) = mpsc::channel(QUEUE);
        Self { queue, drained: Arc::new(Mutex::new(drained)), dropped_ms: Arc::default(), clock, metrics }
    }

    /// Queue a sample, or count it as dropped.
    pub fn offer(&self, agent: &AgentId, sample: Sample) {
        if self.queue.try_send((agent.clone(), sample)).is_err() {
            self.metrics.samples_dropped.inc();
            self.dropped_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn status(&self) -> TelemetryStatus {
        TelemetryStatus {
            queued: self.queue.max_capacity() - self.queue.capacity(),
            capacity: self.queue.max_capacity(),
            dropped_ms: self.dropped_ms.load(Ordering::Relaxed),
        }
    }

    /// Move samples into the store until `stop`, and then what is left.
    pub async fn run(self, store: Store, stop: CancellationToken) {
        let mut drained = self.drained.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        while stop.run_until_cancelled(drained.recv_many(&mut batch, BATCH)).await.is_some() {
            self.hand_over(&store, &mut batch).await;
        }
        while let Ok(sample) = drained.try_recv() {
            batch.push(sample);
        }
        self.hand_over(&store, &mut batch).await;
    }

    async fn hand_over(&self, store: &Store, batch: &mut Vec<(AgentId, Sample)>) {
        let now = self.clock.now_ms();
        for (agent, sample) in batch.drain(..) {
            let at_ms = believed(sample.at_ms, now);
            let note = Note::Sample { agent, at_ms, sample: Box::new(Sample { at_ms, ..sample }) };
            match store.note(note).await {
                Ok(()) => drop(self.metrics.samples.inc()),
                Err(_) => drop(self.metrics.samples_dropped.inc()),
            }
        }
    }
}

fn believed(at_ms: u64, now_ms: u64) -> u64 {
    if (now_ms.saturating_sub(OLDEST_MS)..=now_ms).contains(&at_ms) { at_ms } else { now_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_times_are_replaced() {
        let now = 100 * OLDEST_MS;
        assert_eq!(believed(now - 5, now), now - 5);
        assert_eq!(believed(now + 1, now), now);
        assert_eq!(believed(now - OLDEST_MS - 1, now), now);
    }
}

//! Background tasks: every one is supervised (started again with growing pauses when it
//! panics, and counted), and all stop within a deadline.

use futures_util::FutureExt as _;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A task that ran so long has recovered: pauses begin short again.
const RECOVERED: Duration = Duration::from_secs(60);

/// How a task fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Running,
    /// It fell, and waits to be started again.
    Fallen,
    Stopped,
}

/// A handle; clones share the tasks.
#[derive(Debug, Clone)]
pub struct Background {
    tracker: TaskTracker,
    stop: CancellationToken,
    states: Arc<Mutex<BTreeMap<&'static str, TaskState>>>,
    metrics: Metrics,
}

impl Background {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), states: Arc::default(), metrics }
    }

    /// Cancelled when everything is to stop.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// For tasks that belong to a connection or a request: tracked, not started again.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Run what `make` makes until it returns; a panic starts it again.
    pub fn supervise<F>(&self, name: &'static str, make: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        this.set(name, TaskState::Running);
        self.tracker.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let started = tokio::time::Instant::now();
                if AssertUnwindSafe(make()).catch_unwind().await.is_ok() {
                    break;
                }
                Metrics::count(&this.metrics.restarts, name);
                this.set(name, TaskState::Fallen);
                if started.elapsed() >= RECOVERED {
                    pause = FIRST_PAUSE;
                }
                tracing::error!(task = name, ?pause, "a background task panicked and is started again");
                if this.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    break;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                this.set(name, TaskState::Running);
            }
            this.set(name, TaskState::Stopped);
        });
    }

    /// How a task fares; `None` if there is none of that name.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<TaskState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Tasks that have fallen and wait to be started again.
    #[must_use]
    pub fn not_running(&self) -> Vec<&'static str> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().filter(|(_, state)| **state == TaskState::Fallen).map(|(name, _)| *name).collect()
    }

    /// Stop everything; `false` when something was left running at the deadline.
    pub async fn stop(&self, within: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(within, self.tracker.wait()).await.is_ok()
    }

    fn set(&self, name: &'static str, state: TaskState) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(name, state);
    }
}

/// Do `work` every `every`, until `stop`. A run that takes longer delays the next.
pub async fn every<F: Future<Output = ()>>(every: Duration, stop: &CancellationToken, mut work: impl FnMut() -> F) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        work().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test(start_paused = true)]
    async fn a_panic_starts_it_again_and_is_counted() {
        let background = Background::new(Metrics::default());
        let (runs, up) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (counted, told, stop) = (runs.clone(), up.clone(), background.token().clone());
        background.supervise("falls", move || {
            let (runs, up, stop) = (counted.clone(), told.clone(), stop.clone());
            async move {
                assert!(runs.fetch_add(1, Ordering::SeqCst) >= 2, "falls twice");
                up.notify_one();
                stop.cancelled().await;
            }
        });
        assert!(tokio::time::timeout(Duration::from_secs(60), up.notified()).await.is_ok());
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(background.state("falls"), Some(TaskState::Running));
        assert!(background.stop(Duration::from_secs(1)).await);
        assert_eq!(background.state("falls"), Some(TaskState::Stopped));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_stop_is_told() {
        let background = Background::new(Metrics::default());
        background.supervise("stuck", std::future::pending);
        assert!(!background.stop(Duration::from_secs(1)).await);
    }
}

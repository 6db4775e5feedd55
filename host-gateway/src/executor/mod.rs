//! Runs warrants: at most so many at a time, a bounded queue before them, then `busy`.
//! Each runs once, however often it is delivered: changes by the journal, reads by
//! memory. Refuses what is not the active plugin's, and never dies with a task.
//!
//! [`Executor::submit`] answers at once; what becomes of a warrant arrives as [`Event`]s,
//! which `link` must always read, also while it has no session: reports are kept until
//! acknowledged, in the journal's outbox or here ([`Executor::unacknowledged`]).

mod effects;
mod metrics;
mod reads;
mod serve;
mod shadow;
mod timings;

pub use metrics::{Metrics, PHASES, WALL_BUCKETS_US};
pub use timings::Timings;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::outcome::Report;
use viworks_protocol::trace::TraceContext;
use viworks_protocol::warrant::VerifiedWarrant;
use viworks_signing::grant::Grant;

use crate::clock::Clock;
use crate::host::Host;
use crate::journal::Journal;
use crate::plugins::Registry;
use crate::recording::Recordings;
use crate::runtime::SHADOWS;
use reads::Reads;

/// Events that wait for `link`. Reports wait for room, progress does not.
const EVENTS: usize = 256;

/// How long a drain waits for invocations that it told to stop, effects included.
const STOP_GRACE: Duration = Duration::from_secs(12);

/// What becomes of invocations.
#[derive(Debug, Clone)]
pub enum Event {
    /// The gateway answers for it from now on.
    Accepted {
        invocation: InvocationId,
    },
    Progress {
        invocation: InvocationId,
        done: u32,
        total: Option<u32>,
        message: String,
    },
    /// It ended. Kept until [`Executor::acknowledge`] or the journal's acknowledgement.
    Report {
        invocation: InvocationId,
        report: Arc<Report>,
    },
}

#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    pub agent: AgentId,
    /// Invocations at the same time.
    pub max_concurrency: u32,
    /// Invocations that wait; one more is answered `busy`.
    pub queue: u32,
    /// No invocation runs longer.
    pub timeout: Duration,
    /// How long what a command did can be undone.
    pub undo_hours: u32,
}

/// Why a warrant was not taken. Nothing was done or claimed: the backend still has it
/// and delivers it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the gateway is stopping")]
    Draining,
    #[error("far more invocations at once than this gateway ever announced")]
    Overflow,
}

/// Cheap to clone; clones are the same executor.
#[derive(Debug, Clone)]
pub struct Executor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ExecutorConfig,
    registry: Arc<Registry>,
    host: Arc<Host>,
    journal: Journal,
    events: mpsc::Sender<Event>,
    slots: Semaphore,
    shadows: Arc<Semaphore>,
    /// How many wait for a slot.
    waiting: AtomicU32,
    live: Mutex<HashMap<InvocationId, Arc<Live>>>,
    reads: Mutex<Reads>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    draining: CancellationToken,
    clock: Clock,
    recordings: OnceLock<Recordings>,
}

/// An invocation that has not ended.
#[derive(Debug, Default)]
struct Live {
    cancel: CancellationToken,
    /// By an operator, not by the gateway's own stop.
    asked: AtomicBool,
    trace: Option<TraceContext>,
    timings: Timings,
}

impl Executor {
    /// An executor and the events that it will tell. Needs a tokio runtime to submit to.
    #[must_use]
    pub fn new(
        config: ExecutorConfig,
        registry: Arc<Registry>,
        host: Arc<Host>,
        journal: Journal,
        clock: Clock,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let inner = Inner {
            slots: Semaphore::new(config.max_concurrency.max(1) as usize),
            shadows: Arc::new(Semaphore::new(SHADOWS as usize)),
            config,
            registry,
            host,
            journal,
            events,
            waiting: AtomicU32::new(0),
            live: Mutex::default(),
            reads: Mutex::default(),
            metrics: Arc::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            clock,
            recordings: OnceLock::new(),
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// Record invocations from now on.
    pub fn record(&self, recordings: Recordings) {
        // A second one would have come from a second configuration: there is none.
        let _ = self.0.recordings.set(recordings);
    }

    /// Take a warrant. Never waits; a repetition of one that is live is accepted again.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn submit(&self, warrant: VerifiedWarrant) -> Result<(), Refused> {
        self.submit_traced(warrant, None)
    }

    /// The same, under a trace: a sampled one has the report tell how long each step took.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn submit_traced(&self, warrant: VerifiedWarrant, trace: Option<TraceContext>) -> Result<(), Refused> {
        if self.0.draining.is_cancelled() {
            return Err(Refused::Draining);
        }
        let live = {
            let mut live = lock(&self.0.live);
            if live.contains_key(warrant.invocation()) {
                self.0.metrics.duplicates.fetch_add(1, Ordering::Relaxed);
                // Full means that link has not yet read the first one.
                let _ = self.0.events.try_send(Event::Accepted { invocation: warrant.invocation().clone() });
                return Ok(());
            }
            if live.len() >= self.0.most_live() {
                self.0.metrics.overflows.fetch_add(1, Ordering::Relaxed);
                return Err(Refused::Overflow);
            }
            let entry = Arc::new(Live { timings: Timings::of(trace.as_ref()), trace, ..Live::default() });
            live.insert(warrant.invocation().clone(), entry.clone());
            entry
        };
        self.0.metrics.submitted.fetch_add(1, Ordering::Relaxed);
        self.0.tasks.spawn(serve::run(self.0.clone(), warrant, live));
        Ok(())
    }

    /// Ask an invocation to end. Whether there is one that has not ended.
    #[must_use]
    pub fn cancel(&self, invocation: &InvocationId) -> bool {
        let live = lock(&self.0.live).get(invocation).cloned();
        if let Some(live) = &live {
            live.asked.store(true, Ordering::Release);
            live.cancel.cancel();
        }
        live.is_some()
    }

    /// Whether an invocation is live, or its report in memory.
    #[must_use]
    pub fn knows(&self, invocation: &InvocationId) -> bool {
        lock(&self.0.live).contains_key(invocation) || lock(&self.0.reads).get(invocation).is_some()
    }

    /// Forget the report of an invocation that is not in the journal. Whether there was
    /// one; if not, the acknowledgement is the journal's.
    #[must_use]
    pub fn acknowledge(&self, invocation: &InvocationId) -> bool {
        lock(&self.0.reads).acknowledge(invocation)
    }

    /// Reports that are in memory only and not acknowledged, the oldest first: to be sent
    /// again when a session begins, beside the journal's.
    #[must_use]
    pub fn unacknowledged(&self) -> Vec<(InvocationId, Arc<Report>)> {
        lock(&self.0.reads).unacknowledged()
    }

    /// The host that invocations reach.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.0.host
    }

    /// Whether it takes nothing more.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Whether any active plugin is granted something of this kind.
    #[must_use]
    pub fn grants(&self, wanted: impl Fn(&Grant) -> bool) -> bool {
        self.0.registry.any(|plugin| wanted(plugin.grant()))
    }

    /// Whether the queue is full, so that one more is answered `busy`.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Take nothing more, end what waits, let what runs run for `grace`, then stop it.
    pub async fn drain(&self, grace: Duration) {
        self.0.draining.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(grace, self.0.tasks.wait()).await.is_ok() {
            return;
        }
        let live: Vec<Arc<Live>> = lock(&self.0.live).values().cloned().collect();
        tracing::warn!(invocations = live.len(), "stopping invocations that outlast the drain");
        live.iter().for_each(|live| live.cancel.cancel());
        if tokio::time::timeout(STOP_GRACE, self.0.tasks.wait()).await.is_err() {
            tracing::error!("invocations did not stop; the journal tells at the next start what they did");
        }
    }
}

impl Inner {
    /// Whether its queue has no room.
    fn is_full(&self) -> bool {
        self.config.queue > 0 && self.waiting.load(Ordering::Relaxed) >= self.config.queue
    }

    /// Running, waiting, and as many again that are being admitted or reported.
    fn most_live(&self) -> usize {
        2 * (self.config.max_concurrency as usize + self.config.queue as usize) + 64
    }
}

/// The data is consistent at every point where a holder could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

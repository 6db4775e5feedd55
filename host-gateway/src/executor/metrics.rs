//! Counters of the executor, for the status endpoint and telemetry. Plain atomics:
//! nothing here waits or allocates.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use viworks_protocol::outcome::{Outcome, Report};
use viworks_protocol::shadow::Verdict;

/// Upper bounds of the histogram of wall time, in microseconds; one more bucket is open.
pub const WALL_BUCKETS_US: [u64; 10] =
    [100, 250, 500, 1_000, 5_000, 25_000, 100_000, 1_000_000, 10_000_000, 60_000_000];

/// Phases of an invocation that are timed.
pub const PHASES: [&str; 4] = ["admission", "queue", "run", "report"];

/// A phase's histogram: microseconds, and counts by bucket, not cumulative.
#[derive(Debug, Default)]
pub struct Phase {
    pub us: AtomicU64,
    pub counts: [AtomicU64; 11],
}

impl Phase {
    fn add(&self, us: u64) {
        self.us.fetch_add(us, Ordering::Relaxed);
        let bucket = WALL_BUCKETS_US.iter().position(|le| us <= *le).unwrap_or(WALL_BUCKETS_US.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counters grow from the start; `running` and `queued` are as of now.
#[derive(Debug, Default)]
pub struct Metrics {
    pub submitted: AtomicU64,
    pub duplicates: AtomicU64,
    pub busy: AtomicU64,
    pub overflows: AtomicU64,
    pub running: AtomicU32,
    pub queued: AtomicU32,
    /// In the order of [`Outcome::ALL`].
    pub outcomes: [AtomicU64; 6],
    /// Plans of shadows, in the order of [`Verdict::ALL`].
    pub shadows: [AtomicU64; 4],
    /// Ended by a limit, a deadline, a trap; `failed` all of them.
    pub limits: AtomicU64,
    pub timeouts: AtomicU64,
    pub traps: AtomicU64,
    /// Refusals of the gate, several in one invocation counted apart.
    pub denials: AtomicU64,
    pub host_calls: AtomicU64,
    /// Tasks of the gateway that panicked: each is a defect.
    pub panics: AtomicU64,
    pub cpu_us: AtomicU64,
    pub wall_us: AtomicU64,
    /// Not cumulative; [`WALL_BUCKETS_US`] and one above.
    pub wall: [AtomicU64; 11],
    /// In the order of [`PHASES`].
    pub phases: [Phase; 4],
}

impl Metrics {
    /// A phase took so long.
    pub(super) fn phase(&self, name: &str, took: Duration) {
        if let Some(at) = PHASES.iter().position(|phase| *phase == name) {
            self.phases[at].add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn shadowed(&self, verdict: Verdict) {
        if let Some(counter) = Verdict::ALL.iter().position(|v| *v == verdict).and_then(|i| self.shadows.get(i)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn ended(&self, report: &Report) {
        let add = |counter: &AtomicU64, n: u64| counter.fetch_add(n, Ordering::Relaxed);
        if let Some(i) = Outcome::ALL.iter().position(|o| *o == report.outcome) {
            add(&self.outcomes[i], 1);
        }
        match report.failure.as_ref().map(|f| f.code.as_str()) {
            Some("limit") => add(&self.limits, 1),
            Some("timeout") => add(&self.timeouts, 1),
            Some("trap") => add(&self.traps, 1),
            Some("busy") => add(&self.busy, 1),
            _ => 0,
        };
        if report.started_ms == 0 {
            return;
        }
        let cost = &report.cost;
        add(&self.denials, cost.denials.into());
        add(&self.host_calls, cost.host_calls.into());
        add(&self.cpu_us, cost.cpu_us);
        add(&self.wall_us, cost.wall_us);
        let bucket = WALL_BUCKETS_US.iter().position(|le| cost.wall_us <= *le).unwrap_or(WALL_BUCKETS_US.len());
        add(&self.wall[bucket], 1);
    }
}

/// Counts one more as long as it lives.
pub(super) struct Gauge<'m>(&'m AtomicU32);

impl<'m> Gauge<'m> {
    pub(super) fn up(gauge: &'m AtomicU32) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

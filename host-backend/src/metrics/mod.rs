//! What the backend counts. Plain counters and histograms; the API writes them out.
//!
//! - [`latency`]: how long things take
//! - [`process`]: the process itself, read as it is asked for

mod latency;
pub(crate) mod process;

pub use latency::{Latencies, Latency};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::fmt;

/// One label, `kind`, of a closed list of words that the code holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(pub &'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    pub kind: Word,
}

/// Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Frames taken from gateways, by kind.
    pub frames: Family<Kind, Counter>,
    /// What was refused on the agents' port, by rule.
    pub refusals: Family<Kind, Counter>,
    pub sessions_opened: Counter,
    pub sessions_closed: Family<Kind, Counter>,
    pub commands_accepted: Counter,
    /// Commands refused because every slot was taken.
    pub commands_busy: Counter,
    /// Invocations sent, again or for the first time.
    pub deliveries: Counter,
    /// Settled invocations by outcome.
    pub outcomes: Family<Kind, Counter>,
    /// Results that had been settled before.
    pub duplicates: Counter,
    /// Receipts that verified and belong to their reports.
    pub receipts: Counter,
    /// What is wrong with receipts, by kind.
    pub receipt_faults: Family<Kind, Counter>,
    /// Anchors signed.
    pub anchors: Counter,
    pub samples: Counter,
    /// Samples dropped because the queue was full.
    pub samples_dropped: Counter,
    pub chunks: Counter,
    /// What rollouts did, by kind.
    pub rollouts: Family<Kind, Counter>,
    /// Plans of shadows, by verdict.
    pub shadows: Family<Kind, Counter>,
    /// Updates of the release repository, taken or refused.
    pub repository_updates: Family<Kind, Counter>,
    /// Messages between instances: in, out, lost, refused.
    pub bus_messages: Family<Kind, Counter>,
    pub redis_errors: Counter,
    /// Requests whose rate was counted in this process though Redis is configured.
    pub rates_here: Counter,
    /// Sessions taken over from other instances.
    pub sessions_taken_over: Counter,
    /// Background work that this instance took up.
    pub lease_takeovers: Counter,
    /// Instances that this one found dead.
    pub instances_buried: Counter,
    /// Times that a background task was started again, by task.
    pub restarts: Family<Kind, Counter>,
    /// Spans of traces, exported or dropped.
    pub spans: Family<Kind, Counter>,
    pub latencies: Latencies,
}

impl Metrics {
    /// Count one of `kind`.
    pub(crate) fn count(family: &Family<Kind, Counter>, kind: &'static str) {
        family.get_or_create(&Kind { kind: Word(kind) }).inc();
    }

    pub fn register(&self, registry: &mut Registry) {
        // There from the start, so that a first fault shows as a rise.
        for kind in ["signature", "report", "gap", "forked"] {
            drop(self.receipt_faults.get_or_create(&Kind { kind: Word(kind) }));
        }
        for (family, kinds) in [
            (&self.outcomes, &["succeeded", "failed", "denied", "cancelled", "expired", "unknown"][..]),
            (&self.rollouts, &["rolled_back", "succeeded"]),
            (&self.repository_updates, &["taken", "refused"]),
            (&self.refusals, &["foreign-invocation", "identity-mismatch", "certificate-revoked", "second-session"]),
            (&self.spans, &["exported", "dropped", "failed"]),
        ] {
            for kind in kinds {
                drop(family.get_or_create(&Kind { kind: Word(kind) }));
            }
        }
        let r = registry;
        r.register("frames", "Frames from gateways", self.frames.clone());
        r.register("refusals", "Refusals on the agents' port", self.refusals.clone());
        r.register("sessions_opened", "Agents' sessions opened", self.sessions_opened.clone());
        r.register("sessions_closed", "Agents' sessions closed", self.sessions_closed.clone());
        r.register("commands_accepted", "Commands accepted", self.commands_accepted.clone());
        r.register("commands_busy", "Commands refused for want of a slot", self.commands_busy.clone());
        r.register("deliveries", "Invocations sent to agents", self.deliveries.clone());
        r.register("outcomes", "Invocations settled", self.outcomes.clone());
        r.register("duplicates", "Results that were settled before", self.duplicates.clone());
        r.register("receipts", "Receipts taken", self.receipts.clone());
        r.register("receipt_faults", "Faults of receipts and their chains", self.receipt_faults.clone());
        r.register("anchors", "Anchors signed over chains of receipts", self.anchors.clone());
        r.register("samples", "Telemetry samples taken", self.samples.clone());
        r.register("samples_dropped", "Telemetry samples dropped", self.samples_dropped.clone());
        r.register("chunks", "Plugin chunks sent", self.chunks.clone());
        r.register("rollouts", "Steps of rollouts", self.rollouts.clone());
        r.register("shadows", "Plans of releases beside the active one", self.shadows.clone());
        r.register("repository_updates", "Updates of the release repository", self.repository_updates.clone());
        r.register("spans", "Spans of traces", self.spans.clone());
        self.latencies.register(r);
        for kind in ["in", "out", "lost", "refused"] {
            drop(self.bus_messages.get_or_create(&Kind { kind: Word(kind) }));
        }
        r.register("bus_messages", "Messages between instances", self.bus_messages.clone());
        r.register("redis_errors", "Failures of Redis", self.redis_errors.clone());
        r.register("rates_here", "Requests counted here while Redis was gone", self.rates_here.clone());
        r.register("sessions_taken_over", "Sessions taken over from others", self.sessions_taken_over.clone());
        r.register("lease_takeovers", "Background work taken up", self.lease_takeovers.clone());
        r.register("instances_buried", "Instances found dead", self.instances_buried.clone());
        r.register("task_restarts", "Background tasks started again", self.restarts.clone());
    }
}

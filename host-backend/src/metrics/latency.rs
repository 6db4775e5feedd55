//! How long things take: histograms in seconds. A verb becomes a label until there are too
//! many; the rest is `other`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Kind, Word};

/// From a commit to the longest wait for an absent agent.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0];

/// Verbs that are labels of their own.
const MAX_VERBS: usize = 100;

/// What is timed, without the verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// From an accepted request to its durable command.
    Accept,
    /// From a durable command to each frame that was handed to a session.
    Delivery,
    /// From a result that came to its commit.
    ResultCommit,
    /// From a durable command to its end.
    Settle,
    /// From a TCP connection to an agent's admitted session.
    Handshake,
}

impl Latency {
    const ALL: [Self; 5] = [Self::Accept, Self::Delivery, Self::ResultCommit, Self::Settle, Self::Handshake];

    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Accept => ("command_accept_duration_seconds", "From a checked request to its durable command"),
            Self::Delivery => ("delivery_duration_seconds", "From a durable command to the frame for one agent"),
            Self::ResultCommit => ("result_commit_duration_seconds", "From a result that came to its commit"),
            Self::Settle => ("command_settle_duration_seconds", "From a durable command to its end"),
            Self::Handshake => ("handshake_duration_seconds", "From a connection to an admitted session"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    verb: String,
    phase: Word,
}

/// Clones share their values.
#[derive(Debug, Clone)]
pub struct Latencies {
    plain: [Histogram; 5],
    invocations: Family<Phase, Histogram, fn() -> Histogram>,
    verbs: Arc<Mutex<BTreeSet<String>>>,
    /// Closed sessions by how long they lasted, by reason.
    sessions: Family<Kind, Histogram, fn() -> Histogram>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            plain: std::array::from_fn(|_| Histogram::new(SECONDS)),
            invocations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            verbs: Arc::default(),
            sessions: Family::new_with_constructor(|| {
                Histogram::new([1.0, 10.0, 60.0, 600.0, 3_600.0, 86_400.0, 604_800.0])
            }),
        }
    }
}

impl Latencies {
    pub fn observe(&self, what: Latency, took: Duration) {
        self.plain[what as usize].observe(took.as_secs_f64());
    }

    /// Between two of the backend's own times, in milliseconds.
    pub fn observe_ms(&self, what: Latency, from_ms: u64, to_ms: u64) {
        self.observe(what, Duration::from_millis(to_ms.saturating_sub(from_ms)));
    }

    /// One phase of an invocation, in microseconds as its gateway reports it.
    pub fn invocation(&self, verb: &str, phase: &'static str, us: u64) {
        let labels = Phase { verb: self.verb(verb), phase: Word(phase) };
        self.invocations.get_or_create(&labels).observe(Duration::from_micros(us).as_secs_f64());
    }

    pub fn session(&self, reason: &'static str, lasted: Duration) {
        self.sessions.get_or_create(&Kind { kind: Word(reason) }).observe(lasted.as_secs_f64());
    }

    fn verb(&self, verb: &str) -> String {
        let mut verbs = self.verbs.lock().unwrap_or_else(PoisonError::into_inner);
        if verbs.contains(verb) || (verbs.len() < MAX_VERBS && verbs.insert(verb.to_owned())) {
            verb.to_owned()
        } else {
            "other".to_owned()
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        for (what, histogram) in Latency::ALL.iter().zip(&self.plain) {
            let (name, help) = what.name();
            registry.register(name, help, histogram.clone());
        }
        let help = "Invocations by verb and phase, as their gateways report them";
        registry.register("invocation_duration_seconds", help, self.invocations.clone());
        registry.register("session_duration_seconds", "Agents' sessions that ended, by reason", self.sessions.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_beyond_the_bound_share_a_label() {
        let latencies = Latencies::default();
        for n in 0..MAX_VERBS + 50 {
            latencies.invocation(&format!("verb_{n}"), "run", 1_000);
        }
        assert_eq!(latencies.verb("verb_0"), "verb_0");
        assert_eq!(latencies.verb("verb_149"), "other");
        assert_eq!(latencies.verbs.lock().map(|v| v.len()).ok(), Some(MAX_VERBS));
    }

    #[test]
    fn each_has_its_place() {
        for (n, what) in Latency::ALL.iter().enumerate() {
            assert_eq!(*what as usize, n);
        }
    }
}

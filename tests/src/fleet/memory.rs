//! What a simulated gateway keeps between sessions: what it did, until long after it was acknowledged, and
//! how often it failed to connect.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use viworks_protocol::id::InvocationId;

/// Invocations that are remembered; the oldest goes first.
const REMEMBERED: usize = 4_096;

/// As in the gateway.
const BASE: Duration = Duration::from_millis(500);
const CAP: Duration = Duration::from_secs(60);
const STABLE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The result's frame, and whether it was acknowledged.
    done: HashMap<InvocationId, (String, bool)>,
    order: VecDeque<InvocationId>,
}

impl Memory {
    pub fn known(&self, invocation: &InvocationId) -> Option<String> {
        self.done.get(invocation).map(|(text, _)| text.clone())
    }

    pub fn did(&mut self, invocation: InvocationId, text: String) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.done.remove(&oldest);
        }
        self.order.push_back(invocation.clone());
        self.done.insert(invocation, (text, false));
    }

    pub fn acknowledged(&mut self, invocation: &InvocationId) {
        if let Some((_, acknowledged)) = self.done.get_mut(invocation) {
            *acknowledged = true;
        }
    }

    /// To be said again in a new session.
    pub fn unacknowledged(&self) -> Vec<String> {
        let waiting = self.order.iter().filter_map(|id| self.done.get(id));
        waiting.filter(|(_, acknowledged)| !acknowledged).map(|(text, _)| text.clone()).collect()
    }
}

/// The pause between two attempts: full jitter, and what the backend asks for before it.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
}

impl Pause {
    pub fn next(&mut self, lasted: Duration, asked: Option<Duration>) -> Duration {
        if lasted >= STABLE {
            self.failures = 0;
        }
        let bound = BASE.saturating_mul(1 << self.failures.min(20)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        let asked = asked.unwrap_or_default();
        asked + bound.max(asked.min(CAP)).mul_f64(rand::random())
    }
}

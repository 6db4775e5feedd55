//! Which grants an invocation used and which rules refused it: noted by its gate, read by
//! its receipt. Bounded: capabilities are few, and rules are cut off at a receipt's room.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use viworks_protocol::receipt::{MAX_DENIED, Receipt};

/// Longer rules are cut: a guest's arguments never get in, but a host's patterns may.
const MAX_RULE: usize = 128;

/// Shared between an invocation's gate and whoever writes its receipt. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Uses(Arc<Mutex<Used>>);

/// What was used and refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    pub granted: BTreeSet<String>,
    pub denied: BTreeSet<String>,
}

impl Uses {
    /// Something of `capability` passed the gate.
    pub fn granted(&self, capability: &str) {
        let mut used = self.lock();
        if !used.granted.contains(capability) {
            used.granted.insert(capability.to_owned());
        }
    }

    /// `rule` refused something.
    pub fn denied(&self, rule: &str) {
        let mut used = self.lock();
        if used.denied.len() < MAX_DENIED {
            used.denied.insert(rule[..rule.floor_char_boundary(MAX_RULE)].to_owned());
        }
    }

    #[must_use]
    pub fn so_far(&self) -> Used {
        self.lock().clone()
    }

    /// Each change is one insertion: there is no half-made state to fear.
    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    /// Put it into a receipt.
    pub fn fill(&self, receipt: &mut Receipt) {
        receipt.granted = self.granted.iter().cloned().collect();
        receipt.denied = self.denied.iter().cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_bounded_in_number_and_length() {
        let uses = Uses::default();
        for n in 0..100 {
            uses.denied(&format!("policy: accounts.groups {n:03} {}", "ü".repeat(500)));
            uses.granted("accounts");
        }
        let used = uses.so_far();
        assert_eq!((used.granted.len(), used.denied.len()), (1, MAX_DENIED));
        assert!(used.denied.iter().all(|rule| rule.len() <= MAX_RULE));
    }
}

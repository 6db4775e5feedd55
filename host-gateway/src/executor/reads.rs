//! Reports of invocations that are not journaled: reads, and refusals that changed
//! nothing. Kept until acknowledged, so that a repetition is answered and not run again.
//! Refuses more than it has room for; losing one would lose a result.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::Report;

/// Reports, and bytes of all of them, that are kept at most. What runs already may go
/// past it by its own report.
const MAX_REPORTS: usize = 1_024;
const MAX_BYTES: usize = 32 << 20;

#[derive(Debug, Default)]
pub(super) struct Reads {
    reports: HashMap<InvocationId, Arc<Report>>,
    /// In the order of their ends; acknowledged ones are skipped.
    order: VecDeque<InvocationId>,
    bytes: usize,
}

impl Reads {
    pub(super) fn get(&self, invocation: &InvocationId) -> Option<Arc<Report>> {
        self.reports.get(invocation).cloned()
    }

    /// Whether one more may begin.
    pub(super) fn has_room(&self) -> bool {
        self.reports.len() < MAX_REPORTS && self.bytes < MAX_BYTES
    }

    pub(super) fn keep(&mut self, invocation: InvocationId, report: Arc<Report>) {
        self.bytes += size(&report);
        if let Some(replaced) = self.reports.insert(invocation.clone(), report) {
            self.bytes -= size(&replaced);
        } else {
            self.order.push_back(invocation);
        }
    }

    pub(super) fn acknowledge(&mut self, invocation: &InvocationId) -> bool {
        let Some(report) = self.reports.remove(invocation) else { return false };
        self.bytes -= size(&report);
        while self.order.front().is_some_and(|oldest| !self.reports.contains_key(oldest)) {
            self.order.pop_front();
        }
        // Acknowledged out of order behind one that never is: don't let them pile up.
        if self.order.len() > 2 * MAX_REPORTS {
            self.order.retain(|id| self.reports.contains_key(id));
        }
        true
    }

    pub(super) fn unacknowledged(&self) -> Vec<(InvocationId, Arc<Report>)> {
        self.order.iter().filter_map(|id| Some((id.clone(), self.reports.get(id)?.clone()))).collect()
    }
}

fn size(report: &Report) -> usize {
    let result = report.result.as_ref().map_or(0, |r| r.get().len());
    let log: usize = report.log.iter().map(|line| line.message.len() + 64).sum();
    1024 + result + log
}

#[cfg(test)]
mod tests {
    use super::*;
    use viworks_protocol::outcome::Outcome;

    fn id(n: usize) -> InvocationId {
        match format!("inv-{n:032x}").parse() {
            Ok(id) => id,
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn it_is_full_until_acknowledged() {
        let mut reads = Reads::default();
        let report = Arc::new(Report::refused(Outcome::Failed, "x", "y", 0));
        for n in 0..MAX_REPORTS {
            assert!(reads.has_room());
            reads.keep(id(n), report.clone());
        }
        assert!(!reads.has_room());
        assert!(reads.acknowledge(&id(7)) && !reads.acknowledge(&id(7)));
        assert!(reads.has_room() && reads.get(&id(7)).is_none());
        let left = reads.unacknowledged();
        assert_eq!((left.len(), &left[0].0, &left[7].0), (MAX_REPORTS - 1, &id(0), &id(8)));
        for n in 0..MAX_REPORTS {
            let _ = reads.acknowledge(&id(n));
        }
        assert_eq!((reads.bytes, reads.order.len()), (0, 0));
    }
}

//! Progress of running invocations on its way out: the newest of each invocation, at a
//! pace that the backend takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use viworks_protocol::id::InvocationId;

/// Between two reports of one invocation.
const PAUSE: Duration = Duration::from_millis(250);

/// Invocations that report at a time; what comes on top is not shown.
const MAX: usize = 512;

/// A message is cut here, so that the frame keeps its bound.
const MAX_MESSAGE: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) done: u32,
    pub(super) total: Option<u32>,
    pub(super) message: String,
}

#[derive(Debug)]
struct Slot {
    newest: Option<Step>,
    /// When the next may go.
    due: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    slots: BTreeMap<InvocationId, Slot>,
}

impl Progress {
    pub(super) fn put(&mut self, invocation: InvocationId, mut step: Step, now: Instant) {
        if step.message.len() > MAX_MESSAGE {
            step.message.truncate(step.message.floor_char_boundary(MAX_MESSAGE));
        }
        if let Some(slot) = self.slots.get_mut(&invocation) {
            slot.newest = Some(step);
        } else if self.slots.len() < MAX {
            self.slots.insert(invocation, Slot { newest: Some(step), due: now });
        }
    }

    /// One that may go now.
    pub(super) fn take(&mut self, now: Instant) -> Option<(InvocationId, Step)> {
        let due = self.slots.iter_mut().find(|(_, slot)| slot.newest.is_some() && slot.due <= now);
        due.and_then(|(invocation, slot)| {
            slot.due = now + PAUSE;
            slot.newest.take().map(|step| (invocation.clone(), step))
        })
    }

    /// When the next may go.
    pub(super) fn due(&self) -> Option<Instant> {
        self.slots.values().filter(|slot| slot.newest.is_some()).map(|slot| slot.due).min()
    }

    /// The invocation ended: nothing more about it.
    pub(super) fn remove(&mut self, invocation: &InvocationId) {
        self.slots.remove(invocation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(done: u32) -> Step {
        Step { done, total: Some(9), message: String::new() }
    }

    #[test]
    fn the_newest_goes_at_its_pace() {
        let id: InvocationId = format!("inv-{:032x}", 1).parse().unwrap();
        let start = Instant::now();
        let mut progress = Progress::default();
        progress.put(id.clone(), step(1), start);
        assert_eq!(progress.take(start), Some((id.clone(), step(1))));
        progress.put(id.clone(), step(2), start);
        progress.put(id.clone(), step(3), start);
        assert_eq!(progress.take(start), None);
        assert_eq!(progress.due(), Some(start + PAUSE));
        assert_eq!(progress.take(start + PAUSE), Some((id.clone(), step(3))));
        progress.put(id.clone(), step(4), start);
        progress.remove(&id);
        assert_eq!((progress.take(start + 9 * PAUSE), progress.due()), (None, None));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let id: InvocationId = format!("inv-{:032x}", 1).parse().unwrap();
        let mut progress = Progress::default();
        progress.put(id, Step { message: "ü".repeat(1_000), ..step(1) }, Instant::now());
        let Some((_, step)) = progress.take(Instant::now()) else { panic!("due") };
        assert_eq!(step.message, "ü".repeat(MAX_MESSAGE / 2));
    }
}

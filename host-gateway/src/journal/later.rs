//! What need not be durable at once: it waits for the next commit, at most for a moment.
//! That an invocation was admitted matters only once an effect is intended, and an effect's
//! result only tells a recovery what it would otherwise ask the host; so a verb with one
//! effect costs two commits. Refuses to pile up: what is too much is committed at once.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use viworks_protocol::id::InvocationId;

use super::Admission;
use super::store::Store;

/// How long most writes wait for a commit to go with.
pub(super) const SOON: Duration = Duration::from_millis(20);

/// How long an acknowledgement waits: a lost one costs one more delivery and nothing else.
const EVENTUALLY: Duration = Duration::from_secs(1);

/// More than these are not kept waiting.
const MAX: usize = 1_024;

/// One write that waits. Runs inside a transaction, perhaps twice.
pub(super) type Write = Box<dyn FnMut(&Store) -> rusqlite::Result<()> + Send>;

/// What waits, in the order in which it came.
#[derive(Default)]
pub(super) struct Waiting {
    writes: Vec<Write>,
    admitted: HashSet<InvocationId>,
    acknowledged: HashSet<InvocationId>,
    due: Option<Instant>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.writes.len() >= MAX
    }

    /// When it has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Reports whose acknowledgement waits.
    pub(super) fn acknowledged(&self) -> u32 {
        u32::try_from(self.acknowledged.len()).unwrap_or(u32::MAX)
    }

    /// Let an invocation in, unless it is known.
    pub(super) fn admit(
        &mut self,
        store: &Store,
        id: InvocationId,
        forget_after_ms: u64,
        draft: Option<String>,
    ) -> rusqlite::Result<Admission> {
        if self.admitted.contains(&id) {
            return Ok(Admission::Running);
        }
        if let Some(known) = store.known(&id)? {
            return Ok(known);
        }
        self.admitted.insert(id.clone());
        self.push(Box::new(move |store| store.admit(&id, forget_after_ms, draft.as_deref())), SOON);
        Ok(Admission::Fresh)
    }

    pub(super) fn acknowledge(&mut self, store: &Store, id: InvocationId) -> rusqlite::Result<()> {
        if store.is_owed(&id)? && self.acknowledged.insert(id.clone()) {
            self.push(Box::new(move |store| store.acknowledge(&id)), EVENTUALLY);
        }
        Ok(())
    }

    pub(super) fn push(&mut self, write: Write, wait: Duration) {
        let due = Instant::now() + wait;
        self.due = Some(self.due.map_or(due, |sooner| sooner.min(due)));
        self.writes.push(write);
    }

    /// Write it all, within the transaction that is open.
    pub(super) fn write(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.writes.iter_mut().try_for_each(|write| write(store))
    }

    /// Take it out: it is durable, or to be written one by one.
    pub(super) fn take(&mut self) -> Vec<Write> {
        std::mem::take(self).writes
    }
}

//! The journal's thread: takes everything that waits, runs it in one transaction, commits
//! once and then answers all. Refuses to let one bad request spoil the others' commit.

use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};

use super::store::Store;
use super::{Gauges, JournalError};

/// The most requests in one transaction.
const GROUP: usize = 256;

/// One request: runs inside a transaction, perhaps twice, and is answered after its commit.
pub(super) trait Step: Send {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), JournalError>);
}

/// A [`Step`] made of a closure.
pub(super) struct Task<T, F> {
    work: F,
    value: Option<T>,
    answer: oneshot::Sender<Result<T, JournalError>>,
}

impl<T, F> Task<T, F> {
    pub(super) fn new(work: F, answer: oneshot::Sender<Result<T, JournalError>>) -> Self {
        Self { work, value: None, answer }
    }
}

impl<T: Send, F: FnMut(&Store) -> rusqlite::Result<T> + Send> Step for Task<T, F> {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.value = Some((self.work)(store)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), JournalError>) {
        let value = self.value;
        // Nobody waits for an acknowledgement; a caller that was cancelled is gone.
        let _ = self.answer.send(committed.and_then(|()| value.ok_or(JournalError::Stopped)));
    }
}

/// Serve until every handle is gone and the queue is empty.
pub(super) fn run(store: &Store, mut requests: mpsc::Receiver<Box<dyn Step>>, gauges: &Gauges) {
    let mut group: Vec<Box<dyn Step>> = Vec::with_capacity(GROUP);
    gauges.note(store, &Ok(()));
    while requests.blocking_recv_many(&mut group, GROUP) > 0 {
        let committed = transaction(store, &mut group);
        gauges.note(store, &committed);
        match committed {
            Ok(()) => group.drain(..).for_each(|step| step.answer(Ok(()))),
            Err(_) if group.len() > 1 => {
                // Who spoiled it? Each gets a transaction of its own and its own answer.
                for step in group.drain(..) {
                    let mut alone = [step];
                    let committed = transaction(store, &mut alone);
                    gauges.note(store, &committed);
                    let [step] = alone;
                    step.answer(committed);
                }
            }
            Err(error) => group.drain(..).for_each(|step| step.answer(Err(error.clone()))),
        }
    }
}

fn transaction(store: &Store, group: &mut [Box<dyn Step>]) -> Result<(), JournalError> {
    let done = store.transaction(|| group.iter_mut().try_for_each(|step| step.run(store)));
    done.map_err(JournalError::from)
}

impl Gauges {
    fn note(&self, store: &Store, committed: &Result<(), JournalError>) {
        if let Ok(owed) = store.owed() {
            self.owed.store(owed, Ordering::Relaxed);
        }
        let fault = committed.as_ref().err().cloned();
        if let Ok(mut last) = self.fault.lock() {
            if let (Some(error), None) = (&fault, last.as_ref()) {
                tracing::error!(%error, "the journal can't be written: verbs that change the host are refused");
            } else if fault.is_none() && last.is_some() {
                tracing::info!("the journal can be written again");
            }
            *last = fault;
        }
    }
}

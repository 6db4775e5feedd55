//! The journal's thread: takes everything that waits, runs it in one transaction, commits
//! once and then answers all. What may wait for a later commit ([`Later`](super::later)) is
//! answered at once. Refuses to let one bad request spoil the others' commit.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use viworks_protocol::id::InvocationId;

use super::later::{SOON, Waiting, Write};
use super::store::Store;
use super::{Admission, Gauges, JournalError, hook};

/// The most requests in one transaction.
const GROUP: usize = 256;

/// What the thread is asked for.
pub(super) enum Request {
    /// In a commit of now.
    Now(Box<dyn Step>),
    Admit {
        id: InvocationId,
        forget_after_ms: u64,
        draft: Option<String>,
        answer: oneshot::Sender<Result<Admission, JournalError>>,
    },
    /// With what comes next, or within a moment; nobody waits for it.
    Later(Write),
    Acknowledge {
        id: InvocationId,
    },
}

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
        // A caller that was cancelled is gone.
        let _ = self.answer.send(committed.and_then(|()| value.ok_or(JournalError::Stopped)));
    }
}

/// The thread's own state.
struct Writer<'j> {
    store: &'j Store,
    gauges: &'j Gauges,
    waiting: Waiting,
}

/// Serve until every handle is gone and the queue is empty.
pub(super) fn run(store: &Store, requests: mpsc::Receiver<Request>, gauges: &Gauges) {
    let mut writer = Writer { store, gauges, waiting: Waiting::default() };
    writer.note(&Ok(()));
    // Only its clock is used: what waits is committed even if nothing more comes.
    match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(clock) => clock.block_on(writer.serve(requests)),
        Err(error) => tracing::error!(%error, "the journal's thread has no clock"),
    }
}

impl Writer<'_> {
    async fn serve(&mut self, mut requests: mpsc::Receiver<Request>) {
        let mut group: Vec<Request> = Vec::with_capacity(GROUP);
        let mut steps: Vec<Box<dyn Step>> = Vec::with_capacity(GROUP);
        loop {
            let received = match self.waiting.due() {
                None => requests.recv_many(&mut group, GROUP).await,
                Some(due) => match tokio::time::timeout_at(due.into(), requests.recv_many(&mut group, GROUP)).await {
                    Ok(received) => received,
                    Err(_) => {
                        self.commit(&mut Vec::new());
                        continue;
                    }
                },
            };
            if received == 0 {
                self.commit(&mut Vec::new());
                return;
            }
            for request in group.drain(..) {
                steps.extend(self.take(request));
            }
            let due = self.waiting.due().is_some_and(|due| due <= Instant::now());
            if !steps.is_empty() || due || self.waiting.is_full() {
                self.commit(&mut steps);
            }
        }
    }

    /// Answer what may wait; give back what may not.
    fn take(&mut self, request: Request) -> Option<Box<dyn Step>> {
        match request {
            Request::Now(step) => return Some(step),
            Request::Admit { id, forget_after_ms, draft, answer } => {
                let failing = self.gauges.fault.lock().ok().and_then(|fault| fault.clone());
                if failing.is_some() {
                    // Does it still fail? Ask the disk, rather than let a verb begin.
                    self.commit(&mut vec![Box::new(Probe)]);
                }
                let fault = self.gauges.fault.lock().ok().and_then(|fault| fault.clone());
                let admitted = match fault {
                    Some(fault) => Err(fault),
                    None => self.waiting.admit(self.store, id, forget_after_ms, draft).map_err(JournalError::from),
                };
                let _ = answer.send(admitted);
            }
            Request::Later(write) => self.waiting.push(write, SOON),
            Request::Acknowledge { id } => {
                if let Err(error) = self.waiting.acknowledge(self.store, id) {
                    tracing::debug!(%error, "an acknowledgement is lost; the report goes again");
                }
                let owed = self.store.owed().unwrap_or_default();
                self.gauges.owed.store(owed.saturating_sub(self.waiting.acknowledged()), Ordering::Relaxed);
            }
        }
        None
    }

    /// Commit what waits and these steps together; if that fails, each by itself.
    fn commit(&mut self, steps: &mut Vec<Box<dyn Step>>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let committed = self.transaction(|store| {
            waiting.write(store)?;
            steps.iter_mut().try_for_each(|step| step.run(store))
        });
        match committed {
            Ok(()) => {
                steps.drain(..).for_each(|step| step.answer(Ok(())));
            }
            Err(error) if waiting.is_empty() && steps.len() <= 1 => {
                steps.drain(..).for_each(|step| step.answer(Err(error.clone())));
            }
            Err(_) => {
                // Who spoiled it? Each gets a transaction of its own and its own answer.
                for mut write in waiting.take() {
                    if let Err(error) = self.transaction(|store| write(store)) {
                        tracing::error!(%error, "the journal lost a write");
                    }
                }
                for mut step in steps.drain(..) {
                    let committed = self.transaction(|store| step.run(store));
                    step.answer(committed);
                }
            }
        }
        self.note_owed();
    }

    fn transaction(&self, work: impl FnOnce(&Store) -> rusqlite::Result<()>) -> Result<(), JournalError> {
        let before = self.store.changes();
        let mut writes = false;
        let done = self.store.transaction(|| {
            work(self.store)?;
            writes = self.store.changes() != before;
            if writes {
                hook::reached("before-commit");
            }
            Ok(())
        });
        if writes && done.is_ok() {
            self.gauges.commits.fetch_add(1, Ordering::Relaxed);
            hook::reached("after-commit");
        }
        let done = done.map_err(JournalError::from);
        self.note(&done);
        done
    }

    fn note(&self, committed: &Result<(), JournalError>) {
        let fault = committed.as_ref().err().cloned();
        if let Ok(mut last) = self.gauges.fault.lock() {
            if let (Some(error), None) = (&fault, last.as_ref()) {
                tracing::error!(%error, "the journal can't be written: verbs that change the host are refused");
            } else if fault.is_none() && last.is_some() {
                tracing::info!("the journal can be written again");
            }
            *last = fault;
        }
        self.note_owed();
    }

    fn note_owed(&self) {
        if let Ok(owed) = self.store.owed() {
            self.gauges.owed.store(owed.saturating_sub(self.waiting.acknowledged()), Ordering::Relaxed);
        }
    }
}

/// Writes something that changes nothing, to see whether writing works.
struct Probe;

impl Step for Probe {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        store.probe()
    }

    fn answer(self: Box<Self>, _: Result<(), JournalError>) {}
}

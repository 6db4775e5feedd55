//! The writer: one task, one connection, two bounded queues. Everything waiting goes into
//! one transaction (group commit), so that a commit's cost is shared. When a group fails,
//! each of its members is tried alone: one bad change harms no other.

use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::sqlite::Writable;
use super::write::{Answer, Note, Op};
use super::{Backlog, NOTE_DELAY, StoreError};

const OPS: usize = 1_024;
const NOTES: usize = 16_384;
const OPS_A_COMMIT: usize = 256;
const NOTES_A_COMMIT: usize = 8_192;
/// How long an operation waits for a place in the queue.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);

type Reply = oneshot::Sender<Result<Answer, StoreError>>;

#[derive(Debug, Clone)]
pub(crate) struct Writer {
    ops: mpsc::Sender<(Op, Reply)>,
    notes: mpsc::Sender<Note>,
    stop: CancellationToken,
    tracker: TaskTracker,
    restarts: Arc<AtomicU64>,
}

impl Writer {
    pub(crate) fn start(writable: Writable) -> Self {
        let (ops, ops_in) = mpsc::channel(OPS);
        let (notes, notes_in) = mpsc::channel(NOTES);
        let (stop, tracker, restarts) = (CancellationToken::new(), TaskTracker::new(), Arc::new(AtomicU64::new(0)));
        let queues = Queues { ops: ops_in, notes: notes_in, stop: stop.clone() };
        tracker.spawn(keep_running(writable, queues, restarts.clone()));
        tracker.close();
        Self { ops, notes, stop, tracker, restarts }
    }

    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.wait().await;
    }

    pub(crate) fn backlog(&self) -> Backlog {
        Backlog {
            ops: self.ops.max_capacity() - self.ops.capacity(),
            notes: self.notes.max_capacity() - self.notes.capacity(),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }

    pub(crate) async fn op(&self, op: Op, reply: Reply) -> Result<(), StoreError> {
        match tokio::time::timeout(PLACE_TIMEOUT, self.ops.send((op, reply))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::Busy),
        }
    }

    pub(crate) async fn note(&self, note: Note) -> Result<(), StoreError> {
        self.notes.send(note).await.map_err(|_| StoreError::Closed)
    }

    pub(crate) fn try_note(&self, note: Note) -> Result<(), StoreError> {
        self.notes.try_send(note).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })
    }
}

struct Queues {
    ops: mpsc::Receiver<(Op, Reply)>,
    notes: mpsc::Receiver<Note>,
    stop: CancellationToken,
}

/// Run until stopped; a panic costs the group at hand and a new connection.
async fn keep_running(mut writable: Writable, mut queues: Queues, restarts: Arc<AtomicU64>) {
    loop {
        match AssertUnwindSafe(run(&mut writable, &mut queues)).catch_unwind().await {
            Ok(()) => break,
            Err(_) => {
                restarts.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the store's writer panicked and is started again");
                tokio::time::sleep(Duration::from_millis(200)).await;
                if let Err(error) = writable.reopen().await {
                    tracing::error!(%error, "the database can't be opened again");
                }
            }
        }
    }
    writable.close().await;
}

async fn run(writable: &mut Writable, queues: &mut Queues) {
    let mut jobs = Vec::with_capacity(OPS_A_COMMIT);
    let mut notes = Vec::new();
    let mut notes_due: Option<Instant> = None;
    loop {
        let due = notes_due.unwrap_or_else(|| Instant::now() + NOTE_DELAY);
        let room = NOTES_A_COMMIT - notes.len();
        tokio::select! {
            biased;
            count = queues.ops.recv_many(&mut jobs, OPS_A_COMMIT) => {
                if count == 0 {
                    return;
                }
                if jobs.iter().any(|(op, _)| matches!(op, Op::Flush)) {
                    drain_notes(writable, &mut queues.notes, &mut notes).await;
                    notes_due = None;
                }
                commit(writable, &mut jobs).await;
            }
            count = queues.notes.recv_many(&mut notes, room), if room > 0 => {
                if count > 0 && notes_due.is_none() {
                    notes_due = Some(Instant::now() + NOTE_DELAY);
                }
            }
            () = tokio::time::sleep_until(due), if notes_due.is_some() => {}
            () = queues.stop.cancelled() => break,
        }
        // Not in the select alone: a steady stream of operations must not starve them.
        if notes.len() == NOTES_A_COMMIT || notes_due.is_some_and(|due| Instant::now() >= due) {
            write_notes(writable, &mut notes).await;
            notes_due = None;
        }
    }
    queues.ops.close();
    queues.notes.close();
    while queues.ops.recv_many(&mut jobs, OPS_A_COMMIT).await > 0 {
        commit(writable, &mut jobs).await;
    }
    drain_notes(writable, &mut queues.notes, &mut notes).await;
}

async fn drain_notes(writable: &mut Writable, queue: &mut mpsc::Receiver<Note>, notes: &mut Vec<Note>) {
    loop {
        while notes.len() < NOTES_A_COMMIT {
            match queue.try_recv() {
                Ok(note) => notes.push(note),
                Err(_) => break,
            }
        }
        if notes.is_empty() {
            return;
        }
        write_notes(writable, notes).await;
    }
}

async fn write_notes(writable: &mut Writable, notes: &mut Vec<Note>) {
    if let Err(error) = writable.write_notes(notes).await {
        tracing::error!(%error, count = notes.len(), "a group of notes failed; each is tried alone");
        for note in notes.drain(..) {
            if let Err(error) = writable.write_notes(std::slice::from_ref(&note)).await {
                tracing::error!(%error, ?note, "a note is lost");
            }
        }
    }
    notes.clear();
}

async fn commit(writable: &mut Writable, jobs: &mut Vec<(Op, Reply)>) {
    let ops: Vec<&Op> = jobs.iter().map(|(op, _)| op).collect();
    match writable.commit(&ops).await {
        Ok(answers) => {
            for ((_, reply), answer) in jobs.drain(..).zip(answers) {
                // Whoever asked may have gone; the change stands.
                drop(reply.send(Ok(answer)));
            }
        }
        Err(error) if jobs.len() == 1 => {
            if let Some((_, reply)) = jobs.pop() {
                drop(reply.send(Err(error)));
            }
        }
        Err(error) => {
            tracing::warn!(%error, count = jobs.len(), "a group commit failed; each change is tried alone");
            for (op, reply) in jobs.drain(..) {
                let answer = writable.commit(&[&op]).await;
                drop(reply.send(answer.and_then(|mut a| a.pop().ok_or(StoreError::Closed))));
            }
        }
    }
}

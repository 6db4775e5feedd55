//! The writer: one task, one connection, two bounded queues. Everything waiting goes into
//! one transaction (group commit), so that a commit's cost is shared. When a group fails,
//! each of its members is tried alone: one bad change harms no other. While the database is
//! away, operations are refused within a bounded time, and notes wait.

use futures_util::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::write::{Answer, Note, Op};
use super::{Backlog, NOTE_DELAY, StoreError, postgres, sqlite};
use crate::metrics::{Kind, Word};

const OPS: usize = 1_024;
const NOTES: usize = 16_384;
const OPS_A_COMMIT: usize = 256;
const NOTES_A_COMMIT: usize = 8_192;
/// Between two attempts to write notes that wait for the database.
const AWAY_PAUSE: Duration = Duration::from_millis(500);
/// How long an operation waits for a place in the queue.
const PLACE_TIMEOUT: Duration = Duration::from_secs(5);

type Reply = oneshot::Sender<Result<Answer, StoreError>>;

/// What groups hold and cost: `ops` and `notes`, each as they are committed.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    size: Family<Kind, Histogram, fn() -> Histogram>,
    seconds: Family<Kind, Histogram, fn() -> Histogram>,
    retries: Family<Kind, Counter>,
}

/// The one connection that can write, of either engine.
#[derive(Debug)]
pub(crate) enum Writable {
    Sqlite(Box<sqlite::Writable>),
    Postgres(Box<postgres::Writable>),
}

impl Writable {
    async fn commit(&mut self, ops: &[&Op]) -> Result<Vec<Answer>, StoreError> {
        match self {
            Self::Sqlite(writable) => writable.commit(ops).await,
            Self::Postgres(writable) => writable.commit(ops).await,
        }
    }

    async fn write_notes(&mut self, notes: &[Note]) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(writable) => writable.write_notes(notes).await,
            Self::Postgres(writable) => writable.write_notes(notes).await,
        }
    }

    async fn reopen(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(writable) => writable.reopen().await,
            Self::Postgres(writable) => writable.reopen().await,
        }
    }

    async fn close(self) {
        match self {
            Self::Sqlite(writable) => writable.close().await,
            Self::Postgres(writable) => writable.close().await,
        }
    }

    /// Groups that were done again since it was asked before.
    fn count_retries(&mut self, groups: &Groups) {
        if let Self::Postgres(writable) = self {
            let retries = writable.take_retries();
            for (kind, times) in [("contended", retries.contended), ("lost", retries.lost)] {
                groups.retries.get_or_create(&Kind { kind: Word(kind) }).inc_by(times);
            }
        }
    }
}

impl Groups {
    fn new() -> Self {
        Self {
            size: Family::new_with_constructor(|| Histogram::new([1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0])),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5])
            }),
            retries: Family::default(),
        }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("store_group_changes", "Changes in one commit", self.size.clone());
        registry.register("store_group_duration_seconds", "One commit of the store's writer", self.seconds.clone());
        for kind in ["contended", "lost"] {
            drop(self.retries.get_or_create(&Kind { kind: Word(kind) }));
        }
        registry.register("store_group_retries", "Groups that were done again", self.retries.clone());
    }

    #[allow(clippy::cast_precision_loss, reason = "a group is far smaller than 2^52")]
    fn done(&self, kind: &'static str, changes: usize, began: Instant) {
        let kind = Kind { kind: Word(kind) };
        self.size.get_or_create(&kind).observe(changes as f64);
        self.seconds.get_or_create(&kind).observe(began.elapsed().as_secs_f64());
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Writer {
    ops: mpsc::Sender<(Op, Reply)>,
    notes: mpsc::Sender<Note>,
    stop: CancellationToken,
    tracker: TaskTracker,
    restarts: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    groups: Groups,
}

impl Writer {
    pub(crate) fn start(writable: Writable) -> Self {
        let (ops, ops_in) = mpsc::channel(OPS);
        let (notes, notes_in) = mpsc::channel(NOTES);
        let (stop, tracker, restarts) = (CancellationToken::new(), TaskTracker::new(), Arc::new(AtomicU64::new(0)));
        let (groups, lost) = (Groups::new(), Arc::<AtomicU64>::default());
        let queues =
            Queues { ops: ops_in, notes: notes_in, stop: stop.clone(), lost: lost.clone(), groups: groups.clone() };
        tracker.spawn(keep_running(writable, queues, restarts.clone()));
        tracker.close();
        Self { ops, notes, stop, tracker, restarts, lost, groups }
    }

    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.wait().await;
    }

    pub(crate) fn backlog(&self) -> Backlog {
        Backlog {
            ops: self.ops.max_capacity() - self.ops.capacity(),
            ops_capacity: self.ops.max_capacity(),
            notes: self.notes.max_capacity() - self.notes.capacity(),
            notes_capacity: self.notes.max_capacity(),
            restarts: self.restarts.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// A note found no way to the disk.
    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
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
    lost: Arc<AtomicU64>,
    groups: Groups,
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
                    drain_notes(writable, queues, &mut notes).await;
                    notes_due = (!notes.is_empty()).then(|| Instant::now() + AWAY_PAUSE);
                }
                commit(writable, &mut jobs, &queues.groups).await;
            }
            count = queues.notes.recv_many(&mut notes, room), if room > 0 => {
                if count > 0 {
                    let due = *notes_due.get_or_insert_with(|| Instant::now() + NOTE_DELAY);
                    // A whole group does not wait.
                    notes_due = Some(if notes.len() == NOTES_A_COMMIT { Instant::now() } else { due });
                }
            }
            () = tokio::time::sleep_until(due), if notes_due.is_some() => {}
            () = queues.stop.cancelled() => break,
        }
        // Not in the select alone: a steady stream of operations must not starve them.
        if notes_due.is_some_and(|due| Instant::now() >= due) {
            let written = write_notes(writable, &mut notes, queues).await;
            notes_due = (!written).then(|| Instant::now() + AWAY_PAUSE);
        }
    }
    queues.ops.close();
    queues.notes.close();
    while queues.ops.recv_many(&mut jobs, OPS_A_COMMIT).await > 0 {
        commit(writable, &mut jobs, &queues.groups).await;
    }
    drain_notes(writable, queues, &mut notes).await;
    if !notes.is_empty() {
        queues.lost.fetch_add(notes.len() as u64, Ordering::Relaxed);
        tracing::error!(count = notes.len(), "the database is away at the end: notes are lost");
    }
}

/// What is left could not be written: the database is away.
async fn drain_notes(writable: &mut Writable, queues: &mut Queues, notes: &mut Vec<Note>) {
    loop {
        while notes.len() < NOTES_A_COMMIT {
            match queues.notes.try_recv() {
                Ok(note) => notes.push(note),
                Err(_) => break,
            }
        }
        if notes.is_empty() {
            return;
        }
        if !write_notes(writable, notes, queues).await {
            return;
        }
    }
}

/// `false`: the database is away, and they are kept.
async fn write_notes(writable: &mut Writable, notes: &mut Vec<Note>, queues: &Queues) -> bool {
    let (count, began) = (notes.len(), Instant::now());
    let written = writable.write_notes(notes).await;
    writable.count_retries(&queues.groups);
    if let Err(error) = written {
        if matches!(error, StoreError::Unavailable(_)) {
            return false;
        }
        tracing::error!(%error, count = notes.len(), "a group of notes failed; each is tried alone");
        for note in notes.drain(..) {
            if let Err(error) = writable.write_notes(std::slice::from_ref(&note)).await {
                queues.lost.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, ?note, "a note is lost");
            }
        }
    }
    notes.clear();
    queues.groups.done("notes", count, began);
    true
}

async fn commit(writable: &mut Writable, jobs: &mut Vec<(Op, Reply)>, groups: &Groups) {
    let (count, began) = (jobs.len(), Instant::now());
    let ops: Vec<&Op> = jobs.iter().map(|(op, _)| op).collect();
    let done = writable.commit(&ops).await;
    writable.count_retries(groups);
    groups.done("ops", count, began);
    match done {
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
        Err(StoreError::Unavailable(error)) => {
            tracing::warn!(%error, count = jobs.len(), "a group is refused: the database is away");
            for (_, reply) in jobs.drain(..) {
                // The cause itself is one; each of them is told its text.
                let told = StoreError::Unavailable(sqlx::Error::Protocol(error.to_string()));
                drop(reply.send(Err(told)));
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

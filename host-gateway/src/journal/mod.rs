//! The journal: what this gateway was ordered to do, what it did, what it still owes the
//! backend, and the chain of its receipts. SQLite in WAL mode with `synchronous=FULL`, written by one OS thread that
//! commits everything that waits in one transaction. Reads of verbs never come here.
//! Refuses to forget what the backend has not acknowledged, and to begin anew over a
//! damaged file: what ran before would run again.

mod hook;
mod later;
mod plans;
#[cfg(test)]
mod proofs;
mod receipt;
mod recover;
mod rollback;
mod store;
#[cfg(test)]
mod tests;
mod undo;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::Report;
use viworks_protocol::receipt::Receipt;
use viworks_signing::dsse::Envelope;

use crate::effects::{Effect, Inverse};
use crate::failure::chain;
use crate::receipts::{ReceiptKey, Used};
use store::Store;
use writer::{Request, Task};

/// The journal's file in the state directory.
pub const FILE: &str = "journal.db";

/// How long after its validity an invocation is remembered, so that a late repetition
/// is known: a day.
pub const REMEMBER_MS: u64 = 24 * 60 * 60 * 1_000;

/// Requests that may wait for the journal's thread; who comes later waits to enter.
const QUEUE: usize = 1_024;

/// A handle on the journal's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    /// The way to the thread, or why there is none.
    requests: Result<mpsc::Sender<Request>, JournalError>,
    gauges: Arc<Gauges>,
    key: Option<ReceiptKey>,
}

/// What the status endpoint and telemetry show of the journal.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    owed: AtomicU32,
    /// Commits that wrote something: each is one fsync.
    commits: AtomicU64,
    /// The last write's error, until a write succeeds again.
    fault: std::sync::Mutex<Option<JournalError>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    #[error("the journal has stopped")]
    Stopped,
    #[error("the journal's disk is full")]
    Full,
    #[error("the journal is damaged: {0}")]
    Corrupt(String),
    #[error("the journal is in use by another process")]
    InUse,
    #[error("the journal was written by a newer version ({0})")]
    Version(u32),
    #[error("no receipts can be signed: {0}")]
    ReceiptKey(String),
    #[error("the journal could not be opened: {0}")]
    Open(String),
    #[error("the journal could not be written: {0}")]
    Write(String),
}

/// What the journal knows of an invocation that is ordered.
#[derive(Debug)]
pub enum Admission {
    /// Now journaled: run it.
    Fresh,
    /// It runs already, or waits.
    Running,
    /// It ended: deliver this report again, run nothing.
    Ended(Box<Report>),
}

/// A report that the backend has not acknowledged.
#[derive(Debug)]
pub struct Owed {
    /// The place in the outbox; the cursor of the next page. Grows, never returns.
    pub place: u64,
    pub invocation: InvocationId,
    pub report: Report,
}

/// What [`Journal::recover`] settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Nothing is left, or what is left is known: reported `failed` (`interrupted`).
    pub interrupted: u32,
    /// Nobody can tell what is left: reported `unknown`.
    pub unknown: u32,
}

impl Journal {
    /// Open or create the journal and the receipt key in `state_dir`, and start the
    /// journal's thread.
    ///
    /// # Errors
    /// When a file can't be opened, is damaged, or another process holds it.
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        let store = Store::open(&state_dir.join(FILE))?;
        let key = ReceiptKey::open(state_dir).map_err(|e| JournalError::ReceiptKey(chain(&e)))?;
        Self::start(store, key)
    }

    fn start(store: Store, key: ReceiptKey) -> Result<Self, JournalError> {
        let gauges = Arc::new(Gauges::default());
        let (requests, waiting) = mpsc::channel(QUEUE);
        let thread_gauges = Arc::clone(&gauges);
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer::run(&store, waiting, &thread_gauges))
            .map_err(|e| JournalError::Open(e.to_string()))?;
        Ok(Self { requests: Ok(requests), gauges, key: Some(key) })
    }

    /// A journal that refuses everything with `error`, for a gateway that has to stay up
    /// without one: it serves reads and refuses changes.
    #[must_use]
    pub fn unusable(error: JournalError) -> Self {
        let gauges = Gauges { fault: std::sync::Mutex::new(Some(error.clone())), ..Gauges::default() };
        Self { requests: Err(error), gauges: Arc::new(gauges), key: None }
    }

    /// The public half of the key that signs receipts, SPKI PEM.
    #[must_use]
    pub fn receipt_key(&self) -> Option<&str> {
        self.key.as_ref().map(ReceiptKey::public_pem)
    }

    /// Enter an invocation, unless it is known. `forget_after_ms` is the end of its
    /// warrant's validity plus [`REMEMBER_MS`]. Durable with its first intent, or within
    /// moments: before an intent there is nothing that a crash could leave behind.
    ///
    /// # Errors
    /// When the journal can't be written: then it must not run.
    pub async fn admit(&self, invocation: &InvocationId, forget_after_ms: u64) -> Result<Admission, JournalError> {
        self.let_in(invocation, forget_after_ms, None).await
    }

    /// [`Journal::admit`] with what its receipt will say; without it there will be none.
    ///
    /// # Errors
    /// When the journal can't be written: then it must not run.
    pub async fn admit_with(&self, draft: &Receipt, forget_after_ms: u64) -> Result<Admission, JournalError> {
        self.let_in(&draft.invocation, forget_after_ms, Some(json(draft)?)).await
    }

    async fn let_in(
        &self,
        invocation: &InvocationId,
        forget_after_ms: u64,
        draft: Option<String>,
    ) -> Result<Admission, JournalError> {
        let id = invocation.clone();
        self.ask(|answer| Request::Admit { id, forget_after_ms, draft, answer }).await
    }

    /// Make the intent of the `seq`th effect durable.
    ///
    /// # Errors
    /// When it can't be made durable: then the effect must not happen.
    pub async fn intent(&self, invocation: &InvocationId, seq: u32, effect: &Effect) -> Result<(), JournalError> {
        let (kind, summary, effect) = (effect.kind(), effect.summary(), json(effect)?);
        let invocation = invocation.clone();
        self.run(move |store| store.intent(&invocation, seq, kind, &summary, &effect)).await
    }

    /// Make the result of an effect durable: its inverse, or `None` if it failed.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub async fn effect_result(
        &self,
        invocation: &InvocationId,
        seq: u32,
        inverse: Option<&Inverse>,
    ) -> Result<(), JournalError> {
        let (invocation, inverse) = (invocation.clone(), inverse.map(json).transpose()?);
        self.run(move |store| store.effect_result(&invocation, seq, inverse.as_deref())).await
    }

    /// End an invocation and put its report into the outbox with its receipt, in one
    /// transaction; gives the receipt. The first report stands; another for the same
    /// invocation changes nothing.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub async fn finish(
        &self,
        invocation: &InvocationId,
        report: &Report,
    ) -> Result<Option<Box<Envelope>>, JournalError> {
        self.finish_with(invocation, report, &Used::default()).await
    }

    /// [`Journal::finish`] with what the invocation used, for its receipt.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub async fn finish_with(
        &self,
        invocation: &InvocationId,
        report: &Report,
        used: &Used,
    ) -> Result<Option<Box<Envelope>>, JournalError> {
        // Of use only to reports of invocations that were never admitted here.
        let forget_after_ms = report.finished_ms.saturating_add(2 * REMEMBER_MS);
        let (invocation, mut report, used, key) = (invocation.clone(), report.clone(), used.clone(), self.key.clone());
        self.run(move |store| receipt::finish(store, key.as_ref(), &invocation, &mut report, &used, forget_after_ms))
            .await
    }

    /// The outbox after `place` (0: from its beginning), in the order of ending; at most
    /// `limit` reports, and fewer when they are large.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn outbox(&self, after: u64, limit: u32) -> Result<Vec<Owed>, JournalError> {
        self.run(move |store| store.outbox(after, limit)).await
    }

    /// The backend has the report. Returns as soon as this is queued, since a lost
    /// acknowledgement costs one more delivery and nothing else.
    ///
    /// # Errors
    /// When the journal has stopped.
    pub async fn acknowledge(&self, invocation: &InvocationId) -> Result<(), JournalError> {
        self.send(Request::Acknowledge { id: invocation.clone() }).await
    }

    /// Drop some of what need not be remembered any longer, and say how many invocations
    /// those were; call it again while it is [`Journal::FORGET_AT_ONCE`].
    ///
    /// # Errors
    /// When the journal can't be written.
    pub async fn forget(&self, now_ms: u64) -> Result<u32, JournalError> {
        self.run(move |store| store.forget(now_ms, Self::FORGET_AT_ONCE)).await
    }

    /// The most invocations that one [`Journal::forget`] drops, so that nobody waits for it.
    pub const FORGET_AT_ONCE: u32 = 500;

    /// How many reports the backend has not acknowledged.
    #[must_use]
    pub fn owed(&self) -> u32 {
        self.gauges.owed.load(Ordering::Relaxed)
    }

    /// Commits since it was opened that wrote something: each is one fsync.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.gauges.commits.load(Ordering::Relaxed)
    }

    /// Why the journal can't be written, if the last attempt failed.
    #[must_use]
    pub fn fault(&self) -> Option<JournalError> {
        self.gauges.fault.lock().ok().and_then(|fault| fault.clone())
    }

    /// Whether this gateway runs without a journal.
    #[must_use]
    pub fn is_unusable(&self) -> bool {
        self.requests.is_err()
    }

    /// Whether an invocation is journaled here.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn knows(&self, invocation: &InvocationId) -> Result<bool, JournalError> {
        let invocation = invocation.clone();
        self.run(move |store| store.knows(&invocation)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnMut(&Store) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.ask(|answer| Request::Now(Box::new(Task::new(work, answer)))).await
    }

    /// Write it with what comes next, or within a moment: what is journaled after it is
    /// durable after it.
    async fn enter(
        &self,
        work: impl FnMut(&Store) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), JournalError> {
        self.send(Request::Later(Box::new(work))).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, JournalError>>) -> Request,
    ) -> Result<T, JournalError> {
        let (answer, answered) = oneshot::channel();
        self.send(request(answer)).await?;
        answered.await.map_err(|_| JournalError::Stopped)?
    }

    async fn send(&self, request: Request) -> Result<(), JournalError> {
        let requests = self.requests.as_ref().map_err(Clone::clone)?;
        requests.send(request).await.map_err(|_| JournalError::Stopped)
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, JournalError> {
    serde_json::to_string(value).map_err(|e| JournalError::Write(e.to_string()))
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Corrupt(error.to_string()),
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::InUse,
            Some(Code::CannotOpen) => Self::Open(error.to_string()),
            _ => Self::Write(error.to_string()),
        }
    }
}

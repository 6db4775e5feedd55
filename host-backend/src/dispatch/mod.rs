//! The command engine: from an accepted command to its last durable result. What counts
//! is in the store; here is only what is under way, so that a restart is nothing special.
//! Refuses commands beyond its slots with `busy`.
//!
//! - [`accept`]: freeze targets, commit, deliver to who is connected
//! - [`order`]: the warrant and the order's text, made once a command
//! - [`flight`]: what is at which agent now
//! - [`deliver`]: what reconnected agents are owed, and batches
//! - [`receipts`]: the signed records beside results, their chains, their anchors
//! - [`settle`]: results into the store in groups, then acknowledged
//! - [`expiry`]: what nobody answered in time
//! - [`cancel`]: the way back before the end
//! - [`approve`]: operators' approvals, and delivery after the last
//! - [`traced`]: spans of commands that are traced
//! - [`events`]: what subscribers hear
//! - [`others`]: what other instances did

mod accept;
mod approve;
mod cancel;
mod deliver;
mod events;
mod expiry;
mod flight;
mod order;
mod others;
mod receipts;
mod settle;
#[cfg(test)]
mod tests;
mod traced;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_signing::keys::SecretKey;

use crate::background::Background;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::rollouts::Observer;
use crate::store::Store;
use crate::store::model::{AuditEntry, Decision};

pub use accept::{AcceptError, Accepted, MAX_EXPIRY_SECS, Request, Task};
pub use events::{EndedCommand, Event, Progress};
pub use order::warrant_of;

use flight::Flights;
use order::Orders;

/// Bytes of reports that wait to be settled, in KiB; beyond, sessions wait to be read.
const REPORTS_KIB: usize = 64 * 1024;
const RESULTS: usize = 8_192;
const OFFERS: usize = 256;

/// A handle; clones share everything.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What the engine is made of and held to.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub hub: Hub,
    pub clock: Clock,
    pub metrics: Metrics,
    pub background: Background,
    pub cluster: Cluster,
    pub observer: Observer,
    pub key: SecretKey,
    pub slots: u32,
    pub max_targets: u32,
    pub grace_ms: u64,
    pub anchor_secs: u64,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    flights: Mutex<Flights>,
    orders: Orders,
    traced: traced::Traced,
    events: events::Channels,
    results: mpsc::Sender<settle::Incoming>,
    results_out: tokio::sync::Mutex<mpsc::Receiver<settle::Incoming>>,
    report_room: Arc<Semaphore>,
    offers: mpsc::Sender<deliver::Work>,
    offers_out: tokio::sync::Mutex<mpsc::Receiver<deliver::Work>>,
    /// Commands that have not ended, about: set from the store every second.
    open: AtomicU64,
    /// Where the last look at what is owed stopped.
    looked: tokio::sync::Mutex<Option<AgentId>>,
    /// When the settler last finished a group, or found nothing to do.
    settled_ms: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineStatus {
    /// Commands with work at connected agents.
    pub active_commands: u32,
    pub available_slots: u32,
    /// Commands that have not ended, waiting ones included.
    pub open_commands: u64,
    /// Results that wait to be made durable.
    pub results_waiting: usize,
    /// How long the settler has been busy with one group, in milliseconds.
    pub settling_ms: u64,
}

impl Engine {
    /// An engine over the store; its tasks run under `parts.background`.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn start(parts: Parts) -> Result<Self, crate::store::StoreError> {
        let open = parts.store.count_open_commands().await?;
        let (results, results_out) = mpsc::channel(RESULTS);
        let (offers, offers_out) = mpsc::channel(OFFERS);
        let background = parts.background.clone();
        let inner = Inner {
            flights: Mutex::new(Flights::new(parts.slots)),
            orders: Orders::default(),
            traced: traced::Traced::default(),
            events: events::Channels::default(),
            results,
            results_out: tokio::sync::Mutex::new(results_out),
            report_room: Arc::new(Semaphore::new(REPORTS_KIB)),
            offers,
            offers_out: tokio::sync::Mutex::new(offers_out),
            open: AtomicU64::new(open),
            looked: tokio::sync::Mutex::default(),
            settled_ms: AtomicU64::new(0),
            parts,
        };
        let engine = Self { inner: Arc::new(inner) };
        let this = engine.clone();
        background.supervise("settler", move || settle::run(this.clone()));
        let this = engine.clone();
        background.supervise("deliverer", move || deliver::run(this.clone()));
        let this = engine.clone();
        background.supervise("expiry", move || expiry::run(this.clone()));
        let this = engine.clone();
        background.supervise("receipts", move || receipts::walk(this.clone()));
        let this = engine.clone();
        background.supervise("anchors", move || receipts::anchor_them(this.clone()));
        Ok(engine)
    }

    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let active = self.flights().active();
        let busy_since = self.inner.settled_ms.load(Ordering::Relaxed);
        EngineStatus {
            active_commands: active,
            available_slots: self.inner.parts.slots.saturating_sub(active),
            open_commands: self.inner.open.load(Ordering::Relaxed),
            results_waiting: self.inner.results.max_capacity() - self.inner.results.capacity(),
            settling_ms: if busy_since == 0 { 0 } else { self.now_ms().saturating_sub(busy_since) },
        }
    }

    /// The engine's queues by name: what waits, and what may.
    pub(crate) fn queues(&self) -> [(&'static str, usize, usize); 3] {
        let inner = &self.inner;
        let reports = REPORTS_KIB.saturating_sub(inner.report_room.available_permits());
        let waiting = |of: usize, left: usize| of - left;
        let (results, offers) = (inner.results.max_capacity(), inner.offers.max_capacity());
        [
            ("results", waiting(results, inner.results.capacity()), results),
            ("result_kib", reports, REPORTS_KIB),
            ("deliveries", waiting(offers, inner.offers.capacity()), offers),
        ]
    }

    /// The agent has a session: what it is owed follows.
    pub(crate) async fn connected(&self, agent: &AgentId) {
        // An error means that the engine has stopped.
        let _ = self.inner.offers.send(deliver::Work::Back(agent.clone())).await;
    }

    /// Its session ended: what is at it is under way no more, and stays owed.
    pub(crate) fn disconnected(&self, agent: &AgentId) {
        self.flights().drop_agent(agent);
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.inner.parts.clock.now_ms()
    }

    fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    async fn refuse(&self, agent: &AgentId, action: &str, subject: &str, detail: &str) {
        tracing::warn!(%agent, action, subject, detail, "refused");
        let entry = AuditEntry {
            at_ms: self.now_ms(),
            actor: format!("agent:{agent}"),
            action: action.to_owned(),
            subject: subject.to_owned(),
            decision: Decision::Refused,
            detail: detail.to_owned(),
        };
        self.store().audit(entry).await;
    }
}

fn cancel_frame(invocation: &InvocationId) -> Utf8Bytes {
    crate::hub::text(&BackendFrame::Cancel { invocation: invocation.clone() })
}

//! Agents' sessions: who is connected, and the way to each of them. Identity is what the
//! verified certificate says; presence is an answered ping; one live session an agent.
//!
//! - [`identity`]: certificate → agent
//! - [`tls`]: the port's TLS, renewed when its files change
//! - [`port`]: the listener and its handshakes
//! - [`request`]: `/health` and the upgrade to a session
//! - [`greet`]: from the upgrade to an admitted session
//! - [`session`]: one session's loop
//! - [`frames`]: what a gateway's frame sets in motion
//! - [`wire`]: the socket's two directions
//! - [`rate`]: how many frames of a kind in a minute
//! - [`sweep`]: one task pings all sessions and ends the silent ones

mod frames;
mod greet;
mod identity;
mod port;
mod rate;
mod request;
mod session;
mod sweep;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use viworks_protocol::chunk::Part;
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::id::AgentId;
use viworks_signing::keys::PublicKey;

use crate::clock::Clock;
use crate::store::model::Owner;

pub use identity::{Identity, IdentityError};
pub use port::{Edge, Entrance, Port, PortError, RefusalRate, sessions_by_files};
pub use sweep::sweep;
pub use tls::{Files, Tls, TlsError};

/// Frames that wait for one agent. More, and the agent is too slow: the frame is refused.
const OUTGOING: usize = 512;

/// A handle; clones share the sessions.
#[derive(Debug, Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sessions: Mutex<HashMap<AgentId, Arc<Session>>>,
    clock: Clock,
    serial: AtomicU64,
    instance: String,
}

/// What goes to a gateway.
#[derive(Debug)]
pub(crate) enum Out {
    Frame(Utf8Bytes),
    /// The answer to a WebSocket ping.
    Pong(Bytes),
    /// Chunks of a part from an offset on, between other frames.
    Part(Box<PartJob>),
}

#[derive(Debug)]
pub(crate) struct PartJob {
    pub digest: [u8; 32],
    pub part: Part,
    pub offset: u32,
    /// The whole part, shared by all who fetch it.
    pub bytes: Bytes,
}

/// One agent's live session, as others see it.
#[derive(Debug)]
pub(crate) struct Session {
    pub agent: AgentId,
    /// Unique in this process.
    pub serial: u64,
    pub identity: Identity,
    pub since_ms: u64,
    /// What its receipts are signed by, once its hello said so.
    pub receipt_key: OnceLock<PublicKey>,
    out: mpsc::Sender<Out>,
    /// Of the ping that is to be answered.
    nonce: AtomicU64,
    /// Backend's time of the last answered ping; the start counts as one.
    pong_ms: AtomicU64,
    pongs: AtomicU64,
    answered: Notify,
    pub end: CancellationToken,
    /// The `plugins` frame that it was sent last.
    offered: Mutex<Utf8Bytes>,
    reason: Mutex<Option<Ended>>,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// For metrics and the gateway, for example `replaced`.
    pub reason: &'static str,
    pub retry_after_secs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    pub since_ms: u64,
    /// When a ping was last answered.
    pub seen_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("the agent has no session")]
    Offline,
    #[error("too many frames wait for the agent")]
    Slow,
}

/// The text of a frame, to be sent to many.
#[must_use]
pub fn text(frame: &BackendFrame) -> Utf8Bytes {
    // Frames of ours are always JSON; an empty text would be refused by the gateway.
    serde_json::to_string(frame).unwrap_or_default().into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these; if it did, the map is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self::of(instance_name(), clock)
    }

    /// The sessions of an instance.
    #[must_use]
    pub fn of(instance: String, clock: Clock) -> Self {
        let inner = Inner { sessions: Mutex::default(), clock, serial: AtomicU64::new(1), instance };
        Self { inner: Arc::new(inner) }
    }

    /// The instance that has the sessions.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }

    pub(crate) fn owner(&self, session: &Session) -> Owner {
        Owner { instance: self.inner.instance.clone(), session: session.name() }
    }

    /// The agent's live session, if it has one.
    #[must_use]
    pub fn presence(&self, agent: &AgentId) -> Option<Presence> {
        self.session(agent).map(|s| Presence { since_ms: s.since_ms, seen_ms: s.pong_ms.load(Ordering::Relaxed) })
    }

    #[must_use]
    pub fn is_connected(&self, agent: &AgentId) -> bool {
        lock(&self.inner.sessions).contains_key(agent)
    }

    /// For each of `agents`, whether it has a session; one look at the table for all.
    #[must_use]
    pub fn connected_of(&self, agents: &[AgentId]) -> Vec<bool> {
        let sessions = lock(&self.inner.sessions);
        agents.iter().map(|agent| sessions.contains_key(agent)).collect()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn connected(&self) -> usize {
        lock(&self.inner.sessions).len()
    }

    /// Frames that wait for the agent with the most, and how many may.
    #[must_use]
    pub fn longest_queue(&self) -> (usize, usize) {
        let waiting = |session: &Arc<Session>| OUTGOING.saturating_sub(session.out.capacity());
        (self.all().iter().map(waiting).max().unwrap_or(0), OUTGOING)
    }

    /// Sessions whose client certificate ends before this time.
    #[must_use]
    pub fn certificates_ending_before(&self, ms: u64) -> usize {
        self.all().iter().filter(|session| session.identity.not_after_ms < ms).count()
    }

    /// Queue a frame for one agent.
    ///
    /// # Errors
    /// When it has no session, or too many frames wait for it already: then the session
    /// ends, and what the agent missed it is owed when it comes back.
    pub fn send(&self, agent: &AgentId, frame: Utf8Bytes) -> Result<(), SendError> {
        self.session(agent).ok_or(SendError::Offline)?.send(frame)
    }

    /// End every session, telling gateways when to come back.
    pub fn goodbye(&self, reason: &'static str, retry_after_secs: u32) {
        for session in self.all() {
            session.end(Ended { reason, retry_after_secs });
        }
    }

    /// A number for a ping that no earlier one had.
    pub(crate) fn nonce(&self) -> u64 {
        self.inner.serial.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn session(&self, agent: &AgentId) -> Option<Arc<Session>> {
        lock(&self.inner.sessions).get(agent).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        lock(&self.inner.sessions).values().cloned().collect()
    }

    /// A session that is in no table yet.
    pub(crate) fn session_for(&self, agent: AgentId, identity: Identity) -> (Arc<Session>, mpsc::Receiver<Out>) {
        let (out, queue) = mpsc::channel(OUTGOING);
        let now = self.inner.clock.now_ms();
        let session = Session {
            agent,
            serial: self.inner.serial.fetch_add(1, Ordering::Relaxed),
            identity,
            since_ms: now,
            receipt_key: OnceLock::new(),
            out,
            nonce: AtomicU64::new(0),
            pong_ms: AtomicU64::new(now),
            pongs: AtomicU64::new(0),
            answered: Notify::new(),
            end: CancellationToken::new(),
            offered: Mutex::default(),
            reason: Mutex::new(None),
        };
        (Arc::new(session), queue)
    }

    /// Enter it, unless the agent has another session than `instead_of`: that one is
    /// given back.
    pub(crate) fn enter(&self, session: &Arc<Session>, instead_of: Option<u64>) -> Result<(), Arc<Session>> {
        let mut sessions = lock(&self.inner.sessions);
        match sessions.get(&session.agent) {
            Some(other) if Some(other.serial) != instead_of => Err(other.clone()),
            _ => {
                sessions.insert(session.agent.clone(), session.clone());
                Ok(())
            }
        }
    }

    /// Take it out; `false` when another has its place already.
    pub(crate) fn leave(&self, session: &Session) -> bool {
        let mut sessions = lock(&self.inner.sessions);
        let mine = sessions.get(&session.agent).is_some_and(|s| s.serial == session.serial);
        if mine {
            sessions.remove(&session.agent);
        }
        mine
    }
}

/// Host and a number of this start.
fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut start = [0; 6];
    // Without the system's random numbers no key and no token could be made either.
    let _ = getrandom::fill(&mut start);
    format!("{}-{}", host.trim(), hex::encode(start))
}

impl Session {
    /// Unique at the instance, over its restarts too.
    pub(crate) fn name(&self) -> String {
        format!("{:x}-{:x}", self.since_ms, self.serial)
    }

    pub(crate) fn push(&self, out: Out) -> Result<(), SendError> {
        self.out.try_send(out).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => SendError::Slow,
            mpsc::error::TrySendError::Closed(_) => SendError::Offline,
        })
    }

    /// Queue a frame that must not be missed: where it finds no room, the session ends.
    pub(crate) fn send(&self, frame: Utf8Bytes) -> Result<(), SendError> {
        let sent = self.push(Out::Frame(frame));
        if sent == Err(SendError::Slow) {
            self.end(Ended { reason: "slow", retry_after_secs: 5 });
        }
        sent
    }

    /// Tell it what it should have, unless it was told just that. Who has no room for it is
    /// told when back.
    pub(crate) fn offer(&self, plugins: Utf8Bytes) {
        let mut offered = lock(&self.offered);
        if *offered != plugins {
            *offered = plugins.clone();
            let _ = self.send(plugins);
        }
    }

    /// Ask it to end; the first reason counts.
    pub(crate) fn end(&self, why: Ended) {
        lock(&self.reason).get_or_insert(why);
        self.end.cancel();
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        *lock(&self.reason)
    }

    /// Expect an answer to the ping `nonce` from now on.
    pub(crate) fn expect(&self, nonce: u64) {
        self.nonce.store(nonce, Ordering::Relaxed);
    }

    /// Whether it answers the ping at hand; presence is renewed if so.
    pub(crate) fn pong(&self, nonce: u64, now_ms: u64) -> bool {
        let answered = self.nonce.load(Ordering::Relaxed) == nonce;
        if answered {
            self.pong_ms.store(now_ms, Ordering::Relaxed);
            self.pongs.fetch_add(1, Ordering::Relaxed);
            self.answered.notify_waiters();
        }
        answered
    }
}

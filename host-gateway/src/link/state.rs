//! What the status endpoint and telemetry show of the link.

use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Where the link stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub phase: Phase,
    /// The backend's name of the session, while there is one.
    pub session: Option<String>,
    /// Since when the phase lasts: Unix milliseconds by the backend's clock.
    pub since_ms: u64,
    /// Why the last attempt or session ended.
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Connecting,
    Connected,
    /// Until the next attempt.
    Waiting,
    Stopped,
}

/// The link's state and counters since the start.
#[derive(Debug, Default)]
pub struct LinkState {
    status: watch::Sender<LinkStatus>,
    sessions: AtomicU32,
    pub(super) orders_refused: AtomicU32,
    pub(super) frames_refused: AtomicU32,
}

impl LinkState {
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        self.status.borrow().clone()
    }

    /// To wait for a change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LinkStatus> {
        self.status.subscribe()
    }

    /// Sessions after the first one.
    #[must_use]
    pub fn reconnects(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Orders whose warrant was refused.
    #[must_use]
    pub fn orders_refused(&self) -> u32 {
        self.orders_refused.load(Ordering::Relaxed)
    }

    /// Frames that ended a session.
    #[must_use]
    pub fn frames_refused(&self) -> u32 {
        self.frames_refused.load(Ordering::Relaxed)
    }

    pub(super) fn connected(&self, session: &str, now_ms: u64) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let session = Some(session.to_owned());
        self.status.send_replace(LinkStatus { phase: Phase::Connected, session, since_ms: now_ms, last_error: None });
    }

    /// `error` of `None` keeps the last one.
    pub(super) fn enter(&self, phase: Phase, error: Option<String>, now_ms: u64) {
        self.status.send_modify(|status| {
            let last_error = error.or_else(|| status.last_error.take());
            *status = LinkStatus { phase, session: None, since_ms: now_ms, last_error };
        });
    }
}

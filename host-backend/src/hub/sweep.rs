//! One task for all sessions: it pings them together, ends those that fell silent, whose
//! certificate ran out or was revoked, and tells all when the offered plugins change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use viworks_protocol::frame::BackendFrame;

use super::port::Port;
use super::{Ended, Session, text};
use crate::catalog::Snapshot;
use crate::repository::{Current, Repository};
use crate::store::write::Note;

/// How often the TLS files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often presence is written for those that stay.
const WRITE_SEEN: Duration = Duration::from_secs(300);
/// Sessions between two breaths.
const STRIDE: usize = 512;

pub async fn sweep(port: Arc<Port>) {
    let stop = port.background.token().clone();
    let mut beat = interval(Duration::from_secs(u64::from(port.heartbeat_secs)));
    let mut look = interval(LOOK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = port.catalog.changes();
    let mut repository = port.repository.as_ref().map(Repository::changes);
    let mut written = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = beat.tick() => {
                ping(&port).await;
                if written.elapsed() >= WRITE_SEEN {
                    written = Instant::now();
                    write_seen(&port).await;
                }
            }
            _ = look.tick() => renew(&port).await,
            // Before the offers that rest on it.
            () = news(&mut repository) => {
                let frame = port.repository.as_ref().and_then(|repository| repository.current().news());
                tell(&port, frame).await;
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = changes.borrow_and_update().clone();
                announce(&port, &now).await;
            }
        }
    }
}

/// Wait for news of the repository; for ever where there is none.
async fn news(repository: &mut Option<watch::Receiver<Arc<Current>>>) {
    let told = match repository {
        Some(repository) => repository.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

/// One frame for all.
async fn tell(port: &Port, frame: Option<Utf8Bytes>) {
    let Some(frame) = frame else { return };
    for (n, session) in port.hub.all().iter().enumerate() {
        if n % STRIDE == STRIDE - 1 {
            tokio::task::yield_now().await;
        }
        // Who has no room for it is told when back.
        let _ = session.send(frame.clone());
    }
}

/// One ping, the same bytes for all.
async fn ping(port: &Port) {
    let (nonce, time_ms) = (port.hub.nonce(), port.clock.now_ms());
    let frame = text(&BackendFrame::Ping { nonce, time_ms });
    // Two and a half heartbeats.
    let silent_ms = u64::from(port.heartbeat_secs) * 2_500;
    for (n, session) in port.hub.all().iter().enumerate() {
        if n % STRIDE == STRIDE - 1 {
            tokio::task::yield_now().await;
        }
        if time_ms.saturating_sub(session.pong_ms.load(Ordering::Relaxed)) >= silent_ms {
            session.end(Ended { reason: "silent", retry_after_secs: 0 });
        } else if session.identity.not_after_ms <= time_ms {
            end(port, session, "certificate-expired").await;
        } else {
            session.expect(nonce);
            // Who has no room for it is ended by that.
            let _ = session.send(frame.clone());
        }
    }
}

async fn end(port: &Port, session: &Session, reason: &'static str) {
    port.refuse(&session.identity, reason, "the session ends").await;
    session.end(Ended { reason, retry_after_secs: 300 });
}

/// New files: new handshakes use them, and sessions that they revoke end.
async fn renew(port: &Port) {
    match port.tls.renew() {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!("the agents' port uses renewed TLS files");
            for session in port.hub.all() {
                if port.tls.is_revoked(&session.identity) {
                    end(port, &session, "certificate-revoked").await;
                }
            }
        }
        Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the TLS files can't be renewed"),
    }
}

/// Tell those that are offered something else than they were told last.
async fn announce(port: &Port, now: &Snapshot) {
    for (n, session) in port.hub.all().iter().enumerate() {
        if n % STRIDE == STRIDE - 1 {
            tokio::task::yield_now().await;
        }
        session.offer(now.offers(&session.agent));
    }
}

async fn write_seen(port: &Port) {
    let at_ms = port.clock.now_ms();
    let instance = port.hub.instance().to_owned();
    let sessions = port.hub.all().iter().map(|s| (s.agent.clone(), s.name())).collect();
    if port.store.note(Note::Seen { instance, sessions, at_ms }).await.is_err() {
        tracing::error!("the store is closed");
    }
}

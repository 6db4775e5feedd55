//! This instance's lease: renewed every second by one statement, whatever the number of its
//! agents. An instance whose lease ended is dead for the others: they may take its
//! sessions. When it comes back it enters again those that it has, and ends those that
//! are another's now.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use super::{Cluster, ClusterError, millis};
use crate::background::every;
use crate::hub::Ended;
use crate::store::write::Note;
use crate::store::{Store, StoreError};

/// Renewed so often: two may fail.
const EVERY: Duration = Duration::from_secs(1);
/// How long others wait before they take over a dead instance's sessions.
pub const TTL: Duration = Duration::from_millis(3_000);
/// A name that a killed process held is free after its lease.
const JOIN_WITHIN: Duration = Duration::from_secs(8);
/// Sessions that are entered again by one statement.
const AT_ONCE: usize = 2_000;

impl Cluster {
    fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The name is this process' alone.
    async fn named(&self) -> Result<bool, StoreError> {
        let name = format!("instance:{}", self.inner.instance);
        self.store().lease(&name, &self.inner.boot, millis(TTL)).await
    }

    /// Enter this instance's name.
    pub(super) async fn join(&self) -> Result<(), ClusterError> {
        let deadline = Instant::now() + JOIN_WITHIN;
        while !self.named().await? {
            if Instant::now() >= deadline {
                return Err(ClusterError::Taken(self.instance().to_owned()));
            }
            sleep(EVERY / 4).await;
        }
        let others = self.store().begin_instance(&self.inner.instance, &self.inner.warrant_key).await?;
        if let Some((other, _)) = others.iter().find(|(_, key)| *key != self.inner.warrant_key) {
            return Err(ClusterError::WarrantKey(other.clone()));
        }
        self.store().beat(&self.inner.instance, millis(TTL)).await?;
        *self.inner.beaten.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.inner.others.store(others.len() as u64, Ordering::Relaxed);
        tracing::info!(instance = self.instance(), others = others.len(), "joined the instances");
        Ok(())
    }

    /// Renew the lease; after a lapse, the sessions too.
    async fn live(&self) {
        let began = Instant::now();
        let beaten = async {
            let named = self.named().await?;
            Ok::<_, StoreError>((named, self.store().beat(&self.inner.instance, millis(TTL)).await?))
        };
        let (named, beat) = match beaten.await {
            Ok(done) => done,
            Err(error) => return tracing::error!(%error, "this instance's lease can't be renewed"),
        };
        let before = {
            let mut beaten = self.inner.beaten.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *beaten, began)
        };
        self.inner.others.store(beat.living.len().saturating_sub(1) as u64, Ordering::Relaxed);
        for instance in &beat.dead {
            tracing::warn!(instance, "an instance is dead; its agents are offline until they come back");
            self.inner.metrics.instances_buried.inc();
        }
        if !named {
            tracing::error!(instance = self.instance(), "another process lives under this instance's name");
        }
        if beat.fresh || began.duration_since(before) >= TTL {
            self.reclaim().await;
        }
    }

    /// Enter again the sessions that are here; those that others have now end.
    async fn reclaim(&self) {
        let sessions = self.inner.hub.all();
        tracing::warn!(sessions = sessions.len(), "this instance's lease had ended; its sessions are entered again");
        let mut kept = Vec::new();
        for some in sessions.chunks(AT_ONCE) {
            let list = some.iter().map(|session| (session.agent.clone(), session.serial)).collect();
            match self.store().claim_sessions(&self.inner.instance, list).await {
                Ok(mine) => {
                    let mine: HashSet<_> = mine.into_iter().collect();
                    for session in some {
                        if mine.contains(&session.agent) {
                            kept.push((session.agent.clone(), session.name()));
                        } else {
                            session.end(Ended { reason: "replaced", retry_after_secs: 0 });
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "sessions can't be entered again"),
            }
        }
        let at_ms = crate::clock::Clock::default().now_ms();
        let note = Note::Seen { instance: self.inner.instance.clone(), sessions: kept, at_ms };
        if self.store().note(note).await.is_err() {
            tracing::error!("the store is closed");
        }
    }

    /// Whether this instance's lease holds.
    #[must_use]
    pub fn is_beating(&self) -> bool {
        !self.inner.shared || self.inner.beaten.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < TTL
    }

    /// Go: others need not wait for the lease to end.
    pub async fn leave(&self) {
        if !self.inner.shared {
            return;
        }
        let name = format!("instance:{}", self.inner.instance);
        let left = async {
            self.store().leave(&self.inner.instance).await?;
            self.store().give_up(&name, &self.inner.boot).await
        };
        if let Err(error) = left.await {
            tracing::warn!(%error, "the others learn of this instance's end by its lease");
        }
    }
}

pub(super) async fn run(cluster: Cluster) {
    let stop = cluster.inner.background.token().clone();
    every(EVERY, &stop, || cluster.live()).await;
}

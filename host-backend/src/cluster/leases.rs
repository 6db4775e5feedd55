//! Background work that one instance does at a time: whoever holds the lease of that name.
//! An instance that dies holds it no longer than its end; the next one goes on.

use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

use super::{Cluster, millis};
use crate::store::StoreError;

/// How long work may rest after its instance died.
const TTL: Duration = Duration::from_secs(6);
/// Renewed when less is left; whoever relies on it has so long.
const LEAST: Duration = Duration::from_secs(3);
/// How long one waits for a change of another instance to end.
const TURN_WITHIN: Duration = Duration::from_secs(10);
const TURN_TTL: Duration = Duration::from_secs(30);
const TURN_PAUSE: Duration = Duration::from_millis(50);

impl Cluster {
    /// Whether this instance does the work `name` now. Alone it does everything.
    pub async fn leads(&self, name: &'static str) -> bool {
        if !self.inner.shared {
            return true;
        }
        let now = Instant::now();
        let (held, before) = {
            let leases = self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner);
            let until = leases.get(name).copied();
            (until.is_some_and(|until| until > now + LEAST), until.is_some())
        };
        if held {
            return true;
        }
        let leads = match self.inner.store.lease(name, &self.inner.instance, millis(TTL)).await {
            Ok(leads) => leads,
            Err(error) => {
                tracing::warn!(name, %error, "who does this work can't be told");
                false
            }
        };
        let mut leases = self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if leads {
            leases.insert(name, now + TTL);
            if !before {
                tracing::info!(name, "this instance does this work now");
                self.inner.metrics.lease_takeovers.inc();
            }
        } else if leases.remove(name).is_some() {
            tracing::info!(name, "another instance does this work now");
        }
        leads
    }

    /// Wait for the turn to change what `name` stands for; no other instance changes it
    /// until the turn is given back. One that dies with it holds it for a while.
    ///
    /// # Errors
    /// When it is another's for too long, or the store refuses.
    pub async fn turn(&self, name: &'static str) -> Result<Turn, StoreError> {
        if !self.inner.shared {
            return Ok(Turn(None));
        }
        let deadline = Instant::now() + TURN_WITHIN;
        while !self.inner.store.lease(name, &self.inner.instance, millis(TURN_TTL)).await? {
            if Instant::now() >= deadline {
                return Err(StoreError::Busy);
            }
            tokio::time::sleep(TURN_PAUSE).await;
        }
        Ok(Turn(Some((self.clone(), name))))
    }
}

/// A turn, given back when it is dropped.
#[derive(Debug)]
pub struct Turn(Option<(Cluster, &'static str)>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((cluster, name)) = self.0.take() {
            let of = cluster.clone();
            cluster.inner.background.tracker().spawn(async move {
                if let Err(error) = of.inner.store.give_up(name, &of.inner.instance).await {
                    tracing::warn!(name, %error, "a turn is given back by its end");
                }
            });
        }
    }
}

//! Whether this instance should be given work: not while it drains, not without its store,
//! not on a store of another version's form. Liveness is less: that it answers at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{KEPT, WITHIN};
use crate::clock::Clock;
use crate::store::{Store, StoreError};

/// A handle; clones share its state.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    draining: AtomicBool,
    kept: Mutex<Option<(Instant, Database)>>,
}

/// What a probe of the store found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Database {
    /// A row was written durably and read back.
    pub durable: bool,
    /// Migrations of this version that the store lacks; `None` when it could not be asked.
    pub pending: Option<u64>,
    /// Agents that are known, where it could be asked.
    pub agents: Option<u64>,
}

impl Database {
    #[must_use]
    pub fn good(&self) -> bool {
        self.durable && self.pending == Some(0)
    }
}

impl Readiness {
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        let inner = Inner { store, clock, draining: AtomicBool::new(false), kept: Mutex::default() };
        Self(Arc::new(inner))
    }

    /// From now on it is not ready: load balancers are to look elsewhere.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Why it is not ready, in words of a closed list (`draining`, `store`, `migrations`);
    /// empty when it is. What the store said is at most a second old.
    pub async fn reasons(&self) -> Vec<&'static str> {
        let database = self.database().await;
        let checks = [
            ("draining", self.is_draining()),
            ("store", !database.durable || database.pending.is_none()),
            ("migrations", database.pending.is_some_and(|n| n > 0)),
        ];
        checks.into_iter().filter(|(_, not)| *not).map(|(reason, _)| reason).collect()
    }

    async fn database(&self) -> Database {
        // Locked while it is found out: those who ask meanwhile share the answer.
        let mut kept = self.0.kept.lock().await;
        if let Some((at, database)) = *kept
            && at.elapsed() < KEPT
        {
            return database;
        }
        let database = self.look().await;
        *kept = Some((Instant::now(), database));
        database
    }

    /// Try the store now.
    pub(crate) async fn look(&self) -> Database {
        let store = &self.0.store;
        let probe = async {
            let written = store.probe(self.0.clock.now_ms()).await?;
            // Another instance may have written since.
            Ok::<_, StoreError>(store.probed().await? >= written)
        };
        let read = async { Ok::<_, StoreError>((store.pending_migrations().await?, store.count_agents().await?.0)) };
        // Apart: a disk that is full can still be read.
        let (probe, read) = tokio::join!(tokio::time::timeout(WITHIN, probe), tokio::time::timeout(WITHIN, read));
        let durable = said(probe, "written").unwrap_or(false);
        let (pending, agents) = said(read, "read").unzip();
        Database { durable, pending, agents }
    }
}

fn said<T>(probe: Result<Result<T, StoreError>, tokio::time::error::Elapsed>, what: &str) -> Option<T> {
    match probe {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(cause = crate::api::problem::chain(&error), "the database can't be {what}");
            None
        }
        Err(_) => {
            tracing::warn!("the database is not {what} within {} s", WITHIN.as_secs());
            None
        }
    }
}

//! What is looked at beside the contract's four services. Another one is a line in
//! [`all`]: a name, and a future that says how it fares. Each has a deadline of its own, so
//! that one that hangs is degraded and holds up nobody. Open to all who may ask for health:
//! no detail holds a name, an address or a path.

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use utoipa::ToSchema;

use super::{Space, Status, WITHIN, space};
use crate::app::AppState;
use crate::clock::rfc3339;

/// How one service fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Service {
    #[schema(value_type = crate::api::health::HealthStatus)]
    pub status: Status,
    /// Why, where that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Service {
    #[must_use]
    pub fn healthy() -> Self {
        Self { status: Status::Healthy, detail: None }
    }

    #[must_use]
    pub fn degraded(detail: impl Into<String>) -> Self {
        Self { status: Status::Degraded, detail: Some(detail.into()) }
    }
}

/// The services; a part that is not configured is left out.
fn all(app: &AppState) -> Vec<(&'static str, BoxFuture<'_, Service>)> {
    let mut services = vec![
        ("disk", disk(app).boxed()),
        ("store_queue", async { store_queue(app) }.boxed()),
        ("certificate", async { certificate(app) }.boxed()),
        ("background_tasks", async { background(app) }.boxed()),
    ];
    // Instances wake each other through it, and go on without it.
    if let Some(up) = app.cluster.redis_is_up() {
        services.push(("redis", async move { Service { status: Status::of(up), detail: None } }.boxed()));
    }
    services
}

/// All of them, side by side.
pub(super) async fn look(app: &AppState) -> BTreeMap<&'static str, Service> {
    let asked = all(app).into_iter().map(|(name, service)| async move {
        let late = || Service::degraded(format!("it did not answer within {} s", WITHIN.as_secs()));
        (name, tokio::time::timeout(WITHIN, service).await.unwrap_or_else(|_| late()))
    });
    join_all(asked).await.into_iter().collect()
}

/// Room on the data directory's file system.
async fn disk(app: &AppState) -> Service {
    match room(app).await {
        Some(space) if space.is_enough() => Service::healthy(),
        Some(space) => Service::degraded(format!("{} of {} MiB are free", space.free >> 20, space.size >> 20)),
        None => Service::degraded("the data directory can't be looked at"),
    }
}

/// A file system that hangs costs one thread, not one for each who asks.
static LOOKING: AtomicBool = AtomicBool::new(false);

struct Looked;

impl Drop for Looked {
    fn drop(&mut self) {
        LOOKING.store(false, Ordering::Release);
    }
}

pub(crate) async fn room(app: &AppState) -> Option<Space> {
    if LOOKING.swap(true, Ordering::AcqRel) {
        // Somebody looks just now: `space` takes microseconds, unless it hangs.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        if LOOKING.swap(true, Ordering::AcqRel) {
            return None;
        }
    }
    let dir = app.config.data_dir.clone();
    let found = tokio::task::spawn_blocking(move || {
        let _looked = Looked;
        space(&dir)
    });
    found.await.ok()?.inspect_err(|error| tracing::warn!(%error, "the data directory can't be looked at")).ok()
}

/// The writer's queues have room.
fn store_queue(app: &AppState) -> Service {
    let queues = app.store.backlog();
    let full = |waiting: usize, capacity: usize| waiting * 10 >= capacity * 9;
    if full(queues.ops, queues.ops_capacity) || full(queues.notes, queues.notes_capacity) {
        return Service::degraded(format!("{} changes wait to be written", queues.ops + queues.notes));
    }
    Service::healthy()
}

/// The agents' port's own certificate is still good.
fn certificate(app: &AppState) -> Service {
    let Some(ends) = app.tls.get().and_then(|tls| tls.not_after_ms()) else { return Service::healthy() };
    if ends <= app.clock.now_ms() {
        return Service::degraded(format!("the agents' port's certificate expired at {}", rfc3339(ends)));
    }
    Service::healthy()
}

/// No background task waits to be started again.
fn background(app: &AppState) -> Service {
    let fallen = app.background.not_running();
    if fallen.is_empty() { Service::healthy() } else { Service::degraded(fallen.join(", ")) }
}

//! Several instances over one store. Everything that counts is in the store; instances
//! tell each other only where to look, and each looks by itself every other second. So a
//! Redis that is gone, or full of lies, costs time and queries, and orders nothing.
//!
//! - [`event`]: what instances tell each other
//! - [`bus`], [`link`], [`url`]: how; Redis, or not at all
//! - [`instance`]: this instance's lease, and those that are dead
//! - [`sessions`]: whose session is where
//! - [`leases`]: background work that one instance does at a time
//! - [`rate`]: how often a token may ask, over all instances
//! - [`follow`]: from what is heard, or found in the store, to what is done

pub mod bus;
pub mod event;
pub mod follow;
mod instance;
pub(crate) mod leases;
pub mod link;
pub mod rate;
pub mod sessions;
#[cfg(test)]
mod tests;
pub mod url;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::background::Background;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

pub use bus::{Bus, Heard};
pub use event::Event;
pub use sessions::Held;
pub use url::RedisUrl;

/// What an instance is made of.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub hub: Hub,
    pub background: Background,
    pub metrics: Metrics,
    /// Whether other instances may use the store too.
    pub shared: bool,
    pub redis: Option<redis::Client>,
    /// The id of the key that signs warrants.
    pub warrant_key: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("an instance named {0} is running already")]
    Taken(String),
    #[error("instance {0} signs warrants with another key: give all instances the same warrant_key")]
    WarrantKey(String),
    #[error("the store refuses")]
    Store(#[from] StoreError),
}

/// A handle; clones share everything.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    hub: Hub,
    background: Background,
    metrics: Metrics,
    instance: String,
    boot: String,
    warrant_key: String,
    shared: bool,
    bus: Bus,
    /// Leases that this instance holds, each until a time that is surely before its end.
    leases: Mutex<HashMap<&'static str, Instant>>,
    claims: mpsc::Sender<sessions::Work>,
    claims_out: tokio::sync::Mutex<mpsc::Receiver<sessions::Work>>,
    /// Grows with every change of tokens that was heard of.
    tokens: AtomicU64,
    /// The same of revoked agents and certificates.
    agents: AtomicU64,
    /// Others that live, as of the last beat.
    others: AtomicU64,
    /// When the last beat reached the store.
    beaten: Mutex<Instant>,
}

impl Cluster {
    /// Join the instances over the store, if there may be others; its tasks run under
    /// `parts.background`.
    ///
    /// # Errors
    /// When the name is taken, the others sign with another key, or the store refuses.
    pub async fn start(parts: Parts) -> Result<Self, ClusterError> {
        let Parts { store, hub, background, metrics, shared, redis, warrant_key } = parts;
        let instance = hub.instance().to_owned();
        let ears = bus::Ears::default();
        let mut waiting = None;
        let bus = match redis.filter(|_| shared) {
            Some(client) => {
                let group = store.group_name(random()).await?;
                let link = link::Link::new(client, instance.as_str().into(), &group, metrics.clone());
                let (out, out_in) = mpsc::channel(bus::OUT);
                waiting = Some(Arc::new(tokio::sync::Mutex::new(out_in)));
                Bus::Redis(link, out, ears.clone())
            }
            None => Bus::Local(ears.clone()),
        };
        let (claims, claims_out) = mpsc::channel(sessions::WAITING);
        let inner = Inner {
            store,
            hub,
            background: background.clone(),
            metrics,
            instance,
            boot: random(),
            warrant_key,
            shared,
            bus,
            leases: Mutex::default(),
            claims,
            claims_out: tokio::sync::Mutex::new(claims_out),
            tokens: AtomicU64::new(0),
            agents: AtomicU64::new(0),
            others: AtomicU64::new(0),
            beaten: Mutex::new(Instant::now()),
        };
        let this = Self { inner: Arc::new(inner) };
        if !shared {
            return Ok(this);
        }
        this.join().await?;
        let of = this.clone();
        background.supervise("instance", move || instance::run(of.clone()));
        let of = this.clone();
        background.supervise("sessions", move || sessions::run(of.clone()));
        if let (Bus::Redis(link, _, ears), Some(waiting)) = (&this.inner.bus, waiting) {
            let (of, ears, stop) = (link.clone(), ears.clone(), background.token().clone());
            background.supervise("redis", move || of.clone().run(ears.clone(), stop.clone()));
            let (of, stop) = (link.clone(), background.token().clone());
            background.supervise("bus", move || of.clone().publish(waiting.clone(), stop.clone()));
        }
        Ok(this)
    }

    /// Whether other instances may use the store too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.inner.shared
    }

    #[must_use]
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }

    /// Other instances that live, as of a second ago.
    #[must_use]
    pub fn others(&self) -> u64 {
        self.inner.others.load(Ordering::Relaxed)
    }

    /// Whether Redis is there; `None` where none is configured.
    #[must_use]
    pub fn redis_is_up(&self) -> Option<bool> {
        self.inner.bus.link().map(link::Link::is_up)
    }

    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// Tell the other instances where to look.
    pub fn publish(&self, event: Event) {
        self.inner.bus.publish(event, &self.inner.metrics);
    }

    /// Grows whenever tokens may have changed elsewhere.
    #[must_use]
    pub fn tokens_seen(&self) -> u64 {
        self.inner.tokens.load(Ordering::Relaxed)
    }

    /// Grows whenever agents or certificates may have been revoked elsewhere.
    #[must_use]
    pub fn agents_seen(&self) -> u64 {
        self.inner.agents.load(Ordering::Relaxed)
    }

    /// Nothing that is remembered of tokens counts any more.
    pub(crate) fn forget_tokens(&self) {
        self.inner.tokens.fetch_add(1, Ordering::Relaxed);
    }
}

/// Unlike any other.
pub(crate) fn random() -> String {
    let mut bytes = [0; 8];
    // Without randomness the time is unlike enough.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = crate::clock::Clock::default().now_ms().to_be_bytes();
    }
    hex::encode(bytes)
}

fn millis(of: std::time::Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

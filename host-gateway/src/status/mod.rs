//! How this gateway is: for its host's owner through a unix socket, and the gateway's part
//! of the telemetry. Reads counters; changes nothing.
//!
//! [`server`] the socket · [`services`] how each part fares · [`metrics`] Prometheus text · [`client`] `viworks-gateway status`

mod client;
mod metrics;
mod server;
mod services;

pub use client::{AskError, ask, metrics_of};
pub use server::{ServeError, Server};
pub use services::Service;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::telemetry::GatewaySample;

use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::{Config, PolicyFile, PolicyHealth};
use crate::dispatch;
use crate::executor::Executor;
use crate::journal::Journal;
use crate::link::{LinkState, LinkStatus, Phase};
use crate::plugins::Plugins;
use crate::trust::TrustHealth;
use services::Probes;

/// Handles on everything that has something to tell. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    agent: String,
    max_concurrency: u32,
    certificate_expires: i64,
    started: Instant,
    link: Arc<LinkState>,
    executor: Executor,
    plugins: Plugins,
    policy: PolicyFile,
    journal: Journal,
    audit: Audit,
    clock: Clock,
    probes: Probes,
}

/// `GET /health`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// `healthy` where all services are; else `degraded`.
    pub status: String,
    pub agent: String,
    pub version: String,
    pub uptime_secs: u64,
    pub link: LinkStatus,
    pub reconnects: u32,
    pub plugins: Vec<PluginStatus>,
    pub repository: TrustHealth,
    pub policy: PolicyHealth,
    pub journal: JournalHealth,
    pub executor: ExecutorHealth,
    /// When the client certificate ends: Unix seconds.
    pub certificate_expires: i64,
    /// How far the host's clock is behind the backend's.
    pub clock_offset_ms: i64,
    pub audit_lost: u64,
    /// Each part by name.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalHealth {
    /// Reports that the backend has not acknowledged, in memory and journal.
    pub owed: u32,
    /// Why verbs that change the host are refused.
    pub fault: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecutorHealth {
    pub running: u32,
    pub queued: u32,
    pub max_concurrency: u32,
    pub ended: u64,
}

impl Vitals {
    #[must_use]
    pub fn new(
        config: &Config,
        link: Arc<LinkState>,
        executor: Executor,
        plugins: Plugins,
        journal: Journal,
        audit: Audit,
        clock: Clock,
    ) -> Self {
        let probes = Probes::new(Arc::clone(executor.host()), &config.state_dir);
        Self(Arc::new(Inner {
            agent: config.agent.to_string(),
            max_concurrency: config.max_concurrency,
            certificate_expires: config.credentials.expires,
            started: Instant::now(),
            link,
            executor,
            plugins,
            policy: config.policy_file.clone(),
            journal,
            audit,
            clock,
            probes,
        }))
    }

    #[must_use]
    pub fn link(&self) -> &LinkState {
        &self.0.link
    }

    /// Reports that the backend has not acknowledged.
    #[must_use]
    pub fn owed(&self) -> u32 {
        let in_memory = u32::try_from(self.0.executor.unacknowledged().len()).unwrap_or(u32::MAX);
        self.0.journal.owed().saturating_add(in_memory)
    }

    #[must_use]
    pub fn repository(&self) -> TrustHealth {
        self.0.plugins.repository().health(SystemTime::now())
    }

    /// Why this gateway takes no orders now: `draining`, `disconnected`, `journal`. Empty: it does.
    #[must_use]
    pub fn not_ready(&self) -> Vec<&'static str> {
        let inner = &self.0;
        let checks = [
            ("draining", inner.executor.is_draining()),
            ("disconnected", inner.link.status().phase != Phase::Connected),
            ("journal", inner.journal.fault().is_some()),
        ];
        checks.into_iter().filter(|(_, not)| *not).map(|(reason, _)| reason).collect()
    }

    pub async fn health(&self) -> Health {
        let inner = &self.0;
        let link = inner.link.status();
        let fault = inner.journal.fault().map(|fault| fault.to_string());
        let repository = self.repository();
        let policy = inner.policy.health();
        let services = self.services().await;
        let healthy = services.values().all(Service::is_healthy);
        let metrics = inner.executor.metrics();
        Health {
            status: if healthy { "healthy" } else { "degraded" }.to_owned(),
            agent: inner.agent.clone(),
            version: crate::selfupdate::version().to_owned(),
            uptime_secs: inner.started.elapsed().as_secs(),
            link,
            reconnects: inner.link.reconnects(),
            plugins: inner.plugins.statuses(),
            repository,
            policy,
            journal: JournalHealth { owed: self.owed(), fault },
            executor: ExecutorHealth {
                running: metrics.running.load(Ordering::Relaxed),
                queued: metrics.queued.load(Ordering::Relaxed),
                max_concurrency: inner.max_concurrency,
                ended: dispatch::ended(&inner.executor),
            },
            certificate_expires: inner.certificate_expires,
            clock_offset_ms: inner.clock.offset_ms(),
            audit_lost: inner.audit.dropped(),
            services,
        }
    }

    /// The gateway's part of a telemetry sample.
    #[must_use]
    pub fn sample(&self) -> GatewaySample {
        let metrics = self.0.executor.metrics();
        let now = |gauge: &AtomicU32| gauge.load(Ordering::Relaxed);
        let total = |counter: u64| u32::try_from(counter).unwrap_or(u32::MAX);
        let load = |counter: &AtomicU64| total(counter.load(Ordering::Relaxed));
        GatewaySample {
            rss_kib: rss_kib().unwrap_or(0),
            running: now(&metrics.running),
            queued: now(&metrics.queued),
            outbox: self.owed(),
            invocations: total(dispatch::ended(&self.0.executor)),
            denials: load(&metrics.denials),
            reconnects: self.0.link.reconnects(),
        }
    }
}

/// This process's resident memory.
fn rss_kib() -> Option<u32> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    u32::try_from(pages * rustix::param::page_size() / 1_024).ok()
}

/// No exchange over the socket takes longer.
const LIMIT: Duration = Duration::from_secs(5);

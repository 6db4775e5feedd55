//! How each part of this gateway fares, for `/health` and the metrics. What has to be asked
//! of others (the container engine, the file system) is asked within a deadline and kept for
//! some seconds, so that an answer here never hangs with what is broken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::Vitals;
use crate::clock::host_ms;
use crate::host::Host;
use crate::link::Phase;
use crate::trust::Standing;

/// How old a probe's answer may be.
const KEPT: Duration = Duration::from_secs(2);
/// Each probe is given so long.
const WITHIN: Duration = Duration::from_secs(2);
/// Less room than this, or than a twentieth of a small file system, is too little.
const LEAST: u64 = 64 * 1024 * 1024;
/// Reports not acknowledged: with so many the backend has not taken results for long.
const MOST_OWED: u32 = 1_000;

/// How one part fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `healthy` or `degraded`.
    pub status: String,
    /// Why, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Service {
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.status == "healthy"
    }

    fn of(fault: Option<String>) -> Self {
        let status = if fault.is_none() { "healthy" } else { "degraded" };
        Self { status: status.to_owned(), detail: fault }
    }

    fn unless(good: bool, fault: impl FnOnce() -> String) -> Self {
        Self::of((!good).then(fault))
    }
}

/// What has to be asked of others, as it was a moment ago.
#[derive(Debug)]
pub(super) struct Probes {
    host: Arc<Host>,
    state_dir: PathBuf,
    kept: Mutex<Option<(Instant, Probed)>>,
}

#[derive(Debug, Clone, Default)]
struct Probed {
    /// `None` where nobody needs the engine.
    engine: Option<Result<(), String>>,
    disk: Option<String>,
}

impl Probes {
    pub(super) fn new(host: Arc<Host>, state_dir: &Path) -> Self {
        Self { host, state_dir: state_dir.to_owned(), kept: Mutex::default() }
    }

    async fn ask(&self, engine_is_needed: bool) -> Probed {
        // Locked while it is found out: those who ask meanwhile share the answer.
        let mut kept = self.kept.lock().await;
        if let Some((at, probed)) = &*kept
            && at.elapsed() < KEPT
            && probed.engine.is_some() == engine_is_needed
        {
            return probed.clone();
        }
        let engine = async {
            if !engine_is_needed {
                return None;
            }
            let late = || Err(format!("no answer within {} s", WITHIN.as_secs()));
            Some(tokio::time::timeout(WITHIN, self.host.containers.answers()).await.unwrap_or_else(|_| late()))
        };
        let (engine, disk) = tokio::join!(engine, self.disk());
        let probed = Probed { engine, disk };
        *kept = Some((Instant::now(), probed.clone()));
        probed
    }

    /// What is wrong with the state directory's file system.
    async fn disk(&self) -> Option<String> {
        let dir = self.state_dir.clone();
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&dir));
        match tokio::time::timeout(WITHIN, asked).await {
            Ok(Ok(Ok(found))) => {
                let (free, size) =
                    (found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize));
                (free < LEAST.min(size / 20)).then(|| format!("{} of {} MiB are free", free >> 20, size >> 20))
            }
            Ok(Ok(Err(error))) => Some(error.to_string()),
            Ok(Err(_)) => Some("it could not be asked".to_owned()),
            Err(_) => Some(format!("no answer within {} s", WITHIN.as_secs())),
        }
    }
}

impl Vitals {
    /// Every part by name.
    pub(super) async fn services(&self) -> BTreeMap<String, Service> {
        let inner = &self.0;
        let engine_is_needed = inner.executor.grants(|grant| grant.containers.is_some());
        let probed = inner.probes.ask(engine_is_needed).await;
        let (link, repository, policy) = (inner.link.status(), self.repository(), inner.policy.health());
        let owed = self.owed();
        let ends = inner.certificate_expires;
        let now = i64::try_from(host_ms() / 1_000).unwrap_or(i64::MAX);
        let mut services = vec![
            (
                "link",
                Service::unless(link.phase == Phase::Connected, || {
                    link.last_error.clone().unwrap_or_else(|| "no session with the backend".to_owned())
                }),
            ),
            ("journal", Service::of(inner.journal.fault().map(|fault| fault.to_string()))),
            (
                "repository",
                Service::unless(repository.standing != Standing::Stale, || "its metadata is stale".to_owned()),
            ),
            ("policy", Service::of(policy.fault.map(|fault| format!("the file is refused: {fault}")))),
            ("certificate", Service::unless(ends > now, || "the client certificate has expired".to_owned())),
            ("disk", Service::of(probed.disk)),
            (
                "executor",
                Service::unless(!inner.executor.is_full(), || "its queue is full: orders are answered busy".to_owned()),
            ),
            ("outbox", Service::unless(owed < MOST_OWED, || format!("{owed} reports are not acknowledged"))),
            ("audit", Service::unless(!inner.audit.is_failing(), || "the audit log can't be written".to_owned())),
        ];
        if let Some(engine) = probed.engine {
            services.push(("container_engine", Service::of(engine.err())));
        }
        services.into_iter().map(|(name, service)| (name.to_owned(), service)).collect()
    }
}

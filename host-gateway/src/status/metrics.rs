//! `GET /metrics`: the counters as Prometheus text, read as they are asked for.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use viworks_protocol::frame::PluginState;
use viworks_protocol::outcome::Outcome;
use viworks_protocol::shadow::Verdict;

use super::{Service, Vitals, rss_kib};
use crate::executor::{PHASES, WALL_BUCKETS_US};
use crate::link::Phase;
use crate::trust::Standing;

/// All metrics of this gateway.
pub(super) fn text(vitals: &Vitals, services: BTreeMap<String, Service>) -> String {
    let mut registry = Registry::with_prefix("viworks_gateway");
    registry.register_collector(Box::new(Reading { vitals: vitals.clone(), services }));
    let mut out = String::new();
    if let Err(error) = text::encode(&mut out, &registry) {
        tracing::error!(%error, "the metrics could not be written");
    }
    out
}

/// What is read at one scrape.
#[derive(Debug)]
struct Reading {
    vitals: Vitals,
    services: BTreeMap<String, Service>,
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let vitals = &self.vitals;
        let inner = &vitals.0;
        let (metrics, plugins) = (inner.executor.metrics(), inner.plugins.metrics());
        let status = inner.link.status();
        let states = inner.plugins.statuses();
        let repository = vitals.repository();
        let expires = repository.expires.map_or(0, |(_, at)| i64::try_from(at).unwrap_or(i64::MAX));
        let in_state = |state| states.iter().filter(|s| s.state == state && !s.shadow).count() as i64;

        for (name, help, value) in [
            ("connected", "Whether there is a session with the backend", i64::from(status.phase == Phase::Connected)),
            ("running", "Invocations that run", metrics.running.load(Ordering::Relaxed).into()),
            ("queued", "Invocations that wait for their turn", metrics.queued.load(Ordering::Relaxed).into()),
            ("outbox", "Reports that the backend has not acknowledged", vitals.owed().into()),
            ("journal_writable", "Whether the journal can be written", i64::from(inner.journal.fault().is_none())),
            ("plugins_active", "Plugins that answer to their verbs", in_state(PluginState::Active)),
            ("plugins_refused", "Plugins that were refused", in_state(PluginState::Refused)),
            ("repository_fresh", "Whether new releases can be admitted", {
                i64::from(matches!(repository.standing, Standing::Off | Standing::Fresh))
            }),
            ("repository_stale", "Whether the repository's metadata is stale", {
                i64::from(repository.standing == Standing::Stale)
            }),
            (
                "repository_not_after_timestamp_seconds",
                "Unix time at which the metadata of the repository ends, 0 without one",
                expires,
            ),
            ("policy_refused", "Whether the policy file is refused", i64::from(inner.policy.health().fault.is_some())),
            (
                "certificate_not_after_timestamp_seconds",
                "Unix time at which the client certificate ends",
                inner.certificate_expires,
            ),
            ("ready", "Whether orders are taken", i64::from(vitals.not_ready().is_empty())),
            ("queue_full", "Whether one more invocation would be answered busy", i64::from(inner.executor.is_full())),
            ("plugins_fetching", "Plugins that are being fetched", in_state(PluginState::Fetching)),
            ("resident_memory_bytes", "Resident memory of this process", i64::from(rss_kib().unwrap_or(0)) * 1_024),
        ] {
            gauge(&mut encoder, name, help, value)?;
        }
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, value) in [
            ("reconnects", "Sessions after the first", inner.link.reconnects().into()),
            ("orders_refused", "Orders whose warrant was refused", inner.link.orders_refused().into()),
            ("frames_refused", "Frames that ended a session", inner.link.frames_refused().into()),
            ("submitted", "Warrants taken, repetitions not counted", load(&metrics.submitted)),
            ("duplicates", "Repetitions of known invocations", load(&metrics.duplicates)),
            ("busy", "Invocations answered busy", load(&metrics.busy)),
            ("limits", "Invocations ended by a limit", load(&metrics.limits)),
            ("timeouts", "Invocations ended by their deadline", load(&metrics.timeouts)),
            ("traps", "Invocations ended by a trap", load(&metrics.traps)),
            ("denials", "Calls that a grant refused", load(&metrics.denials)),
            ("host_calls", "Calls of plugins to the host", load(&metrics.host_calls)),
            ("panics", "Tasks of the gateway that panicked", load(&metrics.panics)),
            ("plugins_compiled", "Components compiled", load(&plugins.compiled)),
            ("plugins_from_cache", "Components taken from the compiled cache", load(&plugins.cache_hits)),
            ("plugins_revoked", "Releases that were revoked while they were here", load(&plugins.revoked)),
            ("policy_reloads", "Policies taken since the start", inner.policy.health().reloads),
            ("audit_lost", "Audit records that were lost", inner.audit.dropped()),
            ("overflows", "Orders dropped because far too many came at once", load(&metrics.overflows)),
            ("journal_commits", "Commits of the journal", inner.journal.commits()),
            ("plugins_admitted", "Releases that were admitted", load(&plugins.admitted)),
            ("plugins_rejected", "Releases that were refused", load(&plugins.refused)),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let mut family = encoder.encode_descriptor("invocations", "Ended invocations", None, MetricType::Counter)?;
        for (outcome, counter) in Outcome::ALL.iter().zip(&metrics.outcomes) {
            let labels = [("outcome", outcome.as_str())];
            ConstCounter::new(load(counter)).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor("shadows", "Plans of shadows", None, MetricType::Counter)?;
        for (verdict, counter) in Verdict::ALL.iter().zip(&metrics.shadows) {
            let labels = [("verdict", verdict.as_str())];
            ConstCounter::new(load(counter)).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "service_healthy",
            "Whether a service of /health is healthy",
            None,
            MetricType::Gauge,
        )?;
        for (name, service) in &self.services {
            let labels = [("service", name.as_str())];
            ConstGauge::new(i64::from(service.is_healthy())).encode(family.encode_family(&labels)?)?;
        }
        let mut build =
            encoder.encode_descriptor("build_info", "The version of this program", None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(build.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?)?;
        for (name, help, value) in [
            (
                "clock_offset_seconds",
                "How far the clock of the host is behind the backend's",
                seconds(inner.clock.offset_ms()),
            ),
            ("uptime_seconds", "Since the start of this process", inner.started.elapsed().as_secs_f64()),
        ] {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let mut histogram = encoder.encode_descriptor(
            "invocation_seconds",
            "Wall time of invocations that ran",
            None,
            MetricType::Histogram,
        )?;
        let (sum, count, buckets) = distribution(&metrics.wall_us, &metrics.wall);
        histogram.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        let mut histogram =
            encoder.encode_descriptor("phase_seconds", "Phases of invocations", None, MetricType::Histogram)?;
        for (name, phase) in PHASES.iter().zip(&metrics.phases) {
            let (sum, count, buckets) = distribution(&phase.us, &phase.counts);
            let labels = [("phase", *name)];
            histogram.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1e3
}

/// Sum in seconds, count, and buckets by their upper bounds.
fn distribution(us: &AtomicU64, counts: &[AtomicU64; 11]) -> (f64, u64, Vec<(f64, u64)>) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let bounds = WALL_BUCKETS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().map(load)).collect();
    let count = buckets.iter().map(|(_, n)| n).sum();
    (load(us) as f64 / 1e6, count, buckets)
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: i64) -> Result<(), Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

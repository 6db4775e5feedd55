//! `GET /metrics`: the counters as Prometheus text, read as they are asked for.

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

use super::{Vitals, rss_kib};
use crate::executor::WALL_BUCKETS_US;
use crate::link::Phase;
use crate::trust::Standing;

/// All metrics of this gateway.
pub(super) fn text(vitals: &Vitals) -> String {
    let mut registry = Registry::with_prefix("viworks_gateway");
    registry.register_collector(Box::new(vitals.clone()));
    let mut out = String::new();
    if let Err(error) = text::encode(&mut out, &registry) {
        tracing::error!(%error, "the metrics could not be written");
    }
    out
}

impl Collector for Vitals {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let inner = &self.0;
        let (metrics, plugins) = (inner.executor.metrics(), inner.plugins.metrics());
        let status = inner.link.status();
        let states = inner.plugins.statuses();
        let repository = self.repository();
        let expires = repository.expires.map_or(0, |(_, at)| i64::try_from(at).unwrap_or(i64::MAX));
        let in_state = |state| states.iter().filter(|s| s.state == state && !s.shadow).count() as i64;

        for (name, help, value) in [
            ("connected", "Whether there is a session with the backend", i64::from(status.phase == Phase::Connected)),
            ("running", "Invocations that run", metrics.running.load(Ordering::Relaxed).into()),
            ("queued", "Invocations that wait for their turn", metrics.queued.load(Ordering::Relaxed).into()),
            ("outbox", "Reports that the backend has not acknowledged", self.owed().into()),
            ("journal_writable", "Whether the journal can be written", i64::from(inner.journal.fault().is_none())),
            ("plugins_active", "Plugins that answer to their verbs", in_state(PluginState::Active)),
            ("plugins_refused", "Plugins that were refused", in_state(PluginState::Refused)),
            ("repository_fresh", "Whether new releases can be admitted", {
                i64::from(matches!(repository.standing, Standing::Off | Standing::Fresh))
            }),
            ("repository_stale", "Whether the repository's metadata is stale", {
                i64::from(repository.standing == Standing::Stale)
            }),
            ("repository_expires_seconds", "Unix time at which the repository's metadata ends, 0 without one", expires),
            ("policy_refused", "Whether the policy file is refused", i64::from(inner.policy.health().fault.is_some())),
            (
                "certificate_expires_seconds",
                "Unix time at which the client certificate ends",
                inner.certificate_expires,
            ),
            ("clock_offset_milliseconds", "How far the host's clock is behind the backend's", inner.clock.offset_ms()),
            ("resident_memory_kibibytes", "Resident memory of this process", rss_kib().unwrap_or(0).into()),
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
        let bounds = WALL_BUCKETS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(metrics.wall.iter().map(load)).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        let mut histogram = encoder.encode_descriptor(
            "invocation_seconds",
            "Wall time of invocations that ran",
            None,
            MetricType::Histogram,
        )?;
        histogram.encode_histogram::<NoLabelSet>(load(&metrics.wall_us) as f64 / 1e6, count, &buckets, None)
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: i64) -> Result<(), Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

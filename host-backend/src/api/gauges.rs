//! What `/metrics` reads off at a scrape rather than counts: queues, states, health, the
//! process. What costs a query is kept for some seconds, however many scrape.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::serve::Edge;
use crate::app::AppState;
use crate::health::{self, Status};
use crate::metrics::process;
use crate::store::model::{Census, CommandState, RolloutState, Standing};

/// How old counts over the store may be.
const KEPT: Duration = Duration::from_secs(2);
/// The store is given so long for them.
const WITHIN: Duration = Duration::from_secs(3);
const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// The one label of a family of gauges.
macro_rules! label {
    ($name:ident, $label:ident) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            $label: &'static str,
        }
    };
}

label!(State, state);
label!(Queue, queue);
label!(Service, service);
label!(Version, version);

type Real = Gauge<f64, AtomicU64>;

#[derive(Debug, Default)]
pub struct Gauges {
    agents: Family<State, Gauge>,
    commands: Family<State, Gauge>,
    releases: Family<State, Gauge>,
    rollouts: Family<State, Gauge>,
    plugins: Family<State, Gauge>,
    queue_length: Family<Queue, Gauge>,
    queue_capacity: Family<Queue, Gauge>,
    healthy: Family<Service, Gauge>,
    ready: Gauge,
    agents_online: Gauge,
    handshakes_underway: Gauge,
    handshakes_waiting: Gauge,
    addresses_remembered: Gauge,
    certificates_expiring: Gauge,
    commands_open: Gauge,
    commands_active: Gauge,
    slots_available: Gauge,
    certificate: Gauge,
    disk_free: Gauge,
    disk_size: Gauge,
    memory: Gauge,
    descriptors: Gauge,
    descriptors_most: Gauge,
    clock: Real,
    restarts: Counter,
    lost: Counter,
    counted: Mutex<Option<Instant>>,
}

impl Gauges {
    pub fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        let (g, r) = (&gauges, registry);
        r.register("agents", "Agents that are known, by state", g.agents.clone());
        r.register("commands", "Commands that have not ended, by state", g.commands.clone());
        r.register("releases", "Releases of plugins, by standing", g.releases.clone());
        r.register("rollouts_open", "Rollouts that have not ended, by state", g.rollouts.clone());
        r.register("agent_plugins", "Plugins on agents, by state", g.plugins.clone());
        r.register("queue_length", "What waits, by queue", g.queue_length.clone());
        r.register("queue_capacity", "What may wait, by queue", g.queue_capacity.clone());
        r.register("service_healthy", "Whether a service of /health is healthy", g.healthy.clone());
        for (name, help, gauge) in [
            ("handshakes_underway", "Connections for agents that are no sessions yet", &g.handshakes_underway),
            ("handshakes_waiting", "Handshakes of agents that wait for their turn", &g.handshakes_waiting),
            ("addresses_remembered", "Addresses whose rate is kept, of both ports", &g.addresses_remembered),
            ("ready", "Whether this instance is ready for work", &g.ready),
            ("agents_online", "Agents with a session at this instance", &g.agents_online),
            (
                "agent_certificates_expiring",
                "Connected agents whose certificate ends within a week",
                &g.certificates_expiring,
            ),
            ("commands_open", "Commands that have not ended", &g.commands_open),
            ("commands_active", "Commands with work at connected agents", &g.commands_active),
            ("slots_available", "Commands that may become active beside these", &g.slots_available),
            (
                "certificate_not_after_timestamp_seconds",
                "When the certificate of the port for agents ends",
                &g.certificate,
            ),
            ("data_dir_free_bytes", "Room on the file system of the data directory", &g.disk_free),
            ("data_dir_size_bytes", "Size of the file system of the data directory", &g.disk_size),
            ("process_resident_memory_bytes", "Resident memory", &g.memory),
            ("process_open_fds", "Open file descriptors", &g.descriptors),
            ("process_max_fds", "File descriptors that may be open", &g.descriptors_most),
        ] {
            r.register(name, help, gauge.clone());
        }
        let started = Real::default();
        started.set(process::started());
        r.register("process_start_time_seconds", "When this process started, in Unix time", started);
        r.register("clock_timestamp_seconds", "The clock of this host, in Unix time", g.clock.clone());
        r.register("store_writer_restarts", "Times that the writer of the store was started again", g.restarts.clone());
        r.register("store_notes_lost", "Changes that could not be written, audit entries too", g.lost.clone());
        let build = Family::<Version, Gauge>::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        r.register("build_info", "The version of this program", build);
        gauges
    }

    /// Counts over the store stay as they were while it can't be read.
    pub async fn read(&self, app: &AppState, edge: &Edge) {
        let health = app.health().await;
        for (service, status) in health.services() {
            self.healthy.get_or_create(&Service { service }).set(i64::from(status == Status::Healthy));
        }
        self.ready.set(i64::from(app.ready.reasons().await.is_empty()));
        self.count(app).await;
        self.queues(app);
        self.sessions(app);
        self.room(app, edge);
        let engine = app.engine.status();
        set(&self.commands_open, engine.open_commands);
        set(&self.commands_active, engine.active_commands.into());
        set(&self.slots_available, engine.available_slots.into());
        if let Some(ends) = app.tls.get().and_then(|tls| tls.not_after_ms()) {
            set(&self.certificate, ends / 1_000);
        }
        if let Ok(Some(space)) = tokio::time::timeout(WITHIN, health::services::room(app)).await {
            set(&self.disk_free, space.free);
            set(&self.disk_size, space.size);
        }
        if let Some(bytes) = process::resident_bytes() {
            set(&self.memory, bytes);
        }
        if let Some((open, most)) = process::descriptors() {
            set(&self.descriptors, open);
            set(&self.descriptors_most, most);
        }
        self.clock.set(process::now());
    }

    async fn count(&self, app: &AppState) {
        let mut counted = self.counted.lock().await;
        if counted.is_some_and(|at| at.elapsed() < KEPT) {
            return;
        }
        let Ok(Ok(census)) = tokio::time::timeout(WITHIN, app.store.census()).await else { return };
        let Census { agents, commands, releases, rollouts, plugins } = census;
        states(&self.agents, &agents, ["online", "offline", "stale"]);
        let open = [CommandState::AwaitingApproval, CommandState::Queued, CommandState::Running];
        states(&self.commands, &commands, open.map(CommandState::as_str));
        states(&self.releases, &releases, Standing::ALL.iter().map(|s| s.as_str()));
        let open = [RolloutState::Running, RolloutState::Paused];
        states(&self.rollouts, &rollouts, open.map(RolloutState::as_str));
        states(&self.plugins, &plugins, ["fetching", "active", "refused"]);
        *counted = Some(Instant::now());
    }

    fn queues(&self, app: &AppState) {
        let (store, telemetry) = (app.store.backlog(), app.telemetry.status());
        let longest = app.hub.longest_queue();
        let queues = [
            ("store_ops", store.ops, store.ops_capacity),
            ("store_notes", store.notes, store.notes_capacity),
            ("samples", telemetry.queued, telemetry.capacity),
            ("hub_outgoing", longest.0, longest.1),
        ];
        for (queue, length, capacity) in queues.into_iter().chain(app.engine.queues()) {
            set(&self.queue_length.get_or_create(&Queue { queue }), length as u64);
            set(&self.queue_capacity.get_or_create(&Queue { queue }), capacity as u64);
        }
        self.restarts.inner().store(store.restarts, Ordering::Relaxed);
        self.lost.inner().store(store.lost, Ordering::Relaxed);
    }

    fn room(&self, app: &AppState, edge: &Edge) {
        let mut addresses = edge.addresses.remembered();
        if let Some(admission) = app.admission.get() {
            set(&self.handshakes_underway, admission.underway() as u64);
            set(&self.handshakes_waiting, admission.waiting() as u64);
            addresses += admission.addresses().remembered();
        }
        set(&self.addresses_remembered, addresses as u64);
    }

    fn sessions(&self, app: &AppState) {
        let soon = app.clock.now_ms() + WEEK_MS;
        set(&self.agents_online, app.hub.connected() as u64);
        set(&self.certificates_expiring, app.hub.certificates_ending_before(soon) as u64);
    }
}

/// States that nothing is in are zero, not absent: an alert must see them end.
fn states(family: &Family<State, Gauge>, counts: &BTreeMap<String, u64>, all: impl IntoIterator<Item = &'static str>) {
    for state in all {
        set(&family.get_or_create(&State { state }), counts.get(state).copied().unwrap_or(0));
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

//! `/metrics`: what the API counts, and the gathering of everything else. Labels come from
//! closed lists (routes, methods, statuses); nothing that a client chooses becomes one.

use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

use super::Shared;
use super::problem::{Problem, ProblemBody, Result};
use super::serve::Edge;
use crate::app::AppState;
use crate::authz::{Guard, Permit, action};

/// Seconds: from a cached read to the longest wait that may be asked for.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    route: String,
    status: u16,
}

/// Requests, answers and streams.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<Answer, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    /// Event streams that are open.
    pub streams: Gauge,
}

impl HttpMetrics {
    /// Register under `http_…` and `api_…`, with the guard's counts of refusals.
    pub fn register(registry: &mut Registry, guard: &Guard) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            streams: Gauge::default(),
        };
        registry.register("http_requests", "Requests by route, method and status", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "From a request's headers to its answer's",
            metrics.seconds.clone(),
        );
        registry.register("api_event_streams", "Open streams of command events", metrics.streams.clone());
        registry.register("api_refusals", "Requests refused for the caller's sake, by reason", guard.refusals());
        metrics
    }

    pub fn answered(&self, method: &Method, route: &str, status: u16, took: Duration) {
        let method = known(method);
        self.requests.get_or_create(&Answer { method, route: route.to_owned(), status }).inc();
        self.seconds.get_or_create(&Route { method, route: route.to_owned() }).observe(took.as_secs_f64());
    }
}

/// What is read off at every scrape rather than counted.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    agents: Gauge,
    agents_online: Gauge,
    commands_open: Gauge,
    commands_active: Gauge,
    slots_available: Gauge,
    results_waiting: Gauge,
    samples_waiting: Gauge,
    handshakes_underway: Gauge,
    handshakes_waiting: Gauge,
    addresses_remembered: Gauge,
    store_ops_waiting: Gauge,
    store_notes_waiting: Gauge,
    store_writer_restarts: Gauge,
}

impl Gauges {
    pub fn register(registry: &mut Registry) -> Self {
        let gauges = Self::default();
        let g = &gauges;
        for (name, help, gauge) in [
            ("agents", "Agents that are known", &g.agents),
            ("agents_online", "Agents with a session", &g.agents_online),
            ("commands_open", "Commands that have not ended", &g.commands_open),
            ("commands_active", "Commands with work at connected agents", &g.commands_active),
            ("slots_available", "Commands that may become active beside these", &g.slots_available),
            ("results_waiting", "Results that wait to be made durable", &g.results_waiting),
            ("samples_waiting", "Telemetry samples that wait for the store", &g.samples_waiting),
            ("handshakes_underway", "Agents' connections that are no sessions yet", &g.handshakes_underway),
            ("handshakes_waiting", "Agents' handshakes that wait for their turn", &g.handshakes_waiting),
            ("addresses_remembered", "Addresses whose rate is kept, of both ports", &g.addresses_remembered),
            ("store_ops_waiting", "Changes that wait for the store's writer, somebody waiting", &g.store_ops_waiting),
            ("store_notes_waiting", "Changes that wait for the store's writer, nobody waiting", &g.store_notes_waiting),
            ("store_writer_restarts", "Times that the store's writer was started again", &g.store_writer_restarts),
        ] {
            registry.register(name, help, gauge.clone());
        }
        gauges
    }

    /// The number of known agents stays as it was while the store can't be read.
    async fn read(&self, app: &AppState, edge: &Edge) {
        if let Ok((all, _)) = app.store.count_agents().await {
            set(&self.agents, all);
        }
        set(&self.agents_online, app.hub.connected() as u64);
        let engine = app.engine.status();
        set(&self.commands_open, engine.open_commands);
        set(&self.commands_active, engine.active_commands.into());
        set(&self.slots_available, engine.available_slots.into());
        set(&self.results_waiting, engine.results_waiting as u64);
        set(&self.samples_waiting, app.telemetry.status().queued as u64);
        let mut addresses = edge.addresses.remembered();
        if let Some(admission) = app.admission.get() {
            set(&self.handshakes_underway, admission.underway() as u64);
            set(&self.handshakes_waiting, admission.waiting() as u64);
            addresses += admission.addresses().remembered();
        }
        set(&self.addresses_remembered, addresses as u64);
        let backlog = app.store.backlog();
        set(&self.store_ops_waiting, backlog.ops as u64);
        set(&self.store_notes_waiting, backlog.notes as u64);
        set(&self.store_writer_restarts, backlog.restarts);
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// All metrics in the OpenMetrics text format; docs/metrics.md explains them.
#[utoipa::path(get, operation_id = "get_metrics", path = "/metrics", tag = "service", security(("token" = [])), responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(State(api): State<Shared>, _: Permit<action::Read>) -> Result<Response> {
    api.gauges.read(&api.app, &api.edge).await;
    let mut body = String::with_capacity(16 * 1024);
    text::encode(&mut body, &api.registry).map_err(|e| Problem::internal(&e))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

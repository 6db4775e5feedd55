//! `/metrics`: what the API counts, and the gathering of everything else. Labels come from
//! closed lists (routes, methods, statuses); nothing that a client chooses becomes one.

use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;
use viworks_protocol::exposition::Format;

use super::Shared;
use super::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{Guard, Permit, action};
use crate::metrics::{Kind, Metrics};

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
    problems: Family<Kind, Counter>,
    /// Event streams that are open.
    pub streams: Gauge,
}

impl HttpMetrics {
    /// Register under `http_…` and `api_…`, with the guard's counts of refusals.
    pub fn register(registry: &mut Registry, guard: &Guard) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            problems: Family::default(),
            streams: Gauge::default(),
        };
        registry.register("http_requests", "Requests by route, method and status", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "From a request's headers to its answer's",
            metrics.seconds.clone(),
        );
        registry.register("api_problems", "Answers that are problems, by code", metrics.problems.clone());
        registry.register("api_event_streams", "Open streams of command events", metrics.streams.clone());
        registry.register("api_refusals", "Requests refused for the caller's sake, by reason", guard.refusals());
        metrics
    }

    pub fn answered(&self, method: &Method, route: &str, response: &Response, took: Duration) {
        let status = response.status().as_u16();
        if let Some(code) = response.extensions().get::<Code>() {
            Metrics::count(&self.problems, code.as_str());
        }
        let method = known(method);
        self.requests.get_or_create(&Answer { method, route: route.to_owned(), status }).inc();
        self.seconds.get_or_create(&Route { method, route: route.to_owned() }).observe(took.as_secs_f64());
    }
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

/// All metrics, in the OpenMetrics text format for those who accept it, else in Prometheus'
/// own; docs/metrics.md explains them.
#[utoipa::path(get, operation_id = "get_metrics", path = "/metrics", tag = "service", security(("token" = [])), responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(State(api): State<Shared>, _: Permit<action::Read>, headers: HeaderMap) -> Result<Response> {
    api.gauges.read(&api.app, &api.edge).await;
    let mut body = String::with_capacity(32 * 1024);
    text::encode(&mut body, &api.registry).map_err(|e| Problem::internal(&e))?;
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    Ok(([(header::CONTENT_TYPE, format.content_type())], format.write(body)).into_response())
}

//! `/health`: how the backend fares, by service; open to all, and 503 when something that
//! matters does not work. `/health/live` says that it answers, `/health/ready` whether it
//! should be given work.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::Shared;
use super::moment::Moment;
use crate::health::{Service, Status};

/// How the backend fares; at most a second old.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    #[schema(value_type = HealthStatus)]
    pub status: Status,
    pub timestamp: Moment,
    /// The backend program's.
    pub version: &'static str,
    pub services: Services,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Services {
    pub database: Database,
    pub agent_registry: AgentRegistry,
    pub command_engine: CommandEngine,
    pub telemetry_processor: TelemetryProcessor,
    /// Others by name: `disk`, `certificate`, …
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, Service>)]
    pub more: BTreeMap<&'static str, Service>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Database {
    #[schema(value_type = HealthStatus)]
    pub status: Status,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AgentRegistry {
    #[schema(value_type = HealthStatus)]
    pub status: Status,
    pub total_agents: u64,
    /// With a session at this moment.
    pub connected_agents: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CommandEngine {
    #[schema(value_type = HealthStatus)]
    pub status: Status,
    /// Commands with work at connected agents.
    pub active_commands: u32,
    pub available_slots: u32,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TelemetryProcessor {
    #[schema(value_type = HealthStatus)]
    pub status: Status,
    pub samples_queued: u64,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of `crate::health::Status`")]
pub enum HealthStatus {
    Healthy,
    Degraded,
}

/// How the backend fares.
#[utoipa::path(get, operation_id = "get_health", path = "/health", tag = "service", responses(
    (status = 200, body = Health),
    (status = 503, body = Health, description = "Something that matters does not work"),
))]
pub async fn get(State(api): State<Shared>) -> (StatusCode, axum::Json<Health>) {
    let health = api.app.health().await;
    let status = match health.status {
        Status::Healthy => StatusCode::OK,
        Status::Degraded => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = Health {
        status: health.status,
        timestamp: Moment(health.timestamp_ms),
        version: env!("CARGO_PKG_VERSION"),
        services: Services {
            database: Database { status: health.database },
            agent_registry: AgentRegistry {
                status: health.agent_registry,
                total_agents: health.total_agents,
                connected_agents: health.connected_agents,
            },
            command_engine: CommandEngine {
                status: health.command_engine,
                active_commands: health.active_commands,
                available_slots: health.available_slots,
            },
            telemetry_processor: TelemetryProcessor {
                status: health.telemetry_processor,
                samples_queued: health.samples_queued,
            },
            more: health.more,
        },
    };
    (status, axum::Json(body))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Alive {
    /// `alive`.
    pub status: &'static str,
}

/// That it answers at all: restart it when it does not.
#[utoipa::path(get, operation_id = "get_liveness", path = "/health/live", tag = "service", responses(
    (status = 200, body = Alive),
))]
pub async fn live() -> axum::Json<Alive> {
    axum::Json(Alive { status: "alive" })
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// `ready` or `not_ready`.
    pub status: &'static str,
    /// Why it is not: `draining`, `store`, `migrations`.
    pub reasons: Vec<&'static str>,
}

/// Whether it should be given work; at most a second old.
#[utoipa::path(get, operation_id = "get_readiness", path = "/health/ready", tag = "service", responses(
    (status = 200, body = Ready),
    (status = 503, body = Ready, description = "Send requests to another instance"),
))]
pub async fn ready(State(api): State<Shared>) -> (StatusCode, axum::Json<Ready>) {
    let reasons = api.app.ready.reasons().await;
    let (code, status) = match reasons.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    (code, axum::Json(Ready { status, reasons }))
}

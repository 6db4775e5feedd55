//! `/agents`: the gateways that the backend knows, and their telemetry. Presence is what
//! the hub says at this moment, not what was written last.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use viworks_protocol::frame::PluginState;
use viworks_protocol::id::AgentId;

use super::Shared;
use super::extract::{Path, Query};
use super::moment::Moment;
use super::page::{List, Page};
use super::problem::{Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::store::model::{self, AgentFilter, Resolution, StoredSample};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentStatus {
    Online,
    Offline,
}

/// A gateway as the backend knows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Agent {
    pub id: String,
    pub status: AgentStatus,
    pub site: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// The gateway program's.
    pub version: String,
    pub first_seen: Moment,
    pub last_seen: Moment,
    pub max_concurrency: u32,
    pub plugins: Vec<AgentPlugin>,
    /// Its chain of receipts; null if it signs none.
    pub receipts: Option<AgentReceipts>,
}

/// The chain of the key that is pinned for an agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentReceipts {
    /// The key's id.
    pub key: String,
    pub since: Moment,
    /// Keys that were pinned before: it was changed so often.
    pub former_keys: u32,
    /// The place of the last receipt that is held.
    pub last: u64,
    /// Receipts before it that never came.
    pub missing: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AgentPlugin {
    pub plugin: String,
    pub version: String,
    /// Lowercase hex SHA-256 of the component.
    pub digest: String,
    #[schema(value_type = AgentPluginState)]
    pub state: PluginState,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of `viworks_protocol::frame::PluginState`")]
pub enum AgentPluginState {
    Fetching,
    Active,
    Refused,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AgentsQuery {
    status: Option<AgentStatus>,
    site: Option<String>,
    /// `key=value`, several separated by commas; all must hold.
    label: Option<String>,
    /// 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Agents by id.
#[utoipa::path(get, operation_id = "list_agents", path = "/agents", tag = "agents", params(AgentsQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Agent>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Query(query): Query<AgentsQuery>,
) -> Result<axum::Json<Page<Agent>>> {
    let filter = AgentFilter {
        online: query.status.map(|s| s == AgentStatus::Online),
        site: query.site,
        labels: labels(query.label.as_deref())?,
    };
    let page = api.app.store.agents(&filter, &List::Agents.page(query.limit, query.after.as_deref())?).await?;
    Ok(axum::Json(List::Agents.answer(page, |agent| Agent::of(&api, agent))))
}

/// One agent.
#[utoipa::path(get, operation_id = "get_agent", path = "/agents/{id}", tag = "agents", params(("id" = String, Path)), security(("token" = [])), responses(
    (status = 200, body = Agent),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(id): Path<String>,
) -> Result<axum::Json<Agent>> {
    let agent = find(&api, &id).await?;
    Ok(axum::Json(Agent::of(&api, agent)))
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TelemetryResolution {
    /// Every sample that is kept.
    Raw,
    /// Means of hours.
    Hour,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TelemetryQuery {
    /// RFC 3339; an hour ago (raw) or a week ago (hour) if absent.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Moment>,
    #[param(inline)]
    resolution: Option<TelemetryResolution>,
    /// 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// One health sample: sizes are MiB, shares are percent.
#[derive(Debug, Serialize, ToSchema)]
pub struct TelemetrySample {
    pub at: Moment,
    /// Raw samples that this one stands for.
    pub samples: u32,
    pub cpu_percent: f32,
    pub load_one: f32,
    pub load_five: f32,
    pub load_fifteen: f32,
    pub memory_total_mib: u32,
    pub memory_used_mib: u32,
    pub swap_total_mib: u32,
    pub swap_used_mib: u32,
    /// Of the fullest file system.
    pub disk_used_percent: f32,
    pub network_received_bytes: f64,
    pub network_sent_bytes: f64,
    pub uptime_secs: u32,
    pub gateway: GatewaySample,
}

/// The gateway's own state. Counters are since its start.
#[derive(Debug, Serialize, ToSchema)]
pub struct GatewaySample {
    pub rss_kib: u32,
    pub running: u32,
    pub queued: u32,
    pub outbox: u32,
    pub invocations: u32,
    pub denials: u32,
    pub reconnects: u32,
}

/// An agent's health samples, oldest first.
#[utoipa::path(get, operation_id = "get_agent_telemetry", path = "/agents/{id}/telemetry", tag = "agents", params(("id" = String, Path), TelemetryQuery),
    security(("token" = [])), responses(
    (status = 200, body = Page<TelemetrySample>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn telemetry(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(id): Path<String>,
    Query(query): Query<TelemetryQuery>,
) -> Result<axum::Json<Page<TelemetrySample>>> {
    const HOUR_MS: u64 = 3_600_000;
    let page = List::Telemetry.page(query.limit, query.after.as_deref())?;
    let agent = find(&api, &id).await?;
    let (resolution, back_ms) = match query.resolution.unwrap_or(TelemetryResolution::Raw) {
        TelemetryResolution::Raw => (Resolution::Raw, HOUR_MS),
        TelemetryResolution::Hour => (Resolution::Hour, 7 * 24 * HOUR_MS),
    };
    let since = query.since.map_or_else(|| api.app.clock.now_ms().saturating_sub(back_ms), |at| at.0);
    let samples = api.app.store.telemetry(&agent.id, since, resolution, &page).await?;
    Ok(axum::Json(List::Telemetry.answer(samples, TelemetrySample::from)))
}

async fn find(api: &Shared, id: &str) -> Result<model::Agent> {
    let missing = || Problem::not_found("agent", id);
    let parsed: AgentId = id.parse().map_err(|_| missing())?;
    api.app.store.agent(&parsed).await?.ok_or_else(missing)
}

fn labels(text: Option<&str>) -> Result<BTreeMap<String, String>> {
    text.into_iter()
        .flat_map(|text| text.split(','))
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Problem::invalid(format!("label {pair:?} is not key=value"))),
        })
        .collect()
}

impl Agent {
    fn of(api: &Shared, agent: model::Agent) -> Self {
        // Of other instances' agents the store knows, a moment later.
        let online = api.app.hub.is_connected(&agent.id) || (api.app.cluster.is_shared() && agent.online);
        Self {
            status: if online { AgentStatus::Online } else { AgentStatus::Offline },
            id: agent.id.into(),
            site: agent.site,
            labels: agent.labels,
            version: agent.version,
            first_seen: Moment(agent.first_seen_ms),
            last_seen: Moment(agent.last_seen_ms),
            max_concurrency: agent.max_concurrency,
            plugins: agent
                .plugins
                .into_iter()
                .map(|p| AgentPlugin {
                    plugin: p.plugin,
                    version: p.version,
                    digest: p.digest,
                    state: p.state,
                    detail: p.detail,
                })
                .collect(),
            receipts: agent.receipts.map(|r| AgentReceipts {
                key: r.key,
                since: Moment(r.since_ms),
                former_keys: r.former_keys,
                last: r.last,
                missing: r.missing,
            }),
        }
    }
}

impl From<StoredSample> for TelemetrySample {
    fn from(stored: StoredSample) -> Self {
        let StoredSample { at_ms, samples, sample } = stored;
        Self {
            at: Moment(at_ms),
            samples,
            cpu_percent: sample.cpu_percent,
            load_one: sample.load_one,
            load_five: sample.load_five,
            load_fifteen: sample.load_fifteen,
            memory_total_mib: sample.memory_total_mib,
            memory_used_mib: sample.memory_used_mib,
            swap_total_mib: sample.swap_total_mib,
            swap_used_mib: sample.swap_used_mib,
            disk_used_percent: sample.disk_used_percent,
            network_received_bytes: sample.network_received_bytes,
            network_sent_bytes: sample.network_sent_bytes,
            uptime_secs: sample.uptime_secs,
            gateway: GatewaySample {
                rss_kib: sample.gateway.rss_kib,
                running: sample.gateway.running,
                queued: sample.gateway.queued,
                outbox: sample.gateway.outbox,
                invocations: sample.gateway.invocations,
                denials: sample.gateway.denials,
                reconnects: sample.gateway.reconnects,
            },
        }
    }
}

//! `/plugins`: published releases, publication and withdrawal. What is refused here is
//! only told early; every gateway verifies for itself.

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use viworks_signing::release::Release;

use super::Shared;
use super::extract::{Json, Path, Query};
use super::moment::Moment;
use super::page::{List, Page, PageQuery};
use super::problem::{Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::store::model::{self, AuditEntry, Decision, PluginSpread};

/// A published release of a plugin.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plugin {
    pub plugin: String,
    pub version: String,
    /// Lowercase hex SHA-256 of the component.
    pub digest: String,
    pub description: String,
    /// Bytes of the component.
    pub size: u32,
    /// The component's imports.
    pub imports: Vec<String>,
    /// The scopes that it asks for, by capability.
    #[schema(value_type = Object)]
    pub capabilities: serde_json::Value,
    /// Their names.
    pub verbs: Vec<String>,
    pub published: Moment,
    pub published_by: String,
    /// Gateways should have it.
    pub active: bool,
    pub agents: PluginAgents,
}

/// On how many agents it is in which state.
#[derive(Debug, Serialize, ToSchema)]
pub struct PluginAgents {
    pub active: u32,
    pub fetching: u32,
    pub refused: u32,
}

/// A signed bundle: the two files that `viworks-sign` leaves.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginUpload {
    /// `NAME.wasm` in base64.
    #[schema(content_encoding = "base64")]
    component: String,
    /// `NAME.wasm.intoto.jsonl`
    statements: String,
}

/// Every release, newest of each plugin first.
#[utoipa::path(get, operation_id = "list_plugins", path = "/plugins", tag = "plugins", params(PageQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Plugin>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Plugin>>> {
    let page = List::Plugins.page(query.limit, query.after.as_deref())?;
    let model::Page { items, next } = List::Plugins.of_all(api.app.store.plugins().await?, &page, |p| &p.digest);
    let spread = api.app.store.plugin_spread().await?;
    let items = items.into_iter().map(|p| Plugin::of(p, &spread)).collect::<Result<_>>()?;
    Ok(axum::Json(Page { items, next: next.map(|key| List::Plugins.seal(&key)) }))
}

/// Publish a release: gateways fetch it at once.
#[utoipa::path(post, operation_id = "publish_plugin", path = "/plugins", tag = "plugins", request_body = PluginUpload,
    security(("token" = [])), responses(
    (status = 201, body = Plugin),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn publish(
    State(api): State<Shared>,
    permit: Permit<action::Publish>,
    Json(upload): Json<PluginUpload>,
) -> Result<(StatusCode, axum::Json<Plugin>)> {
    let component = STANDARD
        .decode(upload.component)
        .map(Bytes::from)
        .map_err(|e| Problem::invalid(format!("component is not base64: {e}")))?;
    match api.app.catalog.publish(component, upload.statements, permit.name()).await {
        Ok(plugin) => {
            let spread = api.app.store.plugin_spread().await?;
            Ok((StatusCode::CREATED, axum::Json(Plugin::of(plugin, &spread)?)))
        }
        Err(error) => {
            let problem = Problem::from(error);
            if problem.is_refusal() {
                let entry = AuditEntry {
                    at_ms: api.app.clock.now_ms(),
                    actor: permit.name().to_owned(),
                    action: "plugin.publish".to_owned(),
                    subject: "plugin".to_owned(),
                    decision: Decision::Refused,
                    detail: problem.detail().to_owned(),
                };
                api.app.store.audit(entry).await;
            }
            Err(problem)
        }
    }
}

/// Take a plugin out of service: its verbs can't be asked any more.
#[utoipa::path(delete, operation_id = "deactivate_plugin", path = "/plugins/{name}", tag = "plugins",
    params(("name" = String, Path)), security(("token" = [])), responses(
    (status = 204),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn deactivate(
    State(api): State<Shared>,
    permit: Permit<action::Administer>,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    if api.app.catalog.deactivate(&name, permit.name()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("active plugin", &name))
    }
}

impl Plugin {
    fn of(stored: model::Plugin, spread: &BTreeMap<String, PluginSpread>) -> Result<Self> {
        let release: Release = serde_json::from_str(&stored.release).map_err(|e| Problem::internal(&e))?;
        let agents = spread.get(&stored.digest).copied().unwrap_or_default();
        Ok(Self {
            plugin: stored.plugin,
            version: stored.version,
            digest: stored.digest,
            description: release.description,
            size: stored.component_size,
            imports: release.imports,
            capabilities: serde_json::to_value(release.capabilities).map_err(|e| Problem::internal(&e))?,
            verbs: release.verbs.into_keys().collect(),
            published: Moment(stored.published_ms),
            published_by: stored.published_by,
            active: stored.active,
            agents: PluginAgents { active: agents.active, fetching: agents.fetching, refused: agents.refused },
        })
    }
}

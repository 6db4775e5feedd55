//! `/plugins`: published releases, how each stands, and their publication. What is refused
//! here is only told early; every gateway verifies for itself.
//!
//! - [`review`]: what a release asks for beyond the active one, and its approval
//! - [`rollouts`]: a release in stages
//! - [`kill`]: a release ends everywhere

pub mod kill;
pub mod review;
pub mod rollouts;

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
use super::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::catalog::Wanted;
use crate::store::model::{self, AuditEntry, Decision, PluginSpread, Standing};

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
    pub state: ReleaseState,
    /// Why it was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub agents: PluginAgents,
}

/// How a release stands: `held` waits for an approval, `staged` for a rollout.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    Active,
    Held,
    Staged,
    Inactive,
    Killed,
}

impl From<Standing> for ReleaseState {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Active => Self::Active,
            Standing::Held => Self::Held,
            Standing::Staged => Self::Staged,
            Standing::Inactive => Self::Inactive,
            Standing::Killed => Self::Killed,
        }
    }
}

/// On how many agents it is in which state.
#[derive(Debug, Serialize, ToSchema)]
pub struct PluginAgents {
    pub active: u32,
    pub fetching: u32,
    pub refused: u32,
}

/// A signed bundle, as the two files that `viworks-sign` leaves or by reference to an OCI
/// registry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginUpload {
    /// `NAME.wasm` in base64.
    #[serde(default)]
    #[schema(content_encoding = "base64")]
    component: Option<String>,
    /// `NAME.wasm.intoto.jsonl`
    #[serde(default)]
    statements: Option<String>,
    /// `oci://HOST/NAME:TAG` or `oci://HOST/NAME@sha256:…`, of a registry that the backend's
    /// configuration names; instead of the two files.
    #[serde(default)]
    oci: Option<String>,
    /// Whether gateways are to have it at once; otherwise it waits for a rollout.
    #[serde(default = "yes")]
    activate: bool,
}

fn yes() -> bool {
    true
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

/// Publish a release: gateways fetch it at once, unless it asks for more than the active
/// one and is held, or is to wait for a rollout.
#[utoipa::path(post, operation_id = "publish_plugin", path = "/plugins", tag = "plugins", request_body = PluginUpload,
    security(("token" = [])), responses(
    (status = 201, body = Plugin),
    (status = 202, body = Plugin, description = "Held: it asks for more than the active release"),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn publish(
    State(api): State<Shared>,
    permit: Permit<action::Publish>,
    Json(upload): Json<PluginUpload>,
) -> Result<(StatusCode, axum::Json<Plugin>)> {
    let wanted = if upload.activate { Wanted::Active } else { Wanted::Staged };
    let published = async {
        let (component, statements) = bundle(&api, upload).await?;
        Ok::<_, Problem>(api.app.releases.publish(component, statements, wanted, permit.name()).await?)
    };
    match published.await {
        Ok(plugin) => {
            let held = plugin.standing == Standing::Held;
            let spread = api.app.store.plugin_spread().await?;
            let status = if held { StatusCode::ACCEPTED } else { StatusCode::CREATED };
            Ok((status, axum::Json(Plugin::of(plugin, &spread)?)))
        }
        Err(problem) => {
            refused(&api, permit.name(), "plugin.publish", "plugin", &problem).await;
            Err(problem)
        }
    }
}

/// The bytes, from the request or from a registry.
async fn bundle(api: &Shared, upload: PluginUpload) -> Result<(Bytes, String)> {
    match (upload.component, upload.statements, upload.oci) {
        (Some(component), Some(statements), None) => {
            let component = STANDARD
                .decode(component)
                .map(Bytes::from)
                .map_err(|e| Problem::invalid(format!("component is not base64: {e}")))?;
            Ok((component, statements))
        }
        (None, None, Some(reference)) => {
            let pulled = api.app.releases.pull(&reference).await?;
            Ok((pulled.component, pulled.statements))
        }
        _ => Err(Problem::invalid("either component and statements, or oci")),
    }
}

/// Record a refusal that was the client's doing. What can't be read was no request yet.
pub(super) async fn refused(api: &Shared, by: &str, action: &str, subject: &str, problem: &Problem) {
    if problem.is_refusal() && problem.code() != Code::InvalidRequest {
        let entry = AuditEntry {
            at_ms: api.app.clock.now_ms(),
            actor: by.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            decision: Decision::Refused,
            detail: problem.detail().to_owned(),
        };
        api.app.store.audit(entry).await;
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
    pub(super) fn of(stored: model::Plugin, spread: &BTreeMap<String, PluginSpread>) -> Result<Self> {
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
            active: stored.standing == Standing::Active,
            state: stored.standing.into(),
            note: (!stored.note.is_empty()).then_some(stored.note),
            agents: PluginAgents { active: agents.active, fetching: agents.fetching, refused: agents.refused },
        })
    }
}

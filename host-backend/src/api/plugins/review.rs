//! `/plugins/{name}/diff` and `/plugins/{name}/{digest}/approve`: what a release asks for
//! beyond the active one, what the active one asks for and never used, and the approval.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::Shared;
use super::super::extract::{Json, Path, Query};
use super::super::problem::{Problem, ProblemBody, Result};
use super::{Plugin, ReleaseState, refused};
use crate::authz::{Permit, action};
use crate::catalog::diff::{self, Difference};
use crate::catalog::release_of;
use crate::store::model::{self, Standing};

/// Effects tell of these capabilities; the others are read from, which leaves no trace.
const SEEN_BY_EFFECTS: [&str; 5] = ["accounts", "vpn", "containers", "scripts", "state"];

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// The release to compare with the active one.
    pub digest: String,
}

/// One side of a comparison.
#[derive(Debug, Serialize, ToSchema)]
pub struct Side {
    pub version: String,
    pub digest: String,
    pub state: ReleaseState,
}

/// What a release asks for, compared with the active one.
#[derive(Debug, Serialize, ToSchema)]
pub struct Diff {
    pub plugin: String,
    /// Null where nothing of the plugin is active.
    pub from: Option<Side>,
    pub to: Side,
    /// Whether it asks for more by any difference.
    pub more: bool,
    /// Those that ask for more first.
    pub differences: Vec<Difference>,
    /// What it asks for, and how often the active release used it.
    pub used: Vec<Use>,
}

/// A capability that is asked for, and its use.
#[derive(Debug, Serialize, ToSchema)]
pub struct Use {
    pub capability: String,
    /// Effects that agents reported of the active release; null where use leaves no
    /// effect, so that it can't be told.
    pub effects: Option<u64>,
    /// The active release asks for it too, and no effect of it was ever seen.
    pub never_used: bool,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approval {
    /// `true`: gateways get it at once. `false`: it waits for a rollout. By default as its
    /// publisher wanted.
    pub activate: Option<bool>,
}

/// What a release asks for beyond the active one.
#[utoipa::path(get, operation_id = "diff_plugin", path = "/plugins/{name}/diff", tag = "plugins",
    params(("name" = String, Path), DiffQuery), security(("token" = [])), responses(
    (status = 200, body = Diff),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn diff(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(name): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Result<axum::Json<Diff>> {
    let to = api.app.catalog.release(&name, &query.digest).await?;
    let from = api.app.catalog.active().into_iter().find(|p| p.plugin == name);
    let after = release_of(&to)?;
    let before = from.as_ref().map(release_of).transpose()?;
    let differences = before.as_ref().map(|before| diff::differences(before, &after)).unwrap_or_default();
    let effects = from.as_ref().map(|from| api.app.rollouts.observer().effects(&from.digest)).unwrap_or_default();
    let had = before.map(|before| before.capabilities.names()).unwrap_or_default();
    let used = after.capabilities.names().into_iter().map(|capability| {
        let seen = SEEN_BY_EFFECTS.contains(&capability);
        let effects = seen.then(|| effects.get(capability).copied().unwrap_or(0));
        let never_used = had.contains(&capability) && effects == Some(0);
        Use { capability: capability.to_owned(), effects, never_used }
    });
    let (used, more) = (used.collect(), diff::asks_more(&differences));
    Ok(axum::Json(Diff { plugin: name, from: from.map(side), to: side(to), more, differences, used }))
}

fn side(of: model::Plugin) -> Side {
    Side { version: of.version, digest: of.digest, state: of.standing.into() }
}

/// Approve what a held release asks for.
#[utoipa::path(post, operation_id = "approve_plugin", path = "/plugins/{name}/{digest}/approve", tag = "plugins",
    params(("name" = String, Path), ("digest" = String, Path)), request_body = Approval, security(("token" = [])), responses(
    (status = 200, body = Plugin),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn approve(
    State(api): State<Shared>,
    permit: Permit<action::Administer>,
    Path((name, digest)): Path<(String, String)>,
    Json(approval): Json<Approval>,
) -> Result<axum::Json<Plugin>> {
    let to = approval.activate.map(|at_once| if at_once { Standing::Active } else { Standing::Staged });
    match api.app.catalog.approve(&name, &digest, to, permit.name()).await {
        Ok(plugin) => Ok(axum::Json(Plugin::of(plugin, &api.app.store.plugin_spread().await?)?)),
        Err(error) => {
            let problem = Problem::from(error);
            refused(&api, permit.name(), "plugin.approve", &name, &problem).await;
            Err(problem)
        }
    }
}

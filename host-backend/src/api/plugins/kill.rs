//! `/plugins/kill`: a release ends on every gateway that can be reached, and on the others
//! when they come back.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::Shared;
use super::super::extract::Json;
use super::super::problem::{Problem, ProblemBody, Result};
use super::{Plugin, refused};
use crate::authz::{Permit, action};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// Lowercase hex SHA-256 of the component.
    digest: String,
    /// For the audit record.
    #[serde(default)]
    reason: String,
    /// Whether the release that was active before it takes over.
    #[serde(default = "super::yes")]
    fall_back: bool,
}

/// What a kill came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Killed {
    pub release: Plugin,
    /// What is active instead; null where the plugin's verbs are gone.
    pub fallback: Option<Plugin>,
    /// Commands of it that were cancelled.
    pub commands_cancelled: usize,
    /// Invocations of other commands that it may have served, told to stop.
    pub invocations_cancelled: usize,
}

/// Kill a release: it is offered to nobody any more, what runs of it is cancelled, and it
/// can't be published again.
#[utoipa::path(post, operation_id = "kill_plugin", path = "/plugins/kill", tag = "plugins", request_body = Kill,
    security(("token" = [])), responses(
    (status = 200, body = Killed),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn post(
    State(api): State<Shared>,
    permit: Permit<action::Administer>,
    Json(kill): Json<Kill>,
) -> Result<axum::Json<Killed>> {
    let reason: String = kill.reason.chars().take(500).collect();
    match api.app.rollouts.kill(&kill.digest, &reason, kill.fall_back, true, permit.name()).await {
        Ok(ended) => {
            let spread = api.app.store.plugin_spread().await?;
            Ok(axum::Json(Killed {
                release: Plugin::of(ended.release, &spread)?,
                fallback: ended.fallback.map(|p| Plugin::of(p, &spread)).transpose()?,
                commands_cancelled: ended.commands,
                invocations_cancelled: ended.invocations,
            }))
        }
        Err(error) => {
            let problem = Problem::from(error);
            refused(&api, permit.name(), "plugin.kill", &kill.digest, &problem).await;
            Err(problem)
        }
    }
}

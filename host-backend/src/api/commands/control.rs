//! Cancelling a command; undoing and approving, which are not served yet.

use axum::extract::State;
use axum::http::StatusCode;

use super::body::Command;
use super::read;
use crate::api::Shared;
use crate::api::extract::Path;
use crate::api::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{Permit, action};

/// Cancel a command: what no agent has yet ends at once, what one has is told to stop.
#[utoipa::path(post, operation_id = "cancel_command", path = "/commands/{id}/cancel", tag = "commands",
    params(("id" = String, Path)), security(("token" = [])), responses(
    (status = 202, body = Command),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn cancel(
    State(api): State<Shared>,
    permit: Permit<action::Command>,
    Path(id): Path<String>,
) -> Result<(StatusCode, axum::Json<Command>)> {
    let command = read::find(&api, &id).await?;
    let command = api.app.engine.cancel(&command.id, permit.name()).await?;
    let command = command.ok_or_else(|| Problem::not_found("command", &id))?;
    Ok((StatusCode::ACCEPTED, axum::Json(read::whole(&api, command).await?)))
}

/// Undo a command. Not served yet.
#[utoipa::path(post, operation_id = "undo_command", path = "/commands/{id}/undo", tag = "commands",
    params(("id" = String, Path)), security(("token" = [])), responses(
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn undo(State(api): State<Shared>, _: Permit<action::Command>, Path(id): Path<String>) -> Result<()> {
    read::find(&api, &id).await?;
    Err(Problem::new(Code::NotAvailable, "undo is not served yet"))
}

/// Approve a command. Not served yet.
#[utoipa::path(post, operation_id = "approve_command", path = "/commands/{id}/approve", tag = "commands",
    params(("id" = String, Path)), security(("token" = [])), responses(
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn approve(State(api): State<Shared>, _: Permit<action::Command>, Path(id): Path<String>) -> Result<()> {
    read::find(&api, &id).await?;
    Err(Problem::new(Code::NotAvailable, "approvals are not served yet"))
}

//! Cancelling a command before its end, and taking back what an ended one did. Refuses to
//! undo what changed nothing, what has not ended, what was undone, and what gateways have
//! forgotten how to take back.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::time::Instant;
use viworks_protocol::warrant::Mode;

use super::body::{AcceptedCommand, Command, UndoRequest};
use super::{bind, create, read};
use crate::api::Shared;
use crate::api::extract::{MaybeJson, Path};
use crate::api::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::dispatch::{Request, Task};
use crate::spans::Open;
use crate::store::model;

const HOUR_MS: u64 = 3_600_000;

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

/// Take back what a command did: a new command for the agents on which it had effects. Its
/// `undo_of` names this one. An undo can be undone in its turn. What changed since on a host is a conflict there, found before
/// anything is taken back.
#[utoipa::path(post, operation_id = "undo_command", path = "/commands/{id}/undo", tag = "commands", request_body = Option<UndoRequest>,
    params(("id" = String, Path)), security(("token" = [])), responses(
    (status = 200, body = Command, description = "It ended while the client waited"),
    (status = 202, body = AcceptedCommand, description = "It is durable and under way"),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn undo(
    State(api): State<Shared>,
    permit: Permit<action::Command>,
    Path(id): Path<String>,
    trace: Option<Extension<Open>>,
    MaybeJson(request): MaybeJson<UndoRequest>,
) -> Result<Response> {
    let deadline = Instant::now() + create::wait(request.wait_secs)?;
    let command = read::find(&api, &id).await?;
    undoable(&api, &command)?;
    let plans = match &request.plan {
        Some(name) => bind::undo_plans(&api, name, &command).await?,
        None => Vec::new(),
    };
    let targets = api.app.store.undo_targets(&command.id).await?;
    if targets.is_empty() {
        return Err(conflict(match &command.undone_by {
            // What an undo took back comes back by an undo of that one.
            Some(by) => format!("{by} has taken it back everywhere; to have it again, undo {by}"),
            None => "it changed nothing that is still there".to_owned(),
        }));
    }
    let request = Request {
        task: Task::Undo(Box::new(command)),
        mode: request.mode.into(),
        plans,
        approvals: request.approvals.unwrap_or(0),
        targets,
        caller: permit.name().to_owned(),
        timeout_secs: None,
        expires_in_secs: request.expires_in_secs.map(u64::from),
        batch: None,
        idempotency_key: None,
        trace: trace.map(|Extension(trace)| trace),
    };
    let accepted = api.app.engine.accept(request).await?;
    create::answer(&api, accepted, deadline).await
}

fn undoable(api: &Shared, command: &model::Command) -> Result<()> {
    if command.mode == Mode::Plan {
        return Err(conflict("it was a plan: it changed nothing"));
    }
    let Some(finished_ms) = command.finished_ms else {
        return Err(conflict("it has not ended: cancel it, or wait"));
    };
    let hours = api.app.config.undo_hours;
    if api.app.clock.now_ms().saturating_sub(finished_ms) > hours * HOUR_MS {
        return Err(conflict(format!("it ended more than {hours} hours ago: gateways keep the way back no longer")));
    }
    Ok(())
}

fn conflict(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Conflict, detail)
}

//! An operator approves a command that awaits it, by a signature of their own over what
//! the warrant will order. Refuses the caller's own approval, keys that are not registered
//! for the operator who sends it, and signatures over anything else.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use viworks_protocol::approval::{Approval, PAYLOAD_TYPE};
use viworks_signing::dsse::{Envelope, Signature};
use viworks_signing::keys::PublicKey;

use super::body::CommandSummary;
use super::read;
use crate::api::Shared;
use crate::api::extract::{Json, Path};
use crate::api::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::dispatch::warrant_of;
use crate::store::model::{Approved, Command};
use crate::store::write::Approval as Counted;

/// A signed approval.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// DSSE v1 over `application/vnd.viworks.approval.v1+json`: `{"command", "verb", "digest",
    /// "args_sha256", "mode", "targets_root"}`, and `undo` and `plans` where the command has them.
    #[schema(value_type = Object)]
    pub envelope: Envelope,
}

/// Approve a command that awaits approval. With the last one that was needed it is
/// delivered.
#[utoipa::path(post, operation_id = "approve_command", path = "/commands/{id}/approve", tag = "commands", request_body = ApproveRequest,
    params(("id" = String, Path)), security(("token" = [])), responses(
    (status = 200, body = CommandSummary),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn post(
    State(api): State<Shared>,
    permit: Permit<action::Command>,
    Path(id): Path<String>,
    Json(request): Json<ApproveRequest>,
) -> Result<axum::Json<CommandSummary>> {
    let command = read::find(&api, &id).await?;
    if command.caller == permit.name() {
        return Err(refused("who asked for a command does not approve it"));
    }
    let keys = keys_of(&api, permit.name()).await?;
    let (key, envelope) = verified(&command, &request.envelope, &keys)?;
    let approved = Approved { operator: permit.name().to_owned(), key, at_ms: api.app.clock.now_ms(), envelope };
    match api.app.engine.approve(&command.id, approved).await? {
        None => Err(Problem::not_found("command", &id)),
        Some(Counted::Counted(command)) => Ok(axum::Json(command.into())),
        Some(Counted::Repeated) => Err(Problem::new(Code::Conflict, "this operator, or this key, has approved it")),
        Some(Counted::NotAwaited(command)) => {
            Err(Problem::new(Code::Conflict, format!("it is {}: no approval is awaited", command.state)))
        }
    }
}

async fn keys_of(api: &Shared, operator: &str) -> Result<Vec<PublicKey>> {
    let registered = api.app.store.approver_keys(operator).await?;
    if registered.is_empty() {
        return Err(refused(format!("no approver's key is registered for {operator}")));
    }
    Ok(registered.iter().filter_map(|a| PublicKey::from_pem(&a.pem).ok()).collect())
}

/// The key that approved this very command, and the envelope with that one signature.
fn verified(command: &Command, envelope: &Envelope, keys: &[PublicKey]) -> Result<(String, Envelope)> {
    if let Err(error) = envelope.verify(PAYLOAD_TYPE, keys) {
        return Err(refused(error.to_string()));
    }
    let wanted = Approval::of(&warrant_of(command));
    for signature in &envelope.signatures {
        let alone = Envelope { signatures: vec![signature.clone()], ..envelope.clone() };
        let signers = wanted.signers_of(&alone, keys);
        if let Some(key) = keys.iter().find(|key| signers.contains(&key.bytes())) {
            // The id is a hint of the client's, of any length: ours is put in its place.
            let signature = Signature { keyid: key.id(), sig: signature.sig.clone() };
            return Ok((key.id(), Envelope { signatures: vec![signature], ..envelope.clone() }));
        }
    }
    Err(refused("it is signed over another command, or over what this one does not order"))
}

fn refused(detail: impl Into<String>) -> Problem {
    Problem::new(Code::ApprovalRefused, detail)
}

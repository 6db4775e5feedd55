//! `/approvers`: keys whose signatures count as an operator's approvals. Administrators
//! register them, so that no operator can make approvers of their own.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use viworks_signing::keys::PublicKey;

use super::Shared;
use super::extract::{Json, Path, Query};
use super::moment::Moment;
use super::page::{List, Page, PageQuery};
use super::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::store::model::{self, AuditEntry, Decision};

/// An operator's public key.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproverRequest {
    /// The name of the operator's token.
    #[schema(min_length = 1, max_length = 64)]
    pub operator: String,
    /// Ed25519, SPKI PEM.
    pub key: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Approver {
    /// Lowercase hex SHA-256 of the key's SPKI.
    pub id: String,
    pub operator: String,
    /// SPKI PEM.
    pub key: String,
    pub created: Moment,
    pub created_by: String,
}

/// Registered keys, by id.
#[utoipa::path(get, operation_id = "list_approvers", path = "/approvers", tag = "approvers", params(PageQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Approver>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Approver>>> {
    let page = api.app.store.approvers(&List::Approvers.page(query.limit, query.after.as_deref())?).await?;
    Ok(axum::Json(List::Approvers.answer(page, Approver::from)))
}

/// Register a key for an operator. A key is one operator's alone.
#[utoipa::path(post, operation_id = "add_approver", path = "/approvers", tag = "approvers", request_body = ApproverRequest,
    security(("token" = [])), responses(
    (status = 201, body = Approver),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn add(
    State(api): State<Shared>,
    permit: Permit<action::Administer>,
    Json(request): Json<ApproverRequest>,
) -> Result<(StatusCode, axum::Json<Approver>)> {
    let operator = request.operator;
    if operator.is_empty() || operator.len() > 64 || !operator.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Problem::invalid("operator is the name of a token: 1 to 64 visible characters"));
    }
    let key = PublicKey::from_pem(&request.key).map_err(|e| Problem::invalid(format!("key: {e}")))?;
    let approver = model::Approver {
        key: key.id(),
        pem: key.to_pem().map_err(|e| Problem::internal(&e))?,
        operator,
        created_ms: api.app.clock.now_ms(),
        created_by: permit.name().to_owned(),
    };
    let entry = audit(&api, permit.name(), "approver.add", &approver.key, format!("for {}", approver.operator));
    if !api.app.store.add_approver(approver.clone(), entry).await? {
        return Err(Problem::new(Code::Conflict, format!("the key {} is registered", approver.key)));
    }
    Ok((StatusCode::CREATED, axum::Json(approver.into())))
}

/// Its signatures count no more. Approvals that were given stay.
#[utoipa::path(delete, operation_id = "remove_approver", path = "/approvers/{id}", tag = "approvers",
    params(("id" = String, Path)), security(("token" = [])), responses(
    (status = 204),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn remove(
    State(api): State<Shared>,
    permit: Permit<action::Administer>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let entry = audit(&api, permit.name(), "approver.remove", &id, String::new());
    if api.app.store.remove_approver(id.clone(), entry).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("approver", &id))
    }
}

fn audit(api: &Shared, actor: &str, action: &str, key: &str, detail: String) -> AuditEntry {
    AuditEntry {
        at_ms: api.app.clock.now_ms(),
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject: format!("key:{key}"),
        decision: Decision::Allowed,
        detail,
    }
}

impl From<model::Approver> for Approver {
    fn from(approver: model::Approver) -> Self {
        Self {
            id: approver.key,
            operator: approver.operator,
            key: approver.pem,
            created: Moment(approver.created_ms),
            created_by: approver.created_by,
        }
    }
}

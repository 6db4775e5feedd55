//! `/audit`: every decision, newest first. Administrators only.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::extract::Query;
use super::moment::Moment;
use super::page::{List, Page, PageQuery};
use super::problem::{ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::store::model;

/// One decision.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    pub seq: u64,
    pub at: Moment,
    /// A token's name, `agent:<id>`, `peer:<address>` or `backend`.
    pub actor: String,
    /// For example `command.accept`.
    pub action: String,
    pub subject: String,
    #[schema(value_type = AuditDecision)]
    pub decision: model::Decision,
    pub detail: String,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of `model::Decision`")]
pub enum AuditDecision {
    Allowed,
    Refused,
}

/// The audit log, newest first.
#[utoipa::path(get, operation_id = "list_audit", path = "/audit", tag = "audit", params(PageQuery), security(("token" = [])), responses(
    (status = 200, body = Page<AuditEntry>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Administer>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<AuditEntry>>> {
    let page = api.app.store.audit_page(&List::Audit.page(query.limit, query.after.as_deref())?).await?;
    Ok(axum::Json(List::Audit.answer(page, AuditEntry::from)))
}

impl From<model::AuditRow> for AuditEntry {
    fn from(model::AuditRow { seq, entry }: model::AuditRow) -> Self {
        Self {
            seq,
            at: Moment(entry.at_ms),
            actor: entry.actor,
            action: entry.action,
            subject: entry.subject,
            decision: entry.decision,
            detail: entry.detail,
        }
    }
}

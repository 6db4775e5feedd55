//! `/receipts`: what gateways signed of their invocations, the keys that they sign with,
//! and the anchors over their chains. Everything that an offline check needs is here.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use viworks_protocol::id::{AgentId, CommandId};

use super::Shared;
use super::extract::Query;
use super::moment::Moment;
use super::page::{List, Page, PageQuery};
use super::problem::{Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::store::receipt::{ReceiptFilter, ReceiptKey as Key, StoredAnchor, StoredReceipt};

/// Anchors of one page: each may have ten thousand heads.
const ANCHORS: u32 = 8;
/// Receipts of one page.
const RECEIPTS: u32 = 500;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReceiptsQuery {
    agent: Option<String>,
    /// A command's id.
    command: Option<String>,
    /// 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// A gateway's signed record of one invocation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Receipt {
    pub agent: String,
    /// The id of the key that signed it; null if none that is known did.
    pub key: Option<String>,
    /// Null: the agent's lasting chain; else the boot whose own chain it is in.
    pub boot: Option<String>,
    pub seq: u64,
    /// Lowercase hex SHA-256 of its payload: the next one's `prev`.
    pub sha256: String,
    pub command: String,
    pub invocation: String,
    /// When it was settled.
    pub at: Moment,
    /// What is wrong with it, if anything is: `signature`, `report`, `forked`, …
    pub fault: Option<String>,
    /// DSSE v1 over `application/vnd.viworks.receipt.v1+json`.
    #[schema(value_type = Object)]
    pub envelope: Box<RawValue>,
}

/// Receipts by agent and chain, each chain in its order.
#[utoipa::path(get, operation_id = "list_receipts", path = "/receipts", tag = "receipts", params(ReceiptsQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Receipt>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Query(query): Query<ReceiptsQuery>,
) -> Result<axum::Json<Page<Receipt>>> {
    let mut page = List::Receipts.page(query.limit, query.after.as_deref())?;
    page.limit = page.limit.min(RECEIPTS);
    let command = query.command.map(|id| CommandId::try_from(id).map_err(|e| Problem::invalid(e.to_string())));
    let filter = ReceiptFilter { agent: agent(query.agent)?, command: command.transpose()? };
    let receipts = api.app.store.receipts(&filter, &page).await?;
    Ok(axum::Json(List::Receipts.answer(receipts, Receipt::from)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReceiptKeysQuery {
    agent: Option<String>,
    /// 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// A key that an agent's receipts are, or were, signed by.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReceiptKey {
    pub agent: String,
    pub id: String,
    /// SPKI PEM.
    pub pem: String,
    pub first_seen: Moment,
    /// Whether it is the agent's key now.
    pub pinned: bool,
}

/// Agents' keys, by agent.
#[utoipa::path(get, operation_id = "list_receipt_keys", path = "/receipts/keys", tag = "receipts", params(ReceiptKeysQuery), security(("token" = [])), responses(
    (status = 200, body = Page<ReceiptKey>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn keys(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Query(query): Query<ReceiptKeysQuery>,
) -> Result<axum::Json<Page<ReceiptKey>>> {
    let page = List::ReceiptKeys.page(query.limit, query.after.as_deref())?;
    let keys = api.app.store.receipt_keys(agent(query.agent)?.as_ref(), &page).await?;
    Ok(axum::Json(List::ReceiptKeys.answer(keys, ReceiptKey::from)))
}

/// Where chains ended at one time, signed by the backend.
#[derive(Debug, Serialize, ToSchema)]
pub struct Anchor {
    pub seq: u64,
    /// Lowercase hex SHA-256 of its payload: the next one's `prev`.
    pub sha256: String,
    pub at: Moment,
    /// How many chains it tells of.
    pub heads: u32,
    /// DSSE v1 over `application/vnd.viworks.receipt-anchor.v1+json`, by the warrant key.
    #[schema(value_type = Object)]
    pub envelope: Box<RawValue>,
}

/// Anchors, oldest first.
#[utoipa::path(get, operation_id = "list_receipt_anchors", path = "/receipts/anchors", tag = "receipts", params(PageQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Anchor>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn anchors(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Anchor>>> {
    let mut page = List::Anchors.page(query.limit, query.after.as_deref())?;
    page.limit = page.limit.min(ANCHORS);
    let anchors = api.app.store.anchors(&page).await?;
    Ok(axum::Json(List::Anchors.answer(anchors, Anchor::from)))
}

fn agent(id: Option<String>) -> Result<Option<AgentId>> {
    id.map(|id| AgentId::try_from(id).map_err(|e| Problem::invalid(e.to_string()))).transpose()
}

/// It was written as JSON; null would only show that the database was tampered with.
fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl From<StoredReceipt> for Receipt {
    fn from(stored: StoredReceipt) -> Self {
        Self {
            key: stored.key().map(str::to_owned),
            agent: stored.agent.into(),
            boot: stored.boot,
            seq: stored.seq,
            sha256: stored.sha256,
            command: stored.command.into(),
            invocation: stored.invocation.into(),
            at: Moment(stored.at_ms),
            fault: stored.fault,
            envelope: raw(stored.envelope),
        }
    }
}

impl From<Key> for ReceiptKey {
    fn from(key: Key) -> Self {
        let Key { agent, id, pem, first_ms, pinned } = key;
        Self { agent: agent.into(), id, pem, first_seen: Moment(first_ms), pinned }
    }
}

impl From<StoredAnchor> for Anchor {
    fn from(stored: StoredAnchor) -> Self {
        Self {
            seq: stored.seq,
            sha256: stored.sha256,
            at: Moment(stored.at_ms),
            heads: stored.heads,
            envelope: raw(stored.envelope),
        }
    }
}

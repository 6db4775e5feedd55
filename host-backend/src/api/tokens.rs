//! `/tokens`: bearer tokens by name. A token's text is in the answer to its making and
//! nowhere else. Refuses names that could be mistaken in the audit log.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::extract::{Json, Path, Query};
use super::moment::Moment;
use super::page::{List, Page, PageQuery};
use super::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{NewToken, Permit, action};
use crate::store::model::{self, AuditEntry, Decision, Role};

/// A token without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    pub name: String,
    #[schema(value_type = TokenRole)]
    pub role: Role,
    pub created: Moment,
    /// Null: it does not expire.
    pub expires: Option<Moment>,
}

/// What a token may do: a viewer reads; an operator also runs commands; a publisher also
/// publishes plugins; an admin does everything.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenRole {
    Viewer,
    Operator,
    Publisher,
    Admin,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// 1 to 64 of `A-Z a-z 0-9 . _ - @`.
    #[schema(pattern = "^[A-Za-z0-9._@-]{1,64}$")]
    name: String,
    role: TokenRole,
    /// It does not expire if absent.
    #[serde(default)]
    #[schema(minimum = 1)]
    expires_in_secs: Option<u64>,
}

/// A new token with its text, which is never shown again.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    pub token: String,
    #[serde(flatten)]
    pub properties: Token,
}

/// Tokens by name.
#[utoipa::path(get, operation_id = "list_tokens", path = "/tokens", tag = "tokens", params(PageQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Token>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Administer>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Token>>> {
    let page = api.app.store.tokens(&List::Tokens.page(query.limit, query.after.as_deref())?).await?;
    Ok(axum::Json(List::Tokens.answer(page, Token::from)))
}

/// Make a token.
#[utoipa::path(post, operation_id = "create_token", path = "/tokens", tag = "tokens", request_body = TokenRequest, security(("token" = [])), responses(
    (status = 201, body = CreatedToken),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn create(
    State(api): State<Shared>,
    permit: Permit<action::Administer>,
    Json(request): Json<TokenRequest>,
) -> Result<(StatusCode, axum::Json<CreatedToken>)> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
    if !(1..=64).contains(&request.name.len()) || !request.name.bytes().all(plain) {
        return Err(Problem::invalid("name is not 1 to 64 letters, digits, '.', '_', '-' or '@'"));
    }
    if request.expires_in_secs == Some(0) {
        return Err(Problem::invalid("expires_in_secs is 0: the token would never be valid"));
    }
    let new = NewToken::generate().map_err(|e| Problem::internal(&e))?;
    let now = api.app.clock.now_ms();
    let token = model::Token {
        name: request.name,
        role: request.role.into(),
        sha256: *new.hash().as_bytes(),
        created_ms: now,
        expires_ms: request.expires_in_secs.map(|secs| now.saturating_add(secs.saturating_mul(1_000))),
    };
    let audit = entry(now, &permit, "token.create", &token.name, format!("role {}", token.role));
    if !api.app.store.create_token(token.clone(), audit).await? {
        return Err(Problem::new(Code::Conflict, format!("there is a token {:?} already", token.name)));
    }
    Ok((StatusCode::CREATED, axum::Json(CreatedToken { token: new.reveal(), properties: token.into() })))
}

/// Revoke a token: refused from now on, by other backends within seconds.
#[utoipa::path(delete, operation_id = "revoke_token", path = "/tokens/{name}", tag = "tokens", params(("name" = String, Path)), security(("token" = [])),
    responses(
    (status = 204),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn revoke(
    State(api): State<Shared>,
    permit: Permit<action::Administer>,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    let audit = entry(api.app.clock.now_ms(), &permit, "token.revoke", &name, String::new());
    let revoked = api.app.store.revoke_token(name.clone(), audit).await?;
    api.guard.tokens_changed();
    if revoked { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("token", &name)) }
}

fn entry(at_ms: u64, permit: &Permit<action::Administer>, action: &str, name: &str, detail: String) -> AuditEntry {
    AuditEntry {
        at_ms,
        actor: permit.name().to_owned(),
        action: action.to_owned(),
        subject: format!("token:{name}"),
        decision: Decision::Allowed,
        detail,
    }
}

impl From<TokenRole> for Role {
    fn from(role: TokenRole) -> Self {
        match role {
            TokenRole::Viewer => Self::Viewer,
            TokenRole::Operator => Self::Operator,
            TokenRole::Publisher => Self::Publisher,
            TokenRole::Admin => Self::Admin,
        }
    }
}

impl From<model::Token> for Token {
    fn from(token: model::Token) -> Self {
        Self {
            name: token.name,
            role: token.role,
            created: Moment(token.created_ms),
            expires: token.expires_ms.map(Moment),
        }
    }
}

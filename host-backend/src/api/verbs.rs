//! `/verbs`: what can be asked: the verbs of active plugins with their schemas, from which
//! the console draws forms and the CLI its flags.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use viworks_signing::release::EffectClass;

use super::Shared;
use super::extract::{Path, Query};
use super::page::{List, Page, PageQuery};
use super::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::catalog;

/// A verb of an active plugin.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verb {
    pub verb: String,
    pub plugin: String,
    /// The plugin's.
    pub version: String,
    /// Lowercase hex SHA-256 of the plugin's component.
    pub digest: String,
    pub docs: String,
    /// JSON Schema 2020-12 of the arguments.
    pub args: serde_json::Value,
    /// JSON Schema 2020-12 of the result.
    pub result: serde_json::Value,
    /// The most that it does to a host.
    #[schema(value_type = VerbEffect)]
    pub effect: EffectClass,
    /// Default wall-clock limit of one invocation.
    pub timeout_secs: u32,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "kebab-case")]
#[allow(dead_code, reason = "the schema of `viworks_signing::release::EffectClass`")]
pub enum VerbEffect {
    Read,
    Change,
    Irreversible,
}

/// All verbs, by name.
#[utoipa::path(get, operation_id = "list_verbs", path = "/verbs", tag = "verbs", params(PageQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Verb>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<Verb>>> {
    let page = List::Verbs.page(query.limit, query.after.as_deref())?;
    let page = List::Verbs.of_all(api.app.catalog.verbs(), &page, |verb| &verb.verb);
    Ok(axum::Json(List::Verbs.answer(page, |verb| Verb::from(verb.as_ref()))))
}

/// One verb.
#[utoipa::path(get, operation_id = "get_verb", path = "/verbs/{verb}", tag = "verbs", params(("verb" = String, Path)),
    security(("token" = [])), responses(
    (status = 200, body = Verb),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(name): Path<String>,
) -> Result<axum::Json<Verb>> {
    let verb = api.app.catalog.verb(&name);
    let verb =
        verb.ok_or_else(|| Problem::new(Code::UnknownVerb, format!("no active plugin has the verb {name:?}")))?;
    Ok(axum::Json(verb.as_ref().into()))
}

impl From<&catalog::Verb> for Verb {
    fn from(verb: &catalog::Verb) -> Self {
        Self {
            verb: verb.verb.clone(),
            plugin: verb.plugin.clone(),
            version: verb.version.clone(),
            digest: verb.digest.clone(),
            docs: verb.docs.clone(),
            args: verb.args.clone(),
            result: verb.result.clone(),
            effect: verb.effect,
            timeout_secs: verb.timeout_secs,
        }
    }
}

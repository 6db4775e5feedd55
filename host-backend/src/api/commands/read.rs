//! Reading commands: the list, one with its first invocations, and pages of them.

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use viworks_protocol::id::CommandId;
use viworks_protocol::warrant::Mode;

use super::body::{Command, CommandSummary, Invocation, PlanGroup};
use crate::api::Shared;
use crate::api::extract::{Path, Query};
use crate::api::page::{List, MAX_LIMIT, Page, PageQuery};
use crate::api::problem::{Code, Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::store::model::{self, CommandFilter, CommandState, InvocationState, PageOf};

/// Invocations that are read at once.
const STEP: u32 = 100;
/// The most plans of one page: each brings its effects.
const PLANS: u32 = 100;
/// A page ends once its reports have so many bytes.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CommandsQuery {
    /// `awaiting_approval`, `queued`, `running`, `finished`, `cancelled` or `expired`.
    state: Option<String>,
    verb: Option<String>,
    /// A token's name.
    caller: Option<String>,
    /// 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Commands, newest first.
#[utoipa::path(get, operation_id = "list_commands", path = "/commands", tag = "commands", params(CommandsQuery), security(("token" = [])), responses(
    (status = 200, body = Page<CommandSummary>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Query(query): Query<CommandsQuery>,
) -> Result<axum::Json<Page<CommandSummary>>> {
    let filter = CommandFilter {
        state: word(query.state.as_deref(), CommandState::ALL)?,
        verb: query.verb,
        caller: query.caller,
    };
    let page = api.app.store.commands(&filter, &List::Commands.page(query.limit, query.after.as_deref())?).await?;
    Ok(axum::Json(List::Commands.answer(page, CommandSummary::from)))
}

/// One command with its first thousand invocations.
#[utoipa::path(get, operation_id = "get_command", path = "/commands/{id}", tag = "commands", params(("id" = String, Path)), security(("token" = [])),
    responses(
    (status = 200, body = Command),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn get(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(id): Path<String>,
) -> Result<axum::Json<Command>> {
    let command = find(&api, &id).await?;
    Ok(axum::Json(whole(&api, command).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct InvocationsQuery {
    /// A state of invocations, for example `failed`.
    state: Option<String>,
    /// 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// A command's invocations, in the order of its targets.
#[utoipa::path(get, operation_id = "list_invocations", path = "/commands/{id}/invocations", tag = "commands",
    params(("id" = String, Path), InvocationsQuery), security(("token" = [])), responses(
    (status = 200, body = Page<Invocation>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn invocations(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(id): Path<String>,
    Query(query): Query<InvocationsQuery>,
) -> Result<axum::Json<Page<Invocation>>> {
    let page = List::Invocations.page(query.limit, query.after.as_deref())?;
    let state = word(query.state.as_deref(), InvocationState::ALL)?;
    let command = find(&api, &id).await?;
    Ok(axum::Json(gather(&api, &command.id, state, page).await?))
}

/// What a plan came to: agents with equal plans together, the most first.
#[utoipa::path(get, operation_id = "get_command_plan", path = "/commands/{id}/plan", tag = "commands",
    params(("id" = String, Path), PageQuery), security(("token" = [])), responses(
    (status = 200, body = Page<PlanGroup>),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn plan(
    State(api): State<Shared>,
    _: Permit<action::Read>,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<PlanGroup>>> {
    let mut page = List::Plans.page(query.limit, query.after.as_deref())?;
    page.limit = page.limit.min(PLANS);
    let command = find(&api, &id).await?;
    if command.mode != Mode::Plan {
        return Err(Problem::new(Code::Conflict, "it was no plan: its invocations have its effects"));
    }
    let groups = api.app.store.plan_groups(&command.id, &page).await?;
    Ok(axum::Json(List::Plans.answer(groups, PlanGroup::from)))
}

/// The command with this id.
pub(super) async fn find(api: &Shared, id: &str) -> Result<model::Command> {
    let missing = || Problem::not_found("command", id);
    let parsed: CommandId = id.parse().map_err(|_| missing())?;
    api.app.store.command(&parsed).await?.ok_or_else(missing)
}

/// The command with its first thousand invocations.
pub(super) async fn whole(api: &Shared, command: model::Command) -> Result<Command> {
    let Page { items, next } = gather(api, &command.id, None, PageOf::first(MAX_LIMIT)).await?;
    Ok(Command { summary: command.into(), invocations: items, next })
}

/// A page of invocations, shorter than asked where their reports are large: `next` says
/// where to go on.
async fn gather(
    api: &Shared,
    command: &CommandId,
    state: Option<InvocationState>,
    mut page: PageOf,
) -> Result<Page<Invocation>> {
    let (mut items, mut bytes, mut left) = (Vec::new(), 0, page.limit);
    loop {
        page.limit = left.min(STEP);
        let part = api.app.store.invocations(command, state, &page).await?;
        left = left.saturating_sub(page.limit);
        bytes += part.items.iter().filter_map(|i| i.report.as_ref()).map(String::len).sum::<usize>();
        items.extend(part.items.into_iter().map(Invocation::from));
        page.after = part.next;
        if page.after.is_none() || left == 0 || bytes >= PAGE_BYTES {
            let next = page.after.map(|key| List::Invocations.seal(&key));
            return Ok(Page { items, next });
        }
    }
}

/// A word of a closed list.
fn word<W: Copy + std::str::FromStr + std::fmt::Display>(text: Option<&str>, all: &[W]) -> Result<Option<W>> {
    text.map(|text| {
        text.parse().map_err(|_| {
            let choices: Vec<String> = all.iter().map(W::to_string).collect();
            Problem::invalid(format!("{text:?} is not a state; states are {}", choices.join(", ")))
        })
    })
    .transpose()
}

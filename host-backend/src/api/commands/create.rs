//! From a request to an accepted command: read, check the verb and its arguments, freeze
//! the targets, hand over to the engine. Whatever is refused here has queued nothing.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use viworks_protocol::id::AgentId;

use super::body::{AcceptedCommand, Command, CommandRequest, Mode, Selector};
use super::{bind, read};
use crate::api::Shared;
use crate::api::extract::Json;
use crate::api::problem::{Problem, ProblemBody, Result};
use crate::authz::{Permit, action};
use crate::dispatch::{AcceptError, Accepted, EndedCommand, Event, Request};
use crate::spans::Open;
use crate::store::model::{self, IdempotencyKey};

/// The longest that a client may wait for results.
const MAX_WAIT_SECS: u32 = 60;
const MAX_KEY: usize = 128;
const KEY: &str = "idempotency-key";

/// Run a verb. With `wait_secs`, the answer has the results if they came in time.
#[utoipa::path(post, operation_id = "create_command", path = "/commands", tag = "commands", request_body = CommandRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and request get the first answer again")),
    security(("token" = [])), responses(
    (status = 200, body = Command, description = "It ended while the client waited"),
    (status = 202, body = AcceptedCommand, description = "It is durable and under way"),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn post(
    State(api): State<Shared>,
    permit: Permit<action::Command>,
    headers: HeaderMap,
    trace: Option<Extension<Open>>,
    Json(request): Json<CommandRequest>,
) -> Result<Response> {
    let deadline = Instant::now() + wait(request.wait_secs)?;
    let key = key(&headers, &request)?;
    if let Some(key) = &key
        && let Some(before) = api.app.store.command_by_key(permit.name(), &key.key).await?
    {
        if before.idempotency_key.as_ref() != Some(key) {
            return Err(AcceptError::KeyReused(before.id).into());
        }
        let events = api.app.engine.subscribe(&before.id);
        return answer(&api, Accepted { command: before, replayed: true, events }, deadline).await;
    }
    let wanted = Wanted::of(request.agent_targets, request.selector)?;
    if request.mode == Mode::Plan && request.plan.is_some() {
        return Err(Problem::invalid("a plan is bound to no plan: apply it with mode apply"));
    }
    let checked = api.app.catalog.check(&request.verb, &serde_json::Value::Object(request.args))?;
    let plans = match &request.plan {
        Some(name) => bind::plans(&api, name, &checked).await?,
        None => Vec::new(),
    };
    let targets = freeze(&api, wanted).await?;
    let request = Request {
        task: checked.into(),
        mode: request.mode.into(),
        plans,
        approvals: request.approvals.unwrap_or(0),
        targets,
        caller: permit.name().to_owned(),
        timeout_secs: request.timeout_secs,
        expires_in_secs: request.expires_in_secs.map(u64::from),
        batch: request.batch,
        idempotency_key: key,
        trace: trace.map(|Extension(trace)| trace),
    };
    let accepted = api.app.engine.accept(request).await?;
    answer(&api, accepted, deadline).await
}

/// The whole command if it ended by the deadline, else that it is under way.
pub(super) async fn answer(api: &Shared, accepted: Accepted, deadline: Instant) -> Result<Response> {
    let under_way = AcceptedCommand::from(&accepted.command);
    match ended(api, accepted, deadline).await? {
        Some(EndedCommand { command, only: Some(only) }) => {
            Ok(axum::Json(Command::of_one(command, only)).into_response())
        }
        Some(EndedCommand { command, only: None }) => Ok(axum::Json(read::whole(api, command).await?).into_response()),
        None => Ok((StatusCode::ACCEPTED, axum::Json(under_way)).into_response()),
    }
}

/// Whom the client named, in one way.
enum Wanted {
    These(Vec<AgentId>),
    Selected(model::Selector),
}

impl Wanted {
    fn of(ids: Option<Vec<String>>, selector: Option<Selector>) -> Result<Self> {
        match (ids, selector) {
            (Some(_), Some(_)) => Err(Problem::invalid("give either agent_targets or selector, not both")),
            (None, None) => Err(Problem::no_targets("give agent_targets or selector")),
            (Some(ids), None) if ids.is_empty() => Err(Problem::no_targets("agent_targets is empty")),
            (Some(ids), None) => {
                let parse =
                    |id: String| AgentId::try_from(id).map_err(|e| Problem::invalid(format!("agent_targets: {e}")));
                Ok(Self::These(ids.into_iter().map(parse).collect::<Result<_>>()?))
            }
            (None, Some(Selector { labels, site, all })) => {
                let selector = model::Selector { labels, site, all };
                if selector.is_empty() {
                    return Err(Problem::no_targets("selector has no condition; say all = true to mean every agent"));
                }
                Ok(Self::Selected(selector))
            }
        }
    }
}

/// The agents as they are now; those that come later are no targets.
async fn freeze(api: &Shared, wanted: Wanted) -> Result<Vec<AgentId>> {
    let targets = match wanted {
        Wanted::These(ids) => {
            // Who is connected is known; only the others are looked for.
            let connected = api.app.hub.connected_of(&ids);
            let absent: Vec<AgentId> =
                ids.iter().zip(connected).filter(|(_, connected)| !connected).map(|(id, _)| id.clone()).collect();
            let unknown = if absent.is_empty() { Vec::new() } else { api.app.store.unknown_agents(&absent).await? };
            if !unknown.is_empty() {
                return Err(Problem::unknown_agents(unknown.into_iter().map(String::from).collect()));
            }
            ids
        }
        // One more than may be, so that the engine sees that there are too many.
        Wanted::Selected(selector) => api.app.store.select_agents(&selector, api.app.config.max_targets + 1).await?,
    };
    if targets.is_empty() {
        return Err(Problem::no_targets("the selector selects no agent"));
    }
    Ok(targets)
}

pub(super) fn wait(secs: Option<u32>) -> Result<Duration> {
    match secs.unwrap_or(0) {
        secs @ 0..=MAX_WAIT_SECS => Ok(Duration::from_secs(secs.into())),
        secs => Err(Problem::invalid(format!("wait_secs {secs} is more than {MAX_WAIT_SECS}"))),
    }
}

/// The key from header or field, with the hash of what was asked. How long the client
/// waits and where it put the key are no part of that.
fn key(headers: &HeaderMap, request: &CommandRequest) -> Result<Option<IdempotencyKey>> {
    let mut values = headers.get_all(KEY).iter();
    let header = values.next().map(|v| v.to_str().unwrap_or_default());
    let field = request.idempotency_key.as_deref();
    if values.next().is_some() || (header.is_some() && field.is_some() && header != field) {
        return Err(Problem::invalid("two idempotency keys that differ"));
    }
    let Some(key) = header.or(field) else { return Ok(None) };
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Problem::invalid(format!("an idempotency key is 1 to {MAX_KEY} visible ASCII characters")));
    }
    let asked = CommandRequest { idempotency_key: None, wait_secs: None, ..request.clone() };
    let canonical = serde_json_canonicalizer::to_vec(&asked).map_err(|e| Problem::invalid(e.to_string()))?;
    Ok(Some(IdempotencyKey { key: key.to_owned(), request_sha256: hex::encode(Sha256::digest(canonical)) }))
}

/// The command once it ended, if it does so by the deadline.
async fn ended(api: &Shared, accepted: Accepted, deadline: Instant) -> Result<Option<EndedCommand>> {
    let Accepted { mut command, replayed, mut events } = accepted;
    if replayed {
        // It may have ended between the store's answer and the subscription.
        command = api.app.store.command(&command.id).await?.unwrap_or(command);
    }
    while command.finished_ms.is_none() {
        let event = tokio::select! {
            event = events.recv() => event,
            () = tokio::time::sleep_until(deadline) => return Ok(None),
            () = api.shutdown.cancelled() => return Ok(None),
        };
        match event {
            Ok(Event::Finished(ended)) => return Ok(Some(Arc::unwrap_or_clone(ended))),
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => {
                command = api.app.store.command(&command.id).await?.unwrap_or(command);
            }
            Err(RecvError::Closed) => return Ok(None),
        }
    }
    Ok(Some(EndedCommand { command, only: None }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Code;

    #[test]
    fn one_key_from_header_or_field() {
        let of = |header: Option<&str>, field: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(text) = header {
                headers.insert(KEY, text.parse().unwrap());
            }
            let body = serde_json::json!({"verb": "look", "idempotency_key": field, "wait_secs": field.map(|_| 1)});
            key(&headers, &serde_json::from_value(body).unwrap())
        };
        assert_eq!(of(None, None).unwrap(), None);
        let key = of(Some("a"), None).unwrap().unwrap();
        assert_eq!(key.key, "a");
        assert_eq!(of(None, Some("a")).unwrap().as_ref(), Some(&key), "the field means the same");
        assert_eq!(of(Some("a"), Some("a")).unwrap().as_ref(), Some(&key));
        assert!(of(Some("a"), Some("b")).is_err());
        for bad in ["", "a b", &"x".repeat(129)] {
            assert!(of(None, Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_selector_never_means_all() {
        let of = |ids: Option<Vec<String>>, selector| Wanted::of(ids, selector).err().map(|p| p.code());
        assert_eq!(of(None, None), Some(Code::NoTargets));
        assert_eq!(of(Some(vec![]), None), Some(Code::NoTargets));
        assert_eq!(of(None, Some(Selector::default())), Some(Code::NoTargets));
        assert_eq!(of(Some(vec!["a".into()]), Some(Selector::default())), Some(Code::InvalidRequest));
        assert_eq!(of(Some(vec!["../x".into()]), None), Some(Code::InvalidRequest));
        assert_eq!(of(None, Some(Selector { all: true, ..Selector::default() })), None);
    }
}

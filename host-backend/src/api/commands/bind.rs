//! From the name of a plan (its digest, or the command that made it) to the digests that a
//! warrant is bound to. Refuses plans of another verb or other arguments, old ones, and
//! more of them than a warrant holds.

use serde_json::{Map, Value};
use viworks_protocol::id::CommandId;
use viworks_protocol::warrant::Mode;

use crate::api::Shared;
use crate::api::problem::{ArgumentError, Code, Problem, Result};
use crate::catalog::Checked;
use crate::store::model::Command;

/// Digests in one warrant: 64 KiB of them.
const MAX_PLANS: u32 = 1_000;
/// Gateways keep their plans for a day.
const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// The digests of the plan called `name`, if it was made for these arguments of this verb.
pub(super) async fn plans(api: &Shared, name: &str, checked: &Checked) -> Result<Vec<String>> {
    let (command, digests) = named(api, name).await?;
    fits(&command, checked)?;
    usable(api, name, &command, digests)
}

/// The digests of the plan called `name`, if it was made for the undo of this command.
pub(super) async fn undo_plans(api: &Shared, name: &str, of: &Command) -> Result<Vec<String>> {
    let (command, digests) = named(api, name).await?;
    is_plan(&command)?;
    if command.undo_of.as_ref() != Some(&of.id) {
        return Err(Problem::new(Code::PlanMismatch, format!("{} is no plan of the undo of {}", command.id, of.id)));
    }
    usable(api, name, &command, digests)
}

/// The command that made the plan, and all digests that the name stands for.
async fn named(api: &Shared, name: &str) -> Result<(Command, Vec<String>)> {
    let (command, digests) = if is_digest(name) {
        let command = api.app.store.command_of_plan(name).await?;
        (command, vec![name.to_owned()])
    } else {
        let id: CommandId = name.parse().map_err(|_| {
            Problem::invalid(format!("plan {name:?} is neither a digest (64 hex digits) nor a command's id"))
        })?;
        (api.app.store.command(&id).await?, api.app.store.plan_digests(&id, MAX_PLANS + 1).await?)
    };
    Ok((command.ok_or_else(|| Problem::not_found("plan", name))?, digests))
}

/// The digests, if a warrant can be bound to them.
fn usable(api: &Shared, name: &str, command: &Command, digests: Vec<String>) -> Result<Vec<String>> {
    let mismatch = |detail: String| Err(Problem::new(Code::PlanMismatch, detail));
    if command.finished_ms.is_none() && !is_digest(name) {
        return Err(Problem::new(Code::Conflict, format!("{} has not ended: its plan is not whole", command.id)));
    }
    if digests.is_empty() {
        return mismatch(format!("no agent made a plan in {}", command.id));
    }
    if digests.len() > MAX_PLANS as usize {
        return mismatch(format!(
            "its agents made more than {MAX_PLANS} different plans: bind to the digest of one, or plan fewer agents"
        ));
    }
    let ended = command.finished_ms.unwrap_or(command.created_ms);
    if api.app.clock.now_ms().saturating_sub(ended) > KEPT_MS {
        return mismatch(format!("{} is older than a day: gateways have forgotten its plans", command.id));
    }
    Ok(digests)
}

fn is_plan(command: &Command) -> Result<()> {
    if command.mode == Mode::Plan {
        return Ok(());
    }
    Err(Problem::new(Code::PlanMismatch, format!("{} was no plan: it was applied", command.id)))
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the plan was made for this verb and these arguments; every difference is named,
/// none is shown, since a value may be a secret.
fn fits(command: &Command, checked: &Checked) -> Result<()> {
    let mut errors = Vec::new();
    let mut differs = |path: String, message: String| errors.push(ArgumentError { path, message });
    is_plan(command)?;
    if command.undo_of.is_some() {
        return Err(Problem::new(Code::PlanMismatch, format!("{} is the plan of an undo", command.id)));
    }
    let verb = &checked.verb().verb;
    if command.verb != *verb {
        differs("/verb".into(), format!("the plan is of {}, not of {verb}", command.verb));
    } else {
        let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
        let (planned, asked) = (object(&command.args), object(checked.args()));
        let at = |name: &str| format!("/args/{}", name.replace('~', "~0").replace('/', "~1"));
        for (name, value) in &planned {
            match asked.get(name) {
                None => differs(at(name), "the plan has it, the command has not".into()),
                Some(other) if other != value => differs(at(name), "is not what was planned".into()),
                Some(_) => {}
            }
        }
        for name in asked.keys().filter(|name| !planned.contains_key(*name)) {
            differs(at(name), "the command has it, the plan has not".into());
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Problem::plan_mismatch(format!("the plan of {} was made for something else", command.id), errors))
}

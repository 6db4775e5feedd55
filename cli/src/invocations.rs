//! A command's end as operators see it: a row for each agent, or JSON, and the exit code
//! that follows.

use serde_json::Value;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, plain, plain_lines};
use crate::{follow, parse, plan};

/// Characters of a result in a table; `--json` has all of it.
const RESULT_WIDTH: usize = 160;
/// The most invocations that are fetched.
const MOST: usize = 1_000_000;

/// Show `command` with all its invocations.
///
/// # Errors
/// When the rest of its invocations can't be had, or the output can't be written.
pub fn show(client: &Client, out: &Out, mut command: Value) -> Result<Exit, Error> {
    if command["mode"] == "plan" && follow::has_ended(&command) {
        return plan::show(client, out, command);
    }
    fetch_rest(client, &mut command)?;
    out.show(&command, |command| match command["invocations"].as_array().map(Vec::as_slice) {
        Some([only]) => format!("{}{}", table(std::slice::from_ref(only)), details(only)),
        Some(several) => table(several).to_string(),
        None => String::new(),
    })?;
    let exit = exit(&command);
    if !out.is_json() {
        out.note(&summary(&command, exit));
    }
    Ok(exit)
}

/// What the command's state and counts mean for whoever waits.
#[must_use]
pub fn exit(command: &Value) -> Exit {
    if !follow::has_ended(command) {
        return Exit::Unfinished;
    }
    let counts = command["counts"].as_object();
    let others = counts.into_iter().flatten().filter(|(state, _)| *state != "succeeded");
    if others.filter_map(|(_, n)| n.as_u64()).all(|n| n == 0) && counts.is_some() {
        Exit::Succeeded
    } else {
        Exit::Failed
    }
}

/// The invocations that did not succeed, as a table; nothing if all did.
pub(crate) fn failures(command: &Value) -> String {
    let all = command["invocations"].as_array().into_iter().flatten();
    let failed: Vec<Value> = all.filter(|invocation| invocation["state"] != "succeeded").cloned().collect();
    if failed.is_empty() { String::new() } else { table(&failed).to_string() }
}

/// The command brings its first thousand.
pub(crate) fn fetch_rest(client: &Client, command: &mut Value) -> Result<(), Error> {
    let Value::String(after) = command["next"].take() else { return Ok(()) };
    let path = format!("/commands/{}/invocations", parse::segment(command["id"].as_str().unwrap_or_default()));
    let mut rest = client.list_after(&path, &[], MOST, Some(after))?;
    if let (Some(all), Value::Array(more)) = (command["invocations"].as_array_mut(), rest["items"].take()) {
        all.extend(more);
    }
    command["next"] = rest["next"].take();
    Ok(())
}

fn table(invocations: &[Value]) -> Table {
    let mut table = Table::new(["AGENT", "STATE", "RESULT"]);
    let alone = invocations.len() == 1;
    for invocation in invocations {
        let result = match invocation.get("failure").filter(|failure| !failure.is_null()) {
            Some(failure) => failed(failure),
            // One result is shown in full below.
            None if alone => String::new(),
            None => invocation.get("result").map(cell).unwrap_or_default(),
        };
        table.row([cell(&invocation["agent"]), cell(&invocation["state"]), shortened(&result, alone)]);
    }
    table
}

/// `conflict: account deploy exists already`, and the rule that refused.
fn failed(failure: &Value) -> String {
    let rule = failure["rule"].as_str().map(|rule| format!(" [{rule}]")).unwrap_or_default();
    format!("{}: {}{rule}", cell(&failure["code"]), cell(&failure["message"]))
}

fn shortened(text: &str, whole: bool) -> String {
    if whole || text.chars().count() <= RESULT_WIDTH {
        text.to_owned()
    } else {
        text.chars().take(RESULT_WIDTH - 1).chain(['…']).collect()
    }
}

/// Result, effects and log of a single invocation.
fn details(invocation: &Value) -> String {
    let mut text = String::new();
    if let Some(result) = invocation.get("result").filter(|result| !result.is_null()) {
        let shown = result.as_str().map_or_else(|| format!("{result:#}"), str::to_owned);
        text.push_str(&format!("{}\n", plain_lines(&shown)));
    }
    for effect in invocation["effects"].as_array().into_iter().flatten() {
        let line = format!("effect {}: {}", cell(&effect["state"]), cell(&effect["summary"]));
        text.push_str(&format!("  {}\n", plain(&line)));
    }
    for line in invocation["log"].as_array().into_iter().flatten() {
        text.push_str(&format!("  {}\n", plain(&format!("{}: {}", cell(&line["level"]), cell(&line["message"])))));
    }
    if invocation["log_truncated"] == true {
        text.push_str("  (the log was cut at its limit)\n");
    }
    text
}

fn summary(command: &Value, exit: Exit) -> String {
    let counts = command["counts"].as_object().into_iter().flatten();
    let counts = counts.filter(|(_, n)| n.as_u64() != Some(0)).map(|(state, n)| format!("{n} {state}"));
    let id = cell(&command["id"]);
    let unfinished =
        if exit == Exit::Unfinished { format!("; viworks commands watch {id} waits on") } else { String::new() };
    if command["state"] == "awaiting_approval" {
        return format!("{id} awaits approval: viworks approve {id} --key file:KEY.pem");
    }
    format!("{id} {}: {}{unfinished}", cell(&command["state"]), counts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn exit_codes_follow_state_and_counts() {
        let command = |state: &str, counts: Value| json!({ "state": state, "counts": counts });
        assert_eq!(exit(&command("finished", json!({ "queued": 0, "succeeded": 3 }))), Exit::Succeeded);
        assert_eq!(exit(&command("finished", json!({ "succeeded": 2, "unknown": 1 }))), Exit::Failed);
        assert_eq!(exit(&command("cancelled", json!({ "cancelled": 1 }))), Exit::Failed);
        assert_eq!(exit(&command("running", json!({ "running": 1 }))), Exit::Unfinished);
        assert_eq!(exit(&json!({ "state": "finished" })), Exit::Failed, "no counts, no success");
    }

    #[test]
    fn failures_show_code_text_and_rule() {
        let invocations = [
            json!({ "agent": "web-1", "state": "succeeded", "result": { "uid": 20001 } }),
            json!({ "agent": "web-2", "state": "denied", "failure":
                { "code": "denied", "message": "group wheel", "rule": "policy: accounts.groups" } }),
        ];
        assert_eq!(
            table(&invocations).to_string(),
            "AGENT  STATE      RESULT\n\
             web-1  succeeded  {\"uid\":20001}\n\
             web-2  denied     denied: group wheel [policy: accounts.groups]\n"
        );
    }
}

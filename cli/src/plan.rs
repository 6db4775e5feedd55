//! What a plan came to, as operators read it: a diff for each group of agents that would
//! do the same, then what could not be planned, then the fleet in a line.

use serde_json::Value;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::invocations;
use crate::output::{Ink, Out, Paint, cell, plain};
use crate::parse;

/// The most groups that are fetched.
const MOST: usize = 10_000;
/// Agents that are named of a group.
const NAMED: usize = 8;

/// Show an ended plan.
///
/// # Errors
/// The backend's refusal, or that the output can't be written.
pub fn show(client: &Client, out: &Out, mut command: Value) -> Result<Exit, Error> {
    let id = cell(&command["id"]);
    let mut groups = client.list(&format!("/commands/{}/plan", parse::segment(&id)), &[], MOST)?;
    let exit = invocations::exit(&command);
    if out.is_json() {
        command["plans"] = groups["items"].take();
        out.show(&command, |_| String::new())?;
        return Ok(exit);
    }
    let groups = groups["items"].take();
    let groups = groups.as_array().map_or(&[][..], Vec::as_slice);
    let paint = Paint::of_stdout();
    let mut text: String = groups.iter().map(|group| diff(group, paint)).collect();
    invocations::fetch_rest(client, &mut command)?;
    text.push_str(&invocations::failures(&command));
    out.write(&text)?;
    out.note(&summary(&command, groups));
    Ok(exit)
}

/// One group: who, and what would happen there.
fn diff(group: &Value, paint: Paint) -> String {
    let agents: Vec<&str> = group["agents"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let count = group["count"].as_u64().unwrap_or(0);
    let named = agents.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = count.saturating_sub(agents.len().min(NAMED) as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let head = plain(&format!("{named}{more}  plan {}", cell(&group["digest"])));
    let mut text = format!("{}\n", paint.ink(Ink::Bold, &head));
    let effects = group["effects"].as_array().map_or(&[][..], Vec::as_slice);
    if effects.is_empty() {
        text.push_str("  nothing would change\n");
    }
    for effect in effects {
        text.push_str(&self::effect(effect, paint));
    }
    text.push('\n');
    text
}

/// One effect and the fields that it changes.
pub(crate) fn effect(effect: &Value, paint: Paint) -> String {
    let lines = effect["diff"].as_array().map_or(&[][..], Vec::as_slice);
    let marks: Vec<(char, Ink)> = lines.iter().map(mark).collect();
    let (sign, ink) = match &marks[..] {
        [] => ('~', Ink::Yellow),
        [first, rest @ ..] if rest.iter().all(|mark| mark == first) => *first,
        _ => ('~', Ink::Yellow),
    };
    let warning = if effect["irreversible"] == true { " (can't be undone)" } else { "" };
    let head = plain(&format!("{sign} {}: {}", cell(&effect["kind"]), cell(&effect["summary"])));
    let mut text = format!("  {}{}\n", paint.ink(ink, &head), paint.ink(Ink::Red, warning));
    for (line, (sign, ink)) in lines.iter().zip(marks) {
        let value = match (line["before"].as_str(), line["after"].as_str()) {
            (Some(before), Some(after)) => format!("{before} -> {after}"),
            (before, after) => before.or(after).unwrap_or_default().to_owned(),
        };
        let line = plain(&format!("{sign} {}: {value}", cell(&line["field"])));
        text.push_str(&format!("      {}\n", paint.ink(ink, &line)));
    }
    text
}

fn mark(line: &Value) -> (char, Ink) {
    match (line["before"].is_null(), line["after"].is_null()) {
        (true, false) => ('+', Ink::Green),
        (false, true) => ('-', Ink::Red),
        _ => ('~', Ink::Yellow),
    }
}

/// `cmd-…: 12 agents, 2 plans: 10 change something, 2 nothing; 1 has no plan`
fn summary(command: &Value, groups: &[Value]) -> String {
    let of = |changes: bool| -> u64 {
        let has = |group: &&Value| group["effects"].as_array().is_some_and(|e| !e.is_empty()) == changes;
        groups.iter().filter(has).filter_map(|group| group["count"].as_u64()).sum()
    };
    let (change, same) = (of(true), of(false));
    let all = command["targets"].as_u64().unwrap_or(0);
    let without = all.saturating_sub(change + same);
    let plans = if groups.len() == 1 { "the same plan".to_owned() } else { format!("{} plans", groups.len()) };
    let without = if without > 0 { format!("; {without} without a plan") } else { String::new() };
    format!("{}: {all} agents, {plans}: {change} would change something, {same} nothing{without}", cell(&command["id"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group() -> Value {
        json!({ "digest": "ab", "count": 10, "agents": ["web-1", "web-2"], "effects": [
            { "kind": "accounts.create", "summary": "create account deploy", "irreversible": false, "diff": [
                { "field": "name", "before": null, "after": "deploy" }, { "field": "uid", "before": null, "after": "1004" } ] },
            { "kind": "accounts.modify", "summary": "change ada", "irreversible": true, "diff": [
                { "field": "shell", "before": "/bin/sh", "after": "\u{1b}[31m/bin/bash" },
                { "field": "group", "before": "adm", "after": null } ] },
        ] })
    }

    #[test]
    fn a_diff_without_a_terminal_has_no_colour_and_no_control_characters() {
        assert_eq!(
            diff(&group(), Paint::off()),
            "web-1, web-2 and 8 more  plan ab\n\
             \x20 + accounts.create: create account deploy\n      + name: deploy\n      + uid: 1004\n\
             \x20 ~ accounts.modify: change ada (can't be undone)\n\
             \x20     ~ shell: /bin/sh -> \\u{1b}[31m/bin/bash\n      - group: adm\n\n"
        );
    }

    #[test]
    fn colours_are_ours_alone() {
        let text = diff(&group(), Paint::on());
        assert!(text.contains("\u{1b}[32m+ name: deploy\u{1b}[0m"), "{text}");
        assert!(text.contains("\\u{1b}[31m/bin/bash"), "what a host sends stays escaped: {text}");
    }

    #[test]
    fn the_fleet_in_a_line() {
        let same = json!({ "digest": "cd", "count": 2, "agents": ["db-1"], "effects": [] });
        let command = json!({ "id": "cmd-1", "targets": 13 });
        assert_eq!(
            summary(&command, &[group(), same]),
            "cmd-1: 13 agents, 2 plans: 10 would change something, 2 nothing; 1 without a plan"
        );
    }
}

//! A rollout shown live: a table in place on a terminal, a line for each change elsewhere,
//! an object for each change with --json.

use std::io::{IsTerminal as _, stdout};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, plain};
use crate::parse;

const LOOK: Duration = Duration::from_millis(500);
/// A backend that restarts is back soon; one that is away for longer is told.
const PATIENCE: u32 = 60;

/// Show the rollout until it ends.
///
/// # Errors
/// When the backend refuses, or is away for long.
pub fn follow(client: &Client, out: &Out, plugin: &str, id: &str) -> Result<Exit, Error> {
    let path = format!("/plugins/{}/rollouts/{}", parse::segment(plugin), parse::segment(id));
    let in_place = !out.is_json() && stdout().is_terminal();
    let (mut shown, mut last, mut failures) = (0, String::new(), 0);
    loop {
        match client.get(&path, &[]) {
            Ok(of) => {
                failures = 0;
                let text = if out.is_json() {
                    format!("{of}\n")
                } else if in_place {
                    screen(&of)
                } else {
                    line(&of)
                };
                if text != last {
                    let back = if in_place && shown > 0 { format!("\x1b[{shown}F\x1b[J") } else { String::new() };
                    out.write(&format!("{back}{text}"))?;
                    shown = text.lines().count();
                    last = text;
                }
                match of["state"].as_str() {
                    Some("succeeded") => return Ok(Exit::Succeeded),
                    Some("running" | "paused" | "halted") => {}
                    _ => return Ok(Exit::Failed),
                }
            }
            Err(error) if error.exit() != Exit::Unreachable || failures >= PATIENCE => return Err(error),
            Err(_) => failures += 1,
        }
        thread::sleep(LOOK);
    }
}

fn head(of: &Value) -> String {
    let stages = of["stages"].as_array().map_or(0, Vec::len);
    let stage = match of["shadowing"] == true {
        true => "shadow".to_owned(),
        false => format!("stage {}/{stages}", of["stage"].as_u64().unwrap_or(0) + 1),
    };
    let phase = of["phase"].as_str().map(|phase| format!(", {phase}")).unwrap_or_default();
    let reason = of["reason"].as_str().map(|reason| format!(": {}", plain(reason))).unwrap_or_default();
    format!(
        "{} {} {}{reason}, {stage}{phase}",
        cell(&of["plugin"]),
        cell(&of["digest"]).chars().take(12).collect::<String>(),
        cell(&of["state"]),
    )
}

fn members(of: &Value) -> String {
    let members = &of["members"];
    let count = |name: &str| members[name].as_u64().unwrap_or(0);
    let refused = if count("refused") > 0 { format!(", {} refused it", count("refused")) } else { String::new() };
    let have = if of["shadowing"] == true { "plan it" } else { "have it" };
    format!("{} of {} members {have}{refused}", count("have"), count("present"))
}

/// One line, and one for each verb of a shadow; what is counted of the verbs that ran is
/// left to the table.
fn line(of: &Value) -> String {
    let mut text = format!("{}, {}\n", head(of), members(of));
    if of["shadowing"] == true {
        for (verb, did) in of["shadow"]["verbs"].as_object().into_iter().flatten() {
            let count = |name: &str| cell(&did[name]);
            text += &format!(
                "  shadow {}: {} equal, {} departed, {} failed, {} skipped\n",
                plain(verb),
                count("equal"),
                count("departed"),
                count("failed"),
                skipped(did)
            );
        }
    }
    text + &samples(of)
}

fn skipped(verb: &Value) -> u64 {
    verb["skipped"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum()
}

/// What a shadow would have done otherwise, sample by sample.
fn samples(of: &Value) -> String {
    let mut text = String::new();
    for (verb, did) in of["shadow"]["verbs"].as_object().into_iter().flatten() {
        for sample in did["samples"].as_array().into_iter().flatten() {
            let (agent, invocation) = (cell(&sample["agent"]), cell(&sample["invocation"]));
            let code = sample["code"].as_str().map(|code| format!(" {}", plain(code))).unwrap_or_default();
            text += &format!("  {} on {agent} ({invocation}) {}{code}\n", plain(verb), cell(&sample["verdict"]));
            for line in sample["lines"].as_array().into_iter().flatten() {
                let side = |name: &str| line[name].as_str().map_or_else(|| "-".to_owned(), plain);
                text += &format!("    {}: {} → {}\n", cell(&line["field"]), side("active"), side("shadow"));
            }
        }
    }
    text
}

fn planned(of: &Value) -> String {
    let Some(verbs) = of["shadow"]["verbs"].as_object() else { return String::new() };
    let mut table = Table::new(["SHADOW OF", "EQUAL", "DEPARTED", "FAILED", "SKIPPED"]);
    for (verb, did) in verbs {
        let count = |name: &str| cell(&did[name]);
        table.row([verb.clone(), count("equal"), count("departed"), count("failed"), skipped(did).to_string()]);
    }
    format!("\n{table}{}", samples(of))
}

fn screen(of: &Value) -> String {
    let mut table = Table::new([
        "VERB",
        "RUNS",
        "FAILED",
        "DENIED",
        "P95 MS",
        "CPU MS",
        "BEFORE: RUNS",
        "FAILED",
        "P95 MS",
        "CPU MS",
    ]);
    for (verb, both) in of["verbs"].as_object().into_iter().flatten() {
        let (new, old) = (&both["new"], &both["former"]);
        table.row([
            verb.clone(),
            cell(&new["runs"]),
            cell(&new["failed"]),
            cell(&new["denied"]),
            cell(&new["p95_ms"]),
            cell(&new["cpu_ms"]),
            cell(&old["runs"]),
            cell(&old["failed"]),
            cell(&old["p95_ms"]),
            cell(&old["cpu_ms"]),
        ]);
    }
    format!("{}\n{}\n\n{table}{}", head(of), members(of), planned(of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_says_where_it_stands() {
        let of = json!({"plugin": "vpn", "digest": "ab".repeat(32), "state": "rolled_back", "stage": 0,
            "stages": [{}, {}], "phase": null, "reason": "errors: add 100 %\u{1b}", "members": {"present": 2, "have": 1}});
        assert_eq!(
            line(&of),
            "vpn abababababab rolled_back: errors: add 100 %\\u{1b}, stage 1/2, 1 of 2 members have it\n"
        );
        assert_eq!(screen(&of).lines().count(), 4);
    }

    #[test]
    fn a_shadow_says_what_departs() {
        let sample = json!({"agent": "web-01", "invocation": "inv-1", "verdict": "departed",
            "lines": [{"effect": 1, "field": "groups", "active": "docker", "shadow": "wheel\u{1b}"}]});
        let verbs = json!({"add": {"equal": 2, "departed": 1, "failed": 0, "skipped": {"late": 3, "busy": 1},
            "samples": [sample]}});
        let of = json!({"plugin": "vpn", "digest": "ab".repeat(32), "state": "halted", "shadowing": true, "stage": 0,
            "stages": [{}], "phase": "soaking", "reason": "shadow: add", "members": {"present": 1, "have": 1},
            "shadow": {"stage": {}, "verbs": verbs}});
        assert_eq!(
            line(&of),
            "vpn abababababab halted: shadow: add, shadow, soaking, 1 of 1 members plan it\n  \
             shadow add: 2 equal, 1 departed, 0 failed, 4 skipped\n  \
             add on web-01 (inv-1) departed\n    groups: docker → wheel\\u{1b}\n"
        );
        assert!(screen(&of).contains("SHADOW OF"));
    }
}

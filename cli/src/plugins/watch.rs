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
                    Some("running" | "paused") => {}
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
    let phase = of["phase"].as_str().map(|phase| format!(", {phase}")).unwrap_or_default();
    let reason = of["reason"].as_str().map(|reason| format!(": {}", plain(reason))).unwrap_or_default();
    format!(
        "{} {} {}{reason}, stage {}/{stages}{phase}",
        cell(&of["plugin"]),
        cell(&of["digest"]).chars().take(12).collect::<String>(),
        cell(&of["state"]),
        of["stage"].as_u64().unwrap_or(0) + 1
    )
}

fn members(of: &Value) -> String {
    let members = &of["members"];
    let count = |name: &str| members[name].as_u64().unwrap_or(0);
    let refused = if count("refused") > 0 { format!(", {} refused it", count("refused")) } else { String::new() };
    format!("{} of {} members have it{refused}", count("have"), count("present"))
}

/// One line; what is counted of the verbs is left to the table.
fn line(of: &Value) -> String {
    format!("{}, {}\n", head(of), members(of))
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
    format!("{}\n{}\n\n{table}", head(of), members(of))
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
}

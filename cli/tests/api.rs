//! The program against scripted answers of the HTTP API: exit codes, waiting, the event
//! stream, lists of several pages, refusals.

#![allow(clippy::unwrap_used, reason = "a test that can't go on may end where it stands")]

mod effects;
mod scripted;

use scripted::{Answer, Scripted};
use serde_json::{Value, json};

const ID: &str = "cmd-00000000000000000000000000000001";

/// `get_system_health` takes a list of services; a command of it is accepted, and its
/// state is what the test says by then.
fn backend(accepted: &'static str, ends: &'static str) -> Scripted {
    Scripted::start(move |request| {
        let seen_events = request.before("GET", "/commands/cmd-00000000000000000000000000000001/events");
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/verbs/get_system_health") => Answer::json(
                200,
                &json!({ "verb": "get_system_health", "timeout_secs": 15, "args": {
                    "type": "object", "required": [],
                    "properties": { "services": { "type": ["array", "null"], "items": { "type": "string" } } },
                } }),
            ),
            ("POST", "/commands") if accepted == "finished" => Answer::json(200, &command("finished", ends)),
            ("POST", "/commands") => Answer::json(202, &json!({ "id": ID, "state": "queued", "targets": 1 })),
            ("GET", path) if path.ends_with("/events") => Answer::events(&[
                ("progress", &json!({ "agent": "web-1", "done": 1, "total": 2, "message": "half" })),
                ("invocation", &json!({ "agent": "web-1", "state": ends })),
                ("finished", &json!({ "id": ID, "state": "finished" })),
            ]),
            ("GET", path) if path == format!("/commands/{ID}") => {
                Answer::json(200, &command(if seen_events > 1 { "finished" } else { "running" }, ends))
            }
            _ => Answer::json(404, &json!({ "code": "not-found", "title": "There is no such thing", "status": 404 })),
        }
    })
}

fn command(state: &str, outcome: &str) -> Value {
    let mut invocation = json!({ "agent": "web-1", "state": "running", "effects": [], "log": [] });
    let mut counts = json!({ "running": 1 });
    if state == "finished" {
        counts = json!({ outcome: 1 });
        invocation["state"] = outcome.into();
        if outcome == "succeeded" {
            invocation["result"] = json!({ "status": "healthy" });
        } else {
            invocation["failure"] = json!({ "code": "unavailable", "message": "no \u{1b}[31mengine" });
        }
    }
    json!({ "id": ID, "state": state, "counts": counts, "invocations": [invocation], "next": null })
}

const RUN: [&str; 4] = ["run", "get_system_health", "--on", "web-1"];

#[test]
fn a_verb_that_ends_at_once_needs_no_stream() {
    let backend = backend("finished", "succeeded");
    let ran = backend.viworks(&[&RUN[..], &["-a", "services=nginx,sshd", "--timeout", "20s"]].concat());
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "AGENT  STATE      RESULT\nweb-1  succeeded\n{\n  \"status\": \"healthy\"\n}\n")
    );
    let sent = backend.body_of("POST", "/commands");
    assert_eq!(sent["args"], json!({ "services": ["nginx", "sshd"] }));
    assert_eq!((&sent["agent_targets"], &sent["timeout_secs"]), (&json!(["web-1"]), &json!(20)));
    assert_eq!(backend.header_of("POST", "/commands", "authorization"), Some("Bearer viw_test".into()));
}

#[test]
fn the_stream_tells_when_a_command_has_ended() {
    let ran = backend("queued", "succeeded").viworks(&[&RUN[..], &["--json"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown["invocations"][0]["result"]["status"], "healthy");
}

#[test]
fn a_failure_is_told_and_can_not_write_to_the_terminal() {
    let ran = backend("finished", "failed").viworks(&RUN);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("web-1  failed  unavailable: no \\u{1b}[31mengine"), "{}", ran.stdout);
}

#[test]
fn waiting_ends_before_a_command_that_does_not() {
    let backend = Scripted::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/verbs/slow") => Answer::json(200, &json!({ "args": { "properties": {} }, "timeout_secs": 5 })),
        ("POST", "/commands") => Answer::json(202, &json!({ "id": ID, "state": "queued" })),
        ("GET", path) if path.ends_with("/events") => Answer::json(503, &json!({})),
        _ => Answer::json(200, &command("running", "")),
    });
    let ran = backend.viworks(&["run", "slow", "--all", "--wait", "1"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("viworks commands watch {ID}")), "{}", ran.stderr);
    assert_eq!(backend.body_of("POST", "/commands")["selector"], json!({ "all": true }));
    let ran = backend.viworks(&["run", "slow", "--all", "--no-wait"]);
    assert_eq!((ran.code, ran.stdout), (0, format!("{ID}\n")));
}

#[test]
fn refusals_name_the_argument_and_what_is_expected() {
    let refusal = json!({ "status": 422, "code": "invalid-arguments", "title": "The arguments do not fit the verb",
        "detail": "1 fault", "errors": [{ "path": "/name", "message": "\"X\" does not match" }] });
    let schema = json!({ "required": ["name"], "properties": { "name": { "type": "string", "pattern": "^[a-z]+$" } } });
    let backend = Scripted::start(move |request| match request.path.as_str() {
        "/verbs/add_user" => Answer::json(200, &json!({ "args": schema })),
        _ => Answer::json(422, &refusal),
    });
    let ran = backend.viworks(&["run", "add_user", "--on", "web-1", "-a", "name=X"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("name: \"X\" does not match (expected text matching ^[a-z]+$)"), "{}", ran.stderr);
    let ran = backend.viworks(&["run", "add_user", "--on", "web-1"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("argument name is missing: it is text matching ^[a-z]+$"), "{}", ran.stderr);
    assert_eq!(backend.count("POST", "/commands"), 1, "what is known to be wrong is not sent");
    assert_eq!(backend.viworks(&["run", "add_user", "-a", "name=x"]).code, 2, "no targets, no run");
}

#[test]
fn a_backend_that_is_not_there_or_no_backend_is_exit_code_3() {
    let gone = Scripted::start(|_| Answer::json(200, &json!({})));
    let url = gone.url();
    drop(gone);
    assert_eq!(scripted::viworks(&url, &["agents"]).code, 3);
    let odd = Scripted::start(|_| Answer::json(500, &json!({ "hello": 1 })));
    assert_eq!(odd.viworks(&["agents"]).code, 3);
}

#[test]
fn lists_take_all_pages_up_to_their_limit() {
    let backend = Scripted::start(|request| {
        let page = |items: Value, next: Value| Answer::json(200, &json!({ "items": items, "next": next }));
        match request.query("after").as_deref() {
            None => page(json!([{ "id": "a", "status": "online" }]), json!("c1")),
            Some("c1") => page(json!([{ "id": "b", "status": "offline" }]), json!("c2")),
            Some(_) => page(json!([{ "id": "c", "status": "online" }]), Value::Null),
        }
    });
    let all = backend.viworks(&["agents", "--json"]);
    let shown: Value = serde_json::from_str(&all.stdout).unwrap();
    assert_eq!(shown["items"].as_array().map(Vec::len), Some(3));
    let two = backend.viworks(&["agents", "list", "--limit", "2", "--label", "tier=web"]);
    assert_eq!(two.stdout.lines().count(), 3, "{}", two.stdout);
    assert!(two.stderr.contains("there are more"), "{}", two.stderr);
    assert_eq!(backend.last_query("label").as_deref(), Some("tier=web"));
}

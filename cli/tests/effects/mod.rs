//! The program against scripted answers: plans, undo, and checks that need no backend.

use crate::scripted::{self, Answer, Scripted};
use serde_json::{Value, json};

const ID: &str = "cmd-00000000000000000000000000000001";

fn planned() -> Value {
    json!({ "id": ID, "verb": "add_user", "mode": "plan", "state": "finished", "targets": 3,
        "counts": { "succeeded": 2, "denied": 1 }, "next": null, "invocations": [
            { "agent": "web-1", "state": "succeeded" }, { "agent": "web-2", "state": "succeeded" },
            { "agent": "db-1", "state": "denied", "failure": { "code": "denied", "message": "not here" } } ] })
}

fn groups() -> Value {
    json!({ "items": [{ "digest": "ab".repeat(32), "count": 2, "agents": ["web-1", "web-2"], "effects": [
        { "kind": "accounts.create", "summary": "create \u{1b}[2Jada", "state": "planned", "irreversible": false,
          "diff": [{ "field": "name", "before": null, "after": "ada" }] }] }], "next": null })
}

fn backend() -> Scripted {
    Scripted::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/verbs/add_user") => {
            Answer::json(200, &json!({ "args": { "properties": { "name": { "type": "string" } } }, "timeout_secs": 5 }))
        }
        ("POST", _) => Answer::json(200, &planned()),
        ("GET", path) if path.ends_with("/plan") => Answer::json(200, &groups()),
        _ => Answer::json(404, &json!({ "code": "not-found", "title": "There is no such thing", "status": 404 })),
    })
}

#[test]
fn a_plan_is_a_diff_for_each_group_and_a_table_of_the_rest() {
    let backend = backend();
    let ran = backend.viworks(&["run", "add_user", "--all", "-a", "name=ada", "--plan"]);
    assert_eq!(ran.code, 1, "one agent has no plan: {}", ran.stderr);
    assert_eq!(
        ran.stdout,
        format!(
            "web-1, web-2  plan {}\n  + accounts.create: create \\u{{1b}}[2Jada\n      + name: ada\n\n\
             AGENT  STATE   RESULT\ndb-1   denied  denied: not here\n",
            "ab".repeat(32)
        )
    );
    assert!(ran.stderr.contains("3 agents, the same plan: 2 would change something, 0 nothing; 1 without a plan"));
    assert_eq!(backend.body_of("POST", "/commands")["mode"], "plan");
    let ran = backend.viworks(&["run", "add_user", "--all", "-a", "name=ada", "--bind", ID]);
    assert_eq!((ran.code, &backend.body_of("POST", "/commands")["plan"]), (1, &json!(ID)));
    assert_eq!(
        backend.viworks(&["run", "add_user", "--all", "--plan", "--bind", ID]).code,
        2,
        "a plan is bound to none"
    );
}

#[test]
fn an_undo_is_asked_for_and_can_be_planned() {
    let backend = backend();
    let path = format!("/commands/{ID}/undo");
    assert_eq!(backend.viworks(&["undo", ID, "--plan"]).code, 1);
    assert_eq!(backend.body_of("POST", &path)["mode"], "plan");
    backend.viworks(&["undo", ID]);
    assert_eq!(backend.body_of("POST", &path)["mode"], "apply");
}

#[test]
fn an_export_is_checked_without_a_backend_and_never_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("receipts.jsonl");
    std::fs::write(&file, "{\"receipt\":1}\n").unwrap();
    let nobody = "http://127.0.0.1:1";
    let path = file.to_string_lossy().into_owned();
    assert_eq!(scripted::viworks(nobody, &["receipts", "verify", &path]).code, 2, "nothing vouches for it");
    let key = dir.path().join("warrant.pub.pem");
    std::fs::write(&key, viworks_signing::keys::SecretKey::generate().public().to_pem().unwrap()).unwrap();
    let ran = scripted::viworks(nobody, &["receipts", "verify", &path, "--warrant-keys", &key.to_string_lossy()]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("FAULT line 1"), "{}", ran.stdout);
}

#[test]
fn authorities_that_are_none_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let path = file.to_string_lossy().into_owned();
    let ran = scripted::viworks("https://127.0.0.1:1", &["agents", "--ca", &path]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("no certificate is in it"), "{}", ran.stderr);
}

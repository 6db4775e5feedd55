//! Commands from request to result: what is accepted, what is refused, keys, waiting,
//! cancelling. Agents are sessions' queues without sockets.

use axum::http::{HeaderName, header};
use serde_json::{Value, json};
use std::time::Duration;

use super::fixture::{Fixture, connect, finish, invocation_of};

const SOON: Duration = Duration::from_secs(10);

fn look(targets: &[&str]) -> Value {
    json!({"verb": "look", "agent_targets": targets})
}

#[tokio::test]
async fn each_refusal_has_its_own_problem_and_queues_nothing() {
    let fixture = Fixture::with_plugin().await;
    let cases = [
        (json!({"verb": "rm_rf", "agent_targets": ["web-01"]}), 404, "unknown-verb"),
        (json!({"verb": "look", "agent_targets": ["web-01", "web-99"]}), 404, "unknown-agent"),
        (look(&[]), 422, "no-targets"),
        (json!({"verb": "look"}), 422, "no-targets"),
        (json!({"verb": "look", "selector": {}}), 422, "no-targets"),
        (json!({"verb": "look", "selector": {"site": "nowhere"}}), 422, "no-targets"),
        (json!({"verb": "look", "selector": {"all": true, "labels": {"tier": "mail"}}}), 422, "no-targets"),
        (json!({"verb": "greet", "agent_targets": ["web-01"]}), 422, "invalid-arguments"),
        (json!({"verb": "greet", "args": {"name": 7}, "agent_targets": ["web-01"]}), 422, "invalid-arguments"),
        (json!({"verb": "look", "args": {"x": 1}, "agent_targets": ["web-01"]}), 422, "invalid-arguments"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "plan": "ab"}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "plan": "ab".repeat(32)}), 404, "not-found"),
        (
            json!({"verb": "look", "agent_targets": ["web-01"], "plan": "ab".repeat(32), "mode": "plan"}),
            400,
            "invalid-request",
        ),
        (json!({"verb": "look", "agent_targets": ["web-01"], "approvals": 9}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "mode": "maybe"}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["../x"]}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "selector": {"all": true}}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "wait_secs": 61}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "timeout_secs": 0}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "timeout_secs": -1}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "expires_in_secs": 90_000}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "batch": 0}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": ["web-01"], "idempotency_key": ""}), 400, "invalid-request"),
        (json!({"verb": "look", "agent_targets": "web-01"}), 400, "invalid-request"),
        (json!({"verb": "look", "args": [], "agent_targets": ["web-01"]}), 400, "invalid-request"),
        (json!({"agent_targets": ["web-01"]}), 400, "invalid-request"),
    ];
    for (body, status, code) in cases {
        let reply = fixture.send("POST", "/commands", "operator", &body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["code"].as_str()),
            (status, Some(code)),
            "{body} {}",
            reply.text
        );
        reply.problem(status, code);
    }
    assert_eq!(fixture.commands().await, 0);
}

#[tokio::test]
async fn refusals_say_what_exactly() {
    let fixture = Fixture::with_plugin().await;
    let body = json!({"verb": "look", "agent_targets": ["web-98", "web-01", "web-99"]});
    let problem = fixture.send("POST", "/commands", "operator", &body).await.problem(404, "unknown-agent");
    assert_eq!(problem["agents"], json!(["web-98", "web-99"]));
    let body = json!({"verb": "greet", "args": {"name": "ada", "tags": ["x", 7]}, "agent_targets": ["web-01"]});
    let problem = fixture.send("POST", "/commands", "operator", &body).await.problem(422, "invalid-arguments");
    assert_eq!(problem["errors"][0]["path"], "/tags/1");
    assert!(problem["errors"][0]["message"].is_string());
}

#[tokio::test]
async fn a_command_for_an_agent_that_is_away_waits() {
    let fixture = Fixture::with_plugin().await;
    let body = json!({"verb": "greet", "args": {"name": "ada"}, "agent_targets": ["web-01"], "expires_in_secs": 60});
    let accepted = fixture.send("POST", "/commands", "operator", &body).await.expect(202);
    assert_eq!((&accepted["state"], &accepted["verb"]), (&json!("queued"), &json!("greet")));
    assert_eq!((&accepted["mode"], &accepted["targets"]), (&json!("apply"), &json!(1)));
    let id = accepted["id"].as_str().unwrap();
    let command = fixture.get(&format!("/commands/{id}"), "viewer").await.expect(200);
    assert_eq!((&command["caller"], &command["plugin"]), (&json!("operator-1"), &json!("sample")));
    assert_eq!((&command["args"], &command["finished"]), (&json!({"name": "ada"}), &Value::Null));
    assert_eq!((&command["counts"]["queued"], &command["invocations"][0]["agent"]), (&json!(1), &json!("web-01")));
    assert_eq!(command["next"], Value::Null);
    let listed = fixture.get("/commands?state=queued&verb=greet&caller=operator-1", "viewer").await.expect(200);
    assert_eq!(listed["items"][0]["id"], id);
    assert_eq!(fixture.get("/commands?state=finished", "viewer").await.expect(200)["items"], json!([]));
    let wrong = fixture.get("/commands?state=done", "viewer").await.problem(400, "invalid-request");
    assert!(wrong["detail"].as_str().unwrap().contains("finished"), "{wrong}");
}

#[tokio::test]
async fn who_waits_gets_the_result() {
    let fixture = Fixture::with_plugin().await;
    let mut web = connect(&fixture, "web-01").await;
    let mut body = look(&["web-01"]);
    body["wait_secs"] = json!(30);
    let answer = fixture.send("POST", "/commands", "operator", &body);
    let agent = async {
        let invocation = invocation_of(&mut web).await;
        finish(&fixture, "web-01", invocation, json!("seen")).await;
    };
    let (answer, ()) = tokio::time::timeout(SOON, async { tokio::join!(answer, agent) }).await.unwrap();
    let command = answer.expect(200);
    assert_eq!((&command["state"], &command["counts"]["succeeded"]), (&json!("finished"), &json!(1)));
    assert_eq!(command["invocations"][0]["result"], "seen");
    assert!(command["finished"].is_string() && command["invocations"][0]["cost"]["wall_us"].is_u64());
    let id = command["id"].as_str().unwrap();
    assert_eq!(fixture.get(&format!("/commands/{id}"), "viewer").await.expect(200), command);
    let agents = fixture.get("/agents?status=online", "viewer").await.expect(200);
    let online: Vec<_> = agents["items"].as_array().unwrap().iter().map(|a| &a["id"]).collect();
    assert!(online.is_empty() || online == ["web-01"], "{online:?}");
    assert_eq!(fixture.get("/agents/web-01", "viewer").await.expect(200)["status"], "online");
}

#[tokio::test]
async fn who_waits_in_vain_gets_the_command() {
    let fixture = Fixture::with_plugin().await;
    let mut body = look(&["web-01"]);
    body["wait_secs"] = json!(1);
    let accepted = fixture.send("POST", "/commands", "operator", &body).await.expect(202);
    assert_eq!(accepted["state"], "queued");
}

#[tokio::test]
async fn targets_are_frozen_and_counted_once() {
    let fixture = Fixture::with_plugin().await;
    let accepted = fixture.send("POST", "/commands", "operator", &look(&["web-01", "web-01", "db-01"])).await;
    assert_eq!(accepted.expect(202)["targets"], 2);
    let body = json!({"verb": "look", "selector": {"site": "north", "labels": {"tier": "web"}}});
    let accepted = fixture.send("POST", "/commands", "operator", &body).await.expect(202);
    fixture.register("web-03", "north").await;
    let id = accepted["id"].as_str().unwrap();
    let page = fixture.get(&format!("/commands/{id}/invocations?limit=1"), "viewer").await.expect(200);
    assert_eq!(page["items"][0]["agent"], "web-01");
    let next = page["next"].as_str().unwrap();
    let rest = fixture.get(&format!("/commands/{id}/invocations?after={next}"), "viewer").await.expect(200);
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    let none = fixture.get(&format!("/commands/{id}/invocations?state=failed"), "viewer").await.expect(200);
    assert_eq!(none["items"], json!([]));
    fixture.get(&format!("/commands/{id}/invocations?state=up"), "viewer").await.problem(400, "invalid-request");
    let body = json!({"verb": "look", "selector": {"all": true}});
    assert_eq!(fixture.send("POST", "/commands", "operator", &body).await.expect(202)["targets"], 4);
}

#[tokio::test]
async fn too_many_targets_are_refused() {
    let fixture = Fixture::with_plugin().await;
    for n in 0..50 {
        fixture.register(&format!("node-{n}"), "far").await;
    }
    let body = json!({"verb": "look", "selector": {"all": true}});
    fixture.send("POST", "/commands", "operator", &body).await.problem(400, "invalid-request");
    assert_eq!(fixture.commands().await, 0);
}

#[tokio::test]
async fn a_key_makes_a_command_happen_once() {
    let fixture = Fixture::with_plugin().await;
    let body = |name: &str| json!({"verb": "greet", "args": {"name": name}, "agent_targets": ["web-01"]});
    let key = HeaderName::from_static("idempotency-key");
    let post = async |body: Value, header: &str, role: &str| {
        let headers = if header.is_empty() { vec![] } else { vec![(key.clone(), header)] };
        fixture.send_with("POST", "/commands", role, &body, &headers).await
    };
    let first = post(body("ada"), "k-1", "operator").await.expect(202);
    assert_eq!(post(body("ada"), "k-1", "operator").await.expect(202), first);
    let mut field = body("ada");
    field["idempotency_key"] = json!("k-1");
    assert_eq!(post(field.clone(), "", "operator").await.expect(202), first, "the field means the same");
    post(body("bob"), "k-1", "operator").await.problem(409, "conflict");
    post(field, "k-2", "operator").await.problem(400, "invalid-request");
    let other = post(body("bob"), "k-1", "admin").await.expect(202);
    assert_ne!(other["id"], first["id"], "keys belong to their caller");
    assert_eq!(fixture.commands().await, 2);
}

#[tokio::test]
async fn a_key_gives_the_first_answer_whatever_changed_since() {
    let fixture = Fixture::with_plugin().await;
    let body = |labels: Value| json!({"verb": "look", "selector": {"site": "north", "labels": labels}, "idempotency_key": "k"});
    let first = fixture.send("POST", "/commands", "operator", &body(json!({}))).await.expect(202);
    fixture.register("web-03", "north").await;
    fixture.send("DELETE", "/plugins/sample", "admin", &Value::Null).await.expect(204);
    let again = fixture.send("POST", "/commands", "operator", &body(json!({}))).await.expect(202);
    assert_eq!(again, first);
    let other = fixture.send("POST", "/commands", "operator", &body(json!({"tier": "web"}))).await;
    other.problem(409, "conflict");
    assert_eq!(fixture.commands().await, 1);
}

#[tokio::test]
async fn a_key_gives_the_result_again() {
    let fixture = Fixture::with_plugin().await;
    let mut web = connect(&fixture, "web-01").await;
    let body = json!({"verb": "look", "agent_targets": ["web-01"], "idempotency_key": "k", "wait_secs": 30});
    let agent = async {
        let invocation = invocation_of(&mut web).await;
        finish(&fixture, "web-01", invocation, json!("once")).await;
    };
    let (first, ()) = tokio::join!(fixture.send("POST", "/commands", "operator", &body), agent);
    let first = first.expect(200);
    assert_eq!(fixture.send("POST", "/commands", "operator", &body).await.expect(200), first);
}

#[tokio::test]
async fn beyond_the_slots_is_busy() {
    let fixture = Fixture::with_plugin().await;
    let _web = connect(&fixture, "web-01").await;
    for _ in 0..fixture.app.config.slots {
        fixture.send("POST", "/commands", "operator", &look(&["web-01"])).await.expect(202);
    }
    let reply = fixture.send("POST", "/commands", "operator", &look(&["web-01"])).await;
    reply.problem(429, "busy");
    assert!(reply.headers[header::RETRY_AFTER].to_str().unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(fixture.commands().await, fixture.app.config.slots as usize);
}

#[tokio::test]
async fn what_waits_can_be_cancelled() {
    let fixture = Fixture::with_plugin().await;
    let accepted = fixture.send("POST", "/commands", "operator", &look(&["web-01", "db-01"])).await.expect(202);
    let path = format!("/commands/{}", accepted["id"].as_str().unwrap());
    fixture.send("POST", &format!("{path}/cancel"), "viewer", &json!({})).await.problem(403, "forbidden");
    let cancelled = fixture.send("POST", &format!("{path}/cancel"), "operator", &json!({})).await.expect(202);
    assert_eq!((&cancelled["state"], &cancelled["counts"]["cancelled"]), (&json!("cancelled"), &json!(2)));
    let again = fixture.send("POST", &format!("{path}/cancel"), "operator", &Value::Null).await.expect(202);
    assert_eq!(again["state"], "cancelled");
    let undo = fixture.send("POST", &format!("{path}/undo"), "operator", &Value::Null).await;
    undo.problem(409, "conflict");
    fixture.send("POST", "/commands/cmd-0/undo", "operator", &json!({})).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_store_that_is_gone_is_an_internal_problem_without_its_cause() {
    let fixture = Fixture::with_plugin().await;
    fixture.get("/agents", "operator").await.expect(200);
    fixture.app.store.close().await;
    let problem = fixture.get("/agents", "operator").await.problem(500, "internal");
    assert!(!problem.to_string().contains("store") && !problem.to_string().contains("database"), "{problem}");
    fixture.get("/health", "").await.expect(503);
}

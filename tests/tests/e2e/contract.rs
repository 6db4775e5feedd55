//! The HTTP contract: every request of the first system, every refusal with its own
//! status and code, and nothing queued by what is refused.

use std::io::Error;
use std::time::Duration;

use serde_json::{Value, json};
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::gateway::Gateway;
use viworks_tests::program::eventually;

use crate::Result;

#[test]
fn health_tells_its_parts_and_needs_no_token() -> Result {
    let cluster = Cluster::start()?;
    let health = cluster.api.with_token(None).get("/health")?.expect_status(200)?;
    assert_eq!(health["status"], "healthy", "{health}");
    assert!(health["timestamp"].is_string() && health["version"].is_string());
    for service in ["database", "agent_registry", "command_engine", "telemetry_processor"] {
        assert!(!health["services"][service].is_null(), "{service} in {health}");
    }
    assert_eq!(health["services"]["agent_registry"]["total_agents"], 0);
    assert_eq!(health["services"]["command_engine"]["active_commands"], 0);
    assert!(health["services"]["command_engine"]["available_slots"].as_u64().is_some_and(|n| n > 0));
    Ok(())
}

#[test]
fn each_refusal_has_its_own_problem_and_queues_nothing() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let api = &cluster.api;
    let post = |body: Value| api.post("/commands", &body);
    let ok = json!({"name": "ada"});

    let cases = [
        (json!({"verb": "rm_rf", "args": {}, "agent_targets": ["web-01"]}), 404, "unknown-verb"),
        (json!({"verb": "add_user", "args": ok, "agent_targets": ["web-99"]}), 404, "unknown-agent"),
        (json!({"verb": "add_user", "args": ok, "agent_targets": []}), 422, "no-targets"),
        (json!({"verb": "add_user", "args": ok}), 422, "no-targets"),
        (json!({"verb": "add_user", "args": ok, "selector": {}}), 422, "no-targets"),
        (json!({"verb": "add_user", "args": {}, "agent_targets": ["web-01"]}), 422, "invalid-arguments"),
        (
            json!({"verb": "add_user", "args": {"name": "x;reboot"}, "agent_targets": ["web-01"]}),
            422,
            "invalid-arguments",
        ),
        (
            json!({"verb": "add_user", "args": {"name": "a", "uid": "1"}, "agent_targets": ["web-01"]}),
            422,
            "invalid-arguments",
        ),
        (
            json!({"verb": "add_user", "args": {"name": "a", "shel": "x"}, "agent_targets": ["web-01"]}),
            422,
            "invalid-arguments",
        ),
        (json!({"verb": "add_user", "args": ok, "agent_targets": ["web-01"], "sudo": true}), 400, "invalid-request"),
        (json!({"verb": "add_user", "args": ok, "agent_targets": ["../x"]}), 400, "invalid-request"),
        (json!({"verb": "add_user", "args": ok, "agent_targets": ["web-01"], "mode": "maybe"}), 400, "invalid-request"),
        (json!([]), 400, "invalid-request"),
    ];
    for (body, status, code) in cases {
        let answer = post(body.clone())?.problem(status).map_err(|e| Error::other(format!("{body}: {e}")))?;
        assert_eq!(answer, code, "{body}");
    }

    let path =
        post(json!({"verb": "add_user", "args": {"name": "a", "groups": ["x", 7]}, "agent_targets": ["web-01"]}))?;
    assert_eq!(path.body["errors"][0]["path"], "/groups/1", "{path:?}");

    let raw = |kind: &str, text: &str| api.send("POST", "/commands", Some((kind, text.as_bytes().to_vec())));
    assert_eq!(raw("application/json", "{")?.problem(400)?, "invalid-request");
    assert_eq!(raw("text/plain", "{}")?.problem(415)?, "unsupported-media-type");
    for _ in 0..20 {
        // Each time: a connection that is reset too early loses its answer only sometimes.
        assert_eq!(raw("application/json", &" ".repeat(2 << 20))?.problem(413)?, "body-too-large");
        assert_eq!(raw("text/plain", &" ".repeat(2 << 20))?.problem(415)?, "unsupported-media-type");
    }
    assert_eq!(api.get("/nowhere")?.problem(404)?, "not-found");
    assert_eq!(api.delete("/commands")?.problem(405)?, "method-not-allowed");
    assert_eq!(api.get("/commands/cmd-0")?.problem(404)?, "not-found");

    for token in [None, Some("viw_wrong"), Some("")] {
        assert_eq!(api.with_token(token).get("/agents")?.problem(401)?, "unauthenticated", "{token:?}");
    }
    let viewer = cluster.token("carol", "viewer")?;
    let viewer = api.with_token(Some(&viewer));
    viewer.get("/agents")?.expect_status(200)?;
    let refused = viewer.post("/commands", &json!({"verb": "list_users", "args": {}, "agent_targets": ["web-01"]}))?;
    assert_eq!(refused.problem(403)?, "forbidden");

    let commands = api.get("/commands")?.expect_status(200)?;
    assert_eq!(commands["items"], json!([]), "nothing was queued");
    Ok(())
}

#[test]
fn a_key_makes_a_command_happen_once() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let body = |name: &str| json!({"verb": "add_user", "args": {"name": name}, "agent_targets": ["web-01"], "idempotency_key": "k-1", "wait_secs": 30});
    let first = cluster.api.post("/commands", &body("ada"))?.expect_status(200)?;
    let second = cluster.api.post("/commands", &body("ada"))?.expect_status(200)?;
    assert_eq!(first["id"], second["id"]);
    assert_eq!(second["invocations"][0]["state"], "succeeded", "not a conflict: it ran once");
    assert_eq!(cluster.api.post("/commands", &body("bob"))?.problem(409)?, "conflict");
    Ok(())
}

#[test]
fn an_open_api_describes_it_and_metrics_count_it() -> Result {
    let cluster = Cluster::start()?;
    let api = cluster.api.get("/openapi.json")?.expect_status(200)?;
    for path in
        ["/health", "/agents", "/agents/{id}", "/commands", "/commands/{id}/events", "/verbs", "/plugins", "/audit"]
    {
        assert!(api["paths"][path].is_object(), "{path}");
    }
    let metrics = cluster.api.get("/metrics")?.expect_status(200)?;
    assert!(metrics.as_str().is_some_and(|m| m.contains("viworks_backend_")), "{metrics}");
    Ok(())
}

#[test]
fn an_agent_that_leaves_is_offline_and_its_telemetry_stays() -> Result {
    let cluster = Cluster::start_with(&Options { backend: "heartbeat_secs = 1".into() })?;
    let mut setup = viworks_tests::gateway::Setup::new(&cluster, "web-01")?;
    setup.keys = "telemetry_secs = 2\nlabels = { tier = \"web\" }\n".into();
    let mut gateway = setup.start(&cluster)?;
    cluster.ready("web-01", 0)?;
    let sample = eventually("a telemetry sample", Duration::from_secs(20), || {
        let body = cluster.api.get("/agents/web-01/telemetry")?.expect_status(200)?;
        Ok(body["items"].as_array().and_then(|all| all.first().cloned()))
    })?;
    assert!(sample["memory_total_mib"].as_u64().is_some_and(|mib| mib > 0), "{sample}");

    gateway.process.kill()?;
    eventually("offline", Duration::from_secs(10), || {
        let agents = cluster.api.get("/agents?status=offline&label=tier=web")?.expect_status(200)?;
        Ok((agents["items"][0]["id"] == "web-01").then_some(()))
    })?;
    Ok(())
}

/// As a shell script of the first system's users would.
fn curl(args: &[&str]) -> std::io::Result<Value> {
    let base = ["-sS", "--max-time", "60", "-H", "Content-Type: application/json"];
    let text = viworks_tests::program::run("/usr/bin/curl".as_ref(), base.iter().chain(args))?;
    serde_json::from_str(&text).map_err(Error::other)
}

#[test]
fn curl_speaks_the_contract() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("health")?;
    let _gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let url = cluster.api.url();
    let token = format!("Authorization: Bearer {}", cluster.token("curl", "operator")?);

    assert_eq!(curl(&[&format!("{url}/health")])?["status"], "healthy");
    let agents_health = curl(&["-k", &format!("https://{}/health", cluster.agents_addr)])?;
    assert_eq!(agents_health, json!({"status": "healthy"}), "the agents' port needs no certificate for its health");
    assert_eq!(curl(&["-H", &token, &format!("{url}/agents")])?["items"][0]["id"], "web-01");

    let body = r#"{"verb":"get_system_health","args":{},"agent_targets":["web-01"]}"#;
    let accepted = curl(&["-H", &token, "-d", body, &format!("{url}/commands")])?;
    let id = accepted["id"].as_str().unwrap_or_default();
    assert!(id.starts_with("cmd-"), "{accepted}");
    let done = eventually("finished", Duration::from_secs(30), || {
        let command = curl(&["-H", &token, &format!("{url}/commands/{id}")])?;
        Ok((!command["finished"].is_null()).then_some(command))
    })?;
    assert_eq!(done["invocations"][0]["state"], "succeeded", "{done}");
    Ok(())
}

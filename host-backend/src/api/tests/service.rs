//! The backend itself: health, metrics, the document.

use serde_json::json;

use super::fixture::Fixture;
use crate::metrics::Metrics;

#[tokio::test]
async fn metrics_count_requests_by_route_and_not_by_what_clients_choose() {
    let fixture = Fixture::new().await;
    fixture.get("/agents/web-01", "viewer").await.expect(200);
    fixture.get("/agents/web-99", "viewer").await.expect(404);
    fixture.get("/made-up-by-a-client", "viewer").await.expect(404);
    fixture.send("BREW", "/agents", "viewer", &json!(null)).await.expect(405);
    let reply = fixture.get("/metrics", "viewer").await;
    assert_eq!(reply.status, 200);
    let metrics = reply.text;
    for line in [
        "viworks_backend_http_requests_total{method=\"GET\",route=\"/agents/{id}\",status=\"200\"} 1",
        "viworks_backend_http_requests_total{method=\"GET\",route=\"/agents/{id}\",status=\"404\"} 1",
        "viworks_backend_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1",
        "viworks_backend_http_requests_total{method=\"other\",route=\"/agents\",status=\"405\"} 1",
        "viworks_backend_http_request_duration_seconds_count{method=\"GET\",route=\"/agents/{id}\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("web-01") && !metrics.contains("made-up") && !metrics.contains("BREW"));
    assert!(!metrics.contains("# EOF"), "the older text, for who names no format");
    assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn the_document_is_served() {
    let fixture = Fixture::new().await;
    let served = fixture.get("/openapi.json", "").await.expect(200);
    assert_eq!(
        served.to_string(),
        serde_json::from_str::<serde_json::Value>(&super::super::document()).unwrap().to_string()
    );
}

#[tokio::test]
async fn health_tells_what_works_and_what_does_not() {
    let fixture = Fixture::new().await;
    // Without sockets, nobody serves agents or takes samples.
    let health = fixture.get("/health", "").await.expect(503);
    assert_eq!(health["status"], "degraded");
    let services = &health["services"];
    assert_eq!(
        (&services["database"]["status"], &services["agent_registry"]["status"]),
        (&json!("healthy"), &json!("degraded"))
    );
    assert_eq!(
        (&services["command_engine"]["status"], &services["telemetry_processor"]["status"]),
        (&json!("healthy"), &json!("degraded"))
    );

    let fixture = Fixture::new().await;
    for task in ["agents-port", "sweeper", "telemetry"] {
        fixture.app.background.supervise(task, std::future::pending);
    }
    let health = fixture.get("/health", "").await.expect(200);
    assert_eq!(health["status"], "healthy", "{health}");
    assert!(health["timestamp"].is_string() && health["version"].is_string());
    assert_eq!(health["services"]["agent_registry"]["total_agents"], 3);
    assert_eq!(health["services"]["command_engine"]["active_commands"], 0);
    assert_eq!(health["services"]["command_engine"]["available_slots"], fixture.app.config.slots);
}

#[tokio::test]
async fn the_documentation_lists_every_metric_and_no_other() {
    let fixture = Fixture::new().await;
    // A metric with labels shows once it has counted something.
    let metrics = &fixture.app.metrics;
    for family in [
        &metrics.frames,
        &metrics.refusals,
        &metrics.sessions_closed,
        &metrics.outcomes,
        &metrics.restarts,
        &metrics.rollouts,
        &metrics.shadows,
        &metrics.repository_updates,
        &metrics.spans,
    ] {
        Metrics::count(family, "tests");
    }
    metrics.latencies.invocation("look", "run", 1);
    metrics.latencies.session("closed", std::time::Duration::ZERO);
    fixture.get("/agents", "").await.expect(401);
    let served = fixture.get("/metrics", "viewer").await.text;
    let counter = |name: &'_ str| name.strip_suffix("_total").unwrap_or(name).to_owned();
    let mut served: Vec<_> =
        served.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).map(counter).collect();
    let documentation = include_str!("../../../../docs/metrics.md");
    let mut documented: Vec<_> =
        documentation.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).map(str::to_owned).collect();
    documented.retain(|name| name.starts_with("viworks_backend_"));
    served.sort_unstable();
    documented.sort_unstable();
    assert_eq!(served, documented);
}

#[tokio::test]
async fn readiness_ends_with_the_drain_and_liveness_does_not() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.get("/health/live", "").await.expect(200)["status"], "alive");
    assert_eq!(fixture.get("/health/ready", "").await.expect(200), json!({"status": "ready", "reasons": []}));
    fixture.app.ready.drain();
    let not = fixture.get("/health/ready", "").await.expect(503);
    assert_eq!(not, json!({"status": "not_ready", "reasons": ["draining"]}));
    fixture.get("/agents", "viewer").await.expect(200);
    fixture.get("/health/live", "").await.expect(200);
}

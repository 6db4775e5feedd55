//! Who may do what: every resource with every role and with none; refusals are audited
//! and counted, and no token shows in them.

use axum::http::{Request, header};
use serde_json::{Value, json};

use super::fixture::Fixture;

/// Method, path, and the roles that get past authorisation.
const MATRIX: &[(&str, &str, &[&str])] = &[
    ("GET", "/agents", READ),
    ("GET", "/agents/web-01", READ),
    ("GET", "/agents/web-01/telemetry", READ),
    ("GET", "/commands", READ),
    ("GET", "/commands/cmd-0", READ),
    ("GET", "/commands/cmd-0/invocations", READ),
    ("GET", "/commands/cmd-0/events", READ),
    ("POST", "/commands", RUN),
    ("POST", "/commands/cmd-0/cancel", RUN),
    ("POST", "/commands/cmd-0/undo", RUN),
    ("POST", "/commands/cmd-0/approve", RUN),
    ("GET", "/commands/cmd-0/plan", READ),
    ("GET", "/receipts", READ),
    ("GET", "/receipts/keys", READ),
    ("GET", "/receipts/anchors", READ),
    ("GET", "/approvers", READ),
    ("POST", "/approvers", ADMIN),
    ("DELETE", "/approvers/ab", ADMIN),
    ("GET", "/verbs", READ),
    ("GET", "/verbs/greet", READ),
    ("GET", "/plugins", READ),
    ("POST", "/plugins", PUBLISH),
    ("DELETE", "/plugins/sample", ADMIN),
    ("POST", "/plugins/kill", ADMIN),
    ("GET", "/plugins/sample/diff", READ),
    ("POST", "/plugins/sample/ab/approve", ADMIN),
    ("GET", "/plugins/sample/rollouts", READ),
    ("POST", "/plugins/sample/rollouts", PUBLISH),
    ("GET", "/plugins/sample/rollouts/rol-0", READ),
    ("POST", "/plugins/sample/rollouts/rol-0/pause", PUBLISH),
    ("POST", "/plugins/sample/rollouts/rol-0/resume", PUBLISH),
    ("POST", "/plugins/sample/rollouts/rol-0/abort", PUBLISH),
    ("GET", "/repository", READ),
    ("POST", "/repository", PUBLISH),
    ("GET", "/tokens", ADMIN),
    ("POST", "/tokens", ADMIN),
    ("DELETE", "/tokens/nobody", ADMIN),
    ("GET", "/audit", ADMIN),
    ("GET", "/metrics", READ),
];
const READ: &[&str] = &["viewer", "operator", "publisher", "admin"];
const RUN: &[&str] = &["operator", "admin"];
const PUBLISH: &[&str] = &["publisher", "admin"];
const ADMIN: &[&str] = &["admin"];

#[tokio::test]
async fn every_resource_for_every_role() {
    let fixture = Fixture::new().await;
    for (method, path, roles) in MATRIX {
        // A body that nobody takes: what gets past authorisation is refused for it.
        let body = if *method == "POST" { json!([]) } else { Value::Null };
        for role in READ {
            let reply = fixture.send(method, path, role, &body).await;
            if roles.contains(role) {
                assert!(![401, 403].contains(&reply.status.as_u16()), "{method} {path} {role}: {}", reply.text);
            } else {
                reply.problem(403, "forbidden");
            }
        }
        let reply = fixture.send(method, path, "", &body).await;
        reply.problem(401, "unauthenticated");
        assert!(reply.headers.contains_key(header::WWW_AUTHENTICATE));
    }
}

#[test]
fn the_matrix_is_whole() {
    let document: Value = serde_json::from_str(&super::super::document()).unwrap();
    let mut documented = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"].is_null() {
                assert!(
                    ["/health", "/health/live", "/health/ready", "/openapi.json"].contains(&path.as_str()),
                    "{path} is open"
                );
                continue;
            }
            documented += 1;
            let fits = |text: &str| {
                text.split('/').count() == path.split('/').count()
                    && text.split('/').zip(path.split('/')).all(|(a, b)| a == b || b.starts_with('{'))
            };
            let found = MATRIX.iter().any(|(m, p, _)| m.eq_ignore_ascii_case(method) && fits(p));
            assert!(found, "{method} {path} is not in the matrix");
        }
    }
    assert_eq!(documented, MATRIX.len());
}

#[tokio::test]
async fn the_open_resources_need_no_token() {
    let fixture = Fixture::new().await;
    fixture.get("/health", "").await.expect(503);
    fixture.get("/openapi.json", "").await.expect(200);
}

#[tokio::test]
async fn refusals_are_audited_and_counted_without_the_token() {
    let fixture = Fixture::new().await;
    fixture.get("/audit", "viewer").await.problem(403, "forbidden");
    fixture.get("/agents", "").await.problem(401, "unauthenticated");
    let unknown = crate::authz::NewToken::generate().unwrap().reveal();
    let request = Request::get("/agents").header(header::AUTHORIZATION, format!("Bearer {unknown}"));
    fixture.raw(request.body(Default::default()).unwrap()).await.problem(401, "unauthenticated");

    let audit = fixture.get("/audit", "admin").await.expect(200).to_string();
    fixture.app.store.flush().await.unwrap();
    assert!(!audit.contains(&unknown) && !audit.contains(fixture.token("viewer")));
    let audited = fixture.audited().await;
    assert_eq!(audited.iter().filter(|l| *l == "peer:unknown api.read GET /agents refused").count(), 2, "{audited:#?}");
    assert!(audited.contains(&"viewer-1 api.administer GET /audit refused".to_owned()), "{audited:#?}");

    let metrics = fixture.get("/metrics", "viewer").await.text;
    assert!(metrics.contains("viworks_backend_api_refusals_total{reason=\"forbidden\"} 1"), "{metrics}");
    assert!(metrics.contains("viworks_backend_api_refusals_total{reason=\"unauthenticated\"} 2"), "{metrics}");
}

#[tokio::test]
async fn guessing_does_not_fill_the_audit_log() {
    let fixture = Fixture::new().await;
    for _ in 0..200 {
        fixture.get("/agents", "").await.problem(401, "unauthenticated");
    }
    let recorded = fixture.audited().await.iter().filter(|l| l.starts_with("peer:")).count();
    assert!((10..100).contains(&recorded), "{recorded}");
}

#[tokio::test]
async fn tokens_are_made_used_and_revoked() {
    let fixture = Fixture::new().await;
    let body = json!({"name": "alice@example.com", "role": "operator", "expires_in_secs": 3600});
    let made = fixture.send("POST", "/tokens", "admin", &body).await.expect(201);
    fixture.send("POST", "/tokens", "admin", &body).await.problem(409, "conflict");
    assert!(made["expires"].is_string());
    let text = made["token"].as_str().unwrap().to_owned();
    let ask = async || {
        let request = Request::get("/agents").header(header::AUTHORIZATION, format!("Bearer {text}"));
        fixture.raw(request.body(Default::default()).unwrap()).await
    };
    ask().await.expect(200);
    let listed = fixture.get("/tokens", "admin").await;
    assert!(!listed.text.contains(&text) && listed.text.contains("alice@example.com"));
    fixture.send("DELETE", "/tokens/alice@example.com", "admin", &Value::Null).await.expect(204);
    ask().await.problem(401, "unauthenticated");
    fixture.send("DELETE", "/tokens/alice@example.com", "admin", &Value::Null).await.problem(404, "not-found");
    let audited = fixture.audited().await;
    for action in ["token.create", "token.revoke"] {
        let line = format!("admin-1 {action} token:alice@example.com allowed");
        assert!(audited.contains(&line), "{audited:#?}");
    }
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let fixture = Fixture::new().await;
    let body = json!({"name": "brief", "role": "viewer", "expires_in_secs": 60});
    let made = fixture.send("POST", "/tokens", "admin", &body).await.expect(201);
    fixture.app.clock.advance(std::time::Duration::from_secs(61));
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let request = Request::get("/agents").header(header::AUTHORIZATION, bearer);
    fixture.raw(request.body(Default::default()).unwrap()).await.problem(401, "unauthenticated");
}

//! Requests that can't be read: each its own problem, whoever refuses it.

use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};

use super::fixture::Fixture;

#[tokio::test]
async fn what_is_not_there() {
    let fixture = Fixture::new().await;
    fixture.get("/nowhere", "viewer").await.problem(404, "not-found");
    fixture.get("/nowhere", "").await.problem(404, "not-found");
    fixture.get("/", "").await.problem(404, "not-found");
    let reply = fixture.send("DELETE", "/commands", "admin", &Value::Null).await;
    reply.problem(405, "method-not-allowed");
    let allow = reply.headers[header::ALLOW].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    fixture.send("PUT", "/plugins", "admin", &json!({})).await.problem(405, "method-not-allowed");
    fixture.send("BREW", "/agents", "admin", &Value::Null).await.problem(405, "method-not-allowed");
    for path in ["/commands/cmd-0", "/commands/x/invocations", "/commands/x/events"] {
        fixture.get(path, "viewer").await.problem(404, "not-found");
    }
    fixture.get("/verbs/greet", "viewer").await.problem(404, "unknown-verb");
}

#[tokio::test]
async fn bodies_that_are_none() {
    let fixture = Fixture::new().await;
    let bearer = format!("Bearer {}", fixture.token("admin"));
    for path in ["/commands", "/plugins", "/tokens"] {
        let post = |kind: &str, body: Body| {
            let request = Request::post(path).header(header::AUTHORIZATION, &bearer);
            let request = if kind.is_empty() { request } else { request.header(header::CONTENT_TYPE, kind) };
            fixture.raw(request.body(body).unwrap())
        };
        post("application/json", "{".into()).await.problem(400, "invalid-request");
        post("application/json", "".into()).await.problem(400, "invalid-request");
        post("application/json", "[]".into()).await.problem(400, "invalid-request");
        post("application/json", "\u{0}".into()).await.problem(400, "invalid-request");
        post("text/plain", "{}".into()).await.problem(415, "unsupported-media-type");
        post("", "{}".into()).await.problem(415, "unsupported-media-type");
        let broken =
            Body::from_stream(futures_util::stream::iter([Err::<bytes::Bytes, _>(std::io::Error::other("gone"))]));
        post("application/json", broken).await.problem(400, "invalid-request");
    }
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let fixture = Fixture::new().await;
    let bearer = format!("Bearer {}", fixture.token("admin"));
    let post = |path: &str, bytes: usize| {
        let request = Request::post(path).header(header::AUTHORIZATION, &bearer);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        fixture.raw(request.body(Body::from(vec![b' '; bytes])).unwrap())
    };
    post("/commands", (1 << 20) + 1).await.problem(413, "body-too-large");
    post("/commands", 1 << 20).await.problem(400, "invalid-request");
    post("/tokens", (1 << 20) + 1).await.problem(413, "body-too-large");
    post("/plugins", 33 << 20).await.problem(400, "invalid-request");
    post("/plugins", (33 << 20) + 1).await.problem(413, "body-too-large");
}

#[tokio::test]
async fn an_unknown_field_is_named_with_the_choices() {
    let fixture = Fixture::new().await;
    let reply = fixture.send("POST", "/commands", "admin", &json!({"verb": "look", "sudo": true})).await;
    let detail = reply.problem(400, "invalid-request")["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("`sudo`") && detail.contains("`agent_targets`"), "{detail}");
    let body = json!({"verb": "look", "selector": {"sight": "x"}});
    let detail = fixture.send("POST", "/commands", "admin", &body).await.problem(400, "invalid-request");
    assert!(detail["detail"].as_str().unwrap().contains("selector"), "{detail}");
    let role = fixture.send("POST", "/tokens", "admin", &json!({"name": "a", "role": "root"})).await;
    assert!(role.problem(400, "invalid-request")["detail"].as_str().unwrap().contains("`publisher`"));
    for name in ["", "a b", "a\n", &"x".repeat(65)] {
        let body = json!({"name": name, "role": "viewer"});
        fixture.send("POST", "/tokens", "admin", &body).await.problem(400, "invalid-request");
    }
}

#[tokio::test]
async fn every_answer_has_an_id_and_the_headers() {
    let fixture = Fixture::new().await;
    let ours = [(header::HeaderName::from_static("x-request-id"), "job-7")];
    for path in ["/health", "/nowhere", "/agents"] {
        let reply = fixture.send_with(Method::GET.as_str(), path, "", &Value::Null, &ours).await;
        assert_eq!(reply.headers["x-request-id"], "job-7");
        assert_eq!(reply.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store");
    }
}

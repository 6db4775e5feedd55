//! The event stream: everything settled once and in order, resumed where it broke off,
//! progress between, the end, and what bounds it.

use axum::http::HeaderName;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_stream::StreamExt as _;

use super::fixture::{Fixture, agent, connect, finish, invocation_of};
use crate::dispatch::Progress;

const SOON: Duration = Duration::from_secs(10);

/// `event`, `id` and parsed `data` of each event.
fn parse(text: &str) -> Vec<(String, Option<u64>, Value)> {
    let events = text.split("\n\n").filter(|block| block.contains("event:"));
    let field =
        |block: &str, name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim_start().to_owned());
    events
        .map(|block| {
            let data = serde_json::from_str(&field(block, "data:").unwrap()).unwrap();
            (field(block, "event:").unwrap(), field(block, "id:").map(|id| id.parse().unwrap()), data)
        })
        .collect()
}

/// A finished command on both web agents; gives its path.
async fn finished(fixture: &Fixture) -> String {
    let (mut one, mut two) = (connect(fixture, "web-01").await, connect(fixture, "web-02").await);
    let body = json!({"verb": "look", "selector": {"site": "north"}});
    let accepted = fixture.send("POST", "/commands", "operator", &body).await.expect(202);
    finish(fixture, "web-01", invocation_of(&mut one).await, json!(1)).await;
    finish(fixture, "web-02", invocation_of(&mut two).await, json!(2)).await;
    let path = format!("/commands/{}", accepted["id"].as_str().unwrap());
    let events = format!("{path}/events");
    tokio::time::timeout(SOON, fixture.get(&events, "viewer")).await.unwrap();
    path
}

#[tokio::test]
async fn a_finished_command_is_told_and_the_stream_ends() {
    let fixture = Fixture::with_plugin().await;
    let path = finished(&fixture).await;
    let reply = fixture.get(&format!("{path}/events"), "viewer").await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let events = parse(&reply.text);
    let kinds: Vec<_> = events.iter().map(|(kind, id, _)| (kind.as_str(), *id)).collect();
    assert_eq!(kinds, [("invocation", Some(1)), ("invocation", Some(2)), ("finished", None)]);
    assert_eq!(events[0].2["state"], "succeeded");
    assert_eq!((&events[2].2["state"], &events[2].2["invocations"]), (&json!("finished"), &Value::Null));
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event() {
    let fixture = Fixture::with_plugin().await;
    let path = format!("{}/events", finished(&fixture).await);
    let last = HeaderName::from_static("last-event-id");
    for (seen, left) in [("1", vec!["invocation", "finished"]), ("2", vec!["finished"]), ("99", vec!["finished"])] {
        let reply = fixture.send_with("GET", &path, "viewer", &Value::Null, &[(last.clone(), seen)]).await;
        let kinds: Vec<String> = parse(&reply.text).into_iter().map(|(kind, ..)| kind).collect();
        assert_eq!(kinds, left, "after {seen}");
    }
    let reply = fixture.send_with("GET", &path, "viewer", &Value::Null, &[(last, "x")]).await;
    reply.problem(400, "invalid-request");
}

#[tokio::test]
async fn a_running_command_is_followed_to_its_end() {
    let fixture = Fixture::with_plugin().await;
    let mut web = connect(&fixture, "web-01").await;
    let body = json!({"verb": "look", "agent_targets": ["web-01"]});
    let accepted = fixture.send("POST", "/commands", "operator", &body).await.expect(202);
    let invocation = invocation_of(&mut web).await;
    let path = format!("/commands/{}/events", accepted["id"].as_str().unwrap());
    let mut stream = fixture.stream(&path, "viewer").await;
    let progress = Progress {
        invocation: invocation.clone(),
        agent: agent("web-01"),
        done: 1,
        total: Some(2),
        message: "half".into(),
    };
    fixture.app.engine.progress(progress);
    let chunk = tokio::time::timeout(SOON, stream.next()).await.unwrap().unwrap().unwrap();
    let told = parse(std::str::from_utf8(&chunk).unwrap());
    assert_eq!((told[0].0.as_str(), told[0].1), ("progress", None));
    assert_eq!(
        told[0].2,
        json!({"invocation": invocation.as_str(), "agent": "web-01", "done": 1, "total": 2, "message": "half"})
    );

    finish(&fixture, "web-01", invocation, json!("seen")).await;
    let mut rest = Vec::new();
    let all = async {
        while let Some(chunk) = stream.next().await {
            rest.extend(chunk.unwrap());
        }
    };
    tokio::time::timeout(SOON, all).await.unwrap();
    let kinds: Vec<String> = parse(&String::from_utf8(rest).unwrap()).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["invocation", "finished"]);
    let metrics = fixture.get("/metrics", "viewer").await.text;
    drop(stream);
    assert!(metrics.contains("viworks_backend_api_event_streams"), "{metrics}");
}

#[tokio::test]
async fn shutdown_ends_streams() {
    let fixture = Fixture::with_plugin().await;
    let body = json!({"verb": "look", "agent_targets": ["web-01"]});
    let accepted = fixture.send("POST", "/commands", "operator", &body).await.expect(202);
    let path = format!("/commands/{}/events", accepted["id"].as_str().unwrap());
    let stream = fixture.stream(&path, "viewer").await;
    fixture.shutdown.cancel();
    let left = tokio::time::timeout(SOON, stream.collect::<Vec<_>>()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

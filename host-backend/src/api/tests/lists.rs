//! Lists: pages and their cursors, filters, and refusals of both.

use serde_json::{Value, json};

use super::fixture::Fixture;

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn agents_come_in_pages() {
    let fixture = Fixture::new().await;
    let first = fixture.get("/agents?limit=2", "viewer").await.expect(200);
    assert_eq!(ids(&first), ["db-01", "web-01"]);
    let next = first["next"].as_str().unwrap();
    let second = fixture.get(&format!("/agents?limit=2&after={next}"), "viewer").await.expect(200);
    assert_eq!((ids(&second), &second["next"]), (vec!["web-02"], &Value::Null));
    fixture.get(&format!("/commands?after={next}"), "viewer").await.problem(400, "invalid-request");
    fixture.get("/agents?after=web-01", "viewer").await.problem(400, "invalid-request");
    fixture.get("/agents?limit=0", "viewer").await.problem(400, "invalid-request");
    fixture.get("/agents?limit=1001", "viewer").await.problem(400, "invalid-request");
    fixture.get("/agents?limit=x", "viewer").await.problem(400, "invalid-request");
}

#[tokio::test]
async fn agents_are_filtered_by_what_holds_for_all() {
    let fixture = Fixture::new().await;
    for (query, expected) in [
        ("site=north", vec!["web-01", "web-02"]),
        ("label=tier=db", vec!["db-01"]),
        ("label=tier=web,tier=web&site=north", vec!["web-01", "web-02"]),
        ("label=tier=web&site=south", vec![]),
        ("status=offline", vec!["db-01", "web-01", "web-02"]),
    ] {
        assert_eq!(ids(&fixture.get(&format!("/agents?{query}"), "viewer").await.expect(200)), expected, "{query}");
    }
    let wrong = fixture.get("/agents?status=up", "viewer").await.problem(400, "invalid-request");
    assert!(wrong["detail"].as_str().unwrap().contains("online"), "{wrong}");
    let wrong = fixture.get("/agents?colour=red", "viewer").await.problem(400, "invalid-request");
    assert!(wrong["detail"].as_str().unwrap().contains("`status`"), "{wrong}");
    fixture.get("/agents?label=tier", "viewer").await.problem(400, "invalid-request");
}

#[tokio::test]
async fn one_agent_and_its_telemetry() {
    let fixture = Fixture::new().await;
    let agent = fixture.get("/agents/web-01", "viewer").await.expect(200);
    assert_eq!((&agent["status"], &agent["site"]), (&json!("offline"), &json!("north")));
    assert!(agent["last_seen"].as_str().unwrap().ends_with('Z'));
    for missing in ["web-99", "a%2Fb", "-"] {
        fixture.get(&format!("/agents/{missing}"), "viewer").await.problem(404, "not-found");
        fixture.get(&format!("/agents/{missing}/telemetry"), "viewer").await.problem(404, "not-found");
    }
    for resolution in ["raw", "hour"] {
        let samples = fixture.get(&format!("/agents/web-01/telemetry?resolution={resolution}"), "viewer").await;
        assert_eq!(samples.expect(200), json!({"items": [], "next": null}));
    }
    fixture.get("/agents/web-01/telemetry?since=yesterday", "viewer").await.problem(400, "invalid-request");
    fixture.get("/agents/web-01/telemetry?resolution=day", "viewer").await.problem(400, "invalid-request");
}

#[tokio::test]
async fn the_audit_log_comes_in_pages_newest_first() {
    let fixture = Fixture::new().await;
    let first = fixture.get("/audit?limit=3", "admin").await.expect(200);
    let seqs = |page: &Value| -> Vec<u64> {
        page["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect()
    };
    let next = first["next"].as_str().unwrap();
    let second = fixture.get(&format!("/audit?limit=3&after={next}"), "admin").await.expect(200);
    let all = [seqs(&first), seqs(&second)].concat();
    assert_eq!(all.len(), 4, "one for each token");
    assert!(all.is_sorted_by(|a, b| a > b), "{all:?}");
}

//! Publication: what is admitted, what is refused and why, and withdrawal.

use serde_json::{Value, json};

use super::fixture::{Fixture, component, upload};

#[tokio::test]
async fn a_signed_release_is_published_and_brings_its_verbs() {
    let fixture = Fixture::new().await;
    let plugin = fixture.send("POST", "/plugins", "publisher", &fixture.upload(1)).await.expect(201);
    assert_eq!((&plugin["plugin"], &plugin["active"]), (&json!("sample"), &json!(true)));
    assert_eq!((&plugin["verbs"], &plugin["published_by"]), (&json!(["greet", "look"]), &json!("publisher-1")));
    let listed = fixture.get("/plugins", "viewer").await.expect(200);
    assert_eq!(listed["items"], json!([plugin]));

    let verbs = fixture.get("/verbs", "viewer").await.expect(200);
    assert_eq!(verbs["items"][0]["verb"], "greet");
    let greet = fixture.get("/verbs/greet", "viewer").await.expect(200);
    assert_eq!(greet, verbs["items"][0]);
    assert_eq!((&greet["effect"], &greet["timeout_secs"]), (&json!("change"), &json!(30)));
    assert_eq!(greet["args"]["required"], json!(["name"]));
}

#[tokio::test]
async fn only_newer_releases_replace_the_active_one() {
    let fixture = Fixture::new().await;
    for (sequence, status) in [(2, 201), (1, 409), (2, 409), (3, 201)] {
        let reply = fixture.send("POST", "/plugins", "publisher", &fixture.upload(sequence)).await;
        assert_eq!(reply.status.as_u16(), status, "{sequence}: {}", reply.text);
    }
    let listed = fixture.get("/plugins", "viewer").await.expect(200);
    let active: Vec<_> = listed["items"].as_array().unwrap().iter().map(|p| (&p["version"], &p["active"])).collect();
    assert_eq!(active, [(&json!("1.0.3"), &json!(true)), (&json!("1.0.2"), &json!(false))]);
}

#[tokio::test]
async fn what_does_not_verify_is_refused_with_its_reason() {
    let fixture = Fixture::new().await;
    let good = fixture.upload(1);
    let statements = good["statements"].as_str().unwrap();
    let other = upload(&component(2), statements);
    let foreign = Fixture::new().await.upload(1);
    for (body, what) in [(&other, "another component"), (&foreign, "another key"), (&upload(b"x", ""), "nothing")] {
        let problem = fixture.send("POST", "/plugins", "publisher", body).await.problem(422, "plugin-refused");
        assert!(problem["reason"].as_str().unwrap().starts_with("E_"), "{what}: {problem}");
    }
    let not_base64 = json!({"component": "*", "statements": statements});
    fixture.send("POST", "/plugins", "publisher", &not_base64).await.problem(400, "invalid-request");
    assert_eq!(fixture.get("/plugins", "viewer").await.expect(200)["items"], json!([]));
    let audited = fixture.audited().await;
    let refused = audited.iter().filter(|l| l.starts_with("publisher-1 plugin.publish") && l.ends_with("refused"));
    assert_eq!(refused.count(), 3, "{audited:#?}");
}

#[tokio::test]
async fn a_withdrawn_plugin_takes_its_verbs_along() {
    let fixture = Fixture::with_plugin().await;
    fixture.send("DELETE", "/plugins/sample", "admin", &Value::Null).await.expect(204);
    assert_eq!(fixture.get("/verbs", "viewer").await.expect(200)["items"], json!([]));
    assert_eq!(fixture.get("/plugins", "viewer").await.expect(200)["items"][0]["active"], false);
    fixture.send("DELETE", "/plugins/sample", "admin", &Value::Null).await.problem(404, "not-found");
}

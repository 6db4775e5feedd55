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

#[tokio::test]
async fn a_release_that_asks_for_more_is_held_until_it_is_approved() {
    let fixture = Fixture::with_plugin().await;
    let held = fixture.send("POST", "/plugins", "publisher", &fixture.greedy(2)).await.expect(202);
    assert_eq!((&held["state"], &held["active"]), (&json!("held"), &json!(false)));
    let digest = held["digest"].as_str().unwrap();
    let diff = fixture.get(&format!("/plugins/sample/diff?digest={digest}"), "viewer").await.expect(200);
    assert_eq!((&diff["more"], &diff["from"]["version"]), (&json!(true), &json!("1.0.1")));
    let first = &diff["differences"][0];
    assert_eq!((&first["kind"], &first["what"], &first["more"]), (&json!("limit"), &json!("memoryMib"), &json!(true)));
    let listed = fixture.get("/plugins", "viewer").await.expect(200);
    assert_eq!(listed["items"][0]["state"], "held");

    let path = format!("/plugins/sample/{digest}/approve");
    fixture.send("POST", &path, "publisher", &json!({})).await.problem(403, "forbidden");
    let approved = fixture.send("POST", &path, "admin", &json!({})).await.expect(200);
    assert_eq!(approved["state"], "active");
    let again = fixture.send("POST", &path, "admin", &json!({})).await.problem(409, "conflict");
    assert_eq!(again["reason"], "E_STANDING");
    let audited = fixture.audited().await;
    assert!(audited.iter().any(|l| l.starts_with("admin-1 plugin.approve sample@1.0.2 allowed")), "{audited:#?}");
}

#[tokio::test]
async fn a_rollout_is_begun_watched_and_aborted() {
    let fixture = Fixture::with_plugin().await;
    let mut upload = fixture.upload(2);
    upload["activate"] = json!(false);
    let staged = fixture.send("POST", "/plugins", "publisher", &upload).await.expect(201);
    assert_eq!(staged["state"], "staged");
    let body = json!({"digest": staged["digest"], "stages": [{"agents": 1}, {"percent": 100}]});
    let bad = json!({"digest": staged["digest"], "stages": []});
    let problem =
        fixture.send("POST", "/plugins/sample/rollouts", "publisher", &bad).await.problem(400, "invalid-request");
    assert_eq!(problem["reason"], "E_ROLLOUT_SPEC");
    let begun = fixture.send("POST", "/plugins/sample/rollouts", "publisher", &body).await.expect(201);
    assert_eq!((&begun["state"], &begun["phase"]), (&json!("running"), &json!("deploying")));
    assert_eq!(begun["gates"]["min_samples"], 10, "defaults are shown");
    let problem = fixture.send("POST", "/plugins", "publisher", &fixture.upload(3)).await.problem(409, "conflict");
    assert_eq!(problem["reason"], "E_ROLLING_OUT");
    let id = begun["id"].as_str().unwrap();
    let path = format!("/plugins/sample/rollouts/{id}");
    assert_eq!(fixture.get(&path, "viewer").await.expect(200)["id"], begun["id"]);
    assert_eq!(fixture.get("/plugins/sample/rollouts", "viewer").await.expect(200)["items"][0]["id"], begun["id"]);
    fixture.get(&format!("/plugins/other/rollouts/{id}"), "viewer").await.problem(404, "not-found");
    let aborted = fixture.send("POST", &format!("{path}/abort"), "publisher", &Value::Null).await.expect(200);
    assert_eq!((&aborted["state"], &aborted["phase"]), (&json!("aborted"), &Value::Null));
    let problem =
        fixture.send("POST", &format!("{path}/resume"), "publisher", &Value::Null).await.problem(409, "conflict");
    assert_eq!(problem["reason"], "E_ROLLOUT_STATE");
}

#[tokio::test]
async fn a_killed_release_never_comes_back() {
    let fixture = Fixture::with_plugin().await;
    let second = fixture.send("POST", "/plugins", "publisher", &fixture.upload(2)).await.expect(201);
    let body = json!({"digest": second["digest"], "reason": "it misbehaves"});
    fixture.send("POST", "/plugins/kill", "publisher", &body).await.problem(403, "forbidden");
    let killed = fixture.send("POST", "/plugins/kill", "admin", &body).await.expect(200);
    assert_eq!((&killed["release"]["state"], &killed["release"]["note"]), (&json!("killed"), &body["reason"]));
    assert_eq!(killed["fallback"]["version"], "1.0.1");
    let problem = fixture.send("POST", "/plugins", "publisher", &fixture.upload(2)).await.problem(409, "conflict");
    assert_eq!(problem["reason"], "E_KILLED");
    let unknown = json!({"digest": "00"});
    fixture.send("POST", "/plugins/kill", "admin", &unknown).await.problem(404, "not-found");
}

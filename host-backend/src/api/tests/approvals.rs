//! Approvals: nothing is delivered before they are all there, and only an operator's own
//! signature over this very command counts.

use serde_json::{Value, json};
use viworks_protocol::approval::{Approval, approvers};
use viworks_signing::dsse::Envelope;
use viworks_signing::keys::SecretKey;

use super::fixture::{Fixture, Session, connect, ordered};
use crate::dispatch::warrant_of;

struct Case {
    fixture: Fixture,
    web: Session,
    key: SecretKey,
}

impl Case {
    /// One key, registered for the admin's token; commands are the operator's.
    async fn new() -> Self {
        let fixture = Fixture::with_plugin().await;
        let web = connect(&fixture, "web-01").await;
        let key = SecretKey::generate();
        let body = json!({"operator": "admin-1", "key": key.public().to_pem().unwrap()});
        fixture.send("POST", "/approvers", "admin", &body).await.expect(201);
        Self { fixture, web, key }
    }

    async fn asked(&self, approvals: u32) -> String {
        let body = json!({"verb": "look", "agent_targets": ["web-01", "web-02"], "approvals": approvals});
        let accepted = self.fixture.send("POST", "/commands", "operator", &body).await.expect(202);
        assert_eq!(accepted["state"], "awaiting_approval");
        accepted["id"].as_str().unwrap().to_owned()
    }

    async fn signed(&self, id: &str) -> Envelope {
        let command = self.fixture.app.store.command(&id.parse().unwrap()).await.unwrap().unwrap();
        Approval::of(&warrant_of(&command)).sign(&self.key).unwrap()
    }

    async fn approve(&self, id: &str, role: &str, envelope: &Envelope) -> super::fixture::Reply {
        self.fixture.send("POST", &format!("/commands/{id}/approve"), role, &json!({"envelope": envelope})).await
    }
}

#[tokio::test]
async fn the_last_approval_delivers_and_travels_in_the_warrant() {
    let mut case = Case::new().await;
    let id = case.asked(1).await;
    let listed = case.fixture.get("/commands?state=awaiting_approval", "viewer").await.expect(200);
    assert_eq!(listed["items"][0]["approvals"], json!({"needed": 1, "given": []}));
    case.fixture.app.engine.delivered().await;
    assert!(case.web.is_quiet(), "nothing before it is approved");

    let envelope = case.signed(&id).await;
    let approved = case.approve(&id, "admin", &envelope).await.expect(200);
    assert_eq!(
        (&approved["state"], &approved["approvals"]["given"][0]["operator"]),
        (&json!("queued"), &json!("admin-1"))
    );
    let (_, warrant) = ordered(&mut case.web).await;
    assert_eq!(approvers(&warrant, &[case.key.public()]).len(), 1, "a gateway can count it");
    let command = case.fixture.get(&format!("/commands/{id}"), "viewer").await.expect(200);
    assert_eq!((&command["counts"]["sent"], &command["counts"]["queued"]), (&json!(1), &json!(1)));
    // Who comes later gets it with the approval, too.
    let mut late = connect(&case.fixture, "web-02").await;
    assert_eq!(ordered(&mut late).await.1.approvals.len(), 1);
    case.approve(&id, "admin", &envelope).await.problem(409, "conflict");
    assert!(case.fixture.audited().await.iter().any(|line| line.starts_with("admin-1 command.approve")));
}

#[tokio::test]
async fn an_agent_that_comes_back_gets_nothing_unapproved() {
    let case = Case::new().await;
    case.asked(1).await;
    let mut late = connect(&case.fixture, "web-02").await;
    case.fixture.app.engine.delivered().await;
    assert!(late.is_quiet());
}

#[tokio::test]
async fn only_another_operators_own_signature_counts() {
    let case = Case::new().await;
    let id = case.asked(2).await;
    let envelope = case.signed(&id).await;
    case.approve(&id, "operator", &envelope).await.problem(422, "approval-refused");
    case.approve(&id, "viewer", &envelope).await.problem(403, "forbidden");
    let other = case.asked(1).await;
    case.approve(&other, "admin", &envelope).await.problem(422, "approval-refused");
    let command = case.fixture.app.store.command(&id.parse().unwrap()).await.unwrap().unwrap();
    let forged = Approval::of(&warrant_of(&command)).sign(&SecretKey::generate()).unwrap();
    case.approve(&id, "admin", &forged).await.problem(422, "approval-refused");

    let mut padded = envelope.clone();
    padded.signatures[0].keyid = "x".repeat(10_000);
    let once = case.approve(&id, "admin", &padded).await.expect(200);
    assert_eq!(
        (&once["state"], once["approvals"]["given"].as_array().map(Vec::len)),
        (&json!("awaiting_approval"), Some(1))
    );
    case.approve(&id, "admin", &envelope).await.problem(409, "conflict");
    let stored = case.fixture.app.store.command(&id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(stored.approvals[0].envelope.signatures[0].keyid, case.key.public().id(), "ids are ours");
}

#[tokio::test]
async fn what_awaits_approval_can_be_cancelled() {
    let case = Case::new().await;
    let id = case.asked(1).await;
    let cancelled =
        case.fixture.send("POST", &format!("/commands/{id}/cancel"), "operator", &Value::Null).await.expect(202);
    assert_eq!(cancelled["state"], "cancelled");
    let envelope = case.signed(&id).await;
    case.approve(&id, "admin", &envelope).await.problem(409, "conflict");
}

#[tokio::test]
async fn keys_are_one_operators_and_go() {
    let case = Case::new().await;
    let pem = case.key.public().to_pem().unwrap();
    let taken = json!({"operator": "operator-1", "key": pem});
    case.fixture.send("POST", "/approvers", "admin", &taken).await.problem(409, "conflict");
    let wrong = json!({"operator": "operator-1", "key": "no key"});
    case.fixture.send("POST", "/approvers", "admin", &wrong).await.problem(400, "invalid-request");
    let id = case.key.public().id();
    let listed = case.fixture.get("/approvers", "viewer").await.expect(200);
    assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["operator"]), (&json!(id), &json!("admin-1")));
    let path = format!("/approvers/{id}");
    case.fixture.send("DELETE", &path, "admin", &Value::Null).await.expect(204);
    case.fixture.send("DELETE", &path, "admin", &Value::Null).await.problem(404, "not-found");
    let command = case.asked(1).await;
    let envelope = case.signed(&command).await;
    case.approve(&command, "admin", &envelope).await.problem(422, "approval-refused");
}

//! The port against real TLS clients: who gets in, what sessions are held to, and what
//! reaches them.

mod backend;
mod pki;
mod proxies;
mod room;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use viworks_protocol::chunk::{Chunk, Part};
use viworks_protocol::frame::{BackendFrame, GatewayFrame, MAX_FRAME};
use viworks_protocol::outcome::Outcome;
use viworks_protocol::warrant::{self, Mode};

use crate::dispatch::Request;
use crate::store::model::CommandState;
use crate::testing::{agent, component, report, sample, soon};
use backend::Backend;
use pki::Authority;

fn request(backend: &Backend, id: &str) -> Request {
    Request {
        task: backend.state.catalog.check("ping", &json!({ "name": "x" })).expect("checked").into(),
        mode: Mode::Apply,
        plans: vec![],
        approvals: 0,
        targets: vec![agent(id)],
        caller: "alice".into(),
        timeout_secs: None,
        expires_in_secs: None,
        batch: None,
        idempotency_key: None,
        trace: None,
    }
}

#[tokio::test]
async fn health_is_for_anybody_and_sessions_are_not() {
    let backend = Backend::start().await;
    let health = soon(backend.get(None, "/health")).await.expect("an answer");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with(r#"{"status":"healthy"}"#), "{health}");
    let other = soon(backend.get(None, "/agents")).await.expect("an answer");
    assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    let session = soon(backend.get(None, "/ws/agent")).await.expect("an answer");
    assert!(session.starts_with("HTTP/1.1 403"), "{session}");
    backend.audited("session.identity", "peer:127.0.0.1").await;
}

#[tokio::test]
async fn certificates_of_others_expired_or_nameless_are_refused() {
    let backend = Backend::start().await;
    let expired = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    for client in [Authority::new("agents").client("web-01", 1), backend.authority.client_until("web-01", 2, expired)] {
        // With TLS 1.3 the client learns of it when it reads.
        let answer = soon(backend.get(Some(client), "/health")).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    backend.audited("session.tls", "peer:127.0.0.1").await;
    let nameless = soon(backend.get(Some(backend.authority.client("a/b", 3)), "/ws/agent")).await;
    assert!(nameless.is_ok_and(|answer| answer.starts_with("HTTP/1.1 403")));
    backend.audited("session.identity", "peer:127.0.0.1").await;
}

#[tokio::test]
async fn a_session_makes_an_agent_known_and_online() {
    let backend = Backend::start().await;
    let mut gateway = backend.session("web-01").await;
    backend.connected("web-01", true).await;
    gateway.say(&GatewayFrame::Telemetry { sample: sample(1, 42.0) }).await;
    soon(async {
        while backend.state.metrics.samples.get() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    backend.state.store.flush().await.expect("written");
    let known = backend.state.store.agent(&agent("web-01")).await.expect("read").expect("there");
    assert!(known.online && known.version == "0.1.0");
    gateway.socket.close(None).await.expect("closed");
    backend.connected("web-01", false).await;
    soon(async {
        loop {
            backend.state.store.flush().await.expect("written");
            if !backend.state.store.agent(&agent("web-01")).await.expect("read").expect("there").online {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_certificate_says_who_it_is() {
    let backend = Backend::start().await;
    let mut gateway = backend.dial("web-01").await;
    gateway.hello("web-02").await;
    assert_eq!(gateway.goodbye().await, "identity-mismatch");
    backend.audited("session.identity-mismatch", "agent:web-01").await;
    let mut gateway = backend.dial("web-01").await;
    gateway.say(&GatewayFrame::Pong { nonce: 1 }).await;
    assert_eq!(gateway.goodbye().await, "hello");
    let mut gateway = backend.dial("web-01").await;
    gateway.text(r#"{"hello":{"protocol":99}}"#).await;
    assert_eq!(gateway.goodbye().await, "malformed");
}

#[tokio::test]
async fn frames_beyond_their_bounds_end_the_session() {
    let backend = Backend::start().await;
    let long = format!(r#"{{"pong":{{"nonce":{}1}}}}"#, " ".repeat(300));
    let whole = "x".repeat(MAX_FRAME + 1);
    for (frame, rule) in [
        (r#"{"exec":{"cmd":"id"}}"#.to_owned(), "malformed"),
        (r#"{"pong":{"nonce":1,"agent":"other"}}"#.to_owned(), "malformed"),
        (long, "bounds"),
        (whole, "bounds"),
    ] {
        let mut gateway = backend.session("web-01").await;
        gateway.text(frame).await;
        assert_eq!(gateway.goodbye().await, rule);
        backend.audited(&format!("session.{rule}"), "agent:web-01").await;
        backend.connected("web-01", false).await;
    }
    let mut gateway = backend.session("web-01").await;
    gateway.hello("web-01").await;
    assert_ne!(gateway.goodbye().await, "closed without a goodbye", "a second hello");
    backend.connected("web-01", false).await;
    let mut gateway = backend.session("web-01").await;
    for _ in 0..31 {
        gateway.say(&GatewayFrame::Telemetry { sample: sample(1, 1.0) }).await;
    }
    assert_eq!(gateway.goodbye().await, "bounds", "more than thirty a minute");
}

#[tokio::test]
async fn a_live_session_stays_and_a_dead_one_gives_way() {
    let backend = Backend::start().await;
    let mut first = backend.session("web-01").await;
    // Answers pings as long as it runs.
    let answering = tokio::spawn(async move {
        first.message().await;
        first
    });
    let mut second = backend.dial("web-01").await;
    second.hello("web-01").await;
    assert_eq!(second.goodbye().await, "second-session");
    backend.audited("session.second-session", "agent:web-01").await;
    answering.abort();
    backend.connected("web-01", false).await;

    let silent = backend.session("web-01").await;
    let second = soon(backend.session("web-01")).await;
    let presence = backend.state.hub.presence(&agent("web-01")).expect("connected");
    drop((silent, second));
    assert!(presence.since_ms > 0);
}

#[tokio::test]
async fn a_silent_session_ends_after_two_and_a_half_heartbeats() {
    let backend = Backend::start().await;
    let mut gateway = backend.session("web-01").await;
    backend.connected("web-01", true).await;
    let mut reason = String::new();
    while let Some(Ok(message)) = soon(gateway.socket.next()).await {
        if let Message::Text(text) = message
            && let Ok(BackendFrame::Goodbye { reason: told, .. }) = serde_json::from_str(&text)
        {
            reason = told;
        }
    }
    assert_eq!(reason, "silent");
    backend.connected("web-01", false).await;
}

#[tokio::test]
async fn a_command_goes_out_and_its_result_comes_back() {
    let backend = Backend::with_ping().await;
    let mut gateway = backend.session("web-01").await;
    backend.connected("web-01", true).await;
    let id = backend.state.engine.accept(request(&backend, "web-01")).await.expect("accepted").command.id;
    let Some(BackendFrame::Invoke { proof, order, .. }) = gateway.next().await else { panic!("an invoke frame") };
    let public = crate::keys::release_keys(&backend.dir.path().join("data/warrant.pub.pem")).expect("a key");
    let now = backend.state.clock.now_ms();
    let verified = warrant::verify(&order, &proof, &public, &agent("web-01"), now).expect("a warrant");
    let invocation = verified.invocation().clone();
    gateway.say(&GatewayFrame::Accepted { invocation: invocation.clone() }).await;
    gateway.say(&GatewayFrame::Result { invocation: invocation.clone(), report: report(Outcome::Succeeded) }).await;
    assert!(matches!(gateway.next().await, Some(BackendFrame::Ack { invocation: i }) if i == invocation));
    let command = backend.state.store.command(&id).await.expect("read").expect("there");
    assert_eq!(command.state, CommandState::Finished);
    let health = backend.state.health().await;
    assert_eq!((health.status, health.connected_agents), (crate::health::Status::Healthy, 1));

    // An orderly stop says goodbye, and everything ends in time.
    let stopping = tokio::spawn(async move {
        let clean = backend.state.stop().await;
        (backend, clean)
    });
    assert_eq!(gateway.goodbye().await, "shutdown");
    drop(gateway);
    let (backend, clean) = soon(stopping).await.expect("stopped");
    assert!(clean);
    assert_eq!(backend.state.look().await.status, crate::health::Status::Degraded, "a stopped backend is told");
}

#[tokio::test]
async fn invocations_pass_between_a_plugins_chunks() {
    let backend = Backend::with_ping().await;
    let mut gateway = backend.session("web-01").await;
    backend.connected("web-01", true).await;
    let bytes = component(&"x".repeat(8 * 1024 * 1024));
    backend.publish("large", "heavy", bytes.clone()).await;
    let Some(BackendFrame::Plugins { plugins }) = gateway.next().await else { panic!("the offers") };
    let offer = plugins.iter().find(|p| p.plugin == "large").expect("offered");
    assert_eq!(offer.component_size as usize, bytes.len());
    for part in [Part::Component, Part::Statements] {
        gateway.say(&GatewayFrame::Fetch { digest: offer.digest.clone(), part, offset: 0 }).await;
    }
    let (mut whole, mut invoked_at, mut statements) = (Vec::new(), None, 0);
    while whole.len() < bytes.len() || statements < offer.statements_size as usize {
        match gateway.message().await {
            Some(Message::Binary(frame)) => {
                let chunk = Chunk::decode(&frame).expect("a chunk");
                if chunk.part == Part::Component {
                    assert_eq!(chunk.offset as usize, whole.len(), "in order");
                    whole.extend_from_slice(&chunk.bytes);
                } else {
                    statements += chunk.bytes.len();
                }
                if whole.len() >= 32 * 1024 && invoked_at.is_none() {
                    // Posted while the rest is under way.
                    invoked_at = Some(None);
                    backend.state.engine.accept(request(&backend, "web-01")).await.expect("accepted");
                }
            }
            Some(Message::Text(text)) if text.starts_with(r#"{"invoke"#) => invoked_at = Some(Some(whole.len())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(whole, bytes);
    let at = invoked_at.flatten().expect("invoked before the last chunk");
    assert!(at < bytes.len(), "after {at} of {} bytes", bytes.len());
    // From where a broken fetch ended.
    let offset = offer.component_size - 10;
    gateway.say(&GatewayFrame::Fetch { digest: offer.digest.clone(), part: Part::Component, offset }).await;
    let Some(Message::Binary(frame)) = gateway.message().await else { panic!("a chunk") };
    assert_eq!(Chunk::decode(&frame).expect("a chunk").bytes.len(), 10);
    gateway.say(&GatewayFrame::Fetch { digest: "zz".into(), part: Part::Component, offset: 0 }).await;
    assert_eq!(gateway.goodbye().await, "malformed");
}

#[tokio::test]
async fn revocation_ends_live_sessions_and_refuses_new_ones() {
    let backend = Backend::start().await;
    let mut kept = backend.session("web-02").await;
    let mut gateway = backend.dial_as(backend.authority.client("web-01", 99)).await;
    gateway.hello("web-01").await;
    backend.connected("web-01", true).await;
    std::fs::write(backend.dir.path().join("crl.pem"), backend.authority.crl(&[99])).expect("written");
    assert_eq!(gateway.goodbye().await, "certificate-revoked");
    backend.audited("session.certificate-revoked", "agent:web-01").await;
    let revoked = soon(backend.get(Some(backend.authority.client("web-01", 99)), "/health")).await;
    assert!(revoked.is_err(), "{revoked:?}");
    let good = soon(backend.get(Some(backend.authority.client("web-01", 98)), "/health")).await;
    assert!(good.is_ok());
    kept.say(&GatewayFrame::Telemetry { sample: sample(1, 1.0) }).await;
    assert!(backend.state.hub.is_connected(&agent("web-02")), "others stay");

    // A file that can't be read, or is empty, leaves the old list in force.
    for bad in ["-----BEGIN X509 CRL-----\n!\n", ""] {
        std::fs::write(backend.dir.path().join("crl.pem"), bad).expect("written");
        assert!(backend.tls.renew().is_err());
    }
    let still = soon(backend.get(Some(backend.authority.client("web-01", 99)), "/health")).await;
    assert!(still.is_err(), "{still:?}");
}

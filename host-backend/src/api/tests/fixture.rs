//! A backend without sockets: real store, catalogue, engine and router, three agents, one
//! plugin with two verbs, a token of each role.

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, HeaderName, Request, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::outcome::{DiffLine, EffectReport, EffectState, Outcome, Report};
use viworks_protocol::warrant::Warrant;
use viworks_signing::keys::SecretKey;
use viworks_signing::release::{self, Artifact, EffectClass, Limits, Release, Statement, Subject, Verb};

use crate::app::AppState;
use crate::authz::NewToken;
use crate::config::Config;
use crate::hub::{Identity, Out};
use crate::store::model::{AuditEntry, Decision, PageOf, Role, Token};
use crate::store::write::{AgentHello, Note};

pub(super) struct Fixture {
    pub app: AppState,
    pub router: Router,
    pub shutdown: CancellationToken,
    tokens: BTreeMap<&'static str, String>,
    release_key: SecretKey,
    _dir: tempfile::TempDir,
}

pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The body, if the status is this.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The body, if it is a whole problem with this code.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{body}");
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["type"], format!("https://viworks.dev/problems/{code}"));
        assert_eq!(body["status"], status);
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
        body
    }
}

impl Fixture {
    pub async fn new() -> Self {
        Self::new_with(|_| {}).await
    }

    pub async fn new_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let release_key = SecretKey::generate();
        let release_keys = dir.path().join("release.pub.pem");
        std::fs::write(&release_keys, release_key.public().to_pem().unwrap()).unwrap();
        let mut config =
            Config { data_dir: dir.path().join("data"), release_keys, max_targets: 50, ..Config::default() };
        change(&mut config);
        let app = AppState::build(config).await.unwrap();
        let mut tokens = BTreeMap::new();
        for role in Role::ALL {
            let new = NewToken::generate().unwrap();
            let token = Token {
                name: format!("{role}-1"),
                role: *role,
                sha256: *new.hash().as_bytes(),
                created_ms: app.clock.now_ms(),
                expires_ms: None,
            };
            assert!(app.store.create_token(token, audit("token.create")).await.unwrap());
            tokens.insert(role.as_str(), new.reveal());
        }
        let shutdown = CancellationToken::new();
        let router = super::super::router(app.clone(), shutdown.clone());
        let fixture = Self { app, router, shutdown, tokens, release_key, _dir: dir };
        for (id, site) in [("db-01", "south"), ("web-01", "north"), ("web-02", "north")] {
            fixture.register(id, site).await;
        }
        fixture
    }

    /// An agent that was there once; its label `tier` is its name without the number.
    pub async fn register(&self, id: &str, site: &str) {
        let tier = id.split('-').next().unwrap_or_default();
        let hello = AgentHello {
            agent: agent(id),
            version: "0.1.0".into(),
            boot: "b".into(),
            site: Some(site.into()),
            labels: BTreeMap::from([("tier".into(), tier.into())]),
            max_concurrency: 4,
            plugins: vec![],
            receipt_key: None,
            owner: crate::testing::owner(),
            at_ms: self.app.clock.now_ms(),
        };
        self.app.store.note(Note::Hello(Box::new(hello))).await.unwrap();
        let gone = Note::Gone { agent: agent(id), owner: crate::testing::owner(), at_ms: self.app.clock.now_ms() };
        self.app.store.note(gone).await.unwrap();
        self.app.store.flush().await.unwrap();
    }

    /// With the sample plugin published.
    pub async fn with_plugin() -> Self {
        let fixture = Self::new().await;
        fixture.send("POST", "/plugins", "admin", &fixture.upload(1)).await.expect(201);
        fixture
    }

    /// The same with another router.
    pub fn behind(self, router: Router) -> Self {
        Self { router, ..self }
    }

    pub fn token(&self, role: &str) -> &str {
        &self.tokens[role]
    }

    /// A request as `role` (none if empty); `Null` is no body.
    pub async fn send(&self, method: &str, path: &str, role: &str, body: &Value) -> Reply {
        self.send_with(method, path, role, body, &[]).await
    }

    pub async fn get(&self, path: &str, role: &str) -> Reply {
        self.send("GET", path, role, &Value::Null).await
    }

    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        role: &str,
        body: &Value,
        headers: &[(HeaderName, &str)],
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if !role.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token(role)));
        }
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        };
        self.raw(request.body(body).unwrap()).await
    }

    pub async fn raw(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Reply { status: parts.status, headers: parts.headers, text }
    }

    /// The body of a 200, as it comes.
    pub async fn stream(&self, path: &str, role: &str) -> BodyDataStream {
        let bearer = format!("Bearer {}", self.token(role));
        let request = Request::get(path).header(header::AUTHORIZATION, bearer).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().into_data_stream()
    }

    /// A signed bundle of the sample plugin, as it is uploaded.
    pub fn upload(&self, sequence: u32) -> Value {
        let component = component(sequence);
        let statement = statement(&component, sequence);
        let statements = viworks_signing::sign_release(&statement, &[&self.release_key]).unwrap();
        upload(&component, &statements)
    }

    /// The same, asking for more memory than the usual.
    pub fn greedy(&self, sequence: u32) -> Value {
        let component = component(sequence);
        let mut statement = statement(&component, sequence);
        statement.predicate.limits.memory_mib *= 2;
        let statements = viworks_signing::sign_release(&statement, &[&self.release_key]).unwrap();
        upload(&component, &statements)
    }

    pub async fn commands(&self) -> usize {
        let page = self.app.store.commands(&Default::default(), &PageOf::first(1_000)).await.unwrap();
        page.items.len()
    }

    /// `action subject decision` of the audit log, newest first.
    pub async fn audited(&self) -> Vec<String> {
        self.app.store.flush().await.unwrap();
        let page = self.app.store.audit_page(&PageOf::first(1_000)).await.unwrap();
        page.items
            .into_iter()
            .map(|row| format!("{} {} {} {}", row.entry.actor, row.entry.action, row.entry.subject, row.entry.decision))
            .collect()
    }
}

pub(super) fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

/// A session without a socket.
pub(super) struct Session {
    agent: AgentId,
    /// What the backend sends it.
    queue: mpsc::Receiver<Out>,
}

pub(super) async fn connect(fixture: &Fixture, id: &str) -> Session {
    let agent = agent(id);
    let identity =
        Identity { agent: agent.clone(), serial: Box::new([1]), issuer: Box::new([1]), not_after_ms: u64::MAX };
    let (session, queue) = fixture.app.hub.session_for(agent.clone(), identity);
    assert!(fixture.app.hub.enter(&session, None).is_ok(), "{id} has a session already");
    fixture.app.engine.connected(&agent).await;
    Session { agent, queue }
}

/// The next invocation that the agent is sent, by the warrant that it gets.
pub(super) async fn invocation_of(session: &mut Session) -> InvocationId {
    ordered(session).await.0
}

/// The same with the warrant itself.
pub(super) async fn ordered(session: &mut Session) -> (InvocationId, Warrant) {
    let within = std::time::Duration::from_secs(10);
    loop {
        let Ok(Some(out)) = tokio::time::timeout(within, session.queue.recv()).await else {
            panic!("no invocation came")
        };
        let Out::Frame(text) = out else { continue };
        if let Ok(BackendFrame::Invoke { order, .. }) = serde_json::from_str(&text) {
            let warrant: Warrant = serde_json::from_slice(&STANDARD.decode(order.warrant.payload).unwrap()).unwrap();
            let mut root = [0; 32];
            hex::decode_to_slice(&warrant.targets_root, &mut root).unwrap();
            return (InvocationId::derive(&warrant.command, &root, &session.agent), warrant);
        }
    }
}

impl Session {
    /// Whether it was sent no invocation until now.
    pub fn is_quiet(&mut self) -> bool {
        while let Ok(out) = self.queue.try_recv() {
            if let Out::Frame(text) = out
                && text.starts_with(r#"{"invoke""#)
            {
                return false;
            }
        }
        true
    }
}

/// The agent reports success with these effects, in this state; `plan` as its digest.
pub(super) async fn finish_with(
    fixture: &Fixture,
    id: &str,
    invocation: InvocationId,
    effects: &[(&str, EffectState)],
    plan: Option<&str>,
) {
    let effect = |(summary, state): &(&str, EffectState)| EffectReport {
        kind: "accounts.create".into(),
        summary: (*summary).into(),
        state: *state,
        diff: vec![DiffLine { field: "name".into(), before: None, after: Some("ada".into()) }],
        irreversible: false,
    };
    let report = Report {
        failure: None,
        effects: effects.iter().map(effect).collect(),
        plan: plan.map(str::to_owned),
        ..Report::refused(Outcome::Succeeded, "", "", fixture.app.clock.now_ms())
    };
    fixture.app.engine.result(&agent(id), invocation, &report).await;
}

/// The agent reports success with this result.
pub(super) async fn finish(fixture: &Fixture, id: &str, invocation: InvocationId, result: Value) {
    let report = Report {
        outcome: Outcome::Succeeded,
        result: Some(serde_json::value::to_raw_value(&result).unwrap()),
        failure: None,
        ..Report::refused(Outcome::Succeeded, "", "", fixture.app.clock.now_ms())
    };
    fixture.app.engine.result(&agent(id), invocation, &report).await;
}

pub(super) fn upload(component: &[u8], statements: &str) -> Value {
    let component = STANDARD.encode(component);
    json!({"component": component, "statements": statements})
}

fn audit(action: &str) -> AuditEntry {
    AuditEntry {
        at_ms: 1,
        actor: "tests".into(),
        action: action.into(),
        subject: "fixture".into(),
        decision: Decision::Allowed,
        detail: String::new(),
    }
}

/// The smallest component, made different by a custom section.
pub(super) fn component(sequence: u32) -> Bytes {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    let name = format!("v{sequence}");
    let length = u8::try_from(name.len()).unwrap();
    bytes.extend([0, length + 1, length]);
    bytes.extend(name.as_bytes());
    bytes.into()
}

fn statement(component: &[u8], sequence: u32) -> Statement {
    use sha2::Digest as _;
    let verb = |function: &str, args: Value, effect| Verb {
        function: function.into(),
        docs: "For tests.".into(),
        args,
        result: json!({"type": "string"}),
        effect,
        timeout_secs: 30,
    };
    let greet = json!({"type": "object", "additionalProperties": false, "required": ["name"], "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "tags": {"type": "array", "items": {"type": "string"}},
    }});
    let nothing = json!({"type": "object", "additionalProperties": false, "properties": {}});
    Statement {
        kind: release::STATEMENT_TYPE.into(),
        subject: vec![Subject {
            name: "sample.wasm".into(),
            digest: release::Digest { sha256: hex::encode(sha2::Sha256::digest(component)) },
        }],
        predicate_type: release::PREDICATE_TYPE.into(),
        predicate: Release {
            plugin: "sample".into(),
            version: serde_json::from_value(json!(format!("1.0.{sequence}"))).unwrap(),
            epoch: 0,
            sequence,
            artifact: Artifact { kind: "component".into(), size: u32::try_from(component.len()).unwrap() },
            world: "viworks:sample/plugin@1.0.0".into(),
            imports: vec![],
            verbs: BTreeMap::from([
                ("greet".into(), verb("greet", greet, EffectClass::Change)),
                ("look".into(), verb("look", nothing, EffectClass::Read)),
            ]),
            capabilities: serde_json::from_value(json!({})).unwrap(),
            limits: Limits::default(),
            host_api: "1.0".into(),
            not_before: "2020-01-01T00:00:00Z".into(),
            description: "For tests".into(),
        },
    }
}

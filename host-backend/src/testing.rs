//! What tests share: a backend's parts on a directory of their own, signed releases, and
//! agents whose sessions' queues the test itself reads.

#[path = "../../tests/src/postgres.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest of it")]
pub(crate) mod postgres;
#[path = "../../tests/src/redis.rs"]
pub(crate) mod redis;

use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use viworks_protocol::frame::{BackendFrame, PluginState, PluginStatus};
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::outcome::{Cost, Outcome, Report};
use viworks_protocol::telemetry::Sample;
use viworks_protocol::warrant::Mode;
use viworks_signing::keys::SecretKey;
use viworks_signing::release::{Release, Statement};

use crate::background::Background;
use crate::catalog::{Catalog, Wanted};
use crate::clock::Clock;
use crate::cluster::{self, Cluster};
use crate::dispatch::{Engine, Parts, Request};
use crate::hub::{Hub, Identity, Out, Session};
use crate::metrics::Metrics;
use crate::rollouts::{self, Observer, Rollouts};
use crate::store::Store;
use crate::store::model::Owner;
use crate::store::write::{AgentHello, Note};

/// Everything that is waited for comes within this time.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it comes soon")
}

pub(crate) fn agent(id: &str) -> AgentId {
    id.parse().expect("an agent id")
}

pub(crate) fn hello(id: &str, at_ms: u64) -> AgentHello {
    AgentHello {
        agent: agent(id),
        version: "0.1.0".to_owned(),
        boot: "b1".to_owned(),
        site: Some("north".to_owned()),
        labels: BTreeMap::from([("tier".to_owned(), "web".to_owned())]),
        max_concurrency: 4,
        plugins: vec![PluginStatus {
            plugin: "probe".to_owned(),
            version: "1.0.0".to_owned(),
            digest: "ab".repeat(32),
            state: PluginState::Active,
            detail: None,
            shadow: false,
        }],
        receipt_key: None,
        owner: owner(),
        at_ms,
    }
}

/// Of every session that no hub has.
pub(crate) fn owner() -> Owner {
    Owner { instance: "one".to_owned(), session: "s1".to_owned() }
}

pub(crate) fn sample(at_ms: u64, cpu_percent: f32) -> Sample {
    Sample {
        at_ms,
        cpu_percent,
        load_one: 0.5,
        load_five: 0.5,
        load_fifteen: 0.5,
        memory_total_mib: 1_000,
        memory_used_mib: 100,
        swap_total_mib: 0,
        swap_used_mib: 0,
        disk_used_percent: 10.0,
        network_received_bytes: 1.0,
        network_sent_bytes: 2.0,
        uptime_secs: 5,
        gateway: viworks_protocol::telemetry::GatewaySample::default(),
    }
}

pub(crate) fn report(outcome: Outcome) -> Report {
    Report {
        outcome,
        result: serde_json::value::RawValue::from_string("{\"ok\":true}".to_owned()).ok(),
        failure: None,
        effects: Vec::new(),
        plan: None,
        receipt: None,
        shadow: None,
        log: Vec::new(),
        log_truncated: false,
        timings: Vec::new(),
        cost: Cost::default(),
        started_ms: 1,
        finished_ms: 2,
    }
}

/// The smallest component there is, made unlike others by `tag`.
pub(crate) fn component(tag: &str) -> Vec<u8> {
    let mut bytes = vec![0x00, b'a', b's', b'm', 0x0d, 0x00, 0x01, 0x00];
    let content = [&[3], b"tag".as_slice(), tag.as_bytes()].concat();
    let mut length = content.len();
    bytes.push(0);
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(content);
    bytes
}

/// A signed release of `plugin` with one verb that takes `{"name": …}`.
pub(crate) fn release(key: &SecretKey, plugin: &str, sequence: u32, verb: &str, component: &[u8]) -> String {
    release_of(key, plugin, sequence, verb, "read", component)
}

/// The same where the verb is of this class.
pub(crate) fn release_of(
    key: &SecretKey,
    plugin: &str,
    sequence: u32,
    verb: &str,
    effect: &str,
    component: &[u8],
) -> String {
    use sha2::Digest as _;
    let release: Release = serde_json::from_value(json!({
        "plugin": plugin, "version": format!("1.0.{sequence}"), "epoch": 0, "sequence": sequence,
        "artifact": { "kind": "component", "size": component.len() },
        "world": "test:probe/plugin@1.0.0", "imports": [],
        "verbs": { verb: {
            "function": verb.replace('_', "-"), "docs": "Test.",
            "args": { "type": "object", "additionalProperties": false, "required": ["name"],
                      "properties": { "name": { "type": "string" } } },
            "result": {}, "effect": effect, "timeoutSecs": 5
        } },
        "capabilities": {}, "limits": {}, "hostApi": "1.0", "notBefore": "1970-01-01T00:00:00Z"
    }))
    .expect("a release");
    let statement = Statement {
        kind: viworks_signing::release::STATEMENT_TYPE.to_owned(),
        subject: vec![viworks_signing::release::Subject {
            name: format!("{plugin}.wasm"),
            digest: viworks_signing::release::Digest { sha256: hex::encode(sha2::Sha256::digest(component)) },
        }],
        predicate_type: viworks_signing::release::PREDICATE_TYPE.to_owned(),
        predicate: release,
    };
    viworks_signing::sign_release(&statement, &[key]).expect("a signature")
}

/// A backend's inner parts, without its ports.
pub(crate) struct World {
    pub dir: Arc<TempDir>,
    pub clock: Clock,
    pub background: Background,
    pub store: Store,
    pub hub: Hub,
    pub cluster: Cluster,
    pub catalog: Catalog,
    pub engine: Engine,
    pub rollouts: Rollouts,
    pub key: SecretKey,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(4).await
    }

    pub(crate) async fn with(slots: u32) -> Self {
        let key = SecretKey::generate();
        let world =
            Self::open(Arc::new(tempfile::tempdir().expect("a directory")), key, Clock::default(), slots, None).await;
        let component = component("probe");
        let statements = release(&world.key, "probe", 1, "ping", &component);
        world.catalog.publish(component.into(), statements, Wanted::Active, "tests").await.expect("published");
        world
    }

    async fn open(dir: Arc<TempDir>, key: SecretKey, clock: Clock, slots: u32, instance: Option<&str>) -> Self {
        let metrics = Metrics::default();
        let background = Background::new(metrics.clone());
        let store = Store::open(&dir.path().join("viworks.db").into()).await.expect("a store");
        let hub = match instance {
            Some(instance) => Hub::of(instance.to_owned(), clock.clone()),
            None => Hub::new(clock.clone()),
        };
        let cluster = Cluster::start(cluster::Parts {
            store: store.clone(),
            hub: hub.clone(),
            background: background.clone(),
            metrics: metrics.clone(),
            shared: instance.is_some(),
            redis: None,
            warrant_key: key.public().id(),
        })
        .await
        .expect("an instance");
        let catalog = Catalog::load(store.clone(), clock.clone(), cluster.clone(), vec![key.public()]).await;
        let catalog = catalog.expect("a catalogue");
        let (pem, observer) = (key.to_pem().expect("PEM"), Observer::default());
        let engine = Engine::start(Parts {
            store: store.clone(),
            hub: hub.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            background: background.clone(),
            cluster: cluster.clone(),
            observer: observer.clone(),
            key: SecretKey::from_pem(&pem).expect("the key"),
            slots,
            max_targets: 10_000,
            grace_ms: 1_000,
            anchor_secs: 3_600,
        })
        .await
        .expect("an engine");
        let rollouts = Rollouts::new(rollouts::Parts {
            catalog: catalog.clone(),
            store: store.clone(),
            hub: hub.clone(),
            cluster: cluster.clone(),
            engine: engine.clone(),
            observer,
            clock: clock.clone(),
            metrics,
        })
        .await
        .expect("rollouts");
        Self { dir, clock, background, store, hub, cluster, catalog, engine, rollouts, key }
    }

    /// The first of several instances, with a release that is active.
    pub(crate) async fn first(instance: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let world = Self::open(dir, SecretKey::generate(), Clock::default(), 4, Some(instance)).await;
        let component = component("probe");
        let statements = release(&world.key, "probe", 1, "ping", &component);
        world.catalog.publish(component.into(), statements, Wanted::Active, "tests").await.expect("published");
        world
    }

    /// Another instance over the same store.
    pub(crate) async fn beside(&self, instance: &str) -> Self {
        let pem = self.key.to_pem().expect("PEM");
        let key = SecretKey::from_pem(&pem).expect("the key");
        Self::open(self.dir.clone(), key, self.clock.clone(), 4, Some(instance)).await
    }

    /// What follows the other instances.
    pub(crate) fn follow(&self) {
        let parts = cluster::follow::Parts {
            cluster: self.cluster.clone(),
            store: self.store.clone(),
            engine: self.engine.clone(),
            catalog: self.catalog.clone(),
            rollouts: self.rollouts.clone(),
            repository: None,
        };
        self.background.supervise("follower", move || cluster::follow::run(parts.clone()));
    }

    /// Stop, and start again on the same directory.
    pub(crate) async fn restart(self) -> Self {
        assert!(self.background.stop(SOON).await, "everything stops");
        self.store.close().await;
        Self::open(self.dir, self.key, self.clock, 4, None).await
    }

    /// Nothing is committed until what this answers is let go.
    pub(crate) async fn hold_store(&self) -> sqlx::SqliteConnection {
        use sqlx::ConnectOptions as _;
        let file = sqlx::sqlite::SqliteConnectOptions::new().filename(self.dir.path().join("viworks.db"));
        let mut connection = file.connect().await.expect("a connection");
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.expect("the only writer");
        connection
    }

    /// Register agents that have no session.
    pub(crate) async fn register(&self, ids: &[&str]) {
        for id in ids {
            self.store.note(Note::Hello(Box::new(hello(id, self.clock.now_ms())))).await.expect("noted");
        }
        self.store.flush().await.expect("written");
    }

    pub(crate) fn request(&self, targets: &[&str]) -> Request {
        Request {
            task: self.catalog.check("ping", &json!({ "name": "x" })).expect("checked").into(),
            mode: Mode::Apply,
            plans: Vec::new(),
            approvals: 0,
            targets: targets.iter().map(|id| agent(id)).collect(),
            caller: "alice".to_owned(),
            timeout_secs: None,
            expires_in_secs: Some(60),
            batch: None,
            idempotency_key: None,
            trace: None,
        }
    }

    /// A session of `id`, entered and told to the engine.
    pub(crate) async fn connect(&self, id: &str) -> Peer {
        let identity = Identity {
            agent: agent(id),
            serial: [1].into(),
            issuer: [2].into(),
            not_after_ms: self.clock.now_ms() + 1_000_000_000,
        };
        let (session, queue) = self.hub.session_for(agent(id), identity);
        assert_eq!(self.cluster.enter(&session.agent, session.serial).await, Ok(()));
        assert!(self.hub.enter(&session, None).is_ok(), "the only session");
        self.engine.connected(&session.agent).await;
        soon(self.engine.delivered()).await;
        Peer { session, queue }
    }

    pub(crate) fn disconnect(&self, peer: Peer) {
        assert!(self.hub.leave(&peer.session));
        self.cluster.left(&peer.session.agent, peer.session.serial);
        self.engine.disconnected(&peer.session.agent);
    }
}

/// An agent's end of a session.
pub(crate) struct Peer {
    pub session: Arc<Session>,
    queue: mpsc::Receiver<Out>,
}

impl Peer {
    pub(crate) async fn frame(&mut self) -> BackendFrame {
        match soon(self.queue.recv()).await {
            Some(Out::Frame(text)) => serde_json::from_str(&text).expect("a frame"),
            other => panic!("{other:?}"),
        }
    }

    /// The invocation that is ordered, as the gateway finds it: verified.
    pub(crate) async fn invoked(&mut self, world: &World) -> InvocationId {
        let frame = self.frame().await;
        self.verified(world, frame)
    }

    /// The invocation that this frame orders.
    pub(crate) fn verified(&self, world: &World, frame: BackendFrame) -> InvocationId {
        let BackendFrame::Invoke { proof, order, .. } = frame else { panic!("an invoke frame, not {frame:?}") };
        let keys = [world.key.public()];
        let now = world.clock.now_ms();
        let verified = viworks_protocol::warrant::verify(&order, &proof, &keys, &self.session.agent, now);
        verified.expect("a warrant that holds").invocation().clone()
    }

    pub(crate) fn is_quiet(&mut self) -> bool {
        self.queue.try_recv().is_err()
    }
}

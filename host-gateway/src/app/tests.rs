//! A whole gateway against a backend of the tests: order, report, acknowledgement, status,
//! drain, and a start after a journal was damaged.

use serde_json::value::RawValue;
use viworks_protocol::frame::{BackendFrame, GatewayFrame, invoke_frame};
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::merkle::Tree;
use viworks_protocol::outcome::{Outcome, Report};
use viworks_protocol::warrant::{self, Mode, Order, Warrant};
use viworks_signing::keys::SecretKey;

use super::*;
use crate::config::tests::Bench;
use crate::link::tests::{Peer, Server, TIME, soon};
use crate::status;

pub(super) struct Fixture {
    pub(super) bench: Bench,
    pub(super) server: Server,
    key: SecretKey,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let mut bench = Bench::new();
        let (server, port, pin) = Server::new(&bench.authority, &bench.authority).await;
        let key = SecretKey::generate();
        bench.set("backend_url", &format!("wss://localhost:{port}"));
        bench.set("backend_spki_pin", &pin);
        bench.set("drain_secs", "1");
        bench.file("warrant_keys", &key.public().to_pem().unwrap());
        Self { bench, server, key }
    }

    pub(super) async fn start(&self) -> Result<App, StartError> {
        let config = self.bench.load().unwrap();
        std::fs::create_dir_all(&config.state_dir).unwrap();
        let audit = Audit::open(&config.audit_log).unwrap();
        App::start(config, audit).await
    }

    fn state(&self, file: &str) -> PathBuf {
        self.bench.dir.path().join("state").join(file)
    }

    /// An order, and the invocation that follows from it.
    fn order(&self, change: impl FnOnce(&mut Warrant)) -> (String, InvocationId) {
        let agent: AgentId = "web-01".parse().unwrap();
        let tree = Tree::new([&agent]).unwrap();
        let mut warrant = Warrant {
            command: CommandId::new(TIME),
            verb: "list_users".into(),
            plugin: "accounts".into(),
            digest: "ab".repeat(32),
            args_sha256: warrant::args_sha256("{}"),
            mode: Mode::Apply,
            caller: "alice".into(),
            also: Vec::new(),
            approvals: Vec::new(),
            plans: Vec::new(),
            undo: None,
            not_before_ms: TIME,
            expires_ms: TIME + 600_000,
            timeout_secs: 5,
            targets_root: hex::encode(tree.root()),
            targets: 1,
        };
        change(&mut warrant);
        let invocation = InvocationId::derive(&warrant.command, &tree.root(), &agent);
        let args = RawValue::from_string("{}".into()).unwrap();
        let order = Order { warrant: warrant::sign(&warrant, &self.key).unwrap(), args };
        let order = serde_json::to_string(&order).unwrap();
        (invoke_frame(&tree.proof(0).unwrap(), &order, None).unwrap(), invocation)
    }
}

async fn next_report(peer: &mut Peer) -> (InvocationId, Report) {
    loop {
        match peer.hear().await {
            Some(GatewayFrame::Result { invocation, report }) => return (invocation, report),
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_answered_once_whatever_is_repeated() {
    let fixture = Fixture::new().await;
    let app = fixture.start().await.unwrap();
    let mut peer = fixture.server.welcome(20).await;

    // No plugin is here: the answer is a refusal, journaled like any other end.
    let (frame, invocation) = fixture.order(|_| ());
    peer.text(&frame).await;
    assert!(matches!(peer.hear().await, Some(GatewayFrame::Accepted { invocation: i }) if i == invocation));
    let (first, report) = next_report(&mut peer).await;
    assert_eq!((&first, report.failure.unwrap().code.as_str()), (&invocation, "plugin"));
    peer.text(&frame).await;
    let (again, repeated) = next_report(&mut peer).await;
    assert_eq!((again, repeated.finished_ms), (invocation.clone(), report.finished_ms), "the same report");

    // The same order late: what is known stays what was said.
    let (late, lost) = fixture.order(|w| (w.not_before_ms, w.expires_ms) = (TIME - 20, TIME - 10));
    peer.text(&late).await;
    let (refused, report) = next_report(&mut peer).await;
    assert_eq!((refused, report.outcome), (lost, Outcome::Expired));

    assert_eq!(app.vitals.owed(), 1);
    peer.say(&BackendFrame::Ack { invocation }).await;
    soon(async {
        while app.vitals.owed() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stopped = tokio::spawn(app.drain());
    assert_eq!(peer.close_code().await, Some(1001));
    soon(stopped).await.unwrap();
    assert!(!fixture.state("status.sock").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_socket_tells_health_and_metrics() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new().await;
    let app = fixture.start().await.unwrap();
    let socket = fixture.state("status.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let before = status::ask(&socket).await.unwrap();
    assert_eq!((before.status.as_str(), before.agent.as_str()), ("degraded", "web-01"));

    let mut peer = fixture.server.welcome(20).await;
    let mut link = app.vitals.link().watch();
    soon(link.wait_for(|l| l.phase == Phase::Connected)).await.unwrap();
    let after = status::ask(&socket).await.unwrap();
    assert_eq!((after.status.as_str(), after.executor.max_concurrency), ("healthy", 4));
    assert!(after.clock_offset_ms > 0, "the backend of the tests lives in the future");
    let sampled = loop {
        if let Some(GatewayFrame::Telemetry { sample }) = peer.hear().await {
            break sample;
        }
    };
    assert!(sampled.gateway.rss_kib > 0 && sampled.memory_total_mib > 0);

    let metrics = status::metrics_of(&socket).await.unwrap();
    for line in [
        "viworks_gateway_connected 1",
        "viworks_gateway_invocations_total{outcome=\"unknown\"} 0",
        "viworks_gateway_invocation_seconds_bucket{le=\"+Inf\"} 0",
        "# TYPE viworks_gateway_invocations_total counter",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} in\n{metrics}");
    }
    assert!(matches!(fixture.start().await, Err(StartError::Status(ServeError::InUse(_)))), "a second gateway");
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_it_stays_up_and_changes_nothing() {
    let fixture = Fixture::new().await;
    std::fs::create_dir_all(fixture.state("")).unwrap();
    std::fs::write(fixture.state("journal.db"), "not a database at all, whatever is in it".repeat(200)).unwrap();
    let app = fixture.start().await.unwrap();
    let mut peer = fixture.server.welcome(20).await;
    let (frame, invocation) = fixture.order(|_| ());
    peer.text(&frame).await;
    let (answered, report) = next_report(&mut peer).await;
    assert_eq!((answered, report.failure.unwrap().code.as_str()), (invocation, "unavailable"));
    let health = status::ask(&fixture.state("status.sock")).await.unwrap();
    assert!(health.status == "degraded" && health.journal.fault.is_some());
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_unfinished_is_told_at_the_next_start() {
    let fixture = Fixture::new().await;
    let (_, invocation) = fixture.order(|_| ());
    std::fs::create_dir_all(fixture.state("")).unwrap();
    let journal = Journal::open(&fixture.state("")).unwrap();
    journal.admit(&invocation, TIME).await.unwrap();
    drop(journal);
    let app = soon(async {
        // The journal's thread ends on its own, and with it its lock.
        loop {
            match fixture.start().await {
                Err(StartError::InUse) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => break other.unwrap(),
            }
        }
    })
    .await;
    let mut peer = fixture.server.welcome(20).await;
    let (told, report) = next_report(&mut peer).await;
    assert_eq!((told, report.failure.unwrap().code.as_str()), (invocation, "interrupted"));
    app.drain().await;
}

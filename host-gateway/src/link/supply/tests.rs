//! What is fetched, resumed, refused and given up.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use viworks_protocol::chunk::Part;
use viworks_protocol::frame::GatewayFrame;

use super::*;
use crate::config::Policy;
use crate::journal::Journal;
use crate::plugins::{Registry, Rules};
use crate::runtime::{Runtime, RuntimeConfig};
use crate::trust::Repository;

const COMPONENT: &[u8] = b"no component at all";
const STATEMENTS: &[u8] = b"nobody's statements";

struct Fixture {
    _dir: tempfile::TempDir,
    outgoing: Outgoing,
    deliveries: mpsc::Sender<Delivery>,
    task: JoinHandle<()>,
}

async fn start(patience: Duration) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let outgoing = Outgoing::new(Journal::open(dir.path()).unwrap(), Box::new(Vec::new));
    let runtime = Arc::new(Runtime::new(RuntimeConfig { max_concurrency: 1, memory_mib: 1, instances: 1 }).unwrap());
    let rules = Rules { release_keys: Vec::new(), policy: Policy::default() };
    let repository = Repository::open(dir.path(), None, Duration::ZERO).unwrap();
    let plugins = Plugins::open(dir.path(), rules, repository, runtime, Arc::<Registry>::default()).unwrap();
    let (deliveries, receiver) = mpsc::channel(DELIVERIES);
    let supply = Supply { patience, ..Supply::new(plugins, outgoing.clone()) };
    outgoing.begin();
    Fixture { _dir: dir, outgoing, deliveries, task: tokio::spawn(supply.run(receiver)) }
}

impl Fixture {
    async fn deliver(&self, delivery: Delivery) {
        self.deliveries.send(delivery).await.unwrap();
    }

    async fn said(&self) -> GatewayFrame {
        let frame = timeout(Duration::from_secs(10), self.outgoing.next()).await.unwrap();
        serde_json::from_str(&frame).unwrap()
    }

    /// The next request, and the statuses before it.
    async fn asked(&self) -> (Part, u32) {
        loop {
            match self.said().await {
                GatewayFrame::Fetch { part, offset, .. } => return (part, offset),
                GatewayFrame::Plugin { status } => assert_eq!(status.state, PluginState::Fetching),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn refused(&self) -> PluginStatus {
        loop {
            match self.said().await {
                GatewayFrame::Plugin { status } if status.state == PluginState::Refused => return status,
                GatewayFrame::Plugin { .. } | GatewayFrame::Fetch { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn offer(plugin: &str) -> PluginOffer {
    PluginOffer {
        plugin: plugin.into(),
        version: "1.0.0".into(),
        digest: hex::encode(Sha256::digest(COMPONENT)),
        component_size: COMPONENT.len() as u32,
        statements_size: STATEMENTS.len() as u32,
        shadow: false,
    }
}

fn piece(part: Part, offset: usize, bytes: &'static [u8], total: usize) -> Delivery {
    let digest = Sha256::digest(COMPONENT).into();
    let (offset, total) = (offset as u32, total as u32);
    Delivery::Chunk(Chunk { part, digest, offset, total, bytes: Bytes::from_static(bytes) })
}

#[tokio::test]
async fn pieces_are_asked_for_resumed_and_judged() {
    let fixture = start(PATIENCE).await;
    fixture.deliver(piece(Part::Component, 0, COMPONENT, COMPONENT.len())).await;
    fixture.deliver(Delivery::Offers(vec![offer("accounts")])).await;
    assert_eq!(fixture.asked().await, (Part::Statements, 0));
    fixture.deliver(piece(Part::Statements, 0, STATEMENTS, STATEMENTS.len())).await;
    assert_eq!(fixture.asked().await, (Part::Component, 0));
    fixture.deliver(piece(Part::Component, 0, &COMPONENT[..5], COMPONENT.len())).await;
    fixture.deliver(Delivery::Disconnected).await;
    fixture.deliver(Delivery::Offers(vec![offer("accounts")])).await;
    assert_eq!(fixture.asked().await, (Part::Component, 5), "it goes on where it was");
    fixture.deliver(piece(Part::Component, 5, &COMPONENT[5..], COMPONENT.len())).await;
    let refused = fixture.refused().await;
    assert_eq!(refused.plugin, "accounts");
    assert!(refused.detail.unwrap().starts_with("E_"));
    drop(fixture.deliveries);
    timeout(Duration::from_secs(10), fixture.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_bad_offer_is_refused_and_the_next_one_fetched() {
    let fixture = start(PATIENCE).await;
    let bad = PluginOffer { component_size: u32::MAX, ..offer("huge") };
    fixture.deliver(Delivery::Offers(vec![bad, offer("accounts")])).await;
    // Requests come before statuses.
    assert_eq!(fixture.asked().await, (Part::Statements, 0));
    let refused = fixture.refused().await;
    assert_eq!((refused.plugin.as_str(), refused.detail.unwrap().split(':').next()), ("huge", Some("E_FETCH")));
}

#[tokio::test]
async fn what_does_not_come_is_asked_for_again_and_then_given_up() {
    let fixture = start(Duration::from_millis(20)).await;
    fixture.deliver(Delivery::Offers(vec![offer("slow"), offer("next")])).await;
    let mut asked = 0;
    while asked < ATTEMPTS {
        if let GatewayFrame::Fetch { .. } = fixture.said().await {
            asked += 1;
        }
    }
    // The next one's request may come before its status; no third frame comes first.
    let mut told = None;
    for _ in 0..2 {
        if let GatewayFrame::Plugin { status } = fixture.said().await {
            told.get_or_insert(status.plugin);
        }
    }
    assert_eq!(told.as_deref(), Some("next"));
}

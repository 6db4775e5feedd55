//! Receipts from a session's frames to the store, over its chains, into anchors, and out
//! to an offline check.

use viworks_protocol::outcome::Outcome;
use viworks_protocol::receipt::export::{Fault, Summary, Trust, verify_export};
use viworks_protocol::receipt::{Head, Receipt, sign};
use viworks_signing::keys::SecretKey;

use crate::store::model::PageOf;
use crate::store::receipt::{ReceiptFilter, StoredReceipt};
use crate::store::write::Note;
use crate::testing::{Peer, World, agent, hello, report, soon};
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::Report;

/// A gateway that signs what it does.
struct Signing {
    peer: Peer,
    key: SecretKey,
    head: Head,
}

impl Signing {
    async fn new(world: &World, id: &str) -> Self {
        let key = SecretKey::generate();
        pin(world, id, &key).await;
        let peer = world.connect(id).await;
        assert!(peer.session.receipt_key.set(key.public()).is_ok());
        Self { peer, key, head: Head::genesis() }
    }

    /// Take a command and answer with its signed report, which is not sent.
    async fn answer(&mut self, world: &World) -> (InvocationId, Report) {
        let id = self.peer.session.agent.clone();
        let accepted = world.engine.accept(world.request(&[id.as_str()])).await.expect("accepted");
        let invocation = self.peer.invoked(world).await;
        let mut report = report(Outcome::Succeeded);
        let command = accepted.command;
        let mut receipt = Receipt {
            warrant_sha256: "00".repeat(32),
            caller: command.caller,
            verb: command.verb,
            plugin: command.plugin,
            digest: command.digest,
            args_sha256: "00".repeat(32),
            ..Receipt::draft(&id, command.id, invocation.clone())
        };
        receipt.follow(&self.head);
        receipt.describe(&report);
        let (envelope, head) = sign(&receipt, &self.key).expect("signed");
        self.head = head;
        report.receipt = Some(Box::new(envelope));
        (invocation, report)
    }

    async fn send(&mut self, world: &World, (invocation, report): (InvocationId, Report)) {
        world.engine.result(&self.peer.session.agent, invocation, &report).await;
        loop {
            if let BackendFrame::Ack { .. } = self.peer.frame().await {
                return;
            }
        }
    }

    async fn run(&mut self, world: &World) {
        let answer = self.answer(world).await;
        self.send(world, answer).await;
    }
}

async fn pin(world: &World, id: &str, key: &SecretKey) {
    let pem = key.public().to_pem().expect("PEM");
    let mut hello = hello(id, world.clock.now_ms());
    hello.receipt_key = Some((key.public().id(), pem));
    world.store.note(Note::Hello(Box::new(hello))).await.expect("noted");
    world.store.flush().await.expect("written");
}

async fn stored(world: &World) -> Vec<StoredReceipt> {
    world.store.receipts(&ReceiptFilter::default(), &PageOf::first(1_000)).await.expect("read").items
}

async fn audited(world: &World, action: &str) -> Vec<String> {
    world.store.flush().await.expect("written");
    let page = world.store.audit_page(&PageOf::first(1_000)).await.expect("read");
    page.items.into_iter().filter(|r| r.entry.action == action).map(|r| r.entry.detail).collect()
}

/// The lines that `viworks receipts export` writes.
async fn export(world: &World) -> Vec<String> {
    let keys = world.store.receipt_keys(None, &PageOf::first(1_000)).await.expect("read").items;
    let anchors = world.store.anchors(&PageOf::first(1_000)).await.expect("read").items;
    let keys = keys.into_iter().map(|k| serde_json::json!({"key": {"agent": k.agent, "pem": k.pem}}).to_string());
    let receipts = stored(world).await.into_iter().map(|r| format!(r#"{{"receipt":{}}}"#, r.envelope));
    let anchors = anchors.into_iter().map(|a| format!(r#"{{"anchor":{}}}"#, a.envelope));
    keys.chain(receipts).chain(anchors).collect()
}

fn checked(world: &World, lines: &[String]) -> Summary {
    let trust = Trust { anchors: vec![world.key.public()], ..Trust::default() };
    verify_export(lines.iter().map(String::as_str), &trust)
}

#[tokio::test]
async fn receipts_are_kept_chained_and_anchored() {
    let world = World::new().await;
    world.register(&["a", "b"]).await;
    let (mut a, mut b) = (Signing::new(&world, "a").await, Signing::new(&world, "b").await);
    for _ in 0..3 {
        a.run(&world).await;
    }
    b.run(&world).await;
    let all = stored(&world).await;
    assert_eq!(
        all.iter().map(|r| (r.agent.as_str(), r.seq)).collect::<Vec<_>>(),
        [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
    );
    assert!(all.iter().all(|r| r.fault.is_none()), "{all:?}");
    let invocation = world.store.invocation(&all[0].invocation).await.expect("read").expect("there");
    assert!(invocation.report().is_some_and(|r| r.receipt.is_none()), "it is kept once");
    let of = ReceiptFilter { command: Some(all[1].command.clone()), ..ReceiptFilter::default() };
    assert_eq!(world.store.receipts(&of, &PageOf::first(10)).await.expect("read").items.len(), 1);

    world.engine.walk_receipts().await;
    assert_eq!(world.engine.anchor_receipts().await.expect("anchored"), 1);
    assert_eq!(world.engine.anchor_receipts().await.expect("anchored"), 0, "nothing moved");
    a.run(&world).await;
    world.engine.walk_receipts().await;
    assert_eq!(world.engine.anchor_receipts().await.expect("anchored"), 1);

    let lines = export(&world).await;
    let summary = checked(&world, &lines);
    assert!(summary.is_sound(), "{:?}", summary.faults);
    assert_eq!((summary.receipts, summary.anchors), (5, 2));
    // Cut off at the end: an anchor has seen more.
    let last =
        lines.iter().rposition(|l| l.starts_with(r#"{"receipt""#) && l.contains(&b.key.public().id())).expect("b's");
    let mut cut = lines.clone();
    cut.remove(last);
    assert!(matches!(&checked(&world, &cut).faults[..], [Fault::Truncated { anchored: 1, .. }]));
    let mut reordered = lines.clone();
    let first = reordered.iter().position(|l| l.starts_with(r#"{"receipt""#)).expect("a receipt");
    reordered.swap(first, first + 1);
    assert!(matches!(&checked(&world, &reordered).faults[..], [Fault::Reordered { .. }]));

    let agents = world.store.agents(&Default::default(), &PageOf::first(10)).await.expect("read");
    let standing = agents.items[0].receipts.clone().expect("a chain");
    assert_eq!((standing.key, standing.last, standing.missing, standing.former_keys), (a.key.public().id(), 4, 0, 0));
}

#[tokio::test]
async fn a_bad_receipt_is_marked_and_its_result_is_settled() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let mut a = Signing::new(&world, "a").await;
    let (invocation, good) = a.answer(&world).await;
    let envelope = good.receipt.clone().expect("a receipt");
    let forged = viworks_signing::dsse::Envelope::sign(&envelope.payload_type, b"{}", &[&SecretKey::generate()]);
    a.send(&world, (invocation.clone(), Report { receipt: Some(Box::new(forged)), ..good })).await;
    assert!(world.store.invocation(&invocation).await.expect("read").is_some_and(|i| i.seq.is_some()));

    let (invocation, mut other) = a.answer(&world).await;
    other.cost.wall_us = 77;
    a.send(&world, (invocation, other)).await;
    let faults: Vec<_> = stored(&world).await.into_iter().map(|r| (r.chain.is_empty(), r.fault)).collect();
    assert_eq!(faults, [(true, Some("signature".to_owned())), (false, Some("report".to_owned()))]);
    assert_eq!(audited(&world, "receipt").await, ["report", "signature"], "newest first");
}

#[tokio::test]
async fn a_gap_is_noticed_and_filled_and_a_fork_is_marked() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let mut a = Signing::new(&world, "a").await;
    a.run(&world).await;
    let late = a.answer(&world).await;
    a.run(&world).await;
    world.engine.walk_receipts().await;
    let missing =
        async || world.store.agent(&agent("a")).await.expect("read").and_then(|a| a.receipts).map(|r| r.missing);
    assert_eq!(missing().await, Some(1));
    let told = audited(&world, "receipt").await;
    assert!(told.len() == 1 && told[0].contains("2 to 2"), "{told:?}");
    a.send(&world, late).await;
    world.engine.walk_receipts().await;
    assert_eq!(missing().await, Some(0), "it was only late");

    // The gateway's history is put back and goes on differently.
    a.head = Head { seq: 2, sha256: "ff".repeat(32) };
    a.run(&world).await;
    world.engine.walk_receipts().await;
    let forked: Vec<_> = stored(&world).await.into_iter().filter(|r| r.fault.as_deref() == Some("forked")).collect();
    assert_eq!(forked.iter().map(|r| r.seq).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn a_changed_key_is_audited_and_shown() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let (first, second) = (SecretKey::generate(), SecretKey::generate());
    for key in [&first, &first, &second] {
        pin(&world, "a", key).await;
    }
    let told = audited(&world, "agent.receipt-key").await;
    assert_eq!(told, [format!("from {} to {}", first.public().id(), second.public().id())]);
    let standing = world.store.agent(&agent("a")).await.expect("read").and_then(|a| a.receipts).expect("a key");
    assert_eq!((standing.key, standing.former_keys), (second.public().id(), 1));
    let keys = world.store.receipt_keys(Some(&agent("a")), &PageOf::first(10)).await.expect("read").items;
    assert_eq!(keys.iter().filter(|k| k.pinned).count(), 1);
    soon(world.engine.delivered()).await;
}

#[tokio::test]
async fn old_receipts_go_up_to_an_anchored_place() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let mut a = Signing::new(&world, "a").await;
    for _ in 0..2 {
        a.run(&world).await;
    }
    world.engine.walk_receipts().await;
    world.engine.anchor_receipts().await.expect("anchored");
    a.run(&world).await;
    world.engine.walk_receipts().await;
    let horizon = crate::store::write::Horizon {
        telemetry_ms: 0,
        hours_ms: 0,
        commands_ms: 0,
        audit_ms: 0,
        receipts_ms: world.clock.now_ms() + 2 * 3_600_000,
    };
    assert_eq!(world.store.prune(horizon).await.expect("pruned"), 2, "the third is confirmed by no anchor");
    world.engine.anchor_receipts().await.expect("anchored");
    let summary = checked(&world, &export(&world).await);
    assert!(summary.is_sound(), "what is left begins where it can be checked: {:?}", summary.faults);
}

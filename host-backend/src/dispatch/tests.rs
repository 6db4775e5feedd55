//! The engine against a real store, with sessions whose queues the tests read.

use std::time::Duration;
use tokio::sync::broadcast;
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::id::CommandId;
use viworks_protocol::outcome::Outcome;
use viworks_protocol::warrant::Mode;

use super::flight::WINDOW;
use super::{AcceptError, Event, Progress, Request, Task};
use crate::catalog::Wanted;
use crate::store::model::{Command, CommandState, IdempotencyKey, InvocationState, PageOf};
use crate::testing::{Peer, World, component, release_of, report, soon};

async fn finished(events: &mut broadcast::Receiver<Event>) -> Command {
    loop {
        match soon(events.recv()).await {
            Ok(Event::Finished(command)) => return command.command.clone(),
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => panic!("closed before the end"),
        }
    }
}

async fn acked(peer: &mut Peer) {
    let frame = peer.frame().await;
    assert!(matches!(frame, BackendFrame::Ack { .. }), "{frame:?}");
}

async fn state(world: &World, id: &CommandId) -> Command {
    world.store.command(id).await.expect("read").expect("there")
}

#[tokio::test]
async fn from_accept_to_the_last_durable_result() {
    let world = World::new().await;
    world.register(&["a", "b"]).await;
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    let mut accepted = world.engine.accept(world.request(&["b", "a", "b"])).await.expect("accepted");
    assert_eq!((accepted.command.targets, accepted.command.counts.sent), (2, 2), "repetitions are one target");
    let first = a.invoked(&world).await;
    world.engine.accepted(&a.session.agent, first.clone()).await;
    world.engine.progress(Progress {
        invocation: first.clone(),
        agent: a.session.agent.clone(),
        done: 1,
        total: Some(2),
        message: "half".into(),
    });
    assert!(matches!(soon(accepted.events.recv()).await, Ok(Event::Progress(p)) if p.done == 1));
    let second = b.invoked(&world).await;
    world.engine.result(&a.session.agent, first, &report(Outcome::Succeeded)).await;
    acked(&mut a).await;
    assert_eq!(world.engine.status().active_commands, 1);
    world.engine.result(&b.session.agent, second, &report(Outcome::Failed)).await;
    acked(&mut b).await;
    let command = finished(&mut accepted.events).await;
    assert_eq!((command.state, command.counts.succeeded, command.counts.failed), (CommandState::Finished, 1, 1));
    assert_eq!(state(&world, &command.id).await, command, "what subscribers hear is durable");
    assert_eq!(world.engine.status().active_commands, 0);
}

#[tokio::test]
async fn only_what_can_change_nothing_leaves_before_its_commit() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let bytes = component("tool");
    let signed = release_of(&world.key, "tool", 1, "mend", "change", &bytes);
    world.catalog.publish(bytes.into(), signed, Wanted::Active, "tests").await.expect("published");
    world.register(&["a"]).await;
    let mut a = world.connect("a").await;
    let key = |text: &str| Some(IdempotencyKey { key: text.into(), request_sha256: "ab".repeat(32) });
    let change = || Task::from(world.catalog.check("mend", &serde_json::json!({ "name": "x" })).expect("checked"));
    let ping = || world.request(&["a"]);
    for (what, request, early) in [
        ("a read", ping(), true),
        ("a plan", Request { task: change(), mode: Mode::Plan, ..ping() }, true),
        ("a change", Request { task: change(), ..ping() }, false),
        ("what may have been accepted before", Request { idempotency_key: key("k"), ..ping() }, false),
    ] {
        let held = world.hold_store().await;
        let engine = world.engine.clone();
        let accepting = tokio::spawn(async move { engine.accept(request).await });
        let sent = match early {
            true => Some(a.invoked(&world).await),
            false => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                assert!(a.is_quiet(), "{what} left before its commit");
                None
            }
        };
        assert!(!accepting.is_finished(), "{what} is accepted once it is durable");
        let engine = world.engine.clone();
        if let Some(invocation) = sent.clone() {
            // As quick as it may be, it is settled after its acceptance.
            engine.result(&a.session.agent, invocation, &report(Outcome::Succeeded)).await;
        }
        held.close().await.expect("let go");
        let mut accepted = soon(accepting).await.expect("no panic").expect("accepted");
        if sent.is_none() {
            let invocation = a.invoked(&world).await;
            engine.result(&a.session.agent, invocation, &report(Outcome::Succeeded)).await;
        }
        acked(&mut a).await;
        assert_eq!(finished(&mut accepted.events).await.counts.succeeded, 1, "{what}");
    }
}

#[tokio::test]
async fn a_duplicate_is_acknowledged_and_a_foreign_result_ends_the_session() {
    let world = World::new().await;
    world.register(&["a", "b"]).await;
    let (mut a, b) = (world.connect("a").await, world.connect("b").await);
    world.engine.accept(world.request(&["a"])).await.expect("accepted");
    let invocation = a.invoked(&world).await;
    world.engine.result(&b.session.agent, invocation.clone(), &report(Outcome::Succeeded)).await;
    soon(b.session.end.cancelled()).await;
    assert_eq!(b.session.ended().map(|e| e.reason), Some("foreign-invocation"));
    world.engine.result(&a.session.agent, invocation.clone(), &report(Outcome::Failed)).await;
    acked(&mut a).await;
    world.engine.result(&a.session.agent, invocation.clone(), &report(Outcome::Succeeded)).await;
    acked(&mut a).await;
    let settled = world.store.invocation(&invocation).await.expect("read").expect("there");
    assert_eq!(settled.state, InvocationState::Failed, "the first result stands");
    world.store.flush().await.expect("written");
    let audit = world.store.audit_page(&PageOf::first(1)).await.expect("read");
    assert_eq!((audit.items[0].entry.actor.as_str(), audit.items[0].entry.action.as_str()), ("agent:b", "result"));
}

#[tokio::test]
async fn an_offline_agent_gets_its_command_when_it_returns() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let accepted = world.engine.accept(world.request(&["a"])).await.expect("accepted");
    assert_eq!(accepted.command.state, CommandState::Queued);
    assert_eq!(world.engine.status().active_commands, 0, "who waits takes no slot");
    let mut a = world.connect("a").await;
    let first = a.invoked(&world).await;
    // Delivered, and lost with the connection: sent again, and the gateway knows it.
    world.disconnect(a);
    let mut a = world.connect("a").await;
    assert_eq!(a.invoked(&world).await, first);
    let world = world.restart().await;
    let mut a = world.connect("a").await;
    assert_eq!(a.invoked(&world).await, first, "a restart is nothing special");
    world.engine.result(&a.session.agent, first, &report(Outcome::Succeeded)).await;
    acked(&mut a).await;
    assert_eq!(state(&world, &accepted.command.id).await.state, CommandState::Finished);
    world.disconnect(a);
    let mut a = world.connect("a").await;
    assert!(a.is_quiet(), "what is settled is not owed");
}

#[tokio::test]
async fn expired_and_unknown_are_different() {
    let world = World::new().await;
    world.register(&["on", "off"]).await;
    let mut on = world.connect("on").await;
    let mut accepted = world.engine.accept(world.request(&["on", "off"])).await.expect("accepted");
    on.invoked(&world).await;
    world.clock.advance(Duration::from_secs(60));
    world.engine.expire_due().await;
    let mut off = world.connect("off").await;
    assert!(off.is_quiet(), "nothing is delivered after expiry");
    // The verb's timeout and the grace.
    world.clock.advance(Duration::from_secs(6));
    world.engine.expire_due().await;
    let command = finished(&mut accepted.events).await;
    assert_eq!((command.counts.expired, command.counts.unknown), (1, 1));
    assert_eq!(world.engine.status().active_commands, 0);
}

#[tokio::test]
async fn cancelling_reaches_agents_that_have_it() {
    let world = World::new().await;
    world.register(&["on", "off"]).await;
    let mut on = world.connect("on").await;
    let mut accepted = world.engine.accept(world.request(&["on", "off"])).await.expect("accepted");
    let invocation = on.invoked(&world).await;
    let command = world.engine.cancel(&accepted.command.id, "bob").await.expect("cancelled").expect("there");
    assert_eq!((command.counts.cancelled, command.counts.sent), (1, 1));
    assert!(matches!(on.frame().await, BackendFrame::Cancel { invocation: i } if i == invocation));
    // Away meanwhile: told again when back, and not ordered again.
    world.disconnect(on);
    let mut on = world.connect("on").await;
    assert!(matches!(on.frame().await, BackendFrame::Cancel { .. }));
    world.engine.result(&on.session.agent, invocation, &report(Outcome::Cancelled)).await;
    assert_eq!(finished(&mut accepted.events).await.state, CommandState::Cancelled);
    let after = world.engine.cancel(&accepted.command.id, "bob").await.expect("asked").expect("there");
    assert_eq!(after.state, CommandState::Cancelled, "what has ended stays");
    assert!(world.engine.cancel(&CommandId::new(1), "bob").await.expect("asked").is_none());
}

#[tokio::test]
async fn a_batch_holds_back_all_but_so_many() {
    let world = World::new().await;
    let ids = ["a", "b", "c", "d"];
    world.register(&ids).await;
    let mut peers = Vec::new();
    for id in &ids[..3] {
        peers.push(world.connect(id).await);
    }
    let request = super::Request { batch: Some(1), ..world.request(&ids) };
    let mut accepted = world.engine.accept(request).await.expect("accepted");
    for turn in 0..3 {
        let invocation = peers[turn].invoked(&world).await;
        for later in &mut peers[turn + 1..] {
            assert!(later.is_quiet(), "one at a time");
        }
        if turn == 2 {
            // Comes while the batch is full: waits for its turn.
            peers.push(world.connect("d").await);
            assert!(peers[3].is_quiet());
        }
        let agent = peers[turn].session.agent.clone();
        world.engine.result(&agent, invocation, &report(Outcome::Succeeded)).await;
        acked(&mut peers[turn]).await;
    }
    let invocation = peers[3].invoked(&world).await;
    world.engine.result(&peers[3].session.agent.clone(), invocation, &report(Outcome::Succeeded)).await;
    assert_eq!(finished(&mut accepted.events).await.counts.succeeded, 4);
}

#[tokio::test]
async fn slots_keys_and_ranges_are_held() {
    let world = World::with(1).await;
    world.register(&["a"]).await;
    let mut a = world.connect("a").await;
    let request = super::Request { idempotency_key: Some("k".into()), ..world.request(&["a"]) };
    let accepted = world.engine.accept(request.clone()).await.expect("accepted");
    assert!(matches!(world.engine.accept(world.request(&["a"])).await, Err(AcceptError::Busy { .. })));
    let invocation = a.invoked(&world).await;
    world.engine.result(&a.session.agent, invocation, &report(Outcome::Succeeded)).await;
    acked(&mut a).await;
    let again = world.engine.accept(request).await.expect("replayed");
    assert!(again.replayed && again.command.id == accepted.command.id);
    assert!(a.is_quiet(), "a replay sends nothing");
    assert_eq!(world.engine.status().active_commands, 0, "nor holds a slot");

    assert!(matches!(world.engine.accept(world.request(&[])).await, Err(AcceptError::NoTargets)));
    let long = super::Request { expires_in_secs: Some(86_401), ..world.request(&["a"]) };
    assert!(matches!(world.engine.accept(long).await, Err(AcceptError::Range { field: "expires_in_secs", .. })));
    let none = super::Request { batch: Some(0), ..world.request(&["a"]) };
    assert!(matches!(world.engine.accept(none).await, Err(AcceptError::Range { field: "batch", .. })));
}

#[tokio::test]
async fn an_agent_is_sent_no_more_than_it_can_queue() {
    let world = World::with(100).await;
    world.register(&["a"]).await;
    // Half of them wait for the agent, half come while it is there.
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(world.engine.accept(world.request(&["a"])).await.expect("accepted").command.id);
    }
    let mut a = world.connect("a").await;
    let mut at_agent = Vec::new();
    for _ in 0..WINDOW {
        at_agent.push(a.invoked(&world).await);
    }
    for _ in 0..40 {
        ids.push(world.engine.accept(world.request(&["a"])).await.expect("accepted").command.id);
    }
    assert!(a.is_quiet(), "its window is full");
    let mut answered = 0;
    while answered < ids.len() {
        let invocation = at_agent.pop().expect("more comes");
        world.engine.result(&a.session.agent, invocation, &report(Outcome::Succeeded)).await;
        answered += 1;
        // Its acknowledgement, and whatever came before it.
        loop {
            match a.frame().await {
                BackendFrame::Ack { .. } => break,
                frame => at_agent.push(a.verified(&world, frame)),
            }
        }
        assert!(at_agent.len() <= WINDOW);
        while at_agent.is_empty() && answered < ids.len() {
            at_agent.push(a.invoked(&world).await);
        }
    }
    for id in &ids {
        assert_eq!(state(&world, id).await.state, CommandState::Finished);
    }
}

#[tokio::test]
async fn what_waits_at_the_end_is_settled() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let mut a = world.connect("a").await;
    let id = world.engine.accept(world.request(&["a"])).await.expect("accepted").command.id;
    let invocation = a.invoked(&world).await;
    world.engine.result(&a.session.agent, invocation, &report(Outcome::Succeeded)).await;
    let world = world.restart().await;
    assert_eq!(state(&world, &id).await.state, CommandState::Finished);
}

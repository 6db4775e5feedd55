//! Two instances over one store, without Redis: what they do for each other by looking
//! into the store alone.

mod redis;

use std::time::Duration;
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::outcome::Outcome;

use super::{Event, Held, event};
use crate::cluster::bus::Heard;
use crate::dispatch;
use crate::store::model::InvocationState;
use crate::testing::{Peer, World, agent, report, soon};

async fn pair() -> (World, World) {
    let a = World::first("a").await;
    let b = a.beside("b").await;
    a.follow();
    b.follow();
    (a, b)
}

/// As if it had come by Redis.
fn tell(of: &World, event: Event) {
    let (super::Bus::Local(ears) | super::Bus::Redis(_, _, ears)) = of.cluster.bus();
    ears.tell(Heard::Events([event].into()));
}

async fn end(worlds: [World; 2]) {
    for world in worlds {
        assert!(world.background.stop(Duration::from_secs(10)).await);
        world.cluster.leave().await;
        world.store.close().await;
    }
}

async fn answered(world: &World, peer: &mut Peer, outcome: Outcome) {
    let invocation = peer.invoked(world).await;
    world.engine.result(&peer.session.agent, invocation, &report(outcome)).await;
}

#[tokio::test]
async fn a_command_reaches_an_agent_of_another_instance_and_its_end_comes_back() {
    let (a, b) = pair().await;
    b.register(&["web"]).await;
    let mut web = b.connect("web").await;
    let mut accepted = a.engine.accept(a.request(&["web"])).await.expect("accepted");
    // Found by looking; nobody told b.
    answered(&b, &mut web, Outcome::Succeeded).await;
    let ended = soon(async {
        loop {
            if let Ok(dispatch::Event::Finished(ended)) = accepted.events.recv().await {
                return ended;
            }
        }
    });
    assert_eq!(ended.await.command.counts.succeeded, 1);
    end([a, b]).await;
}

#[tokio::test]
async fn what_is_heard_is_looked_at_and_a_lie_does_nothing() {
    let (a, b) = pair().await;
    b.register(&["web"]).await;
    let mut web = b.connect("web").await;
    let accepted = a.engine.accept(a.request(&["web"])).await.expect("accepted");
    let id = accepted.command.id.clone();
    tell(&b, Event::Work { command: id.clone(), agents: vec![agent("web")] });
    let invocation = web.invoked(&b).await;
    // Lies: nothing was cancelled, killed, missed or published.
    for lie in [
        Event::Command { command: id.clone() },
        Event::Killed { digest: accepted.command.digest.clone() },
        Event::Missed { agents: vec![agent("web"), agent("nobody")] },
        Event::Work { command: id.clone(), agents: vec![agent("web")] },
        Event::Catalog {},
        Event::Challenge {},
    ] {
        tell(&b, lie);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(web.is_quiet(), "nothing was ordered");
    a.engine.cancel(&id, "alice").await.expect("cancelled");
    tell(&b, Event::Command { command: id.clone() });
    assert!(matches!(web.frame().await, BackendFrame::Cancel { invocation: of } if of == invocation));
    tell(&b, Event::Command { command: id });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(web.is_quiet(), "told once");
    end([a, b]).await;
}

#[tokio::test]
async fn what_a_dead_instance_sent_is_settled_where_the_agent_comes_back() {
    let (a, b) = pair().await;
    b.register(&["web"]).await;
    let mut web = b.connect("web").await;
    let accepted = b.engine.accept(b.request(&["web"])).await.expect("accepted");
    let invocation = web.invoked(&b).await;
    assert_eq!(b.store.invocation(&invocation).await.expect("read").expect("there").state, InvocationState::Sent);
    // Killed: neither its tasks nor its sessions end in order.
    assert!(b.background.stop(Duration::from_secs(10)).await);
    drop(web);
    let began = tokio::time::Instant::now();
    let mut back = a.connect("web").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let again = back.invoked(&a).await;
    assert_eq!(again, invocation, "the same one");
    a.engine.result(&agent("web"), again, &report(Outcome::Succeeded)).await;
    let settled = soon(async {
        loop {
            let command = a.store.command(&accepted.command.id).await.expect("read").expect("there");
            if command.finished_ms.is_some() {
                return command;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(settled.await.counts.succeeded, 1);
    end([a, b]).await;
}

#[tokio::test]
async fn a_live_session_elsewhere_keeps_a_second_one_out_and_a_silent_one_does_not() {
    let (a, b) = pair().await;
    let mut web = b.connect("web").await;
    let other = async { a.cluster.enter(&agent("web"), 99).await };
    let pongs = async {
        let BackendFrame::Ping { nonce, .. } = web.frame().await else { panic!("a ping") };
        assert!(web.session.pong(nonce, b.clock.now_ms()));
    };
    assert_eq!(soon(async { tokio::join!(other, pongs).0 }).await, Err(Held::Live));
    // Now it does not answer.
    assert_eq!(soon(a.cluster.enter(&agent("web"), 100)).await, Ok(()));
    assert!(web.session.end.is_cancelled(), "the silent one is told to end");
    // One that left in order is in nobody's way.
    let gone = b.connect("db").await;
    b.disconnect(gone);
    assert_eq!(soon(a.cluster.enter(&agent("db"), 101)).await, Ok(()));
    end([a, b]).await;
}

#[tokio::test]
async fn work_is_done_by_one_until_it_goes() {
    let (a, b) = pair().await;
    assert!(a.cluster.leads("work").await);
    assert!(!b.cluster.leads("work").await);
    assert!(a.cluster.leads("work").await);
    let turn = a.cluster.turn("change").await.expect("a turn");
    let later = b.cluster.turn("change");
    let (first, ()) = tokio::join!(later, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(turn);
    });
    drop(first.expect("its turn, later"));
    a.store.leave("a").await.expect("left");
    assert!(b.cluster.leads("work").await, "the other goes on");
    end([a, b]).await;
}

#[tokio::test]
async fn a_batch_is_one_over_all_instances() {
    let (a, b) = pair().await;
    let ids = ["w1", "w2", "w3", "w4"];
    a.register(&ids).await;
    let (mut one, mut two) = (a.connect("w1").await, a.connect("w2").await);
    let (mut three, mut four) = (b.connect("w3").await, b.connect("w4").await);
    let mut request = a.request(&ids);
    request.batch = Some(1);
    let accepted = a.engine.accept(request).await.expect("accepted");
    let id = accepted.command.id.clone();
    let most = std::sync::atomic::AtomicU32::new(0);
    let count = async {
        loop {
            let command = a.store.command(&id).await.expect("read").expect("there");
            most.fetch_max(command.counts.in_flight(), std::sync::atomic::Ordering::Relaxed);
            if command.finished_ms.is_some() {
                return command;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let work = async {
        tokio::join!(
            answered(&a, &mut one, Outcome::Succeeded),
            answered(&a, &mut two, Outcome::Succeeded),
            answered(&b, &mut three, Outcome::Succeeded),
            answered(&b, &mut four, Outcome::Succeeded),
        );
    };
    let (command, ()) =
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(count, work) }).await.expect("it ends");
    assert_eq!(command.counts.succeeded, 4);
    assert_eq!(most.into_inner(), 1, "never more than the batch");
    end([a, b]).await;
}

#[tokio::test]
async fn what_one_instance_publishes_the_others_offer() {
    use crate::catalog::Wanted;
    use crate::testing::{component, release};
    let (a, b) = pair().await;
    let before = b.catalog.active().len();
    let bytes = component("more");
    let signed = release(&a.key, "more", 1, "more", &bytes);
    a.catalog.publish(bytes.into(), signed, Wanted::Active, "tests").await.expect("published");
    let mut changes = b.catalog.changes();
    soon(async {
        while b.catalog.active().len() == before {
            changes.changed().await.expect("a catalogue");
        }
    })
    .await;
    assert!(b.catalog.verb("more").is_some());
    // And b judges by what a did.
    let bytes = component("other");
    let signed = release(&b.key, "other", 1, "more", &bytes);
    let taken = b.catalog.publish(bytes.into(), signed, Wanted::Active, "tests").await;
    assert!(taken.is_err(), "the verb is taken");
    end([a, b]).await;
}

#[tokio::test]
async fn an_instance_does_not_join_those_that_sign_with_another_key() {
    let a = World::first("a").await;
    let refused = super::Cluster::start(super::Parts {
        store: a.store.clone(),
        hub: crate::hub::Hub::of("b".to_owned(), a.clock.clone()),
        background: a.background.clone(),
        metrics: crate::metrics::Metrics::default(),
        shared: true,
        redis: None,
        warrant_key: "another".to_owned(),
    })
    .await;
    assert!(matches!(refused, Err(super::ClusterError::WarrantKey(of)) if of == "a"));
    let taken = super::Cluster::start(super::Parts {
        store: a.store.clone(),
        hub: crate::hub::Hub::of("a".to_owned(), a.clock.clone()),
        background: a.background.clone(),
        metrics: crate::metrics::Metrics::default(),
        shared: true,
        redis: None,
        warrant_key: a.key.public().id(),
    })
    .await;
    assert!(matches!(taken, Err(super::ClusterError::Taken(_))), "it lives");
    assert!(event::read("a", b"[]").is_err());
    let b = a.beside("b").await;
    end([a, b]).await;
}

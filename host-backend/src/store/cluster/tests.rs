use super::*;
use crate::store::tests::Place;
use crate::testing::agent;

const TTL_MS: u64 = 60_000;

/// The same tests on both engines.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::Place::sqlite()).await; })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::Place::postgres()).await; })* }
    };
}

on_both! {
    a_group_has_one_name_and_its_instances_know_each_others_keys
    a_living_instance_keeps_its_sessions_and_a_dead_one_does_not
    stamps_move_with_what_they_stand_for
    a_batch_is_claimed_up_to_its_room_and_what_is_owed_is_found
}

async fn a_group_has_one_name_and_its_instances_know_each_others_keys(place: Place) {
    let store = place.open().await;
    let name = store.group_name("one".to_owned()).await.expect("a name");
    assert_eq!(store.group_name("two".to_owned()).await.expect("a name"), name);
    assert_eq!(store.begin_instance("a", "k1").await.expect("begun"), []);
    store.beat("a", TTL_MS).await.expect("beaten");
    assert_eq!(store.begin_instance("b", "k2").await.expect("begun"), [("a".to_owned(), "k1".to_owned())]);
    store.leave("a").await.expect("left");
    assert_eq!(store.begin_instance("b", "k2").await.expect("begun"), [], "only those that live");
    store.close().await;
}

async fn a_living_instance_keeps_its_sessions_and_a_dead_one_does_not(place: Place) {
    let store = place.open().await;
    let web = agent("web-1");
    for name in ["a", "b"] {
        store.begin_instance(name, "k").await.expect("begun");
        store.beat(name, TTL_MS).await.expect("beaten");
    }
    let claimed = |of: &'static str, session| {
        let (store, web) = (store.clone(), web.clone());
        async move { !store.claim_sessions(of, vec![(web, session)]).await.expect("claimed").is_empty() }
    };
    assert!(claimed("a", 7).await);
    assert!(!claimed("b", 1).await, "a lives");
    assert!(store.challenge(&web).await.expect("asked"));
    assert_eq!(store.challenged("a").await.expect("read"), [(web.clone(), 7)]);
    assert!(store.confirm("a", vec![(web.clone(), 7)]).await.expect("confirmed"));
    let owner = store.session_owner(&web).await.expect("read").expect("an owner");
    assert_eq!(owner, Owner { instance: "a".to_owned(), session: 7, challenged: false, alive: true });
    assert!(!store.challenge(&agent("nobody")).await.expect("asked"));

    // The end of an older session ends none of a newer one.
    assert!(claimed("a", 8).await);
    assert!(!store.disown("a", vec![(web.clone(), 7)]).await.expect("disowned"));
    assert!(!store.disown("b", vec![(web.clone(), 8)]).await.expect("disowned"));
    assert!(store.disown("a", vec![(web.clone(), 8)]).await.expect("disowned"));
    assert_eq!(store.session_owner(&web).await.expect("read"), None);

    assert!(claimed("b", 1).await, "nobody's");
    store.beat("b", 0).await.expect("beaten");
    assert!(claimed("a", 9).await, "b is dead");
    store.begin_instance("a", "k").await.expect("begun");
    assert_eq!(store.session_owner(&web).await.expect("read"), None, "a new process has no sessions");
    store.close().await;
}

async fn stamps_move_with_what_they_stand_for(place: Place) {
    use crate::store::model::{Role, Token};
    let store = place.open().await;
    let before = store.stamps().await.expect("read");
    let token = Token { name: "t".into(), role: Role::Viewer, sha256: [1; 32], created_ms: 1, expires_ms: None };
    let audit = || crate::store::model::AuditEntry {
        at_ms: 1,
        actor: "t".into(),
        action: "t".into(),
        subject: "t".into(),
        decision: crate::store::model::Decision::Allowed,
        detail: String::new(),
    };
    store.create_token(token, audit()).await.expect("made");
    let made = store.stamps().await.expect("read");
    store.revoke_token("t".to_owned(), audit()).await.expect("revoked");
    let gone = store.stamps().await.expect("read");
    assert!(before["tokens"] < made["tokens"] && made["tokens"] < gone["tokens"]);
    assert_eq!(before["catalog"], gone["catalog"]);
    store.close().await;
}

async fn a_batch_is_claimed_up_to_its_room_and_what_is_owed_is_found(place: Place) {
    let store = place.open().await;
    let mut new = crate::store::tests::command(4, 0, None);
    new.command.batch = Some(2);
    let (id, targets) = (new.command.id.clone(), new.targets.clone());
    store.accept(new).await.expect("accepted");
    store.begin_instance("a", "k").await.expect("begun");
    store.beat("a", TTL_MS).await.expect("beaten");
    let sessions = targets[..3].iter().map(|target| (target.agent.clone(), 1)).collect();
    assert_eq!(store.claim_sessions("a", sessions).await.expect("claimed").len(), 3);
    assert_eq!(store.queued_here("a", &id).await.expect("read").len(), 3, "one has no session");
    let owed = store.owed_here("a", 0, None).await.expect("read");
    assert!(owed.len() == 3 && owed.iter().all(|owed| owed.queued));
    let after = store.owed_here("a", 0, Some(&owed[0].agent)).await.expect("read");
    assert_eq!(after, owed[1..]);

    let all: Vec<_> = targets.iter().map(|target| target.invocation.clone()).collect();
    let claimed = store.claim(all.clone(), 5_000).await.expect("claimed");
    assert_eq!(claimed.invocations.len(), 2, "no more than the batch");
    assert_eq!(store.claim(all, 5_000).await.expect("claimed").invocations, [], "it is full");
    let mark = |finished| Mark { command: id.clone(), last_seq: 0, finished, cancelling: false, batched: true };
    assert_eq!(store.marks(std::slice::from_ref(&id)).await.expect("read"), [mark(false)]);
    let sent = |before| {
        let store = store.clone();
        async move { store.owed_here("a", before, None).await.expect("read").iter().filter(|o| !o.queued).count() }
    };
    assert_eq!((sent(5_000).await, sent(5_001).await), (0, 2), "those that were sent before");
    store.close().await;
}

use super::*;
use crate::store::model::{AgentFilter, PageOf};
use crate::store::write::Note;
use crate::testing::{agent, hello};

const TTL: Duration = Duration::from_secs(60);
/// Over before the next statement.
const OVER: Duration = Duration::ZERO;

async fn open(dir: &std::path::Path) -> Store {
    Store::open(&dir.join("viworks.db")).await.expect("a store")
}

fn beat(instance: &str, boot: &str, ttl: Duration) -> Beat {
    Beat { instance: instance.into(), boot: boot.to_owned(), warrant_key: "k".to_owned(), ttl }
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await;
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    assert!(store.lease("expiry", &a, TTL).await.expect("asked"));
    assert!(store.lease("expiry", &a, TTL).await.expect("asked"), "renewed");
    assert!(!store.lease("expiry", &b, TTL).await.expect("asked"));
    assert!(store.lease("other", &b, TTL).await.expect("asked"), "another name");
    assert!(!store.unlease("expiry", &b).await.expect("asked"), "not its own");
    assert!(store.unlease("expiry", &a).await.expect("asked"));
    assert!(store.lease("expiry", &b, OVER).await.expect("asked"));
    assert!(store.lease("expiry", &a, TTL).await.expect("asked"), "the other's has ended");
    store.close().await;
}

#[tokio::test]
async fn two_processes_do_not_live_under_one_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await;
    let first = store.beat(beat("a", "1", TTL)).await.expect("beaten");
    assert!(first.lapsed && !first.taken);
    assert!(!store.beat(beat("a", "1", OVER)).await.expect("beaten").lapsed, "its lease held");
    assert!(store.beat(beat("a", "1", TTL)).await.expect("beaten").lapsed, "it had ended");
    assert!(store.beat(beat("a", "2", TTL)).await.expect("beaten").taken);
    let b = store.beat(beat("b", "3", TTL)).await.expect("beaten");
    assert_eq!(b.others, [("a".to_owned(), "k".to_owned())]);
    store.leave(&"a".into()).await.expect("left");
    assert!(!store.beat(beat("a", "2", TTL)).await.expect("beaten").taken, "the name is free");
    let name = store.group_name("one".to_owned()).await.expect("a name");
    assert_eq!(store.group_name("two".to_owned()).await.expect("a name"), name);
    store.close().await;
}

#[tokio::test]
async fn a_living_instance_keeps_its_sessions_and_a_dead_one_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await;
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    let web = agent("web-1");
    for (name, boot) in [("a", "1"), ("b", "2")] {
        store.beat(beat(name, boot, TTL)).await.expect("beaten");
    }
    let claimed = |of: &Arc<str>, session| {
        let (store, of, web) = (store.clone(), of.clone(), web.clone());
        async move { !store.claim_sessions(&of, vec![(web, session)]).await.expect("claimed").is_empty() }
    };
    assert!(claimed(&a, 7).await);
    assert!(!claimed(&b, 1).await, "a lives");
    store.note(Note::Hello(Box::new(hello("web-1", 1)))).await.expect("noted");
    assert!(store.challenge(&web).await.expect("asked"));
    assert_eq!(store.challenged("a").await.expect("read"), [(web.clone(), 7)]);
    store.confirm(&a, vec![(web.clone(), 7)]).await.expect("confirmed");
    let owner = store.session_owner(&web).await.expect("read").expect("an owner");
    assert_eq!(owner, Owner { instance: "a".to_owned(), session: 7, challenged: false, alive: true });
    assert!(!store.challenge(&agent("nobody")).await.expect("asked"));

    // The end of an older session ends none of a newer one.
    assert!(claimed(&a, 8).await);
    let gone =
        |session| Note::Gone { agent: agent("web-1"), place: Some(Place { instance: "a".into(), session }), at_ms: 2 };
    let online = || async {
        store.flush().await.expect("written");
        let filter = AgentFilter { online: Some(true), ..AgentFilter::default() };
        store.agents(&filter, &PageOf::first(10)).await.expect("read").items.len()
    };
    store.note(gone(7)).await.expect("noted");
    assert_eq!(online().await, 1);
    store.note(gone(8)).await.expect("noted");
    assert_eq!(online().await, 0);
    assert!(claimed(&b, 1).await, "nobody's");

    assert!(claimed(&b, 2).await);
    store.beat(beat("b", "2", OVER)).await.expect("beaten");
    assert!(claimed(&a, 9).await, "b is dead");
    assert!(claimed(&a, 10).await);
    store.disown(&a, vec![(web.clone(), 9)]).await.expect("disowned");
    assert!(store.session_owner(&web).await.expect("read").is_some(), "another session");
    store.disown(&a, vec![(web.clone(), 10)]).await.expect("disowned");
    assert_eq!(store.session_owner(&web).await.expect("read"), None);
    store.close().await;
}

#[tokio::test]
async fn stamps_move_with_what_they_stand_for() {
    use crate::store::model::{Role, Token};
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path()).await;
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

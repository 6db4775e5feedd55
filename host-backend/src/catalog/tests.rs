//! Publication, from bytes to verbs.

use serde_json::json;
use viworks_signing::keys::SecretKey;

use super::{CheckError, PublishError, Wanted};
use crate::store::write::PartKey;
use crate::testing::{World, agent, component, release};
use viworks_protocol::chunk::Part;

#[tokio::test]
async fn a_newer_release_takes_over_and_older_ones_are_refused() {
    let world = World::new().await;
    let catalog = &world.catalog;
    let mut changes = catalog.changes();
    let bytes = component("newer");
    let signed = release(&world.key, "probe", 3, "ping_hard", &bytes);
    let plugin =
        catalog.publish(bytes.clone().into(), signed.clone(), Wanted::Active, "carol").await.expect("published");
    assert!(plugin.is_active() && plugin.sequence == 3 && plugin.published_by == "carol");
    assert!(catalog.verb("ping").is_none(), "the old release's verb went with it");
    assert!(changes.has_changed().expect("open"), "gateways are told");
    assert!(changes.borrow_and_update().offers(&agent("web-01")).contains(&plugin.digest));
    let again = catalog.publish(bytes.clone().into(), signed, Wanted::Active, "carol").await;
    assert!(matches!(again, Err(PublishError::NotNewer { sequence: 3, .. })), "{again:?}");
    let old = component("old");
    let older = catalog
        .publish(old.clone().into(), release(&world.key, "probe", 2, "ping", &old), Wanted::Active, "carol")
        .await;
    assert!(matches!(older, Err(PublishError::NotNewer { .. })), "{older:?}");
    let key = PartKey { digest: plugin.digest.clone(), part: Part::Component };
    assert_eq!(catalog.part(&key).await.expect("read").as_deref(), Some(bytes.as_slice()));
}

#[tokio::test]
async fn strangers_tampering_and_clashes_are_refused() {
    let world = World::new().await;
    let bytes = component("other");
    let by_stranger = release(&SecretKey::generate(), "other", 1, "pong", &bytes);
    let refused = world.catalog.publish(bytes.clone().into(), by_stranger, Wanted::Active, "mallory").await;
    assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
    let signed = release(&world.key, "other", 1, "pong", &bytes);
    let mut tampered = bytes.clone();
    if let Some(last) = tampered.last_mut() {
        *last ^= 1;
    }
    let refused = world.catalog.publish(tampered.into(), signed, Wanted::Active, "mallory").await;
    assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
    let clash = release(&world.key, "other", 1, "ping", &bytes);
    let refused = world.catalog.publish(bytes.into(), clash, Wanted::Active, "carol").await;
    assert!(matches!(refused, Err(PublishError::VerbTaken { plugin, .. }) if plugin == "probe"));
    assert_eq!(world.catalog.active().len(), 1, "nothing changed");
}

#[tokio::test]
async fn arguments_are_checked_and_canonical() {
    let world = World::new().await;
    let unknown = world.catalog.check("pong", &json!({}));
    assert!(matches!(unknown, Err(CheckError::UnknownVerb(_))));
    let missing = world.catalog.check("ping", &json!({}));
    assert!(matches!(missing, Err(CheckError::Arguments(errors)) if errors[0].path == "/name"));
    let good = world.catalog.check("ping", &json!({ "name": "\u{e9}" })).expect("checked");
    assert_eq!(good.args(), "{\"name\":\"\u{e9}\"}");
    assert!(world.catalog.deactivate("probe", "carol").await.expect("deactivated"));
    assert!(!world.catalog.deactivate("probe", "carol").await.expect("asked"));
    assert!(world.catalog.verb("ping").is_none());
}

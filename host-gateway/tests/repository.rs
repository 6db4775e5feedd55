//! Admission with a release repository: what it names comes in, what it took back goes,
//! also offline, and nothing that was lost brings anything old back.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use common::made::Made;
use common::{Bundle, Gateway, failure, guest, manifest};
use serde_json::json;
use viworks_gateway::trust::Standing;
use viworks_protocol::frame::{PluginState, PluginStatus};
use viworks_protocol::outcome::Outcome;
use viworks_signing::tuf::Action;

fn refused(status: &PluginStatus, code: &str) {
    assert_eq!(status.state, PluginState::Refused, "{status:?}");
    let detail = status.detail.as_deref().unwrap_or_default();
    assert!(detail.starts_with(&format!("{code}: ")), "wanted {code}: {detail}");
}

/// The `n`th release of a guest.
fn release(gateway: &Gateway, name: &str, n: u32) -> (String, Bundle) {
    let manifest = manifest(name)
        .replace("sequence = 1", &format!("sequence = {n}"))
        .replace("version = \"1.0.0\"", &format!("version = \"1.0.{n}\""));
    let mut component = guest(name);
    component.extend_from_slice(&[0, 3, 1, b'n', u8::try_from(n).unwrap()]);
    let bundle = Bundle::sign(component, &manifest, &gateway.release_key);
    (manifest, bundle)
}

impl Made {
    fn release(&mut self, gateway: &Gateway, name: &str, n: u32) -> Bundle {
        let (manifest, bundle) = release(gateway, name, n);
        self.add(&manifest, &bundle.component, &bundle.statements);
        bundle
    }
}

#[tokio::test]
async fn only_what_the_repository_names_comes_in() {
    let mut made = Made::new();
    let gateway = Gateway::trusting("", &made);
    let first = made.release(&gateway, "echo", 1);
    refused(&gateway.install(first.clone()).await, "E_REPOSITORY");
    assert!(gateway.plugins.reconcile(std::slice::from_ref(&first.offer)).await.is_empty(), "not worth its bytes");

    gateway.update(&made).await.unwrap();
    assert_eq!(gateway.plugins.reconcile(std::slice::from_ref(&first.offer)).await.len(), 1);
    let (_, unnamed) = release(&gateway, "echo", 2);
    refused(&gateway.install(unnamed.clone()).await, "E_TUF_TARGET");
    assert!(gateway.plugins.reconcile(&[unnamed.offer]).await.is_empty());
    // The right component with other lines, though a trusted key signed them.
    let mut other = first.clone();
    let changed = release(&gateway, "echo", 1).0.replace("Values there and back", "Other words");
    other.statements = Bundle::sign(first.component.clone(), &changed, &gateway.release_key).statements;
    refused(&gateway.install(other).await, "E_TUF_MIXED");
    assert_eq!(gateway.install(first).await.state, PluginState::Active);
}

#[tokio::test]
async fn expired_metadata_keeps_new_releases_out_and_old_ones_running() {
    let mut made = Made::new();
    let mut gateway = Gateway::trusting("", &made);
    let first = made.release(&gateway, "echo", 1);
    gateway.update(&made).await.unwrap();
    assert_eq!(gateway.install(first).await.state, PluginState::Active);
    let second = made.release(&gateway, "echo", 2);
    gateway.update(&made).await.unwrap();

    let (view, now) = (gateway.repository.view(), SystemTime::now());
    let hours = |n: u64| now + Duration::from_secs(n * 3_600);
    assert_eq!(view.standing(now), Standing::Fresh);
    assert_eq!(view.standing(hours(24)), Standing::Expired);
    assert_eq!(view.standing(hours(26)), Standing::Stale, "after the grace of an hour");
    assert_eq!(view.standing(now - Duration::from_secs(10 * 365 * 86_400)), Standing::Fresh, "never before its floor");
    assert_eq!(view.expects(&second.offer, hours(25)).unwrap_err().code(), "E_TUF_EXPIRED");

    // A backend that only has an old timestamp: refused, and what was known stays.
    made.publish_before(Duration::from_secs(3 * 86_400));
    assert_eq!(gateway.update(&made).await.unwrap_err(), "E_TUF_EXPIRED");
    assert!(gateway.repository.health(now).fault.is_some_and(|fault| fault.starts_with("E_TUF_EXPIRED")));
    gateway.reopen(|_| ());
    gateway.plugins.load().await;
    assert!(gateway.registry.plugin("echo").is_some(), "offline, too");
}

#[tokio::test]
async fn what_was_revoked_ends_drains_or_is_told() {
    let mut made = Made::new();
    let gateway = Gateway::trusting("", &made);
    let bundles = [made.release(&gateway, "nap", 1), made.release(&gateway, "echo", 1)];
    gateway.update(&made).await.unwrap();
    for bundle in &bundles {
        assert_eq!(gateway.install(bundle.clone()).await.state, PluginState::Active);
    }
    let mut running = gateway.executor(2, 0);
    let nap = gateway.warrant("nap", json!({"ms": 20_000}));
    running.executor.submit(nap.clone()).unwrap();
    running.until("it runs", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;

    made.revoke(|r| r.revoke_digest(bundles[1].offer.digest.clone(), Action::Alert, "look at it".into()));
    gateway.update(&made).await.unwrap();
    assert!(gateway.registry.plugin("echo").is_some(), "an alert refuses nothing");
    assert!(gateway.plugins.metrics().revoked.load(Ordering::Relaxed) > 0);

    made.revoke(|r| r.revoke_digest(bundles[0].offer.digest.clone(), Action::Drain, "a hole".into()));
    gateway.update(&made).await.unwrap();
    assert_eq!(running.executor.metrics().running.load(Ordering::Relaxed), 1, "what runs may end");
    let late = running.run(gateway.warrant_with("nap", json!({"ms": 1}), |w| {
        (w.plugin, w.digest) = ("nap".into(), bundles[0].offer.digest.clone());
    }));
    let late = late.await;
    assert_eq!(failure(&late).0, "plugin", "and nothing new begins: {late:?}");

    made.revoke(|r| r.revoke_digest(bundles[0].offer.digest.clone(), Action::Stop, "exploited".into()));
    let statuses = gateway.update(&made).await.unwrap();
    let report = running.report_of(nap.invocation()).await;
    assert_eq!((report.outcome, failure(&report).0), (Outcome::Failed, "revoked"), "{report:?}");
    refused(statuses.iter().find(|s| s.plugin == "nap").unwrap(), "E_REVOKED_DIGEST");
    refused(&gateway.install(bundles[0].clone()).await, "E_REVOKED_DIGEST");
}

#[tokio::test]
async fn revoked_keys_and_sequences_are_honoured_offline_and_survive_a_lost_state() {
    let mut made = Made::new();
    let mut gateway = Gateway::trusting("", &made);
    let old = made.release(&gateway, "nap", 1);
    let new = made.release(&gateway, "nap", 2);
    let echo = made.release(&gateway, "echo", 1);
    gateway.update(&made).await.unwrap();
    for bundle in [&old, &new, &echo] {
        assert_eq!(gateway.install(bundle.clone()).await.state, PluginState::Active);
    }
    assert!(gateway.registry.slot("nap").holds(&old.offer.digest), "the one before it is kept");
    made.revoke(|r| r.raise_floor("nap".into(), 0, 1));
    gateway.update(&made).await.unwrap();
    let slot = gateway.registry.slot("nap");
    assert!(slot.holds(&new.offer.digest) && !slot.holds(&old.offer.digest), "a kept one below the floor goes");

    made.revoke(|r| r.revoke_key(gateway.release_key.public().id()));
    gateway.update(&made).await.unwrap();
    assert!(gateway.registry.plugin("nap").is_none() && gateway.registry.plugin("echo").is_none());
    for lost in ["nothing", "trust/metadata.json", "trust/floors.json", "plugins/floors.json"] {
        let _ = fs::remove_file(gateway.dir.path().join(lost));
        gateway.reopen(|_| ());
        let statuses = gateway.plugins.load().await;
        assert_eq!(statuses.len(), 2, "{lost}: {statuses:?}");
        statuses.iter().for_each(|status| refused(status, "E_REVOKED_KEY"));
    }
    // Cut off in the middle of a write that was no write of ours.
    fs::write(gateway.dir.path().join("trust/metadata.json"), "{\"roots\":[").unwrap();
    gateway.reopen(|_| ());
    gateway.plugins.load().await.iter().for_each(|status| refused(status, "E_REVOKED_KEY"));
}

#[tokio::test]
async fn deleting_one_directory_brings_no_old_release_back() {
    let mut made = Made::new();
    let mut gateway = Gateway::trusting("", &made);
    let old = made.release(&gateway, "echo", 1);
    let new = made.release(&gateway, "echo", 2);
    gateway.update(&made).await.unwrap();
    assert_eq!(gateway.install(new.clone()).await.state, PluginState::Active);
    fs::remove_dir_all(gateway.dir.path().join("plugins")).unwrap();
    gateway.reopen(|_| ());
    assert!(gateway.plugins.load().await.is_empty());
    refused(&gateway.install(old.clone()).await, "E_ROLLBACK");
    fs::remove_dir_all(gateway.dir.path().join("trust")).unwrap();
    gateway.reopen(|_| ());
    refused(&gateway.install(old.clone()).await, "E_REPOSITORY");
    gateway.update(&made).await.unwrap();
    refused(&gateway.install(old).await, "E_ROLLBACK");
    assert_eq!(gateway.install(new).await.state, PluginState::Active);
}

#[tokio::test]
async fn a_repository_that_goes_back_is_refused_and_what_was_known_stays() {
    let mut made = Made::new();
    let gateway = Gateway::trusting("", &made);
    let before = made.copy();
    let first = made.release(&gateway, "echo", 1);
    gateway.update(&made).await.unwrap();
    let known = gateway.repository.health(SystemTime::now());
    let mut update = gateway.repository.update(1, SystemTime::now()).unwrap();
    let refused = loop {
        let name = update.wanted().unwrap().to_owned();
        let file = before.get(&name).map(|bytes| String::from_utf8(bytes.clone()).unwrap());
        if let Err(error) = update.take(&name, file.as_deref()) {
            break error;
        }
    };
    assert_eq!(refused.code(), "E_TUF_ROLLBACK");
    gateway.repository.refused(&update, &refused);
    let after = gateway.repository.health(SystemTime::now());
    assert_eq!((after.timestamp, after.root, after.standing), (known.timestamp, known.root, Standing::Fresh));
    assert!(gateway.repository.update(made.timestamp(), SystemTime::now()).is_none(), "the same again is no news");
    assert_eq!(gateway.install(first).await.state, PluginState::Active);
    let mut update = gateway.repository.update(99, SystemTime::now()).unwrap();
    let name = update.wanted().unwrap().to_owned();
    assert!(!update.take("9.snapshot.json", Some("{}")).unwrap(), "nobody asked for that");
    let huge = "x".repeat(2 << 20);
    assert_eq!(update.take(&name, Some(&huge)).unwrap_err().code(), "E_TUF_SIZE");
}

#[tokio::test]
async fn what_was_active_by_signature_alone_must_be_named_once_a_root_is_trusted() {
    let made = Made::new();
    let mut gateway = Gateway::new("").with(&["echo"]).await;
    gateway.trust(&made);
    gateway.reopen(|_| ());
    refused(&gateway.plugins.load().await[0], "E_REPOSITORY");
    gateway.update(&made).await.unwrap();
    refused(&gateway.plugins.statuses()[0], "E_TUF_TARGET");
}

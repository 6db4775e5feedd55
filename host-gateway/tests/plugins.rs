//! From a bundle to an active plugin, and every way in which it must not get there.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::sync::atomic::Ordering;

use common::{Bundle, Gateway, guest, manifest, result};
use serde_json::{Value, json};
use viworks_protocol::frame::{PluginState, PluginStatus};
use viworks_protocol::outcome::Outcome;
use viworks_signing::keys::SecretKey;
use viworks_signing::manifest::Manifest;
use viworks_signing::release::{Release, Verb};

fn refused(status: &PluginStatus, code: &str) {
    assert_eq!(status.state, PluginState::Refused, "{status:?}");
    let detail = status.detail.as_deref().unwrap_or_default();
    assert!(detail.starts_with(&format!("{code}: ")), "wanted {code}: {detail}");
}

fn release(gateway: &Gateway, sequence: u32, change: impl FnOnce(&mut Vec<u8>)) -> Bundle {
    let manifest = manifest("echo").replace("sequence = 1", &format!("sequence = {sequence}"));
    let mut component = guest("echo");
    change(&mut component);
    Bundle::sign(component, &manifest, &gateway.release_key)
}

/// A custom section, so that other bytes do the same.
fn another(component: &mut Vec<u8>) {
    component.extend_from_slice(b"\0\x03\x01xy");
}

#[tokio::test]
async fn what_is_active_survives_a_restart_without_compiling() {
    let mut gateway = Gateway::new("[state]").with(&["echo", "nap"]).await;
    let metrics = gateway.plugins.metrics().clone();
    assert_eq!(metrics.compiled.load(Ordering::Relaxed), 2);
    gateway.reopen(|_| ());
    assert!(gateway.registry.resolve("ping").is_none());
    let statuses = gateway.plugins.load().await;
    assert_eq!(statuses.iter().map(|s| s.plugin.as_str()).collect::<Vec<_>>(), ["echo", "nap"]);
    let metrics = gateway.plugins.metrics();
    let counts = (metrics.compiled.load(Ordering::Relaxed), metrics.cache_hits.load(Ordering::Relaxed));
    assert_eq!(counts, (0, 2));
    let report = gateway.executor(1, 0).run(gateway.warrant("ping", json!({"text": "x"}))).await;
    assert_eq!(report.outcome, Outcome::Succeeded);

    // A key that is gone, and files that are: refused, and the gateway is there.
    std::fs::remove_file(
        gateway.dir.path().join("plugins").join(format!(
            "{}.wasm",
            gateway.registry.plugin("nap").map(|p| p.digest().to_owned()).unwrap_or_default()
        )),
    )
    .unwrap();
    gateway.reopen(|_| ());
    let statuses = gateway.plugins.load().await;
    refused(&statuses[1], "E_STORE");
    gateway.release_key = SecretKey::generate();
    gateway.reopen(|_| ());
    refused(&gateway.plugins.load().await[0], "E_SIGNATURE");
}

#[tokio::test]
async fn what_another_process_compiled_is_loaded_as_our_own() {
    let mut gateway = Gateway::new("");
    gateway.plugins.compile_by(env!("CARGO_BIN_EXE_viworks-gateway"));
    let status = gateway.install(gateway.bundle("echo")).await;
    assert_eq!(status.state, PluginState::Active, "{status:?}");
    gateway.reopen(|_| ());
    gateway.plugins.load().await;
    let metrics = gateway.plugins.metrics();
    let counts = (metrics.compiled.load(Ordering::Relaxed), metrics.cache_hits.load(Ordering::Relaxed));
    assert_eq!(counts, (0, 1), "its engine is the same");
    let report = gateway.executor(1, 0).run(gateway.warrant("ping", json!({"text": "x"}))).await;
    assert_eq!(report.outcome, Outcome::Succeeded);

    // And a compiler that fails is a refusal, not the end.
    let broken = Gateway::new("");
    broken.plugins.compile_by("/bin/false");
    refused(&broken.install(broken.bundle("echo")).await, "E_COMPILE");
}

#[tokio::test]
async fn compiled_code_that_was_touched_is_compiled_again() {
    let mut gateway = Gateway::new("").with(&["echo"]).await;
    let aot = gateway.dir.path().join("aot");
    for entry in std::fs::read_dir(&aot).unwrap().flatten() {
        if entry.path().extension().is_some_and(|e| e == "cwasm") {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(entry.path(), bytes).unwrap();
        }
    }
    gateway.reopen(|_| ());
    gateway.plugins.load().await;
    assert_eq!(gateway.plugins.metrics().compiled.load(Ordering::Relaxed), 1);
    let report = gateway.executor(1, 0).run(gateway.warrant("ping", json!({"text": "x"}))).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn tampered_foreign_and_unsigned_bundles_are_refused() {
    let gateway = Gateway::new("");
    let good = gateway.bundle("echo");
    for at in [0, 4, 9, 1_000, good.component.len() / 2, good.component.len() - 1] {
        let mut bundle = good.clone();
        bundle.component[at] ^= 1;
        refused(&gateway.install(bundle).await, "E_DIGEST");
    }
    let mut bundle = good.clone();
    another(&mut bundle.component);
    refused(&gateway.install(bundle).await, "E_DIGEST");
    let foreign = Bundle::sign(guest("echo"), &manifest("echo"), &SecretKey::generate());
    refused(&gateway.install(foreign).await, "E_SIGNATURE");
    let mut bundle = good.clone();
    bundle.statements.clear();
    refused(&gateway.install(bundle).await, "E_NO_RELEASE");
    let mut bundle = good.clone();
    bundle.offer.digest = "ab".repeat(32);
    refused(&gateway.install(bundle).await, "E_DIGEST");
    let mut bundle = good.clone();
    bundle.offer.plugin = "nap".into();
    assert_eq!(gateway.install(bundle).await.state, PluginState::Refused);
    assert!(gateway.registry.resolve("ping").is_none());
    assert_eq!(gateway.install(good).await.state, PluginState::Active, "nothing of it stays behind");
}

#[tokio::test]
async fn an_older_release_does_not_come_back_not_even_after_a_restart() {
    let mut gateway = Gateway::new("");
    let (old, new) = (release(&gateway, 1, |_| ()), release(&gateway, 2, another));
    assert_eq!(gateway.install(old.clone()).await.state, PluginState::Active);
    assert_eq!(gateway.install(new.clone()).await.state, PluginState::Active);
    refused(&gateway.install(old.clone()).await, "E_ROLLBACK");
    let twin = release(&gateway, 2, |c| c.extend_from_slice(b"\0\x03\x01zz"));
    refused(&gateway.install(twin).await, "E_ROLLBACK");
    assert_eq!(gateway.registry.plugin("echo").map(|p| p.digest().to_owned()), Some(new.offer.digest.clone()));

    gateway.reopen(|_| ());
    gateway.plugins.load().await;
    refused(&gateway.install(old.clone()).await, "E_ROLLBACK");
    let fetch = gateway.plugins.reconcile(&[]).await;
    assert!(fetch.is_empty() && gateway.registry.plugin("echo").is_none(), "what is not offered is retired");
    refused(&gateway.install(old).await, "E_ROLLBACK");
    assert_eq!(gateway.install(new).await.state, PluginState::Active, "the newest may return");
}

#[tokio::test]
async fn only_what_is_neither_active_nor_refused_is_fetched() {
    let gateway = Gateway::new("").with(&["echo"]).await;
    let (echo, nap, files) = (gateway.bundle("echo"), gateway.bundle("nap"), gateway.bundle("files"));
    refused(&gateway.install(files.clone()).await, "E_IMPORT");
    let offers = [echo.offer, nap.offer.clone(), files.offer];
    assert_eq!(gateway.plugins.reconcile(&offers).await, [nap.offer]);
    let states: Vec<_> = gateway.plugins.statuses().into_iter().map(|s| (s.plugin, s.state)).collect();
    assert_eq!(states, [("echo".into(), PluginState::Active), ("files".into(), PluginState::Refused)]);
}

#[tokio::test]
async fn what_runs_finishes_on_the_plugin_that_it_began_with() {
    let gateway = Gateway::new("").with(&["nap"]).await;
    let mut running = gateway.executor(2, 2);
    let slow = gateway.warrant("nap", json!({"ms": 1_500}));
    running.executor.submit(slow.clone()).unwrap();
    running.until("it runs", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;
    let mut component = guest("nap");
    another(&mut component);
    let manifest = manifest("nap").replace("sequence = 1", "sequence = 2").replace("1.0.0", "1.1.0");
    let next = gateway.install(Bundle::sign(component, &manifest, &gateway.release_key)).await;
    assert_eq!(next.state, PluginState::Active, "{next:?}");
    // The new one answers already, and the old warrant's repetition is still the old run.
    let quick = running.run(gateway.warrant("nap", json!({"ms": 1}))).await;
    assert_eq!(quick.outcome, Outcome::Succeeded, "{quick:?}");
    let report = running.report_of(slow.invocation()).await;
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    assert!(result(&report).as_u64().is_some_and(|ms| ms >= 1_500));
}

#[tokio::test]
async fn a_verb_belongs_to_one_plugin() {
    let gateway = Gateway::new("").with(&["echo"]).await;
    let manifest = manifest("echo").replace("id = \"echo\"", "id = \"copy\"");
    let copy = Bundle::sign(guest("echo"), &manifest, &gateway.release_key);
    refused(&gateway.install(copy).await, "E_VERB_TAKEN");
    let next = release(&gateway, 1, |_| ());
    assert_eq!(gateway.install(next).await.state, PluginState::Active, "its own verbs are no obstacle");
}

fn args<'r>(release: &'r mut Release, verb: &str) -> &'r mut Value {
    release.verbs.get_mut(verb).map(|verb| &mut verb.args).unwrap()
}

#[tokio::test]
async fn what_was_signed_must_be_what_is_exported() {
    let gateway = Gateway::new("");
    let manifest = Manifest::parse(&manifest("echo")).unwrap();
    let component = guest("echo");
    let changes: [fn(&mut Release); 5] = [
        |r| drop(r.verbs.remove("ping")),
        |r| {
            let ping = r.verbs["ping"].clone();
            r.verbs.insert("pong".into(), Verb { function: "pong".into(), ..ping });
        },
        |r| args(r, "ping")["properties"]["text"]["type"] = json!("integer"),
        |r| args(r, "echo_args")["required"] = json!(["first_name"]),
        |r| args(r, "ping")["properties"] = json!({"word": {"type": "string"}}),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut statement = viworks_signing::build_release(&component, &manifest).unwrap();
        change(&mut statement.predicate);
        let statements = viworks_signing::sign_release(&statement, &[&gateway.release_key]).unwrap();
        let mut bundle = gateway.bundle("echo");
        bundle.statements = statements;
        let status = gateway.install(bundle).await;
        assert!(status.detail.as_deref().is_some_and(|d| d.starts_with("E_VERBS: ")), "{i}: {status:?}");
    }
}

#[tokio::test]
async fn a_release_for_a_later_host_is_refused() {
    let gateway = Gateway::new("");
    let manifest = manifest("echo").replace("host_api = \"1.0\"", "host_api = \"1.7\"");
    refused(&gateway.install(Bundle::sign(guest("echo"), &manifest, &gateway.release_key)).await, "E_HOST_API");
}

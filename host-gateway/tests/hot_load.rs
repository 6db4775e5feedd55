//! Plugins swapped while they are used: nothing is dropped, N−1 serves who names it, a step
//! that fails changes nothing, and another policy holds from the next invocation on.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Bundle, Gateway, failure, guest, manifest};
use serde_json::json;
use viworks_gateway::config::Policy;
use viworks_protocol::approval::Approval;
use viworks_protocol::frame::{PluginState, PluginStatus};
use viworks_protocol::outcome::Outcome;
use viworks_signing::grant::Patterns;
use viworks_signing::keys::SecretKey;

fn refused(status: &PluginStatus, start: &str) {
    assert_eq!(status.state, PluginState::Refused, "{status:?}");
    let detail = status.detail.as_deref().unwrap_or_default();
    assert!(detail.starts_with(&format!("{start}: ")), "wanted {start}: {detail}");
}

/// The `n`th release of a guest: other bytes, a higher sequence.
fn release(gateway: &Gateway, name: &str, n: u8) -> Bundle {
    let manifest = manifest(name)
        .replace("sequence = 1", &format!("sequence = {n}"))
        .replace("version = \"1.0.0\"", &format!("version = \"1.0.{n}\""));
    let mut component = guest(name);
    component.extend_from_slice(&[0, 3, 1, b'n', n]);
    Bundle::sign(component, &manifest, &gateway.release_key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_swaps_under_steady_load_drop_nothing() {
    let gateway = Arc::new(Gateway::new(""));
    assert_eq!(gateway.install(release(&gateway, "echo", 1)).await.state, PluginState::Active);
    let mut running = gateway.executor(4, 64);
    let done = Arc::new(AtomicBool::new(false));
    let swaps = tokio::spawn({
        let (gateway, done) = (gateway.clone(), done.clone());
        async move {
            let mut refused = None;
            for n in 2..=21 {
                let status = gateway.install(release(&gateway, "echo", n)).await;
                refused = refused.or(Some(status).filter(|status| status.state != PluginState::Active));
            }
            done.store(true, Ordering::Release);
            refused
        }
    });
    let mut ran = 0_u32;
    while !done.load(Ordering::Acquire) {
        // Named before the swap, run after it: N−1 has to serve.
        let warrants = [(); 4].map(|()| gateway.warrant("ping", json!({"text": "steady"})));
        for warrant in warrants {
            let report = running.run(warrant).await;
            assert_eq!(report.outcome, Outcome::Succeeded, "after {ran}: {report:?}");
            ran += 1;
        }
    }
    assert_eq!(swaps.await.unwrap(), None);
    assert!(ran >= 20, "{ran} invocations are no load");
    assert_eq!(gateway.registry.plugin("echo").map(|p| p.release().sequence), Some(21));
}

#[tokio::test]
async fn the_release_before_serves_who_names_it_and_comes_back_when_it_is_offered() {
    let mut gateway = Gateway::new("");
    let [one, two, three] = [1, 2, 3].map(|n| release(&gateway, "echo", n));
    for bundle in [&one, &two, &three] {
        assert_eq!(gateway.install(bundle.clone()).await.state, PluginState::Active);
    }
    let mut running = gateway.executor(1, 0);
    for (digest, also, outcome) in [
        (&three, vec![], Outcome::Succeeded),
        (&two, vec![], Outcome::Succeeded),
        (&one, vec![], Outcome::Failed),
        (&one, vec![two.offer.digest.clone()], Outcome::Succeeded),
    ] {
        let warrant = gateway.warrant_with("ping", json!({"text": "x"}), |w| {
            (w.digest, w.also) = (digest.offer.digest.clone(), also.clone());
        });
        let report = running.run(warrant).await;
        assert_eq!(report.outcome, outcome, "{report:?}");
    }

    let compiled = gateway.plugins.metrics().compiled.load(Ordering::Relaxed);
    assert!(gateway.plugins.reconcile(std::slice::from_ref(&two.offer)).await.is_empty(), "nothing is fetched");
    let active = |gateway: &Gateway| gateway.registry.plugin("echo").map(|p| p.digest().to_owned());
    assert_eq!(active(&gateway), Some(two.offer.digest.clone()));
    assert_eq!(gateway.plugins.metrics().compiled.load(Ordering::Relaxed), compiled);
    gateway.reopen(|_| ());
    gateway.plugins.load().await;
    assert_eq!(active(&gateway), Some(two.offer.digest.clone()), "durably");
    assert!(gateway.registry.slot("echo").holds(&three.offer.digest));
    refused(&gateway.install(one).await, "E_ROLLBACK: admit");
    gateway.plugins.reconcile(std::slice::from_ref(&three.offer)).await;
    assert_eq!(active(&gateway), Some(three.offer.digest), "and forward again");
}

#[tokio::test]
async fn a_step_that_fails_leaves_what_runs_and_says_which() {
    let gateway = Gateway::new("").with(&["echo"]).await;
    let running = gateway.registry.plugin("echo").map(|p| p.digest().to_owned());
    let foreign = Bundle::sign(release(&gateway, "echo", 2).component, &manifest("echo"), &SecretKey::generate());
    refused(&gateway.install(foreign).await, "E_SIGNATURE: admit");
    let small = release(&gateway, "echo", 3);
    let text = manifest("echo").replace("sequence = 1", "sequence = 3").replace("memory_mib = 16", "memory_mib = 1");
    let small = Bundle::sign(small.component, &text, &gateway.release_key);
    refused(&gateway.install(small).await, "E_SELF_TEST: self-test");
    let broken = Gateway::new("");
    broken.plugins.compile_by("/bin/false");
    refused(&broken.install(broken.bundle("echo")).await, "E_COMPILE: compile");
    refused(&gateway.install(gateway.bundle("files")).await, "E_IMPORT: link");

    assert_eq!(gateway.registry.plugin("echo").map(|p| p.digest().to_owned()), running);
    let statuses = gateway.plugins.statuses();
    let of_echo: Vec<_> = statuses.iter().filter(|s| s.plugin == "echo").map(|s| s.state).collect();
    assert_eq!(of_echo, [PluginState::Active, PluginState::Refused], "both are told");
    let report = gateway.executor(1, 0).run(gateway.warrant("ping", json!({"text": "x"}))).await;
    assert_eq!(report.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn another_policy_holds_for_the_next_invocation() {
    let mut gateway = Gateway::new("[state]").with(&["hostile", "echo"]).await;
    let mut running = gateway.executor(1, 0);
    let before = running.run(gateway.warrant("giant_output", json!({"kib": 100}))).await;
    assert_eq!(before.outcome, Outcome::Succeeded, "{before:?}");
    gateway.go_by(|policy| policy.limits.output_kib = 10).await;
    let after = running.run(gateway.warrant("giant_output", json!({"kib": 100}))).await;
    assert_eq!(failure(&after).0, "limit", "{after:?}");

    // Without the capability that it imports it can't stay, and comes back with it.
    let hostile = gateway.registry.plugin("hostile").map(|p| p.digest().to_owned());
    let statuses = gateway.go_by(|policy| policy.scopes.state = None).await;
    refused(statuses.iter().find(|s| s.plugin == "hostile").unwrap(), "E_IMPORT: link");
    assert!(gateway.registry.plugin("hostile").is_none() && gateway.registry.plugin("echo").is_some());
    gateway.go_by(|policy| policy.scopes.state = Some(Default::default())).await;
    assert_eq!(gateway.registry.plugin("hostile").map(|p| p.digest().to_owned()), hostile);
    assert!(gateway.plugins.statuses().iter().all(|s| s.state == PluginState::Active));

    let statuses = gateway.go_by(|policy| policy.plugins = Patterns::parse(["host*"]).unwrap()).await;
    refused(statuses.iter().find(|s| s.plugin == "echo").unwrap(), "E_POLICY_PLUGIN: admit");
    assert_eq!(gateway.plugins.metrics().compiled.load(Ordering::Relaxed), 2, "nothing was compiled again");
}

#[tokio::test]
async fn a_policy_that_changes_during_a_hot_load_counts() {
    let gateway = Arc::new(tokio::sync::Mutex::new(Gateway::new("")));
    let bundle = gateway.lock().await.bundle("echo");
    let plugins = gateway.lock().await.plugins.clone();
    let load = tokio::spawn(async move { plugins.install(bundle.offer, bundle.component, bundle.statements).await });
    gateway.lock().await.go_by(|policy| policy.plugins = Patterns::default()).await;
    let status = load.await.unwrap();
    let registry = gateway.lock().await.registry.clone();
    assert!(registry.plugin("echo").is_none(), "whichever came first: {status:?}");
}

#[tokio::test]
async fn marked_verbs_need_approvals_over_this_very_order() {
    let [operator, other] = [(); 2].map(|()| SecretKey::generate());
    let mut gateway = Gateway::new("").with(&["echo"]).await;
    let approvals = |policy: &mut Policy| {
        policy.approvals.verbs.insert("ping".into(), 1);
        policy.approvals.keys = vec![operator.public()];
    };
    gateway.go_by(approvals).await;
    let mut running = gateway.executor(1, 0);
    let denied = running.run(gateway.warrant("ping", json!({"text": "x"}))).await;
    assert_eq!((denied.outcome, failure(&denied).0), (Outcome::Denied, "approval"), "{denied:?}");
    let quiet = running.run(gateway.warrant("quiet", json!({}))).await;
    assert_eq!(quiet.outcome, Outcome::Succeeded, "another verb needs none");
    for (key, outcome) in [(&other, Outcome::Denied), (&operator, Outcome::Succeeded)] {
        let warrant = gateway.warrant_with("ping", json!({"text": "x"}), |w| {
            w.approvals = vec![Approval::of(w).sign(key).unwrap()];
        });
        let report = running.run(warrant).await;
        assert_eq!(report.outcome, outcome, "{report:?}");
    }
}

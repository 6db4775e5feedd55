//! A release that is planned beside the one that serves: it is compared, it never changes the
//! host, and it is never in the way.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::sync::Arc;

use common::{Bundle, Gateway, Running, failure, guest, manifest};
use serde_json::{Value, json};
use viworks_gateway::effects::digest;
use viworks_protocol::frame::PluginState;
use viworks_protocol::outcome::{EffectReport, EffectState, Outcome, Report};
use viworks_protocol::shadow::{Departure, Shadow, Verdict};
use viworks_protocol::warrant::Mode;

const SCOPES: &str = "[accounts]\ngroups = [\"docker\"]\nuids = { min = 20000, max = 20999 }\n\
                      shells = [\"/bin/bash\"]\n[state]\n";

async fn gateway() -> (Gateway, Running) {
    let gateway = Gateway::with_host(SCOPES, |dir, config| config.accounts.root = Some(dir.join("root")));
    let gateway = gateway.with_plugins(&["accounts"]).await;
    let running = gateway.executor(2, 8);
    (gateway, running)
}

fn shadow(mut bundle: Bundle) -> Bundle {
    bundle.offer.shadow = true;
    bundle
}

/// The next release of accounts that does something else.
fn apart(gateway: &Gateway) -> Bundle {
    shadow(Bundle::sign(guest("accounts-apart"), &manifest("accounts-apart"), &gateway.release_key))
}

/// The next release of accounts that does the same: other bytes, the same code.
fn alike(gateway: &Gateway) -> Bundle {
    let mut component = gateway.plugin("accounts").component;
    // A custom section of a name of four letters and three bytes.
    component.extend([0, 8, 4]);
    component.extend(b"next\x01\x02\x03");
    shadow(Bundle::sign(component, &manifest("accounts-apart"), &gateway.release_key))
}

async fn beside(gateway: &Gateway, bundle: Bundle) -> String {
    let digest = bundle.offer.digest.clone();
    let status = gateway.install(bundle).await;
    assert!(status.shadow && status.state == PluginState::Active && status.digest == digest, "{status:?}");
    digest
}

async fn run(gateway: &Gateway, running: &mut Running, verb: &str, args: Value) -> Arc<Report> {
    running.run(gateway.warrant(verb, args)).await
}

fn told(report: &Report) -> &Shadow {
    report.shadow.as_deref().unwrap_or_else(|| panic!("no shadow in {report:?}"))
}

fn file(gateway: &Gateway, name: &str) -> String {
    std::fs::read_to_string(gateway.dir.path().join("root/etc").join(name)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_effect_is_told_and_never_happens() {
    let (gateway, mut running) = gateway().await;
    let serving = gateway.registry.plugin("accounts").unwrap().digest().to_owned();
    let planned = beside(&gateway, apart(&gateway)).await;
    for name in ["ann", "ben", "cleo"] {
        let report = run(&gateway, &mut running, "add_user", json!({"name": name, "groups": ["docker"]})).await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
        assert_eq!(report.effects[0].state, EffectState::Applied);
        let told = told(&report);
        assert_eq!((told.verdict, &told.digest), (Verdict::Departed, &planned), "{told:?}");
        let line = Departure { effect: 1, field: "groups".into(), active: Some("docker".into()), shadow: None };
        assert_eq!(told.departures, [line]);
        let planned = report.effects.iter().cloned().map(|e| EffectReport { state: EffectState::Planned, ..e });
        let as_planned: Vec<EffectReport> = planned.collect();
        assert_eq!(told.active.as_deref(), Some(digest(&as_planned).as_str()), "anybody can compute it again");
        assert_ne!(told.plan, told.active);
    }
    // What the shadow would have done differently is nowhere.
    assert!(file(&gateway, "group").contains("docker:x:900:ann,ben,cleo"), "{}", file(&gateway, "group"));
    assert_eq!(file(&gateway, "passwd").matches(":/home/").count(), 3);
    // It serves nobody, whatever a warrant says.
    assert_eq!(gateway.registry.plugin("accounts").unwrap().digest(), serving);
    assert!(!gateway.registry.slot("accounts").holds(&planned));
    let named = gateway.warrant_with("add_user", json!({"name": "dora"}), |w| w.digest.clone_from(&planned));
    let refused = running.run(named).await;
    assert_eq!(failure(&refused).0, "plugin", "{refused:?}");
    // Nor may an apply be bound to what it planned.
    let args = json!({"name": "dora", "groups": ["docker"]});
    let report = run(&gateway, &mut running, "add_user", args).await;
    let plan = told(&report).plan.clone().unwrap();
    let bound =
        gateway.warrant_with("add_user", json!({"name": "dora", "groups": ["docker"]}), |w| w.plans = vec![plan]);
    let refused = running.run(bound).await;
    assert_eq!(failure(&refused).0, "plan-unknown", "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_effects_are_equal_in_every_verb_and_end() {
    let (gateway, mut running) = gateway().await;
    beside(&gateway, alike(&gateway)).await;
    for (verb, args, outcome) in [
        ("add_user", json!({"name": "ann", "groups": ["docker"]}), Outcome::Succeeded),
        ("add_user", json!({"name": "ann"}), Outcome::Failed),
        ("lock_user", json!({"name": "ann"}), Outcome::Succeeded),
        ("list_users", json!({}), Outcome::Succeeded),
        ("delete_user", json!({"name": "ann"}), Outcome::Succeeded),
        ("delete_user", json!({"name": "ann"}), Outcome::Failed),
        ("add_user", json!({"name": "bob", "groups": ["wheel"]}), Outcome::Denied),
    ] {
        let report = run(&gateway, &mut running, verb, args.clone()).await;
        assert_eq!(report.outcome, outcome, "{verb} {args}: {report:?}");
        let told = told(&report);
        let wanted = told.verdict == Verdict::Equal && told.plan == told.active;
        // A read is never held up for it.
        let late = verb == "list_users" && told.code.as_deref() == Some("late");
        assert!(wanted || late, "{verb} {args}: {told:?}");
    }
    let plan = gateway.warrant_with("list_users", json!({}), |w| w.mode = Mode::Plan);
    assert!(running.run(plan).await.shadow.is_none(), "a plan has no shadow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_traps_or_never_ends_fails_alone() {
    let (gateway, mut running) = gateway().await;
    run(&gateway, &mut running, "add_user", json!({"name": "ann"})).await;
    beside(&gateway, apart(&gateway)).await;
    let locked = run(&gateway, &mut running, "lock_user", json!({"name": "ann"})).await;
    assert_eq!(locked.outcome, Outcome::Succeeded, "{locked:?}");
    assert_eq!((told(&locked).verdict, told(&locked).code.as_deref()), (Verdict::Failed, Some("trap")));
    let began = std::time::Instant::now();
    let deleted = run(&gateway, &mut running, "delete_user", json!({"name": "ann"})).await;
    assert_eq!(deleted.outcome, Outcome::Succeeded, "{deleted:?}");
    let told = told(&deleted);
    let code = told.code.as_deref().unwrap_or_default();
    assert!(told.verdict != Verdict::Equal && ["timeout", "limit", "late"].contains(&code), "{told:?}");
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "it is not waited for");
    assert!(!file(&gateway, "passwd").contains("ann:"));
    let counted: u64 =
        running.executor.metrics().shadows.iter().map(|c| c.load(std::sync::atomic::Ordering::Relaxed)).sum();
    assert_eq!(counted, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_skipped_and_all_applied_once() {
    let (gateway, mut running) = gateway().await;
    beside(&gateway, apart(&gateway)).await;
    let names: Vec<String> = (0..8).map(|n| format!("user{n}")).collect();
    let args = |name: &String| json!({"name": name, "groups": ["docker"]});
    let warrants: Vec<_> = names.iter().map(|name| gateway.warrant("add_user", args(name))).collect();
    let ids: Vec<_> = warrants.iter().map(|warrant| warrant.invocation().clone()).collect();
    for warrant in warrants {
        running.executor.submit(warrant).unwrap();
    }
    let mut verdicts = Vec::new();
    let mut seen = std::collections::HashMap::new();
    while seen.len() < ids.len() {
        if let viworks_gateway::executor::Event::Report { invocation, report } = running.event().await {
            seen.insert(invocation, report);
        }
    }
    for id in &ids {
        let report = &seen[id];
        assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
        verdicts.push((told(report).verdict, told(report).code.clone()));
    }
    let skipped = verdicts.iter().filter(|(verdict, _)| *verdict == Verdict::Skipped).count();
    assert!(skipped > 0, "while others wait nobody plans beside: {verdicts:?}");
    assert!(!verdicts.iter().any(|(verdict, _)| matches!(verdict, Verdict::Equal | Verdict::Failed)), "{verdicts:?}");
    assert_eq!(file(&gateway, "passwd").matches(":/home/user").count(), 8);
    assert_eq!(file(&gateway, "group").matches("user").count(), 8 + 8 + 1, "{}", file(&gateway, "group"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_judged_like_any_other_and_gone_when_it_is_not_offered() {
    let (mut gateway, mut running) = gateway().await;
    let serving = gateway.plugin("accounts");
    let mut forged = apart(&gateway);
    forged.statements = serving.statements.clone();
    let refused = gateway.install(forged).await;
    assert!(refused.shadow && refused.state == PluginState::Refused, "{refused:?}");
    assert!(gateway.registry.shadow("accounts").is_none());

    let bundle = alike(&gateway);
    let (offers, digest) = (vec![serving.offer.clone(), bundle.offer.clone()], bundle.offer.digest.clone());
    gateway.plugins.review().await;
    let wanted = gateway.plugins.reconcile(&offers).await;
    assert_eq!(wanted, std::slice::from_ref(&bundle.offer), "it is fetched like any other");
    beside(&gateway, bundle.clone()).await;
    assert!(gateway.plugins.reconcile(&offers).await.is_empty());
    let statuses = gateway.plugins.statuses();
    assert_eq!(statuses.iter().map(|s| s.shadow).collect::<Vec<_>>(), [false, true], "{statuses:?}");

    // A narrower policy holds for it at once: it is judged anew.
    gateway.go_by(|_| ()).await;
    assert!(gateway.registry.shadow("accounts").is_none());
    assert_eq!(gateway.plugins.reconcile(&offers).await, std::slice::from_ref(&bundle.offer));
    beside(&gateway, bundle.clone()).await;
    assert!(gateway.plugins.reconcile(&offers[..1]).await.is_empty());
    assert!(gateway.registry.shadow("accounts").is_none(), "not offered any more");

    // Promoted, it serves, and is nobody's shadow.
    beside(&gateway, bundle.clone()).await;
    let mut promoted = bundle;
    promoted.offer.shadow = false;
    assert_eq!(gateway.plugins.reconcile(std::slice::from_ref(&promoted.offer)).await, [promoted.offer.clone()]);
    assert_eq!(gateway.install(promoted).await.state, PluginState::Active);
    assert_eq!(gateway.registry.plugin("accounts").map(|p| p.digest().to_owned()), Some(digest));
    assert!(gateway.registry.shadow("accounts").is_none());
    let report = run(&gateway, &mut running, "add_user", json!({"name": "ann"})).await;
    assert!(report.outcome == Outcome::Succeeded && report.shadow.is_none(), "{report:?}");
}

//! The executor's promises: bounded, once, ended on order, and never without an answer.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Gateway, failure, result};
use serde_json::json;
use viworks_gateway::executor::{Event, Refused};
use viworks_protocol::outcome::{EffectState, Outcome};

#[tokio::test]
async fn what_the_queue_does_not_hold_is_busy_and_the_rest_is_served() {
    let gateway = Gateway::new("").with(&["nap"]).await;
    let mut running = gateway.executor(1, 1);
    let warrants: Vec<_> = (0..3).map(|_| gateway.warrant("nap", json!({"ms": 300}))).collect();
    running.executor.submit(warrants[0].clone()).unwrap();
    running.until("one runs", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;
    running.executor.submit(warrants[1].clone()).unwrap();
    running.until("one waits", |e| e.metrics().queued.load(Ordering::Relaxed) == 1).await;
    running.executor.submit(warrants[2].clone()).unwrap();

    let busy = running.report_of(warrants[2].invocation()).await;
    assert_eq!((busy.outcome, failure(&busy).0), (Outcome::Failed, "busy"), "{busy:?}");
    for warrant in &warrants[..2] {
        let report = running.report_of(warrant.invocation()).await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    }
    let metrics = running.executor.metrics();
    assert_eq!((metrics.busy.load(Ordering::Relaxed), metrics.submitted.load(Ordering::Relaxed)), (1, 3));
    running.until("nothing runs", |e| e.metrics().running.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn far_more_than_announced_is_not_taken_at_all() {
    let gateway = Gateway::new("").with(&["nap"]).await;
    let running = gateway.executor(1, 0);
    let refused = (0..200).find_map(|_| running.executor.submit(gateway.warrant("nap", json!({"ms": 1000}))).err());
    assert_eq!(refused, Some(Refused::Overflow));
}

#[tokio::test]
async fn a_read_that_is_delivered_again_is_answered_and_not_run() {
    let gateway = Gateway::new("").with(&["echo"]).await;
    let mut running = gateway.executor(2, 2);
    let warrant = gateway.warrant("ping", json!({"text": "a b"}));
    running.executor.submit(warrant.clone()).unwrap();
    let first = running.report_of(warrant.invocation()).await;
    running.until("it ended", |e| e.submit(warrant.clone()).is_ok()).await;
    let second = running.report_of(warrant.invocation()).await;
    assert_eq!((first.started_ms, first.cost), (second.started_ms, second.cost), "the same report");

    let kept = running.executor.unacknowledged();
    assert_eq!(kept.iter().map(|(id, _)| id).collect::<Vec<_>>(), [warrant.invocation()]);
    assert!(running.executor.acknowledge(warrant.invocation()));
    assert!(!running.executor.acknowledge(warrant.invocation()) && running.executor.unacknowledged().is_empty());
}

#[tokio::test]
async fn a_slow_read_is_told_while_it_runs() {
    let gateway = Gateway::new("").with(&["nap"]).await;
    let mut running = gateway.executor(2, 2);
    let warrant = gateway.warrant("nap", json!({"ms": 500}));
    running.executor.submit(warrant.clone()).unwrap();
    assert!(matches!(running.event().await, Event::Accepted { .. }));
    running.report_of(warrant.invocation()).await;
}

#[tokio::test]
async fn a_change_happens_once_however_often_it_is_delivered() {
    let gateway = Gateway::new("[state]").with(&["hostile"]).await;
    let warrant = gateway.warrant("effect_flood", json!({"effects": 3}));
    let first = gateway.executor(1, 1).run(warrant.clone()).await;
    assert_eq!((first.outcome, result(&first), first.effects.len()), (Outcome::Succeeded, json!(3), 3), "{first:?}");
    // Another executor on the same journal: as after a restart.
    let mut restarted = gateway.executor(1, 1);
    let again = restarted.run(warrant).await;
    assert_eq!((again.started_ms, again.effects.len()), (first.started_ms, 3));
    assert_eq!(restarted.executor.metrics().duplicates.load(Ordering::Relaxed), 1);
    assert!(restarted.executor.unacknowledged().is_empty(), "it is the journal's");
}

#[tokio::test]
async fn what_is_cancelled_ends_whether_it_waits_sleeps_or_spins() {
    let gateway = Gateway::new("[state]").with(&["nap", "hostile"]).await;
    let mut running = gateway.executor(1, 4);
    let sleeps = gateway.warrant("nap", json!({"ms": 60_000}));
    let waits = gateway.warrant("nap", json!({"ms": 60_000}));
    running.executor.submit(sleeps.clone()).unwrap();
    running.until("one runs", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;
    running.executor.submit(waits.clone()).unwrap();
    running.until("one waits", |e| e.metrics().queued.load(Ordering::Relaxed) == 1).await;
    for warrant in [&waits, &sleeps] {
        assert!(running.executor.cancel(warrant.invocation()));
        let report = running.report_of(warrant.invocation()).await;
        assert_eq!((report.outcome, failure(&report).0), (Outcome::Cancelled, "cancelled"), "{report:?}");
        assert_eq!(report.started_ms == 0, warrant.invocation() == waits.invocation(), "only one began");
    }
    let spins = gateway.warrant("endless_loop", json!({}));
    running.executor.submit(spins.clone()).unwrap();
    running.until("it spins", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;
    assert!(running.executor.cancel(spins.invocation()));
    let report = running.report_of(spins.invocation()).await;
    assert_eq!(report.outcome, Outcome::Cancelled, "{report:?}");
    running.until("it is forgotten", |e| !e.cancel(spins.invocation())).await;
}

#[tokio::test]
async fn effects_that_happened_before_a_cancel_are_reported() {
    let gateway = Gateway::new("[state]").with(&["hostile"]).await;
    let mut running = gateway.executor(1, 0);
    let warrant = gateway.warrant("effect_flood", json!({"effects": 900}));
    running.executor.submit(warrant.clone()).unwrap();
    running.until("it runs", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(running.executor.cancel(warrant.invocation()));
    let report = running.report_of(warrant.invocation()).await;
    if report.outcome == Outcome::Cancelled {
        assert!(report.effects.len() < 900);
        assert!(report.effects.iter().all(|e| e.state == EffectState::RolledBack), "none was torn or left: {report:?}");
    }
}

#[tokio::test]
async fn a_warrant_for_something_else_is_refused_and_nothing_runs() {
    let gateway = Gateway::new("").with(&["echo"]).await;
    let mut running = gateway.executor(1, 1);
    let ping = json!({"text": "x"});
    for (code, warrant) in [
        ("plugin", gateway.warrant_with("ping", ping.clone(), |w| w.digest = "ab".repeat(32))),
        ("plugin", gateway.warrant_with("ping", ping.clone(), |w| w.plugin = "nap".into())),
        ("plugin", gateway.warrant("reboot", json!({}))),
        ("invalid-argument", gateway.warrant("ping", json!({"text": 1}))),
        ("invalid-argument", gateway.warrant("ping", json!({"text": "x", "more": 1}))),
    ] {
        let report = running.run(warrant).await;
        assert_eq!((report.outcome, failure(&report).0), (Outcome::Failed, code), "{report:?}");
        assert_eq!(report.cost.cpu_us, 0, "{report:?}");
    }
    let misfit = running.run(gateway.warrant("ping", json!({"text": 1}))).await;
    assert!(misfit.failure.as_ref().is_some_and(|f| f.message.starts_with("/text: ")), "{misfit:?}");
}

#[tokio::test]
async fn what_expires_in_the_queue_never_runs() {
    let gateway = Gateway::new("").with(&["nap"]).await;
    let mut running = gateway.executor(1, 1);
    let first = gateway.warrant("nap", json!({"ms": 400}));
    let late = gateway.warrant_with("nap", json!({"ms": 1}), |w| w.expires_ms = w.not_before_ms + 200);
    running.executor.submit(first.clone()).unwrap();
    running.until("one runs", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;
    running.executor.submit(late.clone()).unwrap();
    let report = running.report_of(late.invocation()).await;
    assert_eq!((report.outcome, report.started_ms), (Outcome::Expired, 0), "{report:?}");
}

#[tokio::test]
async fn a_drain_ends_what_waits_and_lets_run_what_is_short() {
    let gateway = Gateway::new("").with(&["nap"]).await;
    let mut running = gateway.executor(1, 2);
    let warrants: Vec<_> = (0..2).map(|_| gateway.warrant("nap", json!({"ms": 300}))).collect();
    running.executor.submit(warrants[0].clone()).unwrap();
    running.until("one runs", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;
    running.executor.submit(warrants[1].clone()).unwrap();
    running.until("one waits", |e| e.metrics().queued.load(Ordering::Relaxed) == 1).await;
    running.executor.drain(Duration::from_secs(30)).await;
    assert_eq!(running.executor.submit(warrants[1].clone()), Err(Refused::Draining));
    let (waited, ran) =
        (running.report_of(warrants[1].invocation()).await, running.report_of(warrants[0].invocation()).await);
    assert_eq!((waited.outcome, failure(&waited).0), (Outcome::Failed, "interrupted"), "{waited:?}");
    assert_eq!(ran.outcome, Outcome::Succeeded, "{ran:?}");
}

#[tokio::test]
async fn a_drain_stops_what_is_long() {
    let gateway = Gateway::new("").with(&["nap"]).await;
    let mut running = gateway.executor(1, 0);
    let warrant = gateway.warrant("nap", json!({"ms": 60_000}));
    running.executor.submit(warrant.clone()).unwrap();
    running.until("it runs", |e| e.metrics().running.load(Ordering::Relaxed) == 1).await;
    running.executor.drain(Duration::from_millis(50)).await;
    let report = running.report_of(warrant.invocation()).await;
    assert_eq!((report.outcome, failure(&report).0), (Outcome::Failed, "interrupted"), "{report:?}");
}

#[tokio::test]
async fn every_type_goes_to_a_guest_and_back() {
    let gateway = Gateway::new("").with(&["echo"]).await;
    let mut running = gateway.executor(1, 0);
    let value = json!({
        "truth": true, "small-signed": -128, "small-unsigned": 255, "medium-signed": -32768, "medium-unsigned": 65535,
        "signed": -2147483648, "unsigned": 4294967295_u32, "single": 0.1, "double": -0.5, "letter": "ß",
        "text": "naïve \u{0}\u{1f600}", "color": "dark-blue", "permissions": ["read", "run-as-root"],
        "shape": {"poly-line": [{"x": 1, "y": -1}]}, "shapes": ["empty", {"circle": 1.5}, {"labelled": null}],
        "maybe-text": null, "maybe-point": {"x": 0, "y": 7}, "pair": [7, "x"], "bytes": "AAH/",
        "points": [], "nested": [[1, null], []]
    });
    let report = running.run(gateway.warrant("echo", json!({"value": value}))).await;
    assert_eq!(result(&report), value, "{report:?}");
    let quiet = running.run(gateway.warrant("quiet", json!({}))).await;
    assert!(quiet.outcome == Outcome::Succeeded && quiet.result.is_none(), "{quiet:?}");
    for (how, code, outcome) in [
        (json!({"conflict": "x"}), "conflict", Outcome::Failed),
        (json!({"other": "x"}), "other", Outcome::Failed),
        (json!({"denied": {"capability": "a", "rule": "policy: a.b", "message": "x"}}), "denied", Outcome::Denied),
    ] {
        let report = running.run(gateway.warrant("fail", json!({"how": how}))).await;
        assert_eq!((report.outcome, failure(&report).0), (outcome, code), "{report:?}");
        assert_eq!(report.failure.as_ref().map(|f| f.message.as_str()), Some("x"));
    }
}

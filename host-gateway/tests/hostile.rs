//! Everything that a plugin can do wrong: each attack ends with the outcome that names
//! what ended it, and the next invocation is served as if nothing had been.

mod common;

use common::{Gateway, failure, result};
use serde_json::{Value, json};
use viworks_protocol::frame::PluginState;
use viworks_protocol::outcome::{EffectState, Outcome, Report};

/// What is expected of an attack's report.
type Check = fn(&Report);

const ATTACKS: &[(&str, &str, Check)] = &[
    ("endless_loop", "{}", |r| limit(r, "limits.cpuMs")),
    ("memory_grab", r#"{"mib":512}"#, |r| limit(r, "limits.memoryMib")),
    ("memory_bomb", r#"{"mib":4096}"#, |r| {
        assert_eq!(r.outcome, Outcome::Succeeded, "{r:?}");
        assert!(result(r).as_u64().is_some_and(|mib| (8..16).contains(&mib)), "{r:?}");
        assert!((8 << 20..=16 << 20).contains(&r.cost.peak_memory_bytes), "{r:?}");
    }),
    ("grow_memories", "{}", |r| {
        // Eight memories of one page each and one more are there before any grows.
        assert_eq!(r.outcome, Outcome::Succeeded, "{r:?}");
        assert_eq!(result(r), json!(15), "{r:?}");
    }),
    ("grow_tables", "{}", |r| {
        // 100,000 elements of 8 bytes each time, in what nine pages leave of 16 MiB.
        assert_eq!(r.outcome, Outcome::Succeeded, "{r:?}");
        assert_eq!(result(r), json!(20), "{r:?}");
    }),
    ("deep_recursion", r#"{"depth":4000000000}"#, |r| trap(r, "call stack exhausted")),
    ("giant_output", r#"{"kib":300}"#, |r| limit(r, "limits.outputKib")),
    ("giant_output", r#"{"kib":6000}"#, |r| limit(r, "limits.outputKib")),
    ("giant_failure", r#"{"kib":1024}"#, |r| {
        assert_eq!((r.outcome, failure(r).0), (Outcome::Failed, "failed"), "{r:?}");
        assert!(r.failure.as_ref().is_some_and(|f| f.message.len() == 4096), "cut");
    }),
    ("giant_failure", r#"{"kib":6000}"#, |r| limit(r, "limits.outputKib")),
    ("giant_argument", r#"{"mib":6}"#, |r| limit(r, "limits.outputKib")),
    ("giant_log", r#"{"kib":4,"lines":1000}"#, |r| bounded_log(r, 64)),
    ("giant_stdout", r#"{"kib":1000}"#, |r| bounded_log(r, 64)),
    ("host_call_flood", r#"{"calls":1000000}"#, |r| {
        limit(r, "limits.hostCalls");
        assert_eq!(r.cost.host_calls, 10_001, "{r:?}");
    }),
    ("progress_flood", r#"{"reports":1000000}"#, |r| limit(r, "limits.hostCalls")),
    ("effect_flood", r#"{"effects":1000000}"#, |r| {
        assert_eq!(r.outcome, Outcome::Failed, "{r:?}");
        assert!(r.effects.len() <= 1_000 && r.effects.iter().all(|e| e.state == EffectState::RolledBack));
    }),
    ("trap", r#"{"text":"the panic's own words"}"#, |r| trap(r, "the panic's own words")),
    ("exit", r#"{"code":3}"#, |r| trap(r, "exit")),
    ("nap", r#"{"ms":60000}"#, |r| assert_eq!((r.outcome, failure(r).0), (Outcome::Failed, "timeout"), "{r:?}")),
    ("look_around", "{}", |r| {
        assert_eq!(result(r), json!({"environment": [], "arguments": [], "input": ""}), "{r:?}");
    }),
];

fn limit(report: &Report, rule: &str) {
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert_eq!(failure(report), ("limit", Some(rule)), "{report:?}");
}

fn trap(report: &Report, text: &str) {
    assert_eq!((report.outcome, failure(report).0), (Outcome::Failed, "trap"), "{report:?}");
    assert!(report.failure.as_ref().is_some_and(|f| f.message.contains(text)), "{report:?}");
}

fn bounded_log(report: &Report, kib: usize) {
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    let bytes: usize = report.log.iter().map(|line| line.message.len()).sum();
    assert!(report.log_truncated && bytes > 0 && bytes <= kib * 1024, "{bytes} bytes");
}

#[tokio::test]
async fn each_attack_ends_typed_and_the_next_invocation_is_served() {
    let gateway = Gateway::new("[state]").with(&["hostile", "growth", "nap", "echo"]).await;
    let mut running = gateway.executor(4, 8);
    for (verb, args, check) in ATTACKS {
        let args: Value = serde_json::from_str(args).unwrap();
        let warrant = gateway.warrant_with(verb, args, |w| w.timeout_secs = if *verb == "nap" { 1 } else { 30 });
        let report = running.run(warrant).await;
        check(&report);
        let next = running.run(gateway.warrant("ping", json!({"text": "still there"}))).await;
        assert_eq!(next.outcome, Outcome::Succeeded, "after {verb}: {next:?}");
        assert_eq!(result(&next)["words"], 2);
    }
}

#[tokio::test]
async fn cpu_time_is_the_guests_own_and_not_what_it_waits_for() {
    let gateway = Gateway::new("[state]").with(&["nap", "hostile"]).await;
    let mut running = gateway.executor(1, 0);
    let nap = running.run(gateway.warrant("nap", json!({"ms": 700}))).await;
    assert_eq!(nap.outcome, Outcome::Succeeded, "longer than its 500 ms of cpu: {nap:?}");
    assert!(nap.cost.wall_us >= 700_000 && nap.cost.cpu_us < 200_000, "{nap:?}");
    let spin = running.run(gateway.warrant("endless_loop", json!({}))).await;
    assert!((450_000..700_000).contains(&spin.cost.cpu_us), "{spin:?}");
}

#[tokio::test]
async fn more_instances_than_the_release_allows_do_not_even_begin() {
    let gateway = Gateway::new("");
    let status = gateway.install(gateway.bundle("crowd")).await;
    assert_eq!(status.state, PluginState::Refused, "25 instances where 20 are allowed");
    let detail = status.detail.unwrap_or_default();
    assert!(detail.starts_with("E_SELF_TEST: self-test: ") && detail.contains("instance count"), "{detail}");
}

#[tokio::test]
async fn files_and_sockets_are_not_there_to_import() {
    let gateway = Gateway::new("");
    for (name, import) in [("files", "wasi:filesystem/"), ("sockets", "wasi:sockets/")] {
        let status = gateway.install(gateway.bundle(name)).await;
        assert_eq!(status.state, PluginState::Refused);
        let detail = status.detail.unwrap_or_default();
        assert!(detail.starts_with("E_IMPORT: ") && detail.contains(import), "{detail}");
    }
}

#[tokio::test]
async fn what_is_not_granted_does_not_load_and_the_refusal_says_what_would_mend_it() {
    let gateway = Gateway::new("[system]");
    let status = gateway.install(gateway.bundle("hostile")).await;
    assert_eq!(status.state, PluginState::Refused);
    let detail = status.detail.unwrap_or_default();
    for part in ["E_IMPORT", "endless_loop", "viworks:gateway/state@1.0.0", "not granted", "[capabilities.state]"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
}

#[tokio::test]
async fn a_read_that_tries_an_effect_is_denied_and_counted() {
    let gateway = Gateway::new("[state]").with(&["read-effect"]).await;
    let mut running = gateway.executor(1, 0);
    let report = running.run(gateway.warrant("peek", json!({"key": "k"}))).await;
    assert_eq!(report.outcome, Outcome::Denied, "{report:?}");
    assert_eq!(failure(&report), ("denied", Some("release: verb effect is read")));
    assert!(report.effects.is_empty());
}

#[tokio::test]
async fn limits_of_the_host_hold_below_the_releases() {
    let mut gateway = Gateway::new("");
    gateway.reopen(|policy| policy.limits.output_kib = 1);
    let gateway = gateway.with(&["echo"]).await;
    let mut running = gateway.executor(1, 0);
    let small = running.run(gateway.warrant("ping", json!({"text": "x".repeat(500)}))).await;
    assert_eq!(small.outcome, Outcome::Succeeded, "{small:?}");
    let large = running.run(gateway.warrant("ping", json!({"text": "x".repeat(2_000)}))).await;
    limit(&large, "limits.outputKib");
}

#[tokio::test]
async fn nothing_of_a_guest_outlives_its_invocation() {
    let gateway = Gateway::new("[state]").with(&["hostile"]).await;
    let mut running = gateway.executor(1, 0);
    for _ in 0..5 {
        // More than half of its memory each time, which a second one would not find.
        let report = running.run(gateway.warrant("memory_bomb", json!({"mib": 9}))).await;
        assert_eq!(result(&report), json!(9), "{report:?}");
    }
}

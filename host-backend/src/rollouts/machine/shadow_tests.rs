//! What a shadow makes of a rollout: case by case, and as properties.

use proptest::prelude::*;
use serde_json::json;
use viworks_protocol::outcome::Cost;
use viworks_protocol::shadow::{Departure, Shadow as Told, Verdict};

use super::*;
use crate::rollouts::tally::Sample;

fn spec(shadow: serde_json::Value) -> Spec {
    let stages = json!([{"agents": 1, "soak_secs": 10}, {"percent": 100, "soak_secs": 0}]);
    serde_json::from_value(json!({"shadow": shadow, "stages": stages})).expect("a spec")
}

fn usual() -> Spec {
    spec(json!({"agents": 1, "soak_secs": 10, "min_invocations": 3}))
}

fn rollout(stage: u32, soaking_ms: Option<u64>) -> Rollout {
    Rollout {
        id: "rol-1".into(),
        plugin: "p".into(),
        digest: "new".into(),
        former: "old".into(),
        spec: String::new(),
        state: RolloutState::Running,
        stage,
        soaking_ms,
        everyone: false,
        reason: String::new(),
        created_ms: 0,
        created_by: "t".into(),
        changed_ms: 0,
        finished_ms: None,
    }
}

fn planned(equal: u64, departed: u64, failed: u64, skipped: u64) -> ShadowTally {
    let mut tally = ShadowTally { equal, ..ShadowTally::default() };
    let (agent, invocation) = ("a".parse().expect("an agent"), format!("inv-{:032x}", 1).parse().expect("an id"));
    let line =
        Departure { effect: 1, field: "groups".into(), active: Some("docker".into()), shadow: Some("wheel".into()) };
    for (count, verdict) in [(departed, Verdict::Departed), (failed, Verdict::Failed), (skipped, Verdict::Skipped)] {
        let departures = if verdict == Verdict::Departed { vec![line.clone()] } else { Vec::new() };
        let told = Told { verdict, departures, ..Told::skipped("new", "trap", Cost::default()) };
        (0..count).for_each(|_| tally.add(&agent, &invocation, &told));
    }
    tally
}

fn facts(tally: ShadowTally) -> Facts {
    let planned = BTreeMap::from([("add".to_owned(), tally)]);
    Facts { present: 1, settled: 1, have: 1, planned, ..Facts::default() }
}

fn ask(tally: ShadowTally, now_ms: u64) -> Next {
    next(&rollout(0, Some(0)), &usual(), &facts(tally), now_ms)
}

fn reason(next: Next) -> String {
    match next {
        Next::Halt { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_watched_before_the_first_stage() {
    let spec = usual();
    let none = facts(ShadowTally::default());
    assert_eq!(next(&rollout(0, None), &spec, &Facts::default(), 0), Next::Wait, "nobody plans it yet");
    assert_eq!(next(&rollout(0, None), &spec, &none, 0), Next::Soak);
    assert_eq!(ask(planned(3, 0, 0, 9), 9_999), Next::Wait);
    assert_eq!(ask(planned(3, 0, 0, 9), 10_000), Next::Advance);
    assert_eq!(next(&rollout(1, Some(0)), &spec, &none, 10_000), Next::Advance, "the first stage is the second part");
    assert_eq!(next(&rollout(2, Some(0)), &spec, &none, 0), Next::Succeed);
}

#[test]
fn a_departure_halts_at_once_and_is_named() {
    let told = reason(ask(planned(50, 1, 0, 0), 1));
    assert_eq!(told, "shadow: add departed in 1 of 51 invocations, first groups: wheel instead of docker on a");
    let told = reason(ask(planned(50, 0, 1, 0), 1));
    assert_eq!(told, "shadow: add failed in 1 of 51 invocations, first trap:  on a");
    let lenient = spec(json!({"agents": 1, "soak_secs": 0, "min_invocations": 1, "max_departed": 2, "max_failed": 1}));
    let ask = |tally| next(&rollout(0, Some(0)), &lenient, &facts(tally), 0);
    assert_eq!(ask(planned(0, 2, 1, 0)), Next::Advance);
    assert!(matches!(ask(planned(0, 3, 1, 0)), Next::Halt { .. }));
}

#[test]
fn what_was_not_compared_is_not_proven() {
    let told = reason(ask(planned(2, 0, 0, 7), 10_000));
    assert_eq!(told, "shadow: 2 of 3 invocations were compared in 10 s, 7 were skipped");
    let mut known = facts(planned(3, 0, 0, 0));
    known.planned.insert("drop".into(), planned(0, 0, 0, 4));
    let told = reason(next(&rollout(0, Some(0)), &usual(), &known, 10_000));
    assert_eq!(told, "shadow: drop was never compared in 10 s, 4 invocations were skipped");
}

#[test]
fn a_refused_shadow_halts() {
    let refused = Facts { present: 1, settled: 1, refused: 1, ..Facts::default() };
    assert!(reason(next(&rollout(0, None), &usual(), &refused, 0)).starts_with("shadow: refused"));
}

#[test]
fn a_stage_is_judged_by_itself() {
    let tally = |runs: u32, failed: u32| {
        let mut tally = Tally::default();
        let sample = |failed| Sample { failed, denied: false, wall_us: 1, cpu_us: 1 };
        (0..runs).for_each(|n| tally.add(sample(n < failed)));
        tally
    };
    let before = Compared { new: tally(20, 0), former: tally(100, 50) };
    // Few have the former one left: what it did ever is the measure.
    let total = Compared { new: tally(40, 0), former: tally(101, 50) };
    let stage = total.in_stage(&before, 10);
    assert_eq!((stage.new.runs, stage.former.runs), (20, 101));
    let total = Compared { new: tally(40, 0), former: tally(200, 50) };
    assert_eq!(total.in_stage(&before, 10).former.runs, 100);
    // Twenty good runs before do not hide ten bad ones now.
    let mut late = tally(20, 0);
    (0..10).for_each(|_| late.add(Sample { failed: true, denied: false, wall_us: 1, cpu_us: 1 }));
    let total = Compared { new: late, former: Tally::default() };
    let stage = total.in_stage(&Compared { new: tally(20, 0), former: Tally::default() }, 10);
    assert_eq!(stage.new.failure_rate(), 1.0);
}

proptest! {
    /// A rollout leaves its shadow by itself only with enough comparisons and few departures,
    /// and nothing that a shadow does rolls back or succeeds.
    #[test]
    fn the_gate_holds(
        counts in prop::collection::vec((0_u64..6, 0_u64..3, 0_u64..3, 0_u64..3), 0..4),
        (min, departed, failed, soak) in (1_u32..8, 0_u32..3, 0_u32..3, 0_u32..4),
        now_ms in 0_u64..5_000,
    ) {
        let spec = spec(json!({"agents": 1, "soak_secs": soak, "min_invocations": min, "max_departed": departed,
            "max_failed": failed}));
        let mut known = facts(ShadowTally::default());
        let tallies = counts.iter().enumerate();
        known.planned = tallies.map(|(n, (e, d, f, s))| (format!("verb_{n}"), planned(*e, *d, *f, *s))).collect();
        let sum = |of: fn(&ShadowTally) -> u64| known.planned.values().map(of).sum::<u64>();
        let bad = sum(|t| t.departed) > u64::from(departed) || sum(|t| t.failed) > u64::from(failed);
        let enough = sum(ShadowTally::compared) >= u64::from(min) && known.planned.values().all(|t| t.compared() > 0);
        let over = now_ms >= u64::from(soak) * 1_000;
        let wanted = match (bad, over, enough) {
            (true, ..) | (false, true, false) => "halt",
            (false, true, true) => "advance",
            (false, false, _) => "wait",
        };
        let did = match next(&rollout(0, Some(0)), &spec, &known, now_ms) {
            Next::Halt { .. } => "halt",
            Next::Advance => "advance",
            Next::Wait => "wait",
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(did, wanted);
        for state in [RolloutState::Paused, RolloutState::Halted] {
            let still = Rollout { state, ..rollout(0, Some(0)) };
            prop_assert_eq!(next(&still, &spec, &known, now_ms), Next::Wait);
        }
    }
}

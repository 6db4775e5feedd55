//! What a rollout does next, given what is known. Pure: everything that happens to a
//! rollout by itself is decided here, and tested without a clock or an agent.

use std::collections::BTreeMap;

use super::shadow::ShadowTally;
use super::spec::{Gates, Part, Shadow, Spec};
use super::tally::Tally;
use crate::store::model::{Rollout, RolloutState};

/// Differences of less than these are noise, whatever the factor.
const LATENCY_NOISE_US: f64 = 2_000.0;
const CPU_NOISE_US: f64 = 500.0;

/// A stage's members that are there have so long to fetch the release.
const DEPLOY_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// A verb under both releases, as far as they ran it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compared {
    pub new: Tally,
    pub former: Tally,
}

impl Compared {
    /// What to judge a stage by: what the new release did in it, beside what the former one
    /// did at the same time, or has done ever where hardly anybody has it any more.
    #[must_use]
    pub fn in_stage(&self, before: &Self, least: u32) -> Self {
        let former = self.former.since(&before.former);
        let few = former.runs < u64::from(least);
        Self { new: self.new.since(&before.new), former: if few { self.former.clone() } else { former } }
    }
}

/// What is known of a rollout at a moment.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Members with a session: all, and those of them that have the release or refused it.
    /// Of a shadow: that have it as that.
    pub present: u32,
    pub settled: u32,
    /// Members, there or not, that have it, and that refused it.
    pub have: u32,
    pub refused: u32,
    /// By verb, since the stage at hand began.
    pub verbs: BTreeMap<String, Compared>,
    /// By verb, since the rollout began.
    pub totals: BTreeMap<String, Compared>,
    /// By verb, what it would have done where it was planned.
    pub planned: BTreeMap<String, ShadowTally>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing changes.
    Wait,
    /// All members that are there have it: watching begins.
    Soak,
    /// The stage held: begin the next.
    Advance,
    /// The last stage held: the release becomes the active one.
    Succeed,
    /// A gate failed.
    RollBack { reason: String },
    /// The shadow did not hold: nobody has the release, and an administrator decides.
    Halt { reason: String },
}

/// What a running rollout does next.
#[must_use]
pub fn next(rollout: &Rollout, spec: &Spec, facts: &Facts, now_ms: u64) -> Next {
    if rollout.state != RolloutState::Running {
        return Next::Wait;
    }
    let Some(part) = spec.part(rollout.stage) else { return Next::Wait };
    match part {
        Part::Shadow(shadow) => {
            if let Some(reason) = refusals(&spec.gates, facts).or_else(|| departed(shadow, facts)) {
                return Next::Halt { reason: format!("shadow: {reason}") };
            }
        }
        Part::Stage(..) => {
            if let Some(reason) = broken(&spec.gates, facts) {
                return Next::RollBack { reason };
            }
        }
    }
    let Some(since) = rollout.soaking_ms else {
        // One that neither takes nor refuses it must not hold up all others for ever.
        let late = now_ms.saturating_sub(rollout.changed_ms) >= DEPLOY_WITHIN_MS;
        return if facts.have > 0 && (facts.settled >= facts.present || late) { Next::Soak } else { Next::Wait };
    };
    if now_ms.saturating_sub(since) < u64::from(part.who().soak_secs) * 1_000 {
        return Next::Wait;
    }
    match part {
        Part::Shadow(shadow) => match unproven(shadow, facts) {
            Some(reason) => Next::Halt { reason: format!("shadow: {reason}") },
            None => Next::Advance,
        },
        Part::Stage(at, _) => {
            let enough = |compared: &Compared| compared.new.runs >= u64::from(spec.gates.min_samples);
            if spec.gates.require_samples && !facts.verbs.values().any(enough) {
                return Next::Wait;
            }
            if at + 1 < spec.stages.len() { Next::Advance } else { Next::Succeed }
        }
    }
}

/// What a shadow did too often, in words.
fn departed(shadow: &Shadow, facts: &Facts) -> Option<String> {
    for (what, allowed, count) in [
        ("departed", shadow.max_departed, (|t| t.departed) as fn(&ShadowTally) -> u64),
        ("failed", shadow.max_failed, |t| t.failed),
    ] {
        let sum: u64 = facts.planned.values().map(count).sum();
        if sum > u64::from(allowed) {
            let worst = facts.planned.iter().max_by_key(|(_, tally)| count(tally));
            let (verb, tally) = worst?;
            let sample = tally.samples.iter().find(|sample| sample.verdict.as_str() == what);
            let sample = sample.map(|sample| format!(", first {sample}")).unwrap_or_default();
            let (of, compared) = (count(tally), tally.compared());
            return Some(format!("{verb} {what} in {of} of {compared} invocations{sample}"));
        }
    }
    None
}

/// What was not shown in a shadow's time, in words.
fn unproven(shadow: &Shadow, facts: &Facts) -> Option<String> {
    let compared: u64 = facts.planned.values().map(ShadowTally::compared).sum();
    let secs = shadow.soak_secs;
    if compared < u64::from(shadow.min_invocations) {
        let (least, skipped) = (shadow.min_invocations, facts.planned.values().map(ShadowTally::skips).sum::<u64>());
        return Some(format!("{compared} of {least} invocations were compared in {secs} s, {skipped} were skipped"));
    }
    // One that was never compared was not shown to be the same.
    let (verb, tally) = facts.planned.iter().find(|(_, tally)| tally.compared() == 0)?;
    Some(format!("{verb} was never compared in {secs} s, {} invocations were skipped", tally.skips()))
}

/// The first gate that does not hold, in words.
#[must_use]
pub fn broken(gates: &Gates, facts: &Facts) -> Option<String> {
    refusals(gates, facts)
        .or_else(|| facts.verbs.iter().find_map(|(verb, compared)| verb_broken(gates, verb, compared)))
}

fn refusals(gates: &Gates, facts: &Facts) -> Option<String> {
    let answered = facts.have + facts.refused;
    if facts.refused > 0 && f64::from(facts.refused) > gates.refused * f64::from(answered) {
        return Some(format!("refused: {} of {answered} members refuse the release", facts.refused));
    }
    None
}

fn verb_broken(gates: &Gates, verb: &str, Compared { new, former }: &Compared) -> Option<String> {
    let least = u64::from(gates.min_samples);
    if new.runs < least {
        return None;
    }
    let percent = |share: f64| share * 100.0;
    for (gate, is, was, allowed) in [
        ("errors", new.failure_rate(), former.failure_rate(), gates.errors),
        ("denials", new.denial_rate(), former.denial_rate(), gates.denials),
    ] {
        if is > was + allowed {
            let (is, was) = (percent(is), percent(was));
            return Some(format!("{gate}: {verb} {is:.1} % of {} runs, against {was:.1} % before", new.runs));
        }
    }
    if former.runs < least {
        return None;
    }
    for (gate, is, was, factor, noise) in [
        ("latency", new.p95_wall_us(), former.p95_wall_us(), gates.latency, LATENCY_NOISE_US),
        ("cpu", new.mean_cpu_us(), former.mean_cpu_us(), gates.cpu, CPU_NOISE_US),
    ] {
        if is > was * factor && is > was + noise {
            let (is, was) = (is / 1_000.0, was / 1_000.0);
            return Some(format!("{gate}: {verb} {is:.1} ms, against {was:.1} ms before"));
        }
    }
    None
}

#[cfg(test)]
mod shadow_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollouts::tally::Sample;
    use serde_json::json;

    fn spec(gates: serde_json::Value) -> Spec {
        serde_json::from_value(json!({"stages": [{"agents": 1, "soak_secs": 10}, {"percent": 100, "soak_secs": 0}],
            "gates": gates}))
        .expect("a spec")
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

    fn tally(runs: u32, failed: u32, wall_us: u64, cpu_us: u64) -> Tally {
        let mut tally = Tally::default();
        (0..runs).for_each(|n| tally.add(Sample { failed: n < failed, denied: false, wall_us, cpu_us }));
        tally
    }

    fn facts(new: Tally, former: Tally) -> Facts {
        let verbs = BTreeMap::from([("look".to_owned(), Compared { new, former })]);
        Facts { present: 1, settled: 1, have: 1, verbs, ..Facts::default() }
    }

    fn word(next: Next) -> String {
        match next {
            Next::RollBack { reason } => reason.split(':').next().unwrap_or_default().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn it_deploys_soaks_advances_and_succeeds() {
        let spec = spec(json!({}));
        let mut known = Facts { present: 2, settled: 1, have: 1, ..Facts::default() };
        assert_eq!(next(&rollout(0, None), &spec, &known, 0), Next::Wait, "one is still fetching");
        assert_eq!(
            next(&rollout(0, None), &spec, &known, DEPLOY_WITHIN_MS),
            Next::Soak,
            "the others need not wait for ever"
        );
        known.settled = 2;
        assert_eq!(next(&rollout(0, None), &spec, &known, 0), Next::Soak);
        assert_eq!(next(&rollout(0, Some(5)), &spec, &known, 10_004), Next::Wait);
        assert_eq!(next(&rollout(0, Some(5)), &spec, &known, 10_005), Next::Advance);
        assert_eq!(next(&rollout(1, Some(5)), &spec, &known, 5), Next::Succeed);
        assert_eq!(next(&rollout(0, None), &spec, &Facts::default(), 0), Next::Wait, "nobody is there");
        let paused = Rollout { state: RolloutState::Paused, ..rollout(1, Some(5)) };
        assert_eq!(next(&paused, &spec, &known, u64::MAX), Next::Wait);
    }

    #[test]
    fn each_gate_rolls_back_and_says_why() {
        let usual = spec(json!({}));
        let ask = |new, former| word(next(&rollout(0, Some(0)), &usual, &facts(new, former), 1));
        assert_eq!(ask(tally(9, 9, 1, 1), tally(100, 0, 1, 1)), "Wait", "too few to judge");
        assert_eq!(ask(tally(10, 10, 1, 1), tally(100, 0, 1, 1)), "errors");
        assert_eq!(ask(tally(10, 10, 1, 1), Tally::default()), "errors", "no former samples are no failures");
        assert_eq!(ask(tally(10, 5, 1, 1), tally(100, 50, 1, 1)), "Wait", "it failed as often before");
        assert_eq!(ask(tally(10, 0, 90_000, 1), tally(10, 0, 9_000, 1)), "latency");
        assert_eq!(ask(tally(10, 0, 90_000, 1), tally(9, 0, 9_000, 1)), "Wait", "too few before");
        assert_eq!(ask(tally(10, 0, 900, 1), tally(10, 0, 90, 1)), "Wait", "noise");
        assert_eq!(ask(tally(10, 0, 1, 9_000), tally(10, 0, 1, 900)), "cpu");
        let mut denied = Tally::default();
        (0..10).for_each(|_| denied.add(Sample { failed: false, denied: true, wall_us: 1, cpu_us: 1 }));
        assert_eq!(ask(denied, tally(10, 0, 1, 1)), "denials");
        let refused = Facts { present: 1, settled: 1, refused: 1, ..Facts::default() };
        assert_eq!(word(next(&rollout(0, None), &usual, &refused, 1)), "refused");
    }

    #[test]
    fn a_stage_can_wait_for_samples() {
        let strict = spec(json!({"require_samples": true, "min_samples": 3}));
        let ask = |runs| next(&rollout(0, Some(0)), &strict, &facts(tally(runs, 0, 1, 1), Tally::default()), 60_000);
        assert_eq!((ask(2), ask(3)), (Next::Wait, Next::Advance));
    }
}

//! The verdicts, case by case.

use proptest::prelude::*;
use viworks_protocol::outcome::Failure;
use viworks_protocol::shadow::MAX_DEPARTURES;

use super::super::diff;
use super::*;

fn effect(group: &str, state: EffectState) -> EffectReport {
    EffectReport {
        kind: "accounts.create".into(),
        summary: "create account deploy".into(),
        state,
        diff: vec![diff::appears("uid", "20000"), diff::appears("groups", group)],
        irreversible: false,
    }
}

fn ended(code: Option<&str>, effects: Vec<EffectReport>) -> Report {
    let failure = code.map(|code| Failure { code: code.into(), message: "why".into(), rule: None });
    let outcome = if failure.is_some() { Outcome::Failed } else { Outcome::Succeeded };
    Report { outcome, failure, effects, ..Report::refused(Outcome::Failed, "", "", 0) }
}

fn applied(groups: &[&str]) -> Vec<EffectReport> {
    groups.iter().map(|group| effect(group, EffectState::Applied)).collect()
}

fn plan(code: Option<&str>, groups: &[&str]) -> Planned {
    let effects = groups.iter().map(|group| effect(group, EffectState::Planned)).collect();
    Planned { report: ended(code, effects), untold: None }
}

fn judged(active: &Report, planned: &Planned) -> (Verdict, usize) {
    let shadow = compare(&"ab".repeat(32), active, planned);
    (shadow.verdict, shadow.departures.len())
}

#[test]
fn equal_effects_have_one_digest() {
    let shadow = compare("d", &ended(None, applied(&["docker"])), &plan(None, &["docker"]));
    assert_eq!((shadow.verdict, &shadow.plan), (Verdict::Equal, &shadow.active));
    assert!(shadow.plan.is_some() && shadow.departures.is_empty());
}

#[test]
fn another_group_is_a_departure_and_named() {
    let shadow = compare("d", &ended(None, applied(&["docker"])), &plan(None, &["wheel"]));
    assert_eq!(shadow.verdict, Verdict::Departed);
    let line =
        Departure { effect: 1, field: "groups".into(), active: Some("docker".into()), shadow: Some("wheel".into()) };
    assert_eq!(shadow.departures, [line]);
    assert_ne!(shadow.plan, shadow.active);
}

#[test]
fn more_and_fewer_effects_depart() {
    let did = ended(None, applied(&["docker"]));
    assert_eq!(judged(&did, &plan(None, &["docker", "docker"])), (Verdict::Departed, 1));
    assert_eq!(judged(&did, &plan(None, &[])), (Verdict::Departed, 1));
}

#[test]
fn ends_are_compared_where_both_chose_them() {
    let did = ended(None, applied(&["docker"]));
    assert_eq!(judged(&did, &plan(Some("conflict"), &[])), (Verdict::Failed, 0));
    let refused = ended(Some("conflict"), Vec::new());
    assert_eq!(judged(&refused, &plan(Some("conflict"), &[])), (Verdict::Equal, 0));
    assert_eq!(judged(&refused, &plan(Some("not-found"), &[])), (Verdict::Departed, 1), "the end");
    assert_eq!(judged(&refused, &plan(None, &["docker"])), (Verdict::Departed, 2), "an effect and the end");
}

#[test]
fn what_the_host_failed_is_compared_as_far_as_it_came() {
    let failed = ended(Some("failed"), vec![effect("docker", EffectState::Failed)]);
    assert_eq!(judged(&failed, &plan(None, &["docker", "more"])), (Verdict::Equal, 0));
    assert_eq!(judged(&failed, &plan(None, &["wheel"])), (Verdict::Departed, 1));
    assert_eq!(judged(&failed, &plan(Some("trap"), &[])), (Verdict::Failed, 0));
    let late = ended(Some("timeout"), Vec::new());
    assert_eq!(judged(&late, &plan(None, &["docker"])), (Verdict::Equal, 0));
}

#[test]
fn what_a_plan_can_not_tell_is_no_departure() {
    let did = ended(None, applied(&["script", "after"]));
    let planned = Planned { untold: Some(0), ..plan(Some("unavailable"), &["script"]) };
    assert_eq!(judged(&did, &planned), (Verdict::Equal, 0));
    let other = Planned { untold: Some(0), ..plan(Some("unavailable"), &["other"]) };
    assert_eq!(judged(&did, &other), (Verdict::Departed, 1));
}

proptest! {
    /// Equal exactly where the lists are, and never more told than is allowed.
    #[test]
    fn the_verdict_is_the_digests(a in prop::collection::vec("[ab]", 0..12), b in prop::collection::vec("[ab]", 0..12)) {
        let (a, b): (Vec<&str>, Vec<&str>) = (a.iter().map(String::as_str).collect(), b.iter().map(String::as_str).collect());
        let shadow = compare("d", &ended(None, applied(&a)), &plan(None, &b));
        prop_assert_eq!(shadow.verdict == Verdict::Equal, a == b);
        prop_assert_eq!(shadow.plan == shadow.active, a == b);
        prop_assert!(shadow.departures.len() <= MAX_DEPARTURES);
        prop_assert_eq!(shadow.departures.is_empty(), a == b);
    }
}

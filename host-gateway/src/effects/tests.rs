//! What the recorder promises: no effect without a journaled intent, none in a read verb, a
//! report for each that says what is known.

use std::sync::Arc;

use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::EffectState;
use viworks_signing::grant::{Scopes, StateScope};
use viworks_signing::release::EffectClass;

use super::bench::Bench;
use super::{Effect, Recorder};
use crate::capabilities::state::{Change, Expect};
use crate::failure::Failure;
use crate::journal::{Journal, JournalError};

fn scopes() -> Scopes {
    Scopes { state: Some(StateScope::default()), ..Scopes::default() }
}

fn set(expect: Expect) -> Effect {
    Effect::State(Change::Set { plugin: "tried".into(), key: "a".into(), value: "1".into(), expect, bound: None })
}

async fn keys(bench: &Bench) -> Vec<String> {
    use crate::capabilities::wit::viworks::gateway::state::Host as _;
    match bench.call(&scopes(), &scopes(), EffectClass::Read).await.keys().await {
        Ok(Ok(keys)) => keys,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn effects_are_applied_in_order_and_reported() {
    let bench = Bench::new(|_, _| {});
    let mut recorder = bench.call(&scopes(), &scopes(), EffectClass::Change).await.recorder;
    assert_eq!(recorder.perform(set(Expect::Nothing)).await, Ok(serde_json::Value::Null));
    // What can't happen is refused before anything is journaled.
    assert!(matches!(recorder.perform(set(Expect::Nothing)).await, Err(Failure::Conflict(_))));
    assert_eq!(recorder.perform(set(Expect::Value("1".into()))).await, Ok(serde_json::Value::Null));
    let reports = recorder.reports();
    let states: Vec<_> = reports.iter().map(|r| (r.kind.as_str(), r.state)).collect();
    assert_eq!(states, [("state.set", EffectState::Applied); 2]);
    assert_eq!(recorder.reports()[0].summary, "set state \"a\" to 1 bytes");
}

#[tokio::test]
async fn without_a_journal_nothing_happens() {
    let bench = Bench::new(|_, _| {});
    let Ok(invocation) = InvocationId::try_from("inv-00000000000000000000000000000001".to_owned()) else {
        panic!("no invocation id")
    };
    let journal = Journal::unusable(JournalError::Stopped);
    let mut recorder = Recorder::new(invocation, EffectClass::Change, journal, Arc::clone(&bench.host));
    assert!(matches!(recorder.perform(set(Expect::Anything)).await, Err(Failure::Unavailable(_))));
    assert!(recorder.reports().is_empty());
    assert!(keys(&bench).await.is_empty());
}

#[tokio::test]
async fn a_read_verb_changes_nothing() {
    let bench = Bench::new(|_, _| {});
    let mut recorder = bench.call(&scopes(), &scopes(), EffectClass::Read).await.recorder;
    assert!(matches!(recorder.perform(set(Expect::Anything)).await, Err(Failure::Denied { .. })));
    assert!(recorder.reports().is_empty() && keys(&bench).await.is_empty());
}

#[tokio::test]
async fn effects_of_one_invocation_are_bounded() {
    let bench = Bench::new(|_, _| {});
    let mut recorder = bench.call(&scopes(), &scopes(), EffectClass::Change).await.recorder;
    for _ in 0..super::recorder::MAX_EFFECTS {
        assert!(recorder.perform(set(Expect::Anything)).await.is_ok());
    }
    assert!(matches!(recorder.perform(set(Expect::Anything)).await, Err(Failure::Failed(_))));
    assert_eq!(recorder.reports().len(), super::recorder::MAX_EFFECTS);
}

#[tokio::test]
async fn where_the_time_runs_out_it_is_told_what_is_left() {
    let bench = Bench::new(|_, _| {});
    for micros in (0..6_000).step_by(150) {
        let mut recorder = bench.call(&scopes(), &scopes(), EffectClass::Change).await.recorder;
        for _ in 0..6 {
            assert!(recorder.perform(set(Expect::Anything)).await.is_ok());
        }
        let states = recorder.settled_within(std::time::Duration::from_micros(micros)).await;
        let told = |state: &EffectState| matches!(state, EffectState::RolledBack | EffectState::Stuck);
        assert!(states.iter().all(told), "after {micros} us: {states:?}");
    }
}

#[test]
fn every_effect_survives_the_journal() {
    let effects = [
        set(Expect::Value("0".into())),
        Effect::State(Change::Delete { plugin: "tried".into(), key: "a".into(), expect: Expect::Nothing }),
    ];
    for effect in effects {
        let json = serde_json::to_string(&effect).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Effect>(&json).ok(), Some(effect), "{json}");
    }
}

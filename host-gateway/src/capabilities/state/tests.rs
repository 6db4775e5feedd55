//! Bounds, durability, separation and the way back of `state`.

use viworks_signing::grant::Scopes;
use viworks_signing::release::EffectClass;

use super::wit::Host as _;
use super::*;
use crate::effects::Inverse;
use crate::effects::bench::Bench;

fn scopes(max_keys: u32, max_kib: u32) -> Scopes {
    Scopes { state: Some(StateScope { max_keys, max_kib }), ..Scopes::default() }
}

impl Provider {
    pub(crate) async fn tried(&self, plugin: &str, key: &str) -> Option<String> {
        self.get(plugin, key, &[]).await.ok().flatten()
    }
}

async fn call(bench: &Bench) -> Call {
    bench.call(&scopes(3, 4), &scopes(10, 1), EffectClass::Change).await
}

#[track_caller]
fn good<T>(answer: wasmtime::Result<Result<T, types::Failure>>) -> T {
    match answer {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => panic!("{failure:?}"),
        Err(trap) => panic!("{trap}"),
    }
}

#[track_caller]
fn denied_by(answer: wasmtime::Result<Result<(), types::Failure>>) -> String {
    match answer {
        Ok(Err(types::Failure::Denied(denial))) => denial.rule,
        other => panic!("{other:?}"),
    }
}

async fn apply(bench: &Bench, change: Change) -> Result<Change, Failure> {
    match bench.apply(&Effect::State(change)).await?.inverse {
        Inverse::Effect(effect) => match *effect {
            Effect::State(change) => Ok(change),
            other => panic!("{other:?}"),
        },
        Inverse::Irreversible => panic!("state can be taken back"),
    }
}

#[tokio::test]
async fn values_are_kept_replaced_listed_and_deleted() {
    let bench = Bench::new(|_, _| {});
    let mut call = call(&bench).await;
    assert_eq!(good(call.get("a".into()).await), None);
    good(call.set("b".into(), "1".into()).await);
    good(call.set("a".into(), "ünï\n".into()).await);
    good(call.set("a".into(), "2".into()).await);
    assert_eq!(good(call.get("a".into()).await).as_deref(), Some("2"));
    assert_eq!(good(call.keys().await), ["a", "b"]);
    good(call.delete("a".into()).await);
    good(call.delete("a".into()).await);
    assert_eq!(good(call.keys().await), ["b"]);
    assert_eq!(call.recorder.reports().len(), 5);
}

#[tokio::test]
async fn it_survives_a_restart_in_a_private_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new(|_, _| {});
    good(call(&bench).await.set("a".into(), "1".into()).await);
    let file = bench.dir.path().join("plugin-state.db");
    assert_eq!(std::fs::metadata(&file).map(|m| m.permissions().mode() & 0o777).unwrap_or_default(), 0o600);
    let again = Provider::new(&Config { file: Some(file) });
    assert_eq!(again.blocking(|s| s.get("tried", "a")).await, Ok(Some("1".into())));
}

#[tokio::test]
async fn every_layer_bounds_keys_and_bytes() {
    let bench = Bench::new(|_, _| {});
    let mut call = call(&bench).await;
    assert_eq!(denied_by(call.set("a".into(), "x".repeat(1024)).await), "policy: state.max_kib");
    good(call.set("a".into(), "x".repeat(1000)).await);
    good(call.set("a".into(), "x".repeat(1023)).await);
    assert_eq!(denied_by(call.set("b".into(), String::new()).await), "policy: state.max_kib");
    for key in ["a", "b", "c"] {
        good(call.set(key.into(), "1".into()).await);
    }
    assert_eq!(denied_by(call.set("d".into(), "1".into()).await), "release: state.max_keys");
    good(call.set("c".into(), "2".into()).await);
    assert_eq!(call.meter.denials, 3);
    for key in [String::new(), "a\n".into(), "k".repeat(129)] {
        assert!(matches!(call.set(key, "1".into()).await, Ok(Err(types::Failure::InvalidArgument(_)))));
    }
    // A gate that looked before others filled it: the store looks again.
    let bound = Some(Bound { keys: 3, bytes: 1024 });
    let late = |key: &str, value: String| Change::Set {
        plugin: "tried".into(),
        key: key.into(),
        value,
        expect: Expect::Anything,
        bound,
    };
    assert!(matches!(apply(&bench, late("d", "1".into())).await, Err(Failure::Conflict(_))));
    assert!(matches!(apply(&bench, late("a", "x".repeat(1024))).await, Err(Failure::Conflict(_))));
}

#[tokio::test]
async fn plugins_do_not_see_each_other_and_reads_change_nothing() {
    let bench = Bench::new(|_, _| {});
    good(call(&bench).await.set("a".into(), "1".into()).await);
    let mut other = call(&bench).await;
    other.facts.plugin = "another".into();
    assert_eq!(good(other.get("a".into()).await), None);
    assert!(good(other.keys().await).is_empty());
    good(other.set("a".into(), "2".into()).await);
    assert_eq!(good(call(&bench).await.get("a".into()).await).as_deref(), Some("1"));

    let mut reading = bench.call(&scopes(3, 4), &scopes(3, 4), EffectClass::Read).await;
    assert_eq!(good(reading.get("a".into()).await).as_deref(), Some("1"));
    assert_eq!(denied_by(reading.set("a".into(), "3".into()).await), "release: verb effect is read");
    let mut ungranted = bench.call(&Scopes::default(), &scopes(3, 4), EffectClass::Change).await;
    assert_eq!(denied_by(ungranted.delete("a".into()).await), "grant: state");
}

#[tokio::test]
async fn changes_are_taken_back_exactly_or_not_at_all() {
    let bench = Bench::new(|_, _| {});
    let set = |value: &str, expect: Expect| Change::Set {
        plugin: "tried".into(),
        key: "a".into(),
        value: value.into(),
        expect,
        bound: None,
    };
    let delete = |expect: Expect| Change::Delete { plugin: "tried".into(), key: "a".into(), expect };
    let value = |v: &str| Expect::Value(v.into());
    assert_eq!(apply(&bench, set("1", Expect::Anything)).await, Ok(delete(value("1"))));
    assert_eq!(apply(&bench, set("2", Expect::Anything)).await, Ok(set("1", value("2"))));
    assert_eq!(apply(&bench, set("1", value("2"))).await, Ok(set("2", value("1"))));
    assert_eq!(apply(&bench, delete(Expect::Anything)).await, Ok(set("1", Expect::Nothing)));
    assert_eq!(apply(&bench, delete(Expect::Nothing)).await, Ok(delete(Expect::Nothing)));
    assert_eq!(apply(&bench, set("1", Expect::Nothing)).await, Ok(delete(value("1"))));
    // Somebody wrote after it: taking back would lose that.
    for change in [set("0", value("9")), set("0", Expect::Nothing), delete(value("9"))] {
        assert!(matches!(apply(&bench, change).await, Err(Failure::Conflict(_))));
    }
    assert_eq!(good(call(&bench).await.get("a".into()).await).as_deref(), Some("1"));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_unavailable() {
    let bench = Bench::new(|dir, config| config.state.file = Some(dir.join("none/state.db")));
    let answer = call(&bench).await.set("a".into(), "1".into()).await;
    assert!(matches!(answer, Ok(Err(types::Failure::Unavailable(_)))));
}

//! Rollouts over a real store, catalogue and engine; the test itself plays the agents.

use serde_json::json;
use viworks_protocol::frame::{BackendFrame, PluginState, PluginStatus};
use viworks_protocol::id::AgentId;
use viworks_protocol::outcome::{Cost, Outcome, Report};
use viworks_protocol::shadow::{Departure, Shadow, Verdict};

use super::{RolloutError, Rollouts, Spec, Steer};
use crate::authz::{Permit, Principal, action};
use crate::catalog::Wanted;
use crate::store::model::{Plugin, Role, Rollout, RolloutState, Standing};
use crate::testing::{Peer, World, agent, component, release, report, soon};

fn spec(stages: serde_json::Value) -> Spec {
    serde_json::from_value(json!({ "stages": stages, "gates": { "min_samples": 2 } })).expect("a spec")
}

async fn staged(world: &World, sequence: u32) -> Plugin {
    let bytes = component(&format!("probe {sequence}"));
    let signed = release(&world.key, "probe", sequence, "ping", &bytes);
    world.catalog.publish(bytes.into(), signed, Wanted::Staged, "carol").await.expect("staged")
}

fn offered(world: &World, agent: &AgentId, release: &Plugin) -> bool {
    world.catalog.snapshot().offers(agent).contains(&release.digest)
}

/// The agent says that it has the release, or refused it.
fn says(world: &World, agent: &AgentId, release: &Plugin, state: PluginState) {
    let (plugin, version, digest) = (release.plugin.clone(), release.version.clone(), release.digest.clone());
    world
        .rollouts
        .observer()
        .sighted(agent, &PluginStatus { plugin, version, digest, state, detail: None, shadow: false });
}

async fn look(rollouts: &Rollouts, of: &Rollout) -> Rollout {
    rollouts.look().await;
    rollouts.get(&of.plugin, &of.id).await.expect("a rollout")
}

/// A command to one agent, ended so.
async fn run(world: &World, peer: &mut Peer, outcome: Outcome) {
    let id = peer.session.agent.to_string();
    let accepted = world.engine.accept(world.request(&[&id])).await.expect("accepted");
    let invocation = peer.invoked(world).await;
    world.engine.result(&peer.session.agent, invocation, &report(outcome)).await;
    assert!(matches!(peer.frame().await, BackendFrame::Ack { .. }));
    soon(async {
        while world.store.command(&accepted.command.id).await.expect("read").is_none_or(|c| c.finished_ms.is_none()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_bad_canary_goes_back_by_itself() {
    let world = World::new().await;
    world.register(&["a", "b"]).await;
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    let new = staged(&world, 2).await;
    let stages = spec(json!([{ "agents": 1, "soak_secs": 60 }, { "percent": 100 }]));
    let begun = world.rollouts.begin("probe", &new.digest, &stages, "carol").await.expect("begun");
    let first = offered(&world, &agent("a"), &new);
    assert_ne!(first, offered(&world, &agent("b"), &new), "one of two");
    let (canary, other) = if first { (&mut a, &mut b) } else { (&mut b, &mut a) };
    assert_eq!(look(&world.rollouts, &begun).await.soaking_ms, None, "nobody has it yet");
    says(&world, &canary.session.agent, &new, PluginState::Active);
    assert!(look(&world.rollouts, &begun).await.soaking_ms.is_some());

    for _ in 0..2 {
        run(&world, other, Outcome::Succeeded).await;
        run(&world, canary, Outcome::Failed).await;
    }
    let ended = look(&world.rollouts, &begun).await;
    assert_eq!(ended.state, RolloutState::RolledBack, "{ended:?}");
    assert!(ended.reason.starts_with("errors: ping 100.0 % of 2 runs, against 0.0 %"), "{}", ended.reason);
    assert!(!offered(&world, &canary.session.agent, &new), "the former release is offered again");
    let stands = world.store.plugin(&new.digest).await.expect("read").expect("stored").standing;
    assert_eq!(stands, Standing::Inactive);
}

#[tokio::test]
async fn it_goes_on_after_a_restart_and_succeeds() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let new = staged(&world, 2).await;
    let stages = spec(json!([{ "agents": 1, "soak_secs": 0 }, { "percent": 100, "soak_secs": 0 }]));
    let begun = {
        let mut a = world.connect("a").await;
        let begun = world.rollouts.begin("probe", &new.digest, &stages, "carol").await.expect("begun");
        look(&world.rollouts, &begun).await;
        says(&world, &agent("a"), &new, PluginState::Active);
        run(&world, &mut a, Outcome::Succeeded).await;
        let soaking = look(&world.rollouts, &begun).await;
        assert!(soaking.soaking_ms.is_some() && soaking.stage == 0);
        world.disconnect(a);
        begun
    };
    let world = world.restart().await;
    assert_eq!(world.rollouts.facts(&begun).verbs["ping"].new.runs, 1, "what it did is known");
    assert!(offered(&world, &agent("a"), &new) && !offered(&world, &agent("b"), &new));
    let second = look(&world.rollouts, &begun).await;
    assert_eq!((second.stage, second.everyone, second.soaking_ms), (1, true, None));
    assert!(offered(&world, &agent("b"), &new), "who comes later is a member too");
    let _b = world.connect("b").await;
    says(&world, &agent("b"), &new, PluginState::Active);
    assert!(look(&world.rollouts, &begun).await.soaking_ms.is_some());
    let ended = look(&world.rollouts, &begun).await;
    assert_eq!(ended.state, RolloutState::Succeeded, "{ended:?}");
    assert_eq!(world.catalog.verb("ping").map(|v| v.digest.clone()), Some(new.digest));
}

fn shadowed() -> Spec {
    let stages = json!([{ "agents": 1, "soak_secs": 0 }, { "percent": 100, "soak_secs": 0 }]);
    let shadow = json!({ "percent": 100, "soak_secs": 0, "min_invocations": 2 });
    serde_json::from_value(json!({ "shadow": shadow, "stages": stages })).expect("a spec")
}

/// The agent says that it plans the release.
fn plans(world: &World, agent: &AgentId, release: &Plugin) {
    let (plugin, version, digest) = (release.plugin.clone(), release.version.clone(), release.digest.clone());
    let state = PluginState::Active;
    let status = PluginStatus { plugin, version, digest, state, detail: None, shadow: true };
    world.rollouts.observer().sighted(agent, &status);
}

/// A command to one agent, with what its shadow came to.
async fn beside(world: &World, peer: &mut Peer, digest: &str, verdict: Verdict) {
    let id = peer.session.agent.to_string();
    world.engine.accept(world.request(&[&id])).await.expect("accepted");
    let invocation = peer.invoked(world).await;
    let departures = match verdict {
        Verdict::Departed => {
            vec![Departure { effect: 1, field: "groups".into(), active: None, shadow: Some("wheel".into()) }]
        }
        _ => Vec::new(),
    };
    let shadow = Shadow { verdict, departures, ..Shadow::skipped(digest, "late", Cost::default()) };
    let told = Report { shadow: Some(Box::new(shadow)), ..report(Outcome::Succeeded) };
    world.engine.result(&peer.session.agent, invocation, &told).await;
    assert!(matches!(peer.frame().await, BackendFrame::Ack { .. }));
}

async fn counted(world: &World, digest: &str, wanted: u64) {
    soon(async {
        let sum = || {
            let planned = world.rollouts.observer().planned(digest);
            planned.values().map(|t| t.compared() + t.skips()).sum::<u64>()
        };
        while sum() < wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_shadow_that_departs_halts_before_anybody_has_it() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let mut a = world.connect("a").await;
    let new = staged(&world, 2).await;
    let begun = world.rollouts.begin("probe", &new.digest, &shadowed(), "carol").await.expect("begun");
    assert!(begun.is_shadowing());
    let offers = world.catalog.snapshot().offers(&agent("a")).to_string();
    let old = world.catalog.active()[0].digest.clone();
    assert!(offers.contains(&old) && offers.contains("\"shadow\":true"), "both, one as a shadow: {offers}");
    let accepted = world.catalog.verb("ping").expect("a verb").also(0);
    assert_eq!(accepted, Vec::<String>::new(), "no warrant names it");
    // What was never begun to be planned is made up.
    beside(&world, &mut a, &"cd".repeat(32), Verdict::Departed).await;
    look(&world.rollouts, &begun).await;
    plans(&world, &agent("a"), &new);
    assert_eq!(world.rollouts.facts(&begun).have, 1);
    beside(&world, &mut a, &new.digest, Verdict::Equal).await;
    beside(&world, &mut a, &new.digest, Verdict::Departed).await;
    counted(&world, &new.digest, 2).await;
    let halted = look(&world.rollouts, &begun).await;
    assert_eq!(halted.state, RolloutState::Halted, "{halted:?}");
    assert_eq!(
        halted.reason,
        "shadow: ping departed in 1 of 2 invocations, first groups: wheel instead of nothing on a"
    );
    assert!(world.rollouts.observer().planned(&"cd".repeat(32)).is_empty());

    // It is known after a restart, too.
    world.disconnect(a);
    let world = world.restart().await;
    let kept = world.rollouts.facts(&halted).planned.remove("ping").expect("counted");
    assert_eq!((kept.equal, kept.departed, kept.samples.len()), (1, 1, 1));
    assert_eq!(kept.samples[0].agent, agent("a"));
    let _a = world.connect("a").await;
    look(&world.rollouts, &begun).await;
    let rollouts = &world.rollouts;
    let refused = rollouts.steer("probe", &begun.id, Steer::Resume, "carol").await;
    assert!(matches!(refused, Err(RolloutError::State { state: RolloutState::Halted })), "{refused:?}");
    let admin = |role| Permit::<action::Administer>::grant(Principal { name: "alice".into(), role });
    assert!(admin(Role::Publisher).is_err());
    let on = rollouts.overrule("probe", &begun.id, &admin(Role::Admin).expect("a permit")).await.expect("overruled");
    assert!(on.state == RolloutState::Running && !on.is_shadowing() && !on.everyone, "{on:?}");
    let offers = world.catalog.snapshot().offers(&agent("a")).to_string();
    assert!(offers.contains(&new.digest) && !offers.contains("shadow") && !offers.contains(&old), "{offers}");
}

#[tokio::test]
async fn an_equal_shadow_goes_on_to_the_stages() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let mut a = world.connect("a").await;
    let new = staged(&world, 2).await;
    let begun = world.rollouts.begin("probe", &new.digest, &shadowed(), "carol").await.expect("begun");
    look(&world.rollouts, &begun).await;
    plans(&world, &agent("a"), &new);
    for verdict in [Verdict::Equal, Verdict::Skipped, Verdict::Equal] {
        beside(&world, &mut a, &new.digest, verdict).await;
    }
    counted(&world, &new.digest, 3).await;
    assert!(look(&world.rollouts, &begun).await.soaking_ms.is_some());
    let first = look(&world.rollouts, &begun).await;
    assert_eq!((first.stage, first.state, first.soaking_ms), (1, RolloutState::Running, None), "{first:?}");
    assert!(offered(&world, &agent("a"), &new));
    says(&world, &agent("a"), &new, PluginState::Active);
    for _ in 0..4 {
        look(&world.rollouts, &begun).await;
    }
    let ended = look(&world.rollouts, &begun).await;
    assert_eq!(ended.state, RolloutState::Succeeded, "{ended:?}");
    assert_eq!(world.rollouts.facts(&ended).planned["ping"].equal, 2, "what it was promoted by stays to be seen");
}

#[tokio::test]
async fn a_stage_is_judged_by_its_own_runs() {
    let world = World::new().await;
    world.register(&["a", "b"]).await;
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    let new = staged(&world, 2).await;
    let stages = json!([{ "agents": 1, "soak_secs": 0 }, { "percent": 100, "soak_secs": 600 }]);
    let spec = serde_json::from_value(json!({ "stages": stages, "gates": { "min_samples": 2, "errors": 0.5 } }));
    let begun = world.rollouts.begin("probe", &new.digest, &spec.expect("a spec"), "carol").await.expect("begun");
    let canary = if offered(&world, &agent("a"), &new) { &mut a } else { &mut b };
    look(&world.rollouts, &begun).await;
    says(&world, &canary.session.agent, &new, PluginState::Active);
    for _ in 0..8 {
        run(&world, canary, Outcome::Succeeded).await;
    }
    look(&world.rollouts, &begun).await;
    let second = look(&world.rollouts, &begun).await;
    assert_eq!((second.stage, second.state), (1, RolloutState::Running), "{second:?}");
    let facts = world.rollouts.facts(&second);
    assert_eq!((facts.verbs["ping"].new.runs, facts.totals["ping"].new.runs), (0, 8));
    for _ in 0..2 {
        run(&world, canary, Outcome::Failed).await;
    }
    // Two of ten in all would have passed; two of two in this stage do not.
    let ended = look(&world.rollouts, &begun).await;
    assert_eq!(ended.state, RolloutState::RolledBack, "{ended:?}");
    assert!(ended.reason.starts_with("errors: ping 100.0 % of 2 runs"), "{}", ended.reason);
}

#[tokio::test]
async fn commands_name_both_releases_while_both_are_about() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let old = world.catalog.verb("ping").expect("a verb").digest.clone();
    let new = staged(&world, 2).await;
    let all = spec(json!([{ "percent": 100 }]));
    let begun = world.rollouts.begin("probe", &new.digest, &all, "carol").await.expect("begun");
    let accepted = world.engine.accept(world.request(&["a"])).await.expect("accepted").command;
    assert_eq!((accepted.digest, accepted.also), (old, vec![new.digest]));
    world.rollouts.steer("probe", &begun.id, Steer::Abort, "carol").await.expect("aborted");
    let accepted = world.engine.accept(world.request(&["a"])).await.expect("accepted").command;
    assert_eq!(accepted.also, Vec::<String>::new());
}

#[tokio::test]
async fn it_is_paused_resumed_aborted_and_refused() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let rollouts = &world.rollouts;
    let new = staged(&world, 2).await;
    let all = spec(json!([{ "percent": 100, "soak_secs": 0 }]));
    let nobody = spec(json!([{ "channel": "beta" }]));
    let refused = rollouts.begin("probe", &new.digest, &nobody, "carol").await;
    assert!(matches!(refused, Err(RolloutError::NoMembers)), "{refused:?}");
    let begun = rollouts.begin("probe", &new.digest, &all, "carol").await.expect("begun");
    let second = rollouts.begin("probe", &new.digest, &all, "carol").await;
    assert!(matches!(second, Err(RolloutError::Stand(_))), "{second:?}");
    let paused = rollouts.steer("probe", &begun.id, Steer::Pause, "carol").await.expect("paused");
    assert_eq!(paused.state, RolloutState::Paused);
    look(rollouts, &begun).await;
    says(&world, &agent("a"), &new, PluginState::Active);
    assert_eq!(look(rollouts, &begun).await.soaking_ms, None, "paused stays paused");
    assert!(matches!(
        rollouts.steer("probe", &begun.id, Steer::Pause, "carol").await,
        Err(RolloutError::State { state: RolloutState::Paused })
    ));
    rollouts.steer("probe", &begun.id, Steer::Resume, "carol").await.expect("resumed");
    assert!(look(rollouts, &begun).await.soaking_ms.is_some());
    let ended = rollouts.steer("probe", &begun.id, Steer::Abort, "carol").await.expect("aborted");
    assert!(ended.state == RolloutState::Aborted && ended.finished_ms.is_some());
    assert!(!offered(&world, &agent("a"), &new));
    let old = world.catalog.active()[0].digest.clone();
    let active = rollouts.begin("probe", &old, &all, "carol").await;
    assert!(matches!(active, Err(RolloutError::Stand(_))), "{active:?}");
}

#[tokio::test]
async fn a_kill_falls_back_and_ends_what_runs() {
    let world = World::new().await;
    world.register(&["a"]).await;
    let mut a = world.connect("a").await;
    let old = world.catalog.active()[0].clone();
    let bytes = component("probe two");
    let signed = release(&world.key, "probe", 2, "ping", &bytes);
    let publish = || world.catalog.publish(bytes.clone().into(), signed.clone(), Wanted::Active, "carol");
    let new = publish().await.expect("published");
    world.engine.accept(world.request(&["a"])).await.expect("accepted");
    let invocation = a.invoked(&world).await;
    let ended = world.rollouts.kill(&new.digest, "it misbehaves", true, true, "alice").await.expect("killed");
    assert_eq!((ended.commands, ended.release.standing), (1, Standing::Killed));
    assert_eq!(ended.fallback.map(|p| p.digest), Some(old.digest.clone()));
    match a.frame().await {
        BackendFrame::Cancel { invocation: cancelled } => assert_eq!(cancelled, invocation),
        other => panic!("{other:?}"),
    }
    assert!(offered(&world, &agent("a"), &old) && !offered(&world, &agent("a"), &new));
    assert!(matches!(publish().await, Err(crate::catalog::PublishError::Killed)));
    world.rollouts.kill(&old.digest, "too", true, true, "alice").await.expect("killed");
    assert!(world.catalog.verb("ping").is_none(), "nothing is left to fall back to");
}

//! Plan, bound apply, rollback and undo of the project's own verbs, by signed warrants
//! through the executor, on hosts that are directories.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Gateway, Running, failure, result};
use serde_json::{Value, json};
use viworks_gateway::effects::digest;
use viworks_protocol::id::CommandId;
use viworks_protocol::outcome::{EffectState, Outcome, Report};
use viworks_protocol::warrant::{Mode, Warrant};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJ ann@example.com";

const SCOPES: &str = "[accounts]\ngroups = [\"docker\"]\nuids = { min = 20000, max = 20999 }\n\
                      shells = [\"/bin/bash\"]\n[vpn]\n[state]\n";

async fn gateway() -> (Gateway, Running) {
    let gateway = Gateway::with_host(SCOPES, |dir, config| {
        config.accounts.root = Some(dir.join("root"));
        let conf = dir.join("wg0.conf");
        std::fs::write(&conf, format!("[Interface]\nPrivateKey = {}=\n", "A".repeat(43))).unwrap();
        let vpn = format!(
            "[wireguard]\nconfig_file = {conf:?}\nendpoint = \"vpn.example.com:51820\"\npool = \"10.8.0.0/24\"\nlive = \"off\"\n"
        );
        config.vpn = toml::from_str(&vpn).unwrap();
    });
    let gateway = gateway.with_plugins(&["accounts", "vpn"]).await.with(&["hostile"]).await;
    let running = gateway.executor(2, 8);
    (gateway, running)
}

/// Run a verb, and say under which command.
async fn ask(
    gateway: &Gateway,
    running: &mut Running,
    verb: &str,
    args: Value,
    change: impl FnOnce(&mut Warrant),
) -> (Arc<Report>, CommandId) {
    let warrant = gateway.warrant_with(verb, args, change);
    let command = warrant.warrant().command.clone();
    (running.run(warrant).await, command)
}

/// Every file below a directory with its bytes, but what SQLite and the gateway keep.
fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

fn host(gateway: &Gateway) -> Vec<(String, Vec<u8>)> {
    let mut all = snapshot(&gateway.dir.path().join("root"));
    all.push(("wg0".into(), std::fs::read(gateway.dir.path().join("wg0.conf")).unwrap()));
    all
}

fn passwd(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.dir.path().join("root/etc/passwd")).unwrap_or_default()
}

fn states(report: &Report) -> Vec<(&str, EffectState)> {
    report.effects.iter().map(|e| (e.kind.as_str(), e.state)).collect()
}

/// What a diff says of a field: before and after.
fn diff<'r>(report: &'r Report, field: &str) -> (Option<&'r str>, Option<&'r str>) {
    let line = report.effects.iter().flat_map(|e| &e.diff).find(|l| l.field == field);
    let Some(line) = line else { panic!("no {field} in {report:?}") };
    (line.before.as_deref(), line.after.as_deref())
}

#[tokio::test]
async fn a_plan_changes_nothing_and_applying_it_does_what_it_said() {
    let (gateway, mut running) = gateway().await;
    // The prefix root is made at first use.
    ask(&gateway, &mut running, "list_users", json!({}), |_| ()).await;
    let before = host(&gateway);
    let args = json!({"name": "deploy", "groups": ["docker"], "ssh_keys": [KEY]});
    let (plan, _) = ask(&gateway, &mut running, "add_user", args.clone(), |w| w.mode = Mode::Plan).await;
    assert_eq!(plan.outcome, Outcome::Succeeded, "{plan:?}");
    assert_eq!(states(&plan), [("accounts.create", EffectState::Planned)]);
    assert_eq!(diff(&plan, "uid"), (None, Some("20000")));
    assert_eq!(diff(&plan, "home"), (None, Some("/home/deploy")));
    assert_eq!(diff(&plan, "groups"), (None, Some("docker")));
    assert_eq!(diff(&plan, "ssh key"), (None, Some(KEY)));
    assert_eq!((&result(&plan)["uid"], &result(&plan)["groups"]), (&json!(20_000), &json!(["docker"])));
    assert_eq!(plan.plan.as_deref(), Some(digest(&plan.effects).as_str()), "anybody can compute it again");
    assert_eq!(host(&gateway), before, "nothing happened");

    let bound = |plan: &Report| {
        let digest = plan.plan.clone().unwrap();
        move |w: &mut Warrant| w.plans = vec!["ab".repeat(32), digest]
    };
    let (applied, _) = ask(&gateway, &mut running, "add_user", args, bound(&plan)).await;
    assert_eq!(states(&applied), [("accounts.create", EffectState::Applied)], "{applied:?}");
    assert_eq!(applied.effects[0].diff, plan.effects[0].diff);
    assert_eq!(result(&applied), result(&plan), "the plan's answer was the real one's");
    assert!(applied.plan.is_none() && passwd(&gateway).contains("deploy:x:20000:"));

    // The same for what removes, and what locks.
    for (verb, args) in [("lock_user", json!({"name": "deploy"})), ("delete_user", json!({"name": "deploy"}))] {
        let before = host(&gateway);
        let (plan, _) = ask(&gateway, &mut running, verb, args.clone(), |w| w.mode = Mode::Plan).await;
        assert!(plan.outcome == Outcome::Succeeded && host(&gateway) == before, "{plan:?}");
        let (applied, _) = ask(&gateway, &mut running, verb, args, bound(&plan)).await;
        assert_eq!(applied.outcome, Outcome::Succeeded, "{applied:?}");
        assert_eq!(applied.effects[0].diff, plan.effects[0].diff);
        assert_eq!(result(&applied), result(&plan));
    }
}

#[tokio::test]
async fn applying_stops_where_it_departs_from_its_plan() {
    let (gateway, mut running) = gateway().await;
    let args = json!({"name": "deploy"});
    let (plan, _) = ask(&gateway, &mut running, "add_user", args.clone(), |w| w.mode = Mode::Plan).await;
    let digest = plan.plan.clone().unwrap();
    // Somebody else takes the uid that was promised.
    ask(&gateway, &mut running, "add_user", json!({"name": "other"}), |_| ()).await;
    let before = host(&gateway);
    let (departed, _) = ask(&gateway, &mut running, "add_user", args.clone(), |w| w.plans = vec![digest.clone()]).await;
    assert_eq!((departed.outcome, failure(&departed).0), (Outcome::Failed, "plan-departed"), "{departed:?}");
    assert!(departed.effects.is_empty() && host(&gateway) == before, "nothing of it happened: {departed:?}");

    let unknown = |plans: Vec<String>| move |w: &mut Warrant| w.plans = plans;
    for (verb, args, plans) in [
        ("add_user", args.clone(), vec!["ab".repeat(32)]),
        ("add_user", json!({"name": "another"}), vec![digest.clone()]),
        ("delete_user", json!({"name": "other"}), vec![digest]),
    ] {
        let (report, _) = ask(&gateway, &mut running, verb, args, unknown(plans)).await;
        assert_eq!((report.outcome, failure(&report).0), (Outcome::Failed, "plan-unknown"), "{report:?}");
        assert!(report.effects.is_empty() && host(&gateway) == before);
    }
}

#[tokio::test]
async fn earlier_effects_are_rolled_back_when_a_later_one_departs() {
    let (gateway, mut running) = gateway().await;
    let flood = json!({"effects": 4});
    let (plan, _) = ask(&gateway, &mut running, "effect_flood", flood.clone(), |w| w.mode = Mode::Plan).await;
    assert_eq!((plan.effects.len(), plan.outcome), (4, Outcome::Succeeded), "{plan:?}");
    assert_eq!(diff(&plan, "flood"), (None, Some("0")), "each sees what was planned before it");
    assert_eq!(plan.effects[3].diff[0].before.as_deref(), Some("2"));
    // Bound to what another host saw: the second effect finds something else.
    let mut told = plan.effects.clone();
    told[1].diff[0].before = Some("17".into());
    let subject = viworks_gateway::effects::PlanSubject {
        plugin: "hostile".into(),
        verb: "effect_flood".into(),
        args_sha256: gateway.warrant("effect_flood", flood.clone()).warrant().args_sha256.clone(),
        undo: None,
    };
    gateway.journal.keep_plan(&digest(&told), &subject, &told).await;
    let (departed, _) =
        ask(&gateway, &mut running, "effect_flood", flood.clone(), |w| w.plans = vec![digest(&told)]).await;
    assert_eq!(failure(&departed).0, "plan-departed", "{departed:?}");
    assert_eq!(states(&departed), [("state.set", EffectState::RolledBack)]);
    // All of it is as before: the first plan still holds.
    let (applied, _) =
        ask(&gateway, &mut running, "effect_flood", flood, |w| w.plans = vec![plan.plan.clone().unwrap()]).await;
    assert_eq!(applied.outcome, Outcome::Succeeded, "{applied:?}");
}

#[tokio::test]
async fn what_a_failed_verb_did_is_taken_back() {
    let (gateway, mut running) = gateway().await;
    // It fails at the effect that is one too many.
    let (failed, command) = ask(&gateway, &mut running, "effect_flood", json!({"effects": 1001}), |_| ()).await;
    assert_eq!((failed.outcome, failed.effects.len()), (Outcome::Failed, 1_000));
    assert!(failed.effects.iter().all(|e| e.state == EffectState::RolledBack));
    let (plan, _) = ask(&gateway, &mut running, "effect_flood", json!({"effects": 1}), |w| w.mode = Mode::Plan).await;
    assert_eq!(diff(&plan, "flood"), (None, Some("0")), "nothing is left");
    // Nothing is there to be undone, and that is no failure.
    let (undone, _) = ask(&gateway, &mut running, "effect_flood", json!({}), |w| w.undo = Some(command)).await;
    assert!(undone.outcome == Outcome::Succeeded && undone.effects.is_empty(), "{undone:?}");
}

#[tokio::test]
async fn a_removed_account_comes_back_by_undo_and_goes_again_by_undoing_that() {
    let (gateway, mut running) = gateway().await;
    let name = json!({"name": "deploy"});
    let made = json!({"name": "deploy", "groups": ["docker"], "ssh_keys": [KEY], "comment": "Ann"});
    let (made, created) = ask(&gateway, &mut running, "add_user", made, |_| ()).await;
    let work = gateway.dir.path().join("root/home/deploy/work");
    std::fs::write(&work, "hours of it").unwrap();
    let (_, deleted) = ask(&gateway, &mut running, "delete_user", name.clone(), |_| ()).await;
    assert!(!work.exists() && !passwd(&gateway).contains("deploy"));

    let undo = |command: &CommandId| {
        let command = command.clone();
        move |w: &mut Warrant| w.undo = Some(command)
    };
    // Undoing the older command first is a conflict: what it made is not there.
    let (early, _) = ask(&gateway, &mut running, "add_user", json!({}), undo(&created)).await;
    assert_eq!((failure(&early).0, early.effects.len()), ("conflict", 0), "{early:?}");

    let before = host(&gateway);
    let (plan, _) = ask(&gateway, &mut running, "delete_user", json!({}), |w| {
        (w.undo, w.mode) = (Some(deleted.clone()), Mode::Plan);
    })
    .await;
    assert_eq!(states(&plan), [("accounts.restore", EffectState::Planned)], "{plan:?}");
    assert_eq!(diff(&plan, "home"), (Some("in quarantine"), Some("/home/deploy")));
    assert_eq!(host(&gateway), before);

    let (undone, undoing) = ask(&gateway, &mut running, "delete_user", json!({}), |w| {
        (w.undo, w.plans) = (Some(deleted.clone()), vec![plan.plan.clone().unwrap()]);
    })
    .await;
    assert_eq!(states(&undone), [("accounts.restore", EffectState::Applied)], "{undone:?}");
    assert_eq!(std::fs::read_to_string(&work).unwrap(), "hours of it");
    let (listed, _) = ask(&gateway, &mut running, "list_users", json!({}), |_| ()).await;
    assert_eq!(result(&listed)[0], result(&made), "as it was, ids included");

    // Undone twice is a conflict; the undo undone is a removal again.
    let (twice, _) = ask(&gateway, &mut running, "delete_user", json!({}), undo(&deleted)).await;
    assert_eq!(failure(&twice).0, "conflict", "{twice:?}");
    let (again, redone) = ask(&gateway, &mut running, "delete_user", json!({}), undo(&undoing)).await;
    assert_eq!(states(&again), [("accounts.remove", EffectState::Applied)], "{again:?}");
    assert!(!work.exists());
    let (_, _) = ask(&gateway, &mut running, "delete_user", json!({}), undo(&redone)).await;
    assert_eq!(std::fs::read_to_string(&work).unwrap(), "hours of it");

    // Changed since: the account is not what was made any more.
    ask(&gateway, &mut running, "lock_user", name, |_| ()).await;
    let before = host(&gateway);
    let (late, _) = ask(&gateway, &mut running, "add_user", json!({}), undo(&created)).await;
    assert_eq!(failure(&late).0, "conflict", "{late:?}");
    assert!(late.failure.as_ref().is_some_and(|f| f.message.contains("lock")), "{late:?}");
    assert_eq!(host(&gateway), before);

    let never = CommandId::new(1);
    let (unknown, _) = ask(&gateway, &mut running, "delete_user", json!({}), undo(&never)).await;
    assert_eq!((unknown.outcome, failure(&unknown).0), (Outcome::Failed, "undo-unknown"));
}

#[tokio::test]
async fn a_vpn_user_keeps_key_and_address_over_an_undone_deletion() {
    let (gateway, mut running) = gateway().await;
    let name = json!({"name": "road-1"});
    let before = host(&gateway);
    let (plan, _) = ask(&gateway, &mut running, "add_vpn_user", name.clone(), |w| w.mode = Mode::Plan).await;
    assert_eq!(diff(&plan, "address"), (None, Some("10.8.0.2/32")), "{plan:?}");
    assert_eq!(diff(&plan, "key"), (None, Some("a new one")));
    let configuration = result(&plan)["configuration"].as_str().unwrap_or_default().to_owned();
    assert!(configuration.contains("PrivateKey = (made when this is applied)"), "no key is made: {configuration}");
    assert_eq!(host(&gateway), before);

    let plans = vec![plan.plan.clone().unwrap()];
    let (added, _) = ask(&gateway, &mut running, "add_vpn_user", name.clone(), |w| w.plans = plans).await;
    assert_eq!(added.outcome, Outcome::Succeeded, "{added:?}");
    let with = host(&gateway);
    let (gone, deleted) = ask(&gateway, &mut running, "delete_vpn_user", name, |_| ()).await;
    assert_eq!(result(&gone)["identity"], result(&added)["peer"]["identity"]);
    assert_ne!(host(&gateway), with);
    let (undone, _) = ask(&gateway, &mut running, "delete_vpn_user", json!({}), |w| w.undo = Some(deleted)).await;
    assert_eq!(states(&undone), [("vpn.restore-peer", EffectState::Applied)], "{undone:?}");
    assert_eq!(host(&gateway), with, "byte for byte");
}

#[tokio::test]
async fn an_undo_needs_what_its_effects_need_and_reads_stay_reads_in_plans() {
    let (mut gateway, mut running) = gateway().await;
    let (_, command) = ask(&gateway, &mut running, "add_user", json!({"name": "deploy"}), |_| ()).await;
    gateway.reopen(|policy| policy.scopes.accounts = None);
    gateway.plugins.load().await;
    let mut running = gateway.executor(1, 1);
    let (report, _) = ask(&gateway, &mut running, "add_user", json!({}), |w| w.undo = Some(command)).await;
    assert_ne!(report.outcome, Outcome::Succeeded, "{report:?}");
    assert!(report.effects.is_empty() && passwd(&gateway).contains("deploy"));

    let gateway = Gateway::new("[state]").with(&["read-effect"]).await;
    let mut running = gateway.executor(1, 1);
    let (report, _) = ask(&gateway, &mut running, "peek", json!({"key": "k"}), |w| w.mode = Mode::Plan).await;
    assert_eq!((report.outcome, failure(&report).1), (Outcome::Denied, Some("release: verb effect is read")));
}

#[tokio::test]
async fn a_script_is_listed_in_a_plan_and_not_run() {
    let text = "#!/bin/sh\necho ran >> \"$1\"\n";
    let sha256 = {
        use sha2::Digest as _;
        hex::encode(sha2::Sha256::digest(text))
    };
    let gateway = Gateway::with_host(&format!("[scripts]\npins = {{ \"go.sh\" = \"{sha256}\" }}\n"), |dir, config| {
        use std::os::unix::fs::PermissionsExt as _;
        let root = dir.join("scripts");
        std::fs::create_dir(&root).unwrap();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(root.join("go.sh"), text).unwrap();
        std::fs::set_permissions(root.join("go.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        config.scripts.root = Some(root);
    });
    let gateway = gateway.with_plugins(&["scripts"]).await;
    let mut running = gateway.executor(1, 1);
    let ran = gateway.dir.path().join("ran");
    let args = json!({"name": "go.sh", "args": [ran]});
    let (plan, _) = ask(&gateway, &mut running, "run_script", args.clone(), |w| w.mode = Mode::Plan).await;
    assert_eq!((plan.outcome, failure(&plan).0), (Outcome::Failed, "unavailable"), "{plan:?}");
    assert_eq!(states(&plan), [("scripts.run", EffectState::Planned)]);
    assert!(plan.effects[0].irreversible && !ran.exists());
    assert_eq!(diff(&plan, "sha256"), (None, Some(sha256.as_str())));

    let plans = vec![plan.plan.clone().unwrap()];
    let (applied, command) = ask(&gateway, &mut running, "run_script", args, |w| w.plans = plans).await;
    assert!(applied.outcome == Outcome::Succeeded && ran.exists(), "{applied:?}");
    let (undone, _) = ask(&gateway, &mut running, "run_script", json!({}), |w| w.undo = Some(command)).await;
    assert_eq!(failure(&undone).0, "irreversible", "{undone:?}");
}

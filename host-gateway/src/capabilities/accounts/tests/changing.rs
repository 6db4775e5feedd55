//! `lock`, `unlock`, `set-groups`: before, after, and back.

use super::super::{Lock, LockState};
use super::*;

async fn lock(bench: &Bench, name: &str) -> Answer<wit::Account> {
    untrapped(call(bench).await.lock(name.into()).await)
}

async fn unlock(bench: &Bench, name: &str) -> Answer<wit::Account> {
    untrapped(call(bench).await.unlock(name.into()).await)
}

async fn set_groups(bench: &Bench, groups: &[&str]) -> Answer<wit::Account> {
    let groups = groups.iter().map(|g| (*g).to_owned()).collect();
    untrapped(call(bench).await.set_groups("deploy".into(), groups).await)
}

fn shadow(bench: &Bench) -> String {
    etc(bench, "shadow").lines().find(|l| l.starts_with("deploy:")).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn locking_closes_password_and_key_logins_and_unlocking_opens_them() {
    let bench = bench();
    good(create(&bench, wit::NewAccount { password_hash: Some(HASH.into()), ..new("deploy") }).await);
    let before = shadow(&bench);
    let locked = good(lock(&bench, "deploy").await);
    assert!(locked.locked && locked.expired);
    assert!(shadow(&bench).starts_with(&format!("deploy:!{HASH}:")) && shadow(&bench).ends_with(":1:"));
    assert!(good(lock(&bench, "deploy").await).locked, "twice is once");
    let unlocked = good(unlock(&bench, "deploy").await);
    assert!(!unlocked.locked && !unlocked.expired);
    assert_eq!(shadow(&bench), before);
    assert!(!good(unlock(&bench, "deploy").await).locked);
    assert_eq!(refused(lock(&bench, "nobody-there").await).0, "not-found");
    assert_eq!(refused(lock(&bench, "root").await).0, "denied");
}

#[tokio::test]
async fn an_account_without_a_password_never_gets_an_empty_one() {
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    good(lock(&bench, "deploy").await);
    assert!(!good(unlock(&bench, "deploy").await).locked);
    assert!(shadow(&bench).starts_with("deploy:*:"));
    let bare = etc(&bench, "shadow").replace("deploy:*:", "deploy:!:");
    assert!(std::fs::write(root(&bench).join("etc/shadow"), bare).is_ok());
    good(lock(&bench, "deploy").await);
    let unlocked = good(unlock(&bench, "deploy").await);
    assert!(unlocked.locked && !unlocked.expired);
    assert!(shadow(&bench).starts_with("deploy:!:"));
}

#[tokio::test]
async fn taking_back_a_lock_restores_the_very_expiry() {
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    let contract = shadow(&bench).split(':').take(3).collect::<Vec<_>>().join(":") + ":::::40000:";
    let line = shadow(&bench);
    assert!(std::fs::write(root(&bench).join("etc/shadow"), etc(&bench, "shadow").replace(&line, &contract)).is_ok());
    let before = LockState { locked: false, expires: Some(40_000) };
    let change = Lock { name: "deploy".into(), uid: 20_000, before, after: LockState::LOCKED };
    let back = apply(&bench, Change::Lock(change.clone())).await;
    assert_eq!(back, Ok(Change::Unlock(change.reversed())));
    assert!(find(&bench, "deploy").await.is_some_and(|a| a.locked && a.expired));
    assert_eq!(apply(&bench, Change::Unlock(change.reversed())).await, Ok(Change::Lock(change.clone())));
    assert_eq!(shadow(&bench), contract);
    // Decided for another state of the host.
    assert!(matches!(apply(&bench, Change::Unlock(change.reversed())).await, Err(Failure::Conflict(_))));
    // An expiry that `lock` did not set stays when unlocking.
    good(unlock(&bench, "deploy").await);
    assert!(shadow(&bench).contains(":40000:"));
}

#[tokio::test]
async fn groups_are_replaced_and_come_back() {
    let bench = bench();
    good(create(&bench, wit::NewAccount { groups: vec!["docker".into()], ..new("deploy") }).await);
    assert_eq!(good(set_groups(&bench, &["developers"]).await).groups, ["developers"]);
    assert!(good(set_groups(&bench, &[]).await).groups.is_empty());
    let change = |before: &[&str], after: &[&str]| Change::SetGroups {
        name: "deploy".into(),
        uid: 20_000,
        before: before.iter().map(|g| (*g).to_owned()).collect(),
        after: after.iter().map(|g| (*g).to_owned()).collect(),
    };
    assert_eq!(apply(&bench, change(&[], &["docker"])).await, Ok(change(&["docker"], &[])));
    assert!(matches!(apply(&bench, change(&[], &["docker"])).await, Err(Failure::Conflict(_))));
    assert!(matches!(apply(&bench, change(&["docker"], &["gone"])).await, Err(Failure::NotFound(_))));
    assert_eq!(apply(&bench, change(&["docker"], &[])).await, Ok(change(&[], &["docker"])));
}

#[tokio::test]
async fn groups_outside_the_grant_are_neither_given_nor_taken() {
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    let group = etc(&bench, "group").replace("staff:x:50:", "staff:x:50:deploy");
    assert!(std::fs::write(root(&bench).join("etc/group"), group).is_ok());
    let denied = ("denied", "policy: accounts.groups".to_owned());
    assert_eq!(refused(set_groups(&bench, &[]).await), denied, "staff would be taken");
    assert_eq!(refused(set_groups(&bench, &["staff", "users"]).await), denied, "users would be given");
    assert_eq!(good(set_groups(&bench, &["staff", "docker"]).await).groups, ["docker", "staff"]);
    assert_eq!(refused(set_groups(&bench, &["staff", "root"]).await).1, "gateway: accounts.system");
}

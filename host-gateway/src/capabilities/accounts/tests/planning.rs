//! A plan: every function answers as if what was planned before had happened, and the host
//! stays as it is. And the quarantine's expiry.

use super::*;

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for path in std::fs::read_dir(&at).into_iter().flatten().flatten().map(|e| e.path()) {
            if path.is_dir() {
                left.push(path.clone());
            }
            found.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_plan_sees_itself_and_changes_nothing() {
    let bench = bench();
    good(create(&bench, new("there")).await);
    let before = files(&root(&bench));
    let mut plan = bench.plan(&release(), &scopes(policy_scope())).await;

    let asked = wit::NewAccount { ssh_keys: vec![KEY.into()], ..new("deploy") };
    let made = good(untrapped(plan.create(asked.clone()).await));
    assert_eq!((made.uid, made.gid, made.home.as_str()), (20_001, 20_001, "/home/deploy"));
    assert_eq!(refused(untrapped(plan.create(asked.clone()).await)).0, "conflict", "it exists in the plan");
    assert!(good(untrapped(plan.find("deploy".into()).await)).is_some());
    let grouped = good(untrapped(plan.set_groups("deploy".into(), vec!["docker".into()]).await));
    assert_eq!(grouped.groups, ["docker"]);
    let locked = good(untrapped(plan.lock("deploy".into()).await));
    assert!(locked.locked && locked.expired);
    assert!(!good(untrapped(plan.unlock("deploy".into()).await)).locked);
    good(untrapped(plan.set_ssh_keys("deploy".into(), Vec::new()).await));
    good(untrapped(plan.remove("there".into(), wit::HomeFate::Quarantine).await));
    let names: Vec<_> = good(untrapped(plan.list().await)).into_iter().map(|a| a.name).collect();
    assert_eq!(names, ["deploy"]);
    good(untrapped(plan.remove("deploy".into(), wit::HomeFate::Quarantine).await));
    // Its uid stays with its home.
    assert_eq!(good(untrapped(plan.create(asked).await)).uid, 20_002);

    let reports = plan.recorder.reports();
    let keys = &reports[4].diff;
    assert_eq!((keys[0].field.as_str(), keys[0].before.as_deref(), &keys[0].after), ("ssh key", Some(KEY), &None));
    assert_eq!(reports.len(), 8);
    assert!(reports.iter().all(|r| r.state == viworks_protocol::outcome::EffectState::Planned && !r.irreversible));
    assert_eq!(files(&root(&bench)), before);
}

#[tokio::test]
async fn parallel_creations_get_uids_of_their_own() {
    let bench = bench();
    let (a, b, c) = tokio::join!(create(&bench, new("a")), create(&bench, new("b")), create(&bench, new("c")));
    let mut uids = [good(a).uid, good(b).uid, good(c).uid];
    uids.sort_unstable();
    assert_eq!(uids, [20_000, 20_001, 20_002]);
}

#[tokio::test]
async fn an_account_that_changed_since_is_not_taken_back() {
    let bench = bench();
    let scope = scopes(policy_scope());
    let mut call = bench.call(&release(), &scope, EffectClass::Change).await;
    good(untrapped(call.create(new("deploy")).await));
    good(untrapped(self::call(&bench).await.set_groups("deploy".into(), vec!["docker".into()]).await));
    assert_eq!(call.recorder.end(false).await, None);
    let states: Vec<_> = call.recorder.reports().iter().map(|r| r.state).collect();
    assert_eq!(states, [viworks_protocol::outcome::EffectState::Stuck]);
    assert!(find(&bench, "deploy").await.is_some());
}

#[tokio::test]
async fn a_home_expires_in_quarantine_and_can_not_come_back() {
    let quarantine = |bench: &Bench| root(bench).join("var/lib/viworks-gateway/quarantine");
    let bench = bench_with(|config| config.quarantine_days = 2);
    good(create(&bench, new("old")).await);
    good(create(&bench, new("young")).await);
    let remove = |name: &str, uid| Change::Remove { name: name.into(), uid, home: Home::Quarantine, record: None };
    let Ok(back) = apply(&bench, remove("old", 20_000)).await else { panic!("it is removed") };
    assert!(apply(&bench, remove("young", 20_001)).await.is_ok());
    assert_eq!(bench.host.accounts.sweep().await, Ok(Vec::new()), "neither is old enough");

    // Removed three days ago, says its note.
    let notes = std::fs::read_dir(quarantine(&bench)).into_iter().flatten().flatten().map(|e| e.path());
    for path in notes.filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let Ok(text) = std::fs::read_to_string(&path) else { panic!("{}", path.display()) };
        let Ok(mut note) = serde_json::from_str::<serde_json::Value>(&text) else { panic!("{text}") };
        if note["name"] == "old" {
            note["removed_at"] = (note["removed_at"].as_i64().unwrap_or_default() - 3 * 86_400).into();
            assert!(std::fs::write(&path, note.to_string()).is_ok());
        }
    }
    let swept = bench.host.accounts.sweep().await.unwrap_or_default();
    assert_eq!(swept.iter().map(|s| (s.account.as_str(), s.uid)).collect::<Vec<_>>(), [("old", 20_000)]);
    let left = std::fs::read_dir(quarantine(&bench)).into_iter().flatten().flatten().count();
    assert_eq!(left, 2, "the other's home and its note");
    let gone = apply(&bench, back).await;
    assert!(matches!(&gone, Err(Failure::NotFound(why)) if why.contains("quarantine")), "{gone:?}");
    // Its uid is free again.
    assert_eq!(good(create(&bench, new("next")).await).uid, 20_000);
}

#[tokio::test]
async fn what_a_crash_left_is_traced_and_taken_back() {
    use crate::effects::Trace;
    let bench = bench();
    let trace = async |effect: &Effect| match effect.trace(&bench.host).await {
        Ok(trace) => trace,
        Err(failure) => panic!("{failure}"),
    };
    let create = Effect::Accounts(Change::Create(super::super::NewAccount {
        name: "deploy".into(),
        comment: String::new(),
        shell: "/bin/sh".into(),
        home_root: "/home".into(),
        groups: vec!["docker".into()],
        ssh_keys: Vec::new(),
        password_hash: Some(HASH.into()),
        uid: None,
        uids: UidRange { min: 20_000, max: 20_001 },
    }));
    let foreseen = match create.foresee(&bench.host, &[]).await {
        Ok(foreseen) => foreseen.effect,
        Err(failure) => panic!("{failure}"),
    };
    assert_eq!(trace(&foreseen).await, Trace::Absent);
    let Ok(applied) = bench.apply(&foreseen).await else { panic!("it is made") };
    let Trace::Present(Inverse::Effect(inverse)) = trace(&foreseen).await else { panic!("it is there") };
    // Half made: without its hash and its home.
    let shadow = etc(&bench, "shadow").replace(HASH, "*");
    assert!(std::fs::write(root(&bench).join("etc/shadow"), shadow).is_ok());
    assert!(std::fs::remove_dir_all(root(&bench).join("home/deploy")).is_ok());
    assert!(bench.apply(&inverse).await.is_ok());
    assert_eq!(trace(&foreseen).await, Trace::Absent);
    drop(applied);

    // A removal that stopped between the home and the account.
    good(self::create(&bench, new("second")).await);
    let remove =
        Effect::Accounts(Change::Remove { name: "second".into(), uid: 20_000, home: Home::Quarantine, record: None });
    let removal = match remove.foresee(&bench.host, &[]).await {
        Ok(foreseen) => foreseen.effect,
        Err(failure) => panic!("{failure}"),
    };
    assert_eq!(trace(&removal).await, Trace::Absent);
    let Effect::Accounts(Change::Remove { record: Some(record), .. }) = &removal else { panic!("{removal:?}") };
    let Some(place) = &record.quarantined else { panic!("{record:?}") };
    let moved = record.clone();
    let at = place.clone();
    let put = bench.host.accounts.blocking(move |site| super::super::quarantine::put(site, &moved, &at)).await;
    assert_eq!(put, Ok(()));
    let Trace::Present(Inverse::Effect(inverse)) = trace(&removal).await else { panic!("half of it happened") };
    assert!(bench.apply(&inverse).await.is_ok());
    assert!(root(&bench).join("home/second").is_dir() && find(&bench, "second").await.is_some());
    assert_eq!(trace(&removal).await, Trace::Absent);

    // A restoration that stopped between the account and the home.
    assert!(bench.apply(&removal).await.is_ok());
    let Inverse::Effect(restore) = removal.inverse() else { panic!("it can be taken back") };
    assert_eq!(trace(&restore).await, Trace::Absent);
    assert!(bench.apply(&restore).await.is_ok());
    let (moved, at) = (record.clone(), place.clone());
    let put = bench.host.accounts.blocking(move |site| super::super::quarantine::put(site, &moved, &at)).await;
    assert_eq!(put, Ok(()));
    let Trace::Present(Inverse::Effect(inverse)) = trace(&restore).await else { panic!("half of it happened") };
    assert!(bench.apply(&inverse).await.is_ok());
    assert!(find(&bench, "second").await.is_none(), "and its home waits on");
    assert!(bench.apply(&restore).await.is_ok());
    assert!(root(&bench).join("home/second").is_dir(), "until it is restored");
}

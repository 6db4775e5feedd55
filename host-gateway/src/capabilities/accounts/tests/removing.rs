//! `remove`, the quarantine, and the way back.

use super::*;

fn quarantine(bench: &Bench) -> PathBuf {
    root(bench).join("var/lib/viworks-gateway/quarantine")
}

fn entries(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).map(|d| d.filter_map(Result::ok).map(|e| e.file_name()).collect::<Vec<_>>());
    let mut names: Vec<_> = names.unwrap_or_default().iter().map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_removed_account_comes_back_as_it_was() {
    let bench = bench();
    let account = wit::NewAccount {
        comment: Some("Ann".into()),
        groups: vec!["docker".into()],
        ssh_keys: vec![KEY.into()],
        password_hash: Some(HASH.into()),
        ..new("deploy")
    };
    let made = good(create(&bench, account).await);
    let home = root(&bench).join("home/deploy");
    assert!(std::fs::write(home.join("work"), "hours of it").is_ok());

    let remove = Change::Remove { name: "deploy".into(), uid: 20_000, home: Home::Quarantine, record: None };
    let back = match apply(&bench, remove).await {
        Ok(back @ Change::Restore(_)) => back,
        other => panic!("{other:?}"),
    };
    assert!(!home.exists() && !etc(&bench, "passwd").contains("deploy") && !etc(&bench, "group").contains("deploy"));
    assert_eq!(looks(&quarantine(&bench)).0, 0o700);
    let there = entries(&quarantine(&bench));
    assert_eq!(there.len(), 2);
    assert_eq!(format!("{}.json", there[0]), there[1]);
    let note = std::fs::read_to_string(quarantine(&bench).join(&there[1])).unwrap_or_default();
    for part in ["\"uid\": 20000", "\"groups\"", "docker", "/bin/bash", "/home/deploy"] {
        assert!(note.contains(part), "{part} in {note}");
    }
    assert!(!note.contains(HASH));
    assert_eq!(looks(&quarantine(&bench).join(&there[1])).0, 0o600);

    // The value survives the journal.
    let json = serde_json::to_string(&back).unwrap_or_default();
    let Ok(back) = serde_json::from_str::<Change>(&json) else { panic!("{json}") };
    let again = apply(&bench, back).await;
    assert!(
        matches!(&again, Ok(Change::Remove { name, uid: 20_000, home: Home::Quarantine, record: Some(_) }) if name == "deploy"),
        "{again:?}"
    );
    assert!(entries(&quarantine(&bench)).is_empty());
    let Some(restored) = find(&bench, "deploy").await else { panic!("it is not back") };
    assert_eq!(format!("{restored:?}"), format!("{made:?}"));
    assert!(etc(&bench, "shadow").contains(&format!("deploy:{HASH}:")));
    assert_eq!(std::fs::read_to_string(home.join("work")).unwrap_or_default(), "hours of it");
}

#[tokio::test]
async fn creating_is_taken_back_by_removing() {
    let bench = bench();
    let new = super::super::NewAccount {
        name: "deploy".into(),
        comment: String::new(),
        shell: "/bin/sh".into(),
        home_root: "/home".into(),
        groups: Vec::new(),
        ssh_keys: Vec::new(),
        password_hash: None,
        uid: None,
        uids: UidRange { min: 20_000, max: 20_001 },
    };
    let back = apply(&bench, Change::Create(new)).await;
    let Ok(back @ Change::Remove { uid: 20_000, home: Home::Quarantine, .. }) = back else { panic!("{back:?}") };
    assert!(matches!(apply(&bench, back).await, Ok(Change::Restore(_))));
    assert!(find(&bench, "deploy").await.is_none());
}

#[tokio::test]
async fn a_uid_that_a_home_still_has_is_not_given_away() {
    let bench = bench();
    good(create(&bench, new("first")).await);
    good(create(&bench, new("second")).await);
    good(remove(&bench, "first", wit::HomeFate::Quarantine).await);
    good(remove(&bench, "second", wit::HomeFate::Keep).await);
    assert!(root(&bench).join("home/second").is_dir());
    // An unprivileged gateway can't give homes away, so a kept home does not show its uid.
    let next = if is_root() { 20_002 } else { 20_001 };
    assert_eq!(good(create(&bench, new("third")).await).uid, next);
    let asked = wit::NewAccount { uid: Some(20_000), ..new("fourth") };
    assert_eq!(refused(create(&bench, asked).await).0, "conflict");
}

#[tokio::test]
async fn an_account_without_a_home_is_removed() {
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    assert!(std::fs::remove_dir_all(root(&bench).join("home/deploy")).is_ok());
    assert_eq!(good(remove(&bench, "deploy", wit::HomeFate::Quarantine).await).uid, 20_000);
    assert!(entries(&quarantine(&bench)).is_empty());
}

#[tokio::test]
async fn another_file_system_is_refused_and_nothing_is_moved() {
    use std::os::unix::fs::MetadataExt as _;
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).ok();
    let bench = bench();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    if device(elsewhere.path()) == device(bench.dir.path()) {
        return; // This machine has one file system only.
    }
    let bench = bench_with(|config| config.quarantine = Some(elsewhere.path().join("quarantine")));
    good(create(&bench, new("deploy")).await);
    let (case, why) = refused(remove(&bench, "deploy", wit::HomeFate::Quarantine).await);
    assert!(case == "conflict" && why.contains("set `quarantine`"), "{why}");
    assert!(find(&bench, "deploy").await.is_some() && root(&bench).join("home/deploy").is_dir());
    assert!(entries(&elsewhere.path().join("quarantine")).is_empty());
}

#[tokio::test]
async fn a_quarantine_that_others_can_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    assert!(std::fs::create_dir_all(quarantine(&bench)).is_ok());
    assert!(std::fs::set_permissions(quarantine(&bench), std::fs::Permissions::from_mode(0o755)).is_ok());
    assert!(refused(remove(&bench, "deploy", wit::HomeFate::Quarantine).await).1.contains("0700"));
    assert!(root(&bench).join("home/deploy").is_dir());
}

#[tokio::test]
async fn a_failing_userdel_brings_the_home_back() {
    let bench = bench_with(|config| config.userdel = Some("/bin/false".into()));
    good(create(&bench, new("deploy")).await);
    assert_eq!(refused(remove(&bench, "deploy", wit::HomeFate::Quarantine).await).0, "unavailable");
    assert!(root(&bench).join("home/deploy").is_dir());
    assert!(entries(&quarantine(&bench)).is_empty());
}

#[tokio::test]
async fn what_is_not_the_grants_to_remove_is_refused() {
    let bench = bench();
    let keep = || wit::HomeFate::Keep;
    good(create(&bench, new("deploy")).await);
    let others = "toor:x:0:0::/:/bin/sh\nsvc:x:120:1::/:/bin/sh\nroot2:x:0:0::/:/bin/sh\nfar:x:30000:1::/:/bin/sh\n";
    assert!(std::fs::write(root(&bench).join("etc/passwd"), etc(&bench, "passwd") + others).is_ok());
    for (name, rule) in [
        ("root", "gateway: accounts.system"),
        ("toor", "gateway: accounts.system"),
        ("root2", "gateway: accounts.system"),
        ("svc", "gateway: accounts.system"),
        ("far", "policy: accounts.uids"),
    ] {
        assert_eq!(refused(remove(&bench, name, keep()).await), ("denied", rule.to_owned()), "{name}");
    }
    assert_eq!(refused(remove(&bench, "nobody-there", keep()).await).0, "not-found");
    assert_eq!(refused(remove(&bench, "x;id", keep()).await).0, "invalid-argument");
    let fate = wit::HomeFate::Other("burn".into());
    assert_eq!(refused(remove(&bench, "deploy", fate).await).0, "invalid-argument");

    // Effects that did not pass the gate: from a journal, for a host that has changed.
    let remove = |name: &str, uid| Change::Remove { name: name.into(), uid, home: Home::Keep, record: None };
    for change in [remove("root", 0), remove("svc", 120), remove("deploy", 20_001)] {
        assert!(matches!(apply(&bench, change.clone()).await, Err(Failure::Conflict(_))), "{change:?}");
    }
    let twin = "twin:x:20000:1::/:/bin/sh\n";
    assert!(std::fs::write(root(&bench).join("etc/passwd"), etc(&bench, "passwd") + twin).is_ok());
    assert!(matches!(apply(&bench, remove("deploy", 20_000)).await, Err(Failure::Conflict(_))));
}

#[tokio::test]
async fn a_home_outside_the_home_root_is_kept_or_refused() {
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    let moved = etc(&bench, "passwd").replace(":/home/deploy:", ":/etc:");
    assert!(std::fs::write(root(&bench).join("etc/passwd"), moved).is_ok());
    let (case, rule) = refused(remove(&bench, "deploy", wit::HomeFate::Quarantine).await);
    assert_eq!((case, rule.as_str()), ("denied", "release: accounts.home_root"));
    good(remove(&bench, "deploy", wit::HomeFate::Keep).await);
    assert!(root(&bench).join("etc").is_dir());
}

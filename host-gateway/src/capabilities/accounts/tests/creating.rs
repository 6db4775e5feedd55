//! `create`, `find`, `list`: what comes to be, and what never does.

use super::*;

#[tokio::test]
async fn an_account_is_created_whole() {
    let bench = bench();
    let made = good(
        create(
            &bench,
            wit::NewAccount {
                comment: Some("Ann Müller".into()),
                groups: vec!["docker".into(), "developers".into(), "docker".into()],
                ssh_keys: vec![KEY.into(), KEY.into()],
                password_hash: Some(HASH.into()),
                ..new("deploy")
            },
        )
        .await,
    );
    assert_eq!((made.name.as_str(), made.uid, made.shell.as_str()), ("deploy", 20_000, "/bin/bash"));
    assert_eq!((made.home.as_str(), made.comment.as_str()), ("/home/deploy", "Ann Müller"));
    assert_eq!(made.groups, ["developers", "docker"]);
    assert!(!made.locked && !made.expired);
    assert!(etc(&bench, "passwd").contains("deploy:x:20000:20000:Ann Müller:/home/deploy:/bin/bash\n"));
    assert!(etc(&bench, "shadow").contains(&format!("deploy:{HASH}:")));

    let home = root(&bench).join("home/deploy");
    let owner = if is_root() { 20_000 } else { rustix::process::geteuid().as_raw() };
    assert_eq!(looks(&home), (0o700, owner));
    assert_eq!(looks(&home.join(".ssh")), (0o700, owner));
    assert_eq!(looks(&home.join(".ssh/authorized_keys")), (0o600, owner));
    let keys = std::fs::read_to_string(home.join(".ssh/authorized_keys"));
    assert_eq!(keys.unwrap_or_default(), format!("{KEY}\n"), "the same key twice is one line");
    assert!(find(&bench, "deploy").await.is_some_and(|a| a.uid == 20_000));
}

#[tokio::test]
async fn without_a_password_it_is_closed_to_passwords_but_not_locked() {
    let bench = bench();
    let made = good(create(&bench, wit::NewAccount { uid: Some(20_500), ..new("plain") }).await);
    assert_eq!((made.uid, made.locked), (20_500, false));
    assert!(etc(&bench, "shadow").contains("plain:*:"));
    assert!(!root(&bench).join("home/plain/.ssh").exists());
}

#[tokio::test]
async fn what_is_malformed_or_not_granted_changes_nothing() {
    let bench = bench();
    good(untrapped(call(&bench).await.list().await));
    let before = ["passwd", "group", "shadow"].map(|f| etc(&bench, f));
    let with = |change: fn(&mut wit::NewAccount)| {
        let mut account = new("deploy");
        change(&mut account);
        account
    };
    let cases = [
        (with(|a| a.name = "x;reboot".into()), "invalid-argument", "name"),
        (with(|a| a.name = "UPPER".into()), "invalid-argument", "name"),
        (with(|a| a.name = "1abc".into()), "invalid-argument", "name"),
        (with(|a| a.name = "--help".into()), "invalid-argument", "name"),
        (with(|a| a.name = "../etc".into()), "invalid-argument", "name"),
        (with(|a| a.name = "root".into()), "denied", "gateway: accounts.system"),
        (with(|a| a.name = "sudo".into()), "denied", "gateway: accounts.system"),
        (with(|a| a.uid = Some(0)), "denied", "gateway: accounts.system"),
        (with(|a| a.uid = Some(999)), "denied", "gateway: accounts.system"),
        (with(|a| a.uid = Some(30_000)), "denied", "policy: accounts.uids"),
        (with(|a| a.comment = Some("a:b".into())), "invalid-argument", "comment"),
        (with(|a| a.comment = Some("a\nb".into())), "invalid-argument", "comment"),
        (with(|a| a.shell = Some("/bin/zsh".into())), "denied", "release: accounts.shells"),
        (with(|a| a.shell = Some("/usr/sbin/nologin".into())), "denied", "policy: accounts.shells"),
        (with(|a| a.groups = vec!["staff".into()]), "denied", "policy: accounts.groups"),
        (with(|a| a.groups = vec!["root".into()]), "denied", "gateway: accounts.system"),
        (with(|a| a.groups = vec!["docker,root".into()]), "invalid-argument", "name"),
        (with(|a| a.groups = vec!["devnone".into()]), "not-found", "devnone"),
        (with(|a| a.groups = vec!["docker".into(); 33]), "invalid-argument", "groups"),
        (with(|a| a.password_hash = Some("secret".into())), "invalid-argument", "hash"),
        (with(|a| a.ssh_keys = vec![format!("command=\"id\" {KEY}")]), "invalid-argument", "ssh key 1"),
        (with(|a| a.ssh_keys = vec![KEY.into(), "ssh-rsa AAAA".into()]), "invalid-argument", "ssh key 2"),
        (with(|a| a.ssh_keys = vec![KEY.into(); 65]), "invalid-argument", "ssh keys"),
    ];
    for (account, case, text) in cases {
        let shown = format!("{account:?}");
        let (got, why) = refused(create(&bench, account).await);
        assert!(got == case && why.contains(text), "{shown}: {got}: {why}");
        assert!(!why.contains("secret"));
    }
    assert_eq!(before, ["passwd", "group", "shadow"].map(|f| etc(&bench, f)));
    assert!(!root(&bench).join("home/deploy").exists());
}

#[tokio::test]
async fn scopes_that_leave_nothing_name_their_rule() {
    let bench = bench();
    let tried = |policy: AccountsScope, account: wit::NewAccount| {
        let (bench, release) = (&bench, release());
        async move {
            let mut call = bench.call(&release, &scopes(policy), EffectClass::Change).await;
            refused(untrapped(call.create(account).await)).1
        }
    };
    let named = AccountsScope { names: patterns(&["ci-*"]), ..policy_scope() };
    assert_eq!(tried(named, new("deploy")).await, "policy: accounts.names");
    let disjoint = AccountsScope { uids: UidRange { min: 70_000, max: 70_001 }, ..policy_scope() };
    assert_eq!(tried(disjoint, new("deploy")).await, "release: accounts.uids");
    let shells = AccountsScope { shells: vec!["/bin/fish".into()], ..policy_scope() };
    assert_eq!(tried(shells, new("deploy")).await, "release: accounts.shells");
    let homes = AccountsScope { home_root: "/srv/home".into(), ..policy_scope() };
    assert_eq!(tried(homes, new("deploy")).await, "release: accounts.home_root");
    let hashes = AccountsScope { password_hashes: false, ..policy_scope() };
    let hashed = wit::NewAccount { password_hash: Some(HASH.into()), ..new("deploy") };
    assert_eq!(tried(hashes, hashed).await, "policy: accounts.password_hashes");

    let mut call = bench.call(&Scopes::default(), &scopes(policy_scope()), EffectClass::Change).await;
    assert_eq!(refused(untrapped(call.create(new("deploy")).await)).1, "grant: accounts");
    let mut call = bench.call(&release(), &scopes(policy_scope()), EffectClass::Read).await;
    assert_eq!(refused(untrapped(call.create(new("deploy")).await)).1, "release: verb effect is read");
    assert!(!etc(&bench, "passwd").contains("deploy"));
}

#[tokio::test]
async fn a_release_may_leave_the_home_root_to_the_policy() {
    let bench = bench();
    let anywhere = AccountsScope { home_root: "/".into(), ..AccountsScope::default() };
    let policy = AccountsScope { home_root: "/srv/people".into(), ..policy_scope() };
    let mut call = bench.call(&scopes(anywhere), &scopes(policy), EffectClass::Change).await;
    assert_eq!(good(untrapped(call.create(new("deploy")).await)).home, "/srv/people/deploy");
    assert!(root(&bench).join("srv/people/deploy").is_dir());
}

#[tokio::test]
async fn what_exists_is_a_conflict() {
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    assert_eq!(refused(create(&bench, new("deploy")).await).0, "conflict");
    let taken = wit::NewAccount { uid: Some(20_000), ..new("other") };
    assert_eq!(refused(create(&bench, taken).await).0, "conflict");
    // A group of the account's name: useradd says so.
    assert!(std::fs::write(root(&bench).join("etc/group"), etc(&bench, "group") + "devs:x:950:\n").is_ok());
    assert_eq!(refused(create(&bench, new("devs")).await).0, "conflict");
    assert!(find(&bench, "devs").await.is_none());
}

#[tokio::test]
async fn twenty_at_once_all_succeed_with_uids_of_their_own() {
    let bench = bench();
    let mut calls = Vec::new();
    for i in 0..20 {
        let mut call = call(&bench).await;
        calls.push(tokio::spawn(async move { untrapped(call.create(new(&format!("user{i}"))).await) }));
    }
    let mut uids = Vec::new();
    for call in calls {
        let Ok(answer) = call.await else { panic!("a create panicked") };
        uids.push(good(answer).uid);
    }
    uids.sort_unstable();
    assert_eq!(uids, (20_000..20_020).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_uid_range_ends() {
    let bench = bench();
    let two = scopes(AccountsScope { uids: UidRange { min: 20_000, max: 20_001 }, ..policy_scope() });
    for (name, fits) in [("a", true), ("b", true), ("c", false)] {
        let mut call = bench.call(&release(), &two, EffectClass::Change).await;
        assert_eq!(untrapped(call.create(new(name)).await).is_ok(), fits, "{name}");
    }
}

#[tokio::test]
async fn only_accounts_of_the_grant_are_shown() {
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    good(create(&bench, new("build")).await);
    let others = "postgres:x:20007:1::/:/bin/sh\nfar:x:30000:1::/:/bin/sh\nodd:x:zero:1::/:/bin/sh\n+::::::\nshort:x\n";
    assert!(std::fs::write(root(&bench).join("etc/passwd"), etc(&bench, "passwd") + others).is_ok());
    let all = good(untrapped(call(&bench).await.list().await));
    assert_eq!(all.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["build", "deploy"]);
    for hidden in ["root", "postgres", "far", "odd", "nobody-there"] {
        assert!(find(&bench, hidden).await.is_none(), "{hidden}");
    }
    assert_eq!(refused(untrapped(call(&bench).await.find("a b".into()).await)).0, "invalid-argument");
}

#[tokio::test]
async fn a_cancelled_call_leaves_no_half_made_account() {
    let bench = bench();
    good(untrapped(call(&bench).await.list().await));
    let mut cancelled = call(&bench).await;
    let account = wit::NewAccount { password_hash: Some(HASH.into()), ..new("deploy") };
    let creating = tokio::spawn(async move { untrapped(cancelled.create(account).await) });
    // useradd has been and home and password are still to come, or not even that.
    let begun = std::time::Instant::now();
    while !etc(&bench, "passwd").contains("deploy") && begun.elapsed() < std::time::Duration::from_secs(10) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    creating.abort();
    // The next change waits for the lock, which is let go at the end.
    good(create(&bench, new("next")).await);
    assert!(find(&bench, "deploy").await.is_some());
    assert!(etc(&bench, "shadow").contains(&format!("deploy:{HASH}:")));
    assert!(root(&bench).join("home/deploy").is_dir());
}

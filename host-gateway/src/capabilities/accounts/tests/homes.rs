//! Homes and keys where somebody has put something else: links, foreign owners, FIFOs.

use std::os::unix::fs::symlink;

use super::*;

fn keys_file(bench: &Bench) -> PathBuf {
    root(bench).join("home/deploy/.ssh/authorized_keys")
}

async fn set_keys(bench: &Bench, keys: &[&str]) -> Answer<wit::Account> {
    let keys = keys.iter().map(|k| (*k).to_owned()).collect();
    untrapped(call(bench).await.set_ssh_keys("deploy".into(), keys).await)
}

/// Leave the home to a victim that must not change.
fn victim(bench: &Bench) -> PathBuf {
    let victim = bench.dir.path().join("victim");
    assert!(std::fs::create_dir_all(&victim).is_ok());
    assert!(std::fs::write(victim.join("authorized_keys"), "untouched").is_ok());
    victim
}

fn untouched(victim: &Path) {
    assert_eq!(std::fs::read_to_string(victim.join("authorized_keys")).unwrap_or_default(), "untouched");
    assert_eq!(std::fs::read_dir(victim).map(Iterator::count).unwrap_or_default(), 1);
}

#[tokio::test]
async fn a_home_that_is_there_already_is_left_alone() {
    let bench = bench();
    let victim = victim(&bench);
    let homes = root(&bench).join("home");
    assert!(std::fs::create_dir_all(homes.join("kept")).is_ok());
    assert!(symlink(&victim, homes.join("linked")).is_ok());
    assert!(symlink("/nonexistent", homes.join("dangling")).is_ok());
    for name in ["kept", "linked", "dangling"] {
        let account = wit::NewAccount { ssh_keys: vec![KEY.into()], ..new(name) };
        let (case, why) = refused(create(&bench, account).await);
        assert!(case == "conflict" && why.contains("exists already"), "{name}: {why}");
        assert!(find(&bench, name).await.is_none(), "{name}");
    }
    untouched(&victim);
}

#[tokio::test]
async fn a_linked_or_open_home_root_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = bench();
    let victim = victim(&bench);
    assert!(std::fs::create_dir_all(root(&bench)).is_ok());
    assert!(symlink(&victim, root(&bench).join("home")).is_ok());
    let (case, why) = refused(create(&bench, new("deploy")).await);
    assert!(case == "conflict" && why.contains("symbolic link"), "{why}");
    untouched(&victim);

    assert!(std::fs::remove_file(root(&bench).join("home")).is_ok());
    assert!(std::fs::create_dir(root(&bench).join("home")).is_ok());
    assert!(std::fs::set_permissions(root(&bench).join("home"), std::fs::Permissions::from_mode(0o777)).is_ok());
    let (case, why) = refused(create(&bench, new("deploy")).await);
    assert!(case == "conflict" && why.contains("written by others"), "{why}");
    assert!(find(&bench, "deploy").await.is_none());
}

#[tokio::test]
async fn a_home_that_cannot_be_finished_takes_its_account_back() {
    let bench = bench_with(|config| {
        let parent = config.root.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        config.skeleton = Some(parent.join("skeleton"));
    });
    let skeleton = bench.dir.path().join("skeleton");
    assert!(std::fs::create_dir(&skeleton).is_ok());
    assert!(std::fs::write(skeleton.join(".profile"), "umask 077\n").is_ok());
    assert!(symlink("/etc/shadow", skeleton.join("link")).is_ok());
    good(create(&bench, new("deploy")).await);
    let home = root(&bench).join("home/deploy");
    assert_eq!(std::fs::read_to_string(home.join(".profile")).unwrap_or_default(), "umask 077\n");
    assert!(!home.join("link").exists());

    assert!(std::fs::write(skeleton.join("huge"), vec![b'x'; 70_000]).is_ok());
    assert_eq!(refused(create(&bench, new("second")).await).0, "conflict");
    assert!(find(&bench, "second").await.is_none());
    assert!(!root(&bench).join("home/second").exists());
    assert!(!etc(&bench, "group").contains("second"));
}

#[tokio::test]
async fn keys_are_replaced_and_the_way_back_is_the_old_text() {
    let bench = bench();
    good(create(&bench, new("deploy")).await);
    good(set_keys(&bench, &[KEY]).await);
    assert_eq!(std::fs::read_to_string(keys_file(&bench)).unwrap_or_default(), format!("{KEY}\n"));
    assert_eq!(looks(&keys_file(&bench)).0, 0o600);

    let old = "from=\"192.0.2.7\" ssh-ed25519 AAAA its owner's line\n";
    assert!(std::fs::write(keys_file(&bench), old).is_ok());
    let change = |before: Option<&str>, after: Option<&str>| Change::SetSshKeys {
        name: "deploy".into(),
        uid: 20_000,
        before: before.map(Into::into),
        after: after.map(Into::into),
    };
    assert!(matches!(apply(&bench, change(Some("stale"), Some("x\n"))).await, Err(Failure::Conflict(_))));
    let back = apply(&bench, change(Some(old), Some("new\n"))).await;
    assert_eq!(back, Ok(change(Some("new\n"), Some(old))));
    assert_eq!(apply(&bench, change(Some("new\n"), None)).await, Ok(change(None, Some("new\n"))));
    assert!(!keys_file(&bench).exists());
    assert_eq!(apply(&bench, change(None, Some(old))).await, Ok(change(Some(old), None)));
    assert_eq!(std::fs::read_to_string(keys_file(&bench)).unwrap_or_default(), old);
}

#[tokio::test]
async fn links_in_a_home_are_refused_and_what_they_point_to_stays() {
    let bench = bench();
    let victim = victim(&bench);
    good(create(&bench, wit::NewAccount { ssh_keys: vec![KEY.into()], ..new("deploy") }).await);
    let (home, ssh) = (root(&bench).join("home/deploy"), root(&bench).join("home/deploy/.ssh"));

    assert!(std::fs::remove_file(keys_file(&bench)).is_ok());
    assert!(symlink(victim.join("authorized_keys"), keys_file(&bench)).is_ok());
    assert_eq!(refused(set_keys(&bench, &[KEY]).await).0, "conflict");
    untouched(&victim);

    assert!(std::fs::remove_dir_all(&ssh).is_ok());
    assert!(symlink(&victim, &ssh).is_ok());
    let (case, why) = refused(set_keys(&bench, &[KEY]).await);
    assert!(case == "conflict" && why.contains("symbolic link"), "{why}");
    untouched(&victim);

    assert!(std::fs::remove_dir_all(&home).is_ok());
    assert!(symlink(&victim, &home).is_ok());
    assert_eq!(refused(set_keys(&bench, &[KEY]).await).0, "conflict");
    assert_eq!(refused(remove(&bench, "deploy", wit::HomeFate::Quarantine).await).0, "conflict");
    untouched(&victim);
    assert!(find(&bench, "deploy").await.is_some());
}

#[tokio::test]
async fn foreign_owners_are_refused_at_every_step() {
    if !is_root() {
        return; // Only root can make files that belong to somebody else.
    }
    use std::os::unix::fs::chown;
    let bench = bench();
    good(create(&bench, wit::NewAccount { ssh_keys: vec![KEY.into()], ..new("deploy") }).await);
    let (home, ssh) = (root(&bench).join("home/deploy"), root(&bench).join("home/deploy/.ssh"));
    for path in [keys_file(&bench), ssh, home.clone()] {
        assert!(chown(&path, Some(20_777), None).is_ok());
        let (case, why) = refused(set_keys(&bench, &[KEY]).await);
        assert!(case == "conflict" && why.contains("belongs to uid 20777"), "{}: {why}", path.display());
        if path == home {
            assert_eq!(refused(remove(&bench, "deploy", wit::HomeFate::Quarantine).await).0, "conflict");
        }
        assert!(chown(&path, Some(20_000), None).is_ok());
    }
    assert!(chown(root(&bench).join("home"), Some(20_777), None).is_ok());
    assert_eq!(refused(set_keys(&bench, &[KEY]).await).0, "conflict");
    assert_eq!(refused(create(&bench, new("other")).await).0, "conflict");
}

#[tokio::test]
async fn a_fifo_or_a_giant_in_place_of_the_keys_is_refused_at_once() {
    let bench = bench();
    good(create(&bench, wit::NewAccount { ssh_keys: vec![KEY.into()], ..new("deploy") }).await);
    let owner = looks(&keys_file(&bench)).1;
    assert!(std::fs::write(keys_file(&bench), vec![b'x'; 70_000]).is_ok());
    assert!(refused(set_keys(&bench, &[KEY]).await).1.contains("larger than"));
    assert!(std::fs::remove_file(keys_file(&bench)).is_ok());
    assert!(
        rustix::fs::mknodat(rustix::fs::CWD, keys_file(&bench), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .is_ok()
    );
    assert!(std::os::unix::fs::chown(keys_file(&bench), Some(owner), None).is_ok());
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), set_keys(&bench, &[KEY])).await;
    let Ok(answer) = answer else { panic!("it waits for the FIFO") };
    assert_eq!(refused(answer).0, "conflict");
}

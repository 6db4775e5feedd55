//! The same provider against this machine's own accounts: throwaway users called
//! `viwtest…`, which are gone afterwards whatever happens. Needs root; says so otherwise.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::*;

/// A throwaway account's name, and the promise that it goes away.
struct Throwaway(String);

impl Drop for Throwaway {
    fn drop(&mut self) {
        let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = quiet(Command::new("/usr/sbin/userdel").args(["-f", "--", &self.0]));
        let _ = std::fs::remove_dir_all(Path::new("/home").join(&self.0));
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_account_lives_from_create_to_restore() {
    if !is_root() {
        return; // Changing the machine's accounts takes root.
    }
    let mut noise = [0_u8; 4];
    assert!(getrandom::fill(&mut noise).is_ok());
    let throwaway = Throwaway(format!("viwtest{}", hex::encode(noise)));
    let name = throwaway.0.as_str();
    // Beside the homes, so that it is on their file system.
    let Ok(quarantine) = tempfile::tempdir_in("/home") else { panic!("/home can't be written") };
    let bench = Bench::new(|_, config| config.accounts.quarantine = Some(quarantine.path().join("q")));
    let policy = scopes(AccountsScope {
        uids: UidRange { min: 58_000, max: 58_999 },
        names: patterns(&["viwtest*"]),
        password_hashes: true,
        ..AccountsScope::default()
    });
    let call = || bench.call(&RELEASE, &policy, EffectClass::Change);

    let account = wit::NewAccount {
        shell: Some("/bin/sh".into()),
        ssh_keys: vec![KEY.into()],
        password_hash: Some(HASH.into()),
        ..new(name)
    };
    let made = good(untrapped(call().await.create(account).await));
    assert!((58_000..=58_999).contains(&made.uid));
    let home = Path::new("/home").join(name);
    assert_eq!(looks(&home), (0o700, made.uid));
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    assert!(shadow.contains(&format!("{name}:{HASH}:")));
    let id = Command::new("/usr/bin/id").args(["-u", "--", name]).output().map(|o| o.stdout).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&id).trim(), made.uid.to_string(), "the system sees it too");

    let locked = good(untrapped(call().await.lock(name.into()).await));
    assert!(locked.locked && locked.expired);
    assert!(!good(untrapped(call().await.unlock(name.into()).await)).locked);

    let sleeping = Command::new("/bin/sleep").arg("60").uid(made.uid).gid(made.gid).spawn();
    let Ok(sleeping) = sleeping.map(Killed) else { panic!("nothing runs as the new account") };
    let (case, why) = refused(untrapped(call().await.remove(name.into(), wit::HomeFate::Quarantine).await));
    assert!(case == "conflict" && why.contains("1 running processes"), "{why}");
    assert!(home.is_dir());
    drop(sleeping);

    let remove = Change::Remove { name: name.into(), uid: made.uid, home: Home::Quarantine, record: None };
    let back = match apply(&bench, remove).await {
        Ok(back) => back,
        Err(failure) => panic!("{failure}"),
    };
    assert!(!home.exists());
    assert!(apply(&bench, back).await.is_ok());
    assert_eq!(looks(&home.join(".ssh/authorized_keys")), (0o600, made.uid));
    good(untrapped(call().await.remove(name.into(), wit::HomeFate::Quarantine).await));
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    assert!(!passwd.contains(name) && !home.exists());

    let denied = bench.call(&RELEASE, &policy, EffectClass::Change).await.lock("root".into()).await;
    assert_eq!(refused(untrapped(denied)).1, "gateway: accounts.system");
}

static RELEASE: std::sync::LazyLock<Scopes> = std::sync::LazyLock::new(release);

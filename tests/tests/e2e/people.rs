//! Real accounts of this machine, made and removed through the whole line. The names
//! begin with `viwtest`, and whatever happens they are gone afterwards.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Setup;
use viworks_tests::program::run;

use crate::Result;

/// Removes the accounts of a test, however it ended.
struct Guests(&'static [&'static str]);

impl Guests {
    fn clear(&self) {
        for name in self.0 {
            // Usually not there: then there is nothing to remove.
            let _ = run(Path::new("/usr/sbin/userdel"), ["-r", "-f", name]);
            let _ = run(Path::new("/usr/sbin/groupdel"), [name]);
        }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.clear();
    }
}

#[test]
fn a_real_account_can_be_used_locked_and_deleted() -> Result {
    used_locked_and_deleted(false)
}

#[test]
fn a_gateway_without_rights_does_the_same_by_its_broker() -> Result {
    used_locked_and_deleted(true)
}

fn used_locked_and_deleted(brokered: bool) -> Result {
    // Both may run at once.
    let (me, uids) = if brokered { ("viwtest-brk", 27_000) } else { ("viwtest-e2e", 28_000) };
    let guests = Guests(if brokered { &["viwtest-brk"] } else { &["viwtest-e2e"] });
    guests.clear();
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let mut setup = Setup::new(&cluster, "real-01")?;
    setup.brokered = brokered;
    // The machine itself; only its quarantine is the test's own, on the homes' file system.
    let quarantine = tempfile::Builder::new()
        .prefix(".viworks-quarantine-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in("/home")?;
    setup.providers = format!("[providers.accounts]\nquarantine = {:?}\n", quarantine.path());
    setup.policy = setup
        .policy
        .replace("uids = { min = 20000, max = 29999 }", &format!("uids = {{ min = {uids}, max = {} }}", uids + 999));
    let _gateway = setup.start(&cluster)?;
    cluster.ready("real-01", 1)?;

    let ada = json!({"name": me, "groups": ["users"], "shell": "/bin/sh"});
    let (plan, planned) = cluster.plan("real-01", "add_user", &ada)?;
    assert!(run(Path::new("/usr/bin/id"), [me]).is_err(), "a plan makes no account: {planned}");
    let (created, added) = cluster.apply("real-01", "add_user", &ada, &plan)?;
    assert_eq!(added["result"]["uid"], planned["result"]["uid"], "the uid is the one that was planned");
    assert_eq!(added["state"], "succeeded", "{added}");
    assert_eq!(run(Path::new("/usr/bin/id"), ["-nG", me])?.trim(), format!("{me} users"));
    let home = run(Path::new("/usr/bin/stat"), ["-c", "%a %U", &format!("/home/{me}")])?;
    assert_eq!(home.trim(), format!("700 {me}"));
    let said = run(Path::new("/bin/su"), [me, "-c", "echo in as $USER; touch ~/kept"])?;
    assert_eq!(said.trim(), format!("in as {me}"));

    let name = json!({"name": me});
    let (plan, _) = cluster.plan("real-01", "lock_user", &name)?;
    let (lock, locked) = cluster.apply("real-01", "lock_user", &name, &plan)?;
    assert_eq!(locked["state"], "succeeded", "{locked}");
    // It never had a password, so that its lock shows by its expiry, the eighth field of shadow(5).
    let expires = || -> std::io::Result<String> {
        let entry = run(Path::new("/usr/bin/getent"), ["shadow", me])?;
        Ok(entry.trim().split(':').nth(7).unwrap_or_default().to_owned())
    };
    assert_eq!(expires()?, "1");
    // Changed since it was made: a conflict, and nothing happens. Unlocked by undo.
    let conflict = cluster.undo(&created, "apply")?;
    assert_eq!(conflict["failure"]["code"], "conflict", "{conflict}");
    assert_eq!(cluster.undo(&lock, "apply")?["state"], "succeeded");
    assert_eq!(expires()?, "");

    let root = cluster.run("real-01", "delete_user", &json!({"name": "root"}))?;
    assert_ne!(root["state"], "succeeded", "{root}");
    let (plan, _) = cluster.plan("real-01", "delete_user", &name)?;
    let (delete, deleted) = cluster.apply("real-01", "delete_user", &name, &plan)?;
    assert_eq!(deleted["state"], "succeeded", "{deleted}");
    assert!(run(Path::new("/usr/bin/id"), [me]).is_err(), "the account is gone");
    let would = cluster.undo(&delete, "plan")?;
    assert_eq!(would["effects"][0]["state"], "planned", "{would}");
    assert!(run(Path::new("/usr/bin/id"), [me]).is_err(), "a plan brings nothing back");
    let undone = cluster.undo(&delete, "apply")?;
    assert_eq!(undone["state"], "succeeded", "{undone}");
    let ids = run(Path::new("/usr/bin/id"), ["-u", me])?;
    assert_eq!(ids.trim(), added["result"]["uid"].to_string(), "with its ids");
    let kept = run(Path::new("/bin/su"), [me, "-c", "stat -c %U ~/kept"])?;
    assert_eq!(kept.trim(), me, "and its home");
    // A plan that the host has left behind is refused: the account is not what was shown.
    let (plan, _) = cluster.plan("real-01", "delete_user", &name)?;
    run(Path::new("/usr/sbin/usermod"), ["-c", "somebody else", me])?;
    let (_, departed) = cluster.apply("real-01", "delete_user", &name, &plan)?;
    assert_eq!(departed["failure"]["code"], "plan-departed", "{departed}");

    let deleted = cluster.run("real-01", "delete_user", &name)?;
    assert_eq!(deleted["state"], "succeeded", "{deleted}");
    assert!(run(Path::new("/usr/bin/id"), [me]).is_err(), "the account is gone");
    let kept = run(Path::new("/usr/bin/find"), [&quarantine.path().to_string_lossy(), "-name", "kept"])?;
    assert_eq!(kept.lines().count(), 1, "the home is in the quarantine");
    Ok(())
}

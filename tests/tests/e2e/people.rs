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
    const NAME: &str = "viwtest-e2e";
    let guests = Guests(&[NAME]);
    guests.clear();
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let mut setup = Setup::new(&cluster, "real-01")?;
    // The machine itself; only its quarantine is the test's own, on the homes' file system.
    let quarantine = tempfile::Builder::new()
        .prefix(".viworks-quarantine-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in("/home")?;
    setup.providers = format!("[providers.accounts]\nquarantine = {:?}\n", quarantine.path());
    setup.policy = setup.policy.replace("uids = { min = 20000, max = 29999 }", "uids = { min = 28000, max = 28999 }");
    let _gateway = setup.start(&cluster)?;
    cluster.ready("real-01", 1)?;

    let added = cluster.run("real-01", "add_user", &json!({"name": NAME, "groups": ["users"], "shell": "/bin/sh"}))?;
    assert_eq!(added["state"], "succeeded", "{added}");
    assert_eq!(run(Path::new("/usr/bin/id"), ["-nG", NAME])?.trim(), format!("{NAME} users"));
    let home = run(Path::new("/usr/bin/stat"), ["-c", "%a %U", &format!("/home/{NAME}")])?;
    assert_eq!(home.trim(), format!("700 {NAME}"));
    let said = run(Path::new("/bin/su"), [NAME, "-c", "echo in as $USER; touch ~/kept"])?;
    assert_eq!(said.trim(), format!("in as {NAME}"));

    let locked = cluster.run("real-01", "lock_user", &json!({"name": NAME}))?;
    assert_eq!(locked["state"], "succeeded", "{locked}");
    assert!(run(Path::new("/usr/bin/passwd"), ["-S", NAME])?.contains(&format!("{NAME} L ")));

    let root = cluster.run("real-01", "delete_user", &json!({"name": "root"}))?;
    assert_ne!(root["state"], "succeeded", "{root}");
    let deleted = cluster.run("real-01", "delete_user", &json!({"name": NAME}))?;
    assert_eq!(deleted["state"], "succeeded", "{deleted}");
    assert!(run(Path::new("/usr/bin/id"), [NAME]).is_err(), "the account is gone");
    let kept = run(Path::new("/usr/bin/find"), [&quarantine.path().to_string_lossy(), "-name", "kept"])?;
    assert_eq!(kept.lines().count(), 1, "the home is in the quarantine");
    Ok(())
}

//! The main journey: an operator posts a verb, a signed component does it on a managed
//! host, and the answer comes back. On a prefix root: no real account is touched.

use std::fs;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::{Cluster, PLUGINS};
use viworks_tests::gateway::Gateway;

use crate::Result;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f ada@example.com";

#[test]
fn an_account_comes_and_goes() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;

    let added =
        cluster.run("web-01", "add_user", &json!({"name": "ada", "comment": "Ada Example", "ssh_keys": [KEY]}))?;
    assert_eq!(added["state"], "succeeded", "{added}");
    assert_eq!(added["result"]["uid"], 20_000, "the first uid of the policy's range");
    assert_eq!(added["effects"][0]["kind"], "accounts.create");
    assert_eq!(added["effects"][0]["state"], "applied");
    let passwd = fs::read_to_string(gateway.root("/etc/passwd"))?;
    assert!(passwd.contains("ada:x:20000:"), "{passwd}");
    assert!(fs::read_to_string(gateway.root("/home/ada/.ssh/authorized_keys"))?.contains(KEY));

    let again = cluster.run("web-01", "add_user", &json!({"name": "ada"}))?;
    assert_eq!((again["state"].as_str(), again["failure"]["code"].as_str()), (Some("failed"), Some("conflict")));
    assert!(again["effects"].as_array().is_none_or(Vec::is_empty), "nothing happened: {again}");

    let locked = cluster.run("web-01", "lock_user", &json!({"name": "ada"}))?;
    assert_eq!(locked["result"]["locked"], true, "{locked}");
    let listed = cluster.run("web-01", "list_users", &json!({}))?;
    assert_eq!(listed["result"][0]["name"], "ada", "{listed}");
    assert_eq!(listed["cost"]["host_calls"], 1);

    let deleted = cluster.run("web-01", "delete_user", &json!({"name": "ada"}))?;
    assert_eq!(deleted["state"], "succeeded", "{deleted}");
    assert!(!fs::read_to_string(gateway.root("/etc/passwd"))?.contains("ada:"));
    assert!(!gateway.root("/home/ada").exists(), "the home is in the quarantine");
    let gone = cluster.run("web-01", "delete_user", &json!({"name": "ada"}))?;
    assert_eq!(gone["failure"]["code"], "not-found", "{gone}");
    Ok(())
}

#[test]
fn what_the_policy_does_not_grant_is_denied_by_its_rule() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;

    let denied = cluster.run("web-01", "add_user", &json!({"name": "eve", "groups": ["sudo"]}))?;
    assert_eq!(denied["state"], "denied", "{denied}");
    assert_eq!(denied["failure"]["rule"], "policy: accounts.groups");
    assert_eq!(denied["cost"]["denials"], 1);
    assert!(!fs::read_to_string(gateway.root("/etc/passwd")).unwrap_or_default().contains("eve"));
    assert!(gateway.audit().iter().any(|r| r.to_string().contains("policy: accounts.groups")), "the denial is audited");

    let outside = cluster.run("web-01", "add_user", &json!({"name": "eve", "uid": 30_000}))?;
    assert_eq!(outside["failure"]["rule"], "policy: accounts.uids", "{outside}");
    Ok(())
}

#[test]
fn every_plugin_is_hot_loaded_and_survives_a_restart() -> Result {
    let cluster = Cluster::start()?;
    let mut gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 0)?;
    cluster.publish_all()?;
    cluster.ready("web-01", PLUGINS.len())?;

    let health = cluster.run("web-01", "get_system_health", &json!({}))?;
    assert_eq!(health["state"], "succeeded", "{health}");
    assert!(health["result"].to_string().contains("total_mib") || health["result"].to_string().contains("total-mib"));

    assert!(gateway.process.terminate(Duration::from_secs(20))?.success());
    gateway.restart()?;
    cluster.ready("web-01", PLUGINS.len())?;
    let again = cluster.run("web-01", "get_system_health", &json!({}))?;
    assert_eq!(again["state"], "succeeded", "{again}");
    Ok(())
}

#[test]
fn a_pinned_script_runs_and_a_changed_one_does_not() -> Result {
    use sha2::Digest as _;
    use std::os::unix::fs::PermissionsExt as _;
    let cluster = Cluster::start()?;
    cluster.publish("scripts")?;
    let mut setup = viworks_tests::gateway::Setup::new(&cluster, "web-01")?;
    let text = "#!/bin/sh\necho \"args: $*\"; echo warn >&2; exit 3\n";
    let digest = sha2::Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect::<String>();
    setup.policy = setup.policy.replace(
        "[capabilities.scripts]",
        &format!("[capabilities.scripts]\npins = {{ \"report.sh\" = \"{digest}\" }}"),
    );
    let script = setup.write(&cluster)?.join("scripts/report.sh");
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
    let _gateway = setup.start(&cluster)?;
    cluster.ready("web-01", 1)?;

    let ran = cluster.run("web-01", "run_script", &json!({"name": "report.sh", "args": ["a b", "; id"]}))?;
    assert_eq!(ran["state"], "succeeded", "{ran}");
    assert_eq!(ran["result"]["stdout"], "args: a b ; id\n", "{ran}");
    assert_eq!(ran["result"]["stderr"], "warn\n");

    fs::write(&script, "#!/bin/sh\necho other\n")?;
    let changed = cluster.run("web-01", "run_script", &json!({"name": "report.sh"}))?;
    assert_ne!(changed["state"], "succeeded", "{changed}");
    assert!(!changed.to_string().contains("other\\n"), "the changed script did not run: {changed}");
    Ok(())
}

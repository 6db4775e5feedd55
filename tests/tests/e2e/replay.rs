//! A recorded invocation on a developer's machine: the same plugin does the same, and
//! where another departs is said. No password hash is in the file.

use std::fs;
use std::io::Error;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Setup;
use viworks_tests::program::{component, eventually, program};

use crate::Result;

fn replay(file: &PathBuf, plugin: &PathBuf) -> std::io::Result<Output> {
    let mut viworks = Command::new(program("viworks")?);
    viworks.args(["plugin", "replay", "--json"]).arg(file).arg("--plugin").arg(plugin).output()
}

#[test]
fn a_recording_is_replayed_by_the_cli() -> Result {
    let hash = format!("$6$salt${}", "b".repeat(86));
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let mut setup = Setup::new(&cluster, "web-01")?;
    setup.policy = setup.policy.replace("[capabilities.vpn]", "password_hashes = true\n[capabilities.vpn]");
    setup.providers += "[recording]\nenabled = true\n";
    let gateway = setup.start(&cluster)?;
    cluster.ready("web-01", 1)?;
    let added = cluster.run("web-01", "add_user", &json!({"name": "ada", "password_hash": hash}))?;
    assert_eq!(added["state"], "succeeded", "{added}");

    let dir = gateway.dir.join("state/recordings");
    let file = eventually("the recording", Duration::from_secs(20), || {
        let entry = fs::read_dir(&dir)?.flatten().next();
        let whole = entry.filter(|e| fs::read_to_string(e.path()).is_ok_and(|text| text.contains("{\"end\"")));
        Ok(whole.map(|entry| entry.path()))
    })?;
    let text = fs::read_to_string(&file)?;
    assert!(text.contains("accounts.create") && !text.contains(&hash), "{text}");

    let plugin = component("plugins", "viworks_plugin_accounts")?;
    let same = replay(&file, &plugin)?;
    let said: Value = serde_json::from_slice(&same.stdout)?;
    assert_eq!((same.status.code(), &said["equal"]), (Some(0), &json!(true)), "{said}");

    // As a version that asks for another name would be: the recorded call is not its call.
    let other = cluster.path("other.jsonl");
    fs::write(&other, text.replace("\"args\":{\"name\":\"ada\"", "\"args\":{\"name\":\"eva\""))?;
    let departs = replay(&other, &plugin)?;
    let said: Value = serde_json::from_slice(&departs.stdout)?;
    assert_eq!((departs.status.code(), &said["equal"]), (Some(1), &json!(false)), "{said}");
    assert_eq!(said["departure"]["called"]["args"][0], "eva", "{said}");

    let missing = replay(&cluster.path("no such file"), &plugin)?;
    assert_eq!(missing.status.code(), Some(2));
    if missing.stderr.is_empty() { Err(Error::other("nothing was said")) } else { Ok(()) }
}

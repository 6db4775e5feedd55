//! Taking back: what a command did on a real gateway goes again, once; what was changed
//! since is a conflict and stays.

use std::fs;

use serde_json::{Value, json};
use viworks_tests::cli::Operator;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Gateway;

use crate::Result;

fn add(cluster: &Cluster, name: &str) -> std::io::Result<Value> {
    let body = json!({"verb": "add_user", "args": {"name": name}, "agent_targets": ["web-01"], "wait_secs": 40});
    let done = cluster.api.post("/commands", &body)?.expect_status(200)?;
    assert_eq!(done["invocations"][0]["state"], "succeeded", "{done}");
    Ok(done)
}

#[test]
fn an_undone_command_leaves_the_host_as_it_was() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let admin = Operator::of(&cluster, "admin")?;
    let read =
        cluster.api.post("/commands", &json!({"verb": "list_users", "agent_targets": ["web-01"], "wait_secs": 40}))?;
    let read = read.expect_status(200)?;
    let path = format!("/commands/{}/undo", read["id"].as_str().unwrap_or_default());
    assert_eq!(cluster.api.post(&path, &json!({}))?.problem(409)?, "conflict", "a read did nothing");

    let done = add(&cluster, "ada")?;
    let id = done["id"].as_str().unwrap_or_default();
    let plan = admin.types(&["undo", id, "--plan"])?;
    assert_eq!(plan.code, Some(0), "{} {}", plan.stdout, plan.stderr);
    assert!(plan.stdout.contains("accounts."), "{}", plan.stdout);
    assert!(fs::read_to_string(gateway.root("/etc/passwd"))?.contains("ada:"), "a plan of the undo changes nothing");

    let undone = admin.types(&["undo", id])?;
    assert_eq!(undone.code, Some(0), "{} {}", undone.stdout, undone.stderr);
    assert!(!fs::read_to_string(gateway.root("/etc/passwd"))?.contains("ada:"));
    assert_eq!(cluster.api.post(&format!("/commands/{id}/undo"), &json!({}))?.problem(409)?, "conflict", "once");
    let (_, listed) = admin.json(&["commands", "--verb", "add_user"])?;
    let items = listed["items"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(
        items.iter().any(|c| c["undo_of"] == *id) && items.iter().any(|c| c["id"] == *id && !c["undone_by"].is_null())
    );
    Ok(())
}

#[test]
fn an_undo_does_what_its_plan_said_and_is_undone_in_its_turn() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let admin = Operator::of(&cluster, "admin")?;
    let passwd = || fs::read_to_string(gateway.root("/etc/passwd"));
    let line = |text: &str| text.lines().find(|line| line.starts_with("ada:")).map(str::to_owned);
    let done = add(&cluster, "ada")?;
    let id = done["id"].as_str().unwrap_or_default();
    let first = line(&passwd()?);
    let home = gateway.root("/home/ada/kept");
    fs::write(&home, "hers")?;

    let (_, plan) = admin.json(&["undo", id, "--plan"])?;
    let bind = plan["id"].as_str().unwrap_or_default();
    let wrong = admin.types(&["undo", id, "--bind", id])?;
    assert!(wrong.code != Some(0) && wrong.stderr.contains("plan"), "{} {}", wrong.stdout, wrong.stderr);
    assert_eq!(line(&passwd()?), first, "nothing happened");
    let (code, undone) = admin.json(&["undo", id, "--bind", bind])?;
    assert_eq!(code, Some(0), "{undone}");
    assert!(line(&passwd()?).is_none() && !home.exists());

    let undo = undone["id"].as_str().unwrap_or_default();
    let (code, redone) = admin.json(&["undo", undo])?;
    assert_eq!(code, Some(0), "{redone}");
    assert_eq!(line(&passwd()?), first, "the same account, its uid included");
    assert_eq!(fs::read_to_string(&home)?, "hers");
    let (code, gone) = admin.json(&["undo", redone["id"].as_str().unwrap_or_default()])?;
    assert_eq!((code, line(&passwd()?)), (Some(0), None), "{gone}");
    Ok(())
}

#[test]
fn what_was_changed_since_is_a_conflict_and_stays() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let done = add(&cluster, "ada")?;
    let locked = cluster.run("web-01", "lock_user", &json!({"name": "ada"}))?;
    assert_eq!(locked["state"], "succeeded", "{locked}");
    let path = format!("/commands/{}/undo", done["id"].as_str().unwrap_or_default());
    let undo = cluster.api.post(&path, &json!({"wait_secs": 40}))?.expect_status(200)?;
    assert_eq!(undo["invocations"][0]["failure"]["code"], "conflict", "{undo}");
    assert!(fs::read_to_string(gateway.root("/etc/passwd"))?.contains("ada:"));
    Ok(())
}

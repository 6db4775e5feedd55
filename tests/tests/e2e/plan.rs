//! Asking first: a plan of real gateways changes nothing, shows one diff for those that would
//! do the same, and binds the command that follows to what it said.

use std::fs;

use serde_json::json;
use viworks_tests::cli::Operator;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Gateway;

use crate::Result;

#[test]
fn a_plan_is_shown_by_groups_and_changes_nothing() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateways = [Gateway::start(&cluster, "web-01")?, Gateway::start(&cluster, "web-02")?];
    cluster.ready("web-01", 1)?;
    cluster.ready("web-02", 1)?;
    let admin = Operator::of(&cluster, "admin")?;

    let line = ["run", "add_user", "--on", "web-01,web-02", "--arg", "name=ada", "--plan"];
    let ran = admin.types(&line)?;
    assert_eq!(ran.code, Some(0), "{} {}", ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with("web-01, web-02  plan "), "one group: {}", ran.stdout);
    assert!(ran.stdout.contains("+ accounts.create: "), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "no colour without a terminal: {:?}", ran.stdout);
    assert!(ran.stderr.contains("2 agents, the same plan: 2 would change something"), "{}", ran.stderr);
    for gateway in &gateways {
        let passwd = fs::read_to_string(gateway.root("/etc/passwd")).unwrap_or_default();
        assert!(!passwd.contains("ada"), "{passwd}");
    }

    let (_, planned) = admin.json(&line)?;
    let invocation = &planned["invocations"][0];
    assert_eq!(invocation["effects"][0]["state"], "planned", "{invocation}");
    assert_eq!(invocation["plan"], planned["plans"][0]["digest"]);
    Ok(())
}

#[test]
fn a_bound_command_does_what_was_planned_or_nothing() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let post = |body: serde_json::Value| cluster.api.post("/commands", &body);
    let plan = || {
        let body = json!({"verb": "add_user", "args": {"name": "ada"}, "agent_targets": ["web-01"], "mode": "plan", "wait_secs": 40});
        post(body)?.expect_status(200)
    };
    let bound = |plan: &serde_json::Value| json!({"verb": "add_user", "args": {"name": "ada"}, "agent_targets": ["web-01"], "plan": plan, "wait_secs": 40});
    let other =
        json!({"verb": "add_user", "args": {"name": "bob"}, "agent_targets": ["web-01"], "plan": plan()?["id"]});
    assert_eq!(post(other)?.problem(422)?, "plan-mismatch");

    // The host changes in between: the first free uid is another's now.
    let before = plan()?;
    let bob = cluster.run("web-01", "add_user", &json!({"name": "bob"}))?;
    assert_eq!(bob["state"], "succeeded", "{bob}");
    let departed = post(bound(&before["id"]))?.expect_status(200)?;
    let invocation = &departed["invocations"][0];
    assert_eq!(invocation["failure"]["code"], "plan-departed", "{invocation}");
    assert!(!fs::read_to_string(gateway.root("/etc/passwd"))?.contains("ada:"), "stopped before the first effect");

    let unknown = post(bound(&json!(before["invocations"][0]["plan"])))?.expect_status(200)?;
    assert_ne!(unknown["invocations"][0]["state"], "succeeded", "{unknown}");
    let fresh = plan()?;
    let done = post(bound(&fresh["invocations"][0]["plan"]))?.expect_status(200)?;
    assert_eq!(done["invocations"][0]["state"], "succeeded", "{done}");
    assert!(fs::read_to_string(gateway.root("/etc/passwd"))?.contains("ada:"));
    Ok(())
}

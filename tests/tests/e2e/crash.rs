//! `kill -9` in mid-command, on either side: no second effect, no lost result, states
//! that tell the truth.

use std::fs;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::Cluster;
use viworks_tests::gateway::Gateway;
use viworks_tests::program::signal;

use crate::Result;

const SOON: Duration = Duration::from_secs(60);

fn accounts_named(gateway: &Gateway, prefix: &str) -> usize {
    let passwd = fs::read_to_string(gateway.root("/etc/passwd")).unwrap_or_default();
    passwd.lines().filter(|line| line.starts_with(prefix)).count()
}

#[test]
fn a_killed_backend_forgets_nothing_that_it_accepted() -> Result {
    let mut cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    // The gateway holds still, so the command is accepted and can't be answered.
    signal(gateway.process.pid(), "STOP")?;
    let body =
        json!({"verb": "add_user", "args": {"name": "ada"}, "agent_targets": ["web-01"], "expires_in_secs": 600});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    cluster.backend.kill()?;
    signal(gateway.process.pid(), "CONT")?;
    cluster.restart_backend()?;

    let done = cluster.finished(&id, SOON)?;
    assert_eq!(done["counts"]["succeeded"], 1, "{done}");
    assert_eq!(accounts_named(&gateway, "ada:"), 1);
    Ok(())
}

#[test]
fn a_gateway_killed_at_random_instants_never_acts_twice() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let mut gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let mut ids = Vec::new();
    for round in 0..8u64 {
        let body = json!({"verb": "add_user", "args": {"name": format!("user{round}")}, "agent_targets": ["web-01"], "expires_in_secs": 600});
        let id =
            cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
        // Spread over the journey of an invocation, which takes tens of milliseconds.
        std::thread::sleep(Duration::from_millis(round * 9));
        gateway.process.kill()?;
        gateway.restart()?;
        cluster.ready("web-01", 1)?;
        ids.push((round, id));
    }
    for (round, id) in ids {
        let done = cluster.finished(&id, SOON)?;
        let state = done["invocations"][0]["state"].as_str().unwrap_or_default().to_owned();
        let there = accounts_named(&gateway, &format!("user{round}:"));
        match state.as_str() {
            "succeeded" => assert_eq!(there, 1, "{done}"),
            // It may or may not have happened, and says so.
            "unknown" => assert!(there <= 1),
            // Interrupted before any effect: nothing may be there.
            "failed" => assert_eq!(there, 0, "{done}"),
            other => panic!("{other}: {done}"),
        }
    }
    Ok(())
}

#[test]
fn a_terminated_gateway_finishes_what_runs() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("accounts")?;
    let mut gateway = Gateway::start(&cluster, "web-01")?;
    cluster.ready("web-01", 1)?;
    let body =
        json!({"verb": "add_user", "args": {"name": "ada"}, "agent_targets": ["web-01"], "expires_in_secs": 600});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    assert!(gateway.process.terminate(Duration::from_secs(30))?.success(), "a drained gateway ends well");
    gateway.restart()?;
    let done = cluster.finished(&id, SOON)?;
    assert_eq!(done["counts"]["succeeded"], 1, "{done}");
    Ok(())
}

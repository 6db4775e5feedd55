//! Many agents at once, by the fleet simulator: all answer, or misbehave as told.

use std::io::Error;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::fleet::write_identities;
use viworks_tests::program::{Running, eventually, program};

use crate::Result;

const SOON: Duration = Duration::from_secs(60);

fn fleet(cluster: &Cluster, prefix: &str, count: u32, behave: &str) -> std::io::Result<Running> {
    let dir = cluster.path("fleet");
    write_identities(&cluster.ca, &dir, prefix, 0..count)?;
    let count = count.to_string();
    let dir = dir.to_string_lossy().into_owned();
    let args =
        ["--backend", &cluster.agents_addr, "--dir", &dir, "--prefix", prefix, "--agents", &count, "--behave", behave];
    Running::start(&program("viworks-fleet")?, args, Path::new(&cluster.path(&format!("fleet-{prefix}.log"))))
}

fn online(cluster: &Cluster, count: u64) -> std::io::Result<()> {
    eventually(&format!("{count} agents online"), SOON, || {
        let health = cluster.api.get("/agents?status=online&limit=1000")?.expect_status(200)?;
        Ok((health["items"].as_array().map_or(0, Vec::len) as u64 >= count).then_some(()))
    })
}

#[test]
fn a_command_reaches_hundreds() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("health")?;
    let _fleet = fleet(&cluster, "sim", 300, "prompt")?;
    online(&cluster, 300)?;
    let body = json!({"verb": "get_system_health", "args": {}, "selector": {"labels": {"fleet": "simulated"}}, "wait_secs": 60});
    let done = cluster.api.post("/commands", &body)?.expect_status(200)?;
    assert_eq!(done["counts"]["succeeded"], 300, "{}", done["counts"]);
    let page = cluster
        .api
        .get(&format!("/commands/{}/invocations?state=succeeded&limit=200", done["id"].as_str().unwrap_or_default()))?;
    let page = page.expect_status(200)?;
    assert_eq!(page["items"].as_array().map(Vec::len), Some(200));
    assert!(page["next"].is_string(), "the rest is on the next page");
    Ok(())
}

#[test]
fn silence_is_unknown_and_batches_are_kept() -> Result {
    let cluster = Cluster::start_with(&Options { backend: "heartbeat_secs = 1\nresult_grace_secs = 1".into() })?;
    cluster.publish("health")?;
    let _silent = fleet(&cluster, "mute", 2, "silent")?;
    online(&cluster, 2)?;
    let body = json!({"verb": "get_system_health", "args": {}, "agent_targets": ["mute-0", "mute-1"],
        "timeout_secs": 1, "expires_in_secs": 2, "batch": 1});
    let id = cluster.api.post("/commands", &body)?.expect_status(202)?["id"].as_str().unwrap_or_default().to_owned();
    let sent = eventually("sent", SOON, || {
        let body = cluster.api.get(&format!("/commands/{id}"))?.expect_status(200)?;
        Ok((body["counts"]["sent"] == 1).then_some(body))
    })?;
    assert_eq!(sent["counts"]["queued"], 1, "one at a time: {}", sent["counts"]);
    let done = cluster.finished(&id, SOON)?;
    assert_eq!(done["counts"]["unknown"], 1, "delivered and never answered: {}", done["counts"]);
    assert_eq!(done["counts"]["expired"], 1, "never delivered: {}", done["counts"]);
    Ok(())
}

#[test]
fn a_dead_peer_is_offline_though_its_socket_is_open() -> Result {
    let cluster = Cluster::start_with(&Options { backend: "heartbeat_secs = 1".into() })?;
    let mut dead = fleet(&cluster, "dead", 1, "dead")?;
    eventually("it came", SOON, || cluster.api.get("/agents/dead-0")?.expect_status(200).map(Some))?;
    eventually("offline", SOON, || {
        let agent = cluster.api.get("/agents/dead-0")?.expect_status(200)?;
        Ok((agent["status"] == "offline").then_some(()))
    })?;
    match dead.ended()? {
        Some(status) => Err(Error::other(format!("the simulator ended: {status}"))),
        None => Ok(()),
    }
}

#[test]
fn agents_that_come_and_go_lose_nothing() -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("health")?;
    let _fleet = fleet(&cluster, "flap", 20, "reconnect=300")?;
    eventually("they came", SOON, || {
        let agents = cluster.api.get("/agents?limit=1000")?.expect_status(200)?;
        Ok((agents["items"].as_array().map_or(0, Vec::len) == 20).then_some(()))
    })?;
    let body = json!({"verb": "get_system_health", "args": {}, "selector": {"all": true}, "wait_secs": 60, "expires_in_secs": 300});
    let done = cluster.api.post("/commands", &body)?.expect_status(200)?;
    assert_eq!(done["counts"]["succeeded"], 20, "{}", done["counts"]);
    Ok(())
}

//! Hundreds of gateways and a few real ones, commands all the time, plugins pushed, backends stopped and
//! killed meanwhile: nothing that was accepted is lost or done twice.

use std::io::Error;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::gateway::Gateway;
use viworks_tests::program::{component, eventually, workspace};

use crate::Result;
use crate::recovery::{Steady, all_succeeded, counted, fleet, online};

const AGENTS: u32 = 400;
const REAL: [&str; 3] = ["web-01", "web-02", "web-03"];
const SOON: Duration = Duration::from_secs(90);

/// Publish `health` as another release: other bytes, a higher version.
fn push(cluster: &Cluster, n: u8) -> Result {
    let dir = workspace().join("plugins/health");
    let mut wasm = std::fs::read(component("plugins", "viworks_plugin_health")?)?;
    // A custom section of its own, which nothing reads.
    wasm.extend([0, 6, 4, b'l', b'o', b'a', b'd', n]);
    let (file, manifest) = (cluster.path("health-n.wasm"), cluster.path("health-n.toml"));
    std::fs::write(&file, wasm)?;
    let text = std::fs::read_to_string(dir.join("plugin.toml"))?;
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("version", _)) => format!("version = \"9.0.{n}\"\n"),
        Some(("sequence", _)) => format!("sequence = {}\n", 900 + u32::from(n)),
        _ => format!("{line}\n"),
    });
    std::fs::write(&manifest, lines.collect::<String>())?;
    let wit = [workspace().join("wit"), dir.join("wit")];
    let bundle = cluster.sign(&file, &manifest, &wit, &cluster.path("keys/release.key.pem"))?;
    cluster.upload(&bundle)?.expect_status(201).map(drop)
}

#[test]
fn hundreds_work_while_plugins_are_pushed_and_backends_die() -> Result {
    let mut cluster = Cluster::start_with(&Options { backend: "heartbeat_secs = 2\nslots = 1000\n".into() })?;
    cluster.publish("accounts")?;
    cluster.publish("health")?;
    let _fleet = fleet(&cluster, AGENTS, &["--fetch"])?;
    let _real = REAL.iter().map(|id| Gateway::start(&cluster, id)).collect::<std::io::Result<Vec<_>>>()?;
    let everyone = AGENTS + REAL.len() as u32;
    online(&cluster, everyone, SOON)?;
    REAL.iter().try_for_each(|id| cluster.ready(id, 2))?;

    let simulated = Steady::start(
        &cluster.api,
        Duration::from_millis(300),
        |_| json!({"verb": "get_system_health", "args": {}, "selector": {"labels": {"fleet": "simulated"}}}),
    );
    let real = Steady::start(
        &cluster.api.clone(),
        Duration::from_millis(700),
        |n| json!({"verb": "add_user", "args": {"name": format!("u{n}")}, "agent_targets": REAL}),
    );
    for n in 1..=6 {
        push(&cluster, n)?;
        std::thread::sleep(Duration::from_secs(3));
        match n {
            2 => cluster.backend.terminate(SOON).map(drop)?,
            4 => cluster.backend.kill()?,
            _ => continue,
        }
        cluster.restart_backend()?;
        online(&cluster, everyone, SOON)?;
    }
    let (simulated, real) = (simulated.stop()?, real.stop()?);
    all_succeeded(&cluster, &simulated, u64::from(AGENTS))?;
    all_succeeded(&cluster, &real, REAL.len() as u64)?;
    let wanted = simulated.len() as u64 * u64::from(AGENTS);
    let log = cluster.path("fleet.log");
    let done = eventually("the fleet did it all", SOON, || {
        let done = counted(&log, "executed")?;
        Ok((done >= wanted).then_some(done))
    })?;
    assert_eq!(done, wanted, "each invocation once");
    assert_eq!(counted(&log, "mismatched")?, 0);
    eventually("the last release is everywhere", SOON, || {
        let page = cluster.api.get("/plugins")?.expect_status(200)?;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        let last = items.iter().find(|p| p["plugin"] == "health" && p["version"] == "9.0.6");
        let active = last.and_then(|p| p["agents"]["active"].as_u64()).unwrap_or(0);
        if active == u64::from(everyone) { Ok(Some(())) } else { Err(Error::other(page.to_string())) }
    })?;
    for id in REAL {
        let listed = cluster.run(id, "list_users", &json!({}))?;
        assert_eq!(listed["result"].as_array().map_or(0, Vec::len), real.len(), "each user once: {listed}");
    }
    Ok(())
}

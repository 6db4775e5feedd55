//! A release's way to a whole fleet: from its upload until the last simulated gateway has
//! fetched it, checked every byte by its digest and said that it is active.

use std::io::{Error, Result};
use std::time::{Duration, Instant};

use serde_json::Value;
use viworks_tests::cluster::Cluster;
use viworks_tests::fleet::write_identities;
use viworks_tests::program::{Running, eventually, program};

use crate::report::{Series, Table};

/// Backend time is wall time here: fleet and backend share the machine's cores.
pub fn to_fleet(table: &mut Table, agents: u32) -> Result<()> {
    let (one, _) = measure(1)?;
    let (all, cpu) = measure(agents)?;
    table.add(
        "release_to_1000",
        "ms",
        &Series::millis(&[all]),
        ("release_to_1", &Series::millis(&[one])),
        Some(("≤ 5000 ms", |v, _| v <= 5_000.0)),
    );
    table.add("release_to_1000_cpu", "ms", &Series::one(cpu), ("release_to_1000", &Series::millis(&[all])), None);
    Ok(())
}

/// How long it took, and the backend's cpu time meanwhile in milliseconds.
fn measure(agents: u32) -> Result<(Duration, f64)> {
    let cluster = Cluster::start()?;
    let dir = cluster.path("fleet");
    write_identities(&cluster.ca, &dir, "sim", 0..agents)?;
    let (count, dir) = (agents.to_string(), dir.to_string_lossy().into_owned());
    let args = ["--backend", &cluster.agents_addr, "--dir", &dir, "--agents", &count, "--seconds", "300", "--fetch"];
    let fleet = Running::start(&program("viworks-fleet")?, args, &cluster.path("fleet.log"))?;
    eventually("the fleet is online", Duration::from_secs(120), || {
        let health = cluster.api.get("/health")?;
        let total = &health.body["services"]["agent_registry"]["total_agents"];
        Ok((total.as_u64() >= Some(u64::from(agents))).then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(1));
    let (before, start) = (cluster.backend.cpu_ms()?, Instant::now());
    let digest = cluster.publish("accounts")?["digest"].as_str().unwrap_or_default().to_owned();
    eventually("every agent has it", Duration::from_secs(60), || {
        let plugins = cluster.api.get("/plugins")?.expect_status(200)?;
        Ok((plugins["items"][0]["agents"]["active"] == agents).then_some(()))
    })?;
    let (took, cpu) = (start.elapsed(), cluster.backend.cpu_ms()? - before);
    std::thread::sleep(Duration::from_millis(1_200));
    drop(fleet);
    let log = std::fs::read_to_string(cluster.path("fleet.log"))?;
    let last: Value = serde_json::from_str(log.lines().last().unwrap_or_default()).map_err(Error::other)?;
    if last["mismatched"] != 0 || last["fetched"] != agents {
        return Err(Error::other(format!("not every agent has {digest}: {last}")));
    }
    Ok((took, cpu))
}

//! A whole fleet that comes back at once to one backend that was killed: how long until all have a
//! session, and that commands work afterwards.

use std::io::{Error, Result};
use std::time::{Duration, Instant};

use serde_json::json;
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::fleet::write_identities;
use viworks_tests::program::{Running, eventually, program};

use crate::report::{Series, Table};

const WITHIN: Duration = Duration::from_secs(180);

/// `agents` must leave room below 20,000 open files a process.
pub fn reconnect(table: &mut Table, agents: u32) -> Result<()> {
    let mut cluster = Cluster::start_with(&Options { backend: "api_address_rate = 1000000\n".into() })?;
    cluster.publish("health")?;
    let dir = cluster.path("fleet");
    write_identities(&cluster.ca, &dir, "sim", 0..agents)?;
    let (count, dir) = (agents.to_string(), dir.to_string_lossy().into_owned());
    // All at once: the simulator holds nobody back.
    let args = ["--backend", &cluster.agents_addr, "--dir", &dir, "--agents", &count, "--handshakes", &count];
    let args = args.into_iter().chain(["--stay", "--seconds", "600", "--result", r#"{"ok":true}"#]);
    let began = Instant::now();
    let _fleet = Running::start(&program("viworks-fleet")?, args, &cluster.path("fleet.log"))?;
    online(&cluster, agents)?;
    // The simulator reads its certificates meanwhile.
    let first = began.elapsed();

    let mut times = Vec::new();
    for _ in 0..3 {
        cluster.backend.kill()?;
        // Long enough for all to have noticed, and to have failed once or twice.
        std::thread::sleep(Duration::from_secs(2));
        cluster.restart_backend()?;
        let began = Instant::now();
        online(&cluster, agents)?;
        times.push(began.elapsed());
        let body = json!({"verb": "get_system_health", "args": {}, "wait_secs": 60,
            "selector": {"labels": {"fleet": "simulated"}}});
        let done = cluster.api.post("/commands", &body)?.expect_status(200)?;
        if done["counts"]["succeeded"] != agents {
            return Err(Error::other(format!("not all succeeded: {}", done["counts"])));
        }
    }
    table.add(
        &format!("reconnect_{agents}"),
        "ms",
        &Series::millis(&times),
        ("first_connect", &Series::millis(&[first])),
        Some(("≤ 60 s, no command failed", |v, _| v <= 60_000.0)),
    );
    Ok(())
}

/// Until all have a session, and are known to the store, from which targets are chosen.
fn online(cluster: &Cluster, agents: u32) -> Result<()> {
    eventually("the fleet is online", WITHIN, || {
        std::thread::sleep(Duration::from_millis(80));
        let metrics = cluster.api.get("/metrics")?.expect_status(200)?;
        let text = metrics.as_str().unwrap_or_default();
        let gauge = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
        let online = gauge("viworks_backend_agents_online ").min(gauge("viworks_backend_agents ")).unwrap_or(0);
        if online >= agents { Ok(Some(())) } else { Err(Error::other(format!("{online} are online"))) }
    })
}

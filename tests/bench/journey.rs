//! Whole journeys through the real programs: one command's latency, commands a second,
//! the fan-out to 5,000, memory per agent, and what a gateway costs to start and keep.

use std::io::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use viworks_tests::cluster::{Cluster, Options, PLUGINS};
use viworks_tests::fleet::write_identities;
use viworks_tests::gateway::{Gateway, Setup};
use viworks_tests::program::{Running, eventually, program};

use crate::bare::Bare;
use crate::parts;
use crate::report::{Series, Table};

/// As fast as it goes: one token asks for everything here.
const BACKEND: &str = "slots = 1000\napi_rate = 1000000\napi_burst = 1000000\napi_address_rate = 1000000\n";

/// A cluster with the echo guest, whose verb `ping` is the benchmark's.
fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start_with(&Options { backend: BACKEND.into() })?;
    cluster.publish_guest("echo")?;
    Ok(cluster)
}

fn ping(target: &str) -> Value {
    json!({"verb": "ping", "args": {"text": "x".repeat(150)}, "agent_targets": [target], "wait_secs": 30})
}

fn succeed(cluster: &Cluster, body: &Value) -> Result<()> {
    let done = cluster.api.post("/commands", body)?.expect_status(200)?;
    if done["counts"]["failed"] == 0 && done["counts"]["denied"] == 0 && done["counts"]["unknown"] == 0 {
        return Ok(());
    }
    Err(Error::other(done.to_string()))
}

/// Figure 2.
pub fn post_to_result(table: &mut Table, runtime: &tokio::runtime::Runtime, invocation: &Series) -> Result<()> {
    let cluster = cluster()?;
    let _gateway = Gateway::start(&cluster, "bench-1")?;
    cluster.ready("bench-1", 1)?;
    let body = ping("bench-1");
    let whole = Series::micros(&parts::repeat(300, || succeed(&cluster, &body))?);
    let echo = parts::http_echo(runtime, 300)?;
    let commits = parts::durable_commits(cluster.dir(), 300)?;
    let socket = parts::websocket_echo(runtime, &cluster.ca, &canned_order()?, 300)?;
    let sum = echo.median() + commits.accept.median() + socket.median() + invocation.median() + commits.settle.median();
    for (name, part) in [
        ("http_echo", &echo),
        ("durable_commit_accept", &commits.accept),
        ("mtls_websocket_echo", &socket),
        ("invocation", invocation),
        ("durable_commit_settle", &commits.settle),
    ] {
        table.add(&format!("part_{name}"), "us", part, ("post_to_result", &whole), None);
    }
    table.add("durable_commit_accept", "us", &commits.accept, ("durable_commit_one_row", &commits.one_row), None);
    let sum = Series::one(sum);
    table.add("post_to_result", "us", &whole, ("sum_of_parts", &sum), Some(("≤ 2×", |v, b| v <= 2.0 * b)));
    Ok(())
}

/// Figure 3: sustained commands from 16 clients for a few seconds.
pub fn commands_per_second(table: &mut Table, gateways: usize) -> Result<()> {
    let cluster = cluster()?;
    let ids: Vec<String> = (1..=gateways).map(|n| format!("bench-{n}")).collect();
    let _gateways = ids.iter().map(|id| Gateway::start(&cluster, id)).collect::<Result<Vec<_>>>()?;
    ids.iter().try_for_each(|id| cluster.ready(id, 1))?;
    let rate = |work: &(dyn Fn(usize) -> Result<()> + Sync)| -> Result<f64> {
        const CLIENTS: usize = 16;
        let (done, start) = (AtomicUsize::new(0), Instant::now());
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let done = &done;
                    scope.spawn(move || -> Result<()> {
                        let mut n = client;
                        while start.elapsed() < Duration::from_secs(5) {
                            work(n)?;
                            done.fetch_add(1, Ordering::Relaxed);
                            n += CLIENTS;
                        }
                        Ok(())
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|t| t.join().map_err(|_| Error::other("a client panicked"))?)
        })?;
        Ok(done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
    };
    let commands = rate(&|n| succeed(&cluster, &ping(&ids[n % ids.len()])))?;
    let reads = rate(&|n| cluster.api.get(&format!("/agents/{}", ids[n % ids.len()]))?.expect_status(200).map(drop))?;
    table.add(
        &format!("commands_per_second_{gateways}"),
        "1/s",
        &Series::one(commands),
        ("get_agent_per_second", &Series::one(reads)),
        None,
    );
    Ok(())
}

/// Figures 4: the fan-out, and what an idle agent costs.
pub fn fleet(table: &mut Table, runtime: &tokio::runtime::Runtime, agents: u32) -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.publish("health")?;
    let dir = cluster.path("fleet");
    write_identities(&cluster.ca, &dir, "sim", 0..agents)?;
    let start_fleet = |backend: &str, log: &str| {
        let (count, dir) = (agents.to_string(), dir.to_string_lossy().into_owned());
        let args =
            ["--backend", backend, "--dir", &dir, "--agents", &count, "--seconds", "300", "--result", r#"{"ok":true}"#];
        Running::start(&program("viworks-fleet")?, args, &cluster.path(log))
    };

    let before = cluster.backend.rss_kib()?;
    let simulated = start_fleet(&cluster.agents_addr, "fleet.log")?;
    eventually("the fleet is online", Duration::from_secs(180), || {
        let health = cluster.api.get("/health")?;
        let total = &health.body["services"]["agent_registry"]["total_agents"];
        Ok((total.as_u64() >= Some(u64::from(agents))).then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(3));
    let per_agent = (cluster.backend.rss_kib()?.saturating_sub(before)) as f64 / f64::from(agents);

    let body = json!({"verb": "get_system_health", "args": {}, "selector": {"labels": {"fleet": "simulated"}}, "wait_secs": 60});
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let done = cluster.api.post("/commands", &body)?.expect_status(200)?;
        times.push(start.elapsed());
        if done["counts"]["succeeded"] != agents {
            return Err(Error::other(format!("not all succeeded: {}", done["counts"])));
        }
    }
    drop(simulated);

    let (own_before, order) = (own_rss_kib()?, canned_order()?);
    let bare = runtime.block_on(Bare::start(&cluster.ca, &cluster.server))?;
    let _simulated = start_fleet(&bare.addr.to_string(), "fleet-bare.log")?;
    eventually("the fleet is at the bare server", Duration::from_secs(180), || {
        Ok((bare.connected() >= agents as usize).then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(3));
    let bare_per_agent = (own_rss_kib()?.saturating_sub(own_before)) as f64 / f64::from(agents);
    let bare_times =
        (0..5).map(|_| runtime.block_on(bare.round(&order, Duration::from_secs(30)))).collect::<Result<Vec<_>>>()?;

    table.add(
        "fan_out_5000",
        "ms",
        &Series::millis(&times),
        ("bare_mtls_websocket_echo", &Series::millis(&bare_times)),
        Some(("≤ 1500 ms", |v, _| v <= 1_500.0)),
    );
    table.add(
        "memory_per_agent",
        "KiB",
        &Series::one(per_agent),
        ("bare_mtls_websocket_server", &Series::one(bare_per_agent)),
        Some(("≤ 24 KiB", |v, _| v <= 24.0)),
    );
    Ok(())
}

/// Figures 5, of whole gateways: start to connected with a warm cache, and idle memory.
pub fn gateway(table: &mut Table, runtime: &tokio::runtime::Runtime) -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.publish_all()?;
    let setup = Setup::new(&cluster, "bench-1")?;
    let mut gateway = setup.start(&cluster)?;
    cluster.ready("bench-1", PLUGINS.len())?;
    std::thread::sleep(Duration::from_secs(5));
    let rss = gateway.process.rss_kib()? as f64 / 1024.0;
    gateway.process.terminate(Duration::from_secs(20))?;

    let config = gateway.dir.join("gateway.toml");
    let text = std::fs::read_to_string(&config)?;
    let mut times = Vec::new();
    for _ in 0..7 {
        let mut bare = runtime.block_on(Bare::start(&cluster.ca, &cluster.server))?;
        std::fs::write(&config, text.replace(&cluster.agents_addr, &bare.addr.to_string()))?;
        let start = Instant::now();
        gateway.restart()?;
        let hello = bare.first_hello.take().ok_or_else(|| Error::other("no receiver"))?;
        let at = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), hello).await });
        let at = at.map_err(Error::other)?.map_err(Error::other)?;
        times.push(at.duration_since(start));
        gateway.process.kill()?;
    }
    let bare_start =
        parts::repeat(7, || viworks_tests::program::run(&program("viworks-gateway")?, ["--version"]).map(drop))?;
    table.add(
        "start_to_connected",
        "ms",
        &Series::millis(&times),
        ("start_to_version", &Series::millis(&bare_start)),
        Some(("≤ 200 ms", |v, _| v <= 200.0)),
    );
    let size = std::fs::metadata(program("viworks-gateway")?)?.len() as f64 / f64::from(1 << 20);
    table.add(
        "gateway_rss",
        "MiB",
        &Series::one(rss),
        ("gateway_binary_size", &Series::one(size)),
        Some(("≤ 25 MiB, binary ≤ 30", |v, b| v <= 25.0 && b <= 30.0)),
    );
    Ok(())
}

/// An order as large as a real one, for peers that don't verify it.
fn canned_order() -> Result<String> {
    use viworks_protocol::{frame, id, merkle, warrant};
    let agents: Vec<id::AgentId> = (0..5_000).filter_map(|n| format!("sim-{n}").parse().ok()).collect();
    let tree = merkle::Tree::new(&agents).ok_or_else(|| Error::other("no tree"))?;
    let proof = tree.proof(1).ok_or_else(|| Error::other("no proof"))?;
    let order = warrant::Warrant {
        command: id::CommandId::new(1),
        verb: "get_system_health".into(),
        plugin: "health".into(),
        digest: "00".repeat(32),
        args_sha256: warrant::args_sha256("{}"),
        mode: warrant::Mode::Apply,
        caller: "bench".into(),
        also: Vec::new(),
        approvals: Vec::new(),
        plans: Vec::new(),
        undo: None,
        not_before_ms: 1,
        expires_ms: 2,
        timeout_secs: 45,
        targets_root: "00".repeat(32),
        targets: 5_000,
    };
    let envelope = warrant::sign(&order, &viworks_signing::keys::SecretKey::generate()).map_err(Error::other)?;
    let order = json!({"warrant": envelope, "args": {"text": "x".repeat(150)}}).to_string();
    frame::invoke_frame(&proof, &order, None).map_err(Error::other)
}

fn own_rss_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_err(Error::other)
}

//! Links that are cut, sockets that are killed, backends that stop and die under load: what was accepted
//! happens, once, and agents are back within a bound.

use std::io::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use viworks_tests::api::Api;
use viworks_tests::cluster::{Cluster, Options};
use viworks_tests::fleet::write_identities;
use viworks_tests::gateway::{Gateway, Setup};
use viworks_tests::netns::Wire;
use viworks_tests::program::{Running, eventually, program};

use crate::Result;

const SOON: Duration = Duration::from_secs(60);
/// With a heartbeat of a second, silence is noticed after two and a half, at the next beat; the rest is
/// for a slow machine. TCP itself would need minutes.
const NOTICED: Duration = Duration::from_secs(8);
/// From a link that is whole again to a session.
pub const BACK: Duration = Duration::from_secs(25);

/// Commands, one after the other, until it is stopped.
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Vec<String>>>,
}

impl Steady {
    /// Post what `body` makes of a number, every `pause`. What got no answer is posted again with its key, so
    /// that nothing is accepted twice.
    pub fn start(api: &Api, pause: Duration, body: impl Fn(usize) -> Value + Send + 'static) -> Self {
        let (api, stop) = (api.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut accepted = Vec::new();
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let mut body = body(n);
                body["idempotency_key"] = json!(format!("{}-{n}", body["verb"].as_str().unwrap_or_default()));
                body["expires_in_secs"] = json!(300);
                let answer = eventually("the command is accepted", SOON, || {
                    // A backend that is not there, or says to come again.
                    let answer = api.post("/commands", &body)?;
                    let later = matches!(answer.status, 429 | 503);
                    if later { Err(Error::other(format!("{answer:?}"))) } else { Ok(Some(answer)) }
                })?;
                // Asked again with its key, it may have ended: then the answer has its results.
                let body = if answer.status == 200 { answer.body } else { answer.expect_status(202)? };
                accepted.push(body["id"].as_str().unwrap_or_default().to_owned());
                std::thread::sleep(pause);
            }
            Ok(accepted)
        });
        Self { stop, thread }
    }

    /// The accepted commands.
    pub fn stop(self) -> std::io::Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::other("the client panicked"))?
    }
}

/// Every command ended well on all of its targets.
pub fn all_succeeded(cluster: &Cluster, ids: &[String], targets: u64) -> Result {
    assert!(!ids.is_empty());
    for id in ids {
        let done = cluster.finished(id, SOON * 2)?;
        assert_eq!(done["counts"]["succeeded"], targets, "{done}");
    }
    Ok(())
}

fn heartbeat(more: &str) -> Options {
    Options { backend: format!("heartbeat_secs = 1\n{more}") }
}

/// A backend on the left host, for gateways on the right one.
fn on_the_left() -> std::io::Result<Cluster> {
    let mut cluster = Cluster::start_with(&heartbeat(""))?;
    // On the loopback until now, and from now on on the wire: the namespace is its own.
    let file = cluster.path("backend.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("agents_listen = \"127.0.0.1:0\"", "agents_listen = \"0.0.0.0:8081\""))?;
    cluster.backend.terminate(SOON)?;
    cluster.restart_backend()?;
    cluster.agents_addr = "192.0.2.1:8081".to_owned();
    cluster.publish("accounts")?;
    Ok(cluster)
}

fn on_the_right(cluster: &Cluster, wire: &Wire, id: &str) -> std::io::Result<Gateway> {
    let dir = Setup::new(cluster, id)?.write(cluster)?;
    let (gateway, config) = (program("viworks-gateway")?, dir.join("gateway.toml"));
    let args = [&*gateway.to_string_lossy(), "run", "--config", &*config.to_string_lossy()];
    let process = wire.start(&wire.right, &args, &dir.join("gateway.log"))?;
    Ok(Gateway { id: id.to_owned(), dir, process, broker: None })
}

fn status(cluster: &Cluster, agent: &str, wanted: &str, within: Duration) -> std::io::Result<Duration> {
    let began = Instant::now();
    eventually(&format!("{agent} is {wanted}"), within, || {
        let body = cluster.api.get(&format!("/agents/{agent}"))?.expect_status(200)?;
        if body["status"] == wanted { Ok(Some(began.elapsed())) } else { Err(Error::other(body.to_string())) }
    })
}

/// Wait until a gateway has written so many lines with this word into its audit log.
fn wrote(gateway: &Gateway, word: &str, times: usize, within: Duration) -> Result {
    eventually(&format!("{} writes {word:?}", gateway.id), within, || {
        let found = gateway.audit().iter().filter(|line| line.to_string().contains(word)).count();
        if found >= times { Ok(Some(())) } else { Err(Error::other(format!("{:?}", gateway.audit()))) }
    })
}

#[test]
fn cut_links_lose_nothing() -> Result {
    Wire::with_test("recovery::cut_links_lose_nothing", "rc", |wire| {
        let cluster = on_the_left()?;
        let gateways = [on_the_right(&cluster, wire, "web-01")?, on_the_right(&cluster, wire, "web-02")?];
        for gateway in &gateways {
            cluster.ready(&gateway.id, 1)?;
        }
        let steady = Steady::start(
            &cluster.api,
            Duration::from_millis(400),
            |n| json!({"verb": "add_user", "args": {"name": format!("u{n}")}, "agent_targets": ["web-01", "web-02"]}),
        );
        let mut sessions = 1;
        let mut cut = |how: &str, work: &dyn Fn() -> Result| -> Result {
            work()?;
            sessions += 1;
            for gateway in &gateways {
                wrote(gateway, "session up", sessions, BACK).map_err(|e| Error::other(format!("{how}: {e}")))?;
                status(&cluster, &gateway.id, "online", BACK)?;
            }
            Ok(())
        };
        // Packets vanish without a word: nobody's socket says anything, and both sides notice.
        cut("dropped", &|| {
            wire.dropping(true)?;
            for gateway in &gateways {
                status(&cluster, &gateway.id, "offline", NOTICED)?;
                wrote(gateway, "nothing was heard", 1, NOTICED)?;
            }
            std::thread::sleep(Duration::from_secs(2));
            wire.dropping(false)
        })?;
        cut("killed sockets", &|| wire.run(&wire.left, &["ss", "-K", "dst", "192.0.2.2"]).map(drop))?;
        cut("link down", &|| {
            wire.link(false)?;
            for gateway in &gateways {
                status(&cluster, &gateway.id, "offline", NOTICED)?;
            }
            wire.link(true)
        })?;
        let accepted = steady.stop()?;
        all_succeeded(&cluster, &accepted, 2)?;
        for gateway in &gateways {
            let listed = cluster.run(&gateway.id, "list_users", &json!({}))?;
            let there = listed["result"].as_array().map_or(0, Vec::len);
            assert_eq!(there, accepted.len(), "each user once: {listed}");
        }
        Ok(())
    })
}

/// A simulated fleet that comes back whenever its session ends.
pub fn fleet(cluster: &Cluster, count: u32, more: &[&str]) -> std::io::Result<Running> {
    let dir = cluster.path("fleet");
    write_identities(&cluster.ca, &dir, "sim", 0..count)?;
    let (many, dir) = (count.to_string(), dir.to_string_lossy().into_owned());
    let args = ["--backend", &cluster.agents_addr, "--dir", &dir, "--agents", &many, "--stay", "--seconds", "280"];
    let args = args.into_iter().chain(["--handshakes", &many]).chain(more.iter().copied());
    Running::start(&program("viworks-fleet")?, args, &cluster.path("fleet.log"))
}

/// What the fleet counted last.
pub fn counted(log: &Path, what: &str) -> std::io::Result<u64> {
    let text = std::fs::read_to_string(log)?;
    let last = text.lines().rfind(|line| line.starts_with('{')).unwrap_or("{}");
    let counts: Value = serde_json::from_str(last).unwrap_or_default();
    counts[what].as_u64().ok_or_else(|| Error::other(text))
}

/// A metric's value by its beginning, as `name{label="x"}`.
pub fn metric(api: &Api, name: &str) -> std::io::Result<f64> {
    let body = api.get("/metrics")?.expect_status(200)?;
    let text = body.as_str().unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0))
}

/// Wait until so many agents have a session, and are known to the store, from which targets are chosen.
pub fn online(cluster: &Cluster, count: u32, within: Duration) -> Result {
    eventually(&format!("{count} online"), within, || {
        let online = metric(&cluster.api, "viworks_backend_agents_online")?;
        let known = metric(&cluster.api, "viworks_backend_agents{state=\"online\"}")?;
        let all = online.min(known) >= f64::from(count);
        if all { Ok(Some(())) } else { Err(Error::other(format!("{online} are online, {known} known"))) }
    })
}

#[test]
fn a_backend_that_stops_or_dies_loses_nothing() -> Result {
    const AGENTS: u32 = 200;
    let mut cluster = Cluster::start_with(&heartbeat(""))?;
    cluster.publish("health")?;
    let _fleet = fleet(&cluster, AGENTS, &[])?;
    online(&cluster, AGENTS, SOON)?;
    let steady = Steady::start(
        &cluster.api,
        Duration::from_millis(300),
        |_| json!({"verb": "get_system_health", "args": {}, "selector": {"labels": {"fleet": "simulated"}}}),
    );
    std::thread::sleep(Duration::from_secs(1));
    cluster.backend.terminate(SOON)?;
    cluster.restart_backend()?;
    online(&cluster, AGENTS, SOON)?;
    std::thread::sleep(Duration::from_secs(1));
    cluster.backend.kill()?;
    cluster.restart_backend()?;
    online(&cluster, AGENTS, SOON)?;
    let accepted = steady.stop()?;
    all_succeeded(&cluster, &accepted, u64::from(AGENTS))?;
    let wanted = accepted.len() as u64 * u64::from(AGENTS);
    let done = eventually("the fleet says so too", SOON, || {
        let done = counted(&cluster.path("fleet.log"), "executed")?;
        Ok((done >= wanted).then_some(done))
    })?;
    assert_eq!(done, wanted, "each invocation once");
    Ok(())
}

#[test]
fn a_fleet_that_comes_back_at_once_is_let_in_bit_by_bit() -> Result {
    const AGENTS: u32 = 300;
    let mut cluster =
        Cluster::start_with(&heartbeat("agents_handshakes = 4\nagents_address_rate = 5\nagents_address_burst = 10\n"))?;
    cluster.publish("health")?;
    let _fleet = fleet(&cluster, AGENTS, &[])?;
    online(&cluster, AGENTS, SOON)?;
    cluster.backend.kill()?;
    cluster.restart_backend()?;
    online(&cluster, AGENTS, SOON)?;
    let refused = metric(&cluster.api, "viworks_backend_refusals_total{kind=\"address-rate\"}")?;
    assert!(refused > 0.0, "more came at once than there was room for");
    let body = json!({"verb": "get_system_health", "args": {}, "wait_secs": 60,
        "selector": {"labels": {"fleet": "simulated"}}});
    let done = cluster.api.post("/commands", &body)?.expect_status(200)?;
    assert_eq!(done["counts"]["succeeded"], AGENTS, "{}", done["counts"]);
    Ok(())
}

//! Hot loading: what admission costs beside compiling, and what a hundred swaps do to
//! invocations that go on meanwhile.

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use viworks_gateway::clock::Clock;
use viworks_gateway::config::Policy;
use viworks_gateway::executor::{Event, Executor, ExecutorConfig};
use viworks_gateway::host::{Host, HostConfig};
use viworks_gateway::journal::Journal;
use viworks_gateway::plugins::{Basis, Bundle, Plugins, Registry, Rules, Vouched};
use viworks_gateway::runtime::{self, Prepared, Runtime, RuntimeConfig};
use viworks_gateway::trust::{Past, Repository, View};
use viworks_protocol::frame::{PluginOffer, PluginState};
use viworks_protocol::id::AgentId;
use viworks_protocol::outcome::Outcome;
use viworks_signing::keys::SecretKey;
use viworks_signing::manifest::Manifest;
use viworks_signing::{build_release, sign_release};
use viworks_tests::program::{component, program, workspace};
use wasmtime::component::Component;

use crate::invocation::verified;
use crate::report::{Series, Table};

const ADMISSIONS: usize = 15;
const SWAPS: u32 = 100;
/// One invocation begins every so often.
const BEAT: Duration = Duration::from_millis(5);
/// How long the same load is measured without swaps.
const QUIET: Duration = Duration::from_secs(3);

const MANIFEST: &str = "id = \"versions\"\nversion = \"1.0.0\"\nsequence = 1\ndescription = \"One line\"\n\
     host_api = \"1.0\"\n[verbs.say]\neffect = \"read\"\ntimeout_secs = 10\n";

/// Verify and admit a component of 1 MiB, its compiled code being there.
pub fn admit(table: &mut Table) -> Result<()> {
    let bytes = ballast()?;
    let key = SecretKey::generate();
    let statement = build_release(&bytes, &Manifest::parse(MANIFEST).map_err(Error::other)?).map_err(Error::other)?;
    let statements = sign_release(&statement, &[&key]).map_err(Error::other)?;
    let rules = Arc::new(Rules { release_keys: vec![key.public()], policy: Policy::default() });
    let basis = Basis { rules, view: Arc::new(View::default()) };
    let engine = Arc::new(Runtime::new(RuntimeConfig::default()).map_err(Error::other)?);
    let start = Instant::now();
    runtime::compile(&bytes).map_err(Error::other)?;
    let compile = start.elapsed();
    let compiled = Component::from_binary(engine.engine(), &bytes).map_err(Error::other)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admitted = || -> Result<()> {
        let bundle = Bundle { component: &bytes, statements: &statements };
        let vouched = Vouched::check(bundle, &basis, Some("versions"), Past::New, SystemTime::now());
        let vouched = vouched.map_err(Error::other)?;
        let prepared = Prepared::new(&engine, &compiled, vouched.grant()).map_err(Error::other)?;
        let limits = vouched.limits();
        let plugin = vouched.admit(prepared, Arc::default()).map_err(Error::other)?;
        tokio.block_on(plugin.prepared().try_out(limits)).map_err(Error::other)
    };
    let times = crate::parts::repeat(ADMISSIONS, admitted)?;
    let compile = Series::millis(&[compile]);
    table.add(
        "admit_1mib",
        "ms",
        &Series::millis(&times),
        ("compile_1mib", &compile),
        Some(("≤ 20 ms", |v, _| v <= 20.0)),
    );
    Ok(())
}

/// A small plugin with so much code beside its verb that it has a MiB.
fn ballast() -> Result<Vec<u8>> {
    let text = std::fs::read_to_string(workspace().join("tests/guests/versions/v1_0.wat"))?;
    let mut functions = String::new();
    for n in 0..7_500 {
        write!(functions, "(func (param i32 i32) (result i32) (local.get 0)").map_err(Error::other)?;
        for step in 0..16 {
            let k = n * 31 + step;
            write!(functions, "(i32.const {k})(i32.xor)(local.get 1)(i32.add)").map_err(Error::other)?;
        }
        functions.push_str(")\n");
    }
    let module = format!("  (core module $ballast {functions})\n  (core instance (instantiate $ballast))\n");
    let at = text.rfind("  (func $lifted").ok_or_else(|| Error::other("the guest is another"))?;
    let bytes = wat::parse_str(format!("{}{module}{}", &text[..at], &text[at..])).map_err(Error::other)?;
    let mib = bytes.len() as f64 / f64::from(1 << 20);
    if (0.9..1.3).contains(&mib) { Ok(bytes) } else { Err(Error::other(format!("the ballast has {mib:.2} MiB"))) }
}

/// The echo guest's releases, each of other bytes.
fn release(n: u32, key: &SecretKey) -> Result<(PluginOffer, Vec<u8>, String)> {
    let mut bytes = std::fs::read(component("tests/guests", "viworks_guest_echo")?)?;
    // A custom section, so that each is compiled anew.
    bytes.extend_from_slice(&[0, 6, 1, b'n']);
    bytes.extend_from_slice(&n.to_be_bytes());
    let manifest = std::fs::read_to_string(workspace().join("tests/guests/echo/plugin.toml"))?;
    let manifest = manifest.replace("sequence = 1", &format!("sequence = {n}"));
    let manifest = Manifest::parse(&manifest.replace("\"1.0.0\"", &format!("\"1.0.{n}\""))).map_err(Error::other)?;
    let statement = build_release(&bytes, &manifest).map_err(Error::other)?;
    let statements = sign_release(&statement, &[key]).map_err(Error::other)?;
    let offer = PluginOffer {
        plugin: "echo".into(),
        version: statement.predicate.version.to_string(),
        digest: statement.subject[0].digest.sha256.clone(),
        component_size: bytes.len() as u32,
        statements_size: statements.len() as u32,
        shadow: false,
    };
    Ok((offer, bytes, statements))
}

/// Invocations at a steady beat, without swaps and during a hundred of them.
pub fn under_load(table: &mut Table) -> Result<()> {
    let (dir, key) = (tempfile::tempdir()?, SecretKey::generate());
    let engine = Arc::new(Runtime::new(RuntimeConfig::default()).map_err(Error::other)?);
    let registry = Arc::new(Registry::default());
    let rules = Rules { release_keys: vec![key.public()], policy: Policy::default() };
    let repository = Repository::open(dir.path(), None, Duration::ZERO).map_err(Error::other)?;
    let plugins =
        Plugins::open(dir.path(), rules, repository, engine.clone(), registry.clone()).map_err(Error::other)?;
    plugins.compile_by(program("viworks-gateway")?);
    let releases = (1..=SWAPS + 1).map(|n| release(n, &key)).collect::<Result<Vec<_>>>()?;

    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let journal = Journal::open(dir.path()).map_err(Error::other)?;
    let (quiet, swapping, failed) = tokio.block_on(async {
        let mut releases = releases.into_iter();
        let install = async |release: Option<(PluginOffer, Vec<u8>, String)>| -> Result<()> {
            let (offer, bytes, statements) = release.ok_or_else(|| Error::other("no release is left"))?;
            let status = plugins.install(offer, bytes, statements).await;
            if status.state == PluginState::Active { Ok(()) } else { Err(Error::other(format!("{status:?}"))) }
        };
        install(releases.next()).await?;
        let load = Load::new(registry.clone(), journal)?;
        let stop = Arc::new(AtomicBool::new(false));
        let beats = tokio::spawn(load.run(stop.clone()));
        tokio::time::sleep(QUIET).await;
        let began = Instant::now();
        for release in releases {
            install(Some(release)).await?;
        }
        stop.store(true, Ordering::Release);
        let beats = beats.await.map_err(Error::other)??;
        let failed = beats.iter().filter(|beat| !beat.succeeded).count();
        let (quiet, swapping): (Vec<&Beat>, Vec<&Beat>) = beats.iter().partition(|beat| beat.at < began);
        let times = |beats: &[&Beat]| Series::millis(&beats.iter().map(|beat| beat.took).collect::<Vec<_>>());
        Ok::<_, Error>((times(&quiet), times(&swapping), failed))
    })?;
    table.add("invocation_during_swaps", "ms", &swapping, ("invocation_without_swaps", &quiet), None);
    table.add(
        "swap_under_load_slowest",
        "ms",
        &Series::one(swapping.max()),
        ("slowest_without_swaps", &Series::one(quiet.max())),
        Some(("≤ 50 ms more", |v, b| v <= b + 50.0)),
    );
    table.add(
        "swap_under_load_failed",
        "count",
        &Series::one(failed as f64),
        ("swaps", &Series::one(f64::from(SWAPS))),
        Some(("0", |v, _| v == 0.0)),
    );
    Ok(())
}

/// One invocation: when it was due, how long until its report.
struct Beat {
    at: Instant,
    took: Duration,
    succeeded: bool,
}

struct Load {
    registry: Arc<Registry>,
    executor: Executor,
    events: tokio::sync::mpsc::Receiver<Event>,
    key: SecretKey,
    agent: AgentId,
}

impl Load {
    fn new(registry: Arc<Registry>, journal: Journal) -> Result<Self> {
        let agent: AgentId = "bench-1".parse().map_err(Error::other)?;
        let config = ExecutorConfig {
            agent: agent.clone(),
            max_concurrency: 4,
            queue: 64,
            timeout: Duration::from_secs(45),
            undo_hours: 168,
        };
        let host = Arc::new(Host::new(&HostConfig::default()));
        let (executor, events) = Executor::new(config, registry.clone(), host, journal, Clock::default());
        Ok(Self { registry, executor, events, key: SecretKey::generate(), agent })
    }

    /// A warrant names what is active as it is signed, and runs on whatever is there then.
    async fn run(mut self, stop: Arc<AtomicBool>) -> Result<Vec<Beat>> {
        let mut beats = Vec::new();
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let args = serde_json::json!({"text": "steady"});
        while !stop.load(Ordering::Acquire) {
            ticks.tick().await;
            let plugin = self.registry.plugin("echo").ok_or_else(|| Error::other("echo is not active"))?;
            let warrant = verified(&self.key, &self.agent, plugin.digest(), &args)?;
            let at = Instant::now();
            self.executor.submit(warrant).map_err(Error::other)?;
            let (invocation, report) = loop {
                match self.events.recv().await {
                    Some(Event::Report { invocation, report }) => break (invocation, report),
                    Some(_) => {}
                    None => return Err(Error::other("the executor ended")),
                }
            };
            beats.push(Beat { at, took: at.elapsed(), succeeded: report.outcome == Outcome::Succeeded });
            let _ = self.executor.acknowledge(&invocation);
        }
        Ok(beats)
    }
}

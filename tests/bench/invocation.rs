//! One invocation in the gateway's own library: beside the bare engine with the same
//! component and settings, beside a script that does the same, on two threads, and from
//! signed bytes to answering.

use std::io::{Error, Result};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use viworks_gateway::capabilities::{Facts, Progress};
use viworks_gateway::clock::Clock;
use viworks_gateway::config::Policy;
use viworks_gateway::effects::Recorder;
use viworks_gateway::executor::{Event, Executor, ExecutorConfig};
use viworks_gateway::host::{Host, HostConfig};
use viworks_gateway::journal::Journal;
use viworks_gateway::plugins::{AdmittedPlugin, Plugins, Registry, Rules};
use viworks_gateway::runtime::{Invocation, Runtime, RuntimeConfig};
use viworks_gateway::trust::Repository;
use viworks_protocol::frame::{PluginOffer, PluginState};
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::merkle::Tree;
use viworks_protocol::outcome::{Outcome, Report};
use viworks_protocol::warrant::{self, Mode, Order, VerifiedWarrant, Warrant};
use viworks_signing::keys::SecretKey;
use viworks_signing::manifest::Manifest;
use viworks_signing::release::EffectClass;
use viworks_signing::{build_release, sign_release};
use viworks_tests::program::{component, workspace};
use wasmtime::component::{HasSelf, Linker, ResourceTable, Val};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::report::{Series, Table};

const ROUNDS: usize = 2_000;
const LOADS: usize = 7;

/// A signed guest, and the keys that go with it.
pub(crate) struct Bundle {
    bytes: Vec<u8>,
    statements: String,
    pub(crate) offer: PluginOffer,
    rules: Rules,
}

impl Bundle {
    fn sign() -> Result<Self> {
        let wasm = component("tests/guests", "viworks_guest_echo")?;
        Self::of(&wasm, &workspace().join("tests/guests/echo/plugin.toml"), Policy::default())
    }

    pub(crate) fn of(wasm: &Path, manifest: &Path, policy: Policy) -> Result<Self> {
        let bytes = std::fs::read(wasm)?;
        let manifest = std::fs::read_to_string(manifest)?;
        let manifest = Manifest::parse(&manifest).map_err(Error::other)?;
        let key = SecretKey::generate();
        let statement = build_release(&bytes, &manifest).map_err(Error::other)?;
        let statements = sign_release(&statement, &[&key]).map_err(Error::other)?;
        let offer = PluginOffer {
            plugin: manifest.id.clone(),
            version: statement.predicate.version.to_string(),
            digest: statement.subject[0].digest.sha256.clone(),
            component_size: bytes.len() as u32,
            statements_size: statements.len() as u32,
            shadow: false,
        };
        let rules = Rules { release_keys: vec![key.public()], policy };
        Ok(Self { bytes, statements, offer, rules })
    }

    /// Install it into a registry whose state is in `dir`; the time from bytes to active.
    pub(crate) fn install(
        &self,
        tokio: &tokio::runtime::Runtime,
        dir: &Path,
        engine: &Arc<Runtime>,
    ) -> Result<(Arc<AdmittedPlugin>, Arc<Registry>, Duration)> {
        let registry = Arc::new(Registry::default());
        let repository = Repository::open(dir, None, Duration::ZERO).map_err(Error::other)?;
        let plugins = Plugins::open(dir, self.rules.clone(), repository, engine.clone(), registry.clone())
            .map_err(Error::other)?;
        let (bytes, statements) = (self.bytes.clone(), self.statements.clone());
        let start = Instant::now();
        let status = tokio.block_on(plugins.install(self.offer.clone(), bytes, statements));
        let took = start.elapsed();
        if status.state != PluginState::Active {
            return Err(Error::other(format!("{status:?}")));
        }
        let plugin = registry.plugin(&self.offer.plugin).ok_or_else(|| Error::other("it is not active"))?;
        Ok((plugin, registry, took))
    }
}

/// Figures 1 and 5; gives the invocation's series for the sum of parts.
pub fn measure(table: &mut Table, hot_load: bool) -> Result<Series> {
    let bundle = Bundle::sign()?;
    let dir = tempfile::tempdir()?;
    let engine = Arc::new(Runtime::new(RuntimeConfig::default()).map_err(Error::other)?);
    // As many threads as the gateway's own.
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (plugin, registry, compiled) = bundle.install(&tokio, dir.path(), &engine)?;
    let args = serde_json::json!({"text": "the quick brown fox jumps over the lazy dog ".repeat(4)});

    // The same verb in turns, so that whatever else the machine does slows both.
    let (invocation, planned) = executor(&tokio, dir.path(), registry, &bundle.offer.digest, &args)?;
    let bare = bare(&tokio, &engine, &plugin, &args)?;
    let script = script(dir.path(), &args)?;
    let within = |v: f64, b: f64| v <= b + 80.0;
    table.add("invocation_read", "us", &invocation, ("bare_wasmtime", &bare), Some(("≤ bare + 80 us", within)));
    let faster = |v: f64, b: f64| v * 20.0 <= b;
    table.add("invocation_read", "us", &invocation, ("bash_script", &script), Some(("≥ 20× faster", faster)));

    let little = |v: f64, b: f64| v <= b * 1.3;
    table.add("plan_overhead", "us", &planned, ("invocation_read", &invocation), Some(("≤ 1.3×", little)));

    let threads = dir.path().join("threads");
    std::fs::create_dir(&threads)?;
    let journal = Journal::open(&threads).map_err(Error::other)?;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        one.push(throughput(&plugin, &journal, &args, 1)?);
        two.push(throughput(&plugin, &journal, &args, 2)?);
    }
    let (one, two) = (Series::new(one), Series::new(two));
    let scales = |v: f64, b: f64| v >= 1.5 * b;
    table.add("invocations_two_threads", "1/s", &two, ("invocations_one_thread", &one), Some(("≥ 1.5×", scales)));

    if hot_load {
        loads(table, &tokio, &bundle, dir.path(), &engine, compiled)?;
    }
    Ok(invocation)
}

/// From a verified warrant to its report, through the executor: read, and planned.
fn executor(
    tokio: &tokio::runtime::Runtime,
    dir: &Path,
    registry: Arc<Registry>,
    digest: &str,
    args: &serde_json::Value,
) -> Result<(Series, Series)> {
    let agent: AgentId = "bench-1".parse().map_err(Error::other)?;
    let key = SecretKey::generate();
    let orders = [Mode::Apply, Mode::Plan].map(|mode| Ordered { plugin: "echo", verb: "ping", digest, args, mode });
    let host = Arc::new(Host::new(&HostConfig::default()));
    in_turns(tokio, dir, registry, host, &key, &agent, orders)
}

/// Two orders in turns, each from a verified warrant to its report, so that whatever else
/// the machine does slows both.
pub(crate) fn in_turns(
    tokio: &tokio::runtime::Runtime,
    dir: &Path,
    registry: Arc<Registry>,
    host: Arc<Host>,
    key: &SecretKey,
    agent: &AgentId,
    orders: [Ordered<'_>; 2],
) -> Result<(Series, Series)> {
    let all = [0, 1].into_iter().cycle().take(2 * (ROUNDS + ROUNDS / 10));
    let warrants = all.map(|n: usize| Ok((n, orders[n].verified(key, agent)?))).collect::<Result<Vec<_>>>()?;
    let journal = Journal::open(dir).map_err(Error::other)?;
    let agent = agent.clone();
    let config =
        ExecutorConfig { agent, max_concurrency: 4, queue: 64, timeout: Duration::from_secs(45), undo_hours: 168 };
    let (executor, mut events) = {
        let _inside = tokio.enter();
        Executor::new(config, registry, host, journal, Clock::default())
    };
    // On a worker, as the link's own task is: a thread outside would be woken for each report.
    let measured = tokio.spawn(async move {
        let mut took_each = [Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS)];
        for (n, (which, warrant)) in warrants.into_iter().enumerate() {
            let start = Instant::now();
            executor.submit(warrant).map_err(Error::other)?;
            let (invocation, report) = loop {
                match events.recv().await {
                    Some(Event::Report { invocation, report }) => break (invocation, report),
                    Some(_) => {}
                    None => return Err(Error::other("the executor ended")),
                }
            };
            let took = start.elapsed();
            succeeded(&report)?;
            let _ = executor.acknowledge(&invocation);
            if n < ROUNDS / 5 {
                continue;
            }
            took_each[which].push(took);
        }
        let [first, second] = took_each;
        Ok((Series::micros(&first), Series::micros(&second)))
    });
    tokio.block_on(measured).map_err(Error::other)?
}

fn succeeded(report: &Report) -> Result<()> {
    if report.outcome == Outcome::Succeeded { Ok(()) } else { Err(Error::other(format!("{report:?}"))) }
}

pub(crate) fn verified(
    key: &SecretKey,
    agent: &AgentId,
    digest: &str,
    args: &serde_json::Value,
) -> Result<VerifiedWarrant> {
    Ordered { plugin: "echo", verb: "ping", digest, args, mode: Mode::Apply }.verified(key, agent)
}

/// What a warrant is to say.
#[derive(Clone, Copy)]
pub(crate) struct Ordered<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) verb: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) args: &'a serde_json::Value,
    pub(crate) mode: Mode,
}

impl Ordered<'_> {
    fn verified(&self, key: &SecretKey, agent: &AgentId) -> Result<VerifiedWarrant> {
        let Self { plugin, verb, digest, args, mode } = *self;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::other)?;
        let now = u64::try_from(now.as_millis()).map_err(Error::other)?;
        let tree = Tree::new([agent]).ok_or_else(|| Error::other("no tree"))?;
        let proof = tree.proof(0).ok_or_else(|| Error::other("no proof"))?;
        let text = args.to_string();
        let warrant = Warrant {
            command: CommandId::new(now),
            verb: verb.into(),
            plugin: plugin.into(),
            digest: digest.to_owned(),
            args_sha256: warrant::args_sha256(&text),
            mode,
            caller: "bench".into(),
            also: Vec::new(),
            approvals: Vec::new(),
            plans: Vec::new(),
            undo: None,
            not_before_ms: now,
            expires_ms: now + 3_600_000,
            timeout_secs: 10,
            targets_root: tree.root().iter().map(|b| format!("{b:02x}")).collect(),
            targets: 1,
        };
        let warrant = warrant::sign(&warrant, key).map_err(Error::other)?;
        let args = RawValue::from_string(text).map_err(Error::other)?;
        warrant::verify(&Order { warrant, args }, &proof, &[key.public()], agent, now).map_err(Error::other)
    }
}

/// What a bare store holds: WASI and nothing else.
struct BareState {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for BareState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl viworks_gateway::capabilities::wit::viworks::gateway::types::Host for BareState {}

/// `instantiate_pre` and call of the same component on the same engine, nothing around it.
fn bare(
    tokio: &tokio::runtime::Runtime,
    engine: &Arc<Runtime>,
    plugin: &AdmittedPlugin,
    args: &serde_json::Value,
) -> Result<Series> {
    let component = plugin.prepared().component();
    let mut linker: Linker<BareState> = Linker::new(engine.engine());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(Error::other)?;
    viworks_gateway::capabilities::wit::viworks::gateway::types::add_to_linker::<_, HasSelf<_>>(&mut linker, |s| s)
        .map_err(Error::other)?;
    let pre = linker.instantiate_pre(component).map_err(Error::other)?;
    let verbs = component
        .component_type()
        .exports(engine.engine())
        .map(|(name, _)| name.to_owned())
        .find(|name| name.contains("/verbs"))
        .ok_or_else(|| Error::other("no verbs"))?;
    let interface = component.get_export_index(None, &verbs).ok_or_else(|| Error::other("no verbs"))?;
    let ping = component.get_export_index(Some(&interface), "ping").ok_or_else(|| Error::other("no ping"))?;
    let text = args["text"].as_str().unwrap_or_default().to_owned();
    tokio.block_on(async {
        let mut times = Vec::with_capacity(ROUNDS);
        for n in 0..ROUNDS + ROUNDS / 10 {
            let start = Instant::now();
            let state = BareState { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
            let mut store = wasmtime::Store::new(engine.engine(), state);
            store.set_epoch_deadline(1_000_000);
            let instance = pre.instantiate_async(&mut store).await.map_err(Error::other)?;
            let func = instance.get_func(&mut store, ping).ok_or_else(|| Error::other("no ping"))?;
            let mut results = [Val::Bool(false)];
            func.call_async(&mut store, &[Val::String(text.clone())], &mut results).await.map_err(Error::other)?;
            drop(store);
            if n >= ROUNDS / 10 {
                times.push(start.elapsed());
            }
            if !matches!(results, [Val::Result(Ok(_))]) {
                return Err(Error::other(format!("{results:?}")));
            }
        }
        Ok(Series::micros(&times))
    })
}

/// fork and exec of a script that answers about the same, without jq: the first system's way.
fn script(dir: &Path, args: &serde_json::Value) -> Result<Series> {
    let path = dir.join("ping.sh");
    std::fs::write(
        &path,
        "#!/bin/bash\ntext=$1\nset -- $text\nprintf '{\"text\":\"%s\",\"length\":%d,\"words\":%d}\\n' \"$text\" \"${#text}\" \"$#\"\n",
    )?;
    let text = args["text"].as_str().unwrap_or_default();
    let times = crate::parts::repeat(200, || {
        let output = Command::new("/bin/bash").arg(&path).arg(text).output()?;
        if output.status.success() { Ok(()) } else { Err(Error::other("the script failed")) }
    })?;
    Ok(Series::micros(&times))
}

/// Invocations a second on so many threads, each with a runtime of its own.
fn throughput(plugin: &AdmittedPlugin, journal: &Journal, args: &serde_json::Value, threads: usize) -> Result<f64> {
    const EACH: usize = 4_000;
    let map = args.as_object().cloned().unwrap_or_default();
    let host = Arc::new(Host::new(&HostConfig::default()));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                let (map, host) = (&map, &host);
                scope.spawn(move || -> Result<()> {
                    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    let id: InvocationId = format!("inv-{}", "0".repeat(32)).parse().map_err(Error::other)?;
                    for _ in 0..EACH {
                        let recorder = Recorder::new(id.clone(), EffectClass::Read, journal.clone(), host.clone());
                        let invocation = Invocation {
                            facts: Facts {
                                invocation: id.to_string(),
                                command: String::new(),
                                agent: "bench-1".into(),
                                caller: "bench".into(),
                                verb: "ping".into(),
                                plugin: "echo".into(),
                                deadline: Instant::now() + Duration::from_secs(10),
                            },
                            grant: plugin.grant().clone(),
                            host: host.clone(),
                            recorder,
                            limits: plugin.limits(),
                            cancel: CancellationToken::new(),
                            progress: Progress::silent(),
                        };
                        succeeded(&tokio.block_on(plugin.prepared().invoke("ping", map, invocation)))?;
                    }
                    Ok(())
                })
            })
            .collect();
        running.into_iter().try_for_each(|t| t.join().map_err(|_| Error::other("a thread panicked"))?)
    })?;
    Ok((threads * EACH) as f64 / start.elapsed().as_secs_f64())
}

/// From signed bytes in memory to active: compiled, and from the gateway's own cache.
fn loads(
    table: &mut Table,
    tokio: &tokio::runtime::Runtime,
    bundle: &Bundle,
    dir: &Path,
    engine: &Arc<Runtime>,
    first: Duration,
) -> Result<()> {
    let (mut cached, mut compiled) = (Vec::new(), vec![first]);
    for _ in 0..LOADS {
        // As on a host that has the compiled code and gets the bytes anew.
        std::fs::remove_dir_all(dir.join("plugins"))?;
        cached.push(bundle.install(tokio, dir, engine)?.2);
    }
    for n in 1..LOADS {
        let fresh = dir.join(format!("fresh-{n}"));
        std::fs::create_dir(&fresh)?;
        compiled.push(bundle.install(tokio, &fresh, engine)?.2);
    }
    let (mut from_binary, mut deserialized) = (Vec::new(), Vec::new());
    let aot = engine.engine().precompile_component(&bundle.bytes).map_err(Error::other)?;
    let file = dir.join("bare.cwasm");
    std::fs::write(&file, aot)?;
    for _ in 0..LOADS {
        let start = Instant::now();
        wasmtime::component::Component::from_binary(engine.engine(), &bundle.bytes).map_err(Error::other)?;
        from_binary.push(start.elapsed());
        // The least that loading costs: the file read and copied.
        let start = Instant::now();
        let bytes = std::fs::read(&file)?;
        deserialized.push(start.elapsed());
        if bytes.is_empty() {
            return Err(Error::other("nothing was compiled"));
        }
    }
    let soon = |v: f64, _: f64| v <= 10.0;
    table.add(
        "hot_load_cached",
        "ms",
        &Series::millis(&cached),
        ("read_compiled_file", &Series::millis(&deserialized)),
        Some(("≤ 10 ms", soon)),
    );
    table.add(
        "hot_load_compiled",
        "ms",
        &Series::millis(&compiled),
        ("bare_compile", &Series::millis(&from_binary)),
        None,
    );
    Ok(())
}

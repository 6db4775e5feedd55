//! A gateway without its link: real guests, signed and admitted, run by the real executor.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

pub mod made;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use viworks_gateway::clock::Clock;
use viworks_gateway::config::Policy;
use viworks_gateway::executor::{Event, Executor, ExecutorConfig};
use viworks_gateway::host::{Host, HostConfig};
use viworks_gateway::journal::Journal;
use viworks_gateway::plugins::{Plugins, Registry, Rules};
use viworks_gateway::runtime::{Runtime, RuntimeConfig, unix_ms};
use viworks_gateway::trust::{Anchor, Repository};
use viworks_protocol::frame::{PluginOffer, PluginState, PluginStatus};
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::merkle::Tree;
use viworks_protocol::outcome::Report;
use viworks_protocol::warrant::{self, Mode, Order, VerifiedWarrant, Warrant};
use viworks_signing::keys::SecretKey;
use viworks_signing::manifest::Manifest;

use self::made::Made;

/// Longer than anything that these tests wait for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The components of `tests/guests`, by their crates' names; built if they are not there.
pub fn guest(name: &str) -> Vec<u8> {
    let dir = guests();
    let text = dir.join(name).join(format!("{name}.wat"));
    if text.is_file() {
        return wat::parse_file(text).unwrap();
    }
    let target = std::env::var_os("VIWORKS_GUESTS_TARGET").map_or_else(|| dir.join("target"), PathBuf::from);
    let file = target.join("wasm32-wasip2/release").join(format!("viworks_guest_{}.wasm", name.replace('-', "_")));
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if !file.is_file() {
            let build = ["build", "--locked", "--release", "--target", "wasm32-wasip2"];
            let mut cargo = Command::new("cargo");
            cargo.args(build).env("CARGO_TARGET_DIR", &target).current_dir(&dir);
            assert!(cargo.status().is_ok_and(|status| status.success()), "the guests build");
        }
    });
    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests")
}

pub fn manifest(name: &str) -> String {
    std::fs::read_to_string(guests().join(name).join("plugin.toml")).unwrap()
}

/// A signed bundle, as it is offered and fetched.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub offer: PluginOffer,
    pub component: Vec<u8>,
    pub statements: String,
}

impl Bundle {
    pub fn sign(component: Vec<u8>, manifest: &str, key: &SecretKey) -> Self {
        let manifest = Manifest::parse(manifest).unwrap();
        let statement = viworks_signing::build_release(&component, &manifest).unwrap();
        let statements = viworks_signing::sign_release(&statement, &[key]).unwrap();
        let offer = PluginOffer {
            plugin: manifest.id.clone(),
            version: manifest.version.to_string(),
            digest: hex::encode(Sha256::digest(&component)),
            component_size: component.len() as u32,
            statements_size: statements.len() as u32,
            shadow: false,
        };
        Self { offer, component, statements }
    }
}

/// Everything of a gateway but its link.
pub struct Gateway {
    pub dir: TempDir,
    pub release_key: SecretKey,
    pub runtime: Arc<Runtime>,
    pub registry: Arc<Registry>,
    pub plugins: Plugins,
    pub host: Arc<Host>,
    pub journal: Journal,
    pub repository: Repository,
    policy: Policy,
    anchor: Option<Anchor>,
    warrant_key: SecretKey,
    agent: AgentId,
}

impl Gateway {
    /// One whose policy grants these tables of `[capabilities]`.
    pub fn new(scopes: &str) -> Self {
        Self::made(scopes, None, |_, _| ())
    }

    /// One whose host is configured otherwise; `configure` is given the directory.
    pub fn with_host(scopes: &str, configure: impl FnOnce(&Path, &mut HostConfig)) -> Self {
        Self::made(scopes, None, configure)
    }

    /// One that trusts this release repository.
    pub fn trusting(scopes: &str, made: &Made) -> Self {
        Self::made(scopes, Some(Anchor::new(&made.root()).unwrap()), |_, _| ())
    }

    /// Trust this release repository from the next start on.
    pub fn trust(&mut self, made: &Made) {
        self.anchor = Some(Anchor::new(&made.root()).unwrap());
    }

    fn made(scopes: &str, anchor: Option<Anchor>, configure: impl FnOnce(&Path, &mut HostConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (release_key, policy) = (SecretKey::generate(), policy(scopes));
        let journal = Journal::open(dir.path()).unwrap();
        let mut config = HostConfig::default();
        config.state.file = Some(dir.path().join("plugin-state.db"));
        configure(dir.path(), &mut config);
        let host = Arc::new(Host::new(&config));
        let (runtime, registry, plugins, repository) = open(dir.path(), &release_key, policy.clone(), &anchor);
        let (warrant_key, agent) = (SecretKey::generate(), "web-01".parse().unwrap());
        Self {
            dir,
            release_key,
            runtime,
            registry,
            plugins,
            host,
            journal,
            repository,
            policy,
            anchor,
            warrant_key,
            agent,
        }
    }

    /// The same state directory after a restart, perhaps with another policy.
    pub fn reopen(&mut self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy);
        let (runtime, registry, plugins, repository) =
            open(self.dir.path(), &self.release_key, self.policy.clone(), &self.anchor);
        (self.runtime, self.registry, self.plugins, self.repository) = (runtime, registry, plugins, repository);
    }

    /// Another policy while it runs.
    pub async fn go_by(&mut self, change: impl FnOnce(&mut Policy)) -> Vec<PluginStatus> {
        change(&mut self.policy);
        let rules = Rules { release_keys: vec![self.release_key.public()], policy: self.policy.clone() };
        self.plugins.go_by(rules).await
    }

    /// What the backend serves now is fetched, and every plugin judged by it.
    pub async fn update(&self, made: &Made) -> Result<Vec<PluginStatus>, String> {
        let Some(mut update) = self.repository.update(made.timestamp(), SystemTime::now()) else {
            return Err("nothing to update".into());
        };
        while let Some(name) = update.wanted().map(str::to_owned) {
            let file = made.file(&name).map(|bytes| String::from_utf8(bytes).unwrap());
            if let Err(error) = update.take(&name, file.as_deref()) {
                self.repository.refused(&update, &error);
                return Err(error.code().to_owned());
            }
        }
        self.repository.keep(&update).map_err(|error| error.code().to_owned())?;
        Ok(self.plugins.review().await)
    }

    pub fn bundle(&self, name: &str) -> Bundle {
        Bundle::sign(guest(name), &manifest(name), &self.release_key)
    }

    /// One of the project's own plugins.
    pub fn plugin(&self, name: &str) -> Bundle {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
        let target = std::env::var_os("VIWORKS_PLUGINS_TARGET").map_or_else(|| dir.join("target"), PathBuf::from);
        let file = target.join("wasm32-wasip2/release").join(format!("viworks_plugin_{name}.wasm"));
        let component = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e} (make guests)", file.display()));
        let manifest = std::fs::read_to_string(dir.join(name).join("plugin.toml")).unwrap();
        Bundle::sign(component, &manifest, &self.release_key)
    }

    /// Sign and install plugins that must be admitted.
    pub async fn with_plugins(self, names: &[&str]) -> Self {
        for name in names {
            let status = self.install(self.plugin(name)).await;
            assert_eq!(status.state, PluginState::Active, "{name}: {status:?}");
        }
        self
    }

    pub async fn install(&self, bundle: Bundle) -> PluginStatus {
        self.plugins.install(bundle.offer, bundle.component, bundle.statements).await
    }

    /// Sign and install guests that must be admitted.
    pub async fn with(self, names: &[&str]) -> Self {
        for name in names {
            let status = self.install(self.bundle(name)).await;
            assert_eq!(status.state, PluginState::Active, "{name}: {status:?}");
        }
        self
    }

    pub fn executor(&self, max_concurrency: u32, queue: u32) -> Running {
        let config = ExecutorConfig {
            agent: self.agent.clone(),
            max_concurrency,
            queue,
            timeout: Duration::from_secs(45),
            undo_hours: 168,
        };
        let clock = Clock::default();
        let (executor, events) =
            Executor::new(config, self.registry.clone(), self.host.clone(), self.journal.clone(), clock);
        Running { executor, events }
    }

    /// A warrant for the active plugin with this verb.
    pub fn warrant(&self, verb: &str, args: Value) -> VerifiedWarrant {
        self.warrant_with(verb, args, |_| ())
    }

    /// The same with something changed before it is signed.
    pub fn warrant_with(&self, verb: &str, args: Value, change: impl FnOnce(&mut Warrant)) -> VerifiedWarrant {
        let plugin = self.registry.resolve(verb);
        let tree = Tree::new(std::slice::from_ref(&self.agent)).unwrap();
        let args = serde_json::to_string(&sorted(args)).unwrap();
        let now = unix_ms();
        let mut warrant = Warrant {
            command: CommandId::new(now),
            verb: verb.into(),
            plugin: plugin.as_ref().map_or("none".into(), |p| p.release().plugin.clone()),
            digest: plugin.as_ref().map_or("0".repeat(64), |p| p.digest().to_owned()),
            args_sha256: warrant::args_sha256(&args),
            mode: Mode::Apply,
            caller: "alice".into(),
            also: Vec::new(),
            approvals: Vec::new(),
            plans: Vec::new(),
            undo: None,
            not_before_ms: now,
            expires_ms: now + 60_000,
            timeout_secs: 30,
            targets_root: hex::encode(tree.root()),
            targets: 1,
        };
        change(&mut warrant);
        let order = Order {
            warrant: warrant::sign(&warrant, &self.warrant_key).unwrap(),
            args: serde_json::value::RawValue::from_string(args).unwrap(),
        };
        let proof = tree.proof(0).unwrap();
        warrant::verify(&order, &proof, &[self.warrant_key.public()], &self.agent, now).unwrap()
    }
}

/// An executor and its events.
pub struct Running {
    pub executor: Executor,
    pub events: Receiver<Event>,
}

impl Running {
    /// Submit, and wait for the report.
    pub async fn run(&mut self, warrant: VerifiedWarrant) -> Arc<Report> {
        let invocation = warrant.invocation().clone();
        self.executor.submit(warrant).unwrap();
        let report = self.report_of(&invocation).await;
        let _ = self.executor.acknowledge(&invocation);
        report
    }

    /// The next event of any kind.
    pub async fn event(&mut self) -> Event {
        match tokio::time::timeout(PATIENCE, self.events.recv()).await {
            Ok(Some(event)) => event,
            other => panic!("an event was due: {other:?}"),
        }
    }

    /// Wait for this invocation's report; other events pass by.
    pub async fn report_of(&mut self, wanted: &InvocationId) -> Arc<Report> {
        loop {
            if let Event::Report { invocation, report } = self.event().await
                && invocation == *wanted
            {
                return report;
            }
        }
    }

    /// Wait until a gauge has a value.
    pub async fn until(&self, what: &str, reached: impl Fn(&Executor) -> bool) {
        let poll = async {
            while !reached(&self.executor) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, poll).await.is_ok(), "{what}");
    }
}

/// The failure's code and rule.
pub fn failure(report: &Report) -> (&str, Option<&str>) {
    report.failure.as_ref().map_or(("", None), |f| (f.code.as_str(), f.rule.as_deref()))
}

pub fn result(report: &Report) -> Value {
    report.result.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

fn open(
    dir: &Path,
    key: &SecretKey,
    policy: Policy,
    anchor: &Option<Anchor>,
) -> (Arc<Runtime>, Arc<Registry>, Plugins, Repository) {
    let runtime = Arc::new(Runtime::new(RuntimeConfig::default()).unwrap());
    let registry = Arc::new(Registry::default());
    let rules = Rules { release_keys: vec![key.public()], policy };
    let repository = Repository::open(dir, anchor.clone(), Duration::from_secs(3_600)).unwrap();
    let plugins = Plugins::open(dir, rules, repository.clone(), runtime.clone(), registry.clone()).unwrap();
    (runtime, registry, plugins, repository)
}

fn policy(scopes: &str) -> Policy {
    Policy { scopes: toml::from_str(scopes).unwrap(), ..Policy::default() }
}

/// Keys in order, which is all that canonical JSON asks of these arguments.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().map(|(k, v)| (k, sorted(v))).collect::<Map<_, _>>())
        }
        other => other,
    }
}

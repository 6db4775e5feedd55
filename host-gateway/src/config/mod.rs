//! The gateway's configuration: a TOML file, the environment over it, and the files that
//! they name, all read and checked at once. A [`Config`] is sound by its making; what is
//! not sound is told as [`Faults`], every one of them.
//!
//! [`broker`] what the broker takes of it · [`keys`] which there are · [`backend`] address and pins · [`identity`] certificates and
//! keys · [`policy`] the host owner's file · [`watch`] the same while the gateway runs ·
//! [`fault`] what is told.

mod backend;
mod broker;
mod fault;
mod files;
mod identity;
mod keys;
mod policy;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

pub use backend::{BackendUrl, Pin};
pub use broker::{BrokerConfig, digest_of};
pub use fault::{Fault, Faults};
pub use identity::{Credentials, provider, spiffe_id};
pub use keys::{Env, process_env};
pub use watch::{PolicyFile, PolicyHealth};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use viworks_protocol::id::AgentId;
use viworks_signing::keys::PublicKey;
pub use viworks_signing::policy::Policy;

use crate::host::HostConfig;
use crate::log::Format;
use crate::recording;
use crate::selfupdate;
use crate::trust::Anchor;
use keys::Values;

/// Read if it exists and nothing else is named.
pub const DEFAULT_FILE: &str = "/etc/viworks/gateway.toml";

/// Names the file, where `--config` does not.
pub const CONFIG_ENV: &str = "VIW_AGENT_CONFIG";

/// Docker's. An engine that is not there is no fault: the capability says so when asked.
const DEFAULT_ENGINE: &str = "/var/run/docker.sock";

const DEFAULT_STATE_DIR: &str = "/var/lib/viworks-gateway";

#[derive(Debug, Clone)]
pub struct Config {
    pub backend: BackendUrl,
    pub agent: AgentId,
    pub credentials: Arc<Credentials>,
    pub site: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub max_concurrency: u32,
    /// Invocations that wait beside the running ones; then `busy`.
    pub queue: u32,
    /// No invocation runs longer, whatever its warrant says.
    pub cmd_timeout: Duration,
    pub state_dir: PathBuf,
    pub warrant_keys: Vec<PublicKey>,
    /// Who may release, where the policy does not say.
    pub release_keys: Vec<PublicKey>,
    pub policy: Policy,
    pub policy_file: PolicyFile,
    /// The release repository's root; `None`: signatures alone decide.
    pub anchor: Option<Anchor>,
    /// How long after its expiry the repository's metadata is called stale.
    pub repository_grace: Duration,
    pub status_socket: PathBuf,
    pub audit_log: PathBuf,
    pub telemetry: Duration,
    /// How long a stopping gateway lets what runs go on.
    pub drain: Duration,
    /// How long what a command did can be undone.
    pub undo_hours: u32,
    /// `None`: JSON unless standard error is a terminal.
    pub log_format: Option<Format>,
    pub providers: HostConfig,
    /// The broker's socket; `None`: this process changes the host itself.
    pub broker: Option<PathBuf>,
    pub recording: recording::Config,
    pub self_update: selfupdate::Config,
    /// Where this was read from, if it was named on the command line.
    pub file: Option<PathBuf>,
}

impl Config {
    /// Read everything: the file at `path` (or the one that `env` names, or the default
    /// one), `env` over it, and all the files named there. `now` is Unix seconds.
    ///
    /// # Errors
    /// Every fault that there is.
    pub fn load(path: Option<&Path>, env: &Env, now: i64) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let table = read_file(path, env, &mut faults);
        let values = Values::merge(table, env, &mut faults);
        let config = build(&values, now, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(Self { file: path.map(Path::to_owned), ..config }),
            _ => Err(faults),
        }
    }

    /// What is sound and still worth telling.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.anchor.is_none() {
            notes.push(
                "no trusted_root: plugins are judged by their signatures alone, without freshness or revocation".into(),
            );
        }
        notes
    }

    /// The policy file alone, with the keys that it may name: `policy` in its place where
    /// one is named.
    #[must_use]
    pub fn policy_file(path: Option<&Path>, policy: Option<PathBuf>, env: &Env, faults: &mut Faults) -> PolicyFile {
        // Everything else of the configuration is another command's.
        let mut elsewhere = Faults::default();
        let values = Values::merge(read_file(path, env, faults), env, &mut elsewhere);
        let named = |key: &str, faults: &mut Faults| values.text(key, faults).map(PathBuf::from);
        let known = named("release_keys", faults).map_or_else(Vec::new, |path| keys_of("release_keys", &path, faults));
        let mend = "the host owner's policy file";
        let policy = policy.or_else(|| values.required("policy", mend, faults).map(PathBuf::from)).unwrap_or_default();
        PolicyFile::new(policy, known)
    }

    /// The state directory alone.
    #[must_use]
    pub fn state_dir(path: Option<&Path>, env: &Env) -> PathBuf {
        let mut faults = Faults::default();
        let values = Values::merge(read_file(path, env, &mut faults), env, &mut Faults::default());
        state_dir(&values, &mut faults)
    }

    /// The status socket alone, for a program that asks a running gateway: everything else
    /// may be unreadable for its user.
    #[must_use]
    pub fn status_socket(path: Option<&Path>, env: &Env) -> PathBuf {
        let mut faults = Faults::default();
        let values = Values::merge(read_file(path, env, &mut faults), env, &mut Faults::default());
        let state_dir = state_dir(&values, &mut faults);
        values.text("status_socket", &mut faults).map_or_else(|| state_dir.join("status.sock"), PathBuf::from)
    }
}

fn read_file(path: Option<&Path>, env: &Env, faults: &mut Faults) -> toml::Table {
    let named = path.map(Path::to_owned).or_else(|| env.get(CONFIG_ENV).map(PathBuf::from));
    let path = match named {
        Some(path) => path,
        None if Path::new(DEFAULT_FILE).exists() => DEFAULT_FILE.into(),
        None => return toml::Table::new(),
    };
    let Some(text) = files::read_shared("config", &path, faults) else { return toml::Table::new() };
    text.parse().unwrap_or_else(|e: toml::de::Error| {
        faults.add("config", path.display(), format!("is not TOML: {}", e.to_string().trim()), "correct that place");
        toml::Table::new()
    })
}

fn state_dir(values: &Values, faults: &mut Faults) -> PathBuf {
    values.text("state_dir", faults).map_or_else(|| DEFAULT_STATE_DIR.into(), PathBuf::from)
}

/// Look at every key, whatever was wrong with the others.
fn build(values: &Values, now: i64, faults: &mut Faults) -> Option<Config> {
    let url = values.required("backend_url", "the backend's address, wss://HOST:PORT", faults);
    let backend = url.and_then(|url| BackendUrl::parse(&url, faults));
    let agent = values.required("agent_id", "this agent's id", faults).and_then(|id| {
        let parsed = id.parse::<AgentId>();
        parsed.inspect_err(|e| faults.add("agent_id", &id, e, "set the id that the certificate was issued for")).ok()
    });
    let credentials = credentials(values, agent.as_ref(), now, faults);

    let site = values.text("site", faults);
    if site.as_ref().is_some_and(|site| site.len() > 128) {
        faults.add("site", site.as_deref().unwrap_or_default(), "is longer than 128 bytes", "shorten it");
    }
    let labels = values.pairs("labels", faults);
    if labels.len() > 64 {
        faults.add("labels", labels.len(), "are more than 64", "keep the ones that select hosts");
    }
    for (name, value) in &labels {
        if name.is_empty() || name.len() > 64 || value.len() > 256 || format!("{name}{value}").contains(['=', ',']) {
            let mend = "use 1 to 64 bytes for the name, at most 256 for the value, no '=' or ','";
            faults.add(format!("labels.{name}"), value, "is not a label", mend);
        }
    }

    let path = |key: &str, faults: &mut Faults| values.text(key, faults).map(PathBuf::from);
    let container_engine = container_engine(values, faults);
    let max_concurrency = values.number("max_concurrency", 4, (1, 256), faults);
    let queue = values.number("queue", 64, (0, 10_000), faults);
    let cmd_timeout = values.number("cmd_timeout_secs", 45, (1, 86_400), faults);
    let telemetry = values.number("telemetry_secs", 30, (2, 86_400), faults);
    let drain = values.number("drain_secs", 20, (0, 3_600), faults);
    let undo_hours = values.number("undo_hours", 168, (1, 24 * 90), faults);

    let state_dir = state_dir(values, faults);
    files::writable_dir("state_dir", &state_dir, faults);
    let status_socket = path("status_socket", faults).unwrap_or_else(|| state_dir.join("status.sock"));
    files::writable_parent("status_socket", &status_socket, faults);
    files::socket_path("status_socket", &status_socket, faults);
    let audit_log = path("audit_log", faults).unwrap_or_else(|| state_dir.join("audit.jsonl"));
    files::writable_parent("audit_log", &audit_log, faults);

    let warrant_keys = public_keys(values, "warrant_keys", "the backend's public warrant key", faults);
    let release_keys = match path("release_keys", faults) {
        Some(path) => keys_of("release_keys", &path, faults),
        None => Vec::new(),
    };
    let policy_path = values
        .required("policy", "the host owner's policy file; an empty one allows nothing", faults)
        .map_or_else(PathBuf::new, PathBuf::from);
    let policy_file = PolicyFile::new(policy_path, release_keys.clone());
    let policy = if policy_file.path().as_os_str().is_empty() { Policy::default() } else { policy_file.load(faults) };
    if policy.signers.is_none() {
        // Named after the policy's own faults, since the policy may do without.
        let _ = values.required("release_keys", "the public keys that sign plugin releases", faults);
    }
    let anchor = path("trusted_root", faults).and_then(|path| anchor(&path, faults));
    let grace = values.number("repository_grace_hours", 24, (0, 8_760), faults);
    let self_update = values.self_update(faults);
    if self_update.enabled && anchor.is_none() && values.text("trusted_root", &mut Faults::default()).is_none() {
        let mend = "set trusted_root to the release repository's root.json, or enabled = false";
        faults.add("self_update.enabled", "true", "no repository is trusted that could say what is newer", mend);
    }
    let scripts_root = path("scripts_root", faults);
    files::scripts(scripts_root.as_deref(), &values.list("required_scripts", faults), &policy, faults);

    let broker = path("broker", faults);
    if let Some(socket) = &broker {
        if !socket.is_absolute() {
            faults.add("broker", socket.display(), "is not an absolute path", "write /run/viworks/broker.sock");
        }
        files::socket_path("broker", socket, faults);
    }

    let log_format = values.text("log_format", faults).and_then(|word| {
        let format = Format::of(&word);
        if format.is_none() {
            faults.add("log_format", &word, "is none of json, text and ecs", "write one of them, or remove it");
        }
        format
    });
    let mut providers = providers(values, faults);
    // The contract's keys stand above the providers' own.
    let engine = container_engine.or(providers.containers.socket);
    providers.containers.socket = Some(engine.unwrap_or_else(|| DEFAULT_ENGINE.into()));
    providers.scripts.root = scripts_root.or(providers.scripts.root);
    providers.state.file.get_or_insert_with(|| state_dir.join("plugin-state.db"));
    Some(Config {
        backend: backend?,
        agent: agent?,
        credentials: Arc::new(credentials?),
        site,
        labels,
        max_concurrency,
        queue,
        cmd_timeout: Duration::from_secs(cmd_timeout.into()),
        state_dir,
        warrant_keys,
        release_keys,
        policy,
        policy_file,
        anchor,
        repository_grace: Duration::from_secs(u64::from(grace) * 3_600),
        status_socket,
        audit_log,
        telemetry: Duration::from_secs(telemetry.into()),
        drain: Duration::from_secs(drain.into()),
        undo_hours,
        log_format,
        providers,
        broker,
        recording: values.recording(faults),
        self_update,
        file: None,
    })
}

fn container_engine(values: &Values, faults: &mut Faults) -> Option<PathBuf> {
    let text = values.text("container_engine", faults)?;
    let path = PathBuf::from(text.strip_prefix("unix://").unwrap_or(&text));
    if !path.is_absolute() {
        let mend = format!("write {DEFAULT_ENGINE}, or where the engine listens");
        faults.add("container_engine", &text, "is not a unix socket's absolute path", mend);
    }
    Some(path)
}

fn credentials(values: &Values, agent: Option<&AgentId>, now: i64, faults: &mut Faults) -> Option<Credentials> {
    let path = |key, what, faults: &mut Faults| values.required(key, what, faults).map(PathBuf::from);
    let chain = path("cert_path", "the agent's certificate", faults)
        .and_then(|path| identity::chain(&path, agent, now, faults));
    let key_path = path("key_path", "the certificate's private key", faults);
    let key = key_path.as_ref().and_then(|path| identity::key(path, faults));
    if let (Some(path), Some((chain, _)), Some(key)) = (&key_path, &chain, &key) {
        identity::matching(path, chain, key, faults);
    }
    let roots = path("trust_bundle", "the backend's certificate authority", faults)
        .and_then(|path| identity::roots(&path, now, faults));
    let pins = values
        .required("backend_spki_pin", "the backend's key as sha256/BASE64", faults)
        .map(|text| backend::parse_pins(&text, faults));
    let (chain, expires) = chain?;
    Some(Credentials { chain, key: key?, roots: Arc::new(roots?), pins: pins?, expires })
}

fn public_keys(values: &Values, key: &str, what: &str, faults: &mut Faults) -> Vec<PublicKey> {
    values.required(key, what, faults).map_or_else(Vec::new, |path| keys_of(key, Path::new(&path), faults))
}

/// The release repository's root, which everything else of it is verified from.
fn anchor(path: &Path, faults: &mut Faults) -> Option<Anchor> {
    let text = files::read_shared("trusted_root", path, faults)?;
    let refused = |error| {
        let problem = format!("is no root of a release repository: {}", crate::link::chain(&error));
        faults.add("trusted_root", path.display(), problem, "put the repository's root.json there, from a trusted way");
    };
    Anchor::new(text.as_bytes()).map_err(refused).ok()
}

fn keys_of(key: &str, path: &Path, faults: &mut Faults) -> Vec<PublicKey> {
    let Some(pem) = files::read_shared(key, path, faults) else { return Vec::new() };
    PublicKey::all_from_pem(&pem).unwrap_or_else(|e| {
        let mut problem = e.to_string();
        let mut source = std::error::Error::source(&e);
        while let Some(inner) = source {
            problem = format!("{problem}: {inner}");
            source = inner.source();
        }
        faults.add(key, path.display(), problem, "put Ed25519 public keys there, SPKI in PEM");
        Vec::new()
    })
}

/// Each capability's table by itself, so that one fault does not hide another.
fn providers(values: &Values, faults: &mut Faults) -> HostConfig {
    let mut sound = toml::Table::new();
    for (name, table) in values.providers(faults) {
        let alone = toml::Table::from_iter([(name.clone(), table.clone())]);
        match alone.try_into::<HostConfig>() {
            Ok(_) => {
                sound.insert(name, table);
            }
            Err(e) => {
                let key = format!("providers.{name}");
                faults.add(key, table, e.message(), "correct it, or remove it for the defaults");
            }
        }
    }
    sound.try_into().unwrap_or_default()
}

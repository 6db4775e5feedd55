//! The backend's configuration: one TOML file, each key overridden by
//! `VIW_BACKEND_<KEY>`. Reports every fault at once, each with its key; refuses unknown
//! keys, and values that nothing could run with.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::cluster::RedisUrl;
use crate::edge::Nets;
use crate::repository::oci::Registry;
use crate::spans::Endpoint;
use crate::store::url::{DatabaseUrl, StoreUrl};

const ENV: &str = "VIW_BACKEND_";

/// Every key, as in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Holds `viworks.db`, keys made here, and `listening.json`.
    pub data_dir: PathBuf,
    /// `postgres://…`; without it, the store is `viworks.db` in the data directory.
    pub database_url: Option<DatabaseUrl>,
    /// Redis, which instances wake each other by, and which counts requests of all of them.
    pub redis_url: Option<RedisUrl>,
    /// This instance's name among those over one database; by default another one at each start.
    pub instance_id: Option<String>,
    pub api_listen: SocketAddr,
    pub agents_listen: SocketAddr,
    /// Server certificate chain and key of the agents' port, PEM.
    pub agents_cert: PathBuf,
    pub agents_key: PathBuf,
    /// The authorities that sign agents' client certificates, PEM.
    pub agents_client_ca: PathBuf,
    /// Their revocation lists, PEM; read again when the file changes.
    pub agents_crl: Option<PathBuf>,
    /// PKCS#8 PEM; by default `<data_dir>/warrant.key.pem`, made on the first run.
    pub warrant_key: Option<PathBuf>,
    /// Public keys that releases must be signed by, PEM.
    pub release_keys: PathBuf,
    /// The release repository's `root.json` that is trusted. With it, only releases that the
    /// repository speaks for are published.
    pub trusted_root: Option<PathBuf>,
    /// A release repository's directory, watched; without it, news comes by upload.
    pub repository: Option<PathBuf>,
    /// Whether releases that the repository brings become active at once; otherwise they
    /// wait for rollouts.
    pub repository_activates: bool,
    /// OCI registries that bundles may be pulled from, by `HOST` or `HOST:PORT`.
    pub registries: BTreeMap<String, Registry>,
    /// Proxies that may name other peers: PROXY protocol, `X-Forwarded-For`, passed certificates.
    pub trusted_proxies: Nets,
    /// Connections begin with a PROXY protocol header, and come from trusted proxies alone.
    pub agents_proxy_protocol: bool,
    pub api_proxy_protocol: bool,
    /// Where trusted proxies that end gateways' TLS connect: plain on loopback, TLS elsewhere.
    pub agents_header_listen: Option<SocketAddr>,
    /// The header that they pass the client's certificate in.
    pub client_cert_header: Option<String>,
    /// Connections that one address may open to the agents' port a second, at once, and as
    /// handshakes at the same time.
    pub agents_address_rate: u32,
    pub agents_address_burst: u32,
    pub agents_address_handshakes: u32,
    /// Connections and requests that one address may make to the API a second, at once; and
    /// connections that it may have open.
    pub api_address_rate: u32,
    pub api_address_burst: u32,
    pub api_address_connections: u32,
    /// TLS handshakes of agents at work at once.
    pub agents_handshakes: u32,
    /// Agents' sessions; by default nine tenths of the files that the process may open.
    pub max_sessions: Option<u32>,
    pub heartbeat_secs: u32,
    pub stale_after_secs: u64,
    pub stale_check_secs: u64,
    /// Commands with work at connected agents at the same time.
    pub slots: u32,
    pub max_targets: u32,
    /// Of raw samples.
    pub telemetry_retention_hours: u64,
    /// Of hourly roll-ups.
    pub telemetry_hourly_retention_days: u64,
    pub command_retention_days: u64,
    pub audit_retention_days: u64,
    /// Receipts; anchors stay.
    pub receipt_retention_days: u64,
    /// Seconds between two anchors over the chains of receipts.
    pub anchor_secs: u64,
    /// Requests that one token may make a second on average, and at once.
    pub api_rate: u32,
    pub api_burst: u32,
    /// A delivered invocation's result is awaited so long after expiry and timeout.
    pub result_grace_secs: u32,
    /// Gateways keep the way back from a command so long after its end: what they are
    /// configured to.
    pub undo_hours: u64,
    /// Off when absent.
    pub cleanup_containers_schedule: Option<Schedule>,
    /// `json`, `text` or `ecs`; by default JSON where standard error is no terminal.
    pub log_format: Option<LogFormat>,
    /// The collector that traces go to, `http://host:port`; no traces without one.
    pub otlp_endpoint: Option<Endpoint>,
    /// The share of requests that is traced where the client does not say.
    pub trace_sample: f64,
    /// Background work is given so long to end after SIGTERM.
    pub drain_secs: u64,
    /// Before that it is not ready for so long, and serves as ever: load balancers look elsewhere.
    pub drain_notice_secs: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Json,
    Text,
    /// JSON in the Elastic Common Schema, audit entries too.
    Ecs,
}

/// An ordinary command, posted by the backend itself every so often.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Seconds between two runs.
    #[serde(default = "hourly")]
    pub every_secs: u64,
    /// The verb's arguments.
    #[serde(default)]
    pub args: serde_json::Map<String, serde_json::Value>,
    /// Which agents; all given conditions must hold.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    pub site: Option<String>,
    #[serde(default)]
    pub all: bool,
}

fn hourly() -> u64 {
    3_600
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/viworks-backend".into(),
            database_url: None,
            redis_url: None,
            instance_id: None,
            api_listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            agents_listen: SocketAddr::from(([0, 0, 0, 0], 8081)),
            agents_cert: "/etc/viworks/agents.crt.pem".into(),
            agents_key: "/etc/viworks/agents.key.pem".into(),
            agents_client_ca: "/etc/viworks/agents-ca.crt.pem".into(),
            agents_crl: None,
            warrant_key: None,
            release_keys: "/etc/viworks/release.pub.pem".into(),
            trusted_root: None,
            repository: None,
            repository_activates: true,
            registries: BTreeMap::new(),
            trusted_proxies: Nets::default(),
            agents_proxy_protocol: false,
            api_proxy_protocol: false,
            agents_header_listen: None,
            client_cert_header: None,
            agents_address_rate: 200,
            agents_address_burst: 1_000,
            agents_address_handshakes: 256,
            api_address_rate: 5_000,
            api_address_burst: 10_000,
            api_address_connections: 1_024,
            agents_handshakes: 64,
            max_sessions: None,
            heartbeat_secs: 20,
            stale_after_secs: 1_800,
            stale_check_secs: 300,
            slots: 100,
            max_targets: 100_000,
            telemetry_retention_hours: 48,
            telemetry_hourly_retention_days: 90,
            command_retention_days: 30,
            audit_retention_days: 400,
            result_grace_secs: 60,
            undo_hours: 168,
            receipt_retention_days: 400,
            anchor_secs: 300,
            api_rate: 2_000,
            api_burst: 4_000,
            cleanup_containers_schedule: None,
            log_format: None,
            otlp_endpoint: None,
            trace_sample: 0.01,
            drain_secs: 20,
            drain_notice_secs: 0,
        }
    }
}

/// One thing wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub key: String,
    pub message: String,
}

/// Everything wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s)", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {}: {}", fault.key, fault.message))
    }
}

impl Config {
    /// Read `file` (or `VIW_BACKEND_CONFIG`, or `/etc/viworks/backend.toml` where it
    /// exists), then the environment.
    ///
    /// # Errors
    /// Every fault of form and range. Files that keys name are not opened here.
    pub fn load(file: Option<&Path>) -> Result<Self, Faults> {
        Self::from_parts(file, |name| std::env::var(name).ok())
    }

    fn from_parts(file: Option<&Path>, env: impl Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let named = file.map(Path::to_owned).or_else(|| env(&format!("{ENV}CONFIG")).map(PathBuf::from));
        let usual = Path::new("/etc/viworks/backend.toml");
        let path = named.or_else(|| usual.exists().then(|| usual.to_owned()));
        let mut table = toml::Table::new();
        if let Some(path) = path {
            match std::fs::read_to_string(&path).map_err(|e| e.to_string()).and_then(|text| parse(&text)) {
                Ok(read) => table = read,
                Err(message) => faults.push(Fault { key: path.display().to_string(), message }),
            }
        }
        for key in KEYS {
            if let Some(text) = env(&format!("{ENV}{}", key.to_uppercase())) {
                table.insert((*key).to_owned(), from_env(&text));
            }
        }
        // Each key by itself first, so that one bad value hides no other.
        let mut good = toml::Table::new();
        for (key, value) in table {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            match alone.try_into::<Self>() {
                Ok(_) => drop(good.insert(key, value)),
                Err(error) => faults.push(Fault { key, message: error.message().to_owned() }),
            }
        }
        let config: Self = good.try_into().unwrap_or_default();
        config.ranges(&mut faults);
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    fn ranges(&self, faults: &mut Vec<Fault>) {
        if !(0.0..=1.0).contains(&self.trace_sample) {
            let message = format!("{} is not within 0 to 1", self.trace_sample);
            faults.push(Fault { key: "trace_sample".to_owned(), message });
        }
        let mut within = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                faults.push(Fault { key: key.to_owned(), message: format!("{value} is not within {low} to {high}") });
            }
        };
        within("agents_address_rate", u64::from(self.agents_address_rate), 1, 1_000_000);
        within("agents_address_burst", u64::from(self.agents_address_burst), 1, 1_000_000);
        within("agents_address_handshakes", u64::from(self.agents_address_handshakes), 1, 1_024);
        within("api_address_rate", u64::from(self.api_address_rate), 1, 1_000_000);
        within("api_address_burst", u64::from(self.api_address_burst), 1, 1_000_000);
        within("api_address_connections", u64::from(self.api_address_connections), 1, 4_096);
        within("agents_handshakes", u64::from(self.agents_handshakes), 1, 1_024);
        within("max_sessions", u64::from(self.max_sessions.unwrap_or(1)), 1, 1_000_000);
        within("heartbeat_secs", u64::from(self.heartbeat_secs), 1, 600);
        within("stale_after_secs", self.stale_after_secs, 1, 31_536_000);
        within("stale_check_secs", self.stale_check_secs, 1, 86_400);
        within("slots", u64::from(self.slots), 1, 10_000);
        within("max_targets", u64::from(self.max_targets), 1, 1 << viworks_protocol::merkle::MAX_DEPTH);
        within("telemetry_retention_hours", self.telemetry_retention_hours, 1, 8_760);
        within("telemetry_hourly_retention_days", self.telemetry_hourly_retention_days, 1, 3_650);
        // A gateway keeps its memory of a command for its validity and a day.
        within("command_retention_days", self.command_retention_days, 2, 3_650);
        within("audit_retention_days", self.audit_retention_days, 1, 36_500);
        within("receipt_retention_days", self.receipt_retention_days, 1, 36_500);
        within("anchor_secs", self.anchor_secs, 1, 86_400);
        within("api_rate", u64::from(self.api_rate), 1, 1_000_000);
        within("api_burst", u64::from(self.api_burst), 1, 1_000_000);
        within("undo_hours", self.undo_hours, 1, 8_760);
        within("result_grace_secs", u64::from(self.result_grace_secs), 0, 86_400);
        within("drain_secs", self.drain_secs, 1, 600);
        within("drain_notice_secs", self.drain_notice_secs, 0, 300);
        if let Some(schedule) = &self.cleanup_containers_schedule {
            within("cleanup_containers_schedule.every_secs", schedule.every_secs, 60, 31_536_000);
            if schedule.labels.is_empty() && schedule.site.is_none() && !schedule.all {
                faults.push(Fault {
                    key: "cleanup_containers_schedule".to_owned(),
                    message: "selects no agent: give labels, site, or all = true".to_owned(),
                });
            }
        }
        if let Some(url) = &self.redis_url {
            if let Err(error) = url.client() {
                faults.push(Fault { key: "redis_url".to_owned(), message: error.to_string() });
            }
            if self.database_url.is_none() {
                let message = "needs database_url = \"postgres://…\": a SQLite file is one instance's";
                faults.push(Fault { key: "redis_url".to_owned(), message: message.to_owned() });
            }
        }
        let named = |name: &str| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if self.instance_id.as_deref().is_some_and(|name| !named(name)) {
            let message = "is not 1 to 64 letters, digits, '.', '_' or '-'";
            faults.push(Fault { key: "instance_id".to_owned(), message: message.to_owned() });
        }
        if let Some(Err(error)) = self.database_url.as_ref().map(DatabaseUrl::options) {
            faults.push(Fault { key: "database_url".to_owned(), message: error.to_string() });
        }
        self.proxies(faults);
        if self.repository.is_some() && self.trusted_root.is_none() {
            let message = "needs trusted_root: a repository is judged by a root.json that came another way";
            faults.push(Fault { key: "repository".to_owned(), message: message.to_owned() });
        }
    }

    /// What the keys about proxies need of each other.
    fn proxies(&self, faults: &mut Vec<Fault>) {
        let mut fault = |key: &str, message: String| faults.push(Fault { key: key.to_owned(), message });
        let wanted = [
            ("agents_proxy_protocol", self.agents_proxy_protocol),
            ("api_proxy_protocol", self.api_proxy_protocol),
            ("agents_header_listen", self.agents_header_listen.is_some()),
        ];
        for (key, used) in wanted {
            if used && self.trusted_proxies.is_empty() {
                fault(key, "needs trusted_proxies: the addresses of the proxies, and of nobody else".to_owned());
            }
        }
        match (&self.client_cert_header, self.agents_header_listen) {
            (Some(name), Some(_)) if hyper::header::HeaderName::try_from(name).is_err() => {
                fault("client_cert_header", format!("{name:?} is no header's name"));
            }
            (None, Some(_)) => fault(
                "agents_header_listen",
                "needs client_cert_header: the header that the proxy passes certificates in".to_owned(),
            ),
            (Some(_), None) => fault(
                "client_cert_header",
                "needs agents_header_listen: passed certificates count on that listener alone".to_owned(),
            ),
            _ => {}
        }
    }

    /// Whether other instances may use the same store.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.database_url.is_some()
    }

    #[must_use]
    pub fn redis(&self) -> Option<redis::Client> {
        self.redis_url.as_ref().and_then(|url| url.client().ok())
    }

    /// Where the store is; a URL that can't be one was a fault before.
    #[must_use]
    pub fn database(&self) -> StoreUrl {
        match self.database_url.as_ref().and_then(|url| url.options().ok()) {
            Some(options) => StoreUrl::Postgres(Box::new(options)),
            None => StoreUrl::Sqlite(self.data_dir.join("viworks.db")),
        }
    }

    #[must_use]
    pub fn warrant_key(&self) -> PathBuf {
        self.warrant_key.clone().unwrap_or_else(|| self.data_dir.join("warrant.key.pem"))
    }
}

const KEYS: &[&str] = &[
    "data_dir",
    "database_url",
    "redis_url",
    "instance_id",
    "api_listen",
    "agents_listen",
    "agents_cert",
    "agents_key",
    "agents_client_ca",
    "agents_crl",
    "warrant_key",
    "release_keys",
    "trusted_root",
    "repository",
    "repository_activates",
    "registries",
    "trusted_proxies",
    "agents_proxy_protocol",
    "api_proxy_protocol",
    "agents_header_listen",
    "client_cert_header",
    "agents_address_rate",
    "agents_address_burst",
    "agents_address_handshakes",
    "api_address_rate",
    "api_address_burst",
    "api_address_connections",
    "agents_handshakes",
    "max_sessions",
    "heartbeat_secs",
    "stale_after_secs",
    "stale_check_secs",
    "slots",
    "max_targets",
    "telemetry_retention_hours",
    "telemetry_hourly_retention_days",
    "command_retention_days",
    "audit_retention_days",
    "receipt_retention_days",
    "anchor_secs",
    "api_rate",
    "api_burst",
    "result_grace_secs",
    "undo_hours",
    "cleanup_containers_schedule",
    "log_format",
    "otlp_endpoint",
    "trace_sample",
    "drain_secs",
    "drain_notice_secs",
];

fn parse(text: &str) -> Result<toml::Table, String> {
    text.parse::<toml::Table>().map_err(|e| e.to_string())
}

/// A number, `true` or `false`, a table (`{ … }`), or else the text itself.
fn from_env(text: &str) -> toml::Value {
    if let Ok(switch) = text.parse::<bool>() {
        return toml::Value::Boolean(switch);
    }
    if let Ok(number) = text.parse::<i64>() {
        return toml::Value::Integer(number);
    }
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain && let Ok(share) = text.parse::<f64>() {
        return toml::Value::Float(share);
    }
    let table = text.trim_start().starts_with('{').then(|| parse(&format!("value = {text}")).ok()).flatten();
    table.and_then(|mut t| t.remove("value")).unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, Faults> {
        let Ok(dir) = tempfile::tempdir() else { panic!("a directory") };
        let file = dir.path().join("backend.toml");
        assert!(std::fs::write(&file, text).is_ok());
        Config::from_parts(Some(&file), |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load(
            "slots = 7\nheartbeat_secs = 5\n",
            &[
                ("VIW_BACKEND_SLOTS", "9"),
                ("VIW_BACKEND_API_LISTEN", "127.0.0.1:0"),
                ("VIW_BACKEND_LOG_FORMAT", "json"),
                ("VIW_BACKEND_TRACE_SAMPLE", "0.25"),
                ("VIW_BACKEND_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
            ],
        );
        let Ok(config) = config else { panic!("{config:?}") };
        assert_eq!((config.slots, config.heartbeat_secs, config.api_listen.port()), (9, 5, 0));
        assert_eq!(config.log_format, Some(LogFormat::Json));
        assert!((config.trace_sample - 0.25).abs() < 1e-9 && config.otlp_endpoint.is_some());
    }

    #[test]
    fn every_fault_is_told_with_its_key() {
        let faults = load(
            "slots = 0\nslotz = 1\napi_listen = \"nowhere\"\nheartbeat_secs = -1\n",
            &[("VIW_BACKEND_CLEANUP_CONTAINERS_SCHEDULE", "{ every_secs = 3600 }")],
        );
        let Err(Faults(faults)) = faults else { panic!("accepted") };
        let mut keys: Vec<_> = faults.iter().map(|f| f.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["api_listen", "cleanup_containers_schedule", "heartbeat_secs", "slots", "slotz"]);
    }

    #[test]
    fn proxies_are_named_before_they_are_believed() {
        let config = load(
            "agents_proxy_protocol = true\nagents_header_listen = '127.0.0.1:0'\nclient_cert_header = 'x-client-cert'\n",
            &[("VIW_BACKEND_TRUSTED_PROXIES", "192.0.2.0/28, ::1")],
        );
        assert!(config.is_ok_and(|c| c.trusted_proxies.contains([192, 0, 2, 3].into())));
        let faults = load("api_proxy_protocol = true\nagents_header_listen = '127.0.0.1:0'\n", &[]);
        let Err(Faults(faults)) = faults else { panic!("accepted") };
        let keys: Vec<_> = faults.iter().map(|f| f.key.as_str()).collect();
        assert_eq!(keys, ["api_proxy_protocol", "agents_header_listen", "agents_header_listen"]);
        let faults = load("client_cert_header = 'x'\ntrusted_proxies = ['192.0.2.1/24']\n", &[]);
        let Err(Faults(faults)) = faults else { panic!("accepted") };
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn every_key_can_come_from_the_environment() {
        let whole = "data_dir='d'\nagents_crl='c'\nwarrant_key='w'\ntrusted_root='t'\nrepository='r'\nlog_format='text'\n[cleanup_containers_schedule]\nall=true\n";
        let Ok(config) = load(whole, &[]) else { panic!("a configuration") };
        let debug = format!("{config:?}");
        for key in KEYS {
            assert!(debug.contains(&format!("{key}: ")), "{key} is no field");
        }
    }
}

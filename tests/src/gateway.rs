//! Real gateways of a cluster, each with a state folder, a policy and a prefix root; as root,
//! or as a user of no rights beside a broker.

use std::fs;
use std::io::{Error, Result};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cluster::{Cluster, write_secret};
use crate::pki::Identity;
use crate::program::{Running, eventually, program, run};

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    pub id: String,
    pub dir: PathBuf,
    pub process: Running,
    /// Beside a gateway without rights.
    pub broker: Option<Running>,
}

/// The uid of gateways without rights: nobody's.
pub const UNPRIVILEGED: u32 = 61_234;

/// Where a broker of the tests listens, in its gateway's folder.
const SOCKET: &str = "broker.sock";

/// A gateway's files before it runs.
#[derive(Debug, Clone)]
pub struct Setup {
    pub id: String,
    pub identity: Identity,
    pub ca_pem: String,
    pub pin: String,
    /// The `[capabilities.…]` tables of the owner's policy.
    pub policy: String,
    /// More lines for gateway.toml: top-level keys.
    pub keys: String,
    /// More lines for gateway.toml: `[providers.…]` tables.
    pub providers: String,
    /// Run as a user of no rights, beside a broker that is root.
    pub brokered: bool,
}

/// A policy that grants everything the tests use, under a prefix root.
pub const POLICY: &str = r#"
[capabilities.accounts]
groups = ["users", "staff"]
uids = { min = 20000, max = 29999 }
[capabilities.vpn]
[capabilities.system]
[capabilities.containers]
labels = ["viworks.test=1"]
allow_irreversible = true
stop = true
[capabilities.scripts]
[capabilities.state]
"#;

impl Setup {
    /// The usual gateway of a cluster.
    ///
    /// # Errors
    /// When the certificate can't be made.
    pub fn new(cluster: &Cluster, id: &str) -> Result<Self> {
        let dir = cluster.path("gateways").join(id);
        Ok(Self {
            id: id.to_owned(),
            identity: cluster.ca.agent(id).map_err(Error::other)?,
            ca_pem: cluster.ca.cert_pem(),
            pin: cluster.server.pin.clone(),
            policy: POLICY.to_owned(),
            keys: String::new(),
            providers: format!(
                "[providers.accounts]\nroot = {:?}\nquarantine = {:?}\n",
                dir.join("root"),
                dir.join("quarantine")
            ),
            brokered: false,
        })
    }

    /// Write the files; gives the folder.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn write(&self, cluster: &Cluster) -> Result<PathBuf> {
        let dir = cluster.path("gateways").join(&self.id);
        let at = |name: &str| dir.join(name);
        fs::create_dir_all(at("scripts"))?;
        let mut trusted = [cluster.path("backend/warrant.pub.pem"), cluster.path("keys/release.pub.pem")];
        if self.brokered {
            // The backend's folder is nobody else's to look into.
            for (path, own) in trusted.iter_mut().zip([at("warrant.pub.pem"), at("release.pub.pem")]) {
                fs::copy(&*path, &own)?;
                *path = own;
            }
        }
        let [warrant_keys, release_keys] = trusted;
        let keys = if self.brokered {
            format!(
                "{}\nbroker = {:?}\nbroker_user = \"{UNPRIVILEGED}\"\nbroker_state_dir = {:?}",
                self.keys,
                at(SOCKET),
                at("broker")
            )
        } else {
            self.keys.clone()
        };
        fs::write(at("agent.pem"), &self.identity.cert_pem)?;
        write_secret(&at("agent.key.pem"), &self.identity.key_pem)?;
        fs::write(at("ca.pem"), &self.ca_pem)?;
        fs::write(at("policy.toml"), &self.policy)?;
        let config = format!(
            "backend_url = \"wss://{}\"\nagent_id = {:?}\nsite = \"tests\"\ncert_path = {:?}\nkey_path = {:?}\n\
             trust_bundle = {:?}\nbackend_spki_pin = {:?}\nwarrant_keys = {:?}\nrelease_keys = {:?}\npolicy = {:?}\n\
             state_dir = {:?}\nscripts_root = {:?}\n{}\n\n{}\n",
            cluster.agents_addr,
            self.id,
            at("agent.pem"),
            at("agent.key.pem"),
            at("ca.pem"),
            self.pin,
            warrant_keys,
            release_keys,
            at("policy.toml"),
            at("state"),
            at("scripts"),
            keys,
            self.providers,
        );
        fs::write(at("gateway.toml"), config)?;
        if self.brokered {
            for folder in [cluster.dir(), &cluster.path("gateways"), &dir] {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
            }
            fs::create_dir_all(at("state"))?;
            for own in ["state", "agent.key.pem"] {
                chown(at(own), Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
            }
        }
        Ok(dir)
    }

    /// Write the files for another way to the backend, `wss://HOST:PORT`, and start the gateway.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_via(&self, cluster: &Cluster, url: &str) -> Result<Gateway> {
        let dir = self.write_via(cluster, url)?;
        let broker = self.brokered.then(|| start_broker(&dir)).transpose()?;
        let process = start(&dir)?;
        Ok(Gateway { id: self.id.clone(), dir, process, broker })
    }

    /// Write the files for another way to the backend; gives the folder.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn write_via(&self, cluster: &Cluster, url: &str) -> Result<PathBuf> {
        let dir = self.write(cluster)?;
        let file = dir.join("gateway.toml");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace(&format!("wss://{}", cluster.agents_addr), url))?;
        Ok(dir)
    }

    /// Write the files and start the gateway.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&self, cluster: &Cluster) -> Result<Gateway> {
        let dir = self.write(cluster)?;
        let broker = self.brokered.then(|| start_broker(&dir)).transpose()?;
        let process = start(&dir)?;
        Ok(Gateway { id: self.id.clone(), dir, process, broker })
    }
}

impl Gateway {
    /// The usual gateway, started.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(cluster: &Cluster, id: &str) -> Result<Self> {
        Setup::new(cluster, id)?.start(cluster)
    }

    /// Start it again with the files that it has.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process = start(&self.dir)?;
        Ok(())
    }

    /// Start its broker again.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn restart_broker(&mut self) -> Result<()> {
        self.broker = Some(start_broker(&self.dir)?);
        Ok(())
    }

    /// The lines of its broker's audit log.
    #[must_use]
    pub fn broker_audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.join("broker/audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// A file under its prefix root.
    #[must_use]
    pub fn root(&self, path: &str) -> PathBuf {
        self.dir.join("root").join(path.trim_start_matches('/'))
    }

    /// The lines of its audit log.
    #[must_use]
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.join("state/audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

fn start(dir: &Path) -> Result<Running> {
    let config = dir.join("gateway.toml");
    let args = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    // Whose state it is, it runs as.
    let owner = fs::metadata(dir.join("state")).map(|meta| meta.uid());
    if owner.is_ok_and(|uid| uid == UNPRIVILEGED) {
        let mut command = Command::new(reachable(dir)?);
        command.args(args).uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        return Running::start_with(&mut command, &dir.join("gateway.log"));
    }
    Running::start(&program("viworks-gateway")?, args, &dir.join("gateway.log"))
}

/// The program where a user of no rights can start it: a workspace may be in somebody's home.
fn reachable(dir: &Path) -> Result<PathBuf> {
    let built = program("viworks-gateway")?;
    let uid = UNPRIVILEGED.to_string();
    let test =
        ["--reuid", &uid, "--regid", &uid, "--clear-groups", "test", "-x", &built.to_string_lossy()].map(str::to_owned);
    if run(Path::new("/usr/bin/setpriv"), test).is_ok() {
        return Ok(built);
    }
    let copy = dir.join("viworks-gateway");
    if !copy.exists() {
        fs::copy(&built, &copy)?;
    }
    Ok(copy)
}

fn start_broker(dir: &Path) -> Result<Running> {
    let (config, socket) = (dir.join("gateway.toml"), dir.join(SOCKET));
    // What a killed one left tells nothing.
    let _ = fs::remove_file(&socket);
    let args = ["broker".as_ref(), "--config".as_ref(), config.as_os_str(), "--socket".as_ref(), socket.as_os_str()];
    let broker = Running::start(&program("viworks-gateway")?, args, &dir.join("broker.log"))?;
    let there = || if socket.exists() { Ok(Some(())) } else { Err(Error::other("not yet")) };
    let listening = eventually("the broker listens", Duration::from_secs(30), there);
    listening.map_err(|e| {
        Error::other(format!("{e}: {}", fs::read_to_string(dir.join("broker.log")).unwrap_or_default()))
    })?;
    Ok(broker)
}

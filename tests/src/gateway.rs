//! Real gateways of a cluster, each with a state folder, a policy and a prefix root.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, write_secret};
use crate::pki::Identity;
use crate::program::{Running, program};

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    pub id: String,
    pub dir: PathBuf,
    pub process: Running,
}

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
            cluster.path("backend/warrant.pub.pem"),
            cluster.path("keys/release.pub.pem"),
            at("policy.toml"),
            at("state"),
            at("scripts"),
            self.keys,
            self.providers,
        );
        fs::write(at("gateway.toml"), config)?;
        Ok(dir)
    }

    /// Write the files for another way to the backend, `wss://HOST:PORT`, and start the gateway.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_via(&self, cluster: &Cluster, url: &str) -> Result<Gateway> {
        let dir = self.write_via(cluster, url)?;
        let process = start(&dir)?;
        Ok(Gateway { id: self.id.clone(), dir, process })
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
        let process = start(&dir)?;
        Ok(Gateway { id: self.id.clone(), dir, process })
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
    Running::start(&program("viworks-gateway")?, args, &dir.join("gateway.log"))
}

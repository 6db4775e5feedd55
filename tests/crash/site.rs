//! What is killed and what it works on: a backend with all plugins, one container engine,
//! and for each worker a gateway with a prefix root, WireGuard and OpenVPN files, a script
//! and containers of its own.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use viworks_tests::cluster::{Cluster, write_secret};
use viworks_tests::gateway::{Gateway, Setup};
use viworks_tests::pki::Ca;
use viworks_tests::program::{Running, eventually, run};

const SOON: Duration = Duration::from_secs(60);

/// The plugins whose verbs change something.
const PLUGINS: [&str; 4] = ["accounts", "containers", "scripts", "vpn"];

/// One more: many effects in one verb, on the plugin's own state.
const GUEST: &str = "hostile";

const SCRIPT: &str = "#!/bin/sh\nsleep 0.01\necho \"$VIW_INVOCATION\" >> \"$1\"\n";

/// What all workers share.
pub struct Shared {
    pub cluster: Cluster,
    pub docker: Docker,
}

impl Shared {
    pub fn start() -> Result<Self> {
        let cluster = Cluster::start()?;
        for plugin in PLUGINS {
            cluster.publish(plugin)?;
        }
        cluster.publish_guest(GUEST)?;
        Ok(Self { cluster, docker: Docker::start()? })
    }
}

/// A `dockerd` with its own root, socket and network namespace, and an empty image.
pub struct Docker {
    dir: tempfile::TempDir,
    daemon: Running,
}

impl Docker {
    fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("viwcrash").tempdir()?;
        let d = dir.path().display();
        let line = format!(
            "ip link set lo up; exec dockerd -H unix://{d}/docker.sock --data-root {d}/data --exec-root {d}/exec \
             --pidfile {d}/pid --bridge=none --iptables=false --ip-forward=false --ip-masq=false"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "bash", "-c", &line]);
        let daemon = Running::start_with(&mut unshare, &dir.path().join("log"))?;
        let docker = Self { dir, daemon };
        eventually("the container engine", SOON, || docker.run(&["version"]).map(Some))?;
        let root = docker.dir.path().join("root");
        fs::create_dir_all(&root)?;
        fs::write(root.join("empty"), "")?;
        let tar = docker.dir.path().join("root.tar");
        run(Path::new("/bin/tar"), ["-cf".as_ref(), tar.as_os_str(), "-C".as_ref(), root.as_os_str(), ".".as_ref()])?;
        docker.run(&["import", &tar.display().to_string(), "viwcrash:1"])?;
        Ok(docker)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    pub fn run(&self, args: &[&str]) -> Result<String> {
        let host = format!("unix://{}", self.socket().display());
        run(Path::new("/usr/bin/docker"), [&["-H", host.as_str()], args].concat())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Not SIGKILL: it takes its containerd along.
        let _ = self.daemon.terminate(Duration::from_secs(20));
    }
}

/// One worker's gateway and host.
pub struct Site<'s> {
    pub shared: &'s Shared,
    pub agent: String,
    pub dir: PathBuf,
    gateway: Gateway,
}

impl<'s> Site<'s> {
    pub fn start(shared: &'s Shared, worker: u32) -> Result<Self> {
        let cluster = &shared.cluster;
        let agent = format!("crash-{worker}");
        let mut setup = Setup::new(cluster, &agent)?;
        let dir = cluster.path("gateways").join(&agent);
        let at = |name: &str| dir.join(name).display().to_string();
        fs::create_dir_all(dir.join("scripts"))?;
        fs::create_dir_all(dir.join("ovpn"))?;
        let authority = Ca::new("crash").map_err(Error::other)?;
        fs::write(at("site.pem"), authority.cert_pem())?;
        write_secret(at("site.key").as_ref(), &authority.key_pem())?;
        let private = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        write_secret(
            at("wg0.conf").as_ref(),
            &format!("[Interface]\nPrivateKey = {private}\nAddress = 198.51.100.1/24\nListenPort = 51820\n"),
        )?;
        fs::write(at("scripts/note.sh"), SCRIPT)?;
        let mut chmod = Command::new("/bin/chmod");
        chmod.args(["0755", &at("scripts/note.sh")]).stdin(Stdio::null()).status()?;

        // One VPN server each: a verb need not say which.
        let vpn = if worker.is_multiple_of(2) {
            format!(
                "[providers.vpn.wireguard]\nconfig_file = {:?}\nendpoint = \"vpn.example.com:51820\"\n\
                 pool = \"198.51.100.0/24\"\nlive = \"off\"\n",
                at("wg0.conf")
            )
        } else {
            format!(
                "[providers.vpn.openvpn]\nca_cert = {:?}\nca_key = {:?}\ncrl_file = {:?}\ndatabase = {:?}\n\
                 remote_host = \"vpn.example.com\"\nmanagement = \"off\"\n",
                at("site.pem"),
                at("site.key"),
                at("crl.pem"),
                at("ovpn")
            )
        };
        setup.providers += &vpn;
        setup.keys = format!("container_engine = {:?}", shared.docker.socket());
        setup.policy =
            setup.policy.replace("[capabilities.vpn]", "password_hashes = true\n[capabilities.vpn]").replace(
                "[capabilities.scripts]",
                &format!("[capabilities.scripts]\npins = {{ \"note.sh\" = \"{}\" }}", sha256(SCRIPT)),
            );
        setup.write(cluster)?;
        let mut gateway = Gateway { id: agent.clone(), dir: dir.clone(), process: never()?, broker: None };
        start(&mut gateway)?;
        let site = Self { shared, agent, dir, gateway };
        cluster.ready(&site.agent, PLUGINS.len() + 1)?;
        Ok(site)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// SIGKILL; whether it was still there.
    pub fn kill(&mut self) -> Result<bool> {
        let there = self.gateway.process.ended()?.is_none();
        if there {
            self.gateway.process.kill()?;
        }
        Ok(there)
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.gateway.process.ended()?.is_some())
    }

    pub fn restart(&mut self) -> Result<()> {
        start(&mut self.gateway)
    }

    /// End the gateway at this passing of that point of its journal.
    pub fn arm(&self, point: &str, passing: u64) -> Result<()> {
        fs::write(self.path("kill-at"), format!("{point} {passing}"))
    }

    pub fn disarm(&self) -> Result<()> {
        match fs::remove_file(self.path("kill-at")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Wait until the gateway serves.
    pub fn ready(&self) -> Result<()> {
        self.shared.cluster.ready(&self.agent, PLUGINS.len() + 1)
    }

    /// Running, and without anything on its way.
    pub fn quiet(&mut self) -> Result<()> {
        self.disarm()?;
        if self.has_ended()? {
            self.restart()?;
        }
        self.ready()?;
        self.gateway.process.terminate(Duration::from_secs(30)).map(drop)
    }

    pub fn log_tail(&self) -> String {
        self.gateway.process.log_tail()
    }
}

fn start(gateway: &mut Gateway) -> Result<()> {
    let dir = &gateway.dir;
    let mut command = Command::new(viworks_tests::program::program("viworks-gateway")?);
    command.arg("run").arg("--config").arg(dir.join("gateway.toml"));
    command.env("VIWORKS_TEST_KILL_FILE", dir.join("kill-at"));
    gateway.process = Running::start_with(&mut command, &dir.join("gateway.log"))?;
    Ok(())
}

/// In the place of a gateway that has not been started yet.
fn never() -> Result<Running> {
    Running::start(Path::new("/bin/true"), [""; 0], Path::new("/dev/null"))
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(text.as_bytes()))
}

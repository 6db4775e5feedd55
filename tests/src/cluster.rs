//! A backend with everything it needs in a folder of its own: PKI, keys, signed plugins,
//! tokens, ports that the system chose. Real programs; ends with its test.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::pki::{Ca, Identity};
use crate::program::{Running, component, eventually, program, run, workspace};

/// The plugins that the project ships.
pub const PLUGINS: [&str; 5] = ["accounts", "containers", "health", "scripts", "vpn"];

/// A running backend and what tests need to join it.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    pub ca: Ca,
    pub server: Identity,
    pub backend: Running,
    /// With the admin's token.
    pub api: Api,
    /// `127.0.0.1:PORT` of the agents' side.
    pub agents_addr: String,
}

/// How a cluster departs from the usual.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// More lines for backend.toml.
    pub backend: String,
}

impl Cluster {
    /// # Errors
    /// When any step fails, with what the program said.
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// # Errors
    /// When any step fails, with what the program said.
    pub fn start_with(options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("viworks-").tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let ca = Ca::new("tests").map_err(Error::other)?;
        let server = ca.server().map_err(Error::other)?;
        fs::write(at("ca.pem"), ca.cert_pem())?;
        fs::write(at("backend.pem"), &server.cert_pem)?;
        write_secret(&at("backend.key.pem"), &server.key_pem)?;
        for folder in ["keys", "plugins", "backend", "gateways"] {
            fs::create_dir(at(folder))?;
        }
        run(&program("viworks-sign")?, ["keygen".as_ref(), "--out".as_ref(), at("keys/release").as_os_str()])?;
        let config = format!(
            "data_dir = {:?}\napi_listen = \"127.0.0.1:0\"\nagents_listen = \"127.0.0.1:0\"\n\
             agents_cert = {:?}\nagents_key = {:?}\nagents_client_ca = {:?}\nrelease_keys = {:?}\n{}\n",
            at("backend"),
            at("backend.pem"),
            at("backend.key.pem"),
            at("ca.pem"),
            at("keys/release.pub.pem"),
            options.backend,
        );
        fs::write(at("backend.toml"), config)?;
        let (backend, api_addr, agents_addr) = start_backend(dir.path())?;
        let token = new_token(dir.path(), "admin", "admin")?;
        let api = Api::new(&format!("http://{api_addr}"), Some(&token));
        Ok(Self { dir, ca, server, backend, api, agents_addr })
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Start the backend again after it ended, on the same ports.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart_backend(&mut self) -> Result<()> {
        self.fix_ports()?;
        self.backend = start_backend(self.dir())?.0;
        Ok(())
    }

    /// Start the backend again after it ended, on the same ports, in a mount namespace of its
    /// own where its data directory is a file system of so many MiB.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart_on_small_disk(&mut self, mib: u32) -> Result<()> {
        self.fix_ports()?;
        let script = "set -e; cp -a \"$1\" \"$1.kept\"; mount -t tmpfs -o size=$2m,mode=0700 none \"$1\"; \
                      cp -a \"$1.kept/.\" \"$1/\"; exec \"$3\" run --config \"$4\"";
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        command.arg(self.path("backend")).arg(mib.to_string());
        command.arg(program("viworks-backend")?).arg(self.path("backend.toml"));
        self.backend = Running::start_with(&mut command, &self.path("backend.log"))?;
        eventually("the backend answers", Duration::from_secs(30), || self.api.get("/health/live").map(Some))?;
        Ok(())
    }

    /// Run a command where the backend's mounts are.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn in_its_mounts(&self, args: &[&str]) -> Result<String> {
        let pid = self.backend.pid().to_string();
        run(Path::new("/usr/bin/nsenter"), ["-t", pid.as_str(), "-m"].iter().chain(args))
    }

    /// The ports that it has are those that it gets again.
    fn fix_ports(&self) -> Result<()> {
        let config = fs::read_to_string(self.path("backend.toml"))?;
        let fixed = config
            .replace("api_listen = \"127.0.0.1:0\"", &format!("api_listen = {:?}", &self.api.url()["http://".len()..]))
            .replace("agents_listen = \"127.0.0.1:0\"", &format!("agents_listen = {:?}", self.agents_addr));
        fs::write(self.path("backend.toml"), fixed)
    }

    /// A new token of this role.
    ///
    /// # Errors
    /// When the backend's tool refuses.
    pub fn token(&self, name: &str, role: &str) -> Result<String> {
        new_token(self.dir(), name, role)
    }

    /// Sign a component with its manifest; gives the bundle's component path.
    ///
    /// # Errors
    /// When the tool refuses.
    pub fn sign(&self, wasm: &Path, manifest: &Path, wit: &[PathBuf], key: &Path) -> Result<PathBuf> {
        let out = self.path("plugins");
        let mut args: Vec<std::ffi::OsString> = vec!["sign".into(), wasm.into()];
        args.extend([
            "--manifest".into(),
            manifest.into(),
            "--key".into(),
            key.into(),
            "--out".into(),
            out.clone().into(),
        ]);
        for dir in wit {
            args.extend(["--wit".into(), dir.into()]);
        }
        run(&program("viworks-sign")?, args)?;
        let text = fs::read_to_string(manifest)?;
        let id = text.lines().find_map(|l| l.strip_prefix("id = ")).unwrap_or_default().trim().trim_matches('"');
        Ok(out.join(format!("{id}.wasm")))
    }

    /// Sign and publish one of the project's own plugins.
    ///
    /// # Errors
    /// When the tool or the backend refuses.
    pub fn publish(&self, name: &str) -> Result<Value> {
        let dir = workspace().join("plugins").join(name);
        let wasm = component("plugins", &format!("viworks_plugin_{name}"))?;
        let wit = [workspace().join("wit"), dir.join("wit")];
        let key = self.path("keys/release.key.pem");
        let bundle = self.sign(&wasm, &dir.join("plugin.toml"), &wit, &key)?;
        self.upload(&bundle)?.expect_status(201)
    }

    /// Sign and publish a guest of the tests.
    ///
    /// # Errors
    /// When the tool or the backend refuses.
    pub fn publish_guest(&self, name: &str) -> Result<Value> {
        let dir = workspace().join("tests/guests").join(name);
        let text = dir.join(format!("{name}.wat"));
        let wasm = if text.is_file() {
            // Written in WebAssembly's text: there is nothing to build but this.
            let assembled = self.path(&format!("{name}.wasm"));
            fs::write(&assembled, wat::parse_file(&text).map_err(Error::other)?)?;
            assembled
        } else {
            component("tests/guests", &format!("viworks_guest_{}", name.replace('-', "_")))?
        };
        let bundle = self.sign(&wasm, &dir.join("plugin.toml"), &[], &self.path("keys/release.key.pem"))?;
        self.upload(&bundle)?.expect_status(201)
    }

    /// `POST /plugins` with a bundle from disk.
    ///
    /// # Errors
    /// When files or answer are missing.
    pub fn upload(&self, bundle: &Path) -> Result<crate::api::Answer> {
        use base64::Engine as _;
        let mut statements = bundle.as_os_str().to_owned();
        statements.push(".intoto.jsonl");
        self.api.post(
            "/plugins",
            &json!({
                "component": base64::engine::general_purpose::STANDARD.encode(fs::read(bundle)?),
                "statements": fs::read_to_string(statements)?,
            }),
        )
    }

    /// Sign and publish all of the project's plugins.
    ///
    /// # Errors
    /// When any is refused.
    pub fn publish_all(&self) -> Result<()> {
        PLUGINS.iter().try_for_each(|name| self.publish(name).map(drop))
    }

    /// Wait until an agent is online with so many active plugins.
    ///
    /// # Errors
    /// When that does not come.
    pub fn ready(&self, agent: &str, plugins: usize) -> Result<()> {
        eventually(&format!("{agent} online with {plugins} plugins"), Duration::from_secs(60), || {
            let body = self.api.get(&format!("/agents/{agent}"))?.expect_status(200)?;
            let active =
                body["plugins"].as_array().map_or(0, |all| all.iter().filter(|p| p["state"] == "active").count());
            if body["status"] == "online" && active == plugins {
                return Ok(Some(()));
            }
            Err(Error::other(body.to_string()))
        })
    }

    /// Run a verb on one agent and give its invocation, ended.
    ///
    /// # Errors
    /// When the command is refused or does not end.
    pub fn run(&self, agent: &str, verb: &str, args: &Value) -> Result<Value> {
        let command =
            json!({"verb": verb, "args": args, "agent_targets": [agent], "wait_secs": 60, "timeout_secs": 40});
        let answer = self.api.post("/commands", &command)?;
        Ok(answer.expect_status(200)?["invocations"][0].clone())
    }

    /// Plan a verb on one agent. Gives the command's id and its invocation, ended.
    ///
    /// # Errors
    /// When the command is refused or does not end.
    pub fn plan(&self, agent: &str, verb: &str, args: &Value) -> Result<(String, Value)> {
        self.ask(&json!({"verb": verb, "args": args, "agent_targets": [agent], "mode": "plan", "wait_secs": 60}))
    }

    /// Run a verb on one agent, bound to a plan (its command's id or digest). Gives the
    /// command's id and its invocation, ended.
    ///
    /// # Errors
    /// When the command is refused or does not end.
    pub fn apply(&self, agent: &str, verb: &str, args: &Value, plan: &str) -> Result<(String, Value)> {
        self.ask(&json!({"verb": verb, "args": args, "agent_targets": [agent], "plan": plan, "wait_secs": 60}))
    }

    /// Run a verb on one agent. Gives the command's id and its invocation, ended.
    ///
    /// # Errors
    /// When the command is refused or does not end.
    pub fn apply_now(&self, agent: &str, verb: &str, args: &Value) -> Result<(String, Value)> {
        self.ask(&json!({"verb": verb, "args": args, "agent_targets": [agent], "wait_secs": 60}))
    }

    fn ask(&self, command: &Value) -> Result<(String, Value)> {
        let body = self.api.post("/commands", command)?.expect_status(200)?;
        let id = body["id"].as_str().ok_or_else(|| Error::other(body.to_string()))?;
        Ok((id.to_owned(), body["invocations"][0].clone()))
    }

    /// Undo a command, or in mode `plan` say what that would be; its invocation, ended.
    ///
    /// # Errors
    /// When the undo is refused or does not end.
    pub fn undo(&self, command: &str, mode: &str) -> Result<Value> {
        let request = json!({"mode": mode, "wait_secs": 60});
        let body = self.api.post(&format!("/commands/{command}/undo"), &request)?.expect_status(200)?;
        Ok(body["invocations"][0].clone())
    }

    /// Wait until a command has finished, and give it.
    ///
    /// # Errors
    /// When that does not come.
    pub fn finished(&self, id: &str, within: Duration) -> Result<Value> {
        eventually(&format!("{id} finished"), within, || {
            let body = self.api.get(&format!("/commands/{id}"))?.expect_status(200)?;
            if body["finished"].is_null() { Err(Error::other(body.to_string())) } else { Ok(Some(body)) }
        })
    }
}

/// Write a file that its owner alone may read.
///
/// # Errors
/// When it can't be written.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn start_backend(dir: &Path) -> Result<(Running, String, String)> {
    let listening = dir.join("backend/listening.json");
    // A file of an earlier run would name ports that are no more.
    let _ = fs::remove_file(&listening);
    let config = dir.join("backend.toml");
    let args = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
    let mut backend = Running::start(&program("viworks-backend")?, args, &dir.join("backend.log"))?;
    let addresses: Value = eventually("the backend listens", Duration::from_secs(30), || {
        if let Some(status) = backend.ended()? {
            return Err(Error::other(format!("backend ended with {status}:\n{}", backend.log_tail())));
        }
        Ok(serde_json::from_str(&fs::read_to_string(&listening)?).ok())
    })?;
    let address = |key: &str| addresses[key].as_str().unwrap_or_default().to_owned();
    Ok((backend, address("api"), address("agents")))
}

fn new_token(dir: &Path, name: &str, role: &str) -> Result<String> {
    let config = dir.join("backend.toml");
    let args = ["token", "create", "--name", name, "--role", role, "--config"].map(AsRef::<std::ffi::OsStr>::as_ref);
    let args = args.into_iter().chain([config.as_os_str()]);
    Ok(run(&program("viworks-backend")?, args)?.trim().to_owned())
}

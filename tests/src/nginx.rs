//! A real nginx with the project's own files of `deploy/nginx/`: only what belongs to a site is
//! written here. Ends with its test.

use std::fs;
use std::io::{Error, Result};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::program::{Running, eventually, run, workspace};

const NGINX: &str = "/usr/sbin/nginx";

/// What the files of `site/` say; addresses are `HOST:PORT`.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Names that gateways ask for, and the agents' ports that they mean.
    pub agents: Vec<(String, Vec<String>)>,
    /// The API's ports.
    pub api: Vec<String>,
    /// The listener for passed certificates, where nginx ends agents' TLS.
    pub header: Option<String>,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    dir: tempfile::TempDir,
    process: Running,
    /// Where TLS is passed through.
    pub agents: u16,
    pub api: u16,
    /// Where agents' TLS ends.
    pub mtls: u16,
}

impl Nginx {
    /// Start it with the certificates of `cluster`: `backend.pem`, `backend.key.pem`, `ca.pem`.
    ///
    /// # Errors
    /// When it refuses its files or does not listen.
    pub fn start(site: &Site, certificates: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("viworks-nginx-").tempdir()?;
        // Workers are no root, and reach their own folders through it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let conf = dir.path().join("conf");
        fs::create_dir_all(conf.join("site"))?;
        let source = workspace().join("deploy/nginx");
        for entry in fs::read_dir(&source)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), conf.join(entry.file_name()))?;
            }
        }
        let [agents, api, mtls] = free_ports()?;
        let (own, log) = (Files { dir: certificates }, dir.path().display());
        let write = |name: &str, text: String| fs::write(conf.join("site").join(name), text);
        write("stream-log.conf", format!("access_log {log}/agents.log viworks_agents;\n"))?;
        write("http-log.conf", format!("access_log {log}/api.log viworks;\n{}", temporary(dir.path())))?;
        write("agents-listen.conf", format!("listen 127.0.0.1:{agents} so_keepalive=on;\n"))?;
        let named = |n: usize| format!("viworks_agents_{n}");
        let names = site.agents.iter().enumerate().map(|(n, (name, _))| format!("{name} {};\n", named(n)));
        write("agents-names.conf", names.collect())?;
        let upstreams =
            site.agents.iter().enumerate().map(|(n, (_, servers))| upstream(&named(n), servers, "least_conn;"));
        write("agents-upstreams.conf", upstreams.collect())?;
        write("api-listen.conf", format!("listen 127.0.0.1:{api} ssl http2;\n"))?;
        write("api-certificate.conf", own.server())?;
        write("api-upstreams.conf", upstream("viworks_api", &site.api, "keepalive 8;"))?;
        match &site.header {
            None => write("more-servers.conf", String::new())?,
            Some(header) => {
                write("more-servers.conf", "include agents-mtls.conf;\n".to_owned())?;
                write(
                    "agents-header-upstreams.conf",
                    upstream("viworks_agents_header", std::slice::from_ref(header), ""),
                )?;
                write("agents-header-pass.conf", "proxy_pass http://viworks_agents_header;\n".to_owned())?;
                write("agents-mtls-listen.conf", format!("listen 127.0.0.1:{mtls} ssl so_keepalive=on;\n"))?;
                let client = format!("ssl_client_certificate {:?};\n", own.path("ca.pem"));
                write("agents-mtls-certificate.conf", format!("{}{client}", own.server()))?;
            }
        }
        let (file, error) = (conf.join("nginx.conf"), dir.path().join("error.log"));
        // What an installation has from its package: where the process is noted, and that it stays here.
        let globals = format!("daemon off; pid {log}/nginx.pid;");
        let arguments = ["-e".as_ref(), error.as_os_str(), "-c".as_ref(), file.as_os_str()];
        run(Path::new(NGINX), arguments.into_iter().chain(["-t".as_ref(), "-g".as_ref(), globals.as_ref()]))?;
        let arguments = arguments.into_iter().chain(["-g".as_ref(), globals.as_ref()]);
        let mut process = Running::start(Path::new(NGINX), arguments, &dir.path().join("nginx.log"))?;
        eventually("nginx listens", Duration::from_secs(10), || {
            if let Some(status) = process.ended()? {
                let said = fs::read_to_string(&error).unwrap_or_default();
                return Err(Error::other(format!("nginx ended with {status}:\n{said}")));
            }
            std::net::TcpStream::connect(("127.0.0.1", api)).map(Some)
        })?;
        Ok(Self { dir, process, agents, api, mtls })
    }

    /// What it wrote to one of its logs: `error.log`, `agents.log`, `api.log`.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// Stop it, so that nothing answers on its ports.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(10)).map(drop)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, the master would leave its workers.
        let _ = self.process.terminate(Duration::from_secs(5));
    }
}

struct Files<'a> {
    dir: &'a Path,
}

impl Files<'_> {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.join(name)
    }

    fn server(&self) -> String {
        let (cert, key) = (self.path("backend.pem"), self.path("backend.key.pem"));
        format!("ssl_certificate {cert:?};\nssl_certificate_key {key:?};\n")
    }
}

fn upstream(name: &str, servers: &[String], more: &str) -> String {
    let servers: String = servers.iter().map(|s| format!("    server {s} max_fails=1 fail_timeout=2s;\n")).collect();
    // `least_conn` has to stand before, `keepalive` behind.
    match more {
        "keepalive 8;" => format!("upstream {name} {{\n{servers}    {more}\n}}\n"),
        _ => format!("upstream {name} {{\n    {more}\n{servers}}}\n"),
    }
}

/// An installation has these from its package, under /var/lib/nginx.
fn temporary(dir: &Path) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    kinds.map(|kind| format!("{kind}_temp_path {};\n", dir.join(kind).display())).concat()
}

fn free_ports() -> Result<[u16; 3]> {
    let held = [0; 3].map(|port: u16| TcpListener::bind(("127.0.0.1", port)));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

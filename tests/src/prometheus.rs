//! Prometheus, Alertmanager and promtool of the tests' own: the real programs, with the
//! shipped files but for addresses and waiting times.

use std::fs;
use std::io::{Error, Result, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::api::Api;
use crate::program::{Running, eventually, workspace};

/// A port that is free just now.
///
/// # Errors
/// When none is.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Run promtool with this on its standard input; what it says, if it is content.
///
/// # Errors
/// When it is not, with what it said.
pub fn promtool(args: &[&str], dir: &Path, input: &str) -> Result<String> {
    let mut command = Command::new("/usr/bin/promtool");
    command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(Error::other(said)) }
}

/// A Prometheus that scrapes one backend every second, with an Alertmanager that posts to a
/// webhook.
#[derive(Debug)]
pub struct Watch {
    pub prometheus: Running,
    pub alertmanager: Running,
    api: Api,
}

/// Every wait of a file of rules or routes, cut to a second.
fn hurried(text: &str, keys: &[&str]) -> String {
    let cut = |line: &str| match keys.iter().find(|key| line.trim_start().starts_with(*key)) {
        Some(key) => format!("{}{key} 1s", &line[..line.len() - line.trim_start().len()]),
        None => line.to_owned(),
    };
    text.lines().map(cut).collect::<Vec<_>>().join("\n") + "\n"
}

impl Watch {
    /// Start both in `dir`: `backend` is its `host:port`, `token` of any role.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start(dir: &Path, backend: &str, token: &str, webhook: u16) -> Result<Self> {
        let shipped = |name: &str| fs::read_to_string(workspace().join("deploy").join(name));
        fs::create_dir_all(dir)?;
        let (port, alerts) = (free_port()?, free_port()?);
        let rules = hurried(&shipped("prometheus/viworks.rules.yml")?, &["for:", "interval:"]);
        fs::write(dir.join("viworks.rules.yml"), rules)?;
        fs::write(dir.join("token"), token)?;
        let config = hurried(&shipped("prometheus/prometheus.yml")?, &["scrape_interval:", "evaluation_interval:"])
            .replace("127.0.0.1:9093", &format!("127.0.0.1:{alerts}"))
            .replace("127.0.0.1:8080", backend)
            .replace("/etc/prometheus/viworks.token", &dir.join("token").to_string_lossy());
        fs::write(dir.join("prometheus.yml"), config)?;
        let routes = hurried(&shipped("alertmanager/alertmanager.yml")?, &["group_wait:", "group_interval:"])
            .replace("127.0.0.1:9095", &format!("127.0.0.1:{webhook}"));
        fs::write(dir.join("alertmanager.yml"), routes)?;
        let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let alertmanager = Running::start(
            Path::new("/usr/bin/prometheus-alertmanager"),
            [
                format!("--config.file={}", at("alertmanager.yml")),
                format!("--storage.path={}", at("alerts")),
                format!("--web.listen-address=127.0.0.1:{alerts}"),
                // One alone: nobody to gossip with.
                "--cluster.listen-address=".to_owned(),
            ],
            &dir.join("alertmanager.log"),
        )?;
        let prometheus = Running::start(
            Path::new("/usr/bin/prometheus"),
            [
                format!("--config.file={}", at("prometheus.yml")),
                format!("--storage.tsdb.path={}", at("series")),
                format!("--web.listen-address=127.0.0.1:{port}"),
            ],
            &dir.join("prometheus.log"),
        )?;
        Ok(Self { prometheus, alertmanager, api: Api::new(&format!("http://127.0.0.1:{port}"), None) })
    }

    /// The first value of an instant query, once there is one.
    ///
    /// # Errors
    /// When none comes, or the query is refused.
    pub fn value(&self, query: &str, within: Duration) -> Result<f64> {
        let escaped: String = query.bytes().map(|b| format!("%{b:02x}")).collect();
        eventually(query, within, || {
            let body = self.api.get(&format!("/api/v1/query?query={escaped}"))?.expect_status(200)?;
            let value = &body["data"]["result"][0]["value"][1];
            match value.as_str() {
                Some(text) => Ok(text.parse().ok()),
                None => Err(Error::other(body.to_string())),
            }
        })
    }
}

/// The alerts of this name in a webhook's bodies, by status.
#[must_use]
pub fn alerts(bodies: &[Value], name: &str, status: &str) -> Vec<Value> {
    let all = bodies.iter().filter_map(|body| body["alerts"].as_array()).flatten();
    all.filter(|alert| alert["labels"]["alertname"] == name && alert["status"] == status).cloned().collect()
}

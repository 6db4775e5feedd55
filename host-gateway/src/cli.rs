//! The command line, and what its commands print: `check` and `status` on standard output,
//! with an exit code for scripts.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use viworks_protocol::frame::PluginState;

use crate::broker::{self, BrokerArgs};
use crate::clock::host_ms;
use crate::config::{Config, Faults, process_env};
use crate::recording::file::{MAX_BYTES, Recording};
use crate::recording::replay::{self, Replayed};
use crate::selfupdate;
use crate::status::{self, AskError, Health};
use crate::trust::Standing;

/// The ViWorkS gateway: runs signed verbs on this host within what its owner granted.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway until SIGTERM or SIGINT.
    Run {
        /// The configuration file; VIW_AGENT_CONFIG, else /etc/viworks/gateway.toml.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Report every fault of the configuration; exits 1 if there is one.
    Check {
        /// The configuration file; VIW_AGENT_CONFIG, else /etc/viworks/gateway.toml.
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Ask the running gateway; exits 1 if it is degraded, 2 if none answers.
    Status {
        /// The status socket; else the configuration's.
        #[arg(long)]
        socket: Option<PathBuf>,
        /// The configuration file that names the socket.
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Write the running gateway's metrics; exits 2 if none answers.
    Metrics {
        /// The status socket; else the configuration's.
        #[arg(long)]
        socket: Option<PathBuf>,
        /// The configuration file that names the socket.
        #[arg(long)]
        config: Option<PathBuf>,
        /// A file to replace whole, for node_exporter's textfile collector; else standard output.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Run a recorded invocation against a component, on any machine; exits 1 if it departs,
    /// 2 if it can't be run.
    Replay {
        /// The recording.
        file: PathBuf,
        /// The component.
        #[arg(long, value_name = "WASM")]
        plugin: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Do to the host, as root, what an unprivileged gateway may have done; started by systemd.
    Broker {
        #[command(flatten)]
        broker: BrokerArgs,
    },
    /// Look at the host owner's policy.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// End the parent unless its version is confirmed in time; the gateway starts this itself.
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        state_dir: PathBuf,
        #[arg(long)]
        seconds: u32,
    },
    /// Compile a component from stdin to stdout; the gateway starts this itself.
    #[command(hide = true)]
    Compile,
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Report every fault of a policy file; exits 1 if there is one.
    Check {
        /// The policy; the configuration's otherwise.
        #[arg(long)]
        policy: Option<PathBuf>,
        /// The configuration file that names the policy and the release keys.
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Show what a plugin asks for, what reviews and policy leave, and what results.
    Explain {
        /// The id of an installed plugin, or the path of a bundle's component.
        plugin: String,
        /// The policy; the configuration's otherwise.
        #[arg(long)]
        policy: Option<PathBuf>,
        /// The configuration file.
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
}

/// `compile`
#[must_use]
pub fn compile() -> ExitCode {
    match crate::plugins::compile::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&crate::link::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// `hold`
pub async fn hold(state_dir: PathBuf, seconds: u32) -> ExitCode {
    match selfupdate::hold(state_dir, Duration::from_secs(seconds.into())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Read and check the configuration.
///
/// # Errors
/// Every fault of it.
pub fn load(config: Option<PathBuf>) -> Result<Config, Faults> {
    let now = i64::try_from(host_ms() / 1_000).unwrap_or(i64::MAX);
    Config::load(config.as_deref(), &process_env(), now)
}

/// `check`
pub async fn check(config: Option<PathBuf>, json: bool) -> ExitCode {
    let (notes, faults) = match load(config) {
        Ok(config) => (config.notes(), broker::check::faults(&config).await),
        Err(faults) => (Vec::new(), faults),
    };
    if json {
        let mut answer = faults.to_json();
        answer["notes"] = notes.into();
        print(&format!("{answer:#}"));
    } else {
        print(faults.to_string().trim_end());
        notes.iter().for_each(|note| print(&format!("note: {note}")));
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `status`
pub async fn status(socket: Option<PathBuf>, config: Option<PathBuf>, json: bool) -> ExitCode {
    let socket = socket.unwrap_or_else(|| Config::status_socket(config.as_deref(), &process_env()));
    match status::ask(&socket).await {
        Ok(health) => {
            print(&if json { serde_json::to_string_pretty(&health).unwrap_or_default() } else { shown(&health) });
            if health.status == "healthy" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            complain(&error);
            if matches!(error, AskError::Connect(..)) {
                complain(&"is it running, and may you read its socket?");
            }
            ExitCode::from(2)
        }
    }
}

/// `metrics`
pub async fn metrics(socket: Option<PathBuf>, config: Option<PathBuf>, out: Option<PathBuf>) -> ExitCode {
    let socket = socket.unwrap_or_else(|| Config::status_socket(config.as_deref(), &process_env()));
    let written = match status::metrics_of(&socket).await {
        Ok(text) => match out {
            None => {
                print(text.trim_end());
                Ok(())
            }
            // Renamed into place: the collector never reads half of it.
            Some(file) => {
                let part = file.with_extension("part");
                std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &file))
            }
        },
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// `replay`
pub async fn replay(file: PathBuf, plugin: PathBuf, json: bool) -> ExitCode {
    match replayed(&file, &plugin).await {
        Ok(replayed) => {
            let text = serde_json::to_string_pretty(&replayed).unwrap_or_default();
            print(&if json { text } else { replayed.in_words() });
            if replayed.equal { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            complain(&crate::link::chain(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

async fn replayed(file: &Path, plugin: &Path) -> Result<Replayed, Box<dyn std::error::Error>> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| format!("{path}: {e}")
    };
    if std::fs::metadata(file).map_err(named(file))?.len() > MAX_BYTES {
        return Err(format!("{} is larger than any recording", file.display()).into());
    }
    let recording = Recording::parse(&std::fs::read_to_string(file).map_err(named(file))?)?;
    Ok(replay::replay(&recording, &std::fs::read(plugin).map_err(named(plugin))?).await?)
}

fn shown(health: &Health) -> String {
    let mut lines = vec![
        format!("{} {} ({})", health.agent, health.status, health.version),
        format!("  link      {:?}, {} reconnects", health.link.phase, health.reconnects).to_lowercase(),
    ];
    if let Some(error) = &health.link.last_error {
        lines.push(format!("            {error}"));
    }
    let executor = &health.executor;
    lines.push(format!(
        "  running   {} of {}, {} waiting, {} ended",
        executor.running, executor.max_concurrency, executor.queued, executor.ended
    ));
    lines.push(format!("  owed      {} reports", health.journal.owed));
    let repository = &health.repository;
    lines.push(match (repository.standing, repository.timestamp) {
        (Standing::Off, _) => "  releases  by signature alone: no trusted_root".to_owned(),
        (standing, Some(timestamp)) => {
            format!("  releases  {}, timestamp {timestamp}, {} taken back", standing.as_str(), repository.revoked)
        }
        (standing, None) => format!("  releases  {}", standing.as_str()),
    });
    lines.extend(repository.fault.as_ref().map(|fault| format!("            {fault}")));
    lines.extend(health.policy.fault.as_ref().map(|fault| format!("  policy    refused, the old one stays: {fault}")));
    if let Some(fault) = &health.journal.fault {
        lines.push(format!("  journal   {fault}: verbs that change the host are refused"));
    }
    for (name, service) in health.services.iter().filter(|(_, service)| !service.is_healthy()) {
        lines.push(format!("  {name:<9} degraded: {}", service.detail.as_deref().unwrap_or("?")));
    }
    for plugin in &health.plugins {
        let state = match plugin.state {
            PluginState::Active => "active",
            PluginState::Fetching => "fetching",
            PluginState::Refused => "refused",
        };
        let shadow = if plugin.shadow { ", as a shadow" } else { "" };
        lines.push(format!("  plugin    {} {} {state}{shadow}", plugin.plugin, plugin.version));
        lines.extend(plugin.detail.as_ref().map(|detail| format!("            {detail}")));
    }
    lines.join("\n")
}

/// An error and its sources, on standard error.
pub fn complain(what: &impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

pub(crate) fn print(text: &str) {
    // Who closed our output does not want it.
    let _ = writeln!(std::io::stdout(), "{text}");
}

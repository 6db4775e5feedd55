//! `viworks-gateway broker`: from its files to its last request. Everything is read and
//! opened, then the process gives away what it won't need ([`lockdown`]), then it listens.
//! Refuses to run with a fault in its configuration, or unconfined.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use viworks_protocol::ecs;

use super::activation::{self, Listening};
use super::handle::Broker;
use super::lockdown;
use super::seal::Seal;
use super::serve::Server;
use crate::audit::Audit;
use crate::cli::complain;
use crate::config::BrokerConfig;
use crate::link::chain;
use crate::log::Format;
use crate::process::orphans;
use crate::vault::Vault;

/// A broker that systemd started ends after this long without a request; the next starts it.
const IDLE: Duration = Duration::from_secs(300);

/// How long a stopping broker lets what it does go on.
const DRAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct BrokerArgs {
    /// The gateway's configuration; /etc/viworks/gateway.toml.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where to listen, if systemd hands no socket down.
    #[arg(long)]
    socket: Option<PathBuf>,
}

type Error = Box<dyn std::error::Error>;

/// Serve until SIGTERM, or until nobody has asked for a while.
#[must_use]
pub fn run(args: &BrokerArgs) -> ExitCode {
    match start(args.config.as_deref(), args.socket.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start(config: Option<&Path>, socket: Option<&Path>) -> Result<(), Error> {
    let listening = activation::listen(socket)?;
    let config = BrokerConfig::load(config)?;
    let vault = Vault::open(&config.state_dir)?;
    let seal = Seal::open(&vault)?;
    // Before there is a second thread: a filter is a thread's own and its children's.
    lockdown::apply()?;
    let audit = Audit::open(&config.audit_log)?;
    // A host has one: the shipper says which host.
    let service = ecs::Service { name: "viworks-broker", version: env!("CARGO_PKG_VERSION"), node: None };
    let audit = if config.log_format == Some(Format::Ecs) { audit.in_ecs(service.clone()) } else { audit };
    crate::log::init(config.log_format, &service, &audit)?;
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(16).enable_all().build()?;
    runtime.block_on(serve(listening, config, seal, audit))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn serve(listening: Listening, config: BrokerConfig, seal: Seal, audit: Audit) -> Result<(), Error> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // What a broker before this one started may still be at work: nobody is told of the host
    // before it has ended.
    if !orphans::gone(&config.state_dir).await? {
        tracing::warn!("programs of an earlier broker still run; what they do now can't be taken into account");
    }
    orphans::mark(&config.state_dir)?;
    listening.socket.set_nonblocking(true)?;
    let stop = CancellationToken::new();
    let server = Server {
        listener: tokio::net::UnixListener::from_std(listening.socket)?,
        uid: config.uid,
        idle: listening.handed_down.then_some(IDLE),
        audit: audit.clone(),
        broker: Arc::new(Broker::new(config, seal)),
    };
    let uid = server.uid;
    tracing::info!(uid, version = env!("CARGO_PKG_VERSION"), "the broker listens");
    tracing::info!(target: "audit", uid, version = env!("CARGO_PKG_VERSION"), "broker started");
    let serving = server.run(stop.clone(), DRAIN);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        _ = terminate.recv() => { stop.cancel(); serving.await }
        _ = interrupt.recv() => { stop.cancel(); serving.await }
    }
    tracing::info!(target: "audit", uid, "broker stopped");
    audit.flush(Duration::from_secs(3)).await;
    Ok(())
}

//! Starts and stops the gateway: configuration → parts → signal → drain.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use viworks_gateway::app::{self, App};
use viworks_gateway::cli::{self, Cli, Command, complain};
use viworks_gateway::link::chain;
use viworks_gateway::{policy, selfupdate};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before anything else runs beside it: what it gives up, all of its threads have given up.
    if let Command::Broker { broker } = cli.command {
        return viworks_gateway::broker::run(&broker);
    }
    // Few threads: invocations are bounded, and each thread costs memory.
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).max_blocking_threads(32).enable_all().build();
    let Ok(runtime) = runtime.inspect_err(complain) else { return ExitCode::FAILURE };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Run { config } => run(config).await,
            Command::Check { config, json } => cli::check(config, json).await,
            Command::Compile | Command::Broker { .. } => cli::compile(),
            Command::Hold { state_dir, seconds } => cli::hold(state_dir, seconds).await,
            Command::Replay { file, plugin, json } => cli::replay(file, plugin, json).await,
            Command::Policy { command } => policy::run(command),
            Command::Metrics { socket, config, out } => cli::metrics(socket, config, out).await,
            Command::Status { socket, config, json } => cli::status(socket, config, json).await,
        }
    });
    runtime.shutdown_background();
    code
}

async fn run(config: Option<PathBuf>) -> ExitCode {
    let Ok(config) = cli::load(config).inspect_err(complain) else { return ExitCode::FAILURE };
    // Becomes another version, or says why it does not.
    let _ = selfupdate::launch(&config).inspect_err(complain);
    let started = async {
        let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let audit = app::prepare(&config)?;
        Ok::<_, Box<dyn std::error::Error>>((signals, App::start(config, audit).await?))
    };
    let ((mut terminate, mut interrupt), app) = match started.await {
        Ok(started) => started,
        Err(error) => {
            complain(&chain(error.as_ref()));
            return ExitCode::FAILURE;
        }
    };
    let anew = app.restart();
    let asked = tokio::select! { () = either(&mut terminate, &mut interrupt) => true, () = anew.cancelled() => false };
    tokio::select! {
        () = app.drain() => if asked { return ExitCode::SUCCESS } else { complain(&selfupdate::relaunch()) },
        () = either(&mut terminate, &mut interrupt) => {}
    }
    ExitCode::FAILURE
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! { _ = a.recv() => (), _ = b.recv() => () }
}

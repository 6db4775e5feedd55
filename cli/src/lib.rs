//! The command line for operators and plugin developers. Everything that operators do
//! goes through the HTTP API; plugins and certificates are made locally. Refuses to hold
//! state of its own: no configuration file, no cache.
//!
//! - [`run`](mod@run): a verb on agents; [`typing`] turns `--arg` into its arguments, [`follow`]
//!   waits for its end
//! - [`plan`]: what would be done; [`undo`], [`approve`]: taking back, and signing before
//! - [`agents`], [`verbs`], [`commands`], [`plugins`], [`audit`], [`tokens`], [`approvers`],
//!   [`receipts`]:
//!   what the API knows; [`listing`] shows it
//! - [`plugin`]: build, inspect and begin plugins
//! - [`pki`]: the certificates of a small site
//! - [`client`], [`events`]: HTTP and the event stream; [`output`]: tables and JSON

pub mod agents;
pub mod approve;
pub mod approvers;
pub mod audit;
pub mod client;
pub mod commands;
pub mod error;
pub mod events;
pub mod follow;
pub mod invocations;
pub mod listing;
pub mod output;
pub mod parse;
pub mod pki;
pub mod plan;
pub mod plugin;
pub mod plugins;
pub mod receipts;
pub mod run;
pub mod tokens;
pub mod typing;
pub mod undo;
pub mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::{Error, Exit};

const AFTER_HELP: &str = "\
Exit codes: 0 all succeeded, 1 some did not, 2 wrong usage or a refused request, 3 the
backend can't be reached or failed, 4 not finished when the waiting ended.

Examples:
  viworks agents
  viworks verbs show add_user
  viworks run add_user --on web-1 web-2 --arg name=deploy --arg groups=docker,adm
  viworks run get_system_health --all --json
  viworks commands watch cmd-0193f1c5a1b27cc0a1d2e3f405162738";

/// Run verbs on a fleet of hosts.
#[derive(Debug, Parser)]
#[command(name = "viworks", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub connection: client::Connection,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Agents(agents::Args),
    Verbs(verbs::Args),
    Run(run::Args),
    Undo(undo::Args),
    Approve(approve::Args),
    Commands(commands::Args),
    Plugins(plugins::Args),
    Audit(audit::Args),
    Tokens(tokens::Args),
    Approvers(approvers::Args),
    Receipts(receipts::Args),
    #[command(subcommand)]
    Plugin(plugin::Command),
    #[command(subcommand)]
    Pki(pki::Command),
}

/// Run one command line to its end.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let out = output::Out::new(cli.json);
    match dispatch(cli, &out) {
        Ok(exit) => exit.into(),
        // Whoever reads had enough; that is no failure.
        Err(error) if error.is_broken_pipe() => Exit::Succeeded.into(),
        Err(error) => {
            out.failure(&error);
            error.exit().into()
        }
    }
}

fn dispatch(cli: Cli, out: &output::Out) -> Result<Exit, Error> {
    let connect = || client::Client::new(&cli.connection);
    match cli.command {
        Command::Agents(args) => args.run(&connect()?, out),
        Command::Verbs(args) => args.run(&connect()?, out),
        Command::Run(args) => args.run(&connect()?, out),
        Command::Undo(args) => args.run(&connect()?, out),
        Command::Approve(args) => args.run(&connect()?, out),
        Command::Commands(args) => args.run(&connect()?, out),
        Command::Plugins(args) => args.run(&connect()?, out),
        Command::Audit(args) => args.run(&connect()?, out),
        Command::Tokens(args) => args.run(&connect()?, out),
        Command::Approvers(args) => args.run(&connect()?, out),
        Command::Receipts(args) => args.run(connect, out),
        Command::Plugin(command) => command.run(out),
        Command::Pki(command) => command.run(out),
    }
}

//! The commands of `viworks-sign` and their exit codes: a file for each command, and one
//! place that prints.

mod built;
mod bundle;
mod cosign;
mod error;
mod files;
mod inspect;
mod keygen;
mod keyref;
pub(crate) mod output;
mod policy;
mod repo;
mod review;
mod sign;
mod verify;

use clap::{Parser, Subcommand, ValueEnum};
pub(crate) use error::{Error, Exit};

/// Sign and check ViWorkS plugin releases.
#[derive(Debug, Parser)]
#[command(name = "viworks-sign", version, after_help = HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
Exit codes:
  0  verified, or done       3  a file can't be read or written
  1  refused                 4  something has expired
  2  wrong usage             5  a key or token can't be used

Example:
  viworks-sign keygen --out keys/release
  viworks-sign sign accounts.wasm --manifest plugin.toml --wit wit --key file:keys/release.key.pem --out dist
  viworks-sign verify dist/accounts.wasm --key keys/release.pub.pem --plugin accounts";

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(keygen::Keygen),
    Public(keygen::Public),
    Sign(sign::Sign),
    Cosign(cosign::Cosign),
    Review(review::Review),
    Verify(verify::Verify),
    Inspect(inspect::Inspect),
    Repo(repo::Repo),
    Policy(policy::Policy),
}

/// How a command's answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Cli {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        match &self.command {
            Command::Keygen(command) => command.run(),
            Command::Public(command) => command.run(),
            Command::Sign(command) => command.run(),
            Command::Cosign(command) => command.run(),
            Command::Review(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Repo(command) => command.run(),
            Command::Policy(command) => command.run(),
        }
    }
}

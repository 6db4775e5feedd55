//! `viworks plugin`: for plugin developers. Builds, inspects, begins and replays plugins; signing
//! is `viworks-sign`'s, publishing `viworks plugins`'.

mod build;
mod cargo;
mod gateway_wit;
mod inspect;
mod replay;
mod scaffold;

use std::path::PathBuf;

use clap::Subcommand;

use crate::error::{Error as CliError, Exit};
use crate::output::Out;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cargo can't be started")]
    Cargo(#[source] std::io::Error),
    #[error("the plugin did not build")]
    Build,
    #[error("{dir} built no component; its [lib] needs crate-type = [\"cdylib\"]")]
    NoComponent { dir: PathBuf },
    #[error("two builds of one source differ: sha256 {first} and {second}")]
    Differs { first: String, second: String },
    #[error("{path}")]
    Manifest { path: PathBuf, source: viworks_signing::manifest::Error },
    #[error("{path}: can't take the docs of its WIT")]
    Pack { path: PathBuf, source: viworks_signing::pack::Error },
    #[error("{path} can't be released")]
    Release { path: PathBuf, source: Box<viworks_signing::publish::Error> },
    #[error("{path}")]
    Describe { path: PathBuf, source: viworks_signing::describe::Error },
    #[error("viworks-gateway is neither beside this program nor in PATH: it does the replaying")]
    NoGateway,
    #[error("{path} can't be started")]
    Gateway { path: PathBuf, source: std::io::Error },
}

/// For plugin developers: begin, build and inspect plugins.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  viworks plugin new web-cache
  viworks plugin build web-cache --check --out dist
  viworks-sign sign dist/web-cache.wasm --manifest web-cache/plugin.toml --key file:release.key.pem --out dist
  viworks plugins publish dist/web-cache.wasm")]
pub enum Command {
    /// Begin a plugin: a folder that builds, with its own WIT and the SDK.
    New(scaffold::New),
    /// Build a plugin and check its plugin.toml against what the component is.
    Build(build::Build),
    /// Show what a component says of itself: imports, verbs, schemas.
    Inspect(inspect::Inspect),
    /// Run a recorded invocation against another build; exits 1 if it departs.
    Replay(replay::Replay),
}

impl Command {
    /// # Errors
    /// Files that can't be read or written; a plugin that does not build or fit.
    pub fn run(self, out: &Out) -> Result<Exit, CliError> {
        match self {
            Self::New(new) => new.run(out)?,
            Self::Build(build) => build.run(out)?,
            Self::Inspect(inspect) => inspect.run(out)?,
            Self::Replay(replay) => return replay.run(out),
        }
        Ok(Exit::Succeeded)
    }
}

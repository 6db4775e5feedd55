//! `viworks-sign policy`: a host owner's policy file checked, or explained for a bundle,
//! with the code that gateways use. Refuses to explain what does not verify.

use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use viworks_signing::keys::PublicKey;
use viworks_signing::policy::{Error as PolicyError, Policy as Rules, Sources};

use super::bundle::{Bundle, public_keys};
use super::{Error, Exit, Output, files, output};

/// Check a host owner's policy, or explain what it leaves of a release.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign policy check policy.toml --key keys/release.pub.pem
  viworks-sign policy explain policy.toml dist/accounts.wasm --plugin accounts --key keys/release.pub.pem")]
pub(crate) struct Policy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell every fault of a policy, each with its key, its value and what would be valid
    Check {
        policy: PathBuf,
        /// File of public keys (PEM) that the policy may name by sha256:KEYID
        #[arg(long = "key", value_name = "PUB")]
        keys: Vec<PathBuf>,
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Show request, review, policy and the resulting grant side by side
    Explain {
        policy: PathBuf,
        /// The component; its statements are beside it
        component: PathBuf,
        /// The plugin that this has to be
        #[arg(long, value_name = "ID")]
        plugin: String,
        /// File of public keys (PEM): release keys where the policy names none
        #[arg(long = "key", value_name = "PUB")]
        keys: Vec<PathBuf>,
        #[arg(long, value_enum, default_value = "text")]
        output: Output,
    },
}

impl Policy {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        match &self.command {
            Command::Check { policy, keys, output } => check(policy, &public_keys(keys)?, *output),
            Command::Explain { policy, component, plugin, keys, output } => {
                let known = public_keys(keys)?;
                let rules = load(policy, &known)?;
                let (_, verified) = Bundle::verified(component, None, &rules.trust(&known), plugin)?;
                let explained = rules.explain_verified(&verified);
                match output {
                    Output::Json => output::json(&json!(explained))?,
                    Output::Text => output::lines([explained.to_string().trim_end().to_owned()])?,
                }
                Ok(Exit::Done)
            }
        }
    }
}

/// Read a policy. `known`: the keys that it may name by id.
pub(super) fn load(path: &Path, known: &[PublicKey]) -> Result<Rules, Error> {
    let text = files::read_text(path, files::MAX_TEXT)?;
    let read = |key: &Path| files::read_text(key, files::MAX_TEXT).map_err(|error| output::chain(&error));
    Rules::parse(&text, &Sources { known, read: &read })
        .map_err(|source| Error::Policy { path: path.to_owned(), source })
}

fn check(path: &Path, known: &[PublicKey], output: Output) -> Result<Exit, Error> {
    let faults = match load(path, known) {
        Ok(_) => Vec::new(),
        Err(Error::Policy { source: PolicyError::Faults(faults), .. }) => faults.0,
        Err(error) => return Err(error),
    };
    match output {
        Output::Json => {
            let fault = |fault: &viworks_signing::fault::Fault| json!({ "key": fault.key, "value": fault.value, "wanted": fault.wanted });
            output::json(&json!({ "ok": faults.is_empty(), "faults": faults.iter().map(fault).collect::<Vec<_>>() }))?;
        }
        Output::Text if faults.is_empty() => output::lines(["the policy is sound".to_owned()])?,
        Output::Text => output::lines(faults.iter().map(ToString::to_string))?,
    }
    Ok(if faults.is_empty() { Exit::Done } else { Exit::Refused })
}

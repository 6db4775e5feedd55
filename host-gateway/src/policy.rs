//! `viworks-gateway policy`: looks at the host owner's policy file, and at what it leaves of
//! a plugin, without a running gateway. Changes nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use viworks_signing::verify::{self, MAX_COMPONENT, MAX_STATEMENTS, Refusal, VerifiedRelease};

use crate::cli::{PolicyCommand, complain, print};
use crate::config::{Config, Faults, PolicyFile, process_env};
use crate::link::chain;
use crate::plugins::{StoreError, active_in, bundle_in};

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error("{0}")]
    Faults(Faults),
    #[error("no plugin {plugin:?} is installed here; {}", others(.installed))]
    NotInstalled { plugin: String, installed: Vec<String> },
    #[error("the files of {0} are gone")]
    Lost(String),
    #[error("the plugins' store can't be read")]
    Store(#[from] StoreError),
    #[error("{} can't be read", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("the release is refused ({})", .0.code())]
    Refused(#[from] Refusal),
}

fn others(installed: &[String]) -> String {
    if installed.is_empty() { "there is none".to_owned() } else { format!("there are {}", installed.join(", ")) }
}

/// Run one of the commands.
#[must_use]
pub fn run(command: PolicyCommand) -> ExitCode {
    match command {
        PolicyCommand::Check { policy, config, json } => check(policy, config, json),
        PolicyCommand::Explain { plugin, policy, config, json } => {
            match explain(&plugin, policy, config.as_deref(), json) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&chain(&error));
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn check(policy: Option<PathBuf>, config: Option<PathBuf>, json: bool) -> ExitCode {
    let mut faults = Faults::default();
    let file = Config::policy_file(config.as_deref(), policy, &process_env(), &mut faults);
    if faults.is_empty() {
        let _ = file.load(&mut faults);
    }
    if json {
        print(&format!("{:#}", faults.to_json()));
    } else if faults.is_empty() {
        print(&format!("{} is sound", file.path().display()));
    } else {
        print(faults.to_string().trim_end());
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn explain(plugin: &str, policy: Option<PathBuf>, config: Option<&Path>, json: bool) -> Result<(), ExplainError> {
    let mut faults = Faults::default();
    let file = Config::policy_file(config, policy, &process_env(), &mut faults);
    let policy = file.load(&mut faults);
    if !faults.is_empty() {
        return Err(ExplainError::Faults(faults));
    }
    let (component, statements, id) = bundle(plugin, config)?;
    let verified = verified(&component, &statements, &file, &policy, id)?;
    let explanation = policy.explain_verified(&verified);
    if json {
        print(&serde_json::to_string_pretty(&explanation).unwrap_or_default());
    } else {
        print(explanation.to_string().trim_end());
    }
    Ok(())
}

/// What is explained is what would be admitted: unsigned claims are not.
fn verified(
    component: &[u8],
    statements: &str,
    file: &PolicyFile,
    policy: &crate::config::Policy,
    id: Option<&str>,
) -> Result<VerifiedRelease, Refusal> {
    verify::verify_with(component, statements, &policy.trust(file.known()), id, SystemTime::now())
}

/// Component, statements and the id that they must be of: of a file, else of an installed
/// plugin.
fn bundle<'a>(plugin: &'a str, config: Option<&Path>) -> Result<(Vec<u8>, String, Option<&'a str>), ExplainError> {
    let path = Path::new(plugin);
    if path.is_file() {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".intoto.jsonl");
        let statements = read(Path::new(&beside), MAX_STATEMENTS)?;
        return Ok((read(path, MAX_COMPONENT)?, String::from_utf8_lossy(&statements).into_owned(), None));
    }
    let state_dir = Config::state_dir(config, &process_env());
    let active = active_in(&state_dir)?;
    let Some(digest) = active.get(plugin) else {
        let installed = active.into_keys().collect();
        return Err(ExplainError::NotInstalled { plugin: plugin.to_owned(), installed });
    };
    let (component, statements) =
        bundle_in(&state_dir, digest)?.ok_or_else(|| ExplainError::Lost(plugin.to_owned()))?;
    Ok((component, statements, Some(plugin)))
}

fn read(path: &Path, max: usize) -> Result<Vec<u8>, ExplainError> {
    use std::io::Read as _;
    let attempt = || {
        let mut bytes = Vec::new();
        // One byte more, so that what is too large is refused as such.
        std::fs::File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    attempt().map_err(|error| ExplainError::Read(path.to_owned(), error))
}

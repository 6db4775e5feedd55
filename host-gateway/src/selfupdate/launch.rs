//! The start: the installed program looks which version was chosen, verifies it once more
//! against the repository's metadata, and becomes it. What was not confirmed yet is held by a
//! second process of the installed program, which ends it unless it gets a session in time;
//! whoever supervises the gateway starts it again, and that counts.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use semver::Version;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{LAUNCHED, LAUNCHER, Versions, VersionsError, candidate, launched};
use crate::config::Config;
use crate::process::{orphans, replace};
use crate::trust::Repository;

/// Become the chosen version. Returns where this is the one to run: it was launched already, or
/// the installed one is meant. What is wrong with a version is remembered, and another is tried.
///
/// # Errors
/// When the choice can't be read or kept: then the installed program runs.
pub fn launch(config: &Config) -> Result<(), VersionsError> {
    // A first start has nothing that could have been chosen.
    if !config.self_update.enabled || launched().is_some() || !config.state_dir.exists() {
        return Ok(());
    }
    let Ok(installed) = Version::parse(env!("CARGO_PKG_VERSION")) else { return Ok(()) };
    let versions = Versions::open(&config.state_dir)?;
    let mut choice = versions.choice()?;
    // Without the repository nothing is vouched for.
    let repository = Repository::open(&config.state_dir, config.anchor.clone(), config.repository_grace).ok();
    let view = repository.map(|repository| repository.view()).unwrap_or_default();
    loop {
        let before = choice.clone();
        let entry = choice.start(&installed, |entry| candidate::vouched(&view, entry));
        if choice != before {
            versions.keep(&choice)?;
        }
        let Some(entry) = entry else { return Ok(()) };
        let failed = match versions.verify(&entry) {
            Ok(()) => become_it(config, &versions, &entry.version, &entry.digest, choice.confirmed),
            Err(error) => crate::link::chain(&error),
        };
        choice.refuse(&failed);
        versions.keep(&choice)?;
    }
}

/// Does not return unless it failed; why.
fn become_it(config: &Config, versions: &Versions, version: &Version, digest: &str, confirmed: bool) -> String {
    let Ok(installed) = std::env::current_exe() else { return "the installed program can't be found".to_owned() };
    if !confirmed {
        let seconds = config.self_update.confirm_secs.to_string();
        let state_dir = config.state_dir.as_os_str();
        let args = ["hold".as_ref(), "--state-dir".as_ref(), state_dir, "--seconds".as_ref(), seconds.as_ref()];
        if let Err(error) = replace::beside(&installed, args) {
            return format!("nobody could hold it: {error}");
        }
    }
    let program = versions.program(digest);
    let env = [(LAUNCHED, format!("{version} {digest}").into()), (LAUNCHER, installed.into_os_string())];
    replace::become_program(&program, std::env::args_os().skip(1), env).to_string()
}

/// Begin anew with the installed program, as at a start. Does not return unless it failed.
#[must_use]
pub fn relaunch() -> io::Error {
    if let Err(error) = orphans::keep_back() {
        return error;
    }
    let launcher = std::env::var_os(LAUNCHER).map(PathBuf::from).map_or_else(std::env::current_exe, Ok);
    match launcher {
        // Without what says that it was launched already.
        Ok(program) => replace::become_program(&program, std::env::args_os().skip(1), [(LAUNCHED, "".into())]),
        Err(error) => error,
    }
}

/// `hold`: end the parent unless the current version is confirmed within the time.
///
/// # Errors
/// When the parent can't be watched.
pub async fn hold(state_dir: PathBuf, within: Duration) -> io::Result<()> {
    let Some(parent) = getppid().filter(|parent| *parent != Pid::INIT) else { return Ok(()) };
    let pidfd = pidfd_open(parent, PidfdFlags::empty())?;
    // It may have ended before it could be watched: then somebody else is the parent now.
    if getppid() != Some(parent) {
        return Ok(());
    }
    #[allow(deprecated, reason = "its replacement is unsafe; an OwnedFd keeps the promise that is asked for there")]
    let ended = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    if tokio::time::timeout(within, ended.readable()).await.is_ok() {
        return Ok(());
    }
    let confirmed = Versions::open(&state_dir).and_then(|versions| versions.choice()).is_ok_and(|c| c.confirmed);
    if !confirmed {
        pidfd_send_signal(ended.get_ref(), Signal::KILL)?;
    }
    Ok(())
}

//! A machine that is this one with every change thrown away: an overlay over `/` in namespaces
//! of its own, where packages are installed and runbooks are tried as root. Refuses nothing
//! inside of it; nothing of it is left outside, and all that it started ends with it.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::program::{Running, component, program, workspace};

/// What a script in the sandbox is given besides the machine.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Packages to install.
    pub debs: Option<PathBuf>,
}

/// Run a bash script in a new sandbox; what it printed.
///
/// # Errors
/// When it fails or takes longer than `within`, with all that it printed.
pub fn run(script: &str, given: &Given, within: Duration) -> Result<String> {
    let dir = tempfile::Builder::new().prefix("viw-sandbox-").tempdir()?;
    let (file, log) = (dir.path().join("script.sh"), dir.path().join("log"));
    fs::write(&file, script)?;
    let source = fs::canonicalize(workspace())?;
    let viworks = program("viworks")?;
    let plugin = component("plugins", "viworks_plugin_health")?;
    let folder = |path: &Path| path.parent().map(fs::canonicalize).transpose().map(Option::unwrap_or_default);
    let mut command = Command::new(source.join("tests/sandbox/enter.sh"));
    command.arg(&file).env("VIW_SOURCE", &source).env("VIW_PROGRAMS", folder(&viworks)?);
    command.env("VIW_PLUGINS", folder(&plugin)?).env("VIW_DEBS", given.debs.as_deref().unwrap_or(Path::new("")));
    let mut running = Running::start_with(&mut command, &log)?;
    let ended = running.wait(within);
    let said = fs::read_to_string(&log).unwrap_or_default();
    match ended {
        Ok(status) if status.success() => Ok(said),
        Ok(status) => Err(Error::other(format!("the sandbox's script: {status}\n{said}"))),
        Err(_) => Err(Error::other(format!("the sandbox's script takes longer than {within:?}\n{said}"))),
    }
}

//! `viworks plugin replay`: the gateway's own `replay`, found and run. Holds no engine of
//! its own, so what it says is what a gateway would do.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Error;
use crate::error::{Error as CliError, Exit};
use crate::output::Out;

const GATEWAY: &str = "viworks-gateway";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  viworks plugin replay recording.jsonl --plugin target/wasm32-wasip2/release/greeter.wasm")]
pub struct Replay {
    /// A recording of a gateway.
    file: PathBuf,
    /// The component to run.
    #[arg(long, value_name = "WASM")]
    plugin: PathBuf,
}

impl Replay {
    pub(super) fn run(self, out: &Out) -> Result<Exit, CliError> {
        let path = gateway().ok_or(Error::NoGateway)?;
        let mut command = Command::new(&path);
        command.arg("replay").arg(&self.file).arg("--plugin").arg(&self.plugin).stdin(Stdio::null());
        if out.is_json() {
            command.arg("--json");
        }
        let status = command.status().map_err(|source| Error::Gateway { path, source })?;
        Ok(match status.code() {
            Some(0) => Exit::Succeeded,
            Some(1) => Exit::Failed,
            _ => Exit::Refused,
        })
    }
}

/// Beside this program, else in `PATH`.
fn gateway() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(GATEWAY));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join(GATEWAY))).find(|path| path.is_file())
}

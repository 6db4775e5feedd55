//! Building a plugin's crate with cargo, so that its bytes say nothing of where it was
//! built: not the source's folder, nor cargo's, nor the target's. Refuses a crate that makes
//! no component.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Error;
use crate::error::Error as CliError;

const TARGET: &str = "wasm32-wasip2";

/// A crate to build.
pub(super) struct Crate {
    dir: PathBuf,
    manifest: PathBuf,
    workspace: String,
    target: String,
}

impl Crate {
    pub(super) fn at(dir: &Path) -> Result<Self, CliError> {
        let manifest = dir.join("Cargo.toml");
        let manifest = manifest.canonicalize().map_err(CliError::file("find it", &manifest))?;
        let output = cargo(dir)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(Error::Cargo)?;
        if !output.status.success() {
            return Err(Error::Build.into());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let folder = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
            workspace: folder("workspace_root"),
            target: folder("target_directory"),
        })
    }

    /// Build it; the component's path, as cargo reports it. `target`: another folder than
    /// cargo's own.
    pub(super) fn build(&self, target: Option<&Path>) -> Result<PathBuf, CliError> {
        let mut command = cargo(&self.dir);
        command.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
        if let Some(target) = target {
            command.arg("--target-dir").arg(target);
        }
        let target = target.and_then(Path::to_str).unwrap_or(&self.target);
        command.arg("--config").arg(self.remapped(target));
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(Error::Cargo)?;
        let mut found = None;
        for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
            let message: Value = serde_json::from_str(&line.map_err(Error::Cargo)?).unwrap_or_default();
            if message["reason"] == "compiler-artifact"
                && message["manifest_path"].as_str().map(Path::new) == Some(&self.manifest)
            {
                let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
                found = files.into_iter().find(|file| file.ends_with(".wasm")).map(PathBuf::from).or(found);
            }
        }
        if !child.wait().map_err(Error::Cargo)?.success() {
            return Err(Error::Build.into());
        }
        Ok(found.ok_or_else(|| Error::NoComponent { dir: self.dir.clone() })?)
    }

    /// Panic messages hold the paths of sources; those of this machine say nothing to
    /// anybody and would make its bytes differ from every other's. rustc takes the last
    /// prefix that fits, so the inner folders come last.
    fn remapped(&self, target: &str) -> String {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let home = home.as_deref().and_then(Path::to_str).unwrap_or_default();
        let folders = [(self.workspace.as_str(), "/plugin"), (home, "/cargo"), (target, "/target")];
        let flags: Vec<Value> = folders
            .iter()
            .filter(|(from, _)| !from.is_empty())
            .map(|(from, to)| Value::from(format!("--remap-path-prefix={from}={to}")))
            .collect();
        format!("target.{TARGET}.rustflags={}", Value::from(flags))
    }
}

/// In the crate's folder and not by --manifest-path, so that its .cargo/config.toml counts.
fn cargo(dir: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dir);
    command
}

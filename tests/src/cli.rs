//! What operators type: the command line as a program, with a token of its own.

use std::io::{Error, Result};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::program::program;

/// Somebody with a token of one role.
#[derive(Debug)]
pub struct Operator {
    pub url: String,
    pub token: String,
}

/// What one run of the program gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Operator {
    /// With a new token, named after the role.
    ///
    /// # Errors
    /// When the backend's tool refuses.
    pub fn of(cluster: &Cluster, role: &str) -> Result<Self> {
        Ok(Self { url: cluster.api.url().to_owned(), token: cluster.token(&format!("cli-{role}"), role)? })
    }

    /// # Errors
    /// When the program can't be started.
    pub fn types(&self, line: &[&str]) -> Result<Ran> {
        let output = Command::new(program("viworks")?)
            .args(line)
            .env("VIWORKS_URL", &self.url)
            .env("VIWORKS_TOKEN", &self.token)
            .env_remove("VIWORKS_TOKEN_FILE")
            .stdin(Stdio::null())
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    /// The same with `--json`: exit code and what was printed.
    ///
    /// # Errors
    /// When the program can't be started, or printed no JSON.
    pub fn json(&self, line: &[&str]) -> Result<(Option<i32>, Value)> {
        let ran = self.types(&[line, &["--json"]].concat())?;
        let value = serde_json::from_str(&ran.stdout).map_err(|e| Error::other(format!("{e}: {}", ran.stderr)))?;
        Ok((ran.code, value))
    }
}

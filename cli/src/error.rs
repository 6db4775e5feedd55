//! How a command line ends: the errors of the program and their exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Deserialize;

/// The program's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Succeeded,
    /// The command ended and not every invocation succeeded, or local work failed.
    Failed,
    /// Wrong usage, or a request that the backend refused.
    Refused,
    /// The backend can't be reached, or failed itself.
    Unreachable,
    /// The waiting ended before the command did.
    Unfinished,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Problem(Box<Problem>),
    #[error("the backend at {url} can't be reached")]
    Unreachable { url: String, source: Box<ureq::Error> },
    #[error("{url} answered what no ViWorkS backend answers: {what}")]
    Answer { url: String, what: String },
    #[error("{path}: can't {step}")]
    File { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{0} exists already; --force replaces it")]
    Exists(PathBuf),
    #[error("can't write the output")]
    Output(#[source] std::io::Error),
    #[error(transparent)]
    Pki(#[from] crate::pki::Error),
    #[error(transparent)]
    Plugin(#[from] crate::plugin::Error),
}

impl Error {
    pub fn file(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { step, path, source }
    }

    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::File { .. } | Self::Exists(_) => Exit::Refused,
            Self::Problem(problem) if problem.status >= 500 => Exit::Unreachable,
            Self::Problem(_) => Exit::Refused,
            Self::Unreachable { .. } | Self::Answer { .. } => Exit::Unreachable,
            Self::Output(_) | Self::Pki(_) | Self::Plugin(_) => Exit::Failed,
        }
    }

    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// What the backend says of a refused request (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub status: u16,
    pub code: String,
    pub title: String,
    pub detail: String,
    /// By argument, where arguments are at fault.
    pub errors: Vec<Fault>,
    /// Targets that no gateway has.
    pub agents: Vec<String>,
    /// Why a plugin is not admitted.
    pub reason: Option<String>,
    /// From the `Retry-After` header.
    #[serde(skip)]
    pub retry_after: Option<String>,
}

/// One fault in a request; `path` is a JSON pointer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Fault {
    pub path: String,
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.title)?;
        if !self.detail.is_empty() && self.detail != self.title {
            write!(f, ": {}", self.detail)?;
        }
        if let Some(reason) = &self.reason {
            write!(f, " ({reason})")?;
        }
        for fault in &self.errors {
            write!(f, "\n  {}: {}", fault.path.trim_start_matches('/').replace('/', "."), fault.message)?;
        }
        if !self.agents.is_empty() {
            write!(f, "\n  {}", self.agents.join(", "))?;
        }
        if let Some(after) = &self.retry_after {
            write!(f, "\n  try again in {after} s")?;
        }
        if self.code == "unauthenticated" {
            f.write_str("\n  give a token by --token-file, VIWORKS_TOKEN_FILE or VIWORKS_TOKEN")?;
        }
        Ok(())
    }
}

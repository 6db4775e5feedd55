//! What can go wrong in a command, and the exit code that says so.

use std::path::PathBuf;
use std::process::ExitCode;
use viworks_signing::{at_rest, describe, manifest, pack, publish, verify::Refusal};

/// The exit codes of every command. clap itself exits with 2; 4 is kept for metadata that
/// is stale or expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Refused = 1,
    Usage = 2,
    Io = 3,
    Key = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("can't {verb} {path}")]
    Io { verb: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} has more than {max} bytes")]
    TooLarge { path: PathBuf, max: usize },
    #[error("{path} is not UTF-8 text")]
    Text { path: PathBuf },
    #[error("{path} exists already and is not overwritten")]
    Exists { path: PathBuf },
    #[error("{path} can be read by others (mode {mode:04o}); chmod 600 it")]
    Readable { path: PathBuf, mode: u32 },
    #[error("key reference {reference:?}: wanted file:PATH, a path or env:VAR")]
    Reference { reference: String },
    #[error("environment variable {variable} is not set, empty or not UTF-8")]
    Variable { variable: String },
    #[error("the key is encrypted; give its password by --password-env or --password-file")]
    NoPassword,
    #[error("a password is given, but the key is not encrypted")]
    UnneededPassword,
    #[error("the password is empty")]
    EmptyPassword,
    #[error("key {name}")]
    Key { name: String, source: at_rest::Error },
    #[error("public key {path}")]
    Public { path: PathBuf, source: viworks_signing::keys::Error },
    #[error("{path}")]
    Manifest { path: PathBuf, source: manifest::Error },
    #[error("can't pack {path}")]
    Pack { path: PathBuf, source: pack::Error },
    #[error("can't release {path}")]
    Publish { path: PathBuf, source: publish::Error },
    #[error("{path}")]
    Describe { path: PathBuf, source: describe::Error },
    #[error("{time:?} is no RFC 3339 time in UTC, for example 2030-01-31T00:00:00Z")]
    Time { time: String },
    #[error("the signed release would be refused ({})", source.code())]
    Unverified { source: Refusal },
    #[error("the answer can't be written")]
    Print(#[source] std::io::Error),
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Io { .. } | Self::Text { .. } | Self::Print(_) => Exit::Io,
            Self::Exists { .. } | Self::Reference { .. } | Self::Time { .. } => Exit::Usage,
            Self::NoPassword | Self::UnneededPassword | Self::EmptyPassword => Exit::Key,
            Self::Key { .. } | Self::Public { .. } | Self::Variable { .. } | Self::Readable { .. } => Exit::Key,
            Self::TooLarge { .. } | Self::Manifest { .. } | Self::Pack { .. } => Exit::Refused,
            Self::Publish { .. } | Self::Describe { .. } | Self::Unverified { .. } => Exit::Refused,
        }
    }
}

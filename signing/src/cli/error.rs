//! What can go wrong in a command, and the exit code that says so.

use std::path::PathBuf;
use std::process::ExitCode;
use viworks_signing::{
    at_rest, describe, keyref, manifest, pack, pkcs11, policy, publish, strict_json, trust, verify::Refusal,
};

/// The exit codes of every command. clap itself exits with 2; 4 says that metadata has
/// expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Refused = 1,
    Usage = 2,
    Io = 3,
    Stale = 4,
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
    #[error(transparent)]
    Key(#[from] keyref::Error),
    #[error("key {path} can't be written")]
    Encode { path: PathBuf, source: at_rest::Error },
    #[error("a key in a token: give --public FILE for its public half")]
    NoPublic,
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
    #[error(transparent)]
    Repo(#[from] super::repo::Fault),
    #[error("{path} is refused ({})", source.code())]
    Refused { path: PathBuf, source: Refusal },
    #[error("{path}")]
    Policy { path: PathBuf, source: policy::Error },
    #[error("{path} can't be reviewed by this key")]
    Roles { path: PathBuf, source: trust::Error },
    #[error("{path} is no provenance")]
    Json { path: PathBuf, source: strict_json::Error },
    #[error("the provenance of {path} lacks its {what}")]
    Provenance { path: PathBuf, what: &'static str },
    #[error("{text:?}: wanted {wanted}")]
    Argument { text: String, wanted: &'static str },
    #[error("the answer can't be written")]
    Print(#[source] std::io::Error),
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Io { .. } | Self::Text { .. } | Self::Print(_) => Exit::Io,
            Self::Exists { .. } | Self::NoPublic | Self::Time { .. } | Self::Argument { .. } => Exit::Usage,
            Self::Key(error) => key(error),
            Self::Repo(fault) => fault.exit(),
            Self::Encode { .. } | Self::Public { .. } => Exit::Key,
            Self::Publish { source: publish::Error::Signer(_), .. } => Exit::Key,
            Self::TooLarge { .. } | Self::Manifest { .. } | Self::Pack { .. } => Exit::Refused,
            Self::Publish { .. } | Self::Describe { .. } | Self::Unverified { .. } => Exit::Refused,
            Self::Refused { .. } | Self::Policy { .. } | Self::Roles { .. } => Exit::Refused,
            Self::Json { .. } | Self::Provenance { .. } => Exit::Refused,
        }
    }
}

/// A reference that is none is wrong usage; a file that can't be read is the file's fault.
fn key(error: &keyref::Error) -> Exit {
    match error {
        keyref::Error::Reference { .. } | keyref::Error::Source { .. } => Exit::Usage,
        keyref::Error::Token(pkcs11::Error::Uri { .. } | pkcs11::Error::Exists { .. }) => Exit::Usage,
        keyref::Error::Read { .. } | keyref::Error::Text { .. } => Exit::Io,
        _ => Exit::Key,
    }
}

//! Why a plugin did not become active: at which step, and with which code.

use super::admit::AdmitError;
use super::compile::CompileError;
use super::registry::VerbTaken;
use super::store::{Rollback, StoreError};
use crate::runtime::{PrepareError, TrialError};
use crate::trust::TrustError;

/// The step of a hot load that failed. What ran before it still runs.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Admit(#[from] AdmitError),
    #[error("the fetched release has the digest {found}")]
    NotTheOffered { found: String },
    #[error(transparent)]
    Rollback(#[from] Rollback),
    #[error("the component does not compile")]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Trial(#[from] TrialError),
    #[error(transparent)]
    Verb(#[from] VerbTaken),
    #[error("it could not be stored")]
    Store(#[from] StoreError),
    #[error("its files are gone")]
    Lost,
    #[error("the gateway failed while it loaded the plugin")]
    Panicked,
}

impl InstallError {
    /// For programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Admit(error) => error.code(),
            Self::NotTheOffered { .. } => "E_DIGEST",
            Self::Rollback(_) => "E_ROLLBACK",
            Self::Compile(_) => "E_COMPILE",
            Self::Prepare(PrepareError::NotGranted { .. } | PrepareError::NoSuchImport { .. }) => "E_IMPORT",
            Self::Prepare(_) => "E_COMPONENT",
            Self::Trial(_) => "E_SELF_TEST",
            Self::Verb(_) => "E_VERB_TAKEN",
            Self::Store(_) | Self::Lost => "E_STORE",
            Self::Panicked => "E_INTERNAL",
        }
    }

    /// The step, as an operator reads it.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match self {
            Self::Admit(AdmitError::NotExported { .. } | AdmitError::NotSigned { .. } | AdmitError::Differs { .. })
            | Self::Trial(_) => "self-test",
            Self::Admit(_) | Self::NotTheOffered { .. } | Self::Rollback(_) => "admit",
            Self::Compile(_) => "compile",
            Self::Prepare(_) => "link",
            Self::Verb(_) | Self::Store(_) => "swap",
            Self::Lost | Self::Panicked => "load",
        }
    }

    /// Whether another policy or more of the repository could let it in.
    #[must_use]
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Admit(AdmitError::Repository(error)) => error.may_pass(),
            Self::Admit(_) | Self::Prepare(_) | Self::Trial(_) | Self::Compile(_) => true,
            _ => false,
        }
    }

    /// Code, step and all that is known, on one line that fits its frame.
    #[must_use]
    pub(super) fn detail(&self) -> String {
        let mut text = format!("{}: {}: {}", self.code(), self.step(), crate::link::chain(self));
        text.truncate(text.floor_char_boundary(4 * 1024));
        text
    }
}

impl From<TrustError> for InstallError {
    fn from(error: TrustError) -> Self {
        Self::Admit(error.into())
    }
}

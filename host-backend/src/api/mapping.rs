//! What each part of the backend refuses, as clients see it. Everything that is no
//! client's doing becomes `internal`, with its cause in the log alone.

use super::problem::{ArgumentError, Code, Problem, chain};
use crate::authz::Refusal;
use crate::catalog::{CatalogError, CheckError, PublishError, StandError};
use crate::dispatch::AcceptError;
use crate::repository::RepositoryError;
use crate::repository::oci::OciError;
use crate::rollouts::RolloutError;
use crate::store::StoreError;

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Token(_) | Refusal::Unknown => Self::new(Code::Unauthenticated, refusal.to_string()),
            Refusal::Forbidden(forbidden) => Self::new(Code::Forbidden, forbidden.to_string()),
            Refusal::TooFast(wait) => {
                Self::busy(refusal.to_string(), u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1))
            }
            Refusal::Store(error) => error.into(),
        }
    }
}

impl Problem {
    fn conflict(error: &dyn std::error::Error, reason: &str) -> Self {
        Self::new(Code::Conflict, error.to_string()).because(reason)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Cursor(_) => Self::wrong_cursor(),
            StoreError::Taken(_) => Self::new(Code::Conflict, error.to_string()),
            StoreError::Unavailable(_) => {
                Self::unavailable("the database can't be reached; what was asked may still happen")
            }
            StoreError::Busy => Self::busy("the store's queue is full", 1),
            StoreError::Timeout => Self::busy("the store did not answer in time; the change may still happen", 5),
            other => Self::internal(&other),
        }
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Store(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Refused(refusal) => Self::plugin_refused(refusal.code(), chain(&refusal)),
            PublishError::Unusable(CatalogError::Store(error)) | PublishError::Store(error) => error.into(),
            PublishError::Unusable(cause) => Self::plugin_refused("E_UNUSABLE", chain(&cause)),
            PublishError::VerbTaken { .. } => Self::conflict(&error, "E_VERB_TAKEN"),
            PublishError::NotNewer { .. } => Self::conflict(&error, "E_ROLLBACK"),
            PublishError::VersionReused { .. } => Self::conflict(&error, "E_VERSION"),
            PublishError::Killed => Self::conflict(&error, "E_KILLED"),
            PublishError::RollingOut { .. } => Self::conflict(&error, "E_ROLLING_OUT"),
            PublishError::Repository(refusal) => Self::plugin_refused(refusal.code(), chain(&refusal)),
            PublishError::Revoked(revoked) => Self::plugin_refused(revoked.code(), revoked.to_string()),
            PublishError::NoRepository => Self::plugin_refused("E_NO_REPOSITORY", error.to_string()),
            PublishError::Interrupted(_) => Self::internal(&error),
        }
    }
}

impl From<OciError> for Problem {
    fn from(error: OciError) -> Self {
        let (code, detail) = (error.code(), chain(&error));
        match error {
            OciError::Reference(_) => Self::invalid(detail).because(code),
            OciError::Password(_) => Self::internal(&error),
            _ => Self::plugin_refused(code, detail),
        }
    }
}

impl From<RepositoryError> for Problem {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::Tuf(refusal) => {
                Self::new(Code::RepositoryRefused, chain(&refusal)).because(refusal.code())
            }
            RepositoryError::Store(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<StandError> for Problem {
    fn from(error: StandError) -> Self {
        match error {
            StandError::Unknown(_) => Self::new(Code::NotFound, error.to_string()),
            StandError::Standing { .. } => Self::conflict(&error, "E_STANDING"),
            StandError::NotNewer { .. } => Self::conflict(&error, "E_ROLLBACK"),
            StandError::RollingOut { .. } => Self::conflict(&error, "E_ROLLING_OUT"),
            StandError::Catalog(error) => error.into(),
        }
    }
}

impl From<RolloutError> for Problem {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::Halted(forbidden) => Self::new(
                Code::Forbidden,
                format!("the rollout was halted by its shadow; only an administrator overrules that: {forbidden}"),
            ),
            RolloutError::Spec(fault) => Self::invalid(fault.to_string()).because("E_ROLLOUT_SPEC"),
            RolloutError::Stand(error) => error.into(),
            RolloutError::Held => Self::conflict(&error, "E_HELD"),
            RolloutError::NoFormer => Self::conflict(&error, "E_NO_FORMER"),
            RolloutError::TooMany => Self::busy(error.to_string(), 60).because("E_ROLLOUTS"),
            RolloutError::NoMembers => Self::no_targets(error.to_string()).because("E_NO_MEMBERS"),
            RolloutError::Unknown(_) => Self::new(Code::NotFound, error.to_string()),
            RolloutError::State { .. } => Self::conflict(&error, "E_ROLLOUT_STATE"),
            RolloutError::Overtaken => Self::conflict(&error, "E_OVERTAKEN"),
            RolloutError::Store(error) => error.into(),
        }
    }
}

impl From<CheckError> for Problem {
    fn from(error: CheckError) -> Self {
        let detail = error.to_string();
        match error {
            CheckError::UnknownVerb(_) => Self::new(Code::UnknownVerb, detail),
            CheckError::Arguments(errors) => {
                let errors = errors.into_iter().map(|e| ArgumentError { path: e.path, message: e.message }).collect();
                Self::invalid_arguments(detail, errors)
            }
        }
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        let detail = error.to_string();
        match error {
            AcceptError::NoTargets => Self::no_targets(detail),
            AcceptError::TooManyTargets { .. } | AcceptError::Range { .. } => Self::invalid(detail),
            AcceptError::Busy { retry_after_secs } => Self::busy(detail, retry_after_secs),
            AcceptError::KeyReused(_) | AcceptError::BeingUndone(_) => Self::new(Code::Conflict, detail),
            AcceptError::Store(error) => error.into(),
            AcceptError::Stopping => Self::busy(detail, 5),
        }
    }
}

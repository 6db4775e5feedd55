//! What each part of the backend refuses, as clients see it. Everything that is no
//! client's doing becomes `internal`, with its cause in the log alone.

use super::problem::{ArgumentError, Code, Problem, chain};
use crate::authz::Refusal;
use crate::catalog::{CatalogError, CheckError, PublishError};
use crate::dispatch::AcceptError;
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

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Cursor(_) => Self::wrong_cursor(),
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
            PublishError::VerbTaken { .. } | PublishError::NotNewer { .. } => {
                Self::new(Code::Conflict, error.to_string())
            }
            PublishError::Interrupted(_) => Self::internal(&error),
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

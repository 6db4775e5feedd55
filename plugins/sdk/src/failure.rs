//! Makers and conversions of the shared `failure`, so that verbs end with `?`. Refuses
//! to guess: what no conversion names becomes `failed`, with its text.

use std::fmt::Display;

use crate::Failure;

impl Failure {
    /// An argument is malformed or out of range.
    #[must_use]
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidArgument(text.into())
    }

    /// The host's state forbids it.
    #[must_use]
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::Conflict(text.into())
    }

    /// What was named is not there.
    #[must_use]
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::NotFound(text.into())
    }

    /// The part of the host that is needed does not answer.
    #[must_use]
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable(text.into())
    }

    /// It was tried and did not work.
    #[must_use]
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// The text for people, without the case.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Denied(denial) => &denial.message,
            Self::InvalidArgument(text)
            | Self::Conflict(text)
            | Self::NotFound(text)
            | Self::Unavailable(text)
            | Self::Failed(text)
            | Self::Other(text) => text,
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self::Failed(text.to_owned())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Any error with a text, as a failure with a word about the step.
pub trait OrFailure<T> {
    /// # Errors
    /// `failed`: "`step`: the error's text".
    fn or_failed(self, step: &str) -> crate::Result<T>;
    /// # Errors
    /// `invalid-argument`: "`argument`: the error's text".
    fn or_invalid(self, argument: &str) -> crate::Result<T>;
}

impl<T, E: Display> OrFailure<T> for Result<T, E> {
    fn or_failed(self, step: &str) -> crate::Result<T> {
        self.map_err(|e| Failure::Failed(format!("{step}: {e}")))
    }

    fn or_invalid(self, argument: &str) -> crate::Result<T> {
        self.map_err(|e| Failure::InvalidArgument(format!("{argument}: {e}")))
    }
}

/// Something that should have been there.
pub trait OrNotFound<T> {
    /// # Errors
    /// `not-found` with the text.
    fn or_not_found(self, text: impl FnOnce() -> String) -> crate::Result<T>;
}

impl<T> OrNotFound<T> for Option<T> {
    fn or_not_found(self, text: impl FnOnce() -> String) -> crate::Result<T> {
        self.ok_or_else(|| Failure::NotFound(text()))
    }
}

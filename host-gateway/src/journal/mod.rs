//! The journal: what this gateway was ordered to do, what it did, and what it still owes
//! the backend. SQLite in WAL mode with `synchronous=FULL`, written by one OS thread that
//! commits everything that waits in one transaction. Reads of verbs never come here.

use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::Report;

use crate::effects::{Effect, Inverse};

/// A handle on the journal's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {}

#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    #[error("the journal has stopped")]
    Stopped,
    #[error("the journal could not be written: {0}")]
    Write(String),
}

/// What the journal knows of an invocation that is ordered.
#[derive(Debug)]
pub enum Admission {
    /// Now journaled: run it.
    Fresh,
    /// It runs already, or waits.
    Running,
    /// It ended: deliver this report again, run nothing.
    Ended(Box<Report>),
}

impl Journal {
    /// Enter an invocation, durably, unless it is known.
    ///
    /// # Errors
    /// When it can't be made durable: then it must not run.
    pub async fn admit(&self, _invocation: &InvocationId, _forget_after_ms: u64) -> Result<Admission, JournalError> {
        Err(JournalError::Stopped)
    }

    /// Make the intent of the `seq`th effect durable.
    ///
    /// # Errors
    /// When it can't be made durable: then the effect must not happen.
    pub async fn intent(&self, _invocation: &InvocationId, _seq: u32, _effect: &Effect) -> Result<(), JournalError> {
        Err(JournalError::Stopped)
    }

    /// Make the result of an effect durable: its inverse, or `None` if it failed.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub async fn effect_result(
        &self,
        _invocation: &InvocationId,
        _seq: u32,
        _inverse: Option<&Inverse>,
    ) -> Result<(), JournalError> {
        Err(JournalError::Stopped)
    }

    /// End an invocation and put its report into the outbox, in one transaction.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub async fn finish(&self, _invocation: &InvocationId, _report: &Report) -> Result<(), JournalError> {
        Err(JournalError::Stopped)
    }
}

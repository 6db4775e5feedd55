//! The journal's part in taking effects back: an inverse is intended, durably, before it
//! is applied. Refuses to change what was not applied.

use rusqlite::params;
use viworks_protocol::id::InvocationId;

use super::store::Store;
use super::{Journal, JournalError};
use crate::effects::Inverse;

impl Journal {
    /// Note the result of an effect, as [`Journal::effect_result`] does, and don't wait for
    /// it: what the caller journals next is committed after it.
    ///
    /// # Errors
    /// When the journal has stopped.
    pub async fn effect_noted(
        &self,
        invocation: &InvocationId,
        seq: u32,
        inverse: Option<&Inverse>,
    ) -> Result<(), JournalError> {
        let json = inverse.map(serde_json::to_string).transpose().map_err(|e| JournalError::Write(e.to_string()))?;
        let invocation = invocation.clone();
        self.enter(move |store| store.effect_result(&invocation, seq, json.as_deref())).await
    }

    /// Make it durable that an effect is about to be taken back.
    ///
    /// # Errors
    /// When it can't be made durable: then it must not be taken back.
    pub async fn returning(&self, invocation: &InvocationId, seq: u32) -> Result<(), JournalError> {
        let invocation = invocation.clone();
        self.run(move |store| store.returned(&invocation, seq, RETURNING)).await
    }

    /// Note what became of that, and don't wait for it: the host shows it too.
    ///
    /// # Errors
    /// When the journal has stopped.
    pub async fn returned(&self, invocation: &InvocationId, seq: u32, done: bool) -> Result<(), JournalError> {
        let invocation = invocation.clone();
        self.enter(move |store| store.returned(&invocation, seq, if done { ROLLED_BACK } else { STUCK })).await
    }
}

/// States of an effect beyond those of its result; see `StepState::of_code`.
const ROLLED_BACK: u8 = 3;
const STUCK: u8 = 4;
const RETURNING: u8 = 5;

impl Store {
    fn returned(&self, invocation: &InvocationId, seq: u32, state: u8) -> rusqlite::Result<()> {
        // Not from `failed` (2) or `rolled back` (3): nothing of it is there.
        let changed = self
            .db
            .prepare_cached("UPDATE effect SET state = ?3 WHERE invocation = ?1 AND seq = ?2 AND state NOT IN (2, 3)")?
            .execute(params![invocation.as_str(), seq, state])?;
        if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
    }
}

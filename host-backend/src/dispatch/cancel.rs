//! Cancelling: what no agent has is cancelled at once; what one has, it is told to stop,
//! and its result says what came of that.

use viworks_protocol::id::CommandId;

use super::{Engine, cancel_frame};
use crate::metrics::{Kind, Word};
use crate::store::StoreError;
use crate::store::model::{AuditEntry, Command, Decision};

impl Engine {
    /// The command as it is then; `None` when there is none. One that has ended stays as
    /// it is.
    ///
    /// # Errors
    /// When the store refuses; it can be asked again.
    pub async fn cancel(&self, command: &CommandId, by: &str) -> Result<Option<Command>, StoreError> {
        let audit = AuditEntry {
            at_ms: self.now_ms(),
            actor: by.to_owned(),
            action: "command.cancel".to_owned(),
            subject: command.to_string(),
            decision: Decision::Allowed,
            detail: String::new(),
        };
        let before = self.store().command(command).await?;
        let Some(before) = before else { return Ok(None) };
        if before.finished_ms.is_some() {
            return Ok(Some(before));
        }
        let Some(cancelled) = self.store().cancel(command.clone(), self.now_ms(), audit).await? else {
            return Ok(None);
        };
        for (agent, invocation) in &cancelled.in_flight {
            // Who is away is told when back.
            let _ = self.inner.parts.hub.send(agent, cancel_frame(invocation));
        }
        if cancelled.settled > 0 {
            let outcomes = &self.inner.parts.metrics.outcomes;
            outcomes.get_or_create(&Kind { kind: Word("cancelled") }).inc_by(u64::from(cancelled.settled));
        }
        // Told just now; what waits goes nowhere.
        drop(self.flights().cancel(command));
        self.changed(vec![cancelled.command.clone()]);
        Ok(Some(cancelled.command))
    }
}

//! Operators approve a command that awaits it; with the last approval that was needed it
//! is delivered, to all that are connected in one commit.

use viworks_protocol::id::CommandId;

use super::Engine;
use crate::cluster::Event;
use crate::store::StoreError;
use crate::store::model::{Approved, AuditEntry, Decision};
use crate::store::write::Approval;

impl Engine {
    /// Count an approval whose signature was verified. `None`: there is no such command.
    ///
    /// # Errors
    /// When the store refuses; it can be asked again.
    pub async fn approve(&self, command: &CommandId, approved: Approved) -> Result<Option<Approval>, StoreError> {
        let audit = AuditEntry {
            at_ms: approved.at_ms,
            actor: approved.operator.clone(),
            action: "command.approve".to_owned(),
            subject: command.to_string(),
            decision: Decision::Allowed,
            detail: format!("with the key {}", approved.key),
        };
        let done = self.store().approve(command.clone(), approved, audit).await?;
        if let Some(Approval::Counted(command)) = &done
            && !command.is_awaiting()
        {
            self.release_approved(&command.id);
            self.inner.parts.cluster.publish(Event::Work { command: command.id.clone(), agents: Vec::new() });
        }
        Ok(done)
    }
}

//! The one dispatcher of effects of one invocation: intent journaled (fsync) → applied →
//! result journaled. Refuses effects of verbs that were released as `read`.

use std::sync::Arc;

use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::{EffectReport, EffectState};
use viworks_signing::release::EffectClass;

use super::Effect;
use crate::failure::Failure;
use crate::host::Host;
use crate::journal::Journal;

#[derive(Debug)]
pub struct Recorder {
    invocation: InvocationId,
    class: EffectClass,
    journal: Journal,
    host: Arc<Host>,
    reports: Vec<EffectReport>,
}

/// An invocation with more effects than this is stopped.
pub(super) const MAX_EFFECTS: usize = 1_000;

impl Recorder {
    #[must_use]
    pub fn new(invocation: InvocationId, class: EffectClass, journal: Journal, host: Arc<Host>) -> Self {
        Self { invocation, class, journal, host, reports: Vec::new() }
    }

    /// Let one effect happen and give its answer.
    ///
    /// # Errors
    /// `denied` for a read verb, `unavailable` if the journal can't be written (nothing
    /// happened then), or the capability's own failure.
    pub async fn perform(&mut self, effect: Effect) -> Result<serde_json::Value, Failure> {
        if self.class == EffectClass::Read {
            return Err(Failure::Denied {
                capability: effect.kind().split('.').next().unwrap_or_default().to_owned(),
                rule: "release: verb effect is read".into(),
                message: format!("a verb that was released as read tried to {}", effect.summary()),
            });
        }
        if self.reports.len() >= MAX_EFFECTS {
            return Err(Failure::Failed(format!("more than {MAX_EFFECTS} effects in one invocation")));
        }
        let seq = u32::try_from(self.reports.len()).unwrap_or(u32::MAX);
        self.journal.intent(&self.invocation, seq, &effect).await.map_err(|e| Failure::Unavailable(e.to_string()))?;
        // From here until the result is journaled, a crash leaves the effect `unknown`.
        self.reports.push(EffectReport {
            kind: effect.kind().to_owned(),
            summary: effect.summary(),
            state: EffectState::Unknown,
            diff: Vec::new(),
            irreversible: false,
        });
        let applied = effect.apply(&self.host).await;
        self.reports[seq as usize].state = if applied.is_ok() { EffectState::Applied } else { EffectState::Failed };
        let inverse = applied.as_ref().ok().map(|a| &a.inverse);
        self.journal
            .effect_result(&self.invocation, seq, inverse)
            .await
            .map_err(|e| Failure::Unavailable(e.to_string()))?;
        applied.map(|a| a.answer)
    }

    /// What happened so far, for the report.
    #[must_use]
    pub fn reports(&self) -> &[EffectReport] {
        &self.reports
    }
}

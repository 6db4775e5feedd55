//! After a crash: what was admitted and never finished is brought to an end by the journal
//! and the host together. What happened is taken back; where the host does not show whether
//! it happened, the report says `unknown`. Nothing is run again.

use std::sync::Arc;

use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::{EffectReport, EffectState, Outcome, Report};

use super::store::Store;
use super::{Journal, JournalError, Recovered};
use crate::effects::rollback::{self, settle};
use crate::effects::{Step, StepState};
use crate::host::Host;

/// An invocation that has no report.
#[derive(Debug)]
struct Unfinished {
    invocation: InvocationId,
    steps: Vec<Step>,
    /// Effects of another version of this gateway, which nobody here can judge.
    unread: Vec<EffectReport>,
}

impl Journal {
    /// Whether an earlier run of this gateway left something unfinished.
    ///
    /// # Errors
    /// When the journal can't be read.
    pub async fn has_unfinished(&self) -> Result<bool, JournalError> {
        self.run(|store| Ok(store.unfinished()?.is_some())).await
    }

    /// Settle what an earlier run of this gateway left unfinished. Call it once, before
    /// the first [`Journal::admit`], and when no program of that run is left. A run that is
    /// killed in the middle of it goes on where it stopped.
    ///
    /// # Errors
    /// When it can't be made durable.
    pub async fn recover(&self, host: &Arc<Host>, now_ms: u64) -> Result<Recovered, JournalError> {
        let mut recovered = Recovered::default();
        while let Some(Unfinished { invocation, steps, unread }) = self.run(next).await? {
            let steps = settle(self, host, &invocation, steps, rollback::WITHIN).await;
            let report = report(&steps, unread, now_ms);
            if report.outcome == Outcome::Unknown {
                recovered.unknown += 1;
            } else {
                recovered.interrupted += 1;
            }
            self.finish(&invocation, &report).await?;
        }
        Ok(recovered)
    }
}

fn next(store: &Store) -> rusqlite::Result<Option<Unfinished>> {
    let Some(id) = store.unfinished()? else { return Ok(None) };
    let invocation = id.parse().map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    let (mut steps, mut unread) = (Vec::new(), Vec::new());
    for (seq, kind, summary, json, state) in store.effects(&id)? {
        match serde_json::from_str(&json) {
            Ok(effect) => steps.push(Step { seq, effect, state: StepState::of_code(state) }),
            Err(_) => unread.push(EffectReport {
                kind,
                summary,
                state: StepState::of_code(state).report(),
                diff: Vec::new(),
                irreversible: false,
            }),
        }
    }
    Ok(Some(Unfinished { invocation, steps, unread }))
}

/// What can be said truthfully.
fn report(steps: &[Step], unread: Vec<EffectReport>, now_ms: u64) -> Report {
    let unjudged = unread.iter().any(|effect| effect.state != EffectState::Failed);
    let effects: Vec<EffectReport> = steps.iter().map(Step::report).chain(unread).collect();
    let is = |state: EffectState| effects.iter().any(|effect| effect.state == state);
    let (outcome, message) = if unjudged || is(EffectState::Unknown) {
        (Outcome::Unknown, "the gateway stopped while the verb ran, and the host does not show all that happened")
    } else if is(EffectState::Applied) || is(EffectState::Stuck) {
        (Outcome::Failed, "the gateway stopped while the verb ran; not everything could be taken back")
    } else if is(EffectState::RolledBack) {
        (Outcome::Failed, "the gateway stopped while the verb ran; what it had done was taken back")
    } else {
        (Outcome::Failed, "the gateway stopped before anything was changed")
    };
    let mut report = Report::refused(outcome, "interrupted", message, now_ms);
    report.effects = effects;
    report
}

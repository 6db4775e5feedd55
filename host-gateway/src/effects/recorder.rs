//! The one dispatcher of effects of one invocation: class → turn → foreseen → bound to its
//! plan → intent journaled (fsync) → applied → result journaled. In a plan it ends after
//! foreseen, and the effect is recorded. Refuses effects of verbs that were released as
//! `read`, irreversible ones of verbs that were released as `change`, and every effect that
//! a binding plan does not have next.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use viworks_protocol::id::{CommandId, InvocationId};
use viworks_protocol::outcome::{EffectReport, EffectState};
use viworks_signing::release::EffectClass;

use super::plan::{PlanSubject, digest};
use super::rollback::{self, settle};
use super::{Effect, Foreseen, Step, StepState, Unapplied};
use crate::broker::wire::Behalf;
use crate::executor::Timings;
use crate::failure::Failure;
use crate::host::Host;
use crate::journal::{Journal, JournalError};
use crate::receipts::Uses;
use crate::recording::TapeHandle;

#[derive(Debug)]
pub struct Recorder {
    invocation: InvocationId,
    class: EffectClass,
    journal: Journal,
    host: Arc<Host>,
    planning: Option<Planning>,
    /// Until this has ended, nothing happens.
    ahead: Option<Ahead>,
    /// The effects that may happen, in order.
    bound: Option<Vec<EffectReport>>,
    departed: Option<String>,
    /// What an undo will name, and until when it may (Unix ms).
    kept_as: Option<(CommandId, u64)>,
    steps: Vec<Step>,
    /// In a plan: what would have happened so far.
    planned: Vec<Effect>,
    /// The effect that is being applied: it ends in a task of its own, whoever waits.
    applying: Option<JoinHandle<Result<Value, Unapplied>>>,
    uses: Uses,
    tape: Option<TapeHandle>,
    timings: Timings,
}

/// Why nothing happens.
#[derive(Debug)]
enum Planning {
    /// It was asked for: an apply may be bound to it.
    Asked(PlanSubject),
    /// Beside the invocation of another release.
    Shadow(Untold),
}

/// Of a shadow: the first planned effect whose answer only doing it could tell.
pub(crate) type Untold = Arc<OnceLock<usize>>;

/// A shadow that looks at the host as it is before the first effect, until a time.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) ended: CancellationToken,
    pub(crate) until: Instant,
}

impl Ahead {
    /// It has ended, or its time is over.
    pub(crate) async fn over(&self) {
        // Late is late: nobody waits longer for a comparison.
        let _ = timeout_at(self.until, self.ended.cancelled()).await;
    }
}

/// An invocation with more effects than this is stopped.
pub(super) const MAX_EFFECTS: usize = 1_000;

/// How long the end of an invocation waits for an effect that is being applied.
const SETTLE: Duration = Duration::from_secs(10);

impl Recorder {
    /// Effects happen, and nothing binds them.
    #[must_use]
    pub fn new(invocation: InvocationId, class: EffectClass, journal: Journal, host: Arc<Host>) -> Self {
        Self {
            invocation,
            class,
            journal,
            host,
            planning: None,
            ahead: None,
            bound: None,
            departed: None,
            kept_as: None,
            steps: Vec::new(),
            planned: Vec::new(),
            applying: None,
            uses: Uses::default(),
            tape: None,
            timings: Timings::default(),
        }
    }

    /// Of a shadow: effects are recorded, the host stays as it is, and no apply can be bound
    /// to that. It has no journal: an effect that has no intent never happens, so that even a
    /// defect here could not let one.
    #[must_use]
    pub(crate) fn shadow(invocation: InvocationId, class: EffectClass, host: Arc<Host>, untold: Untold) -> Self {
        let recorder = Self::new(invocation, class, Journal::unusable(JournalError::Stopped), host);
        Self { planning: Some(Planning::Shadow(untold)), ..recorder }
    }

    /// Let nothing happen while a shadow looks at the host, within its time.
    #[must_use]
    pub(crate) fn after(self, ahead: Ahead) -> Self {
        Self { ahead: Some(ahead), ..self }
    }

    /// What it was granted and refused is noted here.
    #[must_use]
    pub fn noting(self, uses: Uses) -> Self {
        Self { uses, ..self }
    }

    /// How long its steps take is told here.
    #[must_use]
    pub fn timed(self, timings: Timings) -> Self {
        Self { timings, ..self }
    }

    pub(crate) fn timings(&self) -> &Timings {
        &self.timings
    }

    /// Host calls are recorded on, or answered from, this.
    #[must_use]
    pub fn with_tape(self, tape: TapeHandle) -> Self {
        Self { tape: Some(tape), ..self }
    }

    pub(crate) fn tape(&self) -> Option<&TapeHandle> {
        self.tape.as_ref()
    }

    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Effects are recorded, and the host stays as it is.
    #[must_use]
    pub fn planning(self, subject: PlanSubject) -> Self {
        Self { planning: Some(Planning::Asked(subject)), ..self }
    }

    /// Only these effects may happen, in this order.
    #[must_use]
    pub fn bound_to(self, plan: Vec<EffectReport>) -> Self {
        Self { bound: Some(plan), ..self }
    }

    /// What happens can be undone under this name until then (Unix ms).
    #[must_use]
    pub fn undoable(self, command: CommandId, until_ms: u64) -> Self {
        Self { kept_as: Some((command, until_ms)), ..self }
    }

    #[must_use]
    pub fn is_plan(&self) -> bool {
        self.planning.is_some()
    }

    /// What reads of this invocation have to be told beyond what the host says.
    pub(crate) fn planned(&self) -> &[Effect] {
        &self.planned
    }

    /// Why this invocation must end: its next effect was not the plan's.
    #[must_use]
    pub fn departed(&self) -> Option<&str> {
        self.departed.as_deref()
    }

    /// Let one effect happen and give its answer, or plan it and give a plausible one.
    ///
    /// # Errors
    /// `denied` by the verb's class, `unavailable` if the journal can't be written (nothing
    /// happened then), or the capability's own failure.
    pub async fn perform(&mut self, effect: Effect) -> Result<Value, Failure> {
        if self.class == EffectClass::Read {
            return Err(denied(&effect, "read"));
        }
        if self.steps.len() + self.planned.len() >= MAX_EFFECTS {
            return Err(Failure::Failed(format!("more than {MAX_EFFECTS} effects in one invocation")));
        }
        if self.departed.is_some() {
            return Err(Failure::Failed("the invocation departed from its plan".into()));
        }
        if let Some(planning) = &self.planning {
            let Foreseen { effect, answer } = effect.foresee(&self.host, &self.planned).await?;
            if let (Planning::Shadow(untold), Err(_)) = (planning, &answer) {
                // A second one is after the first.
                let _ = untold.set(self.planned.len());
            }
            self.allow(&effect)?;
            self.planned.push(effect);
            return answer;
        }
        if let Some(ahead) = self.ahead.take() {
            ahead.over().await;
        }
        let turn = effect.turn(&self.host).await;
        let Foreseen { effect, .. } = effect.foresee(&self.host, &[]).await?;
        self.allow(&effect)?;
        let seq = number(self.steps.len());
        let began = self.timings.start();
        let journaled = self.journal.intent(&self.invocation, seq, &effect).await;
        self.timings.end("journal.intent", began, journaled.is_err());
        journaled.map_err(|e| Failure::Unavailable(e.to_string()))?;
        // From here until the result is journaled, a crash leaves the effect to be traced.
        self.steps.push(Step { seq, effect: effect.clone(), state: StepState::Intended });
        let host = Arc::clone(&self.host);
        let behalf = Behalf { invocation: self.invocation.clone(), seq, back: false };
        let applying = self.applying.insert(tokio::spawn(async move {
            let (_turn, _change) = (turn, host.changes.one());
            effect.apply(&host, behalf).await
        }));
        let applied = applying.await;
        self.applying = None;
        let applied = match applied.map_err(|e| Failure::Failed(format!("the effect ended early: {e}")))? {
            Ok(answer) => Ok(answer),
            Err(Unapplied::Failed(failure)) => Err(failure),
            // Not journaled: it stays an intent, and the host will be asked.
            Err(Unapplied::Lost(why)) => return Err(Failure::Unavailable(why)),
        };
        self.note(applied.is_ok()).await?;
        applied
    }

    /// What the verb's class and the plan say of a foreseen effect.
    fn allow(&mut self, effect: &Effect) -> Result<(), Failure> {
        if self.class == EffectClass::Change && effect.inverse().is_irreversible() {
            return Err(denied(effect, "change"));
        }
        let Some(plan) = &self.bound else { return Ok(()) };
        // Failed ones did not happen, but they were tried in the plan's order too.
        let expected = plan.get(self.steps.len());
        if expected == Some(&planned(effect)) {
            return Ok(());
        }
        let wanted = expected.map_or_else(|| "no more effects".to_owned(), |e| e.summary.clone());
        let departed = format!("the plan has {wanted} next, the verb wanted to {}", effect.summary());
        tracing::warn!(target: "audit", invocation = %self.invocation, %departed, "departed from its plan");
        self.departed = Some(departed.clone());
        Err(Failure::Failed(departed))
    }

    /// Journal the result of the last step. Queued only: what follows is committed after it,
    /// and a crash before that leaves a trace on the host.
    async fn note(&mut self, applied: bool) -> Result<(), Failure> {
        let Some(step) = self.steps.last_mut() else { return Ok(()) };
        step.state = if applied { StepState::Applied } else { StepState::Failed };
        let inverse = applied.then(|| step.effect.inverse());
        let noted = self.journal.effect_noted(&self.invocation, step.seq, inverse.as_ref()).await;
        noted.map_err(|e| Failure::Unavailable(e.to_string()))
    }

    /// The verb has ended. A plan gets its digest; what a failed verb did is taken back, in
    /// reverse order; what can be undone later is kept for that. Ends in bounded time.
    pub async fn end(&mut self, succeeded: bool) -> Option<String> {
        if let Some(planning) = &self.planning {
            let effects = self.reports();
            let digest = digest(&effects);
            // Reads have nothing to bind, and never touch the disk.
            if let (Planning::Asked(subject), true) = (planning, self.class != EffectClass::Read) {
                self.journal.keep_plan(&digest, subject, &effects).await;
            }
            return Some(digest);
        }
        self.settle_last().await;
        if !succeeded && self.steps.iter().any(|s| s.state != StepState::Failed) {
            let steps = std::mem::take(&mut self.steps);
            self.steps = settle(&self.journal, &self.host, &self.invocation, steps, rollback::WITHIN).await;
        }
        if let Some((command, until_ms)) = self.kept_as.take() {
            let left = self.steps.iter().filter(|s| matches!(s.state, StepState::Applied | StepState::Stuck));
            let effects: Vec<&Effect> = left.map(|s| &s.effect).collect();
            self.journal.keep_undo(&command, &effects, until_ms).await;
        }
        None
    }

    /// Wait for the effect that a timeout or cancel left behind. A script is ended.
    async fn settle_last(&mut self) {
        let Some(mut applying) = self.applying.take() else { return };
        let is_script = self.steps.last().is_some_and(|s| matches!(s.effect, Effect::Scripts(_)));
        let wait = if is_script { Duration::ZERO } else { SETTLE };
        match timeout(wait, &mut applying).await {
            Ok(Ok(Err(Unapplied::Lost(_)))) => {}
            Ok(Ok(applied)) => {
                // What is not journaled is traced at the next start.
                let _ = self.note(applied.is_ok()).await;
            }
            Ok(Err(_)) => {}
            Err(_) => applying.abort(),
        }
    }

    /// Take everything back within this time.
    #[cfg(test)]
    pub(crate) async fn settled_within(&mut self, within: Duration) -> Vec<EffectState> {
        let steps = std::mem::take(&mut self.steps);
        self.steps = settle(&self.journal, &self.host, &self.invocation, steps, within).await;
        self.steps.iter().map(|step| step.state.report()).collect()
    }

    /// Whether something may have happened that nobody can tell.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.steps.iter().any(|s| s.state.report() == EffectState::Unknown)
    }

    /// How many effects there were so far, planned ones too.
    pub(crate) fn made(&self) -> usize {
        self.steps.len() + self.planned.len()
    }

    /// What happened so far, for the report.
    #[must_use]
    pub fn reports(&self) -> Vec<EffectReport> {
        if self.planning.is_some() {
            return self.planned.iter().map(planned).collect();
        }
        self.steps.iter().map(Step::report).collect()
    }
}

/// An effect as a plan lists it, and as a plan binds it.
fn planned(effect: &Effect) -> EffectReport {
    Step { seq: 0, effect: effect.clone(), state: StepState::Planned }.report()
}

fn number(seq: usize) -> u32 {
    u32::try_from(seq).unwrap_or(u32::MAX)
}

fn denied(effect: &Effect, class: &str) -> Failure {
    Failure::Denied {
        capability: effect.capability().to_owned(),
        rule: format!("release: verb effect is {class}"),
        message: format!("a verb that was released as {class} tried to {}", effect.summary()),
    }
}

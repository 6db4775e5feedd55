//! Taking back what a verb did that then failed, or that a gateway did that then died:
//! inverses in reverse order, each journaled before and after, within a time of its own.
//! Refuses to guess: what it can't decide is `unknown`, what it can't undo is `stuck`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use viworks_protocol::id::InvocationId;

use super::{Effect, Inverse, Step, StepState, Trace, Unapplied};
use crate::broker::wire::Behalf;
use crate::failure::Failure;
use crate::host::Host;
use crate::journal::Journal;

/// How long taking back the effects of one invocation may take.
pub const WITHIN: Duration = Duration::from_secs(60);

/// An inverse that has begun is waited for so long, though the time is over: a thousand of
/// them on a slow disk use it up, and the one under way must not become `unknown` for that.
const ENDING: Duration = Duration::from_secs(10);

/// Bring every step to an end: effects that happened are taken back, the last first. Where
/// only an intent is known, the host is asked. Calling it again after it was interrupted
/// goes on where it stopped.
pub async fn settle(
    journal: &Journal,
    host: &Arc<Host>,
    invocation: &InvocationId,
    mut steps: Vec<Step>,
    within: Duration,
) -> Vec<Step> {
    let deadline = Instant::now() + within;
    for step in steps.iter_mut().rev() {
        let inverse = match step.state {
            StepState::Applied => step.effect.inverse(),
            StepState::Intended | StepState::Returning => match trace(step, host, deadline).await {
                Ok(inverse) => inverse,
                Err(state) => {
                    step.state = state;
                    continue;
                }
            },
            _ => continue,
        };
        let Inverse::Effect(inverse) = inverse else {
            step.state = StepState::Applied;
            continue;
        };
        step.state = take_back(journal, host, invocation, step.seq, *inverse, deadline).await;
        if step.state == StepState::Returning {
            // Its broker was lost in the middle: the host is asked, and it is tried once more.
            step.state = match trace(step, host, deadline).await {
                Err(state) => state,
                Ok(Inverse::Irreversible) => StepState::Applied,
                Ok(Inverse::Effect(inverse)) => {
                    match take_back(journal, host, invocation, step.seq, *inverse, deadline).await {
                        StepState::Returning => StepState::Unknown,
                        ended => ended,
                    }
                }
            };
        }
        tracing::warn!(
            target: "audit", %invocation, effect = %step.effect.summary(), state = ?step.state, "rolled back"
        );
    }
    steps
}

/// What takes back a step whose result is not known; or the state where nothing has to.
async fn trace(step: &Step, host: &Host, deadline: Instant) -> Result<Inverse, StepState> {
    let found = timeout_at(deadline, async {
        let _turn = step.effect.turn(host).await;
        step.effect.trace(host).await
    });
    match found.await {
        Ok(Ok(Trace::Present(inverse))) => Ok(inverse),
        Ok(Ok(Trace::Absent)) if step.state == StepState::Returning => Err(StepState::RolledBack),
        Ok(Ok(Trace::Absent)) => Err(StepState::Failed),
        Ok(Ok(Trace::Unclear) | Err(_)) | Err(_) => Err(StepState::Unknown),
    }
}

/// One inverse through the dispatcher: its turn → foreseen → journaled → applied → journaled.
async fn take_back(
    journal: &Journal,
    host: &Arc<Host>,
    invocation: &InvocationId,
    seq: u32,
    inverse: Effect,
    deadline: Instant,
) -> StepState {
    let summary = inverse.summary();
    let stuck = |why: &dyn std::fmt::Display| {
        tracing::error!(%invocation, %why, "could not {summary} to take an effect back");
        StepState::Stuck
    };
    let begun = timeout_at(deadline, async {
        let turn = inverse.turn(host).await;
        let foreseen = inverse.foresee(host, &[]).await?;
        journal.returning(invocation, seq).await.map_err(|e| Failure::Unavailable(e.to_string()))?;
        Ok::<_, Failure>((turn, foreseen.effect))
    });
    let (turn, effect) = match begun.await {
        Ok(Ok(begun)) => begun,
        Ok(Err(failure)) => return stuck(&failure),
        Err(_) => return stuck(&"there was no time left"),
    };
    let host = Arc::clone(host);
    let behalf = Behalf { invocation: invocation.clone(), seq, back: true };
    let applying = tokio::spawn(async move {
        let (_turn, _change) = (turn, host.changes.one());
        effect.apply(&host, behalf).await
    });
    let state = match timeout_at(deadline.max(Instant::now() + ENDING), applying).await {
        Ok(Ok(Ok(_))) => StepState::RolledBack,
        Ok(Ok(Err(Unapplied::Failed(failure)))) => stuck(&failure),
        Ok(Ok(Err(Unapplied::Lost(_)))) => return StepState::Returning,
        // It goes on, and nobody waits for it any more.
        Ok(Err(_)) | Err(_) => return StepState::Unknown,
    };
    if let Err(error) = journal.returned(invocation, seq, state == StepState::RolledBack).await {
        tracing::error!(%invocation, %error, "what became of an effect was not journaled");
    }
    state
}

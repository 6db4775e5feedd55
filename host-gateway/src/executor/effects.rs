//! What a warrant says of its effects beside the verb: that they are to be planned only,
//! which plan binds them, or that a finished command's are to be undone. Refuses a bound
//! order whose plan was not made here, and an undo of what is not known here any more.

use std::sync::Arc;
use std::time::Instant;

use viworks_protocol::id::CommandId;
use viworks_protocol::outcome::{Cost, Failure, LogLine, Outcome, Report};
use viworks_protocol::warrant::{Mode, VerifiedWarrant};
use viworks_signing::grant::Grant;
use viworks_signing::release::EffectClass;

use super::serve::Target;
use super::{Inner, Live};
use crate::effects::undo::Undoing;
use crate::effects::{PlanSubject, Recorder};
use crate::failure;
use crate::runtime::unix_ms;

impl Inner {
    /// The dispatcher of an order's effects.
    pub(super) async fn recorder(&self, warrant: &VerifiedWarrant, target: &Target) -> Result<Recorder, Box<Report>> {
        let (order, invocation) = (warrant.warrant(), warrant.invocation());
        let subject = PlanSubject {
            plugin: order.plugin.clone(),
            verb: order.verb.clone(),
            args_sha256: order.args_sha256.clone(),
            undo: order.undo.clone(),
        };
        let recorder = Recorder::new(invocation.clone(), target.class, self.journal.clone(), Arc::clone(&self.host));
        if order.mode == Mode::Plan {
            return Ok(recorder.planning(subject));
        }
        // Reads have nothing to bind or undo, and never touch the disk.
        if target.class == EffectClass::Read {
            return Ok(recorder);
        }
        let until_ms = self.clock.now_ms().saturating_add(u64::from(self.config.undo_hours) * 3_600_000);
        let recorder = recorder.undoable(order.command.clone(), until_ms);
        if order.plans.is_empty() {
            return Ok(recorder);
        }
        match self.journal.plan_among(&order.plans, &subject).await {
            Ok(Some(plan)) => Ok(recorder.bound_to(plan)),
            Ok(None) => {
                let message = "none of the plans that bind this order was made here within the last 24 hours";
                Err(Box::new(Report::refused(Outcome::Failed, "plan-unknown", message, unix_ms())))
            }
            Err(error) => {
                let message = format!("the plan that binds this order can't be read: {error}");
                Err(Box::new(Report::refused(Outcome::Failed, "unavailable", message, unix_ms())))
            }
        }
    }

    /// Take back what `command` did here; in a plan, say what that would be.
    pub(super) async fn undo(
        &self,
        command: &CommandId,
        warrant: &VerifiedWarrant,
        target: &Target,
        mut recorder: Recorder,
        live: &Live,
    ) -> Report {
        let (started, started_ms) = (Instant::now(), unix_ms());
        let mut log = Vec::new();
        let deadline = started + target.timeout;
        let ended = match self.undoing(command, target.plugin.grant()).await {
            Err(failure) => Err((Outcome::Failed, failure)),
            Ok(undoing) => {
                let left =
                    |text: &String| LogLine { level: "warn".into(), message: format!("can't take back: {text}") };
                log.extend(undoing.irreversible.iter().map(left));
                tokio::select! {
                    biased;
                    ended = self.take_back(undoing, &mut recorder) => ended.map_err(told),
                    () = live.cancel.cancelled() => {
                        Err((Outcome::Cancelled, failed("cancelled", "cancelled while it ran")))
                    }
                    () = tokio::time::sleep_until(deadline.into()) => {
                        let text = format!("not done after {} s", target.timeout.as_secs());
                        Err((Outcome::Failed, failed("timeout", text)))
                    }
                }
            }
        };
        let ended = match recorder.departed() {
            Some(departed) => Err((Outcome::Failed, failed("plan-departed", departed))),
            None => ended,
        };
        let plan = recorder.end(ended.is_ok()).await;
        let (outcome, failure) = match ended {
            Ok(()) => (Outcome::Succeeded, None),
            Err((_, failure)) if recorder.is_unknown() => (Outcome::Unknown, Some(failure)),
            Err((outcome, failure)) => (outcome, Some(failure)),
        };
        tracing::info!(
            target: "audit", invocation = %warrant.invocation(), undone = %command, outcome = outcome.as_str(), "undo"
        );
        Report {
            outcome,
            result: None,
            failure,
            effects: recorder.reports(),
            plan,
            receipt: None,
            shadow: None,
            log,
            log_truncated: false,
            timings: Vec::new(),
            cost: Cost { wall_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), ..Cost::default() },
            started_ms,
            finished_ms: unix_ms(),
        }
    }

    /// What is to be taken back, if all of it is known and granted.
    async fn undoing(&self, command: &CommandId, grant: &Grant) -> Result<Undoing, Failure> {
        let effects = match self.journal.undoable(command, self.clock.now_ms()).await {
            Ok(Some(effects)) => effects,
            Ok(None) => {
                let hours = self.config.undo_hours;
                let text = format!(
                    "nothing is kept of {command} here: it did not change this host, is not finished, or ended more than \
                     {hours} hours ago"
                );
                return Err(failed("undo-unknown", text));
            }
            Err(error) => return Err(failed("unavailable", format!("what {command} did can't be read: {error}"))),
        };
        let undoing = Undoing::of(&effects);
        if let (true, Some(first)) = (undoing.inverses.is_empty(), undoing.irreversible.first()) {
            return Err(failed("irreversible", format!("nothing of it can be taken back: {first}")));
        }
        match undoing.inverses.iter().map(crate::effects::Effect::capability).find(|c| !granted(grant, c)) {
            None => Ok(undoing),
            Some(capability) => Err(Failure {
                code: "denied".into(),
                message: format!("taking it back needs {capability}, which is not granted any more"),
                rule: Some(format!("grant: {capability}")),
            }),
        }
    }

    /// Conflicts first: nothing happens where not all of it can.
    async fn take_back(&self, undoing: Undoing, recorder: &mut Recorder) -> Result<(), failure::Failure> {
        if !recorder.is_plan() {
            undoing.check(&self.host).await?;
        }
        undoing.perform(recorder).await
    }
}

fn granted(grant: &Grant, capability: &str) -> bool {
    match capability {
        "accounts" => grant.accounts.is_some(),
        "vpn" => grant.vpn.is_some(),
        "containers" => grant.containers.is_some(),
        "scripts" => grant.scripts.is_some(),
        "state" => grant.state.is_some(),
        _ => false,
    }
}

fn failed(code: &str, message: impl Into<String>) -> Failure {
    Failure { code: code.to_owned(), message: message.into(), rule: None }
}

fn told(failure: failure::Failure) -> (Outcome, Failure) {
    let outcome = match failure {
        failure::Failure::Denied { .. } => Outcome::Denied,
        _ => Outcome::Failed,
    };
    (outcome, failure.into())
}

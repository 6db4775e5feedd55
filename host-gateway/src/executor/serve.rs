//! One warrant from acceptance to report: known already? → journaled, if it may change the
//! host → its turn → the plugin → the report, kept before it is told.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::SemaphorePermit;
use viworks_protocol::id::InvocationId;
use viworks_protocol::outcome::{Outcome, Report};
use viworks_protocol::receipt::Receipt;
use viworks_protocol::trace::TraceContext;
use viworks_protocol::warrant::{Mode, VerifiedWarrant};
use viworks_signing::release::EffectClass;

use super::metrics::Gauge;
use super::shadow::Beside;
use super::{Event, Inner, Live, lock};
use crate::capabilities::{Facts, Progress};
use crate::journal::{Admission, REMEMBER_MS};
use crate::plugins::AdmittedPlugin;
use crate::receipts::{self, Used, Uses};
use crate::recording::Recordings;
use crate::runtime::{Invocation, unix_ms};

/// A read that takes longer is told to the backend as running.
const SLOW: Duration = Duration::from_millis(50);

/// Where the report of an invocation is kept until it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Journal,
    Memory,
}

/// The plugin that a warrant means, if it is the active one.
pub(super) struct Target {
    pub(super) plugin: Arc<AdmittedPlugin>,
    pub(super) class: EffectClass,
    pub(super) timeout: Duration,
}

pub(super) async fn run(executor: Arc<Inner>, warrant: VerifiedWarrant, live: Arc<Live>) {
    let invocation = warrant.invocation().clone();
    let served = AssertUnwindSafe(executor.serve(&warrant, &live)).catch_unwind().await;
    if served.is_err() {
        executor.metrics.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%invocation, verb = %warrant.warrant().verb, "a task of the gateway panicked");
        executor.panicked(&warrant, &live).await;
    }
    lock(&executor.live).remove(&invocation);
}

impl Inner {
    async fn serve(&self, warrant: &VerifiedWarrant, live: &Live) {
        let invocation = warrant.invocation();
        let known = lock(&self.reads).get(invocation);
        if let Some(report) = known {
            self.metrics.duplicates.fetch_add(1, Ordering::Relaxed);
            self.tell(invocation, report).await;
            return;
        }
        let target = self.target(warrant);
        let keep = self.keep(warrant, target.as_ref().ok());
        match keep {
            Keep::Journal => {
                let draft = self.draft(warrant, &target);
                let admitted = self.journal.admit_with(&draft, forget_after_ms(warrant));
                match self.timed("admission", live, admitted).await {
                    Ok(Admission::Fresh) => {}
                    Ok(Admission::Running) => {
                        self.metrics.duplicates.fetch_add(1, Ordering::Relaxed);
                        self.accepted(invocation).await;
                        return;
                    }
                    Ok(Admission::Ended(report)) => {
                        self.metrics.duplicates.fetch_add(1, Ordering::Relaxed);
                        self.tell(invocation, Arc::from(report)).await;
                        return;
                    }
                    Err(error) => {
                        let message = format!("it could not be journaled, so it did not run: {error}");
                        let report = Report::refused(Outcome::Failed, "unavailable", message, unix_ms());
                        self.end(warrant, live, Keep::Memory, report, &Used::default()).await;
                        return;
                    }
                }
            }
            Keep::Memory if !lock(&self.reads).has_room() => {
                // Not kept: the backend has it still, and may ask again.
                let message = "too many results wait for their acknowledgement";
                let report = Report::refused(Outcome::Failed, "busy", message, unix_ms());
                self.metrics.ended(&report);
                self.tell(invocation, Arc::new(report)).await;
                return;
            }
            Keep::Memory => {}
        }
        let uses = Uses::default();
        let turn = async {
            match target {
                Ok(target) => self.take_turn(warrant, &target, live, &uses).await,
                Err(report) => *report,
            }
        };
        let report = match keep {
            Keep::Journal => {
                self.accepted(invocation).await;
                turn.await
            }
            Keep::Memory => self.accepted_if_slow(invocation, turn).await,
        };
        self.end(warrant, live, keep, report, &uses.so_far()).await;
    }

    /// Its receipt, as far as that is known before it runs.
    fn draft(&self, warrant: &VerifiedWarrant, target: &Result<Target, Box<Report>>) -> Receipt {
        let digest = target.as_ref().map_or(warrant.warrant().digest.as_str(), |target| target.plugin.digest());
        receipts::draft(warrant, &self.config.agent, digest)
    }

    /// The active plugin that the warrant names, or the refusal.
    fn target(&self, warrant: &VerifiedWarrant) -> Result<Target, Box<Report>> {
        let order = warrant.warrant();
        let refuse = |code, message: String| Err(Box::new(Report::refused(Outcome::Failed, code, message, unix_ms())));
        // Taking back runs no code of the plugin: any of its releases says what is granted.
        let undo = order.undo.is_some();
        let wanted = |digest: &str| undo || order.digest == digest || order.also.iter().any(|also| also == digest);
        let Some(plugin) = self.registry.serving(&order.plugin, wanted) else {
            let Some(active) = self.registry.plugin(&order.plugin) else {
                return refuse("plugin", format!("no active plugin here has the verb {}", order.verb));
            };
            let (id, version) = (&active.release().plugin, &active.release().version);
            let message = format!("the warrant is for another release; {id} {version} is active here");
            return refuse("plugin", message);
        };
        if !undo && plugin.release().verbs.contains_key(&order.verb) && !plugin.allows(&order.verb) {
            let message = format!("the security review of the release does not let {} run", order.verb);
            return Err(Box::new(Report::refused(Outcome::Denied, "review", message, unix_ms())));
        }
        if let Some(demand) = plugin.demand(&order.verb).filter(|_| order.mode == Mode::Apply)
            && let Err(unapproved) = demand.met(order, plugin.digest())
        {
            let invocation = warrant.invocation();
            tracing::warn!(
                target: "audit",
                decision = "refused", rule = "approval", %invocation, verb = %order.verb, caller = %order.caller, %unapproved, "order"
            );
            let report = Report::refused(Outcome::Denied, "approval", unapproved.to_string(), unix_ms());
            return Err(Box::new(report));
        }
        if undo {
            let timeout = Duration::from_secs(order.timeout_secs.into()).min(self.config.timeout);
            return Ok(Target { class: EffectClass::Irreversible, timeout, plugin });
        }
        let Some(verb) = plugin.release().verbs.get(&order.verb) else {
            return refuse("plugin", format!("the release has no verb {}", order.verb));
        };
        let secs = Duration::from_secs(order.timeout_secs.min(verb.timeout_secs).into());
        Ok(Target { class: verb.effect, timeout: secs.min(self.config.timeout), plugin })
    }

    /// A read, and a plan, changes nothing, so that twice is once. Anything else is
    /// journaled, an unknown verb too: it may have run under an earlier release.
    fn keep(&self, warrant: &VerifiedWarrant, target: Option<&Target>) -> Keep {
        let harmless = warrant.warrant().mode == Mode::Plan || target.is_some_and(|t| t.class == EffectClass::Read);
        if harmless { Keep::Memory } else { Keep::Journal }
    }

    async fn take_turn(&self, warrant: &VerifiedWarrant, target: &Target, live: &Live, uses: &Uses) -> Report {
        let slot = match self.timed("queue", live, self.slot(warrant, live)).await {
            Ok(slot) => slot,
            Err(report) => return *report,
        };
        if self.clock.now_ms() >= warrant.warrant().expires_ms {
            return Report::refused(Outcome::Expired, "expired", "expired before it began", unix_ms());
        }
        let running = Gauge::up(&self.metrics.running);
        let mut report = self.timed("run", live, self.invoke(warrant, target, live, uses)).await;
        drop((running, slot));
        let stopped = report.outcome == Outcome::Cancelled && !live.asked.load(Ordering::Acquire);
        if let Some(failure) = report.failure.as_mut().filter(|_| stopped) {
            report.outcome = Outcome::Failed;
            let (code, message) = match target.plugin.is_stopped() {
                true => ("revoked", "the release was revoked while it ran"),
                false => ("interrupted", "the gateway stopped while it ran"),
            };
            (failure.code, failure.message) = (code.into(), message.into());
        }
        report
    }

    /// A slot, or why there is none.
    async fn slot(&self, warrant: &VerifiedWarrant, live: &Live) -> Result<SemaphorePermit<'_>, Box<Report>> {
        let refuse = |outcome, code, text: &str| Err(Box::new(Report::refused(outcome, code, text, unix_ms())));
        if live.cancel.is_cancelled() {
            return refuse(Outcome::Cancelled, "cancelled", "cancelled before it began");
        }
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let waiting = Gauge::up(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > self.config.queue {
            return refuse(Outcome::Failed, "busy", "the gateway's queue is full");
        }
        let queued = Gauge::up(&self.metrics.queued);
        let left = warrant.warrant().expires_ms.saturating_sub(self.clock.now_ms());
        let slot = tokio::select! {
            biased;
            () = live.cancel.cancelled() => refuse(Outcome::Cancelled, "cancelled", "cancelled before it began"),
            () = self.draining.cancelled() => {
                refuse(Outcome::Failed, "interrupted", "the gateway stopped before it began")
            }
            slot = self.slots.acquire() => match slot {
                Ok(slot) => Ok(slot),
                Err(_) => refuse(Outcome::Failed, "interrupted", "the gateway stopped before it began"),
            },
            () = tokio::time::sleep(Duration::from_millis(left)) => {
                refuse(Outcome::Expired, "expired", "expired before it began")
            }
        };
        drop((waiting, queued));
        slot
    }

    async fn invoke(&self, warrant: &VerifiedWarrant, target: &Target, live: &Live, uses: &Uses) -> Report {
        let (order, invocation) = (warrant.warrant(), warrant.invocation());
        let recorder = match self.recorder(warrant, target).await {
            Ok(recorder) => recorder.noting(uses.clone()).timed(live.timings.clone()),
            Err(report) => return *report,
        };
        if let Some(command) = &order.undo {
            return self.undo(command, warrant, target, recorder, live).await;
        }
        let plugin = &target.plugin;
        let facts = Facts {
            invocation: invocation.to_string(),
            command: order.command.to_string(),
            agent: self.config.agent.to_string(),
            caller: order.caller.clone(),
            verb: order.verb.clone(),
            plugin: order.plugin.clone(),
            deadline: Instant::now() + target.timeout,
        };
        let tape = self.recordings.get().map(Recordings::tape);
        let recorder = match &tape {
            Some(tape) => recorder.with_tape(tape.clone()),
            None => recorder,
        };
        let beside = self.beside(warrant, target, &facts, live);
        let recorder = match beside.as_ref().and_then(Beside::ahead) {
            Some(ahead) => recorder.after(ahead),
            None => recorder,
        };
        let invocation = Invocation {
            facts,
            grant: plugin.grant().clone(),
            host: self.host.clone(),
            recorder,
            limits: plugin.limits(),
            cancel: live.cancel.clone(),
            progress: Progress::to(invocation.clone(), self.events.clone()),
        };
        let run = plugin.prepared().invoke(&order.verb, warrant.args(), invocation);
        let mut report = plugin.while_lawful(&live.cancel, run).await;
        if let Some(beside) = beside {
            report.shadow = Some(Box::new(self.compared(beside, &report).await));
        }
        if let (Some(recordings), Some(tape)) = (self.recordings.get(), &tape) {
            recordings.keep(warrant, self.config.agent.as_str(), plugin, tape, &report);
        }
        report
    }

    /// Keep the report, then tell it.
    async fn end(&self, warrant: &VerifiedWarrant, live: &Live, keep: Keep, mut report: Report, used: &Used) {
        let (order, invocation) = (warrant.warrant(), warrant.invocation());
        self.metrics.ended(&report);
        let kept = match keep {
            Keep::Memory => false,
            Keep::Journal => {
                match self.timed("report", live, self.journal.finish_with(invocation, &report, used)).await {
                    Ok(receipt) => {
                        report.receipt = receipt;
                        true
                    }
                    Err(error) => {
                        tracing::error!(%invocation, %error, "the report could not be journaled; it is kept in memory");
                        false
                    }
                }
            }
        };
        // Not in the journal's copy: a trace is not worth a repetition.
        report.timings = live.timings.take();
        let report = Arc::new(report);
        if !kept {
            lock(&self.reads).keep(invocation.clone(), report.clone());
        }
        self.tell(invocation, report.clone()).await;
        tracing::info!(
            target: "audit",
            %invocation, command = %order.command, verb = %order.verb, plugin = %order.plugin, digest = %order.digest,
            caller = %order.caller, outcome = report.outcome.as_str(),
            code = report.failure.as_ref().map(|f| f.code.as_str()),
            trace_id = live.trace.as_ref().map(TraceContext::trace_id),
            effects = report.effects.len(), denials = report.cost.denials, wall_us = report.cost.wall_us,
            "ended"
        );
    }

    /// What can be said of an invocation whose task died.
    async fn panicked(&self, warrant: &VerifiedWarrant, live: &Live) {
        let keep = self.keep(warrant, self.target(warrant).ok().as_ref());
        let (outcome, message) = match keep {
            Keep::Memory => (Outcome::Failed, "the gateway failed while it ran a read"),
            Keep::Journal => (Outcome::Unknown, "the gateway failed while it ran; its effects can't be told"),
        };
        let report = Report::refused(outcome, "interrupted", message, unix_ms());
        self.end(warrant, live, keep, report, &Used::default()).await;
    }

    /// One phase, for the metrics and for a trace.
    async fn timed<T>(&self, phase: &'static str, live: &Live, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.metrics.phase(phase, began.elapsed());
        live.timings.end(phase, live.timings.start().map(|_| began), false);
        done
    }

    async fn accepted(&self, invocation: &InvocationId) {
        let _ = self.events.send(Event::Accepted { invocation: invocation.clone() }).await;
    }

    /// Nothing rests on a read's acceptance but what operators see while it runs: one that
    /// ends at once goes without.
    async fn accepted_if_slow(&self, invocation: &InvocationId, turn: impl Future<Output = Report>) -> Report {
        let mut turn = std::pin::pin!(turn);
        tokio::select! {
            biased;
            report = &mut turn => report,
            () = tokio::time::sleep(SLOW) => {
                self.accepted(invocation).await;
                turn.await
            }
        }
    }

    /// Closed means that the gateway is ending: the report is kept where it is.
    async fn tell(&self, invocation: &InvocationId, report: Arc<Report>) {
        let _ = self.events.send(Event::Report { invocation: invocation.clone(), report }).await;
    }
}

fn forget_after_ms(warrant: &VerifiedWarrant) -> u64 {
    warrant.warrant().expires_ms.saturating_add(REMEMBER_MS)
}

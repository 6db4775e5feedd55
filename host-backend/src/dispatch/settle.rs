//! Results on their way into the store: whatever waits is settled in one commit, and only
//! then acknowledged. A result is never lost here: while the store fails, it is tried
//! again, and the gateway keeps it until it is acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use viworks_protocol::frame::BackendFrame;
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::outcome::{Cost, Outcome, Report};

use super::Engine;
use super::traced::Told;
use crate::hub::{self, Ended};
use crate::metrics::{Latency, Metrics};
use crate::rollouts::observe::Glance;
use crate::store::model::{Command, Invocation};
use crate::store::write::{Note, Settled, Settlement, Verdict};

const GROUP: usize = 2_048;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A result that waits, and the room that its report takes.
#[derive(Debug)]
pub(super) struct Incoming {
    settlement: Settlement,
    outcome: &'static str,
    glance: Glance,
    cost: Cost,
    told: Option<Told>,
    came: tokio::time::Instant,
    _room: OwnedSemaphorePermit,
}

impl Engine {
    /// An agent's session reports how an invocation ended. Waits while too many results
    /// wait, so that the agent's socket is not read meanwhile.
    pub(crate) async fn result(&self, agent: &AgentId, invocation: InvocationId, report: &Report) {
        let receipt = self.receipt(agent, &invocation, report).await;
        // It is kept as what it is, not inside the report.
        let text = match &receipt {
            None if report.timings.is_empty() => serde_json::to_string(report),
            // Nor are the steps of a trace kept with it.
            None => serde_json::to_string(&Report { timings: Vec::new(), ..report.clone() }),
            Some(_) => serde_json::to_string(&Report { receipt: None, timings: Vec::new(), ..report.clone() }),
        };
        let Ok(text) = text else { return };
        let bytes = text.len() + receipt.as_ref().map_or(0, |r| r.envelope.len());
        let kib = u32::try_from(bytes / 1_024 + 1).unwrap_or(u32::MAX);
        let Ok(room) = self.inner.report_room.clone().acquire_many_owned(kib).await else { return };
        let settlement = Settlement {
            invocation,
            agent: agent.clone(),
            state: report.outcome.into(),
            report: text,
            plan: report.plan.clone().filter(|_| report.outcome == Outcome::Succeeded),
            receipt,
            started_ms: (report.started_ms > 0).then_some(report.started_ms),
            finished_ms: self.now_ms(),
        };
        let incoming = Incoming {
            settlement,
            outcome: report.outcome.as_str(),
            glance: Glance::of(report),
            cost: report.cost,
            told: Told::of(report),
            came: tokio::time::Instant::now(),
            _room: room,
        };
        // An error means that the engine has stopped; the gateway keeps the result.
        drop(self.inner.results.send(incoming).await);
    }

    /// A gateway has journaled an invocation: it runs. Written soon, not at once.
    pub(crate) async fn accepted(&self, agent: &AgentId, invocation: InvocationId) {
        let note = Note::Running { agent: agent.clone(), invocation, at_ms: self.now_ms() };
        if self.store().note(note).await.is_err() {
            tracing::debug!(%agent, "the store is closed");
        }
    }
}

pub(super) async fn run(engine: Engine) {
    let stop = engine.inner.parts.background.token().clone();
    let mut queue = engine.inner.results_out.lock().await;
    let mut group = Vec::with_capacity(GROUP);
    while let Some(count) = stop.run_until_cancelled(queue.recv_many(&mut group, GROUP)).await {
        if count == 0 {
            return;
        }
        engine.inner.settled_ms.store(engine.now_ms(), Ordering::Relaxed);
        settle(&engine, std::mem::take(&mut group)).await;
        engine.inner.settled_ms.store(0, Ordering::Relaxed);
    }
    // What waits is settled still; what comes later the gateways keep.
    while let Ok(incoming) = queue.try_recv() {
        group.push(incoming);
    }
    if !group.is_empty() {
        settle(&engine, group).await;
    }
}

async fn settle(engine: &Engine, group: Vec<Incoming>) {
    let (mut settlements, mut outcomes, mut rooms, mut glances) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut costs, mut tales) = (Vec::new(), Vec::new());
    for Incoming { settlement, outcome, glance, cost, told, came, _room } in group {
        costs.push((cost, came));
        tales.push(told);
        settlements.push(settlement);
        outcomes.push(outcome);
        glances.push(glance);
        rooms.push(_room);
    }
    let keys: Vec<(AgentId, InvocationId)> =
        settlements.iter().map(|s| (s.agent.clone(), s.invocation.clone())).collect();
    let mut pause = FIRST_PAUSE;
    let settled = loop {
        match engine.store().settle(settlements.clone()).await {
            Ok(settled) => break settled,
            Err(error) => {
                tracing::error!(%error, count = keys.len(), ?pause, "results can't be settled; tried again");
                let stop = engine.inner.parts.background.token();
                if stop.is_cancelled() || stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    };
    drop(rooms);
    observe(engine, &keys, &settled, &glances);
    timed(engine, &settled, &costs);
    for ((_, invocation), (verdict, told)) in keys.iter().zip(settled.verdicts.iter().zip(&tales)) {
        if let (Verdict::Settled { command, .. }, Some(told)) = (verdict, told) {
            engine.inner.traced.settled(command, invocation, told);
        }
    }

    for (((agent, invocation), verdict), outcome) in keys.iter().zip(&settled.verdicts).zip(outcomes) {
        match verdict {
            Verdict::Settled { .. } => {
                Metrics::count(&engine.inner.parts.metrics.outcomes, outcome);
                engine.landed(agent, invocation);
            }
            Verdict::Duplicate { .. } => {
                engine.inner.parts.metrics.duplicates.inc();
                engine.landed(agent, invocation);
            }
            Verdict::Foreign => {
                foreign(engine, agent, invocation).await;
                continue;
            }
            Verdict::Absent => {
                Metrics::count(&engine.inner.parts.metrics.refusals, "absent-invocation");
                engine.refuse(agent, "result", invocation.as_str(), "there is no such invocation").await;
                // Acknowledged: nobody will ever want it, and the gateway would send it for ever.
            }
        }
        let ack = hub::text(&BackendFrame::Ack { invocation: invocation.clone() });
        // Who has gone sends it again, and is told then that it was settled before.
        let _ = engine.inner.parts.hub.send(agent, ack);
    }
    let batched: BTreeSet<_> = settled.commands.iter().filter(|c| is_batched(c)).map(|c| c.id.clone()).collect();
    engine.settled(settled.commands, |command| alone(command, &settlements, &settled.verdicts));
    for command in &batched {
        engine.refill(command);
    }
}

/// The invocation of a command that has no other, as it was just settled.
fn alone(command: &Command, settlements: &[Settlement], verdicts: &[Verdict]) -> Option<Invocation> {
    if command.targets != 1 {
        return None;
    }
    settlements.iter().zip(verdicts).find_map(|(settlement, verdict)| match verdict {
        Verdict::Settled { command: id, ordinal, seq } if *id == command.id => Some(Invocation {
            id: settlement.invocation.clone(),
            command: id.clone(),
            agent: settlement.agent.clone(),
            ordinal: *ordinal,
            state: settlement.state,
            seq: Some(*seq),
            report: Some(settlement.report.clone()),
            sent_ms: None,
            // Where the report has none, the store may.
            started_ms: Some(settlement.started_ms?),
            finished_ms: Some(settlement.finished_ms),
        }),
        _ => None,
    })
}

/// What the releases did, for rollouts.
fn observe(engine: &Engine, keys: &[(AgentId, InvocationId)], settled: &Settled, glances: &[Glance]) {
    let ended =
        keys.iter().zip(&settled.verdicts).zip(glances).filter_map(|(((agent, invocation), verdict), glance)| {
            let Verdict::Settled { command, .. } = verdict else { return None };
            if let Some(verdict) = glance.shadow_verdict() {
                Metrics::count(&engine.inner.parts.metrics.shadows, verdict);
            }
            Some((agent, invocation, settled.commands.iter().find(|c| c.id == *command)?, glance))
        });
    engine.inner.parts.observer.ended(ended);
}

/// How long each phase took, by verb.
fn timed(engine: &Engine, settled: &Settled, costs: &[(Cost, tokio::time::Instant)]) {
    let latencies = &engine.inner.parts.metrics.latencies;
    for (verdict, (cost, came)) in settled.verdicts.iter().zip(costs) {
        let Verdict::Settled { command, .. } = verdict else { continue };
        latencies.observe(Latency::ResultCommit, came.elapsed());
        let Some(command) = settled.commands.iter().find(|c| c.id == *command) else { continue };
        latencies.invocation(&command.verb, "run", cost.wall_us);
        latencies.invocation(&command.verb, "cpu", cost.cpu_us);
    }
}

fn is_batched(command: &Command) -> bool {
    command.batch.is_some() && command.counts.queued > 0
}

/// Another agent's invocation: no honest gateway knows its id.
async fn foreign(engine: &Engine, agent: &AgentId, invocation: &InvocationId) {
    Metrics::count(&engine.inner.parts.metrics.refusals, "foreign-invocation");
    engine.refuse(agent, "result", invocation.as_str(), "the invocation is another agent's").await;
    if let Some(session) = engine.inner.parts.hub.session(agent) {
        session.end(Ended { reason: "foreign-invocation", retry_after_secs: 300 });
    }
}

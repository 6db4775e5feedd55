//! What agents are owed when they come back, and batches that have room again. One task,
//! so that a thousand agents that return together load each order once and share commits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use super::flight::Waiting;
use super::order::Prepared;
use super::{Engine, cancel_frame};
use crate::store::OpenInvocation;
use crate::store::model::{Command, InvocationState};

/// Owed invocations that are read at a time.
const PAGE: u32 = 200;
const GROUP: usize = 128;

/// What the deliverer is asked for.
#[derive(Debug)]
pub(super) enum Work {
    /// The agent is back, and owes these.
    Owed { agent: AgentId, open: Vec<OpenInvocation> },
    /// Something of a batched command ended, or waits anew.
    Refill(CommandId),
}

/// Read what a newly connected agent is owed and hand it to the deliverer.
pub(super) async fn owed(engine: &Engine, agent: &AgentId) {
    let mut after: Option<CommandId> = None;
    loop {
        let open = match engine.store().open_for(agent, after.as_ref(), PAGE).await {
            Ok(open) => open,
            Err(error) => {
                tracing::error!(%agent, %error, "what the agent is owed can't be read");
                return;
            }
        };
        let full = open.len() == PAGE as usize;
        after = open.last().map(|o| o.command.id.clone());
        if !open.is_empty() && engine.inner.offers.send(Work::Owed { agent: agent.clone(), open }).await.is_err() {
            return;
        }
        if !full {
            return;
        }
    }
}

impl Engine {
    /// A batched command may have room again.
    pub(super) fn refill(&self, command: &CommandId) {
        let (this, work) = (self.clone(), Work::Refill(command.clone()));
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(work)) = self.inner.offers.try_send(work) {
            // The deliverer itself may be waiting for the store: never wait for it here.
            self.inner.parts.background.tracker().spawn(async move { drop(this.inner.offers.send(work).await) });
        }
    }
}

pub(super) async fn run(engine: Engine) {
    let stop = engine.inner.parts.background.token().clone();
    let mut queue = engine.inner.offers_out.lock().await;
    let mut group = Vec::with_capacity(GROUP);
    while let Some(count) = stop.run_until_cancelled(queue.recv_many(&mut group, GROUP)).await {
        if count == 0 {
            return;
        }
        handle(&engine, std::mem::take(&mut group)).await;
    }
}

/// Queued invocations to be claimed in one commit, and where each goes.
#[derive(Default)]
struct Claims {
    places: HashMap<InvocationId, (Arc<Prepared>, AgentId, u32)>,
}

async fn handle(engine: &Engine, group: Vec<Work>) {
    let mut claims = Claims::default();
    let mut refills: BTreeMap<CommandId, ()> = BTreeMap::new();
    for work in group {
        match work {
            Work::Refill(command) => drop(refills.insert(command, ())),
            Work::Owed { agent, open } => {
                for owed in open {
                    if let Some(command) = one(engine, &agent, owed, &mut claims).await {
                        refills.insert(command, ());
                    }
                }
            }
        }
    }
    for command in refills.into_keys() {
        refill(engine, &command, &mut claims).await;
    }
    claim(engine, claims).await;
}

async fn prepared(engine: &Engine, command: &Command) -> Option<Arc<Prepared>> {
    match engine.inner.orders.get(engine.store(), command, &engine.inner.parts.key).await {
        Ok(prepared) => Some(prepared),
        Err(error) => {
            tracing::error!(command = %command.id, %error, "an order can't be made");
            None
        }
    }
}

/// One invocation that is owed; answers the command whose batch it waits for.
async fn one(engine: &Engine, agent: &AgentId, owed: OpenInvocation, claims: &mut Claims) -> Option<CommandId> {
    let OpenInvocation { invocation, ordinal, state, command } = owed;
    if command.cancel_requested {
        // What was delivered before may run there; what was not is settled already.
        let _ = engine.inner.parts.hub.send(agent, cancel_frame(&invocation));
        return None;
    }
    if engine.now_ms() >= command.expires_ms {
        return None;
    }
    if state == InvocationState::Queued && command.batch.is_some() {
        let waiting = Waiting { invocation, agent: agent.clone(), ordinal };
        engine.flights().wait(&command.id, [waiting]);
        return Some(command.id);
    }
    let prepared = prepared(engine, &command).await?;
    if state == InvocationState::Queued {
        claims.places.insert(invocation, (prepared, agent.clone(), ordinal));
    } else {
        engine.send(&prepared, agent, &invocation, ordinal);
    }
    None
}

/// Let as many of a batched command go as it has room for, by the store's count.
async fn refill(engine: &Engine, id: &CommandId, claims: &mut Claims) {
    let command = match engine.store().command(id).await {
        Ok(Some(command)) => command,
        Ok(None) => return engine.flights().drop_command(id),
        Err(error) => return tracing::error!(command = %id, %error, "a batch can't be refilled"),
    };
    if command.finished_ms.is_some() || command.cancel_requested {
        // Nothing more of it goes out.
        drop(engine.flights().next(id, usize::MAX));
        return;
    }
    let mut room = command.batch.unwrap_or(u32::MAX).saturating_sub(command.counts.in_flight()) as usize;
    while room > 0 {
        let next = engine.flights().next(id, room);
        if next.is_empty() {
            return;
        }
        let Some(prepared) = prepared(engine, &command).await else { return };
        for Waiting { invocation, agent, ordinal } in next {
            // Who has gone meanwhile is owed it, and waits again when back.
            if engine.inner.parts.hub.is_connected(&agent) {
                room -= 1;
                claims.places.insert(invocation, (prepared.clone(), agent, ordinal));
            }
        }
    }
}

async fn claim(engine: &Engine, mut claims: Claims) {
    if claims.places.is_empty() {
        return;
    }
    let invocations: Vec<_> = claims.places.keys().cloned().collect();
    match engine.store().claim(invocations, engine.now_ms()).await {
        Ok(claimed) => {
            for invocation in claimed.invocations {
                if let Some((prepared, agent, ordinal)) = claims.places.remove(&invocation) {
                    engine.send(&prepared, &agent, &invocation, ordinal);
                }
            }
        }
        // They are queued still, and owed: the agents get them when they come back.
        Err(error) => tracing::error!(%error, "queued invocations can't be claimed"),
    }
}

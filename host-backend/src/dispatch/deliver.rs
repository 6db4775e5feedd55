//! What agents are owed when they come back, and batches that have room again. One task,
//! so that a thousand agents that return together load each order once and share commits.

use futures_util::{StreamExt as _, stream};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use super::flight::{Flight, Waiting};
use super::order::Prepared;
use super::{Engine, cancel_frame};
use crate::store::OpenInvocation;
use crate::store::model::{Command, InvocationState};

/// Owed invocations that are read at a time.
const PAGE: u32 = 100;
/// Agents whose first pages are read at a time.
const READS: usize = 4;
const GROUP: usize = 128;

/// What the deliverer is asked for.
#[derive(Debug)]
pub(super) enum Work {
    /// The agent is back: all that it is owed, also what it was sent before.
    Back(AgentId),
    /// It has room again: what is queued for it.
    CatchUp(AgentId),
    /// Something of a batched command ended, or waits anew.
    Refill(CommandId),
    /// The last approval came: nothing of it was delivered before.
    Approved(CommandId),
    /// Tell when everything before is done.
    #[cfg(test)]
    Tell(tokio::sync::oneshot::Sender<()>),
}

impl Engine {
    /// A batched command may have room again.
    pub(super) fn refill(&self, command: &CommandId) {
        self.ask(Work::Refill(command.clone()));
    }

    /// A command has all its approvals.
    pub(super) fn release_approved(&self, command: &CommandId) {
        self.ask(Work::Approved(command.clone()));
    }

    /// The agent has room for what it is owed.
    pub(super) fn catch_up(&self, agent: &AgentId) {
        self.ask(Work::CatchUp(agent.clone()));
    }

    /// Wait until the deliverer has done what it was asked for.
    #[cfg(test)]
    pub(crate) async fn delivered(&self) {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.ask(Work::Tell(tell));
        told.await.expect("the deliverer runs");
    }

    pub(super) fn ask(&self, work: Work) {
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(work)) = self.inner.offers.try_send(work) {
            // The deliverer itself may be the one that asks: never wait for it here.
            let this = self.clone();
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
    places: HashMap<InvocationId, Place>,
}

struct Place {
    prepared: Arc<Prepared>,
    agent: AgentId,
    ordinal: u32,
    /// Of a batch: the store claims no more of it than there is room for.
    batched: bool,
}

impl Claims {
    /// Enter one if its agent has room for it; it takes that room at once.
    fn add(&mut self, engine: &Engine, prepared: Arc<Prepared>, to: Waiting, batched: bool) -> bool {
        let Waiting { invocation, agent, ordinal } = to;
        let mut flights = engine.flights();
        // It may wait twice, when the agent left and came back.
        if flights.find(&agent, &invocation).is_some() || !flights.has_room(&agent) {
            return false;
        }
        let command = prepared.command.clone();
        flights.add(&agent, Flight { invocation: invocation.clone(), command });
        self.places.insert(invocation, Place { prepared, agent, ordinal, batched });
        true
    }
}

async fn handle(engine: &Engine, group: Vec<Work>) {
    let mut claims = Claims::default();
    let (mut agents, mut refills) = (BTreeMap::<AgentId, bool>::new(), BTreeSet::new());
    let mut approved = Vec::new();
    #[cfg(test)]
    let mut tell = Vec::new();
    for work in group {
        match work {
            Work::Refill(command) => drop(refills.insert(command)),
            Work::Approved(command) => approved.push(command),
            Work::Back(agent) => drop(agents.insert(agent, true)),
            Work::CatchUp(agent) => drop(agents.entry(agent).or_default()),
            #[cfg(test)]
            Work::Tell(done) => tell.push(done),
        }
    }
    // First pages together, since most agents are owed little.
    let pages = stream::iter(agents).map(|(agent, back)| async move {
        let page = owed(engine, &agent, None).await;
        (agent, back, page)
    });
    let mut pages = pages.buffer_unordered(READS);
    while let Some((agent, back, mut page)) = pages.next().await {
        loop {
            let last = (page.len() == PAGE as usize).then(|| page.last().map(|o| o.command.id.clone())).flatten();
            for owed in page.into_iter().filter(|o| back || o.state == InvocationState::Queued) {
                refills.extend(one(engine, &agent, owed, &mut claims).await);
            }
            // Without room the rest is for when it catches up.
            let Some(last) = last.filter(|_| engine.flights().has_room(&agent)) else { break };
            page = owed(engine, &agent, Some(&last)).await;
        }
    }
    for command in approved {
        if release(engine, &command, &mut claims).await {
            refills.insert(command);
        }
    }
    for command in refills {
        refill(engine, &command, &mut claims).await;
    }
    claim(engine, claims).await;
    #[cfg(test)]
    tell.into_iter().for_each(|done| done.send(()).unwrap_or_default());
}

async fn owed(engine: &Engine, agent: &AgentId, after: Option<&CommandId>) -> Vec<OpenInvocation> {
    engine.store().open_for(agent, after, PAGE).await.unwrap_or_else(|error| {
        tracing::error!(%agent, %error, "what the agent is owed can't be read");
        Vec::new()
    })
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
    if engine.flights().find(agent, &invocation).is_some() {
        return None;
    }
    if command.cancel_requested {
        // What was delivered before may run there; what was not is settled already.
        let _ = engine.inner.parts.hub.send(agent, cancel_frame(&invocation));
        return None;
    }
    if engine.now_ms() >= command.expires_ms {
        return None;
    }
    let waiting = Waiting { invocation, agent: agent.clone(), ordinal };
    if state == InvocationState::Queued && command.batch.is_some() {
        engine.flights().wait(&command.id, waiting);
        return Some(command.id);
    }
    let prepared = prepared(engine, &command).await?;
    if state == InvocationState::Queued {
        claims.add(engine, prepared, waiting, false);
    } else {
        engine.send(&prepared, agent, &waiting.invocation, ordinal);
    }
    None
}

/// Whoever is connected gets an approved command, or waits for its batch; answers whether
/// that is so. Who has no room gets it when that comes back, who is away when it does.
async fn release(engine: &Engine, id: &CommandId, claims: &mut Claims) -> bool {
    let loaded = async {
        let command = engine.store().command(id).await?;
        Ok((command, engine.store().targets(id).await?))
    };
    let (command, targets) = match loaded.await {
        Ok((Some(command), targets)) => (command, targets),
        Ok((None, _)) => return false,
        Err(error) => {
            let error: crate::store::StoreError = error;
            tracing::error!(command = %id, %error, "an approved command waits for its agents to come back");
            return false;
        }
    };
    if command.finished_ms.is_some() || command.cancel_requested || engine.now_ms() >= command.expires_ms {
        return false;
    }
    let Some(prepared) = prepared(engine, &command).await else { return false };
    let root = prepared.root();
    let connected = engine.inner.parts.hub.connected_of(&targets);
    let mut waiting = Vec::new();
    for ((ordinal, agent), _) in (0..).zip(targets).zip(connected).filter(|(_, connected)| *connected) {
        let invocation = InvocationId::derive(id, &root, &agent);
        let to = Waiting { invocation, agent, ordinal };
        if command.batch.is_some() {
            waiting.push(to);
        } else {
            claims.add(engine, prepared.clone(), to, false);
        }
    }
    let batched = !waiting.is_empty();
    if batched {
        engine.flights().wait_all(id, waiting);
    }
    batched
}

/// Let as many of a batched command go as it has room for, by the store's count.
async fn refill(engine: &Engine, id: &CommandId, claims: &mut Claims) {
    let command = match engine.store().command(id).await {
        Ok(Some(command)) => command,
        Ok(None) => return drop(engine.flights().next(id, usize::MAX)),
        Err(error) => return tracing::error!(command = %id, %error, "a batch can't be refilled"),
    };
    if command.finished_ms.is_some() || command.cancel_requested || command.is_awaiting() {
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
        for waiting in next {
            // Who has gone meanwhile, or has no room, is owed it and waits again later.
            if engine.inner.parts.hub.is_connected(&waiting.agent)
                && claims.add(engine, prepared.clone(), waiting, true)
            {
                room -= 1;
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
                if let Some(Place { prepared, agent, ordinal, .. }) = claims.places.remove(&invocation) {
                    engine.send(&prepared, &agent, &invocation, ordinal);
                }
            }
        }
        // They are queued still, and owed: the agents get them when they come back.
        Err(error) => tracing::error!(%error, "queued invocations can't be claimed"),
    }
    // Cancelled or expired meanwhile, or not claimed: their room is free again.
    for (invocation, Place { prepared, agent, ordinal, batched }) in claims.places {
        engine.landed(&agent, &invocation);
        if batched && engine.inner.parts.cluster.is_shared() {
            // Another instance was quicker: it waits for the next room, or for its end.
            engine.flights().wait(&prepared.command, Waiting { invocation, agent, ordinal });
        }
    }
}

//! A command is accepted: targets frozen, one commit, and frames to who is connected.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::broadcast;
use viworks_protocol::approval::MAX_APPROVALS;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::merkle::Tree;
use viworks_protocol::warrant::{MAX_VALIDITY_MS, Mode};
use viworks_signing::release::EffectClass;

use super::Engine;
use super::events::Event;
use super::flight::{Flight, Waiting};
use super::order::Prepared;
use crate::catalog::Checked;
use crate::metrics::Latency;
use crate::spans::Open;
use crate::store::StoreError;
use crate::store::model::{AuditEntry, Command, CommandState, Counts, Decision, IdempotencyKey};
use crate::store::write::{Acceptance, NewCommand, Target};

/// The longest that a command may wait for its agents.
pub const MAX_EXPIRY_SECS: u64 = MAX_VALIDITY_MS / 1_000;
const DEFAULT_EXPIRY_SECS: u64 = 3_600;
/// An invocation is never given longer.
const MAX_TIMEOUT_SECS: u32 = 3_600;
/// Commands that wait for agents take no slot, but are not without number.
const MAX_OPEN: u64 = 10_000;

/// What is to be done on each target.
#[derive(Debug, Clone)]
pub enum Task {
    /// Run a verb.
    Run(Checked),
    /// Take back what this command did.
    Undo(Box<Command>),
}

impl From<Checked> for Task {
    fn from(checked: Checked) -> Self {
        Self::Run(checked)
    }
}

/// What an operator asks for, with everything already checked that can be.
#[derive(Debug, Clone)]
pub struct Request {
    pub task: Task,
    pub mode: Mode,
    /// Digests of plans that it may not depart from; empty: not bound.
    pub plans: Vec<String>,
    /// How many operators must approve it before it is delivered.
    pub approvals: u32,
    /// Sorted and freed of repetitions here.
    pub targets: Vec<AgentId>,
    pub caller: String,
    /// By default the verb's own.
    pub timeout_secs: Option<u32>,
    /// By default an hour; at most [`MAX_EXPIRY_SECS`].
    pub expires_in_secs: Option<u64>,
    /// At most so many targets in flight.
    pub batch: Option<u32>,
    pub idempotency_key: Option<IdempotencyKey>,
    /// The span of the request, where it is traced.
    pub trace: Option<Open>,
}

/// A durable command.
#[derive(Debug)]
pub struct Accepted {
    pub command: Command,
    /// The same request had been accepted before.
    pub replayed: bool,
    /// Subscribed before anything was sent.
    pub events: broadcast::Receiver<Event>,
}

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("no targets")]
    NoTargets,
    #[error("{count} targets, at most {max} are taken")]
    TooManyTargets { count: usize, max: u32 },
    #[error("{field} is not within 1 to {max}")]
    Range { field: &'static str, max: u64 },
    #[error("every slot is taken")]
    Busy { retry_after_secs: u32 },
    #[error("the idempotency key was used for another command, {0}")]
    KeyReused(CommandId),
    #[error("it is being undone by {0}, which has not ended")]
    BeingUndone(CommandId),
    #[error("the command can't be stored")]
    Store(#[source] StoreError),
    #[error("the backend is stopping")]
    Stopping,
}

impl Engine {
    /// Store the command and start its delivery. Once called it runs to its end even if
    /// the caller goes away.
    ///
    /// # Errors
    /// Nothing is stored then, with one exception: after [`AcceptError::Store`] the commit
    /// may have happened, which an idempotency key tells.
    pub async fn accept(&self, request: Request) -> Result<Accepted, AcceptError> {
        let this = self.clone();
        let task = self.inner.parts.background.tracker().spawn(async move {
            let began = tokio::time::Instant::now();
            let mut request = request;
            request.trace = request.trace.map(|trace| trace.child("accept"));
            let span = request.trace.clone();
            let done = this.accept_whole(request).await;
            if let Some(span) = span {
                let command = done.as_ref().ok().map(|accepted| accepted.command.id.to_string());
                span.failed(done.is_err()).with("viworks.command", command.unwrap_or_default()).end();
            }
            this.inner.parts.metrics.latencies.observe(Latency::Accept, began.elapsed());
            done
        });
        task.await.unwrap_or(Err(AcceptError::Stopping))
    }

    async fn accept_whole(&self, mut request: Request) -> Result<Accepted, AcceptError> {
        let parts = &self.inner.parts;
        if parts.background.token().is_cancelled() {
            return Err(AcceptError::Stopping);
        }
        request.targets.sort_unstable();
        request.targets.dedup();
        let (command, tree) = self.draft(&request)?;

        // What awaits approval goes to nobody, whoever is connected.
        let connected = match request.approvals {
            0 => parts.hub.connected_of(&request.targets),
            _ => vec![false; request.targets.len()],
        };
        let full = self.inner.open.load(Ordering::Relaxed) >= MAX_OPEN;
        if full || (connected.contains(&true) && !self.flights().reserve(&command.id)) {
            parts.metrics.commands_busy.inc();
            return Err(AcceptError::Busy { retry_after_secs: if full { 60 } else { 1 } });
        }
        let id = command.id.clone();
        let done = self.store_and_send(&request, command, tree, &connected).await;
        self.flights().release(&id);
        done
    }

    fn draft(&self, request: &Request) -> Result<(Command, Tree), AcceptError> {
        let count = request.targets.len();
        let max = self.inner.parts.max_targets;
        if count > max as usize {
            return Err(AcceptError::TooManyTargets { count, max });
        }
        let tree = Tree::new(&request.targets).ok_or(AcceptError::NoTargets)?;
        let own_timeout = match &request.task {
            Task::Run(checked) => checked.verb().timeout_secs,
            Task::Undo(of) => of.timeout_secs,
        };
        let timeout_secs = request.timeout_secs.unwrap_or(own_timeout);
        let expires_in = request.expires_in_secs.unwrap_or(DEFAULT_EXPIRY_SECS);
        for (field, value, max) in [
            ("timeout_secs", u64::from(timeout_secs), u64::from(MAX_TIMEOUT_SECS)),
            ("expires_in_secs", expires_in, MAX_EXPIRY_SECS),
            ("batch", u64::from(request.batch.unwrap_or(1)), u64::from(max)),
            // None is as good as one here: it is the most that is bounded.
            ("approvals", u64::from(request.approvals.max(1)), MAX_APPROVALS as u64),
        ] {
            if value == 0 || value > max {
                return Err(AcceptError::Range { field, max });
            }
        }
        let now = self.now_ms();
        let (verb, plugin, digest, also, args, undo_of) = match &request.task {
            Task::Run(checked) => {
                let verb = checked.verb();
                (&verb.verb, &verb.plugin, &verb.digest, verb.also(now), checked.args(), None)
            }
            Task::Undo(of) => {
                (&of.verb, &of.plugin, &of.digest, of.also.clone(), of.args.as_str(), Some(of.id.clone()))
            }
        };
        let command = Command {
            id: CommandId::new(now),
            verb: verb.clone(),
            plugin: plugin.clone(),
            digest: digest.clone(),
            also,
            mode: request.mode,
            args: args.to_owned(),
            caller: request.caller.clone(),
            state: CommandState::Queued,
            created_ms: now,
            expires_ms: now + expires_in * 1_000,
            finished_ms: None,
            timeout_secs,
            batch: request.batch,
            targets: u32::try_from(count).unwrap_or(u32::MAX),
            targets_root: hex::encode(tree.root()),
            idempotency_key: request.idempotency_key.clone(),
            plans: request.plans.clone(),
            undo_of,
            undone_by: None,
            approvals_needed: request.approvals,
            approvals: Vec::new(),
            cancel_requested: false,
            counts: Counts::default(),
            last_seq: 0,
        };
        Ok((command, tree))
    }

    async fn store_and_send(
        &self,
        request: &Request,
        command: Command,
        tree: Tree,
        connected: &[bool],
    ) -> Result<Accepted, AcceptError> {
        let (id, root) = (command.id.clone(), tree.root());
        let derive = |agent: &AgentId| InvocationId::derive(&command.id, &root, agent);
        let targets = request.targets.iter().map(|agent| Target {
            invocation: derive(agent),
            agent: agent.clone(),
            deliver: false,
        });
        let mut targets: Vec<Target> = targets.collect();
        let waiting = self.board(&command, &mut targets, connected);
        let sent: Vec<(u32, Target)> =
            (0..).zip(&targets).filter(|(_, t)| t.deliver).map(|(n, t)| (n, t.clone())).collect();
        // Before the commit: whoever is sent something soon after must be heard.
        let events = self.subscribe(&command.id);
        let early = !can_change(request);
        let stored = match Prepared::new(&command, tree, &self.inner.parts.key) {
            Ok(prepared) => {
                let prepared = Arc::new(prepared);
                let new = NewCommand { audit: audit(&command), command, targets };
                // Before anything of it is sent.
                if let Some(trace) = request.trace.as_ref().filter(|_| request.approvals == 0) {
                    self.inner.traced.keep(&id, trace.clone());
                }
                let span = request.trace.as_ref().map(|trace| trace.child("commit"));
                let stored = async {
                    let commit = self.store().begin_accept(new).await?;
                    if early {
                        self.send_all(&prepared, &sent);
                    }
                    commit.await
                };
                let stored = stored.await;
                if let Some(span) = span {
                    span.failed(stored.is_err()).end();
                }
                stored.map_err(AcceptError::Store).map(|done| (done, prepared.clone()))
            }
            Err(error) => {
                tracing::error!(%error, "an order can't be made");
                Err(AcceptError::NoTargets)
            }
        };
        let refused = match stored {
            Ok((Acceptance::Stored(command), prepared)) => {
                self.inner.parts.metrics.commands_accepted.inc();
                self.inner.open.fetch_add(1, Ordering::Relaxed);
                if command.is_awaiting() {
                    // Its warrant is signed anew, with the approvals in it.
                    return Ok(Accepted { command, replayed: false, events });
                }
                self.inner.orders.keep(prepared.clone());
                if !waiting.is_empty() {
                    self.flights().wait_all(&command.id, waiting);
                }
                if !early {
                    self.send_all(&prepared, &sent);
                }
                self.overlooked(&request.targets, connected);
                if self.inner.parts.cluster.is_shared() {
                    let elsewhere = request.targets.iter().zip(connected).filter(|(_, here)| !**here);
                    self.tell_work(&command.id, elsewhere.map(|(agent, _)| agent.clone()).collect());
                }
                return Ok(Accepted { command, replayed: false, events });
            }
            Ok((Acceptance::Replayed(command), _)) => {
                Ok(Accepted { events: self.subscribe(&command.id), command, replayed: true })
            }
            Ok((Acceptance::KeyReused(id), _)) => Err(AcceptError::KeyReused(id)),
            Ok((Acceptance::BeingUndone(id), _)) => Err(AcceptError::BeingUndone(id)),
            Err(error) => Err(error),
        };
        sent.iter().for_each(|(_, target)| self.landed(&target.agent, &target.invocation));
        self.inner.traced.forget(&id);
        let free = self.flights().drop_command(&id);
        free.iter().for_each(|agent| self.catch_up(agent));
        refused
    }

    fn send_all(&self, prepared: &Prepared, sent: &[(u32, Target)]) {
        for (ordinal, target) in sent {
            self.send(prepared, &target.agent, &target.invocation, *ordinal);
        }
    }

    /// Mark whom it is delivered to at once: who is connected, has room, and is within the
    /// batch. Answers who of the connected waits for the batch.
    fn board(&self, command: &Command, targets: &mut [Target], connected: &[bool]) -> Vec<Waiting> {
        let mut room = command.batch.map_or(usize::MAX, |batch| batch as usize);
        let mut waiting = Vec::new();
        let mut flights = self.flights();
        for ((ordinal, target), _) in (0..).zip(targets).zip(connected).filter(|(_, connected)| **connected) {
            let Target { invocation, agent, deliver } = target;
            let flight = Flight { invocation: invocation.clone(), command: command.id.clone() };
            if room == 0 {
                waiting.push(Waiting { invocation: flight.invocation, agent: agent.clone(), ordinal });
            } else if flights.has_room(agent) {
                room -= 1;
                *deliver = true;
                // Its place is taken before the commit: others are accepted meanwhile.
                flights.add(agent, flight);
            } else {
                flights.queue(agent, flight);
            }
        }
        waiting
    }

    /// Who connected while the command was on its way into the store asked too early what
    /// it is owed.
    fn overlooked(&self, targets: &[AgentId], connected: &[bool]) {
        let now = self.inner.parts.hub.connected_of(targets);
        for (agent, (before, now)) in targets.iter().zip(connected.iter().zip(now)) {
            if now && !*before {
                self.catch_up(agent);
            }
        }
    }

    /// Send one invocation. What can't be sent now stays owed: it goes out when the agent
    /// comes back.
    pub(super) fn send(&self, prepared: &Prepared, agent: &AgentId, invocation: &InvocationId, ordinal: u32) {
        let trace = self.inner.traced.deliver(&prepared.command, invocation, agent);
        let Some(frame) = prepared.frame(ordinal, trace.as_ref()) else { return };
        let flight = Flight { invocation: invocation.clone(), command: prepared.command.clone() };
        // Entered first: the answer may come before this returns.
        self.flights().add(agent, flight);
        match self.inner.parts.hub.send(agent, frame) {
            Ok(()) => {
                let metrics = &self.inner.parts.metrics;
                metrics.deliveries.inc();
                metrics.latencies.observe_ms(Latency::Delivery, prepared.created_ms, self.now_ms());
            }
            Err(error) => {
                tracing::debug!(%agent, %invocation, %error, "not delivered now");
                // It may have come back to another instance, which asked too early what is owed.
                self.inner.parts.cluster.publish(crate::cluster::Event::Missed { agents: vec![agent.clone()] });
                self.landed(agent, invocation);
            }
        }
    }

    /// An invocation is at its agent no more: others may follow.
    pub(super) fn landed(&self, agent: &AgentId, invocation: &InvocationId) {
        let catch_up = self.flights().remove(agent, invocation);
        if catch_up {
            self.catch_up(agent);
        }
    }
}

/// Whether an order that goes out could change a host, or be one that went out before. What
/// can't goes while it is being committed: its result is settled after that commit, and a
/// crash in between loses an answer that nobody was promised.
fn can_change(request: &Request) -> bool {
    let Task::Run(checked) = &request.task else { return true };
    // Other releases that may serve it have classes of their own.
    let reads = checked.verb().effect == EffectClass::Read && checked.verb().has_one_release();
    request.idempotency_key.is_some() || !(reads || request.mode == Mode::Plan)
}

fn detail(command: &Command) -> String {
    let mut text = format!("{} {} on {} agents", command.mode.as_str(), command.verb, command.targets);
    if let Some(of) = &command.undo_of {
        text.push_str(&format!(", taking back {of}"));
    }
    if !command.plans.is_empty() {
        text.push_str(&format!(", bound to {} plans", command.plans.len()));
    }
    if command.approvals_needed > 0 {
        text.push_str(&format!(", after {} approvals", command.approvals_needed));
    }
    text
}

fn audit(command: &Command) -> AuditEntry {
    AuditEntry {
        at_ms: command.created_ms,
        actor: command.caller.clone(),
        action: if command.undo_of.is_some() { "command.undo" } else { "command.accept" }.to_owned(),
        subject: command.id.to_string(),
        decision: Decision::Allowed,
        detail: detail(command),
    }
}

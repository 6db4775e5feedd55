//! What other instances did: commands that they accepted for agents of this one, settled,
//! cancelled or ended. Heard of, or found: what is done is what the store says.

use std::collections::BTreeSet;
use viworks_protocol::id::{AgentId, CommandId};

use super::deliver::Work;
use super::events::Event;
use super::{Engine, cancel_frame};
use crate::cluster;
use crate::cluster::event::MAX_AGENTS;
use crate::store::model::Command;

/// What was sent so long ago and is not known here was sent by another instance.
const OLD_MS: u64 = 5_000;
/// Pages of what is owed that one look reads; the next goes on there.
const PAGES: usize = 8;

impl Engine {
    /// Tell the others that something is queued for these agents, which may be theirs.
    pub(super) fn tell_work(&self, command: &CommandId, agents: Vec<AgentId>) {
        if !agents.is_empty() {
            // Too many to name: each instance finds its own.
            let agents = if agents.len() <= MAX_AGENTS { agents } else { Vec::new() };
            self.inner.parts.cluster.publish(cluster::Event::Work { command: command.clone(), agents });
        }
    }

    /// Tell the others that a command moved.
    pub(super) fn tell_moved(&self, commands: &[Command]) {
        for command in commands {
            self.inner.parts.cluster.publish(cluster::Event::Command { command: command.id.clone() });
        }
    }

    /// Something is queued for these, as far as they are here.
    pub(crate) fn heard_of_work(&self, agents: &BTreeSet<AgentId>) {
        for agent in agents.iter().filter(|agent| self.inner.parts.hub.is_connected(agent)) {
            self.catch_up(agent);
        }
    }

    /// What was sent to these may not have arrived.
    pub(crate) fn heard_missed<'a>(&self, agents: impl Iterator<Item = &'a AgentId>) {
        for agent in agents.filter(|agent| self.inner.parts.hub.is_connected(agent)) {
            self.ask(Work::Back(agent.clone()));
        }
    }

    /// These commands moved, somebody says: those that somebody here waits for, or that are
    /// at agents here, are looked at.
    pub(crate) async fn heard_of(&self, commands: BTreeSet<CommandId>) {
        let here: Vec<CommandId> = {
            let flights = self.flights();
            let concerns = |id: &CommandId| flights.has(id) || self.inner.events.is_heard(id);
            commands.into_iter().filter(concerns).collect()
        };
        if here.is_empty() {
            return;
        }
        let marks = match self.store().marks(&here).await {
            Ok(marks) => marks,
            Err(error) => return tracing::warn!(%error, "how far commands are can't be read; looked at again soon"),
        };
        for mark in marks {
            if mark.finished {
                match self.store().command(&mark.command).await {
                    Ok(Some(command)) => self.seen(vec![command], |_| None),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(command = %mark.command, %error, "a command's end can't be read"),
                }
                continue;
            }
            if mark.last_seq > 0 {
                self.inner.events.tell(&mark.command, Event::Settled { last_seq: mark.last_seq });
            }
            if mark.cancelling {
                self.cancel_here(&mark.command);
            } else if mark.batched && self.flights().awaits(&mark.command) {
                self.refill(&mark.command);
            }
        }
    }

    /// Tell the agents here, once, that a command is cancelled.
    fn cancel_here(&self, command: &CommandId) {
        let told = self.flights().cancel(command);
        for (agent, invocation) in told {
            let _ = self.inner.parts.hub.send(&agent, cancel_frame(&invocation));
        }
    }

    /// Look for what nobody said: what agents here are owed, and how far the commands are
    /// that are at them or that somebody waits for.
    pub(crate) async fn look_around(&self, instance: &str) {
        let mut commands: BTreeSet<CommandId> = self.flights().commands().into_iter().collect();
        commands.extend(self.inner.events.heard());
        self.heard_of(commands).await;
        if self.inner.open.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            return;
        }
        let before_ms = self.now_ms().saturating_sub(OLD_MS);
        let mut after: Option<AgentId> = self.inner.looked.lock().await.take();
        for _ in 0..PAGES {
            let owed = match self.store().owed_here(instance, before_ms, after.as_ref()).await {
                Ok(owed) => owed,
                Err(error) => return tracing::warn!(%error, "what agents here are owed can't be read"),
            };
            let last = owed.last().map(|owed| owed.agent.clone());
            let (mut back, mut queued) = (BTreeSet::new(), BTreeSet::new());
            for of in &owed {
                let mut flights = self.flights();
                if flights.find(&of.agent, &of.invocation).is_some() || flights.waits(&of.invocation) {
                    continue;
                }
                if !of.queued {
                    back.insert(of.agent.clone());
                } else if flights.has_room(&of.agent) {
                    queued.insert(of.agent.clone());
                }
            }
            self.heard_missed(back.iter());
            queued.retain(|agent| !back.contains(agent));
            self.heard_of_work(&queued);
            if owed.len() < crate::store::cluster::MOST as usize {
                return;
            }
            after = last;
        }
        *self.inner.looked.lock().await = after;
    }
}

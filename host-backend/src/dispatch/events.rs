//! What subscribers of a command hear. Events say where to look; the store says what is
//! there, so that one who lagged or came late misses nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use super::Engine;
use crate::metrics::Latency;
use crate::store::model::{Command, Invocation};

/// Events that wait for a slow subscriber; more, and it is told that it lagged.
const CHANNEL: usize = 64;

#[derive(Debug, Clone)]
pub enum Event {
    /// Invocations up to this `seq` are settled and durable.
    Settled {
        last_seq: u64,
    },
    Progress(Arc<Progress>),
    /// The command has ended; nothing follows.
    Finished(Arc<EndedCommand>),
}

/// A command at its end.
#[derive(Debug, Clone)]
pub struct EndedCommand {
    pub command: Command,
    /// Its invocation, where it has one and that was settled just now: who waits need not
    /// read it back.
    pub only: Option<Invocation>,
}

/// What a gateway said of an invocation that runs. Not stored.
#[derive(Debug, Clone)]
pub struct Progress {
    pub invocation: InvocationId,
    pub agent: AgentId,
    pub done: u32,
    pub total: Option<u32>,
    pub message: String,
}

/// One channel for each command that somebody listens to.
#[derive(Debug, Default)]
pub(super) struct Channels {
    channels: Mutex<HashMap<CommandId, Channel>>,
}

#[derive(Debug)]
struct Channel {
    sender: broadcast::Sender<Event>,
    /// The last `seq` that it was told.
    seq: u64,
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, HashMap<CommandId, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self, command: &CommandId) -> broadcast::Receiver<Event> {
        let channel = || Channel { sender: broadcast::Sender::new(CHANNEL), seq: 0 };
        self.lock().entry(command.clone()).or_insert_with(channel).sender.subscribe()
    }

    pub(super) fn tell(&self, command: &CommandId, event: Event) {
        let mut channels = self.lock();
        let ends = matches!(event, Event::Finished(_));
        let Some(channel) = channels.get_mut(command) else { return };
        if let Event::Settled { last_seq } = event {
            if last_seq <= channel.seq {
                return;
            }
            channel.seq = last_seq;
        }
        // An error means that nobody listens any more.
        let deaf = channel.sender.send(event).is_err();
        if ends || deaf {
            channels.remove(command);
        }
    }

    /// Whether somebody listens.
    pub(super) fn is_heard(&self, command: &CommandId) -> bool {
        self.lock().get(command).is_some_and(|channel| channel.sender.receiver_count() > 0)
    }

    /// The commands that somebody listens to.
    pub(super) fn heard(&self) -> Vec<CommandId> {
        let channels = self.lock();
        channels.iter().filter(|(_, c)| c.sender.receiver_count() > 0).map(|(id, _)| id.clone()).collect()
    }

    /// Forget channels that nobody listens to.
    pub(super) fn tidy(&self) {
        self.lock().retain(|_, channel| channel.sender.receiver_count() > 0);
    }
}

impl Engine {
    /// Hear of a command from now on. Subscribe first, then read the store: nothing falls
    /// between. After `Lagged`, read the store from the last `seq` that was seen.
    #[must_use]
    pub fn subscribe(&self, command: &CommandId) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe(command)
    }

    /// A gateway tells how far an invocation is; heard only if it is at that very agent.
    pub(crate) fn progress(&self, progress: Progress) {
        let command = self.flights().find(&progress.agent, &progress.invocation).cloned();
        if let Some(command) = command {
            self.inner.events.tell(&command, Event::Progress(Arc::new(progress)));
        }
    }

    /// Commands changed durably: tell subscribers, and let go of those that ended.
    pub(super) fn changed(&self, commands: Vec<Command>) {
        self.settled(commands, |_| None);
    }

    /// The same; `only` gives the one invocation of a command that has no other.
    pub(super) fn settled(&self, commands: Vec<Command>, only: impl FnMut(&Command) -> Option<Invocation>) {
        self.tell_moved(&commands);
        self.seen(commands, only);
    }

    /// The same of what was done elsewhere: nobody else is told.
    pub(super) fn seen(&self, commands: Vec<Command>, mut only: impl FnMut(&Command) -> Option<Invocation>) {
        for command in commands {
            let id = command.id.clone();
            if command.last_seq > 0 {
                self.inner.events.tell(&id, Event::Settled { last_seq: command.last_seq });
            }
            if let Some(finished) = command.finished_ms {
                self.inner.parts.metrics.latencies.observe_ms(Latency::Settle, command.created_ms, finished);
                let free = self.flights().drop_command(&id);
                free.iter().for_each(|agent| self.catch_up(agent));
                self.inner.orders.forget(&id);
                self.inner.traced.forget(&id);
                let only = only(&command);
                self.inner.events.tell(&id, Event::Finished(Arc::new(EndedCommand { command, only })));
            }
        }
    }
}

//! The way between instances: none, or Redis. Publishing never waits and never fails: what
//! can't be told now is counted as lost, and the others find it in the store.

use std::sync::Arc;
use tokio::sync::{broadcast, mpsc};

use super::event::Event;
use super::link::Link;
use crate::metrics::{Kind, Metrics, Word};

/// Events that wait to be published; more are lost.
pub(super) const OUT: usize = 4_096;
/// Messages that wait for the follower; more, and it looks at everything.
const IN: usize = 1_024;

/// A handle; clones share the way.
#[derive(Debug, Clone)]
pub enum Bus {
    /// Nobody else is told; who shares the store looks into it every other second.
    Local(Ears),
    Redis(Link, mpsc::Sender<Event>, Ears),
}

/// Where what others say is heard.
#[derive(Debug, Clone)]
pub struct Ears(broadcast::Sender<Heard>);

/// What is heard at once.
#[derive(Debug, Clone)]
pub enum Heard {
    Events(Arc<[Event]>),
    /// Messages may have been missed.
    Gap,
}

impl Default for Ears {
    fn default() -> Self {
        Self(broadcast::Sender::new(IN))
    }
}

impl Ears {
    pub(super) fn tell(&self, heard: Heard) {
        // An error means that nobody follows yet, or any more.
        let _ = self.0.send(heard);
    }
}

impl Bus {
    /// Tell the other instances, if there is a way to them.
    pub(super) fn publish(&self, event: Event, metrics: &Metrics) {
        if let Self::Redis(_, out, _) = self
            && out.try_send(event).is_err()
        {
            metrics.bus_messages.get_or_create(&Kind { kind: Word("lost") }).inc();
        }
    }

    /// Hear what others publish from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Heard> {
        match self {
            Self::Local(ears) | Self::Redis(_, _, ears) => ears.0.subscribe(),
        }
    }

    /// The connection to Redis, if one is configured.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        match self {
            Self::Local(_) => None,
            Self::Redis(link, ..) => Some(link),
        }
    }
}

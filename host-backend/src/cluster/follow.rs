//! From what other instances say, or what is found in the store every other second, to
//! what is done about it here. An event names a place to look at; what is done is what
//! stands there. Bounded: what is heard beyond its bounds is found at the next look.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{MissedTickBehavior, interval};
use viworks_protocol::id::{AgentId, CommandId};

use super::{Cluster, Event, Heard};
use crate::catalog::Catalog;
use crate::dispatch::Engine;
use crate::repository::Repository;
use crate::rollouts::Rollouts;
use crate::store::Store;
use crate::store::cluster::Stamps;

/// Between two looks into the store.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks who is asked about, if nobody says so.
const CHALLENGES: Duration = Duration::from_secs(1);
/// Of each kind, what is kept of what was heard.
const MOST: usize = 4_096;

/// What follows.
#[derive(Debug, Clone)]
pub struct Parts {
    pub cluster: Cluster,
    pub store: Store,
    pub engine: Engine,
    pub catalog: Catalog,
    pub rollouts: Rollouts,
    pub repository: Option<Repository>,
}

/// What was heard since it was acted on last.
#[derive(Debug, Default)]
struct Pending {
    work: HashMap<CommandId, BTreeSet<AgentId>>,
    /// Work of which nobody said for whom.
    somewhere: HashSet<CommandId>,
    missed: HashSet<AgentId>,
    commands: HashSet<CommandId>,
    killed: HashSet<String>,
    /// Look at the stamps.
    stamps: bool,
    challenges: bool,
    all: bool,
}

impl Pending {
    fn add(&mut self, heard: &Heard) {
        let Heard::Events(events) = heard else {
            self.all = true;
            return;
        };
        for event in events.iter() {
            match event {
                Event::Work { command, agents } if self.work.len() < MOST && !agents.is_empty() => {
                    self.work.entry(command.clone()).or_default().extend(agents.iter().cloned());
                }
                Event::Work { command, .. } if self.somewhere.len() < MOST => {
                    self.somewhere.insert(command.clone());
                }
                Event::Missed { agents } if self.missed.len() < MOST => self.missed.extend(agents.iter().cloned()),
                Event::Command { command } if self.commands.len() < MOST => drop(self.commands.insert(command.clone())),
                Event::Killed { digest } if self.killed.len() < MOST => drop(self.killed.insert(digest.clone())),
                Event::Work { .. } | Event::Missed { .. } | Event::Command { .. } | Event::Killed { .. } => {
                    self.all = true;
                }
                Event::Challenge {} => self.challenges = true,
                Event::Catalog {} | Event::Repository {} | Event::Tokens {} | Event::Agents {} => self.stamps = true,
            }
        }
    }
}

/// Follow the other instances until everything stops.
pub async fn run(parts: Parts) {
    let stop = parts.cluster.inner.background.token().clone();
    let mut ears = parts.cluster.bus().subscribe();
    let asked = Arc::new(Notify::new());
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Stamps::new();
    let answering = answer(parts.cluster.clone(), asked.clone());
    let following = async {
        loop {
            let mut pending = Pending::default();
            tokio::select! {
                heard = ears.recv() => match heard {
                    Ok(heard) => pending.add(&heard),
                    Err(RecvError::Lagged(_)) => pending.all = true,
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                _ = look.tick() => pending.all = true,
            }
            loop {
                match ears.try_recv() {
                    Ok(heard) => pending.add(&heard),
                    Err(TryRecvError::Lagged(_)) => pending.all = true,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if pending.challenges {
                asked.notify_one();
            }
            parts.act(pending, &mut seen).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = answering => {}
        () = following => {}
    }
}

impl Parts {
    async fn act(&self, pending: Pending, seen: &mut Stamps) {
        let Pending { work, somewhere, missed, commands, killed, stamps, all, .. } = pending;
        if stamps || all {
            self.stamps(seen).await;
        }
        for digest in &killed {
            self.killed(digest).await;
        }
        let mut agents: BTreeSet<AgentId> = work.into_values().flatten().collect();
        for command in &somewhere {
            match self.store.queued_here(self.cluster.instance(), command).await {
                Ok(here) => agents.extend(here),
                Err(error) => tracing::warn!(%command, %error, "for whom it is can't be read; looked for again soon"),
            }
        }
        self.engine.heard_of_work(&agents);
        self.engine.heard_missed(missed.iter());
        self.engine.heard_of(commands.into_iter().collect()).await;
        if all {
            self.engine.look_around(self.cluster.instance()).await;
        }
    }

    /// Read anew what has changed.
    async fn stamps(&self, seen: &mut Stamps) {
        let now = match self.store.stamps().await {
            Ok(now) => now,
            Err(error) => return tracing::warn!(%error, "what has changed can't be read"),
        };
        let first = seen.is_empty();
        let moved = |name: &str| now.get(name) != seen.get(name);
        if moved("tokens") {
            self.cluster.forget_tokens();
        }
        if moved("agents") {
            self.cluster.inner.agents.fetch_add(1, Ordering::Relaxed);
        }
        let mut good = true;
        if moved("repository")
            && let Some(repository) = self.repository.as_ref().filter(|_| !first)
            && let Err(error) = repository.reread().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the mirror can't be read anew");
            good = false;
        }
        if moved("catalog")
            && let Err(error) = self.catalog.reread().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the catalogue can't be read anew");
            good = false;
        }
        if good {
            *seen = now;
        }
    }

    /// What may run of a release that was killed elsewhere.
    async fn killed(&self, digest: &str) {
        if let Err(error) = self.rollouts.end_killed(digest).await {
            tracing::warn!(digest, error = &error as &dyn std::error::Error, "what runs of it can't be ended");
        }
    }
}

/// Answer for this instance's sessions.
async fn answer(cluster: Cluster, asked: Arc<Notify>) {
    let mut look = interval(CHALLENGES);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = asked.notified() => {}
        }
        cluster.answer().await;
    }
}

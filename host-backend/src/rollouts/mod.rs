//! Rollouts: a release reaches the fleet in stages, is judged by what it does there, and
//! goes back by itself when a gate fails. What counts is in the store, so that a restart
//! goes on where it was. Refuses two rollouts of a plugin, and a release that is held,
//! killed or not newer.
//!
//! - [`spec`]: what is asked for
//! - [`machine`]: what comes next, as a pure function
//! - [`members`]: whom a stage takes in
//! - [`observe`], [`tally`]: what releases do, and who has them
//! - [`shadow`]: what one would have done that nobody has
//! - [`run`]: the task that brings rollouts on
//! - [`kill`]: a release ends everywhere

mod kill;
pub mod machine;
mod members;
pub mod observe;
mod run;
pub mod shadow;
pub mod spec;
pub mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use viworks_protocol::id::AgentId;

use crate::authz::{Forbidden, Permit, action};
use crate::catalog::{Catalog, MAX_OPEN, Open, StandError};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::dispatch::Engine;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::model::{Rollout, RolloutState, Standing};
use crate::store::release::Progress;
use crate::store::{Store, StoreError};

pub use kill::Ended;
pub use machine::Facts;
pub use observe::Observer;
pub use shadow::{ShadowGlance, ShadowTally};
pub use spec::{Gates, Part, Shadow, Spec, SpecError, Stage};

/// What rollouts work with.
#[derive(Debug, Clone)]
pub struct Parts {
    pub catalog: Catalog,
    pub store: Store,
    pub hub: Hub,
    pub cluster: Cluster,
    pub engine: Engine,
    pub observer: Observer,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// A handle; clones share everything.
#[derive(Debug, Clone)]
pub struct Rollouts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    /// Agents with a session at another instance, as it was read last.
    elsewhere: Mutex<HashSet<AgentId>>,
    /// Something changed: look at once.
    wake: Notify,
}

#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    #[error("the rollout was halted by its shadow")]
    Halted(#[from] Forbidden),
    #[error("the rollout's stages or gates can't be used")]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Stand(#[from] StandError),
    #[error("the release is held: it asks for more, and nobody has approved that")]
    Held,
    #[error("nothing of the plugin is active to compare with; publish the release at once")]
    NoFormer,
    #[error("{MAX_OPEN} rollouts are under way already")]
    TooMany,
    #[error("the first stage takes in no agent")]
    NoMembers,
    #[error("there is no rollout {0}")]
    Unknown(String),
    #[error("the rollout is {state}")]
    State { state: RolloutState },
    #[error("the rollout changed meanwhile; look at it again")]
    Overtaken,
    #[error("the rollout can't be stored or read")]
    Store(#[from] StoreError),
}

/// What an operator does to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    Pause,
    Resume,
    Abort,
}

impl Rollouts {
    /// # Errors
    /// When what was counted before can't be read.
    pub async fn new(parts: Parts) -> Result<Self, StoreError> {
        parts.observer.restore(parts.store.tallies().await?);
        Ok(Self { inner: Arc::new(Inner { parts, elsewhere: Mutex::default(), wake: Notify::new() }) })
    }

    #[must_use]
    pub fn observer(&self) -> &Observer {
        &self.inner.parts.observer
    }

    /// Begin to roll `digest` out.
    ///
    /// # Errors
    /// Says what is in its way; nothing has changed then.
    pub async fn begin(&self, plugin: &str, digest: &str, spec: &Spec, by: &str) -> Result<Rollout, RolloutError> {
        let parts = &self.inner.parts;
        spec.check()?;
        let release = parts.catalog.release(plugin, digest).await?;
        match release.standing {
            Standing::Staged | Standing::Inactive => {}
            Standing::Held => return Err(RolloutError::Held),
            standing => return Err(StandError::Standing { standing, wanted: Standing::Staged }.into()),
        }
        let snapshot = parts.catalog.snapshot();
        if snapshot.open().len() >= MAX_OPEN {
            return Err(RolloutError::TooMany);
        }
        let former = snapshot.active(plugin).ok_or(RolloutError::NoFormer)?;
        if release.order() <= former.order() {
            return Err(StandError::NotNewer { version: former.version.clone() }.into());
        }
        let now_ms = parts.clock.now_ms();
        let mut rollout = Rollout {
            id: id(now_ms),
            plugin: plugin.to_owned(),
            digest: digest.to_owned(),
            former: former.digest.clone(),
            spec: serde_json::to_string(spec).unwrap_or_default(),
            state: RolloutState::Running,
            stage: 0,
            soaking_ms: None,
            everyone: false,
            reason: String::new(),
            created_ms: now_ms,
            created_by: by.to_owned(),
            changed_ms: now_ms,
            finished_ms: None,
        };
        let members = self.members(&mut rollout, spec, &Default::default()).await?;
        if members.is_empty() && !rollout.everyone {
            return Err(RolloutError::NoMembers);
        }
        parts.observer.forget(digest);
        let detail = format!("{plugin} {} to {} agents", release.version, members.len());
        let audit = parts.catalog.entry(by, "rollout.begin", rollout.id.clone(), detail);
        // It stands apart from the active one while it is rolled out.
        let standing = Some(Standing::Staged);
        let progress = Progress { members, standing, ..Progress::of(rollout.clone(), audit) };
        if !parts.catalog.proceed(progress, None).await? {
            return Err(RolloutError::Overtaken);
        }
        Metrics::count(&parts.metrics.rollouts, "begun");
        tracing::info!(rollout = rollout.id, plugin, digest, "rollout begun");
        self.inner.wake.notify_one();
        Ok(rollout)
    }

    /// Pause, resume or abort a rollout. After an abort its members are offered the former
    /// release again.
    ///
    /// # Errors
    /// When there is none, or it is not in a state for that.
    pub async fn steer(&self, plugin: &str, id: &str, steer: Steer, by: &str) -> Result<Rollout, RolloutError> {
        let parts = &self.inner.parts;
        let of = self.get(plugin, id).await?;
        let (state, action, standing) = match (steer, of.state) {
            (Steer::Pause, RolloutState::Running) => (RolloutState::Paused, "rollout.pause", None),
            (Steer::Resume, RolloutState::Paused) => (RolloutState::Running, "rollout.resume", None),
            (Steer::Abort, RolloutState::Running | RolloutState::Paused | RolloutState::Halted) => {
                (RolloutState::Aborted, "rollout.abort", Some(Standing::Inactive))
            }
            (_, state) => return Err(RolloutError::State { state }),
        };
        let reason = if steer == Steer::Resume { String::new() } else { format!("by {by}") };
        let audit = parts.catalog.entry(by, action, of.id.clone(), of.digest.clone());
        let since = of.changed_ms;
        let rollout = self.changed(Rollout { state, reason, ..of });
        let progress = Progress { standing, ..Progress::of(rollout.clone(), audit) };
        if !parts.catalog.proceed(progress, Some(since)).await? {
            return Err(RolloutError::Overtaken);
        }
        if steer == Steer::Abort {
            Metrics::count(&parts.metrics.rollouts, "aborted");
        }
        self.inner.wake.notify_one();
        Ok(rollout)
    }

    /// Go on with the first stage of a rollout that its shadow halted.
    ///
    /// # Errors
    /// When there is none, it was not halted, or the stage takes in nobody.
    pub async fn overrule(
        &self,
        plugin: &str,
        id: &str,
        permit: &Permit<action::Administer>,
    ) -> Result<Rollout, RolloutError> {
        let parts = &self.inner.parts;
        let of = self.get(plugin, id).await?;
        let snapshot = parts.catalog.snapshot();
        let open = snapshot.open().iter().find(|open| open.rollout.id == of.id);
        let Some(open) = open.filter(|_| of.state == RolloutState::Halted) else {
            return Err(RolloutError::State { state: of.state });
        };
        let spec = Spec::stored(&of)?;
        let since = of.changed_ms;
        let audit = parts.catalog.entry(permit.name(), "rollout.overrule", of.id.clone(), of.reason.clone());
        let mut rollout = Rollout { state: RolloutState::Running, reason: String::new(), ..of };
        let (members, tallies) = self.advance(&mut rollout, &spec, open).await?;
        if members.is_empty() && !rollout.everyone {
            return Err(RolloutError::NoMembers);
        }
        let rollout = self.changed(rollout);
        let progress =
            Progress { members, anew: true, tallies: tallies.clone(), ..Progress::of(rollout.clone(), audit) };
        if !parts.catalog.proceed(progress, Some(since)).await? {
            return Err(RolloutError::Overtaken);
        }
        parts.observer.restore(tallies);
        Metrics::count(&parts.metrics.rollouts, "overruled");
        tracing::warn!(rollout = rollout.id, plugin, by = permit.name(), "shadow overruled");
        self.inner.wake.notify_one();
        Ok(rollout)
    }

    /// A rollout of this plugin.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub async fn get(&self, plugin: &str, id: &str) -> Result<Rollout, RolloutError> {
        let found = self.inner.parts.store.rollout(id).await?;
        found.filter(|of| of.plugin == plugin).ok_or_else(|| RolloutError::Unknown(id.to_owned()))
    }

    /// What is known of a rollout now; of one that has ended, what its release did.
    #[must_use]
    pub fn facts(&self, rollout: &Rollout) -> Facts {
        let parts = &self.inner.parts;
        let snapshot = parts.catalog.snapshot();
        let open = snapshot.open().iter().find(|open| open.rollout.id == rollout.id);
        let mut facts = open.map(|open| self.reach(open)).unwrap_or_default();
        let mut former = parts.observer.verbs(&rollout.former);
        let (mut before, mut former_before) = parts.observer.before(&rollout.digest);
        let least = Spec::stored(rollout).map_or(1, |spec| spec.gates.min_samples);
        for (verb, new) in parts.observer.verbs(&rollout.digest) {
            let total = machine::Compared { new, former: former.remove(&verb).unwrap_or_default() };
            let before = machine::Compared {
                new: before.remove(&verb).unwrap_or_default(),
                former: former_before.remove(&verb).unwrap_or_default(),
            };
            facts.verbs.insert(verb.clone(), total.in_stage(&before, least));
            facts.totals.insert(verb, total);
        }
        facts.planned = parts.observer.planned(&rollout.digest);
        facts
    }

    /// How far an open rollout has come.
    fn reach(&self, open: &Open) -> Facts {
        let hub = &self.inner.parts.hub;
        let digest = &open.rollout.digest;
        let mut facts = Facts::default();
        let shadow = open.rollout.is_shadowing();
        self.inner.parts.observer.holders(&open.rollout.plugin, shadow, |holders| {
            use viworks_protocol::frame::PluginState::{Active, Refused};
            for (_, (_, state)) in holders.iter().filter(|(agent, (held, _))| held == digest && open.has(agent)) {
                facts.have += u32::from(*state == Active);
                facts.refused += u32::from(*state == Refused);
            }
            let mut present = |agent: &AgentId| {
                facts.present += 1;
                let held = holders.get(agent).filter(|(held, _)| held == digest);
                facts.settled += u32::from(held.is_some_and(|(_, state)| matches!(state, Active | Refused)));
            };
            let here = hub.all();
            here.iter().map(|session| &session.agent).filter(|agent| open.has(agent)).for_each(&mut present);
            let elsewhere = self.elsewhere();
            let members = elsewhere.iter().filter(|agent| open.has(agent) && !hub.is_connected(agent));
            if shadow {
                // What they have as a shadow is not stored: they are taken to have it.
                let there = u32::try_from(members.count()).unwrap_or(u32::MAX);
                facts.present += there;
                facts.have += there;
                facts.settled += there;
            } else {
                members.for_each(&mut present);
            }
        });
        facts
    }

    fn elsewhere(&self) -> std::sync::MutexGuard<'_, HashSet<AgentId>> {
        self.inner.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rollout with its changes' time: later than its last, so that no two are taken
    /// for one.
    fn changed(&self, of: Rollout) -> Rollout {
        let changed_ms = self.inner.parts.clock.now_ms().max(of.changed_ms + 1);
        let finished_ms = (!of.state.is_open()).then_some(changed_ms);
        Rollout { changed_ms, finished_ms, ..of }
    }
}

/// Sorts by time.
fn id(now_ms: u64) -> String {
    let mut random = [0; 6];
    // Without randomness it is still unique enough: one rollout a plugin and millisecond.
    let _ = getrandom::fill(&mut random);
    format!("rol-{now_ms:012x}{}", hex::encode(random))
}

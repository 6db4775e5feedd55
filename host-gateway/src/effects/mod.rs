//! Effects: the only door through which the host is changed. An effect is a serialisable
//! value that says what will change, from what, to what, and what takes it back. The
//! [`Recorder`] is the one dispatcher: it lets effects happen, or only plans them.
//!
//! The map: a capability makes an [`Effect`] → [`Effect::foresee`] completes it from the host
//! as it is (and as the plan so far has it), or refuses → `recorder` journals and applies,
//! or records → [`rollback`] takes back what a verb left that failed → [`undo`] takes back a
//! finished command. `step` is an effect with what became of it; `plan` the digest of many;
//! `diff` the lines that people read; [`compare`] what a release did with what another would do.

#[cfg(test)]
pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod diff;
mod plan;
#[cfg(test)]
mod property;
mod recorder;
pub mod rollback;
mod step;
#[cfg(test)]
mod tests;
pub mod undo;

pub use plan::{PlanSubject, digest};
pub use recorder::Recorder;
pub(crate) use recorder::{Ahead, Untold};
pub use step::{Step, StepState};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use viworks_protocol::outcome::DiffLine;

use crate::broker::wire::Behalf;
use crate::capabilities::{accounts, containers, scripts, state, vpn};
use crate::failure::Failure;
use crate::host::Host;

/// One change, of one capability. Holds no secret: effects are journaled and reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "capability", content = "change", rename_all = "snake_case")]
pub enum Effect {
    Accounts(accounts::Change),
    Vpn(vpn::Change),
    Containers(containers::Change),
    Scripts(scripts::Change),
    State(state::Change),
}

/// What taking an effect back would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inverse {
    Effect(Box<Effect>),
    Irreversible,
}

/// An effect that could happen now, complete: with everything that was left to choose
/// (which uid, which address) and everything that it takes the place of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foreseen {
    pub effect: Effect,
    /// What a plan answers in place of the effect: plausible, and never with a real key.
    /// A failure where only doing it could tell.
    pub answer: Result<Value, Failure>,
}

/// What the host shows of an effect whose result nobody knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trace {
    /// It did not happen.
    Absent,
    /// It happened, perhaps not to its end; this takes it back.
    Present(Inverse),
    Unclear,
}

/// Why an effect gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Unapplied {
    /// Nothing of it is left.
    Failed(Failure),
    /// Whoever applied it is gone: the host has to be looked at.
    Lost(String),
}

impl From<Failure> for Unapplied {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Effect {
    /// For example `accounts.create`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Accounts(change) => change.kind(),
            Self::Vpn(change) => change.kind(),
            Self::Containers(change) => change.kind(),
            Self::Scripts(change) => change.kind(),
            Self::State(change) => change.kind(),
        }
    }

    /// For example `accounts`.
    #[must_use]
    pub fn capability(&self) -> &'static str {
        self.kind().split('.').next().unwrap_or_default()
    }

    /// In words, for operators: `create account deploy`.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Accounts(change) => change.summary(),
            Self::Vpn(change) => change.summary(),
            Self::Containers(change) => change.summary(),
            Self::Scripts(change) => change.summary(),
            Self::State(change) => change.summary(),
        }
    }

    /// What changes, field by field. Of a foreseen effect it says all that binds a plan;
    /// what is random (a key, a serial) is named and not shown.
    #[must_use]
    pub fn diff(&self) -> Vec<DiffLine> {
        match self {
            Self::Accounts(change) => change.diff(),
            Self::Vpn(change) => change.diff(),
            Self::Containers(change) => change.diff(),
            Self::Scripts(change) => change.diff(),
            Self::State(change) => change.diff(),
        }
    }

    /// What takes a foreseen effect back.
    #[must_use]
    pub fn inverse(&self) -> Inverse {
        let inverse = match self {
            Self::Accounts(change) => Some(Self::Accounts(change.inverse())),
            Self::Vpn(change) => Some(Self::Vpn(change.inverse())),
            Self::Containers(change) => change.inverse().map(Self::Containers),
            Self::Scripts(_) => None,
            Self::State(change) => Some(Self::State(change.inverse())),
        };
        inverse.map_or(Inverse::Irreversible, |effect| Inverse::Effect(Box::new(effect)))
    }

    /// Complete the effect from the host as it is, with `planned` before it. A complete
    /// effect comes back as it is, or is refused: the host is not any more what it takes
    /// the place of.
    ///
    /// # Errors
    /// What applying it now would fail with, as far as that can be seen: `conflict`,
    /// `not-found`, `unavailable`, `denied`.
    pub(crate) async fn foresee(self, host: &Host, planned: &[Self]) -> Result<Foreseen, Failure> {
        if let Some(broker) = host.broker_of(&self) {
            return broker.foresee(self, planned).await;
        }
        match self {
            Self::Accounts(change) => host.accounts.foresee(change, planned).await,
            Self::Vpn(change) => host.vpn.foresee(change, planned).await,
            Self::Containers(change) => host.containers.foresee(change, planned).await,
            Self::Scripts(change) => host.scripts.foresee(change).await,
            Self::State(change) => host.state.foresee(change, planned).await,
        }
    }

    /// Whether it happened, by what the host shows. Wait for the effect's turn first.
    ///
    /// # Errors
    /// When the host can't be asked.
    pub(crate) async fn trace(&self, host: &Host) -> Result<Trace, Failure> {
        if let (Some(broker), false) = (host.broker_of(self), matches!(self, Self::Scripts(_))) {
            return broker.trace(self).await;
        }
        match self {
            Self::Accounts(change) => host.accounts.trace(change).await,
            Self::Vpn(change) => host.vpn.trace(change).await,
            Self::Containers(change) => host.containers.trace(change).await,
            Self::Scripts(_) => Ok(Trace::Unclear),
            Self::State(change) => host.state.trace(change).await,
        }
    }

    /// Hold others off between foreseeing and applying, where both choose from what is
    /// there: two verbs must not be promised the same uid.
    pub(crate) async fn turn(&self, host: &Host) -> Option<OwnedMutexGuard<()>> {
        host.turns.of(self.capability()).await
    }

    /// Change the host: a foreseen effect, in its turn, by the broker where there is one.
    /// Gives what the capability's function answers; never journaled. Called in this module
    /// alone.
    async fn apply(&self, host: &Host, behalf: Behalf) -> Result<Value, Unapplied> {
        match host.broker_of(self) {
            Some(broker) => broker.apply(self, behalf).await,
            None => Ok(self.happen(host).await?),
        }
    }

    /// Change the host with this process's own rights. Called above, and by the broker.
    pub(crate) async fn happen(&self, host: &Host) -> Result<Value, Failure> {
        match self {
            Self::Accounts(change) => host.accounts.apply(change).await,
            Self::Vpn(change) => host.vpn.apply(change).await,
            Self::Containers(change) => host.containers.apply(change).await,
            Self::Scripts(change) => host.scripts.apply(change, &host.secrets).await,
            Self::State(change) => host.state.apply(change).await,
        }
    }
}

impl Inverse {
    #[must_use]
    pub fn is_irreversible(&self) -> bool {
        matches!(self, Self::Irreversible)
    }
}

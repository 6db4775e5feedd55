//! Effects: the only door through which the host is changed. An effect is a serialisable
//! value that says what will change; the [`Recorder`] journals the intent, applies it and
//! journals the result with its inverse.

#[cfg(test)]
pub(crate) mod bench;
mod recorder;
#[cfg(test)]
mod tests;

pub use recorder::Recorder;

use serde::{Deserialize, Serialize};

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

/// An effect that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// What the capability's function answers, as JSON; never journaled.
    pub answer: serde_json::Value,
    pub inverse: Inverse,
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

    /// Change the host. Called by the [`Recorder`] alone.
    async fn apply(&self, host: &Host) -> Result<Applied, Failure> {
        match self {
            Self::Accounts(change) => host.accounts.apply(change).await,
            Self::Vpn(change) => host.vpn.apply(change).await,
            Self::Containers(change) => host.containers.apply(change).await,
            Self::Scripts(change) => host.scripts.apply(change).await,
            Self::State(change) => host.state.apply(change).await,
        }
    }
}

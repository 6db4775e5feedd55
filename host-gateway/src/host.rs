//! The one handle through which effects and reads reach the host: the providers of all
//! capabilities, made once from the configuration. What needs root is done by this process,
//! or by the broker where one is configured: never by both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::broker::Client;
use crate::capabilities::{accounts, containers, scripts, secrets, state, system, vpn};
use crate::effects::Effect;

/// The `[providers]` table of the gateway's configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    pub accounts: accounts::Config,
    pub vpn: vpn::Config,
    pub system: system::Config,
    pub containers: containers::Config,
    pub scripts: scripts::Config,
    pub state: state::Config,
    pub secrets: secrets::Config,
}

/// Who does what needs root.
#[derive(Debug, Clone, Default)]
pub enum Reach {
    /// This process, with its own rights.
    #[default]
    Here,
    Brokered(Client),
}

impl Reach {
    pub(crate) fn broker(&self) -> Option<&Client> {
        match self {
            Self::Here => None,
            Self::Brokered(client) => Some(client),
        }
    }
}

/// Shared by all invocations. Each provider serialises what must not run side by side.
#[derive(Debug)]
pub struct Host {
    pub accounts: accounts::Provider,
    pub vpn: vpn::Provider,
    pub system: system::Provider,
    pub containers: containers::Provider,
    pub scripts: scripts::Provider,
    pub state: state::Provider,
    pub secrets: secrets::Provider,
    pub(crate) turns: Turns,
    pub(crate) changes: Changes,
    reach: Reach,
}

/// How often this gateway began or ended to change the host: who looks twice and finds the
/// same number saw one host.
#[derive(Debug, Default)]
pub(crate) struct Changes(AtomicU64);

/// Begins and ends a change.
#[derive(Debug)]
pub(crate) struct Change<'c>(&'c Changes);

impl Changes {
    /// Each change counts as this.
    pub(crate) const EACH: u64 = 2;

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn one(&self) -> Change<'_> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Change(self)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// One effect at a time where what is chosen depends on what is there.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    accounts: Arc<Mutex<()>>,
    vpn: Arc<Mutex<()>>,
    state: Arc<Mutex<()>>,
}

impl Turns {
    /// Wait for the turn of a capability's effect. None for those whose effects name all
    /// that they change: a long stop of one container holds up no other.
    pub(crate) async fn of(&self, capability: &str) -> Option<OwnedMutexGuard<()>> {
        let turn = match capability {
            "accounts" => &self.accounts,
            "vpn" => &self.vpn,
            "state" => &self.state,
            _ => return None,
        };
        Some(Arc::clone(turn).lock_owned().await)
    }
}

impl Host {
    #[must_use]
    pub fn new(config: &HostConfig) -> Self {
        Self::reached(config, Reach::Here)
    }

    #[must_use]
    pub fn reached(config: &HostConfig, reach: Reach) -> Self {
        Self {
            accounts: accounts::Provider::reached(&config.accounts, reach.clone()),
            vpn: vpn::Provider::reached(&config.vpn, reach.clone()),
            system: system::Provider::new(&config.system),
            containers: containers::Provider::reached(&config.containers, reach.clone()),
            scripts: scripts::Provider::reached(&config.scripts, reach.clone()),
            state: state::Provider::new(&config.state),
            secrets: secrets::Provider::reached(&config.secrets, reach.clone()),
            turns: Turns::default(),
            changes: Changes::default(),
            reach,
        }
    }

    /// Who applies this effect, if not this process. What plugins keep is the gateway's own
    /// file, and needs nobody's rights.
    pub(crate) fn broker_of(&self, effect: &Effect) -> Option<&Client> {
        self.reach.broker().filter(|_| !matches!(effect, Effect::State(_)))
    }
}

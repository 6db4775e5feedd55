//! The one handle through which effects and reads reach the host: the providers of all
//! capabilities, made once from the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::capabilities::{accounts, containers, scripts, secrets, state, system, vpn};

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
        Self {
            accounts: accounts::Provider::new(&config.accounts),
            vpn: vpn::Provider::new(&config.vpn),
            system: system::Provider::new(&config.system),
            containers: containers::Provider::new(&config.containers),
            scripts: scripts::Provider::new(&config.scripts),
            state: state::Provider::new(&config.state),
            secrets: secrets::Provider::new(&config.secrets),
            turns: Turns::default(),
            changes: Changes::default(),
        }
    }
}

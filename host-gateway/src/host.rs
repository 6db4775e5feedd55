//! The one handle through which effects and reads reach the host: the providers of all
//! capabilities, made once from the configuration.

use serde::Deserialize;

use crate::capabilities::{accounts, containers, scripts, state, system, vpn};

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
        }
    }
}

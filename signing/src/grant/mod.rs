//! Scopes and grants: what a plugin asks for, what a host's owner allows, and what both
//! leave over. A grant keeps its layers apart, and every layer must allow a call, so
//! that no intersection of patterns has to be computed and a refusal can name its rule.

mod accounts;
mod containers;
mod pattern;
mod scripts;
mod state;
mod system;
mod vpn;

pub use accounts::{AccountsScope, UidRange};
pub use containers::ContainersScope;
pub use pattern::{Pattern, PatternError, Patterns};
pub use scripts::ScriptsScope;
pub use state::StateScope;
pub use system::SystemScope;
pub use vpn::VpnScope;

use serde::{Deserialize, Serialize};

/// Scopes by capability. What is absent is not asked for, or not allowed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scopes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<AccountsScope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpn: Option<VpnScope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemScope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainersScope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<ScriptsScope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateScope>,
}

impl Scopes {
    /// The names of the capabilities that have a scope, in one fixed order.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        [
            ("accounts", self.accounts.is_some()),
            ("vpn", self.vpn.is_some()),
            ("system", self.system.is_some()),
            ("containers", self.containers.is_some()),
            ("scripts", self.scripts.is_some()),
            ("state", self.state.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
    }
}

/// Who set a layer of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The signed release's request.
    Release,
    /// The host owner's policy.
    Policy,
}

/// One capability's scopes, one per layer. Exists only where every layer has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Granted<S> {
    layers: Vec<(Layer, S)>,
}

/// The rule that refused, for example `policy: accounts.groups`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Refused {
    pub rule: String,
}

/// What a plugin may do on this host: its release's request ∩ the host's policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grant {
    pub accounts: Option<Granted<AccountsScope>>,
    pub vpn: Option<Granted<VpnScope>>,
    pub system: Option<Granted<SystemScope>>,
    pub containers: Option<Granted<ContainersScope>>,
    pub scripts: Option<Granted<ScriptsScope>>,
    pub state: Option<Granted<StateScope>>,
}

impl Grant {
    /// What both allow.
    #[must_use]
    pub fn of(release: &Scopes, policy: &Scopes) -> Self {
        Self {
            accounts: both(&release.accounts, &policy.accounts),
            vpn: both(&release.vpn, &policy.vpn),
            system: both(&release.system, &policy.system),
            containers: both(&release.containers, &policy.containers),
            scripts: both(&release.scripts, &policy.scripts),
            state: both(&release.state, &policy.state),
        }
    }
}

fn both<S: Clone>(release: &Option<S>, policy: &Option<S>) -> Option<Granted<S>> {
    match (release, policy) {
        (Some(r), Some(p)) => Some(Granted { layers: vec![(Layer::Release, r.clone()), (Layer::Policy, p.clone())] }),
        _ => None,
    }
}

impl<S> Granted<S> {
    /// Every layer must allow it; `rule` is the scope's field, for example
    /// `accounts.groups`.
    ///
    /// # Errors
    /// Names the first layer that refuses, and the rule.
    pub fn require(&self, rule: &str, allows: impl Fn(&S) -> bool) -> Result<(), Refused> {
        match self.layers.iter().find(|(_, scope)| !allows(scope)) {
            None => Ok(()),
            Some((layer, _)) => {
                let who = match layer {
                    Layer::Release => "release",
                    Layer::Policy => "policy",
                };
                Err(Refused { rule: format!("{who}: {rule}") })
            }
        }
    }

    /// The scopes, the release's first.
    pub fn scopes(&self) -> impl Iterator<Item = &S> {
        self.layers.iter().map(|(_, scope)| scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_needs_both_and_names_the_layer_that_refuses() {
        let vpn = |names: &str| VpnScope {
            providers: vec!["wireguard".into()],
            names: Patterns::parse([names]).unwrap_or_default(),
        };
        let release = Scopes { vpn: Some(vpn("*")), state: Some(StateScope::default()), ..Scopes::default() };
        let policy = Scopes { vpn: Some(vpn("road-*")), ..Scopes::default() };
        let grant = Grant::of(&release, &policy);
        assert!(grant.state.is_none());
        let Some(vpn) = grant.vpn else { panic!("both have vpn") };
        assert_eq!(vpn.require("vpn.names", |s| s.names.match_any("road-1")), Ok(()));
        assert_eq!(
            vpn.require("vpn.names", |s| s.names.match_any("x")),
            Err(Refused { rule: "policy: vpn.names".into() })
        );
    }
}

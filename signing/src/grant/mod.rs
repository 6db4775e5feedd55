//! Scopes and grants: what a plugin asks for, what security reviews and the host's owner
//! allow, and what all of them leave over. A grant keeps its layers apart, and every layer must allow a call, so
//! that no intersection of patterns has to be computed and a refusal can name its rule.

mod accounts;
mod containers;
mod pattern;
mod read;
mod scripts;
mod secrets;
mod state;
mod system;
mod vpn;

pub use accounts::{AccountsScope, UidRange};
pub use containers::ContainersScope;
pub use pattern::{Pattern, PatternError, Patterns};
pub(crate) use read::{read_limits, read_scopes};
pub use scripts::ScriptsScope;
pub use secrets::SecretsScope;
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretsScope>,
}

/// The capabilities that have scopes, in one fixed order.
pub(crate) const CAPABILITIES: [&str; 7] = ["accounts", "vpn", "system", "containers", "scripts", "state", "secrets"];

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
            ("secrets", self.secrets.is_some()),
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
    /// A security review of that release.
    Review,
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

/// What a plugin may do on this host: its release's request ∩ what every security review
/// of it allows ∩ the host's policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grant {
    pub accounts: Option<Granted<AccountsScope>>,
    pub vpn: Option<Granted<VpnScope>>,
    pub system: Option<Granted<SystemScope>>,
    pub containers: Option<Granted<ContainersScope>>,
    pub scripts: Option<Granted<ScriptsScope>>,
    pub state: Option<Granted<StateScope>>,
    pub secrets: Option<Granted<SecretsScope>>,
}

impl Grant {
    /// What the host owner allows, whoever asks: for who does not know the release.
    #[must_use]
    pub fn of_policy(policy: &Scopes) -> Self {
        Self::of_layers(&[(Layer::Policy, policy)])
    }

    /// What all allow. Without reviews, release and policy decide.
    #[must_use]
    pub fn of<'a>(release: &Scopes, reviews: impl IntoIterator<Item = &'a Scopes>, policy: &Scopes) -> Self {
        let mut layers = vec![(Layer::Release, release)];
        layers.extend(reviews.into_iter().map(|review| (Layer::Review, review)));
        layers.push((Layer::Policy, policy));
        Self::of_layers(&layers)
    }

    fn of_layers(layers: &[(Layer, &Scopes)]) -> Self {
        Self {
            accounts: granted(layers, |scopes| &scopes.accounts),
            vpn: granted(layers, |scopes| &scopes.vpn),
            system: granted(layers, |scopes| &scopes.system),
            containers: granted(layers, |scopes| &scopes.containers),
            scripts: granted(layers, |scopes| &scopes.scripts),
            state: granted(layers, |scopes| &scopes.state),
            secrets: granted(layers, |scopes| &scopes.secrets),
        }
    }
}

fn granted<S: Clone>(layers: &[(Layer, &Scopes)], of: impl Fn(&Scopes) -> &Option<S>) -> Option<Granted<S>> {
    let layer = |(layer, scopes): &(Layer, &Scopes)| Some((*layer, of(scopes).clone()?));
    Some(Granted { layers: layers.iter().map(layer).collect::<Option<_>>()? })
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
                    Layer::Review => "review",
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

    fn vpn(names: &str) -> Scopes {
        let scope =
            VpnScope { providers: vec!["wireguard".into()], names: Patterns::parse([names]).unwrap_or_default() };
        Scopes { vpn: Some(scope), ..Scopes::default() }
    }

    fn rule(grant: &Grant, name: &str) -> String {
        let Some(vpn) = &grant.vpn else { panic!("every layer has vpn") };
        let asked = vpn.require("vpn.names", |s| s.names.match_any(name));
        asked.map_or_else(|refused| refused.rule, |()| "allowed".into())
    }

    #[test]
    fn a_grant_needs_every_layer_and_names_the_one_that_refuses() {
        let release = Scopes { state: Some(StateScope::default()), ..vpn("r*") };
        let grant = Grant::of(&release, [], &vpn("*-1"));
        assert!(grant.state.is_none());
        assert_eq!(rule(&grant, "road-1"), "allowed");
        assert_eq!(rule(&grant, "road-2"), "policy: vpn.names");
        assert_eq!(rule(&grant, "x-1"), "release: vpn.names");
    }

    #[test]
    fn every_review_narrows_and_one_without_the_capability_takes_it_away() {
        let (release, policy) = (vpn("*"), vpn("*"));
        let grant = Grant::of(&release, [&vpn("road-*"), &vpn("*-1")], &policy);
        assert_eq!(rule(&grant, "road-1"), "allowed");
        assert_eq!(rule(&grant, "road-2"), "review: vpn.names");
        assert_eq!(rule(&grant, "rail-1"), "review: vpn.names");
        assert!(Grant::of(&release, [&vpn("*"), &Scopes::default()], &policy).vpn.is_none());
    }
}

//! What a rollout is asked to do: stages and gates, as the API takes them and the store
//! keeps them. Refuses what could never end or never judge.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use crate::store::StoreError;
use crate::store::model::{Rollout, Selector};

const MAX_STAGES: usize = 20;
const MAX_SOAK_SECS: u32 = 30 * 24 * 3_600;

/// Stages in their order, and what must hold in each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Before the first stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    pub stages: Vec<Stage>,
    #[serde(default)]
    pub gates: Gates,
}

/// Who gets the release in this stage, beside those of earlier ones: exactly one of
/// `agents`, `percent`, `channel` and `selector`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// So many agents in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<u32>,
    /// So many of a hundred agents in all; 100 takes in whoever comes later, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub percent: Option<u8>,
    /// Every agent whose label `channel` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Every agent for which all given conditions hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Group>,
    /// Once all members that are there have the release, it is watched for so long.
    #[serde(default = "soak")]
    pub soak_secs: u32,
}

/// Before anybody gets the release it is planned beside the former one, on these agents:
/// exactly one of `agents`, `percent`, `channel` and `selector`. Nothing of it is applied.
/// Where it would do something else, the rollout is halted, and an administrator decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ShadowStage)]
pub struct Shadow {
    /// So many agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<u32>,
    /// So many of a hundred agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub percent: Option<u8>,
    /// Every agent whose label `channel` is this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Every agent for which all given conditions hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Group>,
    /// Once all of them that are there have it, it is watched for so long.
    pub soak_secs: u32,
    /// So many invocations must have been compared in that time.
    #[schema(minimum = 1)]
    pub min_invocations: u32,
    /// So many may have other effects than the former release's.
    pub max_departed: u32,
    /// So many may fail where the former release does not.
    pub max_failed: u32,
}

impl Default for Shadow {
    fn default() -> Self {
        Self {
            agents: None,
            percent: None,
            channel: None,
            selector: None,
            soak_secs: soak(),
            min_invocations: 10,
            max_departed: 0,
            max_failed: 0,
        }
    }
}

/// A part of a rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part<'s> {
    Shadow(&'s Shadow),
    /// Its number, from 0.
    Stage(usize, &'s Stage),
}

fn soak() -> u32 {
    300
}

/// A group of agents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
}

/// When a rollout is halted and rolled back. Each verb is judged by itself, against what
/// the former release did, once the new one ran it `min_samples` times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// Of the new release for every gate; of the former one for `latency` and `cpu`.
    #[schema(minimum = 1)]
    pub min_samples: u32,
    /// The share of invocations that fail may be so much above the former release's.
    pub errors: f64,
    /// The same of those that are denied.
    pub denials: f64,
    /// The 95th percentile of wall time may be so many times the former release's.
    pub latency: f64,
    /// The mean of cpu time may be so many times the former release's.
    pub cpu: f64,
    /// The share of members that may refuse the release.
    pub refused: f64,
    /// Whether a stage waits until some verb has `min_samples`, however long that takes.
    pub require_samples: bool,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            min_samples: 10,
            errors: 0.05,
            denials: 0.05,
            latency: 1.5,
            cpu: 1.5,
            refused: 0.1,
            require_samples: false,
        }
    }
}

/// What is wrong with a spec, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct SpecError {
    pub at: String,
    pub what: String,
}

fn fault(at: impl Into<String>, what: impl Into<String>) -> Result<(), SpecError> {
    Err(SpecError { at: at.into(), what: what.into() })
}

impl Spec {
    /// A rollout's spec as it is stored.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn stored(of: &Rollout) -> Result<Self, StoreError> {
        serde_json::from_str(&of.spec).map_err(|_| StoreError::Corrupt { what: "rollout", text: of.spec.clone() })
    }

    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.stages.is_empty() || self.stages.len() > MAX_STAGES {
            return fault("stages", format!("between 1 and {MAX_STAGES} are wanted"));
        }
        if let Some(shadow) = &self.shadow {
            shadow.who().check("shadow")?;
            if shadow.min_invocations == 0 {
                return fault("shadow/min_invocations", "at least 1");
            }
        }
        for (n, stage) in self.stages.iter().enumerate() {
            stage.check(&format!("stages/{n}"))?;
        }
        let gates = &self.gates;
        if gates.min_samples == 0 {
            return fault("gates/min_samples", "at least 1");
        }
        for (name, share) in [("errors", gates.errors), ("denials", gates.denials), ("refused", gates.refused)] {
            if !(0.0..=1.0).contains(&share) {
                return fault(format!("gates/{name}"), "a share between 0 and 1");
            }
        }
        for (name, factor) in [("latency", gates.latency), ("cpu", gates.cpu)] {
            if !(1.0..=1_000.0).contains(&factor) {
                return fault(format!("gates/{name}"), "a factor between 1 and 1000");
            }
        }
        Ok(())
    }
}

impl Spec {
    /// What the stored `stage` of a rollout means: the shadow, where there is one, is 0.
    #[must_use]
    pub fn part(&self, stage: u32) -> Option<Part<'_>> {
        let at = match (&self.shadow, stage) {
            (Some(shadow), 0) => return Some(Part::Shadow(shadow)),
            (Some(_), stage) => stage as usize - 1,
            (None, stage) => stage as usize,
        };
        self.stages.get(at).map(|stage| Part::Stage(at, stage))
    }
}

impl Shadow {
    /// Its agents and its time.
    #[must_use]
    pub fn who(&self) -> Stage {
        let Self { agents, percent, channel, selector, soak_secs, .. } = self.clone();
        Stage { agents, percent, channel, selector, soak_secs }
    }
}

impl Part<'_> {
    #[must_use]
    pub fn who(&self) -> Stage {
        match self {
            Self::Shadow(shadow) => shadow.who(),
            Self::Stage(_, stage) => (*stage).clone(),
        }
    }

    pub(super) fn words(&self, of: usize) -> String {
        match self {
            Self::Shadow(_) => "shadow".to_owned(),
            Self::Stage(at, _) => format!("stage {} of {of}", at + 1),
        }
    }
}

impl Stage {
    fn check(&self, at: &str) -> Result<(), SpecError> {
        let given = [self.agents.is_some(), self.percent.is_some(), self.channel.is_some(), self.selector.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return fault(at, "exactly one of agents, percent, channel and selector is wanted");
        }
        if self.agents == Some(0) {
            return fault(format!("{at}/agents"), "at least 1");
        }
        if self.percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
            return fault(format!("{at}/percent"), "between 1 and 100");
        }
        if self.selector.as_ref().is_some_and(|group| group.labels.is_empty() && group.site.is_none()) {
            return fault(format!("{at}/selector"), "selects nobody: give labels or a site, or percent 100");
        }
        if self.soak_secs > MAX_SOAK_SECS {
            return fault(format!("{at}/soak_secs"), format!("at most {MAX_SOAK_SECS}"));
        }
        Ok(())
    }

    /// The stage's group of agents, if it is one.
    #[must_use]
    pub fn group(&self) -> Option<Selector> {
        let channel = self.channel.as_ref().map(|channel| Selector {
            labels: BTreeMap::from([("channel".to_owned(), channel.clone())]),
            ..Selector::default()
        });
        channel.or_else(|| {
            self.selector.as_ref().map(|group| Selector {
                labels: group.labels.clone(),
                site: group.site.clone(),
                all: false,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value) -> Result<(), String> {
        serde_json::from_value::<Spec>(spec).map_err(|e| e.to_string())?.check().map_err(|e| e.to_string())
    }

    #[test]
    fn a_whole_spec_is_taken() {
        let spec = json!({"stages": [{"agents": 1, "soak_secs": 0}, {"channel": "beta"}, {"percent": 100}],
            "gates": {"min_samples": 3, "errors": 0}});
        assert_eq!(check(spec), Ok(()));
    }

    #[test]
    fn a_shadow_comes_before_the_stages() {
        let spec = |shadow: serde_json::Value| {
            serde_json::from_value::<Spec>(json!({"shadow": shadow, "stages": [{"agents": 1}, {"percent": 100}]}))
                .expect("a spec")
        };
        let with = spec(json!({"percent": 10}));
        assert!(with.check().is_ok());
        let Some(Part::Shadow(shadow)) = with.part(0) else { panic!("{:?}", with.part(0)) };
        assert_eq!((shadow.soak_secs, shadow.min_invocations, shadow.max_departed, shadow.max_failed), (300, 10, 0, 0));
        assert!(matches!(with.part(1), Some(Part::Stage(0, _))) && with.part(3).is_none());
        let without = spec(json!(null));
        assert!(matches!(without.part(0), Some(Part::Stage(0, _))) && without.part(2).is_none());
    }

    #[test]
    fn faults_are_named() {
        for (spec, word) in [
            (json!({"stages": []}), "stages"),
            (json!({"stages": [{}]}), "exactly one"),
            (json!({"stages": [{"agents": 1, "percent": 5}]}), "exactly one"),
            (json!({"stages": [{"agents": 0}]}), "stages/0/agents"),
            (json!({"stages": [{"percent": 101}]}), "stages/0/percent"),
            (json!({"stages": [{"selector": {}}]}), "selects nobody"),
            (json!({"stages": [{"percent": 1, "soak": 3}]}), "unknown field"),
            (json!({"stages": [{"percent": 1}], "shadow": {}}), "exactly one"),
            (
                json!({"stages": [{"percent": 1}], "shadow": {"agents": 1, "min_invocations": 0}}),
                "shadow/min_invocations",
            ),
            (json!({"stages": [{"percent": 1}], "shadow": {"agents": 1, "max": 0}}), "unknown field"),
            (json!({"stages": [{"percent": 1}], "gates": {"errors": 2}}), "gates/errors"),
            (json!({"stages": [{"percent": 1}], "gates": {"latency": 0.5}}), "gates/latency"),
            (json!({"stages": [{"percent": 1}], "gates": {"min_samples": 0}}), "gates/min_samples"),
        ] {
            let fault = check(spec.clone()).expect_err("refused");
            assert!(fault.contains(word), "{spec}: {fault}");
        }
    }
}

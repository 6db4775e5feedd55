//! What gateways say of a release that is planned beside the one that serves, in numbers
//! and a few samples. Refuses to grow: reasons and samples are bounded, whoever tells them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::shadow::{Departure, Shadow, Verdict};

/// Samples that a tally keeps, the first ones.
const MAX_SAMPLES: usize = 5;

/// Reasons to skip that are told apart.
const MAX_REASONS: usize = 8;
const OTHER: &str = "other";

/// One verb of a release that was planned beside another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowTally {
    pub equal: u64,
    pub departed: u64,
    pub failed: u64,
    /// By reason.
    #[serde(default)]
    pub skipped: BTreeMap<String, u64>,
    #[serde(default)]
    pub samples: Vec<ShadowSample>,
}

/// One invocation whose shadow departed or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowSample {
    #[schema(value_type = String)]
    pub agent: AgentId,
    #[schema(value_type = String)]
    pub invocation: InvocationId,
    /// `departed` or `failed`.
    #[schema(value_type = String)]
    pub verdict: Verdict,
    /// Of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What would have been otherwise.
    #[serde(default)]
    pub lines: Vec<ShadowLine>,
    /// Departures that are not listed.
    #[serde(default)]
    pub more: u32,
}

/// One thing that would have been otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowLine {
    /// The effect's place, from 1; 0: the invocation's end.
    pub effect: u32,
    pub field: String,
    /// What the active release did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// What the shadow would have done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<String>,
}

/// What is taken of a report: nothing where no shadow was.
#[derive(Debug, Clone)]
pub struct ShadowGlance(pub(super) Box<Shadow>);

impl ShadowGlance {
    /// Within bounds, whatever a gateway sends.
    #[must_use]
    pub fn of(shadow: &Shadow) -> Self {
        Self(Box::new(shadow.clone().bounded()))
    }
}

impl ShadowTally {
    /// All that could be compared.
    #[must_use]
    pub fn compared(&self) -> u64 {
        self.equal + self.departed + self.failed
    }

    #[must_use]
    pub fn skips(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// What another counted too, within the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.equal += other.equal;
        self.departed += other.departed;
        self.failed += other.failed;
        for (reason, count) in &other.skipped {
            let known = self.skipped.len() < MAX_REASONS || self.skipped.contains_key(reason);
            *self.skipped.entry(if known { reason.clone() } else { OTHER.to_owned() }).or_default() += count;
        }
        let room = MAX_SAMPLES.saturating_sub(self.samples.len());
        self.samples.extend(other.samples.iter().take(room).cloned());
    }

    pub fn add(&mut self, agent: &AgentId, invocation: &InvocationId, shadow: &Shadow) {
        match shadow.verdict {
            Verdict::Equal => self.equal += 1,
            Verdict::Skipped => {
                let reason = shadow.code.as_deref().unwrap_or(OTHER);
                let known = self.skipped.len() < MAX_REASONS || self.skipped.contains_key(reason);
                *self.skipped.entry(if known { reason } else { OTHER }.to_owned()).or_default() += 1;
            }
            Verdict::Departed => self.departed += 1,
            Verdict::Failed => self.failed += 1,
        }
        if matches!(shadow.verdict, Verdict::Departed | Verdict::Failed) && self.samples.len() < MAX_SAMPLES {
            self.samples.push(ShadowSample {
                agent: agent.clone(),
                invocation: invocation.clone(),
                verdict: shadow.verdict,
                code: shadow.code.clone(),
                message: shadow.message.clone(),
                lines: shadow.departures.iter().map(ShadowLine::of).collect(),
                more: shadow.more,
            });
        }
    }
}

impl ShadowLine {
    fn of(departure: &Departure) -> Self {
        let Departure { effect, field, active, shadow } = departure.clone();
        Self { effect, field, active, shadow }
    }
}

impl std::fmt::Display for ShadowLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} instead of {}", self.field, side(&self.shadow), side(&self.active))
    }
}

impl std::fmt::Display for ShadowSample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.code, self.lines.first()) {
            (_, Some(line)) => write!(f, "{line}"),
            (Some(code), None) => write!(f, "{code}: {}", self.message.as_deref().unwrap_or_default()),
            (None, None) => f.write_str("it departed"),
        }?;
        write!(f, " on {}", self.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use viworks_protocol::outcome::Cost;

    #[test]
    fn a_tally_counts_everything_and_keeps_little() {
        let (agent, invocation) = ("a".parse().expect("an agent"), format!("inv-{:032x}", 1).parse().expect("an id"));
        let told = |verdict, code: &str| Shadow { verdict, ..Shadow::skipped("d", code, Cost::default()) };
        let mut tally = ShadowTally::default();
        for n in 0..100 {
            tally.add(&agent, &invocation, &told(Verdict::Departed, "x"));
            tally.add(&agent, &invocation, &told(Verdict::Equal, ""));
            tally.add(&agent, &invocation, &told(Verdict::Skipped, &format!("reason {n}")));
        }
        assert_eq!((tally.equal, tally.departed, tally.compared(), tally.skips()), (100, 100, 200, 100));
        assert_eq!((tally.samples.len(), tally.skipped.len()), (MAX_SAMPLES, MAX_REASONS + 1));
        let text = serde_json::to_string(&tally).expect("JSON");
        assert_eq!(serde_json::from_str::<ShadowTally>(&text).expect("a tally"), tally);
    }
}

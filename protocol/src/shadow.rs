//! What a gateway says of a release that it planned beside the one that ran: whether its
//! effects would have been the same. Small: a bounded list of what departs, and no result.

use serde::{Deserialize, Serialize};

use crate::outcome::Cost;

/// Departures that one report tells; the rest is counted.
pub const MAX_DEPARTURES: usize = 8;

/// Longer texts of a departure are cut.
pub const MAX_TEXT: usize = 256;

/// One invocation of the active release, and the plan of a shadow beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// Of the release that was planned: lowercase hex SHA-256 of its component.
    pub digest: String,
    pub verdict: Verdict,
    /// Why it failed (a failure's code) or was skipped (`busy`, `late`, `disturbed`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The digest of its plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The same digest over what the active release did, as it was foreseen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// The first [`MAX_DEPARTURES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departures: Vec<Departure>,
    /// How many more there are.
    #[serde(default)]
    pub more: u32,
    /// Of the plan alone.
    pub cost: Cost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As far as a plan can tell.
    Equal,
    /// Other effects, or another end.
    Departed,
    /// It failed where the active release did not.
    Failed,
    /// Nothing can be said.
    Skipped,
}

/// One thing that would have been otherwise. Absent on one side: that side has no such thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Departure {
    /// The effect's place, from 1; 0: the invocation's end.
    pub effect: u32,
    /// `kind`, `summary`, `irreversible`, `outcome`, or a field of the effect's diff.
    pub field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<String>,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Equal, Self::Departed, Self::Failed, Self::Skipped];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Departed => "departed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Shadow {
    /// Nothing was planned to an end.
    #[must_use]
    pub fn skipped(digest: impl Into<String>, code: &str, cost: Cost) -> Self {
        Self {
            digest: digest.into(),
            verdict: Verdict::Skipped,
            code: Some(code.to_owned()),
            message: None,
            plan: None,
            active: None,
            departures: Vec::new(),
            more: 0,
            cost,
        }
    }

    /// Within the bounds, whoever made it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let over = self.departures.len().saturating_sub(MAX_DEPARTURES);
        self.departures.truncate(MAX_DEPARTURES);
        self.more = self.more.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
        for text in [&mut self.code, &mut self.message, &mut self.plan, &mut self.active].into_iter().flatten() {
            cut(text);
        }
        cut(&mut self.digest);
        for departure in &mut self.departures {
            cut(&mut departure.field);
            [&mut departure.active, &mut departure.shadow].into_iter().flatten().for_each(cut);
        }
        self
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT - 3));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_told_is_bounded() {
        let long = "ü".repeat(10_000);
        let departure = Departure { effect: 1, field: long.clone(), active: Some(long.clone()), shadow: None };
        let told = Shadow {
            message: Some(long),
            departures: vec![departure; 100],
            more: 1,
            ..Shadow::skipped("ab".repeat(32), "late", Cost::default())
        };
        let told = told.bounded();
        assert_eq!((told.departures.len(), told.more), (MAX_DEPARTURES, 93));
        let text = serde_json::to_string(&told).unwrap_or_default();
        assert!(text.len() < 8 * 1024, "{}", text.len());
        assert_eq!(serde_json::from_str::<Shadow>(&text).ok(), Some(told.clone()));
        assert_eq!(told.clone().bounded(), told, "once is enough");
    }
}

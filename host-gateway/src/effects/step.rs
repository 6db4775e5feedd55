//! An effect of an invocation with what became of it, in memory and in the journal.

use viworks_protocol::outcome::{EffectReport, EffectState};

use super::{Effect, Inverse};

/// The `seq`th effect of an invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub seq: u32,
    /// Foreseen: complete.
    pub effect: Effect,
    pub state: StepState,
}

/// What is known of it. The numbers are the journal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// About to happen, or happening: its result is not known.
    Intended,
    Applied,
    /// Nothing of it is left.
    Failed,
    RolledBack,
    /// Applied, and it could not be taken back.
    Stuck,
    /// Applied, and about to be taken back: whether it was is not known.
    Returning,
    /// Nobody can tell, the host looked at.
    Unknown,
    /// Of a plan.
    Planned,
}

impl StepState {
    /// The state of that number in the journal.
    #[must_use]
    pub fn of_code(code: u8) -> Self {
        match code {
            1 => Self::Applied,
            2 => Self::Failed,
            3 => Self::RolledBack,
            4 => Self::Stuck,
            5 => Self::Returning,
            _ => Self::Intended,
        }
    }

    #[must_use]
    pub fn report(self) -> EffectState {
        match self {
            Self::Applied => EffectState::Applied,
            Self::Failed => EffectState::Failed,
            Self::RolledBack => EffectState::RolledBack,
            Self::Stuck => EffectState::Stuck,
            Self::Intended | Self::Returning | Self::Unknown => EffectState::Unknown,
            Self::Planned => EffectState::Planned,
        }
    }
}

impl Step {
    #[must_use]
    pub fn report(&self) -> EffectReport {
        EffectReport {
            kind: self.effect.kind().to_owned(),
            summary: self.effect.summary(),
            state: self.state.report(),
            diff: self.effect.diff(),
            irreversible: self.is_irreversible(),
        }
    }

    #[must_use]
    pub fn is_irreversible(&self) -> bool {
        matches!(self.effect.inverse(), Inverse::Irreversible)
    }
}

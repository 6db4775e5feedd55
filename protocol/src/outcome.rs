//! How an invocation ended: what the gateway reports, the backend settles and operators
//! read.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use viworks_signing::dsse::Envelope;

use crate::shadow::Shadow;
use crate::trace::Timing;

/// The end of an invocation. `expired` means never delivered, `failed` means it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    Failed,
    /// Refused by warrant, grant or policy.
    Denied,
    Cancelled,
    Expired,
    /// It can't be told whether its effects happened.
    Unknown,
}

impl Outcome {
    pub const ALL: [Self; 6] =
        [Self::Succeeded, Self::Failed, Self::Denied, Self::Cancelled, Self::Expired, Self::Unknown];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }
}

impl std::str::FromStr for Outcome {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|o| o.as_str() == text).ok_or(())
    }
}

/// Why it did not succeed. `code` is stable, for programs; `message` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// A case of the WIT `failure` (`invalid-argument`, `denied`, …) or of the gateway:
    /// `timeout`, `busy`, `trap`, `limit`, `cancelled`, `interrupted`, `warrant`,
    /// `plugin`.
    pub code: String,
    pub message: String,
    /// The rule that refused, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// One effect as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectReport {
    /// For example `accounts.create`.
    pub kind: String,
    /// In words: `create account deploy (uid 1004)`.
    pub summary: String,
    pub state: EffectState,
    /// What it changes, in fields that people know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<DiffLine>,
    /// Whether it can't be taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub irreversible: bool,
}

/// One field of an effect: absent before means that it appears, absent after that it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffLine {
    pub field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectState {
    /// Recorded by a plan, not applied.
    Planned,
    Applied,
    Failed,
    /// The intent was journaled and no result: it may have happened.
    Unknown,
    /// Applied, and taken back when the verb failed.
    RolledBack,
    /// Applied, and could not be taken back when the verb failed.
    Stuck,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    pub message: String,
}

/// What an invocation used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Microseconds from start to outcome.
    pub wall_us: u64,
    /// Microseconds in the guest and its host calls' own work.
    pub cpu_us: u64,
    pub peak_memory_bytes: u64,
    pub host_calls: u32,
    pub denials: u32,
}

/// Everything about the end of one invocation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub outcome: Outcome,
    /// The verb's result as JSON, if it succeeded and has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<EffectReport>,
    /// Of a plan: lowercase hex SHA-256 over its effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The gateway's signed record of all this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Envelope>>,
    /// What another release would have done, where one is planned beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Box<Shadow>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// Whether log lines were dropped at the limit.
    #[serde(default)]
    pub log_truncated: bool,
    pub cost: Cost,
    /// Its steps, where the order came with a sampled trace; at most [`crate::trace::MAX_TIMINGS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timings: Vec<Timing>,
    /// Unix milliseconds by the gateway's clock; 0 if it never started.
    pub started_ms: u64,
    pub finished_ms: u64,
}

impl Report {
    /// An invocation that ended without running.
    #[must_use]
    pub fn refused(outcome: Outcome, code: &str, message: impl Into<String>, now_ms: u64) -> Self {
        Self {
            outcome,
            result: None,
            failure: Some(Failure { code: code.to_owned(), message: message.into(), rule: None }),
            effects: Vec::new(),
            plan: None,
            receipt: None,
            shadow: None,
            log: Vec::new(),
            log_truncated: false,
            cost: Cost::default(),
            timings: Vec::new(),
            started_ms: 0,
            finished_ms: now_ms,
        }
    }
}

//! The shapes of commands and invocations in the API, and how they are made from what is
//! stored. Bodies are strict: an unknown field is refused with the valid choices.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use crate::api::moment::Moment;
use crate::store::model;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Do it.
    #[default]
    Apply,
    /// Say what would be done.
    Plan,
}

/// Which agents: all given conditions must hold. One without conditions selects nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    #[serde(default)]
    #[schema(required = false)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub site: Option<String>,
    /// Every agent, if no other condition is given.
    #[serde(default)]
    #[schema(required = false)]
    pub all: bool,
}

/// A verb, its arguments and its targets: either `agent_targets` or `selector`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// For example `add_user`.
    pub verb: String,
    /// They must fit the verb's schema.
    #[serde(default)]
    #[schema(required = false, value_type = Object)]
    pub args: serde_json::Map<String, serde_json::Value>,
    /// Agents by id.
    #[serde(default)]
    pub agent_targets: Option<Vec<String>>,
    #[serde(default)]
    pub selector: Option<Selector>,
    #[serde(default)]
    #[schema(required = false)]
    pub mode: Mode,
    /// Bind the command to a plan: its digest, or the id of the command that made it, of
    /// the same verb and arguments. A gateway stops before it departs from its plan.
    #[serde(default)]
    pub plan: Option<String>,
    /// How many operators other than the caller must approve it before it is delivered.
    #[serde(default)]
    #[schema(maximum = 8)]
    pub approvals: Option<u32>,
    /// Wall-clock limit of one invocation; the verb's own if absent.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub timeout_secs: Option<u32>,
    /// How long agents that are offline may get it.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 86400)]
    pub expires_in_secs: Option<u32>,
    /// At most so many targets at once.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub batch: Option<u32>,
    /// The same as the `Idempotency-Key` header.
    #[serde(default)]
    #[schema(pattern = "^[!-~]{1,128}$")]
    pub idempotency_key: Option<String>,
    /// Wait so long for the results before answering.
    #[serde(default)]
    #[schema(maximum = 60)]
    pub wait_secs: Option<u32>,
}

/// How to take back what a command did.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoRequest {
    /// `plan` says what the undo would do.
    #[serde(default)]
    #[schema(required = false)]
    pub mode: Mode,
    /// Stop before the first effect that this plan of the same undo does not have: its digest,
    /// or the id of the command that made it.
    #[serde(default)]
    pub plan: Option<String>,
    /// How many operators other than the caller must approve it before it is delivered.
    #[serde(default)]
    #[schema(maximum = 8)]
    pub approvals: Option<u32>,
    /// How long agents that are offline may get it.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 86400)]
    pub expires_in_secs: Option<u32>,
    /// Wait so long for the results before answering.
    #[serde(default)]
    #[schema(maximum = 60)]
    pub wait_secs: Option<u32>,
}

/// The answer to a command that was accepted and has not ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedCommand {
    pub id: String,
    #[schema(value_type = CommandStateWord)]
    pub state: model::CommandState,
    pub verb: String,
    pub mode: Mode,
    /// How many agents.
    pub targets: u32,
}

/// A command without its invocations.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandSummary {
    pub id: String,
    pub verb: String,
    pub plugin: String,
    /// Lowercase hex SHA-256 of the plugin's component.
    pub digest: String,
    pub mode: Mode,
    #[schema(value_type = Object)]
    pub args: Box<RawValue>,
    /// The token's name.
    pub caller: String,
    #[schema(value_type = CommandStateWord)]
    pub state: model::CommandState,
    pub created: Moment,
    pub expires: Moment,
    pub finished: Option<Moment>,
    pub timeout_secs: u32,
    pub batch: Option<u32>,
    pub targets: u32,
    /// Lowercase hex root of the Merkle tree over the targets in their order: what
    /// warrants and approvals are signed over.
    pub targets_root: String,
    /// Digests of the plans that it is bound to; empty if it is not.
    pub plans: Vec<String>,
    /// The command that this one takes back.
    pub undo_of: Option<String>,
    /// The command that took this one back, or tried to, last.
    pub undone_by: Option<String>,
    /// Null if it needed none.
    pub approvals: Option<Approvals>,
    #[schema(value_type = CommandCounts)]
    pub counts: model::Counts,
}

/// How many operators had to approve a command, and who did.
#[derive(Debug, Serialize, ToSchema)]
pub struct Approvals {
    pub needed: u32,
    pub given: Vec<GivenApproval>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct GivenApproval {
    pub operator: String,
    /// The id of the key that signed.
    pub key: String,
    pub at: Moment,
}

/// Agents that would do the same, and what that is.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlanGroup {
    /// Lowercase hex SHA-256 of the canonical effects.
    pub digest: String,
    /// How many agents made this plan.
    pub count: u32,
    /// The first hundred of them.
    pub agents: Vec<String>,
    /// In the order in which they would happen; empty if nothing would.
    pub effects: Vec<Effect>,
}

/// A command with its first thousand invocations.
#[derive(Debug, Serialize, ToSchema)]
pub struct Command {
    #[serde(flatten)]
    pub summary: CommandSummary,
    pub invocations: Vec<Invocation>,
    /// The cursor of `/commands/{id}/invocations` after these; null if they are all.
    pub next: Option<String>,
}

/// One command on one agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Invocation {
    pub id: String,
    pub agent: String,
    #[schema(value_type = InvocationStateWord)]
    pub state: model::InvocationState,
    /// The verb's result, by its schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    pub effects: Vec<Effect>,
    /// Of a plan: its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    pub log: Vec<LogLine>,
    /// Log lines were dropped at the limit.
    pub log_truncated: bool,
    pub cost: Cost,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Moment>,
}

/// Why it did not succeed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Failure {
    /// Stable, for programs.
    pub code: String,
    pub message: String,
    /// The rule that refused, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// One change to the host.
#[derive(Debug, Serialize, ToSchema)]
pub struct Effect {
    pub kind: String,
    pub summary: String,
    #[schema(value_type = EffectStateWord)]
    pub state: viworks_protocol::outcome::EffectState,
    /// What it changes, in fields that people know.
    pub diff: Vec<DiffLine>,
    /// Whether it can't be taken back.
    pub irreversible: bool,
}

/// One field of an effect: null before means that it appears, null after that it goes.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiffLine {
    pub field: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LogLine {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    pub message: String,
}

/// What an invocation used.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Cost {
    pub wall_us: u64,
    pub cpu_us: u64,
    pub peak_memory_bytes: u64,
    pub host_calls: u32,
    pub denials: u32,
}

/// How many invocations are in each state.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "the schema of `model::Counts`")]
pub struct CommandCounts {
    queued: u32,
    sent: u32,
    running: u32,
    succeeded: u32,
    failed: u32,
    denied: u32,
    cancelled: u32,
    expired: u32,
    unknown: u32,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of `model::CommandState`")]
pub enum CommandStateWord {
    AwaitingApproval,
    Queued,
    Running,
    Finished,
    Cancelled,
    Expired,
}

/// The last six are outcomes.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of `model::InvocationState`")]
pub enum InvocationStateWord {
    Queued,
    Sent,
    Running,
    Succeeded,
    Failed,
    Denied,
    Cancelled,
    Expired,
    Unknown,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "the schema of `viworks_protocol::outcome::EffectState`")]
pub enum EffectStateWord {
    Planned,
    Applied,
    Failed,
    Unknown,
    RolledBack,
    Stuck,
}

impl From<viworks_protocol::warrant::Mode> for Mode {
    fn from(mode: viworks_protocol::warrant::Mode) -> Self {
        match mode {
            viworks_protocol::warrant::Mode::Apply => Self::Apply,
            viworks_protocol::warrant::Mode::Plan => Self::Plan,
        }
    }
}

impl From<Mode> for viworks_protocol::warrant::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Apply => Self::Apply,
            Mode::Plan => Self::Plan,
        }
    }
}

impl From<&model::Command> for AcceptedCommand {
    fn from(command: &model::Command) -> Self {
        Self {
            id: command.id.to_string(),
            state: command.state,
            verb: command.verb.clone(),
            mode: command.mode.into(),
            targets: command.targets,
        }
    }
}

impl From<model::Command> for CommandSummary {
    fn from(command: model::Command) -> Self {
        Self {
            id: command.id.into(),
            verb: command.verb,
            plugin: command.plugin,
            digest: command.digest,
            mode: command.mode.into(),
            // It was written as JSON; null would only show that the database was tampered with.
            args: RawValue::from_string(command.args).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            caller: command.caller,
            state: command.state,
            created: Moment(command.created_ms),
            expires: Moment(command.expires_ms),
            finished: command.finished_ms.map(Moment),
            timeout_secs: command.timeout_secs,
            batch: command.batch,
            targets: command.targets,
            targets_root: command.targets_root,
            plans: command.plans,
            undo_of: command.undo_of.map(String::from),
            undone_by: command.undone_by.map(String::from),
            approvals: (command.approvals_needed > 0).then(|| Approvals {
                needed: command.approvals_needed,
                given: command.approvals.into_iter().map(GivenApproval::from).collect(),
            }),
            counts: command.counts,
        }
    }
}

impl From<model::Approved> for GivenApproval {
    fn from(approved: model::Approved) -> Self {
        Self { operator: approved.operator, key: approved.key, at: Moment(approved.at_ms) }
    }
}

impl From<model::PlanGroup> for PlanGroup {
    fn from(group: model::PlanGroup) -> Self {
        let effects: Vec<viworks_protocol::outcome::EffectReport> =
            serde_json::from_str(&group.effects).unwrap_or_default();
        Self {
            digest: group.digest,
            count: group.count,
            agents: group.agents.into_iter().map(String::from).collect(),
            effects: effects.into_iter().map(Effect::from).collect(),
        }
    }
}

impl From<viworks_protocol::outcome::EffectReport> for Effect {
    fn from(effect: viworks_protocol::outcome::EffectReport) -> Self {
        let line =
            |l: viworks_protocol::outcome::DiffLine| DiffLine { field: l.field, before: l.before, after: l.after };
        Self {
            kind: effect.kind,
            summary: effect.summary,
            state: effect.state,
            diff: effect.diff.into_iter().map(line).collect(),
            irreversible: effect.irreversible,
        }
    }
}

impl Command {
    /// A command of one target and its invocation.
    #[must_use]
    pub fn of_one(command: model::Command, only: model::Invocation) -> Self {
        Self { summary: command.into(), invocations: vec![only.into()], next: None }
    }
}

impl From<model::Invocation> for Invocation {
    fn from(stored: model::Invocation) -> Self {
        let mut invocation = Self {
            id: stored.id.to_string(),
            agent: stored.agent.to_string(),
            state: stored.state,
            result: None,
            failure: None,
            effects: Vec::new(),
            plan: None,
            log: Vec::new(),
            log_truncated: false,
            cost: Cost::default(),
            started: stored.started_ms.map(Moment),
            finished: stored.finished_ms.map(Moment),
        };
        if let Some(report) = stored.report() {
            invocation.result = report.result;
            invocation.failure = report.failure.map(|f| Failure { code: f.code, message: f.message, rule: f.rule });
            invocation.effects = report.effects.into_iter().map(Effect::from).collect();
            invocation.plan = report.plan;
            invocation.log = report.log.into_iter().map(|l| LogLine { level: l.level, message: l.message }).collect();
            invocation.log_truncated = report.log_truncated;
            invocation.cost = Cost {
                wall_us: report.cost.wall_us,
                cpu_us: report.cost.cpu_us,
                peak_memory_bytes: report.cost.peak_memory_bytes,
                host_calls: report.cost.host_calls,
                denials: report.cost.denials,
            };
        }
        invocation
    }
}

//! What the store keeps, in types: agents, commands and their invocations, plugins,
//! telemetry, tokens, audit. No SQL, no JSON of the API.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::outcome::{Outcome, Report};
use viworks_protocol::telemetry::Sample;
use viworks_protocol::warrant::Mode;
use viworks_signing::dsse::Envelope;

use super::receipt::ChainStanding;

/// The most rows of one page.
pub const MAX_PAGE: u32 = 1_000;

/// One page of a list: rows after the cursor, in the list's own order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageOf {
    /// What the page before gave as `next`.
    pub after: Option<String>,
    /// Clamped to 1..=[`MAX_PAGE`].
    pub limit: u32,
}

impl PageOf {
    #[must_use]
    pub fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }

    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.clamp(1, MAX_PAGE)
    }
}

#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The cursor of the next page, if there is one.
    pub next: Option<String>,
}

/// A gateway as the backend knows it.
#[derive(Debug, Clone)]
pub struct Agent {
    pub id: AgentId,
    /// Whether it had a session when last written; the hub knows the moment.
    pub online: bool,
    /// Unseen for longer than `stale_after_secs`.
    pub stale: bool,
    pub site: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub version: String,
    pub boot: String,
    pub max_concurrency: u32,
    pub first_seen_ms: u64,
    pub last_seen_ms: u64,
    pub plugins: Vec<PluginStatus>,
    /// Of the key that is pinned, if there is one.
    pub receipts: Option<ChainStanding>,
    /// Whose its session is, or was last.
    pub owner: Option<Owner>,
}

/// Which of an instance's sessions an agent's is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub instance: String,
    /// Unique at the instance.
    pub session: String,
}

/// All given conditions must hold.
#[derive(Debug, Clone, Default)]
pub struct AgentFilter {
    pub online: Option<bool>,
    pub site: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// Which agents a command is for. All given conditions must hold; none given selects
/// nobody, never everybody.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    pub labels: BTreeMap<String, String>,
    pub site: Option<String>,
    pub all: bool,
}

impl Selector {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.site.is_none() && !self.all
    }
}

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$inner:meta])* $case:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$inner])* $case),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$case),+];

            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$case => $text),+ }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|s| s.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// A word that is none of a closed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of the known words")]
pub struct UnknownWord(pub String);

states! {
    /// Where a command stands.
    CommandState {
        AwaitingApproval = "awaiting_approval",
        Queued = "queued",
        Running = "running",
        Finished = "finished",
        Cancelled = "cancelled",
        Expired = "expired",
    }
}

states! {
    /// Where an invocation stands; the last six are its outcome.
    InvocationState {
        Queued = "queued",
        Sent = "sent",
        Running = "running",
        Succeeded = "succeeded",
        Failed = "failed",
        Denied = "denied",
        Cancelled = "cancelled",
        Expired = "expired",
        Unknown = "unknown",
    }
}

states! {
    /// What a token's bearer may do.
    Role { Viewer = "viewer", Operator = "operator", Publisher = "publisher", Admin = "admin" }
}

states! {
    /// Where a release stands. One of a plugin is active; what was killed never comes back.
    Standing {
        Active = "active",
        /// It asks for more than what it replaces, and nobody has approved that.
        Held = "held",
        /// Published and offered to nobody but a rollout's members.
        Staged = "staged",
        Inactive = "inactive",
        Killed = "killed",
    }
}

states! {
    /// Where a rollout stands; the last three are its end.
    RolloutState {
        Running = "running",
        Paused = "paused",
        /// Its shadow departed: an administrator decides.
        Halted = "halted",
        Succeeded = "succeeded",
        /// A gate failed: its members were offered the former release again.
        RolledBack = "rolled_back",
        Aborted = "aborted",
    }
}

states! {
    Decision { Allowed = "allowed", Refused = "refused" }
}

impl InvocationState {
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Sent | Self::Running)
    }
}

impl From<Outcome> for InvocationState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::Denied => Self::Denied,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Expired => Self::Expired,
            Outcome::Unknown => Self::Unknown,
        }
    }
}

/// How many invocations of a command are in each state; kept, never counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub queued: u32,
    pub sent: u32,
    pub running: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub denied: u32,
    pub cancelled: u32,
    pub expired: u32,
    pub unknown: u32,
}

impl Counts {
    /// Not settled yet.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.queued + self.in_flight()
    }

    /// Handed to an agent and not settled.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.sent + self.running
    }
}

/// A caller's word that names one request, so that it happens once however often it is
/// sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: String,
    /// Lowercase hex SHA-256 of the request as it was asked, before targets were frozen.
    pub request_sha256: String,
}

#[cfg(test)]
impl From<&str> for IdempotencyKey {
    fn from(key: &str) -> Self {
        Self { key: key.to_owned(), request_sha256: String::new() }
    }
}

/// A command as accepted, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub id: CommandId,
    pub verb: String,
    pub plugin: String,
    pub digest: String,
    /// Other releases that may serve it: a rollout's, or the one just replaced.
    pub also: Vec<String>,
    pub mode: Mode,
    /// Canonical JSON (RFC 8785), an object.
    pub args: String,
    pub caller: String,
    pub state: CommandState,
    pub created_ms: u64,
    pub expires_ms: u64,
    pub finished_ms: Option<u64>,
    pub timeout_secs: u32,
    /// At most so many targets in flight.
    pub batch: Option<u32>,
    pub targets: u32,
    pub targets_root: String,
    pub idempotency_key: Option<IdempotencyKey>,
    /// Digests of plans that it is bound to; empty: not bound.
    pub plans: Vec<String>,
    /// The command that this one takes back.
    pub undo_of: Option<CommandId>,
    /// The command that took this one back, or tried to, last.
    pub undone_by: Option<CommandId>,
    /// How many operators must approve it before it is delivered.
    pub approvals_needed: u32,
    pub approvals: Vec<Approved>,
    pub cancel_requested: bool,
    pub counts: Counts,
    /// The `seq` of the invocation that was settled last; 0 when none was.
    pub last_seq: u64,
}

impl Command {
    /// Nothing of it may reach an agent yet.
    #[must_use]
    pub fn is_awaiting(&self) -> bool {
        self.approvals.len() < self.approvals_needed as usize
    }
}

/// An operator's approval of a command, verified when it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    pub operator: String,
    /// The id of the key that signed.
    pub key: String,
    pub at_ms: u64,
    /// With that one signature.
    pub envelope: Envelope,
}

/// A key whose signatures count as an operator's approvals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// Lowercase hex SHA-256 of its SPKI.
    pub key: String,
    /// A token's name.
    pub operator: String,
    pub pem: String,
    pub created_ms: u64,
    pub created_by: String,
}

/// Agents that would do the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanGroup {
    pub digest: String,
    pub count: u32,
    /// The first ones, in the order of the targets.
    pub agents: Vec<AgentId>,
    /// The effects of the first, as its report has them.
    pub effects: String,
}

#[derive(Debug, Clone, Default)]
pub struct CommandFilter {
    pub state: Option<CommandState>,
    pub verb: Option<String>,
    pub caller: Option<String>,
}

/// One command on one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub id: InvocationId,
    pub command: CommandId,
    pub agent: AgentId,
    /// Its place among the frozen targets, from 0.
    pub ordinal: u32,
    pub state: InvocationState,
    /// Its place among the settled ones of its command, from 1.
    pub seq: Option<u64>,
    /// The gateway's report as JSON, once settled.
    pub report: Option<String>,
    pub sent_ms: Option<u64>,
    pub started_ms: Option<u64>,
    pub finished_ms: Option<u64>,
}

impl Invocation {
    /// The parsed report, once settled.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        self.report.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }
}

/// A published release.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub plugin: String,
    pub version: String,
    pub digest: String,
    pub epoch: u32,
    pub sequence: u32,
    /// The verified release as JSON (`viworks_signing::release::Release`).
    pub release: String,
    pub component_size: u32,
    pub statements_size: u32,
    pub published_ms: u64,
    pub published_by: String,
    pub standing: Standing,
    /// What an approval makes of it: [`Standing::Active`] or [`Standing::Staged`].
    pub wanted: Standing,
    /// When it became the active release last.
    pub activated_ms: Option<u64>,
    /// Why it was killed.
    pub note: String,
}

impl Plugin {
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.standing == Standing::Active
    }

    /// What only grows.
    #[must_use]
    pub fn order(&self) -> (u32, u32) {
        (self.epoch, self.sequence)
    }
}

/// A release on its way to all agents, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    pub id: String,
    pub plugin: String,
    /// The release that is rolled out, and the one that was active when it began.
    pub digest: String,
    pub former: String,
    /// Stages and gates as JSON (`rollouts::Spec`).
    pub spec: String,
    pub state: RolloutState,
    /// The stage at hand, from 0; where the spec has a shadow, that is stage 0.
    pub stage: u32,
    /// When the stage's last member that is there had the release: soaking began.
    pub soaking_ms: Option<u64>,
    /// Every agent is a member, also those that are not known yet.
    pub everyone: bool,
    /// Why it was halted, paused or ended.
    pub reason: String,
    pub created_ms: u64,
    pub created_by: String,
    pub changed_ms: u64,
    pub finished_ms: Option<u64>,
}

impl Rollout {
    /// Whether its members plan the release beside the former one, and none has it active.
    #[must_use]
    pub fn is_shadowing(&self) -> bool {
        /// The one thing of a spec that the catalogue has to know.
        #[derive(serde::Deserialize)]
        struct Spec {
            #[serde(default)]
            shadow: Option<serde::de::IgnoredAny>,
        }
        self.stage == 0 && serde_json::from_str(&self.spec).is_ok_and(|spec: Spec| spec.shadow.is_some())
    }
}

impl RolloutState {
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Halted)
    }
}

/// On how many agents a release is in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PluginSpread {
    pub active: u32,
    pub fetching: u32,
    pub refused: u32,
}

/// A sample as stored; `at_ms` is by the backend's clock where the agent's was off.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSample {
    pub at_ms: u64,
    /// Raw samples that this one stands for: 1, or those of the hour.
    pub samples: u32,
    pub sample: Sample,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    Raw,
    Hour,
}

/// A bearer token. The token itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub role: Role,
    /// SHA-256 of the whole token text.
    pub sha256: [u8; 32],
    pub created_ms: u64,
    pub expires_ms: Option<u64>,
}

/// One decision, for the append-only record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub at_ms: u64,
    /// A token's name, `agent:<id>`, `peer:<address>` or `backend`.
    pub actor: String,
    /// For example `command.accept`.
    pub action: String,
    pub subject: String,
    pub decision: Decision,
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub seq: u64,
    pub entry: AuditEntry,
}

impl AuditEntry {
    /// As a line of the log, for whoever collects these.
    pub(crate) fn log(&self) {
        let Self { actor, action, subject, decision, detail, .. } = self;
        tracing::info!(target: crate::log::AUDIT, actor, action, subject, decision = decision.as_str(), detail);
    }
}

/// How many there are of what has not ended, by state. A state that nothing is in is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// `online`, `offline`, `stale`.
    pub agents: BTreeMap<String, u64>,
    pub commands: BTreeMap<String, u64>,
    /// Releases by standing.
    pub releases: BTreeMap<String, u64>,
    pub rollouts: BTreeMap<String, u64>,
    /// Plugins on agents: `fetching`, `active`, `refused`.
    pub plugins: BTreeMap<String, u64>,
}

impl Census {
    /// Enter one row of a count: `what` is a field's name.
    pub(super) fn add(&mut self, what: &str, state: String, n: u64) {
        let of = match what {
            "agents" => &mut self.agents,
            "commands" => &mut self.commands,
            "releases" => &mut self.releases,
            "rollouts" => &mut self.rollouts,
            _ => &mut self.plugins,
        };
        of.insert(state, n);
    }
}

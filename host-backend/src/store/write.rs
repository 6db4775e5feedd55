//! Every change that the store knows: [`Op`]s that their caller waits for, durable once
//! answered, and [`Note`]s that are written soon. Both are data; engines apply them.

use std::collections::BTreeMap;
use viworks_protocol::chunk::Part;
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};
use viworks_protocol::telemetry::Sample;

use super::model::{Approved, Approver, AuditEntry, Command, InvocationState, Owner, Plugin, Token};
use super::receipt::{ChainEnd, NewReceipt, StoredAnchor, Walked};

/// A command to be stored with all its invocations.
#[derive(Debug, Clone)]
pub struct NewCommand {
    /// `state`, `counts` and `last_seq` are set by the store.
    pub command: Command,
    /// In the order of the frozen targets.
    pub targets: Vec<Target>,
    pub audit: AuditEntry,
}

#[derive(Debug, Clone)]
pub struct Target {
    pub invocation: InvocationId,
    pub agent: AgentId,
    /// Handed to delivery with this very commit: stored as `sent`.
    pub deliver: bool,
}

/// What became of a [`NewCommand`].
#[derive(Debug, Clone)]
pub enum Acceptance {
    Stored(Command),
    /// The caller's idempotency key was used before, for the same request.
    Replayed(Command),
    /// The same for another request.
    KeyReused(CommandId),
    /// It would take back what this command is taking back.
    BeingUndone(CommandId),
}

/// What became of an approval.
#[derive(Debug, Clone)]
pub enum Approval {
    /// It counts; with the last one that was needed, the command is queued.
    Counted(Command),
    /// This operator had approved it.
    Repeated,
    /// The command waits for no approval.
    NotAwaited(Command),
}

/// The end of one invocation, as somebody reported it.
#[derive(Debug, Clone)]
pub struct Settlement {
    pub invocation: InvocationId,
    /// Whose session reported it: no agent settles another's.
    pub agent: AgentId,
    pub state: InvocationState,
    pub report: String,
    /// The digest of its plan, if it made one.
    pub plan: Option<String>,
    pub receipt: Option<Box<NewReceipt>>,
    pub started_ms: Option<u64>,
    pub finished_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Settled {
        command: CommandId,
        ordinal: u32,
        seq: u64,
    },
    /// It had been settled before.
    Duplicate {
        command: CommandId,
    },
    /// The invocation of another agent.
    Foreign,
    /// There is no such invocation.
    Absent,
}

/// What a change to invocations came to.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// One for each settlement, in order.
    pub verdicts: Vec<Verdict>,
    /// The commands that were touched, as they are now.
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// Those that were queued and are `sent` now.
    pub invocations: Vec<InvocationId>,
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub struct Cancelled {
    pub command: Command,
    /// At the agents already: to be cancelled there.
    pub in_flight: Vec<(AgentId, InvocationId)>,
    /// Settled by this call.
    pub settled: u32,
}

#[derive(Debug, Clone, Default)]
pub struct Expired {
    pub commands: Vec<Command>,
    pub expired: u32,
    pub unknown: u32,
    /// There is more to expire at once.
    pub more: bool,
}

/// A release to be published.
#[derive(Debug, Clone)]
pub struct NewPlugin {
    pub plugin: Plugin,
    pub component: bytes::Bytes,
    pub statements: bytes::Bytes,
    pub audit: AuditEntry,
}

#[derive(Debug, Clone)]
pub enum Publication {
    /// As it stands now.
    Stored(Plugin),
    /// An equal or higher (epoch, sequence) was published already.
    NotNewer { newest: Plugin },
    /// It was killed.
    Killed,
}

/// What is older than these times (Unix milliseconds) goes, a bounded part at a time.
#[derive(Debug, Clone, Copy)]
pub struct Horizon {
    pub telemetry_ms: u64,
    pub hours_ms: u64,
    pub commands_ms: u64,
    pub audit_ms: u64,
    pub receipts_ms: u64,
}

/// A change whose caller waits.
#[derive(Debug)]
pub enum Op {
    Accept(Box<NewCommand>),
    Claim {
        invocations: Vec<InvocationId>,
        now_ms: u64,
    },
    Settle(Vec<Settlement>),
    Cancel {
        command: CommandId,
        now_ms: u64,
        audit: AuditEntry,
    },
    Approve {
        command: CommandId,
        approved: Box<Approved>,
        audit: AuditEntry,
    },
    AddApprover {
        approver: Approver,
        audit: AuditEntry,
    },
    RemoveApprover {
        key: String,
        audit: AuditEntry,
    },
    WalkReceipts {
        now_ms: u64,
    },
    Anchor {
        anchor: Box<StoredAnchor>,
        ends: Vec<ChainEnd>,
    },
    Expire {
        now_ms: u64,
        grace_ms: u64,
    },
    Publish(Box<NewPlugin>),
    Deactivate {
        plugin: String,
        audit: AuditEntry,
    },
    Release(Box<super::release::Change>),
    CreateToken {
        token: Token,
        audit: AuditEntry,
    },
    RevokeToken {
        name: String,
        audit: AuditEntry,
    },
    MarkStale {
        before_ms: u64,
        now_ms: u64,
    },
    /// Only sessions of other instances that live are left.
    AllOffline {
        instance: String,
    },
    /// The instance lives, and has so long to say so again.
    Beat {
        instance: String,
        ttl_ms: u64,
    },
    /// The instance goes: its leases and its sessions end.
    Leave {
        instance: String,
    },
    /// Take or renew a lease.
    Lease {
        name: String,
        holder: String,
        ttl_ms: u64,
    },
    GiveUp {
        name: String,
        holder: String,
    },
    Cluster(Box<super::cluster::Change>),
    Prune(Horizon),
    Probe {
        now_ms: u64,
    },
    /// Nothing; answered once every note before it is written.
    Flush,
}

impl Op {
    /// The audit entry that is stored with it.
    pub(super) fn audit(&self) -> Option<&AuditEntry> {
        use super::release::Change;
        Some(match self {
            Self::Accept(new) => &new.audit,
            Self::Publish(new) => &new.audit,
            Self::Cancel { audit, .. }
            | Self::Approve { audit, .. }
            | Self::AddApprover { audit, .. }
            | Self::RemoveApprover { audit, .. }
            | Self::Deactivate { audit, .. }
            | Self::CreateToken { audit, .. }
            | Self::RevokeToken { audit, .. } => audit,
            Self::Release(change) => match &**change {
                Change::Approve { audit, .. } | Change::Kill { audit, .. } => audit,
                Change::Begin(progress) | Change::Proceed(progress) => &progress.audit,
                Change::Tallies(_) | Change::Mirror(_) => return None,
            },
            _ => return None,
        })
    }
}

/// What a gateway said of itself at its start.
#[derive(Debug, Clone)]
pub struct AgentHello {
    pub agent: AgentId,
    pub version: String,
    pub boot: String,
    pub site: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub max_concurrency: u32,
    pub plugins: Vec<PluginStatus>,
    /// Id and SPKI PEM of the key that signs its receipts.
    pub receipt_key: Option<(String, String)>,
    /// Whose session it is.
    pub owner: Owner,
    pub at_ms: u64,
}

/// What the renewed lease of an instance came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beat {
    /// It had no lease: it is new, or was taken for dead and its sessions for ended.
    pub fresh: bool,
    /// All that live, this one too.
    pub living: Vec<String>,
    /// Those whose leases were found to have run out.
    pub dead: Vec<String>,
    /// Agents that had their sessions there.
    pub orphaned: Vec<AgentId>,
}

/// A change that nobody waits for: written within [`super::NOTE_DELAY`], many at once.
#[derive(Debug, Clone)]
pub enum Note {
    Hello(Box<AgentHello>),
    /// The session ended.
    Gone {
        agent: AgentId,
        owner: Owner,
        at_ms: u64,
    },
    /// They have these sessions at the instance.
    Seen {
        instance: String,
        sessions: Vec<(AgentId, String)>,
        at_ms: u64,
    },
    /// The gateway has journaled it.
    Running {
        agent: AgentId,
        invocation: InvocationId,
        at_ms: u64,
    },
    Plugin {
        agent: AgentId,
        status: PluginStatus,
    },
    Sample {
        agent: AgentId,
        at_ms: u64,
        sample: Box<Sample>,
    },
    Audit(Box<AuditEntry>),
}

/// The answer to an [`Op`], of the same name.
#[derive(Debug)]
pub enum Answer {
    Accepted(Box<Acceptance>),
    Claimed(Claimed),
    Settled(Settled),
    /// `None`: there is no such command.
    Cancelled(Option<Box<Cancelled>>),
    /// `None`: there is no such command.
    Approved(Option<Box<Approval>>),
    Walked(Walked),
    Expired(Expired),
    Published(Box<Publication>),
    /// As the release stands now; `None`: there is none, or it did not stand as expected.
    Released(Option<Box<Plugin>>),
    /// Whether there was something to do it to.
    Done(bool),
    Agents(Vec<AgentId>),
    Beaten(Beat),
    /// Rows that went.
    Pruned(u64),
    Probed(u64),
    Cluster(super::cluster::Done),
}

/// Which bytes of a release.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartKey {
    pub digest: String,
    pub part: Part,
}

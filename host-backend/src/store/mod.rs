//! The one face of durable state. Writes are values ([`write::Op`], [`write::Note`]) that
//! one writer commits in groups; reads are pages on indexes and never wait for it.
//! Refuses: SQL outside an engine's folder, unbounded lists, a second writer.
//!
//! - [`model`], [`receipt`]: what is kept
//! - [`write`]: every change; [`release`]: those of releases and rollouts
//! - [`cluster`]: what several instances share
//! - [`writer`]: the queue and the group commit
//! - [`url`]: which engine, and where
//! - [`sqlite`], [`postgres`]: the engines, each the only place of its SQL
//! - [`rows`], [`columns`], [`lists`], [`gather`], [`moves`], [`ends`], [`chains`], [`schema`]: what
//!   engines share, without SQL
//! - [`copy`]: whole stores, for backups and moves between engines

mod chains;
pub mod cluster;
mod columns;
pub(crate) mod copy;
mod ends;
mod gather;
mod lists;
pub mod model;
mod moves;
mod postgres;
pub mod receipt;
pub mod release;
mod rows;
mod schema;
mod sqlite;
#[cfg(test)]
pub(crate) mod tests;
pub mod url;
pub mod write;
mod writer;

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

use self::url::StoreUrl;
use crate::log::AUDIT;
use model::{
    Agent, AgentFilter, Approved, Approver, AuditEntry, AuditRow, Census, Command, CommandFilter, Invocation,
    InvocationState, Page, PageOf, PlanGroup, Plugin, PluginSpread, Resolution, Rollout, Selector, StoredSample, Token,
};
use receipt::{ChainEnd, ReceiptFilter, ReceiptKey, StoredAnchor, StoredReceipt, Walked};
use write::{
    Acceptance, Answer, Approval, Beat, Cancelled, Claimed, Expired, Horizon, NewCommand, NewPlugin, Note, Op, PartKey,
    Publication, Settled, Settlement,
};

/// A note is on disk this long after it was handed over, if the disk keeps up.
pub const NOTE_DELAY: Duration = Duration::from_millis(50);

/// The longest that anybody waits for an answer of the writer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest that a read of a server takes.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database can't be opened")]
    Open(#[source] sqlx::Error),
    #[error("the database can't be brought to this version's form")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("the database is of a newer form, which asks for migration {floor}; {known} is the newest known here")]
    TooNew { floor: i64, known: i64 },
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
    #[error("the database can't be reached")]
    Unavailable(#[source] sqlx::Error),
    #[error("{0} is of a newer form of the store: use the program of the backend that made it")]
    Foreign(String),
    #[error("the store is not empty: there are {0}")]
    NotEmpty(&'static str),
    #[error("{table}: {found} rows are there, {wanted} were written, or they differ")]
    Differs { table: &'static str, wanted: u64, found: u64 },
    /// Somebody else was quicker, at another instance.
    #[error("{0} is taken")]
    Taken(String),
    #[error("stored {what} is malformed: {text:?}")]
    Corrupt { what: &'static str, text: String },
    #[error("{0:?} is not a cursor of this list")]
    Cursor(String),
    #[error("the writer's queue is full")]
    Busy,
    #[error("the store is closed")]
    Closed,
    #[error("the writer did not answer in time")]
    Timeout,
}

/// A handle; clones share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    writer: writer::Writer,
}

#[derive(Debug, Clone)]
enum Engine {
    Sqlite(sqlite::Readers),
    Postgres(postgres::Readers),
}

/// How long the writer's queues are, for metrics and health.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    pub ops: usize,
    pub ops_capacity: usize,
    pub notes: usize,
    pub notes_capacity: usize,
    /// Times that the writer was started again.
    pub restarts: u64,
    /// Notes that could not be written, audit entries among them.
    pub lost: u64,
}

/// An invocation that an agent still owes an answer for, with its command.
#[derive(Debug, Clone)]
pub struct OpenInvocation {
    pub invocation: InvocationId,
    pub ordinal: u32,
    pub state: InvocationState,
    pub command: Command,
}

impl Store {
    /// Open the database (a file is created where there is none), bring it to this
    /// version's form and start its writer.
    ///
    /// # Errors
    /// When it can't be opened or migrated.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        match url {
            StoreUrl::Sqlite(file) => {
                let (readers, writable) = sqlite::open(file).await?;
                let writer = writer::Writer::start(writer::Writable::Sqlite(Box::new(writable)));
                Ok(Self { engine: Engine::Sqlite(readers), writer })
            }
            StoreUrl::Postgres(options) => {
                let (readers, writable) = postgres::open(options).await?;
                let writer = writer::Writer::start(writer::Writable::Postgres(Box::new(writable)));
                Ok(Self { engine: Engine::Postgres(readers), writer })
            }
        }
    }

    /// Write what is queued and close. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) {
        self.writer.stop().await;
        match &self.engine {
            Engine::Sqlite(readers) => readers.close().await,
            Engine::Postgres(readers) => readers.close().await,
        }
    }

    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.writer.backlog()
    }

    /// What the writer counts, for the metrics.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.writer.groups().register(registry);
    }

    /// Hand over a change that nobody waits for; waits while the queue is full.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn note(&self, note: Note) -> Result<(), StoreError> {
        self.writer.note(note).await
    }

    /// The same, refused when the queue is full.
    ///
    /// # Errors
    /// [`StoreError::Busy`] or [`StoreError::Closed`].
    pub fn try_note(&self, note: Note) -> Result<(), StoreError> {
        self.writer.try_note(note)
    }

    /// Record one decision. Waits while the queue is full: no decision goes unrecorded.
    pub async fn audit(&self, entry: AuditEntry) {
        entry.log();
        if let Err(error) = self.note(Note::Audit(Box::new(entry.clone()))).await {
            self.writer.lost();
            tracing::error!(%error, ?entry, "an audit entry could not be stored");
        }
    }

    /// Store a command and its invocations, or find the one with the same key: answers the
    /// way to wait for its commit. Whatever is handed over after this is committed after it,
    /// or with it.
    ///
    /// # Errors
    /// The queue is full or the store closed; the command is not stored then. Waiting fails
    /// as every operation does.
    pub async fn begin_accept(
        &self,
        new: NewCommand,
    ) -> Result<impl Future<Output = Result<Acceptance, StoreError>> + use<>, StoreError> {
        let answer = self.hand_over(Op::Accept(Box::new(new))).await?;
        Ok(async move {
            match answered(answer).await? {
                Answer::Accepted(acceptance) => Ok(*acceptance),
                other => Err(StoreError::Corrupt { what: "answer", text: format!("{other:?}") }),
            }
        })
    }

    async fn hand_over(&self, op: Op) -> Result<Promised, StoreError> {
        let (reply, answer) = oneshot::channel();
        let logged = tracing::enabled!(target: AUDIT, tracing::Level::INFO);
        let audit = op.audit().filter(|_| logged).cloned();
        self.writer.op(op, reply).await?;
        Ok(Promised { answer, audit })
    }

    async fn ask(&self, op: Op) -> Result<Answer, StoreError> {
        answered(self.hand_over(op).await?).await
    }
}

/// An answer of the writer that is still to come.
struct Promised {
    answer: oneshot::Receiver<Result<Answer, StoreError>>,
    /// To be logged once it is stored, where somebody collects that.
    audit: Option<AuditEntry>,
}

async fn answered(promised: Promised) -> Result<Answer, StoreError> {
    match tokio::time::timeout(WRITE_TIMEOUT, promised.answer).await {
        Ok(Ok(Ok(answer))) => {
            promised.audit.iter().for_each(AuditEntry::log);
            Ok(answer)
        }
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(_)) => Err(StoreError::Closed),
        Err(_) => Err(StoreError::Timeout),
    }
}

/// Operations: each is durable once answered.
macro_rules! writes {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $op:expr => $answer:pat => $value:expr;)*) => {
        /// # Errors
        /// Each fails when its statement does, the queue is full, or the store is closed.
        impl Store {$(
            $(#[$doc])*
            #[allow(clippy::missing_errors_doc, reason = "said once for all of them")]
            pub async fn $name(&self, $($arg: $ty),*) -> Result<$out, StoreError> {
                match self.ask($op).await? {
                    $answer => Ok($value),
                    other => Err(StoreError::Corrupt { what: "answer", text: format!("{other:?}") }),
                }
            }
        )*}
    };
}

writes! {
    /// [`Store::begin_accept`], waited for.
    accept(new: NewCommand) -> Acceptance = Op::Accept(Box::new(new)) => Answer::Accepted(a) => *a;
    /// Mark queued invocations as handed to delivery.
    claim(invocations: Vec<InvocationId>, now_ms: u64) -> Claimed =
        Op::Claim { invocations, now_ms } => Answer::Claimed(c) => c;
    settle(settlements: Vec<Settlement>) -> Settled = Op::Settle(settlements) => Answer::Settled(s) => s;
    /// `None` when there is no such command. One that has ended stays as it is.
    cancel(command: CommandId, now_ms: u64, audit: AuditEntry) -> Option<Cancelled> =
        Op::Cancel { command, now_ms, audit } => Answer::Cancelled(c) => c.map(|c| *c);
    /// `None` when there is no such command.
    approve(command: CommandId, approved: Approved, audit: AuditEntry) -> Option<Approval> =
        Op::Approve { command, approved: Box::new(approved), audit } => Answer::Approved(a) => a.map(|a| *a);
    /// `false`: the key is registered.
    add_approver(approver: Approver, audit: AuditEntry) -> bool =
        Op::AddApprover { approver, audit } => Answer::Done(done) => done;
    /// `false`: there was none.
    remove_approver(key: String, audit: AuditEntry) -> bool =
        Op::RemoveApprover { key, audit } => Answer::Done(done) => done;
    /// Follow the chains of receipts on, a bounded part of what came.
    walk_receipts(now_ms: u64) -> Walked = Op::WalkReceipts { now_ms } => Answer::Walked(w) => w;
    /// Store an anchor over the ends of these chains.
    anchor(anchor: StoredAnchor, ends: Vec<ChainEnd>) -> bool =
        Op::Anchor { anchor: Box::new(anchor), ends } => Answer::Done(done) => done;
    /// End what is past its time, a bounded part of it.
    expire(now_ms: u64, grace_ms: u64) -> Expired = Op::Expire { now_ms, grace_ms } => Answer::Expired(e) => e;
    publish(new: NewPlugin) -> Publication = Op::Publish(Box::new(new)) => Answer::Published(p) => *p;
    /// The release as it stands then; `None`: nothing was changed.
    release(change: release::Change) -> Option<Plugin> =
        Op::Release(Box::new(change)) => Answer::Released(plugin) => plugin.map(|p| *p);
    /// Whether it was active.
    deactivate_plugin(plugin: String, audit: AuditEntry) -> bool =
        Op::Deactivate { plugin, audit } => Answer::Done(done) => done;
    /// `false`: the name is taken.
    create_token(token: Token, audit: AuditEntry) -> bool =
        Op::CreateToken { token, audit } => Answer::Done(done) => done;
    /// `false`: there was none.
    revoke_token(name: String, audit: AuditEntry) -> bool =
        Op::RevokeToken { name, audit } => Answer::Done(done) => done;
    /// Flag agents unseen since `before_ms` as stale; answers which.
    mark_stale(before_ms: u64, now_ms: u64) -> Vec<AgentId> =
        Op::MarkStale { before_ms, now_ms } => Answer::Agents(agents) => agents;
    /// The instance has no session yet, and those that are gone have none: said at the start.
    all_offline(instance: &str) -> bool =
        Op::AllOffline { instance: instance.to_owned() } => Answer::Done(done) => done;
    /// The instance lives, and says so again within `ttl_ms`; who did not is found dead, and
    /// its sessions ended.
    beat(instance: &str, ttl_ms: u64) -> Beat =
        Op::Beat { instance: instance.to_owned(), ttl_ms } => Answer::Beaten(beat) => beat;
    /// The instance stops: its leases and its sessions end.
    leave(instance: &str) -> bool = Op::Leave { instance: instance.to_owned() } => Answer::Done(done) => done;
    /// Take or renew the lease `name`, by the database's clock: what runs once in a group of
    /// instances is the holder's. `false`: another has it. A holder that stalls for longer
    /// than `ttl_ms` may meet its successor: the work must bear that.
    lease(name: &str, holder: &str, ttl_ms: u64) -> bool =
        Op::Lease { name: name.to_owned(), holder: holder.to_owned(), ttl_ms } => Answer::Done(done) => done;
    /// `false`: it was not held.
    give_up(name: &str, holder: &str) -> bool =
        Op::GiveUp { name: name.to_owned(), holder: holder.to_owned() } => Answer::Done(done) => done;
    /// A change to what instances share.
    share(change: cluster::Change) -> cluster::Done = Op::Cluster(Box::new(change)) => Answer::Cluster(done) => done;
    /// Delete a bounded part of what is past the horizon; answers how many rows went.
    prune(horizon: Horizon) -> u64 = Op::Prune(horizon) => Answer::Pruned(rows) => rows;
    /// Write a row durably; answers what was written.
    probe(now_ms: u64) -> u64 = Op::Probe { now_ms } => Answer::Probed(at) => at;
    /// Wait until every note handed over before is written.
    flush() -> bool = Op::Flush => Answer::Done(done) => done;
}

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        /// # Errors
        /// Each fails when its statement does, a cursor is none of the list's, or a row
        /// is malformed.
        impl Store {$(
            $(#[$doc])*
            #[allow(clippy::missing_errors_doc, reason = "said once for all of them")]
            pub async fn $name(&self, $($arg: $ty),*) -> Result<$out, StoreError> {
                match &self.engine {
                    Engine::Sqlite(readers) => readers.$name($($arg),*).await,
                    Engine::Postgres(readers) => {
                        // A server that hangs holds up nobody for ever.
                        match tokio::time::timeout(READ_TIMEOUT, readers.$name($($arg),*)).await {
                            Ok(read) => read,
                            Err(_) => Err(StoreError::Timeout),
                        }
                    }
                }
            }
        )*}
    };
}

reads! {
    /// What has changed since it was read last.
    stamps() -> cluster::Stamps;
    /// Who holds the agent's session.
    session_owner(agent: &AgentId) -> Option<cluster::Owner>;
    /// Sessions of the instance that somebody asks about.
    challenged(instance: &str) -> Vec<(AgentId, u64)>;
    /// What agents of this instance are owed: queued, or sent before that time; by agent,
    /// after that one.
    owed_here(instance: &str, sent_before_ms: u64, after: Option<&AgentId>) -> Vec<cluster::Owed>;
    /// Agents of this instance for which something of the command is queued.
    queued_here(instance: &str, command: &CommandId) -> Vec<AgentId>;
    /// How far these are.
    marks(commands: &[CommandId]) -> Vec<cluster::Mark>;
    agent(id: &AgentId) -> Option<Agent>;
    /// By id.
    agents(filter: &AgentFilter, page: &PageOf) -> Page<Agent>;
    /// All and online.
    count_agents() -> (u64, u64);
    /// Counts of what has not ended, for metrics.
    census() -> Census;
    /// Migrations of this version that the database lacks.
    pending_migrations() -> u64;
    /// At most `limit`, by id.
    select_agents(selector: &Selector, limit: u32) -> Vec<AgentId>;
    /// Which of these are not registered.
    unknown_agents(ids: &[AgentId]) -> Vec<AgentId>;
    command(id: &CommandId) -> Option<Command>;
    /// What the caller asked under this idempotency key.
    command_by_key(caller: &str, key: &str) -> Option<Command>;
    /// Newest first.
    commands(filter: &CommandFilter, page: &PageOf) -> Page<Command>;
    /// In the order of the targets.
    invocations(command: &CommandId, state: Option<InvocationState>, page: &PageOf) -> Page<Invocation>;
    /// Settled ones with a `seq` above `seq`, by `seq`, at most `limit`.
    settled_after(command: &CommandId, seq: u64, limit: u32) -> Vec<Invocation>;
    invocation(id: &InvocationId) -> Option<Invocation>;
    /// What the agent still owes, oldest command first, after that command; at most `limit`.
    open_for(agent: &AgentId, after: Option<&CommandId>, limit: u32) -> Vec<OpenInvocation>;
    /// The frozen targets in their order.
    targets(command: &CommandId) -> Vec<AgentId>;
    /// Agents with equal plans together, the most first; each group with its first agents.
    plan_groups(command: &CommandId, page: &PageOf) -> Page<PlanGroup>;
    /// The distinct plans of a command, at most `limit`.
    plan_digests(command: &CommandId, limit: u32) -> Vec<String>;
    /// The newest command in which an agent made this plan.
    command_of_plan(digest: &str) -> Option<Command>;
    /// The agents on which it had effects that no command took back.
    undo_targets(command: &CommandId) -> Vec<AgentId>;
    /// Chain by chain, each in its order.
    receipts(filter: &ReceiptFilter, page: &PageOf) -> Page<StoredReceipt>;
    /// By agent.
    receipt_keys(agent: Option<&AgentId>, page: &PageOf) -> Page<ReceiptKey>;
    /// Whether receipts came whose chains were not followed.
    receipts_unwalked() -> bool;
    /// Ends of lasting chains that no anchor has seen; at most `limit`.
    moved_chains(limit: u32) -> Vec<ChainEnd>;
    last_anchor() -> Option<StoredAnchor>;
    /// Oldest first.
    anchors(page: &PageOf) -> Page<StoredAnchor>;
    /// Keys by id.
    approvers(page: &PageOf) -> Page<Approver>;
    /// The keys of one operator.
    approver_keys(operator: &str) -> Vec<Approver>;
    /// When expiry has to look at a command next.
    next_due() -> Option<u64>;
    /// Commands that have not ended.
    count_open_commands() -> u64;
    /// Every release, newest of each name first; bounded by what was published.
    plugins() -> Vec<Plugin>;
    plugin_part(key: &PartKey) -> Option<bytes::Bytes>;
    plugin(digest: &str) -> Option<Plugin>;
    /// Which release of a plugin each agent has, and whether it is active there.
    plugin_holders(plugin: &str) -> Vec<(AgentId, PluginStatus)>;
    rollout(id: &str) -> Option<Rollout>;
    /// Newest first.
    rollouts(plugin: &str, page: &PageOf) -> Page<Rollout>;
    /// Those that have not ended.
    open_rollouts() -> Vec<Rollout>;
    rollout_members(id: &str) -> Vec<AgentId>;
    /// Agents that are not stale, and whether each is online.
    present_agents() -> Vec<(AgentId, bool)>;
    /// What releases did, as it was written last: digest, name, tally.
    tallies() -> Vec<(String, String, String)>;
    /// The mirrored files of the release repository.
    mirrored() -> Vec<(String, bytes::Bytes)>;
    /// Invocations at agents now of commands that the release may serve: the agent, the
    /// invocation, and the command where the release is the one that it names.
    serving(digest: &str) -> Vec<(AgentId, InvocationId, Option<CommandId>)>;
    /// By digest.
    plugin_spread() -> BTreeMap<String, PluginSpread>;
    /// Samples from `since_ms` on, oldest first.
    telemetry(agent: &AgentId, since_ms: u64, resolution: Resolution, page: &PageOf) -> Page<StoredSample>;
    /// By name.
    tokens(page: &PageOf) -> Page<Token>;
    token_by_hash(sha256: &[u8; 32]) -> Option<Token>;
    /// Newest first.
    audit_page(page: &PageOf) -> Page<AuditRow>;
    /// What the last probe wrote.
    probed() -> u64;
}

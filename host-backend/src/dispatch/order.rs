//! The order of a command: its warrant, signed once, the text that all targets share, and
//! each target's proof. Made again from the store where it is not at hand: the signature
//! is deterministic, so that the bytes are the same.

use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use viworks_protocol::frame::invoke_frame;
use viworks_protocol::id::{AgentId, CommandId};
use viworks_protocol::merkle::{Hash, Tree};
use viworks_protocol::trace::TraceContext;
use viworks_protocol::warrant::{self, Order, Warrant};
use viworks_signing::keys::SecretKey;

use crate::store::model::Command;
use crate::store::{Store, StoreError};

/// All kept trees together have at most so many targets.
const KEPT_TARGETS: usize = 1_000_000;

/// What is sent to the targets of one command.
#[derive(Debug)]
pub(super) struct Prepared {
    pub command: CommandId,
    /// When the command was accepted.
    pub created_ms: u64,
    order: String,
    tree: Tree,
    targets: usize,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("the command's targets can't be read")]
    Store(#[source] StoreError),
    #[error("the order can't be written")]
    Json(#[source] serde_json::Error),
    #[error("the command has no targets, or not those of its root")]
    Targets,
}

/// What is signed for this command, the same however often it is made.
#[must_use]
pub fn warrant_of(command: &Command) -> Warrant {
    Warrant {
        command: command.id.clone(),
        verb: command.verb.clone(),
        plugin: command.plugin.clone(),
        digest: command.digest.clone(),
        args_sha256: warrant::args_sha256(&command.args),
        mode: command.mode,
        caller: command.caller.clone(),
        also: command.also.clone(),
        approvals: command.approvals.iter().map(|a| a.envelope.clone()).collect(),
        plans: command.plans.clone(),
        undo: command.undo_of.clone(),
        not_before_ms: command.created_ms,
        expires_ms: command.expires_ms,
        timeout_secs: command.timeout_secs,
        targets_root: command.targets_root.clone(),
        targets: command.targets,
    }
}

impl Prepared {
    pub(super) fn new(command: &Command, tree: Tree, key: &SecretKey) -> Result<Self, OrderError> {
        if hex::encode(tree.root()) != command.targets_root {
            return Err(OrderError::Targets);
        }
        let warrant = warrant_of(command);
        let order = Order {
            warrant: warrant::sign(&warrant, key).map_err(OrderError::Json)?,
            args: RawValue::from_string(command.args.clone()).map_err(OrderError::Json)?,
        };
        let order = serde_json::to_string(&order).map_err(OrderError::Json)?;
        Ok(Self {
            command: command.id.clone(),
            created_ms: command.created_ms,
            order,
            tree,
            targets: command.targets as usize,
        })
    }

    pub(super) fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The frame for the target at `ordinal`.
    pub(super) fn frame(&self, ordinal: u32, trace: Option<&TraceContext>) -> Option<Utf8Bytes> {
        invoke_frame(&self.tree.proof(ordinal)?, &self.order, trace).ok().map(Utf8Bytes::from)
    }
}

/// Those at hand, the latest used last.
#[derive(Debug, Default)]
pub(super) struct Orders {
    kept: Mutex<VecDeque<Arc<Prepared>>>,
}

impl Orders {
    pub(super) fn keep(&self, prepared: Arc<Prepared>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(prepared);
        while kept.len() > 1 && kept.iter().map(|p| p.targets).sum::<usize>() > KEPT_TARGETS {
            kept.pop_front();
        }
        // Small ones are bounded by number.
        if kept.len() > 1_024 {
            kept.pop_front();
        }
    }

    pub(super) fn forget(&self, command: &CommandId) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| p.command != *command);
    }

    fn find(&self, command: &CommandId) -> Option<Arc<Prepared>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().rfind(|p| p.command == *command).cloned()
    }

    /// The order of a stored command, from here or made again.
    pub(super) async fn get(
        &self,
        store: &Store,
        command: &Command,
        key: &SecretKey,
    ) -> Result<Arc<Prepared>, OrderError> {
        if let Some(found) = self.find(&command.id) {
            return Ok(found);
        }
        let targets: Vec<AgentId> = store.targets(&command.id).await.map_err(OrderError::Store)?;
        let tree = Tree::new(&targets).ok_or(OrderError::Targets)?;
        let prepared = Arc::new(Prepared::new(command, tree, key)?);
        self.keep(prepared.clone());
        Ok(prepared)
    }
}

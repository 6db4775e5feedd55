//! What the store keeps of receipts: the signed records themselves, the keys that sign
//! them, how far each chain was followed, and anchors.

use serde::Deserialize;
use viworks_protocol::id::{AgentId, CommandId, InvocationId};

/// The chain of what no key vouches for.
pub const UNSIGNED: &str = "";

/// A receipt on its way into the store, with the commit that settles its invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReceipt {
    /// The key's id, with the boot after a `/` where the chain is that boot's.
    pub chain: String,
    pub boot: Option<String>,
    pub seq: u64,
    /// Of the envelope's payload.
    pub sha256: String,
    pub prev: String,
    /// What is wrong with it by itself.
    pub fault: Option<&'static str>,
    /// As JSON.
    pub envelope: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReceipt {
    pub agent: AgentId,
    pub chain: String,
    pub boot: Option<String>,
    pub seq: u64,
    pub sha256: String,
    pub command: CommandId,
    pub invocation: InvocationId,
    pub at_ms: u64,
    pub fault: Option<String>,
    pub envelope: String,
}

impl StoredReceipt {
    /// The id of the key that signed it, if one did.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.chain.split('/').next().filter(|key| !key.is_empty())
    }
}

#[derive(Debug, Clone, Default)]
pub struct ReceiptFilter {
    pub agent: Option<AgentId>,
    pub command: Option<CommandId>,
}

/// A key that an agent's receipts are, or were, signed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptKey {
    pub agent: AgentId,
    pub id: String,
    pub pem: String,
    pub first_ms: u64,
    /// Whether it is the one now.
    pub pinned: bool,
}

/// The end of a lasting chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    pub agent: AgentId,
    /// The key's id.
    pub chain: String,
    pub seq: u64,
    pub sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnchor {
    pub seq: u64,
    pub sha256: String,
    pub at_ms: u64,
    /// How many heads it has.
    pub heads: u32,
    /// As JSON.
    pub envelope: String,
}

/// What following the chains came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walked {
    pub receipts: u32,
    /// Places at which receipts were missing.
    pub gaps: u32,
    /// Receipts that contradict others.
    pub forks: u32,
}

/// How an agent's lasting chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct ChainStanding {
    /// The id of the pinned key.
    pub key: String,
    pub since_ms: u64,
    /// Keys that were pinned before.
    pub former_keys: u32,
    /// The last place that is held.
    pub last: u64,
    /// Places before it that are not.
    pub missing: u64,
}

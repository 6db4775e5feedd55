//! The receipt: a gateway's signed record of one invocation, chained to the one before it
//! by its hash. Checkable offline with the gateway's public key. Refuses a receipt of
//! another key, agent or version, and one that does not follow its predecessor.
//!
//! - [`anchor`]: the heads of many chains at one time, signed by the backend, so that a
//!   chain that was cut at its end shows
//! - [`export`]: JSON lines of receipts, keys and anchors, and their verification

pub mod anchor;
pub mod export;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use viworks_signing::dsse::{self, Envelope};
use viworks_signing::keys::{PublicKey, SecretKey};

use crate::id::{AgentId, CommandId, InvocationId};
use crate::outcome::{EffectReport, EffectState, Outcome, Report};
use crate::warrant::Mode;

pub const PAYLOAD_TYPE: &str = "application/vnd.viworks.receipt.v1+json";

/// The one version that is written and read here.
pub const VERSION: u32 = 1;

/// `prev` of the first receipt of a chain.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A larger envelope is no receipt: 1,000 effects fit.
pub const MAX_BYTES: usize = 512 * 1024;

/// Refused rules that one receipt lists; `denials` counts them all.
pub const MAX_DENIED: usize = 16;

/// What one invocation was ordered, allowed, and did. Hashes are lowercase hex SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    pub version: u32,
    pub agent: AgentId,
    /// Absent: the agent's lasting chain. Else the start of the gateway (`Hello.boot`)
    /// whose own chain this is: records of what changed nothing, kept in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// From 1 on, without a gap.
    pub seq: u64,
    /// Of the payload of the receipt before; [`GENESIS`] for the first.
    pub prev: String,
    pub invocation: InvocationId,
    pub command: CommandId,
    /// Of the warrant envelope's payload.
    pub warrant_sha256: String,
    pub caller: String,
    pub verb: String,
    pub plugin: String,
    pub digest: String,
    pub args_sha256: String,
    pub mode: Mode,
    /// Capabilities whose gate let something pass, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted: Vec<String>,
    /// Rules that refused something, sorted, at most [`MAX_DENIED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    pub denials: u32,
    pub effects: Vec<EffectEntry>,
    /// Of a plan: its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_code: Option<String>,
    /// Of the result's text as it is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_sha256: Option<String>,
    pub cpu_us: u64,
    pub wall_us: u64,
    pub peak_memory_bytes: u64,
    /// Unix milliseconds by the gateway's clock; 0 if it never started.
    pub started_ms: u64,
    pub finished_ms: u64,
}

impl Receipt {
    /// What is known before it ran: whose invocation of which command, and nothing else. The
    /// caller fills in what was ordered; [`Receipt::follow`] and [`Receipt::describe`] the rest.
    #[must_use]
    pub fn draft(agent: &AgentId, command: CommandId, invocation: InvocationId) -> Self {
        Self {
            version: VERSION,
            agent: agent.clone(),
            boot: None,
            seq: 0,
            prev: String::new(),
            invocation,
            command,
            warrant_sha256: String::new(),
            caller: String::new(),
            verb: String::new(),
            plugin: String::new(),
            digest: String::new(),
            args_sha256: String::new(),
            mode: Mode::Apply,
            granted: Vec::new(),
            denied: Vec::new(),
            denials: 0,
            effects: Vec::new(),
            plan: None,
            outcome: Outcome::Unknown,
            failure_code: None,
            result_sha256: None,
            cpu_us: 0,
            wall_us: 0,
            peak_memory_bytes: 0,
            started_ms: 0,
            finished_ms: 0,
        }
    }
}

/// One effect in a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectEntry {
    pub kind: String,
    pub state: EffectState,
    /// [`effect_sha256`] of the effect as it is reported.
    pub sha256: String,
}

/// The end of a chain: what the next receipt must follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// 0 before the first receipt.
    pub seq: u64,
    /// Of the payload of the last receipt.
    pub sha256: String,
}

/// A receipt whose signature was verified. Made by [`verify`] and [`sign`] alone.
#[derive(Debug, Clone)]
pub struct VerifiedReceipt {
    receipt: Receipt,
    sha256: String,
    signer: PublicKey,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the signature does not verify")]
    Signature(#[source] dsse::Error),
    #[error("the signed payload is not a receipt: {0}")]
    Payload(String),
    #[error("a receipt of version {0}, only {VERSION} is read")]
    Version(u32),
    #[error("it is agent {0}'s")]
    Agent(AgentId),
}

/// Why a receipt does not follow a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("receipts are missing before it")]
    Gap,
    #[error("another receipt has its place")]
    Fork,
    #[error("its place is already taken")]
    Behind,
}

impl Head {
    /// Before the first receipt.
    #[must_use]
    pub fn genesis() -> Self {
        Self { seq: 0, sha256: GENESIS.to_owned() }
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::genesis()
    }
}

impl Receipt {
    /// Give it its place after `head`.
    pub fn follow(&mut self, head: &Head) {
        self.seq = head.seq.saturating_add(1);
        self.prev.clone_from(&head.sha256);
    }

    /// Take over from the report what a receipt says of it.
    pub fn describe(&mut self, report: &Report) {
        self.effects = report.effects.iter().map(EffectEntry::of).collect();
        self.plan.clone_from(&report.plan);
        self.outcome = report.outcome;
        self.failure_code = report.failure.as_ref().map(|failure| failure.code.clone());
        self.result_sha256 = report.result.as_deref().map(result_sha256);
        self.denials = report.cost.denials;
        self.cpu_us = report.cost.cpu_us;
        self.wall_us = report.cost.wall_us;
        self.peak_memory_bytes = report.cost.peak_memory_bytes;
        self.started_ms = report.started_ms;
        self.finished_ms = report.finished_ms;
    }

    /// Whether it is the receipt of this very report.
    #[must_use]
    pub fn tells_of(&self, report: &Report) -> bool {
        let mut same = self.clone();
        same.describe(report);
        same == *self
    }
}

impl EffectEntry {
    #[must_use]
    pub fn of(effect: &EffectReport) -> Self {
        Self { kind: effect.kind.clone(), state: effect.state, sha256: effect_sha256(effect) }
    }
}

/// Lowercase hex SHA-256 over the canonical JSON (RFC 8785) of an effect's report
/// without its state.
#[must_use]
pub fn effect_sha256(effect: &EffectReport) -> String {
    let mut value = serde_json::to_value(effect).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("state");
    }
    hex_sha256(&serde_json_canonicalizer::to_vec(&value).unwrap_or_default())
}

/// Lowercase hex SHA-256 of a result's text.
#[must_use]
pub fn result_sha256(result: &RawValue) -> String {
    hex_sha256(result.get().as_bytes())
}

/// Sign a receipt, and give the head that it makes.
///
/// # Errors
/// When it can't be written as JSON, which does not happen for real receipts.
pub fn sign(receipt: &Receipt, key: &SecretKey) -> Result<(Envelope, Head), serde_json::Error> {
    let payload = serde_json::to_vec(receipt)?;
    let head = Head { seq: receipt.seq, sha256: hex_sha256(&payload) };
    Ok((Envelope::sign(PAYLOAD_TYPE, &payload, &[key]), head))
}

/// Check one receipt: signed by one of `keys`, and of `agent`. Its place in the chain is
/// [`VerifiedReceipt::follows`]'s matter.
///
/// # Errors
/// The first check that failed; in the order of the variants.
pub fn verify(envelope: &Envelope, agent: &AgentId, keys: &[PublicKey]) -> Result<VerifiedReceipt, ReceiptError> {
    if envelope.payload.len() > MAX_BYTES {
        return Err(ReceiptError::TooLarge);
    }
    let verified = envelope.verify(PAYLOAD_TYPE, keys).map_err(ReceiptError::Signature)?;
    let receipt = read(verified.payload())?;
    if receipt.agent != *agent {
        return Err(ReceiptError::Agent(receipt.agent));
    }
    let signer = keys.iter().find(|key| verified.signers().contains(&key.bytes()));
    let signer = *signer.ok_or(ReceiptError::Signature(dsse::Error::NoTrustedSignature))?;
    Ok(VerifiedReceipt { receipt, sha256: hex_sha256(verified.payload()), signer })
}

fn read(payload: &[u8]) -> Result<Receipt, ReceiptError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    serde_json::from_slice::<Receipt>(payload)
        .map_err(|e| match serde_json::from_slice::<Versioned>(payload) {
            Ok(Versioned { version }) if version != VERSION => ReceiptError::Version(version),
            _ => ReceiptError::Payload(e.to_string()),
        })
        .and_then(|receipt| match receipt.version {
            VERSION => Ok(receipt),
            other => Err(ReceiptError::Version(other)),
        })
}

impl VerifiedReceipt {
    #[must_use]
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The head that it makes.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { seq: self.receipt.seq, sha256: self.sha256.clone() }
    }

    #[must_use]
    pub fn signer(&self) -> &PublicKey {
        &self.signer
    }

    /// Whether it is the next one after `head`.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn follows(&self, head: &Head) -> Result<(), ChainError> {
        match self.receipt.seq {
            seq if seq <= head.seq => Err(ChainError::Behind),
            seq if seq > head.seq.saturating_add(1) => Err(ChainError::Gap),
            _ if self.receipt.prev != head.sha256 => Err(ChainError::Fork),
            _ => Ok(()),
        }
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

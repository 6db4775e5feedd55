//! What this gateway's receipts need: the key that signs them, and what an invocation was
//! granted and refused. The journal puts them in their chain, in the commit that ends the
//! invocation. Refuses a key file that others can read.

mod key;
mod used;

pub use key::{FILE, KeyError, ReceiptKey};
pub use used::{Used, Uses};

use viworks_protocol::id::AgentId;
use viworks_protocol::outcome::Outcome;
use viworks_protocol::receipt::{Receipt, VERSION};
use viworks_protocol::warrant::VerifiedWarrant;

/// What can be said of an invocation before it runs. `digest`: of the release that will
/// run it, or that the warrant names where none will.
#[must_use]
pub fn draft(warrant: &VerifiedWarrant, agent: &AgentId, digest: &str) -> Receipt {
    let order = warrant.warrant();
    Receipt {
        version: VERSION,
        agent: agent.clone(),
        boot: None,
        seq: 0,
        prev: String::new(),
        invocation: warrant.invocation().clone(),
        command: order.command.clone(),
        warrant_sha256: warrant.sha256().to_owned(),
        caller: order.caller.clone(),
        verb: order.verb.clone(),
        plugin: order.plugin.clone(),
        digest: digest.to_owned(),
        args_sha256: order.args_sha256.clone(),
        mode: order.mode,
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

//! What this gateway's receipts need: the key that signs them, and what an invocation was
//! granted and refused. The journal puts them in their chain, in the commit that ends the
//! invocation. Refuses a key file that others can read.

mod key;
mod used;

pub use key::{FILE, KeyError, ReceiptKey};
pub use used::{Used, Uses};

use viworks_protocol::id::AgentId;
use viworks_protocol::receipt::Receipt;
use viworks_protocol::warrant::VerifiedWarrant;

/// What can be said of an invocation before it runs. `digest`: of the release that will
/// run it, or that the warrant names where none will.
#[must_use]
pub fn draft(warrant: &VerifiedWarrant, agent: &AgentId, digest: &str) -> Receipt {
    let order = warrant.warrant();
    Receipt {
        warrant_sha256: warrant.sha256().to_owned(),
        caller: order.caller.clone(),
        verb: order.verb.clone(),
        plugin: order.plugin.clone(),
        digest: digest.to_owned(),
        args_sha256: order.args_sha256.clone(),
        mode: order.mode,
        ..Receipt::draft(agent, order.command.clone(), warrant.invocation().clone())
    }
}

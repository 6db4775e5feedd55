//! An approval: an operator's own signature over one command, carried in its warrant, so
//! that for marked verbs not even the backend alone can order them. Counts distinct keys;
//! refuses an approval of another command, other arguments or other targets.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use viworks_signing::dsse::Envelope;
use viworks_signing::keys::{PublicKey, SecretKey};

use crate::id::CommandId;
use crate::warrant::{Mode, Warrant};

pub const PAYLOAD_TYPE: &str = "application/vnd.viworks.approval.v1+json";

/// The most approvals that one warrant carries.
pub const MAX_APPROVALS: usize = 8;

/// What an operator signs: everything of the order that decides what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    pub command: CommandId,
    /// In snake_case.
    pub verb: String,
    /// Lowercase hex SHA-256 of the component.
    pub digest: String,
    /// Lowercase hex SHA-256 of the canonical arguments (RFC 8785).
    pub args_sha256: String,
    pub mode: Mode,
    /// Lowercase hex root of the tree over the targets.
    pub targets_root: String,
    /// The command that is taken back, where it is an undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<CommandId>,
    /// The plans that it is bound to, where it is bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<String>,
}

impl Approval {
    /// What must be signed to approve this very order.
    #[must_use]
    pub fn of(warrant: &Warrant) -> Self {
        Self {
            command: warrant.command.clone(),
            verb: warrant.verb.clone(),
            digest: warrant.digest.clone(),
            args_sha256: warrant.args_sha256.clone(),
            mode: warrant.mode,
            targets_root: warrant.targets_root.clone(),
            undo: warrant.undo.clone(),
            plans: warrant.plans.clone(),
        }
    }

    /// # Errors
    /// When it can't be written as JSON, which does not happen.
    pub fn sign(&self, key: &SecretKey) -> Result<Envelope, serde_json::Error> {
        Ok(Envelope::sign(PAYLOAD_TYPE, &serde_json::to_vec(self)?, &[key]))
    }

    /// The distinct ones of `trusted` that signed this in `envelope`; none when it is about
    /// anything else.
    #[must_use]
    pub fn signers_of(&self, envelope: &Envelope, trusted: &[PublicKey]) -> BTreeSet<[u8; 32]> {
        match envelope.verify(PAYLOAD_TYPE, trusted) {
            Ok(verified) if serde_json::from_slice::<Self>(verified.payload()).is_ok_and(|a| a == *self) => {
                verified.signers().clone()
            }
            _ => BTreeSet::new(),
        }
    }
}

/// The distinct ones of `trusted` that approved this order, over all approvals that it
/// carries: a rule about how many counts these.
#[must_use]
pub fn approvers(warrant: &Warrant, trusted: &[PublicKey]) -> BTreeSet<[u8; 32]> {
    let wanted = Approval::of(warrant);
    warrant.approvals.iter().take(MAX_APPROVALS).flat_map(|envelope| wanted.signers_of(envelope, trusted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warrant() -> Warrant {
        Warrant {
            command: CommandId::new(7),
            verb: "delete_user".into(),
            plugin: "accounts".into(),
            digest: "ab".repeat(32),
            also: vec![],
            args_sha256: "cd".repeat(32),
            mode: Mode::Apply,
            caller: "alice".into(),
            approvals: vec![],
            plans: vec![],
            undo: None,
            not_before_ms: 0,
            expires_ms: 1,
            timeout_secs: 1,
            targets_root: "ef".repeat(32),
            targets: 1,
        }
    }

    #[test]
    fn distinct_keys_count_and_others_do_not() {
        let (bob, carol, mallory) = (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
        let mut order = warrant();
        let of = Approval::of(&order);
        let sign = |key: &SecretKey| of.sign(key).unwrap_or_else(|e| panic!("{e}"));
        order.approvals = vec![sign(&bob), sign(&bob), sign(&mallory)];
        let trusted = [bob.public(), carol.public()];
        assert_eq!(approvers(&order, &trusted).len(), 1, "one operator, however often");
        order.approvals.push(sign(&carol));
        assert_eq!(approvers(&order, &trusted).len(), 2);
    }

    #[test]
    fn an_approval_is_good_for_one_order_only() {
        let bob = SecretKey::generate();
        let order = warrant();
        let Ok(envelope) = Approval::of(&order).sign(&bob) else { panic!("signed") };
        let changes: [fn(&mut Warrant); 6] = [
            |w| w.command = CommandId::new(8),
            |w| w.verb = "add_user".into(),
            |w| w.args_sha256 = "00".repeat(32),
            |w| w.targets_root = "00".repeat(32),
            |w| w.undo = Some(CommandId::new(9)),
            |w| w.plans = vec!["00".repeat(32)],
        ];
        for change in changes {
            let mut other = warrant();
            other.command = order.command.clone();
            other.approvals = vec![envelope.clone()];
            assert_eq!(approvers(&other, &[bob.public()]).len(), 1);
            change(&mut other);
            assert_eq!(approvers(&other, &[bob.public()]).len(), 0, "{other:?}");
        }
    }
}

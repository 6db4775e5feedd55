//! The warrant: the signed order that a gateway needs before it acts. Signed once per
//! command; each gateway proves its own place among the frozen targets. Refuses a
//! warrant of another key, for another agent, for other arguments, too early or too late.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use viworks_signing::dsse::{self, Envelope};
use viworks_signing::keys::{PublicKey, SecretKey};

use crate::id::{AgentId, CommandId, InvocationId};
use crate::merkle::{Hash, Proof};

pub const PAYLOAD_TYPE: &str = "application/vnd.viworks.warrant.v1+json";

/// The longest that a warrant may be valid: a day.
pub const MAX_VALIDITY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Clock difference that is forgiven at `not_before`, in milliseconds.
pub const CLOCK_SKEW_MS: u64 = 5_000;

/// Whether effects happen or are recorded only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Apply,
    Plan,
}

impl Mode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Plan => "plan",
        }
    }
}

/// What the backend orders. Times are Unix milliseconds by the backend's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warrant {
    pub command: CommandId,
    /// In snake_case.
    pub verb: String,
    pub plugin: String,
    /// Lowercase hex SHA-256 of the component.
    pub digest: String,
    /// Other releases of the plugin that may serve it, while a rollout has both about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Lowercase hex SHA-256 of the canonical arguments (RFC 8785).
    pub args_sha256: String,
    pub mode: Mode,
    /// The operator that asked.
    pub caller: String,
    /// What operators signed over this order, each with a key of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Envelope>,
    /// Digests of plans: applying may not depart from the one that this gateway made.
    /// Empty: not bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<String>,
    /// Take back what this command did here, instead of running the verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<CommandId>,
    pub not_before_ms: u64,
    pub expires_ms: u64,
    /// Wall-clock limit of one invocation, in seconds.
    pub timeout_secs: u32,
    /// Lowercase hex root of the tree over the targets.
    pub targets_root: String,
    pub targets: u32,
}

/// A signed warrant and the arguments that it binds: the same bytes for every target.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub warrant: Envelope,
    /// Canonical JSON (RFC 8785), an object; hashed as it stands.
    pub args: Box<RawValue>,
}

/// A warrant that this gateway may act on. Made by [`verify`] alone.
#[derive(Debug, Clone)]
pub struct VerifiedWarrant {
    warrant: Warrant,
    invocation: InvocationId,
    args: serde_json::Map<String, serde_json::Value>,
    args_text: Box<RawValue>,
    sha256: String,
}

#[derive(Debug, thiserror::Error)]
pub enum WarrantError {
    #[error("the signature does not verify")]
    Signature(#[source] dsse::Error),
    #[error("the signed payload is not a warrant")]
    Payload(#[source] serde_json::Error),
    #[error("this agent is not among the targets")]
    NotATarget,
    #[error("the arguments are not those that were signed")]
    Arguments,
    #[error("the arguments are not canonical JSON")]
    NotCanonical,
    #[error("valid for longer than a day, or ends before it begins")]
    Validity,
    #[error("not valid yet")]
    TooEarly,
    #[error("expired")]
    Expired,
    #[error("the digest or root is not lowercase hex SHA-256")]
    Hex,
}

/// Sign a warrant.
///
/// # Errors
/// When it can't be written as JSON, which does not happen for real warrants.
pub fn sign(warrant: &Warrant, key: &SecretKey) -> Result<Envelope, serde_json::Error> {
    Ok(Envelope::sign(PAYLOAD_TYPE, &serde_json::to_vec(warrant)?, &[key]))
}

/// Lowercase hex SHA-256 of canonical arguments.
#[must_use]
pub fn args_sha256(canonical: &str) -> String {
    hex::encode(Sha256::digest(canonical.as_bytes()))
}

/// Check an order against the warrant keys, this agent and the backend's time.
///
/// # Errors
/// The first check that failed; in the order of the variants.
pub fn verify(
    order: &Order,
    proof: &Proof,
    keys: &[PublicKey],
    agent: &AgentId,
    now_ms: u64,
) -> Result<VerifiedWarrant, WarrantError> {
    let verified = order.warrant.verify(PAYLOAD_TYPE, keys).map_err(WarrantError::Signature)?;
    let warrant: Warrant = serde_json::from_slice(verified.payload()).map_err(WarrantError::Payload)?;

    let root = parse_hash(&warrant.targets_root)?;
    parse_hash(&warrant.digest)?;
    if proof.count != warrant.targets || proof.root(agent) != Some(root) {
        return Err(WarrantError::NotATarget);
    }

    let text = order.args.get();
    if args_sha256(text) != warrant.args_sha256 {
        return Err(WarrantError::Arguments);
    }
    let args: serde_json::Map<_, _> = serde_json::from_str(text).map_err(|_| WarrantError::NotCanonical)?;
    if serde_json_canonicalizer::to_string(&args).ok().as_deref() != Some(text) {
        return Err(WarrantError::NotCanonical);
    }

    match warrant.expires_ms.checked_sub(warrant.not_before_ms) {
        Some(validity) if validity <= MAX_VALIDITY_MS => {}
        _ => return Err(WarrantError::Validity),
    }
    if now_ms.saturating_add(CLOCK_SKEW_MS) < warrant.not_before_ms {
        return Err(WarrantError::TooEarly);
    }
    if now_ms >= warrant.expires_ms {
        return Err(WarrantError::Expired);
    }

    let invocation = InvocationId::derive(&warrant.command, &root, agent);
    let sha256 = hex::encode(Sha256::digest(verified.payload()));
    Ok(VerifiedWarrant { warrant, invocation, args, args_text: order.args.clone(), sha256 })
}

fn parse_hash(text: &str) -> Result<Hash, WarrantError> {
    let mut hash = Hash::default();
    let lower = text.bytes().all(|b| !b.is_ascii_uppercase());
    hex::decode_to_slice(text, &mut hash).ok().filter(|()| lower).ok_or(WarrantError::Hex)?;
    Ok(hash)
}

impl VerifiedWarrant {
    #[must_use]
    pub fn warrant(&self) -> &Warrant {
        &self.warrant
    }

    #[must_use]
    pub fn invocation(&self) -> &InvocationId {
        &self.invocation
    }

    #[must_use]
    pub fn args(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.args
    }

    /// Lowercase hex SHA-256 of the signed payload.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The canonical text.
    #[must_use]
    pub fn args_text(&self) -> &str {
        self.args_text.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::Tree;

    const NOW: u64 = 1_800_000_000_000;

    struct Case {
        key: SecretKey,
        agent: AgentId,
        proof: Proof,
        warrant: Warrant,
        args: &'static str,
    }

    impl Case {
        fn new() -> Self {
            let agents: Vec<AgentId> = ["web-01", "web-02", "web-03"].iter().filter_map(|a| a.parse().ok()).collect();
            let Some(tree) = Tree::new(&agents) else { panic!("a tree") };
            let args = r#"{"a":1,"name":"deploy"}"#;
            let warrant = Warrant {
                command: CommandId::new(NOW),
                verb: "add_user".into(),
                plugin: "accounts".into(),
                digest: "ab".repeat(32),
                args_sha256: args_sha256(args),
                mode: Mode::Apply,
                caller: "alice".into(),
                also: vec![],
                approvals: vec![],
                plans: vec![],
                undo: None,
                not_before_ms: NOW,
                expires_ms: NOW + 60_000,
                timeout_secs: 45,
                targets_root: hex::encode(tree.root()),
                targets: 3,
            };
            let Some(proof) = tree.proof(1) else { panic!("a proof") };
            Self { key: SecretKey::generate(), agent: agents[1].clone(), proof, warrant, args }
        }

        fn verify_at(&self, now: u64) -> Result<VerifiedWarrant, WarrantError> {
            let warrant = sign(&self.warrant, &self.key).map_err(WarrantError::Payload)?;
            let args = RawValue::from_string(self.args.to_owned()).map_err(WarrantError::Payload)?;
            verify(&Order { warrant, args }, &self.proof, &[self.key.public()], &self.agent, now)
        }
    }

    #[test]
    fn a_good_order_verifies() {
        assert!(Case::new().verify_at(NOW).is_ok_and(|v| v.args()["name"] == "deploy"));
    }

    #[test]
    fn each_departure_is_refused_by_its_own_check() {
        assert!(matches!(Case::new().verify_at(NOW - 5_001), Err(WarrantError::TooEarly)));
        assert!(matches!(Case::new().verify_at(NOW + 60_000), Err(WarrantError::Expired)));

        let mut case = Case::new();
        case.args = r#"{"a":2,"name":"deploy"}"#;
        assert!(matches!(case.verify_at(NOW), Err(WarrantError::Arguments)));

        for loose in [r#"{"name":"deploy","a":1}"#, r#"{"a": 1}"#, r#"{"a":1,"a":2}"#, "[1]", r#"{"a":1.0}"#] {
            let mut case = Case::new();
            case.args = loose;
            case.warrant.args_sha256 = args_sha256(loose);
            assert!(matches!(case.verify_at(NOW), Err(WarrantError::NotCanonical)), "{loose}");
        }

        let mut case = Case::new();
        case.agent = match "web-09".parse() {
            Ok(agent) => agent,
            Err(e) => panic!("{e}"),
        };
        assert!(matches!(case.verify_at(NOW), Err(WarrantError::NotATarget)));

        let mut case = Case::new();
        case.warrant.expires_ms = NOW + MAX_VALIDITY_MS + 1;
        assert!(matches!(case.verify_at(NOW), Err(WarrantError::Validity)));

        let case = Case::new();
        let (Ok(warrant), Ok(args)) =
            (sign(&case.warrant, &SecretKey::generate()), RawValue::from_string(case.args.into()))
        else {
            panic!("an order")
        };
        let refused = verify(&Order { warrant, args }, &case.proof, &[case.key.public()], &case.agent, NOW);
        assert!(matches!(refused, Err(WarrantError::Signature(_))));
    }
}

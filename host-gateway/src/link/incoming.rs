//! What the backend said, checked: the closed list of frames, each within its bound, and
//! orders with a warrant that this gateway may act on. Refuses all else: a bad frame ends
//! the session, a bad order is audited and answered only where its invocation is certain.

use bytes::Bytes;
use viworks_protocol::chunk::{Chunk, ChunkError};
use viworks_protocol::frame::{BackendFrame, Bounds, PluginOffer};
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::merkle::Proof;
use viworks_protocol::outcome::{Outcome, Report};
use viworks_protocol::trace::TraceContext;
use viworks_protocol::warrant::{self, Order, PAYLOAD_TYPE, VerifiedWarrant, Warrant, WarrantError};
use viworks_signing::keys::PublicKey;

use crate::clock::{Clock, host_ms};

/// What the link hands on.
#[derive(Debug)]
pub enum Incoming {
    /// Run it, unless it is known; the trace is the backend's word and signed by nobody.
    Run(Box<VerifiedWarrant>, Option<TraceContext>),
    /// An order for a certain invocation was refused. Deliver the report, unless the
    /// invocation is known: then what it did is the truth.
    Refused {
        invocation: InvocationId,
        report: Report,
    },
    Cancel(InvocationId),
    Acknowledged(InvocationId),
    Offers(Vec<PluginOffer>),
    Chunk(Chunk),
    /// The repository's timestamp has this version.
    Repository(u64),
    /// A file of its metadata, or none of that name.
    Metadata {
        name: String,
        text: Option<String>,
    },
    /// The session ended: no more chunks will come of what was asked.
    Disconnected,
}

/// Why a frame ends the session.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame is malformed or not one of the backend's")]
    Malformed(#[source] serde_json::Error),
    #[error("a {kind} frame of {bytes} bytes, over its bound of {bound}")]
    Size { kind: &'static str, bytes: usize, bound: usize },
    #[error("a binary frame is no chunk of a plugin")]
    Chunk(#[source] ChunkError),
    #[error("more than {bound} frames of kind {kind} in a minute")]
    Rate { kind: &'static str, bound: u32 },
    #[error("a {0} frame out of turn")]
    Turn(&'static str),
}

/// Parse a text frame and hold it to its bound.
pub(super) fn parse(text: &str) -> Result<BackendFrame, FrameError> {
    let frame: BackendFrame = serde_json::from_str(text).map_err(FrameError::Malformed)?;
    let Bounds { kind, max_bytes: bound, .. } = frame.bounds();
    if text.len() > bound {
        return Err(FrameError::Size { kind, bytes: text.len(), bound });
    }
    Ok(frame)
}

pub(super) fn parse_chunk(frame: &Bytes) -> Result<Chunk, FrameError> {
    Chunk::decode(frame).map_err(FrameError::Chunk)
}

/// Judges orders.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) agent: AgentId,
    pub(super) keys: Vec<PublicKey>,
    pub(super) clock: Clock,
}

/// An order that is not to be followed.
#[derive(Debug)]
pub(super) struct Unlawful {
    pub(super) error: WarrantError,
    /// The invocation, if the backend's own signature says which it is.
    pub(super) invocation: Option<InvocationId>,
}

impl Judge {
    /// Verify an order and audit the decision.
    pub(super) fn judge(&self, order: &Order, proof: &Proof) -> Result<VerifiedWarrant, Unlawful> {
        match warrant::verify(order, proof, &self.keys, &self.agent, self.clock.now_ms()) {
            Ok(verified) => {
                let w = verified.warrant();
                tracing::info!(
                    target: "audit",
                    decision = "accepted", invocation = %verified.invocation(), command = %w.command, verb = %w.verb,
                    plugin = %w.plugin, digest = %w.digest, mode = w.mode.as_str(), caller = %w.caller, "order"
                );
                Ok(verified)
            }
            Err(error) => {
                let known = self.certain(order, proof);
                let invocation = known.as_ref().map(|(id, _)| id.as_str()).unwrap_or_default();
                let (verb, caller) = known.as_ref().map(|(_, w)| (&*w.verb, &*w.caller)).unwrap_or_default();
                tracing::warn!(
                    target: "audit", decision = "refused", rule = "warrant", invocation, verb, caller, %error, "order"
                );
                Err(Unlawful { error, invocation: known.map(|(id, _)| id) })
            }
        }
    }

    /// The invocation of a refused order: only when a warrant key signed it and this agent
    /// is among its targets. Anything less is somebody's claim.
    fn certain(&self, order: &Order, proof: &Proof) -> Option<(InvocationId, Warrant)> {
        let verified = order.warrant.verify(PAYLOAD_TYPE, &self.keys).ok()?;
        let warrant: Warrant = serde_json::from_slice(verified.payload()).ok()?;
        let root = proof.root(&self.agent).filter(|root| hex::encode(root) == warrant.targets_root)?;
        (proof.count == warrant.targets).then(|| (InvocationId::derive(&warrant.command, &root, &self.agent), warrant))
    }
}

impl Unlawful {
    /// What the backend is told, if it can be told.
    pub(super) fn answer(self) -> Option<Incoming> {
        let outcome = match self.error {
            WarrantError::Expired => Outcome::Expired,
            _ => Outcome::Denied,
        };
        let report = Report::refused(outcome, "warrant", self.error.to_string(), host_ms());
        self.invocation.map(|invocation| Incoming::Refused { invocation, report })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;
    use std::time::Duration;
    use viworks_protocol::id::CommandId;
    use viworks_protocol::merkle::Tree;
    use viworks_protocol::warrant::Mode;
    use viworks_signing::keys::SecretKey;

    const NOW: u64 = 1_800_000_000_000;

    fn order(key: &SecretKey, args: &str, change: impl FnOnce(&mut Warrant)) -> (Judge, Order, Proof) {
        let agent: AgentId = "web-01".parse().unwrap();
        let tree = Tree::new([&agent]).unwrap();
        let mut warrant = Warrant {
            command: CommandId::new(NOW),
            verb: "list_users".into(),
            plugin: "accounts".into(),
            digest: "ab".repeat(32),
            args_sha256: warrant::args_sha256("{}"),
            mode: Mode::Apply,
            caller: "alice".into(),
            also: Vec::new(),
            approvals: Vec::new(),
            plans: Vec::new(),
            undo: None,
            not_before_ms: NOW,
            expires_ms: NOW + 60_000,
            timeout_secs: 5,
            targets_root: hex::encode(tree.root()),
            targets: 1,
        };
        change(&mut warrant);
        let clock = Clock::default();
        clock.learn(NOW + 10, Duration::ZERO);
        let order =
            Order { warrant: warrant::sign(&warrant, key).unwrap(), args: RawValue::from_string(args.into()).unwrap() };
        (Judge { agent, keys: vec![key.public()], clock }, order, tree.proof(0).unwrap())
    }

    #[test]
    fn a_lawful_order_passes() {
        let (judge, order, proof) = order(&SecretKey::generate(), "{}", |_| ());
        assert_eq!(judge.judge(&order, &proof).unwrap().warrant().verb, "list_users");
    }

    #[test]
    fn only_a_signed_order_to_this_agent_is_answered() {
        let key = SecretKey::generate();
        let (judge, good, proof) = order(&key, "{\"a\":1}", |_| ());
        let Some(Incoming::Refused { invocation, report }) = judge.judge(&good, &proof).unwrap_err().answer() else {
            panic!("answered")
        };
        assert_eq!((report.outcome, report.failure.unwrap().code.as_str()), (Outcome::Denied, "warrant"));
        let (_, sound, _) = order(&key, "{}", |_| ());
        assert_ne!(*judge.judge(&sound, &proof).unwrap().invocation(), invocation, "another command");

        let (judge, late, proof) = order(&key, "{}", |w| w.expires_ms = NOW + 5);
        let Some(Incoming::Refused { report, .. }) = judge.judge(&late, &proof).unwrap_err().answer() else {
            panic!("answered")
        };
        assert_eq!(report.outcome, Outcome::Expired);

        let (_, forged, proof) = order(&SecretKey::generate(), "{}", |_| ());
        assert!(judge.judge(&forged, &proof).unwrap_err().answer().is_none());
        let (judge, foreign, proof) = order(&key, "{}", |w| w.targets_root = "cd".repeat(32));
        assert!(judge.judge(&foreign, &proof).unwrap_err().answer().is_none());
    }

    #[test]
    fn each_frame_keeps_its_bound() {
        assert!(parse(r#"{"ping":{"nonce":1,"time_ms":2}}"#).is_ok());
        let padded = format!(r#"{{"ping":{{"nonce":1,"time_ms":2}}}}{}"#, " ".repeat(300));
        assert!(matches!(parse(&padded), Err(FrameError::Size { kind: "ping", .. })));
        for bad in ["", "{}", r#"{"pong":{"nonce":1}}"#, r#"{"exec":{}}"#] {
            assert!(matches!(parse(bad), Err(FrameError::Malformed(_))), "{bad}");
        }
        assert!(matches!(parse_chunk(&Bytes::from_static(b"V9")), Err(FrameError::Chunk(_))));
    }
}

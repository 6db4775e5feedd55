//! Receipts as they come with results: each is checked against the key that is pinned for
//! its agent and against the report beside it. Soon after, chains are followed on; every
//! few minutes their ends are signed. A bad receipt is kept, marked, counted and audited:
//! it never keeps a result from being settled.

#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha256};
use std::time::Duration;
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::outcome::Report;
use viworks_protocol::receipt::anchor::{self, Anchor, AnchoredHead, MAX_HEADS};
use viworks_protocol::receipt::{self, GENESIS, ReceiptError};
use viworks_signing::dsse::Envelope;
use viworks_signing::keys::PublicKey;

use super::Engine;
use crate::background::every;
use crate::metrics::{Kind, Metrics, Word};
use crate::store::StoreError;
use crate::store::receipt::{NewReceipt, StoredAnchor, UNSIGNED};

/// Between two looks for receipts whose chains were not followed yet.
const WALK_EVERY: Duration = Duration::from_secs(1);
/// One instance follows and anchors: an anchor's number is the last one's and one.
const RECEIPTS: &str = "receipts";

impl Engine {
    /// The receipt that came with a report, and what is wrong with it.
    pub(super) async fn receipt(
        &self,
        agent: &AgentId,
        invocation: &InvocationId,
        report: &Report,
    ) -> Option<Box<NewReceipt>> {
        let envelope = report.receipt.as_deref()?;
        let session = self.inner.parts.hub.session(agent);
        let key = session.as_ref().and_then(|session| session.receipt_key.get());
        let receipt = check(agent, key, invocation, report, envelope);
        let metrics = &self.inner.parts.metrics;
        match receipt.fault {
            None => drop(metrics.receipts.inc()),
            Some(fault) => {
                Metrics::count(&metrics.receipt_faults, fault);
                self.refuse(agent, "receipt", invocation.as_str(), fault).await;
            }
        }
        Some(Box::new(receipt))
    }

    /// Follow the chains on, all that came.
    pub(crate) async fn walk_receipts(&self) {
        while matches!(self.store().receipts_unwalked().await, Ok(true)) {
            match self.store().walk_receipts(self.now_ms()).await {
                Ok(walked) => {
                    let faults = &self.inner.parts.metrics.receipt_faults;
                    for (kind, count) in [("gap", walked.gaps), ("forked", walked.forks)] {
                        if count > 0 {
                            faults.get_or_create(&Kind { kind: Word(kind) }).inc_by(u64::from(count));
                        }
                    }
                    if walked.receipts == 0 {
                        return;
                    }
                }
                Err(error) => return tracing::error!(%error, "chains of receipts can't be followed"),
            }
        }
    }

    /// Sign where the lasting chains end that moved since the anchor before. Answers how
    /// many anchors that took.
    ///
    /// # Errors
    /// When the store refuses; it can be done again.
    pub(crate) async fn anchor_receipts(&self) -> Result<u32, StoreError> {
        let mut anchors = 0;
        loop {
            let ends = self.store().moved_chains(u32::try_from(MAX_HEADS).unwrap_or(u32::MAX)).await?;
            if ends.is_empty() {
                return Ok(anchors);
            }
            let (before, prev) = match self.store().last_anchor().await? {
                Some(last) => (last.seq, last.sha256),
                None => (0, GENESIS.to_owned()),
            };
            let head = |end: &crate::store::receipt::ChainEnd| AnchoredHead {
                agent: end.agent.clone(),
                key: end.chain.clone(),
                seq: end.seq,
                sha256: end.sha256.clone(),
            };
            let heads: Vec<_> = ends.iter().map(head).collect();
            let at_ms = self.now_ms();
            let anchor = Anchor { version: anchor::VERSION, seq: before + 1, prev, at_ms, heads };
            let corrupt = |e: serde_json::Error| StoreError::Corrupt { what: "anchor", text: e.to_string() };
            let (envelope, head) = anchor::sign(&anchor, &self.inner.parts.key).map_err(corrupt)?;
            let stored = StoredAnchor {
                seq: head.seq,
                sha256: head.sha256,
                at_ms,
                heads: u32::try_from(anchor.heads.len()).unwrap_or(u32::MAX),
                envelope: serde_json::to_string(&envelope).map_err(corrupt)?,
            };
            self.store().anchor(stored, ends).await?;
            self.inner.parts.metrics.anchors.inc();
            anchors += 1;
        }
    }
}

fn check(
    agent: &AgentId,
    key: Option<&PublicKey>,
    invocation: &InvocationId,
    report: &Report,
    envelope: &Envelope,
) -> NewReceipt {
    let text = serde_json::to_string(envelope).unwrap_or_default();
    let unsigned = |fault, envelope: String| NewReceipt {
        chain: UNSIGNED.to_owned(),
        boot: None,
        seq: 0,
        sha256: hex::encode(Sha256::digest(&envelope)),
        prev: GENESIS.to_owned(),
        fault: Some(fault),
        envelope,
    };
    let Some(key) = key else { return unsigned("no-key", text) };
    let verified = match receipt::verify(envelope, agent, std::slice::from_ref(key)) {
        Ok(verified) => verified,
        Err(error) => {
            let fault = match error {
                ReceiptError::TooLarge => "too-large",
                ReceiptError::Signature(_) => "signature",
                ReceiptError::Payload(_) => "payload",
                ReceiptError::Version(_) => "version",
                ReceiptError::Agent(_) => "agent",
            };
            return unsigned(fault, text);
        }
    };
    let (receipt, head) = (verified.receipt(), verified.head());
    let fault = match () {
        () if receipt.invocation != *invocation => Some("invocation"),
        () if !receipt.tells_of(report) => Some("report"),
        () => None,
    };
    NewReceipt {
        chain: receipt.boot.as_ref().map_or_else(|| key.id(), |boot| format!("{}/{boot}", key.id())),
        boot: receipt.boot.clone(),
        seq: receipt.seq,
        sha256: head.sha256,
        prev: receipt.prev.clone(),
        fault,
        envelope: text,
    }
}

pub(super) async fn walk(engine: Engine) {
    let stop = engine.inner.parts.background.token().clone();
    every(WALK_EVERY, &stop, || async {
        if engine.inner.parts.cluster.leads(RECEIPTS).await {
            engine.walk_receipts().await;
        }
    })
    .await;
}

pub(super) async fn anchor_them(engine: Engine) {
    let stop = engine.inner.parts.background.token().clone();
    let interval = Duration::from_secs(engine.inner.parts.anchor_secs);
    every(interval, &stop, || async {
        if !engine.inner.parts.cluster.leads(RECEIPTS).await {
            return;
        }
        engine.walk_receipts().await;
        if let Err(error) = engine.anchor_receipts().await {
            tracing::error!(%error, "chains of receipts can't be anchored");
        }
    })
    .await;
}

//! An export of receipts: JSON lines, and what can be said of them without the backend.
//! Finds what was tampered with, reordered, taken out, cut off or forked. Believes a key
//! only if it was given by hand or a trusted anchor names it.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use viworks_signing::dsse::Envelope;
use viworks_signing::keys::PublicKey;

use super::anchor::{self, AnchoredHead};
use super::{Head, ReceiptError, verify};
use crate::id::AgentId;

/// Faults that a summary lists; it counts them all.
pub const MAX_FAULTS: usize = 1_000;

/// One line of an export, for example `{"receipt":{…}}`. The order of kinds does not
/// matter; the receipts of one chain come in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    Receipt(Envelope),
    Anchor(Envelope),
    Key(AgentKey),
}

/// A key that signs an agent's receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentKey {
    pub agent: AgentId,
    /// SPKI PEM.
    pub pem: String,
}

/// What is believed from elsewhere than the export.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Keys of agents, had by another way.
    pub agents: Vec<(AgentId, PublicKey)>,
    /// Keys that sign anchors: the backend's warrant keys.
    pub anchors: Vec<PublicKey>,
    /// The export is of this agent alone: what anchors say of others is not missed.
    pub only: Option<AgentId>,
}

/// What an export holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Receipts whose signature verified.
    pub receipts: u64,
    pub anchors: u64,
    /// Unix milliseconds of the last trusted anchor: what was cut off later can't be seen.
    pub anchored_until_ms: Option<u64>,
    pub chains: Vec<Chain>,
    /// The first [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
    pub fault_count: u64,
}

/// One chain of receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    pub agent: AgentId,
    /// The id of the key that signed it.
    pub key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    pub first: u64,
    pub last: Head,
    /// The highest place that a trusted anchor confirms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchored: Option<u64>,
}

/// What is wrong, where. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub enum Fault {
    #[error("line {line}: not a line of an export ({problem})")]
    Malformed { line: usize, problem: String },
    #[error("line {line}: signed by a key that nothing vouches for")]
    UnknownKey { line: usize },
    #[error("line {line}: tampered with ({problem})")]
    Tampered { line: usize, problem: String },
    #[error("line {line}: receipt {seq} of {agent} comes after a later one")]
    Reordered { line: usize, agent: AgentId, seq: u64 },
    #[error("line {line}: receipt {seq} of {agent} a second time")]
    Repeated { line: usize, agent: AgentId, seq: u64 },
    #[error("{agent}: receipts {from} to {to} are missing")]
    Missing { agent: AgentId, from: u64, to: u64 },
    #[error("{agent}: two histories meet at receipt {seq}")]
    Forked { agent: AgentId, seq: u64 },
    #[error("{agent}: ends at receipt {last}, an anchor saw {anchored}")]
    Truncated { agent: AgentId, last: u64, anchored: u64 },
    #[error("{agent}: begins at receipt {seq}, and no anchor confirms the one before")]
    NoBeginning { agent: AgentId, seq: u64 },
    #[error("anchors {from} to {to} are missing")]
    AnchorMissing { from: u64, to: u64 },
    #[error("two histories of anchors meet at {seq}")]
    AnchorForked { seq: u64 },
}

impl Summary {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.fault_count == 0
    }

    fn fault(&mut self, fault: Fault) {
        self.fault_count += 1;
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }
}

/// Agent, key's id and boot: what tells chains apart.
type Name = (AgentId, String, Option<String>);

struct Place {
    line: usize,
    seq: u64,
    prev: String,
    sha256: String,
}

/// Anchored heads of one chain, by place.
type Anchored = BTreeMap<u64, String>;

/// Check an export; empty lines are passed over. One pass over keys and anchors, one over
/// receipts: the time is that of one strict Ed25519 verification for each.
#[must_use]
pub fn verify_export<'t>(lines: impl Iterator<Item = &'t str> + Clone, trust: &Trust) -> Summary {
    let mut summary = Summary::default();
    let lines = lines.enumerate().map(|(i, line)| (i + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    let (offered, anchored) = keys_and_anchors(lines.clone(), trust, &mut summary);
    let keys = believed(offered, &anchored, trust);
    let chains = receipts(lines, &keys, &mut summary);
    for (name, places) in chains {
        let heads = if name.2.is_none() { anchored.get(&(name.0.clone(), name.1.clone())) } else { None };
        let chain = walk(name, places, heads, &mut summary);
        summary.chains.extend(chain);
    }
    missed(&anchored, trust, &mut summary);
    summary
}

fn is_receipt(line: &str) -> bool {
    line.starts_with(r#"{"receipt""#)
}

type Anchors = BTreeMap<(AgentId, String), Anchored>;

fn keys_and_anchors<'t>(
    lines: impl Iterator<Item = (usize, &'t str)>,
    trust: &Trust,
    summary: &mut Summary,
) -> (Vec<(AgentId, PublicKey)>, Anchors) {
    let (mut offered, mut envelopes, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (line, text) in lines.filter(|(_, text)| !is_receipt(text)) {
        match serde_json::from_str(text) {
            Ok(Line::Key(AgentKey { agent, pem })) => match PublicKey::from_pem(&pem) {
                Ok(key) => offered.push((agent, key)),
                Err(e) => summary.fault(Fault::Malformed { line, problem: e.to_string() }),
            },
            Ok(Line::Anchor(envelope)) => envelopes.push((line, envelope)),
            // Written with a space somewhere: the other pass skips it, so it counts here.
            Ok(Line::Receipt(_)) => {
                summary.fault(Fault::Malformed { line, problem: r#"does not begin with {"receipt""#.into() });
            }
            Err(e) => summary.fault(Fault::Malformed { line, problem: e.to_string() }),
        }
    }
    let mut anchored = Anchors::new();
    // Without a key for them, anchors say nothing.
    if trust.anchors.is_empty() {
        return (offered, anchored);
    }
    for (line, envelope) in envelopes {
        match anchor::verify(&envelope, &trust.anchors) {
            Ok((anchor, head)) => {
                summary.anchors += 1;
                summary.anchored_until_ms = summary.anchored_until_ms.max(Some(anchor.at_ms));
                places.push(Place { line, seq: head.seq, prev: anchor.prev, sha256: head.sha256 });
                for AnchoredHead { agent, key, seq, sha256 } in anchor.heads {
                    let heads = anchored.entry((agent.clone(), key)).or_default();
                    if heads.insert(seq, sha256.clone()).is_some_and(|other| other != sha256) {
                        summary.fault(Fault::Forked { agent, seq });
                    }
                }
            }
            Err(e) => summary.fault(Fault::Tampered { line, problem: e.to_string() }),
        }
    }
    places.sort_by_key(|place| place.seq);
    for pair in places.windows(2) {
        match pair[1].seq - pair[0].seq {
            0 if pair[0].sha256 == pair[1].sha256 => {}
            1 if pair[1].prev == pair[0].sha256 => {}
            0 | 1 => summary.fault(Fault::AnchorForked { seq: pair[1].seq }),
            _ => summary.fault(Fault::AnchorMissing { from: pair[0].seq + 1, to: pair[1].seq - 1 }),
        }
    }
    (offered, anchored)
}

/// By key id, as envelopes hint at it.
type Keys = HashMap<String, (AgentId, [PublicKey; 1])>;

fn believed(offered: Vec<(AgentId, PublicKey)>, anchored: &Anchors, trust: &Trust) -> Keys {
    let vouched = offered.into_iter().filter(|(agent, key)| anchored.contains_key(&(agent.clone(), key.id())));
    trust.agents.iter().cloned().chain(vouched).map(|(agent, key)| (key.id(), (agent, [key]))).collect()
}

fn receipts<'t>(
    lines: impl Iterator<Item = (usize, &'t str)>,
    keys: &Keys,
    summary: &mut Summary,
) -> BTreeMap<Name, Vec<Place>> {
    let mut chains: BTreeMap<Name, Vec<Place>> = BTreeMap::new();
    for (line, text) in lines.filter(|(_, text)| is_receipt(text)) {
        let envelope = match serde_json::from_str(text) {
            Ok(Line::Receipt(envelope)) => envelope,
            Ok(_) => continue,
            Err(e) => {
                summary.fault(Fault::Malformed { line, problem: e.to_string() });
                continue;
            }
        };
        let hinted = envelope.signatures.iter().find_map(|signature| keys.get_key_value(&signature.keyid));
        let Some((id, (agent, key))) = hinted else {
            summary.fault(Fault::UnknownKey { line });
            continue;
        };
        let verified = match verify(&envelope, agent, key) {
            Ok(verified) => verified,
            Err(e) => {
                let problem = match &e {
                    ReceiptError::Signature(cause) => format!("{e}: {cause}"),
                    _ => e.to_string(),
                };
                summary.fault(Fault::Tampered { line, problem });
                continue;
            }
        };
        summary.receipts += 1;
        let receipt = verified.receipt;
        let places = chains.entry((receipt.agent, id.clone(), receipt.boot)).or_default();
        places.push(Place { line, seq: receipt.seq, prev: receipt.prev, sha256: verified.sha256 });
    }
    chains
}

/// Follow one chain from its first receipt to its last.
fn walk(name: Name, mut places: Vec<Place>, heads: Option<&Anchored>, summary: &mut Summary) -> Option<Chain> {
    let (agent, key, boot) = name;
    for pair in places.windows(2).filter(|pair| pair[1].seq < pair[0].seq) {
        summary.fault(Fault::Reordered { line: pair[1].line, agent: agent.clone(), seq: pair[1].seq });
    }
    places.sort_by_key(|place| place.seq);
    let (first, last) = (places.first()?, places.last()?);
    let begins = match first.seq {
        0 => false,
        1 => first.prev == super::GENESIS,
        seq => heads.is_some_and(|heads| heads.get(&(seq - 1)) == Some(&first.prev)),
    };
    if !begins {
        summary.fault(Fault::NoBeginning { agent: agent.clone(), seq: first.seq });
    }
    for pair in places.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let agent = agent.clone();
        match after.seq - before.seq {
            0 if after.sha256 == before.sha256 => {
                summary.fault(Fault::Repeated { line: after.line, agent, seq: after.seq });
            }
            1 if after.prev == before.sha256 => {}
            0 | 1 => summary.fault(Fault::Forked { agent, seq: after.seq }),
            _ => summary.fault(Fault::Missing { agent, from: before.seq + 1, to: after.seq - 1 }),
        }
    }
    let mut anchored = None;
    for (&seq, sha256) in heads.into_iter().flatten() {
        let Ok(at) = places.binary_search_by_key(&seq, |place| place.seq) else { continue };
        if places[at].sha256 == *sha256 {
            anchored = Some(seq);
        } else {
            summary.fault(Fault::Forked { agent: agent.clone(), seq });
        }
    }
    let last = Head { seq: last.seq, sha256: last.sha256.clone() };
    Some(Chain { agent, key, boot, first: first.seq, last, anchored })
}

/// What anchors have seen and the export has not.
fn missed(anchored: &Anchors, trust: &Trust, summary: &mut Summary) {
    let ends: HashMap<(AgentId, String), u64> = (summary.chains.iter().filter(|chain| chain.boot.is_none()))
        .map(|chain| ((chain.agent.clone(), chain.key.clone()), chain.last.seq))
        .collect();
    for (chain, heads) in anchored {
        let Some((&seq, _)) = heads.last_key_value() else { continue };
        let wanted = trust.only.as_ref().is_none_or(|only| *only == chain.0);
        let last = ends.get(chain).copied().unwrap_or(0);
        if wanted && seq > last {
            summary.fault(Fault::Truncated { agent: chain.0.clone(), last, anchored: seq });
        }
    }
}

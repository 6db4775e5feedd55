//! Receipts followed along their chains: what is missing or contradicts is found, audited
//! and marked. What lies before a restore of the store is told as that. No SQL.

use std::collections::{BTreeMap, HashSet};
use viworks_protocol::receipt::GENESIS;

use super::StoreError;
use super::lists::json;
use super::model::{AuditEntry, Decision};
use super::receipt::Walked;
use super::rows::RowExt;

/// A receipt whose chain is followed now.
pub(super) struct Step {
    agent: String,
    chain: String,
    boot: Option<String>,
    seq: u64,
    sha256: String,
    prev: String,
}

#[derive(Default)]
pub(super) struct Head {
    boot: Option<String>,
    seq: u64,
    sha256: String,
    held: u64,
    changed_ms: u64,
}

/// What following came to; `late` are those that no head was waiting for.
pub(super) struct Followed {
    pub steps: Vec<Step>,
    pub late: Vec<usize>,
    heads: BTreeMap<(String, String), Head>,
    forked: HashSet<usize>,
    audits: Vec<AuditEntry>,
    out: Walked,
    now_ms: u64,
}

/// What is to be written.
pub(super) struct Written {
    pub out: Walked,
    /// `[agent, chain, seq, sha256, fault]`
    pub walked: String,
    /// `[agent, chain, boot, seq, sha256, held]`
    pub heads: String,
    pub audits: Vec<AuditEntry>,
}

/// Gateways are back so long after a restore, and what was under way is delivered again first:
/// a chain that moved in that time may still lack what the lost store had.
const RETURN_MS: u64 = 3_600_000;

/// Rows in the order of their chains, each with its chain's head as `head_seq`,
/// `head_sha256`, `held` and `head_ms`. `restored_ms`: when the store was restored last; a
/// chain that went on meanwhile lacks what the lost store had, which is no gateway's doing.
pub(super) fn follow<R: RowExt>(found: &[R], restored_ms: u64, now_ms: u64) -> Result<Followed, StoreError> {
    let mut heads: BTreeMap<(String, String), Head> = BTreeMap::new();
    let (mut out, mut audits, mut forked, mut late) = (Walked::default(), Vec::new(), HashSet::new(), Vec::new());
    let mut steps = Vec::with_capacity(found.len());
    for (place, row) in found.iter().enumerate() {
        let step = step(row)?;
        let head = match heads.entry((step.agent.clone(), step.chain.clone())) {
            std::collections::btree_map::Entry::Occupied(head) => head.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(Head {
                boot: step.boot.clone(),
                seq: row.maybe_number("head_seq")?.unwrap_or(0),
                sha256: row.maybe_text("head_sha256")?.unwrap_or_else(|| GENESIS.to_owned()),
                held: row.maybe_number("held")?.unwrap_or(0),
                changed_ms: row.maybe_number("head_ms")?.unwrap_or(0),
            }),
        };
        if step.seq <= head.seq {
            late.push(place);
        } else {
            if step.seq > head.seq + 1 {
                let span = format!("receipts {} to {} of {}", head.seq + 1, step.seq - 1, step.chain);
                if head.changed_ms < restored_ms.saturating_add(RETURN_MS) && restored_ms > 0 {
                    let detail = format!("{span} are not held since the store was restored");
                    audits.push(AuditEntry { decision: Decision::Allowed, ..audit(&step, detail, now_ms) });
                } else {
                    out.gaps += 1;
                    audits.push(audit(&step, format!("{span} are missing"), now_ms));
                }
            } else if step.prev != head.sha256 {
                forked.insert(place);
            }
            head.seq = step.seq;
            head.sha256.clone_from(&step.sha256);
            head.held += 1;
            head.changed_ms = now_ms;
        }
        steps.push(step);
    }
    Ok(Followed { steps, late, heads, forked, audits, out, now_ms })
}

impl Followed {
    /// Of the late ones, as `[place, agent, chain, seq, sha256]`.
    pub(super) fn late_list(&self) -> Result<String, StoreError> {
        let list: Vec<_> = self
            .late
            .iter()
            .map(|place| (*place, &self.steps[*place]))
            .map(|(place, s)| (place, &s.agent, &s.chain, s.seq, &s.sha256))
            .collect();
        json(&list)
    }

    /// With the places of late ones whose place in the chain another receipt has.
    pub(super) fn finish(self, contradicted: Vec<usize>) -> Result<Written, StoreError> {
        let Self { steps, late, mut heads, mut forked, mut audits, mut out, now_ms } = self;
        forked.extend(contradicted);
        for place in late.iter().filter(|place| !forked.contains(*place)) {
            // One that was missing.
            let step = &steps[*place];
            if let Some(head) = heads.get_mut(&(step.agent.clone(), step.chain.clone())) {
                head.held += 1;
            }
        }
        out.receipts = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        out.forks = u32::try_from(forked.len()).unwrap_or(u32::MAX);
        for step in forked.iter().filter_map(|place| steps.get(*place)) {
            audits.push(audit(step, format!("receipt {} of {} contradicts another", step.seq, step.chain), now_ms));
        }
        let walked: Vec<_> = steps
            .iter()
            .enumerate()
            .map(|(place, s)| (&s.agent, &s.chain, s.seq, &s.sha256, forked.contains(&place).then_some("forked")))
            .collect();
        let heads: Vec<_> =
            heads.iter().map(|((agent, chain), h)| (agent, chain, &h.boot, h.seq, &h.sha256, h.held)).collect();
        Ok(Written { out, walked: json(&walked)?, heads: json(&heads)?, audits })
    }
}

fn step(row: &impl RowExt) -> Result<Step, StoreError> {
    Ok(Step {
        agent: row.text("agent")?,
        chain: row.text("chain")?,
        boot: row.maybe_text("boot")?,
        seq: row.number("seq")?,
        sha256: row.text("sha256")?,
        prev: row.text("prev")?,
    })
}

fn audit(step: &Step, detail: String, at_ms: u64) -> AuditEntry {
    AuditEntry {
        at_ms,
        actor: format!("agent:{}", step.agent),
        action: "receipt".to_owned(),
        subject: format!("agent:{}", step.agent),
        decision: Decision::Refused,
        detail,
    }
}

//! The Merkle tree over a command's targets, hashed as in RFC 6962 §2.1: leaves and
//! nodes in domains of their own, so that neither can pass for the other.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::AgentId;

/// Trees deeper than this are refused: 2^20 targets.
pub const MAX_DEPTH: usize = 20;

pub type Hash = [u8; 32];

/// One target's place in the tree: enough to reach the root from its leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    pub index: u32,
    pub count: u32,
    /// Sibling hashes in lowercase hex, from the leaf up.
    pub siblings: Vec<String>,
}

/// A whole tree, from which roots and proofs are read.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Level 0 holds the leaves; an odd last node is carried up as it is.
    levels: Vec<Vec<Hash>>,
}

#[must_use]
pub fn leaf(agent: &AgentId) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(agent.as_str().as_bytes());
    hash.finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

impl Tree {
    /// The tree over `targets` in their order; `None` if there are none or too many.
    #[must_use]
    pub fn new<'a>(targets: impl IntoIterator<Item = &'a AgentId>) -> Option<Self> {
        let leaves: Vec<Hash> = targets.into_iter().map(leaf).collect();
        if leaves.is_empty() || leaves.len() > 1 << MAX_DEPTH {
            return None;
        }
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|l| l.len() > 1) {
            let next = last.chunks(2).map(|pair| pair.get(1).map_or(pair[0], |right| node(&pair[0], right))).collect();
            levels.push(next);
        }
        Some(Self { levels })
    }

    #[must_use]
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|l| l.first()).copied().unwrap_or_default()
    }

    /// The proof of the target at `index`, if there is one.
    #[must_use]
    pub fn proof(&self, index: u32) -> Option<Proof> {
        let count = u32::try_from(self.levels[0].len()).ok()?;
        if index >= count {
            return None;
        }
        let mut at = index as usize;
        let mut siblings = Vec::new();
        for level in &self.levels[..self.levels.len() - 1] {
            if let Some(sibling) = level.get(at ^ 1) {
                siblings.push(hex::encode(sibling));
            }
            at /= 2;
        }
        Some(Proof { index, count, siblings })
    }
}

impl Proof {
    /// The root that this proof leads to from `agent`'s leaf, if its form is right.
    #[must_use]
    pub fn root(&self, agent: &AgentId) -> Option<Hash> {
        if self.index >= self.count || self.siblings.len() > MAX_DEPTH {
            return None;
        }
        let (mut at, mut width) = (self.index, self.count);
        let mut hash = leaf(agent);
        let mut siblings = self.siblings.iter();
        while width > 1 {
            if at ^ 1 < width {
                let mut sibling = Hash::default();
                hex::decode_to_slice(siblings.next()?, &mut sibling).ok()?;
                hash = if at % 2 == 0 { node(&hash, &sibling) } else { node(&sibling, &hash) };
            }
            at /= 2;
            width = width.div_ceil(2);
        }
        siblings.next().is_none().then_some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agents(n: u32) -> Vec<AgentId> {
        (0..n).filter_map(|i| format!("agent-{i}").parse().ok()).collect()
    }

    proptest! {
        #[test]
        fn every_target_proves_itself_and_no_other(n in 1u32..200, pick in 0u32..200) {
            let targets = agents(n);
            let Some(tree) = Tree::new(&targets) else { return Err(TestCaseError::fail("a tree")) };
            let index = pick % n;
            let Some(proof) = tree.proof(index) else { return Err(TestCaseError::fail("a proof")) };
            prop_assert_eq!(proof.root(&targets[index as usize]), Some(tree.root()));
            let stranger = "stranger".parse().map_err(|_| TestCaseError::fail("id"))?;
            prop_assert_ne!(proof.root(&stranger), Some(tree.root()));
            for (i, other) in targets.iter().enumerate().filter(|(i, _)| *i != index as usize) {
                prop_assert_ne!(proof.root(other), Some(tree.root()), "target {}", i);
            }
        }
    }

    #[test]
    fn malformed_proofs_lead_nowhere() {
        let targets = agents(5);
        let Some(good) = Tree::new(&targets).and_then(|t| t.proof(2)) else { panic!("a proof") };
        let mut long = good.clone();
        long.siblings.push("00".repeat(32));
        let mut short = good.clone();
        short.siblings.pop();
        let outside = Proof { index: 5, ..good.clone() };
        let not_hex = Proof { siblings: vec!["zz".into(); 3], ..good };
        for bad in [long, short, outside, not_hex] {
            assert_eq!(bad.root(&targets[2]), None);
        }
    }
}

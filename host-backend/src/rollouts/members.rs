//! Whom a stage takes in. Members stay members; new ones are drawn by a hash of rollout
//! and agent, so that the same agents are not always the first, those that are there
//! before those that are away.

use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use viworks_protocol::id::AgentId;

use super::spec::{Spec, Stage};
use super::{RolloutError, Rollouts};
use crate::store::model::Rollout;

/// Agents of one group.
const MOST: u32 = 100_000;

impl Rollouts {
    /// The new members of the stage at hand; a stage for all makes the rollout `everyone`'s.
    pub(super) async fn members(
        &self,
        rollout: &mut Rollout,
        spec: &Spec,
        before: &HashSet<AgentId>,
    ) -> Result<Vec<AgentId>, RolloutError> {
        let parts = &self.inner.parts;
        let Some(part) = spec.part(rollout.stage) else { return Ok(Vec::new()) };
        let stage = part.who();
        if stage.percent == Some(100) {
            rollout.everyone = true;
            return Ok(Vec::new());
        }
        if let Some(group) = stage.group() {
            let selected = parts.store.select_agents(&group, MOST).await?;
            return Ok(selected.into_iter().filter(|agent| !before.contains(agent)).collect());
        }
        let present = parts.store.present_agents().await?;
        let shared = parts.cluster.is_shared();
        let elsewhere: HashSet<AgentId> =
            present.iter().filter(|(_, online)| shared && *online).map(|(agent, _)| agent.clone()).collect();
        Ok(draw(&rollout.id, &stage, present, before, |agent| {
            parts.hub.is_connected(agent) || elsewhere.contains(agent)
        }))
    }
}

fn draw(
    rollout: &str,
    stage: &Stage,
    known: Vec<(AgentId, bool)>,
    before: &HashSet<AgentId>,
    online: impl Fn(&AgentId) -> bool,
) -> Vec<AgentId> {
    let wanted = match (stage.agents, stage.percent) {
        (Some(agents), _) => agents as usize,
        (None, Some(percent)) => (known.len() * usize::from(percent)).div_ceil(100),
        (None, None) => 0,
    };
    let room = wanted.saturating_sub(before.len());
    let mut others: Vec<_> = known.into_iter().map(|(agent, _)| agent).filter(|a| !before.contains(a)).collect();
    others.sort_by_cached_key(|agent| {
        let hash = Sha256::new().chain_update(rollout).chain_update([0]).chain_update(agent.as_str()).finalize();
        (!online(agent), hash.to_vec())
    });
    others.truncate(room);
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(count: usize) -> Vec<(AgentId, bool)> {
        (0..count).filter_map(|n| Some((format!("a-{n:04}").parse().ok()?, true))).collect()
    }

    #[test]
    fn stages_grow_and_who_is_there_comes_first() {
        let stage = |agents, percent| Stage { agents, percent, ..Stage::default() };
        let first = draw("rol-1", &stage(Some(3), None), agents(200), &HashSet::new(), |_| true);
        assert_eq!(first.len(), 3);
        let before: HashSet<_> = first.iter().cloned().collect();
        let second = draw("rol-1", &stage(None, Some(5)), agents(200), &before, |_| true);
        assert_eq!(second.len(), 7, "ten of two hundred, three of them members already");
        assert!(second.iter().all(|agent| !before.contains(agent)));
        assert_ne!(draw("rol-2", &stage(Some(3), None), agents(200), &HashSet::new(), |_| true), first);
        let there = draw("rol-1", &stage(Some(3), None), agents(200), &HashSet::new(), |a| a.as_str() > "a-0190");
        assert!(there.iter().all(|agent| agent.as_str() > "a-0190"), "{there:?}");
        assert_eq!(draw("rol-1", &stage(None, Some(1)), agents(3), &HashSet::new(), |_| true).len(), 1, "never none");
    }
}

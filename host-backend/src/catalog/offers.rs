//! Which agent is offered which releases. While a rollout is under way, its members are
//! offered its release and all others the former one; members of its shadow are offered
//! both, the new one to be planned only. The texts are shared, one for each
//! set of rollouts that an agent may be a member of.

use std::collections::HashSet;
use std::sync::OnceLock;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use viworks_protocol::frame::{BackendFrame, PluginOffer};
use viworks_protocol::id::AgentId;

use crate::hub;
use crate::store::model::{Plugin, Rollout};

/// Rollouts that may be under way at once; each doubles the texts that there may be.
pub const MAX_OPEN: usize = 6;

/// A rollout that has not ended, and who has its release, or plans it.
#[derive(Debug)]
pub struct Open {
    pub rollout: Rollout,
    pub release: Plugin,
    pub members: HashSet<AgentId>,
}

impl Open {
    /// Whether the agent is offered the rollout's release, perhaps as a shadow.
    #[must_use]
    pub fn has(&self, agent: &AgentId) -> bool {
        self.rollout.everyone || self.members.contains(agent)
    }
}

#[derive(Debug, Default)]
pub(super) struct Offers {
    active: Vec<PluginOffer>,
    texts: Vec<OnceLock<Utf8Bytes>>,
}

impl Offers {
    pub(super) fn new(active: &[Plugin], open: &[Open]) -> Self {
        let texts = (0..1usize << open.len()).map(|_| OnceLock::new()).collect();
        Self { active: active.iter().map(offer).collect(), texts }
    }

    /// The `plugins` frame for this agent.
    pub(super) fn of(&self, open: &[Open], agent: &AgentId) -> Utf8Bytes {
        let set = open.iter().enumerate().fold(0, |set, (n, open)| set | usize::from(open.has(agent)) << n);
        self.texts.get(set).map(|text| text.get_or_init(|| self.write(open, set)).clone()).unwrap_or_default()
    }

    fn write(&self, open: &[Open], set: usize) -> Utf8Bytes {
        let mut plugins = self.active.clone();
        for (_, Open { release, rollout, .. }) in open.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1) {
            if rollout.is_shadowing() {
                plugins.push(PluginOffer { shadow: true, ..offer(release) });
                continue;
            }
            match plugins.iter_mut().find(|p| p.plugin == release.plugin) {
                Some(place) => *place = offer(release),
                None => plugins.push(offer(release)),
            }
        }
        hub::text(&BackendFrame::Plugins { plugins })
    }
}

fn offer(of: &Plugin) -> PluginOffer {
    PluginOffer {
        plugin: of.plugin.clone(),
        version: of.version.clone(),
        digest: of.digest.clone(),
        component_size: of.component_size,
        statements_size: of.statements_size,
        shadow: false,
    }
}

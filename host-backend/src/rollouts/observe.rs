//! What is seen of releases while they work: who has which one, and how their verbs end.
//! Kept in memory, written as tallies every second; bounded, and cheap where no rollout
//! asks for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viworks_protocol::frame::{PluginState, PluginStatus};
use viworks_protocol::id::{AgentId, InvocationId};
use viworks_protocol::outcome::{Outcome, Report};
use viworks_protocol::shadow::Shadow;

use super::shadow::{ShadowGlance, ShadowTally};
use super::tally::{Sample, Tally};
use crate::store::model::Command;

/// Tallies that are kept; what would be more is not counted.
const MAX_TALLIES: usize = 8_192;

/// Plugins of which shadows are noted.
const MAX_SHADOWED: usize = 64;

/// Begins the name of what was counted before the stage at hand: of the release itself, and
/// of the former one beside it.
const BEFORE: &str = "before:";
const FORMER: &str = "former:";

/// A handle; clones share what was seen.
#[derive(Debug, Clone, Default)]
pub struct Observer(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// By plugin, of those that roll out: what each agent says that it has.
    holders: HashMap<String, HashMap<AgentId, (String, PluginState)>>,
    /// The same of what they have as a shadow.
    shadows: HashMap<String, HashMap<AgentId, (String, PluginState)>>,
    /// Releases that are planned beside others now.
    shadowing: BTreeSet<String>,
    /// By release and name (`shadow:…`).
    planned: BTreeMap<(String, String), ShadowTally>,
    /// By release and name (`verb:…`, `before:…`, `former:…`).
    tallies: BTreeMap<(String, String), Tally>,
    /// By release and name (`capability:…`): effects seen.
    uses: BTreeMap<(String, String), u64>,
    changed: BTreeSet<(String, String)>,
    /// What of it was seen here since it was written last: what is added to the others'.
    fresh: Fresh,
}

/// What one instance saw, to be added to what the others did.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    tallies: BTreeMap<(String, String), Tally>,
    planned: BTreeMap<(String, String), ShadowTally>,
    uses: BTreeMap<(String, String), u64>,
}

/// What an observer takes of a report: small, and no secret.
#[derive(Debug, Clone)]
pub(crate) struct Glance {
    sample: Sample,
    /// Nothing ran: it says nothing about a release.
    idle: bool,
    /// By capability.
    effects: BTreeMap<String, u64>,
    shadow: Option<ShadowGlance>,
}

impl Glance {
    pub(crate) fn of(report: &Report) -> Self {
        let code = report.failure.as_ref().map_or("", |failure| failure.code.as_str());
        let mut effects = BTreeMap::new();
        for effect in &report.effects {
            let capability = effect.kind.split('.').next().unwrap_or_default();
            *effects.entry(capability.to_owned()).or_default() += 1;
        }
        let failed = matches!(report.outcome, Outcome::Failed | Outcome::Unknown);
        let denied = report.outcome == Outcome::Denied;
        let idle = match report.outcome {
            Outcome::Succeeded | Outcome::Failed | Outcome::Denied => {
                matches!(code, "busy" | "warrant" | "plugin" | "interrupted")
            }
            Outcome::Unknown => false,
            Outcome::Cancelled | Outcome::Expired => true,
        };
        let sample = Sample { failed, denied, wall_us: report.cost.wall_us, cpu_us: report.cost.cpu_us };
        Self { sample, idle, effects, shadow: report.shadow.as_deref().map(ShadowGlance::of) }
    }
}

impl Glance {
    pub(crate) fn shadow_verdict(&self) -> Option<&'static str> {
        self.shadow.as_ref().map(|ShadowGlance(shadow)| shadow.verdict.as_str())
    }
}

fn active(state: PluginState) -> bool {
    state == PluginState::Active
}

impl Fresh {
    pub(crate) fn is_empty(&self) -> bool {
        self.tallies.is_empty() && self.planned.is_empty() && self.uses.is_empty()
    }
}

impl Seen {
    fn restore(&mut self, stored: Vec<(String, String, String)>) {
        for (digest, name, text) in stored {
            if name.starts_with("shadow:") {
                if let Ok(tally) = serde_json::from_str(&text) {
                    self.planned.insert((digest, name), tally);
                }
            } else if name.starts_with("capability:") {
                self.uses.insert((digest, name), text.parse().unwrap_or(0));
            } else if let Ok(tally) = serde_json::from_str(&text) {
                self.tallies.insert((digest, name), tally);
            }
        }
    }

    fn add(&mut self, fresh: &Fresh) {
        for (key, tally) in &fresh.tallies {
            self.tallies.entry(key.clone()).or_default().merge(tally);
        }
        for (key, tally) in &fresh.planned {
            self.planned.entry(key.clone()).or_default().merge(tally);
        }
        for (key, uses) in &fresh.uses {
            *self.uses.entry(key.clone()).or_default() += uses;
        }
    }

    /// As they are written: digest, name, tally.
    fn texts(&self, keys: impl Iterator<Item = (String, String)>) -> Vec<(String, String, String)> {
        let text = |key: &(String, String)| match (self.tallies.get(key), self.planned.get(key)) {
            (Some(tally), _) => serde_json::to_string(tally).ok(),
            (None, Some(tally)) => serde_json::to_string(tally).ok(),
            (None, None) => self.uses.get(key).map(u64::to_string),
        };
        keys.filter_map(|key| text(&key).map(|text| (key.0, key.1, text))).collect()
    }
}

impl Observer {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begin with what was written last: digest, name, tally.
    pub(crate) fn restore(&self, stored: Vec<(String, String, String)>) {
        self.lock().restore(stored);
    }

    /// Keep an eye on who has which release of `plugin`; `known` is what was written.
    pub(crate) fn watch(&self, plugin: &str, known: Vec<(AgentId, PluginStatus)>) {
        let mut seen = self.lock();
        let holders = seen.holders.entry(plugin.to_owned()).or_default();
        for (agent, status) in known {
            // What was heard meanwhile is newer.
            holders.entry(agent).or_insert((status.digest, status.state));
        }
    }

    /// Look away from all other plugins; these releases are planned beside others now.
    pub(crate) fn only(&self, plugins: &BTreeSet<&str>, shadowing: BTreeSet<String>) {
        let mut seen = self.lock();
        seen.holders.retain(|plugin, _| plugins.contains(plugin.as_str()));
        seen.shadows.retain(|plugin, _| plugins.contains(plugin.as_str()));
        seen.shadowing = shadowing;
    }

    pub(crate) fn watches(&self, plugin: &str) -> bool {
        self.lock().holders.contains_key(plugin)
    }

    /// An agent says what it has of one plugin.
    pub(crate) fn sighted(&self, agent: &AgentId, status: &PluginStatus) {
        let mut seen = self.lock();
        if status.shadow {
            seen.planning(agent, status);
        } else if let Some(holders) = seen.holders.get_mut(&status.plugin) {
            holders.insert(agent.clone(), (status.digest.clone(), status.state));
        }
    }

    /// An agent says all that it has.
    pub(crate) fn hello(&self, agent: &AgentId, plugins: &[PluginStatus]) {
        let mut seen = self.lock();
        seen.shadows.values_mut().for_each(|holders| drop(holders.remove(agent)));
        plugins.iter().filter(|status| status.shadow).for_each(|status| seen.planning(agent, status));
        if seen.holders.is_empty() {
            return;
        }
        seen.holders.values_mut().for_each(|holders| drop(holders.remove(agent)));
        for status in plugins.iter().filter(|status| !status.shadow) {
            if let Some(holders) = seen.holders.get_mut(&status.plugin) {
                holders.insert(agent.clone(), (status.digest.clone(), status.state));
            }
        }
    }

    /// Invocations ended, each at its agent.
    pub(crate) fn ended<'a>(
        &self,
        ended: impl Iterator<Item = (&'a AgentId, &'a InvocationId, &'a Command, &'a Glance)>,
    ) {
        let mut seen = self.lock();
        for (agent, invocation, command, glance) in ended {
            let seen = &mut *seen;
            if let Some(ShadowGlance(shadow)) = &glance.shadow {
                seen.shadowed(agent, invocation, command, shadow);
            }
            if glance.idle {
                continue;
            }
            let held = seen.holders.get(&command.plugin).and_then(|holders| holders.get(agent));
            let digest = match held {
                // While both are about, what the agent says it has active.
                Some((digest, state)) if active(*state) && command.also.contains(digest) => digest,
                _ => &command.digest,
            };
            let key = (digest.clone(), format!("verb:{}", command.verb));
            if seen.tallies.len() < MAX_TALLIES || seen.tallies.contains_key(&key) {
                seen.tallies.entry(key.clone()).or_default().add(glance.sample);
                seen.fresh.tallies.entry(key.clone()).or_default().add(glance.sample);
                seen.changed.insert(key);
            }
            for (capability, count) in &glance.effects {
                let key = (digest.clone(), format!("capability:{capability}"));
                if seen.uses.len() < MAX_TALLIES || seen.uses.contains_key(&key) {
                    *seen.uses.entry(key.clone()).or_default() += count;
                    *seen.fresh.uses.entry(key.clone()).or_default() += count;
                    seen.changed.insert(key);
                }
            }
        }
    }

    /// What changed since it was asked last, as it is written.
    pub(crate) fn take_changed(&self) -> Vec<(String, String, String)> {
        let mut seen = self.lock();
        let changed = std::mem::take(&mut seen.changed);
        seen.fresh = Fresh::default();
        seen.texts(changed.into_iter())
    }

    /// They could not be written: next time again.
    pub(crate) fn give_back(&self, changed: Vec<(String, String, String)>) {
        self.lock().changed.extend(changed.into_iter().map(|(digest, name, _)| (digest, name)));
    }

    /// What was seen here alone since it was taken last.
    pub(crate) fn take_fresh(&self) -> Fresh {
        let mut seen = self.lock();
        seen.changed.clear();
        std::mem::take(&mut seen.fresh)
    }

    /// What all have written, `mine` added, counts from now on; answers what is to be
    /// written of it.
    pub(crate) fn join(&self, stored: Vec<(String, String, String)>, mine: &Fresh) -> Vec<(String, String, String)> {
        let mut seen = self.lock();
        seen.tallies.clear();
        seen.planned.clear();
        seen.uses.clear();
        seen.restore(stored);
        seen.add(mine);
        let keys = mine.tallies.keys().chain(mine.planned.keys()).chain(mine.uses.keys());
        let written = seen.texts(keys.cloned());
        // What came meanwhile is not written yet, and counts all the same.
        let later = std::mem::take(&mut seen.fresh);
        seen.add(&later);
        seen.fresh = later;
        written
    }

    /// It could not be written: the next time again.
    pub(crate) fn return_fresh(&self, fresh: Fresh) {
        let mut seen = self.lock();
        for (key, tally) in fresh.tallies {
            seen.fresh.tallies.entry(key).or_default().merge(&tally);
        }
        for (key, tally) in fresh.planned {
            seen.fresh.planned.entry(key).or_default().merge(&tally);
        }
        for (key, uses) in fresh.uses {
            *seen.fresh.uses.entry(key).or_default() += uses;
        }
    }

    /// What agents of other instances have, as they said last; `here` says it itself.
    pub(crate) fn renew(&self, plugin: &str, known: Vec<(AgentId, PluginStatus)>, here: impl Fn(&AgentId) -> bool) {
        let mut seen = self.lock();
        let Some(holders) = seen.holders.get_mut(plugin) else { return };
        holders.retain(|agent, _| here(agent));
        for (agent, status) in known {
            holders.entry(agent).or_insert((status.digest, status.state));
        }
    }

    /// A new rollout of a release must not be judged by an earlier one.
    pub(crate) fn forget(&self, digest: &str) {
        let mut seen = self.lock();
        seen.tallies.retain(|(of, _), _| of != digest);
        seen.planned.retain(|(of, _), _| of != digest);
        seen.changed.retain(|(of, _)| of != digest);
        seen.fresh.tallies.retain(|(of, _), _| of != digest);
        seen.fresh.planned.retain(|(of, _), _| of != digest);
    }

    /// What a release did, by verb.
    #[must_use]
    pub fn verbs(&self, digest: &str) -> BTreeMap<String, Tally> {
        let seen = self.lock();
        let of = seen.tallies.iter().filter(|((of, _), _)| of == digest);
        of.filter_map(|((_, name), tally)| Some((name.strip_prefix("verb:")?.to_owned(), tally.clone()))).collect()
    }

    /// What a release did before the stage at hand, and the former one's share of it, by verb.
    pub(crate) fn before(&self, digest: &str) -> (BTreeMap<String, Tally>, BTreeMap<String, Tally>) {
        let seen = self.lock();
        let named = |begin: &str| {
            let of = seen.tallies.iter().filter(|((of, _), _)| of == digest);
            of.filter_map(|((_, name), tally)| Some((name.strip_prefix(begin)?.to_owned(), tally.clone()))).collect()
        };
        (named(BEFORE), named(FORMER))
    }

    /// What both have done so far, to be kept as what was before the next stage.
    pub(crate) fn stage_begins(&self, digest: &str, former: &str) -> Vec<(String, String, String)> {
        let named = |begin: &'static str, of: BTreeMap<String, Tally>| {
            let row = move |(verb, tally): (String, Tally)| {
                Some((digest.to_owned(), format!("{begin}{verb}"), serde_json::to_string(&tally).ok()?))
            };
            of.into_iter().filter_map(row)
        };
        named(BEFORE, self.verbs(digest)).chain(named(FORMER, self.verbs(former))).collect()
    }

    /// What a release would have done where it was planned, by verb.
    #[must_use]
    pub fn planned(&self, digest: &str) -> BTreeMap<String, ShadowTally> {
        let seen = self.lock();
        let of = seen.planned.iter().filter(|((of, _), _)| of == digest);
        of.filter_map(|((_, name), tally)| Some((name.strip_prefix("shadow:")?.to_owned(), tally.clone()))).collect()
    }

    /// Effects that were seen of a release, by capability.
    #[must_use]
    pub fn effects(&self, digest: &str) -> BTreeMap<String, u64> {
        let seen = self.lock();
        let of = seen.uses.iter().filter(|((of, _), _)| of == digest);
        of.filter_map(|((_, name), uses)| Some((name.strip_prefix("capability:")?.to_owned(), *uses))).collect()
    }

    /// What each agent has of a watched plugin, or has as its shadow: the digest, and whether
    /// it is active.
    pub(crate) fn holders<T>(
        &self,
        plugin: &str,
        shadow: bool,
        read: impl FnOnce(&HashMap<AgentId, (String, PluginState)>) -> T,
    ) -> T {
        let seen = self.lock();
        let holders = if shadow { &seen.shadows } else { &seen.holders };
        read(holders.get(plugin).unwrap_or(&HashMap::new()))
    }
}

impl Seen {
    fn planning(&mut self, agent: &AgentId, status: &PluginStatus) {
        if self.shadows.len() < MAX_SHADOWED || self.shadows.contains_key(&status.plugin) {
            let holders = self.shadows.entry(status.plugin.clone()).or_default();
            holders.insert(agent.clone(), (status.digest.clone(), status.state));
        }
    }

    /// Of a release that nobody plans now it is late or made up.
    fn shadowed(&mut self, agent: &AgentId, invocation: &InvocationId, command: &Command, shadow: &Shadow) {
        if !self.shadowing.contains(&shadow.digest) {
            return;
        }
        let key = (shadow.digest.clone(), format!("shadow:{}", command.verb));
        if self.planned.len() < MAX_TALLIES || self.planned.contains_key(&key) {
            self.planned.entry(key.clone()).or_default().add(agent, invocation, shadow);
            self.fresh.planned.entry(key.clone()).or_default().add(agent, invocation, shadow);
            self.changed.insert(key);
        }
    }
}

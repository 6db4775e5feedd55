//! A release that is planned beside the one that serves, and never anything else: what is
//! in here is reached by [`Shadow::plan`] alone, whose recorder has no journal and records.
//! Refuses to serve: nothing gives the release out.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use viworks_protocol::frame::PluginStatus;
use viworks_protocol::id::InvocationId;
use viworks_signing::release::{EffectClass, Release};

use super::admit::AdmittedPlugin;
use super::registry;
use crate::capabilities::{Facts, Progress};
use crate::effects::compare::Planned;
use crate::effects::{Recorder, Untold};
use crate::host::Host;
use crate::runtime::Invocation;

/// Cpu time of a shadow, whatever its release may use when it serves.
const CPU_MS: u32 = 100;

/// An admitted release that may only be planned. Clones are the same release.
#[derive(Debug, Clone)]
pub struct Shadow(Arc<AdmittedPlugin>);

impl Shadow {
    pub(super) fn of(plugin: AdmittedPlugin) -> Self {
        Self(Arc::new(plugin))
    }

    #[must_use]
    pub fn digest(&self) -> &str {
        self.0.digest()
    }

    pub(super) fn release(&self) -> &Release {
        self.0.release()
    }

    /// Whether it has the verb, and may run it.
    #[must_use]
    pub fn has(&self, verb: &str) -> bool {
        self.0.release().verbs.contains_key(verb) && self.0.allows(verb) && !self.0.is_stopped()
    }

    pub(super) fn status(&self) -> PluginStatus {
        PluginStatus { shadow: true, ..registry::status(&self.0) }
    }

    /// Plan a verb: it sees this host as it is, and changes nothing of it.
    pub(crate) async fn plan(
        &self,
        invocation: &InvocationId,
        args: &Map<String, Value>,
        facts: Facts,
        host: Arc<Host>,
        cancel: CancellationToken,
    ) -> Planned {
        let verb = facts.verb.clone();
        // Of a verb that it lacks the runtime says so.
        let class = self.0.release().verbs.get(&verb).map_or(EffectClass::Read, |verb| verb.effect);
        let untold = Untold::default();
        let mut limits = self.0.limits();
        limits.cpu_ms = limits.cpu_ms.min(CPU_MS);
        let run = Invocation {
            facts,
            grant: self.0.grant().clone(),
            recorder: Recorder::shadow(invocation.clone(), class, host.clone(), untold.clone()),
            host,
            limits,
            cancel: cancel.clone(),
            progress: Progress::silent(),
        };
        let report = self.0.while_lawful(&cancel, self.0.prepared().invoke(&verb, args, run)).await;
        Planned { report, untold: untold.get().copied() }
    }
}

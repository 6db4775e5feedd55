//! The state of one running invocation: who asks, what is granted, what was used. It is
//! the store's data, and the gate that every host function passes.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use viworks_signing::grant::{Grant, Granted, Refused};

use super::wit::viworks::gateway as wit;
use crate::effects::{Effect, Recorder};
use crate::failure::Failure;
use crate::host::Host;

/// What the warrant says of this invocation, as guests may know it.
#[derive(Debug, Clone)]
pub struct Facts {
    pub invocation: String,
    pub command: String,
    pub agent: String,
    pub caller: String,
    pub verb: String,
    /// The plugin's id: whose `state` it is.
    pub plugin: String,
    pub deadline: std::time::Instant,
}

/// Counts that limits hold and reports show.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    pub host_calls: u32,
    pub max_host_calls: u32,
    pub denials: u32,
}

/// One invocation's state, and its gate.
#[derive(Debug)]
pub struct Call {
    pub(crate) facts: Facts,
    pub(crate) grant: Arc<Grant>,
    pub(crate) host: Arc<Host>,
    pub(crate) recorder: Recorder,
    pub(crate) meter: Meter,
}

/// Ends an invocation that calls the host more often than its limit.
#[derive(Debug, thiserror::Error)]
#[error("more than {limit} host calls")]
pub struct HostCallLimit {
    pub limit: u32,
}

impl Call {
    /// First line of every host function: counts the call, traps past the limit.
    ///
    /// # Errors
    /// [`HostCallLimit`], which ends the invocation.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        self.meter.host_calls += 1;
        if self.meter.host_calls > self.meter.max_host_calls {
            return Err(wasmtime::Error::new(HostCallLimit { limit: self.meter.max_host_calls }));
        }
        Ok(())
    }

    /// The gate: every layer of the grant must allow it. A refusal is counted and audited.
    ///
    /// `rule` is the scope's field (`accounts.groups`); `what` says what was asked for.
    ///
    /// # Errors
    /// [`Failure::Denied`].
    pub(crate) fn require<S>(
        &mut self,
        granted: &Granted<S>,
        rule: &str,
        what: impl FnOnce() -> String,
        allows: impl Fn(&S) -> bool,
    ) -> Result<(), Failure> {
        granted.require(rule, allows).map_err(|refused| self.denied(rule, &refused, what()))
    }

    fn denied(&mut self, rule: &str, refused: &Refused, message: String) -> Failure {
        self.meter.denials += 1;
        let capability = rule.split('.').next().unwrap_or(rule).to_owned();
        tracing::warn!(
            target: "audit",
            invocation = %self.facts.invocation, plugin = %self.facts.plugin, caller = %self.facts.caller,
            rule = %refused.rule, %message, "denied"
        );
        Failure::Denied { capability, rule: refused.rule.clone(), message }
    }

    /// The way to change the host: journaled, applied, answered.
    ///
    /// # Errors
    /// The recorder's or the capability's failure.
    pub(crate) async fn perform<T: DeserializeOwned>(&mut self, effect: Effect) -> Result<T, Failure> {
        let answer = self.recorder.perform(effect).await?;
        serde_json::from_value(answer).map_err(|e| Failure::Failed(format!("the effect's answer is malformed: {e}")))
    }
}

/// `types` holds no functions; the generated trait wants to be implemented all the same.
impl wit::types::Host for Call {}

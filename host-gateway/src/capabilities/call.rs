//! The state of one running invocation: who asks, what is granted, what was used. It is
//! the store's data, and the gate that every host function passes.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use viworks_signing::grant::{Grant, Granted, Refused};
use viworks_signing::release::Limits;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::progress::Progress;
use super::wit::viworks::gateway as wit;
use crate::effects::{Effect, Recorder};
use crate::failure::Failure;
use crate::host::Host;
use crate::runtime::{Control, Limiter, LogBook, sealed};

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
pub struct Call {
    pub(crate) facts: Facts,
    pub(crate) grant: Arc<Grant>,
    pub(crate) host: Arc<Host>,
    pub(crate) recorder: Recorder,
    pub(crate) meter: Meter,
    pub(crate) log: LogBook,
    pub(crate) progress: Progress,
    pub(crate) control: Arc<Control>,
    pub(crate) limiter: Limiter,
    /// Names of the secrets that this invocation has handles of.
    pub(crate) secrets: Vec<String>,
    wasi: WasiCtx,
    table: ResourceTable,
}

/// Ends an invocation that calls the host more often than its limit.
#[derive(Debug, thiserror::Error)]
#[error("more than {limit} host calls")]
pub struct HostCallLimit {
    pub limit: u32,
}

/// Ends an invocation that was cancelled or is past its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the invocation was told to stop")]
pub struct Stopped;

impl Call {
    /// The state of an invocation that has not begun.
    #[must_use]
    pub fn new(facts: Facts, grant: Arc<Grant>, host: Arc<Host>, recorder: Recorder, limits: &Limits) -> Self {
        let log = LogBook::new(limits.log_kib);
        let (wasi, table) = sealed::context(&log, recorder.tape());
        Self {
            facts,
            grant,
            host,
            recorder,
            meter: Meter { max_host_calls: limits.host_calls, ..Meter::default() },
            log,
            progress: Progress::silent(),
            control: Arc::default(),
            limiter: Limiter::new(limits),
            secrets: Vec::new(),
            wasi,
            table,
        }
    }

    /// First line of every host function: counts the call, traps past the limit and once
    /// the invocation was told to stop.
    ///
    /// # Errors
    /// [`HostCallLimit`] or [`Stopped`], which end the invocation.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        self.meter.host_calls = self.meter.host_calls.saturating_add(1);
        if self.meter.host_calls > self.meter.max_host_calls {
            return Err(wasmtime::Error::new(HostCallLimit { limit: self.meter.max_host_calls }));
        }
        if self.control.stopped() {
            return Err(wasmtime::Error::new(Stopped));
        }
        self.progress.flush();
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
        self.meter.denials = self.meter.denials.saturating_add(1);
        let capability = rule.split('.').next().unwrap_or(rule).to_owned();
        self.recorder.uses().denied(&refused.rule);
        tracing::warn!(
            target: "audit",
            invocation = %self.facts.invocation, plugin = %self.facts.plugin, caller = %self.facts.caller,
            rule = %refused.rule, planned = self.recorder.is_plan(), %message, "denied"
        );
        Failure::Denied { capability, rule: refused.rule.clone(), message }
    }

    /// The way to change the host: journaled, applied, answered; or planned. While it runs, a
    /// timeout or cancel waits a grace time, so that no effect is torn. An effect that its
    /// plan does not have ends the invocation.
    ///
    /// # Errors
    /// The recorder's or the capability's failure.
    pub(crate) async fn perform<T: DeserializeOwned>(&mut self, effect: Effect) -> Result<T, Failure> {
        let _held = self.control.in_effect();
        let performed = self.recorder.perform(effect).await;
        if self.recorder.departed().is_some() {
            self.control.stop();
        }
        let answer = performed?;
        serde_json::from_value(answer).map_err(|e| Failure::Failed(format!("the effect's answer is malformed: {e}")))
    }
}

impl WasiView for Call {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("facts", &self.facts).field("meter", &self.meter).finish_non_exhaustive()
    }
}

/// `types` holds no functions; the generated trait wants to be implemented all the same.
impl wit::types::Host for Call {}

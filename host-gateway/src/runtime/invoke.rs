//! One invocation: a fresh store, arguments lifted, the verb called under all limits, the
//! result lowered, everything that happened put into the report. The store never outlives
//! it, however it ends.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use viworks_protocol::outcome::{Cost, Outcome, Report};
use viworks_signing::grant::Grant;
use viworks_signing::release::Limits;
use wasmtime::Store;
use wasmtime::component::Val;

use super::control::Control;
use super::limits::hostcall_fuel;
use super::outcome::{Ended, Halt};
use super::prepared::{Prepared, Verb};
use super::values;
use crate::capabilities::{Call, Facts, Progress};
use crate::effects::Recorder;
use crate::host::Host;

/// How long an effect that is being applied may go on after a timeout or cancel.
const EFFECT_GRACE: Duration = Duration::from_secs(10);

/// What one invocation runs with. `facts.deadline` says when it ends at the latest.
#[derive(Debug)]
pub struct Invocation {
    pub facts: Facts,
    pub grant: Arc<Grant>,
    pub host: Arc<Host>,
    pub recorder: Recorder,
    pub limits: Limits,
    pub cancel: CancellationToken,
    pub progress: Progress,
}

/// Unix milliseconds by this host's clock.
#[must_use]
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Prepared {
    /// Run `verb` with `args` and say how it ended. Never fails in another way.
    pub async fn invoke(&self, verb: &str, args: &Map<String, Value>, invocation: Invocation) -> Report {
        let started_ms = unix_ms();
        let Some(verb) = self.verbs().get(verb) else {
            return Report::refused(Outcome::Failed, "plugin", format!("no verb {verb:?} in this plugin"), started_ms);
        };
        let started = Instant::now();
        let params = match values::lift_args(&verb.params, args) {
            Ok(params) => params,
            Err(misfit) => {
                let ended = Ended::arguments(&misfit);
                return Report::refused(ended.outcome, &ended.failure.code, ended.failure.message, started_ms);
            }
        };
        let deadline = invocation.facts.deadline;
        let (limits, cancel) = (invocation.limits, invocation.cancel.clone());
        let mut store = self.store(invocation);
        let control = store.data().control.clone();

        let running = self.runtime.running();
        let called = control.metered(self.call(&mut store, verb, &params));
        let ended = supervise(called, &control, started, deadline, &cancel).await;
        drop(running);

        let mut call = store.into_data();
        let output_limit = limits.output_kib as usize * 1024;
        let ended = match ended {
            _ if let Some(departed) = call.recorder.departed() => Err(Ended::failed("plan-departed", departed)),
            Err(halt) => Err(Ended::halted(halt)),
            Ok(Err(error)) => Err(Ended::error(&error, call.limiter.refused(), &call.log.stderr_tail())),
            Ok(Ok(result)) => lower(&result, verb, output_limit),
        };
        let plan = call.recorder.end(ended.is_ok()).await;
        let mut report = call.finish(ended);
        report.plan = plan;
        report.cost.wall_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        report.started_ms = started_ms;
        report.finished_ms = unix_ms();
        report
    }

    pub(super) fn store(&self, invocation: Invocation) -> Store<Call> {
        let Invocation { facts, grant, host, recorder, limits, cancel: _, progress } = invocation;
        let mut call = Call::new(facts, grant, host, recorder, &limits);
        call.progress = progress;
        let mut store = Store::new(self.runtime.engine(), call);
        store.limiter(|call| &mut call.limiter);
        store.set_hostcall_fuel(hostcall_fuel(&limits));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |context| context.data().control.at_epoch(limits.cpu_ms));
        store
    }

    async fn call(&self, store: &mut Store<Call>, verb: &Verb, params: &[Val]) -> wasmtime::Result<Val> {
        let timings = store.data().recorder.timings().clone();
        let began = timings.start();
        let instance = self.pre.instantiate_async(&mut *store).await;
        timings.end("instantiate", began, instance.is_err());
        let instance = instance?;
        let func = instance
            .get_func(&mut *store, verb.export)
            .ok_or_else(|| wasmtime::format_err!("the verb's function is gone"))?;
        let mut results = [Val::Bool(false)];
        func.call_async(&mut *store, params, &mut results).await?;
        let [result] = results;
        Ok(result)
    }
}

/// Wait for the call, its deadline or its cancel. The last two tell the guest to stop at
/// its next host call or epoch; only where an effect is being applied is it given time,
/// and if it then succeeds before it notices, it succeeded.
async fn supervise(
    called: impl Future<Output = wasmtime::Result<Val>>,
    control: &Control,
    started: Instant,
    deadline: Instant,
    cancel: &CancellationToken,
) -> Result<wasmtime::Result<Val>, Halt> {
    let mut called = std::pin::pin!(called);
    let halt = tokio::select! {
        biased;
        ended = &mut called => return Ok(ended),
        () = cancel.cancelled() => Halt::Cancelled,
        () = tokio::time::sleep_until(deadline.into()) => {
            Halt::Timeout { secs: deadline.saturating_duration_since(started).as_secs() }
        }
    };
    control.stop();
    if control.is_in_effect()
        && let Ok(Ok(result)) = tokio::time::timeout(EFFECT_GRACE, &mut called).await
    {
        return Ok(Ok(result));
    }
    Err(halt)
}

fn lower(result: &Val, verb: &Verb, limit: usize) -> Result<Option<Box<RawValue>>, Ended> {
    let (val, ty) = match (result, &verb.ok) {
        (Val::Result(Err(Some(failure))), _) => return Err(Ended::guest(failure)),
        (Val::Result(Ok(None)), None) => return Ok(None),
        (Val::Result(Ok(Some(val))), Some(ty)) => (val, ty),
        _ => return Err(Ended::failed("failed", "the result is not of the verb's type")),
    };
    let text = values::lower(val, ty, limit).map_err(Ended::lowering)?;
    RawValue::from_string(text).map(Some).map_err(|e| Ended::failed("failed", e.to_string()))
}

impl Call {
    /// What happened, whatever the end. Times but the cpu's are the caller's.
    fn finish(self, ended: Result<Option<Box<RawValue>>, Ended>) -> Report {
        let cost = Cost {
            wall_us: 0,
            cpu_us: u64::try_from(self.control.spent().as_micros()).unwrap_or(u64::MAX),
            peak_memory_bytes: self.limiter.peak() as u64,
            host_calls: self.meter.host_calls,
            denials: self.meter.denials,
        };
        let (effects, unknown) = (self.recorder.reports(), self.recorder.is_unknown());
        let log = self.log.clone();
        // The last handles of stdout and stderr go, which ends their unfinished lines.
        drop(self);
        let (log, log_truncated) = log.take();
        let (outcome, result, failure) = match ended {
            Ok(result) => (Outcome::Succeeded, result, None),
            // Whatever ended it: nobody can say that nothing is left of it.
            Err(Ended { failure, .. }) if unknown => (Outcome::Unknown, None, Some(failure)),
            Err(Ended { outcome, failure }) => (outcome, None, Some(failure)),
        };
        Report {
            outcome,
            result,
            failure,
            effects,
            plan: None,
            receipt: None,
            shadow: None,
            log,
            log_truncated,
            cost,
            timings: Vec::new(),
            started_ms: 0,
            finished_ms: 0,
        }
    }
}

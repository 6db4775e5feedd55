//! Run a recording again, on any machine: the component gets the recorded arguments and,
//! to every call, the recorded answer. Nothing on this machine is read or changed. Says the
//! first call that differs, and what came out otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use viworks_protocol::id::InvocationId;
use viworks_signing::grant::{Grant, Scopes};
use viworks_signing::release::{EffectClass, Limits};
use wasmtime::component::Component;

use super::file::{End, Recording};
use super::tape::{Departure, Tape};
use crate::capabilities::{Facts, Progress};
use crate::effects::Recorder;
use crate::host::{Host, HostConfig};
use crate::journal::{Journal, JournalError};
use crate::runtime::{EngineError, Invocation, PrepareError, Prepared, Runtime, RuntimeConfig};

/// Nothing waits for a host here: only a guest that does not end needs it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A recording beside the run of another component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replayed {
    /// Calls, outcome, result and effects are the same.
    pub equal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub departure: Option<Departure>,
    pub recorded: End,
    pub replayed: End,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the recording is not whole: it was cut at its bound, and what is missing can't be answered")]
    Truncated,
    #[error("the recording's invocation id is malformed")]
    Invocation(#[source] viworks_protocol::id::IdError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("not a component that this gateway could run")]
    Component(#[source] wasmtime::Error),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// Run `component` against the recording.
///
/// # Errors
/// When it can't be run at all; a departure is no error.
pub async fn replay(recording: &Recording, component: &[u8]) -> Result<Replayed, ReplayError> {
    if recording.end.truncated {
        return Err(ReplayError::Truncated);
    }
    let head = &recording.head;
    let invocation: InvocationId = head.invocation.parse().map_err(ReplayError::Invocation)?;
    let runtime = Arc::new(Runtime::new(RuntimeConfig::default())?);
    let component = Component::new(runtime.engine(), component).map_err(ReplayError::Component)?;
    // Every capability: what was granted shows in the recorded answers.
    let (all, limits) = (everything(), limits());
    let grant = Arc::new(Grant::of(&all, [], &all));
    let prepared = Prepared::new(&runtime, &component, &grant)?;

    let tape = Tape::recorded(recording.events.clone());
    let host = Arc::new(Host::new(&HostConfig::default()));
    let journal = Journal::unusable(JournalError::Stopped);
    let recorder = Recorder::new(invocation, EffectClass::Read, journal, Arc::clone(&host)).with_tape(tape.clone());
    let facts = Facts {
        invocation: head.invocation.clone(),
        command: head.command.clone(),
        agent: head.agent.clone(),
        caller: head.caller.clone(),
        verb: head.verb.clone(),
        plugin: head.plugin.clone(),
        deadline: Instant::now() + DEADLINE,
    };
    let (cancel, progress) = (CancellationToken::new(), Progress::silent());
    let run = Invocation { facts, grant, host, recorder, limits, cancel, progress };
    let report = prepared.invoke(&head.verb, &head.args, run).await;

    let departure = tape.departure();
    let made = tape.effects_played() as usize;
    let effects = recording.end.effects.iter().take(made).cloned().collect();
    let replayed = match tape.has_ended() {
        true => recording.end.clone(),
        false => End { effects, ..End::of(&report, &tape) },
    };
    let equal = departure.is_none() && same(&recording.end, &replayed);
    Ok(Replayed { equal, departure, recorded: recording.end.clone(), replayed })
}

/// Messages are for people: a reworded one is no other outcome.
fn same(recorded: &End, replayed: &End) -> bool {
    let failure = |end: &End| end.failure.as_ref().map(|f| (f.code.clone(), f.rule.clone()));
    recorded.outcome == replayed.outcome
        && failure(recorded) == failure(replayed)
        && recorded.result == replayed.result
        && recorded.effects == replayed.effects
}

fn everything() -> Scopes {
    Scopes {
        accounts: Some(Default::default()),
        vpn: Some(Default::default()),
        system: Some(Default::default()),
        containers: Some(Default::default()),
        scripts: Some(Default::default()),
        state: Some(Default::default()),
        secrets: Some(Default::default()),
    }
}

/// Those of the recorded host are not known here; these end what does not end.
fn limits() -> Limits {
    Limits { memory_mib: 256, cpu_ms: 30_000, host_calls: 100_000, output_kib: 1_024, log_kib: 512, instances: 200 }
}

impl Replayed {
    /// For people: one line, or where and how it departs.
    #[must_use]
    pub fn in_words(&self) -> String {
        if self.equal {
            return format!("equal: {}, {} effects", self.recorded.outcome.as_str(), self.recorded.effects.len());
        }
        let mut lines = vec!["departs from the recording".to_owned()];
        if let Some(Departure { at, recorded, called }) = &self.departure {
            let shown = |call: &Option<Value>| call.as_ref().map_or("nothing".into(), Value::to_string);
            lines.push(format!("  host call {at}"));
            lines.push(format!("    recorded  {}", shown(recorded)));
            lines.push(format!("    called    {}", shown(called)));
        }
        let mut pair = |what: &str, recorded: String, replayed: String| {
            if recorded != replayed {
                lines.push(format!("  {what}\n    recorded  {recorded}\n    replayed  {replayed}"));
            }
        };
        let ended = |end: &End| {
            let failure = end.failure.as_ref().map(|f| format!(" ({}: {})", f.code, f.message));
            format!("{}{}", end.outcome.as_str(), failure.unwrap_or_default())
        };
        let result = |end: &End| end.result.as_ref().map_or("none".into(), Value::to_string);
        let effects = |end: &End| {
            let all: Vec<&str> = end.effects.iter().map(|effect| effect.summary.as_str()).collect();
            if all.is_empty() { "none".into() } else { all.join("; ") }
        };
        pair("outcome", ended(&self.recorded), ended(&self.replayed));
        pair("result", result(&self.recorded), result(&self.replayed));
        pair("effects", effects(&self.recorded), effects(&self.replayed));
        lines.join("\n")
    }
}

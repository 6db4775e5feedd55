//! What ended an invocation, as the typed failure that operators see. `code` is stable;
//! a limit's failure names the limit in `rule`, as the release writes it.

use viworks_protocol::outcome::{Failure, Outcome};
use wasmtime::component::Val;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::control::CpuLimit;
use super::values::{LowerError, Misfit};
use crate::capabilities::{HostCallLimit, Stopped};

/// Longer texts of guests are cut.
const MAX_MESSAGE: usize = 4 * 1024;

/// An end other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) failure: Failure,
}

/// Why a supervisor ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Halt {
    Timeout { secs: u64 },
    Cancelled,
}

impl Ended {
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        let failure = Failure { code: code.to_owned(), message: cut(message.into()), rule: None };
        Self { outcome: Outcome::Failed, failure }
    }

    fn limit(rule: &str, message: impl Into<String>) -> Self {
        let mut ended = Self::failed("limit", message);
        ended.failure.rule = Some(format!("limits.{rule}"));
        ended
    }

    pub(crate) fn arguments(misfit: &Misfit) -> Self {
        Self::failed("invalid-argument", misfit.to_string())
    }

    pub(crate) fn halted(halt: Halt) -> Self {
        match halt {
            Halt::Timeout { secs } => Self::failed("timeout", format!("not done after {secs} s")),
            Halt::Cancelled => {
                Self { outcome: Outcome::Cancelled, ..Self::failed("cancelled", "cancelled while it ran") }
            }
        }
    }

    pub(crate) fn lowering(error: LowerError) -> Self {
        match error {
            LowerError::TooLarge { .. } => Self::limit("outputKib", error.to_string()),
            LowerError::Mistyped => Self::failed("failed", error.to_string()),
        }
    }

    /// The guest's own failure: a value of the WIT type `failure`.
    pub(crate) fn guest(val: &Val) -> Self {
        let text = |payload: Option<&Val>| match payload {
            Some(Val::String(text)) => text.clone(),
            _ => String::new(),
        };
        match val {
            Val::Variant(case, payload) if case == "denied" => {
                let field = |name: &str| match payload.as_deref() {
                    Some(Val::Record(fields)) => {
                        text(fields.iter().find(|(field, _)| field == name).map(|(_, val)| val))
                    }
                    _ => String::new(),
                };
                let mut ended = Self::failed("denied", field("message"));
                ended.outcome = Outcome::Denied;
                ended.failure.rule = Some(cut(field("rule")));
                ended
            }
            Val::Variant(case, payload) => Self::failed(case, text(payload.as_deref())),
            _ => Self::failed("failed", "the verb failed without a failure"),
        }
    }

    /// A trap, or an error of a host function. `memory_refused`: the guest was refused
    /// memory before; `stderr`: the end of what it wrote, a panic's text.
    pub(crate) fn error(error: &wasmtime::Error, memory_refused: bool, stderr: &str) -> Self {
        if let Some(limit) = error.downcast_ref::<HostCallLimit>() {
            return Self::limit("hostCalls", limit.to_string());
        }
        if let Some(limit) = error.downcast_ref::<CpuLimit>() {
            return Self::limit("cpuMs", limit.to_string());
        }
        if error.is::<Stopped>() {
            return Self::halted(Halt::Cancelled);
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Self::failed("busy", "no room for another instance");
        }
        // Wasmtime gives these two no type. The texts are pinned by tests.
        let text = format!("{error:#}");
        if text.contains("fuel allocated for hostcalls has been exhausted") {
            return Self::limit("outputKib", "more data at once than may be copied out of the guest");
        }
        if text.contains("instance count too high") {
            return Self::limit("instances", "more core instances than the limit");
        }
        if memory_refused {
            return Self::limit("memoryMib", with_stderr("it ended for want of memory", stderr));
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return Self::failed("trap", with_stderr(&trap.to_string(), stderr));
        }
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Self::failed("trap", with_stderr(&exit.to_string(), stderr));
        }
        Self::failed("trap", with_stderr(&text, stderr))
    }
}

fn with_stderr(message: &str, stderr: &str) -> String {
    if stderr.is_empty() { message.to_owned() } else { format!("{message}: {stderr}") }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_MESSAGE));
    text
}

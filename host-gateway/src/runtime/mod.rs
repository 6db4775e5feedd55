//! Runs verbs: one engine, components prepared once, a fresh and sealed store for each
//! invocation, every limit enforced.
//!
//! - [`engine`]: the one wasmtime engine, its pool and its clock
//! - [`prepared`]: a component, compiled and linked against what its grant allows
//! - [`invoke`]: one invocation from arguments to report
//! - [`trial`]: one instance before anybody's, the self-test
//! - [`values`]: JSON to component values and back, by the component's own types
//! - [`limits`]: memory, tables, instances; what a host call may copy
//! - [`control`]: cpu budget, stop, and effects that must not be torn
//! - [`capture`]: the bounded log, which stdout and stderr end in
//! - [`sealed`]: the little of WASI that guests get
//! - [`outcome`]: what went wrong in a guest, as a typed failure

mod capture;
mod control;
mod engine;
mod invoke;
mod limits;
mod outcome;
mod prepared;
pub(crate) mod sealed;
mod ticker;
mod trial;
pub mod values;

pub use capture::LogBook;
pub use control::{Control, CpuLimit};
pub use engine::{EngineError, Runtime, RuntimeConfig, SHADOWS, compile};
pub use invoke::{Invocation, unix_ms};
pub use limits::Limiter;
pub use prepared::{PrepareError, Prepared, Verb};
pub use trial::TrialError;
#[cfg(test)]
pub(crate) use trial::nobody;

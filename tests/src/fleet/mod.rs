//! Simulated gateways: the real protocol over real mutual TLS, with no wasm host behind.
//! They answer every verb at once, or misbehave as told.

mod agent;
mod tls;

pub use agent::{Answers, Behaviour, run_agent};
pub use tls::connector;

use std::sync::atomic::{AtomicU64, Ordering};

/// What a fleet did so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub connected: AtomicU64,
    pub refused: AtomicU64,
    pub disconnected: AtomicU64,
    pub invocations: AtomicU64,
    pub results: AtomicU64,
    pub acks: AtomicU64,
}

impl Counts {
    /// One JSON object, for a line of output.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        serde_json::json!({
            "connected": read(&self.connected),
            "refused": read(&self.refused),
            "disconnected": read(&self.disconnected),
            "invocations": read(&self.invocations),
            "results": read(&self.results),
            "acks": read(&self.acks),
        })
    }
}

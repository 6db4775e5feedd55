//! Simulated gateways: the real protocol over real mutual TLS, with no wasm host behind.
//! They answer every verb at once, or misbehave as told; they fetch plugins and check the
//! bytes, if told.

mod agent;
mod memory;
mod plugins;
mod tls;

pub use agent::{Answers, Behaviour, run_agent};
pub use tls::connector;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cluster::write_secret;
use crate::pki::Ca;

/// What a fleet did so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub connected: AtomicU64,
    pub refused: AtomicU64,
    pub disconnected: AtomicU64,
    /// Sessions at this moment.
    pub online: AtomicU64,
    /// Orders that came, again or for the first time.
    pub invocations: AtomicU64,
    /// What was done, each once; and orders for what had been done.
    pub executed: AtomicU64,
    pub repeated: AtomicU64,
    pub results: AtomicU64,
    pub acks: AtomicU64,
    /// Plugins that came whole, and those whose bytes were others.
    pub fetched: AtomicU64,
    pub mismatched: AtomicU64,
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
            "online": read(&self.online),
            "executed": read(&self.executed),
            "repeated": read(&self.repeated),
            "invocations": read(&self.invocations),
            "results": read(&self.results),
            "acks": read(&self.acks),
            "fetched": read(&self.fetched),
            "mismatched": read(&self.mismatched),
        })
    }
}

/// Make the certificates of `PREFIX-N` for each number, and the CA's, as `viworks-fleet`
/// reads them.
///
/// # Errors
/// When they can't be made or written.
pub fn write_identities(ca: &Ca, dir: &Path, prefix: &str, numbers: Range<u32>) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("ca.pem"), ca.cert_pem())?;
    for n in numbers {
        let id = format!("{prefix}-{n}");
        let identity = ca.agent(&id).map_err(std::io::Error::other)?;
        std::fs::write(dir.join(format!("{id}.pem")), &identity.cert_pem)?;
        write_secret(&dir.join(format!("{id}.key.pem")), &identity.key_pem)?;
    }
    Ok(())
}

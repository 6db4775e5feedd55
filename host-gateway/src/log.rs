//! Where log lines and audit records go: lines to standard error, as JSON or as text,
//! filtered by `RUST_LOG`; audit events to the audit log, whatever the filter says.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::audit::{self, Audit};

/// Install both. `json` of `None` means: unless a person watches.
///
/// # Errors
/// When something else is installed already.
pub fn init(json: Option<bool>, audit: &Audit) -> Result<(), TryInitError> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match json.unwrap_or_else(|| !std::io::stderr().is_terminal()) {
        true => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        false => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let records = audit.layer().with_filter(Targets::new().with_target(audit::TARGET, tracing::Level::TRACE));
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(records).try_init()
}

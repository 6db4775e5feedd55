//! Where log lines and audit records go: lines to standard error, as JSON or as text,
//! filtered by `RUST_LOG`; audit events to the audit log, whatever the filter says.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::audit::{self, Audit};

/// What `RUST_LOG` says. What went well has its audit record and needs no second line, unless
/// it is asked for.
fn directives(asked: &str) -> String {
    match asked {
        "" => format!("{},{}=warn", LevelFilter::INFO, audit::TARGET),
        asked if asked.contains(audit::TARGET) => asked.to_owned(),
        asked => format!("{asked},{}=warn", audit::TARGET),
    }
}

/// Install both. `json` of `None` means: unless a person watches.
///
/// # Errors
/// When something else is installed already.
pub fn init(json: Option<bool>, audit: &Audit) -> Result<(), TryInitError> {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = EnvFilter::builder().parse_lossy(directives(&asked));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match json.unwrap_or_else(|| !std::io::stderr().is_terminal()) {
        true => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        false => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let records = audit.layer().with_filter(Targets::new().with_target(audit::TARGET, tracing::Level::TRACE));
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(records).try_init()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_records_are_lines_too_only_where_asked_for() {
        let level = |asked: &str| EnvFilter::builder().parse_lossy(directives(asked)).to_string();
        assert!(level("").contains("audit=warn") && level("").contains("info"), "{}", level(""));
        assert!(level("debug").contains("audit=warn"));
        assert!(level("warn,audit=info").contains("audit=info"));
    }
}

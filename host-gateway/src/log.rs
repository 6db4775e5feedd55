//! Where log lines and audit records go: lines to standard error, as JSON, ECS or text,
//! filtered by `RUST_LOG`; audit events to the audit log, whatever the filter says.

use std::io::IsTerminal as _;

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use viworks_protocol::ecs;

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

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Text,
    /// JSON in the Elastic Common Schema, the audit log too.
    Ecs,
}

impl Format {
    /// `json`, `text` or `ecs`.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "json" => Some(Self::Json),
            "text" => Some(Self::Text),
            "ecs" => Some(Self::Ecs),
            _ => None,
        }
    }
}

/// Install both. `format` of `None` means JSON unless a person watches.
///
/// # Errors
/// When something else is installed already.
pub fn init(format: Option<Format>, service: &ecs::Service, audit: &Audit) -> Result<(), TryInitError> {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = EnvFilter::builder().parse_lossy(directives(&asked));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let person = std::io::stderr().is_terminal();
    let lines = match format.unwrap_or(if person { Format::Text } else { Format::Json }) {
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        Format::Text => lines.with_ansi(person).boxed(),
        Format::Ecs => lines.event_format(EcsLines(service.clone())).boxed(),
    };
    let records = audit.layer().with_filter(Targets::new().with_target(audit::TARGET, tracing::Level::TRACE));
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(records).try_init()
}

/// A line in the Elastic Common Schema.
struct EcsLines(ecs::Service);

impl<S, N> FormatEvent<S, N> for EcsLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let metadata = event.metadata();
        let at = audit::rfc3339(OffsetDateTime::now_utc());
        let mut line = self.0.line(&at, metadata.level().as_str(), metadata.target());
        event.record(&mut Fields(&mut line));
        let text = serde_json::to_string(&line.into_map()).map_err(|_| std::fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

struct Fields<'a>(&'a mut ecs::Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.field(field.name(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.field(field.name(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.field(field.name(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.field(field.name(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.field(field.name(), value.into());
    }
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

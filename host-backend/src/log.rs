//! Where log lines go: to standard error, as JSON, as text, or as JSON in the Elastic Common
//! Schema with the audit record in it; filtered by `RUST_LOG`.

use serde_json::Value;
use std::io::{self, IsTerminal as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;
use viworks_protocol::ecs;

use crate::clock::{Clock, rfc3339};
use crate::config::LogFormat;

/// The target of audit entries: stored anyway, and lines where somebody collects them.
pub const AUDIT: &str = "audit";

/// Text on a terminal, JSON lines elsewhere, unless configured.
pub(crate) fn init(format: Option<LogFormat>, node: Option<String>) {
    let person = io::stderr().is_terminal();
    let format = format.unwrap_or(if person { LogFormat::Text } else { LogFormat::Json });
    let default = if format == LogFormat::Ecs { "info".to_owned() } else { format!("info,{AUDIT}=off") };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.init(),
        LogFormat::Ecs => {
            let service = ecs::Service { name: "viworks-backend", version: env!("CARGO_PKG_VERSION"), node };
            builder.fmt_fields(JsonFields::new()).event_format(EcsLines(service)).init();
        }
    }
}

/// A line in the Elastic Common Schema; the fields of the spans around it are its own.
#[derive(Debug)]
struct EcsLines(ecs::Service);

impl<S, N> FormatEvent<S, N> for EcsLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let metadata = event.metadata();
        let at = rfc3339(Clock::default().now_ms());
        let mut line = self.0.line(&at, metadata.level().as_str(), metadata.target());
        event.record(&mut Fields(&mut line));
        for span in ctx.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let Some(fields) = extensions.get::<FormattedFields<N>>() else { continue };
            let Ok(Value::Object(fields)) = serde_json::from_str(&fields.fields) else { continue };
            for (field, value) in fields {
                // A request's id is not a label of its own.
                line.field(if span.name() == "request" && field == "id" { "request_id" } else { &field }, value);
            }
        }
        let text = serde_json::to_string(&line.into_map()).map_err(|_| std::fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

struct Fields<'a>(&'a mut ecs::Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.field(field.name(), format!("{value:?}").into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.field(field.name(), crate::api::problem::chain(value).into());
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
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::Error::other("poisoned"))?.extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_line_has_its_request_s_fields_and_its_error() {
        let lines = Lines::default();
        let service = ecs::Service { name: "viworks-backend", version: "0", node: None };
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .fmt_fields(JsonFields::new())
            .event_format(EcsLines(service))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", id = "r-1", method = "GET", route = "/agents", trace_id = "ab");
            let error = io::Error::other("gone");
            span.in_scope(|| tracing::warn!(error = &error as &dyn std::error::Error, micros = 7_u64, "not read"));
        });
        let text = lines.0.lock().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let line: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!((&line["message"], &line["log.level"]), (&"not read".into(), &"warn".into()));
        assert_eq!((&line["http.request.id"], &line["http.request.method"]), (&"r-1".into(), &"GET".into()));
        assert_eq!((&line["error.message"], &line["trace.id"]), (&"gone".into(), &"ab".into()));
        assert_eq!((&line["event.duration"], &line["labels"]["route"]), (&7_000.into(), &"/agents".into()));
    }
}

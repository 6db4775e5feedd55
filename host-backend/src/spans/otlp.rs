//! OTLP's JSON form of spans (opentelemetry-proto 1, `ExportTraceServiceRequest`): ids in
//! hex, times as strings of nanoseconds. Written by hand: it is small and stable, and the
//! usual crates bring an HTTP stack of their own.

use serde_json::{Value, json};

use super::Span;

/// One request with all of these spans.
pub(super) fn request(spans: &[Span], instance: &str) -> Value {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": [
            attribute("service.name", "viworks-backend"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", instance),
        ]},
        "scopeSpans": [{"scope": {"name": "viworks", "version": env!("CARGO_PKG_VERSION")}, "spans": spans}],
    }]})
}

fn span(span: &Span) -> Value {
    let attributes: Vec<Value> = span.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let mut written = json!({
        "traceId": span.context.trace_id(),
        "spanId": hex::encode(span.context.span),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "attributes": attributes,
        // 2 is an error, 0 says nothing.
        "status": {"code": if span.failed { 2 } else { 0 }},
    });
    if let Some(parent) = &span.parent {
        written["parentSpanId"] = hex::encode(parent).into();
    }
    written
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

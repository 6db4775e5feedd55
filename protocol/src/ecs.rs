//! Log lines in the Elastic Common Schema, the same from both programs: which of our fields
//! is which of ECS, and the rest as bounded labels. Pure values; who logs brings the time.

use serde_json::{Map, Value};

/// The version of the schema whose names are used.
pub const VERSION: &str = "8.11.0";

/// Labels of one line, and characters of one value. More is cut.
const MAX_LABELS: usize = 32;
const MAX_VALUE: usize = 1_024;
const MAX_MESSAGE: usize = 8_192;

/// Who logs.
#[derive(Debug, Clone)]
pub struct Service {
    /// `viworks-backend` or `viworks-gateway`.
    pub name: &'static str,
    pub version: &'static str,
    /// Which of them: an instance's or an agent's id.
    pub node: Option<String>,
}

/// One line on its way.
#[derive(Debug)]
pub struct Line {
    map: Map<String, Value>,
    labels: Map<String, Value>,
}

impl Service {
    /// A line: `at` is RFC 3339, `level` a word, `target` the module or `audit`.
    #[must_use]
    pub fn line(&self, at: &str, level: &str, target: &str) -> Line {
        let mut map = Map::new();
        let mut put = |key: &str, value: &str| drop(map.insert(key.to_owned(), Value::String(value.to_owned())));
        put("@timestamp", at);
        put("log.level", &level.to_ascii_lowercase());
        // The third by the specification of ECS logging; its text comes later.
        put("message", "");
        put("ecs.version", VERSION);
        put("service.name", self.name);
        put("service.version", self.version);
        if let Some(node) = &self.node {
            put("service.node.name", node);
        }
        put("event.module", "viworks");
        put("event.dataset", if target == "audit" { "viworks.audit" } else { self.name });
        put("event.kind", "event");
        put("log.logger", target);
        Line { map, labels: Map::new() }
    }
}

/// Our field's name in ECS; `None` makes it a label.
fn name(field: &str) -> Option<&'static str> {
    Some(match field {
        "message" => "message",
        "error" | "cause" => "error.message",
        "trace_id" => "trace.id",
        "span_id" => "span.id",
        "actor" | "caller" => "user.name",
        "action" | "event" => "event.action",
        "reason" | "detail" | "why" => "event.reason",
        "rule" => "rule.name",
        "peer" => "source.address",
        "method" => "http.request.method",
        "status" => "http.response.status_code",
        "request_id" => "http.request.id",
        _ => return None,
    })
}

fn cut(value: Value, most: usize) -> Value {
    match value {
        Value::String(text) if text.len() > most => {
            Value::String(text.get(..text.floor_char_boundary(most)).unwrap_or_default().to_owned())
        }
        value => value,
    }
}

impl Line {
    /// A field of an event, or of a span around it. The first of a name counts.
    pub fn field(&mut self, field: &str, value: Value) {
        if value.is_null() {
            return;
        }
        match (field, name(field)) {
            ("message", _) => drop(self.map.insert("message".to_owned(), cut(value, MAX_MESSAGE))),
            ("decision", _) => {
                let outcome = if value == "refused" { "failure" } else { "success" };
                self.put("event.outcome", outcome.into());
                self.label("decision", value);
            }
            ("micros", _) => {
                // Nanoseconds in ECS.
                let ns = value.as_u64().unwrap_or(0).saturating_mul(1_000);
                self.put("event.duration", ns.into());
            }
            (_, Some(name)) => self.put(name, value),
            (_, None) => self.label(field, value),
        }
    }

    fn put(&mut self, name: &str, value: Value) {
        self.map.entry(name).or_insert(cut(value, MAX_VALUE));
    }

    /// ECS wants labels to be keywords.
    fn label(&mut self, field: &str, value: Value) {
        let key: String = field.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if self.labels.len() >= MAX_LABELS || self.labels.contains_key(&key) {
            return;
        }
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        self.labels.insert(key, cut(Value::String(text), MAX_VALUE));
    }

    /// The line, without its end.
    #[must_use]
    pub fn into_map(mut self) -> Map<String, Value> {
        if self.map.get("message").is_some_and(|m| m == "")
            && let Some(action) = self.map.get("event.action").cloned()
        {
            self.map.insert("message".to_owned(), action);
        }
        if !self.labels.is_empty() {
            self.map.insert("labels".to_owned(), Value::Object(self.labels));
        }
        self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        Service { name: "viworks-gateway", version: "0.1.0", node: Some("web-01".into()) }
    }

    #[test]
    fn our_fields_have_their_names_in_the_schema() {
        let mut line = service().line("2026-01-31T09:05:00.000Z", "WARN", "audit");
        for (field, value) in [
            ("event", json!("order")),
            ("decision", json!("refused")),
            ("rule", json!("warrant")),
            ("caller", json!("alice")),
            ("invocation", json!("inv-1")),
            ("effects", json!(3)),
            ("error", json!("expired")),
            ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ] {
            line.field(field, value);
        }
        assert_eq!(
            Value::Object(line.into_map()),
            json!({
                "@timestamp": "2026-01-31T09:05:00.000Z", "log.level": "warn", "message": "order", "ecs.version": VERSION,
                "service.name": "viworks-gateway", "service.version": "0.1.0", "service.node.name": "web-01",
                "event.module": "viworks", "event.dataset": "viworks.audit", "event.kind": "event", "log.logger": "audit",
                "event.action": "order", "event.outcome": "failure", "rule.name": "warrant", "user.name": "alice",
                "error.message": "expired", "trace.id": "4bf92f3577b34da6a3ce929d0e0e4736",
                "labels": {"decision": "refused", "invocation": "inv-1", "effects": "3"},
            })
        );
    }

    #[test]
    fn a_line_has_bounds() {
        let mut line = service().line("t", "INFO", "x");
        line.field("message", json!("é".repeat(9_000)));
        for n in 0..100 {
            line.field(&format!("field {n}"), json!("v".repeat(5_000)));
        }
        let map = line.into_map();
        assert_eq!(map["message"].as_str().map(str::len), Some(MAX_MESSAGE));
        let labels = map["labels"].as_object().map(Map::len);
        assert_eq!((labels, map["labels"]["field_0"].as_str().map(str::len)), (Some(MAX_LABELS), Some(MAX_VALUE)));
    }
}

//! What a schema expects, in words.

use serde_json::Value;

use super::value::{alternatives, kind};

/// For example `a whole number from 1 to 100, for example 3`.
#[must_use]
pub fn expectation(schema: &Value) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut choices: Vec<String> = Vec::new();
    for schema in alternatives(schema) {
        match (schema.get("const"), schema["enum"].as_array()) {
            (Some(only), _) => choices.push(word(only)),
            (None, Some(several)) => choices.extend(several.iter().filter(|v| !v.is_null()).map(word)),
            (None, None) if kind(schema) == Some("null") => {}
            (None, None) => words.push(one(schema)),
        }
    }
    match choices.as_slice() {
        [] => {}
        [only] => words.insert(0, only.clone()),
        several => words.insert(0, format!("one of {}", several.join(", "))),
    }
    let mut text = words.join(" or ");
    // Of an optional variant, the constraints are inside.
    let examples = schema.get("examples").or_else(|| schema.pointer("/anyOf/0/examples"));
    if let Some(example) = examples.and_then(Value::as_array).and_then(|all| all.first()) {
        text.push_str(&format!(", for example {}", word(example)));
    }
    text
}

fn one(schema: &Value) -> String {
    match kind(schema) {
        Some("boolean") => "true or false".into(),
        Some("integer") => format!("a whole number{}", range(schema)),
        Some("number") => format!("a number{}", range(schema)),
        Some("string") if !schema["contentEncoding"].is_null() => "base64, or @FILE".into(),
        Some("string") => text(schema),
        Some("array") if !schema["prefixItems"].is_null() => {
            let items = schema["prefixItems"].as_array().into_iter().flatten();
            format!("a JSON array of {}", items.map(expectation).collect::<Vec<_>>().join(", then "))
        }
        Some("array") => {
            let most = schema["maxItems"].as_u64().map(|n| format!(" of at most {n}")).unwrap_or_default();
            format!("a list{most}, each {}", expectation(&schema["items"]))
        }
        Some("object") => {
            let fields = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
            format!("a JSON object of {}", fields.collect::<Vec<_>>().join(", "))
        }
        _ => "JSON".into(),
    }
}

fn range(schema: &Value) -> String {
    match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    }
}

fn text(schema: &Value) -> String {
    let mut text = match (schema["minLength"].as_u64(), schema["maxLength"].as_u64()) {
        (Some(1), Some(1)) => "one character".into(),
        (_, Some(most)) => format!("text of at most {most} characters"),
        (_, None) => "text".into(),
    };
    if let Some(pattern) = schema["pattern"].as_str() {
        text.push_str(&format!(" matching {pattern}"));
    }
    text
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().map(word).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}
